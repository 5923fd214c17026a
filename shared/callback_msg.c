/* The callback service's message: decode a client's body, and the forms that
 * the journal and the push frames carry. */
#include "shared/callback_msg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/json.h"

/* 200 ids, their array, the root and its names fit with room for members that
 * are ignored; what has more values is scanned again with an allocated tape. */
#define TAPE_TOKENS 512U
#define UINT53_DIGITS 16U
#define UINT53_VARINT_BITS 56U /* eight bytes hold up to 2^53 */
#define VARINT64_BYTES 10U

/* The journal form's first byte; another one for another form. */
#define FORM_IDS 1U

/* A set of at most CALLBACK_IDS_MAX ids: open addressing, less than half
 * full. */
#define SET_BITS 9U
#define SET_SLOTS (1U << SET_BITS)
_Static_assert(CALLBACK_IDS_MAX * 2 <= SET_SLOTS, "the set would fill up");
_Static_assert(CALLBACK_IDS_MAX < UINT8_MAX, "a slot holds an index + 1");

struct id_set {
    uint8_t slots[SET_SLOTS]; /* index into the message's ids + 1; 0: free */
};

enum { FIELD_OBJECT_IDS, FIELD_COUNT };

static const struct field request_fields[FIELD_COUNT] = {
    [FIELD_OBJECT_IDS] =
        {
            .name = "object_ids",
            .type = JSON_ARRAY,
            .required = true,
        },
};

/* Append id to the message unless it is there. False: it was. */
static bool
add_id(struct id_set *set, struct callback_msg *msg, int64_t id)
{
    unsigned slot = (unsigned)(((uint64_t)id * UINT64_C(0x9e3779b97f4a7c15)) >>
                               (64U - SET_BITS));

    while (set->slots[slot] != 0) {
        if (msg->ids[set->slots[slot] - 1] == id) {
            return false;
        }
        slot = (slot + 1) % SET_SLOTS;
    }
    msg->ids[msg->count++] = id;
    set->slots[slot] = (uint8_t)msg->count;
    return true;
}

/* How many values the array holds, whatever is nested in them. */
static unsigned
count_elements(const struct json *json, uint32_t array)
{
    unsigned count = 0;

    for (uint32_t i = array + 1; i < json->tokens[array].next;
         i = json->tokens[i].next) {
        count++;
    }
    return count;
}

static enum rc
read_ids(const struct json *json, uint32_t array, struct callback_msg *out,
         struct field_errors *errors)
{
    const struct json_token *tokens = json->tokens;
    struct id_set set = {{0}};
    enum rc rc = RC_OK;
    unsigned index = 0;

    /* Tokens bound the elements: only a body that may hold too many of them
     * is counted. */
    if (tokens[array].next - array - 1 > CALLBACK_IDS_MAX) {
        unsigned count = count_elements(json, array);

        if (count > CALLBACK_IDS_MAX) {
            field_errors_add(errors, "object_ids", "at most %d ids, got %u",
                             CALLBACK_IDS_MAX, count);
            return RC_INVALID;
        }
    }
    for (uint32_t i = array + 1; i < tokens[array].next; i = tokens[i].next) {
        int64_t id;

        if (json_uint53(json, i, &id) == RC_OK) {
            (void)add_id(&set, out, id);
        } else {
            char name[FIELD_NAME_BYTES];

            (void)snprintf(name, sizeof(name), "object_ids[%u]", index);
            field_errors_add(errors, name,
                             "must be an integer from 0 to 9007199254740992");
            rc = RC_INVALID;
        }
        index++;
    }
    return rc;
}

static enum rc
read_document(const struct json *json, struct callback_msg *out,
              struct field_errors *errors)
{
    uint32_t values[FIELD_COUNT];
    enum rc rc = fields_read(json, request_fields, FIELD_COUNT, values, errors);

    if (rc != RC_OK) {
        return rc;
    }
    return read_ids(json, values[FIELD_OBJECT_IDS], out, errors);
}

enum rc
callback_msg_from_request(const char *body, size_t bytes,
                          struct callback_msg *out, struct field_errors *errors)
{
    struct json_token on_stack[TAPE_TOKENS];
    struct json_token *allocated = NULL;
    struct json json;
    enum rc rc;

    out->count = 0;
    errors->count = 0;
    if (bytes == 0) {
        field_errors_add(errors, "", "the body is empty");
        return RC_INVALID;
    }
    rc = json_scan(body, bytes, on_stack, TAPE_TOKENS, &json);
    if (rc == RC_FULL) {
        /* Two values need a byte between them, only nesting does not. */
        size_t tokens = bytes / 2 + JSON_MAX_DEPTH + 1;

        allocated = calloc(tokens, sizeof(*allocated));
        if (allocated == NULL) {
            rc = RC_NOMEM;
            goto out;
        }
        rc = json_scan(body, bytes, allocated, (uint32_t)tokens, &json);
    }
    if (rc != RC_OK) {
        field_errors_add(errors, "", "not valid JSON: %s at byte %u",
                         json.error, (unsigned)json.error_at);
        rc = RC_INVALID;
        goto out;
    }
    rc = read_document(&json, out, errors);
out:
    if (rc != RC_OK) {
        out->count = 0;
    }
    free(allocated);
    return rc;
}

/* Unsigned LEB128: seven bits a byte, the lowest first; every byte but the last
 * has its top bit set. */
