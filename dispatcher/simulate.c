/* sluice-simulate: how much of a provider's limit the calls use, and whether
 * it ever refuses one. The real limiter on a virtual clock: an hour takes
 * moments. Every option is one row of the table below. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/simulate_run.h"

#define EXIT_OK 0
#define EXIT_FAILED 1
#define EXIT_USAGE 2

#define MS INT64_C(1000)
#define S INT64_C(1000000)
#define HOUR_US 3600e6

enum name {
    WINDOW,
    COUNT,
    WINDOW_MS,
    JITTER_MS,
    ACK_MS,
    LATE,
    COUNT_AT,
    ANSWER_MS,
    LOCKOUT_MS,
    OTHERS,
    GUARD_MS,
    RESTART_EVERY_S,
    MAX_IN_FLIGHT,
    HOURS,
    SEED,
    SEEDS,
    NAME_COUNT,
};

/* As the option says it; what is used depends on its kind. */
struct value {
    double real;
    int64_t from; /* or the whole number, or which word */
    int64_t to;
};

enum kind { WHOLE, REAL, RANGE, SHARE_AND_MS, WORD };

struct row {
    const char *option;
    enum kind kind;
    double min; /* of each number */
    double max;
    const char *initial; /* NULL: as the option before */
    const char *expected;
    const char *help;
};

static const struct row rows[NAME_COUNT] = {
    [WINDOW] = {"window", WORD, 0, 0, "sliding", "sliding|fixed",
                "how the provider counts"},
    [COUNT] = {"count", WHOLE, 1, LIMITER_COUNT_MAX, "25", "1..10000",
               "requests in a window"},
    [WINDOW_MS] = {"window-ms", WHOLE, 1, 86400000, "10000", "1..86400000",
                   "length of the window"},
    [JITTER_MS] = {"jitter-ms", RANGE, 0, 3600000, "20-70", "A-B (ms)",
                   "a packet's way, drawn for each"},
    [ACK_MS] = {"ack-ms", RANGE, 0, 3600000, NULL, "A-B (ms)",
                "an acknowledgement's way back, if it is another"},
    [LATE] = {"late", SHARE_AND_MS, 0, 3600000, "0:0", "P:MS (P 0..1)",
              "this share of the packets comes so much later"},
    [COUNT_AT] = {"count-at", WORD, 0, 0, "arrival", "arrival|answer",
                  "when the provider counts a request"},
    [ANSWER_MS] = {"answer-ms", RANGE, 0, 3600000, "5000-10000", "A-B (ms)",
                   "from a request's arrival to its answer"},
    [LOCKOUT_MS] = {"lockout-ms", WHOLE, 0, 86400000, "30000", "0..86400000",
                    "after a 429; a request meanwhile starts it anew"},
    [OTHERS] = {"others", REAL, 0, 1e6, "0", "0..1000000",
                "requests per minute that others send to the same limit"},
    [GUARD_MS] = {"guard-ms", WHOLE, 0, 3600000, "50", "0..3600000",
                  "the limiter's smallest guard"},
    [RESTART_EVERY_S] = {"restart-every-s", WHOLE, 0, 86400, "0", "0..86400",
                         "kill -9 and start again; 0: never"},
    [MAX_IN_FLIGHT] = {"max-in-flight", WHOLE, 1, 1000000, "1000", "1..1000000",
                       "calls at a time"},
    [HOURS] = {"hours", REAL, 0.001, 100000, "1", "0.001..100000",
               "of virtual time"},
    [SEED] = {"seed", WHOLE, 0, 1e15, "1", "0..10^15",
              "the same seed is the same run"},
    [SEEDS] = {"seeds", WHOLE, 1, 100000, "1", "1..100000",
               "so many runs, and the worst of each figure"},
};

/* ---- reading the options --------------------------------------------------
 */

/* A number without sign and space, up to *end. */
static enum rc
parse_real(const struct row *row, const char *text, const char **end,
           double *out)
{
    char *after = NULL;

    *out = 0;
    *end = text;
    if (text[0] < '0' || text[0] > '9') {
        return RC_INVALID;
    }
    *out = strtod(text, &after);
    *end = after;
    return *out >= row->min && *out <= row->max ? RC_OK : RC_INVALID;
}

