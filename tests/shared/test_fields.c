/* shared/fields.c */
#include "shared/fields.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { PHONE, CONTENT, URGENT, COUNT };

static const struct field table[COUNT] = {
    [PHONE] = {.name = "phone_number",
               .alias = "PhoneNumber",
               .type = JSON_STRING,
               .required = true},
    [CONTENT] = {.name = "content", .type = JSON_STRING, .required = true},
    [URGENT] = {.name = "urgent", .type = JSON_TRUE},
};

static struct json_token tokens[64];

static enum rc
read_text(const char *text, uint32_t *values, struct field_errors *errors)
{
    struct json json;

    memset(errors, 0, sizeof(*errors));
    assert_int_equal(json_scan(text, strlen(text), tokens, 64, &json), RC_OK);
    return fields_read(&json, table, COUNT, values, errors);
}

static void
assert_error(const struct field_errors *errors, unsigned i, const char *field,
             const char *reason)
{
    assert_true(i < errors->count);
    assert_string_equal(errors->list[i].field, field);
    assert_string_equal(errors->list[i].reason, reason);
}

static void
a_body_that_is_no_document_says_why(void **state)
{
    static const struct {
        const char *body;
        const char *reason;
    } bodies[] = {
        {"", "the body is empty"},
        {"[1,2,3]", "at most 3 values, these are more"},
        {"[1,]", "not valid JSON: "},
    };
    struct json json;

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(bodies); i++) {
        struct field_errors errors = {0};

        assert_int_equal(fields_scan(bodies[i].body, strlen(bodies[i].body),
                                     tokens, 3, &json, &errors),
                         RC_INVALID);
        assert_int_equal(errors.count, 1);
        assert_string_equal(errors.list[0].field, "");
        assert_memory_equal(errors.list[0].reason, bodies[i].reason,
                            strlen(bodies[i].reason));
    }
    assert_int_equal(fields_scan("[1,2]", 5, tokens, 3, &json, NULL), RC_OK);
}

static void
members_are_found_by_name_alias_and_any_case(void **state)
{
    static const char *const texts[] = {
        "{\"phone_number\":\"1\",\"content\":\"x\"}",
        "{\"content\":\"x\",\"PhoneNumber\":\"1\"}",
        "{\"CONTENT\":\"x\",\"PHONENUMBER\":\"1\"}",
        "{\"other\":{\"content\":1,\"phone_number\":[]},\"Content\":\"x\","
        "\"Phone_Number\":\"1\",\"more\":null}",
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(texts); i++) {
        struct field_errors errors;
        uint32_t values[COUNT];

        assert_int_equal(read_text(texts[i], values, &errors), RC_OK);
        assert_int_equal(errors.count, 0);
        assert_int_equal(texts[i][tokens[values[PHONE]].start], '1');
        assert_int_equal(texts[i][tokens[values[CONTENT]].start], 'x');
        assert_int_equal(values[URGENT], 0);
    }
}

static void
either_boolean_is_a_boolean_and_nothing_else_is(void **state)
{
    struct field_errors errors;
    uint32_t values[COUNT];

    (void)state;
    assert_int_equal(read_text("{\"phone_number\":\"1\",\"content\":\"x\","
                               "\"urgent\":false}",
                               values, &errors),
                     RC_OK);
    assert_int_equal(tokens[values[URGENT]].type, JSON_FALSE);
    assert_int_equal(read_text("{\"phone_number\":\"1\",\"content\":\"x\","
                               "\"urgent\":true}",
                               values, &errors),
                     RC_OK);
    assert_int_equal(read_text("{\"phone_number\":\"1\",\"content\":\"x\","
                               "\"urgent\":\"true\"}",
                               values, &errors),
                     RC_INVALID);
    assert_error(&errors, 0, "urgent", "must be true or false");
}

