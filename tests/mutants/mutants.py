"""Break each promise in turn, and see a test notice.

Works on a copy of the tree with one build in it: each mutant changes a few
lines, builds the tests that watch over them, and runs these. A mutant that no
test kills fails the run. Before that the same tests must pass unchanged.

    mutants.py
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
        if not self.make("all", *mutant.unit):
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
    source = os.path.dirname(os.path.dirname(os.path.dirname(
        os.path.abspath(__file__))))
    folder = tempfile.mkdtemp(prefix="sluice-mutants-")
    os.chmod(folder, 0o755)
    tree = Copy(source, folder)
    if not tree.prepare():
        raise SystemExit(f"mutants: the copy does not build: see {tree.log}")
    killed = sum(kill(tree, mutant) for mutant in MUTANTS)
    failed = len(MUTANTS) - killed
    if not failed:
        shutil.rmtree(folder)
    print(f"mutants: {killed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
