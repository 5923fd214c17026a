/* dispatcher/store_pg.c and store_retire.c. The journal, PostgreSQL, the
 * writer and the persister are faked: an outcome is a line of numbers, the
 * database a set of numbers. What happened is told by a list of events. */
#include "dispatcher/store_pg.h"

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dispatcher/migrate.h"
#include "shared/log.h"

#define OUTCOMES_MAX 64
#define ITEMS_MAX 20000
#define NUMBER_MAX 40000
#define BROKEN_NUMBER (-1) /* an outcome with it cannot be decoded */

static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;

/* All behind the guard. */
static struct {
    /* the journal */
    char *outcomes[OUTCOMES_MAX]; /* by no - 1; NULL: retired */
    int outcome_count;
    int pages; /* read with something in them */
    int64_t retired_to;
    int64_t buried_seq[OUTCOMES_MAX];
    char buried_items[OUTCOMES_MAX][256]; /* "7 8 " */
    char buried_reason[OUTCOMES_MAX][JOURNAL_REASON_BYTES];
    int buried_count;
    int64_t buried_outcome;
    enum rc page_rc;
    /* the database */
    bool down;
    bool connected;
    bool wrong_node;
    enum rc migrate_rc;
    int connects;
    int statements;
    int seconds;
    size_t largest;         /* items of the largest good statement */
    size_t timeout_above;   /* more items than this time out; 0: none */
    const char *refuse_all; /* this SQLSTATE for every statement */
    char sqlstate[6];
    bool stored[NUMBER_MAX];
    bool poison[NUMBER_MAX];
    int retires_before_persist; /* must stay 0 */
    /* the writer */
    bool writer_full;
} fake;

static void
lock(void)
{
    pthread_mutex_lock(&guard);
}

static void
unlock(void)
{
    pthread_mutex_unlock(&guard);
}

/* ---- the persister, in place of the callback service's ---------------------
 */

struct persister {
    int numbers[ITEMS_MAX];
    size_t count;
};

static enum rc
persister_new(void **self, const struct conf *conf, struct metrics *metrics)
{
    (void)conf;
    (void)metrics;
    *self = calloc(1, sizeof(struct persister));
    return *self == NULL ? RC_NOMEM : RC_OK;
}

static void
persister_free(void **self)
{
    free(*self);
    *self = NULL;
}

static void
persister_configure(void *self, const struct conf *conf)
{
    (void)self;
    (void)conf;
}

static enum rc
persister_decode(void *self, const struct journal_row *outcome)
{
    struct persister *p = self;
    size_t before = p->count;
    char *end = NULL;
    for (const char *at = outcome->body; *at != '\0'; at = end) {
        int number = (int)strtol(at, &end, 10);
        if (number == BROKEN_NUMBER) {
            p->count = before;
            return RC_INVALID;
        }
        p->numbers[p->count++] = number;
        end += *end == ' ' ? 1 : 0;
    }
    return RC_OK;
}

static size_t
persister_count(const void *self)
{
    const struct persister *p = self;
    return p->count;
}

/* Ten numbers make a request. */
static struct store_item
persister_item(const void *self, size_t index)
{
    const struct persister *p = self;
    return (struct store_item){.seq = p->numbers[index] / 10,
                               .data = &p->numbers[index]};
}

static enum rc
refuse(const char *sqlstate, enum rc rc)
{
    snprintf(fake.sqlstate, sizeof(fake.sqlstate), "%s", sqlstate);
    return rc;
}

static enum rc
persist_locked(const struct persister *p, size_t from, size_t to)
{
    fake.statements++;
    if (fake.down || !fake.connected) {
        fake.connected = false;
        return refuse("", RC_IO);
    }
    if (fake.refuse_all != NULL) {
        return refuse(fake.refuse_all, RC_INVALID);
    }
    if (fake.timeout_above > 0 && to - from > fake.timeout_above) {
        return refuse("57014", RC_IO);
    }
    for (size_t k = from; k < to; k++) {
        if (fake.poison[p->numbers[k]]) {
            return refuse("23514", RC_INVALID);
        }
    }
    for (size_t k = from; k < to; k++) {
        fake.stored[p->numbers[k]] = true;
    }
    fake.largest = to - from > fake.largest ? to - from : fake.largest;
    return RC_OK;
}

