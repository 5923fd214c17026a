/* How many short messages a text takes.
 *
 * In GSM 03.38's default alphabet (now 3GPP TS 23.038, 6.2.1) a message holds
 * 160 septets, and 153 of one that is in parts; a character of the extension
 * table ({ } [ ] ~ \ | ^ EUR, form feed) takes two, which are never split.
 * Anything else goes as UCS-2: 70 UTF-16 units, 67 in parts; a surrogate pair
 * is never split over two parts.
 *
 *   160 x "a"      GSM-7, 1 segment
 *   161 x "a"      GSM-7, 2
 *   152 x "a", EUR, "a" x 10   GSM-7, 2: EUR begins the second part
 *   "Grüße"        GSM-7, 1
 *   71 x "ж"       UCS-2, 2 */
#ifndef SLUICE_SHARED_SMS_TEXT_H
#define SLUICE_SHARED_SMS_TEXT_H

#include <stddef.h>

#include "shared/rc.h"

enum sms_encoding {
    SMS_GSM7,
    SMS_UCS2,
};

struct sms_size {
    enum sms_encoding encoding;
    int segments; /* >= 1; 1 for an empty text */
};

/* Size of bytes of UTF-8. RC_INVALID: not well-formed. Any thread. */
enum rc sms_text_size(const char *content, size_t bytes,
                      struct sms_size *out) MUST_CHECK;

/* "GSM-7", "UCS-2". */
const char *sms_encoding_name(enum sms_encoding encoding);

#endif
