/* PostgreSQL through libpq, with a bound on every wait. The one home of
 * libpq. A struct pg is one connection, opened by the first use and again by
 * a use after it broke; it belongs to one thread.
 *
 * Bounds: connect_timeout, tcp_user_timeout and statement_timeout are set on
 * each connection, and replies are awaited with poll(2) up to timeout_ms +
 * 2 s, so that a black hole does not hang (PITFALLS). */
#ifndef SLUICE_SHARED_PG_H
#define SLUICE_SHARED_PG_H

#include <stdbool.h>
#include <stdint.h>

#include "shared/rc.h"

#define PG_ERROR_BYTES 512
#define PG_SCRIPT_TIMEOUT_MS 600000 /* a migration may take its time */

struct pg;
struct pg_result;

/* url: a libpq connection string or URI, copied. Touches no network. */
enum rc pg_new(struct pg **out, const char *url, int64_t timeout_ms) MUST_CHECK;
void pg_free(struct pg **pg);

/* While fd (-1: none; stays the caller's) is readable, no wait goes on: what
 * is under way ends with RC_IO. So that a stop need not sit out a timeout. */
void pg_set_cancel_fd(struct pg *pg, int fd);

/* Is a connection open (as far as known without asking)? Open it if not.
 * RC_OK or RC_IO. */
enum rc pg_connect(struct pg *pg) MUST_CHECK;
bool pg_is_connected(const struct pg *pg);
void pg_disconnect(struct pg *pg);

/* Run one statement with text parameters ($1...; NULL = SQL NULL) and binary-
 * safe results as text. out may be NULL when no rows are wanted.
 * RC_OK;
 * RC_IO: no connection, connection lost, timed out, server shutting down, out
 *   of resources, serialization or deadlock: the same may work later;
 * RC_INVALID: the server refused the data or the statement (SQLSTATE class 22,
 *   23, 42 ...): repeating it will not help. pg_error() says what. */
enum rc pg_exec(struct pg *pg, const char *sql, int param_count,
                const char *const *params, struct pg_result **out) MUST_CHECK;
/* Several statements in one string, no parameters (migrations); one
 * transaction unless they say otherwise. Waits up to PG_SCRIPT_TIMEOUT_MS. */
enum rc pg_exec_script(struct pg *pg, const char *sql) MUST_CHECK;

int pg_rows(const struct pg_result *r);
/* Value as text, NULL when SQL NULL. Owned by r. */
const char *pg_value(const struct pg_result *r, int row, int column);
/* Value of an integer column; 0 when SQL NULL. */
int64_t pg_number(const struct pg_result *r, int row, int column);
/* Rows that the command changed. */
int64_t pg_affected(const struct pg_result *r);
void pg_result_free(struct pg_result **r);

/* One line about the last failure, and its SQLSTATE ("" when none). */
const char *pg_error(const struct pg *pg);
const char *pg_sqlstate(const struct pg *pg);

#endif
