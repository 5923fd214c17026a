/* dispatcher/smtp.c on a simulated mail server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dispatcher/smtp.h"
#include "shared/clock.h"
#include "shared/rc.h"
#include "tests/dispatcher/smtp_fixture.h"

#define PATIENCE_MS 20000 /* a test that waits this long has failed */
#define MESSAGE                                                                \
    "From: <a@localhost>\r\nMessage-ID: <1@localhost>\r\nSubject: x\r\n\r\n"   \
    ".\r\n..a\r\nb\r\n"

struct ended {
    enum smtp_end end;
    int status;
    char text[SMTP_TEXT_BYTES];
};

static struct {
    struct smtp_fixture server;
    struct smtp *smtp;
    struct smtp_options options;
    size_t done; /* how many ended */
    struct ended last;
} b;

static void
on_done(void *arg, const struct smtp_result *result)
{
    assert_ptr_equal(arg, &b);
    b.done++;
    b.last.end = result->end;
    b.last.status = result->status;
    (void)snprintf(b.last.text, sizeof(b.last.text), "%s", result->text);
    if (result->tag != NULL) {
        *(struct ended *)result->tag = b.last;
    }
}

static void
start_server(const char *const *options)
{
    smtp_fixture_start(&b.server, options);
    b.options = (struct smtp_options){.url = b.server.url,
                                      .tls = SMTP_TLS_TRY,
                                      .username = "",
                                      .password = "",
                                      .max_in_flight = 4,
                                      .timeout_ms = PATIENCE_MS};
}

static void
start_client(void)
{
    assert_int_equal(smtp_new(&b.smtp, &b.options, on_done, &b), RC_OK);
}

static int
teardown(void **state)
{
    (void)state;
    smtp_free(&b.smtp);
    smtp_free(&b.smtp); /* of NULL */
    smtp_fixture_stop(&b.server);
    memset(&b, 0, sizeof(b));
    return 0;
}

static void
post(const char *to, struct ended *tag)
{
    const struct smtp_mail mail = {.from = "invitations@localhost",
                                   .to = to,
                                   .data = MESSAGE,
                                   .bytes = strlen(MESSAGE),
                                   .tag = tag};

    assert_int_equal(smtp_start(b.smtp, &mail), RC_OK);
}

static void
await(size_t done)
{
    int64_t until_ms = clock_now_ms() + PATIENCE_MS;

    while (b.done < done) {
        assert_true(clock_now_ms() < until_ms);
        smtp_wait(b.smtp, NULL, 0, 100);
        smtp_drive(b.smtp);
    }
}

/* Send one and wait for its end. */
static void
send_one(const char *to)
{
    post(to, NULL);
    await(b.done + 1);
}

static void
assert_last(enum smtp_end expected, int status, const char *text)
{
    if (b.last.end != expected || b.last.status != status ||
        strcmp(b.last.text, text) != 0) {
        fail_msg("%d %d \"%s\"", (int)b.last.end, b.last.status, b.last.text);
    }
}

static void
mails_are_sent_over_connections_that_are_kept(void **state)
{
    (void)state;
    start_server((const char *const[]){NULL});
    start_client();
    for (int k = 0; k < 20; k++) {
        send_one("jo@example.com");
        assert_last(SMTP_SENT, 250, "");
    }
    assert_int_equal(smtp_fixture_count(&b.server, ""), 20);
    assert_int_equal(smtp_fixture_count(&b.server, "\"connection\": 1}"), 20);
    assert_int_equal(
        smtp_fixture_count(&b.server, "\"from\": \"invitations@localhost\""),
        20);
}

static void
no_more_than_max_in_flight_are_under_way(void **state)
{
    const struct smtp_mail mail = {
        .from = "a@b", .to = "c@d", .data = MESSAGE, .bytes = strlen(MESSAGE)};

    (void)state;
    start_server((const char *const[]){"--delay-ms", "20", NULL});
    start_client();
    for (int k = 0; k < 4; k++) {
        post("jo@example.com", NULL);
    }
    assert_int_equal(smtp_start(b.smtp, &mail), RC_FULL);
    assert_int_equal(smtp_in_flight(b.smtp), 4);
    await(4);
    assert_int_equal(smtp_in_flight(b.smtp), 0);
    post("jo@example.com", NULL);
    await(5);
    assert_int_equal(smtp_fixture_count(&b.server, ""), 5);
}

