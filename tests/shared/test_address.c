/* shared/address.c */
#include "shared/address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define A10 "aaaaaaaaaa"
#define A60 A10 A10 A10 A10 A10 A10
#define A50 A10 A10 A10 A10 A10
#define A63 A60 "aaa"
#define A64 A60 "aaaa"
/* 3 * 64 - 1 + 1 = 192 with the dot, and more labels. */
#define D192 A63 "." A63 "." A63 "."
#define JOERG "j\xc3\xb6rg"
#define OE8 "\xc3\x96\xc3\x96\xc3\x96\xc3\x96\xc3\x96\xc3\x96\xc3\x96\xc3\x96"
#define OE32 OE8 OE8 OE8 OE8
#define OE_SMALL8                                                              \
    "\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6\xc3\xb6"
#define OE_SMALL32 OE_SMALL8 OE_SMALL8 OE_SMALL8 OE_SMALL8
/* A with a stroke: 2 bytes, and 3 in lower case. */
#define A_STROKE7 "\xc8\xba\xc8\xba\xc8\xba\xc8\xba\xc8\xba\xc8\xba\xc8\xba"
#define A_STROKE21 A_STROKE7 A_STROKE7 A_STROKE7
#define BUECHER                                                                \
    "b\xc3\xbc"                                                                \
    "cher"

/* In the order of the checks. */
#define NEEDED "An e-mail address is needed."
#define CONTROL "There must be no line break or control character in it."
#define NOT_UTF8 "It is not valid text (UTF-8)."
#define NAMED "Only the address itself, please: no name, no < and >."
#define QUOTED "Addresses with quotation marks are not taken."
#define BLANK "There must be no blank in it."
#define ONE_AT "There must be exactly one @."
#define NO_LOCAL "There must be something before the @."
#define LOCAL_LONG "The part before the @ is too long (at most 64 bytes)."
#define LOCAL_DOT "The part before the @ must not begin or end with a dot."
#define TWO_DOTS "There must be no two dots in a row."
#define UNSEEN "There is a character in it that cannot be seen."
#define LOCAL_BAD "There is a character before the @ that is not allowed."
#define NO_DOMAIN "There must be a domain behind the @."
#define LITERAL "The domain must be a name, not a number in brackets."
#define DOMAIN_LONG "The part behind the @ is too long (at most 255 bytes)."
#define DOMAIN_DOT "The domain must not begin or end with a dot."
#define NO_NAME "The part behind the @ is not a domain name."
#define IDN_LONG "The domain, or a part of it, is too long."
#define LABEL_LONG "A part of the domain is too long (at most 63 bytes)."
#define HYPHEN "No part of the domain may begin or end with a hyphen."
#define DOMAIN_BAD "There is a character in the domain that is not allowed."
#define NO_DOT "The domain must have a dot in it (example.com)."
#define NUMBER "The domain must not end with a number."
#define LONG "The address is too long (at most 254 bytes)."

struct good {
    const char *typed;
    const char *key;
    const char *mailbox; /* NULL: as typed */
};

