/* libfcgi's one home, see edge_read.h.
 *
 * With ipcFd set FCGX_Accept_r does not accept but parses that connection
 * (PITFALLS, prototype). Two more facts about libfcgi 2.4.2 are used:
 * "detached" makes its own close immediate (else up to
 * LIBFCGI_OS_CLOSE_POLL_TIMEOUT), and listening on -1 makes it return an error
 * instead of accepting another connection in the place of a bad one. */
#include "fcgi/edge_read.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <fcgiapp.h>

#define FIRST_BODY_BYTES 4096U

struct edge_reader {
    FCGX_Request request;
    int memory_fd; /* memfd for edge_read_memory, -1 while there is none */
};

enum rc
edge_read_init(void)
{
    /* Should libfcgi ever close a connection, it waits at most so long. */
    if (setenv("LIBFCGI_OS_CLOSE_POLL_TIMEOUT", "50", 1) != 0) {
        return RC_NOMEM;
    }
    return FCGX_Init() == 0 ? RC_OK : RC_IO;
}

enum rc
edge_read_new(struct edge_reader **out)
{
    struct edge_reader *r = calloc(1, sizeof(*r));

    *out = NULL;
    if (r == NULL) {
        return RC_NOMEM;
    }
    FCGX_InitRequest(&r->request, -1, 0);
    r->memory_fd = -1;
    *out = r;
    return RC_OK;
}

void
edge_read_free(struct edge_reader **r)
{
    if (*r == NULL) {
        return;
    }
    if ((*r)->memory_fd >= 0) {
        close((*r)->memory_fd);
    }
    free(*r);
    *r = NULL;
}

/* Give back what libfcgi allocated, without closing the connection. */
static void
release(struct edge_reader *r)
{
    FCGX_Free(&r->request, 0);
    r->request.ipcFd = -1;
}

struct name {
    const char *text; /* with its '=' */
    size_t bytes;
    size_t offset; /* in struct edge_params */
    const char *fallback;
};

#define NAME(text, member, fallback)                                           \
    {                                                                          \
        text "=", sizeof(text "=") - 1, offsetof(struct edge_params, member),  \
            fallback                                                           \
    }

static const struct name names[] = {
    NAME("REQUEST_METHOD", method, ""),
    NAME("REQUEST_URI", uri, ""),
    NAME("SCRIPT_NAME", script_name, ""),
    NAME("PATH_INFO", path_info, ""),
    NAME("QUERY_STRING", query, ""),
    NAME("CONTENT_TYPE", content_type, ""),
    NAME("CONTENT_LENGTH", content_length, ""),
    NAME("HTTP_ACCEPT", accept, ""),
    NAME("HTTP_AUTHORIZATION", authorization, ""),
    NAME("HTTP_IDEMPOTENCY_KEY", idempotency_key, NULL),
    NAME("HTTP_X_REQUEST_ID", request_id, ""),
    NAME("HTTP_X_SIGNATURE", signature, ""),
};

void
edge_read_params_free(struct edge_params *params)
{
    free(params->text);
    *params = (struct edge_params){0};
}

static enum rc
params_reserve(struct edge_params *params, size_t bytes)
{
    char *text;

    if (bytes <= params->capacity) {
        return RC_OK;
    }
    text = realloc(params->text, bytes * 2);
    if (text == NULL) {
        return RC_NOMEM;
    }
    params->text = text;
    params->capacity = bytes * 2;
    return RC_OK;
}

/* Which of the names begins this entry of the environment? */
static const struct name *
find_name(const char *entry)
{
    if (strchr("RSPQCH", *entry) == NULL) {
        return NULL;
    }
    for (size_t k = 0; k < ARRAY_COUNT(names); k++) {
        if (*entry == *names[k].text &&
            strncmp(entry, names[k].text, names[k].bytes) == 0) {
            return &names[k];
        }
    }
    return NULL;
}

/* Copy what we need of the environment, in one pass: FCGX_GetParam would make
 * one a name. */
