/* Configuration: one const table describes every key; the file, the
 * environment and the flags are three ways to the same setter. */
#include "shared/conf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/stat.h>

#include <ini.h>

#ifndef SYSCONFDIR
#define SYSCONFDIR "/etc"
#endif
#define DEFAULT_FILE SYSCONFDIR "/sluice/sluice.conf"
#define FILE_NAME "sluice.conf"

#define LINE_BYTES 2048
#define FILE_BYTES_MAX (1 << 20)
#define NAME_BYTES 128U
#define SHOWN_BYTES 80 /* of a wrong value in an error */
#define SUN_PATH_MAX (CONF_SOCKET_BYTES - 1)
#define PREFIX_DIGITS_MAX 7U
#define SECRETS_MAX 2
#define SECRET_BYTES_MIN 8
#define SECRET_BYTES_MAX 128
#define PREFIXES_APART ", "

#define KIB INT64_C(1024)
#define MIB (KIB * 1024)
#define GIB (MIB * 1024)
#define TIB (GIB * 1024)

extern char **environ;

enum type {
    TYPE_INT,      /* int64_t within min..max */
    TYPE_BYTES,    /* the same, takes KiB MiB GiB TiB */
    TYPE_LEVEL,    /* enum log_level */
    TYPE_PATH,     /* made absolute */
    TYPE_SOCKET,   /* a path that fits sun_path */
    TYPE_URL,      /* one of the schemes */
    TYPE_ENDPOINT, /* ZeroMQ: a URL whose ipc path fits sun_path */
    TYPE_WORD,     /* one of the words */
    TYPE_TEXT,     /* one line, any characters but controls */
    TYPE_PREFIXES, /* of phone numbers, separated by commas and blanks */
    TYPE_SECRETS,  /* one or two, separated by a comma */
};

struct key {
    const char *section;
    const char *name;
    const char *unit;    /* "ms"; NULL: none */
    const char *text;    /* default of what is text or a level; NULL: "" or
                            derived */
    const char *derived; /* what the table prints for a derived default */
    const char *schemes; /* of a URL: "http https" */
    const char *words;   /* of a word: "arrival answer" */
    const char *help;
    int64_t min;
    int64_t max;
    int64_t number; /* default of a number */
    size_t offset;  /* in struct conf */
    size_t size;    /* of a string: with its NUL */
    enum type type;
    bool reloadable;
};

#define AT(section, member)                                                    \
    .offset = offsetof(struct conf, section.member),                           \
    .size = sizeof(((struct conf *)NULL)->section.member)

