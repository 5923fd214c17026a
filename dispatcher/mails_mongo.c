/* The mailer's side of the collection mails.
 *
 * Mails that were sent are written down together, those of the same next_at
 * with one command. On FerretDB a change that is narrowed by no scalar but
 * owner and state fetches all queued mails of the node, 2.5 s for 20 000 of
 * them, and one for a single mail makes PostgreSQL scan the table, 40 ms. */
#include "dispatcher/mails.h"

#include <bson/bson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dispatcher/mongo.h"
#include "shared/log.h"

struct mails_mongo {
    struct mongo *mongo;
    int32_t node;
};

/* ---- reading ----------------------------------------------------------------
 */

/* False: it is not there, is no text, or too long. */
static bool
take_text(const bson_t *document, const char *name, char *out, size_t size)
{
    bson_iter_t at;
    const char *value;
    uint32_t bytes = 0;

    if (!bson_iter_init_find(&at, document, name) ||
        !BSON_ITER_HOLDS_UTF8(&at)) {
        return false;
    }
    value = bson_iter_utf8(&at, &bytes);
    if (bytes >= size || memchr(value, '\0', bytes) != NULL) {
        return false;
    }
    memcpy(out, value, bytes);
    out[bytes] = '\0';
    return true;
}

static bool
take_kind(const bson_t *document, enum mail_kind *out)
{
    char name[16];

    if (!take_text(document, "kind", name, sizeof(name))) {
        return false;
    }
    for (int kind = 0; kind < MAIL_KIND_COUNT; kind++) {
        if (strcmp(name, mail_kinds[kind]) == 0) {
            *out = (enum mail_kind)kind;
            return true;
        }
    }
    return false;
}

static bool
take_id(const bson_t *document, struct mail *out)
{
    bson_iter_t at;
    bson_t id;
    const uint8_t *data = NULL;
    uint32_t bytes = 0;

    if (!bson_iter_init_find(&at, document, "_id") ||
        !BSON_ITER_HOLDS_DOCUMENT(&at)) {
        return false;
    }
    bson_iter_document(&at, &bytes, &data);
    return bson_init_static(&id, data, bytes) &&
           take_text(&id, "email", out->key, sizeof(out->key)) &&
           take_text(&id, "code", out->code, sizeof(out->code)) &&
           take_kind(&id, &out->kind);
}

static bool
take_mail(const bson_t *document, struct mail *out)
{
    memset(out, 0, sizeof(*out));
    out->asked_unix_ms = mongo_number(document, "asked_at");
    out->created_unix_ms = mongo_number(document, "created_at");
    out->outbox = (struct outbox_mail){
        .state = OUTBOX_QUEUED,
        .next_unix_ms = mongo_number(document, "next_at"),
        .first_unix_ms = mongo_number(document, "first_at"),
        .attempts = mongo_number(document, "attempts"),
        .blocked = mongo_number(document, "blocked"),
    };
    return take_id(document, out) &&
           take_text(document, "to", out->to, sizeof(out->to)) &&
           take_text(document, "message_id", out->message_id,
                     sizeof(out->message_id));
}

struct page {
    struct mail *mails;
    size_t count;
    size_t limit;
    bson_t unreadable; /* {_id: ...} of the first that is; empty: none is */
};

static enum rc
on_due(void *arg, const bson_t *document)
{
    struct page *page = arg;

    if (page->count == page->limit) {
        return RC_OK;
    }
    if (take_mail(document, &page->mails[page->count])) {
        page->count++;
    } else if (bson_empty(&page->unreadable)) {
        bson_iter_t id;

        if (bson_iter_init_find(&id, document, "_id")) {
            (void)bson_append_iter(&page->unreadable, "_id", -1, &id);
        }
        log_event(LOG_ERROR, "mail_unreadable", "created_unix_ms=%lld",
                  (long long)mongo_number(document, "created_at"));
    }
    return RC_OK;
}

