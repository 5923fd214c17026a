/* shared/invitation_msg.c */
#include "shared/invitation_msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CODE_64                                                                \
    "abcdefghijklmnopqrstuvwxyz-01234"                                         \
    "abcdefghijklmnopqrstuvwxyz-56789"
#define EMAIL                                                                  \
    "Jo+news@B\xc3\xbc"                                                        \
    "cher.Example"
#define TOO_LONG "The address is too long (at most 254 bytes)."
#define CODE_REASON "must be 1 to 64 of a-z 0-9 -"

typedef enum rc (*decoder)(const char *code, const char *body, size_t bytes,
                           struct invitation_msg *out,
                           struct field_errors *errors);

static const struct invitation_msg empty;
static struct invitation_msg msg;
static struct field_errors errors;

/* Decode from a copy without a byte to spare. */
static enum rc
decode_request(decoder from, const char *code, const char *body, size_t bytes)
{
    char *copy = malloc(bytes + 1);
    enum rc rc;

    assert_non_null(copy);
    memcpy(copy + 1, body, bytes);
    memset(&msg, 0x5a, sizeof(msg));
    memset(&errors, 0x5a, sizeof(errors));
    rc = from(code, copy + 1, bytes, &msg, &errors);
    free(copy);
    if (rc != RC_OK) {
        assert_true(errors.count > 0);
        assert_memory_equal(&msg, &empty, sizeof(msg));
    } else {
        assert_int_equal(errors.count, 0);
    }
    return rc;
}

static enum rc
json(const char *body)
{
    return decode_request(invitation_msg_from_request, "twitter-reg1", body,
                          strlen(body));
}

static enum rc
form(const char *body)
{
    return decode_request(invitation_msg_from_form, "twitter-reg1", body,
                          strlen(body));
}

static void
assert_told(const char *field, const char *reason)
{
    assert_int_equal(errors.count, 1);
    assert_string_equal(errors.list[0].field, field);
    assert_string_equal(errors.list[0].reason, reason);
}

static void
good_documents_are_taken(void **state)
{
    static const char *const bodies[] = {
        "{\"Email\":\"" EMAIL "\"}",
        "{\"email\":\"" EMAIL "\"}",
        " { \"x\" : [{}], \"EMAIL\" : \" " EMAIL "\\t\" } ",
        "{\"\\u0045mail\":\"\\u004ao+news@B\\u00fccher.Example\"}",
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(bodies); k++) {
        assert_int_equal(json(bodies[k]), RC_OK);
        assert_string_equal(msg.code, "twitter-reg1");
        assert_string_equal(msg.email, EMAIL);
    }
}

static void
good_forms_are_taken(void **state)
{
    static const char *const bodies[] = {
        "email=Jo%2Bnews%40B%C3%BCcher.Example",
        "email=Jo%2bnews@B%c3%bccher.Example",
        "Email=+Jo%2Bnews%40B%C3%BCcher.Example%20",
        "%65mail=Jo%2Bnews%40B%C3%BCcher.Example",
        "x=1&email=Jo%2Bnews%40B%C3%BCcher.Example&submit=Ask+for+a+place",
        "&&=&x&email=Jo%2Bnews%40B%C3%BCcher.Example&emai=a&emails=b&",
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(bodies); k++) {
        if (form(bodies[k]) != RC_OK) {
            fail_msg("%s: %s", bodies[k], errors.list[0].reason);
        }
        assert_string_equal(msg.code, "twitter-reg1");
        assert_string_equal(msg.email, EMAIL);
    }
}

static void
codes_are_taken_at_their_bounds_only(void **state)
{
    static const char good_form[] = "email=a%40b.co";
    static const char good_json[] = "{\"Email\":\"a@b.co\"}";
    static const struct {
        const char *code;
        bool valid;
    } cases[] = {
        {"a", true},
        {"0", true},
        {"-", true},
        {CODE_64, true},
        {"twitter-reg1", true},
        {"", false},
        {CODE_64 "a", false},
        {"A", false},
        {"a_b", false},
        {"a b", false},
        {"a/b", false},
        {"a.b", false},
        {"\xc3\xa4", false},
        {"a\n", false},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(cases); k++) {
        enum rc expected = cases[k].valid ? RC_OK : RC_INVALID;

        assert_int_equal(invitation_code_valid(cases[k].code), cases[k].valid);
        assert_int_equal(decode_request(invitation_msg_from_form, cases[k].code,
                                        good_form, strlen(good_form)),
                         expected);
        assert_int_equal(decode_request(invitation_msg_from_request,
                                        cases[k].code, good_json,
                                        strlen(good_json)),
                         expected);
        if (!cases[k].valid) {
            assert_told("code", CODE_REASON);
        }
    }
}

