/*
 * The object server and the provider of messages for `make bench`: HTTP/1.1 on
 * one epoll loop, so that it is not what is measured at 10 000 kept-alive
 * connections.
 *
 *   GET /objects/N  ->  {"id":N,"online":true|false} after --min-ms..--max-ms
 *   POST /batches   ->  {} after as long; its { are counted as messages
 *   GET /stats      ->  {"answered":...,"messages":...} at once
 *
 * Even ids are online, as in objects.py. One request at a time a connection
 * (no pipelining). On SIGTERM it prints its counts and ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    REQUEST_BYTES = 2048,
    CONNECTIONS_MAX = 65536,
    EVENTS = 512,
    DESCRIPTORS = 70000,
};

struct connection {
    int fd; /* -1: free */
    size_t read_bytes;
    char read[REQUEST_BYTES];
    bool waiting; /* its answer is in the heap */
    bool closed;  /* the peer went while it was waiting */
    bool batch;   /* its request is one */
    size_t body_left;
    uint64_t id;
};

/* Answers to come, the earliest first. */
struct due {
    int64_t at_us;
    struct connection *connection;
};

struct server {
    int epoll_fd;
    int listen_fd;
    int64_t min_us;
    int64_t max_us;
    uint64_t random;
    struct connection *connections[CONNECTIONS_MAX]; /* by descriptor */
    struct due heap[CONNECTIONS_MAX];
    size_t heap_count;
    uint64_t answered;
    uint64_t messages;
    uint64_t connected;
    size_t waiting_max;
    int64_t waited_us; /* sum of the delays: for the mean */
};

static volatile sig_atomic_t stop;

static void
on_signal(int number)
{
    (void)number;
    stop = 1;
}

static int64_t
now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* xorshift64*: good enough to spread delays. */
static uint64_t
next_random(struct server *s)
{
    s->random ^= s->random >> 12;
    s->random ^= s->random << 25;
    s->random ^= s->random >> 27;
    return s->random * UINT64_C(2685821657736338717);
}

static void
heap_push(struct server *s, struct due due)
{
    size_t at = s->heap_count++;

    while (at > 0 && s->heap[(at - 1) / 2].at_us > due.at_us) {
        s->heap[at] = s->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    s->heap[at] = due;
    if (s->heap_count > s->waiting_max) {
        s->waiting_max = s->heap_count;
    }
}

static struct due
heap_pop(struct server *s)
{
    struct due first = s->heap[0];
    struct due last = s->heap[--s->heap_count];
    size_t at = 0;

    for (;;) {
        size_t child = 2 * at + 1;

        if (child + 1 < s->heap_count &&
            s->heap[child + 1].at_us < s->heap[child].at_us) {
            child++;
        }
        if (child >= s->heap_count || s->heap[child].at_us >= last.at_us) {
            break;
        }
        s->heap[at] = s->heap[child];
        at = child;
    }
    s->heap[at] = last;
    return first;
}

/* One that waits is freed when its time comes: the heap points to it. */
static void
close_connection(struct server *s, struct connection *c)
{
    if (c->fd >= 0) {
        close(c->fd);
        s->connections[c->fd] = NULL;
        c->fd = -1;
    }
    c->closed = true;
    if (!c->waiting) {
        free(c);
    }
}

static void
send_json(struct server *s, struct connection *c, const char *json)
{
    char text[512];
    int bytes = snprintf(text, sizeof(text),
                         "HTTP/1.1 200 OK\r\nContent-Type: application/json"
                         "\r\nContent-Length: %zu\r\n\r\n%s",
                         strlen(json), json);

    if (send(c->fd, text, (size_t)bytes, MSG_NOSIGNAL) != bytes) {
        close_connection(s, c);
    }
}

static void
send_stats(struct server *s, struct connection *c)
{
    char json[256];

    snprintf(json, sizeof(json),
             "{\"answered\":%llu,\"messages\":%llu,\"connections\":%llu,"
             "\"waiting_max\":%zu,\"mean_ms\":%.3f}",
             (unsigned long long)s->answered, (unsigned long long)s->messages,
             (unsigned long long)s->connected, s->waiting_max,
             s->answered > 0
                 ? (double)s->waited_us / 1000.0 / (double)s->answered
                 : 0.0);
    send_json(s, c, json);
}

static void
answer_later(struct server *s, struct connection *c)
{
    int64_t delay = s->min_us;

    if (s->max_us > s->min_us) {
        delay +=
            (int64_t)(next_random(s) % (uint64_t)(s->max_us - s->min_us + 1));
    }
    c->waiting = true;
    s->waited_us += delay;
    heap_push(s, (struct due){now_us() + delay, c});
}

/* A part of a batch's body. */
static void
take_body(struct server *s, struct connection *c, const char *data,
          size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        s->messages += data[i] == '{';
    }
    c->body_left -= bytes < c->body_left ? bytes : c->body_left;
    if (c->body_left == 0) {
        answer_later(s, c);
    }
}

