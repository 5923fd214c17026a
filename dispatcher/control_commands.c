/* The commands: a table of words, and a function for each. What a command asks
 * of the journal it reads through a reader of its own; what it changes goes
 * through the writer like everything else. */
#include "dispatcher/control_commands.h"

#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dispatcher/feed.h"
#include "dispatcher/metrics.h"
#include "dispatcher/queue.h"
#include "dispatcher/service.h"
#include "dispatcher/writer.h"
#include "shared/clock.h"
#include "shared/journal.h"
#include "shared/log.h"
#include "shared/report.h"
#include "shared/uuid.h"

#define WORDS_MAX 8
#define DEAD_LIMIT 100
#define DEAD_GROUP 200 /* dead letters moved in one write */
#define QUEUE_ROWS 10
/* How long a change may take before its client is told that it is under way:
 * a journal that cannot be written must not stop this thread. */
#define CHANGE_MS 4000
#define CHANGES_MAX 64 /* that may be under way */

struct commands {
    int64_t journal_max_bytes;
    int64_t node_id;
    int64_t started_unix_ms;
    int stop_fd; /* readable: what takes long ends early */
    struct feed *feed;
    struct writer *writer;
    struct metrics *metrics;
    struct service_thread *services[SERVICE_COUNT];
    struct journal *journal;
    struct queue *replies;    /* of struct change */
    size_t changes_out;       /* in the writer's hands */
    bool held[SERVICE_COUNT]; /* by a drain */
    bool was_idle;            /* at the previous look of a drain */
};

/* ---- changes --------------------------------------------------------------
 */

enum change_kind { CHANGE_RETRY, CHANGE_DROP };

struct change {
    struct write write; /* first: what the writer knows */
    enum change_kind kind;
    int64_t now_unix_ms;
    int64_t done; /* dead letters that were there */
    size_t count;
    struct uuid ids[DEAD_GROUP];
};

static enum rc
apply_change(struct journal *journal, struct write *write)
{
    struct change *change = (struct change *)write;
    enum rc rc = RC_OK;

    change->done = 0; /* it may be the second time */
    for (size_t i = 0; i < change->count; i++) {
        int64_t changed = 1;

        switch (change->kind) {
        case CHANGE_RETRY:
            rc = journal_dead_retry(journal, &change->ids[i],
                                    change->now_unix_ms, &changed);
            break;
        case CHANGE_DROP:
            rc = journal_dead_drop(journal, &change->ids[i]);
            break;
        }
        if (rc != RC_OK && rc != RC_AGAIN) {
            return rc;
        }
        change->done += rc == RC_OK ? changed : 0;
    }
    return RC_OK;
}

/* Take back a change that the writer replied to. */
static struct change *
take_reply(struct commands *c)
{
    struct change *change = queue_pop(c->replies);

    if (change != NULL) {
        c->changes_out--;
    }
    return change;
}

/* Wait for this very change; others, whose clients have gone, are freed. */
static enum rc
await_reply(struct commands *c, const struct change *wanted)
{
    int64_t deadline_ms = clock_now_ms() + CHANGE_MS;

    for (;;) {
        struct pollfd p = {.fd = queue_ready_fd(c->replies), .events = POLLIN};
        struct change *change = take_reply(c);
        int64_t left_ms = deadline_ms - clock_now_ms();

        if (change == wanted) {
            return RC_OK;
        }
        if (change != NULL) {
            free(change);
        } else if (left_ms <= 0) {
            return RC_TIMEOUT;
        } else {
            (void)poll(&p, 1, (int)left_ms);
        }
    }
}

/* Have the change made. Owns it; *done = dead letters that were there. */
static enum rc
make_change(struct commands *c, struct change *change, int64_t *done,
            struct text *answer)
{
    enum rc rc = RC_FULL;

