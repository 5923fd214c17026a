/* shared/callback_msg.c */
#include "shared/callback_msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/json.h"

#define DOC(text) text, sizeof(text) - 1
#define ID_REASON "must be an integer from 0 to 9007199254740992"

static struct callback_msg msg;
static struct field_errors errors;

/* Decode from a copy without a byte to spare. */
static enum rc
from_request(const char *body, size_t bytes)
{
    char *copy = malloc(bytes + 1);
    enum rc rc;

    assert_non_null(copy);
    memcpy(copy + 1, body, bytes);
    memset(&msg, 0x5a, sizeof(msg));
    memset(&errors, 0x5a, sizeof(errors));
    rc = callback_msg_from_request(copy + 1, bytes, &msg, &errors);
    free(copy);
    return rc;
}

/* {"object_ids":[first, first+step, ...]} */
static void
build_body(struct text *t, unsigned count, int64_t first, int64_t step)
{
    text_reset(t);
    text_puts(t, "{\"object_ids\":[");
    for (unsigned i = 0; i < count; i++) {
        text_puts(t, i > 0 ? "," : "");
        text_int(t, first + (int64_t)i * step);
    }
    text_puts(t, "]}");
    assert_false(text_failed(t));
}

static void
assert_error(unsigned i, const char *field, const char *reason)
{
    assert_true(i < errors.count);
    assert_string_equal(errors.list[i].field, field);
    assert_string_equal(errors.list[i].reason, reason);
}

static void
good_bodies_give_their_ids_in_order(void **state)
{
    static const struct {
        const char *body;
        size_t bytes;
        const char *ids;
    } cases[] = {
        {DOC("{\"object_ids\":[]}"), "[]"},
        {DOC("{\"object_ids\":[0]}"), "[0]"},
        {DOC("{\"object_ids\":[3,1,2]}"), "[3,1,2]"},
        {DOC(" {\n\"object_ids\" : [ 1 ,\t2 ] } \r\n"), "[1,2]"},
        {DOC("{\"OBJECT_IDS\":[7]}"), "[7]"},
        {DOC("{\"\\u006fbject_ids\":[7]}"), "[7]"},
        {DOC("{\"object_ids\":[9007199254740992,9007199254740991]}"),
         "[9007199254740992,9007199254740991]"},
        {DOC("{\"object_ids\":[1,1,2,1,2]}"), "[1,2]"},
        {DOC("{\"a\":[[{}],\"object_ids\"],\"object_ids\":[4],\"z\":-1e9}"),
         "[4]"},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        struct text ids = {0};

        assert_int_equal(from_request(cases[i].body, cases[i].bytes), RC_OK);
        assert_int_equal(errors.count, 0);
        for (unsigned k = 0; k < msg.count; k++) {
            text_puts(&ids, k > 0 ? "," : "[");
            text_int(&ids, msg.ids[k]);
        }
        text_puts(&ids, msg.count > 0 ? "]" : "[]");
        assert_string_equal(text_cstr(&ids), cases[i].ids);
        text_free(&ids);
    }
}