static uint8_t *
put_varint(uint8_t *p, uint64_t value)
{
    while (value > 0x7f) {
        *p++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *p++ = (uint8_t)value;
    return p;
}

void
callback_msg_encode(const struct callback_msg *msg, struct text *out)
{
    uint8_t form[2 + CALLBACK_IDS_MAX * VARINT64_BYTES];
    uint8_t *p = form;

    *p++ = FORM_IDS;
    *p++ = (uint8_t)msg->count;
    for (unsigned i = 0; i < msg->count && i < CALLBACK_IDS_MAX; i++) {
        p = put_varint(p, (uint64_t)msg->ids[i]);
    }
    text_append(out, (const char *)form, (size_t)(p - form));
}

/* One varint of at most 2^53, as put_varint writes it: no zero bits on top. */
static const uint8_t *
take_varint(const uint8_t *p, const uint8_t *end, int64_t *out)
{
    uint64_t value = 0;

    for (unsigned bits = 0; p < end && bits < UINT53_VARINT_BITS; bits += 7) {
        uint8_t byte = *p++;

        value |= (uint64_t)(byte & 0x7fU) << bits;
        if (byte < 0x80) {
            *out = (int64_t)value;
            return (byte == 0 && bits > 0) ||
                           value > (uint64_t)JSON_MAX_SAFE_INTEGER
                       ? NULL
                       : p;
        }
    }
    return NULL;
}

static bool
decode_ids(const uint8_t *p, const uint8_t *end, struct callback_msg *out)
{
    struct id_set set = {{0}};
    unsigned count;

    if (end - p < 2 || p[0] != FORM_IDS || p[1] > CALLBACK_IDS_MAX) {
        return false;
    }
    count = p[1];
    p += 2;
    for (unsigned i = 0; i < count; i++) {
        int64_t id = 0;

        p = take_varint(p, end, &id);
        if (p == NULL || !add_id(&set, out, id)) {
            return false;
        }
    }
    return p == end;
}

enum rc
callback_msg_decode(const char *body, size_t bytes, struct callback_msg *out)
{
    const uint8_t *p = (const uint8_t *)body;

    out->count = 0;
    if (!decode_ids(p, p + bytes, out)) {
        out->count = 0;
        return RC_INVALID;
    }
    return RC_OK;
}

/* ---- outcomes ---------------------------------------------------------------
 */

/* Decimal digits of value (>= 0) at p. Returns what is behind them. */
static char *
put_uint(char *p, int64_t value)
{
    char digits[20];
    unsigned n = 0;
    uint64_t rest = (uint64_t)value;

    do {
        digits[n++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest != 0);
    while (n > 0) {
        *p++ = digits[--n];
    }
    return p;
}

/* Reader of an outcome, which allows no space and no second way to
 * write anything. */
struct reader {
    const char *p;
    const char *end;
};

static bool
take(struct reader *r, char c)
{
    if (r->p < r->end && *r->p == c) {
        r->p++;
        return true;
    }
    return false;
}

static bool
take_uint53(struct reader *r, int64_t *out)
{
    const char *start = r->p;
    uint64_t value = 0;
    size_t digits;

    while (r->p < r->end && r->p - start <= (ptrdiff_t)UINT53_DIGITS) {
        unsigned digit = (unsigned)(*r->p - '0');

        if (digit > 9) {
            break;
        }
        value = value * 10 + digit;
        r->p++;
    }
    digits = (size_t)(r->p - start);
    if (digits == 0 || (*start == '0' && digits > 1) ||
        value > (uint64_t)JSON_MAX_SAFE_INTEGER) {
        return false;
    }
    *out = (int64_t)value;
    return true;
}

void
callback_outcome_encode(const struct callback_object *objects, unsigned count,
                        struct text *out)
{
    text_putc(out, '[');
    for (unsigned i = 0; i < count; i++) {
        char form[72]; /* three numbers, brackets and commas */
        char *p = form;

        if (i > 0) {
            *p++ = ',';
        }
        *p++ = '[';
        p = put_uint(p, objects[i].id);
        *p++ = ',';
        p = put_uint(p, objects[i].last_seen_unix_ms);
        *p++ = ',';
        p = put_uint(p, objects[i].seq);
        *p++ = ']';
        text_append(out, form, (size_t)(p - form));
    }
    text_putc(out, ']');
}

static bool
decode_object(struct reader *r, struct callback_object *out)
{
    return take(r, '[') && take_uint53(r, &out->id) && take(r, ',') &&
           take_uint53(r, &out->last_seen_unix_ms) && take(r, ',') &&
           take_uint53(r, &out->seq) && take(r, ']');
}

static bool
decode_objects(struct reader *r, struct callback_object *objects,
               unsigned *count)
{
    if (!take(r, '[')) {
        return false;
    }
    if (!take(r, ']')) {
        do {
            if (*count == CALLBACK_OUTCOME_MAX ||
                !decode_object(r, &objects[*count])) {
                return false;
            }
            (*count)++;
        } while (take(r, ','));
        if (!take(r, ']')) {
            return false;
        }
    }
    return r->p == r->end;
}

enum rc
callback_outcome_decode(const char *body, size_t bytes,
                        struct callback_object *objects, unsigned *count)
{
    struct reader r = {body, body + bytes};

    *count = 0;
    if (!decode_objects(&r, objects, count)) {
        *count = 0;
        return RC_INVALID;
    }
    return RC_OK;
}
