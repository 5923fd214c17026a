/* dispatcher/control.c on a real socket, with a real journal, writer and feed
 * behind it. */
#include "dispatcher/control.h"

#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dispatcher/work.h"
#include "shared/clock.h"
#include "shared/ctlclient.h"
#include "shared/json.h"
#include "tests/shared/journal_fixture.h"

#define ASK_MS 20000

struct bench {
    void *fixture; /* cmocka's state of the fixture */
    struct fixture *f;
    struct conf *conf;
    struct metrics *metrics;
    struct writer *writer;
    struct queue *inbox;
    struct queue *others; /* the inbox of a service that is not asked */
    struct feed *feed;
    struct control *control;
    struct text answer;
};

static int
setup(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    struct feed_options feed = {.endpoint = NULL};
    struct control_options control = {.started_unix_ms = FIXTURE_NOW};
    char endpoint[128];

    assert_int_equal(fixture_setup(&b->fixture), 0);
    b->f = b->fixture;
    b->conf = calloc(1, sizeof *b->conf);
    (void)snprintf(b->conf->journal.path, sizeof b->conf->journal.path, "%s",
                   b->f->path);
    (void)snprintf(b->conf->control.path, sizeof b->conf->control.path,
                   "%s/control.sock", b->f->dir);
    b->conf->journal.max_bytes = FIXTURE_MAX_BYTES;
    b->conf->journal.lock_timeout_ms = 5000;
    b->conf->node.id = 3;
    assert_int_equal(metrics_new(&b->metrics), RC_OK);
    assert_int_equal(queue_new(&b->inbox, 16, 0), RC_OK);
    assert_int_equal(queue_new(&b->others, 16, 0), RC_OK);
    assert_int_equal(writer_new(&b->writer,
                                fixture_journal(b->f, JOURNAL_DISPATCHER),
                                b->metrics),
                     RC_OK);
    (void)snprintf(endpoint, sizeof endpoint, "ipc://%s/link.sock", b->f->dir);
    feed.endpoint = endpoint;
    feed.journal = &b->f->options;
    for (unsigned s = 0; s < SERVICE_COUNT; s++) {
        feed.inboxes[s] = s == SERVICE_CALLBACK ? b->inbox : b->others;
    }
    feed.metrics = b->metrics;
    assert_int_equal(feed_start(&b->feed, &feed), RC_OK);
    control.conf = b->conf;
    control.feed = b->feed;
    control.writer = b->writer;
    control.metrics = b->metrics;
    assert_int_equal(control_start(&b->control, &control), RC_OK);
    *state = b;
    return 0;
}

static int
teardown(void **state)
{
    struct bench *b = *state;

    control_stop(&b->control);
    feed_stop(&b->feed);
    writer_free(&b->writer);
    queue_free(&b->others, work_free);
    queue_free(&b->inbox, work_free);
    metrics_free(&b->metrics);
    text_free(&b->answer);
    free(b->conf);
    (void)fixture_teardown(&b->fixture);
    free(b);
    return 0;
}

static enum rc
ask(struct bench *b, const char *line)
{
    return ctlclient_ask(b->conf->control.path, line, ASK_MS, &b->answer);
}

static void
assert_answer_has(const struct bench *b, const char *part)
{
    if (strstr(text_cstr(&b->answer), part) == NULL) {
        fail_msg("no %s in %s", part, text_cstr(&b->answer));
    }
}

static void
assert_answer_is_json(const struct bench *b)
{
    static struct json_token tokens[4096];
    struct json json;

    if (json_scan(text_cstr(&b->answer), b->answer.bytes, tokens,
                  ARRAY_COUNT(tokens), &json) != RC_OK) {
        fail_msg("not JSON: %s", text_cstr(&b->answer));
    }
}

static void
bury(struct bench *b, int64_t seq)
{
    struct journal *j = b->f->dispatcher;

    assert_int_equal(journal_begin(j), RC_OK);
    assert_int_equal(journal_bury(j, SERVICE_CALLBACK, seq, "no luck", NULL, 0,
                                  NULL, 0, FIXTURE_NOW),
                     RC_OK);
    assert_int_equal(journal_commit(j), RC_OK);
}

/* The next work of the inbox, whose turn it is to come. */
static struct work *
next_work(struct bench *b)
{
    struct pollfd p = {.fd = queue_ready_fd(b->inbox), .events = POLLIN};

    assert_int_equal(poll(&p, 1, ASK_MS), 1);
    return queue_pop(b->inbox);
}

