/* A walk over FastCGI records that have arrived, see records.h. */
#include "fcgi/records.h"

#include <string.h>

#define VERSION 1
#define ROLE_RESPONDER 1
#define FLAG_KEEP_CONN 1
#define BEGIN_BYTES 8U

struct head {
    uint8_t type;
    uint16_t id;
    uint32_t content;
    uint32_t padding;
};

/* Bytes of the length field that begins with first: one or four. */
static uint8_t
length_bytes(uint8_t first)
{
    return (first & 0x80) != 0 ? 4 : 1;
}

static uint32_t
length_value(const uint8_t *at)
{
    if ((at[0] & 0x80) == 0) {
        return at[0];
    }
    return (uint32_t)(at[0] & 0x7f) << 24 | (uint32_t)at[1] << 16 |
           (uint32_t)at[2] << 8 | at[3];
}

/* How many bytes the two lengths in pair_head take, as far as it is known
 * from those that have come. */
static uint8_t
pair_head_wanted(const struct records *w)
{
    uint8_t name = w->pair_head_bytes > 0 ? length_bytes(w->pair_head[0]) : 1;

    if (w->pair_head_bytes <= name) {
        return (uint8_t)(name + 1);
    }
    return (uint8_t)(name + length_bytes(w->pair_head[name]));
}

/* Walk name-value pairs, which may be split over records anywhere. libfcgi
 * allocates what a length says before it reads it: none may be larger than
 * all parameters together. */
static enum records_verdict
walk_pairs(struct records *w, const uint8_t *data, size_t bytes)
{
    while (bytes > 0) {
        if (w->pair_skip > 0) {
            size_t n = w->pair_skip < bytes ? w->pair_skip : bytes;

            w->pair_skip -= (uint32_t)n;
            data += n;
            bytes -= n;
            continue;
        }
        w->pair_head[w->pair_head_bytes++] = *data++;
        bytes--;
        if (w->pair_head_bytes == pair_head_wanted(w)) {
            uint8_t name = length_bytes(w->pair_head[0]);
            uint64_t sum = (uint64_t)length_value(w->pair_head) +
                           length_value(w->pair_head + name);

            if (sum > RECORDS_PARAMS_MAX) {
                return RECORDS_LARGE;
            }
            w->pair_skip = (uint32_t)sum;
            w->pair_head_bytes = 0;
        }
    }
    return RECORDS_PART;
}

static enum records_verdict
walk_begin(struct records *w, const struct head *head, const uint8_t *content)
{
    if (head->type != RECORDS_BEGIN_REQUEST || head->id == 0 ||
        head->content != BEGIN_BYTES || head->padding > 0) {
        return RECORDS_BAD;
    }
    w->id = head->id;
    w->keep = (content[2] & FLAG_KEEP_CONN) != 0;
    w->phase = RECORDS_AT_PARAMS;
    if (content[0] != 0 || content[1] != ROLE_RESPONDER) {
        return RECORDS_ROLE;
    }
    return RECORDS_PART;
}

static enum records_verdict
walk_params(struct records *w, const struct head *head, const uint8_t *content)
{
    if (head->type != RECORDS_PARAMS || head->id != w->id) {
        return RECORDS_BAD;
    }
    if (head->content == 0) {
        w->phase = RECORDS_AT_STDIN;
        return w->pair_skip == 0 && w->pair_head_bytes == 0 &&
                       head->padding == 0
                   ? RECORDS_PART
                   : RECORDS_BAD;
    }
    w->params_bytes += head->content;
    if (w->params_bytes > RECORDS_PARAMS_MAX) {
        return RECORDS_LARGE;
    }
    return walk_pairs(w, content, head->content);
}

static enum records_verdict
walk_stdin(struct records *w, const struct head *head)
{
    if (head->type != RECORDS_STDIN || head->id != w->id) {
        return RECORDS_BAD;
    }
    if (head->content == 0) {
        w->padded_end = head->padding > 0;
        return RECORDS_WHOLE;
    }
    w->body_bytes += head->content;
    return RECORDS_PART;
}

enum records_verdict
records_walk(struct records *w, const uint8_t *data, size_t bytes)
{
    enum records_verdict verdict = RECORDS_PART;

    while (verdict == RECORDS_PART && bytes - w->offset >= RECORDS_HEAD_BYTES) {
        const uint8_t *at = data + w->offset;
        struct head head = {
            .type = at[1],
            .id = (uint16_t)(at[2] << 8 | at[3]),
            .content = (uint32_t)(at[4] << 8 | at[5]),
            .padding = at[6],
        };
        const uint8_t *content = at + RECORDS_HEAD_BYTES;

        if (at[0] != VERSION) {
            return RECORDS_BAD;
        }
        if (bytes - w->offset - RECORDS_HEAD_BYTES <
            head.content + head.padding) {
            break;
        }
        switch ((enum records_phase)w->phase) {
        case RECORDS_AT_BEGIN:
            verdict = walk_begin(w, &head, content);
            break;
        case RECORDS_AT_PARAMS:
            verdict = walk_params(w, &head, content);
            break;
        case RECORDS_AT_STDIN:
            verdict = walk_stdin(w, &head);
            break;
        }
        w->offset += RECORDS_HEAD_BYTES + head.content + head.padding;
        if (w->phase == RECORDS_AT_STDIN && w->params_end == 0) {
            w->params_end = w->offset;
        }
    }
    return verdict;
}

void
records_head(uint8_t out[RECORDS_HEAD_BYTES], enum records_type type,
             uint16_t id, size_t content, uint8_t padding)
{
    out[0] = VERSION;
    out[1] = (uint8_t)type;
    out[2] = (uint8_t)(id >> 8);
    out[3] = (uint8_t)(id & 0xff);
    out[4] = (uint8_t)(content >> 8 & 0xff);
    out[5] = (uint8_t)(content & 0xff);
    out[6] = padding;
    out[7] = 0;
}
