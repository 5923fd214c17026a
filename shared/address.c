/* E-mail addresses. The checks go from what is wrong with the whole to what is
 * wrong with a part, so that the reason is the one that helps. */
#include "shared/address.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <idn2.h>
#include <unicase.h>

#include "shared/text.h"

#define FULLWIDTH_AT UINT32_C(0xff20)
#define SMALL_AT UINT32_C(0xfe6b)

/* atext of RFC 5322 section 3.2.3, and the dot between atoms. */
static const char local_chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz0123456789"
                                  "!#$%&'*+-/=?^_`{|}~.";

/* Beyond ASCII: controls, blanks, formatting, private use is left alone. */
static const struct {
    uint32_t first;
    uint32_t last;
} unseen[] = {
    {0x80, 0xa0},       {0xad, 0xad},       {0x34f, 0x34f},
    {0x61c, 0x61c},     {0x115f, 0x1160},   {0x1680, 0x1680},
    {0x17b4, 0x17b5},   {0x180b, 0x180f},   {0x2000, 0x200f},
    {0x2028, 0x202f},   {0x205f, 0x206f},   {0x3000, 0x3000},
    {0x3164, 0x3164},   {0xfe00, 0xfe0f},   {0xfeff, 0xfeff},
    {0xffa0, 0xffa0},   {0xfff0, 0xfffb},   {0xfffe, 0xffff},
    {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff},
};

static const char too_long[] = "The address is too long (at most 254 bytes).";
static const char local_too_long[] =
    "The part before the @ is too long (at most 64 bytes).";
static const char one_at[] = "There must be exactly one @.";
static const char no_such_domain[] =
    "The part behind the @ is not a domain name.";

struct part {
    const char *data;
    size_t bytes;
};

static char
lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool
is_ascii(struct part part)
{
    for (size_t i = 0; i < part.bytes; i++) {
        if ((unsigned char)part.data[i] >= 0x80) {
            return false;
        }
    }
    return true;
}

static struct part
trimmed(struct part part)
{
    while (part.bytes > 0 && (*part.data == ' ' || *part.data == '\t')) {
        part.data++;
        part.bytes--;
    }
    while (part.bytes > 0 && (part.data[part.bytes - 1] == ' ' ||
                              part.data[part.bytes - 1] == '\t')) {
        part.bytes--;
    }
    return part;
}

static bool
holds(struct part part, char c)
{
    return part.bytes > 0 && memchr(part.data, c, part.bytes) != NULL;
}

static bool
holds_control(struct part part)
{
    for (size_t i = 0; i < part.bytes; i++) {
        if ((unsigned char)part.data[i] < ' ' || part.data[i] == 0x7f) {
            return true;
        }
    }
    return false;
}

static bool
is_utf8(struct part part)
{
    for (size_t i = 0; i < part.bytes;) {
        size_t length = text_utf8_length(part.data + i, part.bytes - i);

        if (length == 0) {
            return false;
        }
        i += length;
    }
    return true;
}

/* What is wrong with the whole, or NULL. */
static const char *
whole_reason(struct part whole)
{
    if (whole.bytes == 0) {
        return "An e-mail address is needed.";
    }
    if (holds_control(whole)) {
        return "There must be no line break or control character in it.";
    }
    if (!is_utf8(whole)) {
        return "It is not valid text (UTF-8).";
    }
    if (holds(whole, '<') || holds(whole, '>')) {
        return "Only the address itself, please: no name, no < and >.";
    }
    if (holds(whole, '"')) {
        return "Addresses with quotation marks are not taken.";
    }
    if (holds(whole, ' ')) {
        return "There must be no blank in it.";
    }
    return NULL;
}

/* ---- the local part ---------------------------------------------------------
 */

/* Of well-formed UTF-8 (length 2-4). */
static uint32_t
code_point(const char *data, size_t length)
{
    static const unsigned char first_bits[] = {0, 0, 0x1f, 0x0f, 0x07};
    uint32_t value = (unsigned char)data[0] & first_bits[length];

    for (size_t i = 1; i < length; i++) {
        value = value << 6 | ((unsigned char)data[i] & 0x3f);
    }
    return value;
}

/* What is wrong with a character beyond ASCII, or NULL. */
static const char *
wide_reason(uint32_t c)
{
    if (c == FULLWIDTH_AT || c == SMALL_AT) {
        return one_at;
    }
    for (size_t k = 0; k < ARRAY_COUNT(unseen); k++) {
        if (c >= unseen[k].first && c <= unseen[k].last) {
            return "There is a character in it that cannot be seen.";
        }
    }
    return NULL;
}

