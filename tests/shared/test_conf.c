/* shared/conf.c, on files in a temporary folder. */
#include "shared/conf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/stat.h>

#include <cmocka.h>

#define ARGS_MAX 16

/* One instance's folder and what the last load said. */
struct fixture {
    char dir[64];
    char file[96];
    char errors[4096];
    struct conf conf;
};

static int
setup(void **state)
{
    static struct fixture f;

    memset(&f, 0, sizeof(f));
    (void)snprintf(f.dir, sizeof(f.dir), "/tmp/sluice-conf-XXXXXX");
    if (mkdtemp(f.dir) == NULL) {
        return -1;
    }
    (void)snprintf(f.file, sizeof(f.file), "%s/sluice.conf", f.dir);
    (void)unsetenv("SLUICE_CONFIG");
    *state = &f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;

    (void)unlink(f->file);
    return rmdir(f->dir);
}

static void
write_bytes(const struct fixture *f, const char *text, size_t bytes)
{
    FILE *file = fopen(f->file, "we");

    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

/* Load with --config FILE and what follows (ends with NULL). */
static enum rc
load(struct fixture *f, ...)
{
    char *argv[ARGS_MAX + 1] = {NULL};
    int argc = 0;
    struct text errors = {0};
    va_list args;
    enum rc rc;

    argv[argc++] = strdup("test");
    argv[argc++] = strdup("--config");
    argv[argc++] = strdup(f->file);
    va_start(args, f);
    for (const char *arg = va_arg(args, const char *); arg != NULL;
         arg = va_arg(args, const char *)) {
        assert_true(argc < ARGS_MAX);
        argv[argc++] = strdup(arg);
    }
    va_end(args);
    rc = conf_load(argc, argv, NULL, NULL, &f->conf, &errors);
    (void)snprintf(f->errors, sizeof(f->errors), "%s", text_cstr(&errors));
    text_free(&errors);
    for (int i = 0; i < argc; i++) {
        free(argv[i]);
    }
    return rc;
}

static enum rc
load_text(struct fixture *f, const char *text)
{
    write_bytes(f, text, strlen(text));
    return load(f, NULL);
}

/* The errors are exactly these lines; "%" stands for the file's name. */
static void
assert_errors(const struct fixture *f, const char *expected)
{
    struct text t = {0};

    for (; *expected != '\0'; expected++) {
        if (*expected == '%') {
            text_puts(&t, f->file);
        } else {
            text_putc(&t, *expected);
        }
    }
    assert_string_equal(f->errors, text_cstr(&t));
    text_free(&t);
}

static const char *
in_dir(const struct fixture *f, const char *name)
{
    static char path[128];

    (void)snprintf(path, sizeof(path), "%s%s", f->dir, name);
    return path;
}

static void
an_empty_file_gives_the_documented_defaults(void **state)
{
    struct fixture *f = *state;
    struct conf *c = &f->conf;
    char expected[128];

    assert_int_equal(load_text(f, ""), RC_OK);
    assert_errors(f, "");
    assert_string_equal(c->file, f->file);
    assert_int_equal(c->node.id, 0);
    assert_string_equal(c->node.dir, f->dir);
    assert_string_equal(c->node.run_dir, in_dir(f, "/run"));
    assert_int_equal(c->log.level, LOG_INFO);
    assert_string_equal(c->journal.path, in_dir(f, "/journal.db"));
    assert_true(c->journal.max_bytes == INT64_C(10) << 30);
    assert_int_equal(c->journal.reserve_bytes, 128 << 20);
    assert_int_equal(c->journal.lock_timeout_ms, 5000);
    (void)snprintf(expected, sizeof(expected), "ipc://%s/run/link.sock",
                   f->dir);
    assert_string_equal(c->link.endpoint, expected);
    assert_string_equal(c->control.path, in_dir(f, "/run/control.sock"));
    assert_int_equal(c->edge.batch, 64);
    assert_int_equal(c->edge.side_threads, 4);
    assert_int_equal(c->edge.ask_threads, 4);
    assert_int_equal(c->edge.max_body_bytes, 65536);
    assert_int_equal(c->edge.body_timeout_ms, 10000);
    assert_int_equal(c->edge.max_connections, 4096);
    assert_int_equal(c->dispatcher.inbox_rows, 1024);
    assert_int_equal(c->dispatcher.inbox_bytes, 8 << 20);
    assert_string_equal(c->postgres.url, "postgresql:///sluice");
    assert_int_equal(c->postgres.timeout_ms, 5000);
    assert_string_equal(c->mongo.uri, "mongodb://127.0.0.1:27017/sluice");
    assert_string_equal(c->callback.objects_url,
                        "http://localhost:9010/objects/");
    assert_int_equal(c->callback.concurrency, 500);
    assert_int_equal(c->callback.timeout_ms, 5000);
    assert_int_equal(c->callback.max_attempts, 4);
    assert_int_equal(c->callback.retry_base_ms, 200);
    assert_int_equal(c->callback.rate_per_s, 0);
    assert_int_equal(c->callback.expire_s, 30);
    assert_string_equal(c->auth.keys_file, "");
}

static void
the_call_section_has_the_documented_defaults(void **state)
{
    struct fixture *f = *state;
    const struct conf_call *c = &f->conf.call;

    assert_int_equal(load_text(f, ""), RC_OK);
    assert_string_equal(c->url, "http://localhost:9011/originate_call");
    assert_int_equal(c->rate_count, 25);
    assert_int_equal(c->rate_window_ms, 10000);
    assert_int_equal(c->backoff_ms, 30000);
    assert_int_equal(c->max_backoff_ms, 120000);
    assert_int_equal(c->max_in_flight, 64);
    assert_int_equal(c->max_attempts, 5);
    assert_int_equal(c->retry_base_ms, 500);
    assert_int_equal(c->timeout_ms, 30000);
    assert_string_equal(c->count_at, "arrival");
    assert_string_equal(c->on_unknown, "report");
    assert_int_equal(c->duplicate_window_s, 0);
    assert_string_equal(c->allow_countries, "");
}

static void
the_sms_section_has_the_documented_defaults(void **state)
{
    struct fixture *f = *state;
    const struct conf_sms *c = &f->conf.sms;

    assert_int_equal(load_text(f, ""), RC_OK);
    assert_string_equal(c->url, "http://localhost:9012/batches");
    assert_int_equal(c->batch_size, 100);
    assert_int_equal(c->max_delay_ms, 2000);
    assert_int_equal(c->max_attempts, 5);
    assert_int_equal(c->retry_base_ms, 500);
    assert_int_equal(c->timeout_ms, 30000);
    assert_int_equal(c->max_in_flight, 4);
    assert_string_equal(c->webhook_secrets, "");
    assert_string_equal(c->status_callback_url, "");
}

#define SECRET_128                                                             \
    "!bcdefghijklmnopqrstuvwxyz-_0123"                                         \
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ456789"                                         \
    "abcdefghijklmnopqrstuvwxyz-_0123"                                         \
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ45678~"
#define SECRETS_PROBLEM                                                        \
    ": sms.webhook_secrets: at most 2 secrets, separated by a comma, of 8 to " \
    "128 visible ASCII characters each, without ; and ,\n"

static void
one_or_two_secrets_are_taken_or_none(void **state)
{
    static const char *const good[] = {
        "",
        "12345678",
        SECRET_128,
        "12345678,abcdefgh",
        "12345678 , abcdefgh",
        SECRET_128 "," SECRET_128,
        "12345678,",
    };
    static const char *const bad[] = {
        "1234567",          SECRET_128 "x",
        "12345678,1234567", "12345678,abcdefgh,ABCDEFGH",
        ",12345678",        "1234567\xc3\xa4",
    };
    struct fixture *f = *state;
    char text[640];

    for (unsigned i = 0; i < ARRAY_COUNT(good); i++) {
        (void)snprintf(text, sizeof(text), "[sms]\nwebhook_secrets = %s\n",
                       good[i]);
        assert_int_equal(load_text(f, text), RC_OK);
        assert_string_equal(f->conf.sms.webhook_secrets, good[i]);
    }
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        (void)snprintf(text, sizeof(text), "[sms]\nwebhook_secrets = %s\n",
                       bad[i]);
        assert_int_equal(load_text(f, text), RC_INVALID);
        assert_errors(f, "%:2" SECRETS_PROBLEM); /* which shows no secret */
    }
}

