/* The order of the steps is what makes it safe: a registration is inserted
 * before `refused` is read again, for whoever refuses inserts there before
 * deleting the registration; and mails come last, for a crash before them is
 * mended by the repeat. */
#include "dispatcher/allocator_turn.h"

#include <stdio.h>
#include <string.h>

/* Slots lost one after another in one turn: far above what others can take. */
#define PLANS_MAX (2 * PLACES_LIMIT_MAX)

/* Those of a turn that are still to be decided about. */
struct open {
    size_t index[PLACES_MAX];
    const struct person *people[PLACES_MAX];
    const char *keys[PLACES_MAX];
    size_t count;
};

static void
add_open(struct open *open, const struct turn *t, size_t index)
{
    open->index[open->count] = index;
    open->people[open->count] = t->people[index];
    open->keys[open->count] = t->people[index]->address.key;
    open->count++;
}

static void
find_open(const struct turn *t, struct open *open)
{
    open->count = 0;
    for (size_t k = 0; k < t->count; k++) {
        if (t->outcomes[k]->what == ALLOCATOR_UNDECIDED) {
            add_open(open, t, k);
        }
    }
}

static void
set_poison(struct turn *t, size_t index, const char *why)
{
    t->outcomes[index]->what = ALLOCATOR_POISON;
    snprintf(t->outcomes[index]->why, PLACES_WHY_BYTES, "%s", why);
}

/* Refuse those of open who stand in `refused`. A place may have been given
 * just now, or by a turn that a crash ended before it looked. */
static enum rc
refuse(struct turn *t, const struct open *open)
{
    const struct places *places = t->places;
    bool stands[PLACES_MAX] = {false};
    if (open->count == 0) {
        return RC_OK;
    }
    enum rc rc =
        places->ops->refused(places->self, open->keys, open->count, stands);
    for (size_t k = 0; rc == RC_OK && k < open->count; k++) {
        if (stands[k]) {
            rc = places->ops->remove_registration(places->self, open->keys[k],
                                                  open->people[k]->request_id);
            t->outcomes[open->index[k]]->what = ALLOCATOR_REFUSED;
            t->outcomes[open->index[k]]->slot = 0;
            t->slots->known = false;
        }
    }
    return rc;
}

enum rc
turn_refuse(struct turn *t)
{
    struct open open;
    find_open(t, &open);
    return refuse(t, &open);
}

static enum rc
find_registered(struct turn *t, const struct open *open)
{
    struct registration found[PLACES_MAX];
    if (open->count == 0) {
        return RC_OK;
    }
    enum rc rc = t->places->ops->registered(t->places->self, open->keys,
                                            open->count, found);
    for (size_t k = 0; rc == RC_OK && k < open->count; k++) {
        struct allocator_outcome *outcome = t->outcomes[open->index[k]];
        if (!found[k].found) {
            continue;
        }
        outcome->what = ALLOCATOR_REPEATED;
        if (strcmp(found[k].request_id, open->people[k]->request_id) == 0) {
            outcome->what = ALLOCATOR_PLACE;
            outcome->slot = found[k].slot;
        }
    }
    return rc;
}

enum rc
turn_find_registered(struct turn *t)
{
    struct open open;
    find_open(t, &open);
    return find_registered(t, &open);
}

void
turn_drop_repeats(struct turn *t)
{
    struct open open;
    find_open(t, &open);
    for (size_t k = 1; k < open.count; k++) {
        bool repeated = false;
        for (size_t j = 0; !repeated && j < k; j++) {
            repeated = strcmp(open.keys[j], open.keys[k]) == 0;
        }
        if (repeated) {
            t->outcomes[open.index[k]]->what = ALLOCATOR_REPEATED;
        }
    }
}

/* ---- places ---------------------------------------------------------------
 */

static enum rc
read_slots(struct turn *t)
{
    struct slots *slots = t->slots;
    memset(slots->taken, 0, sizeof(slots->taken));
    enum rc rc = t->places->ops->slots(t->places->self, t->invitation->code,
                                       slots->taken);
    slots->known = rc == RC_OK;
    slots->fresh = rc == RC_OK;
    return rc;
}

int32_t
slots_left(const struct slots *slots, int32_t limit)
{
    int32_t left = limit;
    for (int32_t s = 1; s <= PLACES_LIMIT_MAX; s++) {
        left -= slots->taken[s];
    }
    return left > 0 ? left : 0;
}

/* The first free slots, at most max of them. */
static size_t
plan(const struct turn *t, int32_t *slots, size_t max)
{
    size_t count = 0;
    size_t left = (size_t)slots_left(t->slots, t->invitation->limit);
    max = max < left ? max : left;
    for (int32_t s = 1; s <= t->invitation->limit && count < max; s++) {
        if (!t->slots->taken[s]) {
            slots[count++] = s;
        }
    }
    return count;
}

/* Whose key was it? Where one address has asked before, others may have, so
 * all are looked up then. Else the slot is another dispatcher's. */
static enum rc
explain_duplicate(struct turn *t, size_t index)
{
    struct open one = {.count = 0};
    add_open(&one, t, index);
    enum rc rc = find_registered(t, &one);
    if (rc == RC_OK && t->outcomes[index]->what != ALLOCATOR_UNDECIDED) {
        return turn_find_registered(t);
    }
    t->slots->known = false;
    t->lost++;
    return rc;
}

