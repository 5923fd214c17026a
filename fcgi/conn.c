/* The table of connections, see conn.h. */
#include "fcgi/conn.h"

#include <stdlib.h>
#include <unistd.h>

static void
list_add(struct conn_list *list, struct conn *conn)
{
    conn->next = NULL;
    conn->prev = list->last;
    if (list->last != NULL) {
        list->last->next = conn;
    } else {
        list->first = conn;
    }
    list->last = conn;
    list->count++;
}

static void
list_remove(struct conn_list *list, struct conn *conn)
{
    if (conn->prev != NULL) {
        conn->prev->next = conn->next;
    } else {
        list->first = conn->next;
    }
    if (conn->next != NULL) {
        conn->next->prev = conn->prev;
    } else {
        list->last = conn->prev;
    }
    list->count--;
}

enum rc
conn_table_new(struct conn_table **out, size_t max)
{
    struct conn_table *table = calloc(1, sizeof(*table));

    *out = NULL;
    if (table == NULL) {
        return RC_NOMEM;
    }
    table->all = calloc(max, sizeof(*table->all));
    if (table->all == NULL) {
        free(table);
        return RC_NOMEM;
    }
    table->max = max;
    for (size_t k = 0; k < max; k++) {
        table->all[k].fd = -1;
        list_add(&table->lists[CONN_FREE], &table->all[k]);
    }
    *out = table;
    return RC_OK;
}

void
conn_table_free(struct conn_table **table)
{
    if (*table == NULL) {
        return;
    }
    for (size_t k = 0; k < (*table)->max; k++) {
        if ((*table)->all[k].fd >= 0) {
            close((*table)->all[k].fd);
        }
    }
    free((*table)->all);
    free(*table);
    *table = NULL;
}

struct conn *
conn_add(struct conn_table *table, int fd, int64_t now_ms)
{
    /* The one freed last: it is in the cache. */
    struct conn *conn = table->lists[CONN_FREE].last;

    if (conn == NULL) {
        return NULL;
    }
    conn->fd = fd;
    conn->in_epoll = false;
    conn->peeks = 0;
    conn->walk = (struct records){0};
    conn_move(table, conn, CONN_FRESH, now_ms);
    return conn;
}

void
conn_move(struct conn_table *table, struct conn *conn, enum conn_state state,
          int64_t now_ms)
{
    list_remove(&table->lists[conn->state], conn);
    conn->state = state;
    conn->since_ms = now_ms;
    list_add(&table->lists[state], conn);
}

void
conn_close(struct conn_table *table, struct conn *conn)
{
    if (conn->fd >= 0) {
        close(conn->fd);
    }
    conn->fd = -1;
    conn->in_epoll = false; /* close() took it out */
    conn_move(table, conn, CONN_FREE, 0);
}

struct conn *
conn_oldest(const struct conn_table *table, enum conn_state state)
{
    return table->lists[state].first;
}

size_t
conn_open_count(const struct conn_table *table)
{
    return table->max - table->lists[CONN_FREE].count;
}
