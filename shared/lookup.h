/* Look-ups of what has become of a request: in the journal first, then in the
 * database. What has left the journal in between was persisted before it left,
 * so that it is found in one of the two. */
#ifndef SLUICE_SHARED_LOOKUP_H
#define SLUICE_SHARED_LOOKUP_H

#include <stdint.h>

#include "shared/journal.h"
#include "shared/pg.h"
#include "shared/rc.h"
#include "shared/uuid.h"

/* Where a look-up goes. All are the asking thread's. */
struct lookup {
    struct journal *journal;
    struct pg *pg;
    int64_t node_id; /* whose journal this is */
};

/* The verdict on an id that is not in the journal (RC_AGAIN), or of which the
 * journal does not tell (RC_IO), when in_database is what the database said.
 * RC_AGAIN: there is no such id. RC_IO: that cannot be known now, for the
 * journal does not tell, or it is another node's that knows. */
enum rc lookup_verdict(const struct lookup *lookup, const struct uuid *id,
                       enum rc in_journal, enum rc in_database) MUST_CHECK;

#endif
