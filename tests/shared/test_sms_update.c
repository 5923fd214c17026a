/* shared/sms_update.c */
#include "shared/sms_update.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ID "01890000-0000-7000-8000-00000000002a"
#define ID_UPPER "01890000-0000-7000-8000-00000000002A"
#define ID_BYTES                                                               \
    "\x01\x89\0\0\0\0\x70\0"                                                   \
    "\x80\0\0\0\0\0\0\x2a"

static struct text form;
static struct field_errors errors;

static int
teardown(void **state)
{
    (void)state;
    text_free(&form);
    return 0;
}

/* Decode from a copy without a byte to spare. */
static enum rc
from_request(const char *body, size_t bytes)
{
    char *copy = malloc(bytes + 1);
    enum rc rc;

    assert_non_null(copy);
    memcpy(copy + 1, body, bytes);
    memset(&errors, 0x5a, sizeof(errors));
    text_reset(&form);
    rc = sms_updates_from_request(copy + 1, bytes, &form, &errors);
    free(copy);
    if (rc == RC_OK) {
        assert_int_equal(errors.count, 0);
    } else {
        assert_int_equal(rc, RC_INVALID);
        assert_int_equal(form.bytes, 0);
        assert_in_range(errors.count, 1, FIELD_ERRORS_MAX);
    }
    return rc;
}

static enum rc
request(const char *body)
{
    return from_request(body, strlen(body));
}

static struct sms_update_cursor
cursor(void)
{
    return (struct sms_update_cursor){.body = form.data, .bytes = form.bytes};
}

static struct sms_update
next(struct sms_update_cursor *c)
{
    struct sms_update update;

    memset(&update, 0x5a, sizeof(update));
    assert_int_equal(sms_update_next(c, &update), RC_OK);
    return update;
}

static void
assert_end(struct sms_update_cursor *c)
{
    struct sms_update update;

    for (int k = 0; k < 2; k++) {
        assert_int_equal(sms_update_next(c, &update), RC_AGAIN);
        assert_false(update.mapped);
        assert_string_equal(update.name, "");
    }
}

/* The one update of a body could not be mapped. */
static void
assert_unmapped(const char *body, const char *name, const char *word)
{
    struct sms_update_cursor c;
    struct sms_update update;

    assert_int_equal(request(body), RC_OK);
    c = cursor();
    update = next(&c);
    assert_false(update.mapped);
    assert_string_equal(update.name, name);
    assert_string_equal(update.word, word);
    assert_end(&c);
}

static void
updates_are_mapped_in_their_order(void **state)
{
    static const enum sms_state states[] = {SMS_DELIVERED, SMS_CONFIRMED,
                                            SMS_FAILED, SMS_ACCEPTED};
    struct sms_update_cursor c;
    char id[UUID_TEXT_BYTES];

    (void)state;
    assert_int_equal(
        request("{\"01890000-0000-7000-8000-000000000003\":\"DELIVERED\","
                "\"01890000-0000-7000-8000-000000000002\":\"CONFIRMED\","
                "\"01890000-0000-7000-8000-000000000001\":\"FAILED\","
                "\"01890000-0000-7000-8000-000000000000\":\"ACCEPTED\"}"),
        RC_OK);
    c = cursor();
    for (size_t k = 0; k < ARRAY_COUNT(states); k++) {
        struct sms_update update = next(&c);
        char wanted[] = "01890000-0000-7000-8000-000000000003";

        wanted[35] = (char)('3' - (char)k);
        assert_true(update.mapped);
        assert_false(update.known);
        assert_int_equal(update.state, states[k]);
        assert_string_equal(uuid_format(&update.id, id), wanted);
    }
    assert_end(&c);
    assert_int_equal(form.bytes, 1 + 4 * (1 + UUID_BYTES));
}

static void
the_journal_form_is_as_documented(void **state)
{
    static const char wanted[] = "\1"
                                 "\1" ID_BYTES "\xff\1"
                                 "x\4"
                                 "true\xff\0\0";

    (void)state;
    assert_int_equal(request("{\"" ID "\":\"CONFIRMED\",\"x\":true,\"\":\"\"}"),
                     RC_OK);
    assert_int_equal(form.bytes, sizeof(wanted) - 1);
    assert_memory_equal(form.data, wanted, sizeof(wanted) - 1);
}

