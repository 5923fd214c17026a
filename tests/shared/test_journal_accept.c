/* Accepting: order, clocks, idempotency keys, bounds. */
#include "tests/shared/journal_fixture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#define UNTIL (FIXTURE_NOW + FIXTURE_DAY)

static void
a_batch_gets_numbers_in_array_order(void **state)
{
    struct fixture *f = *state;
    struct journal_request r[1024];

    for (size_t i = 0; i < 1024; i++) {
        r[i] = fixture_request(f, "[1]");
        /* Neither the id's order nor the clock's decides. */
        r[i].id.bytes[0] = (uint8_t)(255 - i % 256);
        r[i].id.bytes[1] = (uint8_t)(i / 256);
    }
    assert_int_equal(journal_accept(f->edge, r, 1024, UNTIL), RC_OK);
    for (size_t i = 0; i < 1024; i++) {
        assert_int_equal(r[i].verdict, JOURNAL_ACCEPTED);
        assert_int_equal(r[i].seq, i + 1);
    }
    assert_int_equal(fixture_ledger(f).accepted, 1024);
}

static void
a_batch_out_of_bounds_is_refused_whole(void **state)
{
    struct fixture *f = *state;
    struct journal_request *r = calloc(1025, sizeof *r);
    char key[JOURNAL_KEY_BYTES_MAX + 2];

    assert_non_null(r);
    for (size_t i = 0; i < 1025; i++) {
        r[i] = fixture_request(f, "[1]");
    }
    assert_int_equal(journal_accept(f->edge, r, 0, UNTIL), RC_BUG);
    assert_int_equal(journal_accept(f->edge, r, 1025, UNTIL), RC_BUG);
    memset(key, 'k', sizeof key);
    r[1].key = key;
    r[1].key_bytes = JOURNAL_KEY_BYTES_MAX + 1;
    assert_int_equal(journal_accept(f->edge, r, 2, UNTIL), RC_BUG);
    r[1].key_bytes = JOURNAL_KEY_BYTES_MAX;
    assert_int_equal(journal_accept(f->edge, r, 2, UNTIL), RC_OK);
    assert_int_equal(fixture_ledger(f).accepted, 2);
    free(r);
}

static void
a_body_may_be_empty_or_hold_anything(void **state)
{
    struct fixture *f = *state;
    struct journal_request r[2] = {fixture_request(f, ""),
                                   fixture_request(f, "x")};
    struct journal_page page = {0};

    r[0].body = NULL;
    r[1].body = "a\0b\xff";
    r[1].body_bytes = 4;
    assert_int_equal(journal_accept(f->edge, r, 2, UNTIL), RC_OK);
    assert_int_equal(
        journal_queue_page(f->edge, SERVICE_CALLBACK, 0, 10, 1000, &page),
        RC_OK);
    assert_int_equal(page.count, 2);
    assert_false(page.rows[0].broken);
    assert_int_equal(page.rows[0].body_bytes, 0);
    assert_int_equal(page.rows[1].body_bytes, 4);
    assert_memory_equal(page.rows[1].body, "a\0b\xff", 4);
    assert_memory_equal(page.rows[1].id.bytes, r[1].id.bytes, UUID_BYTES);
    journal_page_free(&page);
}

static void
an_id_twice_undoes_the_batch(void **state)
{
    struct fixture *f = *state;
    struct journal_request r[2] = {fixture_request(f, "[1]"),
                                   fixture_request(f, "[2]")};

    r[1].id = r[0].id;
    assert_int_equal(journal_accept(f->edge, r, 2, UNTIL), RC_BUG);
    assert_int_equal(r[0].seq, 0);
    assert_int_equal(fixture_ledger(f).accepted, 0);
    assert_int_equal(fixture_accept(f, "[3]"), 1);
}