static enum rc
copy_params(char **envp, struct edge_params *params)
{
    const char *found[ARRAY_COUNT(names)] = {NULL};
    size_t lengths[ARRAY_COUNT(names)];
    size_t sum = 0;
    size_t used = 0;

    for (char **entry = envp; *entry != NULL; entry++) {
        const struct name *name = find_name(*entry);

        if (name != NULL && found[name - names] == NULL) {
            found[name - names] = *entry + name->bytes;
            lengths[name - names] = strlen(*entry + name->bytes) + 1;
            sum += lengths[name - names];
        }
    }
    if (params_reserve(params, sum) != RC_OK) {
        return RC_NOMEM;
    }
    for (size_t k = 0; k < ARRAY_COUNT(names); k++) {
        const char *value = names[k].fallback;

        if (found[k] != NULL) {
            memcpy(params->text + used, found[k], lengths[k]);
            value = params->text + used;
            used += lengths[k];
        }
        memcpy((char *)params + names[k].offset, &value, sizeof(value));
    }
    return RC_OK;
}

static enum rc
body_reserve(struct edge_body *body, size_t bytes)
{
    size_t capacity =
        body->capacity > FIRST_BODY_BYTES ? body->capacity : FIRST_BODY_BYTES;
    char *data;

    if (bytes <= body->capacity) {
        return RC_OK;
    }
    while (capacity < bytes) {
        capacity *= 2;
    }
    data = realloc(body->data, capacity);
    if (data == NULL) {
        return RC_NOMEM;
    }
    body->data = data;
    body->capacity = capacity;
    return RC_OK;
}

/* Read STDIN to its end. */
static void
drain(FCGX_Stream *in)
{
    char scrap[4096];

    while (FCGX_GetStr(scrap, sizeof(scrap), in) > 0) {
        continue;
    }
}

static enum rc
parse(struct edge_reader *r, int fd, uint64_t body_bytes, size_t max_body,
      struct edge_params *params, struct edge_body *body)
{
    size_t want = body_bytes > max_body ? max_body : (size_t)body_bytes;
    enum rc rc;
    int got;

    body->bytes = 0;
    body->too_long = body_bytes > max_body;
    if (body_reserve(body, want + 1) != RC_OK) {
        return RC_NOMEM;
    }
    r->request.ipcFd = fd;
    r->request.keepConnection = 1;
    r->request.detached = 1;
    if (FCGX_Accept_r(&r->request) != 0) {
        r->request.ipcFd = -1;
        return RC_IO;
    }
    rc = copy_params(r->request.envp, params);
    got = FCGX_GetStr(body->data, (int)want, r->request.in);
    body->bytes = got > 0 ? (size_t)got : 0;
    body->data[body->bytes] = '\0';
    drain(r->request.in);
    release(r);
    return rc;
}

enum rc
edge_read_socket(struct edge_reader *r, int fd, uint64_t body_bytes,
                 size_t max_body, struct edge_params *params,
                 struct edge_body *body)
{
    return parse(r, fd, body_bytes, max_body, params, body);
}

/* Put bytes into the memfd, to be read from its beginning. */
static enum rc
fill_memory(struct edge_reader *r, const char *wire, size_t bytes)
{
    if (r->memory_fd < 0) {
        r->memory_fd = memfd_create("sluice-request", MFD_CLOEXEC);
    }
    if (r->memory_fd < 0 || ftruncate(r->memory_fd, 0) != 0 ||
        lseek(r->memory_fd, 0, SEEK_SET) != 0) {
        return RC_IO;
    }
    while (bytes > 0) {
        ssize_t n = write(r->memory_fd, wire, bytes);

        if (n <= 0) {
            return RC_IO;
        }
        wire += n;
        bytes -= (size_t)n;
    }
    return lseek(r->memory_fd, 0, SEEK_SET) == 0 ? RC_OK : RC_IO;
}

enum rc
edge_read_memory(struct edge_reader *r, const char *wire, size_t wire_bytes,
                 uint64_t body_bytes, size_t max_body,
                 struct edge_params *params, struct edge_body *body)
{
    enum rc rc = fill_memory(r, wire, wire_bytes);

    if (rc != RC_OK) {
        return rc;
    }
    rc = parse(r, r->memory_fd, body_bytes, max_body, params, body);
    if (rc == RC_IO) {
        r->memory_fd = -1; /* closed by libfcgi */
    }
    /* Memory of a large request is not kept while the next one is awaited. */
    if (r->memory_fd >= 0 && ftruncate(r->memory_fd, 0) != 0) {
        rc = RC_IO;
    }
    return rc;
}