/* clang-format off */
static const struct good good[] = {
    {"user@example.com", "user@example.com", NULL},
    {"User.Name@Example.COM", "user.name@example.com",
     "User.Name@example.com"},
    {"a@b.co", "a@b.co", NULL},
    {"1@2.de", "1@2.de", NULL},
    {"user+tag@example.com", "user+tag@example.com", NULL},
    {"+@example.com", "+@example.com", NULL},
    {"!#$%&'*+-/=?^_`{|}~@example.com",
     "!#$%&'*+-/=?^_`{|}~@example.com", NULL},
    {"o'brien@example.ie", "o'brien@example.ie", NULL},
    {"a.b.c.d@example.com", "a.b.c.d@example.com", NULL},
    {"-@example.com", "-@example.com", NULL},
    {"user@sub.sub.example.co.uk", "user@sub.sub.example.co.uk", NULL},
    {"user@3com.com", "user@3com.com", NULL},
    {"user@1.2.3.example", "user@1.2.3.example", NULL},
    {"user@a-b--c.example", "user@a-b--c.example", NULL},
    {"user@r3---sn.example.com", "user@r3---sn.example.com", NULL},
    {"user@example.x1", "user@example.x1", NULL},
    {A64 "@example.com", A64 "@example.com", NULL},
    {"user@" A63 ".example", "user@" A63 ".example", NULL},
    /* 254 in all: 1 + 1 + 192 + 60. */
    {"u@" D192 A60, "u@" D192 A60, NULL},
    /* The domain in other scripts and forms. */
    {"user@" BUECHER ".example", "user@xn--bcher-kva.example",
     "user@xn--bcher-kva.example"},
    {"user@B\xc3\x9c" "CHER.Example", "user@xn--bcher-kva.example",
     "user@xn--bcher-kva.example"},
    {"user@bu\xcc\x88" "cher.example", "user@xn--bcher-kva.example",
     "user@xn--bcher-kva.example"},
    {"user@XN--BCHER-KVA.example", "user@xn--bcher-kva.example",
     "user@xn--bcher-kva.example"},
    {"user@stra\xc3\x9f" "e.example", "user@xn--strae-oqa.example",
     "user@xn--strae-oqa.example"},
    {"user@\xe4\xbe\x8b\xe3\x81\x88.\xe3\x83\x86\xe3\x82\xb9\xe3\x83\x88",
     "user@xn--r8jz45g.xn--zckzah", "user@xn--r8jz45g.xn--zckzah"},
    /* An ideographic full stop, and full-width letters, are the same name. */
    {"user@example\xe3\x80\x82" "com", "user@example.com",
     "user@example.com"},
    {"user@\xef\xbd\x85xample.com", "user@example.com", "user@example.com"},
    {"user@\xd0\xbf\xd1\x80\xd0\xb8\xd0\xbc\xd0\xb5\xd1\x80.\xd1\x80\xd1\x84",
     "user@xn--e1afmkfd.xn--p1ai", "user@xn--e1afmkfd.xn--p1ai"},
    /* The local part beyond ASCII: one person in either case, composed or
     * not; it is sent to as typed. */
    {JOERG "@example.com", JOERG "@example.com", NULL},
    {"J\xc3\x96RG@example.com", JOERG "@example.com", NULL},
    {"jo\xcc\x88rg@example.com", JOERG "@example.com", NULL},
    {"JO\xcc\x88RG@example.com", JOERG "@example.com", NULL},
    /* Marks in either order. */
    {"q\xcc\x87\xcc\xa3@example.com", "q\xcc\xa3\xcc\x87@example.com", NULL},
    {"q\xcc\xa3\xcc\x87@example.com", "q\xcc\xa3\xcc\x87@example.com", NULL},
    /* I with a dot above, in one character and in two, is i with a second
     * dot; I without is i, and the Turkish one without is itself. */
    {"\xc4\xb0@example.com", "i\xcc\x87@example.com", NULL},
    {"I\xcc\x87@example.com", "i\xcc\x87@example.com", NULL},
    {"i\xcc\x87@example.com", "i\xcc\x87@example.com", NULL},
    {"I@example.com", "i@example.com", NULL},
    {"\xc4\xb1@example.com", "\xc4\xb1@example.com", NULL},
    /* Lower case is no case folding: sharp s is not ss, but sharp S is. */
    {"\xc3\x9f@example.com", "\xc3\x9f@example.com", NULL},
    {"\xe1\xba\x9e@example.com", "\xc3\x9f@example.com", NULL},
    /* A sigma at the end of a word; Cyrillic; the Kelvin sign. */
    {"\xce\xa3\xce\x91\xce\xa3@example.com",
     "\xcf\x83\xce\xb1\xcf\x82@example.com", NULL},
    {"\xd0\x98\xd0\x92\xd0\x90\xd0\x9d@example.com",
     "\xd0\xb8\xd0\xb2\xd0\xb0\xd0\xbd@example.com", NULL},
    {"\xe2\x84\xaa@example.com", "k@example.com", NULL},
    /* 32 letters of 2 bytes are 64. */
    {OE32 "@example.com", OE_SMALL32 "@example.com", NULL},
    {JOERG "@" BUECHER ".example", JOERG "@xn--bcher-kva.example",
     JOERG "@xn--bcher-kva.example"},
    {"\xe7\x94\xb0\xe4\xb8\xad@example.jp", "\xe7\x94\xb0\xe4\xb8\xad@"
     "example.jp", NULL},
    {"\xf0\x9f\x98\x80@example.com", "\xf0\x9f\x98\x80@example.com", NULL},
};

