/* The operator's words, what they do to invitations in memory, what is printed
 * and how it ends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dispatcher/mongo.h"
#include "dispatcher/places_mongo.h"
#include "dispatcher/sluicectl_invitation.h"

#define MAX 300
#define WORDS_MAX 8
/* 2026-12-24T18:00:00Z */
#define CHRISTMAS INT64_C(1798135200000)
#define REQUEST "01a1fcd1-c670-75bf-ba57-46a6505d0000"

struct world {
    struct conf conf;
    struct invitation made[MAX];
    size_t count;
    enum rc rc; /* of MongoDB */
    char revoked[ADDRESS_BYTES];
    char reason[128];
    enum places_revoked had;
    struct places_trace trace;
    char *said; /* to stdout */
    char *complained;
    char file[64];
};

static struct world *w;

/* ---- invitations in memory --------------------------------------------------
 */

enum rc __wrap_mongo_new(struct mongo **out, const char *uri,
                         int64_t timeout_ms);
void __wrap_mongo_free(struct mongo **mongo);
const char *__wrap_mongo_error(const struct mongo *mongo);
enum rc __wrap_places_mongo_new(struct places *out,
                                const struct places_mongo_options *options);
enum rc __wrap_places_create(struct mongo *mongo,
                             const struct invitation *invitation,
                             bool *created);
enum rc __wrap_places_set_limit(struct mongo *mongo, const char *code,
                                int32_t limit, bool *found);
enum rc __wrap_places_revoke(struct mongo *mongo, const char *key,
                             const char *reason, int64_t now_unix_ms,
                             enum places_revoked *revoked);
enum rc __wrap_places_count(struct mongo *mongo, const char *code,
                            struct places_counts *out);
enum rc __wrap_places_each(struct mongo *mongo, const char *code,
                           enum rc (*each)(void *arg,
                                           const struct place *place),
                           void *arg);
enum rc __wrap_places_trace(struct mongo *mongo, const char *request_id,
                            struct places_trace *out);

enum rc
__wrap_mongo_new(struct mongo **out, const char *uri, int64_t timeout_ms)
{
    bool usable = strncmp(uri, "mongodb://", 10) == 0 && timeout_ms == 1234;

    *out = usable ? (struct mongo *)w : NULL;
    return usable ? RC_OK : RC_INVALID;
}

void
__wrap_mongo_free(struct mongo **mongo)
{
    *mongo = NULL;
}

const char *
__wrap_mongo_error(const struct mongo *mongo)
{
    assert_ptr_equal(mongo, w);
    return "it is away";
}

static struct invitation *
find(const char *code)
{
    for (size_t i = 0; i < w->count; i++) {
        if (strcmp(w->made[i].code, code) == 0) {
            return &w->made[i];
        }
    }
    return NULL;
}

enum rc
__wrap_places_create(struct mongo *mongo, const struct invitation *invitation,
                     bool *created)
{
    assert_ptr_equal(mongo, w);
    assert_true(invitation->created_unix_ms > CHRISTMAS / 10);
    *created = w->rc == RC_OK && find(invitation->code) == NULL;
    if (*created) {
        assert_true(w->count < MAX);
        w->made[w->count++] = *invitation;
    }
    return w->rc;
}

enum rc
__wrap_places_set_limit(struct mongo *mongo, const char *code, int32_t limit,
                        bool *found)
{
    struct invitation *one = find(code);

    (void)mongo;
    *found = one != NULL;
    if (one != NULL) {
        one->limit = limit;
    }
    return w->rc;
}

enum rc
__wrap_places_revoke(struct mongo *mongo, const char *key, const char *reason,
                     int64_t now_unix_ms, enum places_revoked *revoked)
{
    (void)mongo;
    assert_true(now_unix_ms > 0);
    (void)snprintf(w->revoked, sizeof(w->revoked), "%s", key);
    (void)snprintf(w->reason, sizeof(w->reason), "%s", reason);
    *revoked = w->had;
    return w->rc;
}

