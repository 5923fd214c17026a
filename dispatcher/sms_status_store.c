/* How status updates get into PostgreSQL: into table sms where their message
 * may take them, else into sms_update_errors; into sms_early while their
 * message is not there yet.
 *
 * One statement does a range. It locks the messages in the order of their ids
 * (two dispatchers never wait for each other crosswise), and judges each update
 * by the row as it is under the lock, so that whatever another dispatcher did
 * in the meantime counts: a final state is never overwritten. What may follow
 * what, and what is final, is handed in from sms_state.h. A message may stand
 * in a statement once, so that a range is done in as many runs as the most
 * frequent message has updates in it.
 *
 * Every step may be repeated: a state that was applied is no news, an error is
 * known by update request and message, a parked update by its status, too. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/pg_arrays.h"
#include "dispatcher/store_pg.h"
#include "shared/sms_state.h"
#include "shared/sms_update.h"
#include "shared/text.h"

/* Parked updates of one second's look, and looks at the same ones: a message
 * gives one update a look. */
#define WINDOW_ROWS "5000"
#define WINDOW_LOOKS 20
/* Before updates of a range: all that wait for the same messages. */
#define RANGE_LOOKS 1000
#define EARLY_MS INT64_C(86400000)
/* Nothing expires before we have been at work so long: after a long outage the
 * messages' own backlog comes first. */
#define EARLY_GRACE_MS INT64_C(600000)
#define GAP_MS 60000

enum param {
    PARAM_FOLLOWS, /* what may follow what: {"ACCEPTED CONFIRMED",...} */
    PARAM_FINAL,   /* states that nothing follows */
    PARAM_NODE,    /* whose notices; NULL: none are written */
    PARAM_ROWS
};

enum column { /* after those */
              COLUMN_ID,
              COLUMN_STATUS,
              COLUMN_BIT,
              COLUMN_WAIT,
              COLUMN_UPDATE,
              COLUMN_RECEIVED,
              COLUMN_NAME,
              COLUMN_REFUSAL,
              COLUMNS
};

/* Of "input (id, status, bit, wait, update_id, received, name, refusal)", each
 * id once. The UPDATE's condition is on what the lock showed: the statement's
 * own snapshot may be older. LATERAL: an index look-up for each, whatever the
 * planner believes of the tables, and locks in the order of the ids. */
#define JUDGE                                                                  \
    ", locked AS MATERIALIZED ("                                               \
    " SELECT l.* FROM (SELECT id FROM input WHERE id IS NOT NULL"              \
    " ORDER BY id) AS i CROSS JOIN LATERAL (SELECT m.id, m.status,"            \
    " m.seen_states FROM sms m WHERE m.id = i.id FOR UPDATE OF m) AS l)"       \
    ", judged AS MATERIALIZED ("                                               \
    " SELECT i.*, l.status AS before, CASE"                                    \
    " WHEN i.id IS NULL THEN 'refuse'"                                         \
    " WHEN l.id IS NULL AND i.wait THEN 'park'"                                \
    " WHEN l.id IS NULL THEN 'refuse'"                                         \
    " WHEN l.seen_states & i.bit <> 0 THEN 'repeat'"                           \
    " WHEN l.status || ' ' || i.status = ANY ($1::text[]) THEN 'apply'"        \
    " ELSE 'refuse' END AS verdict"                                            \
    " FROM input i LEFT JOIN locked l ON l.id = i.id)"                         \
    ", applied AS ("                                                           \
    " UPDATE sms m SET status = j.status,"                                     \
    " seen_states = m.seen_states | j.bit, updated_at = j.received"            \
    " FROM judged j WHERE m.id = j.id AND j.verdict = 'apply'"                 \
    " RETURNING m.id, m.status, m.updated_at)"                                 \
    ", noticed AS ("                                                           \
    " INSERT INTO sms_notices (message_id, status, changed_at, node)"          \
    " SELECT id, status, updated_at, $3::int FROM applied"                     \
    " WHERE $3::int IS NOT NULL)"                                              \
    ", refused AS ("                                                           \
    " INSERT INTO sms_update_errors"                                           \
    " (update_id, message_id, status, reason, received_at)"                    \
    " SELECT update_id, coalesce(name, id::text), status,"                     \
    " coalesce(refusal, CASE WHEN before IS NULL THEN 'unknown message'"       \
    " ELSE status || ' after ' || before || CASE"                              \
    " WHEN before = ANY ($2::text[])"                                          \
    " THEN ': a final state is never overwritten'"                             \
    " ELSE ': it may not follow' END END), received"                           \
    " FROM judged WHERE verdict = 'refuse'"                                    \
    " ON CONFLICT (update_id, message_id) DO NOTHING RETURNING 1)"
