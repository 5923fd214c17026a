/* shared/json.c, with the kinds of documents of JSONTestSuite. */
#include "shared/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define TOKENS 256
#define DOC(text) text, sizeof(text) - 1

#define OPEN16 "[[[[[[[[[[[[[[[["
#define CLOSE16 "]]]]]]]]]]]]]]]]"

/* Scan a copy that ends where the document does, so that the address
 * sanitizer sees a read past it. */
static enum rc
scan(const char *text, size_t bytes, struct json_token *tokens,
     uint32_t max_tokens, struct json *json)
{
    char *copy = malloc(bytes + 1);
    enum rc rc;

    assert_non_null(copy);
    /* The byte in front makes the copy start unaligned. */
    memcpy(copy + 1, text, bytes);
    rc = json_scan(copy + 1, bytes, tokens, max_tokens, json);
    json->text = text;
    free(copy);
    return rc;
}

struct document {
    const char *text;
    size_t bytes;
    uint32_t tokens;
};

static const struct document good[] = {
    {DOC("0"), 1},
    {DOC("-0"), 1},
    {DOC("-1"), 1},
    {DOC("123456789012345678901234567890"), 1},
    {DOC("1.5"), 1},
    {DOC("0.0"), 1},
    {DOC("-0.0e-0"), 1},
    {DOC("1e5"), 1},
    {DOC("1E+5"), 1},
    {DOC("1e-999"), 1},
    {DOC("1e00005"), 1},
    {DOC("0e1"), 1},
    {DOC("20.0E12"), 1},
    {DOC(" 1 "), 1},
    {DOC("\t\r\n1\n\r\t"), 1},
    {DOC("true"), 1},
    {DOC("false"), 1},
    {DOC("null"), 1},
    {DOC("\"\""), 1},
    {DOC("\"a\""), 1},
    {DOC("\"1234567\""), 1},
    {DOC("\"12345678\""), 1},
    {DOC("\"123456789\""), 1},
    {DOC("\"0123456789abcdef\xc3\xa4 0123456789abcdef\""), 1},
    {DOC("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), 1},
    {DOC("\"\\u0001\\u00e4\\u20AC\\uFFFF\""), 1},
    {DOC("\"\\uD83D\\uDE00\""), 1},
    {DOC("\"\\ud800\\udc00\\udbff\\udfff\""), 1},
    {DOC("\"\\\\u0000\""), 1},
    {DOC("\"\x7f\""), 1},
    {DOC("\"\xc2\x80\xdf\xbf\""), 1},
    {DOC("\"\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\""), 1},
    {DOC("\"\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\""), 1},
    {DOC("\"\xe2\x80\xa8\xe2\x80\xa9\""), 1},
    {DOC("\"\xef\xbb\xbf\""), 1},
    {DOC("[]"), 1},
    {DOC("[ \n ]"), 1},
    {DOC("{}"), 1},
    {DOC("{ }"), 1},
    {DOC("[1]"), 2},
    {DOC("[1,2,3]"), 4},
    {DOC(" [ 1 , 2 , 3 ] "), 4},
    {DOC("[[],[]]"), 3},
    {DOC("[[]   ]"), 2},
    {DOC("[{},{}]"), 3},
    {DOC("[null,1,\"1\",{}]"), 5},
    {DOC("[1,null,null,null,2]"), 6},
    {DOC("{\"a\":1}"), 3},
    {DOC("{\"\":0}"), 3},
    {DOC("{ \"a\" : [ ] , \"b\" : { } }"), 5},
    {DOC("{\"a\":{\"b\":{\"c\":[1]}}}"), 8},
    {DOC("{\"a\":1,\"a\":1}"), 5},
    {DOC("{\"foo\\u0020bar\":42}"), 3},
    {DOC("{\"title\":\"\\u041f\\u043e\\u043b\"}"), 3},
    {DOC(OPEN16 CLOSE16), 16},
    {DOC("{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":"
         "[[[[[[[[1]]]]]]]]}}}}}}}}"),
     25},
};

struct refusal {
    const char *text;
    size_t bytes;
    const char *error;
    uint32_t at;
};

static const struct refusal bad[] = {
    {DOC(""), "the text is empty", 0},
    {DOC(" "), "a value is missing", 1},
    {DOC("\0"), "control character outside of a string", 0},
    {DOC("\xef\xbb\xbf{}"), "byte order mark", 0},
    {DOC("\xff\xfe[\0]\0"), "invalid UTF-8", 0},
    /* numbers */
    {DOC("-"), "digit expected in a number", 1},
    {DOC("--1"), "digit expected", 1},
    {DOC("+1"), "not the beginning of a value", 0},
    {DOC("007"), "leading zero", 0},
    {DOC("-01"), "leading zero", 1},
    {DOC("[-012]"), "leading zero", 2},
    {DOC("00"), "leading zero", 0},
    {DOC("1."), "digit expected after the decimal point", 2},
    {DOC("1.e1"), "digit expected after the decimal point", 2},
    {DOC("[.5]"), "not the beginning of a value", 1},
    {DOC("1e"), "digit expected in the exponent", 2},
    {DOC("1e+"), "digit expected in the exponent", 3},
    {DOC("[1eE2]"), "digit expected in the exponent", 3},
    {DOC("0x1F"), "trailing data", 1},
    {DOC("[0x42]"), "comma or ] expected", 2},
    {DOC("1_000"), "trailing data", 1},
    {DOC("[1 000]"), "comma or ] expected", 3},
    {DOC("[1.2.3]"), "comma or ] expected", 4},
    {DOC("NaN"), "not the beginning of a value", 0},
    {DOC("-Infinity"), "digit expected in a number", 1},
    {DOC("[\xef\xbc\x91]"), "not the beginning of a value", 1},
    /* words */
    {DOC("tru"), "true, false or null expected", 0},
    {DOC("True"), "not the beginning of a value", 0},
    {DOC("[nul]"), "true, false or null expected", 1},
    {DOC("falsee"), "trailing data", 5},
    {DOC("undefined"), "not the beginning of a value", 0},
    /* strings */
    {DOC("\""), "unterminated string", 0},
    {DOC("\"abc"), "unterminated string", 0},
    {DOC("[\"abc]"), "unterminated string", 1},
    {DOC("\"0123456789abcdef"), "unterminated string", 0},
    {DOC("\"\\"), "unterminated string", 2},
    {DOC("\"\\\""), "unterminated string", 0},
    {DOC("'a'"), "not the beginning of a value", 0},
    {DOC("\"\\x41\""), "unknown escape", 1},
    {DOC("\"\\a\""), "unknown escape", 1},
    {DOC("\"\\\0\""), "unknown escape", 1},
    {DOC("\"\\\xf0\x9f\x8c\x80\""), "unknown escape", 1},
    {DOC("\"\\u"), "four hex digits", 1},
    {DOC("\"\\u00A\""), "four hex digits", 1},
    {DOC("\"\\u00G0\""), "four hex digits", 1},
    {DOC("\"\\U0041\""), "unknown escape", 1},
    {DOC("\"\\u0000\""), "U+0000", 1},
    {DOC("\"ab\0cd\""), "U+0000", 3},
    {DOC("\"01234567\0\""), "U+0000", 9},
    {DOC("\"\t\""), "control character in a string", 1},
    {DOC("\"a\nb\""), "control character in a string", 2},
    {DOC("\"0123456789\x1f"
         "012345\""),
     "control character in a string", 11},
    {DOC("\"\\ud800\""), "lone surrogate", 1},
    {DOC("\"\\ud800\\n\""), "lone surrogate", 1},
    {DOC("\"\\udc00\""), "lone surrogate", 1},
    {DOC("\"\\ud800\\ud800\\udc00\""), "lone surrogate", 1},
    {DOC("\"\\udc00\\ud800\""), "lone surrogate", 1},
    {DOC("\"x\\ud800\\u0041\""), "lone surrogate", 2},
    {DOC("\"\\ud800\\u12\""), "lone surrogate", 1},
    {DOC("\"\\ud800"), "lone surrogate", 1},
    {DOC("\"\\ud83d\\ude0"), "lone surrogate", 1},
    /* UTF-8 */
    {DOC("\"\x80\""), "invalid UTF-8", 1},
    {DOC("\"a\xff\""), "invalid UTF-8", 2},
    {DOC("\"\xc0\xaf\""), "invalid UTF-8", 1},
    {DOC("\"\xc0\x80\""), "invalid UTF-8", 1},
    {DOC("\"\xe0\x80\xaf\""), "invalid UTF-8", 1},
    {DOC("\"\xf0\x80\x80\xaf\""), "invalid UTF-8", 1},
    {DOC("\"\xed\xa0\x80\""), "invalid UTF-8", 1},
    {DOC("\"\xed\xa0\xbd\xed\xb8\x80\""), "invalid UTF-8", 1},
    {DOC("\"\xf4\x90\x80\x80\""), "invalid UTF-8", 1},
    {DOC("\"\xf8\x88\x80\x80\x80\""), "invalid UTF-8", 1},
    {DOC("\"\xc3\""), "invalid UTF-8", 1},
    {DOC("\"\xe2\x82\""), "invalid UTF-8", 1},
    {DOC("\"\xf0\x9f\x98"), "invalid UTF-8", 1},
    {DOC("\"01234567\xe4"), "invalid UTF-8", 9},
    {DOC("{\"\xb9\":1}"), "invalid UTF-8", 2},
    {DOC("[\xe5]"), "invalid UTF-8", 1},
    /* arrays */
    {DOC("["), "a value is missing", 1},
    {DOC("]"), "a value is missing", 0},
    {DOC("[1"), "unterminated array", 2},
    {DOC("[1,"), "a value is missing", 3},
    {DOC("[1,]"), "a value is missing", 3},
    {DOC("[,1]"), "a value is missing", 1},
    {DOC("[1,,2]"), "a value is missing", 3},
    {DOC("[1 2]"), "comma or ] expected", 3},
    {DOC("[1}"), "comma or ] expected", 2},
    {DOC("[1]]"), "trailing data", 3},
    {DOC("[]\0"), "trailing data", 2},
    {DOC("[] []"), "trailing data", 3},
    {DOC("[]\xff"), "trailing data", 2},
    {DOC("[\v1]"), "control character outside", 1},
    {DOC("[1\f]"), "comma or ] expected", 2},
    {DOC("[\xc2\xa0]"), "not the beginning of a value", 1},
    {DOC("[\xe2\x81\xa0]"), "not the beginning of a value", 1},
    {DOC("[a]"), "not the beginning of a value", 1},
    {DOC("[1//x\n]"), "comma or ] expected", 2},
    {DOC("[/*x*/1]"), "not the beginning of a value", 1},
    {DOC("[\"\":1]"), "comma or ] expected", 3},
    /* objects */
    {DOC("{"), "unterminated object", 1},
    {DOC("}"), "a value is missing", 0},
    {DOC("{\"a\""), "unterminated object", 4},
    {DOC("{\"a\":"), "a value is missing", 5},
    {DOC("{\"a\":1"), "unterminated object", 6},
    {DOC("{\"a\":1,"), "unterminated object", 7},
    {DOC("{\"a\":1,}"), "member name in quotes expected", 7},
    {DOC("{,}"), "member name in quotes expected", 1},
    {DOC("{\"a\" 1}"), "colon expected", 5},
    {DOC("{\"a\"::1}"), "not the beginning of a value", 5},
    {DOC("{\"a\":}"), "a value is missing", 5},
    {DOC("{a:1}"), "member name in quotes expected", 1},
    {DOC("{'a':1}"), "member name in quotes expected", 1},
    {DOC("{1:1}"), "member name in quotes expected", 1},
    {DOC("{null:1}"), "member name in quotes expected", 1},
    {DOC("{[1]:1}"), "member name in quotes expected", 1},
    {DOC("{\"a\",1}"), "colon expected", 4},
    {DOC("{\"a\"=1}"), "colon expected", 4},
    {DOC("{\"a\":1]"), "comma or } expected", 6},
    {DOC("{\"a\":1 \"b\":2}"), "comma or } expected", 7},
    {DOC("{\"a\":1}}"), "trailing data", 7},
    {DOC("{}#"), "trailing data", 2},
    /* depth */
    {DOC(OPEN16 "["), "nesting deeper than 16", 16},
    {DOC(OPEN16 "[]" CLOSE16), "nesting deeper than 16", 16},
    {DOC(OPEN16 "{}" CLOSE16), "nesting deeper than 16", 16},
    {DOC(OPEN16), "a value is missing", 16},
};

static void
good_documents_are_accepted_with_their_number_of_values(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(good); i++) {
        struct json_token tokens[TOKENS];
        struct json json;

        if (scan(good[i].text, good[i].bytes, tokens, TOKENS, &json) != RC_OK) {
            fail_msg("refused %s: %s", good[i].text, json.error);
        }
        assert_null(json.error);
        assert_int_equal(json.count, good[i].tokens);
        assert_int_equal(tokens[0].next, json.count);
    }
}

static void
bad_documents_are_refused_with_reason_and_place(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        struct json_token tokens[TOKENS];
        struct json json;

        if (scan(bad[i].text, bad[i].bytes, tokens, TOKENS, &json) !=
            RC_INVALID) {
            fail_msg("accepted %s", bad[i].text);
        }
        if (strstr(json.error, bad[i].error) == NULL ||
            json.error_at != bad[i].at) {
            fail_msg("%s: \"%s\" at %u instead of \"%s\" at %u", bad[i].text,
                     json.error, json.error_at, bad[i].error, bad[i].at);
        }
        assert_int_equal(json.count, 0);
    }
}