static enum rc
persister_persist(void *self, struct pg *pg, size_t from, size_t to)
{
    (void)pg;
    lock();
    enum rc rc = persist_locked(self, from, to);
    unlock();
    return rc;
}

static void
persister_name(const void *self, size_t index, char out[JOURNAL_ITEM_BYTES])
{
    const struct persister *p = self;
    snprintf(out, JOURNAL_ITEM_BYTES, "%d", p->numbers[index]);
}

static void
persister_release(void *self)
{
    struct persister *p = self;
    p->count = 0;
}

static enum rc
persister_every_second(void *self, struct pg *pg, int64_t now_unix_ms)
{
    (void)self;
    (void)pg;
    (void)now_unix_ms;
    lock();
    fake.seconds++;
    unlock();
    return RC_OK;
}

const struct store_persister callback_persister = {
    .service = SERVICE_CALLBACK,
    .decode = persister_decode,
    .count = persister_count,
    .item = persister_item,
    .persist = persister_persist,
    .name = persister_name,
    .release = persister_release,
    .every_second = persister_every_second,
    .new = persister_new,
    .configure = persister_configure,
    .free = persister_free,
};

/* The real one asks the database every second. */
const struct store_persister sms_status_persister = {
    .service = SERVICE_SMS_STATUS,
    .decode = persister_decode,
    .count = persister_count,
    .item = persister_item,
    .persist = persister_persist,
    .name = persister_name,
    .release = persister_release,
    .every_second = NULL,
    .new = persister_new,
    .configure = persister_configure,
    .free = persister_free,
};

/* ---- PostgreSQL
 * -------------------------------------------------------------- */

enum rc __wrap_pg_connect(struct pg *pg);
bool __wrap_pg_is_connected(const struct pg *pg);
const char *__wrap_pg_error(const struct pg *pg);
const char *__wrap_pg_sqlstate(const struct pg *pg);
enum rc __wrap_pg_exec(struct pg *pg, const char *sql, int param_count,
                       const char *const *params, struct pg_result **out);
int __wrap_pg_rows(const struct pg_result *r);
const char *__wrap_pg_value(const struct pg_result *r, int row, int column);
void __wrap_pg_result_free(struct pg_result **r);
enum rc __wrap_migrate_apply(struct pg *pg, const char *directory, int *applied,
                             struct text *why);

#define OUR_UUID "00000000-0000-0000-0000-000000000000"
#define THEIR_UUID "11111111-0000-0000-0000-000000000000"

enum rc
__wrap_pg_connect(struct pg *pg)
{
    (void)pg;
    lock();
    fake.connects++;
    fake.connected = !fake.down;
    enum rc rc = fake.down ? RC_IO : RC_OK;
    unlock();
    return rc;
}

bool
__wrap_pg_is_connected(const struct pg *pg)
{
    (void)pg;
    lock();
    bool connected = fake.connected;
    unlock();
    return connected;
}

const char *
__wrap_pg_error(const struct pg *pg)
{
    (void)pg;
    return "as told";
}

const char *
__wrap_pg_sqlstate(const struct pg *pg)
{
    (void)pg;
    return fake.sqlstate; /* written by the store's thread only */
}

enum rc
__wrap_pg_exec(struct pg *pg, const char *sql, int param_count,
               const char *const *params, struct pg_result **out)
{
    (void)pg;
    assert_non_null(strstr(sql, "nodes"));
    assert_string_equal(params[0], "5");
    if (param_count == 2) {
        assert_string_equal(params[1], OUR_UUID);
    }
    if (out != NULL) {
        *out = NULL;
    }
    return RC_OK;
}

int
__wrap_pg_rows(const struct pg_result *r)
{
    (void)r;
    return 1;
}

const char *
__wrap_pg_value(const struct pg_result *r, int row, int column)
{
    (void)r;
    (void)row;
    (void)column;
    lock();
    bool wrong = fake.wrong_node;
    unlock();
    return wrong ? THEIR_UUID : OUR_UUID;
}

void
__wrap_pg_result_free(struct pg_result **r)
{
    *r = NULL;
}

enum rc
__wrap_migrate_apply(struct pg *pg, const char *directory, int *applied,
                     struct text *why)
{
    (void)pg;
    (void)directory;
    *applied = 0;
    text_puts(why, "about migrations");
    lock();
    enum rc rc = fake.migrate_rc;
    unlock();
    return rc;
}

