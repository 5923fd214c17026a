/* Reads the journal's forms: lines of words with one blank between them. What
 * it reads is borrowed; all of it from any thread. */
#ifndef SLUICE_SHARED_WORDS_H
#define SLUICE_SHARED_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORDS_NUMBER_DIGITS 16U

/* Begin with {body, body + bytes}. */
struct words {
    const char *at;
    const char *end;
};

/* Take a word up to the next blank (eaten) or the end into out, with a NUL.
 * False: there is none, it is too long for size, or holds a NUL. */
bool words_take(struct words *w, char *out, size_t size);

/* Take a number as text_int writes it, 0..10^16 - 1. */
bool words_number(struct words *w, int64_t *out);

/* Take the line up to the next '\n' (eaten). False: no line ends here. */
bool words_line(struct words *w, struct words *line);

#endif
