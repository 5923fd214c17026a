/* A reply being built. Reset before each request; the edge adds X-Request-Id
 * and Content-Length. */
#ifndef SLUICE_FCGI_REPLY_H
#define SLUICE_FCGI_REPLY_H

#include <stdbool.h>

#include "shared/fields.h"
#include "shared/text.h"

struct reply {
    int status;               /* 200, 202, 400 ...; 0 while nothing is set */
    const char *content_type; /* static text */
    struct text headers;      /* "Name: value\r\n" ... beyond the usual */
    struct text body;
};

/* Back to an empty application/json reply; the memory is kept. */
void reply_reset(struct reply *r);
void reply_free(struct reply *r);

/* Append a header line. name and value hold no line break. */
void reply_header(struct reply *r, const char *name, const char *value);

/* RFC 9457 problem document; replaces what was in the reply.
 * {"type": "about:blank", "title": <of the status>, "status", "code",
 * "detail", "request_id", "errors": [{"field", "reason"}]}
 * code: stable snake_case word ("invalid_body"); errors may be NULL. The edge
 * puts the request id in when it sends the document. */
void reply_problem(struct reply *r, int status, const char *code,
                   const char *detail, const struct field_errors *errors);

/* Is it a problem document? */
bool reply_is_problem(const struct reply *r);

/* 503 with Retry-After (whole seconds, >= 1). */
void reply_unavailable(struct reply *r, const char *code, const char *detail,
                       int retry_after_s);

/* Reason phrase of a status, "Unknown" for one that is never sent. */
const char *reply_title(int status);

#endif
