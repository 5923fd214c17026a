"""Break each promise in turn, and see a test notice.

Works on a copy of the tree with one build in it: each mutant changes a few
lines, builds the tests that watch over them, and runs these. A mutant that no
test kills fails the run. Before that the same tests must pass unchanged.

    mutants.py [PART...]    all, or those with a PART in their name or file
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass


@dataclass
class Mutant:
    name: str
    file: str
    old: str
    new: str
    unit: tuple = ()  # unit test programs that should notice
    e2e: tuple = ()  # or pytest arguments
    needs: tuple = ()  # what make builds for them besides


MUTANTS = [
    Mutant(
        "the answer leaves before the commit",
        "fcgi/edge_loop.c",
        "    edge_batch_commit(loop->batch, loop->now_ms, loop->now_unix_ms);\n"
        "    for (size_t k = 0; k < count; k++) {\n"
        "        if (!edge_batch_asks(loop->batch, k)) {\n"
        "            send_reply(loop, edge_batch_get(loop->batch, k));\n"
        "        }\n"
        "    }\n",
        "    for (size_t k = 0; k < count; k++) {\n"
        "        struct exchange *ex = edge_batch_get(loop->batch, k);\n"
        "        ex->route->answer(&ex->request, &ex->reply);\n"
        "        send_reply(loop, ex);\n"
        "    }\n"
        "    edge_batch_commit(loop->batch, loop->now_ms, loop->now_unix_ms);\n",
        e2e=("tests/e2e/test_faults.py", "-k",
             "each_202_follows_a_sync or may_not_be_written"),
    ),
    Mutant(
        "commits are not synced",
        "shared/journal.c",
        "PRAGMA synchronous=FULL;",
        "PRAGMA synchronous=OFF;",
        unit=("tests/shared/test_journal_faults",),
    ),
    Mutant(
        "the feed trusts the socket",
        "dispatcher/lane.c",
        "    bool in_turn = frame->seq == l->cursor + 1;\n",
        "    bool in_turn = frame->seq > l->cursor;\n",
        unit=("tests/dispatcher/test_lane",),
    ),
    Mutant(
        "a call's slot counts from its sending",
        "dispatcher/limiter.c",
        "    s->free_at_us = at_us + l->window_us +",
        "    s->free_at_us = s->taken_us + l->window_us +",
        unit=("tests/dispatcher/test_limiter",),
    ),
    Mutant(
        "a call that was under way holds no slot after a restart",
        "dispatcher/limiter.c",
        "    if (free_at_us == LIMITER_FREE) {\n",
        "    if (free_at_us == LIMITER_FREE || free_at_us == LIMITER_FLYING) {\n",
        unit=("tests/dispatcher/test_limiter",),
    ),
    Mutant(
        "a lock-out is met by more than one probe",
        "dispatcher/limiter_episode.c",
        "        e->phase = LIMITER_PROBING;\n"
        "        e->probe = generation;\n",
        "        e->phase = LIMITER_PAUSED;\n"
        "        e->probe = generation;\n",
        unit=("tests/dispatcher/test_limiter",),
    ),
    Mutant(
        "requests retire before they are persisted",
        "dispatcher/store_pg.c",
        "    if (rc == RC_OK) {\n"
        "        rc = persist_all(s, lane);\n"
        "    }\n",
        "    if (rc == RC_OK) {\n"
        "        rc = hand_in(s, lane, s->page.rows[s->page.count - 1].seq);\n"
        "        rc = rc == RC_OK ? persist_all(s, lane) : rc;\n"
        "        lane->ops->release(lane->self);\n"
        "        retire_free(&lane->with_us);\n"
        "        return rc;\n"
        "    }\n",
        unit=("tests/dispatcher/test_store_pg",),
    ),
    Mutant(
        "the order is the id's, not seq",
        "shared/journal.c",
        '" WHERE seq > ?1 ORDER BY seq LIMIT ?2",\n'
        "    [SQL_QUEUE_ROW]",
        '" WHERE seq > ?1 ORDER BY id LIMIT ?2",\n'
        "    [SQL_QUEUE_ROW]",
        unit=("tests/shared/test_journal_read",),
    ),
    Mutant(
        "a batch of messages is sent before it is recorded",
        "dispatcher/sms.c",
        "    record(desk, flight, SMS_RECORD_MAKE);\n",
        "    list_insert(&desk->ready, flight); /* mutant */\n",
        unit=("tests/dispatcher/test_sms",),
    ),
    Mutant(
        "after a restart a batch goes out under a new key",
        "dispatcher/sms.c",
        "    if (flight->body.bytes > 0 ||"
        " flight->count == (size_t)flight->batch.size) {\n",
        "    if (flight->body.bytes > 0) {\n",
        unit=("tests/dispatcher/test_sms",),
    ),
    Mutant(
        "a batch is tried once more than max_attempts",
        "dispatcher/sms.c",
        "    if (flight->batch.failures >= desk->conf.max_attempts) {\n",
        "    if (flight->batch.failures > desk->conf.max_attempts) {\n",
        unit=("tests/dispatcher/test_sms",),
    ),
    Mutant(
        "a batch that fails is split, not tried again",
        "dispatcher/sms.c",
        "    } else if (result->status == 400 || result->status == 413 ||\n",
        "    } else if (result->status >= 400 || result->status == 413 ||\n",
        unit=("tests/dispatcher/test_sms",),
    ),
    Mutant(
        "of a split batch one half is forgotten",
        "dispatcher/sms.c",
        "        flight->halves[i] = NULL;\n"
        "        if (half != NULL) {\n",
        "        flight->halves[i] = NULL;\n"
        "        if (half != NULL && i == 0) {\n",
        unit=("tests/dispatcher/test_sms",),
    ),
    Mutant(
        "of a split batch one half is not on disk",
        "dispatcher/sms_record.c",
        "        if (flight->halves[i] != NULL) {\n"
        "            rc = make_half(journal, flight->halves[i], saved[i], no);\n",
        "        if (flight->halves[i] != NULL && i == 0) {\n"
        "            rc = make_half(journal, flight->halves[i], saved[i], no);\n",
        unit=("tests/dispatcher/test_sms",),
    ),
    Mutant(
        "a batch that is given up does not keep its body",
        "dispatcher/sms_record.c",
        "    rc = journal_batch_note(journal, &again, &flight->body);\n",
        "    rc = journal_batch_note(journal, &again, NULL);\n",
        unit=("tests/dispatcher/test_sms",),
    ),
    Mutant(
        "what the provider has reported on dies all the same",
        "dispatcher/sms_record.c",
        "    *reported = rc == RC_OK && progress.state =="
        " JOURNAL_SMS_REPORTED;\n",
        "    *reported = rc == RC_OK && progress.state <"
        " JOURNAL_SMS_REPORTED - 1;\n",
        unit=("tests/dispatcher/test_sms",),
    ),
    Mutant(
        "a dead letter that is retried leaves its batch behind",
        "shared/journal_work.c",
        "    if (rc == RC_OK && service == SERVICE_SMS) {\n"
        "        rc = journal_batch_dead(",
        "    if (rc == RC_OK && service == SERVICE_COUNT) {\n"
        "        rc = journal_batch_dead(",
        unit=("tests/shared/test_journal_batch",),
    ),
    Mutant(
        "a final status is overwritten",
        "dispatcher/sms_status_store.c",
        """ " WHEN l.status || ' ' || i.status = ANY ($1::text[])"""
        """ THEN 'apply'" """,
        """ " WHEN $1::text[] IS NOT NULL THEN 'apply'" """,
        unit=("tests/dispatcher/test_sms_status_store",),
    ),
    Mutant(
        "a status that comes again is an error",
        "dispatcher/sms_status_store.c",
        """ " WHEN l.seen_states & i.bit <> 0 THEN 'repeat'" """,
        """ " WHEN l.seen_states & i.bit < 0 THEN 'repeat'" """,
        unit=("tests/dispatcher/test_sms_status_store",),
    ),
    Mutant(
        "an update that comes before its message is an error",
        "dispatcher/sms_status_store.c",
        "    bool wait = u->known || uuid_node(&u->id) != s->node_id;\n",
        "    bool wait = uuid_node(&u->id) != s->node_id;\n",
        unit=("tests/dispatcher/test_sms_status_store",),
    ),
    Mutant(
        "any signature of an update will do",
        "fcgi/sms.c",
        "    if (verdict == SIGNATURE_GOOD) {\n",
        "    if (verdict == SIGNATURE_GOOD || verdict == SIGNATURE_WRONG) {\n",
        e2e=("tests/e2e/test_sms.py", "-k", "test_signatures and lighttpd"),
    ),
    Mutant(
        "an old signature holds",
        "shared/signature.c",
        "    if (list.unix_s < now_unix_s - SIGNATURE_TOLERANCE_S ||\n",
        "    if (list.unix_s < 0 ||\n",
        unit=("tests/shared/test_signature",),
    ),
    Mutant(
        "two people may have the same place",
        "dispatcher/places_mongo.c",
        "        {REGISTRATIONS, true, {\"code\", \"slot\"}},\n",
        "        {REGISTRATIONS, false, {\"code\", \"slot\"}},\n",
        unit=("tests/dispatcher/test_places_mongo",),
        needs=("ferretdb",),
    ),
    Mutant(
        "a database that comes back is trusted to have its indexes",
        "dispatcher/registrar.c",
        "    r->prepared = false;\n"
        "    pthread_mutex_lock(&h->mutex);\n",
        "    r->prepared = r->prepared && r->failures >= 0;\n"
        "    pthread_mutex_lock(&h->mutex);\n",
        unit=("tests/dispatcher/test_registrar",),
    ),
    Mutant(
        "an old plan says that all places are taken",
        "dispatcher/allocator_turn.c",
        "    if (rc == RC_OK && count == 0 && !t->slots->fresh) {\n",
        "    if (rc == RC_OK && count > 0 && !t->slots->fresh) {\n",
        unit=("tests/dispatcher/test_allocator",),
    ),
    Mutant(
        "who lost a slot to another is passed over",
        "dispatcher/allocator_turn.c",
        "    t->slots->known = false;\n"
        "    t->lost++;\n",
        "    t->slots->known = false;\n"
        "    t->outcomes[index]->what = ALLOCATOR_REPEATED;\n"
        "    t->lost++;\n",
        unit=("tests/dispatcher/test_allocator",),
    ),
    Mutant(
        "newcomers overtake those who wait",
        "dispatcher/allocator.c",
        "    if (rc == RC_OK && !g->full) {\n",
        "    if (rc == RC_OK && g->count > 0) {\n",
        unit=("tests/dispatcher/test_allocator",),
    ),
    Mutant(
        "who is refused while registering keeps the place",
        "dispatcher/allocator_turn.c",
        "    return rc == RC_OK ? refuse(t, &given) : rc;\n",
        "    return rc == RC_OK && given.count > PLACES_MAX ? refuse(t, &given)\n"
        "                                                   : rc;\n",
        unit=("tests/dispatcher/test_allocator",),
    ),
    Mutant(
        "one leaves the waitlist before the welcome is queued",
        "dispatcher/allocator.c",
        "    rc = rc == RC_OK ? turn_mail(t) : rc;\n"
        "    rc = rc == RC_OK ? leave_waitlist(t, out) : rc;\n",
        "    rc = rc == RC_OK ? leave_waitlist(t, out) : rc;\n"
        "    rc = rc == RC_OK ? turn_mail(t) : rc;\n",
        unit=("tests/dispatcher/test_allocator",),
    ),
    Mutant(
        "a turn that failed is given up for the next",
        "dispatcher/registrar.c",
        "        back_off(r, work, rc);\n"
        "        return false;\n",
        "        back_off(r, work, rc);\n"
        "        hand_back(r);\n"
        "        return false;\n",
        unit=("tests/dispatcher/test_registrar",),
    ),
    Mutant(
        "the sweep does not come back",
        "dispatcher/registrar.c",
        "    r->sweep_at_ms = goes_on ? ended_ms : ended_ms + rest_ms;\n",
        "    r->sweep_at_ms = goes_on ? ended_ms : INT64_MAX;\n",
        unit=("tests/dispatcher/test_registrar",),
    ),
    Mutant(
        "what MongoDB refuses counts as served",
        "dispatcher/invitation.c",
        "        if (r->turn->outcomes[i].what == ALLOCATOR_POISON) {\n"
        "            rc = bury_poison(journal, r, i);\n"
        "        } else {\n",
        "        if (r->turn->outcomes[i].what == ALLOCATOR_UNDECIDED) {\n"
        "            rc = bury_poison(journal, r, i);\n"
        "        } else {\n",
        unit=("tests/dispatcher/test_invitation",),
    ),
    Mutant(
        "a turn that the registrar does not take is forgotten",
        "dispatcher/invitation.c",
        "            desk->ungiven = turn; /* before all who wait */\n"
        "            return;\n",
        "            free(turn);\n"
        "            return;\n",
        unit=("tests/dispatcher/test_invitation",),
    ),
    Mutant(
        "while the disk fails turns pile up",
        "dispatcher/invitation.c",
        "           desk->turns + desk->turns_retiring < TURNS_HELD_MAX &&\n",
        "           desk->turns < TURNS_HELD_MAX &&\n",
        unit=("tests/dispatcher/test_invitation",),
    ),
    Mutant(
        "who got a place meanwhile gets an apology",
        "dispatcher/mailer.c",
        "        if (stands[i]) {\n",
        "        if (stands[i] && !apologies_only) {\n",
        unit=("tests/dispatcher/test_mailer",),
    ),
    Mutant(
        "a mail that was sent stays queued",
        "dispatcher/outbox.c",
        "        mail.state = OUTBOX_SENT;\n",
        "        mail.state = OUTBOX_QUEUED;\n",
        unit=("tests/dispatcher/test_outbox",),
    ),
    Mutant(
        "a recipient who is refused keeps the place",
        "dispatcher/mailer.c",
        "    return mail->outbox.state == OUTBOX_REFUSED &&\n",
        "    return mail->outbox.state == OUTBOX_STATE_COUNT &&\n",
        unit=("tests/dispatcher/test_mailer",),
    ),
    Mutant(
        "a server that refuses us is not left alone",
        "dispatcher/outbox.c",
        "    o->until_ms = now_ms + o->step_ms;\n"
        "    o->was_taken",
        "    o->until_ms = now_ms;\n"
        "    o->was_taken",
        unit=("tests/dispatcher/test_outbox",),
    ),
    Mutant(
        "the form shows what was typed as it is",
        "fcgi/invitation_page.c",
        "    case '<':\n"
        "        return \"&lt;\";\n",
        "    case '<':\n"
        "        return NULL;\n",
        unit=("tests/fcgi/test_invitation_page",),
    ),
    Mutant(
        "an address may add headers to a mail",
        "dispatcher/mail_message.c",
        "        if ((unsigned char)value[i] < ' ' || value[i] == 0x7f) {\n",
        "        if (value[i] == 0x7f) {\n",
        unit=("tests/dispatcher/test_mail_message",),
    ),
    Mutant(
        "long headers are not folded",
        "dispatcher/mail_message.c",
        "    if (h->column + 1 + bytes > LINE_MAX_BYTES) {\n",
        "    if (h->column + 1 + bytes > 100 * LINE_MAX_BYTES) {\n",
        unit=("tests/dispatcher/test_mail_message",),
    ),
    Mutant(
        "tags make another person",
        "shared/address.c",
        "    if (plus != NULL && plus > local.data) {\n",
        "    if (plus != NULL && plus < local.data) {\n",
        unit=("tests/shared/test_address",),
    ),
    Mutant(
        "capitals make another person",
        "shared/address.c",
        "        memcpy(out->key, folded.data, folded.bytes);\n",
        "        memcpy(out->key, local.data, folded.bytes);\n",
        unit=("tests/shared/test_address",),
    ),
]


