/* dispatcher/limiter.c: first the rules one by one, then random schedules of
 * delays, losses and restarts against a model that looks at every request each
 * time. No clock: a seed is a run, and a failing seed can be run again
 * (LIMITER_SEED=n; LIMITER_SEEDS=n for more or fewer of them). */
#include "dispatcher/limiter.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define S INT64_C(1000000)
#define MS INT64_C(1000)
#define HOUR (3600 * S)
#define WINDOW (10 * S)
#define GUARD (5 * MS)
#define COUNT_MAX 30

static struct limiter_options
options_of(size_t count)
{
    return (struct limiter_options){
        .count = count,
        .window_us = WINDOW,
        .guard_min_us = GUARD,
        .backoff_us = LIMITER_BACKOFF_US,
        .max_backoff_us = LIMITER_MAX_BACKOFF_US,
    };
}

static struct limiter *
limiter_of(size_t count)
{
    struct limiter_options options = options_of(count);
    struct limiter *l = NULL;

    assert_int_equal(limiter_new(&l, &options, NULL, false, 0), RC_OK);
    return l;
}

static struct limiter_permit
take(struct limiter *l, int64_t now_us)
{
    struct limiter_permit permit;

    assert_int_equal(limiter_take(l, now_us, &permit), RC_OK);
    return permit;
}

static void
assert_no_slot(struct limiter *l, int64_t now_us)
{
    struct limiter_permit permit;

    assert_true(limiter_next_us(l, now_us) > now_us);
    assert_int_equal(limiter_take(l, now_us, &permit), RC_AGAIN);
}

/* Nothing one microsecond before, one slot at that moment. */
static struct limiter_permit
take_exactly_at(struct limiter *l, int64_t at_us)
{
    assert_no_slot(l, at_us - 1);
    assert_int_equal(limiter_next_us(l, at_us - 1), at_us);
    assert_int_equal(limiter_next_us(l, at_us), at_us);
    return take(l, at_us);
}

/* ---- the slots ------------------------------------------------------------
 */

static void
it_refuses_options_beyond_their_bounds(void **state)
{
    struct limiter *l;
    struct limiter_options good = options_of(1);
    struct limiter_options bad[10];

    (void)state;
    for (size_t i = 0; i < 10; i++) {
        bad[i] = good;
    }
    bad[0].count = 0;
    bad[1].count = LIMITER_COUNT_MAX + 1;
    bad[2].window_us = 0;
    bad[3].window_us = LIMITER_WINDOW_MAX_US + 1;
    bad[4].guard_min_us = -1;
    bad[5].backoff_us = 0;
    bad[6].max_backoff_us = good.backoff_us - 1;
    bad[7].flight_us = -1;
    bad[8].max_backoff_us = LIMITER_WINDOW_MAX_US + 1;
    bad[9].guard_min_us = LIMITER_WINDOW_MAX_US + 1;
    for (size_t i = 0; i < 10; i++) {
        assert_int_equal(limiter_new(&l, &bad[i], NULL, false, 0), RC_INVALID);
        assert_null(l);
    }
    good.count = LIMITER_COUNT_MAX;
    good.window_us = LIMITER_WINDOW_MAX_US;
    assert_int_equal(limiter_new(&l, &good, NULL, false, 0), RC_OK);
    limiter_free(&l);
    assert_null(l);
    limiter_free(&l);
}

static void
as_many_as_count_go_at_once_and_no_more(void **state)
{
    static const size_t counts[] = {1, 25, LIMITER_COUNT_MAX};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct limiter *l = limiter_of(counts[i]);

        for (size_t k = 0; k < counts[i]; k++) {
            assert_int_equal(limiter_next_us(l, 7), 7);
            assert_true(take(l, 7).slot < counts[i]);
        }
        assert_no_slot(l, 7);
        assert_int_equal(limiter_next_us(l, 7), INT64_MAX);
        assert_int_equal(limiter_flying_count(l), counts[i]);
        assert_no_slot(l, 1000 * HOUR);
        limiter_free(&l);
    }
}

static void
a_slot_comes_free_a_window_and_the_guard_after_it_was_counted(void **state)
{
    struct limiter *l = limiter_of(2);
    struct limiter_permit a = take(l, 0);
    struct limiter_permit b = take(l, 0);

    (void)state;
    assert_true(limiter_counted(l, &b, 100 * MS)); /* out of order */
    assert_true(limiter_counted(l, &a, 3 * S));
    b = take_exactly_at(l, 100 * MS + WINDOW + GUARD);
    assert_int_equal(limiter_next_us(l, 11 * S), 3 * S + WINDOW + GUARD);
    a = take_exactly_at(l, 3 * S + WINDOW + GUARD);
    assert_int_equal(limiter_next_us(l, 20 * S), INT64_MAX);
    limiter_free(&l);
}

static void
what_is_said_of_a_former_holder_changes_nothing(void **state)
{
    struct limiter *l = limiter_of(1);
    struct limiter_permit first = take(l, 0);
    struct limiter_permit second;
    struct limiter_permit wild = {.slot = 1, .generation = 1};

    (void)state;
    assert_true(limiter_counted(l, &first, 0));
    assert_false(limiter_counted(l, &first, 5 * S)); /* the first word stays */
    second = take_exactly_at(l, WINDOW + GUARD);
    assert_int_equal(first.slot, second.slot);
    assert_true(second.generation > first.generation);
    assert_false(limiter_counted(l, &first, 20 * S));
    assert_false(limiter_return(l, &first));
    assert_false(limiter_unknown(l, &first, 20 * S));
    assert_false(limiter_lost(l, &first, 20 * S));
    assert_false(limiter_answered(l, &first, 20 * S));
    assert_false(limiter_counted(l, &wild, 20 * S));
    assert_false(limiter_counted(l, &(struct limiter_permit){0}, 20 * S));
    assert_no_slot(l, HOUR);
    limiter_free(&l);
}

