/* dispatcher/housekeeper.c over a journal that is faked by --wrap. */
#include "dispatcher/housekeeper.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/log.h"

static atomic_int checkpoints;
static atomic_int key_rounds;
static atomic_int ledgers;
static atomic_int frees;
static atomic_int alarms;   /* ledger_unbalanced in the log */
static atomic_int warnings; /* housekeeping_failed in the log */
static atomic_int keys;     /* that have expired */
static atomic_int failing;  /* an enum rc for every checkpoint */
static atomic_bool unbalanced;
static atomic_long copied; /* by each checkpoint */

enum rc __wrap_journal_checkpoint(struct journal *j, int64_t *wal_bytes);
int64_t __wrap_journal_copied_bytes(const struct journal *j);
enum rc __wrap_journal_expire_keys(struct journal *j, int64_t now_unix_ms,
                                   size_t limit, int64_t *forgotten);
enum rc __wrap_journal_used_bytes(struct journal *j, int64_t *used);
enum rc __wrap_journal_ledger(struct journal *j,
                              struct journal_ledger ledger[SERVICE_COUNT]);
void __wrap_journal_free(struct journal **j);
const char *__wrap_journal_error(const struct journal *j);
void __wrap_log_event(enum log_level level, const char *event,
                      const char *format, ...) PRINTF_LIKE(3, 4);

enum rc
__wrap_journal_checkpoint(struct journal *j, int64_t *wal_bytes)
{
    (void)j;
    *wal_bytes = 4096;
    atomic_fetch_add(&checkpoints, 1);
    return (enum rc)atomic_load(&failing);
}

int64_t
__wrap_journal_copied_bytes(const struct journal *j)
{
    (void)j;
    return atomic_load(&copied);
}

enum rc
__wrap_journal_expire_keys(struct journal *j, int64_t now_unix_ms, size_t limit,
                           int64_t *forgotten)
{
    (void)j;
    assert_true(now_unix_ms > INT64_C(1700000000000));
    int left = atomic_load(&keys);
    int gone = left < (int)limit ? left : (int)limit;
    atomic_fetch_sub(&keys, gone);
    atomic_fetch_add(&key_rounds, 1);
    *forgotten = gone;
    return RC_OK;
}

enum rc
__wrap_journal_used_bytes(struct journal *j, int64_t *used)
{
    (void)j;
    *used = 8192;
    return RC_OK;
}

enum rc
__wrap_journal_ledger(struct journal *j,
                      struct journal_ledger ledger[SERVICE_COUNT])
{
    (void)j;
    memset(ledger, 0, SERVICE_COUNT * sizeof(ledger[0]));
    for (unsigned k = 0; k < SERVICE_COUNT; k++) {
        ledger[k].balanced = true;
    }
    ledger[0].balanced = !atomic_load(&unbalanced);
    atomic_fetch_add(&ledgers, 1);
    return RC_OK;
}

void
__wrap_journal_free(struct journal **j)
{
    atomic_fetch_add(&frees, 1);
    *j = NULL;
}

const char *
__wrap_journal_error(const struct journal *j)
{
    (void)j;
    return "disk I/O error";
}

void
__wrap_log_event(enum log_level level, const char *event, const char *format,
                 ...)
{
    (void)format;
    if (strcmp(event, "ledger_unbalanced") == 0) {
        assert_int_equal(level, LOG_ERROR);
        atomic_fetch_add(&alarms, 1);
    }
    if (strcmp(event, "housekeeping_failed") == 0) {
        atomic_fetch_add(&warnings, 1);
    }
}

struct fixture {
    struct housekeeper *housekeeper;
    struct metrics *metrics;
};

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    atomic_store(&checkpoints, 0);
    atomic_store(&key_rounds, 0);
    atomic_store(&ledgers, 0);
    atomic_store(&frees, 0);
    atomic_store(&alarms, 0);
    atomic_store(&warnings, 0);
    atomic_store(&keys, 0);
    atomic_store(&failing, RC_OK);
    atomic_store(&unbalanced, false);
    atomic_store(&copied, 0);
    assert_int_equal(metrics_new(&f->metrics), RC_OK);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;
    housekeeper_stop(&f->housekeeper);
    metrics_free(&f->metrics);
    free(f);
    return 0;
}

static void
start(struct fixture *f)
{
    assert_int_equal(
        housekeeper_start(&f->housekeeper, (struct journal *)f, f->metrics),
        RC_OK);
}

static void
await(atomic_int *counter, int value)
{
    for (int k = 0; k < 10000 && atomic_load(counter) < value; k++) {
        (void)poll(NULL, 0, 1);
    }
    assert_true(atomic_load(counter) >= value);
}

static void
the_wal_is_checkpointed_and_told(void **state)
{
    struct fixture *f = *state;
    start(f);
    await(&checkpoints, 3);
    await(&ledgers, 1);
    assert_int_equal(metrics_get(f->metrics, METRIC_WAL_BYTES, SERVICE_COUNT),
                     4096);
    assert_int_equal(
        metrics_get(f->metrics, METRIC_JOURNAL_USED_BYTES, SERVICE_COUNT),
        8192);
    assert_int_equal(atomic_load(&alarms), 0);
    assert_int_equal(atomic_load(&warnings), 0);
}

/* As rare as when nothing is written, they would take 15 s: more than await
 * gives them. */
static void
checkpoints_come_more_often_while_much_is_written(void **state)
{
    struct fixture *f = *state;
    atomic_store(&copied, 64 << 20);
    start(f);
    await(&checkpoints, 60);
}

static void
expired_keys_go_in_rounds(void **state)
{
    struct fixture *f = *state;
    atomic_store(&keys, 4500);
    start(f);
    await(&ledgers, 1);
    assert_int_equal(atomic_load(&keys), 0);
    assert_int_equal(atomic_load(&key_rounds), 3);
}

static void
more_keys_than_a_turn_takes_are_left_for_the_next(void **state)
{
    struct fixture *f = *state;
    atomic_store(&keys, 1000000);
    start(f);
    await(&ledgers, 1);
    assert_in_range(atomic_load(&keys), 900000, 999999);
}

static void
an_unbalanced_ledger_raises_the_alarm(void **state)
{
    struct fixture *f = *state;
    atomic_store(&unbalanced, true);
    start(f);
    await(&ledgers, 1);
    await(&alarms, 1);
    assert_int_equal(atomic_load(&alarms), 1);
}

static void
a_failure_is_logged_once_and_does_not_end_it(void **state)
{
    struct fixture *f = *state;
    atomic_store(&failing, RC_IO);
    start(f);
    await(&checkpoints, 6);
    assert_int_equal(atomic_load(&warnings), 1);
    atomic_store(&failing, RC_OK);
    await(&checkpoints, 8);
}

static void
the_end_frees_the_journal(void **state)
{
    struct fixture *f = *state;
    start(f);
    housekeeper_stop(&f->housekeeper);
    assert_null(f->housekeeper);
    assert_int_equal(atomic_load(&frees), 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(the_wal_is_checkpointed_and_told),
        CASE(checkpoints_come_more_often_while_much_is_written),
        CASE(expired_keys_go_in_rounds),
        CASE(more_keys_than_a_turn_takes_are_left_for_the_next),
        CASE(an_unbalanced_ledger_raises_the_alarm),
        CASE(a_failure_is_logged_once_and_does_not_end_it),
        CASE(the_end_frees_the_journal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
