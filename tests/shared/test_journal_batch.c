/* Batches in the journal, and what becomes of their dead letters. The ledger
 * must balance after whatever is done. */
#include "tests/shared/journal_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/journal_batch.h"

#define MESSAGES 2048
#define BODY "[{\"request\":1}]"

struct world {
    struct fixture *f;
    struct journal *j;
    struct uuid ids[MESSAGES]; /* of messages, by number from 1 */
    int numbers;               /* given out */
};

static int
world_new(void **state)
{
    struct world *w = calloc(1, sizeof *w);

    assert_non_null(w);
    assert_int_equal(fixture_setup((void **)&w->f), 0);
    w->j = w->f->dispatcher;
    *state = w;
    return 0;
}

static int
world_free(void **state)
{
    struct world *w = *state;

    assert_int_equal(fixture_teardown((void **)&w->f), 0);
    free(w);
    return 0;
}

static struct journal_ledger
ledger_of(struct world *w)
{
    struct journal_ledger ledger[SERVICE_COUNT];

    assert_int_equal(journal_ledger(w->j, ledger), RC_OK);
    for (unsigned s = 0; s < SERVICE_COUNT; s++) {
        assert_true(ledger[s].balanced);
    }
    return ledger[SERVICE_SMS];
}

static void
assert_ledger(struct world *w, int64_t pending, int64_t dead, int64_t final)
{
    struct journal_ledger ledger = ledger_of(w);

    assert_int_equal(ledger.pending, pending);
    assert_int_equal(ledger.dead, dead);
    assert_int_equal(ledger.final, final);
    /* bytes: what the rows take, estimated, to the byte */
    if (pending + dead == 0) {
        assert_int_equal(ledger.queue_bytes, 0);
    }
}

static void
begin(struct world *w)
{
    assert_int_equal(journal_begin(w->j), RC_OK);
}

static void
commit(struct world *w)
{
    assert_int_equal(journal_commit(w->j), RC_OK);
    (void)ledger_of(w);
}

static void
accept(struct world *w, int count)
{
    for (int i = 0; i < count; i++) {
        char body[32];
        struct journal_request r;

        (void)snprintf(body, sizeof body, "+4917612345 text %d", ++w->numbers);
        r = fixture_request(w->f, body);
        r.service = SERVICE_SMS;
        assert_int_equal(
            journal_accept(w->f->edge, &r, 1, FIXTURE_NOW + FIXTURE_DAY),
            RC_OK);
        assert_int_equal(r.verdict, JOURNAL_ACCEPTED);
        assert_true(w->numbers < MESSAGES);
        w->ids[w->numbers] = r.id;
    }
}

static struct uuid
batch_id(int no)
{
    struct uuid id = {.bytes = {0xba, (uint8_t)no, (uint8_t)(no >> 8), 0x7c}};

    return id;
}

static enum rc
try_make(struct world *w, int no, int from, int to)
{
    const struct journal_batch batch = {
        .id = batch_id(no), .size = to - from + 1, .started_unix_ms = 1};

    return journal_batch_make(w->j, &batch, &w->ids[from],
                              (size_t)(to - from + 1));
}

/* Batch no of the messages from..to, in a group of its own. */
static void
make(struct world *w, int no, int from, int to)
{
    begin(w);
    assert_int_equal(try_make(w, no, from, to), RC_OK);
    commit(w);
}

/* Its place there, or -1: it is in none. */
static int64_t
place_in(struct world *w, int message, int no)
{
    struct journal_batch batch;
    struct uuid id = batch_id(no);
    int64_t place = -9;
    enum rc rc = journal_batch_of(w->j, &w->ids[message], &batch, &place);

    assert_true(rc == RC_OK || rc == RC_AGAIN);
    if (rc == RC_OK) {
        assert_memory_equal(&batch.id, &id, sizeof id);
    }
    return rc == RC_OK ? place : -1;
}

static bool
find(struct world *w, int no, struct journal_batch *out)
{
    struct uuid id = batch_id(no);
    enum rc rc = journal_batch_find(w->j, &id, out);

    assert_true(rc == RC_OK || rc == RC_AGAIN);
    return rc == RC_OK;
}

static struct journal_batch
batch_of(struct world *w, int no)
{
    struct journal_batch batch;

    assert_true(find(w, no, &batch));
    return batch;
}

static int64_t
batches(struct world *w)
{
    int64_t count = -1;

    assert_int_equal(journal_batch_count(w->j, &count), RC_OK);
    return count;
}

static struct journal_entry
located(struct world *w, int message)
{
    struct journal_entry entry;

    memset(&entry, 0x5a, sizeof entry);
    assert_int_equal(
        journal_locate(w->j, SERVICE_SMS, &w->ids[message], &entry), RC_OK);
    assert_memory_equal(&entry.id, &w->ids[message], UUID_BYTES);
    assert_int_equal(entry.service, SERVICE_SMS);
    return entry;
}

static void
bury(struct world *w, int from, int to)
{
    for (int i = from; i <= to; i++) {
        int64_t seq = located(w, i).seq;

        begin(w);
        assert_int_equal(journal_bury(w->j, SERVICE_SMS, seq, "HTTP 500", NULL,
                                      0, NULL, 0, FIXTURE_NOW),
                         RC_OK);
        commit(w);
    }
}

