/* The writers' turn: flock(2) on <path>.lock, which is fair between processes
 * where SQLite's own busy wait is not, and the lock of the one dispatcher.
 *
 * flock has no timeout of its own. A timer signals this thread when the time
 * is over, and again every few ms, for a signal that arrives just before the
 * system call would otherwise be lost. */
#include "shared/journal_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "shared/clock.h"

#define TIMER_SIGNAL (SIGRTMIN + 5)
#define TIMER_REPEAT_NS 10000000
#define FILE_MODE 0660

#ifndef sigev_notify_thread_id /* glibc before 2.37 has only its own name */
#define sigev_notify_thread_id _sigev_un._tid
#endif

static void
on_timer(int number)
{
    (void)number; /* its arrival makes flock return EINTR: that is all */
}

/* A timer that signals the calling thread after timeout_ms, and on. */
static bool
timer_start(int64_t timeout_ms, timer_t *timer)
{
    struct sigaction action = {.sa_handler = on_timer}; /* no SA_RESTART */
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID,
                             .sigev_signo = TIMER_SIGNAL};
    struct itimerspec when = {
        .it_value = {.tv_sec = timeout_ms / 1000,
                     .tv_nsec = (timeout_ms % 1000) * 1000000 + 1},
        .it_interval = {.tv_nsec = TIMER_REPEAT_NS}};

    event.sigev_notify_thread_id = gettid();
    if (sigaction(TIMER_SIGNAL, &action, NULL) != 0 ||
        timer_create(CLOCK_MONOTONIC, &event, timer) != 0) {
        return false;
    }
    if (timer_settime(*timer, 0, &when, NULL) != 0) {
        (void)timer_delete(*timer);
        return false;
    }
    return true;
}

/* Wait for the lock. 0, or an errno: ETIMEDOUT when it was not had in time. */
static int
lock_wait(int fd, int64_t timeout_ms)
{
    int64_t deadline_ms = clock_now_ms() + timeout_ms;
    sigset_t ours;
    sigset_t before;
    timer_t timer;
    int error = 0;

    sigemptyset(&ours);
    sigaddset(&ours, TIMER_SIGNAL);
    if (!timer_start(timeout_ms, &timer)) {
        return errno;
    }
    /* A thread that has all signals blocked would never hear it. */
    (void)pthread_sigmask(SIG_UNBLOCK, &ours, &before);
    while (flock(fd, LOCK_EX) != 0) {
        error = errno;
        if (error != EINTR) {
            break;
        }
        if (clock_now_ms() >= deadline_ms) {
            error = ETIMEDOUT;
            break;
        }
        error = 0; /* another signal, the program's own */
    }
    (void)timer_delete(timer);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

int
journal_create(const char *path, int flags)
{
    int fd =
        open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | flags, FILE_MODE);

    if (fd >= 0) {
        /* Handlers and dispatcher may be different users of one group: the
         * umask must not keep them apart. */
        (void)fchmod(fd, FILE_MODE);
        return fd;
    }
    return errno == EEXIST ? open(path, O_RDWR | O_CLOEXEC | flags) : -1;
}

enum rc
journal_lock(struct journal *j)
{
    int error = 0;

    if (j->locked) {
        return RC_BUG;
    }
    if (j->lock_fd < 0) {
        j->lock_fd = journal_create(j->lock_path, 0);
        if (j->lock_fd < 0) {
            journal_note(j, "%s: %s", j->lock_path, strerror(errno));
            return RC_IO;
        }
    }
    if (flock(j->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        error = errno;
    }
    if (error == EWOULDBLOCK || error == EINTR) {
        error = j->lock_only_tried ? ETIMEDOUT
                                   : lock_wait(j->lock_fd, j->lock_timeout_ms);
    }
    if (error == ETIMEDOUT) {
        /* An edge answers 503 at once from now on; the dispatcher has no one
         * who waits for an answer. */
        j->lock_only_tried = j->role == JOURNAL_EDGE;
        journal_note(j, "the lock was not free within %lld ms",
                     (long long)j->lock_timeout_ms);
        return RC_TIMEOUT;
    }
    if (error != 0) {
        journal_note(j, "%s: %s", j->lock_path, strerror(error));
        return RC_IO;
    }
    j->lock_only_tried = false;
    j->locked = true;
    return RC_OK;
}

void
journal_unlock(struct journal *j)
{
    if (j->locked) {
        (void)flock(j->lock_fd, LOCK_UN);
        j->locked = false;
    }
}

/* Pid of the flock holder of an inode according to /proc/locks, 0: none. The
 * device there is the super block's, which differs from stat's on overlay and
 * btrfs: then the inode alone must do. */
static pid_t
holder_of(const struct stat *st)
{
    char line[256];
    pid_t found = 0;
    FILE *locks = fopen("/proc/locks", "re");

    if (locks == NULL) {
        return 0;
    }
    while (fgets(line, sizeof line, locks) != NULL) {
        long pid = 0;
        unsigned int dev_major = 0;
        unsigned int dev_minor = 0;
        unsigned long inode = 0;

        /* "7: -> FLOCK" is one who waits, and does not match. */
        if (sscanf(line, "%*u: FLOCK %*s %*s %ld %x:%x:%lu", &pid, &dev_major,
                   &dev_minor, &inode) != 4 ||
            inode != st->st_ino || pid <= 0) {
            continue;
        }
        found = (pid_t)pid;
        if (dev_major == major(st->st_dev) && dev_minor == minor(st->st_dev)) {
            break;
        }
    }
    (void)fclose(locks);
    return found;
}

pid_t
journal_lock_holder(const char *path)
{
    char lock_path[4096];
    struct stat st;
    int n = snprintf(lock_path, sizeof lock_path, "%s.lock", path);

    if (n < 0 || (size_t)n >= sizeof lock_path || stat(lock_path, &st) != 0) {
        return 0;
    }
    return holder_of(&st);
}

enum rc
journal_dispatcher_lock(const char *path, int *fd, pid_t *holder)
{
    char lock_path[4096];
    struct stat st;
    int n = snprintf(lock_path, sizeof lock_path, "%s.dispatcher", path);

    *fd = -1;
    *holder = 0;
    if (n < 0 || (size_t)n >= sizeof lock_path) {
        return RC_INVALID;
    }
    *fd = journal_create(lock_path, 0);
    if (*fd < 0) {
        return RC_IO;
    }
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0) {
        return RC_OK;
    }
    int error = errno;
    if (error == EWOULDBLOCK && fstat(*fd, &st) == 0) {
        *holder = holder_of(&st);
    }
    (void)close(*fd);
    *fd = -1;
    return error == EWOULDBLOCK ? RC_AGAIN : RC_IO;
}
