"""The call service: trigger, limiter, status, on real servers and a provider
with a strict limit."""
import json
import re
import signal

import pytest

import harness
from harness import CallProvider, wait_for
from test_faults import postgres_down

COUNT, WINDOW_MS = 25, 1000  # the real one, ten times as fast
FINAL = ("ANSWERED", "FAILED", "UNKNOWN", "CANCELED")


@pytest.fixture
def make_caller(make):
    """make_caller(web=, conf=, **provider options): (instance, provider)"""
    def make_one(web="lighttpd", conf=None, **options):
        instance = make(web=web, start=False, conf={
            "call.rate_count": COUNT, "call.rate_window_ms": WINDOW_MS,
            "call.backoff_ms": 3000, "call.max_backoff_ms": 6000,
            "call.retry_base_ms": 20, "call.timeout_ms": 5000, **(conf or {})})
        provider = CallProvider(instance, count=COUNT, window_ms=WINDOW_MS,
                                **options).start()
        if "call.url" not in instance.conf:
            instance.write_conf(call__url=provider.url)
        instance.start()
        return instance, provider
    return make_one


def phone(number):
    return f"+1415{number:07d}"


def trigger(instance, number, headers=None, **options):
    return instance.request(
        "POST", "/trigger",
        json.dumps({"phone_number": phone(number), "virtual_agent_id": "a-1"}),
        {"Content-Type": "application/json", **(headers or {})}, **options)


def call(instance, call_id):
    reply = instance.get(f"/calls/{call_id}")
    assert reply.status == 200, reply
    return reply.json()


def wait_final(instance, call_id):
    return wait_for(
        lambda: (lambda c: c if c["status"] in FINAL else None)(
            call(instance, call_id)), f"call {call_id} ends",
        seconds=2 * harness.DEADLINE_S)


def persisted(instance):
    return dict(instance.sql("SELECT call_id::text, status FROM calls"))


def wait_persisted(instance, ids):
    return wait_for(lambda: (lambda rows: rows if rows.keys() >= set(ids)
                             else None)(persisted(instance)),
                    "the calls are stored", seconds=4 * harness.DEADLINE_S)


@pytest.mark.parametrize("web", harness.WEB_SERVERS)
def test_a_call_is_answered(make_caller, web):
    instance, provider = make_caller(web=web)
    reply = trigger(instance, 1)
    assert reply.status == 202, reply
    document = reply.json()
    assert document["status"] == "QUEUED" and document["position"] == 1
    assert document["eta_s"] == 0
    call_id = document["call_id"]
    assert reply.headers["location"] == f"/calls/{call_id}"
    ended = wait_final(instance, call_id)
    assert ended["status"] == "ANSWERED" and ended["attempts"] == 1, ended
    assert ended["last_error"] is None
    for name in ("created_at", "dialed_at", "finished_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",
                            ended[name]), ended
    assert ended["created_at"] <= ended["dialed_at"] <= ended["finished_at"]
    request, = provider.log()
    assert request["key"] == call_id
    assert request["phone_number"] == phone(1)
    assert request["virtual_agent_id"] == "a-1"
    assert wait_persisted(instance, [call_id]) == {call_id: "ANSWERED"}
    assert call(instance, call_id) == ended  # the database tells the same
    assert instance.get(f"/calls/{call_id[:-1]}f").status in (404, 503)


@pytest.mark.parametrize("web", ["lighttpd", "mod_proxy_fcgi"])
def test_two_hundred_at_once(make_caller, web):
    """All are taken, and dialled in order, as the provider allows."""
    instance, provider = make_caller(web=web)
    ids = []
    for number in range(200):
        reply = trigger(instance, number)
        assert reply.status == 202, reply
        ids.append(reply.json()["call_id"])
    states = wait_persisted(instance, ids)
    assert set(states.values()) == {"ANSWERED"}
    log = provider.log()
    assert [r["key"] for r in sorted(log, key=lambda r: r["at_ms"])] == ids
    summary = provider.summary()
    assert summary["refused"] == 0 and summary["answered"] == 200
    assert summary["most_in_window"] <= COUNT
    assert instance.counters("call")["final"] == 200


def test_killed_while_it_dials(make_caller):
    """No 429, no call dialled twice, and those cut off are UNKNOWN."""
    instance, provider = make_caller()
    ids = [trigger(instance, n).json()["call_id"] for n in range(120)]
    for k in range(5):
        wait_for(lambda k=k: len(provider.log()) > 12 * (k + 1),
                 "some are dialled")
        instance.sluiced.kill()
        instance.sluiced.start()
    states = wait_persisted(instance, ids)
    summary = provider.summary()
    assert summary["refused"] == 0 and summary["phones_twice"] == 0, summary
    assert summary["most_in_window"] <= COUNT
    assert set(states.values()) <= {"ANSWERED", "UNKNOWN"}
    assert list(states.values()).count("UNKNOWN") >= 5
    answered = {r["key"] for r in provider.log() if r["answered"]}
    assert {i for i, s in states.items() if s == "ANSWERED"} <= answered


