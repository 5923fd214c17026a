/* shared/sms_msg.c */
#include "shared/sms_msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SMILE "\xf0\x9f\x98\x80"
#define PHONE_REASON "must be 3 to 15 digits, with or without a + before them"
#define CONTENT_REASON "must be 1 to 1600 characters"

static struct sms_msg msg;
static struct field_errors errors;

/* Decode from a copy without a byte to spare. */
static enum rc
from_request(const char *body, size_t bytes)
{
    char *copy = malloc(bytes + 1);
    enum rc rc;

    assert_non_null(copy);
    memcpy(copy + 1, body, bytes);
    memset(&msg, 0x5a, sizeof(msg));
    memset(&errors, 0x5a, sizeof(errors));
    rc = sms_msg_from_request(copy + 1, bytes, &msg, &errors);
    free(copy);
    if (rc != RC_OK) {
        assert_string_equal(msg.phone, "");
        assert_string_equal(msg.content, "");
        assert_int_equal(msg.content_bytes, 0);
        assert_true(errors.count > 0);
    } else {
        assert_int_equal(errors.count, 0);
        assert_int_equal(strlen(msg.content), msg.content_bytes);
    }
    return rc;
}

static enum rc
request(const char *phone, const char *content)
{
    struct text t = {0};
    enum rc rc;

    text_printf(&t, "{\"phone_number\":\"%s\",\"content\":\"%s\"}", phone,
                content);
    rc = from_request(t.data, t.bytes);
    text_free(&t);
    return rc;
}

static void
good_bodies_are_taken(void **state)
{
    static const char *const bodies[] = {
        "{\"phone_number\":\"+4917612345\",\"content\":\"Hi you\"}",
        "{\"PhoneNumber\":\"+4917612345\",\"content\":\"Hi you\"}",
        "{\"phonenumber\":\"+4917612345\",\"CONTENT\":\"Hi you\"}",
        " { \"Content\" : \"Hi\\u0020you\", \"more\" : [{}],"
        " \"PHONE_NUMBER\" : \"\\u002b4917612345\" } ",
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(bodies); k++) {
        assert_int_equal(from_request(bodies[k], strlen(bodies[k])), RC_OK);
        assert_string_equal(msg.phone, "+4917612345");
        assert_string_equal(msg.content, "Hi you");
    }
}

static void
numbers_are_taken_at_their_bounds(void **state)
{
    static const char *const good[] = {
        "110", "+110", "123456789012345", "+123456789012345", "000",
    };
    static const char *const bad[] = {
        "",
        "+",
        "12",
        "+12",
        "1234567890123456",
        "++1",
        "+1+2",
        "1 10",
        "110 ",
        " 110",
        "11a",
        "-110",
        "1.10",
        "+1234567890123456",
        "\\u0661\\u0662\\u0663",
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(good); k++) {
        assert_int_equal(request(good[k], "x"), RC_OK);
        assert_string_equal(msg.phone, good[k]);
    }
    for (size_t k = 0; k < ARRAY_COUNT(bad); k++) {
        assert_int_equal(request(bad[k], "x"), RC_INVALID);
        assert_int_equal(errors.count, 1);
        assert_string_equal(errors.list[0].field, "phone_number");
        assert_string_equal(errors.list[0].reason, PHONE_REASON);
    }
}

/* A request whose content is count times piece. */
static enum rc
request_of(const char *piece, unsigned count)
{
    struct text t = {0};
    enum rc rc;

    for (unsigned k = 0; k < count; k++) {
        text_puts(&t, piece);
    }
    rc = request("110", text_cstr(&t));
    text_free(&t);
    return rc;
}

static void
content_is_counted_in_characters(void **state)
{
    static const struct {
        const char *piece;
        size_t bytes; /* decoded */
    } cases[] = {
        {"a", 1},   {"\xc3\xa4", 2},       {"\xe2\x82\xac", 3},
        {SMILE, 4}, {"\\ud83d\\ude00", 4}, {"\\n", 1},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(cases); k++) {
        assert_int_equal(request_of(cases[k].piece, 1), RC_OK);
        assert_int_equal(request_of(cases[k].piece, 1600), RC_OK);
        assert_int_equal(msg.content_bytes, 1600 * cases[k].bytes);
        assert_int_equal(request_of(cases[k].piece, 1601), RC_INVALID);
        assert_int_equal(errors.count, 1);
        assert_string_equal(errors.list[0].field, "content");
        assert_string_equal(errors.list[0].reason, CONTENT_REASON);
    }
    assert_int_equal(request_of("a", 6401), RC_INVALID);
    assert_int_equal(request("110", ""), RC_INVALID);
    assert_string_equal(errors.list[0].reason, CONTENT_REASON);
    assert_int_equal(request("110", " "), RC_OK);
}

