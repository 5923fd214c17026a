/* Replies as FastCGI records, and sending them. One send(2) is the usual case:
 * header, body and END_REQUEST leave together. */
#include "fcgi/edge_write.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "fcgi/records.h"
#include "shared/clock.h"

#define STATUS_UNKNOWN_ROLE 3

static void
put_head(struct text *wire, enum records_type type, uint16_t id, size_t content,
         uint8_t padding)
{
    uint8_t head[RECORDS_HEAD_BYTES];

    records_head(head, type, id, content, padding);
    text_append(wire, (const char *)head, sizeof(head));
}

static void
put_end(struct text *wire, uint16_t id)
{
    static const char completed[8];

    put_head(wire, RECORDS_STDOUT, id, 0, 0);
    put_head(wire, RECORDS_END_REQUEST, id, sizeof(completed), 0);
    text_append(wire, completed, sizeof(completed));
}

static void
put_line(struct text *wire, const char *name, const char *value)
{
    text_puts(wire, name);
    text_puts(wire, value);
    text_append(wire, "\r\n", 2);
}

/* A problem document names the request, so that a report can be matched with
 * the log: put in before its closing brace. */
static void
put_body(struct text *wire, const struct reply *reply, const char *extra,
         size_t extra_bytes)
{
    if (extra_bytes == 0) {
        text_append(wire, text_cstr(&reply->body), reply->body.bytes);
        return;
    }
    text_append(wire, reply->body.data, reply->body.bytes - 1);
    text_append(wire, extra, extra_bytes);
    text_putc(wire, '}');
}

/* The CGI document: headers, an empty line, the body. */
static void
put_document(struct text *wire, const struct reply *reply,
             const char *request_id, bool head_only)
{
    struct text extra = {0};

    if (reply_is_problem(reply)) {
        text_puts(&extra, ",\"request_id\":");
        text_json_string(&extra, request_id, strlen(request_id));
    }
    text_puts(wire, "Status: ");
    text_int(wire, reply->status);
    text_putc(wire, ' ');
    put_line(wire, reply_title(reply->status), "");
    if (reply->status != 204) {
        put_line(wire, "Content-Type: ", reply->content_type);
        text_puts(wire, "Content-Length: ");
        text_int(wire, (int64_t)(reply->body.bytes + extra.bytes));
        text_append(wire, "\r\n", 2);
    }
    put_line(wire, "X-Request-Id: ", request_id);
    text_append(wire, text_cstr(&reply->headers), reply->headers.bytes);
    text_append(wire, "\r\n", 2);
    if (!head_only) {
        put_body(wire, reply, extra.data, extra.bytes);
    }
    text_free(&extra);
}

/* A document longer than one record: copied out and cut into several. */
static void
cut_records(struct text *wire, uint16_t id)
{
    struct text document = *wire;
    size_t at = RECORDS_HEAD_BYTES;

    *wire = (struct text){.max_bytes = document.max_bytes};
    while (at < document.bytes) {
        size_t n = document.bytes - at;

        n = n > RECORDS_CONTENT_MAX ? RECORDS_CONTENT_MAX : n;
        put_head(wire, RECORDS_STDOUT, id, n, 0);
        text_append(wire, document.data + at, n);
        at += n;
    }
    text_free(&document);
}

void
edge_write_render(const struct reply *reply, const char *request_id,
                  uint16_t id, bool head_only, struct text *wire)
{
    size_t content;

    text_reset(wire);
    put_head(wire, RECORDS_STDOUT, id, 0, 0); /* its length comes later */
    put_document(wire, reply, request_id, head_only);
    if (text_failed(wire) || text_failed(&reply->body) ||
        text_failed(&reply->headers)) {
        wire->failed = true;
        return;
    }
    content = wire->bytes - RECORDS_HEAD_BYTES;
    if (content <= RECORDS_CONTENT_MAX) {
        records_head((uint8_t *)wire->data, RECORDS_STDOUT, id, content, 0);
    } else {
        cut_records(wire, id);
    }
    put_end(wire, id);
}

enum rc
edge_write_now(int fd, const struct text *wire, size_t *sent)
{
    while (*sent < wire->bytes) {
        ssize_t n = send(fd, wire->data + *sent, wire->bytes - *sent,
                         MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n >= 0) {
            *sent += (size_t)n;
        } else if (errno == EAGAIN) {
            return RC_AGAIN;
        } else if (errno != EINTR) {
            return RC_IO;
        }
    }
    return RC_OK;
}

enum rc
edge_write_wait(int fd, const struct text *wire, size_t *sent,
                int64_t deadline_ms)
{
    for (;;) {
        enum rc rc = edge_write_now(fd, wire, sent);
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        int64_t left_ms = deadline_ms - clock_now_ms();

        if (rc != RC_AGAIN) {
            return rc;
        }
        if (left_ms <= 0) {
            return RC_TIMEOUT;
        }
        (void)poll(&p, 1, (int)left_ms);
    }
}

void
edge_write_unknown_role(int fd, uint16_t id)
{
    uint8_t end[RECORDS_HEAD_BYTES + 8] = {0};

    records_head(end, RECORDS_END_REQUEST, id, 8, 0);
    end[RECORDS_HEAD_BYTES + 4] = STATUS_UNKNOWN_ROLE;
    /* The peer broke the rules; whether it hears so is its own affair. */
    (void)!send(fd, end, sizeof(end), MSG_DONTWAIT | MSG_NOSIGNAL);
}
