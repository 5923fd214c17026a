/* One client, not a pool: it belongs to one thread and connects in its calls.
 * After an error of the connection the client is thrown away, for it would
 * not look at a server that failed again for 5 s; the caller has its own
 * back-off. */
#include "dispatcher/mongo.h"

#include <inttypes.h>
#include <mongoc/mongoc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SELECTION_TIMEOUT_MS 500
#define DEFAULT_DATABASE "sluice"
#define NODES "nodes"
#define FIND_PAGE 1000 /* documents a reply */

struct mongo {
    mongoc_uri_t *uri;
    mongoc_client_t *client; /* NULL: to be made by the next use */
    int64_t timeout_ms;
    char database[64];
    char error[MONGO_ERROR_BYTES];
};

/* ---- the client -----------------------------------------------------------
 */

static void
start_library(void)
{
    /* What it would print, the errors say; mongoc_init() prints already. */
    mongoc_log_set_handler(NULL, NULL);
    mongoc_init();
}

static enum rc
set_options(struct mongo *m)
{
    int32_t ms = m->timeout_ms < INT32_MAX ? (int32_t)m->timeout_ms : INT32_MAX;
    mongoc_write_concern_t *concern = mongoc_write_concern_new();
    mongoc_write_concern_set_wmajority(concern, ms);
    mongoc_write_concern_set_journal(concern, true);
    mongoc_uri_set_write_concern(m->uri, concern);
    mongoc_write_concern_destroy(concern);
    /* Whatever the URI says: what was written is read back, and from a
     * secondary a place that was just given would seem to be nobody's. */
    mongoc_read_prefs_t *primary = mongoc_read_prefs_new(MONGOC_READ_PRIMARY);
    mongoc_uri_set_read_prefs_t(m->uri, primary);
    mongoc_read_prefs_destroy(primary);
    bool set =
        mongoc_uri_set_option_as_int32(m->uri,
                                       MONGOC_URI_SERVERSELECTIONTIMEOUTMS,
                                       SELECTION_TIMEOUT_MS) &&
        mongoc_uri_set_option_as_bool(m->uri, MONGOC_URI_SERVERSELECTIONTRYONCE,
                                      true) &&
        mongoc_uri_set_option_as_int32(m->uri, MONGOC_URI_CONNECTTIMEOUTMS,
                                       ms) &&
        mongoc_uri_set_option_as_int32(m->uri, MONGOC_URI_SOCKETTIMEOUTMS,
                                       ms) &&
        mongoc_uri_set_option_as_bool(m->uri, MONGOC_URI_RETRYWRITES, false) &&
        mongoc_uri_set_option_as_bool(m->uri, MONGOC_URI_RETRYREADS, false) &&
        mongoc_uri_set_appname(m->uri, "sluice");
    return set ? RC_OK : RC_INVALID;
}

enum rc
mongo_new(struct mongo **out, const char *uri, int64_t timeout_ms)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    bson_error_t error;
    *out = NULL;
    if (pthread_once(&once, start_library) != 0) {
        return RC_NOMEM;
    }
    struct mongo *m = calloc(1, sizeof(*m));
    if (m == NULL) {
        return RC_NOMEM;
    }
    m->timeout_ms = timeout_ms;
    m->uri = mongoc_uri_new_with_error(uri, &error);
    enum rc rc = m->uri == NULL ? RC_INVALID : set_options(m);
    if (rc == RC_OK) {
        const char *name = mongoc_uri_get_database(m->uri);
        snprintf(m->database, sizeof(m->database), "%s",
                 name == NULL || *name == '\0' ? DEFAULT_DATABASE : name);
        *out = m;
    } else {
        mongo_free(&m);
    }
    return rc;
}

static void
disconnect(struct mongo *m)
{
    if (m->client != NULL) {
        mongoc_client_destroy(m->client);
        m->client = NULL;
    }
}

void
mongo_free(struct mongo **mongo)
{
    if (*mongo == NULL) {
        return;
    }
    disconnect(*mongo);
    mongoc_uri_destroy((*mongo)->uri);
    free(*mongo);
    *mongo = NULL;
}

const char *
mongo_error(const struct mongo *m)
{
    return m->error;
}

