/* Two stages, a thread and a connection each: while the mails of one turn are
 * inserted, the next gets its places. */
#include "dispatcher/registrar.h"

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "dispatcher/backoff.h"
#include "dispatcher/mail_message.h"
#include "dispatcher/mongo.h"
#include "dispatcher/places_mongo.h"
#include "shared/clock.h"
#include "shared/journal.h"
#include "shared/log.h"

#define TURNS_MAX 2U
#define SWEEP_EVERY_MS 1000
#define SWEEP_PART 5 /* of the time, at most, where it takes long */
#define RETRY_BASE_MS 100
#define RETRY_MAX_MS 5000

/* What the log last said of the database. */
enum told { TOLD_NOTHING, TOLD_UP, TOLD_DOWN, TOLD_TAKEN };

/* What is done in the database, each with a success of its own. */
enum work { WORK_PLACES = 1, WORK_SWEEP = 2, WORK_MAILS = 4 };

/* Both stages': one outage is told once. */
struct health {
    pthread_mutex_t mutex;
    unsigned failing; /* of enum work */
    enum told told;
};

struct stage {
    bool gives_places; /* and sweeps; else it inserts the mails */
    struct health *health;
    int64_t node;
    struct journal *journal; /* a reader: whose node this is */
    struct queue *given;
    struct queue *served; /* not ours: the next stage's, or the caller's */
    struct metrics *metrics;
    struct mailer *mailer;
    struct mongo *mongo;
    struct places places;
    struct allocator *allocator;
    struct registrar_turn *turn; /* being served */
    struct backoff backoff;
    pthread_t thread;
    atomic_bool stopping;
    int wake_fd;
    int failures;        /* in a row */
    int64_t retry_at_ms; /* MongoDB is not asked before */
    int64_t sweep_at_ms;
    int64_t swept_ms;  /* time that this round of sweeps has taken */
    bool prepared;     /* the node is ours, the indexes are there */
    const char *error; /* of the last failure, where it is kept */
};

struct registrar {
    struct health health;
    struct stage *places;
    struct stage *mails;
};

/* ---- the database up and down -----------------------------------------------
 */

static void
note_up(struct stage *r, enum work work)
{
    struct health *h = r->health;

    pthread_mutex_lock(&h->mutex);
    h->failing &= ~(unsigned)work;
    if (h->failing == 0 && h->told != TOLD_UP) {
        log_event(LOG_INFO, "mongo_up", "node=%" PRId64, r->node);
        metrics_set(r->metrics, METRIC_MONGO_UP, SERVICE_COUNT, 1);
        h->told = TOLD_UP;
    }
    pthread_mutex_unlock(&h->mutex);
}

/* What is there when it comes back may be another database, so the node and
 * the indexes, without which there would be a place N + 1, are seen to again.
 */
static void
note_down(struct stage *r, enum work work, enum rc rc)
{
    struct health *h = r->health;
    char quoted[MONGO_ERROR_BYTES + MONGO_ERROR_BYTES / 4];

    r->prepared = false;
    pthread_mutex_lock(&h->mutex);
    h->failing |= (unsigned)work;
    metrics_set(r->metrics, METRIC_MONGO_UP, SERVICE_COUNT, 0);
    if (h->told != TOLD_DOWN && h->told != TOLD_TAKEN) {
        log_event(LOG_WARN, "mongo_down",
                  "rc=%s error=%s hint=\"requests are still taken; places are "
                  "given when it is back\"",
                  rc_name(rc),
                  log_quote(rc == RC_NOMEM ? "no memory" : r->error, quoted,
                            sizeof(quoted)));
        h->told = TOLD_DOWN;
    }
    pthread_mutex_unlock(&h->mutex);
}

/* A step failed: the stage does nothing for a while. */
static void
back_off(struct stage *r, enum work work, enum rc rc)
{
    note_down(r, work, rc);
    r->failures++;
    r->retry_at_ms =
        clock_now_ms() + backoff_capped_ms(&r->backoff, RETRY_BASE_MS,
                                           r->failures, RETRY_MAX_MS);
}

