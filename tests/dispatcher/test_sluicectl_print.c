/* dispatcher/sluicectl_print.c: what an operator sees. */
#include "dispatcher/sluicectl_print.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef int print_fn(const struct ctl_document *d, int64_t node_id, FILE *to);

/* Print text by fn as node 3 and compare. Returns the exit status. */
static int
assert_prints(print_fn *fn, const char *json, const char *expected)
{
    struct ctl_document *d;
    char *printed = NULL;
    size_t bytes = 0;
    FILE *to = open_memstream(&printed, &bytes);
    int status;

    assert_int_equal(ctl_document_new(&d, json, strlen(json)), RC_OK);
    status = fn(d, 3, to);
    (void)fclose(to);
    assert_string_equal(printed, expected);
    free(printed);
    ctl_document_free(&d);
    assert_null(d);
    return status;
}

static void
status_is_a_table_with_aligned_columns(void **state)
{
    (void)state;
    assert_int_equal(
        assert_prints(
            ctl_print_status,
            "{\"dispatcher\":{\"pid\":42,\"version\":\"0.1.0\",\"uptime_s\":"
            "7265,\"node_id\":3},\"ledger\":{\"services\":{\"callback\":{"
            "\"accepted\":1234567,\"final\":1234000,\"dead\":3,\"pending\":"
            "564,\"outcomes\":2,\"balanced\":true,\"oldest_age_s\":4.25,"
            "\"queue_bytes\":4096},\"sms\":{\"accepted\":0,\"final\":0,"
            "\"dead\":0,\"pending\":0,\"outcomes\":0,\"balanced\":false,"
            "\"oldest_age_s\":0,\"queue_bytes\":0}},\"journal\":{"
            "\"used_bytes\":1572864,\"max_bytes\":10737418240}},\"services\":{"
            "\"callback\":{\"paused\":false,\"inbox\":17,\"behind\":true,"
            "\"cursor\":5},\"sms\":{\"paused\":true,\"inbox\":0,\"behind\":"
            "false,\"cursor\":0},\"invitation\":{\"mail\":{\"paused\":true,"
            "\"reason\":\"554 no\"}}},"
            "\"postgres\":{\"up\":false},\"mongo\":{\"up\":true}}",
            "dispatcher  up 2 h 1 min, pid 42, version 0.1.0, node 3\n"
            "postgres    DOWN\n"
            "mongo       up\n"
            "mail        PAUSED: 554 no\n"
            "journal     1.5 MiB of 10.0 GiB\n"
            "\n"
            "SERVICE   STATE   ACCEPTED    FINAL  DEAD  PENDING  OLDEST  "
            "OUTCOMES  INBOX    BYTES  LEDGER\n"
            "callback  behind   1234567  1234000     3      564   4.2 s  "
            "       2     17  4.0 KiB  balanced\n"
            "sms       paused         0        0     0        0       -  "
            "       0      0      0 B  UNBALANCED\n"),
        0);
}

static void
status_without_a_dispatcher_says_so(void **state)
{
    (void)state;
    assert_int_equal(
        assert_prints(
            ctl_print_status,
            "{\"dispatcher\":null,\"ledger\":{\"services\":{\"callback\":{"
            "\"accepted\":1,\"final\":0,\"dead\":0,\"pending\":1,\"outcomes\":"
            "0,\"balanced\":true,\"oldest_age_s\":200000,\"queue_bytes\":7}},"
            "\"journal\":{\"used_bytes\":1000,\"max_bytes\":2000}}}",
            "dispatcher  not running\n"
            "journal     1000 B of 2.0 KiB\n"
            "\n"
            "SERVICE   STATE  ACCEPTED  FINAL  DEAD  PENDING   OLDEST  "
            "OUTCOMES  INBOX  BYTES  LEDGER\n"
            "callback  -             1      0     0        1  2 d 7 h  "
            "       0      -    7 B  balanced\n"),
        0);
}

