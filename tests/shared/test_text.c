/* shared/text.c */
#include "shared/text.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void
an_empty_text_is_an_empty_string(void **state)
{
    struct text t = {0};

    (void)state;
    assert_string_equal(text_cstr(&t), "");
    assert_false(text_failed(&t));
    text_reset(&t);
    text_free(&t);
    text_puts(&t, "");
    assert_string_equal(text_cstr(&t), "");
    text_free(&t);
    assert_null(t.data);
}

static void
parts_are_appended_in_order(void **state)
{
    struct text t = {0};

    (void)state;
    text_puts(&t, "a");
    text_putc(&t, 'b');
    text_append(&t, "cdef", 2);
    text_printf(&t, "%d-%s", 7, "x");
    text_int(&t, -12);
    assert_string_equal(text_cstr(&t), "abcd7-x-12");
    assert_int_equal(t.bytes, 10);
    text_free(&t);
}

static void
a_long_printf_grows_the_text(void **state)
{
    struct text t = {0};

    (void)state;
    text_puts(&t, "start");
    text_printf(&t, "%5000d|", 1);
    text_printf(&t, "%s", "end");
    assert_int_equal(t.bytes, 5 + 5001 + 3);
    assert_string_equal(text_cstr(&t) + 5 + 4999, "1|end");
    assert_int_equal(strlen(text_cstr(&t)), t.bytes);
    text_free(&t);
}

static void
the_bound_itself_fits_and_one_past_it_fails_for_good(void **state)
{
    (void)state;
    for (int by_printf = 0; by_printf < 2; by_printf++) {
        struct text t = {.max_bytes = 10};

        text_puts(&t, "12345");
        if (by_printf) {
            text_printf(&t, "%s", "67890");
        } else {
            text_puts(&t, "67890");
        }
        assert_false(text_failed(&t));
        assert_string_equal(text_cstr(&t), "1234567890");
        if (by_printf) {
            text_printf(&t, "%c", 'x');
        } else {
            text_putc(&t, 'x');
        }
        assert_true(text_failed(&t));
        assert_string_equal(text_cstr(&t), "");
        text_puts(&t, "");
        text_printf(&t, "%d", 1);
        assert_true(text_failed(&t));
        text_reset(&t);
        assert_false(text_failed(&t));
        text_puts(&t, "ok");
        assert_string_equal(text_cstr(&t), "ok");
        text_free(&t);
    }
}

static void
reset_keeps_the_memory_and_free_leaves_an_empty_text(void **state)
{
    struct text t = {0};
    const char *data;

    (void)state;
    text_puts(&t, "abc");
    data = t.data;
    text_reset(&t);
    assert_ptr_equal(t.data, data);
    assert_string_equal(text_cstr(&t), "");
    text_puts(&t, "d");
    assert_string_equal(text_cstr(&t), "d");
    text_free(&t);
    assert_int_equal(t.capacity, 0);
    text_free(&t);
}

static void
integers_are_written_to_both_ends_of_their_range(void **state)
{
    static const struct {
        int64_t value;
        const char *text;
    } cases[] = {
        {0, "0"},
        {9, "9"},
        {10, "10"},
        {-1, "-1"},
        {INT64_C(9007199254740992), "9007199254740992"},
        {INT64_MAX, "9223372036854775807"},
        {INT64_MIN, "-9223372036854775808"},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        struct text t = {0};

        text_int(&t, cases[i].value);
        assert_string_equal(text_cstr(&t), cases[i].text);
        text_free(&t);
    }
}

static void
json_strings_are_escaped_and_made_utf_8(void **state)
{
    static const struct {
        const char *data;
        size_t bytes;
        const char *text;
    } cases[] = {
        {"", 0, "\"\""},
        {"abc", 3, "\"abc\""},
        {"a\"b\\c/", 6, "\"a\\\"b\\\\c/\""},
        {"\b\f\n\r\t", 5, "\"\\b\\f\\n\\r\\t\""},
        {"\0\x01\x1f\x7f", 4, "\"\\u0000\\u0001\\u001f\x7f\""},
        {"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9,
         "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\""},
        {"a\xff"
         "b",
         3,
         "\"a\xef\xbf\xbd"
         "b\""},
        /* Each byte of a surrogate or a broken sequence by itself. */
        {"\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
        {"x\xe2\x82", 3, "\"x\xef\xbf\xbd\xef\xbf\xbd\""},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        struct text t = {0};

        text_json_string(&t, cases[i].data, cases[i].bytes);
        assert_string_equal(text_cstr(&t), cases[i].text);
        text_free(&t);
    }
}

static void
utf_8_lengths_stop_at_the_bounds_of_unicode(void **state)
{
    static const struct {
        const char *data;
        size_t length;
    } cases[] = {
        {"a", 1},
        {"\x7f", 1},
        {"\x80", 0},
        {"\xbf", 0},
        {"\xc0\xaf", 0},
        {"\xc1\xbf", 0},
        {"\xc2\x80", 2},
        {"\xdf\xbf", 2},
        {"\xdf\xc0", 0},
        {"\xe0\x9f\xbf", 0},
        {"\xe0\xa0\x80", 3},
        {"\xed\x9f\xbf", 3},
        {"\xed\xa0\x80", 0},
        {"\xed\xbf\xbf", 0},
        {"\xee\x80\x80", 3},
        {"\xef\xbf\xbf", 3},
        {"\xf0\x8f\xbf\xbf", 0},
        {"\xf0\x90\x80\x80", 4},
        {"\xf4\x8f\xbf\xbf", 4},
        {"\xf4\x90\x80\x80", 0},
        {"\xf5\x80\x80\x80", 0},
        {"\xff", 0},
        {"\xe2\x82", 0},
        {"\xf0\x9f\x98", 0},
        {"\xf0\x9f\x98x", 0},
    };

    (void)state;
    assert_int_equal(text_utf8_length("a", 0), 0);
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        assert_int_equal(text_utf8_length(cases[i].data, strlen(cases[i].data)),
                         cases[i].length);
    }
}

static void
hex_digits_have_a_value_in_either_case(void **state)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    unsigned known = 0;

    (void)state;
    for (int i = 0; i < 32; i++) {
        assert_int_equal(text_hex_value(digits[i]), i % 16);
    }
    for (int c = -128; c < 128; c++) {
        known += text_hex_value((char)c) >= 0;
    }
    assert_int_equal(known, 22);
}

static void
times_are_members_and_0_is_null(void **state)
{
    struct text t = {0};

    (void)state;
    text_json_time(&t, "sent_at", 1795276193678);
    text_json_time(&t, "updated_at", 0);
    assert_string_equal(text_cstr(&t),
                        ",\"sent_at\":\"2026-11-21T15:49:53.678Z\""
                        ",\"updated_at\":null");
    text_free(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_text_is_an_empty_string),
        cmocka_unit_test(parts_are_appended_in_order),
        cmocka_unit_test(a_long_printf_grows_the_text),
        cmocka_unit_test(the_bound_itself_fits_and_one_past_it_fails_for_good),
        cmocka_unit_test(reset_keeps_the_memory_and_free_leaves_an_empty_text),
        cmocka_unit_test(integers_are_written_to_both_ends_of_their_range),
        cmocka_unit_test(json_strings_are_escaped_and_made_utf_8),
        cmocka_unit_test(times_are_members_and_0_is_null),
        cmocka_unit_test(utf_8_lengths_stop_at_the_bounds_of_unicode),
        cmocka_unit_test(hex_digits_have_a_value_in_either_case),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