/* As when batch no, of from..to, is given up: with its body. */
static void
give_up(struct world *w, int no, int from, int to)
{
    struct text body = {0};
    struct journal_batch batch = {.id = batch_id(no),
                                  .size = to - from + 1,
                                  .attempts = 5,
                                  .error = "HTTP 500"};

    text_puts(&body, BODY);
    begin(w);
    assert_int_equal(journal_batch_note(w->j, &batch, &body), RC_OK);
    commit(w);
    text_free(&body);
    bury(w, from, to);
}

/* Retry one: *retried dead letters go back. */
static enum rc
retry_count(struct world *w, int message, int64_t *retried)
{
    int64_t dead = ledger_of(w).dead;
    enum rc rc;

    *retried = -7;
    begin(w);
    rc =
        journal_dead_retry(w->j, &w->ids[message], FIXTURE_NOW + 5000, retried);
    commit(w);
    assert_int_equal(dead - ledger_of(w).dead, *retried);
    return rc;
}

static enum rc
retry(struct world *w, int message)
{
    int64_t retried;

    return retry_count(w, message, &retried);
}

static enum rc
drop(struct world *w, int message)
{
    enum rc rc;

    begin(w);
    rc = journal_dead_drop(w->j, &w->ids[message]);
    commit(w);
    return rc;
}

static void
leave(struct world *w, int message)
{
    begin(w);
    assert_int_equal(journal_batch_leave(w->j, &w->ids[message]), RC_OK);
    commit(w);
}

static void
delete_batch(struct world *w, int no)
{
    struct uuid id = batch_id(no);

    begin(w);
    assert_int_equal(journal_batch_delete(w->j, &id), RC_OK);
    commit(w);
}

/* The messages in the queue, in order of seq, are these. */
static void
assert_queue(struct world *w, const int *messages, size_t count)
{
    struct journal_page page = {0};

    assert_int_equal(
        journal_queue_page(w->j, SERVICE_SMS, 0, MESSAGES, 1 << 20, &page),
        RC_OK);
    assert_int_equal(page.count, count);
    for (size_t i = 0; i < count; i++) {
        char body[32];

        (void)snprintf(body, sizeof body, "+4917612345 text %d", messages[i]);
        assert_memory_equal(&page.rows[i].id, &w->ids[messages[i]], UUID_BYTES);
        assert_int_equal(page.rows[i].body_bytes, strlen(body));
        assert_memory_equal(page.rows[i].body, body, strlen(body));
    }
    journal_page_free(&page);
}

/* ---- made, noted, deleted ---------------------------------------------------
 */

static void
a_batch_has_its_members_in_order(void **state)
{
    struct world *w = *state;
    struct journal_batch batch;

    accept(w, 3);
    assert_int_equal(batches(w), 0);
    make(w, 1, 1, 3);
    assert_int_equal(batches(w), 1);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(place_in(w, i, 1), i - 1);
    }
    batch = batch_of(w, 1);
    assert_int_equal(batch.size, 3);
    assert_int_equal(batch.waiting, 3);
    assert_int_equal(batch.attempts, 0);
    assert_int_equal(batch.failures, 0);
    assert_int_equal(batch.started_unix_ms, 1);
    assert_string_equal(batch.error, "");
    assert_ledger(w, 3, 0, 0);
}

static void
what_is_not_there_is_not_found_and_the_outputs_are_empty(void **state)
{
    struct world *w = *state;
    struct journal_batch batch = {.size = 7};
    struct text body = {0};
    struct uuid id = batch_id(1);
    int64_t place = 5;

    accept(w, 1);
    assert_int_equal(journal_batch_of(w->j, &w->ids[1], &batch, &place),
                     RC_AGAIN);
    assert_int_equal(batch.size, 0);
    assert_int_equal(place, 0);
    batch.size = 7;
    assert_int_equal(journal_batch_find(w->j, &id, &batch), RC_AGAIN);
    assert_int_equal(batch.size, 0);
    assert_int_equal(journal_batch_body(w->j, &id, &body), RC_AGAIN);
    assert_int_equal(body.bytes, 0);
    begin(w);
    batch = (struct journal_batch){.id = id, .size = 1};
    assert_int_equal(journal_batch_note(w->j, &batch, NULL), RC_AGAIN);
    assert_int_equal(journal_batch_delete(w->j, &id), RC_OK);
    assert_int_equal(journal_batch_leave(w->j, &w->ids[1]), RC_OK);
    commit(w);
    text_free(&body);
    assert_int_equal(batches(w), 0);
    assert_ledger(w, 1, 0, 0);
}

static void
the_largest_batch_comes_back_whole(void **state)
{
    struct world *w = *state;
    static int all[JOURNAL_BATCH_MAX];

    accept(w, JOURNAL_BATCH_MAX);
    make(w, 1, 1, JOURNAL_BATCH_MAX);
    assert_int_equal(batch_of(w, 1).waiting, JOURNAL_BATCH_MAX);
    assert_int_equal(place_in(w, JOURNAL_BATCH_MAX, 1), JOURNAL_BATCH_MAX - 1);
    give_up(w, 1, 1, JOURNAL_BATCH_MAX);
    assert_int_equal(batch_of(w, 1).waiting, 0);
    assert_int_equal(retry(w, 500), RC_OK);
    for (int i = 0; i < JOURNAL_BATCH_MAX; i++) {
        all[i] = i + 1;
    }
    assert_queue(w, all, JOURNAL_BATCH_MAX);
    assert_ledger(w, JOURNAL_BATCH_MAX, 0, 0);
}