static void
a_bad_address_is_told_in_the_field(void **state)
{
    static const struct {
        const char *json;
        const char *form;
        const char *reason;
    } cases[] = {
        {"", "", "An e-mail address is needed."},
        {"  ", "++", "An e-mail address is needed."},
        {"user", "user", "There must be exactly one @."},
        {"a@b.co\\r\\nBcc: c@d.ef", "a@b.co%0D%0ABcc:+c@d.ef",
         "There must be no line break or control character in it."},
        {"u ser@b.co", "u+ser%40b.co", "There must be no blank in it."},
        {"user@localhost", "user%40localhost",
         "The domain must have a dot in it (example.com)."},
    };
    char body[256];

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(cases); k++) {
        (void)snprintf(body, sizeof(body), "{\"email\":\"%s\"}", cases[k].json);
        assert_int_equal(json(body), RC_INVALID);
        assert_told("Email", cases[k].reason);
        (void)snprintf(body, sizeof(body), "email=%s", cases[k].form);
        assert_int_equal(form(body), RC_INVALID);
        assert_told("Email", cases[k].reason);
    }
    assert_int_equal(form("email=a%00@b.co"), RC_INVALID);
    assert_told("Email",
                "There must be no line break or control character in it.");
    assert_int_equal(form("email=a%FF@b.co"), RC_INVALID);
    assert_told("Email", "It is not valid text (UTF-8).");
}

static void
what_is_no_document_is_told_so(void **state)
{
    static const struct {
        const char *body;
        const char *field;
    } cases[] = {
        {"", ""},
        {"{", ""},
        {"[]", ""},
        {"\"a@b.co\"", ""},
        {"email=a%40b.co", ""},
        {"{\"Email\":\"a@b.co\\u0000\"}", ""},
        {"{\"Email\":\"\\ud800@b.co\"}", ""},
        {"{}", "Email"},
        {"{\"mail\":\"a@b.co\"}", "Email"},
        {"{\"Email\":null}", "Email"},
        {"{\"Email\":[\"a@b.co\"]}", "Email"},
        {"{\"Email\":\"a@b.co\",\"email\":\"a@b.co\"}", "Email"},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(cases); k++) {
        assert_int_equal(json(cases[k].body), RC_INVALID);
        assert_string_equal(errors.list[0].field, cases[k].field);
    }
}

static void
what_is_no_form_is_told_so(void **state)
{
    static const struct {
        const char *body;
        const char *field;
        const char *reason;
    } cases[] = {
        {"", "Email", "is missing"},
        {"x=1", "Email", "is missing"},
        {"emai=a%40b.co", "Email", "is missing"},
        {"emails=a%40b.co", "Email", "is missing"},
        {"{\"Email\":\"a@b.co\"}", "Email", "is missing"},
        {"email=a%40b.co&Email=a%40b.co", "Email", "appears more than once"},
        {"email", "Email", "An e-mail address is needed."},
        {"email=a%4", "", "not valid form data at byte 7"},
        {"email=a%", "", "not valid form data at byte 7"},
        {"email=a%4gb.co", "", "not valid form data at byte 7"},
        {"email=a%%40b.co", "", "not valid form data at byte 7"},
        {"email=a@b.co&x=%", "", "not valid form data at byte 15"},
        {"%=1&email=a@b.co", "", "not valid form data at byte 0"},
        {"email=a@b.co\r\n", "", "not valid form data at byte 12"},
        {"email=a @b.co", "", "not valid form data at byte 7"},
        {"email=\xc3\xb6@b.co", "", "not valid form data at byte 6"},
        {"email=a@b.co\x7f", "", "not valid form data at byte 12"},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(cases); k++) {
        assert_int_equal(form(cases[k].body), RC_INVALID);
        assert_told(cases[k].field, cases[k].reason);
    }
    assert_int_equal(
        decode_request(invitation_msg_from_form, "a", "email=a@b.co\0&x", 15),
        RC_INVALID);
    assert_told("", "not valid form data at byte 12");
}

