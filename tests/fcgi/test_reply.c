/* fcgi/reply.c: replies and problem documents. */
#include "fcgi/reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void
problem_document_is_complete(void **state)
{
    struct reply r = {0};

    (void)state;
    reply_reset(&r);
    text_puts(&r.body, "half an answer");
    reply_header(&r, "Location", "/nowhere");
    reply_problem(&r, 404, "not_found", "There is no \"x\".", NULL);
    assert_int_equal(r.status, 404);
    assert_string_equal(r.content_type, "application/problem+json");
    assert_string_equal(text_cstr(&r.headers), "");
    assert_string_equal(
        text_cstr(&r.body),
        "{\"type\":\"about:blank\",\"title\":\"Not Found\",\"status\":404,"
        "\"code\":\"not_found\",\"detail\":\"There is no \\\"x\\\".\"}");
    reply_free(&r);
}

static void
field_errors_are_listed(void **state)
{
    struct field_errors errors = {0};
    struct reply r = {0};

    (void)state;
    field_errors_add(&errors, "object_ids[3]", "must be %s", "an integer");
    field_errors_add(&errors, "", "second");
    reply_problem(&r, 400, "invalid_body", "See errors.", &errors);
    assert_string_equal(
        text_cstr(&r.body),
        "{\"type\":\"about:blank\",\"title\":\"Bad Request\",\"status\":400,"
        "\"code\":\"invalid_body\",\"detail\":\"See errors.\",\"errors\":["
        "{\"field\":\"object_ids[3]\",\"reason\":\"must be an integer\"},"
        "{\"field\":\"\",\"reason\":\"second\"}]}");
    reply_free(&r);
}

static void
unavailable_says_when_to_try_again(void **state)
{
    struct reply r = {0};

    (void)state;
    reply_unavailable(&r, "journal_full", "Full.", 30);
    assert_int_equal(r.status, 503);
    assert_string_equal(text_cstr(&r.headers), "Retry-After: 30\r\n");
    reply_unavailable(&r, "journal_full", "Full.", 0);
    assert_string_equal(text_cstr(&r.headers), "Retry-After: 1\r\n");
    reply_free(&r);
}

static void
every_status_that_is_sent_has_a_title(void **state)
{
    const int sent[] = {200, 202, 204, 400, 401, 404, 405, 408, 409,
                        411, 413, 414, 415, 422, 431, 500, 503};

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(sent); k++) {
        assert_string_not_equal(reply_title(sent[k]), "Unknown");
    }
    assert_string_equal(reply_title(299), "Unknown");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(problem_document_is_complete),
        cmocka_unit_test(field_errors_are_listed),
        cmocka_unit_test(unavailable_says_when_to_try_again),
        cmocka_unit_test(every_status_that_is_sent_has_a_title),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
