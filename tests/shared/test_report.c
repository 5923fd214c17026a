/* shared/report.c on a real journal: the documents, read back. */
#include "shared/journal_batch.h"
#include "shared/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/json.h"
#include "tests/shared/journal_fixture.h"

#define TOKENS_MAX 4096

struct parsed {
    struct json json;
    struct json_token tokens[TOKENS_MAX];
};

static struct parsed parsed; /* of the test that runs */

static void
parse(const struct text *out)
{
    assert_false(text_failed(out));
    if (json_scan(text_cstr(out), out->bytes, parsed.tokens, TOKENS_MAX,
                  &parsed.json) != RC_OK) {
        fail_msg("not JSON: %s", text_cstr(out));
    }
}

/* Token at a path like "services/callback/final" or "dead/1/id". */
static uint32_t
at(const char *path)
{
    char copy[128];
    char *rest = NULL;
    uint32_t i = 0;

    (void)snprintf(copy, sizeof copy, "%s", path);
    for (char *name = strtok_r(copy, "/", &rest); name != NULL;
         name = strtok_r(NULL, "/", &rest)) {
        if (parsed.tokens[i].type == JSON_OBJECT) {
            i = json_member(&parsed.json, i, name);
        } else {
            size_t skip = strtoul(name, NULL, 10);
            uint32_t end = parsed.tokens[i].next;

            i++;
            while (skip-- > 0 && i < end) {
                i = parsed.tokens[i].next;
            }
            i = i < end ? i : 0;
        }
        if (i == 0) {
            fail_msg("no %s in %s", path, parsed.json.text);
        }
    }
    return i;
}

static void
assert_value(const char *path, const char *expected)
{
    const struct json_token *token = &parsed.tokens[at(path)];
    char value[512];

    (void)snprintf(value, sizeof value, "%.*s", (int)token->bytes,
                   parsed.json.text + token->start);
    if (strcmp(value, expected) != 0) {
        fail_msg("%s is %s, not %s", path, value, expected);
    }
}

static size_t
count(const char *path)
{
    uint32_t container = at(path);
    size_t n = 0;

    for (uint32_t i = container + 1; i < parsed.tokens[container].next;
         i = parsed.tokens[i].next) {
        n++;
    }
    return n;
}

static struct uuid
id_of(struct fixture *f, int64_t seq)
{
    struct journal_page page = {0};
    struct uuid id;

    assert_int_equal(journal_queue_page(f->dispatcher, SERVICE_CALLBACK,
                                        seq - 1, 1, 1000, &page),
                     RC_OK);
    assert_int_equal(page.count, 1);
    id = page.rows[0].id;
    journal_page_free(&page);
    return id;
}

/* The request ends among the dead letters, with count items. */
static void
bury(struct fixture *f, int64_t seq, size_t items)
{
    struct journal_dead_item list[3] = {
        {"7", "HTTP status 500", 4},
        {"8", "no answer \"within\" 5 s", 4},
        {"9", "caf\xc3\xa9", 1},
    };

    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(journal_bury(f->dispatcher, SERVICE_CALLBACK, seq,
                                  "objects could not be fetched", NULL, 0, list,
                                  items, FIXTURE_NOW + 1000),
                     RC_OK);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
}

static void
the_ledger_counts_each_request_once(void **state)
{
    struct fixture *f = *state;
    struct text out = {0};

    fixture_accept_many(f, 5);
    (void)fixture_finish(f, 1, 2);
    bury(f, 3, 1);
    assert_int_equal(
        report_ledger(f->dispatcher, 12345, FIXTURE_NOW + 2500, &out), RC_OK);
    parse(&out);
    assert_value("services/callback/accepted", "5");
    assert_value("services/callback/final", "0");
    assert_value("services/callback/dead", "1");
    assert_value("services/callback/pending", "4");
    assert_value("services/callback/outcomes", "1");
    assert_value("services/callback/balanced", "true");
    assert_value("services/callback/oldest_age_s", "2.5");
    assert_value("journal/max_bytes", "12345");
    assert_true(parsed.tokens[at("journal/used_bytes")].bytes > 3);
    text_free(&out);
}

static void
the_ledger_as_metrics_has_help_type_and_labels(void **state)
{
    static const char *const lines[] = {
        "# TYPE sluice_accepted_total counter\n",
        "\nsluice_accepted_total{service=\"callback\"} 3\n",
        "\nsluice_pending{service=\"callback\"} 3\n",
        "\nsluice_dead{service=\"callback\"} 0\n",
        "\nsluice_oldest_age_seconds{service=\"callback\"} 1\n",
        "# HELP sluice_ledger_balanced ",
        "\nsluice_ledger_balanced{service=\"callback\"} 1\n",
    };
    struct fixture *f = *state;
    struct text out = {0};

    fixture_accept_many(f, 3);
    assert_int_equal(
        report_ledger_metrics(f->dispatcher, FIXTURE_NOW + 1000, &out), RC_OK);
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++) {
        if (strstr(text_cstr(&out), lines[i]) == NULL) {
            fail_msg("no %s", lines[i]);
        }
    }
    text_free(&out);
}