/* Accept a request and take it through the feed. Its id as text. */
static int64_t
accept_one(struct bench *b, char id[UUID_TEXT_BYTES])
{
    int64_t seq = fixture_accept(b->f, "[1]");
    struct work *work = next_work(b);

    assert_int_equal(work->seq, seq);
    (void)uuid_format(&work->id, id);
    work_free(work);
    return seq;
}

static void
ping_is_answered(void **state)
{
    struct bench *b = *state;

    assert_int_equal(ask(b, "ping"), RC_OK);
    assert_string_equal(text_cstr(&b->answer), "{\"pong\":true}");
}

static void
status_tells_of_every_part(void **state)
{
    static const char *const parts[] = {
        "\"pid\":",
        "\"version\":\"",
        "\"uptime_s\":",
        "\"node_id\":3",
        "\"accepted\":2",
        "\"balanced\":true",
        "\"paused\":false",
        "\"behind\":",
        "\"inbox\":",
        "\"cursor\":",
        "\"postgres\":{\"up\":true}",
    };
    struct bench *b = *state;

    fixture_accept_many(b->f, 2);
    metrics_set(b->metrics, METRIC_POSTGRES_UP, SERVICE_COUNT, 1);
    assert_int_equal(ask(b, "status"), RC_OK);
    assert_answer_is_json(b);
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        assert_answer_has(b, parts[i]);
    }
}

static void
metrics_are_those_of_dispatcher_and_ledger(void **state)
{
    struct bench *b = *state;

    fixture_accept_many(b->f, 2);
    assert_int_equal(ask(b, "metrics"), RC_OK);
    assert_answer_has(b, "# TYPE sluice_feed_cursor gauge\n");
    assert_answer_has(b, "\nsluice_accepted_total{service=\"callback\"} 2\n");
    assert_answer_has(b, "\nsluice_ledger_balanced{service=\"callback\"} 1\n");
}

static void
the_queue_is_shown(void **state)
{
    struct bench *b = *state;

    fixture_accept_many(b->f, 2);
    assert_int_equal(ask(b, "queue"), RC_OK);
    assert_answer_is_json(b);
    assert_answer_has(b, "\"pending\":2");
    assert_int_equal(ask(b, "queue callback"), RC_OK);
    assert_answer_has(b, "\"seq\":1");
}

static void
a_dead_letter_retried_comes_back_under_a_new_seq(void **state)
{
    struct bench *b = *state;
    char id[UUID_TEXT_BYTES];
    char again[UUID_TEXT_BYTES];
    char line[128];
    int64_t seq = accept_one(b, id);
    struct work *work;

    bury(b, seq);
    assert_int_equal(ask(b, "dead list"), RC_OK);
    assert_answer_is_json(b);
    assert_answer_has(b, id);
    assert_answer_has(b, "no luck");
    (void)snprintf(line, sizeof line, "dead retry %s", id);
    assert_int_equal(ask(b, line), RC_OK);
    assert_string_equal(text_cstr(&b->answer), "{\"retried\":1}");
    work = next_work(b);
    assert_true(work->seq > seq);
    assert_string_equal(uuid_format(&work->id, again), id);
    work_free(work);
    assert_int_equal(ask(b, line), RC_INVALID);
    assert_answer_has(b, "no dead letter with id");
    (void)fixture_ledger(b->f);
}

static void
all_dead_letters_are_retried_in_groups(void **state)
{
    struct bench *b = *state;
    const size_t count = 450; /* more than two groups */

    fixture_accept_many(b->f, count);
    for (size_t i = 0; i < count; i++) {
        struct work *work = next_work(b);

        bury(b, work->seq);
        work_free(work);
    }
    assert_int_equal(ask(b, "dead retry all fax"), RC_INVALID);
    assert_int_equal(ask(b, "dead retry all callback"), RC_OK);
    assert_string_equal(text_cstr(&b->answer), "{\"retried\":450}");
    for (size_t i = 0; i < count; i++) {
        struct work *work = next_work(b);

        assert_int_equal(work->seq, (int64_t)(count + i + 1));
        work_free(work);
    }
    assert_int_equal(ask(b, "dead retry all"), RC_OK);
    assert_string_equal(text_cstr(&b->answer), "{\"retried\":0}");
    assert_int_equal(fixture_ledger(b->f).dead, 0);
}

