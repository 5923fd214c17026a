/* The HTML of invitation.fcgi: the form, the thanks, and what went wrong. They
 * hold no script and load nothing, so that a strict Content-Security-Policy
 * fits them all. Pure: any thread. All strings are escaped here. */
#ifndef SLUICE_FCGI_INVITATION_PAGE_H
#define SLUICE_FCGI_INVITATION_PAGE_H

#include "shared/fields.h"
#include "shared/text.h"

#define INVITATION_PAGE_TYPE "text/html; charset=utf-8"

/* The form. code: 1-64 of [a-z0-9-]. error NULL: as it is at first; else why
 * the address typed was not taken ("is missing", or a sentence) or, with the
 * field "", the form was not. typed is put back into the field; bytes that are
 * not UTF-8 become U+FFFD. */
void invitation_page_form(struct text *out, const char *code, const char *typed,
                          const struct field_error *error);

/* The request was taken; says nothing of what will become of it. */
void invitation_page_thanks(struct text *out, const char *code);

/* Another error, by its HTTP status. code NULL: no way back to the form. */
void invitation_page_error(struct text *out, int status, const char *code);

/* Text for an element or a quoted attribute: & < > " ' are escaped, what is
 * not UTF-8 becomes U+FFFD, and so does NUL and any control character that
 * HTML forbids. */
void invitation_page_escape(struct text *out, const char *string);

/* The value of the Content-Security-Policy header that goes with the pages. */
const char *invitation_page_policy(void);

#endif
