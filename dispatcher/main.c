/* sluiced, the dispatcher: configuration, the parts in their order, signals,
 * readiness. All work is done by the threads that the parts start; this one
 * only waits for a signal, or for the store to find that it can never work. */
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "dispatcher/control.h"
#include "dispatcher/feed.h"
#include "dispatcher/housekeeper.h"
#include "dispatcher/mailer.h"
#include "dispatcher/metrics.h"
#include "dispatcher/migrate.h"
#include "dispatcher/queue.h"
#include "dispatcher/service.h"
#include "dispatcher/sms_notifier.h"
#include "dispatcher/store_pg.h"
#include "dispatcher/work.h"
#include "dispatcher/writer.h"
#include "shared/clock.h"
#include "shared/conf.h"
#include "shared/journal.h"
#include "shared/log.h"
#include "shared/pg.h"

#define STOP_SERVICE_MS 4000
#define STOP_STORE_MS 3000
/* Descriptors beside one a fetch: databases, queues, files. */
#define OTHER_DESCRIPTORS 256

static const struct service_ops *const services[SERVICE_COUNT] = {
    [SERVICE_CALLBACK] = &callback_service,
    [SERVICE_CALL] = &call_service,
    [SERVICE_SMS] = &sms_service,
    [SERVICE_SMS_STATUS] = &sms_status_service,
    [SERVICE_INVITATION] = &invitation_service,
};

struct flags {
    bool test;
    bool migrate;
};

struct sluiced {
    int argc;
    char **argv;
    struct conf conf;
    struct journal_options journal;
    int lock_fd;
    int signal_fd;
    struct metrics *metrics;
    struct writer *writer;
    struct store_pg *store;
    struct queue *inboxes[SERVICE_COUNT];
    struct service_thread *services[SERVICE_COUNT];
    struct housekeeper *housekeeper;
    struct sms_notifier *sms_notifier;
    struct feed *feed;
    struct control *control;
};

/* ---- the parts --------------------------------------------------------------
 */

static enum rc
start_lock(struct sluiced *s)
{
    pid_t holder = 0;
    enum rc rc =
        journal_dispatcher_lock(s->conf.journal.path, &s->lock_fd, &holder);

    if (rc == RC_AGAIN) {
        log_event(LOG_ERROR, "second_dispatcher",
                  "journal=%s holder_pid=%ld hint=\"one dispatcher a journal; "
                  "stop that one first\"",
                  s->conf.journal.path, (long)holder);
    } else if (rc != RC_OK) {
        log_event(LOG_ERROR, "lock_failed", "path=%s.dispatcher error=\"%s\"",
                  s->conf.journal.path, strerror(errno));
    }
    return rc;
}

static void
stop_lock(struct sluiced *s)
{
    if (s->lock_fd >= 0) {
        (void)close(s->lock_fd);
        s->lock_fd = -1;
    }
}

static enum rc
start_metrics(struct sluiced *s)
{
    return metrics_new(&s->metrics);
}

static void
stop_metrics(struct sluiced *s)
{
    metrics_free(&s->metrics);
}

/* The file is made here if it must, so that the readers find it, and so that
 * a path that can never work is told at once. A lock or a disk that is not to
 * be had just now is the writer's to wait for. */
static enum rc
start_writer(struct sluiced *s)
{
    struct journal *journal = NULL;
    struct uuid identity;
    enum rc rc = journal_new(&journal, &s->journal);

    if (rc == RC_OK) {
        rc = journal_identity(journal, &identity);
        if (rc != RC_OK) {
            char quoted[300];

            log_event(LOG_ERROR, "journal_not_opened", "path=%s rc=%s error=%s",
                      s->conf.journal.path, rc_name(rc),
                      log_quote(journal_error(journal), quoted, sizeof quoted));
        }
        if (rc == RC_OK || rc == RC_TIMEOUT || rc == RC_FULL) {
            rc = writer_new(&s->writer, journal, s->metrics);
        }
    }
    if (rc != RC_OK) {
        journal_free(&journal);
    }
    return rc;
}

static void
stop_writer(struct sluiced *s)
{
    writer_free(&s->writer);
}

static enum rc
start_store(struct sluiced *s)
{
    return store_pg_start(&s->store, &s->conf, s->writer, s->metrics);
}

static void
stop_store(struct sluiced *s)
{
    store_pg_stop(&s->store, STOP_STORE_MS);
}