static void
an_empty_object_is_no_update(void **state)
{
    struct sms_update_cursor c;

    (void)state;
    assert_int_equal(request(" { } "), RC_OK);
    assert_int_equal(form.bytes, 1);
    c = cursor();
    assert_end(&c);
}

static void
ids_may_be_in_upper_case_and_escaped(void **state)
{
    static const char *const bodies[] = {
        "{\"" ID_UPPER "\":\"FAILED\"}",
        "{\"\\u00301890000-0000-7000-8000-00000000002\\u0061\":"
        "\"\\u0046AILED\"}",
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(bodies); k++) {
        struct sms_update_cursor c;
        struct sms_update update;

        assert_int_equal(request(bodies[k]), RC_OK);
        c = cursor();
        update = next(&c);
        assert_true(update.mapped);
        assert_int_equal(update.state, SMS_FAILED);
        assert_memory_equal(update.id.bytes, ID_BYTES, UUID_BYTES);
        assert_end(&c);
    }
}

static void
what_cannot_be_mapped_is_kept_as_it_was(void **state)
{
    (void)state;
    assert_unmapped("{\"" ID "\":\"READ\"}", ID, "READ");
    assert_unmapped("{\"" ID "\":\"delivered\"}", ID, "delivered");
    assert_unmapped("{\"" ID_UPPER "\":\"\"}", ID_UPPER, "");
    assert_unmapped("{\"" ID "\":null}", ID, "null");
    assert_unmapped("{\"" ID "\":true}", ID, "true");
    assert_unmapped("{\"" ID "\":-1.5e3}", ID, "-1.5e3");
    assert_unmapped("{\"" ID "\":[\"FAILED\", 1]}", ID, "[\"FAILED\", 1]");
    assert_unmapped("{\"" ID "\":{\"a\":{\"b\":[]}}}", ID,
                    "{\"a\":{\"b\":[]}}");
    assert_unmapped("{\"" ID "\":\"FAILED\\u0020\"}", ID, "FAILED ");
    assert_unmapped("{\"Message 7\":\"DELIVERED\"}", "Message 7", "DELIVERED");
    assert_unmapped("{\"\":\"DELIVERED\"}", "", "DELIVERED");
    assert_unmapped("{\"" ID "0\":\"DELIVERED\"}", ID "0", "DELIVERED");
    assert_unmapped("{\"0189000000007000800000000000002a\":\"FAILED\"}",
                    "0189000000007000800000000000002a", "FAILED");
    assert_unmapped("{\"0189000g-0000-7000-8000-00000000002a\":\"FAILED\"}",
                    "0189000g-0000-7000-8000-00000000002a", "FAILED");
    assert_unmapped("{\"\\n\\\"\\ud83d\\ude00\":\"\\\\\\u0001\"}",
                    "\n\"\xf0\x9f\x98\x80", "\\\x01");
}

/* A body with one member: name and word are so many times the character, and
 * are cut where they are too long. */
static void
check_cut(const char *character, size_t name_count, size_t word_count)
{
    size_t length = strlen(character);
    struct sms_update_cursor c;
    struct sms_update update;
    struct text body = {0};

    text_puts(&body, "{\"");
    for (size_t k = 0; k < name_count; k++) {
        text_puts(&body, character);
    }
    text_puts(&body, "\":\"");
    for (size_t k = 0; k < word_count; k++) {
        text_puts(&body, character);
    }
    text_puts(&body, "\"}");
    assert_int_equal(from_request(body.data, body.bytes), RC_OK);
    c = cursor();
    update = next(&c);
    assert_int_equal(strlen(update.name),
                     length * (name_count * length > SMS_UPDATE_NAME_BYTES - 1
                                   ? (SMS_UPDATE_NAME_BYTES - 1) / length
                                   : name_count));
    assert_int_equal(strlen(update.word),
                     length * (word_count * length > SMS_UPDATE_WORD_BYTES - 1
                                   ? (SMS_UPDATE_WORD_BYTES - 1) / length
                                   : word_count));
    assert_int_equal(
        text_utf8_length(update.name + strlen(update.name) - length, length),
        length);
    assert_end(&c);
    text_free(&body);
}

static void
long_names_and_words_are_cut_between_characters(void **state)
{
    static const char *const characters[] = {"a", "\xc3\xa4", "\xe2\x82\xac",
                                             "\xf0\x9f\x98\x80"};

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(characters); k++) {
        for (size_t count = 1; count < 140; count++) {
            check_cut(characters[k], count, count);
        }
        check_cut(characters[k], 100000, 100000);
    }
}

