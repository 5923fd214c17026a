/* dispatcher/queue.c: bounds, descriptors, threads. */
#include "dispatcher/queue.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static int items[64]; /* only their addresses matter */

static bool
readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

static struct queue *
new_queue(size_t max_count, size_t max_bytes)
{
    struct queue *q;

    assert_int_equal(queue_new(&q, max_count, max_bytes), RC_OK);
    return q;
}

static void
items_come_out_in_the_order_they_went_in(void **state)
{
    struct queue *q = new_queue(3, 0);

    (void)state;
    /* Twice around the ring. */
    for (int i = 0; i < 6; i += 2) {
        assert_int_equal(queue_push(q, &items[i], 1), RC_OK);
        assert_int_equal(queue_push(q, &items[i + 1], 1), RC_OK);
        assert_ptr_equal(queue_pop(q), &items[i]);
        assert_ptr_equal(queue_pop(q), &items[i + 1]);
    }
    assert_null(queue_pop(q));
    queue_free(&q, NULL);
    assert_null(q);
    queue_free(&q, NULL);
}

static void
it_is_full_one_past_its_count(void **state)
{
    struct queue *q = new_queue(2, 0);

    (void)state;
    assert_int_equal(queue_push(q, &items[0], 1000), RC_OK);
    assert_int_equal(queue_push(q, &items[1], 1000), RC_OK);
    assert_int_equal(queue_push(q, &items[2], 0), RC_FULL);
    assert_int_equal(queue_count(q), 2);
    assert_ptr_equal(queue_pop(q), &items[0]);
    assert_int_equal(queue_push(q, &items[2], 0), RC_OK);
    queue_free(&q, NULL);
}

static void
it_is_full_one_past_its_bytes(void **state)
{
    struct queue *q = new_queue(10, 100);

    (void)state;
    assert_int_equal(queue_push(q, &items[0], 60), RC_OK);
    assert_int_equal(queue_push(q, &items[1], 41), RC_FULL);
    assert_int_equal(queue_push(q, &items[1], 40), RC_OK);
    assert_int_equal(queue_bytes(q), 100);
    assert_int_equal(queue_push(q, &items[2], 1), RC_FULL);
    assert_ptr_equal(queue_pop(q), &items[0]);
    assert_int_equal(queue_bytes(q), 40);
    queue_free(&q, NULL);
}

static void
an_empty_queue_takes_an_item_of_any_size(void **state)
{
    struct queue *q = new_queue(10, 100);

    (void)state;
    assert_int_equal(queue_push(q, &items[0], 1000), RC_OK);
    assert_int_equal(queue_push(q, &items[1], 0), RC_FULL);
    assert_ptr_equal(queue_pop(q), &items[0]);
    assert_int_equal(queue_bytes(q), 0);
    assert_int_equal(queue_push(q, &items[1], SIZE_MAX), RC_OK);
    assert_int_equal(queue_push(q, &items[2], SIZE_MAX), RC_FULL);
    queue_free(&q, NULL);
}

static void
ready_is_readable_while_something_waits(void **state)
{
    struct queue *q = new_queue(4, 0);

    (void)state;
    assert_false(readable(queue_ready_fd(q)));
    assert_int_equal(queue_push(q, &items[0], 0), RC_OK);
    assert_int_equal(queue_push(q, &items[1], 0), RC_OK);
    assert_true(readable(queue_ready_fd(q)));
    (void)queue_pop(q);
    assert_true(readable(queue_ready_fd(q)));
    (void)queue_pop(q);
    assert_false(readable(queue_ready_fd(q)));
    assert_null(queue_pop(q));
    assert_false(readable(queue_ready_fd(q)));
    queue_free(&q, NULL);
}

static void
room_is_announced_when_a_quarter_is_free_after_a_refusal(void **state)
{
    struct queue *q = new_queue(8, 0);

    (void)state;
    for (int i = 0; i < 8; i++) {
        assert_int_equal(queue_push(q, &items[i], 0), RC_OK);
    }
    (void)queue_pop(q);
    (void)queue_pop(q);
    assert_false(readable(queue_room_fd(q))); /* nothing was refused */
    assert_int_equal(queue_push(q, &items[8], 0), RC_OK);
    assert_int_equal(queue_push(q, &items[9], 0), RC_OK);
    assert_int_equal(queue_push(q, &items[10], 0), RC_FULL);
    (void)queue_pop(q);
    assert_false(readable(queue_room_fd(q)));
    (void)queue_pop(q);
    assert_true(readable(queue_room_fd(q)));
    (void)queue_pop(q);
    assert_int_equal(queue_push(q, &items[10], 0), RC_OK);
    assert_true(readable(queue_room_fd(q))); /* level, until refused again */
    assert_int_equal(queue_push(q, &items[11], 0), RC_OK);
    assert_int_equal(queue_push(q, &items[12], 0), RC_OK);
    assert_int_equal(queue_push(q, &items[13], 0), RC_FULL);
    assert_false(readable(queue_room_fd(q)));
    queue_free(&q, NULL);
}

