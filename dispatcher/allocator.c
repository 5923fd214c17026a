/* People are served in turns of at most PLACES_MAX of one code. In a rush
 * nothing is read of the slots but once: the plan is kept from turn to turn,
 * and the store's refusal of a slot says when it is out of date. */
#include "dispatcher/allocator.h"

#include <stdlib.h>
#include <string.h>

#include "dispatcher/allocator_turn.h"
#include "shared/log.h"

#define KEPT_CODES 32 /* plans kept, 36 KiB */
/* Of one kind in a sweep: they leave one by one, and newcomers wait for it. */
#define SWEEP_MAX 100
/* A sweep that broke off, here or in another dispatcher, may leave people with
 * a place on the waitlist, without their welcome, and the last place gone. So a
 * thorough round looks at the head of each waitlist even where no place is
 * free: the first, one after a failure, and each of this number. */
#define THOROUGH_ROUNDS 60

struct allocator {
    const struct places *places;
    struct slots kept[KEPT_CODES];
    size_t next_kept;                  /* to be overwritten */
    char swept[INVITATION_CODE_BYTES]; /* code that the round has come to */
    unsigned rounds;                   /* since the last thorough one */
    bool thorough;                     /* is this round one? */
    bool failed;                       /* did a sweep of this round? */
    size_t lost;                       /* and not told of yet */
};

const char *
allocator_what_name(enum allocator_what what)
{
    switch (what) {
    case ALLOCATOR_UNDECIDED:
        break;
    case ALLOCATOR_PLACE:
        return "place";
    case ALLOCATOR_WAITING:
        return "waiting";
    case ALLOCATOR_REPEATED:
        return "repeated";
    case ALLOCATOR_REFUSED:
        return "refused";
    case ALLOCATOR_UNKNOWN:
        return "unknown";
    case ALLOCATOR_POISON:
        return "poison";
    }
    return "undecided";
}

enum rc
allocator_new(struct allocator **out, const struct places *places)
{
    *out = calloc(1, sizeof(**out));
    if (*out == NULL) {
        return RC_NOMEM;
    }
    (*out)->places = places;
    (*out)->thorough = true;
    return RC_OK;
}

void
allocator_free(struct allocator **a)
{
    free(*a);
    *a = NULL;
}

size_t
allocator_lost(struct allocator *a)
{
    size_t lost = a->lost;
    a->lost = 0;
    return lost;
}

static struct slots *
slots_of(struct allocator *a, const char *code)
{
    struct slots *slots = NULL;
    for (size_t k = 0; slots == NULL && k < KEPT_CODES; k++) {
        if (strcmp(a->kept[k].code, code) == 0) {
            slots = &a->kept[k];
        }
    }
    if (slots == NULL) {
        slots = &a->kept[a->next_kept];
        a->next_kept = (a->next_kept + 1) % KEPT_CODES;
        slots->known = false;
        slots->waits = false;
        memcpy(slots->code, code, strlen(code) + 1);
    }
    slots->fresh = false;
    return slots;
}

/* ---- serving --------------------------------------------------------------
 */

/* All who ask for one code. */
struct group {
    const struct person *people;
    struct allocator_outcome *outcomes;
    size_t count;
    size_t next; /* the first who has not been in a turn */
    bool found;  /* is there such an invitation? */
    bool full;   /* somebody waits: newcomers go to the end */
    struct invitation invitation;
};

/* The next of the group's code: fill the turn. */
static void
gather(struct group *g, const char *code, struct turn *t)
{
    t->count = 0;
    memset(t->inserted, 0, sizeof(t->inserted));
    while (g->next < g->count && t->count < PLACES_MAX) {
        const struct person *person = &g->people[g->next];
        struct allocator_outcome *outcome = &g->outcomes[g->next];
        if (strcmp(person->code, code) == 0) {
            t->people[t->count] = person;
            t->outcomes[t->count] = outcome;
            t->count++;
        }
        g->next++;
    }
}

