/* fcgi/edge_batch.c: every end that a commit can have, and what is answered
 * and pushed then. The journal and the socket are faked (--wrap). */
#include "fcgi/edge_batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW INT64_C(1800000000000)
#define DAY INT64_C(86400000)
#define MAX 3

enum rc __wrap_journal_accept(struct journal *j,
                              struct journal_request *requests, size_t count,
                              int64_t keys_until_unix_ms);
const char *__wrap_journal_error(const struct journal *j);
pid_t __wrap_journal_lock_holder(const char *path);
void __wrap_push_send(struct push *p, const struct frame *frame);

/* What the fakes do and have seen. */
static enum rc accept_rc;
static enum journal_verdict verdicts[MAX];
static size_t accept_count;
static bool answered_before_commit;
static unsigned answers;
static int64_t pushed[MAX];
static unsigned pushes;
static struct journal_request handed_in[MAX];

enum rc
__wrap_journal_accept(struct journal *j, struct journal_request *requests,
                      size_t count, int64_t keys_until_unix_ms)
{
    (void)j;
    answered_before_commit = answers > 0;
    accept_count = count;
    assert_int_equal(keys_until_unix_ms, NOW + DAY);
    memcpy(handed_in, requests, count * sizeof(handed_in[0]));
    for (size_t k = 0; k < count && accept_rc == RC_OK; k++) {
        requests[k].verdict = verdicts[k];
        requests[k].seq =
            verdicts[k] == JOURNAL_ACCEPTED ? 100 + (int64_t)k : 0;
        requests[k].rank = requests[k].seq > 0 ? 7 + (int64_t)k : 0;
        if (verdicts[k] == JOURNAL_REPLAYED) {
            memset(requests[k].id.bytes, 0xee, UUID_BYTES);
        }
    }
    return accept_rc;
}

const char *
__wrap_journal_error(const struct journal *j)
{
    (void)j;
    return "an error";
}

pid_t
__wrap_journal_lock_holder(const char *path)
{
    assert_string_equal(path, "/journal.db");
    return 4711;
}

void
__wrap_push_send(struct push *p, const struct frame *frame)
{
    (void)p;
    assert_int_equal(answers, accept_count); /* after the last answer */
    assert_int_equal(frame->body_bytes, 2);
    assert_memory_equal(frame->body, "[]", 2);
    pushed[pushes++] = frame->seq;
}

static void
answer(const struct request *request, struct reply *reply)
{
    answers++;
    reply->status = 202;
    assert_int_equal(request->record_bytes, 2);
    assert_string_equal(request->record, "[]");
    text_printf(&reply->body, "%02x", request->id.bytes[0]);
}

static const struct edge_route route = {.method = "POST",
                                        .path = "/items",
                                        .service = SERVICE_CALLBACK,
                                        .answer = answer};

static int
setup(void **state)
{
    struct edge_batch *batch;

    accept_rc = RC_OK;
    answers = 0;
    pushes = 0;
    for (size_t k = 0; k < MAX; k++) {
        verdicts[k] = JOURNAL_ACCEPTED;
    }
    assert_int_equal(edge_batch_new(&batch, MAX, (struct journal *)&accept_rc,
                                    (struct push *)&accept_rc, "/journal.db"),
                     RC_OK);
    for (uint8_t k = 0; k < MAX; k++) {
        struct exchange *ex;

        assert_int_equal(exchange_new(&ex), RC_OK);
        exchange_reset(ex);
        ex->route = &route;
        ex->request.id.bytes[0] = k;
        ex->request.received_unix_ms = NOW;
        text_puts(&ex->record, "[]");
        assert_int_equal(edge_batch_add(batch, ex), RC_OK);
    }
    *state = batch;
    return 0;
}

static int
teardown(void **state)
{
    struct edge_batch *batch = *state;

    edge_batch_free(&batch);
    return 0;
}

static int
status_of(const struct edge_batch *batch, size_t k)
{
    return edge_batch_get(batch, k)->reply.status;
}

