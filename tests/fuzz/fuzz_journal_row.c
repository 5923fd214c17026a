/* Fuzz the journal's record reader: a row whose columns are of any type and
 * size, decoded as the pages do it, and its body given to the callback
 * service's decoder.
 *
 * Input: for each of seq, id, received, outcome, body a byte for the type
 * (modulo 5: NULL, integer, real, text, blob), then its value: of a number 8
 * bytes; of text and blob a length (one byte; 255: all that is left) and so
 * many bytes. What is missing is NULL. */
#include <string.h>

#include "shared/callback_msg.h"
#include "shared/journal_impl.h"
#include "tests/fuzz/replay.h"

struct input {
    const uint8_t *data;
    size_t bytes;
};

/* Take up to want bytes from the front. */
static const uint8_t *
take(struct input *in, size_t want, size_t *got)
{
    const uint8_t *from = in->data;

    *got = want < in->bytes ? want : in->bytes;
    in->data += *got;
    in->bytes -= *got;
    return from;
}

static void
bind_one(struct input *in, sqlite3_stmt *row, int at)
{
    size_t got = 0;
    const uint8_t *type = take(in, 1, &got);
    int kind = got == 1 ? *type % 5 : 0;
    const uint8_t *data;

    if (kind == 1 || kind == 2) {
        int64_t integer = 0;
        double real = 0;

        data = take(in, sizeof integer, &got);
        memcpy(&integer, data, got);
        memcpy(&real, &integer, sizeof real);
        (void)(kind == 1 ? sqlite3_bind_int64(row, at, integer)
                         : sqlite3_bind_double(row, at, real));
    } else if (kind != 0) {
        data = take(in, 1, &got);
        data = take(in, got == 0 || *data == 255 ? in->bytes : *data, &got);
        (void)(kind == 3
                   ? sqlite3_bind_text(row, at, (const char *)data, (int)got,
                                       SQLITE_STATIC)
                   : sqlite3_bind_blob(row, at, data, (int)got, SQLITE_STATIC));
    }
}

/* What the decoder takes is what the encoder would have written. */
static void
decode_body(const struct journal_row *row)
{
    struct callback_msg msg;
    struct text again = {0};

    if (callback_msg_decode(row->body, row->body_bytes, &msg) == RC_OK) {
        callback_msg_encode(&msg, &again);
        MUST(!text_failed(&again));
        MUST(again.bytes == row->body_bytes);
        MUST(memcmp(again.data, row->body, again.bytes) == 0);
        text_free(&again);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static sqlite3 *db;
    static sqlite3_stmt *statement;
    struct input in = {data, size};
    struct journal_row row;

    if (db == NULL) {
        MUST(sqlite3_open(":memory:", &db) == SQLITE_OK);
        MUST(sqlite3_prepare_v2(db, "SELECT ?, ?, ?, ?, ?", -1, &statement,
                                NULL) == SQLITE_OK);
    }
    (void)sqlite3_clear_bindings(statement);
    for (int i = 1; i <= 5; i++) {
        bind_one(&in, statement, i);
    }
    MUST(sqlite3_step(statement) == SQLITE_ROW);
    journal_row_decode(statement, &row);
    MUST(row.body != NULL);
    MUST(row.received_unix_ms >= 0);
    MUST(row.body_bytes <= JOURNAL_BODY_BYTES_MAX);
    if (!row.broken) {
        decode_body(&row);
    }
    (void)sqlite3_reset(statement);
    return 0;
}
