/* Mail messages. Everything is checked before the first byte is written; then
 * each header is written word by word, so that no line grows too long. */
#include "dispatcher/mail_message.h"

#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "shared/json.h"

#define LINE_MAX_BYTES 76U
#define BOUNDARY "=_sluice" /* no quoted-printable text holds "=_" */
#define WORD_BEGIN "=?UTF-8?Q?"
#define WORD_END "?="
#define WORD_MAX_BYTES 75U               /* RFC 2047 section 2 */
#define PLAIN_WORD_MAX_BYTES 60U         /* fits behind any header's name */
#define CHARACTER_BYTES 12U              /* four bytes, each as "=XX" */
#define DATE_END_UNIX_MS 253402300800000 /* the year 10000 */
#define CRLF "\r\n"

static const char atom_chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "abcdefghijklmnopqrstuvwxyz0123456789"
                                 "!#$%&'*+-/=?^_`{|}~";
static const char hex_digits[] = "0123456789ABCDEF";

/* ---- checks -----------------------------------------------------------------
 */

/* One line of UTF-8 without control characters, 1 to max_bytes? */
static bool
line_valid(const char *value, size_t max_bytes)
{
    size_t bytes = strlen(value);

    for (size_t i = 0; i < bytes; i++) {
        if ((unsigned char)value[i] < ' ' || value[i] == 0x7f) {
            return false;
        }
    }
    return bytes > 0 && bytes <= max_bytes && json_utf8_valid(value, bytes);
}

static bool
atom_char(char c, bool wide)
{
    return (wide && (unsigned char)c >= 0x80) || c == '.' ||
           (c != '\0' && strchr(atom_chars, c) != NULL);
}

/* dot-atom "@" dot-atom? wide: characters beyond ASCII are allowed. */
static bool
dotted_pair_valid(const char *value, size_t max_bytes, bool wide)
{
    const char *at = strchr(value, '@');
    char before = '.';

    if (at == NULL || strchr(at + 1, '@') != NULL ||
        !line_valid(value, max_bytes)) {
        return false;
    }
    for (const char *p = value; *p != '\0'; p++) {
        char c = *p == '@' ? '.' : *p;

        if (!atom_char(c, wide) || (c == '.' && before == '.')) {
            return false;
        }
        before = c;
    }
    return before != '.';
}

static bool
message_valid(const struct mail_message *m)
{
    return dotted_pair_valid(m->from->mailbox, ADDRESS_MAX_BYTES, false) &&
           (m->from->name[0] == '\0' ||
            line_valid(m->from->name, MAIL_SENDER_NAME_MAX_BYTES)) &&
           dotted_pair_valid(m->to, ADDRESS_MAX_BYTES, true) &&
           line_valid(m->subject, MAIL_SUBJECT_MAX_BYTES) &&
           dotted_pair_valid(m->id, MAIL_ID_MAX_BYTES, false) &&
           m->date_unix_ms >= 0 && m->date_unix_ms < DATE_END_UNIX_MS &&
           json_utf8_valid(m->text, strlen(m->text)) &&
           json_utf8_valid(m->html, strlen(m->html));
}

/* ---- the sender's setting ---------------------------------------------------
 */

/* The name of bytes, without blanks and quotation marks around it. */
static enum rc
take_name(const char *value, size_t bytes, char name[MAIL_SENDER_NAME_BYTES])
{
    while (bytes > 0 && value[bytes - 1] == ' ') {
        bytes--;
    }
    if (bytes >= 2 && value[0] == '"' && value[bytes - 1] == '"') {
        value++;
        bytes -= 2;
    }
    if (bytes > MAIL_SENDER_NAME_MAX_BYTES ||
        memchr(value, '"', bytes) != NULL ||
        memchr(value, '\\', bytes) != NULL) {
        return RC_INVALID;
    }
    memcpy(name, value, bytes);
    name[bytes] = '\0';
    return bytes == 0 || line_valid(name, bytes) ? RC_OK : RC_INVALID;
}

enum rc
mail_sender_parse(const char *value, struct mail_sender *out)
{
    const char *at = value + strspn(value, " ");
    const char *open = strchr(at, '<');
    enum rc rc = RC_OK;
    size_t bytes;

    memset(out, 0, sizeof(*out));
    if (open != NULL) {
        rc = take_name(at, (size_t)(open - at), out->name);
        at = open + 1;
    }
    bytes = strcspn(at, open != NULL ? ">" : " ");
    if (rc == RC_OK && bytes < sizeof(out->mailbox)) {
        memcpy(out->mailbox, at, bytes);
    }
    at += bytes;
    if (open != NULL) {
        rc = *at == '>' ? rc : RC_INVALID;
        at += *at == '>' ? 1 : 0;
    }
    if (rc != RC_OK || at[strspn(at, " ")] != '\0' ||
        !dotted_pair_valid(out->mailbox, ADDRESS_MAX_BYTES, false)) {
        memset(out, 0, sizeof(*out));
        return RC_INVALID;
    }
    return RC_OK;
}

