/* dispatcher/mail_message.c */
#include "dispatcher/mail_message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PYTHON "/usr/bin/python3"
#define DATE_UNIX_MS 1795264129999 /* 2026-11-21 12:28:49.999 UTC */
#define A10 "aaaaaaaaaa"
#define A50 A10 A10 A10 A10 A10
#define E10                                                                    \
    "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"                                 \
    "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"

static const struct mail_sender sluice = {
    .name = "Sluice",
    .mailbox = "invitations@localhost",
};

static const struct mail_message example = {
    .from = &sluice,
    .to = "jo@example.com",
    .subject = "Your place",
    .id = "0189@example.com",
    .date_unix_ms = DATE_UNIX_MS,
    .text = "Hello,\n\nit is yours.\n",
    .html = "<p>It is yours.</p>\n",
};

static struct text out;

static int
free_out(void **state)
{
    (void)state;
    text_free(&out);
    return 0;
}

/* Every line ends with CRLF and has at most 76 bytes, but for a long word in
 * brackets. */
static void
assert_lines(void)
{
    const char *line = text_cstr(&out);

    while (*line != '\0') {
        size_t bytes = strcspn(line, "\r\n");

        assert_true(bytes <= 76 || line[1] == '<');
        assert_memory_equal(line + bytes, "\r\n", 2);
        line += bytes + 2;
    }
}

static const char *
compose(const struct mail_message *m)
{
    text_reset(&out);
    assert_int_equal(mail_message_compose(m, &out), RC_OK);
    assert_lines();
    return text_cstr(&out);
}

static void
a_message_is_what_it_is(void **state)
{
    (void)state;
    assert_string_equal(
        compose(&example),
        "From: Sluice <invitations@localhost>\r\n"
        "To: <jo@example.com>\r\n"
        "Subject: Your place\r\n"
        "Date: Sat, 21 Nov 2026 12:28:49 +0000\r\n"
        "Message-ID: <0189@example.com>\r\n"
        "MIME-Version: 1.0\r\n"
        "Auto-Submitted: auto-generated\r\n"
        "Content-Type: multipart/alternative; boundary=\"=_sluice\"\r\n"
        "\r\n"
        "--=_sluice\r\n"
        "Content-Type: text/plain; charset=utf-8\r\n"
        "Content-Transfer-Encoding: quoted-printable\r\n"
        "\r\n"
        "Hello,\r\n"
        "\r\n"
        "it is yours.\r\n"
        "\r\n"
        "--=_sluice\r\n"
        "Content-Type: text/html; charset=utf-8\r\n"
        "Content-Transfer-Encoding: quoted-printable\r\n"
        "\r\n"
        "<p>It is yours.</p>\r\n"
        "\r\n"
        "--=_sluice--\r\n");
}

/* The same request gives the same bytes: a repeated mail is the same mail. */
static void
a_message_composed_twice_is_the_same(void **state)
{
    char *once;

    (void)state;
    once = strdup(compose(&example));
    assert_non_null(once);
    assert_string_equal(compose(&example), once);
    free(once);
}

static void
a_message_is_appended(void **state)
{
    (void)state;
    text_reset(&out);
    text_puts(&out, "x");
    assert_int_equal(mail_message_compose(&example, &out), RC_OK);
    assert_memory_equal(text_cstr(&out), "xFrom: ", 7);
}

/* The header with the given beginning, with its folded lines. */
static void
assert_header(const struct mail_message *m, const char *header)
{
    const char *message = compose(m);
    const char *end = strstr(message, "\r\n\r\n");
    const char *at = strstr(message, header);

    if (at == NULL || at > end || (at > message && at[-1] != '\n')) {
        fail_msg("%s\nis not in\n%s", header, message);
    }
    at += strlen(header);
    assert_memory_equal(at, "\r\n", 2);
    assert_int_not_equal(at[2], ' ');
}

