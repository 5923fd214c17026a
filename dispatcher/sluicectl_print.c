/* Documents into text. A table is collected cell by cell and printed when all
 * widths are known. */
#include "dispatcher/sluicectl_print.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "shared/json.h"
#include "shared/text.h"

#define VALUE_BYTES 512
#define COLUMNS_MAX 12
#define ITEMS_SHOWN 3

/* ---- reading --------------------------------------------------------------
 */

struct ctl_document {
    struct json json;
    struct json_token *tokens;
};

enum rc
ctl_document_new(struct ctl_document **out, const char *text, size_t bytes)
{
    struct ctl_document *d = calloc(1, sizeof(*d));
    /* No value is shorter than a byte and its separator. */
    uint32_t max_tokens = (uint32_t)(bytes / 2 + 2);
    enum rc rc = RC_NOMEM;

    *out = NULL;
    if (d == NULL) {
        return RC_NOMEM;
    }
    d->tokens = calloc(max_tokens, sizeof(*d->tokens));
    if (d->tokens != NULL) {
        rc = json_scan(text, bytes, d->tokens, max_tokens, &d->json);
    }
    if (rc != RC_OK) {
        ctl_document_free(&d);
        return rc;
    }
    *out = d;
    return RC_OK;
}

void
ctl_document_free(struct ctl_document **d)
{
    if (*d != NULL) {
        free((*d)->tokens);
        free(*d);
        *d = NULL;
    }
}

/* Member name of object token i as text: strings decoded, numbers as they
 * are, "" when it is absent or null. */
static const char *
get(const struct ctl_document *d, uint32_t i, const char *name,
    char out[VALUE_BYTES])
{
    uint32_t at = json_member(&d->json, i, name);
    const struct json_token *token = &d->tokens[at];
    size_t bytes;

    out[0] = '\0';
    if (at == 0 || token->type == JSON_NULL) {
        return out;
    }
    if (token->type == JSON_STRING) {
        if (json_string(&d->json, at, out, VALUE_BYTES, &bytes) != RC_OK) {
            return "?";
        }
        return out;
    }
    bytes = token->bytes < VALUE_BYTES ? token->bytes : VALUE_BYTES - 1;
    memcpy(out, d->json.text + token->start, bytes);
    out[bytes] = '\0';
    return out;
}

static double
get_number(const struct ctl_document *d, uint32_t i, const char *name)
{
    char text[VALUE_BYTES];

    return strtod(get(d, i, name, text), NULL);
}

static bool
get_bool(const struct ctl_document *d, uint32_t i, const char *name)
{
    uint32_t at = json_member(&d->json, i, name);

    return at != 0 && d->tokens[at].type == JSON_TRUE;
}

/* Walk a container that is a member: 0 (absent) and scalars hold nothing. */
static uint32_t
first_in(uint32_t container)
{
    return container + 1;
}

static bool
is_in(const struct ctl_document *d, uint32_t container, uint32_t at)
{
    return container != 0 && at < d->tokens[container].next;
}

static uint32_t
next_in(const struct ctl_document *d, uint32_t at)
{
    return d->tokens[at].next;
}

static size_t
count_in(const struct ctl_document *d, uint32_t container)
{
    size_t count = 0;

    for (uint32_t at = first_in(container); is_in(d, container, at);
         at = next_in(d, at)) {
        count++;
    }
    return count;
}

/* ---- writing --------------------------------------------------------------
 */

static const char *
human_bytes(double bytes, char out[VALUE_BYTES])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    size_t unit = 0;

    while (bytes >= 1024 && unit + 1 < ARRAY_COUNT(units)) {
        bytes /= 1024;
        unit++;
    }
    (void)snprintf(out, VALUE_BYTES, unit == 0 ? "%.0f %s" : "%.1f %s", bytes,
                   units[unit]);
    return out;
}

static const char *
human_age(double seconds, char out[VALUE_BYTES])
{
    int64_t s = (int64_t)seconds;

    if (seconds < 60) {
        (void)snprintf(out, VALUE_BYTES, "%.1f s", seconds);
    } else if (s < 3600) {
        (void)snprintf(out, VALUE_BYTES, "%" PRId64 " min %" PRId64 " s",
                       s / 60, s % 60);
    } else if (s < 86400) {
        (void)snprintf(out, VALUE_BYTES, "%" PRId64 " h %" PRId64 " min",
                       s / 3600, s / 60 % 60);
    } else {
        (void)snprintf(out, VALUE_BYTES, "%" PRId64 " d %" PRId64 " h",
                       s / 86400, s / 3600 % 24);
    }
    return out;
}

/* Cells one behind the other, each ended by a NUL; the first row is the
 * heading, where a leading '>' asks for alignment to the right. */
