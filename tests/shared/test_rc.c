/* shared/rc.c */
#include "shared/rc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void
every_code_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (int a = RC_OK; a <= RC_BUG; a++) {
        assert_string_not_equal(rc_name((enum rc)a), "unknown");
        for (int b = a + 1; b <= RC_BUG; b++) {
            assert_string_not_equal(rc_name((enum rc)a), rc_name((enum rc)b));
        }
    }
}

static void
a_code_from_nowhere_is_unknown(void **state)
{
    (void)state;
    assert_string_equal(rc_name((enum rc)(RC_BUG + 1)), "unknown");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_a_name_of_its_own),
        cmocka_unit_test(a_code_from_nowhere_is_unknown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
