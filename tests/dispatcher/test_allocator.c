/* dispatcher/allocator.c over a store in memory that loses races, crashes, and
 * is shared with others, at each operation. */
#include "dispatcher/allocator.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/dispatcher/places_fixture.h"

#define PEOPLE 260

struct world {
    struct memory memory;
    struct memory_store store;
    struct places places;
    struct allocator *allocator;
    struct person people[PEOPLE];
    struct allocator_outcome outcomes[PEOPLE];
    size_t count;
    /* For the hooks. */
    const char *operation; /* at which to do it; NULL: never */
    int skip;              /* so many of them first */
    struct person rival;
    int32_t rival_slot;
};

static struct world *
world_new(void)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    w->store.memory = &w->memory;
    w->store.arg = w;
    w->places = (struct places){.ops = &memory_ops, .self = &w->store};
    assert_int_equal(allocator_new(&w->allocator, &w->places), RC_OK);
    return w;
}

static int
setup(void **state)
{
    *state = world_new();
    return 0;
}

static int
teardown(void **state)
{
    struct world *w = *state;
    allocator_free(&w->allocator);
    free(w);
    return 0;
}

static struct person
person_of(const char *code, const char *key, int32_t node, int64_t seq)
{
    struct person p = {.received_unix_ms = 1000, .node = node, .seq = seq};
    snprintf(p.code, sizeof(p.code), "%s", code);
    snprintf(p.address.key, sizeof(p.address.key), "%s", key);
    snprintf(p.address.text, sizeof(p.address.text), "%s", key);
    snprintf(p.address.mailbox, sizeof(p.address.mailbox), "%s", key);
    snprintf(p.request_id, sizeof(p.request_id), "%d-%d", (int)node, (int)seq);
    return p;
}

static struct person *
ask(struct world *w, const char *code, const char *key)
{
    assert_true(w->count < PEOPLE);
    struct person *p = &w->people[w->count];
    *p = person_of(code, key, 0, (int64_t)w->count);
    w->count++;
    return p;
}

static void
ask_many(struct world *w, const char *code, int from, int to)
{
    for (int k = from; k < to; k++) {
        char key[32];
        snprintf(key, sizeof(key), "p%d@x", k);
        (void)ask(w, code, key);
    }
}

static enum rc
serve_and_mail(struct allocator *a, const struct person *people, size_t count,
               struct allocator_outcome *outcomes)
{
    enum rc rc = allocator_serve(a, 2000, people, count, outcomes);
    return rc == RC_OK ? allocator_mail(a, 2000, people, count, outcomes) : rc;
}

static void
serve(struct world *w)
{
    assert_int_equal(
        serve_and_mail(w->allocator, w->people, w->count, w->outcomes), RC_OK);
}

static struct allocator_swept
sweep(struct world *w)
{
    struct allocator_swept swept;
    assert_int_equal(allocator_sweep(w->allocator, 3000, &swept), RC_OK);
    return swept;
}

static void
expect(const struct world *w, size_t index, enum allocator_what what,
       int32_t slot)
{
    assert_string_equal(allocator_what_name(w->outcomes[index].what),
                        allocator_what_name(what));
    assert_int_equal(w->outcomes[index].slot, slot);
    if (slot > 0) {
        assert_int_equal(memory_slot(&w->memory, w->people[index].address.key),
                         slot);
    }
}

/* ---- serving --------------------------------------------------------------
 */

static void
places_go_in_order_of_arrival_then_come_waiters(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 120);
    ask_many(w, "a", 0, 250);
    serve(w);
    for (int k = 0; k < 250; k++) {
        const char *key = w->people[k].address.key;
        bool place = k < 120;
        expect(w, (size_t)k, place ? ALLOCATOR_PLACE : ALLOCATOR_WAITING,
               place ? k + 1 : 0);
        assert_int_equal(memory_mails(&w->memory, key, PLACE_MAIL_WELCOME),
                         place);
        assert_int_equal(memory_mails(&w->memory, key, PLACE_MAIL_APOLOGY),
                         !place);
        assert_int_equal(memory_waits(&w->memory, "a", key), !place);
    }
    assert_int_equal(w->memory.registered_count, 120);
}

static void
codes_may_be_mixed(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 1);
    memory_invite(&w->memory, "b", 2);
    (void)ask(w, "b", "1@x");
    (void)ask(w, "a", "2@x");
    (void)ask(w, "b", "3@x");
    (void)ask(w, "a", "4@x");
    serve(w);
    expect(w, 0, ALLOCATOR_PLACE, 1);
    expect(w, 1, ALLOCATOR_PLACE, 1);
    expect(w, 2, ALLOCATOR_PLACE, 2);
    expect(w, 3, ALLOCATOR_WAITING, 0);
}

