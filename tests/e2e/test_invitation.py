"""The invitation service: places in order of arrival, the waitlist and mails,
on real servers, with one dispatcher and with two."""
import asyncio
import collections
import datetime
import itertools
import json
import random
import re
import time
import urllib.parse

import pytest

import harness
from harness import MailServer, wait_for
from load import Applicants

FORM = "application/x-www-form-urlencoded"
SUBJECTS = {"welcome": "Your place is confirmed: ",
            "apology": "All places are taken at the moment: ",
            "unknown": "We do not know the invitation "}
CONF = {"mail.retry_base_ms": 20, "mail.pause_ms": 100,
        "mail.from": "Sluice <invitations@sluice.example>"}
TRIES = 2  # of a mail to later*, before it is taken
COUNTER = itertools.count(1)
PEOPLE, PLACES, CONNECTIONS = 20_000, 1000, 64
KILLED_PEOPLE, KILLED_PLACES, KILLS, AWAY_S = 4000, 1000, 10, 15


def kind_of(message_id):
    """<request id>.<kind>@<host>"""
    return message_id.strip("<>").split("@")[0].split(".")[1]


class Desk:
    """An instance with a mail server, and ways to ask both and MongoDB.
    beside: another desk, whose MongoDB and mail server it has, too."""

    def __init__(self, place, web="lighttpd", beside=None, conf=None,
                 keep=True):
        self.beside = beside
        shared = {} if beside is None else {
            "mongo.uri": beside.instance.conf["mongo.uri"],
            "mail.url": beside.mail.url}
        self.instance = place.instance(
            web=web, start=False, mongo=beside is None,
            conf={**CONF, **shared, **(conf or {})})
        if beside is None:
            self.mail = MailServer(
                self.instance, keep, refuse=["nobody*"], defer=["later*"],
                times=TRIES).start()
            self.instance.write_conf(mail__url=self.mail.url)
        else:
            self.mail = beside.mail
        self.instance.start()
        self.db = self.instance.mongo_database()

    def close(self):
        if self.instance in self.instance.place.instances:
            self.instance.close()
            self.instance.check_ledger("invitation")

    # Asking

    def ctl(self, *arguments):
        return self.instance.ctl("invitation", *arguments)

    def create(self, limit, *options):
        """A new invitation; its code."""
        code = f"code-{next(COUNTER)}"
        self.instance.sluicectl("invitation", "create", code, "--limit", limit,
                                *options)
        return code

    def post_json(self, code, email):
        return self.instance.request(
            "POST", f"/invitations/{code}",
            json.dumps({"Email": email}).encode(),
            {"Content-Type": "application/json"})

    def ask(self, code, email):
        """The id of a request that must be accepted."""
        reply = self.post_json(code, email)
        assert reply.status == 202, reply
        return reply.json()["id"]

    def ask_all(self, code, emails):
        return [self.ask(code, email) for email in emails]

    def post_form(self, code, email):
        return self.instance.request(
            "POST", f"/invitations/{code}",
            urllib.parse.urlencode({"email": email}).encode(),
            {"Content-Type": FORM, "Accept": "text/html"})

    def ask_in_form(self, code, email):
        reply = self.post_form(code, email)
        assert reply.status == 202, reply

    # What came of it

    def places(self, code):
        """Who has a place, by slot."""
        return {r["slot"]: r["_id"]
                for r in self.db.registrations.find({"code": code})}

    def waiting(self, code):
        """Who waits, in order."""
        rows = self.db.waitlist.find({"code": code})
        return [r["key"] for r in sorted(
            rows, key=lambda r: (r["received"], r["node"], r["seq"]))]

    def mailed(self, *people):
        """The kinds of mails that each of them got, in order."""
        log = self.mail.log()
        return [[kind_of(entry["message_id"]) for entry in log
                 if person in entry["to"]] for person in people]

    def queued(self):
        return self.db.mails.count_documents({"state": "queued"})

    def settle(self, seconds=harness.DEADLINE_S):
        """Every request that was accepted has its outcome, and every mail has
        left: there is nothing more to come but what frees a place."""
        self.instance.wait_idle(seconds, "invitation")
        wait_for(lambda: self.queued() == 0, "the mails have left", seconds,
                 0.1)


@pytest.fixture(scope="module")
def desks(place):
    """desks(web): the module's, behind that web server."""
    made = {}

    def desk_behind(web):
        if web not in made:
            made[web] = Desk(place, web)
        return made[web]

    yield desk_behind
    for desk in made.values():
        desk.close()


