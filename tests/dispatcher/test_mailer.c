/* dispatcher/mailer.c on mails in memory and a simulated mail server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/mailer.h"
#include "shared/clock.h"
#include "tests/dispatcher/smtp_fixture.h"

#define PATIENCE_MS 20000 /* a test that waits this long has failed */
#define MAILS 1200

/* The collection, shared with the mailer's thread. */
static struct {
    pthread_mutex_t mutex;
    struct mail mails[MAILS];
    size_t count;
    char refused[MAILS][ADDRESS_BYTES];
    size_t refused_count;
    const char *registered; /* the one key that is */
    const char *revoked;    /* likewise */
    int looks;              /* for due ones */
    size_t most_commands;   /* that one finish() takes */
    bool is_away;
} store = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static struct {
    struct smtp_fixture server;
    struct conf conf;
    struct metrics *metrics;
    struct mailer *mailer;
} b;

/* ---- the store --------------------------------------------------------------
 */

/* Locked until leave(). */
static enum rc
enter(void)
{
    pthread_mutex_lock(&store.mutex);
    return store.is_away ? RC_IO : RC_OK;
}

static enum rc
leave(enum rc rc)
{
    pthread_mutex_unlock(&store.mutex);
    return rc;
}

static enum rc
fake_due(void *self, int64_t now_unix_ms, size_t limit, struct mail *out,
         size_t *count)
{
    enum rc rc = enter();

    (void)self;
    *count = 0;
    store.looks++;
    for (size_t i = 0; rc == RC_OK && i < store.count && *count < limit; i++) {
        if (store.mails[i].outbox.state == OUTBOX_QUEUED &&
            store.mails[i].outbox.next_unix_ms <= now_unix_ms) {
            out[(*count)++] = store.mails[i];
        }
    }
    return leave(rc);
}

static enum rc
fake_finish(void *self, const struct mail *const *mails, size_t count)
{
    enum rc rc = enter();
    size_t commands = 0;

    (void)self;
    for (size_t i = 0; i < count; i++) {
        commands +=
            mails[i]->outbox.state != OUTBOX_SENT || i == 0 ||
            mails[i]->outbox.next_unix_ms != mails[i - 1]->outbox.next_unix_ms;
    }
    if (commands > store.most_commands) {
        store.most_commands = commands;
    }
    for (size_t i = 0; rc == RC_OK && i < count; i++) {
        for (size_t k = 0; k < store.count; k++) {
            if (strcmp(store.mails[k].message_id, mails[i]->message_id) == 0) {
                store.mails[k] = *mails[i];
            }
        }
    }
    return leave(rc);
}

static enum rc
fake_registered(void *self, const char *const *keys, size_t count, bool *has)
{
    enum rc rc = enter();

    (void)self;
    for (size_t i = 0; i < count; i++) {
        has[i] =
            store.registered != NULL && strcmp(keys[i], store.registered) == 0;
    }
    return leave(rc);
}

static enum rc
fake_refused(void *self, const char *const *keys, size_t count, bool *refused)
{
    enum rc rc = enter();

    (void)self;
    for (size_t i = 0; i < count; i++) {
        refused[i] =
            store.revoked != NULL && strcmp(keys[i], store.revoked) == 0;
    }
    return leave(rc);
}

static enum rc
fake_refuse(void *self, const struct mail *mail, const char *reason,
            int64_t now_unix_ms)
{
    enum rc rc = enter();

    (void)self;
    (void)now_unix_ms;
    if (rc == RC_OK && reason[0] != '\0') {
        (void)snprintf(store.refused[store.refused_count++], ADDRESS_BYTES,
                       "%s", mail->key);
    }
    return leave(rc);
}

static enum rc
fake_waiting(void *self, int64_t *count)
{
    enum rc rc = enter();

    (void)self;
    *count = 0;
    for (size_t i = 0; i < store.count; i++) {
        *count += store.mails[i].outbox.state == OUTBOX_QUEUED;
    }
    return leave(rc);
}

static const char *
fake_error(const void *self)
{
    (void)self;
    return "it is away";
}

static void
fake_free(void **self)
{
    *self = NULL;
}