/* ---- the journal and the writer
 * ------------------------------------------------ */

enum rc __wrap_journal_identity(struct journal *j, struct uuid *out);
enum rc __wrap_journal_outcome_page(struct journal *j, enum service service,
                                    int64_t after, size_t max_rows,
                                    size_t max_bytes,
                                    struct journal_page *page);
void __wrap_journal_page_free(struct journal_page *page);
enum rc __wrap_journal_bury(struct journal *j, enum service service,
                            int64_t seq, const char *reason,
                            const char *retry_body, size_t retry_body_bytes,
                            const struct journal_dead_item *items,
                            size_t item_count, int64_t now_unix_ms);
enum rc __wrap_journal_bury_outcome(struct journal *j, enum service service,
                                    int64_t no, const char *reason,
                                    int64_t now_unix_ms, int64_t *buried);
enum rc __wrap_journal_retire_each(struct journal *j, enum service service,
                                   int64_t no_from, int64_t no_to,
                                   journal_retired_fn *fn, void *arg,
                                   int64_t *retired);
enum rc __wrap_writer_submit(struct writer *w, struct write *write);

enum rc
__wrap_journal_identity(struct journal *j, struct uuid *out)
{
    (void)j;
    memset(out, 0, sizeof(*out));
    return RC_OK;
}

static enum rc
page_locked(int64_t after, size_t max_rows, struct journal_page *page)
{
    page->count = 0;
    page->more = false;
    if (fake.page_rc != RC_OK) {
        return fake.page_rc;
    }
    for (int k = (int)after; k < fake.outcome_count; k++) {
        if (page->count == max_rows) {
            page->more = true;
            break;
        }
        if (fake.outcomes[k] != NULL) {
            page->rows[page->count++] =
                (struct journal_row){.seq = k + 1,
                                     .body = fake.outcomes[k],
                                     .body_bytes = strlen(fake.outcomes[k])};
        }
    }
    fake.pages += page->count > 0 ? 1 : 0;
    return RC_OK;
}

enum rc
__wrap_journal_outcome_page(struct journal *j, enum service service,
                            int64_t after, size_t max_rows, size_t max_bytes,
                            struct journal_page *page)
{
    (void)j;
    assert_true(max_rows > 3 && max_rows <= 4096);
    assert_true(max_bytes > 0 && max_bytes <= (size_t)1024 * 1024);
    if (page->rows == NULL) {
        page->rows = calloc(OUTCOMES_MAX, sizeof(page->rows[0]));
        assert_non_null(page->rows);
    }
    if (service != SERVICE_CALLBACK) { /* the other lanes have none */
        page->count = 0;
        page->more = false;
        return RC_OK;
    }
    lock();
    /* Three a page: most tests see several pages. */
    enum rc rc = page_locked(after, 3, page);
    unlock();
    return rc;
}

void
__wrap_journal_page_free(struct journal_page *page)
{
    free(page->rows);
    page->rows = NULL;
}

enum rc
__wrap_journal_bury(struct journal *j, enum service service, int64_t seq,
                    const char *reason, const char *retry_body,
                    size_t retry_body_bytes,
                    const struct journal_dead_item *items, size_t item_count,
                    int64_t now_unix_ms)
{
    (void)j;
    (void)service;
    (void)retry_body_bytes;
    assert_null(retry_body);
    assert_true(now_unix_ms > 0);
    int at = fake.buried_count++;
    fake.buried_seq[at] = seq;
    snprintf(fake.buried_reason[at], JOURNAL_REASON_BYTES, "%s", reason);
    fake.buried_items[at][0] = '\0';
    for (size_t k = 0; k < item_count; k++) {
        size_t used = strlen(fake.buried_items[at]);
        snprintf(fake.buried_items[at] + used,
                 sizeof(fake.buried_items[at]) - used, "%s ", items[k].item);
    }
    return RC_OK;
}

enum rc
__wrap_journal_bury_outcome(struct journal *j, enum service service, int64_t no,
                            const char *reason, int64_t now_unix_ms,
                            int64_t *buried)
{
    (void)j;
    (void)service;
    (void)now_unix_ms;
    assert_true(reason[0] != '\0');
    fake.buried_outcome = no;
    *buried = 2;
    return RC_OK;
}