@pytest.fixture(params=("lighttpd", "mod_proxy_fcgi"))
def desk(request, desks):
    desk = desks(request.param)
    yield from shown(desk, request)


@pytest.fixture
def one(request, desks):
    """For what does not depend on the web server."""
    yield from shown(desks("lighttpd"), request)


def shown(desk, request):
    """With its logs in the report of a failure (see conftest.py)."""
    request.node.funcargs["instance"] = desk.instance
    yield desk


@pytest.fixture
def people():
    """people(n): addresses that no other test has."""
    number = next(COUNTER)

    def some(count, name="p"):
        return [f"{name}{k}.of{number}@example.com" for k in range(count)]
    return some


# --- One dispatcher ------------------------------------------------------------

@pytest.mark.smoke
@pytest.mark.parametrize("web", harness.WEB_SERVERS)
def test_a_place_and_the_mail_that_says_so(desks, web):
    desk = desks(web)
    code = desk.create(3)
    request_id = desk.ask(code, f" Jo.{web}@Example.com ")
    desk.ask_in_form(code, f"jörg.{web}@bücher.example")
    desk.settle()
    key = f"jo.{web}@example.com"
    row = desk.db.registrations.find_one({"_id": key})
    accepted_at = row.pop("accepted_at")
    assert row == {"_id": key, "email": f"Jo.{web}@Example.com",
                   "mailbox": f"Jo.{web}@Example.com".replace(
                       "Example", "example"), "code": code, "slot": 1,
                   "request_id": request_id}
    age = datetime.datetime.utcnow() - accepted_at
    assert age < datetime.timedelta(seconds=harness.DEADLINE_S)
    second = f"jörg.{web}@xn--bcher-kva.example"
    assert desk.places(code) == {1: key, 2: second}

    message_id = f"<{request_id}.welcome@sluice.example>"
    message = desk.mail.mails()[message_id]
    assert message["Subject"] == SUBJECTS["welcome"] + code
    assert message["From"] == "Sluice <invitations@sluice.example>"
    assert message["To"] == f"<{row['mailbox']}>"
    assert message["Auto-Submitted"] == "auto-generated"
    plain, html = (part.get_payload(decode=True).decode()
                   for part in message.walk() if not part.is_multipart())
    for part in (plain, html):
        assert code in part and row["mailbox"] in part, part
    sent = {entry["message_id"]: entry for entry in desk.mail.log()}
    assert sent[message_id]["to"] == [row["mailbox"]]
    assert sent[message_id]["from"] == "invitations@sluice.example"
    # A local part beyond ASCII goes over SMTPUTF8.
    assert [entry["utf8"] for entry in sent.values()
            if second in entry["to"]] == [True]


def test_an_unknown_or_expired_code_gets_a_mail_that_says_so(desk, people):
    code = desk.create(5, "--expires", "2020-01-01T00:00:00Z")
    late, lost, unlucky = people(3)
    ids = [desk.ask(code, late), desk.ask("never-created", lost),
           desk.ask("never-created", unlucky)]
    desk.settle()
    assert desk.mailed(late, lost, unlucky) == [["unknown"]] * 3
    assert desk.places(code) == desk.places("never-created") == {}
    assert desk.waiting(code) == desk.waiting("never-created") == []
    messages = desk.mail.mails()
    for request_id, its_code in zip(ids, (code, "never-created")):
        message = messages[f"<{request_id}.unknown@sluice.example>"]
        assert message["Subject"] == SUBJECTS["unknown"] + its_code
    # They are free to use another one, and to be told once a code.
    other = desk.create(1)
    desk.ask(other, late)
    desk.ask(code, late)
    desk.settle()
    assert desk.mailed(late) == [["unknown", "welcome"]]


def seen(reply, code):
    """What tells one answer from another: all but its own id and time."""
    body = re.sub(rb'"id":"[0-9a-f-]{36}"', b'"id":""', reply.body)
    return (reply.status, body.replace(code.encode(), b"CODE"),
            sorted((name, value) for name, value in reply.headers.items()
                   if name not in ("date", "x-request-id")))