static enum rc
connect_client(struct mongo *m)
{
    if (m->client == NULL) {
        m->client = mongoc_client_new_from_uri(m->uri);
        if (m->client == NULL) {
            snprintf(m->error, sizeof(m->error), "no client for this URI");
            return RC_IO;
        }
        (void)mongoc_client_set_error_api(m->client,
                                          MONGOC_ERROR_API_VERSION_2);
    }
    return RC_OK;
}

/* NULL: mongo_error() says why. */
static mongoc_collection_t *
collection_of(struct mongo *m, const char *name)
{
    return connect_client(m) == RC_OK
               ? mongoc_client_get_collection(m->client, m->database, name)
               : NULL;
}

/* ---- errors ---------------------------------------------------------------
 */

/* Does this code of a server speak of the data or the command itself? Anything
 * else (not primary, out of time, no privilege, PostgreSQL behind FerretDB
 * gone) may pass, or is the operator's matter. */
static bool
is_data_error(int64_t code)
{
    static const int16_t codes[] = {
        2,     /* BadValue */
        9,     /* FailedToParse */
        14,    /* TypeMismatch */
        22,    /* InvalidBSON */
        52,    /* DollarPrefixedFieldName */
        53,    /* InvalidIdField */
        55,    /* InvalidDBRef */
        56,    /* EmptyFieldName */
        57,    /* DottedFieldName */
        59,    /* CommandNotFound */
        66,    /* ImmutableField */
        67,    /* CannotCreateIndex */
        73,    /* InvalidNamespace */
        85,    /* IndexOptionsConflict */
        86,    /* IndexKeySpecsConflict */
        121,   /* DocumentValidationFailure */
        238,   /* NotImplemented */
        10334, /* BSONObjectTooLarge */
        11000, /* DuplicateKey */
        17280, /* KeyTooLong */
    };
    for (size_t k = 0; k < ARRAY_COUNT(codes); k++) {
        if (codes[k] == code) {
            return true;
        }
    }
    return false;
}

static void
copy_line(char *out, size_t bytes, const char *text)
{
    snprintf(out, bytes, "%s", text);
    for (char *c = out; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ') {
            *c = ' ';
        }
    }
}

static enum rc
fail(struct mongo *m, const bson_error_t *error)
{
    copy_line(m->error, sizeof(m->error), error->message);
    switch (error->domain) {
    case MONGOC_ERROR_SERVER:
        return is_data_error(error->code) ? RC_INVALID : RC_IO;
    case MONGOC_ERROR_BSON:
    case MONGOC_ERROR_COMMAND:
    case MONGOC_ERROR_CURSOR:
        return RC_INVALID;
    case MONGOC_ERROR_WRITE_CONCERN:
        return RC_IO;
    default: /* numbers of a library, not an enum of ours */
        disconnect(m);
        return RC_IO;
    }
}

/* ---- inserting ------------------------------------------------------------
 */

bson_t *
mongo_batch_add(struct mongo_batch *batch)
{
    if (batch->count == MONGO_BATCH_MAX) {
        return NULL;
    }
    bson_t *document = bson_new();
    batch->documents[batch->count++] = document;
    return document;
}

void
mongo_batch_clear(struct mongo_batch *batch)
{
    for (size_t k = 0; k < batch->count; k++) {
        bson_destroy(batch->documents[k]);
        batch->documents[k] = NULL;
    }
    batch->count = 0;
}

static void
set_fates(struct mongo_batch *batch, size_t from, enum mongo_fate fate)
{
    for (size_t k = from; k < batch->count; k++) {
        batch->fates[k] = fate;
    }
}

/* One entry of writeErrors: {index, code, errmsg}. */
static enum rc
take_write_error(struct mongo *m, struct mongo_batch *batch,
                 const bson_iter_t *entry)
{
    bson_iter_t fields;
    int64_t index = -1;
    int64_t code = 0;
    const char *text = "";
    if (!BSON_ITER_HOLDS_DOCUMENT(entry) ||
        !bson_iter_recurse(entry, &fields)) {
        return RC_IO;
    }
    while (bson_iter_next(&fields)) {
        const char *key = bson_iter_key(&fields);
        if (strcmp(key, "index") == 0) {
            index = bson_iter_as_int64(&fields);
        } else if (strcmp(key, "code") == 0) {
            code = bson_iter_as_int64(&fields);
        } else if (strcmp(key, "errmsg") == 0 &&
                   BSON_ITER_HOLDS_UTF8(&fields)) {
            text = bson_iter_utf8(&fields, NULL);
        }
    }
    /* What a duplicate's text quotes is somebody's address. */
    copy_line(m->error, sizeof(m->error),
              code == MONGOC_ERROR_DUPLICATE_KEY ? "duplicate key" : text);
    if (index < 0 || (size_t)index >= batch->count || !is_data_error(code)) {
        return RC_IO;
    }
    batch->fates[index] =
        code == MONGOC_ERROR_DUPLICATE_KEY ? MONGO_DUPLICATE : MONGO_REFUSED;
    copy_line(batch->why[index], MONGO_WHY_BYTES, text);
    if (batch->ordered) {
        set_fates(batch, (size_t)index + 1, MONGO_NOT_TRIED);
    }
    return RC_OK;
}

