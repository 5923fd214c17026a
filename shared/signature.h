/* Signed bodies: "X-Signature: t=1732190000,v1=5257a8..." where v1 is the
 * HMAC-SHA256 (RFC 2104), in hex, of "<t>.<body>" under a shared secret.
 * Whoever changes secrets signs with both for a while: several v1 may stand
 * there, and one that holds under any of our secrets is enough. */
#ifndef SLUICE_SHARED_SIGNATURE_H
#define SLUICE_SHARED_SIGNATURE_H

#include <stddef.h>
#include <stdint.h>

#include "shared/rc.h"

#define SIGNATURE_TOLERANCE_S 300 /* how far t may be from now, both ways */
#define SIGNATURE_BYTES 96        /* of the value that signature_make writes */

enum signature_verdict {
    SIGNATURE_GOOD,
    SIGNATURE_MISSING,   /* no value */
    SIGNATURE_MALFORMED, /* no t, no v1, or not such a list */
    SIGNATURE_EXPIRED,   /* t is too old, or too far ahead */
    SIGNATURE_WRONG,     /* no v1 holds under any secret */
};

/* Check a header's value. secrets: separated by commas, blanks around them do
 * not count; must hold one at least. The comparison takes as long wherever the
 * difference is. Any thread. */
enum signature_verdict signature_check(const char *value, const char *secrets,
                                       const char *body, size_t bytes,
                                       int64_t now_unix_s);

/* Write "t=...,v1=..." under the first of the secrets. RC_IO: the library
 * failed. Any thread. */
enum rc signature_make(const char *secrets, const char *body, size_t bytes,
                       int64_t now_unix_s,
                       char out[SIGNATURE_BYTES]) MUST_CHECK;

#endif
