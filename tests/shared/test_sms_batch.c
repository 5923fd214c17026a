/* shared/sms_batch.c: the journal form of a batch's outcome. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "shared/sms_batch.h"

#define ID "01890000-0000-7000-8000-00000000002a"
#define LINE "\1" ID " 2 3 1000 2000 "
#define SENT "5 900 " ID " 9\n+491 a\nb "

static struct sms_batch
batch_with(const char *error)
{
    struct sms_batch batch = {.size = 2,
                              .attempts = 3,
                              .started_unix_ms = 1000,
                              .finished_unix_ms = 2000};

    assert_int_equal(uuid_parse(ID, &batch.id), RC_OK);
    (void)snprintf(batch.error, sizeof(batch.error), "%s", error);
    return batch;
}

static struct sms_sent
sent_with(int64_t seq, const char *body, size_t bytes)
{
    struct sms_sent sent = {
        .seq = seq, .received_unix_ms = 900, .body = body, .body_bytes = bytes};

    assert_int_equal(uuid_parse(ID, &sent.id), RC_OK);
    return sent;
}

static enum rc
open_text(const struct text *t, struct sms_batch *batch, bool *has,
          struct sms_batch_cursor *cursor)
{
    assert_false(text_failed(t));
    return sms_batch_open(t->data, t->bytes, batch, has, cursor);
}

static void
a_batch_and_its_messages_come_back_in_order(void **state)
{
    static const char body[] = "+491 a\nb ";
    struct sms_batch batch = batch_with("HTTP 500: \xc3\xa9 1 2");
    struct sms_sent first = sent_with(5, body, strlen(body));
    struct sms_sent second = sent_with(6, "", 0);
    struct sms_batch got;
    struct sms_batch_cursor cursor;
    struct sms_sent sent;
    struct text out = {0};
    bool has;

    (void)state;
    sms_batch_begin(&batch, &out);
    sms_batch_put(&first, &out);
    sms_batch_put(&second, &out);
    assert_string_equal(text_cstr(&out), LINE "HTTP 500: \xc3\xa9 1 2\n" SENT
                                              "6 900 " ID " 0\n");
    assert_int_equal(open_text(&out, &got, &has, &cursor), RC_OK);
    assert_true(has);
    assert_memory_equal(&got, &batch, sizeof(got));
    assert_int_equal(sms_batch_next(&cursor, &sent), RC_OK);
    assert_int_equal(sent.seq, 5);
    assert_int_equal(sent.received_unix_ms, 900);
    assert_memory_equal(sent.id.bytes, batch.id.bytes, UUID_BYTES);
    assert_int_equal(sent.body_bytes, strlen(body));
    assert_memory_equal(sent.body, body, sent.body_bytes);
    assert_int_equal(sms_batch_next(&cursor, &sent), RC_OK);
    assert_int_equal(sent.seq, 6);
    assert_int_equal(sent.body_bytes, 0);
    assert_int_equal(sms_batch_next(&cursor, &sent), RC_AGAIN);
    assert_int_equal(sms_batch_next(&cursor, &sent), RC_AGAIN);
    text_free(&out);
}

static void
messages_may_come_without_a_batch(void **state)
{
    struct sms_sent first = sent_with(5, "+491 a\nb ", 9);
    struct sms_batch got;
    struct sms_batch_cursor cursor;
    struct sms_sent sent;
    struct text out = {0};
    bool has;

    (void)state;
    sms_batch_begin(NULL, &out);
    sms_batch_put(&first, &out);
    assert_string_equal(text_cstr(&out), "\1-\n" SENT);
    assert_int_equal(open_text(&out, &got, &has, &cursor), RC_OK);
    assert_false(has);
    assert_int_equal(sms_batch_next(&cursor, &sent), RC_OK);
    assert_int_equal(sent.seq, 5);
    assert_int_equal(sms_batch_next(&cursor, &sent), RC_AGAIN);
    text_free(&out);
}

static void
a_batch_may_come_without_messages_and_error(void **state)
{
    struct sms_batch batch = batch_with("");
    struct sms_batch got;
    struct sms_batch_cursor cursor;
    struct sms_sent sent;
    struct text out = {0};
    bool has;

    (void)state;
    sms_batch_begin(&batch, &out);
    assert_string_equal(text_cstr(&out), LINE "\n");
    assert_int_equal(open_text(&out, &got, &has, &cursor), RC_OK);
    assert_true(has);
    assert_string_equal(got.error, "");
    assert_int_equal(sms_batch_next(&cursor, &sent), RC_AGAIN);
    text_free(&out);
}

static void
an_error_becomes_one_line_of_utf_8(void **state)
{
    struct sms_batch batch = batch_with("one\ntwo\n");
    struct sms_batch got;
    struct sms_batch_cursor cursor;
    struct text out = {0};
    bool has;

    (void)state;
    sms_batch_begin(&batch, &out);
    assert_int_equal(open_text(&out, &got, &has, &cursor), RC_OK);
    assert_string_equal(got.error, "one two ");
    batch = batch_with("\xff"
                       "caf\xc3"); /* cut within a character */
    text_reset(&out);
    sms_batch_begin(&batch, &out);
    assert_int_equal(open_text(&out, &got, &has, &cursor), RC_OK);
    assert_string_equal(got.error, "?caf?");
    memset(batch.error, 'x', sizeof(batch.error) - 1); /* as long as may be */
    text_reset(&out);
    sms_batch_begin(&batch, &out);
    assert_int_equal(open_text(&out, &got, &has, &cursor), RC_OK);
    assert_string_equal(got.error, batch.error);
    text_free(&out);
}

