/* Client of the dispatcher's control socket.
 *
 * Protocol: connect to the UNIX socket, send one line of words separated by
 * blanks ("dead retry 0190..."), half-close; the answer is a line "ok" or
 * "error <text>" and then the document (JSON, or for "metrics" Prometheus
 * text) until the end. The server checks the peer's uid: root or its own. */
#ifndef SLUICE_SHARED_CTLCLIENT_H
#define SLUICE_SHARED_CTLCLIENT_H

#include <stdint.h>

#include "shared/rc.h"
#include "shared/text.h"

/* Ask and wait up to timeout_ms. RC_OK: out = document. RC_INVALID: the
 * dispatcher refused, out = its text. RC_AGAIN: nobody listens. RC_TIMEOUT,
 * RC_IO. Any thread. */
enum rc ctlclient_ask(const char *path, const char *line, int64_t timeout_ms,
                      struct text *out) MUST_CHECK;

#endif