#define COUNTS                                                                 \
    " SELECT (SELECT count(*) FROM applied),"                                  \
    " (SELECT count(*) FROM judged WHERE verdict = 'repeat'),"                 \
    " (SELECT count(*) FROM refused), "

static const char updates_sql[] =
    "WITH input AS MATERIALIZED ("
    " SELECT id, status, bit, wait, update_id,"
    " timestamptz 'epoch' + received * interval '1 millisecond' AS received,"
    " name, refusal"
    " FROM unnest($4::uuid[], $5::text[], $6::smallint[], $7::boolean[],"
    " $8::uuid[], $9::bigint[], $10::text[], $11::text[])"
    " AS t (id, status, bit, wait, update_id, received, name, refusal))" JUDGE
    ", parked AS ("
    " INSERT INTO sms_early (message_id, status, bit, update_id, received_at)"
    " SELECT id, status, bit, update_id, received"
    " FROM judged WHERE verdict = 'park'"
    " ON CONFLICT (message_id, status, update_id) DO NOTHING"
    " RETURNING 1)" COUNTS "(SELECT count(*) FROM parked)";

/* The oldest parked update of each message that is stored now. SKIP LOCKED:
 * another dispatcher is at that one. Scalar sub-selects instead of EXISTS are
 * index look-ups, too. */
#define EARLY(which)                                                           \
    "WITH input AS MATERIALIZED ("                                             \
    " SELECT e.message_id AS id, e.status, e.bit, true AS wait, e.update_id,"  \
    " e.received_at AS received, NULL::text AS name, NULL::text AS refusal,"   \
    " e.no FROM sms_early e WHERE " which                                      \
    " AND (SELECT true FROM sms m WHERE m.id = e.message_id)"                  \
    " AND (SELECT true FROM sms_early o WHERE o.message_id = e.message_id"     \
    " AND o.no < e.no LIMIT 1) IS NULL"                                        \
    " ORDER BY e.message_id FOR UPDATE OF e SKIP LOCKED)" JUDGE ", taken AS (" \
    " DELETE FROM sms_early WHERE no = ANY (ARRAY ("                           \
    " SELECT no FROM judged WHERE verdict <> 'park')) RETURNING 1)" COUNTS     \
    "(SELECT count(*) FROM taken)"

static const char early_of_messages_sql[] =
    EARLY("e.message_id = ANY ($4::uuid[])");
static const char early_of_window_sql[] =
    EARLY("e.no > $4::bigint AND e.no <= $5::bigint");

static const char any_early_sql[] = "SELECT 1 FROM sms_early LIMIT 1";

static const char window_sql[] =
    "SELECT count(*), max(no) FROM (SELECT no FROM sms_early"
    " WHERE no > $1::bigint ORDER BY no LIMIT " WINDOW_ROWS ") AS w";

static const char expire_sql[] =
    "WITH old AS MATERIALIZED ("
    " SELECT e.no FROM sms_early e"
    " WHERE e.no > $1::bigint AND e.no <= $2::bigint"
    " AND e.parked_at < timestamptz 'epoch'"
    " + $3::bigint * interval '1 millisecond'"
    " AND (SELECT true FROM sms m WHERE m.id = e.message_id) IS NULL"
    " ORDER BY e.no FOR UPDATE OF e SKIP LOCKED)"
    ", gone AS ("
    " DELETE FROM sms_early WHERE no = ANY (ARRAY (SELECT no FROM old))"
    " RETURNING update_id, message_id, status, received_at)"
    ", refused AS ("
    " INSERT INTO sms_update_errors"
    " (update_id, message_id, status, reason, received_at)"
    " SELECT update_id, message_id::text, status,"
    " 'no such message within 24 h', received_at FROM gone"
    " ON CONFLICT (update_id, message_id) DO NOTHING RETURNING 1)"
    " SELECT count(*) FROM refused";