static const struct key keys[] = {
    {"node", "id", AT(node, id), .type = TYPE_INT, .max = 65535,
     .help = "number of this host, in every id that it makes"},
    {"node", "dir", AT(node, dir), .type = TYPE_PATH,
     .derived = "folder of the file", .help = "state of the instance"},
    {"node", "run_dir", AT(node, run_dir), .type = TYPE_PATH,
     .derived = "`<node.dir>/run`",
     .help = "sockets; a symbolic link is followed, so that a deep "
             "`node.dir` can have short socket names"},
    {"log", "level", AT(log, level), .type = TYPE_LEVEL, .text = "info",
     .reloadable = true, .help = "how much is logged"},
    {"journal", "path", AT(journal, path), .type = TYPE_PATH,
     .derived = "`<node.dir>/journal.db`", .help = "the SQLite file"},
    {"journal", "max_bytes", AT(journal, max_bytes), .type = TYPE_BYTES,
     .min = MIB, .max = 16 * TIB, .number = 10 * GIB,
     .help = "used pages and WAL at which requests get 503"},
    {"journal", "reserve_bytes", AT(journal, reserve_bytes), .type = TYPE_BYTES,
     .max = TIB, .number = 128 * MIB,
     .help = "handlers answer 503 when the file system has less free; what "
             "is left is the dispatcher's"},
    {"journal", "lock_timeout_ms", AT(journal, lock_timeout_ms),
     .type = TYPE_INT, .unit = "ms", .min = 10, .max = 60000, .number = 5000,
     .help = "wait for the journal's lock, then 503"},
    {"link", "endpoint", AT(link, endpoint), .type = TYPE_ENDPOINT,
     .schemes = "ipc tcp", .derived = "`ipc://<node.run_dir>/link.sock`",
     .help = "ZeroMQ endpoint from the handlers to the dispatcher"},
    {"control", "path", AT(control, path), .type = TYPE_SOCKET,
     .derived = "`<node.run_dir>/control.sock`",
     .help = "the dispatcher's control socket"},
    {"edge", "batch", AT(edge, batch), .type = TYPE_INT, .min = 1, .max = 1024,
     .number = 64, .help = "requests of one commit"},
    {"edge", "side_threads", AT(edge, side_threads), .type = TYPE_INT, .min = 1,
     .max = 64, .number = 4, .help = "threads that wait for slow bodies"},
    {"edge", "ask_threads", AT(edge, ask_threads), .type = TYPE_INT, .min = 1,
     .max = 64, .number = 4, .help = "threads for a GET that asks a database"},
    {"edge", "max_body_bytes", AT(edge, max_body_bytes), .type = TYPE_BYTES,
     .min = 1, .max = MIB, .number = 64 * KIB, .help = "longer bodies get 413"},
    {"edge", "body_timeout_ms", AT(edge, body_timeout_ms), .type = TYPE_INT,
     .unit = "ms", .min = 100, .max = 120000, .number = 10000,
     .help = "a body that is not whole by then gets 408"},
    {"edge", "max_connections", AT(edge, max_connections), .type = TYPE_INT,
     .min = 16, .max = 65536, .number = 4096,
     .help = "FastCGI connections of one handler"},
    {"edge", "max_per_s", AT(edge, max_per_s), .type = TYPE_INT, .max = 1000000,
     .help =
         "requests that one handler process takes in a second, 0: no limit; "
         "more wait for their turn"},
    {"edge", "max_wait_ms", AT(edge, max_wait_ms), .type = TYPE_INT,
     .unit = "ms", .max = 60000, .number = 2000,
     .help = "whose turn is later than this gets 503"},
    {"dispatcher", "inbox_rows", AT(dispatcher, inbox_rows), .type = TYPE_INT,
     .min = 16, .max = 1000000, .number = 1024,
     .help = "requests in a service's inbox"},
    {"dispatcher", "inbox_bytes", AT(dispatcher, inbox_bytes),
     .type = TYPE_BYTES, .min = MIB, .max = GIB, .number = 8 * MIB,
     .help = "their bytes"},
    {"postgres", "url", AT(postgres, url), .type = TYPE_URL,
     .schemes = "postgresql postgres", .text = "postgresql:///sluice",
     .help = "libpq connection URL"},
    {"postgres", "timeout_ms", AT(postgres, timeout_ms), .type = TYPE_INT,
     .unit = "ms", .min = 100, .max = 600000, .number = 5000,
     .help = "of a connection attempt and of a statement"},
    {"mongo", "uri", AT(mongo, uri), .type = TYPE_URL,
     .schemes = "mongodb mongodb+srv",
     .text = "mongodb://127.0.0.1:27017/sluice", .help = "MongoDB URI"},
    {"mongo", "timeout_ms", AT(mongo, timeout_ms), .type = TYPE_INT,
     .unit = "ms", .min = 100, .max = 600000, .number = 5000,
     .help = "of connecting and of each command"},
    {"callback", "objects_url", AT(callback, objects_url), .type = TYPE_URL,
     .schemes = "http https", .text = "http://localhost:9010/objects/",
     .reloadable = true, .help = "an object's id is appended to it"},
    {"callback", "concurrency", AT(callback, concurrency), .type = TYPE_INT,
     .min = 1, .max = 20000, .number = 500, .reloadable = true,
     .help = "connections of the fetch pool"},
    {"callback", "timeout_ms", AT(callback, timeout_ms), .type = TYPE_INT,
     .unit = "ms", .min = 10, .max = 600000, .number = 5000, .reloadable = true,
     .help = "of one fetch, from its GET"},
    {"callback", "max_attempts", AT(callback, max_attempts), .type = TYPE_INT,
     .min = 1, .max = 100, .number = 4, .reloadable = true,
     .help = "then the object is a dead letter"},
    {"callback", "retry_base_ms", AT(callback, retry_base_ms), .type = TYPE_INT,
     .unit = "ms", .min = 1, .max = 600000, .number = 200, .reloadable = true,
     .help = "full jitter over base * 2^(attempt - 1), at most 30 s"},
    {"callback", "rate_per_s", AT(callback, rate_per_s), .type = TYPE_INT,
     .unit = "1/s", .max = 1000000, .number = 0, .reloadable = true,
     .help = "fetches started a second; 0: no limit"},
    {"callback", "expire_s", AT(callback, expire_s), .type = TYPE_INT,
     .unit = "s", .max = 365 * 86400, .number = 30, .reloadable = true,
     .help = "age at which an object is forgotten; 0: never"},
    {"call", "url", AT(call, url), .type = TYPE_URL, .schemes = "http https",
     .text = "http://localhost:9011/originate_call", .reloadable = true,
     .help = "a call is started by a POST to it"},
    {"call", "rate_count", AT(call, rate_count), .type = TYPE_INT, .min = 1,
     .max = 10000, .number = 25,
     .help = "calls started in any `call.rate_window_ms`"},
    {"call", "rate_window_ms", AT(call, rate_window_ms), .type = TYPE_INT,
     .unit = "ms", .min = 100, .max = 3600000, .number = 10000,
     .help = "the window of the provider's limit"},
    {"call", "guard_ms", AT(call, guard_ms), .type = TYPE_INT, .unit = "ms",
     .max = 60000, .number = 50,
     .help = "added to the window: how late the provider may count what its "
             "machine has acknowledged"},
    {"call", "backoff_ms", AT(call, backoff_ms), .type = TYPE_INT, .unit = "ms",
     .min = 1, .max = 3600000, .number = 30000,
     .help = "pause after a 429; doubles with each probe that fails"},
    {"call", "max_backoff_ms", AT(call, max_backoff_ms), .type = TYPE_INT,
     .unit = "ms", .min = 1, .max = 3600000, .number = 120000,
     .help = "the longest such pause"},
    {"call", "max_in_flight", AT(call, max_in_flight), .type = TYPE_INT,
     .min = 1, .max = 10000, .number = 64, .reloadable = true,
     .help = "calls that wait for their answer at once"},
    {"call", "max_attempts", AT(call, max_attempts), .type = TYPE_INT, .min = 1,
     .max = 100, .number = 5, .reloadable = true,
     .help = "then the call has failed; a 429 does not count"},
    {"call", "retry_base_ms", AT(call, retry_base_ms), .type = TYPE_INT,
     .unit = "ms", .min = 1, .max = 600000, .number = 500, .reloadable = true,
     .help = "full jitter over base * 2^(attempt - 1), at most 30 s"},
    {"call", "timeout_ms", AT(call, timeout_ms), .type = TYPE_INT, .unit = "ms",
     .min = 100, .max = 600000, .number = 30000, .reloadable = true,
     .help = "of one call, from its POST; then its outcome is unknown"},
    {"call", "count_at", AT(call, count_at), .type = TYPE_WORD,
     .words = "arrival answer", .text = "arrival", .reloadable = true,
     .help = "when the provider counts a request against its limit"},
    {"call", "on_unknown", AT(call, on_unknown), .type = TYPE_WORD,
     .words = "report redial", .text = "report", .reloadable = true,
     .help = "a call that may have been made: tell so, or dial again"},
    {"call", "duplicate_window_s", AT(call, duplicate_window_s),
     .type = TYPE_INT, .unit = "s", .max = 86400, .number = 0,
     .reloadable = true,
     .help = "the same number and agent within it are one call, unless an "
             "`Idempotency-Key` is given; 0: off"},
    {"call", "allow_countries", AT(call, allow_countries),
     .type = TYPE_PREFIXES, .derived = "all", .reloadable = true,
     .help = "numbers must begin with one of these, `+1, +49`; else 400"},
    {"sms", "url", AT(sms, url), .type = TYPE_URL, .schemes = "http https",
     .text = "http://localhost:9012/batches", .reloadable = true,
     .help = "a batch of messages is sent by a POST to it"},
    {"sms", "batch_size", AT(sms, batch_size), .type = TYPE_INT, .min = 1,
     .max = 1000, .number = 100, .reloadable = true,
     .help = "messages in a full batch; 1: each goes at once"},
    {"sms", "max_delay_ms", AT(sms, max_delay_ms), .type = TYPE_INT,
     .unit = "ms", .max = 3600000, .number = 2000, .reloadable = true,
     .help = "then a batch goes as it is"},
    {"sms", "max_attempts", AT(sms, max_attempts), .type = TYPE_INT, .min = 1,
     .max = 100, .number = 5, .reloadable = true,
     .help = "then its messages go to the dead letters"},
    {"sms", "retry_base_ms", AT(sms, retry_base_ms), .type = TYPE_INT,
     .unit = "ms", .min = 1, .max = 600000, .number = 500, .reloadable = true,
     .help = "full jitter up to this * 2^(attempt-1), at most 30 s"},
    {"sms", "timeout_ms", AT(sms, timeout_ms), .type = TYPE_INT, .unit = "ms",
     .min = 100, .max = 600000, .number = 30000, .reloadable = true,
     .help = "of one POST"},
    {"sms", "max_in_flight", AT(sms, max_in_flight), .type = TYPE_INT, .min = 1,
     .max = 100, .number = 4, .reloadable = true,
     .help = "batches that wait for their answer at once"},
    {"sms", "webhook_secrets", AT(sms, webhook_secrets), .type = TYPE_SECRETS,
     .derived = "none", .reloadable = true,
     .help = "`X-Signature` of status updates must hold under one of them; "
             "none: updates are taken unsigned"},
    {"sms", "status_callback_url", AT(sms, status_callback_url),
     .type = TYPE_URL, .schemes = "http https", .derived = "none",
     .reloadable = true,
     .help = "messages' new states are posted to it, signed like updates"},
    {"invitation", "fold_plus_tags", AT(invitation, fold_plus_tags),
     .type = TYPE_WORD, .words = "no yes", .text = "no", .reloadable = true,
     .help = "yes: `jo+tag@` is the same person as `jo@`"},
    {"mail", "url", AT(mail, url), .type = TYPE_URL, .schemes = "smtp smtps",
     .text = "smtp://localhost:9025", .reloadable = true,
     .help = "the mail server; `smtps`: TLS from the first byte"},
    {"mail", "tls", AT(mail, tls), .type = TYPE_WORD,
     .words = "try none require", .text = "try", .reloadable = true,
     .help = "STARTTLS on `smtp`: `require` sends nothing without it, nor to a "
             "server whose certificate it cannot trust; `try` trusts any"},
    {"mail", "username", AT(mail, username), .type = TYPE_TEXT,
     .derived = "none", .reloadable = true,
     .help = "none: no AUTH; with mail.tls = try only to this host"},
    {"mail", "password", AT(mail, password), .type = TYPE_TEXT,
     .derived = "none", .reloadable = true, .help = "of mail.username"},
    {"mail", "from", AT(mail, from), .type = TYPE_TEXT,
     .text = "Sluice <invitations@localhost>", .reloadable = true,
     .help = "From, and the envelope's sender"},
    {"mail", "templates", AT(mail, templates), .type = TYPE_PATH,
     .derived = "the installed ones", .reloadable = true,
     .help = "folder of welcome, apology and unknown: subject, text, HTML"},
    {"mail", "max_per_s", AT(mail, max_per_s), .type = TYPE_INT, .unit = "1/s",
     .max = 100000, .reloadable = true,
     .help = "mails that one dispatcher sends; 0: no limit"},
    {"mail", "max_in_flight", AT(mail, max_in_flight), .type = TYPE_INT,
     .min = 1, .max = 100, .number = 4, .reloadable = true,
     .help = "connections to the mail server at once"},
    {"mail", "timeout_ms", AT(mail, timeout_ms), .type = TYPE_INT, .unit = "ms",
     .min = 1000, .max = 600000, .number = 60000, .reloadable = true,
     .help = "of one mail"},
    {"mail", "retry_base_ms", AT(mail, retry_base_ms), .type = TYPE_INT,
     .unit = "ms", .min = 1, .max = 3600000, .number = 60000,
     .reloadable = true,
     .help = "full jitter up to this * 2^(attempt-1), at most 1 h"},
    {"mail", "retry_for_s", AT(mail, retry_for_s), .type = TYPE_INT,
     .unit = "s", .max = 2592000, .number = 172800, .reloadable = true,
     .help =
         "from the first attempt; then, after 5 at least, a mail is given up"},
    {"mail", "pause_ms", AT(mail, pause_ms), .type = TYPE_INT, .unit = "ms",
     .min = 1, .max = 3600000, .number = 60000, .reloadable = true,
     .help = "of all mail, when the server refuses us and not a recipient; "
             "doubled up to 1 h"},
    {"auth", "keys_file", AT(auth, keys_file), .type = TYPE_PATH,
     .derived = "none", .help = "API keys; none: no key is asked for"},
};