static void
a_message_is_in_one_batch_at_most(void **state)
{
    struct world *w = *state;

    accept(w, 4);
    make(w, 1, 1, 3);
    begin(w);
    assert_int_equal(try_make(w, 2, 3, 4), RC_BUG);
    journal_rollback(w->j);
    assert_int_equal(batches(w), 1);
    assert_int_equal(place_in(w, 3, 1), 2);
    assert_int_equal(place_in(w, 4, 2), -1);
    begin(w);
    assert_int_equal(try_make(w, 1, 4, 4), RC_BUG); /* nor one id twice */
    journal_rollback(w->j);
    assert_int_equal(place_in(w, 4, 1), -1);
    assert_ledger(w, 4, 0, 0);
}

static void
an_undone_group_leaves_no_batch(void **state)
{
    struct world *w = *state;

    accept(w, 2);
    begin(w);
    assert_int_equal(try_make(w, 1, 1, 2), RC_OK);
    journal_rollback(w->j);
    assert_int_equal(batches(w), 0);
    assert_int_equal(place_in(w, 1, 1), -1);
    make(w, 1, 1, 2);
    assert_int_equal(batches(w), 1);
}

static void
a_note_changes_what_it_says_and_keeps_the_body(void **state)
{
    struct world *w = *state;
    struct journal_batch note = {.id = batch_id(1),
                                 .size = 2,
                                 .attempts = 7,
                                 .failures = 2,
                                 .started_unix_ms = 99,
                                 .error = "HTTP 503"};
    struct journal_batch batch;
    struct text body = {0};
    struct text got = {0};

    accept(w, 4);
    make(w, 1, 1, 2);
    make(w, 2, 3, 4);
    begin(w);
    assert_int_equal(journal_batch_note(w->j, &note, NULL), RC_OK);
    commit(w);
    batch = batch_of(w, 1);
    assert_int_equal(batch.size, 2);
    assert_int_equal(batch.attempts, 7);
    assert_int_equal(batch.failures, 2);
    assert_int_equal(batch.started_unix_ms, 99);
    assert_string_equal(batch.error, "HTTP 503");
    assert_int_equal(batch.waiting, 2);
    assert_int_equal(batch_of(w, 2).attempts, 0);
    assert_int_equal(journal_batch_body(w->j, &note.id, &got), RC_AGAIN);
    text_append(&body, "a\0b", 3);
    begin(w);
    assert_int_equal(journal_batch_note(w->j, &note, &body), RC_OK);
    assert_int_equal(journal_batch_note(w->j, &note, NULL), RC_OK);
    commit(w);
    text_puts(&got, "before");
    assert_int_equal(journal_batch_body(w->j, &note.id, &got), RC_OK);
    assert_int_equal(got.bytes, 9);
    assert_memory_equal(text_cstr(&got), "beforea\0b", 9);
    text_free(&body);
    text_free(&got);
}

static void
a_deleted_batch_lets_its_messages_go_into_others(void **state)
{
    struct world *w = *state;

    accept(w, 4);
    make(w, 1, 1, 4);
    begin(w); /* a split is one group */
    {
        struct uuid id = batch_id(1);

        assert_int_equal(journal_batch_delete(w->j, &id), RC_OK);
    }
    assert_int_equal(try_make(w, 2, 1, 2), RC_OK);
    assert_int_equal(try_make(w, 3, 3, 4), RC_OK);
    commit(w);
    assert_int_equal(batches(w), 2);
    assert_int_equal(place_in(w, 2, 2), 1);
    assert_int_equal(place_in(w, 3, 3), 0);
    assert_false(find(w, 1, &(struct journal_batch){0}));
    assert_ledger(w, 4, 0, 0);
}

static void
who_leaves_is_in_none_and_the_last_one_takes_the_batch_along(void **state)
{
    struct world *w = *state;

    accept(w, 3);
    make(w, 1, 1, 3);
    leave(w, 2);
    assert_int_equal(place_in(w, 1, 1), 0);
    assert_int_equal(place_in(w, 2, 1), -1);
    assert_int_equal(place_in(w, 3, 1), 2); /* places stay */
    assert_int_equal(batch_of(w, 1).size, 3);
    assert_int_equal(batch_of(w, 1).waiting, 2);
    leave(w, 2);
    leave(w, 1);
    assert_int_equal(batches(w), 1);
    leave(w, 3);
    assert_int_equal(batches(w), 0);
    assert_ledger(w, 3, 0, 0);
}

