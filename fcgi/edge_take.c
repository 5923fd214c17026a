/* The checks that every route shares: target, route, API key, length, media
 * type, idempotency key. Then the route decodes the body. */
#include "fcgi/edge_take.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fcgi/route.h"

#define SCOPE_HASH_BYTES 16U

/* RC_IO: no id could be made. */
static enum rc
fill_request(struct edge_taker *taker, struct exchange *ex,
             const struct edge_params *p, int64_t now_unix_ms)
{
    struct request *r = &ex->request;

    r->method = p->method;
    r->path = ex->path;
    r->query = "";
    r->content_type = p->content_type;
    r->accept = p->accept;
    r->authorization = p->authorization;
    r->idempotency_key = p->idempotency_key;
    r->signature = p->signature;
    r->body = ex->body.data;
    r->body_bytes = ex->body.bytes;
    r->param[0] = '\0';
    r->received_unix_ms = now_unix_ms;
    r->rank = 0;
    r->record = "";
    r->record_bytes = 0;
    r->conf = taker->conf;
    ex->head_only = strcmp(p->method, "HEAD") == 0;
    if (uuid_next(&taker->uuids, now_unix_ms, &r->id) != RC_OK) {
        return RC_IO;
    }
    if (request_id_is_valid(p->request_id)) {
        memcpy(r->request_id, p->request_id, strlen(p->request_id) + 1);
    } else {
        uuid_format(&r->id, r->request_id);
    }
    return RC_OK;
}

/* The target as the client sent it; else what the web server made of it. */
static enum rc
find_path(struct exchange *ex)
{
    const struct edge_params *p = &ex->params;
    int bytes;

    if (p->uri[0] != '\0') {
        return request_path(p->uri, ex->path, sizeof(ex->path),
                            &ex->request.query);
    }
    ex->request.query = p->query;
    bytes = snprintf(ex->path, sizeof(ex->path), "%s%s", p->script_name,
                     p->path_info);
    if (bytes < 0 || (size_t)bytes >= sizeof(ex->path)) {
        ex->path[0] = '\0';
        return RC_FULL;
    }
    return bytes > 0 ? RC_OK : RC_INVALID;
}

void
edge_take_id(struct edge_taker *taker, struct exchange *ex, int64_t now_unix_ms)
{
    static const struct edge_params nothing = {.method = "",
                                               .uri = "",
                                               .script_name = "",
                                               .path_info = "",
                                               .query = "",
                                               .content_type = "",
                                               .content_length = "",
                                               .accept = "",
                                               .authorization = "",
                                               .request_id = "",
                                               .signature = ""};
    char allow[ROUTE_ALLOW_BYTES];
    const struct edge_params *params = ex->has_params ? &ex->params : &nothing;

    if (fill_request(taker, ex, params, now_unix_ms) != RC_OK) {
        ex->request.id = (struct uuid){{0}};
        uuid_format(&ex->request.id, ex->request.request_id);
    }
    ex->request.body = "";
    ex->request.body_bytes = 0;
    ex->path[0] = '\0';
    if (ex->has_params && find_path(ex) == RC_OK) {
        (void)route_find(taker->app, ex->request.method, ex->path, &ex->route,
                         ex->request.param, allow);
    }
}

/* False: the reply says why. */
static bool
check_target(const struct edge_taker *taker, struct exchange *ex)
{
    char allow[ROUTE_ALLOW_BYTES];
    enum rc rc = find_path(ex);

    if (rc == RC_FULL) {
        reply_problem(&ex->reply, 414, "uri_too_long",
                      "The request target is longer than any known path.",
                      NULL);
        return false;
    }
    if (rc != RC_OK) {
        reply_problem(&ex->reply, 400, "invalid_path",
                      "The path is not well-formed.", NULL);
        return false;
    }
    switch (route_find(taker->app, ex->request.method, ex->path, &ex->route,
                       ex->request.param, allow)) {
    case ROUTE_FOUND:
        return true;
    case ROUTE_UNKNOWN:
        reply_problem(&ex->reply, 404, "not_found", "There is no such path.",
                      NULL);
        return false;
    case ROUTE_METHOD:
        if (strcmp(ex->request.method, "OPTIONS") == 0) {
            ex->reply.status = 204;
        } else {
            reply_problem(&ex->reply, 405, "method_not_allowed",
                          "The path does not take this method.", NULL);
        }
        reply_header(&ex->reply, "Allow", allow);
        return false;
    }
    return false;
}