/* Everything that one conf_load needs. */
struct loader {
    struct conf *out;
    struct text *errors;
    unsigned problems;
    const char *file;     /* as the caller named it, for errors */
    const char *file_dir; /* absolute: base of relative paths in the file */
    unsigned line;        /* that the reader handed out last */
    const char *p;        /* the reader's position in the file's text */
    unsigned seen_at[ARRAY_COUNT(keys)]; /* line of each key in the file */
};

static void problem(struct loader *l, const char *origin, const char *format,
                    ...) PRINTF_LIKE(3, 4);

/* Add a line "origin: reason". */
static void
problem(struct loader *l, const char *origin, const char *format, ...)
{
    char reason[512];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(reason, sizeof(reason), format, args);
    va_end(args);
    text_printf(l->errors, "%s: %s\n", origin, reason);
    l->problems++;
}

static void *
value_of(struct conf *conf, const struct key *key)
{
    return (char *)conf + key->offset;
}

static const void *
const_value_of(const struct conf *conf, const struct key *key)
{
    return (const char *)conf + key->offset;
}

static bool
is_number(const struct key *key)
{
    return key->type == TYPE_INT || key->type == TYPE_BYTES;
}

static bool
has_control_character(const char *value)
{
    for (; *value != '\0'; value++) {
        if ((unsigned char)*value < ' ' || *value == 0x7f) {
            return true;
        }
    }
    return false;
}

/* Write path, relative to base, without empty and "." parts. False: too long.
 * ".." stays: only the kernel knows what it means behind a link. */
static bool
absolute_path(const char *base, const char *path, char *out, size_t size)
{
    const char *parts[2] = {path[0] == '/' ? "" : base, path};
    size_t used = 0;

    for (unsigned i = 0; i < ARRAY_COUNT(parts); i++) {
        const char *p = parts[i];

        while (*p != '\0') {
            size_t bytes = strcspn(p, "/");

            if (bytes > 0 && !(bytes == 1 && *p == '.')) {
                if (used + bytes + 2 > size) {
                    return false;
                }
                out[used++] = '/';
                memcpy(out + used, p, bytes);
                used += bytes;
            }
            p += bytes;
            p += *p == '/' ? 1 : 0;
        }
    }
    if (used == 0) {
        out[used++] = '/';
    }
    out[used] = '\0';
    return true;
}

