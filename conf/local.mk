# Configurations, migrations, systemd units, and the MongoDB wire server.
migrationsdir = $(pkgdatadir)/migrations
dist_migrations_DATA = \
	%D%/migrations/0001_objects.sql \
	%D%/migrations/0002_calls.sql \
	%D%/migrations/0003_sms.sql

maildir = $(pkgdatadir)/mail
dist_mail_DATA = \
	%D%/mail/apology.html \
	%D%/mail/apology.subject \
	%D%/mail/apology.txt \
	%D%/mail/unknown.html \
	%D%/mail/unknown.subject \
	%D%/mail/unknown.txt \
	%D%/mail/welcome.html \
	%D%/mail/welcome.subject \
	%D%/mail/welcome.txt

examplesdir = $(docdir)/examples
dist_examples_DATA = \
	%D%/examples/haproxy-delay.cfg \
	%D%/examples/nginx-delay.conf \
	%D%/sluice.conf.example \
	%D%/lighttpd/sluice.conf.in \
	%D%/apache/mod_fcgid.conf.in \
	%D%/apache/mod_proxy_fcgi.conf.in

systemd_templates = \
	%D%/systemd/sluice-callback.service.in \
	%D%/systemd/sluice-callback.socket.in \
	%D%/systemd/sluice-invitation.service.in \
	%D%/systemd/sluice-invitation.socket.in \
	%D%/systemd/sluice-sms.service.in \
	%D%/systemd/sluice-sms.socket.in \
	%D%/systemd/sluice-status.service.in \
	%D%/systemd/sluice-status.socket.in \
	%D%/systemd/sluice-trigger.service.in \
	%D%/systemd/sluice-trigger.socket.in \
	%D%/systemd/sluiced.service.in
nodist_systemdsystemunit_DATA = $(systemd_templates:.in=)
sysusersdir = $(prefix)/lib/sysusers.d
dist_sysusers_DATA = %D%/systemd/sluice.conf
CLEANFILES += $(nodist_systemdsystemunit_DATA)

$(nodist_systemdsystemunit_DATA): %: %.in Makefile
	$(AM_V_GEN)$(MKDIR_P) $(@D) && sed \
		-e 's|[@]sbindir@|$(sbindir)|g' \
		-e 's|[@]pkglibexecdir@|$(pkglibexecdir)|g' \
		-e 's|[@]sysconfdir@|$(sysconfdir)|g' \
		$(srcdir)/$@.in >$@.tmp && mv $@.tmp $@

# Not part of "all": it needs Go, or fetches one (see build.sh).
ferretdb_sources = %D%/ferretdb/build.sh %D%/ferretdb/main.go \
	%D%/ferretdb/go.mod %D%/ferretdb/go.sum
ferretdb: $(ferretdb_sources)
	$(AM_V_GEN)$(srcdir)/%D%/ferretdb/build.sh $@
CLEANFILES += ferretdb

EXTRA_DIST += $(systemd_templates) $(ferretdb_sources) \
	%D%/sh/fill.sh %D%/sh/install.sh %D%/sh/keep.sh %D%/sh/process.sh
