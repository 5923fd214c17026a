/* fcgi/edge_take.c: the checks that every route shares, and their order. */
#include "fcgi/edge_take.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define NOW INT64_C(1800000000000)
#define MAX_BODY 64
#define LARGE_BODY 128
#define SMALL_BODY 16

static enum rc
accept_any(const struct request *request, struct text *body,
           struct reply *reply)
{
    if (strcmp(request->body, "bad") == 0) {
        reply_problem(reply, 400, "invalid_body", "Bad.", NULL);
        return RC_INVALID;
    }
    if (strcmp(request->body, "silent") == 0) {
        return RC_NOMEM;
    }
    text_puts(body, request->body);
    return RC_OK;
}

static void
answer_any(const struct request *request, struct reply *reply)
{
    (void)request;
    reply->status = 202;
}

static void
ask_any(const struct request *request, struct ask *ask, struct reply *reply)
{
    (void)request;
    (void)ask;
    reply->status = 200;
}

static void
show_any(const struct request *request, struct reply *reply)
{
    reply->status = 200;
    reply->content_type = "text/html";
    text_puts(&reply->body, request->accept);
}

/* As a page, with the status and the request's media type. */
static void
dress(const struct request *request, struct reply *reply)
{
    text_reset(&reply->body);
    reply->content_type = "text/html";
    text_printf(&reply->body, "<%s>", request->content_type);
}

static int64_t
once_any(const struct conf *conf)
{
    return conf->call.duplicate_window_s * 1000;
}

static const struct edge_route routes[] = {
    {.method = "POST",
     .path = "/items",
     .accept = accept_any,
     .answer = answer_any},
    {.method = "POST",
     .path = "/once",
     .accept = accept_any,
     .answer = answer_any,
     .once = once_any},
    {.method = "POST",
     .path = "/large",
     .accept = accept_any,
     .answer = answer_any,
     .max_body_bytes = LARGE_BODY},
    {.method = "POST",
     .path = "/small",
     .accept = accept_any,
     .answer = answer_any,
     .max_body_bytes = SMALL_BODY},
    {.method = "POST",
     .path = "/form",
     .accept = accept_any,
     .answer = answer_any,
     .form = true},
    {.method = "POST",
     .path = "/of/{id}",
     .accept = accept_any,
     .answer = answer_any},
    {.method = "GET", .path = "/form", .show = show_any},
    {.method = "GET", .path = "/items/{id}", .ask = ask_any},
    {.method = "DELETE", .path = "/items/{id}", .cancel = 5, .ask = ask_any},
    {.method = "GET", .path = "/health/live", .ask = ask_any, .open = true},
};
static const struct edge_app app = {
    .name = "test", .routes = routes, .route_count = ARRAY_COUNT(routes)};

struct taking {
    struct conf conf;
    struct edge_taker taker;
    struct auth *auth;
    struct exchange *ex;
};

static struct auth *
keys(const char *content)
{
    char path[] = "/tmp/test_take.XXXXXX";
    int fd = mkstemp(path);
    struct auth *auth;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, strlen(content)), strlen(content));
    close(fd);
    assert_int_equal(auth_new(&auth, path), RC_OK);
    unlink(path);
    return auth;
}

static int
setup(void **state)
{
    struct taking *t = calloc(1, sizeof(*t));

    assert_non_null(t);
    assert_int_equal(auth_new(&t->auth, ""), RC_OK);
    assert_int_equal(exchange_new(&t->ex), RC_OK);
    t->taker.app = &app;
    t->taker.auth = t->auth;
    t->taker.conf = &t->conf;
    t->taker.max_body_bytes = MAX_BODY;
    uuid_source_init(&t->taker.uuids, 7);
    *state = t;
    return 0;
}

static int
teardown(void **state)
{
    struct taking *t = *state;

    t->ex->body.data = NULL; /* borrowed here */
    exchange_free(&t->ex);
    auth_free(&t->auth);
    free(t);
    return 0;
}

/* Parameters as edge_read would give them: nothing but these. */
static void
request(struct taking *t, const char *method, const char *uri, char *body)
{
    struct exchange *ex = t->ex;

    ex->body.data = NULL;
    ex->body.capacity = 0;
    exchange_reset(ex);
    ex->params = (struct edge_params){
        .method = method,
        .uri = uri,
        .script_name = "",
        .path_info = "",
        .query = "",
        .content_type = "",
        .content_length = "",
        .accept = "",
        .authorization = "",
        .request_id = "",
        .signature = "",
    };
    ex->body.data = body;
    ex->body.bytes = strlen(body);
    ex->body.too_long = false;
}