struct bad {
    const char *typed;
    const char *why;
};

static const struct bad bad[] = {
    {"", NEEDED},
    {" \t ", NEEDED},
    {"user", ONE_AT},
    {"user.example.com", ONE_AT},
    {"user@@example.com", ONE_AT},
    {"a@b@example.com", ONE_AT},
    {"user\xef\xbc\xa0" "example.com", ONE_AT},
    {"us\xef\xbc\xa0" "er@example.com", ONE_AT},
    {"us\xef\xb9\xab" "er@example.com", ONE_AT},
    {"a@example.com,b@example.com", ONE_AT},
    {"@", NO_LOCAL},
    {"@example.com", NO_LOCAL},
    {"user@", NO_DOMAIN},
    {".user@example.com", LOCAL_DOT},
    {"user.@example.com", LOCAL_DOT},
    {".@example.com", LOCAL_DOT},
    {"us..er@example.com", TWO_DOTS},
    {"user@example..com", TWO_DOTS},
    {"user@.example.com", DOMAIN_DOT},
    {"user@example.com.", DOMAIN_DOT},
    {"user@.", DOMAIN_DOT},
    {"us er@example.com", BLANK},
    {"user @example.com", BLANK},
    {"user@ example.com", BLANK},
    {"user@exam ple.com", BLANK},
    {"us\ter@example.com", CONTROL},
    {"user@example.com\n", CONTROL},
    {"\nuser@example.com", CONTROL},
    {"user@example.com\r\nBcc: x@example.com", CONTROL},
    {"user\r\n@example.com", CONTROL},
    {"us\x01" "er@example.com", CONTROL},
    {"us\x7f" "er@example.com", CONTROL},
    {"user@example.com\x1b[0m", CONTROL},
    {"us\x80" "er@example.com", NOT_UTF8},
    {"us\xc3@example.com", NOT_UTF8},
    {"us\xc0\xaf" "er@example.com", NOT_UTF8},
    {"us\xed\xa0\x80" "er@example.com", NOT_UTF8},
    {"us\xf4\x90\x80\x80" "er@example.com", NOT_UTF8},
    {"user@b\xfc" "cher.example", NOT_UTF8},
    {"user@example.com\xe2\x82", NOT_UTF8},
    {"Jo <user@example.com>", NAMED},
    {"<user@example.com>", NAMED},
    {"\"jo smith\"@example.com", QUOTED},
    {"\"user\"@example.com", QUOTED},
    {"user(home)@example.com", LOCAL_BAD},
    {"us,er@example.com", LOCAL_BAD},
    {"us;er@example.com", LOCAL_BAD},
    {"us:er@example.com", LOCAL_BAD},
    {"us\\er@example.com", LOCAL_BAD},
    {"us[er@example.com", LOCAL_BAD},
    {"us\xc2\x85" "er@example.com", UNSEEN},
    {"us\xc2\xa0" "er@example.com", UNSEEN},
    {"us\xc2\xad" "er@example.com", UNSEEN},
    {"us\xe2\x80\x8b" "er@example.com", UNSEEN},
    {"us\xe2\x80\xae" "er@example.com", UNSEEN},
    {"us\xe2\x80\xa8" "er@example.com", UNSEEN},
    {"us\xe3\x80\x80" "er@example.com", UNSEEN},
    {"us\xef\xbb\xbf" "er@example.com", UNSEEN},
    {"us\xef\xbf\xbf" "er@example.com", UNSEEN},
    {"us\xf3\xa0\x80\xa1" "er@example.com", UNSEEN},
    {A64 "a@example.com", LOCAL_LONG},
    {A60 "aaa\xc3\xb6@example.com", LOCAL_LONG},
    {OE32 "a@example.com", LOCAL_LONG},
    /* 22 letters of 2 bytes are 66 in the key. */
    {A_STROKE21 "\xc8\xba@example.com", LOCAL_LONG},
    /* 252 as typed and as sent, 255 in the key. */
    {"\xc8\xba\xc8\xba\xc8\xba@" D192 A50 "aaa", LONG},
    /* The Greek question mark is a semicolon. */
    {"us\xcd\xbe" "er@example.com", LOCAL_BAD},
    {"user@[192.0.2.1]", LITERAL},
    {"user@[IPv6:2001:db8::1]", LITERAL},
    {"user@localhost", NO_DOT},
    {"user@com", NO_DOT},
    {"user@192.0.2.1", NUMBER},
    {"user@example.123", NUMBER},
    {"user@-example.com", HYPHEN},
    {"user@example-.com", HYPHEN},
    {"user@example.-com", HYPHEN},
    {"user@exam_ple.com", DOMAIN_BAD},
    {"user@example.com,", DOMAIN_BAD},
    {"user@exam/ple.com", DOMAIN_BAD},
    {"user@example.com:25", DOMAIN_BAD},
    {"user@exam%70le.com", DOMAIN_BAD},
    {"user@" A64 ".example", LABEL_LONG},
    {"user@xn--.example", NO_NAME},
    {"user@xn--bcher-kv.example", NO_NAME},
    {"user@xn--\x62\x63her-kva\xc3\xbc.example", NO_NAME},
    {"user@" BUECHER "\xe2\x80\xae.example", NO_NAME},
    {"user@\xcc\x88" BUECHER ".example", NO_NAME},
    {"user@" BUECHER "_.example", DOMAIN_BAD},
    /* 255 in all. */
    {"u@" D192 A60 "a", LONG},
    {A64 "@" D192, DOMAIN_DOT},
    /* A domain of 255 bytes is too much in all, one of 256 by itself. */
    {"u@" D192 A63, LONG},
    {"u@" D192 A63 "a", DOMAIN_LONG},
};
/* clang-format on */