static void
every_missing_and_every_wrong_member_is_named(void **state)
{
    struct field_errors errors;
    uint32_t values[COUNT] = {9, 9, 9};

    (void)state;
    assert_int_equal(read_text("{}", values, &errors), RC_INVALID);
    assert_int_equal(errors.count, 2);
    assert_error(&errors, 0, "phone_number", "is missing");
    assert_error(&errors, 1, "content", "is missing");
    assert_int_equal(values[PHONE] + values[CONTENT] + values[URGENT], 0);
    assert_int_equal(
        read_text("{\"phone_number\":5,\"content\":null}", values, &errors),
        RC_INVALID);
    assert_error(&errors, 0, "phone_number", "must be a string");
    assert_error(&errors, 1, "content", "must be a string");
    assert_int_equal(values[PHONE], 0);
}

static void
a_member_twice_is_an_error_in_any_case_and_by_alias(void **state)
{
    static const char *const texts[] = {
        "{\"phone_number\":\"1\",\"content\":\"x\",\"phone_number\":\"1\"}",
        "{\"phone_number\":\"1\",\"content\":\"x\",\"Phone_Number\":\"2\"}",
        "{\"PhoneNumber\":\"1\",\"content\":\"x\",\"phone_number\":\"1\"}",
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(texts); i++) {
        struct field_errors errors;
        uint32_t values[COUNT];

        assert_int_equal(read_text(texts[i], values, &errors), RC_INVALID);
        assert_int_equal(errors.count, 1);
        assert_error(&errors, 0, "phone_number", "appears more than once");
    }
}

static void
unknown_members_are_ignored_even_twice(void **state)
{
    struct field_errors errors;
    uint32_t values[COUNT];

    (void)state;
    assert_int_equal(read_text("{\"a\":1,\"a\":2,\"phone_number\":\"1\","
                               "\"content\":\"x\"}",
                               values, &errors),
                     RC_OK);
}

static void
a_root_that_is_no_object_is_an_error_of_the_whole_body(void **state)
{
    static const char *const texts[] = {"[]", "1", "\"a\"", "null", "true"};

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(texts); i++) {
        struct field_errors errors;
        uint32_t values[COUNT];

        assert_int_equal(read_text(texts[i], values, &errors), RC_INVALID);
        assert_int_equal(errors.count, 1);
        assert_error(&errors, 0, "", "the body must be a JSON object");
    }
}

static void
errors_beyond_the_bound_are_dropped_and_long_ones_cut(void **state)
{
    struct field_errors errors = {0};
    char name[200];

    (void)state;
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    for (int i = 0; i < FIELD_ERRORS_MAX + 3; i++) {
        field_errors_add(&errors, name, "%d %s", i, name);
    }
    assert_int_equal(errors.count, FIELD_ERRORS_MAX);
    assert_int_equal(strlen(errors.list[0].field), FIELD_NAME_BYTES - 1);
    assert_int_equal(strlen(errors.list[0].reason), FIELD_REASON_BYTES - 1);
    assert_int_equal(errors.list[FIELD_ERRORS_MAX - 1].reason[0],
                     '0' + FIELD_ERRORS_MAX - 1);
}

static void
a_full_list_of_errors_still_fails_what_is_wrong(void **state)
{
    static const char text[] =
        "{\"phone_number\":\"1\",\"content\":\"x\",\"content\":\"x\"}";
    struct field_errors errors = {.count = FIELD_ERRORS_MAX};
    uint32_t values[COUNT];
    struct json json;

    (void)state;
    assert_int_equal(json_scan(text, sizeof(text) - 1, tokens, 64, &json),
                     RC_OK);
    assert_int_equal(fields_read(&json, table, COUNT, values, &errors),
                     RC_INVALID);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_body_that_is_no_document_says_why),
        cmocka_unit_test(members_are_found_by_name_alias_and_any_case),
        cmocka_unit_test(either_boolean_is_a_boolean_and_nothing_else_is),
        cmocka_unit_test(every_missing_and_every_wrong_member_is_named),
        cmocka_unit_test(a_member_twice_is_an_error_in_any_case_and_by_alias),
        cmocka_unit_test(unknown_members_are_ignored_even_twice),
        cmocka_unit_test(
            a_root_that_is_no_object_is_an_error_of_the_whole_body),
        cmocka_unit_test(errors_beyond_the_bound_are_dropped_and_long_ones_cut),
        cmocka_unit_test(a_full_list_of_errors_still_fails_what_is_wrong),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
