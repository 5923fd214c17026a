/* dispatcher/migrate.c with files of the test's own, on a real server. */
#include "dispatcher/migrate.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/log.h"
#include "tests/shared/pg_fixture.h"

#define RACERS 4

struct fixture {
    char dir[64];
    struct pg *pg;
    struct text why;
    int applied;
};

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    snprintf(f->dir, sizeof(f->dir), "/tmp/sluice-migrate-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)pg_fixture_database("m");
    f->pg = pg_fixture_pg("m");
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", f->dir);
    assert_int_equal(system(command), 0);
    text_free(&f->why);
    pg_free(&f->pg);
    free(f);
    return 0;
}

static void
put_file(const struct fixture *f, const char *name, const char *sql)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    FILE *to = fopen(path, "w");
    assert_non_null(to);
    assert_true(fputs(sql, to) >= 0);
    assert_int_equal(fclose(to), 0);
}

static void
drop_file(const struct fixture *f, const char *name)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", f->dir, name);
    assert_int_equal(unlink(path), 0);
}

static enum rc
migrate(struct fixture *f)
{
    text_reset(&f->why);
    return migrate_apply(f->pg, f->dir, &f->applied, &f->why);
}

static void
put_two(const struct fixture *f)
{
    put_file(f, "0001_first.sql", "CREATE TABLE a (n int);");
    /* No semicolon, and a comment at the end. */
    put_file(f, "0002_second.sql", "INSERT INTO a VALUES (2) -- two");
    put_file(f, "README", "not a migration");
    put_file(f, "0003_x.sql.orig", "nor this");
}

static void
files_are_applied_once_and_in_order(void **state)
{
    struct fixture *f = *state;
    put_two(f);
    assert_int_equal(migrate(f), RC_OK);
    assert_int_equal(f->applied, 2);
    assert_int_equal(pg_fixture_ask(f->pg, "SELECT n FROM a"), 2);
    assert_int_equal(migrate(f), RC_OK);
    assert_int_equal(f->applied, 0);
    put_file(f, "0003_third.sql", "INSERT INTO a VALUES (3);");
    assert_int_equal(migrate(f), RC_OK);
    assert_int_equal(f->applied, 1);
    assert_int_equal(pg_fixture_ask(f->pg, "SELECT sum(n) FROM a"), 5);
    assert_int_equal(
        pg_fixture_ask(f->pg, "SELECT count(*) FROM sluice_migrations WHERE "
                              "length(sha256) = 64 AND applied_at <= now()"),
        3);
}

static void
a_changed_file_is_refused_with_what_to_do(void **state)
{
    struct fixture *f = *state;
    put_two(f);
    assert_int_equal(migrate(f), RC_OK);
    put_file(f, "0001_first.sql", "CREATE TABLE a (n bigint);");
    assert_int_equal(migrate(f), RC_INVALID);
    assert_non_null(strstr(text_cstr(&f->why), "0001_first.sql"));
    assert_non_null(strstr(text_cstr(&f->why), "restore the file"));
}

static void
a_record_before_the_first_file_is_refused(void **state)
{
    struct fixture *f = *state;
    put_two(f);
    assert_int_equal(migrate(f), RC_OK);
    assert_int_equal(pg_exec(f->pg,
                             "INSERT INTO sluice_migrations (number, name, "
                             "sha256) VALUES (0, '0000_none.sql', '')",
                             0, NULL, NULL),
                     RC_OK);
    assert_int_equal(migrate(f), RC_INVALID);
    assert_non_null(strstr(text_cstr(&f->why), "0000_none.sql"));
}

static void
a_newer_schema_is_refused(void **state)
{
    struct fixture *f = *state;
    put_two(f);
    assert_int_equal(migrate(f), RC_OK);
    drop_file(f, "0002_second.sql");
    assert_int_equal(migrate(f), RC_INVALID);
    assert_non_null(strstr(text_cstr(&f->why), "newer version"));
    assert_non_null(strstr(text_cstr(&f->why), "0002_second.sql"));
}

static void
a_failing_script_leaves_nothing_and_names_itself(void **state)
{
    struct fixture *f = *state;
    put_two(f);
    put_file(f, "0003_bad.sql", "INSERT INTO a VALUES (3); SELECT nothing;");
    put_file(f, "0004_never.sql", "INSERT INTO a VALUES (4);");
    assert_int_equal(migrate(f), RC_INVALID);
    assert_int_equal(f->applied, 2);
    assert_non_null(strstr(text_cstr(&f->why), "0003_bad.sql"));
    assert_int_equal(pg_fixture_ask(f->pg, "SELECT sum(n) FROM a"), 2);
    put_file(f, "0003_bad.sql", "INSERT INTO a VALUES (3);");
    assert_int_equal(migrate(f), RC_OK);
    assert_int_equal(f->applied, 2);
    assert_int_equal(pg_fixture_ask(f->pg, "SELECT sum(n) FROM a"), 9);
}

