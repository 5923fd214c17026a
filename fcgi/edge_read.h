/* libfcgi's one home: turns a whole FastCGI request (records.h has seen that
 * it is) into its parameters and body. libfcgi writes nothing: replies are
 * edge_write.h's, which never waits for a peer. */
#ifndef SLUICE_FCGI_EDGE_READ_H
#define SLUICE_FCGI_EDGE_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/rc.h"

/* What the web server said. "" when absent, but NULL where noted; the strings
 * are in `text`. */
struct edge_params {
    const char *method;
    const char *uri; /* as the client sent it */
    const char *script_name;
    const char *path_info;
    const char *query;
    const char *content_type;
    const char *content_length;
    const char *accept;
    const char *authorization;
    const char *idempotency_key; /* NULL when absent */
    const char *request_id;
    const char *signature;
    char *text; /* grows as needed and is kept; edge_read_params_free */
    size_t capacity;
};

void edge_read_params_free(struct edge_params *params);

/* A body's buffer; grows up to the limit and is kept for the next one. */
struct edge_body {
    char *data; /* NUL behind the last byte */
    size_t bytes;
    size_t capacity;
    bool too_long; /* the rest was read and dropped */
};

struct edge_reader;

/* Once, before any thread starts. RC_IO. */
enum rc edge_read_init(void) MUST_CHECK;

enum rc edge_read_new(struct edge_reader **out) MUST_CHECK;
void edge_read_free(struct edge_reader **r);

/* One reader serves one request after the other, and keeps nothing of them:
 * libfcgi takes some 30 kB in 30 allocations for a request, which stay in the
 * cache when each is given back before the next is read.
 *
 * Consume the request that waits whole on socket fd; body_bytes (from
 * records.h) is how long its body is, of which at most max_body are kept.
 * RC_IO: libfcgi refused it and has closed fd. RC_NOMEM: fd is still open.
 * Owner's thread. */
enum rc edge_read_socket(struct edge_reader *r, int fd, uint64_t body_bytes,
                         size_t max_body, struct edge_params *params,
                         struct edge_body *body) MUST_CHECK;

/* The same for a request that lies whole in memory (wire_bytes of wire).
 * RC_IO, RC_NOMEM. */
enum rc edge_read_memory(struct edge_reader *r, const char *wire,
                         size_t wire_bytes, uint64_t body_bytes,
                         size_t max_body, struct edge_params *params,
                         struct edge_body *body) MUST_CHECK;

#endif