static const struct mails_ops fake_ops = {
    .due = fake_due,
    .finish = fake_finish,
    .registered = fake_registered,
    .refused = fake_refused,
    .refuse = fake_refuse,
    .waiting = fake_waiting,
    .error = fake_error,
    .free = fake_free,
};

static void
put(const char *key, enum mail_kind kind)
{
    struct mail *mail;

    (void)enter();
    mail = &store.mails[store.count];
    memset(mail, 0, sizeof(*mail));
    (void)snprintf(mail->key, sizeof(mail->key), "%s", key);
    (void)snprintf(mail->to, sizeof(mail->to), "%s", key);
    (void)snprintf(mail->code, sizeof(mail->code), "twitter-reg1");
    (void)snprintf(mail->message_id, sizeof(mail->message_id), "%zu.%s@here",
                   store.count, mail_kinds[kind]);
    mail->kind = kind;
    mail->asked_unix_ms = clock_now_unix_ms();
    mail->created_unix_ms = mail->asked_unix_ms;
    store.count++;
    (void)leave(RC_OK);
}

static size_t
in_state(enum outbox_state state)
{
    size_t count = 0;

    (void)enter();
    for (size_t i = 0; i < store.count; i++) {
        count += store.mails[i].outbox.state == state ? 1 : 0;
    }
    (void)leave(RC_OK);
    return count;
}

static struct mail
mail_at(size_t i)
{
    struct mail mail;

    (void)enter();
    mail = store.mails[i];
    (void)leave(RC_OK);
    return mail;
}

static void
set_away(bool is_away)
{
    (void)enter();
    store.is_away = is_away;
    (void)leave(RC_OK);
}

/* ---- helpers ----------------------------------------------------------------
 */

static void
start_server(const char *const *options)
{
    smtp_fixture_start(&b.server, options);
    (void)snprintf(b.conf.mail.url, sizeof(b.conf.mail.url), "%s",
                   b.server.url);
}

static void
start(void)
{
    assert_int_equal(
        mailer_start_on(&b.mailer, &b.conf, b.metrics, &fake_ops, NULL), RC_OK);
    mailer_own(b.mailer, true);
}

static int
setup(void **state)
{
    struct conf_mail *m = &b.conf.mail;

    (void)state;
    (void)snprintf(m->tls, sizeof(m->tls), "try");
    (void)snprintf(m->from, sizeof(m->from), "Sluice <invitations@localhost>");
    (void)snprintf(m->templates, sizeof(m->templates), "%s/conf/mail",
                   getenv("TOP_SRCDIR"));
    m->max_in_flight = 4;
    m->timeout_ms = PATIENCE_MS;
    m->retry_base_ms = 1;
    m->retry_for_s = 1000;
    m->pause_ms = 10;
    assert_int_equal(metrics_new(&b.metrics), RC_OK);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    mailer_stop(&b.mailer);
    assert_null(b.mailer);
    mailer_stop(&b.mailer); /* of NULL */
    metrics_free(&b.metrics);
    smtp_fixture_stop(&b.server);
    memset(&b, 0, sizeof(b));
    store.count = 0;
    store.refused_count = 0;
    store.looks = 0;
    store.most_commands = 0;
    store.registered = NULL;
    store.revoked = NULL;
    store.is_away = false;
    return 0;
}

static void
await_state(enum outbox_state state, size_t count)
{
    int64_t until_ms = clock_now_ms() + PATIENCE_MS;

    while (in_state(state) != count) {
        assert_true(clock_now_ms() < until_ms);
        (void)poll(NULL, 0, 5);
    }
}

static int64_t
metric(enum metric which)
{
    return metrics_get(b.metrics, which, SERVICE_COUNT);
}

static void
await_metric(enum metric which, int64_t value)
{
    int64_t until_ms = clock_now_ms() + PATIENCE_MS;

    while (metric(which) != value) {
        assert_true(clock_now_ms() < until_ms);
        (void)poll(NULL, 0, 5);
    }
}

/* ---- tests ------------------------------------------------------------------
 */