static const char count_early_sql[] =
    "SELECT count(*) FROM (SELECT 1 FROM sms_early LIMIT 100000) AS e";

struct request {
    int64_t seq;
    int64_t received_unix_ms;
    struct uuid id;
};

struct update {
    size_t request; /* index */
    bool mapped;
    struct uuid id;
    enum sms_state state;
    bool known;   /* our journal had the message */
    size_t words; /* of one that is not mapped: in texts, name NUL word NUL */
};

/* An update of the range at hand: which one, and how many of the same message
 * come before it there. */
struct place {
    struct uuid id;
    bool mapped;
    size_t index;
    size_t run;
};

struct status_store {
    struct request *requests;
    size_t request_count;
    size_t request_capacity;
    struct update *updates;
    size_t count;
    size_t capacity;
    struct text texts;
    struct place *places;
    size_t place_capacity;
    struct pg_arrays *rows;
    struct pg_arrays *ids;     /* of one column: a range's messages */
    struct pg_arrays *follows; /* of one column each, from sms_state.h */
    struct pg_arrays *finals;
    const char *params[PARAM_ROWS + COLUMNS]; /* the first ones are fixed */
    char node[24];
    uint16_t node_id;
    struct metrics *metrics;
    int64_t cursor;        /* parked ones up to this no were looked at */
    int64_t since_unix_ms; /* at work every second since then */
    int64_t last_unix_ms;
};

/* ---- decoding -------------------------------------------------------------
 */

/* Room for one more of count entries. */
static enum rc
grow(void **array, size_t *capacity, size_t count, size_t entry_bytes)
{
    size_t wanted = *capacity * 2 + 64;
    void *grown;

    if (count < *capacity) {
        return RC_OK;
    }
    grown = realloc(*array, wanted * entry_bytes);
    if (grown == NULL) {
        return RC_NOMEM;
    }
    *array = grown;
    *capacity = wanted;
    return RC_OK;
}

static enum rc
add_request(struct status_store *s, const struct sms_update_head *head)
{
    void *array = s->requests;
    enum rc rc = grow(&array, &s->request_capacity, s->request_count,
                      sizeof(s->requests[0]));

    s->requests = array;
    if (rc == RC_OK) {
        s->requests[s->request_count++] =
            (struct request){.seq = head->seq,
                             .received_unix_ms = head->received_unix_ms,
                             .id = head->id};
    }
    return rc;
}

static enum rc
add_update(struct status_store *s, const struct sms_update *update)
{
    void *array = s->updates;
    enum rc rc = grow(&array, &s->capacity, s->count, sizeof(s->updates[0]));

    s->updates = array;
    if (rc != RC_OK) {
        return rc;
    }
    s->updates[s->count] = (struct update){.request = s->request_count - 1,
                                           .mapped = update->mapped,
                                           .id = update->id,
                                           .state = update->state,
                                           .known = update->known,
                                           .words = s->texts.bytes};
    if (!update->mapped) {
        text_append(&s->texts, update->name, strlen(update->name) + 1);
        text_append(&s->texts, update->word, strlen(update->word) + 1);
    }
    if (text_failed(&s->texts)) {
        return RC_NOMEM;
    }
    s->count++;
    return RC_OK;
}

static enum rc
decode(struct status_store *s, const struct journal_row *outcome)
{
    struct sms_update_head head;
    struct sms_update update;
    size_t head_bytes = 0;
    enum rc rc = sms_update_head_get(outcome->body, outcome->body_bytes, &head,
                                     &head_bytes);

    if (rc == RC_OK) {
        rc = add_request(s, &head);
    }
    if (rc != RC_OK) {
        return rc;
    }
    struct sms_update_cursor cursor = {.body = outcome->body + head_bytes,
                                       .bytes =
                                           outcome->body_bytes - head_bytes};

    rc = sms_update_next(&cursor, &update);
    while (rc == RC_OK) {
        rc = add_update(s, &update);
        if (rc == RC_OK) {
            rc = sms_update_next(&cursor, &update);
        }
    }
    return rc == RC_AGAIN ? RC_OK : rc;
}