static enum rc
working_dir(struct loader *l, char out[CONF_PATH_BYTES])
{
    if (getcwd(out, CONF_PATH_BYTES) == NULL) {
        problem(l, "working directory", "%s", strerror(errno));
        out[0] = '\0';
        return RC_IO;
    }
    return RC_OK;
}

/* Decimal digits with an optional sign; *rest = behind them. False: none, or
 * too many. */
static bool
parse_integer(const char *value, int64_t *out, const char **rest)
{
    char *end;
    long long number;

    if (*value != '-' && (*value < '0' || *value > '9')) {
        return false;
    }
    errno = 0;
    number = strtoll(value, &end, 10);
    if (errno != 0 || end == value) {
        return false;
    }
    *out = number;
    *rest = end;
    return true;
}

/* Factor of a unit of bytes; 0: no such unit. */
static int64_t
bytes_factor(const char *unit)
{
    static const struct {
        const char *name;
        int64_t factor;
    } units[] = {
        {"", 1}, {"KiB", KIB}, {"MiB", MIB}, {"GiB", GIB}, {"TiB", TIB}};

    while (*unit == ' ') {
        unit++;
    }
    for (unsigned i = 0; i < ARRAY_COUNT(units); i++) {
        if (strcmp(unit, units[i].name) == 0) {
            return units[i].factor;
        }
    }
    return 0;
}

static void
set_number(struct loader *l, const struct key *key, const char *value,
           const char *origin)
{
    int64_t number;
    const char *rest;
    int64_t factor = 1;

    if (!parse_integer(value, &number, &rest)) {
        problem(l, origin, "%s.%s: \"%.*s\" is not a whole number",
                key->section, key->name, SHOWN_BYTES, value);
        return;
    }
    if (key->type == TYPE_BYTES) {
        factor = bytes_factor(rest);
        if (factor == 0) {
            problem(l, origin,
                    "%s.%s: \"%.*s\": the unit must be KiB, MiB, GiB or TiB, "
                    "or none for bytes",
                    key->section, key->name, SHOWN_BYTES, value);
            return;
        }
    } else if (*rest != '\0') {
        problem(l, origin, "%s.%s: \"%.*s\" is not a plain number%s%s",
                key->section, key->name, SHOWN_BYTES, value,
                key->unit != NULL ? " of " : "",
                key->unit != NULL ? key->unit : "");
        return;
    }
    /* Dividing the bound, since the product might overflow. */
    if (number > key->max / factor) {
        problem(l, origin, "%s.%s: %.*s is above %" PRId64, key->section,
                key->name, SHOWN_BYTES, value, key->max);
    } else if (number < 0 || number * factor < key->min) {
        problem(l, origin, "%s.%s: %.*s is below %" PRId64, key->section,
                key->name, SHOWN_BYTES, value, key->min);
    } else {
        *(int64_t *)value_of(l->out, key) = number * factor;
    }
}

static void
set_path(struct loader *l, const struct key *key, const char *value,
         const char *origin, const char *base)
{
    char cwd[CONF_PATH_BYTES];
    char *out = value_of(l->out, key);

    if (value[0] == '\0') {
        /* As if it were not there: derived, or none. */
        out[0] = '\0';
        return;
    }
    if (base == NULL) {
        if (working_dir(l, cwd) != RC_OK) {
            return;
        }
        base = cwd;
    }
    if (!absolute_path(base, value, out, key->size)) {
        problem(l, origin, "%s.%s: the path is longer than %zu bytes%s",
                key->section, key->name, key->size - 1,
                key->type == TYPE_SOCKET
                    ? ", the most that a UNIX socket can have"
                    : "");
        out[0] = '\0';
    }
}

/* Does the value begin with one of the key's schemes and "://"? *rest =
 * behind it. */
static bool
scheme_is_known(const struct key *key, const char *value, const char **rest)
{
    const char *mark = strstr(value, "://");
    const char *scheme = key->schemes;

    while (mark != NULL && *scheme != '\0') {
        size_t bytes = strcspn(scheme, " ");

        if (bytes == (size_t)(mark - value) &&
            strncmp(scheme, value, bytes) == 0) {
            *rest = mark + 3;
            return true;
        }
        scheme += bytes;
        scheme += *scheme == ' ' ? 1 : 0;
    }
    return false;
}

static void
set_url(struct loader *l, const struct key *key, const char *value,
        const char *origin)
{
    const char *rest = NULL;

    if (*value == '\0' && key->text == NULL && key->derived != NULL) {
        *(char *)value_of(l->out, key) = '\0';
    } else if (!scheme_is_known(key, value, &rest)) {
        problem(l, origin, "%s.%s: must begin with one of \"%s\" and ://",
                key->section, key->name, key->schemes);
    } else if (strchr(value, ' ') != NULL) {
        problem(l, origin, "%s.%s: a space in the URL", key->section,
                key->name);
    } else if (*rest == '\0' || (strncmp(value, "http", 4) == 0 &&
                                 strchr("/?#:", *rest) != NULL)) {
        problem(l, origin, "%s.%s: nothing behind %.*s", key->section,
                key->name, (int)(rest - value), value);
    } else if (strncmp(value, "ipc:", 4) == 0 && strlen(rest) > SUN_PATH_MAX) {
        problem(l, origin,
                "%s.%s: the socket's path is longer than %d bytes, the most "
                "that a UNIX socket can have",
                key->section, key->name, SUN_PATH_MAX);
    } else if (strlen(value) >= key->size) {
        problem(l, origin, "%s.%s: longer than %zu bytes", key->section,
                key->name, key->size - 1);
    } else {
        memcpy(value_of(l->out, key), value, strlen(value) + 1);
    }
}

static void
set_level(struct loader *l, const struct key *key, const char *value,
          const char *origin)
{
    enum log_level level;

    if (log_level_parse(value, &level) != RC_OK) {
        problem(l, origin, "%s.%s: \"%.*s\" is not error, warn, info or debug",
                key->section, key->name, SHOWN_BYTES, value);
    } else {
        *(enum log_level *)value_of(l->out, key) = level;
    }
}

/* Is value one of the words of a list that blanks separate? */
static bool
word_is_listed(const char *words, const char *value)
{
    size_t bytes = strlen(value);

    while (*words != '\0') {
        size_t word = strcspn(words, " ");

        if (word == bytes && strncmp(words, value, bytes) == 0) {
            return true;
        }
        words += word;
        words += strspn(words, " ");
    }
    return false;
}

