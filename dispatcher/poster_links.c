/* An array of connections: there are few, and what curl tells of one is now
 * its descriptor, now its ends. */
#include "dispatcher/poster_links.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

void
poster_links_free(struct poster_links *links)
{
    free(links->all);
    *links = (struct poster_links){0};
}

bool
poster_links_add(struct poster_links *links, int fd, const struct sockaddr *to,
                 size_t to_bytes)
{
    struct poster_link *link;
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address;

    if (links->count == links->capacity) {
        size_t capacity = links->capacity == 0 ? 64 : links->capacity * 2;

        link = realloc(links->all, capacity * sizeof(*link));
        if (link == NULL) {
            return false;
        }
        links->all = link;
        links->capacity = capacity;
    }
    link = &links->all[links->count++];
    *link = (struct poster_link){.fd = fd};
    memset(&address, 0, sizeof(address));
    memcpy(&address, to,
           to_bytes < sizeof(address) ? to_bytes : sizeof(address));
    if (address.any.sa_family == AF_INET) {
        link->to_port = ntohs(address.v4.sin_port);
        (void)inet_ntop(AF_INET, &address.v4.sin_addr, link->to,
                        sizeof(link->to));
    } else {
        link->to_port = ntohs(address.v6.sin6_port);
        (void)inet_ntop(AF_INET6, &address.v6.sin6_addr, link->to,
                        sizeof(link->to));
    }
    return true;
}

static struct poster_link *
by_fd(struct poster_links *links, int fd)
{
    for (size_t i = 0; i < links->count; i++) {
        if (links->all[i].fd == fd) {
            return &links->all[i];
        }
    }
    return NULL;
}

void *
poster_links_remove(struct poster_links *links, int fd)
{
    struct poster_link *link = by_fd(links, fd);
    void *user;

    if (link == NULL) {
        return NULL;
    }
    user = link->user;
    *link = links->all[--links->count];
    return user;
}

static in_port_t
local_port(int fd)
{
    struct sockaddr_storage from = {0};
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    socklen_t bytes = sizeof(from);

    if (getsockname(fd, (struct sockaddr *)&from, &bytes) != 0) {
        return 0;
    }
    memcpy(&v4, &from, sizeof(v4));
    memcpy(&v6, &from, sizeof(v6));
    return ntohs(from.ss_family == AF_INET ? v4.sin_port : v6.sin6_port);
}

struct poster_link *
poster_links_find(struct poster_links *links, const char *to, int to_port,
                  int from_port)
{
    for (size_t i = 0; i < links->count; i++) {
        struct poster_link *link = &links->all[i];

        if (link->from_port == 0) {
            link->from_port = local_port(link->fd);
        }
        if (link->from_port == from_port && link->to_port == to_port &&
            strcmp(link->to, to) == 0) {
            return link;
        }
    }
    return NULL;
}

void
poster_links_used(struct poster_links *links, int fd)
{
    struct poster_link *link = by_fd(links, fd);

    if (link != NULL) {
        link->is_used = true;
    }
}

size_t
poster_links_alive(const struct poster_links *links)
{
    size_t alive = 0;

    for (size_t i = 0; i < links->count; i++) {
        struct pollfd fd = {.fd = links->all[i].fd, .events = POLLRDHUP};

        alive += poll(&fd, 1, 0) <= 0;
    }
    return alive;
}

bool
poster_links_is_stale(const struct poster_link *link, bool is_tls)
{
    struct pollfd fd = {.fd = link->fd, .events = POLLIN | POLLRDHUP};

    if (poll(&fd, 1, 0) <= 0) {
        return false;
    }
    return (fd.revents & ~POLLIN) != 0 || !is_tls || link->is_used;
}