static void
post(struct taking *t, char *body, const char *length)
{
    request(t, "POST", "/items", body);
    t->ex->params.content_length = length;
}

static void
expect(struct taking *t, int status, const char *code)
{
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_REPLY);
    assert_int_equal(t->ex->reply.status, status);
    if (code != NULL && strstr(text_cstr(&t->ex->reply.body), code) == NULL) {
        fail_msg("%s is not in %s", code, text_cstr(&t->ex->reply.body));
    }
}

static char empty[] = "";
static char body2[] = "{}";
static char bad[] = "bad";
static char silent[] = "silent";

static void
good_post_is_for_the_journal(void **state)
{
    struct taking *t = *state;

    post(t, body2, "2");
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
    assert_string_equal(text_cstr(&t->ex->record), "{}");
    assert_int_equal(t->ex->key_bytes, 0);
    assert_int_equal(t->ex->request.received_unix_ms, NOW);
    assert_int_equal(uuid_node(&t->ex->request.id), 7);
    assert_int_equal(strlen(t->ex->request.request_id), 36);
}

static void
get_is_for_the_ask_pool(void **state)
{
    struct taking *t = *state;

    request(t, "GET", "/items/7?x=1", empty);
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_ASK);
    assert_string_equal(t->ex->request.param, "7");
    assert_string_equal(t->ex->request.query, "x=1");
    assert_false(t->ex->head_only);
    request(t, "HEAD", "/items/7", empty);
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_ASK);
    assert_true(t->ex->head_only);
}

static void
delete_is_for_the_journal_with_the_paths_id(void **state)
{
    static const char id[] = "01890000-0000-7000-8000-00000000002a";
    struct taking *t = *state;
    char shown[UUID_TEXT_BYTES];

    request(t, "DELETE", "/items/01890000-0000-7000-8000-00000000002A", empty);
    t->ex->params.idempotency_key = "k1";
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
    assert_string_equal(uuid_format(&t->ex->request.id, shown), id);
    assert_string_not_equal(t->ex->request.request_id, id);
    assert_int_equal(t->ex->request.received_unix_ms, NOW);
    assert_int_equal(t->ex->record.bytes, 0);
    assert_int_equal(t->ex->key_bytes, 0);
}

static void
delete_of_what_is_no_id_is_for_the_ask_pool(void **state)
{
    static const char *const uris[] = {
        "/items/7",
        "/items/01890000-0000-7000-8000-00000000002",
        "/items/01890000-0000-7000-8000-00000000002ab",
        "/items/01890000-0000-7000-8000-00000000002g",
    };
    struct taking *t = *state;

    for (size_t k = 0; k < ARRAY_COUNT(uris); k++) {
        request(t, "DELETE", uris[k], empty);
        assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_ASK);
    }
    request(t, "PATCH", uris[0], empty);
    expect(t, 405, "method_not_allowed");
    assert_string_equal(text_cstr(&t->ex->reply.headers),
                        "Allow: GET, HEAD, DELETE, OPTIONS\r\n");
}

static void
requests_see_the_configuration(void **state)
{
    struct taking *t = *state;

    post(t, body2, "2");
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
    assert_ptr_equal(t->ex->request.conf, &t->conf);
    assert_int_equal(t->ex->request.rank, 0);
}

static void
without_a_key_the_record_is_one_for_a_while(void **state)
{
    struct taking *t = *state;
    uint8_t hash[HASH_BYTES];

    request(t, "POST", "/once", body2);
    t->ex->params.content_length = "2";
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
    assert_int_equal(t->ex->key_bytes, 0); /* it is off */
    assert_int_equal(t->ex->key_kept_ms, 0);
    t->conf.call.duplicate_window_s = 60;
    request(t, "POST", "/once", body2);
    t->ex->params.content_length = "2";
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
    assert_string_equal(t->ex->key, "POST /once\n\ndup\n{}");
    assert_int_equal(t->ex->key_bytes, strlen(t->ex->key));
    assert_int_equal(t->ex->key_kept_ms, 60000);
    assert_int_equal(hash_sha256("{}", 2, hash), RC_OK);
    assert_memory_equal(t->ex->hash, hash, HASH_BYTES);
    request(t, "POST", "/once", body2);
    t->ex->params.content_length = "2";
    t->ex->params.idempotency_key = "k1";
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
    assert_string_equal(t->ex->key, "POST /once\n\nk1");
    assert_int_equal(t->ex->key_kept_ms, 0);
    post(t, body2, "2"); /* a route that does not want it */
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
    assert_int_equal(t->ex->key_bytes, 0);
}