static void
nothing_is_counted_before_it_was_sent(void **state)
{
    struct limiter *l = limiter_of(1);
    struct limiter_permit p = take(l, 4 * S);

    (void)state;
    assert_true(limiter_counted(l, &p, S));
    (void)take_exactly_at(l, 4 * S + WINDOW + GUARD);
    limiter_free(&l);
}

static void
a_returned_slot_is_free_at_once_but_never_before_its_time(void **state)
{
    struct limiter *l = limiter_of(2);
    struct limiter_permit a = take(l, 0);
    struct limiter_permit b = take(l, 0);

    (void)state;
    assert_true(limiter_return(l, &a));
    assert_int_equal(limiter_slot_state(l, a.slot), LIMITER_FREE);
    a = take(l, 1);
    assert_true(limiter_counted(l, &a, 2));
    assert_false(limiter_return(l, &a)); /* counted: it is too late */
    assert_true(limiter_counted(l, &b, 3 * S));
    a = take_exactly_at(l, 2 + WINDOW + GUARD);
    assert_true(limiter_return(l, &a));
    assert_int_equal(limiter_slot_state(l, a.slot), 2 + WINDOW + GUARD);
    a = take(l, 11 * S);
    assert_no_slot(l, 11 * S);
    limiter_free(&l);
}

static void
what_is_unknown_counts_from_now_and_its_flight(void **state)
{
    struct limiter_options options = options_of(2);
    struct limiter_permit p;
    struct limiter *l;

    (void)state;
    options.flight_us = S;
    assert_int_equal(limiter_new(&l, &options, NULL, false, 0), RC_OK);
    p = take(l, 0);
    assert_true(limiter_unknown(l, &p, 2 * S));
    p = take(l, 0);
    assert_true(limiter_lost(l, &p, 3 * S));
    (void)take_exactly_at(l, 3 * S + WINDOW + GUARD);
    (void)take_exactly_at(l, 4 * S + WINDOW + GUARD);
    limiter_free(&l);
}

static void
counted_at_the_answer_a_slot_flies_until_then(void **state)
{
    struct limiter *l = limiter_of(1);
    struct limiter_permit p = take(l, 0);

    (void)state;
    assert_int_equal(limiter_next_us(l, 9 * S), INT64_MAX);
    assert_true(limiter_answered(l, &p, 9 * S));
    p = take_exactly_at(l, 9 * S + WINDOW + GUARD);
    assert_true(limiter_counted(l, &p, 20 * S));
    assert_false(limiter_answered(l, &p, 29 * S)); /* counted at arrival */
    (void)take_exactly_at(l, 20 * S + WINDOW + GUARD);
    limiter_free(&l);
}

static void
slots_are_used_again_and_again(void **state)
{
    struct limiter *l = limiter_of(3);
    struct limiter_permit p[3];
    int64_t now_us = 0;

    (void)state;
    for (int round = 0; round < 10000; round++) {
        uint64_t generation = 0;

        for (size_t i = 0; i < 3; i++) {
            p[i] = take(l, now_us);
            assert_true(p[i].generation > generation);
            generation = p[i].generation;
        }
        assert_no_slot(l, now_us);
        for (size_t i = 0; i < 3; i++) {
            assert_true(limiter_counted(l, &p[(i + (size_t)round) % 3],
                                        now_us + (int64_t)i));
        }
        assert_int_equal(limiter_next_us(l, now_us), now_us + WINDOW + GUARD);
        now_us += 2 + WINDOW + GUARD;
    }
    limiter_free(&l);
}

/* The provider's clock runs differently: what it thinks has passed. */
static void
the_guard_covers_clocks_that_drift(void **state)
{
    static const int64_t windows_us[] = {MS,     S,    10 * S,
                                         60 * S, HOUR, 24 * HOUR};

    (void)state;
    for (size_t i = 0; i < 6; i++) {
        for (int64_t ppm = -200; ppm <= 200; ppm += 400) {
            struct limiter_options options = options_of(1);
            struct limiter *l;
            struct limiter_permit p;
            int64_t passed_us;

            options.window_us = windows_us[i];
            options.guard_min_us = 0;
            assert_int_equal(limiter_new(&l, &options, NULL, false, 0), RC_OK);
            p = take(l, 0);
            assert_true(limiter_counted(l, &p, 0));
            passed_us = limiter_next_us(l, 0);
            assert_true(passed_us + passed_us * ppm / 1000000 > windows_us[i]);
            limiter_free(&l);
        }
    }
}

/* ---- the guard ------------------------------------------------------------
 */

/* One whole episode at now_us; returns when it is over and all is free. */
static int64_t
episode(struct limiter *l, int64_t now_us)
{
    struct limiter_permit p = take(l, now_us);

    assert_true(limiter_refused(l, &p, now_us));
    now_us += LIMITER_BACKOFF_US;
    p = take(l, now_us);
    assert_true(limiter_answered(l, &p, now_us));
    return now_us + 2 * WINDOW;
}

static void
the_guard_doubles_with_each_episode_up_to_a_quarter(void **state)
{
    static const int64_t expected_us[] = {55 * MS,   110 * MS, 220 * MS,
                                          440 * MS,  880 * MS, 1760 * MS,
                                          2500 * MS, 2500 * MS};
    struct limiter *l = limiter_of(5);
    int64_t now_us = 0;

    (void)state;
    assert_int_equal(limiter_guard_us(l, 0), GUARD);
    for (size_t i = 0; i < 8; i++) {
        struct limiter_permit p = take(l, now_us);
        int64_t before_us = limiter_guard_us(l, now_us);
        int64_t guard_us;

        assert_true(limiter_refused(l, &p, now_us));
        guard_us = limiter_guard_us(l, now_us);
        assert_true(guard_us >= before_us + 50 * MS || guard_us == WINDOW / 4);
        /* It shrinks a little from one episode to the next. */
        assert_in_range(guard_us, expected_us[i] * 95 / 100, expected_us[i]);
        p = take(l, now_us + LIMITER_BACKOFF_US);
        assert_true(limiter_answered(l, &p, now_us + LIMITER_BACKOFF_US));
        now_us += LIMITER_BACKOFF_US + 2 * WINDOW;
    }
    limiter_free(&l);
}

