/* dispatcher/places_mongo.c, and the allocator over it, against a real server.
 */
#include "dispatcher/places_mongo.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/allocator.h"
#include "tests/shared/mongo_fixture.h"

#define NOW 1700000000000

struct world {
    struct mongo *mongo;
    struct places places;
};

static void
must(struct mongo *mongo, enum rc rc)
{
    if (rc != RC_OK) {
        fail_msg("%s: %s", rc_name(rc), mongo_error(mongo));
    }
}

static struct places
places_over(struct mongo *mongo, int32_t node)
{
    struct places places;
    assert_int_equal(
        places_mongo_new(
            &places,
            &(struct places_mongo_options){
                .mongo = mongo, .node = node, .mail_host = "example.com"}),
        RC_OK);
    places.ops->set_now(places.self, NOW);
    return places;
}

static int
setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    (void)mongo_fixture_database("places");
    w->mongo = mongo_fixture_mongo();
    must(w->mongo, places_mongo_prepare(w->mongo));
    must(w->mongo, places_mongo_prepare(w->mongo));
    w->places = places_over(w->mongo, 3);
    *state = w;
    return 0;
}

static int
teardown(void **state)
{
    struct world *w = *state;
    w->places.ops->free(&w->places.self);
    mongo_free(&w->mongo);
    free(w);
    return 0;
}

static struct person
person_of(const char *code, int number, int32_t node)
{
    struct person p = {
        .received_unix_ms = NOW - 1000, .node = node, .seq = number};
    snprintf(p.code, sizeof(p.code), "%s", code);
    snprintf(p.address.key, ADDRESS_BYTES, "p%d@x.org", number);
    snprintf(p.address.text, ADDRESS_BYTES, "P%d@x.org", number);
    snprintf(p.address.mailbox, ADDRESS_BYTES, "P%d@x.org", number);
    snprintf(p.request_id, sizeof(p.request_id), "id-%d-%d", node, number);
    p.address.ascii = true;
    return p;
}

static void
invite(struct mongo *mongo, const char *code, int32_t limit)
{
    struct invitation invitation = {.limit = limit, .created_unix_ms = NOW};
    bool created;
    snprintf(invitation.code, sizeof(invitation.code), "%s", code);
    must(mongo, places_create(mongo, &invitation, &created));
    assert_true(created);
    must(mongo, places_create(mongo, &invitation, &created));
    assert_false(created);
}

static void
invitations_are_made_changed_and_paged(void **state)
{
    struct world *w = *state;
    struct invitation found[4];
    size_t count;
    bool is;
    invite(w->mongo, "b", 7);
    invite(w->mongo, "a", 5);
    invite(w->mongo, "c", 9);
    must(w->mongo, places_set_limit(w->mongo, "b", 8, &is));
    assert_true(is);
    must(w->mongo, places_set_limit(w->mongo, "none", 8, &is));
    assert_false(is);
    must(w->mongo, places_set_expiry(w->mongo, "b", NOW + 5, &is));
    must(w->mongo, w->places.ops->invitation(w->places.self, "b", found, &is));
    assert_true(is);
    assert_int_equal(found[0].limit, 8);
    assert_int_equal(found[0].created_unix_ms, NOW);
    assert_int_equal(found[0].expires_unix_ms, NOW + 5);
    must(w->mongo, places_set_expiry(w->mongo, "b", 0, &is));
    must(w->mongo, w->places.ops->invitation(w->places.self, "b", found, &is));
    assert_int_equal(found[0].expires_unix_ms, 0);
    must(w->mongo, w->places.ops->invitation(w->places.self, "x", found, &is));
    assert_false(is);
    must(w->mongo,
         w->places.ops->invitations(w->places.self, "", 2, found, &count));
    assert_int_equal(count, 2);
    assert_string_equal(found[0].code, "a");
    assert_string_equal(found[1].code, "b");
    must(w->mongo,
         w->places.ops->invitations(w->places.self, "b", 2, found, &count));
    assert_int_equal(count, 1);
    assert_string_equal(found[0].code, "c");
}

