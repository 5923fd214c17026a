/* Members of a request's JSON object by a const table: which are known, which
 * are required, of which type. Names match without regard to case, a member
 * twice is an error, unknown members are ignored. What is wrong is collected
 * in field errors as they appear in the problem document. */
#ifndef SLUICE_SHARED_FIELDS_H
#define SLUICE_SHARED_FIELDS_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/json.h"
#include "shared/rc.h"

#define FIELD_ERRORS_MAX 8
#define FIELD_NAME_BYTES 64
#define FIELD_REASON_BYTES 128

struct field_error {
    char field[FIELD_NAME_BYTES]; /* "object_ids[3]"; "" = the whole body */
    char reason[FIELD_REASON_BYTES];
};

struct field_errors {
    unsigned count; /* at most FIELD_ERRORS_MAX; further ones are dropped */
    struct field_error list[FIELD_ERRORS_MAX];
};

struct field {
    const char *name;    /* as documented: "object_ids" */
    const char *alias;   /* second accepted name or NULL */
    enum json_type type; /* JSON_TRUE means either boolean */
    bool required;
};

/* Add an error; reason is a printf format. Any thread. */
void field_errors_add(struct field_errors *errors, const char *field,
                      const char *format, ...) PRINTF_LIKE(3, 4);

/* json_scan() of a request's body; RC_INVALID: errors say why, also that it is
 * empty or holds more than max_tokens values. Any thread. */
enum rc fields_scan(const char *body, size_t bytes, struct json_token *tokens,
                    uint32_t max_tokens, struct json *json,
                    struct field_errors *errors) MUST_CHECK;

/* Look up every field of the table (count entries) in the scanned document,
 * whose root must be an object. values[k] = token index of field k, 0 when it
 * is absent and not required. RC_INVALID: errors filled. Any thread. */
enum rc fields_read(const struct json *json, const struct field *table,
                    unsigned count, uint32_t *values,
                    struct field_errors *errors) MUST_CHECK;

#endif
