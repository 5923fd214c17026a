/* dispatcher/service.c with a service that only takes notes. */
#include "dispatcher/service.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "dispatcher/store_pg.h"
#include "shared/log.h"

/* The service. Its thread writes, the test reads once the order that it waits
 * for came back or the counter that it polls has changed. */
static struct {
    int event_fd; /* the service's descriptor */
    atomic_int accepted;
    atomic_int room; /* so many more are accepted */
    atomic_int written;
    atomic_int ticks;
    atomic_int events; /* ticks at which event_fd was readable */
    atomic_bool paused;
    atomic_bool idle;
    atomic_int freed;
    atomic_int halted;
    int64_t seqs[256];
    int64_t concurrency; /* as configured */
    enum rc new_rc;
    struct queue *replies;
} it;

static struct conf conf;
static atomic_int flushes;
static bool disk_fails;

enum rc __wrap_writer_flush(struct writer *w, int64_t timeout_ms);
void __wrap_store_pg_wake(struct store_pg *s);

enum rc
__wrap_writer_flush(struct writer *w, int64_t timeout_ms)
{
    (void)w;
    (void)timeout_ms;
    atomic_fetch_add(&flushes, 1);
    return disk_fails ? RC_AGAIN : RC_OK;
}

void
__wrap_store_pg_wake(struct store_pg *s)
{
    (void)s;
}

static enum rc
it_new(void **out, const struct service_context *context)
{
    assert_non_null(context->journal);
    assert_non_null(context->outcome_added);
    assert_ptr_equal(context->conf, &conf);
    it.replies = context->replies;
    *out = it.new_rc == RC_OK ? &it : NULL;
    return it.new_rc;
}

static void
it_free(void **self)
{
    atomic_fetch_add(&it.freed, 1);
    *self = NULL;
}

static int
it_fd(const void *self)
{
    (void)self;
    return it.event_fd;
}

static bool
it_has_room(const void *self)
{
    (void)self;
    return atomic_load(&it.room) > 0;
}

static void
it_accept(void *self, struct work *work, struct now now)
{
    (void)self;
    assert_true(now.ms > 0 && now.unix_ms > now.ms);
    atomic_fetch_sub(&it.room, 1);
    it.seqs[atomic_load(&it.accepted)] = work->seq;
    atomic_fetch_add(&it.accepted, 1);
    work_free(work);
}

static void
it_written(void *self, struct write *write, struct now now)
{
    (void)self;
    (void)now;
    free(write);
    atomic_fetch_add(&it.written, 1);
}

static int64_t
it_tick(void *self, struct now now, bool paused)
{
    eventfd_t count;
    (void)self;
    (void)now;
    if (eventfd_read(it.event_fd, &count) == 0) {
        atomic_fetch_add(&it.events, 1);
    }
    atomic_store(&it.paused, paused);
    atomic_fetch_add(&it.ticks, 1);
    return 60000;
}

static bool
it_idle(const void *self)
{
    (void)self;
    return atomic_load(&it.idle);
}

static void
it_configure(void *self, const struct conf *fresh)
{
    (void)self;
    it.concurrency = fresh->callback.concurrency;
}

static void
it_report(const void *self, struct text *out)
{
    (void)self;
    text_puts(out, "\"noted\":1");
}

static void
it_halt(void *self)
{
    (void)self;
    atomic_fetch_add(&it.halted, 1);
}

static const struct service_ops ops = {
    .service = SERVICE_CALLBACK,
    .new = it_new,
    .free = it_free,
    .halt = it_halt,
    .fd = it_fd,
    .has_room = it_has_room,
    .accept = it_accept,
    .written = it_written,
    .tick = it_tick,
    .idle = it_idle,
    .configure = it_configure,
    .report = it_report,
};

struct fixture {
    struct metrics *metrics;
    struct queue *inbox;
    struct service_thread *thread;
};

