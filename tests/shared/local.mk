unit_tests += \
	%D%/test_callback_msg \
	%D%/test_clock \
	%D%/test_conf \
	%D%/test_fields \
	%D%/test_frame \
	%D%/test_hash \
	%D%/test_journal \
	%D%/test_journal_accept \
	%D%/test_journal_faults \
	%D%/test_journal_lock \
	%D%/test_journal_read \
	%D%/test_journal_work \
	%D%/test_json \
	%D%/test_log \
	%D%/test_rc \
	%D%/test_services \
	%D%/test_text \
	%D%/test_uuid
%C%_test_journal_SOURCES = %D%/test_journal.c \
	%D%/journal_fixture.c %D%/journal_fixture.h
%C%_test_journal_accept_SOURCES = %D%/test_journal_accept.c \
	%D%/journal_fixture.c %D%/journal_fixture.h
%C%_test_journal_faults_SOURCES = %D%/test_journal_faults.c \
	%D%/journal_fixture.c %D%/journal_fixture.h \
	%D%/vfs_shim.c %D%/vfs_shim.h
%C%_test_journal_faults_LDFLAGS = $(AM_LDFLAGS) \
	-Wl,--wrap=sqlite3_step
%C%_test_journal_lock_SOURCES = %D%/test_journal_lock.c \
	%D%/journal_fixture.c %D%/journal_fixture.h
%C%_test_journal_read_SOURCES = %D%/test_journal_read.c \
	%D%/journal_fixture.c %D%/journal_fixture.h
%C%_test_journal_work_SOURCES = %D%/test_journal_work.c \
	%D%/journal_fixture.c %D%/journal_fixture.h
