/* Configuration of every program: one INI file, environment, flags.
 *
 *   section.key in the file = SLUICE_SECTION_KEY = --section-key VALUE
 *
 * later wins in that order. All keys stand in one const table in conf.c with
 * type, unit, range, default and a line of help, from which also
 * `sluiced --help-config` (README's table) is printed. */
#ifndef SLUICE_SHARED_CONF_H
#define SLUICE_SHARED_CONF_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "shared/log.h"
#include "shared/rc.h"
#include "shared/text.h"

#define CONF_PATH_BYTES 1024
#define CONF_URL_BYTES 1024
/* A path that becomes a UNIX socket: sun_path holds 107 bytes and a NUL. */
#define CONF_SOCKET_BYTES 108

struct conf_node {
    int64_t id;                    /* node.id 0..65535, 0 */
    char dir[CONF_PATH_BYTES];     /* node.dir: state; folder of the file */
    char run_dir[CONF_PATH_BYTES]; /* node.run_dir: sockets; <dir>/run */
};

struct conf_log {
    enum log_level level; /* log.level error|warn|info|debug; info */
};

struct conf_journal {
    char path[CONF_PATH_BYTES]; /* journal.path; <dir>/journal.db */
    int64_t max_bytes;          /* journal.max_bytes 1 MiB..16 TiB; 10 GiB */
    int64_t reserve_bytes;      /* journal.reserve_bytes: handlers stop when the
                                   file system has less free; 0..1 TiB; 128 MiB */
    int64_t lock_timeout_ms;    /* journal.lock_timeout_ms 10..60000; 5000 */
};

struct conf_link {
    char endpoint[CONF_SOCKET_BYTES + 8]; /* link.endpoint;
                                             ipc://<run_dir>/link.sock */
};

struct conf_control {
    char path[CONF_SOCKET_BYTES]; /* control.path; <run_dir>/control.sock */
};

struct conf_edge {
    int64_t batch;           /* edge.batch 1..1024; 64 */
    int64_t side_threads;    /* edge.side_threads 1..64; 4 */
    int64_t ask_threads;     /* edge.ask_threads 1..64; 4: GETs that ask a
                                database */
    int64_t max_body_bytes;  /* edge.max_body_bytes 1..1 MiB; 65536 */
    int64_t body_timeout_ms; /* edge.body_timeout_ms 100..120000; 10000 */
    int64_t max_connections; /* edge.max_connections 16..65536; 4096 */
    int64_t max_per_s;       /* edge.max_per_s 0..1M; 0: no limit */
    int64_t max_wait_ms;     /* edge.max_wait_ms 0..60000; 2000: for its turn */
};

struct conf_dispatcher {
    int64_t inbox_rows;  /* dispatcher.inbox_rows 16..1M; 1024 */
    int64_t inbox_bytes; /* dispatcher.inbox_bytes 1 MiB..1 GiB; 8 MiB */
};

struct conf_postgres {
    char url[CONF_URL_BYTES]; /* postgres.url; postgresql:///sluice */
    int64_t timeout_ms;       /* postgres.timeout_ms: connect and statement;
                                 100..600000; 5000 */
};

struct conf_mongo {
    char uri[CONF_URL_BYTES]; /* mongo.uri; mongodb://127.0.0.1:27017/sluice */
    int64_t timeout_ms;       /* mongo.timeout_ms: connect and each command;
                                 100..600000; 5000 */
};

struct conf_callback {
    char objects_url[CONF_URL_BYTES]; /* http://localhost:9010/objects/ */
    int64_t concurrency;              /* 1..20000; 500 */
    int64_t timeout_ms;               /* 10..600000; 5000, from the GET */
    int64_t max_attempts;             /* 1..100; 4 */
    int64_t retry_base_ms;            /* 1..600000; 200: full jitter over
                                         base * 2^(attempt-1), capped at 30 s */
    int64_t rate_per_s;               /* 0..1M; 0 = none */
    int64_t expire_s;                 /* 0..1 year; 30; 0 = never */
};

struct conf_call {
    char url[CONF_URL_BYTES];   /* http://localhost:9011/originate_call */
    int64_t rate_count;         /* 1..10000; 25: requests ... */
    int64_t rate_window_ms;     /* 100..3600000; 10000: ... in any window */
    int64_t guard_ms;           /* 0..60000; 50: added to the window */
    int64_t backoff_ms;         /* 1..3600000; 30000: pause after a 429 */
    int64_t max_backoff_ms;     /* 1..3600000; 120000 */
    int64_t max_in_flight;      /* 1..10000; 64 */
    int64_t max_attempts;       /* 1..100; 5 */
    int64_t retry_base_ms;      /* 1..600000; 500 */
    int64_t timeout_ms;         /* 100..600000; 30000, from the POST */
    char count_at[16];          /* arrival | answer */
    char on_unknown[16];        /* report | redial */
    int64_t duplicate_window_s; /* 0..86400; 0 = off */
    char allow_countries[256];  /* prefixes, + and 1-7 digits, separated by
                                   commas and blanks: "+1, +49"; "" = all */
};