/* Of those who come late some may have their place from before: served again,
 * when we were killed before their mail, and the time was moved meanwhile. */
static enum rc
mark_unknown(const struct group *g, struct turn *t)
{
    bool late[PLACES_MAX] = {false};
    bool anyone_late = false;
    enum rc rc = RC_OK;
    for (size_t k = 0; k < t->count; k++) {
        int64_t expires_unix_ms = g->invitation.expires_unix_ms;
        late[k] =
            !g->found || (expires_unix_ms != 0 &&
                          t->people[k]->received_unix_ms >= expires_unix_ms);
        anyone_late = anyone_late || late[k];
    }
    if (g->found && anyone_late) {
        rc = turn_find_registered(t);
    }
    for (size_t k = 0; rc == RC_OK && k < t->count; k++) {
        if (late[k] && t->outcomes[k]->what != ALLOCATOR_PLACE) {
            t->outcomes[k]->what = ALLOCATOR_UNKNOWN;
        }
    }
    return rc;
}

static bool
anyone_is(const struct turn *t, enum allocator_what what)
{
    for (size_t k = 0; k < t->count; k++) {
        if (t->outcomes[k]->what == what) {
            return true;
        }
    }
    return false;
}

static enum rc
serve_turn(struct group *g, struct turn *t)
{
    enum rc rc = mark_unknown(g, t);
    rc = rc == RC_OK ? turn_refuse(t) : rc;
    turn_drop_repeats(t);
    if (rc == RC_OK && !g->full) {
        rc = turn_give_places(t);
    }
    if (rc == RC_OK && anyone_is(t, ALLOCATOR_UNDECIDED)) {
        rc = turn_wait(t);
        g->full = g->full || anyone_is(t, ALLOCATOR_WAITING);
    }
    return rc;
}

/* Serve all of the code that people[first] asks for. Whether somebody waits
 * takes FerretDB the longer the more they are, so it is not asked again before
 * the next sweep: should the last of them have left since, newcomers wait for
 * that, in order. */
static enum rc
serve_code(struct allocator *a, struct group *g, size_t first)
{
    const char *code = g->people[first].code;
    const struct places *places = a->places;
    struct turn turn = {.places = places, .invitation = &g->invitation};
    enum rc rc =
        places->ops->invitation(places->self, code, &g->invitation, &g->found);
    turn.slots = slots_of(a, code);
    g->full = turn.slots->waits;
    if (rc == RC_OK && g->found && !g->full) {
        rc = places->ops->anyone_waits(places->self, code, &g->full);
    }
    g->next = first;
    while (rc == RC_OK && g->next < g->count) {
        gather(g, code, &turn);
        if (turn.count > 0) {
            rc = serve_turn(g, &turn);
        }
    }
    a->lost += turn.lost;
    turn.slots->waits = rc == RC_OK && g->full;
    return rc;
}

/* Has the address of people[k] asked before, but not for this code? */
static bool
asks_for_another(const struct person *people, size_t k)
{
    bool has_asked = false;
    for (size_t j = 0; j < k; j++) {
        if (strcmp(people[j].address.key, people[k].address.key) == 0) {
            if (strcmp(people[j].code, people[k].code) == 0) {
                return false;
            }
            has_asked = true;
        }
    }
    return has_asked;
}

/* Where those end who can be served together with people[first], one code
 * after another: of an address that asks for two, the first one counts. */
static size_t
end_of_stretch(const struct person *people, size_t first, size_t count)
{
    size_t end = first + 1;
    while (end < count && !asks_for_another(people, end)) {
        end++;
    }
    return end;
}

