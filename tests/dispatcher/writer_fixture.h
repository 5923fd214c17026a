/* A writer for the tests of services: it takes writes, and commits them to a
 * real journal when the test says so. A test's __wrap_writer_submit hands them
 * on:
 *
 *     w->writer.reply_to = the context's replies;
 *     return fake_writer_submit(&w->writer, write);
 *     ...
 *     count = fake_writer_commit(&w->writer, journal, writes);
 *
 * Every helper fails the test when it cannot do its work. */
#ifndef SLUICE_TESTS_WRITER_FIXTURE_H
#define SLUICE_TESTS_WRITER_FIXTURE_H

#include <stddef.h>

#include "dispatcher/writer.h"
#include "shared/journal.h"
#include "shared/rc.h"

#define FAKE_WRITES_MAX 8192

struct fake_writer {
    struct write *writes[FAKE_WRITES_MAX]; /* that wait, in order */
    size_t count;
    size_t max;             /* more of them are a mistake of the service */
    struct queue *reply_to; /* what every write must have */
    unsigned full;          /* refuse so many submits */
    unsigned submits;
    unsigned groups_to_undo; /* of each, before it is committed */
};

/* Take a write; RC_FULL while it is to be full. */
enum rc fake_writer_submit(struct fake_writer *f, struct write *write);

/* The writer's turn: apply and commit all that wait as one group, and give them
 * back in out (room for FAKE_WRITES_MAX), each with RC_OK. How many; the
 * replies are the caller's. */
size_t fake_writer_commit(struct fake_writer *f, struct journal *journal,
                          struct write **out);

#endif
