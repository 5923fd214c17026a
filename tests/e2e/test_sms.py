"""The SMS service: batches, statuses and statistics, on real servers and a
provider that does what providers do."""
import http.server
import json
import signal
import threading
import uuid

import pytest

import harness
from harness import SmsProvider, signed, wait_for
from load import accept_all
from test_faults import postgres_down

GOOD = dict.fromkeys(
    ("fail", "redirect", "garbage", "reset", "hang", "lost", "late"), 0)
FINAL = ("DELIVERED", "FAILED")
MANY = 10_000
NEVER_MS = 60_000  # a max_delay_ms that no test waits for
OLD, NEW = "the-secret-of-yesterday", "the-secret-of-today"


@pytest.fixture
def make_sender(make):
    """make_sender(web=, conf=, **provider options): (instance, provider).
    What no provider may ever see is checked when the test ends."""
    made = []

    def make_one(web="lighttpd", conf=None, **options):
        instance = make(web=web, start=False, conf={
            "sms.max_delay_ms": 100, "sms.retry_base_ms": 20,
            "sms.timeout_ms": 5000, **(conf or {})})
        provider = SmsProvider(instance, **options).start()
        if "sms.url" not in instance.conf:
            instance.write_conf(sms__url=provider.url)
        instance.start()
        made.append((instance, provider))
        return instance, provider

    yield make_one
    for instance, provider in made:
        provider.set(**GOOD)  # or sluiced would wait for what hangs
        provider.release()
        if not getattr(provider, "forgive", False):
            check_provider(provider)
        for service in ("sms", "sms_status"):
            instance.check_ledger(service)


def check_provider(provider):
    """No message twice but under the same key with the same body."""
    summary = provider.summary()
    assert summary["malformed"] == []
    assert summary["two_keys"] == []
    assert summary["changed"] == []
    return summary


def document(number, content=None):
    return {"phone_number": f"+1415{number:07d}",
            "content": content or f"This is message {number}."}


def post(instance, number, content=None, headers=None):
    return instance.request(
        "POST", "/sms", json.dumps(document(number, content)),
        {"Content-Type": "application/json", **(headers or {})})


def send(instance, number, content=None):
    reply = post(instance, number, content)
    assert reply.status == 202, reply
    return reply.json()["id"]


def send_all(instance, numbers):
    return [send(instance, number) for number in numbers]


def sms(instance, message_id):
    reply = instance.get(f"/sms/{message_id}")
    assert reply.status == 200, reply
    return reply.json()


def wait_status(instance, message_id, status):
    """503 is the answer while the database is on its way back."""
    def shown():
        reply = instance.get(f"/sms/{message_id}")
        assert reply.status in (200, 503), reply
        return reply.status == 200 and reply.json()["status"] == status \
            and reply.json()
    return wait_for(shown, f"{message_id} is {status}")


def wait_dead(instance, message_id):
    return wait_for(
        lambda: (lambda s: s if s["dead"] else None)(
            sms(instance, message_id)), f"{message_id} is dead")


def update(instance, updates, headers=None):
    """A status update that must be taken; its id."""
    reply = post_updates(instance, json.dumps(updates).encode(), headers)
    assert reply.status == 202, reply
    return reply.json()["id"]


def post_updates(instance, body, headers=None):
    return instance.request(
        "POST", "/sms/status-updates", body,
        headers or {"Content-Type": "application/json"})


def errors(instance):
    """[(update's id, message id, status)], each with a reason."""
    rows = instance.sql("SELECT update_id::text, message_id, status, reason"
                        " FROM sms_update_errors")
    assert all(row[3] for row in rows), rows
    return [row[:3] for row in rows]


def stored(instance):
    return dict(instance.sql("SELECT id::text, status FROM sms"))


def settle(instance):
    """Everything that was accepted is applied and stored."""
    for service in ("sms", "sms_status"):
        instance.wait_idle(4 * harness.DEADLINE_S, service)


def wait_taken(provider, count):
    wait_for(lambda: provider.summary()["messages"] == count,
             f"the provider has {count} messages")


def requests_with(provider, message_id):
    return [r for r in provider.log() if message_id in r["ids"]]


def others(message_id, count):
    """Ids of the same node that were never given out."""
    base = uuid.UUID(message_id).int
    return [str(uuid.UUID(int=base ^ (k << 40)))
            for k in range(1, count + 1)]


def statistics(instance):
    reply = instance.get("/sms/statistics")
    assert reply.status == 200, reply
    return reply.json()


# --- Save, get, duplicate ----------------------------------------------------