/* No mailer can send it: this is not its form. */
static enum rc
give_up(struct mails_mongo *m, const bson_t *id)
{
    bson_t filter = BSON_INITIALIZER;
    bson_t *change = BCON_NEW("$set", "{", "state", BCON_UTF8("given_up"),
                              "error", BCON_UTF8("it cannot be read"), "}");
    enum rc rc;

    BSON_APPEND_INT32(&filter, "owner", m->node);
    BSON_APPEND_UTF8(&filter, "state", outbox_states[OUTBOX_QUEUED]);
    (void)bson_concat(&filter, id);
    rc = mongo_update_one(m->mongo, MAILS_COLLECTION, &filter, change, NULL);
    bson_destroy(change);
    bson_destroy(&filter);
    return rc;
}

static enum rc
mails_due(void *self, int64_t now_unix_ms, size_t limit, struct mail *out,
          size_t *count)
{
    struct mails_mongo *m = self;
    struct page page = {
        .mails = out, .limit = limit, .unreadable = BSON_INITIALIZER};
    bson_t *filter =
        BCON_NEW("owner", BCON_INT32(m->node), "state", BCON_UTF8("queued"),
                 "next_at", "{", "$lte", BCON_DATE_TIME(now_unix_ms), "}");
    bson_t *sort = BCON_NEW("next_at", BCON_INT32(1));
    struct mongo_query query = {
        .filter = filter, .sort = sort, .limit = (int64_t)limit};
    enum rc rc = mongo_find(m->mongo, MAILS_COLLECTION, &query, on_due, &page);

    if (rc == RC_OK && !bson_empty(&page.unreadable)) {
        rc = give_up(m, &page.unreadable);
    }
    *count = rc == RC_OK ? page.count : 0;
    bson_destroy(&page.unreadable);
    bson_destroy(filter);
    bson_destroy(sort);
    return rc == RC_INVALID ? RC_IO : rc;
}

struct looked_up {
    const char *const *keys;
    size_t count;
    bool *has;
};

static enum rc
on_looked_up(void *arg, const bson_t *document)
{
    struct looked_up *l = arg;
    char key[ADDRESS_BYTES];

    if (take_text(document, "_id", key, sizeof(key))) {
        for (size_t i = 0; i < l->count; i++) {
            l->has[i] = l->has[i] || strcmp(l->keys[i], key) == 0;
        }
    }
    return RC_OK;
}

/* Which of the keys are an _id in the collection? */
static enum rc
look_up(struct mails_mongo *m, const char *collection, const char *const *keys,
        size_t count, bool *has)
{
    struct looked_up looked_up = {keys, count, has};
    bson_t filter = BSON_INITIALIZER;
    bson_t *fields = BCON_NEW("_id", BCON_INT32(1));
    struct mongo_query query = {.filter = &filter, .fields = fields};
    enum rc rc;

    memset(has, 0, count * sizeof(*has));
    mongo_add_in(&filter, "_id", keys, count);
    rc = mongo_find(m->mongo, collection, &query, on_looked_up, &looked_up);
    bson_destroy(&filter);
    bson_destroy(fields);
    return rc == RC_INVALID ? RC_IO : rc;
}

static enum rc
mails_registered(void *self, const char *const *keys, size_t count, bool *has)
{
    return look_up(self, "registrations", keys, count, has);
}

static enum rc
mails_refused(void *self, const char *const *keys, size_t count, bool *refused)
{
    return look_up(self, "refused", keys, count, refused);
}

static enum rc
mails_waiting(void *self, int64_t *count)
{
    struct mails_mongo *m = self;
    bson_t *filter =
        BCON_NEW("owner", BCON_INT32(m->node), "state", BCON_UTF8("queued"));
    enum rc rc = mongo_count(m->mongo, MAILS_COLLECTION, filter, count);

    bson_destroy(filter);
    return rc == RC_INVALID ? RC_IO : rc;
}

/* ---- writing ----------------------------------------------------------------
 */

/* Filter: of this node and queued, which FerretDB can have PostgreSQL choose.
 */