static void
every_mail_is_sent_once(void **state)
{
    (void)state;
    start_server((const char *const[]){NULL});
    for (int k = 0; k < MAILS; k++) {
        put("jo@example.com", (enum mail_kind)(k % MAIL_KIND_COUNT));
    }
    start();
    await_state(OUTBOX_SENT, MAILS);
    assert_int_equal(smtp_fixture_count(&b.server, ""), MAILS);
    assert_int_equal(smtp_fixture_count(&b.server, "<0.welcome@here>"), 1);
    assert_int_equal(smtp_fixture_count(&b.server, "<1.apology@here>"), 1);
    assert_int_equal(smtp_fixture_count(&b.server, "<1199.unknown@here>"), 1);
    await_metric(METRIC_MAIL_SENT_TOTAL, MAILS);
    assert_true(mail_at(0).sent_unix_ms > 0);
    assert_int_equal(mail_at(0).outbox.attempts, 1);
}

static void
new_mails_leave_when_it_is_woken(void **state)
{
    (void)state;
    start_server((const char *const[]){NULL});
    start();
    for (int k = 1; k <= 20; k++) {
        put("jo@example.com", MAIL_WELCOME);
        mailer_wake(b.mailer);
        await_state(OUTBOX_SENT, (size_t)k);
    }
    put("jo@example.com", MAIL_WELCOME); /* without: within a second or so */
    await_state(OUTBOX_SENT, 21);
    assert_int_equal(smtp_fixture_count(&b.server, ""), 21);
}

static void
mails_of_a_node_that_is_not_ours_stay(void **state)
{
    (void)state;
    start_server((const char *const[]){NULL});
    put("jo@example.com", MAIL_WELCOME);
    assert_int_equal(
        mailer_start_on(&b.mailer, &b.conf, b.metrics, &fake_ops, NULL), RC_OK);
    for (int k = 0; k < 5; k++) {
        mailer_wake(b.mailer);
        (void)poll(NULL, 0, 20);
    }
    assert_int_equal(store.looks, 0);
    mailer_own(b.mailer, true);
    await_state(OUTBOX_SENT, 1);
    mailer_own(b.mailer, false);
    put("jo@example.com", MAIL_WELCOME);
    mailer_own(b.mailer, true);
    await_state(OUTBOX_SENT, 2);
}

static void
refused_recipients_are_marked(void **state)
{
    (void)state;
    start_server((const char *const[]){"--refuse", "nobody*", NULL});
    put("nobody@example.com", MAIL_WELCOME);
    put("jo@example.com", MAIL_WELCOME);
    start();
    await_state(OUTBOX_REFUSED, 1);
    await_state(OUTBOX_SENT, 1);
    assert_int_equal(store.refused_count, 1);
    assert_string_equal(store.refused[0], "nobody@example.com");
    assert_non_null(strstr(mail_at(0).error, "550 5.1.1"));
    await_metric(METRIC_MAIL_REFUSED_TOTAL, 1);
}

/* Each costs MongoDB a command, and a stop waits for all of them. */
static void
of_those_that_need_a_command_each_few_are_written_together(void **state)
{
    (void)state;
    start_server((const char *const[]){NULL});
    store.registered = "jo@example.com";
    for (int k = 0; k < 130; k++) {
        put("jo@example.com", MAIL_APOLOGY);
    }
    start();
    await_state(OUTBOX_SKIPPED, 130);
    assert_int_equal(store.most_commands, 50);
}

static void
so_are_those_that_were_due_at_different_times(void **state)
{
    (void)state;
    start_server((const char *const[]){NULL});
    for (int k = 0; k < 130; k++) {
        put("jo@example.com", MAIL_WELCOME);
        store.mails[k].outbox.next_unix_ms = 1 + k;
    }
    start();
    await_state(OUTBOX_SENT, 130);
    assert_in_range(store.most_commands, 1, 50);
}

static void
an_unknown_tag_refuses_nobody(void **state)
{
    (void)state;
    start_server((const char *const[]){"--refuse", "*+tag*", NULL});
    put("jo@example.com", MAIL_UNKNOWN);
    put("jo@example.com", MAIL_APOLOGY);
    put("al@example.com", MAIL_WELCOME);
    for (size_t k = 0; k < store.count; k++) {
        (void)snprintf(store.mails[k].to, ADDRESS_BYTES, "Jo+tag@example.com");
    }
    start();
    await_state(OUTBOX_REFUSED, 3);
    assert_int_equal(store.refused_count, 1);
    assert_string_equal(store.refused[0], "al@example.com");
}

