/* What is handed on, when and in which order: see lane.h. The cursor is the
 * only truth; every decision is a comparison with it. */
#include "dispatcher/lane.h"

#include <stdlib.h>

struct lane {
    enum service service;
    lane_hand_on_fn *hand_on;
    void *arg;
    int64_t cursor; /* newest seq handed on, or known to need none */
    bool behind;
    bool held;
    bool blocked; /* the inbox refused; nobody said since that it has room */

    /* Live: frames that came before their turn, at index seq % window_rows. */
    struct work **window;
    size_t window_rows;
    size_t window_max_bytes;
    size_t window_count;
    size_t window_bytes;
    int64_t newest_before; /* newest seq at the previous comparison */

    /* Behind: the page in use. */
    struct journal_page page;
    bool has_page;
    size_t page_at;      /* next row */
    int64_t page_newest; /* newest seq before the page was read */
    struct work *stuck;  /* copy of the next row, which the inbox refused */
};

enum rc
lane_new(struct lane **out, const struct lane_options *options)
{
    struct lane *l = calloc(1, sizeof(*l));

    *out = NULL;
    if (l == NULL) {
        return RC_NOMEM;
    }
    l->window = calloc(options->window_rows, sizeof(*l->window));
    if (l->window == NULL) {
        free(l);
        return RC_NOMEM;
    }
    l->service = options->service;
    l->hand_on = options->hand_on;
    l->arg = options->arg;
    l->window_rows = options->window_rows;
    l->window_max_bytes = options->window_bytes;
    l->behind = true;
    *out = l;
    return RC_OK;
}

static struct work **
slot_of(struct lane *l, int64_t seq)
{
    return &l->window[(uint64_t)seq % l->window_rows];
}

static void
forget_window(struct lane *l)
{
    for (size_t i = 0; i < l->window_rows && l->window_count > 0; i++) {
        if (l->window[i] != NULL) {
            work_free(l->window[i]);
            l->window[i] = NULL;
            l->window_count--;
        }
    }
    l->window_bytes = 0;
}

void
lane_free(struct lane **lp)
{
    struct lane *l = *lp;

    if (l == NULL) {
        return;
    }
    forget_window(l);
    journal_page_free(&l->page);
    work_free(l->stuck);
    free(l->window);
    free(l);
    *lp = NULL;
}

/* The one way from live to behind. What was kept is in the journal. */
static void
fall_behind(struct lane *l)
{
    l->behind = true;
    forget_window(l);
}

/* ---- live --------------------------------------------------------------- */

/* Owns work in every case: refused, it is read again from the journal. */
static enum rc
hand_on_live(struct lane *l, struct work *work)
{
    int64_t seq = work->seq;

    if (l->hand_on(l->arg, work, LANE_FRAME) != RC_OK) {
        work_free(work);
        l->blocked = true;
        fall_behind(l);
        return RC_FULL;
    }
    l->cursor = seq;
    return RC_OK;
}

/* Hand on what waited for the frame that just went. */
static enum rc
hand_on_window(struct lane *l)
{
    while (l->window_count > 0) {
        struct work **slot = slot_of(l, l->cursor + 1);
        struct work *work = *slot;

        if (work == NULL) {
            break;
        }
        *slot = NULL;
        l->window_count--;
        l->window_bytes -= work->body_bytes;
        if (hand_on_live(l, work) != RC_OK) {
            return RC_FULL;
        }
    }
    return RC_OK;
}

/* seq - cursor cannot overflow: both are positive. */
static bool
fits_window(const struct lane *l, const struct frame *frame)
{
    return (uint64_t)(frame->seq - l->cursor) <= l->window_rows &&
           frame->body_bytes <= l->window_max_bytes - l->window_bytes;
}