static void
an_unknown_or_expired_code_gets_its_mail(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 5);
    w->memory.invitations[0].expires_unix_ms = 1000;
    ask(w, "a", "early@x")->received_unix_ms = 999;
    ask(w, "a", "late@x")->received_unix_ms = 1000;
    (void)ask(w, "none", "1@x");
    serve(w);
    expect(w, 0, ALLOCATOR_PLACE, 1);
    expect(w, 1, ALLOCATOR_UNKNOWN, 0);
    expect(w, 2, ALLOCATOR_UNKNOWN, 0);
    assert_int_equal(memory_mails(&w->memory, "late@x", PLACE_MAIL_UNKNOWN), 1);
    assert_int_equal(memory_mails(&w->memory, "1@x", PLACE_MAIL_UNKNOWN), 1);
}

static void
one_address_gets_one_invitation_once(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 5);
    memory_invite(&w->memory, "b", 5);
    (void)ask(w, "a", "1@x");
    (void)ask(w, "a", "1@x");
    (void)ask(w, "b", "1@x");
    (void)ask(w, "a", "2@x");
    serve(w);
    expect(w, 0, ALLOCATOR_PLACE, 1);
    expect(w, 1, ALLOCATOR_REPEATED, 0);
    expect(w, 2, ALLOCATOR_REPEATED, 0);
    expect(w, 3, ALLOCATOR_PLACE, 2);
    assert_int_equal(w->memory.mail_count, 2);
}

static void
the_first_code_that_an_address_asks_for_counts(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 5);
    memory_invite(&w->memory, "b", 5);
    memory_invite(&w->memory, "full", 1);
    (void)ask(w, "b", "1@x");
    (void)ask(w, "full", "2@x");
    (void)ask(w, "a", "3@x");
    (void)ask(w, "b", "3@x");
    (void)ask(w, "a", "3@x");
    (void)ask(w, "full", "4@x");
    (void)ask(w, "b", "4@x");
    (void)ask(w, "b", "5@x");
    serve(w);
    expect(w, 0, ALLOCATOR_PLACE, 1);
    expect(w, 1, ALLOCATOR_PLACE, 1);
    expect(w, 2, ALLOCATOR_PLACE, 1);
    expect(w, 3, ALLOCATOR_REPEATED, 0);
    expect(w, 4, ALLOCATOR_REPEATED, 0);
    expect(w, 5, ALLOCATOR_WAITING, 0);
    expect(w, 6, ALLOCATOR_PLACE, 2);
    expect(w, 7, ALLOCATOR_PLACE, 3);
}

static void
who_waits_and_asks_again_gets_no_second_mail(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 1);
    memory_invite(&w->memory, "b", 1);
    ask_many(w, "a", 0, 2);
    serve(w);
    (void)ask(w, "a", "p1@x");
    (void)ask(w, "b", "p1@x"); /* got no place: may use another */
    serve(w);
    expect(w, 1, ALLOCATOR_WAITING, 0);
    expect(w, 2, ALLOCATOR_REPEATED, 0);
    expect(w, 3, ALLOCATOR_PLACE, 1);
    assert_int_equal(memory_mails(&w->memory, "p1@x", PLACE_MAIL_APOLOGY), 1);
}

static void
the_refused_get_nothing(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 5);
    memory_refuse(&w->memory, "1@x");
    (void)ask(w, "a", "1@x");
    (void)ask(w, "a", "2@x");
    serve(w);
    expect(w, 0, ALLOCATOR_REFUSED, 0);
    expect(w, 1, ALLOCATOR_PLACE, 1);
    assert_int_equal(w->memory.mail_count, 1);
}

static void
newcomers_join_the_end_while_anybody_waits(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 2);
    ask_many(w, "a", 0, 3);
    serve(w);
    w->memory.invitations[0].limit = 10;
    w->count = 0;
    ask_many(w, "a", 10, 12);
    w->people[0].seq = 10;
    w->people[1].seq = 11;
    w->memory.slot_reads = 0;
    serve(w);
    expect(w, 0, ALLOCATOR_WAITING, 0);
    expect(w, 1, ALLOCATOR_WAITING, 0);
    assert_int_equal(w->memory.slot_reads, 0);
    assert_int_equal(sweep(w).moved, 3);
    assert_int_equal(memory_slot(&w->memory, "p2@x"), 3);
    assert_int_equal(memory_slot(&w->memory, "p10@x"), 4);
    assert_int_equal(memory_slot(&w->memory, "p11@x"), 5);
}

