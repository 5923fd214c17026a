/* dispatcher/lane.c: first the rules one by one, then all of them at once: a
 * socket that loses, repeats, reorders and restarts, an inbox that is full at
 * any moment, a journal with burnt numbers and retries, against a model that
 * knows what must come out: each seq once and in order. No clock, no socket:
 * a seed is a run, and a failing seed can be run again (LANE_SEED=n). */
#include "dispatcher/lane.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct uuid no_id;

/* ---- the rules, one by one ------------------------------------------------
 */

#define BENCH_ROWS 64

/* An inbox that takes `room` more items and notes their seqs. */
struct bench {
    struct lane *lane;
    size_t room;
    size_t count;
    int64_t seqs[BENCH_ROWS];
    enum lane_source sources[BENCH_ROWS];
    bool broken[BENCH_ROWS];
};

static enum rc
note(void *arg, struct work *work, enum lane_source source)
{
    struct bench *b = arg;

    if (b->room == 0) {
        return RC_FULL;
    }
    b->room--;
    assert_true(b->count < BENCH_ROWS);
    b->seqs[b->count] = work->seq;
    b->broken[b->count] = work->broken;
    b->sources[b->count++] = source;
    work_free(work);
    return RC_OK;
}

static int
setup(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));
    struct lane_options options = {
        .service = SERVICE_CALLBACK,
        .window_rows = 8,
        .window_bytes = 100,
        .hand_on = note,
        .arg = b,
    };

    b->room = BENCH_ROWS;
    *state = b;
    return lane_new(&b->lane, &options) == RC_OK ? 0 : -1;
}

static int
teardown(void **state)
{
    struct bench *b = *state;

    lane_free(&b->lane);
    free(b);
    return 0;
}

/* Give the lane a page with the rows from..to. */
static void
give_page(struct bench *b, int64_t from, int64_t to, bool more, int64_t newest)
{
    struct journal_page *page = lane_page(b->lane);

    assert_true(lane_wants_page(b->lane));
    free(page->rows);
    page->rows_capacity = BENCH_ROWS;
    page->rows = calloc(BENCH_ROWS, sizeof(*page->rows));
    page->count = 0;
    for (int64_t seq = from; seq <= to; seq++) {
        page->rows[page->count++] =
            (struct journal_row){.seq = seq, .body = "x", .body_bytes = 1};
    }
    page->more = more;
    lane_read(b->lane, newest);
}

/* Live with the cursor at seq. */
static void
go_live(struct bench *b, int64_t seq)
{
    give_page(b, 1, 0, false, seq);
    assert_false(lane_is_behind(b->lane));
    assert_int_equal(lane_cursor(b->lane), seq);
}

static enum rc
give_frame_of(struct bench *b, int64_t seq, size_t body_bytes)
{
    static const char body[200];
    struct frame frame = {
        .service = SERVICE_CALLBACK,
        .seq = seq,
        .received_unix_ms = 1,
        .id = no_id,
        .body = body,
        .body_bytes = body_bytes,
    };

    return lane_frame(b->lane, &frame);
}

static enum rc
give_frame(struct bench *b, int64_t seq)
{
    return give_frame_of(b, seq, 1);
}

static void
assert_handed_on(const struct bench *b, size_t count, const int64_t *seqs)
{
    assert_int_equal(b->count, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(b->seqs[i], seqs[i]);
    }
}

static void
it_starts_behind_and_ignores_frames(void **state)
{
    struct bench *b = *state;

    assert_true(lane_is_behind(b->lane));
    assert_true(lane_wants_page(b->lane));
    assert_int_equal(give_frame(b, 1), RC_AGAIN);
    assert_int_equal(b->count, 0);
}

static void
a_short_page_makes_it_live(void **state)
{
    struct bench *b = *state;

    give_page(b, 1, 3, true, 5);
    assert_true(lane_is_behind(b->lane));
    give_page(b, 4, 4, false, 5);
    assert_false(lane_is_behind(b->lane));
    /* 5 is in no page: it has an outcome, and its frame is not for us. */
    assert_int_equal(lane_cursor(b->lane), 5);
    assert_int_equal(give_frame(b, 5), RC_AGAIN);
    assert_int_equal(give_frame(b, 6), RC_OK);
    assert_handed_on(b, 5, (const int64_t[]){1, 2, 3, 4, 6});
    assert_int_equal(b->sources[3], LANE_JOURNAL);
    assert_int_equal(b->sources[4], LANE_FRAME);
}

