/* From the journal's outcomes into PostgreSQL. Each service has a lane here
 * with a cursor of its own, from 0 at start: what was persisted but not yet
 * retired is persisted once more, which changes nothing.
 *
 * A turn of a lane: read a page, decode it, write it in slices, and hand the
 * writer one write that buries the poison and retires the page. That write's
 * fsync overlaps with the next page's statement, and with no more than that:
 * the next page is not retired before the one before it is. */
#include "dispatcher/store_pg.h"

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "dispatcher/migrate.h"
#include "dispatcher/queue.h"
#include "dispatcher/store_retire.h"
#include "shared/clock.h"
#include "shared/log.h"

#define PAGE_ROWS 512
#define PAGE_BYTES ((size_t)192 * 1024) /* some 5000 objects */
/* Items of one statement; halved while statements run into their timeout. */
#define SLICE_MAX 5000
#define SLICE_MIN 16
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define LOOK_EVERY_MS 1000
/* While it is down, another reason is news, but not more often. */
#define TELL_AGAIN_MS 10000
#define CONFIGS_MAX 8

struct outcome_lane {
    const struct store_persister *ops;
    void *self;
    int64_t cursor;         /* newest outcome that was persisted */
    struct retire *with_us; /* being filled; NULL: none yet */
    bool with_writer;       /* one is on its way */
};

#define LANES 4U /* services that store in PostgreSQL */

/* What the log last said of the database. */
enum told { TOLD_NOTHING, TOLD_UP, TOLD_DOWN };

struct store_pg {
    struct conf conf; /* the thread's copy */
    struct writer *writer;
    struct metrics *metrics;
    struct journal *journal; /* a reader */
    struct pg *pg;
    struct outcome_lane lanes[LANES];
    struct journal_page page;
    struct queue *replies; /* retires that come back from the writer */
    struct queue *configs; /* struct conf to change to */
    int wake_fd;
    int cancel_fd; /* timerfd; readable when a stop has lasted too long */
    int failed_fd;
    atomic_bool woken; /* wake_fd was written since the thread looked */
    atomic_bool stopping;
    pthread_t thread;
    /* The thread's own from here on. */
    bool ready;    /* migrated and claimed, and nothing seen that denies it */
    bool up;       /* worth a try now */
    bool doubtful; /* came down though connected */
    bool fatal;    /* will never be ready */
    bool journal_failing; /* logged once an episode */
    bool task_failing;    /* likewise: every_second */
    enum told told;
    char told_why[PG_ERROR_BYTES];
    int64_t told_at_ms;
    int64_t down_since_ms;
    int64_t retry_at_ms;
    unsigned failures; /* in a row */
    size_t slice;
    int64_t second_ms; /* when every_second is due */
};

/* Invitations have their outcomes in MongoDB (invitation.c). */
static const struct store_persister *const persisters[LANES] = {
    &callback_persister,
    &call_persister,
    &sms_persister,
    &sms_status_persister,
};

/* ---- the database up and down ---------------------------------------------
 */

/* Full jitter: anything up to min(5 s, 100 ms * 2^failures). */
static int64_t
backoff_ms(unsigned failures)
{
    uint32_t random = 0;
    int64_t bound_ms = BACKOFF_MIN_MS;
    for (unsigned k = 1; k < failures && bound_ms < BACKOFF_MAX_MS; k++) {
        bound_ms *= 2;
    }
    bound_ms = bound_ms < BACKOFF_MAX_MS ? bound_ms : BACKOFF_MAX_MS;
    if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
        return bound_ms;
    }
    return 1 + (int64_t)(random % (uint32_t)bound_ms);
}

/* doubtful: the server is there but refused what it should take, so that a
 * connection alone does not mean that it works again. */
