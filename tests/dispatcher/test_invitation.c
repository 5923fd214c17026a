/* The invitation service between a feed, a registrar and a writer that a test
 * drives by hand, on a real journal: who is handed in and in which order, what
 * leaves the journal and when. */
#include "tests/dispatcher/feed_fixture.h"
#include "tests/dispatcher/writer_fixture.h"
#include "tests/shared/journal_fixture.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/mailer.h"
#include "dispatcher/metrics.h"
#include "dispatcher/registrar.h"
#include "dispatcher/service.h"
#include "shared/log.h"

#define GIVEN 8
#define PAGE 64
#define NODE 7
#define IN_HAND_MAX 4096 /* invitation.c's */
#define HELD_MAX 4       /* turns */

struct world {
    struct fixture *f;
    struct journal *reader;
    void *service;
    struct metrics *metrics;
    struct conf conf;
    struct now now;
    int64_t wait_ms;
    bool paused;
    struct fake_feed feed;
    unsigned people;
    struct registrar_options options; /* the registrar's, while it runs */
    struct registrar_turn *given[GIVEN];
    size_t given_count;
    struct fake_writer writer;
    unsigned registrar_full;
    unsigned allocations_to_pass; /* before those that fail */
    unsigned allocations_to_fail;
    bool registrar_fails;
    bool mailer_fails;
    bool registrar_runs;
    bool mailer_runs;
    unsigned mailer_configured;
    const char *last_event; /* in the log */
};

static struct world *w;

/* ---- fakes ------------------------------------------------------------------
 */