static void
set_word(struct loader *l, const struct key *key, const char *value,
         const char *origin)
{
    if (!word_is_listed(key->words, value) || strlen(value) >= key->size) {
        problem(l, origin, "%s.%s: \"%.*s\" is none of \"%s\"", key->section,
                key->name, SHOWN_BYTES, value, key->words);
    } else {
        memcpy(value_of(l->out, key), value, strlen(value) + 1);
    }
}

static void
set_text(struct loader *l, const struct key *key, const char *value,
         const char *origin)
{
    bool plain = true;

    for (const char *p = value; *p != '\0'; p++) {
        plain = plain && (unsigned char)*p >= ' ' && *p != '\x7f';
    }
    /* The value itself is not shown: it may be a password. */
    if (!plain || strlen(value) >= key->size) {
        problem(l, origin, "%s.%s: at most %zu characters of one line",
                key->section, key->name, key->size - 1);
    } else {
        memcpy(value_of(l->out, key), value, strlen(value) + 1);
    }
}

/* Is it + and 1 to 7 digits, the first of which is not 0? */
static bool
is_prefix(const char *text, size_t bytes)
{
    return bytes >= 2 && bytes <= PREFIX_DIGITS_MAX + 1 && text[0] == '+' &&
           text[1] != '0' && strspn(text + 1, "0123456789") >= bytes - 1;
}

static void
set_prefixes(struct loader *l, const struct key *key, const char *value,
             const char *origin)
{
    for (const char *p = value + strspn(value, PREFIXES_APART); *p != '\0';
         p += strspn(p, PREFIXES_APART)) {
        size_t bytes = strcspn(p, PREFIXES_APART);

        if (!is_prefix(p, bytes)) {
            problem(l, origin,
                    "%s.%s: \"%.*s\" is not + and 1 to %u digits, the first "
                    "not 0",
                    key->section, key->name,
                    bytes < SHOWN_BYTES ? (int)bytes : SHOWN_BYTES, p,
                    PREFIX_DIGITS_MAX);
            return;
        }
        p += bytes;
    }
    if (strlen(value) >= key->size) {
        problem(l, origin, "%s.%s: longer than %zu bytes", key->section,
                key->name, key->size - 1);
    } else {
        memcpy(value_of(l->out, key), value, strlen(value) + 1);
    }
}

/* Long enough that nobody guesses it by chance, and of characters that no
 * editor changes. Behind a blank a ';' would begin a comment. */
static bool
is_secret(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] <= ' ' || text[i] > '~' || text[i] == ';') {
            return false;
        }
    }
    return bytes >= SECRET_BYTES_MIN && bytes <= SECRET_BYTES_MAX;
}

static void
set_secrets(struct loader *l, const struct key *key, const char *value,
            const char *origin)
{
    const char *p = value;
    unsigned count = 0;

    while (*p != '\0') {
        size_t bytes = strcspn(p, ", ");

        /* The value itself is not shown: it is a secret. */
        if (!is_secret(p, bytes) || ++count > SECRETS_MAX ||
            strlen(value) >= key->size) {
            problem(l, origin,
                    "%s.%s: at most %d secrets, separated by a comma, of %d "
                    "to %d visible ASCII characters each, without ; and ,",
                    key->section, key->name, SECRETS_MAX, SECRET_BYTES_MIN,
                    SECRET_BYTES_MAX);
            return;
        }
        p += bytes;
        p += strspn(p, ", ");
    }
    memcpy(value_of(l->out, key), value, strlen(value) + 1);
}

/* The one setter. base: folder of relative paths, NULL: the working
 * directory. */
static void
set_key(struct loader *l, const struct key *key, const char *value,
        const char *origin, const char *base)
{
    if (has_control_character(value)) {
        problem(l, origin, "%s.%s: a control character in the value",
                key->section, key->name);
        return;
    }
    switch (key->type) {
    case TYPE_INT:
    case TYPE_BYTES:
        set_number(l, key, value, origin);
        break;
    case TYPE_LEVEL:
        set_level(l, key, value, origin);
        break;
    case TYPE_PATH:
    case TYPE_SOCKET:
        set_path(l, key, value, origin, base);
        break;
    case TYPE_URL:
    case TYPE_ENDPOINT:
        set_url(l, key, value, origin);
        break;
    case TYPE_WORD:
        set_word(l, key, value, origin);
        break;
    case TYPE_TEXT:
        set_text(l, key, value, origin);
        break;
    case TYPE_PREFIXES:
        set_prefixes(l, key, value, origin);
        break;
    case TYPE_SECRETS:
        set_secrets(l, key, value, origin);
        break;
    }
}

static void
set_defaults(struct conf *conf)
{
    memset(conf, 0, sizeof(*conf));
    for (unsigned i = 0; i < ARRAY_COUNT(keys); i++) {
        const struct key *key = &keys[i];

        if (is_number(key)) {
            *(int64_t *)value_of(conf, key) = key->number;
        } else if (key->type == TYPE_LEVEL) {
            *(enum log_level *)value_of(conf, key) = LOG_INFO;
        } else if (key->text != NULL) {
            memcpy(value_of(conf, key), key->text, strlen(key->text) + 1);
        }
    }
}

/* --- the file --- */

/* inih's fgets: hands out one line, counts it, and never half a line. */
static char *
read_line(char *out, int size, void *user)
{
    struct loader *l = user;
    size_t bytes = strcspn(l->p, "\n");
    char origin[CONF_PATH_BYTES + 16];

    if (*l->p == '\0') {
        return NULL;
    }
    l->line++;
    if (bytes + 2 > (size_t)size) {
        (void)snprintf(origin, sizeof(origin), "%s:%u", l->file, l->line);
        problem(l, origin, "the line is longer than %d bytes", size - 2);
        out[0] = '\n';
        out[1] = '\0';
    } else {
        /* inih takes an indented line for more of the last value. */
        size_t indent = strspn(l->p, " \t");

        memcpy(out, l->p + indent, bytes - indent);
        out[bytes - indent] = '\n';
        out[bytes - indent + 1] = '\0';
    }
    l->p += bytes;
    l->p += *l->p == '\n' ? 1 : 0;
    return out;
}

static bool
section_is_known(const char *section, size_t bytes)
{
    for (unsigned i = 0; i < ARRAY_COUNT(keys); i++) {
        if (strlen(keys[i].section) == bytes &&
            strncmp(keys[i].section, section, bytes) == 0) {
            return true;
        }
    }
    return false;
}