static void
targets_are_checked_first(void **state)
{
    struct taking *t = *state;
    char uri[REQUEST_PATH_BYTES + 2];

    request(t, "GET", "/nothing", empty);
    expect(t, 404, "not_found");
    request(t, "PUT", "/items", empty);
    expect(t, 405, "method_not_allowed");
    assert_string_equal(text_cstr(&t->ex->reply.headers),
                        "Allow: POST, OPTIONS\r\n");
    request(t, "OPTIONS", "/items", empty);
    expect(t, 204, NULL);
    assert_string_equal(text_cstr(&t->ex->reply.headers),
                        "Allow: POST, OPTIONS\r\n");
    request(t, "GET", "/%zz", empty);
    expect(t, 400, "invalid_path");
    memset(uri, 'u', sizeof(uri));
    uri[0] = '/';
    uri[sizeof(uri) - 1] = '\0';
    request(t, "GET", uri, empty);
    expect(t, 414, "uri_too_long");
}

static void
path_falls_back_to_what_the_web_server_made_of_it(void **state)
{
    struct taking *t = *state;

    request(t, "GET", "", empty);
    t->ex->params.script_name = "/items";
    t->ex->params.path_info = "/7";
    t->ex->params.query = "a=b";
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_ASK);
    assert_string_equal(t->ex->request.path, "/items/7");
    assert_string_equal(t->ex->request.query, "a=b");
    request(t, "GET", "", empty);
    expect(t, 400, "invalid_path");
}

static void
lengths_must_be_true(void **state)
{
    struct taking *t = *state;

    post(t, body2, "");
    expect(t, 411, "length_required");
    post(t, body2, "1");
    expect(t, 400, "length_mismatch");
    post(t, body2, "3");
    expect(t, 400, "length_mismatch");
    post(t, body2, "-2");
    expect(t, 400, "length_mismatch");
    post(t, body2, "2x");
    expect(t, 400, "length_mismatch");
    post(t, body2, "9999999999999999999999");
    expect(t, 400, "length_mismatch");
    post(t, body2, "65");
    expect(t, 413, "body_too_large");
    post(t, body2, "64");
    expect(t, 400, "length_mismatch");
    post(t, body2, "2");
    t->ex->body.too_long = true;
    expect(t, 413, "body_too_large");
}

/* A POST of so many bytes, and what it says of them. */
static void
post_bytes(struct taking *t, const char *uri, size_t bytes)
{
    static char body[LARGE_BODY + 2];
    static char length[8];

    memset(body, ' ', sizeof(body));
    body[bytes] = '\0';
    (void)snprintf(length, sizeof(length), "%zu", bytes);
    request(t, "POST", uri, body);
    t->ex->params.content_length = length;
}

static void
each_route_has_its_own_bound(void **state)
{
    static const struct {
        const char *uri;
        size_t max;
    } cases[] = {
        {"/items", MAX_BODY},
        {"/large", LARGE_BODY},
        {"/small", SMALL_BODY},
    };
    struct taking *t = *state;

    for (size_t k = 0; k < ARRAY_COUNT(cases); k++) {
        post_bytes(t, cases[k].uri, cases[k].max);
        assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
        post_bytes(t, cases[k].uri, cases[k].max + 1);
        expect(t, 413, "body_too_large");
        /* What was read counts, whatever the length says. */
        post_bytes(t, cases[k].uri, cases[k].max + 1);
        t->ex->params.content_length = "1";
        expect(t, 413, "body_too_large");
        post_bytes(t, cases[k].uri, cases[k].max);
        t->ex->body.too_long = true;
        expect(t, 413, "body_too_large");
    }
}

static void
as_much_is_read_as_any_route_takes(void **state)
{
    const struct edge_app first = {.routes = routes, .route_count = 1};

    (void)state;
    assert_int_equal(edge_take_max_body(&app, MAX_BODY), LARGE_BODY);
    assert_int_equal(edge_take_max_body(&app, LARGE_BODY + 1), LARGE_BODY + 1);
    assert_int_equal(edge_take_max_body(&first, MAX_BODY), MAX_BODY);
}

