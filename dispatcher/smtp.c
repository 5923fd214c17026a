/* SMTP through curl_multi.
 *
 * Who refused what is read from what curl writes and reads (its debug
 * function): the last command and the last answer to it. curl's own codes do
 * not tell RCPT TO from DATA.
 *
 * When curl closes a connection it says QUIT and waits for the answer, which
 * holds up the thread, and for long if the server hangs. So before that happens
 * the connection's reading side is shut: QUIT still goes out, and the wait for
 * its answer ends at once. */
#include "dispatcher/smtp.h"

#include <assert.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shared/text.h"

#define WAIT_FDS 4
#define IDLE_S 20L /* servers under stress hang up after so long */
#define ERROR_BYTES SMTP_TEXT_BYTES
#define REPLY_BYTES 512
#define NO_UTF8_STATUS 553 /* RFC 6531 section 3.5 */

enum command {
    COMMAND_CONNECT, /* none yet: the greeting */
    COMMAND_EHLO,
    COMMAND_STARTTLS,
    COMMAND_AUTH,
    COMMAND_MAIL,
    COMMAND_RCPT,
    COMMAND_DATA, /* and the message */
    COMMAND_QUIT,
    COMMAND_COUNT
};

/* begin: of its line. name: as it is told. */
static const struct {
    const char *begin;
    const char *name;
} commands[COMMAND_COUNT] = {
    [COMMAND_CONNECT] = {NULL, "greeting"},
    [COMMAND_EHLO] = {"EHLO ", "EHLO"},
    [COMMAND_STARTTLS] = {"STARTTLS\r", "STARTTLS"},
    [COMMAND_AUTH] = {"AUTH ", "AUTH"},
    [COMMAND_MAIL] = {"MAIL FROM:", "MAIL FROM"},
    [COMMAND_RCPT] = {"RCPT TO:", "RCPT TO"},
    [COMMAND_DATA] = {"DATA\r", "DATA"},
    [COMMAND_QUIT] = {"QUIT\r", "QUIT"},
};

struct slot {
    struct smtp *owner;
    CURL *easy;
    struct curl_slist *to;
    void *tag;
    char *data;
    size_t bytes;
    size_t read_bytes; /* by curl */
    enum command command;
    int status;              /* the last answer's, to command; 0: none yet */
    char reply[REPLY_BYTES]; /* its text, cleaned */
    int ehlo_status;         /* the answer after which HELO was said; 0: none */
    bool is_wide;            /* the recipient needs SMTPUTF8 */
    bool lacks_utf8;         /* and the server does not offer it */
    bool is_over;            /* QUIT was said */
};

struct smtp {
    CURLM *multi;
    struct slot slots[SMTP_MAX_IN_FLIGHT];
    size_t in_flight;
    smtp_done *done;
    void *arg;
    char *url;
    char *username;
    char *password;
    char *ca_file;
    enum smtp_tls tls;
    size_t max_in_flight;
    int64_t timeout_ms;
    int *fds; /* curl's sockets */
    size_t fds_count;
    size_t fds_capacity;
};

/* ---- curl's sockets ---------------------------------------------------------
 */

static curl_socket_t
on_open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct smtp *s = arg;
    int fd;

    (void)purpose;
    if (s->fds_count == s->fds_capacity) {
        size_t capacity = s->fds_capacity == 0 ? 16 : s->fds_capacity * 2;
        int *fds = realloc(s->fds, capacity * sizeof(*fds));

        if (fds == NULL) {
            return CURL_SOCKET_BAD;
        }
        s->fds = fds;
        s->fds_capacity = capacity;
    }
    fd = socket(address->family, address->socktype | SOCK_CLOEXEC,
                address->protocol);
    if (fd < 0) {
        return CURL_SOCKET_BAD;
    }
    s->fds[s->fds_count++] = fd;
    return fd;
}

static int
on_close_socket(void *arg, curl_socket_t fd)
{
    struct smtp *s = arg;

    for (size_t i = 0; i < s->fds_count; i++) {
        if (s->fds[i] == fd) {
            s->fds[i] = s->fds[--s->fds_count];
            break;
        }
    }
    return close(fd);
}