static void
note_taken(struct stage *r, const char *owner)
{
    struct health *h = r->health;

    pthread_mutex_lock(&h->mutex);
    if (h->told != TOLD_TAKEN) {
        log_event(LOG_ERROR, "node_taken",
                  "node=%" PRId64 " database=mongo owner_journal=%s "
                  "hint=\"give this dispatcher a node.id of its own\"",
                  r->node, owner);
        h->told = TOLD_TAKEN;
    }
    pthread_mutex_unlock(&h->mutex);
}

/* Claim the node and make the indexes, once a connection. A node that another
 * journal has claimed is an error that waits for the operator: nothing is given
 * out. */
static enum rc
prepare(struct stage *r)
{
    struct uuid identity;
    char journal[UUID_TEXT_BYTES];
    char owner[UUID_TEXT_BYTES] = "";
    enum rc rc;

    if (r->prepared) {
        return RC_OK;
    }
    r->error = journal_error(r->journal);
    rc = journal_identity(r->journal, &identity);
    if (rc != RC_OK) {
        return rc;
    }
    r->error = mongo_error(r->mongo);
    rc = mongo_claim_node(r->mongo, r->node, uuid_format(&identity, journal),
                          owner);
    if (rc == RC_INVALID && owner[0] != '\0') {
        mailer_own(r->mailer, false);
        note_taken(r, owner);
    }
    if (rc == RC_OK) {
        rc = places_mongo_prepare(r->mongo);
    }
    if (rc == RC_OK) {
        mailer_own(r->mailer, true);
    }
    r->prepared = rc == RC_OK;
    return rc;
}

/* ---- turns ------------------------------------------------------------------
 */

static const enum metric counted[] = {
    [ALLOCATOR_PLACE] = METRIC_INVITATION_PLACES_TOTAL,
    [ALLOCATOR_WAITING] = METRIC_INVITATION_WAITING_TOTAL,
    [ALLOCATOR_REPEATED] = METRIC_INVITATION_REPEATED_TOTAL,
    [ALLOCATOR_REFUSED] = METRIC_INVITATION_REFUSED_TOTAL,
    [ALLOCATOR_UNKNOWN] = METRIC_INVITATION_UNKNOWN_TOTAL,
};

static void
count_lost(struct stage *r)
{
    metrics_add(r->metrics, METRIC_INVITATION_CONFLICTS_TOTAL, SERVICE_COUNT,
                (int64_t)allocator_lost(r->allocator));
}

static void
count_turn(struct stage *r)
{
    for (size_t i = 0; i < r->turn->count; i++) {
        enum allocator_what what = r->turn->outcomes[i].what;

        if (what > ALLOCATOR_UNDECIDED && what < ALLOCATOR_POISON) {
            metrics_add(r->metrics, counted[what], SERVICE_COUNT, 1);
        }
    }
}

static void
hand_back(struct stage *r)
{
    if (queue_push(r->served, r->turn, 0) != RC_OK) { /* it has room for all */
        log_event(LOG_ERROR, "invitation_turn_lost", "requests=%zu",
                  r->turn->count);
        free(r->turn);
    }
    r->turn = NULL;
}

/* The places of the turn, or its mails. */
static enum rc
work_on(struct stage *r)
{
    struct registrar_turn *turn = r->turn;
    int64_t now_unix_ms = clock_now_unix_ms();
    enum rc rc = prepare(r);

    if (rc != RC_OK) {
        return rc;
    }
    return r->gives_places
               ? allocator_serve(r->allocator, now_unix_ms, turn->people,
                                 turn->count, turn->outcomes)
               : allocator_mail(r->allocator, now_unix_ms, turn->people,
                                turn->count, turn->outcomes);
}