static void
begin_batch(struct server *s, struct connection *c)
{
    static const char header[] = "\r\nContent-Length:";
    const char *length = strcasestr(c->read, header);
    const char *body = strstr(c->read, "\r\n\r\n") + 4;
    size_t bytes = (size_t)(c->read + c->read_bytes - body);

    c->batch = true;
    c->read_bytes = 0;
    c->body_left =
        length != NULL ? strtoul(length + strlen(header), NULL, 10) : 0;
    take_body(s, c, body, bytes);
}

/* A whole head is in c->read. */
static void
handle_request(struct server *s, struct connection *c)
{
    unsigned long long id;

    if (strncmp(c->read, "POST /batches ", 14) == 0) {
        begin_batch(s, c);
        return;
    }
    c->batch = false;
    c->read_bytes = 0;
    if (sscanf(c->read, "GET /objects/%llu ", &id) == 1) {
        c->id = id;
        answer_later(s, c);
    } else if (strncmp(c->read, "GET /stats ", 11) == 0) {
        send_stats(s, c);
    } else {
        close_connection(s, c);
    }
}

static void
read_connection(struct server *s, struct connection *c)
{
    ssize_t got = recv(c->fd, c->read + c->read_bytes,
                       sizeof(c->read) - 1 - c->read_bytes, 0);

    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (got <= 0) {
        close_connection(s, c);
        return;
    }
    if (c->body_left > 0) {
        take_body(s, c, c->read, (size_t)got);
        return;
    }
    c->read_bytes += (size_t)got;
    c->read[c->read_bytes] = '\0';
    if (strstr(c->read, "\r\n\r\n") != NULL) {
        handle_request(s, c);
    } else if (c->read_bytes == sizeof(c->read) - 1) {
        close_connection(s, c);
    }
}

static void
accept_connections(struct server *s)
{
    int one = 1;

    for (;;) {
        int fd =
            accept4(s->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        struct epoll_event event = {.events = EPOLLIN};
        struct connection *c;

        if (fd < 0) {
            return;
        }
        c = fd < CONNECTIONS_MAX ? calloc(1, sizeof(*c)) : NULL;
        if (c == NULL) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        c->fd = fd;
        s->connections[fd] = c;
        s->connected++;
        event.data.fd = fd;
        epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

/* Send what is due. Returns ms until the next one, -1 for none. */
static int
answer_due(struct server *s)
{
    int64_t now = now_us();

    while (s->heap_count > 0 && s->heap[0].at_us <= now) {
        struct connection *c = heap_pop(s).connection;
        char json[96];

        c->waiting = false;
        s->answered++;
        if (c->closed) {
            free(c);
            continue;
        }
        snprintf(json, sizeof(json), "{\"id\":%llu,\"online\":%s}",
                 (unsigned long long)c->id, c->id % 2 == 0 ? "true" : "false");
        send_json(s, c, c->batch ? "{}" : json);
    }
    return s->heap_count > 0 ? (int)((s->heap[0].at_us - now) / 1000 + 1) : -1;
}

static int
listen_on(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    socklen_t size = sizeof(address);
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(fd, (struct sockaddr *)&address, size) != 0 ||
        listen(fd, 16384) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        perror("upstream: listen");
        exit(1);
    }
    printf("upstream: port %u\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void
loop(struct server *s)
{
    struct epoll_event events[EVENTS];

    while (!stop) {
        int wait_ms = answer_due(s);
        int count = epoll_wait(s->epoll_fd, events, EVENTS, wait_ms);

        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;

            if (fd == s->listen_fd) {
                accept_connections(s);
            } else if (s->connections[fd] != NULL) {
                read_connection(s, s->connections[fd]);
            }
        }
    }
}

static long
argument(int argc, char **argv, const char *name, long otherwise)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], name) == 0) {
            return strtol(argv[i + 1], NULL, 10);
        }
    }
    return otherwise;
}

int
main(int argc, char **argv)
{
    static struct server s = {.random = UINT64_C(0x9e3779b97f4a7c15)};
    struct rlimit descriptors = {DESCRIPTORS, DESCRIPTORS};
    struct epoll_event event = {.events = EPOLLIN};

    if (setrlimit(RLIMIT_NOFILE, &descriptors) != 0) {
        getrlimit(RLIMIT_NOFILE, &descriptors);
        descriptors.rlim_cur = descriptors.rlim_max;
        setrlimit(RLIMIT_NOFILE, &descriptors);
    }
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    s.min_us = argument(argc, argv, "--min-ms", 300) * 1000;
    s.max_us = argument(argc, argv, "--max-ms", 4000) * 1000;
    s.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    s.listen_fd = listen_on((uint16_t)argument(argc, argv, "--port", 0));
    event.data.fd = s.listen_fd;
    epoll_ctl(s.epoll_fd, EPOLL_CTL_ADD, s.listen_fd, &event);
    loop(&s);
    printf("upstream: %llu answered over %llu connections, %zu at once\n",
           (unsigned long long)s.answered, (unsigned long long)s.connected,
           s.waiting_max);
    return 0;
}