static struct address address;
static const char *why;

/* Parse a copy without a byte to spare. */
static enum rc
parse(const char *typed, size_t bytes, bool fold_plus_tags)
{
    char *copy = malloc(bytes + 1);
    enum rc rc;

    assert_non_null(copy);
    memcpy(copy + 1, typed, bytes);
    memset(&address, 0x5a, sizeof(address));
    why = "unset";
    rc = address_parse(copy + 1, bytes, fold_plus_tags, &address, &why);
    free(copy);
    return rc;
}

static void
assert_refused(const char *typed, size_t bytes, const char *reason)
{
    static const struct address empty;

    if (parse(typed, bytes, false) != RC_INVALID) {
        fail_msg("%s was taken", typed);
    }
    if (why == NULL || strcmp(why, reason) != 0) {
        fail_msg("%s: %s", typed, why != NULL ? why : "no reason");
    }
    assert_memory_equal(&address, &empty, sizeof(address));
}

static void
good_addresses_are_taken_with_their_keys(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(good); k++) {
        const struct good *g = &good[k];

        if (parse(g->typed, strlen(g->typed), false) != RC_OK) {
            fail_msg("%s: %s", g->typed, why);
        }
        assert_null(why);
        assert_string_equal(address.text, g->typed);
        assert_string_equal(address.key, g->key);
        assert_string_equal(address.mailbox,
                            g->mailbox != NULL ? g->mailbox : g->typed);
    }
}

static void
bad_addresses_are_refused_with_the_reason(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(bad); k++) {
        assert_refused(bad[k].typed, strlen(bad[k].typed), bad[k].why);
    }
}

static void
a_nul_is_refused_wherever_it_is(void **state)
{
    static const char typed[] = "user@example.com";

    (void)state;
    for (size_t k = 0; k <= strlen(typed); k++) {
        char with_nul[sizeof(typed)];

        memcpy(with_nul, typed, k);
        with_nul[k] = '\0';
        memcpy(with_nul + k + 1, typed + k, strlen(typed) - k);
        assert_refused(with_nul, sizeof(typed), CONTROL);
    }
}

