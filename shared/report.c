/* Documents about the journal. cJSON builds them: nothing here is on the way
 * of a request. Building fails stickily: the root is NULL when memory was
 * short, and that is looked at once, in finish(). */
#include "shared/report.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cJSON.h>

#include "shared/clock.h"
#include "shared/journal_batch.h"

#define ROWS_MAX 1000
#define PAGE_BYTES ((size_t)4 << 20)

/* ---- building -------------------------------------------------------------
 */

struct document {
    cJSON *root;
    bool failed; /* memory was short somewhere */
};

static void
check(struct document *d, const cJSON *added)
{
    d->failed = d->failed || added == NULL;
}

static void
add_int(struct document *d, cJSON *object, const char *name, int64_t value)
{
    check(d, cJSON_AddNumberToObject(object, name, (double)value));
}

static void
add_string(struct document *d, cJSON *object, const char *name,
           const char *value)
{
    check(d, cJSON_AddStringToObject(object, name, value));
}

static void
add_time(struct document *d, cJSON *object, const char *name, int64_t unix_ms)
{
    char time[CLOCK_RFC3339_BYTES];

    add_string(d, object, name, clock_rfc3339(unix_ms, time));
}

static void
add_uuid(struct document *d, cJSON *object, const char *name,
         const struct uuid *id)
{
    char text[UUID_TEXT_BYTES];

    add_string(d, object, name, uuid_format(id, text));
}

static cJSON *
add_object(struct document *d, cJSON *object, const char *name)
{
    cJSON *added = cJSON_AddObjectToObject(object, name);

    check(d, added);
    return added;
}

static cJSON *
add_array(struct document *d, cJSON *object, const char *name)
{
    cJSON *added = cJSON_AddArrayToObject(object, name);

    check(d, added);
    return added;
}

static cJSON *
append_object(struct document *d, cJSON *array)
{
    cJSON *added = cJSON_CreateObject();

    if (added != NULL && !cJSON_AddItemToArray(array, added)) {
        cJSON_Delete(added);
        added = NULL;
    }
    check(d, added);
    return added;
}

static void
start(struct document *d)
{
    d->root = cJSON_CreateObject();
    d->failed = d->root == NULL;
}

/* Print what was built if all went well, and free it. Returns rc, or what went
 * wrong here. */
static enum rc
finish(struct document *d, enum rc rc, struct text *out)
{
    bool wanted = rc == RC_OK || rc == RC_AGAIN;
    char *text = wanted && !d->failed ? cJSON_PrintUnformatted(d->root) : NULL;

    cJSON_Delete(d->root);
    d->root = NULL;
    if (!wanted) {
        return rc;
    }
    if (text == NULL) {
        return RC_NOMEM;
    }
    text_puts(out, text);
    cJSON_free(text);
    return text_failed(out) ? RC_NOMEM : rc;
}

/* Age in seconds; 0 when there is none. */
static double
age_s(int64_t since_unix_ms, int64_t now_unix_ms)
{
    return since_unix_ms == 0 || now_unix_ms < since_unix_ms
               ? 0
               : (double)(now_unix_ms - since_unix_ms) / 1000;
}

/* ---- the ledger -----------------------------------------------------------
 */

static void
add_ledger(struct document *d, cJSON *services, enum service service,
           const struct journal_ledger *ledger, int64_t now_unix_ms)
{
    cJSON *object = add_object(d, services, service_name(service));

    add_int(d, object, "accepted", ledger->accepted);
    add_int(d, object, "final", ledger->final);
    add_int(d, object, "dead", ledger->dead);
    add_int(d, object, "pending", ledger->pending);
    add_int(d, object, "outcomes", ledger->outcomes);
    check(d, cJSON_AddBoolToObject(object, "balanced", ledger->balanced));
    check(d, cJSON_AddNumberToObject(
                 object, "oldest_age_s",
                 age_s(ledger->oldest_received_unix_ms, now_unix_ms)));
    add_int(d, object, "queue_bytes", ledger->queue_bytes);
}

enum rc
report_ledger(struct journal *j, int64_t max_bytes, int64_t now_unix_ms,
              struct text *out)
{
    struct journal_ledger ledger[SERVICE_COUNT];
    struct document d;
    cJSON *part;
    int64_t used = 0;
    enum rc rc = journal_ledger(j, ledger);

