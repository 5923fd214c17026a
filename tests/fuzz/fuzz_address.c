/* Addresses: whatever the bytes, a taken address has nothing in it that could
 * end a header or a command, keeps its limits, and its key is its own key. */
#include "shared/address.h"

#include <string.h>

#include "tests/fuzz/replay.h"

static void
check_form(const char *form)
{
    const char *at = strchr(form, '@');
    size_t bytes = strlen(form);

    MUST(bytes > 0 && bytes <= ADDRESS_MAX_BYTES);
    MUST(at != NULL && strchr(at + 1, '@') == NULL);
    MUST(at > form && at - form <= ADDRESS_LOCAL_MAX_BYTES);
    for (size_t i = 0; i < bytes; i++) {
        MUST((unsigned char)form[i] > ' ' && form[i] != 0x7f);
        MUST(strchr("<>\"", form[i]) == NULL);
    }
}

static void
check(const char *text, size_t bytes, bool fold_plus_tags)
{
    struct address address;
    struct address again;
    const char *why;
    enum rc rc = address_parse(text, bytes, fold_plus_tags, &address, &why);

    if (rc != RC_OK) {
        MUST(rc == RC_INVALID && why != NULL && why[0] != '\0');
        MUST(address.text[0] == '\0' && address.key[0] == '\0');
        return;
    }
    MUST(why == NULL);
    check_form(address.text);
    check_form(address.mailbox);
    check_form(address.key);
    MUST(strchr(strchr(address.key, '@') + 1, '+') == NULL);
    MUST(address_parse(address.mailbox, strlen(address.mailbox), fold_plus_tags,
                       &again, &why) == RC_OK);
    MUST(strcmp(again.key, address.key) == 0);
    MUST(strcmp(again.mailbox, address.mailbox) == 0);
    /* "jo.+tag" is an address, "jo." is none. */
    if (fold_plus_tags && strstr(address.key, ".@") != NULL) {
        return;
    }
    MUST(address_parse(address.key, strlen(address.key), fold_plus_tags, &again,
                       &why) == RC_OK);
    MUST(strcmp(again.key, address.key) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    check((const char *)data, bytes, false);
    check((const char *)data, bytes, true);
    return 0;
}
