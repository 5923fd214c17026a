/* shared/sms_text.c: a table of texts, and the whole of Unicode. */
#include "shared/sms_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shared/text.h"

#define EURO "\xe2\x82\xac"
#define ZHE "\xd0\xb6"                  /* Cyrillic, one UTF-16 unit */
#define SMILE "\xf0\x9f\x98\x80"        /* two of them */
#define PLANE_END "\xf4\x8f\xbf\xbf"    /* U+10FFFF */
#define LAST_IN_BMP "\xef\xbf\xbf"      /* U+FFFF */
#define FIRST_BEYOND "\xf0\x90\x80\x80" /* U+10000 */
/* Man, zero-width joiner, woman, joiner, girl: 8 units. */
#define FAMILY                                                                 \
    "\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x91\xa7"
#define FLAG "\xf0\x9f\x87\xa9\xf0\x9f\x87\xaa" /* two regional indicators */

/* A text is up to three pieces, each so many times. */
struct row {
    struct {
        unsigned count;
        const char *piece;
    } of[3];
    enum sms_encoding encoding;
    int segments;
};

static const struct row rows[] = {
    /* The default alphabet: 160, else parts of 153. */
    {{{0, ""}}, SMS_GSM7, 1},
    {{{1, "a"}}, SMS_GSM7, 1},
    {{{159, "a"}}, SMS_GSM7, 1},
    {{{160, "a"}}, SMS_GSM7, 1},
    {{{161, "a"}}, SMS_GSM7, 2},
    {{{306, "a"}}, SMS_GSM7, 2},
    {{{307, "a"}}, SMS_GSM7, 3},
    {{{459, "a"}}, SMS_GSM7, 3},
    {{{460, "a"}}, SMS_GSM7, 4},
    {{{1530, "a"}}, SMS_GSM7, 10},
    {{{1531, "a"}}, SMS_GSM7, 11},
    {{{1600, "a"}}, SMS_GSM7, 11},
    /* The extension table: two septets that stay together. */
    {{{80, EURO}}, SMS_GSM7, 1},
    {{{81, EURO}}, SMS_GSM7, 2},
    {{{158, "a"}, {1, EURO}}, SMS_GSM7, 1},
    {{{159, "a"}, {1, EURO}}, SMS_GSM7, 2},
    {{{152, "a"}, {1, EURO}, {10, "a"}}, SMS_GSM7, 2},
    {{{152, "a"}, {1, EURO}, {151, "a"}}, SMS_GSM7, 2},
    {{{152, "a"}, {1, EURO}, {152, "a"}}, SMS_GSM7, 3}, /* 306 septets */
    {{{151, "a"}, {1, EURO}, {153, "a"}}, SMS_GSM7, 2}, /* 306, too */
    {{{305, "a"}, {1, EURO}}, SMS_GSM7, 3},
    {{{304, "a"}, {1, EURO}}, SMS_GSM7, 2},
    {{{152, "["}}, SMS_GSM7, 2}, /* 76 of them in each part */
    {{{153, "["}}, SMS_GSM7, 3},
    {{{1600, "|"}}, SMS_GSM7, 22},
    {{{1, "{}[]~\\|^" EURO "\f"}, {140, "a"}}, SMS_GSM7, 1},
    {{{1, "{}[]~\\|^" EURO "\f"}, {141, "a"}}, SMS_GSM7, 2},
    {{{80, "\f"}}, SMS_GSM7, 1},
    /* What the alphabet has ... */
    {{{1, "Gr\xc3\xbc\xc3\x9f"
          "e"}},
     SMS_GSM7,
     1},
    {{{160, "\xc3\x87"}}, SMS_GSM7, 1}, /* C cedilla, the capital */
    {{{160, "\n"}}, SMS_GSM7, 1},
    {{{160, "\r"}}, SMS_GSM7, 1},
    {{{160, "@"}}, SMS_GSM7, 1},
    {{{160, "_"}}, SMS_GSM7, 1},
    {{{16, "\xce\x93\xce\x94\xce\x98\xce\x9b\xce\x9e\xce\xa0\xce\xa3\xce\xa6"
           "\xce\xa8\xce\xa9"}},
     SMS_GSM7,
     1}, /* 160 Greek capitals */
    {{{1, "\xc2\xa1\xc2\xa3\xc2\xa4\xc2\xa5\xc2\xa7\xc2\xbf\xc3\x84\xc3\x85"
          "\xc3\x86\xc3\x89\xc3\x91\xc3\x96\xc3\x98\xc3\x9c\xc3\x9f\xc3\xa0"
          "\xc3\xa4\xc3\xa5\xc3\xa6\xc3\xa8\xc3\xa9\xc3\xac\xc3\xb1\xc3\xb2"
          "\xc3\xb6\xc3\xb8\xc3\xb9\xc3\xbc"},
      {132, "a"}},
     SMS_GSM7,
     1},
    /* ... and what it only seems to have. */
    {{{1, "\xc3\xa7"}}, SMS_UCS2, 1}, /* c cedilla */
    {{{1, "\xc3\xa7"}, {69, "a"}}, SMS_UCS2, 1},
    {{{1, "\xc3\xa7"}, {70, "a"}}, SMS_UCS2, 2},
    {{{1, "\xce\x91"}}, SMS_UCS2, 1},     /* Alpha is not A */
    {{{1, "\xcf\x89"}}, SMS_UCS2, 1},     /* omega, the small one */
    {{{1, "\xe2\x84\xa6"}}, SMS_UCS2, 1}, /* ohm is not Omega */
    {{{1, "\xe2\x88\x86"}}, SMS_UCS2, 1}, /* increment is not Delta */
    {{{1, "`"}}, SMS_UCS2, 1},
    {{{1, "\t"}}, SMS_UCS2, 1},
    {{{1, "\x1b"}}, SMS_UCS2, 1}, /* the alphabet's escape is no character */
    {{{1, "\x7f"}}, SMS_UCS2, 1},
    {{{1, "\xc2\xa0"}}, SMS_UCS2, 1},     /* no-break space */
    {{{1, "\xe2\x80\x99"}}, SMS_UCS2, 1}, /* typographic apostrophe */
    {{{1, "u\xcc\x88"}}, SMS_UCS2, 1},    /* u and a combining diaeresis */
    {{{160, "a"}, {1, "`"}}, SMS_UCS2, 3},
    /* UCS-2: 70, else parts of 67. */
    {{{70, ZHE}}, SMS_UCS2, 1},
    {{{71, ZHE}}, SMS_UCS2, 2},
    {{{134, ZHE}}, SMS_UCS2, 2},
    {{{135, ZHE}}, SMS_UCS2, 3},
    {{{1600, ZHE}}, SMS_UCS2, 24},
    {{{70, LAST_IN_BMP}}, SMS_UCS2, 1},
    /* Surrogate pairs stay together. */
    {{{35, SMILE}}, SMS_UCS2, 1},
    {{{36, SMILE}}, SMS_UCS2, 2},
    {{{66, SMILE}}, SMS_UCS2, 2}, /* 33 in each part, one unit is left over */
    {{{67, SMILE}}, SMS_UCS2, 3},
    {{{68, ZHE}, {1, SMILE}}, SMS_UCS2, 1},
    {{{69, ZHE}, {1, SMILE}}, SMS_UCS2, 2},
    {{{66, ZHE}, {1, SMILE}, {65, ZHE}}, SMS_UCS2, 2},
    {{{66, ZHE}, {1, SMILE}, {66, ZHE}}, SMS_UCS2, 3}, /* 134 units */
    {{{65, ZHE}, {1, SMILE}, {67, ZHE}}, SMS_UCS2, 2}, /* 134, too */
    {{{35, FIRST_BEYOND}}, SMS_UCS2, 1},
    {{{36, PLANE_END}}, SMS_UCS2, 2},
    {{{1600, SMILE}}, SMS_UCS2, 49},
    /* Sequences may be split between characters. */
    {{{8, FAMILY}}, SMS_UCS2, 1},
    {{{9, FAMILY}}, SMS_UCS2, 2},
    {{{16, FAMILY}}, SMS_UCS2, 2},
    {{{17, FAMILY}}, SMS_UCS2, 3},
    {{{17, FLAG}}, SMS_UCS2, 1},
    {{{18, FLAG}}, SMS_UCS2, 2},
    {{{160, "a"}, {1, FAMILY}}, SMS_UCS2, 3},
};

