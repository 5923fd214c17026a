/* The push frame: one committed request as it crosses the ZeroMQ socket.
 *
 *   0  magic   "SL1" and the service's number (one byte)
 *   4  seq     8 bytes, little endian, > 0
 *  12  received 8 bytes, little endian, ms since 1970
 *  20  id      16 bytes
 *  36  body    the rest, at most FRAME_BODY_MAX
 *
 * Both sides are on one host and of one version; a frame that does not decode
 * is dropped, for the feed finds the row in the journal. */
#ifndef SLUICE_SHARED_FRAME_H
#define SLUICE_SHARED_FRAME_H

#include <stddef.h>
#include <stdint.h>

#include "shared/rc.h"
#include "shared/services.h"
#include "shared/uuid.h"

#define FRAME_HEAD_BYTES 36
#define FRAME_BODY_MAX (1024 * 1024)

struct frame {
    enum service service;
    int64_t seq;
    int64_t received_unix_ms;
    struct uuid id;
    const char *body; /* borrowed; of a decoded frame: inside its buffer */
    size_t body_bytes;
};

/* Write the head into out; the body follows it on the wire. Any thread. */
void frame_encode_head(const struct frame *frame,
                       uint8_t out[FRAME_HEAD_BYTES]);

/* RC_INVALID: too short, too long, another magic, no such service, seq < 1,
 * received < 0. */
enum rc frame_decode(const uint8_t *data, size_t bytes,
                     struct frame *out) MUST_CHECK;

#endif
