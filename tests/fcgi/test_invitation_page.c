/* fcgi/invitation_page.c: what the pages hold, that nothing typed gets out of
 * its place, and that the policy fits the style. */
#include "fcgi/invitation_page.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/hash.h"

#define HASH_TEXT_BYTES 45 /* 44 of base64, NUL */

static void
expect(const struct text *page, const char *part)
{
    assert_false(text_failed(page));
    if (strstr(text_cstr(page), part) == NULL) {
        fail_msg("%s\nis not in\n%s", part, text_cstr(page));
    }
}

static void
expect_none(const struct text *page, const char *part)
{
    if (strstr(text_cstr(page), part) != NULL) {
        fail_msg("%s\nis in\n%s", part, text_cstr(page));
    }
}

static void
special_characters_are_escaped(void **state)
{
    static const struct {
        const char *typed;
        const char *shown;
    } table[] = {
        {"", ""},
        {"jo@example.com", "jo@example.com"},
        {"\"><script>alert('&')</script>",
         "&quot;&gt;&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;"},
        {"&amp;", "&amp;amp;"},
        {"j\xc3\xb6rg@m\xc3\xbcnchen.de", "j\xc3\xb6rg@m\xc3\xbcnchen.de"},
        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
        {"a\xff\x62", "a\xef\xbf\xbd\x62"},
        {"\xc3", "\xef\xbf\xbd"},
        {"\xc0\xbc", "\xef\xbf\xbd\xef\xbf\xbd"}, /* an overlong '<' */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"a\x01\x7f\x1b", "a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"a\tb\nc", "a\tb\nc"},
        {"\r", "\xef\xbf\xbd"},
    };
    struct text out = {0};

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(table); k++) {
        text_reset(&out);
        invitation_page_escape(&out, table[k].typed);
        assert_string_equal(text_cstr(&out), table[k].shown);
    }
    text_free(&out);
}

static void
form_is_empty_at_first(void **state)
{
    struct text page = {0};

    (void)state;
    invitation_page_form(&page, "twitter-reg1", "", NULL);
    expect(&page, "<!DOCTYPE html>\n<html lang=\"en\">");
    expect(&page, "<form method=\"post\" action=\"twitter-reg1\">");
    expect(&page, "<label for=\"email\">");
    expect(&page, "<input id=\"email\" name=\"email\" type=\"text\" "
                  "inputmode=\"email\" autocomplete=\"email\" ");
    expect(&page, " aria-describedby=\"email-hint\" value=\"\">");
    expect(&page, "<strong>twitter-reg1</strong>");
    expect_none(&page, "aria-invalid=");
    expect_none(&page, "id=\"email-error\"");
    expect_none(&page, "autofocus");
    text_free(&page);
}

static void
form_again_keeps_what_was_typed_and_says_why(void **state)
{
    struct text page = {0};

    (void)state;
    invitation_page_form(
        &page, "a", "\"jo\" <x@y>",
        &(struct field_error){.field = "Email", .reason = "There is no @."});
    expect(&page, "<title>Error: ");
    expect(&page, "<p id=\"email-error\">There is no @.</p>\n<input");
    expect(&page, "aria-describedby=\"email-hint email-error\" "
                  "aria-invalid=\"true\" autofocus");
    expect(&page, " value=\"&quot;jo&quot; &lt;x@y&gt;\">");
    text_reset(&page);
    invitation_page_form(
        &page, "a", "",
        &(struct field_error){.field = "Email", .reason = "is missing"});
    expect(&page, "<p id=\"email-error\">The address is missing.</p>");
    text_reset(&page);
    invitation_page_form(
        &page, "a", "",
        &(struct field_error){.field = "Email", .reason = "No <b> & \"c\""});
    expect(&page, "No &lt;b&gt; &amp; &quot;c&quot;</p>");
    text_free(&page);
}

