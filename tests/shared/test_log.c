/* shared/log.c, with stderr turned into a pipe. */
#include "shared/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define LINE_MAX_BYTES 1024

struct capture {
    int saved;
    int read_end;
};

static void
capture_begin(struct capture *c)
{
    int ends[2];

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    c->saved = dup(STDERR_FILENO);
    assert_true(c->saved >= 0);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    (void)close(ends[1]);
    c->read_end = ends[0];
}

/* What was logged, NUL-terminated. Returns its length. */
static size_t
capture_end(struct capture *c, char *out, size_t size)
{
    size_t bytes = 0;
    ssize_t got;

    assert_true(dup2(c->saved, STDERR_FILENO) >= 0);
    (void)close(c->saved);
    do {
        got = read(c->read_end, out + bytes, size - 1 - bytes);
        assert_true(got >= 0);
        bytes += (size_t)got;
    } while (got > 0);
    out[bytes] = '\0';
    (void)close(c->read_end);
    return bytes;
}

static void
an_event_is_one_line_of_pairs(void **state)
{
    struct capture c;
    char out[4096];

    (void)state;
    log_init("tester", LOG_INFO);
    capture_begin(&c);
    log_event(LOG_WARN, "feed_behind", "service=%s cursor=%d", "callback", 17);
    (void)capture_end(&c, out, sizeof(out));
    assert_int_equal(strncmp(out, "ts=2", 4), 0);
    assert_int_equal(out[3 + 24 - 1], 'Z');
    assert_string_equal(out + 3 + 24, " level=warn prog=tester "
                                      "event=feed_behind service=callback "
                                      "cursor=17\n");
}

static void
events_below_the_level_are_not_written(void **state)
{
    struct capture c;
    char out[4096];

    (void)state;
    log_init("tester", LOG_WARN);
    capture_begin(&c);
    log_event(LOG_INFO, "no", "a=%d", 1);
    log_event(LOG_WARN, "first", "a=%d", 1);
    log_set_level(LOG_ERROR);
    log_event(LOG_WARN, "no", "a=%d", 1);
    log_set_level(LOG_DEBUG);
    log_event(LOG_DEBUG, "second", "a=%d", 1);
    (void)capture_end(&c, out, sizeof(out));
    assert_null(strstr(out, "event=no"));
    assert_non_null(strstr(out, "level=warn prog=tester event=first a=1\n"));
    assert_non_null(strstr(out, "level=debug prog=tester event=second a=1\n"));
}

static void
a_line_is_cut_to_1_kib_between_characters(void **state)
{
    (void)state;
    log_init("tester", LOG_INFO);
    for (int length = 900; length < 1100; length++) {
        struct capture c;
        char long_value[2300];
        char out[8192];
        size_t bytes;

        /* Two-byte characters: one of two lengths would be cut in half. */
        for (int i = 0; i < length; i++) {
            memcpy(long_value + 2 * i, "\xc3\xa4", 2);
        }
        long_value[2 * length] = '\0';
        capture_begin(&c);
        log_event(LOG_INFO, length % 2 ? "odd" : "even", "v=%s", long_value);
        bytes = capture_end(&c, out, sizeof(out));
        assert_true(bytes >= LINE_MAX_BYTES - 1 && bytes <= LINE_MAX_BYTES);
        assert_string_equal(out + bytes - 4, "...\n");
        assert_int_equal((unsigned char)out[bytes - 5], 0xa4);
    }
}

static void
a_line_of_exactly_1_kib_is_whole_and_one_more_is_cut(void **state)
{
    (void)state;
    log_init("tester", LOG_INFO);
    for (int extra = 0; extra < 2; extra++) {
        struct capture c;
        char out[4096];
        char value[LINE_MAX_BYTES];
        size_t head;
        size_t bytes;

        capture_begin(&c);
        log_event(LOG_INFO, "e", "v=%s", "");
        head = capture_end(&c, out, sizeof(out));
        memset(value, 'x', sizeof(value));
        value[LINE_MAX_BYTES - head + (size_t)extra] = '\0';
        capture_begin(&c);
        log_event(LOG_INFO, "e", "v=%s", value);
        bytes = capture_end(&c, out, sizeof(out));
        assert_int_equal(bytes, LINE_MAX_BYTES);
        assert_string_equal(out + bytes - 4, extra ? "...\n" : "xxx\n");
    }
}

static void
a_newline_in_an_argument_makes_no_second_line(void **state)
{
    struct capture c;
    char out[4096];
    size_t bytes;

    (void)state;
    log_init("tester", LOG_INFO);
    capture_begin(&c);
    log_event(LOG_INFO, "e", "v=%s", "a\nlevel=error\033[0m");
    bytes = capture_end(&c, out, sizeof(out));
    assert_ptr_equal(strchr(out, '\n'), out + bytes - 1);
    assert_non_null(strstr(out, "v=a?level=error?[0m\n"));
}

static void
errno_survives_and_a_closed_stderr_is_no_harm(void **state)
{
    int saved = dup(STDERR_FILENO);

    (void)state;
    log_init("tester", LOG_INFO);
    assert_true(saved >= 0);
    (void)close(STDERR_FILENO);
    errno = ENOTTY;
    log_event(LOG_ERROR, "e", "a=%d", 1);
    assert_int_equal(errno, ENOTTY);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    (void)close(saved);
}

