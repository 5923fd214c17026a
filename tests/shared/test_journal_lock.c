/* Several processes at one journal: turns, time-outs, kills. */
#include "tests/shared/journal_fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "shared/clock.h"

#define UNTIL (FIXTURE_NOW + FIXTURE_DAY)
#define CB SERVICE_CALLBACK

/* ---- time-outs
 * ---------------------------------------------------------------------- */

static void
after_one_timeout_the_edge_only_tries(void **state)
{
    struct fixture *f = *state;
    struct journal_request r = fixture_request(f, "[1]");
    pid_t hog;
    int64_t start_ms;

    journal_free(&f->edge);
    f->options.lock_timeout_ms = 400;
    f->edge = fixture_journal(f, JOURNAL_EDGE);
    assert_int_equal(fixture_accept(f, "[1]"), 1);
    assert_int_equal(journal_lock_holder(f->path), 0);
    hog = fixture_lock_hog(f);
    assert_int_equal(journal_lock_holder(f->path), hog);

    start_ms = clock_now_ms();
    assert_int_equal(journal_accept(f->edge, &r, 1, UNTIL), RC_TIMEOUT);
    assert_true(clock_now_ms() - start_ms >= 400);
    assert_int_equal(r.seq, 0);
    assert_non_null(strstr(journal_error(f->edge), "400 ms"));
    start_ms = clock_now_ms();
    for (int i = 0; i < 10; i++) {
        assert_int_equal(journal_accept(f->edge, &r, 1, UNTIL), RC_TIMEOUT);
    }
    assert_true(clock_now_ms() - start_ms < 400); /* all ten */

    fixture_child_kill(hog);
    assert_int_equal(journal_lock_holder(f->path), 0);
    assert_int_equal(journal_accept(f->edge, &r, 1, UNTIL), RC_OK);
    assert_int_equal(r.seq, 2);
    /* Having had it, it waits again. */
    hog = fixture_lock_hog(f);
    start_ms = clock_now_ms();
    assert_int_equal(journal_accept(f->edge, &r, 1, UNTIL), RC_TIMEOUT);
    assert_true(clock_now_ms() - start_ms >= 400);
    fixture_child_kill(hog);
}

static void
the_dispatcher_waits_each_time(void **state)
{
    struct fixture *f = *state;
    pid_t hog;

    journal_free(&f->dispatcher);
    f->options.lock_timeout_ms = 60;
    f->dispatcher = fixture_journal(f, JOURNAL_DISPATCHER);
    (void)fixture_accept(f, "[1]");
    hog = fixture_lock_hog(f);
    for (int i = 0; i < 3; i++) {
        int64_t start_ms = clock_now_ms();

        assert_int_equal(journal_begin(f->dispatcher), RC_TIMEOUT);
        assert_true(clock_now_ms() - start_ms >= 60);
    }
    fixture_child_kill(hog);
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
}

static void *
accept_with_signals_blocked(void *arg)
{
    struct fixture *f = arg;
    struct journal_request r = fixture_request(f, "[1]");
    sigset_t all;

    sigfillset(&all);
    if (pthread_sigmask(SIG_BLOCK, &all, NULL) != 0) {
        return NULL;
    }
    return journal_accept(f->edge, &r, 1, UNTIL) == RC_TIMEOUT ? f : NULL;
}

static void
a_thread_that_blocks_all_signals_times_out_as_well(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;
    void *result = NULL;
    pid_t hog;

    journal_free(&f->edge);
    f->options.lock_timeout_ms = 50;
    f->edge = fixture_journal(f, JOURNAL_EDGE);
    hog = fixture_lock_hog(f);
    assert_int_equal(
        pthread_create(&thread, NULL, accept_with_signals_blocked, f), 0);
    assert_int_equal(pthread_join(thread, &result), 0);
    assert_ptr_equal(result, f);
    fixture_child_kill(hog);
}

