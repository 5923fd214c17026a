/* Recording: outcomes, retiring, dead letters, attempts, checkpoints; and
 * that each may be repeated. */
#include "tests/shared/journal_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UNTIL (FIXTURE_NOW + FIXTURE_DAY)
#define CB SERVICE_CALLBACK

static void
begin(struct fixture *f)
{
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
}

static void
commit(struct fixture *f)
{
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
}

static int64_t
retire(struct fixture *f, int64_t from, int64_t to)
{
    int64_t retired = -1;

    begin(f);
    assert_int_equal(journal_retire(f->dispatcher, CB, from, to, &retired),
                     RC_OK);
    commit(f);
    return retired;
}

static void
a_group_is_all_or_nothing(void **state)
{
    struct fixture *f = *state;
    int64_t no = 0;

    fixture_accept_many(f, 2);
    begin(f);
    assert_int_equal(journal_outcome_add(f->dispatcher, CB, "[]", 2, &no),
                     RC_OK);
    assert_int_equal(journal_finish(f->dispatcher, CB, 1, no), RC_OK);
    assert_int_equal(
        journal_bury(f->dispatcher, CB, 2, "x", NULL, 0, NULL, 0, FIXTURE_NOW),
        RC_OK);
    journal_rollback(f->dispatcher);
    journal_rollback(f->dispatcher); /* nothing to undo */
    assert_int_equal(journal_commit(f->dispatcher), RC_IO);
    assert_int_equal(fixture_ledger(f).dead, 0);
    assert_int_equal(fixture_ledger(f).outcomes, 0);
    assert_int_equal(fixture_ledger(f).pending, 2);
    /* The edge goes on. */
    assert_int_equal(fixture_accept(f, "[1]"), 3);
}

static void
nothing_is_recorded_outside_a_group(void **state)
{
    struct fixture *f = *state;
    struct uuid id = {{1}};
    int64_t n = 0;

    fixture_accept_many(f, 1);
    assert_int_equal(journal_attempt_put(f->dispatcher, CB, "1", 1, "x"),
                     RC_IO);
    assert_int_equal(journal_attempt_delete(f->dispatcher, CB, "1"), RC_IO);
    assert_int_equal(journal_outcome_add(f->dispatcher, CB, "", 0, &n), RC_IO);
    assert_int_equal(journal_finish(f->dispatcher, CB, 1, 1), RC_IO);
    assert_int_equal(
        journal_bury(f->dispatcher, CB, 1, "", NULL, 0, NULL, 0, FIXTURE_NOW),
        RC_IO);
    assert_int_equal(journal_retire(f->dispatcher, CB, 1, 1, &n), RC_IO);
    assert_int_equal(journal_dead_retry(f->dispatcher, &id, 1, NULL), RC_IO);
    assert_int_equal(journal_dead_drop(f->dispatcher, &id), RC_IO);
    begin(f);
    assert_int_equal(journal_begin(f->dispatcher), RC_BUG);
    assert_int_equal(journal_checkpoint(f->dispatcher, &n), RC_BUG);
    journal_rollback(f->dispatcher);
}

static void
finish_and_retire_end_a_request_once(void **state)
{
    struct fixture *f = *state;
    int64_t first;
    int64_t second;

    fixture_accept_many(f, 5);
    first = fixture_finish(f, 1, 2);
    second = fixture_finish(f, 3, 3);
    begin(f);
    assert_int_equal(journal_finish(f->dispatcher, CB, 1, second), RC_AGAIN);
    assert_int_equal(journal_finish(f->dispatcher, CB, 77, second), RC_AGAIN);
    commit(f);
    assert_int_equal(fixture_ledger(f).pending, 5);
    assert_int_equal(fixture_ledger(f).outcomes, 2);
    assert_int_equal(fixture_ledger(f).final, 0); /* until it is persisted */
    assert_int_equal(retire(f, first, first), 2);
    assert_int_equal(fixture_ledger(f).pending, 3);
    assert_int_equal(fixture_ledger(f).outcomes, 1);
    assert_int_equal(fixture_ledger(f).final, 2);
    /* Repeated after a crash, and with a wider range. */
    assert_int_equal(retire(f, first, first), 0);
    assert_int_equal(retire(f, first, second), 1);
    assert_int_equal(retire(f, 0, INT64_MAX), 0);
    assert_int_equal(fixture_ledger(f).final, 3);
    assert_int_equal(fixture_ledger(f).pending, 2);
    begin(f);
    assert_int_equal(journal_finish(f->dispatcher, CB, 1, second), RC_AGAIN);
    commit(f);
}

