/* Client of the control socket: one line out, a document back. */
#include "shared/ctlclient.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shared/clock.h"

#define CONNECT_AGAIN_MS 10
#define ANSWER_BYTES_MAX ((size_t)16 * 1024 * 1024)

/* RC_FULL: so many wait for the dispatcher that the kernel takes no more. */
static enum rc
connect_to(const char *path, int *out)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t bytes = strlen(path);
    int fd;

    *out = -1;
    if (bytes >= sizeof address.sun_path) {
        return RC_INVALID;
    }
    memcpy(address.sun_path, path, bytes + 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return RC_IO;
    }
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        enum rc rc = errno == EAGAIN                            ? RC_FULL
                     : errno == ENOENT || errno == ECONNREFUSED ? RC_AGAIN
                                                                : RC_IO;
        (void)close(fd);
        return rc;
    }
    *out = fd;
    return RC_OK;
}

/* A UNIX connect does not wait in the kernel, so a full backlog is waited for
 * here. */
static enum rc
connect_in_time(const char *path, int64_t deadline_ms, int *out)
{
    enum rc rc = connect_to(path, out);

    while (rc == RC_FULL) {
        if (clock_now_ms() >= deadline_ms) {
            return RC_TIMEOUT;
        }
        (void)poll(NULL, 0, CONNECT_AGAIN_MS);
        rc = connect_to(path, out);
    }
    return rc;
}

static enum rc
await(int fd, short events, int64_t deadline_ms)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = events};
        int64_t left_ms = deadline_ms - clock_now_ms();
        int ready;

        if (left_ms <= 0) {
            return RC_TIMEOUT;
        }
        ready = poll(&p, 1, left_ms > 60000 ? 60000 : (int)left_ms);
        if (ready > 0) {
            return RC_OK;
        }
        if (ready < 0 && errno != EINTR) {
            return RC_IO;
        }
    }
}

static enum rc
send_line(int fd, const char *line, int64_t deadline_ms)
{
    char out[1024];
    int bytes = snprintf(out, sizeof out, "%s\n", line);
    int sent = 0;

    if (bytes < 0 || (size_t)bytes >= sizeof out) {
        return RC_INVALID;
    }
    while (sent < bytes) {
        ssize_t n = send(fd, out + sent, (size_t)(bytes - sent), MSG_NOSIGNAL);

        if (n > 0) {
            sent += (int)n;
        } else if (errno == EAGAIN) {
            enum rc rc = await(fd, POLLOUT, deadline_ms);
            if (rc != RC_OK) {
                return rc;
            }
        } else if (errno != EINTR) {
            return RC_IO;
        }
    }
    return shutdown(fd, SHUT_WR) == 0 ? RC_OK : RC_IO;
}

static enum rc
receive_all(int fd, struct text *out, int64_t deadline_ms)
{
    char block[16384];

    for (;;) {
        ssize_t n = recv(fd, block, sizeof block, 0);

        if (n == 0) {
            return text_failed(out) ? RC_NOMEM : RC_OK;
        }
        if (n > 0) {
            text_append(out, block, (size_t)n);
        } else if (errno == EAGAIN) {
            enum rc rc = await(fd, POLLIN, deadline_ms);
            if (rc != RC_OK) {
                return rc;
            }
        } else if (errno != EINTR) {
            return RC_IO;
        }
    }
}

/* Split the first line, "ok" or "error <text>", from the document. */
static enum rc
split_answer(const struct text *answer, struct text *out)
{
    const char *data = text_cstr(answer);
    const char *end = memchr(data, '\n', answer->bytes);

    if (end == NULL) {
        return RC_IO; /* it died in the middle */
    }
    if (strncmp(data, "ok\n", 3) == 0) {
        text_append(out, end + 1, answer->bytes - 3);
        return text_failed(out) ? RC_NOMEM : RC_OK;
    }
    if (strncmp(data, "error ", 6) == 0) {
        text_append(out, data + 6, (size_t)(end - data) - 6);
        return RC_INVALID;
    }
    return RC_IO;
}

enum rc
ctlclient_ask(const char *path, const char *line, int64_t timeout_ms,
              struct text *out)
{
    int64_t deadline_ms = clock_now_ms() + timeout_ms;
    struct text answer = {.max_bytes = ANSWER_BYTES_MAX};
    int fd = -1;
    enum rc rc;

    text_reset(out);
    rc = connect_in_time(path, deadline_ms, &fd);
    if (rc == RC_OK) {
        rc = send_line(fd, line, deadline_ms);
    }
    if (rc == RC_OK) {
        rc = receive_all(fd, &answer, deadline_ms);
    }
    if (rc == RC_OK) {
        rc = split_answer(&answer, out);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    text_free(&answer);
    return rc;
}