/* What is typed is decoded into 1024 bytes. */
static void
a_long_value_is_too_long_and_a_long_neighbour_is_not(void **state)
{
    char value[1100];
    char body[2400];

    (void)state;
    for (int more = 0; more < 2; more++) {
        memset(value, ' ', sizeof(value));
        (void)snprintf(value + 1023 - 6 + more, 7, "a@b.co");
        (void)snprintf(body, sizeof(body), "{\"Email\":\"%s\"}", value);
        assert_int_equal(json(body), more == 0 ? RC_OK : RC_INVALID);
    }
    assert_told("Email", TOO_LONG);
    for (int more = 0; more < 2; more++) {
        memset(value, '+', sizeof(value));
        (void)snprintf(value + 1024 - 6 + more, 7, "a@b.co");
        (void)snprintf(body, sizeof(body), "email=%s", value);
        assert_int_equal(form(body), more == 0 ? RC_OK : RC_INVALID);
    }
    assert_told("Email", TOO_LONG);
    (void)snprintf(body, sizeof(body), "%s=%s&email=a@b.co", value, value);
    assert_int_equal(form(body), RC_OK);
    assert_string_equal(msg.email, "a@b.co");
}

static void
many_values_are_refused(void **state)
{
    struct text t = {0};

    (void)state;
    text_puts(&t, "{\"x\":[0");
    for (int k = 0; k < 100; k++) {
        text_puts(&t, ",0");
    }
    text_puts(&t, "]}");
    assert_int_equal(json(text_cstr(&t)), RC_INVALID);
    assert_told("", "at most 64 values, these are more");
    text_free(&t);
}

/* ---- the journal's form -----------------------------------------------------
 */

static enum rc
decode(const char *body, size_t bytes)
{
    char *copy = malloc(bytes + 1);
    enum rc rc;

    assert_non_null(copy);
    memcpy(copy + 1, body, bytes);
    memset(&msg, 0x5a, sizeof(msg));
    rc = invitation_msg_decode(copy + 1, bytes, &msg);
    free(copy);
    if (rc != RC_OK) {
        assert_memory_equal(&msg, &empty, sizeof(msg));
    }
    return rc;
}

static void
the_journal_form_comes_back(void **state)
{
    struct invitation_msg given = {.code = CODE_64, .email = EMAIL};
    struct text t = {0};

    (void)state;
    invitation_msg_encode(&given, &t);
    assert_string_equal(text_cstr(&t), CODE_64 " " EMAIL);
    assert_int_equal(decode(text_cstr(&t), t.bytes), RC_OK);
    assert_memory_equal(&msg, &given, sizeof(msg));
    text_free(&t);
}

static void
a_damaged_journal_form_is_refused(void **state)
{
    static const char *const forms[] = {
        "",
        " ",
        "a",
        "a ",
        "a@b.co",
        " a a@b.co",
        "a  a@b.co",
        "a a@b.co ",
        "a a@b.co\n",
        "a\ta@b.co",
        "a \ta@b.co",
        "a a@b.co b",
        "A a@b.co",
        CODE_64 "a a@b.co",
        "a a@b",
        "a a@@b.co",
        "a \xff@b.co",
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(forms); k++) {
        assert_int_equal(decode(forms[k], strlen(forms[k])), RC_INVALID);
    }
    assert_int_equal(decode("a a@b.co\0", 9), RC_INVALID);
    assert_int_equal(decode("a\0 a@b.co", 9), RC_INVALID);
    assert_int_equal(decode("a a@b.co", 8), RC_OK);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_documents_are_taken),
        cmocka_unit_test(good_forms_are_taken),
        cmocka_unit_test(codes_are_taken_at_their_bounds_only),
        cmocka_unit_test(a_bad_address_is_told_in_the_field),
        cmocka_unit_test(what_is_no_document_is_told_so),
        cmocka_unit_test(what_is_no_form_is_told_so),
        cmocka_unit_test(a_long_value_is_too_long_and_a_long_neighbour_is_not),
        cmocka_unit_test(many_values_are_refused),
        cmocka_unit_test(the_journal_form_comes_back),
        cmocka_unit_test(a_damaged_journal_form_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
