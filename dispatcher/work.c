/* A request on its way from the feed to its service. */
#include "dispatcher/work.h"

#include <stdlib.h>
#include <string.h>

struct work *
work_new(enum service service, int64_t seq, int64_t received_unix_ms,
         const struct uuid *id, const char *body, size_t body_bytes)
{
    struct work *work;

    if (body_bytes > SIZE_MAX - sizeof(*work) - 1) {
        return NULL;
    }
    work = malloc(sizeof(*work) + body_bytes + 1);
    if (work == NULL) {
        return NULL;
    }
    work->service = service;
    work->seq = seq;
    work->received_unix_ms = received_unix_ms;
    work->id = *id;
    work->broken = false;
    work->body_bytes = body_bytes;
    if (body_bytes > 0) {
        memcpy(work->body, body, body_bytes);
    }
    work->body[body_bytes] = '\0';
    return work;
}

void
work_free(void *work)
{
    free(work);
}