static void
waiting_counts_what_is_in_the_queue_without_an_outcome(void **state)
{
    struct world *w = *state;
    int64_t no = 0;
    int64_t retired = 0;

    accept(w, 4);
    make(w, 1, 1, 4);
    bury(w, 1, 1);
    assert_int_equal(batch_of(w, 1).waiting, 3);
    begin(w);
    assert_int_equal(journal_outcome_add(w->j, SERVICE_SMS, "x", 1, &no),
                     RC_OK);
    assert_int_equal(journal_finish(w->j, SERVICE_SMS, 2, no), RC_OK);
    commit(w);
    assert_int_equal(batch_of(w, 1).waiting, 2);
    begin(w);
    assert_int_equal(journal_retire(w->j, SERVICE_SMS, no, no, &retired),
                     RC_OK);
    commit(w);
    assert_int_equal(retired, 1);
    assert_int_equal(batch_of(w, 1).waiting, 2);
    assert_int_equal(retry(w, 1), RC_OK);
    assert_int_equal(batch_of(w, 1).waiting, 3);
    assert_ledger(w, 3, 0, 1);
}

static void
outside_a_group_nothing_changes(void **state)
{
    struct world *w = *state;
    struct journal_batch batch = {.id = batch_id(1), .size = 1};
    struct journal_row row;
    struct text body = {0};
    int64_t retried;

    accept(w, 1);
    assert_int_equal(batches(w), 0); /* it is open */
    assert_int_equal(journal_batch_make(w->j, &batch, &w->ids[1], 1), RC_IO);
    assert_int_equal(journal_batch_note(w->j, &batch, NULL), RC_IO);
    assert_int_equal(journal_batch_delete(w->j, &batch.id), RC_IO);
    assert_int_equal(journal_batch_leave(w->j, &w->ids[1]), RC_IO);
    assert_int_equal(
        journal_batch_reported(w->j, &w->ids[1], FIXTURE_NOW, &row, &body),
        RC_IO);
    retried = 7;
    assert_int_equal(
        journal_dead_retry(w->j, &w->ids[1], FIXTURE_NOW, &retried), RC_IO);
    assert_int_equal(retried, 0);
    assert_int_equal(journal_dead_drop(w->j, &w->ids[1]), RC_IO);
    assert_int_equal(batches(w), 0);
}

/* The same where nothing has opened the file: no statement is there. */
static void
outside_a_group_nothing_changes_before_the_first_use_either(void **state)
{
    struct world *w = *state;
    struct journal_batch batch = {.id = batch_id(1), .size = 1};
    const struct uuid id = batch_id(2);
    struct journal_row row;
    struct text body = {0};

    assert_int_equal(journal_batch_make(w->j, &batch, &id, 1), RC_IO);
    assert_int_equal(journal_batch_note(w->j, &batch, NULL), RC_IO);
    assert_int_equal(journal_batch_delete(w->j, &batch.id), RC_IO);
    assert_int_equal(journal_batch_leave(w->j, &id), RC_IO);
    assert_int_equal(
        journal_batch_reported(w->j, &id, FIXTURE_NOW, &row, &body), RC_IO);
    assert_int_equal(journal_dead_retry(w->j, &id, FIXTURE_NOW, NULL), RC_IO);
}

static void
readers_read_and_without_a_file_have_nothing(void **state)
{
    struct world *w = *state;
    struct journal *reader = fixture_journal(w->f, JOURNAL_READER);
    struct uuid id = batch_id(1);
    struct journal_batch batch = {.size = 3};
    struct journal_entry entry;
    struct text body = {0};
    int64_t place = 3;
    int64_t count = 3;

    assert_int_equal(journal_batch_count(reader, &count), RC_AGAIN);
    assert_int_equal(count, 0);
    assert_int_equal(journal_batch_of(reader, &id, &batch, &place), RC_AGAIN);
    assert_int_equal(batch.size, 0);
    assert_int_equal(journal_batch_find(reader, &id, &batch), RC_AGAIN);
    assert_int_equal(journal_batch_body(reader, &id, &body), RC_AGAIN);
    assert_int_equal(journal_locate(reader, SERVICE_SMS, &id, &entry),
                     RC_AGAIN);
    accept(w, 2);
    make(w, 1, 1, 2);
    assert_int_equal(journal_batch_count(reader, &count), RC_OK);
    assert_int_equal(count, 1);
    assert_int_equal(journal_batch_of(reader, &w->ids[2], &batch, &place),
                     RC_OK);
    assert_int_equal(place, 1);
    assert_int_equal(batch.waiting, 2);
    journal_free(&reader);
    text_free(&body);
}

/* ---- retry and drop ---------------------------------------------------------
 */

static void
a_retry_of_one_puts_all_of_its_batch_back_in_order(void **state)
{
    static const int back[] = {6, 2, 3, 4, 5};
    struct world *w = *state;
    struct text body = {0};
    struct uuid id = batch_id(1);
    int64_t retried;

    accept(w, 6); /* the first is another one, dead and in no batch */
    make(w, 1, 2, 5);
    bury(w, 1, 1);
    give_up(w, 1, 2, 5);
    assert_ledger(w, 1, 5, 0);
    assert_int_equal(batches(w), 1);
    assert_int_equal(retry_count(w, 4, &retried), RC_OK);
    assert_int_equal(retried, 4);
    assert_queue(w, back, 5);
    assert_ledger(w, 5, 1, 0);
    for (int i = 2; i <= 5; i++) {
        assert_int_equal(place_in(w, i, 1), i - 2);
    }
    assert_int_equal(batch_of(w, 1).waiting, 4);
    assert_int_equal(batch_of(w, 1).attempts, 5);
    assert_int_equal(batch_of(w, 1).failures, 0);
    assert_int_equal(journal_batch_body(w->j, &id, &body), RC_OK);
    assert_string_equal(text_cstr(&body), BODY);
    text_free(&body);
    assert_int_equal(retry(w, 4), RC_AGAIN); /* none is dead any more */
    assert_int_equal(retry(w, 2), RC_AGAIN);
    assert_ledger(w, 5, 1, 0);
}

