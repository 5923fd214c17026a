/* The services by name. */
#include "shared/services.h"

#include <string.h>

static const char *const names[SERVICE_COUNT] = {
    [SERVICE_CALLBACK] = "callback",
    [SERVICE_CALL] = "call",
    [SERVICE_SMS] = "sms",
    [SERVICE_SMS_STATUS] = "sms_status",
    [SERVICE_INVITATION] = "invitation",
};

const char *
service_name(enum service service)
{
    /* The cast catches a negative value from a damaged record, too. */
    return (unsigned)service < SERVICE_COUNT ? names[service] : "unknown";
}

enum rc
service_parse(const char *name, enum service *out)
{
    for (unsigned i = 0; i < SERVICE_COUNT; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (enum service)i;
            return RC_OK;
        }
    }
    *out = SERVICE_COUNT;
    return RC_INVALID;
}