static void
received_never_goes_back(void **state)
{
    struct fixture *f = *state;
    struct journal_request r[4];
    struct journal *other = fixture_journal(f, JOURNAL_EDGE);

    for (int i = 0; i < 4; i++) {
        r[i] = fixture_request(f, "[1]");
    }
    r[0].received_unix_ms = FIXTURE_NOW + 500;
    r[1].received_unix_ms = FIXTURE_NOW + 400;
    r[2].received_unix_ms = FIXTURE_NOW + 600;
    assert_int_equal(journal_accept(f->edge, r, 3, UNTIL), RC_OK);
    assert_int_equal(r[0].received_unix_ms, FIXTURE_NOW + 500);
    assert_int_equal(r[1].received_unix_ms, FIXTURE_NOW + 500);
    assert_int_equal(r[2].received_unix_ms, FIXTURE_NOW + 600);
    /* Another process, whose clock is behind. */
    assert_int_equal(journal_accept(other, r + 3, 1, UNTIL), RC_OK);
    assert_int_equal(r[3].received_unix_ms, FIXTURE_NOW + 600);
    assert_int_equal(fixture_ask(f, "SELECT max(received) FROM queue_callback"),
                     FIXTURE_NOW + 600);
    journal_free(&other);
}

static void
received_never_goes_back_in_an_empty_queue(void **state)
{
    struct fixture *f = *state;
    struct journal_request r = fixture_request(f, "[1]");
    int64_t retired = 0;
    int64_t no;

    r.received_unix_ms = FIXTURE_NOW + 1000;
    assert_int_equal(journal_accept(f->edge, &r, 1, UNTIL), RC_OK);
    no = fixture_finish(f, 1, 1);
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(
        journal_retire(f->dispatcher, SERVICE_CALLBACK, no, no, &retired),
        RC_OK);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    assert_int_equal(retired, 1);
    assert_int_equal(fixture_ledger(f).pending, 0);
    r = fixture_request(f, "[1]");
    assert_int_equal(journal_accept(f->edge, &r, 1, UNTIL), RC_OK);
    assert_int_equal(r.received_unix_ms, FIXTURE_NOW + 1000);
    /* And its number was not given out before. */
    assert_int_equal(r.seq, 2);
}

/* ---- idempotency keys
 * ----------------------------------------------------------- */

static void
a_key_replays_the_first_id(void **state)
{
    struct fixture *f = *state;
    struct journal_request first = fixture_keyed(f, "[1]", "route key");
    struct journal_request again = fixture_keyed(f, "[1]", "route key");
    struct journal_request other = fixture_keyed(f, "other", "route key");
    struct journal_request fresh = fixture_keyed(f, "other", "route kez");
    struct uuid id = other.id;

    assert_int_equal(journal_accept(f->edge, &first, 1, UNTIL), RC_OK);
    assert_int_equal(first.verdict, JOURNAL_ACCEPTED);
    assert_int_equal(journal_accept(f->edge, &again, 1, UNTIL), RC_OK);
    assert_int_equal(again.verdict, JOURNAL_REPLAYED);
    assert_memory_equal(again.id.bytes, first.id.bytes, UUID_BYTES);
    assert_int_equal(again.seq, 0);
    assert_int_equal(journal_accept(f->edge, &other, 1, UNTIL), RC_OK);
    assert_int_equal(other.verdict, JOURNAL_MISMATCH);
    assert_memory_equal(other.id.bytes, id.bytes, UUID_BYTES);
    assert_int_equal(journal_accept(f->edge, &fresh, 1, UNTIL), RC_OK);
    assert_int_equal(fresh.verdict, JOURNAL_ACCEPTED);
    assert_int_equal(fixture_ledger(f).accepted, 2);
}

