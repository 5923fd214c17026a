/* fcgi/records.c: the verdict on records that have arrived in part, whole, or
 * are none. */
#include "fcgi/records.h"

#include <stdlib.h>
#include <string.h>

#include "tests/fcgi/fcgi_client.h"

static enum records_verdict
walk(const struct text *wire, struct records *w)
{
    /* A copy without a byte to spare, for the address sanitizer. */
    uint8_t *copy = malloc(wire->bytes);
    enum records_verdict verdict;

    assert_non_null(copy);
    memcpy(copy, wire->data, wire->bytes);
    *w = (struct records){0};
    verdict = records_walk(w, copy, wire->bytes);
    free(copy);
    return verdict;
}

static void
build(struct text *wire, bool keep)
{
    const struct client_request request = {.method = "POST",
                                           .uri = "/callback",
                                           .body = "{\"object_ids\":[1]}",
                                           .id = 258,
                                           .keep = keep};

    client_build(wire, &request);
}

static void
whole_request_is_recognised(void **state)
{
    struct text wire = {0};
    struct records w;

    (void)state;
    build(&wire, true);
    assert_int_equal(walk(&wire, &w), RECORDS_WHOLE);
    assert_int_equal(w.offset, wire.bytes);
    assert_int_equal(w.id, 258);
    assert_true(w.keep);
    assert_int_equal(w.body_bytes, strlen("{\"object_ids\":[1]}"));
    text_free(&wire);
}

static void
what_follows_a_whole_request_is_not_walked(void **state)
{
    struct text wire = {0};
    struct records w;
    size_t whole;

    (void)state;
    build(&wire, false);
    whole = wire.bytes;
    text_puts(&wire, "garbage");
    assert_int_equal(walk(&wire, &w), RECORDS_WHOLE);
    assert_int_equal(w.offset, whole);
    assert_false(w.keep);
    text_free(&wire);
}

static void
every_prefix_is_a_part_and_the_walk_resumes(void **state)
{
    struct text wire = {0};
    struct records resumed = {0};

    (void)state;
    build(&wire, false);
    for (size_t n = 0; n < wire.bytes; n++) {
        struct text prefix = {.data = wire.data, .bytes = n};
        struct records w;

        assert_int_equal(n == 0 ? RECORDS_PART : walk(&prefix, &w),
                         RECORDS_PART);
        assert_int_equal(records_walk(&resumed, (const uint8_t *)wire.data, n),
                         RECORDS_PART);
    }
    assert_int_equal(
        records_walk(&resumed, (const uint8_t *)wire.data, wire.bytes),
        RECORDS_WHOLE);
    text_free(&wire);
}

