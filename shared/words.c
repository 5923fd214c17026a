/* Words, numbers and lines of the journal's forms. */
#include "shared/words.h"

#include <string.h>

bool
words_take(struct words *w, char *out, size_t size)
{
    size_t left = (size_t)(w->end - w->at);
    const char *blank = left > 0 ? memchr(w->at, ' ', left) : NULL;
    size_t bytes = blank != NULL ? (size_t)(blank - w->at) : left;

    out[0] = '\0';
    if (bytes == 0 || bytes >= size || memchr(w->at, '\0', bytes) != NULL) {
        return false;
    }
    memcpy(out, w->at, bytes);
    out[bytes] = '\0';
    w->at += bytes + (blank != NULL ? 1 : 0);
    return true;
}

bool
words_number(struct words *w, int64_t *out)
{
    char word[WORDS_NUMBER_DIGITS + 1];
    int64_t value = 0;

    *out = 0;
    if (!words_take(w, word, sizeof(word)) ||
        strspn(word, "0123456789") != strlen(word) ||
        (word[0] == '0' && word[1] != '\0')) {
        return false;
    }
    for (const char *p = word; *p != '\0'; p++) {
        value = value * 10 + (*p - '0');
    }
    *out = value;
    return true;
}

bool
words_line(struct words *w, struct words *line)
{
    size_t left = (size_t)(w->end - w->at);
    const char *newline = left > 0 ? memchr(w->at, '\n', left) : NULL;

    *line = (struct words){w->at, w->at};
    if (newline == NULL) {
        return false;
    }
    line->end = newline;
    w->at = newline + 1;
    return true;
}
