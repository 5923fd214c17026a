/* How far requests have come, slots and notes; and files of versions 1 and 2.
 */
#include "tests/shared/journal_fixture.h"

#include <stdio.h>
#include <string.h>

#include "shared/journal_batch.h"

#define STATE_BEGUN 1
#define STATE_DONE 2

static const struct journal_progress some = {
    .state = STATE_BEGUN,
    .attempts = 3,
    .started_unix_ms = FIXTURE_NOW + 1,
    .finished_unix_ms = FIXTURE_NOW + 2,
    .error = "HTTP 500",
};

static struct journal_progress
get(struct fixture *f, int64_t seq)
{
    struct journal_progress progress;

    memset(&progress, 0x5a, sizeof progress);
    assert_int_equal(
        journal_progress_get(f->dispatcher, SERVICE_CALLBACK, seq, &progress),
        RC_OK);
    return progress;
}

static void
put(struct fixture *f, int64_t seq, const struct journal_progress *progress)
{
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(
        journal_progress_put(f->dispatcher, SERVICE_CALLBACK, seq, progress),
        RC_OK);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
}

static void
nothing_recorded_is_all_zero(void **state)
{
    struct fixture *f = *state;
    struct journal_progress progress;

    (void)fixture_accept(f, "[1]");
    progress = get(f, 1);
    assert_int_equal(progress.state, JOURNAL_STATE_WAITING);
    assert_int_equal(progress.attempts, 0);
    assert_int_equal(progress.started_unix_ms, 0);
    assert_int_equal(progress.finished_unix_ms, 0);
    assert_string_equal(progress.error, "");
    assert_int_equal(get(f, 99).state, JOURNAL_STATE_WAITING);
}

static void
what_was_put_comes_back_and_is_replaced(void **state)
{
    struct fixture *f = *state;
    struct journal_progress progress;

    (void)fixture_accept(f, "[1]");
    put(f, 1, &some);
    progress = get(f, 1);
    assert_int_equal(progress.state, STATE_BEGUN);
    assert_int_equal(progress.attempts, 3);
    assert_int_equal(progress.started_unix_ms, FIXTURE_NOW + 1);
    assert_int_equal(progress.finished_unix_ms, FIXTURE_NOW + 2);
    assert_string_equal(progress.error, "HTTP 500");
    progress = (struct journal_progress){.state = STATE_DONE};
    put(f, 1, &progress);
    put(f, 1, &progress);
    assert_int_equal(get(f, 1).state, STATE_DONE);
    assert_string_equal(get(f, 1).error, "");
    assert_int_equal(fixture_ask(f, "SELECT count(*) FROM progress"), 1);
}

static void
progress_is_kept_apart_by_service(void **state)
{
    struct fixture *f = *state;
    struct journal_progress progress;

    put(f, 1, &some);
    assert_int_equal(
        journal_progress_get(f->dispatcher, SERVICE_CALL, 1, &progress), RC_OK);
    assert_int_equal(progress.state, JOURNAL_STATE_WAITING);
}

static void
only_what_waits_is_begun(void **state)
{
    const struct journal_progress done = {.state = STATE_DONE};
    const struct journal_progress waits = {.attempts = 1};
    struct fixture *f = *state;
    struct journal *j = f->dispatcher;

    (void)fixture_accept(f, "[1]");
    assert_int_equal(journal_begin(j), RC_OK);
    assert_int_equal(journal_progress_begin(j, SERVICE_CALLBACK, 1, &some),
                     RC_OK);
    assert_int_equal(journal_progress_begin(j, SERVICE_CALLBACK, 1, &done),
                     RC_AGAIN);
    assert_int_equal(journal_commit(j), RC_OK);
    assert_int_equal(get(f, 1).attempts, 3);
    put(f, 1, &waits);
    assert_int_equal(journal_begin(j), RC_OK);
    assert_int_equal(journal_progress_begin(j, SERVICE_CALLBACK, 1, &done),
                     RC_OK);
    assert_int_equal(journal_commit(j), RC_OK);
    assert_int_equal(get(f, 1).state, STATE_DONE);
}

