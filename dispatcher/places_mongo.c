/* Filters hold a scalar of the document itself where there is one, for the
 * sake of FerretDB (mongo.h). */
#include "dispatcher/places_mongo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INVITATIONS "invitations"
#define REGISTRATIONS "registrations"
#define WAITLIST "waitlist"
#define REFUSED "refused"
#define MAILS "mails"
#define HOST_BYTES 128

struct places_mongo {
    struct mongo *mongo;
    int32_t node;
    int64_t now_unix_ms;
    char mail_host[HOST_BYTES];
    struct mongo_batch batch; /* empty between the calls */
};

/* ---- reading and writing documents ----------------------------------------
 */

static void
put_text(bson_t *document, const char *field, const char *value)
{
    bson_append_utf8(document, field, -1, value, -1);
}

static void
get_text(const bson_t *document, const char *field, char *out, size_t bytes)
{
    bson_iter_t iter;
    bool found = bson_iter_init_find(&iter, document, field) &&
                 BSON_ITER_HOLDS_UTF8(&iter);
    snprintf(out, bytes, "%s", found ? bson_iter_utf8(&iter, NULL) : "");
}

/* RC_INVALID of a command of ours is no one's data: the server is not as we
 * know it, the operator's matter, and nothing is lost by trying again. */
static enum rc
as_io(enum rc rc)
{
    return rc == RC_INVALID ? RC_IO : rc;
}

/* ---- invitations ----------------------------------------------------------
 */

struct found_invitations {
    struct invitation *out;
    size_t count;
    size_t max;
};

static enum rc
take_invitation(void *arg, const bson_t *document)
{
    struct found_invitations *found = arg;
    struct invitation *out = &found->out[found->count];
    int64_t limit = mongo_number(document, "limit");
    if (found->count == found->max) {
        return RC_OK;
    }
    memset(out, 0, sizeof(*out));
    get_text(document, "_id", out->code, sizeof(out->code));
    limit = limit > 0 ? limit : 0;
    out->limit = (int32_t)(limit < PLACES_LIMIT_MAX ? limit : PLACES_LIMIT_MAX);
    out->created_unix_ms = mongo_number(document, "created_at");
    out->expires_unix_ms = mongo_number(document, "expires_at");
    found->count++;
    return RC_OK;
}

static enum rc
find_invitation(void *self, const char *code, struct invitation *out,
                bool *found)
{
    struct places_mongo *p = self;
    struct found_invitations one = {.out = out, .max = 1};
    bson_t filter = BSON_INITIALIZER;
    const struct mongo_query query = {.filter = &filter, .limit = 1};
    put_text(&filter, "_id", code);
    enum rc rc =
        mongo_find(p->mongo, INVITATIONS, &query, take_invitation, &one);
    *found = rc == RC_OK && one.count == 1;
    bson_destroy(&filter);
    return as_io(rc);
}

static enum rc
find_invitations(void *self, const char *after, size_t max,
                 struct invitation *out, size_t *count)
{
    struct places_mongo *p = self;
    struct found_invitations page = {.out = out, .max = max};
    bson_t filter = BSON_INITIALIZER;
    bson_t above;
    bson_t sort = BSON_INITIALIZER;
    const struct mongo_query query = {
        .filter = &filter, .sort = &sort, .limit = (int64_t)max};
    bson_append_document_begin(&filter, "_id", -1, &above);
    put_text(&above, "$gt", after);
    bson_append_document_end(&filter, &above);
    bson_append_int32(&sort, "_id", -1, 1);
    enum rc rc =
        mongo_find(p->mongo, INVITATIONS, &query, take_invitation, &page);
    *count = rc == RC_OK ? page.count : 0;
    bson_destroy(&filter);
    bson_destroy(&sort);
    return as_io(rc);
}

/* ---- looking up by keys ---------------------------------------------------
 */