void __wrap_log_event(enum log_level level, const char *event,
                      const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
enum rc __wrap_writer_submit(struct writer *writer, struct write *write);
enum rc __wrap_registrar_start(struct registrar **out,
                               const struct registrar_options *options);
void __wrap_registrar_stop(struct registrar **r);
enum rc __wrap_registrar_give(struct registrar *r, struct registrar_turn *turn);
enum rc __wrap_mailer_start(struct mailer **out, const struct conf *conf,
                            struct metrics *metrics);
void __wrap_mailer_stop(struct mailer **m);
void __wrap_mailer_configure(struct mailer *m, const struct conf *conf);
void __wrap_mailer_report(struct mailer *m, struct text *out);

/* Who asks is nobody's business. */
void
__wrap_log_event(enum log_level level, const char *event, const char *format,
                 ...)
{
    char line[1024];
    va_list args;

    (void)level;
    va_start(args, format);
    (void)vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    assert_null(strchr(line, '@'));
    w->last_event = event;
}

void *
__wrap_calloc(size_t count, size_t size)
{
    bool fails = w != NULL && w->allocations_to_fail > 0;

    if (fails && w->allocations_to_pass > 0) {
        w->allocations_to_pass--;
        fails = false;
    } else if (fails) {
        w->allocations_to_fail--;
    }
    return fails ? NULL : __real_calloc(count, size);
}

enum rc
__wrap_writer_submit(struct writer *writer, struct write *write)
{
    assert_ptr_equal(writer, w);
    return fake_writer_submit(&w->writer, write);
}

enum rc
__wrap_registrar_start(struct registrar **out,
                       const struct registrar_options *options)
{
    *out = NULL;
    if (w->registrar_fails) {
        return RC_IO;
    }
    assert_true(w->mailer_runs);
    assert_non_null(options->served);
    assert_ptr_equal(options->mailer, &w->mailer_runs);
    assert_ptr_equal(options->metrics, w->metrics);
    assert_int_equal(options->conf->node.id, NODE);
    w->options = *options;
    w->registrar_runs = true;
    *out = (struct registrar *)w;
    return RC_OK;
}

void
__wrap_registrar_stop(struct registrar **r)
{
    if (*r == NULL) {
        return;
    }
    assert_true(w->mailer_runs); /* which it wakes to its end */
    w->registrar_runs = false;
    for (size_t i = 0; i < w->given_count; i++) {
        free(w->given[i]);
    }
    w->given_count = 0;
    *r = NULL;
}

enum rc
__wrap_registrar_give(struct registrar *r, struct registrar_turn *turn)
{
    assert_ptr_equal(r, w);
    assert_true(turn->count > 0 && turn->count <= REGISTRAR_TURN_MAX);
    if (w->registrar_full > 0) {
        w->registrar_full--;
        return RC_FULL;
    }
    assert_true(w->given_count < GIVEN);
    w->given[w->given_count++] = turn;
    return RC_OK;
}

enum rc
__wrap_mailer_start(struct mailer **out, const struct conf *conf,
                    struct metrics *metrics)
{
    *out = NULL;
    if (w->mailer_fails) {
        return RC_INVALID;
    }
    assert_int_equal(conf->node.id, NODE);
    assert_ptr_equal(metrics, w->metrics);
    w->mailer_runs = true;
    *out = (struct mailer *)&w->mailer_runs;
    return RC_OK;
}

void
__wrap_mailer_stop(struct mailer **m)
{
    assert_false(w->registrar_runs);
    w->mailer_runs = w->mailer_runs && *m == NULL;
    *m = NULL;
}

void
__wrap_mailer_configure(struct mailer *m, const struct conf *conf)
{
    assert_ptr_equal(m, &w->mailer_runs);
    assert_ptr_equal(conf, &w->conf);
    w->mailer_configured++;
}

void
__wrap_mailer_report(struct mailer *m, struct text *out)
{
    assert_ptr_equal(m, &w->mailer_runs);
    text_puts(out, "\"mail\":{}");
}

/* ---- a world and its handles ------------------------------------------------
 */

static enum rc
service_start_again(void)
{
    struct service_context context = {
        .conf = &w->conf,
        .writer = (struct writer *)w,
        .metrics = w->metrics,
        .journal = w->reader,
        .replies = w->writer.reply_to,
    };

    w->feed =
        (struct fake_feed){.ops = &invitation_service, .journal = w->reader};
    return invitation_service.new(&w->service, &context);
}

static int
world_new(void **state)
{
    (void)state;
    w = calloc(1, sizeof(*w));
    assert_non_null(w);
    w->writer.max = FAKE_WRITES_MAX;
    w->writer.reply_to = (struct queue *)&w->writer;
    assert_int_equal(fixture_setup((void **)&w->f), 0);
    w->reader = fixture_journal(w->f, JOURNAL_READER);
    w->now = (struct now){.ms = 1000, .unix_ms = FIXTURE_NOW + 250};
    w->conf.node.id = NODE;
    (void)snprintf(w->conf.invitation.fold_plus_tags,
                   sizeof(w->conf.invitation.fold_plus_tags), "no");
    assert_int_equal(metrics_new(&w->metrics), RC_OK);
    assert_int_equal(service_start_again(), RC_OK);
    return 0;
}

static void
reply(struct write *const *writes, size_t count, enum rc rc)
{
    for (size_t i = 0; i < count; i++) {
        writes[i]->rc = rc;
        invitation_service.written(w->service, writes[i], w->now);
    }
}

/* The process ends: what the writer had is lost. */
static void
die(void)
{
    reply(w->writer.writes, w->writer.count, RC_BUG); /* only to free it */
    w->writer.count = 0;
    invitation_service.free(&w->service);
    assert_null(w->service);
    assert_false(w->registrar_runs);
    assert_false(w->mailer_runs);
}

static int
world_free(void **state)
{
    (void)state;
    if (w->service != NULL) {
        die();
    }
    metrics_free(&w->metrics);
    journal_free(&w->reader);
    assert_int_equal(fixture_teardown((void **)&w->f), 0);
    free(w);
    w = NULL;
    return 0;
}

static struct journal_ledger
ledger(void)
{
    struct journal_ledger all[SERVICE_COUNT];

    assert_int_equal(journal_ledger(w->f->dispatcher, all), RC_OK);
    assert_true(all[SERVICE_INVITATION].balanced);
    assert_int_equal(all[SERVICE_INVITATION].outcomes, 0);
    return all[SERVICE_INVITATION];
}

static void
assert_ledger(int64_t pending, int64_t final, int64_t dead)
{
    struct journal_ledger l = ledger();

    assert_int_equal(l.pending, pending);
    assert_int_equal(l.final, final);
    assert_int_equal(l.dead, dead);
}

static int64_t
metric(enum metric metric)
{
    return metrics_get(w->metrics, metric, SERVICE_INVITATION);
}

static void
tick(void)
{
    w->wait_ms = invitation_service.tick(w->service, w->now, w->paused);
    assert_true(w->wait_ms > 0);
}

static bool
feed_page(void)
{
    return fake_feed(&w->feed, w->service, PAGE, w->now);
}

static void
feed(void)
{
    while (feed_page()) {
    }
}

/* What the writer has, in one group. */
static void
commit(void)
{
    struct write *writes[FAKE_WRITES_MAX];
    size_t count = fake_writer_commit(&w->writer, w->f->dispatcher, writes);

    reply(writes, count, RC_OK);
}

/* The journal takes none of it. */
static void
refuse_commit(enum rc rc)
{
    size_t count = w->writer.count;

    w->writer.count = 0;
    reply(w->writer.writes, count, rc);
}

/* The registrar has served the turn that it got first. */
static void
serve(void)
{
    struct registrar_turn *turn = w->given[0];

    assert_true(w->given_count > 0);
    w->given_count--;
    memmove(w->given, w->given + 1, w->given_count * sizeof(w->given[0]));
    for (size_t i = 0; i < turn->count; i++) {
        if (turn->outcomes[i].what == ALLOCATOR_UNDECIDED) {
            turn->outcomes[i].what = ALLOCATOR_PLACE;
        }
    }
    assert_int_equal(queue_push(w->options.served, turn, 0), RC_OK);
}

/* Until all that is in the journal has left it. */
static void
work_all_off(void)
{
    for (int i = 0; i < 1000 && (ledger().pending > 0 || w->writer.count > 0);
         i++) {
        (void)feed_page();
        tick();
        while (w->given_count > 0) {
            serve();
        }
        tick();
        commit();
    }
    assert_int_equal(ledger().pending, 0);
}

/* ---- people -----------------------------------------------------------------
 */

static struct uuid
ask_as(const char *body)
{
    struct journal_request r = fixture_request(w->f, body);

    r.service = SERVICE_INVITATION;
    assert_int_equal(
        journal_accept(w->f->edge, &r, 1, FIXTURE_NOW + FIXTURE_DAY), RC_OK);
    return r.id;
}

/* Some people more, jo1@example.com and so on; or with this body. */
static void
ask_for(unsigned count, const char *body)
{
    while (count > 0) {
        struct journal_request requests[PAGE];
        char bodies[PAGE][48];
        unsigned n = count < PAGE ? count : PAGE;

        for (unsigned i = 0; i < n; i++) {
            if (body == NULL) {
                (void)snprintf(bodies[i], sizeof(bodies[i]),
                               "twitter-reg1 jo%u@example.com", ++w->people);
            }
            requests[i] =
                fixture_request(w->f, body != NULL ? body : bodies[i]);
            requests[i].service = SERVICE_INVITATION;
        }
        assert_int_equal(
            journal_accept(w->f->edge, requests, n, FIXTURE_NOW + FIXTURE_DAY),
            RC_OK);
        count -= n;
    }
}

static void
ask(unsigned count)
{
    ask_for(count, NULL);
}

/* The turn holds those people, first..first + count - 1, in order. */
static void
assert_people(const struct registrar_turn *turn, unsigned first, size_t count)
{
    assert_int_equal(turn->count, count);
    for (size_t i = 0; i < count; i++) {
        char key[48];

        (void)snprintf(key, sizeof(key), "jo%zu@example.com", first + i);
        assert_string_equal(turn->people[i].address.key, key);
    }
}

/* ---- handing in -------------------------------------------------------------
 */

static void
people_are_handed_in_as_they_came(void **state)
{
    char id[UUID_TEXT_BYTES];
    const struct person *person;
    struct uuid second;

    (void)state;
    (void)ask_as("telegram-test Jo+news@Example.COM");
    second = ask_as("twitter-reg1 ann@b\xc3\xbc"
                    "cher.example");
    feed();
    tick();
    assert_int_equal(w->given_count, 1);
    assert_int_equal(w->given[0]->count, 2);
    person = &w->given[0]->people[0];
    assert_string_equal(person->code, "telegram-test");
    assert_string_equal(person->address.text, "Jo+news@Example.COM");
    assert_string_equal(person->address.key, "jo+news@example.com");
    assert_int_equal(person->seq, 1);
    person = &w->given[0]->people[1];
    assert_string_equal(person->code, "twitter-reg1");
    assert_string_equal(person->address.mailbox, "ann@xn--bcher-kva.example");
    assert_int_equal(person->seq, 2);
    assert_int_equal(person->node, NODE);
    assert_int_equal(person->received_unix_ms, FIXTURE_NOW);
    assert_string_equal(person->request_id, uuid_format(&second, id));
    assert_int_equal(person[1].seq, 0);
}

static void
a_turn_holds_512(void **state)
{
    (void)state;
    ask(REGISTRAR_TURN_MAX + 1);
    feed();
    tick();
    assert_int_equal(w->given_count, 2);
    assert_people(w->given[0], 1, REGISTRAR_TURN_MAX);
    assert_people(w->given[1], REGISTRAR_TURN_MAX + 1, 1);
}

static void
two_turns_are_out_and_newcomers_gather_behind_them(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        ask(1);
        feed();
        tick();
    }
    assert_int_equal(w->given_count, 2);
    assert_people(w->given[0], 1, 1);
    assert_people(w->given[1], 2, 1);
    assert_true(w->wait_ms > 1000); /* served wakes it, no clock */
    serve();
    tick();
    assert_int_equal(w->given_count, 2);
    assert_people(w->given[1], 3, 2);
}

