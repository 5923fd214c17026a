/* Columns of a statement's rows as PostgreSQL's arrays in their text form, for
 * "FROM unnest($1::uuid[], $2::text[])":
 *
 *   pg_arrays_begin(a);
 *   for each row: pg_arrays_uuid(a, 0, &id); pg_arrays_text(a, 1, s, bytes);
 *   rc = pg_arrays_end(a, params);   -> params[0] = "{0189...,0189...}"
 *
 * A row puts one element into every column. Building fails stickily. One
 * thread's own. */
#ifndef SLUICE_DISPATCHER_PG_ARRAYS_H
#define SLUICE_DISPATCHER_PG_ARRAYS_H

#include <stddef.h>
#include <stdint.h>

#include "shared/rc.h"
#include "shared/uuid.h"

struct pg_arrays;

/* columns >= 1. RC_NOMEM. */
enum rc pg_arrays_new(struct pg_arrays **out, unsigned columns) MUST_CHECK;
void pg_arrays_free(struct pg_arrays **a);

/* Forget the rows; the memory is kept for the next ones. */
void pg_arrays_begin(struct pg_arrays *a);

/* Append an element to a column (0 .. columns - 1). */
void pg_arrays_int(struct pg_arrays *a, unsigned column, int64_t value);
void pg_arrays_uuid(struct pg_arrays *a, unsigned column,
                    const struct uuid *value);
/* UTF-8 without U+0000; anything else may stand in it. */
void pg_arrays_text(struct pg_arrays *a, unsigned column, const char *value,
                    size_t bytes);
void pg_arrays_null(struct pg_arrays *a, unsigned column);

/* Close the arrays and point params[0 .. columns - 1] at them; they live until
 * the next begin. RC_NOMEM: one of them failed. */
enum rc pg_arrays_end(struct pg_arrays *a, const char **params) MUST_CHECK;

#endif
