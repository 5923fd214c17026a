libfixtures_a_SOURCES += \
	%D%/journal_fixture.c %D%/journal_fixture.h \
	%D%/mongo_fixture.c %D%/mongo_fixture.h \
	%D%/pg_fixture.c %D%/pg_fixture.h \
	%D%/vfs_shim.c %D%/vfs_shim.h
unit_tests += \
	%D%/test_address \
	%D%/test_call_msg \
	%D%/test_callback_msg \
	%D%/test_calls \
	%D%/test_clock \
	%D%/test_conf \
	%D%/test_fields \
	%D%/test_frame \
	%D%/test_hash \
	%D%/test_invitation_msg \
	%D%/test_journal \
	%D%/test_journal_accept \
	%D%/test_journal_batch \
	%D%/test_journal_faults \
	%D%/test_journal_lock \
	%D%/test_journal_progress \
	%D%/test_journal_read \
	%D%/test_journal_work \
	%D%/test_json \
	%D%/test_log \
	%D%/test_lookup \
	%D%/test_objects \
	%D%/test_pg \
	%D%/test_rc \
	%D%/test_report \
	%D%/test_services \
	%D%/test_signature \
	%D%/test_sms_batch \
	%D%/test_sms_lookup \
	%D%/test_sms_msg \
	%D%/test_sms_state \
	%D%/test_sms_text \
	%D%/test_sms_update \
	%D%/test_sms_update_head \
	%D%/test_text \
	%D%/test_uuid \
	%D%/test_words
%C%_test_journal_faults_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=sqlite3_step
%C%_test_sms_lookup_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=journal_locate
