/* Signed bodies: the header's list is read once for its form, its time and its
 * signatures, of which as many as there are may hold. */
#include "shared/signature.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "shared/hash.h"

#define TIME_DIGITS_MAX 18U
#define HEX_BYTES (2U * HASH_BYTES)
#define APART ", \t"

/* A piece of the header's value, or of the list of secrets. */
struct slice {
    const char *data;
    size_t bytes;
};

struct signed_list {
    struct slice time;  /* its digits as they stand there */
    int64_t unix_s;     /* ... as a number */
    struct slice first; /* v1; further ones stand behind it */
};

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* The next member of a list, without the blanks around it; *p = behind its
 * comma, NULL after the last. It may be empty. */
static struct slice
next_member(const char **p)
{
    const char *from = *p;
    size_t bytes = strcspn(from, ",");

    *p = from[bytes] == ',' ? from + bytes + 1 : NULL;
    while (bytes > 0 && is_blank(*from)) {
        from++;
        bytes--;
    }
    while (bytes > 0 && is_blank(from[bytes - 1])) {
        bytes--;
    }
    return (struct slice){from, bytes};
}

/* The next secret. False: there is none any more. */
static bool
next_secret(const char **p, struct slice *out)
{
    *p += strspn(*p, APART);
    *out = (struct slice){*p, strcspn(*p, APART)};
    *p += out->bytes;
    return out->bytes > 0;
}

/* -1: no hex digit. */
static int
hex_value(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool
read_hex(struct slice hex, uint8_t out[HASH_BYTES])
{
    if (hex.bytes != HEX_BYTES) {
        return false;
    }
    for (size_t k = 0; k < HASH_BYTES; k++) {
        int high = hex_value(hex.data[2 * k]);
        int low = hex_value(hex.data[2 * k + 1]);

        if (high < 0 || low < 0) {
            return false;
        }
        out[k] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool
read_time(struct slice digits, int64_t *out)
{
    int64_t value = 0;

    if (digits.bytes == 0 || digits.bytes > TIME_DIGITS_MAX) {
        return false;
    }
    for (size_t k = 0; k < digits.bytes; k++) {
        if (digits.data[k] < '0' || digits.data[k] > '9') {
            return false;
        }
        value = value * 10 + (digits.data[k] - '0');
    }
    *out = value;
    return true;
}

/* Does the member have this name? Then *value = what stands behind its =. */
static bool
is_named(struct slice member, const char *name, struct slice *value)
{
    size_t bytes = strlen(name);

    if (member.bytes <= bytes || memcmp(member.data, name, bytes) != 0 ||
        member.data[bytes] != '=') {
        return false;
    }
    *value = (struct slice){member.data + bytes + 1, member.bytes - bytes - 1};
    return true;
}

/* t once, v1 at least once, in any order; members of other names (another
 * version's) are left alone. False: not such a list. */
static bool
read_list(const char *p, struct signed_list *out)
{
    uint8_t digest[HASH_BYTES];
    struct slice value;

    *out = (struct signed_list){{NULL, 0}, 0, {NULL, 0}};
    while (p != NULL) {
        struct slice member = next_member(&p);

        if (is_named(member, "t", &value)) {
            if (out->time.data != NULL || !read_time(value, &out->unix_s)) {
                return false;
            }
            out->time = value;
        } else if (is_named(member, "v1", &value)) {
            if (!read_hex(value, digest)) {
                return false;
            }
            if (out->first.data == NULL) {
                out->first = member;
            }
        } else if (member.bytes == 0 ||
                   memchr(member.data, '=', member.bytes) == NULL) {
            return false;
        }
    }
    return out->time.data != NULL && out->first.data != NULL;
}

static enum rc
sign(struct slice secret, struct slice time, const char *body, size_t bytes,
     uint8_t out[HASH_BYTES])
{
    const struct hash_part parts[] = {
        {time.data, time.bytes}, {".", 1}, {body, bytes}};

    return hash_hmac_sha256(secret.data, secret.bytes, parts,
                            ARRAY_COUNT(parts), out);
}

/* Is one of the signatures, of which p is the first, this one? */
static bool
holds(const char *p, const uint8_t wanted[HASH_BYTES])
{
    uint8_t given[HASH_BYTES];
    struct slice value;
    bool found = false;

    while (p != NULL) {
        struct slice member = next_member(&p);

        if (is_named(member, "v1", &value) && read_hex(value, given)) {
            found |= hash_equal(given, wanted);
        }
    }
    return found;
}

enum signature_verdict
signature_check(const char *value, const char *secrets, const char *body,
                size_t bytes, int64_t now_unix_s)
{
    uint8_t wanted[HASH_BYTES];
    struct signed_list list;
    struct slice secret;
    bool good = false;

    if (value == NULL || value[strspn(value, APART)] == '\0') {
        return SIGNATURE_MISSING;
    }
    if (!read_list(value, &list)) {
        return SIGNATURE_MALFORMED;
    }
    if (list.unix_s < now_unix_s - SIGNATURE_TOLERANCE_S ||
        list.unix_s > now_unix_s + SIGNATURE_TOLERANCE_S) {
        return SIGNATURE_EXPIRED;
    }
    while (next_secret(&secrets, &secret)) {
        good |= sign(secret, list.time, body, bytes, wanted) == RC_OK &&
                holds(list.first.data, wanted);
    }
    return good ? SIGNATURE_GOOD : SIGNATURE_WRONG;
}

enum rc
signature_make(const char *secrets, const char *body, size_t bytes,
               int64_t now_unix_s, char out[SIGNATURE_BYTES])
{
    static const char hex[] = "0123456789abcdef";
    uint8_t digest[HASH_BYTES];
    struct slice secret;
    struct slice time;
    int length =
        snprintf(out, SIGNATURE_BYTES, "t=%lld", (long long)now_unix_s);
    char *p = out + length;

    time = (struct slice){out + 2, (size_t)length - 2};
    if (!next_secret(&secrets, &secret) ||
        sign(secret, time, body, bytes, digest) != RC_OK) {
        out[0] = '\0';
        return RC_IO;
    }
    memcpy(p, ",v1=", 4);
    p += 4;
    for (size_t k = 0; k < HASH_BYTES; k++) {
        *p++ = hex[digest[k] >> 4];
        *p++ = hex[digest[k] & 0xf];
    }
    *p = '\0';
    return RC_OK;
}
