# The dispatcher and its tool. The archive holds all but the mains.
noinst_LIBRARIES += libdispatcher.a
libdispatcher_a_SOURCES = \
	%D%/allocator.c %D%/allocator.h \
	%D%/allocator_turn.c %D%/allocator_turn.h \
	%D%/backoff.c %D%/backoff.h \
	%D%/batcher.c %D%/batcher.h \
	%D%/call.c \
	%D%/call_record.c %D%/call_record.h \
	%D%/call_store.c \
	%D%/callback.c \
	%D%/callback_outcome.c %D%/callback_outcome.h \
	%D%/callback_pool.c %D%/callback_pool.h \
	%D%/callback_store.c \
	%D%/control.c %D%/control.h \
	%D%/control_commands.c %D%/control_commands.h \
	%D%/feed.c %D%/feed.h \
	%D%/fetcher.c %D%/fetcher.h \
	%D%/housekeeper.c %D%/housekeeper.h \
	%D%/invitation.c \
	%D%/lane.c %D%/lane.h \
	%D%/limiter.c %D%/limiter.h \
	%D%/limiter_episode.c %D%/limiter_episode.h \
	%D%/mail_message.c %D%/mail_message.h \
	%D%/mail_template.c %D%/mail_template.h \
	%D%/mailer.c %D%/mailer.h \
	%D%/mails.h \
	%D%/mails_mongo.c \
	%D%/metrics.c %D%/metrics.h \
	%D%/migrate.c %D%/migrate.h \
	%D%/outbox.c %D%/outbox.h \
	%D%/pg_arrays.c %D%/pg_arrays.h \
	%D%/mongo.c %D%/mongo.h \
	%D%/places.h \
	%D%/places_mongo.c %D%/places_mongo.h \
	%D%/poster.c %D%/poster.h \
	%D%/poster_links.c %D%/poster_links.h \
	%D%/queue.c %D%/queue.h \
	%D%/registrar.c %D%/registrar.h \
	%D%/service.c %D%/service.h \
	%D%/simulate_run.c %D%/simulate_run.h \
	%D%/sms.c \
	%D%/sms_notifier.c %D%/sms_notifier.h \
	%D%/sms_record.c %D%/sms_record.h \
	%D%/sms_status.c \
	%D%/sluicectl_invitation.c %D%/sluicectl_invitation.h \
	%D%/sluicectl_print.c %D%/sluicectl_print.h \
	%D%/sms_status_store.c \
	%D%/sms_store.c \
	%D%/smtp.c %D%/smtp.h \
	%D%/store_pg.c %D%/store_pg.h \
	%D%/store_retire.c %D%/store_retire.h \
	%D%/transfers.c %D%/transfers.h \
	%D%/transfers_easy.c \
	%D%/transfers_impl.h \
	%D%/work.c %D%/work.h \
	%D%/writer.c %D%/writer.h

sbin_PROGRAMS += sluiced
sluiced_SOURCES = %D%/main.c
sluiced_LDADD = libdispatcher.a libshared.a $(DISPATCHER_LIBS)

bin_PROGRAMS += sluicectl
sluicectl_SOURCES = %D%/sluicectl.c
sluicectl_LDADD = libdispatcher.a libshared.a $(DISPATCHER_LIBS)

bin_PROGRAMS += sluice-simulate
sluice_simulate_SOURCES = %D%/simulate.c
sluice_simulate_LDADD = libdispatcher.a libshared.a $(SHARED_LIBS)