static void
note_down(struct store_pg *s, const char *why, int64_t now_ms)
{
    bool news = strcmp(why, s->told_why) != 0 &&
                now_ms - s->told_at_ms >= TELL_AGAIN_MS;
    if (s->told != TOLD_DOWN || news) {
        char quoted[PG_ERROR_BYTES];
        snprintf(s->told_why, sizeof(s->told_why), "%s", why);
        s->told_at_ms = now_ms;
        log_event(LOG_WARN, "postgres_down", "error=%s",
                  log_quote(why, quoted, sizeof(quoted)));
    }
    if (s->told != TOLD_DOWN) {
        metrics_set(s->metrics, METRIC_POSTGRES_UP, SERVICE_COUNT, 0);
        s->told = TOLD_DOWN;
        s->down_since_ms = now_ms;
    }
    s->doubtful = !s->ready || pg_is_connected(s->pg);
    s->up = false;
    s->failures++;
    s->retry_at_ms = now_ms + backoff_ms(s->failures);
}

static void
note_up(struct store_pg *s, int64_t now_ms)
{
    s->up = true;
    s->doubtful = false;
    s->failures = 0;
    if (s->told != TOLD_UP) {
        log_event(LOG_INFO, "postgres_up", "down_ms=%" PRId64,
                  s->told == TOLD_DOWN ? now_ms - s->down_since_ms : 0);
        metrics_set(s->metrics, METRIC_POSTGRES_UP, SERVICE_COUNT, 1);
        s->told = TOLD_UP;
    }
}

static void
note_fatal(struct store_pg *s, const char *why)
{
    char quoted[1024];
    log_event(LOG_ERROR, "store_cannot_work", "error=%s",
              log_quote(why, quoted, sizeof(quoted)));
    s->fatal = true;
    (void)eventfd_write(s->failed_fd, 1);
}

/* node.id belongs to the journal that claimed it first: ids made with it say
 * whose journal knows them. */
static enum rc
claim_node(struct store_pg *s, struct text *why)
{
    struct uuid uuid;
    char ours[UUID_TEXT_BYTES];
    char node[24];
    const char *params[] = {node, ours};
    struct pg_result *result = NULL;
    enum rc rc = journal_identity(s->journal, &uuid);
    if (rc != RC_OK) {
        text_printf(why, "journal: %s", journal_error(s->journal));
        return RC_IO;
    }
    uuid_format(&uuid, ours);
    snprintf(node, sizeof(node), "%" PRId64, s->conf.node.id);
    rc = pg_exec(s->pg,
                 "INSERT INTO nodes (node_id, journal) VALUES ($1::int, "
                 "$2::uuid) ON CONFLICT (node_id) DO NOTHING",
                 2, params, NULL);
    if (rc == RC_OK) {
        rc = pg_exec(s->pg, "SELECT journal FROM nodes WHERE node_id = $1::int",
                     1, params, &result);
    }
    if (rc != RC_OK) {
        text_printf(why, "claiming node.id %s: %s", node, pg_error(s->pg));
        return RC_IO;
    }
    const char *owner = pg_rows(result) == 1 ? pg_value(result, 0, 0) : "none";
    if (strcmp(owner, ours) != 0) {
        text_printf(why,
                    "node.id %s belongs to journal %s, ours is %s: give this "
                    "host a node.id of its own, or, if that journal is gone "
                    "for good, delete its row from table nodes",
                    node, owner, ours);
        rc = RC_INVALID;
    }
    pg_result_free(&result);
    return rc;
}

/* Connect, bring the schema up to date, claim node.id. */
static void
bring_up(struct store_pg *s)
{
    struct text why = {0};
    int applied = 0;
    enum rc rc = pg_connect(s->pg);
    if (rc != RC_OK) {
        text_puts(&why, pg_error(s->pg));
    } else if (!s->ready) {
        rc = migrate_apply(s->pg, migrate_directory(), &applied, &why);
        if (rc == RC_OK) {
            rc = claim_node(s, &why);
        }
    }
    if (rc == RC_OK) {
        s->ready = true;
        s->up = true;
        if (!s->doubtful) {
            note_up(s, clock_now_ms());
        }
    } else if (rc == RC_INVALID) {
        note_fatal(s, text_cstr(&why));
    } else {
        note_down(s, text_cstr(&why), clock_now_ms());
    }
    text_free(&why);
}

