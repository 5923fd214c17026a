/* The journal when the disk or SQLite fails: whatever fails and whenever, it
 * says so, nothing of the group is stored, and the next use works. And that
 * no acceptance is answered before its sync. */
#include "tests/shared/journal_fixture.h"

#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

#include "shared/journal_batch.h"
#include "tests/shared/vfs_shim.h"

#define UNTIL (FIXTURE_NOW + FIXTURE_DAY)
#define CB SERVICE_CALLBACK

/* ---- sqlite3_step, by --wrap
 * ------------------------------------------------------ */

static int step_fail_at; /* the n-th call from now on; 0: none */
static int step_fail_code;

int __real_sqlite3_step(sqlite3_stmt *statement);
int __wrap_sqlite3_step(sqlite3_stmt *statement);

int
__wrap_sqlite3_step(sqlite3_stmt *statement)
{
    if (step_fail_at > 0) {
        step_fail_at--;
        if (step_fail_at == 0) {
            return step_fail_code;
        }
    }
    return __real_sqlite3_step(statement);
}

/* ---- what is made to fail
 * ---------------------------------------------------------- */

struct fault {
    const char *name;
    bool step; /* by --wrap; else by the VFS: */
    enum vfs_shim_op op;
    int code;
    bool on; /* goes on failing */
    enum rc rc;
};

static const struct fault faults[] = {
    {"disk full", false, VFS_SHIM_WRITE, SQLITE_FULL, false, RC_FULL},
    {"disk stays full", false, VFS_SHIM_WRITE, SQLITE_FULL, true, RC_FULL},
    {"write", false, VFS_SHIM_WRITE, SQLITE_IOERR_WRITE, false, RC_IO},
    {"sync", false, VFS_SHIM_SYNC, SQLITE_IOERR_FSYNC, false, RC_IO},
    {"no more syncs", false, VFS_SHIM_SYNC, SQLITE_IOERR_FSYNC, true, RC_IO},
    {"read", false, VFS_SHIM_READ, SQLITE_IOERR_READ, false, RC_IO},
    {"map", false, VFS_SHIM_SHM_MAP, SQLITE_IOERR_SHMMAP, false, RC_IO},
    {"step: I/O", true, 0, SQLITE_IOERR, false, RC_IO},
    {"step: full", true, 0, SQLITE_FULL, false, RC_FULL},
    {"step: memory", true, 0, SQLITE_NOMEM, false, RC_NOMEM},
    {"step: corrupt", true, 0, SQLITE_CORRUPT, false, RC_IO},
    {"step: read-only", true, 0, SQLITE_READONLY, false, RC_IO},
    {"step: busy", true, 0, SQLITE_BUSY, false, RC_TIMEOUT},
};

static struct vfs_shim *shim;

static void
arm(const struct fault *fault, int at)
{
    shim->failed = false;
    if (fault->step) {
        step_fail_at = at;
        step_fail_code = fault->code;
    } else {
        shim->fail_op = fault->op;
        shim->fail_at = at;
        shim->fail_code = fault->code;
        shim->fail_on = fault->on;
    }
}

/* Has it struck? */
static bool
disarm(const struct fault *fault)
{
    bool struck = fault->step ? step_fail_at == 0 : shim->failed;

    step_fail_at = 0;
    shim->fail_at = 0;
    return struck;
}

/* An operation to be tried under every fault at every point: run() it, with
 * check() after a failure and after the success. */
struct operation {
    enum rc (*run)(struct fixture *f);
    void (*check)(struct fixture *f, bool done);
};

static void
sweep_one(struct fixture *f, const struct operation *o,
          const struct fault *fault)
{
    bool struck = true;

    for (int at = 1; struck; at++) {
        enum rc rc;

        assert_true(at < 2000);
        arm(fault, at);
        rc = o->run(f);
        struck = disarm(fault);
        if (rc != (struck ? fault->rc : RC_OK)) {
            fail_msg("%s at %d: %s (%s; %s)", fault->name, at, rc_name(rc),
                     journal_error(f->edge), journal_error(f->dispatcher));
        }
        o->check(f, rc == RC_OK);
        assert_int_equal(journal_lock_holder(f->path), 0);
    }
}

