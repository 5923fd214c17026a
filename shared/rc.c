/* Names of the result codes, for the log. */
#include "shared/rc.h"

const char *
rc_name(enum rc rc)
{
    switch (rc) {
    case RC_OK:
        return "ok";
    case RC_AGAIN:
        return "again";
    case RC_INVALID:
        return "invalid";
    case RC_FULL:
        return "full";
    case RC_TIMEOUT:
        return "timeout";
    case RC_IO:
        return "io";
    case RC_NOMEM:
        return "nomem";
    case RC_BUG:
        return "bug";
    }
    return "unknown";
}