static void
secrets_from_elsewhere_are_checked_too(void **state)
{
    struct fixture *f = *state;
    struct text blanks = {0};

    write_bytes(f, "", 0);
    assert_int_equal(setenv("SLUICE_SMS_WEBHOOK_SECRETS", "12345678", 1), 0);
    assert_int_equal(load(f, NULL), RC_OK);
    assert_string_equal(f->conf.sms.webhook_secrets, "12345678");
    assert_int_equal(load(f, "--sms-webhook-secrets", "abcdefgh", NULL), RC_OK);
    assert_string_equal(f->conf.sms.webhook_secrets, "abcdefgh");
    assert_int_equal(unsetenv("SLUICE_SMS_WEBHOOK_SECRETS"), 0);
    assert_int_equal(load(f, "--sms-webhook-secrets", "short", NULL),
                     RC_INVALID);
    assert_errors(f, "--sms-webhook-secrets" SECRETS_PROBLEM);
    /* Two secrets with more between them than there is room for. */
    text_puts(&blanks, "12345678,");
    while (blanks.bytes < 511 - 8) {
        text_putc(&blanks, ' ');
    }
    text_puts(&blanks, "abcdefgh");
    assert_int_equal(load(f, "--sms-webhook-secrets", text_cstr(&blanks), NULL),
                     RC_OK);
    assert_int_equal(strlen(f->conf.sms.webhook_secrets), 511);
    text_putc(&blanks, ' ');
    assert_int_equal(load(f, "--sms-webhook-secrets", text_cstr(&blanks), NULL),
                     RC_INVALID);
    assert_errors(f, "--sms-webhook-secrets" SECRETS_PROBLEM);
    text_free(&blanks);
}

static void
an_optional_url_may_be_empty_and_no_other(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(load_text(f, "[sms]\nstatus_callback_url = "
                                  "https://example.org/sms?x=1\n"),
                     RC_OK);
    assert_string_equal(f->conf.sms.status_callback_url,
                        "https://example.org/sms?x=1");
    assert_int_equal(load(f, "--sms-status-callback-url", "", NULL), RC_OK);
    assert_string_equal(f->conf.sms.status_callback_url, "");
    assert_int_equal(load_text(f, "[sms]\nstatus_callback_url =\n"), RC_OK);
    assert_string_equal(f->conf.sms.status_callback_url, "");
    assert_int_equal(load_text(f, "[sms]\nstatus_callback_url = ftp://x\n"),
                     RC_INVALID);
    assert_errors(f, "%:2: sms.status_callback_url: must begin with one of "
                     "\"http https\" and ://\n");
    assert_int_equal(load_text(f, "[sms]\nurl =\n"), RC_INVALID);
    assert_errors(
        f, "%:2: sms.url: must begin with one of \"http https\" and ://\n");
}

