/* The mailer's thread. It holds up to MAILS_MAX mails: read from MongoDB,
 * under way, or ended and not yet written down. Ended ones are written together
 * after 50 ms to 1 s, or as soon as nothing else is left to do; if we are
 * killed before, those are sent again.
 *
 * Whether a mail is still due must be known shortly before it leaves: what has
 * not left within 2 s is looked up again. What takes MongoDB long is asked
 * less often. */
#include "dispatcher/mailer.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "dispatcher/backoff.h"
#include "dispatcher/mail_message.h"
#include "dispatcher/mail_template.h"
#include "dispatcher/smtp.h"
#include "shared/clock.h"
#include "shared/log.h"

#define POLL_MS 1000
#define COUNT_MS 5000 /* how often waiting mails are counted */
#define GATHER_MS 50
#define GATHER_MAX_MS 1000
#define GATHER_PART 4 /* of the time that writing takes */
#define STALE_MS 2000
#define TAKES_PART 20     /* of the time, what is asked again and again */
#define STORE_BASE_MS 250 /* MongoDB is away: up to BACKOFF_MAX_MS */
#define COMMANDS_MAX 50   /* to MongoDB, one after the other */
#define HELD_MAX MAILS_MAX

enum place { PLACE_FREE, PLACE_READY, PLACE_LEFT, PLACE_ENDED };

struct held {
    enum place place;
    bool is_probe;
    struct mail mail;
};

/* What can be changed while it runs. */
struct settings {
    struct conf_mail conf;
    struct mail_sender sender;
    struct mail_templates *templates;
};

struct mailer {
    pthread_t thread;
    pthread_mutex_t mutex; /* of fresh, paused and reason */
    struct settings *fresh;
    bool paused;
    char reason[MAIL_ERROR_BYTES]; /* of the pause; "": none */
    atomic_bool stop;
    atomic_bool woken;
    atomic_bool is_ours; /* the node, and so its mails */
    atomic_llong waiting;
    int wake_fd;
    /* The thread's own from here on. */
    struct metrics *metrics;
    const struct mails_ops *ops;
    void *store;
    struct settings *settings;
    struct smtp *smtp;
    struct outbox outbox;
    bool is_changing;  /* no mail leaves until those under way ended */
    struct held *held; /* HELD_MAX */
    struct mail *page; /* HELD_MAX */
    size_t counts[PLACE_ENDED + 1];
    struct mail_content content;
    struct text message;
    struct backoff backoff;
    int64_t now_ms;
    int64_t poll_ms;   /* look for due mails then */
    int64_t count_ms;  /* count those that wait then */
    int64_t stale_ms;  /* look up the ready ones again then */
    int64_t gather_ms; /* before ended ones are written */
    int64_t ended_ms;  /* when the first ended one ended */
    int64_t store_ms;  /* MongoDB is not asked before */
    int64_t failures;  /* of MongoDB, in a row */
};

static void
move(struct mailer *m, struct held *h, enum place to)
{
    m->counts[h->place]--;
    m->counts[to]++;
    h->place = to;
}

static struct held *
find(struct mailer *m, enum place place)
{
    for (size_t i = 0; i < HELD_MAX; i++) {
        if (m->held[i].place == place) {
            return &m->held[i];
        }
    }
    return NULL;
}

/* ---- settings ---------------------------------------------------------------
 */

static void
settings_free(struct settings **out)
{
    struct settings *s = *out;

    *out = NULL;
    if (s != NULL) {
        mail_templates_free(&s->templates);
        explicit_bzero(s->conf.password, sizeof(s->conf.password));
        free(s);
    }
}

static void
log_lines(const struct text *errors)
{
    const char *at = text_cstr(errors);

    while (*at != '\0') {
        size_t bytes = strcspn(at, "\n");
        char line[512];
        char quoted[1024];

        (void)snprintf(line, sizeof(line), "%.*s", (int)bytes, at);
        log_event(LOG_ERROR, "mail_settings_bad", "error=%s",
                  log_quote(line, quoted, sizeof(quoted)));
        at += bytes + (at[bytes] == '\n' ? 1 : 0);
    }
}

