/* dispatcher/writer.c over a journal that is faked by --wrap: what was applied
 * since begin becomes committed, or is forgotten. */
#include "dispatcher/writer.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/log.h"

#define NUMBERS_MAX 8192

/* The journal. Only the writer's thread changes it while one runs. */
static struct {
    int open[NUMBERS_MAX]; /* applied in this transaction */
    int open_count;
    int committed[NUMBERS_MAX];
    int committed_count;
    int commits; /* with something in them */
    bool in_group;
} disk;

/* What is to fail: so many times, and how. */
static atomic_int begin_failures;
static atomic_int commit_failures;
static atomic_int failure_rc;
static atomic_bool closed;    /* a gate: applies wait while it is */
static atomic_bool at_gate;   /* somebody waits */
static atomic_llong clock_ms; /* every look is a second later, if not 0 */

enum rc __wrap_journal_begin(struct journal *j);
enum rc __wrap_journal_commit(struct journal *j);
void __wrap_journal_rollback(struct journal *j);
void __wrap_journal_free(struct journal **j);
const char *__wrap_journal_error(const struct journal *j);
int64_t __wrap_clock_now_ms(void);
int64_t __real_clock_now_ms(void);

int64_t
__wrap_clock_now_ms(void)
{
    if (atomic_load(&clock_ms) == 0) {
        return __real_clock_now_ms();
    }
    return atomic_fetch_add(&clock_ms, 1000);
}

static bool
use_up(atomic_int *left)
{
    if (atomic_load(left) == 0) {
        return false;
    }
    atomic_fetch_sub(left, 1);
    return true;
}

enum rc
__wrap_journal_begin(struct journal *j)
{
    (void)j;
    assert_false(disk.in_group);
    if (use_up(&begin_failures)) {
        return (enum rc)atomic_load(&failure_rc);
    }
    disk.in_group = true;
    disk.open_count = 0;
    return RC_OK;
}

enum rc
__wrap_journal_commit(struct journal *j)
{
    (void)j;
    assert_true(disk.in_group);
    disk.in_group = false;
    if (use_up(&commit_failures)) {
        return (enum rc)atomic_load(&failure_rc);
    }
    for (int k = 0; k < disk.open_count; k++) {
        disk.committed[disk.committed_count++] = disk.open[k];
    }
    disk.commits += disk.open_count > 0 ? 1 : 0;
    return RC_OK;
}

void
__wrap_journal_rollback(struct journal *j)
{
    (void)j;
    disk.in_group = false;
    disk.open_count = 0;
}

void
__wrap_journal_free(struct journal **j)
{
    *j = NULL;
}

const char *
__wrap_journal_error(const struct journal *j)
{
    (void)j;
    return "disk I/O error";
}

struct note {
    struct write write;
    int number;
    enum rc answer; /* of apply */
    int failures;   /* how often apply answers so; -1 always */
    int applied;
};

static enum rc
apply(struct journal *journal, struct write *write)
{
    struct note *note = (struct note *)write;
    (void)journal;
    while (atomic_load(&closed)) {
        atomic_store(&at_gate, true);
        (void)poll(NULL, 0, 1);
    }
    note->applied++;
    /* Even a refused one has written something by now. */
    disk.open[disk.open_count++] = note->number;
    if (note->failures != 0) {
        note->failures -= note->failures > 0 ? 1 : 0;
        return note->answer;
    }
    return RC_OK;
}

struct fixture {
    struct writer *writer;
    struct metrics *metrics;
    struct queue *replies;
    struct note notes[NUMBERS_MAX];
};

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    memset(&disk, 0, sizeof(disk));
    atomic_store(&clock_ms, 0);
    atomic_store(&begin_failures, 0);
    atomic_store(&commit_failures, 0);
    atomic_store(&failure_rc, RC_IO);
    atomic_store(&closed, false);
    atomic_store(&at_gate, false);
    assert_int_equal(metrics_new(&f->metrics), RC_OK);
    assert_int_equal(queue_new(&f->replies, NUMBERS_MAX, 0), RC_OK);
    assert_int_equal(
        writer_new(&f->writer, (struct journal *)&disk, f->metrics), RC_OK);
    for (int k = 0; k < NUMBERS_MAX; k++) {
        f->notes[k].write.apply = apply;
        f->notes[k].write.reply_to = f->replies;
        f->notes[k].number = k;
    }
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;
    writer_free(&f->writer);
    queue_free(&f->replies, NULL);
    metrics_free(&f->metrics);
    free(f);
    return 0;
}

