"""What is killed, frozen, full, down or poisoned: each answers what the design
says, nothing acknowledged is lost, and accepting recovers within 2 s."""
import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import psycopg2
import pytest

import harness
from harness import (fcgi_connect, fcgi_record, fcgi_reply, fcgi_request,
                     ids_body, is_alive, is_online, wait_for)
from load import post_at_once

RECOVERY_S = 2


def evens(base, count):
    return list(range(base, base + 2 * count, 2))


def wait_recovered(instance, ids, seconds=RECOVERY_S):
    """Accepting works again within seconds."""
    begun = time.monotonic()
    wait_for(lambda: instance.post(ids).status == 202, "accepting recovers",
             seconds)
    return time.monotonic() - begun


class Load(threading.Thread):
    """Posts one request after the other until stopped; keeps what it got."""

    def __init__(self, instance, base):
        super().__init__(daemon=True)
        self.instance, self.base = instance, base
        self.stopping = threading.Event()
        self.accepted, self.failed = [], []

    def run(self):
        next_id = self.base
        while not self.stopping.is_set():
            try:
                reply = self.instance.post([next_id], seconds=30)
                if reply.status == 202:
                    self.accepted.append(next_id)
                else:
                    self.failed.append(reply)
            except (OSError, harness.http.client.HTTPException) as error:
                self.failed.append(error)
            next_id += 2

    def __enter__(self):
        self.start()
        wait_for(lambda: self.accepted, "the load runs")
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join(harness.DEADLINE_S)
        assert not self.is_alive()


# --- The dispatcher is away ------------------------------------------------------

@pytest.mark.smoke
def test_without_a_dispatcher_everything_is_still_accepted(make, even):
    instance = make()
    instance.sluiced.stop()
    ids = evens(even, 50)
    for object_id in ids:
        instance.accept([object_id])
    assert instance.counters()["pending"] == 50
    assert instance.sim_stats()["total"] == 0
    instance.sluiced.start()
    instance.wait_stored(ids)
    instance.wait_idle()


def test_the_first_request_ever_needs_no_dispatcher(make, even):
    """The handlers make the journal themselves."""
    instance = make(start=False)
    instance.start_objects()
    instance.start_web()
    instance.accept([even])
    instance.sluiced.start()
    instance.wait_stored([even])


def test_sluiced_killed_while_it_fetches(make, even):
    instance = make(delay_ms=(50, 300))
    ids = evens(even, 300)
    for at in range(0, 300, 30):
        instance.accept(ids[at:at + 30])
        instance.restart_sluiced(signal.SIGKILL)
    instance.wait_stored(ids)
    instance.wait_idle()
    assert not instance.dead()  # our own death costs an object no attempt
    assert instance.counters()["final"] == 10


@pytest.mark.smoke
def test_sluiced_ends_on_sigterm_and_goes_on_later(make, even):
    instance = make(delay_ms=(200, 400))
    ids = evens(even, 40)
    for object_id in ids:
        instance.accept([object_id])
    assert instance.sluiced.stop(signal.SIGTERM) == 0
    instance.sluiced.start()
    instance.wait_stored(ids)


def test_what_the_socket_loses_comes_from_the_journal(make, even):
    """The handlers' pushes reach nobody: their link is gone."""
    instance = make()
    (instance.run / "link.sock").unlink()
    instance.stop_handlers()
    instance.start_handlers()
    ids = evens(even, 20)
    for object_id in ids:
        instance.accept([object_id])
    instance.wait_stored(ids, seconds=10)
    assert instance.live_count() == 0


def test_one_dispatcher_for_a_journal(make, even):
    instance = make()
    begun = time.monotonic()
    second = instance.run_sluiced()
    assert second.returncode not in (0, None)
    assert str(instance.sluiced.pid) in second.stderr, second.stderr
    assert time.monotonic() - begun < 10
    # The first one was not disturbed: its link still works.
    wait_for(lambda: instance.accept([even]) and instance.live_count() > 0,
             "a frame arrives")
    instance.wait_stored([even])


# --- PostgreSQL is away ----------------------------------------------------------

@contextlib.contextmanager
def postgres_down(place):
    place.postgres.stop()
    try:
        yield
    finally:
        place.postgres.start()


