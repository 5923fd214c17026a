/* shared/call_msg.c */
#include "shared/call_msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/json.h"

#define AGENT_128                                                              \
    "abcdefghijklmnopqrstuvwxyz-_0123"                                         \
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ456789"                                         \
    "abcdefghijklmnopqrstuvwxyz-_0123"                                         \
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ456789"
#define ID "01890000-0000-7000-8000-00000000002a"
#define PHONE_REASON                                                           \
    "must be a number in E.164 form: +, country code, 7 to 15 digits in all"
#define AGENT_REASON "must be 1 to 128 characters of A-Z a-z 0-9 _ -"

static struct call_msg msg;
static struct field_errors errors;

/* Decode from a copy without a byte to spare. */
static enum rc
from_request(const char *body, size_t bytes, const char *countries)
{
    char *copy = malloc(bytes + 1);
    enum rc rc;

    assert_non_null(copy);
    memcpy(copy + 1, body, bytes);
    memset(&msg, 0x5a, sizeof(msg));
    memset(&errors, 0x5a, sizeof(errors));
    rc = call_msg_from_request(copy + 1, bytes, countries, &msg, &errors);
    free(copy);
    return rc;
}

static enum rc
request(const char *phone, const char *agent, const char *countries)
{
    char body[512];

    (void)snprintf(body, sizeof(body),
                   "{\"phone_number\":\"%s\",\"virtual_agent_id\":\"%s\"}",
                   phone, agent);
    return from_request(body, strlen(body), countries);
}

static void
good_bodies_are_taken(void **state)
{
    static const char *const bodies[] = {
        "{\"phone_number\":\"+14155550123\",\"virtual_agent_id\":\"a_1\"}",
        " { \"Virtual_Agent_ID\" : \"a_1\" , \"more\" : [{}],"
        " \"PHONE_NUMBER\" : \"\\u002b14155550123\" } ",
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(bodies); k++) {
        assert_int_equal(from_request(bodies[k], strlen(bodies[k]), ""), RC_OK);
        assert_string_equal(msg.phone, "+14155550123");
        assert_string_equal(msg.agent, "a_1");
        assert_int_equal(errors.count, 0);
    }
}

static void
numbers_and_agents_are_taken_at_their_bounds(void **state)
{
    (void)state;
    assert_int_equal(request("+1234567", "a", ""), RC_OK);
    assert_int_equal(request("+123456789012345", "a", ""), RC_OK);
    assert_string_equal(msg.phone, "+123456789012345");
    assert_int_equal(request("+1234567", AGENT_128, ""), RC_OK);
    assert_string_equal(msg.agent, AGENT_128);
}

static void
a_bad_number_is_told_so(void **state)
{
    static const char *const phones[] = {
        "",
        "+",
        "14155550123",
        "+123456",
        "+1234567890123456",
        "+04155550123",
        "+1415555012x",
        "+1 4155550123",
        "++14155550123",
        "+14155550123 ",
        "+1415555012345678901234567890",
        "\\u0661\\u0662\\u0663\\u0664\\u0665\\u0666\\u0667",
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(phones); k++) {
        assert_int_equal(request(phones[k], "a", ""), RC_INVALID);
        assert_int_equal(errors.count, 1);
        assert_string_equal(errors.list[0].field, "phone_number");
    }
    assert_int_equal(request("+1", "a", ""), RC_INVALID);
    assert_string_equal(errors.list[0].reason, PHONE_REASON);
}

static void
a_bad_agent_is_told_so(void **state)
{
    static const char *const agents[] = {
        "", "a b", "a.b", "\\u00e4", "a\\n", AGENT_128 "x",
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(agents); k++) {
        assert_int_equal(request("+14155550123", agents[k], ""), RC_INVALID);
        assert_int_equal(errors.count, 1);
        assert_string_equal(errors.list[0].field, "virtual_agent_id");
        assert_string_equal(errors.list[0].reason, AGENT_REASON);
    }
}

static void
both_fields_are_told_at_once(void **state)
{
    (void)state;
    assert_int_equal(request("1", "", ""), RC_INVALID);
    assert_int_equal(errors.count, 2);
}

static void
what_is_no_call_is_told_so(void **state)
{
    static const struct {
        const char *body;
        const char *field;
    } cases[] = {
        {"", ""},
        {"{", ""},
        {"[]", ""},
        {"null", ""},
        {"{}", "phone_number"},
        {"{\"phone_number\":\"+14155550123\"}", "virtual_agent_id"},
        {"{\"phone_number\":14155550123,\"virtual_agent_id\":\"a\"}",
         "phone_number"},
        {"{\"phone_number\":\"+14155550123\",\"virtual_agent_id\":null}",
         "virtual_agent_id"},
        {"{\"phone_number\":\"+14155550123\",\"virtual_agent_id\":\"a\","
         "\"Phone_Number\":\"+14155550123\"}",
         "phone_number"},
        {"{\"phone_number\":\"+14155550123\\u0000\","
         "\"virtual_agent_id\":\"a\"}",
         ""},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(cases); k++) {
        assert_int_equal(from_request(cases[k].body, strlen(cases[k].body), ""),
                         RC_INVALID);
        assert_true(errors.count > 0);
        assert_string_equal(errors.list[0].field, cases[k].field);
    }
}