static struct note *
next_reply(struct fixture *f)
{
    struct pollfd fd = {.fd = queue_ready_fd(f->replies), .events = POLLIN};
    struct note *note = queue_pop(f->replies);
    while (note == NULL) {
        assert_int_equal(poll(&fd, 1, 10000), 1);
        note = queue_pop(f->replies);
    }
    return note;
}

static void
submit(struct fixture *f, int from, int to)
{
    for (int k = from; k < to; k++) {
        assert_int_equal(writer_submit(f->writer, &f->notes[k].write), RC_OK);
    }
}

/* Submit note 0 and hold the writer in it, so that the next ones wait. */
static void
hold_writer(struct fixture *f)
{
    atomic_store(&closed, true);
    submit(f, 0, 1);
    while (!atomic_load(&at_gate)) {
        (void)poll(NULL, 0, 1);
    }
}

static void
writes_are_applied_and_replied_in_order(void **state)
{
    struct fixture *f = *state;
    submit(f, 0, 1000);
    for (int k = 0; k < 1000; k++) {
        const struct note *note = next_reply(f);
        assert_int_equal(note->number, k);
        assert_int_equal(note->write.rc, RC_OK);
    }
    assert_int_equal(disk.committed_count, 1000);
    for (int k = 0; k < 1000; k++) {
        assert_int_equal(disk.committed[k], k);
    }
}

static void
what_waits_shares_a_commit_up_to_512(void **state)
{
    struct fixture *f = *state;
    hold_writer(f);
    submit(f, 1, 1 + 512 + 7);
    atomic_store(&closed, false);
    for (int k = 0; k < 1 + 512 + 7; k++) {
        (void)next_reply(f);
    }
    assert_int_equal(disk.commits, 3);
    assert_int_equal(
        metrics_get(f->metrics, METRIC_WRITER_GROUPS_TOTAL, SERVICE_COUNT), 3);
    assert_int_equal(
        metrics_get(f->metrics, METRIC_WRITER_WRITES_TOTAL, SERVICE_COUNT),
        520);
}

static void
a_failed_group_is_repeated_whole(void **state)
{
    static const enum rc codes[] = {RC_IO, RC_FULL, RC_TIMEOUT};
    struct fixture *f = *state;
    for (int k = 0; k < (int)ARRAY_COUNT(codes); k++) {
        atomic_store(&failure_rc, (int)codes[k]);
        atomic_store(&begin_failures, 1);
        atomic_store(&commit_failures, 2);
        submit(f, 10 * k, 10 * k + 10);
        for (int n = 0; n < 10; n++) {
            assert_int_equal(next_reply(f)->write.rc, RC_OK);
        }
        assert_int_equal(disk.committed_count, 10 * k + 10);
    }
    assert_int_equal(
        metrics_get(f->metrics, METRIC_WRITER_FAILED_TOTAL, SERVICE_COUNT), 9);
}

static void
an_apply_that_fails_for_the_disk_repeats_its_group(void **state)
{
    struct fixture *f = *state;
    f->notes[3].answer = RC_FULL;
    f->notes[3].failures = 2;
    hold_writer(f);
    submit(f, 1, 5);
    atomic_store(&closed, false);
    for (int k = 0; k < 5; k++) {
        assert_int_equal(next_reply(f)->write.rc, RC_OK);
    }
    assert_int_equal(disk.committed_count, 5);
    assert_int_equal(f->notes[1].applied, 3);
}

