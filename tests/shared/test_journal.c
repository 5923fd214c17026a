/* Opening the journal: making it, refusing what is none, errors. */
#include "tests/shared/journal_fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void
a_reader_waits_for_the_file(void **state)
{
    struct fixture *f = *state;
    struct journal *reader = fixture_journal(f, JOURNAL_READER);
    struct journal_ledger ledger[SERVICE_COUNT];
    struct journal_page page = {0};
    int64_t seq = -1;
    int fd;

    assert_int_equal(journal_newest(reader, SERVICE_CALLBACK, &seq), RC_AGAIN);
    assert_int_equal(seq, 0);
    assert_int_equal(
        journal_queue_page(reader, SERVICE_CALLBACK, 0, 10, 1000, &page),
        RC_AGAIN);
    assert_int_equal(journal_ledger(reader, ledger), RC_AGAIN);
    assert_int_equal(access(f->path, F_OK), -1);
    /* Made, but nothing in it yet. */
    fd = open(f->path, O_RDWR | O_CREAT, 0660);
    assert_true(fd >= 0);
    (void)close(fd);
    assert_int_equal(journal_newest(reader, SERVICE_CALLBACK, &seq), RC_AGAIN);

    (void)fixture_accept(f, "[1]");
    assert_int_equal(journal_newest(reader, SERVICE_CALLBACK, &seq), RC_OK);
    assert_int_equal(seq, 1);
    journal_page_free(&page);
    journal_free(&reader);
    assert_null(reader);
    journal_free(&reader);
}

static void
a_reader_cannot_write(void **state)
{
    struct fixture *f = *state;
    struct journal *reader = fixture_journal(f, JOURNAL_READER);
    struct journal_request r = fixture_request(f, "[1]");
    int64_t wal = 0;

    (void)fixture_accept(f, "[1]");
    assert_int_equal(journal_accept(reader, &r, 1, 0), RC_BUG);
    assert_int_equal(journal_begin(reader), RC_BUG);
    assert_int_equal(journal_commit(reader), RC_IO);
    journal_rollback(reader);
    assert_int_equal(journal_checkpoint(reader, &wal), RC_BUG);
    assert_int_equal(fixture_ledger(f).accepted, 1);
    journal_free(&reader);
}

static mode_t
mode_of(const struct fixture *f, const char *suffix)
{
    char path[160];
    struct stat st;

    (void)snprintf(path, sizeof path, "%s%s", f->path, suffix);
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 0777;
}

static void
the_group_may_write_whatever_the_umask(void **state)
{
    struct fixture *f = *state;
    mode_t before = umask(0077);
    pid_t holder = 0;
    int fd = -1;

    (void)fixture_accept(f, "[1]");
    assert_int_equal(journal_dispatcher_lock(f->path, &fd, &holder), RC_OK);
    (void)umask(before);
    assert_int_equal(mode_of(f, ""), 0660);
    assert_int_equal(mode_of(f, "-wal"), 0660);
    assert_int_equal(mode_of(f, "-shm"), 0660);
    assert_int_equal(mode_of(f, ".lock"), 0660);
    assert_int_equal(mode_of(f, ".dispatcher"), 0660);
    (void)close(fd);
}

static void
the_file_is_set_up_to_be_durable(void **state)
{
    struct fixture *f = *state;
    struct uuid one;
    struct uuid two;
    struct journal *reader = fixture_journal(f, JOURNAL_READER);

    (void)fixture_accept(f, "[1]");
    assert_int_equal(fixture_ask(f, "SELECT count(*) FROM pragma_journal_mode"
                                    " WHERE journal_mode = 'wal'"),
                     1);
    assert_int_equal(fixture_ask(f, "PRAGMA user_version"), 4);
    assert_int_equal(fixture_ask(f, "PRAGMA auto_vacuum"), 0);
    assert_int_equal(fixture_ask(f, "SELECT count(*) FROM pragma_quick_check"
                                    " WHERE quick_check = 'ok'"),
                     1);
    assert_int_equal(journal_identity(f->edge, &one), RC_OK);
    assert_int_equal(journal_identity(reader, &two), RC_OK);
    assert_memory_equal(one.bytes, two.bytes, UUID_BYTES);
    assert_int_equal(one.bytes[6] >> 4, 7); /* a UUIDv7 */
    journal_free(&reader);
}

static void
a_newer_schema_is_refused(void **state)
{
    struct fixture *f = *state;
    struct journal_request r = fixture_request(f, "[1]");
    struct journal *late;

    (void)fixture_accept(f, "[1]");
    fixture_sql(f, "PRAGMA user_version=5");
    late = fixture_journal(f, JOURNAL_EDGE);
    assert_int_equal(journal_accept(late, &r, 1, 0), RC_IO);
    assert_non_null(strstr(journal_error(late), "newer version"));
    assert_int_equal(r.seq, 0);
    /* The lock was given back. */
    assert_int_equal(journal_lock_holder(f->path), 0);
    fixture_sql(f, "PRAGMA user_version=4");
    assert_int_equal(journal_accept(late, &r, 1, 0), RC_OK);
    journal_free(&late);
}