static void
words_and_prefixes_are_taken_as_they_are(void **state)
{
    static const char *const lists[] = {
        "", "+1", "+1,+49", " +1 , +1234567,, ", "+44 +7",
    };
    struct fixture *f = *state;
    char text[128];

    assert_int_equal(load_text(f, "[call]\ncount_at = answer\n"
                                  "on_unknown = redial\n"
                                  "allow_countries = +1, +49\n"),
                     RC_OK);
    assert_string_equal(f->conf.call.count_at, "answer");
    assert_string_equal(f->conf.call.on_unknown, "redial");
    assert_string_equal(f->conf.call.allow_countries, "+1, +49");
    for (unsigned i = 0; i < ARRAY_COUNT(lists); i++) {
        (void)snprintf(text, sizeof(text), "[call]\nallow_countries = %s\n",
                       lists[i]);
        assert_int_equal(load_text(f, text), RC_OK);
    }
}

static void
a_list_of_prefixes_fits_up_to_its_bound(void **state)
{
    struct fixture *f = *state;
    struct text t = {0};

    text_puts(&t, "[call]\nallow_countries = +1");
    for (int i = 0; i < 63; i++) {
        text_puts(&t, i == 62 ? ", +2" : ",+49"); /* 254, 255 with a digit */
    }
    text_puts(&t, "3\n");
    assert_int_equal(load_text(f, text_cstr(&t)), RC_OK);
    assert_int_equal(strlen(f->conf.call.allow_countries), 255);
    t.data[t.bytes - 1] = '4';
    text_putc(&t, '\n');
    assert_int_equal(load_text(f, text_cstr(&t)), RC_INVALID);
    assert_errors(f, "%:2: call.allow_countries: longer than 255 bytes\n");
    text_free(&t);
}

static void
a_file_is_read_with_comments_spaces_and_crlf(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(load_text(f,
                               "\xef\xbb\xbf; a comment\n"
                               "# another\r\n"
                               "\r\n"
                               "[callback]\r\n"
                               "concurrency = 10000\r\n"
                               "  timeout_ms=4000 ; four seconds\n"
                               "\tmax_attempts : 2\n"
                               "[log]\n"
                               "level = debug\n"
                               "[callback]\n"
                               "expire_s = 0\n"
                               "objects_url = https://user:pw@[::1]:9/o?id="),
                     RC_OK);
    assert_int_equal(f->conf.callback.concurrency, 10000);
    assert_int_equal(f->conf.callback.timeout_ms, 4000);
    assert_int_equal(f->conf.callback.max_attempts, 2);
    assert_int_equal(f->conf.callback.expire_s, 0);
    assert_int_equal(f->conf.log.level, LOG_DEBUG);
    assert_string_equal(f->conf.callback.objects_url,
                        "https://user:pw@[::1]:9/o?id=");
}

static void
numbers_are_taken_at_both_bounds_and_refused_one_past_them(void **state)
{
    static const struct {
        const char *section;
        const char *key;
        const char *min;
        const char *below;
        const char *max;
        const char *above;
    } cases[] = {
        {"node", "id", "0", "-1", "65535", "65536"},
        {"journal", "max_bytes", "1048576", "1048575", "16 TiB",
         "17592186044417"},
        {"journal", "reserve_bytes", "0", "-1", "1TiB", "1025GiB"},
        {"journal", "lock_timeout_ms", "10", "9", "60000", "60001"},
        {"edge", "batch", "1", "0", "1024", "1025"},
        {"edge", "side_threads", "1", "0", "64", "65"},
        {"edge", "ask_threads", "1", "0", "64", "65"},
        {"edge", "max_body_bytes", "1", "0", "1MiB", "1048577"},
        {"edge", "body_timeout_ms", "100", "99", "120000", "120001"},
        {"edge", "max_connections", "16", "15", "65536", "65537"},
        {"dispatcher", "inbox_rows", "16", "15", "1000000", "1000001"},
        {"dispatcher", "inbox_bytes", "1024 KiB", "1023 KiB", "1 GiB",
         "1025 MiB"},
        {"postgres", "timeout_ms", "100", "99", "600000", "600001"},
        {"callback", "concurrency", "1", "0", "20000", "20001"},
        {"callback", "timeout_ms", "10", "9", "600000", "600001"},
        {"callback", "max_attempts", "1", "0", "100", "101"},
        {"callback", "retry_base_ms", "1", "0", "600000", "600001"},
        {"callback", "rate_per_s", "0", "-1", "1000000", "1000001"},
        {"callback", "expire_s", "0", "-1", "31536000", "31536001"},
        {"call", "rate_count", "1", "0", "10000", "10001"},
        {"call", "rate_window_ms", "100", "99", "3600000", "3600001"},
        {"call", "backoff_ms", "1", "0", "3600000", "3600001"},
        {"call", "max_backoff_ms", "1", "0", "3600000", "3600001"},
        {"call", "max_in_flight", "1", "0", "10000", "10001"},
        {"call", "max_attempts", "1", "0", "100", "101"},
        {"call", "retry_base_ms", "1", "0", "600000", "600001"},
        {"call", "timeout_ms", "100", "99", "600000", "600001"},
        {"call", "duplicate_window_s", "0", "-1", "86400", "86401"},
        {"sms", "batch_size", "1", "0", "1000", "1001"},
        {"sms", "max_delay_ms", "0", "-1", "3600000", "3600001"},
        {"sms", "max_attempts", "1", "0", "100", "101"},
        {"sms", "retry_base_ms", "1", "0", "600000", "600001"},
        {"sms", "timeout_ms", "100", "99", "600000", "600001"},
        {"sms", "max_in_flight", "1", "0", "100", "101"},
    };
    struct fixture *f = *state;

    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        const char *const values[] = {cases[i].min, cases[i].max,
                                      cases[i].below, cases[i].above};

        for (unsigned k = 0; k < ARRAY_COUNT(values); k++) {
            char text[128];

            (void)snprintf(text, sizeof(text), "[%s]\n%s = %s\n",
                           cases[i].section, cases[i].key, values[k]);
            assert_int_equal(load_text(f, text), k < 2 ? RC_OK : RC_INVALID);
            assert_non_null(strstr(f->errors, k < 2    ? ""
                                              : k == 2 ? "is below "
                                                       : "is above "));
        }
    }
}

