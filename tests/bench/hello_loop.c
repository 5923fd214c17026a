/*
 * Hello world in our own loop: what libedge costs by itself, without a body's
 * decoding and without a commit. Its route "refuses" each request with a 202.
 */
#include "fcgi/edge.h"

static enum rc
hello(const struct request *request, struct text *body, struct reply *reply)
{
    (void)request;
    (void)body;
    reply->status = 202;
    text_puts(&reply->body, "{\"hello\":\"world\"}\n");
    return RC_INVALID; /* not to be journalled: the reply stands */
}

static void
never(const struct request *request, struct reply *reply)
{
    (void)request;
    (void)reply;
}

static const struct edge_route routes[] = {
    {.method = "POST",
     .path = "/callback",
     .service = SERVICE_CALLBACK,
     .accept = hello,
     .answer = never},
};

static const struct edge_app app = {
    .name = "hello_loop",
    .routes = routes,
    .route_count = sizeof(routes) / sizeof(routes[0]),
};

int
main(int argc, char **argv)
{
    return edge_main(argc, argv, &app);
}