static void
every_ascii_character_is_taken_or_refused_as_rfc_5321_says(void **state)
{
    static const char taken[] = "!#$%&'*+-/=?^_`{|}~.";

    (void)state;
    for (int c = 0; c < 128; c++) {
        char typed[] = "us?er@example.com";
        bool expected =
            c != 0 && (strchr(taken, c) != NULL || (c >= '0' && c <= '9') ||
                       ((c | 32) >= 'a' && (c | 32) <= 'z'));

        typed[2] = (char)c;
        assert_int_equal(parse(typed, sizeof(typed) - 1, false),
                         expected ? RC_OK : RC_INVALID);
    }
}

static void
every_ascii_character_of_a_domain_is_a_letter_digit_or_hyphen(void **state)
{
    (void)state;
    for (int c = 0; c < 128; c++) {
        char typed[] = "user@exam?ple.com";
        bool expected = c == '-' || c == '.' || (c >= '0' && c <= '9') ||
                        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

        typed[9] = (char)c;
        assert_int_equal(parse(typed, sizeof(typed) - 1, false),
                         expected ? RC_OK : RC_INVALID);
    }
}

static void
blanks_around_are_trimmed(void **state)
{
    static const char typed[] = " \t User@example.com\t ";

    (void)state;
    assert_int_equal(parse(typed, strlen(typed), false), RC_OK);
    assert_string_equal(address.text, "User@example.com");
    assert_string_equal(address.key, "user@example.com");
    assert_refused("   ", 3, NEEDED);
}

static void
the_limits_are_those_of_the_form_that_is_sent_too(void **state)
{
    char typed[512];

    (void)state;
    /* 27 characters of 2 bytes each are a label of xn-- and more; four of
     * them make an address that is short as typed and too long as sent. */
    (void)snprintf(typed, sizeof(typed), "%s@%s.%s.%s.example", A64,
                   BUECHER A10 A10 A10 A10 A10, BUECHER A10 A10 A10 A10 A10,
                   BUECHER A10 A10 A10 A10 A10);
    assert_true(strlen(typed) <= ADDRESS_MAX_BYTES);
    assert_refused(typed, strlen(typed), LONG);
    (void)snprintf(typed, sizeof(typed), "u@" BUECHER "%s.example", A60);
    assert_refused(typed, strlen(typed), IDN_LONG);
}

static void
tags_are_folded_in_the_key_only_and_if_asked(void **state)
{
    static const char *const folded[][2] = {
        {"User+Tag@Example.com", "user@example.com"},
        {"user+a+b@example.com", "user@example.com"},
        {"user+@example.com", "user@example.com"},
        {"+tag@example.com", "+tag@example.com"},
        {"user@example.com", "user@example.com"},
        {JOERG "+x@" BUECHER ".example", JOERG "@xn--bcher-kva.example"},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(folded); k++) {
        const char *typed = folded[k][0];

        assert_int_equal(parse(typed, strlen(typed), true), RC_OK);
        assert_string_equal(address.key, folded[k][1]);
        assert_string_equal(address.text, typed);
        assert_non_null(strchr(address.mailbox, '@'));
        assert_memory_equal(address.mailbox, typed,
                            (size_t)(strchr(typed, '@') - typed));
    }
    assert_int_equal(parse(folded[0][0], strlen(folded[0][0]), false), RC_OK);
    assert_string_equal(address.key, "user+tag@example.com");
}

static void
only_the_local_part_asks_for_smtputf8(void **state)
{
    (void)state;
    assert_int_equal(parse("a@example.com", 13, false), RC_OK);
    assert_true(address.ascii);
    assert_int_equal(parse("a@" BUECHER ".example", 17, false), RC_OK);
    assert_true(address.ascii);
    assert_int_equal(parse(JOERG "@example.com", 17, false), RC_OK);
    assert_false(address.ascii);
}