    if (rc == RC_OK) {
        rc = journal_used_bytes(j, &used);
    }
    if (rc != RC_OK) {
        return rc;
    }
    start(&d);
    part = add_object(&d, d.root, "services");
    for (unsigned s = 0; s < SERVICE_COUNT; s++) {
        add_ledger(&d, part, (enum service)s, &ledger[s], now_unix_ms);
    }
    part = add_object(&d, d.root, "journal");
    add_int(&d, part, "used_bytes", used);
    add_int(&d, part, "max_bytes", max_bytes);
    return finish(&d, RC_OK, out);
}

enum ledger_metric {
    LEDGER_ACCEPTED,
    LEDGER_FINAL,
    LEDGER_DEAD,
    LEDGER_PENDING,
    LEDGER_OUTCOMES,
    LEDGER_OLDEST_AGE,
    LEDGER_QUEUE_BYTES,
    LEDGER_BALANCED,
    LEDGER_COUNT
};

/* The dead are no counter: a retry takes from them. */
static const struct {
    const char *name;
    const char *type;
    const char *help;
} ledger_metrics[LEDGER_COUNT] = {
    [LEDGER_ACCEPTED] = {"accepted_total", "counter",
                         "Requests answered with 202."},
    [LEDGER_FINAL] = {"final_total", "counter",
                      "Requests that reached their end."},
    [LEDGER_DEAD] = {"dead", "gauge", "Requests among the dead letters."},
    [LEDGER_PENDING] = {"pending", "gauge", "Requests in the journal's queue."},
    [LEDGER_OUTCOMES] = {"outcomes", "gauge",
                         "Outcomes that wait for the store."},
    [LEDGER_OLDEST_AGE] = {"oldest_age_seconds", "gauge",
                           "Age of the oldest pending request."},
    [LEDGER_QUEUE_BYTES] = {"queue_bytes", "gauge",
                            "Bytes of the bodies in the queue."},
    [LEDGER_BALANCED] = {"ledger_balanced", "gauge",
                         "1 while accepted = final + pending + dead."},
};

static double
ledger_value(const struct journal_ledger *ledger, enum ledger_metric metric,
             int64_t now_unix_ms)
{
    switch (metric) {
    case LEDGER_ACCEPTED:
        return (double)ledger->accepted;
    case LEDGER_FINAL:
        return (double)ledger->final;
    case LEDGER_DEAD:
        return (double)ledger->dead;
    case LEDGER_PENDING:
        return (double)ledger->pending;
    case LEDGER_OUTCOMES:
        return (double)ledger->outcomes;
    case LEDGER_OLDEST_AGE:
        return age_s(ledger->oldest_received_unix_ms, now_unix_ms);
    case LEDGER_QUEUE_BYTES:
        return (double)ledger->queue_bytes;
    case LEDGER_BALANCED:
        return ledger->balanced;
    case LEDGER_COUNT:
        break;
    }
    return 0;
}

enum rc
report_ledger_metrics(struct journal *j, int64_t now_unix_ms, struct text *out)
{
    struct journal_ledger ledger[SERVICE_COUNT];
    enum rc rc = journal_ledger(j, ledger);

    if (rc != RC_OK) {
        return rc;
    }
    for (unsigned m = 0; m < LEDGER_COUNT; m++) {
        const char *name = ledger_metrics[m].name;

        text_printf(out, "# HELP sluice_%s %s\n# TYPE sluice_%s %s\n", name,
                    ledger_metrics[m].help, name, ledger_metrics[m].type);
        for (unsigned s = 0; s < SERVICE_COUNT; s++) {
            text_printf(
                out, "sluice_%s{service=\"%s\"} %.16g\n", name,
                service_name((enum service)s),
                ledger_value(&ledger[s], (enum ledger_metric)m, now_unix_ms));
        }
    }
    return text_failed(out) ? RC_NOMEM : RC_OK;
}

/* ---- the queue ------------------------------------------------------------
 */

