/* shared/signature.c. The known answers are those of Python's hmac module. */
#include "shared/signature.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/text.h"

#define NOW 1732190000
#define BODY "{\"a\":\"CONFIRMED\"}"
#define ONE "secret-one"
#define TWO "secret-two"
/* Of "1732190000." BODY under each, and of "1732190000." under the first. */
#define V1_ONE                                                                 \
    "a1bdb6e6dba6191f31608c7b98764e3eef5b46a01bc986833a13666c7beb23c2"
#define V1_ONE_UPPER                                                           \
    "A1BDB6E6DBA6191F31608C7B98764E3EEF5B46A01BC986833A13666C7BEB23C2"
#define V1_TWO                                                                 \
    "de1146ebd0d62bc6e1298ebc4c32895a4c13c832bddadaea964e035947e07061"
#define V1_EMPTY                                                               \
    "a9f1704a2d74e2484bc3e731bb93f604082b23f809d20cc89afc18e6024bb0f7"
#define V1_NONE                                                                \
    "0000000000000000000000000000000000000000000000000000000000000000"
#define T "t=1732190000"

static enum signature_verdict
check(const char *value, const char *secrets)
{
    return signature_check(value, secrets, BODY, strlen(BODY), NOW);
}

static void
known_answers_are_made_and_hold(void **state)
{
    char out[SIGNATURE_BYTES];

    (void)state;
    assert_int_equal(signature_make(ONE, BODY, strlen(BODY), NOW, out), RC_OK);
    assert_string_equal(out, T ",v1=" V1_ONE);
    assert_int_equal(check(out, ONE), SIGNATURE_GOOD);
    assert_int_equal(
        signature_make(" " TWO " , " ONE, BODY, strlen(BODY), NOW, out), RC_OK);
    assert_string_equal(out, T ",v1=" V1_TWO);
    assert_int_equal(signature_make(ONE, "", 0, NOW, out), RC_OK);
    assert_string_equal(out, T ",v1=" V1_EMPTY);
    assert_int_equal(signature_check(out, ONE, "", 0, NOW), SIGNATURE_GOOD);
    assert_int_equal(signature_check(out, ONE, NULL, 0, NOW), SIGNATURE_GOOD);
}

static void
making_one_needs_a_secret_and_fits_at_any_time(void **state)
{
    char out[SIGNATURE_BYTES];

    (void)state;
    assert_int_equal(signature_make("", BODY, 1, NOW, out), RC_IO);
    assert_string_equal(out, "");
    assert_int_equal(signature_make(" , ", BODY, 1, NOW, out), RC_IO);
    assert_int_equal(signature_make(ONE, BODY, 1, INT64_MIN, out), RC_OK);
    assert_true(strlen(out) < sizeof(out));
}

struct row {
    const char *value;
    const char *secrets;
    enum signature_verdict verdict;
};

