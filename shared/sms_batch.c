/* The journal form of a batch's outcome. */
#include "shared/sms_batch.h"

#include <string.h>

#include "shared/json.h"
#include "shared/words.h"

#define FORM '\1'

/* The error ends its line, so that it holds no line's end itself. What is not
 * UTF-8, perhaps because it was cut, would make the outcome unreadable. */
static void
put_error(const char *error, struct text *out)
{
    size_t left = strlen(error);

    while (left > 0) {
        size_t bytes = text_utf8_length(error, left);

        if (*error == '\n') {
            text_putc(out, ' ');
        } else if (bytes == 0) {
            text_putc(out, '?');
        } else {
            text_append(out, error, bytes);
        }
        bytes = bytes > 0 ? bytes : 1;
        error += bytes;
        left -= bytes;
    }
}

void
sms_batch_begin(const struct sms_batch *batch, struct text *out)
{
    char id[UUID_TEXT_BYTES];

    text_putc(out, FORM);
    if (batch == NULL) {
        text_puts(out, "-\n");
        return;
    }
    const int64_t numbers[] = {batch->size, batch->attempts,
                               batch->started_unix_ms, batch->finished_unix_ms};

    text_puts(out, uuid_format(&batch->id, id));
    for (size_t k = 0; k < ARRAY_COUNT(numbers); k++) {
        text_putc(out, ' ');
        text_int(out, numbers[k]);
    }
    text_putc(out, ' ');
    put_error(batch->error, out);
    text_putc(out, '\n');
}

void
sms_batch_put(const struct sms_sent *sent, struct text *out)
{
    char id[UUID_TEXT_BYTES];

    text_int(out, sent->seq);
    text_putc(out, ' ');
    text_int(out, sent->received_unix_ms);
    text_putc(out, ' ');
    text_puts(out, uuid_format(&sent->id, id));
    text_putc(out, ' ');
    text_int(out, (int64_t)sent->body_bytes);
    text_putc(out, '\n');
    text_append(out, sent->body, sent->body_bytes);
}

static bool
take_id(struct words *line, struct uuid *out)
{
    char id[UUID_TEXT_BYTES];

    return words_take(line, id, sizeof(id)) && uuid_parse(id, out) == RC_OK;
}

static bool
take_batch(struct words *line, struct sms_batch *out)
{
    size_t left;

    if (!take_id(line, &out->id) || !words_number(line, &out->size) ||
        !words_number(line, &out->attempts) ||
        !words_number(line, &out->started_unix_ms) ||
        !words_number(line, &out->finished_unix_ms)) {
        return false;
    }
    left = (size_t)(line->end - line->at);
    if (out->size < 1 || out->size > SMS_BATCH_SIZE_MAX || out->attempts < 1 ||
        out->attempts > INT32_MAX || line->at[-1] != ' ' ||
        left >= sizeof(out->error) || !json_utf8_valid(line->at, left) ||
        (left > 0 && memchr(line->at, '\0', left) != NULL)) {
        return false;
    }
    memcpy(out->error, line->at, left);
    out->error[left] = '\0';
    return true;
}

enum rc
sms_batch_open(const char *body, size_t bytes, struct sms_batch *batch,
               bool *has, struct sms_batch_cursor *cursor)
{
    *has = false;
    *cursor = (struct sms_batch_cursor){body, bytes, bytes};
    memset(batch, 0, sizeof(*batch));
    if (bytes == 0 || body[0] != FORM) {
        return RC_INVALID;
    }
    struct words words = {body + 1, body + bytes};
    struct words line;

    if (!words_line(&words, &line)) {
        return RC_INVALID;
    }
    *has = !(line.end - line.at == 1 && line.at[0] == '-');
    if (*has && !take_batch(&line, batch)) {
        memset(batch, 0, sizeof(*batch));
        *has = false;
        return RC_INVALID;
    }
    cursor->at = (size_t)(words.at - body);
    return RC_OK;
}

enum rc
sms_batch_next(struct sms_batch_cursor *cursor, struct sms_sent *out)
{
    struct words words;
    struct words line;
    int64_t body_bytes = 0;

    memset(out, 0, sizeof(*out));
    if (cursor->at == cursor->bytes) {
        return RC_AGAIN;
    }
    words =
        (struct words){cursor->body + cursor->at, cursor->body + cursor->bytes};
    if (!words_line(&words, &line) || !words_number(&line, &out->seq) ||
        !words_number(&line, &out->received_unix_ms) ||
        !take_id(&line, &out->id) || !words_number(&line, &body_bytes) ||
        line.at != line.end || line.end[-1] == ' ' ||
        body_bytes > words.end - words.at) {
        memset(out, 0, sizeof(*out));
        return RC_INVALID;
    }
    out->body = words.at;
    out->body_bytes = (size_t)body_bytes;
    cursor->at = (size_t)(words.at - cursor->body) + out->body_bytes;
    return RC_OK;
}
