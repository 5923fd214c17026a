/* The bounded queue in which threads meet: a ring of pointers under a mutex,
 * and two eventfds, so that a thread waits for it in the same poll(2) as for
 * its sockets. An eventfd is written and read under the mutex only, on the
 * change between "nothing" and "something": a busy queue costs no system
 * call. */
#include "dispatcher/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <sys/eventfd.h>

/* Room is announced when this part of the bound has come free, so that a
 * producer wakes for a good many items, not for each. */
#define ROOM_PART 4

struct slot {
    void *item;
    size_t bytes;
};

struct queue {
    pthread_mutex_t mutex; /* guards all below but the descriptors */
    struct slot *ring;     /* max_count slots */
    size_t max_count;
    size_t max_bytes; /* 0: no bound */
    size_t head;      /* index of the oldest */
    size_t count;
    size_t bytes;
    bool refused; /* a push was refused since room was last announced */
    int ready_fd; /* readable while count > 0 */
    int room_fd;  /* readable from the announcement to the next refusal */
};

/* Cannot fail: the counter never passes 1, and the descriptor is ours. */
static void
event_raise(int fd)
{
    uint64_t one = 1;
    ssize_t put;

    do {
        put = write(fd, &one, sizeof(one));
    } while (put < 0 && errno == EINTR);
}

static void
event_lower(int fd)
{
    uint64_t count;
    ssize_t got;

    do {
        got = read(fd, &count, sizeof(count));
    } while (got < 0 && errno == EINTR);
}

enum rc
queue_new(struct queue **out, size_t max_count, size_t max_bytes)
{
    struct queue *q = calloc(1, sizeof(*q));
    enum rc rc = RC_NOMEM;

    *out = NULL;
    if (q == NULL) {
        return RC_NOMEM;
    }
    q->ready_fd = -1;
    q->room_fd = -1;
    q->max_count = max_count;
    q->max_bytes = max_bytes;
    if (pthread_mutex_init(&q->mutex, NULL) != 0) {
        free(q);
        return RC_NOMEM;
    }
    /* Untouched pages of a long ring cost nothing. */
    q->ring = calloc(max_count, sizeof(*q->ring));
    if (q->ring == NULL) {
        goto out;
    }
    q->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    q->room_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->ready_fd < 0 || q->room_fd < 0) {
        rc = RC_IO;
        goto out;
    }
    *out = q;
    q = NULL;
    rc = RC_OK;
out:
    queue_free(&q, NULL);
    return rc;
}

void
queue_free(struct queue **qp, void (*drop)(void *item))
{
    struct queue *q = *qp;

    if (q == NULL) {
        return;
    }
    while (q->count > 0) {
        void *item = queue_pop(q);

        if (drop != NULL) {
            drop(item);
        }
    }
    if (q->ready_fd >= 0) {
        (void)close(q->ready_fd);
    }
    if (q->room_fd >= 0) {
        (void)close(q->room_fd);
    }
    (void)pthread_mutex_destroy(&q->mutex);
    free(q->ring);
    free(q);
    *qp = NULL;
}

/* An empty queue takes anything, else an item above max_bytes would never
 * pass. */
static bool
fits(const struct queue *q, size_t bytes)
{
    if (q->count == 0) {
        return true;
    }
    if (q->count == q->max_count) {
        return false;
    }
    return q->max_bytes == 0 ||
           (q->bytes <= q->max_bytes && bytes <= q->max_bytes - q->bytes);
}

enum rc
queue_push(struct queue *q, void *item, size_t bytes)
{
    enum rc rc = RC_FULL;

    (void)pthread_mutex_lock(&q->mutex);
    if (fits(q, bytes)) {
        size_t tail = (q->head + q->count) % q->max_count;

        q->ring[tail] = (struct slot){.item = item, .bytes = bytes};
        q->bytes += bytes;
        q->count++;
        if (q->count == 1) {
            event_raise(q->ready_fd);
        }
        rc = RC_OK;
    } else {
        /* Something is inside, so a pop will come and announce room. */
        event_lower(q->room_fd);
        q->refused = true;
    }
    (void)pthread_mutex_unlock(&q->mutex);
    return rc;
}

static bool
has_room(const struct queue *q)
{
    size_t free_count = q->max_count - q->count;
    size_t wanted = q->max_count / ROOM_PART;

    if (q->count == 0) {
        return true;
    }
    if (free_count < (wanted > 0 ? wanted : 1)) {
        return false;
    }
    return q->max_bytes == 0 ||
           q->bytes <= q->max_bytes - q->max_bytes / ROOM_PART;
}

void *
queue_pop(struct queue *q)
{
    void *item = NULL;

    (void)pthread_mutex_lock(&q->mutex);
    if (q->count > 0) {
        item = q->ring[q->head].item;
        q->bytes -= q->ring[q->head].bytes;
        q->head = (q->head + 1) % q->max_count;
        q->count--;
        if (q->count == 0) {
            event_lower(q->ready_fd);
        }
        if (q->refused && has_room(q)) {
            q->refused = false;
            event_raise(q->room_fd);
        }
    }
    (void)pthread_mutex_unlock(&q->mutex);
    return item;
}

int
queue_ready_fd(const struct queue *q)
{
    return q->ready_fd;
}

int
queue_room_fd(const struct queue *q)
{
    return q->room_fd;
}

size_t
queue_count(struct queue *q)
{
    size_t count;

    (void)pthread_mutex_lock(&q->mutex);
    count = q->count;
    (void)pthread_mutex_unlock(&q->mutex);
    return count;
}

size_t
queue_bytes(struct queue *q)
{
    size_t bytes;

    (void)pthread_mutex_lock(&q->mutex);
    bytes = q->bytes;
    (void)pthread_mutex_unlock(&q->mutex);
    return bytes;
}