struct by_key {
    const char *const *keys;
    size_t count;
    bool *stands;
    struct registration *registrations;
    char (*request_ids)[UUID_TEXT_BYTES];
};

/* One document for each key that has it; a key may be asked for twice. */
static enum rc
take_by_key(void *arg, const bson_t *document)
{
    struct by_key *by_key = arg;
    char key[ADDRESS_BYTES];
    get_text(document, by_key->request_ids != NULL ? "key" : "_id", key,
             sizeof(key));
    for (size_t k = 0; k < by_key->count; k++) {
        if (strcmp(by_key->keys[k], key) != 0) {
            continue;
        }
        if (by_key->stands != NULL) {
            by_key->stands[k] = true;
        } else if (by_key->request_ids != NULL) {
            get_text(document, "request_id", by_key->request_ids[k],
                     UUID_TEXT_BYTES);
        } else {
            struct registration *out = &by_key->registrations[k];
            out->found = true;
            out->slot = (int32_t)mongo_number(document, "slot");
            get_text(document, "code", out->code, sizeof(out->code));
            get_text(document, "request_id", out->request_id,
                     sizeof(out->request_id));
        }
    }
    return RC_OK;
}

static enum rc
find_by_key(struct places_mongo *p, const char *collection, const char *code,
            struct by_key *by_key)
{
    bson_t filter = BSON_INITIALIZER;
    const struct mongo_query query = {.filter = &filter};
    if (code != NULL) {
        put_text(&filter, "code", code);
    }
    const char *field = code != NULL ? "key" : "_id";
    if (by_key->count == 1) {
        put_text(&filter, field, by_key->keys[0]);
    } else {
        mongo_add_in(&filter, field, by_key->keys, by_key->count);
    }
    enum rc rc = mongo_find(p->mongo, collection, &query, take_by_key, by_key);
    bson_destroy(&filter);
    return as_io(rc);
}

static enum rc
find_refused(void *self, const char *const *keys, size_t count, bool *stands)
{
    struct by_key by_key = {.keys = keys, .count = count, .stands = stands};
    memset(stands, 0, count * sizeof(*stands));
    return find_by_key(self, REFUSED, NULL, &by_key);
}

static enum rc
find_registered(void *self, const char *const *keys, size_t count,
                struct registration *out)
{
    struct by_key by_key = {.keys = keys, .count = count, .registrations = out};
    memset(out, 0, count * sizeof(*out));
    return find_by_key(self, REGISTRATIONS, NULL, &by_key);
}

static enum rc
find_waiting(void *self, const char *code, const char *const *keys,
             size_t count, char (*request_ids)[UUID_TEXT_BYTES])
{
    struct by_key by_key = {
        .keys = keys, .count = count, .request_ids = request_ids};
    memset(request_ids, 0, count * sizeof(*request_ids));
    return find_by_key(self, WAITLIST, code, &by_key);
}

/* ---- slots, the head of the waitlist, refusals ----------------------------
 */

static enum rc
take_slot(void *arg, const bson_t *document)
{
    bool *taken = arg;
    int64_t slot = mongo_number(document, "slot");
    if (slot >= 0 && slot <= PLACES_LIMIT_MAX) {
        taken[slot] = true;
    }
    return RC_OK;
}

static enum rc
find_slots(void *self, const char *code, bool *taken)
{
    struct places_mongo *p = self;
    bson_t filter = BSON_INITIALIZER;
    bson_t fields = BSON_INITIALIZER;
    const struct mongo_query query = {.filter = &filter, .fields = &fields};
    put_text(&filter, "code", code);
    bson_append_int32(&fields, "_id", -1, 0);
    bson_append_int32(&fields, "slot", -1, 1);
    enum rc rc = mongo_find(p->mongo, REGISTRATIONS, &query, take_slot, taken);
    bson_destroy(&filter);
    bson_destroy(&fields);
    return as_io(rc);
}

static enum rc
take_any(void *arg, const bson_t *document)
{
    bool *any = arg;
    (void)document;
    *any = true;
    return RC_OK;
}

