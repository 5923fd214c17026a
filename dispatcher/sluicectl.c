/* sluicectl, the operator's tool: it asks the dispatcher over its control
 * socket, and the journal itself when no dispatcher answers. */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/sluicectl_invitation.h"
#include "dispatcher/sluicectl_print.h"
#include "shared/clock.h"
#include "shared/conf.h"
#include "shared/ctlclient.h"
#include "shared/journal.h"
#include "shared/log.h"
#include "shared/report.h"
#include "shared/services.h"
#include "shared/uuid.h"

#define EXIT_OK 0
#define EXIT_REFUSED 1
#define EXIT_USAGE 2
#define EXIT_UNREACHABLE 3

#define ASK_MS 10000
#define DRAIN_MS 40000
#define RETRY_ALL_MS 600000
#define LINE_BYTES 512
#define QUEUE_ROWS 10
#define DEAD_LIMIT 100

struct context {
    struct conf conf;
    bool json;
    int argc; /* words behind the command's own */
    char **argv;
};

static const char usage[] =
    "usage: sluicectl [--dir DIR | --config FILE] [--json] COMMAND\n"
    "\n"
    "  status               dispatcher, services, ledger\n"
    "  queue [SERVICE]      what waits, and what comes next\n"
    "  dead list [SERVICE [AFTER [LIMIT]]]\n"
    "                       requests that ended without their result, and why\n"
    "  dead retry ID        put one back into its queue\n"
    "  dead retry all [SERVICE]\n"
    "  dead drop ID         give one up for good\n"
    "  pause SERVICE|all    start no new work; requests are still accepted\n"
    "  resume SERVICE|all   go on, also after a drain\n"
    "  drain                finish what was begun, begin nothing new\n"
    "  explain ID           everything known of one request\n"
    "  metrics              Prometheus text format\n"
    "  ping                 does the dispatcher answer?\n";

static const char usage_end[] =
    "\n"
    "--json prints the answer as the dispatcher gives it; explain adds what\n"
    "MongoDB knows.\n"
    "status, queue, dead list and explain work without a dispatcher, from the\n"
    "journal alone.\n"
    "exit status: 0 done, 1 refused or not found, 2 usage or configuration,\n"
    "3 no dispatcher, for invitations no MongoDB, answers\n";

static void
print_usage(FILE *to)
{
    (void)fputs(usage, to);
    (void)fputs(sluicectl_invitation_usage, to);
    (void)fputs(usage_end, to);
}

/* ---- from the journal alone -----------------------------------------------
 */

static enum rc
own_status(const struct context *c, struct journal *journal, struct text *out)
{
    enum rc rc;

    text_puts(out, "{\"dispatcher\":null,\"ledger\":");
    rc = report_ledger(journal, c->conf.journal.max_bytes, clock_now_unix_ms(),
                       out);
    text_puts(out, "}");
    return rc;
}

/* The service that argument k names, or other; RC_INVALID is said. */
static enum rc
service_argument(const struct context *c, int k, enum service other,
                 enum service *out)
{
    enum rc rc = RC_OK;

    *out = other;
    if (k < c->argc) {
        rc = service_parse(c->argv[k], out);
    }
    if (rc != RC_OK) {
        (void)fprintf(stderr, "sluicectl: no service \"%s\"\n", c->argv[k]);
    }
    return rc;
}

static enum rc
own_queue(const struct context *c, struct journal *journal, struct text *out)
{
    enum service service;
    enum rc rc = service_argument(c, 0, SERVICE_COUNT, &service);

    return rc != RC_OK ? rc
                       : report_queue(journal, service, QUEUE_ROWS,
                                      clock_now_unix_ms(), out);
}

static enum rc
own_dead(const struct context *c, struct journal *journal, struct text *out)
{
    enum service service;
    int64_t after = c->argc > 1 ? strtoll(c->argv[1], NULL, 10) : 0;
    int64_t limit = c->argc > 2 ? strtoll(c->argv[2], NULL, 10) : DEAD_LIMIT;
    enum rc rc = service_argument(c, 0, SERVICE_COUNT, &service);

    return rc != RC_OK ? rc
                       : report_dead(journal, service, after,
                                     limit > 0 ? (size_t)limit : 1, out);
}

static enum rc
own_explain(const struct context *c, struct journal *journal, struct text *out)
{
    struct uuid id;
    enum rc rc = uuid_parse(c->argv[0], &id);

    if (rc != RC_OK) {
        (void)fprintf(stderr, "sluicectl: \"%s\" is not an id\n", c->argv[0]);
        return rc;
    }
    rc = report_explain(journal, &id, out);
    return rc == RC_AGAIN && out->bytes > 0 ? RC_OK : rc;
}