static void
slots_are_read_once_in_a_rush(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 1000);
    for (int k = 0; k < 5; k++) {
        w->count = 0;
        ask_many(w, "a", k * 200, k * 200 + 200);
        serve(w);
        expect(w, 199, ALLOCATOR_PLACE, k * 200 + 200);
    }
    assert_int_equal(w->memory.slot_reads, 1);
}

static void
what_the_store_refuses_is_poison_alone(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 5);
    ask_many(w, "a", 0, 3);
    w->store.poison = "p1@x";
    serve(w);
    expect(w, 0, ALLOCATOR_PLACE, 1);
    expect(w, 1, ALLOCATOR_POISON, 0);
    assert_string_equal(w->outcomes[1].why, "bad");
    expect(w, 2, ALLOCATOR_PLACE, 2);
}

/* ---- races ----------------------------------------------------------------
 */

/* At the operation chosen, once, a rival gets a place. */
static enum rc
rival_registers(void *arg, const char *operation)
{
    struct world *w = arg;
    if (w->operation != NULL && strcmp(operation, w->operation) == 0 &&
        w->skip-- == 0) {
        w->operation = NULL;
        assert_true(memory_register(&w->memory, &w->rival, w->rival_slot));
    }
    return RC_OK;
}

static void
a_slot_lost_to_another_is_planned_anew_and_no_one_overtakes(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 4);
    ask_many(w, "a", 0, 5);
    w->store.before = rival_registers;
    w->operation = "add_registrations";
    w->skip = 1; /* p1, who was to have slot 2 */
    w->rival = person_of("a", "rival@x", 1, 7);
    w->rival_slot = 2;
    serve(w);
    expect(w, 0, ALLOCATOR_PLACE, 1);
    expect(w, 1, ALLOCATOR_PLACE, 3);
    expect(w, 2, ALLOCATOR_PLACE, 4);
    expect(w, 3, ALLOCATOR_WAITING, 0);
    expect(w, 4, ALLOCATOR_WAITING, 0);
}

static void
who_registers_elsewhere_meanwhile_is_repeated(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 4);
    ask_many(w, "a", 0, 3);
    w->store.before = rival_registers;
    w->operation = "add_registrations";
    w->skip = 1;
    w->rival = person_of("b", "p1@x", 1, 7);
    w->rival_slot = 1;
    serve(w);
    expect(w, 0, ALLOCATOR_PLACE, 1);
    expect(w, 1, ALLOCATOR_REPEATED, 0);
    expect(w, 2, ALLOCATOR_PLACE, 2);
    assert_int_equal(memory_mails(&w->memory, "p1@x", PLACE_MAIL_WELCOME), 0);
}

static enum rc
rival_refuses(void *arg, const char *operation)
{
    struct world *w = arg;
    if (strcmp(operation, "add_registrations") == 0) {
        memory_refuse(&w->memory, "p1@x");
        w->memory.refused[0].freed = true; /* the sweep has just passed */
    }
    return RC_OK;
}

static void
who_is_refused_while_registering_loses_the_place(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 3);
    ask_many(w, "a", 0, 3);
    w->store.before = rival_refuses;
    serve(w);
    expect(w, 0, ALLOCATOR_PLACE, 1);
    expect(w, 1, ALLOCATOR_REFUSED, 0);
    expect(w, 2, ALLOCATOR_PLACE, 3);
    assert_int_equal(memory_slot(&w->memory, "p1@x"), 0);
    assert_int_equal(w->memory.mail_count, 2);
    w->count = 0;
    ask_many(w, "a", 5, 6);
    serve(w);
    expect(w, 0, ALLOCATOR_PLACE, 2);
}

static void
a_plan_out_of_date_is_read_again_before_anyone_waits(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 3);
    ask_many(w, "a", 0, 3);
    serve(w);
    w->memory.registered_count = 1; /* others have freed 2 and 3 */
    w->count = 0;
    ask_many(w, "a", 5, 7);
    serve(w);
    expect(w, 0, ALLOCATOR_PLACE, 2);
    expect(w, 1, ALLOCATOR_PLACE, 3);
}

/* ---- sweeping -------------------------------------------------------------
 */

static void
a_refusal_frees_the_place_for_the_next_in_line(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 2);
    ask_many(w, "a", 0, 5);
    serve(w);
    memory_refuse(&w->memory, "p0@x");
    memory_refuse(&w->memory, "p2@x"); /* who waits */
    struct allocator_swept swept = sweep(w);
    assert_int_equal(swept.freed, 2);
    assert_int_equal(swept.moved, 1);
    assert_int_equal(memory_slot(&w->memory, "p0@x"), 0);
    assert_false(memory_waits(&w->memory, "a", "p2@x"));
    assert_int_equal(memory_slot(&w->memory, "p3@x"), 1);
    assert_false(memory_waits(&w->memory, "a", "p3@x"));
    assert_int_equal(memory_mails(&w->memory, "p3@x", PLACE_MAIL_WELCOME), 1);
    assert_true(memory_waits(&w->memory, "a", "p4@x"));
    swept = sweep(w);
    assert_int_equal(swept.freed + swept.moved + swept.left, 0);
    assert_false(swept.more);
}