static void
release_after_signals(struct fixture *f, void *arg)
{
    pid_t parent = getppid();
    char path[128];
    int fd;

    (void)snprintf(path, sizeof path, "%s.lock", f->path);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0660);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    __atomic_store_n((int *)arg, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < 20; i++) {
        (void)usleep(2000);
        (void)kill(parent, SIGUSR1);
    }
}

static void
ignore(int number)
{
    (void)number;
}

static void
other_signals_do_not_end_the_wait(void **state)
{
    struct fixture *f = *state;
    struct sigaction action = {.sa_handler = ignore};
    struct sigaction before;
    int *held = fixture_shared(sizeof *held);
    pid_t child;

    assert_int_equal(sigaction(SIGUSR1, &action, &before), 0);
    child = fixture_child(f, release_after_signals, held);
    while (__atomic_load_n(held, __ATOMIC_ACQUIRE) == 0) {
        (void)usleep(500);
    }
    assert_int_equal(fixture_accept(f, "[1]"), 1);
    fixture_child_join(child);
    assert_int_equal(sigaction(SIGUSR1, &before, NULL), 0);
}

static void
two_journals_in_one_process_exclude_each_other(void **state)
{
    struct fixture *f = *state;
    struct journal *other;
    struct journal_request r = fixture_request(f, "[1]");

    f->options.lock_timeout_ms = 30;
    other = fixture_journal(f, JOURNAL_EDGE);
    (void)fixture_accept(f, "[1]");
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(journal_lock_holder(f->path), getpid());
    assert_int_equal(journal_accept(other, &r, 1, UNTIL), RC_TIMEOUT);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    assert_int_equal(journal_accept(other, &r, 1, UNTIL), RC_OK);
    journal_free(&other);
}

static void
try_dispatcher_lock(struct fixture *f, void *arg)
{
    pid_t holder = 0;
    int fd = 0;

    (void)arg;
    assert_int_equal(journal_dispatcher_lock(f->path, &fd, &holder), RC_AGAIN);
    assert_int_equal(fd, -1);
    assert_int_equal(holder, getppid());
}

static void
there_is_one_dispatcher(void **state)
{
    struct fixture *f = *state;
    pid_t holder = 1;
    int fd = -1;

    assert_int_equal(journal_dispatcher_lock(f->path, &fd, &holder), RC_OK);
    assert_true(fd >= 0);
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    assert_int_equal(holder, 0);
    fixture_child_join(fixture_child(f, try_dispatcher_lock, NULL));
    (void)close(fd);
    assert_int_equal(journal_dispatcher_lock(f->path, &fd, &holder), RC_OK);
    (void)close(fd);
}

/* ---- races
 * -----------------------------------------------------------------------------
 */

enum { RACERS = 4, RACE_BATCHES = 40, RACE_ROWS = 8 };

static void
race(struct fixture *f, void *arg)
{
    int *start = arg;
    struct journal_request r[RACE_ROWS];
    int64_t last = 0;

    while (__atomic_load_n(start, __ATOMIC_ACQUIRE) == 0) {
        /* all at once */
    }
    for (int i = 0; i < RACE_BATCHES; i++) {
        for (size_t k = 0; k < RACE_ROWS; k++) {
            r[k] = fixture_request(f, "[1,2,3]");
            r[k].received_unix_ms += getpid() % 7 * 100 + i;
        }
        assert_int_equal(journal_accept(f->edge, r, RACE_ROWS, UNTIL), RC_OK);
        for (size_t k = 0; k < RACE_ROWS; k++) {
            assert_int_equal(r[k].seq, k == 0 ? r[0].seq : r[k - 1].seq + 1);
        }
        assert_true(r[0].seq > last);
        last = r[RACE_ROWS - 1].seq;
    }
}