static enum rc
find_anyone_waits(void *self, const char *code, bool *waits)
{
    struct places_mongo *p = self;
    bson_t filter = BSON_INITIALIZER;
    bson_t fields = BSON_INITIALIZER;
    const struct mongo_query query = {
        .filter = &filter, .fields = &fields, .limit = 1};
    *waits = false;
    put_text(&filter, "code", code);
    bson_append_int32(&fields, "_id", -1, 1);
    enum rc rc = mongo_find(p->mongo, WAITLIST, &query, take_any, waits);
    bson_destroy(&filter);
    bson_destroy(&fields);
    return as_io(rc);
}

struct found_people {
    struct person *out;
    size_t count;
    size_t max;
};

static bool
is_ascii(const char *text)
{
    while (*text != '\0' && (unsigned char)*text < 0x80) {
        text++;
    }
    return *text == '\0';
}

static enum rc
take_person(void *arg, const bson_t *document)
{
    struct found_people *found = arg;
    struct person *out = &found->out[found->count];
    if (found->count == found->max) {
        return RC_OK;
    }
    memset(out, 0, sizeof(*out));
    get_text(document, "request_id", out->request_id, sizeof(out->request_id));
    get_text(document, "code", out->code, sizeof(out->code));
    get_text(document, "email", out->address.text, ADDRESS_BYTES);
    get_text(document, "mailbox", out->address.mailbox, ADDRESS_BYTES);
    get_text(document, "key", out->address.key, ADDRESS_BYTES);
    out->address.ascii = is_ascii(out->address.mailbox);
    out->received_unix_ms = mongo_number(document, "received");
    out->node = (int32_t)mongo_number(document, "node");
    out->seq = mongo_number(document, "seq");
    found->count++;
    return RC_OK;
}

static enum rc
find_head(void *self, const char *code, size_t max, struct person *out,
          size_t *count)
{
    struct places_mongo *p = self;
    struct found_people found = {.out = out, .max = max};
    bson_t filter = BSON_INITIALIZER;
    bson_t sort = BSON_INITIALIZER;
    const struct mongo_query query = {
        .filter = &filter, .sort = &sort, .limit = (int64_t)max};
    put_text(&filter, "code", code);
    bson_append_int32(&sort, "received", -1, 1);
    bson_append_int32(&sort, "node", -1, 1);
    bson_append_int32(&sort, "seq", -1, 1);
    enum rc rc = mongo_find(p->mongo, WAITLIST, &query, take_person, &found);
    *count = rc == RC_OK ? found.count : 0;
    bson_destroy(&filter);
    bson_destroy(&sort);
    return as_io(rc);
}

struct found_refusals {
    struct refusal *out;
    size_t count;
    size_t max;
};

static enum rc
take_refusal(void *arg, const bson_t *document)
{
    struct found_refusals *found = arg;
    struct refusal *out = &found->out[found->count];
    if (found->count < found->max) {
        get_text(document, "_id", out->key, sizeof(out->key));
        get_text(document, "code", out->code, sizeof(out->code));
        found->count++;
    }
    return RC_OK;
}

static enum rc
find_unfreed(void *self, size_t max, struct refusal *out, size_t *count)
{
    struct places_mongo *p = self;
    struct found_refusals found = {.out = out, .max = max};
    bson_t filter = BSON_INITIALIZER;
    const struct mongo_query query = {.filter = &filter, .limit = (int64_t)max};
    bson_append_bool(&filter, "freed", -1, false);
    enum rc rc = mongo_find(p->mongo, REFUSED, &query, take_refusal, &found);
    *count = rc == RC_OK ? found.count : 0;
    bson_destroy(&filter);
    return as_io(rc);
}

/* ---- inserting ------------------------------------------------------------
 */

/* What is made into documents: people[k] gets slots[k], or the mail kinds[k].
 */