static void
begin_filter(const struct mails_mongo *m, bson_t *filter)
{
    BSON_APPEND_INT32(filter, "owner", m->node);
    BSON_APPEND_UTF8(filter, "state", outbox_states[OUTBOX_QUEUED]);
}

/* Those that were taken at their first attempt, which have no more to say. */
static bool
is_plainly_sent(const struct mail *mail)
{
    return mail->outbox.state == OUTBOX_SENT && mail->outbox.attempts == 1 &&
           mail->outbox.blocked == 0;
}

static void
add_id(bson_t *to, const char *name, const struct mail *mail)
{
    bson_t id;

    BSON_APPEND_DOCUMENT_BEGIN(to, name, &id);
    BSON_APPEND_UTF8(&id, "email", mail->key);
    BSON_APPEND_UTF8(&id, "code", mail->code);
    BSON_APPEND_UTF8(&id, "kind", mail_kinds[mail->kind]);
    (void)bson_append_document_end(to, &id);
}

/* Filter: those of the mails that are plainly sent and were due at
 * next_unix_ms; *sent_unix_ms is the last one's. */
static void
add_sent(bson_t *filter, const struct mail *const *mails, size_t count,
         int64_t next_unix_ms, int64_t *sent_unix_ms)
{
    bson_t in;
    bson_t list;
    uint32_t sent = 0;

    BSON_APPEND_DATE_TIME(filter, "next_at", next_unix_ms);
    BSON_APPEND_DOCUMENT_BEGIN(filter, "message_id", &in);
    BSON_APPEND_ARRAY_BEGIN(&in, "$in", &list);
    for (size_t i = 0; i < count; i++) {
        if (is_plainly_sent(mails[i]) &&
            mails[i]->outbox.next_unix_ms == next_unix_ms) {
            char index[16];
            const char *name;

            (void)bson_uint32_to_string(sent, &name, index, sizeof(index));
            BSON_APPEND_UTF8(&list, name, mails[i]->message_id);
            *sent_unix_ms = mails[i]->sent_unix_ms;
            sent++;
        }
    }
    (void)bson_append_array_end(&in, &list);
    (void)bson_append_document_end(filter, &in);
}

static enum rc
finish_group(struct mails_mongo *m, const struct mail *const *mails,
             size_t count, int64_t next_unix_ms)
{
    int64_t sent_unix_ms = 0;
    bson_t filter = BSON_INITIALIZER;
    bson_t *change;
    enum rc rc;

    begin_filter(m, &filter);
    add_sent(&filter, mails, count, next_unix_ms, &sent_unix_ms);
    change =
        BCON_NEW("$set", "{", "state", BCON_UTF8("sent"), "attempts",
                 BCON_INT32(1), "sent_at", BCON_DATE_TIME(sent_unix_ms), "}");
    rc = mongo_update_many(m->mongo, MAILS_COLLECTION, &filter, change, NULL);
    bson_destroy(change);
    bson_destroy(&filter);
    return rc;
}

/* The allocator inserts hundreds with the same next_at. */
static enum rc
finish_sent(struct mails_mongo *m, const struct mail *const *mails,
            size_t count)
{
    enum rc rc = RC_OK;

    for (size_t i = 0; rc == RC_OK && i < count; i++) {
        int64_t next_unix_ms = mails[i]->outbox.next_unix_ms;
        bool is_first = is_plainly_sent(mails[i]);

        for (size_t k = 0; is_first && k < i; k++) {
            is_first = !is_plainly_sent(mails[k]) ||
                       mails[k]->outbox.next_unix_ms != next_unix_ms;
        }
        if (is_first) {
            rc = finish_group(m, mails, count, next_unix_ms);
        }
    }
    return rc;
}