    *done = 0;
    change->write.apply = apply_change;
    change->write.reply_to = c->replies;
    change->now_unix_ms = clock_now_unix_ms();
    if (c->changes_out < CHANGES_MAX) {
        rc = writer_submit(c->writer, &change->write);
    }
    if (rc != RC_OK) {
        free(change);
        text_puts(answer, "the journal's writer is busy; try again");
        return RC_FULL;
    }
    c->changes_out++;
    rc = await_reply(c, change);
    if (rc != RC_OK) {
        text_puts(answer, "the journal cannot be written just now; the order "
                          "stands and will be carried out");
        return rc;
    }
    rc = change->write.rc;
    *done = change->done;
    free(change);
    if (rc != RC_OK) {
        text_printf(answer, "the journal refused it (%s)", rc_name(rc));
    }
    return rc;
}

/* ---- what commands have in common -----------------------------------------
 */

/* Say why the journal could not be read. Returns RC_OK or RC_IO: RC_AGAIN
 * would mean a drain. */
static enum rc
explain_journal(struct commands *c, enum rc rc, struct text *answer)
{
    if (rc == RC_OK) {
        return RC_OK;
    }
    text_reset(answer);
    text_printf(answer, "journal: %s",
                rc == RC_AGAIN   ? "not there yet"
                : rc == RC_NOMEM ? "out of memory"
                                 : journal_error(c->journal));
    return RC_IO;
}

static enum rc
parse_service(const char *name, enum service *out, struct text *answer)
{
    enum rc rc = service_parse(name, out);

    if (rc != RC_OK) {
        text_printf(answer, "no service \"%s\"", name);
    }
    return rc;
}

static enum rc
parse_id(const char *word, struct uuid *out, struct text *answer)
{
    enum rc rc = uuid_parse(word, out);

    if (rc != RC_OK) {
        text_printf(answer, "\"%s\" is not an id", word);
    }
    return rc;
}

/* Digits only, up to 18 of them. */
static enum rc
parse_number(const char *word, int64_t *out, struct text *answer)
{
    size_t digits = strspn(word, "0123456789");

    *out = 0;
    if (digits == 0 || digits > 18 || word[digits] != '\0') {
        text_printf(answer, "\"%s\" is not a number", word);
        return RC_INVALID;
    }
    *out = strtoll(word, NULL, 10);
    return RC_OK;
}

static int64_t
gauge(const struct commands *c, enum metric metric, unsigned service)
{
    return metrics_get(c->metrics, metric, (enum service)service);
}

/* ---- looking --------------------------------------------------------------
 */

static void
print_service(struct commands *c, unsigned s, struct text *out)
{
    struct service_thread *thread = c->services[s];
    bool paused = thread != NULL && service_is_paused(thread);

    text_printf(out,
                "\"%s\":{\"paused\":%s,\"held\":%s,\"inbox\":%" PRId64
                ",\"behind\":%s,"
                "\"cursor\":%" PRId64,
                service_name((enum service)s), paused ? "true" : "false",
                c->held[s] ? "true" : "false", gauge(c, METRIC_INBOX_ROWS, s),
                gauge(c, METRIC_FEED_BEHIND, s) != 0 ? "true" : "false",
                gauge(c, METRIC_FEED_CURSOR, s));
    if (thread != NULL) {
        struct text members = {0};

        service_report(thread, &members);
        if (members.bytes > 0) {
            text_putc(out, ',');
            text_puts(out, text_cstr(&members));
        }
        text_free(&members);
    }
    text_putc(out, '}');
}