static void
subjects_are_as_they_are_or_encoded(void **state)
{
    static const char *const subjects[][2] = {
        {"a", "Subject: a"},
        {"You & <me>: \"50 %\"?", "Subject: You & <me>: \"50 %\"?"},
        /* 76 in all, and one more. */
        {A50 " " A10 " 12345", "Subject: " A50 " " A10 " 12345"},
        {A50 " " A10 " 123456", "Subject: " A50 " " A10 "\r\n 123456"},
        {A50 A10 " b", "Subject: " A50 A10 " b"},
        {A50 A10 "a", "Subject: =?UTF-8?Q?" A50 "aaaaa?=\r\n"
                      " =?UTF-8?Q?aaaaaa?="},
        {"F\xc3\xbcr Sie", "Subject: =?UTF-8?Q?F=C3=BCr_Sie?="},
        {"\xe4\xbe\x8b", "Subject: =?UTF-8?Q?=E4=BE=8B?="},
        {"\xf0\x9f\x98\x80", "Subject: =?UTF-8?Q?=F0=9F=98=80?="},
        /* What would be read as encoded, or lose its blanks. */
        {"=?x?=", "Subject: =?UTF-8?Q?=3D=3Fx=3F=3D?="},
        {" a", "Subject: =?UTF-8?Q?_a?="},
        {"a ", "Subject: =?UTF-8?Q?a_?="},
        {"a  b", "Subject: =?UTF-8?Q?a__b?="},
        {" ", "Subject: =?UTF-8?Q?_?="},
        {"\xc3\xa9_=?", "Subject: =?UTF-8?Q?=C3=A9=5F=3D=3F?="},
        /* A character is not split: 9 fit into 55, 10 into 63. */
        {E10 E10 E10 "x",
         "Subject: =?UTF-8?Q?=C3=A9=C3=A9=C3=A9=C3=A9=C3=A9=C3=A9=C3=A9"
         "=C3=A9=C3=A9?=\r\n"
         " =?UTF-8?Q?=C3=A9=C3=A9=C3=A9=C3=A9=C3=A9=C3=A9=C3=A9=C3=A9"
         "=C3=A9=C3=A9?=\r\n"
         " =?UTF-8?Q?=C3=A9=C3=A9=C3=A9=C3=A9=C3=A9=C3=A9=C3=A9=C3=A9"
         "=C3=A9=C3=A9?=\r\n"
         " =?UTF-8?Q?=C3=A9x?="},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(subjects); k++) {
        struct mail_message m = example;

        m.subject = subjects[k][0];
        assert_header(&m, subjects[k][1]);
    }
}

static void
names_are_as_they_are_or_encoded(void **state)
{
    static const char *const names[][2] = {
        {"", "From: <a@b>"},
        {"Sluice & Co", "From: Sluice & Co <a@b>"},
        {"Sluice, Inc.", "From: =?UTF-8?Q?Sluice=2C_Inc=2E?= <a@b>"},
        {"a@b", "From: =?UTF-8?Q?a=40b?= <a@b>"},
        {"J\xc3\xb6rg", "From: =?UTF-8?Q?J=C3=B6rg?= <a@b>"},
        {A50 " " A10 " xx", "From: " A50 " " A10 " xx <a@b>"},
        {A50 " " A10 " xxx", "From: " A50 " " A10 " xxx\r\n <a@b>"},
        {A50 A10 "a", "From: =?UTF-8?Q?" A50 "aaaaaaaa?=\r\n"
                      " =?UTF-8?Q?aaa?= <a@b>"},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(names); k++) {
        struct mail_sender sender = {.mailbox = "a@b"};
        struct mail_message m = example;

        (void)snprintf(sender.name, sizeof(sender.name), "%s", names[k][0]);
        m.from = &sender;
        assert_header(&m, names[k][1]);
    }
}

