/* API keys, kept and compared as SHA-256 digests. */
#include "fcgi/auth.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "shared/hash.h"

#define KEY_BYTES_MAX 255U

struct auth {
    bool asked;
    size_t count;
    size_t capacity;
    uint8_t (*digests)[HASH_BYTES];
};

static enum rc
add_key(struct auth *auth, const char *key)
{
    if (auth->count == auth->capacity) {
        size_t capacity = auth->capacity * 2 + 8;
        void *digests = reallocarray(auth->digests, capacity, HASH_BYTES);

        if (digests == NULL) {
            return RC_NOMEM;
        }
        auth->digests = digests;
        auth->capacity = capacity;
    }
    return hash_sha256(key, strlen(key), auth->digests[auth->count++]);
}

static enum rc
add_line(struct auth *auth, char *line)
{
    char *key = line + strspn(line, " \t\r\n");
    size_t bytes = strcspn(key, " \t\r\n");

    if (*key == '\0' || *key == '#') {
        return RC_OK;
    }
    if (bytes > KEY_BYTES_MAX ||
        key[bytes + strspn(key + bytes, " \t\r\n")] != '\0') {
        return RC_INVALID;
    }
    key[bytes] = '\0';
    return add_key(auth, key);
}

static enum rc
read_keys(struct auth *auth, const char *path)
{
    FILE *file = fopen(path, "re");
    char *line = NULL;
    size_t size = 0;
    enum rc rc = RC_OK;

    if (file == NULL) {
        return RC_IO;
    }
    while (rc == RC_OK && getline(&line, &size, file) >= 0) {
        rc = add_line(auth, line);
    }
    if (rc == RC_OK && ferror(file)) {
        rc = RC_IO;
    }
    free(line);
    fclose(file);
    return rc == RC_OK && auth->count == 0 ? RC_INVALID : rc;
}

enum rc
auth_new(struct auth **out, const char *path)
{
    struct auth *auth = calloc(1, sizeof(*auth));
    enum rc rc = RC_OK;

    *out = NULL;
    if (auth == NULL) {
        return RC_NOMEM;
    }
    if (path[0] != '\0') {
        auth->asked = true;
        rc = read_keys(auth, path);
    }
    if (rc != RC_OK) {
        auth_free(&auth);
    }
    *out = auth;
    return rc;
}

void
auth_free(struct auth **auth)
{
    if (*auth != NULL) {
        free((*auth)->digests);
        free(*auth);
        *auth = NULL;
    }
}

bool
auth_permits(const struct auth *auth, const char *authorization)
{
    uint8_t digest[HASH_BYTES];
    bool found = false;

    if (!auth->asked) {
        return true;
    }
    if (strncasecmp(authorization, "Bearer ", 7) != 0) {
        return false;
    }
    authorization += 7 + strspn(authorization + 7, " ");
    if (hash_sha256(authorization, strlen(authorization), digest) != RC_OK) {
        return false;
    }
    for (size_t k = 0; k < auth->count; k++) {
        uint8_t differs = 0;

        for (size_t b = 0; b < HASH_BYTES; b++) {
            differs |= (uint8_t)(digest[b] ^ auth->digests[k][b]);
        }
        found |= differs == 0;
    }
    return found;
}
