/* The walk over FastCGI records: the verdict does not depend on how the bytes
 * arrived, and what it calls whole libfcgi reads without blocking or refusing,
 * with the body that the walk has counted. */
#include "fcgi/records.h"

#include <stdlib.h>
#include <string.h>

#include "fcgi/edge_read.h"
#include "tests/fuzz/replay.h"

#define MAX_BODY 65536U

static void
check_reading(const uint8_t *data, const struct records *w)
{
    static struct edge_reader *reader;
    struct edge_params params = {0};
    struct edge_body body = {0};

    if (reader == NULL) {
        MUST(edge_read_init() == RC_OK);
        MUST(edge_read_new(&reader) == RC_OK);
    }
    MUST(edge_read_memory(reader, (const char *)data, w->offset, w->body_bytes,
                          MAX_BODY, &params, &body) == RC_OK);
    MUST(body.too_long == (w->body_bytes > MAX_BODY));
    MUST(body.bytes == (body.too_long ? MAX_BODY : w->body_bytes));
    MUST(body.data[body.bytes] == '\0');
    MUST(params.method != NULL && params.uri != NULL);
    edge_read_params_free(&params);
    free(body.data);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct records at_once = {0};
    struct records resumed = {0};
    enum records_verdict verdict = records_walk(&at_once, data, bytes);
    enum records_verdict piecewise = RECORDS_PART;
    size_t step = bytes > 0 ? data[bytes - 1] % 13U + 1 : 1;

    MUST(at_once.offset <= bytes);
    for (size_t n = 0; piecewise == RECORDS_PART && n < bytes; n += step) {
        piecewise = records_walk(&resumed, data, n);
    }
    if (piecewise == RECORDS_PART) {
        piecewise = records_walk(&resumed, data, bytes);
    }
    MUST(verdict == piecewise);
    MUST(memcmp(&at_once.offset, &resumed.offset, sizeof(at_once.offset)) == 0);
    MUST(at_once.body_bytes == resumed.body_bytes);
    if (verdict == RECORDS_WHOLE) {
        MUST(at_once.id != 0);
        MUST(at_once.params_bytes <= RECORDS_PARAMS_MAX);
        check_reading(data, &at_once);
    }
    return 0;
}
