/* The feed's thread: it owns the PULL socket, one journal reader and a lane a
 * service, and does for each lane what lane.h asks for. All decisions about
 * order are there; here are the waiting, the bounds and the trouble.
 *
 *   turn: orders -> rest of pages -> a page each -> a batch of frames ->
 *         comparison every 50 ms -> poll
 *
 * While no lane is live, nothing is received: ZeroMQ's high-water marks fill
 * up, and the handlers' sends fail at once. */
#include "dispatcher/feed.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <sys/stat.h>
#include <zmq.h>

#include "dispatcher/lane.h"
#include "dispatcher/work.h"
#include "shared/clock.h"
#include "shared/frame.h"
#include "shared/log.h"

#define PAGE_ROWS 256
#define PAGE_BYTES ((size_t)1 << 20)
#define WINDOW_ROWS 1024 /* several handlers' batches */
#define WINDOW_BYTES ((size_t)1 << 20)
#define FRAMES_PER_TURN 256
/* A frame overtakes another by the time that a handler needs to answer its
 * batch: longer than this, and it was lost. */
#define GAP_PATIENCE_MS 5
#define COMPARE_MS 50
/* While nothing is received, frames of handlers that are gone pile up, up to
 * one high-water mark a handler: throw some away now and then. */
#define DISCARD_MS 1000
#define DISCARD_FRAMES 512
#define RETRY_MIN_MS 50
#define RETRY_MAX_MS 5000
#define ORDERS_MAX 16
#define IPC_PREFIX "ipc://"
#define NEVER INT64_MAX

struct service_feed {
    enum service service;
    struct lane *lane;
    struct queue *inbox;
    struct metrics *metrics;
    int64_t gap_cursor;   /* cursor when the gap was first seen */
    int64_t gap_until_ms; /* NEVER: no gap */
};

struct feed {
    struct service_feed services[SERVICE_COUNT];
    struct metrics *metrics;
    struct journal *journal; /* the thread's own reader */
    void *context;
    void *socket; /* PULL; the thread's after the start */
    int socket_fd;
    struct queue *orders; /* of struct order */
    pthread_t thread;
    bool stopping;
    bool more_frames; /* the last batch did not empty the socket */
    int64_t compare_at_ms;
    int64_t discard_at_ms;
    /* A journal that cannot be read is asked again at retry_at_ms. */
    bool in_trouble;
    int64_t retry_at_ms;
    int64_t retry_ms;
};

enum order_kind { ORDER_STOP, ORDER_HOLD, ORDER_RELEASE };

struct order {
    enum order_kind kind;
    enum service service;
    struct queue *taken; /* gets the order back */
};

/* ---- handing on --------------------------------------------------------- */

static enum rc
hand_on(void *arg, struct work *work, enum lane_source source)
{
    struct service_feed *s = arg;
    enum rc rc =
        queue_push(s->inbox, work, sizeof(*work) + work->body_bytes + 1);

    if (rc == RC_OK) {
        metrics_add(s->metrics,
                    source == LANE_FRAME ? METRIC_FEED_LIVE_TOTAL
                                         : METRIC_FEED_JOURNAL_TOTAL,
                    s->service, 1);
    }
    return rc;
}

/* ---- the journal -------------------------------------------------------- */

/* Note how reading went; the log hears of an episode once, and of its end. */
static void
note_journal(struct feed *f, enum rc rc, int64_t now_ms)
{
    char why[160];

    if (rc == RC_OK) {
        if (f->in_trouble) {
            log_event(LOG_INFO, "feed_journal_readable", "again=true");
        }
        f->in_trouble = false;
        f->retry_ms = RETRY_MIN_MS;
        f->retry_at_ms = 0;
        return;
    }
    if (rc != RC_AGAIN && !f->in_trouble) {
        log_event(LOG_ERROR, "feed_journal_unreadable", "rc=%s error=%s",
                  rc_name(rc),
                  log_quote(journal_error(f->journal), why, sizeof(why)));
        f->in_trouble = true;
    }
    f->retry_at_ms = now_ms + f->retry_ms;
    /* No file yet is nobody's fault and may end any moment. */
    if (rc != RC_AGAIN && f->retry_ms < RETRY_MAX_MS) {
        f->retry_ms *= 2;
    }
}

static void
read_page(struct feed *f, struct service_feed *s, int64_t now_ms)
{
    int64_t newest;
    enum rc rc = journal_newest(f->journal, s->service, &newest);

    if (rc == RC_OK) {
        rc = journal_queue_page(f->journal, s->service, lane_cursor(s->lane),
                                PAGE_ROWS, PAGE_BYTES, lane_page(s->lane));
    }
    note_journal(f, rc, now_ms);
    if (rc == RC_OK) {
        lane_read(s->lane, newest);
    }
}

