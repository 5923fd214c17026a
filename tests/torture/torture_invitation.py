"""The invitations of `make torture`: people who ask for places, and what must
hold of them in the end. FerretDB is on the PostgreSQL that is stopped and
killed, and is killed itself; so is the mail server."""
import collections
import itertools
import random

import harness
from load import Applicants

CONF = {"mail.retry_base_ms": 50, "mail.pause_ms": 200,
        "mail.from": "Sluice <invitations@sluice.example>",
        "mongo.timeout_ms": 2000}
LIMITS = {"rush": 1000, "some": 50, "one": 1}
UNKNOWN = ("nowhere", "gone")
WEIGHTS = {"invitation.fcgi": 12, "mongo": 4, "smtp": 4}
# The same person for us, in other letters.
LETTERS = (str, str.upper, str.title)


class Invitations:
    """check(good, what): notes what holds."""

    def __init__(self, instance, check, seed):
        self.instance, self.check = instance, check
        self.random = random.Random(seed)
        self.mail = harness.MailServer(
            instance, keep=False, refuse=["nobody*"], defer=["later*"]).start()
        self.mongo = instance.place.mongo()
        instance.write_conf(mail__url=self.mail.url)
        self.recent = collections.deque(maxlen=300)
        self.load = Applicants([instance.port], self.requests(), clients=6,
                               name="place", pause_s=0.1)

    def started(self):
        self.instance.watch_arrivals("invitation")
        for code, limit in LIMITS.items():
            self.instance.sluicectl("invitation", "create", code, "--limit",
                                    limit)
        self.instance.sluicectl("invitation", "create", "gone", "--limit", 5,
                                "--expires", "2020-01-01T00:00:00Z")
        self.db = self.instance.mongo_database()

    def requests(self):
        """New people, and some who ask again, with another code perhaps."""
        codes = [*LIMITS, *UNKNOWN]
        for number in itertools.count():
            code, = self.random.choices(codes, (80, 10, 5, 3, 2))
            name, = self.random.choices(("p", "later", "nobody"), (92, 5, 3))
            person = f"{name}{number}@example.com"
            if self.recent and self.random.random() < 0.2:
                person = self.random.choice(self.recent)
            self.recent.append(person)
            yield code, self.random.choice(LETTERS)(person)

    def settled(self):
        """Requests have ended, refused people's places were freed and given,
        and all mails have left."""
        return (self.instance.is_idle("invitation")
                and self.db.refused.count_documents({"freed": False}) == 0
                and not any(self.is_wanted(code) for code in LIMITS)
                and self.db.mails.count_documents({"state": "queued"}) == 0)

    def is_wanted(self, code):
        """A place is free, and somebody waits."""
        some = {"code": code}
        return (self.db.registrations.count_documents(some) < LIMITS[code]
                and self.db.waitlist.find_one(some) is not None)

    # In the end

    def account(self):
        self.asked = {i: (code, email.lower()) for i, (code, email)
                      in self.load.accepted.items()}
        self.arrived = self.instance.arrivals()
        self.places = list(self.db.registrations.find())
        self.waiting = list(self.db.waitlist.find())
        self.refused = {row["_id"] for row in self.db.refused.find()}
        self.mails = {row["message_id"]: row for row in self.db.mails.find()}
        counters = self.instance.counters("invitation")
        print(f"{len(self.asked)} requests for a place acknowledged: "
              f"{len(self.places)} have one, {len(self.waiting)} wait, "
              f"{len(self.refused)} refused; {self.load.failed()} attempts "
              "failed and were repeated")
        print(f"ledger of the invitations: {counters}")
        self.check(counters["accepted"] == counters["final"]
                   == len(self.asked) and counters["pending"]
                   == counters["outcomes"] == counters["dead"] == 0,
                   "the ledger of the invitations balances, nothing is left")
        self.check(set(self.arrived) == self.asked.keys(),
                   "accepted once: a repeat with the same key is no request")
        self.check_outcomes()
        self.check_places()
        self.check_order()
        self.check_mails()

    def check_outcomes(self):
        """A mail's id tells which request it answers. Who gets none has asked
        before, or is refused; or has waited, and got a place by another
        request before the apology was made: we were killed in between."""
        answered = {message_id.split(".")[0] for message_id in self.mails}
        holders = {row["_id"] for row in self.places}
        before, outcomes, lost = set(), collections.Counter(), []
        for request_id in self.arrived:
            code, person = self.asked.get(request_id, (None, None))
            if request_id in answered:
                outcomes["answered"] += 1
            elif person in before:
                outcomes["repeated"] += 1
            elif person in self.refused:
                outcomes["refused"] += 1
            elif person in holders:
                outcomes["a place by another request"] += 1
            else:
                lost.append((request_id, code, person))
            before.add(person)
        self.check(not lost and answered <= self.asked.keys(),
                   "each request is a place, waiting, unknown, repeated or "
                   f"refused {dict(outcomes)} {lost[:5]}")

    def check_places(self):
        by_code = collections.defaultdict(list)
        for row in self.places:
            by_code[row["code"]].append(row["slot"])
        self.check(by_code.keys() <= LIMITS.keys() and all(
            1 <= min(slots) and max(slots) <= LIMITS[code]
            and len(set(slots)) == len(slots)
            for code, slots in by_code.items()),
            "never more places than there are "
            f"{ {code: len(slots) for code, slots in by_code.items()} }")
        self.check(all(len(by_code[row["code"]]) == LIMITS[row["code"]]
                       for row in self.waiting),
                   "nobody waits for a place that is free")
        self.check(not self.refused & {row["_id"] for row in self.places}
                   and not self.refused & {row["key"] for row in self.waiting},
                   "nobody who is refused has a place, or waits")
        self.check(bool(self.waiting) and bool(self.refused),
                   "some wait, and some are refused")

    def check_order(self):
        turn = {request_id: k for k, request_id in enumerate(self.arrived)}
        last, early = {}, []
        for row in self.places:
            last[row["code"]] = max(last.get(row["code"], 0),
                                    turn[row["request_id"]])
        for row in self.waiting:
            if turn[row["request_id"]] < last.get(row["code"], 0):
                early.append(row["request_id"])
        self.check(not early, "nobody waits who came before one who has a "
                   f"place {early[:5]}")

    def check_mails(self):
        taken = collections.Counter()
        strange = []
        for entry in self.mail.log():
            mail = self.mails.get(entry["message_id"].strip("<>"))
            if mail is None or entry["to"] != [mail["to"]]:
                strange.append(entry)
            taken[entry["message_id"].strip("<>")] += 1
        states = collections.Counter(m["state"] for m in self.mails.values())
        print(f"mails: {dict(states)}, {sum(taken.values()) - len(taken)} of "
              "them were sent once more")
        self.check(not strange, f"every mail is one of ours {strange[:2]}")
        sent = {i for i, mail in self.mails.items() if mail["state"] == "sent"}
        self.check(sent <= taken.keys(), "each mail that is sent was taken, "
                   f"under its Message-ID {list(sent - taken.keys())[:5]}")
        self.check(states.keys() <= {"sent", "refused", "skipped"}
                   and all(m["_id"]["email"] in self.refused
                           for m in self.mails.values()
                           if m["state"] == "refused"),
                   "no mail waits, and whose mail was refused is refused")
        holders = {row["request_id"] + ".welcome@sluice.example"
                   for row in self.places}
        people = {row["_id"] for row in self.places}
        # Refused: by the mail to the place that was theirs then.
        self.check(holders <= sent, "who has a place was told so "
                   f"{list(holders - sent)[:5]}")
        self.check(all(m["_id"]["email"] in self.refused
                       or m["_id"]["kind"] == "apology"
                       and m["_id"]["email"] in people
                       for m in self.mails.values()
                       if m["state"] == "skipped"),
                   "skipped: whoever is refused, the apology of one who has "
                   "a place")
        untold = {row["request_id"] + ".apology@sluice.example"
                  for row in self.waiting if row["key"] not in people} - sent
        self.check(not untold, "who waits and has no place elsewhere was told "
                   f"so {list(untold)[:5]}")
