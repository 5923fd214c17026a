/* The log: one line an event, built on the stack and written by one write(2),
 * so that lines of threads and processes that share stderr do not mix. */
#include "shared/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/text.h"

#define LINE_BYTES 1024U /* with the newline */
#define CUT "..."
#define CUT_BYTES 3U

/* The one state that every function may need: who speaks, and how much. */
static const char *program_name = "sluice";
static atomic_int current_level = LOG_INFO;

static const char *const level_names[] = {
    [LOG_ERROR] = "error",
    [LOG_WARN] = "warn",
    [LOG_INFO] = "info",
    [LOG_DEBUG] = "debug",
};

void
log_init(const char *program, enum log_level level)
{
    program_name = program;
    log_set_level(level);
}

void
log_set_level(enum log_level level)
{
    atomic_store_explicit(&current_level, (int)level, memory_order_relaxed);
}

enum rc
log_level_parse(const char *name, enum log_level *out)
{
    for (unsigned i = 0; i < ARRAY_COUNT(level_names); i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return RC_OK;
        }
    }
    *out = LOG_INFO;
    return RC_INVALID;
}

/* End the line of bytes (>= LINE_BYTES when it did not fit) and make one line
 * of it, whatever was in the arguments. Returns the length. */
static size_t
finish_line(char line[LINE_BYTES], size_t bytes)
{
    if (bytes > LINE_BYTES - 1) {
        size_t end = LINE_BYTES - 1 - CUT_BYTES;

        /* Do not leave half a character in front of the dots. */
        while (end > 0 && ((unsigned char)line[end] & 0xc0) == 0x80) {
            end--;
        }
        memcpy(line + end, CUT, CUT_BYTES);
        bytes = end + CUT_BYTES;
    }
    for (size_t i = 0; i < bytes; i++) {
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f) {
            line[i] = '?';
        }
    }
    line[bytes] = '\n';
    return bytes + 1;
}

void
log_event(enum log_level level, const char *event, const char *format, ...)
{
    char ts[CLOCK_RFC3339_BYTES];
    char line[LINE_BYTES + 1]; /* and a NUL */
    int saved_errno = errno;
    size_t bytes;
    ssize_t put;
    va_list args;
    int n;

    if ((int)level >
        atomic_load_explicit(&current_level, memory_order_relaxed)) {
        return;
    }
    n = snprintf(line, sizeof(line), "ts=%s level=%s prog=%s event=%s%s",
                 clock_rfc3339(clock_now_unix_ms(), ts), level_names[level],
                 program_name, event, format[0] != '\0' ? " " : "");
    bytes = n < 0 ? 0 : (size_t)n;
    if (bytes < LINE_BYTES) {
        va_start(args, format);
        n = vsnprintf(line + bytes, sizeof(line) - bytes, format, args);
        va_end(args);
        bytes += n < 0 ? 0 : (size_t)n;
    }
    bytes = finish_line(line, bytes);
    /* A log that cannot be written has no one to tell: the line is lost. */
    do {
        put = write(STDERR_FILENO, line, bytes);
    } while (put < 0 && errno == EINTR);
    errno = saved_errno;
}

/* One character of text as it goes into the log: bytes taken from text are
 * returned, what to write is in piece. */
static size_t
quote_piece(const char *text, size_t left, char piece[8])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char c = (unsigned char)text[0];
    size_t length = text_utf8_length(text, left);

    memset(piece, 0, 8);
    if (c == '"' || c == '\\') {
        piece[0] = '\\';
        piece[1] = (char)c;
    } else if (c == '\n' || c == '\r' || c == '\t') {
        piece[0] = '\\';
        piece[1] = c == '\n' ? 'n' : c == '\r' ? 'r' : 't';
    } else if (length == 0 || c < ' ' || c == 0x7f) {
        piece[0] = '\\';
        piece[1] = 'x';
        piece[2] = digits[c >> 4];
        piece[3] = digits[c & 0xf];
    } else {
        memcpy(piece, text, length);
        return length;
    }
    return 1;
}

static bool
needs_quotes(const char *text, size_t bytes)
{
    if (bytes == 0) {
        return true;
    }
    for (size_t i = 0; i < bytes;) {
        unsigned char c = (unsigned char)text[i];
        size_t length = text_utf8_length(text + i, bytes - i);

        if (length == 0 || c <= ' ' || c == 0x7f || c == '"' || c == '\\' ||
            c == '=') {
            return true;
        }
        i += length;
    }
    return false;
}

const char *
log_quote(const char *text, char *out, unsigned long size)
{
    size_t bytes = text != NULL ? strlen(text) : 0;
    bool quoted = needs_quotes(text, bytes);
    size_t end = size - (quoted ? 2U : 1U); /* closing quote, NUL */
    size_t used = 0;
    size_t cut; /* where the dots go if the rest does not fit */

    if (quoted) {
        out[used++] = '"';
    }
    cut = used;
    for (size_t i = 0; i < bytes;) {
        char piece[8];
        size_t taken = quote_piece(text + i, bytes - i, piece);
        size_t length = strlen(piece);

        if (used + length > end) {
            memcpy(out + cut, CUT, CUT_BYTES);
            used = cut + CUT_BYTES;
            break;
        }
        memcpy(out + used, piece, length);
        used += length;
        if (used + CUT_BYTES <= end) {
            cut = used;
        }
        i += taken;
    }
    if (quoted) {
        out[used++] = '"';
    }
    out[used] = '\0';
    return out;
}
