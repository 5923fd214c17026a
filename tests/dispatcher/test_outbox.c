/* Every state and event of one mail, and the pause and rate of all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dispatcher/outbox.h"
#include "shared/rc.h"

#define NOW 1795264129000 /* unix ms */
#define HOUR_MS 3600000

static const struct outbox_options usual = {
    .retry_base_ms = 1000, .retry_for_s = 100, .pause_ms = 60000};

static struct outbox
fresh(const struct outbox_options *options)
{
    struct outbox o;

    outbox_init(&o, options, 0);
    o.backoff.random = 42;
    return o;
}

static void
every_state_and_event_has_its_next_state(void **state)
{
    static const struct {
        enum outbox_event event;
        enum outbox_state next;
        int64_t attempts;
        int64_t blocked;
    } of_queued[] = {
        {OUTBOX_TAKEN, OUTBOX_SENT, 1, 0},
        {OUTBOX_PUT_OFF, OUTBOX_QUEUED, 1, 0},
        {OUTBOX_RECIPIENT_REFUSED, OUTBOX_REFUSED, 1, 0},
        {OUTBOX_WE_ARE_REFUSED, OUTBOX_QUEUED, 0, 1},
        {OUTBOX_NOT_DUE, OUTBOX_SKIPPED, 0, 0},
    };
    struct outbox o = fresh(&usual);

    (void)state;
    assert_int_equal(ARRAY_COUNT(of_queued), OUTBOX_EVENT_COUNT);
    for (size_t k = 0; k < ARRAY_COUNT(of_queued); k++) {
        struct outbox_mail mail = {.state = OUTBOX_QUEUED};
        struct outbox_mail next =
            outbox_next(&o, mail, of_queued[k].event, NOW);

        assert_int_equal(next.state, of_queued[k].next);
        assert_int_equal(next.attempts, of_queued[k].attempts);
        assert_int_equal(next.blocked, of_queued[k].blocked);
        for (enum outbox_state s = OUTBOX_SENT; s < OUTBOX_STATE_COUNT; s++) {
            mail = (struct outbox_mail){.state = s, .attempts = 3};
            next = outbox_next(&o, mail, of_queued[k].event, NOW);
            assert_memory_equal(&next, &mail, sizeof(mail));
        }
    }
}

static void
a_mail_is_put_off_with_jitter_up_to_an_hour(void **state)
{
    struct outbox_options o_options = usual;
    struct outbox o;
    int64_t most_ms = 0;

    (void)state;
    o_options.retry_for_s = 1000000;
    o = fresh(&o_options);
    for (int k = 0; k < 2000; k++) {
        struct outbox_mail mail = {.attempts = k % 20};
        int64_t bound_ms = k % 20 < 12 ? 1000LL << (k % 20) : HOUR_MS;
        struct outbox_mail next = outbox_next(&o, mail, OUTBOX_PUT_OFF, NOW);
        int64_t wait_ms = next.next_unix_ms - NOW;

        assert_in_range(wait_ms, 0, bound_ms < HOUR_MS ? bound_ms : HOUR_MS);
        most_ms = wait_ms > most_ms ? wait_ms : most_ms;
    }
    assert_true(most_ms > HOUR_MS * 9 / 10);
}

static void
a_mail_is_given_up_when_its_time_is_over(void **state)
{
    struct outbox o = fresh(&usual);
    struct outbox_mail mail = {0};

    (void)state;
    mail = outbox_next(&o, mail, OUTBOX_PUT_OFF, NOW);
    assert_int_equal(mail.first_unix_ms, NOW);
    mail = outbox_next(&o, mail, OUTBOX_PUT_OFF, NOW + 99999);
    assert_int_equal(mail.state, OUTBOX_QUEUED);
    assert_int_equal(mail.first_unix_ms, NOW);
    mail = outbox_next(&o, mail, OUTBOX_PUT_OFF, NOW + 99999);
    mail = outbox_next(&o, mail, OUTBOX_PUT_OFF, NOW + 99999);
    assert_int_equal(mail.state, OUTBOX_QUEUED);
    mail = outbox_next(&o, mail, OUTBOX_PUT_OFF, NOW + 100000);
    assert_int_equal(mail.state, OUTBOX_GIVEN_UP);
    assert_int_equal(mail.attempts, 5);
}

