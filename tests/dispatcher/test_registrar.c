/* The registrar's threads over places in memory, one at a time. Their time is
 * the test's: it goes on only in poll(), by as much as the thread wanted to
 * wait, so that hours pass at once; and it stands still when the test says so.
 */
#include "tests/shared/journal_fixture.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dispatcher/backoff.h"
#include "dispatcher/mailer.h"
#include "dispatcher/metrics.h"
#include "dispatcher/mongo.h"
#include "dispatcher/places_mongo.h"
#include "dispatcher/registrar.h"
#include "shared/clock.h"
#include "shared/log.h"
#include "tests/dispatcher/places_fixture.h"

#define DEADLINE_S 60
#define NODE 7
#define NOTED 64
#define TURNS 4

/* What the test and the thread share. */
struct shared {
    int64_t now_ms;
    bool frozen;
    unsigned polls;
    bool down;
    const char *fails_at; /* an operation on the places; NULL: none */
    enum rc fails_with;
    enum rc prepare_rc;
    bool taken; /* the node is another's */
    bool owns;  /* what the mailer was told last */
    bool journal_fails;
    unsigned claims;
    unsigned prepares;
    unsigned serves; /* of a code, begun */
    unsigned wakes;
    int64_t sweeps_ms[NOTED];
    unsigned sweeps;
    int64_t backoffs[NOTED]; /* attempt, as it was asked for */
    int64_t ends_ms[NOTED];  /* when that back-off ends */
    unsigned failures;
    int64_t early_ms; /* MongoDB was asked too early; 0: never */
    unsigned said_up;
    unsigned said_down;
    unsigned said_taken;
    unsigned said_other;
};

struct world {
    struct fixture *f;
    struct conf conf;
    struct metrics *metrics;
    struct queue *served;
    struct registrar *registrar;
    struct memory memory; /* the thread's, while it runs */
    struct memory_store store;
    char mail_host[64];
    const struct person *rival; /* is faster; NULL: there is none */
    unsigned people;
    enum rc mongo_new_rc;
    pthread_mutex_t store_mutex; /* of memory and store, taken first */
    pthread_mutex_t mutex;       /* of s */
    struct shared s;
};

static struct world *w;

/* ---- time -------------------------------------------------------------------
 */

int __real_poll(struct pollfd *fds, nfds_t count, int wait_ms);
int __wrap_poll(struct pollfd *fds, nfds_t count, int wait_ms);
int64_t __wrap_clock_now_ms(void);
int64_t __wrap_clock_now_unix_ms(void);

static void
lock(void)
{
    (void)pthread_mutex_lock(&w->mutex);
}

static void
unlock(void)
{
    (void)pthread_mutex_unlock(&w->mutex);
}

int64_t
__wrap_clock_now_ms(void)
{
    int64_t now_ms;

    lock();
    now_ms = w->s.now_ms;
    unlock();
    return now_ms;
}

int64_t
__wrap_clock_now_unix_ms(void)
{
    return FIXTURE_NOW + __wrap_clock_now_ms();
}

int
__wrap_poll(struct pollfd *fds, nfds_t count, int wait_ms)
{
    int ready;
    bool over = false;

    do {
        ready = __real_poll(fds, count, 1);
        lock();
        w->s.polls++;
        if (ready == 0 && !w->s.frozen && wait_ms >= 0) {
            w->s.now_ms += wait_ms;
            over = true;
        }
        unlock();
    } while (ready == 0 && !over && wait_ms != 0);
    return ready;
}

/* As it is now; a check must not fail under the lock. */
static struct shared
seen(void)
{
    struct shared s;

    lock();
    s = w->s;
    unlock();
    return s;
}

static void
freeze(bool frozen)
{
    lock();
    w->s.frozen = frozen;
    unlock();
}

/* ---- fakes ------------------------------------------------------------------
 */

enum rc __real_journal_identity(struct journal *j, struct uuid *out);
enum rc __wrap_journal_identity(struct journal *j, struct uuid *out);
enum rc __wrap_mongo_new(struct mongo **out, const char *uri,
                         int64_t timeout_ms);
void __wrap_mongo_free(struct mongo **mongo);
const char *__wrap_mongo_error(const struct mongo *mongo);
enum rc __wrap_mongo_claim_node(struct mongo *mongo, int64_t node,
                                const char *journal_uuid,
                                char owner[UUID_TEXT_BYTES]);
enum rc __wrap_places_mongo_new(struct places *out,
                                const struct places_mongo_options *options);
