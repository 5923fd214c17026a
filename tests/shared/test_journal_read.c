/* Reading: pages by rows and by bytes, damaged rows, look-ups. */
#include "tests/shared/journal_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNTIL (FIXTURE_NOW + FIXTURE_DAY)

static void
page_of(struct fixture *f, int64_t after, size_t max_rows, size_t max_bytes,
        struct journal_page *page)
{
    assert_int_equal(journal_queue_page(f->dispatcher, SERVICE_CALLBACK, after,
                                        max_rows, max_bytes, page),
                     RC_OK);
}

static void
pages_are_bounded_by_rows(void **state)
{
    struct fixture *f = *state;
    struct journal_page page = {0};

    fixture_accept_many(f, 10);
    page_of(f, 0, 4, 1000, &page);
    assert_int_equal(page.count, 4);
    assert_true(page.more);
    assert_int_equal(page.rows[0].seq, 1);
    assert_int_equal(page.rows[3].seq, 4);
    page_of(f, 4, 6, 1000, &page);
    assert_int_equal(page.count, 6);
    assert_false(page.more);
    assert_int_equal(page.rows[0].seq, 5);
    page_of(f, 10, 6, 1000, &page);
    assert_int_equal(page.count, 0);
    assert_false(page.more);
    journal_page_free(&page);
    assert_null(page.rows);
    journal_page_free(&page);
}

static void
pages_are_bounded_by_bytes_but_hold_a_row(void **state)
{
    struct fixture *f = *state;
    struct journal_page page = {0};

    (void)fixture_accept(f, "aaaa");
    (void)fixture_accept(f, "bbbb");
    (void)fixture_accept(f, "cccc");
    page_of(f, 0, 10, 8, &page);
    assert_int_equal(page.count, 2);
    assert_int_equal(page.buffer_bytes, 8);
    assert_true(page.more);
    page_of(f, 0, 10, 7, &page);
    assert_int_equal(page.count, 1);
    assert_true(page.more);
    page_of(f, 2, 10, 1, &page);
    assert_int_equal(page.count, 1);
    assert_memory_equal(page.rows[0].body, "cccc", 4);
    assert_false(page.more);
    page_of(f, 0, 10, 12, &page);
    assert_int_equal(page.count, 3);
    assert_false(page.more);
    assert_memory_equal(page.rows[2].body, "cccc", 4);
    journal_page_free(&page);
}

static void
bodies_survive_a_growing_buffer(void **state)
{
    struct fixture *f = *state;
    struct journal_request r[200];
    struct journal_page page = {0};
    char bodies[200][600];

    for (size_t i = 0; i < 200; i++) {
        (void)snprintf(bodies[i], sizeof bodies[i], "%0*zu", (int)(i * 2 + 9),
                       i);
        r[i] = fixture_request(f, bodies[i]);
    }
    assert_int_equal(journal_accept(f->edge, r, 200, UNTIL), RC_OK);
    page_of(f, 0, 1000, 1000000, &page);
    assert_int_equal(page.count, 200);
    for (size_t i = 0; i < 200; i++) {
        assert_int_equal(page.rows[i].body_bytes, strlen(bodies[i]));
        assert_memory_equal(page.rows[i].body, bodies[i],
                            page.rows[i].body_bytes);
        assert_int_equal(page.rows[i].received_unix_ms, FIXTURE_NOW);
    }
    journal_page_free(&page);
}

static void
rows_with_an_outcome_are_skipped(void **state)
{
    struct fixture *f = *state;
    struct journal_page page = {0};

    fixture_accept_many(f, 10);
    (void)fixture_finish(f, 2, 3);
    (void)fixture_finish(f, 10, 10);
    page_of(f, 0, 100, 1000, &page);
    assert_int_equal(page.count, 7);
    assert_int_equal(page.rows[0].seq, 1);
    assert_int_equal(page.rows[1].seq, 4);
    assert_int_equal(page.rows[6].seq, 9);
    /* A page full to the row is not said to have more when there is not. */
    page_of(f, 0, 7, 1000, &page);
    assert_int_equal(page.count, 7);
    assert_false(page.more);
    journal_page_free(&page);
}