static void
who_got_a_place_elsewhere_leaves_the_waitlist(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 1);
    memory_invite(&w->memory, "b", 1);
    ask_many(w, "a", 0, 3);
    (void)ask(w, "b", "p1@x");
    (void)sweep(w); /* the first is thorough */
    serve(w);
    memory_refuse(&w->memory, "p0@x");
    struct allocator_swept swept = sweep(w);
    assert_int_equal(swept.left, 1);
    assert_true(swept.more);
    swept = sweep(w);
    assert_int_equal(swept.moved, 1);
    assert_int_equal(memory_slot(&w->memory, "p2@x"), 1);
    assert_int_equal(w->memory.waiting_count, 0);
}

static enum rc
count_mailings(void *arg, const char *operation)
{
    struct world *w = arg;
    w->skip += strcmp(operation, "add_mails") == 0;
    return RC_OK;
}

static void
codes_that_are_made_up_share_a_write(void **state)
{
    struct world *w = *state;
    char code[16];
    memory_invite(&w->memory, "a", 1);
    for (int k = 0; k < 240; k++) {
        snprintf(code, sizeof(code), "made-up-%d", k);
        (void)ask(w, code, k % 2 == 0 ? "p@x" : "q@x");
    }
    (void)ask(w, "a", "p@x");
    w->store.after = count_mailings;
    serve(w);
    expect(w, 0, ALLOCATOR_UNKNOWN, 0);
    expect(w, 239, ALLOCATOR_UNKNOWN, 0);
    expect(w, 240, ALLOCATOR_PLACE, 1);
    assert_int_equal(w->skip, 1); /* theirs and the welcome */
    assert_int_equal(w->memory.mail_count, 241);
}

static void
below_the_places_taken_a_lower_limit_gives_none_away(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 4);
    ask_many(w, "a", 0, 4);
    serve(w);
    w->memory.invitations[0].limit = 2;
    memory_refuse(&w->memory, "p0@x");
    assert_int_equal(sweep(w).freed, 1);
    w->count = 0;
    ask_many(w, "a", 10, 11);
    w->people[0].seq = 10;
    serve(w);
    expect(w, 0, ALLOCATOR_WAITING, 0);
    memory_refuse(&w->memory, "p1@x");
    assert_int_equal(sweep(w).moved, 0); /* slots 3 and 4 are taken */
    memory_refuse(&w->memory, "p3@x");
    assert_int_equal(sweep(w).moved, 1);
    assert_int_equal(memory_slot(&w->memory, "p10@x"), 1);
    assert_int_equal(w->memory.registered_count, 2);
}

static void
nobody_moves_up_in_an_expired_invitation(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 1);
    ask_many(w, "a", 0, 2);
    serve(w);
    w->memory.invitations[0].limit = 2;
    w->memory.invitations[0].expires_unix_ms = 3000;
    assert_int_equal(sweep(w).moved, 0);
    w->memory.invitations[0].expires_unix_ms = 3001;
    assert_int_equal(sweep(w).moved, 1);
}

/* ---- crashes --------------------------------------------------------------
 */

struct crash {
    int at;    /* which operation fails */
    bool late; /* after it was done */
    int count; /* operations so far */
};

static enum rc
fail_before(void *arg, const char *operation)
{
    struct crash *crash = arg;
    (void)operation;
    return !crash->late && crash->count++ == crash->at ? RC_IO : RC_OK;
}

static enum rc
fail_after(void *arg, const char *operation)
{
    struct crash *crash = arg;
    (void)operation;
    return crash->late && crash->count++ == crash->at ? RC_IO : RC_OK;
}

static enum rc
fail_at_mails(void *arg, const char *operation)
{
    (void)arg;
    return strcmp(operation, "add_mails") == 0 ? RC_IO : RC_OK;
}

/* A new process knows nothing of the one before it. */
static void
restart(struct world *w)
{
    allocator_free(&w->allocator);
    assert_int_equal(allocator_new(&w->allocator, &w->places), RC_OK);
}

static void
serve_to_the_end(struct world *w)
{
    while (serve_and_mail(w->allocator, w->people, w->count, w->outcomes) !=
           RC_OK) {
        restart(w);
    }
}

