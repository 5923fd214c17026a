/* PostgreSQL through libpq without a wait that has no end.
 *
 * libpq's own blocking calls wait for ever on a peer that has vanished, so the
 * connection is non-blocking and each step is a poll(2) up to a deadline: this
 * file reads the clock because it is the root of those waits. Only name
 * resolution inside PQconnectStartParams cannot be bounded from here.
 *
 * Nothing but PQsendQueryParams and PQsendQuery: what a pooler in between
 * supports in any version. */
#include "shared/pg.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

#include "shared/clock.h"

/* How much longer than statement_timeout a reply may take: the server is to
 * give up first, for then the connection stays usable. */
#define REPLY_GRACE_MS 2000
#define SQLSTATE_BYTES 6

struct pg {
    PGconn *conn; /* NULL while closed */
    char *url;
    int64_t timeout_ms;
    int cancel_fd; /* readable: no more waiting; -1 none */
    char error[PG_ERROR_BYTES];
    char sqlstate[SQLSTATE_BYTES];
};

struct pg_result {
    PGresult *rows;
};

/* ---- errors ---------------------------------------------------------------
 */

/* One line of what may be several, for the log. */
static void
set_error(struct pg *pg, const char *text)
{
    size_t used = 0;
    for (const char *at = text; *at != '\0' && used < PG_ERROR_BYTES - 1;
         at++) {
        char c = (unsigned char)*at < ' ' ? ' ' : *at;
        if (c == ' ' && (used == 0 || pg->error[used - 1] == ' ')) {
            continue;
        }
        pg->error[used++] = c;
    }
    while (used > 0 && pg->error[used - 1] == ' ') {
        used--;
    }
    pg->error[used] = '\0';
}

static void
clear_error(struct pg *pg)
{
    pg->error[0] = '\0';
    pg->sqlstate[0] = '\0';
}

/* Close after a failure that libpq described in the connection. */
static enum rc
connection_failed(struct pg *pg)
{
    const char *why = PQerrorMessage(pg->conn);
    set_error(pg, why[0] == '\0' ? "connection lost" : why);
    pg_disconnect(pg);
    return RC_IO;
}

static enum rc
wait_failed(struct pg *pg, enum rc rc, const char *doing)
{
    char text[128];
    snprintf(text, sizeof(text), "%s: %s", doing,
             rc == RC_TIMEOUT ? "no answer in time" : "given up");
    set_error(pg, text);
    pg_disconnect(pg);
    return RC_IO;
}

/* Would the same statement work later? Classes of PostgreSQL's appendix A:
 * connection, transaction state (a standby is read only), authorization,
 * rollback, resources, object not ready (locks), operator intervention
 * (shutdown, statement_timeout), system error, internal error. */
static enum rc
classify(const char *sqlstate)
{
    static const char *const transient[] = {"08", "25", "28", "3D", "40",
                                            "53", "55", "57", "58", "XX"};
    if (sqlstate[0] == '\0') {
        return RC_IO;
    }
    for (size_t k = 0; k < ARRAY_COUNT(transient); k++) {
        if (memcmp(sqlstate, transient[k], 2) == 0) {
            return RC_IO;
        }
    }
    return RC_INVALID;
}

/* The primary message only: the detail holds the row's values, which are not
 * for the log. */
static enum rc
result_failed(struct pg *pg, const PGresult *result)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *primary = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    set_error(pg, primary == NULL ? PQresultErrorMessage(result) : primary);
    snprintf(pg->sqlstate, sizeof(pg->sqlstate), "%s",
             state == NULL ? "" : state);
    return classify(pg->sqlstate);
}

/* ---- waiting --------------------------------------------------------------
 */

/* Until the socket is ready for events: RC_OK, RC_TIMEOUT at deadline_ms, or
 * RC_IO when the owner gave up. */
static enum rc
wait_socket(const struct pg *pg, short events, int64_t deadline_ms)
{
    for (;;) {
        struct pollfd fds[2] = {
            {.fd = PQsocket(pg->conn), .events = events},
            {.fd = pg->cancel_fd, .events = POLLIN},
        };
        int64_t left_ms = deadline_ms - clock_now_ms();
        int n = poll(fds, 2, left_ms <= 0 ? 0 : (int)left_ms);
        if (n < 0 && errno != EINTR) {
            return RC_IO;
        }
        if (n > 0) {
            return fds[0].revents != 0 ? RC_OK : RC_IO;
        }
        if (n == 0 && left_ms <= 0) {
            return RC_TIMEOUT;
        }
    }
}

/* Push out what libpq still holds and take in what has come, until a result
 * can be had without waiting. */