static void
sweep(struct fixture *f, const struct operation *o)
{
    for (size_t i = 0; i < ARRAY_COUNT(faults); i++) {
        sweep_one(f, o, &faults[i]);
    }
}

/* ---- accepting
 * ------------------------------------------------------------------------ */

static int64_t accepted; /* acknowledged so far in this test */

static enum rc
accept_three(struct fixture *f)
{
    char key[32];
    struct journal_request r[3] = {fixture_request(f, "[1]"),
                                   fixture_keyed(f, "[2]", ""),
                                   fixture_request(f, "[3]")};
    enum rc rc;

    (void)snprintf(key, sizeof key, "key %u", f->ids);
    r[1].key = key;
    r[1].key_bytes = strlen(key);
    rc = journal_accept(f->edge, r, 3, UNTIL);
    if (rc == RC_OK) {
        accepted += 3;
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(r[i].seq > 0, rc == RC_OK);
        assert_int_equal(r[i].verdict == JOURNAL_ACCEPTED, rc == RC_OK);
    }
    assert_true(rc == RC_OK || journal_error(f->edge)[0] != '\0');
    return rc;
}

static void
check_accepted(struct fixture *f, bool done)
{
    (void)done;
    assert_int_equal(fixture_ledger(f).accepted, accepted);
    /* And it works again, at once. */
    assert_int_equal(accept_three(f), RC_OK);
    assert_int_equal(fixture_ledger(f).accepted, accepted);
}

static void
whatever_fails_accepting_is_all_or_nothing(void **state)
{
    struct fixture *f = *state;
    const struct operation o = {accept_three, check_accepted};

    accepted = 0;
    (void)fixture_ledger(f);
    sweep(f, &o);
    assert_true(accepted > 100);
}

/* Accept through a connection that has yet to be opened. */
static enum rc
open_and_accept(struct fixture *f)
{
    journal_free(&f->edge);
    f->edge = fixture_journal(f, JOURNAL_EDGE);
    return accept_three(f);
}

static void
whatever_fails_opening_the_next_use_opens(void **state)
{
    struct fixture *f = *state;
    const struct operation o = {open_and_accept, check_accepted};

    accepted = 0;
    (void)fixture_ledger(f);
    sweep(f, &o);
}

/* ---- the dispatcher's group
 * ------------------------------------------------------------- */

static struct journal_ledger before;

static enum rc
work(struct fixture *f)
{
    struct journal_dead_item item = {"7", "HTTP 500", 4};
    struct journal *j = f->dispatcher;
    int64_t seq = 0;
    int64_t no = 0;
    int64_t n = 0;
    enum rc rc = journal_begin(j);

    if (rc == RC_OK) {
        rc = journal_newest(j, CB, &seq);
    }
    if (rc == RC_OK) {
        rc = journal_outcome_add(j, CB, "[]", 2, &no);
    }
    if (rc == RC_OK) {
        rc = journal_finish(j, CB, seq - 1, no);
    }
    if (rc == RC_OK) {
        rc = journal_bury(j, CB, seq, "no luck", "[7]", 3, &item, 1,
                          FIXTURE_NOW);
    }
    if (rc == RC_OK) {
        rc = journal_attempt_put(j, CB, "7", 1, "x");
    }
    if (rc == RC_OK) {
        rc = journal_retire(j, CB, no, no, &n);
    }
    if (rc == RC_OK) {
        rc = journal_commit(j);
    } else {
        assert_int_equal(journal_commit(j), RC_IO);
    }
    journal_rollback(j);
    return rc;
}

static void
check_work(struct fixture *f, bool done)
{
    struct journal_ledger after = fixture_ledger(f);

    assert_int_equal(after.accepted, before.accepted);
    assert_int_equal(after.final, before.final + (done ? 1 : 0));
    assert_int_equal(after.dead, before.dead + (done ? 1 : 0));
    assert_int_equal(after.pending, before.pending - (done ? 2 : 0));
    assert_int_equal(after.outcomes, 0);
    fixture_accept_many(f, 2);
    before = fixture_ledger(f);
}

