/* Mails to one mail server, several at once, through libcurl (7.88). No call
 * but smtp_wait blocks; one thread.
 *
 *     smtp_new(&s, &options, done, arg);
 *     while (smtp_in_flight(s) < options.max_in_flight) smtp_start(s, &mail);
 *     smtp_wait(s, fds, count, timeout_ms);
 *     smtp_drive(s);                         // calls done(arg, &result)
 *
 * A connection is used again for the next mail, unless it was idle for long.
 * Encrypted by smtps://, or by STARTTLS. The server's certificate is verified,
 * but for SMTP_TLS_TRY: who can forge one there can also hide STARTTLS.
 * The name given in EHLO is the URL's path, if it has one
 * (smtp://relay.example.com/www1.example.com), else the host's. */
#ifndef SLUICE_DISPATCHER_SMTP_H
#define SLUICE_DISPATCHER_SMTP_H

#include <stddef.h>
#include <stdint.h>

#include "shared/rc.h"

#define SMTP_TEXT_BYTES 200

struct smtp;

enum smtp_tls { SMTP_TLS_NONE, SMTP_TLS_TRY, SMTP_TLS_REQUIRE };

/* All is copied. */
struct smtp_options {
    const char *url;      /* smtp:// or smtps:// */
    enum smtp_tls tls;    /* STARTTLS; smtps:// is encrypted anyway */
    const char *username; /* "": no AUTH */
    const char *password;
    const char *ca_file;  /* of certificates; NULL: the system's */
    size_t max_in_flight; /* 1..SMTP_MAX_IN_FLIGHT */
    int64_t timeout_ms;   /* > 0: of one mail, with its connection */
};

#define SMTP_MAX_IN_FLIGHT 100

struct smtp_mail {
    const char *from; /* a mailbox, ASCII */
    const char *to;   /* a mailbox; its domain is ASCII. If its local part is
                         not, the server must offer SMTPUTF8, or the recipient
                         counts as refused (status 553) */
    const char *data; /* the message (mail_message.h), copied */
    size_t bytes;
    void *tag;
};

enum smtp_end {
    SMTP_SENT, /* the server has it */
    /* 4xx anywhere, no connection, timeout, ...; what comes of an EHLO that was
     * put off, as no SMTPUTF8 and no AUTH. */
    SMTP_LATER,
    SMTP_RECIPIENT_REFUSED, /* 5xx to RCPT TO or DATA that speaks of it */
    /* Any other 5xx, at RCPT TO, too: relaying denied, the client is blocked,
     * the sender or HELO is not liked, a quota; a certificate that is not
     * trusted; no STARTTLS or AUTH where it is required. */
    SMTP_WE_ARE_REFUSED
};

struct smtp_result {
    enum smtp_end end;
    int status;       /* of the server's last answer; 0: it is not the reason */
    const char *text; /* "RCPT TO: 550 5.1.1 no such user": one line of UTF-8
                         without controls; may hold the address. "" if sent.
                         Lives for the call */
    int64_t duration_ms;
    void *tag; /* the mail's */
};

/* May call smtp_start. */
typedef void smtp_done(void *arg, const struct smtp_result *result);

/* RC_NOMEM. */
enum rc smtp_new(struct smtp **out, const struct smtp_options *options,
                 smtp_done *done, void *arg) MUST_CHECK;
/* Mails under way are dropped without done: whether the server has them is
 * unknown. Does not wait for the server. */
void smtp_free(struct smtp **s);
/* New options, for mails that start from now on, over new connections. No mail
 * may be under way (smtp_in_flight is 0), and not in done. RC_NOMEM: as before.
 */
enum rc smtp_set(struct smtp *s, const struct smtp_options *options) MUST_CHECK;

/* RC_FULL: max_in_flight are under way. RC_AGAIN: no memory just now. */
enum rc smtp_start(struct smtp *s, const struct smtp_mail *mail) MUST_CHECK;
size_t smtp_in_flight(const struct smtp *s);
/* Drive what can be driven, and tell of what ended. */
void smtp_drive(struct smtp *s);
/* Wait until smtp_drive has something to do, one of count <= 4 descriptors is
 * readable, or timeout_ms (>= 0) have passed. */
void smtp_wait(struct smtp *s, const int *fds, size_t count,
               int64_t timeout_ms);

#endif
