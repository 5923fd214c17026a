#include "tests/dispatcher/feed_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

bool
fake_feed(struct fake_feed *feed, void *service, size_t most, struct now now)
{
    enum service kind = feed->ops->service;
    struct journal_page page = {0};
    bool any = false;
    enum rc rc = journal_queue_page(feed->journal, kind, feed->cursor, most,
                                    1 << 24, &page);

    assert_true(rc == RC_OK || rc == RC_AGAIN); /* no journal yet */
    for (size_t i = 0; i < page.count && feed->ops->has_room(service); i++) {
        const struct journal_row *row = &page.rows[i];
        struct work *work = work_new(kind, row->seq, row->received_unix_ms,
                                     &row->id, row->body, row->body_bytes);

        assert_non_null(work);
        work->broken = row->broken;
        feed->cursor = row->seq;
        feed->ops->accept(service, work, now);
        any = true;
    }
    journal_page_free(&page);
    return any;
}