static void
whatever_fails_a_group_is_all_or_nothing(void **state)
{
    struct fixture *f = *state;
    const struct operation o = {work, check_work};

    fixture_accept_many(f, 2);
    before = fixture_ledger(f);
    sweep(f, &o);
}

static enum rc
retry_and_drop(struct fixture *f)
{
    struct journal *j = f->dispatcher;
    struct uuid first = {{1}};
    struct uuid second = {{2}};
    enum rc rc = journal_begin(j);

    if (rc == RC_OK) {
        rc = journal_dead_retry(j, &first, FIXTURE_NOW, NULL);
    }
    if (rc == RC_OK) {
        rc = journal_dead_drop(j, &second);
    }
    if (rc == RC_OK) {
        rc = journal_commit(j);
    }
    journal_rollback(j);
    return rc;
}

static void
two_dead(struct fixture *f)
{
    struct journal_request r[2] = {fixture_request(f, "[1]"),
                                   fixture_request(f, "[1]")};

    r[0].id = (struct uuid){{1}};
    r[1].id = (struct uuid){{2}};
    assert_int_equal(journal_accept(f->edge, r, 2, UNTIL), RC_OK);
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(journal_bury(f->dispatcher, CB, r[i].seq, "x", NULL, 0,
                                      NULL, 0, FIXTURE_NOW),
                         RC_OK);
    }
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    before = fixture_ledger(f);
}

static void
check_retry(struct fixture *f, bool done)
{
    struct journal_ledger after = fixture_ledger(f);
    int64_t no;
    int64_t n = 0;
    int64_t seq = 0;

    assert_int_equal(after.dead, done ? 0 : 2);
    assert_int_equal(after.final, before.final + (done ? 1 : 0));
    assert_int_equal(after.pending, done ? 1 : 0);
    if (done) {
        assert_int_equal(journal_newest(f->dispatcher, CB, &seq), RC_OK);
        no = fixture_finish(f, seq, seq);
        assert_int_equal(journal_begin(f->dispatcher), RC_OK);
        assert_int_equal(journal_retire(f->dispatcher, CB, no, no, &n), RC_OK);
        assert_int_equal(journal_commit(f->dispatcher), RC_OK);
        assert_int_equal(fixture_ledger(f).queue_bytes, 0);
        two_dead(f);
    }
}

static void
whatever_fails_a_retry_is_all_or_nothing(void **state)
{
    struct fixture *f = *state;
    const struct operation o = {retry_and_drop, check_retry};

    two_dead(f);
    sweep(f, &o);
}

/* ---- batches ----------------------------------------------------------------
 */

static struct uuid pair[2]; /* messages that wait */

static struct journal_ledger
sms_ledger(struct fixture *f)
{
    struct journal_ledger ledger[SERVICE_COUNT];

    assert_int_equal(journal_ledger(f->dispatcher, ledger), RC_OK);
    assert_true(ledger[SERVICE_SMS].balanced);
    return ledger[SERVICE_SMS];
}

static void
two_messages(struct fixture *f)
{
    struct journal_request r[2] = {fixture_request(f, "+49176 a"),
                                   fixture_request(f, "+49176 b")};

    for (int i = 0; i < 2; i++) {
        r[i].service = SERVICE_SMS;
        pair[i] = r[i].id;
    }
    assert_int_equal(journal_accept(f->edge, r, 2, UNTIL), RC_OK);
    before = sms_ledger(f);
}

static enum rc
bury_message(struct journal *j, const struct uuid *id)
{
    struct journal_entry entry;
    enum rc rc = journal_locate(j, SERVICE_SMS, id, &entry);

    return rc == RC_OK ? journal_bury(j, SERVICE_SMS, entry.seq, "HTTP 500",
                                      NULL, 0, NULL, 0, FIXTURE_NOW)
                       : rc;
}

