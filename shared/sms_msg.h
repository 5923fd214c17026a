/* The SMS service's message: to whom, and what.
 *
 * In a request:    {"phone_number": "+4917612345", "content": "Hello"}
 *                  (PhoneNumber is another name of the first)
 * In the journal and in a push frame: "+4917612345 Hello". */
#ifndef SLUICE_SHARED_SMS_MSG_H
#define SLUICE_SHARED_SMS_MSG_H

#include <stddef.h>

#include "shared/fields.h"
#include "shared/rc.h"
#include "shared/text.h"

#define SMS_PHONE_BYTES 17 /* an optional '+', 3-15 digits, NUL */
#define SMS_CONTENT_CHARS_MAX 1600
#define SMS_CONTENT_BYTES (4 * SMS_CONTENT_CHARS_MAX + 1) /* UTF-8, NUL */

struct sms_msg {
    char phone[SMS_PHONE_BYTES];
    char content[SMS_CONTENT_BYTES]; /* 1-1600 characters, no U+0000 */
    size_t content_bytes;            /* without the NUL */
};

/* Decode a client's body. RC_INVALID: errors say which field and why. Any
 * thread. */
enum rc sms_msg_from_request(const char *body, size_t bytes,
                             struct sms_msg *out,
                             struct field_errors *errors) MUST_CHECK;

/* Append the journal form. Fails stickily in the text. */
void sms_msg_encode(const struct sms_msg *msg, struct text *out);

/* Decode the journal form. RC_INVALID for anything that sms_msg_encode would
 * not have written (a record to quarantine). */
enum rc sms_msg_decode(const char *body, size_t bytes,
                       struct sms_msg *out) MUST_CHECK;

#endif
