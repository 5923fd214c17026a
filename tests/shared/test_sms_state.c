/* shared/sms_state.c */
#include "shared/sms_state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const enum sms_state states[] = {SMS_ACCEPTED, SMS_CONFIRMED, SMS_FAILED,
                                        SMS_DELIVERED};

static void
every_pair_of_states_is_as_documented(void **state)
{
    static const char table[SMS_STATES][SMS_STATES + 1] = {
        /*               A C F D */
        [SMS_ACCEPTED] = "-xxx",
        [SMS_CONFIRMED] = "--xx",
        [SMS_FAILED] = "----",
        [SMS_DELIVERED] = "----",
    };

    (void)state;
    assert_int_equal(ARRAY_COUNT(states), SMS_STATES);
    for (size_t from = 0; from < SMS_STATES; from++) {
        for (size_t to = 0; to < SMS_STATES; to++) {
            assert_int_equal(sms_state_may_follow(states[from], states[to]),
                             table[from][to] == 'x');
        }
    }
}

static void
failed_and_delivered_are_final(void **state)
{
    (void)state;
    assert_false(sms_state_is_final(SMS_ACCEPTED));
    assert_false(sms_state_is_final(SMS_CONFIRMED));
    assert_true(sms_state_is_final(SMS_FAILED));
    assert_true(sms_state_is_final(SMS_DELIVERED));
}

static void
the_numbers_are_those_in_the_journal(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(states); k++) {
        assert_int_equal(states[k], k);
    }
}

static void
names_lead_back_to_their_state(void **state)
{
    static const char *const names[] = {"ACCEPTED", "CONFIRMED", "FAILED",
                                        "DELIVERED"};
    enum sms_state got;

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(states); k++) {
        assert_string_equal(sms_state_name(states[k]), names[k]);
        assert_int_equal(sms_state_parse(names[k], strlen(names[k]), &got),
                         RC_OK);
        assert_int_equal(got, states[k]);
    }
    assert_string_equal(sms_state_name(SMS_STATES), "UNKNOWN");
    assert_string_equal(sms_state_name((enum sms_state)200), "UNKNOWN");
}

static void
other_names_are_refused(void **state)
{
    static const char *const names[] = {"",          "FAIL",     "FAILED ",
                                        "delivered", "UNKNOWN",  "READ",
                                        "Confirmed", "ACCEPTEDX"};
    enum sms_state got;

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(names); k++) {
        got = SMS_DELIVERED;
        assert_int_equal(sms_state_parse(names[k], strlen(names[k]), &got),
                         RC_INVALID);
        assert_int_equal(got, SMS_ACCEPTED);
    }
    assert_int_equal(sms_state_parse("FAILED\0", 7, &got), RC_INVALID);
}

static void
what_is_no_state_follows_nothing(void **state)
{
    (void)state;
    assert_false(sms_state_may_follow(SMS_STATES, SMS_FAILED));
    assert_false(sms_state_may_follow(SMS_ACCEPTED, SMS_STATES));
    assert_true(sms_state_is_final(SMS_STATES));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_pair_of_states_is_as_documented),
        cmocka_unit_test(failed_and_delivered_are_final),
        cmocka_unit_test(the_numbers_are_those_in_the_journal),
        cmocka_unit_test(names_lead_back_to_their_state),
        cmocka_unit_test(other_names_are_refused),
        cmocka_unit_test(what_is_no_state_follows_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