/* Would the password leave this machine over a connection that anybody may read
 * or answer? Whoever sets mail.tls = none has said so. */
static bool
shows_password(const struct conf_mail *conf)
{
    static const char *const local[] = {"localhost", "127.0.0.1", "[::1]"};
    const char *host = strstr(conf->url, "://");
    bool is_local = false;

    host = host != NULL ? host + 3 : conf->url;
    for (size_t i = 0; i < ARRAY_COUNT(local); i++) {
        size_t bytes = strlen(local[i]);

        is_local =
            is_local ||
            (strncasecmp(host, local[i], bytes) == 0 &&
             (host[bytes] == '\0' || host[bytes] == ':' || host[bytes] == '/'));
    }
    return conf->username[0] != '\0' && strcmp(conf->tls, "try") == 0 &&
           strncasecmp(conf->url, "smtps:", 6) != 0 && !is_local;
}

static enum rc
settings_new(struct settings **out, const struct conf *conf)
{
    struct settings *s = calloc(1, sizeof(*s));
    struct text errors = {0};
    enum rc rc = RC_NOMEM;

    *out = NULL;
    if (s == NULL) {
        return RC_NOMEM;
    }
    s->conf = conf->mail;
    rc = mail_sender_parse(s->conf.from, &s->sender);
    if (rc != RC_OK) {
        text_puts(&errors, "mail.from is no sender: Name <local@host>");
    } else if (shows_password(&s->conf)) {
        text_puts(&errors, "mail.username with mail.tls = try: the password "
                           "might go to anybody; set mail.tls = require");
        rc = RC_INVALID;
    } else {
        rc = mail_templates_read(
            &s->templates, mail_templates_folder(s->conf.templates), &errors);
    }
    log_lines(&errors);
    text_free(&errors);
    if (rc != RC_OK) {
        settings_free(&s);
    }
    *out = s;
    return rc;
}

enum rc
mailer_check(const struct conf *conf)
{
    struct settings *s = NULL;
    enum rc rc = settings_new(&s, conf);

    settings_free(&s);
    return rc;
}

static enum smtp_tls
tls_of(const char *word)
{
    if (strcmp(word, "require") == 0) {
        return SMTP_TLS_REQUIRE;
    }
    return strcmp(word, "none") == 0 ? SMTP_TLS_NONE : SMTP_TLS_TRY;
}

static struct smtp_options
smtp_options_of(const struct conf_mail *conf)
{
    return (struct smtp_options){
        .url = conf->url,
        .tls = tls_of(conf->tls),
        .username = conf->username,
        .password = conf->password,
        .max_in_flight = (size_t)conf->max_in_flight,
        .timeout_ms = conf->timeout_ms,
    };
}

static struct outbox_options
outbox_options_of(const struct conf_mail *conf)
{
    return (struct outbox_options){
        .max_per_s = conf->max_per_s,
        .retry_base_ms = conf->retry_base_ms,
        .retry_for_s = conf->retry_for_s,
        .pause_ms = conf->pause_ms,
    };
}

/* Only when no mail is under way, for the connections end with the settings
 * that they were made with. */
static void
take_settings(struct mailer *m)
{
    struct settings *fresh;
    struct smtp_options smtp;
    struct outbox_options outbox;

    pthread_mutex_lock(&m->mutex);
    m->is_changing = m->fresh != NULL && smtp_in_flight(m->smtp) > 0;
    fresh = m->is_changing ? NULL : m->fresh;
    m->fresh = m->is_changing ? m->fresh : NULL;
    pthread_mutex_unlock(&m->mutex);
    if (fresh == NULL) {
        return;
    }
    smtp = smtp_options_of(&fresh->conf);
    outbox = outbox_options_of(&fresh->conf);
    if (smtp_set(m->smtp, &smtp) != RC_OK) {
        settings_free(&fresh);
        return;
    }
    outbox_set(&m->outbox, &outbox);
    settings_free(&m->settings);
    m->settings = fresh;
}