/* True: one was served, there may be more. */
static bool
serve(struct stage *r)
{
    enum work work = r->gives_places ? WORK_PLACES : WORK_MAILS;
    int64_t began_ms = clock_now_ms();
    enum rc rc;

    if (r->turn == NULL) {
        r->turn = queue_pop(r->given);
    }
    if (r->turn == NULL) {
        return false;
    }
    rc = work_on(r);
    count_lost(r);
    if (rc != RC_OK) {
        back_off(r, work, rc);
        return false;
    }
    r->failures = 0;
    note_up(r, work);
    metrics_observe_ms(r->metrics, METRIC_MONGO_MS, SERVICE_COUNT,
                       clock_now_ms() - began_ms);
    if (!r->gives_places) {
        count_turn(r);
        mailer_wake(r->mailer);
    }
    hand_back(r);
    return true;
}

/* When the next sweep is due: a round may take a part of the time only, and so
 * may sweeps that fail, lest turns wait for them. */
static void
plan_sweep(struct stage *r, int64_t began_ms, bool goes_on)
{
    int64_t ended_ms = clock_now_ms();
    int64_t rest_ms;

    r->swept_ms += ended_ms - began_ms;
    rest_ms = r->swept_ms * (SWEEP_PART - 1);
    rest_ms = rest_ms > SWEEP_EVERY_MS ? rest_ms : SWEEP_EVERY_MS;
    r->sweep_at_ms = goes_on ? ended_ms : ended_ms + rest_ms;
    if (!goes_on) {
        r->swept_ms = 0;
    }
}

static void
sweep(struct stage *r, int64_t now_ms)
{
    struct allocator_swept swept = {0};
    enum rc rc;

    if (!r->gives_places || now_ms < r->sweep_at_ms) {
        return;
    }
    rc = prepare(r);
    if (rc == RC_OK) {
        rc = allocator_sweep(r->allocator, clock_now_unix_ms(), &swept);
        count_lost(r);
    }
    metrics_add(r->metrics, METRIC_INVITATION_PROMOTED_TOTAL, SERVICE_COUNT,
                (int64_t)swept.moved);
    if (swept.moved > 0) {
        mailer_wake(r->mailer);
    }
    plan_sweep(r, now_ms, rc == RC_OK && swept.more);
    if (rc != RC_OK) {
        back_off(r, WORK_SWEEP, rc);
        return;
    }
    note_up(r, WORK_SWEEP);
    if (r->turn == NULL) { /* else it is the turn that fails */
        r->failures = 0;
    }
}

/* ---- the thread -------------------------------------------------------------
 */

static void
wait_for_something(struct stage *r)
{
    int64_t now_ms = clock_now_ms();
    bool held = now_ms < r->retry_at_ms || r->turn != NULL;
    int64_t until_ms = held ? r->retry_at_ms : r->sweep_at_ms;
    int64_t wait_ms = until_ms > now_ms ? until_ms - now_ms : 0;
    /* While it is down, or a turn is kept, a new one is no news. */
    struct pollfd fds[] = {
        {.fd = r->wake_fd, .events = POLLIN},
        {.fd = held ? -1 : queue_ready_fd(r->given), .events = POLLIN},
    };

    if (!held && !r->gives_places) {
        wait_ms = -1;
    }
    (void)poll(fds, ARRAY_COUNT(fds), (int)wait_ms);
}

static void *
run(void *arg)
{
    struct stage *r = arg;

    while (!atomic_load(&r->stopping)) {
        bool again = false;

        if (clock_now_ms() >= r->retry_at_ms) {
            again = serve(r);
        }
        if (clock_now_ms() >= r->retry_at_ms) {
            sweep(r, clock_now_ms());
        }
        if (!again) {
            wait_for_something(r);
        }
    }
    return NULL;
}

/* ---- life -------------------------------------------------------------------
 */

static void
destroy(struct stage *r)
{
    allocator_free(&r->allocator);
    if (r->places.ops != NULL) {
        r->places.ops->free(&r->places.self);
    }
    mongo_free(&r->mongo);
    journal_free(&r->journal);
    queue_free(&r->given, free);
    free(r->turn);
    if (r->wake_fd >= 0) {
        (void)close(r->wake_fd);
    }
    free(r);
}

