/* From a reply to the bytes on the connection. */
#ifndef SLUICE_FCGI_EDGE_WRITE_H
#define SLUICE_FCGI_EDGE_WRITE_H

#include <stdbool.h>
#include <stdint.h>

#include "fcgi/reply.h"
#include "shared/rc.h"
#include "shared/text.h"

/* Write reply as STDOUT records and END_REQUEST of FastCGI request id into
 * wire (reset first): status line, usual headers, X-Request-Id, its own
 * headers, body (not for HEAD). Fails stickily in wire. Any thread. */
void edge_write_render(const struct reply *reply, const char *request_id,
                       uint16_t id, bool head_only, struct text *wire);

/* Send wire without waiting. RC_OK; RC_AGAIN: the peer takes no more, *sent
 * bytes are gone; RC_IO: the peer is gone. Any thread. */
enum rc edge_write_now(int fd, const struct text *wire,
                       size_t *sent) MUST_CHECK;

/* Send the rest of wire behind *sent, waiting for the peer until monotonic
 * deadline_ms. RC_TIMEOUT, RC_IO. Not the loop. */
enum rc edge_write_wait(int fd, const struct text *wire, size_t *sent,
                        int64_t deadline_ms) MUST_CHECK;

/* END_REQUEST with FCGI_UNKNOWN_ROLE, without waiting or looking back. */
void edge_write_unknown_role(int fd, uint16_t id);

#endif