/* Everything in a retired outcome must be stored, poison or broken. */
static void
check_persisted(const char *outcome)
{
    char *end = NULL;
    for (const char *at = outcome; *at != '\0'; at = end) {
        int number = (int)strtol(at, &end, 10);
        if (number != BROKEN_NUMBER && strstr(outcome, "-1") == NULL &&
            !fake.stored[number] && !fake.poison[number]) {
            fake.retires_before_persist++;
        }
        end += *end == ' ' ? 1 : 0;
    }
}

enum rc
__wrap_journal_retire_each(struct journal *j, enum service service,
                           int64_t no_from, int64_t no_to,
                           journal_retired_fn *fn, void *arg, int64_t *retired)
{
    (void)j;
    (void)service;
    *retired = 0;
    for (int64_t no = no_from; no <= no_to; no++) {
        if (fake.outcomes[no - 1] != NULL) {
            check_persisted(fake.outcomes[no - 1]);
            free(fake.outcomes[no - 1]);
            fake.outcomes[no - 1] = NULL;
            (*retired)++;
            fn(arg, 1000);
        }
    }
    fake.retired_to = no_to;
    return RC_OK;
}

/* A writer that has done its work at once. */
enum rc
__wrap_writer_submit(struct writer *w, struct write *write)
{
    (void)w;
    lock();
    if (fake.writer_full) {
        unlock();
        return RC_FULL;
    }
    write->rc = write->apply(NULL, write);
    unlock();
    return queue_push(write->reply_to, write, 0);
}

/* ---- the tests' own
 * ------------------------------------------------------------- */

struct fixture {
    struct conf conf;
    struct metrics *metrics;
    struct store_pg *store;
};

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    memset(&fake, 0, sizeof(fake));
    f->conf.node.id = 5;
    f->conf.postgres.timeout_ms = 1000;
    snprintf(f->conf.journal.path, sizeof(f->conf.journal.path), "/nowhere/j");
    assert_int_equal(metrics_new(&f->metrics), RC_OK);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;
    store_pg_stop(&f->store, 1000);
    assert_int_equal(fake.retires_before_persist, 0);
    for (int k = 0; k < fake.outcome_count; k++) {
        free(fake.outcomes[k]);
    }
    metrics_free(&f->metrics);
    free(f);
    return 0;
}

static void
start(struct fixture *f)
{
    assert_int_equal(store_pg_start(&f->store, &f->conf, NULL, f->metrics),
                     RC_OK);
}

/* An outcome with the numbers [from, to). */
static void
add_outcome(int from, int to)
{
    struct text body = {0};
    for (int k = from; k < to; k++) {
        text_printf(&body, "%s%d", k > from ? " " : "", k);
    }
    lock();
    fake.outcomes[fake.outcome_count] = strdup(text_cstr(&body));
    fake.outcome_count++;
    unlock();
    text_free(&body);
}

static int64_t
look(const int *at)
{
    lock();
    int64_t value = *at;
    unlock();
    return value;
}

/* Until *at is value or more; ten seconds at most. */
static void
await(const int *at, int64_t value)
{
    for (int k = 0; k < 10000 && look(at) < value; k++) {
        (void)poll(NULL, 0, 1);
    }
    assert_true(look(at) >= value);
}

static void
await_retired(int64_t no)
{
    for (int k = 0; k < 10000; k++) {
        lock();
        int64_t now = fake.retired_to;
        unlock();
        if (now >= no) {
            return;
        }
        (void)poll(NULL, 0, 1);
    }
    fail_msg("outcome %d was not retired", (int)no);
}

static void
assert_stored(int from, int to)
{
    lock();
    for (int k = from; k < to; k++) {
        if (fake.stored[k] == fake.poison[k]) {
            unlock();
            fail_msg("%d: stored %d, poison %d", k, fake.stored[k],
                     fake.poison[k]);
        }
    }
    unlock();
}

