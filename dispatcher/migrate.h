/* Migrations: conf/migrations/NNNN_name.sql, applied in order, each in a
 * transaction under an advisory lock, recorded in table sluice_migrations
 * (number, name, sha256, applied_at). */
#ifndef SLUICE_DISPATCHER_MIGRATE_H
#define SLUICE_DISPATCHER_MIGRATE_H

#include "shared/pg.h"
#include "shared/rc.h"
#include "shared/text.h"

/* Apply what is missing. *applied = how many. RC_IO: database not reachable or
 * files not readable; RC_INVALID: a recorded checksum differs, the schema is
 * newer than the newest file, or a script fails: why says which and what to
 * do. */
enum rc migrate_apply(struct pg *pg, const char *directory, int *applied,
                      struct text *why) MUST_CHECK;

/* Where the files are: $SLUICE_MIGRATIONS, else the installed folder. */
const char *migrate_directory(void);

#endif
