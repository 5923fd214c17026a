/* A growing byte string with a limit. Building fails stickily: append as much
 * as you like and check text_failed() once at the end. */
#ifndef SLUICE_SHARED_TEXT_H
#define SLUICE_SHARED_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/rc.h"

struct text {
    char *data;      /* NUL-terminated once something was appended; else NULL */
    size_t bytes;    /* without the NUL */
    size_t capacity; /* allocated */
    size_t max_bytes; /* bound; 0 = 64 MiB */
    bool failed;      /* out of memory or over the bound */
};

/* {0} is an empty text. text_reset keeps the memory for the next use;
 * text_free releases it and leaves an empty text. */
void text_reset(struct text *t);
void text_free(struct text *t);

void text_append(struct text *t, const char *data, size_t bytes);
void text_puts(struct text *t, const char *string);
void text_putc(struct text *t, char c);
void text_printf(struct text *t, const char *format, ...) PRINTF_LIKE(2, 3);
/* Decimal without the cost of printf. */
void text_int(struct text *t, int64_t value);
/* "..." with JSON escapes; bytes that are not UTF-8 become U+FFFD. */
void text_json_string(struct text *t, const char *data, size_t bytes);
/* ,"name":"2026-01-02T03:04:05.678Z", a further member; 0: null. */
void text_json_time(struct text *t, const char *name, int64_t unix_ms);

/* Length (1-4) of the well-formed UTF-8 sequence that data begins with (no
 * surrogate, nothing overlong, <= U+10FFFF); 0: none, or bytes == 0. Any
 * thread. */
size_t text_utf8_length(const char *data, size_t bytes);

/* 0-15; -1: c is no hex digit of either case. Any thread. */
int text_hex_value(char c);

/* The text so far, "" when empty or failed. Valid until the next change. */
const char *text_cstr(const struct text *t);
bool text_failed(const struct text *t);

#endif
