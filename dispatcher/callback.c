/* The callback service: fetch each object that a callback names, keep those
 * that are online.
 *
 *   request -> callback_pool (merge) -> fetcher -> judge -> callback_pool
 *           -> callback_outcome -> writer
 *
 * What an answer means:
 *   200, {"id": the same, "online": true}    to be stored
 *   200, {"id": the same, "online": false}   nothing: the row expires
 *   4xx but 408 and 429    the upstream says no to this id: dead at once
 *   all else               a failed attempt: again with full jitter, dead after
 *                          callback.max_attempts
 * Attempts count for an object, not for a request: a request that joins an
 * object which has failed before shares what attempts are left. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/backoff.h"
#include "dispatcher/callback_outcome.h"
#include "dispatcher/callback_pool.h"
#include "dispatcher/fetcher.h"
#include "dispatcher/service.h"
#include "shared/callback_msg.h"
#include "shared/json.h"
#include "shared/log.h"

#define MAX_REQUESTS 4096U
#define BODY_MAX_BYTES 4096U
#define BODY_TOKENS 256U
#define TRY_AGAIN_MS 10 /* writer full, no memory or descriptors */
#define IDLE_MS 60000
#define ROUNDS 4 /* of starting and driving in one tick */
#define DEAD_LOG_MS 1000
#define URL_BYTES (CONF_URL_BYTES + 24)

struct callback {
    struct service_context context; /* conf and journal: in new() only */
    struct conf_callback conf;
    struct callback_pool *pool;
    struct callback_outcome *outcome;
    struct fetcher *fetcher;
    struct work *stash; /* accepted while there was no memory */
    struct now now;     /* of this tick */
    struct backoff backoff;
    int64_t tokens;      /* GETs that may start now, in thousandths */
    int64_t tokens_ms;   /* when that was true; -1: never yet */
    uint64_t merged;     /* as last told to the metrics */
    int64_t dead_log_ms; /* when the last line was written */
    uint64_t dead_unlogged;
    int64_t dead_seq; /* one of these */
};

/* ---- judging an answer ------------------------------------------------------
 */

enum verdict {
    ANSWER_ONLINE,
    ANSWER_OFFLINE,
    ANSWER_FAILED, /* may be better next time */
    ANSWER_NO,     /* will be the same next time */
};

/* The one member of that name; 0 when there is none, or more than one. */
static uint32_t
only_member(const struct json *json, const char *name)
{
    uint32_t found = 0;

    for (uint32_t key = 1; key < json->tokens[0].next;
         key = json->tokens[key + 1].next) {
        if (!json_key_is(json, key, name)) {
            continue;
        }
        if (found != 0) {
            return 0;
        }
        found = key + 1;
    }
    return found;
}

static enum verdict
judge_body(const struct fetch_result *result, int64_t id, const char **reason)
{
    struct json_token tokens[BODY_TOKENS];
    struct json json;
    uint32_t member;
    int64_t its_id;

    if (json_scan(result->body, result->body_bytes, tokens, BODY_TOKENS,
                  &json) != RC_OK ||
        tokens[0].type != JSON_OBJECT) {
        *reason = "the answer is not a JSON object";
        return ANSWER_FAILED;
    }
    member = only_member(&json, "id");
    if (member == 0 || json_uint53(&json, member, &its_id) != RC_OK ||
        its_id != id) {
        *reason = "the answer is about another id";
        return ANSWER_FAILED;
    }
    member = only_member(&json, "online");
    if (member == 0 || (tokens[member].type != JSON_TRUE &&
                        tokens[member].type != JSON_FALSE)) {
        *reason = "the answer does not say whether it is online";
        return ANSWER_FAILED;
    }
    return tokens[member].type == JSON_TRUE ? ANSWER_ONLINE : ANSWER_OFFLINE;
}

/* words has room for what must be composed; *reason says why not. */
static enum verdict
judge(const struct fetch_result *result, int64_t id, char words[32],
      const char **reason)
{
    int status = result->status;

    *reason = "";
    if (!result->ok) {
        *reason = result->error;
        return ANSWER_FAILED;
    }
    if (status == 200) {
        return judge_body(result, id, reason);
    }
    (void)snprintf(words, 32, "HTTP %d", status);
    *reason = words;
    if (status >= 400 && status < 500 && status != 408 && status != 429) {
        return ANSWER_NO;
    }
    return ANSWER_FAILED;
}

/* ---- fetching
 * ---------------------------------------------------------------- */

