/* fcgi/route.c */
#include "fcgi/route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const struct edge_route routes[] = {
    {.method = "POST", .path = "/callback"},
    {.method = "GET", .path = "/objects"},
    {.method = "GET", .path = "/objects/{id}"},
    {.method = "GET", .path = "/calls/{id}"},
    {.method = "DELETE", .path = "/calls/{id}"},
    {.method = "POST", .path = "/sms/{id}/again"},
    {.method = "GET", .path = "/sms/{id}"}, /* before what is no id */
    {.method = "GET", .path = "/sms/statistics"},
    {.method = "POST", .path = "/sms/status-updates"},
};
static const struct edge_app app = {
    .name = "test", .routes = routes, .route_count = ARRAY_COUNT(routes)};

#define LONG_128                                                               \
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"         \
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

#define LONG_1023                                                              \
    LONG_128 LONG_128 LONG_128 LONG_128 LONG_128 LONG_128 LONG_128             \
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"     \
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde"

struct row {
    const char *method;
    const char *path;
    enum route_verdict verdict;
    int route;         /* index when found */
    const char *param; /* when found */
    const char *allow; /* when the method is wrong */
};

static const struct row rows[] = {
    {"POST", "/callback", ROUTE_FOUND, 0, "", NULL},
    {"GET", "/callback", ROUTE_METHOD, 0, NULL, "POST, OPTIONS"},
    {"post", "/callback", ROUTE_METHOD, 0, NULL, "POST, OPTIONS"},
    {"OPTIONS", "/callback", ROUTE_METHOD, 0, NULL, "POST, OPTIONS"},
    {"GET", "/objects", ROUTE_FOUND, 1, "", NULL},
    {"HEAD", "/objects", ROUTE_FOUND, 1, "", NULL},
    {"POST", "/objects", ROUTE_METHOD, 0, NULL, "GET, HEAD, OPTIONS"},
    {"GET", "/objects/7", ROUTE_FOUND, 2, "7", NULL},
    {"HEAD", "/objects/7", ROUTE_FOUND, 2, "7", NULL},
    {"GET", "/objects/" LONG_128, ROUTE_FOUND, 2, LONG_128, NULL},
    {"GET", "/objects/" LONG_128 "x", ROUTE_FOUND, 2, LONG_128 "x", NULL},
    {"GET", "/objects/" LONG_1023, ROUTE_FOUND, 2, LONG_1023, NULL},
    {"GET", "/objects/" LONG_1023 "x", ROUTE_UNKNOWN, 0, NULL, NULL},
    {"GET", "/objects/", ROUTE_UNKNOWN, 0, NULL, NULL},
    {"GET", "/objects/7/", ROUTE_UNKNOWN, 0, NULL, NULL},
    {"GET", "/objects/7/8", ROUTE_UNKNOWN, 0, NULL, NULL},
    {"GET", "/objectsx", ROUTE_UNKNOWN, 0, NULL, NULL},
    {"GET", "/Objects", ROUTE_UNKNOWN, 0, NULL, NULL},
    {"GET", "/", ROUTE_UNKNOWN, 0, NULL, NULL},
    {"GET", "/calls/a", ROUTE_FOUND, 3, "a", NULL},
    {"DELETE", "/calls/a", ROUTE_FOUND, 4, "a", NULL},
    {"PUT", "/calls/a", ROUTE_METHOD, 0, NULL, "GET, HEAD, DELETE, OPTIONS"},
    {"POST", "/sms/x/again", ROUTE_FOUND, 5, "x", NULL},
    {"POST", "/sms/x", ROUTE_METHOD, 0, NULL, "GET, HEAD, OPTIONS"},
    {"GET", "/sms/x", ROUTE_FOUND, 6, "x", NULL},
    {"GET", "/sms/statistics", ROUTE_FOUND, 7, "", NULL},
    {"HEAD", "/sms/statistics", ROUTE_FOUND, 7, "", NULL},
    {"POST", "/sms/statistics", ROUTE_METHOD, 0, NULL, "GET, HEAD, OPTIONS"},
    {"POST", "/sms/statistics/again", ROUTE_FOUND, 5, "statistics", NULL},
    {"GET", "/sms/statisticsx", ROUTE_FOUND, 6, "statisticsx", NULL},
    {"POST", "/sms/status-updates", ROUTE_FOUND, 8, "", NULL},
    {"GET", "/sms/status-updates", ROUTE_METHOD, 0, NULL, "POST, OPTIONS"},
    {"POST", "/sms//again", ROUTE_UNKNOWN, 0, NULL, NULL},
};

static void
each_row_takes_its_route(void **state)
{
    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(rows); k++) {
        const struct row *row = &rows[k];
        const struct edge_route *route;
        char param[REQUEST_PARAM_BYTES];
        char allow[ROUTE_ALLOW_BYTES];

        if (route_find(&app, row->method, row->path, &route, param, allow) !=
            row->verdict) {
            fail_msg("%s %s", row->method, row->path);
        }
        if (row->verdict == ROUTE_FOUND) {
            assert_ptr_equal(route, &routes[row->route]);
            assert_string_equal(param, row->param);
        } else {
            assert_null(route);
        }
        assert_string_equal(allow, row->allow != NULL ? row->allow : "");
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_row_takes_its_route),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