static void
registrations_are_unique_by_address_and_slot(void **state)
{
    struct world *w = *state;
    const struct person people[] = {person_of("a", 1, 0), person_of("a", 2, 0),
                                    person_of("b", 1, 0)};
    const struct person *three[] = {&people[0], &people[1], &people[2]};
    const char *keys[] = {"p1@x.org", "p9@x.org", "p2@x.org"};
    struct place_result results[3];
    struct registration found[3];
    bool taken[PLACES_LIMIT_MAX + 1] = {false};
    const int32_t slots[] = {4, 4, 1};
    const struct places_ops *ops = w->places.ops;
    must(w->mongo,
         ops->add_registrations(w->places.self, three, slots, 3, results));
    assert_int_equal(results[0].fate, PLACE_INSERTED);
    assert_int_equal(results[1].fate, PLACE_DUPLICATE);
    assert_int_equal(results[2].fate, PLACE_NOT_TRIED);
    must(w->mongo, ops->add_registrations(w->places.self, &three[2], &slots[2],
                                          1, results));
    assert_int_equal(results[0].fate, PLACE_DUPLICATE);
    must(w->mongo, ops->registered(w->places.self, keys, 3, found));
    assert_true(found[0].found);
    assert_string_equal(found[0].code, "a");
    assert_string_equal(found[0].request_id, "id-0-1");
    assert_int_equal(found[0].slot, 4);
    assert_false(found[1].found);
    assert_false(found[2].found);
    must(w->mongo, ops->slots(w->places.self, "a", taken));
    assert_true(taken[4]);
    assert_false(taken[1]);
    must(w->mongo,
         ops->remove_registration(w->places.self, "p1@x.org", "id-9-9"));
    must(w->mongo, ops->registered(w->places.self, keys, 1, found));
    assert_true(found[0].found);
    must(w->mongo,
         ops->remove_registration(w->places.self, "p1@x.org", "id-0-1"));
    must(w->mongo, ops->registered(w->places.self, keys, 1, found));
    assert_false(found[0].found);
}

static void
the_waitlist_keeps_the_order(void **state)
{
    struct world *w = *state;
    const struct places_ops *ops = w->places.ops;
    struct person people[] = {person_of("a", 1, 2), person_of("a", 2, 1),
                              person_of("a", 3, 0), person_of("b", 1, 0)};
    const struct person *four[] = {&people[0], &people[1], &people[2],
                                   &people[3]};
    const char *keys[] = {"p1@x.org", "p7@x.org"};
    char ids[2][UUID_TEXT_BYTES];
    struct place_result results[4];
    struct person head[3];
    size_t count;
    bool waits;
    people[2].received_unix_ms++;
    must(w->mongo, ops->anyone_waits(w->places.self, "a", &waits));
    assert_false(waits);
    must(w->mongo, ops->add_waiting(w->places.self, four, 4, results));
    must(w->mongo, ops->add_waiting(w->places.self, four, 1, results));
    assert_int_equal(results[0].fate, PLACE_DUPLICATE);
    must(w->mongo, ops->anyone_waits(w->places.self, "a", &waits));
    assert_true(waits);
    must(w->mongo, ops->waiting(w->places.self, "a", keys, 2, ids));
    assert_string_equal(ids[0], "id-2-1");
    assert_string_equal(ids[1], "");
    must(w->mongo, ops->head(w->places.self, "a", 3, head, &count));
    assert_int_equal(count, 3);
    assert_string_equal(head[0].address.key, "p2@x.org");
    assert_string_equal(head[0].address.text, "P2@x.org");
    assert_int_equal(head[0].seq, 2);
    assert_int_equal(head[0].received_unix_ms, NOW - 1000);
    assert_string_equal(head[1].address.key, "p1@x.org");
    assert_string_equal(head[2].address.key, "p3@x.org");
    must(w->mongo, ops->remove_waiting(w->places.self, "p1@x.org", "a"));
    must(w->mongo, ops->anyone_waits(w->places.self, "b", &waits));
    assert_true(waits);
    must(w->mongo, ops->remove_waiting(w->places.self, "p1@x.org", NULL));
    must(w->mongo, ops->anyone_waits(w->places.self, "b", &waits));
    assert_false(waits);
}

static enum rc
take_place(void *arg, const struct place *place)
{
    char *out = arg;
    size_t used = strlen(out);
    snprintf(out + used, 256 - used, "%s %s %d;", place->email, place->code,
             (int)place->slot);
    return RC_OK;
}

