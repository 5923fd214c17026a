/* Gather what ended into a batch, and apply it on the writer's thread. */
#include "dispatcher/callback_outcome.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/journal.h"
#include "shared/log.h"
#include "shared/text.h"

#define SETTLED_MAX CALLBACK_OUTCOME_MAX
#define FAILED_MAX 512U
/* Pages that the ending requests of a batch may write, about. Its transaction
 * must fit into the WAL's half of journal.reserve_bytes, or a journal that has
 * filled its disk could never be emptied; and accepting waits for it. */
#define PAGES_MAX 256U
#define IDS_PER_PAGE 200U
#define DECIMAL_BYTES 24
/* Between two batches, unless one is full: each costs the edge the lock for an
 * fsync, and PostgreSQL a transaction. */
#define GATHER_MS 50
#define TRY_AGAIN_MS 10 /* writer full, no memory */

enum batch_state {
    BATCH_NONE,
    BATCH_GATHERED, /* the writer did not take it yet */
    BATCH_WRITING,
};

struct callback_outcome {
    struct write write; /* first: the writer knows no more of it */
    struct callback_pool *pool;
    struct writer *writer;
    enum batch_state state;
    int64_t gather_after_ms; /* monotonic: when the next batch may begin */
    int64_t now_unix_ms;
    struct callback_request *requests; /* that ended, linked */
    struct callback_object objects[CALLBACK_OUTCOME_MAX];
    unsigned object_count;
    int64_t forget[SETTLED_MAX]; /* recorded attempts of these ids */
    unsigned forget_count;
    struct callback_failed failed[FAILED_MAX];
    unsigned failed_count;
    struct text body; /* of the outcome */
    bool with_outcome;
    /* used by apply only */
    struct text retry;
    struct journal_dead_item items[CALLBACK_IDS_MAX];
    /* used by gather only */
    struct callback_settled settled[SETTLED_MAX];
};

/* ---- on the writer's thread ------------------------------------------------
 */

static enum rc
bury_broken(struct journal *journal, const struct callback_outcome *o,
            const struct callback_request *request)
{
    return journal_bury(journal, SERVICE_CALLBACK, request->seq,
                        "record cannot be decoded: not a list of ids", NULL, 0,
                        NULL, 0, o->now_unix_ms);
}

static enum rc
bury(struct journal *journal, struct callback_outcome *o,
     const struct callback_request *request)
{
    struct callback_msg again = {0};
    char reason[JOURNAL_REASON_BYTES];

    for (unsigned i = 0; i < request->count; i++) {
        const union callback_link *link = &request->links[i];
        struct journal_dead_item *item = &o->items[again.count];

        if (link->ended.verdict == NULL) {
            continue;
        }
        again.ids[again.count++] = link->ended.id;
        (void)snprintf(item->item, sizeof(item->item), "%" PRId64,
                       link->ended.id);
        (void)snprintf(item->reason, sizeof(item->reason), "%s",
                       link->ended.verdict->reason);
        item->attempts = link->ended.verdict->attempts;
    }
    text_reset(&o->retry);
    callback_msg_encode(&again, &o->retry);
    if (text_failed(&o->retry)) {
        return RC_NOMEM;
    }
    (void)snprintf(reason, sizeof(reason), "%u of %u objects failed",
                   again.count, request->count);
    return journal_bury(journal, SERVICE_CALLBACK, request->seq, reason,
                        text_cstr(&o->retry), o->retry.bytes, o->items,
                        again.count, o->now_unix_ms);
}

static enum rc
apply_requests(struct journal *journal, struct callback_outcome *o)
{
    int64_t no = 0;
    enum rc rc = RC_OK;

    if (o->with_outcome) {
        rc = journal_outcome_add(journal, SERVICE_CALLBACK, text_cstr(&o->body),
                                 o->body.bytes, &no);
    }
    for (const struct callback_request *r = o->requests;
         r != NULL && rc == RC_OK; r = r->next) {
        if (r->broken) {
            rc = bury_broken(journal, o, r);
        } else if (r->dead > 0) {
            rc = bury(journal, o, r);
        } else {
            rc = journal_finish(journal, SERVICE_CALLBACK, r->seq, no);
        }
        if (rc == RC_AGAIN) { /* ended before: a repeat does no harm */
            rc = RC_OK;
        }
    }
    return rc;
}

static enum rc
apply_attempts(struct journal *journal, const struct callback_outcome *o)
{
    char item[DECIMAL_BYTES];
    enum rc rc = RC_OK;

    /* An id may be forgotten and have failed anew since: in this order. */
    for (unsigned i = 0; i < o->forget_count && rc == RC_OK; i++) {
        (void)snprintf(item, sizeof(item), "%" PRId64, o->forget[i]);
        rc = journal_attempt_delete(journal, SERVICE_CALLBACK, item);
        if (rc == RC_AGAIN) {
            rc = RC_OK;
        }
    }
    for (unsigned i = 0; i < o->failed_count && rc == RC_OK; i++) {
        (void)snprintf(item, sizeof(item), "%" PRId64, o->failed[i].id);
        rc = journal_attempt_put(journal, SERVICE_CALLBACK, item,
                                 o->failed[i].attempts,
                                 o->failed[i].error->reason);
        if (rc == RC_AGAIN) {
            rc = RC_OK;
        }
    }
    return rc;
}

static enum rc
apply(struct journal *journal, struct write *write)
{
    struct callback_outcome *o = (struct callback_outcome *)write;
    enum rc rc = apply_requests(journal, o);

    if (rc == RC_OK) {
        rc = apply_attempts(journal, o);
    }
    return rc;
}

