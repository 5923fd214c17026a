"""The messages of `make torture`: a bad provider, clients, and what must hold
of them in the end."""
import collections
import uuid

import harness
from load import Senders

SECRET = "the-secret-of-torture"
FINAL = ("DELIVERED", "FAILED")
# What may follow what, in table sms.
MOVES = {("ACCEPTED", "CONFIRMED"), ("ACCEPTED", "FAILED"),
         ("ACCEPTED", "DELIVERED"), ("CONFIRMED", "FAILED"),
         ("CONFIRMED", "DELIVERED")}
BITS = {"ACCEPTED": 1, "CONFIRMED": 2, "FAILED": 4, "DELIVERED": 8}
# A third of its requests are in trouble, so that one batch of 25 is given up.
TROUBLES = {"fail": 0.14, "reset": 0.04, "garbage": 0.02, "redirect": 0.02,
            "hang": 0.02, "lost": 0.06, "late": 0.02, "twice": 0.04}
PROVIDER = {**TROUBLES, "refuse": ["poison"], "answer_ms": (5, 60),
            "late_ms": (1000, 2000), "confirm_ms": (0, 300),
            "final_ms": (50, 600), "fail_messages": 0.1, "early": 0.05,
            "reorder": 0.05, "duplicate": 0.2, "stray": 0.1}
CONF = {"sms.batch_size": 20, "sms.max_delay_ms": 300, "sms.max_attempts": 3,
        "sms.retry_base_ms": 50, "sms.timeout_ms": 1500,
        "sms.webhook_secrets": SECRET}
# Every change that a message's row ever sees.
WATCH_SQL = """
CREATE TABLE torture_moves (id uuid, before text, after text);
CREATE FUNCTION torture_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO torture_moves VALUES (OLD.id, OLD.status,
        CASE WHEN TG_OP = 'UPDATE' THEN NEW.status ELSE 'deleted' END);
    RETURN NULL;
END $$;
CREATE TRIGGER torture_note AFTER UPDATE OR DELETE ON sms
    FOR EACH ROW EXECUTE FUNCTION torture_note();
"""


class PostsOfUpdates:
    """The provider's posts, as a load like the clients'."""

    def __init__(self, provider):
        self.provider = provider

    @property
    def statuses(self):
        return collections.Counter({
            int(status): count for status, count in
            self.provider.summary()["updates_statuses"].items()})


