/*
 * fill JOURNAL COUNT IDS FIRST: accept COUNT requests of IDS new ids each,
 * beginning with id FIRST, as a handler would, only faster: 1024 at a time.
 */
#include <stdio.h>
#include <stdlib.h>

#include "shared/callback_msg.h"
#include "shared/clock.h"
#include "shared/journal.h"
#include "shared/text.h"

enum { BATCH = 1024 };

struct fill {
    struct journal *journal;
    struct uuid_source uuids;
    unsigned ids;
    int64_t next_id;
    struct journal_request requests[BATCH];
    struct text bodies[BATCH];
};

static enum rc
prepare(struct fill *f, size_t k, int64_t now_unix_ms)
{
    struct callback_msg msg = {.count = f->ids};
    struct journal_request *r = &f->requests[k];

    for (unsigned i = 0; i < f->ids; i++) {
        msg.ids[i] = f->next_id++;
    }
    text_reset(&f->bodies[k]);
    callback_msg_encode(&msg, &f->bodies[k]);
    *r = (struct journal_request){
        .service = SERVICE_CALLBACK,
        .body = text_cstr(&f->bodies[k]),
        .body_bytes = f->bodies[k].bytes,
        .received_unix_ms = now_unix_ms,
    };
    return uuid_next(&f->uuids, now_unix_ms, &r->id);
}

static enum rc
fill_batch(struct fill *f, size_t count)
{
    int64_t now_unix_ms = clock_now_unix_ms();
    enum rc rc = RC_OK;

    for (size_t k = 0; k < count && rc == RC_OK; k++) {
        rc = prepare(f, k, now_unix_ms);
    }
    if (rc == RC_OK) {
        rc = journal_accept(f->journal, f->requests, count, now_unix_ms);
    }
    return rc;
}

int
main(int argc, char **argv)
{
    static struct fill f;
    struct journal_options options = {
        .role = JOURNAL_EDGE,
        .max_bytes = INT64_C(1) << 36,
        .lock_timeout_ms = 5000,
    };
    size_t left;
    enum rc rc;

    if (argc != 5) {
        fputs("usage: fill JOURNAL COUNT IDS FIRST\n", stderr);
        return 2;
    }
    options.path = argv[1];
    left = strtoul(argv[2], NULL, 10);
    f.ids = (unsigned)strtoul(argv[3], NULL, 10);
    f.next_id = strtoll(argv[4], NULL, 10);
    if (f.ids > CALLBACK_IDS_MAX) {
        return 2;
    }
    uuid_source_init(&f.uuids, 0);
    rc = journal_new(&f.journal, &options);
    while (rc == RC_OK && left > 0) {
        size_t count = left < BATCH ? left : BATCH;

        rc = fill_batch(&f, count);
        left -= count;
    }
    if (rc != RC_OK) {
        fprintf(stderr, "fill: %s: %s\n", rc_name(rc),
                f.journal != NULL ? journal_error(f.journal) : "");
    }
    for (size_t k = 0; k < BATCH; k++) {
        text_free(&f.bodies[k]);
    }
    journal_free(&f.journal);
    return rc == RC_OK ? 0 : 1;
}
