/* The cluster is made by the server's own programs, as quickstart does. */
#include "tests/shared/pg_fixture.h"

#include <glob.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct {
    char dir[64];
    char bin[256]; /* folder of initdb and pg_ctl */
    char url[256]; /* as last handed out */
    char as[64];   /* what a command begins with */
} cluster;

static int
find_programs(void)
{
    glob_t found = {0};
    int rc = glob("/usr/lib/postgresql/*/bin/initdb", 0, NULL, &found);
    if (rc == 0) {
        const char *newest = found.gl_pathv[found.gl_pathc - 1];
        snprintf(cluster.bin, sizeof(cluster.bin), "%.*s",
                 (int)(strlen(newest) - strlen("/initdb")), newest);
    }
    globfree(&found);
    return rc;
}

static int
run(const char *command)
{
    char line[1024];
    snprintf(line, sizeof(line), "%s %s/%s >>%s/log 2>&1", cluster.as,
             cluster.bin, command, cluster.dir);
    return system(line);
}

static int
own_by_postgres(void)
{
    const struct passwd *user = getpwnam("postgres");
    snprintf(cluster.as, sizeof(cluster.as), "runuser -u postgres --");
    return user == NULL ? -1 : chown(cluster.dir, user->pw_uid, user->pw_gid);
}

int
pg_fixture_start(void **state)
{
    char command[512];
    (void)state;
    snprintf(cluster.dir, sizeof(cluster.dir), "/tmp/sluice-pg-XXXXXX");
    if (find_programs() != 0 || mkdtemp(cluster.dir) == NULL ||
        (geteuid() == 0 && own_by_postgres() != 0)) {
        fprintf(stderr, "no PostgreSQL server found\n");
        return -1;
    }
    snprintf(command, sizeof(command),
             "initdb -A trust -N -U postgres -E UTF8 --locale=C -D %s/data",
             cluster.dir);
    if (run(command) != 0) {
        return -1;
    }
    snprintf(command, sizeof(command),
             "pg_ctl -w -D %s/data -o \"-k %s -c listen_addresses='' "
             "-c fsync=off\" start",
             cluster.dir, cluster.dir);
    return run(command);
}

int
pg_fixture_stop(void **state)
{
    char command[512];
    (void)state;
    snprintf(command, sizeof(command), "pg_ctl -w -m immediate -D %s/data stop",
             cluster.dir);
    (void)run(command);
    snprintf(command, sizeof(command), "rm -rf '%s'", cluster.dir);
    return system(command);
}

const char *
pg_fixture_dir(void)
{
    return cluster.dir;
}

static const char *
url_of(const char *name)
{
    snprintf(cluster.url, sizeof(cluster.url),
             "postgresql:///%s?host=%s&user=postgres", name, cluster.dir);
    return cluster.url;
}

struct pg *
pg_fixture_pg(const char *name)
{
    struct pg *pg;
    assert_int_equal(pg_new(&pg, url_of(name), PG_FIXTURE_TIMEOUT_MS), RC_OK);
    return pg;
}

const char *
pg_fixture_database(const char *name)
{
    char sql[128];
    struct pg *pg = pg_fixture_pg("postgres");
    snprintf(sql, sizeof(sql), "DROP DATABASE IF EXISTS %s WITH (FORCE)", name);
    assert_int_equal(pg_exec(pg, sql, 0, NULL, NULL), RC_OK);
    snprintf(sql, sizeof(sql), "CREATE DATABASE %s", name);
    assert_int_equal(pg_exec(pg, sql, 0, NULL, NULL), RC_OK);
    pg_free(&pg);
    return url_of(name);
}

int64_t
pg_fixture_ask(struct pg *pg, const char *sql)
{
    struct pg_result *result;
    int64_t number = 0;
    if (pg_exec(pg, sql, 0, NULL, &result) != RC_OK) {
        fail_msg("%s: %s", sql, pg_error(pg));
    }
    if (pg_rows(result) > 0 && pg_value(result, 0, 0) != NULL) {
        number = strtoll(pg_value(result, 0, 0), NULL, 10);
    }
    pg_result_free(&result);
    return number;
}

void
pg_fixture_migration(struct pg *pg, const char *file)
{
    const char *top = getenv("TOP_SRCDIR");
    char path[1024];
    char sql[16384];
    snprintf(path, sizeof(path), "%s/conf/migrations/%s",
             top == NULL ? "." : top, file);
    FILE *stream = fopen(path, "re");
    assert_non_null(stream);
    size_t bytes = fread(sql, 1, sizeof(sql) - 1, stream);
    (void)fclose(stream);
    assert_true(bytes < sizeof(sql) - 1);
    sql[bytes] = '\0';
    if (pg_exec_script(pg, sql) != RC_OK) {
        fail_msg("%s: %s", file, pg_error(pg));
    }
}