/* More bytes in the key than in what is typed, at its limits. */
static void
a_key_that_grows_is_taken_as_long_as_it_fits(void **state)
{
    static const char longest[] = A_STROKE21 "a@example.com";    /* 43, 64 */
    static const char whole[] = "\xc8\xba@" D192 A50 "aaaaaaaa"; /* 253, 254 */

    (void)state;
    assert_int_equal(parse(longest, strlen(longest), false), RC_OK);
    assert_int_equal(strchr(address.key, '@') - address.key, 64);
    assert_string_equal(address.mailbox, longest);
    assert_int_equal(parse(whole, strlen(whole), false), RC_OK);
    assert_int_equal(strlen(address.key), ADDRESS_MAX_BYTES);
    assert_string_equal(address.mailbox, whole);
    assert_refused(A_STROKE21 "aa@example.com",
                   strlen(A_STROKE21 "aa@example.com"), LOCAL_LONG);
    /* A tag that is folded does not count. */
    assert_int_equal(parse(A_STROKE21 "+a@example.com",
                           strlen(A_STROKE21 "+a@example.com"), true),
                     RC_OK);
}

static size_t
put_utf8(uint32_t c, char *out)
{
    size_t length = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;

    if (length == 1) {
        out[0] = (char)c;
        return 1;
    }
    for (size_t k = length - 1; k > 0; k--) {
        out[k] = (char)(0x80 | (c & 0x3f));
        c >>= 6;
    }
    out[0] = (char)((0xf00 >> length) | c);
    return length;
}

/* Every character, between letters and at both ends. */
static void
the_key_of_any_character_is_its_own_key(void **state)
{
    size_t taken = 0;

    (void)state;
    for (uint32_t c = '!'; c < 0x110000; c++) {
        char typed[64];
        char key[ADDRESS_BYTES];
        size_t bytes = put_utf8(c, typed);

        typed[bytes++] = 'I';
        bytes += put_utf8(c, typed + bytes);
        typed[bytes++] = 'o';
        bytes += put_utf8(c, typed + bytes);
        memcpy(typed + bytes, "@x.org", sizeof("@x.org"));
        if (parse(typed, strlen(typed), false) != RC_OK) {
            continue;
        }
        taken++;
        memcpy(key, address.key, sizeof(key));
        if (parse(key, strlen(key), false) != RC_OK ||
            strcmp(address.key, key) != 0) {
            fail_msg("U+%04X: %s, then %s", c, key, address.key);
        }
    }
    assert_true(taken > 1000000);
}

/* A key is a fixed point: parsed again it is its own key. */
static void
a_key_is_its_own_key(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(good); k++) {
        assert_int_equal(parse(good[k].key, strlen(good[k].key), false), RC_OK);
        assert_string_equal(address.key, good[k].key);
        assert_string_equal(address.mailbox, good[k].key);
    }
}

static void
a_long_text_is_read_to_its_end_and_refused(void **state)
{
    size_t bytes = (size_t)64 << 10;
    char *typed = malloc(bytes);

    (void)state;
    assert_non_null(typed);
    memset(typed, 'a', bytes);
    assert_refused(typed, bytes, ONE_AT);
    typed[bytes - 1] = '@';
    assert_refused(typed, bytes, LOCAL_LONG);
    free(typed);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_addresses_are_taken_with_their_keys),
        cmocka_unit_test(bad_addresses_are_refused_with_the_reason),
        cmocka_unit_test(a_nul_is_refused_wherever_it_is),
        cmocka_unit_test(
            every_ascii_character_is_taken_or_refused_as_rfc_5321_says),
        cmocka_unit_test(
            every_ascii_character_of_a_domain_is_a_letter_digit_or_hyphen),
        cmocka_unit_test(blanks_around_are_trimmed),
        cmocka_unit_test(the_limits_are_those_of_the_form_that_is_sent_too),
        cmocka_unit_test(tags_are_folded_in_the_key_only_and_if_asked),
        cmocka_unit_test(only_the_local_part_asks_for_smtputf8),
        cmocka_unit_test(a_key_that_grows_is_taken_as_long_as_it_fits),
        cmocka_unit_test(the_key_of_any_character_is_its_own_key),
        cmocka_unit_test(a_key_is_its_own_key),
        cmocka_unit_test(a_long_text_is_read_to_its_end_and_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