static void
the_queue_names_what_comes_next(void **state)
{
    (void)state;
    assert_int_equal(
        assert_prints(
            ctl_print_queue,
            "{\"queue\":[{\"service\":\"callback\",\"pending\":2,"
            "\"oldest_age_s\":75,\"queue_bytes\":20,\"next\":[{\"id\":\"a\","
            "\"seq\":9,\"received_at\":\"T1\",\"body_bytes\":7},{\"id\":\"b\","
            "\"seq\":10,\"received_at\":\"T2\",\"body_bytes\":13}]}]}",
            "callback: 2 pending, the oldest for 1 min 15 s, 20 B\n"
            "\n"
            "SERVICE   SEQ  ID  RECEIVED  BYTES\n"
            "callback    9  a   T1            7\n"
            "callback   10  b   T2           13\n"),
        0);
    assert_int_equal(
        assert_prints(ctl_print_queue,
                      "{\"queue\":[{\"service\":\"callback\",\"pending\":0,"
                      "\"oldest_age_s\":0,\"queue_bytes\":0,\"next\":[]}]}",
                      "callback: 0 pending\n"),
        0);
}

static void
dead_letters_show_their_first_items(void **state)
{
    (void)state;
    assert_int_equal(
        assert_prints(
            ctl_print_dead,
            "{\"dead\":[{\"id\":\"i1\",\"service\":\"callback\",\"seq\":4,"
            "\"received_at\":\"T\",\"dead_at\":\"T2\",\"reason\":\"no "
            "luck\",\"items\":[{\"item\":\"7\",\"reason\":\"HTTP 500\","
            "\"attempts\":4},{\"item\":\"8\",\"reason\":\"r\",\"attempts\":1},"
            "{\"item\":\"9\",\"reason\":\"r\",\"attempts\":1},{\"item\":\"10\""
            ",\"reason\":\"r\",\"attempts\":1}]}],\"next\":4}",
            "i1  callback  T2  no luck\n"
            "    7: HTTP 500 (attempts: 4)\n"
            "    8: r (attempts: 1)\n"
            "    9: r (attempts: 1)\n"
            "    and 1 more (sluicectl explain ID)\n"
            "more: sluicectl dead list callback 4\n"),
        0);
    assert_int_equal(
        assert_prints(ctl_print_dead,
                      "{\"dead\":[{\"id\":\"i\",\"service\":\"sms\",\"seq\":4,"
                      "\"dead_at\":\"T\",\"reason\":\"r\",\"items\":[]}],"
                      "\"next\":{\"callback\":7,\"sms\":4}}",
                      "i  sms  T  r\n"
                      "more: sluicectl dead list callback 7\n"
                      "more: sluicectl dead list sms 4\n"),
        0);
    assert_int_equal(assert_prints(ctl_print_dead, "{\"dead\":[],\"next\":{}}",
                                   "no dead letters\n"),
                     0);
    assert_int_equal(assert_prints(ctl_print_dead,
                                   "{\"dead\":[],\"next\":null}",
                                   "no dead letters\n"),
                     0);
}

static void
explain_prints_what_there_is(void **state)
{
    (void)state;
    assert_int_equal(
        assert_prints(ctl_print_explain,
                      "{\"id\":\"i\",\"node\":3,\"created_at\":\"T0\","
                      "\"service\":\"callback\",\"seq\":5,\"received_at\":"
                      "\"T1\",\"state\":\"pending\",\"ahead\":0}",
                      "id           i\n"
                      "state        pending\n"
                      "service      callback\n"
                      "seq          5\n"
                      "created      T0\n"
                      "received     T1\n"
                      "ahead of it  0\n"),
        0);
    assert_int_equal(
        assert_prints(ctl_print_explain,
                      "{\"id\":\"i\",\"node\":3,\"created_at\":\"T0\","
                      "\"service\":\"sms\",\"seq\":5,\"received_at\":\"T1\","
                      "\"state\":\"pending\",\"ahead\":0,\"batch\":\"b\","
                      "\"batch_size\":9,\"batch_place\":2,"
                      "\"failed_attempts\":3,\"last_error\":\"HTTP 500\"}",
                      "id           i\n"
                      "state        pending\n"
                      "service      sms\n"
                      "seq          5\n"
                      "created      T0\n"
                      "received     T1\n"
                      "ahead of it  0\n"
                      "batch        b\n"
                      "its size     9\n"
                      "place in it  2\n"
                      "failed tries 3\n"
                      "last error   HTTP 500\n"),
        0);
}