/* All bounds are far below 2^53: a double is exact. */
static enum rc
parse_whole(const struct row *row, const char *text, const char **end,
            int64_t *out)
{
    double real;
    enum rc rc = parse_real(row, text, end, &real);

    *out = rc == RC_OK ? (int64_t)real : 0;
    return rc == RC_OK && (double)*out == real ? RC_OK : RC_INVALID;
}

static enum rc
parse_range(const struct row *row, const char *text, const char **end,
            struct value *out)
{
    enum rc rc = parse_whole(row, text, end, &out->from);

    out->to = out->from;
    if (rc == RC_OK && **end == '-') {
        rc = parse_whole(row, *end + 1, end, &out->to);
    }
    return out->to < out->from ? RC_INVALID : rc;
}

static enum rc
parse_share_and_ms(const struct row *row, const char *text, const char **end,
                   struct value *out)
{
    enum rc rc = parse_real(row, text, end, &out->real);

    if (rc != RC_OK || out->real > 1 || **end != ':') {
        return RC_INVALID;
    }
    return parse_whole(row, *end + 1, end, &out->from);
}

/* Which of the two words of "first|second". */
static enum rc
parse_word(const struct row *row, const char *text, const char **end,
           struct value *out)
{
    const char *bar = strchr(row->expected, '|');
    size_t first = (size_t)(bar - row->expected);

    out->from = strcmp(text, bar + 1) == 0;
    *end = text + strlen(text);
    return out->from == 1 || (strlen(text) == first &&
                              strncmp(text, row->expected, first) == 0)
               ? RC_OK
               : RC_INVALID;
}

static enum rc
parse(const struct row *row, const char *text, struct value *out)
{
    const char *end = text;
    enum rc rc = RC_BUG;

    *out = (struct value){0};
    switch (row->kind) {
    case WHOLE:
        rc = parse_whole(row, text, &end, &out->from);
        break;
    case REAL:
        rc = parse_real(row, text, &end, &out->real);
        break;
    case RANGE:
        rc = parse_range(row, text, &end, out);
        break;
    case SHARE_AND_MS:
        rc = parse_share_and_ms(row, text, &end, out);
        break;
    case WORD:
        rc = parse_word(row, text, &end, out);
        break;
    }
    return rc == RC_OK && *end == '\0' ? RC_OK : RC_INVALID;
}

static void
print_help(void)
{
    (void)printf("usage: sluice-simulate [OPTION...]\n\n"
                 "Runs the call limiter on a virtual clock against a modelled "
                 "provider.\n\n");
    for (size_t i = 0; i < NAME_COUNT; i++) {
        char option[64];

        (void)snprintf(option, sizeof(option), "--%s %s", rows[i].option,
                       rows[i].expected);
        (void)printf("  %-32s %s (%s)\n", option, rows[i].help,
                     rows[i].initial != NULL ? rows[i].initial
                                             : "as --jitter-ms");
    }
    (void)printf(
        "  %-32s this\n\n"
        "It prints one line: calls that the provider took, their share of the "
        "limit,\n429s, episodes of them, the most requests that the provider "
        "saw in any\nwindow, and the largest guard. Others are not locked out, "
        "but take from\nthe limit.\n"
        "exit status: 0 done, 1 out of memory, 2 usage\n",
        "--help");
}