static enum rc
walk(const char *body, size_t bytes)
{
    struct sms_batch batch;
    struct sms_batch_cursor cursor;
    struct sms_sent sent;
    bool has;
    enum rc rc = sms_batch_open(body, bytes, &batch, &has, &cursor);

    while (rc == RC_OK) {
        rc = sms_batch_next(&cursor, &sent);
    }
    return rc;
}

static void
what_was_never_written_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "\1",
        "\1-",
        "\2-\n",
        "-\n",
        "\1--\n",
        "\1" ID "\n",
        "\1" ID " 0 3 1000 2000 \n",
        "\1" ID " 1001 3 1000 2000 \n",
        "\1" ID " 2 0 1000 2000 \n",
        "\1" ID " 2 2147483648 1000 2000 \n",
        "\1" ID " 2 3 1000 2000\n",
        "\1" ID " 2 3 -1 2000 \n",
        "\1x 2 3 1000 2000 \n",
        LINE "\xff\n",
        LINE "\n5",
        LINE "\n5 900 " ID " 1\n",
        LINE "\n5 900 " ID "\n",
        LINE "\n5 900 " ID " 0 \n",
        LINE "\n5 900 x 0\n",
        LINE "\nx 900 " ID " 0\n",
        LINE "\n5 900 " ID " 9999999999999999\n",
    };
    static const char nul[] = LINE "a\0b\n";

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(bad); k++) {
        assert_int_equal(walk(bad[k], strlen(bad[k])), RC_INVALID);
    }
    assert_int_equal(walk(nul, sizeof(nul) - 1), RC_INVALID);
    assert_int_equal(walk(LINE "\n" SENT, strlen(LINE "\n" SENT)), RC_AGAIN);
}

static void
every_cut_of_an_outcome_is_refused_or_ends_between_messages(void **state)
{
    static const char whole[] = LINE "boom\n" SENT SENT;
    const size_t head = strlen(LINE "boom\n");
    const size_t one = strlen(SENT);

    (void)state;
    for (size_t bytes = 0; bytes < sizeof(whole); bytes++) {
        bool between = bytes >= head && (bytes - head) % one == 0;

        assert_int_equal(walk(whole, bytes), between ? RC_AGAIN : RC_INVALID);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_and_its_messages_come_back_in_order),
        cmocka_unit_test(messages_may_come_without_a_batch),
        cmocka_unit_test(a_batch_may_come_without_messages_and_error),
        cmocka_unit_test(an_error_becomes_one_line_of_utf_8),
        cmocka_unit_test(what_was_never_written_is_refused),
        cmocka_unit_test(
            every_cut_of_an_outcome_is_refused_or_ends_between_messages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