struct to_insert {
    const char *collection;
    bool ordered; /* up to the first that is not inserted */
    void (*put)(const struct places_mongo *p, const struct to_insert *what,
                size_t k, bson_t *document);
    const struct person *const *people;
    const int32_t *slots;
    const enum place_mail *kinds;
    size_t count;
};

/* What became of those of the batch; false: they are not all inserted. */
static bool
take_fates(const struct mongo_batch *batch, struct place_result *results)
{
    bool all = true;
    for (size_t k = 0; k < batch->count; k++) {
        all = all && batch->fates[k] == MONGO_INSERTED;
        switch (batch->fates[k]) {
        case MONGO_INSERTED:
            results[k].fate = PLACE_INSERTED;
            break;
        case MONGO_DUPLICATE:
            results[k].fate = PLACE_DUPLICATE;
            break;
        case MONGO_REFUSED:
            results[k].fate = PLACE_POISON;
            snprintf(results[k].why, PLACES_WHY_BYTES, "%s", batch->why[k]);
            break;
        case MONGO_NOT_TRIED:
            results[k].fate = PLACE_NOT_TRIED;
            break;
        }
    }
    return all;
}

/* In batches, and say what became of each. */
static enum rc
insert(struct places_mongo *p, const struct to_insert *what,
       struct place_result *results)
{
    enum rc rc = RC_OK;
    bool ended = false;
    for (size_t k = 0; k < what->count; k++) {
        results[k].fate = PLACE_NOT_TRIED;
        results[k].why[0] = '\0';
    }
    p->batch.ordered = what->ordered;
    for (size_t k = 0; rc == RC_OK && !ended && k < what->count;) {
        size_t first = k;
        while (k < what->count && k < first + MONGO_BATCH_MAX) {
            what->put(p, what, k++, mongo_batch_add(&p->batch));
        }
        rc = mongo_insert(p->mongo, what->collection, &p->batch);
        ended = !take_fates(&p->batch, &results[first]) && what->ordered;
        mongo_batch_clear(&p->batch);
    }
    return as_io(rc);
}

static void
put_registration(const struct places_mongo *p, const struct to_insert *what,
                 size_t k, bson_t *document)
{
    const struct person *person = what->people[k];
    put_text(document, "_id", person->address.key);
    put_text(document, "email", person->address.text);
    put_text(document, "mailbox", person->address.mailbox);
    put_text(document, "code", person->code);
    bson_append_int32(document, "slot", -1, what->slots[k]);
    put_text(document, "request_id", person->request_id);
    bson_append_date_time(document, "accepted_at", -1, p->now_unix_ms);
}

static enum rc
add_registrations(void *self, const struct person *const *people,
                  const int32_t *slots, size_t count,
                  struct place_result *results)
{
    const struct to_insert what = {.collection = REGISTRATIONS,
                                   .ordered = true,
                                   .put = put_registration,
                                   .people = people,
                                   .slots = slots,
                                   .count = count};
    return insert(self, &what, results);
}

static void
put_waiting(const struct places_mongo *p, const struct to_insert *what,
            size_t k, bson_t *document)
{
    const struct person *person = what->people[k];
    bson_t id;
    (void)p;
    bson_append_document_begin(document, "_id", -1, &id);
    put_text(&id, "code", person->code);
    put_text(&id, "email", person->address.key);
    bson_append_document_end(document, &id);
    put_text(document, "code", person->code);
    put_text(document, "key", person->address.key);
    put_text(document, "email", person->address.text);
    put_text(document, "mailbox", person->address.mailbox);
    put_text(document, "request_id", person->request_id);
    bson_append_date_time(document, "received", -1, person->received_unix_ms);
    bson_append_int32(document, "node", -1, person->node);
    bson_append_int64(document, "seq", -1, person->seq);
}

static enum rc
add_waiting(void *self, const struct person *const *people, size_t count,
            struct place_result *results)
{
    const struct to_insert what = {.collection = WAITLIST,
                                   .put = put_waiting,
                                   .people = people,
                                   .count = count};
    return insert(self, &what, results);
}