static void
requests_see_the_signature_and_no_record_yet(void **state)
{
    struct taking *t = *state;

    post(t, body2, "2");
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
    assert_string_equal(t->ex->request.signature, "");
    post(t, body2, "2");
    t->ex->params.signature = "t=1,v1=ab";
    t->ex->request.record = "left over";
    t->ex->request.record_bytes = 9;
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
    assert_string_equal(t->ex->request.signature, "t=1,v1=ab");
    assert_string_equal(t->ex->request.record, "");
    assert_int_equal(t->ex->request.record_bytes, 0);
}

static void
media_type_is_checked_before_the_body(void **state)
{
    struct taking *t = *state;

    post(t, bad, "3");
    t->ex->params.content_type = "text/plain";
    expect(t, 415, "unsupported_media_type");
    post(t, bad, "3");
    expect(t, 400, "invalid_body");
}

static void
route_that_fails_without_a_reply_is_unavailable(void **state)
{
    struct taking *t = *state;

    post(t, silent, "6");
    expect(t, 503, "edge_unavailable");
}

static void
keys_are_scoped_by_route_and_client(void **state)
{
    struct taking *t = *state;
    char first[JOURNAL_KEY_BYTES_MAX];

    post(t, body2, "2");
    t->ex->params.idempotency_key = "k1";
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
    assert_string_equal(t->ex->key, "POST /items\n\nk1");
    assert_int_equal(t->ex->key_bytes, strlen(t->ex->key));
    memcpy(first, t->ex->key, sizeof(first));
    post(t, body2, "2");
    t->ex->params.idempotency_key = "k1";
    t->ex->params.authorization = "Bearer a";
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
    assert_string_not_equal(t->ex->key, first);
    assert_null(strstr(t->ex->key, "Bearer"));
}

static void
key_must_be_visible_ascii(void **state)
{
    struct taking *t = *state;
    char key[257];

    memset(key, 'k', sizeof(key));
    key[256] = '\0';
    post(t, body2, "2");
    t->ex->params.idempotency_key = key;
    expect(t, 400, "invalid_idempotency_key");
    post(t, body2, "2");
    t->ex->params.idempotency_key = "";
    expect(t, 400, "invalid_idempotency_key");
    key[255] = '\0';
    post(t, body2, "2");
    t->ex->params.idempotency_key = key;
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
}

static void
request_id_is_the_clients_if_sane(void **state)
{
    struct taking *t = *state;

    post(t, body2, "2");
    t->ex->params.request_id = "abc-1";
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
    assert_string_equal(t->ex->request.request_id, "abc-1");
    post(t, body2, "2");
    t->ex->params.request_id = "a b";
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
    assert_int_equal(strlen(t->ex->request.request_id), 36);
}

static void
api_key_is_asked_but_on_open_routes(void **state)
{
    struct taking *t = *state;

    auth_free(&t->auth);
    t->auth = keys("secret\n");
    t->taker.auth = t->auth;
    post(t, bad, "3");
    expect(t, 401, "unauthorized");
    assert_non_null(
        strstr(text_cstr(&t->ex->reply.headers), "WWW-Authenticate: Bearer"));
    post(t, body2, "2");
    t->ex->params.authorization = "Bearer secret";
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
    request(t, "GET", "/health/live", empty);
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_ASK);
}

/* The same key and body for another {id} is another request. */
static void
keys_are_scoped_by_the_paths_id(void **state)
{
    static const char *const uris[] = {"/of/a", "/of/b", "/of/a"};
    static const char *const clients[] = {"", "", "Bearer k"};
    struct taking *t = *state;
    char keys_made[3][JOURNAL_KEY_BYTES_MAX];
    size_t bytes = 0;

    for (size_t k = 0; k < ARRAY_COUNT(uris); k++) {
        request(t, "POST", uris[k], body2);
        t->ex->params.content_length = "2";
        t->ex->params.idempotency_key = "k1";
        t->ex->params.authorization = clients[k];
        assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
        memcpy(keys_made[k], t->ex->key, t->ex->key_bytes);
        bytes = t->ex->key_bytes;
    }
    assert_memory_not_equal(keys_made[0], keys_made[1], bytes);
    assert_memory_not_equal(keys_made[0], keys_made[2], bytes);
    request(t, "POST", "/of/a", body2);
    t->ex->params.content_length = "2";
    t->ex->params.idempotency_key = "k1";
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
    assert_int_equal(t->ex->key_bytes, bytes);
    assert_memory_equal(keys_made[0], t->ex->key, bytes);
}