/* ---- persisting -----------------------------------------------------------
 */

/* Does a refusal speak of the data? Cardinality, data, integrity, a check
 * option, a limit, a trigger's own exception. Anything else (no such table, no
 * privilege) would befall every row: the operator's matter, nothing is buried
 * for it. */
static bool
is_data_error(const char *sqlstate)
{
    static const char *const classes[] = {"21", "22", "23", "44", "54", "P0"};
    for (size_t k = 0; k < ARRAY_COUNT(classes); k++) {
        if (strncmp(sqlstate, classes[k], 2) == 0) {
            return true;
        }
    }
    return false;
}

static enum rc
add_poison(struct store_pg *s, struct outcome_lane *lane, size_t index)
{
    char name[JOURNAL_ITEM_BYTES];
    char quoted[PG_ERROR_BYTES];
    struct store_item item = lane->ops->item(lane->self, index);
    lane->ops->name(lane->self, index, name);
    log_event(LOG_WARN, "store_poison",
              "service=%s seq=%" PRId64 " item=%s error=%s",
              service_name(lane->ops->service), item.seq, name,
              log_quote(pg_error(s->pg), quoted, sizeof(quoted)));
    return retire_add_poison(lane->with_us, item.seq, name, pg_error(s->pg));
}

/* Write items [from, to). What the database refuses is halved until it stands
 * alone. */
static enum rc
persist_range(struct store_pg *s, struct outcome_lane *lane, size_t from,
              size_t to)
{
    int64_t start_ms = clock_now_ms();
    enum rc rc = lane->ops->persist(lane->self, s->pg, from, to);
    metrics_observe_ms(s->metrics, METRIC_POSTGRES_MS, SERVICE_COUNT,
                       clock_now_ms() - start_ms);
    if (rc == RC_OK) {
        metrics_add(s->metrics, METRIC_STORE_ROWS_TOTAL, SERVICE_COUNT,
                    (int64_t)(to - from));
        return RC_OK;
    }
    if (rc != RC_INVALID) {
        return rc;
    }
    if (!is_data_error(pg_sqlstate(s->pg))) {
        s->ready = false; /* perhaps the schema is gone */
        return RC_IO;
    }
    if (to - from <= 1) {
        return add_poison(s, lane, from);
    }
    size_t middle = from + (to - from) / 2;
    rc = persist_range(s, lane, from, middle);
    return rc == RC_OK ? persist_range(s, lane, middle, to) : rc;
}

/* Write all decoded items, slice by slice. */
static enum rc
persist_all(struct store_pg *s, struct outcome_lane *lane)
{
    size_t count = lane->ops->count(lane->self);
    enum rc rc = RC_OK;
    for (size_t from = 0; rc == RC_OK && from < count; from += s->slice) {
        size_t to = count - from > s->slice ? from + s->slice : count;
        rc = persist_range(s, lane, from, to);
    }
    if (rc == RC_OK && s->slice < SLICE_MAX) {
        s->slice = s->slice * 2 < SLICE_MAX ? s->slice * 2 : SLICE_MAX;
    }
    /* query_canceled: the same in one piece would time out again. */
    if (rc == RC_IO && strcmp(pg_sqlstate(s->pg), "57014") == 0 &&
        s->slice > SLICE_MIN) {
        s->slice /= 2;
    }
    return rc;
}

/* ---- a turn of a lane -----------------------------------------------------
 */

static void
note_journal(struct store_pg *s, enum rc rc)
{
    if (rc == RC_OK || rc == RC_AGAIN) {
        s->journal_failing = false;
        return;
    }
    if (!s->journal_failing) {
        char quoted[300];
        log_event(LOG_ERROR, "store_journal_failing", "rc=%s error=%s",
                  rc_name(rc),
                  log_quote(journal_error(s->journal), quoted, sizeof(quoted)));
    }
    s->journal_failing = true;
}

