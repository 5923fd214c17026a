/* A growing byte string with a limit, whose failures stick. */
#include "shared/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/clock.h"

#define DEFAULT_MAX_BYTES ((size_t)64 << 20)
#define FIRST_CAPACITY 256U
#define INT64_DIGITS 20U /* with the sign */

void
text_reset(struct text *t)
{
    t->bytes = 0;
    t->failed = false;
    if (t->data != NULL) {
        t->data[0] = '\0';
    }
}

void
text_free(struct text *t)
{
    free(t->data);
    t->data = NULL;
    t->bytes = 0;
    t->capacity = 0;
    t->failed = false;
}

/* Make room for bytes more and a NUL. False, stickily, when there is none. */
static bool
reserve(struct text *t, size_t bytes)
{
    size_t max_bytes = t->max_bytes != 0 ? t->max_bytes : DEFAULT_MAX_BYTES;
    size_t need;
    size_t capacity;
    char *data;

    if (t->failed) {
        return false;
    }
    if (t->bytes > max_bytes || bytes > max_bytes - t->bytes) {
        t->failed = true;
        return false;
    }
    need = t->bytes + bytes + 1;
    if (need <= t->capacity) {
        return true;
    }
    capacity = t->capacity < FIRST_CAPACITY ? FIRST_CAPACITY : t->capacity * 2;
    if (capacity < need) {
        capacity = need;
    }
    data = realloc(t->data, capacity);
    if (data == NULL) {
        t->failed = true;
        return false;
    }
    t->data = data;
    t->capacity = capacity;
    return true;
}

void
text_append(struct text *t, const char *data, size_t bytes)
{
    if (!reserve(t, bytes)) {
        return;
    }
    if (bytes > 0) {
        memcpy(t->data + t->bytes, data, bytes);
        t->bytes += bytes;
    }
    t->data[t->bytes] = '\0';
}

void
text_puts(struct text *t, const char *string)
{
    text_append(t, string, strlen(string));
}

void
text_putc(struct text *t, char c)
{
    text_append(t, &c, 1);
}

void
text_printf(struct text *t, const char *format, ...)
{
    va_list args;
    size_t room = t->capacity - t->bytes;
    int bytes;

    if (t->failed) {
        return;
    }
    /* Most lines fit into what is there at the first try. */
    va_start(args, format);
    bytes = vsnprintf(room > 0 ? t->data + t->bytes : NULL, room, format, args);
    va_end(args);
    if (bytes < 0) {
        t->failed = true;
        return;
    }
    if (!reserve(t, (size_t)bytes)) {
        return;
    }
    if ((size_t)bytes >= room) {
        va_start(args, format);
        (void)vsnprintf(t->data + t->bytes, (size_t)bytes + 1, format, args);
        va_end(args);
    }
    t->bytes += (size_t)bytes;
}

void
text_int(struct text *t, int64_t value)
{
    char digits[INT64_DIGITS];
    char *p = digits + sizeof(digits);
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;

    do {
        *--p = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest != 0);
    if (value < 0) {
        *--p = '-';
    }
    text_append(t, p, (size_t)(digits + sizeof(digits) - p));
}

size_t
text_utf8_length(const char *data, size_t bytes)
{
    const unsigned char *p = (const unsigned char *)data;
    unsigned char low = 0x80; /* bounds of the second byte */
    unsigned char high = 0xbf;
    size_t length;

    if (bytes == 0) {
        return 0;
    }
    if (p[0] < 0x80) {
        return 1;
    }
    if (p[0] < 0xc2 || p[0] > 0xf4) {
        return 0;
    }
    if (p[0] < 0xe0) {
        length = 2;
    } else if (p[0] < 0xf0) {
        length = 3;
        low = p[0] == 0xe0 ? 0xa0 : 0x80;  /* overlong */
        high = p[0] == 0xed ? 0x9f : 0xbf; /* surrogates */
    } else {
        length = 4;
        low = p[0] == 0xf0 ? 0x90 : 0x80;  /* overlong */
        high = p[0] == 0xf4 ? 0x8f : 0xbf; /* > U+10FFFF */
    }
    if (bytes < length || p[1] < low || p[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return length;
}

/* The letter of a two-character escape, or 0. */
static char
short_escape(unsigned char c)
{
    switch (c) {
    case '"':
    case '\\':
        return (char)c;
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    default:
        return 0;
    }
}

void
text_json_string(struct text *t, const char *data, size_t bytes)
{
    size_t i = 0;
    size_t from = 0; /* what is to be copied as it is starts here */

    text_putc(t, '"');
    while (i < bytes) {
        unsigned char c = (unsigned char)data[i];
        size_t length = text_utf8_length(data + i, bytes - i);

        if (length > 0 && c >= ' ' && c != '"' && c != '\\') {
            i += length;
            continue;
        }
        text_append(t, data + from, i - from);
        if (length == 0) {
            text_puts(t, "\xef\xbf\xbd"); /* U+FFFD */
        } else if (short_escape(c) != 0) {
            text_putc(t, '\\');
            text_putc(t, short_escape(c));
        } else {
            text_printf(t, "\\u%04x", c);
        }
        i++;
        from = i;
    }
    if (i > from) {
        text_append(t, data + from, i - from);
    }
    text_putc(t, '"');
}

void
text_json_time(struct text *t, const char *name, int64_t unix_ms)
{
    char time[CLOCK_RFC3339_BYTES];

    text_printf(t, ",\"%s\":", name);
    if (unix_ms == 0) {
        text_puts(t, "null");
    } else {
        text_printf(t, "\"%s\"", clock_rfc3339(unix_ms, time));
    }
}

int
text_hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

const char *
text_cstr(const struct text *t)
{
    return t->failed || t->data == NULL ? "" : t->data;
}

bool
text_failed(const struct text *t)
{
    return t->failed;
}