struct table {
    size_t columns;
    size_t rows;
    struct text cells;
};

static void
cell(struct table *t, const char *text)
{
    text_append(&t->cells, text, strlen(text) + 1);
}

static void
heading(struct table *t, size_t columns, const char *const *names)
{
    t->columns = columns;
    t->rows = 1;
    for (size_t k = 0; k < columns; k++) {
        cell(t, names[k]);
    }
}

/* Print and free. */
static void
print_table(struct table *t, FILE *to)
{
    int widths[COLUMNS_MAX] = {0};
    bool right[COLUMNS_MAX] = {false};
    const char *at = t->cells.data;

    if (text_failed(&t->cells) || at == NULL) {
        text_free(&t->cells);
        return;
    }
    for (size_t i = 0; i < t->rows * t->columns; i++) {
        size_t column = i % t->columns;
        int width = (int)strlen(at);

        if (i < t->columns && *at == '>') {
            right[column] = true;
            width--;
        }
        widths[column] = width > widths[column] ? width : widths[column];
        at += strlen(at) + 1;
    }
    at = t->cells.data;
    for (size_t i = 0; i < t->rows * t->columns; i++) {
        size_t column = i % t->columns;
        bool last = column + 1 == t->columns;
        const char *text = i < t->columns && *at == '>' ? at + 1 : at;

        /* No blanks at the end of a line. */
        (void)fprintf(to, "%*s%s",
                      right[column] ? widths[column]
                      : last        ? 0
                                    : -widths[column],
                      text, last ? "\n" : "  ");
        at += strlen(at) + 1;
    }
    text_free(&t->cells);
}

/* ---- status ---------------------------------------------------------------
 */

static void
print_database(const struct ctl_document *d, const char *name, FILE *to)
{
    uint32_t at = json_member(&d->json, 0, name);

    if (at != 0) {
        (void)fprintf(to, "%-11s %s\n", name,
                      get_bool(d, at, "up") ? "up" : "DOWN");
    }
}

/* Only when the operator is needed. */
static void
print_mail(const struct ctl_document *d, FILE *to)
{
    uint32_t services = json_member(&d->json, 0, "services");
    uint32_t service = json_member(&d->json, services, "invitation");
    uint32_t mail = json_member(&d->json, service, "mail");
    char reason[VALUE_BYTES];

    if (services != 0 && service != 0 && mail != 0 &&
        get_bool(d, mail, "paused")) {
        (void)fprintf(to, "mail        PAUSED: %s\n",
                      get(d, mail, "reason", reason));
    }
}

static void
print_dispatcher(const struct ctl_document *d, FILE *to)
{
    uint32_t at = json_member(&d->json, 0, "dispatcher");
    uint32_t ledger = json_member(&d->json, 0, "ledger");
    uint32_t journal = json_member(&d->json, ledger, "journal");
    char a[VALUE_BYTES];
    char b[VALUE_BYTES];
    char c[VALUE_BYTES];
    char e[VALUE_BYTES];

    if (d->tokens[at].type == JSON_OBJECT && at != 0) {
        (void)fprintf(to, "dispatcher  up %s, pid %s, version %s, node %s\n",
                      human_age(get_number(d, at, "uptime_s"), a),
                      get(d, at, "pid", b), get(d, at, "version", c),
                      get(d, at, "node_id", e));
    } else {
        (void)fprintf(to, "dispatcher  not running\n");
    }
    print_database(d, "postgres", to);
    print_database(d, "mongo", to);
    print_mail(d, to);
    (void)fprintf(to, "journal     %s of %s\n\n",
                  human_bytes(get_number(d, journal, "used_bytes"), a),
                  human_bytes(get_number(d, journal, "max_bytes"), b));
}

/* What the feed and the service do; "-" without a dispatcher. */
static const char *
state_of(const struct ctl_document *d, uint32_t service)
{
    if (service == 0) {
        return "-";
    }
    if (get_bool(d, service, "paused")) {
        return "paused";
    }
    if (get_bool(d, service, "held")) {
        return "held";
    }
    return get_bool(d, service, "behind") ? "behind" : "live";
}

