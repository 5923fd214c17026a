/* sms.fcgi: takes messages to be sent and the provider's status updates, tells
 * how messages fare, and how well batching pays. */
#include <string.h>

#include "fcgi/edge.h"
#include "shared/signature.h"
#include "shared/sms_lookup.h"
#include "shared/sms_msg.h"
#include "shared/sms_text.h"
#include "shared/sms_update.h"

#define UPDATES_BODY_BYTES ((size_t)1024 * 1024)

/* ---- messages ---------------------------------------------------------------
 */

static enum rc
accept_sms(const struct request *request, struct text *body,
           struct reply *reply)
{
    struct sms_msg msg;
    struct field_errors errors = {0};
    enum rc rc =
        sms_msg_from_request(request->body, request->body_bytes, &msg, &errors);

    if (rc == RC_INVALID) {
        reply_problem(reply, 400, "invalid_body",
                      "The body is not a message: see errors.", &errors);
        return rc;
    }
    if (rc == RC_OK) {
        sms_msg_encode(&msg, body);
        rc = text_failed(body) ? RC_NOMEM : RC_OK;
    }
    return rc;
}

static void
answer_sms(const struct request *request, struct reply *reply)
{
    static const char path[] = "/sms/";
    char location[sizeof(path) + UUID_TEXT_BYTES];
    char *id = location + sizeof(path) - 1;
    struct sms_msg msg;
    struct sms_size size = {.segments = 1};

    memcpy(location, path, sizeof(path));
    uuid_format(&request->id, id);
    reply->status = 202;
    reply_header(reply, "Location", location);
    text_puts(&reply->body, "{\"id\":\"");
    text_puts(&reply->body, id);
    text_puts(&reply->body, "\",\"status\":\"ACCEPTED\"");
    /* accept_sms wrote the record: both can only succeed. */
    if (sms_msg_decode(request->record, request->record_bytes, &msg) == RC_OK &&
        sms_text_size(msg.content, msg.content_bytes, &size) == RC_OK) {
        text_puts(&reply->body, ",\"segments\":");
        text_int(&reply->body, size.segments);
        text_puts(&reply->body, ",\"encoding\":\"");
        text_puts(&reply->body, sms_encoding_name(size.encoding));
        text_putc(&reply->body, '"');
    }
    text_putc(&reply->body, '}');
}

/* What is no id, or nobody's, has a state, too; so no problem document. */
static void
reply_not_found(const struct request *request, struct reply *reply)
{
    reply->status = 404;
    text_puts(&reply->body, "{\"id\":");
    text_json_string(&reply->body, request->param, strlen(request->param));
    text_puts(&reply->body, ",\"status\":\"NOT_FOUND\"}\n");
}

static void
ask_sms(const struct request *request, struct ask *ask, struct reply *reply)
{
    const struct lookup places = {
        .journal = ask->journal, .pg = ask->pg, .node_id = ask->conf->node.id};
    struct sms_entry entry;
    struct uuid id;
    enum rc rc = RC_AGAIN;

    if (uuid_parse(request->param, &id) == RC_OK) {
        rc = sms_find(&places, &id, &entry);
    }
    if (rc == RC_OK) {
        reply->status = 200;
        sms_json(&entry, &reply->body);
        text_putc(&reply->body, '\n');
    } else if (rc == RC_AGAIN) {
        reply_not_found(request, reply);
    } else {
        reply_unavailable(reply, "sms_not_known",
                          "The message is not in the journal here, and the "
                          "database does not tell.",
                          1);
    }
}

/* ---- status updates ---------------------------------------------------------
 */

static const struct refusal {
    const char *code;
    const char *detail;
} refusals[] = {
    [SIGNATURE_MISSING] = {"signature_missing",
                           "The header X-Signature is needed: t=<seconds since "
                           "1970>,v1=<HMAC-SHA256 of \"<t>.<body>\" in hex>."},
    [SIGNATURE_MALFORMED] = {"signature_malformed",
                             "X-Signature must be a list with t=<seconds since "
                             "1970> once, and v1=<64 hex digits> once or "
                             "more."},
    [SIGNATURE_EXPIRED] = {"signature_expired",
                           "The t in X-Signature is more than 300 s from now: "
                           "sign when you send, and compare the clocks."},
    [SIGNATURE_WRONG] = {"signature_wrong",
                         "No v1 in X-Signature is the HMAC-SHA256 of "
                         "\"<t>.<body>\" under a secret that is known here. "
                         "The body must be signed byte for byte as it is "
                         "sent."},
};

/* False: the reply says why not. */
static bool
check_signature(const struct request *request, struct reply *reply)
{
    const char *secrets = request->conf->sms.webhook_secrets;
    enum signature_verdict verdict;

    if (secrets[0] == '\0') {
        return true;
    }
    verdict =
        signature_check(request->signature, secrets, request->body,
                        request->body_bytes, request->received_unix_ms / 1000);
    if (verdict == SIGNATURE_GOOD) {
        return true;
    }
    reply_problem(reply, 401, refusals[verdict].code, refusals[verdict].detail,
                  NULL);
    reply_header(reply, "WWW-Authenticate", "HMAC-SHA256 realm=\"sluice\"");
    return false;
}

static enum rc
accept_updates(const struct request *request, struct text *body,
               struct reply *reply)
{
    struct field_errors errors = {0};
    enum rc rc;

    if (!check_signature(request, reply)) {
        return RC_INVALID;
    }
    rc = sms_updates_from_request(request->body, request->body_bytes, body,
                                  &errors);
    if (rc == RC_INVALID) {
        reply_problem(reply, 400, "invalid_body",
                      "The body is not a batch of status updates: see errors.",
                      &errors);
    }
    return rc;
}

static void
answer_updates(const struct request *request, struct reply *reply)
{
    char id[UUID_TEXT_BYTES];

    reply->status = 202;
    text_puts(&reply->body, "{\"id\":\"");
    text_puts(&reply->body, uuid_format(&request->id, id));
    text_puts(&reply->body, "\"}");
}

/* ---- statistics -------------------------------------------------------------
 */

static void
ask_statistics(const struct request *request, struct ask *ask,
               struct reply *reply)
{
    struct sms_statistics all;
    struct sms_statistics last_hour;

    if (sms_statistics_read(ask->pg, request->received_unix_ms, &all,
                            &last_hour) != RC_OK) {
        reply_unavailable(reply, "database_unavailable",
                          "The database does not answer.", 1);
        return;
    }
    reply->status = 200;
    text_puts(&reply->body, "{\"all\":");
    sms_statistics_json(&all, &reply->body);
    text_puts(&reply->body, ",\"last_hour\":");
    sms_statistics_json(&last_hour, &reply->body);
    text_puts(&reply->body, "}\n");
}

static const struct edge_route routes[] = {
    {.method = "POST",
     .path = "/sms",
     .service = SERVICE_SMS,
     .accept = accept_sms,
     .answer = answer_sms},
    {.method = "POST",
     .path = "/sms/status-updates",
     .service = SERVICE_SMS_STATUS,
     .accept = accept_updates,
     .answer = answer_updates,
     .open = true,
     .max_body_bytes = UPDATES_BODY_BYTES},
    {.method = "GET", .path = "/sms/statistics", .ask = ask_statistics},
    {.method = "GET", .path = "/sms/{id}", .ask = ask_sms},
};

int
main(int argc, char **argv)
{
    const struct edge_app app = {
        .name = "sms.fcgi",
        .routes = routes,
        .route_count = ARRAY_COUNT(routes),
    };

    return edge_main(argc, argv, &app);
}