static void
the_guard_halves_every_hour_down_to_its_minimum(void **state)
{
    struct limiter *l = limiter_of(1);
    int64_t before_us;

    (void)state;
    (void)episode(l, 0);
    assert_int_equal(limiter_guard_us(l, 0), 55 * MS);
    assert_int_equal(limiter_guard_us(l, HOUR), 30 * MS);
    assert_int_equal(limiter_guard_us(l, 2 * HOUR), 17500);
    assert_in_range(limiter_guard_us(l, HOUR / 2), 40 * MS, 43 * MS);
    before_us = limiter_guard_us(l, 0);
    for (int64_t t = 0; t < 30 * HOUR; t += 7 * S) {
        assert_true(limiter_guard_us(l, t) <= before_us);
        before_us = limiter_guard_us(l, t);
    }
    assert_int_equal(before_us, GUARD);
    assert_int_equal(limiter_guard_us(l, INT64_MAX), GUARD);
    limiter_free(&l);
}

static void
a_grown_guard_keeps_slots_longer(void **state)
{
    struct limiter *l = limiter_of(1);
    int64_t now_us = episode(l, 0);
    struct limiter_permit p = take(l, now_us);

    (void)state;
    assert_true(limiter_counted(l, &p, now_us));
    assert_true(limiter_guard_us(l, now_us) > 54 * MS);
    (void)take_exactly_at(l, now_us + WINDOW + limiter_guard_us(l, now_us));
    limiter_free(&l);
}

/* ---- episodes -------------------------------------------------------------
 */

static void
after_a_429_nothing_goes_until_the_pause_has_ended(void **state)
{
    struct limiter *l = limiter_of(5);
    struct limiter_permit p = take(l, 0);
    struct limiter_permit waiting = take(l, 0);

    (void)state;
    assert_true(limiter_may_send(l, &waiting));
    assert_true(limiter_refused(l, &p, S));
    assert_int_equal(limiter_phase(l, S), LIMITER_PAUSED);
    assert_false(limiter_may_send(l, &waiting));
    assert_true(limiter_return(l, &waiting));
    for (int64_t t = S; t < 31 * S; t += 100 * MS) {
        assert_no_slot(l, t);
    }
    (void)take_exactly_at(l, 31 * S);
    limiter_free(&l);
}

static void
exactly_one_probe_goes(void **state)
{
    struct limiter *l = limiter_of(5);
    struct limiter_permit old = take(l, 0);
    struct limiter_permit probe;

    (void)state;
    assert_true(limiter_refused(l, &old, 0));
    probe = take_exactly_at(l, 30 * S);
    assert_int_equal(limiter_phase(l, 30 * S), LIMITER_PROBING);
    assert_true(limiter_may_send(l, &probe));
    assert_false(limiter_may_send(l, &old));
    assert_int_equal(limiter_next_us(l, 31 * S), INT64_MAX);
    assert_true(limiter_counted(l, &probe, 31 * S)); /* no answer yet */
    assert_no_slot(l, HOUR);
    assert_false(limiter_answered(l, &old, 32 * S)); /* says nothing */
    assert_no_slot(l, HOUR);
    limiter_free(&l);
}

static void
the_probes_success_refills_over_one_window(void **state)
{
    struct limiter *l = limiter_of(5);
    struct limiter_permit p = take(l, 0);

    (void)state;
    assert_true(limiter_refused(l, &p, 0));
    p = take_exactly_at(l, 30 * S);
    assert_true(limiter_answered(l, &p, 35 * S));
    assert_int_equal(limiter_phase(l, 35 * S), LIMITER_REFILLING);
    for (int64_t at_us = 37 * S; at_us <= 43 * S; at_us += 2 * S) {
        p = take_exactly_at(l, at_us);
        assert_true(limiter_return(l, &p)); /* its slot is not the reason */
    }
    /* Spaced from the sending, not from the plan. */
    p = take(l, 46 * S);
    (void)take_exactly_at(l, 47 * S); /* the refill ends: 37 + window */
    assert_int_equal(limiter_phase(l, 47 * S), LIMITER_OPEN);
    (void)take(l, 47 * S);
    (void)take(l, 47 * S);
    limiter_free(&l);
}

static void
the_probes_429_doubles_the_pause_up_to_the_cap(void **state)
{
    static const int64_t pauses_us[] = {60 * S, 120 * S, 120 * S, 120 * S};
    struct limiter *l = limiter_of(5);
    struct limiter_permit p = take(l, 0);
    int64_t now_us = 30 * S;

    (void)state;
    assert_true(limiter_refused(l, &p, 0));
    for (size_t i = 0; i < 4; i++) {
        p = take_exactly_at(l, now_us);
        assert_true(limiter_refused(l, &p, now_us + S));
        now_us += S + pauses_us[i];
    }
    assert_int_equal(limiter_guard_us(l, 0), 55 * MS); /* one episode */
    p = take_exactly_at(l, now_us);
    assert_true(limiter_answered(l, &p, now_us));
    /* The next episode begins with the first step again. */
    p = take(l, now_us + HOUR);
    assert_true(limiter_refused(l, &p, now_us + HOUR));
    (void)take_exactly_at(l, now_us + HOUR + 30 * S);
    limiter_free(&l);
}