static void
an_undone_group_leaves_nothing(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(
        journal_progress_put(f->dispatcher, SERVICE_CALLBACK, 1, &some), RC_OK);
    journal_rollback(f->dispatcher);
    assert_int_equal(get(f, 1).state, JOURNAL_STATE_WAITING);
}

static void
outside_a_group_nothing_is_recorded(void **state)
{
    const struct journal_slot slot = {0};
    struct fixture *f = *state;
    struct journal *j = f->dispatcher;

    (void)fixture_accept(f, "[1]");
    assert_int_equal(journal_progress_put(j, SERVICE_CALLBACK, 1, &some),
                     RC_IO);
    assert_int_equal(journal_progress_begin(j, SERVICE_CALLBACK, 1, &some),
                     RC_IO);
    assert_int_equal(journal_slot_put(j, &slot), RC_IO);
    assert_int_equal(journal_note_put(j, "a", "b"), RC_IO);
}

struct seen {
    int64_t seqs[8];
    size_t count;
    size_t stop_at;
};

static bool
see_progress(void *arg, int64_t seq, const struct journal_progress *progress)
{
    struct seen *seen = arg;

    assert_int_equal(progress->attempts, 3);
    assert_string_equal(progress->error, "HTTP 500");
    seen->seqs[seen->count++] = seq;
    return seen->count != seen->stop_at;
}

static void
each_goes_in_order_until_told_to_stop(void **state)
{
    struct fixture *f = *state;
    struct seen seen = {.stop_at = 0};

    put(f, 7, &some);
    put(f, 2, &some);
    put(f, 300, &some);
    assert_int_equal(journal_progress_each(f->dispatcher, SERVICE_CALLBACK,
                                           see_progress, &seen),
                     RC_OK);
    assert_int_equal(seen.count, 3);
    assert_int_equal(seen.seqs[0], 2);
    assert_int_equal(seen.seqs[1], 7);
    assert_int_equal(seen.seqs[2], 300);
    seen = (struct seen){.stop_at = 2};
    assert_int_equal(journal_progress_each(f->dispatcher, SERVICE_CALLBACK,
                                           see_progress, &seen),
                     RC_OK);
    assert_int_equal(seen.count, 2);
    seen = (struct seen){.stop_at = 0};
    assert_int_equal(
        journal_progress_each(f->dispatcher, SERVICE_CALL, see_progress, &seen),
        RC_OK);
    assert_int_equal(seen.count, 0);
}

static void
a_look_up_tells_the_progress_and_what_is_ahead(void **state)
{
    struct fixture *f = *state;
    struct journal_request r[3] = {fixture_request(f, "[1]"),
                                   fixture_request(f, "[1]"),
                                   fixture_request(f, "[1]")};
    struct journal_entry entry;

    assert_int_equal(journal_accept(f->edge, r, 3, FIXTURE_NOW + 1), RC_OK);
    put(f, 2, &some);
    assert_int_equal(journal_find(f->dispatcher, &r[1].id, &entry), RC_OK);
    assert_int_equal(entry.progress.state, STATE_BEGUN);
    assert_int_equal(entry.progress.attempts, 3);
    assert_int_equal(entry.ahead, 1);
    assert_int_equal(journal_find(f->dispatcher, &r[2].id, &entry), RC_OK);
    assert_int_equal(entry.progress.state, JOURNAL_STATE_WAITING);
    assert_int_equal(entry.ahead, 1); /* the second is worked on */
}

/* ---- the end of a request
 * -------------------------------------------------- */

static void
retiring_removes_the_progress(void **state)
{
    struct fixture *f = *state;
    int64_t retired = 0;
    int64_t no;

    fixture_accept_many(f, 3);
    for (int64_t seq = 1; seq <= 3; seq++) {
        put(f, seq, &some);
    }
    no = fixture_finish(f, 1, 2);
    assert_int_equal(get(f, 1).state, STATE_BEGUN); /* it persists */
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(
        journal_retire(f->dispatcher, SERVICE_CALLBACK, no, no, &retired),
        RC_OK);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    assert_int_equal(retired, 2);
    assert_int_equal(get(f, 1).state, JOURNAL_STATE_WAITING);
    assert_int_equal(fixture_ask(f, "SELECT seq FROM progress"), 3);
    assert_int_equal(fixture_ask(f, "SELECT count(*) FROM progress"), 1);
}