static void
a_stop_does_not_wait_for_all_retries(void **state)
{
    struct bench *b = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct journal_ledger ledger;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    (void)fixture_ledger(b->f);
    fixture_sql(b->f,
                "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL"
                " SELECT i + 1 FROM n WHERE i < 40000)"
                " INSERT INTO dead(service, seq, id, received, died, reason,"
                " body) SELECT 'callback', i, randomblob(16), 1, 1, 'no luck',"
                " x'5b375d' FROM n;"
                "INSERT INTO sqlite_sequence VALUES('queue_callback', 40000);"
                "UPDATE counter SET accepted = 40000, dead = 40000");
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s",
                   b->conf->control.path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address),
                     0);
    assert_int_equal(send(fd, "dead retry all\n", 15, 0), 15);
    work_free(next_work(b)); /* it has begun */
    control_stop(&b->control);
    ledger = fixture_ledger(b->f);
    assert_true(ledger.balanced);
    assert_true(ledger.dead > 0);
    (void)close(fd);
}

static void
a_dead_letter_dropped_is_final(void **state)
{
    struct bench *b = *state;
    char id[UUID_TEXT_BYTES];
    char line[128];

    bury(b, accept_one(b, id));
    (void)snprintf(line, sizeof line, "dead drop %s", id);
    assert_int_equal(ask(b, line), RC_OK);
    assert_int_equal(fixture_ledger(b->f).final, 1);
    assert_int_equal(ask(b, line), RC_INVALID);
    (void)snprintf(line, sizeof line, "explain %s", id);
    assert_int_equal(ask(b, line), RC_OK);
    assert_answer_has(b, "\"state\":\"unknown\"");
}

static void
a_request_is_explained(void **state)
{
    struct bench *b = *state;
    char id[UUID_TEXT_BYTES];
    char line[128];

    (void)accept_one(b, id);
    (void)snprintf(line, sizeof line, "explain %s", id);
    assert_int_equal(ask(b, line), RC_OK);
    assert_answer_is_json(b);
    assert_answer_has(b, "\"state\":\"pending\"");
}

static void
drain_holds_the_feed_until_resume(void **state)
{
    struct bench *b = *state;
    char id[UUID_TEXT_BYTES];
    struct work *work;

    (void)accept_one(b, id);
    assert_int_equal(ask(b, "drain"), RC_OK);
    assert_answer_is_json(b);
    assert_answer_has(b, "\"drained\":true");
    assert_int_equal(ask(b, "status"), RC_OK);
    assert_answer_has(b, "\"held\":true");
    fixture_accept_many(b->f, 1);
    (void)poll(NULL, 0, 150);
    assert_int_equal(queue_count(b->inbox), 0);
    assert_int_equal(ask(b, "resume callback"), RC_OK);
    work = next_work(b);
    assert_int_equal(work->seq, 2);
    work_free(work);
}

static void
without_a_journal_status_says_so(void **state)
{
    struct bench *b = *state;

    assert_int_equal(ask(b, "status"), RC_INVALID);
    assert_string_equal(text_cstr(&b->answer), "journal: not there yet");
    assert_int_equal(ask(b, "drain"), RC_OK);
    assert_answer_has(b, "\"drained\":true");
}

static void
what_is_no_command_is_refused(void **state)
{
    static const struct {
        const char *line;
        const char *why;
    } table[] = {
        {"", "no command"},
        {"   ", "no command"},
        {"reboot", "no command \"reboot\""},
        {"dead", "no command \"dead\""},
        {"dead list callback 0 10 extra", "wrong number"},
        {"dead list callback x", "\"x\" is not a number"},
        {"dead list callback 1 -5", "\"-5\" is not a number"},
        {"dead list calls", "no service \"calls\""},
        {"dead retry", "wrong number"},
        {"dead retry 1234", "not an id"},
        {"dead retry 019b7d00-91ae-7000-8000-000000000000 callback",
         "with \"all\" only"},
        {"dead drop all", "not an id"},
        {"explain", "wrong number"},
        {"explain x", "not an id"},
        {"pause", "wrong number"},
        {"pause fax", "no service"},
        {"status now", "wrong number"},
        {"a b c d e f g h i j k l m", "no command"},
        {"status a b c d e f g h i j k l m", "wrong number"},
        {"st\x01tus", "printable"},
        {"caf\xc3\xa9", "printable"},
    };
    struct bench *b = *state;

    for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
        assert_int_equal(ask(b, table[i].line), RC_INVALID);
        assert_answer_has(b, table[i].why);
    }
}

/* ---- clients that misbehave -----------------------------------------------
 */

static int
connect_raw(const struct bench *b)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s",
                   b->conf->control.path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address),
                     0);
    return fd;
}

static void
read_all(int fd, char *out, size_t size)
{
    size_t used = 0;
    ssize_t n = 1;

    while (n > 0 && used + 1 < size) {
        struct pollfd p = {.fd = fd, .events = POLLIN};

        assert_int_equal(poll(&p, 1, ASK_MS), 1);
        n = recv(fd, out + used, size - 1 - used, 0);
        used += n > 0 ? (size_t)n : 0;
    }
    assert_int_equal(n, 0);
    out[used] = '\0';
}