static void
what_is_put_off_is_tried_again(void **state)
{
    (void)state;
    start_server(
        (const char *const[]){"--defer", "later*", "--times", "2", NULL});
    put("later@example.com", MAIL_WELCOME);
    start();
    await_state(OUTBOX_SENT, 1);
    assert_int_equal(mail_at(0).outbox.attempts, 3);
    assert_true(mail_at(0).outbox.first_unix_ms > 0);
    await_metric(METRIC_MAIL_DELAYED_TOTAL, 2);
}

static void
what_is_put_off_for_too_long_is_given_up(void **state)
{
    (void)state;
    start_server(
        (const char *const[]){"--defer", "later*", "--times", "99", NULL});
    b.conf.mail.retry_for_s = 0;
    put("later@example.com", MAIL_WELCOME);
    start();
    await_state(OUTBOX_GIVEN_UP, 1);
    await_metric(METRIC_MAIL_GIVEN_UP_TOTAL, 1);
    assert_int_equal(store.refused_count, 0);
}

static void
who_got_a_place_meanwhile_gets_no_apology(void **state)
{
    (void)state;
    start_server((const char *const[]){NULL});
    store.registered = "jo@example.com";
    put("jo@example.com", MAIL_APOLOGY);
    put("al@example.com", MAIL_APOLOGY);
    put("jo@example.com", MAIL_WELCOME);
    start();
    await_state(OUTBOX_SKIPPED, 1);
    await_state(OUTBOX_SENT, 2);
    assert_int_equal(mail_at(0).outbox.state, OUTBOX_SKIPPED);
    assert_int_equal(smtp_fixture_count(&b.server, ""), 2);
    await_metric(METRIC_MAIL_SKIPPED_TOTAL, 1);
}

static void
who_is_refused_meanwhile_gets_no_mail(void **state)
{
    (void)state;
    start_server((const char *const[]){NULL});
    store.revoked = "jo@example.com";
    put("jo@example.com", MAIL_APOLOGY);
    put("jo@example.com", MAIL_WELCOME);
    put("al@example.com", MAIL_WELCOME);
    start();
    await_state(OUTBOX_SKIPPED, 2);
    await_state(OUTBOX_SENT, 1);
    assert_int_equal(smtp_fixture_count(&b.server, ""), 1);
    assert_int_equal(mail_at(2).outbox.state, OUTBOX_SENT);
}

static void
a_refusal_of_us_pauses_until_it_is_over(void **state)
{
    struct text report = {0};

    (void)state;
    start_server((const char *const[]){NULL});
    smtp_fixture_block(&b.server, true);
    for (int k = 0; k < 20; k++) {
        put("jo@example.com", MAIL_WELCOME);
    }
    start();
    await_metric(METRIC_MAIL_PAUSED, 1);
    mailer_report(b.mailer, &report);
    assert_non_null(
        strstr(text_cstr(&report),
               "\"mail\":{\"paused\":true,\"reason\":\"MAIL FROM: 554 5.7.1"));
    smtp_fixture_block(&b.server, false);
    await_state(OUTBOX_SENT, 20);
    assert_int_equal(metric(METRIC_MAIL_PAUSED), 0);
    for (size_t k = 0; k < 20; k++) {
        assert_int_equal(mail_at(k).outbox.attempts, 1);
    }
    assert_int_equal(store.refused_count, 0);
    text_reset(&report);
    mailer_report(b.mailer, &report);
    assert_non_null(
        strstr(text_cstr(&report), "\"paused\":false,\"reason\":\"\""));
    text_free(&report);
}

static void
one_mail_that_is_not_liked_does_not_stop_the_others(void **state)
{
    (void)state;
    start_server((const char *const[]){"--reject", "picky*", NULL});
    b.conf.mail.max_in_flight = 1;
    put("picky@example.com", MAIL_WELCOME);
    for (int k = 0; k < 10; k++) {
        put("jo@example.com", MAIL_WELCOME);
    }
    start();
    await_state(OUTBOX_SENT, 10);
    assert_int_equal(mail_at(0).outbox.state, OUTBOX_QUEUED);
    assert_int_equal(mail_at(0).outbox.attempts, 0);
}

