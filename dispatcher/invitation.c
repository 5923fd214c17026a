/* The invitation service: requests for places, from the journal to MongoDB and
 * back. It decodes them, hands them to the registrar in turns, in order of
 * arrival, and retires them once their effects are there: a request's outcome
 * is its documents, so nothing is left to store, and outcome, finish and retire
 * are one transaction.
 *
 *   accept -> waiting -> turn -> registrar -> served -> writer -> done
 *
 * At most two turns are with the registrar, one for each of its stages, while
 * the writer retires those before. While the disk fails, served ones gather
 * here, so what is in hand is bounded, in requests and in turns (a turn takes
 * half a MiB, however few stand in it). */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/registrar.h"
#include "dispatcher/service.h"
#include "shared/invitation_msg.h"
#include "shared/log.h"

#define WAITING_MAX 1024U
#define TURNS_MAX 2U      /* with the registrar */
#define TURNS_HELD_MAX 4U /* with the registrar or the writer */
#define IN_HAND_MAX 4096U /* requests, wherever they are */
#define TRY_AGAIN_MS 10   /* writer full, no memory */
#define IDLE_MS 60000
#define REASON_BROKEN "record cannot be decoded: not a request for a place"

struct invitation_desk {
    struct service_context context; /* conf and journal: in new() only */
    bool fold_plus_tags;
    int32_t node;
    struct mailer *mailer;
    struct registrar *registrar;
    struct queue *served;
    struct work *waiting[WAITING_MAX]; /* in order of seq, from first */
    size_t first;
    size_t waiting_count;
    struct registrar_turn *ungiven; /* the registrar did not take it */
    struct record *unsubmitted;     /* the writer was full; in any order */
    bool starved;                   /* no memory to take what was served */
    size_t turns;                   /* with the registrar */
    size_t people;                  /* in them */
    size_t turns_retiring;          /* unsubmitted, or with the writer */
    size_t retiring;                /* requests in those, and broken ones */
};

/* ---- writes -----------------------------------------------------------------
 */

/* One turn, or one broken record, on its way out of the journal. */
struct record {
    struct write write; /* first */
    struct record *next;
    struct registrar_turn *turn; /* or NULL: */
    struct work *broken;
    int64_t now_unix_ms;
};

static void
record_free(struct record *r)
{
    free(r->turn);
    work_free(r->broken);
    free(r);
}

static enum rc
apply_bury(struct journal *journal, struct write *write)
{
    const struct record *r = (const struct record *)write;

    return journal_bury(journal, SERVICE_INVITATION, r->broken->seq,
                        REASON_BROKEN, NULL, 0, NULL, 0, r->now_unix_ms);
}

static enum rc
bury_poison(struct journal *journal, const struct record *r, size_t i)
{
    return journal_bury(journal, SERVICE_INVITATION, r->turn->people[i].seq,
                        r->turn->outcomes[i].why, NULL, 0, NULL, 0,
                        r->now_unix_ms);
}

/* What is in MongoDB leaves the journal; a repeat finds nothing to do. */
static enum rc
apply_turn(struct journal *journal, struct write *write)
{
    const struct record *r = (const struct record *)write;
    int64_t retired = 0;
    int64_t no = 0;
    enum rc rc = journal_outcome_add(journal, SERVICE_INVITATION, "", 0, &no);

    for (size_t i = 0; rc == RC_OK && i < r->turn->count; i++) {
        if (r->turn->outcomes[i].what == ALLOCATOR_POISON) {
            rc = bury_poison(journal, r, i);
        } else {
            rc = journal_finish(journal, SERVICE_INVITATION,
                                r->turn->people[i].seq, no);
        }
        rc = rc == RC_AGAIN ? RC_OK : rc; /* already so */
    }
    return rc == RC_OK
               ? journal_retire(journal, SERVICE_INVITATION, no, no, &retired)
               : rc;
}

static size_t
requests_of(const struct record *r)
{
    return r->turn != NULL ? r->turn->count : 1;
}