@pytest.mark.parametrize("web", harness.WEB_SERVERS)
def test_the_answer_is_the_same_for_all(desks, people, request, web):
    """Whoever asks for whatever: nothing in the answer tells whether the code
    exists or has places, nor whether the address is known."""
    desk = desks(web)
    request.node.funcargs["instance"] = desk.instance
    number = next(COUNTER)
    # Of one length, for Content-Length counts.
    free, full, late, lost = (f"{kind}-{number}"
                              for kind in ("free", "full", "late", "lost"))
    codes = {free: "welcome", full: "apology", late: "unknown",
             lost: "unknown"}
    # One of each kind for each question, which changes what is known of him.
    ways = list(itertools.product(codes, (desk.post_json, desk.post_form)))
    new, placed, waiting, refused = (
        people(len(ways), name) for name in ("new", "has", "not", "bad"))
    desk.ctl("create", free, "--limit", 1000)
    desk.ctl("create", full, "--limit", len(ways))
    desk.ctl("create", late, "--limit", 1000, "--expires",
             "2020-01-01T00:00:00Z")
    desk.ask_all(full, placed + waiting)
    desk.settle()
    for person in refused:
        desk.instance.sluicectl("invitation", "revoke", person)
    assert list(desk.places(full).values()) == placed
    assert desk.waiting(full) == waiting
    assert desk.db.refused.count_documents({"_id": {"$in": refused}}) == len(
        refused)

    answers = {desk.post_json: set(), desk.post_form: set()}
    for k, (code, post) in enumerate(ways):
        for person in (new[k], placed[k], waiting[k], refused[k]):
            answers[post].add(repr(seen(post(code, person), code)))
    shown = {repr(seen(desk.instance.get(f"/invitations/{code}"), code))
             for code in codes}
    for same in (*answers.values(), shown):
        assert len(same) == 1, same
    assert [next(iter(same))[:4] for same in (*answers.values(), shown)] == [
        "(202", "(202", "(200"]

    # The answers were the same, not what came of it.
    desk.settle()
    kinds = [codes[code] for code, _ in ways]
    assert desk.mailed(*new) == [[kind] for kind in kinds]
    assert desk.mailed(*placed) == [
        ["welcome", kind] if kind == "unknown" else ["welcome"]
        for kind in kinds]
    assert desk.mailed(*waiting) == [
        ["apology"] if kind == "apology" else ["apology", kind]
        for kind in kinds]
    assert desk.mailed(*refused) == [[]] * len(ways)


def test_what_counts_is_when_the_request_was_received(one, people):
    early, late = people(2)
    code = one.create(5)
    one.instance.ctl("pause", "invitation")
    one.ask(code, early)
    received = one.instance.journal_rows(
        "SELECT max(received) AS ms FROM queue_invitation")[0]["ms"]
    wait_for(lambda: time.time() * 1000 > received + 2, "the time has come")
    one.ask(code, late)
    one.db.invitations.update_one({"_id": code}, {"$set": {
        "expires_at": datetime.datetime.utcfromtimestamp(
            (received + 1) / 1000)}})
    one.instance.ctl("resume", "invitation")
    one.settle()
    assert one.places(code) == {1: early}
    assert one.mailed(early, late) == [["welcome"], ["unknown"]]


@pytest.mark.parametrize("limit", (1, 2))
def test_the_next_waits_and_gets_an_apology(desk, people, limit):
    code = desk.create(limit)
    lucky, waiting = people(limit), people(2, "late")
    desk.ask_all(code, lucky + waiting)
    desk.settle()

    def check():
        assert desk.places(code) == dict(enumerate(lucky, 1))
        assert desk.waiting(code) == waiting
        assert desk.mailed(*lucky) == [["welcome"]] * limit
        assert desk.mailed(*waiting) == [["apology"]] * 2

    check()
    # Asking again, in other letters too, changes nothing and sends nothing.
    desk.ask_all(code, waiting + lucky)
    desk.ask_all(code, [lucky[0].upper(), waiting[0].title(),
                        waiting[1].replace("example.com", "EXAMPLE.com")])
    desk.settle()
    check()
    # One who waits may use another code; one who has a place may not.
    other = desk.create(2)
    desk.ask_all(other, [waiting[0], lucky[0]])
    desk.settle()
    assert desk.places(other) == {1: waiting[0]}
    assert desk.waiting(other) == []
    assert desk.mailed(lucky[0], waiting[0]) == [["welcome"],
                                                 ["apology", "welcome"]]


