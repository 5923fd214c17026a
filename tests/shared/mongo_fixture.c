/* FerretDB prints its URI once it may be connected to. */
#include "tests/shared/mongo_fixture.h"

#include <mongoc/mongoc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/shared/pg_fixture.h"

static struct {
    pid_t pid;         /* 0: not ours */
    char server[256];  /* mongodb://127.0.0.1:12345 */
    char options[256]; /* of the URI, with its question mark */
    char uri[640];     /* as last handed out */
} server;

/* Take the URI apart: what comes before the database, and the options. */
static void
keep_uri(const char *uri)
{
    const char *hosts = strstr(uri, "://");
    const char *question = strchr(uri, '?');
    const char *slash = hosts == NULL ? NULL : strchr(hosts + 3, '/');
    size_t bytes = slash != NULL      ? (size_t)(slash - uri)
                   : question != NULL ? (size_t)(question - uri)
                                      : strcspn(uri, "\r\n");
    snprintf(server.server, sizeof(server.server), "%.*s", (int)bytes, uri);
    snprintf(server.options, sizeof(server.options), "%.*s",
             question == NULL ? 0 : (int)strcspn(question, "\r\n"),
             question == NULL ? "" : question);
}

static void
become_ferretdb(int out)
{
    const char *top = getenv("TOP_BUILDDIR");
    char program[512];
    char url[256];
    char log[256];
    snprintf(program, sizeof(program), "%s/ferretdb", top == NULL ? "." : top);
    snprintf(url, sizeof(url), "postgres://postgres@/ferretdb?host=%s",
             pg_fixture_dir());
    (void)dup2(out, STDOUT_FILENO);
    snprintf(log, sizeof(log), "%s/ferretdb.log", pg_fixture_dir());
    if (freopen(log, "a", stderr) == NULL) {
        _exit(127);
    }
    (void)execl(program, program, "-listen", "127.0.0.1:0", "-postgresql-url",
                url, (char *)NULL);
    _exit(127);
}

int
mongo_fixture_start(void **state)
{
    const char *given = getenv("SLUICE_MONGO_URI");
    char line[512] = "";
    int pipe_fds[2];
    if (given != NULL && *given != '\0') {
        keep_uri(given);
        return 0;
    }
    if (pg_fixture_start(state) != 0 || pipe(pipe_fds) != 0) {
        return -1;
    }
    (void)pg_fixture_database("ferretdb");
    server.pid = fork();
    if (server.pid == 0) {
        become_ferretdb(pipe_fds[1]);
    }
    (void)close(pipe_fds[1]);
    FILE *stream = fdopen(pipe_fds[0], "r");
    if (stream == NULL || fgets(line, sizeof(line), stream) == NULL) {
        fprintf(stderr, "no MongoDB wire server: make ferretdb\n");
        return -1;
    }
    (void)fclose(stream);
    keep_uri(line);
    return 0;
}

int
mongo_fixture_stop(void **state)
{
    if (server.pid == 0) {
        return 0;
    }
    (void)kill(server.pid, SIGCONT);
    (void)kill(server.pid, SIGINT);
    (void)waitpid(server.pid, NULL, 0);
    server.pid = 0;
    return pg_fixture_stop(state);
}

bool
mongo_fixture_signal(int number)
{
    if (server.pid == 0 || kill(server.pid, number) != 0) {
        return false;
    }
    /* Its threads stop one after the other. */
    return number != SIGSTOP || waitpid(server.pid, NULL, WUNTRACED) > 0;
}

const char *
mongo_fixture_database(const char *name)
{
    char database[64];
    bson_error_t error;
    snprintf(database, sizeof(database), "sluice_%s_%d", name, (int)getpid());
    snprintf(server.uri, sizeof(server.uri), "%s/%s%s", server.server, database,
             server.options);
    mongoc_init();
    mongoc_log_set_handler(NULL, NULL); /* FerretDB knows no endSessions */
    mongoc_client_t *client = mongoc_client_new(server.uri);
    assert_non_null(client);
    mongoc_database_t *handle = mongoc_client_get_database(client, database);
    if (!mongoc_database_drop(handle, &error)) {
        fail_msg("%s: %s", database, error.message);
    }
    mongoc_database_destroy(handle);
    mongoc_client_destroy(client);
    return server.uri;
}

struct mongo *
mongo_fixture_mongo(void)
{
    struct mongo *mongo;
    assert_int_equal(mongo_new(&mongo, server.uri, MONGO_FIXTURE_TIMEOUT_MS),
                     RC_OK);
    return mongo;
}
