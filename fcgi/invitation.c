/* invitation.fcgi: people ask for a place, with a form or with JSON. It knows
 * neither which invitations there are nor who has asked before: the answer is
 * the same, in the same time, whatever the dispatcher will find. */
#include <string.h>

#include "fcgi/edge.h"
#include "fcgi/invitation_page.h"
#include "shared/invitation_msg.h"

#define TYPED_BYTES 4096U /* more than this is not put back into the form */

static void
put_headers(struct reply *reply)
{
    reply_header(reply, "Cache-Control", "no-store");
    reply_header(reply, "X-Content-Type-Options", "nosniff");
    reply_header(reply, "Referrer-Policy", "no-referrer");
}

static void
put_page_headers(struct reply *reply)
{
    reply->content_type = INVITATION_PAGE_TYPE;
    reply_header(reply, "Content-Security-Policy", invitation_page_policy());
    put_headers(reply);
}

static void
reply_no_code(struct reply *reply)
{
    reply_problem(reply, 404, "not_found",
                  "An invitation's code is 1 to 64 of a-z 0-9 -", NULL);
}

static void
show_form(const struct request *request, struct reply *reply)
{
    if (!invitation_code_valid(request->param)) {
        reply_no_code(reply);
        return;
    }
    reply->status = 200;
    put_page_headers(reply);
    invitation_page_form(&reply->body, request->param, "", NULL);
}

/* The form again, as far as it can be read. */
static void
show_again(const struct request *request, const struct field_errors *errors,
           struct reply *reply)
{
    const struct request form = {.query = request->body};
    char typed[TYPED_BYTES];

    if (request_query(&form, "email", typed, sizeof(typed)) != RC_OK) {
        typed[0] = '\0';
    }
    reply->status = 400;
    put_page_headers(reply);
    invitation_page_form(&reply->body, request->param, typed, &errors->list[0]);
}

static enum rc
accept_request(const struct request *request, struct text *body,
               struct reply *reply)
{
    bool form = request_is_form(request);
    struct invitation_msg msg;
    struct field_errors errors = {0};
    enum rc rc;

    if (!invitation_code_valid(request->param)) {
        reply_no_code(reply);
        return RC_INVALID;
    }
    rc = form ? invitation_msg_from_form(request->param, request->body,
                                         request->body_bytes, &msg, &errors)
              : invitation_msg_from_request(request->param, request->body,
                                            request->body_bytes, &msg, &errors);
    if (rc == RC_INVALID && form) {
        show_again(request, &errors, reply);
    } else if (rc == RC_INVALID) {
        reply_problem(reply, 400, "invalid_body",
                      "The body does not ask for a place: see errors.",
                      &errors);
    } else if (rc == RC_OK) {
        invitation_msg_encode(&msg, body);
        rc = text_failed(body) ? RC_NOMEM : RC_OK;
    }
    return rc;
}

static void
answer_request(const struct request *request, struct reply *reply)
{
    char id[UUID_TEXT_BYTES];

    reply->status = 202;
    if (request_is_form(request)) {
        put_page_headers(reply);
        invitation_page_thanks(&reply->body, request->param);
        return;
    }
    put_headers(reply);
    text_puts(&reply->body, "{\"id\":\"");
    text_puts(&reply->body, uuid_format(&request->id, id));
    text_puts(&reply->body, "\"}");
}

/* Does a person with a browser ask? Who sends JSON, or forgets to say what, is
 * a program whatever it accepts. */
static bool
is_person(const struct request *request)
{
    if (request_is_form(request)) {
        return true;
    }
    return (request->body_bytes == 0 || !request_is_json(request)) &&
           request_prefers_html(request);
}

static void
on_problem(const struct request *request, struct reply *reply)
{
    bool code = invitation_code_valid(request->param);

    if (!is_person(request)) {
        put_headers(reply);
        return;
    }
    text_reset(&reply->body);
    put_page_headers(reply);
    invitation_page_error(&reply->body, reply->status,
                          code ? request->param : NULL);
}

static const struct edge_route routes[] = {
    {.method = "GET",
     .path = "/invitations/{id}",
     .show = show_form,
     .open = true},
    {.method = "POST",
     .path = "/invitations/{id}",
     .service = SERVICE_INVITATION,
     .accept = accept_request,
     .answer = answer_request,
     .form = true,
     .open = true},
};

int
main(int argc, char **argv)
{
    const struct edge_app app = {
        .name = "invitation.fcgi",
        .routes = routes,
        .route_count = ARRAY_COUNT(routes),
        .on_problem = on_problem,
    };

    return edge_main(argc, argv, &app);
}
