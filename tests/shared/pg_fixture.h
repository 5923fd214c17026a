/* A PostgreSQL cluster of the test's own, in a temporary folder, for a whole
 * group of tests; and connections to it. Every helper fails the test when it
 * cannot do its work. */
#ifndef SLUICE_TESTS_PG_FIXTURE_H
#define SLUICE_TESTS_PG_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shared/pg.h"

#define PG_FIXTURE_TIMEOUT_MS 2000

/* cmocka's group setup and teardown; the state stays untouched. As root the
 * server runs as user postgres. */
int pg_fixture_start(void **state);
int pg_fixture_stop(void **state);

/* A fresh database, dropped first if it is there. Connection string of it,
 * valid until the next call. */
const char *pg_fixture_database(const char *name);

/* A connection to that database with PG_FIXTURE_TIMEOUT_MS. */
struct pg *pg_fixture_pg(const char *name);

/* Run SQL that must succeed; the first value as a number (0 when none). */
int64_t pg_fixture_ask(struct pg *pg, const char *sql);

/* Apply conf/migrations/<file>. */
void pg_fixture_migration(struct pg *pg, const char *file);

/* A temporary folder of the cluster, for files of a test. */
const char *pg_fixture_dir(void);

#endif