static enum rc
run_status(struct commands *c, char *const *words, struct text *out)
{
    int64_t now_unix_ms = clock_now_unix_ms();
    enum rc rc;

    (void)words;
    text_printf(out,
                "{\"dispatcher\":{\"pid\":%ld,\"version\":\"%s\","
                "\"uptime_s\":%" PRId64 ",\"node_id\":%" PRId64 "},\"ledger\":",
                (long)getpid(), SLUICE_VERSION,
                (now_unix_ms - c->started_unix_ms) / 1000, c->node_id);
    rc = report_ledger(c->journal, c->journal_max_bytes, now_unix_ms, out);
    if (rc != RC_OK) {
        return explain_journal(c, rc, out);
    }
    text_puts(out, ",\"services\":{");
    for (unsigned s = 0; s < SERVICE_COUNT; s++) {
        text_puts(out, s > 0 ? "," : "");
        print_service(c, s, out);
    }
    text_printf(
        out, "},\"postgres\":{\"up\":%s},\"mongo\":{\"up\":%s}}",
        gauge(c, METRIC_POSTGRES_UP, SERVICE_COUNT) != 0 ? "true" : "false",
        gauge(c, METRIC_MONGO_UP, SERVICE_COUNT) != 0 ? "true" : "false");
    return RC_OK;
}

static enum rc
run_queue(struct commands *c, char *const *words, struct text *out)
{
    enum service service = SERVICE_COUNT;
    enum rc rc = RC_OK;

    if (words[0] != NULL) {
        rc = parse_service(words[0], &service, out);
    }
    if (rc != RC_OK) {
        return rc;
    }
    return explain_journal(
        c,
        report_queue(c->journal, service, QUEUE_ROWS, clock_now_unix_ms(), out),
        out);
}

static enum rc
run_dead_list(struct commands *c, char *const *words, struct text *out)
{
    enum service service = SERVICE_COUNT; /* all */
    int64_t after = 0;
    int64_t limit = DEAD_LIMIT;
    enum rc rc = RC_OK;

    if (words[0] != NULL) {
        rc = parse_service(words[0], &service, out);
    }
    if (rc == RC_OK && words[0] != NULL && words[1] != NULL) {
        rc = parse_number(words[1], &after, out);
        if (rc == RC_OK && words[2] != NULL) {
            rc = parse_number(words[2], &limit, out);
        }
    }
    if (rc != RC_OK) {
        return rc;
    }
    return explain_journal(
        c, report_dead(c->journal, service, after, (size_t)limit, out), out);
}

static enum rc
run_explain(struct commands *c, char *const *words, struct text *out)
{
    struct uuid id;
    enum rc rc = parse_id(words[0], &id, out);

    if (rc != RC_OK) {
        return rc;
    }
    rc = report_explain(c->journal, &id, out);
    /* That it is unknown is an answer, too. */
    return rc == RC_AGAIN ? RC_OK : explain_journal(c, rc, out);
}

static enum rc
run_metrics(struct commands *c, char *const *words, struct text *out)
{
    struct text ledger = {0};

    (void)words;
    for (unsigned s = 0; s < SERVICE_COUNT; s++) {
        if (c->services[s] != NULL) {
            metrics_set(c->metrics, METRIC_PAUSED, (enum service)s,
                        service_is_paused(c->services[s]));
        }
    }
    metrics_print(c->metrics, out);
    /* The dispatcher's own numbers are there whatever the journal does. */
    if (report_ledger_metrics(c->journal, clock_now_unix_ms(), &ledger) ==
        RC_OK) {
        text_puts(out, text_cstr(&ledger));
    }
    text_free(&ledger);
    return RC_OK;
}

static enum rc
run_ping(struct commands *c, char *const *words, struct text *out)
{
    (void)c;
    (void)words;
    text_puts(out, "{\"pong\":true}");
    return RC_OK;
}

/* ---- dead letters ---------------------------------------------------------
 */

struct collect {
    struct change *change;
    int64_t newest; /* seq given out before the order */
    int64_t last_seq;
};

static bool
collect_id(void *arg, const struct journal_entry *entry)
{
    struct collect *collect = arg;
    struct change *change = collect->change;

    collect->last_seq = entry->seq;
    /* What was retried and dies again meanwhile has a newer seq: it waits for
     * the next order. */
    if (entry->seq <= collect->newest) {
        change->ids[change->count++] = entry->id;
    }
    return change->count < DEAD_GROUP;
}

static bool
is_stopping(const struct commands *c)
{
    struct pollfd stop = {.fd = c->stop_fd, .events = POLLIN};

    return poll(&stop, 1, 0) > 0;
}