static void
a_good_document_cut_anywhere_is_refused(void **state)
{
    static const char text[] = "{\"a\":[1,-2.5e3,true,null,\"x\\u00e4\xc3\xa4\\"
                               "ud83d\\ude00 long enough for words\"],\"b\":"
                               "{\"c\":false}}";

    (void)state;
    for (size_t bytes = 0; bytes <= sizeof(text) - 1; bytes++) {
        struct json_token tokens[TOKENS];
        struct json json;

        assert_int_equal(scan(text, bytes, tokens, TOKENS, &json),
                         bytes == sizeof(text) - 1 ? RC_OK : RC_INVALID);
        assert_true(json.error_at <= bytes);
    }
}

static void
a_byte_that_needs_a_look_is_found_at_every_place_of_a_word(void **state)
{
    (void)state;
    for (size_t at = 1; at < 25; at++) {
        struct json_token tokens[1];
        struct json json;
        char text[32];

        memset(text, 'a', sizeof(text));
        text[0] = '"';
        text[26] = '"';
        text[at] = 0x1f;
        assert_int_equal(scan(text, 27, tokens, 1, &json), RC_INVALID);
        assert_int_equal(json.error_at, at);
        text[at] = '\x80';
        assert_int_equal(scan(text, 27, tokens, 1, &json), RC_INVALID);
        assert_int_equal(json.error_at, at);
        text[at] = '"';
        assert_int_equal(scan(text, at + 1, tokens, 1, &json), RC_OK);
        assert_int_equal(tokens[0].bytes, at - 1);
        assert_false(tokens[0].escaped);
        text[at] = '\\';
        text[at + 1] = 'n';
        assert_int_equal(scan(text, 27, tokens, 1, &json), RC_OK);
        assert_true(tokens[0].escaped);
    }
}