static in_port_t
local_port(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address;
    socklen_t bytes = sizeof(address);

    if (getsockname(fd, &address.any, &bytes) != 0) {
        return 0;
    }
    return ntohs(address.any.sa_family == AF_INET6 ? address.v6.sin6_port
                                                   : address.v4.sin_port);
}

/* Nothing more is read from the connection that easy uses. curl tells which one
 * by its port only: CURLINFO_ACTIVESOCKET is for CONNECT_ONLY. */
static void
stop_reading(const struct smtp *s, CURL *easy)
{
    long port = 0;

    (void)curl_easy_getinfo(easy, CURLINFO_LOCAL_PORT, &port);
    for (size_t i = 0; port != 0 && i < s->fds_count; i++) {
        if (local_port(s->fds[i]) == port) {
            (void)shutdown(s->fds[i], SHUT_RD);
        }
    }
}

/* ---- what is said -----------------------------------------------------------
 */

static bool
begins(const char *data, size_t bytes, const char *begin)
{
    return bytes >= strlen(begin) && memcmp(data, begin, strlen(begin)) == 0;
}

static enum command
command_of(const char *data, size_t bytes)
{
    for (enum command c = COMMAND_EHLO; c < COMMAND_COUNT; c++) {
        if (begins(data, bytes, commands[c].begin)) {
            return c;
        }
    }
    return begins(data, bytes, "HELO ") ? COMMAND_EHLO : COMMAND_COUNT;
}

static void
note_sent(struct slot *slot, const char *data, size_t bytes)
{
    enum command command = command_of(data, bytes);

    /* What follows AUTH may look like anything, and QUIT is no part of it. */
    if (command == COMMAND_COUNT ||
        (slot->command == COMMAND_AUTH && command != COMMAND_MAIL &&
         command != COMMAND_AUTH)) {
        return;
    }
    if (command == COMMAND_QUIT) {
        slot->is_over = true;
        return;
    }
    /* curl's second choice, without extensions. The next mail says EHLO again,
     * on another connection. */
    if (begins(data, bytes, "HELO ")) {
        slot->ehlo_status = slot->status;
        (void)curl_easy_setopt(slot->easy, CURLOPT_FORBID_REUSE, 1L);
    }
    if (command == COMMAND_MAIL && slot->is_wide) {
        slot->lacks_utf8 = memmem(data, bytes, " SMTPUTF8", 9) == NULL;
    }
    slot->command = command;
    slot->status = 0;
    slot->reply[0] = '\0';
}

/* Add a line of the answer behind the others, as one line of UTF-8. */
static void
add_reply(struct slot *slot, const char *data, size_t bytes)
{
    size_t used = strlen(slot->reply);

    if (used > 0 && used < REPLY_BYTES - 1) {
        slot->reply[used++] = ' ';
    }
    while (bytes > 0) {
        size_t length = text_utf8_length(data, bytes);
        bool is_seen =
            length > 1 || (length == 1 && *data > ' ' && *data != 0x7f);
        bool is_blank = !is_seen && used > 0 && slot->reply[used - 1] != ' ';

        length = length > 0 ? length : 1;
        if (used + length >= REPLY_BYTES) {
            break;
        }
        if (is_seen) {
            memcpy(slot->reply + used, data, length);
            used += length;
        } else if (is_blank) {
            slot->reply[used++] = ' ';
        }
        data += length;
        bytes -= length;
    }
    while (used > 0 && slot->reply[used - 1] == ' ') {
        used--;
    }
    slot->reply[used] = '\0';
}

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A line of an answer: "250-SIZE 1000" or "250 OK". */
static void
note_came(struct slot *slot, const char *data, size_t bytes)
{
    int status;
    bool is_last;

    if (bytes < 3 || !is_digit(data[0]) || !is_digit(data[1]) ||
        !is_digit(data[2])) {
        return;
    }
    status = (data[0] - '0') * 100 + (data[1] - '0') * 10 + data[2] - '0';
    is_last = bytes == 3 || data[3] != '-';
    if (status != slot->status) {
        slot->reply[0] = '\0';
    }
    slot->status = status;
    add_reply(slot, data + 3 + (bytes > 3 ? 1 : 0),
              bytes - 3 - (bytes > 3 ? 1 : 0));
    /* curl gives up here, says QUIT, and would wait minutes for an answer. */
    if (is_last && status >= 400 && slot->command >= COMMAND_MAIL) {
        stop_reading(slot->owner, slot->easy);
    }
}

