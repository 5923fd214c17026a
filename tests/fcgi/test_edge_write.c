/* fcgi/edge_write.c: replies as records, and sending without waiting. */
#include "fcgi/edge_write.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/clock.h"
#include "tests/fcgi/fcgi_client.h"

static void
pair(int fds[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds),
                     0);
}

/* Render, send, and read it as a web server does. */
static void
transfer(const struct reply *reply, bool head_only,
         struct client_answer *answer)
{
    struct text wire = {0};
    size_t sent = 0;
    int fds[2];

    pair(fds);
    edge_write_render(reply, "id-1", 515, head_only, &wire);
    assert_false(text_failed(&wire));
    assert_int_equal(edge_write_now(fds[0], &wire, &sent), RC_OK);
    assert_int_equal(sent, wire.bytes);
    client_read(fds[1], 515, answer);
    assert_int_equal(answer->end_status, 0);
    close(fds[0]);
    close(fds[1]);
    text_free(&wire);
}

static void
reply_is_a_cgi_document(void **state)
{
    struct reply reply = {0};
    struct client_answer answer;

    (void)state;
    reply_reset(&reply);
    reply.status = 202;
    reply_header(&reply, "Location", "/x/1");
    text_puts(&reply.body, "{\"id\":1}");
    transfer(&reply, false, &answer);
    assert_string_equal(text_cstr(&answer.document),
                        "Status: 202 Accepted\r\n"
                        "Content-Type: application/json\r\n"
                        "Content-Length: 8\r\n"
                        "X-Request-Id: id-1\r\n"
                        "Location: /x/1\r\n\r\n"
                        "{\"id\":1}");
    client_answer_free(&answer);
    reply_free(&reply);
}

static void
problem_names_the_request_within_its_length(void **state)
{
    struct reply reply = {0};
    struct client_answer answer;
    const char *length;

    (void)state;
    reply_problem(&reply, 400, "invalid_body", "No.", NULL);
    transfer(&reply, false, &answer);
    assert_non_null(strstr(answer.body, ",\"request_id\":\"id-1\"}"));
    length = strstr(text_cstr(&answer.document), "Content-Length: ");
    assert_non_null(length);
    assert_int_equal(strtoul(length + 16, NULL, 10), strlen(answer.body));
    client_answer_free(&answer);
    reply_free(&reply);
}

static void
head_has_the_length_but_no_body(void **state)
{
    struct reply reply = {0};
    struct client_answer answer;

    (void)state;
    reply_reset(&reply);
    reply.status = 200;
    text_puts(&reply.body, "12345");
    transfer(&reply, true, &answer);
    assert_non_null(
        strstr(text_cstr(&answer.document), "Content-Length: 5\r\n"));
    assert_string_equal(answer.body, "");
    client_answer_free(&answer);
    reply_free(&reply);
}

static void
no_content_has_no_type(void **state)
{
    struct reply reply = {0};
    struct client_answer answer;

    (void)state;
    reply_reset(&reply);
    reply.status = 204;
    transfer(&reply, false, &answer);
    assert_null(strstr(text_cstr(&answer.document), "Content-"));
    client_answer_free(&answer);
    reply_free(&reply);
}

static void
long_document_is_cut_into_records(void **state)
{
    struct reply reply = {0};
    struct client_answer answer;

    (void)state;
    reply_reset(&reply);
    reply.status = 200;
    for (unsigned k = 0; k < 140000; k++) {
        text_putc(&reply.body, (char)('a' + k % 26));
    }
    transfer(&reply, false, &answer);
    assert_string_equal(answer.body, text_cstr(&reply.body));
    client_answer_free(&answer);
    reply_free(&reply);
}

static void
reply_that_failed_fails_the_wire(void **state)
{
    struct reply reply = {0};
    struct text wire = {0};

    (void)state;
    reply_reset(&reply);
    reply.status = 200;
    reply.body.max_bytes = 2;
    text_puts(&reply.body, "123");
    edge_write_render(&reply, "x", 1, false, &wire);
    assert_true(text_failed(&wire));
    text_free(&wire);
    reply_free(&reply);
}

static void
peer_that_does_not_read_is_not_waited_for(void **state)
{
    struct text wire = {0};
    size_t sent = 0;
    int fds[2];

    (void)state;
    pair(fds);
    for (unsigned k = 0; k < (1U << 20); k++) {
        text_putc(&wire, 'x');
    }
    assert_int_equal(edge_write_now(fds[0], &wire, &sent), RC_AGAIN);
    assert_true(sent > 0 && sent < wire.bytes);
    assert_int_equal(edge_write_wait(fds[0], &wire, &sent, clock_now_ms() + 1),
                     RC_TIMEOUT);
    close(fds[1]);
    assert_int_equal(edge_write_now(fds[0], &wire, &sent), RC_IO);
    close(fds[0]);
    text_free(&wire);
}

static void
unknown_role_is_an_end_record(void **state)
{
    struct client_answer answer;
    int fds[2];

    (void)state;
    pair(fds);
    edge_write_unknown_role(fds[0], 9);
    client_read(fds[1], 9, &answer);
    assert_int_equal(answer.end_status, 3);
    assert_int_equal(answer.status, 0);
    client_answer_free(&answer);
    close(fds[0]);
    close(fds[1]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reply_is_a_cgi_document),
        cmocka_unit_test(problem_names_the_request_within_its_length),
        cmocka_unit_test(head_has_the_length_but_no_body),
        cmocka_unit_test(no_content_has_no_type),
        cmocka_unit_test(long_document_is_cut_into_records),
        cmocka_unit_test(reply_that_failed_fails_the_wire),
        cmocka_unit_test(peer_that_does_not_read_is_not_waited_for),
        cmocka_unit_test(unknown_role_is_an_end_record),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