static void
a_key_holds_within_one_batch(void **state)
{
    struct fixture *f = *state;
    struct journal_request r[4] = {
        fixture_keyed(f, "[1]", "k"), fixture_keyed(f, "[1]", "k"),
        fixture_keyed(f, "other", "k"), fixture_request(f, "[1]")};

    assert_int_equal(journal_accept(f->edge, r, 4, UNTIL), RC_OK);
    assert_int_equal(r[0].verdict, JOURNAL_ACCEPTED);
    assert_int_equal(r[1].verdict, JOURNAL_REPLAYED);
    assert_memory_equal(r[1].id.bytes, r[0].id.bytes, UUID_BYTES);
    assert_int_equal(r[2].verdict, JOURNAL_MISMATCH);
    assert_int_equal(r[3].verdict, JOURNAL_ACCEPTED);
    assert_int_equal(r[3].seq, 2);
    assert_int_equal(fixture_ledger(f).accepted, 2);
}

static void
a_key_is_forgotten_when_its_time_is_over(void **state)
{
    struct fixture *f = *state;
    struct journal_request r = fixture_keyed(f, "[1]", "k");
    struct journal_request late = fixture_keyed(f, "other", "k");

    assert_int_equal(journal_accept(f->edge, &r, 1, UNTIL), RC_OK);
    late.received_unix_ms = UNTIL - 1;
    assert_int_equal(journal_accept(f->edge, &late, 1, UNTIL + FIXTURE_DAY),
                     RC_OK);
    assert_int_equal(late.verdict, JOURNAL_MISMATCH);
    late.received_unix_ms = UNTIL;
    assert_int_equal(journal_accept(f->edge, &late, 1, UNTIL + FIXTURE_DAY),
                     RC_OK);
    assert_int_equal(late.verdict, JOURNAL_ACCEPTED);
    assert_int_equal(fixture_ask(f, "SELECT count(*) FROM seen"), 1);
    assert_int_equal(fixture_ask(f, "SELECT sum(key_bytes) FROM counter"),
                     2 + 128);
}

static void
a_key_may_have_a_lifetime_of_its_own(void **state)
{
    struct fixture *f = *state;
    struct journal_request brief = fixture_keyed(f, "[1]", "brief");
    struct journal_request again = fixture_keyed(f, "[1]", "brief");
    int64_t forgotten = 0;

    brief.key_until_unix_ms = FIXTURE_NOW + 1000;
    again.key_until_unix_ms = FIXTURE_NOW + 2000;
    assert_int_equal(journal_accept(f->edge, &brief, 1, UNTIL), RC_OK);
    again.received_unix_ms = FIXTURE_NOW + 999;
    assert_int_equal(journal_accept(f->edge, &again, 1, UNTIL), RC_OK);
    assert_int_equal(again.verdict, JOURNAL_REPLAYED);
    again.received_unix_ms = FIXTURE_NOW + 1000;
    again.id = fixture_request(f, "").id;
    assert_int_equal(journal_accept(f->edge, &again, 1, UNTIL), RC_OK);
    assert_int_equal(again.verdict, JOURNAL_ACCEPTED);
    assert_int_equal(
        journal_expire_keys(f->dispatcher, FIXTURE_NOW + 1999, 9, &forgotten),
        RC_OK);
    assert_int_equal(forgotten, 0);
    assert_int_equal(
        journal_expire_keys(f->dispatcher, FIXTURE_NOW + 2000, 9, &forgotten),
        RC_OK);
    assert_int_equal(forgotten, 1);
}

static void
keys_expire_in_bounded_steps(void **state)
{
    struct fixture *f = *state;
    struct journal_request r[10];
    char keys[10][8];
    int64_t forgotten = 0;

    for (int i = 0; i < 10; i++) {
        keys[i][0] = (char)('a' + i);
        keys[i][1] = '\0';
        r[i] = fixture_keyed(f, "[1]", keys[i]);
    }
    assert_int_equal(journal_accept(f->edge, r, 10, UNTIL), RC_OK);
    assert_int_equal(
        journal_expire_keys(f->dispatcher, UNTIL - 1, 100, &forgotten), RC_OK);
    assert_int_equal(forgotten, 0);
    assert_int_equal(journal_expire_keys(f->dispatcher, UNTIL, 7, &forgotten),
                     RC_OK);
    assert_int_equal(forgotten, 7);
    assert_int_equal(journal_expire_keys(f->dispatcher, UNTIL, 7, &forgotten),
                     RC_OK);
    assert_int_equal(forgotten, 3);
    assert_int_equal(fixture_ask(f, "SELECT sum(key_bytes) FROM counter"), 0);
    assert_int_equal(fixture_ledger(f).accepted, 10);
}

