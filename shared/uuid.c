/* UUIDv7 generator: time, a counter that keeps ids of one millisecond in
 * order, random bits, and the node in the last 16 bits.
 *
 *   0-5 unix_ms | 6-7 version 7, counter (12) | 8-13 variant, random (46) |
 *   14-15 node */
#include "shared/uuid.h"

#include <errno.h>
#include <string.h>

#include <sys/random.h>

#include "shared/text.h"

#define TIME_MAX ((INT64_C(1) << 48) - 1)
#define COUNTER_MAX 0xfffU
#define COUNTER_SEED_MAX 0x7ffU /* leaves room for 2048 ids before a borrow */
#define RANDOM_PER_ID 8U

static const uint8_t dash_before[UUID_BYTES] = {
    [4] = 1, [6] = 1, [8] = 1, [10] = 1};

void
uuid_source_init(struct uuid_source *s, uint16_t node_id)
{
    memset(s, 0, sizeof(*s));
    s->last_unix_ms = -1;
    s->node_id = node_id;
    s->random_used = sizeof(s->random);
}

static enum rc
take_random(struct uuid_source *s, uint8_t out[RANDOM_PER_ID])
{
    if (s->random_used + RANDOM_PER_ID > sizeof(s->random)) {
        ssize_t got;

        do {
            got = getrandom(s->random, sizeof(s->random), 0);
        } while (got < 0 && errno == EINTR);
        if (got != (ssize_t)sizeof(s->random)) {
            s->random_used = sizeof(s->random);
            return RC_IO;
        }
        s->random_used = 0;
    }
    memcpy(out, s->random + s->random_used, RANDOM_PER_ID);
    s->random_used += RANDOM_PER_ID;
    return RC_OK;
}

enum rc
uuid_next(struct uuid_source *s, int64_t now_unix_ms, struct uuid *out)
{
    uint8_t random[RANDOM_PER_ID];
    enum rc rc = take_random(s, random);

    memset(out, 0, sizeof(*out));
    if (rc != RC_OK) {
        return rc;
    }
    if (now_unix_ms < 0) {
        now_unix_ms = 0;
    } else if (now_unix_ms > TIME_MAX) {
        now_unix_ms = TIME_MAX;
    }
    /* When the clock stands or steps back, the last time stays and only the
     * counter moves, into the next millisecond if it must. */
    if (now_unix_ms > s->last_unix_ms) {
        s->last_unix_ms = now_unix_ms;
        s->counter =
            (uint16_t)((random[6] << 8 | random[7]) & (int)COUNTER_SEED_MAX);
    } else if (s->counter < COUNTER_MAX) {
        s->counter++;
    } else {
        s->last_unix_ms++;
        s->counter = 0;
    }
    for (int i = 0; i < 6; i++) {
        out->bytes[i] = (uint8_t)(s->last_unix_ms >> (40 - 8 * i));
    }
    out->bytes[6] = (uint8_t)(0x70 | s->counter >> 8);
    out->bytes[7] = (uint8_t)s->counter;
    memcpy(out->bytes + 8, random, 6);
    out->bytes[8] = (uint8_t)(0x80 | (out->bytes[8] & 0x3f));
    out->bytes[14] = (uint8_t)(s->node_id >> 8);
    out->bytes[15] = (uint8_t)s->node_id;
    return RC_OK;
}

char *
uuid_format(const struct uuid *id, char out[UUID_TEXT_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    char *p = out;

    for (unsigned i = 0; i < UUID_BYTES; i++) {
        if (dash_before[i]) {
            *p++ = '-';
        }
        *p++ = digits[id->bytes[i] >> 4];
        *p++ = digits[id->bytes[i] & 0xf];
    }
    *p = '\0';
    return out;
}

static enum rc
parse_bytes(const char *text, struct uuid *out)
{
    const char *p = text;

    for (unsigned i = 0; i < UUID_BYTES; i++) {
        int high;
        int low;

        if (dash_before[i] && *p++ != '-') {
            return RC_INVALID;
        }
        /* A NUL is no digit, so nothing behind it is looked at. */
        high = text_hex_value(p[0]);
        if (high < 0) {
            return RC_INVALID;
        }
        low = text_hex_value(p[1]);
        if (low < 0) {
            return RC_INVALID;
        }
        out->bytes[i] = (uint8_t)(high << 4 | low);
        p += 2;
    }
    return *p == '\0' ? RC_OK : RC_INVALID;
}

enum rc
uuid_parse(const char *text, struct uuid *out)
{
    enum rc rc = parse_bytes(text, out);

    if (rc != RC_OK) {
        memset(out, 0, sizeof(*out));
    }
    return rc;
}

uint16_t
uuid_node(const struct uuid *id)
{
    return (uint16_t)(id->bytes[14] << 8 | id->bytes[15]);
}

int64_t
uuid_unix_ms(const struct uuid *id)
{
    int64_t unix_ms = 0;

    for (int i = 0; i < 6; i++) {
        unix_ms = unix_ms << 8 | id->bytes[i];
    }
    return unix_ms;
}
