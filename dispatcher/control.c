/* The control socket's thread: one loop over a bounded number of clients, each
 * of which has a few seconds. What a command does is in control_commands.c. */
#include "dispatcher/control.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "dispatcher/control_commands.h"
#include "shared/clock.h"
#include "shared/log.h"

#define CLIENTS_MAX 16
#define LINE_BYTES 512
#define CLIENT_MS 5000 /* to send its line; then again to take the answer */
#define DRAIN_MS 30000 /* what a drain may take before it says what is left */
#define DRAIN_LOOK_MS 250
#define BACKLOG 64
#define PAUSE_MS 100 /* after accept failed for want of descriptors */
#define NEVER INT64_MAX

enum client_state { CLIENT_FREE, CLIENT_READS, CLIENT_DRAINS, CLIENT_WRITES };

struct client {
    enum client_state state;
    int fd;
    bool allowed; /* by its uid */
    int64_t until_ms;
    char line[LINE_BYTES + 1];
    size_t line_bytes;
    struct text answer;
    size_t sent_bytes;
};

struct control {
    struct commands *commands;
    char path[CONF_SOCKET_BYTES];
    int listen_fd;
    int stop_fd;
    pthread_t thread;
    /* The thread's own. */
    struct client clients[CLIENTS_MAX];
    struct text document; /* scratch */
    int64_t drain_look_at_ms;
    int64_t accept_at_ms; /* not before */
};

/* ---- one client -----------------------------------------------------------
 */

/* What the client has sent beyond its line is read first: closing a UNIX
 * socket over unread bytes would take the answer away from the client. */
static void
let_go(struct client *client)
{
    char rest[4096];

    for (int i = 0; i < 16; i++) {
        if (recv(client->fd, rest, sizeof(rest), 0) <= 0) {
            break;
        }
    }
    (void)close(client->fd);
    text_free(&client->answer);
    *client = (struct client){.state = CLIENT_FREE, .fd = -1};
}

/* Send what is left of the answer, as far as the socket takes it. */
static void
write_answer(struct client *client)
{
    while (client->sent_bytes < client->answer.bytes) {
        ssize_t n =
            send(client->fd, client->answer.data + client->sent_bytes,
                 client->answer.bytes - client->sent_bytes, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            return;
        }
        if (n <= 0) {
            break;
        }
        client->sent_bytes += (size_t)n;
    }
    let_go(client);
}

/* rc decides between a document and an error text; both are in document. */
static void
answer(struct client *client, enum rc rc, const struct text *document,
       int64_t now_ms)
{
    text_reset(&client->answer);
    if (text_failed(document)) {
        text_puts(&client->answer, "error out of memory\n");
    } else if (rc == RC_OK) {
        text_puts(&client->answer, "ok\n");
        text_append(&client->answer, text_cstr(document), document->bytes);
    } else {
        text_printf(&client->answer, "error %s\n", text_cstr(document));
    }
    if (text_failed(&client->answer)) {
        let_go(client);
        return;
    }
    client->state = CLIENT_WRITES;
    client->sent_bytes = 0;
    client->until_ms = now_ms + CLIENT_MS;
    write_answer(client);
}

static void
answer_error(struct control *c, struct client *client, const char *why,
             int64_t now_ms)
{
    text_reset(&c->document);
    text_puts(&c->document, why);
    answer(client, RC_INVALID, &c->document, now_ms);
}

static void
run_line(struct control *c, struct client *client, int64_t now_ms)
{
    enum rc rc;

    if (!client->allowed) {
        answer_error(c, client,
                     "permission denied: ask as root or as the "
                     "dispatcher's user",
                     now_ms);
        return;
    }
    if (strlen(client->line) != client->line_bytes) {
        answer_error(c, client, "a command is printable ASCII", now_ms);
        return;
    }
    text_reset(&c->document);
    rc = commands_run(c->commands, client->line, &c->document);
    if (rc == RC_AGAIN) {
        client->state = CLIENT_DRAINS;
        client->until_ms = now_ms + DRAIN_MS;
        c->drain_look_at_ms = now_ms;
        return;
    }
    /* The command may have taken its time: that is not the client's. */
    answer(client, rc, &c->document, clock_now_ms());
}

