"""POST /callback and GET /objects as a client sees them, behind each of the
three web servers."""
import re
import subprocess

import pytest

import harness
from harness import ids_body, wait_for

UUID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
MAX_ID = 2 ** 53


def listed(instance, path="/objects"):
    reply = instance.get(path)
    assert reply.status == 200, reply
    return reply.json()


@pytest.mark.smoke
def test_what_is_online_is_stored(site, even):
    request_id = site.accept([even, even + 1, even + 2])
    assert UUID.fullmatch(request_id)
    site.wait_stored([even, even + 2])
    site.wait_idle()
    assert even + 1 not in site.stored()  # fetched, and offline
    assert site.fetches(even + 1) == 1

    reply = site.get(f"/objects/{even}")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("application/json")
    document = reply.json()
    assert (document["id"], document["online"]) == (even, True)
    assert TIME.fullmatch(document["last_seen"]), document


def test_an_answer_is_accepted_with_an_id_of_this_node(site, even):
    reply = site.post([even])
    assert reply.status == 202
    assert reply.headers["content-type"].startswith("application/json")
    assert reply.json()["id"][-4:] == "0000"  # node.id 0: the last 16 bits
    assert list(reply.json()) == ["id"]


@pytest.mark.smoke
def test_ids_that_are_named_twice_are_fetched_once(site, even):
    site.accept([even] * 100 + [even + 2] * 100)
    site.wait_stored([even, even + 2])
    assert site.fetches(even) == 1
    assert site.fetches(even + 2) == 1


def test_requests_share_a_fetch_in_flight(make, even):
    """One fetch serves every callback received before its GET was written;
    those that came while it was in flight share at most one more."""
    instance = make(delay_ms=(500, 500), conf={"callback.concurrency": 50})
    for _ in range(20):
        instance.accept([even, even + 2])
    instance.wait_idle()
    assert instance.stored() == {even, even + 2}
    assert 1 <= instance.fetches(even) < 10
    assert instance.counters()["final"] == 20


def test_an_empty_list_is_accepted_and_final(site):
    before = site.counters()
    site.accept([])
    wait_for(lambda: site.counters()["final"] > before["final"],
             "an empty callback is final")


def test_the_smallest_and_the_largest_id(site):
    site.accept([0, MAX_ID])
    site.wait_stored([0, MAX_ID])
    for object_id in (0, MAX_ID):
        assert listed(site, f"/objects/{object_id}")["id"] == object_id


def test_two_hundred_ids(site, even):
    ids = range(even, even + 400, 2)
    site.accept(ids)
    site.wait_stored(ids)


def test_the_member_matches_without_regard_to_case(site, even):
    reply = site.post(b'{"Object_IDs": [%d], "unknown": {"a": []}}' % even)
    assert reply.status == 202, reply
    site.wait_stored([even])


@pytest.mark.parametrize("headers", [
    {},
    {"Content-Type": "application/json; charset=utf-8"},
    {"Content-Type": "application/x-www-form-urlencoded"},  # curl -d '{...}'
], ids=["none", "json with charset", "curl's default"])
def test_media_types_that_are_taken_as_json(site, even, headers):
    reply = site.request("POST", "/callback", ids_body([even]), headers)
    assert reply.status == 202, reply


def test_last_seen_is_when_the_callback_was_received(make, even):
    instance = make(delay_ms=(1500, 1500))
    instance.accept([even])
    received = instance.journal_rows("SELECT received FROM queue_callback")
    instance.wait_stored([even])
    last_seen, = instance.sql(
        "SELECT (extract(epoch FROM last_seen) * 1000)::bigint"
        " FROM objects WHERE id = %s", even)[0]
    assert last_seen == received[0]["received"]


def test_a_later_sighting_only_raises_last_seen(site, even):
    site.accept([even])
    site.wait_stored([even])
    site.sql("UPDATE objects SET last_seen = now() + interval '1 day'"
             " WHERE id = %s", even)
    site.accept([even])
    site.wait_idle()
    assert site.sql("SELECT last_seen > now() + interval '23 hours'"
                    " FROM objects WHERE id = %s", even) == [(True,)]


def test_objects_expire(make, even):
    instance = make(conf={"callback.expire_s": 2})
    instance.accept([even])
    instance.wait_stored([even])
    # What is too old is not shown, deleted or not.
    instance.sql("UPDATE objects SET last_seen = now() - interval '3 s'")
    assert instance.get(f"/objects/{even}").status == 404
    wait_for(lambda: not instance.stored(), "the expired object is deleted")
    assert listed(instance) == {"objects": [], "next": None}


def test_without_expiry_objects_stay(site, even):
    site.accept([even])
    site.wait_stored([even])
    site.sql("UPDATE objects SET last_seen = now() - interval '1 year'"
             " WHERE id = %s", even)
    assert site.get(f"/objects/{even}").status == 200


def test_pages(make, even):
    instance = make()
    ids = list(range(even, even + 20, 2))
    instance.accept(ids)
    instance.wait_stored(ids)
    seen, path = [], "/objects?limit=3"
    while path:
        page = listed(instance, path)
        assert len(page["objects"]) <= 3
        seen += [item["id"] for item in page["objects"]]
        path = page["next"] is not None and \
            f"/objects?limit=3&after={page['next']}"
    assert seen == ids
    assert all(item["online"] is True and TIME.fullmatch(item["last_seen"])
               for item in listed(instance)["objects"])
    last = listed(instance, f"/objects?after={ids[-1]}")
    assert last == {"objects": [], "next": None}