static void
submit(struct invitation_desk *desk, struct record *r)
{
    r->write =
        (struct write){.apply = r->turn != NULL ? apply_turn : apply_bury,
                       .reply_to = desk->context.replies};
    if (writer_submit(desk->context.writer, &r->write) != RC_OK) {
        r->next = desk->unsubmitted;
        desk->unsubmitted = r;
    }
}

/* A new record. */
static void
retire(struct invitation_desk *desk, struct record *r)
{
    desk->retiring += requests_of(r);
    desk->turns_retiring += r->turn != NULL;
    submit(desk, r);
}

static void
submit_again(struct invitation_desk *desk)
{
    struct record *r = desk->unsubmitted;

    desk->unsubmitted = NULL;
    while (r != NULL) {
        struct record *next = r->next;

        submit(desk, r);
        r = next;
    }
}

/* ---- people -----------------------------------------------------------------
 */

/* RC_INVALID: it is no request for a place. */
static enum rc
read_person(const struct invitation_desk *desk, const struct work *work,
            struct person *out)
{
    struct invitation_msg msg;
    const char *why = NULL;
    enum rc rc;

    if (work->broken) {
        return RC_INVALID;
    }
    rc = invitation_msg_decode(work->body, work->body_bytes, &msg);
    if (rc == RC_OK) {
        rc = address_parse(msg.email, strlen(msg.email), desk->fold_plus_tags,
                           &out->address, &why);
    }
    if (rc == RC_OK) {
        memcpy(out->code, msg.code, sizeof(out->code));
        (void)uuid_format(&work->id, out->request_id);
        out->node = desk->node;
        out->seq = work->seq;
        out->received_unix_ms = work->received_unix_ms;
    }
    return rc;
}

static struct work *
first_waiting(const struct invitation_desk *desk)
{
    return desk->waiting[desk->first % WAITING_MAX];
}

static void
leave(struct invitation_desk *desk)
{
    desk->first = (desk->first + 1) % WAITING_MAX;
    desk->waiting_count--;
}

static enum rc
quarantine(struct invitation_desk *desk, struct work *work, int64_t now_unix_ms)
{
    struct record *r = calloc(1, sizeof(*r));

    if (r == NULL) {
        return RC_NOMEM;
    }
    r->broken = work;
    r->now_unix_ms = now_unix_ms;
    retire(desk, r);
    return RC_OK;
}

/* Those who wait, in order, until the turn is full or memory is not to be had.
 */
static void
fill_turn(struct invitation_desk *desk, struct registrar_turn *turn,
          int64_t now_unix_ms)
{
    while (desk->waiting_count > 0 && turn->count < REGISTRAR_TURN_MAX) {
        struct work *work = first_waiting(desk);
        enum rc rc = read_person(desk, work, &turn->people[turn->count]);

        if (rc == RC_OK) {
            turn->count++;
            work_free(work);
        } else if (rc == RC_INVALID) {
            rc = quarantine(desk, work, now_unix_ms);
        }
        if (rc != RC_OK) {
            return;
        }
        leave(desk);
    }
}

/* The next turn, or NULL: nobody waits, or there is no memory. */
static struct registrar_turn *
make_turn(struct invitation_desk *desk, int64_t now_unix_ms)
{
    struct registrar_turn *turn = calloc(1, sizeof(*turn));

    if (turn != NULL) {
        fill_turn(desk, turn, now_unix_ms);
        if (turn->count == 0) {
            free(turn);
            turn = NULL;
        }
    }
    return turn;
}

static bool
may_give(const struct invitation_desk *desk)
{
    return desk->turns < TURNS_MAX &&
           desk->turns + desk->turns_retiring < TURNS_HELD_MAX &&
           (desk->ungiven != NULL || desk->waiting_count > 0);
}

