/* Sends mails: a thread of its own, which looks once a second, and when it is
 * woken, for those of this node that are due (mails.h), fills in the templates,
 * hands them to the mail server (smtp.h) and writes down what came of it
 * (outbox.h has the rules).
 *
 * At least once: what came of a mail is written after it was sent, so a crash
 * in between sends it again, with the same Message-ID and the same bytes as
 * long as the templates are. While MongoDB is away nothing is lost, and nothing
 * is sent that could not be written down but what is already under way. */
#ifndef SLUICE_DISPATCHER_MAILER_H
#define SLUICE_DISPATCHER_MAILER_H

#include "dispatcher/mails.h"
#include "dispatcher/metrics.h"
#include "shared/conf.h"
#include "shared/rc.h"
#include "shared/text.h"

struct mailer;

/* Can [mail] be used? RC_INVALID: its sender or templates cannot, logged as
 * mail_settings_bad; RC_NOMEM. Any thread. */
enum rc mailer_check(const struct conf *conf) MUST_CHECK;

/* Start the thread; conf is copied. It looks for no mail before mailer_own.
 * RC_INVALID: templates, mail.from or mongo.uri cannot be used, logged as
 * mail_settings_bad; RC_NOMEM, RC_IO. Main. */
enum rc mailer_start(struct mailer **out, const struct conf *conf,
                     struct metrics *metrics) MUST_CHECK;
/* The same on other ops; self becomes the mailer's in any case. */
enum rc mailer_start_on(struct mailer **out, const struct conf *conf,
                        struct metrics *metrics, const struct mails_ops *ops,
                        void *self) MUST_CHECK;
/* End it; mails under way are not waited for, and sent again after a restart.
 * NULL is no mailer. Waits for the commands to MongoDB that write down what was
 * sent, some 50, of which the first that takes mongo.timeout_ms is the last. */
void mailer_stop(struct mailer **m);

/* New values of the keys of [mail], taken when the mails under way have ended,
 * mail.timeout_ms later at most; until then none leaves. Templates or a sender
 * that cannot be used are logged, and the whole [mail] stays as it was. Main.
 */
void mailer_configure(struct mailer *m, const struct conf *conf);

/* Are the mails of this node ours? False: another journal has claimed the node,
 * and its dispatcher sends them; what is under way goes on. Any thread. */
void mailer_own(struct mailer *m, bool is_ours);

/* There are new mails: look now. Any thread. */
void mailer_wake(struct mailer *m);

/* Append members of a JSON object for the status, without braces:
 * "mail":{"paused":false,"reason":"","waiting":12}. Any thread. */
void mailer_report(struct mailer *m, struct text *out);

#endif