static void
sweep_to_the_end(struct world *w)
{
    struct allocator_swept swept = {.more = true};
    for (int rounds = 0; rounds < 4 || swept.more; rounds++) {
        if (allocator_sweep(w->allocator, 3000, &swept) != RC_OK) {
            restart(w);
            swept.more = true;
        }
    }
}

/* p3 gets the last place, and the mail fails. */
static void
a_sweep_that_broke_off_is_finished_though_no_place_is_free(void **state)
{
    struct world *w = *state;
    struct allocator_swept swept;
    memory_invite(&w->memory, "a", 2);
    ask_many(w, "a", 0, 4);
    serve(w);
    memory_refuse(&w->memory, "p0@x");
    (void)sweep(w); /* p2 has slot 1 */
    memory_refuse(&w->memory, "p1@x");
    w->store.before = fail_at_mails;
    assert_int_equal(allocator_sweep(w->allocator, 3000, &swept), RC_IO);
    w->store.before = NULL;
    assert_int_equal(memory_slot(&w->memory, "p3@x"), 2);
    assert_true(memory_waits(&w->memory, "a", "p3@x"));
    (void)sweep(w); /* those behind the code that failed */
    (void)sweep(w);
    assert_int_equal(memory_mails(&w->memory, "p3@x", PLACE_MAIL_WELCOME), 1);
    assert_false(memory_waits(&w->memory, "a", "p3@x"));
}

static void
a_welcome_that_broke_off_leaves_though_the_code_expires(void **state)
{
    struct world *w = *state;
    struct allocator_swept swept;
    memory_invite(&w->memory, "a", 1);
    ask_many(w, "a", 0, 3);
    serve(w);
    w->memory.invitations[0].limit = 2;
    w->memory.invitations[0].expires_unix_ms = 3001;
    w->store.before = fail_at_mails;
    assert_int_equal(allocator_sweep(w->allocator, 3000, &swept), RC_IO);
    w->store.before = NULL;
    restart(w);
    w->memory.invitations[0].limit = 3;
    for (int k = 0; k < 3; k++) {
        assert_int_equal(allocator_sweep(w->allocator, 3001, &swept), RC_OK);
    }
    assert_int_equal(memory_mails(&w->memory, "p1@x", PLACE_MAIL_WELCOME), 1);
    assert_false(memory_waits(&w->memory, "a", "p1@x"));
    assert_true(memory_waits(&w->memory, "a", "p2@x")); /* nobody moves up */
    assert_int_equal(memory_slot(&w->memory, "p2@x"), 0);
}

static void
who_is_served_again_after_the_code_expired_keeps_his_place(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 1);
    ask_many(w, "a", 0, 2);
    assert_int_equal(
        allocator_serve(w->allocator, 2000, w->people, w->count, w->outcomes),
        RC_OK);
    restart(w); /* before the mails */
    w->memory.invitations[0].expires_unix_ms = 1;
    serve(w);
    expect(w, 0, ALLOCATOR_PLACE, 1);
    expect(w, 1, ALLOCATOR_UNKNOWN, 0);
    assert_int_equal(memory_mails(&w->memory, "p0@x", PLACE_MAIL_WELCOME), 1);
    assert_int_equal(memory_mails(&w->memory, "p0@x", PLACE_MAIL_UNKNOWN), 0);
}

/* p0 waits for "a" and has a place of "b", and we are killed before the mails:
 * served again, the first request is one of somebody who has a place. */
static void
who_got_a_place_elsewhere_before_the_apology_was_made_gets_none(void **state)
{
    struct world *w = *state;
    memory_invite(&w->memory, "a", 1);
    memory_invite(&w->memory, "b", 1);
    (void)ask(w, "a", "q@x");
    (void)ask(w, "a", "p0@x");
    (void)ask(w, "b", "p0@x");
    assert_int_equal(
        allocator_serve(w->allocator, 2000, w->people, w->count, w->outcomes),
        RC_OK);
    expect(w, 1, ALLOCATOR_WAITING, 0);
    expect(w, 2, ALLOCATOR_PLACE, 1);
    restart(w);
    serve(w);
    expect(w, 0, ALLOCATOR_PLACE, 1);
    expect(w, 1, ALLOCATOR_REPEATED, 0);
    expect(w, 2, ALLOCATOR_PLACE, 1);
    assert_int_equal(memory_mails(&w->memory, "p0@x", PLACE_MAIL_APOLOGY), 0);
    assert_int_equal(memory_mails(&w->memory, "p0@x", PLACE_MAIL_WELCOME), 1);
    for (int k = 0; k < 3; k++) {
        (void)sweep(w); /* a thorough round among them */
    }
    assert_false(memory_waits(&w->memory, "a", "p0@x"));
}

