/* The SMS service's message: decode a client's body, and the form that the
 * journal and the push frames carry. */
#include "shared/sms_msg.h"

#include <stdbool.h>
#include <string.h>

#include "shared/json.h"

#define TAPE_TOKENS 64U
#define PHONE_DIGITS_MIN 3U
#define PHONE_DIGITS_MAX 15U

enum { FIELD_PHONE, FIELD_CONTENT, FIELD_COUNT };

static const struct field request_fields[FIELD_COUNT] = {
    [FIELD_PHONE] =
        {
            .name = "phone_number",
            .alias = "PhoneNumber",
            .type = JSON_STRING,
            .required = true,
        },
    [FIELD_CONTENT] =
        {
            .name = "content",
            .type = JSON_STRING,
            .required = true,
        },
};

static bool
phone_valid(const char *phone)
{
    size_t count;

    phone += phone[0] == '+' ? 1 : 0;
    count = strspn(phone, "0123456789");
    return phone[count] == '\0' && count >= PHONE_DIGITS_MIN &&
           count <= PHONE_DIGITS_MAX;
}

/* Of UTF-8: code points. False: it is not well-formed, or holds a NUL. */
static bool
content_valid(const char *content, size_t bytes)
{
    size_t chars = 0;
    size_t at = 0;

    while (at < bytes) {
        size_t length = text_utf8_length(content + at, bytes - at);

        if (length == 0 || content[at] == '\0') {
            return false;
        }
        at += length;
        chars++;
    }
    return chars >= 1 && chars <= SMS_CONTENT_CHARS_MAX;
}

static void
clear(struct sms_msg *out)
{
    out->phone[0] = '\0';
    out->content[0] = '\0';
    out->content_bytes = 0;
}

static void
read_phone(const struct json *json, uint32_t token, struct sms_msg *out,
           struct field_errors *errors)
{
    size_t bytes = 0;

    if (json_string(json, token, out->phone, sizeof(out->phone), &bytes) !=
            RC_OK ||
        !phone_valid(out->phone)) {
        field_errors_add(errors, "phone_number",
                         "must be %u to %u digits, with or without a + before "
                         "them",
                         PHONE_DIGITS_MIN, PHONE_DIGITS_MAX);
    }
}

static void
read_content(const struct json *json, uint32_t token, struct sms_msg *out,
             struct field_errors *errors)
{
    if (json_string(json, token, out->content, sizeof(out->content),
                    &out->content_bytes) != RC_OK ||
        !content_valid(out->content, out->content_bytes)) {
        field_errors_add(errors, "content", "must be 1 to %d characters",
                         SMS_CONTENT_CHARS_MAX);
    }
}

enum rc
sms_msg_from_request(const char *body, size_t bytes, struct sms_msg *out,
                     struct field_errors *errors)
{
    struct json_token tokens[TAPE_TOKENS];
    uint32_t values[FIELD_COUNT];
    struct json json;

    clear(out);
    errors->count = 0;
    if (fields_scan(body, bytes, tokens, TAPE_TOKENS, &json, errors) != RC_OK ||
        fields_read(&json, request_fields, FIELD_COUNT, values, errors) !=
            RC_OK) {
        return RC_INVALID;
    }
    read_phone(&json, values[FIELD_PHONE], out, errors);
    read_content(&json, values[FIELD_CONTENT], out, errors);
    if (errors->count > 0) {
        clear(out);
        return RC_INVALID;
    }
    return RC_OK;
}

void
sms_msg_encode(const struct sms_msg *msg, struct text *out)
{
    text_puts(out, msg->phone);
    text_putc(out, ' ');
    text_append(out, msg->content, msg->content_bytes);
}

static bool
decode(const char *body, size_t bytes, struct sms_msg *out)
{
    const char *blank = bytes > 0 ? memchr(body, ' ', bytes) : NULL;
    size_t phone_bytes = blank != NULL ? (size_t)(blank - body) : 0;
    size_t content_bytes = blank != NULL ? bytes - phone_bytes - 1 : 0;

    if (blank == NULL || phone_bytes >= sizeof(out->phone) ||
        content_bytes >= sizeof(out->content) ||
        memchr(body, '\0', phone_bytes) != NULL) {
        return false;
    }
    memcpy(out->phone, body, phone_bytes);
    out->phone[phone_bytes] = '\0';
    memcpy(out->content, blank + 1, content_bytes);
    out->content[content_bytes] = '\0';
    out->content_bytes = content_bytes;
    return phone_valid(out->phone) &&
           content_valid(out->content, content_bytes);
}

enum rc
sms_msg_decode(const char *body, size_t bytes, struct sms_msg *out)
{
    clear(out);
    if (!decode(body, bytes, out)) {
        clear(out);
        return RC_INVALID;
    }
    return RC_OK;
}
