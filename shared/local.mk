# The base that both sides use.
noinst_LIBRARIES += libshared.a
libshared_a_SOURCES = \
	%D%/address.c %D%/address.h \
	%D%/call_msg.c %D%/call_msg.h \
	%D%/calls.c %D%/calls.h \
	%D%/callback_msg.c %D%/callback_msg.h \
	%D%/clock.c %D%/clock.h \
	%D%/conf.c %D%/conf.h \
	%D%/ctlclient.c %D%/ctlclient.h \
	%D%/fields.c %D%/fields.h \
	%D%/frame.c %D%/frame.h \
	%D%/hash.c %D%/hash.h \
	%D%/invitation_msg.c %D%/invitation_msg.h \
	%D%/journal.c %D%/journal.h \
	%D%/journal_accept.c \
	%D%/journal_batch.c %D%/journal_batch.h \
	%D%/journal_impl.h \
	%D%/journal_lock.c \
	%D%/journal_progress.c \
	%D%/journal_read.c \
	%D%/journal_work.c \
	%D%/json.c %D%/json.h \
	%D%/log.c %D%/log.h \
	%D%/lookup.c %D%/lookup.h \
	%D%/objects.c %D%/objects.h \
	%D%/pg.c %D%/pg.h \
	%D%/push.c %D%/push.h \
	%D%/rc.c %D%/rc.h \
	%D%/report.c %D%/report.h \
	%D%/services.c %D%/services.h \
	%D%/signature.c %D%/signature.h \
	%D%/sms_batch.c %D%/sms_batch.h \
	%D%/sms_lookup.c %D%/sms_lookup.h \
	%D%/sms_msg.c %D%/sms_msg.h \
	%D%/sms_state.c %D%/sms_state.h \
	%D%/sms_text.c %D%/sms_text.h \
	%D%/sms_update.c %D%/sms_update.h \
	%D%/sms_update_head.c \
	%D%/text.c %D%/text.h \
	%D%/uuid.c %D%/uuid.h \
	%D%/words.c %D%/words.h