static enum rc
store_decode(void *self, const struct journal_row *outcome)
{
    struct status_store *s = self;
    size_t request_count = s->request_count;
    size_t count = s->count;
    size_t bytes = s->texts.bytes;
    enum rc rc = outcome->broken ? RC_INVALID : decode(s, outcome);

    if (rc != RC_OK) { /* all of an outcome or nothing */
        s->request_count = request_count;
        s->count = count;
        s->texts.bytes = bytes;
    }
    return rc;
}

static void
store_release(void *self)
{
    struct status_store *s = self;

    s->request_count = 0;
    s->count = 0;
    text_reset(&s->texts);
}

/* ---- items ----------------------------------------------------------------
 */

static size_t
store_count(const void *self)
{
    const struct status_store *s = self;

    return s->count;
}

static struct store_item
store_get(const void *self, size_t index)
{
    const struct status_store *s = self;
    const struct update *u = &s->updates[index];

    return (struct store_item){.seq = s->requests[u->request].seq, .data = u};
}

static const char *
name_of(const struct status_store *s, const struct update *u)
{
    return text_cstr(&s->texts) + u->words;
}

static const char *
word_of(const struct status_store *s, const struct update *u)
{
    const char *name = name_of(s, u);

    return name + strlen(name) + 1;
}

/* A name may be longer than a dead letter's item: cut, between characters. */
static void
store_name(const void *self, size_t index, char out[JOURNAL_ITEM_BYTES])
{
    const struct status_store *s = self;
    const struct update *u = &s->updates[index];
    size_t at = 0;

    if (u->mapped) {
        (void)uuid_format(&u->id, out);
        return;
    }
    const char *name = name_of(s, u);
    const size_t bytes = strlen(name);
    size_t length = text_utf8_length(name, bytes);

    while (length > 0 && at + length < JOURNAL_ITEM_BYTES) {
        at += length;
        length = text_utf8_length(name + at, bytes - at);
    }
    memcpy(out, name, at);
    out[at] = '\0';
}

/* ---- statements -----------------------------------------------------------
 */

/* Run a statement with COUNTS; *last = its last number. */
static enum rc
run_judging(struct status_store *s, struct pg *pg, const char *sql,
            int param_count, int64_t *last)
{
    struct pg_result *result = NULL;
    enum rc rc = pg_exec(pg, sql, param_count, s->params, &result);

    *last = 0;
    if (rc == RC_OK) {
        metrics_add(s->metrics, METRIC_SMS_UPDATES_APPLIED_TOTAL, SERVICE_COUNT,
                    pg_number(result, 0, 0));
        metrics_add(s->metrics, METRIC_SMS_UPDATES_REPEATED_TOTAL,
                    SERVICE_COUNT, pg_number(result, 0, 1));
        metrics_add(s->metrics, METRIC_SMS_UPDATE_ERRORS_TOTAL, SERVICE_COUNT,
                    pg_number(result, 0, 2));
        *last = pg_number(result, 0, 3);
    }
    pg_result_free(&result);
    return rc;
}

/* Look at the parked ones that sql means until none of them moves, at most
 * looks times. */
static enum rc
take_early(struct status_store *s, struct pg *pg, const char *sql,
           int param_count, int looks)
{
    int64_t taken = 1;
    enum rc rc = RC_OK;

    for (int k = 0; rc == RC_OK && taken > 0 && k < looks; k++) {
        rc = run_judging(s, pg, sql, param_count, &taken);
    }
    return rc;
}

/* ---- a range --------------------------------------------------------------
 */