/* ---- the table ------------------------------------------------------------
 */

struct command {
    const char *first;
    const char *second; /* or NULL */
    int min_words;      /* behind those */
    int max_words;
    int64_t timeout_ms;
    /* Without a dispatcher, or NULL: exit status own_exit then. */
    enum rc (*own)(const struct context *c, struct journal *journal,
                   struct text *out);
    int own_exit;
    /* The answer as text; NULL: as it is. */
    int (*print)(const struct ctl_document *d, int64_t node_id, FILE *to);
};

/* Like "systemctl status", status says with 3 that nothing runs. */
static const struct command commands[] = {
    {"status", NULL, 0, 0, ASK_MS, own_status, EXIT_UNREACHABLE,
     ctl_print_status},
    {"queue", NULL, 0, 1, ASK_MS, own_queue, EXIT_OK, ctl_print_queue},
    {"dead", "list", 0, 3, ASK_MS, own_dead, EXIT_OK, ctl_print_dead},
    {"dead", "retry", 1, 2, RETRY_ALL_MS, NULL, 0, ctl_print_done},
    {"dead", "drop", 1, 1, ASK_MS, NULL, 0, ctl_print_done},
    {"pause", NULL, 1, 1, ASK_MS, NULL, 0, ctl_print_done},
    {"resume", NULL, 1, 1, ASK_MS, NULL, 0, ctl_print_done},
    {"drain", NULL, 0, 0, DRAIN_MS, NULL, 0, ctl_print_drain},
    {"explain", NULL, 1, 1, ASK_MS, own_explain, EXIT_OK, ctl_print_explain},
    {"metrics", NULL, 0, 0, ASK_MS, NULL, 0, NULL},
    {"ping", NULL, 0, 0, ASK_MS, NULL, 0, ctl_print_done},
};

static const struct command *
find_command(int argc, char **argv, int *own_words)
{
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
        const struct command *command = &commands[i];
        int own = command->second != NULL ? 2 : 1;

        if (argc >= own && strcmp(argv[0], command->first) == 0 &&
            (own == 1 || strcmp(argv[1], command->second) == 0)) {
            *own_words = own;
            return command;
        }
    }
    return NULL;
}

/* ---- asking and answering -------------------------------------------------
 */

/* The journal knows nothing of the id, but of invitations there is more: behind
 * what was printed, or as a member of the document. */
static int
explain_further(const struct context *c, struct text *answer)
{
    struct text member = {0};
    struct uuid id;
    const char *end;
    int status = EXIT_REFUSED;

    if (uuid_parse(c->argv[0], &id) == RC_OK &&
        sluicectl_invitation_explain(&c->conf, &id, c->json ? &member : NULL)) {
        status = EXIT_OK;
    }
    end = strrchr(text_cstr(answer), '}');
    if (member.bytes > 0 && end != NULL) {
        answer->bytes = (size_t)(end - answer->data);
        text_puts(answer, ",\"invitation\":");
        text_puts(answer, text_cstr(&member));
        text_putc(answer, '}');
    }
    if (text_failed(&member) || text_failed(answer)) {
        (void)fprintf(stderr, "sluicectl: no memory\n");
        status = EXIT_UNREACHABLE;
    }
    text_free(&member);
    return status;
}

static int
show(const struct context *c, const struct command *command,
     struct text *answer)
{
    struct ctl_document *d = NULL;
    FILE *to;
    int status = EXIT_OK;

    if (command->print == NULL) {
        (void)fputs(text_cstr(answer), stdout);
        return EXIT_OK;
    }
    if (ctl_document_new(&d, text_cstr(answer), answer->bytes) != RC_OK) {
        (void)fprintf(stderr, "sluicectl: the answer cannot be read\n");
        return EXIT_UNREACHABLE;
    }
    /* The exit status is the same in both forms. */
    to = c->json ? fopen("/dev/null", "w") : stdout;
    if (to != NULL) {
        status = command->print(d, c->conf.node.id, to);
    }
    if (command->print == ctl_print_explain && status == EXIT_REFUSED) {
        status = explain_further(c, answer);
    }
    if (c->json) {
        (void)printf("%s\n", text_cstr(answer));
    }
    if (to != NULL && to != stdout) {
        (void)fclose(to);
    }
    ctl_document_free(&d);
    return status;
}