static void
many_values_are_refused(void **state)
{
    struct text t = {0};

    (void)state;
    text_puts(&t, "{\"x\":[0");
    for (int k = 0; k < 100; k++) {
        text_puts(&t, ",0");
    }
    text_puts(&t, "]}");
    assert_int_equal(from_request(text_cstr(&t), t.bytes, ""), RC_INVALID);
    assert_string_equal(errors.list[0].reason,
                        "at most 64 values, these are more");
    text_free(&t);
}

static void
only_allowed_countries_are_called(void **state)
{
    static const struct {
        const char *countries;
        enum rc rc;
    } cases[] = {
        {"", RC_OK},
        {" , ", RC_OK},
        {"+1", RC_OK},
        {"+49,+1", RC_OK},
        {"+49 +1415", RC_OK},
        {" +49, +1 ", RC_OK},
        {"+49", RC_INVALID},
        {"+1416", RC_INVALID},
        {"+49,+44", RC_INVALID},
        {"+141556", RC_INVALID},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(cases); k++) {
        assert_int_equal(request("+14155550123", "a", cases[k].countries),
                         cases[k].rc);
    }
    assert_string_equal(errors.list[0].field, "phone_number");
    assert_string_equal(errors.list[0].reason,
                        "this country is not called (call.allow_countries)");
}

static void
the_journal_form_comes_back(void **state)
{
    struct call_msg back;
    struct text t = {0};

    (void)state;
    assert_int_equal(request("+14155550123", AGENT_128, ""), RC_OK);
    call_msg_encode(&msg, &t);
    assert_string_equal(text_cstr(&t), "+14155550123 " AGENT_128);
    assert_int_equal(call_msg_decode(text_cstr(&t), t.bytes, &back), RC_OK);
    assert_string_equal(back.phone, msg.phone);
    assert_string_equal(back.agent, msg.agent);
    text_free(&t);
}

/* Decode from a copy without a byte to spare. */
static enum rc
decode(const char *body, size_t bytes)
{
    char *copy = malloc(bytes + 1);
    enum rc rc;

    assert_non_null(copy);
    memcpy(copy + 1, body, bytes);
    memset(&msg, 0x5a, sizeof(msg));
    rc = call_msg_decode(copy + 1, bytes, &msg);
    free(copy);
    return rc;
}

static void
a_damaged_journal_form_is_refused(void **state)
{
    static const char *const forms[] = {
        "",
        " ",
        "+14155550123",
        "+14155550123 ",
        " +14155550123 a",
        "+14155550123  a",
        "+14155550123 a ",
        "+14155550123 a b",
        "14155550123 a",
        "+1415 a",
        "+14155550123 a.b",
        "+14155550123\ta",
        "+14155550123 " AGENT_128 "x",
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(forms); k++) {
        assert_int_equal(decode(forms[k], strlen(forms[k])), RC_INVALID);
        assert_string_equal(msg.phone, "");
        assert_string_equal(msg.agent, "");
    }
    assert_int_equal(decode("+14155550123 a\0", 15), RC_INVALID);
    assert_int_equal(decode("+1415555\0"
                            "0123 a",
                            15),
                     RC_INVALID);
    assert_int_equal(decode("+14155550123 a", 14), RC_OK);
}

static const struct call_outcome outcome = {
    .id = {{0x01, 0x89, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 42}},
    .msg = {.phone = "+14155550123", .agent = "a_1"},
    .state = CALL_FAILED,
    .seq = 7,
    .attempts = 5,
    .created_unix_ms = 1800000000000,
    .dialed_unix_ms = 1800000000001,
    .finished_unix_ms = 1800000000002,
    .error = "HTTP 400: \xc3\xa4 b",
};

static void
an_outcome_comes_back(void **state)
{
    static const enum call_state finals[] = {CALL_ANSWERED, CALL_FAILED,
                                             CALL_UNKNOWN, CALL_CANCELED};
    struct call_outcome given = outcome;
    struct call_outcome back;
    struct text t = {0};

    (void)state;
    call_outcome_encode(&given, &t);
    assert_string_equal(text_cstr(&t),
                        "7 3 5 1800000000000 1800000000001 1800000000002 " ID
                        " +14155550123 a_1 HTTP 400: \xc3\xa4 b");
    for (size_t k = 0; k < ARRAY_COUNT(finals); k++) {
        given.state = finals[k];
        text_reset(&t);
        call_outcome_encode(&given, &t);
        assert_int_equal(call_outcome_decode(text_cstr(&t), t.bytes, &back),
                         RC_OK);
        assert_memory_equal(&back, &given, sizeof(back));
    }
    text_free(&t);
}