/* ---- MongoDB ----------------------------------------------------------------
 */

static bool
store_rests(const struct mailer *m)
{
    return m->store_ms > m->now_ms;
}

/* True: it worked. */
static bool
note_store(struct mailer *m, enum rc rc)
{
    char quoted[512];

    if (rc == RC_OK) {
        m->failures = 0;
        return true;
    }
    if (m->failures == 0) {
        log_event(LOG_WARN, "mail_store_failing", "rc=%s error=%s", rc_name(rc),
                  log_quote(m->ops->error(m->store), quoted, sizeof(quoted)));
    }
    m->failures++;
    m->now_ms = clock_now_ms();
    m->store_ms =
        m->now_ms + 1 + backoff_ms(&m->backoff, STORE_BASE_MS, m->failures);
    return false;
}

static void
count_ended(const struct mailer *m, const struct mail *mail)
{
    static const enum metric metrics[OUTBOX_STATE_COUNT] = {
        [OUTBOX_QUEUED] = METRIC_MAIL_DELAYED_TOTAL,
        [OUTBOX_SENT] = METRIC_MAIL_SENT_TOTAL,
        [OUTBOX_REFUSED] = METRIC_MAIL_REFUSED_TOTAL,
        [OUTBOX_GIVEN_UP] = METRIC_MAIL_GIVEN_UP_TOTAL,
        [OUTBOX_SKIPPED] = METRIC_MAIL_SKIPPED_TOTAL,
    };

    metrics_add(m->metrics, metrics[mail->outbox.state], SERVICE_COUNT, 1);
}

/* Where writing takes long, as on FerretDB, more are written at once. */
static void
note_writing(struct mailer *m, int64_t took_ms)
{
    m->gather_ms = took_ms * GATHER_PART;
    m->gather_ms = m->gather_ms > GATHER_MS ? m->gather_ms : GATHER_MS;
    m->gather_ms = m->gather_ms < GATHER_MAX_MS ? m->gather_ms : GATHER_MAX_MS;
}

/* Does the refusal of this mail's recipient speak of the person? Where the key
 * has its tag folded, anybody can ask with a tag that the server does not know,
 * for someone who has a place: only what was sent to that place's own mailbox
 * counts then. */
static bool
refuses_person(const struct mail *mail)
{
    return mail->outbox.state == OUTBOX_REFUSED &&
           (mail->kind == MAIL_WELCOME || strcasecmp(mail->to, mail->key) == 0);
}

/* The ended mails that are written next, so many that a stop does not wait for
 * long: one command writes those sent at once that were due at the same time,
 * which stand together, each of the others needs its own. */
static size_t
choose_ended(struct mailer *m, struct held *chosen[HELD_MAX])
{
    size_t count = 0;
    size_t commands = 0;
    int64_t due_unix_ms = 0; /* of the last one sent at once */

    for (size_t i = 0; i < HELD_MAX; i++) {
        struct held *h = &m->held[i];
        const struct outbox_mail *o = &h->mail.outbox;
        bool is_plain =
            o->state == OUTBOX_SENT && o->attempts == 1 && o->blocked == 0;
        bool joins = is_plain && o->next_unix_ms == due_unix_ms;

        if (h->place == PLACE_ENDED && (joins || commands < COMMANDS_MAX)) {
            chosen[count++] = h;
            commands += !joins;
            due_unix_ms = is_plain ? o->next_unix_ms : due_unix_ms;
        }
    }
    return count;
}

