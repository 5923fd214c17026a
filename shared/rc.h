/* Result codes of everything that can fail, and the attributes that go with
 * them. */
#ifndef SLUICE_SHARED_RC_H
#define SLUICE_SHARED_RC_H

enum rc {
    RC_OK,
    RC_AGAIN,   /* not now, nothing done: normal, never logged as an error */
    RC_INVALID, /* the caller's data is wrong: repeating will not help */
    RC_FULL,    /* a configured bound is reached: normal, the edge says 503 */
    RC_TIMEOUT, /* a deadline passed */
    RC_IO,      /* disk, socket or database failed: may work later */
    RC_NOMEM,
    RC_BUG, /* cannot happen; a programmer's error that was caught */
};

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(at, first) __attribute__((__format__(printf, at, first)))
#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Name of the code as it appears in logs ("io"). Never NULL. Any thread. */
const char *rc_name(enum rc rc);

#endif