static const char *
mail_name(enum place_mail kind)
{
    switch (kind) {
    case PLACE_MAIL_WELCOME:
        return "welcome";
    case PLACE_MAIL_APOLOGY:
        return "apology";
    case PLACE_MAIL_UNKNOWN:
        return "unknown";
    case PLACE_MAIL_NONE:
        break;
    }
    return "none";
}

/* code stands beside the _id for those who count the mails of one (mongo.h);
 * message_id is unique too, and a scalar. */
static void
put_mail(const struct places_mongo *p, const struct to_insert *what, size_t k,
         bson_t *document)
{
    const struct person *person = what->people[k];
    const char *kind = mail_name(what->kinds[k]);
    bson_t id;
    char message_id[UUID_TEXT_BYTES + HOST_BYTES + 16];
    snprintf(message_id, sizeof(message_id), "%s.%s@%s", person->request_id,
             kind, p->mail_host);
    bson_append_document_begin(document, "_id", -1, &id);
    put_text(&id, "email", person->address.key);
    put_text(&id, "code", person->code);
    put_text(&id, "kind", kind);
    bson_append_document_end(document, &id);
    put_text(document, "code", person->code);
    put_text(document, "to", person->address.mailbox);
    bson_append_int32(document, "owner", -1, p->node);
    put_text(document, "message_id", message_id);
    put_text(document, "state", "queued");
    bson_append_date_time(document, "next_at", -1, p->now_unix_ms);
    bson_append_date_time(document, "asked_at", -1, person->received_unix_ms);
    bson_append_date_time(document, "created_at", -1, p->now_unix_ms);
}

static enum rc
add_mails(void *self, const struct person *const *people,
          const enum place_mail *kinds, size_t count,
          struct place_result *results)
{
    const struct to_insert what = {.collection = MAILS,
                                   .put = put_mail,
                                   .people = people,
                                   .kinds = kinds,
                                   .count = count};
    return insert(self, &what, results);
}

/* ---- deleting -------------------------------------------------------------
 */

static enum rc
remove_registration(void *self, const char *key, const char *request_id)
{
    struct places_mongo *p = self;
    bson_t filter = BSON_INITIALIZER;
    put_text(&filter, "_id", key);
    if (request_id != NULL) {
        put_text(&filter, "request_id", request_id);
    }
    enum rc rc = mongo_delete_one(p->mongo, REGISTRATIONS, &filter, NULL);
    bson_destroy(&filter);
    return as_io(rc);
}

static enum rc
remove_waiting(void *self, const char *key, const char *code)
{
    struct places_mongo *p = self;
    bson_t filter = BSON_INITIALIZER;
    if (code != NULL) {
        put_text(&filter, "code", code);
    }
    put_text(&filter, "key", key);
    enum rc rc = mongo_delete_many(p->mongo, WAITLIST, &filter, NULL);
    bson_destroy(&filter);
    return as_io(rc);
}

/* ---- updating -------------------------------------------------------------
 */

/* {$set: ...} of the document with this _id; set is destroyed. */
static enum rc
update(struct mongo *mongo, const char *collection, const char *id, bson_t *set,
       bool *found)
{
    bson_t filter = BSON_INITIALIZER;
    bson_t change = BSON_INITIALIZER;
    int64_t matched = 0;
    put_text(&filter, "_id", id);
    bson_append_document(&change, "$set", -1, set);
    enum rc rc =
        mongo_update_one(mongo, collection, &filter, &change, &matched);
    *found = matched > 0;
    bson_destroy(&filter);
    bson_destroy(&change);
    bson_destroy(set);
    return rc;
}

static enum rc
set_freed(void *self, const char *key)
{
    struct places_mongo *p = self;
    bson_t set = BSON_INITIALIZER;
    bool found;
    bson_append_bool(&set, "freed", -1, true);
    return as_io(update(p->mongo, REFUSED, key, &set, &found));
}

