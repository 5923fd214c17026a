/* What the journal's tests share: a folder with a journal in it, requests,
 * children, and a look past the module at the file itself. Every helper fails
 * the test when it cannot do its work. */
#ifndef SLUICE_TESTS_JOURNAL_FIXTURE_H
#define SLUICE_TESTS_JOURNAL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include "shared/journal.h"

#define FIXTURE_MAX_BYTES (INT64_C(1) << 30)
#define FIXTURE_NOW INT64_C(1800000000000) /* a wall time */
#define FIXTURE_DAY INT64_C(86400000)

struct fixture {
    char dir[64];
    char path[96];
    struct journal_options options; /* of the journals to come */
    struct journal *edge;
    struct journal *dispatcher;
    unsigned ids; /* given out */
};

/* cmocka's setup and teardown: *state = struct fixture *. The journals are
 * there, the file is not. */
int fixture_setup(void **state);
int fixture_teardown(void **state);

/* Another journal on the same file. */
struct journal *fixture_journal(struct fixture *f, enum journal_role role);

/* A request with a new id, received at FIXTURE_NOW. */
struct journal_request fixture_request(struct fixture *f, const char *body);
/* With an idempotency key; the hash is made of the body's first byte. */
struct journal_request fixture_keyed(struct fixture *f, const char *body,
                                     const char *key);
/* Accept one request through the edge. Its seq. */
int64_t fixture_accept(struct fixture *f, const char *body);
/* Accept count requests in one batch. */
void fixture_accept_many(struct fixture *f, size_t count);
/* In a group of its own: an outcome, finishing seq_from..seq_to with it. */
int64_t fixture_finish(struct fixture *f, int64_t seq_from, int64_t seq_to);

/* The ledger of the callback service, which must be balanced. */
struct journal_ledger fixture_ledger(struct fixture *f);

/* Run SQL on the file, past the module. fixture_ask: the first number. */
void fixture_sql(const struct fixture *f, const char *sql);
int64_t fixture_ask(const struct fixture *f, const char *sql);

int64_t fixture_wal_bytes(const struct fixture *f);

/* Fork a child that runs fn(f, arg) with connections of its own in f, and
 * exits 0; a check that fails in it aborts it. */
typedef void fixture_child_fn(struct fixture *f, void *arg);
pid_t fixture_child(struct fixture *f, fixture_child_fn *fn, void *arg);
/* Wait for a child that must have succeeded. */
void fixture_child_join(pid_t pid);
/* Kill it with -9 and reap it. */
void fixture_child_kill(pid_t pid);
/* A child that holds the writers' lock until it is killed. */
pid_t fixture_lock_hog(struct fixture *f);

/* bytes of zeroed memory that children share. */
void *fixture_shared(size_t bytes);

#endif
