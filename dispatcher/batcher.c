/* A ring of members with the moments from which their waiting counts. */
#include "dispatcher/batcher.h"

#include <stdlib.h>

#define CAPACITY_MIN 64U /* a power of two, as all capacities */

struct entry {
    void *member;
    int64_t since_ms; /* monotonic: it waits since */
    int64_t came_ms;
};

struct batcher {
    struct batcher_options options;
    struct entry *ring;
    size_t capacity;
    size_t first;
    size_t count;
};

static size_t
full_size(const struct batcher *b)
{
    return b->options.size > 1 ? b->options.size : 1;
}

static struct entry *
entry_at(const struct batcher *b, size_t index)
{
    return &b->ring[(b->first + index) & (b->capacity - 1)];
}

static enum rc
grow(struct batcher *b)
{
    size_t capacity = b->capacity > 0 ? b->capacity * 2 : CAPACITY_MIN;
    struct entry *ring = malloc(capacity * sizeof(ring[0]));

    if (ring == NULL) {
        return RC_NOMEM;
    }
    for (size_t i = 0; i < b->count; i++) {
        ring[i] = *entry_at(b, i);
    }
    free(b->ring);
    b->ring = ring;
    b->capacity = capacity;
    b->first = 0;
    return RC_OK;
}

size_t
batcher_count(const struct batcher *b)
{
    return b->count;
}

int64_t
batcher_due_ms(const struct batcher *b, int64_t now_ms)
{
    const struct batcher_options *o = &b->options;
    const struct entry *oldest;
    int64_t gather_ms;
    int64_t due_ms;

    if (b->count == 0) {
        return INT64_MAX;
    }
    if (b->count >= full_size(b)) {
        return now_ms;
    }
    oldest = entry_at(b, 0);
    gather_ms = o->gather_ms < o->max_delay_ms ? o->gather_ms : o->max_delay_ms;
    due_ms = oldest->since_ms + o->max_delay_ms;
    return due_ms > oldest->came_ms + gather_ms ? due_ms
                                                : oldest->came_ms + gather_ms;
}

enum rc
batcher_add(struct batcher *b, void *member, int64_t waited_ms, int64_t now_ms)
{
    if (b->count == b->capacity && grow(b) != RC_OK) {
        return RC_NOMEM;
    }
    *entry_at(b, b->count) = (struct entry){
        .member = member, .since_ms = now_ms - waited_ms, .came_ms = now_ms};
    b->count++;
    return RC_OK;
}

size_t
batcher_take(struct batcher *b, int64_t now_ms, bool drain, void **members,
             size_t max)
{
    size_t count = 0;

    if (!drain && batcher_due_ms(b, now_ms) > now_ms) {
        return 0;
    }
    while (count < full_size(b) && count < max && b->count > 0) {
        members[count++] = entry_at(b, 0)->member;
        b->first = (b->first + 1) & (b->capacity - 1);
        b->count--;
    }
    return count;
}

void
batcher_set(struct batcher *b, const struct batcher_options *options)
{
    b->options = *options;
}

enum rc
batcher_new(struct batcher **out, const struct batcher_options *options)
{
    *out = calloc(1, sizeof(**out));
    if (*out == NULL) {
        return RC_NOMEM;
    }
    (*out)->options = *options;
    return RC_OK;
}

void
batcher_free(struct batcher **b)
{
    if (*b != NULL) {
        free((*b)->ring);
        free(*b);
        *b = NULL;
    }
}