static void
there_is_room_for_1024_that_wait(void **state)
{
    (void)state;
    w->paused = true;
    ask(1025);
    feed();
    assert_int_equal(w->feed.cursor, 1024);
    tick();
    assert_int_equal(metric(METRIC_ACTIVE_REQUESTS), 1024);
    w->paused = false;
    tick();
    feed();
    assert_int_equal(w->feed.cursor, 1025);
    work_all_off();
    assert_ledger(0, 1025, 0);
}

static void
the_order_holds_over_many_turns(void **state)
{
    unsigned next = 1;

    (void)state;
    ask(3000);
    while (ledger().pending > 0) {
        (void)feed_page();
        tick();
        if (w->given_count > 0) {
            assert_people(w->given[0], next, w->given[0]->count);
            next += (unsigned)w->given[0]->count;
            serve();
        }
        if (next % 3 == 0) { /* now and then */
            tick();
            commit();
        }
        if (next > 3000) {
            tick();
            commit();
        }
    }
    assert_int_equal(next, 3001);
    assert_ledger(0, 3000, 0);
}

static void
a_turn_that_the_registrar_refuses_goes_first_the_next_time(void **state)
{
    (void)state;
    ask(2);
    feed();
    w->registrar_full = 2;
    tick();
    assert_int_equal(w->given_count, 0);
    assert_true(w->wait_ms <= 10);
    assert_int_equal(metric(METRIC_ACTIVE_REQUESTS), 2);
    ask(1);
    feed();
    tick();
    assert_int_equal(w->given_count, 0);
    tick();
    assert_int_equal(w->given_count, 2);
    assert_people(w->given[0], 1, 2);
    assert_people(w->given[1], 3, 1);
    work_all_off();
    assert_ledger(0, 3, 0);
}

