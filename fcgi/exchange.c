/* Exchanges, and lists of them. */
#include "fcgi/exchange.h"

#include <stdlib.h>

#define KEEP_BYTES_MAX (128U * 1024U)

enum rc
exchange_new(struct exchange **out)
{
    struct exchange *ex = calloc(1, sizeof(*ex));

    *out = NULL;
    if (ex == NULL) {
        return RC_NOMEM;
    }
    ex->fd = -1;
    *out = ex;
    return RC_OK;
}

void
exchange_free(struct exchange **ex)
{
    if (*ex == NULL) {
        return;
    }
    edge_read_params_free(&(*ex)->params);
    free((*ex)->body.data);
    reply_free(&(*ex)->reply);
    text_free(&(*ex)->wire);
    text_free(&(*ex)->record);
    free(*ex);
    *ex = NULL;
}

static void
trim(struct text *t)
{
    text_reset(t);
    if (t->capacity > KEEP_BYTES_MAX) {
        text_free(t);
    }
}

void
exchange_reset(struct exchange *ex)
{
    ex->next = NULL;
    ex->conn = NULL;
    ex->fd = -1;
    ex->walk = (struct records){0};
    ex->keep = false;
    ex->extra = false;
    ex->head_only = false;
    ex->has_params = false;
    ex->route = NULL;
    ex->sent = 0;
    ex->key_bytes = 0;
    ex->key_kept_ms = 0;
    ex->request.request_id[0] = '\0';
    if (ex->params.capacity > KEEP_BYTES_MAX) {
        edge_read_params_free(&ex->params);
    }
    if (ex->body.capacity > KEEP_BYTES_MAX) {
        free(ex->body.data);
        ex->body = (struct edge_body){0};
    }
    trim(&ex->reply.body);
    reply_reset(&ex->reply);
    trim(&ex->wire);
    trim(&ex->record);
}

void
exchange_list_add(struct exchange_list *list, struct exchange *ex)
{
    ex->next = NULL;
    if (list->last != NULL) {
        list->last->next = ex;
    } else {
        list->first = ex;
    }
    list->last = ex;
    list->count++;
}

struct exchange *
exchange_list_take(struct exchange_list *list)
{
    struct exchange *ex = list->first;

    if (ex != NULL) {
        list->first = ex->next;
        if (list->first == NULL) {
            list->last = NULL;
        }
        list->count--;
        ex->next = NULL;
    }
    return ex;
}