static void
the_queue_shows_what_comes_next(void **state)
{
    struct fixture *f = *state;
    struct text out = {0};

    fixture_accept_many(f, 12);
    (void)fixture_finish(f, 1, 2);
    assert_int_equal(
        report_queue(f->dispatcher, SERVICE_COUNT, 3, FIXTURE_NOW, &out),
        RC_OK);
    parse(&out);
    assert_int_equal(count("queue"), SERVICE_COUNT);
    assert_value("queue/0/service", "callback");
    assert_value("queue/0/pending", "12");
    assert_int_equal(count("queue/0/next"), 3);
    assert_value("queue/0/next/0/seq", "3");
    assert_value("queue/0/next/2/seq", "5");
    assert_value("queue/0/next/0/body_bytes", "3");
    assert_value("queue/0/next/0/received_at", "2027-01-15T08:00:00.000Z");
    text_reset(&out);
    assert_int_equal(
        report_queue(f->dispatcher, SERVICE_CALLBACK, 0, FIXTURE_NOW, &out),
        RC_OK);
    parse(&out);
    assert_int_equal(count("queue/0/next"), 0);
    text_free(&out);
}

static void
dead_letters_come_in_pages_with_their_items(void **state)
{
    struct fixture *f = *state;
    struct text out = {0};

    fixture_accept_many(f, 4);
    for (int64_t seq = 1; seq <= 3; seq++) {
        bury(f, seq, (size_t)seq);
    }
    assert_int_equal(report_dead(f->dispatcher, SERVICE_CALLBACK, 0, 2, &out),
                     RC_OK);
    parse(&out);
    assert_int_equal(count("dead"), 2);
    assert_value("dead/0/seq", "1");
    assert_value("dead/0/service", "callback");
    assert_value("dead/0/reason", "objects could not be fetched");
    assert_value("dead/0/dead_at", "2027-01-15T08:00:01.000Z");
    assert_int_equal(count("dead/0/items"), 1);
    assert_value("dead/0/items/0/item", "7");
    assert_value("dead/0/items/0/attempts", "4");
    assert_value("dead/1/items/1/reason", "no answer \\\"within\\\" 5 s");
    assert_value("next", "2");
    text_reset(&out);
    assert_int_equal(report_dead(f->dispatcher, SERVICE_CALLBACK, 2, 2, &out),
                     RC_OK);
    parse(&out);
    assert_int_equal(count("dead"), 1);
    assert_int_equal(count("dead/0/items"), 3);
    assert_value("next", "null");
    text_free(&out);
}

static struct uuid
accept_sms(struct fixture *f)
{
    struct journal_request request = fixture_request(f, "+123 a");

    request.service = SERVICE_SMS;
    assert_int_equal(journal_accept(f->edge, &request, 1, 0), RC_OK);
    return request.id;
}

static void
dead_letters_of_all_services_come_together(void **state)
{
    struct fixture *f = *state;
    struct text out = {0};

    fixture_accept_many(f, 2);
    bury(f, 1, 0);
    bury(f, 2, 0);
    (void)accept_sms(f);
    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(journal_bury(f->dispatcher, SERVICE_SMS, 1, "HTTP 400",
                                  NULL, 0, NULL, 0, FIXTURE_NOW),
                     RC_OK);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    assert_int_equal(report_dead(f->dispatcher, SERVICE_COUNT, 0, 1, &out),
                     RC_OK);
    parse(&out);
    assert_int_equal(count("dead"), 2);
    assert_value("dead/0/service", "callback");
    assert_value("dead/1/service", "sms");
    assert_value("dead/1/reason", "HTTP 400");
    assert_value("next/callback", "1");
    assert_int_equal(count("next"), 2); /* a name and its value */
    text_free(&out);
}

static void
exactly_a_page_of_dead_letters_has_no_next(void **state)
{
    struct fixture *f = *state;
    struct text out = {0};

    fixture_accept_many(f, 2);
    bury(f, 1, 0);
    bury(f, 2, 0);
    assert_int_equal(report_dead(f->dispatcher, SERVICE_CALLBACK, 0, 2, &out),
                     RC_OK);
    parse(&out);
    assert_int_equal(count("dead"), 2);
    assert_int_equal(count("dead/1/items"), 0);
    assert_value("next", "null");
    text_free(&out);
}

