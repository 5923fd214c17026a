/* One transaction for a batch, then the replies, then the frames. The order of
 * these three is the product's promise. */
#include "fcgi/edge_batch.h"

#include <stdlib.h>
#include <string.h>

#include "shared/log.h"

#define KEYS_KEPT_MS (INT64_C(24) * 3600 * 1000)
#define LOG_EVERY_MS 1000
#define ERROR_BYTES 256
#define BUSY_RETRY_S 2
#define FULL_RETRY_S 30
#define UNAVAILABLE_RETRY_S 5

struct edge_batch {
    size_t max;
    size_t count;
    struct journal *journal;
    struct push *push;
    const char *journal_path;
    struct exchange **exchanges;
    struct journal_request *requests;
    int64_t logged_ms;    /* last line about a failure */
    enum rc last_rc;      /* of the last commit */
    int64_t failed_count; /* requests refused since that line */
};

enum rc
edge_batch_new(struct edge_batch **out, size_t max, struct journal *journal,
               struct push *push, const char *journal_path)
{
    struct edge_batch *batch = calloc(1, sizeof(*batch));

    *out = NULL;
    if (batch == NULL) {
        return RC_NOMEM;
    }
    batch->max = max;
    batch->journal = journal;
    batch->push = push;
    batch->journal_path = journal_path;
    batch->logged_ms = -LOG_EVERY_MS;
    batch->exchanges = calloc(max, sizeof(struct exchange *));
    batch->requests = calloc(max, sizeof(*batch->requests));
    if (batch->exchanges == NULL || batch->requests == NULL) {
        edge_batch_free(&batch);
        return RC_NOMEM;
    }
    *out = batch;
    return RC_OK;
}

void
edge_batch_free(struct edge_batch **batch)
{
    struct edge_batch *b = *batch;

    if (b == NULL) {
        return;
    }
    for (size_t k = 0; k < b->count; k++) {
        exchange_free(&b->exchanges[k]);
    }
    free(b->exchanges);
    free(b->requests);
    free(b);
    *batch = NULL;
}

enum rc
edge_batch_add(struct edge_batch *batch, struct exchange *ex)
{
    struct journal_request *r;

    if (batch->count == batch->max) {
        return RC_FULL;
    }
    r = &batch->requests[batch->count];
    r->op = ex->route->cancel != 0 ? JOURNAL_CANCEL : JOURNAL_ADD;
    r->state = ex->route->cancel;
    r->service = ex->route->service;
    r->body = text_cstr(&ex->record);
    r->body_bytes = ex->record.bytes;
    r->key = ex->key_bytes > 0 ? ex->key : NULL;
    r->key_bytes = ex->key_bytes;
    r->key_until_unix_ms = ex->key_kept_ms > 0
                               ? ex->request.received_unix_ms + ex->key_kept_ms
                               : 0;
    if (ex->key_bytes > 0) {
        memcpy(r->hash, ex->hash, sizeof(r->hash));
    }
    r->id = ex->request.id;
    r->received_unix_ms = ex->request.received_unix_ms;
    r->verdict = JOURNAL_REFUSED;
    r->seq = 0;
    batch->exchanges[batch->count++] = ex;
    return RC_OK;
}

size_t
edge_batch_count(const struct edge_batch *batch)
{
    return batch->count;
}

bool
edge_batch_is_full(const struct edge_batch *batch)
{
    return batch->count == batch->max;
}

struct exchange *
edge_batch_get(const struct edge_batch *batch, size_t k)
{
    return batch->exchanges[k];
}

bool
edge_batch_asks(const struct edge_batch *batch, size_t k)
{
    switch (batch->requests[k].verdict) {
    case JOURNAL_CANCELED:
    case JOURNAL_LATE:
    case JOURNAL_ABSENT:
        return true;
    case JOURNAL_ACCEPTED:
    case JOURNAL_REPLAYED:
    case JOURNAL_MISMATCH:
    case JOURNAL_REFUSED:
        break;
    }
    return false;
}

