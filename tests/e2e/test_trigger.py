"""The call service as its client sees it, through each web server. No
dispatcher runs: a call waits until the test says otherwise."""
import json
import os
import re
import signal
import uuid

import pytest

from harness import WEB_SERVERS, descendants, wait_for

BODY = {"phone_number": "+14155550123", "virtual_agent_id": "sales_1"}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def waiting(make, **options):
    """A Sluice that takes calls and does not make them."""
    instance = make(start=False, **options)
    assert instance.run_sluiced("--migrate").returncode == 0
    instance.start_web()
    return instance


@pytest.fixture(name="calls")
def calls_fixture(make):
    return waiting(make)


def trigger(instance, body=None, key=None, **changes):
    headers = {"Content-Type": "application/json"}
    if key is not None:
        headers["Idempotency-Key"] = key
    body = {**BODY, **changes} if body is None else body
    return instance.request("POST", "/trigger", json.dumps(body), headers)


def accept(instance, **options):
    reply = trigger(instance, **options)
    assert reply.status == 202, reply
    return reply.json()["call_id"]


def delete(instance, call_id):
    return instance.request("DELETE", f"/calls/{call_id}")


def foreign(call_id):
    """An id like it, of node 7."""
    return call_id[:-4] + "0007"


def store(instance, call_id, status):
    instance.sql("INSERT INTO calls VALUES (%s, '+14155550123', 'a', %s, 2,"
                 " now(), NULL, now(), NULL)", call_id, status)


@pytest.mark.smoke
@pytest.mark.parametrize("web", WEB_SERVERS)
def test_a_call_is_taken_shown_and_canceled(make, web):
    instance = waiting(make, web=web)
    reply = trigger(instance)
    assert reply.status == 202, reply
    call = reply.json()
    assert call == {"call_id": call["call_id"], "status": "QUEUED",
                    "position": 1, "eta_s": 0}
    assert reply.headers["location"] == f"/calls/{call['call_id']}"
    assert uuid.UUID(call["call_id"]).version == 7
    shown = instance.get(reply.headers["location"])
    assert shown.status == 200, shown
    document = shown.json()
    assert re.fullmatch(TIME, document.pop("created_at"))
    assert document == {
        "call_id": call["call_id"], "status": "QUEUED", "attempts": 0,
        "dialed_at": None, "finished_at": None, "last_error": None,
        "position": 1, "eta_s": 0}
    for _ in range(2):
        gone = delete(instance, call["call_id"])
        assert gone.status == 200, gone
        document = gone.json()
        assert document["status"] == "CANCELED"
        assert re.fullmatch(TIME, document["finished_at"])
        assert "position" not in document
    assert instance.get(f"/calls/{call['call_id']}").json() == document
    # Neighbours are still served by the others.
    assert instance.get("/health/live").status == 200
    assert instance.post([1]).status == 202
    assert instance.get("/calls").status == 404
    assert instance.get("/trigger").status == 405


def test_positions_and_waiting_times_count_what_waits(make):
    instance = waiting(make, conf={"call.rate_count": 2,
                                   "call.rate_window_ms": 1500})
    replies = [trigger(instance).json() for _ in range(5)]
    assert [r["position"] for r in replies] == [1, 2, 3, 4, 5]
    assert [r["eta_s"] for r in replies] == [0, 0, 2, 2, 3]
    assert delete(instance, replies[1]["call_id"]).status == 200
    last = instance.get(f"/calls/{replies[4]['call_id']}").json()
    assert (last["position"], last["eta_s"]) == (4, 2)
    assert trigger(instance).json()["position"] == 5


def test_what_is_no_call_is_refused(calls):
    reply = trigger(calls, phone_number="0123", virtual_agent_id="a b")
    assert reply.status == 400
    problem = reply.problem()
    assert problem["code"] == "invalid_body"
    assert {e["field"] for e in problem["errors"]} == set(BODY)
    assert trigger(calls, body=[]).status == 400
    assert not calls.journal_path.exists()