static enum rc
decode_page(struct store_pg *s, struct outcome_lane *lane)
{
    for (size_t k = 0; k < s->page.count; k++) {
        const struct journal_row *row = &s->page.rows[k];
        enum rc rc = lane->ops->decode(lane->self, row);
        if (rc == RC_INVALID) {
            log_event(LOG_ERROR, "outcome_quarantined",
                      "service=%s no=%" PRId64,
                      service_name(lane->ops->service), row->seq);
            rc = retire_add_broken(lane->with_us, row->seq);
        }
        if (rc != RC_OK) {
            return rc;
        }
    }
    return RC_OK;
}

static struct outcome_lane *
lane_of(struct store_pg *s, enum service service)
{
    unsigned k = 0;

    while (k + 1 < LANES && s->lanes[k].ops->service != service) {
        k++;
    }
    return &s->lanes[k];
}

/* Take back what the writer is done with. */
static void
take_retired(struct store_pg *s)
{
    struct retire *done = queue_pop(s->replies);
    while (done != NULL) {
        retire_note(done, s->metrics, clock_now_unix_ms());
        lane_of(s, retire_service(done))->with_writer = false;
        retire_free(&done);
        done = queue_pop(s->replies);
    }
}

/* Until the writer has retired the lane's page before this one. RC_TIMEOUT:
 * the time to stop is over. */
static enum rc
await_retired(struct store_pg *s, const struct outcome_lane *lane)
{
    take_retired(s);
    while (lane->with_writer) {
        struct pollfd fds[] = {
            {.fd = queue_ready_fd(s->replies), .events = POLLIN},
            {.fd = s->cancel_fd, .events = POLLIN},
        };
        (void)poll(fds, ARRAY_COUNT(fds), -1);
        take_retired(s);
        if (lane->with_writer && fds[1].revents != 0) {
            return RC_TIMEOUT;
        }
    }
    return RC_OK;
}

/* Hand the filled retire to the writer, and only then pass the page. */
static enum rc
hand_in(struct store_pg *s, struct outcome_lane *lane, int64_t last_no)
{
    enum rc rc = await_retired(s, lane);
    if (rc == RC_OK) {
        rc = retire_submit(&lane->with_us, s->writer, lane->cursor + 1, last_no,
                           clock_now_unix_ms());
    }
    if (rc == RC_OK) {
        lane->with_writer = true;
        lane->cursor = last_no;
    }
    return rc;
}

/* One page. RC_AGAIN: there is nothing; *more = there may be another. */
static enum rc
turn(struct store_pg *s, struct outcome_lane *lane, bool *more)
{
    enum rc rc =
        journal_outcome_page(s->journal, lane->ops->service, lane->cursor,
                             PAGE_ROWS, PAGE_BYTES, &s->page);
    note_journal(s, rc);
    if (rc != RC_OK) {
        return rc;
    }
    if (s->page.count == 0) {
        note_up(s, clock_now_ms());
        return RC_AGAIN;
    }
    rc = retire_new(&lane->with_us, lane->ops->service, s->replies);
    if (rc == RC_OK) {
        rc = decode_page(s, lane);
    }
    if (rc == RC_OK) {
        rc = persist_all(s, lane);
    }
    if (rc == RC_IO) {
        note_down(s, pg_error(s->pg), clock_now_ms());
    }
    if (rc == RC_OK) {
        note_up(s, clock_now_ms());
        rc = hand_in(s, lane, s->page.rows[s->page.count - 1].seq);
    }
    *more = rc == RC_OK && s->page.more;
    lane->ops->release(lane->self);
    retire_free(&lane->with_us);
    return rc;
}

/* ---- the thread -----------------------------------------------------------
 */

static void
take_configs(struct store_pg *s)
{
    struct conf *conf = queue_pop(s->configs);
    while (conf != NULL) {
        for (unsigned k = 0; k < LANES; k++) {
            s->lanes[k].ops->configure(s->lanes[k].self, conf);
        }
        free(conf);
        conf = queue_pop(s->configs);
    }
}

