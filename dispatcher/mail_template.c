/* Mail templates. They are kept as they are and scanned again for each mail,
 * for which they were checked when they were read. */
#include "dispatcher/mail_template.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/clock.h"
#include "shared/invitation_msg.h"
#include "shared/json.h"

#define PATH_BYTES 4096
#define OPEN "{{"
#define CLOSE "}}"
#define DATE_MAX_BYTES 20U
#define NAME_SHOWN_BYTES 40

enum part { SUBJECT, PLAIN, HTML, PART_COUNT };

enum placeholder { CODE, EMAIL, DATE, SENDER, PLACEHOLDER_COUNT };

static const struct {
    const char *name;
    size_t max_bytes; /* of its value */
} placeholders[PLACEHOLDER_COUNT] = {
    [CODE] = {"code", INVITATION_CODE_MAX_BYTES},
    [EMAIL] = {"email", ADDRESS_MAX_BYTES},
    [DATE] = {"date", DATE_MAX_BYTES},
    [SENDER] = {"sender", ADDRESS_MAX_BYTES},
};

static const char *const endings[PART_COUNT] = {
    [SUBJECT] = "subject",
    [PLAIN] = "txt",
    [HTML] = "html",
};

const char *const mail_kinds[MAIL_KIND_COUNT] = {
    [MAIL_WELCOME] = "welcome",
    [MAIL_APOLOGY] = "apology",
    [MAIL_UNKNOWN] = "unknown",
};

struct mail_templates {
    struct text parts[MAIL_KIND_COUNT][PART_COUNT];
};

/* ---- placeholders -----------------------------------------------------------
 */

/* A piece of a template: text, and the placeholder behind it. */
struct piece {
    const char *text;
    size_t text_bytes;
    const char *name; /* NULL: the text is the last one */
    size_t name_bytes;
    const char *next;
    bool is_open; /* no }} behind the {{ in its line */
};

static struct piece
take_piece(const char *at)
{
    const char *open = strstr(at, OPEN);
    struct piece piece = {.text = at};
    const char *close;

    if (open == NULL) {
        piece.text_bytes = strlen(at);
        return piece;
    }
    piece.text_bytes = (size_t)(open - at);
    piece.name = open + strlen(OPEN);
    piece.name_bytes = strcspn(piece.name, "}\r\n");
    close = piece.name + piece.name_bytes;
    piece.is_open = strncmp(close, CLOSE, strlen(CLOSE)) != 0;
    piece.next = piece.is_open ? close : close + strlen(CLOSE);
    return piece;
}

/* PLACEHOLDER_COUNT: there is none of that name. */
static enum placeholder
find_placeholder(const char *name, size_t bytes)
{
    enum placeholder k = CODE;

    while (k < PLACEHOLDER_COUNT &&
           (strlen(placeholders[k].name) != bytes ||
            memcmp(placeholders[k].name, name, bytes) != 0)) {
        k++;
    }
    return k;
}

/* ---- reading ----------------------------------------------------------------
 */

/* One file that is being checked. */
struct check {
    const char *path;
    const char *data;
    struct text *errors;
    bool failed;
};

/* at: where in the data; NULL: the whole file. */
static void
complain(struct check *c, const char *at, const char *what, const char *name,
         size_t name_bytes)
{
    unsigned line = 1;

    c->failed = true;
    text_puts(c->errors, c->path);
    for (const char *p = c->data; at != NULL && p < at; p++) {
        line += *p == '\n';
    }
    if (at != NULL) {
        text_printf(c->errors, ":%u", line);
    }
    text_printf(c->errors, ": %s", what);
    if (name != NULL) {
        int shown =
            name_bytes > NAME_SHOWN_BYTES ? NAME_SHOWN_BYTES : (int)name_bytes;

        text_printf(c->errors, " {{%.*s}}", shown, name);
    }
    text_putc(c->errors, '\n');
}

/* How long can it become? */
static size_t
check_placeholders(struct check *c)
{
    struct piece piece = take_piece(c->data);
    size_t bytes = piece.text_bytes;

    while (piece.name != NULL) {
        enum placeholder k = find_placeholder(piece.name, piece.name_bytes);

        if (piece.is_open) {
            complain(c, piece.name, "}} is missing behind {{", NULL, 0);
        } else if (k == PLACEHOLDER_COUNT) {
            complain(c, piece.name, "unknown placeholder", piece.name,
                     piece.name_bytes);
        } else {
            bytes += placeholders[k].max_bytes;
        }
        piece = take_piece(piece.next);
        bytes += piece.text_bytes;
    }
    return bytes;
}

static void
check_subject(struct check *c, size_t longest_bytes)
{
    for (const char *p = c->data; *p != '\0'; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f) {
            complain(c, p, "a subject is one line without control characters",
                     NULL, 0);
            return;
        }
    }
    if (longest_bytes > MAIL_SUBJECT_MAX_BYTES) {
        complain(c, NULL, "with the longest values it is over 400 bytes", NULL,
                 0);
    }
}

/* Without the line ends at its end. */
static void
trim(struct text *t)
{
    while (t->bytes > 0 &&
           (t->data[t->bytes - 1] == '\n' || t->data[t->bytes - 1] == '\r')) {
        t->data[--t->bytes] = '\0';
    }
}

/* The file whole, up to one byte more than it may have. False: errno. */
static bool
read_file(const char *path, struct text *out)
{
    FILE *file = fopen(path, "re");
    char block[4096];
    size_t bytes;
    bool ok;

    if (file == NULL) {
        return false;
    }
    do {
        bytes = fread(block, 1, sizeof(block), file);
        text_append(out, block, bytes);
    } while (bytes == sizeof(block) && out->bytes <= MAIL_TEMPLATE_MAX_BYTES);
    ok = ferror(file) == 0;
    (void)fclose(file);
    return ok;
}

