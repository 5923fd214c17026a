#include "dispatcher/sluicectl_invitation.h"

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dispatcher/mongo.h"
#include "dispatcher/places_mongo.h"
#include "shared/address.h"
#include "shared/clock.h"
#include "shared/invitation_msg.h"
#include "shared/json.h"

#define EXIT_OK 0
#define EXIT_REFUSED 1
#define EXIT_USAGE 2
#define EXIT_UNREACHABLE 3

#define PAGE 100U
#define CSV_LINE_BYTES 256
#define MS_PER_S 1000
#define CSV_HEAD "code,limit,expires_at"
#define CSV_HEAD_BYTES 10 /* by which it is known: "code,limit" */

const char sluicectl_invitation_usage[] =
    "  invitation create CODE --limit N [--expires T]\n"
    "                       N places (1-1000), until T: 2026-12-24T18:00:00Z\n"
    "  invitation limit CODE N\n"
    "                       another number of places; nobody loses one\n"
    "  invitation list      all, with places taken and people waiting\n"
    "  invitation show CODE places, waiting, refused, mails\n"
    "  invitation revoke EMAIL [REASON]\n"
    "                       take a place back for good; the next in line moves "
    "up\n"
    "  invitation import FILE\n"
    "                       create those of a CSV file: code,limit,expires_at\n"
    "  invitation export [CODE]\n"
    "                       all invitations, or who has a place, as CSV\n";

struct context {
    struct mongo *mongo;
    bool json;
    int argc; /* words behind the command */
    char **argv;
    bool fold_plus_tags;
};

/* ---- saying -----------------------------------------------------------------
 */

static int
fail(const struct context *c, enum rc rc)
{
    (void)fprintf(stderr, "sluicectl: MongoDB: %s\n",
                  rc == RC_NOMEM ? "no memory" : mongo_error(c->mongo));
    return rc == RC_INVALID ? EXIT_REFUSED : EXIT_UNREACHABLE;
}

static int
not_there(const char *code)
{
    (void)fprintf(stderr, "sluicectl: there is no invitation \"%s\"\n", code);
    return EXIT_REFUSED;
}

static const char *
time_text(int64_t unix_ms, char out[CLOCK_RFC3339_BYTES])
{
    return unix_ms == 0 ? "" : clock_rfc3339(unix_ms, out);
}

/* ---- reading ----------------------------------------------------------------
 */

static bool
read_code(const char *text)
{
    if (!invitation_code_valid(text)) {
        (void)fprintf(stderr,
                      "sluicectl: \"%s\" is no code: 1-64 of a-z, 0-9, -\n",
                      text);
        return false;
    }
    return true;
}

static bool
read_limit(const char *text, int32_t *out)
{
    char *end = NULL;
    long value;

    errno = 0;
    value = strtol(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < 1 ||
        value > PLACES_LIMIT_MAX) {
        (void)fprintf(stderr, "sluicectl: \"%s\": a limit is 1-%d\n", text,
                      PLACES_LIMIT_MAX);
        return false;
    }
    *out = (int32_t)value;
    return true;
}

/* RFC 3339 in UTC, to the second, as time_text writes it. */
static bool
read_time(const char *text, int64_t *out)
{
    struct tm parts = {0};
    struct tm day;
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &parts);
    time_t seconds;

    if (end != NULL && *end == '.') {
        end += 1 + strspn(end + 1, "0123456789");
    }
    day = parts;
    seconds = end != NULL && strcmp(end, "Z") == 0 ? timegm(&parts) : -1;
    if (seconds <= 0 || day.tm_mday != parts.tm_mday) { /* February 30 */
        (void)fprintf(stderr,
                      "sluicectl: \"%s\" is no time: 2026-12-24T18:00:00Z\n",
                      text);
        return false;
    }
    *out = (int64_t)seconds * MS_PER_S;
    return true;
}

/* ---- commands ---------------------------------------------------------------
 */

static int
usage(void)
{
    (void)fprintf(stderr, "usage:\n%s", sluicectl_invitation_usage);
    return EXIT_USAGE;
}

static int
create_one(const struct context *c, struct invitation *invitation)
{
    bool created = false;
    enum rc rc;

    invitation->created_unix_ms = clock_now_unix_ms();
    rc = places_create(c->mongo, invitation, &created);
    if (rc != RC_OK) {
        return fail(c, rc);
    }
    if (!created) {
        (void)fprintf(stderr,
                      "sluicectl: \"%s\" is there already: `invitation limit` "
                      "changes its places\n",
                      invitation->code);
        return EXIT_REFUSED;
    }
    return EXIT_OK;
}