static void
addresses_are_folded_but_not_broken(void **state)
{
    struct mail_message m = example;

    (void)state;
    /* 76 in all, and one more. */
    m.to = A50 "aaaaaaaa@" A10;
    assert_header(&m, "To: <" A50 "aaaaaaaa@" A10 ">");
    m.to = A50 "aaaaaaaa@" A10 "b";
    assert_header(&m, "To: <" A50 "aaaaaaaa@" A10 "b>");
    m.to = A50 "aaaaaaaaaa@" A10;
    assert_header(&m, "To:\r\n <" A50 "aaaaaaaaaa@" A10 ">");
    m.to = A50 "@" A50 "." A50 "." A50 "." A50;
    assert_header(&m, "To:\r\n <" A50 "@" A50 "." A50 "." A50 "." A50 ">");
    m.to = "j\xc3\xb6rg@example.com";
    assert_header(&m, "To: <j\xc3\xb6rg@example.com>");
    m.id = A50 A10 "@b.co";
    assert_header(&m, "Message-ID:\r\n <" A50 A10 "@b.co>");
}

static void
dates_are_those_of_the_mail_format(void **state)
{
    static const struct {
        int64_t unix_ms;
        const char *header;
    } dates[] = {
        {0, "Date: Thu, 01 Jan 1970 00:00:00 +0000"},
        {951782400000, "Date: Tue, 29 Feb 2000 00:00:00 +0000"},
        {1798761599999, "Date: Thu, 31 Dec 2026 23:59:59 +0000"},
        {253402300799999, "Date: Fri, 31 Dec 9999 23:59:59 +0000"},
    };
    struct mail_message m = example;

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(dates); k++) {
        m.date_unix_ms = dates[k].unix_ms;
        assert_header(&m, dates[k].header);
    }
    text_reset(&out);
    m.date_unix_ms = -1;
    assert_int_equal(mail_message_compose(&m, &out), RC_INVALID);
    m.date_unix_ms = 253402300800000;
    assert_int_equal(mail_message_compose(&m, &out), RC_INVALID);
}

/* ---- what is refused --------------------------------------------------------
 */

static void
assert_refused(const struct mail_message *m)
{
    text_reset(&out);
    assert_int_equal(mail_message_compose(m, &out), RC_INVALID);
    assert_int_equal(out.bytes, 0);
}

/* Each value of a header, with something in it that could end it. (A NUL ends
 * the value for us, too.) */
static void
nothing_breaks_out_of_a_header(void **state)
{
    static const char *const breaks[] = {
        "\r\nBcc: x@example.com",
        "\n",
        "\r",
        "\r\n",
        "\x01",
        "\x0b",
        "\x7f",
        "\x1b[0m",
        "\xff",
        "\xc3",
        "\t",
        "\r\n x",
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(breaks); k++) {
        for (int where = 0; where < 5; where++) {
            struct mail_sender sender = sluice;
            struct mail_message m = example;
            char value[64];

            (void)snprintf(value, sizeof(value), "a%s@b.co", breaks[k]);
            m.from = &sender;
            m.to = where == 0 ? value : m.to;
            m.subject = where == 1 ? value : m.subject;
            m.id = where == 2 ? value : m.id;
            if (where == 3) {
                (void)snprintf(sender.name, sizeof(sender.name), "%s", value);
            } else if (where == 4) {
                (void)snprintf(sender.mailbox, sizeof(sender.mailbox), "%s",
                               value);
            }
            assert_refused(&m);
        }
    }
}

static void
what_is_no_address_is_refused(void **state)
{
    static const char *const addresses[] = {
        "",       "a",     "@",     "a@",     "@b",      "a@@b",
        "a@b@c",  "a b@c", "<a@b>", "a@b>",   "a@b,c@d", ".a@b",
        "a.@b",   "a@.b",  "a@b.",  "a..b@c", "\"a\"@b", "a@[::1]",
        "a(c)@b", "a@b ",  "a\\@b", "a:b@c",  "a;b@c",   "a@b;",
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(addresses); k++) {
        struct mail_message m = example;

        m.to = addresses[k];
        assert_refused(&m);
        m = example;
        m.id = addresses[k];
        assert_refused(&m);
    }
}

