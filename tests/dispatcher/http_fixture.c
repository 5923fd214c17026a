/* The server: one thread on poll, which takes orders over a pipe. */
#include "tests/dispatcher/http_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/clock.h"
#include "shared/rc.h"

#define CONNECTIONS 600
#define PATIENCE_MS 20000 /* a test that waits this long has failed */
#define PEER_BYTES ((size_t)512 * 1024)

struct peer {
    int fd;
    bool is_late; /* waits for HTTP_ANSWER */
    unsigned requests;
    size_t bytes;
    char *in;
};

struct server {
    struct http_server shown; /* first: the test's pointer points here */
    pthread_t thread;
    int listener;
    int orders[2];
    atomic_uint obeyed; /* orders */
    bool is_deaf;
    struct peer peers[CONNECTIONS];
    unsigned count;
    struct pollfd fds[CONNECTIONS + 2];
    pthread_mutex_t mutex;
    char *last; /* the last request; under mutex */
};

static struct server *
whole_of(struct http_server *s)
{
    return (struct server *)(void *)s;
}

static void
say(int fd, const char *text)
{
    (void)!send(fd, text, strlen(text), MSG_NOSIGNAL);
}

static void
say_ok(int fd, const char *body)
{
    char text[512];

    (void)snprintf(text, sizeof(text),
                   "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
                   strlen(body), body);
    say(fd, text);
}

/* Each byte a segment of its own. */
static void
say_in_bytes(int fd, const char *text)
{
    int on = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    for (; *text != '\0'; text++) {
        (void)!send(fd, text, 1, MSG_NOSIGNAL);
    }
}

static void
reset_at_close(int fd)
{
    struct linger reset = {1, 0};

    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
}

static void
say_headers_without_end(int fd)
{
    say(fd, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 2000; i++) {
        say(fd, "X-More: 0123456789012345678901234567890123456789\r\n");
    }
}

static void
say_long(int fd)
{
    say(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < 200; i++) {
        say(fd, "0123456789012345678901234567890123456789");
    }
}

struct canned {
    const char *path;
    const char *answer;
    bool ends; /* close the connection behind it */
};