static void
rows_of_a_page_beyond_the_newest_move_the_cursor(void **state)
{
    struct bench *b = *state;

    give_page(b, 1, 4, false, 2);
    assert_int_equal(lane_cursor(b->lane), 4);
}

static void
frames_are_put_in_order(void **state)
{
    struct bench *b = *state;

    go_live(b, 0);
    assert_int_equal(give_frame(b, 3), RC_OK);
    assert_int_equal(give_frame(b, 2), RC_OK);
    assert_true(lane_has_gap(b->lane));
    assert_int_equal(give_frame(b, 3), RC_AGAIN);
    assert_int_equal(give_frame(b, 1), RC_OK);
    assert_false(lane_has_gap(b->lane));
    assert_int_equal(give_frame(b, 2), RC_AGAIN);
    assert_handed_on(b, 3, (const int64_t[]){1, 2, 3});
}

static void
the_window_ends_at_its_rows(void **state)
{
    struct bench *b = *state;

    go_live(b, 10);
    assert_int_equal(give_frame(b, 18), RC_OK);
    assert_false(lane_is_behind(b->lane));
    assert_int_equal(give_frame(b, 19), RC_FULL);
    assert_true(lane_is_behind(b->lane));
    assert_false(lane_has_gap(b->lane));
    assert_int_equal(lane_cursor(b->lane), 10);
    assert_int_equal(b->count, 0);
}

static void
the_window_ends_at_its_bytes(void **state)
{
    struct bench *b = *state;

    go_live(b, 10);
    assert_int_equal(give_frame_of(b, 12, 60), RC_OK);
    assert_int_equal(give_frame_of(b, 13, 40), RC_OK);
    assert_int_equal(give_frame_of(b, 14, 1), RC_FULL);
    assert_true(lane_is_behind(b->lane));
}

static void
bytes_leave_the_window_with_their_frames(void **state)
{
    struct bench *b = *state;

    go_live(b, 10);
    assert_int_equal(give_frame_of(b, 12, 100), RC_OK);
    assert_int_equal(give_frame_of(b, 11, 150), RC_OK);
    assert_int_equal(give_frame_of(b, 14, 100), RC_OK);
    assert_false(lane_is_behind(b->lane));
    assert_int_equal(lane_cursor(b->lane), 12);
}

static void
a_gap_given_up_is_read_from_the_journal(void **state)
{
    struct bench *b = *state;

    go_live(b, 4);
    lane_give_up(b->lane);
    assert_false(lane_is_behind(b->lane));
    assert_int_equal(give_frame(b, 5), RC_OK);
    assert_int_equal(give_frame(b, 7), RC_OK);
    lane_give_up(b->lane);
    assert_true(lane_is_behind(b->lane));
    give_page(b, 7, 8, false, 8);
    assert_int_equal(give_frame(b, 7), RC_AGAIN);
    assert_handed_on(b, 3, (const int64_t[]){5, 7, 8});
}

static void
a_lost_last_frame_shows_at_the_second_comparison(void **state)
{
    struct bench *b = *state;

    go_live(b, 4);
    lane_compare(b->lane, 5);
    assert_false(lane_is_behind(b->lane));
    lane_compare(b->lane, 5);
    assert_true(lane_is_behind(b->lane));
}

static void
a_frame_in_time_satisfies_the_comparison(void **state)
{
    struct bench *b = *state;

    go_live(b, 4);
    lane_compare(b->lane, 5);
    assert_int_equal(give_frame(b, 5), RC_OK);
    lane_compare(b->lane, 6);
    assert_false(lane_is_behind(b->lane));
}

static void
a_full_inbox_makes_it_fall_behind_without_a_page(void **state)
{
    struct bench *b = *state;

    go_live(b, 0);
    b->room = 1;
    assert_int_equal(give_frame(b, 2), RC_OK);
    assert_int_equal(give_frame(b, 3), RC_OK);
    assert_int_equal(give_frame(b, 1), RC_FULL);
    assert_true(lane_is_behind(b->lane));
    assert_true(lane_is_blocked(b->lane));
    assert_false(lane_wants_page(b->lane));
    b->room = 9;
    lane_go_on(b->lane);
    assert_false(lane_is_blocked(b->lane));
    assert_true(lane_wants_page(b->lane));
    give_page(b, 2, 3, false, 3);
    assert_handed_on(b, 3, (const int64_t[]){1, 2, 3});
}