enum rc
__wrap_places_count(struct mongo *mongo, const char *code,
                    struct places_counts *out)
{
    (void)mongo;
    assert_non_null(find(code));
    *out = (struct places_counts){
        .taken = 2, .waiting = 3, .refused = 1, .mails_sent = 4};
    return w->rc;
}

enum rc
__wrap_places_each(struct mongo *mongo, const char *code,
                   enum rc (*each)(void *arg, const struct place *place),
                   void *arg)
{
    struct place place = {.slot = 1,
                          .email = "Jo@example.com",
                          .request_id = REQUEST,
                          .accepted_unix_ms = CHRISTMAS};

    (void)mongo;
    (void)snprintf(place.code, sizeof(place.code), "%s", code);
    return w->rc == RC_OK ? each(arg, &place) : w->rc;
}

enum rc
__wrap_places_trace(struct mongo *mongo, const char *request_id,
                    struct places_trace *out)
{
    assert_ptr_equal(mongo, w);
    assert_string_equal(request_id, REQUEST);
    *out = w->trace;
    return w->rc;
}

static enum rc
invitation(void *self, const char *code, struct invitation *out, bool *found)
{
    const struct invitation *one = find(code);

    (void)self;
    *found = one != NULL;
    if (one != NULL) {
        *out = *one;
    }
    return w->rc;
}

static enum rc
invitations(void *self, const char *after, size_t max, struct invitation *out,
            size_t *count)
{
    (void)self;
    *count = 0;
    for (size_t i = 0; i < w->count && *count < max; i++) {
        if (strcmp(w->made[i].code, after) > 0) { /* they are in order */
            out[(*count)++] = w->made[i];
        }
    }
    return w->rc;
}

static void
free_places(void **self)
{
    free(*self);
    *self = NULL;
}

/* self is from malloc, so that a leak is seen. */
enum rc
__wrap_places_mongo_new(struct places *out,
                        const struct places_mongo_options *options)
{
    static const struct places_ops ops = {.invitation = invitation,
                                          .invitations = invitations,
                                          .free = free_places};

    assert_ptr_equal(options->mongo, w);
    *out = (struct places){.ops = &ops, .self = malloc(1)};
    assert_non_null(out->self);
    return RC_OK;
}

/* ---- saying -----------------------------------------------------------------
 */

/* Fails the test if it is not there. */
static struct invitation
made(const char *code)
{
    const struct invitation *one = find(code);

    if (one == NULL) {
        fail();
        return (struct invitation){.limit = 0};
    }
    return *one;
}

static int
world_new(void **state)
{
    int fd;

    (void)state;
    w = calloc(1, sizeof(*w));
    assert_non_null(w);
    (void)snprintf(w->conf.mongo.uri, sizeof(w->conf.mongo.uri),
                   "mongodb://here/");
    w->conf.mongo.timeout_ms = 1234;
    (void)snprintf(w->conf.invitation.fold_plus_tags,
                   sizeof(w->conf.invitation.fold_plus_tags), "no");
    (void)snprintf(w->file, sizeof(w->file), "invitations-XXXXXX");
    fd = mkstemp(w->file);
    assert_true(fd >= 0);
    (void)close(fd);
    return 0;
}

static int
world_free(void **state)
{
    (void)state;
    (void)unlink(w->file);
    free(w->said);
    free(w->complained);
    free(w);
    w = NULL;
    return 0;
}