static void
what_is_there_is_persisted_and_retired(void **state)
{
    struct fixture *f = *state;
    for (int k = 0; k < 10; k++) {
        add_outcome(100 * k, 100 * k + 100);
    }
    start(f);
    await_retired(10);
    assert_stored(0, 1000);
    assert_int_equal(look(&fake.pages), 4);
    /* Several outcomes a statement. */
    assert_int_equal(look(&fake.statements), 4);
    store_pg_stop(&f->store, 1000);
    struct text all = {0};
    metrics_print(f->metrics, &all);
    assert_non_null(strstr(text_cstr(&all), "sluice_completion_seconds_count{"
                                            "service=\"callback\"} 10"));
    text_free(&all);
}

static void
a_wake_is_enough(void **state)
{
    struct fixture *f = *state;
    start(f);
    await(&fake.seconds, 1);
    for (int k = 0; k < 20; k++) {
        add_outcome(k, k + 1);
        store_pg_wake(f->store);
        await_retired(k + 1);
    }
    /* Had it looked once a second only, twenty would have passed. */
    assert_true(look(&fake.seconds) < 10);
}

static void
the_tasks_of_a_second_are_run(void **state)
{
    struct fixture *f = *state;
    start(f);
    await(&fake.seconds, 2);
}

static void
a_database_that_is_down_is_waited_for(void **state)
{
    struct fixture *f = *state;
    fake.down = true;
    for (int k = 0; k < 5; k++) {
        add_outcome(10 * k, 10 * k + 10);
    }
    start(f);
    await(&fake.connects, 3);
    lock();
    assert_int_equal(fake.retired_to, 0);
    assert_int_equal(fake.statements, 0);
    assert_int_equal(fake.seconds, 0);
    fake.down = false;
    unlock();
    assert_int_equal(metrics_get(f->metrics, METRIC_POSTGRES_UP, SERVICE_COUNT),
                     0);
    await_retired(5);
    assert_stored(0, 50);
    assert_int_equal(metrics_get(f->metrics, METRIC_POSTGRES_UP, SERVICE_COUNT),
                     1);
}

static void
a_lost_connection_repeats_the_page(void **state)
{
    struct fixture *f = *state;
    start(f);
    await(&fake.seconds, 1);
    lock();
    fake.connected = false;
    unlock();
    add_outcome(0, 10);
    store_pg_wake(f->store);
    await_retired(1);
    assert_stored(0, 10);
    assert_true(look(&fake.connects) >= 2);
}

static void
poison_is_buried_alone(void **state)
{
    struct fixture *f = *state;
    fake.poison[7] = true;
    fake.poison[1234] = true;
    fake.poison[1239] = true;
    fake.poison[2999] = true;
    add_outcome(0, 1000);
    add_outcome(1000, 2000);
    add_outcome(2000, 3000);
    start(f);
    await_retired(3);
    assert_stored(0, 3000);
    lock();
    assert_int_equal(fake.buried_count, 3);
    assert_int_equal(fake.buried_seq[0], 0);
    assert_string_equal(fake.buried_items[0], "7 ");
    assert_int_equal(fake.buried_seq[1], 123);
    assert_string_equal(fake.buried_items[1], "1234 1239 ");
    assert_int_equal(fake.buried_seq[2], 299);
    assert_non_null(strstr(fake.buried_reason[2], "as told"));
    /* Halving, not one by one. */
    assert_true(fake.statements < 100);
    unlock();
}

static void
nothing_but_poison_does_not_stop_the_queue(void **state)
{
    struct fixture *f = *state;
    for (int k = 0; k < 20; k++) {
        fake.poison[k] = true;
    }
    add_outcome(0, 20);
    add_outcome(20, 30);
    start(f);
    await_retired(2);
    assert_stored(0, 30);
    lock();
    assert_int_equal(fake.buried_count, 2);
    unlock();
}

static void
an_outcome_that_cannot_be_read_is_quarantined(void **state)
{
    struct fixture *f = *state;
    add_outcome(0, 10);
    add_outcome(BROKEN_NUMBER, 10);
    add_outcome(20, 30);
    start(f);
    await_retired(3);
    assert_stored(0, 10);
    assert_stored(20, 30);
    lock();
    assert_int_equal(fake.buried_outcome, 2);
    unlock();
    store_pg_stop(&f->store, 1000);
    assert_int_equal(
        metrics_get(f->metrics, METRIC_QUARANTINED_TOTAL, SERVICE_CALLBACK), 1);
    assert_int_equal(
        metrics_get(f->metrics, METRIC_DEAD_TOTAL, SERVICE_CALLBACK), 2);
}

