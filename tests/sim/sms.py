#!/usr/bin/python3
"""FastSMSing, simulated: a provider that bills each POST /batches.

It takes a JSON array [{"message_id", "phone_number", "message"}] with an
Idempotency-Key, once a key: a repeated key is answered 200 and not taken
again. With --updates URL it posts status updates of what it took there, in
batches, signed with --secret: CONFIRMED after --confirm-ms, and --final-ms
later DELIVERED (FAILED for --fail-messages of them), each until it gets a 2xx.

    GET  /sim/log       every request: {"at_ms", "key", "ids", "hash",
                        "trouble", "verdict", "status", "answered_ms"}
    GET  /sim/summary   counts; what it was never to see (two_keys: ids under
                        two keys that it did not refuse; changed: keys with
                        another body than before; malformed)
    GET  /sim/messages  {id: {"key", "phone_number", "message", "final",
                        "reordered", "early"}} of what it took
    GET  /sim/updates   every post of updates: {"at_ms", "updates", "status",
                        "id"}; id: the update's, once it is acknowledged
    POST /sim/set       {"fail": 0.2, "refuse": ["poison"], ...}
    POST /sim/release   end all hanging requests without an answer

Shares of requests (0..1), by what happens to them:
    not taken: fail (--fail-status), redirect (301), garbage (no HTTP), reset
        (closed at once), hang (closed after --hang-ms)
    taken: lost (closed instead of answered), late (answered after --late-ms),
        twice (two answers, one behind the other)
--refuse TEXT...: a batch with a message or number that contains one of them
is not taken, but answered --refuse-status.
Shares of taken batches: early (CONFIRMED is posted before the answer).
Shares of posts of updates: stray (with updates that nobody can use; stray()).
Shares of messages: reorder (final before CONFIRMED), duplicate (each update
is sent once more).
"""
import argparse
import asyncio
import collections
import hashlib
import heapq
import hmac
import itertools
import json
import random
import socket
import struct
import sys
import time
import uuid

import aiohttp
from aiohttp import web

UNTAKEN = ("fail", "redirect", "garbage", "reset", "hang")
TROUBLES = UNTAKEN + ("lost", "late", "twice")
SHARES = TROUBLES + ("early", "reorder", "duplicate", "fail_messages",
                     "stray")
MEMBERS = {"message_id", "phone_number", "message"}