def test_a_domain_is_the_same_in_every_form(desk, people):
    code = desk.create(3)
    name = people(1)[0].split("@")[0]
    desk.ask(code, f"{name}@bücher.example")
    for again in (f"{name.upper()}@BÜCHER.example",
                  f"{name}@xn--bcher-kva.example",
                  f"{name}@bu\u0308cher.example",
                  f" {name}@XN--BCHER-KVA.EXAMPLE\t"):
        desk.ask(code, again)
    desk.settle()
    key = f"{name}@xn--bcher-kva.example"
    assert desk.places(code) == {1: key}
    assert desk.waiting(code) == []
    assert desk.mailed(key) == [["welcome"]]


def test_the_place_of_a_refused_recipient_goes_to_the_next(desk, people):
    code = desk.create(2)
    nobody, = people(1, "nobody")
    first, second, third = people(3)
    nobody_waits, = people(1, "nobody.either")
    desk.ask_all(code, [nobody, first, nobody_waits, second, third])
    wait_for(lambda: desk.places(code) == {1: second, 2: first},
             "the next has moved up")
    desk.settle()
    wait_for(lambda: desk.waiting(code) == [third],
             "who cannot be written to has left the waitlist")
    assert desk.mailed(nobody, first, third) == [[], ["welcome"], ["apology"]]
    # Who moved up before the apology left gets none.
    assert desk.mailed(second)[0][-2:] in (["apology", "welcome"], ["welcome"])
    refused = desk.db.refused.find_one({"_id": nobody})
    assert refused["code"] == code and "550" in refused["reason"], refused
    # That is for good.
    desk.ask_all(desk.create(1), [nobody, nobody_waits])
    desk.settle()
    assert desk.db.registrations.count_documents({"_id": nobody}) == 0
    assert desk.db.mails.count_documents({"to": nobody}) == 1
    shown_ = desk.ctl("show", code)
    assert (shown_["places"], shown_["waiting"]) == (2, 1)
    assert (shown_["refused"], shown_["mails"]["refused"]) == (2, 2)


def test_a_revoked_place_goes_to_the_next(desk, people):
    code = desk.create(1)
    first, second, third = people(3)
    desk.ask_all(code, [first, second, third])
    desk.settle()
    desk.instance.sluicectl("invitation", "revoke", first.upper(), "a robot")
    wait_for(lambda: desk.places(code) == {1: second}, "the next moved up")
    desk.ask_all(code, [first, second, third])
    desk.settle()
    assert desk.places(code) == {1: second}
    assert desk.waiting(code) == [third]
    assert desk.mailed(first, second, third) == [
        ["welcome"], ["apology", "welcome"], ["apology"]]
    assert desk.db.refused.find_one({"_id": first})["reason"] == "a robot"


def test_more_places_go_to_those_who_wait_in_order(desk, people):
    code = desk.create(1)
    asked = people(5)
    desk.ask_all(code, asked)
    desk.settle()
    desk.instance.sluicectl("invitation", "limit", code, 3)
    wait_for(lambda: len(desk.places(code)) == 3, "two have moved up")
    late, = people(1, "late")
    desk.ask(code, late)
    desk.settle()
    wait_for(lambda: desk.waiting(code) == asked[3:] + [late],
             "they have left the waitlist")
    assert desk.places(code) == dict(enumerate(asked[:3], 1))
    desk.settle()
    assert desk.mailed(*asked, late) == [
        ["welcome"], *[["apology", "welcome"]] * 2, *[["apology"]] * 3]
    # Fewer: nobody loses a place, and nobody gets one.
    desk.instance.sluicectl("invitation", "limit", code, 1)
    desk.instance.sluicectl("invitation", "revoke", asked[2])
    wait_for(lambda: len(desk.places(code)) == 2, "the place is free")
    desk.ask(code, people(1, "later.than.all")[0])
    desk.settle()
    assert desk.places(code) == dict(enumerate(asked[:2], 1))


def test_a_mail_says_when_its_reader_asked_however_long_ago(one, people):
    code = one.create(1)
    asked = people(2)
    one.ask_all(code, asked)
    one.settle()
    one.db.waitlist.update_one({"key": asked[1]}, {"$set": {
        "received": datetime.datetime(2001, 9, 9, 1, 46)}})
    one.instance.sluicectl("invitation", "limit", code, 2)
    wait_for(lambda: len(one.places(code)) == 2, "the second has moved up")
    one.settle()
    welcome, = (m for m in one.mail.mails().values()
                if m["To"] == f"<{asked[1]}>" and "confirmed" in m["Subject"])
    plain = next(p for p in welcome.walk() if not p.is_multipart())
    assert b"2001-09-09 01:46 UTC" in plain.get_payload(decode=True)


