/* The mails that are to be sent, as documents of MongoDB, and what the mailer
 * asks of them. The allocator inserts a document, which decides that this mail
 * is sent, once; from then on only its owner, a node, changes it.
 *
 *   mails {_id: {email: key, code, kind: "welcome"|"apology"|"unknown"},
 *          to: mailbox,
 *          owner: node (int32), message_id, asked_at, created_at (dates),
 *          state: "queued"|"sent"|"refused"|"given_up"|"skipped",
 *          next_at (date), attempts: 0 (int32),
 *      and once there is something to say:
 *          blocked (int32), first_at, sent_at (dates), error}
 *   refused {_id: key, code, reason, at (date), freed: false}
 *
 * The names of the states and kinds are those of mail_states and mail_kinds. */
#ifndef SLUICE_DISPATCHER_MAILS_H
#define SLUICE_DISPATCHER_MAILS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dispatcher/mail_message.h"
#include "dispatcher/mail_template.h"
#include "dispatcher/outbox.h"
#include "shared/address.h"
#include "shared/invitation_msg.h"
#include "shared/rc.h"

#define MAILS_COLLECTION "mails"
/* In one call, each of which costs FerretDB a look at all that are queued. */
#define MAILS_MAX 2000
#define MAIL_ERROR_BYTES 256

struct mail {
    char key[ADDRESS_BYTES]; /* of the address: see address.h */
    char code[INVITATION_CODE_BYTES];
    enum mail_kind kind;
    char to[ADDRESS_BYTES]; /* mailbox */
    char message_id[MAIL_ID_MAX_BYTES + 1];
    int64_t asked_unix_ms; /* when the request came */
    int64_t created_unix_ms;
    struct outbox_mail outbox;
    int64_t sent_unix_ms;         /* 0: not yet */
    char error[MAIL_ERROR_BYTES]; /* of the last attempt; "": none */
};

/* Every function returns RC_OK; RC_IO: may work later, and may be repeated
 * whole, for all of them leave the same when repeated; or RC_NOMEM. One thread.
 */
struct mails_ops {
    /* The mails of this node that are queued and due at now_unix_ms, in order
     * of next_at, at most limit (<= MAILS_MAX) of them. One that cannot be read
     * is left out, logged, and given up, lest it stand before all others for
     * ever. */
    enum rc (*due)(void *self, int64_t now_unix_ms, size_t limit,
                   struct mail *out, size_t *count) MUST_CHECK;
    /* Write outbox, sent_unix_ms and error of count <= MAILS_MAX mails. One
     * that is not there any more, another's, or not queued, stays as it is. */
    enum rc (*finish)(void *self, const struct mail *const *mails,
                      size_t count) MUST_CHECK;
    /* has[i]: is there a registration with keys[i]? count <= MAILS_MAX. */
    enum rc (*registered)(void *self, const char *const *keys, size_t count,
                          bool *has) MUST_CHECK;
    /* refused[i]: does keys[i] stand in `refused`? count <= MAILS_MAX. */
    enum rc (*refused)(void *self, const char *const *keys, size_t count,
                       bool *refused) MUST_CHECK;
    /* Insert into `refused`; done if it is there. The allocator's sweep frees
     * the place. */
    enum rc (*refuse)(void *self, const struct mail *mail, const char *reason,
                      int64_t now_unix_ms) MUST_CHECK;
    /* Mails of this node that are queued. */
    enum rc (*waiting)(void *self, int64_t *count) MUST_CHECK;
    /* What went wrong last; valid until the next call. Never NULL. */
    const char *(*error)(const void *self);
    void (*free)(void **self);
};

/* The ops on a connection of their own (self), which is opened at the first
 * use: mongo.h. node owns the mails. RC_INVALID: no such URI; RC_NOMEM. */
extern const struct mails_ops mails_mongo_ops;
enum rc mails_mongo_new(void **self, const char *uri, int64_t timeout_ms,
                        int64_t node) MUST_CHECK;

#endif
