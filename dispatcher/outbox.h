/* What becomes of a mail, and when the next one may leave. No clock, no I/O, no
 * threads: the time is handed in. All calls: one thread.
 *
 * One mail: queued until the server takes it (sent), refuses its recipient for
 * good (refused), has put it off for retry_for_s since the first attempt and 5
 * times at least (given up: a clock that jumps, or a service that was down,
 * ends nothing), or it is not to be sent any more (skipped). Only queued ones
 * change.
 *
 * All mail: when the server refuses us, not a recipient, no mail leaves for
 * pause_ms; then one does, the probe. If that is taken all others may follow;
 * if we are refused again the pause doubles, up to an hour. The mail that met
 * the refusal loses no attempt, and comes back only after a pause of its own
 * that doubles, too: if it was this mail that the server did not like, another
 * one is the probe. A mail that met it 10 times is given up, if since the pause
 * before this one another was taken: it is this mail, then. While nothing is
 * taken nothing is given up, and no more than 5 times count.
 *
 * Worked example, pause_ms 60000:
 *   outbox_wait_ms -> 0; outbox_start -> false; outbox_end(WE_ARE_REFUSED) at 0
 *   outbox_wait_ms at 1000 -> 59000; at 60000 -> 0; outbox_start -> true
 *   outbox_wait_ms -> -1: the probe is under way
 *   outbox_end(probe, TAKEN): not paused; (probe, WE_ARE_REFUSED): 120000 */
#ifndef SLUICE_DISPATCHER_OUTBOX_H
#define SLUICE_DISPATCHER_OUTBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "dispatcher/backoff.h"

#define OUTBOX_MAX_PAUSE_MS INT64_C(3600000)

enum outbox_state {
    OUTBOX_QUEUED,
    OUTBOX_SENT,
    OUTBOX_REFUSED,  /* the recipient is; its place comes free */
    OUTBOX_GIVEN_UP, /* put off for too long, or it alone is not taken */
    OUTBOX_SKIPPED,  /* no longer due */
    OUTBOX_STATE_COUNT
};

/* "queued" and so on, as in documents. */
extern const char *const outbox_states[OUTBOX_STATE_COUNT];

enum outbox_event {
    OUTBOX_TAKEN,             /* by the server */
    OUTBOX_PUT_OFF,           /* 4xx, no connection, timeout */
    OUTBOX_RECIPIENT_REFUSED, /* 5xx to the recipient */
    OUTBOX_WE_ARE_REFUSED,    /* 5xx to anything else */
    OUTBOX_NOT_DUE,           /* a place meanwhile, or none any more */
    OUTBOX_EVENT_COUNT
};

struct outbox_mail {
    enum outbox_state state;
    int64_t next_unix_ms;  /* queued: not before */
    int64_t first_unix_ms; /* the first time it was put off; 0: never */
    int64_t attempts;      /* answers about it, but for WE_ARE_REFUSED */
    int64_t blocked;       /* times that it met WE_ARE_REFUSED; see above */
};

struct outbox_options {
    int64_t max_per_s;     /* 0: no limit */
    int64_t retry_base_ms; /* > 0 */
    int64_t retry_for_s;   /* >= 0 */
    int64_t pause_ms;      /* > 0 */
};

/* For its own struct; the members are outbox.c's. */
struct outbox {
    struct outbox_options options;
    struct backoff backoff;
    int64_t step_ms; /* of the pause; 0: not paused */
    int64_t until_ms;
    bool is_probing;
    bool is_taken;  /* a mail, since the last pause or step began */
    bool was_taken; /* one was between that and the one before */
    int64_t tokens; /* thousandths of a mail */
    int64_t filled_ms;
};

void outbox_init(struct outbox *o, const struct outbox_options *options,
                 int64_t now_ms);
/* A pause goes on, but the next probe may leave now: who has mended what was
 * wrong does not wait for the end of it. */
void outbox_set(struct outbox *o, const struct outbox_options *options);

/* What event at now_unix_ms makes of a mail; tell outbox_end of it before. One
 * that is not queued stays as it is. */
struct outbox_mail outbox_next(struct outbox *o, struct outbox_mail mail,
                               enum outbox_event event, int64_t now_unix_ms);

/* When may a mail leave at monotonic now_ms? 0: now; > 0: in so many ms; -1:
 * when the probe has ended. */
int64_t outbox_wait_ms(struct outbox *o, int64_t now_ms);
/* A mail leaves (outbox_wait_ms was 0). True: it is the probe; say so when it
 * ends. */
bool outbox_start(struct outbox *o, int64_t now_ms);
/* It did not leave, after all. */
void outbox_cancel(struct outbox *o, bool is_probe);
/* The attempt ended with event (not NOT_DUE). True: a pause begins, or goes on
 * for longer. */
bool outbox_end(struct outbox *o, bool is_probe, enum outbox_event event,
                int64_t now_ms);
bool outbox_is_paused(const struct outbox *o);

#endif
