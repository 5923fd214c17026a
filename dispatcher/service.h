/* What a service must be able to do, and the thread that runs it.
 *
 * The thread owns the service's object and polls: the inbox (while the service
 * has room), the service's descriptor, and its own mailbox of orders (pause,
 * resume, drain, configure, report, stop). */
#ifndef SLUICE_DISPATCHER_SERVICE_H
#define SLUICE_DISPATCHER_SERVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "dispatcher/metrics.h"
#include "dispatcher/queue.h"
#include "dispatcher/work.h"
#include "dispatcher/writer.h"
#include "shared/conf.h"
#include "shared/journal.h"
#include "shared/services.h"
#include "shared/text.h"

struct store_pg;

/* The times of a turn of the loop. */
struct now {
    int64_t ms;      /* monotonic */
    int64_t unix_ms; /* wall */
    int64_t boot_us; /* CLOCK_BOOTTIME */
};

struct service_context {
    const struct conf *conf; /* valid during new() and configure() only */
    struct writer *writer;
    struct metrics *metrics;
    struct journal *journal; /* JOURNAL_READER of this thread, which outlives
                                the service */
    int64_t boot_us;         /* CLOCK_BOOTTIME now, for new() */
    struct queue *replies;   /* the service's own: reply_to of its writes */
    /* Tell the store that an outcome is on disk; call with store. */
    void (*outcome_added)(struct store_pg *store);
    struct store_pg *store;
};

/* Designated initialisers; every member but drain must be set (checked at
 * start). */
struct service_ops {
    enum service service;
    enum rc (*new)(void **out, const struct service_context *context);
    void (*free)(void **self);
    /* End the threads of its own, for it cannot be freed: the writer still
     * holds its writes. NULL: it has none. */
    void (*halt)(void *self);
    /* A descriptor to poll for POLLIN, or -1. */
    int (*fd)(const void *self);
    /* Would accept() take a request now? */
    bool (*has_room)(const void *self);
    /* Take a request, in order of seq. Owns work in every case. */
    void (*accept)(void *self, struct work *work, struct now now);
    /* A write came back from the writer; owned by the service again. */
    void (*written)(void *self, struct write *write, struct now now);
    /* Do what is due: start, finish, submit. paused: start nothing new.
     * Returns ms until it wants to be called again at the latest (>= 0). */
    int64_t (*tick)(void *self, struct now now, bool paused);
    /* Nothing in flight and nothing unsubmitted (for drain and stop). */
    bool (*idle)(const void *self);
    /* Hold nothing back for company until it is false again. NULL: the service
     * never does. */
    void (*drain)(void *self, bool draining);
    /* New values of the keys that may change while running. */
    void (*configure)(void *self, const struct conf *conf);
    /* Append JSON members of its state: "in_flight":3,"waiting":0 (no braces)*/
    void (*report)(const void *self, struct text *out);
};

struct service_thread;

/* Start the thread. inbox is filled by the feed and stays the caller's. */
enum rc service_start(struct service_thread **out,
                      const struct service_ops *ops, const struct conf *conf,
                      struct writer *writer, struct store_pg *store,
                      struct metrics *metrics, struct queue *inbox) MUST_CHECK;

/* Orders; each returns when the thread has taken it. Main and control. */
void service_pause(struct service_thread *t, bool paused);
void service_drain(struct service_thread *t, bool draining);
bool service_is_paused(struct service_thread *t);
void service_configure(struct service_thread *t, const struct conf *conf);
void service_report(struct service_thread *t, struct text *out);

/* Stop starting work, wait up to timeout_ms until idle, end the thread, free.
 * What was not finished is in the journal. */
void service_stop(struct service_thread **t, int64_t timeout_ms);

extern const struct service_ops callback_service;   /* dispatcher/callback.c */
extern const struct service_ops call_service;       /* dispatcher/call.c */
extern const struct service_ops sms_service;        /* dispatcher/sms.c */
extern const struct service_ops sms_status_service; /* sms_status.c */
extern const struct service_ops invitation_service; /* invitation.c */

#endif
