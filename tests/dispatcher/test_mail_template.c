/* dispatcher/mail_template.c, and the texts that come with Sluice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dispatcher/mail_template.h"

#define PATH_BYTES 512

static const struct mail_sender sender = {.name = "A & B",
                                          .mailbox = "a@localhost"};
static const struct mail_values values = {.code = "twitter-reg1",
                                          .email = "o'neil&co@example.com",
                                          .date_unix_ms = 1795264129999,
                                          .sender = &sender};

struct bench {
    char folder[64];
    struct text errors;
    struct mail_content content;
    struct mail_templates *templates;
};

static void
put(const struct bench *b, const char *name, const char *data, size_t bytes)
{
    char path[PATH_BYTES];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/%s", b->folder, name);
    file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static void
put_text(const struct bench *b, const char *name, const char *data)
{
    put(b, name, data, strlen(data));
}

static const char *const endings[] = {"subject", "txt", "html"};

static int
setup(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));

    assert_non_null(b);
    (void)snprintf(b->folder, sizeof(b->folder), "/tmp/sluice_mail_XXXXXX");
    assert_non_null(mkdtemp(b->folder));
    for (int kind = 0; kind < MAIL_KIND_COUNT; kind++) {
        for (size_t k = 0; k < ARRAY_COUNT(endings); k++) {
            char name[64];

            (void)snprintf(name, sizeof(name), "%s.%s", mail_kinds[kind],
                           endings[k]);
            put_text(b, name, "x\n");
        }
    }
    *state = b;
    return 0;
}

static int
teardown(void **state)
{
    struct bench *b = *state;
    char path[PATH_BYTES];

    for (int kind = 0; kind < MAIL_KIND_COUNT; kind++) {
        for (size_t k = 0; k < ARRAY_COUNT(endings); k++) {
            (void)snprintf(path, sizeof(path), "%s/%s.%s", b->folder,
                           mail_kinds[kind], endings[k]);
            (void)unlink(path);
        }
    }
    assert_int_equal(rmdir(b->folder), 0);
    mail_templates_free(&b->templates);
    mail_templates_free(&b->templates); /* of NULL */
    mail_content_free(&b->content);
    text_free(&b->errors);
    free(b);
    return 0;
}

static void
placeholders_are_filled_in_and_escaped_in_html(void **state)
{
    struct bench *b = *state;

    put_text(b, "welcome.subject", "{{code}}: {{sender}}\n");
    put_text(b, "welcome.txt", "{{email}}{{date}}\n}} { {\n{{code}}");
    put_text(b, "welcome.html", "<p>{{email}}, {{code}}, {{sender}}</p>\n");
    assert_int_equal(mail_templates_read(&b->templates, b->folder, &b->errors),
                     RC_OK);
    assert_int_equal(b->errors.bytes, 0);
    for (int twice = 0; twice < 2; twice++) {
        assert_int_equal(mail_templates_fill(b->templates, MAIL_WELCOME,
                                             &values, &b->content),
                         RC_OK);
        assert_string_equal(text_cstr(&b->content.subject),
                            "twitter-reg1: A & B");
        assert_string_equal(text_cstr(&b->content.plain),
                            "o'neil&co@example.com2026-11-21 12:28 UTC\n"
                            "}} { {\ntwitter-reg1");
        assert_string_equal(text_cstr(&b->content.html),
                            "<p>o&#39;neil&amp;co@example.com, twitter-reg1, "
                            "A &amp; B</p>\n");
    }
}

static void
a_sender_without_a_name_is_its_address(void **state)
{
    struct bench *b = *state;
    const struct mail_sender nameless = {.mailbox = "a@b"};
    struct mail_values v = values;

    v.sender = &nameless;
    put_text(b, "unknown.subject", "{{sender}}");
    assert_int_equal(mail_templates_read(&b->templates, b->folder, &b->errors),
                     RC_OK);
    assert_int_equal(
        mail_templates_fill(b->templates, MAIL_UNKNOWN, &v, &b->content),
        RC_OK);
    assert_string_equal(text_cstr(&b->content.subject), "a@b");
}

/* What is put where, and what is said of it behind the folder's name. */
static void
what_is_wrong_is_said_with_file_and_line(void **state)
{
    static const struct {
        const char *name;
        const char *data;
        const char *error;
    } wrong[] = {
        {"welcome.txt", "a\nb {{name}}\n",
         "welcome.txt:2: unknown placeholder {{name}}"},
        {"welcome.html", "{{ code }}",
         "welcome.html:1: unknown placeholder {{ code }}"},
        {"apology.html", "\n\n{{}}",
         "apology.html:3: unknown placeholder {{}}"},
        {"apology.txt", "{{code", "apology.txt:1: }} is missing behind {{"},
        {"apology.txt", "{{code}\n}", "apology.txt:1: }} is missing behind {{"},
        {"unknown.txt", "", "unknown.txt: empty"},
        {"unknown.subject", "\n\n", "unknown.subject: empty"},
        {"unknown.html", "a\xff", "unknown.html: not a text in UTF-8"},
        {"unknown.subject", "a\nb\n",
         "unknown.subject:1: a subject is one line without control characters"},
        {"unknown.subject", "a\tb",
         "unknown.subject:1: a subject is one line without control characters"},
        {"welcome.subject", "{{email}} {{email}}",
         "welcome.subject: with the longest values it is over 400 bytes"},
    };
    struct bench *b = *state;

    for (size_t k = 0; k < ARRAY_COUNT(wrong); k++) {
        char expected[PATH_BYTES];

        put_text(b, wrong[k].name, wrong[k].data);
        text_reset(&b->errors);
        assert_int_equal(
            mail_templates_read(&b->templates, b->folder, &b->errors),
            RC_INVALID);
        assert_null(b->templates);
        (void)snprintf(expected, sizeof(expected), "%s/%s\n", b->folder,
                       wrong[k].error);
        assert_string_equal(text_cstr(&b->errors), expected);
        put_text(b, wrong[k].name, "x");
    }
}

