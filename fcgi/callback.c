/* callback.fcgi: takes callbacks, and tells which objects are online. */
#include <inttypes.h>
#include <string.h>

#include "fcgi/edge.h"
#include "shared/callback_msg.h"
#include "shared/objects.h"

#define PAGE_DEFAULT 100
#define PAGE_MAX 1000
#define DIGITS_MAX 16 /* of 2^53 */

static enum rc
accept_callback(const struct request *request, struct text *body,
                struct reply *reply)
{
    struct callback_msg msg;
    struct field_errors errors = {0};
    enum rc rc = callback_msg_from_request(request->body, request->body_bytes,
                                           &msg, &errors);

    if (rc == RC_INVALID) {
        reply_problem(reply, 400, "invalid_body",
                      "The body is not a callback: see errors.", &errors);
        return rc;
    }
    if (rc == RC_OK) {
        callback_msg_encode(&msg, body);
        rc = text_failed(body) ? RC_NOMEM : RC_OK;
    }
    return rc;
}

static void
answer_callback(const struct request *request, struct reply *reply)
{
    char id[UUID_TEXT_BYTES];

    reply->status = 202;
    text_append(&reply->body, "{\"id\":\"", 7);
    text_append(&reply->body, uuid_format(&request->id, id),
                UUID_TEXT_BYTES - 1);
    text_append(&reply->body, "\"}", 2);
}

/* Digits only, within 0..max. */
static enum rc
parse_number(const char *text, int64_t max, int64_t *out)
{
    size_t digits = strspn(text, "0123456789");
    int64_t value = 0;

    if (digits == 0 || digits > DIGITS_MAX || text[digits] != '\0') {
        return RC_INVALID;
    }
    for (size_t k = 0; k < digits; k++) {
        value = value * 10 + (text[k] - '0');
    }
    *out = value;
    return value <= max ? RC_OK : RC_INVALID;
}

/* An optional query parameter within min..max; an error names it. */
static void
query_number(const struct request *request, const char *name, int64_t min,
             int64_t max, int64_t *value, struct field_errors *errors)
{
    char text[DIGITS_MAX + 2];
    int64_t given = 0;
    enum rc rc = request_query(request, name, text, sizeof(text));

    if (rc == RC_AGAIN) {
        return;
    }
    if (rc != RC_OK || parse_number(text, max, &given) != RC_OK ||
        given < min) {
        field_errors_add(errors, name,
                         "must be one integer from %" PRId64 " to %" PRId64,
                         min, max);
        return;
    }
    *value = given;
}

static void
reply_no_database(struct reply *reply)
{
    reply_unavailable(reply, "database_unavailable",
                      "The database does not answer.", 1);
}

static void
ask_objects(const struct request *request, struct ask *ask, struct reply *reply)
{
    struct field_errors errors = {0};
    int64_t after = -1;
    int64_t limit = PAGE_DEFAULT;

    query_number(request, "after", 0, JSON_MAX_SAFE_INTEGER, &after, &errors);
    query_number(request, "limit", 1, PAGE_MAX, &limit, &errors);
    if (errors.count > 0) {
        reply_problem(reply, 400, "invalid_query",
                      "A parameter is not valid: see errors.", &errors);
        return;
    }
    reply->status = 200;
    if (objects_page(ask->pg, after, limit, ask->conf->callback.expire_s,
                     &reply->body) != RC_OK) {
        reply_no_database(reply);
    }
}

static void
reply_no_object(struct reply *reply)
{
    reply_problem(reply, 404, "object_not_found",
                  "No object with this id is online.", NULL);
}

static void
ask_object(const struct request *request, struct ask *ask, struct reply *reply)
{
    int64_t id = 0;
    enum rc rc;

    if (parse_number(request->param, JSON_MAX_SAFE_INTEGER, &id) != RC_OK) {
        reply_no_object(reply);
        return;
    }
    reply->status = 200;
    rc = objects_one(ask->pg, id, ask->conf->callback.expire_s, &reply->body);
    if (rc == RC_AGAIN) {
        reply_no_object(reply);
    } else if (rc != RC_OK) {
        reply_no_database(reply);
    }
}

static const struct edge_route routes[] = {
    {.method = "POST",
     .path = "/callback",
     .service = SERVICE_CALLBACK,
     .accept = accept_callback,
     .answer = answer_callback},
    {.method = "GET", .path = "/objects", .ask = ask_objects},
    {.method = "GET", .path = "/objects/{id}", .ask = ask_object},
};

int
main(int argc, char **argv)
{
    const struct edge_app app = {
        .name = "callback.fcgi",
        .routes = routes,
        .route_count = ARRAY_COUNT(routes),
    };

    return edge_main(argc, argv, &app);
}