static int
take_line(void *user, const char *section, const char *name, const char *value)
{
    struct loader *l = user;
    char origin[CONF_PATH_BYTES + 16];

    (void)snprintf(origin, sizeof(origin), "%s:%u", l->file, l->line);
    if (section[0] == '\0') {
        problem(l, origin, "%s: in front of the first [section]", name);
        return 1;
    }
    if (!section_is_known(section, strlen(section))) {
        problem(l, origin, "%s.%s: no such section", section, name);
        return 1;
    }
    for (unsigned i = 0; i < ARRAY_COUNT(keys); i++) {
        if (strcmp(keys[i].section, section) == 0 &&
            strcmp(keys[i].name, name) == 0) {
            if (l->seen_at[i] != 0) {
                problem(l, origin, "%s.%s: is already set in line %u", section,
                        name, l->seen_at[i]);
                return 1;
            }
            l->seen_at[i] = l->line;
            set_key(l, &keys[i], value, origin, l->file_dir);
            return 1;
        }
    }
    problem(l, origin, "%s.%s: no such key", section, name);
    return 1;
}

/* The whole file with a NUL into *out (the caller frees it). */
static enum rc
read_file(struct loader *l, char **out)
{
    FILE *file = fopen(l->out->file, "re");
    char *text = NULL;
    size_t bytes = 0;
    struct stat st;
    enum rc rc = RC_IO;

    *out = NULL;
    if (file == NULL || fstat(fileno(file), &st) != 0) {
        problem(l, l->file, "%s", strerror(errno));
        goto out;
    }
    if (S_ISDIR(st.st_mode)) {
        problem(l, l->file, "is a directory");
        goto out;
    }
    text = malloc(FILE_BYTES_MAX + 1);
    if (text == NULL) {
        problem(l, l->file, "out of memory");
        rc = RC_NOMEM;
        goto out;
    }
    bytes = fread(text, 1, FILE_BYTES_MAX + 1, file);
    if (ferror(file) != 0) {
        problem(l, l->file, "%s", strerror(errno));
        goto out;
    }
    rc = RC_INVALID;
    if (bytes > FILE_BYTES_MAX) {
        problem(l, l->file, "is larger than 1 MiB");
        goto out;
    }
    text[bytes] = '\0';
    if (strlen(text) != bytes) {
        problem(l, l->file, "holds a NUL byte");
        goto out;
    }
    rc = RC_OK;
    *out = text;
    text = NULL;
out:
    free(text);
    if (file != NULL) {
        (void)fclose(file);
    }
    return rc;
}

static enum rc
load_file(struct loader *l)
{
    char *text;
    enum rc rc = read_file(l, &text);
    char origin[CONF_PATH_BYTES + 16];
    int first_bad;

    if (rc != RC_OK) {
        return rc;
    }
    l->p = text;
    l->line = 0;
    ini_max_line = LINE_BYTES;
    first_bad = ini_parse_stream(read_line, l, take_line, l);
    free(text);
    if (first_bad > 0) {
        (void)snprintf(origin, sizeof(origin), "%s:%d", l->file, first_bad);
        problem(l, origin, "is neither [section] nor key = value");
    } else if (first_bad < 0) {
        problem(l, l->file, "out of memory");
        return RC_NOMEM;
    }
    return RC_OK;
}

/* --- the environment --- */