static void
bad_bodies_name_the_field_and_the_reason(void **state)
{
    static const struct {
        const char *body;
        size_t bytes;
        const char *field;
        const char *reason;
    } cases[] = {
        {DOC(""), "", "the body is empty"},
        {DOC(" "), "", "not valid JSON: a value is missing at byte 1"},
        {DOC("object_ids=1"), "",
         "not valid JSON: not the beginning of a value at byte 0"},
        {DOC("{\"object_ids\":[1,]}"), "",
         "not valid JSON: a value is missing at byte 17"},
        {DOC("{\"object_ids\":[1]} x"), "",
         "not valid JSON: trailing data at byte 19"},
        {DOC("{\"object_ids\":[1],\"x\":\"\xff\"}"), "",
         "not valid JSON: invalid UTF-8 at byte 23"},
        {DOC("{\"object_ids\":[01]}"), "",
         "not valid JSON: number with a leading zero at byte 15"},
        {DOC("{\"x\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]],\"object_ids\":[]}"), "",
         "not valid JSON: nesting deeper than 16 at byte 20"},
        {DOC("[1,2]"), "", "the body must be a JSON object"},
        {DOC("null"), "", "the body must be a JSON object"},
        {DOC("{}"), "object_ids", "is missing"},
        {DOC("{\"object_id\":[1]}"), "object_ids", "is missing"},
        {DOC("{\"object_ids\":null}"), "object_ids", "must be an array"},
        {DOC("{\"object_ids\":{}}"), "object_ids", "must be an array"},
        {DOC("{\"object_ids\":7}"), "object_ids", "must be an array"},
        {DOC("{\"object_ids\":[1],\"Object_IDs\":[1]}"), "object_ids",
         "appears more than once"},
        {DOC("{\"object_ids\":[-1]}"), "object_ids[0]", ID_REASON},
        {DOC("{\"object_ids\":[-0]}"), "object_ids[0]", ID_REASON},
        {DOC("{\"object_ids\":[1,2,3,1.5]}"), "object_ids[3]", ID_REASON},
        {DOC("{\"object_ids\":[1,1.0]}"), "object_ids[1]", ID_REASON},
        {DOC("{\"object_ids\":[1e3]}"), "object_ids[0]", ID_REASON},
        {DOC("{\"object_ids\":[9007199254740993]}"), "object_ids[0]",
         ID_REASON},
        {DOC("{\"object_ids\":[99999999999999999999]}"), "object_ids[0]",
         ID_REASON},
        {DOC("{\"object_ids\":[\"1\"]}"), "object_ids[0]", ID_REASON},
        {DOC("{\"object_ids\":[1,null]}"), "object_ids[1]", ID_REASON},
        {DOC("{\"object_ids\":[[1,2],true]}"), "object_ids[0]", ID_REASON},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        if (from_request(cases[i].body, cases[i].bytes) != RC_INVALID) {
            fail_msg("accepted %s", cases[i].body);
        }
        assert_error(0, cases[i].field, cases[i].reason);
        assert_int_equal(msg.count, 0);
    }
}

static void
each_wrong_id_is_named_up_to_the_bound_of_errors(void **state)
{
    (void)state;
    assert_int_equal(
        from_request(DOC("{\"object_ids\":[1,-1,[2,[3]],4,{\"a\":5},\"6\"]}")),
        RC_INVALID);
    assert_int_equal(errors.count, 4);
    assert_error(0, "object_ids[1]", ID_REASON);
    assert_error(1, "object_ids[2]", ID_REASON);
    assert_error(2, "object_ids[4]", ID_REASON);
    assert_error(3, "object_ids[5]", ID_REASON);
    assert_int_equal(
        from_request(DOC("{\"object_ids\":[-1,-1,-1,-1,-1,-1,-1,-1,-1]}")),
        RC_INVALID);
    assert_int_equal(errors.count, FIELD_ERRORS_MAX);
}

static void
ids_up_to_200_are_taken_and_201_are_counted(void **state)
{
    static const struct {
        unsigned count;
        const char *reason;
    } cases[] = {
        {199, NULL},
        {200, NULL},
        {201, "at most 200 ids, got 201"},
        {508, "at most 200 ids, got 508"},
        {509, "at most 200 ids, got 509"}, /* the tape's last token */
        {510, "at most 200 ids, got 510"},
        {30000, "at most 200 ids, got 30000"},
    };
    struct text body = {0};

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        build_body(&body, cases[i].count, 5, 1);
        if (cases[i].reason == NULL) {
            assert_int_equal(from_request(body.data, body.bytes), RC_OK);
            assert_int_equal(msg.count, cases[i].count);
            for (unsigned k = 0; k < msg.count; k++) {
                assert_int_equal(msg.ids[k], 5 + k);
            }
        } else {
            assert_int_equal(from_request(body.data, body.bytes), RC_INVALID);
            assert_int_equal(errors.count, 1);
            assert_error(0, "object_ids", cases[i].reason);
        }
    }
    text_free(&body);
}

static void
duplicates_count_towards_the_200_and_are_merged(void **state)
{
    struct text body = {0};

    (void)state;
    build_body(&body, 200, 9, 0);
    assert_int_equal(from_request(body.data, body.bytes), RC_OK);
    assert_int_equal(msg.count, 1);
    assert_int_equal(msg.ids[0], 9);
    build_body(&body, 201, 9, 0);
    assert_int_equal(from_request(body.data, body.bytes), RC_INVALID);
    assert_error(0, "object_ids", "at most 200 ids, got 201");
    text_free(&body);
}

