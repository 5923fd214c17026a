/* dispatcher/mongo.c against a real server, one that hangs, and none. */
#include "dispatcher/mongo.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/clock.h"
#include "tests/shared/mongo_fixture.h"

static int
setup(void **state)
{
    (void)mongo_fixture_database("mongo");
    *state = mongo_fixture_mongo();
    return 0;
}

static int
teardown(void **state)
{
    struct mongo *mongo = *state;
    mongo_free(&mongo);
    return 0;
}

static void
add_slot(struct mongo_batch *batch, const char *id, int32_t slot)
{
    bson_t *document = mongo_batch_add(batch);
    assert_non_null(document);
    bson_append_utf8(document, "_id", -1, id, -1);
    bson_append_int32(document, "slot", -1, slot);
}

static void
make_slot_index(struct mongo *mongo)
{
    bson_t keys = BSON_INITIALIZER;
    bson_append_int32(&keys, "slot", -1, 1);
    if (mongo_index(mongo, "places", &keys, true) != RC_OK) {
        fail_msg("%s", mongo_error(mongo));
    }
    bson_destroy(&keys);
}

static void
insert_ok(struct mongo *mongo, struct mongo_batch *batch)
{
    if (mongo_insert(mongo, "places", batch) != RC_OK) {
        fail_msg("%s", mongo_error(mongo));
    }
}

static int64_t
count_all(struct mongo *mongo)
{
    int64_t count;
    if (mongo_count(mongo, "places", NULL, &count) != RC_OK) {
        fail_msg("%s", mongo_error(mongo));
    }
    return count;
}

static void
an_ordered_batch_ends_at_the_first_duplicate(void **state)
{
    struct mongo *mongo = *state;
    struct mongo_batch batch = {.ordered = true};
    make_slot_index(mongo);
    make_slot_index(mongo);
    add_slot(&batch, "a", 1);
    add_slot(&batch, "b", 2);
    add_slot(&batch, "c", 1);
    add_slot(&batch, "d", 4);
    insert_ok(mongo, &batch);
    assert_int_equal(batch.fates[0], MONGO_INSERTED);
    assert_int_equal(batch.fates[1], MONGO_INSERTED);
    assert_int_equal(batch.fates[2], MONGO_DUPLICATE);
    assert_int_equal(batch.fates[3], MONGO_NOT_TRIED);
    assert_string_equal(mongo_error(mongo), "duplicate key"); /* which: no */
    assert_int_equal(count_all(mongo), 2);
    mongo_batch_clear(&batch);
}

static void
an_unordered_batch_goes_on_behind_duplicates(void **state)
{
    struct mongo *mongo = *state;
    struct mongo_batch batch = {0};
    add_slot(&batch, "a", 1);
    insert_ok(mongo, &batch);
    add_slot(&batch, "b", 2);
    add_slot(&batch, "a", 3);
    add_slot(&batch, "c", 4);
    insert_ok(mongo, &batch);
    assert_int_equal(batch.fates[0], MONGO_DUPLICATE);
    assert_int_equal(batch.fates[1], MONGO_INSERTED);
    assert_int_equal(batch.fates[2], MONGO_DUPLICATE);
    assert_int_equal(batch.fates[3], MONGO_INSERTED);
    assert_int_equal(count_all(mongo), 3);
    mongo_batch_clear(&batch);
}

static void
a_batch_holds_a_hundred_and_no_more(void **state)
{
    struct mongo *mongo = *state;
    struct mongo_batch batch = {.ordered = true};
    char id[16];
    insert_ok(mongo, &batch);
    for (int k = 0; k < MONGO_BATCH_MAX; k++) {
        snprintf(id, sizeof(id), "%d", k);
        add_slot(&batch, id, k);
    }
    assert_null(mongo_batch_add(&batch));
    insert_ok(mongo, &batch);
    assert_int_equal(batch.fates[MONGO_BATCH_MAX - 1], MONGO_INSERTED);
    assert_int_equal(count_all(mongo), MONGO_BATCH_MAX);
    mongo_batch_clear(&batch);
    assert_int_equal(batch.count, 0);
}

static void
a_document_refused_for_what_it_is_is_told_with_its_reason(void **state)
{
    struct mongo *mongo = *state;
    struct mongo_batch batch = {0};
    bson_t array = BSON_INITIALIZER;
    add_slot(&batch, "a", 1);
    /* An array is no _id, anywhere. */
    bson_append_array(mongo_batch_add(&batch), "_id", -1, &array);
    add_slot(&batch, "b", 2);
    insert_ok(mongo, &batch);
    assert_int_equal(batch.fates[0], MONGO_INSERTED);
    assert_int_equal(batch.fates[1], MONGO_REFUSED);
    assert_true(strlen(batch.why[1]) > 0);
    assert_int_equal(batch.fates[2], MONGO_INSERTED);
    mongo_batch_clear(&batch);
    bson_destroy(&array);
}