/* A task that is refused (no privilege, a timeout) must not keep outcomes from
 * being stored: only a lost connection counts as down. */
static void
note_task(struct store_pg *s, enum service service, enum rc rc)
{
    if (rc != RC_OK && !s->task_failing) {
        char quoted[PG_ERROR_BYTES];
        log_event(LOG_WARN, "store_task_failing", "service=%s rc=%s error=%s",
                  service_name(service), rc_name(rc),
                  log_quote(pg_error(s->pg), quoted, sizeof(quoted)));
    }
    s->task_failing = rc != RC_OK;
    if (rc == RC_IO && !pg_is_connected(s->pg)) {
        note_down(s, pg_error(s->pg), clock_now_ms());
    }
}

static void
every_second(struct store_pg *s, int64_t now_ms)
{
    if (now_ms < s->second_ms) {
        return;
    }
    s->second_ms = now_ms + 1000;
    for (unsigned k = 0; s->up && k < LANES; k++) {
        const struct outcome_lane *lane = &s->lanes[k];
        if (lane->ops->every_second == NULL) {
            continue;
        }
        enum rc rc =
            lane->ops->every_second(lane->self, s->pg, clock_now_unix_ms());
        note_task(s, lane->ops->service, rc);
    }
}

/* Do what can be done now. False: nothing is left to do at once. */
static bool
work(struct store_pg *s)
{
    bool again = false;
    int64_t now_ms = clock_now_ms();
    if (!s->up && !s->fatal && now_ms >= s->retry_at_ms) {
        bring_up(s);
    }
    for (unsigned k = 0; s->up && k < LANES; k++) {
        bool more = false;
        (void)turn(s, &s->lanes[k], &more); /* its failures are noted */
        again = again || more;
    }
    if (s->up) {
        every_second(s, now_ms);
    }
    return again && s->up;
}

static void
wait_for_something(struct store_pg *s)
{
    int64_t now_ms = clock_now_ms();
    int64_t until_ms = s->up || s->fatal ? s->second_ms : s->retry_at_ms;
    int64_t wait_ms = until_ms > now_ms ? until_ms - now_ms : 0;
    if (s->fatal || wait_ms > LOOK_EVERY_MS) {
        wait_ms = LOOK_EVERY_MS;
    }
    struct pollfd fds[] = {
        {.fd = s->wake_fd, .events = POLLIN},
        {.fd = queue_ready_fd(s->replies), .events = POLLIN},
        {.fd = queue_ready_fd(s->configs), .events = POLLIN},
    };
    (void)poll(fds, ARRAY_COUNT(fds), (int)wait_ms);
    if (fds[0].revents != 0) {
        eventfd_t count;
        (void)eventfd_read(s->wake_fd, &count);
        /* In this order: a wake from here on writes wake_fd again. */
        atomic_store(&s->woken, false);
    }
}

static void *
run(void *arg)
{
    struct store_pg *s = arg;
    for (;;) {
        /* Before the work: what was added before the stop is seen by it. */
        bool last = atomic_load(&s->stopping);
        take_retired(s);
        take_configs(s);
        bool again = work(s);
        if (last && !again) {
            break;
        }
        if (!again) {
            wait_for_something(s);
        }
    }
    for (unsigned k = 0; k < LANES; k++) {
        enum rc rc = await_retired(s, &s->lanes[k]);
        if (rc != RC_OK) {
            log_event(LOG_WARN, "store_stopped_unretired", "service=%s",
                      service_name(s->lanes[k].ops->service));
        }
    }
    return NULL;
}

/* ---- new and free ---------------------------------------------------------
 */