static void
values_are_taken_at_their_bounds_only(void **state)
{
    char subject[MAIL_SUBJECT_MAX_BYTES + 2];
    char id[MAIL_ID_MAX_BYTES + 2];
    char to[ADDRESS_MAX_BYTES + 2];
    struct mail_message m = example;

    (void)state;
    memset(subject, 's', sizeof(subject));
    subject[MAIL_SUBJECT_MAX_BYTES + 1] = '\0';
    m.subject = subject;
    assert_refused(&m);
    m.subject = subject + 1;
    (void)compose(&m);
    m.subject = "";
    assert_refused(&m);

    m = example;
    memset(id, 'i', sizeof(id));
    id[10] = '@';
    id[MAIL_ID_MAX_BYTES + 1] = '\0';
    m.id = id;
    assert_refused(&m);
    m.id = id + 1;
    (void)compose(&m);

    m = example;
    memset(to, 't', sizeof(to));
    to[10] = '@';
    to[ADDRESS_MAX_BYTES + 1] = '\0';
    m.to = to;
    assert_refused(&m);
    m.to = to + 1;
    (void)compose(&m);
}

static void
ids_and_senders_are_ascii(void **state)
{
    struct mail_sender sender = {.mailbox = "\xc3\xb6@b.co"};
    struct mail_message m = example;

    (void)state;
    m.from = &sender;
    assert_refused(&m);
    m = example;
    m.id = "\xc3\xb6@b.co";
    assert_refused(&m);
}

static void
parts_that_are_not_utf8_are_refused(void **state)
{
    struct mail_message m = example;

    (void)state;
    m.text = "a\xff";
    assert_refused(&m);
    m = example;
    m.html = "a\xc3";
    assert_refused(&m);
}

static void
a_message_over_the_bound_fails(void **state)
{
    struct text small = {.max_bytes = 500};

    (void)state;
    assert_int_equal(mail_message_compose(&example, &small), RC_FULL);
    assert_true(text_failed(&small));
    text_free(&small);
}

/* ---- parts ------------------------------------------------------------------
 */

static void
texts_are_quoted_printable(void **state)
{
    static const char *const texts[][2] = {
        {"", ""},
        {"a", "a\r\n"},
        {"a\nb\r\nc\rd", "a\r\nb\r\nc\r\nd\r\n"},
        {"\n\n", "\r\n\r\n"},
        {"1 + 1 = 2", "1 + 1 =3D 2\r\n"},
        {"Gr\xc3\xbc\xc3\x9f"
         "e",
         "Gr=C3=BC=C3=9Fe\r\n"},
        {"a \nb\t\n \nc ", "a=20\r\nb=09\r\n=20\r\nc=20\r\n"},
        {"a b\tc", "a b\tc\r\n"},
        {".\n..a\nFrom x", ".\r\n..a\r\nFrom x\r\n"},
        {"\x01\x1b\x7f", "=01=1B=7F\r\n"},
        {"--=_sluice", "--=3D_sluice\r\n"},
        /* 76 are a line, of 77 one goes to the next. */
        {A50 A10 A10 "123456", A50 A10 A10 "123456\r\n"},
        {A50 A10 A10 "1234567", A50 A10 A10 "12345=\r\n67\r\n"},
        {A50 A10 A10 "12345 ", A50 A10 A10 "12345=\r\n=20\r\n"},
        {A50 A10 A10 "123=", A50 A10 A10 "123=3D\r\n"},
        {A50 A10 A10 "1234=", A50 A10 A10 "1234=\r\n=3D\r\n"},
        {A50 A10 A10 "\xc3\xa9", A50 A10 A10 "=C3=A9\r\n"},
        {A50 A10 A10 "\xc3\xa9"
                     "a",
         A50 A10 A10 "=\r\n=C3=A9a\r\n"},
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(texts); k++) {
        struct mail_message m = example;
        const char *message;
        const char *from;
        const char *to;

        m.text = texts[k][0];
        message = compose(&m);
        from = strstr(message, "quoted-printable\r\n\r\n") + 20;
        to = strstr(from, "\r\n--=_sluice\r\n");
        assert_int_equal(to - from, strlen(texts[k][1]));
        assert_memory_equal(from, texts[k][1], strlen(texts[k][1]));
    }
}

