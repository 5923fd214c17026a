/* Short messages of a text: both alphabets are tried in one pass, and each
 * part is filled before the next one begins. */
#include "shared/sms_text.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "shared/text.h"

#define SEPTETS_WHOLE 160U
#define SEPTETS_PART 153U
#define UNITS_WHOLE 70U
#define UNITS_PART 67U

/* ASCII that the alphabets have. Not: `, control characters (ESC is the
 * alphabet's own), DEL. */
static const char gsm_ascii[] = "\n\r !\"#$%&'()*+,-./0123456789:;<=>?@"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ_"
                                "abcdefghijklmnopqrstuvwxyz";
static const char gsm_extension[] = "\f[\\]^{|}~";
#define EURO 0x20acU

/* The rest of the default alphabet, ascending. Of the cedillas it has the
 * capital only, of the Greek letters those that do not look like Latin ones. */
static const uint32_t gsm_others[] = {
    0xa1,  /* inverted ! */
    0xa3,  /* pound */
    0xa4,  /* currency */
    0xa5,  /* yen */
    0xa7,  /* section */
    0xbf,  /* inverted ? */
    0xc4,  /* A umlaut */
    0xc5,  /* A ring */
    0xc6,  /* AE */
    0xc7,  /* C cedilla */
    0xc9,  /* E acute */
    0xd1,  /* N tilde */
    0xd6,  /* O umlaut */
    0xd8,  /* O slash */
    0xdc,  /* U umlaut */
    0xdf,  /* sharp s */
    0xe0,  /* a grave */
    0xe4,  /* a umlaut */
    0xe5,  /* a ring */
    0xe6,  /* ae */
    0xe8,  /* e grave */
    0xe9,  /* e acute */
    0xec,  /* i grave */
    0xf1,  /* n tilde */
    0xf2,  /* o grave */
    0xf6,  /* o umlaut */
    0xf8,  /* o slash */
    0xf9,  /* u grave */
    0xfc,  /* u umlaut */
    0x393, /* Gamma */
    0x394, /* Delta */
    0x398, /* Theta */
    0x39b, /* Lambda */
    0x39e, /* Xi */
    0x3a0, /* Pi */
    0x3a3, /* Sigma */
    0x3a6, /* Phi */
    0x3a8, /* Psi */
    0x3a9, /* Omega */
};

/* Units of one alphabet, put into parts. */
struct parts {
    unsigned max;   /* units in a part */
    size_t units;   /* in all */
    unsigned used;  /* of the last part */
    unsigned count; /* parts before the last one */
};

/* Add a character of so many units, which stay together. */
static void
parts_add(struct parts *parts, unsigned units)
{
    parts->units += units;
    if (parts->used + units > parts->max) {
        parts->count++;
        parts->used = 0;
    }
    parts->used += units;
}

static int
segments(const struct parts *parts, size_t whole)
{
    return parts->units <= whole ? 1 : (int)parts->count + 1;
}

static bool
is_other(uint32_t c)
{
    size_t low = 0;
    size_t high = ARRAY_COUNT(gsm_others);

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (gsm_others[middle] == c) {
            return true;
        }
        if (gsm_others[middle] < c) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return false;
}

/* 1, 2 of the extension table, 0: the alphabet has no such character. */
static unsigned
septets(uint32_t c)
{
    if (c >= 0x80) {
        return c == EURO ? 2 : is_other(c) ? 1 : 0;
    }
    if (c == 0) {
        return 0;
    }
    if (strchr(gsm_ascii, (int)c) != NULL) {
        return 1;
    }
    return strchr(gsm_extension, (int)c) != NULL ? 2 : 0;
}

/* The code point of a well-formed sequence. */
static uint32_t
code_point(const char *p, size_t length)
{
    static const uint8_t masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    uint32_t c = (uint8_t)p[0] & masks[length];

    for (size_t k = 1; k < length; k++) {
        c = c << 6 | ((uint8_t)p[k] & 0x3f);
    }
    return c;
}

enum rc
sms_text_size(const char *content, size_t bytes, struct sms_size *out)
{
    struct parts gsm = {.max = SEPTETS_PART};
    struct parts ucs = {.max = UNITS_PART};
    bool is_gsm = true;
    size_t at = 0;

    *out = (struct sms_size){.encoding = SMS_GSM7, .segments = 1};
    while (at < bytes) {
        size_t length = text_utf8_length(content + at, bytes - at);
        unsigned width;
        uint32_t c;

        if (length == 0) {
            return RC_INVALID;
        }
        c = code_point(content + at, length);
        width = septets(c);
        is_gsm = is_gsm && width > 0;
        parts_add(&gsm, width);
        parts_add(&ucs, c > 0xffff ? 2 : 1);
        at += length;
    }
    out->encoding = is_gsm ? SMS_GSM7 : SMS_UCS2;
    out->segments =
        is_gsm ? segments(&gsm, SEPTETS_WHOLE) : segments(&ucs, UNITS_WHOLE);
    return RC_OK;
}

const char *
sms_encoding_name(enum sms_encoding encoding)
{
    switch (encoding) {
    case SMS_GSM7:
        return "GSM-7";
    case SMS_UCS2:
        return "UCS-2";
    }
    return "UCS-2";
}
