/* API keys: auth.keys_file holds one a line ('#' begins a comment); clients
 * send "Authorization: Bearer KEY". */
#ifndef SLUICE_FCGI_AUTH_H
#define SLUICE_FCGI_AUTH_H

#include <stdbool.h>

#include "shared/rc.h"

struct auth;

/* Read the file. path "" means that no key is asked: everybody passes. RC_IO:
 * unreadable; RC_INVALID: a key with blanks or over 255 characters, or no key
 * at all. */
enum rc auth_new(struct auth **out, const char *path) MUST_CHECK;
void auth_free(struct auth **auth);

/* Is a known key in this header's value? Takes as long for a wrong key as for
 * any other. Loop. */
bool auth_permits(const struct auth *auth, const char *authorization);

#endif