static void
the_rest_of_a_page_is_kept_while_the_inbox_is_full(void **state)
{
    struct bench *b = *state;

    b->room = 2;
    give_page(b, 1, 4, false, 4);
    assert_true(lane_is_blocked(b->lane));
    assert_false(lane_wants_page(b->lane));
    lane_go_on(b->lane); /* still full */
    assert_true(lane_is_blocked(b->lane));
    b->room = 1;
    lane_go_on(b->lane);
    assert_true(lane_is_blocked(b->lane));
    assert_int_equal(lane_cursor(b->lane), 3);
    b->room = 1;
    lane_go_on(b->lane);
    assert_false(lane_is_behind(b->lane));
    assert_handed_on(b, 4, (const int64_t[]){1, 2, 3, 4});
}

static void
nothing_goes_on_while_it_is_held(void **state)
{
    struct bench *b = *state;

    b->room = 1;
    give_page(b, 1, 2, false, 2);
    assert_true(lane_is_blocked(b->lane));
    lane_hold(b->lane, true);
    b->room = 9;
    assert_false(lane_is_blocked(b->lane));
    assert_false(lane_has_rest(b->lane));
    lane_go_on(b->lane);
    assert_int_equal(b->count, 1);
    lane_hold(b->lane, false);
    assert_true(lane_is_blocked(b->lane));
    lane_go_on(b->lane);
    assert_false(lane_is_behind(b->lane));
    lane_hold(b->lane, true);
    assert_int_equal(give_frame(b, 3), RC_AGAIN);
    assert_false(lane_wants_page(b->lane));
    lane_hold(b->lane, false);
    give_page(b, 3, 3, false, 3);
    assert_handed_on(b, 3, (const int64_t[]){1, 2, 3});
}

static void
a_broken_row_is_handed_on_as_such(void **state)
{
    struct bench *b = *state;
    struct journal_page *page = lane_page(b->lane);

    page->rows = calloc(1, sizeof(*page->rows));
    page->rows_capacity = 1;
    page->rows[0] = (struct journal_row){.seq = 1, .broken = true, .body = ""};
    page->count = 1;
    lane_read(b->lane, 1);
    assert_int_equal(b->count, 1);
    assert_true(b->broken[0]);
}

static void
the_largest_seq_is_no_special_case(void **state)
{
    struct bench *b = *state;

    go_live(b, 1);
    assert_int_equal(give_frame(b, INT64_MAX), RC_FULL);
    go_live(b, INT64_MAX - 1);
    assert_int_equal(give_frame(b, INT64_MAX), RC_OK);
    assert_int_equal(give_frame(b, INT64_MAX), RC_AGAIN);
}

/* ---- all of them at once --------------------------------------------------
 */

#define ROWS_MAX 4096
#define HANDLERS 4
#define PIPE_MAX 48 /* a handler's high-water mark */
#define INBOX_MAX 12

struct row {
    int64_t seq;
    bool finished; /* has an outcome, or is retired: in no page */
};

struct model {
    uint64_t random;
    /* the journal */
    struct row rows[ROWS_MAX]; /* by seq, with gaps in seq */
    size_t row_count;
    int64_t newest;
    /* the socket side: what each handler's pipe holds */
    int64_t pipes[HANDLERS][PIPE_MAX];
    size_t pipe_count[HANDLERS];
    /* the dispatcher */
    struct lane *lane;
    size_t inbox_count;
    bool room_announced;
    int64_t last_seq; /* handed on last by this dispatcher */
    size_t expect_at; /* index of the row that must come next, or later */
    size_t handed_on;
};

static uint64_t
next_random(struct model *m)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return m->random;
}

static size_t
below(struct model *m, size_t n)
{
    return (size_t)(next_random(m) % n);
}

/* The heart of it: what is handed on must be the first row that this
 * dispatcher has not had yet and that had no outcome when it started. */
static enum rc
check_hand_on(void *arg, struct work *work, enum lane_source source)
{
    struct model *m = arg;

    (void)source;
    if (m->inbox_count == INBOX_MAX) {
        m->room_announced = false;
        return RC_FULL;
    }
    while (m->expect_at < m->row_count &&
           (m->rows[m->expect_at].finished ||
            m->rows[m->expect_at].seq <= m->last_seq)) {
        m->expect_at++;
    }
    assert_true(m->expect_at < m->row_count);
    assert_int_equal(work->seq, m->rows[m->expect_at].seq);
    assert_true(work->seq > m->last_seq);
    assert_int_equal(work->body_bytes, (size_t)(work->seq % 7));
    m->last_seq = work->seq;
    m->expect_at++;
    m->handed_on++;
    m->inbox_count++;
    work_free(work);
    return RC_OK;
}

