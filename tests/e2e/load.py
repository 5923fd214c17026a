"""Many clients at once, over asyncio and sockets: for the tests that need more
than one request at a time, the torture and the bench."""
import asyncio
import collections

from harness import ids_body, parse_http


def post_bytes(ids, key=None):
    body = ids_body(ids)
    head = ("POST /callback HTTP/1.1\r\nHost: localhost\r\n"
            "Content-Type: application/json\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n")
    if key is not None:
        head += f"Idempotency-Key: {key}\r\n"
    return head.encode() + b"\r\n" + body


async def post_once(port, ids, key=None, seconds=120):
    """Status of one POST on a connection of its own; 0: no answer."""
    try:
        return await asyncio.wait_for(_post(port, post_bytes(ids, key)),
                                      seconds)
    except (OSError, asyncio.TimeoutError, EOFError):
        return 0


async def _post(port, data):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        reply = await reader.read(65536)
        return parse_http(reply).status if reply else 0
    finally:
        writer.close()


async def _all_at_once(port, requests):
    return await asyncio.gather(*(post_once(port, ids) for ids in requests))


def post_at_once(port, requests):
    """POST all of them at the same time; their statuses, in order."""
    return asyncio.run(_all_at_once(port, requests))


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
