/* shared/uuid.c */
#include "shared/uuid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define NOW_MS INT64_C(1767322985678)

static struct uuid
next(struct uuid_source *s, int64_t now_unix_ms)
{
    struct uuid id;

    assert_int_equal(uuid_next(s, now_unix_ms, &id), RC_OK);
    return id;
}

static void
assert_ascending(const struct uuid *a, const struct uuid *b)
{
    assert_true(memcmp(a->bytes, b->bytes, UUID_BYTES) < 0);
}

static void
an_id_holds_version_variant_time_and_node(void **state)
{
    struct uuid_source s;
    struct uuid id;
    char text[UUID_TEXT_BYTES];

    (void)state;
    uuid_source_init(&s, 0xbeef);
    for (int i = 0; i < 500; i++) {
        id = next(&s, NOW_MS + i);
        assert_int_equal(id.bytes[6] >> 4, 7);
        assert_int_equal(id.bytes[8] >> 6, 2);
        assert_int_equal(uuid_unix_ms(&id), NOW_MS + i);
        assert_int_equal(uuid_node(&id), 0xbeef);
        assert_string_equal(uuid_format(&id, text) + 32, "beef");
    }
}

static void
ids_of_one_millisecond_ascend_past_the_counters_end(void **state)
{
    struct uuid_source s;
    struct uuid last;

    (void)state;
    uuid_source_init(&s, 1);
    last = next(&s, NOW_MS);
    for (int i = 0; i < 20000; i++) {
        struct uuid id = next(&s, NOW_MS);

        assert_ascending(&last, &id);
        last = id;
    }
    /* 4096 a millisecond: some were borrowed, not more than needed. */
    assert_true(uuid_unix_ms(&last) > NOW_MS);
    assert_true(uuid_unix_ms(&last) <= NOW_MS + 5);
    /* The real time catches up with what was borrowed. */
    for (int i = 0; i < 100; i++) {
        struct uuid id = next(&s, NOW_MS + i);

        assert_ascending(&last, &id);
        last = id;
    }
    assert_int_equal(uuid_unix_ms(&last), NOW_MS + 99);
}

static void
ids_ascend_when_the_clock_steps_back(void **state)
{
    struct uuid_source s;
    struct uuid a;
    struct uuid b;

    (void)state;
    uuid_source_init(&s, 1);
    a = next(&s, NOW_MS);
    b = next(&s, NOW_MS - 3600000);
    assert_ascending(&a, &b);
    a = next(&s, 0);
    assert_ascending(&b, &a);
    b = next(&s, NOW_MS + 1);
    assert_ascending(&a, &b);
}

static void
times_out_of_range_are_clamped(void **state)
{
    struct uuid_source s;
    struct uuid id;

    (void)state;
    uuid_source_init(&s, 1);
    id = next(&s, -5);
    assert_int_equal(uuid_unix_ms(&id), 0);
    id = next(&s, INT64_MAX);
    assert_int_equal(uuid_unix_ms(&id), (INT64_C(1) << 48) - 1);
}

static void
two_sources_make_different_ids(void **state)
{
    struct uuid_source a;
    struct uuid_source b;

    (void)state;
    uuid_source_init(&a, 1);
    uuid_source_init(&b, 1);
    for (int i = 0; i < 100; i++) {
        struct uuid of_a = next(&a, NOW_MS);
        struct uuid of_b = next(&b, NOW_MS);

        assert_memory_not_equal(&of_a, &of_b, sizeof(of_a));
    }
}

static void
format_and_parse_are_inverse_in_any_case(void **state)
{
    static const char lower[] = "01234567-89ab-7def-8123-456789abcdef";
    static const char upper[] = "01234567-89AB-7DEF-8123-456789ABCDEF";
    struct uuid id;
    char text[UUID_TEXT_BYTES];

    (void)state;
    assert_int_equal(uuid_parse(lower, &id), RC_OK);
    assert_string_equal(uuid_format(&id, text), lower);
    assert_int_equal(uuid_parse(upper, &id), RC_OK);
    assert_string_equal(uuid_format(&id, text), lower);
    assert_int_equal(uuid_parse("ffffffff-ffff-ffff-ffff-ffffffffffff", &id),
                     RC_OK);
    assert_int_equal(uuid_node(&id), 0xffff);
}

static void
what_is_not_36_characters_of_the_form_is_invalid(void **state)
{
    static const char *const cases[] = {
        "",
        "0",
        "01234567-89ab-7def-8123-456789abcde",
        "01234567-89ab-7def-8123-456789abcdef0",
        "01234567-89ab-7def-8123-456789abcdef ",
        " 01234567-89ab-7def-8123-456789abcdef",
        "0123456789ab7def8123456789abcdef",
        "01234567x89ab-7def-8123-456789abcdef",
        "01234567-89ab-7def-8123-456789abcdeg",
        "{1234567-89ab-7def-8123-456789abcdef",
        "01234567-89ab-7def-8123",
        "01234567-",
        "01234567--9ab-7def-8123-456789abcdef",
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        static const struct uuid zero;
        struct uuid id;

        memset(&id, 1, sizeof(id));
        assert_int_equal(uuid_parse(cases[i], &id), RC_INVALID);
        assert_memory_equal(&id, &zero, sizeof(id));
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_id_holds_version_variant_time_and_node),
        cmocka_unit_test(ids_of_one_millisecond_ascend_past_the_counters_end),
        cmocka_unit_test(ids_ascend_when_the_clock_steps_back),
        cmocka_unit_test(times_out_of_range_are_clamped),
        cmocka_unit_test(two_sources_make_different_ids),
        cmocka_unit_test(format_and_parse_are_inverse_in_any_case),
        cmocka_unit_test(what_is_not_36_characters_of_the_form_is_invalid),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
