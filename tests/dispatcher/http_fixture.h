/* An HTTP server in a thread for the tests of what asks one. What it does to a
 * request is in the request's path:
 *
 *     /400 /404 /429 /503 /301 /302 /307   that status
 *     /chunked /split /interim /to-the-end 200, in an odd shape
 *     /cut /cut-early /garbage /close      something broken, then the end
 *     /reset                               a reset
 *     /headers                             headers without end
 *     /long                                8000 bytes without a length
 *     /never                               nothing
 *     /late                                200 "late" at HTTP_ANSWER
 *     /once                                closes at a connection's second
 *     any other                            200, the path as the body
 *
 * Every helper fails the test when it cannot do its work. */
#ifndef SLUICE_TESTS_HTTP_FIXTURE_H
#define SLUICE_TESTS_HTTP_FIXTURE_H

#include <stdatomic.h>
#include <stdbool.h>

#define HTTP_URL_BYTES 256

enum http_order {
    HTTP_STOP,   /* http_server_free's own */
    HTTP_ANSWER, /* the late ones */
    HTTP_CLOSE,  /* all connections */
    HTTP_SPEAK,  /* a 408 that nobody asked for, to all connections */
    HTTP_DEAF,   /* read no more */
};

/* What the test may look at, from its own thread. */
struct http_server {
    unsigned port; /* of localhost */
    atomic_uint accepted;
    atomic_uint requests; /* whole ones */
    atomic_uint late;     /* unanswered ones */
    atomic_ullong bytes;  /* received */
    atomic_bool rejects;  /* set by the test: reset new connections at once */
};

struct http_server *http_server_new(void);
/* Ends the thread and closes all connections. */
void http_server_free(struct http_server *s);

/* Returns when it is done. */
void http_server_order(struct http_server *s, enum http_order order);
/* A copy of the last whole request, "" before the first; free() it. */
char *http_server_last(struct http_server *s);
/* "http://localhost:PORT" and path into out, which is returned. */
char *http_server_url(const struct http_server *s, const char *path,
                      char out[HTTP_URL_BYTES]);

#endif
