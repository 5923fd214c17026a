/* Replies and RFC 9457 problem documents. */
#include "fcgi/reply.h"

#include <stddef.h>
#include <string.h>

#define PROBLEM_TYPE "application/problem+json"

struct title {
    int status;
    const char *text;
};

static const struct title titles[] = {
    {200, "OK"},
    {202, "Accepted"},
    {204, "No Content"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {411, "Length Required"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {422, "Unprocessable Content"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {503, "Service Unavailable"},
};

const char *
reply_title(int status)
{
    for (size_t k = 0; k < ARRAY_COUNT(titles); k++) {
        if (titles[k].status == status) {
            return titles[k].text;
        }
    }
    return "Unknown";
}

void
reply_reset(struct reply *r)
{
    r->status = 0;
    r->content_type = "application/json";
    text_reset(&r->headers);
    text_reset(&r->body);
}

void
reply_free(struct reply *r)
{
    text_free(&r->headers);
    text_free(&r->body);
    r->status = 0;
    r->content_type = NULL;
}

void
reply_header(struct reply *r, const char *name, const char *value)
{
    text_puts(&r->headers, name);
    text_append(&r->headers, ": ", 2);
    text_puts(&r->headers, value);
    text_append(&r->headers, "\r\n", 2);
}

static void
append_string(struct text *out, const char *string)
{
    text_json_string(out, string, strlen(string));
}

static void
append_errors(struct text *out, const struct field_errors *errors)
{
    text_puts(out, ",\"errors\":[");
    for (unsigned k = 0; k < errors->count; k++) {
        text_puts(out, k == 0 ? "{\"field\":" : ",{\"field\":");
        append_string(out, errors->list[k].field);
        text_puts(out, ",\"reason\":");
        append_string(out, errors->list[k].reason);
        text_putc(out, '}');
    }
    text_putc(out, ']');
}

void
reply_problem(struct reply *r, int status, const char *code, const char *detail,
              const struct field_errors *errors)
{
    reply_reset(r);
    r->status = status;
    r->content_type = PROBLEM_TYPE;
    text_puts(&r->body, "{\"type\":\"about:blank\",\"title\":");
    append_string(&r->body, reply_title(status));
    text_puts(&r->body, ",\"status\":");
    text_int(&r->body, status);
    text_puts(&r->body, ",\"code\":");
    append_string(&r->body, code);
    text_puts(&r->body, ",\"detail\":");
    append_string(&r->body, detail);
    if (errors != NULL && errors->count > 0) {
        append_errors(&r->body, errors);
    }
    text_putc(&r->body, '}');
}

bool
reply_is_problem(const struct reply *r)
{
    return r->body.bytes > 0 && strcmp(r->content_type, PROBLEM_TYPE) == 0;
}

void
reply_unavailable(struct reply *r, const char *code, const char *detail,
                  int retry_after_s)
{
    reply_problem(r, 503, code, detail, NULL);
    text_puts(&r->headers, "Retry-After: ");
    text_int(&r->headers, retry_after_s < 1 ? 1 : retry_after_s);
    text_append(&r->headers, "\r\n", 2);
}