static bool
read_options(const struct context *c, struct invitation *out)
{
    for (int i = 1; i < c->argc; i += 2) {
        const char *value = i + 1 < c->argc ? c->argv[i + 1] : "";
        bool ok = false;

        if (strcmp(c->argv[i], "--limit") == 0) {
            ok = read_limit(value, &out->limit);
        } else if (strcmp(c->argv[i], "--expires") == 0) {
            ok = read_time(value, &out->expires_unix_ms);
        } else {
            (void)fprintf(stderr, "sluicectl: %s: what is that?\n", c->argv[i]);
        }
        if (!ok) {
            return false;
        }
    }
    return true;
}

static int
run_create(const struct context *c)
{
    struct invitation invitation = {0};
    int status;

    if (!read_code(c->argv[0]) || !read_options(c, &invitation)) {
        return EXIT_USAGE;
    }
    if (invitation.limit == 0) {
        (void)fprintf(stderr, "sluicectl: --limit N is missing\n");
        return EXIT_USAGE;
    }
    memcpy(invitation.code, c->argv[0], strlen(c->argv[0]) + 1);
    status = create_one(c, &invitation);
    if (status == EXIT_OK) {
        (void)printf(c->json ? "{\"code\":\"%s\",\"limit\":%" PRId32 "}\n"
                             : "%s: %" PRId32 " places\n",
                     invitation.code, invitation.limit);
    }
    return status;
}

static int
run_limit(const struct context *c)
{
    int32_t limit = 0;
    bool found = false;
    enum rc rc;

    if (!read_code(c->argv[0]) || !read_limit(c->argv[1], &limit)) {
        return EXIT_USAGE;
    }
    rc = places_set_limit(c->mongo, c->argv[0], limit, &found);
    if (rc != RC_OK) {
        return fail(c, rc);
    }
    return found ? EXIT_OK : not_there(c->argv[0]);
}

/* Give each invitation to print, with its counts if they are wanted. */
static int
for_each(const struct context *c,
         int (*print)(const struct context *c, const struct invitation *i,
                      bool first))
{
    struct places places = {0};
    struct invitation page[PAGE];
    char after[INVITATION_CODE_BYTES] = "";
    size_t count = 0;
    int status = EXIT_OK;
    bool first = true;
    enum rc rc = places_mongo_new(
        &places, &(struct places_mongo_options){.mongo = c->mongo,
                                                .mail_host = "localhost"});

    if (rc != RC_OK) {
        return fail(c, rc);
    }
    do {
        rc = places.ops->invitations(places.self, after, PAGE, page, &count);
        for (size_t i = 0; rc == RC_OK && status == EXIT_OK && i < count; i++) {
            status = print(c, &page[i], first);
            first = false;
            memcpy(after, page[i].code, sizeof(after));
        }
    } while (rc == RC_OK && status == EXIT_OK && count > 0);
    places.ops->free(&places.self);
    return rc == RC_OK ? status : fail(c, rc);
}

static void
print_json(const struct invitation *i, const struct places_counts *n)
{
    char expires[CLOCK_RFC3339_BYTES];
    const char *quote = i->expires_unix_ms != 0 ? "\"" : "";

    (void)printf(
        "{\"code\":\"%s\",\"limit\":%" PRId32
        ",\"expires_at\":%s%s%s,\"places\":%" PRId64 ",\"waiting\":%" PRId64
        ",\"refused\":%" PRId64 ",\"mails\":{\"queued\":%" PRId64
        ",\"sent\":%" PRId64 ",\"refused\":%" PRId64 ",\"given_up\":%" PRId64
        ",\"skipped\":%" PRId64 "}}",
        i->code, i->limit, quote,
        i->expires_unix_ms != 0 ? time_text(i->expires_unix_ms, expires)
                                : "null",
        quote, n->taken, n->waiting, n->refused, n->mails_queued, n->mails_sent,
        n->mails_refused, n->mails_given_up, n->mails_skipped);
}