/* The clock jumped, or nobody was there to try. */
static void
a_mail_is_not_given_up_before_the_fifth_attempt(void **state)
{
    struct outbox o = fresh(&usual);
    struct outbox_mail mail = {0};

    (void)state;
    mail = outbox_next(&o, mail, OUTBOX_PUT_OFF, NOW);
    for (int k = 2; k < 5; k++) {
        mail = outbox_next(&o, mail, OUTBOX_PUT_OFF, NOW + 1000LL * HOUR_MS);
        assert_int_equal(mail.state, OUTBOX_QUEUED);
    }
    mail = outbox_next(&o, mail, OUTBOX_PUT_OFF, NOW + 1000LL * HOUR_MS);
    assert_int_equal(mail.state, OUTBOX_GIVEN_UP);
}

static void
time_in_which_we_are_refused_does_not_count(void **state)
{
    struct outbox o = fresh(&usual);
    struct outbox_mail mail = {0};

    (void)state;
    for (int k = 0; k < 50; k++) {
        mail = outbox_next(&o, mail, OUTBOX_WE_ARE_REFUSED,
                           NOW + (int64_t)k * HOUR_MS);
        assert_int_equal(mail.state, OUTBOX_QUEUED);
    }
    assert_int_equal(mail.attempts, 0);
    mail = outbox_next(&o, mail, OUTBOX_PUT_OFF, NOW + 51LL * HOUR_MS);
    assert_int_equal(mail.state, OUTBOX_QUEUED);
}

static void
a_mail_that_met_a_refusal_comes_after_others(void **state)
{
    struct outbox o = fresh(&usual);
    struct outbox_mail mail = {0};
    const int64_t waits_ms[] = {120000,  240000,  480000, 960000,
                                1920000, HOUR_MS, HOUR_MS};

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(waits_ms); k++) {
        mail = outbox_next(&o, mail, OUTBOX_WE_ARE_REFUSED, NOW);
        assert_int_equal(mail.next_unix_ms - NOW, waits_ms[k]);
    }
}

/* ---- all mail ---------------------------------------------------------------
 */

static void
without_a_limit_mails_leave_at_once(void **state)
{
    struct outbox o = fresh(&usual);

    (void)state;
    for (int k = 0; k < 1000; k++) {
        assert_int_equal(outbox_wait_ms(&o, 0), 0);
        assert_false(outbox_start(&o, 0));
    }
    assert_false(outbox_is_paused(&o));
}

/* In any second at most the rate and what may be saved up. */
static void
the_rate_is_kept(void **state)
{
    static const int64_t rates[] = {1, 3, 10, 999, 1000, 100000};

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(rates); k++) {
        struct outbox_options options = usual;
        struct outbox o;
        int64_t sent = 0;
        int64_t now_ms = 0;

        options.max_per_s = rates[k];
        o = fresh(&options);
        while (now_ms < 10000) {
            int64_t wait_ms = outbox_wait_ms(&o, now_ms);

            assert_true(wait_ms >= 0);
            if (wait_ms == 0) {
                (void)outbox_start(&o, now_ms);
                sent++;
            }
            now_ms += wait_ms;
        }
        assert_in_range(sent, 10 * rates[k] * 99 / 100,
                        10 * rates[k] + rates[k] / 20 + 1);
    }
}

static void
a_mail_that_did_not_leave_costs_nothing(void **state)
{
    struct outbox_options options = usual;
    struct outbox o;

    (void)state;
    options.max_per_s = 1;
    o = fresh(&options);
    outbox_cancel(&o, outbox_start(&o, 0));
    assert_int_equal(outbox_wait_ms(&o, 0), 0);
    (void)outbox_start(&o, 0);
    assert_int_equal(outbox_wait_ms(&o, 0), 1000);
}