/* Run what is said in a line of words. Its exit status. */
static int
say_as(bool json, const char *line)
{
    char words[512];
    char *argv[WORDS_MAX];
    int argc = 0;
    int status;
    size_t bytes;
    FILE *out = stdout;
    FILE *err = stderr;

    (void)snprintf(words, sizeof(words), "%s", line);
    for (char *at = words; *at != '\0' && argc < WORDS_MAX;) {
        argv[argc++] = at;
        at += strcspn(at, " ");
        if (*at == ' ') {
            *at++ = '\0';
        }
    }
    free(w->said);
    free(w->complained);
    stdout = open_memstream(&w->said, &bytes);
    stderr = open_memstream(&w->complained, &bytes);
    status = sluicectl_invitation(&w->conf, json, argc, argv);
    (void)fclose(stdout);
    (void)fclose(stderr);
    stdout = out;
    stderr = err;
    return status;
}

static int
say(const char *line)
{
    return say_as(false, line);
}

/* import of these lines. */
static int
import(const char *lines)
{
    char line[128];
    FILE *file = fopen(w->file, "w");

    assert_non_null(file);
    assert_true(fputs(lines, file) >= 0);
    assert_int_equal(fclose(file), 0);
    (void)snprintf(line, sizeof(line), "import %s", w->file);
    return say(line);
}

static void
create_makes_what_it_is_told(void **state)
{
    (void)state;
    assert_int_equal(say("create a --limit 1"), 0);
    assert_string_equal(w->said, "a: 1 places\n");
    assert_int_equal(
        say("create b-2 --expires 2026-12-24T18:00:00Z --limit 1000"), 0);
    assert_int_equal(say_as(true, "create c --limit 7"), 0);
    assert_string_equal(w->said, "{\"code\":\"c\",\"limit\":7}\n");
    assert_int_equal(w->count, 3);
    assert_string_equal(w->made[0].code, "a");
    assert_int_equal(w->made[0].limit, 1);
    assert_int_equal(w->made[0].expires_unix_ms, 0);
    assert_int_equal(w->made[1].limit, 1000);
    assert_int_equal(w->made[1].expires_unix_ms, CHRISTMAS);
    assert_int_equal(say("create a --limit 5"), 1);
    assert_int_equal(w->made[0].limit, 1);
    assert_non_null(strstr(w->complained, "there already"));
}

static void
what_makes_no_sense_does_nothing(void **state)
{
    static const char *const lines[] = {
        "",
        "crate a",
        "create",
        "create a",
        "create A --limit 1",
        "create a_b --limit 1",
        "create a --limit",
        "create a --limit 0",
        "create a --limit 1001",
        "create a --limit -1",
        "create a --limit 1x",
        "create a --limit 99999999999999999999",
        "create a --limt 1",
        "create a --limit 1 --expires",
        "create a --limit 1 --expires tomorrow",
        "create a --limit 1 --expires 2026-12-24",
        "create a --limit 1 --expires 2026-12-24T18:00:00",
        "create a --limit 1 --expires 2026-12-24T18:00:00+01:00",
        "create a --limit 1 --expires 2027-02-29T18:00:00Z",
        "create a --limit 1 --expires 1969-12-24T18:00:00Z",
        "limit a",
        "limit A 1",
        "limit a 0",
        "list a",
        "show",
        "show A",
        "revoke",
        "revoke nobody",
        "revoke jo@example.com \xff",
        "import",
        "export A",
        "export a b",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++) {
        assert_int_equal(say(lines[i]), 2);
        assert_string_equal(w->said, "");
        assert_string_not_equal(w->complained, "");
    }
    assert_int_equal(w->count, 0);
    assert_string_equal(w->revoked, "");
}

static void
a_limit_is_changed(void **state)
{
    (void)state;
    assert_int_equal(say("create a --limit 1"), 0);
    assert_int_equal(say("limit a 20"), 0);
    assert_int_equal(w->made[0].limit, 20);
    assert_int_equal(say("limit b 20"), 1);
    assert_string_equal(w->complained,
                        "sluicectl: there is no invitation \"b\"\n");
}