/* curl says here what it writes and reads. */
static int
on_debug(CURL *easy, curl_infotype type, char *data, size_t bytes, void *arg)
{
    struct slot *slot = arg;

    (void)easy;
    if (!slot->is_over && type == CURLINFO_HEADER_OUT) {
        note_sent(slot, data, bytes);
    } else if (!slot->is_over && type == CURLINFO_HEADER_IN) {
        note_came(slot, data, bytes);
    }
    return 0;
}

/* Called behind each step; ends the mail before RCPT TO is written. */
static int
on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const struct slot *slot = arg;

    (void)a;
    (void)b;
    (void)c;
    (void)d;
    return slot->lacks_utf8 ? 1 : 0;
}

static size_t
on_read(char *out, size_t size, size_t count, void *arg)
{
    struct slot *slot = arg;
    size_t left = slot->bytes - slot->read_bytes;
    size_t bytes = size * count < left ? size * count : left;

    memcpy(out, slot->data + slot->read_bytes, bytes);
    slot->read_bytes += bytes;
    return bytes;
}

static size_t
on_write(char *data, size_t size, size_t count, void *arg)
{
    (void)data;
    (void)arg;
    return size * count;
}

/* ---- its end ----------------------------------------------------------------
 */

/* Whom an answer of 5xx speaks of; WORDS: the words alone tell. */
enum blame { BLAME_WORDS, BLAME_RECIPIENT, BLAME_US };

#define ANY_DETAIL (-1)

/* What enhanced codes (RFC 3463) say of it; the first that fits counts. 5.1.7
 * and 5.1.8 are of the sender's address. 5.1.0 is said of both addresses, so
 * its words decide. All others, such as 5.7.1, are said of us as well as of a
 * recipient. */
static const struct {
    int subject;
    int detail;
    enum blame blame;
} codes[] = {
    {1, 0, BLAME_WORDS},
    {1, 7, BLAME_US},
    {1, 8, BLAME_US},
    {1, ANY_DETAIL, BLAME_RECIPIENT}, /* address */
    {2, ANY_DETAIL, BLAME_RECIPIENT}, /* mailbox */
    {6, 7, BLAME_RECIPIENT},          /* no SMTPUTF8 further on (RFC 6531) */
};

/* Beginnings of words that are about us, whatever else is said: what Postfix,
 * Exim, Sendmail, Exchange and big providers have against a client. */
static const char *const words_against_us[] = {
    "relay",       "sender",      "helo",   "client host", "blocked",
    "blacklist",   "blocklist",   "banned", "quota",       "rate limit",
    "authenticat", "unauthentic", "spf",    "dkim",        "dmarc"};

/* Whole words. */
static const char *const words_of_them[] = {"recipient", "user", "mailbox"};

static bool
is_word_char(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (unsigned char)c >= 0x80;
}

static bool
has_word(const char *text, const char *word, bool is_whole)
{
    const char *at = strcasestr(text, word);

    while (at != NULL) {
        bool is_begin = at == text || !is_word_char(at[-1]);

        if (is_begin && !(is_whole && is_word_char(at[strlen(word)]))) {
            return true;
        }
        at = strcasestr(at + 1, word);
    }
    return false;
}

/* An answer without what stands in <> or holds an @: somebody may be called
 * relay@example.com. */
static void
strip_addresses(const char *text, char out[REPLY_BYTES])
{
    size_t used = 0;

    while (*text != '\0') {
        const char *close = *text == '<' ? strchr(text, '>') : NULL;
        size_t bytes = close != NULL ? (size_t)(close - text) + 1
                                     : 1 + strcspn(text + 1, " <");

        if (*text == ' ' || close != NULL || memchr(text, '@', bytes) != NULL) {
            bytes = *text == ' ' ? 1 : bytes;
            out[used++] = ' ';
        } else {
            memcpy(out + used, text, bytes);
            used += bytes;
        }
        text += bytes;
    }
    out[used] = '\0';
}