/* Of two codes the first one fails, if those behind it come next. */
static enum rc
fail_every_other(void *arg, const char *operation)
{
    struct world *w = arg;
    bool asks = strcmp(operation, "anyone_waits") == 0;
    w->skip += asks;
    return asks && w->skip % 2 == 1 ? RC_IO : RC_OK;
}

static void
a_code_whose_sweep_fails_holds_up_no_other(void **state)
{
    struct world *w = *state;
    struct allocator_swept swept;
    memory_invite(&w->memory, "a", 1);
    memory_invite(&w->memory, "b", 1);
    ask_many(w, "b", 0, 2);
    serve(w);
    w->memory.invitations[1].limit = 2;
    w->store.before = fail_every_other;
    for (int k = 0; k < 8; k++) {
        (void)!allocator_sweep(w->allocator, 3000, &swept);
    }
    assert_int_equal(memory_slot(&w->memory, "p1@x"), 2);
}

/* Two codes, repeats, someone refused at first and someone later, and a sweep;
 * true: the operation that was to fail was reached. */
static bool
play(struct world *w, struct crash *crash)
{
    w->store.before = fail_before;
    w->store.after = fail_after;
    w->store.arg = crash;
    memory_invite(&w->memory, "a", 6);
    memory_invite(&w->memory, "b", 3);
    memory_refuse(&w->memory, "p2@x");
    ask_many(w, "a", 0, 10);
    ask_many(w, "b", 8, 14);
    ask_many(w, "a", 3, 5);
    (void)ask(w, "none", "q@x");
    serve_to_the_end(w);
    memory_refuse(&w->memory, "p1@x");
    memory_refuse(&w->memory, "p7@x");
    sweep_to_the_end(w);
    return crash->count > crash->at;
}

/* Who got a place elsewhere is owed no apology: served again after a crash, he
 * gets none, and the mailer would have left it out. */
static bool
is_due(const struct memory *m, size_t k)
{
    return m->mails[k].kind != PLACE_MAIL_APOLOGY ||
           memory_slot(m, m->mails[k].key) == 0;
}

static void
expect_mails(const struct memory *has, const struct memory *wanted)
{
    for (size_t k = 0; k < wanted->mail_count; k++) {
        const char *key = wanted->mails[k].key;
        enum place_mail kind = wanted->mails[k].kind;
        if (is_due(wanted, k)) {
            assert_int_equal(memory_mails(has, key, kind),
                             memory_mails(wanted, key, kind));
        }
    }
}

static void
expect_same(const struct memory *a, const struct memory *b)
{
    assert_int_equal(a->registered_count, b->registered_count);
    for (size_t k = 0; k < a->registered_count; k++) {
        const struct person *p = &a->registered[k];
        assert_int_equal(memory_slot(b, p->address.key), a->slots[k]);
    }
    assert_int_equal(a->waiting_count, b->waiting_count);
    for (size_t k = 0; k < a->waiting_count; k++) {
        assert_true(
            memory_waits(b, a->waiting[k].code, a->waiting[k].address.key));
    }
    expect_mails(a, b);
    expect_mails(b, a);
}

static void
a_crash_at_any_operation_changes_nothing(void **state)
{
    struct world *calm = *state;
    struct crash none = {.at = -1};
    (void)play(calm, &none);
    for (int late = 0; late < 2; late++) {
        struct crash crash = {.late = late == 1};
        bool reached = true;
        for (; reached; crash.at++) {
            struct world *w = world_new();
            crash.count = 0;
            reached = play(w, &crash);
            expect_same(&calm->memory, &w->memory);
            allocator_free(&w->allocator);
            free(w);
        }
        assert_true(crash.at > 10);
    }
}

/* ---- several dispatchers --------------------------------------------------
 */

#define ACTORS 3
#define ASKED 60

/* One of the actors runs, up to its next operation. */
struct stage {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint64_t random;
    int turn; /* -1: nobody's */
    bool alive[ACTORS];
    bool crashes;
    bool refusals;
    struct memory *memory;
};

struct actor {
    struct stage *stage;
    int number;
    struct memory_store store;
    struct places places;
    struct allocator *allocator;
    struct person people[ASKED];
    struct allocator_outcome outcomes[ASKED];
    int32_t slots[ASKED];
};

/* xorshift64*: the same runs everywhere. */
static unsigned
draw(struct stage *s, unsigned below)
{
    s->random ^= s->random >> 12;
    s->random ^= s->random << 25;
    s->random ^= s->random >> 27;
    return (unsigned)((s->random * 2685821657736338717U) >> 33) % below;
}

