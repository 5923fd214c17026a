/* Arrays in PostgreSQL's text form, a text a column. */
#include "dispatcher/pg_arrays.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "shared/text.h"

struct pg_arrays {
    struct text *columns;
    unsigned count;
};

enum rc
pg_arrays_new(struct pg_arrays **out, unsigned columns)
{
    struct pg_arrays *a = calloc(1, sizeof(*a));

    *out = NULL;
    if (a == NULL) {
        return RC_NOMEM;
    }
    a->count = columns;
    a->columns = calloc(columns, sizeof(a->columns[0]));
    if (a->columns == NULL) {
        free(a);
        return RC_NOMEM;
    }
    *out = a;
    return RC_OK;
}

void
pg_arrays_free(struct pg_arrays **a)
{
    if (*a == NULL) {
        return;
    }
    for (unsigned k = 0; k < (*a)->count; k++) {
        text_free(&(*a)->columns[k]);
    }
    free((*a)->columns);
    free(*a);
    *a = NULL;
}

void
pg_arrays_begin(struct pg_arrays *a)
{
    for (unsigned k = 0; k < a->count; k++) {
        text_reset(&a->columns[k]);
    }
}

/* The column, ready for its next element. */
static struct text *
next(struct pg_arrays *a, unsigned column)
{
    struct text *t = &a->columns[column];

    assert(column < a->count);
    text_putc(t, t->bytes == 0 ? '{' : ',');
    return t;
}

void
pg_arrays_int(struct pg_arrays *a, unsigned column, int64_t value)
{
    text_int(next(a, column), value);
}

void
pg_arrays_uuid(struct pg_arrays *a, unsigned column, const struct uuid *value)
{
    char text[UUID_TEXT_BYTES];

    text_puts(next(a, column), uuid_format(value, text));
}

/* Always quoted, so that no text is taken for NULL or for syntax: within the
 * quotes only backslash and quote are special. */
void
pg_arrays_text(struct pg_arrays *a, unsigned column, const char *value,
               size_t bytes)
{
    struct text *t = next(a, column);

    text_putc(t, '"');
    for (size_t i = 0; i < bytes; i++) {
        if (value[i] == '"' || value[i] == '\\') {
            text_putc(t, '\\');
        }
        text_putc(t, value[i]);
    }
    text_putc(t, '"');
}

void
pg_arrays_null(struct pg_arrays *a, unsigned column)
{
    text_puts(next(a, column), "NULL");
}

enum rc
pg_arrays_end(struct pg_arrays *a, const char **params)
{
    enum rc rc = RC_OK;

    for (unsigned k = 0; k < a->count; k++) {
        struct text *t = &a->columns[k];

        text_puts(t, t->bytes == 0 ? "{}" : "}");
        if (text_failed(t)) {
            rc = RC_NOMEM;
        }
        params[k] = text_cstr(t);
    }
    return rc;
}
