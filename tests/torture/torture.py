#!/usr/bin/python3
"""`make torture`: kill everything at random under load, and count.

Callbacks are posted, calls triggered (and some canceled), messages sent and
places asked for all the time; the provider of messages fails, hangs, answers
twice, and posts updates of their statuses in bad order and more than once.

1. only sluiced: killed and restarted 10 times     -> 0 requests fail
2. only PostgreSQL: stopped for 20 s, then its
   sessions killed                                 -> 0 requests fail
3. everything: handlers, multiwatch, sluiced, PostgreSQL sessions, MongoDB, the
   object server and the mail server killed with -9 at random every 30-100 ms
                                                   -> what fails is repeated
4. afterwards: each acknowledged id is stored, or dead with a reason, or was
   answered offline; the ledger balances; the journal is empty; what died
   comes back with `sluicectl dead retry`.
5. of the calls: each acknowledged id has ended in the database, none was
   dialled twice or once canceled, the provider refused none and saw no more
   than its limit, and each caller's were dialled in their order.
6. of the messages (torture_sms.py): each acknowledged one has ended in one
   final status, or is dead and does so after `sluicectl dead retry`; what the
   provider saw twice came under the same key with the same body; no state went
   back; each update of a status is applied, or an error with its reason.
7. of the invitations (torture_invitation.py): each acknowledged request has
   ended as a place, waiting, unknown, repeated or refused; never one place too
   many; places in order of arrival; everybody has the right mail, at least
   once, under its Message-ID.

Prints figures and ends with "N passed, N failed"; the status is 1 if any did.
--seed repeats the choice of victims (not their timing).
"""
import argparse
import asyncio
import collections
import itertools
import os
import pathlib
import random
import signal
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import harness  # noqa: E402
from harness import (  # noqa: E402
    closest_ms, descendants, is_online, most_in_window, signal_if_alive)
from load import Callers, Clients  # noqa: E402
import torture_invitation  # noqa: E402
import torture_sms  # noqa: E402

RESTARTS = 10
IDS_MAX = 10
# How often each is the victim.
WEIGHTS = {"callback.fcgi": 30, "trigger.fcgi": 12, "sms.fcgi": 12,
           "multiwatch": 8, "sluiced": 10, "sluiced, asked to end": 4,
           "objects": 12, "postgres session": 12,
           **torture_invitation.WEIGHTS}
# The provider's limit, ten times as fast as the real one. It is shorter than
# what sluiced is told by more than two ticks of the kernel, in which the
# simulator learns when a request came: it is starved here, too.
CALL_COUNT, CALL_WINDOW_MS, CALL_TICKS_MS = 25, 1000, 20


