/* A tiny FastCGI client for the edge's tests: it builds records as a web
 * server does, and reads an answer. Every helper fails the test when it cannot
 * do its work. */
#ifndef SLUICE_TESTS_FCGI_CLIENT_H
#define SLUICE_TESTS_FCGI_CLIENT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fcgi/records.h"
#include "shared/text.h"

/* Records as they go over the wire. */
void client_record(struct text *wire, int type, uint16_t id, const char *data,
                   size_t bytes, uint8_t padding);
void client_begin(struct text *wire, uint16_t id, uint8_t role, bool keep);
/* One name-value pair. */
void client_pair(struct text *params, const char *name, const char *value);

struct client_request {
    const char *method;       /* "GET" */
    const char *uri;          /* "/items" */
    const char *body;         /* NULL: none */
    size_t body_bytes;        /* 0: strlen(body) */
    const char *length;       /* CONTENT_LENGTH; NULL: the body's */
    const char *content_type; /* NULL: none */
    const char *header_name;  /* "HTTP_IDEMPOTENCY_KEY"; NULL: none */
    const char *header_value;
    uint16_t id; /* 0: 1 */
    bool keep;
};
/* The whole request. */
void client_build(struct text *wire, const struct client_request *request);

int client_connect(const char *path);
void client_send(int fd, const char *data, size_t bytes);

struct client_answer {
    int status;           /* 0: the connection ended without an answer */
    uint8_t end_status;   /* protocolStatus of END_REQUEST */
    struct text document; /* headers and body */
    const char *body;     /* inside document; "" when none */
};
/* Read up to END_REQUEST of request id, or to the end of the connection. */
void client_read(int fd, uint16_t id, struct client_answer *answer);
void client_answer_free(struct client_answer *answer);
/* Does the connection end within two seconds? */
bool client_is_closed(int fd);

/* connect, send, read, close: the status. */
int client_ask(const char *path, const struct client_request *request,
               struct client_answer *answer);

#endif