static void
give_turns(struct invitation_desk *desk, int64_t now_unix_ms)
{
    while (may_give(desk)) {
        struct registrar_turn *turn = desk->ungiven;

        desk->ungiven = NULL;
        if (turn == NULL) {
            turn = make_turn(desk, now_unix_ms);
        }
        if (turn == NULL) {
            return;
        }
        if (registrar_give(desk->registrar, turn) != RC_OK) {
            desk->ungiven = turn; /* before all who wait */
            return;
        }
        desk->turns++;
        desk->people += turn->count;
    }
}

/* ---- what comes back --------------------------------------------------------
 */

static void
take_served(struct invitation_desk *desk, int64_t now_unix_ms)
{
    desk->starved = false;
    while (queue_count(desk->served) > 0) {
        struct record *r = calloc(1, sizeof(*r));

        if (r == NULL) {
            desk->starved = true;
            return;
        }
        r->turn = queue_pop(desk->served);
        r->now_unix_ms = now_unix_ms;
        desk->turns--;
        desk->people -= r->turn->count;
        retire(desk, r);
    }
}

static void
count_poison(struct invitation_desk *desk, const struct registrar_turn *turn,
             size_t i)
{
    if (turn->outcomes[i].what == ALLOCATOR_POISON) {
        metrics_add(desk->context.metrics, METRIC_DEAD_TOTAL,
                    SERVICE_INVITATION, 1);
        /* Its reason may quote the address: it stands in the dead letters. */
        log_event(LOG_ERROR, "invitation_refused_by_store",
                  "seq=%" PRId64 " id=%s", turn->people[i].seq,
                  turn->people[i].request_id);
    } else {
        metrics_add(desk->context.metrics, METRIC_PERSISTED_TOTAL,
                    SERVICE_INVITATION, 1);
    }
}

static void
note_turn(struct invitation_desk *desk, const struct registrar_turn *turn,
          int64_t now_unix_ms)
{
    for (size_t i = 0; i < turn->count; i++) {
        count_poison(desk, turn, i);
        metrics_observe_ms(desk->context.metrics, METRIC_COMPLETION_MS,
                           SERVICE_INVITATION,
                           now_unix_ms - turn->people[i].received_unix_ms);
    }
}

static void
invitation_written(void *arg, struct write *write, struct now now)
{
    struct invitation_desk *desk = arg;
    struct record *r = (struct record *)write;

    desk->retiring -= requests_of(r);
    desk->turns_retiring -= r->turn != NULL;
    if (write->rc != RC_OK) {
        log_event(LOG_ERROR, "invitation_record_refused", "requests=%zu rc=%s",
                  requests_of(r), rc_name(write->rc));
    } else if (r->turn != NULL) {
        note_turn(desk, r->turn, now.unix_ms);
    } else {
        metrics_add(desk->context.metrics, METRIC_DEAD_TOTAL,
                    SERVICE_INVITATION, 1);
        metrics_add(desk->context.metrics, METRIC_QUARANTINED_TOTAL,
                    SERVICE_INVITATION, 1);
        log_event(LOG_ERROR, "record_quarantined", "service=%s seq=%" PRId64,
                  service_name(SERVICE_INVITATION), r->broken->seq);
    }
    record_free(r);
}

/* ---- the turn of the loop ---------------------------------------------------
 */

static size_t
in_hand(const struct invitation_desk *desk)
{
    return desk->waiting_count +
           (desk->ungiven != NULL ? desk->ungiven->count : 0) + desk->people +
           desk->retiring;
}

static bool
invitation_has_room(const void *arg)
{
    const struct invitation_desk *desk = arg;

    return desk->waiting_count < WAITING_MAX && in_hand(desk) < IN_HAND_MAX;
}

static void
invitation_accept(void *arg, struct work *work, struct now now)
{
    struct invitation_desk *desk = arg;

    (void)now;
    desk->waiting[(desk->first + desk->waiting_count) % WAITING_MAX] = work;
    desk->waiting_count++;
}

