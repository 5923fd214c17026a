/* Migrations. Each file and its record are one transaction, so that a kill
 * leaves all of it or nothing. The advisory lock is the transaction's, not the
 * session's, which a pooler may share; the record is written first, so that of
 * two programs that start at once the second finds it there, is undone, and
 * looks again. */
#include "dispatcher/migrate.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/hash.h"
#include "shared/log.h"

#define NAME_BYTES 256 /* as dirent has */
#define PATH_BYTES 4096
#define FILES_MAX 999
#define SCRIPT_BYTES_MAX ((size_t)1024 * 1024)
#define DIGEST_TEXT_BYTES (2 * HASH_BYTES + 1)
#define LOCK_KEY "824791305" /* ours among the database's advisory locks */

struct file {
    int number;
    char name[NAME_BYTES]; /* "0001_objects.sql" */
    char digest[DIGEST_TEXT_BYTES];
    struct text script;
};

struct migration {
    struct pg *pg;
    const char *directory;
    struct file *files; /* by number, from 1 without a gap */
    int count;
    struct text *why;
};

/* ---- the folder -----------------------------------------------------------
 */

static int
is_migration(const struct dirent *entry)
{
    const char *name = entry->d_name;
    size_t bytes = strlen(name);

    return bytes > strlen("0000_.sql") && bytes < NAME_BYTES &&
           strchr(name, '\'') == NULL && isdigit((unsigned char)name[0]) &&
           isdigit((unsigned char)name[1]) && isdigit((unsigned char)name[2]) &&
           isdigit((unsigned char)name[3]) && name[4] == '_' &&
           strcmp(name + bytes - 4, ".sql") == 0;
}

static enum rc
digest_script(struct file *file)
{
    uint8_t digest[HASH_BYTES];
    enum rc rc = hash_sha256(file->script.data, file->script.bytes, digest);

    for (int i = 0; i < HASH_BYTES; i++) {
        (void)snprintf(file->digest + 2 * i, 3, "%02x", digest[i]);
    }
    return rc;
}

static enum rc
read_file(struct migration *m, struct file *file)
{
    char path[PATH_BYTES];
    char block[4096];
    enum rc rc = RC_OK;
    FILE *in;
    size_t got;

    (void)snprintf(path, sizeof path, "%s/%s", m->directory, file->name);
    in = fopen(path, "re");
    if (in == NULL) {
        text_printf(m->why, "%s: %s", path, strerror(errno));
        return RC_IO;
    }
    file->script.max_bytes = SCRIPT_BYTES_MAX;
    do {
        got = fread(block, 1, sizeof block, in);
        text_append(&file->script, block, got);
    } while (got == sizeof block);
    if (ferror(in) != 0 || text_failed(&file->script)) {
        text_printf(m->why, "%s: cannot be read whole", path);
        rc = RC_IO;
    }
    (void)fclose(in);
    return rc == RC_OK ? digest_script(file) : rc;
}

static enum rc
read_folder(struct migration *m)
{
    struct dirent **entries = NULL;
    enum rc rc = RC_OK;
    int count = scandir(m->directory, &entries, is_migration, alphasort);

    if (count <= 0 || count > FILES_MAX) {
        text_printf(m->why, "%s: %s", m->directory,
                    count < 0 ? strerror(errno) : "holds no migrations");
        rc = RC_IO;
    } else {
        m->files = calloc((size_t)count, sizeof *m->files);
        rc = m->files == NULL ? RC_NOMEM : RC_OK;
    }
    for (int i = 0; rc == RC_OK && i < count; i++) {
        struct file *file = &m->files[m->count++];

        (void)snprintf(file->name, sizeof file->name, "%s", entries[i]->d_name);
        file->number = (int)strtol(file->name, NULL, 10);
        if (file->number != i + 1) {
            text_printf(m->why, "%s/%s: number %04d is missing or twice",
                        m->directory, file->name, i + 1);
            rc = RC_INVALID;
        } else {
            rc = read_file(m, file);
        }
    }
    for (int i = 0; i < count; i++) {
        free(entries[i]);
    }
    free(entries);
    return rc;
}

/* ---- the database ----------------------------------------------------------
 */

static enum rc
failed(struct migration *m, const char *what, enum rc rc)
{
    text_printf(m->why, "%s: %s", what, pg_error(m->pg));
    return rc;
}