enum rc
lane_frame(struct lane *l, const struct frame *frame)
{
    bool in_turn = frame->seq == l->cursor + 1;
    struct work *work;

    if (l->behind || frame->seq <= l->cursor ||
        (fits_window(l, frame) && *slot_of(l, frame->seq) != NULL)) {
        return RC_AGAIN;
    }
    if (!in_turn && !fits_window(l, frame)) {
        fall_behind(l);
        return RC_FULL;
    }
    work = work_new(l->service, frame->seq, frame->received_unix_ms, &frame->id,
                    frame->body, frame->body_bytes);
    if (work == NULL) {
        fall_behind(l);
        return RC_NOMEM;
    }
    if (!in_turn) {
        *slot_of(l, frame->seq) = work;
        l->window_count++;
        l->window_bytes += frame->body_bytes;
        return RC_OK;
    }
    if (hand_on_live(l, work) != RC_OK) {
        return RC_FULL;
    }
    return hand_on_window(l);
}

bool
lane_has_gap(const struct lane *l)
{
    return l->window_count > 0;
}

void
lane_give_up(struct lane *l)
{
    if (l->window_count > 0) {
        fall_behind(l);
    }
}

void
lane_compare(struct lane *l, int64_t newest)
{
    if (!l->behind && l->cursor < l->newest_before) {
        fall_behind(l);
    }
    l->newest_before = newest;
}

/* ---- behind ------------------------------------------------------------- */

bool
lane_wants_page(const struct lane *l)
{
    return l->behind && !l->held && !l->blocked && !l->has_page;
}

struct journal_page *
lane_page(struct lane *l)
{
    return &l->page;
}

void
lane_read(struct lane *l, int64_t newest)
{
    l->has_page = true;
    l->page_at = 0;
    l->page_newest = newest;
    lane_go_on(l);
}

/* Make l->stuck the copy of the row, unless it already is. */
static enum rc
copy_row(struct lane *l, const struct journal_row *row)
{
    if (l->stuck != NULL) {
        return RC_OK;
    }
    l->stuck = work_new(l->service, row->seq, row->received_unix_ms, &row->id,
                        row->body, row->body_bytes);
    if (l->stuck == NULL) {
        return RC_NOMEM;
    }
    l->stuck->broken = row->broken;
    return RC_OK;
}

static enum rc
hand_on_row(struct lane *l, const struct journal_row *row)
{
    enum rc rc;

    if (row->seq <= l->cursor) {
        return RC_OK;
    }
    rc = copy_row(l, row);
    if (rc != RC_OK) {
        return rc;
    }
    if (l->hand_on(l->arg, l->stuck, LANE_JOURNAL) != RC_OK) {
        l->blocked = true;
        return RC_FULL;
    }
    l->stuck = NULL;
    l->cursor = row->seq;
    return RC_OK;
}

/* The last row has gone. A short page ends the backlog: everything up to the
 * newest seq of before was handed on, or has an outcome, or never was. */
static void
finish_page(struct lane *l)
{
    l->has_page = false;
    if (l->page.more) {
        return;
    }
    if (l->cursor < l->page_newest) {
        l->cursor = l->page_newest;
    }
    l->newest_before = l->cursor;
    l->behind = false;
}

void
lane_go_on(struct lane *l)
{
    if (l->held) {
        return;
    }
    l->blocked = false;
    if (!l->has_page) {
        return;
    }
    while (l->page_at < l->page.count) {
        if (hand_on_row(l, &l->page.rows[l->page_at]) != RC_OK) {
            return;
        }
        l->page_at++;
    }
    finish_page(l);
}

bool
lane_is_blocked(const struct lane *l)
{
    return l->blocked && !l->held;
}

bool
lane_has_rest(const struct lane *l)
{
    return l->has_page && !l->blocked && !l->held;
}

void
lane_hold(struct lane *l, bool held)
{
    if (held && !l->behind) {
        fall_behind(l);
    }
    l->held = held;
}

bool
lane_is_behind(const struct lane *l)
{
    return l->behind;
}

int64_t
lane_cursor(const struct lane *l)
{
    return l->cursor;
}