/* Both as a batch that is given up, and retried. */
static enum rc
batch_there_and_back(struct journal *j)
{
    struct journal_batch batch = {.id = {{7}}, .size = 2};
    struct text body = {0};
    int64_t retried = -1;
    enum rc rc = journal_batch_make(j, &batch, pair, 2);

    text_puts(&body, "[]");
    if (rc == RC_OK) {
        rc = journal_batch_note(j, &batch, &body);
    }
    for (int i = 0; rc == RC_OK && i < 2; i++) {
        rc = bury_message(j, &pair[i]);
    }
    if (rc == RC_OK) {
        rc = journal_dead_retry(j, &pair[1], FIXTURE_NOW, &retried);
        assert_int_equal(retried, rc == RC_OK ? 2 : 0);
    }
    text_free(&body);
    return rc;
}

/* The first is reported on while it is dead, and the second while it waits. */
static enum rc
both_reported(struct journal *j)
{
    struct journal_row row = {0};
    struct text body = {0};
    int64_t no = 0;
    enum rc rc = bury_message(j, &pair[0]);

    if (rc == RC_OK) {
        rc = journal_batch_reported(j, &pair[0], FIXTURE_NOW, &row, &body);
    }
    if (rc == RC_OK) {
        assert_string_equal(text_cstr(&body), "+49176 a");
        rc = journal_outcome_add(j, SERVICE_SMS, "x", 1, &no);
    }
    if (rc == RC_OK) {
        rc = journal_finish(j, SERVICE_SMS, row.seq, no);
    }
    if (rc == RC_OK) {
        rc = journal_batch_reported(j, &pair[1], FIXTURE_NOW, &row, &body);
        assert_int_not_equal(rc, RC_OK);
        rc = rc == RC_AGAIN ? RC_OK : rc;
    }
    text_free(&body);
    return rc;
}

static enum rc
batches(struct fixture *f)
{
    struct journal *j = f->dispatcher;
    enum rc rc = journal_begin(j);

    if (rc == RC_OK) {
        rc = batch_there_and_back(j);
    }
    if (rc == RC_OK) {
        rc = both_reported(j);
    }
    if (rc == RC_OK) {
        rc = journal_batch_leave(j, &pair[1]); /* the last: it goes, too */
    }
    if (rc == RC_OK) {
        rc = bury_message(j, &pair[1]);
    }
    if (rc == RC_OK) {
        rc = journal_dead_drop(j, &pair[1]);
    }
    if (rc == RC_OK) {
        rc = journal_commit(j);
    } else {
        assert_int_equal(journal_commit(j), RC_IO);
    }
    journal_rollback(j);
    return rc;
}

static void
check_batches(struct fixture *f, bool done)
{
    struct journal_ledger after = sms_ledger(f);
    int64_t count = -1;
    int64_t retired = 0;

    assert_int_equal(after.pending, done ? 1 : 2);
    assert_int_equal(after.dead, 0);
    assert_int_equal(after.final, before.final + (done ? 1 : 0));
    assert_int_equal(after.outcomes, done ? 1 : 0);
    assert_int_equal(journal_batch_count(f->dispatcher, &count), RC_OK);
    assert_int_equal(count, 0);
    assert_int_equal(fixture_ask(f, "SELECT count(*) FROM batch_member"), 0);
    assert_int_equal(fixture_ask(f, "SELECT count(*) FROM progress"), 0);
    if (done) {
        assert_int_equal(journal_begin(f->dispatcher), RC_OK);
        assert_int_equal(
            journal_retire(f->dispatcher, SERVICE_SMS, 1, 99999, &retired),
            RC_OK);
        assert_int_equal(journal_commit(f->dispatcher), RC_OK);
        assert_int_equal(retired, 1);
        assert_int_equal(sms_ledger(f).queue_bytes, 0);
        two_messages(f);
    }
}

static void
whatever_fails_with_batches_is_all_or_nothing(void **state)
{
    struct fixture *f = *state;
    const struct operation o = {batches, check_batches};

    two_messages(f);
    sweep(f, &o);
}