/* Which command was refused decides. */
static void
refusals_are_told_apart(void **state)
{
    (void)state;
    start_server((const char *const[]){"--refuse", "nobody*", "--defer",
                                       "later*", "--reject", "picky*", NULL});
    start_client();
    for (int k = 0; k < 3; k++) {
        send_one("nobody@example.com");
        assert_last(SMTP_RECIPIENT_REFUSED, 550,
                    "RCPT TO: 550 5.1.1 <nobody@example.com>: no such user");
    }
    send_one("later@example.com");
    assert_last(SMTP_LATER, 451, "RCPT TO: 451 4.7.1 come back later");
    send_one("later@example.com");
    assert_last(SMTP_SENT, 250, "");
    send_one("picky@example.com");
    assert_last(SMTP_WE_ARE_REFUSED, 554,
                "DATA: 554 5.6.0 <picky@example.com> looks like an "
                "advertisement");
    smtp_fixture_block(&b.server, true);
    send_one("nobody@example.com");
    assert_last(SMTP_WE_ARE_REFUSED, 554,
                "MAIL FROM: 554 5.7.1 you are not welcome here");
    smtp_fixture_block(&b.server, false);
    send_one("jo@example.com");
    assert_last(SMTP_SENT, 250, "");
}

/* Else a server that does not relay for us would empty the whole waitlist. */
static void
a_server_that_does_not_relay_refuses_us(void **state)
{
    (void)state;
    start_server((const char *const[]){"--foreign", "*", NULL});
    start_client();
    send_one("jo@example.com");
    assert_last(SMTP_WE_ARE_REFUSED, 554,
                "RCPT TO: 554 5.7.1 <jo@example.com>: Relay access denied");
}

static void
no_server_is_a_reason_to_wait(void **state)
{
    (void)state;
    start_server((const char *const[]){NULL});
    start_client();
    smtp_fixture_stop(&b.server);
    send_one("jo@example.com");
    assert_last(SMTP_LATER, 0, "greeting: Couldn't connect to server");
}

static void
utf8_addresses_need_a_server_that_takes_them(void **state)
{
    (void)state;
    start_server((const char *const[]){NULL});
    start_client();
    send_one("j\xc3\xb6rg@example.com");
    assert_last(SMTP_SENT, 250, "");
    assert_int_equal(smtp_fixture_count(&b.server, "\"utf8\": true"), 1);
    send_one("jo@example.com");
    assert_int_equal(smtp_fixture_count(&b.server, "\"utf8\": false"), 1);
}

static void
utf8_addresses_are_not_sent_to_others(void **state)
{
    (void)state;
    start_server((const char *const[]){"--no-utf8", NULL});
    start_client();
    for (int k = 0; k < 3; k++) {
        send_one("j\xc3\xb6rg@example.com");
        assert_last(SMTP_RECIPIENT_REFUSED, 553,
                    "the server takes no address beyond ASCII (SMTPUTF8)");
        send_one("jo@example.com");
        assert_last(SMTP_SENT, 250, "");
    }
    assert_int_equal(smtp_fixture_count(&b.server, ""), 3);
}

static void
passwords_are_given_and_may_be_wrong(void **state)
{
    (void)state;
    start_server(
        (const char *const[]){"--user", "MAIL", "--password", "p", NULL});
    b.options.username = "MAIL";
    b.options.password = "p";
    start_client();
    send_one("jo@example.com");
    assert_last(SMTP_SENT, 250, "");
    b.options.password = "q";
    assert_int_equal(smtp_set(b.smtp, &b.options), RC_OK);
    send_one("jo@example.com");
    assert_last(SMTP_WE_ARE_REFUSED, 535,
                "AUTH: 535 5.7.8 Authentication credentials invalid");
    b.options.username = "";
    assert_int_equal(smtp_set(b.smtp, &b.options), RC_OK);
    send_one("jo@example.com");
    assert_last(SMTP_WE_ARE_REFUSED, 530,
                "MAIL FROM: 530 5.7.0 Authentication required");
}

