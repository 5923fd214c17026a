/* fcgi/edge_listen.c: where the listening socket comes from. */
#include "fcgi/edge_listen.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/test_listen.XXXXXX";
static char path[64];

static int
setup(void **state)
{
    (void)state;
    memcpy(dir, "/tmp/test_listen.XXXXXX", sizeof(dir));
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/edge.sock", dir);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(dir);
}

static void
own_socket_is_0660_and_not_blocking(void **state)
{
    struct edge_listen l;
    struct stat st;

    (void)state;
    assert_int_equal(edge_listen_open(&l, path), RC_OK);
    assert_true(l.owned);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    assert_true((fcntl(l.fd, F_GETFL) & O_NONBLOCK) != 0);
    assert_true((fcntl(l.fd, F_GETFD) & FD_CLOEXEC) != 0);
    edge_listen_unlink(&l);
    assert_int_equal(stat(path, &st), -1);
    close(l.fd);
}

static void
path_that_somebody_listens_on_is_refused(void **state)
{
    struct edge_listen first;
    struct edge_listen second;

    (void)state;
    assert_int_equal(edge_listen_open(&first, path), RC_OK);
    assert_int_equal(edge_listen_open(&second, path), RC_AGAIN);
    assert_int_equal(second.fd, -1);
    close(first.fd);
}

static void
stale_socket_is_replaced_and_left_to_its_new_owner(void **state)
{
    struct edge_listen first;
    struct edge_listen second;

    (void)state;
    assert_int_equal(edge_listen_open(&first, path), RC_OK);
    close(first.fd); /* as when it is killed: the file stays */
    assert_int_equal(edge_listen_open(&second, path), RC_OK);
    edge_listen_unlink(&first);
    assert_int_equal(access(path, F_OK), 0);
    close(second.fd);
}

static void
file_that_is_no_socket_is_not_touched(void **state)
{
    struct edge_listen l;
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(edge_listen_open(&l, path), RC_IO);
    assert_int_equal(errno, EEXIST);
    assert_int_equal(access(path, F_OK), 0);
}

static void
too_long_path_is_refused(void **state)
{
    struct edge_listen l;
    char longer[200];

    (void)state;
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(edge_listen_open(&l, longer), RC_INVALID);
    assert_int_equal(l.fd, -1);
}

/* A child that shares the socket: does it come to lead? */
static bool
child_leads(const struct edge_listen *l)
{
    pid_t child = fork();
    int status = -1;

    assert_true(child >= 0);
    if (child == 0) {
        _exit(edge_listen_lead(l->fd) ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void
one_process_leads_until_it_resigns(void **state)
{
    struct edge_listen l;

    (void)state;
    assert_int_equal(edge_listen_open(&l, path), RC_OK);
    assert_true(edge_listen_lead(l.fd));
    assert_true(edge_listen_lead(l.fd)); /* and goes on */
    assert_false(child_leads(&l));
    edge_listen_resign(l.fd);
    assert_true(child_leads(&l));
    assert_true(edge_listen_lead(l.fd)); /* the child is gone */
    edge_listen_unlink(&l);
    close(l.fd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_process_leads_until_it_resigns,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(own_socket_is_0660_and_not_blocking,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            path_that_somebody_listens_on_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(
            stale_socket_is_replaced_and_left_to_its_new_owner, setup,
            teardown),
        cmocka_unit_test_setup_teardown(file_that_is_no_socket_is_not_touched,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(too_long_path_is_refused, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