/* Write down what came of mails that ended. */
static void
write_ended(struct mailer *m)
{
    struct held *chosen[HELD_MAX];
    const struct mail *mails[HELD_MAX];
    int64_t began_ms = clock_now_ms();
    size_t count = choose_ended(m, chosen);
    enum rc rc = RC_OK;

    for (size_t i = 0; rc == RC_OK && i < count; i++) {
        mails[i] = &chosen[i]->mail;
        if (refuses_person(mails[i])) {
            rc = m->ops->refuse(m->store, mails[i], mails[i]->error,
                                clock_now_unix_ms());
        }
    }
    if (rc == RC_OK) {
        rc = m->ops->finish(m->store, mails, count);
    }
    if (!note_store(m, rc)) {
        return;
    }
    m->now_ms = clock_now_ms();
    note_writing(m, m->now_ms - began_ms);
    for (size_t i = 0; i < count; i++) {
        count_ended(m, mails[i]);
        move(m, chosen[i], PLACE_FREE);
    }
}

static void
write_if_due(struct mailer *m)
{
    bool is_idle = m->counts[PLACE_READY] + m->counts[PLACE_LEFT] == 0;

    if (m->counts[PLACE_ENDED] > 0 && !store_rests(m) &&
        (is_idle || m->now_ms - m->ended_ms >= m->gather_ms)) {
        write_ended(m);
    }
}

static void
end_held(struct mailer *m, struct held *h, enum outbox_event event)
{
    h->mail.outbox =
        outbox_next(&m->outbox, h->mail.outbox, event, clock_now_unix_ms());
    if (m->counts[PLACE_ENDED] == 0) {
        m->ended_ms = m->now_ms;
    }
    move(m, h, PLACE_ENDED);
}

/* When to ask again what was asked since now_ms. */
static int64_t
again_ms(const struct mailer *m, int64_t least_ms)
{
    int64_t ended_ms = clock_now_ms();
    int64_t rest_ms = (ended_ms - m->now_ms) * TAKES_PART;

    return ended_ms + (rest_ms > least_ms ? rest_ms : least_ms);
}

typedef enum rc look_up(void *store, const char *const *keys, size_t count,
                        bool *stands);

/* End the ready ones, of MAIL_APOLOGY only or of all kinds, whose address
 * stands where look looks. */
static enum rc
skip_where(struct mailer *m, look_up *look, bool apologies_only)
{
    const char *keys[HELD_MAX];
    struct held *asked[HELD_MAX];
    bool stands[HELD_MAX];
    size_t count = 0;
    enum rc rc = RC_OK;

    for (size_t i = 0; i < HELD_MAX; i++) {
        struct held *h = &m->held[i];

        if (h->place == PLACE_READY &&
            (!apologies_only || h->mail.kind == MAIL_APOLOGY)) {
            asked[count] = h;
            keys[count++] = h->mail.key;
        }
    }
    if (count > 0) {
        rc = look(m->store, keys, count, stands);
    }
    for (size_t i = 0; rc == RC_OK && i < count; i++) {
        if (stands[i]) {
            end_held(m, asked[i], OUTBOX_NOT_DUE);
        }
    }
    return rc;
}

/* Those who got a place meanwhile get no apology, and those whose place was
 * taken back, or who were refused, no mail at all. */
static enum rc
skip_undue(struct mailer *m)
{
    enum rc rc;

    m->now_ms = clock_now_ms();
    rc = skip_where(m, m->ops->registered, true);
    if (rc == RC_OK) {
        rc = skip_where(m, m->ops->refused, false);
    }
    m->stale_ms = again_ms(m, STALE_MS);
    return rc;
}

static bool
is_held(const struct mailer *m, const struct mail *mail)
{
    for (size_t i = 0; i < HELD_MAX; i++) {
        const struct held *h = &m->held[i];

        if (h->place != PLACE_FREE &&
            strcmp(h->mail.message_id, mail->message_id) == 0) {
            return true;
        }
    }
    return false;
}

static void
drop_ready(struct mailer *m)
{
    for (size_t i = 0; i < HELD_MAX; i++) {
        if (m->held[i].place == PLACE_READY) {
            move(m, &m->held[i], PLACE_FREE);
        }
    }
}

