/* The call service's message: decode a client's body, and the forms that the
 * journal and the push frames carry. */
#include "shared/call_msg.h"

#include <stdbool.h>
#include <string.h>

#include "shared/json.h"
#include "shared/words.h"

#define TAPE_TOKENS 64U
#define PHONE_DIGITS_MIN 7U
#define PHONE_DIGITS_MAX 15U

static const char digits[] = "0123456789";
static const char agent_chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz0123456789_-";

enum { FIELD_PHONE, FIELD_AGENT, FIELD_COUNT };

static const struct field request_fields[FIELD_COUNT] = {
    [FIELD_PHONE] =
        {
            .name = "phone_number",
            .type = JSON_STRING,
            .required = true,
        },
    [FIELD_AGENT] =
        {
            .name = "virtual_agent_id",
            .type = JSON_STRING,
            .required = true,
        },
};

static const char *const state_names[CALL_STATES] = {
    [CALL_QUEUED] = "QUEUED",     [CALL_DIALING] = "DIALING",
    [CALL_ANSWERED] = "ANSWERED", [CALL_FAILED] = "FAILED",
    [CALL_UNKNOWN] = "UNKNOWN",   [CALL_CANCELED] = "CANCELED",
};

const char *
call_state_name(enum call_state state)
{
    return (unsigned)state < CALL_STATES ? state_names[state]
                                         : state_names[CALL_UNKNOWN];
}

/* E.164: the sources are ITU-T E.164 (11/2010) sections 6.2 and 7: at most 15
 * digits, and no country code begins with 0. */
static bool
phone_valid(const char *phone)
{
    size_t count;

    if (phone[0] != '+' || phone[1] == '0') {
        return false;
    }
    count = strspn(phone + 1, digits);
    return phone[1 + count] == '\0' && count >= PHONE_DIGITS_MIN &&
           count <= PHONE_DIGITS_MAX;
}

static bool
agent_valid(const char *agent)
{
    size_t count = strspn(agent, agent_chars);

    return count > 0 && agent[count] == '\0';
}

/* Does the number begin with one of the prefixes? */
static bool
country_allowed(const char *phone, const char *countries)
{
    const char *at = countries + strspn(countries, ", ");

    if (*at == '\0') {
        return true;
    }
    while (*at != '\0') {
        size_t bytes = strcspn(at, ", ");

        if (strncmp(phone, at, bytes) == 0) {
            return true;
        }
        at += bytes;
        at += strspn(at, ", ");
    }
    return false;
}

static void
read_phone(const struct json *json, uint32_t token, const char *countries,
           struct call_msg *out, struct field_errors *errors)
{
    size_t bytes = 0;

    if (json_string(json, token, out->phone, sizeof(out->phone), &bytes) !=
            RC_OK ||
        bytes != strlen(out->phone) || !phone_valid(out->phone)) {
        field_errors_add(errors, "phone_number",
                         "must be a number in E.164 form: +, country code, %u "
                         "to %u digits in all",
                         PHONE_DIGITS_MIN, PHONE_DIGITS_MAX);
    } else if (!country_allowed(out->phone, countries)) {
        field_errors_add(errors, "phone_number",
                         "this country is not called (call.allow_countries)");
    }
}

static void
read_agent(const struct json *json, uint32_t token, struct call_msg *out,
           struct field_errors *errors)
{
    size_t bytes = 0;

    if (json_string(json, token, out->agent, sizeof(out->agent), &bytes) !=
            RC_OK ||
        bytes != strlen(out->agent) || !agent_valid(out->agent)) {
        field_errors_add(errors, "virtual_agent_id",
                         "must be 1 to %d characters of A-Z a-z 0-9 _ -",
                         CALL_AGENT_BYTES - 1);
    }
}

enum rc
call_msg_from_request(const char *body, size_t bytes, const char *countries,
                      struct call_msg *out, struct field_errors *errors)
{
    struct json_token tokens[TAPE_TOKENS];
    uint32_t values[FIELD_COUNT];
    struct json json;
    enum rc rc;

    memset(out, 0, sizeof(*out));
    errors->count = 0;
    rc = fields_scan(body, bytes, tokens, TAPE_TOKENS, &json, errors);
    if (rc == RC_OK) {
        rc = fields_read(&json, request_fields, FIELD_COUNT, values, errors);
    }
    if (rc != RC_OK) {
        return rc;
    }
    read_phone(&json, values[FIELD_PHONE], countries, out, errors);
    read_agent(&json, values[FIELD_AGENT], out, errors);
    return errors->count == 0 ? RC_OK : RC_INVALID;
}

void
call_msg_encode(const struct call_msg *msg, struct text *out)
{
    text_puts(out, msg->phone);
    text_putc(out, ' ');
    text_puts(out, msg->agent);
}

/* ---- the journal's forms ----------------------------------------------------
 */

static bool
take_msg(struct words *w, struct call_msg *out)
{
    return words_take(w, out->phone, sizeof(out->phone)) &&
           phone_valid(out->phone) &&
           words_take(w, out->agent, sizeof(out->agent)) &&
           agent_valid(out->agent);
}

enum rc
call_msg_decode(const char *body, size_t bytes, struct call_msg *out)
{
    struct words w = {body, body + bytes};

    memset(out, 0, sizeof(*out));
    if (bytes == 0 || body[bytes - 1] == ' ' || !take_msg(&w, out) ||
        w.at != w.end) {
        memset(out, 0, sizeof(*out));
        return RC_INVALID;
    }
    return RC_OK;
}

void
call_outcome_encode(const struct call_outcome *o, struct text *out)
{
    const int64_t numbers[] = {o->seq,
                               (int64_t)o->state,
                               o->attempts,
                               o->created_unix_ms,
                               o->dialed_unix_ms,
                               o->finished_unix_ms};
    char id[UUID_TEXT_BYTES];

    for (size_t k = 0; k < ARRAY_COUNT(numbers); k++) {
        text_int(out, numbers[k]);
        text_putc(out, ' ');
    }
    text_puts(out, uuid_format(&o->id, id));
    text_putc(out, ' ');
    call_msg_encode(&o->msg, out);
    text_putc(out, ' ');
    text_puts(out, o->error);
}

static bool
decode_outcome(struct words *w, struct call_outcome *out)
{
    char id[UUID_TEXT_BYTES];
    int64_t state = 0;
    size_t left;

    if (!words_number(w, &out->seq) || !words_number(w, &state) ||
        !words_number(w, &out->attempts) ||
        !words_number(w, &out->created_unix_ms) ||
        !words_number(w, &out->dialed_unix_ms) ||
        !words_number(w, &out->finished_unix_ms) ||
        !words_take(w, id, sizeof(id)) || uuid_parse(id, &out->id) != RC_OK ||
        !take_msg(w, &out->msg)) {
        return false;
    }
    left = (size_t)(w->end - w->at);
    if (state < CALL_ANSWERED || state >= CALL_STATES || w->at[-1] != ' ' ||
        left >= sizeof(out->error) || !json_utf8_valid(w->at, left) ||
        (left > 0 && memchr(w->at, '\0', left) != NULL)) {
        return false;
    }
    out->state = (enum call_state)state;
    memcpy(out->error, w->at, left);
    out->error[left] = '\0';
    return true;
}

enum rc
call_outcome_decode(const char *body, size_t bytes, struct call_outcome *out)
{
    struct words w = {body, body + bytes};

    memset(out, 0, sizeof(*out));
    if (!decode_outcome(&w, out)) {
        memset(out, 0, sizeof(*out));
        return RC_INVALID;
    }
    return RC_OK;
}