static void
a_request_is_explained_wherever_it_is(void **state)
{
    struct fixture *f = *state;
    struct text out = {0};
    struct uuid ids[4];

    fixture_accept_many(f, 4);
    for (int64_t seq = 1; seq <= 4; seq++) {
        ids[seq - 1] = id_of(f, seq);
    }
    (void)fixture_finish(f, 1, 1);
    bury(f, 2, 2);

    assert_int_equal(report_explain(f->dispatcher, &ids[0], &out), RC_OK);
    parse(&out);
    assert_value("state", "persisting");
    assert_value("outcome", "1");
    text_reset(&out);
    assert_int_equal(report_explain(f->dispatcher, &ids[1], &out), RC_OK);
    parse(&out);
    assert_value("state", "dead");
    assert_value("reason", "objects could not be fetched");
    assert_int_equal(count("items"), 2);
    text_reset(&out);
    assert_int_equal(report_explain(f->dispatcher, &ids[3], &out), RC_OK);
    parse(&out);
    assert_value("state", "pending");
    assert_value("service", "callback");
    assert_value("seq", "4");
    (void)at("ahead");
    text_free(&out);
}

static struct uuid
id_of_batch(void)
{
    struct uuid id;

    assert_int_equal(uuid_parse("01890000-0000-7000-8000-0000000b0001", &id),
                     RC_OK);
    return id;
}

static void
a_message_is_explained_with_its_batch(void **state)
{
    struct fixture *f = *state;
    struct text out = {0};
    struct uuid ids[] = {accept_sms(f), accept_sms(f)};
    struct uuid alone = accept_sms(f);
    struct journal_batch batch = {
        .id = id_of_batch(), .size = 2, .attempts = 3, .error = "HTTP 500"};
    char text[UUID_TEXT_BYTES];

    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(journal_batch_make(f->dispatcher, &batch, ids, 2), RC_OK);
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    assert_int_equal(report_explain(f->dispatcher, &ids[1], &out), RC_OK);
    parse(&out);
    assert_value("state", "pending");
    assert_value("batch", uuid_format(&batch.id, text));
    assert_value("batch_size", "2");
    assert_value("batch_place", "2");
    assert_value("failed_attempts", "3");
    assert_value("last_error", "HTTP 500");
    text_reset(&out);
    assert_int_equal(report_explain(f->dispatcher, &alone, &out), RC_OK);
    parse(&out);
    assert_value("state", "pending");
    assert_null(strstr(text_cstr(&out), "batch"));
    text_free(&out);
}

static void
an_unknown_id_tells_who_made_it_and_when(void **state)
{
    struct fixture *f = *state;
    struct uuid_source source;
    struct uuid id;
    struct text out = {0};

    (void)fixture_accept(f, "[1]");
    uuid_source_init(&source, 513);
    assert_int_equal(uuid_next(&source, FIXTURE_NOW, &id), RC_OK);
    assert_int_equal(report_explain(f->dispatcher, &id, &out), RC_AGAIN);
    parse(&out);
    assert_value("state", "unknown");
    assert_value("node", "513");
    assert_value("created_at", "2027-01-15T08:00:00.000Z");
    text_free(&out);
}

static void
without_a_journal_nothing_is_said(void **state)
{
    struct fixture *f = *state;
    struct journal *reader = fixture_journal(f, JOURNAL_READER);
    struct text out = {0};

    assert_int_equal(report_ledger(reader, 1, FIXTURE_NOW, &out), RC_AGAIN);
    assert_int_equal(report_ledger_metrics(reader, FIXTURE_NOW, &out),
                     RC_AGAIN);
    assert_int_equal(report_queue(reader, SERVICE_COUNT, 1, FIXTURE_NOW, &out),
                     RC_AGAIN);
    assert_int_equal(report_dead(reader, SERVICE_CALLBACK, 0, 1, &out),
                     RC_AGAIN);
    assert_int_equal(out.bytes, 0);
    journal_free(&reader);
    text_free(&out);
}

#define WITH_JOURNAL(test)                                                     \
    cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_JOURNAL(the_ledger_counts_each_request_once),
        WITH_JOURNAL(the_ledger_as_metrics_has_help_type_and_labels),
        WITH_JOURNAL(the_queue_shows_what_comes_next),
        WITH_JOURNAL(dead_letters_come_in_pages_with_their_items),
        WITH_JOURNAL(dead_letters_of_all_services_come_together),
        WITH_JOURNAL(exactly_a_page_of_dead_letters_has_no_next),
        WITH_JOURNAL(a_request_is_explained_wherever_it_is),
        WITH_JOURNAL(a_message_is_explained_with_its_batch),
        WITH_JOURNAL(an_unknown_id_tells_who_made_it_and_when),
        WITH_JOURNAL(without_a_journal_nothing_is_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
