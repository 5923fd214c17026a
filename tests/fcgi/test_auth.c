/* fcgi/auth.c: the file of API keys. */
#include "fcgi/auth.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static enum rc
load(const char *content, struct auth **auth)
{
    char path[] = "/tmp/test_auth.XXXXXX";
    int fd = mkstemp(path);
    enum rc rc;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, content, strlen(content)), strlen(content));
    close(fd);
    rc = auth_new(auth, path);
    unlink(path);
    return rc;
}

static void
without_a_file_everybody_passes(void **state)
{
    struct auth *auth;

    (void)state;
    assert_int_equal(auth_new(&auth, ""), RC_OK);
    assert_true(auth_permits(auth, ""));
    assert_true(auth_permits(auth, "Bearer x"));
    auth_free(&auth);
    assert_null(auth);
}

static void
known_keys_pass_and_others_do_not(void **state)
{
    struct auth *auth;

    (void)state;
    assert_int_equal(load("# keys\n\n  first \nsecond\r\nthird", &auth), RC_OK);
    assert_true(auth_permits(auth, "Bearer first"));
    assert_true(auth_permits(auth, "bearer  second"));
    assert_true(auth_permits(auth, "Bearer third"));
    assert_false(auth_permits(auth, "Bearer "));
    assert_false(auth_permits(auth, "Bearer firs"));
    assert_false(auth_permits(auth, "Bearer first "));
    assert_false(auth_permits(auth, "Bearer # keys"));
    assert_false(auth_permits(auth, "Basic first"));
    assert_false(auth_permits(auth, "first"));
    assert_false(auth_permits(auth, ""));
    auth_free(&auth);
}

static void
files_that_cannot_be_meant_are_refused(void **state)
{
    struct auth *auth;
    char line[300];

    (void)state;
    memset(line, 'k', sizeof(line));
    line[255] = '\0';
    assert_int_equal(load(line, &auth), RC_OK);
    auth_free(&auth);
    line[255] = 'k';
    line[256] = '\0';
    assert_int_equal(load(line, &auth), RC_INVALID);
    assert_null(auth);
    assert_int_equal(load("two words\n", &auth), RC_INVALID);
    assert_int_equal(load("# nothing\n", &auth), RC_INVALID);
    assert_int_equal(auth_new(&auth, "/nonexistent/keys"), RC_IO);
    assert_null(auth);
}

static void
many_keys_are_held(void **state)
{
    struct auth *auth;
    char content[4096] = "";
    size_t used = 0;

    (void)state;
    for (int k = 0; k < 100; k++) {
        used += (size_t)snprintf(content + used, sizeof(content) - used,
                                 "key-%d\n", k);
    }
    assert_int_equal(load(content, &auth), RC_OK);
    assert_true(auth_permits(auth, "Bearer key-0"));
    assert_true(auth_permits(auth, "Bearer key-99"));
    assert_false(auth_permits(auth, "Bearer key-100"));
    auth_free(&auth);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_file_everybody_passes),
        cmocka_unit_test(known_keys_pass_and_others_do_not),
        cmocka_unit_test(files_that_cannot_be_meant_are_refused),
        cmocka_unit_test(many_keys_are_held),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
