/* Helpers of the journal's tests. */
#include "tests/shared/journal_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

int
fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    const char *tmp = getenv("TMPDIR");

    assert_non_null(f);
    (void)snprintf(f->dir, sizeof f->dir, "%.32s/journal-XXXXXX",
                   tmp != NULL && strlen(tmp) <= 32 ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->path, sizeof f->path, "%s/journal.db", f->dir);
    f->options = (struct journal_options){.path = f->path,
                                          .max_bytes = FIXTURE_MAX_BYTES,
                                          .reserve_bytes = 0,
                                          .lock_timeout_ms = 5000};
    f->edge = fixture_journal(f, JOURNAL_EDGE);
    f->dispatcher = fixture_journal(f, JOURNAL_DISPATCHER);
    *state = f;
    return 0;
}

int
fixture_teardown(void **state)
{
    struct fixture *f = *state;
    struct dirent *entry;
    char path[512];
    DIR *dir;

    journal_free(&f->edge);
    journal_free(&f->dispatcher);
    dir = opendir(f->dir);
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        (void)snprintf(path, sizeof path, "%s/%s", f->dir, entry->d_name);
        (void)unlink(path); /* not "." and ".." */
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    (void)rmdir(f->dir);
    free(f);
    return 0;
}

struct journal *
fixture_journal(struct fixture *f, enum journal_role role)
{
    struct journal_options options = f->options;
    struct journal *j = NULL;

    options.role = role;
    assert_int_equal(journal_new(&j, &options), RC_OK);
    return j;
}

struct journal_request
fixture_request(struct fixture *f, const char *body)
{
    struct journal_request r = {.service = SERVICE_CALLBACK,
                                .body = body,
                                .body_bytes = strlen(body),
                                .received_unix_ms = FIXTURE_NOW};
    unsigned n = ++f->ids;
    pid_t pid = getpid(); /* children make ids, too */

    memcpy(r.id.bytes, &n, sizeof n);
    memcpy(r.id.bytes + 8, &pid, sizeof pid);
    return r;
}

struct journal_request
fixture_keyed(struct fixture *f, const char *body, const char *key)
{
    struct journal_request r = fixture_request(f, body);

    r.key = key;
    r.key_bytes = strlen(key);
    memset(r.hash, body[0], sizeof r.hash);
    return r;
}

int64_t
fixture_accept(struct fixture *f, const char *body)
{
    struct journal_request r = fixture_request(f, body);
    enum rc rc = journal_accept(f->edge, &r, 1, FIXTURE_NOW + FIXTURE_DAY);

    if (rc != RC_OK) {
        print_error("accept: %s\n", journal_error(f->edge));
    }
    assert_int_equal(rc, RC_OK);
    assert_int_equal(r.verdict, JOURNAL_ACCEPTED);
    assert_true(r.seq > 0);
    return r.seq;
}

void
fixture_accept_many(struct fixture *f, size_t count)
{
    struct journal_request *r = calloc(count, sizeof *r);

    assert_non_null(r);
    for (size_t i = 0; i < count; i++) {
        r[i] = fixture_request(f, "[1]");
    }
    assert_int_equal(
        journal_accept(f->edge, r, count, FIXTURE_NOW + FIXTURE_DAY), RC_OK);
    free(r);
}

int64_t
fixture_finish(struct fixture *f, int64_t seq_from, int64_t seq_to)
{
    int64_t no = 0;

    assert_int_equal(journal_begin(f->dispatcher), RC_OK);
    assert_int_equal(
        journal_outcome_add(f->dispatcher, SERVICE_CALLBACK, "[[1,2]]", 7, &no),
        RC_OK);
    assert_true(no > 0);
    for (int64_t seq = seq_from; seq <= seq_to; seq++) {
        assert_int_equal(
            journal_finish(f->dispatcher, SERVICE_CALLBACK, seq, no), RC_OK);
    }
    assert_int_equal(journal_commit(f->dispatcher), RC_OK);
    return no;
}

struct journal_ledger
fixture_ledger(struct fixture *f)
{
    struct journal_ledger ledger[SERVICE_COUNT];

    assert_int_equal(journal_ledger(f->dispatcher, ledger), RC_OK);
    assert_true(ledger[SERVICE_CALLBACK].balanced);
    return ledger[SERVICE_CALLBACK];
}

/* ---- past the module
 * ---------------------------------------------------------- */

static sqlite3 *
look(const struct fixture *f)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(f->path, &db), SQLITE_OK);
    (void)sqlite3_busy_timeout(db, 5000);
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    return db;
}

void
fixture_sql(const struct fixture *f, const char *sql)
{
    sqlite3 *db = look(f);
    int code = sqlite3_exec(db, sql, NULL, NULL, NULL);

    if (code != SQLITE_OK) {
        print_error("%s: %s\n", sql, sqlite3_errmsg(db));
    }
    assert_int_equal(code, SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

int64_t
fixture_ask(const struct fixture *f, const char *sql)
{
    sqlite3 *db = look(f);
    sqlite3_stmt *ask = NULL;
    int64_t value;

    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &ask, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(ask), SQLITE_ROW);
    value = sqlite3_column_int64(ask, 0);
    assert_int_equal(sqlite3_finalize(ask), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return value;
}

int64_t
fixture_wal_bytes(const struct fixture *f)
{
    char path[128];
    struct stat st;

    (void)snprintf(path, sizeof path, "%s-wal", f->path);
    return stat(path, &st) == 0 ? st.st_size : 0;
}

/* ---- children
 * -------------------------------------------------------------------- */

void *
fixture_shared(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(memory, MAP_FAILED);
    return memory;
}

pid_t
fixture_child(struct fixture *f, fixture_child_fn *fn, void *arg)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        /* A failed check would go on with the next test in this process. */
        (void)setenv("CMOCKA_TEST_ABORT", "1", 1);
        /* The copies of the parent's connections are left alone: SQLite may
         * not be carried over a fork, closed neither. */
        f->edge = fixture_journal(f, JOURNAL_EDGE);
        f->dispatcher = fixture_journal(f, JOURNAL_DISPATCHER);
        (void)alarm(300); /* do not outlive a parent that has gone */
        fn(f, arg);
        _exit(0);
    }
    return pid;
}

void
fixture_child_join(pid_t pid)
{
    int status = 0;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

void
fixture_child_kill(pid_t pid)
{
    int status = 0;

    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

static void
hog(struct fixture *f, void *arg)
{
    int *held = arg;
    char path[128];
    int fd;

    (void)snprintf(path, sizeof path, "%s.lock", f->path);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0660);
    if (fd < 0 || flock(fd, LOCK_EX) != 0) {
        _exit(1);
    }
    __atomic_store_n(held, 1, __ATOMIC_RELEASE);
    for (;;) {
        (void)pause();
    }
}

pid_t
fixture_lock_hog(struct fixture *f)
{
    int *held = fixture_shared(sizeof *held);
    pid_t pid = fixture_child(f, hog, held);

    while (__atomic_load_n(held, __ATOMIC_ACQUIRE) == 0) {
        (void)usleep(500);
    }
    (void)munmap(held, sizeof *held);
    return pid;
}
