/* The callback service's message: the ids of one callback.
 *
 * In a request:      {"object_ids": [0-200 integers, 0..2^53]}
 * In the journal and in a push frame: the byte 1, a byte with their number and
 * each id once, in the order of its first appearance, as an unsigned LEB128
 * number without leading zeros. Half as long as text, which is what an accept
 * costs: it goes to disk twice. */
#ifndef SLUICE_SHARED_CALLBACK_MSG_H
#define SLUICE_SHARED_CALLBACK_MSG_H

#include <stddef.h>
#include <stdint.h>

#include "shared/fields.h"
#include "shared/rc.h"
#include "shared/text.h"

#define CALLBACK_IDS_MAX 200

struct callback_msg {
    unsigned count; /* 0..CALLBACK_IDS_MAX */
    int64_t ids[CALLBACK_IDS_MAX];
};

/* Decode a client's body (bytes <= 64 KiB); duplicates are merged.
 * RC_INVALID: errors say which field and why. RC_NOMEM: only for a body of
 * more than 500 values. Any thread. */
enum rc callback_msg_from_request(const char *body, size_t bytes,
                                  struct callback_msg *out,
                                  struct field_errors *errors) MUST_CHECK;

/* Append the journal form. Fails stickily in the text. */
void callback_msg_encode(const struct callback_msg *msg, struct text *out);

/* Decode the journal form. RC_INVALID for anything that callback_msg_encode
 * would not have written (a record to quarantine). */
enum rc callback_msg_decode(const char *body, size_t bytes,
                            struct callback_msg *out) MUST_CHECK;

/* An outcome: objects found online, to be upserted.
 * Journal form: [[id,last_seen_unix_ms,seq],...] where seq is the newest
 * request that the object's fetch served: its dead letter should the database
 * refuse the object. */
#define CALLBACK_OUTCOME_MAX 1000
struct callback_object {
    int64_t id;
    int64_t last_seen_unix_ms;
    int64_t seq;
};
void callback_outcome_encode(const struct callback_object *objects,
                             unsigned count, struct text *out);
/* objects has room for CALLBACK_OUTCOME_MAX. */
enum rc callback_outcome_decode(const char *body, size_t bytes,
                                struct callback_object *objects,
                                unsigned *count) MUST_CHECK;

#endif
