/*
 * plain_insert URI PEOPLE PLACES BATCH: what places are measured against, a
 * loop that inserts PEOPLE registrations, PLACES of each invitation, in
 * unordered writes of BATCH into a collection of its own with the same indexes.
 * Prints inserts/s.
 */
#include <mongoc/mongoc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double
now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bson_t *
registration(long n, long places)
{
    char key[64];
    char code[64];

    snprintf(key, sizeof key, "person%ld@example.com", n);
    snprintf(code, sizeof code, "bench-%ld", n / places);
    return BCON_NEW("_id", BCON_UTF8(key), "email", BCON_UTF8(key), "mailbox",
                    BCON_UTF8(key), "code", BCON_UTF8(code), "slot",
                    BCON_INT32((int32_t)(n % places) + 1), "request_id",
                    BCON_UTF8("01900000-0000-7000-8000-000000000000"),
                    "accepted_at", BCON_DATE_TIME(1767225600000));
}

static bool
make_collection(mongoc_database_t *database, bson_error_t *error)
{
    bson_t *command = BCON_NEW(
        "createIndexes", BCON_UTF8("plain"), "indexes", "[", "{", "key", "{",
        "code", BCON_INT32(1), "slot", BCON_INT32(1), "}", "name",
        BCON_UTF8("code_slot"), "unique", BCON_BOOL(true), "}", "]");
    bool made = mongoc_database_write_command_with_opts(database, command, NULL,
                                                        NULL, error);

    bson_destroy(command);
    return made;
}

static bool
insert(mongoc_collection_t *plain, long from, long to, long places,
       const bson_t *options, bson_error_t *error)
{
    const bson_t *documents[1000];
    bson_t *made[1000];
    long count = to - from;
    bool done;

    for (long i = 0; i < count; i++) {
        made[i] = registration(from + i, places);
        documents[i] = made[i];
    }
    done = mongoc_collection_insert_many(plain, documents, (size_t)count,
                                         options, NULL, error);
    for (long i = 0; i < count; i++) {
        bson_destroy(made[i]);
    }
    return done;
}

int
main(int argc, char **argv)
{
    bson_error_t error = {0};
    bson_t *options = BCON_NEW("ordered", BCON_BOOL(false));
    mongoc_client_t *client;
    mongoc_database_t *database;
    mongoc_collection_t *plain;
    long people = argc == 5 ? strtol(argv[2], NULL, 10) : 0;
    long places = argc == 5 ? strtol(argv[3], NULL, 10) : 0;
    long batch = argc == 5 ? strtol(argv[4], NULL, 10) : 0;
    bool done;
    double begun;

    if (people < 1 || places < 1 || batch < 1 || batch > 1000) {
        fputs("usage: plain_insert URI PEOPLE PLACES BATCH(1-1000)\n", stderr);
        return 2;
    }
    mongoc_init();
    client = mongoc_client_new(argv[1]);
    database = mongoc_client_get_database(client, "plain");
    plain = mongoc_database_get_collection(database, "plain");
    done = mongoc_database_drop(database, &error) &&
           make_collection(database, &error);
    begun = now_s();
    for (long n = 0; done && n < people; n += batch) {
        long to = n + batch < people ? n + batch : people;

        done = insert(plain, n, to, places, options, &error);
    }
    if (done) {
        printf("%.0f\n", (double)people / (now_s() - begun));
    } else {
        fprintf(stderr, "plain_insert: %s\n", error.message);
    }
    mongoc_collection_destroy(plain);
    mongoc_database_destroy(database);
    mongoc_client_destroy(client);
    mongoc_cleanup();
    bson_destroy(options);
    return done ? 0 : 1;
}
