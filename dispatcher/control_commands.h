/* What the control socket's commands do, without the socket. */
#ifndef SLUICE_DISPATCHER_CONTROL_COMMANDS_H
#define SLUICE_DISPATCHER_CONTROL_COMMANDS_H

#include <stdbool.h>

#include "dispatcher/control.h"
#include "shared/rc.h"
#include "shared/text.h"

struct commands;

/* Opens a reader of the journal. A command that takes long ends early once
 * stop_fd (borrowed) is readable. RC_NOMEM, RC_IO. All calls: one thread. */
enum rc commands_new(struct commands **out,
                     const struct control_options *options,
                     int stop_fd) MUST_CHECK;
void commands_free(struct commands **c);

/* Run a line (which is taken apart). RC_OK: answer = the document; RC_AGAIN: a
 * drain began, ask commands_drained for its end; else answer = one line that
 * says why not. */
enum rc commands_run(struct commands *c, char *line,
                     struct text *answer) MUST_CHECK;

/* Is everything idle that a drain waits for? Then true, and answer = the
 * document. last: say what is left instead. Ask every 100 ms or so. */
bool commands_drained(struct commands *c, bool last, struct text *answer);

#endif