/* More than a page of them. */
static void
all_are_listed(void **state)
{
    size_t lines = 0;

    (void)state;
    for (int i = 0; i < 205; i++) {
        char line[64];

        (void)snprintf(line, sizeof(line), "create c-%03d --limit 3", i);
        assert_int_equal(say(line), 0);
    }
    assert_int_equal(say("list"), 0);
    for (const char *at = w->said; *at != '\0'; at++) {
        lines += *at == '\n';
    }
    assert_int_equal(lines, 206);
    assert_non_null(strstr(w->said, "c-204"));
    w->count = 1;
    assert_int_equal(say_as(true, "list"), 0);
    assert_string_equal(
        w->said,
        "{\"invitations\":[{\"code\":\"c-000\",\"limit\":3,\"expires_at\":null,"
        "\"places\":2,\"waiting\":3,\"refused\":1,\"mails\":{\"queued\":0,"
        "\"sent\":4,\"refused\":0,\"given_up\":0,\"skipped\":0}}]}\n");
    w->count = 0;
    assert_int_equal(say_as(true, "list"), 0);
    assert_string_equal(w->said, "{\"invitations\":[]}\n");
}

static void
one_is_shown(void **state)
{
    (void)state;
    assert_int_equal(say("show a"), 1);
    assert_int_equal(say("create a --limit 3 --expires 2026-12-24T18:00:00Z"),
                     0);
    assert_int_equal(say("show a"), 0);
    assert_non_null(strstr(w->said, "places      2 of 3\n"));
    assert_non_null(strstr(w->said, "expires     2026-12-24T18:00:00.000Z\n"));
    assert_int_equal(say_as(true, "show a"), 0);
    assert_non_null(
        strstr(w->said, "\"expires_at\":\"2026-12-24T18:00:00.000Z\""));
}

static void
an_address_is_revoked_by_its_key(void **state)
{
    (void)state;
    w->had = PLACES_REVOKED;
    assert_int_equal(say("revoke Jo+News@Example.com spam"), 0);
    assert_string_equal(w->revoked, "jo+news@example.com");
    assert_string_equal(w->reason, "spam");
    assert_string_equal(w->said, "jo+news@example.com: revoked\n");
    (void)snprintf(w->conf.invitation.fold_plus_tags,
                   sizeof(w->conf.invitation.fold_plus_tags), "yes");
    w->had = PLACES_REFUSED_BEFORE;
    assert_int_equal(say("revoke Jo+News@Example.com"), 0);
    assert_string_equal(w->revoked, "jo@example.com");
    assert_string_equal(w->said, "jo@example.com: was refused before\n");
}

static void
who_had_nothing_to_lose_is_told_apart(void **state)
{
    (void)state;
    w->had = PLACES_REFUSED_NEW;
    assert_int_equal(say("revoke typo@example.com"), 0);
    assert_string_equal(w->revoked, "typo@example.com");
    assert_string_equal(w->said,
                        "typo@example.com: had no place and did not wait; "
                        "refused from now on\n");
    assert_string_equal(w->complained, "");
}

static void
a_file_is_imported(void **state)
{
    (void)state;
    assert_int_equal(say("create b --limit 1"), 0);
    assert_int_equal(import("code,limit,expires_at\r\n"
                            "a,5,\r\n"
                            "\n"
                            "b,6\n"
                            "code,7\n"
                            "c,1000,2026-12-24T18:00:00.000Z"),
                     0);
    assert_string_equal(w->said, "3 created\n");
    assert_int_equal(made("a").limit, 5);
    assert_int_equal(made("b").limit, 1); /* stays as it was */
    assert_int_equal(made("code").limit, 7);
    assert_int_equal(made("c").expires_unix_ms, CHRISTMAS);
}

static void
of_a_file_with_a_bad_line_nothing_is_done(void **state)
{
    static const char *const bad[] = {
        "a",           "a,",     "a,0", "a,1,tomorrow",
        "a,1,,",       ",1",     "A,1", "a,1,2026-02-30T00:00:00Z",
        "\"a\",\"1\"", "a, 1 ,", "a;1",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        char lines[128];

        (void)snprintf(lines, sizeof(lines), "x,1\n%s\ny,1\n", bad[i]);
        assert_int_equal(import(lines), 1);
        assert_non_null(strstr(w->complained, "in line 2; nothing is done"));
        assert_int_equal(w->count, 0);
    }
}