static void
every_problem_is_one_line_that_names_its_place(void **state)
{
    static const struct {
        const char *text;
        const char *errors;
    } cases[] = {
        {"\n[callback]\n# x\nconcurrency = 99999\n",
         "%:4: callback.concurrency: 99999 is above 20000\n"},
        {"[callback]\nconcurrency = many\n",
         "%:2: callback.concurrency: \"many\" is not a whole number\n"},
        {"[callback]\nconcurrency =\n",
         "%:2: callback.concurrency: \"\" is not a whole number\n"},
        {"[callback]\nconcurrency = 1.5\n",
         "%:2: callback.concurrency: \"1.5\" is not a plain number\n"},
        {"[callback]\ntimeout_ms = 5s\n",
         "%:2: callback.timeout_ms: \"5s\" is not a plain number of ms\n"},
        {"[callback]\ntimeout_ms = 99999999999999999999\n",
         "%:2: callback.timeout_ms: \"99999999999999999999\" is not a whole "
         "number\n"},
        {"[journal]\nmax_bytes = 10 GB\n",
         "%:2: journal.max_bytes: \"10 GB\": the unit must be KiB, MiB, GiB "
         "or TiB, or none for bytes\n"},
        {"[journal]\nmax_bytes = 9223372036854775807 TiB\n",
         "%:2: journal.max_bytes: 9223372036854775807 TiB is above "
         "17592186044416\n"},
        {"[log]\nlevel = loud\n",
         "%:2: log.level: \"loud\" is not error, warn, info or debug\n"},
        {"[callback]\ntimeout = 5\n", "%:2: callback.timeout: no such key\n"},
        {"[Callback]\ntimeout_ms = 5\n",
         "%:2: Callback.timeout_ms: no such section\n"},
        {"batch = 5\n", "%:1: batch: in front of the first [section]\n"},
        {"[edge]\nbatch = 5\nbatch = 6\n",
         "%:3: edge.batch: is already set in line 2\n"},
        {"[edge]\nbatch = 5\n  batch = 6\n",
         "%:3: edge.batch: is already set in line 2\n"},
        {"[edge]\nbatch\n", "%:2: is neither [section] nor key = value\n"},
        {"[edge\nbatch = 1\n", "%:2: batch: in front of the first [section]\n"
                               "%:1: is neither [section] nor key = value\n"},
        {"[callback]\nobjects_url = ftp://x/\n",
         "%:2: callback.objects_url: must begin with one of \"http https\" "
         "and ://\n"},
        {"[callback]\nobjects_url = localhost:9010\n",
         "%:2: callback.objects_url: must begin with one of \"http https\" "
         "and ://\n"},
        {"[callback]\nobjects_url = http:///objects/\n",
         "%:2: callback.objects_url: nothing behind http://\n"},
        {"[callback]\nobjects_url = http://\n",
         "%:2: callback.objects_url: nothing behind http://\n"},
        {"[callback]\nobjects_url = http://a/b c\n",
         "%:2: callback.objects_url: a space in the URL\n"},
        {"[callback]\nobjects_url = http://a/\tb\n",
         "%:2: callback.objects_url: a control character in the value\n"},
        {"[postgres]\nurl = mysql://x\n[mongo]\nuri = http://x\n",
         "%:2: postgres.url: must begin with one of \"postgresql postgres\" "
         "and ://\n"
         "%:4: mongo.uri: must begin with one of \"mongodb mongodb+srv\" and "
         "://\n"},
        {"[call]\n\ncount_at = Arrival\n",
         "%:3: call.count_at: \"Arrival\" is none of \"arrival answer\"\n"},
        {"[call]\non_unknown =\n",
         "%:2: call.on_unknown: \"\" is none of \"report redial\"\n"},
        {"[call]\non_unknown = report redial\n",
         "%:2: call.on_unknown: \"report redial\" is none of \"report "
         "redial\"\n"},
        {"[call]\nallow_countries = +1, 49\n",
         "%:2: call.allow_countries: \"49\" is not + and 1 to 7 digits, the "
         "first not 0\n"},
        {"[call]\nallow_countries = +01\n",
         "%:2: call.allow_countries: \"+01\" is not + and 1 to 7 digits, the "
         "first not 0\n"},
        {"[call]\nallow_countries = +12345678\n",
         "%:2: call.allow_countries: \"+12345678\" is not + and 1 to 7 "
         "digits, the first not 0\n"},
        {"[call]\nallow_countries = +1,+\n",
         "%:2: call.allow_countries: \"+\" is not + and 1 to 7 digits, the "
         "first not 0\n"},
        {"[call]\nallow_countries = +1x\n",
         "%:2: call.allow_countries: \"+1x\" is not + and 1 to 7 digits, the "
         "first not 0\n"},
        {"[call]\nurl = ftp://x/\n",
         "%:2: call.url: must begin with one of \"http https\" and ://\n"},
        {"[node]\nid = -1\n[edge]\nbatch = 0\n",
         "%:2: node.id: -1 is below 0\n%:4: edge.batch: 0 is below 1\n"},
    };
    struct fixture *f = *state;

    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        assert_int_equal(load_text(f, cases[i].text), RC_INVALID);
        assert_errors(f, cases[i].errors);
        assert_string_equal(f->conf.node.dir, "");
    }
}