/* A line ends with a newline or with the client's half-close. */
static void
read_line(struct control *c, struct client *client, int64_t now_ms)
{
    size_t room = LINE_BYTES - client->line_bytes;
    ssize_t n = recv(client->fd, client->line + client->line_bytes, room, 0);
    char *end;

    if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
        return;
    }
    if (n < 0) {
        let_go(client);
        return;
    }
    client->line_bytes += (size_t)n;
    client->line[client->line_bytes] = '\0';
    end = memchr(client->line, '\n', client->line_bytes);
    if (end != NULL) {
        *end = '\0';
        client->line_bytes = (size_t)(end - client->line);
        run_line(c, client, now_ms);
    } else if (n == 0) {
        run_line(c, client, now_ms);
    } else if (client->line_bytes == LINE_BYTES) {
        answer_error(c, client, "the command is too long", now_ms);
    }
}

/* A drain's client goes away before its end: the drain stays. */
static void
watch_drains(struct control *c, int64_t now_ms)
{
    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        struct client *client = &c->clients[i];
        bool last = now_ms >= client->until_ms;

        if (client->state == CLIENT_DRAINS &&
            (commands_drained(c->commands, last, &c->document) || last)) {
            answer(client, RC_OK, &c->document, now_ms);
        }
    }
    c->drain_look_at_ms = now_ms + DRAIN_LOOK_MS;
}

/* ---- the loop -------------------------------------------------------------
 */

static bool
is_allowed(int fd)
{
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t size = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
        return false;
    }
    if (peer.uid != 0 && peer.uid != geteuid()) {
        log_event(LOG_WARN, "control_refused", "uid=%ld pid=%ld",
                  (long)peer.uid, (long)peer.pid);
        return false;
    }
    return true;
}

static struct client *
free_place(struct control *c)
{
    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        if (c->clients[i].state == CLIENT_FREE) {
            return &c->clients[i];
        }
    }
    return NULL;
}

static void
accept_client(struct control *c, int64_t now_ms)
{
    struct client *client = free_place(c);
    int fd = client == NULL ? -1
                            : accept4(c->listen_fd, NULL, NULL,
                                      SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) {
        if (client != NULL && errno != EAGAIN && errno != EINTR &&
            errno != ECONNABORTED) {
            c->accept_at_ms = now_ms + PAUSE_MS;
        }
        return;
    }
    client->state = CLIENT_READS;
    client->fd = fd;
    client->allowed = is_allowed(fd);
    client->until_ms = now_ms + CLIENT_MS;
}

/* The descriptors to wait for: [0] stop, [1] new clients, then the clients
 * (-1, which poll ignores, for one that waits for a drain). */
static void
fill_polls(struct control *c, struct pollfd polls[2 + CLIENTS_MAX],
           int64_t now_ms)
{
    bool accepts = free_place(c) != NULL && now_ms >= c->accept_at_ms;

    polls[0] = (struct pollfd){.fd = c->stop_fd, .events = POLLIN};
    polls[1] =
        (struct pollfd){.fd = accepts ? c->listen_fd : -1, .events = POLLIN};
    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        const struct client *client = &c->clients[i];
        bool reads = client->state == CLIENT_READS;
        bool writes = client->state == CLIENT_WRITES;

        polls[2 + i] = (struct pollfd){
            .fd = reads || writes ? client->fd : -1,
            .events = reads ? POLLIN : POLLOUT,
        };
    }
}

static int
wait_ms(const struct control *c, int64_t now_ms)
{
    int64_t due = c->accept_at_ms > now_ms ? c->accept_at_ms : NEVER;

    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        const struct client *client = &c->clients[i];
        int64_t at = client->state == CLIENT_FREE     ? NEVER
                     : client->state == CLIENT_DRAINS ? c->drain_look_at_ms
                                                      : client->until_ms;

        due = at < due ? at : due;
    }
    if (due == NEVER) {
        return -1;
    }
    return due <= now_ms ? 0 : (int)(due - now_ms);
}