/* EXIT_OK: go on; -1: help was printed. */
static int
read_options(int argc, char **argv, struct value values[NAME_COUNT])
{
    struct option longs[NAME_COUNT + 2] = {{0}};
    int k;

    for (size_t i = 0; i < NAME_COUNT; i++) {
        longs[i] =
            (struct option){rows[i].option, required_argument, NULL, (int)i};
    }
    longs[NAME_COUNT] = (struct option){"help", no_argument, NULL, NAME_COUNT};
    while ((k = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (k == NAME_COUNT) {
            print_help();
            return -1;
        }
        if (k < 0 || k > NAME_COUNT) {
            return EXIT_USAGE; /* getopt has said why */
        }
        if (parse(&rows[k], optarg, &values[k]) != RC_OK) {
            (void)fprintf(stderr,
                          "sluice-simulate: --%s: expected %s, not \"%s\"\n",
                          rows[k].option, rows[k].expected, optarg);
            return EXIT_USAGE;
        }
        if (k == JITTER_MS && values[ACK_MS].real == 0) {
            values[ACK_MS].from = values[k].from;
            values[ACK_MS].to = values[k].to;
        }
        values[k].real = k == ACK_MS ? 1 : values[k].real; /* was given */
    }
    if (optind < argc) {
        (void)fprintf(stderr, "sluice-simulate: \"%s\" is no option\n",
                      argv[optind]);
        return EXIT_USAGE;
    }
    return EXIT_OK;
}

/* ---- running --------------------------------------------------------------
 */

static struct simulate_range
range_of(const struct value *value)
{
    return (struct simulate_range){value->from * MS, value->to * MS};
}

static struct simulate_options
options_of(const struct value values[NAME_COUNT])
{
    return (struct simulate_options){
        .count = (size_t)values[COUNT].from,
        .window_us = values[WINDOW_MS].from * MS,
        .fixed_window = values[WINDOW].from == 1,
        .count_at =
            values[COUNT_AT].from == 1 ? LIMITER_ANSWER : LIMITER_ARRIVAL,
        .jitter = range_of(&values[JITTER_MS]),
        .ack = range_of(&values[ACK_MS]),
        .late_share = values[LATE].real,
        .late_us = values[LATE].from * MS,
        .answer = range_of(&values[ANSWER_MS]),
        .lockout_us = values[LOCKOUT_MS].from * MS,
        .others_per_minute = values[OTHERS].real,
        .restart_every_us = values[RESTART_EVERY_S].from * S,
        .duration_us = (int64_t)(values[HOURS].real * HOUR_US),
        .max_in_flight = (size_t)values[MAX_IN_FLIGHT].from,
        .limiter =
            {
                .guard_min_us = values[GUARD_MS].from * MS,
                .backoff_us = LIMITER_BACKOFF_US,
                .max_backoff_us = LIMITER_MAX_BACKOFF_US,
                .flight_us = LIMITER_FLIGHT_US,
            },
    };
}

/* Keep the worse of each figure. */
static void
worsen(struct simulate_result *worst, const struct simulate_result *r)
{
    if (r->calls < worst->calls) {
        worst->calls = r->calls;
        worst->share = r->share;
    }
    if (r->refused > worst->refused) {
        worst->refused = r->refused;
    }
    if (r->episodes > worst->episodes) {
        worst->episodes = r->episodes;
    }
    if (r->max_in_window > worst->max_in_window) {
        worst->max_in_window = r->max_in_window;
    }
    if (r->worst_guard_us > worst->worst_guard_us) {
        worst->worst_guard_us = r->worst_guard_us;
    }
}

static enum rc
run(const struct value values[NAME_COUNT], struct simulate_result *worst)
{
    struct simulate_options options = options_of(values);
    uint64_t seed = (uint64_t)values[SEED].from;

    for (int64_t i = 0; i < values[SEEDS].from; i++) {
        struct simulate_result result;
        enum rc rc = simulate_run(&options, seed + (uint64_t)i, &result);

        if (rc != RC_OK) {
            return rc;
        }
        if (i == 0) {
            *worst = result;
        }
        worsen(worst, &result);
    }
    return RC_OK;
}

int
main(int argc, char **argv)
{
    struct value values[NAME_COUNT] = {{0}};
    struct simulate_result worst = {0};
    enum rc rc = RC_OK;
    int status;

    for (size_t i = 0; i < NAME_COUNT && rc == RC_OK; i++) {
        const char *initial = rows[rows[i].initial == NULL ? i - 1 : i].initial;

        rc = parse(&rows[i], initial, &values[i]);
    }
    status = read_options(argc, argv, values);
    if (status != EXIT_OK) {
        return status == -1 ? EXIT_OK : status;
    }
    if (rc == RC_OK) {
        rc = run(values, &worst);
    }
    if (rc != RC_OK) {
        (void)fprintf(stderr, "sluice-simulate: %s\n", rc_name(rc));
        return EXIT_FAILED;
    }
    (void)printf("calls=%" PRIu64 " share=%.4f 429s=%" PRIu64
                 " episodes=%" PRIu64 " max_in_window=%zu guard_ms=%" PRId64
                 "\n",
                 worst.calls, worst.share, worst.refused, worst.episodes,
                 worst.max_in_window, worst.worst_guard_us / MS);
    return EXIT_OK;
}
