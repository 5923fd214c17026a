/* fcgi/edge_loop.c with both pools, a real journal and a tiny FastCGI client:
 * requests whole, in part, slow, kept, wrong; bounds; draining. The loop runs
 * in a thread of its own, as it does in a handler's process. */
#include "fcgi/edge_loop.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fcgi/edge_listen.h"
#include "fcgi/edge_read.h"
#include "fcgi/side_pool.h"
#include "shared/clock.h"
#include "tests/fcgi/fcgi_client.h"

#define MAX_BODY 65536
#define LARGE_BODY (1024 * 1024)
#define KEPT_REQUESTS 3
#define CANCELED 5

struct fixture {
    char dir[64];
    char socket[96];
    char path[96]; /* of the journal */
    struct conf conf;
    struct edge_listen listen;
    struct journal *journal;
    struct auth *auth;
    struct edge_loop *loop;
    int drain_fd;
    const struct conf *fresh; /* taken over instead of draining */
    pthread_t thread;
    bool running;
    bool pages;     /* app_with_pages */
    enum rc result; /* of the run */
};

/* The ask route "/slow" waits for this. */
static sem_t gate;

static enum rc
accept_item(const struct request *request, struct text *body,
            struct reply *reply)
{
    (void)reply;
    text_append(body, request->body, request->body_bytes);
    return RC_OK;
}

static void
answer_item(const struct request *request, struct reply *reply)
{
    char id[UUID_TEXT_BYTES];

    reply->status = 202;
    text_printf(&reply->body, "{\"id\":\"%s\",\"rank\":%d,\"count\":%d}",
                uuid_format(&request->id, id), (int)request->rank,
                (int)request->conf->call.rate_count);
}

/* Its record is the beginning of the body, its answer shows that and what the
 * request brought. */
static enum rc
accept_large(const struct request *request, struct text *body,
             struct reply *reply)
{
    (void)reply;
    text_append(body, request->body, 4);
    return RC_OK;
}

static void
answer_large(const struct request *request, struct reply *reply)
{
    reply->status = 202;
    text_printf(&reply->body,
                "{\"bytes\":%zu,\"record\":\"%s\",\"record_bytes\":%zu,"
                "\"signature\":%zu,\"batch\":%d}",
                request->body_bytes, request->record, request->record_bytes,
                strlen(request->signature), (int)request->conf->sms.batch_size);
}

/* What has become of the item that the path names. */
static void
ask_canceled(const struct request *request, struct ask *ask,
             struct reply *reply)
{
    struct journal_entry entry;
    struct uuid id;

    reply->status = 404;
    if (uuid_parse(request->param, &id) == RC_OK &&
        journal_find(ask->journal, &id, &entry) == RC_OK) {
        reply->status = entry.progress.state == CANCELED ? 200 : 409;
    }
}

static void
ask_item(const struct request *request, struct ask *ask, struct reply *reply)
{
    assert_non_null(ask->journal);
    assert_non_null(ask->pg);
    reply->status = 200;
    text_printf(&reply->body, "{\"param\":\"%s\"}", request->param);
}

static void
ask_slow(const struct request *request, struct ask *ask, struct reply *reply)
{
    (void)request;
    (void)ask;
    while (sem_wait(&gate) != 0) {
        continue;
    }
    reply->status = 200;
    text_puts(&reply->body, "{}");
}

static void
ask_page(const struct request *request, struct ask *ask, struct reply *reply)
{
    (void)request;
    (void)ask;
    reply->status = 200;
    for (unsigned k = 0; k < 300000; k++) {
        text_putc(&reply->body, 'x');
    }
}

static const struct edge_route routes[] = {
    {.method = "POST",
     .path = "/items",
     .service = SERVICE_CALLBACK,
     .accept = accept_item,
     .answer = answer_item},
    {.method = "POST",
     .path = "/large",
     .service = SERVICE_CALLBACK,
     .accept = accept_large,
     .answer = answer_large,
     .max_body_bytes = LARGE_BODY},
    {.method = "GET", .path = "/items/{id}", .ask = ask_item},
    {.method = "DELETE",
     .path = "/items/{id}",
     .service = SERVICE_CALLBACK,
     .cancel = CANCELED,
     .ask = ask_canceled},
    {.method = "GET", .path = "/slow", .ask = ask_slow},
    {.method = "GET", .path = "/page", .ask = ask_page},
};
/* Says what is known of a request that something was wrong with. */
static void
on_problem(const struct request *request, struct reply *reply)
{
    text_reset(&reply->body);
    reply->content_type = "text/plain";
    text_printf(&reply->body, "<%s %s %s %zu>", request->method, request->path,
                request->content_type, request->body_bytes);
}

static const struct edge_app app = {
    .name = "test", .routes = routes, .route_count = ARRAY_COUNT(routes)};
static const struct edge_app app_with_pages = {
    .name = "test",
    .routes = routes,
    .route_count = ARRAY_COUNT(routes),
    .on_problem = on_problem,
};

/* ---- fixture --------------------------------------------------------------
 */

static void
on_drain(void *arg)
{
    struct fixture *f = arg;
    uint64_t count;

    (void)!read(f->drain_fd, &count, sizeof(count));
    if (f->fresh != NULL) {
        edge_loop_reload(f->loop, f->fresh, f->auth);
        f->fresh = NULL;
    } else {
        edge_loop_drain(f->loop);
    }
}

static void *
run(void *arg)
{
    struct fixture *f = arg;

    f->result = edge_loop_run(f->loop);
    return NULL;
}