static const struct row rows[] = {
    {T ",v1=" V1_ONE, ONE, SIGNATURE_GOOD},
    {T ",v1=" V1_ONE_UPPER, ONE, SIGNATURE_GOOD},
    {T ",v1=" V1_ONE, " " ONE " ", SIGNATURE_GOOD},
    /* two secrets, several v1 */
    {T ",v1=" V1_ONE, ONE "," TWO, SIGNATURE_GOOD},
    {T ",v1=" V1_TWO, ONE "," TWO, SIGNATURE_GOOD},
    {T ",v1=" V1_TWO, ONE " , " TWO, SIGNATURE_GOOD},
    {T ",v1=" V1_ONE ",v1=" V1_TWO, ONE, SIGNATURE_GOOD},
    {T ",v1=" V1_TWO ",v1=" V1_ONE, ONE, SIGNATURE_GOOD},
    {T ",v1=" V1_NONE ",v1=" V1_NONE ",v1=" V1_TWO, TWO, SIGNATURE_GOOD},
    {T ",v1=" V1_NONE ",v1=" V1_TWO, ONE, SIGNATURE_WRONG},
    {T ",v1=" V1_NONE, ONE "," TWO, SIGNATURE_WRONG},
    {T ",v1=" V1_EMPTY, ONE, SIGNATURE_WRONG},
    {T ",v1=" V1_ONE, TWO, SIGNATURE_WRONG},
    {T ",v1=" V1_ONE, "secret-on", SIGNATURE_WRONG},
    {T ",v1=" V1_ONE, ONE "x", SIGNATURE_WRONG},
    {T ",v1=" V1_ONE, "", SIGNATURE_WRONG},
    /* order, blanks, members of other names */
    {"v1=" V1_ONE "," T, ONE, SIGNATURE_GOOD},
    {"v1=" V1_TWO "," T ",v1=" V1_ONE, ONE, SIGNATURE_GOOD},
    {" \t" T " , v1=" V1_ONE "\t ", ONE, SIGNATURE_GOOD},
    {T ",v0=abc,v1=" V1_ONE ",v2=,x=y=z", ONE, SIGNATURE_GOOD},
    {T ",v0=" V1_ONE ",v1=" V1_NONE, ONE, SIGNATURE_WRONG},
    {T ",v10=" V1_ONE ",v1=" V1_NONE, ONE, SIGNATURE_WRONG},
    /* none */
    {NULL, ONE, SIGNATURE_MISSING},
    {"", ONE, SIGNATURE_MISSING},
    {" \t ", ONE, SIGNATURE_MISSING},
    {",", ONE, SIGNATURE_MISSING},
    /* no such list */
    {T, ONE, SIGNATURE_MALFORMED},
    {"v1=" V1_ONE, ONE, SIGNATURE_MALFORMED},
    {"t=,v1=" V1_ONE, ONE, SIGNATURE_MALFORMED},
    {"t,v1=" V1_ONE, ONE, SIGNATURE_MALFORMED},
    {"t=-1732190000,v1=" V1_ONE, ONE, SIGNATURE_MALFORMED},
    {"t=+1732190000,v1=" V1_ONE, ONE, SIGNATURE_MALFORMED},
    {"t=1732190000.0,v1=" V1_ONE, ONE, SIGNATURE_MALFORMED},
    {"t=0x10,v1=" V1_ONE, ONE, SIGNATURE_MALFORMED},
    {"t= 1732190000,v1=" V1_ONE, ONE, SIGNATURE_MALFORMED},
    {"t=1732190000000000000,v1=" V1_ONE, ONE, SIGNATURE_MALFORMED},
    {"T=1732190000,v1=" V1_ONE, ONE, SIGNATURE_MALFORMED},
    {T "," T ",v1=" V1_ONE, ONE, SIGNATURE_MALFORMED},
    {T ",v1=", ONE, SIGNATURE_MALFORMED},
    {T ",v1", ONE, SIGNATURE_MALFORMED},
    {T ",v1=" V1_ONE "0", ONE, SIGNATURE_MALFORMED},
    {T ",v1=" V1_ONE "00", ONE, SIGNATURE_MALFORMED},
    {T ",v1=abcd", ONE, SIGNATURE_MALFORMED},
    {T ",v1=" V1_ONE ",v1=abcd", ONE, SIGNATURE_MALFORMED},
    {T ",v1=g1bdb6e6dba6191f31608c7b98764e3eef5b46a01bc986833a13666c7beb23c2",
     ONE, SIGNATURE_MALFORMED},
    {T ",v1=a bdb6e6dba6191f31608c7b98764e3eef5b46a01bc986833a13666c7beb23c2",
     ONE, SIGNATURE_MALFORMED},
    {T ",v1=" V1_ONE ",", ONE, SIGNATURE_MALFORMED},
    {"," T ",v1=" V1_ONE, ONE, SIGNATURE_MALFORMED},
    {T ",,v1=" V1_ONE, ONE, SIGNATURE_MALFORMED},
    {T ";v1=" V1_ONE, ONE, SIGNATURE_MALFORMED},
    {T ",v1=" V1_ONE ",word", ONE, SIGNATURE_MALFORMED},
    {V1_ONE, ONE, SIGNATURE_MALFORMED},
    {"sha256=" V1_ONE, ONE, SIGNATURE_MALFORMED},
    {"\xff\x01=\x02", ONE, SIGNATURE_MALFORMED},
    /* the time */
    {"t=0,v1=" V1_ONE, ONE, SIGNATURE_EXPIRED},
    {"t=999999999999999999,v1=" V1_ONE, ONE, SIGNATURE_EXPIRED},
    {"t=1732189699,v1=" V1_ONE, ONE, SIGNATURE_EXPIRED},
    {"t=1732190301,v1=" V1_ONE, ONE, SIGNATURE_EXPIRED},
    {"t=1732189700,v1=" V1_ONE, ONE, SIGNATURE_WRONG}, /* not signed by it */
    {"t=1732190300,v1=" V1_ONE, ONE, SIGNATURE_WRONG},
    {"t=01732190000,v1=" V1_ONE, ONE, SIGNATURE_WRONG}, /* nor was that */
};