/* The order of a batch is its own, whatever the order in which they died. */
static void
the_order_is_the_batch_s_however_they_died(void **state)
{
    static const int back[] = {1, 2, 3};
    struct world *w = *state;

    accept(w, 3);
    make(w, 1, 1, 3);
    bury(w, 3, 3);
    bury(w, 1, 1);
    bury(w, 2, 2);
    assert_int_equal(retry(w, 3), RC_OK);
    assert_queue(w, back, 3);
    bury(w, 2, 2);
    assert_int_equal(retry(w, 2), RC_OK); /* the others are not touched */
    assert_int_equal(located(w, 1).seq, 4);
    assert_int_equal(located(w, 3).seq, 6);
    assert_int_equal(located(w, 2).seq, 7);
    assert_ledger(w, 3, 0, 0);
}

static void
a_dead_letter_in_no_batch_goes_back_alone(void **state)
{
    static const int back[] = {3, 2};
    struct world *w = *state;

    accept(w, 3);
    bury(w, 1, 2);
    assert_int_equal(retry(w, 2), RC_OK);
    assert_queue(w, back, 2);
    assert_ledger(w, 2, 1, 0);
    assert_int_equal(retry(w, 2), RC_AGAIN);
}

static void
a_retry_of_what_was_never_there_is_nothing(void **state)
{
    struct world *w = *state;

    accept(w, 1);
    w->ids[2] = batch_id(77);
    assert_int_equal(retry(w, 1), RC_AGAIN); /* pending */
    assert_int_equal(retry(w, 2), RC_AGAIN);
    assert_int_equal(drop(w, 1), RC_AGAIN);
    assert_int_equal(drop(w, 2), RC_AGAIN);
    assert_ledger(w, 1, 0, 0);
}

static void
received_does_not_go_back_by_a_retry(void **state)
{
    struct world *w = *state;
    int64_t first;

    accept(w, 2);
    make(w, 1, 1, 2);
    give_up(w, 1, 1, 2);
    begin(w);
    assert_int_equal(journal_dead_retry(w->j, &w->ids[1], 5, NULL), RC_OK);
    commit(w);
    first = located(w, 1).received_unix_ms;
    assert_true(first >= FIXTURE_NOW);
    assert_true(located(w, 2).received_unix_ms >= first);
}

static void
a_drop_dissolves_the_batch_and_the_others_are_retried_alone(void **state)
{
    static const int back[] = {3};
    struct world *w = *state;
    struct text body = {0};
    struct uuid id = batch_id(1);

    accept(w, 3);
    make(w, 1, 1, 3);
    give_up(w, 1, 1, 3);
    assert_int_equal(drop(w, 2), RC_OK);
    assert_ledger(w, 0, 2, 1);
    assert_int_equal(batches(w), 0);
    assert_int_equal(place_in(w, 1, 1), -1);
    assert_int_equal(journal_batch_body(w->j, &id, &body), RC_AGAIN);
    assert_int_equal(drop(w, 2), RC_AGAIN);
    assert_int_equal(retry(w, 2), RC_AGAIN);
    assert_int_equal(retry(w, 3), RC_OK);
    assert_queue(w, back, 1);
    assert_ledger(w, 1, 1, 1);
    make(w, 2, 3, 3); /* it may go into another */
    text_free(&body);
}

static void
another_service_s_dead_letter_is_its_own(void **state)
{
    struct world *w = *state;
    struct journal_request r = fixture_request(w->f, "[1]");

    accept(w, 2);
    make(w, 1, 1, 2);
    give_up(w, 1, 1, 2);
    assert_int_equal(
        journal_accept(w->f->edge, &r, 1, FIXTURE_NOW + FIXTURE_DAY), RC_OK);
    begin(w);
    assert_int_equal(journal_bury(w->j, SERVICE_CALLBACK, r.seq, "x", NULL, 0,
                                  NULL, 0, FIXTURE_NOW),
                     RC_OK);
    assert_int_equal(journal_dead_retry(w->j, &r.id, FIXTURE_NOW, NULL), RC_OK);
    commit(w);
    assert_int_equal(fixture_ledger(w->f).pending, 1);
    assert_ledger(w, 0, 2, 0);
    assert_int_equal(batches(w), 1);
}

/* ---- the provider has spoken ------------------------------------------------
 */

/* One row in its group. */
static enum rc
report(struct world *w, int message, struct journal_row *row, struct text *body)
{
    enum rc rc;

    memset(row, 0x5a, sizeof *row);
    begin(w);
    rc = journal_batch_reported(w->j, &w->ids[message], FIXTURE_NOW + 9, row,
                                body);
    commit(w);
    if (rc != RC_OK) {
        assert_int_equal(row->seq, 0);
        assert_int_equal(body->bytes, 0);
    }
    return rc;
}