static enum rc
add_queue(struct document *d, struct journal *j, cJSON *array,
          enum service service, const struct journal_ledger *ledger,
          size_t limit, int64_t now_unix_ms)
{
    struct journal_page page = {0};
    cJSON *object = append_object(d, array);
    cJSON *next = NULL;
    enum rc rc = RC_OK;

    add_string(d, object, "service", service_name(service));
    add_int(d, object, "pending", ledger->pending);
    check(d, cJSON_AddNumberToObject(
                 object, "oldest_age_s",
                 age_s(ledger->oldest_received_unix_ms, now_unix_ms)));
    add_int(d, object, "queue_bytes", ledger->queue_bytes);
    next = add_array(d, object, "next");
    if (limit > 0) {
        rc = journal_queue_page(j, service, 0, limit, PAGE_BYTES, &page);
    }
    for (size_t i = 0; i < page.count; i++) {
        const struct journal_row *row = &page.rows[i];
        cJSON *item = append_object(d, next);

        add_uuid(d, item, "id", &row->id);
        add_int(d, item, "seq", row->seq);
        add_time(d, item, "received_at", row->received_unix_ms);
        add_int(d, item, "body_bytes", (int64_t)row->body_bytes);
    }
    journal_page_free(&page);
    return rc;
}

enum rc
report_queue(struct journal *j, enum service service, size_t limit,
             int64_t now_unix_ms, struct text *out)
{
    struct journal_ledger ledger[SERVICE_COUNT];
    struct document d;
    cJSON *array;
    enum rc rc = journal_ledger(j, ledger);

    if (rc != RC_OK) {
        return rc;
    }
    start(&d);
    array = add_array(&d, d.root, "queue");
    for (unsigned s = 0; s < SERVICE_COUNT && rc == RC_OK; s++) {
        if (service == SERVICE_COUNT || service == (enum service)s) {
            rc = add_queue(&d, j, array, (enum service)s, &ledger[s],
                           limit < ROWS_MAX ? limit : ROWS_MAX, now_unix_ms);
        }
    }
    return finish(&d, rc == RC_AGAIN ? RC_IO : rc, out);
}

/* ---- dead letters ---------------------------------------------------------
 */

struct entries {
    struct journal_entry *list;
    size_t count;
    size_t capacity;
};

static bool
keep_entry(void *arg, const struct journal_entry *entry)
{
    struct entries *e = arg;

    if (e->count < e->capacity) {
        e->list[e->count++] = *entry;
    }
    return e->count < e->capacity;
}

struct item_target {
    struct document *d;
    cJSON *items;
};

static bool
add_item(void *arg, const char *item, const char *reason, int64_t attempts)
{
    struct item_target *t = arg;
    cJSON *object = append_object(t->d, t->items);

    add_string(t->d, object, "item", item);
    add_string(t->d, object, "reason", reason);
    add_int(t->d, object, "attempts", attempts);
    return !t->d->failed;
}

static enum rc
add_items(struct document *d, struct journal *j, cJSON *object,
          const struct journal_entry *entry)
{
    struct item_target target = {d, add_array(d, object, "items")};

    return entry->items > 0
               ? journal_dead_items_each(j, &entry->id, add_item, &target)
               : RC_OK;
}

static enum rc
add_dead(struct document *d, struct journal *j, cJSON *array,
         const struct journal_entry *entry)
{
    cJSON *object = append_object(d, array);

    add_uuid(d, object, "id", &entry->id);
    add_string(d, object, "service", service_name(entry->service));
    add_int(d, object, "seq", entry->seq);
    add_time(d, object, "received_at", entry->received_unix_ms);
    add_time(d, object, "dead_at", entry->dead_unix_ms);
    add_string(d, object, "reason", entry->reason);
    return add_items(d, j, object, entry);
}

/* Those of one service with seq > after, at most limit. *next = the last one's
 * seq when there are more, else 0. */
static enum rc
add_dead_of(struct document *d, struct journal *j, enum service service,
            int64_t after, struct entries *entries, int64_t *next)
{
    cJSON *array = cJSON_GetObjectItem(d->root, "dead");
    size_t limit = entries->capacity - 1;
    enum rc rc;

    *next = 0;
    entries->count = 0;
    rc = journal_dead_each(j, service, after, entries->capacity, keep_entry,
                           entries);
    for (size_t i = 0; i < entries->count && i < limit && rc == RC_OK; i++) {
        rc = add_dead(d, j, array, &entries->list[i]);
    }
    if (entries->count > limit) {
        *next = entries->list[limit - 1].seq;
    }
    return rc;
}

