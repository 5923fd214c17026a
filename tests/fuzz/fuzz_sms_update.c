/* Status updates: what a provider's body gives is a journal form of as many
 * updates, and a journal form is read only if it is what the encoder writes. */
#include "shared/sms_update.h"

#include <string.h>

#include "shared/json.h"
#include "tests/fuzz/replay.h"

static void
check_update(const struct sms_update *update)
{
    if (update->mapped) {
        MUST((unsigned)update->state < SMS_STATES);
        MUST(update->name[0] == '\0' && update->word[0] == '\0');
        return;
    }
    MUST(!update->known);
    MUST(memchr(update->name, '\0', sizeof(update->name)) != NULL);
    MUST(memchr(update->word, '\0', sizeof(update->word)) != NULL);
    MUST(json_utf8_valid(update->name, strlen(update->name)));
    MUST(json_utf8_valid(update->word, strlen(update->word)));
}

/* Walk a form to its end or to what is wrong, and write it again. */
static enum rc
walk(const char *form, size_t bytes, size_t *count, struct text *again)
{
    struct sms_update_cursor cursor = {.body = form, .bytes = bytes};
    struct sms_update update;
    enum rc rc;

    *count = 0;
    sms_update_begin(again);
    for (rc = sms_update_next(&cursor, &update); rc == RC_OK;
         rc = sms_update_next(&cursor, &update)) {
        check_update(&update);
        sms_update_put(&update, again);
        (*count)++;
    }
    MUST(rc == RC_AGAIN || rc == RC_INVALID);
    MUST(sms_update_next(&cursor, &update) == rc);
    return rc;
}

static void
check_request(const char *body, size_t bytes)
{
    struct field_errors errors;
    struct text form = {0};
    struct text again = {0};
    size_t count;
    enum rc rc = sms_updates_from_request(body, bytes, &form, &errors);

    if (rc != RC_OK) {
        MUST(rc == RC_INVALID);
        MUST(form.bytes == 0);
        MUST(errors.count > 0 && errors.count <= FIELD_ERRORS_MAX);
        MUST(errors.list[0].reason[0] != '\0');
        MUST(strstr(errors.list[0].reason, "too many values") == NULL);
    } else {
        MUST(errors.count == 0);
        MUST(form.bytes <= bytes);
        MUST(walk(form.data, form.bytes, &count, &again) == RC_AGAIN);
        MUST(count <= SMS_UPDATES_MAX);
        MUST(again.bytes == form.bytes &&
             memcmp(again.data, form.data, form.bytes) == 0);
    }
    text_free(&form);
    text_free(&again);
}

static void
check_journal_form(const char *form, size_t bytes)
{
    struct text again = {0};
    size_t count;

    if (walk(form, bytes, &count, &again) == RC_AGAIN) {
        MUST(again.bytes == bytes && memcmp(again.data, form, bytes) == 0);
    }
    text_free(&again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const char *body = (const char *)data;

    check_request(body, bytes);
    check_journal_form(body, bytes);
    return 0;
}