def test_a_mail_that_is_put_off_comes_later(desk, people):
    code = desk.create(1)
    later, waiting = people(2, "later")
    desk.ask_all(code, [later, waiting])
    desk.settle()
    assert desk.mailed(later, waiting) == [["welcome"], ["apology"]]
    for row in desk.db.mails.find({"code": code}):
        assert (row["state"], row["attempts"]) == ("sent", TRIES + 1), row


def test_mail_pauses_while_the_server_refuses_us(desk, people):
    def status():
        return desk.instance.ctl("status")["services"]["invitation"]["mail"]

    def paused_metric():
        return desk.instance.metrics()[("sluice_mail_paused", ())]

    code = desk.create(1)
    lucky, waiting = people(2)
    assert (status()["paused"], paused_metric()) == (False, 0)
    desk.mail.blocked.touch()
    desk.ask(code, lucky)
    paused = wait_for(lambda: (lambda s: s if s["paused"] else None)(status()),
                      "mail is paused")
    assert "554" in paused["reason"], paused
    assert paused_metric() == 1
    assert "mail_paused" in desk.instance.sluiced.log_text()
    desk.ask(code, waiting)
    desk.instance.wait_idle(service="invitation")
    # It is the mail alone that waits.
    assert desk.places(code) == {1: lucky}
    assert desk.waiting(code) == [waiting]
    assert desk.mailed(lucky, waiting) == [[], []]
    assert desk.queued() == 2
    desk.mail.blocked.unlink()
    desk.settle()
    assert desk.mailed(lucky, waiting) == [["welcome"], ["apology"]]
    assert (status()["paused"], paused_metric()) == (False, 0)
    for row in desk.db.mails.find({"code": code}):
        assert (row["state"], row["attempts"]) == ("sent", 1), row


def test_one_address_at_once_over_three_codes_gets_one_place(desk, people):
    codes = [desk.create(10) for _ in range(3)]
    person, = people(1)
    load = Applicants([desk.instance.port],
                      [(codes[k % 3], person) for k in range(50)], clients=50)
    asyncio.run(load.run())
    assert load.statuses == {202: 50}
    desk.settle()
    rows = list(desk.db.registrations.find({"_id": person}))
    assert len(rows) == 1 and rows[0]["slot"] == 1
    assert sum(len(desk.places(code)) for code in codes) == 1
    assert [desk.waiting(code) for code in codes] == [[], [], []]
    assert desk.mailed(person) == [["welcome"]]


def test_the_first_of_two_requests_counts_when_they_are_served_together(
        one, people):
    first, second = one.create(5), one.create(5)
    other, person = people(2)
    one.instance.ctl("pause", "invitation")
    one.ask(second, other)
    one.ask(first, person)
    one.ask(second, person)
    one.instance.ctl("resume", "invitation")
    one.settle()
    assert one.places(first) == {1: person}
    assert one.places(second) == {1: other}
    assert one.mailed(person) == [["welcome"]]


def test_without_mongodb_requests_are_taken_and_served_later(one, people, even):
    mongo = one.instance.place.mongo()
    if mongo.process is None:
        pytest.skip("SLUICE_MONGO_URI is not ours to stop")
    code = one.create(10)
    asked = people(30)
    before = one.instance.counters("invitation")
    mongo.kill()
    one.ask_all(code, asked)
    # Nothing else minds.
    one.instance.accept([even])
    one.instance.wait_stored([even])
    wait_for(lambda: one.instance.metrics()[("sluice_mongo_up", ())] == 0,
             "it is noticed")
    counters = one.instance.counters("invitation")
    assert counters["accepted"] - before["accepted"] == 30
    assert counters["pending"] == 30
    assert one.instance.get("/health/ready").status == 200
    done = one.instance.sluicectl("invitation", "list", check=False)
    assert done.returncode == 3 and "MongoDB" in done.stderr, done
    mongo.start()
    one.settle()
    assert one.places(code) == dict(enumerate(asked[:10], 1))
    assert one.waiting(code) == asked[10:]
    assert one.mailed(*asked) == [["welcome"]] * 10 + [["apology"]] * 20
    assert one.instance.metrics()[("sluice_mongo_up", ())] == 1


# --- sluicectl invitation ------------------------------------------------------