static enum rc
start(struct fixture *f, const struct service_ops *which)
{
    return service_start(&f->thread, which, &conf, NULL, NULL, f->metrics,
                         f->inbox);
}

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    memset(&it, 0, sizeof(it));
    it.event_fd = eventfd(0, EFD_NONBLOCK);
    atomic_store(&it.idle, true);
    atomic_store(&it.room, 256);
    atomic_store(&flushes, 0);
    snprintf(conf.journal.path, sizeof(conf.journal.path), "/nowhere/j.db");
    assert_int_equal(metrics_new(&f->metrics), RC_OK);
    assert_int_equal(queue_new(&f->inbox, 256, 0), RC_OK);
    *state = f;
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;
    service_stop(&f->thread, 0);
    queue_free(&f->inbox, work_free);
    metrics_free(&f->metrics);
    close(it.event_fd);
    free(f);
    return 0;
}

/* Until *counter has reached value, which must not take ten seconds. */
static void
await(atomic_int *counter, int value)
{
    for (int k = 0; k < 10000 && atomic_load(counter) < value; k++) {
        (void)poll(NULL, 0, 1);
    }
    assert_true(atomic_load(counter) >= value);
}

static void
feed(struct fixture *f, int from, int to)
{
    static const struct uuid id;
    for (int seq = from; seq < to; seq++) {
        struct work *work =
            work_new(SERVICE_CALLBACK, seq, 1, &id, "[1]", strlen("[1]"));
        assert_non_null(work);
        assert_int_equal(queue_push(f->inbox, work, 1), RC_OK);
    }
}

static void
requests_come_in_order(void **state)
{
    struct fixture *f = *state;
    feed(f, 1, 101);
    assert_int_equal(start(f, &ops), RC_OK);
    feed(f, 101, 201);
    await(&it.accepted, 200);
    for (int k = 0; k < 200; k++) {
        assert_int_equal(it.seqs[k], k + 1);
    }
}

static void
without_room_they_stay_in_the_inbox(void **state)
{
    struct fixture *f = *state;
    struct text report = {0};
    atomic_store(&it.room, 3);
    assert_int_equal(start(f, &ops), RC_OK);
    feed(f, 1, 11);
    await(&it.accepted, 3);
    service_report(f->thread, &report); /* a turn has passed */
    service_report(f->thread, &report);
    text_free(&report);
    assert_int_equal(atomic_load(&it.accepted), 3);
    assert_int_equal(queue_count(f->inbox), 7);
    atomic_store(&it.room, 3);
    assert_int_equal(eventfd_write(it.event_fd, 1), 0);
    await(&it.accepted, 6);
}

static void
its_descriptor_brings_a_turn(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(start(f, &ops), RC_OK);
    for (int k = 1; k <= 3; k++) {
        assert_int_equal(eventfd_write(it.event_fd, 1), 0);
        await(&it.events, k);
    }
}

static void
a_write_comes_back(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(start(f, &ops), RC_OK);
    for (int k = 0; k < 5; k++) {
        struct write *write = calloc(1, sizeof(*write));
        assert_int_equal(queue_push(it.replies, write, 0), RC_OK);
    }
    await(&it.written, 5);
}

static void
a_pause_starts_nothing_new(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(start(f, &ops), RC_OK);
    assert_false(service_is_paused(f->thread));
    service_pause(f->thread, true);
    assert_true(service_is_paused(f->thread));
    int ticks = atomic_load(&it.ticks);
    assert_int_equal(eventfd_write(it.event_fd, 1), 0);
    await(&it.ticks, ticks + 2);
    assert_true(atomic_load(&it.paused));
    assert_int_equal(metrics_get(f->metrics, METRIC_PAUSED, SERVICE_CALLBACK),
                     1);
    service_pause(f->thread, false);
    assert_false(service_is_paused(f->thread));
    ticks = atomic_load(&it.ticks);
    assert_int_equal(eventfd_write(it.event_fd, 1), 0);
    await(&it.ticks, ticks + 2);
    assert_false(atomic_load(&it.paused));
}

