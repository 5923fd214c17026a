/* The store's write. Its poison is sorted by request before it is applied, so
 * that a request becomes one dead letter with all of its refused items. */
#include "dispatcher/store_retire.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/journal.h"
#include "shared/log.h"

/* How long a full writer is waited for; then the page is taken again. */
#define ROOM_WAIT_MS 10
#define ROOM_WAITS 100

struct poison {
    int64_t seq;
    struct journal_dead_item item;
};

struct retire {
    struct write write; /* first: what the writer hands back */
    enum service service;
    int64_t no_from;
    int64_t no_to;
    int64_t now_unix_ms;
    struct poison *poisons;
    size_t poison_count;
    size_t poison_capacity;
    struct journal_dead_item *items; /* of one request, while applying */
    int64_t *broken;                 /* outcomes that cannot be decoded */
    size_t broken_count;
    size_t broken_capacity;
    int64_t retired; /* requests; set by the last apply */
    int64_t buried;
    int64_t *received; /* unix ms, of the requests that it retired */
    size_t received_count;
    size_t received_capacity;
};

enum rc
retire_new(struct retire **out, enum service service, struct queue *reply_to)
{
    struct retire *r = calloc(1, sizeof(*r));
    *out = r;
    if (r == NULL) {
        return RC_NOMEM;
    }
    r->service = service;
    r->write.reply_to = reply_to;
    return RC_OK;
}

void
retire_free(struct retire **r)
{
    if (*r == NULL) {
        return;
    }
    free((*r)->poisons);
    free((*r)->items);
    free((*r)->broken);
    free((*r)->received);
    free(*r);
    *r = NULL;
}

/* Room for one more of count entries. */
static enum rc
grow(void **array, size_t *capacity, size_t count, size_t entry_bytes)
{
    if (count < *capacity) {
        return RC_OK;
    }
    size_t wanted = *capacity * 2 + 8;
    void *grown = realloc(*array, wanted * entry_bytes);
    if (grown == NULL) {
        return RC_NOMEM;
    }
    *array = grown;
    *capacity = wanted;
    return RC_OK;
}

enum rc
retire_add_poison(struct retire *r, int64_t seq, const char *item,
                  const char *error)
{
    void *array = r->poisons;
    enum rc rc = grow(&array, &r->poison_capacity, r->poison_count,
                      sizeof(r->poisons[0]));
    r->poisons = array;
    if (rc == RC_OK) {
        struct poison *poison = &r->poisons[r->poison_count++];
        *poison = (struct poison){.seq = seq, .item = {.attempts = 1}};
        snprintf(poison->item.item, sizeof(poison->item.item), "%s", item);
        snprintf(poison->item.reason, sizeof(poison->item.reason),
                 "database refused it: %.200s", error);
    }
    return rc;
}

enum rc
retire_add_broken(struct retire *r, int64_t no)
{
    void *array = r->broken;
    enum rc rc = grow(&array, &r->broken_capacity, r->broken_count,
                      sizeof(r->broken[0]));
    r->broken = array;
    if (rc == RC_OK) {
        r->broken[r->broken_count++] = no;
    }
    return rc;
}

static int
by_seq(const void *a, const void *b)
{
    const struct poison *left = a;
    const struct poison *right = b;
    return (left->seq > right->seq) - (left->seq < right->seq);
}

/* ---- on the writer's thread -----------------------------------------------
 */

/* Bury one request with its items poisons[from, to). */
static enum rc
bury(struct journal *journal, struct retire *r, size_t from, size_t to)
{
    for (size_t k = from; k < to; k++) {
        r->items[k - from] = r->poisons[k].item;
    }
    return journal_bury(journal, r->service, r->poisons[from].seq,
                        r->items[0].reason, NULL, 0, r->items, to - from,
                        r->now_unix_ms);
}