static void
reply_failed(struct reply *reply, enum rc rc)
{
    if (rc == RC_TIMEOUT) {
        reply_unavailable(reply, "journal_busy",
                          "The journal could not be locked in time. Nothing "
                          "is promised; try again with an Idempotency-Key.",
                          BUSY_RETRY_S);
    } else if (rc == RC_FULL) {
        reply_unavailable(reply, "journal_full",
                          "The journal has no room for more requests.",
                          FULL_RETRY_S);
    } else {
        reply_unavailable(reply, "journal_unavailable",
                          "The journal could not be written. Nothing is "
                          "promised; try again with an Idempotency-Key.",
                          UNAVAILABLE_RETRY_S);
    }
}

static void
reply_verdict(struct exchange *ex, const struct journal_request *r)
{
    switch (r->verdict) {
    case JOURNAL_ACCEPTED:
    case JOURNAL_REPLAYED:
        ex->request.id = r->id;
        ex->request.received_unix_ms = r->received_unix_ms;
        ex->request.rank = r->rank;
        ex->request.record = text_cstr(&ex->record);
        ex->request.record_bytes = ex->record.bytes;
        ex->route->answer(&ex->request, &ex->reply);
        if (r->verdict == JOURNAL_REPLAYED) {
            reply_header(&ex->reply, "Idempotent-Replayed", "true");
        }
        break;
    case JOURNAL_MISMATCH:
        reply_problem(&ex->reply, 422, "idempotency_key_reused",
                      "This Idempotency-Key was used with another body.", NULL);
        break;
    case JOURNAL_REFUSED:
        reply_unavailable(&ex->reply, "journal_full",
                          "This service's share of the journal is used up.",
                          FULL_RETRY_S);
        break;
    case JOURNAL_CANCELED:
    case JOURNAL_LATE:
    case JOURNAL_ABSENT: /* see edge_batch_asks */
        break;
    }
}

/* A line a second at most while it fails, one when it works again. */
static void
log_result(struct edge_batch *batch, enum rc rc, int64_t now_ms)
{
    char error[ERROR_BYTES];

    if (rc == RC_OK) {
        if (batch->last_rc != RC_OK) {
            log_event(LOG_INFO, "journal_recovered", "refused=%lld",
                      (long long)batch->failed_count);
            batch->failed_count = 0;
        }
        batch->last_rc = rc;
        return;
    }
    batch->failed_count += (int64_t)batch->count;
    if (rc == batch->last_rc && now_ms - batch->logged_ms < LOG_EVERY_MS) {
        return;
    }
    batch->last_rc = rc;
    batch->logged_ms = now_ms;
    log_event(rc == RC_FULL ? LOG_WARN : LOG_ERROR, "journal_failed",
              "rc=%s error=%s lock_holder=%ld refused=%lld", rc_name(rc),
              log_quote(journal_error(batch->journal), error, sizeof(error)),
              rc == RC_TIMEOUT ? (long)journal_lock_holder(batch->journal_path)
                               : 0L,
              (long long)batch->failed_count);
}

void
edge_batch_commit(struct edge_batch *batch, int64_t now_ms, int64_t now_unix_ms)
{
    enum rc rc;

    if (batch->count == 0) {
        return;
    }
    rc = journal_accept(batch->journal, batch->requests, batch->count,
                        now_unix_ms + KEYS_KEPT_MS);
    log_result(batch, rc, now_ms);
    for (size_t k = 0; k < batch->count; k++) {
        if (rc == RC_OK) {
            reply_verdict(batch->exchanges[k], &batch->requests[k]);
        } else {
            batch->requests[k].verdict = JOURNAL_REFUSED;
            reply_failed(&batch->exchanges[k]->reply, rc);
        }
    }
}

void
edge_batch_push(struct edge_batch *batch)
{
    for (size_t k = 0; k < batch->count && batch->push != NULL; k++) {
        const struct journal_request *r = &batch->requests[k];

        if (r->verdict == JOURNAL_ACCEPTED) {
            const struct frame frame = {
                .service = r->service,
                .seq = r->seq,
                .received_unix_ms = r->received_unix_ms,
                .id = r->id,
                .body = r->body,
                .body_bytes = r->body_bytes,
            };

            push_send(batch->push, &frame);
        }
    }
}

void
edge_batch_clear(struct edge_batch *batch)
{
    batch->count = 0;
}
