/*
 * The unique compound index that the invitations rest on: two clients insert
 * the same (code, slot) documents at the same time, and each document must be
 * granted to exactly one of them. Prints what each got; exit 0 when it holds.
 *
 *   mongo_race URI
 */
#include <mongoc/mongoc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum { SLOTS = 200, CLIENTS = 2, DUPLICATE_KEY = 11000 };

static const char DATABASE[] = "sluice_race";
static const char COLLECTION[] = "registrations";

struct client {
    const mongoc_uri_t *uri;
    int number;
    atomic_int *ready; /* so that both start together */
    int granted_count;
    int refused_count;
    int failed_count;
    bool granted[SLOTS];
};

/* Both go through the slots in the same order: they meet at each. */
static void *
race(void *argument)
{
    struct client *c = argument;
    mongoc_client_t *client = mongoc_client_new_from_uri(c->uri);
    mongoc_collection_t *registrations =
        mongoc_client_get_collection(client, DATABASE, COLLECTION);

    atomic_fetch_add(c->ready, 1);
    while (atomic_load(c->ready) < CLIENTS) {
    }
    for (int slot = 0; slot < SLOTS; slot++) {
        bson_t *document = BCON_NEW("code", "spring", "slot", BCON_INT32(slot),
                                    "client", BCON_INT32(c->number));
        bson_error_t error;

        if (mongoc_collection_insert_one(registrations, document, NULL, NULL,
                                         &error)) {
            c->granted[slot] = true;
            c->granted_count++;
        } else if (error.code == DUPLICATE_KEY) {
            c->refused_count++;
        } else {
            c->failed_count++;
            fprintf(stderr, "slot %d: %s\n", slot, error.message);
        }
        bson_destroy(document);
    }
    mongoc_collection_destroy(registrations);
    mongoc_client_destroy(client);
    return NULL;
}

static bool
make_collection(const mongoc_uri_t *uri)
{
    mongoc_client_t *client = mongoc_client_new_from_uri(uri);
    mongoc_database_t *database = mongoc_client_get_database(client, DATABASE);
    bson_t *command =
        BCON_NEW("createIndexes", COLLECTION, "indexes", "[", "{", "key", "{",
                 "code", BCON_INT32(1), "slot", BCON_INT32(1), "}", "name",
                 "code_slot", "unique", BCON_BOOL(true), "}", "]");
    bson_error_t error;
    bool made = mongoc_database_drop(database, &error) &&
                mongoc_database_write_command_with_opts(database, command, NULL,
                                                        NULL, &error);

    if (!made) {
        fprintf(stderr, "index: %s\n", error.message);
    }
    bson_destroy(command);
    mongoc_database_destroy(database);
    mongoc_client_destroy(client);
    return made;
}

static int64_t
count_documents(const mongoc_uri_t *uri)
{
    mongoc_client_t *client = mongoc_client_new_from_uri(uri);
    mongoc_collection_t *registrations =
        mongoc_client_get_collection(client, DATABASE, COLLECTION);
    bson_t everything = BSON_INITIALIZER;
    bson_error_t error;
    int64_t count = mongoc_collection_count_documents(
        registrations, &everything, NULL, NULL, NULL, &error);

    if (count < 0) {
        fprintf(stderr, "count: %s\n", error.message);
    }
    bson_destroy(&everything);
    mongoc_collection_destroy(registrations);
    mongoc_client_destroy(client);
    return count;
}

/* Each slot to exactly one client, no other error, and as many documents. */
static bool
holds(const struct client *clients, int64_t documents)
{
    bool good = documents == SLOTS;

    for (int i = 0; i < CLIENTS; i++) {
        printf("client %d: %d granted, %d refused, %d failed\n", i,
               clients[i].granted_count, clients[i].refused_count,
               clients[i].failed_count);
        good = good && clients[i].failed_count == 0;
    }
    for (int slot = 0; slot < SLOTS; slot++) {
        if (clients[0].granted[slot] == clients[1].granted[slot]) {
            printf("slot %d: granted %s\n", slot,
                   clients[0].granted[slot] ? "twice" : "to no one");
            good = false;
        }
    }
    printf("%lld documents\n", (long long)documents);
    return good;
}

int
main(int argc, char **argv)
{
    struct client clients[CLIENTS] = {{0}};
    pthread_t threads[CLIENTS];
    atomic_int ready = 0;
    bool good = false;
    mongoc_uri_t *uri = NULL;

    if (argc != 2) {
        fprintf(stderr, "usage: mongo_race URI\n");
        return 2;
    }
    mongoc_init();
    uri = mongoc_uri_new(argv[1]);
    if (uri != NULL && make_collection(uri)) {
        for (int i = 0; i < CLIENTS; i++) {
            clients[i].uri = uri;
            clients[i].number = i;
            clients[i].ready = &ready;
            if (pthread_create(&threads[i], NULL, race, &clients[i]) != 0) {
                abort();
            }
        }
        for (int i = 0; i < CLIENTS; i++) {
            pthread_join(threads[i], NULL);
        }
        good = holds(clients, count_documents(uri));
    }
    mongoc_uri_destroy(uri);
    mongoc_cleanup();
    puts(good ? "holds" : "DOES NOT HOLD");
    return good ? 0 : 1;
}