static void
each_value_has_its_verdict(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(rows); k++) {
        enum signature_verdict got = check(rows[k].value, rows[k].secrets);

        if (got != rows[k].verdict) {
            fail_msg("row %zu: %s: %d", k, rows[k].value, (int)got);
        }
    }
}

static void
signatures_hold_for_five_minutes_both_ways(void **state)
{
    static const struct {
        int64_t later_s;
        enum signature_verdict verdict;
    } cases[] = {
        {0, SIGNATURE_GOOD},       {300, SIGNATURE_GOOD},
        {-300, SIGNATURE_GOOD},    {301, SIGNATURE_EXPIRED},
        {-301, SIGNATURE_EXPIRED}, {86400, SIGNATURE_EXPIRED},
    };
    char value[SIGNATURE_BYTES];

    (void)state;
    assert_int_equal(signature_make(ONE, BODY, strlen(BODY), NOW, value),
                     RC_OK);
    for (size_t k = 0; k < ARRAY_COUNT(cases); k++) {
        assert_int_equal(signature_check(value, ONE, BODY, strlen(BODY),
                                         NOW + cases[k].later_s),
                         cases[k].verdict);
    }
}

static void
every_byte_of_the_body_counts(void **state)
{
    char value[SIGNATURE_BYTES];
    char body[] = "a\0b\n";

    (void)state;
    assert_int_equal(signature_make(ONE, body, 4, NOW, value), RC_OK);
    assert_int_equal(signature_check(value, ONE, body, 4, NOW), SIGNATURE_GOOD);
    assert_int_equal(signature_check(value, ONE, body, 3, NOW),
                     SIGNATURE_WRONG);
    for (size_t k = 0; k < 4; k++) {
        body[k] ^= 1;
        assert_int_equal(signature_check(value, ONE, body, 4, NOW),
                         SIGNATURE_WRONG);
        body[k] ^= 1;
    }
}

/* As many as a request's headers have room for, and one of them holds. */
static void
very_long_values_are_read_to_their_end(void **state)
{
    struct text t = {0};

    (void)state;
    text_puts(&t, T);
    while (t.bytes < 65000) {
        text_puts(&t, ",v1=" V1_NONE);
    }
    assert_int_equal(check(text_cstr(&t), ONE), SIGNATURE_WRONG);
    text_puts(&t, ",v1=" V1_ONE);
    assert_int_equal(check(text_cstr(&t), ONE), SIGNATURE_GOOD);
    text_reset(&t);
    while (t.bytes < 65000) {
        text_puts(&t, "9");
    }
    assert_int_equal(check(text_cstr(&t), ONE), SIGNATURE_MALFORMED);
    text_puts(&t, "," T ",v1=" V1_ONE);
    assert_int_equal(check(text_cstr(&t), ONE), SIGNATURE_MALFORMED);
    text_free(&t);
}

/* No value of a few characters is good, or reads past its end. */
static void
garbage_is_never_good(void **state)
{
    static const char alphabet[] = "t=v1,0 ";
    uint32_t random = 1;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        size_t bytes = (size_t)round % 24;
        char *value = malloc(bytes + 1);

        assert_non_null(value);
        for (size_t k = 0; k < bytes; k++) {
            random = random * 1664525 + 1013904223;
            value[k] = alphabet[(random >> 16) % (sizeof(alphabet) - 1)];
        }
        value[bytes] = '\0';
        assert_int_not_equal(check(value, ONE), SIGNATURE_GOOD);
        free(value);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers_are_made_and_hold),
        cmocka_unit_test(making_one_needs_a_secret_and_fits_at_any_time),
        cmocka_unit_test(each_value_has_its_verdict),
        cmocka_unit_test(signatures_hold_for_five_minutes_both_ways),
        cmocka_unit_test(every_byte_of_the_body_counts),
        cmocka_unit_test(very_long_values_are_read_to_their_end),
        cmocka_unit_test(garbage_is_never_good),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
