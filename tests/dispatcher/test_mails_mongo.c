/* dispatcher/mails_mongo.c on a MongoDB wire server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/mails.h"
#include "dispatcher/mongo.h"
#include "dispatcher/places_mongo.h"
#include "tests/shared/mongo_fixture.h"

#define NODE 7
#define NOW 1795264129000 /* unix ms */

static struct {
    void *store;
    struct mongo *mongo;
    struct mail page[MAILS_MAX];
    size_t count;
} b;

static int
setup(void **state)
{
    const char *uri = mongo_fixture_database("mails");

    (void)state;
    assert_int_equal(
        mails_mongo_new(&b.store, uri, MONGO_FIXTURE_TIMEOUT_MS, NODE), RC_OK);
    b.mongo = mongo_fixture_mongo();
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    mails_mongo_ops.free(&b.store);
    assert_null(b.store);
    mails_mongo_ops.free(&b.store); /* of NULL */
    mongo_free(&b.mongo);
    return 0;
}

static void
insert(const char *collection, bson_t *document)
{
    struct mongo_batch *batch = calloc(1, sizeof(*batch));

    assert_non_null(batch);
    assert_true(bson_concat(mongo_batch_add(batch), document));
    assert_int_equal(mongo_insert(b.mongo, collection, batch), RC_OK);
    assert_int_equal(batch->fates[0], MONGO_INSERTED);
    mongo_batch_clear(batch);
    free(batch);
    bson_destroy(document);
}

/* As the allocator does. */
static void
put(const char *key, enum mail_kind kind, int node, int64_t next_unix_ms)
{
    char id[MAIL_ID_MAX_BYTES];

    (void)snprintf(id, sizeof(id), "%s.%s", mail_kinds[kind], key);
    insert("mails",
           BCON_NEW(
               "_id", "{", "email", BCON_UTF8(key), "code", BCON_UTF8("spring"),
               "kind", BCON_UTF8(mail_kinds[kind]), "}", "to", BCON_UTF8(key),
               "owner", BCON_INT32(node), "message_id", BCON_UTF8(id),
               "asked_at", BCON_DATE_TIME(NOW - 7), "created_at",
               BCON_DATE_TIME(NOW - 5), "state", BCON_UTF8("queued"), "next_at",
               BCON_DATE_TIME(next_unix_ms), "attempts", BCON_INT32(0)));
}

static void
read_due(int64_t now_unix_ms, size_t limit)
{
    assert_int_equal(
        mails_mongo_ops.due(b.store, now_unix_ms, limit, b.page, &b.count),
        RC_OK);
}

static int64_t
waiting(void)
{
    int64_t count = -1;

    assert_int_equal(mails_mongo_ops.waiting(b.store, &count), RC_OK);
    return count;
}

static int64_t
count(const char *collection, bson_t *filter)
{
    int64_t found = -1;

    assert_int_equal(mongo_count(b.mongo, collection, filter, &found), RC_OK);
    bson_destroy(filter);
    return found;
}

static void
due_mails_of_the_node_come_in_order(void **state)
{
    (void)state;
    put("c@d.ef", MAIL_WELCOME, NODE, NOW - 1);
    put("a@d.ef", MAIL_APOLOGY, NODE, NOW - 3);
    put("b@d.ef", MAIL_UNKNOWN, NODE, NOW - 2);
    put("later@d.ef", MAIL_WELCOME, NODE, NOW + 1);
    put("other@d.ef", MAIL_WELCOME, NODE + 1, NOW - 9);
    read_due(NOW, MAILS_MAX);
    assert_int_equal(b.count, 3);
    assert_string_equal(b.page[0].key, "a@d.ef");
    assert_string_equal(b.page[0].to, "a@d.ef");
    assert_string_equal(b.page[0].code, "spring");
    assert_int_equal(b.page[0].kind, MAIL_APOLOGY);
    assert_string_equal(b.page[0].message_id, "apology.a@d.ef");
    assert_int_equal(b.page[0].asked_unix_ms, NOW - 7);
    assert_int_equal(b.page[0].created_unix_ms, NOW - 5);
    assert_int_equal(b.page[0].outbox.state, OUTBOX_QUEUED);
    assert_int_equal(b.page[0].outbox.next_unix_ms, NOW - 3);
    assert_int_equal(b.page[1].kind, MAIL_UNKNOWN);
    assert_string_equal(b.page[2].key, "c@d.ef");
    read_due(NOW, 2);
    assert_int_equal(b.count, 2);
    read_due(NOW + 1, MAILS_MAX);
    assert_int_equal(b.count, 4);
    assert_int_equal(waiting(), 4);
}