static enum rc
read_batches(struct fixture *f)
{
    struct journal *reader = fixture_journal(f, JOURNAL_READER);
    struct journal_batch batch = {.size = 9};
    struct journal_entry entry;
    struct text body = {0};
    struct uuid id = {{7}};
    int64_t count = 9;
    int64_t place = 9;
    enum rc rc = journal_batch_count(reader, &count);

    assert_int_equal(count, rc == RC_OK ? 1 : 0);
    if (rc == RC_OK) {
        rc = journal_batch_of(reader, &pair[1], &batch, &place);
        assert_int_equal(batch.size, rc == RC_OK ? 2 : 0);
        assert_int_equal(place, rc == RC_OK ? 1 : 0);
    }
    if (rc == RC_OK) {
        rc = journal_batch_find(reader, &id, &batch);
        assert_int_equal(batch.size, rc == RC_OK ? 2 : 0);
    }
    if (rc == RC_OK) {
        rc = journal_batch_body(reader, &id, &body);
        assert_int_equal(body.bytes, rc == RC_OK ? 2 : 0);
    }
    if (rc == RC_OK) {
        rc = journal_locate(reader, SERVICE_SMS, &pair[0], &entry);
    }
    if (rc == RC_OK) { /* in no queue: among the dead */
        rc = journal_locate(reader, SERVICE_SMS_STATUS, &pair[0], &entry);
        assert_int_not_equal(rc, RC_OK);
        rc = rc == RC_AGAIN ? RC_OK : rc;
    }
    text_free(&body);
    journal_free(&reader);
    return rc;
}

static void
check_pair(struct fixture *f, bool done)
{
    (void)done;
    assert_int_equal(sms_ledger(f).pending, 2);
}

static void
whatever_fails_reading_batches_says_so(void **state)
{
    struct fixture *f = *state;
    const struct operation o = {read_batches, check_pair};

    two_messages(f);
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(batch_there_and_back(f->dispatcher), RC_OK);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    sweep(f, &o);
}

/* ---- reading and checkpoints
 * --------------------------------------------------------------- */

static enum rc
read_all(struct fixture *f)
{
    struct journal *reader = fixture_journal(f, JOURNAL_READER);
    struct journal_page page = {0};
    struct journal_ledger ledger[SERVICE_COUNT];
    struct journal_entry e;
    struct uuid id = {{0}};
    int64_t n = 0;
    enum rc rc = journal_queue_page(reader, CB, 0, 10, 1000, &page);

    assert_int_equal(page.count, rc == RC_OK ? 10 : 0);
    if (rc == RC_OK) {
        rc = journal_outcome_page(reader, CB, 0, 10, 1000, &page);
    }
    if (rc == RC_OK) {
        rc = journal_newest(reader, CB, &n);
    }
    if (rc == RC_OK) {
        rc = journal_ledger(reader, ledger);
    }
    if (rc == RC_OK) {
        rc = journal_used_bytes(reader, &n);
    }
    if (rc == RC_OK) {
        rc = journal_identity(reader, &id);
    }
    if (rc == RC_OK) {
        rc = journal_find(reader, &id, &e);
        rc = rc == RC_AGAIN ? RC_OK : rc;
    }
    journal_page_free(&page);
    journal_free(&reader);
    return rc;
}

static void
check_ledger(struct fixture *f, bool done)
{
    (void)done;
    assert_int_equal(fixture_ledger(f).accepted, before.accepted);
}

static void
whatever_fails_reading_says_so(void **state)
{
    struct fixture *f = *state;
    const struct operation o = {read_all, check_ledger};

    fixture_accept_many(f, 50);
    before = fixture_ledger(f);
    sweep(f, &o);
}

static enum rc
write_and_checkpoint(struct fixture *f)
{
    int64_t wal = 0;

    return journal_checkpoint(f->dispatcher, &wal);
}