static void
room_in_bytes_is_announced_too(void **state)
{
    struct queue *q = new_queue(100, 100);

    (void)state;
    assert_int_equal(queue_push(q, &items[0], 10), RC_OK);
    assert_int_equal(queue_push(q, &items[1], 20), RC_OK);
    assert_int_equal(queue_push(q, &items[2], 70), RC_OK);
    assert_int_equal(queue_push(q, &items[3], 80), RC_FULL);
    (void)queue_pop(q);
    assert_false(readable(queue_room_fd(q)));
    (void)queue_pop(q);
    assert_true(readable(queue_room_fd(q)));
    /* Too large still: refused once more, and told again by the next pop. */
    assert_int_equal(queue_push(q, &items[3], 80), RC_FULL);
    assert_false(readable(queue_room_fd(q)));
    (void)queue_pop(q);
    assert_true(readable(queue_room_fd(q)));
    assert_int_equal(queue_push(q, &items[3], 80), RC_OK);
    queue_free(&q, NULL);
}

static void
a_queue_of_one_announces_room(void **state)
{
    struct queue *q = new_queue(1, 0);

    (void)state;
    assert_int_equal(queue_push(q, &items[0], 0), RC_OK);
    assert_int_equal(queue_push(q, &items[1], 0), RC_FULL);
    (void)queue_pop(q);
    assert_true(readable(queue_room_fd(q)));
    queue_free(&q, NULL);
}

static int dropped_count;

static void
drop(void *item)
{
    assert_non_null(item);
    dropped_count++;
}

static void
what_is_inside_is_dropped_at_the_end(void **state)
{
    struct queue *q = new_queue(4, 0);

    (void)state;
    dropped_count = 0;
    assert_int_equal(queue_push(q, &items[0], 0), RC_OK);
    assert_int_equal(queue_push(q, &items[1], 0), RC_OK);
    queue_free(&q, drop);
    assert_int_equal(dropped_count, 2);
}

/* ---- threads --------------------------------------------------------------
 */

#define PASSED 100000

static void
wait_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    while (poll(&p, 1, 10000) != 1) {
        fail_msg("nothing within 10 s");
    }
}

static void *
produce(void *arg)
{
    struct queue *q = arg;

    for (uintptr_t i = 1; i <= PASSED; i++) {
        uintptr_t *item = malloc(sizeof(*item));

        *item = i;
        while (queue_push(q, item, 1 + i % 5) != RC_OK) {
            wait_readable(queue_room_fd(q));
        }
    }
    return NULL;
}

static void
two_threads_pass_everything_on_in_order(void **state)
{
    struct queue *q = new_queue(16, 40);
    pthread_t producer;

    (void)state;
    assert_int_equal(pthread_create(&producer, NULL, produce, q), 0);
    for (uintptr_t i = 1; i <= PASSED; i++) {
        uintptr_t *item = queue_pop(q);

        while (item == NULL) {
            wait_readable(queue_ready_fd(q));
            item = queue_pop(q);
        }
        assert_int_equal(*item, i);
        free(item);
    }
    assert_int_equal(pthread_join(producer, NULL), 0);
    assert_int_equal(queue_count(q), 0);
    assert_int_equal(queue_bytes(q), 0);
    queue_free(&q, NULL);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_come_out_in_the_order_they_went_in),
        cmocka_unit_test(it_is_full_one_past_its_count),
        cmocka_unit_test(it_is_full_one_past_its_bytes),
        cmocka_unit_test(an_empty_queue_takes_an_item_of_any_size),
        cmocka_unit_test(ready_is_readable_while_something_waits),
        cmocka_unit_test(
            room_is_announced_when_a_quarter_is_free_after_a_refusal),
        cmocka_unit_test(room_in_bytes_is_announced_too),
        cmocka_unit_test(a_queue_of_one_announces_room),
        cmocka_unit_test(what_is_inside_is_dropped_at_the_end),
        cmocka_unit_test(two_threads_pass_everything_on_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
