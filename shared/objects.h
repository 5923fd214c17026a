/* Look-ups in PostgreSQL's table objects(id bigint, last_seen timestamptz)
 * for the handlers' GET, as JSON. */
#ifndef SLUICE_SHARED_OBJECTS_H
#define SLUICE_SHARED_OBJECTS_H

#include <stdint.h>

#include "shared/pg.h"
#include "shared/rc.h"
#include "shared/text.h"

/* {"objects": [{"id", "online": true, "last_seen"}], "next": id or null} of
 * objects with id > after (after = -1: from the start), at most limit
 * (1..1000), that were seen within expire_s (0: any). RC_IO: no database. */
enum rc objects_page(struct pg *pg, int64_t after, int64_t limit,
                     int64_t expire_s, struct text *out) MUST_CHECK;

/* One object; RC_AGAIN: not there (not online, or expired). */
enum rc objects_one(struct pg *pg, int64_t id, int64_t expire_s,
                    struct text *out) MUST_CHECK;

#endif
