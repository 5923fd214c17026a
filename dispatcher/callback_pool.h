/* The bookkeeping of the callback service: which requests wait for which
 * objects. Pure memory: it neither fetches nor writes nor reads a clock.
 *
 *   request 1: [7, 8]      object 7: served by the GET in flight: 1
 *   request 2: [7]                   waiting for the one after it: 2
 *
 * An object has at most one GET in flight. It serves the requests that were
 * added before it was started; one added later waits for a GET of its own,
 * which it shares with all that were added meanwhile.
 *
 *         add           started           online, offline, dead
 *   (none) --> READY ------------> FLYING ----------------------> (none),
 *                ^                   |    or READY if someone waits
 *                |   due             | failed
 *                +------- RETRYING <-+
 *
 * An object's end leaves a settled record, if there is something to write, and
 * the last object of a request makes the request finished. Both are taken in
 * order, and a request never before the record of its last object, so that
 * what is written together or later ends a request no sooner than it keeps
 * what was found for it.
 *
 * Nothing here fails half: add() reserves whatever the later steps need. */
#ifndef SLUICE_DISPATCHER_CALLBACK_POOL_H
#define SLUICE_DISPATCHER_CALLBACK_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/callback_msg.h"
#include "shared/rc.h"

struct callback_pool;

/* Why an object died; shared by all requests that waited for it, since one
 * upstream answers thousands in the same words. */
struct callback_verdict {
    struct callback_verdict *next; /* in its bucket */
    uint64_t hash;
    size_t refs; /* the service thread's; all else is constant */
    int64_t attempts;
    char reason[];
};

/* One id of one request: it waits in a list of its object, and then keeps how
 * that ended. */
union callback_link {
    struct {
        union callback_link *next;
        struct callback_request *request;
    } waits;
    struct {
        int64_t id;
        struct callback_verdict *verdict; /* NULL: alive */
    } ended;
};

struct callback_request {
    int64_t seq;
    int64_t received_unix_ms;
    struct callback_request *next; /* in the list of the finished */
    uint64_t settled_before;       /* records that must be taken first */
    unsigned count;                /* of links */
    unsigned remaining;            /* not ended yet */
    unsigned dead;                 /* ended with a verdict */
    bool broken;                   /* cannot be decoded; no links */
    union callback_link links[];
};

struct callback_links {
    union callback_link *first;
    union callback_link *last;
};

enum callback_object_state {
    CALLBACK_OBJECT_READY,
    CALLBACK_OBJECT_FLYING,
    CALLBACK_OBJECT_RETRYING,
};

struct callback_entry { /* an object that somebody waits for */
    int64_t id;
    struct callback_entry *next; /* in its bucket, or free */
    int64_t key;                 /* in its heap: order, or when due */
    size_t heap_at;
    int64_t order;    /* of the first request that waits for it */
    int64_t attempts; /* failed ones */
    struct callback_links served;
    struct callback_links waiting;
    struct callback_verdict *error;     /* of the last failed attempt */
    struct callback_entry *failed_next; /* attempts not recorded yet */
    struct callback_entry *failed_prev;
    enum callback_object_state state;
    bool failed_listed;
    bool recorded; /* the journal has, or will have, its attempts */
};

/* What an object's end leaves to be written. */
struct callback_settled {
    struct callback_object object; /* of an online one; else only the id */
    bool online;
    bool forget; /* its recorded attempts */
};

/* A failed attempt to be recorded. */
struct callback_failed {
    int64_t id;
    int64_t attempts;
    struct callback_verdict *error; /* a reference, to be given back */
};

struct callback_pool_options {
    size_t max_ids;      /* objects, and records not taken yet */
    size_t max_requests; /* until callback_pool_free_request */
};

/* All in the service's thread. */
enum rc callback_pool_new(struct callback_pool **out,
                          const struct callback_pool_options *opts) MUST_CHECK;
void callback_pool_free(struct callback_pool **p);
void callback_pool_set(struct callback_pool *p,
                       const struct callback_pool_options *options);

/* An attempt count from the journal, for an object that will be asked for
 * again. All before the first add. RC_NOMEM, RC_FULL (250 000 of them). */
enum rc callback_pool_remember(struct callback_pool *p, int64_t id,
                               int64_t attempts) MUST_CHECK;

bool callback_pool_has_room(const struct callback_pool *p);

/* A request (msg NULL: one that cannot be decoded). One without ids is
 * finished at once. RC_NOMEM: nothing was changed. */
enum rc callback_pool_add(struct callback_pool *p, int64_t seq,
                          int64_t received_unix_ms,
                          const struct callback_msg *msg) MUST_CHECK;

/* The object to fetch next: the one asked for first. NULL when there is none,
 * or when too much waits to be written. It stays there until it is started. */
struct callback_entry *callback_pool_next(struct callback_pool *p);
void callback_pool_started(struct callback_pool *p, struct callback_entry *o);

/* The GET in flight ended (o may be gone afterwards). */
void callback_pool_online(struct callback_pool *p, struct callback_entry *o);
void callback_pool_offline(struct callback_pool *p, struct callback_entry *o);
void callback_pool_failed(struct callback_pool *p, struct callback_entry *o,
                          const char *reason, int64_t retry_at_ms);
void callback_pool_died(struct callback_pool *p, struct callback_entry *o,
                        const char *reason);

/* Make ready what is to be retried by now. Returns when the next one is due,
 * -1: never. */
int64_t callback_pool_due(struct callback_pool *p, int64_t now_ms);

/* Take up to max records, in order. Returns how many. */
size_t callback_pool_take_settled(struct callback_pool *p,
                                  struct callback_settled *out, size_t max);
/* Take the next finished request whose records have all been taken, or NULL.
 * The caller owns it until callback_pool_free_request. */
struct callback_request *callback_pool_take_finished(struct callback_pool *p);
void callback_pool_free_request(struct callback_pool *p,
                                struct callback_request **request);
/* Take a failed attempt that was not recorded; false when there is none. */
bool callback_pool_take_failed(struct callback_pool *p,
                               struct callback_failed *out);
void callback_pool_unref(struct callback_pool *p,
                         struct callback_verdict **verdict);

struct callback_pool_counts {
    size_t requests;
    size_t ids;
    size_t ready;
    size_t flying;
    size_t retrying;
    size_t unwritten; /* records, requests and attempts not taken */
    uint64_t merged;  /* ids, ever, that joined others */
};
void callback_pool_count(const struct callback_pool *p,
                         struct callback_pool_counts *out);

#endif