class Sms:
    """check(good, what): notes what holds."""

    def __init__(self, instance, check, seed):
        self.instance, self.check = instance, check
        self.provider = harness.SmsProvider(instance, updates=True, seed=seed,
                                            **PROVIDER).start()
        instance.write_conf(sms__url=self.provider.url)
        self.senders = Senders(instance.port, seed=seed)
        self.updates = PostsOfUpdates(self.provider)

    def started(self):
        """The tables are there."""
        self.instance.sql(WATCH_SQL)

    def settled(self):
        """What was accepted is stored or dead, what was reported applied. In
        this order: no messages, no updates."""
        return (self.instance.is_idle("sms")
                and self.provider.summary()["updates_waiting"] == 0
                and self.instance.is_idle("sms_status"))

    def dead(self):
        """{id: reason}"""
        return {str(uuid.UUID(bytes=row["id"])): row["reason"]
                for row in self.instance.journal_rows(
                    "SELECT id, reason FROM dead WHERE service = 'sms'")}

    def rows(self):
        return {row[0]: row[1:] for row in self.instance.sql(
            "SELECT id::text, phone_number, content, status, seen_states,"
            " batch_id::text FROM sms")}

    # Before the dead letters are retried

    def account(self):
        messages, rows, dead = self.senders.messages, self.rows(), self.dead()
        summary = self.provider.summary()
        counters = self.instance.counters("sms")
        states = collections.Counter(
            "dead" if i in dead else rows[i][2] if i in rows else "lost"
            for i in messages)
        print(f"{len(messages)} messages acknowledged: {dict(states)}, in "
              f"{summary['requests']} requests {summary['verdicts']}; GET: "
              f"{dict(self.senders.looks)}")
        print(f"ledger of the messages: {counters}")
        self.check(messages.keys() == rows.keys() | dead.keys(),
                   "each acknowledged message is stored or dead, and no other: "
                   f"{states['lost']} lost")
        self.check(not rows.keys() & dead.keys(), "no message is both")
        self.check(all(rows[i][2] in FINAL for i in rows),
                   "each that is stored has a final status")
        self.check(all(dead.values()), "each dead message has a reason")
        self.check(counters["accepted"] == len(messages)
                   and counters["final"] == len(rows)
                   and counters["dead"] == len(dead)
                   and counters["pending"] == counters["outcomes"] == 0,
                   "the ledger of the messages balances, nothing is left")
        self.check_variety(summary["verdicts"], dead)

    def check_variety(self, verdicts, dead):
        log = self.provider.log()
        seen = {entry["trouble"] for entry in log} | verdicts.keys()
        wanted = {*TROUBLES, "repeated", "refused", "taken"}
        reasons = set(dead.values())
        self.check(wanted <= seen and "HTTP 400" in reasons
                   and len(reasons) > 1,
                   f"some of each trouble and death {wanted - seen} {reasons}")

    # After it

    def dead_batches(self):
        """[(one member, how many there are)] of each batch that was given up.
        A message that was refused is in none."""
        return [(str(uuid.UUID(bytes=row["id"])), row["members"])
                for row in self.instance.journal_rows(
                    "SELECT min(id) AS id, count(*) AS members FROM dead"
                    " JOIN batch_member ON message = id"
                    " WHERE service = 'sms' GROUP BY batch")]

    def retry(self, *what):
        """How many went back into the queue."""
        return self.instance.ctl("dead", "retry", *what)["retried"]

    def retry_the_dead(self):
        """The provider is well again and takes everything."""
        dead, batches = self.dead(), self.dead_batches()
        self.provider.set(**dict.fromkeys(TROUBLES, 0), refuse=[])
        wrong = [(one, members) for one, members in batches
                 if self.retry(one) != members]
        self.check(batches and not wrong, f"{len(batches)} dead batches: one "
                   f"message retried brings the others back {wrong[:5]}")
        rest = len(dead) - sum(members for _, members in batches)
        self.check(self.retry("all", "sms") == rest,
                   f"{len(dead)} dead messages are retried")
        try:
            harness.wait_for(self.settled, "the messages have ended", 120)
        except AssertionError:
            pass
        self.check_messages()
        self.check_what_was_sent()
        self.check_moves()
        self.check_updates()

    def check_messages(self):
        messages, rows = self.senders.messages, self.rows()
        taken = self.provider.messages()
        counters = self.instance.counters("sms")
        self.check(messages.keys() == rows.keys() == taken.keys()
                   and not self.dead(),
                   "with the dead letters retried, every message is sent and "
                   "stored")
        self.check(all(rows[i][:2] == messages[i] for i in messages
                       if i in rows)
                   and all((m["phone_number"], m["message"]) == messages[i]
                           for i, m in taken.items() if i in messages),
                   "sent and stored as it was accepted")
        self.check(all(rows[i][2] == m["final"] for i, m in taken.items()
                       if i in rows),
                   "the status of each is the provider's last word")
        # None: it was known to be sent from a status update only.
        self.check(all(rows[i][4] in (None, m["key"]) for i, m in
                       taken.items() if i in rows),
                   "stored with the batch that the provider took")
        self.check(counters["accepted"] == counters["final"] == len(messages)
                   and counters["pending"] == counters["outcomes"]
                   == counters["dead"] == 0,
                   "the ledger of the messages balances without dead ones")
        self.check(not self.senders.backwards and self.senders.looks[404] == 0,
                   "GET: no status went back, no message was unknown "
                   f"{self.senders.backwards[:5]}")

    def check_what_was_sent(self):
        summary = self.provider.summary()
        self.check(not summary["two_keys"] and not summary["changed"]
                   and not summary["malformed"],
                   "what the provider saw twice came under the same key with "
                   "the same body")
        self.check(summary["requests"] < len(self.senders.messages) / 3,
                   f"{summary['requests']} requests: batches pay")

    def check_moves(self):
        moves = self.instance.sql("SELECT id::text, before, after FROM"
                                  " torture_moves WHERE before <> after")
        wrong = [move for move in moves if move[1:] not in MOVES]
        ended = collections.Counter(i for i, _, after in moves
                                    if after in FINAL)
        self.check(not wrong, f"no state went back {wrong[:5]}")
        self.check(ended.keys() == self.senders.messages.keys()
                   and set(ended.values()) == {1},
                   "each message came to a final status once")

    # Updates

    def reason(self, message_id, status):
        """Why the update is an error; None: it is none."""
        message = self.provider_messages.get(message_id)
        if message is not None:
            late = message["reordered"] and status == "CONFIRMED"
            return f"CONFIRMED after {message['final']}: a final state is " \
                "never overwritten" if late else None
        if message_id.startswith("nobody-"):
            return "not a message id"
        return "unknown message" if status in BITS \
            else "not a status that we know"

    def check_updates(self):
        self.provider_messages = self.provider.messages()
        posts = self.provider.updates()
        counters = self.instance.counters("sms_status")
        errors = {row[:3]: row[3] for row in self.instance.sql(
            "SELECT update_id::text, message_id, status, reason"
            " FROM sms_update_errors")}
        acknowledged = [(post["id"], i, status) for post in posts
                        if post["status"] == 202
                        for i, status in post["updates"].items()]
        accepted = {post["id"] for post in posts if post["status"] == 202}
        print(f"{len(acknowledged)} updates acknowledged in {len(accepted)} "
              f"of {len(posts)} posts, {len(errors)} are errors: "
              f"{dict(collections.Counter(errors.values()))}")
        print(f"ledger of the updates: {counters}")
        self.check_errors(acknowledged, errors)
        self.check_applied(acknowledged)
        self.check(len(accepted) <= counters["accepted"] <= len(posts)
                   and counters["accepted"] == counters["final"]
                   and counters["pending"] == counters["outcomes"]
                   == counters["dead"] == 0,
                   "the ledger of the updates balances, nothing is left")
        left = self.instance.sql("SELECT count(*) FROM sms_early")[0][0]
        self.check(left == 0, f"no update waits for its message: {left}")

    def check_errors(self, acknowledged, errors):
        wanted = {(update, i, status): self.reason(i, status)
                  for update, i, status in acknowledged}
        missing = [key for key, reason in wanted.items()
                   if reason != errors.get(key)]
        # Posts whose answer was lost have errors, too.
        wrong = [(key, reason) for key, reason in errors.items()
                 if reason != self.reason(*key[1:])]
        self.check(not missing, "each update that could not be applied is an "
                   f"error with its reason, and no other {missing[:5]}")
        self.check(not wrong, "no other update is an error, and each reason "
                   f"is right {wrong[:5]}")
        self.check(len(set(errors.values())) == 5,
                   "some of each error")

    def check_applied(self, acknowledged):
        """A state that was before a final one is in seen_states."""
        seen = {i: row[3] for i, row in self.rows().items()}
        lost = [(update, i, status) for update, i, status in acknowledged
                if i in seen and self.reason(i, status) is None
                and not seen[i] & BITS[status]]
        wrong = [i for i, m in self.provider_messages.items()
                 if m["reordered"] and seen.get(i, 0) & BITS["CONFIRMED"]]
        self.check(not lost, "each acknowledged update is applied or an error "
                   f"{lost[:5]}")
        self.check(not wrong, f"no error was applied, too {wrong[:5]}")
