/* Members of a request's object by a const table. */
#include "shared/fields.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void
field_errors_add(struct field_errors *errors, const char *field,
                 const char *format, ...)
{
    struct field_error *error;
    va_list args;

    if (errors->count >= FIELD_ERRORS_MAX) {
        return;
    }
    error = &errors->list[errors->count++];
    (void)snprintf(error->field, sizeof(error->field), "%s", field);
    va_start(args, format);
    (void)vsnprintf(error->reason, sizeof(error->reason), format, args);
    va_end(args);
}

static const char *
type_phrase(enum json_type type)
{
    switch (type) {
    case JSON_NULL:
        return "null";
    case JSON_FALSE:
    case JSON_TRUE:
        return "true or false";
    case JSON_NUMBER:
        return "a number";
    case JSON_STRING:
        return "a string";
    case JSON_ARRAY:
        return "an array";
    case JSON_OBJECT:
        return "an object";
    }
    return "something else";
}

static bool
has_type(const struct json *json, uint32_t i, enum json_type wanted)
{
    enum json_type type = (enum json_type)json->tokens[i].type;

    if (wanted == JSON_TRUE || wanted == JSON_FALSE) {
        return type == JSON_TRUE || type == JSON_FALSE;
    }
    return type == wanted;
}

/* Index of the field that the member's name means; count: none. */
static unsigned
find_field(const struct json *json, uint32_t key, const struct field *table,
           unsigned count)
{
    unsigned k = 0;

    while (
        k < count && !json_key_is(json, key, table[k].name) &&
        (table[k].alias == NULL || !json_key_is(json, key, table[k].alias))) {
        k++;
    }
    return k;
}

/* False when a member appears twice. */
static bool
collect(const struct json *json, const struct field *table, unsigned count,
        uint32_t *values, struct field_errors *errors)
{
    uint32_t key = 1;
    bool once = true;

    while (key < json->tokens[0].next) {
        unsigned k = find_field(json, key, table, count);

        if (k < count && values[k] != 0) {
            field_errors_add(errors, table[k].name, "appears more than once");
            once = false;
        } else if (k < count) {
            values[k] = key + 1;
        }
        key = json->tokens[key + 1].next;
    }
    return once;
}

enum rc
fields_scan(const char *body, size_t bytes, struct json_token *tokens,
            uint32_t max_tokens, struct json *json, struct field_errors *errors)
{
    enum rc rc;

    if (bytes == 0) {
        field_errors_add(errors, "", "the body is empty");
        return RC_INVALID;
    }
    rc = json_scan(body, bytes, tokens, max_tokens, json);
    if (rc == RC_FULL) {
        field_errors_add(errors, "", "at most %u values, these are more",
                         (unsigned)max_tokens);
    } else if (rc != RC_OK) {
        field_errors_add(errors, "", "not valid JSON: %s at byte %u",
                         json->error, (unsigned)json->error_at);
    }
    return rc == RC_OK ? RC_OK : RC_INVALID;
}

enum rc
fields_read(const struct json *json, const struct field *table, unsigned count,
            uint32_t *values, struct field_errors *errors)
{
    bool failed;

    memset(values, 0, count * sizeof(*values));
    if (json->tokens[0].type != JSON_OBJECT) {
        field_errors_add(errors, "", "the body must be a JSON object");
        return RC_INVALID;
    }
    failed = !collect(json, table, count, values, errors);
    for (unsigned k = 0; k < count; k++) {
        if (values[k] == 0) {
            if (table[k].required) {
                field_errors_add(errors, table[k].name, "is missing");
                failed = true;
            }
        } else if (!has_type(json, values[k], table[k].type)) {
            field_errors_add(errors, table[k].name, "must be %s",
                             type_phrase(table[k].type));
            failed = true;
        }
    }
    if (failed) {
        memset(values, 0, count * sizeof(*values));
        return RC_INVALID;
    }
    return RC_OK;
}
