/* shared/pg.c against a real server, one that is killed under it, and one
 * that never says a word. */
#include "shared/pg.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "shared/clock.h"
#include "tests/shared/pg_fixture.h"

static int
setup(void **state)
{
    *state = pg_fixture_pg("postgres");
    return 0;
}

static int
teardown(void **state)
{
    struct pg *pg = *state;
    pg_free(&pg);
    return 0;
}

/* End the session of pg from another one. */
static void
kill_session(struct pg *pg)
{
    struct pg *killer = pg_fixture_pg("postgres");
    char sql[128];
    snprintf(sql, sizeof(sql), "SELECT pg_terminate_backend(%d, 5000)::int",
             (int)pg_fixture_ask(pg, "SELECT pg_backend_pid()"));
    assert_int_equal(pg_fixture_ask(killer, sql), 1);
    pg_free(&killer);
}

static void
parameters_and_results_are_text_and_null(void **state)
{
    struct pg *pg = *state;
    struct pg_result *result;
    const char *params[] = {"7", NULL, "it's"};
    assert_int_equal(pg_exec(pg, "SELECT $1::int + 1, $2::text, $3::text", 3,
                             params, &result),
                     RC_OK);
    assert_int_equal(pg_rows(result), 1);
    assert_string_equal(pg_value(result, 0, 0), "8");
    assert_int_equal(pg_number(result, 0, 0), 8);
    assert_int_equal(pg_number(result, 0, 1), 0);
    assert_null(pg_value(result, 0, 1));
    assert_string_equal(pg_value(result, 0, 2), "it's");
    pg_result_free(&result);
    assert_null(result);
}

static void
affected_rows_are_counted(void **state)
{
    struct pg *pg = *state;
    struct pg_result *result;
    assert_int_equal(pg_exec_script(pg, "CREATE TEMP TABLE t (n int);"
                                        "INSERT INTO t VALUES (1), (2), (3)"),
                     RC_OK);
    assert_int_equal(pg_exec(pg, "DELETE FROM t WHERE n > 1", 0, NULL, &result),
                     RC_OK);
    assert_int_equal(pg_affected(result), 2);
    pg_result_free(&result);
    assert_int_equal(pg_exec(pg, "DROP TABLE t", 0, NULL, &result), RC_OK);
    assert_int_equal(pg_affected(result), 0);
    pg_result_free(&result);
}

static void
a_large_parameter_is_sent_whole(void **state)
{
    struct pg *pg = *state;
    const size_t bytes = (size_t)8 * 1024 * 1024;
    char *large = malloc(bytes + 1);
    const char *params[] = {large};
    struct pg_result *result;
    assert_non_null(large);
    memset(large, 'x', bytes);
    large[bytes] = '\0';
    assert_int_equal(
        pg_exec(pg, "SELECT length($1::text), $1::text", 1, params, &result),
        RC_OK);
    assert_int_equal(strtoll(pg_value(result, 0, 0), NULL, 10), bytes);
    assert_int_equal(strlen(pg_value(result, 0, 1)), bytes);
    pg_result_free(&result);
    free(large);
}

static void
the_session_is_set_for_durability_and_bounds(void **state)
{
    struct pg *pg = *state;
    struct pg_result *result;
    assert_int_equal(pg_exec(pg,
                             "SELECT current_setting('synchronous_commit'), "
                             "current_setting('statement_timeout'), "
                             "current_setting('client_encoding'), "
                             "current_setting('standard_conforming_strings'), "
                             "current_setting('application_name')",
                             0, NULL, &result),
                     RC_OK);
    assert_string_equal(pg_value(result, 0, 0), "on");
    assert_string_equal(pg_value(result, 0, 1), "2s");
    assert_string_equal(pg_value(result, 0, 2), "UTF8");
    assert_string_equal(pg_value(result, 0, 3), "on");
    assert_string_equal(pg_value(result, 0, 4), "sluice");
    pg_result_free(&result);
}