static void
lines_are_counted_past_one_that_is_too_long(void **state)
{
    struct fixture *f = *state;
    struct text t = {0};

    text_puts(&t, "[edge]\nbatch = ");
    for (int i = 0; i < 5000; i++) {
        text_putc(&t, '1');
    }
    text_puts(&t, "\nside_threads = 0\n");
    assert_int_equal(load_text(f, text_cstr(&t)), RC_INVALID);
    assert_errors(f, "%:2: the line is longer than 2046 bytes\n"
                     "%:3: edge.side_threads: 0 is below 1\n");
    text_free(&t);
}

static void
a_url_fits_up_to_its_bound(void **state)
{
    struct fixture *f = *state;
    struct text t = {0};

    text_puts(&t, "[callback]\nobjects_url = http://");
    for (int i = 0; i < CONF_URL_BYTES - 1 - 7; i++) {
        text_putc(&t, 'x');
    }
    assert_int_equal(load_text(f, text_cstr(&t)), RC_OK);
    assert_int_equal(strlen(f->conf.callback.objects_url), CONF_URL_BYTES - 1);
    text_putc(&t, 'x');
    assert_int_equal(load_text(f, text_cstr(&t)), RC_INVALID);
    assert_errors(f, "%:2: callback.objects_url: longer than 1023 bytes\n");
    text_free(&t);
}

static void
a_file_with_a_nul_or_too_large_or_a_folder_is_refused(void **state)
{
    struct fixture *f = *state;
    char *large = malloc((1 << 20) + 1);

    assert_non_null(large);
    write_bytes(f, "[edge]\0\nbatch=1", 15);
    assert_int_equal(load(f, NULL), RC_INVALID);
    assert_errors(f, "%: holds a NUL byte\n");
    memset(large, '\n', (1 << 20) + 1);
    write_bytes(f, large, 1 << 20);
    assert_int_equal(load(f, NULL), RC_OK);
    write_bytes(f, large, (1 << 20) + 1);
    assert_int_equal(load(f, NULL), RC_INVALID);
    assert_errors(f, "%: is larger than 1 MiB\n");
    free(large);
    assert_int_equal(unlink(f->file), 0);
    assert_int_equal(mkdir(f->file, 0700), 0);
    assert_int_equal(load(f, NULL), RC_IO);
    assert_int_equal(rmdir(f->file), 0);
}

static void
a_missing_file_is_an_io_error_that_names_it(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(load(f, NULL), RC_IO);
    assert_errors(f, "%: No such file or directory\n");
}

static void
environment_beats_file_and_flag_beats_both(void **state)
{
    static const char text[] = "[edge]\nbatch = 2\nside_threads = 2\n"
                               "ask_threads = 2\n";
    struct fixture *f = *state;

    write_bytes(f, text, sizeof(text) - 1);
    assert_int_equal(setenv("SLUICE_EDGE_SIDE_THREADS", "3", 1), 0);
    assert_int_equal(setenv("SLUICE_EDGE_ASK_THREADS", "3", 1), 0);
    assert_int_equal(load(f, "--edge-ask-threads", "4", NULL), RC_OK);
    assert_int_equal(f->conf.edge.batch, 2);
    assert_int_equal(f->conf.edge.side_threads, 3);
    assert_int_equal(f->conf.edge.ask_threads, 4);
    assert_int_equal(load(f, "--edge-ask_threads=5", "--edge-batch=6",
                          "--edge-batch", "7", NULL),
                     RC_OK);
    assert_int_equal(f->conf.edge.ask_threads, 5);
    assert_int_equal(f->conf.edge.batch, 7);
    assert_int_equal(unsetenv("SLUICE_EDGE_SIDE_THREADS"), 0);
    assert_int_equal(unsetenv("SLUICE_EDGE_ASK_THREADS"), 0);
}

