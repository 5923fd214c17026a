# libFuzzer harnesses: only in a build that was configured for them, which
# `make fuzz` does.
fuzzers = \
	%D%/fuzz_address \
	%D%/fuzz_callback_msg \
	%D%/fuzz_fcgi_records \
	%D%/fuzz_frame \
	%D%/fuzz_invitation_msg \
	%D%/fuzz_journal_row \
	%D%/fuzz_json \
	%D%/fuzz_mail_message \
	%D%/fuzz_sms_update
%C%_fuzz_address_SOURCES = %D%/fuzz_address.c %D%/replay.h
%C%_fuzz_address_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
%C%_fuzz_callback_msg_SOURCES = %D%/fuzz_callback_msg.c %D%/replay.h
%C%_fuzz_callback_msg_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
%C%_fuzz_fcgi_records_SOURCES = %D%/fuzz_fcgi_records.c %D%/replay.h
%C%_fuzz_fcgi_records_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
%C%_fuzz_frame_SOURCES = %D%/fuzz_frame.c %D%/replay.h
%C%_fuzz_frame_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
%C%_fuzz_invitation_msg_SOURCES = %D%/fuzz_invitation_msg.c %D%/replay.h
%C%_fuzz_invitation_msg_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
%C%_fuzz_journal_row_SOURCES = %D%/fuzz_journal_row.c %D%/replay.h
%C%_fuzz_journal_row_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
%C%_fuzz_json_SOURCES = %D%/fuzz_json.c %D%/replay.h
%C%_fuzz_json_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
%C%_fuzz_mail_message_SOURCES = %D%/fuzz_mail_message.c %D%/replay.h
%C%_fuzz_mail_message_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
%C%_fuzz_sms_update_SOURCES = %D%/fuzz_sms_update.c %D%/replay.h
%C%_fuzz_sms_update_LDFLAGS = $(AM_LDFLAGS) -fsanitize=fuzzer
if FUZZERS
noinst_PROGRAMS += $(fuzzers)
else
EXTRA_PROGRAMS += $(fuzzers)
endif
.PHONY: fuzzers
fuzzers: $(fuzzers)