struct found {
    char ids[256];
    enum rc answer;
};

static enum rc
note_id(void *arg, const bson_t *document)
{
    struct found *found = arg;
    bson_iter_t iter;
    assert_true(bson_iter_init_find(&iter, document, "_id"));
    assert_false(bson_has_field(document, "other"));
    size_t used = strlen(found->ids);
    snprintf(found->ids + used, sizeof(found->ids) - used, "%s ",
             bson_iter_utf8(&iter, NULL));
    return found->answer;
}

static void
find_filters_sorts_limits_and_projects(void **state)
{
    struct mongo *mongo = *state;
    struct mongo_batch batch = {0};
    struct found found = {.answer = RC_OK};
    bson_t filter = BSON_INITIALIZER;
    bson_t above;
    bson_t sort = BSON_INITIALIZER;
    bson_t fields = BSON_INITIALIZER;
    const struct mongo_query query = {
        .filter = &filter, .sort = &sort, .fields = &fields, .limit = 2};
    for (int k = 0; k < 6; k++) {
        char id[] = {(char)('a' + k), '\0'};
        add_slot(&batch, id, 6 - k);
        bson_append_bool(batch.documents[k], "other", -1, true);
    }
    insert_ok(mongo, &batch);
    bson_append_document_begin(&filter, "slot", -1, &above);
    bson_append_int32(&above, "$gt", -1, 1);
    bson_append_document_end(&filter, &above);
    bson_append_int32(&sort, "slot", -1, 1);
    bson_append_int32(&fields, "slot", -1, 1);
    assert_int_equal(mongo_find(mongo, "places", &query, note_id, &found),
                     RC_OK);
    assert_string_equal(found.ids, "e d ");
    found = (struct found){.answer = RC_FULL};
    assert_int_equal(mongo_find(mongo, "places", &query, note_id, &found),
                     RC_FULL);
    assert_string_equal(found.ids, "e ");
    mongo_batch_clear(&batch);
    bson_destroy(&filter);
    bson_destroy(&sort);
    bson_destroy(&fields);
}

static void
more_than_a_page_is_found(void **state)
{
    struct mongo *mongo = *state;
    struct mongo_batch batch = {0};
    const struct mongo_query all = {.filter = NULL};
    static char ids[32];
    int64_t count = 0;
    for (int hundred = 0; hundred < 11; hundred++) {
        for (int k = 0; k < MONGO_BATCH_MAX; k++) {
            snprintf(ids, sizeof(ids), "%d.%d", hundred, k);
            add_slot(&batch, ids, k);
        }
        insert_ok(mongo, &batch);
        mongo_batch_clear(&batch);
    }
    assert_int_equal(mongo_count(mongo, "places", NULL, &count), RC_OK);
    assert_int_equal(count, 1100);
    struct found found = {.answer = RC_OK};
    assert_int_equal(mongo_find(mongo, "places", &all, note_id, &found), RC_OK);
}

static void
updates_and_deletes_say_how_many(void **state)
{
    struct mongo *mongo = *state;
    struct mongo_batch batch = {0};
    bson_t filter = BSON_INITIALIZER;
    bson_t change = BSON_INITIALIZER;
    bson_t set;
    int64_t number = -1;
    add_slot(&batch, "a", 1);
    add_slot(&batch, "b", 7);
    add_slot(&batch, "c", 7);
    add_slot(&batch, "d", 7);
    insert_ok(mongo, &batch);
    bson_append_document_begin(&change, "$set", -1, &set);
    bson_append_int32(&set, "slot", -1, 9);
    bson_append_document_end(&change, &set);
    bson_append_int32(&filter, "slot", -1, 1);
    assert_int_equal(
        mongo_update_one(mongo, "places", &filter, &change, &number), RC_OK);
    assert_int_equal(number, 1);
    assert_int_equal(
        mongo_update_one(mongo, "places", &filter, &change, &number), RC_OK);
    assert_int_equal(number, 0);
    bson_reinit(&filter);
    bson_append_int32(&filter, "slot", -1, 7);
    assert_int_equal(mongo_count(mongo, "places", &filter, &number), RC_OK);
    assert_int_equal(number, 3);
    assert_int_equal(mongo_delete_one(mongo, "places", &filter, &number),
                     RC_OK);
    assert_int_equal(number, 1);
    assert_int_equal(mongo_delete_many(mongo, "places", &filter, &number),
                     RC_OK);
    assert_int_equal(number, 2);
    assert_int_equal(mongo_delete_many(mongo, "places", &filter, NULL), RC_OK);
    assert_int_equal(count_all(mongo), 1);
    mongo_batch_clear(&batch);
    bson_destroy(&filter);
    bson_destroy(&change);
}