def test_sluicectl_creates_and_tells(one, people):
    assert one.ctl("create", "spring", "--limit", 2, "--expires",
                   "2036-12-24T18:00:00Z") == {"code": "spring", "limit": 2}
    assert "autumn: 1000 places" in one.instance.sluicectl(
        "invitation", "create", "autumn", "--limit", 1000).stdout
    asked = people(3)
    one.ask_all("spring", asked)
    one.settle()
    spring = one.ctl("show", "spring")
    assert spring == {
        "code": "spring", "limit": 2,
        "expires_at": "2036-12-24T18:00:00.000Z", "places": 2, "waiting": 1,
        "refused": 0, "mails": {"queued": 0, "sent": 3, "refused": 0,
                                "given_up": 0, "skipped": 0}}
    text = one.instance.sluicectl("invitation", "show", "spring").stdout
    assert "places      2 of 2" in text and "waiting     1" in text
    listed = {row["code"]: row for row in one.ctl("list")["invitations"]}
    assert listed["spring"] == spring
    assert listed["autumn"]["expires_at"] is None
    assert len(listed) == one.db.invitations.count_documents({})
    lines = one.instance.sluicectl("invitation", "list").stdout.splitlines()
    assert len(lines) == 1 + len(listed)
    assert any(line.split() == ["autumn", "1000", "0", "0", "never"]
               for line in lines)
    rows = [line.split(",") for line in one.instance.sluicectl(
        "invitation", "export", "spring").stdout.splitlines()]
    assert rows[0] == ["code", "place", "email", "accepted_at", "request_id"]
    assert [row[:3] for row in rows[1:]] == [
        ["spring", "1", asked[0]], ["spring", "2", asked[1]]]


def test_sluicectl_explains_what_became_of_a_request(one, people):
    code = one.create(1)
    first, second, lost = people(3)
    ids = [one.ask(code, first), one.ask(code, second),
           one.ask("never-created", lost), one.ask(code, first)]
    one.settle()
    said = [one.instance.sluicectl("explain", i, check=False) for i in ids]
    assert [done.returncode for done in said] == [0, 0, 0, 1]
    lines = [[line.split(None, 1) for line in done.stdout.splitlines()]
             for done in said]
    assert ["invitation", code] in lines[0]
    assert ["place", "1,"] in [[k, v.split()[0]] for k, v in lines[0]]
    assert ["mail", "welcome: sent"] in lines[0]
    assert ["invitation", code] in lines[1]
    assert "waiting" in [line[0] for line in lines[1]]
    assert ["mail", "apology: sent"] in lines[1]
    assert ["invitation", "never-created"] in lines[2]
    assert ["mail", "unknown: sent"] in lines[2]
    assert "invitation" not in [line[0] for line in lines[3]]
    # For programs: one document, and the same status.
    done = [one.instance.sluicectl("--json", "explain", i, check=False)
            for i in ids]
    assert [one_.returncode for one_ in done] == [0, 0, 0, 1]
    documents = [json.loads(one_.stdout) for one_ in done]
    assert [d["id"] for d in documents] == ids
    assert "invitation" not in documents[3]
    invitations = [d["invitation"] for d in documents[:3]]
    times = [invitation.pop("since") for invitation in invitations]
    assert times[0] and times[1] and times[2] is None
    assert invitations == [
        {"code": code, "place": 1, "waiting": False,
         "mails": [{"kind": "welcome", "state": "sent"}]},
        {"code": code, "place": None, "waiting": True,
         "mails": [{"kind": "apology", "state": "sent"}]},
        {"code": "never-created", "place": None, "waiting": False,
         "mails": [{"kind": "unknown", "state": "sent"}]}]
    # Without a dispatcher too.
    one.instance.sluiced.stop()
    alone = one.instance.sluicectl("--json", "explain", ids[0], check=False)
    one.instance.sluiced.start()
    assert alone.returncode == 0, alone
    assert json.loads(alone.stdout)["invitation"]["place"] == 1


