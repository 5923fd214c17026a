# Unit tests: tests/X/test_Y.c for X/Y.c, one cmocka program each. A test is
# linked against the archives: only what it names comes along. To fake a
# neighbour:
#     %C%_test_journal_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=fsync
LDADD = libfixtures.a libdispatcher.a libedge.a libshared.a $(CMOCKA_LIBS) \
	$(FCGI_LIBS) $(DISPATCHER_LIBS)

unit_tests =
check_LIBRARIES = libfixtures.a
libfixtures_a_SOURCES =
include %D%/shared/local.mk
include %D%/fcgi/local.mk
include %D%/dispatcher/local.mk
include %D%/fuzz/local.mk
check_PROGRAMS += $(unit_tests)
TESTS += $(unit_tests)

# Those on a MongoDB wire server.
mongo_tests = %D%/dispatcher/test_mails_mongo.log \
	%D%/dispatcher/test_mongo.log \
	%D%/dispatcher/test_places_mongo.log
$(mongo_tests): ferretdb

# A report of a sanitizer fails the test; the folders are for tests that read
# or start something.
AM_TESTS_ENVIRONMENT = \
	TOP_SRCDIR='$(abs_top_srcdir)'; export TOP_SRCDIR; \
	TOP_BUILDDIR='$(abs_top_builddir)'; export TOP_BUILDDIR; \
	$(SANITIZER_ENVIRONMENT)
SANITIZER_ENVIRONMENT = \
	ASAN_OPTIONS="detect_leaks=1:$$ASAN_OPTIONS"; export ASAN_OPTIONS; \
	UBSAN_OPTIONS="print_stacktrace=1:$$UBSAN_OPTIONS"; \
	export UBSAN_OPTIONS; \
	TSAN_OPTIONS="halt_on_error=1:suppressions=$(abs_top_srcdir)/%D%/tsan.supp:$$TSAN_OPTIONS"; \
	export TSAN_OPTIONS;

# End to end. E2E= chooses: "yes" all, "short" those marked so, "no" none.
E2E = yes
check_PROGRAMS += mongo_race
mongo_race_SOURCES = %D%/e2e/mongo_race.c
mongo_race_LDADD = $(MONGOC_LIBS)

# What the benches measure against, and with.
check_PROGRAMS += fill hello hello_loop plain_insert upstream
fill_SOURCES = %D%/bench/fill.c
fill_LDADD = libshared.a $(SHARED_LIBS)
hello_SOURCES = %D%/bench/hello.c
hello_LDADD = $(FCGI_LIBS)
hello_loop_SOURCES = %D%/bench/hello_loop.c
hello_loop_LDADD = libedge.a libshared.a $(EDGE_LIBS)
plain_insert_SOURCES = %D%/bench/plain_insert.c
plain_insert_LDADD = $(MONGOC_LIBS)
upstream_SOURCES = %D%/sim/upstream.c
upstream_LDADD =

PY = $(SANITIZER_ENVIRONMENT) \
	PYTHONDONTWRITEBYTECODE=1 BUILD_DIR='$(abs_top_builddir)' $(PYTHON)
PYTEST = $(PY) -m pytest -p no:cacheprovider

.PHONY: check-unit check-e2e torture bench mutants fuzz fresh style coverage
check-unit:
	$(MAKE) check E2E=no

# For the test of the form; not part of "all": npm fetches it.
axe_sources = %D%/e2e/axe/install.sh %D%/e2e/axe/package.json \
	%D%/e2e/axe/package-lock.json
axe_file = axe/node_modules/axe-core/axe.min.js
$(axe_file): $(axe_sources)
	$(AM_V_GEN)$(srcdir)/%D%/e2e/axe/install.sh axe && touch $@
clean-local: clean-browser
.PHONY: clean-browser
clean-browser:
	rm -rf axe artefacts

check-e2e: all $(check_PROGRAMS) ferretdb $(axe_file)
	@case '$(E2E)' in \
	yes) $(PYTEST) $(srcdir)/%D%/e2e ;; \
	short) $(PYTEST) -m short $(srcdir)/%D%/e2e ;; \
	esac

# Comes after the unit tests, unless make is told to run things together (-j).
check-local:
	@test '$(E2E)' = no || $(MAKE) check-e2e

torture: all $(check_PROGRAMS)
	@$(PY) $(srcdir)/%D%/torture/torture.py

bench: all $(check_PROGRAMS) ferretdb
	@$(PY) $(srcdir)/%D%/bench/bench.py

mutants: all
	@$(PY) $(srcdir)/%D%/mutants/mutants.py

style:
	$(srcdir)/%D%/style.sh

fuzz:
	$(srcdir)/%D%/fuzz.sh

fresh:
	$(srcdir)/%D%/fresh.sh

coverage: check
	gcovr --root $(srcdir) --filter '$(srcdir)/(shared|fcgi|dispatcher)/'

# What is run as it is.
EXTRA_DIST += %D%/fuzz/corpus \
	%D%/bench/bench.py \
	%D%/bench/post.lua \
	%D%/e2e/axe/install.sh \
	%D%/e2e/axe/package-lock.json \
	%D%/e2e/axe/package.json \
	%D%/e2e/conftest.py \
	%D%/e2e/harness.py \
	%D%/e2e/load.py \
	%D%/e2e/mongo_server.py \
	%D%/e2e/test_bad_input.py \
	%D%/e2e/test_call.py \
	%D%/e2e/test_callback.py \
	%D%/e2e/test_config.py \
	%D%/e2e/test_faults.py \
	%D%/e2e/test_health_metrics.py \
	%D%/e2e/test_invitation.py \
	%D%/e2e/test_invitation_form.py \
	%D%/e2e/test_mongo.py \
	%D%/e2e/test_quickstart.py \
	%D%/e2e/test_simulate.py \
	%D%/e2e/test_sluicectl.py \
	%D%/e2e/test_sms.py \
	%D%/e2e/test_trigger.py \
	%D%/fresh.sh \
	%D%/fuzz.sh \
	%D%/mutants/mutants.py \
	%D%/sim/calls.py \
	%D%/sim/objects.py \
	%D%/sim/sms.py \
	%D%/sim/smtp.py \
	%D%/sim/tester.py \
	%D%/style.sh \
	%D%/torture/torture.py \
	%D%/torture/torture_invitation.py \
	%D%/torture/torture_sms.py \
	%D%/tsan.supp