static void
an_emptied_queue_takes_no_bytes_and_no_old_number(void **state)
{
    struct fixture *f = *state;
    int64_t no;
    int64_t used = 0;
    int64_t later = 0;
    int64_t wal = 0;

    fixture_accept_many(f, 1000);
    assert_int_equal(fixture_ledger(f).queue_bytes, 1000 * (3 + 96));
    no = fixture_finish(f, 1, 1000);
    assert_int_equal(retire(f, no, no), 1000);
    assert_int_equal(fixture_ledger(f).queue_bytes, 0);
    assert_int_equal(fixture_ledger(f).oldest_received_unix_ms, 0);
    assert_int_equal(journal_checkpoint(f->dispatcher, &wal), RC_OK);
    assert_int_equal(journal_used_bytes(f->dispatcher, &used), RC_OK);
    /* A restart changes nothing about the numbers. */
    journal_free(&f->edge);
    f->edge = fixture_journal(f, JOURNAL_EDGE);
    assert_int_equal(fixture_accept(f, "[1]"), 1001);
    assert_true(fixture_finish(f, 1001, 1001) > no);
    /* Freed pages are used again. */
    for (int i = 0; i < 20; i++) {
        int64_t seq;

        fixture_accept_many(f, 500);
        seq = fixture_ask(f, "SELECT max(seq) FROM queue_callback");
        no = fixture_finish(f, seq - 499, seq);
        (void)retire(f, 0, no);
    }
    assert_int_equal(journal_checkpoint(f->dispatcher, &wal), RC_OK);
    assert_int_equal(journal_used_bytes(f->dispatcher, &later), RC_OK);
    assert_true(later - wal <= used);
    assert_int_equal(fixture_ledger(f).queue_bytes, 0);
}

/* ---- dead letters
 * ------------------------------------------------------------------ */

struct items {
    int count;
    char text[4][JOURNAL_REASON_BYTES + JOURNAL_ITEM_BYTES + 32];
};

static bool
see_item(void *arg, const char *item, const char *reason, int64_t attempts)
{
    struct items *items = arg;

    assert_true(items->count < 4);
    (void)snprintf(items->text[items->count], sizeof items->text[0], "%s %s %d",
                   item, reason, (int)attempts);
    items->count++;
    return items->count < 3;
}

static void
bury_keeps_reason_and_items_and_is_repeatable(void **state)
{
    struct fixture *f = *state;
    struct journal_dead_item items[4] = {{"7", "HTTP 500", 4},
                                         {"9", "timeout", 4},
                                         {"11", "reset", 2},
                                         {"13", "reset", 1}};
    struct journal_request r = fixture_request(f, "[7,8,9]");
    struct journal_entry e;
    struct items seen = {0};

    assert_int_equal(journal_accept(f->edge, &r, 1, UNTIL), RC_OK);
    for (int i = 0; i < 2; i++) {
        begin(f);
        assert_int_equal(journal_bury(f->dispatcher, CB, r.seq, "2 objects",
                                      "[7,9]", 5, items, 4, FIXTURE_NOW + 1),
                         i == 0 ? RC_OK : RC_AGAIN);
        commit(f);
        assert_int_equal(fixture_ledger(f).dead, 1);
        assert_int_equal(fixture_ledger(f).pending, 0);
    }
    assert_int_equal(journal_find(f->dispatcher, &r.id, &e), RC_OK);
    assert_int_equal(e.items, 4);
    assert_int_equal(
        journal_dead_items_each(f->dispatcher, &r.id, see_item, &seen), RC_OK);
    assert_int_equal(seen.count, 3); /* it was told to stop */
    assert_string_equal(seen.text[0], "7 HTTP 500 4");
    assert_string_equal(seen.text[1], "9 timeout 4");
    /* Stopping leaves no transaction behind. */
    begin(f);
    assert_int_equal(journal_dead_drop(f->dispatcher, &r.id), RC_OK);
    assert_int_equal(journal_dead_drop(f->dispatcher, &r.id), RC_AGAIN);
    assert_int_equal(journal_dead_retry(f->dispatcher, &r.id, 1, NULL),
                     RC_AGAIN);
    commit(f);
    assert_int_equal(fixture_ledger(f).final, 1);
    assert_int_equal(fixture_ledger(f).dead, 0);
    assert_int_equal(fixture_ledger(f).queue_bytes, 0);
    assert_int_equal(fixture_ask(f, "SELECT count(*) FROM dead_item"), 0);
    assert_int_equal(journal_find(f->dispatcher, &r.id, &e), RC_AGAIN);
}