/* How many to read: as many as may leave soon. */
static size_t
page_limit(const struct mailer *m)
{
    int64_t rate = m->outbox.options.max_per_s;
    size_t under_way = m->counts[PLACE_LEFT] + m->counts[PLACE_ENDED];
    size_t limit = HELD_MAX;

    if (outbox_is_paused(&m->outbox)) {
        limit = under_way + 1;
    } else if (rate > 0 && rate < HELD_MAX) {
        limit = under_way + (size_t)rate;
    }
    return limit < HELD_MAX ? limit : HELD_MAX;
}

/* Into places that are free; the page lists those that we hold, too. */
static void
read_due(struct mailer *m)
{
    size_t limit = page_limit(m);
    size_t count = 0;
    enum rc rc;

    drop_ready(m);
    m->poll_ms = m->now_ms + POLL_MS;
    rc = m->ops->due(m->store, clock_now_unix_ms(), limit, m->page, &count);
    for (size_t i = 0; rc == RC_OK && i < count; i++) {
        struct held *h = find(m, PLACE_FREE);

        if (h != NULL && !is_held(m, &m->page[i])) {
            h->mail = m->page[i];
            h->is_probe = false;
            move(m, h, PLACE_READY);
        }
    }
    if (rc == RC_OK) {
        rc = skip_undue(m);
    }
    if (!note_store(m, rc)) {
        drop_ready(m);
    }
    if (m->counts[PLACE_READY] > 0) {
        m->poll_ms = m->now_ms; /* there may be more: as soon as these left */
    }
}

static void
read_if_due(struct mailer *m)
{
    bool is_stale = m->counts[PLACE_READY] > 0 && m->stale_ms <= m->now_ms;
    int64_t wait_ms = outbox_wait_ms(&m->outbox, m->now_ms);
    bool may_leave = wait_ms >= 0 && wait_ms < POLL_MS;

    if (atomic_exchange(&m->woken, false)) {
        m->poll_ms = m->now_ms;
    }
    if (!atomic_load(&m->is_ours)) {
        drop_ready(m);
        m->poll_ms = m->now_ms + POLL_MS;
        return;
    }
    if (store_rests(m) || !may_leave) {
        return;
    }
    if (m->counts[PLACE_READY] == 0 && m->poll_ms <= m->now_ms) {
        read_due(m);
    } else if (is_stale && !note_store(m, skip_undue(m))) {
        drop_ready(m);
    }
}

static void
count_if_due(struct mailer *m)
{
    int64_t waiting = 0;
    enum rc rc;

    if (m->count_ms > m->now_ms || store_rests(m) ||
        !atomic_load(&m->is_ours)) {
        return;
    }
    m->now_ms = clock_now_ms();
    rc = m->ops->waiting(m->store, &waiting);
    m->count_ms = again_ms(m, COUNT_MS);
    if (note_store(m, rc)) {
        atomic_store(&m->waiting, waiting);
        metrics_set(m->metrics, METRIC_MAIL_WAITING, SERVICE_COUNT, waiting);
    }
}

/* ---- sending ----------------------------------------------------------------
 */

/* The server's words without those that hold an @, which may be people's. */
static void
hide_addresses(const char *text, char out[SMTP_TEXT_BYTES])
{
    size_t used = 0;

    while (*text != '\0') {
        size_t bytes = strcspn(text, " ");
        bool is_address = memchr(text, '@', bytes) != NULL;
        const char *word = is_address ? "..." : text;
        size_t length = is_address ? 3 : bytes;

        if (used + length + 1 >= SMTP_TEXT_BYTES) {
            break;
        }
        memcpy(out + used, word, length);
        used += length;
        text += bytes;
        if (*text == ' ') {
            out[used++] = ' ';
            text++;
        }
    }
    out[used] = '\0';
}