static void
start(struct fixture *f)
{
    const struct journal_options journal = {.path = f->path,
                                            .role = JOURNAL_EDGE,
                                            .max_bytes = INT64_C(1) << 30,
                                            .lock_timeout_ms = 1000};
    struct edge_loop_options options = {
        .app = f->pages ? &app_with_pages : &app, .conf = &f->conf};

    assert_int_equal(edge_read_init(), RC_OK);
    if (f->listen.path == NULL) {
        assert_int_equal(edge_listen_open(&f->listen, f->socket), RC_OK);
    }
    assert_int_equal(journal_new(&f->journal, &journal), RC_OK);
    assert_int_equal(auth_new(&f->auth, ""), RC_OK);
    options.listen_fd = f->listen.fd;
    options.listen_owned = true;
    options.journal = f->journal;
    options.auth = f->auth;
    assert_int_equal(edge_loop_new(&f->loop, &options), RC_OK);
    f->drain_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    assert_int_equal(edge_loop_watch(f->loop, f->drain_fd, on_drain, f), RC_OK);
    assert_int_equal(pthread_create(&f->thread, NULL, run, f), 0);
    f->running = true;
}

static void
ask_to_drain(struct fixture *f)
{
    const uint64_t one = 1;

    assert_int_equal(write(f->drain_fd, &one, sizeof(one)), sizeof(one));
}

static enum rc
join(struct fixture *f)
{
    assert_int_equal(pthread_join(f->thread, NULL), 0);
    f->running = false;
    return f->result;
}

static int
setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    (void)signal(SIGPIPE, SIG_IGN);
    assert_int_equal(sem_init(&gate, 0, 0), 0);
    memcpy(f->dir, "/tmp/test_loop.XXXXXX", 22);
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->socket, sizeof(f->socket), "%s/edge.sock", f->dir);
    (void)snprintf(f->path, sizeof(f->path), "%s/journal.db", f->dir);
    memcpy(f->conf.journal.path, f->path, sizeof(f->path));
    f->conf.journal.max_bytes = INT64_C(1) << 30;
    f->conf.journal.lock_timeout_ms = 1000;
    memcpy(f->conf.postgres.url, "postgresql:///none", 19);
    f->conf.postgres.timeout_ms = 100;
    f->conf.edge = (struct conf_edge){.batch = 8,
                                      .side_threads = 1,
                                      .ask_threads = 1,
                                      .max_body_bytes = MAX_BODY,
                                      .body_timeout_ms = 10000,
                                      .max_connections = 256};
    *state = f;
    return 0;
}

static void
remove_dir(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *entry;

    assert_non_null(d);
    for (entry = readdir(d); entry != NULL; entry = readdir(d)) {
        if (entry->d_name[0] != '.') {
            assert_int_equal(unlinkat(dirfd(d), entry->d_name, 0), 0);
        }
    }
    (void)closedir(d);
    assert_int_equal(rmdir(dir), 0);
}

static int
teardown(void **state)
{
    struct fixture *f = *state;

    if (f->running) {
        ask_to_drain(f);
        assert_int_equal(join(f), RC_OK);
    }
    edge_loop_free(&f->loop);
    journal_free(&f->journal);
    auth_free(&f->auth);
    close(f->listen.fd);
    close(f->drain_fd);
    remove_dir(f->dir);
    (void)sem_destroy(&gate);
    free(f);
    return 0;
}

static int64_t
accepted(const struct fixture *f)
{
    const struct journal_options options = {.path = f->path,
                                            .role = JOURNAL_READER,
                                            .max_bytes = INT64_C(1) << 30,
                                            .lock_timeout_ms = 1000};
    struct journal_ledger ledger[SERVICE_COUNT] = {{0}};
    struct journal *reader;
    enum rc rc;

    assert_int_equal(journal_new(&reader, &options), RC_OK);
    rc = journal_ledger(reader, ledger);
    journal_free(&reader);
    assert_true(rc == RC_OK || rc == RC_AGAIN); /* RC_AGAIN: no file yet */
    return ledger[SERVICE_CALLBACK].accepted;
}

static const struct client_request item = {
    .method = "POST", .uri = "/items", .body = "[1,2,3]"};

static void
expect(const struct fixture *f, const struct client_request *request,
       int status)
{
    struct client_answer answer;

    assert_int_equal(client_ask(f->socket, request, &answer), status);
    client_answer_free(&answer);
}

/* Read an answer's status from an open connection. */
static int
read_status(int fd)
{
    struct client_answer answer;
    int status;

    client_read(fd, 1, &answer);
    status = answer.status;
    client_answer_free(&answer);
    return status;
}

/* Send the first bytes of a request. */
static int
send_part(const struct fixture *f, size_t bytes)
{
    struct text wire = {0};
    int fd = client_connect(f->socket);

    client_build(&wire, &item);
    client_send(fd, wire.data, bytes < wire.bytes ? bytes : wire.bytes - 1);
    text_free(&wire);
    return fd;
}

#define TRICKLE_BYTES 24 /* more pieces than the loop looks at */
#define MOST_OF_IT 80    /* bytes: BEGIN and a part of the parameters */

/* ---- requests -------------------------------------------------------------
 */

static void
whole_request_is_committed_and_answered(void **state)
{
    struct fixture *f = *state;
    struct client_answer answer;

    start(f);
    assert_int_equal(client_ask(f->socket, &item, &answer), 202);
    assert_non_null(strstr(answer.body, "{\"id\":\""));
    assert_non_null(strstr(text_cstr(&answer.document), "\r\nX-Request-Id: "));
    assert_int_equal(accepted(f), 1);
    client_answer_free(&answer);
}