def test_without_postgres_everything_goes_on_but_storing(make, place, even):
    instance = make()
    ids = evens(even, 40)
    with postgres_down(place):
        for object_id in ids:
            instance.accept([object_id])
        # Fetched, and kept in the journal as outcomes.
        wait_for(lambda: instance.sim_stats()["total"] == 40, "the fetches")
        wait_for(lambda: instance.counters()["outcomes"] > 0, "the outcomes")
        reply = instance.get(f"/objects/{even}")
        assert reply.status == 503, reply  # never a false 404
        assert int(reply.headers["retry-after"]) >= 1
        reply.problem()
        assert instance.get("/objects").status == 503
        assert instance.get("/health/live").status == 200
        ready = wait_for(
            lambda: (lambda r: r.status == 503 and r)(
                instance.get("/health/ready")), "not ready")
        assert b"postgres" in ready.body
        assert instance.counters()["final"] == 0
    instance.wait_stored(ids)
    instance.wait_idle()
    assert instance.sim_stats()["total"] == 40  # fetched once, not again
    instance.wait_ready()


@pytest.mark.smoke
def test_outcomes_survive_a_kill_while_postgres_is_down(make, place, even):
    """Nothing retires before it is durable in the database."""
    instance = make()
    ids = evens(even, 40)
    with postgres_down(place):
        instance.accept(ids)
        wait_for(lambda: instance.counters()["outcomes"] > 0, "an outcome")
        for _ in range(3):
            instance.restart_sluiced(signal.SIGKILL)
            wait_for(lambda: "ready" in instance.sluiced.log_text(), "started")
            assert instance.counters()["pending"] == 1
    instance.wait_stored(ids)
    instance.wait_idle()
    assert instance.counters()["final"] == 1


def test_sluiced_starts_without_postgres(make, place, even):
    instance = make()
    instance.sluiced.stop()
    with postgres_down(place):
        instance.sluiced.start()
        instance.accept([even])
        wait_for(lambda: instance.fetches(even), "it is fetched")
    instance.wait_stored([even])


def test_postgres_sessions_killed(make, place, even):
    instance = make()
    ids = evens(even, 60)
    for at in range(0, 60, 6):
        instance.accept(ids[at:at + 6])
        connection = place.postgres.connect("postgres")
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pid) FROM"
                           " pg_stat_activity WHERE datname = %s",
                           (instance.database,))
        connection.close()
        instance.database_connection = None
    instance.wait_stored(ids)


def test_one_object_that_postgres_refuses_is_bisected(make, even):
    instance = make()
    poison = even + 20
    instance.sql(f"ALTER TABLE objects ADD CHECK (id <> {poison})")
    ids = evens(even, 20)
    request_id = instance.accept(ids)
    others = instance.accept(evens(even + 100, 20))
    instance.wait_stored((set(ids) - {poison}) | set(evens(even + 100, 20)))
    wait_for(instance.dead, "the dead letter")
    assert list(instance.dead()) == [str(poison)]
    reason, _attempts = instance.dead()[str(poison)]
    assert "check" in reason.lower() or "objects" in reason, reason
    assert instance.ctl("explain", request_id)["state"] == "dead"
    instance.wait_idle()
    retired = instance.ctl("explain", others, check=False)
    assert retired["state"] == "unknown"


# --- Handlers ---------------------------------------------------------------------

@contextlib.contextmanager
def lone_handler(instance):
    """callback.fcgi by hand, on a socket that it makes itself."""
    path = instance.run / "lone.sock"
    process = instance.process("lone", [
        instance.place.bin / "callback.fcgi", "--config", instance.conf_file,
        "--listen", path]).start()
    try:
        wait_for(lambda: harness.socket_answers(path), "it listens")
        yield process, path
    finally:
        if process.alive():
            process.kill()


def ask(path, body, **params):
    with fcgi_connect(path) as s:
        s.sendall(fcgi_request(body, **params))
        return fcgi_reply(s)


@pytest.mark.smoke
def test_a_handler_by_hand_ends_cleanly(plain, even):
    with lone_handler(plain) as (process, path):
        assert os.stat(path).st_mode & 0o777 == 0o660
        assert ask(path, ids_body([even])).status == 202
        begun = time.monotonic()
        assert process.stop(signal.SIGTERM) == 0
        assert time.monotonic() - begun < 5
    plain.wait_stored([even])