static void
note_pause(struct mailer *m, const char *text, bool is_new)
{
    char why[SMTP_TEXT_BYTES];
    bool is_paused = outbox_is_paused(&m->outbox);
    bool was_paused;
    char quoted[2 * SMTP_TEXT_BYTES];

    hide_addresses(text, why);
    pthread_mutex_lock(&m->mutex);
    was_paused = m->paused;
    m->paused = is_paused;
    if (is_new || !is_paused) {
        (void)snprintf(m->reason, sizeof(m->reason), "%s",
                       is_paused ? why : "");
    }
    pthread_mutex_unlock(&m->mutex);
    metrics_set(m->metrics, METRIC_MAIL_PAUSED, SERVICE_COUNT, is_paused);
    if (is_new) {
        log_event(LOG_ERROR, "mail_paused",
                  "for_ms=%" PRId64 " error=%s hint=%s", m->outbox.step_ms,
                  log_quote(why, quoted, sizeof(quoted)),
                  "\"the mail server refuses us, no mail is lost: check "
                  "mail.url, mail.tls, mail.username and mail.from\"");
    } else if (was_paused && !is_paused) {
        log_event(LOG_INFO, "mail_resumed", "waiting=%lld",
                  (long long)atomic_load(&m->waiting));
    }
}

static void
on_done(void *arg, const struct smtp_result *result)
{
    static const enum outbox_event events[] = {
        [SMTP_SENT] = OUTBOX_TAKEN,
        [SMTP_LATER] = OUTBOX_PUT_OFF,
        [SMTP_RECIPIENT_REFUSED] = OUTBOX_RECIPIENT_REFUSED,
        [SMTP_WE_ARE_REFUSED] = OUTBOX_WE_ARE_REFUSED,
    };
    struct mailer *m = arg;
    struct held *h = result->tag;
    enum outbox_event event = events[result->end];
    char quoted[2 * SMTP_TEXT_BYTES];

    (void)snprintf(h->mail.error, sizeof(h->mail.error), "%s", result->text);
    h->mail.sent_unix_ms = event == OUTBOX_TAKEN ? clock_now_unix_ms() : 0;
    metrics_observe_ms(m->metrics, METRIC_MAIL_MS, SERVICE_COUNT,
                       result->duration_ms);
    note_pause(m, result->text,
               outbox_end(&m->outbox, h->is_probe, event, m->now_ms));
    end_held(m, h, event);
    if (event != OUTBOX_TAKEN) {
        log_event(LOG_INFO, "mail_not_sent",
                  "message_id=%s kind=%s status=%d state=%s attempts=%" PRId64,
                  log_quote(h->mail.message_id, quoted, sizeof(quoted)),
                  mail_kinds[h->mail.kind], result->status,
                  outbox_states[h->mail.outbox.state], h->mail.outbox.attempts);
        log_event(LOG_DEBUG, "mail_answer", "error=%s",
                  log_quote(result->text, quoted, sizeof(quoted)));
    }
}

/* The same bytes each time, for the same templates. */
static enum rc
compose(struct mailer *m, const struct mail *mail)
{
    const struct settings *s = m->settings;
    const struct mail_values values = {.code = mail->code,
                                       .email = mail->to,
                                       .date_unix_ms = mail->asked_unix_ms,
                                       .sender = &s->sender};
    struct mail_message message = {.from = &s->sender,
                                   .to = mail->to,
                                   .id = mail->message_id,
                                   .date_unix_ms = mail->created_unix_ms};
    enum rc rc =
        mail_templates_fill(s->templates, mail->kind, &values, &m->content);

    text_reset(&m->message);
    if (rc != RC_OK) {
        return rc;
    }
    message.subject = text_cstr(&m->content.subject);
    message.text = text_cstr(&m->content.plain);
    message.html = text_cstr(&m->content.html);
    return mail_message_compose(&message, &m->message);
}