/* ---- retiring ---------------------------------------------------------------
 */

static void
a_request_leaves_the_journal_once_it_is_served(void **state)
{
    (void)state;
    ask(3);
    feed();
    tick();
    commit();
    assert_ledger(3, 0, 0);
    serve();
    tick();
    assert_ledger(3, 0, 0);
    assert_int_equal(metric(METRIC_PERSISTED_TOTAL), 0);
    assert_int_equal(metric(METRIC_ACTIVE_REQUESTS), 3);
    assert_int_equal(w->writer.count, 1);
    commit();
    tick();
    assert_ledger(0, 3, 0);
    assert_int_equal(metric(METRIC_PERSISTED_TOTAL), 3);
    assert_int_equal(metric(METRIC_DEAD_TOTAL), 0);
    assert_int_equal(metric(METRIC_ACTIVE_REQUESTS), 0);
}

static void
poison_alone_goes_to_the_dead_letters(void **state)
{
    struct journal_entry entry;
    struct uuid id;

    (void)state;
    ask(1);
    id = ask_as("twitter-reg1 poison@example.com");
    ask(1);
    feed();
    tick();
    w->given[0]->outcomes[1].what = ALLOCATOR_POISON;
    (void)snprintf(w->given[0]->outcomes[1].why, PLACES_WHY_BYTES,
                   "refused: {_id: \"poison@example.com\"}");
    serve();
    tick();
    commit();
    assert_ledger(0, 2, 1);
    assert_int_equal(journal_find(w->reader, &id, &entry), RC_OK);
    assert_int_equal(entry.place, JOURNAL_DEAD);
    assert_string_equal(entry.reason, "refused: {_id: \"poison@example.com\"}");
    assert_string_equal(w->last_event, "invitation_refused_by_store");
    assert_int_equal(metric(METRIC_PERSISTED_TOTAL), 2);
    assert_int_equal(metric(METRIC_DEAD_TOTAL), 1);
    assert_int_equal(metric(METRIC_QUARANTINED_TOTAL), 0);
}

