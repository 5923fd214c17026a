#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "shared/sms_update.h"

#define ID "01890000-0000-7000-8000-00000000002a"

static struct sms_update_head
head_of(int64_t seq)
{
    struct sms_update_head head = {.seq = seq, .received_unix_ms = 1700000};

    assert_int_equal(uuid_parse(ID, &head.id), RC_OK);
    return head;
}

static void
what_was_put_is_got_and_the_form_follows(void **state)
{
    struct sms_update_head head = head_of(7);
    struct sms_update_head got;
    struct text out = {0};
    size_t bytes;

    (void)state;
    sms_update_head_put(&head, &out);
    assert_string_equal(text_cstr(&out), "7 1700000 " ID "\n");
    text_puts(&out, "\1form\n");
    assert_int_equal(sms_update_head_get(out.data, out.bytes, &got, &bytes),
                     RC_OK);
    assert_int_equal(got.seq, 7);
    assert_int_equal(got.received_unix_ms, 1700000);
    assert_memory_equal(got.id.bytes, head.id.bytes, UUID_BYTES);
    assert_string_equal(out.data + bytes, "\1form\n");
    text_free(&out);
}

static void
anything_else_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "\n",
        "7 1700000 " ID,
        "7 1700000 " ID " \n",
        "7 1700000 " ID " x\n",
        "7 1700000\n",
        "-7 1700000 " ID "\n",
        "7 x " ID "\n",
        "7 1700000 01890000-0000-7000-8000-00000000002\n",
    };
    struct sms_update_head got;
    size_t bytes;

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(bad); k++) {
        assert_int_equal(
            sms_update_head_get(bad[k], strlen(bad[k]), &got, &bytes),
            RC_INVALID);
        assert_int_equal(got.seq, 0);
        assert_int_equal(bytes, 0);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_put_is_got_and_the_form_follows),
        cmocka_unit_test(anything_else_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
