/* Counters, gauges and histograms: one table says what there is, an array of
 * atomics holds the values, and printing walks both.
 *
 * Inside the program times are ms; Prometheus wants seconds, so the printer
 * divides. */
#include "dispatcher/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

enum kind { KIND_COUNTER, KIND_GAUGE, KIND_HISTOGRAM };

struct description {
    const char *name; /* without "sluice_" */
    enum kind kind;
    bool by_service;
    const char *help;
};

static const struct description descriptions[METRIC_COUNT] = {
    [METRIC_FEED_LIVE_TOTAL] = {"feed_live_total", KIND_COUNTER, true,
                                "Requests handed on from a push frame."},
    [METRIC_FEED_JOURNAL_TOTAL] = {"feed_journal_total", KIND_COUNTER, true,
                                   "Requests handed on from the journal."},
    [METRIC_FEED_IGNORED_TOTAL] = {"feed_ignored_total", KIND_COUNTER, true,
                                   "Push frames that were not needed."},
    [METRIC_FEED_BEHIND] = {"feed_behind", KIND_GAUGE, true,
                            "1 while the feed reads the journal."},
    [METRIC_FEED_CURSOR] = {"feed_cursor", KIND_GAUGE, true,
                            "Newest seq handed on to the service."},
    [METRIC_INBOX_ROWS] = {"inbox_rows", KIND_GAUGE, true,
                           "Requests between the feed and the service."},
    [METRIC_ACTIVE_REQUESTS] = {"active_requests", KIND_GAUGE, true,
                                "Requests in the service's hands."},
    [METRIC_PERSISTED_TOTAL] = {"persisted_total", KIND_COUNTER, true,
                                "Requests stored and retired."},
    [METRIC_DEAD_TOTAL] = {"dead_total", KIND_COUNTER, true,
                           "Requests moved to the dead letters."},
    [METRIC_QUARANTINED_TOTAL] = {"quarantined_total", KIND_COUNTER, true,
                                  "Records that could not be decoded."},
    [METRIC_PAUSED] = {"paused", KIND_GAUGE, true,
                       "1 while the service is paused."},
    [METRIC_COMPLETION_MS] = {"completion_seconds", KIND_HISTOGRAM, true,
                              "Time from received to persisted."},
    [METRIC_WRITER_GROUPS_TOTAL] = {"writer_groups_total", KIND_COUNTER, false,
                                    "Transactions of the journal's writer."},
    [METRIC_WRITER_WRITES_TOTAL] = {"writer_writes_total", KIND_COUNTER, false,
                                    "Writes in those transactions."},
    [METRIC_WRITER_FAILED_TOTAL] = {"writer_failed_total", KIND_COUNTER, false,
                                    "Transactions that had to be repeated."},
    [METRIC_WRITER_MS] = {"writer_seconds", KIND_HISTOGRAM, false,
                          "Time of a transaction with its fsync."},
    [METRIC_WAL_BYTES] = {"journal_wal_bytes", KIND_GAUGE, false,
                          "Size of the journal's write-ahead log."},
    [METRIC_JOURNAL_USED_BYTES] = {"journal_used_bytes", KIND_GAUGE, false,
                                   "Pages in use and write-ahead log."},
    [METRIC_POSTGRES_UP] = {"postgres_up", KIND_GAUGE, false,
                            "1 while PostgreSQL answers."},
    [METRIC_POSTGRES_MS] = {"postgres_batch_seconds", KIND_HISTOGRAM, false,
                            "Time of a batch of rows in PostgreSQL."},
    [METRIC_STORE_ROWS_TOTAL] = {"store_rows_total", KIND_COUNTER, false,
                                 "Rows written to PostgreSQL."},
    [METRIC_STORE_POISON_TOTAL] = {"store_poison_total", KIND_COUNTER, false,
                                   "Rows that PostgreSQL refused."},
    [METRIC_OBJECTS_EXPIRED_TOTAL] = {"objects_expired_total", KIND_COUNTER,
                                      false, "Objects forgotten in time."},
    [METRIC_FETCHES_TOTAL] = {"fetches_total", KIND_COUNTER, false,
                              "GETs of objects that finished."},
    [METRIC_FETCH_FAILURES_TOTAL] = {"fetch_failures_total", KIND_COUNTER,
                                     false, "GETs that failed."},
    [METRIC_FETCH_MERGED_TOTAL] = {"fetch_merged_total", KIND_COUNTER, false,
                                   "Ids that needed no GET of their own."},
    [METRIC_FETCH_IN_FLIGHT] = {"fetch_in_flight", KIND_GAUGE, false,
                                "GETs on their way."},
    [METRIC_FETCH_LIMIT] = {"fetch_limit", KIND_GAUGE, false,
                            "GETs allowed at once."},
    [METRIC_CALLS_DIALED_TOTAL] = {"calls_dialed_total", KIND_COUNTER, false,
                                   "Requests to the call provider."},
    [METRIC_CALL_FAILURES_TOTAL] = {"call_failures_total", KIND_COUNTER, false,
                                    "Requests to it that failed."},
    [METRIC_CALL_429_TOTAL] = {"call_limit_exceeded_total", KIND_COUNTER, false,
                               "Requests that it refused with 429."},
    [METRIC_CALLS_IN_FLIGHT] = {"calls_in_flight", KIND_GAUGE, false,
                                "Requests to it under way."},
    [METRIC_CALL_GUARD_US] = {"call_limiter_guard_microseconds", KIND_GAUGE,
                              false, "What the limiter adds to the window."},
    [METRIC_CALL_PHASE] = {"call_limiter_phase", KIND_GAUGE, false,
                           "0 open, 1 paused, 2 probing, 3 refilling."},
    [METRIC_CALL_MS] = {"call_seconds", KIND_HISTOGRAM, false,
                        "Time of a request to the call provider."},
    [METRIC_SMS_REQUESTS_TOTAL] = {"sms_requests_total", KIND_COUNTER, false,
                                   "Requests to the SMS provider."},
    [METRIC_SMS_FAILURES_TOTAL] = {"sms_request_failures_total", KIND_COUNTER,
                                   false, "Requests to it that failed."},
    [METRIC_SMS_BATCHES_SENT_TOTAL] = {"sms_batches_sent_total", KIND_COUNTER,
                                       false, "Batches that it took."},
    [METRIC_SMS_BATCHES_FAILED_TOTAL] = {"sms_batches_failed_total",
                                         KIND_COUNTER, false,
                                         "Batches given up, split or refused."},
    [METRIC_SMS_MESSAGES_SENT_TOTAL] = {"sms_messages_sent_total", KIND_COUNTER,
                                        false,
                                        "Messages in the batches it took."},
    [METRIC_SMS_IN_FLIGHT] = {"sms_in_flight", KIND_GAUGE, false,
                              "Requests to it under way."},
    [METRIC_SMS_WAITING] = {"sms_waiting", KIND_GAUGE, false,
                            "Messages that are in no batch yet."},
    [METRIC_SMS_NOTICES_SENT_TOTAL] = {"sms_notices_sent_total", KIND_COUNTER,
                                       false, "New states told to the client."},
    [METRIC_SMS_NOTICES_DEAD_TOTAL] = {"sms_notices_dead_total", KIND_COUNTER,
                                       false,
                                       "New states that it would not take."},
    [METRIC_SMS_BATCH_MS] = {"sms_batch_seconds", KIND_HISTOGRAM, false,
                             "From a batch's first request to its end."},
    [METRIC_SMS_UPDATES_APPLIED_TOTAL] = {"sms_updates_applied_total",
                                          KIND_COUNTER, false,
                                          "Statuses of messages changed."},
    [METRIC_SMS_UPDATES_REPEATED_TOTAL] = {"sms_updates_repeated_total",
                                           KIND_COUNTER, false,
                                           "Status updates that were no news."},
    [METRIC_SMS_UPDATES_PARKED_TOTAL] = {"sms_updates_parked_total",
                                         KIND_COUNTER, false,
                                         "Status updates that came before "
                                         "their message was stored."},
    [METRIC_SMS_UPDATE_ERRORS_TOTAL] = {"sms_update_errors_total", KIND_COUNTER,
                                        false,
                                        "Status updates that could not be "
                                        "applied."},
    [METRIC_SMS_UPDATES_EARLY] = {"sms_updates_early", KIND_GAUGE, false,
                                  "Status updates that wait for their message "
                                  "(all dispatchers, counted to 100000)."},
    [METRIC_MONGO_UP] = {"mongo_up", KIND_GAUGE, false,
                         "1 while MongoDB answers."},
    [METRIC_MONGO_MS] = {"mongo_turn_seconds", KIND_HISTOGRAM, false,
                         "Time of a turn's places, or of its mails."},
    [METRIC_INVITATION_PLACES_TOTAL] = {"invitation_places_total", KIND_COUNTER,
                                        false, "Places given."},
    [METRIC_INVITATION_WAITING_TOTAL] = {"invitation_waiting_total",
                                         KIND_COUNTER, false,
                                         "People put on a waitlist."},
    [METRIC_INVITATION_PROMOTED_TOTAL] =
        {"invitation_promoted_total", KIND_COUNTER, false,
         "People who moved up from a waitlist."},
    [METRIC_INVITATION_REFUSED_TOTAL] =
        {"invitation_refused_total", KIND_COUNTER, false,
         "Requests of addresses that are refused."},
    [METRIC_INVITATION_UNKNOWN_TOTAL] =
        {"invitation_unknown_total", KIND_COUNTER, false,
         "Requests for an unknown or expired invitation."},
    [METRIC_INVITATION_REPEATED_TOTAL] =
        {"invitation_repeated_total", KIND_COUNTER, false,
         "Requests of people who had asked before."},
    [METRIC_INVITATION_CONFLICTS_TOTAL] = {"invitation_conflicts_total",
                                           KIND_COUNTER, false,
                                           "Slots lost to another dispatcher."},
    [METRIC_MAIL_SENT_TOTAL] = {"mail_sent_total", KIND_COUNTER, false,
                                "Mails that the server took."},
    [METRIC_MAIL_DELAYED_TOTAL] = {"mail_delayed_total", KIND_COUNTER, false,
                                   "Attempts that are repeated later."},
    [METRIC_MAIL_REFUSED_TOTAL] = {"mail_refused_total", KIND_COUNTER, false,
                                   "Recipients refused for good."},
    [METRIC_MAIL_GIVEN_UP_TOTAL] =
        {"mail_given_up_total", KIND_COUNTER, false,
         "Mails not taken for too long or too often."},
    [METRIC_MAIL_SKIPPED_TOTAL] = {"mail_skipped_total", KIND_COUNTER, false,
                                   "Mails that were not due any more."},
    [METRIC_MAIL_IN_FLIGHT] = {"mail_in_flight", KIND_GAUGE, false,
                               "Mails under way."},
    [METRIC_MAIL_WAITING] = {"mail_waiting", KIND_GAUGE, false,
                             "Mails that this dispatcher has yet to send."},
    [METRIC_MAIL_PAUSED] = {"mail_paused", KIND_GAUGE, false,
                            "1 while the mail server refuses us."},
    [METRIC_MAIL_MS] = {"mail_seconds", KIND_HISTOGRAM, false,
                        "Time of a mail to the server."},
    [METRIC_FETCH_MS] = {"fetch_seconds", KIND_HISTOGRAM, false,
                         "Time of a GET."},
};

