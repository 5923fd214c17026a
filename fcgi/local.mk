# The FastCGI edge, and one handler program a service.
noinst_LIBRARIES += libedge.a
libedge_a_SOURCES = \
	%D%/ask_pool.c %D%/ask_pool.h \
	%D%/auth.c %D%/auth.h \
	%D%/conn.c %D%/conn.h \
	%D%/edge.c %D%/edge.h \
	%D%/edge_batch.c %D%/edge_batch.h \
	%D%/edge_listen.c %D%/edge_listen.h \
	%D%/edge_loop.c %D%/edge_loop.h \
	%D%/edge_read.c %D%/edge_read.h \
	%D%/edge_take.c %D%/edge_take.h \
	%D%/edge_write.c %D%/edge_write.h \
	%D%/exchange.c %D%/exchange.h \
	%D%/invitation_page.c %D%/invitation_page.h \
	%D%/mailbox.c %D%/mailbox.h \
	%D%/pace.c %D%/pace.h \
	%D%/records.c %D%/records.h \
	%D%/reply.c %D%/reply.h \
	%D%/request.c %D%/request.h \
	%D%/route.c %D%/route.h \
	%D%/side_pool.c %D%/side_pool.h

pkglibexec_PROGRAMS += callback.fcgi invitation.fcgi sms.fcgi \
	status.fcgi trigger.fcgi
callback_fcgi_SOURCES = %D%/callback.c
callback_fcgi_LDADD = libedge.a libshared.a $(EDGE_LIBS)
invitation_fcgi_SOURCES = %D%/invitation.c
invitation_fcgi_LDADD = libedge.a libshared.a $(EDGE_LIBS)
sms_fcgi_SOURCES = %D%/sms.c
sms_fcgi_LDADD = libedge.a libshared.a $(EDGE_LIBS)
status_fcgi_SOURCES = %D%/status.c
status_fcgi_LDADD = libedge.a libshared.a $(EDGE_LIBS)
trigger_fcgi_SOURCES = %D%/trigger.c
trigger_fcgi_LDADD = libedge.a libshared.a $(EDGE_LIBS)