static void
a_retry_goes_to_the_end_with_the_rest_of_its_work(void **state)
{
    struct fixture *f = *state;
    struct journal_request r = fixture_request(f, "[7,8,9]");
    struct journal_dead_item item = {"7", "HTTP 500", 4};
    struct journal_page page = {0};
    int64_t no;

    r.received_unix_ms = FIXTURE_NOW - 50;
    assert_int_equal(journal_accept(f->edge, &r, 1, UNTIL), RC_OK);
    assert_int_equal(fixture_accept(f, "[1]"), 2);
    begin(f);
    assert_int_equal(journal_bury(f->dispatcher, CB, 1, "1 object", "[7]", 3,
                                  &item, 1, FIXTURE_NOW),
                     RC_OK);
    assert_int_equal(
        journal_dead_retry(f->dispatcher, &r.id, FIXTURE_NOW - 9, NULL), RC_OK);
    assert_int_equal(
        journal_dead_retry(f->dispatcher, &r.id, FIXTURE_NOW - 9, NULL),
        RC_AGAIN);
    commit(f);
    assert_int_equal(journal_queue_page(f->dispatcher, CB, 0, 10, 1000, &page),
                     RC_OK);
    assert_int_equal(page.count, 2);
    assert_int_equal(page.rows[1].seq, 3);
    assert_memory_equal(page.rows[1].id.bytes, r.id.bytes, UUID_BYTES);
    assert_int_equal(page.rows[1].body_bytes, 3);
    assert_memory_equal(page.rows[1].body, "[7]", 3);
    /* Received is not before the row that stands before it. */
    assert_int_equal(page.rows[1].received_unix_ms, FIXTURE_NOW);
    assert_int_equal(fixture_ledger(f).accepted, 2);
    assert_int_equal(fixture_ledger(f).queue_bytes, 2 * 99);
    /* A row accepted after a retry in the future is not before it, either. */
    begin(f);
    assert_int_equal(journal_bury(f->dispatcher, CB, 3, "again", NULL, 0, NULL,
                                  0, FIXTURE_NOW),
                     RC_OK);
    assert_int_equal(
        journal_dead_retry(f->dispatcher, &r.id, FIXTURE_NOW + 700, NULL),
        RC_OK);
    commit(f);
    assert_int_equal(fixture_accept(f, "[2]"), 5);
    assert_int_equal(
        fixture_ask(f, "SELECT received FROM queue_callback WHERE seq = 5"),
        FIXTURE_NOW + 700);
    no = fixture_finish(f, 2, 2);
    assert_int_equal(retire(f, no, no), 1);
    assert_int_equal(fixture_ledger(f).pending, 2);
    journal_page_free(&page);
}

static void
a_finished_request_can_still_be_buried(void **state)
{
    struct fixture *f = *state;
    int64_t no;

    fixture_accept_many(f, 2);
    no = fixture_finish(f, 1, 2);
    begin(f);
    assert_int_equal(journal_bury(f->dispatcher, CB, 1, "refused", NULL, 0,
                                  NULL, 0, FIXTURE_NOW),
                     RC_OK);
    commit(f);
    assert_int_equal(retire(f, no, no), 1);
    assert_int_equal(fixture_ledger(f).final, 1);
    assert_int_equal(fixture_ledger(f).dead, 1);
}

static void
a_buried_outcome_takes_all_who_finished_with_it(void **state)
{
    struct fixture *f = *state;
    int64_t buried = 0;
    int64_t no;
    int64_t other;

    fixture_accept_many(f, 5);
    no = fixture_finish(f, 1, 3);
    other = fixture_finish(f, 4, 4);
    for (int round = 0; round < 2; round++) {
        begin(f);
        assert_int_equal(journal_bury_outcome(f->dispatcher, CB, no, "broken",
                                              FIXTURE_NOW, &buried),
                         RC_OK);
        commit(f);
        assert_int_equal(buried, round == 0 ? 3 : 0);
    }
    assert_int_equal(fixture_ledger(f).dead, 3);
    assert_int_equal(retire(f, no, other), 1);
    assert_int_equal(fixture_ledger(f).final, 1);
    assert_int_equal(fixture_ledger(f).pending, 1);
}

static bool
count_dead(void *arg, const struct journal_entry *entry)
{
    int64_t *last = arg;

    assert_true(entry->seq > *last);
    assert_int_equal(strlen(entry->reason), JOURNAL_REASON_BYTES - 2);
    *last = entry->seq;
    return entry->seq != 5;
}

static void
dead_letters_are_listed_in_order(void **state)
{
    struct fixture *f = *state;
    char reason[600];
    int64_t last = 0;

    /* Characters of two bytes, cut at 255: 127 of them are whole. */
    for (size_t i = 0; i + 2 < sizeof reason; i += 2) {
        memcpy(reason + i, "\xc3\xa9", 3);
    }
    fixture_accept_many(f, 8);
    begin(f);
    for (int64_t seq = 8; seq > 0; seq--) {
        assert_int_equal(journal_bury(f->dispatcher, CB, seq, reason, NULL, 0,
                                      NULL, 0, FIXTURE_NOW),
                         RC_OK);
    }
    commit(f);
    assert_int_equal(
        journal_dead_each(f->dispatcher, CB, 0, 3, count_dead, &last), RC_OK);
    assert_int_equal(last, 3);
    assert_int_equal(
        journal_dead_each(f->dispatcher, CB, 3, 100, count_dead, &last), RC_OK);
    assert_int_equal(last, 5);
    assert_int_equal(
        journal_dead_each(f->dispatcher, CB, 5, 100, count_dead, &last), RC_OK);
    assert_int_equal(last, 8);
}