/* Retry all of a service, a group at a time. Hundreds of thousands take
 * their time: the end of the process does not wait for them. */
static enum rc
retry_all(struct commands *c, enum service service, int64_t *total,
          struct text *out)
{
    struct collect collect = {0};
    int64_t after = -1;
    int64_t done;
    enum rc rc = journal_newest(c->journal, service, &collect.newest);

    *total = 0;
    while (rc == RC_OK && after != collect.last_seq && !is_stopping(c)) {
        after = collect.last_seq;
        collect.change = calloc(1, sizeof(*collect.change));
        if (collect.change == NULL) {
            rc = RC_NOMEM;
            break;
        }
        collect.change->kind = CHANGE_RETRY;
        rc = journal_dead_each(c->journal, service, after, DEAD_GROUP,
                               collect_id, &collect);
        if (rc != RC_OK || collect.change->count == 0) {
            free(collect.change);
            continue;
        }
        rc = make_change(c, collect.change, &done, out);
        if (rc != RC_OK) {
            return rc;
        }
        *total += done;
    }
    return explain_journal(c, rc, out);
}

/* One dead letter by its id. */
static enum rc
change_one(struct commands *c, const char *word, enum change_kind kind,
           int64_t *done, struct text *out)
{
    struct change *change = calloc(1, sizeof(*change));
    enum rc rc;

    *done = 0;
    if (change == NULL) {
        text_puts(out, "out of memory");
        return RC_NOMEM;
    }
    change->kind = kind;
    change->count = 1;
    rc = parse_id(word, &change->ids[0], out);
    if (rc != RC_OK) {
        free(change);
        return rc;
    }
    rc = make_change(c, change, done, out);
    if (rc == RC_OK && *done == 0) {
        text_printf(out, "no dead letter with id %s", word);
        return RC_INVALID;
    }
    return rc;
}

static enum rc
run_dead_retry(struct commands *c, char *const *words, struct text *out)
{
    int64_t total = 0;
    enum rc rc = RC_OK;

    if (strcmp(words[0], "all") == 0) {
        enum service only = SERVICE_COUNT;

        if (words[1] != NULL) {
            rc = parse_service(words[1], &only, out);
        }
        for (unsigned s = 0; s < SERVICE_COUNT && rc == RC_OK; s++) {
            int64_t done = 0;

            if (only == SERVICE_COUNT || only == (enum service)s) {
                rc = retry_all(c, (enum service)s, &done, out);
            }
            total += done;
        }
    } else if (words[1] != NULL) {
        text_puts(out, "a service goes with \"all\" only");
        rc = RC_INVALID;
    } else {
        rc = change_one(c, words[0], CHANGE_RETRY, &total, out);
    }
    if (rc == RC_OK) {
        log_event(LOG_INFO, "dead_retried", "count=%" PRId64, total);
        text_printf(out, "{\"retried\":%" PRId64 "}", total);
    }
    return rc;
}

static enum rc
run_dead_drop(struct commands *c, char *const *words, struct text *out)
{
    int64_t dropped = 0;
    enum rc rc = change_one(c, words[0], CHANGE_DROP, &dropped, out);

    if (rc == RC_OK) {
        log_event(LOG_INFO, "dead_dropped", "id=%s", words[0]);
        text_puts(out, "{\"dropped\":1}");
    }
    return rc;
}

/* ---- pause, resume, drain -------------------------------------------------
 */

/* Resuming lifts a drain, too. */
static void
set_paused(struct commands *c, enum service service, bool paused)
{
    if (!paused) {
        feed_hold(c->feed, service, false);
        c->held[service] = false;
        if (c->services[service] != NULL) {
            service_drain(c->services[service], false);
        }
    }
    if (c->services[service] != NULL) {
        service_pause(c->services[service], paused);
    }
    log_event(LOG_INFO, paused ? "service_paused" : "service_resumed",
              "service=%s", service_name(service));
}

