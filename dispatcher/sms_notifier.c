/* One thread, one post at a time, so that the endpoint sees states in order.
 * Whatever fails here delays nobody else. */
#include "dispatcher/sms_notifier.h"

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "dispatcher/backoff.h"
#include "dispatcher/poster.h"
#include "shared/clock.h"
#include "shared/log.h"
#include "shared/pg.h"
#include "shared/signature.h"
#include "shared/text.h"

#define IDLE_MS 1000
#define ANSWER_MAX_BYTES 4096U
#define KEY_BYTES 96
#define HEADER_BYTES (SIGNATURE_BYTES + 16)

struct sms_notifier {
    pthread_t thread;
    pthread_mutex_t mutex; /* of fresh and changed */
    struct conf_sms fresh;
    bool changed;
    int stop_fd;
    /* The thread's own from here on. */
    struct metrics *metrics;
    struct conf_sms conf;
    int64_t node_id;
    struct pg *pg;
    struct poster *poster;
    struct backoff backoff;
    struct text body; /* of the post */
    struct text nos;  /* its rows, as an array of PostgreSQL */
    char first[24];   /* event_id */
    char last[24];    /* ""; or up to which a post that failed went */
    int64_t failures; /* of this post */
    bool ended;       /* the post under way did, thus: */
    bool taken;
    bool settled; /* what came of the last post is in the database */
    char error[POST_ERROR_BYTES];
    bool database_failing; /* logged once an episode */
};

/* Until fd is readable (-1: nothing to wait for), or for wait_ms. True: stop.
 */
static bool
wait_for(const struct sms_notifier *n, int fd, int64_t wait_ms)
{
    struct pollfd fds[] = {
        {.fd = n->stop_fd, .events = POLLIN},
        {.fd = fd, .events = POLLIN},
    };

    if (wait_ms < 0 || wait_ms > IDLE_MS) {
        wait_ms = IDLE_MS;
    }
    (void)poll(fds, ARRAY_COUNT(fds), (int)wait_ms);
    return fds[0].revents != 0;
}

/* True: stop. */
static bool
rest(const struct sms_notifier *n, int64_t ms)
{
    int64_t until_ms = clock_now_ms() + ms;
    bool stop = false;

    while (!stop && clock_now_ms() < until_ms) {
        stop = wait_for(n, -1, until_ms - clock_now_ms());
    }
    return stop;
}

/* ---- the database -----------------------------------------------------------
 */

static void
note_database(struct sms_notifier *n, enum rc rc)
{
    char quoted[PG_ERROR_BYTES];

    if (rc != RC_OK && !n->database_failing) {
        log_event(LOG_WARN, "sms_notices_failing", "error=%s",
                  log_quote(pg_error(n->pg), quoted, sizeof(quoted)));
    }
    n->database_failing = rc != RC_OK;
}

static void
put_row(struct sms_notifier *n, const struct pg_result *rows, int row)
{
    char time[CLOCK_RFC3339_BYTES];
    const char *no = pg_value(rows, row, 0);

    text_putc(&n->nos, row == 0 ? '{' : ',');
    text_puts(&n->nos, no);
    text_printf(&n->body,
                "%c{\"event_id\":%s,\"id\":\"%s\",\"status\":\"%s\","
                "\"changed_at\":\"%s\"}",
                row == 0 ? '[' : ',', no, pg_value(rows, row, 1),
                pg_value(rows, row, 2),
                clock_rfc3339(pg_number(rows, row, 3), time));
    if (row == 0) {
        (void)snprintf(n->first, sizeof(n->first), "%s", no);
    }
    (void)snprintf(n->last, sizeof(n->last), "%s", no);
}

/* What is to be posted next; after a failure the same. RC_AGAIN: nothing. */
static enum rc
read_rows(struct sms_notifier *n)
{
    struct pg_result *rows = NULL;
    char node[24];
    const char *params[] = {node, n->failures > 0 ? n->last : NULL};
    enum rc rc;

    (void)snprintf(node, sizeof(node), "%" PRId64, n->node_id);
    text_reset(&n->body);
    text_reset(&n->nos);
    rc = pg_exec(n->pg,
                 "SELECT no, message_id, status,"
                 " round(extract(epoch FROM changed_at) * 1000)::bigint"
                 " FROM sms_notices WHERE node = $1::int AND dead_at IS NULL"
                 " AND ($2::bigint IS NULL OR no <= $2::bigint)"
                 " ORDER BY no LIMIT 1000",
                 2, params, &rows);
    note_database(n, rc);
    if (rc == RC_OK) {
        for (int i = 0; i < pg_rows(rows); i++) {
            put_row(n, rows, i);
        }
        rc = pg_rows(rows) > 0 ? RC_OK : RC_AGAIN;
        text_putc(&n->body, ']');
        text_putc(&n->nos, '}');
    }
    if (rc == RC_OK && (text_failed(&n->body) || text_failed(&n->nos))) {
        rc = RC_NOMEM;
    }
    pg_result_free(&rows);
    return rc;
}

