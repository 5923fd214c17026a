/* The whole program around the loop: configuration, socket, signals. */
#include "fcgi/edge.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "fcgi/edge_listen.h"
#include "fcgi/edge_loop.h"
#include "fcgi/edge_read.h"
#include "shared/log.h"

#ifndef SLUICE_VERSION
#define SLUICE_VERSION "0"
#endif

struct program {
    const struct edge_app *app;
    int argc;
    char **argv;
    /* flags */
    const char *listen_path;
    bool die_with_parent;
    bool help;
    bool version;
    /* owned */
    struct conf conf;
    struct edge_listen listen;
    struct journal *journal;
    struct push *push;
    struct auth *auth;
    struct edge_loop *loop;
    int signal_fd;
};

static void
print_help(const char *name)
{
    printf("Usage: %s [--config FILE | --dir DIR] [--listen PATH] "
           "[--die-with-parent] [--SECTION-KEY VALUE]...\n"
           "Serves FastCGI on descriptor 0 (spawn-fcgi, mod_fcgid), on "
           "systemd's socket (LISTEN_FDS),\nor on a UNIX socket of its own "
           "(--listen). SIGTERM ends it cleanly, SIGHUP re-reads FILE.\n",
           name);
}

static enum rc
load_conf(struct program *p, struct conf *conf)
{
    const struct conf_flag flags[] = {
        {"listen", NULL, &p->listen_path},
        {"die-with-parent", &p->die_with_parent, NULL},
        {"help", &p->help, NULL},
        {"version", &p->version, NULL},
        {0},
    };
    struct text errors = {0};
    enum rc rc = conf_load(p->argc, p->argv, flags, NULL, conf, &errors);

    if (rc != RC_OK) {
        fprintf(stderr, "%s", text_cstr(&errors));
    }
    text_free(&errors);
    return rc;
}

/* Have SIGTERM when the parent (multiwatch) dies; it may have died already. */
static void
follow_parent(void)
{
    pid_t parent = getppid();

    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent || parent == 1) {
        (void)raise(SIGTERM); /* blocked: the loop will find it */
    }
}

/* Blocked before any thread starts, so that the signalfd gets them all. */
static int
block_signals(void)
{
    sigset_t set;

    (void)signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0) {
        return -1;
    }
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* SIGHUP: the new configuration is taken as a whole, or refused. */
static void
reload(struct program *p)
{
    struct text which = {0};
    struct auth *auth = NULL;
    struct conf fresh;

    if (load_conf(p, &fresh) != RC_OK ||
        auth_new(&auth, fresh.auth.keys_file) != RC_OK) {
        log_event(LOG_ERROR, "reload_refused", "file=\"%s\"", p->conf.file);
        return;
    }
    if (conf_needs_restart(&p->conf, &fresh, &which)) {
        log_event(LOG_WARN, "restart_needed", "keys=\"%s\"", text_cstr(&which));
    }
    text_free(&which);
    log_set_level(fresh.log.level);
    edge_loop_reload(p->loop, &fresh, auth);
    auth_free(&p->auth);
    p->auth = auth;
    p->conf = fresh;
    log_event(LOG_INFO, "reloaded", "file=\"%s\"", p->conf.file);
}

