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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_are_those_of_fips_180),
        cmocka_unit_test(nothing_may_be_a_null_pointer),
        cmocka_unit_test(a_nul_byte_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
