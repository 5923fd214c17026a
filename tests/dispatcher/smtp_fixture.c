/* The simulator prints its port once it may be connected to. */
#include "tests/dispatcher/smtp_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PYTHON "/usr/bin/python3"
#define ARGUMENTS_MAX 24
#define PATH_BYTES 256

static void
become(const struct smtp_fixture *f, const char *const *options, int out)
{
    const char *top = getenv("TOP_SRCDIR");
    char program[PATH_BYTES];
    char log[PATH_BYTES];
    char blocked[PATH_BYTES];
    const char *arguments[ARGUMENTS_MAX] = {PYTHON, program,     "--log",
                                            log,    "--blocked", blocked};
    size_t count = 6;

    (void)snprintf(program, sizeof(program), "%s/tests/sim/smtp.py",
                   top == NULL ? ".." : top);
    (void)snprintf(log, sizeof(log), "%s/log", f->folder);
    (void)snprintf(blocked, sizeof(blocked), "%s/blocked", f->folder);
    while (*options != NULL && count < ARGUMENTS_MAX - 1) {
        arguments[count++] = *options++;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)dup2(out, STDOUT_FILENO);
    (void)execv(PYTHON, (char *const *)(uintptr_t)arguments);
    _exit(127);
}

void
smtp_fixture_start(struct smtp_fixture *f, const char *const *options)
{
    char line[32] = "";
    int fds[2];
    FILE *stream;

    (void)snprintf(f->folder, sizeof(f->folder), "/tmp/sluice_smtp_XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    assert_int_equal(pipe(fds), 0);
    f->pid = fork();
    if (f->pid == 0) {
        become(f, options, fds[1]);
    }
    assert_int_equal(close(fds[1]), 0);
    stream = fdopen(fds[0], "r");
    assert_non_null(stream);
    assert_non_null(fgets(line, sizeof(line), stream));
    assert_int_equal(fclose(stream), 0);
    line[strcspn(line, "\n")] = '\0';
    (void)snprintf(f->url, sizeof(f->url), "smtp://127.0.0.1:%s", line);
}

void
smtp_fixture_stop(struct smtp_fixture *f)
{
    static const char *const files[] = {"log", "blocked", "cert.pem"};

    if (f->pid == 0) {
        return;
    }
    (void)kill(f->pid, SIGKILL);
    (void)waitpid(f->pid, NULL, 0);
    f->pid = 0;
    for (size_t k = 0; k < sizeof(files) / sizeof(files[0]); k++) {
        char path[PATH_BYTES];

        (void)snprintf(path, sizeof(path), "%s/%s", f->folder, files[k]);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(f->folder), 0);
}

size_t
smtp_fixture_count(const struct smtp_fixture *f, const char *text)
{
    char path[PATH_BYTES];
    char line[2048];
    size_t count = 0;
    FILE *log;

    (void)snprintf(path, sizeof(path), "%s/log", f->folder);
    log = fopen(path, "r");
    if (log == NULL) {
        return 0;
    }
    while (fgets(line, sizeof(line), log) != NULL) {
        count += strstr(line, text) != NULL ? 1 : 0;
    }
    assert_int_equal(fclose(log), 0);
    return count;
}

void
smtp_fixture_block(const struct smtp_fixture *f, bool blocked)
{
    char path[PATH_BYTES];

    (void)snprintf(path, sizeof(path), "%s/blocked", f->folder);
    if (blocked) {
        FILE *file = fopen(path, "w");

        assert_non_null(file);
        assert_int_equal(fclose(file), 0);
    } else {
        assert_int_equal(unlink(path), 0);
    }
}
