/* A mail server for a test: tests/sim/smtp.py in a process of its own, which
 * ends with the test's. Every helper fails the test when it cannot do its
 * work. */
#ifndef SLUICE_TESTS_SMTP_FIXTURE_H
#define SLUICE_TESTS_SMTP_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>

struct smtp_fixture {
    int pid;
    char folder[64]; /* temporary: log, blocked, and what the test puts there */
    char url[64];    /* smtp://127.0.0.1:PORT */
};

/* options: more arguments, and NULL behind them. */
void smtp_fixture_start(struct smtp_fixture *f, const char *const *options);
void smtp_fixture_stop(struct smtp_fixture *f);

/* How many mails were taken whose line of the log holds text ("": all)? */
size_t smtp_fixture_count(const struct smtp_fixture *f, const char *text);

/* Refuse everything at MAIL FROM, or no more. */
void smtp_fixture_block(const struct smtp_fixture *f, bool blocked);

#endif