static int
print_line(const struct context *c, const struct invitation *i, bool first)
{
    struct places_counts n;
    char expires[CLOCK_RFC3339_BYTES];
    enum rc rc = places_count(c->mongo, i->code, &n);

    if (rc != RC_OK) {
        return fail(c, rc);
    }
    if (c->json) {
        (void)fputs(first ? "" : ",", stdout);
        print_json(i, &n);
        return EXIT_OK;
    }
    if (first) {
        (void)printf("%-24s %7s %7s %7s  %s\n", "code", "limit", "places",
                     "waiting", "expires");
    }
    (void)printf("%-24s %7" PRId32 " %7" PRId64 " %7" PRId64 "  %s\n", i->code,
                 i->limit, n.taken, n.waiting,
                 i->expires_unix_ms != 0
                     ? time_text(i->expires_unix_ms, expires)
                     : "never");
    return EXIT_OK;
}

static int
run_list(const struct context *c)
{
    int status;

    (void)fputs(c->json ? "{\"invitations\":[" : "", stdout);
    status = for_each(c, print_line);
    (void)fputs(c->json ? "]}\n" : "", stdout);
    return status;
}

static void
print_shown(const struct invitation *i, const struct places_counts *n)
{
    char when[CLOCK_RFC3339_BYTES];

    (void)printf("invitation  %s\n", i->code);
    (void)printf("created     %s\n", time_text(i->created_unix_ms, when));
    (void)printf("expires     %s\n", i->expires_unix_ms != 0
                                         ? time_text(i->expires_unix_ms, when)
                                         : "never");
    (void)printf("places      %" PRId64 " of %" PRId32 "\n", n->taken,
                 i->limit);
    (void)printf("waiting     %" PRId64 "\n", n->waiting);
    (void)printf("refused     %" PRId64 "\n", n->refused);
    (void)printf("mails       %" PRId64 " sent, %" PRId64 " queued, %" PRId64
                 " refused, %" PRId64 " given up, %" PRId64 " skipped\n",
                 n->mails_sent, n->mails_queued, n->mails_refused,
                 n->mails_given_up, n->mails_skipped);
}

static int
run_show(const struct context *c)
{
    struct places places = {0};
    struct places_counts counts;
    struct invitation invitation;
    bool found = false;
    enum rc rc;

    if (!read_code(c->argv[0])) {
        return EXIT_USAGE;
    }
    rc = places_mongo_new(
        &places, &(struct places_mongo_options){.mongo = c->mongo,
                                                .mail_host = "localhost"});
    if (rc == RC_OK) {
        rc = places.ops->invitation(places.self, c->argv[0], &invitation,
                                    &found);
        places.ops->free(&places.self);
    }
    if (rc == RC_OK && found) {
        rc = places_count(c->mongo, c->argv[0], &counts);
    }
    if (rc != RC_OK) {
        return fail(c, rc);
    }
    if (!found) {
        return not_there(c->argv[0]);
    }
    if (c->json) {
        print_json(&invitation, &counts);
        (void)putchar('\n');
    } else {
        print_shown(&invitation, &counts);
    }
    return EXIT_OK;
}

/* One who is refused for nothing may be one who was mistyped. */
static const char *
revoked_text(enum places_revoked revoked)
{
    switch (revoked) {
    case PLACES_REFUSED_BEFORE:
        return "was refused before";
    case PLACES_REVOKED:
        return "revoked";
    case PLACES_REFUSED_NEW:
        return "had no place and did not wait; refused from now on";
    }
    return "";
}

static int
run_revoke(const struct context *c)
{
    struct address address;
    const char *why = NULL;
    enum places_revoked revoked = PLACES_REFUSED_BEFORE;
    const char *reason = c->argc > 1 ? c->argv[1] : "revoked by the operator";
    enum rc rc = address_parse(c->argv[0], strlen(c->argv[0]),
                               c->fold_plus_tags, &address, &why);

    if (rc != RC_OK) {
        (void)fprintf(stderr, "sluicectl: %s: %s\n", c->argv[0],
                      why != NULL ? why : "no memory");
        return EXIT_USAGE;
    }
    if (!json_utf8_valid(reason, strlen(reason))) { /* MongoDB takes any */
        (void)fprintf(stderr, "sluicectl: the reason is not UTF-8\n");
        return EXIT_USAGE;
    }
    rc = places_revoke(c->mongo, address.key, reason, clock_now_unix_ms(),
                       &revoked);
    if (rc != RC_OK) {
        return fail(c, rc);
    }
    (void)printf("%s: %s\n", address.key, revoked_text(revoked));
    return EXIT_OK;
}

/* ---- CSV --------------------------------------------------------------------
 */