static void
a_wrong_variable_is_named_and_foreign_ones_are_left_alone(void **state)
{
    static const char *const foreign[] = {
        "SLUICE_TEST_SECONDS", "SLUICE_BUILD",   "SLUICE_BUILD_DIR",
        "SLUICE_EDGE",         "SLUICE_edge_x",  "SLUICE_",
        "SLUICE__BATCH",       "XSLUICE_EDGE_X", "SLUICE_OTHER_URL",
    };
    struct fixture *f = *state;

    write_bytes(f, "", 0);
    for (unsigned i = 0; i < ARRAY_COUNT(foreign); i++) {
        assert_int_equal(setenv(foreign[i], "x", 1), 0);
        assert_int_equal(load(f, NULL), RC_OK);
        assert_int_equal(unsetenv(foreign[i]), 0);
    }
    assert_int_equal(setenv("SLUICE_EDGE_BATCHES", "1", 1), 0);
    assert_int_equal(load(f, NULL), RC_INVALID);
    assert_errors(f, "SLUICE_EDGE_BATCHES: no such key\n");
    assert_int_equal(unsetenv("SLUICE_EDGE_BATCHES"), 0);
    assert_int_equal(setenv("SLUICE_EDGE_BATCH", "0", 1), 0);
    assert_int_equal(load(f, NULL), RC_INVALID);
    assert_errors(f, "SLUICE_EDGE_BATCH: edge.batch: 0 is below 1\n");
    assert_int_equal(unsetenv("SLUICE_EDGE_BATCH"), 0);
    assert_int_equal(setenv("SLUICE_MONGO_URI", "mongodb://db/x", 1), 0);
    assert_int_equal(load(f, NULL), RC_OK);
    assert_string_equal(f->conf.mongo.uri, "mongodb://db/x");
    assert_int_equal(unsetenv("SLUICE_MONGO_URI"), 0);
}

static void
wrong_flags_are_named_once(void **state)
{
    struct fixture *f = *state;

    write_bytes(f, "", 0);
    assert_int_equal(load(f, "--nonsense", NULL), RC_INVALID);
    assert_errors(f, "--nonsense: no such flag\n");
    assert_int_equal(load(f, "--edge-batch", NULL), RC_INVALID);
    assert_errors(f, "--edge-batch: needs a value\n");
    assert_int_equal(load(f, "--edge-batch=x", NULL), RC_INVALID);
    assert_errors(f, "--edge-batch: edge.batch: \"x\" is not a whole "
                     "number\n");
    assert_int_equal(load(f, "-edge-batch=1", NULL), RC_INVALID);
    assert_errors(f, "-edge-batch: no such flag\n");
    assert_int_equal(load(f, "word", NULL), RC_INVALID);
    assert_errors(f, "word: unexpected argument\n");
    assert_int_equal(load(f, "--dir", f->dir, NULL), RC_INVALID);
    assert_errors(f, "--dir: not together with --config\n");
}

static void
a_programs_own_flags_and_arguments_are_handed_on(void **state)
{
    struct fixture *f = *state;
    bool check = false;
    bool json = false;
    const char *path = NULL;
    const struct conf_flag flags[] = {{"t", &check, NULL},
                                      {"json", &json, NULL},
                                      {"listen", NULL, &path},
                                      {0}};
    char *argv[] = {strdup("p"),    strdup("-t"),       strdup("--dir"),
                    strdup(f->dir), strdup("--listen"), strdup("/x"),
                    strdup("dead"), strdup("--json"),   NULL};
    struct text errors = {0};
    int rest = -1;

    write_bytes(f, "", 0);
    assert_int_equal(conf_load(8, argv, flags, &rest, &f->conf, &errors),
                     RC_OK);
    assert_true(check);
    assert_false(json);
    assert_string_equal(path, "/x");
    assert_int_equal(rest, 6);
    assert_string_equal(f->conf.node.dir, f->dir);
    assert_int_equal(conf_load(6, argv, flags, &rest, &f->conf, &errors),
                     RC_OK);
    assert_int_equal(rest, 6);
    assert_int_equal(conf_load(5, argv, flags, &rest, &f->conf, &errors),
                     RC_INVALID);
    assert_string_equal(text_cstr(&errors), "--listen: needs a value\n");
    text_free(&errors);
    free(argv[6]);
    argv[6] = strdup("--json=yes");
    assert_int_equal(conf_load(7, argv, flags, &rest, &f->conf, &errors),
                     RC_INVALID);
    assert_string_equal(text_cstr(&errors), "--json: takes no value\n");
    text_free(&errors);
    free(argv[6]);
    argv[6] = strdup("--");
    assert_int_equal(conf_load(8, argv, flags, &rest, &f->conf, &errors),
                     RC_OK);
    assert_int_equal(rest, 7);
    assert_false(json);
    text_free(&errors);
    for (int i = 0; i < 8; i++) {
        free(argv[i]);
    }
}

static void
the_environment_names_the_file_when_no_flag_does(void **state)
{
    struct fixture *f = *state;
    char program[] = "p";
    char *argv[] = {program, NULL};
    struct text errors = {0};

    write_bytes(f, "[node]\nid = 7\n", 14);
    assert_int_equal(setenv("SLUICE_CONFIG", f->file, 1), 0);
    assert_int_equal(conf_load(1, argv, NULL, NULL, &f->conf, &errors), RC_OK);
    assert_int_equal(f->conf.node.id, 7);
    assert_int_equal(unsetenv("SLUICE_CONFIG"), 0);
    text_free(&errors);
}