static void
what_the_allocator_inserts_is_read(void **state)
{
    const struct places_mongo_options options = {
        .mongo = b.mongo, .node = NODE, .mail_host = "example.com"};
    struct person person = {
        .request_id = "01890000-0000-7000-8000-000000000007", .code = "spring"};
    const struct person *const people[] = {&person};
    const enum place_mail kinds[] = {PLACE_MAIL_APOLOGY};
    struct place_result result;
    struct places places;
    const char *why;

    (void)state;
    assert_int_equal(address_parse("Jo@d.ef", 7, false, &person.address, &why),
                     RC_OK);
    assert_int_equal(places_mongo_new(&places, &options), RC_OK);
    places.ops->set_now(places.self, NOW);
    assert_int_equal(
        places.ops->add_mails(places.self, people, kinds, 1, &result), RC_OK);
    assert_int_equal(result.fate, PLACE_INSERTED);
    places.ops->free(&places.self);
    read_due(NOW, MAILS_MAX);
    assert_int_equal(b.count, 1);
    assert_string_equal(b.page[0].key, "jo@d.ef");
    assert_string_equal(b.page[0].to, "Jo@d.ef");
    assert_string_equal(b.page[0].code, "spring");
    assert_int_equal(b.page[0].kind, MAIL_APOLOGY);
    assert_string_equal(
        b.page[0].message_id,
        "01890000-0000-7000-8000-000000000007.apology@example.com");
    assert_int_equal(b.page[0].created_unix_ms, NOW);
    assert_int_equal(b.page[0].outbox.next_unix_ms, NOW);
}

static void
documents_that_cannot_be_read_are_given_up(void **state)
{
    (void)state;
    insert("mails",
           BCON_NEW("_id", BCON_INT32(1), "owner", BCON_INT32(NODE), "state",
                    BCON_UTF8("queued"), "next_at", BCON_DATE_TIME(1)));
    put("a@d.ef", MAIL_WELCOME, NODE, NOW);
    read_due(NOW, 1); /* as while mail is paused */
    assert_int_equal(b.count, 0);
    read_due(NOW, 1);
    assert_int_equal(b.count, 1);
    assert_string_equal(b.page[0].key, "a@d.ef");
    assert_int_equal(waiting(), 1);
}

static void
what_came_of_mails_is_written_down(void **state)
{
    const struct mail *mails[5];

    (void)state;
    for (int k = 0; k < 5; k++) {
        char key[32];

        (void)snprintf(key, sizeof(key), "%d@d.ef", k);
        put(key, MAIL_WELCOME, NODE, NOW + k);
        put(key, MAIL_APOLOGY, NODE, NOW + 100);
    }
    read_due(NOW + 5, MAILS_MAX);
    assert_int_equal(b.count, 5);
    for (size_t k = 0; k < 5; k++) {
        mails[k] = &b.page[k];
    }
    for (size_t k = 0; k < 2; k++) {
        b.page[k].outbox.state = OUTBOX_SENT;
        b.page[k].outbox.attempts = 1;
        b.page[k].sent_unix_ms = NOW + 6;
    }
    b.page[2].outbox = (struct outbox_mail){.next_unix_ms = NOW + 5000,
                                            .first_unix_ms = NOW + 7,
                                            .attempts = 3,
                                            .blocked = 2};
    (void)snprintf(b.page[2].error, sizeof(b.page[2].error), "RCPT TO: 451");
    b.page[3].outbox.state = OUTBOX_REFUSED;
    b.page[4].outbox.state = OUTBOX_SENT; /* at the second attempt */
    b.page[4].outbox.attempts = 2;
    b.page[4].sent_unix_ms = NOW + 8;
    for (int twice = 0; twice < 2; twice++) {
        assert_int_equal(mails_mongo_ops.finish(b.store, mails, 5), RC_OK);
        assert_int_equal(count("mails", BCON_NEW("state", BCON_UTF8("sent"))),
                         3);
        assert_int_equal(
            count("mails", BCON_NEW("state", BCON_UTF8("refused"))), 1);
        assert_int_equal(waiting(), 6);
    }
    assert_int_equal(
        count("mails", BCON_NEW("sent_at", BCON_DATE_TIME(NOW + 6))), 2);
    read_due(NOW + 50, MAILS_MAX);
    assert_int_equal(b.count, 0);
    read_due(NOW + 5000, MAILS_MAX);
    assert_int_equal(b.count, 6);
    assert_int_equal(b.page[5].outbox.attempts, 3);
    assert_int_equal(b.page[5].outbox.blocked, 2);
    assert_int_equal(b.page[5].outbox.first_unix_ms, NOW + 7);
    assert_int_equal(
        count("mails", BCON_NEW("error", BCON_UTF8("RCPT TO: 451"))), 1);
}