def test_a_key_gives_the_same_call(calls):
    first = trigger(calls, key="k1")
    again = trigger(calls, key="k1")
    assert (first.status, again.status) == (202, 202)
    assert again.json() == {"call_id": first.json()["call_id"],
                            "status": "QUEUED"}
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotent-replayed"] == "true"
    assert trigger(calls, key="k1", virtual_agent_id="b").status == 422
    assert accept(calls, key="k2") != first.json()["call_id"]


def test_duplicates_within_the_window_are_one_call(calls):
    assert accept(calls) != accept(calls)
    calls.write_conf(call__duplicate_window_s=1)
    for pid in descendants(calls.trigger.pid, "trigger.fcgi"):
        os.kill(pid, signal.SIGHUP)
    wait_for(lambda: accept(calls) == accept(calls), "the window is seen")
    first = accept(calls)
    assert accept(calls, virtual_agent_id="other") != first
    assert accept(calls, key="own") != first
    wait_for(lambda: accept(calls) != first, "the window is over")


def test_countries_that_are_not_allowed_are_refused(make):
    instance = waiting(make, conf={"call.allow_countries": "+49, +1415"})
    assert trigger(instance).status == 202
    reply = trigger(instance, phone_number="+14165550123")
    assert reply.status == 400
    assert reply.problem()["errors"][0]["field"] == "phone_number"


def test_what_has_ended_is_shown_and_beyond_canceling(calls):
    answered, canceled = accept(calls), accept(calls)
    made_up = [str(uuid.UUID(int=uuid.UUID(answered).int + (k << 70)))
               for k in (1, 2)]
    store(calls, made_up[0], "ANSWERED")
    store(calls, made_up[1], "CANCELED")
    assert calls.get(f"/calls/{made_up[0]}").json()["status"] == "ANSWERED"
    late = delete(calls, made_up[0])
    assert (late.status, late.problem()["code"]) == (409, "call_not_queued")
    assert delete(calls, made_up[1]).status == 200
    # Of another node, and in the database.
    store(calls, foreign(canceled), "FAILED")
    shown = calls.get(f"/calls/{foreign(canceled)}").json()
    assert (shown["status"], shown["attempts"]) == ("FAILED", 2)


def test_a_call_that_is_dialed_is_beyond_canceling(calls):
    call_id = accept(calls)
    with calls.journal() as journal:
        journal.execute("INSERT INTO progress VALUES ('call', 1, 1, 1,"
                        " 1800000000000, 0, '')")
    shown = calls.get(f"/calls/{call_id}").json()
    assert (shown["status"], shown["attempts"]) == ("DIALING", 1)
    assert shown["dialed_at"] == "2027-01-15T08:00:00.000Z"
    reply = delete(calls, call_id)
    assert (reply.status, reply.problem()["code"]) == (409, "call_not_queued")
    assert calls.get(f"/calls/{call_id}").json()["status"] == "DIALING"


def test_unknown_calls(calls):
    call_id = accept(calls)
    unknown = str(uuid.UUID(int=uuid.UUID(call_id).int + (1 << 70)))
    for path in (unknown, "7", "x" * 100, call_id + "0"):
        for method in ("GET", "DELETE"):
            reply = calls.request(method, f"/calls/{path}")
            assert reply.status == 404, (method, path, reply)
            assert reply.problem()["code"] == "call_not_found"
    for method in ("GET", "DELETE"):
        reply = calls.request(method, f"/calls/{foreign(call_id)}")
        assert reply.status == 503, reply
        assert reply.headers["retry-after"]


def test_without_a_database_nothing_is_denied(make):
    instance = waiting(make)
    instance.stop_handlers()
    instance.write_conf(postgres__url="postgresql:///x?host=/nowhere")
    instance.start_handlers()
    call_id = accept(instance)
    unknown = str(uuid.UUID(int=uuid.UUID(call_id).int + (1 << 70)))
    assert instance.get(f"/calls/{call_id}").status == 200
    for method in ("GET", "DELETE"):
        reply = instance.request(method, f"/calls/{unknown}")
        assert reply.status == 503, reply
    assert delete(instance, call_id).status == 200
    assert instance.get(f"/calls/{call_id}").json()["status"] == "CANCELED"

