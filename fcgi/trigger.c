/* trigger.fcgi: takes calls to be made, tells how they went, cancels those that
 * wait. */
#include <string.h>

#include "fcgi/edge.h"
#include "shared/call_msg.h"
#include "shared/calls.h"

static enum rc
accept_trigger(const struct request *request, struct text *body,
               struct reply *reply)
{
    struct call_msg msg;
    struct field_errors errors = {0};
    enum rc rc = call_msg_from_request(request->body, request->body_bytes,
                                       request->conf->call.allow_countries,
                                       &msg, &errors);

    if (rc == RC_INVALID) {
        reply_problem(reply, 400, "invalid_body",
                      "The body is not a call: see errors.", &errors);
        return rc;
    }
    if (rc == RC_OK) {
        call_msg_encode(&msg, body);
        rc = text_failed(body) ? RC_NOMEM : RC_OK;
    }
    return rc;
}

static int64_t
same_call_ms(const struct conf *conf)
{
    return conf->call.duplicate_window_s * 1000;
}

/* A replay has no rank: its call may be anywhere by now. */
static void
answer_trigger(const struct request *request, struct reply *reply)
{
    static const char calls[] = "/calls/";
    char location[sizeof(calls) + UUID_TEXT_BYTES];
    char *id = location + sizeof(calls) - 1;

    memcpy(location, calls, sizeof(calls));
    uuid_format(&request->id, id);
    reply->status = 202;
    reply_header(reply, "Location", location);
    text_puts(&reply->body, "{\"call_id\":\"");
    text_puts(&reply->body, id);
    text_puts(&reply->body, "\",\"status\":\"QUEUED\"");
    if (request->rank > 0) {
        text_puts(&reply->body, ",\"position\":");
        text_int(&reply->body, request->rank);
        text_puts(&reply->body, ",\"eta_s\":");
        text_int(&reply->body,
                 calls_eta_s(&request->conf->call, request->rank));
    }
    text_putc(&reply->body, '}');
}

/* The call that the path names. False: the reply says why not. */
static bool
find_call(const struct request *request, const struct ask *ask,
          struct call_entry *call, struct reply *reply)
{
    const struct lookup places = {
        .journal = ask->journal, .pg = ask->pg, .node_id = ask->conf->node.id};
    struct uuid id;
    enum rc rc = RC_AGAIN;

    if (uuid_parse(request->param, &id) == RC_OK) {
        rc = calls_find(&places, &id, call);
    }
    if (rc == RC_AGAIN) {
        reply_problem(reply, 404, "call_not_found",
                      "There is no call with this id.", NULL);
    } else if (rc != RC_OK) {
        reply_unavailable(reply, "call_not_known",
                          "The call is not in the journal here, and the "
                          "database does not tell.",
                          1);
    }
    return rc == RC_OK;
}

static void
reply_call(const struct call_entry *call, const struct ask *ask,
           struct reply *reply)
{
    reply->status = 200;
    calls_json(call, &ask->conf->call, &reply->body);
    text_putc(&reply->body, '\n');
}

static void
ask_call(const struct request *request, struct ask *ask, struct reply *reply)
{
    struct call_entry call;

    if (find_call(request, ask, &call, reply)) {
        reply_call(&call, ask, reply);
    }
}

/* The journal has canceled it, or could not: the call's state says which. */
static void
ask_canceled(const struct request *request, struct ask *ask,
             struct reply *reply)
{
    struct call_entry call;

    if (!find_call(request, ask, &call, reply)) {
        return;
    }
    if (call.state == CALL_CANCELED) {
        reply_call(&call, ask, reply);
    } else {
        reply_problem(reply, 409, "call_not_queued",
                      "Only a call that waits can be canceled.", NULL);
    }
}

static const struct edge_route routes[] = {
    {.method = "POST",
     .path = "/trigger",
     .service = SERVICE_CALL,
     .accept = accept_trigger,
     .answer = answer_trigger,
     .once = same_call_ms},
    {.method = "GET", .path = "/calls/{id}", .ask = ask_call},
    {.method = "DELETE",
     .path = "/calls/{id}",
     .service = SERVICE_CALL,
     .cancel = CALL_CANCELED,
     .ask = ask_canceled},
};

int
main(int argc, char **argv)
{
    const struct edge_app app = {
        .name = "trigger.fcgi",
        .routes = routes,
        .route_count = ARRAY_COUNT(routes),
    };

    return edge_main(argc, argv, &app);
}