/* From no file at all: who makes the schema is a part of it. */
static void
processes_race_from_nothing(void **state)
{
    struct fixture *f = *state;
    int *start = fixture_shared(sizeof *start);
    pid_t pids[RACERS];
    const int64_t all = RACERS * RACE_BATCHES * RACE_ROWS;

    for (int i = 0; i < RACERS; i++) {
        pids[i] = fixture_child(f, race, start);
    }
    __atomic_store_n(start, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < RACERS; i++) {
        fixture_child_join(pids[i]);
    }
    assert_int_equal(fixture_ledger(f).accepted, all);
    assert_int_equal(fixture_ask(f, "SELECT max(seq) FROM queue_callback"),
                     all);
    /* No row was received before the one in front of it. */
    assert_int_equal(fixture_ask(f,
                                 "SELECT count(*) FROM queue_callback a"
                                 " JOIN queue_callback b ON b.seq = a.seq + 1"
                                 " WHERE b.received < a.received"),
                     0);
}

static void
read_while_it_is_made(struct fixture *f, void *arg)
{
    int *start = arg;
    struct journal *reader = fixture_journal(f, JOURNAL_READER);
    int64_t seq = 0;

    while (__atomic_load_n(start, __ATOMIC_ACQUIRE) == 0) {
        /* all at once */
    }
    while (seq < 5) {
        enum rc rc = journal_newest(reader, CB, &seq);

        if (rc != RC_OK && rc != RC_AGAIN) {
            fail_msg("%s", journal_error(reader));
        }
    }
    journal_free(&reader);
}

static void
accept_five(struct fixture *f, void *arg)
{
    int *start = arg;

    while (__atomic_load_n(start, __ATOMIC_ACQUIRE) == 0) {
        /* all at once */
    }
    for (int i = 0; i < 5; i++) {
        (void)fixture_accept(f, "[1]");
    }
}

static void
readers_may_come_while_it_is_made(void **state)
{
    for (int round = 0; round < 15; round++) {
        struct fixture *f = *state;
        int *start = fixture_shared(sizeof *start);
        pid_t pids[4];

        for (int i = 0; i < 4; i++) {
            pids[i] = fixture_child(
                f, i < 2 ? read_while_it_is_made : accept_five, start);
        }
        __atomic_store_n(start, 1, __ATOMIC_RELEASE);
        for (int i = 0; i < 4; i++) {
            fixture_child_join(pids[i]);
        }
        (void)fixture_teardown(state);
        (void)fixture_setup(state);
    }
}

/* ---- kills
 * ---------------------------------------------------------------------------------
 */

enum { ACKNOWLEDGED_MAX = 100000 };

struct acknowledged {
    int64_t count; /* written after the ids: what an answer would be */
    struct uuid ids[ACKNOWLEDGED_MAX];
};

static void
accept_for_ever(struct fixture *f, void *arg)
{
    struct acknowledged *a = arg;
    struct journal_request r[16];

    for (;;) {
        for (size_t i = 0; i < 16; i++) {
            r[i] = fixture_request(f, "[1,2,3]");
        }
        assert_int_equal(journal_accept(f->edge, r, 16, UNTIL), RC_OK);
        assert_true(a->count + 16 <= ACKNOWLEDGED_MAX);
        for (size_t i = 0; i < 16; i++) {
            a->ids[a->count + (int64_t)i] = r[i].id;
        }
        __atomic_store_n(&a->count, a->count + 16, __ATOMIC_RELEASE);
    }
}

