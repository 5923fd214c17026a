/* Requests, the objects they wait for, and how these end. */
#include "dispatcher/callback_pool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "shared/journal.h"

#define VERDICT_BUCKETS 256U
#define FIRST_CAPACITY 256U
#define REMEMBER_MAX 250000U

struct heap {
    struct callback_entry **at;
    size_t count;
};

struct remembered {
    int64_t id;
    int64_t attempts; /* 0: taken */
};

struct callback_pool {
    struct callback_pool_options options;
    /* objects */
    struct callback_entry **buckets;
    size_t bucket_count; /* a power of two, >= allocated */
    struct callback_entry *spare;
    size_t allocated; /* objects, in use and spare: room in both heaps */
    size_t used;
    struct heap ready;    /* by order */
    struct heap retrying; /* by time */
    size_t flying;
    struct callback_entry *failed_first; /* attempts to be recorded */
    struct callback_entry *failed_last;
    size_t failed_count;
    /* ends */
    struct callback_settled *settled; /* [from, to) wait to be taken */
    size_t settled_from;
    size_t settled_to;
    size_t settled_capacity;
    uint64_t settled_total; /* ever */
    uint64_t settled_taken;
    struct callback_request *finished_first;
    struct callback_request *finished_last;
    size_t finished_count;
    size_t requests;
    uint64_t merged;
    /* words */
    struct callback_verdict *verdicts[VERDICT_BUCKETS];
    struct callback_verdict *no_words; /* when there is no memory for them */
    /* the journal's attempts, until their object comes */
    struct remembered *remembered;
    size_t remembered_count;
    size_t remembered_capacity;
    size_t remembered_left;
    bool remembered_sorted;
};

/* ---- heaps -----------------------------------------------------------------
 */

static void
heap_put(struct heap *heap, size_t at, struct callback_entry *o)
{
    heap->at[at] = o;
    o->heap_at = at;
}

