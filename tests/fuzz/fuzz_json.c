/* The JSON scan: whatever the bytes, the tape is well formed, strings decode
 * to valid UTF-8 without U+0000, and the size of the tape changes nothing. */
#include "shared/json.h"

#include <string.h>

#include "tests/fuzz/replay.h"

static void
check_string(const struct json *json, uint32_t i)
{
    size_t size = json->tokens[i].bytes + (size_t)1;
    char *out = malloc(size);
    size_t bytes;

    MUST(out != NULL);
    /* An escape is never shorter than what it stands for. */
    MUST(json_string(json, i, out, size, &bytes) == RC_OK);
    MUST(bytes < size && strlen(out) == bytes);
    MUST(json_utf8_valid(out, bytes));
    MUST(json->tokens[i].escaped || bytes == json->tokens[i].bytes);
    free(out);
}

/* Token i and all in it; returns its next. */
static uint32_t
check_value(const struct json *json, uint32_t i, size_t end, unsigned depth)
{
    const struct json_token *token = &json->tokens[i];
    uint32_t child = i + 1;
    int64_t number;

    MUST(depth <= JSON_MAX_DEPTH + 1);
    MUST(token->next > i && token->next <= json->count);
    MUST(token->start + (size_t)token->bytes <= end);
    if (json_uint53(json, i, &number) == RC_OK) {
        MUST(token->type == JSON_NUMBER);
        MUST(number >= 0 && number <= JSON_MAX_SAFE_INTEGER);
    }
    if (token->type == JSON_STRING) {
        check_string(json, i);
    }
    if (token->type == JSON_OBJECT) {
        (void)json_member(json, i, "object_ids");
    }
    if (token->type != JSON_OBJECT && token->type != JSON_ARRAY) {
        MUST(token->next == i + 1);
        return token->next;
    }
    while (child < token->next) {
        if (token->type == JSON_OBJECT) {
            MUST(json->tokens[child].type == JSON_STRING);
            child = check_value(json, child, end, depth + 1);
            MUST(child < token->next);
        }
        MUST(json->tokens[child].start >= token->start);
        child = check_value(json, child, token->start + (size_t)token->bytes,
                            depth + 1);
    }
    MUST(child == token->next);
    return child;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const char *text = (const char *)data;
    uint32_t room = (uint32_t)bytes + 1;
    struct json_token *tokens = malloc(room * sizeof(*tokens));
    struct json json;
    enum rc rc;

    MUST(tokens != NULL);
    rc = json_scan(text, bytes, tokens, room, &json);
    if (rc == RC_OK) {
        uint32_t count = json.count;
        struct json_token *small = malloc(count * sizeof(*small));
        struct json again;

        MUST(json.error == NULL && count > 0);
        MUST(json_utf8_valid(text, bytes));
        MUST(check_value(&json, 0, bytes, 1) == count);
        MUST(small != NULL);
        MUST(json_scan(text, bytes, small, count, &again) == RC_OK);
        MUST(again.count == count);
        MUST(json_scan(text, bytes, small, count - 1, &again) == RC_FULL);
        free(small);
    } else {
        MUST(rc == RC_INVALID);
        MUST(json.error != NULL && json.error_at <= bytes);
        MUST(json.count == 0);
    }
    free(tokens);
    return 0;
}