static const char *
character_reason(struct part local)
{
    const char *why = NULL;

    for (size_t i = 0; why == NULL && i < local.bytes;) {
        size_t length = text_utf8_length(local.data + i, local.bytes - i);

        if (length > 1) {
            why = wide_reason(code_point(local.data + i, length));
        } else if (strchr(local_chars, local.data[i]) == NULL) {
            why = "There is a character before the @ that is not allowed.";
        }
        i += length;
    }
    return why;
}

static const char *
local_reason(struct part local)
{
    if (local.bytes == 0) {
        return "There must be something before the @.";
    }
    if (local.bytes > ADDRESS_LOCAL_MAX_BYTES) {
        return local_too_long;
    }
    if (local.data[0] == '.' || local.data[local.bytes - 1] == '.') {
        return "The part before the @ must not begin or end with a dot.";
    }
    if (memmem(local.data, local.bytes, "..", 2) != NULL) {
        return "There must be no two dots in a row.";
    }
    return character_reason(local);
}

/* ---- the domain -------------------------------------------------------------
 */

static const char *
domain_reason(struct part domain)
{
    if (domain.bytes == 0) {
        return "There must be a domain behind the @.";
    }
    if (domain.data[0] == '[') {
        return "The domain must be a name, not a number in brackets.";
    }
    if (domain.bytes > ADDRESS_DOMAIN_MAX_BYTES) {
        return "The part behind the @ is too long (at most 255 bytes).";
    }
    if (domain.data[0] == '.' || domain.data[domain.bytes - 1] == '.') {
        return "The domain must not begin or end with a dot.";
    }
    if (memmem(domain.data, domain.bytes, "..", 2) != NULL) {
        return "There must be no two dots in a row.";
    }
    return NULL;
}

