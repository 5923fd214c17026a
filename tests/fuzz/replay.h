/* A main for a harness that is built without libFuzzer: each argument is a
 * file to replay. It is weak, so that libFuzzer's own main wins. */
#ifndef SLUICE_TESTS_FUZZ_REPLAY_H
#define SLUICE_TESTS_FUZZ_REPLAY_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* What must hold in every build, NDEBUG or not. */
#define MUST(condition)                                                        \
    do {                                                                       \
        if (!(condition)) {                                                    \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__,           \
                          #condition);                                         \
            abort();                                                           \
        }                                                                      \
    } while (0)

#define REPLAY_BYTES_MAX ((size_t)1 << 20)

__attribute__((weak)) int
main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rbe");
        uint8_t *data = malloc(REPLAY_BYTES_MAX);
        uint8_t *exact;
        size_t bytes;

        if (file == NULL || data == NULL) {
            perror(argv[i]);
            return 1;
        }
        bytes = fread(data, 1, REPLAY_BYTES_MAX, file);
        (void)fclose(file);
        /* Without a byte to spare, for the address sanitizer. */
        exact = realloc(data, bytes > 0 ? bytes : 1);
        MUST(exact != NULL);
        (void)LLVMFuzzerTestOneInput(exact, bytes);
        free(exact);
    }
    return 0;
}

#endif
