/* A flight's members, halves and body. What is written of it is tested with
 * the service (test_sms.c), on a real journal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "dispatcher/sms_record.h"

#define MOST 9

static const struct uuid ids[2] = {{.bytes = {0xaa}}, {.bytes = {0xbb}}};

static unsigned allocations_to_fail; /* the last of so many fails */

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__real_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size);

void *
__wrap_calloc(size_t count, size_t size)
{
    return allocations_to_fail > 0 && --allocations_to_fail == 0
               ? NULL
               : __real_calloc(count, size);
}

void *
__wrap_realloc(void *memory, size_t size)
{
    return allocations_to_fail > 0 && --allocations_to_fail == 0
               ? NULL
               : __real_realloc(memory, size);
}

static struct work *
work_of(int seq, const char *body, size_t bytes)
{
    const struct uuid id = {.bytes = {[15] = (uint8_t)seq}};
    struct work *work = work_new(SERVICE_SMS, seq, 5, &id, body, bytes);

    assert_non_null(work);
    return work;
}

static struct work *
message(int seq)
{
    return work_of(seq, "+49176 Hello", 12);
}

static struct sms_flight *
flight_of(size_t count, size_t capacity)
{
    struct sms_flight *flight = sms_flight_new(&ids[0], capacity);

    assert_non_null(flight);
    assert_int_equal(flight->count, 0);
    assert_memory_equal(&flight->batch.id, &ids[0], UUID_BYTES);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(sms_flight_put(flight, i, message((int)i + 1)), RC_OK);
    }
    flight->batch.size = (int64_t)count;
    return flight;
}

static void
assert_members(const struct sms_flight *flight, int64_t first, size_t count)
{
    assert_int_equal(flight->count, count);
    for (size_t i = 0; i < flight->capacity; i++) {
        if (i < count) {
            assert_int_equal(flight->members[i]->seq, first + (int64_t)i);
        } else {
            assert_null(flight->members[i]);
        }
    }
}

/* ---- members ----------------------------------------------------------------
 */

static void
a_place_is_taken_once_and_within_the_capacity(void **state)
{
    struct sms_flight *flight = sms_flight_new(&ids[0], 3);
    struct work *spare = message(9);

    (void)state;
    assert_non_null(flight);
    assert_int_equal(sms_flight_put(flight, 2, message(3)), RC_OK);
    assert_int_equal(sms_flight_put(flight, 2, spare), RC_FULL);
    assert_int_equal(sms_flight_put(flight, 3, spare), RC_FULL);
    assert_int_equal(sms_flight_put(flight, SIZE_MAX, spare), RC_FULL);
    assert_int_equal(flight->count, 1);
    assert_int_equal(sms_flight_put(flight, 0, spare), RC_OK);
    assert_int_equal(flight->count, 2);
    sms_flight_free(flight);
    sms_flight_free(NULL);
}

static void
closing_leaves_no_gap_and_keeps_the_order(void **state)
{
    (void)state;
    for (unsigned mask = 0; mask < 1U << MOST; mask++) {
        struct sms_flight *flight = sms_flight_new(&ids[0], MOST);
        size_t count = 0;

        assert_non_null(flight);
        for (size_t i = 0; i < MOST; i++) {
            if ((mask >> i & 1U) != 0) {
                assert_int_equal(sms_flight_put(flight, i, message((int)i + 1)),
                                 RC_OK);
            }
        }
        sms_flight_close(flight);
        for (size_t i = 0; i < MOST; i++) {
            if ((mask >> i & 1U) != 0) {
                assert_int_equal(flight->members[count++]->seq, i + 1);
            }
        }
        assert_int_equal(flight->count, count);
        for (size_t i = count; i < MOST; i++) {
            assert_null(flight->members[i]);
        }
        sms_flight_free(flight);
    }
}

static void
without_memory_there_is_no_flight(void **state)
{
    (void)state;
    for (unsigned nth = 1; nth <= 2; nth++) {
        allocations_to_fail = nth;
        assert_null(sms_flight_new(&ids[0], 3));
        allocations_to_fail = 0;
    }
}

/* ---- halves -----------------------------------------------------------------
 */

static void
halves_have_all_members_in_order_and_are_alike_in_size(void **state)
{
    (void)state;
    for (size_t count = 2; count <= MOST; count++) {
        struct sms_flight *flight = flight_of(count, MOST);
        size_t first = (count + 1) / 2;

        assert_int_equal(sms_flight_split(flight, ids, 2), RC_OK);
        assert_members(flight, 0, 0);
        assert_members(flight->halves[0], 1, first);
        assert_members(flight->halves[1], (int64_t)first + 1, count - first);
        for (size_t i = 0; i < 2; i++) {
            const struct sms_flight *half = flight->halves[i];

            assert_memory_equal(&half->batch.id, &ids[i], UUID_BYTES);
            assert_int_equal(half->batch.size, half->count);
            assert_int_equal(half->batch.attempts, 0);
            assert_int_equal(half->batch.failures, 0);
            assert_string_equal(half->batch.error, "");
            assert_int_equal(half->body.bytes, 0);
        }
        sms_flight_join(flight);
        assert_members(flight, 1, count);
        assert_null(flight->halves[0]);
        assert_null(flight->halves[1]);
        sms_flight_free(flight);
    }
}