class Torture:
    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.passed, self.failed = 0, 0
        self.kills = collections.Counter()
        self.strange_ends = []
        self.asked_to_end = False  # sluiced, in phase 3
        self.rss_max_kib = 0
        self.next_id = itertools.count(0)
        self.recent = collections.deque([0], maxlen=500)
        self.place = harness.Place("torture")
        self.instance = self.place.instance(
            delay_ms=(3, 40), kept=True, start=False, sms_handlers=2,
            invitation_handlers=2, mongo=True,
            conf={"callback.retry_base_ms": 100, "callback.max_attempts": 6,
                  "call.rate_count": CALL_COUNT,
                  "call.rate_window_ms": CALL_WINDOW_MS + CALL_TICKS_MS,
                  "call.backoff_ms": 3000, "call.max_backoff_ms": 6000,
                  **torture_sms.CONF, **torture_invitation.CONF})
        self.provider = harness.CallProvider(
            self.instance, count=CALL_COUNT, window_ms=CALL_WINDOW_MS,
            lockout_ms=3000, answer_ms=(100, 300), kernel_time=1).start()
        self.instance.write_conf(call__url=self.provider.url)
        self.sms = torture_sms.Sms(self.instance, self.check, options.seed)
        self.invitations = torture_invitation.Invitations(
            self.instance, self.check, options.seed)
        self.instance.start()
        self.sms.started()
        self.invitations.started()
        self.clients = Clients(self.instance.port, self.make_ids,
                               clients=12, pause_s=0.03)
        self.callers = Callers(self.instance.port, seed=options.seed)

    # The load

    def make_ids(self):
        """New ids, and a few that others have named just now."""
        ids = [next(self.next_id)
               for _ in range(self.random.randrange(IDS_MAX))]
        self.recent.extend(ids)
        return ids + self.random.choices(self.recent, k=3)

    def check(self, good, what):
        self.passed, self.failed = self.passed + good, self.failed + (not good)
        print(f"{'ok    ' if good else 'FAILED'} {what}", flush=True)

    # Who restarts what dies, as systemd would (keep.sh has the handlers)

    def start_again(self, process):
        """Returns True when it had died."""
        if process.popen is None or process.alive():
            return False
        status = process.popen.returncode
        # It may be asked before it has said how it wants to be.
        if status != -signal.SIGKILL and not (
                status in (0, -signal.SIGTERM) and self.asked_to_end
                and process is self.instance.sluiced):
            self.strange_ends.append(f"{process.name}: status {status}")
        if process is self.instance.sluiced:
            self.asked_to_end = False
        process.start()
        return True

    def start_all_again(self):
        self.start_again(self.instance.sluiced)
        self.start_again(self.instance.objects)
        self.start_again(self.invitations.mail.process)
        mongo = self.invitations.mongo.process
        if mongo is not None and not mongo.alive():
            mongo.start()  # it may end by itself while PostgreSQL is away

    def note_rss(self):
        status = pathlib.Path(f"/proc/{self.instance.sluiced.pid}/status")
        try:
            for line in status.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self.rss_max_kib = max(self.rss_max_kib,
                                           int(line.split()[1]))
        except OSError:
            pass

    # Phases

    async def phase(self, name, seconds, body, clean):
        """Run body under the load; with clean, no request may fail."""
        loads = {"requests": self.clients, "calls": self.callers,
                 "messages": self.sms.senders, "updates": self.sms.updates,
                 "people": self.invitations.load}
        before = {what: loads[what].statuses.copy() for what in loads}
        await body(seconds)
        await asyncio.sleep(0.5)  # answers that are on their way
        for what, load in loads.items():
            spent = load.statuses - before[what]
            failed = sum(n for status, n in spent.items() if status != 202)
            print(f"{name}: {spent[202]} {what} accepted, {failed} failed "
                  f"{dict(spent)}", flush=True)
            self.check(spent[202] > 0, f"{name}: {what} are accepted")
            if clean:
                self.check(failed == 0, f"{name}: 0 {what} fail")

    async def restart_sluiced(self, seconds):
        """Some ends orderly, some not; now and then away for a while."""
        sluiced = self.instance.sluiced
        for k in range(RESTARTS):
            await asyncio.sleep(seconds / RESTARTS / 2)
            self.note_rss()
            number = signal.SIGTERM if k % 3 == 0 else signal.SIGKILL
            status = await asyncio.to_thread(sluiced.stop, number)
            if status not in (0, -signal.SIGKILL):
                self.strange_ends.append(f"sluiced: status {status}")
            self.kills[f"sluiced, restarted ({number.name})"] += 1
            await asyncio.sleep(seconds / RESTARTS / 2)
            sluiced.start()

    async def stop_postgres(self, seconds):
        await asyncio.to_thread(self.place.postgres.stop)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(self.place.postgres.start)
        for _ in range(5):
            await asyncio.sleep(0.5)
            self.kill_postgres_session()

    async def kill_everything(self, seconds):
        end = time.monotonic() + seconds
        victims, weights = list(WEIGHTS), list(WEIGHTS.values())
        while time.monotonic() < end:
            await asyncio.sleep(self.random.uniform(0.030, 0.100))
            self.kill(self.random.choices(victims, weights)[0])
            self.start_all_again()
        if self.asked_to_end:
            await asyncio.to_thread(self.instance.sluiced.wait)
            self.start_again(self.instance.sluiced)

    def kill(self, victim):
        instance = self.instance
        self.note_rss()
        if victim == "postgres session":
            self.kill_postgres_session()
            return
        if victim == "sluiced, asked to end":
            self.asked_to_end = True
            instance.sluiced.send(signal.SIGTERM)
            pids = [instance.sluiced.pid]
        elif victim in ("sluiced", "objects", "smtp", "mongo"):
            process = {"sluiced": instance.sluiced,
                       "objects": instance.objects,
                       "smtp": self.invitations.mail.process,
                       "mongo": self.invitations.mongo.process}[victim]
            if process is None:
                return  # $SLUICE_MONGO_URI is not ours
            process.kill()
            pids = [process.pid]
        else:
            pids = [pid for process in instance.handler_processes()
                    for pid in descendants(process.pid, victim)]
            pids = self.random.sample(pids, min(1, len(pids)))
            for pid in pids:
                signal_if_alive(pid, signal.SIGKILL)
        self.kills[victim] += len(pids)

    def kill_postgres_session(self):
        """The server process of sluiced's or a handler's connection: the
        whole of PostgreSQL then goes through a crash recovery."""
        sessions = []
        for pid in descendants(self.place.postgres.process.pid, "postgres"):
            try:
                title = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            if f" {self.instance.database} ".encode() in title:
                sessions.append(pid)
        if sessions:
            os.kill(self.random.choice(sessions), signal.SIGKILL)
            self.kills["postgres session"] += 1

    # Afterwards

    async def settle(self):
        for load in (self.clients, self.callers, self.sms.senders,
                     self.invitations.load):
            load.stopping = True
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            self.start_all_again()
            if self.load.done():
                break
            await asyncio.sleep(0.1)
        self.check(self.load.done(), "every client got its last answer")
        if self.load.done():
            self.load.result()  # raises what ended a client
        await asyncio.to_thread(self.instance.wait_ready)
        begun = time.monotonic()
        try:
            await asyncio.to_thread(self.instance.wait_idle, 300)
            print(f"the callbacks took {time.monotonic() - begun:.1f} s")
            await asyncio.to_thread(harness.wait_for, self.calls_ended,
                                    "the calls have ended", 300)
            await asyncio.to_thread(harness.wait_for, self.sms.settled,
                                    "the messages have ended", 120)
            await asyncio.to_thread(harness.wait_for, self.invitations.settled,
                                    "the invitations have ended", 120,
                                    every=0.5)
        except AssertionError:
            pass
        self.note_rss()
        print(f"the rest took {time.monotonic() - begun:.1f} s")

    def account(self):
        instance = self.instance
        acknowledged = self.clients.acknowledged_ids()
        online = {i for i in acknowledged if is_online(i)}
        stored, dead = instance.stored(), instance.dead()
        dead_ids = {int(item) for item in dead}
        lost = online - stored - dead_ids
        counters = instance.counters()
        print(f"{len(self.clients.acknowledged)} requests acknowledged, "
              f"{self.clients.failed()} attempts failed and were repeated")
        print(f"{len(acknowledged)} ids: {len(online & stored)} stored, "
              f"{len(dead_ids)} dead, "
              f"{len(acknowledged - online - dead_ids)} offline, "
              f"{len(lost)} lost")
        print(f"ledger: {counters}")
        print(f"killed: {dict(self.kills)}, {sum(self.kills.values())} in all")
        print(f"sluiced: at most {self.rss_max_kib / 1024:.1f} MiB")
        self.check(not lost, f"0 acknowledged ids lost {sorted(lost)[:10]}")
        self.check(stored <= online,
                   "nothing stored that is offline or was never accepted")
        self.check(all(reason for reason, _ in dead.values()),
                   "each dead letter has a reason")
        self.check(counters["accepted"] == counters["final"]
                   + counters["pending"] + counters["dead"],
                   "the ledger balances")
        self.check(counters["pending"] == counters["outcomes"] == 0,
                   "the journal's queue is empty")
        self.check(counters["accepted"] == len(self.clients.acknowledged),
                   "accepted once: a repeat with the same key is no request")
        self.check(not self.strange_ends,
                   f"nobody ended by himself {self.strange_ends[:5]}")

    def calls_ended(self):
        counters = self.instance.counters("call")
        return counters["pending"] == 0 and counters["outcomes"] == 0

    def account_calls(self):
        callers, log = self.callers, self.provider.log()
        summary = self.provider.summary()
        rows = {call_id: (phone, status, attempts) for
                call_id, phone, status, attempts in self.instance.sql(
                    "SELECT call_id::text, phone_number, status, attempts"
                    " FROM calls")}
        states = {call_id: row[1] for call_id, row in rows.items()}
        counters = self.instance.counters("call")
        print(f"{len(callers.phones)} calls acknowledged: "
              f"{dict(collections.Counter(states.values()))}; DELETE: "
              f"{dict(callers.cancel_statuses)}")
        print(f"provider: {summary}, {CALL_COUNT + 1} within "
              f"{closest_ms(log, CALL_COUNT)} ms; it was at most "
              f"{max(entry['late_ms'] for entry in log):.0f} ms late to look")
        print(f"ledger of the calls: {counters}")
        self.check(
            {i: row[0] for i, row in rows.items()} == callers.phones,
            "each acknowledged call is stored, and no other")
        self.check_calls_states(states, log)
        self.check_provider(summary, log, callers.phones)
        self.check(counters["accepted"] == counters["final"]
                   == len(callers.phones) and counters["pending"]
                   == counters["outcomes"] == counters["dead"] == 0,
                   "the ledger of the calls balances, nothing is left")
        self.check_order(log, {i for i, row in rows.items() if row[2] == 1})

    def check_order(self, log, first_tries):
        """Each caller's calls came in the order of their acknowledgements. A
        first try that failed before it was sent is not in the log."""
        place = {entry["key"]: k for k, entry in enumerate(log)
                 if entry["key"] in first_tries}
        places = [[place[i] for i in acknowledged if i in place]
                  for acknowledged in self.callers.acknowledged]
        self.check(all(one == sorted(one) for one in places),
                   f"{sum(map(len, places))} calls dialled in their caller's "
                   "order")

    def check_calls_states(self, states, log):
        callers = self.callers
        of_state = collections.defaultdict(set)
        for call_id, state in states.items():
            of_state[state].add(call_id)
        dialled = {entry["key"] for entry in log}
        answered = {entry["key"] for entry in log if entry["answered"]}
        self.check(not states.keys() - of_state["ANSWERED"]
                   - of_state["UNKNOWN"] - of_state["CANCELED"],
                   "each call is ANSWERED, UNKNOWN or CANCELED")
        self.check(of_state["ANSWERED"] <= answered,
                   "ANSWERED: the provider did answer")
        self.check(not of_state["ANSWERED"] - dialled
                   and not dialled - of_state["ANSWERED"]
                   - of_state["UNKNOWN"],
                   "dialled: ANSWERED or UNKNOWN")
        self.check(of_state["CANCELED"] <= callers.cancel_asked,
                   "CANCELED: somebody wanted it")
        self.check(callers.canceled <= of_state["CANCELED"]
                   and not of_state["CANCELED"] & dialled,
                   "a call whose cancelling was confirmed was never dialled")
        self.check(bool(callers.canceled and of_state["UNKNOWN"])
                   and len(of_state["ANSWERED"]) > len(states) / 4,
                   "some of each: ANSWERED, UNKNOWN, CANCELED")
        self.check(callers.cancel_statuses[404] == 0,
                   "no acknowledged call is one that nobody knows")

    def check_provider(self, summary, log, phones):
        self.check(summary["keys_twice"] == summary["phones_twice"] == 0,
                   "no call reached the provider twice")
        self.check(summary["refused"] == 0, "0 calls refused with 429")
        most = most_in_window(log, CALL_WINDOW_MS)
        self.check(max(summary["most_in_window"], most) <= CALL_COUNT,
                   f"at most {CALL_COUNT} in any {CALL_WINDOW_MS} ms: {most}")
        self.check(all(phones.get(entry["key"]) == entry["phone_number"]
                       for entry in log),
                   "only acknowledged calls are dialled, with their number")

    def retry_the_dead(self):
        if self.instance.dead():
            self.instance.sluicectl("dead", "retry", "all", "callback")
            self.instance.wait_idle(300)
        online = {i for i in self.clients.acknowledged_ids() if is_online(i)}
        self.check(self.instance.stored() == online
                   and not self.instance.dead(),
                   "with the dead letters retried, every online id is stored")

    async def run(self):
        # Rather more than half of it is phase 3; the rest is for settling.
        seconds = self.options.seconds
        self.load = asyncio.gather(self.clients.run(), self.callers.run(),
                                   self.sms.senders.run(),
                                   self.invitations.load.run())
        await asyncio.sleep(1)
        await self.phase("only sluiced", 0.15 * seconds, self.restart_sluiced,
                         clean=True)
        await self.phase("only PostgreSQL", min(20, seconds / 6),
                         self.stop_postgres, clean=True)
        await self.phase("everything", 0.45 * seconds, self.kill_everything,
                         clean=False)
        await self.settle()
        self.account()
        self.account_calls()
        self.sms.account()
        self.invitations.account()
        self.retry_the_dead()
        self.sms.retry_the_dead()

    def main(self):
        print(f"seed {self.options.seed}, instance {self.instance.dir}")
        try:
            asyncio.run(self.run())
        except BaseException:
            print(self.instance.log_tails())
            raise
        if self.failed:
            print(self.instance.log_tails())
        self.place.close()
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed else 0


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=random.randrange(10 ** 6))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(Torture(parse_arguments()).main())
