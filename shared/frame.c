/* The push frame's head, written and read byte by byte: no alignment, no
 * structure on the wire. */
#include "shared/frame.h"

#include <string.h>

#define MAGIC "SL1"
#define MAGIC_BYTES 3
#define SERVICE_AT 3
#define SEQ_AT 4
#define RECEIVED_AT 12
#define ID_AT 20

static void
put_int64(uint8_t *out, int64_t value)
{
    uint64_t rest = (uint64_t)value;

    for (int i = 0; i < 8; i++) {
        out[i] = (uint8_t)(rest & 0xff);
        rest >>= 8;
    }
}

/* RC_INVALID: above INT64_MAX, which is a negative number on the wire. */
static enum rc
get_int64(const uint8_t *data, int64_t *out)
{
    uint64_t value = 0;

    for (int i = 7; i >= 0; i--) {
        value = value << 8 | data[i];
    }
    if (value > (uint64_t)INT64_MAX) {
        *out = 0;
        return RC_INVALID;
    }
    *out = (int64_t)value;
    return RC_OK;
}

void
frame_encode_head(const struct frame *frame, uint8_t out[FRAME_HEAD_BYTES])
{
    memcpy(out, MAGIC, MAGIC_BYTES);
    out[SERVICE_AT] = (uint8_t)frame->service;
    put_int64(out + SEQ_AT, frame->seq);
    put_int64(out + RECEIVED_AT, frame->received_unix_ms);
    memcpy(out + ID_AT, frame->id.bytes, UUID_BYTES);
}

enum rc
frame_decode(const uint8_t *data, size_t bytes, struct frame *out)
{
    struct frame frame = {0};

    *out = frame;
    if (bytes < FRAME_HEAD_BYTES || bytes > FRAME_HEAD_BYTES + FRAME_BODY_MAX ||
        memcmp(data, MAGIC, MAGIC_BYTES) != 0 ||
        data[SERVICE_AT] >= SERVICE_COUNT) {
        return RC_INVALID;
    }
    if (get_int64(data + SEQ_AT, &frame.seq) != RC_OK || frame.seq < 1 ||
        get_int64(data + RECEIVED_AT, &frame.received_unix_ms) != RC_OK) {
        return RC_INVALID;
    }
    frame.service = (enum service)data[SERVICE_AT];
    memcpy(frame.id.bytes, data + ID_AT, UUID_BYTES);
    frame.body = (const char *)data + FRAME_HEAD_BYTES;
    frame.body_bytes = bytes - FRAME_HEAD_BYTES;
    *out = frame;
    return RC_OK;
}