/* The field up to the next comma, which it cuts off; NULL: none is left. */
static char *
next_field(char **line)
{
    char *field = *line;

    if (field != NULL) {
        char *comma = strchr(field, ',');

        *line = comma != NULL ? comma + 1 : NULL;
        if (comma != NULL) {
            *comma = '\0';
        }
    }
    return field;
}

static bool
read_line(char *line, struct invitation *out)
{
    const char *code = next_field(&line);
    const char *limit = next_field(&line);
    const char *expires = next_field(&line);

    memset(out, 0, sizeof(*out));
    if (limit == NULL || line != NULL) {
        (void)fprintf(stderr, "sluicectl: not " CSV_HEAD "\n");
        return false;
    }
    if (!read_code(code) || !read_limit(limit, &out->limit) ||
        (expires != NULL && expires[0] != '\0' &&
         !read_time(expires, &out->expires_unix_ms))) {
        return false;
    }
    memcpy(out->code, code, strlen(code) + 1);
    return true;
}

/* The line without its end, and without the mark by which spreadsheets say that
 * a file is UTF-8. */
static char *
trim_line(char *line, unsigned number)
{
    static const char mark[] = "\xEF\xBB\xBF";
    bool is_marked = number == 1 && strncmp(line, mark, strlen(mark)) == 0;

    line[strcspn(line, "\r\n")] = '\0';
    return is_marked ? line + strlen(mark) : line;
}

/* All lines are read before the first invitation is made: a file is right, or
 * nothing of it is done. What is there already stays as it is. */
static int
import_lines(const struct context *c, FILE *file, bool only_check)
{
    char buffer[CSV_LINE_BYTES];
    unsigned number = 0;
    unsigned made = 0;

    if (fseek(file, 0, SEEK_SET) != 0) {
        (void)fprintf(stderr, "sluicectl: it is read twice: give a file\n");
        return EXIT_REFUSED;
    }
    while (fgets(buffer, sizeof(buffer), file) != NULL) {
        char *line = trim_line(buffer, ++number);
        struct invitation invitation;
        bool created = false;
        enum rc rc;

        if (line[0] == '\0' || strncmp(line, CSV_HEAD, CSV_HEAD_BYTES) == 0) {
            continue;
        }
        if (!read_line(line, &invitation)) {
            (void)fprintf(stderr, "sluicectl: in line %u; nothing is done\n",
                          number);
            return EXIT_REFUSED;
        }
        if (only_check) {
            continue;
        }
        invitation.created_unix_ms = clock_now_unix_ms();
        rc = places_create(c->mongo, &invitation, &created);
        if (rc != RC_OK) {
            return fail(c, rc);
        }
        made += created ? 1 : 0;
    }
    if (ferror(file)) {
        (void)fprintf(stderr, "sluicectl: it cannot be read\n");
        return EXIT_REFUSED;
    }
    if (!only_check) {
        (void)printf("%u created\n", made);
    }
    return EXIT_OK;
}

static int
run_import(const struct context *c)
{
    FILE *file = fopen(c->argv[0], "re");
    int status;

    if (file == NULL) {
        (void)fprintf(stderr, "sluicectl: %s: %s\n", c->argv[0],
                      strerror(errno));
        return EXIT_REFUSED;
    }
    status = import_lines(c, file, true);
    if (status == EXIT_OK) {
        status = import_lines(c, file, false);
    }
    (void)fclose(file);
    return status;
}

static int
print_csv(const struct context *c, const struct invitation *i, bool first)
{
    char expires[CLOCK_RFC3339_BYTES];

    (void)c;
    (void)printf("%s%s,%" PRId32 ",%s\n", first ? CSV_HEAD "\n" : "", i->code,
                 i->limit, time_text(i->expires_unix_ms, expires));
    return EXIT_OK;
}

static enum rc
print_place(void *arg, const struct place *place)
{
    char when[CLOCK_RFC3339_BYTES];

    (void)arg;
    (void)printf("%s,%" PRId32 ",%s,%s,%s\n", place->code, place->slot,
                 place->email, time_text(place->accepted_unix_ms, when),
                 place->request_id);
    return RC_OK;
}

static int
run_export(const struct context *c)
{
    enum rc rc;

    if (c->argc == 0) {
        return for_each(c, print_csv);
    }
    if (!read_code(c->argv[0])) {
        return EXIT_USAGE;
    }
    (void)puts("code,place,email,accepted_at,request_id");
    rc = places_each(c->mongo, c->argv[0], print_place, NULL);
    return rc == RC_OK ? EXIT_OK : fail(c, rc);
}