/* Python's parser, which is nobody of ours, reads what we meant. */
static void
another_parser_reads_the_same(void **state)
{
    static const char script[] =
        PYTHON " -I -c '\n"
               "import sys, email, email.policy\n"
               "m = email.message_from_binary_file(open(sys.argv[1], \"rb\"),\n"
               "    policy=email.policy.SMTPUTF8)\n"
               "assert not m.defects, m.defects\n"
               "assert m.keys() == [\"From\", \"To\", \"Subject\", \"Date\",\n"
               "    \"Message-ID\", \"MIME-Version\", \"Auto-Submitted\",\n"
               "    \"Content-Type\"]\n"
               "for k in m.keys(): assert not m[k].defects, m[k].defects\n"
               "f = m[\"From\"].addresses[0]\n"
               "assert f.display_name == \"Gr\\u00f6\\u00dfe, Inc.\", f\n"
               "assert f.addr_spec == \"invitations@localhost\"\n"
               "t = m[\"To\"].addresses\n"
               "assert len(t) == 1 and t[0].addr_spec == \"jo@b.co\", t\n"
               "s = \"F\\u00fcr  Sie \" + 40 * \"\\U0001f600\" + \" .\"\n"
               "assert m[\"Subject\"] == s, m[\"Subject\"]\n"
               "assert m[\"Date\"].datetime.timestamp() == 1795264129\n"
               "assert m[\"Message-ID\"] == \"<0189@example.com>\"\n"
               "parts = list(m.iter_parts())\n"
               "assert [p.get_content_type() for p in parts] == [\n"
               "    \"text/plain\", \"text/html\"]\n"
               "for p in parts: assert not p.defects\n"
               "b = 60 * \"\\u00e9\" + \" = \\n.\\n\\n--=_sluice--\\nx\\n\"\n"
               "assert parts[0].get_content() == b, parts[0].get_content()\n"
               "assert parts[1].get_content() == \"<p>\" + b\n"
               "' ";
    static const char e60[] = E10 E10 E10 E10 E10 E10;
    struct mail_sender sender = {.name = "Gr\xc3\xb6\xc3\x9f"
                                         "e, Inc.",
                                 .mailbox = "invitations@localhost"};
    struct mail_message m = example;
    char path[] = "/tmp/sluice_mail_XXXXXX";
    char subject[256] = "F\xc3\xbcr  Sie ";
    char html[256];
    char command[sizeof(script) + sizeof(path)];
    const char *message;
    int fd;

    (void)state;
    assert_int_equal(access(PYTHON, X_OK), 0);
    for (int k = 0; k < 40; k++) {
        memcpy(subject + strlen(subject), "\xf0\x9f\x98\x80", 5);
    }
    memcpy(subject + strlen(subject), " .", 3);
    (void)snprintf(html, sizeof(html), "<p>%s = \n.\n\n--=_sluice--\nx", e60);
    m.from = &sender;
    m.to = "jo@b.co";
    m.subject = subject;
    m.text = html + 3;
    m.html = html;
    message = compose(&m);
    fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, message, out.bytes), out.bytes);
    assert_int_equal(close(fd), 0);
    (void)snprintf(command, sizeof(command), "%s%s", script, path);
    assert_int_equal(system(command), 0);
    assert_int_equal(unlink(path), 0);
}

/* ---- the sender -------------------------------------------------------------
 */

