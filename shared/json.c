/* Strict JSON (RFC 8259) reader into a flat tape.
 *
 * json_scan() is on the way of every request: one pass, no recursion (open
 * containers are a stack of at most JSON_MAX_DEPTH indices), a byte class
 * decides per value, digits and plain ASCII are taken in tight loops. */
#include "shared/json.h"

#include <string.h>

#include "shared/text.h"

#define SCAN_BYTES_MAX ((size_t)64 << 20)
#define UINT53_DIGITS 16U /* of 2^53 */
#define CODE_POINT_NONE UINT32_MAX

struct scanner {
    const char *text;
    const char *p;
    const char *end;
    struct json_token *tokens;
    uint32_t count;
    uint32_t max_tokens;
    uint32_t depth;
    uint32_t open[JSON_MAX_DEPTH]; /* token index of each open container */
    const char *error;
    const char *error_at;
};

/* Every failure goes through here: what is wrong, and at which byte. */
static enum rc
fail(struct scanner *s, const char *at, const char *error)
{
    s->error = error;
    s->error_at = at;
    return RC_INVALID;
}

static inline bool
is_digit(char c)
{
    return (unsigned)(c - '0') < 10;
}

static inline const char *
skip_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) {
        p++;
    }
    return p;
}

/* The caller has seen that there is room in the tape. */
static inline struct json_token *
add_token(struct scanner *s, enum json_type type, const char *start)
{
    struct json_token *token = &s->tokens[s->count++];

    token->start = (uint32_t)(start - s->text);
    token->next = s->count;
    token->type = (uint8_t)type;
    token->escaped = false;
    return token;
}

static enum rc
scan_fraction_and_exponent(struct scanner *s, const char *p, const char **out)
{
    const char *end = s->end;

    if (*p == '.') {
        p++;
        if (p == end || !is_digit(*p)) {
            return fail(s, p, "digit expected after the decimal point");
        }
        while (p < end && is_digit(*p)) {
            p++;
        }
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-')) {
            p++;
        }
        if (p == end || !is_digit(*p)) {
            return fail(s, p, "digit expected in the exponent");
        }
        while (p < end && is_digit(*p)) {
            p++;
        }
    }
    *out = p;
    return RC_OK;
}

static inline enum rc
scan_number(struct scanner *s)
{
    const char *start = s->p;
    const char *end = s->end;
    const char *p = start;
    const char *digits;

    if (*p == '-') {
        p++;
    }
    digits = p;
    while (p < end && is_digit(*p)) {
        p++;
    }
    if (p == digits) {
        return fail(s, p, "digit expected in a number");
    }
    if (*digits == '0' && p - digits > 1) {
        return fail(s, digits, "number with a leading zero");
    }
    if (p < end && (*p == '.' || *p == 'e' || *p == 'E')) {
        enum rc rc = scan_fraction_and_exponent(s, p, &p);

        if (rc != RC_OK) {
            return rc;
        }
    }
    add_token(s, JSON_NUMBER, start)->bytes = (uint32_t)(p - start);
    s->p = p;
    return RC_OK;
}

/* The four hex digits at p, or CODE_POINT_NONE. */
static uint32_t
read_hex4(const char *p, const char *end)
{
    uint32_t value = 0;

    if (end - p < 4) {
        return CODE_POINT_NONE;
    }
    for (int i = 0; i < 4; i++) {
        int digit = text_hex_value(p[i]);

        if (digit < 0) {
            return CODE_POINT_NONE;
        }
        value = value << 4 | (uint32_t)digit;
    }
    return value;
}

/* Check the escape at p (a backslash); *out = behind it. */
static enum rc
scan_escape(struct scanner *s, const char *p, const char **out)
{
    const char *at = p;
    uint32_t unit;

    if (s->end - p < 2) {
        return fail(s, s->end, "unterminated string");
    }
    if (p[1] != 'u') {
        if (p[1] == '\0' || strchr("\"\\/bfnrt", p[1]) == NULL) {
            return fail(s, at, "unknown escape in a string");
        }
        *out = p + 2;
        return RC_OK;
    }
    unit = read_hex4(p + 2, s->end);
    if (unit == CODE_POINT_NONE) {
        return fail(s, at, "four hex digits expected after \\u");
    }
    if (unit == 0) {
        return fail(s, at, "U+0000 in a string");
    }
    p += 6;
    if (unit >= 0xd800 && unit <= 0xdfff) {
        uint32_t low = CODE_POINT_NONE;

        if (unit <= 0xdbff && s->end - p >= 6 && p[0] == '\\' && p[1] == 'u') {
            low = read_hex4(p + 2, s->end);
        }
        if (low < 0xdc00 || low > 0xdfff) {
            return fail(s, at, "lone surrogate in a string");
        }
        p += 6;
    }
    *out = p;
    return RC_OK;
}