static void
a_refusal_pauses_all_until_a_probe_is_taken(void **state)
{
    struct outbox o = fresh(&usual);

    (void)state;
    assert_true(outbox_end(&o, false, OUTBOX_WE_ARE_REFUSED, 0));
    assert_true(outbox_is_paused(&o));
    assert_int_equal(outbox_wait_ms(&o, 1000), 59000);
    assert_int_equal(outbox_wait_ms(&o, 60000), 0);
    assert_true(outbox_start(&o, 60000));
    assert_int_equal(outbox_wait_ms(&o, 60000), -1);
    assert_false(outbox_end(&o, true, OUTBOX_TAKEN, 61000));
    assert_false(outbox_is_paused(&o));
    assert_int_equal(outbox_wait_ms(&o, 61000), 0);
    assert_false(outbox_start(&o, 61000));
}

static void
new_options_let_the_next_probe_leave_at_once(void **state)
{
    struct outbox o = fresh(&usual);

    (void)state;
    assert_true(outbox_end(&o, false, OUTBOX_WE_ARE_REFUSED, 0));
    outbox_set(&o, &usual);
    assert_true(outbox_is_paused(&o));
    assert_int_equal(outbox_wait_ms(&o, 1000), 0);
    assert_true(outbox_start(&o, 1000));
    outbox_set(&o, &usual);
    assert_int_equal(outbox_wait_ms(&o, 1000), -1);
    assert_true(outbox_end(&o, true, OUTBOX_WE_ARE_REFUSED, 1000));
    assert_int_equal(outbox_wait_ms(&o, 1000), 120000);
}

static void
a_refused_probe_doubles_the_pause_up_to_an_hour(void **state)
{
    struct outbox o = fresh(&usual);
    int64_t now_ms = 0;
    const int64_t steps_ms[] = {60000,  120000,  240000,  480000,
                                960000, 1920000, HOUR_MS, HOUR_MS};
    bool is_probe = false;

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(steps_ms); k++) {
        assert_true(outbox_end(&o, is_probe, OUTBOX_WE_ARE_REFUSED, now_ms));
        assert_int_equal(outbox_wait_ms(&o, now_ms), steps_ms[k]);
        now_ms += steps_ms[k];
        is_probe = outbox_start(&o, now_ms);
        assert_true(is_probe);
    }
}

static void
those_under_way_neither_end_nor_lengthen_a_pause(void **state)
{
    struct outbox o = fresh(&usual);

    (void)state;
    assert_true(outbox_end(&o, false, OUTBOX_WE_ARE_REFUSED, 0));
    assert_false(outbox_end(&o, false, OUTBOX_WE_ARE_REFUSED, 100));
    assert_false(outbox_end(&o, false, OUTBOX_TAKEN, 100));
    assert_false(outbox_end(&o, false, OUTBOX_PUT_OFF, 100));
    assert_int_equal(outbox_wait_ms(&o, 100), 59900);
    assert_true(outbox_start(&o, 60000));
    assert_false(outbox_end(&o, false, OUTBOX_TAKEN, 60000));
    assert_int_equal(outbox_wait_ms(&o, 60000), -1);
}

static void
a_probe_that_tells_nothing_is_followed_by_another(void **state)
{
    struct outbox o = fresh(&usual);

    (void)state;
    (void)outbox_end(&o, false, OUTBOX_WE_ARE_REFUSED, 0);
    assert_true(outbox_start(&o, 60000));
    (void)outbox_end(&o, true, OUTBOX_PUT_OFF, 60000);
    assert_int_equal(outbox_wait_ms(&o, 60000), 60000);
    assert_true(outbox_start(&o, 120000));
    (void)outbox_end(&o, true, OUTBOX_RECIPIENT_REFUSED, 120000);
    assert_int_equal(outbox_wait_ms(&o, 120000), 0);
    assert_true(outbox_start(&o, 120000));
    outbox_cancel(&o, true);
    assert_int_equal(outbox_wait_ms(&o, 120000), 0);
    assert_true(outbox_is_paused(&o));
}