/* A certificate for 127.0.0.1 in the fixture's folder, which must be there
 * before the server is: so in one of the test's own. */
static void
make_certificate(char path[64])
{
    char command[1024];
    int fd;

    (void)snprintf(path, 64, "/tmp/sluice_cert_XXXXXX");
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
    (void)snprintf(command, sizeof(command),
                   "openssl req -x509 -newkey ec -pkeyopt"
                   " ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=sim"
                   " -addext subjectAltName=IP:127.0.0.1"
                   " -keyout %s.key -out %s.crt 2>/dev/null"
                   " && cat %s.key %s.crt >%s && rm %s.key %s.crt",
                   path, path, path, path, path, path, path);
    assert_int_equal(system(command), 0);
}

static void
starttls_is_used_and_may_be_required(void **state)
{
    char certificate[64];

    (void)state;
    make_certificate(certificate);
    start_server((const char *const[]){"--cert", certificate, NULL});
    start_client();
    send_one("jo@example.com"); /* try: it is nobody's certificate */
    assert_last(SMTP_SENT, 250, "");
    assert_int_equal(smtp_fixture_count(&b.server, "\"tls\": true"), 1);
    smtp_free(&b.smtp);
    b.options.tls = SMTP_TLS_REQUIRE;
    start_client();
    send_one("jo@example.com");
    assert_int_equal(b.last.end, SMTP_WE_ARE_REFUSED);
    assert_int_equal(b.last.status, 0);
    b.options.ca_file = certificate;
    assert_int_equal(smtp_set(b.smtp, &b.options), RC_OK);
    send_one("jo@example.com");
    assert_last(SMTP_SENT, 250, "");
    assert_int_equal(smtp_fixture_count(&b.server, "\"tls\": true"), 2);
    smtp_free(&b.smtp);
    b.options.tls = SMTP_TLS_NONE;
    start_client();
    send_one("jo@example.com");
    assert_int_equal(smtp_fixture_count(&b.server, "\"tls\": false"), 1);
    assert_int_equal(unlink(certificate), 0);
}

static void
nothing_is_sent_without_starttls_if_it_is_required(void **state)
{
    (void)state;
    start_server((const char *const[]){NULL});
    b.options.tls = SMTP_TLS_REQUIRE;
    start_client();
    send_one("jo@example.com");
    assert_int_equal(b.last.end, SMTP_WE_ARE_REFUSED);
    assert_int_equal(smtp_fixture_count(&b.server, ""), 0);
}

/* A connection in clear is not used again. */
static void
nothing_is_sent_without_starttls_once_it_is_required(void **state)
{
    (void)state;
    start_server((const char *const[]){NULL});
    start_client();
    send_one("jo@example.com");
    assert_last(SMTP_SENT, 250, "");
    b.options.tls = SMTP_TLS_REQUIRE;
    assert_int_equal(smtp_set(b.smtp, &b.options), RC_OK);
    send_one("jo@example.com");
    assert_int_equal(b.last.end, SMTP_WE_ARE_REFUSED);
    assert_int_equal(smtp_fixture_count(&b.server, ""), 1);
}

/* ---- servers that misbehave -------------------------------------------------
 */

/* A listening socket of the test's own: says hello, if anything, and no more.
 */
static int
listen_here(char url[64])
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    (void)snprintf(url, 64, "smtp://127.0.0.1:%d", ntohs(address.sin_port));
    return fd;
}