static void
the_cap_need_not_be_a_power_of_two(void **state)
{
    struct limiter_options options = options_of(2);
    struct limiter *l;
    struct limiter_permit p;

    (void)state;
    options.backoff_us = 30 * S;
    options.max_backoff_us = 50 * S;
    assert_int_equal(limiter_new(&l, &options, NULL, false, 0), RC_OK);
    p = take(l, 0);
    assert_true(limiter_refused(l, &p, 0));
    p = take_exactly_at(l, 30 * S);
    assert_true(limiter_refused(l, &p, 30 * S));
    p = take_exactly_at(l, 80 * S);
    assert_true(limiter_refused(l, &p, 80 * S));
    (void)take_exactly_at(l, 130 * S);
    limiter_free(&l);
}

static void
a_lost_probe_allows_another_after_a_pause_of_the_same_step(void **state)
{
    struct limiter *l = limiter_of(5);
    struct limiter_permit p = take(l, 0);

    (void)state;
    assert_true(limiter_refused(l, &p, 0));
    p = take_exactly_at(l, 30 * S);
    assert_true(limiter_lost(l, &p, 40 * S));
    p = take_exactly_at(l, 70 * S);
    assert_true(limiter_refused(l, &p, 71 * S));
    p = take_exactly_at(l, 131 * S); /* one step, not two */
    assert_true(limiter_lost(l, &p, 135 * S));
    (void)take_exactly_at(l, 195 * S);
    limiter_free(&l);
}

static void
a_returned_probe_allows_another_at_once(void **state)
{
    struct limiter *l = limiter_of(5);
    struct limiter_permit p = take(l, 0);

    (void)state;
    assert_true(limiter_refused(l, &p, 0));
    p = take_exactly_at(l, 30 * S);
    assert_true(limiter_return(l, &p));
    p = take(l, 30 * S);
    assert_no_slot(l, 31 * S);
    assert_true(limiter_answered(l, &p, 31 * S));
    (void)take_exactly_at(l, 33 * S);
    limiter_free(&l);
}

static void
late_429s_extend_the_end_and_not_the_step(void **state)
{
    struct limiter *l = limiter_of(5);
    struct limiter_permit p[4];

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        p[i] = take(l, 0);
    }
    assert_true(limiter_refused(l, &p[0], S));
    assert_true(limiter_refused(l, &p[1], 4 * S));
    assert_true(limiter_refused(l, &p[2], 2 * S)); /* never backwards */
    assert_int_equal(limiter_guard_us(l, S), 55 * MS);
    p[0] = take_exactly_at(l, 34 * S);
    /* One more while the probe is under way. */
    assert_true(limiter_refused(l, &p[3], 35 * S));
    assert_no_slot(l, HOUR);
    assert_true(limiter_answered(l, &p[0], 36 * S));
    p[0] = take_exactly_at(l, 65 * S);
    assert_int_equal(limiter_guard_us(l, S), 55 * MS);
    limiter_free(&l);
}

static void
a_429_from_before_the_probes_success_pauses_without_a_new_step(void **state)
{
    struct limiter *l = limiter_of(5);
    struct limiter_permit old = take(l, 0);
    struct limiter_permit p = take(l, 0);

    (void)state;
    assert_true(limiter_counted(l, &old, 0));
    assert_true(limiter_refused(l, &p, 0));
    p = take_exactly_at(l, 30 * S);
    assert_true(limiter_answered(l, &p, 31 * S));
    assert_false(limiter_refused(l, &old, 32 * S)); /* its slot was counted */
    assert_int_equal(limiter_phase(l, 32 * S), LIMITER_PAUSED);
    assert_int_equal(limiter_guard_us(l, 0), 55 * MS);
    p = take_exactly_at(l, 62 * S);
    assert_true(limiter_answered(l, &p, 63 * S));
    /* But a 429 for one of the refill is another episode. */
    p = take_exactly_at(l, 65 * S);
    assert_true(limiter_refused(l, &p, 66 * S));
    assert_true(limiter_guard_us(l, 66 * S) > 100 * MS);
    limiter_free(&l);
}

/* ---- restarts -------------------------------------------------------------
 */

struct saved {
    struct limiter_state state;
    int64_t free_at_us[COUNT_MAX];
};

static void
save(const struct limiter *l, int64_t now_us, struct saved *s)
{
    s->state.slot_count = COUNT_MAX;
    s->state.free_at_us = s->free_at_us;
    assert_int_equal(limiter_save(l, now_us, &s->state), RC_OK);
}

/* Save at saved_us, go on with these options at now_us. */
static void
restart_with(struct limiter **l, const struct limiter_options *options,
             bool same_boot, int64_t saved_us, int64_t now_us)
{
    struct saved s;

    save(*l, saved_us, &s);
    limiter_free(l);
    assert_int_equal(limiter_new(l, options, &s.state, same_boot, now_us),
                     RC_OK);
}

static void
restart(struct limiter **l, size_t count, int64_t saved_us, int64_t now_us)
{
    struct limiter_options options = options_of(count);

    restart_with(l, &options, true, saved_us, now_us);
}

static void
flying_slots_count_from_the_restart(void **state)
{
    struct limiter *l = limiter_of(3);
    struct limiter_permit p = take(l, 0);

    (void)state;
    (void)take(l, S);
    assert_true(limiter_counted(l, &p, S));
    assert_int_equal(limiter_slot_state(l, p.slot), S + WINDOW + GUARD);
    assert_int_equal(limiter_slot_state(l, 1), LIMITER_FLYING);
    assert_int_equal(limiter_slot_state(l, 2), LIMITER_FREE);
    restart(&l, 3, 2 * S, 5 * S);
    assert_int_equal(limiter_flying_count(l), 0);
    (void)take(l, 5 * S); /* never used */
    (void)take_exactly_at(l, S + WINDOW + GUARD);
    (void)take_exactly_at(l, 5 * S + WINDOW + GUARD);
    limiter_free(&l);
}