/* Message-IDs end with the host that mails come from. */
static enum rc
open_places(struct stage *r, const struct conf *conf)
{
    struct mail_sender sender;
    const char *at;
    enum rc rc = mail_sender_parse(conf->mail.from, &sender);

    at = rc == RC_OK ? strrchr(sender.mailbox, '@') : NULL;
    return places_mongo_new(
        &r->places, &(struct places_mongo_options){
                        .mongo = r->mongo,
                        .node = (int32_t)r->node,
                        .mail_host = at != NULL ? at + 1 : "localhost"});
}

static enum rc
build(struct stage *r, const struct registrar_options *options)
{
    const struct conf *conf = options->conf;
    struct journal_options journal;
    enum rc rc;

    r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (r->wake_fd < 0) {
        return RC_IO;
    }
    journal = journal_options_of(&conf->journal, JOURNAL_READER);
    rc = journal_new(&r->journal, &journal);
    if (rc == RC_OK) {
        rc = queue_new(&r->given, TURNS_MAX, 0);
    }
    if (rc == RC_OK) {
        rc = mongo_new(&r->mongo, conf->mongo.uri, conf->mongo.timeout_ms);
    }
    if (rc == RC_OK) {
        rc = open_places(r, conf);
    }
    if (rc == RC_OK) {
        rc = allocator_new(&r->allocator, &r->places);
    }
    if (rc == RC_OK && pthread_create(&r->thread, NULL, run, r) != 0) {
        rc = RC_IO;
    }
    return rc;
}

/* Both are told before either is waited for. */
static void
tell_to_stop(struct stage *r)
{
    if (r != NULL) {
        atomic_store(&r->stopping, true);
        (void)eventfd_write(r->wake_fd, 1);
    }
}

static void
free_stage(struct stage **r)
{
    if (*r != NULL) {
        pthread_join((*r)->thread, NULL);
        destroy(*r);
        *r = NULL;
    }
}

static enum rc
start_stage(struct stage **out, struct health *health,
            const struct registrar_options *options, struct queue *served,
            bool gives_places)
{
    struct stage *r = calloc(1, sizeof(*r));
    enum rc rc;

    *out = NULL;
    if (r == NULL) {
        return RC_NOMEM;
    }
    r->gives_places = gives_places;
    r->health = health;
    r->node = options->conf->node.id;
    r->served = served;
    r->metrics = options->metrics;
    r->mailer = options->mailer;
    backoff_init(&r->backoff);
    rc = build(r, options);
    if (rc != RC_OK) {
        log_event(LOG_ERROR, "registrar_not_started", "rc=%s uri_error=%s",
                  rc_name(rc), rc == RC_INVALID ? "mongo.uri" : "none");
        destroy(r);
        return rc;
    }
    *out = r;
    return RC_OK;
}

enum rc
registrar_start(struct registrar **out, const struct registrar_options *options)
{
    struct registrar *r = calloc(1, sizeof(*r));
    enum rc rc;

    *out = NULL;
    if (r == NULL) {
        return RC_NOMEM;
    }
    pthread_mutex_init(&r->health.mutex, NULL);
    rc = start_stage(&r->mails, &r->health, options, options->served, false);
    if (rc == RC_OK) {
        rc =
            start_stage(&r->places, &r->health, options, r->mails->given, true);
    }
    if (rc != RC_OK) {
        registrar_stop(&r);
        return rc;
    }
    *out = r;
    return RC_OK;
}

void
registrar_stop(struct registrar **r)
{
    if (*r == NULL) {
        return;
    }
    tell_to_stop((*r)->places);
    tell_to_stop((*r)->mails);
    free_stage(&(*r)->places); /* first: it hands on to the other */
    free_stage(&(*r)->mails);
    pthread_mutex_destroy(&(*r)->health.mutex);
    free(*r);
    *r = NULL;
}

enum rc
registrar_give(struct registrar *r, struct registrar_turn *turn)
{
    return queue_push(r->places->given, turn, 0);
}
