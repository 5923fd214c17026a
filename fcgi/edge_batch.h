/* The batch: requests that are committed together and answered together. */
#ifndef SLUICE_FCGI_EDGE_BATCH_H
#define SLUICE_FCGI_EDGE_BATCH_H

#include "fcgi/exchange.h"
#include "shared/push.h"

struct edge_batch;

/* max 1..1024 requests. journal and push are borrowed; push may be NULL.
 * journal_path: whose lock's holder is named in the log. */
enum rc edge_batch_new(struct edge_batch **out, size_t max,
                       struct journal *journal, struct push *push,
                       const char *journal_path) MUST_CHECK;
/* Frees what is in it. */
void edge_batch_free(struct edge_batch **batch);

/* Add an exchange that edge_take() called EDGE_COMMIT. RC_FULL. */
enum rc edge_batch_add(struct edge_batch *batch,
                       struct exchange *ex) MUST_CHECK;
size_t edge_batch_count(const struct edge_batch *batch);
bool edge_batch_is_full(const struct edge_batch *batch);

/* Commit what was added in one transaction and make the replies (2xx only for
 * what is on disk). The caller sends them, pushes, and clears the batch; until
 * then the exchanges (edge_batch_get) may not be changed but for `wire`. */
void edge_batch_commit(struct edge_batch *batch, int64_t now_ms,
                       int64_t now_unix_ms);
struct exchange *edge_batch_get(const struct edge_batch *batch, size_t k);
/* Has request k, a cancel, no reply yet? It is for the ask pool then. */
bool edge_batch_asks(const struct edge_batch *batch, size_t k);
/* Push the frames of what was accepted. */
void edge_batch_push(struct edge_batch *batch);
/* Forget the exchanges, which are the caller's again. */
void edge_batch_clear(struct edge_batch *batch);

#endif