static void
work_for_ever(struct fixture *f, void *arg)
{
    struct journal *j = f->dispatcher;
    int64_t *works = arg;
    struct journal_page page = {0};

    for (;;) {
        int64_t no = 0;
        int64_t n = 0;

        assert_int_equal(journal_queue_page(j, CB, 0, 20, 10000, &page), RC_OK);
        assert_int_equal(journal_begin(j), RC_OK);
        assert_int_equal(journal_outcome_add(j, CB, "[]", 2, &no), RC_OK);
        for (size_t i = 0; i < page.count; i++) {
            assert_int_equal(i % 5 == 4
                                 ? journal_bury(j, CB, page.rows[i].seq, "x",
                                                NULL, 0, NULL, 0, FIXTURE_NOW)
                                 : journal_finish(j, CB, page.rows[i].seq, no),
                             RC_OK);
        }
        assert_int_equal(journal_commit(j), RC_OK);
        assert_int_equal(journal_begin(j), RC_OK);
        assert_int_equal(journal_retire(j, CB, 0, no, &n), RC_OK);
        assert_int_equal(journal_commit(j), RC_OK);
        assert_int_equal(journal_checkpoint(j, &n), RC_OK);
        __atomic_store_n(works, *works + 1, __ATOMIC_RELEASE);
    }
}

/* Until *counter has grown by n; the moment of the kill is then any. */
static void
wait_for(const int64_t *counter, int64_t n)
{
    int64_t from = __atomic_load_n(counter, __ATOMIC_ACQUIRE);

    while (__atomic_load_n(counter, __ATOMIC_ACQUIRE) < from + n) {
        (void)usleep(100);
    }
}

static void
kill_9_loses_nothing_acknowledged(void **state)
{
    struct fixture *f = *state;
    struct acknowledged *a = fixture_shared(sizeof *a);
    struct journal_entry e;

    for (int round = 0; round < 25; round++) {
        pid_t child = fixture_child(f, accept_for_ever, a);

        wait_for(&a->count, 16 * (round % 5 + 1));
        (void)usleep((useconds_t)(round * 137 % 1000));
        fixture_child_kill(child);
        assert_true(fixture_ledger(f).accepted >= a->count);
    }
    for (int64_t i = 0; i < a->count; i++) {
        assert_int_equal(journal_find(f->dispatcher, &a->ids[i], &e), RC_OK);
    }
    /* At most the batch in hand was there without an acknowledgement. */
    assert_true(fixture_ledger(f).accepted <= a->count + 25 * 16);
}

static void
kill_9_of_the_dispatcher_leaves_a_balanced_ledger(void **state)
{
    struct fixture *f = *state;
    int64_t *works = fixture_shared(sizeof *works);

    for (int round = 0; round < 15; round++) {
        pid_t child;

        fixture_accept_many(f, 400);
        child = fixture_child(f, work_for_ever, works);
        wait_for(works, round % 3 + 1);
        (void)usleep((useconds_t)(round * 331 % 1000));
        fixture_child_kill(child);
        (void)fixture_ledger(f); /* balanced */
        assert_int_equal(fixture_ledger(f).accepted, (round + 1) * 400);
    }
    assert_true(fixture_ledger(f).final > 0);
    assert_true(fixture_ledger(f).dead > 0);
    /* So are the bytes: what is there, and nothing else, was counted. */
    assert_int_equal(fixture_ledger(f).queue_bytes,
                     fixture_ask(f,
                                 "SELECT"
                                 " (SELECT coalesce(sum(length(body) + 96), 0)"
                                 "  FROM queue_callback) +"
                                 " (SELECT coalesce(sum(length(body) + 96), 0)"
                                 "  FROM dead) +"
                                 " (SELECT coalesce(sum(length(body) + 64), 0)"
                                 "  FROM outcome)"));
}

int
main(void)
{
#define CASE(name)                                                             \
    cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        CASE(after_one_timeout_the_edge_only_tries),
        CASE(the_dispatcher_waits_each_time),
        CASE(a_thread_that_blocks_all_signals_times_out_as_well),
        CASE(other_signals_do_not_end_the_wait),
        CASE(two_journals_in_one_process_exclude_each_other),
        CASE(there_is_one_dispatcher),
        CASE(processes_race_from_nothing),
        CASE(readers_may_come_while_it_is_made),
        CASE(kill_9_loses_nothing_acknowledged),
        CASE(kill_9_of_the_dispatcher_leaves_a_balanced_ledger),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