static void
a_damaged_key_is_as_if_never_seen(void **state)
{
    struct fixture *f = *state;
    struct journal_request r = fixture_keyed(f, "[1]", "k");
    struct journal_request again = fixture_keyed(f, "[1]", "k");

    assert_int_equal(journal_accept(f->edge, &r, 1, UNTIL), RC_OK);
    fixture_sql(f, "UPDATE seen SET hash = 'short'");
    assert_int_equal(journal_accept(f->edge, &again, 1, UNTIL), RC_OK);
    assert_int_equal(again.verdict, JOURNAL_ACCEPTED);
}

/* ---- canceling
 * ------------------------------------------------------------------ */

#define CANCELED 5

static enum journal_verdict
cancel(struct fixture *f, const struct uuid *id)
{
    struct journal_request r = {.op = JOURNAL_CANCEL,
                                .state = CANCELED,
                                .service = SERVICE_CALLBACK,
                                .id = *id,
                                .received_unix_ms = FIXTURE_NOW + 9};

    assert_int_equal(journal_accept(f->edge, &r, 1, UNTIL), RC_OK);
    assert_int_equal(r.seq, 0);
    assert_int_equal(r.rank, 0);
    assert_memory_equal(r.id.bytes, id->bytes, UUID_BYTES);
    return r.verdict;
}

static struct uuid
accept_one(struct fixture *f)
{
    struct journal_request r = fixture_request(f, "[1]");

    assert_int_equal(journal_accept(f->edge, &r, 1, UNTIL), RC_OK);
    return r.id;
}

static void
put_state(struct fixture *f, int64_t seq, int state)
{
    const struct journal_progress progress = {
        .state = state, .attempts = 2, .error = "busy"};

    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(
        journal_progress_put(f->dispatcher, SERVICE_CALLBACK, seq, &progress),
        RC_OK);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
}

static void
what_waits_is_canceled_once_and_for_all(void **state)
{
    struct fixture *f = *state;
    struct uuid id = accept_one(f);
    const struct journal_progress begun = {.state = 1};
    struct journal_progress progress;

    assert_int_equal(cancel(f, &id), JOURNAL_CANCELED);
    assert_int_equal(cancel(f, &id), JOURNAL_CANCELED);
    assert_int_equal(
        journal_progress_get(f->dispatcher, SERVICE_CALLBACK, 1, &progress),
        RC_OK);
    assert_int_equal(progress.state, CANCELED);
    assert_int_equal(progress.attempts, 0);
    assert_int_equal(progress.finished_unix_ms, FIXTURE_NOW + 9);
    /* Nobody begins with it any more. */
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(
        journal_progress_begin(f->dispatcher, SERVICE_CALLBACK, 1, &begun),
        RC_AGAIN);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    assert_int_equal(fixture_ledger(f).pending, 1);
}

static void
a_cancel_is_never_before_its_request(void **state)
{
    struct fixture *f = *state;
    struct uuid id;
    struct journal_request r = fixture_request(f, "[1]");

    r.received_unix_ms = FIXTURE_NOW + 500; /* of a clock that is ahead */
    assert_int_equal(journal_accept(f->edge, &r, 1, UNTIL), RC_OK);
    id = r.id;
    assert_int_equal(cancel(f, &id), JOURNAL_CANCELED);
    assert_int_equal(fixture_ask(f, "SELECT finished FROM progress"),
                     FIXTURE_NOW + 500);
}

