/* The call service's message: whom to call, and with which virtual agent; the
 * states of a call, and the outcome that the store persists.
 *
 * In a request:    {"phone_number": "+14155550123",
 *                   "virtual_agent_id": "sales_1"}
 * In the journal and in a push frame: "+14155550123 sales_1".
 * An outcome:      the call's report, see call_outcome_encode. */
#ifndef SLUICE_SHARED_CALL_MSG_H
#define SLUICE_SHARED_CALL_MSG_H

#include <stddef.h>
#include <stdint.h>

#include "shared/fields.h"
#include "shared/rc.h"
#include "shared/text.h"
#include "shared/uuid.h"

#define CALL_PHONE_BYTES 17  /* '+', at most 15 digits (E.164), NUL */
#define CALL_AGENT_BYTES 129 /* 1-128 of [A-Za-z0-9_-], NUL */
#define CALL_ERROR_BYTES 200

struct call_msg {
    char phone[CALL_PHONE_BYTES]; /* E.164: '+', 1-9, 6-14 digits more */
    char agent[CALL_AGENT_BYTES];
};

/* The numbers are in the journal. */
enum call_state {
    CALL_QUEUED = 0,
    CALL_DIALING = 1, /* its slot is taken; the request may have left */
    CALL_ANSWERED = 2,
    CALL_FAILED = 3,
    CALL_UNKNOWN = 4, /* the request left, and no answer came */
    CALL_CANCELED = 5,
    CALL_STATES /* how many there are */
};

/* "QUEUED". "UNKNOWN" for a number that is no state. */
const char *call_state_name(enum call_state state);

/* Decode a client's body. countries: prefixes that are allowed, separated by
 * commas ("+1,+49"), "" = all. RC_INVALID: errors say which field and why.
 * Any thread. */
enum rc call_msg_from_request(const char *body, size_t bytes,
                              const char *countries, struct call_msg *out,
                              struct field_errors *errors) MUST_CHECK;

/* Append the journal form. Fails stickily in the text. */
void call_msg_encode(const struct call_msg *msg, struct text *out);

/* Decode the journal form. RC_INVALID for anything that call_msg_encode would
 * not have written (a record to quarantine). */
enum rc call_msg_decode(const char *body, size_t bytes,
                        struct call_msg *out) MUST_CHECK;

/* How a call ended. */
struct call_outcome {
    struct uuid id;
    struct call_msg msg;
    enum call_state state; /* one of the final ones */
    int64_t seq;
    int64_t attempts; /* >= 0 */
    int64_t created_unix_ms;
    int64_t dialed_unix_ms; /* of the last attempt; 0: never */
    int64_t finished_unix_ms;
    char error[CALL_ERROR_BYTES]; /* UTF-8; "" for none */
};

/* Journal form: "<seq> <state> <attempts> <created> <dialed> <finished> <id>
 * <phone> <agent> <error>", one blank between, the error to the end. */
void call_outcome_encode(const struct call_outcome *outcome, struct text *out);
enum rc call_outcome_decode(const char *body, size_t bytes,
                            struct call_outcome *out) MUST_CHECK;

#endif
