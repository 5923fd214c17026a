/* How the callback service's outcomes get into PostgreSQL's table objects, and
 * out of it again when they expire. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "dispatcher/pg_arrays.h"
#include "dispatcher/store_pg.h"
#include "shared/callback_msg.h"

/* Rows of one delete, and deletes a second: 20 000 objects a second may
 * expire, several times what can be fetched. */
#define EXPIRE_ROWS "2000"
#define EXPIRE_ROUNDS 10

/* Where the row is as new already nothing is written, not even a dead tuple. */
static const char upsert_sql[] =
    "INSERT INTO objects AS o (id, last_seen)"
    " SELECT id, timestamptz 'epoch' + ms * interval '1 millisecond'"
    " FROM unnest($1::bigint[], $2::bigint[]) AS t (id, ms)"
    " ON CONFLICT (id) DO UPDATE"
    " SET last_seen = GREATEST(o.last_seen, excluded.last_seen)"
    " WHERE excluded.last_seen > o.last_seen";

enum column { COLUMN_ID, COLUMN_LAST_SEEN, COLUMNS };

/* MATERIALIZED: the rows are chosen once. SKIP LOCKED: another dispatcher's
 * upsert or delete is not waited for. */
static const char expire_sql[] =
    "WITH old AS MATERIALIZED ("
    " SELECT id FROM objects"
    " WHERE last_seen < timestamptz 'epoch' + $1::bigint"
    " * interval '1 millisecond'"
    " ORDER BY last_seen LIMIT " EXPIRE_ROWS " FOR UPDATE SKIP LOCKED)"
    " DELETE FROM objects USING old WHERE objects.id = old.id";

/* The decoded items: sorted by id and each id once before the first look, so
 * that two dispatchers lock rows in the same order, and because one statement
 * may not upsert a row twice. */
struct items {
    struct callback_object *at;
    size_t count;
    size_t capacity;
    size_t sorted; /* this many are in order */
};

struct callback_store {
    struct items *items; /* is put in order behind a const store */
    struct pg_arrays *rows;
    int64_t expire_s;
    struct metrics *metrics;
};

static int
by_id_newest_first(const void *a, const void *b)
{
    const struct callback_object *left = a;
    const struct callback_object *right = b;

    if (left->id != right->id) {
        return left->id < right->id ? -1 : 1;
    }
    return (left->last_seen_unix_ms < right->last_seen_unix_ms) -
           (left->last_seen_unix_ms > right->last_seen_unix_ms);
}

static void
sort(struct items *items)
{
    size_t kept = 0;

    if (items->sorted == items->count) {
        return;
    }
    qsort(items->at, items->count, sizeof(items->at[0]), by_id_newest_first);
    for (size_t i = 0; i < items->count; i++) {
        if (kept == 0 || items->at[kept - 1].id != items->at[i].id) {
            items->at[kept++] = items->at[i];
        }
    }
    items->count = kept;
    items->sorted = kept;
}

static enum rc
store_decode(void *self, const struct journal_row *outcome)
{
    struct callback_store *s = self;
    struct items *items = s->items;
    unsigned count = 0;
    enum rc rc;

    if (outcome->broken) {
        return RC_INVALID;
    }
    if (items->capacity - items->count < CALLBACK_OUTCOME_MAX) {
        size_t capacity = items->capacity * 2 + CALLBACK_OUTCOME_MAX;
        struct callback_object *at =
            realloc(items->at, capacity * sizeof(items->at[0]));

        if (at == NULL) {
            return RC_NOMEM;
        }
        items->at = at;
        items->capacity = capacity;
    }
    rc = callback_outcome_decode(outcome->body, outcome->body_bytes,
                                 items->at + items->count, &count);
    if (rc == RC_OK) {
        items->count += count;
    }
    return rc;
}

static size_t
store_count(const void *self)
{
    const struct callback_store *s = self;

    sort(s->items);
    return s->items->count;
}

static struct store_item
store_get(const void *self, size_t index)
{
    const struct callback_store *s = self;

    sort(s->items);
    return (struct store_item){.seq = s->items->at[index].seq,
                               .data = &s->items->at[index]};
}

static enum rc
store_persist(void *self, struct pg *pg, size_t from, size_t to)
{
    struct callback_store *s = self;
    const char *params[COLUMNS];
    enum rc rc;

    sort(s->items);
    if (from >= to) {
        return RC_OK;
    }
    pg_arrays_begin(s->rows);
    for (size_t i = from; i < to; i++) {
        pg_arrays_int(s->rows, COLUMN_ID, s->items->at[i].id);
        pg_arrays_int(s->rows, COLUMN_LAST_SEEN,
                      s->items->at[i].last_seen_unix_ms);
    }
    rc = pg_arrays_end(s->rows, params);
    return rc == RC_OK ? pg_exec(pg, upsert_sql, COLUMNS, params, NULL) : rc;
}

static void
store_name(const void *self, size_t index, char out[JOURNAL_ITEM_BYTES])
{
    const struct callback_store *s = self;

    sort(s->items);
    (void)snprintf(out, JOURNAL_ITEM_BYTES, "%" PRId64, s->items->at[index].id);
}

static void
store_release(void *self)
{
    struct callback_store *s = self;

    s->items->count = 0;
    s->items->sorted = 0;
}

static enum rc
store_every_second(void *self, struct pg *pg, int64_t now_unix_ms)
{
    struct callback_store *s = self;
    char before[24];
    const char *params[1] = {before};
    const int64_t full = strtoll(EXPIRE_ROWS, NULL, 10);

    if (s->expire_s == 0) {
        return RC_OK;
    }
    (void)snprintf(before, sizeof(before), "%" PRId64,
                   now_unix_ms - s->expire_s * 1000);
    for (int round = 0; round < EXPIRE_ROUNDS; round++) {
        struct pg_result *result = NULL;
        enum rc rc = pg_exec(pg, expire_sql, 1, params, &result);
        int64_t deleted;

        if (rc != RC_OK) {
            return rc;
        }
        deleted = pg_affected(result);
        pg_result_free(&result);
        metrics_add(s->metrics, METRIC_OBJECTS_EXPIRED_TOTAL, SERVICE_COUNT,
                    deleted);
        if (deleted < full) {
            break;
        }
    }
    return RC_OK;
}

static void
store_configure(void *self, const struct conf *conf)
{
    struct callback_store *s = self;

    s->expire_s = conf->callback.expire_s;
}

static void
store_free(void **self)
{
    struct callback_store *s = *self;

    *self = NULL;
    if (s == NULL) {
        return;
    }
    if (s->items != NULL) {
        free(s->items->at);
        free(s->items);
    }
    pg_arrays_free(&s->rows);
    free(s);
}

static enum rc
store_new(void **self, const struct conf *conf, struct metrics *metrics)
{
    struct callback_store *s = calloc(1, sizeof(*s));

    *self = NULL;
    if (s == NULL) {
        return RC_NOMEM;
    }
    s->items = calloc(1, sizeof(*s->items));
    *self = s;
    if (s->items == NULL || pg_arrays_new(&s->rows, COLUMNS) != RC_OK) {
        store_free(self);
        return RC_NOMEM;
    }
    s->metrics = metrics;
    store_configure(s, conf);
    return RC_OK;
}

const struct store_persister callback_persister = {
    .service = SERVICE_CALLBACK,
    .decode = store_decode,
    .count = store_count,
    .item = store_get,
    .persist = store_persist,
    .name = store_name,
    .release = store_release,
    .every_second = store_every_second,
    .new = store_new,
    .configure = store_configure,
    .free = store_free,
};
