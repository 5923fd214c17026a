#!/usr/bin/python3
"""`make torture`: kill everything at random under load, and count.

1. only sluiced: killed and restarted 10 times     -> 0 requests fail
2. only PostgreSQL: stopped for 20 s, then its
   sessions killed                                 -> 0 requests fail
3. everything: handlers, multiwatch, sluiced, PostgreSQL sessions and the
   object server killed with -9 at random every 30-100 ms
                                                   -> what fails is repeated
4. afterwards: each acknowledged id is stored, or dead with a reason, or was
   answered offline; the ledger balances; the journal is empty; what died
   comes back with `sluicectl dead retry`.

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
from harness import descendants, is_online, signal_if_alive  # noqa: E402
from load import Clients  # noqa: E402

RESTARTS = 10
IDS_MAX = 10
# How often each is the victim, of 100.
WEIGHTS = {"handler": 50, "multiwatch": 8, "sluiced": 14, "objects": 14,
           "postgres session": 14}


class Torture:
    def __init__(self, options):
        self.options = options
        self.random = random.Random(options.seed)
        self.passed, self.failed = 0, 0
        self.kills = collections.Counter()
        self.strange_ends = []
        self.rss_max_kib = 0
        self.next_id = itertools.count(0)
        self.recent = collections.deque([0], maxlen=500)
        self.place = harness.Place("torture")
        self.instance = self.place.instance(
            delay_ms=(3, 40), kept=True,
            conf={"callback.retry_base_ms": 100, "callback.max_attempts": 6})
        self.clients = Clients(self.instance.port, self.make_ids,
                               clients=12, pause_s=0.03)

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
        if status != -signal.SIGKILL:
            self.strange_ends.append(f"{process.name}: status {status}")
        process.start()
        return True

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
        before = self.clients.statuses.copy()
        await body(seconds)
        await asyncio.sleep(0.5)  # answers that are on their way
        spent = self.clients.statuses - before
        failed = sum(n for status, n in spent.items() if status != 202)
        print(f"{name}: {spent[202]} requests accepted, {failed} failed "
              f"{dict(spent)}", flush=True)
        self.check(spent[202] > 0, f"{name}: requests are accepted")
        if clean:
            self.check(failed == 0, f"{name}: 0 requests fail")

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
            self.start_again(self.instance.sluiced)
            self.start_again(self.instance.objects)

    def kill(self, victim):
        instance = self.instance
        self.note_rss()
        if victim == "postgres session":
            self.kill_postgres_session()
            return
        if victim in ("sluiced", "objects"):
            process = getattr(instance, victim)
            process.kill()
            pids = [process.pid]
        else:
            name = "callback.fcgi" if victim == "handler" else victim
            pids = descendants(instance.callback.pid, name)
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
        self.clients.stopping = True
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            self.start_again(self.instance.sluiced)
            self.start_again(self.instance.objects)
            if self.load.done():
                break
            await asyncio.sleep(0.1)
        self.check(self.load.done(), "every client got its last answer")
        await asyncio.to_thread(self.instance.wait_ready)
        begun = time.monotonic()
        try:
            await asyncio.to_thread(self.instance.wait_idle, 300)
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

    def retry_the_dead(self):
        if self.instance.dead():
            self.instance.sluicectl("dead", "retry", "all")
            self.instance.wait_idle(300)
        online = {i for i in self.clients.acknowledged_ids() if is_online(i)}
        self.check(self.instance.stored() == online
                   and not self.instance.dead(),
                   "with the dead letters retried, every online id is stored")

    async def run(self):
        # Rather more than half of it is phase 3; the rest is for settling.
        seconds = self.options.seconds
        self.load = asyncio.create_task(self.clients.run())
        await asyncio.sleep(1)
        await self.phase("only sluiced", 0.15 * seconds, self.restart_sluiced,
                         clean=True)
        await self.phase("only PostgreSQL", min(20, seconds / 6),
                         self.stop_postgres, clean=True)
        await self.phase("everything", 0.45 * seconds, self.kill_everything,
                         clean=False)
        await self.settle()
        self.account()
        self.retry_the_dead()

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
