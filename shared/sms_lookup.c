/* Look-ups of messages, and the statistics of batches. */
#include "shared/sms_lookup.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS(column) "round(extract(epoch from " column ") * 1000)::bigint"
#define HOUR_MS INT64_C(3600000)

/* ---- a message ------------------------------------------------------------
 */

/* RC_AGAIN: it is not there. RC_IO: the journal does not tell. */
static enum rc
find_in_journal(struct journal *journal, const struct uuid *id,
                struct sms_entry *out)
{
    struct journal_entry entry;
    enum rc rc = journal_locate(journal, SERVICE_SMS, id, &entry);

    if (rc != RC_OK) {
        return rc == RC_AGAIN ? RC_AGAIN : RC_IO;
    }
    out->state = SMS_ACCEPTED;
    out->received_unix_ms = entry.received_unix_ms;
    if (entry.place == JOURNAL_DEAD) {
        out->dead = true;
        (void)snprintf(out->error, sizeof(out->error), "%s", entry.reason);
    }
    return RC_OK;
}

static enum rc
find_in_database(struct pg *pg, const struct uuid *id, struct sms_entry *out)
{
    char text[UUID_TEXT_BYTES];
    const char *params[] = {uuid_format(id, text)};
    struct pg_result *result = NULL;
    enum rc rc = pg_exec(pg,
                         "SELECT status, " MS("received_at") ", " MS(
                             "sent_at") ", " MS("updated_at") " FROM sms"
                                                              " WHERE id = "
                                                              "$1::uuid",
                         1, params, &result);

    if (rc != RC_OK) {
        rc = RC_IO; /* a table that is not there yet, too */
    } else if (pg_rows(result) == 0) {
        rc = RC_AGAIN;
    } else {
        const char *status = pg_value(result, 0, 0);

        rc = sms_state_parse(status, strlen(status), &out->state);
        rc = rc == RC_OK ? RC_OK : RC_IO; /* a newer schema's state */
        out->received_unix_ms = pg_number(result, 0, 1);
        out->sent_unix_ms = pg_number(result, 0, 2);
        out->updated_unix_ms = pg_number(result, 0, 3);
    }
    pg_result_free(&result);
    return rc;
}

enum rc
sms_find(const struct lookup *places, const struct uuid *id,
         struct sms_entry *out)
{
    enum rc in_journal;
    enum rc rc;

    *out = (struct sms_entry){.id = *id};
    in_journal = find_in_journal(places->journal, id, out);
    if (in_journal == RC_OK) {
        return RC_OK;
    }
    rc = lookup_verdict(places, id, in_journal,
                        find_in_database(places->pg, id, out));
    if (rc != RC_OK) {
        *out = (struct sms_entry){.id = *id};
    }
    return rc;
}

void
sms_json(const struct sms_entry *entry, struct text *out)
{
    char id[UUID_TEXT_BYTES];

    text_printf(out, "{\"id\":\"%s\",\"status\":\"%s\",\"dead\":%s",
                uuid_format(&entry->id, id), sms_state_name(entry->state),
                entry->dead ? "true" : "false");
    text_puts(out, ",\"last_error\":");
    if (entry->error[0] == '\0') {
        text_puts(out, "null");
    } else {
        text_json_string(out, entry->error, strlen(entry->error));
    }
    text_json_time(out, "received_at", entry->received_unix_ms);
    text_json_time(out, "sent_at", entry->sent_unix_ms);
    text_json_time(out, "updated_at", entry->updated_unix_ms);
    text_putc(out, '}');
}

/* ---- statistics -----------------------------------------------------------
 */

#define NUMBERS(span)                                                          \
    "SELECT " span ", count(*) FILTER (WHERE error IS NULL),"                  \
    " count(*) FILTER (WHERE error IS NOT NULL),"                              \
    " coalesce(sum(size) FILTER (WHERE error IS NULL), 0),"                    \
    " coalesce(sum(attempts), 0),"                                             \
    " coalesce(percentile_disc(0.5) WITHIN GROUP (ORDER BY duration_ms), -1)," \
    " coalesce(percentile_disc(0.99) WITHIN GROUP (ORDER BY duration_ms), -1)" \
    " FROM sms_batches"

