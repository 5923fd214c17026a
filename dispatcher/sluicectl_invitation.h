/* sluicectl invitation ...: the operator's invitations, straight in MongoDB; no
 * dispatcher need run. */
#ifndef SLUICE_DISPATCHER_SLUICECTL_INVITATION_H
#define SLUICE_DISPATCHER_SLUICECTL_INVITATION_H

#include <stdbool.h>

#include "shared/conf.h"
#include "shared/text.h"
#include "shared/uuid.h"

/* Lines of the usage text. */
extern const char sluicectl_invitation_usage[];

/* Carry out the words behind "invitation". Returns the exit status: 0 done, 1
 * refused or not found, 2 usage, 3 MongoDB does not answer. */
int sluicectl_invitation(const struct conf *conf, bool json, int argc,
                         char **argv);

/* Tell what MongoDB knows of a request that has left the journal: in lines on
 * stdout, or, json not NULL, as an object behind what is in it. True: it knows
 * something; false: json is as it was. */
bool sluicectl_invitation_explain(const struct conf *conf,
                                  const struct uuid *id, struct text *json);

#endif
