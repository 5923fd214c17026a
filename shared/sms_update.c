/* Status updates: decode a provider's body into the journal's form, and walk
 * that.
 *
 * Two members are the same if their names are, without regard to case as
 * everywhere: names are decoded into one buffer, and sorted. (With a hash table
 * whoever may send a body could choose names that collide.) */
#include "shared/sms_update.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "shared/json.h"

#define FORM 1
#define KNOWN 16
#define UNMAPPED 255
#define ID_TEXT_BYTES (UUID_TEXT_BYTES - 1)

struct name {
    const char *data; /* decoded, and a NUL */
    size_t bytes;
    uint32_t key; /* its token */
};

/* Everything that one decoding allocates. */
struct decoding {
    struct json json;
    struct json_token *tokens;
    struct name *names;
    size_t count;
    char *text;  /* of the names */
    char *value; /* room for any value's text */
    size_t value_bytes;
};

/* How much of data fits into max bytes and ends with a whole character. */
static size_t
cut(const char *data, size_t bytes, size_t max)
{
    if (bytes <= max) {
        return bytes;
    }
    while (max > 0 && ((unsigned char)data[max] & 0xc0) == 0x80) {
        max--;
    }
    return max;
}

static void
copy_cut(char *out, size_t size, const char *data, size_t bytes)
{
    bytes = cut(data, bytes, size - 1);
    memcpy(out, data, bytes);
    out[bytes] = '\0';
}

/* ---- the journal's form -----------------------------------------------------
 */

void
sms_update_begin(struct text *out)
{
    text_putc(out, FORM);
}

static void
put_word(struct text *out, const char *word)
{
    size_t bytes = strlen(word);

    text_putc(out, (char)bytes);
    text_append(out, word, bytes);
}

void
sms_update_put(const struct sms_update *update, struct text *out)
{
    if (update->mapped) {
        unsigned head = (unsigned)update->state + (update->known ? KNOWN : 0U);

        text_putc(out, (char)head);
        text_append(out, (const char *)update->id.bytes, UUID_BYTES);
    } else {
        text_putc(out, (char)UNMAPPED);
        put_word(out, update->name);
        put_word(out, update->word);
    }
}

/* A length and so many bytes of UTF-8, into size bytes with a NUL. */
static bool
take_word(struct sms_update_cursor *c, char *out, size_t size)
{
    size_t bytes;

    if (c->at == c->bytes) {
        return false;
    }
    bytes = (unsigned char)c->body[c->at++];
    if (bytes >= size || bytes > c->bytes - c->at ||
        !json_utf8_valid(c->body + c->at, bytes) ||
        (bytes > 0 && memchr(c->body + c->at, '\0', bytes) != NULL)) {
        return false;
    }
    if (bytes > 0) {
        memcpy(out, c->body + c->at, bytes);
    }
    out[bytes] = '\0';
    c->at += bytes;
    return true;
}

static bool
take_update(struct sms_update_cursor *c, struct sms_update *out)
{
    unsigned head = (unsigned char)c->body[c->at++];

    if (head == UNMAPPED) {
        return take_word(c, out->name, sizeof(out->name)) &&
               take_word(c, out->word, sizeof(out->word));
    }
    out->known = head >= KNOWN;
    head -= out->known ? KNOWN : 0U;
    if (head >= SMS_STATES || c->bytes - c->at < UUID_BYTES) {
        return false;
    }
    out->mapped = true;
    out->state = (enum sms_state)head;
    memcpy(out->id.bytes, c->body + c->at, UUID_BYTES);
    c->at += UUID_BYTES;
    return true;
}

enum rc
sms_update_next(struct sms_update_cursor *cursor, struct sms_update *out)
{
    size_t from = cursor->at;

    *out = (struct sms_update){0};
    if (from == 0) {
        if (cursor->bytes == 0 || cursor->body[0] != FORM) {
            return RC_INVALID;
        }
        cursor->at = 1;
    }
    if (cursor->at == cursor->bytes) {
        return RC_AGAIN;
    }
    if (!take_update(cursor, out)) {
        cursor->at = from; /* stays invalid */
        *out = (struct sms_update){0};
        return RC_INVALID;
    }
    return RC_OK;
}

/* ---- a provider's body
 * -------------------------------------------------------
 */

/* What goes wrong is RC_INVALID, and errors say what, or RC_NOMEM. */
static enum rc
scan(struct decoding *d, const char *body, size_t bytes,
     struct field_errors *errors)
{
    /* No value takes less than two bytes with what stands behind it, but for
     * those that were never closed: so there is always room. What is not used
     * is never touched. */
    size_t max_tokens = bytes / 2 + JSON_MAX_DEPTH + 1;
    enum rc rc;