enum rc __wrap_places_mongo_prepare(struct mongo *mongo);
void __wrap_mailer_own(struct mailer *m, bool is_ours);
void __wrap_mailer_wake(struct mailer *m);
int64_t __wrap_backoff_capped_ms(struct backoff *b, int64_t base_ms,
                                 int64_t attempt, int64_t cap_ms);
void __wrap_log_event(enum log_level level, const char *event,
                      const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Full, without the jitter. */
int64_t
__wrap_backoff_capped_ms(struct backoff *b, int64_t base_ms, int64_t attempt,
                         int64_t cap_ms)
{
    int64_t wait_ms = base_ms;

    (void)b;
    for (int64_t i = 1; i < attempt && wait_ms < cap_ms; i++) {
        wait_ms *= 2;
    }
    wait_ms = wait_ms < cap_ms ? wait_ms : cap_ms;
    lock();
    w->s.backoffs[w->s.failures % NOTED] = attempt;
    w->s.ends_ms[w->s.failures % NOTED] = w->s.now_ms + wait_ms;
    w->s.failures++;
    unlock();
    return wait_ms;
}

void
__wrap_log_event(enum log_level level, const char *event, const char *format,
                 ...)
{
    (void)level;
    (void)format;
    lock();
    w->s.said_up += strcmp(event, "mongo_up") == 0;
    w->s.said_down += strcmp(event, "mongo_down") == 0;
    w->s.said_taken += strcmp(event, "node_taken") == 0;
    w->s.said_other += strcmp(event, "mongo_up") != 0 &&
                       strcmp(event, "mongo_down") != 0 &&
                       strcmp(event, "node_taken") != 0;
    unlock();
}

void
__wrap_mailer_own(struct mailer *m, bool is_ours)
{
    lock();
    w->s.owns = is_ours && (void *)m == (void *)w;
    unlock();
}

void
__wrap_mailer_wake(struct mailer *m)
{
    lock();
    w->s.wakes += (void *)m == (void *)w;
    unlock();
}

enum rc
__wrap_journal_identity(struct journal *j, struct uuid *out)
{
    bool fails;

    lock();
    fails = w->s.journal_fails;
    unlock();
    return fails ? RC_IO : __real_journal_identity(j, out);
}

enum rc
__wrap_mongo_new(struct mongo **out, const char *uri, int64_t timeout_ms)
{
    assert_string_equal(uri, "mongodb://here/");
    assert_int_equal(timeout_ms, 1234);
    *out = w->mongo_new_rc == RC_OK ? (struct mongo *)w : NULL;
    return w->mongo_new_rc;
}

void
__wrap_mongo_free(struct mongo **mongo)
{
    *mongo = NULL;
}

const char *
__wrap_mongo_error(const struct mongo *mongo)
{
    (void)mongo;
    return "away";
}

/* MongoDB is asked for something. Locked. */
static void
note_asking(void)
{
    if (w->s.failures > 0 &&
        w->s.now_ms < w->s.ends_ms[(w->s.failures - 1) % NOTED]) {
        w->s.early_ms = w->s.now_ms;
    }
}

enum rc
__wrap_mongo_claim_node(struct mongo *mongo, int64_t node,
                        const char *journal_uuid, char owner[UUID_TEXT_BYTES])
{
    bool ours = (void *)mongo == (void *)w && node == NODE &&
                strlen(journal_uuid) + 1 == UUID_TEXT_BYTES;
    enum rc rc;

    lock();
    note_asking();
    w->s.claims++;
    rc = w->s.down ? RC_IO : w->s.taken ? RC_INVALID : RC_OK;
    unlock();
    (void)snprintf(owner, UUID_TEXT_BYTES, "%s",
                   rc == RC_INVALID ? "another" : "");
    return ours ? rc : RC_BUG;
}

enum rc
__wrap_places_mongo_prepare(struct mongo *mongo)
{
    enum rc rc;

    (void)mongo;
    lock();
    w->s.prepares++;
    rc = w->s.down ? RC_IO : w->s.prepare_rc;
    unlock();
    return rc;
}

static enum rc
before(void *arg, const char *operation)
{
    enum rc rc = RC_OK;

    (void)arg;
    lock();
    note_asking();
    if (strcmp(operation, "unfreed") == 0) {
        w->s.sweeps_ms[w->s.sweeps % NOTED] = w->s.now_ms;
        w->s.sweeps++;
    }
    w->s.serves += strcmp(operation, "invitation") == 0;
    if (w->rival != NULL && strcmp(operation, "add_registrations") == 0) {
        (void)memory_register(&w->memory, w->rival, 1);
        w->rival = NULL;
    }
    if (w->s.down) {
        rc = RC_IO;
    } else if (w->s.fails_at != NULL && strcmp(operation, w->s.fails_at) == 0) {
        rc = w->s.fails_with;
    }
    unlock();
    return rc;
}

enum rc
__wrap_places_mongo_new(struct places *out,
                        const struct places_mongo_options *options)
{
    assert_ptr_equal(options->mongo, w);
    assert_int_equal(options->node, NODE);
    (void)snprintf(w->mail_host, sizeof(w->mail_host), "%s",
                   options->mail_host);
    *out = (struct places){.ops = &memory_ops, .self = &w->store};
    return RC_OK;
}

/* The memory is one thread's at a time. */

typedef enum rc serves(struct allocator *a, int64_t now_unix_ms,
                       const struct person *people, size_t count,
                       struct allocator_outcome *outcomes);
typedef enum rc sweeps(struct allocator *a, int64_t now_unix_ms,
                       struct allocator_swept *out);
serves __real_allocator_serve;
serves __wrap_allocator_serve;
serves __real_allocator_mail;
serves __wrap_allocator_mail;
sweeps __real_allocator_sweep;
sweeps __wrap_allocator_sweep;

static enum rc
alone(serves *serve, struct allocator *a, int64_t now_unix_ms,
      const struct person *people, size_t count,
      struct allocator_outcome *outcomes)
{
    enum rc rc;

    (void)pthread_mutex_lock(&w->store_mutex);
    rc = serve(a, now_unix_ms, people, count, outcomes);
    (void)pthread_mutex_unlock(&w->store_mutex);
    return rc;
}

enum rc
__wrap_allocator_serve(struct allocator *a, int64_t now_unix_ms,
                       const struct person *people, size_t count,
                       struct allocator_outcome *outcomes)
{
    return alone(__real_allocator_serve, a, now_unix_ms, people, count,
                 outcomes);
}

enum rc
__wrap_allocator_mail(struct allocator *a, int64_t now_unix_ms,
                      const struct person *people, size_t count,
                      struct allocator_outcome *outcomes)
{
    return alone(__real_allocator_mail, a, now_unix_ms, people, count,
                 outcomes);
}

enum rc
__wrap_allocator_sweep(struct allocator *a, int64_t now_unix_ms,
                       struct allocator_swept *out)
{
    enum rc rc;

    (void)pthread_mutex_lock(&w->store_mutex);
    rc = __real_allocator_sweep(a, now_unix_ms, out);
    (void)pthread_mutex_unlock(&w->store_mutex);
    return rc;
}

/* ---- a world ----------------------------------------------------------------
 */

static int
world_new(void **state)
{
    (void)state;
    w = calloc(1, sizeof(*w));
    assert_non_null(w);
    (void)pthread_mutex_init(&w->mutex, NULL);
    (void)pthread_mutex_init(&w->store_mutex, NULL);
    assert_int_equal(fixture_setup((void **)&w->f), 0);
    (void)fixture_accept(w->f, "makes the file");
    (void)snprintf(w->conf.journal.path, sizeof(w->conf.journal.path), "%s",
                   w->f->options.path);
    w->conf.journal.max_bytes = w->f->options.max_bytes;
    w->conf.journal.lock_timeout_ms = w->f->options.lock_timeout_ms;
    w->conf.node.id = NODE;
    (void)snprintf(w->conf.mongo.uri, sizeof(w->conf.mongo.uri), "%s",
                   "mongodb://here/");
    w->conf.mongo.timeout_ms = 1234;
    (void)snprintf(w->conf.mail.from, sizeof(w->conf.mail.from), "%s",
                   "Sluice <invitations@mail.example>");
    w->store = (struct memory_store){.memory = &w->memory, .before = before};
    w->s.now_ms = 1000000;
    assert_int_equal(metrics_new(&w->metrics), RC_OK);
    assert_int_equal(queue_new(&w->served, TURNS, 0), RC_OK);
    memory_invite(&w->memory, "c", 3);
    return 0;
}

static enum rc
start_registrar(void)
{
    const struct registrar_options options = {.conf = &w->conf,
                                              .served = w->served,
                                              .metrics = w->metrics,
                                              .mailer = (struct mailer *)w};

    return registrar_start(&w->registrar, &options);
}

static void
start(void)
{
    assert_int_equal(start_registrar(), RC_OK);
    assert_non_null(w->registrar);
}

static int
world_free(void **state)
{
    (void)state;
    registrar_stop(&w->registrar);
    assert_null(w->registrar);
    queue_free(&w->served, free);
    metrics_free(&w->metrics);
    assert_int_equal(fixture_teardown((void **)&w->f), 0);
    (void)pthread_mutex_destroy(&w->mutex);
    (void)pthread_mutex_destroy(&w->store_mutex);
    free(w);
    w = NULL;
    return 0;
}

/* Wait until *counter has come to value. */
static void
until(const unsigned *counter, unsigned value)
{
    const struct timespec moment = {.tv_nsec = 500000};
    time_t deadline = time(NULL) + DEADLINE_S;
    unsigned now;

    do {
        (void)nanosleep(&moment, NULL);
        lock();
        now = *counter;
        unlock();
    } while (now < value && time(NULL) < deadline);
    assert_true(now >= value);
}

static void
set(bool *flag, bool value)
{
    lock();
    *flag = value;
    unlock();
}

/* This operation fails from now on; NULL: none. */
static void
fail_at(const char *operation, enum rc rc)
{
    lock();
    w->s.fails_at = operation;
    w->s.fails_with = rc;
    unlock();
}

static int64_t
metric(enum metric metric)
{
    return metrics_get(w->metrics, metric, SERVICE_COUNT);
}

/* ---- turns ------------------------------------------------------------------
 */

static struct person
someone(const char *code)
{
    struct person p = {.received_unix_ms = FIXTURE_NOW, .node = NODE};

    p.seq = ++w->people;
    (void)snprintf(p.code, sizeof(p.code), "%s", code);
    (void)snprintf(p.address.key, sizeof(p.address.key), "jo%u@example.com",
                   w->people);
    (void)snprintf(p.request_id, sizeof(p.request_id), "request-%u", w->people);
    return p;
}

/* A turn of so many who ask for c. */
static struct registrar_turn *
turn_of(size_t count)
{
    struct registrar_turn *turn = calloc(1, sizeof(*turn));

    assert_non_null(turn);
    turn->count = count;
    for (size_t i = 0; i < count; i++) {
        turn->people[i] = someone("c");
    }
    return turn;
}

static struct registrar_turn *
give(size_t count)
{
    struct registrar_turn *turn = turn_of(count);

    assert_int_equal(registrar_give(w->registrar, turn), RC_OK);
    return turn;
}

/* The next one comes back, and it is this. */
static void
comes_back(struct registrar_turn *turn)
{
    const struct timespec moment = {.tv_nsec = 500000};
    time_t deadline = time(NULL) + DEADLINE_S;
    void *back = queue_pop(w->served);

    while (back == NULL && time(NULL) < deadline) {
        (void)nanosleep(&moment, NULL);
        back = queue_pop(w->served);
    }
    assert_ptr_equal(back, turn);
}

static void
gave(const struct registrar_turn *turn, size_t i, enum allocator_what what,
     int32_t slot)
{
    assert_int_equal(turn->outcomes[i].what, what);
    assert_int_equal(turn->outcomes[i].slot, slot);
}

static void
turns_come_back_served_in_order(void **state)
{
    struct registrar_turn *first;
    struct registrar_turn *second;

    (void)state;
    start();
    first = give(2);
    second = give(2);
    comes_back(first);
    comes_back(second);
    gave(first, 0, ALLOCATOR_PLACE, 1);
    gave(first, 1, ALLOCATOR_PLACE, 2);
    gave(second, 0, ALLOCATOR_PLACE, 3);
    gave(second, 1, ALLOCATOR_WAITING, 0);
    until(&w->s.wakes, 2);
    assert_int_equal(metric(METRIC_INVITATION_PLACES_TOTAL), 3);
    assert_int_equal(metric(METRIC_INVITATION_WAITING_TOTAL), 1);
    assert_int_equal(metric(METRIC_MONGO_UP), 1);
    assert_int_equal(seen().said_up, 1);
    assert_int_equal(seen().said_down, 0);
    free(first);
    free(second);
}

static void
each_outcome_has_its_counter(void **state)
{
    struct registrar_turn *turn;

    (void)state;
    memory_refuse(&w->memory, "jo2@example.com");
    w->store.poison = "jo5@example.com";
    start();
    turn = turn_of(5);
    (void)snprintf(turn->people[2].code, sizeof(turn->people[2].code), "x");
    turn->people[3].address = turn->people[0].address;
    assert_int_equal(registrar_give(w->registrar, turn), RC_OK);
    comes_back(turn);
    gave(turn, 0, ALLOCATOR_PLACE, 1);
    gave(turn, 1, ALLOCATOR_REFUSED, 0);
    gave(turn, 2, ALLOCATOR_UNKNOWN, 0);
    gave(turn, 3, ALLOCATOR_REPEATED, 0);
    gave(turn, 4, ALLOCATOR_POISON, 0);
    assert_int_equal(metric(METRIC_INVITATION_PLACES_TOTAL), 1);
    assert_int_equal(metric(METRIC_INVITATION_REFUSED_TOTAL), 1);
    assert_int_equal(metric(METRIC_INVITATION_UNKNOWN_TOTAL), 1);
    assert_int_equal(metric(METRIC_INVITATION_REPEATED_TOTAL), 1);
    assert_int_equal(metric(METRIC_INVITATION_WAITING_TOTAL), 0);
    free(turn);
}

static void
two_turns_wait_and_the_next_is_too_many(void **state)
{
    struct registrar_turn *turn;
    size_t given = 0;

    (void)state;
    w->s.down = true;
    start();
    until(&w->s.failures, 1);
    turn = turn_of(1);
    (void)give(1); /* the thread may hold one besides */
    (void)give(1);
    while (given < 3 && registrar_give(w->registrar, turn) == RC_OK) {
        given++;
        turn = turn_of(1);
    }
    assert_true(given <= 1);
    free(turn);
}

/* Another dispatcher takes the place that was read as free. */
static void
lost_places_are_counted(void **state)
{
    struct registrar_turn *turn;
    struct person rival;

    (void)state;
    rival = someone("c");
    w->rival = &rival;
    start();
    turn = give(1);
    comes_back(turn);
    gave(turn, 0, ALLOCATOR_PLACE, 2);
    assert_int_equal(metric(METRIC_INVITATION_CONFLICTS_TOTAL), 1);
    free(turn);
}

/* ---- MongoDB is away --------------------------------------------------------
 */

static void
while_mongodb_is_away_the_turn_is_kept_and_comes_first(void **state)
{
    struct registrar_turn *first;
    struct registrar_turn *second;

    (void)state;
    start();
    until(&w->s.said_up, 1);
    set(&w->s.down, true);
    until(&w->s.failures, 1);
    first = give(2);
    second = give(2);
    until(&w->s.failures, 10);
    assert_int_equal(metric(METRIC_MONGO_UP), 0);
    assert_null(queue_pop(w->served));
    set(&w->s.down, false);
    comes_back(first);
    comes_back(second);
    gave(first, 0, ALLOCATOR_PLACE, 1);
    gave(first, 1, ALLOCATOR_PLACE, 2);
    gave(second, 0, ALLOCATOR_PLACE, 3);
    gave(second, 1, ALLOCATOR_WAITING, 0);
    until(&w->s.said_up, 2);
    assert_int_equal(seen().said_down, 1);
    assert_int_equal(seen().said_up, 2);
    assert_int_equal(metric(METRIC_MONGO_UP), 1);
    assert_int_equal(seen().early_ms, 0);
    free(first);
    free(second);
}

static void
a_turn_that_fails_half_way_gets_what_it_has_got(void **state)
{
    struct registrar_turn *first;
    struct registrar_turn *second;

    (void)state;
    start();
    until(&w->s.sweeps, 1);
    fail_at("add_mails", RC_IO); /* the places are given */
    first = give(2);
    second = give(1);
    until(&w->s.failures, 5);
    assert_null(queue_pop(w->served));
    assert_int_equal(metric(METRIC_INVITATION_PLACES_TOTAL), 0);
    fail_at(NULL, RC_OK);
    comes_back(first);
    gave(first, 0, ALLOCATOR_PLACE, 1);
    gave(first, 1, ALLOCATOR_PLACE, 2);
    comes_back(second);
    gave(second, 0, ALLOCATOR_PLACE, 3);
    assert_int_equal(seen().serves, 2); /* its mails alone are repeated */
    assert_int_equal(metric(METRIC_INVITATION_PLACES_TOTAL), 3);
    registrar_stop(&w->registrar);
    for (unsigned i = 1; i <= 3; i++) {
        char key[32];

        (void)snprintf(key, sizeof(key), "jo%u@example.com", i);
        assert_int_equal(memory_slot(&w->memory, key), i);
        assert_int_equal(memory_mails(&w->memory, key, PLACE_MAIL_WELCOME), 1);
    }
    free(first);
    free(second);
}

static void
the_pause_grows_to_5_s_and_starts_anew(void **state)
{
    struct shared s;

    (void)state;
    w->s.down = true;
    start();
    until(&w->s.failures, 12);
    set(&w->s.down, false);
    until(&w->s.sweeps, 3);
    freeze(true);
    s = seen();
    for (unsigned i = 0; i < 12; i++) {
        assert_int_equal(s.backoffs[i], i + 1);
    }
    assert_int_equal(s.ends_ms[9] - s.ends_ms[8], 5000);
    lock();
    w->s.failures = 0;
    w->s.down = true;
    w->s.frozen = false;
    unlock();
    until(&w->s.failures, 1);
    s = seen();
    assert_int_equal(s.backoffs[0], 1);
    assert_int_equal(s.early_ms, 0);
}

/* What fails is told once, and the turns do not wait for it. */
static void
a_sweep_that_fails_comes_seldom_and_is_told_once(void **state)
{
    unsigned before;
    struct shared s;

    (void)state;
    start();
    until(&w->s.said_up, 1);
    fail_at("unfreed", RC_IO);
    until(&w->s.failures, 1);
    before = seen().sweeps;
    for (unsigned i = 0; i < 30; i++) {
        struct registrar_turn *turn = give(1);

        comes_back(turn);
        free(turn);
        lock();
        w->s.now_ms += 10;
        unlock();
    }
    s = seen();
    for (unsigned i = before; i < s.sweeps && i < NOTED; i++) {
        assert_true(s.sweeps_ms[i] - s.sweeps_ms[i - 1] >= 1000);
    }
    assert_int_equal(s.said_down, 1);
    assert_int_equal(metric(METRIC_MONGO_UP), 0);
    fail_at(NULL, RC_OK);
    until(&w->s.said_up, 2);
    assert_int_equal(seen().said_down, 1);
    assert_int_equal(metric(METRIC_MONGO_UP), 1);
}

static void
while_mails_fail_it_is_down_though_sweeps_go_on(void **state)
{
    struct registrar_turn *turn;
    struct shared s;

    (void)state;
    start();
    until(&w->s.said_up, 1);
    fail_at("add_mails", RC_IO);
    turn = give(1);
    until(&w->s.failures, 3);
    until(&w->s.sweeps, seen().sweeps + 3);
    s = seen();
    assert_int_equal(metric(METRIC_MONGO_UP), 0);
    assert_int_equal(s.said_down, 1);
    assert_int_equal(s.said_up, 1);
    fail_at(NULL, RC_OK);
    comes_back(turn);
    assert_int_equal(seen().said_up, 2);
    assert_int_equal(metric(METRIC_MONGO_UP), 1);
    free(turn);
}

/* The next look is at the end of the pause. */
static void
a_new_turn_does_not_cut_the_pause_short(void **state)
{
    struct registrar_turn *turn;
    unsigned polls;
    unsigned claims;

    (void)state;
    w->s.down = true;
    start();
    until(&w->s.failures, 2);
    freeze(true);
    polls = seen().polls;
    until(&w->s.polls, polls + 5);
    claims = seen().claims;
    turn = give(1);
    polls = seen().polls;
    until(&w->s.polls, polls + 20);
    assert_int_equal(seen().claims, claims);
    set(&w->s.down, false);
    freeze(false);
    comes_back(turn);
    gave(turn, 0, ALLOCATOR_PLACE, 1);
    assert_int_equal(seen().early_ms, 0);
    free(turn);
}

static void
a_new_turn_wakes_it_when_all_is_well(void **state)
{
    struct registrar_turn *turn;

    (void)state;
    start();
    until(&w->s.sweeps, 1);
    freeze(true);
    turn = give(1);
    comes_back(turn);
    free(turn);
}

static void
no_memory_is_waited_out_too(void **state)
{
    struct registrar_turn *turn;

    (void)state;
    start();
    until(&w->s.sweeps, 1);
    fail_at("registered", RC_NOMEM);
    fail_at("slots", RC_NOMEM);
    turn = give(1);
    until(&w->s.failures, 3);
    assert_null(queue_pop(w->served));
    fail_at(NULL, RC_OK);
    comes_back(turn);
    gave(turn, 0, ALLOCATOR_PLACE, 1);
    free(turn);
}

/* ---- the node and the indexes -----------------------------------------------
 */

static void
it_prepares_once(void **state)
{
    struct registrar_turn *turn;

    (void)state;
    start();
    turn = give(1);
    comes_back(turn);
    until(&w->s.sweeps, 5);
    assert_int_equal(seen().claims, 2); /* each stage's connection */
    assert_int_equal(seen().prepares, 2);
    free(turn);
}

/* It may be another database, without the indexes. */
static void
a_database_that_comes_back_is_prepared_again(void **state)
{
    (void)state;
    start();
    until(&w->s.sweeps, 1);
    fail_at("unfreed", RC_IO);
    until(&w->s.failures, 1);
    fail_at(NULL, RC_OK);
    until(&w->s.said_up, 2);
    freeze(true);
    assert_int_equal(seen().prepares, 1 + seen().failures);
}

static void
without_its_indexes_nothing_is_given_out(void **state)
{
    struct registrar_turn *turn;

    (void)state;
    w->s.prepare_rc = RC_INVALID; /* what is there is not unique */
    start();
    turn = give(1);
    until(&w->s.failures, 5);
    assert_int_equal(seen().serves, 0);
    assert_int_equal(seen().sweeps, 0);
    lock();
    w->s.prepare_rc = RC_OK;
    unlock();
    comes_back(turn);
    free(turn);
}

static void
with_a_node_of_another_nothing_is_given_out_and_it_is_said_once(void **state)
{
    struct registrar_turn *turn;

    (void)state;
    w->s.down = true; /* at first */
    w->s.taken = true;
    start();
    turn = give(1);
    until(&w->s.failures, 2);
    set(&w->s.down, false);
    until(&w->s.said_taken, 1);
    until(&w->s.failures, 8);
    assert_int_equal(seen().said_taken, 1);
    assert_int_equal(seen().said_down, 1);
    assert_int_equal(seen().said_up, 0);
    assert_int_equal(seen().serves, 0);
    assert_int_equal(seen().sweeps, 0);
    assert_false(seen().owns);
    set(&w->s.taken, false);
    assert_int_equal(metric(METRIC_MONGO_UP), 0);
    comes_back(turn);
    assert_true(seen().owns);
    assert_int_equal(metric(METRIC_MONGO_UP), 1);
    free(turn);
}

static void
without_a_journal_it_does_not_know_who_it_is(void **state)
{
    struct registrar_turn *turn;

    (void)state;
    w->s.journal_fails = true;
    start();
    turn = give(1);
    until(&w->s.failures, 3);
    assert_int_equal(seen().claims, 0);
    set(&w->s.journal_fails, false);
    comes_back(turn);
    free(turn);
}

/* ---- the sweep --------------------------------------------------------------
 */

static void
it_sweeps_once_a_second(void **state)
{
    struct shared s;

    (void)state;
    start();
    until(&w->s.sweeps, 10);
    s = seen();
    assert_int_equal(s.sweeps_ms[0], 1000000); /* at once */
    for (int i = 1; i < 10; i++) {
        assert_int_equal(s.sweeps_ms[i] - s.sweeps_ms[i - 1], 1000);
    }
}

static void
a_sweep_comes_between_turns(void **state)
{
    (void)state;
    start();
    until(&w->s.sweeps, 1);
    for (int i = 0; i < 50; i++) {
        struct registrar_turn *turn = give(1);

        comes_back(turn);
        free(turn);
        lock();
        w->s.now_ms += 100; /* so long did it take */
        unlock();
    }
    assert_true(seen().sweeps >= 5);
}

static void
who_waits_moves_up_when_a_place_comes_free(void **state)
{
    struct registrar_turn *turn;

    (void)state;
    freeze(true);
    start();
    turn = give(5);
    comes_back(turn);
    gave(turn, 3, ALLOCATOR_WAITING, 0);
    registrar_stop(&w->registrar);
    memory_refuse(&w->memory, "jo2@example.com");
    lock();
    w->s.wakes = 0;
    w->s.sweeps = 0;
    w->s.frozen = false;
    unlock();
    start();
    until(&w->s.sweeps, 2);
    registrar_stop(&w->registrar);
    assert_int_equal(memory_slot(&w->memory, "jo2@example.com"), 0);
    assert_int_equal(memory_slot(&w->memory, "jo4@example.com"), 2);
    assert_true(memory_waits(&w->memory, "c", "jo5@example.com"));
    assert_int_equal(metric(METRIC_INVITATION_PROMOTED_TOTAL), 1);
    assert_int_equal(seen().wakes, 1);
    free(turn);
}

static void
a_sweep_that_leaves_something_is_followed_at_once(void **state)
{
    struct shared s;

    (void)state;
    memory_invite(&w->memory, "d", 150);
    for (int i = 0; i < 150; i++) {
        w->memory.waiting[w->memory.waiting_count++] = someone("d");
    }
    start();
    until(&w->s.sweeps, 4); /* the last of these finds nobody */
    s = seen();
    assert_int_equal(s.sweeps_ms[1], s.sweeps_ms[0]);
    assert_int_equal(s.sweeps_ms[3], s.sweeps_ms[2] + 1000);
    registrar_stop(&w->registrar);
    assert_int_equal(w->memory.registered_count, 150);
    assert_int_equal(memory_slot(&w->memory, "jo150@example.com"), 150);
    assert_int_equal(metric(METRIC_INVITATION_PROMOTED_TOTAL), 150);
}

static void
what_a_sweep_did_before_it_failed_counts(void **state)
{
    (void)state;
    memory_invite(&w->memory, "d", 1);
    w->memory.waiting[w->memory.waiting_count++] = someone("c");
    w->memory.waiting[w->memory.waiting_count++] = someone("d");
    start();
    until(&w->s.sweeps, 2);
    registrar_stop(&w->registrar);
    assert_int_equal(metric(METRIC_INVITATION_PROMOTED_TOTAL), 2);
    assert_true(seen().wakes >= 1);
}

/* ---- starting and stopping --------------------------------------------------
 */

static void
message_ids_end_with_the_host_of_mail_from(void **state)
{
    (void)state;
    start();
    assert_string_equal(w->mail_host, "mail.example");
    registrar_stop(&w->registrar);
    (void)snprintf(w->conf.mail.from, sizeof(w->conf.mail.from), "nobody");
    start();
    assert_string_equal(w->mail_host, "localhost");
}

static void
a_uri_that_cannot_be_used_ends_the_start(void **state)
{
    (void)state;
    w->mongo_new_rc = RC_INVALID;
    assert_int_equal(start_registrar(), RC_INVALID);
    assert_null(w->registrar);
    assert_int_equal(seen().said_other, 1);
}

static void
it_stops_while_mongodb_is_away_and_frees_what_it_has(void **state)
{
    (void)state;
    w->s.down = true;
    start();
    (void)give(3);
    until(&w->s.failures, 5);
    (void)give(1);
    freeze(true); /* the pause would last for ever */
    registrar_stop(&w->registrar);
    assert_null(w->registrar);
    assert_null(queue_pop(w->served));
    assert_int_equal(w->memory.registered_count, 0);
    assert_int_equal(seen().early_ms, 0);
}

static void
it_stops_while_nothing_is_to_do(void **state)
{
    (void)state;
    start();
    until(&w->s.sweeps, 1);
    freeze(true);
    registrar_stop(&w->registrar);
    assert_null(w->registrar);
    registrar_stop(&w->registrar); /* none: nothing */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_new, world_free)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(turns_come_back_served_in_order),
        TEST(each_outcome_has_its_counter),
        TEST(two_turns_wait_and_the_next_is_too_many),
        TEST(lost_places_are_counted),
        TEST(while_mongodb_is_away_the_turn_is_kept_and_comes_first),
        TEST(a_turn_that_fails_half_way_gets_what_it_has_got),
        TEST(the_pause_grows_to_5_s_and_starts_anew),
        TEST(a_sweep_that_fails_comes_seldom_and_is_told_once),
        TEST(while_mails_fail_it_is_down_though_sweeps_go_on),
        TEST(a_new_turn_does_not_cut_the_pause_short),
        TEST(a_new_turn_wakes_it_when_all_is_well),
        TEST(no_memory_is_waited_out_too),
        TEST(it_prepares_once),
        TEST(a_database_that_comes_back_is_prepared_again),
        TEST(without_its_indexes_nothing_is_given_out),
        TEST(with_a_node_of_another_nothing_is_given_out_and_it_is_said_once),
        TEST(without_a_journal_it_does_not_know_who_it_is),
        TEST(it_sweeps_once_a_second),
        TEST(a_sweep_comes_between_turns),
        TEST(who_waits_moves_up_when_a_place_comes_free),
        TEST(a_sweep_that_leaves_something_is_followed_at_once),
        TEST(what_a_sweep_did_before_it_failed_counts),
        TEST(message_ids_end_with_the_host_of_mail_from),
        TEST(a_uri_that_cannot_be_used_ends_the_start),
        TEST(it_stops_while_mongodb_is_away_and_frees_what_it_has),
        TEST(it_stops_while_nothing_is_to_do),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
