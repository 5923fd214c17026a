/* Invitations: what a client's JSON or form gives survives the journal's form,
 * and a journal form is read only if it is what the encoder writes. */
#include "shared/invitation_msg.h"

#include <string.h>

#include "tests/fuzz/replay.h"

static void
check_taken(enum rc rc, const struct invitation_msg *msg,
            const struct field_errors *errors)
{
    struct invitation_msg again;
    struct text form = {0};

    if (rc != RC_OK) {
        MUST(rc == RC_INVALID);
        MUST(errors->count > 0 && errors->count <= FIELD_ERRORS_MAX);
        MUST(errors->list[0].reason[0] != '\0');
        MUST(strstr(errors->list[0].reason, "too many values") == NULL);
        MUST(msg->code[0] == '\0' && msg->email[0] == '\0');
        return;
    }
    MUST(errors->count == 0);
    invitation_msg_encode(msg, &form);
    MUST(!text_failed(&form));
    MUST(invitation_msg_decode(form.data, form.bytes, &again) == RC_OK);
    MUST(strcmp(again.code, msg->code) == 0);
    MUST(strcmp(again.email, msg->email) == 0);
    text_free(&form);
}

static void
check_journal_form(const char *form, size_t bytes)
{
    struct invitation_msg msg;
    struct text again = {0};

    if (invitation_msg_decode(form, bytes, &msg) == RC_OK) {
        invitation_msg_encode(&msg, &again);
        MUST(again.bytes == bytes && memcmp(again.data, form, bytes) == 0);
    }
    text_free(&again);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const char *body = (const char *)data;
    struct invitation_msg msg;
    struct field_errors errors;
    enum rc rc;

    rc = invitation_msg_from_request("a-1", body, bytes, &msg, &errors);
    check_taken(rc, &msg, &errors);
    rc = invitation_msg_from_form("a-1", body, bytes, &msg, &errors);
    check_taken(rc, &msg, &errors);
    check_journal_form(body, bytes);
    return 0;
}
