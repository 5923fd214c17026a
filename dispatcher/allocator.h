/* Who gets a place of an invitation: in order of arrival, never more than there
 * are, one address one invitation, once. It knows no clock and no database, but
 * a store (places.h) that others change at the same time; the store's unique
 * keys decide, the allocator plans and looks again when a plan fails.
 *
 *   rc = allocator_serve(allocator, now_unix_ms, people, count, outcomes);
 *   rc = allocator_mail(allocator, now_unix_ms, people, count, outcomes);
 *   if (rc != RC_OK) { the same people again later: nothing is lost }
 *
 * Everything may be repeated after a crash at any point: a request knows what
 * it has got by its id. */
#ifndef SLUICE_DISPATCHER_ALLOCATOR_H
#define SLUICE_DISPATCHER_ALLOCATOR_H

#include "dispatcher/places.h"

#define ALLOCATOR_SWEEP_CODES 16 /* invitations looked at in one sweep */

struct allocator;

enum allocator_what {
    ALLOCATOR_UNDECIDED, /* only while it works */
    ALLOCATOR_PLACE,     /* has a place: a welcome */
    ALLOCATOR_WAITING,   /* is on the waitlist: an apology */
    ALLOCATOR_REPEATED,  /* this address has asked before: no mail */
    ALLOCATOR_REFUSED,   /* this address is never to get one: no mail */
    ALLOCATOR_UNKNOWN,   /* no such invitation, or expired: a mail says so */
    ALLOCATOR_POISON,    /* the store refuses the document: why */
};

struct allocator_outcome {
    enum allocator_what what;
    int32_t slot; /* of ALLOCATOR_PLACE */
    char why[PLACES_WHY_BYTES];
};

/* What a sweep has done. */
struct allocator_swept {
    size_t freed; /* refusals whose places are free now */
    size_t moved; /* people from a waitlist to a place */
    size_t left;  /* people who left a waitlist without one */
    bool more;    /* there is more to do: come again soon */
};

/* Name as it stands in outcomes and metrics ("place"). Any thread. */
const char *allocator_what_name(enum allocator_what what);

/* places: must outlive it. RC_OK or RC_NOMEM. It and places belong to one
 * thread. */
enum rc allocator_new(struct allocator **out,
                      const struct places *places) MUST_CHECK;
void allocator_free(struct allocator **a);

/* Decide about people, who stand in order of arrival, of any codes mixed. An
 * invitation counts as expired for those received at or after that time.
 * RC_OK: outcomes[i] says what people[i] got, in the store already. RC_IO,
 * RC_NOMEM: some may have got theirs; serve the same people again, in the same
 * order and before any who came later. */
enum rc allocator_serve(struct allocator *a, int64_t now_unix_ms,
                        const struct person *people, size_t count,
                        struct allocator_outcome *outcomes) MUST_CHECK;

/* Insert the mails that go with the outcomes that allocator_serve gave them;
 * RC_OK: now they are done with. Else call it again, or serve them again. It
 * may be done by another allocator, while this one serves those who came later:
 * who died before his mail is served again, and gets the same. One whose mail
 * the store refuses becomes ALLOCATOR_POISON, and keeps what he has. */
enum rc allocator_mail(struct allocator *a, int64_t now_unix_ms,
                       const struct person *people, size_t count,
                       struct allocator_outcome *outcomes) MUST_CHECK;

/* Free the places of those refused (at most 100 a call), and give free places
 * to those who wait, at most 100 of each of the next ALLOCATOR_SWEEP_CODES
 * invitations of a round. To be called every second, and again soon when there
 * is more. RC_IO: *out says what was done; call again later, which goes on
 * behind the invitation that failed. */
enum rc allocator_sweep(struct allocator *a, int64_t now_unix_ms,
                        struct allocator_swept *out) MUST_CHECK;

/* Places lost to another dispatcher since this was last asked. */
size_t allocator_lost(struct allocator *a);

#endif