static void
on_signal(void *arg)
{
    struct program *p = arg;
    struct signalfd_siginfo info;

    while (read(p->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (info.ssi_signo == SIGHUP) {
            reload(p);
        } else {
            edge_listen_unlink(&p->listen);
            edge_loop_drain(p->loop);
        }
    }
}

static bool
app_commits(const struct edge_app *app)
{
    for (size_t k = 0; k < app->route_count; k++) {
        if (app->routes[k].accept != NULL || app->routes[k].cancel != 0) {
            return true;
        }
    }
    return false;
}

static enum rc
open_journal(struct program *p)
{
    const struct journal_options options =
        journal_options_of(&p->conf.journal, JOURNAL_EDGE);
    enum rc rc;

    if (!app_commits(p->app)) {
        return RC_OK;
    }
    rc = journal_new(&p->journal, &options);
    return rc == RC_OK ? push_new(&p->push, p->conf.link.endpoint) : rc;
}

static enum rc
open_socket(struct program *p)
{
    enum rc rc = edge_listen_open(&p->listen, p->listen_path);

    if (rc == RC_AGAIN) {
        fprintf(stderr, "%s: another process listens on %s\n", p->app->name,
                p->listen_path);
    } else if (rc == RC_INVALID && p->listen_path == NULL) {
        fprintf(stderr,
                "%s: descriptor 0 is no listening socket: start it with "
                "spawn-fcgi or a web server, or use --listen PATH\n",
                p->app->name);
    } else if (rc != RC_OK) {
        fprintf(stderr, "%s: %s: %s\n", p->app->name,
                p->listen_path != NULL ? p->listen_path : "descriptor 0",
                rc == RC_INVALID ? "path too long" : strerror(errno));
    }
    return rc;
}

static enum rc
start(struct program *p)
{
    struct edge_loop_options options;
    enum rc rc = open_socket(p);

    if (rc != RC_OK) {
        return rc;
    }
    rc = auth_new(&p->auth, p->conf.auth.keys_file);
    if (rc != RC_OK) {
        fprintf(stderr, "%s: auth.keys_file %s: %s\n", p->app->name,
                p->conf.auth.keys_file, rc_name(rc));
        return rc;
    }
    p->signal_fd = block_signals();
    if (p->signal_fd < 0) {
        return RC_IO;
    }
    if (p->die_with_parent) {
        follow_parent();
    }
    rc = edge_read_init();
    if (rc == RC_OK) {
        rc = open_journal(p);
    }
    options = (struct edge_loop_options){
        .app = p->app,
        .conf = &p->conf,
        .listen_fd = p->listen.fd,
        .listen_owned = p->listen.owned,
        .journal = p->journal,
        .push = p->push,
        .auth = p->auth,
    };
    if (rc == RC_OK) {
        rc = edge_loop_new(&p->loop, &options);
    }
    return rc == RC_OK ? edge_loop_watch(p->loop, p->signal_fd, on_signal, p)
                       : rc;
}

static void
stop(struct program *p)
{
    edge_loop_free(&p->loop);
    push_free(&p->push);
    journal_free(&p->journal);
    auth_free(&p->auth);
    edge_listen_unlink(&p->listen);
    if (p->signal_fd >= 0) {
        close(p->signal_fd);
    }
}

static int
serve(struct program *p)
{
    enum rc rc = start(p);

    if (rc != RC_OK) {
        log_event(LOG_ERROR, "start_failed", "rc=%s", rc_name(rc));
        stop(p);
        return EXIT_FAILURE;
    }
    log_event(LOG_INFO, "started", "version=%s config=\"%s\"", SLUICE_VERSION,
              p->conf.file);
    rc = edge_loop_run(p->loop);
    log_event(LOG_INFO, "stopped", "rc=%s", rc_name(rc));
    if (rc == RC_OK) {
        stop(p);
    }
    /* Else a pool thread still waits for a database: the end of the process
     * ends it, for joining it could take longer than we may. */
    return EXIT_SUCCESS;
}

int
edge_main(int argc, char **argv, const struct edge_app *app)
{
    static struct program program; /* large; one a process */
    struct program *p = &program;
    enum rc rc;

    p->app = app;
    p->argc = argc;
    p->argv = argv;
    p->signal_fd = -1;
    p->listen.fd = -1;
    log_init(app->name, LOG_INFO);
    for (int k = 1; k < argc; k++) { /* without a configuration */
        p->help |= strcmp(argv[k], "--help") == 0;
        p->version |= strcmp(argv[k], "--version") == 0;
    }
    if (p->help) {
        print_help(app->name);
        return EXIT_SUCCESS;
    }
    if (p->version) {
        printf("%s (sluice) %s\n", app->name, SLUICE_VERSION);
        return EXIT_SUCCESS;
    }
    rc = load_conf(p, &p->conf);
    if (rc != RC_OK) {
        return EXIT_FAILURE;
    }
    log_set_level(p->conf.log.level);
    return serve(p);
}
