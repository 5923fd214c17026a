/* When a batch is due and what is in it; time is handed in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "dispatcher/batcher.h"

#define MEMBERS 4096
#define MOST 1000 /* that one take may give */

static char members[MEMBERS]; /* a member is the address of one */

static const struct batcher_options usual = {
    .size = 3, .max_delay_ms = 2000, .gather_ms = 50};

static struct batcher *
made(const struct batcher_options *options)
{
    struct batcher *b = NULL;

    assert_int_equal(batcher_new(&b, options), RC_OK);
    assert_non_null(b);
    return b;
}

/* Member no comes, having waited. */
static void
add(struct batcher *b, size_t no, int64_t waited_ms, int64_t now_ms)
{
    assert_int_equal(batcher_add(b, &members[no], waited_ms, now_ms), RC_OK);
}

static size_t
take(struct batcher *b, int64_t now_ms, bool drain, size_t max, size_t *nos)
{
    void *out[MOST];
    size_t count = batcher_take(b, now_ms, drain, out, max);

    assert_true(count <= max);
    for (size_t i = 0; i < count; i++) {
        nos[i] = (size_t)((char *)out[i] - members);
        assert_true(nos[i] < MEMBERS);
    }
    return count;
}

/* The next take gives count members from no on, in order. */
static void
assert_takes(struct batcher *b, int64_t now_ms, bool drain, size_t no,
             size_t count)
{
    size_t nos[MOST];
    size_t before = batcher_count(b);

    assert_int_equal(take(b, now_ms, drain, MOST, nos), count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(nos[i], no + i);
    }
    assert_int_equal(batcher_count(b), before - count);
}

/* ---- examples ---------------------------------------------------------------
 */

static void
nothing_is_due_of_nothing(void **state)
{
    struct batcher *b = made(&usual);

    (void)state;
    assert_int_equal(batcher_count(b), 0);
    assert_true(batcher_due_ms(b, 5) == INT64_MAX);
    assert_takes(b, INT64_MAX, false, 0, 0);
    assert_takes(b, 5, true, 0, 0);
    batcher_free(&b);
    assert_null(b);
    batcher_free(&b);
}

static void
the_example_of_the_header_is_true(void **state)
{
    struct batcher *b = made(&usual);

    (void)state;
    add(b, 0, 0, 0);
    assert_int_equal(batcher_due_ms(b, 0), 2000);
    add(b, 1, 0, 100);
    add(b, 2, 0, 100);
    assert_true(batcher_due_ms(b, 100) <= 100);
    assert_takes(b, 100, false, 0, 3);
    add(b, 3, 0, 300);
    assert_int_equal(batcher_due_ms(b, 300), 2300);
    assert_takes(b, 2299, false, 0, 0);
    assert_int_equal(batcher_count(b), 1);
    add(b, 4, 1900, 300);
    assert_int_equal(batcher_due_ms(b, 300), 2300);
    assert_takes(b, 2299, false, 0, 0);
    assert_takes(b, 2300, false, 3, 2);
    assert_true(batcher_due_ms(b, 2300) == INT64_MAX);
    batcher_free(&b);
}

static void
a_full_batch_is_due_at_once_and_one_less_is_not(void **state)
{
    struct batcher *b = made(&usual);

    (void)state;
    add(b, 0, 0, 7);
    add(b, 1, 0, 7);
    assert_int_equal(batcher_due_ms(b, 7), 2007);
    assert_takes(b, 7, false, 0, 0);
    add(b, 2, 0, 7);
    assert_takes(b, 7, false, 0, 3);
    batcher_free(&b);
}

static void
several_full_batches_leave_one_by_one_and_the_rest_waits(void **state)
{
    struct batcher *b = made(&usual);

    (void)state;
    for (size_t i = 0; i < 8; i++) {
        add(b, i, 0, 10 * (int64_t)i);
    }
    assert_takes(b, 70, false, 0, 3);
    assert_takes(b, 70, false, 3, 3);
    /* the delay of the rest counts from its own oldest, that came at 60 */
    assert_int_equal(batcher_due_ms(b, 70), 2060);
    assert_takes(b, 2059, false, 0, 0);
    assert_takes(b, 2060, false, 6, 2);
    batcher_free(&b);
}

static void
what_it_waited_before_counts(void **state)
{
    struct batcher *b = made(&usual);

    (void)state;
    add(b, 0, 500, 1000);
    assert_int_equal(batcher_due_ms(b, 1000), 2500);
    assert_takes(b, 2499, false, 0, 0);
    assert_takes(b, 2500, false, 0, 1);
    batcher_free(&b);
}