/* ---- the store ------------------------------------------------------------
 */

static void
set_now(void *self, int64_t now_unix_ms)
{
    struct places_mongo *p = self;
    p->now_unix_ms = now_unix_ms;
}

static const char *
error_of(const void *self)
{
    const struct places_mongo *p = self;
    return mongo_error(p->mongo);
}

static void
free_places(void **self)
{
    free(*self);
    *self = NULL;
}

static const struct places_ops places_mongo_ops = {
    .set_now = set_now,
    .invitation = find_invitation,
    .invitations = find_invitations,
    .refused = find_refused,
    .registered = find_registered,
    .slots = find_slots,
    .anyone_waits = find_anyone_waits,
    .head = find_head,
    .waiting = find_waiting,
    .add_registrations = add_registrations,
    .add_waiting = add_waiting,
    .add_mails = add_mails,
    .remove_registration = remove_registration,
    .remove_waiting = remove_waiting,
    .unfreed = find_unfreed,
    .set_freed = set_freed,
    .error = error_of,
    .free = free_places,
};

enum rc
places_mongo_new(struct places *out, const struct places_mongo_options *options)
{
    struct places_mongo *p = calloc(1, sizeof(*p));
    *out = (struct places){.ops = &places_mongo_ops, .self = p};
    if (p == NULL) {
        return RC_NOMEM;
    }
    p->mongo = options->mongo;
    p->node = options->node;
    snprintf(p->mail_host, sizeof(p->mail_host), "%s", options->mail_host);
    return RC_OK;
}

static enum rc
make_index(struct mongo *mongo, const char *collection, bool unique,
           const char *const *fields)
{
    bson_t keys = BSON_INITIALIZER;
    for (; *fields != NULL; fields++) {
        bson_append_int32(&keys, *fields, -1, 1);
    }
    enum rc rc = mongo_index(mongo, collection, &keys, unique);
    bson_destroy(&keys);
    return rc;
}

enum rc
places_mongo_prepare(struct mongo *mongo)
{
    static const struct {
        const char *collection;
        bool unique;
        const char *fields[5];
    } indexes[] = {
        {REGISTRATIONS, true, {"code", "slot"}},
        {WAITLIST, false, {"code", "received", "node", "seq"}},
        {WAITLIST, false, {"key"}},
        {REFUSED, false, {"freed"}},
        {MAILS, false, {"owner", "state", "next_at"}},
    };
    enum rc rc = RC_OK;
    for (size_t k = 0; rc == RC_OK && k < ARRAY_COUNT(indexes); k++) {
        rc = make_index(mongo, indexes[k].collection, indexes[k].unique,
                        indexes[k].fields);
    }
    return rc;
}

/* ---- for the operator -----------------------------------------------------
 */

static enum rc
insert_one(struct mongo *mongo, const char *collection,
           struct mongo_batch *batch, bool *inserted)
{
    enum rc rc = mongo_insert(mongo, collection, batch);
    *inserted = rc == RC_OK && batch->fates[0] == MONGO_INSERTED;
    if (rc == RC_OK && batch->fates[0] == MONGO_REFUSED) {
        rc = RC_INVALID;
    }
    mongo_batch_clear(batch);
    return rc;
}

enum rc
places_create(struct mongo *mongo, const struct invitation *invitation,
              bool *created)
{
    struct mongo_batch batch = {0};
    bson_t *document = mongo_batch_add(&batch);
    put_text(document, "_id", invitation->code);
    bson_append_int32(document, "limit", -1, invitation->limit);
    bson_append_date_time(document, "created_at", -1,
                          invitation->created_unix_ms);
    if (invitation->expires_unix_ms != 0) {
        bson_append_date_time(document, "expires_at", -1,
                              invitation->expires_unix_ms);
    }
    return insert_one(mongo, INVITATIONS, &batch, created);
}