static void
the_tape_holds_places_types_and_the_way_past(void **state)
{
    static const char text[] = " {\"a\":[10,{}],\"b\\n\":\"x\"} ";
    static const struct json_token expected[] = {
        {1, 23, 7, JSON_OBJECT, false}, {3, 1, 2, JSON_STRING, false},
        {6, 7, 5, JSON_ARRAY, false},   {7, 2, 4, JSON_NUMBER, false},
        {10, 2, 5, JSON_OBJECT, false}, {15, 3, 6, JSON_STRING, true},
        {21, 1, 7, JSON_STRING, false},
    };
    struct json_token tokens[TOKENS];
    struct json json;

    (void)state;
    assert_int_equal(scan(text, sizeof(text) - 1, tokens, TOKENS, &json),
                     RC_OK);
    assert_int_equal(json.count, ARRAY_COUNT(expected));
    for (unsigned i = 0; i < ARRAY_COUNT(expected); i++) {
        assert_int_equal(tokens[i].start, expected[i].start);
        assert_int_equal(tokens[i].bytes, expected[i].bytes);
        assert_int_equal(tokens[i].next, expected[i].next);
        assert_int_equal(tokens[i].type, expected[i].type);
        assert_int_equal(tokens[i].escaped, expected[i].escaped);
    }
}