static void
a_refused_write_leaves_nothing_and_the_others_go_on(void **state)
{
    struct fixture *f = *state;
    f->notes[3].answer = RC_INVALID;
    f->notes[3].failures = -1;
    f->notes[5].answer = RC_BUG;
    f->notes[5].failures = -1;
    f->notes[6].answer = RC_AGAIN;
    f->notes[6].failures = -1;
    hold_writer(f);
    submit(f, 1, 8);
    atomic_store(&closed, false);
    for (int k = 0; k < 8; k++) {
        const struct note *note = next_reply(f);
        assert_int_equal(note->number, k);
        assert_int_equal(note->write.rc, k == 3   ? RC_INVALID
                                         : k == 5 ? RC_BUG
                                                  : RC_OK);
    }
    static const int expected[] = {0, 1, 2, 4, 6, 7};
    assert_int_equal(disk.committed_count, ARRAY_COUNT(expected));
    for (size_t k = 0; k < ARRAY_COUNT(expected); k++) {
        assert_int_equal(disk.committed[k], expected[k]);
    }
    assert_int_equal(
        metrics_get(f->metrics, METRIC_WRITER_FAILED_TOTAL, SERVICE_COUNT), 0);
}

static void
it_is_full_one_past_4096_waiting(void **state)
{
    struct fixture *f = *state;
    hold_writer(f);
    submit(f, 1, 1 + 4096);
    assert_int_equal(writer_submit(f->writer, &f->notes[4097].write), RC_FULL);
    atomic_store(&closed, false);
    for (int k = 0; k < 4097; k++) {
        (void)next_reply(f);
    }
    assert_int_equal(disk.committed_count, 4097);
}

static void
a_call_waits_for_its_write(void **state)
{
    struct fixture *f = *state;
    f->notes[1].answer = RC_INVALID;
    f->notes[1].failures = -1;
    atomic_store(&commit_failures, 1);
    assert_int_equal(writer_call(f->writer, &f->notes[0].write), RC_OK);
    assert_int_equal(disk.committed_count, 1);
    assert_int_equal(writer_call(f->writer, &f->notes[1].write), RC_INVALID);
    assert_int_equal(disk.committed_count, 1);
    assert_int_equal(queue_count(f->replies), 0);
}

static void
a_flush_ends_behind_all_that_was_submitted(void **state)
{
    struct fixture *f = *state;
    submit(f, 0, 700);
    assert_int_equal(writer_flush(f->writer, 10000), RC_OK);
    assert_int_equal(queue_count(f->replies), 700);
}

static void
the_end_applies_what_waits(void **state)
{
    struct fixture *f = *state;
    hold_writer(f);
    submit(f, 1, 600);
    atomic_store(&closed, false);
    writer_free(&f->writer);
    assert_null(f->writer);
    assert_int_equal(disk.committed_count, 600);
    assert_int_equal(queue_count(f->replies), 600);
}

static void
the_end_gives_up_on_a_dead_disk(void **state)
{
    struct fixture *f = *state;
    atomic_store(&clock_ms, 1000);
    atomic_store(&begin_failures, 1000000);
    submit(f, 0, 3);
    writer_free(&f->writer);
    for (int k = 0; k < 3; k++) {
        assert_int_equal(next_reply(f)->write.rc, RC_IO);
    }
    assert_int_equal(disk.committed_count, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(writes_are_applied_and_replied_in_order),
        CASE(what_waits_shares_a_commit_up_to_512),
        CASE(a_failed_group_is_repeated_whole),
        CASE(an_apply_that_fails_for_the_disk_repeats_its_group),
        CASE(a_refused_write_leaves_nothing_and_the_others_go_on),
        CASE(it_is_full_one_past_4096_waiting),
        CASE(a_call_waits_for_its_write),
        CASE(a_flush_ends_behind_all_that_was_submitted),
        CASE(the_end_applies_what_waits),
        CASE(the_end_gives_up_on_a_dead_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
