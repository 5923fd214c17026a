/* See fcgi_client.h. */
#include "tests/fcgi/fcgi_client.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define WAIT_MS 10000

void
client_record(struct text *wire, int type, uint16_t id, const char *data,
              size_t bytes, uint8_t padding)
{
    uint8_t head[RECORDS_HEAD_BYTES];

    records_head(head, (enum records_type)type, id, bytes, padding);
    text_append(wire, (const char *)head, sizeof(head));
    text_append(wire, data, bytes);
    for (unsigned k = 0; k < padding; k++) {
        text_putc(wire, 'p');
    }
}

void
client_begin(struct text *wire, uint16_t id, uint8_t role, bool keep)
{
    const char content[8] = {0, (char)role, keep ? 1 : 0};

    client_record(wire, RECORDS_BEGIN_REQUEST, id, content, sizeof(content), 0);
}

static void
put_length(struct text *params, size_t bytes)
{
    if (bytes < 128) {
        text_putc(params, (char)bytes);
        return;
    }
    text_putc(params, (char)(bytes >> 24 | 0x80));
    text_putc(params, (char)(bytes >> 16));
    text_putc(params, (char)(bytes >> 8));
    text_putc(params, (char)bytes);
}

void
client_pair(struct text *params, const char *name, const char *value)
{
    put_length(params, strlen(name));
    put_length(params, strlen(value));
    text_puts(params, name);
    text_puts(params, value);
}

static void
put_params(struct text *params, const struct client_request *r, size_t bytes)
{
    char length[32];

    (void)snprintf(length, sizeof(length), "%zu", bytes);
    client_pair(params, "REQUEST_METHOD", r->method);
    client_pair(params, "REQUEST_URI", r->uri);
    client_pair(params, "SERVER_SOFTWARE", "test");
    if (r->length != NULL) {
        client_pair(params, "CONTENT_LENGTH", r->length);
    } else if (r->body != NULL) {
        client_pair(params, "CONTENT_LENGTH", length);
    }
    if (r->content_type != NULL) {
        client_pair(params, "CONTENT_TYPE", r->content_type);
    }
    if (r->header_name != NULL) {
        client_pair(params, r->header_name, r->header_value);
    }
}

void
client_build(struct text *wire, const struct client_request *r)
{
    uint16_t id = r->id != 0 ? r->id : 1;
    struct text params = {0};
    size_t bytes = r->body == NULL      ? 0
                   : r->body_bytes != 0 ? r->body_bytes
                                        : strlen(r->body);

    put_params(&params, r, bytes);
    client_begin(wire, id, 1, r->keep);
    client_record(wire, RECORDS_PARAMS, id, params.data, params.bytes, 3);
    client_record(wire, RECORDS_PARAMS, id, "", 0, 0);
    for (size_t at = 0; at < bytes; at += 32768) {
        size_t n = bytes - at < 32768 ? bytes - at : 32768;

        client_record(wire, RECORDS_STDIN, id, r->body + at, n, 0);
    }
    client_record(wire, RECORDS_STDIN, id, "", 0, 0);
    assert_false(text_failed(wire));
    text_free(&params);
}

int
client_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_true(strlen(path) < sizeof(address.sun_path));
    memcpy(address.sun_path, path, strlen(path) + 1);
    assert_int_equal(
        connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

void
client_send(int fd, const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = send(fd, data, bytes, MSG_NOSIGNAL);

        if (n <= 0) {
            return; /* the edge has had enough: what it answers counts */
        }
        data += n;
        bytes -= (size_t)n;
    }
}

/* False: the connection ended, or nothing came for a long time. */
static bool
read_all(int fd, char *out, size_t bytes)
{
    while (bytes > 0) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        ssize_t n = poll(&p, 1, WAIT_MS) == 1 ? read(fd, out, bytes) : -1;

        if (n <= 0) {
            return false;
        }
        out += n;
        bytes -= (size_t)n;
    }
    return true;
}

void
client_read(int fd, uint16_t id, struct client_answer *answer)
{
    static char content[RECORDS_CONTENT_MAX + 256];
    uint8_t head[RECORDS_HEAD_BYTES];
    const char *gap;

    *answer = (struct client_answer){.body = ""};
    while (read_all(fd, (char *)head, sizeof(head))) {
        size_t bytes = (size_t)(head[4] << 8 | head[5]);

        assert_int_equal(head[0], 1);
        assert_int_equal(head[2] << 8 | head[3], id);
        if (!read_all(fd, content, bytes + head[6])) {
            break;
        }
        if (head[1] == RECORDS_END_REQUEST) {
            assert_int_equal(bytes, 8);
            answer->end_status = (uint8_t)content[4];
            break;
        }
        assert_int_equal(head[1], RECORDS_STDOUT);
        text_append(&answer->document, content, bytes);
    }
    if (strncmp(text_cstr(&answer->document), "Status: ", 8) == 0) {
        answer->status =
            (int)strtol(text_cstr(&answer->document) + 8, NULL, 10);
    }
    gap = strstr(text_cstr(&answer->document), "\r\n\r\n");
    answer->body = gap != NULL ? gap + 4 : "";
}

void
client_answer_free(struct client_answer *answer)
{
    text_free(&answer->document);
}

bool
client_is_closed(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char byte;

    return poll(&p, 1, 2000) == 1 && read(fd, &byte, 1) <= 0;
}

int
client_ask(const char *path, const struct client_request *request,
           struct client_answer *answer)
{
    struct text wire = {0};
    int fd = client_connect(path);

    client_build(&wire, request);
    client_send(fd, wire.data, wire.bytes);
    client_read(fd, request->id != 0 ? request->id : 1, answer);
    close(fd);
    text_free(&wire);
    return answer->status;
}