/* What the reply says of each. RC_AGAIN: nothing. */
static enum rc
take_reply(struct mongo *m, struct mongo_batch *batch, const bson_t *reply)
{
    bson_iter_t iter;
    bson_iter_t entry;
    enum rc rc = RC_AGAIN;
    if (bson_iter_init_find(&iter, reply, "writeConcernErrors") &&
        bson_iter_recurse(&iter, &entry) && bson_iter_next(&entry)) {
        snprintf(m->error, sizeof(m->error), "not acknowledged by a majority");
        return RC_IO;
    }
    if (bson_iter_init_find(&iter, reply, "writeErrors") &&
        bson_iter_recurse(&iter, &entry)) {
        while (rc != RC_IO && bson_iter_next(&entry)) {
            rc = take_write_error(m, batch, &entry);
        }
    }
    return rc;
}

static enum rc
insert_all(struct mongo *m, mongoc_collection_t *c, struct mongo_batch *batch)
{
    const bson_t *documents[MONGO_BATCH_MAX];
    bson_t reply;
    bson_t options = BSON_INITIALIZER;
    bson_error_t error = {0};
    enum rc rc = RC_OK;
    for (size_t k = 0; k < batch->count; k++) {
        documents[k] = batch->documents[k];
    }
    bson_append_bool(&options, "ordered", -1, batch->ordered);
    if (!mongoc_collection_insert_many(c, documents, batch->count, &options,
                                       &reply, &error)) {
        rc = take_reply(m, batch, &reply);
        rc = rc == RC_AGAIN ? fail(m, &error) : rc;
    }
    bson_destroy(&reply);
    bson_destroy(&options);
    return rc;
}

enum rc
mongo_insert(struct mongo *m, const char *collection, struct mongo_batch *batch)
{
    if (batch->count == 0) {
        return RC_OK;
    }
    mongoc_collection_t *c = collection_of(m, collection);
    enum rc rc = RC_IO;
    if (c != NULL) {
        set_fates(batch, 0, MONGO_INSERTED);
        rc = insert_all(m, c, batch);
        mongoc_collection_destroy(c);
    }
    if (rc != RC_OK) {
        set_fates(batch, 0, MONGO_NOT_TRIED);
    }
    return rc;
}

/* ---- finding --------------------------------------------------------------
 */

static void
append_options(const struct mongo_query *query, bson_t *options)
{
    if (query->sort != NULL) {
        bson_append_document(options, "sort", -1, query->sort);
    }
    if (query->fields != NULL) {
        bson_append_document(options, "projection", -1, query->fields);
    }
    if (query->limit > 0) {
        bson_append_int64(options, "limit", -1, query->limit);
    }
    /* One more than the limit, and FerretDB ends the cursor by itself. */
    bool small = query->limit > 0 && query->limit < FIND_PAGE;
    bson_append_int64(options, "batchSize", -1,
                      small ? query->limit + 1 : FIND_PAGE);
}

enum rc
mongo_find(struct mongo *m, const char *collection,
           const struct mongo_query *query, mongo_each *each, void *arg)
{
    const bson_t all = BSON_INITIALIZER;
    const bson_t *document;
    bson_t options = BSON_INITIALIZER;
    bson_error_t error;
    mongoc_collection_t *c = collection_of(m, collection);
    enum rc rc = RC_IO;
    if (c != NULL) {
        append_options(query, &options);
        mongoc_cursor_t *cursor = mongoc_collection_find_with_opts(
            c, query->filter == NULL ? &all : query->filter, &options, NULL);
        rc = RC_OK;
        while (rc == RC_OK && mongoc_cursor_next(cursor, &document)) {
            rc = each(arg, document);
        }
        bool failed = rc == RC_OK && mongoc_cursor_error(cursor, &error);
        mongoc_cursor_destroy(cursor);
        mongoc_collection_destroy(c);
        rc = failed ? fail(m, &error) : rc;
    }
    bson_destroy(&options);
    return rc;
}

