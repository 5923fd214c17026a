#!/usr/bin/python3
"""A call provider with a strict limit: POST /originate_call.

At most --count requests in any window of --window-ms, counted when they arrive
(--count-at arrival) or when they are answered. One more is 429 at once, and
locks everybody out for --lockout-ms; a request during that is 429, too, and
the time begins anew. An answer takes --answer-ms A B.

    GET  /sim/log       every request, in the order of looking at them
    GET  /sim/summary   {"requests", "answered", "refused", "most_in_window",
                         "keys_twice", "phones_twice"}
    POST /sim/set       {"count": 3, "fail": 0.2, ...}: change the options

With --kernel-time 1 a request arrives when the kernel has its bytes (in ticks
of some ms), however long this process then waits for its turn on a machine
that is busy with something else; late_ms in the log is the difference.

fail, hang, garbage, redirect, reset, bad: shares of requests (0..1) that get
503, no answer at all, no HTTP, 301, a closed connection, 400.
"""
import argparse
import asyncio
import bisect
import collections
import random
import socket
import struct
import sys
import time

from aiohttp import web

# struct tcp_info (linux/tcp.h): tcpi_last_data_recv, in ms ago.
TCP_INFO_BYTES, LAST_DATA_RECV_AT = 104, 52
TROUBLES = ("fail", "hang", "garbage", "redirect", "reset", "bad")


def kernel_late_s(request):
    """For how long the kernel has had the request's last bytes."""
    connection = request.transport.get_extra_info("socket")
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO,
                                 TCP_INFO_BYTES)
    return struct.unpack_from("=I", info, LAST_DATA_RECV_AT)[0] / 1000


class Provider:
    def __init__(self, options):
        self.options = vars(options)
        self.random = random.Random(1)
        self.counted = collections.deque()  # times in the window
        self.locked_until = 0.0
        self.log = []
        self.most = 0

    def option(self, name):
        return self.options[name]

    def count(self, now):
        """Count one now; False when it is one too many."""
        window = self.option("window_ms") / 1000
        while self.counted and self.counted[0] <= now - window:
            self.counted.popleft()
        if len(self.counted) >= self.option("count"):
            return False
        bisect.insort(self.counted, now)  # ticks: not quite in order
        self.most = max(self.most, len(self.counted))
        return True

    def refuse(self, entry, now):
        self.locked_until = now + self.option("lockout_ms") / 1000
        entry["verdict"] = "refused"
        return web.Response(status=429)

    def trouble(self):
        dice = self.random.random()
        for name in TROUBLES:
            dice -= self.option(name)
            if dice < 0:
                return name
        return ""

    async def call(self, request):
        now = time.monotonic()
        # Before the body is read: the request line is the arrival.
        late_s = kernel_late_s(request) if self.option("kernel_time") else 0
        now -= late_s
        refused = now < self.locked_until or (
            self.option("count_at") == "arrival" and not self.count(now))
        entry = {"at_ms": now * 1000, "late_ms": late_s * 1000,
                 "verdict": "", "answered": False,
                 "key": request.headers.get("Idempotency-Key", "")}
        self.log.append(entry)
        entry.update(await request.json())
        if refused:
            return self.refuse(entry, now)
        entry["verdict"] = self.trouble()
        if entry["verdict"]:
            return await self.make_trouble(request, entry["verdict"])
        low, high = self.option("answer_ms")
        await asyncio.sleep(self.random.uniform(low, high) / 1000)
        now = time.monotonic()
        if self.option("count_at") == "answer" and not self.count(now):
            return self.refuse(entry, now)
        entry["verdict"], entry["answered"] = "answered", True
        return web.json_response({})

    async def make_trouble(self, request, kind):
        if kind == "fail":
            return web.Response(status=503)
        if kind == "bad":
            return web.Response(status=400)
        if kind == "redirect":
            return web.Response(status=301, headers={"Location": "/other"})
        if kind == "hang":
            await asyncio.sleep(3600)
        if kind == "garbage":
            request.transport.write(b"+OK this is not HTTP\r\n\r\n")
        request.transport.close()
        return web.Response()

    def summary(self):
        phones = collections.Counter(e.get("phone_number") for e in self.log
                                     if e["verdict"] != "refused")
        keys = collections.Counter(e["key"] for e in self.log
                                   if e["verdict"] != "refused")
        return {"requests": len(self.log),
                "answered": sum(e["answered"] for e in self.log),
                "refused": sum(e["verdict"] == "refused" for e in self.log),
                "most_in_window": self.most,
                "keys_twice": sum(n > 1 for n in keys.values()),
                "phones_twice": sum(n > 1 for n in phones.values())}

    async def show_log(self, request):
        return web.json_response(self.log)

    async def show_summary(self, request):
        return web.json_response(self.summary())

    async def set(self, request):
        self.options.update(await request.json())
        return web.json_response({})


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--count", type=int, default=25)
    parser.add_argument("--window-ms", type=float, default=10000)
    parser.add_argument("--lockout-ms", type=float, default=30000)
    parser.add_argument("--answer-ms", type=float, nargs=2,
                        default=(5000, 10000))
    parser.add_argument("--count-at", choices=("arrival", "answer"),
                        default="arrival")
    parser.add_argument("--kernel-time", type=int, default=0)
    for name in TROUBLES:
        parser.add_argument(f"--{name}", type=float, default=0)
    return parser.parse_args()


def main():
    options = parse_arguments()
    provider = Provider(options)
    app = web.Application()
    app.router.add_post("/originate_call", provider.call)
    app.router.add_get("/sim/log", provider.show_log)
    app.router.add_get("/sim/summary", provider.show_summary)
    app.router.add_post("/sim/set", provider.set)
    print(f"calls: port {options.port}", flush=True)
    web.run_app(app, host="127.0.0.1", port=options.port, print=None,
                access_log=None, shutdown_timeout=0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