static int
progress_of(struct world *w, int message)
{
    struct journal_progress progress;

    assert_int_equal(journal_progress_get(w->j, SERVICE_SMS,
                                          located(w, message).seq, &progress),
                     RC_OK);
    return progress.state;
}

static void
a_report_of_a_pending_one_is_noted_and_it_stays_in_its_batch(void **state)
{
    struct world *w = *state;
    struct journal_row row;
    struct text body = {0};

    accept(w, 2);
    make(w, 1, 1, 2);
    assert_int_equal(report(w, 1, &row, &body), RC_AGAIN);
    assert_int_equal(report(w, 1, &row, &body), RC_AGAIN);
    assert_int_equal(progress_of(w, 1), JOURNAL_SMS_REPORTED);
    assert_int_equal(progress_of(w, 2), JOURNAL_STATE_WAITING);
    assert_int_equal(place_in(w, 1, 1), 0);
    assert_int_equal(batch_of(w, 1).waiting, 2);
    assert_ledger(w, 2, 0, 0);
}

static void
a_report_of_a_dead_one_takes_it_out_for_the_caller_to_finish(void **state)
{
    static const int back[] = {1, 3};
    struct world *w = *state;
    struct journal_row row;
    struct text body = {0};
    int64_t no = 0;
    int64_t retired = 0;

    accept(w, 3);
    make(w, 1, 1, 3);
    give_up(w, 1, 1, 3);
    begin(w);
    assert_int_equal(
        journal_batch_reported(w->j, &w->ids[2], FIXTURE_NOW + 9, &row, &body),
        RC_OK);
    assert_int_equal(row.seq, 4);
    assert_memory_equal(&row.id, &w->ids[2], UUID_BYTES);
    assert_true(row.received_unix_ms >= FIXTURE_NOW);
    assert_false(row.broken);
    assert_string_equal(text_cstr(&body), "+4917612345 text 2");
    assert_int_equal(journal_outcome_add(w->j, SERVICE_SMS, "x", 1, &no),
                     RC_OK);
    assert_int_equal(journal_finish(w->j, SERVICE_SMS, row.seq, no), RC_OK);
    commit(w);
    assert_ledger(w, 1, 2, 0);
    assert_int_equal(place_in(w, 2, 1), -1);
    assert_int_equal(place_in(w, 3, 1), 2);
    begin(w);
    assert_int_equal(journal_retire(w->j, SERVICE_SMS, no, no, &retired),
                     RC_OK);
    commit(w);
    assert_int_equal(retired, 1);
    assert_ledger(w, 0, 2, 1);
    text_reset(&body);
    assert_int_equal(report(w, 2, &row, &body), RC_AGAIN); /* it has gone */
    assert_int_equal(retry(w, 3), RC_OK);
    assert_queue(w, back, 2);
    assert_int_equal(batch_of(w, 1).waiting, 2);
    assert_int_equal(batch_of(w, 1).size, 3);
    assert_ledger(w, 2, 0, 1);
    text_free(&body);
}

static void
when_all_are_reported_the_batch_goes_with_the_last(void **state)
{
    struct world *w = *state;
    struct journal_row row;
    struct text body = {0};

    accept(w, 3);
    make(w, 1, 1, 3);
    give_up(w, 1, 1, 3);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(batches(w), 1);
        text_reset(&body);
        assert_int_equal(report(w, i, &row, &body), RC_OK);
        assert_int_equal(row.seq, 3 + i);
    }
    assert_int_equal(batches(w), 0);
    assert_ledger(w, 3, 0, 0);
    text_free(&body);
}

static void
a_report_of_one_that_is_persisting_or_unknown_changes_nothing(void **state)
{
    struct world *w = *state;
    struct journal_row row;
    struct text body = {0};
    int64_t no = 0;

    accept(w, 1);
    begin(w);
    assert_int_equal(journal_outcome_add(w->j, SERVICE_SMS, "x", 1, &no),
                     RC_OK);
    assert_int_equal(journal_finish(w->j, SERVICE_SMS, 1, no), RC_OK);
    commit(w);
    assert_int_equal(report(w, 1, &row, &body), RC_AGAIN);
    assert_int_equal(located(w, 1).place, JOURNAL_PERSISTING);
    assert_int_equal(fixture_ask(w->f, "SELECT count(*) FROM progress"), 0);
    w->ids[2] = batch_id(9);
    assert_int_equal(report(w, 2, &row, &body), RC_AGAIN);
    assert_int_equal(fixture_ask(w->f, "SELECT count(*) FROM progress"), 0);
    assert_ledger(w, 1, 0, 0);
}

static void
a_report_that_is_undone_leaves_the_dead_letter(void **state)
{
    struct world *w = *state;
    struct journal_row row;
    struct text body = {0};

    accept(w, 2);
    make(w, 1, 1, 2);
    give_up(w, 1, 1, 2);
    begin(w);
    assert_int_equal(
        journal_batch_reported(w->j, &w->ids[1], FIXTURE_NOW, &row, &body),
        RC_OK);
    journal_rollback(w->j);
    assert_int_equal(located(w, 1).place, JOURNAL_DEAD);
    assert_int_equal(place_in(w, 1, 1), 0);
    assert_ledger(w, 0, 2, 0);
    text_free(&body);
}

