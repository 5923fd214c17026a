/* fcgi/request.c: targets, query parameters, media types, headers. */
#include "fcgi/request.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

struct target {
    const char *uri;
    enum rc rc;
    const char *path;
    const char *query;
};

static const struct target targets[] = {
    {"/", RC_OK, "/", ""},
    {"/objects/7", RC_OK, "/objects/7", ""},
    {"/objects?after=1&limit=2", RC_OK, "/objects", "after=1&limit=2"},
    {"/objects?a?b", RC_OK, "/objects", "a?b"},
    {"/objects?", RC_OK, "/objects", ""},
    {"/objects#x", RC_OK, "/objects", ""},
    {"/%6Fbjects", RC_OK, "/objects", ""},
    {"/%6fbj%C3%A9", RC_OK, "/obj\xc3\xa9", ""},
    {"/a+b", RC_OK, "/a+b", ""},
    {"/a%2Fb", RC_OK, "/a/b", ""},
    {"http://host:9090/callback?x", RC_OK, "/callback", "x"},
    {"HTTPS://host/callback", RC_OK, "/callback", ""},
    {"http://host", RC_INVALID, "", ""},
    {"", RC_INVALID, "", ""},
    {"*", RC_INVALID, "", ""},
    {"callback", RC_INVALID, "", ""},
    {"/%", RC_INVALID, "", ""},
    {"/%4", RC_INVALID, "", ""},
    {"/%4g", RC_INVALID, "", ""},
    {"/%00", RC_INVALID, "", ""},
    {"/a%0a", RC_INVALID, "", ""},
    {"/a\nb", RC_INVALID, "", ""},
    {"/%7f", RC_INVALID, "", ""},
};

static void
targets_are_decoded_strictly(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(targets); k++) {
        char path[64];
        const char *query;

        if (request_path(targets[k].uri, path, sizeof(path), &query) !=
            targets[k].rc) {
            fail_msg("%s", targets[k].uri);
        }
        assert_string_equal(path, targets[k].path);
        assert_string_equal(query, targets[k].query);
    }
}

static void
path_stops_at_its_bound(void **state)
{
    char path[5];
    const char *query;

    (void)state;
    assert_int_equal(request_path("/abc", path, sizeof(path), &query), RC_OK);
    assert_string_equal(path, "/abc");
    assert_int_equal(request_path("/abcd", path, sizeof(path), &query),
                     RC_FULL);
    assert_string_equal(path, "");
}

struct parameter {
    const char *query;
    const char *name;
    enum rc rc;
    const char *value;
};

static const struct parameter parameters[] = {
    {"", "after", RC_AGAIN, ""},
    {"after=17", "after", RC_OK, "17"},
    {"limit=3&after=17", "after", RC_OK, "17"},
    {"limit=3&after=17", "limit", RC_OK, "3"},
    {"after=", "after", RC_OK, ""},
    {"after", "after", RC_AGAIN, ""},
    {"afterwards=1", "after", RC_AGAIN, ""},
    {"xafter=1", "after", RC_AGAIN, ""},
    {"after=a+b%20c", "after", RC_OK, "a b c"},
    {"&&after=1&&", "after", RC_OK, "1"},
    {"after=1=2", "after", RC_OK, "1=2"},
    {"after=%", "after", RC_INVALID, ""},
    {"after=%4", "after", RC_INVALID, ""},
    {"after=%00", "after", RC_INVALID, ""},
    {"after=1&after=1", "after", RC_INVALID, ""},
    {"after=1234567", "after", RC_OK, "1234567"},
    {"after=12345678", "after", RC_INVALID, ""},
};

static void
query_parameters_are_found_and_decoded(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(parameters); k++) {
        const struct request request = {.query = parameters[k].query};
        char value[8];

        if (request_query(&request, parameters[k].name, value, sizeof(value)) !=
            parameters[k].rc) {
            fail_msg("%s", parameters[k].query);
        }
        assert_string_equal(value, parameters[k].value);
    }
}

struct media {
    const char *type;
    const char *body;
    bool json;
};

static const struct media medias[] = {
    {"", "{}", true},
    {"", "anything", true},
    {"application/json", "{}", true},
    {"Application/JSON", "{}", true},
    {"application/json; charset=utf-8", "{}", true},
    {"application/json;charset=\"UTF-8\"", "{}", true},
    {" application/json ; version=1", "{}", true},
    {"application/json; charset=latin1", "{}", false},
    {"application/json5", "{}", false},
    {"application/jsonx; a=b", "{}", false},
    {"text/plain", "{}", false},
    {"text/json", "{}", false},
    {"application/x-www-form-urlencoded", "{}", true},
    {"application/x-www-form-urlencoded", " \r\n\t{}", true},
    {"application/x-www-form-urlencoded; charset=x", "{}", true},
    {"application/x-www-form-urlencoded", "", true},
    {"application/x-www-form-urlencoded", "a=b", false},
    {"application/x-www-form-urlencoded", "[1]", false},
    {"multipart/form-data; boundary=x", "{}", false},
};