static enum rc
start_services(struct sluiced *s)
{
    enum rc rc = RC_OK;

    for (unsigned i = 0; rc == RC_OK && i < SERVICE_COUNT; i++) {
        rc = queue_new(&s->inboxes[i], (size_t)s->conf.dispatcher.inbox_rows,
                       (size_t)s->conf.dispatcher.inbox_bytes);
        if (rc == RC_OK) {
            rc = service_start(&s->services[i], services[i], &s->conf,
                               s->writer, s->store, s->metrics, s->inboxes[i]);
        }
    }
    return rc;
}

/* A call that is cut off is UNKNOWN: its answer is waited for. */
static int64_t
stop_ms(const struct sluiced *s, enum service service)
{
    return service == SERVICE_CALL ? s->conf.call.timeout_ms + STOP_SERVICE_MS
                                   : STOP_SERVICE_MS;
}

static void
stop_services(struct sluiced *s)
{
    for (unsigned i = 0; i < SERVICE_COUNT; i++) {
        service_stop(&s->services[i], stop_ms(s, (enum service)i));
        queue_free(&s->inboxes[i], work_free);
    }
}

static enum rc
start_housekeeper(struct sluiced *s)
{
    struct journal *journal = NULL;
    enum rc rc = journal_new(&journal, &s->journal);

    if (rc == RC_OK) {
        rc = housekeeper_start(&s->housekeeper, journal, s->metrics);
    }
    if (rc != RC_OK) {
        journal_free(&journal);
    }
    return rc;
}

static void
stop_housekeeper(struct sluiced *s)
{
    housekeeper_stop(&s->housekeeper);
}

static enum rc
start_sms_notifier(struct sluiced *s)
{
    return sms_notifier_start(&s->sms_notifier, &s->conf, s->metrics);
}

static void
stop_sms_notifier(struct sluiced *s)
{
    sms_notifier_stop(&s->sms_notifier);
}

static enum rc
start_feed(struct sluiced *s)
{
    struct feed_options options = {
        .endpoint = s->conf.link.endpoint,
        .journal = &s->journal,
        .metrics = s->metrics,
    };

    memcpy(options.inboxes, s->inboxes, sizeof options.inboxes);
    return feed_start(&s->feed, &options);
}

static void
stop_feed(struct sluiced *s)
{
    feed_stop(&s->feed);
}

static enum rc
start_control(struct sluiced *s)
{
    struct control_options options = {
        .conf = &s->conf,
        .feed = s->feed,
        .writer = s->writer,
        .metrics = s->metrics,
        .started_unix_ms = clock_now_unix_ms(),
    };

    memcpy(options.services, s->services, sizeof options.services);
    return control_start(&s->control, &options);
}

static void
stop_control(struct sluiced *s)
{
    control_stop(&s->control);
}

/* Started from the top down, stopped from the bottom up: nobody hands work to
 * a part that is gone. */
static const struct part {
    const char *name;
    enum rc (*start)(struct sluiced *s);
    void (*stop)(struct sluiced *s);
} parts[] = {
    {"lock", start_lock, stop_lock},
    {"metrics", start_metrics, stop_metrics},
    {"writer", start_writer, stop_writer},
    {"store", start_store, stop_store},
    {"housekeeper", start_housekeeper, stop_housekeeper},
    {"services", start_services, stop_services},
    {"sms_notifier", start_sms_notifier, stop_sms_notifier},
    {"feed", start_feed, stop_feed},
    {"control", start_control, stop_control},
};

static bool
start_parts(struct sluiced *s)
{
    for (unsigned i = 0; i < ARRAY_COUNT(parts); i++) {
        enum rc rc = parts[i].start(s);

        if (rc != RC_OK) {
            log_event(LOG_ERROR, "start_failed", "part=%s rc=%s", parts[i].name,
                      rc_name(rc));
            return false;
        }
    }
    return true;
}

/* Every stop accepts a part that was never started. */
static void
stop_parts(struct sluiced *s)
{
    for (unsigned i = ARRAY_COUNT(parts); i > 0; i--) {
        parts[i - 1].stop(s);
    }
}

/* ---- configuration and limits
 * ------------------------------------------------ */

/* One line of the log a line of text. */
static void
log_lines(const char *event, const char *lines)
{
    while (*lines != '\0') {
        size_t bytes = strcspn(lines, "\n");
        char line[512];
        char quoted[600];

        (void)snprintf(line, sizeof line, "%.*s", (int)bytes, lines);
        log_event(LOG_ERROR, event, "error=%s",
                  log_quote(line, quoted, sizeof quoted));
        lines += bytes + (lines[bytes] == '\n' ? 1 : 0);
    }
}

