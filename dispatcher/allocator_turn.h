/* Internal to allocator*.c: one turn, in which some people of one code are
 * served together. */
#ifndef SLUICE_DISPATCHER_ALLOCATOR_TURN_H
#define SLUICE_DISPATCHER_ALLOCATOR_TURN_H

#include "dispatcher/allocator.h"

/* What is known of the slots of a code. Others take and free slots too, so it
 * is a plan, not a promise. */
struct slots {
    char code[INVITATION_CODE_BYTES]; /* "": of none */
    bool known;                       /* read, and not denied since */
    bool fresh; /* read since the people of this code are being served */
    bool
        waits; /* somebody was seen to wait for this code, since it was swept */
    bool taken[PLACES_LIMIT_MAX + 1];
};

struct turn {
    const struct places *places;
    const struct invitation *invitation;
    struct slots *slots;
    const struct person *people[PLACES_MAX];
    struct allocator_outcome *outcomes[PLACES_MAX];
    bool inserted[PLACES_MAX]; /* got the registration in this turn */
    size_t count;
    size_t lost; /* places that another was faster to take */
};

/* How many places are left to give. Where the limit was lowered below places
 * that are taken, these count, too: nobody loses one, and nobody else gets one
 * before there are fewer. */
int32_t slots_left(const struct slots *slots, int32_t limit);

/* Each of these decides about some that are undecided so far, and returns
 * RC_OK, RC_IO or RC_NOMEM. */

/* Those who stand in `refused`; what they may have got is taken back. */
enum rc turn_refuse(struct turn *t) MUST_CHECK;
/* Those who have a registration: their own, or one of an earlier request. */
enum rc turn_find_registered(struct turn *t) MUST_CHECK;
/* Whose address stands twice in the turn: the first counts. No I/O. */
void turn_drop_repeats(struct turn *t);
/* Give free slots in order, as far as they go, and take them back from those
 * who were refused meanwhile. */
enum rc turn_give_places(struct turn *t) MUST_CHECK;
/* All others go to the waitlist. */
enum rc turn_wait(struct turn *t) MUST_CHECK;
/* The mails that go with the outcomes; the people may be of any codes. */
enum rc turn_mail(struct turn *t) MUST_CHECK;

#endif
