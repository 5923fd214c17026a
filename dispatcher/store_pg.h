/* The store: a thread that pages outcomes from the journal by a cursor of its
 * own, persists them in PostgreSQL in batches, and has the writer retire
 * them. While the database is down it waits with back-off, and nothing else
 * does. A batch that the database refuses is bisected until the poison stands
 * alone; its request goes to the dead letters, the rest is stored. */
#ifndef SLUICE_DISPATCHER_STORE_PG_H
#define SLUICE_DISPATCHER_STORE_PG_H

#include <stdbool.h>
#include <stdint.h>

#include "dispatcher/metrics.h"
#include "dispatcher/writer.h"
#include "shared/conf.h"
#include "shared/journal.h"
#include "shared/pg.h"
#include "shared/rc.h"

struct store_pg;

/* One thing to store that the database may refuse by itself. */
struct store_item {
    int64_t seq;      /* request whose dead letter it becomes */
    const void *data; /* the persister's own form */
};

/* How outcomes of one service get into PostgreSQL. */
struct store_persister {
    enum service service;
    /* Decode outcome rows and append their items; the persister's own storage
     * behind data lives until release(). RC_INVALID: this outcome cannot be
     * decoded. */
    enum rc (*decode)(void *self, const struct journal_row *outcome);
    size_t (*count)(const void *self); /* items decoded so far */
    struct store_item (*item)(const void *self, size_t index);
    /* Write items [from, to) in one statement. Codes of pg_exec. */
    enum rc (*persist)(void *self, struct pg *pg, size_t from, size_t to);
    /* Name of an item for its dead letter ("7"). */
    void (*name)(const void *self, size_t index, char out[JOURNAL_ITEM_BYTES]);
    void (*release)(void *self); /* forget the items */
    /* Once a second while the database is up (expiry); may be NULL. */
    enum rc (*every_second)(void *self, struct pg *pg, int64_t now_unix_ms);
    enum rc (*new)(void **self, const struct conf *conf,
                   struct metrics *metrics);
    void (*configure)(void *self, const struct conf *conf);
    void (*free)(void **self);
};

extern const struct store_persister callback_persister;   /* callback_store.c */
extern const struct store_persister call_persister;       /* call_store.c */
extern const struct store_persister sms_persister;        /* sms_store.c */
extern const struct store_persister sms_status_persister; /* sms_status_store.c
                                                           */

/* Start the thread. On the first connection it applies migrations and claims
 * node.id (table nodes) for this journal; a newer schema or a node clash is
 * logged, and *fatal becomes readable through store_pg_failed(). */
enum rc store_pg_start(struct store_pg **out, const struct conf *conf,
                       struct writer *writer,
                       struct metrics *metrics) MUST_CHECK;
/* Persist what is there if the database is up (at most timeout_ms), end. */
void store_pg_stop(struct store_pg **s, int64_t timeout_ms);

/* An outcome was added: look now. Any thread. */
void store_pg_wake(struct store_pg *s);
void store_pg_configure(struct store_pg *s, const struct conf *conf);

/* Pollable: readable when the store cannot ever work (schema newer than this
 * program, node.id taken by another journal): main ends the process. */
int store_pg_failed_fd(const struct store_pg *s);

#endif
