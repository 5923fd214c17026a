"""Many clients at once, over asyncio and sockets: for the tests that need more
than one request at a time, the torture and the bench."""
import asyncio
import collections
import json
import random

from harness import Reply, ids_body, parse_http


def request_bytes(method, path, body=b"", key=None):
    head = (f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n")
    if key is not None:
        head += f"Idempotency-Key: {key}\r\n"
    return head.encode() + b"\r\n" + body


async def ask_once(port, data, seconds=120):
    """The reply to one request on a connection of its own; status 0: none."""
    try:
        reply = await asyncio.wait_for(_ask(port, data), seconds)
    except (OSError, asyncio.TimeoutError, EOFError):
        reply = b""
    return parse_http(reply) if reply else Reply(0, [], b"")


async def _ask(port, data):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await reader.read()
    finally:
        writer.close()


async def post_once(port, ids, key=None, seconds=120):
    """Status of one POST /callback."""
    data = request_bytes("POST", "/callback", ids_body(ids), key)
    return (await ask_once(port, data, seconds)).status


async def _all_at_once(port, requests):
    return await asyncio.gather(*(post_once(port, ids) for ids in requests))


def post_at_once(port, requests):
    """POST all of them at the same time; their statuses, in order."""
    return asyncio.run(_all_at_once(port, requests))


async def _accept_all(port, path, bodies, clients):
    replies = [None] * len(bodies)
    left = iter(enumerate(bodies))

    async def client():
        for number, body in left:
            data = request_bytes("POST", path, body, f"all-{number}")
            while replies[number] is None:
                reply = await ask_once(port, data, 30)
                assert reply.status in (0, 202, 503), reply
                if reply.status == 202:
                    replies[number] = reply
                else:
                    await asyncio.sleep(0.02)

    await asyncio.gather(*(client() for _ in range(clients)))
    return replies


def accept_all(port, path, bodies, clients=32):
    """POST each body, again with the same Idempotency-Key until it is
    accepted; the replies, in order."""
    return asyncio.run(_accept_all(port, path, bodies, clients))


class Clients:
    """clients tasks that post until stop is set. A request that is not
    accepted is counted under its status (0: no answer) and, when retry is set,
    repeated with the same Idempotency-Key until it is accepted."""

    def __init__(self, port, make_ids, clients=8, retry=True, pause_s=0.0):
        self.port, self.make_ids = port, make_ids
        self.clients, self.retry, self.pause_s = clients, retry, pause_s
        self.acknowledged = []  # ids of every accepted request
        self.statuses = collections.Counter()
        self.on_failure = lambda status: None
        self.stopping = False
        self.made = 0

    async def client(self):
        while not self.stopping:
            self.made += 1
            key, ids = f"load-{self.made}", self.make_ids()
            while True:
                status = await post_once(self.port, ids, key, 30)
                self.statuses[status] += 1
                if status == 202:
                    self.acknowledged.append(ids)
                    break
                self.on_failure(status)
                await asyncio.sleep(0.02)
                if not self.retry:
                    break
            if self.pause_s:
                await asyncio.sleep(self.pause_s)

    async def run(self):
        await asyncio.gather(*(self.client() for _ in range(self.clients)))

    def failed(self):
        return sum(n for s, n in self.statuses.items() if s != 202)

    def acknowledged_ids(self):
        return {i for ids in self.acknowledged for i in ids}


class Callers:
    """Tasks that trigger calls in bursts, each one call after the other, and
    cancel some while they wait or are dialled. What is not accepted is
    repeated with the same Idempotency-Key. Every call has a phone number of
    its own. cancels: the share of calls that somebody wants canceled."""

    def __init__(self, port, callers=3, burst=25, pause_s=4.0, cancels=0.3,
                 seed=1):
        self.port, self.callers = port, callers
        self.burst, self.pause_s, self.cancels = burst, pause_s, cancels
        self.random = random.Random(seed)
        self.acknowledged = [[] for _ in range(callers)]  # ids, in order
        self.phones = {}  # by id
        self.statuses = collections.Counter()
        self.cancel_statuses = collections.Counter()
        self.cancel_asked, self.canceled = set(), set()
        self.cancel_tasks = set()
        self.stopping = False
        self.made = 0

    async def trigger(self):
        """Until it is accepted; the call's id."""
        self.made += 1
        phone = f"+1415{self.made:07d}"
        data = request_bytes(
            "POST", "/trigger", json.dumps(
                {"phone_number": phone, "virtual_agent_id": "a"}).encode(),
            f"call-{self.made}")
        while True:
            reply = await ask_once(self.port, data, 30)
            self.statuses[reply.status] += 1
            if reply.status == 202:
                call_id = reply.json()["call_id"]
                self.phones[call_id] = phone
                return call_id
            await asyncio.sleep(0.02)

    async def cancel(self, call_id, delay_s):
        """Ask once: a request that failed may have canceled it, too."""
        await asyncio.sleep(delay_s)
        self.cancel_asked.add(call_id)
        reply = await ask_once(
            self.port, request_bytes("DELETE", f"/calls/{call_id}"), 30)
        self.cancel_statuses[reply.status] += 1
        if reply.status == 200:
            self.canceled.add(call_id)

    async def caller(self, acknowledged):
        while not self.stopping:
            for _ in range(self.random.randint(1, self.burst)):
                call_id = await self.trigger()
                acknowledged.append(call_id)
                if self.random.random() < self.cancels:
                    # At once, or while it waits, or after its turn.
                    task = asyncio.create_task(self.cancel(
                        call_id, self.random.choice((0, 0.005, 0.1, 1))))
                    self.cancel_tasks.add(task)
                if self.stopping:
                    return
            await asyncio.sleep(self.random.uniform(0, self.pause_s))

    async def run(self):
        await asyncio.gather(*map(self.caller, self.acknowledged))
        await asyncio.gather(*self.cancel_tasks)


class Senders:
    """Tasks that post messages, each again with the same Idempotency-Key until
    it is accepted, and one that looks at messages: what it is told may never go
    back. poison: the share of messages with that word in them."""

    RANKS = {"ACCEPTED": 0, "CONFIRMED": 1, "FAILED": 2, "DELIVERED": 2}
    RECENT = 300

    def __init__(self, port, senders=8, pause_s=0.05, poison=0.003, seed=1):
        self.port, self.senders, self.pause_s = port, senders, pause_s
        self.random, self.poison = random.Random(seed), poison
        self.messages = {}  # (number, content) by id
        self.ids = []  # in the order of their acknowledgements
        self.statuses = collections.Counter()
        self.looks = collections.Counter()
        self.shown = {}  # the latest status by id
        self.backwards = []
        self.stopping = False
        self.made = 0

    def make(self):
        self.made += 1
        word = "poison" if self.random.random() < self.poison else "message"
        return f"+1415{self.made:07d}", f"This is {word} {self.made} \u20ac\n"

    async def send(self):
        """Until it is accepted."""
        number, content = self.make()
        data = request_bytes(
            "POST", "/sms", json.dumps(
                {"phone_number": number, "content": content}).encode(),
            f"sms-{self.made}")
        while True:
            reply = await ask_once(self.port, data, 30)
            self.statuses[reply.status] += 1
            if reply.status == 202:
                self.messages[reply.json()["id"]] = number, content
                self.ids.append(reply.json()["id"])
                return
            await asyncio.sleep(0.02)

    async def sender(self):
        while not self.stopping:
            await self.send()
            await asyncio.sleep(self.random.uniform(0, 2 * self.pause_s))

    async def watch(self):
        """One look at a time: two answers might overtake each other."""
        while not self.stopping:
            if self.ids:
                await self.look(self.random.choice(self.ids[-self.RECENT:]))
            await asyncio.sleep(self.pause_s)

    async def look(self, message_id):
        reply = await ask_once(
            self.port, request_bytes("GET", f"/sms/{message_id}"), 30)
        self.looks[reply.status] += 1
        if reply.status != 200:
            return
        before = self.shown.get(message_id, "ACCEPTED")
        now = reply.json()["status"]
        self.shown[message_id] = now
        if now != before and self.RANKS[now] <= self.RANKS[before]:
            self.backwards.append((message_id, before, now))

    async def run(self):
        await asyncio.gather(self.watch(),
                             *(self.sender() for _ in range(self.senders)))


class Applicants:
    """Tasks that ask for places, clients of them, on connections that stay
    open, in turn to each of the ports; what is not accepted is repeated with
    the same Idempotency-Key. requests: (code, e-mail address) of each, taken in
    this order; anything that can be iterated over."""

    def __init__(self, ports, requests, clients=64, name="ask", pause_s=0.0):
        self.ports, self.clients, self.name = ports, clients, name
        self.pause_s = pause_s
        self.left = iter(enumerate(requests))
        self.accepted = {}  # (code, address) by id
        self.statuses = collections.Counter()
        self.stopping = False

    async def run(self):
        await asyncio.gather(*(self.client(self.ports[k % len(self.ports)])
                               for k in range(self.clients)))

    async def client(self, port):
        connection = KeptConnection(port)
        for number, (code, email) in self.left:
            data = kept_request_bytes(f"/invitations/{code}",
                                      json.dumps({"Email": email}).encode(),
                                      f"{self.name}-{number}")
            reply = await self.until_accepted(connection, data)
            if reply is None:
                break
            self.accepted[reply.json()["id"]] = code, email
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
            if self.stopping:
                break
        connection.close()

    async def until_accepted(self, connection, data):
        while True:
            reply = await connection.ask(data)
            self.statuses[reply.status] += 1
            if reply.status == 202:
                return reply
            assert reply.status in (0, 500, 502, 503, 504), reply
            await asyncio.sleep(0.02)

    def failed(self):
        return sum(n for s, n in self.statuses.items() if s != 202)


def kept_request_bytes(path, body, key):
    return (f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"Idempotency-Key: {key}\r\n\r\n").encode() + body


class KeptConnection:
    """HTTP/1.1 with keep-alive; opened again when it is gone."""

    def __init__(self, port):
        self.port, self.reader, self.writer = port, None, None

    async def ask(self, data, seconds=60):
        """The reply; status 0: none."""
        try:
            return await asyncio.wait_for(self._ask(data), seconds)
        except (OSError, asyncio.TimeoutError, EOFError):
            self.close()
            return Reply(0, [], b"")

    async def _ask(self, data):
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(
                "127.0.0.1", self.port)
        self.writer.write(data)
        head = await self.reader.readuntil(b"\r\n\r\n")
        reply = parse_http(head)
        if "content-length" in reply.headers:
            reply.body = await self.reader.readexactly(
                int(reply.headers["content-length"]))
        else:
            reply.body = await self._chunks()
        if reply.headers.get("connection", "").lower() == "close":
            self.close()
        return reply

    async def _chunks(self):
        body = b""
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            part = await self.reader.readexactly(size + 2)
            if size == 0:
                return body
            body += part[:-2]

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader, self.writer = None, None
