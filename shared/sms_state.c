/* The states of a message, and which may follow which. */
#include "shared/sms_state.h"

#include <string.h>

static const char *const names[SMS_STATES] = {
    [SMS_ACCEPTED] = "ACCEPTED",
    [SMS_CONFIRMED] = "CONFIRMED",
    [SMS_FAILED] = "FAILED",
    [SMS_DELIVERED] = "DELIVERED",
};

/* follows[from][to]; what is not named is not allowed. */
static const bool follows[SMS_STATES][SMS_STATES] = {
    [SMS_ACCEPTED] =
        {
            [SMS_CONFIRMED] = true,
            [SMS_FAILED] = true,
            [SMS_DELIVERED] = true,
        },
    [SMS_CONFIRMED] =
        {
            [SMS_FAILED] = true,
            [SMS_DELIVERED] = true,
        },
};

const char *
sms_state_name(enum sms_state state)
{
    return (unsigned)state < SMS_STATES ? names[state] : "UNKNOWN";
}

enum rc
sms_state_parse(const char *name, size_t bytes, enum sms_state *out)
{
    *out = SMS_ACCEPTED;
    for (unsigned k = 0; k < SMS_STATES; k++) {
        if (strlen(names[k]) == bytes && memcmp(names[k], name, bytes) == 0) {
            *out = (enum sms_state)k;
            return RC_OK;
        }
    }
    return RC_INVALID;
}

bool
sms_state_may_follow(enum sms_state from, enum sms_state to)
{
    return (unsigned)from < SMS_STATES && (unsigned)to < SMS_STATES &&
           follows[from][to];
}

bool
sms_state_is_final(enum sms_state state)
{
    for (unsigned to = 0; to < SMS_STATES; to++) {
        if (sms_state_may_follow(state, (enum sms_state)to)) {
            return false;
        }
    }
    return true;
}