static bool
check_auth(const struct edge_taker *taker, struct exchange *ex)
{
    if (ex->route->open ||
        auth_permits(taker->auth, ex->request.authorization)) {
        return true;
    }
    reply_problem(&ex->reply, 401, "unauthorized",
                  "A known API key is needed: Authorization: Bearer KEY.",
                  NULL);
    reply_header(&ex->reply, "WWW-Authenticate", "Bearer realm=\"sluice\"");
    return false;
}

/* Digits only, at most 18 of them; else -1. */
static int64_t
parse_length(const char *text)
{
    int64_t value = 0;
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > 18 || text[digits] != '\0') {
        return -1;
    }
    for (size_t k = 0; k < digits; k++) {
        value = value * 10 + (text[k] - '0');
    }
    return value;
}

static uint64_t
route_max_body(const struct edge_route *route, int64_t max_body_bytes)
{
    return route->max_body_bytes != 0 ? route->max_body_bytes
                                      : (uint64_t)max_body_bytes;
}

size_t
edge_take_max_body(const struct edge_app *app, int64_t max_body_bytes)
{
    uint64_t most = (uint64_t)max_body_bytes;

    for (size_t k = 0; k < app->route_count; k++) {
        uint64_t max = route_max_body(&app->routes[k], max_body_bytes);

        most = max > most ? max : most;
    }
    return (size_t)most;
}

/* What was read may be longer than this route takes, or even cut off. */
static bool
check_length(const struct edge_taker *taker, struct exchange *ex)
{
    const char *text = ex->params.content_length;
    int64_t length = parse_length(text);
    uint64_t max = route_max_body(ex->route, taker->max_body_bytes);

    if (ex->body.too_long || ex->body.bytes > max ||
        (length >= 0 && (uint64_t)length > max)) {
        reply_problem(&ex->reply, 413, "body_too_large",
                      "The body is longer than allowed.", NULL);
        return false;
    }
    if (text[0] == '\0') {
        reply_problem(&ex->reply, 411, "length_required",
                      "The request has no Content-Length.", NULL);
        return false;
    }
    if (length < 0 || (uint64_t)length != ex->body.bytes) {
        reply_problem(&ex->reply, 400, "length_mismatch",
                      "Content-Length is not the length of the body.", NULL);
        return false;
    }
    return true;
}

/* Who asks, and for which {id} if the path has one: a route's requests for two
 * of them are never the same. */
static enum rc
hash_scope(const struct request *r, uint8_t out[HASH_BYTES])
{
    const struct hash_part param = {r->param, strlen(r->param)};
    size_t bytes = strlen(r->authorization);

    return param.bytes > 0
               ? hash_hmac_sha256(r->authorization, bytes, &param, 1, out)
               : hash_sha256(r->authorization, bytes, out);
}

/* Make the journal's key: route, scope, kind and own. A replay must have the
 * same body. False: the reply says why. */
static bool
make_key(struct exchange *ex, const char *kind, const char *own,
         const char *body, size_t body_bytes)
{
    uint8_t scope[HASH_BYTES];
    char hex[SCOPE_HASH_BYTES * 2 + 1] = "";
    bool scoped =
        ex->request.authorization[0] != '\0' || ex->request.param[0] != '\0';
    int bytes;

    if (hash_scope(&ex->request, scope) != RC_OK ||
        hash_sha256(body, body_bytes, ex->hash) != RC_OK) {
        reply_unavailable(&ex->reply, "edge_unavailable",
                          "The request could not be hashed.", 1);
        return false;
    }
    for (size_t k = 0; scoped && k < SCOPE_HASH_BYTES; k++) {
        (void)snprintf(hex + 2 * k, 3, "%02x", scope[k]);
    }
    bytes = snprintf(ex->key, sizeof(ex->key), "%s %s\n%s\n%s%s",
                     ex->route->method, ex->route->path, hex, kind, own);
    if (bytes < 0 || (size_t)bytes >= sizeof(ex->key)) {
        reply_problem(&ex->reply, 500, "internal", "The key is too long.",
                      NULL);
        return false;
    }
    ex->key_bytes = (size_t)bytes;
    return true;
}