/* Look once whether the socket lost something; cheap, also with a backlog. */
static void
compare(struct feed *f, int64_t now_ms)
{
    f->compare_at_ms = now_ms + COMPARE_MS;
    for (unsigned i = 0; i < SERVICE_COUNT; i++) {
        struct service_feed *s = &f->services[i];
        int64_t newest;
        enum rc rc;

        if (lane_is_behind(s->lane)) {
            continue;
        }
        rc = journal_newest(f->journal, s->service, &newest);
        note_journal(f, rc, now_ms);
        if (rc != RC_OK) {
            return;
        }
        lane_compare(s->lane, newest);
    }
}

/* ---- frames ------------------------------------------------------------- */

/* One message into the lane it belongs to. RC_AGAIN: none waits. */
static enum rc
receive_one(struct feed *f, zmq_msg_t *message)
{
    struct frame frame;
    enum rc rc;

    if (zmq_msg_recv(message, f->socket, ZMQ_DONTWAIT) < 0) {
        return errno == EINTR ? RC_OK : RC_AGAIN;
    }
    rc = frame_decode(zmq_msg_data(message), zmq_msg_size(message), &frame);
    if (rc != RC_OK) {
        /* Whatever it was: a request is found in the journal. */
        return RC_OK;
    }
    rc = lane_frame(f->services[frame.service].lane, &frame);
    if (rc == RC_AGAIN) {
        metrics_add(f->metrics, METRIC_FEED_IGNORED_TOTAL, frame.service, 1);
    }
    return RC_OK;
}

/* Are there lanes that take frames? */
static bool
wants_frames(const struct feed *f)
{
    for (unsigned i = 0; i < SERVICE_COUNT; i++) {
        if (!lane_is_behind(f->services[i].lane)) {
            return true;
        }
    }
    return false;
}

/* At most max frames, as long as a lane takes them (or discard). */
static void
receive(struct feed *f, unsigned max, bool discard)
{
    enum rc rc = RC_OK;
    zmq_msg_t message;

    (void)zmq_msg_init(&message);
    for (unsigned i = 0; i < max && rc == RC_OK; i++) {
        if (!discard && !wants_frames(f)) {
            break;
        }
        rc = receive_one(f, &message);
    }
    (void)zmq_msg_close(&message);
    f->more_frames = rc == RC_OK;
}

/* The socket's descriptor is edge-triggered: before it may be waited for,
 * ZMQ_EVENTS must say that nothing is there. */
static bool
frames_wait(struct feed *f)
{
    int events = 0;
    size_t size = sizeof(events);

    if (zmq_getsockopt(f->socket, ZMQ_EVENTS, &events, &size) != 0) {
        return false;
    }
    return (events & ZMQ_POLLIN) != 0;
}

/* A lane that has kept frames for one that does not come, for too long? */
static void
watch_gap(struct service_feed *s, int64_t now_ms)
{
    if (!lane_has_gap(s->lane)) {
        s->gap_until_ms = NEVER;
    } else if (s->gap_until_ms == NEVER ||
               s->gap_cursor != lane_cursor(s->lane)) {
        s->gap_until_ms = now_ms + GAP_PATIENCE_MS;
        s->gap_cursor = lane_cursor(s->lane);
    } else if (now_ms >= s->gap_until_ms) {
        lane_give_up(s->lane);
        s->gap_until_ms = NEVER;
    }
}

/* ---- orders ------------------------------------------------------------- */

static void
take_orders(struct feed *f)
{
    struct order *order = queue_pop(f->orders);
    enum rc rc;

    while (order != NULL) {
        switch (order->kind) {
        case ORDER_STOP:
            f->stopping = true;
            break;
        case ORDER_HOLD:
            lane_hold(f->services[order->service].lane, true);
            break;
        case ORDER_RELEASE:
            lane_hold(f->services[order->service].lane, false);
            break;
        }
        /* Its queue was made for this one item. The order is the caller's
         * again from here on. */
        rc = queue_push(order->taken, order, 0);
        assert(rc == RC_OK);
        (void)rc; /* with NDEBUG */
        order = queue_pop(f->orders);
    }
}

/* Wait, for as long as it takes, until fd is readable. */
static void
wait_for(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    while (poll(&p, 1, -1) <= 0) {
    }
}

/* Any thread: hand in the order and wait until the feed has taken it. */
static void
give_order(struct feed *f, struct order *order)
{
    /* The feed takes orders at every turn, so both bounds and want of
     * descriptors are a matter of a moment. */
    while (queue_new(&order->taken, 1, 0) != RC_OK) {
        (void)poll(NULL, 0, COMPARE_MS);
    }
    while (queue_push(f->orders, order, 0) != RC_OK) {
        (void)poll(NULL, 0, 1);
    }
    wait_for(queue_ready_fd(order->taken));
    (void)queue_pop(order->taken);
    queue_free(&order->taken, NULL);
}