static void
a_server_that_says_nothing_is_not_waited_for(void **state)
{
    char url[64];
    int fd = listen_here(url);

    (void)state;
    b.options = (struct smtp_options){.url = url,
                                      .username = "",
                                      .password = "",
                                      .max_in_flight = 4,
                                      .timeout_ms = 200};
    start_client();
    send_one("jo@example.com");
    assert_last(SMTP_LATER, 0, "greeting: Timeout was reached");
    b.options.timeout_ms = 600000;
    assert_int_equal(smtp_set(b.smtp, &b.options), RC_OK);
    post("jo@example.com", NULL);
    smtp_drive(b.smtp);
    smtp_free(&b.smtp); /* returns, with one under way */
    assert_int_equal(b.done, 1);
    assert_int_equal(close(fd), 0);
}

/* The greeting, and then an answer each time that something was said; NULL
 * behind them. */
static void
answer(int peer, const char *const *answers)
{
    int64_t until_ms = clock_now_ms() + PATIENCE_MS;

    for (size_t i = 0; answers[i] != NULL; i++) {
        char said[1024];

        while (i > 0 && recv(peer, said, sizeof(said), MSG_DONTWAIT) <= 0) {
            assert_true(clock_now_ms() < until_ms);
            smtp_wait(b.smtp, NULL, 0, 10);
            smtp_drive(b.smtp);
        }
        assert_int_equal(write(peer, answers[i], strlen(answers[i])),
                         strlen(answers[i]));
    }
}

/* A mail to a server that answers so, and then hangs up, or stays silent. */
static void
send_to(const char *to, const char *const *answers, bool hangs_up)
{
    int64_t until_ms = clock_now_ms() + PATIENCE_MS;
    char url[64];
    int fd = listen_here(url);
    int peer;

    b.options = (struct smtp_options){.url = url,
                                      .username = "",
                                      .password = "",
                                      .max_in_flight = 4,
                                      .timeout_ms = PATIENCE_MS};
    start_client();
    post(to, NULL);
    smtp_drive(b.smtp);
    peer = accept(fd, NULL, NULL);
    assert_true(peer >= 0);
    answer(peer, answers);
    if (hangs_up) {
        assert_int_equal(shutdown(peer, SHUT_WR), 0); /* no answer to QUIT */
    }
    await(1);
    assert_true(clock_now_ms() < until_ms);
    assert_int_equal(close(peer), 0);
    assert_int_equal(close(fd), 0);
    smtp_free(&b.smtp);
    b.done = 0;
}

static void
send_to_script(const char *to, const char *const *answers)
{
    send_to(to, answers, true);
}

static void
an_answer_to_quit_is_not_waited_for(void **state)
{
    (void)state;
    send_to("jo@example.com",
            (const char *const[]){"220 here\r\n", "250 here\r\n", "250 OK\r\n",
                                  "550 5.1.1 no such user\r\n", NULL},
            false);
    assert_last(SMTP_RECIPIENT_REFUSED, 550, "RCPT TO: 550 5.1.1 no such user");
}

static void
greet(const char *greeting)
{
    send_to_script("jo@example.com", (const char *const[]){greeting, NULL});
}

static void
greetings_may_refuse_us(void **state)
{
    (void)state;
    greet("554 5.3.2 not\x01 here\xff\r\n");
    assert_last(SMTP_WE_ARE_REFUSED, 554, "greeting: 554 5.3.2 not here");
    greet("421 4.3.2 full\r\n");
    assert_last(SMTP_LATER, 421, "greeting: 421 4.3.2 full");
    greet("554-first\r\n554 second\r\n");
    assert_last(SMTP_WE_ARE_REFUSED, 554, "greeting: 554 first second");
    greet("what?\r\n554 \r\n");
    assert_int_equal(b.last.end, SMTP_WE_ARE_REFUSED);
}

#define LONG_ADDRESS                                                           \
    "a123456789012345678901234567890123456789012345678901234567890@"           \
    "b123456789012345678901234567890123456789012345678901234567890."           \
    "c123456789012345678901234567890123456789012345678901234567890.example"