static void
long_values_that_are_no_strings_are_cut_too(void **state)
{
    struct sms_update_cursor c;
    struct sms_update update;
    struct text body = {0};

    (void)state;
    text_puts(&body, "{\"" ID "\":[");
    for (int k = 0; k < 40000; k++) {
        text_puts(&body, k == 0 ? "1" : ",1");
    }
    text_puts(&body, "]}");
    assert_int_equal(from_request(body.data, body.bytes), RC_OK);
    c = cursor();
    update = next(&c);
    assert_int_equal(strlen(update.word), SMS_UPDATE_WORD_BYTES - 1);
    assert_memory_equal(update.word, "[1,1,1", 6);
    assert_end(&c);
    text_free(&body);
}

/* count members; twice: the last one has the first one's id, in upper case. */
static void
many(struct text *body, unsigned count, bool twice)
{
    text_putc(body, '{');
    for (unsigned k = 0; k < count; k++) {
        /* No order that a sort could like. */
        unsigned number = (k * 7919U) % 1000003U;

        text_printf(body,
                    "%s\"%08x-0000-7000-8000-00000000abcd\":\"DELIVERED\"",
                    k == 0 ? "" : ",", number);
    }
    if (twice) {
        text_puts(body, ",\"00000000-0000-7000-8000-00000000ABCD\":\"FAILED\"");
    }
    text_putc(body, '}');
}

static void
ten_thousand_updates_are_taken_and_one_more_is_not(void **state)
{
    struct sms_update_cursor c;
    struct text body = {0};

    (void)state;
    many(&body, SMS_UPDATES_MAX, false);
    assert_int_equal(from_request(body.data, body.bytes), RC_OK);
    assert_int_equal(form.bytes, 1 + SMS_UPDATES_MAX * (1 + UUID_BYTES));
    c = cursor();
    for (unsigned k = 0; k < SMS_UPDATES_MAX; k++) {
        struct sms_update update = next(&c);

        assert_true(update.mapped);
        assert_int_equal((unsigned)update.id.bytes[0] << 24 |
                             (unsigned)update.id.bytes[1] << 16 |
                             (unsigned)update.id.bytes[2] << 8 |
                             update.id.bytes[3],
                         (k * 7919U) % 1000003U);
    }
    assert_end(&c);
    text_reset(&body);
    many(&body, SMS_UPDATES_MAX + 1, false);
    assert_int_equal(from_request(body.data, body.bytes), RC_INVALID);
    assert_int_equal(errors.count, 1);
    assert_string_equal(errors.list[0].field, "");
    assert_string_equal(errors.list[0].reason,
                        "at most 10000 updates, these are 10001");
    text_free(&body);
}

static void
ten_thousand_that_cannot_be_mapped_are_taken(void **state)
{
    struct sms_update_cursor c;
    struct text body = {0};

    (void)state;
    text_putc(&body, '{');
    for (unsigned k = 0; k < SMS_UPDATES_MAX; k++) {
        text_printf(&body, "%s\"%u\":[{}]", k == 0 ? "" : ",", k);
    }
    text_putc(&body, '}');
    assert_int_equal(from_request(body.data, body.bytes), RC_OK);
    assert_true(form.bytes < body.bytes);
    c = cursor();
    for (unsigned k = 0; k < SMS_UPDATES_MAX; k++) {
        struct sms_update update = next(&c);

        assert_string_equal(update.word, "[{}]");
        assert_int_equal(strtoul(update.name, NULL, 10), k);
    }
    assert_end(&c);
    text_free(&body);
}