static void
one_that_is_late_already_is_due_after_the_gathering(void **state)
{
    const struct batcher_options at_once = {.size = 3, .max_delay_ms = 2000};
    struct batcher *b = made(&usual);

    (void)state;
    add(b, 0, INT64_C(86400000), 1000);
    assert_int_equal(batcher_due_ms(b, 1000), 1050);
    add(b, 1, INT64_C(86400000), 1049); /* it does not put it off */
    assert_int_equal(batcher_due_ms(b, 1049), 1050);
    assert_takes(b, 1049, false, 0, 0);
    assert_takes(b, 1050, false, 0, 2);
    batcher_free(&b);
    b = made(&at_once);
    add(b, 0, 2000, 1000);
    assert_takes(b, 1000, false, 0, 1);
    batcher_free(&b);
}

static void
a_backlog_that_fills_the_batch_does_not_wait_for_more(void **state)
{
    struct batcher *b = made(&usual);

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        add(b, i, 99999, 1000);
    }
    assert_takes(b, 1000, false, 0, 3);
    batcher_free(&b);
}

static void
the_gathering_is_never_longer_than_the_delay(void **state)
{
    const struct batcher_options options = {
        .size = 3, .max_delay_ms = 20, .gather_ms = 50};
    const struct batcher_options none = {
        .size = 3, .max_delay_ms = 0, .gather_ms = 50};
    struct batcher *b = made(&options);

    (void)state;
    add(b, 0, 99999, 1000);
    assert_int_equal(batcher_due_ms(b, 1000), 1020);
    assert_takes(b, 1020, false, 0, 1);
    add(b, 1, 0, 1000);
    assert_int_equal(batcher_due_ms(b, 1000), 1020);
    batcher_free(&b);
    b = made(&none);
    add(b, 0, 0, 1000);
    assert_takes(b, 1000, false, 0, 1);
    add(b, 1, 99999, 1000);
    assert_takes(b, 1000, false, 1, 1);
    batcher_free(&b);
}

static void
a_drain_takes_what_there_is_in_batches_of_the_usual_size(void **state)
{
    struct batcher *b = made(&usual);

    (void)state;
    for (size_t i = 0; i < 5; i++) {
        add(b, i, 0, 0);
    }
    assert_takes(b, 0, true, 0, 3);
    assert_takes(b, 0, false, 0, 0);
    assert_takes(b, 0, true, 3, 2);
    assert_takes(b, 0, true, 0, 0);
    batcher_free(&b);
}

static void
with_a_size_of_0_or_1_each_goes_at_once(void **state)
{
    (void)state;
    for (size_t size = 0; size <= 1; size++) {
        const struct batcher_options options = {
            .size = size, .max_delay_ms = 2000, .gather_ms = 50};
        struct batcher *b = made(&options);

        add(b, 0, 0, 5);
        add(b, 1, 0, 5);
        assert_true(batcher_due_ms(b, 5) <= 5);
        assert_takes(b, 5, false, 0, 1);
        assert_takes(b, 5, false, 1, 1);
        assert_takes(b, 5, false, 0, 0);
        batcher_free(&b);
    }
}

static void
no_more_are_taken_than_the_caller_has_room_for(void **state)
{
    const struct batcher_options options = {.size = 10, .max_delay_ms = 2000};
    struct batcher *b = made(&options);
    size_t nos[MOST];

    (void)state;
    for (size_t i = 0; i < 12; i++) {
        add(b, i, 0, 0);
    }
    assert_int_equal(take(b, 0, false, 0, nos), 0);
    assert_int_equal(take(b, 0, false, 4, nos), 4);
    assert_int_equal(nos[3], 3);
    assert_int_equal(batcher_count(b), 8);
    assert_int_equal(take(b, 0, false, 4, nos), 0); /* not full any more */
    assert_int_equal(take(b, 2000, false, 7, nos), 7);
    assert_int_equal(nos[0], 4);
    assert_int_equal(take(b, 0, true, 7, nos), 1);
    assert_int_equal(nos[0], 11);
    batcher_free(&b);
}

/* ---- other bounds -----------------------------------------------------------
 */

static void
a_smaller_size_makes_those_that_wait_due(void **state)
{
    struct batcher_options options = usual;
    struct batcher *b = made(&options);

    (void)state;
    add(b, 0, 0, 0);
    add(b, 1, 0, 0);
    options.size = 2;
    batcher_set(b, &options);
    assert_takes(b, 0, false, 0, 2);
    batcher_free(&b);
}

