libfixtures_a_SOURCES += \
	%D%/feed_fixture.c %D%/feed_fixture.h \
	%D%/http_fixture.c %D%/http_fixture.h \
	%D%/places_fixture.c %D%/places_fixture.h \
	%D%/smtp_fixture.c %D%/smtp_fixture.h \
	%D%/writer_fixture.c %D%/writer_fixture.h
unit_tests += \
	%D%/test_allocator \
	%D%/test_backoff \
	%D%/test_batcher \
	%D%/test_call \
	%D%/test_call_store \
	%D%/test_callback \
	%D%/test_callback_pool \
	%D%/test_callback_store \
	%D%/test_control \
	%D%/test_feed \
	%D%/test_fetcher \
	%D%/test_housekeeper \
	%D%/test_invitation \
	%D%/test_lane \
	%D%/test_limiter \
	%D%/test_mail_message \
	%D%/test_mail_template \
	%D%/test_mailer \
	%D%/test_mails_mongo \
	%D%/test_metrics \
	%D%/test_migrate \
	%D%/test_outbox \
	%D%/test_mongo \
	%D%/test_pg_arrays \
	%D%/test_places_mongo \
	%D%/test_poster \
	%D%/test_queue \
	%D%/test_registrar \
	%D%/test_service \
	%D%/test_simulate_run \
	%D%/test_sluicectl_invitation \
	%D%/test_sluicectl_print \
	%D%/test_sms \
	%D%/test_sms_notifier \
	%D%/test_sms_record \
	%D%/test_sms_status \
	%D%/test_sms_status_store \
	%D%/test_sms_store \
	%D%/test_smtp \
	%D%/test_store_pg \
	%D%/test_transfers \
	%D%/test_writer
%C%_test_batcher_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=calloc \
	-Wl,--wrap=malloc
%C%_test_call_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=calloc \
	-Wl,--wrap=clock_boot_id \
	-Wl,--wrap=poster_drive \
	-Wl,--wrap=poster_fd \
	-Wl,--wrap=poster_free \
	-Wl,--wrap=poster_in_flight \
	-Wl,--wrap=poster_new \
	-Wl,--wrap=poster_set \
	-Wl,--wrap=poster_start \
	-Wl,--wrap=poster_warm \
	-Wl,--wrap=writer_submit
%C%_test_call_store_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=pg_exec
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
%C%_test_housekeeper_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=journal_checkpoint \
	-Wl,--wrap=journal_copied_bytes \
	-Wl,--wrap=journal_error \
	-Wl,--wrap=journal_expire_keys \
	-Wl,--wrap=journal_free \
	-Wl,--wrap=journal_ledger \
	-Wl,--wrap=journal_used_bytes \
	-Wl,--wrap=log_event
%C%_test_invitation_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=calloc \
	-Wl,--wrap=log_event \
	-Wl,--wrap=mailer_configure \
	-Wl,--wrap=mailer_report \
	-Wl,--wrap=mailer_start \
	-Wl,--wrap=mailer_stop \
	-Wl,--wrap=registrar_give \
	-Wl,--wrap=registrar_start \
	-Wl,--wrap=registrar_stop \
	-Wl,--wrap=writer_submit
%C%_test_registrar_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=allocator_mail \
	-Wl,--wrap=allocator_serve \
	-Wl,--wrap=allocator_sweep \
	-Wl,--wrap=backoff_capped_ms \
	-Wl,--wrap=clock_now_ms \
	-Wl,--wrap=clock_now_unix_ms \
	-Wl,--wrap=journal_identity \
	-Wl,--wrap=log_event \
	-Wl,--wrap=mailer_own \
	-Wl,--wrap=mailer_wake \
	-Wl,--wrap=mongo_claim_node \
	-Wl,--wrap=mongo_error \
	-Wl,--wrap=mongo_free \
	-Wl,--wrap=mongo_new \
	-Wl,--wrap=places_mongo_new \
	-Wl,--wrap=places_mongo_prepare \
	-Wl,--wrap=poll
%C%_test_service_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=store_pg_wake \
	-Wl,--wrap=writer_flush
%C%_test_sluicectl_invitation_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=mongo_error \
	-Wl,--wrap=mongo_free \
	-Wl,--wrap=mongo_new \
	-Wl,--wrap=places_count \
	-Wl,--wrap=places_create \
	-Wl,--wrap=places_each \
	-Wl,--wrap=places_mongo_new \
	-Wl,--wrap=places_revoke \
	-Wl,--wrap=places_set_limit \
	-Wl,--wrap=places_trace
%C%_test_sms_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=backoff_ms \
	-Wl,--wrap=calloc \
	-Wl,--wrap=poster_drive \
	-Wl,--wrap=poster_fd \
	-Wl,--wrap=poster_free \
	-Wl,--wrap=poster_new \
	-Wl,--wrap=poster_set \
	-Wl,--wrap=poster_start \
	-Wl,--wrap=writer_submit
%C%_test_sms_record_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=calloc \
	-Wl,--wrap=realloc
%C%_test_sms_status_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=calloc \
	-Wl,--wrap=journal_locate \
	-Wl,--wrap=realloc \
	-Wl,--wrap=writer_submit
%C%_test_store_pg_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=journal_bury \
	-Wl,--wrap=journal_bury_outcome \
	-Wl,--wrap=journal_identity \
	-Wl,--wrap=journal_outcome_page \
	-Wl,--wrap=journal_page_free \
	-Wl,--wrap=journal_retire_each \
	-Wl,--wrap=migrate_apply \
	-Wl,--wrap=pg_connect \
	-Wl,--wrap=pg_error \
	-Wl,--wrap=pg_exec \
	-Wl,--wrap=pg_is_connected \
	-Wl,--wrap=pg_result_free \
	-Wl,--wrap=pg_rows \
	-Wl,--wrap=pg_sqlstate \
	-Wl,--wrap=pg_value \
	-Wl,--wrap=writer_submit
%C%_test_writer_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=clock_now_ms \
	-Wl,--wrap=journal_begin \
	-Wl,--wrap=journal_commit \
	-Wl,--wrap=journal_error \
	-Wl,--wrap=journal_free \
	-Wl,--wrap=journal_rollback