static void
a_turn_of_nothing_but_poison_dies_whole(void **state)
{
    (void)state;
    ask(2);
    feed();
    tick();
    w->given[0]->outcomes[0].what = ALLOCATOR_POISON;
    w->given[0]->outcomes[1].what = ALLOCATOR_POISON;
    serve();
    tick();
    commit();
    assert_ledger(0, 0, 2);
}

static void
what_is_no_request_for_a_place_is_buried_and_no_one_waits_for_it(void **state)
{
    static const char *const bodies[] = {"", "nonsense", "code no-address",
                                         "CODE jo@example.com"};
    struct journal_entry entry;
    struct uuid id;

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bodies); i++) {
        id = ask_as(bodies[i]);
        ask(1);
    }
    feed();
    tick();
    assert_int_equal(w->given_count, 1);
    assert_people(w->given[0], 1, 4);
    assert_int_equal(w->writer.count, 4);
    commit();
    assert_ledger(4, 0, 4);
    assert_int_equal(journal_find(w->reader, &id, &entry), RC_OK);
    assert_string_equal(entry.reason, "record cannot be decoded: not a request "
                                      "for a place");
    assert_int_equal(metric(METRIC_QUARANTINED_TOTAL), 4);
    assert_int_equal(metric(METRIC_DEAD_TOTAL), 4);
    work_all_off();
    assert_ledger(0, 4, 4);
}

static void
broken_rows_alone_make_no_turn(void **state)
{
    (void)state;
    (void)ask_as("nonsense");
    feed();
    tick();
    assert_int_equal(w->given_count, 0);
    assert_false(invitation_service.idle(w->service));
    commit();
    tick();
    assert_true(invitation_service.idle(w->service));
    assert_true(w->wait_ms > 1000);
    assert_ledger(0, 0, 1);
}