int64_t
mongo_number(const bson_t *document, const char *name)
{
    bson_iter_t iter;
    if (!bson_iter_init_find(&iter, document, name)) {
        return 0;
    }
    return BSON_ITER_HOLDS_DATE_TIME(&iter) ? bson_iter_date_time(&iter)
                                            : bson_iter_as_int64(&iter);
}

void
mongo_add_in(bson_t *filter, const char *name, const char *const *values,
             size_t count)
{
    bson_t condition;
    bson_t list;
    bson_append_document_begin(filter, name, -1, &condition);
    bson_append_array_begin(&condition, "$in", -1, &list);
    for (size_t k = 0; k < count; k++) {
        char index[24];
        snprintf(index, sizeof(index), "%zu", k);
        bson_append_utf8(&list, index, -1, values[k], -1);
    }
    bson_append_array_end(&condition, &list);
    bson_append_document_end(filter, &condition);
}

/* ---- commands -------------------------------------------------------------
 */

static int64_t
number_in(const bson_t *reply, const char *field)
{
    bson_iter_t iter;
    return bson_iter_init_find(&iter, reply, field) ? bson_iter_as_int64(&iter)
                                                    : 0;
}

/* Run a command that reads; *n (may be NULL) = n of its reply. */
static enum rc
ask(struct mongo *m, const bson_t *command, int64_t *n)
{
    bson_t reply;
    bson_error_t error;
    enum rc rc = connect_client(m);
    if (rc != RC_OK) {
        return rc;
    }
    if (!mongoc_client_command_simple(m->client, m->database, command, NULL,
                                      &reply, &error)) {
        rc = fail(m, &error);
    } else if (n != NULL) {
        *n = number_in(&reply, "n");
    }
    bson_destroy(&reply);
    return rc;
}

enum rc
mongo_ping(struct mongo *m)
{
    bson_t command = BSON_INITIALIZER;
    bson_append_int32(&command, "ping", -1, 1);
    enum rc rc = ask(m, &command, NULL);
    bson_destroy(&command);
    return rc;
}

enum rc
mongo_count(struct mongo *m, const char *collection, const bson_t *filter,
            int64_t *out)
{
    bson_t command = BSON_INITIALIZER;
    *out = 0;
    bson_append_utf8(&command, "count", -1, collection, -1);
    if (filter != NULL) {
        bson_append_document(&command, "query", -1, filter);
    }
    enum rc rc = ask(m, &command, out);
    bson_destroy(&command);
    return rc;
}

/* What an update and a delete share: how it went, and *count = field of the
 * reply. */
static enum rc
finish(struct mongo *m, mongoc_collection_t *c, bool done, bson_t *reply,
       const bson_error_t *error)
{
    bson_iter_t iter;
    enum rc rc = done ? RC_OK : fail(m, error);
    /* An unacknowledged write is none. */
    if (!done && rc == RC_INVALID &&
        bson_iter_init_find(&iter, reply, "writeConcernErrors")) {
        rc = RC_IO;
    }
    mongoc_collection_destroy(c);
    return rc;
}

static enum rc
update_some(struct mongo *m, const char *collection, const bson_t *filter,
            const bson_t *change, bool many, int64_t *matched)
{
    bson_t reply;
    bson_error_t error;
    mongoc_collection_t *c = collection_of(m, collection);
    if (matched != NULL) {
        *matched = 0;
    }
    if (c == NULL) {
        return RC_IO;
    }
    bool done = many ? mongoc_collection_update_many(c, filter, change, NULL,
                                                     &reply, &error)
                     : mongoc_collection_update_one(c, filter, change, NULL,
                                                    &reply, &error);
    enum rc rc = finish(m, c, done, &reply, &error);
    if (rc == RC_OK && matched != NULL) {
        *matched = number_in(&reply, "matchedCount");
    }
    bson_destroy(&reply);
    return rc;
}

enum rc
mongo_update_one(struct mongo *m, const char *collection, const bson_t *filter,
                 const bson_t *change, int64_t *matched)
{
    return update_some(m, collection, filter, change, false, matched);
}

