/* The texts of mails: a folder with three files for each kind of mail, in
 * UTF-8:
 *
 *   welcome.subject   one line             apology.*   unknown.*
 *   welcome.txt       the plain text
 *   welcome.html      the same in HTML
 *
 * Placeholders, in any of them: {{code}} the invitation's, {{email}} the
 * address that asked, {{date}} when it asked ("2026-11-21 12:28 UTC"),
 * {{sender}} the name of mail.from, or its address if it has none. In HTML the
 * values are escaped. Anything else between {{ and }} is an error. */
#ifndef SLUICE_DISPATCHER_MAIL_TEMPLATE_H
#define SLUICE_DISPATCHER_MAIL_TEMPLATE_H

#include <stdint.h>

#include "dispatcher/mail_message.h"
#include "shared/rc.h"
#include "shared/text.h"

#define MAIL_TEMPLATE_MAX_BYTES 65536

enum mail_kind {
    MAIL_WELCOME, /* you have a place */
    MAIL_APOLOGY, /* all places are taken; you are on the waitlist */
    MAIL_UNKNOWN, /* no such invitation, or it has expired */
    MAIL_KIND_COUNT
};

/* "welcome" and so on, as in files and documents. */
extern const char *const mail_kinds[MAIL_KIND_COUNT];

struct mail_templates;

/* All borrowed, UTF-8. */
struct mail_values {
    const char *code;
    const char *email;
    int64_t date_unix_ms; /* 0 <= date < the year 10000 */
    const struct mail_sender *sender;
};

/* The folder to use: the setting if it is not "", else $SLUICE_MAIL_TEMPLATES,
 * else the installed one. Any thread. */
const char *mail_templates_folder(const char *setting);

/* Read and check the folder's nine files. RC_INVALID: errors (appended to) has
 * one line a problem: a file that is missing, empty, longer than
 * MAIL_TEMPLATE_MAX_BYTES or not UTF-8, an unknown placeholder
 * ("conf/mail/welcome.html:7: unknown placeholder {{name}}"), a subject of two
 * lines or one that would be too long with the longest values. RC_NOMEM. */
enum rc mail_templates_read(struct mail_templates **out, const char *folder,
                            struct text *errors) MUST_CHECK;
void mail_templates_free(struct mail_templates **t);

/* What goes into a mail_message; reset first. {0} is empty; give it back with
 * mail_content_free. */
struct mail_content {
    struct text subject;
    struct text plain;
    struct text html;
};

/* RC_NOMEM. The templates' thread. */
enum rc mail_templates_fill(const struct mail_templates *t, enum mail_kind kind,
                            const struct mail_values *values,
                            struct mail_content *out) MUST_CHECK;
void mail_content_free(struct mail_content *content);

#endif