static void
a_cancel_keeps_what_was_tried_before(void **state)
{
    struct fixture *f = *state;
    struct uuid id = accept_one(f);
    struct journal_progress progress;

    put_state(f, 1, JOURNAL_STATE_WAITING);
    assert_int_equal(cancel(f, &id), JOURNAL_CANCELED);
    assert_int_equal(
        journal_progress_get(f->dispatcher, SERVICE_CALLBACK, 1, &progress),
        RC_OK);
    assert_int_equal(progress.state, CANCELED);
    assert_int_equal(progress.attempts, 2);
    assert_string_equal(progress.error, "busy");
}

static void
what_was_begun_is_beyond_canceling(void **state)
{
    struct fixture *f = *state;
    struct uuid id = accept_one(f);

    put_state(f, 1, 1);
    assert_int_equal(cancel(f, &id), JOURNAL_LATE);
    assert_int_equal(fixture_ask(f, "SELECT state FROM progress"), 1);
    put_state(f, 1, JOURNAL_STATE_WAITING); /* it went back */
    assert_int_equal(cancel(f, &id), JOURNAL_CANCELED);
}

static void
what_has_finished_is_beyond_canceling_or_gone(void **state)
{
    struct fixture *f = *state;
    struct uuid id = accept_one(f);
    struct uuid canceled = accept_one(f);
    int64_t retired = 0;
    int64_t no;

    assert_int_equal(cancel(f, &canceled), JOURNAL_CANCELED);
    no = fixture_finish(f, 1, 2);
    assert_int_equal(cancel(f, &id), JOURNAL_LATE);
    assert_int_equal(cancel(f, &canceled), JOURNAL_CANCELED);
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(
        journal_retire(f->dispatcher, SERVICE_CALLBACK, no, no, &retired),
        RC_OK);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    assert_int_equal(retired, 2);
    assert_int_equal(cancel(f, &id), JOURNAL_ABSENT);
    assert_int_equal(cancel(f, &canceled), JOURNAL_ABSENT);
    assert_int_equal(fixture_ledger(f).final, 2);
}

static void
what_is_dead_unknown_or_another_services_is_absent(void **state)
{
    struct fixture *f = *state;
    struct uuid id = accept_one(f);
    struct uuid unknown = fixture_request(f, "").id;
    struct journal_request r = {.op = JOURNAL_CANCEL,
                                .state = CANCELED,
                                .service = SERVICE_CALL,
                                .id = id,
                                .received_unix_ms = FIXTURE_NOW};

    assert_int_equal(cancel(f, &unknown), JOURNAL_ABSENT);
    assert_int_equal(journal_accept(f->edge, &r, 1, UNTIL), RC_OK);
    assert_int_equal(r.verdict, JOURNAL_ABSENT);
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(journal_bury(f->dispatcher, SERVICE_CALLBACK, 1, "x", NULL,
                                  0, NULL, 0, FIXTURE_NOW),
                     RC_OK);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    assert_int_equal(cancel(f, &id), JOURNAL_ABSENT);
    assert_int_equal(fixture_ask(f, "SELECT count(*) FROM progress"), 0);
}

static void
a_batch_may_cancel_what_it_adds(void **state)
{
    struct fixture *f = *state;
    struct journal_request r[3] = {fixture_request(f, "[1]"),
                                   {.op = JOURNAL_CANCEL,
                                    .state = CANCELED,
                                    .service = SERVICE_CALLBACK,
                                    .received_unix_ms = FIXTURE_NOW},
                                   fixture_request(f, "[2]")};

    r[1].id = r[0].id;
    assert_int_equal(journal_accept(f->edge, r, 3, UNTIL), RC_OK);
    assert_int_equal(r[0].verdict, JOURNAL_ACCEPTED);
    assert_int_equal(r[1].verdict, JOURNAL_CANCELED);
    assert_int_equal(r[2].verdict, JOURNAL_ACCEPTED);
    assert_int_equal(fixture_ledger(f).accepted, 2);
}