/* The URI of an item that was just accepted. */
static void
accept_one(struct fixture *f, char uri[64])
{
    struct client_answer answer;

    assert_int_equal(client_ask(f->socket, &item, &answer), 202);
    (void)snprintf(uri, 64, "/items/%.36s",
                   strstr(answer.body, "{\"id\":\"") + 7);
    client_answer_free(&answer);
}

static void
cancel_is_committed_and_answered_by_the_ask_pool(void **state)
{
    struct fixture *f = *state;
    char uri[64];
    const struct client_request cancel = {.method = "DELETE", .uri = uri};

    start(f);
    accept_one(f, uri);
    expect(f, &cancel, 200);
    expect(f, &cancel, 200);
    assert_int_equal(accepted(f), 1);
    (void)snprintf(uri, sizeof(uri), "/items/7");
    expect(f, &cancel, 404);
    (void)snprintf(uri, sizeof(uri),
                   "/items/01890000-0000-7000-8000-00000000002a");
    expect(f, &cancel, 404);
}

static void
cancel_that_is_too_late_says_so(void **state)
{
    const struct journal_progress begun = {.state = 1};
    struct fixture *f = *state;
    struct journal_options options = {.path = f->path,
                                      .role = JOURNAL_DISPATCHER,
                                      .max_bytes = INT64_C(1) << 30,
                                      .lock_timeout_ms = 1000};
    struct journal *dispatcher;
    char uri[64];
    const struct client_request cancel = {.method = "DELETE", .uri = uri};

    start(f);
    accept_one(f, uri);
    assert_int_equal(journal_new(&dispatcher, &options), RC_OK);
    assert_int_equal(journal_begin(dispatcher), RC_OK);
    assert_int_equal(
        journal_progress_begin(dispatcher, SERVICE_CALLBACK, 1, &begun), RC_OK);
    assert_int_equal(journal_commit(dispatcher), RC_OK);
    expect(f, &cancel, 409);
    journal_free(&dispatcher);
}

/* More than a batch, on connections that are kept. */
static void
many_cancels_beside_requests_are_all_answered(void **state)
{
    struct fixture *f = *state;
    struct text cancel = {0};
    struct text add = {0};
    char uri[64];
    const struct client_request request = {
        .method = "DELETE", .uri = uri, .keep = true};
    int fds[24];

    start(f);
    accept_one(f, uri);
    client_build(&cancel, &request);
    client_build(&add, &item);
    for (size_t k = 0; k < ARRAY_COUNT(fds); k++) {
        const struct text *wire = k % 2 == 0 ? &cancel : &add;

        fds[k] = client_connect(f->socket);
        client_send(fds[k], wire->data, wire->bytes);
    }
    for (size_t k = 0; k < ARRAY_COUNT(fds); k++) {
        assert_int_equal(read_status(fds[k]), k % 2 == 0 ? 200 : 202);
    }
    for (size_t k = 0; k < ARRAY_COUNT(fds); k += 2) { /* they were kept */
        client_send(fds[k], cancel.data, cancel.bytes);
        assert_int_equal(read_status(fds[k]), 200);
    }
    for (size_t k = 0; k < ARRAY_COUNT(fds); k++) {
        close(fds[k]);
    }
    text_free(&cancel);
    text_free(&add);
}

static void
ranks_and_a_fresh_configuration_are_seen(void **state)
{
    struct fixture *f = *state;
    struct conf fresh;
    struct client_answer answer;

    f->conf.call.rate_count = 25;
    start(f);
    assert_int_equal(client_ask(f->socket, &item, &answer), 202);
    assert_non_null(strstr(answer.body, "\"rank\":1,\"count\":25}"));
    client_answer_free(&answer);
    fresh = f->conf;
    fresh.call.rate_count = 7;
    f->fresh = &fresh;
    ask_to_drain(f);
    expect(f, &item, 202); /* in a turn after the reload, or in its own */
    assert_int_equal(client_ask(f->socket, &item, &answer), 202);
    assert_non_null(strstr(answer.body, "\"rank\":3,\"count\":7}"));
    client_answer_free(&answer);
}

static void
request_in_two_pieces_is_put_together(void **state)
{
    struct fixture *f = *state;
    struct text wire = {0};

    start(f);
    client_build(&wire, &item);
    for (size_t cut = 1; cut < wire.bytes; cut += 7) {
        int fd = client_connect(f->socket);

        client_send(fd, wire.data, cut);
        expect(f, &item, 202); /* the loop has looked at it by then */
        client_send(fd, wire.data + cut, wire.bytes - cut);
        assert_int_equal(read_status(fd), 202);
        close(fd);
    }
    text_free(&wire);
}

static void
request_that_trickles_is_read_in_the_side_pool(void **state)
{
    struct fixture *f = *state;
    struct text wire = {0};
    int fd;

    start(f);
    client_build(&wire, &item);
    fd = client_connect(f->socket);
    for (size_t k = 0; k < wire.bytes; k++) {
        client_send(fd, wire.data + k, 1);
        if (k % 8 == 0) {
            expect(f, &item, 202);
        }
    }
    assert_int_equal(read_status(fd), 202);
    close(fd);
    text_free(&wire);
}

static void
slow_body_gets_408_and_holds_up_nobody(void **state)
{
    struct fixture *f = *state;
    int fd;

    f->conf.edge.body_timeout_ms = 200;
    start(f);
    fd = send_part(f, MOST_OF_IT);
    expect(f, &item, 202);
    assert_int_equal(read_status(fd), 408);
    assert_true(client_is_closed(fd));
    close(fd);
    assert_int_equal(accepted(f), 1);
}