/* What the answer's enhanced code says; it begins the text, or is its "#5.7.1"
 * with qmail. */
static enum blame
blame_of_code(const char *reply)
{
    const char *mark = strchr(reply, '#');
    int subject = 0;
    int detail = 0;

    if (sscanf(reply, "5.%3d.%3d", &subject, &detail) != 2 &&
        (mark == NULL || sscanf(mark, "#5.%3d.%3d", &subject, &detail) != 2)) {
        return BLAME_WORDS;
    }
    for (size_t i = 0; i < ARRAY_COUNT(codes); i++) {
        if (codes[i].subject == subject &&
            (codes[i].detail == detail || codes[i].detail == ANY_DETAIL)) {
            return codes[i].blame;
        }
    }
    return BLAME_US;
}

static bool
has_one(const char *text, const char *const *words, size_t count, bool is_whole)
{
    for (size_t i = 0; i < count; i++) {
        if (has_word(text, words[i], is_whole)) {
            return true;
        }
    }
    return false;
}

/* Is an answer of 5xx the recipient's? To DATA it is if the enhanced code is,
 * for a mail has one recipient. To RCPT TO there is more to it: servers say
 * there, too, what they have against us, and that would come for every
 * recipient. The enhanced code of RFC 3463 decides if it is of an address or a
 * mailbox; with any other it is ours, unless the words are of a recipient only;
 * without one it is the recipient's, unless the words are of us. Wrong order
 * (503) and no AUTH (530) are always ours. */
static bool
is_recipients(const struct slot *slot)
{
    enum blame blame = blame_of_code(slot->reply);
    char text[REPLY_BYTES];

    if (slot->status == 503 || slot->status == 530) {
        return false;
    }
    if (blame == BLAME_RECIPIENT || slot->command != COMMAND_RCPT) {
        return blame == BLAME_RECIPIENT && slot->command >= COMMAND_RCPT;
    }
    strip_addresses(slot->reply, text);
    if (has_one(text, words_against_us, ARRAY_COUNT(words_against_us), false)) {
        return false;
    }
    return blame == BLAME_WORDS ||
           has_one(text, words_of_them, ARRAY_COUNT(words_of_them), true);
}

/* EHLO was put off, and without it there is no AUTH and no STARTTLS: that we
 * are refused then tells nothing. */
static bool
is_for_want_of_ehlo(const struct slot *slot)
{
    return slot->ehlo_status >= 400 && slot->ehlo_status < 500 &&
           slot->command >= COMMAND_MAIL;
}

static enum smtp_end
end_of(const struct slot *slot, CURLcode code)
{
    if (code == CURLE_OK) {
        return SMTP_SENT;
    }
    if (slot->lacks_utf8) {
        return slot->ehlo_status > 0 ? SMTP_LATER : SMTP_RECIPIENT_REFUSED;
    }
    if (slot->status >= 500 && is_recipients(slot)) {
        return SMTP_RECIPIENT_REFUSED;
    }
    if (slot->status >= 500) {
        return is_for_want_of_ehlo(slot) ? SMTP_LATER : SMTP_WE_ARE_REFUSED;
    }
    if (slot->status >= 400) {
        return SMTP_LATER;
    }
    return code == CURLE_PEER_FAILED_VERIFICATION ||
                   code == CURLE_USE_SSL_FAILED || code == CURLE_LOGIN_DENIED ||
                   code == CURLE_SSL_CACERT_BADFILE
               ? SMTP_WE_ARE_REFUSED
               : SMTP_LATER;
}