static void
pairs_may_be_split_over_records_anywhere(void **state)
{
    struct text params = {0};
    char value[400];

    (void)state;
    memset(value, 'v', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    client_pair(&params, "REQUEST_METHOD", "GET");
    client_pair(&params, "X", value);
    client_pair(&params, value, "");
    for (size_t cut = 1; cut < params.bytes; cut++) {
        struct text wire = {0};
        struct records w;

        client_begin(&wire, 1, 1, false);
        client_record(&wire, RECORDS_PARAMS, 1, params.data, cut, 0);
        client_record(&wire, RECORDS_PARAMS, 1, params.data + cut,
                      params.bytes - cut, 7);
        client_record(&wire, RECORDS_PARAMS, 1, "", 0, 0);
        client_record(&wire, RECORDS_STDIN, 1, "", 0, 0);
        assert_int_equal(walk(&wire, &w), RECORDS_WHOLE);
        text_free(&wire);
    }
    text_free(&params);
}

struct step {
    int type;
    uint16_t id;
    const char *data;
    size_t bytes;
    uint8_t padding;
};

struct sequence {
    const char *name;
    enum records_verdict verdict;
    struct step steps[6];
};

#define BEGIN(id)                                                              \
    {                                                                          \
        1, id, "\0\1\0\0\0\0\0\0", 8, 0                                        \
    }
#define PAIR "\3\1ABCd"
#define END_PARAMS(id)                                                         \
    {                                                                          \
        4, id, "", 0, 0                                                        \
    }
#define END_STDIN(id)                                                          \
    {                                                                          \
        5, id, "", 0, 0                                                        \
    }

static const struct sequence sequences[] = {
    {"parameters only", RECORDS_PART, {BEGIN(1), {4, 1, PAIR, 6, 0}}},
    {"no parameters at all",
     RECORDS_WHOLE,
     {BEGIN(1), END_PARAMS(1), END_STDIN(1)}},
    {"request id 0", RECORDS_BAD, {BEGIN(0)}},
    {"no BEGIN", RECORDS_BAD, {{4, 1, PAIR, 6, 0}}},
    {"a short BEGIN", RECORDS_BAD, {{1, 1, "\0\1\0", 3, 0}}},
    {"a padded BEGIN", RECORDS_BAD, {{1, 1, "\0\1\0\0\0\0\0\0", 8, 8}}},
    {"padding behind the parameters' end",
     RECORDS_BAD,
     {BEGIN(1), {4, 1, "", 0, 8}}},
    {"BEGIN twice", RECORDS_BAD, {BEGIN(1), BEGIN(1)}},
    {"a second request in between", RECORDS_BAD, {BEGIN(1), BEGIN(2)}},
    {"parameters of another request",
     RECORDS_BAD,
     {BEGIN(1), {4, 2, PAIR, 6, 0}}},
    {"stdin before the parameters end", RECORDS_BAD, {BEGIN(1), END_STDIN(1)}},
    {"stdin of another request",
     RECORDS_BAD,
     {BEGIN(1), END_PARAMS(1), {5, 3, "x", 1, 0}}},
    {"aborted", RECORDS_BAD, {BEGIN(1), {2, 1, "", 0, 0}}},
    {"aborted in stdin",
     RECORDS_BAD,
     {BEGIN(1), END_PARAMS(1), {5, 1, "x", 1, 0}, {2, 1, "", 0, 0}}},
    {"a management record",
     RECORDS_BAD,
     {{9, 0, "\16\0FCGI_MAX_CONNS", 16, 0}}},
    {"an authorizer's request",
     RECORDS_ROLE,
     {{1, 7, "\0\2\0\0\0\0\0\0", 8, 0}}},
    {"a filter's request", RECORDS_ROLE, {{1, 7, "\0\3\0\0\0\0\0\0", 8, 0}}},
    {"role 257", RECORDS_ROLE, {{1, 7, "\1\1\0\0\0\0\0\0", 8, 0}}},
    {"a pair cut off by the end of the parameters",
     RECORDS_BAD,
     {BEGIN(1), {4, 1, PAIR, 5, 0}, END_PARAMS(1)}},
    {"a length cut off by the end of the parameters",
     RECORDS_BAD,
     {BEGIN(1), {4, 1, "\3", 1, 0}, END_PARAMS(1)}},
    {"a pair of 2 GiB",
     RECORDS_LARGE,
     {BEGIN(1), {4, 1, "\377\377\377\377\1", 5, 0}}},
    {"a value of 64 KiB and one",
     RECORDS_LARGE,
     {BEGIN(1), {4, 1, "\0\200\1\0\1", 5, 0}}},
    {"padding after the end",
     RECORDS_WHOLE,
     {BEGIN(1), END_PARAMS(1), {5, 1, "", 0, 9}}},
};

static void
each_sequence_has_its_verdict(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(sequences); k++) {
        const struct sequence *s = &sequences[k];
        struct text wire = {0};
        struct records w;

        for (size_t n = 0; n < ARRAY_COUNT(s->steps); n++) {
            if (s->steps[n].type != 0) {
                client_record(&wire, s->steps[n].type, s->steps[n].id,
                              s->steps[n].data, s->steps[n].bytes,
                              s->steps[n].padding);
            }
        }
        if (walk(&wire, &w) != s->verdict) {
            fail_msg("%s", s->name);
        }
        text_free(&wire);
    }
}

static void
bytes_that_are_no_fastcgi_are_bad_at_once(void **state)
{
    const uint8_t http[] = "GET / HTTP/1.1\r\n\r\n";
    struct records w = {0};

    (void)state;
    assert_int_equal(records_walk(&w, http, 7), RECORDS_PART);
    assert_int_equal(records_walk(&w, http, 8), RECORDS_BAD);
}

static void
parameters_stop_at_64_KiB(void **state)
{
    char *content = calloc(1, RECORDS_CONTENT_MAX);
    struct text wire = {0};
    struct records w;

    (void)state;
    assert_non_null(content); /* pairs of two empty strings */
    client_begin(&wire, 1, 1, false);
    client_record(&wire, RECORDS_PARAMS, 1, content, RECORDS_CONTENT_MAX, 0);
    client_record(&wire, RECORDS_PARAMS, 1, content,
                  RECORDS_PARAMS_MAX - RECORDS_CONTENT_MAX, 0);
    assert_int_equal(walk(&wire, &w), RECORDS_PART);
    client_record(&wire, RECORDS_PARAMS, 1, content, 1, 0);
    assert_int_equal(walk(&wire, &w), RECORDS_LARGE);
    text_free(&wire);
    free(content);
}

static void
end_padding_is_noted(void **state)
{
    struct text wire = {0};
    struct records w;

    (void)state;
    client_begin(&wire, 1, 1, true);
    client_record(&wire, RECORDS_PARAMS, 1, "", 0, 0);
    client_record(&wire, RECORDS_STDIN, 1, "", 0, 8);
    assert_int_equal(walk(&wire, &w), RECORDS_WHOLE);
    assert_true(w.padded_end);
    text_free(&wire);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_request_is_recognised),
        cmocka_unit_test(what_follows_a_whole_request_is_not_walked),
        cmocka_unit_test(every_prefix_is_a_part_and_the_walk_resumes),
        cmocka_unit_test(pairs_may_be_split_over_records_anywhere),
        cmocka_unit_test(each_sequence_has_its_verdict),
        cmocka_unit_test(bytes_that_are_no_fastcgi_are_bad_at_once),
        cmocka_unit_test(parameters_stop_at_64_KiB),
        cmocka_unit_test(end_padding_is_noted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