def test_a_page_has_a_hundred_by_default_and_a_thousand_at_most(make, even):
    instance = make(delay_ms=(0, 1))
    ids = list(range(even, even + 2400, 2))
    for at in range(0, len(ids), 200):
        instance.accept(ids[at:at + 200])
    instance.wait_stored(ids)
    assert len(listed(instance)["objects"]) == 100
    assert len(listed(instance, "/objects?limit=1000")["objects"]) == 1000
    assert instance.get("/objects?limit=1001").status == 400


@pytest.mark.parametrize("query, field", [
    ("limit=0", "limit"), ("limit=-1", "limit"), ("limit=x", "limit"),
    ("limit=", "limit"), ("after=x", "after"), ("after=%zz", "after"),
    ("after=-2", "after"), ("after=9007199254740993", "after"),
])
def test_bad_pages_are_refused_with_their_field(site, query, field):
    reply = site.get(f"/objects?{query}")
    assert reply.status == 400, reply
    assert [e["field"] for e in reply.problem()["errors"]] == [field]


def test_an_object_that_is_not_there(site):
    reply = site.get("/objects/123456789012345")
    assert reply.status == 404
    reply.problem()


@pytest.mark.parametrize("name", ["x", "-1", "1.5", "9007199254740993", "1e3",
                                  "%00", "0x10"])
def test_an_object_id_that_is_none(site, name):
    reply = site.get(f"/objects/{name}")
    assert reply.status in (400, 404), reply
    if reply.headers.get("content-type", "").startswith("application/"):
        reply.problem()


# --- Headers --------------------------------------------------------------------

def test_a_request_id_is_made_or_echoed(site, even):
    first = site.post([even])
    second = site.post([even])
    assert first.headers["x-request-id"] and second.headers["x-request-id"]
    assert first.headers["x-request-id"] != second.headers["x-request-id"]

    sane = "client-7.Request_42"
    reply = site.post([even], headers={"X-Request-Id": sane})
    assert reply.headers["x-request-id"] == sane
    reply = site.get("/objects/x", headers={"X-Request-Id": sane})
    assert reply.headers["x-request-id"] == sane


@pytest.mark.parametrize("hostile", ["a" * 129, "a b", "<script>", "a\tb",
                                     "\xe9"])
def test_a_request_id_that_is_not_sane_is_replaced(site, even, hostile):
    reply = site.post([even], headers={"X-Request-Id": hostile})
    assert reply.status == 202, reply
    assert reply.headers["x-request-id"] not in ("", hostile)


def test_head_answers_like_get_without_a_body(site):
    reply = site.request("HEAD", "/objects")
    assert (reply.status, reply.body) == (200, b"")


@pytest.mark.smoke
def test_a_repeated_key_replays_the_first_answer(site, even):
    key = {"Idempotency-Key": f"key-{even}"}
    first = site.post([even], headers=key)
    before = site.accepted()
    again = site.post([even], headers=key)
    assert (first.status, again.status) == (202, 202)
    assert first.json() == again.json()
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert site.accepted() == before

    site.wait_idle()  # a key outlives its request
    assert site.post([even], headers=key).json() == first.json()


def test_a_key_with_another_body_is_refused(site, even):
    key = {"Idempotency-Key": f"key-{even}"}
    assert site.post([even], headers=key).status == 202
    before = site.accepted()
    reply = site.post([even + 2], headers=key)
    assert reply.status == 422, reply
    reply.problem()
    assert site.accepted() == before


def test_a_key_survives_a_restart_of_everything(make, even):
    instance = make()
    key = {"Idempotency-Key": "the-same"}
    first = instance.post([even], headers=key).json()
    instance.wait_idle()
    instance.stop_handlers()
    instance.restart_sluiced()
    instance.start_handlers()
    again = instance.post([even], headers=key)
    assert again.json() == first
    assert again.headers["idempotent-replayed"] == "true"


def test_racing_requests_with_one_key_are_one_request(site, even):
    before = site.accepted()
    commands = [["curl", "-sS", "-H", f"Idempotency-Key: race-{even}", "-d",
                 ids_body([even]).decode(),
                 f"http://127.0.0.1:{site.port}/callback"]] * 20
    running = [subprocess.Popen(c, stdout=subprocess.PIPE) for c in commands]
    answers = {r.communicate(timeout=harness.DEADLINE_S)[0] for r in running}
    assert len(answers) == 1, answers
    assert site.accepted() == before + 1


@pytest.mark.parametrize("key", ["k" * 300, ""])
def test_a_key_that_cannot_be_kept_is_refused(site, even, key):
    """Never silently ignored: the client relies on it."""
    before = site.accepted()
    reply = site.post([even], headers={"Idempotency-Key": key})
    if key:
        assert reply.status == 400, reply
        reply.problem()
        assert site.accepted() == before
    else:  # web servers drop an empty header, or hand it on
        assert reply.status in (202, 400), reply


# --- The published tester ---------------------------------------------------------

@pytest.mark.smoke
def test_the_published_tester_is_content(site):
    """One kept-alive connection, up to 200 random ids, 1 s of patience."""
    done = subprocess.run(
        ["/usr/bin/python3", "-B", str(harness.SIM / "tester.py"), "--url",
         f"http://localhost:{site.port}/callback", "--count", "20",
         "--period", "0.05"],
        capture_output=True, text=True, timeout=harness.DEADLINE_S,
        check=False)
    assert done.returncode == 0, done.stdout
    assert '{"passed": 20, "failed": 0}' in done.stdout
    site.wait_idle()
    assert site.stored() & set(range(101)) <= set(range(0, 101, 2))