/* By message, those of one message in their order; what is not mapped first. */
static int
by_message(const void *a, const void *b)
{
    const struct place *left = a;
    const struct place *right = b;
    int order = memcmp(left->id.bytes, right->id.bytes, UUID_BYTES);

    if (left->mapped != right->mapped) {
        return left->mapped ? 1 : -1;
    }
    if (order != 0 && left->mapped) {
        return order;
    }
    return (left->index > right->index) - (left->index < right->index);
}

/* Put the range's updates in order and give each its run: the n-th update of a
 * message is in the n-th run. *runs = how many there are. */
static enum rc
make_places(struct status_store *s, size_t from, size_t to, size_t *runs)
{
    *runs = 1;
    if (s->place_capacity < to - from) {
        struct place *grown =
            realloc(s->places, (to - from) * sizeof(s->places[0]));

        if (grown == NULL) {
            return RC_NOMEM;
        }
        s->places = grown;
        s->place_capacity = to - from;
    }
    for (size_t i = from; i < to; i++) {
        s->places[i - from] = (struct place){
            .id = s->updates[i].id, .mapped = s->updates[i].mapped, .index = i};
    }
    qsort(s->places, to - from, sizeof(s->places[0]), by_message);
    for (size_t i = 1; i < to - from; i++) {
        struct place *place = &s->places[i];
        const struct place *before = place - 1;

        if (place->mapped && before->mapped &&
            memcmp(place->id.bytes, before->id.bytes, UUID_BYTES) == 0) {
            place->run = before->run + 1;
            *runs = place->run + 1 > *runs ? place->run + 1 : *runs;
        }
    }
    return RC_OK;
}

static void
put_string(struct status_store *s, enum column column, const char *value)
{
    pg_arrays_text(s->rows, column, value, strlen(value));
}

/* A row that is an error before anyone looks at the message. */
static void
put_unmapped(struct status_store *s, const struct update *u)
{
    const char *name = name_of(s, u);
    struct uuid id;

    pg_arrays_null(s->rows, COLUMN_ID);
    put_string(s, COLUMN_STATUS, word_of(s, u));
    pg_arrays_int(s->rows, COLUMN_BIT, 0);
    put_string(s, COLUMN_WAIT, "false");
    put_string(s, COLUMN_NAME, name);
    put_string(s, COLUMN_REFUSAL,
               uuid_parse(name, &id) == RC_OK ? "not a status that we know"
                                              : "not a message id");
}

static void
put_mapped(struct status_store *s, const struct update *u)
{
    bool wait = u->known || uuid_node(&u->id) != s->node_id;

    pg_arrays_uuid(s->rows, COLUMN_ID, &u->id);
    put_string(s, COLUMN_STATUS, sms_state_name(u->state));
    pg_arrays_int(s->rows, COLUMN_BIT, INT64_C(1) << u->state);
    put_string(s, COLUMN_WAIT, wait ? "true" : "false");
    pg_arrays_null(s->rows, COLUMN_NAME);
    pg_arrays_null(s->rows, COLUMN_REFUSAL);
}

static void
put_row(struct status_store *s, const struct update *u)
{
    const struct request *request = &s->requests[u->request];

    if (u->mapped) {
        put_mapped(s, u);
    } else {
        put_unmapped(s, u);
    }
    pg_arrays_uuid(s->rows, COLUMN_UPDATE, &request->id);
    pg_arrays_int(s->rows, COLUMN_RECEIVED, request->received_unix_ms);
}

static enum rc
persist_run(struct status_store *s, struct pg *pg, size_t count, size_t run)
{
    int64_t parked = 0;
    enum rc rc;

    pg_arrays_begin(s->rows);
    for (size_t i = 0; i < count; i++) {
        if (s->places[i].run == run) {
            put_row(s, &s->updates[s->places[i].index]);
        }
    }
    rc = pg_arrays_end(s->rows, s->params + PARAM_ROWS);
    if (rc == RC_OK) {
        rc = run_judging(s, pg, updates_sql, PARAM_ROWS + COLUMNS, &parked);
    }
    if (rc == RC_OK) {
        metrics_add(s->metrics, METRIC_SMS_UPDATES_PARKED_TOTAL, SERVICE_COUNT,
                    parked);
    }
    return rc;
}