    d->tokens = malloc(max_tokens * sizeof(*d->tokens));
    if (d->tokens == NULL) {
        return RC_NOMEM;
    }
    rc = fields_scan(body, bytes, d->tokens, (uint32_t)max_tokens, &d->json,
                     errors);
    if (rc != RC_OK) {
        return rc;
    }
    if (d->tokens[0].type != JSON_OBJECT) {
        field_errors_add(errors, "", "the body must be a JSON object");
        return RC_INVALID;
    }
    return RC_OK;
}

static enum rc
count_members(struct decoding *d, struct field_errors *errors)
{
    for (uint32_t key = 1; key < d->tokens[0].next;
         key = d->tokens[key + 1].next) {
        d->count++;
    }
    if (d->count > SMS_UPDATES_MAX) {
        field_errors_add(errors, "", "at most %d updates, these are %u",
                         SMS_UPDATES_MAX, (unsigned)d->count);
        return RC_INVALID;
    }
    return RC_OK;
}

/* Decode every name. Together they fit into the body's size, for each NUL takes
 * the place of a quote; so does any value. */
static enum rc
read_names(struct decoding *d, size_t bytes)
{
    uint32_t key = 1;
    char *p;

    d->text = malloc(2 * bytes);
    d->names = malloc((d->count + 1) * sizeof(*d->names));
    if (d->text == NULL || d->names == NULL) {
        return RC_NOMEM;
    }
    d->value = d->text + bytes;
    d->value_bytes = bytes;
    p = d->text;
    for (size_t k = 0; k < d->count; k++) {
        struct name *name = &d->names[k];

        name->data = p;
        name->key = key;
        if (json_string(&d->json, key, p, bytes - (size_t)(p - d->text),
                        &name->bytes) != RC_OK) {
            return RC_BUG;
        }
        p += name->bytes + 1;
        key = d->tokens[key + 1].next;
    }
    return RC_OK;
}

/* Names hold no NUL (json.h), and no program of ours sets a locale: case means
 * that of ASCII. */
static int
compare_names(const void *a, const void *b)
{
    const struct name *x = *(const struct name *const *)a;
    const struct name *y = *(const struct name *const *)b;

    return strcasecmp(x->data, y->data);
}

/* RC_INVALID: a name is there twice, errors say which. */
static enum rc
check_twice(const struct decoding *d, struct field_errors *errors)
{
    const struct name **sorted = malloc((d->count + 1) * sizeof(*sorted));
    char shown[FIELD_NAME_BYTES];

    if (sorted == NULL) {
        return RC_NOMEM;
    }
    for (size_t k = 0; k < d->count; k++) {
        sorted[k] = &d->names[k];
    }
    qsort(sorted, d->count, sizeof(sorted[0]), compare_names);
    for (size_t k = 1; k < d->count; k++) {
        if (compare_names(&sorted[k - 1], &sorted[k]) == 0 &&
            (k < 2 || compare_names(&sorted[k - 2], &sorted[k]) != 0)) {
            copy_cut(shown, sizeof(shown), sorted[k]->data, sorted[k]->bytes);
            field_errors_add(errors, shown, "appears more than once");
        }
    }
    free(sorted);
    return errors->count > 0 ? RC_INVALID : RC_OK;
}

static void
put_member(const struct decoding *d, const struct name *name, struct text *out)
{
    const struct json_token *token = &d->tokens[name->key + 1];
    struct sms_update update = {0};
    const char *word = d->json.text + token->start;
    size_t bytes = token->bytes;
    bool said = json_string(&d->json, name->key + 1, d->value, d->value_bytes,
                            &bytes) == RC_OK;

    if (said) {
        word = d->value;
    } else {
        bytes = token->bytes; /* no string: its JSON */
    }
    update.mapped = said && uuid_parse(name->data, &update.id) == RC_OK &&
                    sms_state_parse(word, bytes, &update.state) == RC_OK;
    if (!update.mapped) {
        copy_cut(update.name, sizeof(update.name), name->data, name->bytes);
        copy_cut(update.word, sizeof(update.word), word, bytes);
    }
    sms_update_put(&update, out);
}

enum rc
sms_updates_from_request(const char *body, size_t bytes, struct text *out,
                         struct field_errors *errors)
{
    struct decoding d = {0};
    enum rc rc;

    errors->count = 0;
    rc = scan(&d, body, bytes, errors);
    if (rc == RC_OK) {
        rc = count_members(&d, errors);
    }
    if (rc == RC_OK) {
        rc = read_names(&d, bytes);
    }
    if (rc == RC_OK) {
        rc = check_twice(&d, errors);
    }
    if (rc == RC_OK) {
        sms_update_begin(out);
        for (size_t k = 0; k < d.count; k++) {
            put_member(&d, &d.names[k], out);
        }
        rc = text_failed(out) ? RC_NOMEM : RC_OK;
    }
    free(d.tokens);
    free(d.names);
    free(d.text);
    return rc;
}