/* Run a script in a transaction under the lock. What fails leaves nothing. */
static enum rc
run_locked(struct migration *m, const char *script)
{
    struct text all = {0};
    enum rc rc;

    text_printf(&all,
                "BEGIN;SET LOCAL statement_timeout = %d;"
                "SELECT pg_advisory_xact_lock(" LOCK_KEY ");\n%s\n;COMMIT",
                PG_SCRIPT_TIMEOUT_MS, script);
    rc = text_failed(&all) ? RC_NOMEM : pg_exec_script(m->pg, text_cstr(&all));
    text_free(&all);
    if (rc != RC_OK) {
        pg_disconnect(m->pg); /* with its transaction */
    }
    return rc;
}

/* Asked before it is made: IF NOT EXISTS wants the privilege to create even
 * where the table is there. */
static enum rc
prepare(struct migration *m)
{
    struct pg_result *result = NULL;
    enum rc rc =
        pg_exec(m->pg, "SELECT to_regclass('sluice_migrations') IS NULL", 0,
                NULL, &result);
    bool missing = rc == RC_OK && strcmp(pg_value(result, 0, 0), "t") == 0;

    pg_result_free(&result);
    if (missing) {
        rc = run_locked(m, "CREATE TABLE IF NOT EXISTS sluice_migrations ("
                           "number integer PRIMARY KEY, name text NOT NULL, "
                           "sha256 text NOT NULL, "
                           "applied_at timestamptz NOT NULL DEFAULT now())");
    }
    return rc == RC_OK ? RC_OK : failed(m, "preparing migrations", rc);
}

/* Does what is recorded fit the files? *done = newest recorded number. */
static enum rc
compare(struct migration *m, int *done)
{
    struct pg_result *result = NULL;
    enum rc rc = pg_exec(m->pg,
                         "SELECT number, name, sha256 FROM sluice_migrations "
                         "ORDER BY number",
                         0, NULL, &result);

    if (rc != RC_OK) {
        return failed(m, "reading sluice_migrations", rc);
    }
    for (int row = 0; rc == RC_OK && row < pg_rows(result); row++) {
        int number = (int)pg_number(result, row, 0);
        const char *name = pg_value(result, row, 1);

        *done = number;
        if (number > m->count) {
            text_printf(m->why,
                        "the database has migration %s, the newest here is %s:"
                        " it was migrated by a newer version; run that one",
                        name, m->files[m->count - 1].name);
            rc = RC_INVALID;
        } else if (number != row + 1 || strcmp(pg_value(result, row, 2),
                                               m->files[row].digest) != 0) {
            text_printf(m->why,
                        "%s/%s differs from %s as it was applied (SHA-256): "
                        "restore the file, and put changes into a new one",
                        m->directory, m->files[row].name, name);
            rc = RC_INVALID;
        }
    }
    pg_result_free(&result);
    return rc;
}

/* RC_AGAIN: somebody else has just applied it. */
static enum rc
apply(struct migration *m, const struct file *file)
{
    struct text script = {0};
    enum rc rc;

    text_printf(&script,
                "INSERT INTO sluice_migrations (number, name, sha256) "
                "VALUES (%d, '%s', '%s');\n%s",
                file->number, file->name, file->digest,
                text_cstr(&file->script));
    rc = text_failed(&script) ? RC_NOMEM : run_locked(m, text_cstr(&script));
    text_free(&script);
    if (rc == RC_OK) {
        log_event(LOG_INFO, "migration_applied", "name=%s", file->name);
    } else if (strstr(pg_error(m->pg), "sluice_migrations_pkey") != NULL) {
        rc = RC_AGAIN;
    } else {
        rc = failed(m, file->name, rc);
    }
    return rc;
}

enum rc
migrate_apply(struct pg *pg, const char *directory, int *applied,
              struct text *why)
{
    struct migration m = {.pg = pg, .directory = directory, .why = why};
    int done = 0;
    enum rc rc;

    *applied = 0;
    rc = read_folder(&m);
    if (rc == RC_OK) {
        rc = prepare(&m);
    }
    if (rc == RC_OK) {
        rc = compare(&m, &done);
    }
    while (rc == RC_OK && done < m.count) {
        rc = apply(&m, &m.files[done]);
        *applied += rc == RC_OK ? 1 : 0;
        done += rc == RC_OK ? 1 : 0;
        if (rc == RC_AGAIN) {
            rc = compare(&m, &done);
        }
    }
    for (int i = 0; i < m.count; i++) {
        text_free(&m.files[i].script);
    }
    free(m.files);
    return rc;
}

const char *
migrate_directory(void)
{
    const char *directory = getenv("SLUICE_MIGRATIONS");

    return directory != NULL && directory[0] != '\0' ? directory
                                                     : MIGRATIONS_DIR;
}