static enum rc
pause_or_resume(struct commands *c, const char *word, bool paused,
                struct text *out)
{
    enum service only = SERVICE_COUNT;

    if (strcmp(word, "all") != 0) {
        enum rc rc = parse_service(word, &only, out);

        if (rc != RC_OK) {
            return rc;
        }
    }
    for (unsigned s = 0; s < SERVICE_COUNT; s++) {
        if (only == SERVICE_COUNT || only == (enum service)s) {
            set_paused(c, (enum service)s, paused);
        }
    }
    text_printf(out, "{\"%s\":\"%s\"}", paused ? "paused" : "resumed", word);
    return RC_OK;
}

static enum rc
run_pause(struct commands *c, char *const *words, struct text *out)
{
    return pause_or_resume(c, words[0], true, out);
}

static enum rc
run_resume(struct commands *c, char *const *words, struct text *out)
{
    return pause_or_resume(c, words[0], false, out);
}

static enum rc
run_drain(struct commands *c, char *const *words, struct text *out)
{
    (void)words;
    (void)out;
    for (unsigned s = 0; s < SERVICE_COUNT; s++) {
        feed_hold(c->feed, (enum service)s, true);
        c->held[s] = true;
        if (c->services[s] != NULL) {
            service_drain(c->services[s], true);
        }
    }
    c->was_idle = false;
    log_event(LOG_INFO, "drain", "begin=true");
    return RC_AGAIN;
}

/* {"callback":{"inbox":0,"active":0,"outcomes":0}}; true when all are 0. */
static bool
print_left(struct commands *c, const struct journal_ledger *ledger,
           struct text *out)
{
    bool idle = true;

    text_putc(out, '{');
    for (unsigned s = 0; s < SERVICE_COUNT; s++) {
        int64_t inbox = gauge(c, METRIC_INBOX_ROWS, s);
        int64_t active = gauge(c, METRIC_ACTIVE_REQUESTS, s);

        idle = idle && inbox == 0 && active == 0 && ledger[s].outcomes == 0;
        text_printf(out,
                    "%s\"%s\":{\"inbox\":%" PRId64 ",\"active\":%" PRId64
                    ",\"outcomes\":%" PRId64 "}",
                    s > 0 ? "," : "", service_name((enum service)s), inbox,
                    active, ledger[s].outcomes);
    }
    text_putc(out, '}');
    return idle;
}

bool
commands_drained(struct commands *c, bool last, struct text *answer)
{
    struct journal_ledger ledger[SERVICE_COUNT];
    struct text left = {0};
    enum rc rc = journal_ledger(c->journal, ledger);
    /* No journal yet is as good as an empty one. */
    bool idle = (rc == RC_OK || rc == RC_AGAIN) && print_left(c, ledger, &left);
    /* A request that is just passing from the inbox into the service's hands
     * may be in neither number: only twice in a row counts. */
    bool done = idle && c->was_idle;

    c->was_idle = idle;
    if (done || last) {
        text_reset(answer);
        text_printf(answer, "{\"drained\":%s,\"left\":%s}",
                    done ? "true" : "false",
                    left.bytes > 0 ? text_cstr(&left) : "null");
        log_event(LOG_INFO, "drain", "drained=%s", done ? "true" : "false");
    }
    text_free(&left);
    return done;
}

/* ---- the table ------------------------------------------------------------
 */

static const struct command {
    const char *first;
    const char *second; /* or NULL */
    unsigned min_words; /* behind those */
    unsigned max_words;
    enum rc (*run)(struct commands *c, char *const *words, struct text *out);
} table[] = {
    {"status", NULL, 0, 0, run_status},
    {"queue", NULL, 0, 1, run_queue},
    {"dead", "list", 0, 3, run_dead_list},
    {"dead", "retry", 1, 2, run_dead_retry},
    {"dead", "drop", 1, 1, run_dead_drop},
    {"pause", NULL, 1, 1, run_pause},
    {"resume", NULL, 1, 1, run_resume},
    {"drain", NULL, 0, 0, run_drain},
    {"explain", NULL, 1, 1, run_explain},
    {"metrics", NULL, 0, 0, run_metrics},
    {"ping", NULL, 0, 0, run_ping},
};

