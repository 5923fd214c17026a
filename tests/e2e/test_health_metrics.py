"""Health, metrics, status and the API's own description."""
import json

import pytest

import harness
from harness import parse_metrics, wait_for

CALLBACK = (("service", "callback"),)


@pytest.mark.smoke
def test_live_and_ready(site):
    assert site.get("/health/live").status == 200
    reply = site.get("/health/ready")
    assert reply.status == 200, reply
    parts = json.loads(reply.body)["parts"]
    assert parts["postgres"]["ok"] and parts["mail"]["ok"], parts


def test_without_mongo_it_is_ready_and_says_so(make):
    instance = make(conf={"mongo.uri":
                          f"mongodb://127.0.0.1:{harness.free_port()}/x"})
    reply = instance.get("/health/ready")
    assert reply.status == 200, reply
    mongo = json.loads(reply.body)["parts"]["mongo"]
    assert not mongo["ok"] and mongo["reason"], reply


def test_ready_says_what_is_missing(make):
    instance = make()
    instance.sluiced.stop()
    assert instance.get("/health/live").status == 200
    reply = instance.get("/health/ready")
    assert reply.status == 503, reply
    assert b"dispatcher" in reply.body


@pytest.mark.smoke
def test_metrics_parse_and_count(make, even):
    instance = make()
    before = instance.metrics()
    instance.accept([even, even + 1, even + 2])
    instance.wait_stored([even, even + 2])
    instance.wait_idle()
    wait_for(lambda: instance.metrics()[("sluice_persisted_total", CALLBACK)]
             == before.get(("sluice_persisted_total", CALLBACK), 0) + 1,
             "persisted")
    values = instance.metrics()
    assert values[("sluice_accepted_total", CALLBACK)] == 1
    assert values[("sluice_final_total", CALLBACK)] == 1
    assert values[("sluice_pending", CALLBACK)] == 0
    assert values[("sluice_ledger_balanced", CALLBACK)] == 1
    assert values[("sluice_fetches_total", ())] == 3
    assert values[("sluice_store_rows_total", ())] == 2
    assert values[("sluice_postgres_up", ())] == 1
    # A histogram: buckets grow, the last one is the count.
    buckets = sorted(
        (float(dict(labels)["le"]), value) for (name, labels), value
        in values.items() if name == "sluice_fetch_seconds_bucket")
    assert [v for _, v in buckets] == sorted(v for _, v in buckets)
    assert buckets[-1] == (float("inf"), 3)
    assert values[("sluice_fetch_seconds_count", ())] == 3


def test_metrics_media_type(site):
    reply = site.get("/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain")
    parse_metrics(reply.body.decode())


def test_metrics_without_a_dispatcher(make, even):
    """What the journal tells is told; Prometheus sees who is down."""
    instance = make()
    instance.sluiced.stop()
    instance.accept([even])
    values = instance.metrics()
    assert values[("sluice_pending", CALLBACK)] == 1
    assert values[("sluice_ledger_balanced", CALLBACK)] == 1


def test_metrics_alarm_when_the_ledger_does_not_balance(make):
    instance = make()
    journal = instance.journal()
    with journal:
        journal.execute("UPDATE counter SET accepted = accepted + 1")
    assert instance.metrics()[("sluice_ledger_balanced", CALLBACK)] == 0
    with journal:
        journal.execute("UPDATE counter SET accepted = accepted - 1")
    journal.close()
    assert instance.metrics()[("sluice_ledger_balanced", CALLBACK)] == 1


def test_status_as_json(site):
    reply = site.get("/status.json")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("application/json")
    assert "callback" in json.dumps(reply.json())


def test_the_log_is_key_value_and_discreet(make, even):
    instance = make()
    instance.accept([even])
    instance.wait_stored([even])
    instance.restart_sluiced(15)
    lines = instance.sluiced.log_text().splitlines()
    assert lines
    for line in lines:
        assert "event=" in line or "=" in line, line
    assert str(even) not in instance.sluiced.log_text()


def test_api_keys(make, even):
    """auth.keys_file: every route but health wants a known key."""
    instance = make(start=False)
    keys = instance.dir / "keys"
    keys.write_text("secret-key-one\nsecret-key-two\n")
    keys.chmod(0o644)
    instance.write_conf(auth__keys_file=keys)
    instance.start()
    refused = instance.post([even])
    assert refused.status == 401
    assert "Bearer" in refused.headers["www-authenticate"]
    refused.problem()
    wrong = instance.post([even], headers={"Authorization": "Bearer nonsense"})
    assert wrong.status == 401
    for key in ("secret-key-one", "secret-key-two"):
        reply = instance.post([even],
                              headers={"Authorization": f"Bearer {key}"})
        assert reply.status == 202, reply
    assert instance.accepted() == 2
    assert instance.get("/health/live").status == 200


def test_idempotency_keys_are_scoped_by_api_key(make, even):
    instance = make(start=False)
    keys = instance.dir / "keys"
    keys.write_text("secret-key-one\nsecret-key-two\n")
    keys.chmod(0o644)
    instance.write_conf(auth__keys_file=keys)
    instance.start()
    ids = [instance.post([even], headers={
        "Authorization": f"Bearer {key}", "Idempotency-Key": "same"}
    ).json()["id"] for key in ("secret-key-one", "secret-key-two")]
    assert ids[0] != ids[1]