/* What real servers say at RCPT TO, of the recipient and of us. */
static const struct {
    const char *answer;
    enum smtp_end end;
    const char *to; /* NULL: jo@example.com */
} to_recipients[] = {
    {"550 5.1.1 <jo@example.com>: Recipient address rejected: User unknown in "
     "relay recipient table",
     SMTP_RECIPIENT_REFUSED, NULL},
    {"552 5.2.2 mailbox over quota", SMTP_RECIPIENT_REFUSED, NULL},
    {"556 5.1.10 the domain takes no mail", SMTP_RECIPIENT_REFUSED, NULL},
    {"550-5.1.1 The email account that you tried to reach does not exist.\r\n"
     "550 5.1.1 Please check for typos.",
     SMTP_RECIPIENT_REFUSED, NULL},
    {"550 5.4.1 Recipient address rejected: Access denied.",
     SMTP_RECIPIENT_REFUSED, NULL},
    {"550 5.7.1 this user takes no mail from strangers", SMTP_RECIPIENT_REFUSED,
     NULL},
    {"553 5.6.7 no addresses beyond ASCII", SMTP_RECIPIENT_REFUSED, NULL},
    {"550 No such person here", SMTP_RECIPIENT_REFUSED, NULL},
    {"550 sorry, no mailbox here by that name. (#5.1.1)",
     SMTP_RECIPIENT_REFUSED, NULL},
    {"550 5.1.0 Address rejected", SMTP_RECIPIENT_REFUSED, NULL},
    {"550 <relay@example.com>: unknown", SMTP_RECIPIENT_REFUSED,
     "relay@example.com"},
    {"550 sender@example.com: unknown", SMTP_RECIPIENT_REFUSED,
     "sender@example.com"},
    {"554 5.7.1 <" LONG_ADDRESS ">: Recipient address rejected",
     SMTP_RECIPIENT_REFUSED, LONG_ADDRESS},
    {"550 the transferee has moved, see the mailboxes", SMTP_RECIPIENT_REFUSED,
     NULL},
    {"554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using "
     "zen.spamhaus.org",
     SMTP_WE_ARE_REFUSED, NULL},
    {"504 5.5.2 <invitations@localhost>: Sender address rejected: need "
     "fully-qualified address",
     SMTP_WE_ARE_REFUSED, NULL},
    {"550 5.7.1 <web1>: Helo command rejected: Host not found",
     SMTP_WE_ARE_REFUSED, NULL},
    {"550 5.7.1 Daily sending quota exceeded", SMTP_WE_ARE_REFUSED, NULL},
    {"550 5.1.8 <invitations@localhost>: Sender address rejected: Domain not "
     "found",
     SMTP_WE_ARE_REFUSED, NULL},
    {"553 5.1.7 not a valid address", SMTP_WE_ARE_REFUSED, NULL},
    {"550 5.1.0 <invitations@localhost> sender rejected", SMTP_WE_ARE_REFUSED,
     NULL},
    {"550 5.7.1 <user@example.com>: Access denied", SMTP_WE_ARE_REFUSED,
     "user@example.com"},
    {"550 5.7.1 to protect our users we take nothing from you",
     SMTP_WE_ARE_REFUSED, NULL},
    {"550 5.7.26 Unauthenticated email is not accepted, see DMARC",
     SMTP_WE_ARE_REFUSED, NULL},
    {"550 SPF check failed", SMTP_WE_ARE_REFUSED, NULL},
    {"550 relay not permitted", SMTP_WE_ARE_REFUSED, NULL},
    {"550-Verification failed\r\n550-for some reason\r\n550 Sender verify "
     "failed",
     SMTP_WE_ARE_REFUSED, NULL},
    {"553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)",
     SMTP_WE_ARE_REFUSED, NULL},
    {"554 <" LONG_ADDRESS ">: Relay access denied", SMTP_WE_ARE_REFUSED,
     LONG_ADDRESS},
    {"503 5.1.1 Bad sequence of commands", SMTP_WE_ARE_REFUSED, NULL},
    {"530 5.7.0 the user must authenticate", SMTP_WE_ARE_REFUSED, NULL},
};

