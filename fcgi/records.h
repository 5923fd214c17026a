/* Is a whole FastCGI request there? Walks the record headers of what has
 * arrived so far, without consuming it, so that libfcgi is only ever given a
 * request that is whole and well-formed, on which it cannot block, and whose
 * lengths it can trust.
 *
 *   BEGIN  PARAMS... PARAMS(empty)  STDIN... STDIN(empty)
 *
 * all with one request id. BEGIN and the empty PARAMS have no padding: no web
 * server sends any, and libfcgi 2.4.2 takes it for the next record. The walk
 * resumes where it stopped: call it again with the same bytes and more behind
 * them. */
#ifndef SLUICE_FCGI_RECORDS_H
#define SLUICE_FCGI_RECORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECORDS_HEAD_BYTES 8U
#define RECORDS_CONTENT_MAX 65535U
#define RECORDS_PARAMS_MAX 65536U /* of one request, all together */

/* Types (FastCGI specification, section 8). */
enum records_type {
    RECORDS_BEGIN_REQUEST = 1,
    RECORDS_ABORT_REQUEST = 2,
    RECORDS_END_REQUEST = 3,
    RECORDS_PARAMS = 4,
    RECORDS_STDIN = 5,
    RECORDS_STDOUT = 6,
};

enum records_verdict {
    RECORDS_PART,  /* so far so good, more must come */
    RECORDS_WHOLE, /* `offset` bytes are one request */
    RECORDS_ROLE,  /* not a responder's request: say so and close */
    RECORDS_LARGE, /* parameters over RECORDS_PARAMS_MAX: 431 */
    RECORDS_BAD,   /* not FastCGI, several requests at once, or aborted:
                      close */
};

enum records_phase {
    RECORDS_AT_BEGIN,
    RECORDS_AT_PARAMS,
    RECORDS_AT_STDIN,
};

/* {0} is a new walk. */
struct records {
    size_t offset;       /* bytes of the records that were walked */
    size_t params_end;   /* bytes up to the end of PARAMS; 0: it has not come */
    uint64_t body_bytes; /* content of STDIN so far */
    uint32_t params_bytes;
    uint32_t pair_skip;   /* of the current name-value pair: bytes to come */
    uint8_t pair_head[8]; /* its lengths as far as they have come */
    uint8_t pair_head_bytes;
    uint8_t phase;   /* enum records_phase */
    uint16_t id;     /* of the request; 0 before BEGIN */
    bool keep;       /* FCGI_KEEP_CONN */
    bool padded_end; /* padding stands behind the last record's content */
};

/* Any thread. */
enum records_verdict records_walk(struct records *w, const uint8_t *data,
                                  size_t bytes);

/* Write a record's header into out. content <= RECORDS_CONTENT_MAX. */
void records_head(uint8_t out[RECORDS_HEAD_BYTES], enum records_type type,
                  uint16_t id, size_t content, uint8_t padding);

#endif