static void
another_database_is_refused_and_left_alone(void **state)
{
    struct fixture *f = *state;
    struct journal_request r = fixture_request(f, "[1]");

    fixture_sql(f, "CREATE TABLE mine(x)");
    assert_int_equal(journal_accept(f->edge, &r, 1, 0), RC_IO);
    assert_non_null(strstr(journal_error(f->edge), "not a journal"));
    assert_int_equal(fixture_ask(f, "SELECT count(*) FROM sqlite_schema"), 1);
    assert_int_equal(fixture_ask(f, "SELECT count(*) FROM pragma_journal_mode"
                                    " WHERE journal_mode = 'wal'"),
                     0);
    fixture_sql(f, "PRAGMA user_version=1");
    assert_int_equal(journal_accept(f->edge, &r, 1, 0), RC_IO);
    assert_non_null(strstr(journal_error(f->edge), "not a journal"));
}

static void
a_file_that_is_no_database_is_refused(void **state)
{
    struct fixture *f = *state;
    struct journal_request r = fixture_request(f, "[1]");
    struct journal *reader = fixture_journal(f, JOURNAL_READER);
    int64_t seq = 0;
    FILE *file = fopen(f->path, "w");

    assert_non_null(file);
    for (int i = 0; i < 1000; i++) {
        (void)fputs("this is not a journal\n", file);
    }
    (void)fclose(file);
    assert_int_equal(journal_accept(f->edge, &r, 1, 0), RC_IO);
    assert_non_null(strstr(journal_error(f->edge), "not a database"));
    assert_int_equal(journal_newest(reader, SERVICE_CALLBACK, &seq), RC_IO);
    assert_non_null(strstr(journal_error(reader), "not a database"));
    /* Once it is out of the way, the next use makes the journal. */
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(journal_accept(f->edge, &r, 1, 0), RC_OK);
    journal_free(&reader);
}

static void
a_damaged_page_is_an_error_not_a_crash(void **state)
{
    struct fixture *f = *state;
    struct journal_page page = {0};
    struct journal *reader;
    struct stat st;
    char junk[4096];
    int64_t wal = 0;
    int fd;

    fixture_accept_many(f, 1000);
    assert_int_equal(journal_checkpoint(f->dispatcher, &wal), RC_OK);
    journal_free(&f->edge);
    journal_free(&f->dispatcher);
    fd = open(f->path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    memset(junk, 0xa5, sizeof junk);
    for (off_t at = 4096; at < st.st_size; at += 4096) {
        assert_int_equal(pwrite(fd, junk, sizeof junk, at), sizeof junk);
    }
    (void)close(fd);
    (void)snprintf(junk, sizeof junk, "%s-wal", f->path);
    (void)unlink(junk);
    (void)snprintf(junk, sizeof junk, "%s-shm", f->path);
    (void)unlink(junk);
    reader = fixture_journal(f, JOURNAL_READER);
    assert_int_equal(
        journal_queue_page(reader, SERVICE_CALLBACK, 0, 10, 1000, &page),
        RC_IO);
    assert_non_null(strstr(journal_error(reader), "malformed"));
    journal_page_free(&page);
    journal_free(&reader);
}

static void
a_path_that_cannot_be_made_is_an_error(void **state)
{
    struct fixture *f = *state;
    struct journal_request r = fixture_request(f, "[1]");
    struct journal_options options = f->options;
    struct journal *j = NULL;

    options.path = "/proc/self/nowhere/journal.db";
    options.role = JOURNAL_EDGE;
    assert_int_equal(journal_new(&j, &options), RC_OK);
    assert_string_equal(journal_error(j), "");
    assert_int_equal(journal_accept(j, &r, 1, 0), RC_IO);
    assert_non_null(strstr(journal_error(j), "nowhere"));
    journal_free(&j);
}

static void
a_new_ledger_is_empty_and_balanced(void **state)
{
    struct fixture *f = *state;
    struct journal_ledger l = fixture_ledger(f);
    int64_t used = 0;

    assert_int_equal(l.accepted, 0);
    assert_int_equal(l.pending, 0);
    assert_int_equal(l.oldest_received_unix_ms, 0);
    assert_int_equal(journal_used_bytes(f->dispatcher, &used), RC_OK);
    assert_true(used > 0 && used < 1024 * 1024);
}

static void
the_ledger_notices_what_is_missing(void **state)
{
    struct fixture *f = *state;
    struct journal_ledger ledger[SERVICE_COUNT];

    fixture_accept_many(f, 3);
    fixture_sql(f, "DELETE FROM queue_callback WHERE seq = 2");
    assert_int_equal(journal_ledger(f->dispatcher, ledger), RC_OK);
    assert_false(ledger[SERVICE_CALLBACK].balanced);
    fixture_sql(f, "UPDATE counter SET accepted = 2");
    assert_int_equal(fixture_ledger(f).pending, 2);
    /* A dead letter without its row. */
    fixture_sql(f, "UPDATE counter SET accepted = 3, dead = 1");
    assert_int_equal(journal_ledger(f->dispatcher, ledger), RC_OK);
    assert_false(ledger[SERVICE_CALLBACK].balanced);
}

int
main(void)
{
#define CASE(name)                                                             \
    cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        CASE(a_reader_waits_for_the_file),
        CASE(a_reader_cannot_write),
        CASE(the_group_may_write_whatever_the_umask),
        CASE(the_file_is_set_up_to_be_durable),
        CASE(a_newer_schema_is_refused),
        CASE(another_database_is_refused_and_left_alone),
        CASE(a_file_that_is_no_database_is_refused),
        CASE(a_damaged_page_is_an_error_not_a_crash),
        CASE(a_path_that_cannot_be_made_is_an_error),
        CASE(a_new_ledger_is_empty_and_balanced),
        CASE(the_ledger_notices_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
