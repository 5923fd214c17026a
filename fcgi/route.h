/* Which route of an app's table a request takes. */
#ifndef SLUICE_FCGI_ROUTE_H
#define SLUICE_FCGI_ROUTE_H

#include "fcgi/edge.h"

#define ROUTE_ALLOW_BYTES 64

enum route_verdict {
    ROUTE_FOUND,
    ROUTE_UNKNOWN, /* 404 */
    ROUTE_METHOD,  /* the path is known, with other methods: 405, or 204 for
                      OPTIONS; allow says which */
};

/* Look up method and path. *route is set when found, param gets what {id}
 * matched (REQUEST_PARAM_BYTES), allow a list for the Allow header
 * (ROUTE_ALLOW_BYTES). A path that stands in the table as it is comes before
 * any with {id}: /sms/statistics is never /sms/{id}. Any thread. */
enum route_verdict route_find(const struct edge_app *app, const char *method,
                              const char *path, const struct edge_route **route,
                              char *param, char *allow);

#endif