static void
the_reason_of_a_pause_names_nobody(void **state)
{
    struct text report = {0};

    (void)state;
    start_server((const char *const[]){"--reject", "picky*", NULL});
    b.conf.mail.pause_ms = 600000;
    put("picky@example.com", MAIL_WELCOME);
    start();
    await_metric(METRIC_MAIL_PAUSED, 1);
    await_metric(METRIC_MAIL_DELAYED_TOTAL, 1);
    mailer_report(b.mailer, &report);
    assert_non_null(strstr(text_cstr(&report),
                           "\"DATA: 554 5.6.0 ... looks like an "
                           "advertisement\""));
    assert_non_null(strstr(mail_at(0).error, "<picky@example.com>"));
    text_free(&report);
}

static void
while_the_store_is_away_nothing_is_lost(void **state)
{
    (void)state;
    start_server((const char *const[]){NULL});
    set_away(true);
    for (int k = 0; k < 10; k++) {
        put("jo@example.com", MAIL_WELCOME);
    }
    start();
    mailer_wake(b.mailer);
    (void)poll(NULL, 0, 50);
    assert_int_equal(smtp_fixture_count(&b.server, ""), 0);
    set_away(false);
    await_state(OUTBOX_SENT, 10);
    assert_int_equal(smtp_fixture_count(&b.server, ""), 10);
}

/* It goes away with mails under way: what came of them is written later. */
static void
what_was_sent_is_written_down_later_and_not_sent_again(void **state)
{
    int64_t until_ms = clock_now_ms() + PATIENCE_MS;

    (void)state;
    start_server((const char *const[]){"--delay-ms", "100", NULL});
    for (int k = 0; k < 4; k++) {
        put("jo@example.com", MAIL_WELCOME);
    }
    start();
    while (metric(METRIC_MAIL_IN_FLIGHT) < 4) {
        assert_true(clock_now_ms() < until_ms);
        (void)poll(NULL, 0, 1);
    }
    set_away(true);
    while (smtp_fixture_count(&b.server, "") < 4) {
        assert_true(clock_now_ms() < until_ms);
        (void)poll(NULL, 0, 5);
    }
    assert_int_equal(in_state(OUTBOX_QUEUED), 4);
    set_away(false);
    await_state(OUTBOX_SENT, 4);
    assert_int_equal(smtp_fixture_count(&b.server, ""), 4);
}

static void
it_ends_while_a_mail_is_under_way(void **state)
{
    (void)state;
    start_server((const char *const[]){"--delay-ms", "600000", NULL});
    put("jo@example.com", MAIL_WELCOME);
    start();
    await_metric(METRIC_MAIL_IN_FLIGHT, 1);
    mailer_stop(&b.mailer);
    assert_int_equal(in_state(OUTBOX_QUEUED), 1);
}

static void
new_settings_are_taken_and_bad_ones_are_not(void **state)
{
    struct smtp_fixture other;
    struct conf conf;

    (void)state;
    start_server((const char *const[]){NULL});
    smtp_fixture_start(&other, (const char *const[]){NULL});
    start();
    conf = b.conf;
    (void)snprintf(conf.mail.url, sizeof(conf.mail.url), "%s", other.url);
    (void)snprintf(conf.mail.templates, sizeof(conf.mail.templates),
                   "/not/there");
    mailer_configure(b.mailer, &conf);
    put("jo@example.com", MAIL_WELCOME);
    mailer_wake(b.mailer);
    await_state(OUTBOX_SENT, 1);
    assert_int_equal(smtp_fixture_count(&b.server, ""), 1);
    (void)snprintf(conf.mail.templates, sizeof(conf.mail.templates), "%s",
                   b.conf.mail.templates);
    (void)snprintf(conf.mail.from, sizeof(conf.mail.from), "nobody");
    mailer_configure(b.mailer, &conf);
    put("jo@example.com", MAIL_WELCOME);
    mailer_wake(b.mailer);
    await_state(OUTBOX_SENT, 2);
    assert_int_equal(smtp_fixture_count(&b.server, ""), 2);
    (void)snprintf(conf.mail.from, sizeof(conf.mail.from), "you@localhost");
    mailer_configure(b.mailer, &conf);
    put("jo@example.com", MAIL_WELCOME);
    mailer_wake(b.mailer);
    await_state(OUTBOX_SENT, 3);
    assert_int_equal(smtp_fixture_count(&other, "\"from\": \"you@localhost\""),
                     1);
    smtp_fixture_stop(&other);
}