def test_a_handler_finishes_what_is_in_hand(plain, even):
    """SIGTERM while a body is on its way, and beside connections that are
    idle or half-sent: answered, and exit 0 within 5 s."""
    with lone_handler(plain) as (process, path):
        body = ids_body([even])
        whole = fcgi_request(body)
        cut = whole.index(body)
        slow, idle, half = (fcgi_connect(path) for _ in range(3))
        slow.sendall(whole[:cut + 5])
        half.sendall(whole[:10])
        assert ask(path, ids_body([even + 2])).status == 202
        begun = time.monotonic()
        process.send(signal.SIGTERM)
        slow.sendall(whole[cut + 5:])
        reply = fcgi_reply(slow)
        # Answered well, or not at all; never accepted without an answer.
        assert reply is None or reply.status in (202, 503), reply
        assert process.wait(10) == 0
        assert time.monotonic() - begun < 5
        for s in (slow, idle, half):
            s.close()
    if reply is not None and reply.status == 202:
        plain.wait_stored([even])


def test_a_handler_with_a_stuck_client_still_ends(plain):
    with lone_handler(plain) as (process, path):
        body = ids_body([1])
        whole = fcgi_request(body)
        with fcgi_connect(path) as stuck:
            stuck.sendall(whole[:whole.index(body) + 3])
            assert ask(path, b"{").status == 400
            begun = time.monotonic()
            assert process.stop(signal.SIGTERM) == 0
            assert time.monotonic() - begun < 5.5


def test_handlers_are_replaced_without_a_lost_acknowledgement(make, even):
    instance = make(handlers=3)
    with Load(instance, even) as load:
        for number in (signal.SIGTERM, signal.SIGKILL) * 5:
            before = instance.handler_pids()
            os.kill(before[0], number)
            wait_for(lambda b=before: len(instance.handler_pids()) == 3
                     and instance.handler_pids() != b, "it is replaced")
    instance.wait_stored(load.accepted)
    # Only what the killed process held may fail.
    assert len(load.failed) <= 10, load.failed


@pytest.mark.smoke
def test_killed_handlers_come_back(site, even):
    for pid in site.handler_pids():
        os.kill(pid, signal.SIGKILL)
    wait_recovered(site, [even], seconds=10)
    site.wait_stored([even])


def test_a_restart_under_load_refuses_no_connection(make, even):
    """SIGTERM to the handlers one by one: not one request fails."""
    instance = make(handlers=2)
    with Load(instance, even) as load:
        for _ in range(6):
            before = instance.handler_pids()
            os.kill(before[0], signal.SIGTERM)
            wait_for(lambda b=before: len(instance.handler_pids()) == 2
                     and b[0] not in instance.handler_pids(), "replaced")
    assert not load.failed
    instance.wait_stored(load.accepted)


def test_an_upgrade_under_load_fails_no_request(make, even):
    """README's steps: the handlers one by one, then the dispatcher."""
    instance = make(handlers=2)
    with Load(instance, even) as load:
        for old in instance.handler_pids():
            os.kill(old, signal.SIGTERM)
            wait_for(lambda o=old: len(instance.handler_pids()) == 2
                     and o not in instance.handler_pids(), "replaced")
        instance.sluiced.stop()
        taken = len(load.accepted)
        wait_for(lambda: len(load.accepted) > taken, "taken without it")
        instance.sluiced.start()
        instance.wait_ready()
    assert not load.failed
    instance.wait_stored(load.accepted)


def test_handlers_end_with_their_parent(make):
    instance = make()
    pids = instance.handler_pids()
    assert len(pids) == 2
    os.kill(instance.callback.pid, signal.SIGKILL)  # multiwatch
    instance.callback.popen.wait()
    wait_for(lambda: not any(is_alive(p) for p in pids),
             "--die-with-parent", 10)
    instance.stop_handlers()
    instance.start_handlers()
    wait_recovered(instance, [2], 10)


# --- The lock -----------------------------------------------------------------------