static void
ids_that_collide_in_the_set_are_kept_apart(void **state)
{
    /* Steps that send all ids to few slots of a hash by low or high bits. */
    static const int64_t steps[] = {
        512, 4096, 65536, 1L << 32, 1L << 40, INT64_C(45035996273704)};
    struct text body = {0};

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(steps); i++) {
        build_body(&body, 200, 0, steps[i]);
        assert_int_equal(from_request(body.data, body.bytes), RC_OK);
        assert_int_equal(msg.count, 200);
        for (unsigned k = 0; k < 200; k++) {
            assert_true(msg.ids[k] == (int64_t)k * steps[i]);
        }
    }
    text_free(&body);
}

static void
large_unknown_members_are_ignored(void **state)
{
    struct text body = {0};

    (void)state;
    text_puts(&body, "{\"noise\":[");
    while (body.bytes < 65400) {
        text_puts(&body, "1,");
    }
    text_puts(&body, "{}],\"object_ids\":[3,4,3]}");
    assert_int_equal(from_request(body.data, body.bytes), RC_OK);
    assert_int_equal(msg.count, 2);
    /* The same, but wrong behind the first tape's end. */
    body.bytes--;
    text_puts(&body, "]");
    assert_int_equal(from_request(body.data, body.bytes), RC_INVALID);
    assert_non_null(
        strstr(errors.list[0].reason, "not valid JSON: comma or } expected"));
    text_free(&body);
}

static void
the_densest_documents_fit_the_second_tape(void **state)
{
    /* 16 containers that never close need a token a byte. */
    static const char *const tails[] = {"", "[[[[[[[[[[[[[[", "{\"a\":"};
    struct text body = {0};

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(tails); i++) {
        text_reset(&body);
        text_puts(&body, "{\"x\":[");
        for (int k = 0; k < 600; k++) {
            text_puts(&body, k % 2 ? "0," : "[],");
        }
        text_puts(&body, tails[i]);
        assert_int_equal(from_request(body.data, body.bytes), RC_INVALID);
        assert_null(strstr(errors.list[0].reason, "too many"));
    }
    text_free(&body);
}

static void
the_journal_form_comes_back_as_it_was(void **state)
{
    static const unsigned counts[] = {0, 1, 2, 199, 200};

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(counts); i++) {
        struct callback_msg in = {.count = counts[i]};
        struct callback_msg out;
        struct text form = {0};

        for (unsigned k = 0; k < counts[i]; k++) {
            in.ids[k] = JSON_MAX_SAFE_INTEGER - (int64_t)k * k * 1000003;
        }
        callback_msg_encode(&in, &form);
        assert_false(text_failed(&form));
        assert_int_equal(callback_msg_decode(form.data, form.bytes, &out),
                         RC_OK);
        assert_int_equal(out.count, in.count);
        assert_memory_equal(out.ids, in.ids, counts[i] * sizeof(in.ids[0]));
        text_free(&form);
    }
}

/* What is on disk must be read by the next version. */
static void
the_journal_form_is_as_documented(void **state)
{
    static const struct callback_msg in = {
        .count = 5, .ids = {0, 127, 128, 10000000, JSON_MAX_SAFE_INTEGER}};
    static const char expected[] = "\x01\x05"
                                   "\x00\x7f\x80\x01\x80\xad\xe2\x04"
                                   "\x80\x80\x80\x80\x80\x80\x80\x10";
    struct text form = {0};

    (void)state;
    callback_msg_encode(&in, &form);
    assert_false(text_failed(&form));
    assert_int_equal(form.bytes, sizeof(expected) - 1);
    assert_memory_equal(form.data, expected, form.bytes);
    text_free(&form);
}

static void
a_damaged_journal_form_is_invalid(void **state)
{
    static const struct {
        const char *what;
        const char *body;
        size_t bytes;
    } cases[] = {
        {"nothing", DOC("")},
        {"no count", DOC("\x01")},
        {"another form", DOC("\x02\x01\x07")},
        {"text", DOC("[1]")},
        {"an id less", DOC("\x01\x02\x07")},
        {"an id more", DOC("\x01\x01\x07\x08")},
        {"bytes behind none", DOC("\x01\x00\x00")},
        {"an id cut short", DOC("\x01\x01\x80")},
        {"a leading zero", DOC("\x01\x01\x87\x00")},
        {"an id twice", DOC("\x01\x02\x07\x07")},
        {"2^53 + 1", DOC("\x01\x01\x81\x80\x80\x80\x80\x80\x80\x10")},
        {"2^56", DOC("\x01\x01\x80\x80\x80\x80\x80\x80\x80\x80\x01")},
        {"201 ids", DOC("\x01\xc9\x00")},
        {"255 ids", DOC("\x01\xff\x00")},
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        char *copy = malloc(cases[i].bytes + 1);

        assert_non_null(copy);
        memcpy(copy + 1, cases[i].body, cases[i].bytes);
        msg.count = 7;
        if (callback_msg_decode(copy + 1, cases[i].bytes, &msg) != RC_INVALID) {
            fail_msg("accepted: %s", cases[i].what);
        }
        assert_int_equal(msg.count, 0);
        free(copy);
    }
}