static enum rc
bury_all(struct journal *journal, struct retire *r)
{
    size_t to = 0;
    for (size_t from = 0; from < r->poison_count; from = to) {
        while (to < r->poison_count &&
               r->poisons[to].seq == r->poisons[from].seq) {
            to++;
        }
        enum rc rc = bury(journal, r, from, to);
        if (rc != RC_OK && rc != RC_AGAIN) {
            return rc;
        }
        r->buried += rc == RC_OK ? 1 : 0;
    }
    return RC_OK;
}

/* For the histogram only: without memory for it one observation is missing. */
static void
note_received(void *arg, int64_t received_unix_ms)
{
    struct retire *r = arg;
    void *array = r->received;
    enum rc rc = grow(&array, &r->received_capacity, r->received_count,
                      sizeof(r->received[0]));
    r->received = array;
    if (rc == RC_OK) {
        r->received[r->received_count++] = received_unix_ms;
    }
}

static enum rc
apply(struct journal *journal, struct write *write)
{
    struct retire *r = (struct retire *)write;
    r->buried = 0;
    r->retired = 0;
    r->received_count = 0;
    enum rc rc = bury_all(journal, r);
    for (size_t k = 0; rc == RC_OK && k < r->broken_count; k++) {
        int64_t buried = 0;
        rc = journal_bury_outcome(journal, r->service, r->broken[k],
                                  "its outcome cannot be decoded",
                                  r->now_unix_ms, &buried);
        r->buried += buried;
    }
    if (rc == RC_OK) {
        rc = journal_retire_each(journal, r->service, r->no_from, r->no_to,
                                 note_received, r, &r->retired);
    }
    return rc;
}

/* ---- handing in and taking back -------------------------------------------
 */

enum rc
retire_submit(struct retire **r, struct writer *writer, int64_t no_from,
              int64_t no_to, int64_t now_unix_ms)
{
    struct retire *mine = *r;
    mine->write.apply = apply;
    mine->no_from = no_from;
    mine->no_to = no_to;
    mine->now_unix_ms = now_unix_ms;
    if (mine->poison_count > 0) {
        qsort(mine->poisons, mine->poison_count, sizeof(mine->poisons[0]),
              by_seq);
        free(mine->items);
        mine->items = calloc(mine->poison_count, sizeof(mine->items[0]));
        if (mine->items == NULL) {
            return RC_NOMEM;
        }
    }
    enum rc rc = writer_submit(writer, &mine->write);
    for (int k = 0; rc == RC_FULL && k < ROOM_WAITS; k++) {
        (void)poll(NULL, 0, ROOM_WAIT_MS);
        rc = writer_submit(writer, &mine->write);
    }
    if (rc == RC_OK) {
        *r = NULL;
    }
    return rc;
}

void
retire_note(const struct retire *r, struct metrics *metrics,
            int64_t now_unix_ms)
{
    if (r->write.rc != RC_OK) {
        /* They stay in the journal, and the next start persists them again. */
        log_event(LOG_ERROR, "retire_refused",
                  "service=%s rc=%s from=%" PRId64 " to=%" PRId64,
                  service_name(r->service), rc_name(r->write.rc), r->no_from,
                  r->no_to);
        return;
    }
    for (size_t k = 0; k < r->received_count; k++) {
        int64_t took_ms = now_unix_ms - r->received[k];
        metrics_observe_ms(metrics, METRIC_COMPLETION_MS, r->service,
                           took_ms > 0 ? took_ms : 0);
    }
    metrics_add(metrics, METRIC_PERSISTED_TOTAL, r->service, r->retired);
    metrics_add(metrics, METRIC_DEAD_TOTAL, r->service, r->buried);
    metrics_add(metrics, METRIC_STORE_POISON_TOTAL, SERVICE_COUNT,
                (int64_t)r->poison_count);
    metrics_add(metrics, METRIC_QUARANTINED_TOTAL, r->service,
                (int64_t)r->broken_count);
}

enum service
retire_service(const struct retire *r)
{
    return r->service;
}