enum rc
places_set_limit(struct mongo *mongo, const char *code, int32_t limit,
                 bool *found)
{
    bson_t set = BSON_INITIALIZER;
    bson_append_int32(&set, "limit", -1, limit);
    return update(mongo, INVITATIONS, code, &set, found);
}

enum rc
places_set_expiry(struct mongo *mongo, const char *code,
                  int64_t expires_unix_ms, bool *found)
{
    bson_t set = BSON_INITIALIZER;
    if (expires_unix_ms == 0) {
        bson_append_null(&set, "expires_at", -1);
    } else {
        bson_append_date_time(&set, "expires_at", -1, expires_unix_ms);
    }
    return update(mongo, INVITATIONS, code, &set, found);
}

static enum rc
take_code(void *arg, const bson_t *document)
{
    get_text(document, "code", arg, INVITATION_CODE_BYTES);
    return RC_OK;
}

enum rc
places_revoke(struct mongo *mongo, const char *key, const char *reason,
              int64_t now_unix_ms, enum places_revoked *revoked)
{
    struct mongo_batch batch = {0};
    char code[INVITATION_CODE_BYTES] = "";
    bson_t filter = BSON_INITIALIZER;
    const struct mongo_query query = {.filter = &filter, .limit = 1};
    bool inserted = false;
    *revoked = PLACES_REFUSED_BEFORE;
    put_text(&filter, "_id", key);
    enum rc rc = mongo_find(mongo, REGISTRATIONS, &query, take_code, code);
    if (rc == RC_OK &&
        code[0] == '\0') { /* who has no place may wait for one */
        bson_reinit(&filter);
        put_text(&filter, "key", key);
        rc = mongo_find(mongo, WAITLIST, &query, take_code, code);
    }
    bson_destroy(&filter);
    if (rc != RC_OK) {
        return rc;
    }
    bson_t *document = mongo_batch_add(&batch);
    put_text(document, "_id", key);
    put_text(document, "code", code);
    put_text(document, "reason", reason);
    bson_append_date_time(document, "at", -1, now_unix_ms);
    bson_append_bool(document, "freed", -1, false);
    rc = insert_one(mongo, REFUSED, &batch, &inserted);
    if (inserted) {
        *revoked = code[0] != '\0' ? PLACES_REVOKED : PLACES_REFUSED_NEW;
    }
    return rc;
}

static enum rc
count_of(struct mongo *mongo, const char *collection, const char *code,
         const char *state, int64_t *out)
{
    bson_t filter = BSON_INITIALIZER;
    put_text(&filter, "code", code);
    if (state != NULL) {
        put_text(&filter, "state", state);
    }
    enum rc rc = mongo_count(mongo, collection, &filter, out);
    bson_destroy(&filter);
    return rc;
}

enum rc
places_count(struct mongo *mongo, const char *code, struct places_counts *out)
{
    const struct {
        const char *collection;
        const char *state;
        int64_t *out;
    } counts[] = {
        {REGISTRATIONS, NULL, &out->taken},
        {WAITLIST, NULL, &out->waiting},
        {REFUSED, NULL, &out->refused},
        {MAILS, "queued", &out->mails_queued},
        {MAILS, "sent", &out->mails_sent},
        {MAILS, "refused", &out->mails_refused},
        {MAILS, "given_up", &out->mails_given_up},
        {MAILS, "skipped", &out->mails_skipped},
    };
    enum rc rc = RC_OK;
    memset(out, 0, sizeof(*out));
    for (size_t k = 0; rc == RC_OK && k < ARRAY_COUNT(counts); k++) {
        rc = count_of(mongo, counts[k].collection, code, counts[k].state,
                      counts[k].out);
    }
    return rc;
}

struct each_place {
    enum rc (*each)(void *arg, const struct place *place);
    void *arg;
};

