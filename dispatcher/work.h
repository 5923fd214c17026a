/* A request on its way from the feed to its service: one allocation. */
#ifndef SLUICE_DISPATCHER_WORK_H
#define SLUICE_DISPATCHER_WORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/rc.h"
#include "shared/services.h"
#include "shared/uuid.h"

struct work {
    enum service service;
    int64_t seq;
    int64_t received_unix_ms;
    struct uuid id;
    bool broken; /* the journal could not read the row: to quarantine */
    size_t body_bytes;
    char body[]; /* with a NUL behind it */
};

/* Copies body (NULL when body_bytes = 0); broken = false. NULL: no memory. Free
 * with work_free (a queue's drop function too), which takes NULL. Any thread.
 */
struct work *work_new(enum service service, int64_t seq,
                      int64_t received_unix_ms, const struct uuid *id,
                      const char *body, size_t body_bytes);
void work_free(void *work);

#endif
