/* Strict JSON (RFC 8259) reader. One pass over the bytes checks UTF-8, control
 * characters, number syntax, depth, U+0000, lone surrogates and trailing
 * data, and notes each value in a tape that the caller provides. Nothing is
 * allocated, nothing is copied.
 *
 *   {"a":[1,2]}  ->  OBJECT(next=5) STRING"a" ARRAY(next=5) NUMBER1 NUMBER2
 *
 * A container's children follow it; `next` is the index behind its last
 * descendant. An object's children alternate key (STRING) and value.
 * Duplicate members are found by the object reader (fields.h), which knows
 * which names are the same. */
#ifndef SLUICE_SHARED_JSON_H
#define SLUICE_SHARED_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/rc.h"

#define JSON_MAX_DEPTH 16
#define JSON_MAX_SAFE_INTEGER INT64_C(9007199254740992) /* 2^53 */

enum json_type {
    JSON_NULL,
    JSON_FALSE,
    JSON_TRUE,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT,
};

struct json_token {
    uint32_t start; /* first byte in the text; of a string: behind the quote */
    uint32_t bytes; /* length; of a string: up to the closing quote */
    uint32_t next;  /* index of the token after this value and what is in it */
    uint8_t type;   /* enum json_type */
    bool escaped;   /* string holds a backslash */
};

struct json {
    const char *text;          /* borrowed */
    struct json_token *tokens; /* borrowed from the caller of json_scan */
    uint32_t count;
    uint32_t error_at; /* byte offset of the first error */
    const char *error; /* static text when json_scan failed, else NULL */
};

/* Scan bytes (<= 64 MiB) of text into at most max_tokens tokens.
 * RC_OK; RC_INVALID: not strict JSON, json->error says why and where;
 * RC_FULL: more than max_tokens values. Any thread. */
enum rc json_scan(const char *text, size_t bytes, struct json_token *tokens,
                  uint32_t max_tokens, struct json *json) MUST_CHECK;

/* Value of token i as an integer in [0, 2^53], digits only ("1e2", "1.0",
 * "-0" and "-1" are refused): else RC_INVALID. Any thread. */
enum rc json_uint53(const struct json *json, uint32_t i,
                    int64_t *out) MUST_CHECK;

/* Decode string token i with its escapes into out (size bytes, gets a NUL).
 * *bytes = length without it. RC_INVALID: not a string; RC_FULL: too long. */
enum rc json_string(const struct json *json, uint32_t i, char *out, size_t size,
                    size_t *bytes) MUST_CHECK;

/* Does string token i equal name (ASCII), without regard to ASCII case,
 * escapes decoded? */
bool json_key_is(const struct json *json, uint32_t i, const char *name);

/* Index of the value of member name (no regard to case) of object token i,
 * 0 when it is not there (0 is always the root, never a member). */
uint32_t json_member(const struct json *json, uint32_t i, const char *name);

/* Are these bytes well-formed UTF-8 (no surrogates, no overlong, <= U+10FFFF)?
 */
bool json_utf8_valid(const char *data, size_t bytes);

#endif