static void
a_member_twice_is_refused_and_named(void **state)
{
    static const struct {
        const char *body;
        unsigned count;
        const char *field;
    } cases[] = {
        {"{\"" ID "\":\"FAILED\",\"" ID "\":\"FAILED\"}", 1, ID},
        {"{\"a\":1,\"b\":2,\"A\":3}", 1, NULL},
        {"{\"a\":1,\"\\u0061\":2}", 1, "a"},
        {"{\"\":1,\"\":2}", 1, ""},
        {"{\"a\":1,\"a\":2,\"a\":3}", 1, "a"},
        {"{\"b\":1,\"a\":2,\"b\":3,\"a\":4}", 2, "a"},
        {"{\"0\":0,\"1\":0,\"2\":0,\"3\":0,\"4\":0,\"5\":0,\"6\":0,\"7\":0,"
         "\"8\":0,\"9\":0,\"0\":0,\"1\":0,\"2\":0,\"3\":0,\"4\":0,\"5\":0,"
         "\"6\":0,\"7\":0,\"8\":0,\"9\":0}",
         8, "0"},
    };
    struct text body = {0};

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(cases); k++) {
        assert_int_equal(request(cases[k].body), RC_INVALID);
        assert_int_equal(errors.count, cases[k].count);
        if (cases[k].field != NULL) {
            assert_string_equal(errors.list[0].field, cases[k].field);
        }
        assert_string_equal(errors.list[0].reason, "appears more than once");
    }
    many(&body, SMS_UPDATES_MAX - 1, true);
    assert_int_equal(from_request(body.data, body.bytes), RC_INVALID);
    assert_int_equal(errors.count, 1);
    text_free(&body);
}

static void
names_that_only_look_alike_are_two(void **state)
{
    (void)state;
    /* The case of letters beyond ASCII counts. */
    assert_int_equal(request("{\"\xc3\xa4\":1,\"\xc3\x84\":2}"), RC_OK);
    assert_int_equal(request("{\"a\":1,\"aa\":2,\"a \":3,\"\":4}"), RC_OK);
    assert_int_equal(request("{\"k\":1,\"\xe2\x84\xaa\":2}"),
                     RC_OK); /* kelvin */
    /* Inner members are a value's own. */
    assert_int_equal(request("{\"a\":{\"b\":1,\"b\":2},\"b\":3}"), RC_OK);
}

static void
wrong_bodies_are_told_why(void **state)
{
    static const struct {
        const char *body;
        const char *reason;
    } cases[] = {
        {"", "the body is empty"},
        {"[]", "the body must be a JSON object"},
        {"1", "the body must be a JSON object"},
        {"null", "the body must be a JSON object"},
        {"\"x\"", "the body must be a JSON object"},
        {"{", "not valid JSON: unterminated object at byte 1"},
        {"{\"a\":}", "not valid JSON: a value is missing at byte 5"},
        {"{\"\\u0000\":1}", "not valid JSON: U+0000 in a string at byte 2"},
        {"[[\xb0", "not valid JSON: invalid UTF-8 at byte 2"},
        {"[[[[[[[[[[[[[[[[[",
         "not valid JSON: nesting deeper than 16 at byte 16"},
        {"{\"a\":1}x", "not valid JSON: trailing data at byte 7"},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(cases); k++) {
        assert_int_equal(request(cases[k].body), RC_INVALID);
        assert_int_equal(errors.count, 1);
        assert_string_equal(errors.list[0].field, "");
        assert_string_equal(errors.list[0].reason, cases[k].reason);
    }
}

static void
the_densest_bodies_have_room(void **state)
{
    struct text body = {0};

    (void)state;
    assert_int_equal(request("{\"\":[[[[[[[[[]]]]]]]]]}"), RC_OK);
    for (size_t count = 1; count < 64; count++) {
        text_reset(&body);
        text_puts(&body, "{\"\":[");
        for (size_t k = 0; k < count; k++) {
            text_puts(&body, k == 0 ? "1" : ",1");
        }
        text_puts(&body, "]}");
        assert_int_equal(from_request(body.data, body.bytes), RC_OK);
    }
    text_free(&body);
}

static void
a_bound_that_is_too_small_is_no_memory(void **state)
{
    static const char body[] = "{\"" ID "\":\"FAILED\"}";
    struct text small = {.max_bytes = 17};

    (void)state;
    assert_int_equal(
        sms_updates_from_request(body, sizeof(body) - 1, &small, &errors),
        RC_NOMEM);
    assert_int_equal(errors.count, 0);
    text_free(&small);
}

static void
outcomes_say_what_the_journal_knew(void **state)
{
    struct sms_update update = {.mapped = true, .state = SMS_DELIVERED};
    struct sms_update_cursor c;

    (void)state;
    text_reset(&form);
    memcpy(update.id.bytes, ID_BYTES, UUID_BYTES);
    sms_update_begin(&form);
    update.known = true;
    sms_update_put(&update, &form);
    update.known = false;
    sms_update_put(&update, &form);
    assert_int_equal(form.data[1], 16 + SMS_DELIVERED);
    assert_int_equal(form.data[18], SMS_DELIVERED);
    c = cursor();
    for (int k = 0; k < 2; k++) {
        struct sms_update got = next(&c);

        assert_true(got.mapped);
        assert_int_equal(got.known, k == 0);
        assert_int_equal(got.state, SMS_DELIVERED);
        assert_memory_equal(got.id.bytes, ID_BYTES, UUID_BYTES);
    }
    assert_end(&c);
}

