/* Routing by the app's const table. Tables have a handful of entries: they are
 * walked from the top, twice: a path that a route names itself is no {id} of
 * another one, whatever the methods. */
#include "fcgi/route.h"

#include <string.h>

#define PARAM "{id}"

struct route_target {
    const char *method;
    const char *path;
    char *param;
};

/* Does path match? {id} takes one segment that is not empty. */
static bool
path_matches(const char *pattern, const char *path, char *param)
{
    const char *at = strstr(pattern, PARAM);
    size_t before = at != NULL ? (size_t)(at - pattern) : 0;
    size_t bytes;

    if (at == NULL) {
        return strcmp(pattern, path) == 0;
    }
    if (strncmp(pattern, path, before) != 0) {
        return false;
    }
    path += before;
    bytes = strcspn(path, "/");
    if (bytes == 0 || bytes >= REQUEST_PARAM_BYTES ||
        strcmp(path + bytes, at + sizeof(PARAM) - 1) != 0) {
        return false;
    }
    memcpy(param, path, bytes);
    param[bytes] = '\0';
    return true;
}

static bool
method_matches(const char *route_method, const char *method)
{
    return strcmp(route_method, method) == 0 ||
           (strcmp(route_method, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

static void
allow_add(char *allow, const char *method)
{
    size_t used = strlen(allow);
    size_t bytes = strlen(method);

    if (used + bytes + sizeof(", ") <= ROUTE_ALLOW_BYTES) {
        memcpy(allow + used, method, bytes);
        memcpy(allow + used + bytes, ", ", sizeof(", "));
    }
}

/* Look among the routes whose path has an {id} (or among those that have
 * none). */
static enum route_verdict
find_among(const struct edge_app *app, bool with_id,
           const struct route_target *target, const struct edge_route **route,
           char *allow)
{
    enum route_verdict verdict = ROUTE_UNKNOWN;

    for (size_t k = 0; k < app->route_count; k++) {
        const struct edge_route *r = &app->routes[k];

        if ((strstr(r->path, PARAM) != NULL) != with_id ||
            !path_matches(r->path, target->path, target->param)) {
            continue;
        }
        if (method_matches(r->method, target->method)) {
            *route = r;
            return ROUTE_FOUND;
        }
        verdict = ROUTE_METHOD;
        allow_add(allow, r->method);
        if (strcmp(r->method, "GET") == 0) {
            allow_add(allow, "HEAD");
        }
    }
    return verdict;
}

enum route_verdict
route_find(const struct edge_app *app, const char *method, const char *path,
           const struct edge_route **route, char *param, char *allow)
{
    const struct route_target target = {method, path, param};
    enum route_verdict verdict;

    *route = NULL;
    param[0] = '\0';
    allow[0] = '\0';
    verdict = find_among(app, false, &target, route, allow);
    if (verdict == ROUTE_UNKNOWN) {
        verdict = find_among(app, true, &target, route, allow);
    }
    if (verdict == ROUTE_FOUND) {
        allow[0] = '\0';
    } else if (verdict == ROUTE_METHOD) {
        allow_add(allow, "OPTIONS");
        allow[strlen(allow) - (sizeof(", ") - 1)] = '\0';
    }
    return verdict;
}
