/* Mailboxes between threads: a list under a mutex, and an eventfd. */
#include "fcgi/mailbox.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

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