static void
the_longest_names_and_words_lead_back(void **state)
{
    struct sms_update update = {0};
    struct sms_update got;
    struct sms_update_cursor c;

    (void)state;
    text_reset(&form);
    memset(update.name, 'n', sizeof(update.name) - 1);
    memset(update.word, 'w', sizeof(update.word) - 1);
    sms_update_begin(&form);
    sms_update_put(&update, &form);
    c = cursor();
    got = next(&c);
    assert_string_equal(got.name, update.name);
    assert_string_equal(got.word, update.word);
    assert_end(&c);
    form.data[2 + 1 + 128] = 65; /* the word's length */
    text_putc(&form, 'w');
    c = cursor();
    assert_int_equal(sms_update_next(&c, &got), RC_INVALID);
}

static void
other_forms_are_refused(void **state)
{
    static const struct {
        const char *body;
        size_t bytes;
        unsigned good; /* updates before what is wrong */
    } cases[] = {
        {"", 0, 0},
        {"\0", 1, 0},
        {"\2", 1, 0},
        {"{}", 2, 0},
        {"\1\1", 2, 0},
        {"\1\1" ID_BYTES, 17, 0},        /* one byte is missing */
        {"\1\4" ID_BYTES, 18, 0},        /* no such state */
        {"\1\17" ID_BYTES, 18, 0},       /* nor this */
        {"\1\24" ID_BYTES, 18, 0},       /* nor 16 + 4 */
        {"\1\376" ID_BYTES, 18, 0},      /* nor 254 */
        {"\1\1" ID_BYTES "\1", 19, 1},   /* a beginning */
        {"\1\1" ID_BYTES "\377", 19, 1}, /* no name */
        {"\1\377\1", 3, 0},              /* nor here */
        {"\1\377\1n", 4, 0},             /* no word */
        {"\1\377\1n\2w", 6, 0},          /* half a word */
        {"\1\377\1\0\0", 5, 0},          /* a NUL */
        {"\1\377\1n\1\0", 6, 0},         /* another */
        {"\1\377\1\303\0", 5, 0},        /* half a character */
        {"\1\377\1n\2\303(", 7, 0},      /* the same */
        {"\1\377\0\0\1", 5, 1},          /* good, and then not */
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(cases); k++) {
        /* Without a byte to spare. */
        char *copy = malloc(cases[k].bytes + 1);
        struct sms_update_cursor c = {.body = copy + 1,
                                      .bytes = cases[k].bytes};
        struct sms_update update;

        assert_non_null(copy);
        memcpy(copy + 1, cases[k].body, cases[k].bytes);
        for (unsigned i = 0; i < cases[k].good; i++) {
            assert_int_equal(sms_update_next(&c, &update), RC_OK);
        }
        for (unsigned i = 0; i < 2; i++) { /* and it stays so */
            if (sms_update_next(&c, &update) != RC_INVALID) {
                fail_msg("case %zu", k);
            }
            assert_false(update.mapped);
            assert_string_equal(update.name, "");
        }
        free(copy);
    }
}

#define TEST(name) cmocka_unit_test_teardown(name, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(updates_are_mapped_in_their_order),
        TEST(the_journal_form_is_as_documented),
        TEST(an_empty_object_is_no_update),
        TEST(ids_may_be_in_upper_case_and_escaped),
        TEST(what_cannot_be_mapped_is_kept_as_it_was),
        TEST(long_names_and_words_are_cut_between_characters),
        TEST(long_values_that_are_no_strings_are_cut_too),
        TEST(ten_thousand_updates_are_taken_and_one_more_is_not),
        TEST(ten_thousand_that_cannot_be_mapped_are_taken),
        TEST(a_member_twice_is_refused_and_named),
        TEST(names_that_only_look_alike_are_two),
        TEST(wrong_bodies_are_told_why),
        TEST(the_densest_bodies_have_room),
        TEST(a_bound_that_is_too_small_is_no_memory),
        TEST(outcomes_say_what_the_journal_knew),
        TEST(the_longest_names_and_words_lead_back),
        TEST(other_forms_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
