/* Counters, gauges and histograms of the dispatcher, one const table in
 * metrics.c. Values are atomics: any thread adds, any thread prints. Created
 * by main, handed to each thread. */
#ifndef SLUICE_DISPATCHER_METRICS_H
#define SLUICE_DISPATCHER_METRICS_H

#include <stdint.h>

#include "shared/rc.h"
#include "shared/services.h"
#include "shared/text.h"

enum metric { /* C counter, G gauge, H histogram of ms */
              METRIC_FEED_LIVE_TOTAL, /* C by service: handed on from a frame */
              METRIC_FEED_JOURNAL_TOTAL, /* C by service: handed on from the
                                            journal */
              METRIC_FEED_IGNORED_TOTAL, /* C by service: frames not needed */
              METRIC_FEED_BEHIND,        /* G by service: 1 while behind */
              METRIC_FEED_CURSOR,        /* G by service */
              METRIC_INBOX_ROWS,         /* G by service */
              METRIC_ACTIVE_REQUESTS, /* G by service: in the service's hands */
              METRIC_PERSISTED_TOTAL, /* C by service: requests retired */
              METRIC_DEAD_TOTAL,      /* C by service: requests buried */
              METRIC_QUARANTINED_TOTAL, /* C by service: records not decodable
                                         */
              METRIC_PAUSED,            /* G by service */
              METRIC_COMPLETION_MS, /* H by service: received to persisted */
              METRIC_WRITER_GROUPS_TOTAL, /* C: transactions of the writer */
              METRIC_WRITER_WRITES_TOTAL, /* C: writes in them */
              METRIC_WRITER_FAILED_TOTAL, /* C: groups that had to be repeated
                                           */
              METRIC_WRITER_MS,          /* H: time of a group with its fsync */
              METRIC_WAL_BYTES,          /* G */
              METRIC_JOURNAL_USED_BYTES, /* G */
              METRIC_POSTGRES_UP,        /* G */
              METRIC_POSTGRES_MS,        /* H: time of a batch */
              METRIC_STORE_ROWS_TOTAL,   /* C: rows upserted */
              METRIC_STORE_POISON_TOTAL, /* C: rows that the database refused */
              METRIC_OBJECTS_EXPIRED_TOTAL, /* C */
              METRIC_FETCHES_TOTAL,         /* C: GETs finished */
              METRIC_FETCH_FAILURES_TOTAL,  /* C: of those, failed attempts */
              METRIC_FETCH_MERGED_TOTAL,  /* C: ids that needed no GET of their
                                             own */
              METRIC_FETCH_IN_FLIGHT,     /* G */
              METRIC_FETCH_LIMIT,         /* G: callback.concurrency */
              METRIC_FETCH_MS,            /* H: a GET */
              METRIC_CALLS_DIALED_TOTAL,  /* C: requests to the provider */
              METRIC_CALL_FAILURES_TOTAL, /* C: of those, failed attempts */
              METRIC_CALL_429_TOTAL,      /* C: of those, refused with 429 */
              METRIC_CALLS_IN_FLIGHT,     /* G */
              METRIC_CALL_GUARD_US,       /* G: what the limiter has learned */
              METRIC_CALL_PHASE,          /* G: enum limiter_phase */
              METRIC_CALL_MS,             /* H: a request to the provider */
              METRIC_SMS_REQUESTS_TOTAL,  /* C: requests to the provider */
              METRIC_SMS_FAILURES_TOTAL,  /* C: of those, failed attempts */
              METRIC_SMS_BATCHES_SENT_TOTAL,   /* C: that it took */
              METRIC_SMS_BATCHES_FAILED_TOTAL, /* C: given up, split, refused */
              METRIC_SMS_MESSAGES_SENT_TOTAL,  /* C: in those that it took */
              METRIC_SMS_IN_FLIGHT,            /* G: requests to it under way */
              METRIC_SMS_WAITING,              /* G: messages in no batch yet */
              METRIC_SMS_NOTICES_SENT_TOTAL, /* C: states told to the client */
              METRIC_SMS_NOTICES_DEAD_TOTAL, /* C: that it would not take */
              METRIC_SMS_BATCH_MS, /* H: first request of a batch to its end */
              METRIC_SMS_UPDATES_APPLIED_TOTAL,  /* C: status updates of
                                                    messages */
              METRIC_SMS_UPDATES_REPEATED_TOTAL, /* C: told before, no news */
              METRIC_SMS_UPDATES_PARKED_TOTAL,   /* C: before their message */
              METRIC_SMS_UPDATE_ERRORS_TOTAL,    /* C: could not be done */
              METRIC_SMS_UPDATES_EARLY, /* G: parked now, of all dispatchers */
              METRIC_MONGO_UP,          /* G */
              METRIC_MONGO_MS,          /* H: a turn's places, or mails */
              METRIC_INVITATION_PLACES_TOTAL,   /* C: places given */
              METRIC_INVITATION_WAITING_TOTAL,  /* C: put on a waitlist */
              METRIC_INVITATION_PROMOTED_TOTAL, /* C: moved up from one */
              METRIC_INVITATION_REFUSED_TOTAL,  /* C: the address is refused */
              METRIC_INVITATION_UNKNOWN_TOTAL,  /* C: unknown or expired code */
              METRIC_INVITATION_REPEATED_TOTAL, /* C: asked before */
              METRIC_INVITATION_CONFLICTS_TOTAL, /* C: slots lost to another
                                                    dispatcher */
              METRIC_MAIL_SENT_TOTAL,     /* C: taken by the mail server */
              METRIC_MAIL_DELAYED_TOTAL,  /* C: attempts to be repeated */
              METRIC_MAIL_REFUSED_TOTAL,  /* C: recipients refused for good */
              METRIC_MAIL_GIVEN_UP_TOTAL, /* C: not taken for too long */
              METRIC_MAIL_SKIPPED_TOTAL,  /* C: mails that were not due any
                                             more */
              METRIC_MAIL_IN_FLIGHT,      /* G */
              METRIC_MAIL_WAITING,        /* G: to be sent by this dispatcher */
              METRIC_MAIL_PAUSED,         /* G: 1 while the server refuses us */
              METRIC_MAIL_MS,             /* H: a mail to the server */
              METRIC_COUNT
};

struct metrics;

enum rc metrics_new(struct metrics **out) MUST_CHECK;
void metrics_free(struct metrics **m);

/* For metrics without a service label pass SERVICE_COUNT. Any thread. */
void metrics_add(struct metrics *m, enum metric metric, enum service service,
                 int64_t n);
void metrics_set(struct metrics *m, enum metric metric, enum service service,
                 int64_t value);
/* Note one observation of a histogram. */
void metrics_observe_ms(struct metrics *m, enum metric metric,
                        enum service service, int64_t ms);
int64_t metrics_get(const struct metrics *m, enum metric metric,
                    enum service service);

/* All of them in the Prometheus text format ("sluice_" + name). */
void metrics_print(const struct metrics *m, struct text *out);

#endif