static void
burying_removes_the_progress(void **state)
{
    struct fixture *f = *state;
    int64_t buried = 0;
    int64_t no;

    fixture_accept_many(f, 3);
    for (int64_t seq = 1; seq <= 3; seq++) {
        put(f, seq, &some);
    }
    no = fixture_finish(f, 2, 2);
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(journal_bury(f->dispatcher, SERVICE_CALLBACK, 1, "x", NULL,
                                  0, NULL, 0, FIXTURE_NOW),
                     RC_OK);
    assert_int_equal(journal_bury_outcome(f->dispatcher, SERVICE_CALLBACK, no,
                                          "y", FIXTURE_NOW, &buried),
                     RC_OK);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    assert_int_equal(buried, 1);
    assert_int_equal(fixture_ask(f, "SELECT seq FROM progress"), 3);
    assert_int_equal(fixture_ask(f, "SELECT count(*) FROM progress"), 1);
    assert_int_equal(fixture_ledger(f).dead, 2);
}

/* ---- slots and notes
 * -------------------------------------------------------- */

struct slots {
    struct journal_slot list[4];
    size_t count;
    size_t stop_at;
};

static bool
see_slot(void *arg, const struct journal_slot *slot)
{
    struct slots *slots = arg;

    slots->list[slots->count++] = *slot;
    return slots->count != slots->stop_at;
}

static void
slots_are_put_and_changed(void **state)
{
    struct journal_slot slot = {
        .no = 24, .free_at_us = INT64_MAX, .boot = "boot-a"};
    struct fixture *f = *state;
    struct journal *j = f->dispatcher;
    struct slots slots = {.count = 0};

    assert_int_equal(journal_begin(j), RC_OK);
    assert_int_equal(journal_slot_put(j, &slot), RC_OK);
    slot.no = 0;
    assert_int_equal(journal_slot_put(j, &slot), RC_OK);
    slot.free_at_us = 6;
    assert_int_equal(journal_slot_put(j, &slot), RC_OK);
    assert_int_equal(journal_commit(j), RC_OK);
    assert_int_equal(journal_slot_each(j, see_slot, &slots), RC_OK);
    assert_int_equal(slots.count, 2);
    assert_int_equal(slots.list[0].no, 0);
    assert_int_equal(slots.list[0].free_at_us, 6);
    assert_int_equal(slots.list[1].no, 24);
    assert_true(slots.list[1].free_at_us == INT64_MAX);
    assert_string_equal(slots.list[1].boot, "boot-a");
    slots = (struct slots){.stop_at = 1};
    assert_int_equal(journal_slot_each(j, see_slot, &slots), RC_OK);
    assert_int_equal(slots.count, 1);
}

static void
notes_are_kept_by_name(void **state)
{
    struct fixture *f = *state;
    struct journal *j = f->dispatcher;
    char note[16] = "x";

    assert_int_equal(journal_note_get(j, "call", note, sizeof note), RC_OK);
    assert_string_equal(note, "");
    assert_int_equal(journal_begin(j), RC_OK);
    assert_int_equal(journal_note_put(j, "call", "1 2 3"), RC_OK);
    assert_int_equal(journal_note_put(j, "other", "9"), RC_OK);
    assert_int_equal(journal_note_put(j, "call", "4 5 6"), RC_OK);
    assert_int_equal(journal_commit(j), RC_OK);
    assert_int_equal(journal_note_get(j, "call", note, sizeof note), RC_OK);
    assert_string_equal(note, "4 5 6");
    assert_int_equal(journal_note_get(j, "call", note, 4), RC_OK);
    assert_string_equal(note, "4 5");
}