static void
a_whole_page_is_written_down_at_once(void **state)
{
    const struct mail *mails[MAILS_MAX];

    (void)state;
    for (int k = 0; k < MAILS_MAX + 1; k++) {
        char key[32];

        (void)snprintf(key, sizeof(key), "%d@d.ef", k);
        put(key, MAIL_WELCOME, NODE, NOW);
    }
    read_due(NOW, MAILS_MAX);
    assert_int_equal(b.count, MAILS_MAX);
    for (size_t k = 0; k < MAILS_MAX; k++) {
        mails[k] = &b.page[k];
        b.page[k].outbox.state = OUTBOX_SENT;
        b.page[k].outbox.attempts = 1;
        b.page[k].sent_unix_ms = NOW;
    }
    assert_int_equal(mails_mongo_ops.finish(b.store, mails, MAILS_MAX), RC_OK);
    assert_int_equal(waiting(), 1);
}

static void
another_nodes_mail_is_not_touched(void **state)
{
    const struct mail *mail = &b.page[0];

    (void)state;
    put("a@d.ef", MAIL_WELCOME, NODE, NOW);
    read_due(NOW, MAILS_MAX);
    {
        bson_t *all = bson_new();
        bson_t *change =
            BCON_NEW("$set", "{", "owner", BCON_INT32(NODE + 1), "}");

        assert_int_equal(mongo_update_one(b.mongo, "mails", all, change, NULL),
                         RC_OK);
        bson_destroy(all);
        bson_destroy(change);
    }
    b.page[0].outbox.attempts = 1;
    for (enum outbox_state s = OUTBOX_SENT; s <= OUTBOX_REFUSED; s++) {
        b.page[0].outbox.state = s;
        assert_int_equal(mails_mongo_ops.finish(b.store, &mail, 1), RC_OK);
        assert_int_equal(count("mails", BCON_NEW("state", BCON_UTF8("queued"))),
                         1);
    }
}

static void
registrations_are_found(void **state)
{
    const char *const keys[] = {"a@d.ef", "b@d.ef", "c@d.ef", "b@d.ef"};
    bool has[4] = {true, false, true, false};

    (void)state;
    insert("registrations", BCON_NEW("_id", BCON_UTF8("b@d.ef")));
    insert("registrations", BCON_NEW("_id", BCON_UTF8("x@d.ef")));
    assert_int_equal(mails_mongo_ops.registered(b.store, keys, 4, has), RC_OK);
    assert_false(has[0]);
    assert_true(has[1]);
    assert_false(has[2]);
    assert_true(has[3]);
}

static void
addresses_are_marked_once(void **state)
{
    const char *const keys[] = {"b@d.ef", "a@d.ef"};
    bool refused[2] = {true, false};

    (void)state;
    put("a@d.ef", MAIL_WELCOME, NODE, NOW);
    read_due(NOW, 1);
    for (int twice = 0; twice < 2; twice++) {
        assert_int_equal(
            mails_mongo_ops.refuse(b.store, &b.page[0], "550 no", NOW), RC_OK);
    }
    assert_int_equal(
        count("refused",
              BCON_NEW("_id", BCON_UTF8("a@d.ef"), "code", BCON_UTF8("spring"),
                       "reason", BCON_UTF8("550 no"), "freed", BCON_BOOL(false),
                       "at", BCON_DATE_TIME(NOW))),
        1);
    assert_int_equal(mails_mongo_ops.refused(b.store, keys, 2, refused), RC_OK);
    assert_false(refused[0]);
    assert_true(refused[1]);
}

static void
a_server_that_is_away_is_no_reason_to_lose_anything(void **state)
{
    void *store = NULL;
    bool has = false;
    const char *const keys[] = {"a"};
    const struct mail *mail = &b.page[0];
    int64_t number = 0;

    (void)state;
    assert_int_equal(
        mails_mongo_new(&store, "mongodb://127.0.0.1:1/x", 200, NODE), RC_OK);
    assert_int_equal(mails_mongo_ops.due(store, NOW, 1, b.page, &b.count),
                     RC_IO);
    assert_int_equal(b.count, 0);
    assert_int_equal(mails_mongo_ops.registered(store, keys, 1, &has), RC_IO);
    assert_int_equal(mails_mongo_ops.refuse(store, mail, "x", NOW), RC_IO);
    assert_int_equal(mails_mongo_ops.finish(store, &mail, 1), RC_IO);
    assert_int_equal(mails_mongo_ops.waiting(store, &number), RC_IO);
    assert_true(mails_mongo_ops.error(store)[0] != '\0');
    mails_mongo_ops.free(&store);
    assert_int_equal(mails_mongo_new(&store, "nonsense", 200, NODE),
                     RC_INVALID);
    assert_null(store);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(due_mails_of_the_node_come_in_order),
        TEST(what_the_allocator_inserts_is_read),
        TEST(documents_that_cannot_be_read_are_given_up),
        TEST(what_came_of_mails_is_written_down),
        TEST(a_whole_page_is_written_down_at_once),
        TEST(another_nodes_mail_is_not_touched),
        TEST(registrations_are_found),
        TEST(addresses_are_marked_once),
        TEST(a_server_that_is_away_is_no_reason_to_lose_anything),
    };

    return cmocka_run_group_tests(tests, mongo_fixture_start,
                                  mongo_fixture_stop);
}