static void
heap_up(struct heap *heap, struct callback_entry *o)
{
    size_t at = o->heap_at;

    while (at > 0 && heap->at[(at - 1) / 2]->key > o->key) {
        heap_put(heap, at, heap->at[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    heap_put(heap, at, o);
}

static void
heap_down(struct heap *heap, struct callback_entry *o)
{
    size_t at = o->heap_at;

    for (;;) {
        size_t child = at * 2 + 1;

        if (child + 1 < heap->count &&
            heap->at[child + 1]->key < heap->at[child]->key) {
            child++;
        }
        if (child >= heap->count || heap->at[child]->key >= o->key) {
            break;
        }
        heap_put(heap, at, heap->at[child]);
        at = child;
    }
    heap_put(heap, at, o);
}

static void
heap_add(struct heap *heap, struct callback_entry *o, int64_t key)
{
    o->key = key;
    o->heap_at = heap->count++;
    heap_up(heap, o);
}

static struct callback_entry *
heap_first(const struct heap *heap)
{
    return heap->count > 0 ? heap->at[0] : NULL;
}

static void
heap_drop_first(struct heap *heap)
{
    struct callback_entry *last = heap->at[--heap->count];

    if (heap->count > 0) {
        last->heap_at = 0;
        heap_down(heap, last);
    }
}

/* ---- verdicts --------------------------------------------------------------
 */

static uint64_t
hash_words(const char *reason, size_t bytes, int64_t attempts)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ (uint64_t)attempts;

    for (size_t i = 0; i < bytes; i++) {
        hash = (hash ^ (unsigned char)reason[i]) * UINT64_C(0x100000001b3);
    }
    return hash ^ hash >> 32;
}

/* A reference to the verdict of these words; never NULL once the pool has
 * its spare one. */
static struct callback_verdict *
verdict_of(struct callback_pool *p, const char *reason, int64_t attempts)
{
    size_t bytes = strnlen(reason, JOURNAL_REASON_BYTES - 1);
    uint64_t hash = hash_words(reason, bytes, attempts);
    struct callback_verdict **bucket = &p->verdicts[hash % VERDICT_BUCKETS];
    struct callback_verdict *v;

    for (v = *bucket; v != NULL; v = v->next) {
        if (v->hash == hash && v->attempts == attempts &&
            strncmp(v->reason, reason, bytes) == 0 &&
            v->reason[bytes] == '\0') {
            v->refs++;
            return v;
        }
    }
    v = malloc(sizeof(*v) + bytes + 1);
    if (v == NULL) {
        if (p->no_words != NULL) {
            p->no_words->refs++;
        }
        return p->no_words;
    }
    v->hash = hash;
    v->refs = 1;
    v->attempts = attempts;
    memcpy(v->reason, reason, bytes);
    v->reason[bytes] = '\0';
    v->next = *bucket;
    *bucket = v;
    return v;
}

void
callback_pool_unref(struct callback_pool *p, struct callback_verdict **verdict)
{
    struct callback_verdict *v = *verdict;
    struct callback_verdict **at;

    *verdict = NULL;
    if (v == NULL || --v->refs > 0) {
        return;
    }
    at = &p->verdicts[v->hash % VERDICT_BUCKETS];
    while (*at != v) {
        at = &(*at)->next;
    }
    *at = v->next;
    free(v);
}

/* ---- objects ---------------------------------------------------------------
 */

static struct callback_entry **
bucket_of(const struct callback_pool *p, int64_t id)
{
    uint64_t hash = (uint64_t)id * UINT64_C(0x9e3779b97f4a7c15);

    return &p->buckets[(hash >> 32) & (p->bucket_count - 1)];
}

/* Twice the room for objects in the table and the heaps. */
static bool
grow_objects(struct callback_pool *p)
{
    size_t count = p->bucket_count == 0 ? FIRST_CAPACITY : p->bucket_count * 2;
    struct callback_entry **old = p->buckets;
    size_t old_count = p->bucket_count;
    struct callback_entry **ready;
    struct callback_entry **retrying;
    struct callback_entry **buckets;

    ready = realloc(p->ready.at, count * sizeof(struct callback_entry *));
    if (ready == NULL) {
        return false;
    }
    p->ready.at = ready;
    retrying = realloc(p->retrying.at, count * sizeof(struct callback_entry *));
    if (retrying == NULL) {
        return false;
    }
    p->retrying.at = retrying;
    buckets = calloc(count, sizeof(struct callback_entry *));
    if (buckets == NULL) {
        return false;
    }
    p->buckets = buckets;
    p->bucket_count = count;
    for (size_t i = 0; i < old_count; i++) {
        while (old[i] != NULL) {
            struct callback_entry *o = old[i];
            struct callback_entry **bucket = bucket_of(p, o->id);

            old[i] = o->next;
            o->next = *bucket;
            *bucket = o;
        }
    }
    free(old);
    return true;
}

/* Have at least count spare objects. */
static bool
reserve_objects(struct callback_pool *p, size_t count)
{
    while (p->allocated - p->used < count) {
        struct callback_entry *o;

        if (p->allocated == p->bucket_count && !grow_objects(p)) {
            return false;
        }
        o = malloc(sizeof(*o));
        if (o == NULL) {
            return false;
        }
        o->next = p->spare;
        p->spare = o;
        p->allocated++;
    }
    return true;
}

static int
by_id(const void *a, const void *b)
{
    const struct remembered *left = a;
    const struct remembered *right = b;

    return (left->id > right->id) - (left->id < right->id);
}

/* Attempts that the journal remembers of an object, once. */
static int64_t
recall(struct callback_pool *p, int64_t id)
{
    struct remembered key = {.id = id};
    struct remembered *found;
    int64_t attempts;

    if (p->remembered_left == 0) {
        return 0;
    }
    if (!p->remembered_sorted) {
        qsort(p->remembered, p->remembered_count, sizeof(key), by_id);
        p->remembered_sorted = true;
    }
    found =
        bsearch(&key, p->remembered, p->remembered_count, sizeof(key), by_id);
    if (found == NULL) {
        return 0;
    }
    attempts = found->attempts;
    found->attempts = 0;
    if (attempts > 0 && --p->remembered_left == 0) {
        free(p->remembered);
        p->remembered = NULL;
        p->remembered_count = 0;
    }
    return attempts;
}

static void
append(struct callback_links *links, union callback_link *link)
{
    link->waits.next = NULL;
    if (links->first == NULL) {
        links->first = link;
    } else {
        links->last->waits.next = link;
    }
    links->last = link;
}

/* Move all of from behind to. */
static void
join(struct callback_links *to, struct callback_links *from)
{
    if (from->first == NULL) {
        return;
    }
    if (to->first == NULL) {
        to->first = from->first;
    } else {
        to->last->waits.next = from->first;
    }
    to->last = from->last;
    from->first = NULL;
    from->last = NULL;
}

/* First come, first served: by request, then by place in it. */
static int64_t
order_of(const union callback_link *link)
{
    const struct callback_request *request = link->waits.request;

    return request->seq * 256 + (link - request->links);
}

static struct callback_entry *
find(const struct callback_pool *p, int64_t id)
{
    struct callback_entry *o = *bucket_of(p, id);

    while (o != NULL && o->id != id) {
        o = o->next;
    }
    return o;
}

/* A link joins its object, which is made if it must be (reserved). */
static void
wait_for(struct callback_pool *p, int64_t id, union callback_link *link)
{
    struct callback_entry *o = find(p, id);
    struct callback_entry **bucket;

    if (o != NULL) {
        if (o->waiting.first != NULL) {
            p->merged++;
        }
        append(&o->waiting, link);
        return;
    }
    o = p->spare;
    assert(o != NULL);
    p->spare = o->next;
    p->used++;
    memset(o, 0, sizeof(*o));
    o->id = id;
    o->attempts = recall(p, id);
    o->recorded = o->attempts > 0;
    bucket = bucket_of(p, id);
    o->next = *bucket;
    *bucket = o;
    append(&o->waiting, link);
    o->order = order_of(link);
    o->state = CALLBACK_OBJECT_READY;
    heap_add(&p->ready, o, o->order);
}

static void
forget_object(struct callback_pool *p, struct callback_entry *o)
{
    struct callback_entry **at = bucket_of(p, o->id);

    while (*at != o) {
        at = &(*at)->next;
    }
    *at = o->next;
    o->next = p->spare;
    p->spare = o;
    p->used--;
}

/* ---- failed attempts -------------------------------------------------------
 */

static void
list_failed(struct callback_pool *p, struct callback_entry *o)
{
    if (o->failed_listed) {
        return;
    }
    o->failed_listed = true;
    o->failed_next = NULL;
    o->failed_prev = p->failed_last;
    if (p->failed_last == NULL) {
        p->failed_first = o;
    } else {
        p->failed_last->failed_next = o;
    }
    p->failed_last = o;
    p->failed_count++;
}

static void
unlist_failed(struct callback_pool *p, struct callback_entry *o)
{
    if (!o->failed_listed) {
        return;
    }
    o->failed_listed = false;
    if (o->failed_prev == NULL) {
        p->failed_first = o->failed_next;
    } else {
        o->failed_prev->failed_next = o->failed_next;
    }
    if (o->failed_next == NULL) {
        p->failed_last = o->failed_prev;
    } else {
        o->failed_next->failed_prev = o->failed_prev;
    }
    p->failed_count--;
}

bool
callback_pool_take_failed(struct callback_pool *p, struct callback_failed *out)
{
    struct callback_entry *o = p->failed_first;

    /* A record that waits may be the forgetting of an older attempt: this one
     * must not overtake it. */
    if (o == NULL || p->settled_from < p->settled_to) {
        return false;
    }
    unlist_failed(p, o);
    o->recorded = true;
    out->id = o->id;
    out->attempts = o->attempts;
    out->error = o->error;
    out->error->refs++;
    return true;
}

/* ---- ends ------------------------------------------------------------------
 */

static void
finish_request(struct callback_pool *p, struct callback_request *request)
{
    request->settled_before = p->settled_total;
    request->next = NULL;
    if (p->finished_last == NULL) {
        p->finished_first = request;
    } else {
        p->finished_last->next = request;
    }
    p->finished_last = request;
    p->finished_count++;
}

static size_t
settled_count(const struct callback_pool *p)
{
    return p->settled_to - p->settled_from;
}

/* Room for the records of all GETs in flight and one more. */
static bool
reserve_settled(struct callback_pool *p)
{
    size_t waiting = settled_count(p);
    size_t need = waiting + p->flying + 1;

    if (p->settled_capacity - p->settled_from >= need) {
        return true;
    }
    if (p->settled_capacity < need * 2) {
        struct callback_settled *settled;

        settled = realloc(p->settled, need * 4 * sizeof(*settled));
        if (settled == NULL) {
            return false;
        }
        p->settled = settled;
        p->settled_capacity = need * 4;
    }
    /* At most half full: to move is cheap, and then not soon again. */
    if (waiting > 0) {
        memmove(p->settled, p->settled + p->settled_from,
                waiting * sizeof(*p->settled));
    }
    p->settled_from = 0;
    p->settled_to = waiting;
    return true;
}

static void
add_settled(struct callback_pool *p, const struct callback_settled *settled)
{
    assert(p->settled_to < p->settled_capacity);
    p->settled[p->settled_to++] = *settled;
    p->settled_total++;
}

/* The object's GET ended for good: record that, then end the links. */
static void
settle(struct callback_pool *p, struct callback_entry *o, bool online,
       struct callback_verdict *verdict)
{
    struct callback_settled settled = {
        .object = {.id = o->id}, .online = online, .forget = o->recorded};
    union callback_link *link = o->served.first;

    for (union callback_link *l = link; l != NULL; l = l->waits.next) {
        const struct callback_request *request = l->waits.request;

        if (l == link ||
            request->received_unix_ms > settled.object.last_seen_unix_ms) {
            settled.object.last_seen_unix_ms = request->received_unix_ms;
            settled.object.seq = request->seq;
        }
    }
    if (settled.online || settled.forget) {
        add_settled(p, &settled);
    }
    while (link != NULL) {
        union callback_link *next = link->waits.next;
        struct callback_request *request = link->waits.request;

        link->ended.id = o->id;
        link->ended.verdict = verdict;
        if (verdict != NULL) {
            verdict->refs++;
            request->dead++;
        }
        if (--request->remaining == 0) {
            finish_request(p, request);
        }
        link = next;
    }
    o->served.first = NULL;
    o->served.last = NULL;
}

static void
land(struct callback_pool *p, struct callback_entry *o)
{
    assert(o->state == CALLBACK_OBJECT_FLYING);
    p->flying--;
}

/* Behind the end: a new beginning for those who came too late for that GET,
 * or none. */
static void
go_on(struct callback_pool *p, struct callback_entry *o)
{
    unlist_failed(p, o);
    callback_pool_unref(p, &o->error);
    if (o->waiting.first == NULL) {
        forget_object(p, o);
        return;
    }
    o->attempts = 0;
    o->recorded = false;
    o->order = order_of(o->waiting.first);
    o->state = CALLBACK_OBJECT_READY;
    heap_add(&p->ready, o, o->order);
}

void
callback_pool_online(struct callback_pool *p, struct callback_entry *o)
{
    land(p, o);
    settle(p, o, true, NULL);
    go_on(p, o);
}

void
callback_pool_offline(struct callback_pool *p, struct callback_entry *o)
{
    land(p, o);
    settle(p, o, false, NULL);
    go_on(p, o);
}

void
callback_pool_died(struct callback_pool *p, struct callback_entry *o,
                   const char *reason)
{
    struct callback_verdict *verdict = verdict_of(p, reason, o->attempts + 1);

    land(p, o);
    settle(p, o, false, verdict);
    callback_pool_unref(p, &verdict);
    go_on(p, o);
}

void
callback_pool_failed(struct callback_pool *p, struct callback_entry *o,
                     const char *reason, int64_t retry_at_ms)
{
    land(p, o);
    o->attempts++;
    callback_pool_unref(p, &o->error);
    o->error = verdict_of(p, reason, o->attempts);
    /* The next attempt serves also those who came during this one. */
    join(&o->served, &o->waiting);
    o->waiting = o->served;
    o->served.first = NULL;
    o->served.last = NULL;
    o->state = CALLBACK_OBJECT_RETRYING;
    heap_add(&p->retrying, o, retry_at_ms);
    list_failed(p, o);
}

/* ---- the way in and on -----------------------------------------------------
 */

bool
callback_pool_has_room(const struct callback_pool *p)
{
    return p->requests < p->options.max_requests &&
           p->used + settled_count(p) + CALLBACK_IDS_MAX <= p->options.max_ids;
}

enum rc
callback_pool_add(struct callback_pool *p, int64_t seq,
                  int64_t received_unix_ms, const struct callback_msg *msg)
{
    unsigned count = msg != NULL ? msg->count : 0;
    struct callback_request *request;

    if (!reserve_objects(p, count)) {
        return RC_NOMEM;
    }
    request = malloc(sizeof(*request) + count * sizeof(request->links[0]));
    if (request == NULL) {
        return RC_NOMEM;
    }
    *request = (struct callback_request){
        .seq = seq,
        .received_unix_ms = received_unix_ms,
        .count = count,
        .remaining = count,
        .broken = msg == NULL,
    };
    p->requests++;
    for (unsigned i = 0; i < count; i++) {
        request->links[i].waits.request = request;
        wait_for(p, msg->ids[i], &request->links[i]);
    }
    if (count == 0) {
        finish_request(p, request);
    }
    return RC_OK;
}

struct callback_entry *
callback_pool_next(struct callback_pool *p)
{
    struct callback_entry *o = heap_first(&p->ready);

    if (o == NULL || settled_count(p) + p->flying >= p->options.max_ids ||
        !reserve_settled(p)) {
        return NULL;
    }
    return o;
}

void
callback_pool_started(struct callback_pool *p, struct callback_entry *o)
{
    assert(o == heap_first(&p->ready));
    heap_drop_first(&p->ready);
    join(&o->served, &o->waiting);
    o->state = CALLBACK_OBJECT_FLYING;
    p->flying++;
}

int64_t
callback_pool_due(struct callback_pool *p, int64_t now_ms)
{
    struct callback_entry *o = heap_first(&p->retrying);

    while (o != NULL && o->key <= now_ms) {
        heap_drop_first(&p->retrying);
        o->state = CALLBACK_OBJECT_READY;
        heap_add(&p->ready, o, o->order);
        o = heap_first(&p->retrying);
    }
    return o != NULL ? o->key : -1;
}

/* ---- the way out -----------------------------------------------------------
 */

size_t
callback_pool_take_settled(struct callback_pool *p,
                           struct callback_settled *out, size_t max)
{
    size_t count = settled_count(p) < max ? settled_count(p) : max;

    if (count > 0) {
        memcpy(out, p->settled + p->settled_from, count * sizeof(*out));
    }
    p->settled_from += count;
    p->settled_taken += count;
    return count;
}

struct callback_request *
callback_pool_take_finished(struct callback_pool *p)
{
    struct callback_request *request = p->finished_first;

    if (request == NULL || request->settled_before > p->settled_taken) {
        return NULL;
    }
    p->finished_first = request->next;
    if (p->finished_first == NULL) {
        p->finished_last = NULL;
    }
    p->finished_count--;
    request->next = NULL;
    return request;
}

void
callback_pool_free_request(struct callback_pool *p,
                           struct callback_request **request)
{
    struct callback_request *r = *request;

    *request = NULL;
    if (r == NULL) {
        return;
    }
    assert(r->remaining == 0);
    for (unsigned i = 0; i < r->count && r->dead > 0; i++) {
        callback_pool_unref(p, &r->links[i].ended.verdict);
    }
    free(r);
    p->requests--;
}

void
callback_pool_count(const struct callback_pool *p,
                    struct callback_pool_counts *out)
{
    out->requests = p->requests;
    out->ids = p->used;
    out->ready = p->ready.count;
    out->flying = p->flying;
    out->retrying = p->retrying.count;
    out->unwritten = settled_count(p) + p->finished_count + p->failed_count;
    out->merged = p->merged;
}

/* ---- life ------------------------------------------------------------------
 */

enum rc
callback_pool_remember(struct callback_pool *p, int64_t id, int64_t attempts)
{
    if (attempts <= 0) {
        return RC_OK;
    }
    if (p->remembered_count == REMEMBER_MAX) {
        return RC_FULL;
    }
    if (p->remembered_count == p->remembered_capacity) {
        size_t capacity = p->remembered_capacity == 0
                              ? FIRST_CAPACITY
                              : p->remembered_capacity * 2;
        struct remembered *at = realloc(p->remembered, capacity * sizeof(*at));

        if (at == NULL) {
            return RC_NOMEM;
        }
        p->remembered = at;
        p->remembered_capacity = capacity;
    }
    p->remembered[p->remembered_count++] =
        (struct remembered){.id = id, .attempts = attempts};
    p->remembered_left++;
    p->remembered_sorted = false;
    return RC_OK;
}

void
callback_pool_set(struct callback_pool *p,
                  const struct callback_pool_options *options)
{
    p->options = *options;
}

enum rc
callback_pool_new(struct callback_pool **out,
                  const struct callback_pool_options *options)
{
    struct callback_pool *p = calloc(1, sizeof(*p));

    *out = NULL;
    if (p == NULL) {
        return RC_NOMEM;
    }
    p->options = *options;
    p->no_words = verdict_of(p, "failed, and no memory for the reason", 0);
    if (p->no_words == NULL || !grow_objects(p)) {
        callback_pool_free(&p);
        return RC_NOMEM;
    }
    *out = p;
    return RC_OK;
}

/* Requests are reached through the links of their objects: end these. */
static void
drop_links(struct callback_pool *p, struct callback_entry *o)
{
    union callback_link *link;

    join(&o->served, &o->waiting);
    link = o->served.first;
    while (link != NULL) {
        union callback_link *next = link->waits.next;
        struct callback_request *request = link->waits.request;

        link->ended.verdict = NULL;
        if (--request->remaining == 0) {
            callback_pool_free_request(p, &request);
        }
        link = next;
    }
    callback_pool_unref(p, &o->error);
}

void
callback_pool_free(struct callback_pool **p_out)
{
    struct callback_pool *p = *p_out;

    *p_out = NULL;
    if (p == NULL) {
        return;
    }
    for (size_t i = 0; i < p->bucket_count; i++) {
        while (p->buckets[i] != NULL) {
            struct callback_entry *o = p->buckets[i];

            p->buckets[i] = o->next;
            drop_links(p, o);
            free(o);
        }
    }
    while (p->spare != NULL) {
        struct callback_entry *o = p->spare;

        p->spare = o->next;
        free(o);
    }
    while (p->finished_first != NULL) {
        struct callback_request *request = p->finished_first;

        p->finished_first = request->next;
        callback_pool_free_request(p, &request);
    }
    callback_pool_unref(p, &p->no_words);
    free(p->buckets);
    free(p->ready.at);
    free(p->retrying.at);
    free(p->settled);
    free(p->remembered);
    free(p);
}
