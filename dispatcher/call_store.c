/* How the call service's outcomes get into PostgreSQL's table calls. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/pg_arrays.h"
#include "dispatcher/store_pg.h"
#include "shared/call_msg.h"

/* A final state never changes: a repeat after a crash finds its row. */
static const char insert_sql[] =
    "INSERT INTO calls (call_id, phone_number, virtual_agent_id, status,"
    " attempts, created_at, dialed_at, finished_at, last_error)"
    " SELECT id, phone, agent, status, attempts,"
    " timestamptz 'epoch' + created * interval '1 millisecond',"
    " timestamptz 'epoch' + nullif(dialed, 0) * interval '1 millisecond',"
    " timestamptz 'epoch' + finished * interval '1 millisecond',"
    " nullif(error, '')"
    " FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::int[],"
    " $6::bigint[], $7::bigint[], $8::bigint[], $9::text[])"
    " AS t (id, phone, agent, status, attempts, created, dialed, finished,"
    " error)"
    " ON CONFLICT (call_id) DO NOTHING";

enum column {
    COLUMN_ID,
    COLUMN_PHONE,
    COLUMN_AGENT,
    COLUMN_STATUS,
    COLUMN_ATTEMPTS,
    COLUMN_CREATED,
    COLUMN_DIALED,
    COLUMN_FINISHED,
    COLUMN_ERROR,
    COLUMNS
};

struct call_store {
    struct call_outcome *at;
    size_t count;
    size_t capacity;
    struct pg_arrays *rows;
};

static enum rc
store_decode(void *self, const struct journal_row *outcome)
{
    struct call_store *s = self;
    enum rc rc;

    if (outcome->broken) {
        return RC_INVALID;
    }
    if (s->count == s->capacity) {
        size_t capacity = s->capacity * 2 + 64;
        struct call_outcome *at = realloc(s->at, capacity * sizeof(s->at[0]));

        if (at == NULL) {
            return RC_NOMEM;
        }
        s->at = at;
        s->capacity = capacity;
    }
    rc = call_outcome_decode(outcome->body, outcome->body_bytes,
                             &s->at[s->count]);
    s->count += rc == RC_OK ? 1 : 0;
    return rc;
}

static size_t
store_count(const void *self)
{
    const struct call_store *s = self;

    return s->count;
}

static struct store_item
store_get(const void *self, size_t index)
{
    const struct call_store *s = self;

    return (struct store_item){.seq = s->at[index].seq, .data = &s->at[index]};
}

static void
put_string(struct call_store *s, enum column column, const char *value)
{
    pg_arrays_text(s->rows, column, value, strlen(value));
}

static void
put_row(struct call_store *s, const struct call_outcome *o)
{
    pg_arrays_uuid(s->rows, COLUMN_ID, &o->id);
    put_string(s, COLUMN_PHONE, o->msg.phone);
    put_string(s, COLUMN_AGENT, o->msg.agent);
    put_string(s, COLUMN_STATUS, call_state_name(o->state));
    pg_arrays_int(s->rows, COLUMN_ATTEMPTS, o->attempts);
    pg_arrays_int(s->rows, COLUMN_CREATED, o->created_unix_ms);
    pg_arrays_int(s->rows, COLUMN_DIALED, o->dialed_unix_ms);
    pg_arrays_int(s->rows, COLUMN_FINISHED, o->finished_unix_ms);
    put_string(s, COLUMN_ERROR, o->error);
}

static enum rc
store_persist(void *self, struct pg *pg, size_t from, size_t to)
{
    struct call_store *s = self;
    const char *params[COLUMNS];
    enum rc rc;

    if (from >= to) {
        return RC_OK;
    }
    pg_arrays_begin(s->rows);
    for (size_t i = from; i < to; i++) {
        put_row(s, &s->at[i]);
    }
    rc = pg_arrays_end(s->rows, params);
    return rc == RC_OK ? pg_exec(pg, insert_sql, COLUMNS, params, NULL) : rc;
}

static void
store_name(const void *self, size_t index, char out[JOURNAL_ITEM_BYTES])
{
    const struct call_store *s = self;

    (void)uuid_format(&s->at[index].id, out);
}

static void
store_release(void *self)
{
    struct call_store *s = self;

    s->count = 0;
}

static enum rc
store_new(void **self, const struct conf *conf, struct metrics *metrics)
{
    struct call_store *s = calloc(1, sizeof(*s));

    (void)conf;
    (void)metrics;
    *self = NULL;
    if (s == NULL) {
        return RC_NOMEM;
    }
    if (pg_arrays_new(&s->rows, COLUMNS) != RC_OK) {
        free(s);
        return RC_NOMEM;
    }
    *self = s;
    return RC_OK;
}

static void
store_configure(void *self, const struct conf *conf)
{
    (void)self;
    (void)conf;
}

static void
store_free(void **self)
{
    struct call_store *s = *self;

    *self = NULL;
    if (s == NULL) {
        return;
    }
    pg_arrays_free(&s->rows);
    free(s->at);
    free(s);
}

const struct store_persister call_persister = {
    .service = SERVICE_CALL,
    .decode = store_decode,
    .count = store_count,
    .item = store_get,
    .persist = store_persist,
    .name = store_name,
    .release = store_release,
    .every_second = NULL,
    .new = store_new,
    .configure = store_configure,
    .free = store_free,
};