static const struct canned canned[] = {
    {"/never", "", false},
    {"/400", "HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\nno", false},
    {"/404", "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno", false},
    {"/429", "HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n", false},
    {"/503", "HTTP/1.1 503 Not now\r\nContent-Length: 0\r\n\r\n", false},
    {"/301",
     "HTTP/1.1 301 There\r\nLocation: /200\r\nContent-Length: 0\r\n\r\n",
     false},
    {"/302",
     "HTTP/1.1 302 There\r\nLocation: /200\r\nContent-Length: 0\r\n\r\n",
     false},
    {"/307",
     "HTTP/1.1 307 There\r\nLocation: /200\r\nContent-Length: 0\r\n\r\n",
     false},
    {"/interim",
     "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
     false},
    {"/chunked",
     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
     "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
     false},
    {"/cut", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", true},
    {"/cut-early", "HTTP/1.1 103 Early\r\n\r\n", true},
    {"/garbage", "\x01\x02 what is this\r\n\r\n", true},
    {"/close", "", true},
    {"/to-the-end", "HTTP/1.1 200 OK\r\n\r\nall", true},
};

/* False: close the connection. */
static bool
answer(struct server *s, struct peer *peer, const char *path)
{
    int fd = peer->fd;

    peer->requests++;
    for (size_t i = 0; i < ARRAY_COUNT(canned); i++) {
        if (strcmp(path, canned[i].path) == 0) {
            say(fd, canned[i].answer);
            return !canned[i].ends;
        }
    }
    if (strcmp(path, "/once") == 0 && peer->requests > 1) {
        /* Closes a kept connection just as the second request arrives. */
        return false;
    } else if (strcmp(path, "/reset") == 0) {
        reset_at_close(fd);
        return false;
    } else if (strcmp(path, "/late") == 0) {
        peer->is_late = true;
        atomic_fetch_add(&s->shown.late, 1);
    } else if (strcmp(path, "/split") == 0) {
        say_in_bytes(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsplit");
    } else if (strcmp(path, "/headers") == 0) {
        say_headers_without_end(fd);
        return false;
    } else if (strcmp(path, "/long") == 0) {
        say_long(fd);
        return false;
    } else {
        say_ok(fd, path);
    }
    return true;
}

/* The bytes of the request that in starts with; 0: not whole yet. */
static size_t
whole(const char *in, size_t bytes)
{
    const char *end = strstr(in, "\r\n\r\n");
    const char *length = strstr(in, "Content-Length: ");
    size_t need;

    if (end == NULL) {
        return 0;
    }
    need = (size_t)(end + 4 - in);
    if (length != NULL && length < end) {
        need += strtoul(length + 16, NULL, 10);
    }
    return bytes >= need ? need : 0;
}

/* False: close the connection. */
static bool
serve(struct server *s, struct peer *peer)
{
    ssize_t got =
        recv(peer->fd, peer->in + peer->bytes, PEER_BYTES - 1 - peer->bytes, 0);
    char path[256];

    if (got <= 0) {
        return false;
    }
    peer->bytes += (size_t)got;
    peer->in[peer->bytes] = '\0';
    atomic_fetch_add(&s->shown.bytes, (unsigned long long)got);
    if (whole(peer->in, peer->bytes) == 0) {
        return true;
    }
    if (sscanf(peer->in, "%*s %255s HTTP/1.1", path) != 1) {
        return false;
    }
    pthread_mutex_lock(&s->mutex);
    memcpy(s->last, peer->in, peer->bytes + 1);
    pthread_mutex_unlock(&s->mutex);
    peer->bytes = 0;
    atomic_fetch_add(&s->shown.requests, 1);
    return answer(s, peer, path);
}

static void
take_connection(struct server *s)
{
    int fd = accept(s->listener, NULL, NULL);

    if (fd < 0) {
        return;
    }
    atomic_fetch_add(&s->shown.accepted, 1);
    if (s->count == CONNECTIONS || atomic_load(&s->shown.rejects)) {
        reset_at_close(fd);
        close(fd);
        return;
    }
    s->peers[s->count++] = (struct peer){.fd = fd, .in = malloc(PEER_BYTES)};
}

static void
drop(struct server *s, unsigned i)
{
    close(s->peers[i].fd);
    free(s->peers[i].in);
    s->peers[i] = s->peers[--s->count];
}

static void
obey(struct server *s, enum http_order order)
{
    for (unsigned i = s->count; i-- > 0;) {
        struct peer *peer = &s->peers[i];

        switch (order) {
        case HTTP_STOP:
        case HTTP_DEAF:
            break;
        case HTTP_ANSWER:
            if (peer->is_late) {
                peer->is_late = false;
                atomic_fetch_sub(&s->shown.late, 1);
                say_ok(peer->fd, "late");
            }
            break;
        case HTTP_CLOSE:
            drop(s, i);
            break;
        case HTTP_SPEAK:
            say(peer->fd, "HTTP/1.1 408 Idle\r\nContent-Length: 0\r\n\r\n");
            break;
        }
    }
    s->is_deaf = s->is_deaf || order == HTTP_DEAF;
    atomic_fetch_add(&s->obeyed, 1);
}

static void *
run_server(void *arg)
{
    struct server *s = arg;
    struct pollfd *fds = s->fds;

    for (;;) {
        char order;

        fds[0] = (struct pollfd){.fd = s->orders[0], .events = POLLIN};
        fds[1] = (struct pollfd){.fd = s->listener, .events = POLLIN};
        for (unsigned i = 0; i < s->count; i++) {
            fds[i + 2] =
                (struct pollfd){.fd = s->peers[i].fd, .events = POLLIN};
        }
        if (poll(fds, s->is_deaf ? 2 : s->count + 2, -1) < 0) {
            continue;
        }
        if (!s->is_deaf) {
            for (unsigned i = s->count; i-- > 0;) {
                if (fds[i + 2].revents != 0 && !serve(s, &s->peers[i])) {
                    drop(s, i);
                }
            }
        }
        if (fds[1].revents != 0) {
            take_connection(s);
        }
        if (fds[0].revents != 0 && read(s->orders[0], &order, 1) == 1) {
            if ((enum http_order)order == HTTP_STOP) {
                return NULL;
            }
            obey(s, (enum http_order)order);
        }
    }
}

struct http_server *
http_server_new(void)
{
    struct server *s = calloc(1, sizeof(*s));
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);

    assert_non_null(s);
    s->last = calloc(1, PEER_BYTES);
    assert_non_null(s->last);
    assert_int_equal(pthread_mutex_init(&s->mutex, NULL), 0);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(
        bind(s->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(s->listener, 1024), 0);
    assert_int_equal(
        getsockname(s->listener, (struct sockaddr *)&address, &bytes), 0);
    s->shown.port = ntohs(address.sin_port);
    assert_int_equal(pipe2(s->orders, O_CLOEXEC), 0);
    assert_int_equal(pthread_create(&s->thread, NULL, run_server, s), 0);
    return &s->shown;
}

static void
give_order(struct server *s, enum http_order order)
{
    char byte = (char)order;

    assert_int_equal(write(s->orders[1], &byte, 1), 1);
}

void
http_server_order(struct http_server *shown, enum http_order order)
{
    struct server *s = whole_of(shown);
    unsigned before = atomic_load(&s->obeyed);
    int64_t end_ms = clock_now_ms() + PATIENCE_MS;

    give_order(s, order);
    while (atomic_load(&s->obeyed) == before) {
        assert_true(clock_now_ms() < end_ms);
        (void)poll(NULL, 0, 1);
    }
}

char *
http_server_last(struct http_server *shown)
{
    struct server *s = whole_of(shown);
    char *last;

    pthread_mutex_lock(&s->mutex);
    last = strdup(s->last);
    pthread_mutex_unlock(&s->mutex);
    assert_non_null(last);
    return last;
}

char *
http_server_url(const struct http_server *s, const char *path,
                char out[HTTP_URL_BYTES])
{
    (void)snprintf(out, HTTP_URL_BYTES, "http://localhost:%u%s", s->port, path);
    return out;
}

void
http_server_free(struct http_server *shown)
{
    struct server *s = whole_of(shown);

    give_order(s, HTTP_STOP);
    pthread_join(s->thread, NULL);
    while (s->count > 0) {
        drop(s, s->count - 1);
    }
    close(s->listener);
    close(s->orders[0]);
    close(s->orders[1]);
    pthread_mutex_destroy(&s->mutex);
    free(s->last);
    free(s);
}