static void
pass_turn(struct stage *s)
{
    int first = (int)draw(s, ACTORS);
    s->turn = -1;
    for (int k = 0; k < ACTORS && s->turn < 0; k++) {
        if (s->alive[(first + k) % ACTORS]) {
            s->turn = (first + k) % ACTORS;
        }
    }
    pthread_cond_broadcast(&s->changed);
}

static void
await_turn(struct stage *s, int number)
{
    while (s->turn != number) {
        pthread_cond_wait(&s->changed, &s->mutex);
    }
}

static enum rc
let_others(void *arg, const char *operation)
{
    struct actor *actor = arg;
    struct stage *s = actor->stage;
    (void)operation;
    pthread_mutex_lock(&s->mutex);
    if (s->refusals && draw(s, 40) == 0) {
        char key[32];
        snprintf(key, sizeof(key), "k%u@x", draw(s, 80));
        memory_refuse(s->memory, key);
    }
    pass_turn(s);
    await_turn(s, actor->number);
    enum rc rc = s->crashes && draw(s, 30) == 0 ? RC_IO : RC_OK;
    pthread_mutex_unlock(&s->mutex);
    return rc;
}

static unsigned
draw_locked(struct stage *s, unsigned below)
{
    pthread_mutex_lock(&s->mutex);
    unsigned drawn = draw(s, below);
    pthread_mutex_unlock(&s->mutex);
    return drawn;
}

static void *
act(void *arg)
{
    struct actor *actor = arg;
    struct stage *s = actor->stage;
    struct allocator_swept swept;
    size_t done = 0;
    pthread_mutex_lock(&s->mutex);
    await_turn(s, actor->number);
    pthread_mutex_unlock(&s->mutex);
    while (done < ASKED) {
        size_t count = 1 + draw_locked(s, 15);
        count = count < ASKED - done ? count : ASKED - done;
        while (serve_and_mail(actor->allocator, &actor->people[done], count,
                              &actor->outcomes[done]) != RC_OK) {
        }
        done += count;
        if (draw_locked(s, 3) == 0) {
            (void)!allocator_sweep(actor->allocator, 2000, &swept);
        }
    }
    pthread_mutex_lock(&s->mutex);
    s->alive[actor->number] = false;
    pass_turn(s);
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

static void
make_actor(struct actor *actor, struct stage *s, int number)
{
    actor->stage = s;
    actor->number = number;
    actor->store = (struct memory_store){.memory = s->memory,
                                         .before = let_others,
                                         .after = let_others,
                                         .arg = actor};
    actor->places = (struct places){.ops = &memory_ops, .self = &actor->store};
    assert_int_equal(allocator_new(&actor->allocator, &actor->places), RC_OK);
    for (int k = 0; k < ASKED; k++) {
        char key[32];
        snprintf(key, sizeof(key), "k%u@x", draw(s, 80));
        actor->people[k] =
            person_of(draw(s, 4) == 0 ? "b" : "a", key, number, k);
        actor->people[k].received_unix_ms = 1000 + k / 7;
    }
}

static bool
is_refused(const struct memory *m, const char *key)
{
    for (size_t k = 0; k < m->refused_count; k++) {
        if (strcmp(m->refused[k].key, key) == 0) {
            return true;
        }
    }
    return false;
}

static int
limit_of(const struct memory *m, const char *code)
{
    return strcmp(code, "a") == 0 ? m->invitations[0].limit
                                  : m->invitations[1].limit;
}

/* Nobody too many, no one refused, everyone has the right mail, and nobody
 * waits beside a free slot. */
static void
check_state(const struct memory *m)
{
    int taken[2] = {0, 0};
    for (size_t k = 0; k < m->registered_count; k++) {
        const struct person *p = &m->registered[k];
        assert_in_range(m->slots[k], 1, limit_of(m, p->code));
        assert_false(is_refused(m, p->address.key));
        assert_true(memory_mails(m, p->address.key, PLACE_MAIL_WELCOME) >= 1);
        taken[p->code[0] - 'a']++;
    }
    for (size_t k = 0; k < m->waiting_count; k++) {
        const struct person *p = &m->waiting[k];
        /* One who was refused meanwhile leaves when it is his turn. */
        assert_int_equal(taken[p->code[0] - 'a'], limit_of(m, p->code));
        /* Who got a place elsewhere before the apology leaves needs none. */
        assert_true(memory_mails(m, p->address.key, PLACE_MAIL_APOLOGY) >= 1 ||
                    memory_slot(m, p->address.key) > 0);
    }
}

/* Where no slot ever comes free, slots rise in order of arrival, and who waits
 * came after all who got one. */
static void
check_order(const struct actor *actor, const char *code)
{
    int32_t last = 0;
    bool full = false;
    for (size_t k = 0; k < ASKED; k++) {
        const struct allocator_outcome *outcome = &actor->outcomes[k];
        if (strcmp(actor->people[k].code, code) != 0) {
            continue;
        }
        if (outcome->what == ALLOCATOR_PLACE) {
            assert_false(full);
            assert_true(outcome->slot > last);
            last = outcome->slot;
        }
        full = full || outcome->what == ALLOCATOR_WAITING;
    }
}

static void
play_together(uint64_t seed)
{
    struct world *w = world_new();
    struct actor *actors = calloc(ACTORS, sizeof(*actors));
    pthread_t threads[ACTORS];
    struct stage s = {.random = seed * 0x9e3779b97f4a7c15U + 1,
                      .memory = &w->memory,
                      .turn = -1,
                      .crashes = seed % 3 == 1,
                      .refusals = seed % 2 == 1};
    assert_non_null(actors);
    pthread_mutex_init(&s.mutex, NULL);
    pthread_cond_init(&s.changed, NULL);
    memory_invite(&w->memory, "a", 25);
    memory_invite(&w->memory, "b", 6);
    for (int k = 0; k < ACTORS; k++) {
        make_actor(&actors[k], &s, k);
        s.alive[k] = true;
    }
    for (int k = 0; k < ACTORS; k++) {
        assert_int_equal(pthread_create(&threads[k], NULL, act, &actors[k]), 0);
    }
    pthread_mutex_lock(&s.mutex);
    pass_turn(&s);
    pthread_mutex_unlock(&s.mutex);
    for (int k = 0; k < ACTORS; k++) {
        pthread_join(threads[k], NULL);
    }
    for (int k = 0; k < ACTORS && !s.refusals; k++) {
        check_order(&actors[k], "a");
        check_order(&actors[k], "b");
    }
    sweep_to_the_end(w);
    check_state(&w->memory);
    for (int k = 0; k < ACTORS; k++) {
        allocator_free(&actors[k].allocator);
    }
    allocator_free(&w->allocator);
    pthread_cond_destroy(&s.changed);
    pthread_mutex_destroy(&s.mutex);
    free(actors);
    free(w);
}

static void
three_dispatchers_agree_however_they_meet(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 120; seed++) {
        play_together(seed);
    }
}