/* Upper ends, in ms and as Prometheus shall read them; then +Inf. */
static const struct {
    int64_t ms;
    const char *le;
} buckets[] = {
    {1, "0.001"},  {2, "0.002"},  {5, "0.005"},  {10, "0.01"},
    {25, "0.025"}, {50, "0.05"},  {100, "0.1"},  {250, "0.25"},
    {500, "0.5"},  {1000, "1"},   {2500, "2.5"}, {5000, "5"},
    {10000, "10"}, {30000, "30"}, {60000, "60"}, {300000, "300"},
};
#define BUCKET_COUNT (ARRAY_COUNT(buckets) + 1)

struct cell {
    atomic_int_least64_t value; /* of a histogram: sum of its ms */
    atomic_int_least64_t in_bucket[BUCKET_COUNT]; /* not cumulative */
};

struct metrics {
    struct cell cells[METRIC_COUNT][SERVICE_COUNT + 1];
};

enum rc
metrics_new(struct metrics **out)
{
    *out = calloc(1, sizeof(**out));
    return *out != NULL ? RC_OK : RC_NOMEM;
}

void
metrics_free(struct metrics **m)
{
    free(*m);
    *m = NULL;
}

/* Metrics without a label have their value in the last column. */
static unsigned
column(enum metric metric, enum service service)
{
    if (!descriptions[metric].by_service) {
        return SERVICE_COUNT;
    }
    assert((unsigned)service < SERVICE_COUNT);
    return (unsigned)service;
}