/* ---- the loop ----------------------------------------------------------- */

static void
show(struct service_feed *s)
{
    metrics_set(s->metrics, METRIC_FEED_CURSOR, s->service,
                lane_cursor(s->lane));
    metrics_set(s->metrics, METRIC_FEED_BEHIND, s->service,
                lane_is_behind(s->lane));
    metrics_set(s->metrics, METRIC_INBOX_ROWS, s->service,
                (int64_t)queue_count(s->inbox));
}

static void
serve_lane(struct feed *f, struct service_feed *s, int64_t now_ms)
{
    if (lane_has_rest(s->lane)) {
        lane_go_on(s->lane);
    }
    if (lane_wants_page(s->lane) && now_ms >= f->retry_at_ms) {
        read_page(f, s, now_ms);
    }
    watch_gap(s, now_ms);
    show(s);
}

/* Everything that can be done without waiting. */
static void
turn(struct feed *f, int64_t now_ms)
{
    take_orders(f);
    if (wants_frames(f)) {
        receive(f, FRAMES_PER_TURN, false);
        f->discard_at_ms = now_ms + DISCARD_MS;
        if (now_ms >= f->compare_at_ms && now_ms >= f->retry_at_ms) {
            compare(f, now_ms);
        }
    } else if (now_ms >= f->discard_at_ms) {
        receive(f, DISCARD_FRAMES, true);
        f->discard_at_ms = now_ms + DISCARD_MS;
    }
    for (unsigned i = 0; i < SERVICE_COUNT; i++) {
        serve_lane(f, &f->services[i], now_ms);
    }
}

static int64_t
earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* When the next turn is due at the latest. */
static int64_t
due_ms(struct feed *f, int64_t now_ms)
{
    bool live = wants_frames(f);
    int64_t due = live ? f->compare_at_ms : f->discard_at_ms;

    if (live && f->retry_at_ms > due) {
        due = f->retry_at_ms;
    }
    if (live && (f->more_frames || frames_wait(f))) {
        return now_ms;
    }
    for (unsigned i = 0; i < SERVICE_COUNT; i++) {
        const struct service_feed *s = &f->services[i];

        due = earlier(due, s->gap_until_ms);
        if (lane_wants_page(s->lane)) {
            due = earlier(due, f->retry_at_ms);
        }
        if (lane_has_rest(s->lane)) {
            due = earlier(due, now_ms + RETRY_MIN_MS);
        }
    }
    return due;
}

/* Wait for an order, a frame, room in an inbox or the time. */
static void
wait_for_something(struct feed *f, int64_t now_ms)
{
    struct pollfd polls[2 + SERVICE_COUNT];
    struct service_feed *blocked[2 + SERVICE_COUNT] = {NULL};
    int64_t wait_ms = due_ms(f, now_ms) - now_ms;
    nfds_t count = 0;

    polls[count++] =
        (struct pollfd){.fd = queue_ready_fd(f->orders), .events = POLLIN};
    if (wants_frames(f)) {
        polls[count++] = (struct pollfd){.fd = f->socket_fd, .events = POLLIN};
    }
    for (unsigned i = 0; i < SERVICE_COUNT; i++) {
        struct service_feed *s = &f->services[i];

        if (lane_is_blocked(s->lane)) {
            blocked[count] = s;
            polls[count++] = (struct pollfd){.fd = queue_room_fd(s->inbox),
                                             .events = POLLIN};
        }
    }
    wait_ms = wait_ms < 0 ? 0 : earlier(wait_ms, RETRY_MAX_MS);
    if (poll(polls, count, (int)wait_ms) <= 0) {
        return;
    }
    for (nfds_t i = 0; i < count; i++) {
        if (blocked[i] != NULL && polls[i].revents != 0) {
            lane_go_on(blocked[i]->lane);
        }
    }
}

static void *
run(void *arg)
{
    struct feed *f = arg;

    while (!f->stopping) {
        int64_t now_ms = clock_now_ms();

        turn(f, now_ms);
        if (!f->stopping) {
            wait_for_something(f, now_ms);
        }
    }
    return NULL;
}

/* ---- start and stop ----------------------------------------------------- */

