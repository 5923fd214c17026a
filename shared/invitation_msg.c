/* The invitation service's message: decode a client's body, JSON or a form,
 * and the form that the journal and the push frames carry. */
#include "shared/invitation_msg.h"

#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "shared/json.h"
#include "shared/words.h"

#define TAPE_TOKENS 64U
/* More than an address has, for the blanks around it. */
#define TYPED_BYTES 1024U
#define FORM_FIELD "email"

enum { FIELD_EMAIL, FIELD_COUNT };

static const struct field request_fields[FIELD_COUNT] = {
    [FIELD_EMAIL] =
        {
            .name = INVITATION_EMAIL_FIELD,
            .type = JSON_STRING,
            .required = true,
        },
};

static const char typed_too_long[] =
    "The address is too long (at most 254 bytes).";

bool
invitation_code_valid(const char *code)
{
    size_t count = strspn(code, "abcdefghijklmnopqrstuvwxyz0123456789-");

    return count > 0 && count <= INVITATION_CODE_MAX_BYTES &&
           code[count] == '\0';
}

/* ---- requests ---------------------------------------------------------------
 */

/* Both forms begin alike. False: the code is none. */
static bool
begin(const char *code, struct invitation_msg *out, struct field_errors *errors)
{
    memset(out, 0, sizeof(*out));
    errors->count = 0;
    if (!invitation_code_valid(code)) {
        field_errors_add(errors, "code", "must be 1 to %d of a-z 0-9 -",
                         INVITATION_CODE_MAX_BYTES);
        return false;
    }
    return true;
}

/* Both end alike. *out is still empty. */
static enum rc
finish(const char *code, const char *typed, size_t bytes,
       struct invitation_msg *out, struct field_errors *errors)
{
    struct address address;
    const char *why;
    enum rc rc = address_parse(typed, bytes, false, &address, &why);

    if (rc == RC_INVALID) {
        field_errors_add(errors, INVITATION_EMAIL_FIELD, "%s", why);
    } else if (rc == RC_OK) {
        memcpy(out->code, code, strlen(code) + 1);
        memcpy(out->email, address.text, sizeof(out->email));
    }
    return rc;
}

enum rc
invitation_msg_from_request(const char *code, const char *body, size_t bytes,
                            struct invitation_msg *out,
                            struct field_errors *errors)
{
    struct json_token tokens[TAPE_TOKENS];
    uint32_t values[FIELD_COUNT];
    struct json json;
    char typed[TYPED_BYTES];
    size_t typed_bytes = 0;
    enum rc rc;

    if (!begin(code, out, errors)) {
        return RC_INVALID;
    }
    rc = fields_scan(body, bytes, tokens, TAPE_TOKENS, &json, errors);
    if (rc == RC_OK) {
        rc = fields_read(&json, request_fields, FIELD_COUNT, values, errors);
    }
    if (rc != RC_OK) {
        return rc;
    }
    rc = json_string(&json, values[FIELD_EMAIL], typed, sizeof(typed),
                     &typed_bytes);
    if (rc != RC_OK) {
        field_errors_add(errors, INVITATION_EMAIL_FIELD, "%s", typed_too_long);
        return RC_INVALID;
    }
    return finish(code, typed, typed_bytes, out, errors);
}

/* ---- the form ---------------------------------------------------------------
 */

struct part {
    const char *data;
    size_t bytes;
};

/* One name or value of a form, decoded. */
struct decoded {
    char data[TYPED_BYTES];
    size_t bytes;
    bool too_long; /* bytes is what fitted */
};

/* A name ends with '=' or '&', a value with '&' only. */
static bool
ends(char c, bool name)
{
    return c == '&' || (name && c == '=');
}

/* Decode a name or a value up to its end. *at is moved there. False: at *at
 * something is not encoded as it must be. */
