/* SHA-256 (OpenSSL's libcrypto), for the bodies behind idempotency keys. */
#ifndef SLUICE_SHARED_HASH_H
#define SLUICE_SHARED_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "shared/rc.h"

#define HASH_BYTES 32

/* Digest of data (may be NULL when bytes = 0). RC_IO when the library fails.
 * Any thread. */
enum rc hash_sha256(const void *data, size_t bytes,
                    uint8_t out[HASH_BYTES]) MUST_CHECK;

#endif
