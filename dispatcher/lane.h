/* One service's lane of the feed: the decision what is handed on, when and in
 * which order. It has no clock, no socket and no database: the feed shows it
 * frames, pages and the newest seq; it calls hand_on.
 *
 *   live:   frame cursor+1          -> handed on, and what waited behind it
 *           frame within the window -> kept until its turn
 *           frame beyond, inbox full, gap given up, newest seq not reached
 *                                   -> behind; what was kept is forgotten
 *   behind: pages with seq > cursor -> handed on; the rest of a page is kept
 *           while the inbox is full
 *           end of a short page     -> live, cursor = at least the newest seq
 *                                      read before the page
 *
 * Worked example: cursor 4; frames 5, 7, 8 -> 5 goes on, 7 and 8 are kept
 * for 6. The feed gives up waiting -> behind. The page after 5 holds 7 and 8 (6
 * was burnt) and is short -> both go on; live, cursor 8. Frame 7 once more ->
 * ignored.
 *
 * Why the newest seq is read before the page: rows that already have an
 * outcome are in no page, but a frame of theirs may still be on its way. seq is
 * given at commit, so whoever sees n sees all below n that will ever exist. */
#ifndef SLUICE_DISPATCHER_LANE_H
#define SLUICE_DISPATCHER_LANE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dispatcher/work.h"
#include "shared/frame.h"
#include "shared/journal.h"
#include "shared/rc.h"
#include "shared/services.h"

struct lane;

enum lane_source { LANE_FRAME, LANE_JOURNAL };

/* Take the work (RC_OK) or refuse it (RC_FULL): then it stays the lane's. */
typedef enum rc lane_hand_on_fn(void *arg, struct work *work,
                                enum lane_source source);

struct lane_options {
    enum service service;
    size_t window_rows;  /* > 0; kept are seq <= cursor + window_rows */
    size_t window_bytes; /* of the bodies kept */
    lane_hand_on_fn *hand_on;
    void *arg;
};

/* A lane starts behind, with cursor 0. RC_NOMEM. All calls: one thread. */
enum rc lane_new(struct lane **out,
                 const struct lane_options *options) MUST_CHECK;
void lane_free(struct lane **l);

/* Show a frame of this service. RC_OK: handed on or kept; RC_AGAIN: not needed
 * (behind, or seen before); RC_FULL: the lane fell behind because of it;
 * RC_NOMEM: the same, for want of memory. */
enum rc lane_frame(struct lane *l, const struct frame *frame) MUST_CHECK;

/* Does the lane wait for a page? Then read the newest seq, then the rows with
 * seq > lane_cursor() into *lane_page() (the lane's), and call lane_read. */
bool lane_wants_page(const struct lane *l);
struct journal_page *lane_page(struct lane *l);
/* The page was read: hand on what the inbox takes (as lane_go_on). */
void lane_read(struct lane *l, int64_t newest);

/* Does the lane wait for room, because the inbox refused something? Then call
 * lane_go_on when it has room. */
bool lane_is_blocked(const struct lane *l);
/* Does a page lie there half used for another reason (no memory)? Then call
 * lane_go_on some time later. */
bool lane_has_rest(const struct lane *l);
/* Hand on the page's rest, until it is used up, or the lane is blocked, or has
 * a rest (no memory). Nothing happens while it is held. */
void lane_go_on(struct lane *l);

/* Does a frame wait for one before it? lane_give_up: it waited long enough. */
bool lane_has_gap(const struct lane *l);
void lane_give_up(struct lane *l);

/* Once in a while, while live: newest is the newest seq now. Falls behind when
 * the cursor has not reached what was newest at the previous call. */
void lane_compare(struct lane *l, int64_t newest);

/* Hand on nothing until held is false again. */
void lane_hold(struct lane *l, bool held);

bool lane_is_behind(const struct lane *l);
int64_t lane_cursor(const struct lane *l);

#endif