static bool
decode(const struct part *body, size_t *at, bool name, struct decoded *out)
{
    const char *data = body->data;
    size_t bytes = body->bytes;

    out->bytes = 0;
    out->too_long = false;
    while (*at < bytes && !ends(data[*at], name)) {
        char c = data[*at];

        if (c <= ' ' || c > '~') {
            return false;
        }
        if (c == '+') {
            c = ' ';
        } else if (c == '%') {
            int high = *at + 1 < bytes ? text_hex_value(data[*at + 1]) : -1;
            int low = *at + 2 < bytes ? text_hex_value(data[*at + 2]) : -1;

            if (high < 0 || low < 0) {
                return false;
            }
            c = (char)(high * 16 + low);
            *at += 2;
        }
        *at += 1;
        if (out->bytes < sizeof(out->data)) {
            out->data[out->bytes] = c;
            out->bytes++;
        } else {
            out->too_long = true;
        }
    }
    return true;
}

static bool
is_email(const struct decoded *name)
{
    return name->bytes == strlen(FORM_FIELD) &&
           strncasecmp(name->data, FORM_FIELD, name->bytes) == 0;
}

/* Find the address among the fields. False: errors say why there is none. */
static bool
read_form(const struct part *body, struct decoded *email,
          struct field_errors *errors)
{
    struct decoded name;
    struct decoded value;
    unsigned count = 0;
    bool encoded = true;
    size_t at = 0;

    while (encoded && at < body->bytes) {
        value.bytes = 0;
        value.too_long = false;
        encoded = decode(body, &at, true, &name);
        if (encoded && at < body->bytes && body->data[at] == '=') {
            at++;
            encoded = decode(body, &at, false, &value);
        }
        if (encoded && is_email(&name)) {
            *email = value;
            count++;
        }
        at += encoded ? 1 : 0;
    }
    if (!encoded) {
        field_errors_add(errors, "", "not valid form data at byte %u",
                         (unsigned)at);
    } else if (count == 0) {
        field_errors_add(errors, INVITATION_EMAIL_FIELD, "is missing");
    } else if (count > 1) {
        field_errors_add(errors, INVITATION_EMAIL_FIELD,
                         "appears more than once");
    }
    return encoded && count == 1;
}

enum rc
invitation_msg_from_form(const char *code, const char *body, size_t bytes,
                         struct invitation_msg *out,
                         struct field_errors *errors)
{
    const struct part whole = {body, bytes};
    struct decoded email;

    email.bytes = 0;
    email.too_long = false;
    if (!begin(code, out, errors) || !read_form(&whole, &email, errors)) {
        return RC_INVALID;
    }
    if (email.too_long) {
        field_errors_add(errors, INVITATION_EMAIL_FIELD, "%s", typed_too_long);
        return RC_INVALID;
    }
    return finish(code, email.data, email.bytes, out, errors);
}

/* ---- the journal's form -----------------------------------------------------
 */

void
invitation_msg_encode(const struct invitation_msg *msg, struct text *out)
{
    text_puts(out, msg->code);
    text_putc(out, ' ');
    text_puts(out, msg->email);
}

enum rc
invitation_msg_decode(const char *body, size_t bytes,
                      struct invitation_msg *out)
{
    struct words w = {body, body + bytes};
    struct address address;
    const char *why;
    enum rc rc = RC_INVALID;

    memset(out, 0, sizeof(*out));
    if (bytes > 0 && words_take(&w, out->code, sizeof(out->code)) &&
        invitation_code_valid(out->code)) {
        size_t left = (size_t)(w.end - w.at);

        rc = address_parse(w.at, left, false, &address, &why);
        if (rc == RC_OK && strlen(address.text) != left) {
            rc = RC_INVALID; /* blanks around it */
        }
    }
    if (rc != RC_OK) {
        memset(out, 0, sizeof(*out));
        return rc;
    }
    memcpy(out->email, address.text, sizeof(out->email));
    return RC_OK;
}