static void
an_outcome_may_have_no_error_or_the_longest(void **state)
{
    struct call_outcome given = outcome;
    struct call_outcome back;
    struct text t = {0};

    (void)state;
    memset(given.error, 0, sizeof(given.error));
    call_outcome_encode(&given, &t);
    assert_int_equal(call_outcome_decode(text_cstr(&t), t.bytes, &back), RC_OK);
    assert_memory_equal(&back, &given, sizeof(back));
    memset(given.error, 'e', sizeof(given.error) - 1);
    text_reset(&t);
    call_outcome_encode(&given, &t);
    assert_int_equal(call_outcome_decode(text_cstr(&t), t.bytes, &back), RC_OK);
    assert_memory_equal(&back, &given, sizeof(back));
    text_putc(&t, 'e');
    assert_int_equal(call_outcome_decode(text_cstr(&t), t.bytes, &back),
                     RC_INVALID);
    text_free(&t);
}

static enum rc
decode_outcome(const char *body, size_t bytes)
{
    char *copy = malloc(bytes + 1);
    struct call_outcome back;
    enum rc rc;

    assert_non_null(copy);
    memcpy(copy + 1, body, bytes);
    rc = call_outcome_decode(copy + 1, bytes, &back);
    if (rc != RC_OK) {
        assert_int_equal(back.seq, 0);
        assert_string_equal(back.msg.phone, "");
    }
    free(copy);
    return rc;
}

static void
a_damaged_outcome_is_refused(void **state)
{
    static const char good[] = "7 3 5 1 2 3 " ID " +14155550123 a_1 e";
    static const char *const forms[] = {
        "",
        "7",
        "7 0 5 1 2 3 " ID " +14155550123 a_1 e", /* no final state */
        "7 1 5 1 2 3 " ID " +14155550123 a_1 e",
        "7 6 5 1 2 3 " ID " +14155550123 a_1 e",
        "07 3 5 1 2 3 " ID " +14155550123 a_1 e",
        "-7 3 5 1 2 3 " ID " +14155550123 a_1 e",
        "7x 3 5 1 2 3 " ID " +14155550123 a_1 e",
        "77777777777777777 3 5 1 2 3 " ID " +14155550123 a_1 e",
        "7  3 5 1 2 3 " ID " +14155550123 a_1 e",
        "7 3 5 1 2 " ID " +14155550123 a_1 e",
        "7 3 5 1 2 3 01890000 +14155550123 a_1 e",
        "7 3 5 1 2 3 " ID "0 +14155550123 a_1 e",
        "7 3 5 1 2 3 " ID " 14155550123 a_1 e",
        "7 3 5 1 2 3 " ID " +14155550123 a.1 e",
        "7 3 5 1 2 3 " ID " +14155550123",
        "7 3 5 1 2 3 " ID " +14155550123 a_1", /* the blank is missing */
        "7 3 5 1 2 3 " ID " +14155550123 a_1 \xff",
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(forms); k++) {
        assert_int_equal(decode_outcome(forms[k], strlen(forms[k])),
                         RC_INVALID);
    }
    assert_int_equal(decode_outcome(good, sizeof(good)), RC_INVALID); /* NUL */
    assert_int_equal(decode_outcome(good, sizeof(good) - 1), RC_OK);
}

static void
states_have_their_names(void **state)
{
    static const char *const names[CALL_STATES] = {
        "QUEUED", "DIALING", "ANSWERED", "FAILED", "UNKNOWN", "CANCELED"};

    (void)state;
    for (unsigned k = 0; k < CALL_STATES; k++) {
        assert_string_equal(call_state_name((enum call_state)k), names[k]);
    }
    assert_string_equal(call_state_name((enum call_state) - 1), "UNKNOWN");
    assert_string_equal(call_state_name(CALL_STATES), "UNKNOWN");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_bodies_are_taken),
        cmocka_unit_test(numbers_and_agents_are_taken_at_their_bounds),
        cmocka_unit_test(a_bad_number_is_told_so),
        cmocka_unit_test(a_bad_agent_is_told_so),
        cmocka_unit_test(both_fields_are_told_at_once),
        cmocka_unit_test(what_is_no_call_is_told_so),
        cmocka_unit_test(many_values_are_refused),
        cmocka_unit_test(only_allowed_countries_are_called),
        cmocka_unit_test(the_journal_form_comes_back),
        cmocka_unit_test(a_damaged_journal_form_is_refused),
        cmocka_unit_test(an_outcome_comes_back),
        cmocka_unit_test(an_outcome_may_have_no_error_or_the_longest),
        cmocka_unit_test(a_damaged_outcome_is_refused),
        cmocka_unit_test(states_have_their_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
