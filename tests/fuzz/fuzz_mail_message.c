/* Mail messages: whatever the values, a message that is composed has its eight
 * headers and no other, lines that are short and end with CRLF, and the two
 * parts. The input is name, to, subject, id and text, each ended by a NUL. */
#include "dispatcher/mail_message.h"

#include <stdbool.h>
#include <string.h>

#include "tests/fuzz/replay.h"

#define PARTS 5

static const char *const headers[] = {
    "From:",       "To:",           "Subject:",        "Date:",
    "Message-ID:", "MIME-Version:", "Auto-Submitted:", "Content-Type:",
};

/* The line at *at, which is moved behind its CRLF. */
static size_t
take_line(const struct text *t, size_t *at, const char **line)
{
    const char *end = memmem(t->data + *at, t->bytes - *at, "\r\n", 2);
    size_t bytes;

    MUST(end != NULL);
    *line = t->data + *at;
    bytes = (size_t)(end - *line);
    MUST(memchr(*line, '\r', bytes) == NULL);
    MUST(memchr(*line, '\n', bytes) == NULL);
    MUST(memchr(*line, '\0', bytes) == NULL);
    *at += bytes + 2;
    return bytes;
}

static void
check_message(const struct text *t)
{
    const char *line;
    size_t at = 0;
    size_t bytes = take_line(t, &at, &line);
    unsigned boundaries = 0;

    for (size_t k = 0; k < ARRAY_COUNT(headers); k++) {
        MUST(strncmp(line, headers[k], strlen(headers[k])) == 0);
        do {
            bytes = take_line(t, &at, &line);
            MUST(bytes <= 76 || line[1] == '<');
        } while (bytes > 0 && line[0] == ' ');
    }
    MUST(bytes == 0);
    while (at < t->bytes) {
        bytes = take_line(t, &at, &line);
        MUST(bytes <= 76);
        boundaries += bytes > 3 && strncmp(line, "--=_", 4) == 0;
    }
    MUST(boundaries == 3);
}

static void
check_sender(const char *value)
{
    struct mail_sender sender;

    if (mail_sender_parse(value, &sender) == RC_OK) {
        MUST(strchr(sender.mailbox, '@') != NULL);
        MUST(strpbrk(sender.mailbox, " <>\r\n") == NULL);
        MUST(strpbrk(sender.name, "\r\n\"<") == NULL);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    char *copy = calloc(1, bytes + PARTS);
    const char *parts[PARTS];
    struct mail_sender sender = {.mailbox = "a@localhost"};
    struct mail_message message = {.from = &sender, .date_unix_ms = 1};
    struct text out = {0};
    const char *at = copy;

    MUST(copy != NULL);
    memcpy(copy, data, bytes);
    for (int k = 0; k < PARTS; k++) {
        parts[k] = at;
        at += strlen(at) + (at < copy + bytes ? 1 : 0);
    }
    memcpy(sender.name, parts[0], strnlen(parts[0], sizeof(sender.name) - 1));
    message.to = parts[1];
    message.subject = parts[2];
    message.id = parts[3];
    message.text = parts[4];
    message.html = parts[4];
    if (mail_message_compose(&message, &out) == RC_OK) {
        check_message(&out);
    } else {
        MUST(out.bytes == 0);
    }
    check_sender(parts[0]);
    text_free(&out);
    free(copy);
    return 0;
}