static void
bad_data_and_bad_statements_are_invalid(void **state)
{
    static const struct {
        const char *sql;
        const char *sqlstate;
    } cases[] = {
        {"SELECT 1/0", "22012"},
        {"SELECT 'x'::int", "22P02"},
        {"SELECT nothing FROM nowhere", "42P01"},
        {"SELEC", "42601"},
        {"DO $$ BEGIN RAISE 'no'; END $$", "P0001"},
    };
    struct pg *pg = *state;
    for (size_t k = 0; k < ARRAY_COUNT(cases); k++) {
        struct pg_result *result;
        assert_int_equal(pg_exec(pg, cases[k].sql, 0, NULL, &result),
                         RC_INVALID);
        assert_null(result);
        assert_string_equal(pg_sqlstate(pg), cases[k].sqlstate);
        assert_true(pg_error(pg)[0] != '\0');
        assert_true(pg_is_connected(pg));
    }
    assert_int_equal(pg_fixture_ask(pg, "SELECT 5"), 5);
    assert_string_equal(pg_error(pg), "");
}

static void
what_may_work_later_is_an_io_error(void **state)
{
    static const char *const cases[] = {
        "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$", /* serialization */
        "DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$", /* deadlock */
        "DO $$ BEGIN RAISE SQLSTATE '53100'; END $$", /* disk full */
        "DO $$ BEGIN RAISE SQLSTATE '25006'; END $$", /* read only */
        "DO $$ BEGIN RAISE SQLSTATE '55P03'; END $$", /* lock */
    };
    struct pg *pg = *state;
    for (size_t k = 0; k < ARRAY_COUNT(cases); k++) {
        assert_int_equal(pg_exec(pg, cases[k], 0, NULL, NULL), RC_IO);
    }
}

static void
an_error_does_not_show_the_row(void **state)
{
    struct pg *pg = *state;
    assert_int_equal(
        pg_exec_script(pg,
                       "CREATE TEMP TABLE t (n text CHECK (n <> 'secret'))"),
        RC_OK);
    assert_int_equal(
        pg_exec(pg, "INSERT INTO t VALUES ('secret')", 0, NULL, NULL),
        RC_INVALID);
    assert_non_null(strstr(pg_error(pg), "check constraint"));
    assert_null(strstr(pg_error(pg), "secret"));
    assert_null(strchr(pg_error(pg), '\n'));
}

static void
a_script_fails_as_a_whole(void **state)
{
    struct pg *pg = *state;
    assert_int_equal(pg_exec_script(pg, "CREATE TABLE s1 (n int);"
                                        "SELECT 1/0; CREATE TABLE s2 (n int)"),
                     RC_INVALID);
    assert_string_equal(pg_sqlstate(pg), "22012");
    assert_int_equal(pg_fixture_ask(pg, "SELECT count(*) FROM pg_class "
                                        "WHERE relname IN ('s1', 's2')"),
                     0);
}

static void
copy_is_refused_and_does_not_hang(void **state)
{
    struct pg *pg = *state;
    assert_int_equal(pg_exec_script(pg, "COPY (SELECT 1) TO STDOUT"),
                     RC_INVALID);
    assert_int_equal(pg_exec_script(pg, "CREATE TEMP TABLE c (n int);"
                                        "COPY c FROM STDIN"),
                     RC_INVALID);
    assert_int_equal(pg_fixture_ask(pg, "SELECT 5"), 5);
}

static void
a_statement_that_takes_too_long_ends(void **state)
{
    struct pg *pg = *state;
    assert_int_equal(pg_exec(pg, "SET statement_timeout = 20", 0, NULL, NULL),
                     RC_OK);
    assert_int_equal(pg_exec(pg, "SELECT pg_sleep(60)", 0, NULL, NULL), RC_IO);
    assert_string_equal(pg_sqlstate(pg), "57014");
    assert_true(pg_is_connected(pg));
}