static void
readers_read_and_without_a_file_have_nothing(void **state)
{
    struct fixture *f = *state;
    struct journal *reader = fixture_journal(f, JOURNAL_READER);
    struct journal_progress progress;
    struct seen seen = {.count = 0};
    struct slots slots = {.count = 0};
    char note[16];

    assert_int_equal(
        journal_progress_get(reader, SERVICE_CALLBACK, 1, &progress), RC_AGAIN);
    assert_int_equal(
        journal_progress_each(reader, SERVICE_CALLBACK, see_progress, &seen),
        RC_AGAIN);
    assert_int_equal(journal_slot_each(reader, see_slot, &slots), RC_AGAIN);
    assert_int_equal(journal_note_get(reader, "a", note, sizeof note),
                     RC_AGAIN);
    put(f, 1, &some);
    assert_int_equal(
        journal_progress_get(reader, SERVICE_CALLBACK, 1, &progress), RC_OK);
    assert_int_equal(progress.attempts, 3);
    journal_free(&reader);
}

/* ---- upgrade
 * ---------------------------------------------------------------- */

/* What the versions after this one added is not there. */
static void
make_version(struct fixture *f, int version)
{
    journal_free(&f->edge);
    journal_free(&f->dispatcher);
    fixture_sql(f, "DROP TABLE batch; DROP TABLE batch_member;"
                   "DROP TABLE queue_sms; DROP TABLE queue_sms_status;"
                   "DROP TABLE queue_invitation;"
                   "DELETE FROM counter WHERE service LIKE 'sms%'"
                   " OR service = 'invitation';"
                   "PRAGMA user_version = 2;");
    if (version < 2) {
        fixture_sql(f, "DROP TABLE progress; DROP TABLE slot; DROP TABLE note;"
                       "DROP TABLE queue_call;"
                       "DELETE FROM counter WHERE service = 'call';"
                       "PRAGMA user_version = 1;");
    }
    f->edge = fixture_journal(f, JOURNAL_EDGE);
    f->dispatcher = fixture_journal(f, JOURNAL_DISPATCHER);
}

/* Its tables are as if it had been made now. */
static void
assert_batches_work(struct fixture *f)
{
    struct journal_request sms = fixture_request(f, "+14155550123 a");
    struct journal_batch batch = {.id = {{7}}, .size = 1};
    struct journal_batch found;
    int64_t place = 1;

    sms.service = SERVICE_SMS;
    assert_int_equal(
        journal_accept(f->edge, &sms, 1, FIXTURE_NOW + FIXTURE_DAY), RC_OK);
    assert_int_equal(sms.seq, 1);
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(journal_batch_make(f->dispatcher, &batch, &sms.id, 1),
                     RC_OK);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    assert_int_equal(journal_batch_of(f->dispatcher, &sms.id, &found, &place),
                     RC_OK);
    assert_int_equal(place, 0);
    assert_int_equal(found.waiting, 1);
}

static void
a_file_of_version_1_is_raised_and_keeps_its_rows(void **state)
{
    struct fixture *f = *state;
    struct journal_request keyed = fixture_keyed(f, "[1]", "k");
    struct journal_request again = fixture_keyed(f, "[1]", "k");
    struct journal_request call = fixture_request(f, "+14155550123 a");
    struct uuid before;
    struct uuid after;

    assert_int_equal(
        journal_accept(f->edge, &keyed, 1, FIXTURE_NOW + FIXTURE_DAY), RC_OK);
    fixture_accept_many(f, 2);
    (void)fixture_finish(f, 2, 2);
    assert_int_equal(journal_identity(f->dispatcher, &before), RC_OK);
    make_version(f, 1);
    assert_int_equal(fixture_accept(f, "[2]"), 4);
    assert_int_equal(fixture_ask(f, "PRAGMA user_version"), 4);
    assert_int_equal(journal_identity(f->dispatcher, &after), RC_OK);
    assert_memory_equal(before.bytes, after.bytes, UUID_BYTES);
    assert_int_equal(fixture_ledger(f).accepted, 4);
    assert_int_equal(fixture_ledger(f).pending, 4);
    assert_int_equal(fixture_ledger(f).outcomes, 1);
    assert_int_equal(
        journal_accept(f->edge, &again, 1, FIXTURE_NOW + FIXTURE_DAY), RC_OK);
    assert_int_equal(again.verdict, JOURNAL_REPLAYED);
    call.service = SERVICE_CALL;
    assert_int_equal(
        journal_accept(f->edge, &call, 1, FIXTURE_NOW + FIXTURE_DAY), RC_OK);
    assert_int_equal(call.seq, 1);
    put(f, 1, &some);
    assert_int_equal(get(f, 1).attempts, 3);
    assert_batches_work(f);
}