def test_cancel(make_caller):
    instance, provider = make_caller(conf={"call.max_in_flight": 1},
                                     answer_ms=(1500, 1500))
    first, second = (trigger(instance, n).json()["call_id"] for n in (1, 2))
    wait_for(lambda: call(instance, first)["status"] == "DIALING",
             "the first is dialled")
    assert call(instance, second)["position"] == 1
    reply = instance.request("DELETE", f"/calls/{second}")
    assert reply.status == 200 and reply.json()["status"] == "CANCELED", reply
    again = instance.request("DELETE", f"/calls/{second}")
    assert again.status == 200, again
    late = instance.request("DELETE", f"/calls/{first}")
    assert late.status == 409, late
    states = wait_persisted(instance, [first, second])
    assert states == {first: "ANSWERED", second: "CANCELED"}
    assert instance.request("DELETE", f"/calls/{first}").status == 409
    assert instance.request("DELETE", f"/calls/{second}").status == 200
    assert instance.request("DELETE", "/calls/nonsense").status == 404
    assert [r["key"] for r in provider.log()] == [first]


TROUBLES = {
    # trouble: (final state, requests of one call)
    "fail": ("FAILED", 3), "bad": ("FAILED", 1), "redirect": ("FAILED", 1),
    "hang": ("UNKNOWN", 1), "reset": ("UNKNOWN", 1), "garbage": ("UNKNOWN", 1),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble(make_caller, trouble):
    state, requests = TROUBLES[trouble]
    instance, provider = make_caller(
        conf={"call.max_attempts": 3, "call.timeout_ms": 1000},
        **{trouble: 1})
    ended = wait_final(instance, trigger(instance, 1).json()["call_id"])
    assert ended["status"] == state and ended["attempts"] == requests, ended
    assert ended["last_error"]
    assert len(provider.log()) == requests


def test_nobody_listens(make_caller):
    instance, _ = make_caller(conf={
        "call.max_attempts": 3,
        "call.url": f"http://127.0.0.1:{harness.free_port()}/"})
    ended = wait_final(instance, trigger(instance, 1).json()["call_id"])
    assert ended["status"] == "FAILED" and ended["attempts"] == 3, ended


def test_someone_else_uses_up_the_limit(make_caller):
    """One episode: a pause without a single request, a probe, all answered."""
    instance, provider = make_caller()
    provider.set(count=5)
    ids = [trigger(instance, n).json()["call_id"] for n in range(40)]
    wait_for(lambda: provider.summary()["refused"] > 0, "a 429")
    provider.set(count=COUNT)
    states = wait_persisted(instance, ids)
    assert set(states.values()) == {"ANSWERED"}
    times = sorted(r["at_ms"] for r in provider.log())
    refused = [r["at_ms"] for r in provider.log() if r["verdict"] == "refused"]
    # From the last 429 on nothing for the whole pause.
    after = [t for t in times if t > max(refused)]
    assert after and min(after) - max(refused) >= 2990
    assert provider.summary()["phones_twice"] == 0


def test_the_database_is_away(make_caller, place):
    instance, provider = make_caller()
    with postgres_down(place):
        call_id = trigger(instance, 1).json()["call_id"]
        ended = wait_final(instance, call_id)
        assert ended["status"] == "ANSWERED"
    assert wait_persisted(instance, [call_id]) == {call_id: "ANSWERED"}


def test_a_clean_stop_waits_for_the_answer(make_caller):
    instance, provider = make_caller(answer_ms=(800, 800))
    call_id = trigger(instance, 1).json()["call_id"]
    wait_for(provider.log, "it is dialled")
    instance.restart_sluiced(signal.SIGTERM)
    assert wait_final(instance, call_id)["status"] == "ANSWERED"


def test_the_same_twice_with_a_key_or_in_the_window(make_caller):
    instance, provider = make_caller(conf={"call.duplicate_window_s": 60})
    first = trigger(instance, 1)
    assert trigger(instance, 1).json()["call_id"] == first.json()["call_id"]
    key = {"Idempotency-Key": "k"}
    keyed = trigger(instance, 2, key).json()["call_id"]
    replay = trigger(instance, 2, key)
    assert replay.json()["call_id"] == keyed
    assert replay.headers["idempotent-replayed"] == "true"
    assert trigger(instance, 3, key).status == 422
    wait_persisted(instance, [first.json()["call_id"], keyed])
    assert len(provider.log()) == 2


@pytest.mark.parametrize("body, field", [
    ({"phone_number": "4155550123", "virtual_agent_id": "a"}, "phone_number"),
    ({"phone_number": "+0155550123", "virtual_agent_id": "a"}, "phone_number"),
    ({"phone_number": "+1415555", "virtual_agent_id": ""}, "virtual_agent_id"),
    ({"phone_number": "+14155550123"}, "virtual_agent_id"),
])
def test_bad_requests(make_caller, body, field):
    instance, _ = make_caller()
    reply = instance.request("POST", "/trigger", json.dumps(body),
                             {"Content-Type": "application/json"})
    assert reply.status == 400
    assert field in [e["field"] for e in reply.problem()["errors"]]