static enum rc
make_parts(struct store_pg *s)
{
    const struct journal_options options =
        journal_options_of(&s->conf.journal, JOURNAL_READER);
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->failed_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->cancel_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (s->wake_fd < 0 || s->failed_fd < 0 || s->cancel_fd < 0) {
        return RC_IO;
    }
    enum rc rc = journal_new(&s->journal, &options);
    if (rc == RC_OK) {
        rc = pg_new(&s->pg, s->conf.postgres.url, s->conf.postgres.timeout_ms);
    }
    if (rc == RC_OK) {
        pg_set_cancel_fd(s->pg, s->cancel_fd);
        rc = queue_new(&s->replies, LANES, 0);
    }
    if (rc == RC_OK) {
        rc = queue_new(&s->configs, CONFIGS_MAX, 0);
    }
    for (unsigned k = 0; rc == RC_OK && k < LANES; k++) {
        struct outcome_lane *lane = &s->lanes[k];
        lane->ops = persisters[k];
        rc = lane->ops->new (&lane->self, &s->conf, s->metrics);
    }
    return rc;
}

static void
close_if_open(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

static void
destroy(struct store_pg **s)
{
    for (unsigned k = 0; k < LANES; k++) {
        if ((*s)->lanes[k].self != NULL) {
            (*s)->lanes[k].ops->free(&(*s)->lanes[k].self);
        }
    }
    journal_page_free(&(*s)->page);
    journal_free(&(*s)->journal);
    pg_free(&(*s)->pg);
    queue_free(&(*s)->replies, NULL);
    queue_free(&(*s)->configs, free);
    close_if_open((*s)->wake_fd);
    close_if_open((*s)->cancel_fd);
    close_if_open((*s)->failed_fd);
    free(*s);
    *s = NULL;
}

enum rc
store_pg_start(struct store_pg **out, const struct conf *conf,
               struct writer *writer, struct metrics *metrics)
{
    *out = NULL;
    struct store_pg *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return RC_NOMEM;
    }
    s->conf = *conf;
    s->writer = writer;
    s->metrics = metrics;
    s->slice = SLICE_MAX;
    s->wake_fd = -1;
    s->cancel_fd = -1;
    s->failed_fd = -1;
    atomic_init(&s->woken, false);
    atomic_init(&s->stopping, false);
    enum rc rc = make_parts(s);
    if (rc == RC_OK && pthread_create(&s->thread, NULL, run, s) != 0) {
        rc = RC_NOMEM;
    }
    if (rc != RC_OK) {
        destroy(&s);
        return rc;
    }
    *out = s;
    return RC_OK;
}

void
store_pg_stop(struct store_pg **s, int64_t timeout_ms)
{
    if (*s == NULL) {
        return;
    }
    /* A timer of 0 would be none. */
    int64_t ms = timeout_ms > 0 ? timeout_ms : 1;
    const struct itimerspec when = {
        .it_value = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}};
    (void)timerfd_settime((*s)->cancel_fd, 0, &when, NULL);
    atomic_store(&(*s)->stopping, true);
    (void)eventfd_write((*s)->wake_fd, 1);
    pthread_join((*s)->thread, NULL);
    for (unsigned k = 0; k < LANES; k++) {
        if ((*s)->lanes[k].with_writer) {
            /* The disk has failed for seconds and the writer still holds a
             * write that replies to us, who must outlive it. The process is
             * about to end. */
            *s = NULL;
            return;
        }
    }
    destroy(s);
}

/* ---- from other threads ---------------------------------------------------
 */

void
store_pg_wake(struct store_pg *s)
{
    if (!atomic_exchange(&s->woken, true)) {
        (void)eventfd_write(s->wake_fd, 1);
    }
}

void
store_pg_configure(struct store_pg *s, const struct conf *conf)
{
    struct conf *copy = malloc(sizeof(*copy));
    enum rc rc = RC_NOMEM;
    if (copy != NULL) {
        *copy = *conf;
        rc = queue_push(s->configs, copy, 0);
    }
    if (rc != RC_OK) {
        log_event(LOG_ERROR, "store_not_configured", "rc=%s", rc_name(rc));
        free(copy);
    }
}

int
store_pg_failed_fd(const struct store_pg *s)
{
    return s->failed_fd;
}