static int
answer_from_journal(const struct context *c, const struct command *command)
{
    struct journal_options options =
        journal_options_of(&c->conf.journal, JOURNAL_READER);
    struct journal *journal = NULL;
    struct text out = {0};
    enum rc rc = journal_new(&journal, &options);
    int status = EXIT_REFUSED;

    if (rc == RC_OK) {
        rc = command->own(c, journal, &out);
    }
    switch (rc) {
    case RC_OK:
        status = show(c, command, &out);
        status = status != EXIT_OK ? status : command->own_exit;
        break;
    case RC_AGAIN:
        (void)fprintf(stderr, "sluicectl: there is no journal at %s\n",
                      options.path);
        status = EXIT_UNREACHABLE;
        break;
    case RC_INVALID: /* said already */
        break;
    case RC_FULL:
    case RC_TIMEOUT:
    case RC_IO:
    case RC_NOMEM:
    case RC_BUG:
        (void)fprintf(stderr, "sluicectl: journal: %s\n",
                      journal != NULL ? journal_error(journal) : rc_name(rc));
        status = EXIT_UNREACHABLE;
        break;
    }
    text_free(&out);
    journal_free(&journal);
    return status;
}

/* The words as one line. False: too long, or not one line. */
static bool
make_line(int argc, char **argv, char line[LINE_BYTES])
{
    size_t used = 0;

    for (int i = 0; i < argc; i++) {
        int bytes = snprintf(line + used, LINE_BYTES - used, "%s%s",
                             i > 0 ? " " : "", argv[i]);

        if (bytes < 0 || (size_t)bytes >= LINE_BYTES - used ||
            strpbrk(argv[i], "\r\n") != NULL) {
            return false;
        }
        used += (size_t)bytes;
    }
    return true;
}

static int
ask(const struct context *c, const struct command *command, const char *line)
{
    struct text answer = {0};
    int status = EXIT_UNREACHABLE;
    enum rc rc =
        ctlclient_ask(c->conf.control.path, line, command->timeout_ms, &answer);

    if (rc == RC_OK) {
        status = show(c, command, &answer);
    } else if (rc == RC_INVALID) {
        (void)fprintf(stderr, "sluicectl: %s\n", text_cstr(&answer));
        status = EXIT_REFUSED;
    } else {
        (void)fprintf(stderr, "sluicectl: no dispatcher answers at %s%s%s\n",
                      c->conf.control.path, rc == RC_TIMEOUT ? " in time" : "",
                      command->own != NULL ? "; this is the journal alone"
                                           : "");
        if (command->own != NULL) {
            status = answer_from_journal(c, command);
        }
    }
    text_free(&answer);
    return status;
}

/* ---- main -----------------------------------------------------------------
 */

/* Take --json out of the words behind the command, where it is typed too. */
static int
take_json(int argc, char **argv, bool *json)
{
    int kept = 0;

    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            *json = true;
        } else {
            argv[kept++] = argv[i];
        }
    }
    return kept;
}

/* Asked for before anything is read: they need no configuration. */
static bool
said(int argc, char **argv, const char *word, const char *letter)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], word) == 0 || strcmp(argv[i], letter) == 0) {
            return true;
        }
    }
    return false;
}

static int
run(struct context *c, int argc, char **argv)
{
    const struct conf_flag flags[] = {{"json", &c->json, NULL}, {0}};
    struct text errors = {0};
    char line[LINE_BYTES];
    const struct command *command;
    int own_words = 0;
    int rest = 0;
    enum rc rc = conf_load(argc, argv, flags, &rest, &c->conf, &errors);

    if (rc != RC_OK) {
        (void)fprintf(stderr, "%s%s", text_cstr(&errors),
                      errors.bytes > 0 && errors.data[errors.bytes - 1] == '\n'
                          ? ""
                          : "\n");
        text_free(&errors);
        return EXIT_USAGE;
    }
    text_free(&errors);
    argv += rest;
    argc = take_json(argc - rest, argv, &c->json);
    if (argc > 0 && strcmp(argv[0], "invitation") == 0) {
        return sluicectl_invitation(&c->conf, c->json, argc - 1, argv + 1);
    }
    command = find_command(argc, argv, &own_words);
    c->argc = argc - own_words;
    c->argv = argv + own_words;
    if (command == NULL || c->argc < command->min_words ||
        c->argc > command->max_words || !make_line(argc, argv, line)) {
        print_usage(stderr);
        return EXIT_USAGE;
    }
    return ask(c, command, line);
}

int
main(int argc, char **argv)
{
    struct context *c;
    int status;

    if (said(argc, argv, "--help", "-h")) {
        print_usage(stdout);
        return EXIT_OK;
    }
    if (said(argc, argv, "--version", "-V")) {
        (void)printf("sluicectl %s\n", SLUICE_VERSION);
        return EXIT_OK;
    }
    log_init("sluicectl", LOG_ERROR);
    c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return EXIT_UNREACHABLE;
    }
    status = run(c, argc, argv);
    free(c);
    if (fflush(stdout) != 0) {
        status = EXIT_REFUSED;
    }
    return status;
}