def test_sluicectl_imports_what_it_exports(one, tmp_path):
    old, new = f"old-{next(COUNTER)}", f"new-{next(COUNTER)}"
    one.ctl("create", old, "--limit", 7)
    file = tmp_path / "codes.csv"
    file.write_text("code,limit,expires_at\n"
                    f"{old},9,\n{new},1000,2036-01-02T03:04:05Z\r\n\n"
                    f"{new}-b,1\n")
    done = one.instance.sluicectl("invitation", "import", file)
    assert "2 created" in done.stdout
    exported = one.instance.sluicectl("invitation", "export").stdout
    lines = exported.splitlines()
    assert lines[0] == "code,limit,expires_at"
    assert f"{old},7," in lines  # what is there already stays
    assert f"{new},1000,2036-01-02T03:04:05.000Z" in lines
    assert f"{new}-b,1," in lines
    # All of it can be read again; a bad line anywhere, and nothing is done.
    file.write_text(exported)
    assert "0 created" in one.instance.sluicectl("invitation", "import",
                                                 file).stdout
    for bad in ("Bad,1,", "good,0,", "good,1001,", "good,x,", "good",
                "good,1,tomorrow", "good,1,,", "x" * 300 + ",1,"):
        file.write_text(f"{new}-c,1,\n{bad}\n")
        done = one.instance.sluicectl("invitation", "import", file,
                                      check=False)
        assert done.returncode == 1 and "line 2" in done.stderr, (bad, done)
    assert one.db.invitations.find_one({"_id": f"{new}-c"}) is None


@pytest.mark.parametrize("status, words", [
    (2, ""), (2, "create"), (2, "create x"), (2, "create x --limit"),
    (2, "create x --limit 0"), (2, "create x --limit 1001"),
    (2, "create x --limit 1x"), (2, "create X --limit 1"),
    (2, "create x --limit 1 --expires soon"), (2, "create x --size 1"),
    (1, "create taken --limit 1"), (2, "limit taken"), (2, "limit taken 0"),
    (1, "limit not-there 5"), (2, "limit Taken 5"), (1, "show not-there"),
    (2, "show"), (2, "show Not_A_Code"), (2, "list all"), (2, "revoke"),
    (2, "revoke nobody"), (1, "import /not/there.csv"),
    (2, "export Not_A_Code"), (2, "delete taken")])
def test_sluicectl_says_what_is_wrong(one, status, words):
    if one.db.invitations.find_one({"_id": "taken"}) is None:
        one.ctl("create", "taken", "--limit", 5)
    done = one.instance.sluicectl("invitation", *words.split(), check=False)
    assert done.returncode == status, done
    assert done.stderr and not done.stdout, done
    assert one.ctl("show", "taken")["limit"] == 5
    assert one.db.invitations.find_one({"_id": "x"}) is None


# --- Two dispatchers -----------------------------------------------------------

class Pair:
    """Two instances, nodes 1 and 2, each with its own web server, journal and
    dispatcher, on the same MongoDB and mail server."""

    def __init__(self, place, webs=("lighttpd", "lighttpd"), conf=None):
        first = Desk(place, webs[0], keep=False,
                     conf={"node.id": 1, **(conf or {})})
        second = Desk(place, webs[1], beside=first,
                      conf={"node.id": 2, **(conf or {})})
        self.desks, self.first = (first, second), first
        for desk in self.desks:
            desk.instance.watch_arrivals("invitation")

    def close(self):
        for desk in reversed(self.desks):
            desk.close()

    def ports(self):
        return [desk.instance.port for desk in self.desks]

    def settle(self, people):
        """Each of the people has been served, and written to."""
        seconds = 15 * harness.DEADLINE_S
        for desk in self.desks:
            desk.instance.wait_idle(seconds, "invitation")
        # A count in MongoDB costs it more than the mails do.
        wait_for(lambda: len({entry["message_id"] for entry in
                              self.first.mail.log()}) >= people,
                 "the mails have left", seconds, 0.5)
        self.first.settle(seconds)


def check_allocation(pair, code, limit, load):
    """Of people who asked once each, exactly the first of each dispatcher have
    the places."""
    db = pair.first.db
    places = list(db.registrations.find({"code": code}))
    waiting = list(db.waitlist.find(
        {"code": code}, {"_id": False, "key": True, "request_id": True}))
    assert sorted(row["slot"] for row in places) == list(range(1, limit + 1))
    asked = {request_id: email for request_id, (_, email)
             in load.accepted.items()}
    assert len(places) + len(waiting) == len(asked)
    assert {row["request_id"]: row["_id"] for row in places} | {
        row["request_id"]: row["key"] for row in waiting} == asked
    slots = {row["request_id"]: row["slot"] for row in places}
    shares = []
    for desk in pair.desks:
        arrived = desk.instance.arrivals()
        got = [slots[i] for i in arrived if i in slots]
        assert got == sorted(got), "lower slots first"
        assert all(i in slots for i in arrived[:len(got)]), \
            "who came before has a place"
        shares.append(len(got))
    print(f"{limit} places: {shares} at the dispatchers, {len(waiting)} wait")
    return {row["_id"]: f"<{row['request_id']}.welcome@sluice.example>"
            for row in places} | {
        row["key"]: f"<{row['request_id']}.apology@sluice.example>"
        for row in waiting}


