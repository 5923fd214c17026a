"""sluicectl: every verb, as text and as JSON, with and without a dispatcher."""
import json
import time

import pytest

import harness
from harness import wait_for


@pytest.fixture
def dying(make):
    """An instance whose object server refuses everything."""
    instance = make(conf={"callback.max_attempts": 1})
    instance.simulate(mode="400")
    return instance


def bury(instance, ids):
    """Requests, one for each id, that have died. Returns their ids."""
    before = instance.counters()["dead"]
    requests = [instance.accept([i]) for i in ids]
    wait_for(lambda: instance.counters()["dead"] == before + len(ids),
             "the dead letters")
    return requests


def service_of(document):
    return document["ledger"]["services"]["callback"]


@pytest.mark.smoke
def test_status(make, even):
    instance = make()
    instance.accept([even])
    instance.wait_stored([even])
    instance.wait_idle()
    status = instance.ctl("status")
    assert status["dispatcher"]["pid"] == instance.sluiced.pid
    ledger = service_of(status)
    assert (ledger["accepted"], ledger["final"], ledger["pending"],
            ledger["dead"], ledger["balanced"]) == (1, 1, 0, 0, True)
    text = instance.sluicectl("status").stdout
    assert "callback" in text and "balanced" in text
    assert not text.lstrip().startswith("{")  # for people


def test_status_without_a_dispatcher(make, even):
    """The journal alone tells much; that nobody runs is said."""
    instance = make()
    instance.sluiced.stop()
    instance.accept([even])
    done = instance.sluicectl("status", check=False)
    assert "dispatcher" in (done.stdout + done.stderr).lower(), done
    done = instance.sluicectl("--json", "status", check=False)
    document = json.loads(done.stdout)
    services = document.get("ledger", document)["services"]
    assert services["callback"]["pending"] == 1


def test_queue_pause_and_resume(make, even):
    instance = make()
    assert instance.ctl("pause", "callback") == {"paused": "callback"}
    requests = [instance.accept([even + 2 * k]) for k in range(5)]
    queue, = instance.ctl("queue", "callback")["queue"]
    assert (queue["service"], queue["pending"]) == ("callback", 5)
    assert [row["id"] for row in queue["next"]] == requests  # in order
    assert requests[0] in instance.sluicectl("queue").stdout
    assert instance.ctl("status")["services"]["callback"]["paused"] is True
    assert instance.sim_stats()["total"] == 0
    explained = instance.ctl("explain", requests[3])
    assert (explained["state"], explained["ahead"]) == ("pending", 3)
    assert instance.ctl("resume", "callback") == {"resumed": "callback"}
    instance.wait_stored([even + 2 * k for k in range(5)])
    assert instance.ctl("status")["services"]["callback"]["paused"] is False


def test_drain(make, even):
    instance = make(delay_ms=(300, 600))
    instance.accept([even + 2 * k for k in range(50)])
    drained = instance.ctl("drain")
    assert drained["drained"] is True, drained
    in_flight = instance.metrics()[("sluice_fetch_in_flight", ())]
    assert in_flight == 0
    fetched = instance.sim_stats()["total"]
    request_id = instance.accept([even + 1000])
    assert instance.ctl("explain", request_id)["state"] == "pending"
    assert instance.sim_stats()["total"] == fetched  # it is held
    instance.sluicectl("resume", "callback")
    instance.wait_stored([even + 1000])


@pytest.mark.smoke
def test_dead_list_retry_and_drop(dying, even):
    first, second = bury(dying, [even, even + 2])
    listed = dying.ctl("dead", "list")
    assert [d["id"] for d in listed["dead"]] == [first, second]
    assert listed["next"] is None
    letter = listed["dead"][0]
    assert letter["service"] == "callback" and letter["reason"]
    assert letter["items"] == [
        {"item": str(even), "reason": letter["items"][0]["reason"],
         "attempts": 1}]
    assert "400" in letter["items"][0]["reason"]
    text = dying.sluicectl("dead", "list").stdout
    assert first in text and "400" in text
    assert dying.ctl("explain", first)["state"] == "dead"

    dying.simulate(mode="ok")
    assert dying.ctl("dead", "retry", first) == {"retried": 1}
    dying.wait_stored([even])
    assert dying.ctl("dead", "drop", second) == {"dropped": 1}
    wait_for(lambda: dying.counters()["dead"] == 0, "no dead letters")
    dying.wait_idle()
    assert dying.counters()["final"] == 2  # dropped is final
    assert even + 2 not in dying.stored()


