/* Look-ups of calls. The journal comes first: what has left it was persisted
 * before it left, so that a call is found in one of the two. */
#include "shared/calls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS(column) "round(extract(epoch from " column ") * 1000)::bigint"

static void
error_copy(struct call_entry *out, const char *error)
{
    (void)snprintf(out->error, sizeof out->error, "%s",
                   error != NULL ? error : "");
}

/* RC_AGAIN: it is not there. RC_IO: the journal does not tell. */
static enum rc
find_in_journal(struct journal *journal, const struct uuid *id,
                struct call_entry *out)
{
    struct journal_entry entry;
    enum rc rc = journal_find(journal, id, &entry);

    if (rc == RC_AGAIN || (rc == RC_OK && entry.service != SERVICE_CALL)) {
        return RC_AGAIN;
    }
    if (rc != RC_OK) {
        return RC_IO;
    }
    out->created_unix_ms = entry.received_unix_ms;
    if (entry.place == JOURNAL_DEAD) {
        out->state = CALL_FAILED;
        out->attempts = -1;
        out->finished_unix_ms = entry.dead_unix_ms;
        error_copy(out, entry.reason);
        return RC_OK;
    }
    out->state = (enum call_state)entry.progress.state;
    out->attempts = entry.progress.attempts;
    out->dialed_unix_ms = entry.progress.started_unix_ms;
    out->finished_unix_ms = entry.progress.finished_unix_ms;
    error_copy(out, entry.progress.error);
    if (entry.place == JOURNAL_PENDING && out->state == CALL_QUEUED) {
        out->position = entry.ahead + 1;
    }
    return RC_OK;
}

static enum call_state
state_named(const char *name)
{
    unsigned state = 0;

    while (state < CALL_STATES &&
           strcmp(call_state_name((enum call_state)state), name) != 0) {
        state++;
    }
    return state < CALL_STATES ? (enum call_state)state : CALL_UNKNOWN;
}

static enum rc
find_in_database(struct pg *pg, const struct uuid *id, struct call_entry *out)
{
    char text[UUID_TEXT_BYTES];
    const char *params[] = {uuid_format(id, text)};
    struct pg_result *result = NULL;
    enum rc rc =
        pg_exec(pg,
                "SELECT status, attempts, " MS("created_at") ", " MS(
                    "dialed_at") ", " MS("finished_at") ", last_error "
                                                        "FROM calls WHERE "
                                                        "call_id = $1::uuid",
                1, params, &result);

    if (rc != RC_OK) {
        rc = RC_IO; /* a table that is not there yet, too */
    } else if (pg_rows(result) == 0) {
        rc = RC_AGAIN;
    } else {
        out->state = state_named(pg_value(result, 0, 0));
        out->attempts = pg_number(result, 0, 1);
        out->created_unix_ms = pg_number(result, 0, 2);
        out->dialed_unix_ms = pg_number(result, 0, 3);
        out->finished_unix_ms = pg_number(result, 0, 4);
        error_copy(out, pg_value(result, 0, 5));
    }
    pg_result_free(&result);
    return rc;
}

enum rc
calls_find(const struct lookup *places, const struct uuid *id,
           struct call_entry *out)
{
    enum rc in_journal;
    enum rc rc;

    *out = (struct call_entry){.id = *id};
    in_journal = find_in_journal(places->journal, id, out);
    if (in_journal == RC_OK) {
        return RC_OK;
    }
    rc = lookup_verdict(places, id, in_journal,
                        find_in_database(places->pg, id, out));
    return rc;
}

int64_t
calls_eta_s(const struct conf_call *conf, int64_t position)
{
    int64_t windows = position > 0 ? (position - 1) / conf->rate_count : 0;

    return (windows * conf->rate_window_ms + 999) / 1000;
}

void
calls_json(const struct call_entry *entry, const struct conf_call *conf,
           struct text *out)
{
    char id[UUID_TEXT_BYTES];

    text_printf(out, "{\"call_id\":\"%s\",\"status\":\"%s\",\"attempts\":",
                uuid_format(&entry->id, id), call_state_name(entry->state));
    if (entry->attempts < 0) {
        text_puts(out, "null");
    } else {
        text_int(out, entry->attempts);
    }
    text_json_time(out, "created_at", entry->created_unix_ms);
    text_json_time(out, "dialed_at", entry->dialed_unix_ms);
    text_json_time(out, "finished_at", entry->finished_unix_ms);
    text_puts(out, ",\"last_error\":");
    if (entry->error[0] == '\0') {
        text_puts(out, "null");
    } else {
        text_json_string(out, entry->error, strlen(entry->error));
    }
    if (entry->position > 0) {
        text_puts(out, ",\"position\":");
        text_int(out, entry->position);
        text_puts(out, ",\"eta_s\":");
        text_int(out, calls_eta_s(conf, entry->position));
    }
    text_putc(out, '}');
}