static enum rc
await_result(struct pg *pg, int64_t deadline_ms)
{
    for (;;) {
        int unsent = PQflush(pg->conn);
        if (unsent < 0) {
            return connection_failed(pg);
        }
        if (unsent == 0 && PQisBusy(pg->conn) == 0) {
            return RC_OK;
        }
        short events = (short)(unsent > 0 ? POLLIN | POLLOUT : POLLIN);
        enum rc rc = wait_socket(pg, events, deadline_ms);
        if (rc != RC_OK) {
            return wait_failed(pg, rc, "statement");
        }
        if (PQconsumeInput(pg->conn) == 0) {
            return connection_failed(pg);
        }
    }
}

/* ---- results --------------------------------------------------------------
 */

static bool
is_success(const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK ||
           status == PGRES_EMPTY_QUERY;
}

/* Take all results of what was sent. The last good one goes to *last (may be
 * NULL); the first failure decides the code. */
static enum rc
collect(struct pg *pg, int64_t timeout_ms, PGresult **last)
{
    int64_t deadline_ms = clock_now_ms() + timeout_ms;
    enum rc rc = RC_OK;
    for (;;) {
        enum rc waited = await_result(pg, deadline_ms);
        if (waited != RC_OK) {
            return waited;
        }
        PGresult *result = PQgetResult(pg->conn);
        if (result == NULL) {
            break;
        }
        bool good = is_success(result);
        /* Would be answered with the same for ever: nobody here speaks COPY. */
        bool is_copy = PQresultStatus(result) == PGRES_COPY_IN ||
                       PQresultStatus(result) == PGRES_COPY_OUT ||
                       PQresultStatus(result) == PGRES_COPY_BOTH;
        if (is_copy) {
            set_error(pg, "COPY is not supported");
            rc = RC_INVALID;
        } else if (!good && rc == RC_OK) {
            rc = result_failed(pg, result);
        }
        if (good && last != NULL) {
            PQclear(*last);
            *last = result;
        } else {
            PQclear(result);
        }
        if (is_copy) {
            pg_disconnect(pg);
            return rc;
        }
    }
    if (PQstatus(pg->conn) == CONNECTION_BAD) {
        pg_disconnect(pg);
        rc = RC_IO;
    }
    return rc;
}

/* ---- connection -----------------------------------------------------------
 */

enum rc
pg_new(struct pg **out, const char *url, int64_t timeout_ms)
{
    *out = NULL;
    struct pg *pg = calloc(1, sizeof(*pg));
    if (pg == NULL) {
        return RC_NOMEM;
    }
    pg->cancel_fd = -1;
    pg->timeout_ms = timeout_ms;
    pg->url = strdup(url);
    if (pg->url == NULL) {
        free(pg);
        return RC_NOMEM;
    }
    *out = pg;
    return RC_OK;
}

void
pg_free(struct pg **pg)
{
    if (*pg == NULL) {
        return;
    }
    pg_disconnect(*pg);
    free((*pg)->url);
    free(*pg);
    *pg = NULL;
}

void
pg_set_cancel_fd(struct pg *pg, int fd)
{
    pg->cancel_fd = fd;
}

static void
ignore_notice(void *arg, const char *message)
{
    (void)arg;
    (void)message;
}

/* Begin to connect; pg->conn is set unless memory is out. */
static void
start_connecting(struct pg *pg)
{
    char connect_s[32];
    char user_timeout_ms[32];
    snprintf(connect_s, sizeof(connect_s), "%" PRId64,
             pg->timeout_ms / 1000 + 2);
    snprintf(user_timeout_ms, sizeof(user_timeout_ms), "%" PRId64,
             pg->timeout_ms + REPLY_GRACE_MS);
    /* What stands before the url is overridden by it. */
    const char *const names[] = {"fallback_application_name", "connect_timeout",
                                 "tcp_user_timeout",          "dbname",
                                 "client_encoding",           NULL};
    const char *const values[] = {"sluice", connect_s, user_timeout_ms,
                                  pg->url,  "UTF8",    NULL};
    pg->conn = PQconnectStartParams(names, values, 1);
}

static enum rc
finish_connecting(struct pg *pg, int64_t deadline_ms)
{
    PostgresPollingStatusType step = PGRES_POLLING_WRITING;
    for (;;) {
        if (step == PGRES_POLLING_OK) {
            return RC_OK;
        }
        if (step == PGRES_POLLING_FAILED ||
            PQstatus(pg->conn) == CONNECTION_BAD) {
            return connection_failed(pg);
        }
        enum rc rc = wait_socket(
            pg, step == PGRES_POLLING_READING ? POLLIN : POLLOUT, deadline_ms);
        if (rc != RC_OK) {
            return wait_failed(pg, rc, "connect");
        }
        step = PQconnectPoll(pg->conn);
    }
}

/* Settings go by SET, not in the start packet's options, which a pooler
 * refuses. */