static void
fetch_failed(struct callback *self, struct callback_entry *o, bool permanent,
             const char *reason)
{
    int64_t attempt = o->attempts + 1;

    metrics_add(self->context.metrics, METRIC_FETCH_FAILURES_TOTAL,
                SERVICE_COUNT, 1);
    log_event(LOG_DEBUG, "fetch_failed",
              "service=callback object=%" PRId64 " attempt=%" PRId64
              " permanent=%d",
              o->id, attempt, permanent);
    if (permanent || attempt >= self->conf.max_attempts) {
        callback_pool_died(self->pool, o, reason);
        return;
    }
    callback_pool_failed(self->pool, o, reason,
                         self->now.ms + backoff_ms(&self->backoff,
                                                   self->conf.retry_base_ms,
                                                   attempt));
}

static void
fetched(void *arg, const struct fetch_result *result)
{
    struct callback *self = arg;
    /* The tag is the object: it cannot go before its GET ends. */
    struct callback_entry *o = (struct callback_entry *)(uintptr_t)result->tag;
    const char *reason;
    char words[32];

    metrics_add(self->context.metrics, METRIC_FETCHES_TOTAL, SERVICE_COUNT, 1);
    metrics_observe_ms(self->context.metrics, METRIC_FETCH_MS, SERVICE_COUNT,
                       result->duration_ms);
    switch (judge(result, o->id, words, &reason)) {
    case ANSWER_ONLINE:
        callback_pool_online(self->pool, o);
        break;
    case ANSWER_OFFLINE:
        callback_pool_offline(self->pool, o);
        break;
    case ANSWER_FAILED:
        fetch_failed(self, o, false, reason);
        break;
    case ANSWER_NO:
        fetch_failed(self, o, true, reason);
        break;
    }
}

/* A token bucket of a tenth of a second (at least one GET). Returns ms to wait
 * for the next token; 0: there is one. */
static int64_t
rate_wait_ms(struct callback *self)
{
    int64_t rate = self->conf.rate_per_s; /* = thousandths per ms */
    int64_t most = rate * 100 > 1000 ? rate * 100 : 1000;

    if (rate == 0) {
        return 0;
    }
    if (self->tokens_ms < 0) {
        self->tokens = 1000;
    } else {
        int64_t elapsed_ms = self->now.ms - self->tokens_ms;

        if (elapsed_ms >= most / rate + 1) {
            self->tokens = most;
        } else if (elapsed_ms > 0) {
            self->tokens += elapsed_ms * rate;
        }
    }
    self->tokens_ms = self->now.ms;
    if (self->tokens > most) {
        self->tokens = most;
    }
    if (self->tokens >= 1000) {
        return 0;
    }
    return (1000 - self->tokens + rate - 1) / rate;
}

/* Start what may start. Returns how many GETs; *wait_ms is lowered when only
 * time lets more start. */
static size_t
start_fetches(struct callback *self, int64_t *wait_ms)
{
    size_t limit = (size_t)self->conf.concurrency;
    size_t started = 0;

    while (fetcher_in_flight(self->fetcher) < limit) {
        struct callback_entry *o = callback_pool_next(self->pool);
        char url[URL_BYTES];
        int64_t rate_ms;
        enum rc rc;

        if (o == NULL) {
            break;
        }
        rate_ms = rate_wait_ms(self);
        if (rate_ms > 0) {
            *wait_ms = rate_ms < *wait_ms ? rate_ms : *wait_ms;
            break;
        }
        (void)snprintf(url, sizeof(url), "%s%" PRId64, self->conf.objects_url,
                       o->id);
        rc = fetcher_start(self->fetcher, url, (uint64_t)(uintptr_t)o);
        if (rc == RC_INVALID) {
            callback_pool_started(self->pool, o);
            fetch_failed(self, o, true, "callback.objects_url is not a URL");
            continue;
        }
        if (rc != RC_OK) {
            *wait_ms = TRY_AGAIN_MS < *wait_ms ? TRY_AGAIN_MS : *wait_ms;
            break;
        }
        callback_pool_started(self->pool, o);
        self->tokens -= self->conf.rate_per_s > 0 ? 1000 : 0;
        started++;
    }
    return started;
}

/* ---- taking requests
 * ----------------------------------------------------------- */

/* False: no memory, nothing was changed. */
static bool
take(struct callback *self, const struct work *work)
{
    struct callback_msg msg;
    bool broken =
        work->broken ||
        callback_msg_decode(work->body, work->body_bytes, &msg) != RC_OK;

    return callback_pool_add(self->pool, work->seq, work->received_unix_ms,
                             broken ? NULL : &msg) == RC_OK;
}