#define IN_A_WORLD(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_WORLD(places_go_in_order_of_arrival_then_come_waiters),
        IN_A_WORLD(codes_may_be_mixed),
        IN_A_WORLD(an_unknown_or_expired_code_gets_its_mail),
        IN_A_WORLD(codes_that_are_made_up_share_a_write),
        IN_A_WORLD(one_address_gets_one_invitation_once),
        IN_A_WORLD(the_first_code_that_an_address_asks_for_counts),
        IN_A_WORLD(who_waits_and_asks_again_gets_no_second_mail),
        IN_A_WORLD(the_refused_get_nothing),
        IN_A_WORLD(newcomers_join_the_end_while_anybody_waits),
        IN_A_WORLD(slots_are_read_once_in_a_rush),
        IN_A_WORLD(what_the_store_refuses_is_poison_alone),
        IN_A_WORLD(a_slot_lost_to_another_is_planned_anew_and_no_one_overtakes),
        IN_A_WORLD(who_registers_elsewhere_meanwhile_is_repeated),
        IN_A_WORLD(who_is_refused_while_registering_loses_the_place),
        IN_A_WORLD(a_plan_out_of_date_is_read_again_before_anyone_waits),
        IN_A_WORLD(a_refusal_frees_the_place_for_the_next_in_line),
        IN_A_WORLD(who_got_a_place_elsewhere_leaves_the_waitlist),
        IN_A_WORLD(below_the_places_taken_a_lower_limit_gives_none_away),
        IN_A_WORLD(nobody_moves_up_in_an_expired_invitation),
        IN_A_WORLD(a_sweep_that_broke_off_is_finished_though_no_place_is_free),
        IN_A_WORLD(a_welcome_that_broke_off_leaves_though_the_code_expires),
        IN_A_WORLD(who_is_served_again_after_the_code_expired_keeps_his_place),
        IN_A_WORLD(
            who_got_a_place_elsewhere_before_the_apology_was_made_gets_none),
        IN_A_WORLD(a_code_whose_sweep_fails_holds_up_no_other),
        IN_A_WORLD(a_crash_at_any_operation_changes_nothing),
        cmocka_unit_test(three_dispatchers_agree_however_they_meet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