/* Go on behind what the store says of a plan. */
static enum rc
take_results(struct turn *t, const struct open *open, const int32_t *slots,
             const struct place_result *results, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        size_t index = open->index[k];
        switch (results[k].fate) {
        case PLACE_INSERTED:
            t->outcomes[index]->what = ALLOCATOR_PLACE;
            t->outcomes[index]->slot = slots[k];
            t->inserted[index] = true;
            t->slots->taken[slots[k]] = true;
            break;
        case PLACE_POISON:
            set_poison(t, index, results[k].why);
            break;
        case PLACE_DUPLICATE:
            return explain_duplicate(t, index);
        case PLACE_NOT_TRIED:
            return RC_OK;
        }
    }
    return RC_OK;
}

/* One plan. *done: there is no one or nothing left to give. */
static enum rc
give_once(struct turn *t, bool *done)
{
    struct open open;
    int32_t slots[PLACES_MAX];
    struct place_result results[PLACES_MAX];
    enum rc rc = RC_OK;
    find_open(t, &open);
    if (open.count == 0) {
        *done = true;
        return RC_OK;
    }
    if (!t->slots->known) {
        rc = read_slots(t);
    }
    size_t count = plan(t, slots, open.count);
    if (rc == RC_OK && count == 0 && !t->slots->fresh) {
        rc = read_slots(t); /* some may have come free */
        count = plan(t, slots, open.count);
    }
    *done = count == 0;
    if (rc == RC_OK && count > 0) {
        rc = t->places->ops->add_registrations(t->places->self, open.people,
                                               slots, count, results);
        if (rc == RC_OK) {
            rc = take_results(t, &open, slots, results, count);
        }
    }
    return rc;
}

enum rc
turn_give_places(struct turn *t)
{
    struct open given = {.count = 0};
    bool done = false;
    enum rc rc = RC_OK;
    for (int plans = 0; rc == RC_OK && !done; plans++) {
        rc = plans < PLANS_MAX ? give_once(t, &done) : RC_IO;
    }
    for (size_t k = 0; k < t->count; k++) {
        if (t->inserted[k]) {
            add_open(&given, t, k);
        }
    }
    return rc == RC_OK ? refuse(t, &given) : rc;
}

/* ---- the waitlist ---------------------------------------------------------
 */

/* Those who stand in the waitlist already: by this very request? One who has
 * left it in between has got a place, or is refused. */
static enum rc
tell_waiting(struct turn *t, const struct open *twice)
{
    const struct places *places = t->places;
    char request_ids[PLACES_MAX][UUID_TEXT_BYTES];
    bool gone = false;
    if (twice->count == 0) {
        return RC_OK;
    }
    enum rc rc = places->ops->waiting(places->self, t->invitation->code,
                                      twice->keys, twice->count, request_ids);
    for (size_t k = 0; rc == RC_OK && k < twice->count; k++) {
        bool mine = strcmp(request_ids[k], twice->people[k]->request_id) == 0;
        if (request_ids[k][0] == '\0') {
            gone = true;
        } else {
            t->outcomes[twice->index[k]]->what =
                mine ? ALLOCATOR_WAITING : ALLOCATOR_REPEATED;
        }
    }
    if (rc == RC_OK && gone) {
        rc = turn_find_registered(t);
    }
    for (size_t k = 0; rc == RC_OK && k < twice->count; k++) {
        if (t->outcomes[twice->index[k]]->what == ALLOCATOR_UNDECIDED) {
            t->outcomes[twice->index[k]]->what = ALLOCATOR_REPEATED;
        }
    }
    return rc;
}

enum rc
turn_wait(struct turn *t)
{
    struct open open;
    struct open twice = {.count = 0};
    struct place_result results[PLACES_MAX];
    enum rc rc = turn_find_registered(t);
    find_open(t, &open);
    if (rc == RC_OK && open.count > 0) {
        rc = t->places->ops->add_waiting(t->places->self, open.people,
                                         open.count, results);
    }
    for (size_t k = 0; rc == RC_OK && k < open.count; k++) {
        switch (results[k].fate) {
        case PLACE_INSERTED:
            t->outcomes[open.index[k]]->what = ALLOCATOR_WAITING;
            break;
        case PLACE_POISON:
            set_poison(t, open.index[k], results[k].why);
            break;
        case PLACE_DUPLICATE:
            add_open(&twice, t, open.index[k]);
            break;
        case PLACE_NOT_TRIED: /* not without an error of the whole */
            rc = RC_IO;
            break;
        }
    }
    return rc == RC_OK ? tell_waiting(t, &twice) : rc;
}

/* ---- mails ----------------------------------------------------------------
 */

static enum place_mail
mail_of(enum allocator_what what)
{
    switch (what) {
    case ALLOCATOR_PLACE:
        return PLACE_MAIL_WELCOME;
    case ALLOCATOR_WAITING:
        return PLACE_MAIL_APOLOGY;
    case ALLOCATOR_UNKNOWN:
        return PLACE_MAIL_UNKNOWN;
    case ALLOCATOR_UNDECIDED:
    case ALLOCATOR_REPEATED:
    case ALLOCATOR_REFUSED:
    case ALLOCATOR_POISON:
        break;
    }
    return PLACE_MAIL_NONE;
}

enum rc
turn_mail(struct turn *t)
{
    struct open open = {.count = 0};
    enum place_mail kinds[PLACES_MAX];
    struct place_result results[PLACES_MAX];
    for (size_t k = 0; k < t->count; k++) {
        enum place_mail kind = mail_of(t->outcomes[k]->what);
        if (kind != PLACE_MAIL_NONE) {
            kinds[open.count] = kind;
            add_open(&open, t, k);
        }
    }
    if (open.count == 0) {
        return RC_OK;
    }
    enum rc rc = t->places->ops->add_mails(t->places->self, open.people, kinds,
                                           open.count, results);
    for (size_t k = 0; rc == RC_OK && k < open.count; k++) {
        if (results[k].fate == PLACE_POISON) {
            set_poison(t, open.index[k], results[k].why);
        }
    }
    return rc;
}
