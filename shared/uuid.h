/* UUIDv7 (RFC 9562 section 5.7) whose last 16 bits are the node's id. */
#ifndef SLUICE_SHARED_UUID_H
#define SLUICE_SHARED_UUID_H

#include <stdint.h>

#include "shared/rc.h"

#define UUID_BYTES 16
#define UUID_TEXT_BYTES 37 /* 8-4-4-4-12 and a NUL */

struct uuid {
    uint8_t bytes[UUID_BYTES];
};

/* State of one generator: monotonic within its thread (RFC 9562 6.2 method 1:
 * a 12-bit counter in rand_a, seeded anew each millisecond; overflow borrows
 * from the next millisecond). Randomness from getrandom(2), in blocks. */
struct uuid_source {
    int64_t last_unix_ms;
    uint16_t counter;
    uint16_t node_id;
    unsigned random_used;
    uint8_t random[256];
};

void uuid_source_init(struct uuid_source *s, uint16_t node_id);
/* RC_IO only if the kernel gives no randomness. Thread that owns s. */
enum rc uuid_next(struct uuid_source *s, int64_t now_unix_ms,
                  struct uuid *out) MUST_CHECK;

/* Lower-case text with NUL into out, which is returned. */
char *uuid_format(const struct uuid *id, char out[UUID_TEXT_BYTES]);
/* Exactly 36 characters, any case, any version; else RC_INVALID. */
enum rc uuid_parse(const char *text, struct uuid *out) MUST_CHECK;
/* The node that made it. */
uint16_t uuid_node(const struct uuid *id);
/* The wall time in it. */
int64_t uuid_unix_ms(const struct uuid *id);

#endif
