/* shared/services.c */
#include "shared/services.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void
every_name_leads_back_to_its_service(void **state)
{
    (void)state;
    for (int i = 0; i < SERVICE_COUNT; i++) {
        enum service found;

        assert_int_equal(service_parse(service_name((enum service)i), &found),
                         RC_OK);
        assert_int_equal(found, i);
    }
}

static void
an_unknown_name_is_invalid_and_gives_no_service(void **state)
{
    static const char *const names[] = {"", "callbac", "callbacks", "CALLBACK",
                                        "unknown"};

    (void)state;
    for (unsigned i = 0; i < ARRAY_COUNT(names); i++) {
        enum service found = SERVICE_CALLBACK;

        assert_int_equal(service_parse(names[i], &found), RC_INVALID);
        assert_int_equal(found, SERVICE_COUNT);
    }
}

static void
a_number_that_is_no_service_still_has_a_name(void **state)
{
    (void)state;
    assert_string_equal(service_name(SERVICE_COUNT), "unknown");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_name_leads_back_to_its_service),
        cmocka_unit_test(an_unknown_name_is_invalid_and_gives_no_service),
        cmocka_unit_test(a_number_that_is_no_service_still_has_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