static void
senders_are_read(void **state)
{
    static const struct {
        const char *value;
        const char *name;
        const char *mailbox;
    } good[] = {
        {"Sluice <invitations@localhost>", "Sluice", "invitations@localhost"},
        {"  Sluice  <a@b.co>  ", "Sluice", "a@b.co"},
        {"\"Sluice, Inc.\" <a@b.co>", "Sluice, Inc.", "a@b.co"},
        {"Gr\xc3\xb6\xc3\x9f"
         "e <a@b.co>",
         "Gr\xc3\xb6\xc3\x9f"
         "e",
         "a@b.co"},
        {"<a@b.co>", "", "a@b.co"},
        {"\"\"<a@b.co>", "", "a@b.co"},
        {" a@b.co ", "", "a@b.co"},
    };
    static const char *const bad[] = {
        "",
        "Sluice",
        "Sluice a@b.co",
        "Sluice <a@b.co",
        "Sluice a@b.co>",
        "Sluice <a@b.co> x",
        "Sluice <a@b.co>>",
        "Sluice <<a@b.co>",
        "Sluice <>",
        "Sluice <a>",
        "a@b.co c@d.ef",
        "a\"b <a@b.co>",
        "\" <a@b.co>",
        "a\\b <a@b.co>",
        "a\nb <a@b.co>",
        "a <a@b.co\n>",
        "a <a@b.co\r\nBcc: x@y.z>",
        "a <\xc3\xb6@b.co>",
        "\xff <a@b.co>",
    };
    static const struct mail_sender empty;
    struct mail_sender sender;

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(good); k++) {
        assert_int_equal(mail_sender_parse(good[k].value, &sender), RC_OK);
        assert_string_equal(sender.name, good[k].name);
        assert_string_equal(sender.mailbox, good[k].mailbox);
    }
    for (size_t k = 0; k < ARRAY_COUNT(bad); k++) {
        assert_int_equal(mail_sender_parse(bad[k], &sender), RC_INVALID);
        assert_memory_equal(&sender, &empty, sizeof(sender));
    }
}

static void
senders_are_read_at_their_bounds_only(void **state)
{
    struct mail_sender sender;
    char value[512];

    (void)state;
    for (int more = 0; more < 2; more++) {
        enum rc expected = more == 0 ? RC_OK : RC_INVALID;

        memset(value, 'n', sizeof(value));
        (void)snprintf(value + MAIL_SENDER_NAME_MAX_BYTES + more, 16,
                       "<a@b.co>");
        assert_int_equal(mail_sender_parse(value, &sender), expected);
        memset(value, 'm', sizeof(value));
        value[1] = '@';
        value[ADDRESS_MAX_BYTES + more] = '\0';
        assert_int_equal(mail_sender_parse(value, &sender), expected);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_is_what_it_is),
        cmocka_unit_test(a_message_composed_twice_is_the_same),
        cmocka_unit_test(a_message_is_appended),
        cmocka_unit_test(subjects_are_as_they_are_or_encoded),
        cmocka_unit_test(names_are_as_they_are_or_encoded),
        cmocka_unit_test(addresses_are_folded_but_not_broken),
        cmocka_unit_test(dates_are_those_of_the_mail_format),
        cmocka_unit_test(nothing_breaks_out_of_a_header),
        cmocka_unit_test(what_is_no_address_is_refused),
        cmocka_unit_test(values_are_taken_at_their_bounds_only),
        cmocka_unit_test(ids_and_senders_are_ascii),
        cmocka_unit_test(parts_that_are_not_utf8_are_refused),
        cmocka_unit_test(a_message_over_the_bound_fails),
        cmocka_unit_test(texts_are_quoted_printable),
        cmocka_unit_test(another_parser_reads_the_same),
        cmocka_unit_test(senders_are_read),
        cmocka_unit_test(senders_are_read_at_their_bounds_only),
    };

    return cmocka_run_group_tests(tests, NULL, free_out);
}