static void
a_tape_that_just_fits_is_enough_and_one_less_is_full(void **state)
{
    static const char text[] = "{\"a\":[1,2],\"b\":null}"; /* 7 values */

    (void)state;
    for (uint32_t room = 0; room <= 7; room++) {
        /* Exact, so that the address sanitizer sees a write past it. */
        struct json_token *tokens = malloc((room + 1) * sizeof(*tokens));
        struct json json;

        assert_non_null(tokens);
        assert_int_equal(scan(text, sizeof(text) - 1, tokens + 1, room, &json),
                         room == 7 ? RC_OK : RC_FULL);
        free(tokens);
    }
}

static void
more_than_64_mib_is_refused_unread(void **state)
{
    struct json_token tokens[1];
    struct json json;

    (void)state;
    assert_int_equal(json_scan("1", ((size_t)64 << 20) + 1, tokens, 1, &json),
                     RC_INVALID);
    assert_string_equal(json.error, "the text is longer than 64 MiB");
}

static void
integers_are_taken_from_0_to_2_to_the_53(void **state)
{
    static const struct {
        const char *text;
        int64_t value; /* -1: refused */
    } cases[] = {
        {"0", 0},
        {"1", 1},
        {"42", 42},
        {"9007199254740991", 9007199254740991},
        {"9007199254740992", 9007199254740992},
        {"9007199254740993", -1},
        {"9999999999999999", -1},
        {"10000000000000000", -1},
        {"18446744073709551616", -1},
        {"99999999999999999999999999", -1},
        {"-0", -1},
        {"-1", -1},
        {"1.0", -1},
        {"1e2", -1},
        {"1E0", -1},
        {"0.5", -1},
        {"\"1\"", -1},
        {"true", -1},
        {"null", -1},
        {"[]", -1},
        {"{}", -1},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        struct json_token tokens[1];
        struct json json;
        int64_t value = 77;

        assert_int_equal(
            scan(cases[i].text, strlen(cases[i].text), tokens, 1, &json),
            RC_OK);
        assert_int_equal(json_uint53(&json, 0, &value),
                         cases[i].value < 0 ? RC_INVALID : RC_OK);
        assert_true(value == (cases[i].value < 0 ? 0 : cases[i].value));
    }
}