static void
flying_slots_have_their_flight_after_a_restart_too(void **state)
{
    struct limiter *l = limiter_of(1);
    struct limiter_options options = options_of(1);

    (void)state;
    options.flight_us = 700 * MS;
    (void)take(l, 0);
    restart_with(&l, &options, true, 0, 100 * MS);
    (void)take_exactly_at(l, 800 * MS + WINDOW + GUARD);
    limiter_free(&l);
}

static void
after_another_boot_all_used_slots_count_from_now(void **state)
{
    struct limiter *l = limiter_of(3);
    struct limiter_options options = options_of(3);
    struct limiter_permit p = take(l, S);

    (void)state;
    (void)take(l, S);
    assert_true(limiter_counted(l, &p, S));
    restart_with(&l, &options, false, 20 * S, 900 * S); /* long free, but */
    (void)take(l, 900 * S);
    assert_no_slot(l, 900 * S);
    (void)take_exactly_at(l, 900 * S + WINDOW + GUARD);
    (void)take(l, 900 * S + WINDOW + GUARD);
    assert_no_slot(l, 900 * S + WINDOW + GUARD);
    limiter_free(&l);
}

static void
what_never_sent_anything_starts_empty_on_any_boot(void **state)
{
    struct limiter *l = limiter_of(3);
    struct limiter_options options = options_of(3);

    (void)state;
    restart_with(&l, &options, false, 900 * S, 7 * S);
    (void)take(l, 7 * S);
    (void)take(l, 7 * S);
    (void)take(l, 7 * S);
    assert_no_slot(l, 7 * S);
    limiter_free(&l);
}

static void
fewer_slots_keep_those_that_come_free_last(void **state)
{
    struct limiter *l = limiter_of(5);

    (void)state;
    for (int64_t i = 0; i < 5; i++) {
        struct limiter_permit p = take(l, i * S);

        assert_true(limiter_counted(l, &p, i * S));
    }
    restart(&l, 2, 5 * S, 5 * S);
    /* Four of five must have come free before a first one may go. */
    (void)take_exactly_at(l, 3 * S + WINDOW + GUARD);
    (void)take_exactly_at(l, 4 * S + WINDOW + GUARD);
    limiter_free(&l);
}

static void
more_slots_are_free_unless_the_window_grew_too(void **state)
{
    struct limiter *l = limiter_of(1);
    struct limiter_options options = options_of(2);
    struct limiter_permit p = take(l, 0);

    (void)state;
    assert_true(limiter_counted(l, &p, 0));
    restart(&l, 2, S, S);
    p = take(l, S);
    assert_true(limiter_counted(l, &p, S));
    options.count = 3;
    options.window_us = 60 * S;
    options.guard_min_us = 20 * MS;
    restart_with(&l, &options, true, 2 * S, 2 * S);
    (void)take_exactly_at(l, 60 * S + GUARD); /* counted at 0 */
    (void)take_exactly_at(l, 61 * S + GUARD);
    (void)take_exactly_at(l, 62 * S + 20 * MS);
    limiter_free(&l);
}

static void
a_pause_outlives_a_restart_and_a_boot(void **state)
{
    struct limiter *l = limiter_of(5);
    struct limiter_options options = options_of(5);
    struct limiter_permit p = take(l, 100 * S);

    (void)state;
    assert_true(limiter_refused(l, &p, 100 * S));
    p = take_exactly_at(l, 130 * S);
    assert_true(limiter_refused(l, &p, 130 * S)); /* until 190, step 1 */
    restart(&l, 5, 140 * S, 150 * S);
    assert_int_equal(limiter_next_us(l, 150 * S), 190 * S);
    restart_with(&l, &options, false, 150 * S, 3 * S);
    p = take_exactly_at(l, 43 * S); /* the 40 s that were left */
    assert_true(limiter_refused(l, &p, 44 * S));
    (void)take_exactly_at(l, 164 * S); /* and the step: 120 s */
    limiter_free(&l);
}

static void
a_damaged_pause_is_capped(void **state)
{
    static const int64_t ends_us[] = {INT64_MAX, HOUR};
    struct limiter_options options = options_of(1);

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        int64_t free_at_us[1] = {i < 2 ? LIMITER_FREE : INT64_MAX - 1};
        struct limiter_state saved = {
            .window_us = WINDOW,
            .phase = LIMITER_PAUSED,
            .step = UINT32_MAX,
            .end_us = ends_us[i % 2],
            .guard_us = INT64_MAX,
            .guard_at_us = INT64_MIN,
            .saved_us = INT64_MIN,
            .slot_count = 1,
            .free_at_us = free_at_us,
        };
        struct limiter *l;

        assert_int_equal(limiter_new(&l, &options, &saved, i < 2, S), RC_OK);
        (void)take_exactly_at(l, 121 * S);
        assert_true(limiter_guard_us(l, S) <= WINDOW / 4);
        limiter_free(&l);
        saved.phase = (enum limiter_phase)4;
        assert_int_equal(limiter_new(&l, &options, &saved, true, S),
                         RC_INVALID);
    }
}

static void
a_probe_under_way_is_lost_with_its_process(void **state)
{
    struct limiter *l = limiter_of(5);
    struct limiter_permit p = take(l, 0);

    (void)state;
    assert_true(limiter_refused(l, &p, 0));
    (void)take_exactly_at(l, 30 * S);
    restart(&l, 5, 31 * S, 33 * S);
    p = take_exactly_at(l, 63 * S);
    assert_true(limiter_refused(l, &p, 64 * S));
    (void)take_exactly_at(l, 124 * S);
    limiter_free(&l);
}

static void
a_refill_goes_on_spaced_after_a_restart(void **state)
{
    struct limiter *l = limiter_of(5);
    struct limiter_permit p = take(l, 0);

    (void)state;
    assert_true(limiter_refused(l, &p, 0));
    p = take_exactly_at(l, 30 * S);
    assert_true(limiter_answered(l, &p, 35 * S)); /* until 47 */
    restart(&l, 5, 36 * S, 42 * S);
    (void)take_exactly_at(l, 44 * S);
    (void)take_exactly_at(l, 46 * S);
    (void)take_exactly_at(l, 47 * S);
    (void)take(l, 47 * S);
    limiter_free(&l);
}