/* text as far as it goes, in whole characters of UTF-8. */
static void
shorten(const char *text, char out[ERROR_BYTES])
{
    size_t left = strlen(text);
    size_t used = 0;

    while (left > 0) {
        size_t bytes = text_utf8_length(text + used, left);

        bytes = bytes > 0 ? bytes : 1;
        if (used + bytes >= ERROR_BYTES) {
            break;
        }
        memcpy(out + used, text + used, bytes);
        used += bytes;
        left -= bytes;
    }
    out[used] = '\0';
}

static void
say(const struct slot *slot, CURLcode code, struct smtp_result *result,
    char text[ERROR_BYTES])
{
    const char *command = commands[slot->command].name;
    char whole[REPLY_BYTES + 32];

    if (slot->lacks_utf8 && slot->ehlo_status > 0) {
        result->status = slot->ehlo_status;
        (void)snprintf(whole, sizeof(whole),
                       "EHLO: %d, and without it no SMTPUTF8",
                       slot->ehlo_status);
    } else if (slot->lacks_utf8) {
        result->status = NO_UTF8_STATUS;
        (void)snprintf(whole, sizeof(whole),
                       "the server takes no address beyond ASCII (SMTPUTF8)");
    } else if (slot->status >= 400) {
        result->status = slot->status;
        (void)snprintf(whole, sizeof(whole), "%s: %d %s", command, slot->status,
                       slot->reply);
    } else {
        (void)snprintf(whole, sizeof(whole), "%s: %s", command,
                       curl_easy_strerror(code));
    }
    shorten(whole, text);
}

static void
release(struct slot *slot)
{
    curl_slist_free_all(slot->to);
    slot->to = NULL;
    free(slot->data);
    slot->data = NULL;
    slot->tag = NULL;
}

static void
end(struct slot *slot, CURLcode code)
{
    struct smtp *s = slot->owner;
    struct smtp_result result = {.end = end_of(slot, code), .tag = slot->tag};
    char text[ERROR_BYTES] = "";
    curl_off_t total_us = 0;

    (void)curl_easy_getinfo(slot->easy, CURLINFO_TOTAL_TIME_T, &total_us);
    if (result.end != SMTP_SENT) {
        say(slot, code, &result, text);
    } else {
        result.status = slot->status;
    }
    result.duration_ms = (int64_t)total_us / 1000;
    result.text = text;
    release(slot);
    curl_easy_cleanup(slot->easy);
    slot->easy = NULL;
    s->in_flight--;
    s->done(s->arg, &result);
}

void
smtp_drive(struct smtp *s)
{
    int left = 0;
    CURLMsg *message;

    (void)curl_multi_perform(s->multi, &left);
    for (message = curl_multi_info_read(s->multi, &left); message != NULL;
         message = curl_multi_info_read(s->multi, &left)) {
        CURL *easy = message->easy_handle;
        CURLcode code = message->data.result; /* dies with the removal */
        struct slot *slot = NULL;

        (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&slot);
        (void)curl_multi_remove_handle(s->multi, easy);
        end(slot, code);
    }
}

void
smtp_wait(struct smtp *s, const int *fds, size_t count, int64_t timeout_ms)
{
    struct curl_waitfd extra[WAIT_FDS];

    for (size_t i = 0; i < count && i < WAIT_FDS; i++) {
        extra[i] =
            (struct curl_waitfd){.fd = fds[i], .events = CURL_WAIT_POLLIN};
    }
    (void)curl_multi_poll(s->multi, extra, (unsigned)count,
                          timeout_ms > 60000 ? 60000 : (int)timeout_ms, NULL);
}

/* ---- a mail -----------------------------------------------------------------
 */

/* In what follows, bad stays CURLE_OK (0) only if every option is taken. */
static CURLcode
set_calls(struct slot *slot)
{
    CURL *easy = slot->easy;
    CURLcode bad = CURLE_OK;

    bad |= curl_easy_setopt(easy, CURLOPT_PRIVATE, slot);
    bad |= curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
    bad |= curl_easy_setopt(easy, CURLOPT_READDATA, slot);
    bad |= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_write);
    bad |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open_socket);
    bad |= curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, slot->owner);
    bad |= curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close_socket);
    bad |= curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, slot->owner);
    bad |= curl_easy_setopt(easy, CURLOPT_DEBUGFUNCTION, on_debug);
    bad |= curl_easy_setopt(easy, CURLOPT_DEBUGDATA, slot);
    bad |= curl_easy_setopt(easy, CURLOPT_VERBOSE, 1L); /* for on_debug */
    bad |= curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
    bad |= curl_easy_setopt(easy, CURLOPT_XFERINFODATA, slot);
    bad |= curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    return bad;
}