static void
a_file_of_version_2_is_raised_and_keeps_its_progress(void **state)
{
    struct fixture *f = *state;
    struct journal_slot slot = {.no = 5, .boot = "boot-a", .free_at_us = 6};
    struct journal_request call = fixture_request(f, "+14155550123 a");
    struct slots slots = {.count = 0};
    struct journal_ledger ledger[SERVICE_COUNT];
    char note[16];

    call.service = SERVICE_CALL;
    assert_int_equal(
        journal_accept(f->edge, &call, 1, FIXTURE_NOW + FIXTURE_DAY), RC_OK);
    (void)fixture_accept(f, "[1]");
    put(f, 1, &some);
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(journal_slot_put(f->dispatcher, &slot), RC_OK);
    assert_int_equal(journal_note_put(f->dispatcher, "call", "1 2"), RC_OK);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    make_version(f, 2);
    assert_int_equal(fixture_accept(f, "[2]"), 2);
    assert_int_equal(fixture_ask(f, "PRAGMA user_version"), 4);
    assert_int_equal(get(f, 1).attempts, 3);
    assert_int_equal(journal_slot_each(f->dispatcher, see_slot, &slots), RC_OK);
    assert_int_equal(slots.count, 1);
    assert_int_equal(slots.list[0].free_at_us, 6);
    assert_int_equal(journal_note_get(f->dispatcher, "call", note, sizeof note),
                     RC_OK);
    assert_string_equal(note, "1 2");
    assert_int_equal(journal_ledger(f->dispatcher, ledger), RC_OK);
    assert_int_equal(ledger[SERVICE_CALL].pending, 1);
    assert_int_equal(ledger[SERVICE_CALLBACK].pending, 2);
    assert_batches_work(f);
}

static void
a_reader_waits_for_somebody_to_raise_it(void **state)
{
    struct fixture *f = *state;
    struct journal *reader = fixture_journal(f, JOURNAL_READER);
    struct journal_progress progress;
    enum rc rc;

    (void)fixture_accept(f, "[1]");
    for (int version = 1; version <= 2; version++) {
        make_version(f, version);
        rc = journal_progress_get(reader, SERVICE_CALLBACK, 1, &progress);
        assert_int_equal(rc, RC_AGAIN);
        (void)fixture_accept(f, "[1]");
        assert_int_equal(
            journal_progress_get(reader, SERVICE_CALLBACK, 1, &progress),
            RC_OK);
        journal_free(&reader);
        reader = fixture_journal(f, JOURNAL_READER);
    }
    journal_free(&reader);
}

int
main(void)
{
#define CASE(name)                                                             \
    cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        CASE(nothing_recorded_is_all_zero),
        CASE(what_was_put_comes_back_and_is_replaced),
        CASE(progress_is_kept_apart_by_service),
        CASE(only_what_waits_is_begun),
        CASE(an_undone_group_leaves_nothing),
        CASE(outside_a_group_nothing_is_recorded),
        CASE(each_goes_in_order_until_told_to_stop),
        CASE(a_look_up_tells_the_progress_and_what_is_ahead),
        CASE(retiring_removes_the_progress),
        CASE(burying_removes_the_progress),
        CASE(slots_are_put_and_changed),
        CASE(notes_are_kept_by_name),
        CASE(readers_read_and_without_a_file_have_nothing),
        CASE(a_file_of_version_1_is_raised_and_keeps_its_rows),
        CASE(a_file_of_version_2_is_raised_and_keeps_its_progress),
        CASE(a_reader_waits_for_somebody_to_raise_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