static void
a_node_belongs_to_the_journal_that_claimed_it_first(void **state)
{
    struct mongo *mongo = *state;
    char owner[UUID_TEXT_BYTES];
    const char *ours = "01890a5d-ac96-774b-bcce-b302099a8057";
    const char *other = "01890a5d-ac96-774b-bcce-b302099a8058";
    assert_int_equal(mongo_claim_node(mongo, 7, ours, owner), RC_OK);
    assert_int_equal(mongo_claim_node(mongo, 7, ours, owner), RC_OK);
    assert_string_equal(owner, "");
    assert_int_equal(mongo_claim_node(mongo, 7, other, owner), RC_INVALID);
    assert_string_equal(owner, ours);
    assert_int_equal(mongo_claim_node(mongo, 8, other, owner), RC_OK);
}

static void
a_command_that_no_server_takes_is_invalid(void **state)
{
    struct mongo *mongo = *state;
    struct found found = {.answer = RC_OK};
    struct mongo_batch batch = {0};
    bson_t filter = BSON_INITIALIZER;
    const struct mongo_query query = {.filter = &filter};
    add_slot(&batch, "a", 1);
    insert_ok(mongo, &batch);
    mongo_batch_clear(&batch);
    bson_append_int32(&filter, "$nonsense", -1, 1);
    assert_int_equal(mongo_find(mongo, "places", &query, note_id, &found),
                     RC_INVALID);
    assert_true(strlen(mongo_error(mongo)) > 0);
    bson_destroy(&filter);
}

static void
no_server_is_an_io_error_soon(void **state)
{
    struct mongo *mongo;
    struct mongo_batch batch = {0};
    int64_t number;
    (void)state;
    assert_int_equal(mongo_new(&mongo, "mongodb://127.0.0.1:1/x", 2000), RC_OK);
    assert_string_equal(mongo_error(mongo), "");
    add_slot(&batch, "a", 1);
    int64_t start_ms = clock_now_ms();
    assert_int_equal(mongo_ping(mongo), RC_IO);
    assert_int_equal(mongo_insert(mongo, "places", &batch), RC_IO);
    assert_int_equal(batch.fates[0], MONGO_NOT_TRIED);
    assert_int_equal(mongo_count(mongo, "places", NULL, &number), RC_IO);
    assert_true(clock_now_ms() - start_ms < 20000);
    assert_true(strlen(mongo_error(mongo)) > 0);
    mongo_batch_clear(&batch);
    mongo_free(&mongo);
    assert_null(mongo);
    assert_int_equal(mongo_new(&mongo, "http://127.0.0.1/", 2000), RC_INVALID);
}

static void
a_server_that_hangs_is_an_io_error_and_then_used_again(void **state)
{
    struct mongo *mongo;
    (void)state;
    const char *uri = mongo_fixture_database("hang");
    assert_int_equal(mongo_new(&mongo, uri, 500), RC_OK);
    assert_int_equal(mongo_ping(mongo), RC_OK);
    if (mongo_fixture_signal(SIGSTOP)) {
        int64_t start_ms = clock_now_ms();
        assert_int_equal(mongo_ping(mongo), RC_IO);
        assert_int_equal(mongo_ping(mongo), RC_IO);
        assert_true(clock_now_ms() - start_ms < 20000);
        assert_true(mongo_fixture_signal(SIGCONT));
        int64_t until_ms = clock_now_ms() + 20000;
        enum rc rc = mongo_ping(mongo);
        while (rc != RC_OK && clock_now_ms() < until_ms) {
            rc = mongo_ping(mongo);
        }
        assert_int_equal(rc, RC_OK);
    }
    mongo_free(&mongo);
}

#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SERVER(an_ordered_batch_ends_at_the_first_duplicate),
        WITH_SERVER(an_unordered_batch_goes_on_behind_duplicates),
        WITH_SERVER(a_batch_holds_a_hundred_and_no_more),
        WITH_SERVER(a_document_refused_for_what_it_is_is_told_with_its_reason),
        WITH_SERVER(find_filters_sorts_limits_and_projects),
        WITH_SERVER(more_than_a_page_is_found),
        WITH_SERVER(updates_and_deletes_say_how_many),
        WITH_SERVER(a_node_belongs_to_the_journal_that_claimed_it_first),
        WITH_SERVER(a_command_that_no_server_takes_is_invalid),
        cmocka_unit_test(no_server_is_an_io_error_soon),
        cmocka_unit_test(
            a_server_that_hangs_is_an_io_error_and_then_used_again),
    };
    return cmocka_run_group_tests(tests, mongo_fixture_start,
                                  mongo_fixture_stop);
}