static void
strings_are_decoded_with_their_escapes(void **state)
{
    static const struct {
        const char *text;
        const char *decoded;
    } cases[] = {
        {"\"\"", ""},
        {"\"plain \xc3\xa4\"", "plain \xc3\xa4"},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t"},
        {"\"\\u0041\\u00e4\\u20ac\\uffff\"", "A\xc3\xa4\xe2\x82\xac\xef\xbf"
                                             "\xbf"},
        {"\"\\u007f\\u0080\\u07ff\\u0800\"", "\x7f\xc2\x80\xdf\xbf\xe0\xa0"
                                             "\x80"},
        {"\"\\ud800\\udc00|\\uD83D\\uDE00|\\udbff\\udfff\"",
         "\xf0\x90\x80\x80|\xf0\x9f\x98\x80|\xf4\x8f\xbf\xbf"},
        {"\"\\\\n\"", "\\n"},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        size_t length = strlen(cases[i].decoded);

        for (size_t size = 0; size <= length + 2; size++) {
            char *out = malloc(size + 1);
            struct json_token tokens[1];
            struct json json;
            size_t bytes = 99;

            assert_non_null(out);
            out[size] = 'x';
            assert_int_equal(
                scan(cases[i].text, strlen(cases[i].text), tokens, 1, &json),
                RC_OK);
            assert_int_equal(json_string(&json, 0, out, size, &bytes),
                             size > length ? RC_OK : RC_FULL);
            assert_int_equal(bytes, size > length ? length : 0);
            if (size > 0) {
                assert_string_equal(out, size > length ? cases[i].decoded : "");
            }
            assert_int_equal(out[size], 'x');
            free(out);
        }
    }
}

