/* The callback's decoders: what a client's body gives survives the journal's
 * form, and a journal form is accepted only if it is what the encoder
 * writes. */
#include "shared/callback_msg.h"

#include <string.h>

#include "tests/fuzz/replay.h"

static void
check_request(const char *body, size_t bytes)
{
    struct callback_msg msg;
    struct callback_msg again;
    struct field_errors errors;
    struct text form = {0};
    enum rc rc = callback_msg_from_request(body, bytes, &msg, &errors);

    if (rc != RC_OK) {
        MUST(rc == RC_INVALID);
        MUST(errors.count > 0 && errors.count <= FIELD_ERRORS_MAX);
        MUST(errors.list[0].reason[0] != '\0');
        MUST(strstr(errors.list[0].reason, "too many values") == NULL);
        MUST(msg.count == 0);
        return;
    }
    MUST(errors.count == 0 && msg.count <= CALLBACK_IDS_MAX);
    callback_msg_encode(&msg, &form);
    MUST(!text_failed(&form));
    MUST(callback_msg_decode(form.data, form.bytes, &again) == RC_OK);
    MUST(again.count == msg.count);
    MUST(memcmp(again.ids, msg.ids, msg.count * sizeof(msg.ids[0])) == 0);
    text_free(&form);
}

static void
check_journal_form(const char *body, size_t bytes)
{
    struct callback_msg msg;
    struct text form = {0};

    if (callback_msg_decode(body, bytes, &msg) == RC_OK) {
        callback_msg_encode(&msg, &form);
        MUST(form.bytes == bytes && memcmp(form.data, body, bytes) == 0);
    }
    text_free(&form);
}

static void
check_outcome(const char *body, size_t bytes)
{
    static struct callback_object objects[CALLBACK_OUTCOME_MAX];
    struct text form = {0};
    unsigned count;

    if (callback_outcome_decode(body, bytes, objects, &count) == RC_OK) {
        MUST(count <= CALLBACK_OUTCOME_MAX);
        callback_outcome_encode(objects, count, &form);
        MUST(form.bytes == bytes && memcmp(form.data, body, bytes) == 0);
    }
    text_free(&form);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const char *body = (const char *)data;

    check_request(body, bytes);
    check_journal_form(body, bytes);
    check_outcome(body, bytes);
    return 0;
}
