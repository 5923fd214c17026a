/* dispatcher/pg_arrays.c; how a server reads them is shown by the stores'
 * tests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "dispatcher/pg_arrays.h"

#define COLUMNS 3

static int
setup(void **state)
{
    struct pg_arrays *a;

    assert_int_equal(pg_arrays_new(&a, COLUMNS), RC_OK);
    *state = a;
    return 0;
}

static int
teardown(void **state)
{
    struct pg_arrays *a = *state;

    pg_arrays_free(&a);
    assert_null(a);
    pg_arrays_free(&a); /* of NULL */
    return 0;
}

static void
a_row_is_an_element_of_each_column(void **state)
{
    struct pg_arrays *a = *state;
    const char *params[COLUMNS];
    struct uuid id = {{0x01, 0x89}};

    pg_arrays_begin(a);
    for (int64_t row = -1; row <= 1; row++) {
        pg_arrays_int(a, 0, row);
        pg_arrays_uuid(a, 1, &id);
        pg_arrays_text(a, 2, "xy", 1);
    }
    assert_int_equal(pg_arrays_end(a, params), RC_OK);
    assert_string_equal(params[0], "{-1,0,1}");
    assert_string_equal(params[1], "{01890000-0000-0000-0000-000000000000,"
                                   "01890000-0000-0000-0000-000000000000,"
                                   "01890000-0000-0000-0000-000000000000}");
    assert_string_equal(params[2], "{\"x\",\"x\",\"x\"}");
}

static void
no_row_is_an_empty_array(void **state)
{
    struct pg_arrays *a = *state;
    const char *params[COLUMNS];

    pg_arrays_begin(a);
    assert_int_equal(pg_arrays_end(a, params), RC_OK);
    assert_string_equal(params[0], "{}");
    assert_string_equal(params[2], "{}");
}

static void
a_text_is_never_taken_for_null_or_syntax(void **state)
{
    struct pg_arrays *a = *state;
    const char *params[COLUMNS];
    static const char hostile[] = "\"},{\\";

    pg_arrays_begin(a);
    pg_arrays_text(a, 0, "NULL", 4);
    pg_arrays_null(a, 0);
    pg_arrays_text(a, 0, "", 0);
    pg_arrays_text(a, 0, hostile, strlen(hostile));
    assert_int_equal(pg_arrays_end(a, params), RC_OK);
    assert_string_equal(params[0], "{\"NULL\",NULL,\"\",\"\\\"},{\\\\\"}");
}

static void
begin_forgets_what_was_there(void **state)
{
    struct pg_arrays *a = *state;
    const char *params[COLUMNS];

    pg_arrays_begin(a);
    pg_arrays_int(a, 0, 1);
    assert_int_equal(pg_arrays_end(a, params), RC_OK);
    pg_arrays_begin(a);
    pg_arrays_int(a, 0, 2);
    assert_int_equal(pg_arrays_end(a, params), RC_OK);
    assert_string_equal(params[0], "{2}");
}

static void
what_does_not_fit_is_told_at_the_end_and_forgotten_by_begin(void **state)
{
    struct pg_arrays *a = *state;
    const char *params[COLUMNS];
    const size_t mib = (size_t)1 << 20;
    char *long_text = calloc(1, mib);

    assert_non_null(long_text);
    memset(long_text, 'x', mib);
    pg_arrays_begin(a);
    for (int i = 0; i < 65; i++) { /* a text's bound is 64 MiB */
        pg_arrays_text(a, 1, long_text, mib);
    }
    assert_int_equal(pg_arrays_end(a, params), RC_NOMEM);
    pg_arrays_begin(a);
    pg_arrays_text(a, 1, "x", 1);
    assert_int_equal(pg_arrays_end(a, params), RC_OK);
    free(long_text);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_row_is_an_element_of_each_column),
        TEST(no_row_is_an_empty_array),
        TEST(a_text_is_never_taken_for_null_or_syntax),
        TEST(begin_forgets_what_was_there),
        TEST(what_does_not_fit_is_told_at_the_end_and_forgotten_by_begin),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