def freeze_lock_holder(instance):
    """SIGSTOP a handler while it holds the journal's lock. Returns its pid."""
    deadline = time.monotonic() + harness.DEADLINE_S
    while time.monotonic() < deadline:
        holder = instance.lock_holder()
        if holder in instance.handler_pids():
            os.kill(holder, signal.SIGSTOP)
            # Stopped with the lock in hand, or a moment too late?
            if wait_stopped(holder) and instance.lock_holder() == holder:
                return holder
            os.kill(holder, signal.SIGCONT)
    raise AssertionError("no handler was ever seen with the lock")


def wait_stopped(pid):
    def state():
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rsplit(") ", 1)[1][0]
    return wait_for(lambda: state() in "Tt", "it is stopped")


@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL])
def test_a_handler_frozen_with_the_lock(make, even, end):
    instance = make(handlers=3)
    clients = [Load(instance, even + 10_000 * k) for k in range(4)]
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.enter_context(client)
        frozen = freeze_lock_holder(instance)
    before = instance.accepted()
    try:
        # The first to come waits for 5 s, then everybody is told at once.
        wait_for(lambda: any(
            getattr(f, "status", 0) == 503 for c in clients for f in c.failed)
            or instance.post([even], seconds=30).status == 503,
            "others answer 503", 20)
        quick = []
        for _ in range(20):
            begun = time.monotonic()
            reply = instance.post([even], seconds=30)
            if reply.status == 503:
                assert int(reply.headers["retry-after"]) >= 1
                assert reply.problem()["code"] == "journal_busy"
                quick.append(time.monotonic() - begun)
        assert len(quick) >= 5, "the others answer"
        assert sorted(quick)[len(quick) // 2] < 1, quick
        ready = instance.get("/health/ready")
        assert ready.status == 503
        assert str(frozen) in ready.body.decode(), ready
        assert f"lock_holder={frozen}" in instance.callback.log_text()
        assert instance.accepted() == before
    finally:
        os.kill(frozen, end)
    wait_recovered(instance, [even])
    accepted = [i for client in clients for i in client.accepted]
    instance.wait_stored(accepted)
    instance.wait_ready()


# --- Disk -----------------------------------------------------------------------------

def journal_files(folder):
    return [p for p in folder.iterdir() if p.name.startswith("journal.db")]


def test_a_journal_that_may_not_be_written(make, even):
    instance = make(conf={"journal.max_bytes": "64 MiB"})
    instance.accept([even])
    instance.wait_idle()
    instance.stop_handlers()
    instance.sluiced.stop()
    modes = {p: p.stat().st_mode for p in
             [*journal_files(instance.dir), instance.dir]}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    try:
        instance.start_handlers()
        reply = instance.post([even + 2])
        assert reply.status == 503, reply
        assert int(reply.headers["retry-after"]) >= 1
        reply.problem()
        assert instance.get("/health/ready").status == 503
        assert instance.get(f"/objects/{even}").status == 200  # reading works
    finally:
        for path, mode in modes.items():
            path.chmod(mode & 0o7777)
    wait_recovered(instance, [even + 2])
    instance.sluiced.start()
    instance.wait_stored([even, even + 2])


@pytest.fixture
def small_disk(place):
    """A file system of 24 MiB that the instances' user may write."""
    folder = place.folder / f"small{place.count}"
    folder.mkdir()
    mounted = os.getuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m,mode=0777", "none",
         str(folder)], check=False).returncode == 0
    harness.give_to(folder, place.user)
    yield folder, mounted
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)
    shutil.rmtree(folder, ignore_errors=True)


def fill_journal(instance, ids):
    """Post until it is full. Returns the accepted ids and the refusal."""
    accepted = []
    while True:
        batch = [next(ids) for _ in range(200)]
        reply = instance.post(batch)
        if reply.status != 202:
            return accepted, reply
        accepted += batch
        assert len(accepted) < 4_000_000, "it never gets full"


def large_ids(base):
    """Ids of 15 digits, half of them online: they fill faster. Only a thousand
    different ones, which requests share: the simulator is not what is tested.
    """
    first = 10 ** 14 + base * 1000
    return itertools.cycle(range(first, first + 1000))