/* ---- attempts
 * ------------------------------------------------------------------------ */

static bool
see_attempt(void *arg, const char *item, int64_t attempts, const char *error)
{
    char *out = arg;
    size_t used = strlen(out);

    (void)snprintf(out + used, 256 - used, "%s:%d:%s;", item, (int)attempts,
                   error);
    return true;
}

static void
attempts_are_remembered_and_forgotten(void **state)
{
    struct fixture *f = *state;
    char seen[256] = "";

    begin(f);
    assert_int_equal(journal_attempt_put(f->dispatcher, CB, "7", 1, "first"),
                     RC_OK);
    assert_int_equal(journal_attempt_put(f->dispatcher, CB, "8", 1, NULL),
                     RC_OK);
    assert_int_equal(journal_attempt_put(f->dispatcher, CB, "9", 1, "x"),
                     RC_OK);
    assert_int_equal(journal_attempt_put(f->dispatcher, CB, "7", 2, "second"),
                     RC_OK);
    assert_int_equal(journal_attempt_put(f->dispatcher, CB, "7", 2, "second"),
                     RC_OK);
    assert_int_equal(journal_attempt_delete(f->dispatcher, CB, "9"), RC_OK);
    assert_int_equal(journal_attempt_delete(f->dispatcher, CB, "9"), RC_OK);
    commit(f);
    assert_int_equal(journal_attempt_each(f->edge, CB, see_attempt, seen),
                     RC_OK);
    assert_string_equal(seen, "7:2:second;8:1:;");
}

/* ---- checkpoints
 * ----------------------------------------------------------------------- */

static void
page_for_ever(struct fixture *f, void *arg)
{
    struct journal *reader = fixture_journal(f, JOURNAL_READER);
    struct journal_page page = {0};
    int *stop = arg;
    int64_t after = 0;

    while (__atomic_load_n(stop, __ATOMIC_ACQUIRE) == 0) {
        enum rc rc = journal_queue_page(reader, CB, after, 256, 1000000, &page);

        if (rc != RC_OK && rc != RC_AGAIN) {
            fail_msg("%s", journal_error(reader));
        }
        after = page.count > 0 ? page.rows[page.count - 1].seq : 0;
    }
    journal_page_free(&page);
    journal_free(&reader);
}

static void
the_wal_stays_bounded_under_load_with_readers(void **state)
{
    struct fixture *f = *state;
    int *stop = fixture_shared(sizeof *stop);
    pid_t readers[2];
    int64_t most = 0;
    int64_t wal = 0;

    journal_free(&f->dispatcher);
    f->options.max_bytes = 128 * 1024 * 1024; /* for the WAL: an eighth */
    f->dispatcher = fixture_journal(f, JOURNAL_DISPATCHER);
    for (int i = 0; i < 2; i++) {
        readers[i] = fixture_child(f, page_for_ever, stop);
    }
    for (int i = 0; i < 1500; i++) {
        fixture_accept_many(f, 64);
        if (i % 20 == 19) {
            assert_int_equal(journal_checkpoint(f->dispatcher, &wal), RC_OK);
            most = wal > most ? wal : most;
        }
    }
    __atomic_store_n(stop, 1, __ATOMIC_RELEASE);
    fixture_child_join(readers[0]);
    fixture_child_join(readers[1]);
    print_message("WAL at most %lld KiB\n", (long long)most / 1024);
    /* Above 4 MiB a checkpoint waits a little for the readers, above 16
     * until they are out of their pages. */
    assert_true(most < 48 * 1024 * 1024);
    assert_int_equal(fixture_ledger(f).accepted, 1500 * 64);
}

int
main(void)
{
#define CASE(name)                                                             \
    cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        CASE(a_group_is_all_or_nothing),
        CASE(nothing_is_recorded_outside_a_group),
        CASE(finish_and_retire_end_a_request_once),
        CASE(an_emptied_queue_takes_no_bytes_and_no_old_number),
        CASE(bury_keeps_reason_and_items_and_is_repeatable),
        CASE(a_retry_goes_to_the_end_with_the_rest_of_its_work),
        CASE(a_finished_request_can_still_be_buried),
        CASE(a_buried_outcome_takes_all_who_finished_with_it),
        CASE(dead_letters_are_listed_in_order),
        CASE(attempts_are_remembered_and_forgotten),
        CASE(the_wal_stays_bounded_under_load_with_readers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