static enum rc
write_rows(struct sms_notifier *n, const char *sql, const char *error)
{
    const char *params[] = {text_cstr(&n->nos), error};
    struct pg_result *result = NULL;
    enum rc rc = pg_exec(n->pg, sql, error != NULL ? 2 : 1, params, &result);

    note_database(n, rc);
    if (rc == RC_OK) {
        metrics_add(n->metrics,
                    error != NULL ? METRIC_SMS_NOTICES_DEAD_TOTAL
                                  : METRIC_SMS_NOTICES_SENT_TOTAL,
                    SERVICE_COUNT, pg_affected(result));
    }
    pg_result_free(&result);
    return rc;
}

static enum rc
delete_rows(struct sms_notifier *n)
{
    return write_rows(n, "DELETE FROM sms_notices WHERE no = ANY($1::bigint[])",
                      NULL);
}

static enum rc
bury_rows(struct sms_notifier *n)
{
    char quoted[POST_ERROR_BYTES * 2];
    enum rc rc =
        write_rows(n,
                   "UPDATE sms_notices SET dead_at = now(), last_error = $2"
                   " WHERE no = ANY($1::bigint[])",
                   n->error);

    if (rc == RC_OK) {
        log_event(LOG_ERROR, "sms_notices_dead", "first=%s last=%s error=%s",
                  n->first, n->last,
                  log_quote(n->error, quoted, sizeof(quoted)));
    }
    return rc;
}

/* ---- the post ---------------------------------------------------------------
 */

static void
post_done(void *arg, const struct post_result *result)
{
    struct sms_notifier *n = arg;

    n->ended = true;
    n->taken = result->status >= 200 && result->status < 300;
    if (result->status != 0) {
        (void)snprintf(n->error, sizeof(n->error), "HTTP %d", result->status);
    } else {
        (void)snprintf(n->error, sizeof(n->error), "%s", result->error);
    }
}

static const struct poster_calls post_calls = {.done = post_done};

static void
fail(struct sms_notifier *n, const char *error)
{
    n->ended = true;
    n->taken = false;
    (void)snprintf(n->error, sizeof(n->error), "%s", error);
}

/* Signed anew each time: a signature is good for minutes only. */
static void
start(struct sms_notifier *n)
{
    char key[KEY_BYTES];
    char value[SIGNATURE_BYTES];
    char header[HEADER_BYTES];
    struct poster_request request = {
        .url = n->conf.status_callback_url,
        .body = text_cstr(&n->body),
        .body_bytes = n->body.bytes,
        .idempotency_key = key,
    };
    enum rc rc = RC_OK;

    n->ended = false;
    (void)snprintf(key, sizeof(key), "sms-notices-%" PRId64 "-%s-%s",
                   n->node_id, n->first, n->last);
    if (n->conf.webhook_secrets[0] != '\0') {
        rc = signature_make(n->conf.webhook_secrets, request.body,
                            request.body_bytes, clock_now_unix_ms() / 1000,
                            value);
        (void)snprintf(header, sizeof(header), "X-Signature: %s", value);
        request.header = header;
    }
    if (rc == RC_OK) {
        rc = poster_start(n->poster, &request);
    }
    if (rc != RC_OK) {
        fail(n, rc == RC_INVALID ? "sms.status_callback_url cannot be used"
                                 : rc_name(rc));
    }
}

/* True: stop. */
static bool
post(struct sms_notifier *n)
{
    bool stop = false;

    start(n);
    while (!stop && !n->ended) {
        int64_t wait_ms = poster_drive(n->poster, clock_now_ms());

        if (!n->ended) {
            stop = wait_for(n, poster_fd(n->poster), wait_ms);
        }
    }
    return stop;
}