enum rc
allocator_serve(struct allocator *a, int64_t now_unix_ms,
                const struct person *people, size_t count,
                struct allocator_outcome *outcomes)
{
    enum rc rc = RC_OK;
    size_t end = 0;
    a->places->ops->set_now(a->places->self, now_unix_ms);
    memset(outcomes, 0, count * sizeof(*outcomes));
    for (size_t k = 0; rc == RC_OK && k < count; k++) {
        if (k == end) {
            end = end_of_stretch(people, k, count);
        }
        if (outcomes[k].what == ALLOCATOR_UNDECIDED) {
            struct group group = {
                .people = people, .outcomes = outcomes, .count = end};
            rc = serve_code(a, &group, k);
        }
    }
    return rc;
}

enum rc
allocator_mail(struct allocator *a, int64_t now_unix_ms,
               const struct person *people, size_t count,
               struct allocator_outcome *outcomes)
{
    struct turn turn = {.places = a->places};
    enum rc rc = RC_OK;
    a->places->ops->set_now(a->places->self, now_unix_ms);
    /* Together, whatever their codes: whoever makes up a code for each request
     * is not to hold up the others by a write for each. */
    for (size_t k = 0; rc == RC_OK && k < count;) {
        for (turn.count = 0; k < count && turn.count < PLACES_MAX; k++) {
            turn.people[turn.count] = &people[k];
            turn.outcomes[turn.count++] = &outcomes[k];
        }
        rc = turn_mail(&turn);
    }
    return rc;
}

/* ---- sweeping -------------------------------------------------------------
 */

/* Repeatable: freed is set last. */
static enum rc
free_refused(struct allocator *a, struct allocator_swept *out)
{
    const struct places *places = a->places;
    struct refusal refusals[SWEEP_MAX];
    size_t count = 0;
    enum rc rc =
        places->ops->unfreed(places->self, SWEEP_MAX, refusals, &count);
    for (size_t k = 0; rc == RC_OK && k < count; k++) {
        const char *key = refusals[k].key;
        rc = places->ops->remove_registration(places->self, key, NULL);
        if (rc == RC_OK) {
            rc = places->ops->remove_waiting(places->self, key, NULL);
        }
        if (rc == RC_OK) {
            rc = places->ops->set_freed(places->self, key);
        }
        out->freed += rc == RC_OK;
    }
    out->more = out->more || count == SWEEP_MAX;
    return rc;
}

/* The entry in the waitlist goes last: until then all of it can be repeated. */
static enum rc
leave_waitlist(struct turn *t, struct allocator_swept *out)
{
    const struct places *places = t->places;
    enum rc rc = RC_OK;
    for (size_t k = 0; rc == RC_OK && k < t->count; k++) {
        enum allocator_what what = t->outcomes[k]->what;
        if (what == ALLOCATOR_UNDECIDED) {
            continue; /* no slot was left */
        }
        rc = places->ops->remove_waiting(
            places->self, t->people[k]->address.key, t->invitation->code);
        out->moved += rc == RC_OK && what == ALLOCATOR_PLACE;
        out->left += rc == RC_OK && what != ALLOCATOR_PLACE;
        if (rc == RC_OK && what == ALLOCATOR_POISON) {
            /* Why may quote the address. */
            log_event(LOG_ERROR, "invitation_refused_by_store",
                      "code=%s id=%s hint=\"has left the waitlist\"",
                      t->invitation->code, t->people[k]->request_id);
        }
    }
    return rc;
}

/* Serve those who wait longest, as many as there are slots. */
static enum rc
move_up(struct turn *t, struct person *head, size_t max,
        struct allocator_swept *out)
{
    struct allocator_outcome outcomes[PLACES_MAX];
    memset(outcomes, 0, sizeof(outcomes));
    enum rc rc = t->places->ops->head(t->places->self, t->invitation->code, max,
                                      head, &t->count);
    for (size_t k = 0; k < t->count; k++) {
        t->people[k] = &head[k];
        t->outcomes[k] = &outcomes[k];
    }
    rc = rc == RC_OK ? turn_refuse(t) : rc;
    rc = rc == RC_OK ? turn_find_registered(t) : rc;
    rc = rc == RC_OK ? turn_give_places(t) : rc;
    rc = rc == RC_OK ? turn_mail(t) : rc;
    rc = rc == RC_OK ? leave_waitlist(t, out) : rc;
    out->more =
        out->more || (t->count == max && !anyone_is(t, ALLOCATOR_UNDECIDED));
    return rc;
}