/* Skip what needs no look: ASCII that is neither a control character nor a
 * quote or backslash, eight bytes at a time. */
static inline const char *
skip_plain(const char *p, const char *end)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    const uint64_t high = UINT64_C(0x8080808080808080);

    while (end - p >= 8) {
        uint64_t w;
        uint64_t quote;
        uint64_t backslash;

        memcpy(&w, p, 8);
        quote = w ^ (ones * '"');
        backslash = w ^ (ones * '\\');
        /* A zero byte borrows into its high bit: exact for the first hit,
         * and a false one behind it only ends the fast loop early. */
        if (((w | (w - ones * ' ') | (quote - ones) | (backslash - ones)) &
             high) != 0) {
            break;
        }
        p += 8;
    }
    while (p < end && *p >= ' ' && *p != '"' && *p != '\\') {
        /* char may be unsigned elsewhere: stop at what is not ASCII. */
        if ((unsigned char)*p >= 0x80) {
            break;
        }
        p++;
    }
    return p;
}

static enum rc
scan_string(struct scanner *s)
{
    const char *quote = s->p;
    const char *p = quote + 1;
    const char *end = s->end;
    struct json_token *token = add_token(s, JSON_STRING, p);

    for (;;) {
        p = skip_plain(p, end);
        if (p == end) {
            return fail(s, quote, "unterminated string");
        }
        if (*p == '"') {
            break;
        }
        if (*p == '\\') {
            enum rc rc = scan_escape(s, p, &p);

            if (rc != RC_OK) {
                return rc;
            }
            token->escaped = true;
        } else if ((unsigned char)*p < ' ') {
            return fail(s, p,
                        *p == '\0' ? "U+0000 in a string"
                                   : "control character in a string");
        } else {
            size_t length = text_utf8_length(p, (size_t)(end - p));

            if (length == 0) {
                return fail(s, p, "invalid UTF-8");
            }
            p += length;
        }
    }
    token->bytes = (uint32_t)(p - quote - 1);
    s->p = p + 1;
    return RC_OK;
}

static enum rc
scan_word(struct scanner *s, const char *word, size_t bytes,
          enum json_type type)
{
    if ((size_t)(s->end - s->p) < bytes || memcmp(s->p, word, bytes) != 0) {
        return fail(s, s->p, "true, false or null expected");
    }
    add_token(s, type, s->p)->bytes = (uint32_t)bytes;
    s->p += bytes;
    return RC_OK;
}

/* Nothing that can begin a value: say which kind of nothing. */
static enum rc
fail_value(struct scanner *s)
{
    unsigned char c = (unsigned char)*s->p;

    if (text_utf8_length(s->p, (size_t)(s->end - s->p)) == 0) {
        return fail(s, s->p, "invalid UTF-8");
    }
    if (c < ' ') {
        return fail(s, s->p, "control character outside of a string");
    }
    if (s->p == s->text && c == 0xef) {
        return fail(s, s->p, "byte order mark or other text before the value");
    }
    if (c == ',' || c == ']' || c == '}') {
        return fail(s, s->p, "a value is missing");
    }
    return fail(s, s->p, "not the beginning of a value");
}

static enum rc
open_container(struct scanner *s, enum json_type type)
{
    if (s->depth == JSON_MAX_DEPTH) {
        return fail(s, s->p, "nesting deeper than 16");
    }
    s->open[s->depth++] = s->count;
    add_token(s, type, s->p)->bytes = 1;
    s->p++;
    return RC_OK;
}