static void
a_gap_or_no_files_is_an_error(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(migrate(f), RC_IO);
    put_file(f, "0001_first.sql", "SELECT 1;");
    put_file(f, "0003_third.sql", "SELECT 3;");
    assert_int_equal(migrate(f), RC_INVALID);
    assert_non_null(strstr(text_cstr(&f->why), "0002"));
    put_file(f, "0002_a.sql", "SELECT 2;");
    put_file(f, "0002_b.sql", "SELECT 2;");
    assert_int_equal(migrate(f), RC_INVALID);
}

static void
without_a_database_it_is_an_io_error(void **state)
{
    struct fixture *f = *state;
    struct pg *pg;
    put_two(f);
    assert_int_equal(pg_new(&pg, "postgresql:///x?host=/nowhere", 100), RC_OK);
    assert_int_equal(migrate_apply(pg, f->dir, &f->applied, &f->why), RC_IO);
    assert_non_null(strstr(text_cstr(&f->why), "/nowhere"));
    pg_free(&pg);
}

struct racer {
    struct fixture *f;
    struct pg *pg;
    int applied;
    enum rc rc;
};

static void *
race(void *arg)
{
    struct racer *r = arg;
    struct text why = {0};
    r->rc = migrate_apply(r->pg, r->f->dir, &r->applied, &why);
    text_free(&why);
    return NULL;
}

static void
several_at_once_apply_each_file_once(void **state)
{
    struct fixture *f = *state;
    struct racer racers[RACERS];
    pthread_t threads[RACERS];
    int applied = 0;
    put_two(f);
    put_file(f, "0003_slow.sql", "SELECT pg_sleep(0.05);");
    for (int k = 0; k < RACERS; k++) {
        racers[k] = (struct racer){.f = f, .pg = pg_fixture_pg("m")};
        assert_int_equal(pthread_create(&threads[k], NULL, race, &racers[k]),
                         0);
    }
    for (int k = 0; k < RACERS; k++) {
        assert_int_equal(pthread_join(threads[k], NULL), 0);
        assert_int_equal(racers[k].rc, RC_OK);
        applied += racers[k].applied;
        pg_free(&racers[k].pg);
    }
    assert_int_equal(applied, 3);
    assert_int_equal(pg_fixture_ask(f->pg, "SELECT count(*) FROM a"), 1);
}

static void
the_shipped_migrations_apply(void **state)
{
    struct fixture *f = *state;
    const char *top = getenv("TOP_SRCDIR");
    char dir[1024];
    snprintf(dir, sizeof(dir), "%s/conf/migrations", top == NULL ? "." : top);
    assert_int_equal(migrate_apply(f->pg, dir, &f->applied, &f->why), RC_OK);
    assert_true(f->applied > 0);
    /* Expiry must not read the whole table. */
    assert_int_equal(
        pg_fixture_ask(f->pg, "SELECT count(*) FROM pg_indexes WHERE tablename "
                              "= 'objects' AND indexdef LIKE '%(last_seen)'"),
        1);
}

static void
the_folder_comes_from_the_environment_or_the_build(void **state)
{
    (void)state;
    assert_int_equal(setenv("SLUICE_MIGRATIONS", "/some/where", 1), 0);
    assert_string_equal(migrate_directory(), "/some/where");
    assert_int_equal(unsetenv("SLUICE_MIGRATIONS"), 0);
    assert_string_equal(migrate_directory(), MIGRATIONS_DIR);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(files_are_applied_once_and_in_order),
        CASE(a_changed_file_is_refused_with_what_to_do),
        CASE(a_record_before_the_first_file_is_refused),
        CASE(a_newer_schema_is_refused),
        CASE(a_failing_script_leaves_nothing_and_names_itself),
        CASE(a_gap_or_no_files_is_an_error),
        CASE(without_a_database_it_is_an_io_error),
        CASE(several_at_once_apply_each_file_once),
        CASE(the_shipped_migrations_apply),
        cmocka_unit_test(the_folder_comes_from_the_environment_or_the_build),
    };
    log_init("test_migrate", LOG_ERROR);
    return cmocka_run_group_tests(tests, pg_fixture_start, pg_fixture_stop);
}