struct conf_sms {
    char url[CONF_URL_BYTES]; /* http://localhost:9012/batches */
    int64_t batch_size;       /* 1..1000; 100: messages a request */
    int64_t max_delay_ms;     /* 0..3600000; 2000: then a batch goes as it is */
    int64_t max_attempts;     /* 1..100; 5 */
    int64_t retry_base_ms;    /* 1..600000; 500 */
    int64_t timeout_ms;       /* 100..600000; 30000, from the POST */
    int64_t max_in_flight;    /* 1..100; 4: batches under way */
    char webhook_secrets[512]; /* of X-Signature, at most two, separated by a
                                  comma; "": none is asked */
    char status_callback_url[CONF_URL_BYTES]; /* where our status changes are
                                                 posted; "": nowhere */
};

struct conf_invitation {
    char fold_plus_tags[8]; /* no | yes: is jo+x@ the same person as jo@? */
};

struct conf_mail {
    char url[CONF_URL_BYTES]; /* smtp://localhost:9025, smtps:// */
    char tls[16];             /* try | none | require: STARTTLS of smtp:// */
    char username[256];       /* "": no AUTH */
    char password[256];
    char from[256];                  /* Sluice <invitations@localhost> */
    char templates[CONF_PATH_BYTES]; /* a folder; "": the installed ones */
    int64_t max_per_s;               /* 0..100000; 0: no limit */
    int64_t max_in_flight;           /* 1..100; 4: connections at once */
    int64_t timeout_ms;              /* 1000..600000; 60000: of one mail */
    int64_t retry_base_ms;           /* 1..3600000; 60000 */
    int64_t retry_for_s; /* 0..2592000; 172800: then it is given up */
    int64_t pause_ms;    /* 1..3600000; 60000: after a refusal that is
                            not the recipient's */
};

struct conf_auth {
    char keys_file[CONF_PATH_BYTES]; /* auth.keys_file; none */
};

struct conf {
    char file[CONF_PATH_BYTES]; /* the file it was read from, absolute */
    struct conf_node node;
    struct conf_log log;
    struct conf_journal journal;
    struct conf_link link;
    struct conf_control control;
    struct conf_edge edge;
    struct conf_dispatcher dispatcher;
    struct conf_postgres postgres;
    struct conf_mongo mongo;
    struct conf_callback callback;
    struct conf_call call;
    struct conf_sms sms;
    struct conf_invitation invitation;
    struct conf_mail mail;
    struct conf_auth auth;
};

/* A program's own flag beside the configuration's: --listen PATH. */
struct conf_flag {
    const char *name;   /* "listen": --listen VALUE or --listen=VALUE */
    bool *present;      /* set true when given; a flag without value */
    const char **value; /* set to argv's string; NULL: takes no value */
};

/* Read file (--config FILE, or --dir DIR = DIR/sluice.conf, else
 * $SLUICE_CONFIG, else SYSCONFDIR/sluice/sluice.conf), environment (environ)
 * and argv. flags ends with {0}. Stops at the first argument that is no flag:
 * *rest = its index (== argc when none). NULL rest: such an argument is an
 * error.
 * RC_INVALID: errors holds one line a problem, "sluice.conf:12: callback.
 * concurrency: 99999 is above 20000", naming file and line, variable or flag.
 * Unknown keys, wrong units (bytes take KiB MiB GiB; times are plain numbers
 * in the key's unit) and values out of range are errors. RC_IO: no file.
 * Relative paths start from the file's folder, in variables and flags from
 * the working directory. A run_dir that is a symbolic link is replaced by its
 * target, for short socket names.
 * out is whole on RC_OK only. Main thread. */
enum rc conf_load(int argc, char **argv, const struct conf_flag *flags,
                  int *rest, struct conf *out, struct text *errors) MUST_CHECK;

/* The table of all keys as Markdown: key, unit, range, default, meaning. */
void conf_print_table(FILE *to);

/* Does a re-read differ in a key that only a restart can change? Appends
 * their names, comma separated, to which. */
bool conf_needs_restart(const struct conf *old, const struct conf *fresh,
                        struct text *which);

#endif