def test_a_full_disk(make, small_disk, even):
    """Filled by a ballast file: 503, and within 2 s of its going accepted."""
    folder, mounted = small_disk
    # Where nothing can be mounted, the handlers' files may not grow instead.
    limits = [] if mounted else ["prlimit", f"--fsize={8 << 20}", "env",
                                 "--ignore-signal=XFSZ"]
    instance = make(journal_dir=folder, delay_ms=(0, 1), limits=limits)
    instance.accept([even])
    instance.wait_stored([even])
    instance.sluiced.stop()
    ballast = folder / "ballast"
    if mounted:
        with open(ballast, "wb", buffering=0) as file, \
                contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 65536)
    accepted, reply = fill_journal(instance, large_ids(even))
    assert reply.status == 503, reply
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.problem()["code"].startswith("journal_")
    wait_for(lambda: instance.get("/health/ready").status == 503,
             "it says that it is not ready")
    assert instance.get(f"/objects/{even}").status == 200
    if not mounted:
        return
    ballast.unlink()
    wait_recovered(instance, [even + 2])
    instance.sluiced.start()
    instance.wait_stored({even + 2, *filter(is_online, accepted)})
    instance.wait_idle()


def test_a_journal_that_fills_a_disk_drains_by_itself(make, small_disk, even):
    """The reserve is the dispatcher's: it can work when handlers must not."""
    folder, mounted = small_disk
    bound = {"journal.reserve_bytes": "6 MiB"} if mounted else \
        {"journal.max_bytes": "8 MiB"}
    instance = make(journal_dir=folder, delay_ms=(0, 1), conf=bound)
    instance.sluiced.stop()
    accepted, reply = fill_journal(instance, large_ids(even))
    assert len(accepted) > 10_000
    assert (reply.status, reply.problem()["code"]) == (503, "journal_full")
    instance.sluiced.start()
    wait_for(lambda: instance.post([even]).status == 202,
             "there is room again")
    instance.wait_stored({even, *filter(is_online, accepted)},
                         seconds=8 * harness.DEADLINE_S)
    instance.wait_idle()
    assert instance.counters()["final"] == instance.accepted()


def test_max_bytes(make, even):
    instance = make(conf={"journal.max_bytes": "2 MiB"}, delay_ms=(0, 1))
    instance.sluiced.stop()
    accepted, reply = fill_journal(instance, large_ids(even))
    assert (reply.status, reply.problem()["code"]) == (503, "journal_full")
    assert int(reply.headers["retry-after"]) >= 1
    size = sum(p.stat().st_size for p in journal_files(instance.dir))
    assert size < 4 << 20, size
    instance.sluiced.start()
    instance.wait_stored(filter(is_online, accepted))
    wait_recovered(instance, [even], 10)


# --- Many at once -----------------------------------------------------------------

def test_two_thousand_connections_at_once(site, even):
    requests = [[even + 2 * k] for k in range(500)] * 4
    before = site.accepted()
    statuses = post_at_once(site.port, requests)
    accepted = statuses.count(202)
    if site.web == "mod_fcgid":
        # One request a process: what finds none free is told so.
        assert set(statuses) <= {202, 503}, set(statuses)
        assert accepted >= 80
    else:
        assert statuses == [202] * 2000
    assert site.accepted() - before >= accepted
    wait_recovered(site, [even])
    site.wait_stored({ids[0] for ids, status in zip(requests, statuses)
                      if status == 202})
    site.wait_idle()


def test_more_connections_than_a_handler_takes(make, even):
    """edge.max_connections at its bound: the rest waits in the backlog until
    those who send nothing have had their time."""
    instance = make(handlers=1, conf={"edge.max_connections": 16,
                                      "edge.body_timeout_ms": 500})
    idle = [fcgi_connect(instance.run / "callback.sock") for _ in range(100)]
    wait_for(lambda: instance.post([even], seconds=30).status == 202,
             "idle connections give way")
    for s in idle:
        s.close()
    wait_recovered(instance, [even])


def test_a_handler_without_descriptors_goes_on(make, even):
    """EMFILE must not end the endpoint."""
    instance = make(handlers=1, limits=["prlimit", "--nofile=48:48"])
    idle = []
    for _ in range(200):
        idle.append(fcgi_connect(instance.run / "callback.sock"))
    pid, = instance.handler_pids()
    for s in idle:
        s.close()
    wait_recovered(instance, [even], 10)
    assert instance.handler_pids() == [pid]


