/* The states of a message and which may follow which: one const table, from
 * which the database's condition is made, too.
 *
 *   ACCEPTED -> CONFIRMED | FAILED | DELIVERED
 *   CONFIRMED -> FAILED | DELIVERED
 *   FAILED, DELIVERED: final */
#ifndef SLUICE_SHARED_SMS_STATE_H
#define SLUICE_SHARED_SMS_STATE_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/rc.h"

/* The numbers are in the journal; 1 << number is in sms.seen_states. */
enum sms_state {
    SMS_ACCEPTED = 0,
    SMS_CONFIRMED = 1,
    SMS_FAILED = 2, /* the provider's word */
    SMS_DELIVERED = 3,
    SMS_STATES /* how many there are */
};

/* "ACCEPTED". "UNKNOWN" for a number that is no state. Any thread. */
const char *sms_state_name(enum sms_state state);
/* The state of this name (bytes long, no NUL asked). RC_INVALID: none. */
enum rc sms_state_parse(const char *name, size_t bytes,
                        enum sms_state *out) MUST_CHECK;

/* May a message in state from come to state to? */
bool sms_state_may_follow(enum sms_state from, enum sms_state to);
/* Does nothing follow it? */
bool sms_state_is_final(enum sms_state state);

#endif