/* ---- on the service's thread ------------------------------------------------
 */

/* A request's row is rewritten whole; its dead items get a row each. */
static unsigned
pages_of(const struct callback_request *request)
{
    return 1 + request->count / IDS_PER_PAGE + request->dead;
}

static void
gather_requests(struct callback_outcome *o)
{
    struct callback_request **at = &o->requests;
    unsigned pages = 0;

    while (pages < PAGES_MAX) {
        struct callback_request *request = callback_pool_take_finished(o->pool);

        if (request == NULL) {
            break;
        }
        pages += pages_of(request);
        if (!request->broken && request->dead == 0) {
            o->with_outcome = true;
        }
        *at = request;
        at = &request->next;
    }
}

/* False when there is nothing to write. */
static bool
gather(struct callback_outcome *o)
{
    size_t count = callback_pool_take_settled(o->pool, o->settled, SETTLED_MAX);

    o->object_count = 0;
    o->forget_count = 0;
    o->failed_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (o->settled[i].online) {
            o->objects[o->object_count++] = o->settled[i].object;
        }
        if (o->settled[i].forget) {
            o->forget[o->forget_count++] = o->settled[i].object.id;
        }
    }
    o->with_outcome = o->object_count > 0;
    gather_requests(o);
    while (o->failed_count < FAILED_MAX &&
           callback_pool_take_failed(o->pool, &o->failed[o->failed_count])) {
        o->failed_count++;
    }
    text_reset(&o->body);
    return count > 0 || o->requests != NULL || o->failed_count > 0;
}

/* How long to wait before gathering: 0 not at all, -1 there is nothing. */
static int64_t
gather_wait_ms(const struct callback_outcome *o, int64_t now_ms)
{
    struct callback_pool_counts counts;

    callback_pool_count(o->pool, &counts);
    if (counts.unwritten == 0) {
        return -1;
    }
    if (counts.unwritten >= SETTLED_MAX || now_ms >= o->gather_after_ms) {
        return 0;
    }
    return o->gather_after_ms - now_ms;
}

int64_t
callback_outcome_submit(struct callback_outcome *o, struct now now)
{
    if (o->state == BATCH_WRITING) {
        return -1;
    }
    if (o->state == BATCH_NONE) {
        int64_t wait_ms = gather_wait_ms(o, now.ms);

        if (wait_ms != 0) {
            return wait_ms;
        }
        if (!gather(o)) {
            return -1;
        }
        o->gather_after_ms = now.ms + GATHER_MS;
        o->state = BATCH_GATHERED;
    }
    if (o->with_outcome && o->body.bytes == 0) {
        callback_outcome_encode(o->objects, o->object_count, &o->body);
        if (text_failed(&o->body)) {
            text_reset(&o->body);
            return TRY_AGAIN_MS;
        }
    }
    o->now_unix_ms = now.unix_ms;
    o->state = BATCH_WRITING; /* before it is another thread's */
    if (writer_submit(o->writer, &o->write) != RC_OK) {
        o->state = BATCH_GATHERED;
        return TRY_AGAIN_MS;
    }
    return -1;
}

static void
count_request(const struct callback_request *request,
              struct callback_written *out)
{
    if (!request->broken && request->dead == 0) {
        out->finished++;
        return;
    }
    out->dead++;
    if (out->first_dead_seq == 0) {
        out->first_dead_seq = request->seq;
    }
    if (request->broken) {
        out->quarantined++;
        log_event(LOG_ERROR, "record_quarantined", "service=%s seq=%" PRId64,
                  service_name(SERVICE_CALLBACK), request->seq);
    }
}

static void
empty(struct callback_outcome *o)
{
    for (unsigned i = 0; i < o->failed_count; i++) {
        callback_pool_unref(o->pool, &o->failed[i].error);
    }
    o->failed_count = 0;
    while (o->requests != NULL) {
        struct callback_request *request = o->requests;

        o->requests = request->next;
        callback_pool_free_request(o->pool, &request);
    }
    o->state = BATCH_NONE;
}

enum rc
callback_outcome_written(struct callback_outcome *o, const struct write *write,
                         struct callback_written *out)
{
    enum rc rc = write->rc;

    *out = (struct callback_written){0};
    if (write != &o->write || o->state != BATCH_WRITING) {
        return RC_BUG;
    }
    if (rc == RC_OK) {
        out->objects = o->object_count;
        for (const struct callback_request *r = o->requests; r != NULL;
             r = r->next) {
            count_request(r, out);
        }
    }
    empty(o);
    return rc;
}

bool
callback_outcome_idle(const struct callback_outcome *o)
{
    return o->state == BATCH_NONE;
}

enum rc
callback_outcome_new(struct callback_outcome **out, struct callback_pool *pool,
                     struct writer *writer, struct queue *replies)
{
    struct callback_outcome *o = calloc(1, sizeof(*o));

    *out = NULL;
    if (o == NULL) {
        return RC_NOMEM;
    }
    o->pool = pool;
    o->writer = writer;
    o->write.apply = apply;
    o->write.reply_to = replies;
    *out = o;
    return RC_OK;
}

void
callback_outcome_free(struct callback_outcome **o_out)
{
    struct callback_outcome *o = *o_out;

    *o_out = NULL;
    if (o == NULL || o->state == BATCH_WRITING) {
        return;
    }
    empty(o);
    text_free(&o->body);
    text_free(&o->retry);
    free(o);
}