/* RC_OK: it left, or never will. Else: not now. */
static enum rc
send_held(struct mailer *m, struct held *h)
{
    struct smtp_mail mail = {
        .from = m->settings->sender.mailbox, .to = h->mail.to, .tag = h};
    enum rc rc = compose(m, &h->mail);

    if (rc == RC_INVALID) {
        /* Cannot be: what is in it was checked at the edge. */
        (void)snprintf(h->mail.error, sizeof(h->mail.error),
                       "it cannot be composed");
        h->mail.outbox.state = OUTBOX_GIVEN_UP;
        log_event(LOG_ERROR, "mail_unsendable", "kind=%s",
                  mail_kinds[h->mail.kind]);
        end_held(m, h, OUTBOX_NOT_DUE);
        return RC_OK;
    }
    if (rc != RC_OK) {
        return rc;
    }
    mail.data = m->message.data;
    mail.bytes = m->message.bytes;
    rc = smtp_start(m->smtp, &mail);
    if (rc == RC_OK) {
        h->is_probe = outbox_start(&m->outbox, m->now_ms);
        move(m, h, PLACE_LEFT);
    }
    return rc;
}

/* While MongoDB is away nothing new leaves: it could not be written down. */
static void
send_ready(struct mailer *m)
{
    enum rc rc = RC_OK;

    for (size_t i = 0; rc == RC_OK && i < HELD_MAX; i++) {
        if (m->counts[PLACE_READY] == 0 || m->failures > 0 || m->is_changing ||
            outbox_wait_ms(&m->outbox, m->now_ms) != 0) {
            break;
        }
        if (m->held[i].place == PLACE_READY) {
            rc = send_held(m, &m->held[i]);
        }
    }
    metrics_set(m->metrics, METRIC_MAIL_IN_FLIGHT, SERVICE_COUNT,
                (int64_t)smtp_in_flight(m->smtp));
}

/* ---- the thread -------------------------------------------------------------
 */

static int64_t
sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t
wait_ms(struct mailer *m)
{
    int64_t outbox_ms = outbox_wait_ms(&m->outbox, m->now_ms);
    int64_t ms = POLL_MS;

    if (m->counts[PLACE_READY] > 0 && outbox_ms > 0) {
        ms = sooner(ms, outbox_ms);
    }
    if (m->counts[PLACE_ENDED] > 0) {
        ms = sooner(ms, m->ended_ms + m->gather_ms - m->now_ms);
    }
    if (m->counts[PLACE_READY] == 0 && outbox_ms >= 0 && outbox_ms < POLL_MS) {
        ms = sooner(ms, m->poll_ms - m->now_ms);
    }
    if (m->failures > 0) {
        ms = m->store_ms - m->now_ms;
    }
    if (m->is_changing && smtp_in_flight(m->smtp) == 0) {
        ms = 0;
    }
    return ms > 0 ? sooner(ms, POLL_MS) : 0;
}

static void
rest(struct mailer *m)
{
    eventfd_t count;

    smtp_wait(m->smtp, &m->wake_fd, 1, wait_ms(m));
    (void)eventfd_read(m->wake_fd, &count);
    m->now_ms = clock_now_ms();
}

static void *
run(void *arg)
{
    struct mailer *m = arg;

    m->now_ms = clock_now_ms();
    while (!atomic_load(&m->stop)) {
        take_settings(m);
        smtp_drive(m->smtp);
        write_if_due(m);
        read_if_due(m);
        send_ready(m);
        smtp_drive(m->smtp); /* what was started connects */
        count_if_due(m);
        rest(m);
    }
    if (m->counts[PLACE_ENDED] > 0 && m->failures == 0) {
        write_ended(m);
    }
    return NULL;
}

/* ---- life -------------------------------------------------------------------
 */

static void
mailer_free(struct mailer *m)
{
    smtp_free(&m->smtp);
    m->ops->free(&m->store);
    settings_free(&m->settings);
    settings_free(&m->fresh);
    mail_content_free(&m->content);
    text_free(&m->message);
    free(m->held);
    free(m->page);
    if (m->wake_fd >= 0) {
        (void)close(m->wake_fd);
    }
    (void)pthread_mutex_destroy(&m->mutex);
    free(m);
}