/* ---- rank
 * ---------------------------------------------------------------------- */

static int64_t
rank(struct fixture *f)
{
    struct journal_request r = fixture_request(f, "[1]");

    assert_int_equal(journal_accept(f->edge, &r, 1, UNTIL), RC_OK);
    return r.rank;
}

static void
without_progress_the_rank_counts_what_is_pending(void **state)
{
    struct fixture *f = *state;
    struct journal_request r[3] = {fixture_request(f, "[1]"),
                                   fixture_request(f, "[1]"),
                                   fixture_request(f, "[1]")};
    int64_t retired = 0;
    int64_t no;

    r[1].service = SERVICE_CALL;
    assert_int_equal(journal_accept(f->edge, r, 3, UNTIL), RC_OK);
    assert_int_equal(r[0].rank, 1);
    assert_int_equal(r[1].rank, 1); /* each service has its own */
    assert_int_equal(r[2].rank, 2);
    assert_int_equal(rank(f), 3);
    no = fixture_finish(f, 1, 2);
    assert_int_equal(rank(f), 4);
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(
        journal_retire(f->dispatcher, SERVICE_CALLBACK, no, no, &retired),
        RC_OK);
    assert_int_equal(journal_bury(f->dispatcher, SERVICE_CALLBACK, 3, "x", NULL,
                                  0, NULL, 0, FIXTURE_NOW),
                     RC_OK);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    assert_int_equal(rank(f), 2);
}

static void
with_progress_the_rank_counts_what_waits(void **state)
{
    struct fixture *f = *state;
    struct uuid id = accept_one(f);

    (void)accept_one(f);
    (void)accept_one(f);
    put_state(f, 2, 1);
    assert_int_equal(rank(f), 3);
    assert_int_equal(cancel(f, &id), JOURNAL_CANCELED);
    assert_int_equal(rank(f), 3);
    put_state(f, 2, JOURNAL_STATE_WAITING);
    assert_int_equal(rank(f), 5);
}

static void
what_is_not_added_has_no_rank(void **state)
{
    struct fixture *f = *state;
    struct journal_request first = fixture_keyed(f, "[1]", "k");
    struct journal_request r[3] = {fixture_keyed(f, "[1]", "k"),
                                   fixture_keyed(f, "other", "k"),
                                   fixture_request(f, "[1]")};

    assert_int_equal(journal_accept(f->edge, &first, 1, UNTIL), RC_OK);
    assert_int_equal(journal_accept(f->edge, r, 3, UNTIL), RC_OK);
    assert_int_equal(r[0].verdict, JOURNAL_REPLAYED);
    assert_int_equal(r[0].rank, 0);
    assert_int_equal(r[1].verdict, JOURNAL_MISMATCH);
    assert_int_equal(r[1].rank, 0);
    assert_int_equal(r[2].rank, 2);
}

/* ---- bounds
 * ---------------------------------------------------------------------- */

/* Fill a service's queue until nothing more is taken. How many were. */
static int64_t
fill(struct fixture *f, enum service service, const char *body)
{
    struct journal_request r;
    int64_t accepted = 0;
    int64_t wal = 0;

    for (;;) {
        r = fixture_request(f, body);
        r.service = service;
        enum rc rc = journal_accept(f->edge, &r, 1, UNTIL);

        if (rc == RC_FULL || (rc == RC_OK && r.verdict == JOURNAL_REFUSED)) {
            assert_int_equal(r.seq, 0);
            return accepted;
        }
        assert_int_equal(rc, RC_OK);
        accepted++;
        if (accepted % 16 == 0) {
            assert_int_equal(journal_checkpoint(f->dispatcher, &wal), RC_OK);
        }
    }
}