enum rc
mongo_update_many(struct mongo *m, const char *collection, const bson_t *filter,
                  const bson_t *change, int64_t *matched)
{
    return update_some(m, collection, filter, change, true, matched);
}

static enum rc
delete_some(struct mongo *m, const char *collection, const bson_t *filter,
            bool many, int64_t *deleted)
{
    bson_t reply;
    bson_error_t error;
    mongoc_collection_t *c = collection_of(m, collection);
    if (deleted != NULL) {
        *deleted = 0;
    }
    if (c == NULL) {
        return RC_IO;
    }
    bool done =
        many ? mongoc_collection_delete_many(c, filter, NULL, &reply, &error)
             : mongoc_collection_delete_one(c, filter, NULL, &reply, &error);
    enum rc rc = finish(m, c, done, &reply, &error);
    if (rc == RC_OK && deleted != NULL) {
        *deleted = number_in(&reply, "deletedCount");
    }
    bson_destroy(&reply);
    return rc;
}

enum rc
mongo_delete_one(struct mongo *m, const char *collection, const bson_t *filter,
                 int64_t *deleted)
{
    return delete_some(m, collection, filter, false, deleted);
}

enum rc
mongo_delete_many(struct mongo *m, const char *collection, const bson_t *filter,
                  int64_t *deleted)
{
    return delete_some(m, collection, filter, true, deleted);
}

enum rc
mongo_index(struct mongo *m, const char *collection, const bson_t *keys,
            bool unique)
{
    bson_t command = BSON_INITIALIZER;
    bson_t indexes;
    bson_t index;
    char *name = mongoc_collection_keys_to_index_string(keys);
    if (name == NULL) {
        snprintf(m->error, sizeof(m->error), "these are no keys of an index");
        return RC_INVALID;
    }
    bson_append_utf8(&command, "createIndexes", -1, collection, -1);
    bson_append_array_begin(&command, "indexes", -1, &indexes);
    bson_append_document_begin(&indexes, "0", -1, &index);
    bson_append_document(&index, "key", -1, keys);
    bson_append_utf8(&index, "name", -1, name, -1);
    if (unique) {
        bson_append_bool(&index, "unique", -1, true);
    }
    bson_append_document_end(&indexes, &index);
    bson_append_array_end(&command, &indexes);
    enum rc rc = ask(m, &command, NULL);
    bson_free(name);
    bson_destroy(&command);
    return rc;
}

/* ---- nodes ----------------------------------------------------------------
 */

static enum rc
take_owner(void *arg, const bson_t *document)
{
    bson_iter_t iter;
    if (bson_iter_init_find(&iter, document, "journal") &&
        BSON_ITER_HOLDS_UTF8(&iter)) {
        snprintf(arg, UUID_TEXT_BYTES, "%s", bson_iter_utf8(&iter, NULL));
    }
    return RC_OK;
}

/* Insert first, then read who has it: so two that come together agree. */
enum rc
mongo_claim_node(struct mongo *m, int64_t node, const char *journal_uuid,
                 char owner[UUID_TEXT_BYTES])
{
    struct mongo_batch batch = {0};
    bson_t filter = BSON_INITIALIZER;
    const struct mongo_query query = {.filter = &filter, .limit = 1};
    bson_t *document = mongo_batch_add(&batch);
    bson_append_int64(document, "_id", -1, node);
    bson_append_utf8(document, "journal", -1, journal_uuid, -1);
    bson_append_int64(&filter, "_id", -1, node);
    owner[0] = '\0';
    enum rc rc = mongo_insert(m, NODES, &batch);
    if (rc == RC_OK && batch.fates[0] != MONGO_INSERTED) {
        rc = mongo_find(m, NODES, &query, take_owner, owner);
        if (rc == RC_OK && strcmp(owner, journal_uuid) != 0) {
            snprintf(m->error, sizeof(m->error),
                     "node.id %" PRId64 " belongs to journal %s", node,
                     owner[0] == '\0' ? "(none)" : owner);
            rc = owner[0] == '\0' ? RC_IO : RC_INVALID;
        }
    }
    if (rc != RC_INVALID) {
        owner[0] = '\0';
    }
    mongo_batch_clear(&batch);
    bson_destroy(&filter);
    return rc;
}