/* The dead letters of all services, each from its first one. */
static enum rc
add_dead_of_all(struct document *d, struct journal *j, struct entries *entries)
{
    cJSON *more = NULL;
    int64_t next = 0;
    enum rc rc = RC_OK;

    for (unsigned s = 0; s < SERVICE_COUNT && rc == RC_OK; s++) {
        rc = add_dead_of(d, j, (enum service)s, 0, entries, &next);
        if (next > 0 && more == NULL) {
            more = add_object(d, d->root, "next");
        }
        if (next > 0) {
            add_int(d, more, service_name((enum service)s), next);
        }
    }
    if (more == NULL) {
        check(d, cJSON_AddNullToObject(d->root, "next"));
    }
    return rc;
}

enum rc
report_dead(struct journal *j, enum service service, int64_t after,
            size_t limit, struct text *out)
{
    struct entries entries = {0};
    struct document d;
    int64_t next = 0;
    enum rc rc;

    limit = limit < 1 ? 1 : limit > ROWS_MAX ? ROWS_MAX : limit;
    entries.capacity = limit + 1; /* one more tells whether there are more */
    entries.list = calloc(entries.capacity, sizeof(*entries.list));
    if (entries.list == NULL) {
        return RC_NOMEM;
    }
    start(&d);
    (void)add_array(&d, d.root, "dead");
    if (service == SERVICE_COUNT) {
        rc = add_dead_of_all(&d, j, &entries);
    } else {
        rc = add_dead_of(&d, j, service, after, &entries, &next);
        if (next > 0) {
            add_int(&d, d.root, "next", next);
        } else {
            check(&d, cJSON_AddNullToObject(d.root, "next"));
        }
    }
    free(entries.list);
    if (rc == RC_AGAIN) {
        cJSON_Delete(d.root);
        return rc;
    }
    return finish(&d, rc, out);
}

/* ---- one request ----------------------------------------------------------
 */

static enum rc
add_place(struct document *d, struct journal *j,
          const struct journal_entry *entry)
{
    cJSON *root = d->root;

    add_string(d, root, "service", service_name(entry->service));
    add_int(d, root, "seq", entry->seq);
    add_time(d, root, "received_at", entry->received_unix_ms);
    switch (entry->place) {
    case JOURNAL_PENDING:
        add_string(d, root, "state", "pending");
        add_int(d, root, "ahead", entry->ahead);
        return RC_OK;
    case JOURNAL_PERSISTING:
        add_string(d, root, "state", "persisting");
        add_int(d, root, "outcome", entry->outcome_no);
        return RC_OK;
    case JOURNAL_DEAD:
        add_string(d, root, "state", "dead");
        add_time(d, root, "dead_at", entry->dead_unix_ms);
        add_string(d, root, "reason", entry->reason);
        return add_items(d, j, root, entry);
    }
    return RC_BUG;
}

/* The batch that a message is in, how often it was sent in vain, and why. */
static enum rc
add_batch(struct document *d, struct journal *j, const struct uuid *id)
{
    struct journal_batch batch;
    int64_t place = 0;
    enum rc rc = journal_batch_of(j, id, &batch, &place);

    if (rc == RC_OK) {
        add_uuid(d, d->root, "batch", &batch.id);
        add_int(d, d->root, "batch_size", batch.size);
        add_int(d, d->root, "batch_place", place + 1);
        add_int(d, d->root, "failed_attempts", batch.attempts);
        add_string(d, d->root, "last_error", batch.error);
    }
    return rc == RC_AGAIN ? RC_OK : rc;
}

enum rc
report_explain(struct journal *j, const struct uuid *id, struct text *out)
{
    struct journal_entry entry;
    struct document d;
    enum rc rc = journal_find(j, id, &entry);

    start(&d);
    add_uuid(&d, d.root, "id", id);
    add_int(&d, d.root, "node", uuid_node(id));
    add_time(&d, d.root, "created_at", uuid_unix_ms(id));
    if (rc == RC_OK) {
        rc = add_place(&d, j, &entry);
        if (rc == RC_OK && entry.service == SERVICE_SMS) {
            rc = add_batch(&d, j, id);
        }
    } else if (rc == RC_AGAIN) {
        add_string(&d, d.root, "state", "unknown");
    }
    return finish(&d, rc, out);
}