static void
a_row_that_the_journal_could_not_read_is_buried(void **state)
{
    static const struct uuid id = {{1}};
    struct work *work =
        work_new(SERVICE_INVITATION, 1, FIXTURE_NOW, &id, "c jo@example.com",
                 strlen("c jo@example.com"));

    (void)state;
    ask(1);
    assert_non_null(work);
    work->broken = true;
    invitation_service.accept(w->service, work, w->now);
    tick();
    assert_int_equal(w->given_count, 0);
    commit();
    assert_ledger(0, 0, 1);
}

static void
groups_that_the_writer_repeats_count_once(void **state)
{
    (void)state;
    ask(2);
    (void)ask_as("nonsense");
    feed();
    tick();
    w->given[0]->outcomes[1].what = ALLOCATOR_POISON;
    serve();
    tick();
    w->writer.groups_to_undo = 3;
    commit();
    assert_ledger(0, 1, 2);
}

static void
what_was_served_before_a_crash_is_served_again(void **state)
{
    (void)state;
    ask(3);
    feed();
    tick();
    serve();
    tick();
    die(); /* before it was written */
    assert_ledger(3, 0, 0);
    assert_int_equal(service_start_again(), RC_OK);
    feed();
    tick();
    assert_people(w->given[0], 1, 3);
    work_all_off();
    assert_ledger(0, 3, 0);
}

static void
a_turn_that_is_retired_twice_counts_once(void **state)
{
    struct write *writes[FAKE_WRITES_MAX];
    size_t count;

    (void)state;
    ask(2);
    feed();
    tick();
    serve();
    tick();
    count = fake_writer_commit(&w->writer, w->f->dispatcher, writes);
    assert_ledger(0, 2, 0);
    w->writer.count = count; /* on disk, and nobody was told */
    commit();
    assert_ledger(0, 2, 0);
}

/* ---- what fails -------------------------------------------------------------
 */

static void
a_full_writer_loses_nothing(void **state)
{
    (void)state;
    ask(2);
    (void)ask_as("nonsense");
    feed();
    w->writer.full = 1;
    tick(); /* the broken one */
    assert_true(w->wait_ms <= 10);
    w->writer.full = 3;
    serve();
    tick();
    tick();
    assert_false(invitation_service.idle(w->service));
    while (w->writer.full > 0) {
        tick();
    }
    tick();
    assert_true(w->wait_ms > 10);
    commit();
    assert_true(invitation_service.idle(w->service));
    assert_ledger(0, 2, 1);
}

static void
without_memory_everyone_waits_in_order(void **state)
{
    (void)state;
    ask(1);
    (void)ask_as("nonsense");
    ask(1);
    feed();
    w->allocations_to_fail = 1; /* the turn */
    tick();
    assert_int_equal(w->given_count, 0);
    assert_true(w->wait_ms <= 10);
    tick();
    assert_int_equal(w->given_count, 1);
    assert_people(w->given[0], 1, 2);
    work_all_off();
    assert_ledger(0, 2, 1);
}

static void
a_broken_one_that_cannot_be_written_up_is_not_passed_over(void **state)
{
    (void)state;
    (void)ask_as("nonsense");
    ask(1);
    feed();
    w->allocations_to_pass = 1; /* the turn is had, the record is not */
    w->allocations_to_fail = 1;
    tick();
    assert_int_equal(w->given_count, 0);
    assert_int_equal(w->writer.count, 0);
    assert_true(w->wait_ms <= 10);
    work_all_off();
    assert_ledger(0, 1, 1);
}

