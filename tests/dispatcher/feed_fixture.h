/* A feed for the tests of services: it hands over what stands in the journal's
 * queue, while the service has room. A failure fails the test. */
#ifndef SLUICE_TESTS_FEED_FIXTURE_H
#define SLUICE_TESTS_FEED_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dispatcher/service.h"
#include "shared/journal.h"

struct fake_feed {
    const struct service_ops *ops;
    struct journal *journal; /* a reader */
    int64_t cursor;          /* behind the last one handed over */
};

/* At most so many; true: there was one. */
bool fake_feed(struct fake_feed *feed, void *service, size_t most,
               struct now now);

#endif