static enum rc
set_options(void *socket)
{
    static const struct {
        int option;
        int value;
    } options[] = {
        {ZMQ_RCVHWM, 1024}, /* a handler */
        {ZMQ_LINGER, 0},
        {ZMQ_BACKLOG, 1024},
    };
    int64_t max_bytes = FRAME_HEAD_BYTES + FRAME_BODY_MAX;

    for (size_t i = 0; i < ARRAY_COUNT(options); i++) {
        int value = options[i].value;

        if (zmq_setsockopt(socket, options[i].option, &value, sizeof(value)) !=
            0) {
            return RC_BUG;
        }
    }
    return zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max_bytes,
                          sizeof(max_bytes)) == 0
               ? RC_OK
               : RC_BUG;
}

/* Bind; an old socket file of a killed dispatcher is replaced by ZeroMQ. The
 * group may connect: handlers run as another user in the same group. */
static enum rc
open_socket(struct feed *f, const char *endpoint)
{
    const char *path = endpoint + strlen(IPC_PREFIX);
    size_t size = sizeof(f->socket_fd);
    char quoted[200];
    enum rc rc;

    f->context = zmq_ctx_new();
    f->socket = f->context != NULL ? zmq_socket(f->context, ZMQ_PULL) : NULL;
    if (f->socket == NULL) {
        return RC_NOMEM;
    }
    rc = set_options(f->socket);
    if (rc != RC_OK) {
        return rc;
    }
    if (zmq_bind(f->socket, endpoint) != 0) {
        int error = errno;

        log_event(LOG_ERROR, "feed_bind_failed", "endpoint=%s error=\"%s\"",
                  log_quote(endpoint, quoted, sizeof(quoted)),
                  zmq_strerror(error));
        return RC_IO;
    }
    if (strncmp(endpoint, IPC_PREFIX, strlen(IPC_PREFIX)) == 0 &&
        path[0] == '/' && chmod(path, 0660) != 0) {
        return RC_IO;
    }
    if (zmq_getsockopt(f->socket, ZMQ_FD, &f->socket_fd, &size) != 0) {
        return RC_BUG;
    }
    return RC_OK;
}

static enum rc
open_lanes(struct feed *f, const struct feed_options *options)
{
    enum rc rc = RC_OK;

    for (unsigned i = 0; i < SERVICE_COUNT && rc == RC_OK; i++) {
        struct service_feed *s = &f->services[i];
        struct lane_options lane = {
            .service = (enum service)i,
            .window_rows = WINDOW_ROWS,
            .window_bytes = WINDOW_BYTES,
            .hand_on = hand_on,
            .arg = s,
        };

        s->service = (enum service)i;
        s->inbox = options->inboxes[i];
        s->metrics = options->metrics;
        s->gap_until_ms = NEVER;
        rc = lane_new(&s->lane, &lane);
    }
    return rc;
}

static void
feed_free(struct feed *f)
{
    for (unsigned i = 0; i < SERVICE_COUNT; i++) {
        lane_free(&f->services[i].lane);
    }
    if (f->socket != NULL) {
        (void)zmq_close(f->socket);
    }
    if (f->context != NULL) {
        while (zmq_ctx_term(f->context) != 0 && errno == EINTR) {
        }
    }
    journal_free(&f->journal);
    queue_free(&f->orders, NULL);
    free(f);
}

enum rc
feed_start(struct feed **out, const struct feed_options *options)
{
    struct journal_options reader = *options->journal;
    struct feed *f = calloc(1, sizeof(*f));
    enum rc rc;

    *out = NULL;
    if (f == NULL) {
        return RC_NOMEM;
    }
    f->metrics = options->metrics;
    f->retry_ms = RETRY_MIN_MS;
    reader.role = JOURNAL_READER;
    rc = journal_new(&f->journal, &reader);
    if (rc == RC_OK) {
        rc = queue_new(&f->orders, ORDERS_MAX, 0);
    }
    if (rc == RC_OK) {
        rc = open_lanes(f, options);
    }
    if (rc == RC_OK) {
        rc = open_socket(f, options->endpoint);
    }
    if (rc == RC_OK && pthread_create(&f->thread, NULL, run, f) != 0) {
        rc = RC_NOMEM;
    }
    if (rc != RC_OK) {
        feed_free(f);
        return rc;
    }
    *out = f;
    return RC_OK;
}

void
feed_stop(struct feed **fp)
{
    struct feed *f = *fp;
    struct order order = {.kind = ORDER_STOP, .service = SERVICE_COUNT};

    if (f == NULL) {
        return;
    }
    give_order(f, &order);
    (void)pthread_join(f->thread, NULL);
    feed_free(f);
    *fp = NULL;
}

void
feed_hold(struct feed *f, enum service service, bool held)
{
    struct order order = {
        .kind = held ? ORDER_HOLD : ORDER_RELEASE,
        .service = service,
    };

    give_order(f, &order);
}