static int64_t
invitation_tick(void *arg, struct now now, bool paused)
{
    struct invitation_desk *desk = arg;

    submit_again(desk);
    take_served(desk, now.unix_ms);
    if (!paused) {
        give_turns(desk, now.unix_ms);
    }
    metrics_set(desk->context.metrics, METRIC_ACTIVE_REQUESTS,
                SERVICE_INVITATION, (int64_t)in_hand(desk));
    return desk->unsubmitted != NULL || desk->starved ||
                   (!paused && may_give(desk))
               ? TRY_AGAIN_MS
               : IDLE_MS;
}

static bool
invitation_idle(const void *arg)
{
    const struct invitation_desk *desk = arg;

    return desk->turns == 0 && desk->retiring == 0;
}

static int
invitation_fd(const void *arg)
{
    const struct invitation_desk *desk = arg;

    /* Without memory it would be readable for ever. */
    return desk->starved ? -1 : queue_ready_fd(desk->served);
}

static void
invitation_configure(void *arg, const struct conf *conf)
{
    struct invitation_desk *desk = arg;

    desk->fold_plus_tags = strcmp(conf->invitation.fold_plus_tags, "yes") == 0;
    if (desk->mailer != NULL) {
        mailer_configure(desk->mailer, conf);
    }
}

static void
invitation_report(const void *arg, struct text *out)
{
    const struct invitation_desk *desk = arg;

    text_printf(out, "\"waiting\":%zu,\"being_served\":%zu,\"retiring\":%zu,",
                desk->waiting_count +
                    (desk->ungiven != NULL ? desk->ungiven->count : 0),
                desk->people, desk->retiring);
    mailer_report(desk->mailer, out);
}

/* ---- life -------------------------------------------------------------------
 */

static void
invitation_halt(void *arg)
{
    struct invitation_desk *desk = arg;

    registrar_stop(&desk->registrar);
    mailer_stop(&desk->mailer);
}

static void
invitation_free(void **arg)
{
    struct invitation_desk *desk = *arg;

    *arg = NULL;
    if (desk == NULL) {
        return;
    }
    invitation_halt(desk);
    queue_free(&desk->served, free);
    free(desk->ungiven);
    while (desk->unsubmitted != NULL) {
        struct record *r = desk->unsubmitted;

        desk->unsubmitted = r->next;
        record_free(r);
    }
    while (desk->waiting_count > 0) {
        work_free(first_waiting(desk));
        leave(desk);
    }
    free(desk);
}

static enum rc
invitation_new(void **out, const struct service_context *context)
{
    struct invitation_desk *desk = calloc(1, sizeof(*desk));
    void *unfinished = desk;
    const struct conf *conf = context->conf;
    struct registrar_options options = {.conf = conf,
                                        .metrics = context->metrics};
    enum rc rc;

    *out = NULL;
    if (desk == NULL) {
        return RC_NOMEM;
    }
    desk->context = *context;
    invitation_configure(desk, conf);
    desk->node = (int32_t)conf->node.id;
    desk->context.conf = NULL;
    desk->context.journal = NULL;
    rc = queue_new(&desk->served, TURNS_MAX, 0);
    if (rc == RC_OK) {
        rc = mailer_start(&desk->mailer, conf, context->metrics);
    }
    if (rc == RC_OK) {
        options.served = desk->served;
        options.mailer = desk->mailer;
        rc = registrar_start(&desk->registrar, &options);
    }
    if (rc != RC_OK) {
        invitation_free(&unfinished);
        return rc;
    }
    *out = desk;
    return RC_OK;
}

const struct service_ops invitation_service = {
    .service = SERVICE_INVITATION,
    .new = invitation_new,
    .free = invitation_free,
    .halt = invitation_halt,
    .fd = invitation_fd,
    .has_room = invitation_has_room,
    .accept = invitation_accept,
    .written = invitation_written,
    .tick = invitation_tick,
    .idle = invitation_idle,
    .configure = invitation_configure,
    .report = invitation_report,
};