static void
a_file_of_a_spreadsheet_is_imported(void **state)
{
    (void)state;
    assert_int_equal(import("\xEF\xBB\xBF"
                            "code,limit,expires_at\r\n"
                            "sheet,3,\r\n"),
                     0);
    assert_string_equal(w->said, "1 created\n");
    assert_int_equal(made("sheet").limit, 3);
}

static void
what_cannot_be_read_twice_is_not_imported(void **state)
{
    char line[128];
    int ends[2];

    (void)state;
    assert_int_equal(say("import no/such/file"), 1);
    assert_int_equal(say("import ."), 1); /* a folder */
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], "a,1\n", 4), 4);
    (void)close(ends[1]);
    (void)snprintf(line, sizeof(line), "import /dev/fd/%d", ends[0]);
    assert_int_equal(say(line), 1);
    (void)close(ends[0]);
    assert_int_equal(w->count, 0);
}

static void
what_is_exported_can_be_imported(void **state)
{
    char *exported;

    (void)state;
    assert_int_equal(import("a,1,\nb,1000,2026-12-24T18:00:00.000Z\n"), 0);
    assert_int_equal(say("export"), 0);
    assert_string_equal(w->said, "code,limit,expires_at\n"
                                 "a,1,\n"
                                 "b,1000,2026-12-24T18:00:00.000Z\n");
    exported = strdup(w->said);
    assert_non_null(exported);
    w->count = 0;
    assert_int_equal(import(exported), 0);
    free(exported);
    assert_int_equal(w->count, 2);
    assert_int_equal(w->made[1].expires_unix_ms, CHRISTMAS);
    assert_int_equal(say("export a"), 0);
    assert_string_equal(
        w->said, "code,place,email,accepted_at,request_id\n"
                 "a,1,Jo@example.com,2026-12-24T18:00:00.000Z," REQUEST "\n");
}

static void
without_mongodb_all_end_with_3(void **state)
{
    static const char *const lines[] = {
        "create b --limit 1", "limit a 2", "list", "show a", "export",
        "revoke jo@x.org",    "export a"};

    (void)state;
    assert_int_equal(say("create a --limit 1"), 0);
    assert_int_equal(import("b,1\n"), 0);
    w->rc = RC_IO;
    for (size_t i = 0; i < ARRAY_COUNT(lines); i++) {
        assert_int_equal(say(lines[i]), 3);
        assert_string_equal(w->complained, "sluicectl: MongoDB: it is away\n");
    }
    assert_int_equal(import("c,1\n"), 3);
    w->rc = RC_INVALID; /* it answers, and refuses */
    assert_int_equal(say("create d --limit 1"), 1);
    w->conf.mongo.uri[0] = 'x';
    assert_int_equal(say("list"), 2);
}

static bool
explained(void)
{
    struct uuid id;
    size_t bytes;
    FILE *out = stdout;
    bool known;

    assert_int_equal(uuid_parse(REQUEST, &id), RC_OK);
    free(w->said);
    stdout = open_memstream(&w->said, &bytes);
    known = sluicectl_invitation_explain(&w->conf, &id, NULL);
    (void)fclose(stdout);
    stdout = out;
    return known;
}

