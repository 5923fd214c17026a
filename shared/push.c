/* PUSH without waiting. A frame crosses as one message of one part, copied
 * once into ZeroMQ's own buffer. */
#include "shared/push.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <zmq.h>

/* Frames that wait in this process while the dispatcher is slow: enough for a
 * hiccup of some 50 ms at full speed. What is above it costs the sender one
 * failed call and the dispatcher a page of the journal. */
#define HIGH_WATER_FRAMES 2048
/* A dispatcher that comes back is found within this time; until then the
 * journal's 50 ms comparison serves. */
#define RECONNECT_MS 50
#define RECONNECT_MAX_MS 500

struct push {
    void *context;
    void *socket;
    int64_t sent_count;
    int64_t dropped_count;
};

static enum rc
set_options(void *socket)
{
    static const struct {
        int option;
        int value;
    } options[] = {
        {ZMQ_SNDHWM, HIGH_WATER_FRAMES},
        /* Without a peer refuse a frame at once; keep none behind us. */
        {ZMQ_IMMEDIATE, 1},
        {ZMQ_LINGER, 0},
        {ZMQ_RECONNECT_IVL, RECONNECT_MS},
        {ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS},
    };

    for (size_t i = 0; i < ARRAY_COUNT(options); i++) {
        int value = options[i].value;

        if (zmq_setsockopt(socket, options[i].option, &value, sizeof(value)) !=
            0) {
            return RC_INVALID;
        }
    }
    return RC_OK;
}

enum rc
push_new(struct push **out, const char *endpoint)
{
    struct push *p = calloc(1, sizeof(*p));
    enum rc rc = RC_NOMEM;

    *out = NULL;
    if (p == NULL) {
        return RC_NOMEM;
    }
    p->context = zmq_ctx_new();
    if (p->context == NULL) {
        goto out;
    }
    p->socket = zmq_socket(p->context, ZMQ_PUSH);
    if (p->socket == NULL) {
        goto out;
    }
    rc = set_options(p->socket);
    if (rc != RC_OK) {
        goto out;
    }
    if (zmq_connect(p->socket, endpoint) != 0) {
        rc = errno == ENOMEM ? RC_NOMEM : RC_INVALID;
        goto out;
    }
    *out = p;
    p = NULL;
out:
    push_free(&p);
    return rc;
}

void
push_free(struct push **pp)
{
    struct push *p = *pp;

    if (p == NULL) {
        return;
    }
    if (p->socket != NULL) {
        (void)zmq_close(p->socket);
    }
    if (p->context != NULL) {
        while (zmq_ctx_term(p->context) != 0 && errno == EINTR) {
        }
    }
    free(p);
    *pp = NULL;
}

/* One attempt; the message is gone afterwards in every case. */
static enum rc
send_message(struct push *p, const struct frame *frame)
{
    zmq_msg_t message;
    uint8_t *data;

    if (zmq_msg_init_size(&message, FRAME_HEAD_BYTES + frame->body_bytes) !=
        0) {
        return RC_NOMEM;
    }
    data = zmq_msg_data(&message);
    frame_encode_head(frame, data);
    if (frame->body_bytes > 0) {
        memcpy(data + FRAME_HEAD_BYTES, frame->body, frame->body_bytes);
    }
    if (zmq_msg_send(&message, p->socket, ZMQ_DONTWAIT) < 0) {
        (void)zmq_msg_close(&message);
        return RC_AGAIN;
    }
    return RC_OK;
}

void
push_send(struct push *p, const struct frame *frame)
{
    if (frame->body_bytes <= FRAME_BODY_MAX &&
        send_message(p, frame) == RC_OK) {
        p->sent_count++;
    } else {
        p->dropped_count++;
    }
}

int64_t
push_sent_count(const struct push *p)
{
    return p->sent_count;
}

int64_t
push_dropped_count(const struct push *p)
{
    return p->dropped_count;
}