static void
the_guard_outlives_a_restart_and_shrinks_meanwhile(void **state)
{
    struct limiter *l = limiter_of(5);
    struct limiter_options options = options_of(5);

    (void)state;
    (void)episode(l, 0);
    restart(&l, 5, S, HOUR);
    assert_int_equal(limiter_guard_us(l, HOUR), 30 * MS);
    restart_with(&l, &options, false, HOUR, 9 * S);
    assert_int_equal(limiter_guard_us(l, 9 * S), 55 * MS); /* not known */
    limiter_free(&l);
}

static void
saving_needs_room_for_every_slot(void **state)
{
    struct limiter *l = limiter_of(2);
    int64_t free_at_us[2];
    struct limiter_state saved = {.slot_count = 1, .free_at_us = free_at_us};

    (void)state;
    assert_int_equal(limiter_save(l, 0, &saved), RC_FULL);
    saved.slot_count = 2;
    assert_int_equal(limiter_save(l, 0, &saved), RC_OK);
    saved = (struct limiter_state){0};
    assert_int_equal(limiter_save(l, 0, &saved), RC_OK);
    assert_int_equal(saved.slot_count, 2);
    limiter_free(&l);
}

/* ---- all of it at once ----------------------------------------------------
 */

#define REQUESTS_MAX 400

enum news { NEWS_COUNTED, NEWS_ANSWERED, NEWS_LOST, NEWS_UNKNOWN, NEWS_RETURN };

struct request {
    struct limiter_permit permit;
    int64_t arrival_us; /* at the provider; INT64_MAX: never */
    enum news news;     /* what we hear of it, and when */
    int64_t news_us;    /* INT64_MAX: nothing more */
    /* For the model: the provider has counted it at that moment at the latest.
     * INT64_MAX: not known yet; INT64_MIN: holds no slot. */
    int64_t counted_us;
};

struct world {
    uint64_t random;
    struct limiter_options options;
    struct limiter *l;
    int64_t now_us;
    int64_t ppm; /* how much faster the provider's clock is */
    struct request requests[REQUESTS_MAX];
    size_t count;
    bool restarts;
    bool compares; /* with the model, at each step */
};

static uint64_t
next_random(struct world *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}

static int64_t
below(struct world *w, int64_t n)
{
    return (int64_t)(next_random(w) % (uint64_t)n);
}

/* Mostly quick, sometimes longer than a window: so anything overtakes. */
static int64_t
delay_us(struct world *w)
{
    int64_t window_us = w->options.window_us;

    switch (below(w, 8)) {
    case 0:
        return below(w, 2 * window_us);
    case 1:
    case 2:
        return below(w, window_us / 4 + 1);
    case 3:
        return 0;
    default:
        return below(w, window_us / 50 + 1);
    }
}

/* The greedy one: may send as soon as fewer than count requests are without
 * news, or counted less than a window (and the guard) ago. */
static int64_t
model_next_us(const struct world *w)
{
    int64_t busy_us[REQUESTS_MAX]; /* until then, the latest first */
    size_t busy = 0;
    int64_t guard_us = limiter_guard_us(w->l, w->now_us);

    for (size_t i = 0; i < w->count; i++) {
        int64_t until_us = w->requests[i].counted_us;
        size_t at = busy;

        if (until_us == INT64_MIN) {
            continue;
        }
        until_us = until_us == INT64_MAX
                       ? INT64_MAX
                       : until_us + w->options.window_us + guard_us;
        if (until_us <= w->now_us) {
            continue;
        }
        for (; at > 0 && busy_us[at - 1] < until_us; at--) {
            busy_us[at] = busy_us[at - 1];
        }
        busy_us[at] = until_us;
        busy++;
    }
    assert_true(busy <= w->options.count);
    return busy < w->options.count ? w->now_us : busy_us[busy - 1];
}

static void
send_request(struct world *w)
{
    struct request *r = &w->requests[w->count++];
    int64_t flight_us = w->options.flight_us;

    r->permit = take(w->l, w->now_us);
    r->counted_us = INT64_MAX;
    r->arrival_us = w->now_us + delay_us(w);
    r->news_us = r->arrival_us + delay_us(w);
    r->news = (enum news)below(w, 5);
    if (below(w, 3) != 0) {
        r->news = NEWS_COUNTED;
    }
    switch (r->news) {
    case NEWS_COUNTED:
    case NEWS_ANSWERED:
        break;
    case NEWS_LOST:
    case NEWS_UNKNOWN:
        /* It may arrive after we gave it up, but by its flight. */
        r->news_us -= flight_us;
        if (r->news_us < w->now_us) {
            r->news_us = w->now_us;
        }
        break;
    case NEWS_RETURN:
        r->arrival_us = INT64_MAX;
        break;
    }
}

/* Hear of request r at w->now_us. */
static void
hear(struct world *w, struct request *r)
{
    int64_t now_us = w->now_us;

    r->news_us = INT64_MAX;
    switch (r->news) {
    case NEWS_COUNTED:
        assert_true(limiter_counted(w->l, &r->permit, now_us));
        r->counted_us = now_us;
        return;
    case NEWS_ANSWERED:
        assert_true(limiter_answered(w->l, &r->permit, now_us));
        r->counted_us = now_us;
        return;
    case NEWS_LOST:
        assert_true(limiter_lost(w->l, &r->permit, now_us));
        r->counted_us = now_us + w->options.flight_us;
        return;
    case NEWS_UNKNOWN:
        assert_true(limiter_unknown(w->l, &r->permit, now_us));
        r->counted_us = now_us + w->options.flight_us;
        return;
    case NEWS_RETURN:
        assert_true(limiter_return(w->l, &r->permit));
        r->counted_us = INT64_MIN;
        return;
    }
}