static const char *
body_of(const struct edge_batch *batch, size_t k)
{
    return text_cstr(&edge_batch_get(batch, k)->reply.body);
}

static void
batch_is_full_at_its_bound(void **state)
{
    struct edge_batch *batch = *state;
    struct exchange *ex;

    assert_true(edge_batch_is_full(batch));
    assert_int_equal(exchange_new(&ex), RC_OK);
    ex->route = &route;
    assert_int_equal(edge_batch_add(batch, ex), RC_FULL);
    assert_int_equal(edge_batch_count(batch), MAX);
    exchange_free(&ex);
}

static void
answers_follow_the_commit_and_frames_the_answers(void **state)
{
    struct edge_batch *batch = *state;

    edge_batch_commit(batch, 1, NOW);
    assert_false(answered_before_commit);
    assert_int_equal(answers, MAX);
    assert_int_equal(pushes, 0);
    for (size_t k = 0; k < MAX; k++) {
        assert_int_equal(status_of(batch, k), 202);
    }
    edge_batch_push(batch);
    assert_int_equal(pushes, MAX);
    assert_int_equal(pushed[0], 100);
    assert_int_equal(pushed[2], 102);
}

static void
verdicts_are_told_apart(void **state)
{
    struct edge_batch *batch = *state;

    verdicts[0] = JOURNAL_REPLAYED;
    verdicts[1] = JOURNAL_MISMATCH;
    verdicts[2] = JOURNAL_REFUSED;
    edge_batch_commit(batch, 1, NOW);
    assert_int_equal(status_of(batch, 0), 202);
    assert_string_equal(body_of(batch, 0), "ee"); /* the first one's id */
    assert_string_equal(text_cstr(&edge_batch_get(batch, 0)->reply.headers),
                        "Idempotent-Replayed: true\r\n");
    assert_int_equal(status_of(batch, 1), 422);
    assert_non_null(strstr(body_of(batch, 1), "idempotency_key_reused"));
    assert_int_equal(status_of(batch, 2), 503);
    assert_non_null(strstr(body_of(batch, 2), "journal_full"));
    accept_count = 1;
    edge_batch_push(batch);
    assert_int_equal(pushes, 0);
}

static const struct edge_route cancel_route = {.method = "DELETE",
                                               .path = "/items/{id}",
                                               .service = SERVICE_CALL,
                                               .cancel = 5};

static void
what_is_handed_in_is_the_routes(void **state)
{
    struct edge_batch *batch = *state;
    struct exchange *all[MAX];

    for (size_t k = 0; k < MAX; k++) {
        all[k] = edge_batch_get(batch, k);
    }
    edge_batch_clear(batch);
    verdicts[0] = JOURNAL_CANCELED;
    all[0]->route = &cancel_route;
    all[1]->key_bytes = 1;
    all[1]->key_kept_ms = 60000;
    all[2]->key_bytes = 1;
    for (size_t k = 0; k < MAX; k++) {
        assert_int_equal(edge_batch_add(batch, all[k]), RC_OK);
    }
    edge_batch_commit(batch, 1, NOW);
    assert_int_equal(handed_in[0].op, JOURNAL_CANCEL);
    assert_int_equal(handed_in[0].state, 5);
    assert_int_equal(handed_in[0].service, SERVICE_CALL);
    assert_int_equal(handed_in[1].op, JOURNAL_ADD);
    assert_int_equal(handed_in[1].key_until_unix_ms, NOW + 60000);
    assert_int_equal(handed_in[2].op, JOURNAL_ADD);
    assert_int_equal(handed_in[2].key_until_unix_ms, 0);
}

static void
the_rank_is_there_for_the_answer(void **state)
{
    struct edge_batch *batch = *state;

    verdicts[1] = JOURNAL_REPLAYED;
    edge_batch_get(batch, 1)->request.rank = 99;
    edge_batch_commit(batch, 1, NOW);
    assert_int_equal(edge_batch_get(batch, 0)->request.rank, 7);
    assert_int_equal(edge_batch_get(batch, 1)->request.rank, 0);
    assert_int_equal(edge_batch_get(batch, 2)->request.rank, 9);
}

