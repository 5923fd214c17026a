/* HTML for people. Without style sheet the order of the text alone tells all;
 * the colours keep 4.5:1 against their background, in light and in dark. */
#include "fcgi/invitation_page.h"

#include <string.h>

#define STYLE                                                                  \
    ":root{color-scheme:light dark;--ground:#fff;--text:#1a1a1a;"              \
    "--quiet:#555;--line:#6b6b6b;--act:#0b57d0;--on-act:#fff;--bad:#b3261e}"   \
    "@media (prefers-color-scheme:dark){:root{--ground:#121212;"               \
    "--text:#e8e8e8;--quiet:#b4b4b4;--line:#8f8f8f;--act:#8ab4f8;"             \
    "--on-act:#121212;--bad:#f2b8b5}}"                                         \
    "*{box-sizing:border-box}"                                                 \
    "body{margin:0;background:var(--ground);color:var(--text);"                \
    "font:1.125rem/1.5 system-ui,sans-serif}"                                  \
    "main{max-width:34rem;margin:0 auto;padding:2rem 1rem}"                    \
    "h1{font-size:1.75rem;line-height:1.2;margin:0 0 1rem}"                    \
    "p{margin:0 0 1rem;overflow-wrap:anywhere}"                                \
    "label{display:block;font-weight:600}"                                     \
    "a{color:var(--act)}"                                                      \
    "input,button{font:inherit;width:100%;padding:.625rem .75rem;"             \
    "border-radius:.375rem}"                                                   \
    "input{margin:.25rem 0 1rem;color:inherit;background:var(--ground);"       \
    "border:1px solid var(--line)}"                                            \
    "input[aria-invalid]{border:2px solid var(--bad)}"                         \
    "button{color:var(--on-act);background:var(--act);font-weight:600;"        \
    "border:1px solid var(--act);cursor:pointer}"                              \
    "a:focus-visible,input:focus-visible,button:focus-visible{"                \
    "outline:3px solid var(--act);outline-offset:2px}"                         \
    "#email-hint{margin:0;color:var(--quiet)}"                                 \
    "#email-error{margin:0;color:var(--bad);font-weight:600}"                  \
    "@media (min-width:30rem){button{width:auto;min-width:12rem}"              \
    "main{padding-top:4rem}}"

/* Of the bytes between <style> and </style>, base64; a test compares. */
#define STYLE_HASH "sha256-QSHpD1IsqYYsLQlMC5zhjlHHGKGG6N7aIqY+5uGBO6U="

#define OF_THE_ADDRESS "The address "
#define OF_THE_WHOLE "The form could not be read: "

struct problem {
    int status;
    const char *title;
    const char *advice;
};

/* The last one stands for all others. */
static const struct problem problems[] = {
    {404, "There is no such page",
     "The link may not be whole. An invitation's link ends with its code: "
     "small letters, digits and hyphens."},
    {405, "This page is only a form",
     "Open the link of your invitation, and send the form that it shows."},
    {408, "That took too long",
     "Your request did not arrive in time, and was not taken. Please send it "
     "again."},
    {413, "That was too much",
     "What was sent is longer than any form of ours, and was not taken."},
    {415, "That was not our form",
     "What was sent is of a kind that is not known here, and was not taken."},
    {503, "Please try again in a moment",
     "Many people are asking at once, or a part of this service is being "
     "mended. Wait for some seconds, then send the form again. Asking twice "
     "does no harm."},
    {0, "That did not work",
     "Your request was not understood, and was not "
     "taken."},
};

const char *
invitation_page_policy(void)
{
    return "default-src 'none'; style-src '" STYLE_HASH
           "'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
}

/* What stands for c in text and in attributes; NULL: itself. */
static const char *
entity(char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    case '\t':
    case '\n':
        return NULL;
    default:
        return (unsigned char)c < ' ' || c == '\x7f' ? "\xef\xbf\xbd" : NULL;
    }
}

void
invitation_page_escape(struct text *out, const char *string)
{
    size_t left = strlen(string);

    while (left > 0) {
        size_t bytes = text_utf8_length(string, left);
        const char *instead = bytes == 1 ? entity(*string) : NULL;

        if (bytes == 0) {
            bytes = 1;
            instead = "\xef\xbf\xbd";
        }
        if (instead != NULL) {
            text_puts(out, instead);
        } else {
            text_append(out, string, bytes);
        }
        string += bytes;
        left -= bytes;
    }
}