static void
a_revoked_place_goes_to_the_next_in_line(void **state)
{
    struct world *w = *state;
    struct allocator *allocator;
    struct allocator_outcome outcomes[4];
    struct allocator_swept swept;
    struct places_counts counts;
    struct person people[4];
    char text[256] = "";
    enum places_revoked revoked;
    invite(w->mongo, "a", 2);
    for (int k = 0; k < 4; k++) {
        people[k] = person_of("a", k, 0);
    }
    assert_int_equal(allocator_new(&allocator, &w->places), RC_OK);
    must(w->mongo, allocator_serve(allocator, NOW, people, 4, outcomes));
    must(w->mongo, allocator_mail(allocator, NOW, people, 4, outcomes));
    must(w->mongo,
         places_revoke(w->mongo, "p0@x.org", "operator", NOW, &revoked));
    assert_int_equal(revoked, PLACES_REVOKED);
    must(w->mongo,
         places_revoke(w->mongo, "p0@x.org", "operator", NOW, &revoked));
    assert_int_equal(revoked, PLACES_REFUSED_BEFORE);
    must(w->mongo, allocator_sweep(allocator, NOW, &swept));
    assert_int_equal(swept.freed, 1);
    assert_int_equal(swept.moved, 1);
    must(w->mongo, allocator_sweep(allocator, NOW, &swept));
    assert_int_equal(swept.freed + swept.moved, 0);
    must(w->mongo, places_count(w->mongo, "a", &counts));
    assert_int_equal(counts.taken, 2);
    assert_int_equal(counts.waiting, 1);
    assert_int_equal(counts.refused, 1);
    assert_int_equal(counts.mails_queued, 5); /* p2 has two */
    assert_int_equal(counts.mails_sent, 0);
    must(w->mongo, places_each(w->mongo, "a", take_place, text));
    assert_string_equal(text, "P2@x.org a 1;P1@x.org a 2;");
    must(
        w->mongo, /* who only waits counts among the refused of the code, too */
        places_revoke(w->mongo, "p3@x.org", "operator", NOW, &revoked));
    assert_int_equal(revoked, PLACES_REVOKED);
    must(w->mongo,
         places_revoke(w->mongo, "p9@x.org", "operator", NOW, &revoked));
    assert_int_equal(revoked, PLACES_REFUSED_NEW);
    must(w->mongo,
         places_revoke(w->mongo, "p9@x.org", "operator", NOW, &revoked));
    assert_int_equal(revoked, PLACES_REFUSED_BEFORE);
    must(w->mongo, allocator_sweep(allocator, NOW, &swept));
    must(w->mongo, places_count(w->mongo, "a", &counts));
    assert_int_equal(counts.taken, 2);
    assert_int_equal(counts.waiting, 0);
    assert_int_equal(counts.refused, 2);
    allocator_free(&allocator);
}

static void
a_request_is_traced_to_what_it_got(void **state)
{
    struct world *w = *state;
    struct allocator *allocator;
    struct allocator_outcome outcomes[3];
    struct places_trace trace;
    struct person people[3];
    invite(w->mongo, "a", 1);
    for (int k = 0; k < 3; k++) {
        people[k] = person_of(k < 2 ? "a" : "unheard-of", k, 0);
    }
    assert_int_equal(allocator_new(&allocator, &w->places), RC_OK);
    must(w->mongo, allocator_serve(allocator, NOW, people, 3, outcomes));
    must(w->mongo, allocator_mail(allocator, NOW, people, 3, outcomes));
    allocator_free(&allocator);
    must(w->mongo, places_trace(w->mongo, "id-0-0", &trace));
    assert_string_equal(trace.code, "a");
    assert_int_equal(trace.slot, 1);
    assert_false(trace.waits);
    assert_int_equal(trace.at_unix_ms, NOW);
    assert_int_equal(trace.mails, 1);
    assert_string_equal(trace.mail[0].kind, "welcome");
    assert_string_equal(trace.mail[0].state, "queued");
    must(w->mongo, places_trace(w->mongo, "id-0-1", &trace));
    assert_int_equal(trace.slot, 0);
    assert_true(trace.waits);
    assert_int_equal(trace.at_unix_ms, NOW - 1000);
    assert_string_equal(trace.mail[0].kind, "apology");
    must(w->mongo, places_trace(w->mongo, "id-0-2", &trace));
    assert_string_equal(trace.code, "unheard-of");
    assert_int_equal(trace.slot + trace.waits, 0);
    assert_string_equal(trace.mail[0].kind, "unknown");
    must(w->mongo, places_trace(w->mongo, "id-0", &trace));
    assert_string_equal(trace.code, "");
    assert_int_equal(trace.mails, 0);
}

static enum rc
check_mail(void *arg, const bson_t *document)
{
    int *seen = arg;
    bson_iter_t iter;
    bson_iter_t id;
    (*seen)++;
    assert_true(bson_iter_init_find(&iter, document, "message_id"));
    assert_string_equal(bson_iter_utf8(&iter, NULL),
                        "id-0-1.welcome@example.com");
    assert_true(bson_iter_init_find(&iter, document, "state"));
    assert_string_equal(bson_iter_utf8(&iter, NULL), "queued");
    assert_true(bson_iter_init_find(&iter, document, "owner"));
    assert_int_equal(bson_iter_int32(&iter), 3);
    assert_true(bson_iter_init_find(&iter, document, "next_at"));
    assert_int_equal(bson_iter_date_time(&iter), NOW);
    assert_true(bson_iter_init_find(&iter, document, "asked_at"));
    assert_int_equal(bson_iter_date_time(&iter), NOW - 1000);
    assert_true(bson_iter_init(&iter, document) &&
                bson_iter_find_descendant(&iter, "_id.kind", &id));
    assert_string_equal(bson_iter_utf8(&id, NULL), "welcome");
    return RC_OK;
}