static void
shown_pages_are_replies_at_once(void **state)
{
    struct taking *t = *state;

    request(t, "GET", "/form", empty);
    t->ex->params.accept = "text/html";
    expect(t, 200, "text/html");
    request(t, "HEAD", "/form", empty);
    expect(t, 200, NULL);
    assert_true(t->ex->head_only);
}

static void
forms_are_taken_where_the_route_says_so(void **state)
{
    static char typed[] = "a=b";
    struct taking *t = *state;

    request(t, "POST", "/form", typed);
    t->ex->params.content_length = "3";
    t->ex->params.content_type = "application/x-www-form-urlencoded";
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
    t->ex->params.content_type = "text/plain";
    expect(t, 415, "x-www-form-urlencoded");
    assert_non_null(strstr(text_cstr(&t->ex->reply.headers), "Accept: "));
    post(t, typed, "3");
    t->ex->params.content_type = "application/x-www-form-urlencoded";
    expect(t, 415, "must be application/json in");
}

static void
problems_become_what_the_app_makes_of_them(void **state)
{
    struct edge_app dressed = app;
    struct taking *t = *state;

    post(t, bad, "3");
    t->ex->params.content_type = "application/json";
    expect(t, 400, "invalid_body");
    edge_take_leave(&t->taker, t->ex);
    assert_true(reply_is_problem(&t->ex->reply)); /* this app makes nothing */
    dressed.on_problem = dress;
    t->taker.app = &dressed;
    edge_take_leave(&t->taker, t->ex);
    assert_string_equal(text_cstr(&t->ex->reply.body), "<application/json>");
    assert_int_equal(t->ex->reply.status, 400);
    edge_take_leave(&t->taker, t->ex); /* no problem any more */
    assert_string_equal(text_cstr(&t->ex->reply.body), "<application/json>");
}

/* Nothing of the request before it is seen. */
static void
what_was_not_read_is_an_empty_request(void **state)
{
    struct edge_app dressed = app;
    struct taking *t = *state;

    dressed.on_problem = dress;
    t->taker.app = &dressed;
    post(t, body2, "2");
    t->ex->params.content_type = "application/json";
    assert_int_equal(edge_take(&t->taker, t->ex, NOW), EDGE_COMMIT);
    t->ex->body.data = NULL;
    exchange_reset(t->ex);
    reply_problem(&t->ex->reply, 408, "request_timeout", "Late.", NULL);
    edge_take_id(&t->taker, t->ex, NOW);
    edge_take_leave(&t->taker, t->ex);
    assert_string_equal(text_cstr(&t->ex->reply.body), "<>");
    assert_int_equal(t->ex->reply.status, 408);
    assert_int_equal(strlen(t->ex->request.request_id), 36);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(good_post_is_for_the_journal),
        TEST(get_is_for_the_ask_pool),
        TEST(delete_is_for_the_journal_with_the_paths_id),
        TEST(delete_of_what_is_no_id_is_for_the_ask_pool),
        TEST(requests_see_the_configuration),
        TEST(without_a_key_the_record_is_one_for_a_while),
        TEST(targets_are_checked_first),
        TEST(path_falls_back_to_what_the_web_server_made_of_it),
        TEST(lengths_must_be_true),
        TEST(each_route_has_its_own_bound),
        TEST(as_much_is_read_as_any_route_takes),
        TEST(requests_see_the_signature_and_no_record_yet),
        TEST(media_type_is_checked_before_the_body),
        TEST(route_that_fails_without_a_reply_is_unavailable),
        TEST(keys_are_scoped_by_route_and_client),
        TEST(key_must_be_visible_ascii),
        TEST(request_id_is_the_clients_if_sane),
        TEST(api_key_is_asked_but_on_open_routes),
        TEST(keys_are_scoped_by_the_paths_id),
        TEST(shown_pages_are_replies_at_once),
        TEST(forms_are_taken_where_the_route_says_so),
        TEST(problems_become_what_the_app_makes_of_them),
        TEST(what_was_not_read_is_an_empty_request),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