/* Whoever reaches the route could then say that a message was delivered. */
static void
warn_unsigned(const struct conf *conf)
{
    if (conf->sms.webhook_secrets[0] == '\0') {
        log_event(LOG_WARN, "sms_updates_unsigned",
                  "hint=\"POST /sms/status-updates takes anybody's word: set "
                  "sms.webhook_secrets\"");
    }
}

/* A descriptor a fetch: as many as configured, if the hard limit lets us. */
static void
raise_descriptors(const struct conf *conf)
{
    rlim_t wanted = (rlim_t)conf->callback.concurrency + OTHER_DESCRIPTORS;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) {
        return;
    }
    if (limit.rlim_max < wanted) {
        struct rlimit both = {.rlim_cur = wanted, .rlim_max = wanted};

        if (setrlimit(RLIMIT_NOFILE, &both) == 0) { /* root may */
            return;
        }
        log_event(LOG_WARN, "few_descriptors",
                  "limit=%ju wanted=%ju hint=\"raise ulimit -n, or lower "
                  "callback.concurrency\"",
                  (uintmax_t)limit.rlim_max, (uintmax_t)wanted);
        wanted = limit.rlim_max;
    }
    limit.rlim_cur = wanted;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static void
reload(struct sluiced *s)
{
    struct flags ignored = {false};
    const struct conf_flag flags[] = {
        {.name = "test", .present = &ignored.test},
        {.name = "migrate", .present = &ignored.migrate},
        {0}};
    struct conf *fresh = malloc(sizeof *fresh);
    struct text errors = {0};
    struct text which = {0};

    if (fresh == NULL) {
        return;
    }
    (void)sd_notify(0, "RELOADING=1");
    if (conf_load(s->argc, s->argv, flags, NULL, fresh, &errors) != RC_OK) {
        log_lines("reload_refused", text_cstr(&errors));
    } else {
        bool restart = conf_needs_restart(&s->conf, fresh, &which);

        s->conf.log = fresh->log;
        s->conf.callback = fresh->callback;
        s->conf.call = fresh->call;
        s->conf.sms = fresh->sms;
        s->conf.invitation = fresh->invitation;
        s->conf.mail = fresh->mail;
        log_set_level(fresh->log.level);
        raise_descriptors(fresh);
        for (unsigned i = 0; i < SERVICE_COUNT; i++) {
            service_configure(s->services[i], fresh);
        }
        store_pg_configure(s->store, fresh);
        sms_notifier_configure(s->sms_notifier, fresh);
        warn_unsigned(fresh);
        log_event(LOG_INFO, "reloaded", "file=%s restart_needed_for=\"%s\"",
                  fresh->file, restart ? text_cstr(&which) : "");
    }
    (void)sd_notify(0, "READY=1");
    text_free(&errors);
    text_free(&which);
    free(fresh);
}

/* ---- running
 * ------------------------------------------------------------------ */

