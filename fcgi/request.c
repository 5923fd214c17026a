/* Request targets, query parameters, media types and the two headers that a
 * client chooses freely. */
#include "fcgi/request.h"

#include <string.h>
#include <strings.h>

#include "shared/text.h"

#define KEY_BYTES_MAX 255U
#define FORM_TYPE "application/x-www-form-urlencoded"

/* Percent-decode bytes of in. What decodes to a control character is refused,
 * so that a path or value is a C string that can be logged. */
static enum rc
decode(const char *in, size_t bytes, bool plus_is_blank, char *out, size_t size)
{
    size_t used = 0;

    for (size_t k = 0; k < bytes; k++) {
        int c = (unsigned char)in[k];

        if (c == '%') {
            int high = k + 2 < bytes ? text_hex_value(in[k + 1]) : -1;
            int low = high >= 0 ? text_hex_value(in[k + 2]) : -1;

            if (low < 0) {
                return RC_INVALID;
            }
            c = high * 16 + low;
            k += 2;
        } else if (c == '+' && plus_is_blank) {
            c = ' ';
        }
        if (c < 0x20 || c == 0x7f) {
            return RC_INVALID;
        }
        if (used + 1 >= size) {
            return RC_FULL;
        }
        out[used++] = (char)c;
    }
    out[used] = '\0';
    return RC_OK;
}

/* The path of an absolute-form target begins behind the authority. */
static const char *
skip_authority(const char *uri)
{
    size_t scheme = 0;

    if (strncasecmp(uri, "http://", 7) == 0) {
        scheme = 7;
    } else if (strncasecmp(uri, "https://", 8) == 0) {
        scheme = 8;
    } else {
        return uri;
    }
    return uri + scheme + strcspn(uri + scheme, "/?#");
}

enum rc
request_path(const char *uri, char *out, size_t size, const char **query)
{
    const char *path = skip_authority(uri);
    size_t bytes = strcspn(path, "?#");
    enum rc rc;

    *query = path[bytes] == '?' ? path + bytes + 1 : "";
    out[0] = '\0';
    if (*path != '/') {
        return RC_INVALID;
    }
    rc = decode(path, bytes, false, out, size);
    if (rc != RC_OK) {
        out[0] = '\0';
    }
    return rc;
}

enum rc
request_query(const struct request *r, const char *name, char *out, size_t size)
{
    const char *at = r->query;
    size_t name_bytes = strlen(name);
    enum rc rc = RC_AGAIN;

    out[0] = '\0';
    while (*at != '\0') {
        size_t bytes = strcspn(at, "&");

        if (bytes > name_bytes && at[name_bytes] == '=' &&
            memcmp(at, name, name_bytes) == 0) {
            if (rc != RC_AGAIN) {
                out[0] = '\0';
                return RC_INVALID;
            }
            rc = decode(at + name_bytes + 1, bytes - name_bytes - 1, true, out,
                        size);
            if (rc != RC_OK) {
                out[0] = '\0';
                return RC_INVALID;
            }
        }
        at += bytes + (at[bytes] == '&');
    }
    return rc;
}

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* Does the media type (without its parameters) equal name? *parameters =
 * what stands behind it. */
static bool
type_is(const char *type, const char *name, const char **parameters)
{
    size_t bytes = strlen(name);

    while (is_blank(*type)) {
        type++;
    }
    if (strncasecmp(type, name, bytes) != 0) {
        return false;
    }
    type += bytes;
    while (is_blank(*type)) {
        type++;
    }
    *parameters = type;
    return *type == '\0' || *type == ';';
}

/* A charset parameter, if there is one, must say UTF-8. */
static bool
charset_is_utf8(const char *parameters)
{
    const char *value = strcasestr(parameters, "charset=");
    size_t bytes;

    if (value == NULL) {
        return true;
    }
    value += sizeof("charset=") - 1;
    value += *value == '"';
    bytes = strcspn(value, "\"; \t");
    return bytes == 5 && strncasecmp(value, "utf-8", bytes) == 0;
}

bool
request_is_json(const struct request *r)
{
    const char *parameters = "";

    if (r->content_type[0] == '\0') {
        return true;
    }
    if (type_is(r->content_type, "application/json", &parameters)) {
        return charset_is_utf8(parameters);
    }
    if (type_is(r->content_type, FORM_TYPE, &parameters)) {
        size_t blanks = strspn(r->body, " \t\r\n");

        return r->body[blanks] == '{' || blanks == r->body_bytes;
    }
    return false;
}

bool
request_is_form(const struct request *r)
{
    const char *parameters = "";

    return type_is(r->content_type, FORM_TYPE, &parameters) &&
           charset_is_utf8(parameters) &&
           r->body[strspn(r->body, " \t\r\n")] != '{';
}

/* Thousandths of the q parameter among those of one range; 1000: none. */
static int
quality(const char *parameters, size_t bytes)
{
    const char *end = parameters + bytes;
    int value = 0;

    for (const char *at = memchr(parameters, ';', bytes); at != NULL;
         at = memchr(at, ';', (size_t)(end - at))) {
        at++;
        at += strspn(at, " \t");
        if (strncasecmp(at, "q=", 2) != 0) {
            continue;
        }
        at += 2;
        if (*at == '1') {
            return 1000;
        }
        at += *at == '0';
        at += *at == '.';
        for (int unit = 100; unit > 0 && *at >= '0' && *at <= '9'; unit /= 10) {
            value += (*at - '0') * unit;
            at++;
        }
        return value;
    }
    return 1000;
}

/* Thousandths by which an Accept header wants a type: those of the range that
 * says most about it (itself, its kind, all of them); 0: of none. */
static int
wanted(const char *accept, const char *type)
{
    size_t major = strcspn(type, "/") + 1;
    size_t best = 0; /* bytes that match, and one for the range of all */
    int found = 0;

    while (*accept != '\0') {
        size_t blanks = strspn(accept, " \t,");
        const char *range = accept + blanks;
        size_t bytes = strcspn(range, ",");
        size_t name = strcspn(range, ",; \t");
        size_t match = 0;

        if (name == strlen(type) && strncasecmp(range, type, name) == 0) {
            match = name + 1;
        } else if (name == major + 1 && range[major] == '*' &&
                   strncasecmp(range, type, major) == 0) {
            match = major + 1;
        } else if (name == 3 && strncmp(range, "*/*", 3) == 0) {
            match = 1;
        }
        if (match > best) {
            best = match;
            found = quality(range, bytes);
        }
        accept = range + bytes;
    }
    return found;
}

bool
request_prefers_html(const struct request *r)
{
    int html = wanted(r->accept, "text/html");

    return html > wanted(r->accept, "application/json") &&
           html > wanted(r->accept, "application/problem+json");
}

bool
request_key_is_valid(const char *key)
{
    size_t bytes = 0;

    while (key[bytes] > 0x20 && key[bytes] < 0x7f) {
        bytes++;
    }
    return key[bytes] == '\0' && bytes >= 1 && bytes <= KEY_BYTES_MAX;
}

bool
request_id_is_valid(const char *id)
{
    size_t bytes = strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                              "abcdefghijklmnopqrstuvwxyz0123456789._-");

    return id[bytes] == '\0' && bytes >= 1 && bytes < REQUEST_ID_BYTES;
}