@pytest.mark.smoke
@pytest.mark.parametrize("web", harness.WEB_SERVERS)
def test_a_message_is_sent_and_its_status_moves(make_sender, web):
    instance, provider = make_sender(web=web, conf={
        "sms.webhook_secrets": NEW})
    reply = post(instance, 1)
    assert reply.status == 202, reply
    message_id = reply.json()["id"]
    assert uuid.UUID(message_id).version == 7
    assert reply.json() == {"id": message_id, "status": "ACCEPTED",
                            "segments": 1, "encoding": "GSM-7"}
    assert reply.headers["location"] == f"/sms/{message_id}"
    shown = sms(instance, message_id)
    assert (shown["id"], shown["status"], shown["dead"],
            shown["last_error"]) == (message_id, "ACCEPTED", False, None)
    wait_taken(provider, 1)
    message, = provider.messages().values()
    assert message["phone_number"] == document(1)["phone_number"]
    assert message["message"] == document(1)["content"]
    request, = provider.log()
    assert request["ids"] == [message_id]
    assert str(uuid.UUID(request["key"])) == request["key"]
    for status in ("CONFIRMED", "DELIVERED"):
        body = json.dumps({message_id: status}).encode()
        update(instance, {message_id: status}, signed(body, NEW))
        wait_status(instance, message_id, status)
    settle(instance)
    assert sms(instance, message_id)["status"] == "DELIVERED"
    assert instance.sql(
        "SELECT id::text, phone_number, content, segments, encoding, status,"
        " batch_id::text FROM sms") == [
            (message_id, document(1)["phone_number"], document(1)["content"],
             1, "GSM-7", "DELIVERED", request["key"])]
    assert errors(instance) == []
    assert set(statistics(instance)) >= {"all", "last_hour"}
    assert instance.get("/sms").status == 405


def test_the_same_twice_with_a_key(make_sender):
    instance, provider = make_sender()
    key = {"Idempotency-Key": "k"}
    first, again = (post(instance, 1, headers=key) for _ in range(2))
    assert (first.status, again.status) == (202, 202)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotent-replayed"] == "true"
    assert post(instance, 2, headers=key).status == 422
    other = send(instance, 1)  # without a key it is another message
    wait_taken(provider, 2)
    assert set(provider.messages()) == {first.json()["id"], other}


def test_encoding_and_segments(make_sender):
    instance, provider = make_sender()
    texts = {  # content: (encoding, segments)
        "a": ("GSM-7", 1), "a" * 160: ("GSM-7", 1), "a" * 161: ("GSM-7", 2),
        "a" * 306: ("GSM-7", 2), "a" * 307: ("GSM-7", 3),
        "\u20ac" * 80: ("GSM-7", 1), "\u20ac" * 81: ("GSM-7", 2),
        "a" * 1600: ("GSM-7", 11),
        "\u0436": ("UCS-2", 1), "\u0436" * 70: ("UCS-2", 1),
        "\u0436" * 71: ("UCS-2", 2), "\u0436" * 135: ("UCS-2", 3),
        "\U0001f600" * 35: ("UCS-2", 1), "\U0001f600" * 36: ("UCS-2", 2),
        "\U0001f600" * 67: ("UCS-2", 3),  # 33 in a segment: none is split
        "\U0001f600" * 1600: ("UCS-2", 49),
    }
    for content, (encoding, segments) in texts.items():
        reply = post(instance, 1, content)
        assert reply.status == 202, reply
        answer = reply.json()
        assert (answer["encoding"], answer["segments"]) == \
            (encoding, segments), (content[0], len(content))
    wait_taken(provider, len(texts))
    assert {m["message"] for m in provider.messages().values()} == set(texts)


def test_numbers_that_are_taken(make_sender):
    instance, provider = make_sender()
    numbers = ("123", "+124", "123456789012345", "+123456789012346", "000")
    for number in numbers:
        for name in ("phone_number", "PhoneNumber", "PHONE_NUMBER"):
            reply = instance.request("POST", "/sms", json.dumps(
                {name: number, "content": "Hello"}))
            assert reply.status == 202, reply
    wait_taken(provider, 3 * len(numbers))
    assert {m["phone_number"] for m in provider.messages().values()} == \
        set(numbers)