def test_dead_pages(dying, even):
    requests = bury(dying, [even + 2 * k for k in range(5)])
    page = dying.ctl("dead", "list", "callback", 0, 2)
    seen = [d["id"] for d in page["dead"]]
    assert len(seen) == 2
    while page["next"] is not None:
        page = dying.ctl("dead", "list", "callback", page["next"], 2)
        seen += [d["id"] for d in page["dead"]]
    assert seen == requests


def test_dead_retry_all(dying, even):
    ids = [even + 2 * k for k in range(250)]  # more than one group
    for at in range(0, 250, 50):
        bury(dying, ids[at:at + 50])
    dying.simulate(mode="ok")
    assert dying.ctl("dead", "retry", "all") == {"retried": 250}
    dying.wait_stored(ids)
    dying.wait_idle()
    assert dying.counters()["dead"] == 0


def test_a_retried_letter_may_die_again(dying, even):
    request_id, = bury(dying, [even])
    dying.sluicectl("dead", "retry", request_id)
    wait_for(lambda: dying.fetches(even) == 2, "it is tried again")
    wait_for(lambda: dying.counters()["dead"] == 1, "it died again")
    letter, = dying.ctl("dead", "list")["dead"]
    assert letter["id"] == request_id
    dying.check_ledger()


def test_explain_what_is_not_known(make, even):
    instance = make(conf={"node.id": 9})
    request_id = instance.accept([even])
    instance.wait_stored([even])
    instance.wait_idle()
    explained = instance.ctl("explain", request_id, check=False)
    assert (explained["state"], explained["node"]) == ("unknown", 9)
    assert explained["created_at"].startswith("20")


def test_metrics(make, even):
    instance = make()
    instance.accept([even])
    instance.wait_stored([even])
    instance.wait_idle()
    values = harness.parse_metrics(instance.sluicectl("metrics").stdout)
    assert values[("sluice_accepted_total", (("service", "callback"),))] == 1


@pytest.mark.parametrize("arguments", [
    [], ["nonsense"], ["dead"], ["dead", "retry"], ["dead", "drop", "x"],
    ["dead", "retry", "00000000-0000-7000-8000-000000000000"],
    ["pause"], ["pause", "nothing"], ["explain", "x"], ["status", "more"],
    ["dead", "list", "callback", "x"], ["--nonsense", "status"],
])
def test_what_it_refuses(plain, arguments):
    done = plain.sluicectl(*arguments, check=False)
    assert done.returncode != 0
    assert done.stderr.strip(), done


def test_changes_need_a_dispatcher(make):
    instance = make()
    instance.sluiced.stop()
    for arguments in (["pause", "callback"], ["drain"],
                      ["dead", "retry", "all"]):
        done = instance.sluicectl(*arguments, check=False)
        assert done.returncode != 0 and done.stderr.strip(), done


def test_it_finds_an_instance_by_its_folder(plain):
    done = harness.subprocess.run(
        [str(plain.place.bin / "sluicectl"), "--dir", str(plain.dir),
         "--json", "status"], capture_output=True, text=True, check=True,
        env=plain.place.environment(), timeout=harness.DEADLINE_S)
    assert json.loads(done.stdout)["dispatcher"]["pid"] == plain.sluiced.pid


def test_the_control_socket_survives_rude_clients(plain):
    for data in (b"", b"\n", b"x" * 100_000, b"\xff\n", b"status",
                 b"dead list callback " + b"9" * 30 + b"\n"):
        with harness.socket.socket(harness.socket.AF_UNIX) as s:
            s.settimeout(10)
            s.connect(str(plain.run / "control.sock"))
            try:
                s.sendall(data)
                s.shutdown(harness.socket.SHUT_WR)
                s.recv(65536)
            except OSError:
                pass
    silent = harness.socket.socket(harness.socket.AF_UNIX)
    silent.connect(str(plain.run / "control.sock"))
    begun = time.monotonic()
    assert plain.ctl("status")["dispatcher"]["pid"] == plain.sluiced.pid
    assert time.monotonic() - begun < 10
    silent.close()
