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