/* And no mail leaves until those under way have ended. */
static void
new_settings_wait_for_the_mails_under_way(void **state)
{
    struct conf conf;

    (void)state;
    start_server((const char *const[]){"--delay-ms", "300", NULL});
    put("jo@example.com", MAIL_WELCOME);
    start();
    await_metric(METRIC_MAIL_IN_FLIGHT, 1);
    conf = b.conf;
    (void)snprintf(conf.mail.tls, sizeof(conf.mail.tls), "require");
    mailer_configure(b.mailer, &conf);
    await_state(OUTBOX_SENT, 1);
    put("al@example.com", MAIL_WELCOME);
    mailer_wake(b.mailer);
    await_metric(METRIC_MAIL_PAUSED, 1);
    assert_int_equal(smtp_fixture_count(&b.server, ""), 1);
}

static void
it_does_not_start_with_settings_that_cannot_be_used(void **state)
{
    (void)state;
    (void)snprintf(b.conf.mail.from, sizeof(b.conf.mail.from), "nobody");
    assert_int_equal(
        mailer_start_on(&b.mailer, &b.conf, b.metrics, &fake_ops, NULL),
        RC_INVALID);
    assert_null(b.mailer);
    (void)snprintf(b.conf.mail.from, sizeof(b.conf.mail.from), "a@b");
    (void)snprintf(b.conf.mail.templates, sizeof(b.conf.mail.templates), "/no");
    assert_int_equal(
        mailer_start_on(&b.mailer, &b.conf, b.metrics, &fake_ops, NULL),
        RC_INVALID);
    assert_null(b.mailer);
}

static void
a_password_goes_to_another_host_over_tls_only(void **state)
{
    static const struct {
        const char *url;
        const char *tls;
        enum rc rc;
    } settings[] = {
        {"smtp://mail.example.com:587", "try", RC_INVALID},
        {"smtp://mail.example.com:587", "require", RC_OK},
        {"smtp://mail.example.com:587", "none", RC_OK}, /* it was asked for */
        {"smtps://mail.example.com", "try", RC_OK},
        {"smtp://localhost:25", "try", RC_OK},
        {"smtp://127.0.0.1", "try", RC_OK},
        {"smtp://[::1]/here", "try", RC_OK},
        {"smtp://localhost.example.com", "try", RC_INVALID},
    };

    (void)state;
    (void)snprintf(b.conf.mail.username, sizeof(b.conf.mail.username), "us");
    for (size_t i = 0; i < ARRAY_COUNT(settings); i++) {
        (void)snprintf(b.conf.mail.url, sizeof(b.conf.mail.url), "%s",
                       settings[i].url);
        (void)snprintf(b.conf.mail.tls, sizeof(b.conf.mail.tls), "%s",
                       settings[i].tls);
        assert_int_equal(mailer_check(&b.conf), settings[i].rc);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_mail_is_sent_once),
        TEST(new_mails_leave_when_it_is_woken),
        TEST(mails_of_a_node_that_is_not_ours_stay),
        TEST(refused_recipients_are_marked),
        TEST(of_those_that_need_a_command_each_few_are_written_together),
        TEST(so_are_those_that_were_due_at_different_times),
        TEST(an_unknown_tag_refuses_nobody),
        TEST(what_is_put_off_is_tried_again),
        TEST(what_is_put_off_for_too_long_is_given_up),
        TEST(who_got_a_place_meanwhile_gets_no_apology),
        TEST(who_is_refused_meanwhile_gets_no_mail),
        TEST(a_refusal_of_us_pauses_until_it_is_over),
        TEST(one_mail_that_is_not_liked_does_not_stop_the_others),
        TEST(the_reason_of_a_pause_names_nobody),
        TEST(while_the_store_is_away_nothing_is_lost),
        TEST(what_was_sent_is_written_down_later_and_not_sent_again),
        TEST(it_ends_while_a_mail_is_under_way),
        TEST(new_settings_are_taken_and_bad_ones_are_not),
        TEST(new_settings_wait_for_the_mails_under_way),
        TEST(it_does_not_start_with_settings_that_cannot_be_used),
        TEST(a_password_goes_to_another_host_over_tls_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
