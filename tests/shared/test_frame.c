/* shared/frame.c: what is written is read again, all else is refused. */
#include "shared/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct frame good = {
    .service = SERVICE_CALLBACK,
    .seq = INT64_C(0x0102030405060708),
    .received_unix_ms = 1767323045678,
    .id = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
    .body = "[1,2]",
    .body_bytes = 5,
};

static void
the_head_is_what_the_header_says(void **state)
{
    static const uint8_t expected[FRAME_HEAD_BYTES] = {
        'S',  'L',  '1',  SERVICE_CALLBACK, /* magic, service */
        8,    7,    6,    5,
        4,    3,    2,    1, /* seq */
        0xae, 0x91, 0x00, 0x7d,
        0x9b, 0x01, 0x00, 0x00, /* received */
        1,    2,    3,    4,
        5,    6,    7,    8, /* id */
        9,    10,   11,   12,
        13,   14,   15,   16,
    };
    struct frame frame = good;
    uint8_t head[FRAME_HEAD_BYTES];

    (void)state;
    frame.received_unix_ms = 0x19b7d0091ae;
    frame_encode_head(&frame, head);
    assert_memory_equal(head, expected, FRAME_HEAD_BYTES);
}

/* A frame in exactly as many bytes as it has, for the address sanitizer. */
static uint8_t *
encode(const struct frame *frame, size_t *bytes)
{
    uint8_t *data = malloc(FRAME_HEAD_BYTES + frame->body_bytes);

    *bytes = FRAME_HEAD_BYTES + frame->body_bytes;
    frame_encode_head(frame, data);
    if (frame->body_bytes > 0) {
        memcpy(data + FRAME_HEAD_BYTES, frame->body, frame->body_bytes);
    }
    return data;
}

static void
a_frame_is_read_as_it_was_written(void **state)
{
    static const int64_t numbers[] = {1, 255, 256, INT64_MAX};

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++) {
        struct frame frame = good;
        struct frame out;
        size_t bytes;
        uint8_t *data;

        frame.seq = numbers[i];
        frame.received_unix_ms = numbers[ARRAY_COUNT(numbers) - 1 - i];
        data = encode(&frame, &bytes);
        assert_int_equal(frame_decode(data, bytes, &out), RC_OK);
        assert_int_equal(out.service, frame.service);
        assert_int_equal(out.seq, frame.seq);
        assert_int_equal(out.received_unix_ms, frame.received_unix_ms);
        assert_memory_equal(out.id.bytes, frame.id.bytes, UUID_BYTES);
        assert_ptr_equal(out.body, data + FRAME_HEAD_BYTES);
        assert_int_equal(out.body_bytes, 5);
        assert_memory_equal(out.body, "[1,2]", 5);
        free(data);
    }
}

static void
what_is_no_frame_is_refused(void **state)
{
    static const struct {
        const char *what;
        size_t at;     /* this byte ... */
        uint8_t value; /* ... becomes this */
        enum rc rc;
    } table[] = {
        {"nothing changed", 0, 'S', RC_OK},
        {"magic 0", 0, 's', RC_INVALID},
        {"magic 1", 1, 'l', RC_INVALID},
        {"another version", 2, '2', RC_INVALID},
        {"no such service", 3, SERVICE_COUNT, RC_INVALID},
        {"no such service", 3, 255, RC_INVALID},
        {"negative seq", 11, 0x80, RC_INVALID},
        {"negative received", 19, 0x80, RC_INVALID},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
        struct frame out;
        size_t bytes;
        uint8_t *data = encode(&good, &bytes);

        data[table[i].at] = table[i].value;
        if (frame_decode(data, bytes, &out) != table[i].rc) {
            fail_msg("%s", table[i].what);
        }
        if (table[i].rc != RC_OK) {
            assert_null(out.body);
            assert_int_equal(out.seq, 0);
        }
        free(data);
    }
}

static void
seq_zero_is_refused_and_received_zero_is_not(void **state)
{
    struct frame frame = good;
    struct frame out;
    uint8_t head[FRAME_HEAD_BYTES];

    (void)state;
    frame.seq = 0;
    frame_encode_head(&frame, head);
    assert_int_equal(frame_decode(head, sizeof(head), &out), RC_INVALID);
    frame.seq = 1;
    frame.received_unix_ms = 0;
    frame_encode_head(&frame, head);
    assert_int_equal(frame_decode(head, sizeof(head), &out), RC_OK);
    assert_int_equal(out.body_bytes, 0);
}

static void
its_length_has_bounds(void **state)
{
    size_t bytes = FRAME_HEAD_BYTES + FRAME_BODY_MAX + 1;
    uint8_t *data = calloc(1, bytes);
    struct frame out;

    (void)state;
    frame_encode_head(&good, data);
    assert_int_equal(frame_decode(data, bytes, &out), RC_INVALID);
    assert_int_equal(frame_decode(data, bytes - 1, &out), RC_OK);
    assert_int_equal(out.body_bytes, FRAME_BODY_MAX);
    assert_int_equal(frame_decode(data, FRAME_HEAD_BYTES, &out), RC_OK);
    assert_int_equal(frame_decode(data, FRAME_HEAD_BYTES - 1, &out),
                     RC_INVALID);
    assert_int_equal(frame_decode(data, 0, &out), RC_INVALID);
    free(data);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_head_is_what_the_header_says),
        cmocka_unit_test(a_frame_is_read_as_it_was_written),
        cmocka_unit_test(what_is_no_frame_is_refused),
        cmocka_unit_test(seq_zero_is_refused_and_received_zero_is_not),
        cmocka_unit_test(its_length_has_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
