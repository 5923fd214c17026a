/* places.h in MongoDB, through mongo.h, and what the operator's tool does
 * there. Belongs to one thread, that of its struct mongo. */
#ifndef SLUICE_DISPATCHER_PLACES_MONGO_H
#define SLUICE_DISPATCHER_PLACES_MONGO_H

#include "dispatcher/mongo.h"
#include "dispatcher/places.h"

struct places_mongo_options {
    struct mongo *mongo;   /* stays the caller's, and must outlive it */
    int32_t node;          /* owner of the mails that are inserted */
    const char *mail_host; /* right of the @ in their Message-IDs; copied */
};

/* RC_OK or RC_NOMEM. Touches no network. To be freed with
 * out->ops->free(&out->self). */
enum rc places_mongo_new(struct places *out,
                         const struct places_mongo_options *options) MUST_CHECK;

/* Make the indexes that are not there. To be called once, before the rest is
 * relied upon. RC_OK, RC_IO, or RC_INVALID: the collections hold what cannot
 * be. The error is mongo_error()'s. */
enum rc places_mongo_prepare(struct mongo *mongo) MUST_CHECK;

/* ---- for the operator ----
 * All return RC_OK, RC_IO, or RC_INVALID when the server refuses the document;
 * mongo_error() says why. */

/* *created = false: there is one with this code, which stays as it is. */
enum rc places_create(struct mongo *mongo, const struct invitation *invitation,
                      bool *created) MUST_CHECK;
/* limit 1..PLACES_LIMIT_MAX. Below the places taken, nobody loses his. */
enum rc places_set_limit(struct mongo *mongo, const char *code, int32_t limit,
                         bool *found) MUST_CHECK;
/* 0: never. */
enum rc places_set_expiry(struct mongo *mongo, const char *code,
                          int64_t expires_unix_ms, bool *found) MUST_CHECK;
enum places_revoked {
    PLACES_REFUSED_BEFORE, /* all stays as it is */
    PLACES_REVOKED,        /* it had a place, or waited for one */
    PLACES_REFUSED_NEW,    /* it had nothing to lose */
};

/* This address (an address's key) is never to get a place, and loses what it
 * has; the sweep of a dispatcher gives it to the next in line. reason: a short
 * text. */
enum rc places_revoke(struct mongo *mongo, const char *key, const char *reason,
                      int64_t now_unix_ms,
                      enum places_revoked *revoked) MUST_CHECK;

struct places_counts {
    int64_t taken;
    int64_t waiting;
    int64_t refused;
    int64_t mails_queued;
    int64_t mails_sent;
    int64_t mails_refused;
    int64_t mails_given_up;
    int64_t mails_skipped;
};

/* Of one code. */
enum rc places_count(struct mongo *mongo, const char *code,
                     struct places_counts *out) MUST_CHECK;

/* Who has a place. */
struct place {
    char code[INVITATION_CODE_BYTES];
    int32_t slot;
    char email[ADDRESS_BYTES]; /* as typed */
    char key[ADDRESS_BYTES];
    char request_id[UUID_TEXT_BYTES];
    int64_t accepted_unix_ms;
};

/* Give all places of a code in order of slot (code NULL: of every code, in no
 * order) to each(arg, place), which must not use mongo; anything but RC_OK from
 * it ends the search with that code. */
enum rc places_each(struct mongo *mongo, const char *code,
                    enum rc (*each)(void *arg, const struct place *place),
                    void *arg) MUST_CHECK;

/* What a request has led to. */
struct places_trace {
    char code[INVITATION_CODE_BYTES]; /* "": nothing is there of it */
    int32_t slot;                     /* 0: it has no place */
    bool waits;
    int64_t at_unix_ms; /* of the place, or when it was received */
    size_t mails;
    struct {
        char kind[16];
        char state[16];
    } mail[3];
};

/* Look for a request by its id. Without an index: for the operator. Nothing is
 * found of a repeated request, for the first one counts. */
enum rc places_trace(struct mongo *mongo, const char *request_id,
                     struct places_trace *out) MUST_CHECK;

#endif