static void
what_was_served_waits_for_memory(void **state)
{
    struct pollfd fd = {.events = POLLIN};

    (void)state;
    ask(2);
    feed();
    tick();
    serve();
    fd.fd = invitation_service.fd(w->service);
    assert_int_equal(poll(&fd, 1, 0), 1);
    w->allocations_to_fail = 1;
    tick();
    assert_int_equal(w->writer.count, 0);
    assert_false(invitation_service.idle(w->service));
    assert_true(w->wait_ms <= 10);
    assert_int_equal(invitation_service.fd(w->service), -1); /* no spinning */
    tick();
    assert_int_equal(w->writer.count, 1);
    assert_int_equal(invitation_service.fd(w->service), fd.fd);
    assert_int_equal(poll(&fd, 1, 0), 0);
    commit();
    assert_ledger(0, 2, 0);
}

static void
while_the_disk_fails_turns_in_hand_are_bounded(void **state)
{
    size_t turns = 0;

    (void)state;
    for (int i = 0; i < 20; i++) {
        ask(1);
        feed();
        tick();
        while (w->given_count > 0) {
            serve();
            turns++;
        }
        tick();
    }
    assert_int_equal(turns + w->given_count, HELD_MAX);
    assert_int_equal(w->writer.count, HELD_MAX);
    assert_true(w->wait_ms > 1000);
    commit();
    work_all_off();
    assert_ledger(0, 20, 0);
}

static void
while_the_disk_fails_requests_in_hand_are_bounded(void **state)
{
    (void)state;
    ask_for(IN_HAND_MAX + 1, "nonsense");
    for (int i = 0; i < IN_HAND_MAX; i++) {
        (void)feed_page();
        tick();
    }
    assert_int_equal(w->feed.cursor, IN_HAND_MAX);
    assert_int_equal(metric(METRIC_ACTIVE_REQUESTS), IN_HAND_MAX);
    assert_false(invitation_service.has_room(w->service));
    commit();
    assert_true(invitation_service.has_room(w->service));
    work_all_off();
    assert_ledger(0, 0, IN_HAND_MAX + 1);
}

static void
a_write_that_the_journal_refuses_is_left_to_the_next_start(void **state)
{
    (void)state;
    ask(1);
    (void)ask_as("nonsense");
    feed();
    tick();
    serve();
    tick();
    refuse_commit(RC_BUG);
    assert_true(invitation_service.idle(w->service));
    assert_int_equal(metric(METRIC_PERSISTED_TOTAL), 0);
    assert_int_equal(metric(METRIC_DEAD_TOTAL), 0);
    assert_ledger(2, 0, 0);
    die();
    assert_int_equal(service_start_again(), RC_OK);
    work_all_off();
    assert_ledger(0, 1, 1);
}

/* ---- orders -----------------------------------------------------------------
 */

static void
paused_hands_in_nothing_and_takes_what_is_served(void **state)
{
    (void)state;
    ask(1);
    feed();
    tick();
    w->paused = true;
    ask(1);
    feed();
    tick();
    assert_int_equal(w->given_count, 1);
    assert_true(w->wait_ms > 1000);
    assert_false(invitation_service.idle(w->service));
    serve();
    tick();
    assert_false(invitation_service.idle(w->service));
    commit();
    tick();
    assert_ledger(1, 1, 0);
    assert_true(invitation_service.idle(w->service)); /* one waits: at rest */
    w->paused = false;
    tick();
    assert_people(w->given[0], 2, 1);
}

static void
new_settings_hold_for_those_who_come(void **state)
{
    (void)state;
    (void)ask_as("c jo+a@example.com");
    feed();
    tick();
    (void)snprintf(w->conf.invitation.fold_plus_tags,
                   sizeof(w->conf.invitation.fold_plus_tags), "yes");
    invitation_service.configure(w->service, &w->conf);
    assert_int_equal(w->mailer_configured, 1);
    (void)ask_as("c jo+b@example.com");
    feed();
    tick();
    assert_string_equal(w->given[0]->people[0].address.key, "jo+a@example.com");
    assert_string_equal(w->given[1]->people[0].address.key, "jo@example.com");
}

