/* The documents of places.h in memory, for tests: several stores over one
 * state, each with a hook before and after every operation, in which the test
 * lets others change the state, or ends the operation with RC_IO. */
#ifndef SLUICE_TESTS_PLACES_FIXTURE_H
#define SLUICE_TESTS_PLACES_FIXTURE_H

#include "dispatcher/places.h"

#define MEMORY_MAX 2000 /* documents of a kind */

struct memory_mail {
    char key[ADDRESS_BYTES];
    char code[INVITATION_CODE_BYTES];
    char request_id[UUID_TEXT_BYTES];
    enum place_mail kind;
};

struct memory_refused {
    char key[ADDRESS_BYTES];
    bool freed;
};

/* What all stores share. Big: not for the stack. */
struct memory {
    struct invitation invitations[8];
    size_t invitation_count;
    struct person registered[MEMORY_MAX];
    int32_t slots[MEMORY_MAX]; /* of the registrations */
    size_t registered_count;
    struct person waiting[MEMORY_MAX];
    size_t waiting_count;
    struct memory_refused refused[MEMORY_MAX];
    size_t refused_count;
    struct memory_mail mails[MEMORY_MAX];
    size_t mail_count;
    size_t slot_reads; /* how often a code's slots were read */
};

/* One dispatcher's view of it. */
struct memory_store {
    struct memory *memory;
    const char *poison; /* a key whose registration is refused; NULL: none */
    /* RC_OK: go on. RC_IO: the operation fails, undone when it came before,
     * done when after. Of an ordered insert, `before` is asked for each
     * document. NULL: nothing. */
    enum rc (*before)(void *arg, const char *operation);
    enum rc (*after)(void *arg, const char *operation);
    void *arg;
};

/* A store's operations; self is the struct memory_store. */
extern const struct places_ops memory_ops;

void memory_invite(struct memory *m, const char *code, int32_t limit);
void memory_refuse(struct memory *m, const char *key);
/* As another dispatcher would; false: a unique key denies it. */
bool memory_register(struct memory *m, const struct person *person,
                     int32_t slot);
/* The slot of this key's registration; 0: none. */
int32_t memory_slot(const struct memory *m, const char *key);
bool memory_waits(const struct memory *m, const char *code, const char *key);
size_t memory_mails(const struct memory *m, const char *key,
                    enum place_mail kind);

#endif