/* ---- headers ----------------------------------------------------------------
 */

/* A header that is being written. */
struct header {
    struct text *out;
    size_t column; /* bytes of the line so far */
};

static void
header_begin(struct header *h, const char *name)
{
    text_puts(h->out, name);
    text_putc(h->out, ':');
    h->column = strlen(name) + 1;
}

/* A word that is not to be broken, on this line or on a new one. */
static void
header_word(struct header *h, const char *word, size_t bytes)
{
    if (h->column + 1 + bytes > LINE_MAX_BYTES) {
        text_puts(h->out, CRLF);
        h->column = 0;
    }
    text_putc(h->out, ' ');
    text_append(h->out, word, bytes);
    h->column += 1 + bytes;
}

static void
header_bracketed(struct header *h, const char *value)
{
    char word[ADDRESS_MAX_BYTES + 2];
    size_t bytes = strlen(value);

    _Static_assert(MAIL_ID_MAX_BYTES <= ADDRESS_MAX_BYTES, "fits both");
    word[0] = '<';
    memcpy(word + 1, value, bytes);
    word[bytes + 1] = '>';
    header_word(h, word, bytes + 2);
}

static void
header_plain(struct text *out, const char *name, const char *value)
{
    text_puts(out, name);
    text_puts(out, ": ");
    text_puts(out, value);
    text_puts(out, CRLF);
}

/* Can it be written as it is? chars: those that may be in it beside single
 * blanks; NULL: all printable ones. */
static bool
plain_words(const char *value, const char *chars)
{
    size_t word_bytes = 0;

    if (strstr(value, "=?") != NULL) {
        return false;
    }
    for (const char *p = value;; p++) {
        if (*p == ' ' || *p == '\0') {
            if (word_bytes == 0 || word_bytes > PLAIN_WORD_MAX_BYTES) {
                return false;
            }
            if (*p == '\0') {
                return true;
            }
            word_bytes = 0;
        } else if (*p > '~' || *p < ' ' ||
                   (chars != NULL && strchr(chars, *p) == NULL)) {
            return false;
        } else {
            word_bytes++;
        }
    }
}

/* Bytes as "=XX". */
static size_t
escape(const char *data, size_t length, char out[CHARACTER_BYTES])
{
    size_t bytes = 0;

    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)data[i];

        out[bytes] = '=';
        out[bytes + 1] = hex_digits[c >> 4];
        out[bytes + 2] = hex_digits[c & 15];
        bytes += 3;
    }
    return bytes;
}

/* One character into an encoded word's form. Letters and digits are as they
 * are, which is right in a phrase, too (RFC 2047 section 5). */
