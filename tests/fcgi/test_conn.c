/* fcgi/conn.c: the table of connections. */
#include "fcgi/conn.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define MAX 4

static int
some_fd(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static void
table_is_full_at_its_bound(void **state)
{
    struct conn_table *table;
    struct conn *conn = NULL;
    int fd = some_fd();

    (void)state;
    assert_int_equal(conn_table_new(&table, MAX), RC_OK);
    for (int k = 0; k < MAX; k++) {
        conn = conn_add(table, some_fd(), k);
        assert_non_null(conn);
    }
    assert_int_equal(conn_open_count(table), MAX);
    assert_null(conn_add(table, fd, 9));
    conn_close(table, conn);
    assert_int_equal(conn_open_count(table), MAX - 1);
    assert_ptr_equal(conn_add(table, fd, 9), conn);
    conn_table_free(&table);
    assert_null(table);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* closed with the table */
}

static void
lists_are_oldest_first(void **state)
{
    struct conn_table *table;
    struct conn *a;
    struct conn *b;
    struct conn *c;

    (void)state;
    assert_int_equal(conn_table_new(&table, MAX), RC_OK);
    a = conn_add(table, some_fd(), 1);
    b = conn_add(table, some_fd(), 2);
    c = conn_add(table, some_fd(), 3);
    assert_ptr_equal(conn_oldest(table, CONN_FRESH), a);
    conn_move(table, a, CONN_KEPT, 4);
    assert_ptr_equal(conn_oldest(table, CONN_FRESH), b);
    assert_ptr_equal(conn_oldest(table, CONN_KEPT), a);
    assert_int_equal(a->since_ms, 4);
    conn_move(table, c, CONN_KEPT, 5);
    assert_ptr_equal(conn_oldest(table, CONN_KEPT), a);
    conn_move(table, a, CONN_KEPT, 6); /* to its end */
    assert_ptr_equal(conn_oldest(table, CONN_KEPT), c);
    conn_close(table, c);
    assert_ptr_equal(conn_oldest(table, CONN_KEPT), a);
    assert_null(conn_oldest(table, CONN_PART));
    conn_table_free(&table);
}

static void
place_is_clean_for_the_next_one(void **state)
{
    struct conn_table *table;
    struct conn *conn;

    (void)state;
    assert_int_equal(conn_table_new(&table, 1), RC_OK);
    conn = conn_add(table, some_fd(), 1);
    conn->peeks = 7;
    conn->in_epoll = true;
    conn->walk.id = 3;
    conn_close(table, conn);
    assert_int_equal(conn->state, CONN_FREE);
    assert_int_equal(conn->fd, -1);
    conn = conn_add(table, some_fd(), 2);
    assert_int_equal(conn->peeks, 0);
    assert_false(conn->in_epoll);
    assert_int_equal(conn->walk.id, 0);
    conn_table_free(&table);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_full_at_its_bound),
        cmocka_unit_test(lists_are_oldest_first),
        cmocka_unit_test(place_is_clean_for_the_next_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