static void
refusals_of_recipients_are_told_from_those_of_us(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(to_recipients); k++) {
        const char *to = to_recipients[k].to;
        char line[512];

        (void)snprintf(line, sizeof(line), "%s\r\n", to_recipients[k].answer);
        send_to_script(to == NULL ? "jo@example.com" : to,
                       (const char *const[]){"220 hi\r\n", "250 here\r\n",
                                             "250 ok\r\n", line, NULL});
        if (b.last.end != to_recipients[k].end) {
            fail_msg("%s: %d", to_recipients[k].answer, (int)b.last.end);
        }
    }
}

static void
what_is_said_to_data_may_be_of_the_recipient(void **state)
{
    static const struct {
        const char *answer;
        enum smtp_end end;
    } rows[] = {
        {"550 5.1.10 RESOLVER.ADR.RecipientNotFound\r\n",
         SMTP_RECIPIENT_REFUSED},
        {"552 5.2.2 over quota\r\n", SMTP_RECIPIENT_REFUSED},
        {"550 5.1.8 the sender's domain is not there\r\n", SMTP_WE_ARE_REFUSED},
        {"554 5.6.0 the user takes no advertisements\r\n", SMTP_WE_ARE_REFUSED},
        {"550 no\r\n", SMTP_WE_ARE_REFUSED},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(rows); k++) {
        send_to_script("jo@example.com",
                       (const char *const[]){"220 hi\r\n", "250 here\r\n",
                                             "250 ok\r\n", "250 ok\r\n",
                                             rows[k].answer, NULL});
        assert_int_equal(b.last.end, rows[k].end);
    }
}

/* curl says HELO then, after which there is no SMTPUTF8 and no AUTH. */
static void
an_ehlo_that_is_put_off_refuses_nobody(void **state)
{
    static const char put_off[] = "451 4.3.0 later\r\n";

    (void)state;
    send_to_script(
        "j\xc3\xb6rg@example.com",
        (const char *const[]){"220 hi\r\n", put_off, "250 here\r\n", NULL});
    assert_last(SMTP_LATER, 451, "EHLO: 451, and without it no SMTPUTF8");
    send_to_script("jo@example.com",
                   (const char *const[]){"220 hi\r\n", put_off, "250 here\r\n",
                                         "530 5.7.0 AUTH first\r\n", NULL});
    assert_last(SMTP_LATER, 530, "MAIL FROM: 530 5.7.0 AUTH first");
    send_to_script("jo@example.com",
                   (const char *const[]){
                       "220 hi\r\n", put_off, "250 here\r\n", "250 ok\r\n",
                       "554 5.7.1 Relay access denied\r\n", NULL});
    assert_last(SMTP_LATER, 554, "RCPT TO: 554 5.7.1 Relay access denied");
    send_to_script("jo@example.com",
                   (const char *const[]){"220 hi\r\n", put_off,
                                         "550 5.7.1 not you\r\n", NULL});
    assert_last(SMTP_WE_ARE_REFUSED, 550, "EHLO: 550 5.7.1 not you");
}

/* The text that is told is cut, and between characters. */
static void
long_answers_are_told_in_part(void **state)
{
    char line[512] = "550 5.1.1 ";

    (void)state;
    for (size_t k = 0; k < 120; k++) {
        (void)snprintf(line + 10 + 2 * k, sizeof(line) - 10 - 2 * k, "%s",
                       "\xc3\xb6\r\n");
    }
    send_to_script("jo@example.com",
                   (const char *const[]){"220 hi\r\n", "250 here\r\n",
                                         "250 ok\r\n", line, NULL});
    assert_int_equal(b.last.end, SMTP_RECIPIENT_REFUSED);
    assert_int_equal(strlen(b.last.text), SMTP_TEXT_BYTES - 1);
    assert_memory_equal(b.last.text + SMTP_TEXT_BYTES - 3, "\xc3\xb6", 2);
}

