/* status.fcgi: health, metrics and the state of the whole, for every service.
 * Also the default handler: whatever else is asked for gets 404. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fcgi/edge.h"
#include "shared/clock.h"
#include "shared/ctlclient.h"
#include "shared/json.h"
#include "shared/report.h"

#define CONTROL_TIMEOUT_MS 1000
#define TOKENS_MAX 4096U
/* A lock held so long by one process while nothing is committed is stuck. */
#define LOCK_SAMPLES 10
#define LOCK_SAMPLE_MS 110

static void
ask_live(const struct request *request, struct ask *ask, struct reply *reply)
{
    (void)request;
    (void)ask;
    reply->status = 200;
    text_puts(&reply->body, "{\"status\":\"ok\"}");
}

/* ---- readiness ------------------------------------------------------------
 */

static void
add_part(struct text *out, const char *name, const char *reason)
{
    text_printf(out, "%s\"%s\":{\"ok\":%s", out->bytes > 0 ? "," : "", name,
                reason == NULL ? "true" : "false");
    if (reason != NULL) {
        text_puts(out, ",\"reason\":");
        text_json_string(out, reason, strlen(reason));
    }
    text_putc(out, '}');
}

/* What changes with every commit: sums over all services. */
static enum rc
commits_seen(struct journal *journal, int64_t *sum)
{
    struct journal_ledger ledger[SERVICE_COUNT];
    enum rc rc = journal_ledger(journal, ledger);

    *sum = 0;
    for (unsigned s = 0; rc == RC_OK && s < SERVICE_COUNT; s++) {
        *sum += ledger[s].accepted + ledger[s].final + ledger[s].dead +
                ledger[s].outcomes;
    }
    return rc;
}

/* Pid of a process that has held the journal's lock for a second without a
 * commit, 0: none. A lock that is merely busy changes hands or commits. */
static pid_t
stuck_holder(struct ask *ask)
{
    const struct timespec pause = {.tv_nsec = LOCK_SAMPLE_MS * 1000000L};
    const char *path = ask->conf->journal.path;
    pid_t holder = journal_lock_holder(path);
    int64_t before = 0;
    int64_t now = 0;

    if (holder == 0 || commits_seen(ask->journal, &before) != RC_OK) {
        return 0;
    }
    for (int k = 0; k < LOCK_SAMPLES; k++) {
        (void)nanosleep(&pause, NULL);
        if (journal_lock_holder(path) != holder ||
            commits_seen(ask->journal, &now) != RC_OK || now != before) {
            return 0;
        }
    }
    return holder;
}

static bool
check_journal(struct ask *ask, struct text *parts)
{
    int64_t sum = 0;
    enum rc rc = commits_seen(ask->journal, &sum);
    pid_t holder = rc == RC_OK ? stuck_holder(ask) : 0;
    struct text reason = {0};
    bool ok = false;

    if (holder != 0) {
        text_printf(&reason, "process %ld holds the lock and does nothing",
                    (long)holder);
    } else if (rc != RC_OK && rc != RC_AGAIN) { /* RC_AGAIN: nothing yet */
        text_printf(&reason, "cannot be read: %s", journal_error(ask->journal));
    } else {
        ok = true;
    }
    add_part(parts, "journal", ok ? NULL : text_cstr(&reason));
    text_free(&reason);
    return ok;
}

/* The dispatcher's status, as far as it matters here. */
struct told {
    bool postgres;
    bool mongo;
    bool mail_paused;
};

static bool
is_true(const struct json *json, uint32_t object, const char *name)
{
    uint32_t at = object != UINT32_MAX ? json_member(json, object, name) : 0;

    return at != 0 && json->tokens[at].type == JSON_TRUE;
}

/* The member that the names lead to, UINT32_MAX: none. */
static uint32_t
find(const struct json *json, const char *const *names, size_t count)
{
    uint32_t at = 0;

    for (size_t i = 0; i < count; i++) {
        at = json_member(json, at, names[i]);
        if (at == 0) {
            return UINT32_MAX;
        }
    }
    return at;
}

static struct told
read_status(const struct text *status)
{
    static const char *const postgres[] = {"postgres"};
    static const char *const mongo[] = {"mongo"};
    static const char *const mail[] = {"services", "invitation", "mail"};
    struct json_token *tokens = calloc(TOKENS_MAX, sizeof(*tokens));
    struct told told = {0};
    struct json json;

    if (tokens != NULL && json_scan(text_cstr(status), status->bytes, tokens,
                                    TOKENS_MAX, &json) == RC_OK) {
        told.postgres = is_true(&json, find(&json, postgres, 1), "up");
        told.mongo = is_true(&json, find(&json, mongo, 1), "up");
        told.mail_paused = is_true(&json, find(&json, mail, 3), "paused");
    }
    free(tokens);
    return told;
}

