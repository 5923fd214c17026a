/* What a look-up in journal and database says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shared/lookup.h"

static void
absence_is_known_only_to_the_journal_of_the_node(void **state)
{
    static const struct {
        enum rc in_journal;
        enum rc in_database;
        int64_t node_id;
        enum rc verdict;
    } rows[] = {
        {RC_AGAIN, RC_OK, 0x0203, RC_OK},
        {RC_IO, RC_OK, 0x0203, RC_OK},
        {RC_AGAIN, RC_OK, 7, RC_OK},
        {RC_AGAIN, RC_AGAIN, 0x0203, RC_AGAIN},
        {RC_AGAIN, RC_AGAIN, 7, RC_IO}, /* its own journal may have it */
        {RC_IO, RC_AGAIN, 0x0203, RC_IO},
        {RC_AGAIN, RC_IO, 0x0203, RC_IO},
        {RC_IO, RC_IO, 7, RC_IO},
    };
    const struct uuid id = {.bytes = {[14] = 0x02, [15] = 0x03}};

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(rows); k++) {
        const struct lookup lookup = {.node_id = rows[k].node_id};

        assert_int_equal(lookup_verdict(&lookup, &id, rows[k].in_journal,
                                        rows[k].in_database),
                         rows[k].verdict);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absence_is_known_only_to_the_journal_of_the_node),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
