/* The invitation service's message: who asks for a place, and with which code.
 *
 * In a request:    POST /invitations/twitter-reg1, and one of
 *                  {"Email": "jo@example.com"}        (application/json)
 *                  email=jo%40example.com             (the form of a browser)
 * In the journal and in a push frame: "twitter-reg1 jo@example.com".
 *
 * The address is kept as typed: by which key two of them are the same depends
 * on a setting (invitation.fold_plus_tags), so the dispatcher makes it, with
 * address_parse. */
#ifndef SLUICE_SHARED_INVITATION_MSG_H
#define SLUICE_SHARED_INVITATION_MSG_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/address.h"
#include "shared/fields.h"
#include "shared/rc.h"
#include "shared/text.h"

#define INVITATION_CODE_MAX_BYTES 64
#define INVITATION_CODE_BYTES (INVITATION_CODE_MAX_BYTES + 1)
#define INVITATION_EMAIL_FIELD "Email" /* of the reasons, in both forms */

struct invitation_msg {
    char code[INVITATION_CODE_BYTES]; /* 1-64 of [a-z0-9-] */
    char email[ADDRESS_BYTES];        /* an address's text, see address.h */
};

/* Is it 1-64 of [a-z0-9-]? Any thread. */
bool invitation_code_valid(const char *code);

/* Decode a client's JSON body for the code of its path. RC_INVALID: *out is
 * empty, errors say which field and why: "Email", "code", or "" for the whole
 * body. RC_NOMEM. Any thread. */
enum rc invitation_msg_from_request(const char *code, const char *body,
                                    size_t bytes, struct invitation_msg *out,
                                    struct field_errors *errors) MUST_CHECK;

/* The same for the body of an HTML form (application/x-www-form-urlencoded).
 * Its field is "email", without regard to case; others are ignored. Strict:
 * after % come two hex digits, and what a browser encodes (blanks, controls,
 * all beyond ASCII) must be encoded. */
enum rc invitation_msg_from_form(const char *code, const char *body,
                                 size_t bytes, struct invitation_msg *out,
                                 struct field_errors *errors) MUST_CHECK;

/* Append the journal form, "<code> <address>". Fails stickily in the text. */
void invitation_msg_encode(const struct invitation_msg *msg, struct text *out);

/* Decode the journal form. RC_INVALID for anything that invitation_msg_encode
 * would not have written (a record to quarantine); RC_NOMEM. */
enum rc invitation_msg_decode(const char *body, size_t bytes,
                              struct invitation_msg *out) MUST_CHECK;

#endif