static void
media_types_follow_the_rule(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(medias); k++) {
        const struct request request = {.content_type = medias[k].type,
                                        .body = medias[k].body,
                                        .body_bytes = strlen(medias[k].body)};

        if (request_is_json(&request) != medias[k].json) {
            fail_msg("%s", medias[k].type);
        }
    }
}

static void
forms_are_told_from_json(void **state)
{
    static const struct {
        const char *type;
        const char *body;
        bool form;
    } table[] = {
        {"application/x-www-form-urlencoded", "email=a%40b.c", true},
        {"application/x-www-form-urlencoded", "", true},
        {"Application/X-WWW-Form-Urlencoded; charset=UTF-8", "a=b", true},
        {"application/x-www-form-urlencoded; charset=latin1", "a=b", false},
        {"application/x-www-form-urlencoded", "{\"Email\": 1}", false},
        {"application/x-www-form-urlencoded", "\r\n {}", false},
        {"application/x-www-form-urlencodedx", "a=b", false},
        {"multipart/form-data; boundary=x", "a=b", false},
        {"application/json", "a=b", false},
        {"", "a=b", false},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(table); k++) {
        const struct request request = {.content_type = table[k].type,
                                        .body = table[k].body,
                                        .body_bytes = strlen(table[k].body)};

        if (request_is_form(&request) != table[k].form) {
            fail_msg("%s, %s", table[k].type, table[k].body);
        }
    }
}

static void
accept_headers_choose_between_html_and_json(void **state)
{
    static const struct {
        const char *accept;
        bool html;
    } table[] = {
        {"", false},
        {"*/*", false},
        {"text/html", true},
        {"TEXT/HTML", true},
        {"text/*", true},
        {"text/html,application/xhtml+xml,application/xml;q=0.9,"
         "image/avif,image/webp,*/*;q=0.8",
         true},
        {"text/html, text/plain, text/sgml, */*;q=0.01", true},
        {"text/html, application/json", false},
        {"application/json, text/html;q=0.9", false},
        {"application/json;q=0.5, text/html;q=0.9", true},
        {"text/html ; level=1 ; q=0.2, */*;q=0.1", true},
        {"text/html;q=0.1, */*", false},
        {"text/html;q=0, */*;q=0.5", false},
        {"application/problem+json;q=0.9, text/html;q=0.8", false},
        {"application/*, text/html;q=0.9", false},
        {"text/html;q=0.333, application/json;q=0.334", false},
        {"text/html;q=1.000", true},
        {"text/htmlx", false},
        {"text", false},
        {",,, ,", false},
        {"text/html;q=", false},
        {"text/html;;;", true},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(table); k++) {
        const struct request request = {.accept = table[k].accept};

        if (request_prefers_html(&request) != table[k].html) {
            fail_msg("%s", table[k].accept);
        }
    }
}

static void
idempotency_keys_are_1_to_255_visible_characters(void **state)
{
    char key[257];

    (void)state;
    memset(key, 'k', sizeof(key));
    key[255] = '\0';
    assert_true(request_key_is_valid(key));
    key[255] = 'k';
    key[256] = '\0';
    assert_false(request_key_is_valid(key));
    assert_true(request_key_is_valid("!~"));
    assert_false(request_key_is_valid(""));
    assert_false(request_key_is_valid("a b"));
    assert_false(request_key_is_valid("a\tb"));
    assert_false(request_key_is_valid("\xc3\xa9"));
    assert_false(request_key_is_valid("\x7f"));
}

static void
request_ids_are_1_to_128_plain_characters(void **state)
{
    char id[130];

    (void)state;
    memset(id, 'x', sizeof(id));
    id[128] = '\0';
    assert_true(request_id_is_valid(id));
    id[128] = 'x';
    id[129] = '\0';
    assert_false(request_id_is_valid(id));
    assert_true(request_id_is_valid("A.b_c-9"));
    assert_false(request_id_is_valid(""));
    assert_false(request_id_is_valid("a b"));
    assert_false(request_id_is_valid("a\r\nSet-Cookie: x"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets_are_decoded_strictly),
        cmocka_unit_test(path_stops_at_its_bound),
        cmocka_unit_test(query_parameters_are_found_and_decoded),
        cmocka_unit_test(media_types_follow_the_rule),
        cmocka_unit_test(forms_are_told_from_json),
        cmocka_unit_test(accept_headers_choose_between_html_and_json),
        cmocka_unit_test(idempotency_keys_are_1_to_255_visible_characters),
        cmocka_unit_test(request_ids_are_1_to_128_plain_characters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