int
ctl_print_status(const struct ctl_document *d, int64_t node_id, FILE *to)
{
    static const char *const names[] = {
        "SERVICE", "STATE",     ">ACCEPTED", ">FINAL", ">DEAD", ">PENDING",
        ">OLDEST", ">OUTCOMES", ">INBOX",    ">BYTES", "LEDGER"};
    static const char *const numbers[] = {"accepted", "final", "dead",
                                          "pending"};
    uint32_t ledger = json_member(&d->json, 0, "ledger");
    uint32_t rows = json_member(&d->json, ledger, "services");
    uint32_t services = json_member(&d->json, 0, "services");
    struct table t = {0};
    char text[VALUE_BYTES];

    (void)node_id;
    print_dispatcher(d, to);
    heading(&t, ARRAY_COUNT(names), names);
    for (uint32_t key = first_in(rows); is_in(d, rows, key);
         key = next_in(d, key + 1)) {
        uint32_t row = key + 1;
        uint32_t service = 0;
        size_t bytes;

        if (json_string(&d->json, key, text, sizeof(text), &bytes) == RC_OK &&
            services != 0) {
            service = json_member(&d->json, services, text);
        }
        t.rows++;
        cell(&t, text);
        cell(&t, state_of(d, service));
        for (size_t k = 0; k < ARRAY_COUNT(numbers); k++) {
            cell(&t, get(d, row, numbers[k], text));
        }
        cell(&t, get_number(d, row, "pending") > 0
                     ? human_age(get_number(d, row, "oldest_age_s"), text)
                     : "-");
        cell(&t, get(d, row, "outcomes", text));
        cell(&t, service != 0 ? get(d, service, "inbox", text) : "-");
        cell(&t, human_bytes(get_number(d, row, "queue_bytes"), text));
        cell(&t, get_bool(d, row, "balanced") ? "balanced" : "UNBALANCED");
    }
    print_table(&t, to);
    return 0;
}

/* ---- queue ----------------------------------------------------------------
 */

int
ctl_print_queue(const struct ctl_document *d, int64_t node_id, FILE *to)
{
    static const char *const names[] = {"SERVICE", ">SEQ", "ID", "RECEIVED",
                                        ">BYTES"};
    uint32_t queues = json_member(&d->json, 0, "queue");
    struct table t = {0};
    char text[VALUE_BYTES];
    char service[VALUE_BYTES];

    (void)node_id;
    heading(&t, ARRAY_COUNT(names), names);
    for (uint32_t q = first_in(queues); is_in(d, queues, q);
         q = next_in(d, q)) {
        uint32_t next = json_member(&d->json, q, "next");

        (void)get(d, q, "service", service);
        (void)fprintf(to, "%s: %s pending", service,
                      get(d, q, "pending", text));
        if (get_number(d, q, "pending") > 0) {
            (void)fprintf(to, ", the oldest for %s",
                          human_age(get_number(d, q, "oldest_age_s"), text));
            (void)fprintf(to, ", %s",
                          human_bytes(get_number(d, q, "queue_bytes"), text));
        }
        (void)fputc('\n', to);
        for (uint32_t row = first_in(next); is_in(d, next, row);
             row = next_in(d, row)) {
            t.rows++;
            cell(&t, service);
            cell(&t, get(d, row, "seq", text));
            cell(&t, get(d, row, "id", text));
            cell(&t, get(d, row, "received_at", text));
            cell(&t, get(d, row, "body_bytes", text));
        }
    }
    if (t.rows > 1) {
        (void)fputc('\n', to);
        print_table(&t, to);
    }
    text_free(&t.cells);
    return 0;
}

/* ---- dead letters ---------------------------------------------------------
 */

/* "7: HTTP status 500 (4 attempts)" a line, at most max of them. */
static void
print_items(const struct ctl_document *d, uint32_t items, size_t max, FILE *to)
{
    char item[VALUE_BYTES];
    char reason[VALUE_BYTES];
    char attempts[VALUE_BYTES];
    size_t count = count_in(d, items);
    size_t shown = 0;

    for (uint32_t at = first_in(items); is_in(d, items, at) && shown < max;
         at = next_in(d, at)) {
        (void)fprintf(to, "    %s: %s (attempts: %s)\n",
                      get(d, at, "item", item), get(d, at, "reason", reason),
                      get(d, at, "attempts", attempts));
        shown++;
    }
    if (shown < count) {
        (void)fprintf(to, "    and %zu more (sluicectl explain ID)\n",
                      count - shown);
    }
}

/* "next" is a number, that of the one service listed; or of each that has more,
 * by its name. */
static void
print_more(const struct ctl_document *d, const char *service, FILE *to)
{
    uint32_t next = json_member(&d->json, 0, "next");
    char name[VALUE_BYTES];
    char seq[VALUE_BYTES];
    size_t bytes;

    if (next != 0 && d->tokens[next].type == JSON_OBJECT) {
        for (uint32_t key = first_in(next); is_in(d, next, key);
             key = next_in(d, key + 1)) {
            if (json_string(&d->json, key, name, sizeof(name), &bytes) ==
                RC_OK) {
                (void)fprintf(to, "more: sluicectl dead list %s %s\n", name,
                              get(d, next, name, seq));
            }
        }
    } else if (get(d, 0, "next", seq)[0] != '\0') {
        (void)fprintf(to, "more: sluicectl dead list %s %s\n", service, seq);
    }
}