static void
what_is_no_string_is_not_decoded(void **state)
{
    struct json_token tokens[4];
    struct json json;
    char out[8];
    size_t bytes;

    (void)state;
    assert_int_equal(scan("[1,null]", 8, tokens, 4, &json), RC_OK);
    for (uint32_t i = 0; i < json.count; i++) {
        assert_int_equal(json_string(&json, i, out, sizeof(out), &bytes),
                         RC_INVALID);
        assert_false(json_key_is(&json, i, "1"));
    }
}

static void
names_match_in_any_ascii_case_and_through_escapes(void **state)
{
    static const struct {
        const char *text;
        bool matches; /* "object_ids" */
    } cases[] = {
        {"\"object_ids\"", true},
        {"\"OBJECT_IDS\"", true},
        {"\"Object_Ids\"", true},
        {"\"\\u006fbject_id\\u0053\"", true},
        {"\"object_id\"", false},
        {"\"object_idss\"", false},
        {"\"object-ids\"", false},
        {"\"object\\u005fids\"", true},
        {"\"object\\u007fids\"", false},
        {"\"\"", false},
        {"\" object_ids\"", false},
        {"\"object_id\\u017f\"", false}, /* long s folds to s elsewhere */
        {"\"object_id\xc5\xbf\"", false},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        struct json_token tokens[1];
        struct json json;

        assert_int_equal(
            scan(cases[i].text, strlen(cases[i].text), tokens, 1, &json),
            RC_OK);
        assert_int_equal(json_key_is(&json, 0, "object_ids"), cases[i].matches);
    }
}

static void
members_are_found_in_their_own_object_only(void **state)
{
    static const char text[] =
        "{\"x\":{\"deep\":1},\"list\":[{\"deep\":2}],\"KEY\":3,\"key\":4}";
    struct json_token tokens[32];
    struct json json;
    uint32_t inner;
    int64_t value;

    (void)state;
    assert_int_equal(scan(text, sizeof(text) - 1, tokens, 32, &json), RC_OK);
    assert_int_equal(json_member(&json, 0, "deep"), 0);
    assert_int_equal(json_member(&json, 0, "nothing"), 0);
    inner = json_member(&json, 0, "X");
    assert_int_not_equal(inner, 0);
    assert_int_equal(
        json_uint53(&json, json_member(&json, inner, "deep"), &value), RC_OK);
    assert_int_equal(value, 1);
    assert_int_equal(json_uint53(&json, json_member(&json, 0, "key"), &value),
                     RC_OK);
    assert_int_equal(value, 3);
    assert_int_equal(json_member(&json, json_member(&json, 0, "list"), "deep"),
                     0);
}

static void
utf_8_is_checked_to_the_last_byte(void **state)
{
    (void)state;
    assert_true(json_utf8_valid("", 0));
    assert_true(json_utf8_valid("abc\0", 4));
    assert_true(json_utf8_valid("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9));
    assert_false(json_utf8_valid("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 8));
    assert_false(json_utf8_valid("abc\xff", 4));
    assert_false(json_utf8_valid("\xed\xa0\x80", 3));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            good_documents_are_accepted_with_their_number_of_values),
        cmocka_unit_test(bad_documents_are_refused_with_reason_and_place),
        cmocka_unit_test(a_good_document_cut_anywhere_is_refused),
        cmocka_unit_test(
            a_byte_that_needs_a_look_is_found_at_every_place_of_a_word),
        cmocka_unit_test(the_tape_holds_places_types_and_the_way_past),
        cmocka_unit_test(a_tape_that_just_fits_is_enough_and_one_less_is_full),
        cmocka_unit_test(more_than_64_mib_is_refused_unread),
        cmocka_unit_test(integers_are_taken_from_0_to_2_to_the_53),
        cmocka_unit_test(strings_are_decoded_with_their_escapes),
        cmocka_unit_test(what_is_no_string_is_not_decoded),
        cmocka_unit_test(names_match_in_any_ascii_case_and_through_escapes),
        cmocka_unit_test(members_are_found_in_their_own_object_only),
        cmocka_unit_test(utf_8_is_checked_to_the_last_byte),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
