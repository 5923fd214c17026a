/* The listening socket: inherited, or our own. */
#include "fcgi/edge_listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 4096 /* a full one is an instant 500 under lighttpd */
#define SYSTEMD_FD 3

static bool
is_listening(int fd)
{
    int on = 0;
    socklen_t bytes = sizeof(on);

    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &bytes) == 0 &&
           on != 0;
}

static int
inherited_fd(void)
{
    const char *pid = getenv("LISTEN_PID");
    const char *fds = getenv("LISTEN_FDS");

    if (pid != NULL && fds != NULL && strtol(pid, NULL, 10) == getpid() &&
        strtol(fds, NULL, 10) >= 1) {
        return SYSTEMD_FD;
    }
    return 0;
}

static enum rc
set_flags(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
        return RC_IO;
    }
    /* Descriptor 0 stays as it is: it has no meaning to a child. */
    return fd == 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 ? RC_OK : RC_IO;
}

/* Is somebody listening there? A socket file that nobody listens on is what
 * a killed process left behind. */
static enum rc
clear_path(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct stat st;
    enum rc rc = RC_OK;

    if (fd < 0) {
        return RC_IO;
    }
    if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0) {
        rc = RC_AGAIN;
    } else if (errno == EAGAIN) {
        rc = RC_AGAIN; /* somebody with a full backlog */
    } else if (errno == ECONNREFUSED) {
        if (lstat(address->sun_path, &st) != 0 || !S_ISSOCK(st.st_mode)) {
            errno = EEXIST;
            rc = RC_IO;
        } else if (unlink(address->sun_path) != 0) {
            rc = RC_IO;
        }
    } else if (errno != ENOENT) {
        rc = RC_IO;
    }
    close(fd);
    return rc;
}

static enum rc
bind_path(struct edge_listen *l, const struct sockaddr_un *address)
{
    mode_t mask = umask(0117); /* 0660 from its first moment on */
    int failed =
        bind(l->fd, (const struct sockaddr *)address, sizeof(*address));
    struct stat st;

    umask(mask);
    if (failed != 0 || listen(l->fd, BACKLOG) != 0 ||
        stat(address->sun_path, &st) != 0) {
        return RC_IO;
    }
    l->device = st.st_dev;
    l->inode = st.st_ino;
    l->made = st.st_mtim;
    return RC_OK;
}

static enum rc
open_own(struct edge_listen *l, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    enum rc rc;

    if (strlen(path) >= sizeof(address.sun_path)) {
        return RC_INVALID;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    rc = clear_path(&address);
    if (rc != RC_OK) {
        return rc;
    }
    l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (l->fd < 0) {
        return RC_IO;
    }
    l->owned = true;
    l->path = path;
    rc = bind_path(l, &address);
    if (rc != RC_OK) {
        int error = errno;

        close(l->fd);
        l->fd = -1;
        errno = error;
    }
    return rc;
}

enum rc
edge_listen_open(struct edge_listen *out, const char *path)
{
    *out = (struct edge_listen){.fd = -1};
    if (path != NULL) {
        return open_own(out, path);
    }
    out->fd = inherited_fd();
    if (!is_listening(out->fd)) {
        out->fd = -1;
        return RC_INVALID;
    }
    return set_flags(out->fd);
}

/* A record lock on the socket's own inode: the processes that share it have
 * nothing else in common for certain. The kernel gives it up with the process,
 * and sockets that are accepted have inodes of their own. */
static bool
lock_socket(int fd, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_len = 1};

    return fcntl(fd, F_SETLK, &lock) == 0 ||
           (errno != EAGAIN && errno != EACCES);
}

bool
edge_listen_lead(int fd)
{
    return lock_socket(fd, F_WRLCK);
}

void
edge_listen_resign(int fd)
{
    (void)lock_socket(fd, F_UNLCK);
}

void
edge_listen_unlink(const struct edge_listen *l)
{
    struct stat st;

    if (l->owned && stat(l->path, &st) == 0 && st.st_dev == l->device &&
        st.st_ino == l->inode && st.st_mtim.tv_sec == l->made.tv_sec &&
        st.st_mtim.tv_nsec == l->made.tv_nsec) {
        (void)unlink(l->path);
    }
}