static void
a_larger_size_holds_them_back_until_their_delay_is_over(void **state)
{
    struct batcher_options options = usual;
    struct batcher *b = made(&options);

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        add(b, i, 0, 10);
    }
    options.size = 100;
    batcher_set(b, &options);
    assert_takes(b, 10, false, 0, 0);
    assert_int_equal(batcher_due_ms(b, 10), 2010);
    assert_takes(b, 2010, false, 0, 3);
    batcher_free(&b);
}

static void
another_delay_counts_for_those_that_wait_too(void **state)
{
    struct batcher_options options = usual;
    struct batcher *b = made(&options);

    (void)state;
    add(b, 0, 100, 1000);
    options.max_delay_ms = 60000;
    batcher_set(b, &options);
    assert_int_equal(batcher_due_ms(b, 1500), 60900);
    options.max_delay_ms = 400;
    batcher_set(b, &options);
    assert_int_equal(batcher_due_ms(b, 1500), 1300);
    assert_takes(b, 1500, false, 0, 1);
    batcher_free(&b);
}

/* ---- growth -----------------------------------------------------------------
 */

static void
it_grows_and_keeps_the_order_wherever_its_ring_begins(void **state)
{
    const struct batcher_options options = {.size = 7, .max_delay_ms = 1000};

    (void)state;
    for (size_t before = 0; before <= 70; before += 7) {
        struct batcher *b = made(&options);
        size_t next = before;

        for (size_t i = 0; i < before; i++) { /* the ring begins later */
            add(b, i, 0, 0);
        }
        for (size_t no = 0; no < before; no += 7) {
            assert_takes(b, 0, false, no, 7);
        }
        for (size_t i = 0; i < 1000; i++) {
            add(b, before + i, 0, 0);
        }
        assert_int_equal(batcher_count(b), 1000);
        for (; batcher_count(b) > 0; next += 7) {
            assert_takes(b, 0, true, next,
                         batcher_count(b) < 7 ? batcher_count(b) : 7);
        }
        batcher_free(&b);
    }
}

/* ---- against a naive model --------------------------------------------------
 */

struct model {
    struct batcher_options options;
    struct {
        size_t no;
        int64_t waits_since_ms;
        int64_t came_ms;
    } list[MEMBERS];
    size_t count;
};

static size_t
model_size(const struct model *m)
{
    return m->options.size == 0 ? 1 : m->options.size;
}

static bool
model_is_due(const struct model *m, int64_t now_ms)
{
    int64_t gather_ms = m->options.gather_ms;

    if (m->count == 0 || m->count >= model_size(m)) {
        return m->count > 0;
    }
    if (gather_ms > m->options.max_delay_ms) {
        gather_ms = m->options.max_delay_ms;
    }
    return now_ms - m->list[0].waits_since_ms >= m->options.max_delay_ms &&
           now_ms - m->list[0].came_ms >= gather_ms;
}

static void
model_take(struct model *m, struct batcher *b, int64_t now_ms, bool drain,
           size_t max)
{
    size_t want = 0;
    size_t nos[MOST];

    if (drain || model_is_due(m, now_ms)) {
        want = m->count < model_size(m) ? m->count : model_size(m);
        want = want < max ? want : max;
    }
    assert_int_equal(take(b, now_ms, drain, max, nos), want);
    for (size_t i = 0; i < want; i++) {
        assert_int_equal(nos[i], m->list[i].no);
    }
    m->count -= want;
    memmove(m->list, m->list + want, m->count * sizeof(m->list[0]));
}

static uint32_t
draw(uint32_t *random, uint32_t below)
{
    *random = *random * 1664525U + 1013904223U;
    return (*random >> 8) % below;
}

static void
model_add(struct model *m, struct batcher *b, uint32_t *random, int64_t now_ms)
{
    static size_t no;
    int64_t waited_ms = draw(random, 3) == 0 ? draw(random, 3000) : 0;

    no = (no + 1) % MEMBERS;
    add(b, no, waited_ms, now_ms);
    m->list[m->count].no = no;
    m->list[m->count].waits_since_ms = now_ms - waited_ms;
    m->list[m->count].came_ms = now_ms;
    m->count++;
}

static void
model_configure(struct model *m, struct batcher *b, uint32_t *random)
{
    m->options = (struct batcher_options){
        .size = draw(random, 4) == 0 ? draw(random, 3) : draw(random, 200),
        .max_delay_ms = draw(random, 4) == 0 ? 0 : draw(random, 2000),
        .gather_ms = draw(random, 100),
    };
    batcher_set(b, &m->options);
}