static void
paths_start_from_the_file_or_from_where_the_flag_was_given(void **state)
{
    struct fixture *f = *state;
    char cwd[CONF_PATH_BYTES];

    assert_int_equal(
        load_text(f, "[node]\ndir = ./state//x/\n[journal]\npath = j.db\n"
                     "[auth]\nkeys_file = ../keys\n[control]\npath = /c\n"),
        RC_OK);
    assert_string_equal(f->conf.node.dir, in_dir(f, "/state/x"));
    assert_string_equal(f->conf.node.run_dir, in_dir(f, "/state/x/run"));
    assert_string_equal(f->conf.journal.path, in_dir(f, "/j.db"));
    assert_string_equal(f->conf.auth.keys_file, in_dir(f, "/../keys"));
    assert_string_equal(f->conf.control.path, "/c");
    /* An empty value takes the default again. */
    assert_non_null(getcwd(cwd, sizeof(cwd)));
    assert_int_equal(load(f, "--journal-path=", "--node-dir", "here", NULL),
                     RC_OK);
    assert_int_equal(strncmp(f->conf.node.dir, cwd, strlen(cwd)), 0);
    assert_string_equal(f->conf.node.dir + strlen(f->conf.node.dir) - 5,
                        "/here");
    assert_string_equal(f->conf.journal.path + strlen(f->conf.node.dir),
                        "/journal.db");
}

static void
a_relative_file_gives_absolute_paths(void **state)
{
    struct fixture *f = *state;
    char program[] = "p";
    char flag[] = "--dir=.";
    char *argv[] = {program, flag, NULL};
    struct text errors = {0};
    char cwd[CONF_PATH_BYTES];

    write_bytes(f, "[edge]\nbatch=0\n", 15);
    assert_non_null(getcwd(cwd, sizeof(cwd)));
    assert_int_equal(chdir(f->dir), 0);
    assert_int_equal(conf_load(2, argv, NULL, NULL, &f->conf, &errors),
                     RC_INVALID);
    assert_string_equal(text_cstr(&errors),
                        "./sluice.conf:2: edge.batch: 0 is below 1\n");
    text_reset(&errors);
    write_bytes(f, "", 0);
    assert_int_equal(conf_load(2, argv, NULL, NULL, &f->conf, &errors), RC_OK);
    assert_int_equal(chdir(cwd), 0);
    assert_string_equal(f->conf.file, f->file);
    assert_string_equal(f->conf.node.dir, f->dir);
    text_free(&errors);
}

/* node.run_dir such that its control.sock has this many bytes. */
static enum rc
load_with_socket_of(struct fixture *f, size_t bytes, const char *tail)
{
    char text[512] = "[node]\nrun_dir = /";
    size_t used = strlen(text);
    size_t fill = bytes - 1 - strlen(tail);

    memset(text + used, 'r', fill);
    (void)snprintf(text + used + fill, sizeof(text) - used - fill, "\n");
    return load_text(f, text);
}

static void
socket_paths_fit_up_to_107_bytes(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(load_with_socket_of(f, 107, "/control.sock"), RC_OK);
    assert_int_equal(strlen(f->conf.control.path), 107);
    assert_int_equal(load_with_socket_of(f, 108, "/control.sock"), RC_INVALID);
    assert_non_null(strstr(f->errors, "control.path: the default /rrr"));
    assert_non_null(strstr(f->errors, "is longer than 107 bytes, the most "
                                      "that a UNIX socket can have: set a "
                                      "shorter node.run_dir\n"));
    /* The link's name is shorter: it still fits. */
    assert_null(strstr(f->errors, "link.endpoint"));
    assert_int_equal(load_with_socket_of(f, 108, "/link.sock"), RC_INVALID);
    assert_non_null(strstr(f->errors, "link.endpoint: the default ipc:///rr"));
    assert_non_null(strstr(f->errors, "is longer than 107 bytes"));
}

static void
a_socket_path_that_was_set_is_checked_too(void **state)
{
    struct fixture *f = *state;

    for (size_t bytes = 107; bytes <= 108; bytes++) {
        char path[128];
        char endpoint[160];

        memset(path, 's', sizeof(path));
        path[0] = '/';
        path[bytes] = '\0';
        write_bytes(f, "", 0);
        assert_int_equal(load(f, "--control-path", path, NULL),
                         bytes == 107 ? RC_OK : RC_INVALID);
        assert_non_null(
            strstr(f->errors, bytes == 107
                                  ? ""
                                  : "control.path: the path is longer than 107 "
                                    "bytes, the most that a UNIX socket"));
        (void)snprintf(endpoint, sizeof(endpoint), "ipc://%s", path);
        assert_int_equal(load(f, "--link-endpoint", endpoint, NULL),
                         bytes == 107 ? RC_OK : RC_INVALID);
    }
    assert_int_equal(load(f, "--link-endpoint=tcp://127.0.0.1:5", NULL), RC_OK);
    assert_int_equal(load(f, "--link-endpoint=inproc://x", NULL), RC_INVALID);
}

static void
a_run_dir_that_is_a_link_is_followed(void **state)
{
    struct fixture *f = *state;
    char run[128];
    char target[128];

    (void)snprintf(run, sizeof(run), "%s/run", f->dir);
    (void)snprintf(target, sizeof(target), "%s/short", f->dir);
    assert_int_equal(mkdir(target, 0700), 0);
    assert_int_equal(symlink("short", run), 0);
    assert_int_equal(load_text(f, ""), RC_OK);
    assert_string_equal(f->conf.node.run_dir, target);
    assert_string_equal(f->conf.control.path, in_dir(f, "/short/control.sock"));
    assert_int_equal(unlink(run), 0);
    assert_int_equal(rmdir(target), 0);
}