static void
wrong_bodies_are_told_why(void **state)
{
    static const struct {
        const char *body;
        unsigned count;
        const char *field;
        const char *reason;
    } cases[] = {
        {"", 1, "", "the body is empty"},
        {"[]", 1, "", "the body must be a JSON object"},
        {"{", 1, "", "not valid JSON: unterminated object at byte 1"},
        {"{}", 2, "phone_number", "is missing"},
        {"{\"phone_number\":\"110\"}", 1, "content", "is missing"},
        {"{\"phone_number\":110,\"content\":\"x\"}", 1, "phone_number",
         "must be a string"},
        {"{\"phone_number\":\"110\",\"content\":null}", 1, "content",
         "must be a string"},
        {"{\"phone_number\":\"110\",\"PhoneNumber\":\"110\","
         "\"content\":\"x\"}",
         1, "phone_number", "appears more than once"},
        {"{\"phone_number\":\"110\",\"content\":\"x\",\"Content\":\"y\"}", 1,
         "content", "appears more than once"},
        {"{\"phone_number\":\"1\",\"content\":\"\"}", 2, "phone_number",
         PHONE_REASON},
        {"{\"phone_number\":\"110\",\"content\":\"\\u0000\"}", 1, "",
         "not valid JSON: U+0000 in a string at byte 33"},
        {"{\"phone_number\":\"110\",\"content\":\"\xff\"}", 1, "",
         "not valid JSON: invalid UTF-8 at byte 33"},
        {"{\"phone_number\":\"110\",\"content\":\"\\ud83d\"}", 1, "",
         "not valid JSON: lone surrogate in a string at byte 33"},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(cases); k++) {
        assert_int_equal(from_request(cases[k].body, strlen(cases[k].body)),
                         RC_INVALID);
        assert_int_equal(errors.count, cases[k].count);
        assert_string_equal(errors.list[0].field, cases[k].field);
        assert_string_equal(errors.list[0].reason, cases[k].reason);
    }
}

static void
values_are_bounded(void **state)
{
    struct text t = {0};

    (void)state;
    text_puts(&t, "{\"phone_number\":\"110\",\"content\":\"x\",\"more\":[");
    for (int k = 0; k < 57; k++) { /* the object, five before the array, it */
        text_puts(&t, k == 0 ? "1" : ",1");
    }
    text_puts(&t, "]}");
    assert_int_equal(from_request(t.data, t.bytes), RC_OK);
    t.bytes -= 2;
    text_puts(&t, ",1]}");
    assert_int_equal(from_request(t.data, t.bytes), RC_INVALID);
    assert_string_equal(errors.list[0].reason,
                        "at most 64 values, these are more");
    text_free(&t);
}

static void
the_journal_form_leads_back(void **state)
{
    static const char *const contents[] = {"Hello, world ", " ", SMILE,
                                           "a\\nb\\f", "\\u0001"};
    struct sms_msg again;
    struct text form = {0};

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(contents); k++) {
        assert_int_equal(request("+4917612345", contents[k]), RC_OK);
        text_reset(&form);
        sms_msg_encode(&msg, &form);
        assert_int_equal(sms_msg_decode(form.data, form.bytes, &again), RC_OK);
        assert_string_equal(again.phone, msg.phone);
        assert_int_equal(again.content_bytes, msg.content_bytes);
        assert_string_equal(again.content, msg.content);
    }
    assert_int_equal(request("110", "Hello"), RC_OK);
    text_reset(&form);
    sms_msg_encode(&msg, &form);
    assert_string_equal(text_cstr(&form), "110 Hello");
    text_free(&form);
}

static void
the_longest_message_fits_and_one_more_does_not(void **state)
{
    struct sms_msg got;
    struct text form = {0};

    (void)state;
    text_puts(&form, "+123456789012345 ");
    for (int k = 0; k < 1600; k++) {
        text_puts(&form, SMILE);
    }
    assert_int_equal(sms_msg_decode(form.data, form.bytes, &got), RC_OK);
    assert_int_equal(got.content_bytes, 6400);
    assert_int_equal(got.content[6400], '\0');
    text_putc(&form, 'a');
    assert_int_equal(sms_msg_decode(form.data, form.bytes, &got), RC_INVALID);
    text_free(&form);
}

static void
other_journal_forms_are_refused(void **state)
{
    static const struct {
        const char *body;
        size_t bytes;
    } cases[] = {
        {"", 0},
        {" ", 1},
        {"110", 3},
        {"110 ", 4},
        {" 110 x", 6},
        {"11 x", 4},
        {"+ x", 3},
        {"1234567890123456 x", 18},
        {"+1234567890123456 x", 19},
        {"12345678901234567890 x", 22},
        {"11x x", 5},
        {"110\tx", 5},
        {"110\0 x", 6},
        {"110 \0", 5},
        {"110 x\0", 6},
        {"110 \xff", 5},
        {"110 \xe2\x82", 6},
        {"110 \xed\xa0\x80", 7},
    };

    (void)state;
    assert_int_equal(sms_msg_decode("110 x", 5, &msg), RC_OK);
    for (size_t k = 0; k < ARRAY_COUNT(cases); k++) {
        memset(&msg, 0x5a, sizeof(msg));
        assert_int_equal(sms_msg_decode(cases[k].body, cases[k].bytes, &msg),
                         RC_INVALID);
        assert_string_equal(msg.phone, "");
        assert_int_equal(msg.content_bytes, 0);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_bodies_are_taken),
        cmocka_unit_test(numbers_are_taken_at_their_bounds),
        cmocka_unit_test(content_is_counted_in_characters),
        cmocka_unit_test(wrong_bodies_are_told_why),
        cmocka_unit_test(values_are_bounded),
        cmocka_unit_test(the_journal_form_leads_back),
        cmocka_unit_test(the_longest_message_fits_and_one_more_does_not),
        cmocka_unit_test(other_journal_forms_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