/* The process dies now, and its connections with it; another one comes. */
static void
kill_and_restart(struct world *w)
{
    struct saved s;
    bool same_boot = below(w, 4) != 0;
    int64_t died_us = w->now_us;
    size_t used = 0;

    save(w->l, w->now_us, &s);
    limiter_free(&w->l);
    w->now_us += below(w, 3) == 0 ? 0 : delay_us(w);
    for (size_t i = 0; i < s.state.slot_count; i++) {
        used += s.free_at_us[i] != LIMITER_FREE;
    }
    for (size_t i = w->count; i-- > 0;) {
        struct request *r = &w->requests[i];

        if (r->arrival_us != INT64_MAX &&
            r->arrival_us > died_us + w->options.flight_us) {
            r->arrival_us = died_us + w->options.flight_us;
        }
        if (r->counted_us == INT64_MAX) {
            r->counted_us = w->now_us + w->options.flight_us;
        }
        if (!same_boot && r->counted_us != INT64_MIN) {
            /* Whose slots these are is forgotten; so many of them count. */
            r->counted_us =
                used > 0 ? w->now_us + w->options.flight_us : INT64_MIN;
            used -= used > 0;
        }
        r->news_us = INT64_MAX;
    }
    assert_int_equal(
        limiter_new(&w->l, &w->options, &s.state, same_boot, w->now_us), RC_OK);
}

/* To the next moment at which something can happen. */
static void
step(struct world *w)
{
    struct request *next = NULL;
    int64_t may_us = limiter_next_us(w->l, w->now_us);

    if (w->compares) {
        assert_int_equal(may_us, model_next_us(w));
    }
    for (size_t i = 0; i < w->count; i++) {
        struct request *r = &w->requests[i];

        if (r->news_us != INT64_MAX &&
            (next == NULL || r->news_us < next->news_us)) {
            next = r;
        }
    }
    if (w->restarts && below(w, 60) == 0) {
        kill_and_restart(w);
    } else if (next != NULL && next->news_us <= may_us) {
        w->now_us = next->news_us > w->now_us ? next->news_us : w->now_us;
        hear(w, next);
    } else if (below(w, 20) == 0) {
        /* Nobody wants to call for a while. */
        w->now_us = next != NULL ? next->news_us : may_us + delay_us(w);
    } else {
        w->now_us = may_us;
        send_request(w);
    }
}

static int
by_arrival(const void *a, const void *b)
{
    int64_t a_us = ((const struct request *)a)->arrival_us;
    int64_t b_us = ((const struct request *)b)->arrival_us;

    return (a_us > b_us) - (a_us < b_us);
}

/* By the provider's clock: arrivals less than a window before each other. */
static void
assert_no_window_is_over_full(struct world *w)
{
    size_t limit = w->options.count;

    qsort(w->requests, w->count, sizeof(w->requests[0]), by_arrival);
    for (size_t i = 0; i + limit < w->count; i++) {
        int64_t first_us = w->requests[i].arrival_us;
        int64_t last_us = w->requests[i + limit].arrival_us;
        int64_t passed_us = last_us - first_us;

        if (last_us == INT64_MAX) {
            return;
        }
        passed_us += passed_us * w->ppm / 1000000;
        if (passed_us < w->options.window_us) {
            fail_msg("%zu arrivals within %" PRId64 " of %" PRId64 " us",
                     limit + 1, passed_us, w->options.window_us);
        }
    }
}

/* For the message of a failure. */
static uint64_t current_seed;

static int
name_seed(void **state)
{
    (void)state;
    if (current_seed != 0) {
        print_error("run again with LIMITER_SEED=%" PRIu64 "\n", current_seed);
    }
    return 0;
}

static void
begin(struct world *w, uint64_t seed)
{
    w->random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    for (int i = 0; i < 10; i++) {
        (void)next_random(w);
    }
    w->options = options_of(1 + (size_t)below(w, COUNT_MAX));
    w->options.window_us = 1 + below(w, below(w, 2) == 0 ? S : 60 * S);
    w->options.guard_min_us = below(w, 10 * MS);
    w->options.flight_us = below(w, 2) == 0 ? 0 : delay_us(w);
    w->ppm = below(w, 401) - 200;
    w->now_us = below(w, 1000 * S);
    assert_int_equal(limiter_new(&w->l, &w->options, NULL, false, w->now_us),
                     RC_OK);
}

static void
run_seed(uint64_t seed, bool restarts, bool compares)
{
    static const struct world fresh;
    struct world *w = malloc(sizeof(*w));
    size_t enough;

    *w = fresh;
    w->restarts = restarts;
    w->compares = compares;
    begin(w, seed);
    enough = 10 + 5 * w->options.count;
    while (w->count < enough) {
        step(w);
    }
    assert_no_window_is_over_full(w);
    limiter_free(&w->l);
    free(w);
}

static void
run_seeds(bool restarts, bool compares)
{
    const char *only = getenv("LIMITER_SEED");
    const char *count = getenv("LIMITER_SEEDS");
    uint64_t seeds = count != NULL ? strtoull(count, NULL, 10) : 10000;

    if (only != NULL) {
        run_seed(strtoull(only, NULL, 10), restarts, compares);
        return;
    }
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        current_seed = seed;
        run_seed(seed, restarts, compares);
    }
    current_seed = 0;
}

static void
no_window_has_more_than_count_arrivals(void **state)
{
    (void)state;
    run_seeds(false, false);
}

static void
nor_with_restarts_and_other_boots(void **state)
{
    (void)state;
    run_seeds(true, false);
}

static void
it_sends_as_soon_as_the_model_would(void **state)
{
    (void)state;
    run_seeds(true, true);
}