/* ---- looking one up ---------------------------------------------------------
 */

static void
a_message_is_located_wherever_it_is(void **state)
{
    struct world *w = *state;
    struct journal_entry entry;
    int64_t no = 0;

    accept(w, 3);
    bury(w, 3, 3);
    begin(w);
    assert_int_equal(journal_outcome_add(w->j, SERVICE_SMS, "x", 1, &no),
                     RC_OK);
    assert_int_equal(journal_finish(w->j, SERVICE_SMS, 2, no), RC_OK);
    commit(w);
    entry = located(w, 1);
    assert_int_equal(entry.place, JOURNAL_PENDING);
    assert_int_equal(entry.seq, 1);
    assert_int_equal(entry.received_unix_ms, FIXTURE_NOW);
    assert_int_equal(entry.outcome_no, 0);
    assert_string_equal(entry.reason, "");
    entry = located(w, 2);
    assert_int_equal(entry.place, JOURNAL_PERSISTING);
    assert_int_equal(entry.outcome_no, no);
    entry = located(w, 3);
    assert_int_equal(entry.place, JOURNAL_DEAD);
    assert_int_equal(entry.seq, 3);
    assert_string_equal(entry.reason, "HTTP 500");
    assert_int_equal(entry.dead_unix_ms, FIXTURE_NOW);
    /* of another service it is not there */
    assert_int_equal(
        journal_locate(w->j, SERVICE_SMS_STATUS, &w->ids[1], &entry), RC_AGAIN);
    assert_int_equal(journal_locate(w->j, SERVICE_CALLBACK, &w->ids[3], &entry),
                     RC_AGAIN);
    begin(w); /* inside a group, too */
    assert_int_equal(journal_locate(w->j, SERVICE_SMS, &w->ids[3], &entry),
                     RC_OK);
    assert_int_equal(entry.place, JOURNAL_DEAD);
    commit(w);
}

/* ---- the whole --------------------------------------------------------------
 */

#define CROWD 60
#define STEPS 2500

enum place { NOWHERE, QUEUED, PERSISTING, DEAD, GONE };

/* What should be, by the words of the header. */
struct model {
    enum place place[CROWD + 1];
    int batch[CROWD + 1]; /* 0: none */
    int64_t pending;
    int64_t dead;
    int64_t final;
    int batches; /* numbers given out */
    uint32_t random;
};

static unsigned
draw(struct model *m, unsigned below)
{
    m->random = m->random * 1664525U + 1013904223U;
    return (m->random >> 8) % below;
}

static void
model_leave(struct model *m, int i)
{
    m->batch[i] = 0;
}

static void
model_dissolve(struct model *m, int no)
{
    for (int i = 1; i <= CROWD; i++) {
        m->batch[i] = m->batch[i] == no ? 0 : m->batch[i];
    }
}

static void
assert_like(struct world *w, const struct model *m)
{
    struct journal_ledger ledger = ledger_of(w);
    int64_t count = 0;

    assert_int_equal(ledger.pending, m->pending);
    assert_int_equal(ledger.dead, m->dead);
    assert_int_equal(ledger.final, m->final);
    for (int no = 1; no <= m->batches; no++) {
        int64_t members = 0;
        int64_t waiting = 0;
        struct journal_batch batch;

        for (int i = 1; i <= CROWD; i++) {
            members += m->batch[i] == no;
            waiting += m->batch[i] == no && m->place[i] == QUEUED;
        }
        assert_int_equal(find(w, no, &batch), members > 0);
        assert_int_equal(batch.waiting, waiting);
        count += members > 0;
    }
    assert_int_equal(batches(w), count);
}

static void
step_make(struct world *w, struct model *m)
{
    struct uuid ids[CROWD];
    struct journal_batch batch = {.id = batch_id(m->batches + 1)};
    int mine[CROWD];
    int count = 0;

    for (int i = 1; i <= CROWD && count < 8; i++) {
        if (m->place[i] == QUEUED && m->batch[i] == 0 && draw(m, 3) == 0) {
            ids[count] = w->ids[i];
            mine[count++] = i;
        }
    }
    if (count == 0 || m->batches >= 250) {
        return;
    }
    batch.size = count;
    begin(w);
    assert_int_equal(journal_batch_make(w->j, &batch, ids, (size_t)count),
                     RC_OK);
    commit(w);
    m->batches++;
    for (int i = 0; i < count; i++) {
        m->batch[mine[i]] = m->batches;
    }
}

static void
step_retry(struct world *w, struct model *m, int i)
{
    enum rc rc = retry(w, i);
    int no = m->batch[i];

    assert_int_equal(rc, m->place[i] == DEAD ? RC_OK : RC_AGAIN);
    if (rc != RC_OK) {
        return;
    }
    for (int k = 1; k <= CROWD; k++) {
        if (m->place[k] == DEAD && (k == i || (no != 0 && m->batch[k] == no))) {
            m->place[k] = QUEUED;
            m->pending++;
            m->dead--;
        }
    }
}

