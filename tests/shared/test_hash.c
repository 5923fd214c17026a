/* shared/hash.c */
#include "shared/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void
assert_digest(const void *data, size_t bytes, const char *hex)
{
    uint8_t digest[HASH_BYTES];
    char out[HASH_BYTES * 2 + 1];

    assert_int_equal(hash_sha256(data, bytes, digest), RC_OK);
    for (unsigned i = 0; i < HASH_BYTES; i++) {
        (void)snprintf(out + 2 * i, 3, "%02x", digest[i]);
    }
    assert_string_equal(out, hex);
}

static void
digests_are_those_of_fips_180(void **state)
{
    (void)state;
    assert_digest(
        "abc", 3,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_digest(
        "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

static void
nothing_may_be_a_null_pointer(void **state)
{
    static const char empty[] =
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    (void)state;
    assert_digest(NULL, 0, empty);
    assert_digest("", 0, empty);
}

static void
a_nul_byte_counts(void **state)
{
    (void)state;
    assert_digest(
        "\0", 1,
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
}

static void
assert_mac(const char *key, size_t key_bytes, const struct hash_part *parts,
           size_t count, const char *hex)
{
    uint8_t digest[HASH_BYTES];
    char out[HASH_BYTES * 2 + 1];

    assert_int_equal(hash_hmac_sha256(key, key_bytes, parts, count, digest),
                     RC_OK);
    for (unsigned i = 0; i < HASH_BYTES; i++) {
        (void)snprintf(out + 2 * i, 3, "%02x", digest[i]);
    }
    assert_string_equal(out, hex);
}

static void
macs_are_those_of_rfc_4231(void **state)
{
    const struct hash_part question = {"what do ya want for nothing?", 28};
    const struct hash_part test = {
        "Test Using Larger Than Block-Size Key - Hash Key First", 54};
    char key[131];

    (void)state;
    memset(key, 0xaa, sizeof(key));
    assert_mac(
        "Jefe", 4, &question, 1,
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_mac(
        key, sizeof(key), &test, 1,
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

static void
parts_are_as_one_text_and_may_be_empty(void **state)
{
    const struct hash_part parts[] = {
        {"what do ya ", 11}, {NULL, 0}, {"", 0}, {"want for nothing?", 17}};

    (void)state;
    assert_mac(
        "Jefe", 4, parts, 4,
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_mac(
        NULL, 0, NULL, 0,
        "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

static void
equal_means_every_bit(void **state)
{
    uint8_t a[HASH_BYTES];
    uint8_t b[HASH_BYTES];

    (void)state;
    memset(a, 0x5a, sizeof(a));
    memcpy(b, a, sizeof(b));
    assert_true(hash_equal(a, b));
    for (unsigned bit = 0; bit < 8 * HASH_BYTES; bit++) {
        b[bit / 8] ^= (uint8_t)(1U << bit % 8);
        assert_false(hash_equal(a, b));
        b[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_are_those_of_fips_180),
        cmocka_unit_test(nothing_may_be_a_null_pointer),
        cmocka_unit_test(a_nul_byte_counts),
        cmocka_unit_test(macs_are_those_of_rfc_4231),
        cmocka_unit_test(parts_are_as_one_text_and_may_be_empty),
        cmocka_unit_test(equal_means_every_bit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
