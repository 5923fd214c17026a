/* Exchanges, lists of them, and mailboxes between threads. */
#include "fcgi/exchange.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define KEEP_BYTES_MAX (128U * 1024U)

enum rc
exchange_new(struct exchange **out)
{
    struct exchange *ex = calloc(1, sizeof(*ex));
    enum rc rc;

    *out = NULL;
    if (ex == NULL) {
        return RC_NOMEM;
    }
    rc = edge_read_new(&ex->reader);
    if (rc != RC_OK) {
        free(ex);
        return rc;
    }
    ex->fd = -1;
    *out = ex;
    return RC_OK;
}

void
exchange_free(struct exchange **ex)
{
    if (*ex == NULL) {
        return;
    }
    edge_read_free(&(*ex)->reader);
    free((*ex)->body.data);
    reply_free(&(*ex)->reply);
    text_free(&(*ex)->wire);
    text_free(&(*ex)->record);
    free(*ex);
    *ex = NULL;
}

static void
trim(struct text *t)
{
    text_reset(t);
    if (t->capacity > KEEP_BYTES_MAX) {
        text_free(t);
    }
}

void
exchange_reset(struct exchange *ex)
{
    edge_read_release(ex->reader);
    ex->next = NULL;
    ex->conn = NULL;
    ex->fd = -1;
    ex->walk = (struct records){0};
    ex->keep = false;
    ex->extra = false;
    ex->head_only = false;
    ex->route = NULL;
    ex->sent = 0;
    ex->key_bytes = 0;
    ex->request.request_id[0] = '\0';
    if (ex->body.capacity > KEEP_BYTES_MAX) {
        free(ex->body.data);
        ex->body = (struct edge_body){0};
    }
    trim(&ex->reply.body);
    reply_reset(&ex->reply);
    trim(&ex->wire);
    trim(&ex->record);
}

void
exchange_list_add(struct exchange_list *list, struct exchange *ex)
{
    ex->next = NULL;
    if (list->last != NULL) {
        list->last->next = ex;
    } else {
        list->first = ex;
    }
    list->last = ex;
    list->count++;
}

struct exchange *
exchange_list_take(struct exchange_list *list)
{
    struct exchange *ex = list->first;

    if (ex != NULL) {
        list->first = ex->next;
        if (list->first == NULL) {
            list->last = NULL;
        }
        list->count--;
        ex->next = NULL;
    }
    return ex;
}

struct mailbox {
    pthread_mutex_t mutex;
    struct exchange_list list;
    int event_fd;
};

enum rc
mailbox_new(struct mailbox **out)
{
    struct mailbox *box = calloc(1, sizeof(*box));

    *out = NULL;
    if (box == NULL) {
        return RC_NOMEM;
    }
    box->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (box->event_fd < 0) {
        free(box);
        return RC_IO;
    }
    if (pthread_mutex_init(&box->mutex, NULL) != 0) {
        close(box->event_fd);
        free(box);
        return RC_NOMEM;
    }
    *out = box;
    return RC_OK;
}

void
mailbox_free(struct mailbox **box)
{
    struct exchange *ex;

    if (*box == NULL) {
        return;
    }
    for (ex = exchange_list_take(&(*box)->list); ex != NULL;
         ex = exchange_list_take(&(*box)->list)) {
        exchange_free(&ex);
    }
    pthread_mutex_destroy(&(*box)->mutex);
    close((*box)->event_fd);
    free(*box);
    *box = NULL;
}

int
mailbox_fd(const struct mailbox *box)
{
    return box->event_fd;
}

void
mailbox_wake(struct mailbox *box)
{
    const uint64_t one = 1;

    /* Can only fail when the counter is full: then the reader is awake. */
    (void)!write(box->event_fd, &one, sizeof(one));
}

void
mailbox_put(struct mailbox *box, struct exchange *ex)
{
    pthread_mutex_lock(&box->mutex);
    exchange_list_add(&box->list, ex);
    pthread_mutex_unlock(&box->mutex);
    mailbox_wake(box);
}

struct exchange_list
mailbox_take(struct mailbox *box)
{
    struct exchange_list list;
    uint64_t count;

    (void)!read(box->event_fd, &count, sizeof(count));
    pthread_mutex_lock(&box->mutex);
    list = box->list;
    box->list = (struct exchange_list){0};
    pthread_mutex_unlock(&box->mutex);
    return list;
}