static void
start_dispatcher(struct model *m)
{
    struct lane_options options = {
        .service = SERVICE_CALLBACK,
        .window_rows = 1 + below(m, 16),
        .window_bytes = below(m, 60),
        .hand_on = check_hand_on,
        .arg = m,
    };

    lane_free(&m->lane);
    assert_int_equal(lane_new(&m->lane, &options), RC_OK);
    m->inbox_count = 0;
    m->room_announced = false;
    m->last_seq = 0;
    m->expect_at = 0;
}

static void
add_row(struct model *m)
{
    if (below(m, 10) == 0) {
        m->newest++; /* burnt */
    }
    m->newest++;
    m->rows[m->row_count++] = (struct row){.seq = m->newest};
}

/* A handler commits a batch and pushes it, more or less. */
static void
commit_batch(struct model *m)
{
    size_t h = below(m, HANDLERS);
    size_t count = 1 + below(m, 8);

    for (size_t i = 0; i < count && m->row_count < ROWS_MAX; i++) {
        add_row(m);
        for (size_t copies = below(m, 20) == 0 ? 2 : 1; copies > 0; copies--) {
            if (m->pipe_count[h] < PIPE_MAX && below(m, 15) != 0) {
                m->pipes[h][m->pipe_count[h]++] = m->newest;
            }
        }
    }
}

/* sluicectl dead retry: a new seq, and nobody pushes. */
static void
requeue(struct model *m)
{
    if (m->row_count < ROWS_MAX) {
        add_row(m);
    }
}

/* A frame at random from a handler's pipe, mostly the oldest. */
static void
receive_frame(struct model *m)
{
    size_t h = below(m, HANDLERS);
    size_t at;
    struct frame frame = {.service = SERVICE_CALLBACK, .body = "0123456789"};

    if (lane_is_behind(m->lane) && below(m, 4) != 0) {
        return; /* the feed does not receive then, but it may discard */
    }
    if (m->pipe_count[h] == 0) {
        return;
    }
    at = below(m, 10) == 0 ? below(m, m->pipe_count[h]) : 0;
    frame.seq = m->pipes[h][at];
    frame.body_bytes = (size_t)(frame.seq % 7);
    if (below(m, 30) != 0) { /* else it stays and comes once more */
        memmove(&m->pipes[h][at], &m->pipes[h][at + 1],
                (m->pipe_count[h] - at - 1) * sizeof(int64_t));
        m->pipe_count[h]--;
    }
    if (lane_frame(m->lane, &frame) == RC_NOMEM) {
        fail();
    }
}

/* Between the reading of the newest seq and of the page others commit. */
static void
read_journal(struct model *m)
{
    struct journal_page *page = lane_page(m->lane);
    size_t max_rows = 1 + below(m, 20);
    int64_t newest = m->newest;

    if (!lane_wants_page(m->lane)) {
        return;
    }
    if (below(m, 3) == 0) {
        commit_batch(m);
    }
    if (page->rows == NULL) {
        page->rows = calloc(32, sizeof(*page->rows));
        page->rows_capacity = 32;
    }
    page->count = 0;
    page->more = false;
    for (size_t i = 0; i < m->row_count; i++) {
        const struct row *row = &m->rows[i];

        if (row->finished || row->seq <= lane_cursor(m->lane)) {
            continue;
        }
        if (page->count == max_rows) {
            page->more = true;
            break;
        }
        page->rows[page->count++] =
            (struct journal_row){.seq = row->seq,
                                 .body = "0123456789",
                                 .body_bytes = (size_t)(row->seq % 7)};
    }
    lane_read(m->lane, newest);
}

/* The service takes from its inbox, and something gets its outcome. */
static void
consume(struct model *m)
{
    if (m->inbox_count > 0) {
        m->inbox_count -= 1 + below(m, m->inbox_count);
        m->room_announced = true;
    }
    if (m->row_count > 0) {
        struct row *row = &m->rows[below(m, m->row_count)];

        if (row->seq <= m->last_seq) {
            row->finished = true;
        }
    }
}