# --- The object server -----------------------------------------------------------

FAILING = {
    # mode: what the dead letter's reason must say
    "400": "400", "404": "404", "500": "500", "503": "503", "429": "429",
    "garbage": "JSON|answer", "wrong_type": "answer|online",
    "truncated": "JSON|answer", "huge": "long|large|bytes",
    "reset": "reset|closed|recv|connection|failure",
    "hang": "within",
}


@pytest.mark.parametrize("mode", FAILING)
def test_an_object_server_that_fails(make, even, mode):
    """Dead letters with their reason, the rest of the callback goes on, and a
    retry later succeeds."""
    instance = make(conf={"callback.max_attempts": 2,
                          "callback.retry_base_ms": 10,
                          "callback.timeout_ms": 500})
    instance.simulate(mode=mode)
    ids = evens(even, 3)
    request_id = instance.accept(ids)
    wait_for(lambda: len(instance.dead()) == 3, "the dead letters")
    for object_id in ids:
        reason, attempts = instance.dead()[str(object_id)]
        assert re.search(FAILING[mode], reason, re.I), reason
        assert 1 <= attempts <= 2
        assert instance.fetches(object_id) == attempts
    if mode in ("400", "404"):  # trying again would not help
        assert all(a == 1 for _r, a in instance.dead().values())
    elif mode in ("500", "503", "429", "reset", "hang"):
        assert all(a == 2 for _r, a in instance.dead().values())
    assert instance.stored() == set()
    assert instance.counters()["dead"] == 1

    instance.simulate(mode="ok")
    others = evens(even + 100, 3)
    instance.accept(others)
    instance.wait_stored(others)
    instance.sluicectl("dead", "retry", request_id)
    instance.wait_stored(ids)
    instance.wait_idle()
    assert instance.counters()["dead"] == 0


def test_no_object_server_at_all(make, even):
    instance = make(conf={"callback.max_attempts": 2,
                          "callback.retry_base_ms": 10})
    instance.objects.kill()
    instance.accept([even])
    wait_for(instance.dead, "the dead letter")
    reason, attempts = instance.dead()[str(even)]
    assert re.search("connect|refused", reason, re.I), reason
    assert attempts == 2


def test_failures_that_pass_are_tried_again(make, even):
    instance = make(conf={"callback.max_attempts": 30,
                          "callback.retry_base_ms": 5,
                          "callback.timeout_ms": 300})
    instance.simulate(mix={"ok": 50, "500": 20, "reset": 15, "garbage": 10,
                           "hang": 5})
    ids = evens(even, 100)
    instance.accept(ids)
    instance.wait_stored(ids)
    instance.wait_idle()
    assert not instance.dead()


def test_one_dead_object_leaves_the_rest_of_its_callback(make, even):
    instance = make(conf={"callback.max_attempts": 1})
    instance.simulate(mode="500")
    instance.accept([even])
    wait_for(instance.dead, "the dead letter")
    instance.simulate(mode="ok")
    instance.accept([even + 2, even + 4])
    instance.wait_stored([even + 2, even + 4])
    assert list(instance.dead()) == [str(even)]


def test_a_slow_answer_within_the_timeout_is_normal(make, even):
    """4.3 s, with more ids than connections: the timeout counts from the GET,
    not from queueing."""
    instance = make(delay_ms=(4300, 4300), conf={"callback.concurrency": 4})
    ids = evens(even, 8)
    instance.accept(ids)
    instance.wait_stored(ids)
    assert not instance.dead()
    assert instance.sim_stats()["total"] == 8
    assert instance.sim_stats()["at_once_max"] <= 4


def test_a_slow_object_server_delays_no_accepting(make, even):
    instance = make(delay_ms=(3000, 4000), conf={"callback.concurrency": 2})
    begun = time.monotonic()
    for k in range(200):
        instance.accept(evens(even + 400 * k, 20))
    assert time.monotonic() - begun < 10
    assert instance.sim_stats()["at_once_max"] <= 2