/* Serve those who can go on, and see off those whose time is over. */
static void
serve(struct control *c, const struct pollfd polls[2 + CLIENTS_MAX],
      int64_t now_ms)
{
    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        struct client *client = &c->clients[i];
        bool can_go_on = polls[2 + i].revents != 0;

        if (client->state == CLIENT_READS && can_go_on) {
            read_line(c, client, now_ms);
        } else if (client->state == CLIENT_WRITES && can_go_on) {
            write_answer(client);
        }
        if ((client->state == CLIENT_READS || client->state == CLIENT_WRITES) &&
            now_ms >= client->until_ms) {
            let_go(client);
        }
    }
    if (polls[1].revents != 0) {
        accept_client(c, now_ms);
    }
    if (now_ms >= c->drain_look_at_ms) {
        watch_drains(c, now_ms);
    }
}

static void *
run(void *arg)
{
    struct control *c = arg;

    for (;;) {
        struct pollfd polls[2 + CLIENTS_MAX];
        int64_t now_ms = clock_now_ms();

        fill_polls(c, polls, now_ms);
        if (poll(polls, ARRAY_COUNT(polls), wait_ms(c, now_ms)) < 0) {
            continue; /* EINTR: nothing is set */
        }
        if (polls[0].revents != 0) {
            return NULL;
        }
        serve(c, polls, clock_now_ms());
    }
}

/* ---- start and stop -------------------------------------------------------
 */

/* A socket left by a killed dispatcher is replaced: there is one dispatcher a
 * journal, and its lock is ours by now. */
static enum rc
open_socket(struct control *c)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t bytes = strlen(c->path);

    if (bytes == 0 || bytes >= sizeof(address.sun_path)) {
        return RC_INVALID;
    }
    memcpy(address.sun_path, c->path, bytes + 1);
    c->listen_fd =
        socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->listen_fd < 0) {
        return RC_IO;
    }
    (void)unlink(c->path);
    if (bind(c->listen_fd, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        chmod(c->path, 0660) != 0 || listen(c->listen_fd, BACKLOG) != 0) {
        return RC_IO;
    }
    return RC_OK;
}

static void
control_free(struct control *c)
{
    for (size_t i = 0; i < CLIENTS_MAX; i++) {
        if (c->clients[i].state != CLIENT_FREE) {
            let_go(&c->clients[i]);
        }
    }
    if (c->listen_fd >= 0) {
        (void)close(c->listen_fd);
        (void)unlink(c->path);
    }
    if (c->stop_fd >= 0) {
        (void)close(c->stop_fd);
    }
    text_free(&c->document);
    commands_free(&c->commands);
    free(c);
}

enum rc
control_start(struct control **out, const struct control_options *options)
{
    struct control *c = calloc(1, sizeof(*c));
    enum rc rc;

    *out = NULL;
    if (c == NULL) {
        return RC_NOMEM;
    }
    memcpy(c->path, options->conf->control.path, sizeof(c->path));
    c->listen_fd = -1;
    c->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rc = c->stop_fd < 0 ? RC_IO
                        : commands_new(&c->commands, options, c->stop_fd);
    if (rc == RC_OK) {
        rc = open_socket(c);
        if (rc != RC_OK) {
            log_event(LOG_ERROR, "control_bind_failed", "path=%s error=\"%s\"",
                      c->path, strerror(errno));
        }
    }
    if (rc == RC_OK && pthread_create(&c->thread, NULL, run, c) != 0) {
        rc = RC_NOMEM;
    }
    if (rc != RC_OK) {
        control_free(c);
        return rc;
    }
    *out = c;
    return RC_OK;
}

void
control_stop(struct control **cp)
{
    struct control *c = *cp;

    if (c == NULL) {
        return;
    }
    (void)eventfd_write(c->stop_fd, 1);
    (void)pthread_join(c->thread, NULL);
    control_free(c);
    *cp = NULL;
}