def run(command, cwd, log, **env):
    """Whether the command succeeds within ten minutes."""
    with open(log, "ab") as out:
        try:
            done = subprocess.run(
                command, cwd=cwd, stdout=out, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, timeout=600,
                env={**os.environ, **env})
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


class Copy:
    """The tree under test and its build."""

    def __init__(self, source, folder):
        self.top = os.path.join(folder, "tree")
        self.build = os.path.join(self.top, "build")
        self.log = os.path.join(folder, "mutants.log")
        shutil.copytree(
            source, self.top, symlinks=True,
            ignore=shutil.ignore_patterns("build", "build-*", "var", ".git"))
        os.mkdir(self.build)

    def make(self, *targets):
        return run(["make", "-j2", *targets], self.build, self.log)

    def prepare(self):
        return (run(["./bootstrap"], self.top, self.log)
                and run(["../configure"], self.build, self.log)
                and self.make())

    def edit(self, mutant, old, new):
        path = os.path.join(self.top, mutant.file)
        with open(path, encoding="utf-8") as file:
            text = file.read()
        if text.count(old) != 1:
            raise SystemExit(
                f"mutants: {mutant.file} has changed, mend the mutant: "
                f"{mutant.name}")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text.replace(old, new))

    def tests_pass(self, mutant):
        """Whether it builds, and then whether all its tests pass."""
        if not self.make("all", *mutant.needs, *mutant.unit):
            raise SystemExit(f"mutants: does not build: {mutant.name}: "
                             f"see {self.log}")
        for program in mutant.unit:
            if not run([os.path.join(self.build, program)], self.build,
                       self.log, TOP_SRCDIR=self.top,
                       TOP_BUILDDIR=self.build):
                return False
        if mutant.e2e:
            return run(["/usr/bin/python3", "-m", "pytest", "-q",
                        "-p", "no:cacheprovider", *mutant.e2e],
                       self.top, self.log, SLUICE_BUILD=self.build)
        return True