/* The client's own key. */
static bool
take_key(struct exchange *ex)
{
    const char *key = ex->request.idempotency_key;

    if (key == NULL) {
        return true;
    }
    if (!request_key_is_valid(key)) {
        reply_problem(&ex->reply, 400, "invalid_idempotency_key",
                      "Idempotency-Key is 1 to 255 visible ASCII characters.",
                      NULL);
        return false;
    }
    return make_key(ex, "", key, ex->body.data, ex->body.bytes);
}

/* Without one the record itself may be the key, for a while. A client's own
 * has no line break, so that the two cannot meet. */
static bool
take_once(struct exchange *ex)
{
    edge_once_fn *once = ex->route->once;
    int64_t kept_ms = once != NULL && ex->request.idempotency_key == NULL
                          ? once(ex->request.conf)
                          : 0;

    if (kept_ms == 0) {
        return true;
    }
    ex->key_kept_ms = kept_ms;
    return make_key(ex, "dup\n", text_cstr(&ex->record), text_cstr(&ex->record),
                    ex->record.bytes);
}

/* False: the reply says what may be sent. */
static bool
check_media_type(struct exchange *ex)
{
    bool form = ex->route->form;

    if (request_is_json(&ex->request) ||
        (form && request_is_form(&ex->request))) {
        return true;
    }
    reply_problem(&ex->reply, 415, "unsupported_media_type",
                  form ? "The body must be application/json, or "
                         "application/x-www-form-urlencoded, in UTF-8."
                       : "The body must be application/json in UTF-8.",
                  NULL);
    reply_header(&ex->reply, "Accept",
                 form ? "application/json, application/x-www-form-urlencoded"
                      : "application/json");
    return false;
}

static enum edge_take
take_commit(struct edge_taker *taker, struct exchange *ex)
{
    if (!check_length(taker, ex)) {
        return EDGE_REPLY;
    }
    if (!check_media_type(ex)) {
        return EDGE_REPLY;
    }
    if (!take_key(ex)) {
        return EDGE_REPLY;
    }
    if (ex->route->accept(&ex->request, &ex->record, &ex->reply) != RC_OK) {
        if (ex->reply.status == 0) {
            reply_unavailable(&ex->reply, "edge_unavailable",
                              "The request could not be taken.", 1);
        }
        return EDGE_REPLY;
    }
    return take_once(ex) ? EDGE_COMMIT : EDGE_REPLY;
}

/* What is no id at all is not in the journal: ask() says so, as it does of one
 * that nobody knows. */
static enum edge_take
take_cancel(struct exchange *ex)
{
    return uuid_parse(ex->request.param, &ex->request.id) == RC_OK ? EDGE_COMMIT
                                                                   : EDGE_ASK;
}

enum edge_take
edge_take(struct edge_taker *taker, struct exchange *ex, int64_t now_unix_ms)
{
    reply_reset(&ex->reply);
    if (fill_request(taker, ex, &ex->params, now_unix_ms) != RC_OK) {
        reply_unavailable(&ex->reply, "edge_unavailable",
                          "The system gives no random numbers.", 1);
        return EDGE_REPLY;
    }
    if (!check_target(taker, ex) || !check_auth(taker, ex)) {
        return EDGE_REPLY;
    }
    if (ex->route->accept != NULL) {
        return take_commit(taker, ex);
    }
    if (ex->route->show != NULL) {
        ex->route->show(&ex->request, &ex->reply);
        return EDGE_REPLY;
    }
    return ex->route->cancel != 0 ? take_cancel(ex) : EDGE_ASK;
}

void
edge_take_leave(const struct edge_taker *taker, struct exchange *ex)
{
    if (taker->app->on_problem != NULL && reply_is_problem(&ex->reply)) {
        taker->app->on_problem(&ex->request, &ex->reply);
    }
}