static void
a_request_is_explained(void **state)
{
    (void)state;
    assert_false(explained());
    assert_string_equal(w->said, "");
    w->trace = (struct places_trace){.code = "a",
                                     .slot = 17,
                                     .at_unix_ms = CHRISTMAS,
                                     .mails = 1,
                                     .mail = {{"welcome", "sent"}}};
    assert_true(explained());
    assert_string_equal(w->said,
                        "invitation   a\n"
                        "place        17, since 2026-12-24T18:00:00.000Z\n"
                        "mail         welcome: sent\n");
    w->trace.slot = 0;
    w->trace.waits = true;
    w->trace.mails = 0;
    assert_true(explained());
    assert_string_equal(w->said,
                        "invitation   a\n"
                        "waiting      since 2026-12-24T18:00:00.000Z\n");
    w->rc = RC_IO;
    assert_false(explained());
    assert_non_null(strstr(w->said, "MongoDB does not answer"));
}

/* Into out; what is said goes to w->complained, and nothing to stdout. */
static bool
explained_in_json(struct text *out)
{
    struct uuid id;
    size_t bytes;
    FILE *err = stderr;
    bool known;

    assert_int_equal(uuid_parse(REQUEST, &id), RC_OK);
    free(w->complained);
    text_reset(out);
    stderr = open_memstream(&w->complained, &bytes);
    known = sluicectl_invitation_explain(&w->conf, &id, out);
    (void)fclose(stderr);
    stderr = err;
    return known;
}

static void
a_request_is_explained_in_json(void **state)
{
    struct text out = {0};

    (void)state;
    assert_false(explained_in_json(&out));
    assert_int_equal(out.bytes, 0);
    w->trace = (struct places_trace){
        .code = "a",
        .slot = 17,
        .at_unix_ms = CHRISTMAS,
        .mails = 2,
        .mail = {{"apology", "skipped"}, {"welcome", "sent"}}};
    assert_true(explained_in_json(&out));
    assert_string_equal(text_cstr(&out),
                        "{\"code\":\"a\",\"place\":17,\"waiting\":false,"
                        "\"since\":\"2026-12-24T18:00:00.000Z\",\"mails\":["
                        "{\"kind\":\"apology\",\"state\":\"skipped\"},"
                        "{\"kind\":\"welcome\",\"state\":\"sent\"}]}");
    w->trace = (struct places_trace){
        .code = "a", .waits = true, .at_unix_ms = CHRISTMAS};
    assert_true(explained_in_json(&out));
    assert_string_equal(text_cstr(&out),
                        "{\"code\":\"a\",\"place\":null,\"waiting\":true,"
                        "\"since\":\"2026-12-24T18:00:00.000Z\","
                        "\"mails\":[]}");
    /* Only the mail that it is unknown is left of it. */
    w->trace = (struct places_trace){
        .code = "a\"b", .mails = 1, .mail = {{"unknown", "queued"}}};
    assert_true(explained_in_json(&out));
    assert_string_equal(
        text_cstr(&out),
        "{\"code\":\"a\\\"b\",\"place\":null,\"waiting\":false,"
        "\"since\":null,"
        "\"mails\":[{\"kind\":\"unknown\",\"state\":\"queued\"}]}");
    assert_string_equal(w->complained, "");
    w->rc = RC_IO;
    assert_false(explained_in_json(&out));
    assert_int_equal(out.bytes, 0);
    assert_non_null(strstr(w->complained, "MongoDB does not answer"));
    text_free(&out);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_new, world_free)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(create_makes_what_it_is_told),
        TEST(what_makes_no_sense_does_nothing),
        TEST(a_limit_is_changed),
        TEST(all_are_listed),
        TEST(one_is_shown),
        TEST(an_address_is_revoked_by_its_key),
        TEST(who_had_nothing_to_lose_is_told_apart),
        TEST(a_file_is_imported),
        TEST(a_file_of_a_spreadsheet_is_imported),
        TEST(of_a_file_with_a_bad_line_nothing_is_done),
        TEST(what_cannot_be_read_twice_is_not_imported),
        TEST(what_is_exported_can_be_imported),
        TEST(without_mongodb_all_end_with_3),
        TEST(a_request_is_explained),
        TEST(a_request_is_explained_in_json),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