def test_the_rate_limit(make, even):
    instance = make(conf={"callback.rate_per_s": 20})
    ids = evens(even, 60)
    begun = time.monotonic()
    instance.accept(ids)
    instance.wait_stored(ids)
    assert time.monotonic() - begun > 1.5  # 60 at 20 a second, a burst of 20


# --- Records that cannot be -------------------------------------------------------

POISON = {
    "another form": (b"[1,2]", None),
    "cut short": (b"\x01\x02\x07", None),
    "an id twice": (b"\x01\x02\x02\x02", None),
    "no text": (b"\x00\xff\xfe", None),
    "empty": (b"", None),
    "a short id": (b"\x01\x01\x02", b"\x01\x02"),
    "an id too large": (b"\x01\x01\x81" + b"\x80" * 6 + b"\x10", None),
}


@pytest.mark.parametrize("name", POISON)
def test_a_record_that_cannot_be_decoded_is_quarantined(make, even, name):
    body, record_id = POISON[name]
    instance = make()
    record_id = record_id if record_id is not None else os.urandom(16)
    journal = instance.journal()
    with journal:
        journal.execute("INSERT INTO queue_callback(id, received, body)"
                        " VALUES(?, 1700000000000, ?)", (record_id, body))
        journal.execute("UPDATE counter SET accepted = accepted + 1"
                        " WHERE service = 'callback'")
    journal.close()
    instance.accept([even])
    instance.wait_stored([even])  # those behind it are not held up
    wait_for(lambda: instance.counters()["dead"] == 1, "it is quarantined")
    kept = instance.journal_rows("SELECT * FROM dead")
    assert len(kept) == 1 and kept[0]["reason"]
    assert instance.metrics()[
        ("sluice_quarantined_total", (("service", "callback"),))] == 1
    assert "quarantine" in instance.sluiced.log_text()
    assert instance.sluiced.alive()
    instance.restart_sluiced(signal.SIGTERM)  # and again it is no crash
    instance.accept([even + 2])
    instance.wait_stored([even + 2])


def test_columns_of_the_wrong_type_are_quarantined(make, even):
    instance = make()
    journal = instance.journal()
    with journal:
        journal.execute("INSERT INTO queue_callback(id, received, body)"
                        " VALUES('text', 'yesterday', 7)")
        journal.execute("UPDATE counter SET accepted = accepted + 1"
                        " WHERE service = 'callback'")
    journal.close()
    instance.accept([even])
    instance.wait_stored([even])
    wait_for(lambda: instance.counters()["dead"] == 1, "it is quarantined")


def test_an_outcome_that_cannot_be_decoded(make, place, even):
    instance = make()
    with postgres_down(place):
        instance.accept([even])
        wait_for(lambda: instance.counters()["outcomes"] == 1, "the outcome")
        instance.sluiced.kill()
        journal = instance.journal()
        with journal:
            journal.execute("UPDATE outcome SET body = X'5b5b00'")
        journal.close()
        instance.sluiced.start()
    instance.accept([even + 2])
    instance.wait_stored([even + 2])
    wait_for(lambda: instance.counters()["dead"] == 1, "it is kept")
    assert instance.sluiced.alive()


def test_a_journal_of_a_newer_program_is_refused(make):
    instance = make()
    instance.stop_handlers()
    instance.sluiced.stop()
    journal = instance.journal()
    journal.execute("PRAGMA user_version = 99")
    journal.close()
    instance.start_handlers()
    assert instance.post([2]).status == 503
    done = instance.process("newer", instance.sluiced.argv).start()
    with contextlib.suppress(subprocess.TimeoutExpired):
        done.wait(5)
    if done.alive():  # it may wait for better days, but must say so
        done.stop()
    assert re.search("schema|newer|version", done.log_text()), done.log_text()
    journal = instance.journal()
    journal.execute("PRAGMA user_version = 1")
    journal.close()


# --- Two side by side ---------------------------------------------------------------

def test_two_instances_side_by_side(make, even):
    first, second = make(), make(conf={"node.id": 7})
    one = first.accept([even])
    other = second.accept([even + 2])
    assert (one[-4:], other[-4:]) == ("0000", "0007")
    first.wait_stored([even])
    second.wait_stored([even + 2])
    assert first.stored() == {even} and second.stored() == {even + 2}