static enum rc
configure(struct pg *pg)
{
    char sql[256];
    snprintf(sql, sizeof(sql),
             "SET synchronous_commit = on;"
             "SET standard_conforming_strings = on;"
             "SET client_min_messages = warning;"
             "SET statement_timeout = %" PRId64,
             pg->timeout_ms);
    if (PQsetnonblocking(pg->conn, 1) != 0 || PQsendQuery(pg->conn, sql) == 0) {
        return connection_failed(pg);
    }
    enum rc rc = collect(pg, pg->timeout_ms + REPLY_GRACE_MS, NULL);
    if (rc != RC_OK) {
        pg_disconnect(pg);
        return RC_IO;
    }
    return RC_OK;
}

/* An idle connection that the server has closed is readable: find out now
 * rather than fail the caller's statement. */
static void
drop_if_closed(struct pg *pg)
{
    struct pollfd fd = {.fd = PQsocket(pg->conn), .events = POLLIN};
    if (PQstatus(pg->conn) == CONNECTION_OK && poll(&fd, 1, 0) > 0 &&
        (PQconsumeInput(pg->conn) == 0 ||
         (fd.revents & (POLLHUP | POLLERR)) != 0)) {
        pg_disconnect(pg);
        return;
    }
    if (PQstatus(pg->conn) != CONNECTION_OK) {
        pg_disconnect(pg);
    }
}

enum rc
pg_connect(struct pg *pg)
{
    if (pg->conn != NULL) {
        drop_if_closed(pg);
    }
    if (pg->conn != NULL) {
        return RC_OK;
    }
    clear_error(pg);
    int64_t deadline_ms = clock_now_ms() + pg->timeout_ms;
    start_connecting(pg);
    if (pg->conn == NULL) {
        set_error(pg, "out of memory");
        return RC_IO;
    }
    PQsetNoticeProcessor(pg->conn, ignore_notice, NULL);
    enum rc rc = finish_connecting(pg, deadline_ms);
    return rc == RC_OK ? configure(pg) : rc;
}

bool
pg_is_connected(const struct pg *pg)
{
    return pg->conn != NULL && PQstatus(pg->conn) == CONNECTION_OK;
}

void
pg_disconnect(struct pg *pg)
{
    if (pg->conn != NULL) {
        PQfinish(pg->conn);
        pg->conn = NULL;
    }
}

/* ---- statements -----------------------------------------------------------
 */

enum rc
pg_exec(struct pg *pg, const char *sql, int param_count,
        const char *const *params, struct pg_result **out)
{
    PGresult *rows = NULL;
    if (out != NULL) {
        *out = NULL;
    }
    enum rc rc = pg_connect(pg);
    if (rc != RC_OK) {
        return rc;
    }
    clear_error(pg);
    if (PQsendQueryParams(pg->conn, sql, param_count, NULL, params, NULL, NULL,
                          0) == 0) {
        return connection_failed(pg);
    }
    rc = collect(pg, pg->timeout_ms + REPLY_GRACE_MS, &rows);
    if (rc == RC_OK && out != NULL) {
        *out = malloc(sizeof(**out));
        if (*out == NULL) {
            rc = RC_NOMEM;
        } else {
            (*out)->rows = rows;
            rows = NULL;
        }
    }
    PQclear(rows);
    return rc;
}

enum rc
pg_exec_script(struct pg *pg, const char *sql)
{
    enum rc rc = pg_connect(pg);
    if (rc != RC_OK) {
        return rc;
    }
    clear_error(pg);
    if (PQsendQuery(pg->conn, sql) == 0) {
        return connection_failed(pg);
    }
    return collect(pg, PG_SCRIPT_TIMEOUT_MS + REPLY_GRACE_MS, NULL);
}

int
pg_rows(const struct pg_result *r)
{
    return PQntuples(r->rows);
}

const char *
pg_value(const struct pg_result *r, int row, int column)
{
    return PQgetisnull(r->rows, row, column) != 0
               ? NULL
               : PQgetvalue(r->rows, row, column);
}

int64_t
pg_number(const struct pg_result *r, int row, int column)
{
    const char *value = pg_value(r, row, column);

    return value != NULL ? strtoll(value, NULL, 10) : 0;
}

int64_t
pg_affected(const struct pg_result *r)
{
    /* "" for a command that changes no rows. */
    return strtoll(PQcmdTuples(r->rows), NULL, 10);
}

void
pg_result_free(struct pg_result **r)
{
    if (*r == NULL) {
        return;
    }
    PQclear((*r)->rows);
    free(*r);
    *r = NULL;
}

const char *
pg_error(const struct pg *pg)
{
    return pg->error;
}

const char *
pg_sqlstate(const struct pg *pg)
{
    return pg->sqlstate;
}