static void
of_one_part_the_members_move_as_they_are(void **state)
{
    (void)state;
    for (size_t count = 1; count <= 3; count++) {
        struct sms_flight *flight = flight_of(count, 3);

        assert_int_equal(sms_flight_split(flight, ids, 1), RC_OK);
        assert_members(flight->halves[0], 1, count);
        assert_null(flight->halves[1]);
        assert_int_equal(flight->count, 0);
        sms_flight_free(flight); /* with them */
    }
}

static void
a_half_is_split_again(void **state)
{
    struct sms_flight *flight = flight_of(5, 5);
    struct sms_flight *half;

    (void)state;
    assert_int_equal(sms_flight_split(flight, ids, 2), RC_OK);
    half = flight->halves[0];
    assert_int_equal(sms_flight_split(half, ids, 2), RC_OK);
    assert_members(half->halves[0], 1, 2);
    assert_members(half->halves[1], 3, 1);
    sms_flight_join(half);
    sms_flight_join(flight);
    assert_members(flight, 1, 5);
    sms_flight_free(flight);
}

static void
without_memory_for_the_halves_nothing_moves(void **state)
{
    (void)state;
    for (unsigned nth = 1; nth <= 4; nth++) {
        struct sms_flight *flight = flight_of(4, 4);

        allocations_to_fail = nth;
        assert_int_equal(sms_flight_split(flight, ids, 2), RC_NOMEM);
        allocations_to_fail = 0;
        assert_members(flight, 1, 4);
        assert_null(flight->halves[0]);
        assert_null(flight->halves[1]);
        sms_flight_free(flight);
    }
}

/* ---- the body ---------------------------------------------------------------
 */

static void
the_body_is_an_array_of_the_messages(void **state)
{
    static const char content[] = "+49176 say \"hi\"\\\n\xc3\xbc\x01";
    struct sms_flight *flight = flight_of(1, 2);

    (void)state;
    assert_int_equal(
        sms_flight_put(flight, 1, work_of(2, content, strlen(content))), RC_OK);
    assert_int_equal(sms_flight_body(flight), RC_OK);
    assert_string_equal(
        text_cstr(&flight->body),
        "[{\"message_id\":\"00000000-0000-0000-0000-000000000001\","
        "\"phone_number\":\"+49176\",\"message\":\"Hello\"},"
        "{\"message_id\":\"00000000-0000-0000-0000-000000000002\","
        "\"phone_number\":\"+49176\","
        "\"message\":\"say \\\"hi\\\"\\\\\\n\xc3\xbc\\u0001\"}]");
    sms_flight_free(flight);
}

static void
a_body_that_is_there_stays(void **state)
{
    struct sms_flight *flight = flight_of(1, 1);

    (void)state;
    text_puts(&flight->body, "[as it was]");
    assert_int_equal(sms_flight_body(flight), RC_OK);
    assert_string_equal(text_cstr(&flight->body), "[as it was]");
    sms_flight_free(flight);
}

static void
a_member_that_cannot_be_decoded_leaves_no_body(void **state)
{
    struct sms_flight *flight = flight_of(1, 2);

    (void)state;
    assert_int_equal(sms_flight_put(flight, 1, work_of(2, "x", 1)), RC_OK);
    assert_int_equal(sms_flight_body(flight), RC_INVALID);
    assert_int_equal(flight->body.bytes, 0);
    assert_int_equal(sms_flight_body(flight), RC_INVALID);
    sms_flight_free(flight);
}

static void
without_memory_there_is_no_body_but_later(void **state)
{
    struct sms_flight *flight = flight_of(3, 3);

    (void)state;
    allocations_to_fail = 1;
    assert_int_equal(sms_flight_body(flight), RC_NOMEM);
    assert_int_equal(allocations_to_fail, 0);
    assert_int_equal(flight->body.bytes, 0);
    assert_int_equal(sms_flight_body(flight), RC_OK);
    assert_true(flight->body.bytes > 0);
    sms_flight_free(flight);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_place_is_taken_once_and_within_the_capacity),
        cmocka_unit_test(closing_leaves_no_gap_and_keeps_the_order),
        cmocka_unit_test(without_memory_there_is_no_flight),
        cmocka_unit_test(
            halves_have_all_members_in_order_and_are_alike_in_size),
        cmocka_unit_test(of_one_part_the_members_move_as_they_are),
        cmocka_unit_test(a_half_is_split_again),
        cmocka_unit_test(without_memory_for_the_halves_nothing_moves),
        cmocka_unit_test(the_body_is_an_array_of_the_messages),
        cmocka_unit_test(a_body_that_is_there_stays),
        cmocka_unit_test(a_member_that_cannot_be_decoded_leaves_no_body),
        cmocka_unit_test(without_memory_there_is_no_body_but_later),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