static void
a_line_too_long_or_with_a_nul_is_refused(void **state)
{
    struct bench *b = *state;
    char line[2000];
    char out[200];
    int fd = connect_raw(b);

    memset(line, 'x', sizeof line);
    assert_int_equal(send(fd, line, sizeof line, 0), sizeof line);
    read_all(fd, out, sizeof out);
    assert_string_equal(out, "error the command is too long\n");
    (void)close(fd);
    fd = connect_raw(b);
    assert_int_equal(send(fd, "ping\0x\n", 7, 0), 7);
    read_all(fd, out, sizeof out);
    assert_string_equal(out, "error a command is printable ASCII\n");
    (void)close(fd);
}

static void
a_line_may_come_in_pieces_and_end_with_the_stream(void **state)
{
    struct bench *b = *state;
    char out[200];
    int fd = connect_raw(b);

    assert_int_equal(send(fd, "pi", 2, 0), 2);
    (void)poll(NULL, 0, 10);
    assert_int_equal(send(fd, "ng", 2, 0), 2);
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    read_all(fd, out, sizeof out);
    assert_string_equal(out, "ok\n{\"pong\":true}");
    (void)close(fd);
}

/* More silent clients than there are places: they cost others 5 s at most. */
static void
silent_clients_do_not_stop_the_others_for_long(void **state)
{
    struct bench *b = *state;
    int fds[20];
    int64_t before = clock_now_ms();

    for (size_t i = 0; i < ARRAY_COUNT(fds); i++) {
        fds[i] = connect_raw(b);
    }
    assert_int_equal(ask(b, "ping"), RC_OK);
    assert_true(clock_now_ms() - before < 12000);
    for (size_t i = 0; i < ARRAY_COUNT(fds); i++) {
        (void)close(fds[i]);
    }
}

static void
clients_that_go_away_are_forgotten(void **state)
{
    struct bench *b = *state;

    for (int i = 0; i < 100; i++) {
        int fd = connect_raw(b);

        if (i % 2 == 0) {
            assert_int_equal(send(fd, "metrics\n", 8, 0), 8);
        }
        (void)close(fd);
    }
    assert_int_equal(ask(b, "ping"), RC_OK);
}

static void
only_root_and_the_owner_may_ask(void **state)
{
    struct bench *b = *state;
    struct stat st;
    int status = -1;
    pid_t pid;

    assert_int_equal(stat(b->conf->control.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    if (geteuid() != 0) {
        return; /* there is no other user to be */
    }
    /* So that it is the peer's uid that is refused, and not its connect. */
    assert_int_equal(chmod(b->f->dir, 0755), 0);
    assert_int_equal(chmod(b->conf->control.path, 0666), 0);
    pid = fork();
    if (pid == 0) {
        bool refused = setuid(65534) == 0 && ask(b, "ping") == RC_INVALID &&
                       strstr(text_cstr(&b->answer), "permission denied");

        _exit(refused ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void
after_the_end_nobody_listens(void **state)
{
    struct bench *b = *state;

    control_stop(&b->control);
    assert_int_equal(ask(b, "ping"), RC_AGAIN);
    assert_int_equal(access(b->conf->control.path, F_OK), -1);
}

#define WITH_CONTROL(test)                                                     \
    cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_CONTROL(ping_is_answered),
        WITH_CONTROL(status_tells_of_every_part),
        WITH_CONTROL(metrics_are_those_of_dispatcher_and_ledger),
        WITH_CONTROL(the_queue_is_shown),
        WITH_CONTROL(a_dead_letter_retried_comes_back_under_a_new_seq),
        WITH_CONTROL(all_dead_letters_are_retried_in_groups),
        WITH_CONTROL(a_stop_does_not_wait_for_all_retries),
        WITH_CONTROL(a_dead_letter_dropped_is_final),
        WITH_CONTROL(a_request_is_explained),
        WITH_CONTROL(drain_holds_the_feed_until_resume),
        WITH_CONTROL(without_a_journal_status_says_so),
        WITH_CONTROL(what_is_no_command_is_refused),
        WITH_CONTROL(a_line_too_long_or_with_a_nul_is_refused),
        WITH_CONTROL(a_line_may_come_in_pieces_and_end_with_the_stream),
        WITH_CONTROL(silent_clients_do_not_stop_the_others_for_long),
        WITH_CONTROL(clients_that_go_away_are_forgotten),
        WITH_CONTROL(only_root_and_the_owner_may_ask),
        WITH_CONTROL(after_the_end_nobody_listens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