static bool
callback_has_room(const void *arg)
{
    const struct callback *self = arg;

    return self->stash == NULL && callback_pool_has_room(self->pool);
}

static void
callback_accept(void *arg, struct work *work, struct now now)
{
    struct callback *self = arg;

    (void)now;
    if (take(self, work)) {
        work_free(work);
    } else if (self->stash == NULL) {
        self->stash = work;
    } else { /* was told that there is no room; the journal has it */
        log_event(LOG_ERROR, "request_left_in_journal",
                  "service=callback seq=%" PRId64, work->seq);
        work_free(work);
    }
}

/* ---- turning
 * -------------------------------------------------------------------- */

/* An upstream that says no to everything must not fill the disk with lines:
 * one a second. Returns ms until the next line, -1: none is due. */
static int64_t
log_dead(struct callback *self, struct now now)
{
    int64_t next_ms = self->dead_log_ms + DEAD_LOG_MS;

    if (self->dead_unlogged == 0) {
        return -1;
    }
    if (now.ms < next_ms) {
        return next_ms - now.ms;
    }
    log_event(LOG_WARN, "requests_dead",
              "service=callback count=%" PRIu64 " seq=%" PRId64,
              self->dead_unlogged, self->dead_seq);
    self->dead_unlogged = 0;
    self->dead_log_ms = now.ms;
    return -1;
}

static void
callback_written(void *arg, struct write *write, struct now now)
{
    struct callback *self = arg;
    struct metrics *metrics = self->context.metrics;
    struct callback_written written;
    enum rc rc = callback_outcome_written(self->outcome, write, &written);

    (void)now;
    if (rc != RC_OK) {
        log_event(LOG_ERROR, "outcome_refused", "service=callback rc=%s",
                  rc_name(rc));
        return;
    }
    metrics_add(metrics, METRIC_DEAD_TOTAL, SERVICE_CALLBACK, written.dead);
    metrics_add(metrics, METRIC_QUARANTINED_TOTAL, SERVICE_CALLBACK,
                written.quarantined);
    if (written.dead > 0) {
        self->dead_unlogged += written.dead;
        self->dead_seq = written.first_dead_seq;
    }
    if (written.objects > 0 || written.finished > 0) {
        self->context.outcome_added(self->context.store);
    }
}

static void
show(struct callback *self)
{
    struct metrics *metrics = self->context.metrics;
    struct callback_pool_counts counts;

    callback_pool_count(self->pool, &counts);
    metrics_set(metrics, METRIC_ACTIVE_REQUESTS, SERVICE_CALLBACK,
                (int64_t)counts.requests);
    metrics_set(metrics, METRIC_FETCH_IN_FLIGHT, SERVICE_COUNT,
                (int64_t)counts.flying);
    if (counts.merged > self->merged) {
        metrics_add(metrics, METRIC_FETCH_MERGED_TOTAL, SERVICE_COUNT,
                    (int64_t)(counts.merged - self->merged));
        self->merged = counts.merged;
    }
}

static int64_t
callback_tick(void *arg, struct now now, bool paused)
{
    struct callback *self = arg;
    int64_t wait_ms = IDLE_MS;
    int64_t fetcher_ms = -1;
    int64_t due_ms = -1;
    int64_t submit_ms;
    int64_t log_ms;
    size_t started = 0;

    self->now = now;
    if (self->stash != NULL) {
        if (take(self, self->stash)) {
            work_free(self->stash);
            self->stash = NULL;
        } else {
            wait_ms = TRY_AGAIN_MS;
        }
    }
    for (int round = 0; round < ROUNDS; round++) {
        fetcher_ms = fetcher_drive(self->fetcher, now.ms);
        due_ms = callback_pool_due(self->pool, now.ms);
        started = paused ? 0 : start_fetches(self, &wait_ms);
        if (started == 0) {
            break;
        }
    }
    if (started > 0) { /* not driven yet */
        fetcher_ms = 0;
    }
    submit_ms = callback_outcome_submit(self->outcome, now);
    if (submit_ms >= 0 && submit_ms < wait_ms) {
        wait_ms = submit_ms;
    }
    show(self);
    if (fetcher_ms >= 0 && fetcher_ms < wait_ms) {
        wait_ms = fetcher_ms;
    }
    if (!paused && due_ms >= 0 && due_ms - now.ms < wait_ms) {
        wait_ms = due_ms - now.ms;
    }
    log_ms = log_dead(self, now);
    if (log_ms >= 0 && log_ms < wait_ms) {
        wait_ms = log_ms;
    }
    return wait_ms > 0 ? wait_ms : 0;
}

