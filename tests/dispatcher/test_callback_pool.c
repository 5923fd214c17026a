/* The pool by itself: what test_callback.c cannot see from outside, and what
 * happens when memory runs out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/callback_pool.h"
#include "shared/callback_msg.h"
#include "shared/rc.h"

/* Allocations that succeed from now on; < 0: all. */
static long allocations_left = -1;

void *__real_calloc(size_t count, size_t size);
void *__real_malloc(size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_realloc(void *old, size_t size);

static bool
may_allocate(void)
{
    if (allocations_left == 0) {
        return false;
    }
    allocations_left -= allocations_left > 0;
    return true;
}

void *
__wrap_calloc(size_t count, size_t size)
{
    return may_allocate() ? __real_calloc(count, size) : NULL;
}

void *
__wrap_malloc(size_t size)
{
    return may_allocate() ? __real_malloc(size) : NULL;
}

void *
__wrap_realloc(void *old, size_t size)
{
    return may_allocate() ? __real_realloc(old, size) : NULL;
}

static int
pool_new(void **state)
{
    static const struct callback_pool_options options = {.max_ids = 5000,
                                                         .max_requests = 100};
    struct callback_pool *pool = NULL;

    allocations_left = -1;
    assert_int_equal(callback_pool_new(&pool, &options), RC_OK);
    *state = pool;
    return 0;
}

static int
pool_free(void **state)
{
    struct callback_pool *pool = *state;

    allocations_left = -1;
    callback_pool_free(&pool);
    assert_null(pool);
    callback_pool_free(&pool);
    return 0;
}

static enum rc
add(struct callback_pool *pool, int64_t seq, int64_t from, unsigned count)
{
    struct callback_msg msg = {.count = count};

    for (unsigned i = 0; i < count; i++) {
        msg.ids[i] = from + i;
    }
    return callback_pool_add(pool, seq, seq * 10, &msg);
}

static struct callback_entry *
fly(struct callback_pool *pool)
{
    struct callback_entry *o = callback_pool_next(pool);

    assert_non_null(o);
    callback_pool_started(pool, o);
    return o;
}

static struct callback_pool_counts
counts(const struct callback_pool *pool)
{
    struct callback_pool_counts counts;

    callback_pool_count(pool, &counts);
    return counts;
}

static void
without_memory_a_request_is_not_taken_at_all(void **state)
{
    struct callback_pool *pool = *state;
    enum rc rc = RC_NOMEM;

    assert_int_equal(add(pool, 1, 0, 3), RC_OK);
    for (long left = 0; rc != RC_OK; left++) {
        allocations_left = left;
        rc = add(pool, 2, 2, 200);
        allocations_left = -1;
        if (rc != RC_OK) {
            assert_int_equal(rc, RC_NOMEM);
            assert_int_equal(counts(pool).requests, 1);
            assert_int_equal(counts(pool).ids, 3);
            assert_int_equal(counts(pool).ready, 3);
        }
    }
    assert_int_equal(counts(pool).requests, 2);
    assert_int_equal(counts(pool).ids, 202);
    assert_int_equal(counts(pool).merged, 1);
}

static void
no_pool_comes_of_too_little_memory(void **state)
{
    static const struct callback_pool_options options = {.max_ids = 5000,
                                                         .max_requests = 100};
    struct callback_pool *pool = NULL;
    enum rc rc = RC_NOMEM;

    (void)state;
    for (long left = 0; rc != RC_OK; left++) {
        allocations_left = left;
        rc = callback_pool_new(&pool, &options);
        allocations_left = -1;
        assert_true((pool != NULL) == (rc == RC_OK));
    }
    callback_pool_free(&pool);
}

/* Whatever happens after the start of a GET needs no memory. */
static void
without_memory_ends_are_not_lost(void **state)
{
    struct callback_pool *pool = *state;
    struct callback_entry *o[4];
    struct callback_settled settled[4];
    struct callback_request *request;
    struct callback_failed failed;

    assert_int_equal(add(pool, 1, 0, 4), RC_OK);
    for (int i = 0; i < 4; i++) {
        o[i] = fly(pool);
    }
    allocations_left = 0;
    callback_pool_online(pool, o[0]);
    callback_pool_offline(pool, o[1]);
    callback_pool_failed(pool, o[2], "HTTP 500", 0);
    callback_pool_died(pool, o[3], "HTTP 404");
    assert_int_equal(callback_pool_take_settled(pool, settled, 4), 1);
    assert_true(callback_pool_take_failed(pool, &failed));
    assert_true(failed.error->reason[0] != '\0');
    callback_pool_unref(pool, &failed.error);
    assert_int_equal(callback_pool_due(pool, 1), -1);
    callback_pool_online(pool, fly(pool));
    request = callback_pool_take_finished(pool);
    assert_null(request); /* its last record was not taken */
    assert_int_equal(callback_pool_take_settled(pool, settled, 4), 1);
    request = callback_pool_take_finished(pool);
    assert_non_null(request);
    assert_int_equal(request->dead, 1);
    callback_pool_free_request(pool, &request);
    assert_int_equal(counts(pool).requests, 0);
    assert_int_equal(counts(pool).ids, 0);
}

static void
a_start_without_memory_is_put_off(void **state)
{
    struct callback_pool *pool = *state;

    assert_int_equal(add(pool, 1, 0, 1), RC_OK);
    allocations_left = 0;
    assert_null(callback_pool_next(pool));
    allocations_left = -1;
    assert_non_null(callback_pool_next(pool));
}

static void
the_same_words_are_kept_once(void **state)
{
    struct callback_pool *pool = *state;
    struct callback_request *a;
    struct callback_request *b;

    assert_int_equal(add(pool, 1, 0, 2), RC_OK);
    assert_int_equal(add(pool, 2, 0, 3), RC_OK);
    callback_pool_died(pool, fly(pool), "HTTP 404");
    callback_pool_died(pool, fly(pool), "HTTP 404");
    callback_pool_died(pool, fly(pool), "HTTP 410");
    a = callback_pool_take_finished(pool);
    b = callback_pool_take_finished(pool);
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(a->seq, 1);
    assert_ptr_equal(a->links[0].ended.verdict, b->links[1].ended.verdict);
    assert_int_equal(a->links[0].ended.verdict->refs, 4);
    assert_string_equal(b->links[2].ended.verdict->reason, "HTTP 410");
    callback_pool_free_request(pool, &a);
    assert_int_equal(b->links[0].ended.verdict->refs, 2);
    callback_pool_free_request(pool, &b);
}

static void
a_long_reason_is_cut(void **state)
{
    struct callback_pool *pool = *state;
    struct callback_request *request;
    char reason[1000];

    memset(reason, 'x', sizeof(reason) - 1);
    reason[sizeof(reason) - 1] = '\0';
    assert_int_equal(add(pool, 1, 0, 1), RC_OK);
    callback_pool_died(pool, fly(pool), reason);
    request = callback_pool_take_finished(pool);
    assert_non_null(request);
    assert_int_equal(strlen(request->links[0].ended.verdict->reason), 255);
    callback_pool_free_request(pool, &request);
}

/* An object ended (forget what is recorded of it) and failed anew: were the
 * second written first, the first would wipe it out. */
static void
a_new_failure_does_not_overtake_an_old_end(void **state)
{
    struct callback_pool *pool = *state;
    struct callback_entry *o;
    struct callback_settled settled[2];
    struct callback_failed failed;

    assert_int_equal(callback_pool_remember(pool, 7, 2), RC_OK);
    assert_int_equal(add(pool, 1, 6, 2), RC_OK);
    callback_pool_online(pool, fly(pool));
    o = fly(pool);
    assert_int_equal(o->attempts, 2);
    assert_int_equal(add(pool, 2, 7, 1), RC_OK);
    callback_pool_online(pool, o);
    o = fly(pool);
    assert_int_equal(o->attempts, 0);
    callback_pool_failed(pool, o, "HTTP 500", 0);
    assert_int_equal(callback_pool_take_settled(pool, settled, 1), 1);
    assert_false(settled[0].forget);
    assert_false(callback_pool_take_failed(pool, &failed));
    assert_int_equal(callback_pool_take_settled(pool, settled, 2), 1);
    assert_true(settled[0].forget);
    assert_true(callback_pool_take_failed(pool, &failed));
    assert_int_equal(failed.id, 7);
    assert_int_equal(failed.attempts, 1);
    callback_pool_unref(pool, &failed.error);
    assert_false(callback_pool_take_failed(pool, &failed));
}

static void
what_the_journal_remembers_is_bounded(void **state)
{
    struct callback_pool *pool = *state;

    for (int64_t id = 250000; id > 0; id--) {
        assert_int_equal(callback_pool_remember(pool, id, 1 + id % 3), RC_OK);
    }
    assert_int_equal(callback_pool_remember(pool, 250001, 1), RC_FULL);
    assert_int_equal(callback_pool_remember(pool, 250001, 0), RC_OK);
    assert_int_equal(add(pool, 1, 100, 2), RC_OK);
    assert_int_equal(callback_pool_next(pool)->attempts, 1 + 100 % 3);
}

static void
many_objects_come_in_order(void **state)
{
    struct callback_pool *pool = *state;
    struct callback_settled settled[3];

    for (int64_t seq = 1; seq <= 24; seq++) {
        assert_int_equal(add(pool, seq, (25 - seq) * 1000, 200), RC_OK);
    }
    assert_false(callback_pool_has_room(pool) && counts(pool).ids + 200 > 5000);
    for (int64_t i = 0; i < 24 * 200; i++) {
        struct callback_entry *o = fly(pool);

        assert_int_equal(o->id, (24 - i / 200) * 1000 + i % 200);
        callback_pool_online(pool, o);
    }
    for (int64_t i = 0; i < 24 * 200; i += 3) {
        assert_int_equal(callback_pool_take_settled(pool, settled, 3), 3);
        assert_int_equal(settled[0].object.id, (24 - i / 200) * 1000 + i % 200);
        assert_int_equal(settled[0].object.seq, i / 200 + 1);
        assert_int_equal(settled[0].object.last_seen_unix_ms,
                         (i / 200 + 1) * 10);
    }
}

static void
a_pool_may_be_freed_at_any_point(void **state)
{
    struct callback_pool *pool = *state;

    assert_int_equal(add(pool, 1, 0, 6), RC_OK);
    assert_int_equal(add(pool, 2, 0, 2), RC_OK);
    callback_pool_online(pool, fly(pool));
    callback_pool_died(pool, fly(pool), "HTTP 404"); /* ends 2 */
    callback_pool_failed(pool, fly(pool), "HTTP 500", 5);
    (void)fly(pool);
    assert_int_equal(add(pool, 3, 3, 1), RC_OK);
    assert_int_equal(callback_pool_add(pool, 4, 1, NULL), RC_OK);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, pool_new, pool_free)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(without_memory_a_request_is_not_taken_at_all),
        TEST(no_pool_comes_of_too_little_memory),
        TEST(without_memory_ends_are_not_lost),
        TEST(a_start_without_memory_is_put_off),
        TEST(the_same_words_are_kept_once),
        TEST(a_long_reason_is_cut),
        TEST(a_new_failure_does_not_overtake_an_old_end),
        TEST(what_the_journal_remembers_is_bounded),
        TEST(many_objects_come_in_order),
        TEST(a_pool_may_be_freed_at_any_point),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