static void *
write_100_lines(void *arg)
{
    const char *who = arg;

    for (int i = 0; i < 100; i++) {
        log_event(LOG_INFO, "t", "who=%s i=%d end", who, i);
    }
    return NULL;
}

static void
lines_of_threads_do_not_mix(void **state)
{
    static char names[4][101];
    pthread_t threads[4];
    struct capture c;
    char *out = malloc(200000);
    unsigned lines = 0;

    (void)state;
    assert_non_null(out);
    log_init("tester", LOG_INFO);
    capture_begin(&c);
    /* 400 lines of 190 bytes would block a 64 KiB pipe. */
    (void)fcntl(c.read_end, F_SETPIPE_SZ, 1 << 18);
    for (int i = 0; i < 4; i++) {
        memset(names[i], 'a' + i, 40);
        assert_int_equal(
            pthread_create(&threads[i], NULL, write_100_lines, names[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    (void)capture_end(&c, out, 200000);
    for (char *p = out; *p != '\0';) {
        char *end = strchr(p, '\n');

        assert_non_null(end);
        assert_int_equal(strncmp(p, "ts=", 3), 0);
        assert_int_equal(strncmp(end - 4, " end", 4), 0);
        lines++;
        p = end + 1;
    }
    assert_int_equal(lines, 400);
    free(out);
}

static void
levels_are_read_by_their_exact_names(void **state)
{
    enum log_level level;

    (void)state;
    assert_int_equal(log_level_parse("error", &level), RC_OK);
    assert_int_equal(level, LOG_ERROR);
    assert_int_equal(log_level_parse("debug", &level), RC_OK);
    assert_int_equal(level, LOG_DEBUG);
    assert_int_equal(log_level_parse("warning", &level), RC_INVALID);
    assert_int_equal(log_level_parse("INFO", &level), RC_INVALID);
    assert_int_equal(log_level_parse("", &level), RC_INVALID);
}

static void
values_are_quoted_when_they_must_be(void **state)
{
    static const struct {
        const char *text;
        const char *quoted;
    } cases[] = {
        {NULL, "\"\""},
        {"", "\"\""},
        {"plain", "plain"},
        {"/a/b:c,d;e", "/a/b:c,d;e"},
        {"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},
        {"a b", "\"a b\""},
        {"a=b", "\"a=b\""},
        {"say \"x\\y\"", "\"say \\\"x\\\\y\\\"\""},
        {"l1\nl2\r\t", "\"l1\\nl2\\r\\t\""},
        {"\x01\x7f\xff", "\"\\x01\\x7f\\xff\""},
        {"\xed\xa0\x80", "\"\\xed\\xa0\\x80\""},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        char out[64];

        assert_string_equal(log_quote(cases[i].text, out, sizeof(out)),
                            cases[i].quoted);
    }
}

static void
a_long_value_is_cut_to_every_size_and_stays_closed(void **state)
{
    static const char *const texts[] = {
        "abcdefghijklmnopqrstuvwxyz", "a b c d e f g h i j k",
        "\n\n\n\n\n\n\n\n\n\n\n\n\n\n", "\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        "\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80"};

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(texts); i++) {
        for (unsigned long size = 9; size < 15; size++) {
            char *out = malloc(size); /* exact, for the address sanitizer */
            size_t bytes;

            assert_non_null(out);
            bytes = strlen(log_quote(texts[i], out, size));
            assert_true(bytes < size);
            if (out[0] == '"') {
                assert_int_equal(out[bytes - 1], '"');
                bytes--;
            }
            assert_int_equal(strncmp(out + bytes - 3, "...", 3), 0);
            free(out);
        }
    }
}

static void
a_value_that_just_fits_is_not_cut(void **state)
{
    char out[10];

    (void)state;
    assert_string_equal(log_quote("123456789", out, sizeof(out)), "123456789");
    assert_string_equal(log_quote("1234567890", out, sizeof(out)), "123456...");
    assert_string_equal(log_quote("1 34567", out, sizeof(out)), "\"1 34567\"");
    assert_string_equal(log_quote("1 345678", out, sizeof(out)), "\"1 34...\"");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_event_is_one_line_of_pairs),
        cmocka_unit_test(events_below_the_level_are_not_written),
        cmocka_unit_test(a_line_is_cut_to_1_kib_between_characters),
        cmocka_unit_test(a_line_of_exactly_1_kib_is_whole_and_one_more_is_cut),
        cmocka_unit_test(a_newline_in_an_argument_makes_no_second_line),
        cmocka_unit_test(errno_survives_and_a_closed_stderr_is_no_harm),
        cmocka_unit_test(lines_of_threads_do_not_mix),
        cmocka_unit_test(levels_are_read_by_their_exact_names),
        cmocka_unit_test(values_are_quoted_when_they_must_be),
        cmocka_unit_test(a_long_value_is_cut_to_every_size_and_stays_closed),
        cmocka_unit_test(a_value_that_just_fits_is_not_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
