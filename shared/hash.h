/* SHA-256, and HMAC with it (OpenSSL's libcrypto): for the bodies behind
 * idempotency keys, and for signed bodies. */
#ifndef SLUICE_SHARED_HASH_H
#define SLUICE_SHARED_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/rc.h"

#define HASH_BYTES 32

/* Digest of data (may be NULL when bytes = 0). RC_IO when the library fails.
 * Any thread. */
enum rc hash_sha256(const void *data, size_t bytes,
                    uint8_t out[HASH_BYTES]) MUST_CHECK;

struct hash_part {
    const void *data; /* may be NULL when bytes = 0 */
    size_t bytes;
};

/* HMAC-SHA256 (RFC 2104) under key of count parts, one behind the other. RC_IO
 * when the library fails. Any thread. */
enum rc hash_hmac_sha256(const void *key, size_t key_bytes,
                         const struct hash_part *parts, size_t count,
                         uint8_t out[HASH_BYTES]) MUST_CHECK;

/* Are these the same? Takes as long wherever they differ. Any thread. */
bool hash_equal(const uint8_t a[HASH_BYTES], const uint8_t b[HASH_BYTES]);

#endif