static void
the_report_is_members_of_an_object(void **state)
{
    struct text out = {0};

    (void)state;
    for (int i = 0; i < 4; i++) {
        ask(2);
        feed();
        tick();
    }
    serve();
    w->paused = true;
    tick();
    text_puts(&out, "{");
    invitation_service.report(w->service, &out);
    text_puts(&out, "}");
    assert_string_equal(text_cstr(&out),
                        "{\"waiting\":4,\"being_served\":2,\"retiring\":2,"
                        "\"mail\":{}}");
    text_free(&out);
}

/* ---- life -------------------------------------------------------------------
 */

static void
without_its_threads_it_does_not_start(void **state)
{
    (void)state;
    die();
    w->mailer_fails = true;
    assert_int_equal(service_start_again(), RC_INVALID);
    assert_null(w->service);
    w->mailer_fails = false;
    w->registrar_fails = true;
    assert_int_equal(service_start_again(), RC_IO);
    assert_null(w->service);
    assert_false(w->mailer_runs);
    w->allocations_to_fail = 1;
    assert_int_equal(service_start_again(), RC_NOMEM);
    assert_null(w->service);
}

static void
free_of_nothing_is_nothing(void **state)
{
    void *nothing = NULL;

    (void)state;
    invitation_service.free(&nothing);
    assert_null(nothing);
}

static void
what_is_in_its_hands_at_the_end_is_freed(void **state)
{
    (void)state;
    w->paused = true; /* one in each place */
    ask(1);
    feed();
    w->paused = false;
    tick(); /* served, then unsubmitted */
    w->writer.full = 100;
    serve();
    tick();
    ask(1);
    feed();
    tick(); /* served, not taken */
    ask(1);
    feed();
    tick(); /* given */
    serve();
    ask(1);
    feed();
    w->registrar_full = 100;
    w->allocations_to_fail = 1;
    tick();
    tick(); /* ungiven */
    ask(1);
    feed(); /* waits */
    die();
    w->writer.full = 0;
    w->registrar_full = 0;
    w->allocations_to_fail = 0;
    assert_int_equal(service_start_again(), RC_OK);
    work_all_off();
    assert_ledger(0, 5, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_new, world_free)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(people_are_handed_in_as_they_came),
        TEST(a_turn_holds_512),
        TEST(two_turns_are_out_and_newcomers_gather_behind_them),
        TEST(there_is_room_for_1024_that_wait),
        TEST(the_order_holds_over_many_turns),
        TEST(a_turn_that_the_registrar_refuses_goes_first_the_next_time),
        TEST(a_request_leaves_the_journal_once_it_is_served),
        TEST(poison_alone_goes_to_the_dead_letters),
        TEST(a_turn_of_nothing_but_poison_dies_whole),
        TEST(what_is_no_request_for_a_place_is_buried_and_no_one_waits_for_it),
        TEST(broken_rows_alone_make_no_turn),
        TEST(a_row_that_the_journal_could_not_read_is_buried),
        TEST(groups_that_the_writer_repeats_count_once),
        TEST(what_was_served_before_a_crash_is_served_again),
        TEST(a_turn_that_is_retired_twice_counts_once),
        TEST(a_full_writer_loses_nothing),
        TEST(without_memory_everyone_waits_in_order),
        TEST(a_broken_one_that_cannot_be_written_up_is_not_passed_over),
        TEST(what_was_served_waits_for_memory),
        TEST(while_the_disk_fails_turns_in_hand_are_bounded),
        TEST(while_the_disk_fails_requests_in_hand_are_bounded),
        TEST(a_write_that_the_journal_refuses_is_left_to_the_next_start),
        TEST(paused_hands_in_nothing_and_takes_what_is_served),
        TEST(new_settings_hold_for_those_who_come),
        TEST(the_report_is_members_of_an_object),
        TEST(without_its_threads_it_does_not_start),
        TEST(free_of_nothing_is_nothing),
        TEST(what_is_in_its_hands_at_the_end_is_freed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
