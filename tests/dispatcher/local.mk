unit_tests += \
	%D%/test_callback \
	%D%/test_callback_pool \
	%D%/test_callback_store \
	%D%/test_feed \
	%D%/test_fetcher \
	%D%/test_lane \
	%D%/test_metrics \
	%D%/test_queue
%C%_test_callback_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=fetcher_drive \
	-Wl,--wrap=fetcher_fd \
	-Wl,--wrap=fetcher_free \
	-Wl,--wrap=fetcher_in_flight \
	-Wl,--wrap=fetcher_new \
	-Wl,--wrap=fetcher_set \
	-Wl,--wrap=fetcher_start \
	-Wl,--wrap=journal_attempt_delete \
	-Wl,--wrap=journal_attempt_each \
	-Wl,--wrap=journal_attempt_put \
	-Wl,--wrap=journal_bury \
	-Wl,--wrap=journal_finish \
	-Wl,--wrap=journal_outcome_add \
	-Wl,--wrap=writer_submit
%C%_test_callback_pool_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=calloc \
	-Wl,--wrap=malloc \
	-Wl,--wrap=realloc
%C%_test_callback_store_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=pg_affected \
	-Wl,--wrap=pg_exec \
	-Wl,--wrap=pg_result_free
