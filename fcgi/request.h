/* A request as the handlers see it. All pointers live until the reply is
 * sent. */
#ifndef SLUICE_FCGI_REQUEST_H
#define SLUICE_FCGI_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/conf.h"
#include "shared/rc.h"
#include "shared/uuid.h"

#define REQUEST_ID_BYTES 129    /* X-Request-Id: 1-128 of [A-Za-z0-9._-], NUL */
#define REQUEST_PATH_BYTES 1024 /* a decoded path with its NUL */
/* The {id} of a path, decoded, NUL: any that a path holds, for what is no id of
 * ours may have to be named in the answer. */
#define REQUEST_PARAM_BYTES REQUEST_PATH_BYTES

struct request {
    const char *method;          /* "POST" */
    const char *path;            /* decoded, without query: "/objects/7" */
    const char *query;           /* raw, "" when none */
    const char *content_type;    /* "" when none */
    const char *accept;          /* "" when none */
    const char *authorization;   /* "" when none */
    const char *idempotency_key; /* NULL when none */
    const char *signature;       /* X-Signature, whole; "" when none */
    const char *body;            /* whole; NUL behind it */
    size_t body_bytes;
    char request_id[REQUEST_ID_BYTES]; /* the client's if sane, else ours */
    char param[REQUEST_PARAM_BYTES];   /* what {id} matched, else "" */
    int64_t received_unix_ms;
    struct uuid id; /* commit routes: the request's id, set before `answer` */
    int64_t rank;   /* commit routes: its place among those that wait, from 1,
                       set before `answer`; 0 on a replay */
    const char *record; /* commit routes: the journal form, set before
                           `answer`, also on a replay; NUL behind it */
    size_t record_bytes;
    const struct conf *conf; /* the loop's, as last re-read: for `accept` and
                                `answer` only (`ask` has its thread's own) */
};

/* Value of a query parameter, decoded ('+' is a blank), into out; RC_AGAIN:
 * absent, RC_INVALID: bad encoding, too long, or given twice. */
enum rc request_query(const struct request *r, const char *name, char *out,
                      size_t size) MUST_CHECK;

/* The path of a request target ("/objects/7?after=1", or in absolute form
 * "http://host/objects/7"), percent-decoded strictly, into out. *query = what
 * stands behind the first '?', inside uri, or "".
 * RC_INVALID: no path, a bad escape, a control character; RC_FULL: longer
 * than size - 1. Any thread. */
enum rc request_path(const char *uri, char *out, size_t size,
                     const char **query) MUST_CHECK;

/* May this body be read as JSON? application/json in UTF-8; no media type at
 * all; curl's default one over a body that begins with '{', or is empty. */
bool request_is_json(const struct request *r);

/* Is this body an HTML form's? Its media type (application/
 * x-www-form-urlencoded, in UTF-8 if it says so) over anything that does not
 * begin with '{'. */
bool request_is_form(const struct request *r);

/* Does the Accept header want HTML more than JSON? Not when it likes both the
 * same, nor when there is none. */
bool request_prefers_html(const struct request *r);

/* Is key 1..255 characters of visible ASCII? */
bool request_key_is_valid(const char *key);

/* Is id 1..128 of [A-Za-z0-9._-]? */
bool request_id_is_valid(const char *id);

#endif
