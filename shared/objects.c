/* Look-ups of objects for GET /objects and GET /objects/{id}. An object that
 * has expired but was not deleted yet is not there. */
#include "shared/objects.h"

#include <inttypes.h>
#include <stdio.h>

#include "shared/rc.h"

#define NUMBER_BYTES 24

/* $1 id or lower bound, $2 seconds until expiry (0: never), $3 limit. */
#define COLUMNS                                                                \
    "SELECT id, to_char(last_seen AT TIME ZONE 'UTC', "                        \
    "'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') FROM objects WHERE "
#define NOT_EXPIRED                                                            \
    " AND ($2::bigint = 0 OR last_seen >= now() - $2 * interval '1 second')"

static void
append_object(struct text *out, const struct pg_result *result, int row)
{
    text_puts(out, "{\"id\":");
    text_puts(out, pg_value(result, row, 0));
    text_puts(out, ",\"online\":true,\"last_seen\":\"");
    text_puts(out, pg_value(result, row, 1));
    text_puts(out, "\"}");
}

enum rc
objects_page(struct pg *pg, int64_t after, int64_t limit, int64_t expire_s,
             struct text *out)
{
    char after_text[NUMBER_BYTES];
    char expire_text[NUMBER_BYTES];
    char limit_text[NUMBER_BYTES];
    const char *params[] = {after_text, expire_text, limit_text};
    struct pg_result *result = NULL;
    enum rc rc;

    /* One more than asked for tells whether there is a next page. */
    (void)snprintf(after_text, sizeof after_text, "%" PRId64, after);
    (void)snprintf(expire_text, sizeof expire_text, "%" PRId64, expire_s);
    (void)snprintf(limit_text, sizeof limit_text, "%" PRId64, limit + 1);
    rc = pg_exec(pg,
                 COLUMNS "id > $1::bigint" NOT_EXPIRED
                         " ORDER BY id LIMIT $3::bigint",
                 3, params, &result);
    if (rc != RC_OK) {
        goto out;
    }
    int rows = pg_rows(result);
    int shown = rows > limit ? (int)limit : rows;

    text_puts(out, "{\"objects\":[");
    for (int i = 0; i < shown; i++) {
        text_puts(out, i > 0 ? "," : "");
        append_object(out, result, i);
    }
    text_puts(out, "],\"next\":");
    text_puts(out, rows > limit ? pg_value(result, shown - 1, 0) : "null");
    text_puts(out, "}\n");
out:
    pg_result_free(&result);
    return rc;
}

enum rc
objects_one(struct pg *pg, int64_t id, int64_t expire_s, struct text *out)
{
    char id_text[NUMBER_BYTES];
    char expire_text[NUMBER_BYTES];
    const char *params[] = {id_text, expire_text};
    struct pg_result *result = NULL;
    enum rc rc;

    (void)snprintf(id_text, sizeof id_text, "%" PRId64, id);
    (void)snprintf(expire_text, sizeof expire_text, "%" PRId64, expire_s);
    rc = pg_exec(pg, COLUMNS "id = $1::bigint" NOT_EXPIRED, 2, params, &result);
    if (rc == RC_OK && pg_rows(result) == 0) {
        rc = RC_AGAIN;
    }
    if (rc == RC_OK) {
        append_object(out, result, 0);
        text_putc(out, '\n');
    }
    pg_result_free(&result);
    return rc;
}