/* Blocked before any thread starts, so that only the descriptor has them. */
static int
block_signals(void)
{
    sigset_t ours;

    sigemptyset(&ours);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGHUP);
    (void)signal(SIGPIPE, SIG_IGN);
    if (pthread_sigmask(SIG_BLOCK, &ours, NULL) != 0) {
        return -1;
    }
    return signalfd(-1, &ours, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Half of what systemd allows between two signs of life, else no limit. */
static int
watchdog_ms(void)
{
    uint64_t limit_us = 0;

    if (sd_watchdog_enabled(0, &limit_us) <= 0) {
        return -1;
    }
    return (int)(limit_us / 2000);
}

/* A service's thread that hangs would leave an order unanswered, and so the
 * watchdog unfed. */
static void
prove_alive(struct sluiced *s)
{
    struct text report = {0};

    for (unsigned i = 0; i < SERVICE_COUNT; i++) {
        service_report(s->services[i], &report);
    }
    text_free(&report);
    (void)sd_notify(0, "WATCHDOG=1");
}

/* Wait for the end. True: an orderly one. */
static bool
serve(struct sluiced *s)
{
    int timeout_ms = watchdog_ms();
    struct pollfd fds[] = {
        {.fd = s->signal_fd, .events = POLLIN},
        {.fd = store_pg_failed_fd(s->store), .events = POLLIN},
    };

    for (;;) {
        struct signalfd_siginfo got = {0};

        if (poll(fds, ARRAY_COUNT(fds), timeout_ms) < 0 && errno != EINTR) {
            log_event(LOG_ERROR, "poll_failed", "error=\"%s\"",
                      strerror(errno));
            return false;
        }
        prove_alive(s);
        if ((fds[1].revents & POLLIN) != 0) {
            return false; /* the store has logged why */
        }
        if (read(s->signal_fd, &got, sizeof got) != (ssize_t)sizeof got) {
            continue;
        }
        if (got.ssi_signo != SIGHUP) {
            log_event(LOG_INFO, "stopping", "signal=%u from_pid=%u",
                      got.ssi_signo, got.ssi_pid);
            return true;
        }
        reload(s);
    }
}

static int
run(struct sluiced *s)
{
    bool good;

    (void)mallopt(M_ARENA_MAX, 2); /* one a thread would cost memory only */
    raise_descriptors(&s->conf);
    warn_unsigned(&s->conf);
    s->signal_fd = block_signals();
    good = s->signal_fd >= 0 && start_parts(s);
    if (good) {
        log_event(LOG_INFO, "ready", "version=%s journal=%s node=%" PRId64,
                  SLUICE_VERSION, s->conf.journal.path, s->conf.node.id);
        (void)sd_notify(0, "READY=1");
        good = serve(s);
    }
    (void)sd_notify(0, "STOPPING=1");
    stop_parts(s);
    log_event(LOG_INFO, "stopped", "orderly=%s", good ? "yes" : "no");
    if (s->signal_fd >= 0) {
        (void)close(s->signal_fd);
    }
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int
migrate(const struct conf *conf)
{
    struct pg *pg = NULL;
    struct text why = {0};
    int applied = 0;
    enum rc rc = pg_new(&pg, conf->postgres.url, conf->postgres.timeout_ms);

    if (rc == RC_OK) {
        rc = migrate_apply(pg, migrate_directory(), &applied, &why);
    }
    if (rc == RC_OK) {
        printf("%d migrations applied\n", applied);
    } else {
        fprintf(stderr, "sluiced: %s\n", text_cstr(&why));
    }
    text_free(&why);
    pg_free(&pg);
    return rc == RC_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void
usage(void)
{
    puts("Usage: sluiced [--config FILE | --dir DIR] [--section-key VALUE]...\n"
         "The dispatcher of Sluice, in the foreground; it logs to stderr.\n\n"
         "  -t, --test       check the configuration and exit\n"
         "  --migrate        bring PostgreSQL's schema up to date and exit\n"
         "  --help-config    list all configuration keys (Markdown)\n"
         "  --version        print the version\n\n"
         "SIGHUP re-reads the configuration, SIGTERM ends it in order.");
}

/* "-t" is what operators type; everything else has two dashes. */
static void
expand_short_flags(int argc, char **argv)
{
    static char test[] = "--test";
    static char help[] = "--help";

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-t") == 0) {
            argv[i] = test;
        } else if (strcmp(argv[i], "-h") == 0) {
            argv[i] = help;
        }
    }
}

/* Flags that need no configuration, for there may be none. */
static bool
answer_without_configuration(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            usage();
        } else if (strcmp(argv[i], "--help-config") == 0) {
            conf_print_table(stdout);
        } else if (strcmp(argv[i], "--version") == 0) {
            puts("sluiced " SLUICE_VERSION);
        } else {
            continue;
        }
        return true;
    }
    return false;
}

int
main(int argc, char **argv)
{
    struct sluiced s = {
        .argc = argc, .argv = argv, .lock_fd = -1, .signal_fd = -1};
    struct flags given = {false};
    const struct conf_flag flags[] = {
        {.name = "test", .present = &given.test},
        {.name = "migrate", .present = &given.migrate},
        {0}};
    struct text errors = {0};

    expand_short_flags(argc, argv);
    if (answer_without_configuration(argc, argv)) {
        return EXIT_SUCCESS;
    }
    if (conf_load(argc, argv, flags, NULL, &s.conf, &errors) != RC_OK) {
        fputs(text_cstr(&errors), stderr);
        text_free(&errors);
        return EXIT_FAILURE;
    }
    text_free(&errors);
    log_init("sluiced", s.conf.log.level);
    if (given.test) {
        if (mailer_check(&s.conf) != RC_OK) {
            return EXIT_FAILURE;
        }
        printf("%s: configuration is good\n", s.conf.file);
        return EXIT_SUCCESS;
    }
    if (given.migrate) {
        return migrate(&s.conf);
    }
    s.journal = journal_options_of(&s.conf.journal, JOURNAL_DISPATCHER);
    return run(&s);
}
