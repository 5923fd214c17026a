/* fcgi/edge_read.c: what libfcgi makes of a whole request. */
#include "fcgi/edge_read.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/fcgi/fcgi_client.h"

#define MAX_BODY 65536

struct reading {
    struct edge_reader *reader;
    struct edge_params params;
    struct edge_body body;
};

static int
setup(void **state)
{
    struct reading *r = calloc(1, sizeof(*r));

    assert_non_null(r);
    assert_int_equal(edge_read_init(), RC_OK);
    assert_int_equal(edge_read_new(&r->reader), RC_OK);
    *state = r;
    return 0;
}

static int
teardown(void **state)
{
    struct reading *r = *state;

    edge_read_free(&r->reader);
    edge_read_params_free(&r->params);
    free(r->body.data);
    free(r);
    return 0;
}

/* Through a socket, or from memory. */
static enum rc
read_request(struct reading *r, const struct client_request *request,
             bool memory, size_t max_body)
{
    struct text wire = {0};
    size_t bytes = request->body_bytes != 0 ? request->body_bytes
                   : request->body != NULL  ? strlen(request->body)
                                            : 0;
    int fds[2];
    enum rc rc;

    client_build(&wire, request);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    if (memory) {
        rc = edge_read_memory(r->reader, wire.data, wire.bytes, bytes, max_body,
                              &r->params, &r->body);
    } else {
        client_send(fds[1], wire.data, wire.bytes);
        rc = edge_read_socket(r->reader, fds[0], bytes, max_body, &r->params,
                              &r->body);
        assert_true(fcntl(fds[0], F_GETFD) >= 0); /* still open */
    }
    close(fds[0]);
    close(fds[1]);
    text_free(&wire);
    return rc;
}

static void
parameters_and_body_are_read(void **state)
{
    struct reading *r = *state;
    const struct client_request request = {
        .method = "POST",
        .uri = "/callback?x=1",
        .body = "{\"object_ids\":[1]}",
        .content_type = "application/json",
        .header_name = "HTTP_IDEMPOTENCY_KEY",
        .header_value = "k=1",
    };

    for (int memory = 0; memory < 2; memory++) {
        assert_int_equal(read_request(r, &request, memory != 0, MAX_BODY),
                         RC_OK);
        assert_string_equal(r->params.method, "POST");
        assert_string_equal(r->params.uri, "/callback?x=1");
        assert_string_equal(r->params.content_type, "application/json");
        assert_string_equal(r->params.content_length, "18");
        assert_string_equal(r->params.idempotency_key, "k=1");
        assert_string_equal(r->params.authorization, "");
        assert_int_equal(r->body.bytes, 18);
        assert_string_equal(r->body.data, "{\"object_ids\":[1]}");
        assert_false(r->body.too_long);
    }
}

static void
nothing_of_the_request_before_is_left(void **state)
{
    struct reading *r = *state;
    const struct client_request request = {.method = "GET", .uri = "/"};

    parameters_and_body_are_read(state);
    assert_int_equal(read_request(r, &request, false, MAX_BODY), RC_OK);
    assert_string_equal(r->params.content_type, "");
    assert_string_equal(r->params.content_length, "");
    assert_null(r->params.idempotency_key);
    assert_int_equal(r->body.bytes, 0);
    assert_string_equal(r->body.data, "");
}

static void
body_stops_at_its_bound(void **state)
{
    struct reading *r = *state;
    char *body = malloc(MAX_BODY + 1);
    struct client_request request = {.method = "POST", .uri = "/"};

    assert_non_null(body);
    memset(body, 'b', MAX_BODY + 1);
    request.body = body;
    for (int memory = 0; memory < 2; memory++) {
        request.body_bytes = MAX_BODY;
        assert_int_equal(read_request(r, &request, memory != 0, MAX_BODY),
                         RC_OK);
        assert_int_equal(r->body.bytes, MAX_BODY);
        assert_false(r->body.too_long);
        request.body_bytes = MAX_BODY + 1;
        assert_int_equal(read_request(r, &request, memory != 0, MAX_BODY),
                         RC_OK);
        assert_int_equal(r->body.bytes, MAX_BODY);
        assert_true(r->body.too_long);
    }
    free(body);
}

static void
signature_is_read_whole(void **state)
{
    struct reading *r = *state;
    char value[60001];
    const struct client_request request = {.method = "POST",
                                           .uri = "/",
                                           .body = "{}",
                                           .header_name = "HTTP_X_SIGNATURE",
                                           .header_value = value};
    const struct client_request none = {.method = "GET", .uri = "/"};

    memset(value, 's', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    for (int memory = 0; memory < 2; memory++) {
        assert_int_equal(read_request(r, &request, memory != 0, MAX_BODY),
                         RC_OK);
        assert_string_equal(r->params.signature, value);
        assert_int_equal(read_request(r, &none, memory != 0, MAX_BODY), RC_OK);
        assert_string_equal(r->params.signature, "");
    }
}

static void
broken_request_is_refused_and_the_reader_goes_on(void **state)
{
    struct reading *r = *state;

    assert_int_equal(edge_read_memory(r->reader, "garbage!garbage!", 16, 0,
                                      MAX_BODY, &r->params, &r->body),
                     RC_IO);
    parameters_and_body_are_read(state);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(parameters_and_body_are_read, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(nothing_of_the_request_before_is_left,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(body_stops_at_its_bound, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(signature_is_read_whole, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(
            broken_request_is_refused_and_the_reader_goes_on, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