static void
small(struct fixture *f, int64_t max_bytes)
{
    journal_free(&f->edge);
    journal_free(&f->dispatcher);
    f->options.max_bytes = max_bytes;
    f->edge = fixture_journal(f, JOURNAL_EDGE);
    f->dispatcher = fixture_journal(f, JOURNAL_DISPATCHER);
}

static void
max_bytes_is_a_bound_and_retiring_makes_room(void **state)
{
    struct fixture *f = *state;
    char body[2001];
    int64_t retired = 0;
    int64_t accepted;
    int64_t used = 0;
    int64_t no;

    small(f, 1024 * 1024);
    memset(body, '1', sizeof body - 1);
    body[sizeof body - 1] = '\0';
    accepted = fill(f, SERVICE_CALLBACK, body);
    for (unsigned s = SERVICE_CALLBACK + 1; s < SERVICE_COUNT; s++) {
        (void)fill(f, (enum service)s, body);
    }
    assert_true(accepted >
                400 / SERVICE_COUNT); /* of 2 KB: it is used, not guarded */
    assert_int_equal(journal_used_bytes(f->dispatcher, &used), RC_OK);
    assert_true(used <= 1024 * 1024);
    assert_true(used > 700 * 1024);
    assert_int_equal(fixture_ledger(f).accepted, accepted);
    /* The dispatcher works on while it is full. */
    no = fixture_finish(f, 1, accepted / 2);
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(
        journal_retire(f->dispatcher, SERVICE_CALLBACK, no, no, &retired),
        RC_OK);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    assert_int_equal(retired, accepted / 2);
    assert_int_equal(journal_checkpoint(f->dispatcher, &used), RC_OK);
    assert_true(used <= 1024 * 1024 / 16); /* cut */
    assert_true(fill(f, SERVICE_CALLBACK, body) > 200 / SERVICE_COUNT);
    assert_int_equal(fixture_ledger(f).final, accepted / 2);
}

static void
a_service_that_spent_its_share_is_refused(void **state)
{
    struct fixture *f = *state;
    struct journal_request r[2] = {fixture_request(f, "[1]"),
                                   fixture_request(f, "[1]")};
    char sql[80];

    small(f, 1000000 * 2);
    (void)fixture_accept(f, "[1]");
    /* A tenth is the keys', the rest is shared by the services; one row (3
     * bytes and 96) fits exactly. */
    (void)snprintf(sql, sizeof sql, "UPDATE counter SET bytes = %d - 99",
                   1800000 / SERVICE_COUNT);
    fixture_sql(f, sql);
    assert_int_equal(journal_accept(f->edge, r, 2, UNTIL), RC_OK);
    assert_int_equal(r[0].verdict, JOURNAL_ACCEPTED);
    assert_int_equal(r[1].verdict, JOURNAL_REFUSED);
    assert_int_equal(r[1].seq, 0);
    assert_int_equal(fixture_ledger(f).accepted, 2);
}

static void
spent_keys_refuse_only_requests_with_a_key(void **state)
{
    struct fixture *f = *state;
    struct journal_request seen = fixture_keyed(f, "[1]", "seen");
    struct journal_request r[4] = {
        fixture_keyed(f, "[1]", "new"), fixture_request(f, "[1]"),
        fixture_keyed(f, "[1]", "seen"), fixture_keyed(f, "other", "seen")};
    int64_t forgotten = 0;

    assert_int_equal(journal_accept(f->edge, &seen, 1, UNTIL), RC_OK);
    fixture_sql(f, "UPDATE counter SET key_bytes = key_bytes + 107374182");
    assert_int_equal(journal_accept(f->edge, r, 4, UNTIL), RC_OK);
    assert_int_equal(r[0].verdict, JOURNAL_REFUSED);
    assert_int_equal(r[1].verdict, JOURNAL_ACCEPTED);
    assert_int_equal(r[2].verdict, JOURNAL_REPLAYED);
    assert_int_equal(r[3].verdict, JOURNAL_MISMATCH);
    assert_int_equal(fixture_ask(f, "SELECT count(*) FROM seen"), 1);
    fixture_sql(f, "UPDATE counter SET key_bytes = key_bytes - 107374182");
    assert_int_equal(journal_expire_keys(f->dispatcher, UNTIL, 10, &forgotten),
                     RC_OK);
    assert_int_equal(journal_accept(f->edge, r, 1, UNTIL), RC_OK);
    assert_int_equal(r[0].verdict, JOURNAL_ACCEPTED);
}