/* The answer looks at it (see answer()). */
static void
the_record_is_there_for_the_answer_also_of_a_replay(void **state)
{
    struct edge_batch *batch = *state;

    verdicts[1] = JOURNAL_REPLAYED;
    edge_batch_commit(batch, 1, NOW);
    assert_int_equal(answers, MAX);
    for (size_t k = 0; k < MAX; k++) {
        assert_int_equal(status_of(batch, k), 202);
    }
}

static void
canceled_late_or_absent_is_for_the_ask_pool(void **state)
{
    struct edge_batch *batch = *state;

    verdicts[0] = JOURNAL_CANCELED;
    verdicts[1] = JOURNAL_LATE;
    verdicts[2] = JOURNAL_ABSENT;
    edge_batch_commit(batch, 1, NOW);
    edge_batch_push(batch);
    for (size_t k = 0; k < MAX; k++) {
        assert_true(edge_batch_asks(batch, k));
        assert_int_equal(status_of(batch, k), 0);
    }
    assert_int_equal(answers, 0);
    assert_int_equal(pushes, 0);
    verdicts[0] = JOURNAL_ACCEPTED;
    verdicts[1] = JOURNAL_REPLAYED;
    verdicts[2] = JOURNAL_MISMATCH;
    edge_batch_commit(batch, 1, NOW);
    for (size_t k = 0; k < MAX; k++) {
        assert_false(edge_batch_asks(batch, k));
    }
}

struct failure {
    enum rc rc;
    const char *code;
};

static void
failed_commit_promises_nothing(void **state)
{
    struct edge_batch *batch = *state;
    const struct failure failures[] = {
        {RC_TIMEOUT, "journal_busy"},    {RC_FULL, "journal_full"},
        {RC_IO, "journal_unavailable"},  {RC_NOMEM, "journal_unavailable"},
        {RC_BUG, "journal_unavailable"},
    };

    for (size_t f = 0; f < ARRAY_COUNT(failures); f++) {
        accept_rc = failures[f].rc;
        edge_batch_commit(batch, 1, NOW);
        edge_batch_push(batch);
        for (size_t k = 0; k < MAX; k++) {
            assert_int_equal(status_of(batch, k), 503);
            assert_false(edge_batch_asks(batch, k));
            assert_non_null(strstr(body_of(batch, k), failures[f].code));
            assert_non_null(
                strstr(text_cstr(&edge_batch_get(batch, k)->reply.headers),
                       "Retry-After: "));
        }
    }
    assert_int_equal(answers, 0);
    assert_int_equal(pushes, 0);
}

static void
cleared_batch_is_empty(void **state)
{
    struct edge_batch *batch = *state;
    struct exchange *all[MAX];

    for (size_t k = 0; k < MAX; k++) {
        all[k] = edge_batch_get(batch, k);
    }
    edge_batch_clear(batch);
    assert_int_equal(edge_batch_count(batch), 0);
    accept_count = 99;
    edge_batch_commit(batch, 1, NOW);
    assert_int_equal(accept_count, 99); /* the journal was not asked */
    for (size_t k = 0; k < MAX; k++) {
        exchange_free(&all[k]);
    }
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(batch_is_full_at_its_bound),
        TEST(answers_follow_the_commit_and_frames_the_answers),
        TEST(verdicts_are_told_apart),
        TEST(what_is_handed_in_is_the_routes),
        TEST(the_rank_is_there_for_the_answer),
        TEST(the_record_is_there_for_the_answer_also_of_a_replay),
        TEST(canceled_late_or_absent_is_for_the_ask_pool),
        TEST(failed_commit_promises_nothing),
        TEST(cleared_batch_is_empty),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
