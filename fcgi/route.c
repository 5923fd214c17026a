/* Routing by the app's const table. Tables have a handful of entries: they are
 * walked from the top. */
#include "fcgi/route.h"

#include <string.h>

#define PARAM "{id}"

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

enum route_verdict
route_find(const struct edge_app *app, const char *method, const char *path,
           const struct edge_route **route, char *param, char *allow)
{
    enum route_verdict verdict = ROUTE_UNKNOWN;

    *route = NULL;
    param[0] = '\0';
    allow[0] = '\0';
    for (size_t k = 0; k < app->route_count; k++) {
        const struct edge_route *r = &app->routes[k];

        if (!path_matches(r->path, path, param)) {
            continue;
        }
        if (method_matches(r->method, method)) {
            *route = r;
            allow[0] = '\0';
            return ROUTE_FOUND;
        }
        verdict = ROUTE_METHOD;
        allow_add(allow, r->method);
        if (strcmp(r->method, "GET") == 0) {
            allow_add(allow, "HEAD");
        }
    }
    if (verdict == ROUTE_METHOD) {
        allow_add(allow, "OPTIONS");
        allow[strlen(allow) - (sizeof(", ") - 1)] = '\0';
    }
    return verdict;
}