/* One value at s->p, of a container only its beginning. */
static inline enum rc
scan_value(struct scanner *s)
{
    char c = *s->p;

    if (s->count == s->max_tokens) {
        (void)fail(s, s->p, "too many values");
        return RC_FULL;
    }
    if (is_digit(c) || c == '-') {
        return scan_number(s);
    }
    switch (c) {
    case '"':
        return scan_string(s);
    case '[':
        return open_container(s, JSON_ARRAY);
    case '{':
        return open_container(s, JSON_OBJECT);
    case 't':
        return scan_word(s, "true", 4, JSON_TRUE);
    case 'f':
        return scan_word(s, "false", 5, JSON_FALSE);
    case 'n':
        return scan_word(s, "null", 4, JSON_NULL);
    default:
        return fail_value(s);
    }
}

/* A member's name and its colon, up to the value. */
static enum rc
scan_key(struct scanner *s)
{
    enum rc rc;

    s->p = skip_space(s->p, s->end);
    if (s->p == s->end) {
        return fail(s, s->p, "unterminated object");
    }
    if (*s->p != '"') {
        return fail(s, s->p, "member name in quotes expected");
    }
    rc = scan_value(s);
    if (rc != RC_OK) {
        return rc;
    }
    s->p = skip_space(s->p, s->end);
    if (s->p == s->end) {
        return fail(s, s->p, "unterminated object");
    }
    if (*s->p != ':') {
        return fail(s, s->p, "colon expected after a member name");
    }
    s->p++;
    return RC_OK;
}

/* Behind a value: close what closes here. *more = another value follows. */
static inline enum rc
after_value(struct scanner *s, bool *more)
{
    for (;;) {
        struct json_token *container;
        bool is_array;

        s->p = skip_space(s->p, s->end);
        if (s->depth == 0) {
            *more = false;
            return s->p == s->end ? RC_OK : fail(s, s->p, "trailing data");
        }
        container = &s->tokens[s->open[s->depth - 1]];
        is_array = container->type == JSON_ARRAY;
        if (s->p == s->end) {
            return fail(s, s->p,
                        is_array ? "unterminated array"
                                 : "unterminated object");
        }
        if (*s->p == ',') {
            s->p++;
            *more = true;
            return is_array ? RC_OK : scan_key(s);
        }
        if (*s->p != (is_array ? ']' : '}')) {
            return fail(s, s->p,
                        is_array ? "comma or ] expected"
                                 : "comma or } expected");
        }
        s->p++;
        container->bytes = (uint32_t)(s->p - s->text) - container->start;
        container->next = s->count;
        s->depth--;
    }
}

static enum rc
scan_document(struct scanner *s)
{
    bool more = true;

    while (more) {
        uint32_t depth = s->depth;
        enum rc rc;

        s->p = skip_space(s->p, s->end);
        if (s->p == s->end) {
            return fail(s, s->p, "a value is missing");
        }
        rc = scan_value(s);
        if (rc != RC_OK) {
            return rc;
        }
        if (s->depth > depth) {
            /* Just opened: empty, or straight on to the first child. */
            bool is_object = s->tokens[s->count - 1].type == JSON_OBJECT;

            s->p = skip_space(s->p, s->end);
            if (s->p == s->end || *s->p != (is_object ? '}' : ']')) {
                rc = is_object ? scan_key(s) : RC_OK;
                if (rc != RC_OK) {
                    return rc;
                }
                continue;
            }
        }
        rc = after_value(s, &more);
        if (rc != RC_OK) {
            return rc;
        }
    }
    return RC_OK;
}

enum rc
json_scan(const char *text, size_t bytes, struct json_token *tokens,
          uint32_t max_tokens, struct json *json)
{
    struct scanner s;
    enum rc rc;

    memset(json, 0, sizeof(*json));
    json->text = text;
    json->tokens = tokens;
    if (bytes == 0) {
        json->error = "the text is empty";
        return RC_INVALID;
    }
    if (bytes > SCAN_BYTES_MAX) {
        json->error = "the text is longer than 64 MiB";
        return RC_INVALID;
    }
    s.text = text;
    s.p = text;
    s.end = text + bytes;
    s.tokens = tokens;
    s.count = 0;
    s.max_tokens = max_tokens;
    s.depth = 0;
    s.error = NULL;
    s.error_at = text;
    rc = scan_document(&s);
    if (rc != RC_OK) {
        json->error = s.error;
        json->error_at = (uint32_t)(s.error_at - text);
        return rc;
    }
    json->count = s.count;
    return RC_OK;
}

