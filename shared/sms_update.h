/* A batch of status updates from the provider.
 *
 * In a request:  {"<message id>": "CONFIRMED", ...}, at most 10 000 members
 * In the journal, in a push frame, and in an outcome (there behind the line of
 * sms_update_head): the byte 1, then each update in the order of the request:
 *   byte k < 16   the message's state k, and 16 bytes of its id
 *   byte 16 + k   the same, and our journal knew the message when the update
 *                 was taken up (only in an outcome)
 *   byte 255      cannot be mapped: a byte with the length of the member's
 *                 name and the name, a byte with the length of what it said and
 *                 that, both cut between two characters */
#ifndef SLUICE_SHARED_SMS_UPDATE_H
#define SLUICE_SHARED_SMS_UPDATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/fields.h"
#include "shared/rc.h"
#include "shared/sms_state.h"
#include "shared/text.h"
#include "shared/uuid.h"

#define SMS_UPDATES_MAX 10000
#define SMS_UPDATE_NAME_BYTES 129 /* of one that cannot be mapped, with NUL */
#define SMS_UPDATE_WORD_BYTES 65

struct sms_update {
    bool mapped;
    /* mapped */
    struct uuid id;
    enum sms_state state;
    bool known; /* in an outcome: the journal had the message */
    /* not mapped: UTF-8 */
    char name[SMS_UPDATE_NAME_BYTES];
    char word[SMS_UPDATE_WORD_BYTES]; /* what it said; a value that is no
                                         string: its JSON */
};

/* Decode a provider's body and append the journal form. RC_INVALID: no object,
 * more than SMS_UPDATES_MAX members, a member twice: errors say so. RC_NOMEM.
 * Any thread. */
enum rc sms_updates_from_request(const char *body, size_t bytes,
                                 struct text *out,
                                 struct field_errors *errors) MUST_CHECK;

/* Walks a journal form. Begin with {body, bytes}. */
struct sms_update_cursor {
    const char *body;
    size_t bytes;
    size_t at; /* 0: not begun */
};

/* The next update. RC_AGAIN: there is none any more; RC_INVALID: not a form
 * that sms_update_put would have written. */
enum rc sms_update_next(struct sms_update_cursor *cursor,
                        struct sms_update *out) MUST_CHECK;

/* Begin a form, and append an update. Fail stickily in the text. */
void sms_update_begin(struct text *out);
void sms_update_put(const struct sms_update *update, struct text *out);

/* What an outcome begins with, before its form: the request that the updates
 * came with, as the line "<seq> <received_unix_ms> <update id>\n". */
struct sms_update_head {
    int64_t seq; /* > 0 */
    int64_t received_unix_ms;
    struct uuid id;
};

/* Append the line. Fails stickily in the text. Any thread. */
void sms_update_head_put(const struct sms_update_head *head, struct text *out);
/* Read it; *head_bytes = its length: the form stands behind it. RC_INVALID. */
enum rc sms_update_head_get(const char *body, size_t bytes,
                            struct sms_update_head *out,
                            size_t *head_bytes) MUST_CHECK;

#endif