static bool
callback_idle(const void *arg)
{
    const struct callback *self = arg;
    struct callback_pool_counts counts;

    callback_pool_count(self->pool, &counts);
    return counts.flying == 0 && counts.unwritten == 0 && self->stash == NULL &&
           callback_outcome_idle(self->outcome);
}

static int
callback_fd(const void *arg)
{
    const struct callback *self = arg;

    return fetcher_fd(self->fetcher);
}

static void
callback_report(const void *arg, struct text *out)
{
    const struct callback *self = arg;
    struct callback_pool_counts counts;

    callback_pool_count(self->pool, &counts);
    text_printf(out,
                "\"in_flight\":%zu,\"waiting\":%zu,\"retrying\":%zu,"
                "\"active_requests\":%zu,\"active_ids\":%zu",
                counts.flying, counts.ready, counts.retrying, counts.requests,
                counts.ids);
}

/* ---- life
 * ------------------------------------------------------------------------ */

static void
bounds(const struct conf_callback *conf, struct fetcher_options *fetcher,
       struct callback_pool_options *pool)
{
    size_t concurrency = (size_t)conf->concurrency;

    *fetcher = (struct fetcher_options){
        .concurrency = concurrency,
        .timeout_ms = conf->timeout_ms,
        .max_body_bytes = BODY_MAX_BYTES,
    };
    /* Enough waits that a slot never does: a second's worth and more. */
    *pool = (struct callback_pool_options){
        .max_ids = 4 * concurrency + 2000,
        .max_requests = MAX_REQUESTS,
    };
}

static void
callback_configure(void *arg, const struct conf *conf)
{
    struct callback *self = arg;
    struct fetcher_options fetcher;
    struct callback_pool_options pool;

    self->conf = conf->callback;
    bounds(&self->conf, &fetcher, &pool);
    fetcher_set(self->fetcher, &fetcher);
    callback_pool_set(self->pool, &pool);
    metrics_set(self->context.metrics, METRIC_FETCH_LIMIT, SERVICE_COUNT,
                self->conf.concurrency);
}

static bool
remember(void *arg, const char *item, int64_t attempts, const char *error)
{
    struct callback *self = arg;
    char *end = NULL;
    int64_t id = strtoll(item, &end, 10);

    (void)error;
    if (end == item || *end != '\0') {
        return true; /* not ours; harmless */
    }
    /* One forgotten for lack of room only gets its attempts anew. */
    return callback_pool_remember(self->pool, id, attempts) == RC_OK;
}

static void
callback_free(void **arg)
{
    struct callback *self = *arg;

    *arg = NULL;
    if (self == NULL) {
        return;
    }
    fetcher_free(&self->fetcher);
    callback_outcome_free(&self->outcome);
    callback_pool_free(&self->pool);
    if (self->stash != NULL) {
        work_free(self->stash);
    }
    free(self);
}

static enum rc
callback_new(void **out, const struct service_context *context)
{
    struct callback *self = calloc(1, sizeof(*self));
    void *unfinished = self;
    struct fetcher_options fetcher;
    struct callback_pool_options pool;
    enum rc rc;

    *out = NULL;
    if (self == NULL) {
        return RC_NOMEM;
    }
    self->context = *context;
    self->conf = context->conf->callback;
    self->context.conf = NULL;
    self->context.journal = NULL;
    self->tokens_ms = -1;
    backoff_init(&self->backoff);
    bounds(&self->conf, &fetcher, &pool);
    rc = callback_pool_new(&self->pool, &pool);
    if (rc == RC_OK) {
        rc = callback_outcome_new(&self->outcome, self->pool, context->writer,
                                  context->replies);
    }
    if (rc == RC_OK) {
        rc = fetcher_new(&self->fetcher, &fetcher, fetched, self);
    }
    if (rc == RC_OK) {
        rc = journal_attempt_each(context->journal, SERVICE_CALLBACK, remember,
                                  self);
        if (rc == RC_AGAIN) { /* no journal yet, so no attempts */
            rc = RC_OK;
        }
    }
    if (rc != RC_OK) {
        callback_free(&unfinished);
        return rc;
    }
    metrics_set(context->metrics, METRIC_FETCH_LIMIT, SERVICE_COUNT,
                self->conf.concurrency);
    *out = self;
    return RC_OK;
}

const struct service_ops callback_service = {
    .service = SERVICE_CALLBACK,
    .new = callback_new,
    .free = callback_free,
    .fd = callback_fd,
    .has_room = callback_has_room,
    .accept = callback_accept,
    .written = callback_written,
    .tick = callback_tick,
    .idle = callback_idle,
    .configure = callback_configure,
    .report = callback_report,
};
