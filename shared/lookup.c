#include "shared/lookup.h"

enum rc
lookup_verdict(const struct lookup *lookup, const struct uuid *id,
               enum rc in_journal, enum rc in_database)
{
    if (in_database == RC_AGAIN &&
        (in_journal != RC_AGAIN || uuid_node(id) != lookup->node_id)) {
        return RC_IO;
    }
    return in_database;
}