/* Read an answer and compare its body. */
static void
expect_page(int fd, int status, const char *body)
{
    struct client_answer answer;

    client_read(fd, 1, &answer);
    assert_int_equal(answer.status, status);
    assert_string_equal(answer.body, body);
    client_answer_free(&answer);
}

/* What the side pool refuses is told by its header fields, if they have come,
 * and by nothing of the request before it. */
static void
refused_requests_are_known_by_what_has_come(void **state)
{
    static char body[LARGE_BODY * 2];
    struct fixture *f = *state;
    struct client_request request = {
        .method = "POST", .uri = "/items?a", .content_type = "text/x"};
    struct text wire = {0};
    int fd;

    f->conf.edge.body_timeout_ms = 200;
    f->pages = true;
    start(f);
    memset(body, '1', sizeof(body));
    request.body = body;
    request.body_bytes = sizeof(body);
    client_build(&wire, &request);
    for (int k = 0; k < 3; k++) {
        expect(f, &item, 202);
        fd = client_connect(f->socket);
        client_send(fd, wire.data, wire.bytes);
        expect_page(fd, 413, "<POST /items text/x 0>");
        close(fd);
        fd = client_connect(f->socket); /* the header and some of the body */
        client_send(fd, wire.data, 40000);
        expect_page(fd, 408, "<POST /items text/x 0>");
        close(fd);
        fd = client_connect(f->socket); /* a part of the header */
        client_send(fd, wire.data, 40);
        expect_page(fd, 408, "<   0>");
        close(fd);
    }
    text_free(&wire);
}

static void
full_side_pool_refuses_with_503(void **state)
{
    struct fixture *f = *state;
    int fds[SIDE_POOL_PER_THREAD + 1];

    f->conf.edge.body_timeout_ms = 2500;
    start(f);
    for (size_t k = 0; k < ARRAY_COUNT(fds); k++) {
        fds[k] = send_part(f, MOST_OF_IT);
    }
    assert_int_equal(read_status(fds[SIDE_POOL_PER_THREAD]), 503);
    expect(f, &item, 202); /* others are served as ever */
    for (size_t k = 0; k < SIDE_POOL_PER_THREAD; k++) {
        assert_int_equal(read_status(fds[k]), 408);
    }
    for (size_t k = 0; k < ARRAY_COUNT(fds); k++) {
        close(fds[k]);
    }
    expect(f, &item, 202);
}

/* The tick finds it whole, and nothing else wakes the loop. */
static void
request_completed_beside_a_full_side_pool_is_answered(void **state)
{
    struct fixture *f = *state;
    struct text wire = {0};
    int fds[SIDE_POOL_PER_THREAD];
    struct pollfd answer = {.events = POLLIN};

    start(f);
    client_build(&wire, &item);
    for (size_t k = 0; k < ARRAY_COUNT(fds); k++) {
        fds[k] = send_part(f, MOST_OF_IT);
    }
    answer.fd = client_connect(f->socket);
    (void)poll(NULL, 0, 300); /* until the side pool has all of them */
    for (size_t k = 0; k < TRICKLE_BYTES; k++) {
        client_send(answer.fd, wire.data + k, 1);
        expect(f, &item, 202);
    }
    client_send(answer.fd, wire.data + TRICKLE_BYTES,
                wire.bytes - TRICKLE_BYTES);
    assert_int_equal(poll(&answer, 1, 3000), 1);
    assert_int_equal(read_status(answer.fd), 202);
    close(answer.fd);
    for (size_t k = 0; k < ARRAY_COUNT(fds); k++) {
        close(fds[k]);
    }
    text_free(&wire);
}

static void
kept_connection_serves_request_after_request(void **state)
{
    struct fixture *f = *state;
    struct client_request request = item;
    struct text wire = {0};
    int fd;

    start(f);
    request.keep = true;
    client_build(&wire, &request);
    fd = client_connect(f->socket);
    for (unsigned k = 0; k < KEPT_REQUESTS; k++) {
        client_send(fd, wire.data, wire.bytes);
        assert_int_equal(read_status(fd), 202);
        expect(f, &item, 202);
    }
    /* Also when an answer comes from the ask pool, or in two pieces. */
    text_reset(&wire);
    request = (struct client_request){
        .method = "GET", .uri = "/items/7", .keep = true};
    client_build(&wire, &request);
    for (unsigned k = 0; k < KEPT_REQUESTS; k++) {
        client_send(fd, wire.data, 50);
        expect(f, &item, 202);
        client_send(fd, wire.data + 50, wire.bytes - 50);
        assert_int_equal(read_status(fd), 200);
    }
    close(fd);
    text_free(&wire);
}

static void
second_request_behind_the_first_ends_the_connection(void **state)
{
    struct fixture *f = *state;
    struct client_request request = item;
    struct text wire = {0};
    int fd;

    start(f);
    request.keep = true;
    client_build(&wire, &request);
    client_build(&wire, &request);
    fd = client_connect(f->socket);
    client_send(fd, wire.data, wire.bytes);
    assert_int_equal(read_status(fd), 202);
    assert_true(client_is_closed(fd));
    close(fd);
    assert_int_equal(accepted(f), 1);
    text_free(&wire);
}