def test_a_node_id_belongs_to_one_journal(make, place):
    """A second host with the first one's node.id must not go on."""
    first = make()
    second = make(start=False)
    second.write_conf(postgres__url=place.postgres.url(first.database))
    done = second.run_sluiced()
    assert done.returncode not in (0, None)
    assert "node" in done.stderr, done.stderr
    assert first.sluiced.alive()


# --- The promise itself --------------------------------------------------------------

def traced(instance, bodies):
    """System calls of a lone handler that answers bodies one by one."""
    trace = instance.logs / "calls.trace"
    path = instance.run / "traced.sock"
    process = instance.process("strace", [
        "strace", "-f", "-o", trace, "-s", "64", "-e",
        "trace=fsync,fdatasync,write,writev,sendto,sendmsg",
        instance.place.bin / "callback.fcgi", "--config", instance.conf_file,
        "--listen", path])
    # Looking for leaks does not work under ptrace.
    process.popen_options["env"]["ASAN_OPTIONS"] = "detect_leaks=0"
    process.start()
    try:
        wait_for(lambda: harness.socket_answers(path), "it listens")
        replies = [ask(path, body) for body in bodies]
    finally:
        for pid in harness.descendants(process.pid, "callback.fcgi"):
            os.kill(pid, signal.SIGTERM)
        process.wait()
    return replies, trace.read_text(errors="replace").splitlines()


def test_each_202_follows_a_sync(make, even):
    """Kill tests cannot see a missing fsync: count them, and their order."""
    instance = make()
    replies, lines = traced(
        instance, [ids_body([even + 2 * k]) for k in range(10)])
    assert [r.status for r in replies] == [202] * 10
    synced, answers = False, 0
    for line in lines:
        if re.search(r"\b(fsync|fdatasync)\(", line) or \
                re.search(r"(fsync|fdatasync) resumed", line):
            synced = True
        elif "202 Accepted" in line:
            assert synced, f"answered before the sync: {line}"
            synced, answers = False, answers + 1
    assert answers == 10, lines[-20:]


def test_a_refused_request_costs_no_sync(make):
    instance = make()
    instance.accept([2])  # the journal is there
    replies, lines = traced(instance, [b"{", b"[]", b""] * 3)
    assert all(r.status == 400 for r in replies)
    first = next(k for k, line in enumerate(lines) if "400 Bad" in line)
    assert not [line for line in lines[first:] if "sync(" in line]


def test_the_ledger_balances_while_everything_happens(make, even):
    instance = make(conf={"callback.max_attempts": 1})
    instance.simulate(mix={"ok": 70, "500": 30})
    with Load(instance, even) as load:
        for _ in range(30):
            instance.check_ledger()
            ledger = instance.ctl("status")["ledger"]["services"]["callback"]
            assert ledger["balanced"] is True
            assert ledger["accepted"] == \
                ledger["final"] + ledger["pending"] + ledger["dead"]
    instance.wait_idle()
    dead = {int(i) for i in instance.dead()}
    online = set(load.accepted)
    assert online == (instance.stored() & online) | dead
    assert instance.counters()["accepted"] == len(load.accepted)


def test_connections_that_break_off_at_any_byte(plain, even):
    """A client or web server that dies in the middle: nothing half."""
    whole = fcgi_request(ids_body([even]))
    before = plain.accepted()
    for cut in range(0, len(whole) - 9, 7):
        with fcgi_connect(plain.run / "callback.sock") as s:
            s.sendall(whole[:cut])
    with fcgi_connect(plain.run / "callback.sock") as s, \
            contextlib.suppress(ConnectionError):
        s.sendall(whole[:-8])
        s.sendall(fcgi_record(2, b""))  # FCGI_ABORT_REQUEST
        s.shutdown(socket.SHUT_WR)
        s.recv(4096)
    plain.accept([even + 2])
    assert plain.accepted() == before + 1


def test_psycopg2_sees_what_http_says(plain, even):
    """GET and the table agree, the row is durable for others too."""
    plain.accept([even])
    plain.wait_stored([even])
    other = psycopg2.connect(plain.place.postgres.url(plain.database))
    with other.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM objects WHERE id = %s", (even,))
        assert cursor.fetchone() == (1,)
    other.close()