static void
form_that_cannot_be_read_is_told_in_a_sentence(void **state)
{
    struct text page = {0};

    (void)state;
    invitation_page_form(
        &page, "a", "",
        &(struct field_error){.field = "",
                              .reason = "not valid form data at byte 7"});
    expect(&page, "<title>Error: ");
    expect(&page, "<p id=\"email-error\">The form could not be read: not valid "
                  "form data at byte 7.</p>\n<input");
    text_free(&page);
}

static void
thanks_lead_back_to_the_form(void **state)
{
    struct text page = {0};

    (void)state;
    invitation_page_thanks(&page, "twitter-reg1");
    expect(&page, "<h1>Thank you</h1>");
    expect(&page, "<a href=\"twitter-reg1\">");
    text_free(&page);
}

static void
errors_have_words_for_every_status(void **state)
{
    static const int statuses[] = {400, 404, 405, 408, 411, 413, 414,
                                   415, 422, 431, 500, 503, 599};
    struct text page = {0};

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(statuses); k++) {
        text_reset(&page);
        invitation_page_error(&page, statuses[k], NULL);
        expect(&page, "<h1>");
        expect(&page, "</html>\n");
        expect_none(&page, "<a ");
        invitation_page_error(&page, statuses[k], "code-1");
        expect(&page, "<a href=\"code-1\">To the form</a>");
    }
    text_reset(&page);
    invitation_page_error(&page, 503, NULL);
    expect(&page, "Please try again in a moment");
    text_free(&page);
}

static void
base64(const uint8_t hash[HASH_BYTES], char out[HASH_TEXT_BYTES])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "abcdefghijklmnopqrstuvwxyz0123456789+/";

    for (size_t k = 0; k < HASH_TEXT_BYTES - 2; k++) {
        size_t bit = k * 6;
        unsigned two = (unsigned)hash[bit / 8] << 8;

        two |= bit / 8 + 1 < HASH_BYTES ? hash[bit / 8 + 1] : 0;
        out[k] = digits[(two >> (10 - bit % 8)) & 63];
    }
    out[HASH_TEXT_BYTES - 2] = '=';
    out[HASH_TEXT_BYTES - 1] = '\0';
}

static void
policy_names_the_style_that_the_pages_have(void **state)
{
    struct text page = {0};
    uint8_t hash[HASH_BYTES];
    char text[HASH_TEXT_BYTES];
    const char *style;
    const char *end;

    (void)state;
    invitation_page_thanks(&page, "a");
    style = strstr(text_cstr(&page), "<style>");
    end = strstr(text_cstr(&page), "</style>");
    assert_non_null(style);
    assert_non_null(end);
    style += strlen("<style>");
    assert_int_equal(hash_sha256(style, (size_t)(end - style), hash), RC_OK);
    base64(hash, text);
    if (strstr(invitation_page_policy(), text) == NULL) {
        fail_msg("the style's hash is sha256-%s", text);
    }
    text_free(&page);
}

static void
policy_allows_nothing_else(void **state)
{
    struct text page = {0};

    (void)state;
    assert_non_null(strstr(invitation_page_policy(), "default-src 'none'; "));
    assert_non_null(strstr(invitation_page_policy(), "form-action 'self'"));
    assert_non_null(strstr(invitation_page_policy(), "frame-ancestors 'none'"));
    assert_non_null(strstr(invitation_page_policy(), "base-uri 'none'"));
    assert_null(strstr(invitation_page_policy(), "unsafe"));
    invitation_page_form(&page, "a", "", NULL);
    expect_none(&page, "<script");
    expect_none(&page, "style=");
    expect_none(&page, "<link");
    expect_none(&page, "<img");
    text_free(&page);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(special_characters_are_escaped),
        cmocka_unit_test(form_is_empty_at_first),
        cmocka_unit_test(form_again_keeps_what_was_typed_and_says_why),
        cmocka_unit_test(form_that_cannot_be_read_is_told_in_a_sentence),
        cmocka_unit_test(thanks_lead_back_to_the_form),
        cmocka_unit_test(errors_have_words_for_every_status),
        cmocka_unit_test(policy_names_the_style_that_the_pages_have),
        cmocka_unit_test(policy_allows_nothing_else),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