static void
many_rows_with_an_outcome_before_the_first_without(void **state)
{
    struct fixture *f = *state;
    struct journal_page page = {0};

    for (int i = 0; i < 9; i++) {
        fixture_accept_many(f, 1000);
    }
    fixture_sql(f, "UPDATE queue_callback SET outcome = 1 WHERE seq <= 8998");
    page_of(f, 0, 100, 1000, &page);
    assert_int_equal(page.count, 2);
    assert_int_equal(page.rows[0].seq, 8999);
    assert_false(page.more);
    fixture_sql(f, "UPDATE queue_callback SET outcome = 1");
    page_of(f, 0, 100, 1000, &page);
    assert_int_equal(page.count, 0);
    assert_false(page.more);
    journal_page_free(&page);
}

static void
newest_is_the_last_number_even_of_an_empty_queue(void **state)
{
    struct fixture *f = *state;
    struct journal *reader = fixture_journal(f, JOURNAL_READER);
    int64_t seq = -1;

    assert_int_equal(journal_newest(f->edge, SERVICE_CALLBACK, &seq), RC_OK);
    assert_int_equal(seq, 0);
    fixture_accept_many(f, 3);
    assert_int_equal(journal_newest(reader, SERVICE_CALLBACK, &seq), RC_OK);
    assert_int_equal(seq, 3);
    fixture_sql(f, "DELETE FROM queue_callback");
    assert_int_equal(journal_newest(reader, SERVICE_CALLBACK, &seq), RC_OK);
    assert_int_equal(seq, 3);
    journal_free(&reader);
}

static void
outcomes_come_in_pages_too(void **state)
{
    struct fixture *f = *state;
    struct journal_page page = {0};
    int64_t no[3];

    fixture_accept_many(f, 3);
    for (int i = 0; i < 3; i++) {
        no[i] = fixture_finish(f, i + 1, i + 1);
    }
    assert_true(no[0] < no[1] && no[1] < no[2]);
    assert_int_equal(journal_outcome_page(f->dispatcher, SERVICE_CALLBACK, 0, 2,
                                          1000, &page),
                     RC_OK);
    assert_int_equal(page.count, 2);
    assert_true(page.more);
    assert_int_equal(page.rows[1].seq, no[1]);
    assert_int_equal(page.rows[1].body_bytes, 7);
    assert_memory_equal(page.rows[1].body, "[[1,2]]", 7);
    assert_int_equal(journal_outcome_page(f->dispatcher, SERVICE_CALLBACK,
                                          no[1], 2, 1000, &page),
                     RC_OK);
    assert_int_equal(page.count, 1);
    assert_false(page.more);
    assert_int_equal(
        journal_outcome_page(f->dispatcher, SERVICE_CALLBACK, 0, 10, 8, &page),
        RC_OK);
    assert_int_equal(page.count, 1);
    assert_true(page.more);
    fixture_sql(f, "UPDATE outcome SET body = 'text' WHERE no = 2");
    assert_int_equal(journal_outcome_page(f->dispatcher, SERVICE_CALLBACK, 0,
                                          10, 1000, &page),
                     RC_OK);
    assert_int_equal(page.count, 3);
    assert_false(page.rows[0].broken);
    assert_true(page.rows[1].broken);
    assert_false(page.more);
    journal_page_free(&page);
}

/* ---- damaged rows
 * ------------------------------------------------------------------ */