static void
add_databases(struct text *parts, const struct told *told, bool known)
{
    const char *down = known ? "the dispatcher cannot reach it"
                             : "unknown: the dispatcher does not tell";

    add_part(parts, "postgres", told->postgres ? NULL : down);
    /* Not everybody invites: these two are told, and hold nobody up. */
    add_part(parts, "mongo", told->mongo ? NULL : down);
    add_part(parts, "mail",
             told->mail_paused ? "the mail server refuses us: see the log"
                               : NULL);
}

static bool
check_dispatcher(struct ask *ask, struct text *parts)
{
    struct text status = {0};
    enum rc rc = ctlclient_ask(ask->conf->control.path, "status",
                               CONTROL_TIMEOUT_MS, &status);
    struct told told = {0};

    if (rc == RC_OK) {
        told = read_status(&status);
    }
    switch (rc) {
    case RC_OK:
    case RC_INVALID: /* it refused, so it is there */
        add_part(parts, "dispatcher", NULL);
        break;
    case RC_AGAIN:
        add_part(parts, "dispatcher", "does not run");
        break;
    case RC_TIMEOUT:
    case RC_FULL:
    case RC_IO:
    case RC_NOMEM:
    case RC_BUG:
        add_part(parts, "dispatcher", "does not answer");
        break;
    }
    add_databases(parts, &told, rc == RC_OK);
    text_free(&status);
    return told.postgres && rc == RC_OK;
}

static void
ask_ready(const struct request *request, struct ask *ask, struct reply *reply)
{
    struct text parts = {0};
    bool accepting = check_journal(ask, &parts);
    bool working = check_dispatcher(ask, &parts);

    (void)request;
    reply->status = accepting && working ? 200 : 503;
    text_printf(&reply->body,
                "{\"status\":\"%s\",\"accepting\":%s,\"parts\":{%s}}",
                reply->status == 200 ? "ready" : "not ready",
                accepting ? "true" : "false", text_cstr(&parts));
    if (reply->status == 503) {
        reply_header(reply, "Retry-After", "1");
    }
    text_free(&parts);
}

/* ---- numbers ---------------------------------------------------------------
 */

static void
ask_metrics(const struct request *request, struct ask *ask, struct reply *reply)
{
    struct text dispatcher = {0};
    enum rc rc = ctlclient_ask(ask->conf->control.path, "metrics",
                               CONTROL_TIMEOUT_MS, &dispatcher);
    bool up = rc == RC_OK;

    (void)request;
    reply->status = 200;
    reply->content_type = "text/plain; version=0.0.4; charset=utf-8";
    text_printf(&reply->body,
                "# HELP sluice_up Does the dispatcher answer?\n"
                "# TYPE sluice_up gauge\n"
                "sluice_up %d\n",
                up ? 1 : 0);
    if (up) {
        text_append(&reply->body, text_cstr(&dispatcher), dispatcher.bytes);
    }
    /* The ledger is in the dispatcher's answer; without it, it is told from
     * the journal. */
    if ((!up ||
         strstr(text_cstr(&dispatcher), "sluice_accepted_total") == NULL) &&
        report_ledger_metrics(ask->journal, clock_now_unix_ms(),
                              &reply->body) != RC_OK) {
        text_puts(&reply->body, "# the journal cannot be read\n");
    }
    text_free(&dispatcher);
}

static void
ask_status(const struct request *request, struct ask *ask, struct reply *reply)
{
    struct text ledger = {0};
    struct text status = {0};
    const char *dispatcher = "null";

    (void)request;
    if (report_ledger(ask->journal, ask->conf->journal.max_bytes,
                      clock_now_unix_ms(), &ledger) != RC_OK) {
        text_reset(&ledger);
        text_puts(&ledger, "null");
    }
    if (ctlclient_ask(ask->conf->control.path, "status", CONTROL_TIMEOUT_MS,
                      &status) == RC_OK) {
        dispatcher = text_cstr(&status);
    }
    reply->status = 200;
    text_puts(&reply->body, "{\"ledger\":");
    text_append(&reply->body, text_cstr(&ledger), ledger.bytes);
    text_puts(&reply->body, ",\"dispatcher\":");
    text_puts(&reply->body, dispatcher);
    text_putc(&reply->body, '}');
    text_free(&ledger);
    text_free(&status);
}

static const struct edge_route routes[] = {
    {.method = "GET", .path = "/health/live", .ask = ask_live, .open = true},
    {.method = "GET", .path = "/health/ready", .ask = ask_ready, .open = true},
    {.method = "GET", .path = "/metrics", .ask = ask_metrics},
    {.method = "GET", .path = "/status.json", .ask = ask_status},
};

int
main(int argc, char **argv)
{
    const struct edge_app app = {
        .name = "status.fcgi",
        .routes = routes,
        .route_count = ARRAY_COUNT(routes),
    };

    return edge_main(argc, argv, &app);
}