static enum rc
any_early(struct pg *pg, bool *any)
{
    struct pg_result *result = NULL;
    enum rc rc = pg_exec(pg, any_early_sql, 0, NULL, &result);

    *any = rc == RC_OK && pg_rows(result) > 0;
    pg_result_free(&result);
    return rc;
}

/* What waits for messages of the range came before it. */
static enum rc
take_early_of_range(struct status_store *s, struct pg *pg, size_t count)
{
    bool any = false;
    enum rc rc = any_early(pg, &any);

    if (rc != RC_OK || !any) {
        return rc;
    }
    pg_arrays_begin(s->ids);
    for (size_t i = 0; i < count; i++) {
        if (s->places[i].mapped && s->places[i].run == 0) {
            pg_arrays_uuid(s->ids, 0, &s->places[i].id);
        }
    }
    rc = pg_arrays_end(s->ids, s->params + PARAM_ROWS);
    return rc == RC_OK ? take_early(s, pg, early_of_messages_sql,
                                    PARAM_ROWS + 1, RANGE_LOOKS)
                       : rc;
}

static enum rc
store_persist(void *self, struct pg *pg, size_t from, size_t to)
{
    struct status_store *s = self;
    size_t runs = 0;
    enum rc rc;

    if (from >= to) {
        return RC_OK;
    }
    rc = make_places(s, from, to, &runs);
    if (rc == RC_OK) {
        rc = take_early_of_range(s, pg, to - from);
    }
    for (size_t run = 0; rc == RC_OK && run < runs; run++) {
        rc = persist_run(s, pg, to - from, run);
    }
    return rc;
}

/* ---- every second ---------------------------------------------------------
 */

/* The next parked ones to look at: those behind *after up to *last; *full = as
 * many as may be. None: *last is *after. */
static enum rc
next_window(struct pg *pg, int64_t after, int64_t *last, bool *full)
{
    char after_text[24];
    const char *params[] = {after_text};
    struct pg_result *result = NULL;
    enum rc rc;

    *last = after;
    *full = false;
    (void)snprintf(after_text, sizeof(after_text), "%" PRId64, after);
    rc = pg_exec(pg, window_sql, 1, params, &result);
    if (rc == RC_OK && pg_number(result, 0, 0) > 0) {
        *full = pg_number(result, 0, 0) >= strtoll(WINDOW_ROWS, NULL, 10);
        *last = pg_number(result, 0, 1);
    }
    pg_result_free(&result);
    return rc;
}

/* Turn those of the window that have waited for too long into errors. */
static enum rc
expire(struct status_store *s, struct pg *pg, const char *const *window,
       int64_t now_unix_ms)
{
    char before[24];
    const char *params[] = {window[0], window[1], before};
    struct pg_result *result = NULL;
    enum rc rc;

    if (now_unix_ms - s->since_unix_ms < EARLY_GRACE_MS) {
        return RC_OK;
    }
    (void)snprintf(before, sizeof(before), "%" PRId64, now_unix_ms - EARLY_MS);
    rc = pg_exec(pg, expire_sql, ARRAY_COUNT(params), params, &result);
    if (rc == RC_OK) {
        metrics_add(s->metrics, METRIC_SMS_UPDATE_ERRORS_TOTAL, SERVICE_COUNT,
                    pg_number(result, 0, 0));
    }
    pg_result_free(&result);
    return rc;
}

static enum rc
look_at_window(struct status_store *s, struct pg *pg, int64_t last,
               int64_t now_unix_ms)
{
    char after_text[24];
    char last_text[24];
    enum rc rc;

    (void)snprintf(after_text, sizeof(after_text), "%" PRId64, s->cursor);
    (void)snprintf(last_text, sizeof(last_text), "%" PRId64, last);
    s->params[PARAM_ROWS] = after_text;
    s->params[PARAM_ROWS + 1] = last_text;
    rc = take_early(s, pg, early_of_window_sql, PARAM_ROWS + 2, WINDOW_LOOKS);
    if (rc == RC_OK) {
        rc = expire(s, pg, s->params + PARAM_ROWS, now_unix_ms);
    }
    s->params[PARAM_ROWS] = NULL;
    s->params[PARAM_ROWS + 1] = NULL;
    return rc;
}

