/*
 * fill JOURNAL SERVICE COUNT SIZE FIRST: accept COUNT requests as a handler
 * would, only faster, beginning with number FIRST:
 *   callback    each of SIZE new object ids
 *   sms         a message each; SIZE is of no matter
 *   sms_status  each says CONFIRMED of SIZE new messages, where message n is
 *               01900000-0000-7000-8000-<n as 8 hex digits>0000
 *   invitation  person<n>@example.com asks for a place of invitation
 *               bench-<n / SIZE>
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/callback_msg.h"
#include "shared/clock.h"
#include "shared/invitation_msg.h"
#include "shared/journal.h"
#include "shared/sms_msg.h"
#include "shared/sms_update.h"
#include "shared/text.h"

enum { BATCH = 1024, BATCH_OF_UPDATES = 8 };

struct fill {
    struct journal *journal;
    struct uuid_source uuids;
    enum service service;
    unsigned size;
    int64_t next; /* number */
    struct journal_request requests[BATCH];
    struct text bodies[BATCH];
};

static void
make_callback(struct fill *f, struct text *body)
{
    struct callback_msg msg = {.count = f->size};

    for (unsigned i = 0; i < f->size; i++) {
        msg.ids[i] = f->next++;
    }
    callback_msg_encode(&msg, body);
}

static void
make_message(struct fill *f, struct text *body)
{
    struct sms_msg msg;

    (void)snprintf(msg.phone, sizeof(msg.phone), "+1%09lld",
                   (long long)f->next);
    (void)snprintf(msg.content, sizeof(msg.content),
                   "Your parcel %lld is on its way to you.",
                   (long long)f->next++);
    msg.content_bytes = strlen(msg.content);
    sms_msg_encode(&msg, body);
}

static void
make_updates(struct fill *f, struct text *body)
{
    struct sms_update update = {
        .mapped = true,
        .state = SMS_CONFIRMED,
        .id = {{0x01, 0x90, 0, 0, 0, 0, 0x70, 0, 0x80}}};

    sms_update_begin(body);
    for (unsigned i = 0; i < f->size; i++) {
        uint32_t number = (uint32_t)f->next++;

        for (int k = 0; k < 4; k++) {
            update.id.bytes[10 + k] = (uint8_t)(number >> (24 - 8 * k));
        }
        sms_update_put(&update, body);
    }
}

static void
make_invitation(struct fill *f, struct text *body)
{
    struct invitation_msg msg;

    (void)snprintf(msg.code, sizeof(msg.code), "bench-%lld",
                   (long long)(f->next / f->size));
    (void)snprintf(msg.email, sizeof(msg.email), "person%lld@example.com",
                   (long long)f->next++);
    invitation_msg_encode(&msg, body);
}

static enum rc
prepare(struct fill *f, size_t k, int64_t now_unix_ms)
{
    struct journal_request *r = &f->requests[k];

    text_reset(&f->bodies[k]);
    if (f->service == SERVICE_SMS) {
        make_message(f, &f->bodies[k]);
    } else if (f->service == SERVICE_SMS_STATUS) {
        make_updates(f, &f->bodies[k]);
    } else if (f->service == SERVICE_INVITATION) {
        make_invitation(f, &f->bodies[k]);
    } else {
        make_callback(f, &f->bodies[k]);
    }
    *r = (struct journal_request){
        .service = f->service,
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

/* False: a mistake in the arguments. */
static bool
read_arguments(char **argv, struct fill *f, size_t *count)
{
    *count = strtoul(argv[3], NULL, 10);
    f->size = (unsigned)strtoul(argv[4], NULL, 10);
    f->next = strtoll(argv[5], NULL, 10);
    return service_parse(argv[2], &f->service) == RC_OK &&
           (f->service != SERVICE_CALLBACK || f->size <= CALLBACK_IDS_MAX) &&
           f->size <= SMS_UPDATES_MAX;
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
    size_t left = 0;
    size_t most;
    enum rc rc;

    if (argc != 6 || !read_arguments(argv, &f, &left)) {
        fputs("usage: fill JOURNAL SERVICE COUNT SIZE FIRST\n", stderr);
        return 2;
    }
    options.path = argv[1];
    most = f.service == SERVICE_SMS_STATUS ? BATCH_OF_UPDATES : BATCH;
    uuid_source_init(&f.uuids, 0);
    rc = journal_new(&f.journal, &options);
    while (rc == RC_OK && left > 0) {
        size_t count = left < most ? left : most;

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