static char
upper(char c)
{
    return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

/* Is name (bytes long) the variable of this key, without SLUICE_? */
static bool
is_variable_of(const struct key *key, const char *name, size_t bytes)
{
    char wanted[NAME_BYTES];
    int n = snprintf(wanted, sizeof(wanted), "%s_%s", key->section, key->name);

    if (n < 0 || (size_t)n != bytes) {
        return false;
    }
    for (size_t i = 0; i < bytes; i++) {
        if (upper(wanted[i]) != name[i]) {
            return false;
        }
    }
    return true;
}

static bool
variable_names_section(const char *name)
{
    char section[NAME_BYTES];
    size_t bytes = strcspn(name, "_=");

    if (name[bytes] != '_' || bytes >= sizeof(section)) {
        return false;
    }
    for (size_t i = 0; i < bytes; i++) {
        section[i] = name[i] >= 'A' && name[i] <= 'Z'
                         ? (char)(name[i] - 'A' + 'a')
                         : '?';
    }
    return section_is_known(section, bytes);
}

static void
load_environment(struct loader *l)
{
    static const char prefix[] = "SLUICE_";

    for (char **entry = environ; entry != NULL && *entry != NULL; entry++) {
        const char *name = *entry + sizeof(prefix) - 1;
        const char *mark = strchr(*entry, '=');
        char origin[NAME_BYTES];
        unsigned i = 0;

        if (strncmp(*entry, prefix, sizeof(prefix) - 1) != 0 || mark == NULL) {
            continue;
        }
        (void)snprintf(origin, sizeof(origin), "%.*s", (int)(mark - *entry),
                       *entry);
        while (i < ARRAY_COUNT(keys) &&
               !is_variable_of(&keys[i], name, (size_t)(mark - name))) {
            i++;
        }
        if (i < ARRAY_COUNT(keys)) {
            set_key(l, &keys[i], mark + 1, origin, NULL);
        } else if (variable_names_section(name)) {
            /* SLUICE_CONFIG or SLUICE_TEST_X are someone else's. */
            problem(l, origin, "no such key");
        }
    }
}

/* --- flags --- */

/* Is the argument this flag: "--section-key", also with '_' for '-'? */
static bool
is_flag_of(const struct key *key, const char *name, size_t bytes)
{
    char wanted[NAME_BYTES];
    int n = snprintf(wanted, sizeof(wanted), "%s-%s", key->section, key->name);

    if (n < 0 || (size_t)n != bytes) {
        return false;
    }
    for (size_t i = 0; i < bytes; i++) {
        char a = wanted[i] == '_' ? '-' : wanted[i];
        char b = name[i] == '_' ? '-' : name[i];

        if (a != b) {
            return false;
        }
    }
    return true;
}

/* What the command line says besides keys. */
struct arguments {
    int argc;
    char **argv;
    const struct conf_flag *flags;
    const char *config;
    const char *dir;
    int rest;
};

/* One flag taken apart. */
struct argument {
    const char *name; /* without dashes */
    size_t bytes;
    const char *value; /* NULL: none given */
    char origin[NAME_BYTES];
};

static bool
name_is(const struct argument *a, const char *name)
{
    return strlen(name) == a->bytes && strncmp(name, a->name, a->bytes) == 0;
}

/* Take the value of "--name VALUE" from the next argument. */
static bool
want_value(struct loader *l, struct arguments *args, struct argument *a, int *i)
{
    if (a->value != NULL) {
        return true;
    }
    if (*i + 1 >= args->argc) {
        problem(l, a->origin, "needs a value");
        return false;
    }
    a->value = args->argv[++*i];
    return true;
}

/* One of the program's own flags? */
static bool
take_own_flag(struct loader *l, struct arguments *args, struct argument *a,
              int *i)
{
    const struct conf_flag *flag = args->flags;

    while (flag != NULL && flag->name != NULL && !name_is(a, flag->name)) {
        flag++;
    }
    if (flag == NULL || flag->name == NULL) {
        return false;
    }
    if (flag->value != NULL) {
        if (!want_value(l, args, a, i)) {
            return true;
        }
        *flag->value = a->value;
    } else if (a->value != NULL) {
        problem(l, a->origin, "takes no value");
        return true;
    }
    if (flag->present != NULL) {
        *flag->present = true;
    }
    return true;
}

/* Keys are set on the second walk only: the first finds the file. */
static void
take_flag(struct loader *l, struct arguments *args, int *i, bool set_keys)
{
    const char *arg = args->argv[*i];
    struct argument a = {0};
    const char *mark;

    a.name = arg + (arg[1] == '-' ? 2 : 1);
    mark = strchr(a.name, '=');
    a.bytes = mark != NULL ? (size_t)(mark - a.name) : strlen(a.name);
    a.value = mark != NULL ? mark + 1 : NULL;
    (void)snprintf(a.origin, sizeof(a.origin), "%.*s",
                   (int)(a.name - arg) + (int)a.bytes, arg);
    if (arg[1] != '-' && a.bytes != 1) {
        problem(l, a.origin, "no such flag");
        return;
    }
    if (take_own_flag(l, args, &a, i)) {
        return;
    }
    if (arg[1] == '-' && name_is(&a, "config")) {
        args->config = want_value(l, args, &a, i) ? a.value : args->config;
        return;
    }
    if (arg[1] == '-' && name_is(&a, "dir")) {
        args->dir = want_value(l, args, &a, i) ? a.value : args->dir;
        return;
    }
    for (unsigned k = 0; k < ARRAY_COUNT(keys); k++) {
        if (arg[1] == '-' && is_flag_of(&keys[k], a.name, a.bytes)) {
            if (want_value(l, args, &a, i) && set_keys) {
                set_key(l, &keys[k], a.value, a.origin, NULL);
            }
            return;
        }
    }
    problem(l, a.origin, "no such flag");
}

static void
walk_arguments(struct loader *l, struct arguments *args, bool set_keys)
{
    int i = 1;

    while (i < args->argc && args->argv[i][0] == '-' &&
           args->argv[i][1] != '\0') {
        if (strcmp(args->argv[i], "--") == 0) {
            i++;
            break;
        }
        take_flag(l, args, &i, set_keys);
        i++;
    }
    args->rest = i < args->argc ? i : args->argc;
}

/* --- putting it together --- */

/* Which file, and which folder relative paths in it start from. */
static enum rc
choose_file(struct loader *l, const struct arguments *args,
            char shown[CONF_PATH_BYTES], char dir[CONF_PATH_BYTES])
{
    const char *from_environment = getenv("SLUICE_CONFIG");
    char cwd[CONF_PATH_BYTES];
    char *slash;
    int n;

    if (args->config != NULL && args->dir != NULL) {
        problem(l, "--dir", "not together with --config");
        return RC_INVALID;
    }
    if (args->config != NULL) {
        n = snprintf(shown, CONF_PATH_BYTES, "%s", args->config);
    } else if (args->dir != NULL) {
        n = snprintf(shown, CONF_PATH_BYTES, "%s/%s", args->dir, FILE_NAME);
    } else if (from_environment != NULL && from_environment[0] != '\0') {
        n = snprintf(shown, CONF_PATH_BYTES, "%s", from_environment);
    } else {
        n = snprintf(shown, CONF_PATH_BYTES, "%s", DEFAULT_FILE);
    }
    if (working_dir(l, cwd) != RC_OK) {
        return RC_IO;
    }
    if (n <= 0 || n >= CONF_PATH_BYTES ||
        !absolute_path(cwd, shown, l->out->file, CONF_PATH_BYTES)) {
        problem(l, args->dir != NULL ? "--dir" : "--config",
                "empty, or longer than %d bytes", CONF_PATH_BYTES - 1);
        return RC_INVALID;
    }
    l->file = shown;
    memcpy(dir, l->out->file, CONF_PATH_BYTES);
    slash = strrchr(dir, '/');
    slash[slash == dir ? 1 : 0] = '\0';
    l->file_dir = dir;
    return RC_OK;
}

/* A default that is made of others: <prefix><dir><tail>. */
struct derived {
    const char *name;
    char *out;
    size_t size;
    const char *prefix;
    const char *dir;
    const char *tail;
};

static void
derive(struct loader *l, const struct derived *d)
{
    char full[CONF_PATH_BYTES * 2];
    int n;

    if (d->out[0] != '\0') {
        return;
    }
    n = snprintf(full, sizeof(full), "%s%s%s", d->prefix, d->dir, d->tail);
    if (n < 0 || (size_t)n >= sizeof(full)) {
        problem(l, l->file, "%s: the default is too long", d->name);
        return;
    }
    if ((size_t)n >= d->size) {
        problem(l, l->file, "%s: the default %s is longer than %zu bytes%s",
                d->name, full, d->size - 1 - strlen(d->prefix),
                d->size < CONF_PATH_BYTES
                    ? ", the most that a UNIX socket can have: set a shorter "
                      "node.run_dir"
                    : "");
        return;
    }
    memcpy(d->out, full, (size_t)n + 1);
}

/* A run_dir that is a link stands for where it points to. */
static void
follow_run_dir(struct loader *l)
{
    char *run_dir = l->out->node.run_dir;
    char *target;
    struct stat st;

    if (lstat(run_dir, &st) != 0 || !S_ISLNK(st.st_mode)) {
        return;
    }
    target = realpath(run_dir, NULL);
    if (target != NULL && strlen(target) < sizeof(l->out->node.run_dir)) {
        memcpy(run_dir, target, strlen(target) + 1);
    }
    free(target);
}

static void
derive_defaults(struct loader *l)
{
    struct conf *c = l->out;
    const struct derived dir = {"node.dir", c->node.dir, sizeof(c->node.dir),
                                "",         l->file_dir, ""};
    const struct derived run = {
        "node.run_dir", c->node.run_dir, sizeof(c->node.run_dir), "",
        c->node.dir,    "/run"};
    const struct derived path = {
        "journal.path", c->journal.path, sizeof(c->journal.path), "",
        c->node.dir,    "/journal.db"};
    const struct derived link = {"link.endpoint", c->link.endpoint,
                                 /* the ipc path must fit, not the field */
                                 sizeof("ipc://") - 1 + CONF_SOCKET_BYTES,
                                 "ipc://", c->node.run_dir, "/link.sock"};
    const struct derived control = {"control.path",          c->control.path,
                                    sizeof(c->control.path), "",
                                    c->node.run_dir,         "/control.sock"};

    derive(l, &dir);
    derive(l, &run);
    follow_run_dir(l);
    derive(l, &path);
    derive(l, &link);
    derive(l, &control);
}

static enum rc
load(struct loader *l, struct arguments *args, int *rest)
{
    char shown[CONF_PATH_BYTES];
    char dir[CONF_PATH_BYTES];
    struct text *errors = l->errors;
    struct text ignored = {0};
    enum rc rc;

    set_defaults(l->out);
    /* The first walk finds the file; the second, behind file and environment,
     * sets the keys and tells what is wrong with the flags. */
    l->errors = &ignored;
    walk_arguments(l, args, false);
    text_free(&ignored);
    l->errors = errors;
    l->problems = 0;
    rc = choose_file(l, args, shown, dir);
    if (rc == RC_OK) {
        rc = load_file(l);
    }
    load_environment(l);
    walk_arguments(l, args, true);
    if (rest != NULL) {
        *rest = args->rest;
    } else if (args->rest < args->argc) {
        problem(l, args->argv[args->rest], "unexpected argument");
    }
    if (rc == RC_OK && l->problems == 0) {
        derive_defaults(l);
    }
    return rc == RC_OK && l->problems > 0 ? RC_INVALID : rc;
}

enum rc
conf_load(int argc, char **argv, const struct conf_flag *flags, int *rest,
          struct conf *out, struct text *errors)
{
    struct loader l = {.out = out, .errors = errors};
    struct arguments args = {
        .argc = argc, .argv = argv, .flags = flags, .rest = argc};
    enum rc rc = load(&l, &args, rest);

    if (rc != RC_OK) {
        memset(out, 0, sizeof(*out));
    }
    return rc;
}

/* --- the table, and what a re-read changes --- */

static void
print_bytes(FILE *to, int64_t bytes)
{
    static const struct {
        const char *name;
        int64_t factor;
    } units[] = {{"TiB", TIB}, {"GiB", GIB}, {"MiB", MIB}, {"KiB", KIB}};

    for (unsigned i = 0; i < ARRAY_COUNT(units); i++) {
        if (bytes != 0 && bytes % units[i].factor == 0) {
            (void)fprintf(to, "%" PRId64 " %s", bytes / units[i].factor,
                          units[i].name);
            return;
        }
    }
    (void)fprintf(to, "%" PRId64, bytes);
}

static void
print_number(FILE *to, const struct key *key, int64_t number)
{
    if (key->type == TYPE_BYTES) {
        print_bytes(to, number);
    } else {
        (void)fprintf(to, "%" PRId64, number);
    }
}

static void
print_range(FILE *to, const struct key *key)
{
    switch (key->type) {
    case TYPE_INT:
    case TYPE_BYTES:
        print_number(to, key, key->min);
        (void)fputs(" - ", to);
        print_number(to, key, key->max);
        break;
    case TYPE_LEVEL:
        (void)fputs("error, warn, info, debug", to);
        break;
    case TYPE_PATH:
        (void)fputs("path", to);
        break;
    case TYPE_SOCKET:
        (void)fprintf(to, "path, at most %d bytes", SUN_PATH_MAX);
        break;
    case TYPE_URL:
    case TYPE_ENDPOINT:
        (void)fprintf(to, "URL: %s", key->schemes);
        break;
    case TYPE_WORD:
        (void)fprintf(to, "one of: %s", key->words);
        break;
    case TYPE_TEXT:
        (void)fprintf(to, "at most %zu characters", key->size - 1);
        break;
    case TYPE_PREFIXES:
        (void)fprintf(to, "prefixes: + and 1-%u digits", PREFIX_DIGITS_MAX);
        break;
    case TYPE_SECRETS:
        (void)fprintf(to, "at most %d, of %d - %d characters", SECRETS_MAX,
                      SECRET_BYTES_MIN, SECRET_BYTES_MAX);
        break;
    }
}

static const char *
unit_of(const struct key *key)
{
    if (key->type == TYPE_BYTES) {
        return "bytes";
    }
    return key->unit != NULL ? key->unit : "";
}

void
conf_print_table(FILE *to)
{
    (void)fputs("| key | unit | range | default | meaning | changes by |\n"
                "|---|---|---|---|---|---|\n",
                to);
    for (unsigned i = 0; i < ARRAY_COUNT(keys); i++) {
        const struct key *key = &keys[i];

        (void)fprintf(to, "| `%s.%s` | %s | ", key->section, key->name,
                      unit_of(key));
        print_range(to, key);
        (void)fputs(" | ", to);
        if (is_number(key)) {
            print_number(to, key, key->number);
        } else if (key->text != NULL) {
            (void)fprintf(to, "`%s`", key->text);
        } else {
            (void)fputs(key->derived, to);
        }
        (void)fprintf(to, " | %s | %s |\n", key->help,
                      key->reloadable ? "SIGHUP" : "restart");
    }
}

static bool
same_value(const struct key *key, const struct conf *a, const struct conf *b)
{
    const void *of_a = const_value_of(a, key);
    const void *of_b = const_value_of(b, key);

    if (is_number(key)) {
        return *(const int64_t *)of_a == *(const int64_t *)of_b;
    }
    if (key->type == TYPE_LEVEL) {
        return *(const enum log_level *)of_a == *(const enum log_level *)of_b;
    }
    return strcmp(of_a, of_b) == 0;
}

bool
conf_needs_restart(const struct conf *old, const struct conf *fresh,
                   struct text *which)
{
    bool needed = false;

    for (unsigned i = 0; i < ARRAY_COUNT(keys); i++) {
        const struct key *key = &keys[i];

        if (!key->reloadable && !same_value(key, old, fresh)) {
            text_printf(which, "%s%s.%s", needed ? ", " : "", key->section,
                        key->name);
            needed = true;
        }
    }
    return needed;
}