static void
step(struct model *m)
{
    switch (below(m, 40)) {
    case 0:
        memset(m->pipe_count, 0, sizeof(m->pipe_count)); /* PULL restarted */
        break;
    case 1:
        m->pipe_count[below(m, HANDLERS)] = 0; /* a handler killed */
        break;
    case 2:
        requeue(m);
        break;
    case 3:
        lane_give_up(m->lane);
        break;
    case 4:
    case 5:
        lane_compare(m->lane, m->newest);
        break;
    case 6:
        lane_hold(m->lane, below(m, 2) == 0);
        break;
    case 7:
        if (below(m, 20) == 0) {
            start_dispatcher(m);
        }
        break;
    case 8:
    case 9:
    case 10:
    case 11:
        commit_batch(m);
        break;
    case 12:
    case 13:
    case 14:
        consume(m);
        break;
    case 15:
    case 16:
        if (lane_is_blocked(m->lane) && m->room_announced) {
            lane_go_on(m->lane);
        } else if (lane_has_rest(m->lane)) {
            lane_go_on(m->lane);
        }
        break;
    case 17:
    case 18:
        read_journal(m);
        break;
    default:
        receive_frame(m);
        break;
    }
}

/* Everything quiet: now all that is left must come, in few steps. */
static void
settle(struct model *m)
{
    lane_hold(m->lane, false);
    lane_give_up(m->lane);
    for (size_t i = 0; i < 2 * ROWS_MAX; i++) {
        m->inbox_count = 0;
        m->room_announced = true;
        lane_go_on(m->lane);
        lane_compare(m->lane, m->newest);
        if (!lane_is_behind(m->lane) && lane_cursor(m->lane) == m->newest) {
            break;
        }
        read_journal(m);
    }
    assert_false(lane_is_behind(m->lane));
    assert_int_equal(lane_cursor(m->lane), m->newest);
    for (size_t i = 0; i < m->row_count; i++) {
        if (!m->rows[i].finished && m->rows[i].seq > m->last_seq) {
            fail_msg("seq %" PRId64 " was never handed on", m->rows[i].seq);
        }
    }
}

/* For the message of a failure. */
static uint64_t current_seed;

static int
name_seed(void **state)
{
    (void)state;
    if (current_seed != 0) {
        print_error("run again with LANE_SEED=%" PRIu64 "\n", current_seed);
    }
    return 0;
}

static void
run_seed(uint64_t seed)
{
    struct model *m = calloc(1, sizeof(*m));

    m->random = seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
    for (int i = 0; i < 10; i++) {
        (void)next_random(m);
    }
    start_dispatcher(m);
    for (size_t i = 0; i < 1500; i++) {
        step(m);
    }
    settle(m);
    assert_true(m->handed_on > 0);
    lane_free(&m->lane);
    free(m);
}

static void
each_seq_is_handed_on_once_and_in_order(void **state)
{
    const char *only = getenv("LANE_SEED");
    const char *count = getenv("LANE_SEEDS");
    uint64_t seeds = count != NULL ? strtoull(count, NULL, 10) : 5000;

    (void)state;
    if (only != NULL) {
        run_seed(strtoull(only, NULL, 10));
        return;
    }
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        current_seed = seed;
        run_seed(seed);
    }
    current_seed = 0;
}

#define WITH_LANE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_LANE(it_starts_behind_and_ignores_frames),
        WITH_LANE(a_short_page_makes_it_live),
        WITH_LANE(rows_of_a_page_beyond_the_newest_move_the_cursor),
        WITH_LANE(frames_are_put_in_order),
        WITH_LANE(the_window_ends_at_its_rows),
        WITH_LANE(the_window_ends_at_its_bytes),
        WITH_LANE(bytes_leave_the_window_with_their_frames),
        WITH_LANE(a_gap_given_up_is_read_from_the_journal),
        WITH_LANE(a_lost_last_frame_shows_at_the_second_comparison),
        WITH_LANE(a_frame_in_time_satisfies_the_comparison),
        WITH_LANE(a_full_inbox_makes_it_fall_behind_without_a_page),
        WITH_LANE(the_rest_of_a_page_is_kept_while_the_inbox_is_full),
        WITH_LANE(nothing_goes_on_while_it_is_held),
        WITH_LANE(a_broken_row_is_handed_on_as_such),
        WITH_LANE(the_largest_seq_is_no_special_case),
        cmocka_unit_test(each_seq_is_handed_on_once_and_in_order),
    };

    return cmocka_run_group_tests(tests, NULL, name_seed);
}
