/* A finished batch as its outcome has it, for the store: the batch's row of
 * statistics, and the messages that were sent with it.
 *
 * Journal form: the byte 1, then a line
 *   "<batch id> <size> <attempts> <started> <finished> <error>\n"
 * and for each message
 *   "<seq> <received> <id> <bytes of the message>\n" and the message's own
 *   journal form (sms_msg.h).
 * The line is absent ("-\n") where only messages are to be stored: one that
 * the provider has reported on, though we never saw its batch's end. */
#ifndef SLUICE_SHARED_SMS_BATCH_H
#define SLUICE_SHARED_SMS_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/rc.h"
#include "shared/text.h"
#include "shared/uuid.h"

#define SMS_BATCH_ERROR_BYTES 256 /* as the journal keeps of a reason */
#define SMS_BATCH_SIZE_MAX 1000   /* sms.batch_size at most */

struct sms_batch {
    struct uuid id;
    int64_t size;            /* messages in the request, > 0 */
    int64_t attempts;        /* requests made, > 0 */
    int64_t started_unix_ms; /* of the first request */
    int64_t finished_unix_ms;
    char error[SMS_BATCH_ERROR_BYTES]; /* UTF-8; "": it was taken */
};

/* A message of an outcome; body points into the outcome. */
struct sms_sent {
    int64_t seq;
    int64_t received_unix_ms;
    struct uuid id;
    const char *body; /* journal form of the message */
    size_t body_bytes;
};

/* Begin an outcome; batch NULL: without its line. Fails stickily. */
void sms_batch_begin(const struct sms_batch *batch, struct text *out);
void sms_batch_put(const struct sms_sent *sent, struct text *out);

/* Walks an outcome. */
struct sms_batch_cursor {
    const char *body;
    size_t bytes;
    size_t at;
};

/* Read the head; *has = it has a batch's line. RC_INVALID: no outcome. */
enum rc sms_batch_open(const char *body, size_t bytes, struct sms_batch *batch,
                       bool *has, struct sms_batch_cursor *cursor) MUST_CHECK;
/* The next message. RC_AGAIN: none any more; RC_INVALID. */
enum rc sms_batch_next(struct sms_batch_cursor *cursor,
                       struct sms_sent *out) MUST_CHECK;

#endif
