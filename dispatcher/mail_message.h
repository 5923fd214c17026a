/* Mail messages (RFC 5322, 2045-2047, 3834): a text and an HTML part, made of
 * bytes that no header value can break out of.
 *
 *   From: Sluice <invitations@example.com>
 *   To: <jo@example.com>
 *   Subject: =?UTF-8?Q?Ihr_Platz_f=C3=BCr_...?=     folded, or as it is
 *   Date: Sat, 21 Nov 2026 12:28:49 +0000
 *   Message-ID: <0193...@example.com>
 *   MIME-Version: 1.0
 *   Auto-Submitted: auto-generated
 *   Content-Type: multipart/alternative; boundary="=_sluice"
 *
 * Lines end with CRLF and have at most 76 characters without it; only the line
 * of a longer address does not, which cannot be folded. Dots at the beginning
 * of a line are libcurl's to double. */
#ifndef SLUICE_DISPATCHER_MAIL_MESSAGE_H
#define SLUICE_DISPATCHER_MAIL_MESSAGE_H

#include <stddef.h>
#include <stdint.h>

#include "shared/address.h"
#include "shared/rc.h"
#include "shared/text.h"

#define MAIL_SENDER_NAME_MAX_BYTES 127
#define MAIL_SENDER_NAME_BYTES (MAIL_SENDER_NAME_MAX_BYTES + 1)
#define MAIL_SUBJECT_MAX_BYTES 400
#define MAIL_ID_MAX_BYTES 200

/* Who sends. Its mailbox is the envelope's, too (MAIL FROM). */
struct mail_sender {
    char name[MAIL_SENDER_NAME_BYTES]; /* UTF-8; "" for none */
    char mailbox[ADDRESS_BYTES];       /* ASCII */
};

/* Read the setting mail.from: "Name <local@host>", "\"Name\" <local@host>",
 * "<local@host>" or "local@host"; the host may be one label, as "localhost".
 * RC_INVALID: *out is empty. Any thread. */
enum rc mail_sender_parse(const char *value,
                          struct mail_sender *out) MUST_CHECK;

/* What to compose. All is borrowed, UTF-8 and not NULL. */
struct mail_message {
    const struct mail_sender *from;
    const char *to;       /* an address's mailbox; beyond ASCII: SMTPUTF8 */
    const char *subject;  /* 1-400 bytes, one line */
    const char *id;       /* of the Message-ID, without < and >, ASCII */
    int64_t date_unix_ms; /* 0 <= date < the year 10000 */
    const char *text;     /* any line ends; CRLF is made of them */
    const char *html;
};

/* Append the message. RC_INVALID: a header's value holds a CR, LF, NUL or
 * another control character, something is not UTF-8, too long, empty or no
 * address; nothing was appended. RC_FULL: out's bound or the memory; out has
 * failed. Any thread. */
enum rc mail_message_compose(const struct mail_message *message,
                             struct text *out) MUST_CHECK;

#endif
