/* SHA-256 and HMAC by OpenSSL's libcrypto. */
#include "shared/hash.h"

#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

enum rc
hash_sha256(const void *data, size_t bytes, uint8_t out[HASH_BYTES])
{
    unsigned written = 0;

    /* One call does it all; a NULL with 0 bytes is not handed on. */
    if (EVP_Digest(bytes == 0 ? "" : data, bytes, out, &written, EVP_sha256(),
                   NULL) != 1 ||
        written != HASH_BYTES) {
        memset(out, 0, HASH_BYTES);
        return RC_IO;
    }
    return RC_OK;
}

static bool
run_hmac(EVP_MAC_CTX *context, const struct hash_part *parts, size_t count,
         uint8_t out[HASH_BYTES])
{
    size_t written = 0;

    for (size_t k = 0; k < count; k++) {
        if (parts[k].bytes > 0 &&
            EVP_MAC_update(context, parts[k].data, parts[k].bytes) != 1) {
            return false;
        }
    }
    return EVP_MAC_final(context, out, &written, HASH_BYTES) == 1 &&
           written == HASH_BYTES;
}

enum rc
hash_hmac_sha256(const void *key, size_t key_bytes,
                 const struct hash_part *parts, size_t count,
                 uint8_t out[HASH_BYTES])
{
    char digest[] = "SHA256"; /* the parameter's type asks for no const */
    const OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *context = NULL;
    enum rc rc = RC_IO;

    if (mac == NULL) {
        goto out;
    }
    context = EVP_MAC_CTX_new(mac);
    /* A NULL key would mean "the one before". */
    if (context != NULL &&
        EVP_MAC_init(context, key_bytes == 0 ? (const uint8_t *)"" : key,
                     key_bytes, params) == 1 &&
        run_hmac(context, parts, count, out)) {
        rc = RC_OK;
    }

out:
    EVP_MAC_CTX_free(context);
    EVP_MAC_free(mac);
    if (rc != RC_OK) {
        memset(out, 0, HASH_BYTES);
    }
    return rc;
}

bool
hash_equal(const uint8_t a[HASH_BYTES], const uint8_t b[HASH_BYTES])
{
    return CRYPTO_memcmp(a, b, HASH_BYTES) == 0;
}
