/* The control socket's documents as an operator likes to read them: aligned
 * columns, sizes and ages with their units. */
#ifndef SLUICE_DISPATCHER_SLUICECTL_PRINT_H
#define SLUICE_DISPATCHER_SLUICECTL_PRINT_H

#include <stdint.h>
#include <stdio.h>

#include "shared/rc.h"

struct ctl_document;

/* Parse. RC_INVALID: not JSON; RC_NOMEM. text is borrowed. */
enum rc ctl_document_new(struct ctl_document **out, const char *text,
                         size_t bytes) MUST_CHECK;
void ctl_document_free(struct ctl_document **d);

/* Each prints to `to` and returns the exit status that goes with it: 0, or 1
 * for "not found" or "not yet". node_id: of this instance. */
int ctl_print_status(const struct ctl_document *d, int64_t node_id, FILE *to);
int ctl_print_queue(const struct ctl_document *d, int64_t node_id, FILE *to);
int ctl_print_dead(const struct ctl_document *d, int64_t node_id, FILE *to);
int ctl_print_explain(const struct ctl_document *d, int64_t node_id, FILE *to);
int ctl_print_drain(const struct ctl_document *d, int64_t node_id, FILE *to);
int ctl_print_done(const struct ctl_document *d, int64_t node_id, FILE *to);

#endif