static bool
is_ldh(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

/* What is wrong with a label in lower case ASCII, or NULL. */
static const char *
label_reason(struct part label)
{
    if (label.bytes == 0) {
        return no_such_domain;
    }
    if (label.bytes > ADDRESS_LABEL_MAX_BYTES) {
        return "A part of the domain is too long (at most 63 bytes).";
    }
    if (label.data[0] == '-' || label.data[label.bytes - 1] == '-') {
        return "No part of the domain may begin or end with a hyphen.";
    }
    for (size_t i = 0; i < label.bytes; i++) {
        if (!is_ldh(label.data[i])) {
            return "There is a character in the domain that is not allowed.";
        }
    }
    return NULL;
}

/* What is wrong with a domain in lower case ASCII, or NULL. */
static const char *
labels_reason(struct part domain)
{
    const char *why = NULL;
    struct part label = {domain.data, 0};
    size_t count = 0;

    for (size_t at = 0; why == NULL && at <= domain.bytes; at++) {
        if (at == domain.bytes || domain.data[at] == '.') {
            label.bytes = (size_t)(domain.data + at - label.data);
            why = label_reason(label);
            count++;
            if (at < domain.bytes) {
                label.data = domain.data + at + 1;
            }
        }
    }
    if (why != NULL) {
        return why;
    }
    if (count < 2) {
        return "The domain must have a dot in it (example.com).";
    }
    /* Else an IPv4 address would be a name (RFC 3696 section 2). */
    if (strspn(label.data, "0123456789") >= label.bytes) {
        return "The domain must not end with a number.";
    }
    return NULL;
}

static const char *
idn_reason(int idn)
{
    return idn == IDN2_TOO_BIG_DOMAIN || idn == IDN2_TOO_BIG_LABEL ||
                   idn == IDN2_PUNYCODE_BIG_OUTPUT
               ? "The domain, or a part of it, is too long."
               : no_such_domain;
}

/* The domain with its labels in lower case ASCII, into out with a NUL. The
 * input has no NUL in it. */
static enum rc
domain_to_ascii(struct part domain, char out[ADDRESS_BYTES], const char **why)
{
    char typed[ADDRESS_DOMAIN_MAX_BYTES + 1];
    uint8_t *looked_up = NULL;
    enum rc rc = RC_OK;
    bool plain = is_ascii(domain);
    size_t bytes;
    int idn;

    for (size_t i = 0; i < domain.bytes; i++) {
        typed[i] = lower(domain.data[i]);
    }
    typed[domain.bytes] = '\0';
    if (!plain || strstr(typed, "xn--") != NULL) {
        idn = idn2_lookup_u8((const uint8_t *)typed, &looked_up,
                             IDN2_NONTRANSITIONAL | IDN2_NFC_INPUT);
        if (idn == IDN2_MALLOC) {
            rc = RC_NOMEM;
            goto out;
        }
        if (idn != IDN2_OK) {
            *why = idn_reason(idn);
            rc = RC_INVALID;
            goto out;
        }
    }
    bytes = looked_up != NULL ? strlen((char *)looked_up) : domain.bytes;
    if (bytes > ADDRESS_MAX_BYTES) {
        *why = too_long;
        rc = RC_INVALID;
        goto out;
    }
    memcpy(out, looked_up != NULL ? (char *)looked_up : typed, bytes + 1);
    *why = labels_reason((struct part){out, bytes});
    rc = *why == NULL ? RC_OK : RC_INVALID;
out:
    idn2_free(looked_up);
    return rc;
}

/* ---- both -------------------------------------------------------------------
 */

/* The local part as it is compared. Other letters may be longer (U+023A), so
 * may composed ones (U+1D15E), and some characters are only another way to
 * write one that is not taken (U+037E is a semicolon). */
static enum rc
write_key(struct part local, const char *domain, bool fold_plus_tags,
          struct address *out, const char **why)
{
    uint8_t buffer[ADDRESS_BYTES];
    struct part folded = {NULL, sizeof(buffer)};
    const char *plus =
        fold_plus_tags ? memchr(local.data, '+', local.bytes) : NULL;
    size_t domain_bytes = strlen(domain);
    uint8_t *lowered;

    if (plus != NULL && plus > local.data) {
        local.bytes = (size_t)(plus - local.data);
    }
    lowered = u8_tolower((const uint8_t *)local.data, local.bytes, NULL,
                         UNINORM_NFC, buffer, &folded.bytes);
    if (lowered == NULL) {
        return RC_NOMEM;
    }
    folded.data = (const char *)lowered;
    if (folded.bytes > ADDRESS_LOCAL_MAX_BYTES) {
        *why = local_too_long;
    } else if (folded.bytes + 1 + domain_bytes > ADDRESS_MAX_BYTES) {
        *why = too_long;
    } else {
        *why = character_reason(folded);
    }
    if (*why == NULL) {
        memcpy(out->key, folded.data, folded.bytes);
        out->key[folded.bytes] = '@';
        memcpy(out->key + folded.bytes + 1, domain, domain_bytes + 1);
    }
    if (lowered != buffer) {
        free(lowered);
    }
    return *why == NULL ? RC_OK : RC_INVALID;
}

/* The parts are right; is the whole short enough in both forms? */
static enum rc
fill(struct part whole, struct part local, const char *domain,
     struct address *out)
{
    size_t domain_bytes = strlen(domain);

    if (whole.bytes > ADDRESS_MAX_BYTES ||
        local.bytes + 1 + domain_bytes > ADDRESS_MAX_BYTES) {
        return RC_INVALID;
    }
    memcpy(out->text, whole.data, whole.bytes);
    memcpy(out->mailbox, local.data, local.bytes);
    out->mailbox[local.bytes] = '@';
    memcpy(out->mailbox + local.bytes + 1, domain, domain_bytes);
    out->ascii = is_ascii(local);
    return RC_OK;
}

enum rc
address_parse(const char *text, size_t bytes, bool fold_plus_tags,
              struct address *out, const char **why)
{
    char ascii[ADDRESS_BYTES];
    struct part whole = trimmed((struct part){text, bytes});
    struct part local = whole;
    struct part domain;
    const char *at;
    enum rc rc;

    memset(out, 0, sizeof(*out));
    *why = whole_reason(whole);
    if (*why != NULL) {
        return RC_INVALID;
    }
    at = memchr(whole.data, '@', whole.bytes);
    if (at == NULL || at != memrchr(whole.data, '@', whole.bytes)) {
        *why = one_at;
        return RC_INVALID;
    }
    local.bytes = (size_t)(at - whole.data);
    domain = (struct part){at + 1, whole.bytes - local.bytes - 1};
    *why = local_reason(local);
    if (*why == NULL) {
        *why = domain_reason(domain);
    }
    if (*why != NULL) {
        return RC_INVALID;
    }
    rc = domain_to_ascii(domain, ascii, why);
    if (rc != RC_OK) {
        return rc;
    }
    if (fill(whole, local, ascii, out) != RC_OK) {
        *why = too_long;
        return RC_INVALID;
    }
    rc = write_key(local, ascii, fold_plus_tags, out, why);
    if (rc != RC_OK) {
        memset(out, 0, sizeof(*out));
    }
    return rc;
}