static enum rc
prepare(struct mailer *m, const struct conf *conf)
{
    struct outbox_options outbox = outbox_options_of(&conf->mail);
    struct smtp_options smtp = smtp_options_of(&conf->mail);
    enum rc rc = settings_new(&m->settings, conf);

    outbox_init(&m->outbox, &outbox, clock_now_ms());
    backoff_init(&m->backoff);
    m->held = calloc(HELD_MAX, sizeof(*m->held));
    m->page = calloc(HELD_MAX, sizeof(*m->page));
    m->counts[PLACE_FREE] = HELD_MAX;
    m->gather_ms = GATHER_MS;
    m->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (rc == RC_OK && (m->held == NULL || m->page == NULL)) {
        rc = RC_NOMEM;
    }
    if (rc == RC_OK && m->wake_fd < 0) {
        rc = RC_IO;
    }
    return rc == RC_OK ? smtp_new(&m->smtp, &smtp, on_done, m) : rc;
}

enum rc
mailer_start_on(struct mailer **out, const struct conf *conf,
                struct metrics *metrics, const struct mails_ops *ops,
                void *self)
{
    struct mailer *m = calloc(1, sizeof(*m));
    enum rc rc;

    *out = NULL;
    if (m == NULL) {
        ops->free(&self);
        return RC_NOMEM;
    }
    (void)pthread_mutex_init(&m->mutex, NULL);
    m->wake_fd = -1;
    m->metrics = metrics;
    m->ops = ops;
    m->store = self;
    rc = prepare(m, conf);
    if (rc == RC_OK && pthread_create(&m->thread, NULL, run, m) != 0) {
        rc = RC_IO;
    }
    if (rc != RC_OK) {
        mailer_free(m);
        return rc;
    }
    *out = m;
    return RC_OK;
}

enum rc
mailer_start(struct mailer **out, const struct conf *conf,
             struct metrics *metrics)
{
    void *self = NULL;
    enum rc rc = mails_mongo_new(&self, conf->mongo.uri, conf->mongo.timeout_ms,
                                 conf->node.id);

    *out = NULL;
    return rc == RC_OK
               ? mailer_start_on(out, conf, metrics, &mails_mongo_ops, self)
               : rc;
}

static void
ring(const struct mailer *m)
{
    (void)eventfd_write(m->wake_fd, 1);
}

void
mailer_stop(struct mailer **out)
{
    struct mailer *m = *out;

    *out = NULL;
    if (m == NULL) {
        return;
    }
    atomic_store(&m->stop, true);
    ring(m);
    (void)pthread_join(m->thread, NULL);
    mailer_free(m);
}

void
mailer_configure(struct mailer *m, const struct conf *conf)
{
    struct settings *fresh;

    if (settings_new(&fresh, conf) != RC_OK) {
        log_event(LOG_ERROR, "mail_settings_kept", "section=mail");
        return;
    }
    pthread_mutex_lock(&m->mutex);
    settings_free(&m->fresh);
    m->fresh = fresh;
    pthread_mutex_unlock(&m->mutex);
    ring(m);
}

void
mailer_own(struct mailer *m, bool is_ours)
{
    if (atomic_exchange(&m->is_ours, is_ours) != is_ours) {
        mailer_wake(m);
    }
}

void
mailer_wake(struct mailer *m)
{
    atomic_store(&m->woken, true);
    ring(m);
}

void
mailer_report(struct mailer *m, struct text *out)
{
    char reason[MAIL_ERROR_BYTES];
    bool paused;

    pthread_mutex_lock(&m->mutex);
    paused = m->paused;
    memcpy(reason, m->reason, sizeof(reason));
    pthread_mutex_unlock(&m->mutex);
    text_printf(
        out, "\"mail\":{\"paused\":%s,\"reason\":", paused ? "true" : "false");
    text_json_string(out, reason, strlen(reason));
    text_printf(out, ",\"waiting\":%lld}", (long long)atomic_load(&m->waiting));
}