enum rc
json_uint53(const struct json *json, uint32_t i, int64_t *out)
{
    const struct json_token *token = &json->tokens[i];
    const char *p = json->text + token->start;
    uint64_t value = 0; /* 16 digits fit */

    *out = 0;
    if (token->type != JSON_NUMBER || token->bytes > UINT53_DIGITS) {
        return RC_INVALID;
    }
    for (uint32_t k = 0; k < token->bytes; k++) {
        unsigned digit = (unsigned)(p[k] - '0');

        if (digit > 9) {
            return RC_INVALID;
        }
        value = value * 10 + digit;
    }
    if (value > (uint64_t)JSON_MAX_SAFE_INTEGER) {
        return RC_INVALID;
    }
    *out = (int64_t)value;
    return RC_OK;
}

/* Append the UTF-8 form of a code point to out (room for 4). Its length. */
static size_t
put_utf8(uint32_t c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* Decode one unit of a string that json_scan has checked: an escape or one
 * byte. *length = bytes in piece. Returns the bytes taken from p. */
static size_t
decode_piece(const char *p, const char *end, char piece[4], size_t *length)
{
    static const char from[] = "bfnrt";
    static const char to[] = "\b\f\n\r\t";
    const char *found;
    uint32_t c;

    *length = 1;
    if (*p != '\\') {
        piece[0] = *p;
        return 1;
    }
    if (p[1] != 'u') {
        found = strchr(from, p[1]);
        piece[0] = found != NULL ? to[found - from] : p[1];
        return 2;
    }
    c = read_hex4(p + 2, end);
    if (c >= 0xd800 && c <= 0xdbff) {
        uint32_t low = read_hex4(p + 8, end);

        *length =
            put_utf8(0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00), piece);
        return 12;
    }
    *length = put_utf8(c, piece);
    return 6;
}

static enum rc
decode_string(const struct json *json, uint32_t i, char *out, size_t size,
              size_t *bytes)
{
    const struct json_token *token = &json->tokens[i];
    const char *p = json->text + token->start;
    const char *end = p + token->bytes;

    if (token->type != JSON_STRING) {
        return RC_INVALID;
    }
    if (!token->escaped) {
        if (token->bytes >= size) {
            return RC_FULL;
        }
        memcpy(out, p, token->bytes);
        *bytes = token->bytes;
        return RC_OK;
    }
    while (p < end) {
        char piece[4];
        size_t length;

        p += decode_piece(p, end, piece, &length);
        if (*bytes + length >= size) {
            return RC_FULL;
        }
        memcpy(out + *bytes, piece, length);
        *bytes += length;
    }
    return size > 0 ? RC_OK : RC_FULL;
}

enum rc
json_string(const struct json *json, uint32_t i, char *out, size_t size,
            size_t *bytes)
{
    enum rc rc;

    *bytes = 0;
    rc = decode_string(json, i, out, size, bytes);
    if (rc != RC_OK) {
        *bytes = 0;
    }
    if (size > 0) {
        out[*bytes] = '\0';
    }
    return rc;
}

static char
ascii_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

bool
json_key_is(const struct json *json, uint32_t i, const char *name)
{
    const struct json_token *token = &json->tokens[i];
    const char *p = json->text + token->start;
    const char *end = p + token->bytes;

    if (token->type != JSON_STRING) {
        return false;
    }
    while (p < end) {
        char piece[4];
        size_t length;

        p += decode_piece(p, end, piece, &length);
        /* A name is ASCII: whatever takes more bytes differs. */
        if (length != 1 || *name == '\0' ||
            ascii_lower(piece[0]) != ascii_lower(*name)) {
            return false;
        }
        name++;
    }
    return *name == '\0';
}

uint32_t
json_member(const struct json *json, uint32_t i, const char *name)
{
    const struct json_token *tokens = json->tokens;
    uint32_t key = i + 1;

    if (tokens[i].type != JSON_OBJECT) {
        return 0;
    }
    while (key < tokens[i].next) {
        if (json_key_is(json, key, name)) {
            return key + 1;
        }
        key = tokens[key + 1].next;
    }
    return 0;
}

bool
json_utf8_valid(const char *data, size_t bytes)
{
    size_t i = 0;

    while (i < bytes) {
        size_t length = text_utf8_length(data + i, bytes - i);

        if (length == 0) {
            return false;
        }
        i += length;
    }
    return true;
}
