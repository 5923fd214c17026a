/* The control socket (shared/ctlclient.h describes the protocol): a thread
 * that answers sluicectl, status.fcgi and Prometheus. Peers must be root or
 * the dispatcher's own user (SO_PEERCRED). */
#ifndef SLUICE_DISPATCHER_CONTROL_H
#define SLUICE_DISPATCHER_CONTROL_H

#include <stdint.h>

#include "dispatcher/feed.h"
#include "dispatcher/metrics.h"
#include "dispatcher/service.h"
#include "dispatcher/writer.h"
#include "shared/conf.h"
#include "shared/rc.h"

struct control;

struct control_options {
    const struct conf *conf; /* path, journal; copied */
    struct feed *feed;
    struct writer *writer;
    struct metrics *metrics;
    struct service_thread *services[SERVICE_COUNT];
    int64_t started_unix_ms;
};

/* Commands: status | queue [SERVICE] | dead list [SERVICE [AFTER [LIMIT]]] |
 * dead retry ID|all [SERVICE] | dead drop ID | pause SERVICE | resume SERVICE |
 * drain | explain ID | metrics | ping.
 * drain: the feed holds every service and answers when all are idle and the
 * store has nothing left (or says what is left after 30 s); resume lifts it. */
enum rc control_start(struct control **out,
                      const struct control_options *options) MUST_CHECK;
void control_stop(struct control **c);

#endif