int
ctl_print_dead(const struct ctl_document *d, int64_t node_id, FILE *to)
{
    uint32_t dead = json_member(&d->json, 0, "dead");
    char id[VALUE_BYTES];
    char service[VALUE_BYTES];
    char when[VALUE_BYTES];
    char reason[VALUE_BYTES];

    (void)node_id;
    if (count_in(d, dead) == 0) {
        (void)fprintf(to, "no dead letters\n");
    }
    service[0] = '\0';
    for (uint32_t at = first_in(dead); is_in(d, dead, at);
         at = next_in(d, at)) {
        (void)fprintf(to, "%s  %s  %s  %s\n", get(d, at, "id", id),
                      get(d, at, "service", service),
                      get(d, at, "dead_at", when),
                      get(d, at, "reason", reason));
        print_items(d, json_member(&d->json, at, "items"), ITEMS_SHOWN, to);
    }
    print_more(d, service, to);
    return 0;
}

/* ---- explain --------------------------------------------------------------
 */

static void
print_member(const struct ctl_document *d, const char *label, const char *name,
             FILE *to)
{
    char text[VALUE_BYTES];

    if (get(d, 0, name, text)[0] != '\0') {
        (void)fprintf(to, "%-12s %s\n", label, text);
    }
}

/* The id itself tells who made it and when. */
static void
print_unknown(const struct ctl_document *d, int64_t node_id, FILE *to)
{
    char when[VALUE_BYTES];
    double node = get_number(d, 0, "node");

    (void)get(d, 0, "created_at", when);
    if (node == (double)node_id) {
        (void)fprintf(to,
                      "Not in the journal. The id was made by this node (%.0f) "
                      "at %s:\nthe request has reached its end, or was never "
                      "accepted here.\n",
                      node, when);
    } else {
        (void)fprintf(to,
                      "Not in the journal. The id was made by node %.0f at "
                      "%s; this is node %" PRId64 ":\nask there.\n",
                      node, when, node_id);
    }
}

int
ctl_print_explain(const struct ctl_document *d, int64_t node_id, FILE *to)
{
    static const struct {
        const char *label;
        const char *name;
    } lines[] = {
        {"id", "id"},
        {"state", "state"},
        {"service", "service"},
        {"seq", "seq"},
        {"created", "created_at"},
        {"received", "received_at"},
        {"ahead of it", "ahead"},
        {"outcome", "outcome"},
        {"died", "dead_at"},
        {"reason", "reason"},
        {"batch", "batch"},
        {"its size", "batch_size"},
        {"place in it", "batch_place"},
        {"failed tries", "failed_attempts"},
        {"last error", "last_error"},
    };
    char state[VALUE_BYTES];

    if (strcmp(get(d, 0, "state", state), "unknown") == 0) {
        print_member(d, "id", "id", to);
        print_unknown(d, node_id, to);
        return 1;
    }
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++) {
        print_member(d, lines[i].label, lines[i].name, to);
    }
    print_items(d, json_member(&d->json, 0, "items"), SIZE_MAX, to);
    return 0;
}

/* ---- orders ---------------------------------------------------------------
 */

int
ctl_print_drain(const struct ctl_document *d, int64_t node_id, FILE *to)
{
    uint32_t left = json_member(&d->json, 0, "left");
    char text[VALUE_BYTES];

    (void)node_id;
    if (get_bool(d, 0, "drained")) {
        (void)fprintf(to, "drained; \"sluicectl resume all\" lifts it\n");
        return 0;
    }
    (void)fprintf(to, "not drained yet; the services stay held, "
                      "\"sluicectl resume all\" lifts it\n");
    for (uint32_t key = first_in(left);
         is_in(d, left, key) && d->tokens[left].type == JSON_OBJECT;
         key = next_in(d, key + 1)) {
        size_t bytes;

        if (json_string(&d->json, key, text, sizeof(text), &bytes) == RC_OK) {
            (void)fprintf(to, "%s: inbox %.0f, active %.0f, outcomes %.0f\n",
                          text, get_number(d, key + 1, "inbox"),
                          get_number(d, key + 1, "active"),
                          get_number(d, key + 1, "outcomes"));
        }
    }
    return 1;
}

int
ctl_print_done(const struct ctl_document *d, int64_t node_id, FILE *to)
{
    char value[VALUE_BYTES];
    char name[VALUE_BYTES];
    size_t bytes;

    (void)node_id;
    /* {"retried":3} -> "retried 3" */
    if (d->json.count >= 3 &&
        json_string(&d->json, 1, name, sizeof(name), &bytes) == RC_OK) {
        (void)fprintf(to, "%s %s\n", name, get(d, 0, name, value));
    }
    return 0;
}