static CURLcode
set_connection(const struct smtp *s, CURL *easy)
{
    static const long use_ssl[] = {
        [SMTP_TLS_NONE] = CURLUSESSL_NONE,
        [SMTP_TLS_TRY] = CURLUSESSL_TRY,
        [SMTP_TLS_REQUIRE] = CURLUSESSL_ALL,
    };
    bool is_verified =
        s->tls != SMTP_TLS_TRY || strncasecmp(s->url, "smtps:", 6) == 0;
    CURLcode bad = CURLE_OK;

    bad |= curl_easy_setopt(easy, CURLOPT_URL, s->url);
    bad |= curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "smtp,smtps");
    bad |= curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* see transfers */
    bad |= curl_easy_setopt(easy, CURLOPT_PROXY, "");
    bad |= curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    bad |= curl_easy_setopt(easy, CURLOPT_TCP_NODELAY, 1L);
    bad |= curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, IDLE_S);
    bad |= curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)s->timeout_ms);
    bad |=
        curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)s->timeout_ms);
    bad |= curl_easy_setopt(easy, CURLOPT_USE_SSL, use_ssl[s->tls]);
    bad |=
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, is_verified ? 1L : 0L);
    bad |=
        curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, is_verified ? 2L : 0L);
    if (s->ca_file != NULL) {
        bad |= curl_easy_setopt(easy, CURLOPT_CAINFO, s->ca_file);
    }
    if (s->username[0] != '\0') {
        bad |= curl_easy_setopt(easy, CURLOPT_USERNAME, s->username);
        bad |= curl_easy_setopt(easy, CURLOPT_PASSWORD, s->password);
    }
    return bad;
}

static bool
is_ascii(const char *value)
{
    for (; *value != '\0'; value++) {
        if ((unsigned char)*value >= 0x80) {
            return false;
        }
    }
    return true;
}

static bool
prepare(struct slot *slot, const struct smtp_mail *mail)
{
    CURLcode bad = CURLE_OK;

    slot->command = COMMAND_CONNECT;
    slot->status = 0;
    slot->reply[0] = '\0';
    slot->ehlo_status = 0;
    slot->is_wide = !is_ascii(mail->to);
    slot->lacks_utf8 = false;
    slot->is_over = false;
    slot->tag = mail->tag;
    slot->bytes = mail->bytes;
    slot->read_bytes = 0;
    slot->data = malloc(mail->bytes + 1);
    slot->to = curl_slist_append(NULL, mail->to);
    slot->easy = curl_easy_init();
    if (slot->data == NULL || slot->to == NULL || slot->easy == NULL) {
        return false;
    }
    memcpy(slot->data, mail->data, mail->bytes);
    bad |= set_calls(slot);
    bad |= set_connection(slot->owner, slot->easy);
    bad |= curl_easy_setopt(slot->easy, CURLOPT_UPLOAD, 1L);
    bad |= curl_easy_setopt(slot->easy, CURLOPT_INFILESIZE_LARGE,
                            (curl_off_t)mail->bytes);
    bad |= curl_easy_setopt(slot->easy, CURLOPT_MAIL_FROM, mail->from);
    bad |= curl_easy_setopt(slot->easy, CURLOPT_MAIL_RCPT, slot->to);
    return bad == CURLE_OK;
}

enum rc
smtp_start(struct smtp *s, const struct smtp_mail *mail)
{
    struct slot *slot = s->slots;

    if (s->in_flight >= s->max_in_flight) {
        return RC_FULL;
    }
    while (slot->easy != NULL) {
        slot++;
    }
    slot->owner = s;
    if (!prepare(slot, mail) ||
        curl_multi_add_handle(s->multi, slot->easy) != CURLM_OK) {
        release(slot);
        curl_easy_cleanup(slot->easy);
        slot->easy = NULL;
        return RC_AGAIN;
    }
    s->in_flight++;
    return RC_OK;
}

