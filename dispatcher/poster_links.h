/* The connections that a poster's engine has: which is the one behind a
 * request, how many are alive, and which holds what nobody asked for. Takes
 * time in proportion to their number. One thread. */
#ifndef SLUICE_DISPATCHER_POSTER_LINKS_H
#define SLUICE_DISPATCHER_POSTER_LINKS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

struct poster_link {
    int fd;
    in_port_t from_port; /* 0: not known yet */
    in_port_t to_port;
    char to[INET6_ADDRSTRLEN];
    bool is_used; /* a whole answer came on it */
    void *user;   /* who had it last; the poster's */
};

/* {0} is empty. In no order: a link's place is good until the next add or
 * remove. */
struct poster_links {
    struct poster_link *all;
    size_t count;
    size_t capacity;
};

void poster_links_free(struct poster_links *links);

/* fd will be connected to that IPv4 or IPv6 address. False: no memory. */
bool poster_links_add(struct poster_links *links, int fd,
                      const struct sockaddr *to, size_t to_bytes);
/* Forget fd, if it is known. Returns its user or NULL. */
void *poster_links_remove(struct poster_links *links, int fd);
/* A connection by its ends, as a local port alone may serve several
 * addresses. NULL: not ours. */
struct poster_link *poster_links_find(struct poster_links *links,
                                      const char *to, int to_port,
                                      int from_port);
/* fd brought a whole answer. */
void poster_links_used(struct poster_links *links, int fd);
/* How many the peer has not closed, if only its half: curl finds out when it
 * needs one. */
size_t poster_links_alive(const struct poster_links *links);
/* True: bytes, an end or an error wait on a connection that should be idle. On
 * a new one TLS has its own to send (session tickets). */
bool poster_links_is_stale(const struct poster_link *link, bool is_tls);

#endif