static void
begin(struct text *out, const char *title, const char *heading)
{
    text_puts(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n"
                   "<meta charset=\"utf-8\">\n<title>");
    text_puts(out, title);
    text_puts(out, "</title>\n<meta name=\"viewport\" "
                   "content=\"width=device-width, initial-scale=1\">\n"
                   "<meta name=\"robots\" content=\"noindex\">\n"
                   "<style>" STYLE "</style>\n</head>\n<body>\n<main>\n<h1>");
    text_puts(out, heading);
    text_puts(out, "</h1>\n");
}

static void
end(struct text *out)
{
    text_puts(out, "</main>\n</body>\n</html>\n");
}

/* The page's own address, relative: the service may stand below a folder. */
static void
put_link(struct text *out, const char *code, const char *words)
{
    text_puts(out, "<p><a href=\"");
    invitation_page_escape(out, code);
    text_puts(out, "\">");
    text_puts(out, words);
    text_puts(out, "</a></p>\n");
}

/* Of the address, "is missing" continues a sentence, and others are whole. What
 * is said of the whole body is no sentence: "not valid form data at byte 7". */
static void
put_reason(struct text *out, const struct field_error *error)
{
    bool whole = error->field[0] == '\0';
    bool continues = error->reason[0] >= 'a' && error->reason[0] <= 'z';

    text_puts(out, "<p id=\"email-error\">");
    if (whole) {
        text_puts(out, OF_THE_WHOLE);
    } else if (continues) {
        text_puts(out, OF_THE_ADDRESS);
    }
    invitation_page_escape(out, error->reason);
    text_puts(out, whole || continues ? "." : "");
    text_puts(out, "</p>\n");
}

/* No type="email": browsers refuse addresses beyond ASCII in it, and would
 * show reasons of their own. With an error the field is where one begins. */
static void
put_field(struct text *out, const char *typed, const struct field_error *error)
{
    text_puts(out, "<label for=\"email\">Your e-mail address</label>\n"
                   "<p id=\"email-hint\">For example: jo@example.com</p>\n");
    if (error != NULL) {
        put_reason(out, error);
    }
    text_puts(out, "<input id=\"email\" name=\"email\" type=\"text\" "
                   "inputmode=\"email\" autocomplete=\"email\" "
                   "autocapitalize=\"none\" spellcheck=\"false\" required "
                   "aria-describedby=\"email-hint");
    text_puts(out, error != NULL
                       ? " email-error\" aria-invalid=\"true\" autofocus"
                       : "\"");
    text_puts(out, " value=\"");
    invitation_page_escape(out, typed);
    text_puts(out, "\">\n");
}

void
invitation_page_form(struct text *out, const char *code, const char *typed,
                     const struct field_error *error)
{
    begin(out,
          error != NULL ? "Error: Ask for an invitation"
                        : "Ask for an invitation",
          "Ask for an invitation");
    text_puts(out, "<p>Invitation <strong>");
    invitation_page_escape(out, code);
    text_puts(out, "</strong>. Places are given in the order in which people "
                   "ask. We write to you whether you got one or not.</p>\n"
                   "<form method=\"post\" action=\"");
    invitation_page_escape(out, code);
    text_puts(out, "\">\n");
    put_field(out, typed, error);
    text_puts(out, "<button type=\"submit\">Ask for a place</button>\n"
                   "</form>\n");
    end(out);
}

void
invitation_page_thanks(struct text *out, const char *code)
{
    begin(out, "Thank you", "Thank you");
    text_puts(out, "<p>We have your request. A mail will tell you whether "
                   "there was a place for you. It may take some minutes; "
                   "please look among unwanted mail, too.</p>\n");
    put_link(out, code, "Did you mistype your address? Ask again");
    end(out);
}

void
invitation_page_error(struct text *out, int status, const char *code)
{
    const struct problem *p = problems;

    while (p->status != status && p->status != 0) {
        p++;
    }
    begin(out, p->title, p->title);
    text_puts(out, "<p>");
    text_puts(out, p->advice);
    text_puts(out, "</p>\n");
    if (code != NULL) {
        put_link(out, code, "To the form");
    }
    end(out);
}