static enum rc
sweep_code(struct allocator *a, const struct invitation *invitation,
           struct allocator_swept *out)
{
    const struct places *places = a->places;
    struct slots *slots = slots_of(a, invitation->code);
    struct turn turn = {
        .places = places, .invitation = invitation, .slots = slots};
    bool waits = false;
    size_t available = 0;
    slots->known = false; /* some may have come free */
    enum rc rc =
        places->ops->anyone_waits(places->self, invitation->code, &waits);
    if (rc != RC_OK) {
        return rc;
    }
    slots->waits = false;
    if (!waits) {
        return RC_OK;
    }
    memset(slots->taken, 0, sizeof(slots->taken));
    rc = places->ops->slots(places->self, invitation->code, slots->taken);
    slots->known = rc == RC_OK;
    slots->fresh = rc == RC_OK;
    available = (size_t)slots_left(slots, invitation->limit);
    if (rc == RC_OK && (available > 0 || a->thorough)) {
        bool some = !a->thorough && available < SWEEP_MAX;
        struct person *head = calloc(SWEEP_MAX, sizeof(*head));
        rc = head == NULL
                 ? RC_NOMEM
                 : move_up(&turn, head, some ? available : SWEEP_MAX, out);
        free(head);
        a->lost += turn.lost;
    } else {
        slots->waits = rc == RC_OK;
    }
    return rc;
}

/* On to the next codes, or to a new round. */
static void
end_sweep(struct allocator *a, enum rc rc, bool further,
          struct allocator_swept *out)
{
    a->failed = a->failed || rc != RC_OK;
    if (rc == RC_OK && further) {
        out->more = true;
    } else if (rc == RC_OK) {
        a->swept[0] = '\0';
        a->rounds = a->thorough ? 0 : a->rounds + 1;
        a->thorough = a->failed || a->rounds + 1 >= THOROUGH_ROUNDS;
        out->more = out->more || a->failed;
        a->failed = false;
    }
}

/* Nobody moves up for a code that has expired, but who did before it had still
 * gets the welcome, in a thorough round. */
static enum rc
sweep_one(struct allocator *a, int64_t now_unix_ms,
          struct invitation *invitation, struct allocator_swept *out)
{
    int64_t expires_unix_ms = invitation->expires_unix_ms;
    bool expired = expires_unix_ms != 0 && expires_unix_ms <= now_unix_ms;
    if (expired && !a->thorough) {
        return RC_OK;
    }
    if (expired) {
        invitation->limit = 0;
    }
    return sweep_code(a, invitation, out);
}

enum rc
allocator_sweep(struct allocator *a, int64_t now_unix_ms,
                struct allocator_swept *out)
{
    const struct places *places = a->places;
    struct invitation page[ALLOCATOR_SWEEP_CODES];
    size_t count = 0;
    memset(out, 0, sizeof(*out));
    places->ops->set_now(places->self, now_unix_ms);
    enum rc rc = free_refused(a, out);
    if (rc == RC_OK) {
        rc = places->ops->invitations(places->self, a->swept,
                                      ALLOCATOR_SWEEP_CODES, page, &count);
    }
    for (size_t k = 0; rc == RC_OK && k < count; k++) {
        /* Also when it fails: the next sweep is for those behind it. */
        memcpy(a->swept, page[k].code, sizeof(a->swept));
        rc = sweep_one(a, now_unix_ms, &page[k], out);
    }
    end_sweep(a, rc, count == ALLOCATOR_SWEEP_CODES, out);
    return rc;
}
