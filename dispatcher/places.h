/* Invitations, who got a place, who waits, who was refused, and the mails about
 * it, as documents of MongoDB; and what the allocator asks of them. The rules
 * are kept by unique keys alone: a registration has the address as its key, so
 * that one address gets one invitation once, and (code, slot) with slot in
 * 1..limit is unique, so that nobody gets place N + 1.
 *
 *   invitations   {_id: code, limit (int32), created_at, expires_at? (dates)}
 *   registrations {_id: key, email, mailbox, code, slot (int32), request_id,
 *                  accepted_at} unique (code, slot)
 *   waitlist      {_id: {code, email: key}, code, key, email, mailbox,
 *                  request_id, received (date), node (int32), seq (int64)}
 *                 index (code, received, node, seq)
 *   refused       {_id: key, code, reason, at, freed: bool} index (freed)
 *   mails         {_id: {email: key, code, kind}, ...}: see mails.h
 *
 * key, email and mailbox: address.h's key, text and mailbox. The waitlist's
 * code and key are in fields of their own for the sake of FerretDB (mongo.h).
 */
#ifndef SLUICE_DISPATCHER_PLACES_H
#define SLUICE_DISPATCHER_PLACES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/address.h"
#include "shared/invitation_msg.h"
#include "shared/rc.h"
#include "shared/uuid.h"

#define PLACES_MAX 500        /* people in one call */
#define PLACES_LIMIT_MAX 1000 /* places of an invitation */
#define PLACES_WHY_BYTES 160

struct invitation {
    char code[INVITATION_CODE_BYTES];
    int32_t limit; /* 1..PLACES_LIMIT_MAX */
    int64_t created_unix_ms;
    int64_t expires_unix_ms; /* 0: never */
};

/* Someone who asks for a place. */
struct person {
    char request_id[UUID_TEXT_BYTES];
    char code[INVITATION_CODE_BYTES];
    struct address address;
    int64_t received_unix_ms;
    int32_t node; /* with seq: which of those received in one millisecond came
                     first */
    int64_t seq;
};

struct registration {
    bool found;
    char code[INVITATION_CODE_BYTES];
    char request_id[UUID_TEXT_BYTES];
    int32_t slot;
};

/* Someone who is never to get a place: the address does not exist, or the
 * operator has revoked it. */
struct refusal {
    char key[ADDRESS_BYTES];
    char code[INVITATION_CODE_BYTES]; /* "": of no invitation in particular */
};

enum place_mail {
    PLACE_MAIL_NONE,
    PLACE_MAIL_WELCOME,
    PLACE_MAIL_APOLOGY,
    PLACE_MAIL_UNKNOWN, /* no such invitation */
};

/* What became of a document. */
enum place_fate {
    PLACE_INSERTED,
    PLACE_DUPLICATE,
    PLACE_POISON,    /* the store refuses it for what it is: why */
    PLACE_NOT_TRIED, /* behind another's duplicate or poison, in order */
};

struct place_result {
    enum place_fate fate;
    char why[PLACES_WHY_BYTES];
};

/* Every function returns RC_OK; RC_IO: may work later, may be repeated, and may
 * have been done; or RC_NOMEM. Counts of people and keys are 1..PLACES_MAX. The
 * thread that owns self. */
struct places_ops {
    /* The wall time that goes into what is inserted from here on. */
    void (*set_now)(void *self, int64_t now_unix_ms);
    /* *found: is there such an invitation? */
    enum rc (*invitation)(void *self, const char *code, struct invitation *out,
                          bool *found) MUST_CHECK;
    /* Invitations in order of their codes, from the first behind `after`;
     * *count = 0: there are no more. */
    enum rc (*invitations)(void *self, const char *after, size_t max,
                           struct invitation *out, size_t *count) MUST_CHECK;
    /* stands[i]: is keys[i] among the refused? */
    enum rc (*refused)(void *self, const char *const *keys, size_t count,
                       bool *stands) MUST_CHECK;
    /* out[i]: the registration of keys[i], with whichever code. */
    enum rc (*registered)(void *self, const char *const *keys, size_t count,
                          struct registration *out) MUST_CHECK;
    /* taken[s] = true for each slot s of the code that has a registration;
     * taken has PLACES_LIMIT_MAX + 1 members, all false before. */
    enum rc (*slots)(void *self, const char *code, bool *taken) MUST_CHECK;
    /* Does anybody wait for this code? */
    enum rc (*anyone_waits)(void *self, const char *code,
                            bool *waits) MUST_CHECK;
    /* Those who wait longest, in order, at most max. */
    enum rc (*head)(void *self, const char *code, size_t max,
                    struct person *out, size_t *count) MUST_CHECK;
    /* request_ids[i]: of keys[i]'s entry in the waitlist of this code; "" if
     * there is none. */
    enum rc (*waiting)(void *self, const char *code, const char *const *keys,
                       size_t count,
                       char (*request_ids)[UUID_TEXT_BYTES]) MUST_CHECK;
    /* Insert in order up to the first that is not inserted: people[i] gets
     * slots[i]. */
    enum rc (*add_registrations)(void *self, const struct person *const *people,
                                 const int32_t *slots, size_t count,
                                 struct place_result *results) MUST_CHECK;
    /* Insert into the waitlist, each that can be. */
    enum rc (*add_waiting)(void *self, const struct person *const *people,
                           size_t count,
                           struct place_result *results) MUST_CHECK;
    /* Insert the mail of kinds[i] to people[i], each that can be; what is there
     * already is a duplicate. */
    enum rc (*add_mails)(void *self, const struct person *const *people,
                         const enum place_mail *kinds, size_t count,
                         struct place_result *results) MUST_CHECK;
    /* request_id NULL: whichever. One that is not there is none to delete. */
    enum rc (*remove_registration)(void *self, const char *key,
                                   const char *request_id) MUST_CHECK;
    /* code NULL: of each. */
    enum rc (*remove_waiting)(void *self, const char *key,
                              const char *code) MUST_CHECK;
    /* Refusals that are not freed yet, at most max. */
    enum rc (*unfreed)(void *self, size_t max, struct refusal *out,
                       size_t *count) MUST_CHECK;
    enum rc (*set_freed)(void *self, const char *key) MUST_CHECK;
    /* One line about the last failure. Never NULL. */
    const char *(*error)(const void *self);
    void (*free)(void **self);
};

struct places {
    const struct places_ops *ops;
    void *self;
};

#endif