/* ---- episodes at random ---------------------------------------------------
 */

/* What must hold of episodes, whoever answers what and when. */
struct witness {
    int64_t last_429_us;
    bool stopped;   /* since the last 429 no probe succeeded */
    bool probing;   /* a probe is under way */
    uint64_t probe; /* its generation */
};

static void
witness_take(struct witness *v, const struct limiter_permit *p, int64_t now_us)
{
    if (v->stopped) {
        assert_true(now_us >= v->last_429_us + LIMITER_BACKOFF_US);
        assert_false(v->probing);
        v->probing = true;
        v->probe = p->generation;
    }
}

/* Random news of a random request under way. */
static void
witness_news(struct world *w, struct witness *v, struct limiter_permit *p)
{
    bool is_probe = v->probing && p->generation == v->probe;

    switch (below(w, 5)) {
    case 0:
        (void)limiter_refused(w->l, p, w->now_us);
        v->last_429_us = w->now_us;
        v->stopped = true;
        v->probing = v->probing && !is_probe;
        break;
    case 1:
        (void)limiter_lost(w->l, p, w->now_us);
        v->probing = v->probing && !is_probe;
        break;
    case 2:
        (void)limiter_return(w->l, p);
        v->probing = v->probing && !is_probe;
        break;
    default:
        (void)limiter_answered(w->l, p, w->now_us);
        v->stopped = v->stopped && !is_probe;
        v->probing = v->probing && !is_probe;
        /* A 429 that came while the probe was under way still holds. */
        if (is_probe) {
            assert_true(limiter_next_us(w->l, w->now_us) >=
                        v->last_429_us + LIMITER_BACKOFF_US);
        }
        break;
    }
}

static void
run_episodes(uint64_t seed)
{
    struct world *w = calloc(1, sizeof(*w));
    struct witness v = {0};
    struct limiter_permit flying[200];
    size_t count = 0;

    begin(w, seed);
    for (int i = 0; i < 200; i++) {
        struct limiter_permit p;

        w->now_us += below(w, 3) == 0 ? below(w, 20 * S) : below(w, S);
        if (limiter_take(w->l, w->now_us, &p) == RC_OK) {
            witness_take(&v, &p, w->now_us);
            flying[count++] = p;
        } else if (count > 0 && below(w, 2) == 0) {
            size_t k = (size_t)below(w, (int64_t)count);

            witness_news(w, &v, &flying[k]);
            flying[k] = flying[--count];
        }
    }
    limiter_free(&w->l);
    free(w);
}

static void
no_schedule_sends_into_a_pause_or_two_probes(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10000; seed++) {
        current_seed = seed;
        run_episodes(seed);
    }
    current_seed = 0;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_refuses_options_beyond_their_bounds),
        cmocka_unit_test(as_many_as_count_go_at_once_and_no_more),
        cmocka_unit_test(
            a_slot_comes_free_a_window_and_the_guard_after_it_was_counted),
        cmocka_unit_test(what_is_said_of_a_former_holder_changes_nothing),
        cmocka_unit_test(nothing_is_counted_before_it_was_sent),
        cmocka_unit_test(
            a_returned_slot_is_free_at_once_but_never_before_its_time),
        cmocka_unit_test(what_is_unknown_counts_from_now_and_its_flight),
        cmocka_unit_test(counted_at_the_answer_a_slot_flies_until_then),
        cmocka_unit_test(slots_are_used_again_and_again),
        cmocka_unit_test(the_guard_covers_clocks_that_drift),
        cmocka_unit_test(the_guard_doubles_with_each_episode_up_to_a_quarter),
        cmocka_unit_test(the_guard_halves_every_hour_down_to_its_minimum),
        cmocka_unit_test(a_grown_guard_keeps_slots_longer),
        cmocka_unit_test(after_a_429_nothing_goes_until_the_pause_has_ended),
        cmocka_unit_test(exactly_one_probe_goes),
        cmocka_unit_test(the_probes_success_refills_over_one_window),
        cmocka_unit_test(the_probes_429_doubles_the_pause_up_to_the_cap),
        cmocka_unit_test(the_cap_need_not_be_a_power_of_two),
        cmocka_unit_test(
            a_lost_probe_allows_another_after_a_pause_of_the_same_step),
        cmocka_unit_test(a_returned_probe_allows_another_at_once),
        cmocka_unit_test(late_429s_extend_the_end_and_not_the_step),
        cmocka_unit_test(
            a_429_from_before_the_probes_success_pauses_without_a_new_step),
        cmocka_unit_test(flying_slots_count_from_the_restart),
        cmocka_unit_test(flying_slots_have_their_flight_after_a_restart_too),
        cmocka_unit_test(after_another_boot_all_used_slots_count_from_now),
        cmocka_unit_test(what_never_sent_anything_starts_empty_on_any_boot),
        cmocka_unit_test(fewer_slots_keep_those_that_come_free_last),
        cmocka_unit_test(more_slots_are_free_unless_the_window_grew_too),
        cmocka_unit_test(a_pause_outlives_a_restart_and_a_boot),
        cmocka_unit_test(a_damaged_pause_is_capped),
        cmocka_unit_test(a_probe_under_way_is_lost_with_its_process),
        cmocka_unit_test(a_refill_goes_on_spaced_after_a_restart),
        cmocka_unit_test(the_guard_outlives_a_restart_and_shrinks_meanwhile),
        cmocka_unit_test(saving_needs_room_for_every_slot),
        cmocka_unit_test(no_window_has_more_than_count_arrivals),
        cmocka_unit_test(nor_with_restarts_and_other_boots),
        cmocka_unit_test(it_sends_as_soon_as_the_model_would),
        cmocka_unit_test(no_schedule_sends_into_a_pause_or_two_probes),
    };

    return cmocka_run_group_tests(tests, NULL, name_seed);
}