static const char statistics_sql[] = NUMBERS("0") " UNION ALL " NUMBERS(
    "1") " WHERE finished_at >= timestamptz 'epoch'"
         " + $1::bigint * interval '1 millisecond' ORDER BY 1";

static struct sms_statistics
statistics_at(const struct pg_result *result, int row)
{
    return (struct sms_statistics){
        .batches_sent = pg_number(result, row, 1),
        .batches_failed = pg_number(result, row, 2),
        .messages = pg_number(result, row, 3),
        .attempts = pg_number(result, row, 4),
        .p50_ms = pg_number(result, row, 5),
        .p99_ms = pg_number(result, row, 6),
    };
}

enum rc
sms_statistics_read(struct pg *pg, int64_t now_unix_ms,
                    struct sms_statistics *all,
                    struct sms_statistics *last_hour)
{
    char since[24];
    const char *params[] = {since};
    struct pg_result *result = NULL;
    enum rc rc;

    *all = (struct sms_statistics){.p50_ms = -1, .p99_ms = -1};
    *last_hour = *all;
    (void)snprintf(since, sizeof(since), "%" PRId64, now_unix_ms - HOUR_MS);
    rc = pg_exec(pg, statistics_sql, 1, params, &result);
    if (rc != RC_OK || pg_rows(result) != 2) {
        rc = RC_IO;
    } else {
        *all = statistics_at(result, 0);
        *last_hour = statistics_at(result, 1);
    }
    pg_result_free(&result);
    return rc;
}

/* 10 x rest / total, and what remains; rest < total. By additions modulo total,
 * for the product may be too large. */
static unsigned
next_digit(uint64_t *rest, uint64_t total)
{
    uint64_t sum = 0;
    unsigned digit = 0;

    for (int k = 0; k < 10; k++) {
        if (sum >= total - *rest) {
            sum -= total - *rest;
            digit++;
        } else {
            sum += *rest;
        }
    }
    *rest = sum;
    return digit;
}

/* part / total with two decimals, rounded down; null for total 0. percent: a
 * hundred times that, of a part <= total. */
static void
put_ratio(struct text *out, int64_t part, uint64_t total, bool percent)
{
    if (total == 0) {
        text_puts(out, "null");
        return;
    }
    uint64_t whole = (uint64_t)part / total;
    uint64_t rest = (uint64_t)part % total;

    if (percent) {
        whole = whole * 10 + next_digit(&rest, total);
        whole = whole * 10 + next_digit(&rest, total);
    }
    unsigned tenths = next_digit(&rest, total);
    unsigned hundredths = next_digit(&rest, total);

    text_printf(out, "%" PRIu64 ".%u%u", whole, tenths, hundredths);
}

static void
put_number(struct text *out, const char *name, int64_t value, bool known)
{
    text_printf(out, ",\"%s\":", name);
    if (known) {
        text_int(out, value);
    } else {
        text_puts(out, "null");
    }
}

void
sms_statistics_json(const struct sms_statistics *s, struct text *out)
{
    uint64_t batches = (uint64_t)s->batches_sent + (uint64_t)s->batches_failed;

    text_puts(out, "{\"batches_sent\":");
    text_int(out, s->batches_sent);
    put_number(out, "batches_failed", s->batches_failed, true);
    text_puts(out, ",\"success_percent\":");
    put_ratio(out, s->batches_sent, batches, true);
    put_number(out, "messages", s->messages, true);
    text_puts(out, ",\"mean_fill\":");
    put_ratio(out, s->messages, (uint64_t)s->batches_sent, false);
    put_number(out, "attempts", s->attempts, true);
    put_number(out, "p50_ms", s->p50_ms, s->p50_ms >= 0);
    put_number(out, "p99_ms", s->p99_ms, s->p99_ms >= 0);
    put_number(out, "requests_saved", s->messages - s->attempts, true);
    text_putc(out, '}');
}