/* ---- the thread -------------------------------------------------------------
 */

static void
take_conf(struct sms_notifier *n)
{
    struct poster_options options = {.concurrency = 1,
                                     .max_body_bytes = ANSWER_MAX_BYTES};
    bool changed;

    pthread_mutex_lock(&n->mutex);
    changed = n->changed;
    n->changed = false;
    if (changed) {
        n->conf = n->fresh;
    }
    pthread_mutex_unlock(&n->mutex);
    if (changed) {
        options.timeout_ms = n->conf.timeout_ms;
        poster_set(n->poster, &options);
    }
}

/* Write down what came of the post. Until that is done nothing else is posted,
 * or a database that may be read but not written would have the same rows
 * posted once a second. True: stop. */
static bool
settle(struct sms_notifier *n)
{
    enum rc rc = n->taken ? delete_rows(n) : bury_rows(n);

    n->settled = rc == RC_OK;
    n->failures = n->settled ? 0 : n->failures;
    return n->settled ? false : rest(n, IDLE_MS);
}

/* One post and what comes of it. True: stop. */
static bool
turn(struct sms_notifier *n)
{
    enum rc rc = RC_AGAIN;

    if (!n->settled) {
        return settle(n);
    }
    if (n->conf.status_callback_url[0] != '\0') {
        rc = read_rows(n);
    }
    if (rc != RC_OK) {
        /* While the database is away, what failed keeps its rows and count. */
        n->failures = rc == RC_AGAIN ? 0 : n->failures;
        return rest(n, IDLE_MS);
    }
    if (post(n)) {
        return true;
    }
    n->failures += n->taken ? 0 : 1;
    if (n->taken || n->failures >= n->conf.max_attempts) {
        return settle(n);
    }
    return rest(n, backoff_ms(&n->backoff, n->conf.retry_base_ms, n->failures));
}

static void *
run(void *arg)
{
    struct sms_notifier *n = arg;

    do {
        take_conf(n);
    } while (!turn(n));
    return NULL;
}

static void
notifier_free(struct sms_notifier *n)
{
    poster_free(&n->poster);
    pg_free(&n->pg);
    text_free(&n->body);
    text_free(&n->nos);
    if (n->stop_fd >= 0) {
        (void)close(n->stop_fd);
    }
    (void)pthread_mutex_destroy(&n->mutex);
    free(n);
}

enum rc
sms_notifier_start(struct sms_notifier **out, const struct conf *conf,
                   struct metrics *metrics)
{
    struct sms_notifier *n = calloc(1, sizeof(*n));
    const struct poster_options options = {
        .concurrency = 1,
        .timeout_ms = conf->sms.timeout_ms,
        .max_body_bytes = ANSWER_MAX_BYTES,
    };
    enum rc rc;

    *out = NULL;
    if (n == NULL) {
        return RC_NOMEM;
    }
    (void)pthread_mutex_init(&n->mutex, NULL);
    n->metrics = metrics;
    n->conf = conf->sms;
    n->node_id = conf->node.id;
    n->settled = true;
    backoff_init(&n->backoff);
    n->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rc = n->stop_fd >= 0 ? RC_OK : RC_IO;
    if (rc == RC_OK) {
        rc = pg_new(&n->pg, conf->postgres.url, conf->postgres.timeout_ms);
    }
    if (rc == RC_OK) {
        pg_set_cancel_fd(n->pg, n->stop_fd);
        rc = poster_new(&n->poster, &options, &post_calls, n);
    }
    if (rc == RC_OK && pthread_create(&n->thread, NULL, run, n) != 0) {
        rc = RC_IO;
    }
    if (rc != RC_OK) {
        notifier_free(n);
        return rc;
    }
    *out = n;
    return RC_OK;
}

void
sms_notifier_stop(struct sms_notifier **out)
{
    struct sms_notifier *n = *out;

    *out = NULL;
    if (n == NULL) {
        return;
    }
    (void)eventfd_write(n->stop_fd, 1);
    (void)pthread_join(n->thread, NULL);
    notifier_free(n);
}

void
sms_notifier_configure(struct sms_notifier *n, const struct conf *conf)
{
    pthread_mutex_lock(&n->mutex);
    n->fresh = conf->sms;
    n->changed = true;
    pthread_mutex_unlock(&n->mutex);
}
