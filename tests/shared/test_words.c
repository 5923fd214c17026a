#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "shared/words.h"

static struct words
over(const char *text)
{
    return (struct words){text, text + strlen(text)};
}

static void
words_are_taken_up_to_the_blank(void **state)
{
    struct words w = over("ab cde");
    char out[4];

    (void)state;
    assert_true(words_take(&w, out, sizeof(out)));
    assert_string_equal(out, "ab");
    assert_true(words_take(&w, out, sizeof(out)));
    assert_string_equal(out, "cde");
    assert_false(words_take(&w, out, sizeof(out)));
    assert_string_equal(out, "");
}

static void
a_word_that_is_none_is_refused(void **state)
{
    static const char nul[] = "a\0b";
    struct words two_blanks = over(" a");
    struct words too_long = over("abcd");
    struct words holds_nul = {nul, nul + 3};
    struct words nothing = {NULL, NULL};
    char out[4];

    (void)state;
    assert_false(words_take(&two_blanks, out, sizeof(out)));
    assert_false(words_take(&too_long, out, sizeof(out)));
    assert_false(words_take(&holds_nul, out, sizeof(out)));
    assert_false(words_take(&nothing, out, sizeof(out)));
}

static void
numbers_are_as_text_int_writes_them(void **state)
{
    static const char *const bad[] = {
        "", "-1", "+1", "01", "00", "1x", " 1", "12345678901234567", "1\n"};
    struct words w = over("0 7 9999999999999999");
    int64_t n;

    (void)state;
    assert_true(words_number(&w, &n));
    assert_int_equal(n, 0);
    assert_true(words_number(&w, &n));
    assert_int_equal(n, 7);
    assert_true(words_number(&w, &n));
    assert_int_equal(n, INT64_C(9999999999999999));
    for (size_t k = 0; k < sizeof(bad) / sizeof(bad[0]); k++) {
        w = over(bad[k]);
        assert_false(words_number(&w, &n));
        assert_int_equal(n, 0);
    }
}

static void
a_line_ends_with_its_newline(void **state)
{
    struct words w = over("one\n\nrest");
    struct words line;

    (void)state;
    assert_true(words_line(&w, &line));
    assert_int_equal(line.end - line.at, 3);
    assert_true(words_line(&w, &line));
    assert_int_equal(line.end - line.at, 0);
    assert_false(words_line(&w, &line));
    assert_int_equal(w.end - w.at, 4);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_taken_up_to_the_blank),
        cmocka_unit_test(a_word_that_is_none_is_refused),
        cmocka_unit_test(numbers_are_as_text_int_writes_them),
        cmocka_unit_test(a_line_ends_with_its_newline),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