static void
a_schema_that_is_gone_buries_nothing(void **state)
{
    struct fixture *f = *state;
    fake.refuse_all = "42P01";
    add_outcome(0, 10);
    start(f);
    await(&fake.statements, 3);
    lock();
    assert_int_equal(fake.buried_count, 0);
    assert_int_equal(fake.retired_to, 0);
    fake.refuse_all = NULL;
    unlock();
    await_retired(1);
    assert_stored(0, 10);
}

static void
statements_that_time_out_become_smaller(void **state)
{
    struct fixture *f = *state;
    fake.timeout_above = 400;
    add_outcome(0, 3000);
    start(f);
    await_retired(1);
    assert_stored(0, 3000);
    assert_true(fake.largest <= 400);
    assert_true(fake.largest > 100);
}

static void
a_full_writer_keeps_the_page(void **state)
{
    struct fixture *f = *state;
    fake.writer_full = true;
    add_outcome(0, 10);
    start(f);
    await(&fake.statements, 1);
    lock();
    assert_int_equal(fake.retired_to, 0);
    fake.writer_full = false;
    unlock();
    await_retired(1);
}

static void
a_journal_that_fails_is_asked_again(void **state)
{
    struct fixture *f = *state;
    fake.page_rc = RC_IO;
    add_outcome(0, 10);
    start(f);
    await(&fake.seconds, 1);
    lock();
    fake.page_rc = RC_OK;
    unlock();
    await_retired(1);
}

static bool
has_failed(const struct fixture *f, int timeout_ms)
{
    struct pollfd fd = {.fd = store_pg_failed_fd(f->store), .events = POLLIN};
    return poll(&fd, 1, timeout_ms) == 1;
}

static void
a_node_id_of_another_journal_is_fatal(void **state)
{
    struct fixture *f = *state;
    fake.wrong_node = true;
    add_outcome(0, 10);
    start(f);
    assert_true(has_failed(f, 10000));
    assert_int_equal(look(&fake.statements), 0);
}

static void
a_newer_schema_is_fatal(void **state)
{
    struct fixture *f = *state;
    fake.migrate_rc = RC_INVALID;
    start(f);
    assert_true(has_failed(f, 10000));
}

static void
a_migration_that_finds_no_database_is_not(void **state)
{
    struct fixture *f = *state;
    fake.migrate_rc = RC_IO;
    start(f);
    await(&fake.connects, 2);
    assert_false(has_failed(f, 0));
    lock();
    fake.migrate_rc = RC_OK;
    unlock();
    await(&fake.seconds, 1);
}

static void
the_end_persists_what_is_there(void **state)
{
    struct fixture *f = *state;
    start(f);
    await(&fake.seconds, 1);
    for (int k = 0; k < 30; k++) {
        add_outcome(10 * k, 10 * k + 10);
    }
    store_pg_stop(&f->store, 10000);
    assert_null(f->store);
    assert_stored(0, 300);
    assert_int_equal(fake.retired_to, 30);
}

static void
the_end_does_not_wait_for_a_database_that_is_down(void **state)
{
    struct fixture *f = *state;
    fake.down = true;
    add_outcome(0, 10);
    start(f);
    await(&fake.connects, 1);
    store_pg_stop(&f->store, 60000);
    assert_int_equal(fake.retired_to, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_is_there_is_persisted_and_retired),
        CASE(a_wake_is_enough),
        CASE(the_tasks_of_a_second_are_run),
        CASE(a_database_that_is_down_is_waited_for),
        CASE(a_lost_connection_repeats_the_page),
        CASE(poison_is_buried_alone),
        CASE(nothing_but_poison_does_not_stop_the_queue),
        CASE(an_outcome_that_cannot_be_read_is_quarantined),
        CASE(a_schema_that_is_gone_buries_nothing),
        CASE(statements_that_time_out_become_smaller),
        CASE(a_full_writer_keeps_the_page),
        CASE(a_journal_that_fails_is_asked_again),
        CASE(a_node_id_of_another_journal_is_fatal),
        CASE(a_newer_schema_is_fatal),
        CASE(a_migration_that_finds_no_database_is_not),
        CASE(the_end_persists_what_is_there),
        CASE(the_end_does_not_wait_for_a_database_that_is_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