static void
check_checkpoint(struct fixture *f, bool done)
{
    check_ledger(f, done);
    fixture_accept_many(f, 10);
    before = fixture_ledger(f);
}

static void
whatever_fails_in_a_checkpoint_nothing_is_lost(void **state)
{
    struct fixture *f = *state;
    const struct operation o = {write_and_checkpoint, check_checkpoint};

    fixture_accept_many(f, 10);
    before = fixture_ledger(f);
    sweep(f, &o);
}

/* ---- durability
 * --------------------------------------------------------------------------------
 */

static void
no_acceptance_returns_before_its_sync(void **state)
{
    struct fixture *f = *state;
    int64_t wal = 0;

    for (int i = 0; i < 50; i++) {
        int64_t syncs = shim->wal_syncs;
        int64_t writes = shim->count[VFS_SHIM_WRITE];

        fixture_accept_many(f, i % 3 == 0 ? 1 : 64);
        assert_true(shim->count[VFS_SHIM_WRITE] > writes);
        assert_true(shim->wal_syncs > syncs);
        assert_false(shim->wal_dirty);
        if (i % 10 == 9) { /* also when the WAL begins anew */
            assert_int_equal(journal_checkpoint(f->dispatcher, &wal), RC_OK);
        }
    }
}

static void
no_group_is_committed_before_its_sync(void **state)
{
    struct fixture *f = *state;

    fixture_accept_many(f, 10);
    for (int64_t i = 1; i <= 10; i++) {
        int64_t syncs = shim->wal_syncs;

        (void)fixture_finish(f, i, i);
        assert_true(shim->wal_syncs > syncs);
        assert_false(shim->wal_dirty);
    }
}

static void
a_batch_costs_one_sync(void **state)
{
    struct fixture *f = *state;
    int64_t syncs;

    fixture_accept_many(f, 64);
    syncs = shim->count[VFS_SHIM_SYNC];
    for (int i = 0; i < 10; i++) {
        fixture_accept_many(f, 64);
    }
    assert_int_equal(shim->count[VFS_SHIM_SYNC], syncs + 10);
}

/* Nobody else has the file open: what was not acknowledged is not there, and
 * what is acknowledged afterwards does not stand behind frames that may never
 * have reached the disk. */
static void
a_lone_edge_recovers_from_a_failed_sync(void **state)
{
    struct fixture *f = *state;
    const struct fault fault = {
        "sync", false, VFS_SHIM_SYNC, SQLITE_IOERR_FSYNC, false, RC_IO};
    struct journal_ledger ledger[SERVICE_COUNT];

    accepted = 0;
    assert_int_equal(accept_three(f), RC_OK);
    shim->wal_lost_from = -1; /* of the tests before */
    arm(&fault, 1);
    assert_int_equal(accept_three(f), RC_IO);
    assert_true(disarm(&fault));
    assert_true(shim->wal_lost_from >= 0);
    assert_int_equal(accept_three(f), RC_OK);
    assert_int_equal(shim->wal_lost_from, -1); /* written again */
    assert_int_equal(journal_ledger(f->edge, ledger), RC_OK);
    assert_true(ledger[CB].balanced);
    assert_int_equal(ledger[CB].accepted, 6);
}

int
main(void)
{
#define CASE(name)                                                             \
    cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        CASE(whatever_fails_accepting_is_all_or_nothing),
        CASE(whatever_fails_opening_the_next_use_opens),
        CASE(whatever_fails_a_group_is_all_or_nothing),
        CASE(whatever_fails_a_retry_is_all_or_nothing),
        CASE(whatever_fails_with_batches_is_all_or_nothing),
        CASE(whatever_fails_reading_batches_says_so),
        CASE(whatever_fails_reading_says_so),
        CASE(whatever_fails_in_a_checkpoint_nothing_is_lost),
        CASE(no_acceptance_returns_before_its_sync),
        CASE(no_group_is_committed_before_its_sync),
        CASE(a_batch_costs_one_sync),
        CASE(a_lone_edge_recovers_from_a_failed_sync),
    };

    shim = vfs_shim_install();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