static struct cell *
cell_of(struct metrics *m, enum metric metric, enum service service)
{
    return &m->cells[metric][column(metric, service)];
}

static int64_t
load(const atomic_int_least64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

void
metrics_add(struct metrics *m, enum metric metric, enum service service,
            int64_t n)
{
    atomic_fetch_add_explicit(&cell_of(m, metric, service)->value, n,
                              memory_order_relaxed);
}

void
metrics_set(struct metrics *m, enum metric metric, enum service service,
            int64_t value)
{
    atomic_store_explicit(&cell_of(m, metric, service)->value, value,
                          memory_order_relaxed);
}

void
metrics_observe_ms(struct metrics *m, enum metric metric, enum service service,
                   int64_t ms)
{
    struct cell *cell = cell_of(m, metric, service);
    size_t i = 0;

    if (ms < 0) {
        ms = 0; /* wall time may step back between its two readings */
    }
    while (i < ARRAY_COUNT(buckets) && ms > buckets[i].ms) {
        i++;
    }
    atomic_fetch_add_explicit(&cell->in_bucket[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&cell->value, ms, memory_order_relaxed);
}

static int64_t
observed_count(const struct cell *cell)
{
    int64_t count = 0;

    for (size_t i = 0; i < BUCKET_COUNT; i++) {
        count += load(&cell->in_bucket[i]);
    }
    return count;
}

int64_t
metrics_get(const struct metrics *m, enum metric metric, enum service service)
{
    const struct cell *cell = &m->cells[metric][column(metric, service)];

    return descriptions[metric].kind == KIND_HISTOGRAM ? observed_count(cell)
                                                       : load(&cell->value);
}

/* {service="callback",le="0.1"}; nothing when there is no label. */
static void
print_labels(struct text *out, const char *service, const char *le)
{
    if (service == NULL && le == NULL) {
        return;
    }
    text_putc(out, '{');
    if (service != NULL) {
        text_printf(out, "service=\"%s\"", service);
    }
    if (le != NULL) {
        text_printf(out, "%sle=\"%s\"", service != NULL ? "," : "", le);
    }
    text_putc(out, '}');
}

static void
print_histogram(const struct cell *cell, const char *name, const char *service,
                struct text *out)
{
    int64_t sum_ms = load(&cell->value);
    int64_t count = 0;

    /* _count is the last bucket, whatever is observed meanwhile. */
    for (size_t i = 0; i < BUCKET_COUNT; i++) {
        count += load(&cell->in_bucket[i]);
        text_printf(out, "sluice_%s_bucket", name);
        print_labels(out, service,
                     i < ARRAY_COUNT(buckets) ? buckets[i].le : "+Inf");
        text_printf(out, " %" PRId64 "\n", count);
    }
    text_printf(out, "sluice_%s_sum", name);
    print_labels(out, service, NULL);
    text_printf(out, " %" PRId64 ".%03d\n", sum_ms / 1000,
                (int)(sum_ms % 1000));
    text_printf(out, "sluice_%s_count", name);
    print_labels(out, service, NULL);
    text_printf(out, " %" PRId64 "\n", count);
}

static void
print_cell(const struct description *d, const struct cell *cell,
           const char *service, struct text *out)
{
    if (d->kind == KIND_HISTOGRAM) {
        print_histogram(cell, d->name, service, out);
        return;
    }
    text_printf(out, "sluice_%s", d->name);
    print_labels(out, service, NULL);
    text_printf(out, " %" PRId64 "\n", load(&cell->value));
}

void
metrics_print(const struct metrics *m, struct text *out)
{
    static const char *const kinds[] = {
        [KIND_COUNTER] = "counter",
        [KIND_GAUGE] = "gauge",
        [KIND_HISTOGRAM] = "histogram",
    };

    for (unsigned i = 0; i < METRIC_COUNT; i++) {
        const struct description *d = &descriptions[i];

        text_printf(out, "# HELP sluice_%s %s\n# TYPE sluice_%s %s\n", d->name,
                    d->help, d->name, kinds[d->kind]);
        if (!d->by_service) {
            print_cell(d, &m->cells[i][SERVICE_COUNT], NULL, out);
            continue;
        }
        for (unsigned s = 0; s < SERVICE_COUNT; s++) {
            print_cell(d, &m->cells[i][s], service_name((enum service)s), out);
        }
    }
}
