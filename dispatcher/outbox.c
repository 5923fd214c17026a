/* The outbox's rules. Tokens are thousandths of a mail, so that a rate per
 * second is a whole number of them per millisecond. */
#include "dispatcher/outbox.h"

#define MAIL_TOKENS INT64_C(1000)
#define BURST_MS 50 /* how much of the rate may be saved up */
#define ATTEMPTS_MIN 5
#define BLOCKED_MAX 10
/* Of the times in which nothing is taken, so many count: else a mail that met a
 * long outage of ours would be given up at the beginning of the next. */
#define BLOCKED_BY_US_MAX 5

const char *const outbox_states[OUTBOX_STATE_COUNT] = {
    [OUTBOX_QUEUED] = "queued",   [OUTBOX_SENT] = "sent",
    [OUTBOX_REFUSED] = "refused", [OUTBOX_GIVEN_UP] = "given_up",
    [OUTBOX_SKIPPED] = "skipped",
};

/* ---- one mail ---------------------------------------------------------------
 */

static struct outbox_mail
put_off(struct outbox *o, struct outbox_mail mail, int64_t now_unix_ms)
{
    if (mail.first_unix_ms == 0) {
        mail.first_unix_ms = now_unix_ms;
    }
    if (mail.attempts >= ATTEMPTS_MIN &&
        now_unix_ms - mail.first_unix_ms >= o->options.retry_for_s * 1000) {
        mail.state = OUTBOX_GIVEN_UP;
        return mail;
    }
    mail.next_unix_ms =
        now_unix_ms + backoff_capped_ms(&o->backoff, o->options.retry_base_ms,
                                        mail.attempts, OUTBOX_MAX_PAUSE_MS);
    return mail;
}

/* Not jittered: it is to come after the pause, and others before it. */
static struct outbox_mail
block(const struct outbox *o, struct outbox_mail mail, int64_t now_unix_ms)
{
    int64_t own_ms = o->options.pause_ms;

    for (int64_t i = 0; i <= mail.blocked && own_ms < OUTBOX_MAX_PAUSE_MS;
         i++) {
        own_ms *= 2;
    }
    if (o->was_taken || mail.blocked < BLOCKED_BY_US_MAX) {
        mail.blocked++;
    }
    if (mail.blocked >= BLOCKED_MAX && o->was_taken) {
        mail.state = OUTBOX_GIVEN_UP;
        return mail;
    }
    mail.next_unix_ms =
        now_unix_ms +
        (own_ms < OUTBOX_MAX_PAUSE_MS ? own_ms : OUTBOX_MAX_PAUSE_MS);
    return mail;
}

struct outbox_mail
outbox_next(struct outbox *o, struct outbox_mail mail, enum outbox_event event,
            int64_t now_unix_ms)
{
    if (mail.state != OUTBOX_QUEUED) {
        return mail;
    }
    mail.attempts +=
        event != OUTBOX_WE_ARE_REFUSED && event != OUTBOX_NOT_DUE ? 1 : 0;
    switch (event) {
    case OUTBOX_TAKEN:
        mail.state = OUTBOX_SENT;
        break;
    case OUTBOX_PUT_OFF:
        mail = put_off(o, mail, now_unix_ms);
        break;
    case OUTBOX_RECIPIENT_REFUSED:
        mail.state = OUTBOX_REFUSED;
        break;
    case OUTBOX_WE_ARE_REFUSED:
        mail = block(o, mail, now_unix_ms);
        break;
    case OUTBOX_NOT_DUE:
        mail.state = OUTBOX_SKIPPED;
        break;
    case OUTBOX_EVENT_COUNT:
        break;
    }
    return mail;
}

/* ---- all mail ---------------------------------------------------------------
 */

static void
fill(struct outbox *o, int64_t now_ms)
{
    int64_t most = o->options.max_per_s * BURST_MS;
    int64_t passed_ms = now_ms - o->filled_ms;

    most = most > MAIL_TOKENS ? most : MAIL_TOKENS;
    /* Longer than any bucket takes to fill at 1 a second, and no overflow. */
    passed_ms = passed_ms < MAIL_TOKENS ? passed_ms : MAIL_TOKENS;
    o->tokens += passed_ms * o->options.max_per_s;
    o->tokens = o->tokens < most ? o->tokens : most;
    o->filled_ms = now_ms;
}

int64_t
outbox_wait_ms(struct outbox *o, int64_t now_ms)
{
    int64_t rate = o->options.max_per_s;
    int64_t wait_ms = 0;

    if (o->is_probing) {
        return -1;
    }
    if (o->step_ms > 0 && o->until_ms > now_ms) {
        return o->until_ms - now_ms;
    }
    if (rate > 0) {
        fill(o, now_ms);
        wait_ms = o->tokens < MAIL_TOKENS
                      ? (MAIL_TOKENS - o->tokens + rate - 1) / rate
                      : 0;
    }
    return wait_ms;
}

bool
outbox_start(struct outbox *o, int64_t now_ms)
{
    if (o->options.max_per_s > 0) {
        fill(o, now_ms);
        o->tokens -= MAIL_TOKENS;
    }
    o->is_probing = o->step_ms > 0;
    return o->is_probing;
}

void
outbox_cancel(struct outbox *o, bool is_probe)
{
    o->tokens += o->options.max_per_s > 0 ? MAIL_TOKENS : 0;
    o->is_probing = o->is_probing && !is_probe;
}

/* Those that were under way when it began do not make it longer. */
static bool
pause_mail(struct outbox *o, bool is_probe, int64_t now_ms)
{
    if (o->step_ms > 0 && !is_probe) {
        return false;
    }
    o->step_ms = o->step_ms == 0 ? o->options.pause_ms : o->step_ms * 2;
    if (o->step_ms > OUTBOX_MAX_PAUSE_MS) {
        o->step_ms = OUTBOX_MAX_PAUSE_MS;
    }
    o->until_ms = now_ms + o->step_ms;
    o->was_taken = o->is_taken;
    o->is_taken = false;
    return true;
}

bool
outbox_end(struct outbox *o, bool is_probe, enum outbox_event event,
           int64_t now_ms)
{
    bool is_longer = false;

    o->is_probing = o->is_probing && !is_probe;
    switch (event) {
    case OUTBOX_TAKEN:
        /* One that left before the pause says nothing of what is now. */
        o->is_taken = o->is_taken || is_probe || o->step_ms == 0;
        o->step_ms = is_probe ? 0 : o->step_ms;
        break;
    case OUTBOX_PUT_OFF:
        /* It says nothing either way: the same again. */
        o->until_ms = is_probe ? now_ms + o->step_ms : o->until_ms;
        break;
    case OUTBOX_WE_ARE_REFUSED:
        is_longer = pause_mail(o, is_probe, now_ms);
        break;
    case OUTBOX_RECIPIENT_REFUSED: /* the next one is the probe */
    case OUTBOX_NOT_DUE:
    case OUTBOX_EVENT_COUNT:
        break;
    }
    return is_longer;
}

bool
outbox_is_paused(const struct outbox *o)
{
    return o->step_ms > 0;
}

void
outbox_init(struct outbox *o, const struct outbox_options *options,
            int64_t now_ms)
{
    *o = (struct outbox){.options = *options, .filled_ms = now_ms};
    o->tokens = MAIL_TOKENS;
    backoff_init(&o->backoff);
}

void
outbox_set(struct outbox *o, const struct outbox_options *options)
{
    o->options = *options;
    o->tokens = o->tokens > MAIL_TOKENS ? MAIL_TOKENS : o->tokens;
    o->until_ms = INT64_MIN;
}
