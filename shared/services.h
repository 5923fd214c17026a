/* The services by name. A service is a queue in the journal and a thread of
 * the dispatcher; a handler program serves one or several. */
#ifndef SLUICE_SHARED_SERVICES_H
#define SLUICE_SHARED_SERVICES_H

#include "shared/rc.h"

enum service {
    SERVICE_CALLBACK,
    SERVICE_CALL,
    SERVICE_SMS,        /* messages to be sent */
    SERVICE_SMS_STATUS, /* batches of their status updates */
    SERVICE_INVITATION, /* people who ask for a place */
    SERVICE_COUNT       /* not a service: how many there are */
};

/* "callback". Never NULL for a member. Any thread. */
const char *service_name(enum service service);
/* RC_INVALID when no service has this name. Any thread. */
enum rc service_parse(const char *name, enum service *out) MUST_CHECK;

#endif