static enum rc
note_early(struct status_store *s, struct pg *pg)
{
    struct pg_result *result = NULL;
    enum rc rc = pg_exec(pg, count_early_sql, 0, NULL, &result);

    if (rc == RC_OK) {
        metrics_set(s->metrics, METRIC_SMS_UPDATES_EARLY, SERVICE_COUNT,
                    pg_number(result, 0, 0));
    }
    pg_result_free(&result);
    return rc;
}

/* One window a second, so that a million updates for messages that will never
 * come cost no more than a few. */
static enum rc
store_every_second(void *self, struct pg *pg, int64_t now_unix_ms)
{
    struct status_store *s = self;
    int64_t last = 0;
    bool full = false;
    enum rc rc;

    if (now_unix_ms - s->last_unix_ms > GAP_MS ||
        now_unix_ms < s->since_unix_ms) {
        s->since_unix_ms = now_unix_ms;
    }
    s->last_unix_ms = now_unix_ms;
    rc = next_window(pg, s->cursor, &last, &full);
    if (rc == RC_OK && last > s->cursor) {
        rc = look_at_window(s, pg, last, now_unix_ms);
    }
    if (rc == RC_OK) {
        s->cursor = full ? last : 0;
        rc = note_early(s, pg);
    }
    return rc;
}

/* ---- new and free ---------------------------------------------------------
 */

static void
store_configure(void *self, const struct conf *conf)
{
    struct status_store *s = self;
    bool notices = conf->sms.status_callback_url[0] != '\0';

    s->params[PARAM_NODE] = notices ? s->node : NULL;
}

static void
store_free(void **self)
{
    struct status_store *s = *self;

    *self = NULL;
    if (s == NULL) {
        return;
    }
    pg_arrays_free(&s->rows);
    pg_arrays_free(&s->ids);
    pg_arrays_free(&s->follows);
    pg_arrays_free(&s->finals);
    text_free(&s->texts);
    free(s->requests);
    free(s->updates);
    free(s->places);
    free(s);
}

/* The table of states, in the form that the statements want it in. */
static enum rc
make_rules(struct status_store *s)
{
    char pair[64];
    enum rc rc;

    pg_arrays_begin(s->follows);
    pg_arrays_begin(s->finals);
    for (unsigned from = 0; from < SMS_STATES; from++) {
        const char *before = sms_state_name((enum sms_state)from);

        if (sms_state_is_final((enum sms_state)from)) {
            pg_arrays_text(s->finals, 0, before, strlen(before));
        }
        for (unsigned to = 0; to < SMS_STATES; to++) {
            if (sms_state_may_follow((enum sms_state)from,
                                     (enum sms_state)to)) {
                (void)snprintf(pair, sizeof(pair), "%s %s", before,
                               sms_state_name((enum sms_state)to));
                pg_arrays_text(s->follows, 0, pair, strlen(pair));
            }
        }
    }
    rc = pg_arrays_end(s->follows, &s->params[PARAM_FOLLOWS]);
    return rc == RC_OK ? pg_arrays_end(s->finals, &s->params[PARAM_FINAL]) : rc;
}

static enum rc
store_new(void **self, const struct conf *conf, struct metrics *metrics)
{
    struct status_store *s = calloc(1, sizeof(*s));

    *self = s;
    if (s == NULL || pg_arrays_new(&s->rows, COLUMNS) != RC_OK ||
        pg_arrays_new(&s->ids, 1) != RC_OK ||
        pg_arrays_new(&s->follows, 1) != RC_OK ||
        pg_arrays_new(&s->finals, 1) != RC_OK || make_rules(s) != RC_OK) {
        store_free(self);
        return RC_NOMEM;
    }
    s->metrics = metrics;
    s->node_id = (uint16_t)conf->node.id;
    (void)snprintf(s->node, sizeof(s->node), "%" PRId64, conf->node.id);
    store_configure(s, conf);
    return RC_OK;
}

const struct store_persister sms_status_persister = {
    .service = SERVICE_SMS_STATUS,
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