/* It stops answering in the middle: QUIT is not waited for. */
static void
a_server_that_freezes_does_not_hold_us_up(void **state)
{
    int64_t began_ms;

    (void)state;
    start_server((const char *const[]){NULL});
    b.options.timeout_ms = 600000;
    start_client();
    send_one("jo@example.com");
    assert_last(SMTP_SENT, 250, "");
    assert_int_equal(kill(b.server.pid, SIGSTOP), 0);
    post("jo@example.com", NULL);
    smtp_drive(b.smtp);
    smtp_wait(b.smtp, NULL, 0, 10);
    smtp_drive(b.smtp);
    began_ms = clock_now_ms();
    smtp_free(&b.smtp);
    assert_true(clock_now_ms() - began_ms < PATIENCE_MS);
    assert_int_equal(kill(b.server.pid, SIGCONT), 0);
}

/* Or the server would take half a mail, or none, for a whole one. */
static void
a_mail_that_is_broken_off_has_no_end(void **state)
{
    char url[64];
    char rest[256] = "";
    int fd = listen_here(url);
    int peer;

    (void)state;
    b.options = (struct smtp_options){.url = url,
                                      .username = "",
                                      .password = "",
                                      .max_in_flight = 4,
                                      .timeout_ms = PATIENCE_MS};
    start_client();
    post("jo@example.com", NULL);
    smtp_drive(b.smtp);
    peer = accept(fd, NULL, NULL);
    assert_true(peer >= 0);
    answer(peer,
           (const char *const[]){"220 hi\r\n", "250 here\r\n", "250 ok\r\n",
                                 "250 ok\r\n", "354 go\r\n", NULL});
    smtp_free(&b.smtp);
    (void)recv(peer, rest, sizeof(rest) - 1, MSG_WAITALL); /* to its end */
    assert_string_equal(rest, "");
    assert_int_equal(close(peer), 0);
    assert_int_equal(close(fd), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(mails_are_sent_over_connections_that_are_kept,
                                  teardown),
        cmocka_unit_test_teardown(no_more_than_max_in_flight_are_under_way,
                                  teardown),
        cmocka_unit_test_teardown(refusals_are_told_apart, teardown),
        cmocka_unit_test_teardown(a_server_that_does_not_relay_refuses_us,
                                  teardown),
        cmocka_unit_test_teardown(no_server_is_a_reason_to_wait, teardown),
        cmocka_unit_test_teardown(utf8_addresses_need_a_server_that_takes_them,
                                  teardown),
        cmocka_unit_test_teardown(utf8_addresses_are_not_sent_to_others,
                                  teardown),
        cmocka_unit_test_teardown(passwords_are_given_and_may_be_wrong,
                                  teardown),
        cmocka_unit_test_teardown(starttls_is_used_and_may_be_required,
                                  teardown),
        cmocka_unit_test_teardown(
            nothing_is_sent_without_starttls_if_it_is_required, teardown),
        cmocka_unit_test_teardown(
            nothing_is_sent_without_starttls_once_it_is_required, teardown),
        cmocka_unit_test_teardown(an_answer_to_quit_is_not_waited_for,
                                  teardown),
        cmocka_unit_test_teardown(a_server_that_says_nothing_is_not_waited_for,
                                  teardown),
        cmocka_unit_test_teardown(greetings_may_refuse_us, teardown),
        cmocka_unit_test_teardown(
            refusals_of_recipients_are_told_from_those_of_us, teardown),
        cmocka_unit_test_teardown(what_is_said_to_data_may_be_of_the_recipient,
                                  teardown),
        cmocka_unit_test_teardown(an_ehlo_that_is_put_off_refuses_nobody,
                                  teardown),
        cmocka_unit_test_teardown(long_answers_are_told_in_part, teardown),
        cmocka_unit_test_teardown(a_server_that_freezes_does_not_hold_us_up,
                                  teardown),
        cmocka_unit_test_teardown(a_mail_that_is_broken_off_has_no_end,
                                  teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
