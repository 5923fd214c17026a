/* Linear searches: tests are small. */
#include "tests/dispatcher/places_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static enum rc
begin(const struct memory_store *s, const char *operation)
{
    return s->before == NULL ? RC_OK : s->before(s->arg, operation);
}

static enum rc
end(const struct memory_store *s, const char *operation)
{
    return s->after == NULL ? RC_OK : s->after(s->arg, operation);
}

static bool
same(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

static const struct person *
registered_person(const struct memory *m, const char *key)
{
    for (size_t k = 0; k < m->registered_count; k++) {
        if (same(m->registered[k].address.key, key)) {
            return &m->registered[k];
        }
    }
    return NULL;
}

static const struct person *
waiting_person(const struct memory *m, const char *code, const char *key)
{
    for (size_t k = 0; k < m->waiting_count; k++) {
        if (same(m->waiting[k].address.key, key) &&
            same(m->waiting[k].code, code)) {
            return &m->waiting[k];
        }
    }
    return NULL;
}

/* ---- reading --------------------------------------------------------------
 */

static void
set_now(void *self, int64_t now_unix_ms)
{
    (void)self;
    (void)now_unix_ms;
}

static enum rc
invitation(void *self, const char *code, struct invitation *out, bool *found)
{
    struct memory_store *s = self;
    enum rc rc = begin(s, "invitation");
    *found = false;
    for (size_t k = 0; rc == RC_OK && k < s->memory->invitation_count; k++) {
        if (same(s->memory->invitations[k].code, code)) {
            *out = s->memory->invitations[k];
            *found = true;
        }
    }
    return rc;
}

static enum rc
invitations(void *self, const char *after, size_t max, struct invitation *out,
            size_t *count)
{
    struct memory_store *s = self;
    enum rc rc = begin(s, "invitations");
    *count = 0;
    /* They are made in order of their codes. */
    for (size_t k = 0; rc == RC_OK && k < s->memory->invitation_count; k++) {
        const struct invitation *one = &s->memory->invitations[k];
        if (strcmp(one->code, after) > 0 && *count < max) {
            out[(*count)++] = *one;
        }
    }
    return rc;
}

static enum rc
refused(void *self, const char *const *keys, size_t count, bool *stands)
{
    struct memory_store *s = self;
    enum rc rc = begin(s, "refused");
    for (size_t k = 0; k < count; k++) {
        stands[k] = false;
        for (size_t j = 0; rc == RC_OK && j < s->memory->refused_count; j++) {
            stands[k] = stands[k] || same(s->memory->refused[j].key, keys[k]);
        }
    }
    return rc;
}

static enum rc
registered(void *self, const char *const *keys, size_t count,
           struct registration *out)
{
    struct memory_store *s = self;
    enum rc rc = begin(s, "registered");
    memset(out, 0, count * sizeof(*out));
    for (size_t k = 0; rc == RC_OK && k < count; k++) {
        const struct person *person = registered_person(s->memory, keys[k]);
        if (person != NULL) {
            out[k].found = true;
            out[k].slot = memory_slot(s->memory, keys[k]);
            memcpy(out[k].code, person->code, sizeof(out[k].code));
            memcpy(out[k].request_id, person->request_id, UUID_TEXT_BYTES);
        }
    }
    return rc;
}

static enum rc
slots(void *self, const char *code, bool *taken)
{
    struct memory_store *s = self;
    enum rc rc = begin(s, "slots");
    s->memory->slot_reads++;
    for (size_t k = 0; rc == RC_OK && k < s->memory->registered_count; k++) {
        if (same(s->memory->registered[k].code, code)) {
            taken[s->memory->slots[k]] = true;
        }
    }
    return rc;
}

static enum rc
anyone_waits(void *self, const char *code, bool *waits)
{
    struct memory_store *s = self;
    enum rc rc = begin(s, "anyone_waits");
    *waits = false;
    for (size_t k = 0; rc == RC_OK && k < s->memory->waiting_count; k++) {
        *waits = *waits || same(s->memory->waiting[k].code, code);
    }
    return rc;
}

static bool
comes_before(const struct person *a, const struct person *b)
{
    if (a->received_unix_ms != b->received_unix_ms) {
        return a->received_unix_ms < b->received_unix_ms;
    }
    return a->node != b->node ? a->node < b->node : a->seq < b->seq;
}

static enum rc
head(void *self, const char *code, size_t max, struct person *out,
     size_t *count)
{
    struct memory_store *s = self;
    enum rc rc = begin(s, "head");
    const struct person *last = NULL;
    *count = 0;
    while (rc == RC_OK && *count < max) {
        const struct person *next = NULL;
        for (size_t k = 0; k < s->memory->waiting_count; k++) {
            const struct person *one = &s->memory->waiting[k];
            if (same(one->code, code) &&
                (last == NULL || comes_before(last, one)) &&
                (next == NULL || comes_before(one, next))) {
                next = one;
            }
        }
        if (next == NULL) {
            break;
        }
        out[*count] = *next;
        last = &out[*count];
        (*count)++;
    }
    return rc;
}

static enum rc
waiting(void *self, const char *code, const char *const *keys, size_t count,
        char (*request_ids)[UUID_TEXT_BYTES])
{
    struct memory_store *s = self;
    enum rc rc = begin(s, "waiting");
    for (size_t k = 0; k < count; k++) {
        const struct person *person = waiting_person(s->memory, code, keys[k]);
        snprintf(request_ids[k], UUID_TEXT_BYTES, "%s",
                 person == NULL ? "" : person->request_id);
    }
    return rc;
}

/* ---- inserting ------------------------------------------------------------
 */

static enum rc
add_registrations(void *self, const struct person *const *people,
                  const int32_t *wanted, size_t count,
                  struct place_result *results)
{
    struct memory_store *s = self;
    bool stopped = false;
    for (size_t k = 0; k < count; k++) {
        results[k] = (struct place_result){.fate = PLACE_NOT_TRIED};
        if (stopped) {
            continue;
        }
        enum rc rc = begin(s, "add_registrations");
        if (rc != RC_OK) {
            return rc;
        }
        bool bad = s->poison != NULL && same(s->poison, people[k]->address.key);
        bool done = !bad && memory_register(s->memory, people[k], wanted[k]);
        results[k].fate = bad    ? PLACE_POISON
                          : done ? PLACE_INSERTED
                                 : PLACE_DUPLICATE;
        snprintf(results[k].why, PLACES_WHY_BYTES, "%s", bad ? "bad" : "");
        stopped = !done;
    }
    return end(s, "add_registrations");
}

static enum rc
add_waiting(void *self, const struct person *const *people, size_t count,
            struct place_result *results)
{
    struct memory_store *s = self;
    struct memory *m = s->memory;
    for (size_t k = 0; k < count; k++) {
        enum rc rc = begin(s, "add_waiting");
        if (rc != RC_OK) {
            return rc;
        }
        bool there =
            waiting_person(m, people[k]->code, people[k]->address.key) != NULL;
        results[k] = (struct place_result){.fate = there ? PLACE_DUPLICATE
                                                         : PLACE_INSERTED};
        if (!there) {
            assert_true(m->waiting_count < MEMORY_MAX);
            m->waiting[m->waiting_count++] = *people[k];
        }
    }
    return end(s, "add_waiting");
}

static enum rc
add_mails(void *self, const struct person *const *people,
          const enum place_mail *kinds, size_t count,
          struct place_result *results)
{
    struct memory_store *s = self;
    struct memory *m = s->memory;
    for (size_t k = 0; k < count; k++) {
        enum rc rc = begin(s, "add_mails");
        bool there = false;
        if (rc != RC_OK) {
            return rc;
        }
        for (size_t j = 0; j < m->mail_count; j++) {
            there = there || (same(m->mails[j].key, people[k]->address.key) &&
                              same(m->mails[j].code, people[k]->code) &&
                              m->mails[j].kind == kinds[k]);
        }
        results[k] = (struct place_result){.fate = there ? PLACE_DUPLICATE
                                                         : PLACE_INSERTED};
        if (!there) {
            struct memory_mail *mail = &m->mails[m->mail_count++];
            assert_true(m->mail_count < MEMORY_MAX);
            memcpy(mail->key, people[k]->address.key, ADDRESS_BYTES);
            memcpy(mail->code, people[k]->code, INVITATION_CODE_BYTES);
            memcpy(mail->request_id, people[k]->request_id, UUID_TEXT_BYTES);
            mail->kind = kinds[k];
        }
    }
    return end(s, "add_mails");
}

/* ---- deleting -------------------------------------------------------------
 */

static enum rc
remove_registration(void *self, const char *key, const char *request_id)
{
    struct memory_store *s = self;
    struct memory *m = s->memory;
    enum rc rc = begin(s, "remove_registration");
    for (size_t k = 0; rc == RC_OK && k < m->registered_count; k++) {
        if (same(m->registered[k].address.key, key) &&
            (request_id == NULL ||
             same(m->registered[k].request_id, request_id))) {
            m->registered_count--;
            m->registered[k] = m->registered[m->registered_count];
            m->slots[k] = m->slots[m->registered_count];
            break;
        }
    }
    return rc == RC_OK ? end(s, "remove_registration") : rc;
}

static enum rc
remove_waiting(void *self, const char *key, const char *code)
{
    struct memory_store *s = self;
    struct memory *m = s->memory;
    enum rc rc = begin(s, "remove_waiting");
    size_t kept = 0;
    for (size_t k = 0; rc == RC_OK && k < m->waiting_count; k++) {
        if (!same(m->waiting[k].address.key, key) ||
            (code != NULL && !same(m->waiting[k].code, code))) {
            m->waiting[kept++] = m->waiting[k];
        }
    }
    if (rc == RC_OK) {
        m->waiting_count = kept;
        rc = end(s, "remove_waiting");
    }
    return rc;
}

static enum rc
unfreed(void *self, size_t max, struct refusal *out, size_t *count)
{
    struct memory_store *s = self;
    enum rc rc = begin(s, "unfreed");
    *count = 0;
    for (size_t k = 0; rc == RC_OK && k < s->memory->refused_count; k++) {
        if (!s->memory->refused[k].freed && *count < max) {
            memcpy(out[*count].key, s->memory->refused[k].key, ADDRESS_BYTES);
            (*count)++;
        }
    }
    return rc;
}

static enum rc
set_freed(void *self, const char *key)
{
    struct memory_store *s = self;
    enum rc rc = begin(s, "set_freed");
    for (size_t k = 0; rc == RC_OK && k < s->memory->refused_count; k++) {
        if (same(s->memory->refused[k].key, key)) {
            s->memory->refused[k].freed = true;
        }
    }
    return rc == RC_OK ? end(s, "set_freed") : rc;
}

static const char *
error(const void *self)
{
    (void)self;
    return "told to fail";
}

static void
free_store(void **self)
{
    *self = NULL;
}

const struct places_ops memory_ops = {
    .set_now = set_now,
    .invitation = invitation,
    .invitations = invitations,
    .refused = refused,
    .registered = registered,
    .slots = slots,
    .anyone_waits = anyone_waits,
    .head = head,
    .waiting = waiting,
    .add_registrations = add_registrations,
    .add_waiting = add_waiting,
    .add_mails = add_mails,
    .remove_registration = remove_registration,
    .remove_waiting = remove_waiting,
    .unfreed = unfreed,
    .set_freed = set_freed,
    .error = error,
    .free = free_store,
};

/* ---- the test's own -------------------------------------------------------
 */

void
memory_invite(struct memory *m, const char *code, int32_t limit)
{
    struct invitation *one = &m->invitations[m->invitation_count++];
    assert_true(m->invitation_count <= 8);
    snprintf(one->code, sizeof(one->code), "%s", code);
    one->limit = limit;
}

void
memory_refuse(struct memory *m, const char *key)
{
    for (size_t k = 0; k < m->refused_count; k++) {
        if (same(m->refused[k].key, key)) {
            return;
        }
    }
    struct memory_refused *one = &m->refused[m->refused_count++];
    snprintf(one->key, sizeof(one->key), "%s", key);
    one->freed = false;
}

bool
memory_register(struct memory *m, const struct person *person, int32_t slot)
{
    for (size_t k = 0; k < m->registered_count; k++) {
        if (same(m->registered[k].address.key, person->address.key) ||
            (same(m->registered[k].code, person->code) &&
             m->slots[k] == slot)) {
            return false;
        }
    }
    assert_true(m->registered_count < MEMORY_MAX);
    m->registered[m->registered_count] = *person;
    m->slots[m->registered_count] = slot;
    m->registered_count++;
    return true;
}

int32_t
memory_slot(const struct memory *m, const char *key)
{
    for (size_t k = 0; k < m->registered_count; k++) {
        if (same(m->registered[k].address.key, key)) {
            return m->slots[k];
        }
    }
    return 0;
}

bool
memory_waits(const struct memory *m, const char *code, const char *key)
{
    return waiting_person(m, code, key) != NULL;
}

size_t
memory_mails(const struct memory *m, const char *key, enum place_mail kind)
{
    size_t count = 0;
    for (size_t k = 0; k < m->mail_count; k++) {
        count += same(m->mails[k].key, key) && m->mails[k].kind == kind;
    }
    return count;
}