/* It is refused, and all mail pauses. */
static struct outbox_mail
meet(struct outbox *o, struct outbox_mail mail, int64_t *now_ms)
{
    bool is_probe = outbox_start(o, *now_ms);

    (void)outbox_end(o, is_probe, OUTBOX_WE_ARE_REFUSED, *now_ms);
    mail = outbox_next(o, mail, OUTBOX_WE_ARE_REFUSED, NOW + *now_ms);
    *now_ms += HOUR_MS;
    return mail;
}

static void
take_another(struct outbox *o, int64_t now_ms)
{
    (void)outbox_end(o, outbox_start(o, now_ms), OUTBOX_TAKEN, now_ms);
}

static void
a_mail_that_alone_is_not_taken_is_given_up(void **state)
{
    struct outbox o = fresh(&usual);
    struct outbox_mail mail = {0};
    int64_t now_ms = 0;

    (void)state;
    for (int k = 1; k < 10; k++) {
        take_another(&o, now_ms);
        mail = meet(&o, mail, &now_ms);
        assert_int_equal(mail.state, OUTBOX_QUEUED);
        assert_int_equal(mail.blocked, k);
    }
    mail = meet(&o, mail, &now_ms); /* nothing was taken since */
    assert_int_equal(mail.state, OUTBOX_QUEUED);
    take_another(&o, now_ms);
    mail = meet(&o, mail, &now_ms);
    assert_int_equal(mail.state, OUTBOX_GIVEN_UP);
}

static void
an_outage_of_ours_gives_up_nothing(void **state)
{
    struct outbox o = fresh(&usual);
    struct outbox_mail mail = {0};
    int64_t now_ms = 0;

    (void)state;
    for (int outage = 0; outage < 3; outage++) {
        take_another(&o, now_ms);
        for (int k = 0; k < 50; k++) {
            mail = meet(&o, mail, &now_ms);
            assert_int_equal(mail.state, OUTBOX_QUEUED);
            /* It left before the pause. */
            (void)outbox_end(&o, false, OUTBOX_TAKEN, now_ms);
        }
    }
}

static void
new_options_count_from_now_on(void **state)
{
    struct outbox o = fresh(&usual);
    struct outbox_options options = usual;

    (void)state;
    options.max_per_s = 2;
    outbox_set(&o, &options);
    assert_int_equal(outbox_wait_ms(&o, 0), 0);
    (void)outbox_start(&o, 0);
    assert_int_equal(outbox_wait_ms(&o, 0), 500);
    outbox_set(&o, &usual);
    assert_int_equal(outbox_wait_ms(&o, 0), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_state_and_event_has_its_next_state),
        cmocka_unit_test(a_mail_is_put_off_with_jitter_up_to_an_hour),
        cmocka_unit_test(a_mail_is_given_up_when_its_time_is_over),
        cmocka_unit_test(a_mail_is_not_given_up_before_the_fifth_attempt),
        cmocka_unit_test(time_in_which_we_are_refused_does_not_count),
        cmocka_unit_test(a_mail_that_met_a_refusal_comes_after_others),
        cmocka_unit_test(without_a_limit_mails_leave_at_once),
        cmocka_unit_test(the_rate_is_kept),
        cmocka_unit_test(a_mail_that_did_not_leave_costs_nothing),
        cmocka_unit_test(a_refusal_pauses_all_until_a_probe_is_taken),
        cmocka_unit_test(new_options_let_the_next_probe_leave_at_once),
        cmocka_unit_test(a_refused_probe_doubles_the_pause_up_to_an_hour),
        cmocka_unit_test(those_under_way_neither_end_nor_lengthen_a_pause),
        cmocka_unit_test(a_probe_that_tells_nothing_is_followed_by_another),
        cmocka_unit_test(a_mail_that_alone_is_not_taken_is_given_up),
        cmocka_unit_test(an_outage_of_ours_gives_up_nothing),
        cmocka_unit_test(new_options_count_from_now_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