static void
a_mail_is_queued_once(void **state)
{
    struct world *w = *state;
    const struct person person = person_of("a", 1, 0);
    const struct person *people[] = {&person};
    const enum place_mail kinds[] = {PLACE_MAIL_WELCOME};
    const struct mongo_query all = {.filter = NULL};
    struct place_result result;
    int seen = 0;
    const struct places_ops *ops = w->places.ops;
    must(w->mongo, ops->add_mails(w->places.self, people, kinds, 1, &result));
    assert_int_equal(result.fate, PLACE_INSERTED);
    must(w->mongo, ops->add_mails(w->places.self, people, kinds, 1, &result));
    assert_int_equal(result.fate, PLACE_DUPLICATE);
    must(w->mongo, mongo_find(w->mongo, "mails", &all, check_mail, &seen));
    assert_int_equal(seen, 1);
}

/* ---- two dispatchers on one code ------------------------------------------
 */

#define EACH 300
#define LIMIT 250

struct dispatcher {
    struct mongo *mongo;
    struct places places;
    struct person people[EACH];
    struct allocator_outcome outcomes[EACH];
    enum rc rc;
};

static void *
dispatch(void *arg)
{
    struct dispatcher *d = arg;
    struct allocator *allocator;
    d->rc = allocator_new(&allocator, &d->places);
    for (size_t done = 0; d->rc == RC_OK && done < EACH; done += 30) {
        d->rc = allocator_serve(allocator, NOW, &d->people[done], 30,
                                &d->outcomes[done]);
        if (d->rc == RC_OK) {
            d->rc = allocator_mail(allocator, NOW, &d->people[done], 30,
                                   &d->outcomes[done]);
        }
    }
    allocator_free(&allocator);
    return NULL;
}

/* Slots rise in order of arrival; who waits came after. */
static int32_t
check_order(const struct dispatcher *d, bool *granted)
{
    int32_t last = 0;
    int32_t count = 0;
    bool full = false;
    for (size_t k = 0; k < EACH; k++) {
        const struct allocator_outcome *outcome = &d->outcomes[k];
        if (outcome->what == ALLOCATOR_PLACE) {
            assert_false(full);
            assert_true(outcome->slot > last);
            assert_false(granted[outcome->slot]);
            granted[outcome->slot] = true;
            last = outcome->slot;
            count++;
        } else {
            assert_int_equal(outcome->what, ALLOCATOR_WAITING);
            full = true;
        }
    }
    return count;
}

static void
two_dispatchers_give_each_place_once(void **state)
{
    struct world *w = *state;
    struct dispatcher *two = calloc(2, sizeof(*two));
    pthread_t threads[2];
    bool granted[LIMIT + 1] = {false};
    struct places_counts counts;
    assert_non_null(two);
    invite(w->mongo, "a", LIMIT);
    for (int32_t n = 0; n < 2; n++) {
        two[n].mongo = mongo_fixture_mongo();
        two[n].places = places_over(two[n].mongo, n);
        for (int k = 0; k < EACH; k++) {
            two[n].people[k] = person_of("a", 1000 * n + k, n);
        }
    }
    for (int n = 0; n < 2; n++) {
        assert_int_equal(pthread_create(&threads[n], NULL, dispatch, &two[n]),
                         0);
    }
    for (int n = 0; n < 2; n++) {
        pthread_join(threads[n], NULL);
        must(two[n].mongo, two[n].rc);
    }
    assert_int_equal(
        check_order(&two[0], granted) + check_order(&two[1], granted), LIMIT);
    must(w->mongo, places_count(w->mongo, "a", &counts));
    assert_int_equal(counts.taken, LIMIT);
    assert_int_equal(counts.waiting, 2 * EACH - LIMIT);
    assert_int_equal(counts.mails_queued, 2 * EACH);
    for (int n = 0; n < 2; n++) {
        two[n].places.ops->free(&two[n].places.self);
        mongo_free(&two[n].mongo);
    }
    free(two);
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SERVER(invitations_are_made_changed_and_paged),
        WITH_SERVER(registrations_are_unique_by_address_and_slot),
        WITH_SERVER(the_waitlist_keeps_the_order),
        WITH_SERVER(a_revoked_place_goes_to_the_next_in_line),
        WITH_SERVER(a_request_is_traced_to_what_it_got),
        WITH_SERVER(a_mail_is_queued_once),
        WITH_SERVER(two_dispatchers_give_each_place_once),
    };
    return cmocka_run_group_tests(tests, mongo_fixture_start,
                                  mongo_fixture_stop);
}