static void
wrong_records_end_the_connection_only(void **state)
{
    struct fixture *f = *state;
    const char abort_record[8] = {1, RECORDS_ABORT_REQUEST, 0, 1};
    struct client_answer answer;
    struct text wire = {0};
    int fd;

    start(f);
    fd = client_connect(f->socket);
    client_send(fd, "GET / HTTP/1.1\r\n\r\n", 18);
    assert_true(client_is_closed(fd));
    close(fd);

    client_begin(&wire, 1, 1, false);
    text_append(&wire, abort_record, sizeof(abort_record));
    fd = client_connect(f->socket);
    client_send(fd, wire.data, wire.bytes);
    assert_true(client_is_closed(fd));
    close(fd);

    text_reset(&wire);
    client_begin(&wire, 5, 2, false); /* an authorizer's */
    fd = client_connect(f->socket);
    client_send(fd, wire.data, wire.bytes);
    client_read(fd, 5, &answer);
    assert_int_equal(answer.end_status, 3);
    client_answer_free(&answer);
    close(fd);

    fd = send_part(f, MOST_OF_IT); /* and away */
    close(fd);
    expect(f, &item, 202);
    text_free(&wire);
}

static void
parameters_over_64_KiB_get_431(void **state)
{
    struct fixture *f = *state;
    char *content = calloc(1, 65535);
    struct text wire = {0};
    int fd;

    start(f);
    assert_non_null(content);
    client_begin(&wire, 1, 1, false);
    client_record(&wire, RECORDS_PARAMS, 1, content, 65535, 0);
    client_record(&wire, RECORDS_PARAMS, 1, content, 65535, 0);
    fd = client_connect(f->socket);
    client_send(fd, wire.data, wire.bytes);
    assert_int_equal(read_status(fd), 431);
    close(fd);
    free(content);
    text_free(&wire);
}

static void
long_bodies_are_read_up_to_the_bound(void **state)
{
    struct fixture *f = *state;
    struct client_request request = item;
    char *body = malloc((size_t)1 << 20);

    start(f);
    assert_non_null(body);
    memset(body, '1', (size_t)1 << 20);
    request.body = body;
    request.body_bytes = MAX_BODY;
    expect(f, &request, 202);
    request.body_bytes = MAX_BODY + 1;
    expect(f, &request, 413);
    request.body_bytes = (size_t)1 << 20; /* more than a socket holds */
    expect(f, &request, 413);
    assert_int_equal(accepted(f), 1);
    free(body);
}

/* A body and what the answer shows of it. */
static void
expect_large(const struct fixture *f, const struct client_request *request,
             const char *shown)
{
    struct client_answer answer;

    assert_int_equal(client_ask(f->socket, request, &answer), 202);
    if (strstr(answer.body, shown) == NULL) {
        fail_msg("%s is not in %s", shown, answer.body);
    }
    client_answer_free(&answer);
}

static void
routes_that_take_more_get_all_of_it(void **state)
{
    struct fixture *f = *state;
    struct client_request request = {.method = "POST", .uri = "/large"};
    char *body = malloc((size_t)LARGE_BODY * 2);
    char shown[64];

    start(f);
    assert_non_null(body);
    memset(body, '1', (size_t)LARGE_BODY * 2);
    request.body = body;
    for (size_t bytes = MAX_BODY; bytes <= LARGE_BODY; bytes *= 2) {
        request.body_bytes = bytes;
        (void)snprintf(shown, sizeof(shown), "{\"bytes\":%zu,", bytes);
        expect_large(f, &request, shown);
    }
    request.body_bytes = LARGE_BODY + 1;
    expect(f, &request, 413);
    request.body_bytes = (size_t)LARGE_BODY * 2;
    expect(f, &request, 413);
    request.uri = "/items"; /* others still have theirs */
    request.body_bytes = MAX_BODY;
    expect(f, &request, 202);
    request.body_bytes = MAX_BODY + 1;
    expect(f, &request, 413);
    request.body_bytes = LARGE_BODY;
    expect(f, &request, 413);
    free(body);
}

static void
large_bodies_on_a_kept_connection_come_one_after_the_other(void **state)
{
    struct fixture *f = *state;
    struct client_request request = {
        .method = "POST", .uri = "/large", .keep = true};
    char *body = malloc(LARGE_BODY);
    struct text wire = {0};
    int fd;

    start(f);
    assert_non_null(body);
    memset(body, '1', LARGE_BODY);
    request.body = body;
    request.body_bytes = LARGE_BODY;
    client_build(&wire, &request);
    fd = client_connect(f->socket);
    for (unsigned k = 0; k < KEPT_REQUESTS; k++) {
        client_send(fd, wire.data, wire.bytes);
        assert_int_equal(read_status(fd), 202);
        expect(f, &item, 202);
    }
    close(fd);
    text_free(&wire);
    free(body);
}