static size_t
encode_character(const char *data, size_t length, char out[CHARACTER_BYTES])
{
    char c = data[0];

    if (c == ' ') {
        out[0] = '_';
        return 1;
    }
    if ((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z')) {
        out[0] = c;
        return 1;
    }
    return escape(data, length, out);
}

/* As encoded words, each of whole characters; blanks between them vanish. The
 * first may be short, to fit behind the header's name. */
static void
header_encoded(struct header *h, const char *value)
{
    char word[WORD_MAX_BYTES];
    size_t used = strlen(WORD_BEGIN);
    size_t room = LINE_MAX_BYTES - h->column - 1;
    size_t left = strlen(value);

    memcpy(word, WORD_BEGIN, used);
    while (left > 0) {
        char encoded[CHARACTER_BYTES];
        size_t length = text_utf8_length(value, left);
        size_t bytes = encode_character(value, length, encoded);

        if (used + bytes + strlen(WORD_END) > room) {
            memcpy(word + used, WORD_END, strlen(WORD_END));
            header_word(h, word, used + strlen(WORD_END));
            used = strlen(WORD_BEGIN);
            room = WORD_MAX_BYTES;
        }
        memcpy(word + used, encoded, bytes);
        used += bytes;
        value += length;
        left -= length;
    }
    memcpy(word + used, WORD_END, strlen(WORD_END));
    header_word(h, word, used + strlen(WORD_END));
}

/* As it is if it can be, else as encoded words. */
static void
header_text(struct header *h, const char *value, const char *chars)
{
    if (!plain_words(value, chars)) {
        header_encoded(h, value);
        return;
    }
    while (*value != '\0') {
        size_t bytes = strcspn(value, " ");

        header_word(h, value, bytes);
        value += bytes + (value[bytes] == ' ' ? 1 : 0);
    }
}

/* Not strftime: its names are those of a locale. */
static void
put_date(struct text *out, int64_t date_unix_ms)
{
    static const char days[][4] = {"Sun", "Mon", "Tue", "Wed",
                                   "Thu", "Fri", "Sat"};
    static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t seconds = (time_t)(date_unix_ms / 1000);
    struct tm tm;

    (void)gmtime_r(&seconds, &tm);
    text_printf(out, "Date: %s, %02d %s %d %02d:%02d:%02d +0000" CRLF,
                days[tm.tm_wday], tm.tm_mday, months[tm.tm_mon],
                tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

static void
put_headers(const struct mail_message *m, struct text *out)
{
    struct header h = {.out = out};

    header_begin(&h, "From");
    if (m->from->name[0] != '\0') {
        header_text(&h, m->from->name, atom_chars);
    }
    header_bracketed(&h, m->from->mailbox);
    text_puts(out, CRLF);
    header_begin(&h, "To");
    header_bracketed(&h, m->to);
    text_puts(out, CRLF);
    header_begin(&h, "Subject");
    header_text(&h, m->subject, NULL);
    text_puts(out, CRLF);
    put_date(out, m->date_unix_ms);
    header_begin(&h, "Message-ID");
    header_bracketed(&h, m->id);
    text_puts(out, CRLF);
    header_plain(out, "MIME-Version", "1.0");
    header_plain(out, "Auto-Submitted", "auto-generated");
    header_plain(out, "Content-Type",
                 "multipart/alternative; boundary=\"" BOUNDARY "\"");
}

/* ---- parts ------------------------------------------------------------------
 */

/* Bytes of the line end at data: 0 (none), 1, or 2. */
static size_t
line_end_bytes(const char *data, size_t bytes)
{
    if (bytes == 0 || (data[0] != '\r' && data[0] != '\n')) {
        return 0;
    }
    return data[0] == '\r' && bytes > 1 && data[1] == '\n' ? 2 : 1;
}

/* One character in quoted-printable; last: a line end follows, or the end. */
static size_t
quote_character(const char *data, size_t length, bool last,
                char out[CHARACTER_BYTES])
{
    bool blank = data[0] == ' ' || data[0] == '\t';

    if ((blank && !last) ||
        (data[0] > ' ' && data[0] < 0x7f && data[0] != '=')) {
        out[0] = data[0];
        return 1;
    }
    return escape(data, length, out);
}

/* RFC 2045 section 6.7, ends with a line end. A soft break leaves room for its
 * '=', and does not split a character. */
static void
put_quoted(struct text *out, const char *data)
{
    size_t left = strlen(data);
    size_t column = 0;

    while (left > 0) {
        size_t length = line_end_bytes(data, left);

        if (length > 0) {
            text_puts(out, CRLF);
            column = 0;
        } else {
            char quoted[CHARACTER_BYTES];
            size_t bytes;
            bool last;

            length = text_utf8_length(data, left);
            last = length == left ||
                   line_end_bytes(data + length, left - length) > 0;
            bytes = quote_character(data, length, last, quoted);
            if (column + bytes > LINE_MAX_BYTES - (last ? 0 : 1)) {
                text_puts(out, "=" CRLF);
                column = 0;
            }
            text_append(out, quoted, bytes);
            column += bytes;
        }
        data += length;
        left -= length;
    }
    if (column > 0) {
        text_puts(out, CRLF);
    }
}

static void
put_part(struct text *out, const char *type, const char *data)
{
    text_puts(out, CRLF "--" BOUNDARY CRLF);
    text_printf(out, "Content-Type: %s; charset=utf-8" CRLF, type);
    header_plain(out, "Content-Transfer-Encoding", "quoted-printable");
    text_puts(out, CRLF);
    put_quoted(out, data);
}

enum rc
mail_message_compose(const struct mail_message *message, struct text *out)
{
    if (!message_valid(message)) {
        return RC_INVALID;
    }
    put_headers(message, out);
    put_part(out, "text/plain", message->text);
    put_part(out, "text/html", message->html);
    text_puts(out, CRLF "--" BOUNDARY "--" CRLF);
    return text_failed(out) ? RC_FULL : RC_OK;
}