def kill(tree, mutant):
    """Whether the tests pass as it is and fail with the mutant."""
    if not tree.tests_pass(mutant):
        print(f"FAILED  {mutant.name}: its tests fail without it", flush=True)
        return False
    tree.edit(mutant, mutant.old, mutant.new)
    survived = tree.tests_pass(mutant)
    tree.edit(mutant, mutant.new, mutant.old)
    word = "SURVIVED" if survived else "killed  "
    watch = " ".join(mutant.unit + mutant.e2e)
    print(f"{word}  {mutant.name}  ({watch})", flush=True)
    return not survived


def main():
    parts = sys.argv[1:] or [""]
    mutants = [mutant for mutant in MUTANTS
               if any(p in mutant.name or p in mutant.file for p in parts)]
    if not mutants:
        raise SystemExit("mutants: there is none such")
    source = os.path.dirname(os.path.dirname(os.path.dirname(
        os.path.abspath(__file__))))
    folder = tempfile.mkdtemp(prefix="sluice-mutants-")
    os.chmod(folder, 0o755)
    tree = Copy(source, folder)
    if not tree.prepare():
        raise SystemExit(f"mutants: the copy does not build: see {tree.log}")
    killed = sum(kill(tree, mutant) for mutant in mutants)
    failed = len(mutants) - killed
    if not failed:
        shutil.rmtree(folder)
    print(f"mutants: {killed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