static void
below_the_reserve_of_free_disk_handlers_stop(void **state)
{
    struct fixture *f = *state;
    struct journal_request r = fixture_request(f, "[1]");
    struct journal *edge;
    struct journal_options options = f->options;
    struct statvfs fs;

    (void)fixture_accept(f, "[1]");
    assert_int_equal(statvfs(f->dir, &fs), 0);
    options.role = JOURNAL_EDGE;
    options.reserve_bytes = (int64_t)(fs.f_blocks * fs.f_frsize) + 1;
    assert_int_equal(journal_new(&edge, &options), RC_OK);
    assert_int_equal(journal_accept(edge, &r, 1, UNTIL), RC_FULL);
    assert_non_null(strstr(journal_error(edge), "reserve"));
    journal_free(&edge);
    /* It is kept for the dispatcher. */
    f->options.reserve_bytes = options.reserve_bytes;
    journal_free(&f->dispatcher);
    f->dispatcher = fixture_journal(f, JOURNAL_DISPATCHER);
    assert_true(fixture_finish(f, 1, 1) > 0);
    assert_int_equal(fixture_ledger(f).accepted, 1);
}

static void
the_wal_stays_bounded_without_a_dispatcher(void **state)
{
    struct fixture *f = *state;
    int64_t most = 0;

    small(f, 16 * 1024 * 1024); /* checkpoints when above 2 MiB */
    for (int i = 0; i < 400; i++) {
        fixture_accept_many(f, 64);
        if (fixture_wal_bytes(f) > most) {
            most = fixture_wal_bytes(f);
        }
    }
    assert_true(most > 1024 * 1024);
    assert_true(most < 3 * 1024 * 1024);
    assert_int_equal(fixture_ledger(f).accepted, 400 * 64);
}

int
main(void)
{
#define CASE(name)                                                             \
    cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        CASE(a_batch_gets_numbers_in_array_order),
        CASE(a_batch_out_of_bounds_is_refused_whole),
        CASE(a_body_may_be_empty_or_hold_anything),
        CASE(an_id_twice_undoes_the_batch),
        CASE(received_never_goes_back),
        CASE(received_never_goes_back_in_an_empty_queue),
        CASE(a_key_replays_the_first_id),
        CASE(a_key_holds_within_one_batch),
        CASE(a_key_is_forgotten_when_its_time_is_over),
        CASE(a_key_may_have_a_lifetime_of_its_own),
        CASE(keys_expire_in_bounded_steps),
        CASE(a_damaged_key_is_as_if_never_seen),
        CASE(what_waits_is_canceled_once_and_for_all),
        CASE(a_cancel_is_never_before_its_request),
        CASE(a_cancel_keeps_what_was_tried_before),
        CASE(what_was_begun_is_beyond_canceling),
        CASE(what_has_finished_is_beyond_canceling_or_gone),
        CASE(what_is_dead_unknown_or_another_services_is_absent),
        CASE(a_batch_may_cancel_what_it_adds),
        CASE(without_progress_the_rank_counts_what_is_pending),
        CASE(with_progress_the_rank_counts_what_waits),
        CASE(what_is_not_added_has_no_rank),
        CASE(max_bytes_is_a_bound_and_retiring_makes_room),
        CASE(a_service_that_spent_its_share_is_refused),
        CASE(spent_keys_refuse_only_requests_with_a_key),
        CASE(below_the_reserve_of_free_disk_handlers_stop),
        CASE(the_wal_stays_bounded_without_a_dispatcher),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
