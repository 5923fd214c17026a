/* E-mail addresses: what a person types, the key by which two of them are the
 * same, and the form that is sent to.
 *
 *   typed      "  Jo+news@B\u00fccher.Example "
 *   text       "Jo+news@B\u00fccher.Example"
 *   mailbox    "Jo+news@xn--bcher-kva.example"
 *   key        "jo+news@xn--bcher-kva.example" (tags folded: "jo@...")
 *
 * Taken: the Mailbox of RFC 5321 section 4.1.2 with RFC 6531's UTF-8, as far as
 * it is in use: a dot-atom, @, and a domain name of at least two labels. Not
 * taken, each with its reason: quoted local parts ("jo smith"@...), for almost
 * no one has one, several ways to write the same make two keys of one person,
 * and they are how headers are forged; address literals (jo@[192.0.2.1]);
 * comments; a trailing dot.
 *
 * The key has the local part in lower case, as Unicode has it without regard to
 * a language (U+0130 becomes i and a dot above), and composed (NFC): it is for
 * comparison, and one who asks as J\u00d6RG and as j\u00f6rg is one. What is
 * sent to is as typed, for the local part belongs to its server. Characters
 * beyond ASCII that cannot be seen are refused in it.
 *
 * Limits, in bytes, of the form as typed, of that with A-labels and of the key:
 * local part 64, domain 255, 254 in all (RFC 5321 section 4.5.3.1.3 less < and
 * >), label 63. */
#ifndef SLUICE_SHARED_ADDRESS_H
#define SLUICE_SHARED_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "shared/rc.h"

#define ADDRESS_LOCAL_MAX_BYTES 64
#define ADDRESS_DOMAIN_MAX_BYTES 255
#define ADDRESS_LABEL_MAX_BYTES 63
#define ADDRESS_MAX_BYTES 254
#define ADDRESS_BYTES (ADDRESS_MAX_BYTES + 1) /* with the NUL */

/* None of them holds a blank or a control character; all are UTF-8. */
struct address {
    char text[ADDRESS_BYTES];    /* as typed, without the blanks around it */
    char mailbox[ADDRESS_BYTES]; /* to send to: the domain in A-labels */
    char key[ADDRESS_BYTES];     /* to compare; tags folded if asked */
    bool ascii; /* mailbox needs no SMTPUTF8, for its local part is ASCII */
};

/* Read text (bytes, any bytes) as one address; blanks and tabs around it are
 * trimmed. fold_plus_tags: in the key, "user+tag@" is "user@" ("+tag@" stays).
 * RC_OK: *why is NULL. RC_INVALID: *out is empty, *why a short sentence for the
 * person at the form ("There must be exactly one @."), static. RC_NOMEM: empty
 * too, *why is NULL. Any thread. */
enum rc address_parse(const char *text, size_t bytes, bool fold_plus_tags,
                      struct address *out, const char **why) MUST_CHECK;

#endif