/* What somebody's hand, or a bug, may have left in the queue. */
static const char damage[] =
    "INSERT INTO queue_callback(id, received, outcome, body) VALUES"
    "('a text of sixteen', 5, NULL, x'5b5d'),"      /* 1: id of a wrong type */
    "(x'0102', 5, NULL, x'5b5d'),"                  /* 2: ... size */
    "(17, 5, NULL, x'5b5d'),"                       /* 3: ... a number */
    "(zeroblob(16), 'never', NULL, x'5b5d'),"       /* 4: received */
    "(randomblob(16), -1, NULL, x'5b5d'),"          /* 5: ... negative */
    "(randomblob(16), 5, 'done', x'5b5d'),"         /* 6: outcome */
    "(randomblob(16), 5, NULL, 'text'),"            /* 7: body */
    "(randomblob(16), 5, NULL, 42),"                /* 8: ... a number */
    "(randomblob(16), 5, NULL, zeroblob(1048577))," /* 9: ... too long */
    "(x'', 1.5, 2.5, 3.5),"                         /* 10: everything */
    "(randomblob(16), 5, NULL, zeroblob(1048576))," /* 11: good, the longest */
    "(randomblob(16), 5, NULL, x'');"               /* 12: good, the shortest */
    "UPDATE counter SET accepted = accepted + 12";

static bool
see_dead(void *arg, const struct journal_entry *entry)
{
    struct journal_entry *seen = arg;

    assert_true(entry->seq >= 1 && entry->seq <= 10);
    seen[entry->seq - 1] = *entry;
    return true;
}

static void
a_damaged_row_is_flagged_and_can_be_buried(void **state)
{
    struct fixture *f = *state;
    struct journal_page page = {0};
    struct journal_entry seen[10];
    struct journal_entry found;

    assert_int_equal(fixture_ledger(f).pending, 0);
    fixture_sql(f, damage);
    page_of(f, 0, 100, 10000000, &page);
    assert_int_equal(page.count, 12);
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    for (size_t i = 0; i < 12; i++) {
        assert_int_equal(page.rows[i].seq, i + 1);
        assert_int_equal(page.rows[i].broken, i < 10);
        assert_non_null(page.rows[i].body);
        if (page.rows[i].broken) {
            assert_int_equal(journal_bury(f->dispatcher, SERVICE_CALLBACK,
                                          page.rows[i].seq, "cannot be read",
                                          NULL, 0, NULL, 0, FIXTURE_NOW),
                             RC_OK);
        }
    }
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    assert_int_equal(fixture_ledger(f).dead, 10);
    assert_int_equal(fixture_ledger(f).pending, 2);
    /* Each has an id by which an operator can name it, and its body. */
    assert_int_equal(journal_dead_each(f->dispatcher, SERVICE_CALLBACK, 0, 100,
                                       see_dead, seen),
                     RC_OK);
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    for (size_t i = 0; i < 10; i++) {
        assert_int_equal(journal_find(f->dispatcher, &seen[i].id, &found),
                         RC_OK);
        assert_int_equal(found.seq, i + 1);
        assert_string_equal(found.reason, "cannot be read");
        assert_true(found.received_unix_ms >= 0);
        assert_int_equal(i % 2 == 0
                             ? journal_dead_drop(f->dispatcher, &seen[i].id)
                             : journal_dead_retry(f->dispatcher, &seen[i].id,
                                                  FIXTURE_NOW, NULL),
                         RC_OK);
    }
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    assert_int_equal(fixture_ledger(f).dead, 0);
    assert_int_equal(fixture_ledger(f).final, 5);
    assert_int_equal(fixture_ledger(f).pending, 7);
    journal_page_free(&page);
}

static void
a_time_beyond_all_dates_is_damage(void **state)
{
    struct fixture *f = *state;
    struct journal_page page = {0};

    assert_int_equal(fixture_ledger(f).pending, 0);
    fixture_sql(f, "INSERT INTO queue_callback(id, received, body) VALUES"
                   "(randomblob(16), 253402300799999, x'5b5d'),"
                   "(randomblob(16), 253402300800000, x'5b5d'),"
                   "(randomblob(16), 9223372036854775807, x'5b5d')");
    page_of(f, 0, 100, 1000, &page);
    assert_int_equal(page.count, 3);
    assert_false(page.rows[0].broken);
    assert_true(page.rows[1].broken);
    assert_true(page.rows[2].broken);
    journal_page_free(&page);
}

/* ---- look-ups
 * ----------------------------------------------------------------------- */