static enum rc
read_part(struct text *data, const char *path, enum part part,
          struct text *errors)
{
    struct check c = {.path = path, .errors = errors};
    char why[128];

    if (!read_file(path, data)) {
        complain(&c, NULL, strerror_r(errno, why, sizeof(why)), NULL, 0);
        return RC_INVALID;
    }
    if (text_failed(data)) {
        return RC_NOMEM;
    }
    if (part == SUBJECT) {
        trim(data);
    }
    c.data = text_cstr(data);
    if (data->bytes == 0 || data->bytes > MAIL_TEMPLATE_MAX_BYTES) {
        complain(&c, NULL, data->bytes == 0 ? "empty" : "over 64 KiB", NULL, 0);
    } else if (strlen(c.data) != data->bytes ||
               !json_utf8_valid(c.data, data->bytes)) {
        complain(&c, NULL, "not a text in UTF-8", NULL, 0);
    } else {
        size_t longest_bytes = check_placeholders(&c);

        if (part == SUBJECT) {
            check_subject(&c, longest_bytes);
        }
    }
    return c.failed ? RC_INVALID : RC_OK;
}

const char *
mail_templates_folder(const char *setting)
{
    const char *folder = getenv("SLUICE_MAIL_TEMPLATES");

    if (setting[0] != '\0') {
        return setting;
    }
    return folder != NULL && folder[0] != '\0' ? folder : MAIL_TEMPLATES_DIR;
}

enum rc
mail_templates_read(struct mail_templates **out, const char *folder,
                    struct text *errors)
{
    struct mail_templates *t = calloc(1, sizeof(*t));
    enum rc rc = t != NULL ? RC_OK : RC_NOMEM;

    *out = NULL;
    for (unsigned i = 0; i < MAIL_KIND_COUNT * PART_COUNT && rc != RC_NOMEM;
         i++) {
        unsigned kind = i / PART_COUNT;
        enum part part = (enum part)(i % PART_COUNT);
        char path[PATH_BYTES];
        enum rc one;

        (void)snprintf(path, sizeof(path), "%s/%s.%s", folder, mail_kinds[kind],
                       endings[part]);
        one = read_part(&t->parts[kind][part], path, part, errors);
        rc = one != RC_OK ? one : rc;
    }
    if (rc != RC_OK) {
        mail_templates_free(&t);
    }
    *out = t;
    return rc;
}

void
mail_templates_free(struct mail_templates **out)
{
    struct mail_templates *t = *out;

    *out = NULL;
    if (t == NULL) {
        return;
    }
    for (unsigned i = 0; i < MAIL_KIND_COUNT * PART_COUNT; i++) {
        text_free(&t->parts[i / PART_COUNT][i % PART_COUNT]);
    }
    free(t);
}

/* ---- filling ----------------------------------------------------------------
 */

static void
put_escaped(struct text *out, const char *value)
{
    for (; *value != '\0'; value++) {
        switch (*value) {
        case '&':
            text_puts(out, "&amp;");
            break;
        case '<':
            text_puts(out, "&lt;");
            break;
        case '>':
            text_puts(out, "&gt;");
            break;
        case '"':
            text_puts(out, "&quot;");
            break;
        case '\'':
            text_puts(out, "&#39;");
            break;
        default:
            text_putc(out, *value);
        }
    }
}

static const char *
value_of(enum placeholder k, const struct mail_values *values, const char *date)
{
    switch (k) {
    case CODE:
        return values->code;
    case EMAIL:
        return values->email;
    case DATE:
        return date;
    case SENDER:
        return values->sender->name[0] != '\0' ? values->sender->name
                                               : values->sender->mailbox;
    case PLACEHOLDER_COUNT:
        break;
    }
    return "";
}

/* "2026-11-21 12:28 UTC" */
static void
write_date(int64_t unix_ms, char out[DATE_MAX_BYTES + 1])
{
    char time[CLOCK_RFC3339_BYTES];

    (void)clock_rfc3339(unix_ms, time);
    (void)snprintf(out, DATE_MAX_BYTES + 1, "%.10s %.5s UTC", time, time + 11);
}

static void
fill_part(const struct text *template, enum part part,
          const struct mail_values *values, struct text *out)
{
    struct piece piece = take_piece(text_cstr(template));
    char date[DATE_MAX_BYTES + 1];

    write_date(values->date_unix_ms, date);
    text_reset(out);
    text_append(out, piece.text, piece.text_bytes);
    while (piece.name != NULL) {
        const char *value = value_of(
            find_placeholder(piece.name, piece.name_bytes), values, date);

        if (part == HTML) {
            put_escaped(out, value);
        } else {
            text_puts(out, value);
        }
        piece = take_piece(piece.next);
        text_append(out, piece.text, piece.text_bytes);
    }
}

enum rc
mail_templates_fill(const struct mail_templates *t, enum mail_kind kind,
                    const struct mail_values *values, struct mail_content *out)
{
    const struct text *parts = t->parts[kind];

    fill_part(&parts[SUBJECT], SUBJECT, values, &out->subject);
    fill_part(&parts[PLAIN], PLAIN, values, &out->plain);
    fill_part(&parts[HTML], HTML, values, &out->html);
    return text_failed(&out->subject) || text_failed(&out->plain) ||
                   text_failed(&out->html)
               ? RC_NOMEM
               : RC_OK;
}

void
mail_content_free(struct mail_content *content)
{
    text_free(&content->subject);
    text_free(&content->plain);
    text_free(&content->html);
}