def sign(secret, body, at_s=None):
    """The value of X-Signature for a body; tests import it."""
    at_s = int(time.time()) if at_s is None else at_s
    digest = hmac.new(secret.encode(), b"%d.%s" % (at_s, body),
                      hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


def stray(message_id, number):
    """Updates that nobody can use, for message_id's neighbours: an id that was
    never given out, a status that is none, an id that is none."""
    near = uuid.UUID(message_id).int
    unknown, strange = (str(uuid.UUID(int=near ^ (2 * number + k << 40)))
                        for k in (0, 1))
    return {unknown: "DELIVERED", strange: "EATEN",
            f"nobody-{number}": "CONFIRMED"}


def now_ms():
    return time.monotonic() * 1000


def is_batch(document):
    """As FastSMSing has it, and no message in it twice."""
    return (isinstance(document, list) and document != []
            and all(isinstance(message, dict) and message.keys() == MEMBERS
                    and all(isinstance(v, str) and v for v in message.values())
                    for message in document)
            and len({m["message_id"] for m in document}) == len(document))


class Provider:
    def __init__(self, options):
        self.options = vars(options)
        self.random = random.Random(options.seed)
        self.log = []
        self.hashes = {}  # of the first body under each key
        self.keys = collections.defaultdict(set)  # not refused, by message
        self.taken_keys = set()
        self.changed, self.malformed = [], []
        self.messages = {}
        self.hanging = set()
        self.updates = Updates(self.options, self.random)

    def option(self, name):
        return self.options[name]

    def dice(self, name):
        return self.random.random() < self.option(name)

    def trouble(self):
        dice = self.random.random()
        for name in TROUBLES:
            dice -= self.option(name)
            if dice < 0:
                return name
        return ""

    # A batch

    async def batch(self, request):
        entry = {"at_ms": now_ms(), "ids": [], "hash": "", "verdict": "",
                 "key": request.headers.get("Idempotency-Key", ""),
                 "status": None, "answered_ms": None,
                 "trouble": self.trouble()}
        self.log.append(entry)
        body = await request.read()
        batch = self.note(entry, body)
        if entry["trouble"] in UNTAKEN:
            entry["verdict"] = entry["trouble"]
            return await self.make_trouble(request, entry)
        entry["verdict"], status = self.judge(entry, batch)
        if entry["verdict"] == "taken":
            await self.take(entry["key"], batch)
        if entry["trouble"] == "lost":
            return self.cut(request)
        if entry["trouble"] == "twice" and status == 200:
            return self.answer_twice(request, entry)
        low, high = self.option(
            "late_ms" if entry["trouble"] == "late" else "answer_ms")
        await asyncio.sleep(self.random.uniform(low, high) / 1000)
        return self.answer(entry, status)

    def note(self, entry, body):
        """What any request tells, whatever comes of it. Its messages, None
        when it has none."""
        entry["hash"] = hashlib.sha256(body).hexdigest()
        try:
            batch = json.loads(body)
        except ValueError:
            batch = None
        if not is_batch(batch) or not entry["key"]:
            self.malformed.append(body[:200].decode(errors="replace"))
            return None
        entry["ids"] = [message["message_id"] for message in batch]
        for message_id in entry["ids"]:
            self.keys[message_id].add(entry["key"])
        first = self.hashes.setdefault(entry["key"], entry["hash"])
        if first != entry["hash"]:
            self.changed.append(entry["key"])
        return batch

    def judge(self, entry, batch):
        """Verdict and status."""
        if batch is None:
            return "malformed", 400
        if entry["key"] in self.taken_keys:
            return "repeated", 200
        if any(text in message["message"] or text in message["phone_number"]
               for message in batch for text in self.option("refuse")):
            for message_id in entry["ids"]:  # they are free to come again
                self.keys[message_id].discard(entry["key"])
            return "refused", self.option("refuse_status")
        return "taken", 200

    async def take(self, key, batch):
        self.taken_keys.add(key)
        early = self.dice("early")
        taken = {message["message_id"]: {
            "key": key, "phone_number": message["phone_number"],
            "message": message["message"], "early": early,
            "reordered": not early and self.dice("reorder"),
            "final": "FAILED" if self.dice("fail_messages") else "DELIVERED"}
            for message in batch}
        self.messages.update(taken)
        if early:
            await self.updates.post(dict.fromkeys(taken, "CONFIRMED"))
        for message_id, message in taken.items():
            self.updates.plan(message_id, message)

    async def make_trouble(self, request, entry):
        kind = entry["verdict"]
        if kind == "fail":
            return self.answer(entry, self.option("fail_status"))
        if kind == "redirect":
            return self.answer(entry, 301, {"Location": "/other"})
        if kind == "hang":
            release = asyncio.Event()
            self.hanging.add(release)
            try:
                await asyncio.wait_for(release.wait(),
                                       self.option("hang_ms") / 1000)
            except asyncio.TimeoutError:
                pass
            finally:
                self.hanging.discard(release)
        if kind == "garbage" and request.transport is not None:
            request.transport.write(b"+OK this is not HTTP\r\n\r\n")
        return self.cut(request, kind == "reset")

    @staticmethod
    def cut(request, reset=False):
        if request.transport is not None:
            if reset:  # an RST instead of a FIN
                request.transport.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER,
                    struct.pack("ii", 1, 0))
            request.transport.close()
        return web.Response()

    def answer_twice(self, request, entry):
        """In one piece, for on a connection that goes on nobody could tell
        the second answer from the next request's."""
        body = b"{}"
        head = b"HTTP/1.1 %d OK\r\nContent-Length: %d\r\n\r\n"
        entry["status"], entry["answered_ms"] = 200, now_ms()
        if request.transport is not None:
            request.transport.write(head % (200, len(body)) + body
                                    + head % (503, len(body)) + body)
        return self.cut(request)

    @staticmethod
    def answer(entry, status, headers=None):
        entry["status"], entry["answered_ms"] = status, now_ms()
        return web.json_response({"verdict": entry["verdict"]}, status=status,
                                 headers=headers)

    # What tests ask

    def summary(self):
        verdicts = collections.Counter(e["verdict"] for e in self.log)
        return {"requests": len(self.log), "verdicts": verdicts,
                "messages": len(self.messages),
                "two_keys": [i for i, keys in self.keys.items()
                             if len(keys) > 1],
                "changed": self.changed, "malformed": self.malformed,
                "hanging": len(self.hanging),
                "updates_waiting":
                    len(self.updates.due) + self.updates.in_flight,
                "updates_statuses": collections.Counter(
                    entry["status"] for entry in self.updates.log
                    if entry["status"] is not None)}

    async def show_log(self, _request):
        return web.json_response(self.log)

    async def show_summary(self, _request):
        return web.json_response(self.summary())

    async def show_messages(self, _request):
        return web.json_response(self.messages)

    async def show_updates(self, _request):
        return web.json_response(self.updates.log)

    async def set(self, request):
        changes = await request.json()
        unknown = changes.keys() - self.options.keys()
        if unknown:
            return web.json_response({"unknown": sorted(unknown)}, status=400)
        self.options.update(changes)
        return web.json_response({})

    async def release(self, _request):
        for release in self.hanging:
            release.set()
        return web.json_response({})