static void
a_journal_form_of_201_ids_is_invalid(void **state)
{
    char body[2 + CALLBACK_IDS_MAX * 2 + 2];
    size_t bytes = 2;

    (void)state;
    body[0] = 1;
    for (unsigned id = 0; id < CALLBACK_IDS_MAX + 1; id++) {
        body[1] = (char)(id + 1);
        if (id > 127) {
            body[bytes++] = (char)(0x80 | (id & 0x7f));
        }
        body[bytes++] = (char)(id > 127 ? id >> 7 : id);
        assert_int_equal(callback_msg_decode(body, bytes, &msg),
                         id < CALLBACK_IDS_MAX ? RC_OK : RC_INVALID);
        assert_int_equal(msg.count, id < CALLBACK_IDS_MAX ? id + 1 : 0);
    }
}

static void
outcomes_come_back_up_to_their_bound(void **state)
{
    static struct callback_object in[CALLBACK_OUTCOME_MAX + 1];
    static struct callback_object out[CALLBACK_OUTCOME_MAX];
    static const unsigned counts[] = {0, 1, 2, CALLBACK_OUTCOME_MAX,
                                      CALLBACK_OUTCOME_MAX + 1};

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(in); i++) {
        in[i].id = i == 0 ? JSON_MAX_SAFE_INTEGER : (int64_t)i;
        in[i].last_seen_unix_ms = INT64_C(1767322985678) + i;
        in[i].seq = 1 + (int64_t)i * 3;
    }
    for (unsigned i = 0; i < ARRAY_COUNT(counts); i++) {
        bool fits = counts[i] <= CALLBACK_OUTCOME_MAX;
        struct text form = {0};
        unsigned count = 5;

        callback_outcome_encode(in, counts[i], &form);
        assert_int_equal(
            callback_outcome_decode(form.data, form.bytes, out, &count),
            fits ? RC_OK : RC_INVALID);
        assert_int_equal(count, fits ? counts[i] : 0);
        assert_memory_equal(out, in, count * sizeof(in[0]));
        text_free(&form);
    }
}

static void
a_damaged_outcome_is_invalid(void **state)
{
    static const char *const cases[] = {
        "",           "[",          "[[1,2,3]",    "[[1,2,3],]", "[[1,2]]",
        "[[1]]",      "[1,2,3]",    "[[1,2,3,4]]", "[[1,2,3]] ", "[[1, 2,3]]",
        "[[-1,2,3]]", "[[1,2,03]]", "[[]]",        "[[1,,3]]",   "[[1,2,3][4]]",
    };
    static struct callback_object out[CALLBACK_OUTCOME_MAX];

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        unsigned count = 5;

        if (callback_outcome_decode(cases[i], strlen(cases[i]), out, &count) !=
            RC_INVALID) {
            fail_msg("accepted %s", cases[i]);
        }
        assert_int_equal(count, 0);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_bodies_give_their_ids_in_order),
        cmocka_unit_test(bad_bodies_name_the_field_and_the_reason),
        cmocka_unit_test(each_wrong_id_is_named_up_to_the_bound_of_errors),
        cmocka_unit_test(ids_up_to_200_are_taken_and_201_are_counted),
        cmocka_unit_test(duplicates_count_towards_the_200_and_are_merged),
        cmocka_unit_test(ids_that_collide_in_the_set_are_kept_apart),
        cmocka_unit_test(large_unknown_members_are_ignored),
        cmocka_unit_test(the_densest_documents_fit_the_second_tape),
        cmocka_unit_test(the_journal_form_comes_back_as_it_was),
        cmocka_unit_test(the_journal_form_is_as_documented),
        cmocka_unit_test(a_damaged_journal_form_is_invalid),
        cmocka_unit_test(a_journal_form_of_201_ids_is_invalid),
        cmocka_unit_test(outcomes_come_back_up_to_their_bound),
        cmocka_unit_test(a_damaged_outcome_is_invalid),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