static void
answers_see_record_and_signature_also_of_a_slow_request(void **state)
{
    static const char shown[] =
        "{\"bytes\":7,\"record\":\"[1,2\",\"record_bytes\":4,"
        "\"signature\":3000,";
    struct fixture *f = *state;
    char value[3001];
    const struct client_request request = {.method = "POST",
                                           .uri = "/large",
                                           .body = "[1,2,3]",
                                           .header_name = "HTTP_X_SIGNATURE",
                                           .header_value = value};
    struct client_answer answer;
    struct text wire = {0};
    int fd;

    memset(value, 's', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';
    start(f);
    expect_large(f, &request, shown);
    client_build(&wire, &request);
    fd = client_connect(f->socket);
    client_send(fd, wire.data, MOST_OF_IT);
    (void)poll(NULL, 0, 300); /* to the side pool */
    client_send(fd, wire.data + MOST_OF_IT, wire.bytes - MOST_OF_IT);
    client_read(fd, 1, &answer);
    assert_int_equal(answer.status, 202);
    assert_non_null(strstr(answer.body, shown));
    client_answer_free(&answer);
    close(fd);
    text_free(&wire);
}

/* Secrets can be changed while it runs. */
static void
a_fresh_configuration_of_the_sms_service_is_seen(void **state)
{
    struct fixture *f = *state;
    const struct client_request request = {
        .method = "POST", .uri = "/large", .body = "[1,2,3]"};
    struct conf fresh;

    f->conf.sms.batch_size = 25;
    start(f);
    expect_large(f, &request, "\"batch\":25}");
    fresh = f->conf;
    fresh.sms.batch_size = 7;
    f->fresh = &fresh;
    ask_to_drain(f);
    expect(f, &request, 202); /* in a turn after the reload, or in its own */
    expect_large(f, &request, "\"batch\":7}");
}

static void
lying_lengths_get_400(void **state)
{
    struct fixture *f = *state;
    struct client_request request = item;

    start(f);
    request.length = "8";
    expect(f, &request, 400);
    request.length = "";
    expect(f, &request, 411);
    assert_int_equal(accepted(f), 0);
}

/* ---- the ask pool ----------------------------------------------------------
 */

static void
slow_answer_holds_up_nobody_and_the_queue_is_bounded(void **state)
{
    struct fixture *f = *state;
    const struct client_request slow = {.method = "GET", .uri = "/slow"};
    enum { QUEUE = 64, ALL = QUEUE + 2 };
    struct text wire = {0};
    int fds[ALL];
    unsigned counts[2] = {0, 0};

    start(f);
    client_build(&wire, &slow);
    for (size_t k = 0; k < ALL; k++) {
        fds[k] = client_connect(f->socket);
        client_send(fds[k], wire.data, wire.bytes);
        if (k == 0) {
            expect(f, &item, 202); /* the thread takes the first */
        }
    }
    expect(f, &item, 202);
    for (size_t k = 0; k < ALL; k++) {
        (void)sem_post(&gate);
    }
    for (size_t k = 0; k < ALL; k++) {
        int status = read_status(fds[k]);

        assert_true(status == 200 || status == 503);
        counts[status == 503]++;
        close(fds[k]);
    }
    assert_in_range(counts[0], QUEUE, QUEUE + 1);
    assert_in_range(counts[1], 1, 2);
    text_free(&wire);
}

static void
pages_longer_than_a_socket_holds_arrive(void **state)
{
    struct fixture *f = *state;
    const struct client_request page = {.method = "GET", .uri = "/page"};
    struct client_answer answer;

    start(f);
    assert_int_equal(client_ask(f->socket, &page, &answer), 200);
    assert_int_equal(strlen(answer.body), 300000);
    client_answer_free(&answer);
}

/* ---- bounds -----------------------------------------------------------------
 */

static void
silent_connections_are_closed_and_make_room(void **state)
{
    struct fixture *f = *state;
    int fds[16];

    f->conf.edge.max_connections = ARRAY_COUNT(fds);
    f->conf.edge.body_timeout_ms = 300;
    start(f);
    for (size_t k = 0; k < ARRAY_COUNT(fds); k++) {
        fds[k] = client_connect(f->socket);
    }
    expect(f, &item, 202); /* after the deadline of those */
    for (size_t k = 0; k < ARRAY_COUNT(fds); k++) {
        assert_true(client_is_closed(fds[k]));
        close(fds[k]);
    }
}

static void
idle_kept_connection_gives_way(void **state)
{
    struct fixture *f = *state;
    struct client_request request = item;
    struct text wire = {0};
    int fds[16];

    f->conf.edge.max_connections = ARRAY_COUNT(fds);
    start(f);
    request.keep = true;
    client_build(&wire, &request);
    for (size_t k = 0; k < ARRAY_COUNT(fds); k++) {
        fds[k] = client_connect(f->socket);
        client_send(fds[k], wire.data, wire.bytes);
        assert_int_equal(read_status(fds[k]), 202);
    }
    expect(f, &item, 202);
    assert_true(client_is_closed(fds[0]));
    for (size_t k = 0; k < ARRAY_COUNT(fds); k++) {
        close(fds[k]);
    }
    text_free(&wire);
}

static void
running_out_of_descriptors_is_survived(void **state)
{
    struct fixture *f = *state;
    struct rlimit limit;
    struct rlimit low;
    struct text wire = {0};
    int hogs[256];
    size_t count = 0;
    int fd;

    start(f);
    expect(f, &item, 202);
    client_build(&wire, &item);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = limit;
    low.rlim_cur = 128;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    fd = socket(AF_UNIX, SOCK_STREAM, 0); /* the last one that is had */
    assert_true(fd >= 0);
    close(fd);
    while (count < ARRAY_COUNT(hogs)) {
        int hog = dup(f->drain_fd);

        if (hog < 0) {
            break;
        }
        hogs[count++] = hog;
    }
    assert_in_range(count, 1, ARRAY_COUNT(hogs) - 1);
    close(hogs[--count]); /* for the client's end; none for the edge's */
    fd = client_connect(f->socket);
    client_send(fd, wire.data, wire.bytes);
    while (count > 0) {
        close(hogs[--count]);
    }
    assert_int_equal(read_status(fd), 202);
    close(fd);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    text_free(&wire);
}

/* A process that leads, and does nothing, until it is killed. */
static pid_t
frozen_leader(const struct fixture *f)
{
    int ready[2];
    pid_t child;
    char byte;

    assert_int_equal(pipe(ready), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* should the test fail */
        (void)!write(ready[1], edge_listen_lead(f->listen.fd) ? "y" : "n", 1);
        for (;;) {
            (void)pause();
        }
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    close(ready[0]);
    close(ready[1]);
    return child;
}

static void
others_help_a_frozen_leader_and_replace_a_killed_one(void **state)
{
    struct fixture *f = *state;
    pid_t leader;

    /* Made here, for the child must be there before the loop's threads. */
    assert_int_equal(edge_listen_open(&f->listen, f->socket), RC_OK);
    leader = frozen_leader(f);
    start(f);
    for (int k = 0; k < 20; k++) {
        expect(f, &item, 202);
    }
    assert_int_equal(kill(leader, SIGKILL), 0);
    assert_int_equal(waitpid(leader, NULL, 0), leader);
    for (int k = 0; k < 20; k++) {
        expect(f, &item, 202);
    }
    assert_int_equal(accepted(f), 40);
}

/* ---- edge.max_per_s
 * ----------------------------------------------------------
 */

/* Post items on connections of their own, in this order. */
static void
send_items(const struct fixture *f, int *fds, size_t count)
{
    struct text wire = {0};

    client_build(&wire, &item);
    for (size_t k = 0; k < count; k++) {
        fds[k] = client_connect(f->socket);
        client_send(fds[k], wire.data, wire.bytes);
    }
    text_free(&wire);
}

/* The rank that an answer shows; 0: it is no 202. */
static int
read_rank(int fd)
{
    struct client_answer answer;
    const char *rank;
    int value = 0;

    client_read(fd, 1, &answer);
    rank = strstr(answer.body, "\"rank\":");
    if (answer.status == 202 && rank != NULL) {
        value = (int)strtol(rank + 7, NULL, 10);
    }
    client_answer_free(&answer);
    return value;
}

static bool
has_answer(int fd, int wait_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, wait_ms) > 0;
}

static void
requests_above_the_rate_wait_in_order_and_reads_do_not(void **state)
{
    struct fixture *f = *state;
    const struct client_request page = {.method = "GET", .uri = "/page"};
    const struct client_request cancel = {.method = "DELETE",
                                          .uri = "/items/7"};
    int64_t began_ms = clock_now_ms();
    int fds[5];

    f->conf.edge.max_per_s = 4;
    f->conf.edge.max_wait_ms = 60000;
    start(f);
    send_items(f, fds, ARRAY_COUNT(fds));
    expect(f, &page, 200);
    expect(f, &cancel, 404);
    assert_false(has_answer(fds[4], 0)); /* its turn is after 1000 ms */
    for (size_t k = 0; k < ARRAY_COUNT(fds); k++) {
        assert_int_equal(read_rank(fds[k]), k + 1);
        assert_true(clock_now_ms() - began_ms >= (int64_t)k * 250 - 1);
        close(fds[k]);
    }
    assert_int_equal(accepted(f), ARRAY_COUNT(fds));
}

static void
requests_whose_turn_is_too_late_get_503(void **state)
{
    struct fixture *f = *state;
    struct client_answer answer;
    int fds[3];

    f->conf.edge.max_per_s = 1;
    f->conf.edge.max_wait_ms = 1000;
    start(f);
    send_items(f, fds, ARRAY_COUNT(fds));
    client_read(fds[2], 1, &answer); /* the two before it still wait */
    assert_int_equal(answer.status, 503);
    assert_non_null(strstr(text_cstr(&answer.document), "Retry-After: 1\r\n"));
    assert_non_null(strstr(answer.body, "too_many_requests"));
    client_answer_free(&answer);
    assert_int_equal(read_status(fds[0]), 202);
    assert_int_equal(read_status(fds[1]), 202);
    for (size_t k = 0; k < ARRAY_COUNT(fds); k++) {
        close(fds[k]);
    }
    assert_int_equal(accepted(f), 2);
}

/* The others of edge.max_connections are for those who do not wait. */
static void
half_of_the_connections_may_wait(void **state)
{
    struct fixture *f = *state;
    const struct client_request page = {.method = "GET", .uri = "/page"};
    int fds[1 + 8 + 1];

    f->conf.edge.max_connections = 16;
    f->conf.edge.max_per_s = 1;
    f->conf.edge.max_wait_ms = 60000;
    start(f);
    send_items(f, fds, ARRAY_COUNT(fds));
    assert_int_equal(read_status(fds[0]), 202);
    assert_int_equal(read_status(fds[9]), 503);
    expect(f, &page, 200);
    ask_to_drain(f); /* who waits gets a turn at once */
    for (size_t k = 1; k < 9; k++) {
        assert_int_equal(read_rank(fds[k]), k + 1);
    }
    assert_int_equal(join(f), RC_OK);
    for (size_t k = 0; k < ARRAY_COUNT(fds); k++) {
        close(fds[k]);
    }
}

static void
who_leaves_while_waiting_disturbs_nobody(void **state)
{
    struct fixture *f = *state;
    int fds[3];

    f->conf.edge.max_per_s = 5;
    f->conf.edge.max_wait_ms = 60000;
    start(f);
    send_items(f, fds, ARRAY_COUNT(fds));
    close(fds[1]); /* accepted all the same: it was read */
    assert_int_equal(read_status(fds[0]), 202);
    assert_int_equal(read_status(fds[2]), 202);
    assert_int_equal(accepted(f), 3);
    close(fds[0]);
    close(fds[2]);
}

/* Waiting does not lose the event of what comes next on the connection. */
static void
kept_connection_waits_and_goes_on(void **state)
{
    struct fixture *f = *state;
    struct client_request request = item;
    struct text wire = {0};
    int fd;

    f->conf.edge.max_per_s = 20;
    f->conf.edge.max_wait_ms = 60000;
    start(f);
    request.keep = true;
    client_build(&wire, &request);
    fd = client_connect(f->socket);
    for (int k = 0; k < 10; k++) {
        client_send(fd, wire.data, wire.bytes);
        assert_int_equal(read_status(fd), 202);
    }
    close(fd);
    text_free(&wire);
}

/* ---- draining
 * ---------------------------------------------------------------- */

static void
drain_finishes_what_is_in_hand(void **state)
{
    struct fixture *f = *state;
    struct client_request request = item;
    struct text wire = {0};
    int kept;
    int part;
    int waiting;

    start(f);
    request.keep = true;
    client_build(&wire, &request);
    kept = client_connect(f->socket);
    client_send(kept, wire.data, wire.bytes);
    assert_int_equal(read_status(kept), 202);
    part = client_connect(f->socket);
    client_send(part, wire.data, MOST_OF_IT);
    expect(f, &item, 202);
    waiting = client_connect(f->socket); /* in the backlog, or just accepted */
    ask_to_drain(f);
    assert_true(client_is_closed(kept));
    client_send(waiting, wire.data, wire.bytes);
    assert_int_equal(read_status(waiting), 202);
    client_send(part, wire.data + MOST_OF_IT, wire.bytes - MOST_OF_IT);
    assert_int_equal(read_status(part), 202);
    assert_true(client_is_closed(part)); /* though it asked to be kept */
    assert_int_equal(join(f), RC_OK);
    assert_int_equal(accepted(f), 4);
    close(kept);
    close(part);
    close(waiting);
    text_free(&wire);
}

/* The web server sent it before it could know. */
static void
drain_serves_what_has_come_on_a_kept_connection(void **state)
{
    struct fixture *f = *state;
    struct client_request request = item;
    struct text wire = {0};
    char lock_path[112];
    int kept;
    int held_up;
    int lock_fd;

    start(f);
    request.keep = true;
    client_build(&wire, &request);
    kept = client_connect(f->socket);
    client_send(kept, wire.data, wire.bytes);
    assert_int_equal(read_status(kept), 202);
    /* While the loop waits for the lock, the signal comes, and then it. */
    (void)snprintf(lock_path, sizeof(lock_path), "%s.lock", f->path);
    lock_fd = open(lock_path, O_RDWR | O_CLOEXEC);
    assert_true(lock_fd >= 0);
    assert_int_equal(flock(lock_fd, LOCK_EX), 0);
    held_up = client_connect(f->socket);
    client_send(held_up, wire.data, wire.bytes);
    (void)poll(NULL, 0, 200);
    ask_to_drain(f);
    client_send(kept, wire.data, wire.bytes);
    close(lock_fd);
    assert_int_equal(read_status(held_up), 202);
    assert_int_equal(read_status(kept), 202);
    assert_true(client_is_closed(kept));
    assert_int_equal(join(f), RC_OK);
    assert_int_equal(accepted(f), 3);
    close(held_up);
    close(kept);
    text_free(&wire);
}

static void
idle_loop_drains_at_once(void **state)
{
    struct fixture *f = *state;

    start(f);
    ask_to_drain(f);
    assert_int_equal(join(f), RC_OK);
}

int
main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(whole_request_is_committed_and_answered),
        TEST(cancel_is_committed_and_answered_by_the_ask_pool),
        TEST(cancel_that_is_too_late_says_so),
        TEST(many_cancels_beside_requests_are_all_answered),
        TEST(ranks_and_a_fresh_configuration_are_seen),
        TEST(request_in_two_pieces_is_put_together),
        TEST(request_that_trickles_is_read_in_the_side_pool),
        TEST(slow_body_gets_408_and_holds_up_nobody),
        TEST(refused_requests_are_known_by_what_has_come),
        TEST(full_side_pool_refuses_with_503),
        TEST(request_completed_beside_a_full_side_pool_is_answered),
        TEST(kept_connection_serves_request_after_request),
        TEST(second_request_behind_the_first_ends_the_connection),
        TEST(wrong_records_end_the_connection_only),
        TEST(parameters_over_64_KiB_get_431),
        TEST(long_bodies_are_read_up_to_the_bound),
        TEST(routes_that_take_more_get_all_of_it),
        TEST(large_bodies_on_a_kept_connection_come_one_after_the_other),
        TEST(answers_see_record_and_signature_also_of_a_slow_request),
        TEST(a_fresh_configuration_of_the_sms_service_is_seen),
        TEST(lying_lengths_get_400),
        TEST(slow_answer_holds_up_nobody_and_the_queue_is_bounded),
        TEST(pages_longer_than_a_socket_holds_arrive),
        TEST(silent_connections_are_closed_and_make_room),
        TEST(idle_kept_connection_gives_way),
        TEST(running_out_of_descriptors_is_survived),
        TEST(others_help_a_frozen_leader_and_replace_a_killed_one),
        TEST(requests_above_the_rate_wait_in_order_and_reads_do_not),
        TEST(requests_whose_turn_is_too_late_get_503),
        TEST(half_of_the_connections_may_wait),
        TEST(who_leaves_while_waiting_disturbs_nobody),
        TEST(kept_connection_waits_and_goes_on),
        TEST(drain_finishes_what_is_in_hand),
        TEST(drain_serves_what_has_come_on_a_kept_connection),
        TEST(idle_loop_drains_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