static void
only_keys_that_a_running_process_cannot_take_need_a_restart(void **state)
{
    static const char reloadable[] =
        "[log]\nlevel = debug\n[callback]\ntimeout_ms = 1000\n"
        "objects_url = http://localhost:1/o/\nconcurrency = 7\n"
        "max_attempts = 9\nretry_base_ms = 9\nrate_per_s = 9\nexpire_s = 9\n"
        "[call]\nurl = http://localhost:1/c\n"
        "max_in_flight = 9\nmax_attempts = 9\nretry_base_ms = 9\n"
        "timeout_ms = 900\ncount_at = answer\non_unknown = redial\n"
        "duplicate_window_s = 9\nallow_countries = +1\n"
        "[sms]\nurl = http://localhost:1/b\nbatch_size = 9\n"
        "max_delay_ms = 9\nmax_attempts = 9\nretry_base_ms = 9\n"
        "timeout_ms = 900\nmax_in_flight = 9\n"
        "webhook_secrets = 12345678\n"
        "status_callback_url = http://localhost:1/s\n";
    struct fixture *f = *state;
    struct conf old;
    struct text which = {0};

    assert_int_equal(load_text(f, ""), RC_OK);
    old = f->conf;
    assert_false(conf_needs_restart(&old, &f->conf, &which));
    assert_int_equal(load_text(f, reloadable), RC_OK);
    assert_false(conf_needs_restart(&old, &f->conf, &which));
    assert_string_equal(text_cstr(&which), "");
    assert_int_equal(load(f, "--auth-keys-file=/k", "--node-id=1",
                          "--postgres-url=postgresql:///other", NULL),
                     RC_OK);
    assert_true(conf_needs_restart(&old, &f->conf, &which));
    assert_string_equal(text_cstr(&which),
                        "node.id, postgres.url, auth.keys_file");
    text_free(&which);
}

static void
the_table_shows_every_key_with_its_default(void **state)
{
    static const char *const rows[] = {
        "| key | unit | range | default | meaning | changes by |\n",
        "| `journal.max_bytes` | bytes | 1 MiB - 16 TiB | 10 GiB | ",
        "| `callback.timeout_ms` | ms | 10 - 600000 | 5000 | of one fetch, "
        "from its GET | SIGHUP |\n",
        "| `node.dir` |  | path | folder of the file | ",
        "| `auth.keys_file` |  | path | none | ",
        "| `log.level` |  | error, warn, info, debug | `info` | ",
        "| `call.count_at` |  | one of: arrival answer | `arrival` | ",
        "| `call.allow_countries` |  | prefixes: + and 1-7 digits | all | ",
        "| `sms.webhook_secrets` |  | at most 2, of 8 - 128 characters | none "
        "| ",
        "| `sms.status_callback_url` |  | URL: http https | none | ",
    };
    char *out = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&out, &bytes);

    (void)state;
    assert_non_null(to);
    conf_print_table(to);
    assert_int_equal(fclose(to), 0);
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
        assert_non_null(strstr(out, rows[i]));
    }
    free(out);
}

static void
the_readme_has_the_table(void **state)
{
    const char *top = getenv("TOP_SRCDIR");
    char path[1024];
    static char readme[1 << 17];
    char *out = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&out, &bytes);
    FILE *file;

    (void)state;
    assert_non_null(to);
    conf_print_table(to);
    assert_int_equal(fclose(to), 0);
    (void)snprintf(path, sizeof(path), "%s/README.md", top == NULL ? "." : top);
    file = fopen(path, "re");
    assert_non_null(file);
    bytes = fread(readme, 1, sizeof(readme) - 1, file);
    assert_true(bytes < sizeof(readme) - 1);
    (void)fclose(file);
    assert_non_null(strstr(readme, out));
    free(out);
}

#define ON_FILES(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ON_FILES(an_empty_file_gives_the_documented_defaults),
        ON_FILES(the_call_section_has_the_documented_defaults),
        ON_FILES(the_sms_section_has_the_documented_defaults),
        ON_FILES(one_or_two_secrets_are_taken_or_none),
        ON_FILES(secrets_from_elsewhere_are_checked_too),
        ON_FILES(an_optional_url_may_be_empty_and_no_other),
        ON_FILES(words_and_prefixes_are_taken_as_they_are),
        ON_FILES(a_list_of_prefixes_fits_up_to_its_bound),
        ON_FILES(a_file_is_read_with_comments_spaces_and_crlf),
        ON_FILES(numbers_are_taken_at_both_bounds_and_refused_one_past_them),
        ON_FILES(every_problem_is_one_line_that_names_its_place),
        ON_FILES(lines_are_counted_past_one_that_is_too_long),
        ON_FILES(a_url_fits_up_to_its_bound),
        ON_FILES(a_file_with_a_nul_or_too_large_or_a_folder_is_refused),
        ON_FILES(a_missing_file_is_an_io_error_that_names_it),
        ON_FILES(environment_beats_file_and_flag_beats_both),
        ON_FILES(a_wrong_variable_is_named_and_foreign_ones_are_left_alone),
        ON_FILES(wrong_flags_are_named_once),
        ON_FILES(a_programs_own_flags_and_arguments_are_handed_on),
        ON_FILES(the_environment_names_the_file_when_no_flag_does),
        ON_FILES(paths_start_from_the_file_or_from_where_the_flag_was_given),
        ON_FILES(a_relative_file_gives_absolute_paths),
        ON_FILES(socket_paths_fit_up_to_107_bytes),
        ON_FILES(a_socket_path_that_was_set_is_checked_too),
        ON_FILES(a_run_dir_that_is_a_link_is_followed),
        ON_FILES(only_keys_that_a_running_process_cannot_take_need_a_restart),
        cmocka_unit_test(the_table_shows_every_key_with_its_default),
        cmocka_unit_test(the_readme_has_the_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