static void
assert_like(const struct model *m, const struct batcher *b, int64_t now_ms)
{
    int64_t due_ms = batcher_due_ms(b, now_ms);

    assert_int_equal(batcher_count(b), m->count);
    assert_int_equal(due_ms <= now_ms, model_is_due(m, now_ms));
    if (due_ms > now_ms && m->count > 0) { /* then, and not a moment before */
        assert_true(model_is_due(m, due_ms));
        assert_false(model_is_due(m, due_ms - 1));
    }
    assert_int_equal(m->count == 0, due_ms == INT64_MAX);
}

static void
it_does_what_a_naive_model_does(void **state)
{
    static struct model m;
    uint32_t random = 20240601;
    int64_t now_ms = 1000000;
    struct batcher *b;

    (void)state;
    m.options = usual;
    b = made(&usual);
    for (int step = 0; step < 40000; step++) {
        uint32_t what = draw(&random, 100);

        if (what < 50 && m.count < MEMBERS - 1) {
            model_add(&m, b, &random, now_ms);
        } else if (what < 70) {
            now_ms += draw(&random, draw(&random, 10) == 0 ? 3000 : 20);
        } else if (what < 97) {
            model_take(&m, b, now_ms, draw(&random, 20) == 0,
                       draw(&random, 10) == 0 ? draw(&random, 50) : MOST);
        } else if (what < 98) {
            model_configure(&m, b, &random);
        } else {
            now_ms = batcher_due_ms(b, now_ms) < INT64_MAX &&
                             batcher_due_ms(b, now_ms) > now_ms
                         ? batcher_due_ms(b, now_ms)
                         : now_ms;
        }
        assert_like(&m, b, now_ms);
    }
    batcher_free(&b);
}

/* ---- no memory --------------------------------------------------------------
 */

static unsigned allocations_to_fail;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);

void *
__wrap_malloc(size_t size)
{
    if (allocations_to_fail > 0) {
        allocations_to_fail--;
        return NULL;
    }
    return __real_malloc(size);
}

void *
__wrap_calloc(size_t count, size_t size)
{
    if (allocations_to_fail > 0) {
        allocations_to_fail--;
        return NULL;
    }
    return __real_calloc(count, size);
}

static void
without_memory_nothing_is_added_and_nothing_lost(void **state)
{
    const struct batcher_options options = {.size = 1000, .max_delay_ms = 1000};
    struct batcher *b = made(&options);
    size_t failures = 0;

    (void)state;
    for (size_t i = 0; i < 300; i++) {
        enum rc rc;

        allocations_to_fail = 1;
        rc = batcher_add(b, &members[i], 0, 0);
        allocations_to_fail = 0;
        if (rc != RC_OK) {
            assert_int_equal(rc, RC_NOMEM);
            assert_int_equal(batcher_count(b), i);
            failures++;
            add(b, i, 0, 0);
        }
    }
    assert_true(failures > 0);
    assert_takes(b, 1000, false, 0, 300);
    batcher_free(&b);
    allocations_to_fail = 1;
    assert_int_equal(batcher_new(&b, &options), RC_NOMEM);
    assert_null(b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_due_of_nothing),
        cmocka_unit_test(the_example_of_the_header_is_true),
        cmocka_unit_test(a_full_batch_is_due_at_once_and_one_less_is_not),
        cmocka_unit_test(
            several_full_batches_leave_one_by_one_and_the_rest_waits),
        cmocka_unit_test(what_it_waited_before_counts),
        cmocka_unit_test(one_that_is_late_already_is_due_after_the_gathering),
        cmocka_unit_test(a_backlog_that_fills_the_batch_does_not_wait_for_more),
        cmocka_unit_test(the_gathering_is_never_longer_than_the_delay),
        cmocka_unit_test(
            a_drain_takes_what_there_is_in_batches_of_the_usual_size),
        cmocka_unit_test(with_a_size_of_0_or_1_each_goes_at_once),
        cmocka_unit_test(no_more_are_taken_than_the_caller_has_room_for),
        cmocka_unit_test(a_smaller_size_makes_those_that_wait_due),
        cmocka_unit_test(
            a_larger_size_holds_them_back_until_their_delay_is_over),
        cmocka_unit_test(another_delay_counts_for_those_that_wait_too),
        cmocka_unit_test(it_grows_and_keeps_the_order_wherever_its_ring_begins),
        cmocka_unit_test(it_does_what_a_naive_model_does),
        cmocka_unit_test(without_memory_nothing_is_added_and_nothing_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