class Updates:
    """What is due when, and the task that posts it, one post at a time. A
    post's status is None while it is under way, 0 when nobody answered."""

    def __init__(self, options, dice):
        self.options, self.random = options, dice
        self.due = []  # (when, n, message id, status)
        self.numbers = itertools.count()
        self.strays = itertools.count(1)
        self.log = []
        self.in_flight = 0
        self.session = None

    def between_s(self, name):
        low, high = self.options[name]
        return self.random.uniform(low, high) / 1000

    def plan(self, message_id, message):
        confirmed = time.monotonic() + self.between_s("confirm_ms")
        final = confirmed + self.between_s("final_ms")
        if message["reordered"]:
            confirmed, final = final + 0.001, confirmed
        if not message["early"]:
            self.add(confirmed, message_id, "CONFIRMED")
        self.add(final, message_id, message["final"])

    def add(self, when, message_id, status):
        if not self.options["updates"]:
            return
        heapq.heappush(self.due,
                       (when, next(self.numbers), message_id, status))
        if self.random.random() < self.options["duplicate"]:
            heapq.heappush(self.due, (when + self.random.uniform(0, 0.5),
                                      next(self.numbers), message_id, status))

    def next_updates(self):
        """What is due, at most one for a message and no more than may be in
        one post; what is left keeps its place."""
        updates, later = {}, []
        while (self.due and self.due[0][0] <= time.monotonic()
               and len(updates) < self.options["update_batch"]):
            update = heapq.heappop(self.due)
            _, _, message_id, status = update
            if message_id in updates:
                later.append(update)
            else:
                updates[message_id] = status
        for update in later:
            heapq.heappush(self.due, update)
        return updates

    async def post(self, updates):
        """Until it is taken, as often as it needs."""
        self.in_flight += len(updates)
        await self.post_until_taken(updates)
        self.in_flight -= len(updates)

    async def post_until_taken(self, updates):
        if self.random.random() < self.options["stray"]:
            updates = {**updates,
                       **stray(next(iter(updates)), next(self.strays))}
        body = json.dumps(updates).encode()
        pause_s = 0.1
        while self.options["updates"]:
            headers = {"Content-Type": "application/json"}
            if self.options["secret"]:
                headers["X-Signature"] = sign(self.options["secret"], body)
            entry = {"at_ms": now_ms(), "updates": updates, "status": None,
                     "id": None}
            self.log.append(entry)
            try:
                async with self.session.post(self.options["updates"],
                                             data=body, headers=headers,
                                             allow_redirects=False) as answer:
                    if answer.status == 202:
                        entry["id"] = (await answer.json())["id"]
                    entry["status"] = answer.status
            except (aiohttp.ClientError, asyncio.TimeoutError):
                entry["status"] = 0
            if entry["status"] // 100 == 2:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 5)

    async def run(self, _app):
        """For the life of the application."""
        self.session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=30))
        task = asyncio.create_task(self.post_what_is_due())
        yield
        task.cancel()
        await self.session.close()

    async def post_what_is_due(self):
        while True:
            updates = self.next_updates()
            if updates:
                await self.post(updates)
            await asyncio.sleep(self.options["update_every_ms"] / 1000)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--answer-ms", type=float, nargs=2, default=(20, 100))
    parser.add_argument("--late-ms", type=float, nargs=2,
                        default=(3000, 5000))
    parser.add_argument("--hang-ms", type=float, default=3600000)
    parser.add_argument("--fail-status", type=int, default=503)
    parser.add_argument("--refuse", nargs="*", default=[], metavar="TEXT")
    parser.add_argument("--refuse-status", type=int, default=400)
    parser.add_argument("--updates", default="", metavar="URL")
    parser.add_argument("--secret", default="")
    parser.add_argument("--confirm-ms", type=float, nargs=2,
                        default=(200, 600))
    parser.add_argument("--final-ms", type=float, nargs=2,
                        default=(300, 900))
    parser.add_argument("--update-batch", type=int, default=1000)
    parser.add_argument("--update-every-ms", type=float, default=50)
    parser.add_argument("--seed", type=int, default=1)
    for name in SHARES:
        parser.add_argument(f"--{name.replace('_', '-')}", type=float,
                            default=0)
    return parser.parse_args()


def main():
    options = parse_arguments()
    provider = Provider(options)
    app = web.Application(client_max_size=1 << 26)
    app.cleanup_ctx.append(provider.updates.run)
    app.router.add_post("/batches", provider.batch)
    app.router.add_get("/sim/log", provider.show_log)
    app.router.add_get("/sim/summary", provider.show_summary)
    app.router.add_get("/sim/messages", provider.show_messages)
    app.router.add_get("/sim/updates", provider.show_updates)
    app.router.add_post("/sim/set", provider.set)
    app.router.add_post("/sim/release", provider.release)
    print(f"sms: port {options.port}", flush=True)
    web.run_app(app, host="127.0.0.1", port=options.port, print=None,
                access_log=None, shutdown_timeout=0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
