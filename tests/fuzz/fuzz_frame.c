/* The push frame: whatever is read is within its bounds, and written again it
 * is the same. */
#include "shared/frame.h"

#include <string.h>

#include "tests/fuzz/replay.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct frame frame;
    uint8_t head[FRAME_HEAD_BYTES];
    enum rc rc = frame_decode(data, bytes, &frame);

    if (rc != RC_OK) {
        MUST(rc == RC_INVALID && frame.body == NULL && frame.seq == 0);
        return 0;
    }
    MUST((unsigned)frame.service < SERVICE_COUNT);
    MUST(frame.seq > 0 && frame.received_unix_ms >= 0);
    MUST(frame.body == (const char *)data + FRAME_HEAD_BYTES);
    MUST(frame.body_bytes == bytes - FRAME_HEAD_BYTES);
    MUST(frame.body_bytes <= FRAME_BODY_MAX);
    frame_encode_head(&frame, head);
    MUST(memcmp(head, data, FRAME_HEAD_BYTES) == 0);
    return 0;
}