static void
an_unknown_id_is_told_by_its_node(void **state)
{
    (void)state;
    assert_int_equal(
        assert_prints(ctl_print_explain,
                      "{\"id\":\"i\",\"node\":3,\"created_at\":\"T0\","
                      "\"state\":\"unknown\"}",
                      "id           i\n"
                      "Not in the journal. The id was made by this node (3) "
                      "at T0:\nthe request has reached its end, or was never "
                      "accepted here.\n"),
        1);
    assert_int_equal(
        assert_prints(ctl_print_explain,
                      "{\"id\":\"i\",\"node\":4,\"created_at\":\"T0\","
                      "\"state\":\"unknown\"}",
                      "id           i\n"
                      "Not in the journal. The id was made by node 4 at T0; "
                      "this is node 3:\nask there.\n"),
        1);
}

static void
orders_are_confirmed(void **state)
{
    (void)state;
    assert_int_equal(
        assert_prints(ctl_print_done, "{\"retried\":12}", "retried 12\n"), 0);
    assert_int_equal(assert_prints(ctl_print_done, "{\"paused\":\"callback\"}",
                                   "paused callback\n"),
                     0);
    assert_int_equal(
        assert_prints(ctl_print_drain, "{\"drained\":true,\"left\":null}",
                      "drained; \"sluicectl resume all\" lifts it\n"),
        0);
    assert_int_equal(
        assert_prints(ctl_print_drain,
                      "{\"drained\":false,\"left\":{\"callback\":{\"inbox\":1,"
                      "\"active\":2,\"outcomes\":3}}}",
                      "not drained yet; the services stay held, \"sluicectl "
                      "resume all\" lifts it\n"
                      "callback: inbox 1, active 2, outcomes 3\n"),
        1);
}

static void
other_documents_do_no_harm(void **state)
{
    static const char *const documents[] = {
        "{}",
        "[]",
        "1",
        "null",
        "\"x\"",
        "{\"dead\":7,\"queue\":\"\"}",
        "{\"ledger\":{\"services\":[1,2]},\"services\":3}",
        "{\"left\":[1],\"items\":{}}"};
    static print_fn *const all[] = {ctl_print_status, ctl_print_queue,
                                    ctl_print_dead,   ctl_print_explain,
                                    ctl_print_drain,  ctl_print_done};

    (void)state;
    for (size_t i = 0; i < sizeof(documents) / sizeof(documents[0]); i++) {
        for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++) {
            struct ctl_document *d;
            FILE *to = fopen("/dev/null", "w");

            assert_int_equal(
                ctl_document_new(&d, documents[i], strlen(documents[i])),
                RC_OK);
            (void)all[k](d, 0, to);
            ctl_document_free(&d);
            (void)fclose(to);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_is_a_table_with_aligned_columns),
        cmocka_unit_test(status_without_a_dispatcher_says_so),
        cmocka_unit_test(the_queue_names_what_comes_next),
        cmocka_unit_test(dead_letters_show_their_first_items),
        cmocka_unit_test(explain_prints_what_there_is),
        cmocka_unit_test(an_unknown_id_is_told_by_its_node),
        cmocka_unit_test(orders_are_confirmed),
        cmocka_unit_test(other_documents_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
