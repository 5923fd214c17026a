/* MongoDB through libmongoc, with a bound on every wait. The one home of
 * libmongoc; documents are libbson's, which ends the process when memory is
 * out. A struct mongo is one connection, opened by the first use and again by
 * a use after it broke; it belongs to one thread.
 *
 *   struct mongo_query query = {.filter = filter, .limit = 10};
 *   rc = mongo_find(mongo, "mails", &query, take_mail, &mails);
 *
 * Writes are acknowledged by a majority and journalled; nothing is retried
 * here. The same must hold on FerretDB 1.24 over PostgreSQL, where (read in its
 * source, and measured):
 * - an insert is all that uses an index;
 * - a find, count, update or delete scans the collection in PostgreSQL, as fast
 *   as that is, where the filter is an equality of a scalar (string, number)
 *   in a field of the document itself: {code: "spring", slot: 3}. Documents
 *   that any other condition ($in, $lt, a subdocument as _id) is to choose
 *   among travel to FerretDB first: give such a filter a scalar as well, and
 *   make _id a string;
 * - a sort or limit is applied to what was so fetched;
 * - a duplicate key makes it insert the whole batch once more, one by one. */
#ifndef SLUICE_DISPATCHER_MONGO_H
#define SLUICE_DISPATCHER_MONGO_H

#include <bson/bson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/rc.h"
#include "shared/uuid.h"

#define MONGO_ERROR_BYTES 512
#define MONGO_WHY_BYTES 160
#define MONGO_BATCH_MAX                                                        \
    100 /* PITFALLS: ordered stops at an error only within                     \
           a hundred */

struct mongo;

/* uri: a connection string, copied; its path names the database, "sluice" if
 * it has none. timeout_ms > 0: to connect, and for each reply. Touches no
 * network. RC_INVALID: no such URI; RC_NOMEM. */
enum rc mongo_new(struct mongo **out, const char *uri,
                  int64_t timeout_ms) MUST_CHECK;
void mongo_free(struct mongo **mongo);

/* One line about the last failure; "" before the first. */
const char *mongo_error(const struct mongo *mongo);

/* All of the following return
 * RC_OK;
 * RC_IO: no connection, connection lost, timed out, not acknowledged by a
 *   majority, refused for a reason that is not in the data (no privilege):
 *   the same may work later, and may have been done;
 * RC_INVALID: refused for what it is: repeating it will not help. */

enum rc mongo_ping(struct mongo *mongo) MUST_CHECK;

/* What became of a document. */
enum mongo_fate {
    MONGO_INSERTED,
    MONGO_DUPLICATE, /* of a unique key; which, only reading it back tells */
    MONGO_REFUSED,   /* for what it is */
    MONGO_NOT_TRIED, /* behind an error of an ordered batch; or unknown */
};

/* Documents to insert together. {0} is an empty one. */
struct mongo_batch {
    bson_t *documents[MONGO_BATCH_MAX];
    enum mongo_fate fates[MONGO_BATCH_MAX];
    char why[MONGO_BATCH_MAX][MONGO_WHY_BYTES]; /* of MONGO_REFUSED */
    size_t count;
    bool ordered; /* stop at the first document that is not inserted */
};

/* An empty document to fill, the batch's own; NULL when it is full. */
bson_t *mongo_batch_add(struct mongo_batch *batch);
/* Forget the documents; ordered stays. */
void mongo_batch_clear(struct mongo_batch *batch);

/* Insert all of the batch (may be empty). RC_OK: the fates say what became of
 * each; else they are all MONGO_NOT_TRIED, and some may be inserted. */
enum rc mongo_insert(struct mongo *mongo, const char *collection,
                     struct mongo_batch *batch) MUST_CHECK;

struct mongo_query {
    const bson_t *filter; /* NULL: all */
    const bson_t *sort;   /* NULL: any order */
    const bson_t *fields; /* projection; NULL: whole documents */
    int64_t limit;        /* 0: none */
};

/* Called with each document, valid during the call; anything but RC_OK ends
 * the search with that code. It must not use the same struct mongo. */
typedef enum rc mongo_each(void *arg, const bson_t *document);

/* Give each document found to each(arg, ...). */
enum rc mongo_find(struct mongo *mongo, const char *collection,
                   const struct mongo_query *query, mongo_each *each,
                   void *arg) MUST_CHECK;

/* The number or the date (in ms) of that name; 0: it is not there. */
int64_t mongo_number(const bson_t *document, const char *name);
/* Append {name: {$in: [values...]}} to filter. */
void mongo_add_in(bson_t *filter, const char *name, const char *const *values,
                  size_t count);

/* How many documents match filter (NULL: all). */
enum rc mongo_count(struct mongo *mongo, const char *collection,
                    const bson_t *filter, int64_t *out) MUST_CHECK;

/* Change one document that matches; *matched (may be NULL) = 0 or 1. */
enum rc mongo_update_one(struct mongo *mongo, const char *collection,
                         const bson_t *filter, const bson_t *change,
                         int64_t *matched) MUST_CHECK;
/* Change all that match; *matched (may be NULL) = how many. */
enum rc mongo_update_many(struct mongo *mongo, const char *collection,
                          const bson_t *filter, const bson_t *change,
                          int64_t *matched) MUST_CHECK;

/* Delete one that matches, or all; *deleted (may be NULL) = how many. */
enum rc mongo_delete_one(struct mongo *mongo, const char *collection,
                         const bson_t *filter, int64_t *deleted) MUST_CHECK;
enum rc mongo_delete_many(struct mongo *mongo, const char *collection,
                          const bson_t *filter, int64_t *deleted) MUST_CHECK;

/* Make an index over keys ({code: 1, slot: 1}) unless it is there. RC_INVALID
 * also: the documents are not unique, or another index has its name. */
enum rc mongo_index(struct mongo *mongo, const char *collection,
                    const bson_t *keys, bool unique) MUST_CHECK;

/* Claim node (0-65535) for the journal with this uuid (collection nodes), once
 * and for all. RC_OK: it is ours, since now or before. RC_INVALID: owner has
 * the uuid of the journal that it belongs to ("" otherwise). */
enum rc mongo_claim_node(struct mongo *mongo, int64_t node,
                         const char *journal_uuid,
                         char owner[UUID_TEXT_BYTES]) MUST_CHECK;

#endif