static void
step_report(struct world *w, struct model *m, int i)
{
    struct journal_row row;
    struct text body = {0};
    enum rc rc = report(w, i, &row, &body);

    assert_int_equal(rc, m->place[i] == DEAD ? RC_OK : RC_AGAIN);
    if (rc == RC_OK) {
        m->place[i] = QUEUED;
        model_leave(m, i);
        m->pending++;
        m->dead--;
    }
    text_free(&body);
}

static void
step_finish(struct world *w, struct model *m, int i)
{
    int64_t no = 0;
    int64_t retired = 0;

    if (m->place[i] != QUEUED) {
        return;
    }
    begin(w);
    assert_int_equal(journal_outcome_add(w->j, SERVICE_SMS, "x", 1, &no),
                     RC_OK);
    assert_int_equal(journal_finish(w->j, SERVICE_SMS, located(w, i).seq, no),
                     RC_OK);
    assert_int_equal(journal_batch_leave(w->j, &w->ids[i]), RC_OK);
    if (draw(m, 2) == 0) {
        assert_int_equal(journal_retire(w->j, SERVICE_SMS, no, no, &retired),
                         RC_OK);
        assert_int_equal(retired, 1);
        m->place[i] = GONE;
        m->pending--;
        m->final++;
    } else {
        m->place[i] = PERSISTING;
    }
    model_leave(m, i);
    commit(w);
}

static void
step(struct world *w, struct model *m)
{
    int i = 1 + (int)draw(m, CROWD);

    switch (draw(m, 8)) {
    case 0:
    case 1:
        step_make(w, m);
        break;
    case 2:
    case 3:
        if (m->place[i] == QUEUED || m->place[i] == PERSISTING) {
            bury(w, i, i);
            m->place[i] = DEAD;
            m->pending--;
            m->dead++;
        }
        break;
    case 4:
        step_retry(w, m, i);
        break;
    case 5:
        if (draw(m, 4) == 0) {
            assert_int_equal(drop(w, i),
                             m->place[i] == DEAD ? RC_OK : RC_AGAIN);
            if (m->place[i] == DEAD) {
                int no = m->batch[i];

                m->place[i] = GONE;
                m->dead--;
                m->final++;
                if (no != 0) {
                    model_dissolve(m, no);
                }
            }
        }
        break;
    case 6:
        step_report(w, m, i);
        break;
    default:
        if (draw(m, 6) == 0) {
            step_finish(w, m, i);
        } else if (m->batches > 0 && draw(m, 4) == 0) {
            int no = 1 + (int)draw(m, (unsigned)m->batches);

            delete_batch(w, no);
            model_dissolve(m, no);
        } else if (draw(m, 4) == 0) {
            leave(w, i);
            model_leave(m, i);
        }
        break;
    }
}

static void
it_does_what_a_naive_model_does(void **state)
{
    struct world *w = *state;
    static struct model m;

    m = (struct model){.random = 99, .pending = CROWD};
    accept(w, CROWD);
    for (int i = 1; i <= CROWD; i++) {
        m.place[i] = QUEUED;
    }
    for (int n = 0; n < STEPS; n++) {
        step(w, &m);
        if (n % 10 == 0) {
            assert_like(w, &m);
        }
    }
    assert_like(w, &m);
    assert_true(m.final > 0);
}

int
main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, world_new, world_free)
    const struct CMUnitTest tests[] = {
        CASE(a_batch_has_its_members_in_order),
        CASE(what_is_not_there_is_not_found_and_the_outputs_are_empty),
        CASE(the_largest_batch_comes_back_whole),
        CASE(a_message_is_in_one_batch_at_most),
        CASE(an_undone_group_leaves_no_batch),
        CASE(a_note_changes_what_it_says_and_keeps_the_body),
        CASE(a_deleted_batch_lets_its_messages_go_into_others),
        CASE(who_leaves_is_in_none_and_the_last_one_takes_the_batch_along),
        CASE(waiting_counts_what_is_in_the_queue_without_an_outcome),
        CASE(outside_a_group_nothing_changes),
        CASE(outside_a_group_nothing_changes_before_the_first_use_either),
        CASE(readers_read_and_without_a_file_have_nothing),
        CASE(a_retry_of_one_puts_all_of_its_batch_back_in_order),
        CASE(the_order_is_the_batch_s_however_they_died),
        CASE(a_dead_letter_in_no_batch_goes_back_alone),
        CASE(a_retry_of_what_was_never_there_is_nothing),
        CASE(received_does_not_go_back_by_a_retry),
        CASE(a_drop_dissolves_the_batch_and_the_others_are_retried_alone),
        CASE(another_service_s_dead_letter_is_its_own),
        CASE(a_report_of_a_pending_one_is_noted_and_it_stays_in_its_batch),
        CASE(a_report_of_a_dead_one_takes_it_out_for_the_caller_to_finish),
        CASE(when_all_are_reported_the_batch_goes_with_the_last),
        CASE(a_report_of_one_that_is_persisting_or_unknown_changes_nothing),
        CASE(a_report_that_is_undone_leaves_the_dead_letter),
        CASE(a_message_is_located_wherever_it_is),
        CASE(it_does_what_a_naive_model_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