static void
an_order_is_carried_out_when_it_returns(void **state)
{
    struct fixture *f = *state;
    struct text report = {0};
    assert_int_equal(start(f, &ops), RC_OK);
    conf.callback.concurrency = 77;
    service_configure(f->thread, &conf);
    assert_int_equal(it.concurrency, 77);
    service_report(f->thread, &report);
    assert_string_equal(text_cstr(&report), "\"noted\":1");
    text_free(&report);
}

static void
a_stop_waits_until_it_is_idle(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(start(f, &ops), RC_OK);
    feed(f, 1, 3);
    await(&it.accepted, 2);
    service_stop(&f->thread, 10000);
    assert_null(f->thread);
    assert_int_equal(atomic_load(&it.freed), 1);
    assert_true(atomic_load(&it.paused)); /* the last turn started nothing */
    assert_true(atomic_load(&flushes) > 0);
    service_stop(&f->thread, 0); /* harmless */
}

static void
a_stop_that_lasts_too_long_ends(void **state)
{
    struct fixture *f = *state;
    atomic_store(&it.idle, false);
    assert_int_equal(start(f, &ops), RC_OK);
    service_stop(&f->thread, 1);
    assert_int_equal(atomic_load(&it.freed), 1);
}

/* It cannot be freed, but nothing of it goes on. */
static void
while_the_disk_fails_it_is_halted(void **state)
{
    static struct service_thread *kept; /* for the leak checker */
    struct fixture *f = *state;
    assert_int_equal(start(f, &ops), RC_OK);
    kept = f->thread;
    disk_fails = true;
    service_stop(&f->thread, 0);
    disk_fails = false;
    assert_null(f->thread);
    assert_non_null(kept);
    assert_int_equal(atomic_load(&it.halted), 1);
    assert_int_equal(atomic_load(&it.freed), 0);
}

static void
requests_that_were_not_taken_stay_where_they_are(void **state)
{
    struct fixture *f = *state;
    atomic_store(&it.room, 0);
    feed(f, 1, 4);
    assert_int_equal(start(f, &ops), RC_OK);
    service_stop(&f->thread, 0);
    assert_int_equal(queue_count(f->inbox), 3);
}

static void
a_service_that_lacks_a_member_is_refused(void **state)
{
    struct fixture *f = *state;
    struct service_ops broken[10];
    for (size_t k = 0; k < ARRAY_COUNT(broken); k++) {
        broken[k] = ops;
    }
    broken[0].new = NULL;
    broken[1].free = NULL;
    broken[2].fd = NULL;
    broken[3].has_room = NULL;
    broken[4].accept = NULL;
    broken[5].written = NULL;
    broken[6].tick = NULL;
    broken[7].idle = NULL;
    broken[8].configure = NULL;
    broken[9].report = NULL;
    for (size_t k = 0; k < ARRAY_COUNT(broken); k++) {
        assert_int_equal(start(f, &broken[k]), RC_BUG);
        assert_null(f->thread);
    }
}

static void
a_service_that_cannot_be_made_is_told(void **state)
{
    struct fixture *f = *state;
    it.new_rc = RC_IO;
    assert_int_equal(start(f, &ops), RC_IO);
    assert_null(f->thread);
    assert_int_equal(atomic_load(&it.freed), 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(requests_come_in_order),
        CASE(without_room_they_stay_in_the_inbox),
        CASE(its_descriptor_brings_a_turn),
        CASE(a_write_comes_back),
        CASE(a_pause_starts_nothing_new),
        CASE(an_order_is_carried_out_when_it_returns),
        CASE(a_stop_waits_until_it_is_idle),
        CASE(a_stop_that_lasts_too_long_ends),
        CASE(while_the_disk_fails_it_is_halted),
        CASE(requests_that_were_not_taken_stay_where_they_are),
        CASE(a_service_that_lacks_a_member_is_refused),
        CASE(a_service_that_cannot_be_made_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