static void
an_id_is_found_where_it_is(void **state)
{
    struct fixture *f = *state;
    struct journal_request r[3];
    struct journal_entry e;
    struct uuid unknown = {{9}};
    int64_t no;

    for (int i = 0; i < 3; i++) {
        r[i] = fixture_request(f, "[1]");
        r[i].received_unix_ms += i;
    }
    assert_int_equal(journal_accept(f->edge, r, 3, UNTIL), RC_OK);
    no = fixture_finish(f, 2, 2);
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(journal_bury(f->dispatcher, SERVICE_CALLBACK, 1, "no luck",
                                  NULL, 0, NULL, 0, FIXTURE_NOW + 9),
                     RC_OK);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);

    assert_int_equal(journal_find(f->edge, &r[0].id, &e), RC_OK);
    assert_int_equal(e.place, JOURNAL_DEAD);
    assert_int_equal(e.seq, 1);
    assert_int_equal(e.dead_unix_ms, FIXTURE_NOW + 9);
    assert_int_equal(e.received_unix_ms, FIXTURE_NOW);
    assert_string_equal(e.reason, "no luck");
    assert_memory_equal(e.id.bytes, r[0].id.bytes, UUID_BYTES);
    assert_int_equal(journal_find(f->edge, &r[1].id, &e), RC_OK);
    assert_int_equal(e.place, JOURNAL_PERSISTING);
    assert_int_equal(e.outcome_no, no);
    assert_int_equal(journal_find(f->edge, &r[2].id, &e), RC_OK);
    assert_int_equal(e.place, JOURNAL_PENDING);
    assert_int_equal(e.outcome_no, 0);
    assert_int_equal(e.ahead, 1);
    assert_int_equal(e.received_unix_ms, FIXTURE_NOW + 2);
    assert_string_equal(e.reason, "");
    assert_int_equal(journal_find(f->edge, &unknown, &e), RC_AGAIN);
}

static void
a_read_leaves_no_transaction_behind(void **state)
{
    struct fixture *f = *state;
    struct journal *reader = fixture_journal(f, JOURNAL_READER);
    struct journal_page page = {0};
    struct journal_ledger ledger[SERVICE_COUNT];
    struct journal_entry e;
    struct uuid id = {{1}};
    int64_t wal = 0;
    int64_t n = 0;

    fixture_accept_many(f, 100);
    assert_int_equal(
        journal_queue_page(reader, SERVICE_CALLBACK, 0, 5, 1000, &page), RC_OK);
    assert_int_equal(
        journal_outcome_page(reader, SERVICE_CALLBACK, 0, 5, 1000, &page),
        RC_OK);
    assert_int_equal(journal_newest(reader, SERVICE_CALLBACK, &n), RC_OK);
    assert_int_equal(journal_find(reader, &id, &e), RC_AGAIN);
    assert_int_equal(journal_ledger(reader, ledger), RC_OK);
    assert_int_equal(journal_used_bytes(reader, &n), RC_OK);
    /* A reader in the way would keep frames from being copied, so that the
     * WAL could not begin anew. */
    fixture_accept_many(f, 100);
    wal = fixture_wal_bytes(f);
    assert_int_equal(journal_checkpoint(f->dispatcher, &n), RC_OK);
    fixture_accept_many(f, 1);
    assert_int_equal(fixture_wal_bytes(f), wal);
    journal_page_free(&page);
    journal_free(&reader);
}

int
main(void)
{
#define CASE(name)                                                             \
    cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        CASE(pages_are_bounded_by_rows),
        CASE(pages_are_bounded_by_bytes_but_hold_a_row),
        CASE(bodies_survive_a_growing_buffer),
        CASE(rows_with_an_outcome_are_skipped),
        CASE(many_rows_with_an_outcome_before_the_first_without),
        CASE(newest_is_the_last_number_even_of_an_empty_queue),
        CASE(outcomes_come_in_pages_too),
        CASE(a_damaged_row_is_flagged_and_can_be_buried),
        CASE(a_time_beyond_all_dates_is_damage),
        CASE(an_id_is_found_where_it_is),
        CASE(a_read_leaves_no_transaction_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