static void
a_missing_file_is_an_error(void **state)
{
    struct bench *b = *state;
    char expected[PATH_BYTES];

    (void)snprintf(expected, sizeof(expected), "%s/apology.txt", b->folder);
    assert_int_equal(unlink(expected), 0);
    assert_int_equal(mail_templates_read(&b->templates, b->folder, &b->errors),
                     RC_INVALID);
    (void)snprintf(expected, sizeof(expected),
                   "%s/apology.txt: No such file or directory\n", b->folder);
    assert_string_equal(text_cstr(&b->errors), expected);
}

static void
a_file_may_have_64_kib(void **state)
{
    struct bench *b = *state;
    char *data = malloc(MAIL_TEMPLATE_MAX_BYTES + 1);

    assert_non_null(data);
    memset(data, 'a', MAIL_TEMPLATE_MAX_BYTES + 1);
    put(b, "welcome.txt", data, MAIL_TEMPLATE_MAX_BYTES);
    assert_int_equal(mail_templates_read(&b->templates, b->folder, &b->errors),
                     RC_OK);
    mail_templates_free(&b->templates);
    put(b, "welcome.txt", data, MAIL_TEMPLATE_MAX_BYTES + 1);
    assert_int_equal(mail_templates_read(&b->templates, b->folder, &b->errors),
                     RC_INVALID);
    put(b, "welcome.txt", "a\0b", 3);
    assert_int_equal(mail_templates_read(&b->templates, b->folder, &b->errors),
                     RC_INVALID);
    free(data);
}

static void
the_setting_comes_before_the_environment(void **state)
{
    (void)state;
    assert_int_equal(setenv("SLUICE_MAIL_TEMPLATES", "/some/where", 1), 0);
    assert_string_equal(mail_templates_folder("/a"), "/a");
    assert_string_equal(mail_templates_folder(""), "/some/where");
    assert_int_equal(unsetenv("SLUICE_MAIL_TEMPLATES"), 0);
    assert_string_equal(mail_templates_folder(""), MAIL_TEMPLATES_DIR);
}

/* Ours, as they are: each says which address asked, with which code. */
static void
the_texts_of_sluice_make_mails(void **state)
{
    struct bench *b = *state;
    char folder[PATH_BYTES];

    (void)snprintf(folder, sizeof(folder), "%s/conf/mail",
                   getenv("TOP_SRCDIR"));
    assert_int_equal(mail_templates_read(&b->templates, folder, &b->errors),
                     RC_OK);
    for (int kind = 0; kind < MAIL_KIND_COUNT; kind++) {
        struct text out = {0};
        struct mail_message message = {.from = &sender,
                                       .to = values.email,
                                       .id = "1.welcome@localhost",
                                       .date_unix_ms = values.date_unix_ms};

        assert_int_equal(mail_templates_fill(b->templates, (enum mail_kind)kind,
                                             &values, &b->content),
                         RC_OK);
        message.subject = text_cstr(&b->content.subject);
        message.text = text_cstr(&b->content.plain);
        message.html = text_cstr(&b->content.html);
        assert_non_null(strstr(message.subject, values.code));
        assert_non_null(strstr(message.text, values.code));
        assert_non_null(strstr(message.text, values.email));
        assert_non_null(strstr(message.text, "you can ignore this mail"));
        assert_non_null(strstr(message.html, values.code));
        assert_non_null(strstr(message.html, "o&#39;neil&amp;co@example.com"));
        assert_non_null(strstr(message.html, "<html lang=\"en\">"));
        assert_int_equal(mail_message_compose(&message, &out), RC_OK);
        text_free(&out);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(
            placeholders_are_filled_in_and_escaped_in_html, setup, teardown),
        cmocka_unit_test_setup_teardown(a_sender_without_a_name_is_its_address,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            what_is_wrong_is_said_with_file_and_line, setup, teardown),
        cmocka_unit_test_setup_teardown(a_missing_file_is_an_error, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_file_may_have_64_kib, setup,
                                        teardown),
        cmocka_unit_test(the_setting_comes_before_the_environment),
        cmocka_unit_test_setup_teardown(the_texts_of_sluice_make_mails, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