/* ---- the table --------------------------------------------------------------
 */

static const struct command {
    const char *name;
    int min_words;
    int max_words;
    int (*run)(const struct context *c);
} commands[] = {
    {"create", 1, 5, run_create}, {"limit", 2, 2, run_limit},
    {"list", 0, 0, run_list},     {"show", 1, 1, run_show},
    {"revoke", 1, 2, run_revoke}, {"import", 1, 1, run_import},
    {"export", 0, 1, run_export},
};

static const struct command *
find(const char *name, int words)
{
    for (size_t i = 0; i < ARRAY_COUNT(commands); i++) {
        if (strcmp(commands[i].name, name) == 0 &&
            words >= commands[i].min_words && words <= commands[i].max_words) {
            return &commands[i];
        }
    }
    return NULL;
}

int
sluicectl_invitation(const struct conf *conf, bool json, int argc, char **argv)
{
    struct context c = {
        .json = json,
        .argc = argc - 1,
        .argv = argv + 1,
        .fold_plus_tags = strcmp(conf->invitation.fold_plus_tags, "yes") == 0,
    };
    const struct command *command = argc > 0 ? find(argv[0], argc - 1) : NULL;
    int status;
    enum rc rc;

    if (command == NULL) {
        return usage();
    }
    rc = mongo_new(&c.mongo, conf->mongo.uri, conf->mongo.timeout_ms);
    if (rc != RC_OK) {
        (void)fprintf(stderr, "sluicectl: mongo.uri cannot be used: %s\n",
                      rc_name(rc));
        return EXIT_USAGE;
    }
    status = command->run(&c);
    mongo_free(&c.mongo);
    return status;
}

/* ---- explain ----------------------------------------------------------------
 */

static void
print_trace(const struct places_trace *trace)
{
    char when[CLOCK_RFC3339_BYTES];

    (void)printf("invitation   %s\n", trace->code);
    if (trace->slot != 0) {
        (void)printf("place        %" PRId32 ", since %s\n", trace->slot,
                     time_text(trace->at_unix_ms, when));
    } else if (trace->waits) {
        (void)printf("waiting      since %s\n",
                     time_text(trace->at_unix_ms, when));
    }
    for (size_t i = 0; i < trace->mails; i++) {
        (void)printf("mail         %s: %s\n", trace->mail[i].kind,
                     trace->mail[i].state);
    }
}

static void
put_member(struct text *out, const char *name, const char *value)
{
    text_printf(out, "\"%s\":", name);
    text_json_string(out, value, strlen(value));
}

/* The same as an object. */
static void
put_trace(const struct places_trace *trace, struct text *out)
{
    bool has_time = trace->slot != 0 || trace->waits;

    text_putc(out, '{');
    put_member(out, "code", trace->code);
    text_puts(out, ",\"place\":");
    if (trace->slot != 0) {
        text_int(out, trace->slot);
    } else {
        text_puts(out, "null");
    }
    text_printf(out, ",\"waiting\":%s", trace->waits ? "true" : "false");
    text_json_time(out, "since", has_time ? trace->at_unix_ms : 0);
    text_puts(out, ",\"mails\":[");
    for (size_t i = 0; i < trace->mails; i++) {
        text_puts(out, i > 0 ? ",{" : "{");
        put_member(out, "kind", trace->mail[i].kind);
        text_putc(out, ',');
        put_member(out, "state", trace->mail[i].state);
        text_putc(out, '}');
    }
    text_puts(out, "]}");
}

bool
sluicectl_invitation_explain(const struct conf *conf, const struct uuid *id,
                             struct text *json)
{
    struct mongo *mongo = NULL;
    struct places_trace trace = {.code = ""};
    char text[UUID_TEXT_BYTES];
    enum rc rc = mongo_new(&mongo, conf->mongo.uri, conf->mongo.timeout_ms);

    if (rc == RC_OK) {
        rc = places_trace(mongo, uuid_format(id, text), &trace);
    }
    mongo_free(&mongo);
    if (rc != RC_OK) {
        (void)fprintf(json != NULL ? stderr : stdout,
                      "MongoDB does not answer: if it was for an invitation, "
                      "ask again.\n");
    } else if (trace.code[0] != '\0' && json != NULL) {
        put_trace(&trace, json);
    } else if (trace.code[0] != '\0') {
        print_trace(&trace);
    }
    return rc == RC_OK && trace.code[0] != '\0';
}