/* Words of the line, NULL behind the last. More than WORDS_MAX - 1: that many
 * + 1 is returned. */
static unsigned
split(char *line, char *words[WORDS_MAX])
{
    unsigned count = 0;
    char *rest = NULL;
    char *word = strtok_r(line, " \t", &rest);

    while (word != NULL && count < WORDS_MAX - 1) {
        words[count++] = word;
        word = strtok_r(NULL, " \t", &rest);
    }
    for (unsigned i = count; i < WORDS_MAX; i++) {
        words[i] = NULL;
    }
    return word == NULL ? count : WORDS_MAX;
}

static bool
is_clean(const char *line)
{
    for (; *line != '\0'; line++) {
        unsigned char byte = (unsigned char)*line;

        if ((byte < ' ' && byte != '\t') || byte >= 0x7f) {
            return false;
        }
    }
    return true;
}

enum rc
commands_run(struct commands *c, char *line, struct text *answer)
{
    char *words[WORDS_MAX];
    unsigned count;

    if (!is_clean(line)) {
        text_puts(answer, "a command is printable ASCII");
        return RC_INVALID;
    }
    count = split(line, words);
    if (count == 0) {
        text_puts(answer, "no command");
        return RC_INVALID;
    }
    for (size_t i = 0; i < ARRAY_COUNT(table); i++) {
        const struct command *command = &table[i];
        unsigned own = command->second != NULL ? 2 : 1;

        if (strcmp(words[0], command->first) != 0 ||
            (own == 2 &&
             (count < 2 || strcmp(words[1], command->second) != 0))) {
            continue;
        }
        if (count < own + command->min_words ||
            count > own + command->max_words) {
            text_printf(answer, "wrong number of arguments for \"%s%s%s\"",
                        command->first, own == 2 ? " " : "",
                        own == 2 ? command->second : "");
            return RC_INVALID;
        }
        return command->run(c, words + own, answer);
    }
    text_printf(answer, "no command \"%s\"", words[0]);
    return RC_INVALID;
}

/* ---- new and free ---------------------------------------------------------
 */

enum rc
commands_new(struct commands **out, const struct control_options *options,
             int stop_fd)
{
    const struct conf_journal *conf = &options->conf->journal;
    struct journal_options reader = journal_options_of(conf, JOURNAL_READER);
    struct commands *c = calloc(1, sizeof(*c));
    enum rc rc;

    *out = NULL;
    if (c == NULL) {
        return RC_NOMEM;
    }
    c->journal_max_bytes = conf->max_bytes;
    c->node_id = options->conf->node.id;
    c->started_unix_ms = options->started_unix_ms;
    c->stop_fd = stop_fd;
    c->feed = options->feed;
    c->writer = options->writer;
    c->metrics = options->metrics;
    memcpy(c->services, options->services, sizeof(c->services));
    rc = journal_new(&c->journal, &reader);
    if (rc == RC_OK) {
        rc = queue_new(&c->replies, CHANGES_MAX, 0);
    }
    if (rc != RC_OK) {
        commands_free(&c);
        return rc;
    }
    *out = c;
    return RC_OK;
}

void
commands_free(struct commands **cp)
{
    struct commands *c = *cp;
    struct change *change;

    if (c == NULL) {
        return;
    }
    if (c->replies != NULL) {
        for (change = take_reply(c); change != NULL; change = take_reply(c)) {
            free(change);
        }
        /* Changes that the writer still holds will reply into this queue: it
         * stays until the process ends, which is about to happen. */
        if (c->changes_out == 0) {
            queue_free(&c->replies, NULL);
        }
    }
    journal_free(&c->journal);
    free(c);
    *cp = NULL;
}