size_t
smtp_in_flight(const struct smtp *s)
{
    return s->in_flight;
}

/* ---- life -------------------------------------------------------------------
 */

static void
forget_options(struct smtp *s)
{
    free(s->url);
    free(s->username);
    if (s->password != NULL) {
        explicit_bzero(s->password, strlen(s->password));
    }
    free(s->password);
    free(s->ca_file);
}

/* No mail is under way. They may say QUIT. */
static void
close_idle(struct smtp *s)
{
    for (size_t i = 0; i < s->fds_count; i++) {
        (void)shutdown(s->fds[i], SHUT_RD);
    }
    (void)curl_multi_cleanup(s->multi);
    s->multi = NULL;
}

enum rc
smtp_set(struct smtp *s, const struct smtp_options *options)
{
    struct smtp fresh = {.url = strdup(options->url),
                         .username = strdup(options->username),
                         .password = strdup(options->password),
                         .multi = curl_multi_init()};

    assert(s->in_flight == 0);
    if (options->ca_file != NULL) {
        fresh.ca_file = strdup(options->ca_file);
    }
    if (fresh.multi == NULL || fresh.url == NULL || fresh.username == NULL ||
        fresh.password == NULL ||
        (options->ca_file != NULL && fresh.ca_file == NULL)) {
        forget_options(&fresh);
        (void)curl_multi_cleanup(fresh.multi);
        return RC_NOMEM;
    }
    /* curl 7.88 would use an idle connection in clear again where TLS is
     * required now: it does not compare that. */
    close_idle(s);
    s->multi = fresh.multi;
    forget_options(s);
    s->url = fresh.url;
    s->username = fresh.username;
    s->password = fresh.password;
    s->ca_file = fresh.ca_file;
    s->tls = options->tls;
    s->timeout_ms = options->timeout_ms;
    s->max_in_flight = options->max_in_flight < SMTP_MAX_IN_FLIGHT
                           ? options->max_in_flight
                           : SMTP_MAX_IN_FLIGHT;
    /* Room for all that may be, for curl says QUIT to those above. */
    (void)curl_multi_setopt(s->multi, CURLMOPT_MAXCONNECTS,
                            (long)SMTP_MAX_IN_FLIGHT);
    return RC_OK;
}

enum rc
smtp_new(struct smtp **out, const struct smtp_options *options, smtp_done *done,
         void *arg)
{
    struct smtp *s;
    enum rc rc;

    *out = NULL;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return RC_NOMEM;
    }
    s = calloc(1, sizeof(*s));
    if (s == NULL) {
        curl_global_cleanup();
        return RC_NOMEM;
    }
    s->done = done;
    s->arg = arg;
    rc = smtp_set(s, options);
    if (rc != RC_OK) {
        smtp_free(&s);
    }
    *out = s;
    return rc;
}

void
smtp_free(struct smtp **out)
{
    struct smtp *s = *out;

    *out = NULL;
    if (s == NULL) {
        return;
    }
    /* A transfer that is removed has libcurl send the mail's end, wherever it
     * is: half a mail would be taken for a whole. Idle connections may QUIT. */
    for (size_t i = 0; i < s->fds_count; i++) {
        (void)shutdown(s->fds[i], s->in_flight > 0 ? SHUT_RDWR : SHUT_RD);
    }
    for (size_t i = 0; i < SMTP_MAX_IN_FLIGHT; i++) {
        struct slot *slot = &s->slots[i];

        if (slot->easy != NULL) {
            slot->is_over = true;
            (void)curl_multi_remove_handle(s->multi, slot->easy);
            curl_easy_cleanup(slot->easy);
            release(slot);
        }
    }
    if (s->multi != NULL) {
        (void)curl_multi_cleanup(s->multi); /* closes the idle ones */
    }
    forget_options(s);
    free(s->fds);
    free(s);
    curl_global_cleanup();
}
