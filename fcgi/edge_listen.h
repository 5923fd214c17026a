/* Where a handler's listening socket comes from. */
#ifndef SLUICE_FCGI_EDGE_LISTEN_H
#define SLUICE_FCGI_EDGE_LISTEN_H

#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

#include "shared/rc.h"

struct edge_listen {
    int fd;
    bool owned;       /* made here: nobody else accepts from it */
    const char *path; /* of an owned one; borrowed */
    dev_t device;     /* of the socket in the file system ... */
    ino_t inode;
    struct timespec made; /* ... for an inode's number is used again */
};

/* path: make a UNIX socket there (mode 0660), in the place of a stale one.
 * NULL: systemd's (LISTEN_FDS), else descriptor 0.
 * The socket is non-blocking. RC_INVALID: there is none, or the path is too
 * long; RC_AGAIN: another process listens at path; RC_IO: errno says why.
 * Main thread, before any other. */
enum rc edge_listen_open(struct edge_listen *out, const char *path) MUST_CHECK;

/* Become the leader of the processes that share the listening socket fd, the
 * one that takes what comes (edge_loop.c says why). True: this process is it,
 * until edge_listen_resign() or its end. Any thread. */
bool edge_listen_lead(int fd);
void edge_listen_resign(int fd);

/* Remove an owned socket's path, unless another one has taken its place. */
void edge_listen_unlink(const struct edge_listen *l);

#endif