static enum rc
take_place(void *arg, const bson_t *document)
{
    const struct each_place *each = arg;
    struct place place = {.slot = (int32_t)mongo_number(document, "slot")};
    get_text(document, "_id", place.key, sizeof(place.key));
    get_text(document, "email", place.email, sizeof(place.email));
    get_text(document, "code", place.code, sizeof(place.code));
    get_text(document, "request_id", place.request_id,
             sizeof(place.request_id));
    place.accepted_unix_ms = mongo_number(document, "accepted_at");
    return each->each(each->arg, &place);
}

enum rc
places_each(struct mongo *mongo, const char *code,
            enum rc (*each)(void *arg, const struct place *place), void *arg)
{
    struct each_place taker = {.each = each, .arg = arg};
    bson_t filter = BSON_INITIALIZER;
    bson_t sort = BSON_INITIALIZER;
    struct mongo_query query = {.filter = &filter};
    if (code != NULL) {
        put_text(&filter, "code", code);
        bson_append_int32(&sort, "slot", -1, 1);
        query.sort = &sort;
    }
    enum rc rc = mongo_find(mongo, REGISTRATIONS, &query, take_place, &taker);
    bson_destroy(&filter);
    bson_destroy(&sort);
    return rc;
}

/* ---- what became of a request ---------------------------------------------
 */

static enum rc
take_trace(void *arg, const bson_t *document)
{
    struct places_trace *out = arg;
    get_text(document, "code", out->code, sizeof(out->code));
    out->slot = (int32_t)mongo_number(document, "slot");
    out->at_unix_ms =
        mongo_number(document, out->slot != 0 ? "accepted_at" : "received");
    return RC_OK;
}

/* "<request>.<kind>@<host>" */
static enum rc
take_trace_mail(void *arg, const bson_t *document)
{
    struct places_trace *out = arg;
    char id[128];
    if (out->mails < ARRAY_COUNT(out->mail)) {
        get_text(document, "message_id", id, sizeof(id));
        id[strcspn(id, "@")] = '\0';
        snprintf(out->mail[out->mails].kind, sizeof(out->mail[0].kind), "%s",
                 id + strcspn(id, ".") + (strchr(id, '.') != NULL));
        get_text(document, "state", out->mail[out->mails].state,
                 sizeof(out->mail[0].state));
        get_text(document, "code", out->code, sizeof(out->code));
        out->mails++;
    }
    return RC_OK;
}

static enum rc
trace_mails(struct mongo *mongo, const char *request_id,
            struct places_trace *out)
{
    char from[UUID_TEXT_BYTES + 1];
    char to[UUID_TEXT_BYTES + 1];
    bson_t filter = BSON_INITIALIZER;
    bson_t range;
    const struct mongo_query query = {.filter = &filter};
    snprintf(from, sizeof(from), "%s.", request_id);
    snprintf(to, sizeof(to), "%s/", request_id); /* the next character */
    bson_append_document_begin(&filter, "message_id", -1, &range);
    put_text(&range, "$gte", from);
    put_text(&range, "$lt", to);
    bson_append_document_end(&filter, &range);
    enum rc rc = mongo_find(mongo, MAILS, &query, take_trace_mail, out);
    bson_destroy(&filter);
    return rc;
}

enum rc
places_trace(struct mongo *mongo, const char *request_id,
             struct places_trace *out)
{
    bson_t filter = BSON_INITIALIZER;
    const struct mongo_query query = {.filter = &filter, .limit = 1};
    memset(out, 0, sizeof(*out));
    put_text(&filter, "request_id", request_id);
    enum rc rc = mongo_find(mongo, REGISTRATIONS, &query, take_trace, out);
    if (rc == RC_OK && out->slot == 0) {
        rc = mongo_find(mongo, WAITLIST, &query, take_trace, out);
        out->waits = rc == RC_OK && out->code[0] != '\0';
    }
    bson_destroy(&filter);
    return rc == RC_OK ? trace_mails(mongo, request_id, out) : rc;
}
