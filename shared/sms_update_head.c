/* The line before the updates of an outcome: whose they are. */
#include <string.h>

#include "shared/sms_update.h"
#include "shared/words.h"

void
sms_update_head_put(const struct sms_update_head *head, struct text *out)
{
    char id[UUID_TEXT_BYTES];

    text_int(out, head->seq);
    text_putc(out, ' ');
    text_int(out, head->received_unix_ms);
    text_putc(out, ' ');
    text_puts(out, uuid_format(&head->id, id));
    text_putc(out, '\n');
}

enum rc
sms_update_head_get(const char *body, size_t bytes, struct sms_update_head *out,
                    size_t *head_bytes)
{
    struct words words = {body, body + bytes};
    struct words line;
    char id[UUID_TEXT_BYTES];

    *head_bytes = 0;
    memset(out, 0, sizeof(*out));
    if (!words_line(&words, &line) || !words_number(&line, &out->seq) ||
        !words_number(&line, &out->received_unix_ms) ||
        !words_take(&line, id, sizeof(id)) || line.at != line.end ||
        line.end[-1] == ' ' || uuid_parse(id, &out->id) != RC_OK) {
        memset(out, 0, sizeof(*out));
        return RC_INVALID;
    }
    *head_bytes = (size_t)(words.at - body);
    return RC_OK;
}
