/* A MongoDB wire server for a whole group of tests: the one that
 * $SLUICE_MONGO_URI names, or the build's FerretDB on a PostgreSQL cluster of
 * the tests' own (pg_fixture.h). Every helper fails the test when it cannot do
 * its work. */
#ifndef SLUICE_TESTS_MONGO_FIXTURE_H
#define SLUICE_TESTS_MONGO_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#include "dispatcher/mongo.h"

#define MONGO_FIXTURE_TIMEOUT_MS 10000

/* cmocka's group setup and teardown; the state stays untouched. */
int mongo_fixture_start(void **state);
int mongo_fixture_stop(void **state);

/* URI of a database that is empty now and no one else's. Valid until the next
 * call. name: as it occurs in the server's name of it. */
const char *mongo_fixture_database(const char *name);

/* A connection to the database of the last mongo_fixture_database. */
struct mongo *mongo_fixture_mongo(void);

/* Send the server a signal (SIGSTOP: it hangs). false: it is not ours. */
bool mongo_fixture_signal(int number);

#endif