PHONE, CONTENT, WHOLE = "phone_number", "content", ""
BAD = {
    # name: (body, field that the document names)
    "nothing": (b"", WHOLE),
    "not JSON": (b"phone_number=1", WHOLE),
    "an array": (b"[]", WHOLE),
    "cut off": (b'{"phone_number": "+123", "content": "a', WHOLE),
    "invalid UTF-8": (b'{"phone_number": "+123", "content": "\xff"}', WHOLE),
    "NUL": (b'{"phone_number": "+123", "content": "\\u0000"}', WHOLE),
    "lone surrogate": (b'{"phone_number": "+123", "content": "\\ud800"}',
                       WHOLE),
    "no number": ({"content": "a"}, PHONE),
    "no content": ({"phone_number": "+123"}, CONTENT),
    "both names": ({"phone_number": "+123", "PhoneNumber": "+123",
                    "content": "a"}, PHONE),
    "number is null": ({"phone_number": None, "content": "a"}, PHONE),
    "number is a number": ({"phone_number": 123, "content": "a"}, PHONE),
    "number is empty": ({"phone_number": "", "content": "a"}, PHONE),
    "plus alone": ({"phone_number": "+", "content": "a"}, PHONE),
    "two digits": ({"phone_number": "12", "content": "a"}, PHONE),
    "two digits, plus": ({"phone_number": "+12", "content": "a"}, PHONE),
    "16 digits": ({"phone_number": "1234567890123456", "content": "a"},
                  PHONE),
    "16 digits, plus": ({"phone_number": "+1234567890123456",
                         "content": "a"}, PHONE),
    "letters": ({"phone_number": "12a45", "content": "a"}, PHONE),
    "two pluses": ({"phone_number": "++123", "content": "a"}, PHONE),
    "plus behind": ({"phone_number": "123+", "content": "a"}, PHONE),
    "blanks": ({"phone_number": " 123", "content": "a"}, PHONE),
    "other digits": ({"phone_number": "\u0661\u0662\u0663", "content": "a"},
                     PHONE),
    "content is null": ({"phone_number": "+123", "content": None}, CONTENT),
    "content is a number": ({"phone_number": "+123", "content": 7}, CONTENT),
    "content is empty": ({"phone_number": "+123", "content": ""}, CONTENT),
    "1601 characters": ({"phone_number": "+123", "content": "a" * 1601},
                        CONTENT),
    "1601 long ones": ({"phone_number": "+123", "content": "\u0436" * 1601},
                       CONTENT),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_messages(site, name):
    before = site.counters("sms")
    body, field = BAD[name]
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    reply = site.request("POST", "/sms", body,
                         {"Content-Type": "application/json"})
    assert reply.status == 400, reply
    problem = reply.problem()
    if field != WHOLE:
        assert field in [
            {"phonenumber": PHONE}.get(e["field"].lower(), e["field"])
            for e in problem["errors"]], problem
    assert site.counters("sms") == before


def test_messages_that_are_not_there(make_sender):
    instance, _ = make_sender()
    message_id = send(instance, 1)
    for path in (*others(message_id, 1), "7", "nonsense", message_id + "0"):
        reply = instance.get(f"/sms/{path}")
        assert reply.status == 404, reply
        assert reply.headers["content-type"].split(";")[0] == \
            "application/json"
        assert reply.json() == {"id": path, "status": "NOT_FOUND"}
    reply = instance.get(f"/sms/{message_id[:-4]}0007")  # of another node
    assert reply.status == 503, reply


# --- Status updates ----------------------------------------------------------

MOVES = [
    # updates in their order, status in the end, how many are errors
    ("C", "CONFIRMED", 0), ("D", "DELIVERED", 0), ("F", "FAILED", 0),
    ("CD", "DELIVERED", 0), ("CF", "FAILED", 0),
    ("DF", "DELIVERED", 1), ("FD", "FAILED", 1),
    ("DC", "DELIVERED", 1), ("FC", "FAILED", 1),
    # What it has been before is no error.
    ("CC", "CONFIRMED", 0), ("DD", "DELIVERED", 0), ("FF", "FAILED", 0),
    ("CDC", "DELIVERED", 0), ("CFC", "FAILED", 0), ("CDCD", "DELIVERED", 0),
    ("CDFD", "DELIVERED", 1), ("CFDC", "FAILED", 1),
]
WORDS = {"C": "CONFIRMED", "D": "DELIVERED", "F": "FAILED"}


def test_final_states_stay_and_replays_are_no_errors(make_sender):
    instance, provider = make_sender()
    ids = send_all(instance, range(len(MOVES)))
    expected = []
    for step in range(max(len(moves) for moves, _, _ in MOVES)):
        updates = {i: WORDS[moves[step]] for i, (moves, _, _)
                   in zip(ids, MOVES) if step < len(moves)}
        update(instance, updates)
    for message_id, (_, status, wrong) in zip(ids, MOVES):
        expected += [message_id] * wrong
        wait_status(instance, message_id, status)
    settle(instance)
    assert [stored(instance)[i] for i in ids] == [s for _, s, _ in MOVES]
    assert sorted(e[1] for e in errors(instance)) == sorted(expected)
    wait_taken(provider, len(ids))


def test_updates_that_fit_nothing(make_sender):
    """Each is a row of its own; the rest of the batch goes on."""
    instance, _ = make_sender()
    message_id = send(instance, 1)
    unknown, = others(message_id, 1)
    updates = {unknown: "DELIVERED", "nonsense": "CONFIRMED",
               message_id: "CONFIRMED"}
    update_id = update(instance, updates)
    second_id = update(instance, {message_id: "EATEN"})
    wait_status(instance, message_id, "CONFIRMED")
    settle(instance)
    assert sorted(errors(instance)) == sorted([
        (update_id, unknown, "DELIVERED"),
        (update_id, "nonsense", "CONFIRMED"),
        (second_id, message_id, "EATEN")])
    assert sms(instance, message_id)["status"] == "CONFIRMED"


@pytest.mark.parametrize("web", harness.WEB_SERVERS)
def test_ten_thousand_updates_in_one_body(make_sender, web):
    instance, _ = make_sender(web=web)
    ids = send_all(instance, range(20))
    unknown = others(ids[0], MANY - len(ids))
    update_id = update(instance, {i: "DELIVERED" for i in ids + unknown})
    for message_id in ids:
        wait_status(instance, message_id, "DELIVERED")
    settle(instance)
    rows = errors(instance)
    assert {row[0] for row in rows} == {update_id}
    assert len(rows) == len(unknown)
    assert not {row[1] for row in rows} ^ set(unknown)
    # At the limits, and one past them.
    one_more = {i: "DELIVERED" for i in others(ids[0], MANY + 1)}
    reply = post_updates(instance, json.dumps(one_more).encode())
    assert reply.status == 400, reply
    body = json.dumps({ids[0]: "DELIVERED"}).encode()
    assert post_updates(instance, body.ljust(1 << 20)).status == 202
    assert post_updates(instance, body.ljust((1 << 20) + 1)).status == 413
    for bad in (b"", b"[]", b"{", b'"CONFIRMED"'):
        assert post_updates(instance, bad).problem()["status"] == 400
    settle(instance)
    assert len(errors(instance)) == len(unknown)


@pytest.mark.parametrize("web", harness.WEB_SERVERS)
def test_signatures(make_sender, web):
    """Either secret, five minutes; no API key, for FastSMSing has none."""
    instance, provider = make_sender(web=web, conf={
        "sms.webhook_secrets": f"{OLD}, {NEW}"})
    keys = instance.dir / "keys"
    keys.write_text("an-api-key\n")
    keys.chmod(0o644)
    instance.write_conf(auth__keys_file=keys)
    instance.web_process.stop()
    if web != "mod_fcgid":  # which has stopped the handlers
        instance.stop_handlers()
    instance.start_web()
    assert post(instance, 1).status == 401
    reply = post(instance, 1, headers={"Authorization": "Bearer an-api-key"})
    message_id = reply.json()["id"]
    wait_taken(provider, 1)
    body = json.dumps({message_id: "CONFIRMED"}).encode()
    good = signed(body, NEW)
    t_s = int(harness.time.time())
    v1 = good["X-Signature"].split("v1=")[1]
    bad = {
        "none": {"Content-Type": "application/json"},
        "another secret": signed(body, "guessed"),
        "another body": signed(body + b" ", NEW),
        "old": signed(body, NEW, t_s - 600),
        "from the future": signed(body, NEW, t_s + 600),
        "another time": {**good, "X-Signature": f"t={t_s - 60},v1={v1}"},
        "no time": {**good, "X-Signature": f"v1={v1}"},
        "no digest": {**good, "X-Signature": f"t={t_s}"},
        "cut off": {**good, "X-Signature": good["X-Signature"][:-1]},
        "empty": {**good, "X-Signature": ""},
        "nonsense": {**good, "X-Signature": "t=,v1=,,=;t"},
    }
    for name, headers in bad.items():
        reply = post_updates(instance, body, headers)
        assert reply.status == 401, (name, reply)
        reply.problem()
    assert instance.counters("sms_status")["accepted"] == 0
    for headers in (signed(body, OLD), signed(body, NEW, t_s - 200),
                    signed(body, NEW, t_s + 200)):
        assert post_updates(instance, body, headers).status == 202
    settle(instance)
    assert stored(instance) == {message_id: "CONFIRMED"}
    assert errors(instance) == []


def test_updates_before_the_answer(make_sender):
    """They overtake what they are about, and are applied all the same."""
    instance, provider = make_sender(
        updates=True, early=1, confirm_ms=(0, 0), final_ms=(0, 300),
        conf={"sms.batch_size": 10, "sms.webhook_secrets": NEW})
    ids = send_all(instance, range(20))
    for message_id in ids:
        wait_status(instance, message_id, "DELIVERED")
    settle(instance)
    assert stored(instance) == dict.fromkeys(ids, "DELIVERED")
    assert errors(instance) == []
    assert all(m["early"] for m in provider.messages().values())


def test_the_database_is_away(make_sender, place):
    instance, provider = make_sender()
    before = send(instance, 1)
    wait_for(lambda: stored(instance), "it is stored")
    with postgres_down(place):
        update(instance, {before: "CONFIRMED"})
        during = send(instance, 2)
        wait_taken(provider, 2)
        update(instance, {before: "DELIVERED", during: "CONFIRMED"})
        assert sms(instance, during)["status"] in ("ACCEPTED", "CONFIRMED")
        # Never a false 404.
        assert instance.get(f"/sms/{before}").status in (200, 503)
        assert instance.get(f"/sms/{others(before, 1)[0]}").status == 503
    wait_status(instance, before, "DELIVERED")
    wait_status(instance, during, "CONFIRMED")
    settle(instance)
    assert errors(instance) == []
    assert len(provider.log()) == 2


# --- Batches -----------------------------------------------------------------

def test_a_batch_size_of_one_sends_at_once(make_sender):
    instance, provider = make_sender(conf={
        "sms.batch_size": 1, "sms.max_delay_ms": NEVER_MS})
    ids = send_all(instance, range(3))
    wait_taken(provider, 3)
    assert sorted(r["ids"] for r in provider.log()) == sorted(
        [i] for i in ids)


def test_a_full_batch_goes_and_drain_sends_the_rest(make_sender):
    instance, provider = make_sender(conf={
        "sms.batch_size": 5, "sms.max_delay_ms": NEVER_MS})
    ids = send_all(instance, range(7))
    wait_taken(provider, 5)
    batch, = provider.log()
    assert batch["ids"] == ids[:5]
    assert instance.ctl("drain")["drained"] is True
    wait_taken(provider, 7)
    assert [r["ids"] for r in provider.log()] == [ids[:5], ids[5:]]


def test_what_waits_goes_after_the_longest_delay(make_sender):
    instance, provider = make_sender(conf={"sms.max_delay_ms": 800})
    begun_ms = harness.time.monotonic() * 1000
    ids = send_all(instance, range(3))
    wait_taken(provider, 3)
    log = provider.log()
    assert [i for r in log for i in r["ids"]] == ids
    assert log[0]["at_ms"] - begun_ms >= 790


def test_a_provider_that_hangs_delays_nobody(make_sender):
    instance, provider = make_sender(hang=1, hang_ms=30000, conf={
        "sms.batch_size": 10, "sms.max_delay_ms": NEVER_MS,
        "sms.timeout_ms": 60000})
    first = send_all(instance, range(10))
    wait_for(lambda: provider.summary()["hanging"] == 1, "a batch hangs")
    provider.set(hang=0)
    second = send_all(instance, range(10, 20))
    wait_taken(provider, 10)
    assert set(provider.messages()) == set(second)
    assert provider.summary()["hanging"] == 1  # all the time
    provider.release()
    wait_taken(provider, 20)
    assert [r["ids"] for r in provider.log()] == [first, second, first]
    assert len({r["key"] for r in provider.log()}) == 2


def test_a_backlog_behind_batches_that_rest_leaves_in_full_ones(make_sender):
    """More messages than may be in hand: what is left of that bound behind
    the last full batch is no batch."""
    instance, provider = make_sender(fail=1, conf={
        "sms.batch_size": 300, "sms.max_delay_ms": 100,
        "sms.max_attempts": 100, "sms.retry_base_ms": 600_000})
    instance.sluiced.kill()
    accept_all(instance.port, "/sms", [
        json.dumps(document(number)).encode() for number in range(4800)])
    instance.sluiced.start()
    wait_for(lambda: len({r["key"] for r in provider.log()}) >= 14,
             "as many as may be in hand")
    harness.time.sleep(0.5)
    assert {len(r["ids"]) for r in provider.log()} == {300}


TROUBLES = ("fail", "redirect", "garbage", "reset", "hang", "429")


def test_each_trouble_is_tried_again_and_not_once_more(make_sender):
    attempts = 3
    instance, provider = make_sender(conf={
        "sms.batch_size": 1, "sms.max_attempts": attempts,
        "sms.timeout_ms": 1000})
    ids = {}
    for number, trouble in enumerate(TROUBLES):
        option = {"429": "fail"}.get(trouble, trouble)
        provider.set(**{**GOOD, option: 1},
                     fail_status=429 if trouble == "429" else 503)
        ids[trouble] = send(instance, number)
        shown = wait_dead(instance, ids[trouble])
        assert shown["status"] == "ACCEPTED" and shown["last_error"], shown
    provider.set(**GOOD)
    provider.release()
    send(instance, 100)
    wait_taken(provider, 1)
    for trouble, message_id in ids.items():
        requests = requests_with(provider, message_id)
        assert len(requests) == attempts, trouble
        assert len({(r["key"], r["hash"]) for r in requests}) == 1, trouble
    settle(instance)
    assert instance.counters("sms")["dead"] == len(ids)
    rows = instance.sql("SELECT batch_id::text, size, attempts FROM"
                        " sms_batches WHERE error IS NOT NULL")
    assert sorted(rows) == sorted(
        (requests_with(provider, i)[0]["key"], 1, attempts)
        for i in ids.values())

    # Again: the same batches, unchanged.
    assert instance.ctl("dead", "retry", "all", "sms")["retried"] == len(ids)
    wait_taken(provider, 1 + len(ids))
    for trouble, message_id in ids.items():
        requests = requests_with(provider, message_id)
        assert len(requests) == attempts + 1, trouble
        assert len({(r["key"], r["hash"]) for r in requests}) == 1, trouble
        wait_for(lambda i=message_id: not sms(instance, i)["dead"],
                 "it is alive")
    settle(instance)
    assert instance.counters("sms")["dead"] == 0


def test_a_batch_of_many_dies_and_is_retried_as_one(make_sender):
    instance, provider = make_sender(fail=1, conf={
        "sms.batch_size": 10, "sms.max_delay_ms": NEVER_MS,
        "sms.max_attempts": 2})
    ids = send_all(instance, range(10))
    for message_id in ids:
        wait_dead(instance, message_id)
    provider.set(fail=0)
    settle(instance)
    instance.restart_sluiced(signal.SIGKILL)
    instance.wait_ready()
    instance.sluicectl("dead", "retry", "all", "sms")
    wait_taken(provider, 10)
    log = provider.log()
    assert [r["ids"] for r in log] == [ids] * 3
    assert len({(r["key"], r["hash"]) for r in log}) == 1


def test_nobody_listens(make_sender):
    instance, provider = make_sender(conf={
        "sms.max_attempts": 2,
        "sms.url": f"http://127.0.0.1:{harness.free_port()}/batches"})
    message_id = send(instance, 1)
    shown = wait_dead(instance, message_id)
    assert shown["status"] == "ACCEPTED" and shown["last_error"], shown
    assert provider.log() == []


def test_an_answer_that_is_lost(make_sender):
    """The provider has the batch, and is asked again under the same key."""
    instance, provider = make_sender(lost=1, conf={"sms.max_attempts": 20})
    message_id = send(instance, 1)
    wait_for(lambda: len(provider.log()) >= 2, "it is sent again")
    provider.set(lost=0)
    settle(instance)
    verdicts = [r["verdict"] for r in provider.log()]
    assert verdicts[0] == "taken" and set(verdicts[1:]) == {"repeated"}
    assert not sms(instance, message_id)["dead"]


def test_an_update_brings_a_dead_message_back(make_sender):
    """Its provider had it after all."""
    instance, _ = make_sender(lost=1, conf={"sms.max_attempts": 2})
    message_id = send(instance, 1)
    wait_dead(instance, message_id)
    update(instance, {message_id: "DELIVERED"})
    shown = wait_status(instance, message_id, "DELIVERED")
    assert not shown["dead"], shown
    settle(instance)
    assert instance.ctl("dead", "list", "sms")["dead"] == []
    assert instance.counters("sms")["dead"] == 0
    assert errors(instance) == []


def refuse_what_was_taken(instance, provider, count):
    """The first answers are lost, the next ones are a refusal, and in between
    the provider has reported on the first message. Its ids, and the requests
    made before the refusal."""
    ids = send_all(instance, range(count))
    wait_for(lambda: provider.log(), "it is sent")
    update(instance, {ids[0]: "CONFIRMED"})
    settle_updates(instance)
    provider.set(lost=0, fail=1, fail_status=422)
    return ids


def settle_updates(instance):
    instance.wait_idle(4 * harness.DEADLINE_S, "sms_status")


def test_a_refusal_of_what_was_reported_on_is_no_dead_letter(make_sender):
    instance, provider = make_sender(lost=1, conf={
        "sms.retry_base_ms": 1000, "sms.max_attempts": 100})
    message_id, = refuse_what_was_taken(instance, provider, 1)
    shown = wait_status(instance, message_id, "CONFIRMED")
    assert not shown["dead"], shown
    settle(instance)
    assert instance.counters("sms")["dead"] == 0
    assert errors(instance) == []
    total = statistics(instance)["all"]
    assert (total["batches_sent"], total["batches_failed"]) == (0, 1), total


def test_what_was_reported_on_is_in_no_half(make_sender):
    """Split, the others go out under new keys; it does not."""
    instance, provider = make_sender(lost=1, conf={
        "sms.batch_size": 4, "sms.max_delay_ms": NEVER_MS,
        "sms.retry_base_ms": 1000, "sms.max_attempts": 100})
    ids = refuse_what_was_taken(instance, provider, 4)
    for message_id in ids[1:]:
        wait_dead(instance, message_id)
    wait_status(instance, ids[0], "CONFIRMED")
    whole = {r["key"] for r in provider.log() if r["ids"] == ids}
    assert len(whole) == 1
    assert {r["key"] for r in requests_with(provider, ids[0])} == whole
    assert sorted({tuple(r["ids"]) for r in provider.log()
                   if r["key"] not in whole}) == sorted([
        tuple(ids[1:2]), tuple(ids[2:]), tuple(ids[2:3]), tuple(ids[3:])])
    settle(instance)
    counters = instance.counters("sms")
    assert (counters["final"], counters["dead"]) == (1, 3)
    provider.set(fail=0)
    # To this provider, which had taken them, it is a second key: by order.
    provider.forgive = True
    assert instance.ctl("dead", "retry", "all", "sms")["retried"] == 3
    wait_for(lambda: instance.ctl("status")["services"]["sms"]["waiting"] == 3,
             "they are collected")
    assert instance.ctl("drain")["drained"] is True
    assert instance.counters("sms")["final"] == 4


def test_a_poison_message_is_isolated(make_sender):
    """Halves with new ids, until it stands alone: 1 + 2 + 2 + 2 requests."""
    instance, provider = make_sender(refuse=["poison"], conf={
        "sms.batch_size": 8, "sms.max_delay_ms": 3000,
        "sms.max_attempts": 2})
    poison = {}
    for turn, status in enumerate((400, 413, 422)):
        provider.set(refuse_status=status)
        seen = len(provider.log())
        ids = [send(instance, 8 * turn + k, "poison" if k == 3 + turn else "a")
               for k in range(8)]
        poison[status] = ids.pop(3 + turn)
        shown = wait_dead(instance, poison[status])
        assert shown["status"] == "ACCEPTED"
        assert str(status) in shown["last_error"], shown
        wait_taken(provider, 7 * (turn + 1))
        requests = provider.log()[seen:]
        assert sorted(len(r["ids"]) for r in requests) == [
            1, 1, 2, 2, 4, 4, 8]
        assert len({r["key"] for r in requests}) == 7
        assert set(ids) <= set(provider.messages())
    settle(instance)
    assert instance.counters("sms")["dead"] == 3
    provider.set(refuse=[])
    assert instance.ctl("dead", "retry", "all", "sms")["retried"] == 3
    wait_taken(provider, 24)
    settle(instance)
    assert set(poison.values()) <= set(provider.messages())
    assert instance.counters("sms")["dead"] == 0


def test_statistics(make_sender):
    instance, provider = make_sender(conf={
        "sms.batch_size": 10, "sms.max_delay_ms": NEVER_MS,
        "sms.max_attempts": 2})
    def wait_batches(sent, failed):
        def counted():
            seen = statistics(instance)
            return (seen["all"]["batches_sent"],
                    seen["all"]["batches_failed"]) == (sent, failed) and seen
        return wait_for(counted, f"{sent} batches sent, {failed} failed")

    wait_batches(0, 0)
    send_all(instance, range(20))
    seen = wait_batches(2, 0)
    assert seen["last_hour"] == seen["all"]
    total = seen["all"]
    assert (total["success_percent"], total["messages"], total["attempts"],
            total["requests_saved"]) == (100, 20, 2, 18), total
    assert total["mean_fill"] in (10, 1)  # messages, or a share
    assert 0 <= total["p50_ms"] <= total["p99_ms"], total
    provider.set(fail=1)
    ids = send_all(instance, range(20, 30))
    wait_dead(instance, ids[0])
    total = wait_batches(2, 1)["all"]
    assert total["success_percent"] == 66.66, total  # rounded down
    assert total["attempts"] == 4, total
    rows = instance.sql("SELECT size, attempts, error IS NULL, duration_ms"
                        " FROM sms_batches ORDER BY finished_at")
    assert [row[:3] for row in rows] == [
        (10, 1, True), (10, 1, True), (10, 2, False)]
    assert all(row[3] >= 0 for row in rows)
    (error,), = instance.sql("SELECT error FROM sms_batches"
                             " WHERE error IS NOT NULL")
    assert "503" in error and "503" in sms(instance, ids[0])["last_error"]


# --- The client's own endpoint -----------------------------------------------

class Client:
    """Takes notices of new states. status: of its answers."""

    def __init__(self):
        self.status, self.log = 200, []  # of (headers, body, status)
        client = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                client.log.append((dict(self.headers), body, client.status))
                self.send_response(client.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0),
                                                      Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # sluiced was killed
        self.url = f"http://127.0.0.1:{self.server.server_port}/notices"
        threading.Thread(target=self.server.serve_forever,
                         daemon=True).start()

    def taken(self):
        """Every notice that was answered 2xx."""
        return [notice for _, body, status in list(self.log)
                if status // 100 == 2 for notice in json.loads(body)]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def client():
    client = Client()
    yield client
    client.close()


def notices(instance, condition="true"):
    return instance.sql("SELECT no, message_id::text, status, last_error"
                        f" FROM sms_notices WHERE {condition} ORDER BY no")


def wait_notices(client, count):
    return wait_for(lambda: len(client.taken()) >= count and client.taken(),
                    f"{count} notices")


def test_the_client_is_told_of_new_states(make_sender, client):
    instance, _ = make_sender(conf={
        "sms.webhook_secrets": f"{NEW},{OLD}",
        "sms.status_callback_url": client.url})
    ids = send_all(instance, range(3))
    settle(instance)
    assert client.log == []  # ACCEPTED they were told
    for status in ("CONFIRMED", "DELIVERED", "DELIVERED", "FAILED"):
        body = json.dumps(dict.fromkeys(ids, status)).encode()
        update(instance, dict.fromkeys(ids, status), signed(body, NEW))
    seen = wait_notices(client, 6)
    settle(instance)
    wait_for(lambda: notices(instance) == [], "none waits")
    assert client.taken() == seen and len(seen) == 6
    assert [n["event_id"] for n in seen] == sorted(
        {n["event_id"] for n in seen})
    for message_id in ids:
        assert [n["status"] for n in seen if n["id"] == message_id] == \
            ["CONFIRMED", "DELIVERED"]
    assert all(set(n) == {"event_id", "id", "status", "changed_at"} and
               n["changed_at"].endswith("Z") for n in seen)
    for headers, body, _ in client.log:
        at_s = int(headers["X-Signature"].split(",")[0][2:])
        assert abs(at_s - harness.time.time()) < 60
        assert headers["X-Signature"] == \
            signed(body, NEW, at_s)["X-Signature"]
        rows = json.loads(body)
        assert headers["Idempotency-Key"] == (
            f"sms-notices-0-{rows[0]['event_id']}-{rows[-1]['event_id']}")
        assert headers["Content-Type"] == "application/json"


def test_a_client_that_fails_is_told_again_and_then_no_more(make_sender,
                                                           client):
    instance, _ = make_sender(conf={
        "sms.status_callback_url": client.url, "sms.max_attempts": 3})
    first, second = send_all(instance, range(2))
    settle(instance)
    client.status = 500
    update(instance, {first: "CONFIRMED"})
    (no, message_id, _, error), = wait_for(
        lambda: notices(instance, "dead_at IS NOT NULL"), "it is given up")
    assert (message_id, error) == (first, "HTTP 500")
    assert len(client.log) == 3
    assert len({body for _, body, _ in client.log}) == 1
    assert len({h["Idempotency-Key"] for h, _, _ in client.log}) == 1
    assert "X-Signature" not in client.log[0][0]
    assert instance.metrics()["sluice_sms_notices_dead_total", ()] == 1
    client.status = 204
    update(instance, {second: "DELIVERED"})  # the next ones go on
    seen = wait_notices(client, 1)
    assert [(n["id"], n["status"]) for n in seen] == [(second, "DELIVERED")]
    instance.sql("UPDATE sms_notices SET dead_at = NULL")
    seen = wait_notices(client, 2)
    assert (seen[1]["event_id"], seen[1]["id"]) == (no, first)
    wait_for(lambda: notices(instance) == [], "none waits")
    assert instance.metrics()["sluice_sms_notices_sent_total", ()] == 2


def test_notices_survive_a_kill_and_the_database_away(make_sender, client,
                                                      place):
    instance, _ = make_sender(conf={
        "sms.status_callback_url": client.url, "sms.max_attempts": 100,
        "sms.retry_base_ms": 1})
    ids = send_all(instance, range(20))
    settle(instance)
    client.status = 503
    update(instance, dict.fromkeys(ids, "CONFIRMED"))
    wait_for(lambda: client.log, "it is told")
    instance.restart_sluiced(signal.SIGKILL)
    with postgres_down(place):
        client.status = 200
        update(instance, dict.fromkeys(ids, "DELIVERED"))
    wait_for(lambda: {(n["id"], n["status"]) for n in client.taken()} ==
             {(i, s) for i in ids for s in ("CONFIRMED", "DELIVERED")},
             "all are told")
    for message_id in ids:
        seen = [n["status"] for n in client.taken() if n["id"] == message_id]
        assert seen.index("CONFIRMED") < seen.index("DELIVERED")
    wait_for(lambda: notices(instance) == [], "none waits")


def test_a_database_that_cannot_be_written_repeats_no_notice(make_sender,
                                                             client):
    """It may be read: each look would find the same rows."""
    instance, _ = make_sender(conf={"sms.status_callback_url": client.url})
    message_id = send(instance, 1)
    settle(instance)
    instance.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN RAISE EXCEPTION 'disk full'; END$$")
    instance.sql("CREATE TRIGGER refuse BEFORE DELETE OR UPDATE"
                     " ON sms_notices EXECUTE FUNCTION refuse()")
    update(instance, {message_id: "DELIVERED"})
    wait_notices(client, 1)
    harness.time.sleep(2.5)
    assert len(client.log) == 1
    instance.sql("DROP TRIGGER refuse ON sms_notices")
    wait_for(lambda: notices(instance) == [], "none waits")
    assert len(client.log) == 1


# --- All of it at once -------------------------------------------------------

# A quarter of the attempts fail. So 100 full batches need 133 requests on
# average, 100 / (1 - 1/4), with a standard deviation of 7: 98.67 % are saved.
# Each kill of sluiced repeats at most the max_in_flight = 4 batches that were
# under way: 40 for ten of them, 98.27 %. 98 % is 200 requests.
BAD_PROVIDER = {
    "fail": 0.2, "hang": 0.02, "lost": 0.03, "answer_ms": (5, 50),
    "confirm_ms": (0, 200), "final_ms": (50, 500), "fail_messages": 0.1,
    "early": 0.05, "reorder": 0.1, "duplicate": 0.2, "updates": True}
SAVED = 0.98


def make_bad_sender(make_sender, web):
    return make_sender(web=web, **BAD_PROVIDER, conf={
        "sms.batch_size": 100, "sms.max_delay_ms": 2000,
        "sms.max_attempts": 15, "sms.max_in_flight": 4,
        "sms.timeout_ms": 2000, "sms.webhook_secrets": NEW})


def send_many(instance):
    """The ids of MANY messages."""
    replies = accept_all(instance.port, "/sms", [
        json.dumps(document(number)).encode() for number in range(MANY)])
    return [reply.json()["id"] for reply in replies]


def check_many(instance, provider, ids):
    """Each has one final status, the provider's, and most of the money is
    saved. Returns the requests that were made."""
    assert len(set(ids)) == MANY
    wait_for(lambda: instance.sql(
        "SELECT count(*) FROM sms WHERE status = ANY(%s)",
        list(FINAL))[0][0] >= MANY, "all are final",
        8 * harness.DEADLINE_S, every=0.1)
    wait_for(lambda: provider.summary()["updates_waiting"] == 0,
             "every update is posted", 4 * harness.DEADLINE_S)
    settle(instance)
    requests = check_provider(provider)["requests"]
    # Differences only: pytest takes minutes to explain 10 000 equal items.
    messages, rows = provider.messages(), stored(instance)
    assert not messages.keys() ^ set(ids)
    assert not rows.keys() ^ set(ids)
    assert not {i: (rows[i], m["final"]) for i, m in messages.items()
                if rows[i] != m["final"]}
    wrong = {message_id for _, message_id, _ in errors(instance)}
    assert not wrong ^ {i for i, m in messages.items() if m["reordered"]}
    counters = instance.counters("sms")
    assert (counters["accepted"], counters["final"], counters["dead"]) == \
        (MANY, MANY, 0)
    assert 1 - requests / MANY >= SAVED, provider.summary()["verdicts"]
    return requests


@pytest.mark.parametrize("web", ["lighttpd", "mod_proxy_fcgi"])
def test_ten_thousand_through_a_bad_provider(make_sender, web):
    instance, provider = make_bad_sender(make_sender, web)
    ids = send_many(instance)
    requests = check_many(instance, provider, ids)
    for total in statistics(instance).values():
        assert total["messages"] == MANY
        assert total["batches_failed"] == 0
        assert total["success_percent"] == 100
        assert total["attempts"] == requests
        assert total["requests_saved"] == MANY - requests


def test_ten_thousand_while_sluiced_is_killed_ten_times(make_sender):
    instance, provider = make_bad_sender(make_sender, "lighttpd")
    ids = []
    client = threading.Thread(
        target=lambda: ids.extend(send_many(instance)), daemon=True)
    client.start()
    for k in range(10):
        wait_for(lambda k=k: provider.summary()["requests"] > 8 * (k + 1),
                 "some batches are sent", 4 * harness.DEADLINE_S)
        instance.restart_sluiced()
    client.join(4 * harness.DEADLINE_S)
    assert not client.is_alive()
    check_many(instance, provider, ids)