static void
an_idle_session_that_was_killed_is_replaced_unseen(void **state)
{
    struct pg *pg = *state;
    kill_session(pg);
    assert_int_equal(pg_fixture_ask(pg, "SELECT 5"), 5);
}

static void
a_session_killed_under_a_statement_is_an_io_error_once(void **state)
{
    struct pg *pg = *state;
    assert_int_equal(pg_exec(pg,
                             "SELECT pg_terminate_backend(pg_backend_pid())", 0,
                             NULL, NULL),
                     RC_IO);
    assert_false(pg_is_connected(pg));
    assert_int_equal(pg_fixture_ask(pg, "SELECT 5"), 5);
}

static void
a_server_that_is_not_there_is_an_io_error(void **state)
{
    struct pg *pg;
    (void)state;
    assert_int_equal(pg_new(&pg, "postgresql:///x?host=/nowhere", 100), RC_OK);
    assert_int_equal(pg_connect(pg), RC_IO);
    assert_false(pg_is_connected(pg));
    assert_non_null(strstr(pg_error(pg), "/nowhere"));
    pg_free(&pg);
    assert_int_equal(pg_new(&pg, "postgresql://[", 100), RC_OK);
    assert_int_equal(pg_connect(pg), RC_IO);
    pg_free(&pg);
}

/* Accepts connections by way of its backlog, and never answers. */
static int
black_hole(char *url, size_t url_bytes)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/.s.PGSQL.7777",
             pg_fixture_dir());
    (void)unlink(address.sun_path);
    assert_int_equal(
        bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(chmod(address.sun_path, 0777), 0);
    assert_int_equal(listen(fd, 5), 0);
    snprintf(url, url_bytes, "postgresql:///x?host=%s&port=7777",
             pg_fixture_dir());
    return fd;
}

static void
a_black_hole_ends_in_time(void **state)
{
    char url[256];
    int fd = black_hole(url, sizeof(url));
    struct pg *pg;
    int64_t start_ms = clock_now_ms();
    (void)state;
    assert_int_equal(pg_new(&pg, url, 100), RC_OK);
    assert_int_equal(pg_connect(pg), RC_IO);
    assert_in_range(clock_now_ms() - start_ms, 90, 5000);
    pg_free(&pg);
    close(fd);
}

static void
a_cancel_descriptor_ends_every_wait(void **state)
{
    struct pg *pg = *state;
    int fd = eventfd(0, 0);
    assert_int_equal(pg_connect(pg), RC_OK);
    pg_set_cancel_fd(pg, fd);
    assert_int_equal(pg_fixture_ask(pg, "SELECT 5"), 5);
    assert_int_equal(eventfd_write(fd, 1), 0);
    assert_int_equal(pg_exec(pg, "SELECT pg_sleep(60)", 0, NULL, NULL), RC_IO);
    assert_non_null(strstr(pg_error(pg), "given up"));
    pg_set_cancel_fd(pg, -1);
    assert_int_equal(pg_fixture_ask(pg, "SELECT 5"), 5);
    close(fd);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(parameters_and_results_are_text_and_null),
        CASE(affected_rows_are_counted),
        CASE(a_large_parameter_is_sent_whole),
        CASE(the_session_is_set_for_durability_and_bounds),
        CASE(bad_data_and_bad_statements_are_invalid),
        CASE(what_may_work_later_is_an_io_error),
        CASE(an_error_does_not_show_the_row),
        CASE(a_script_fails_as_a_whole),
        CASE(copy_is_refused_and_does_not_hang),
        CASE(a_statement_that_takes_too_long_ends),
        CASE(an_idle_session_that_was_killed_is_replaced_unseen),
        CASE(a_session_killed_under_a_statement_is_an_io_error_once),
        cmocka_unit_test(a_server_that_is_not_there_is_an_io_error),
        cmocka_unit_test(a_black_hole_ends_in_time),
        CASE(a_cancel_descriptor_ends_every_wait),
    };
    return cmocka_run_group_tests(tests, pg_fixture_start, pg_fixture_stop);
}