def check_mails(pair, wanted, once):
    """wanted: the Message-ID of each address. Nobody gets another one."""
    got = collections.defaultdict(list)
    for entry in pair.first.mail.log():
        assert len(entry["to"]) == 1, entry
        got[entry["to"][0]].append(entry["message_id"])
    assert got.keys() == wanted.keys()
    wrong = {person: ids for person, ids in got.items()
             if set(ids) != {wanted[person]}}
    assert not wrong, dict(list(wrong.items())[:5])
    repeats = sum(len(ids) - 1 for ids in got.values())
    print(f"{len(got)} people have their mail, {repeats} of them once more")
    assert not once or repeats == 0
    mails = pair.first.db.mails
    assert mails.count_documents({"state": "sent"}) == len(wanted)
    assert mails.count_documents({}) == len(wanted)


def test_a_second_journal_of_a_node_sends_none_of_its_mails(place, people):
    first = Desk(place, conf={"node.id": 3, "mail.max_per_s": 5})
    second = Desk(place, beside=first, conf={"node.id": 3})
    dispatcher = second.instance.sluiced
    wait_for(lambda: "event=node_taken" in dispatcher.log_text(),
             "the second is told that the node is taken")
    crowd = people(25)
    first.ask_all(first.create(25), crowd)
    first.settle()
    assert first.mailed(*crowd) == [["welcome"]] * 25
    second.close()
    first.close()


@pytest.fixture
def make_pair(place, request):
    """make_pair(webs): it is closed when the test ends."""
    made = []

    def make_one(*arguments):
        made.append(Pair(place, *arguments))
        for k, desk in enumerate(made[-1].desks):
            request.node.funcargs[f"instance {k}"] = desk.instance
        return made[-1]

    yield make_one
    for pair in made:
        pair.close()


def test_20_000_people_for_1000_places(make_pair, people):
    pair = make_pair(("lighttpd", "mod_proxy_fcgi"))
    code = pair.first.create(PLACES)
    load = Applicants(pair.ports(), [(code, p) for p in people(PEOPLE)],
                      CONNECTIONS)
    began = time.monotonic()
    asyncio.run(load.run())
    print(f"{PEOPLE} accepted in {time.monotonic() - began:.1f} s")
    assert load.statuses == {202: PEOPLE}
    pair.settle(PEOPLE)
    print(f"written to in {time.monotonic() - began:.1f} s")
    check_mails(pair, check_allocation(pair, code, PLACES, load), once=True)


async def kill_dispatchers(pair, times, chance):
    """kill -9 of each, as often, one after the other."""
    for _ in range(times):
        for desk in pair.desks:
            await asyncio.sleep(chance.uniform(0.1, 0.6))
            await asyncio.to_thread(desk.instance.restart_sluiced)


async def hurt(pair, load, chance):
    """Under the load: the dispatchers are killed while MongoDB is there, while
    it is away, and while it has everything to make up for."""
    mongo = pair.first.instance.place.mongo()
    asking = asyncio.create_task(load.run())
    few = KILLS // 3
    await kill_dispatchers(pair, few, chance)
    await asyncio.to_thread(mongo.kill)
    back = time.monotonic() + AWAY_S
    await kill_dispatchers(pair, few, chance)
    await asyncio.sleep(max(0, back - time.monotonic()))
    await asyncio.to_thread(mongo.start)
    await kill_dispatchers(pair, KILLS - 2 * few, chance)
    await asking


def test_nothing_is_lost_or_doubled_by_kills_and_an_outage(make_pair, people):
    pair = make_pair()
    if pair.first.instance.place.mongo().process is None:
        pytest.skip("SLUICE_MONGO_URI is not ours to stop")
    seed = random.randrange(10 ** 6)
    print(f"seed {seed}")
    code = pair.first.create(KILLED_PLACES)
    load = Applicants(pair.ports(), [(code, p) for p in people(KILLED_PEOPLE)],
                      CONNECTIONS, pause_s=0.2)
    asyncio.run(hurt(pair, load, random.Random(seed)))
    assert load.statuses == {202: KILLED_PEOPLE}
    pair.settle(KILLED_PEOPLE)
    check_mails(pair, check_allocation(pair, code, KILLED_PLACES, load),
                once=False)