static void
texts_take_as_many_messages_as_documented(void **state)
{
    struct text t = {0};

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(rows); k++) {
        struct sms_size size;

        text_reset(&t);
        for (size_t i = 0; i < ARRAY_COUNT(rows[k].of); i++) {
            for (unsigned n = 0; n < rows[k].of[i].count; n++) {
                text_puts(&t, rows[k].of[i].piece);
            }
        }
        assert_int_equal(sms_text_size(text_cstr(&t), t.bytes, &size), RC_OK);
        if (size.encoding != rows[k].encoding ||
            size.segments != rows[k].segments) {
            fail_msg("row %zu: %s, %d", k, sms_encoding_name(size.encoding),
                     size.segments);
        }
    }
    text_free(&t);
}

static size_t
encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3f));
        out[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3f));
    out[2] = (char)(0x80 | (c >> 6 & 0x3f));
    out[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* TS 23.038 table 6.2.1 has 127 characters beside the escape, 6.2.1.1 ten. */
static void
of_all_characters_as_many_are_in_the_alphabet_as_in_the_standard(void **state)
{
    unsigned basic = 0;
    unsigned extension = 0;

    (void)state;
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        char text[4 * 160];
        struct sms_size size;
        size_t bytes = 0;

        if (c >= 0xd800 && c <= 0xdfff) {
            continue;
        }
        for (int k = 0; k < 160; k++) {
            bytes += encode(c, text + bytes);
        }
        assert_int_equal(sms_text_size(text, bytes, &size), RC_OK);
        if (size.encoding == SMS_GSM7 && size.segments == 1) {
            basic++;
        } else if (size.encoding == SMS_GSM7) {
            assert_int_equal(size.segments, 3); /* 76 in a part */
            extension++;
        }
    }
    assert_int_equal(basic, 127);
    assert_int_equal(extension, 10);
}

static void
what_is_not_utf8_is_refused(void **state)
{
    static const char *const texts[] = {
        "\x80",     "\xc3",   "a\xc3(", "\xed\xa0\x80", "\xf4\x90\x80\x80",
        "\xc0\xaf", "ok\xff",
    };

    (void)state;
    for (size_t k = 0; k < ARRAY_COUNT(texts); k++) {
        struct sms_size size = {SMS_UCS2, 7};

        assert_int_equal(sms_text_size(texts[k], strlen(texts[k]), &size),
                         RC_INVALID);
        assert_int_equal(size.segments, 1);
    }
}

static void
encodings_have_names(void **state)
{
    (void)state;
    assert_string_equal(sms_encoding_name(SMS_GSM7), "GSM-7");
    assert_string_equal(sms_encoding_name(SMS_UCS2), "UCS-2");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_take_as_many_messages_as_documented),
        cmocka_unit_test(
            of_all_characters_as_many_are_in_the_alphabet_as_in_the_standard),
        cmocka_unit_test(what_is_not_utf8_is_refused),
        cmocka_unit_test(encodings_have_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