static enum rc
finish_one(struct mails_mongo *m, const struct mail *mail)
{
    const struct outbox_mail *o = &mail->outbox;
    bson_t filter = BSON_INITIALIZER;
    bson_t change = BSON_INITIALIZER;
    bson_t set;
    enum rc rc;

    begin_filter(m, &filter);
    BSON_APPEND_UTF8(&filter, "message_id", mail->message_id);
    add_id(&filter, "_id", mail);
    BSON_APPEND_DOCUMENT_BEGIN(&change, "$set", &set);
    BSON_APPEND_UTF8(&set, "state", outbox_states[o->state]);
    BSON_APPEND_DATE_TIME(&set, "next_at", o->next_unix_ms);
    BSON_APPEND_INT32(&set, "attempts", (int32_t)o->attempts);
    BSON_APPEND_INT32(&set, "blocked", (int32_t)o->blocked);
    if (o->first_unix_ms != 0) {
        BSON_APPEND_DATE_TIME(&set, "first_at", o->first_unix_ms);
    }
    if (mail->sent_unix_ms != 0) {
        BSON_APPEND_DATE_TIME(&set, "sent_at", mail->sent_unix_ms);
    }
    if (mail->error[0] != '\0') {
        BSON_APPEND_UTF8(&set, "error", mail->error);
    }
    (void)bson_append_document_end(&change, &set);
    rc = mongo_update_one(m->mongo, MAILS_COLLECTION, &filter, &change, NULL);
    bson_destroy(&filter);
    bson_destroy(&change);
    return rc;
}

static enum rc
mails_finish(void *self, const struct mail *const *mails, size_t count)
{
    struct mails_mongo *m = self;
    enum rc rc = finish_sent(m, mails, count);

    for (size_t i = 0; rc == RC_OK && i < count; i++) {
        if (!is_plainly_sent(mails[i])) {
            rc = finish_one(m, mails[i]);
        }
    }
    return rc == RC_INVALID ? RC_IO : rc;
}

static enum rc
mails_refuse(void *self, const struct mail *mail, const char *reason,
             int64_t now_unix_ms)
{
    struct mails_mongo *m = self;
    struct mongo_batch *batch = calloc(1, sizeof(*batch));
    bson_t *document = batch != NULL ? mongo_batch_add(batch) : NULL;
    enum rc rc = RC_NOMEM;

    if (document != NULL) {
        BSON_APPEND_UTF8(document, "_id", mail->key);
        BSON_APPEND_UTF8(document, "code", mail->code);
        BSON_APPEND_UTF8(document, "reason", reason);
        BSON_APPEND_DATE_TIME(document, "at", now_unix_ms);
        BSON_APPEND_BOOL(document, "freed", false);
        rc = mongo_insert(m->mongo, "refused", batch);
        if (rc == RC_OK && batch->fates[0] != MONGO_INSERTED &&
            batch->fates[0] != MONGO_DUPLICATE) {
            rc = RC_IO;
        }
    }
    if (batch != NULL) {
        mongo_batch_clear(batch);
    }
    free(batch);
    return rc == RC_INVALID ? RC_IO : rc;
}

/* ---- life -------------------------------------------------------------------
 */

static const char *
mails_error(const void *self)
{
    const struct mails_mongo *m = self;

    return mongo_error(m->mongo);
}

static void
mails_free(void **self)
{
    struct mails_mongo *m = *self;

    *self = NULL;
    if (m != NULL) {
        mongo_free(&m->mongo);
        free(m);
    }
}

const struct mails_ops mails_mongo_ops = {
    .due = mails_due,
    .finish = mails_finish,
    .registered = mails_registered,
    .refused = mails_refused,
    .refuse = mails_refuse,
    .waiting = mails_waiting,
    .error = mails_error,
    .free = mails_free,
};

enum rc
mails_mongo_new(void **self, const char *uri, int64_t timeout_ms, int64_t node)
{
    struct mails_mongo *m = calloc(1, sizeof(*m));
    enum rc rc = RC_NOMEM;

    *self = NULL;
    if (m != NULL) {
        m->node = (int32_t)node;
        rc = mongo_new(&m->mongo, uri, timeout_ms);
    }
    if (rc != RC_OK) {
        free(m);
        return rc;
    }
    *self = m;
    return RC_OK;
}
