#include "tests/dispatcher/writer_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum rc
fake_writer_submit(struct fake_writer *f, struct write *write)
{
    if (f->full > 0) {
        f->full--;
        return RC_FULL;
    }
    assert_non_null(write->apply);
    assert_ptr_equal(write->reply_to, f->reply_to);
    assert_true(f->count < f->max);
    f->writes[f->count++] = write;
    f->submits++;
    return RC_OK;
}

static void
apply_all(struct journal *journal, struct write *const *writes, size_t count)
{
    assert_int_equal(journal_begin(journal), RC_OK);
    for (size_t i = 0; i < count; i++) {
        enum rc rc = writes[i]->apply(journal, writes[i]);

        assert_true(rc == RC_OK || rc == RC_AGAIN);
        writes[i]->rc = RC_OK;
    }
}

size_t
fake_writer_commit(struct fake_writer *f, struct journal *journal,
                   struct write **out)
{
    size_t count = f->count;

    if (count == 0) {
        return 0;
    }
    memcpy(out, f->writes, count * sizeof(out[0]));
    f->count = 0;
    for (unsigned undone = 0; undone < f->groups_to_undo; undone++) {
        apply_all(journal, out, count);
        journal_rollback(journal);
    }
    apply_all(journal, out, count);
    assert_int_equal(journal_commit(journal), RC_OK);
    return count;
}
