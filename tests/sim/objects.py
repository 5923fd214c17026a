#!/usr/bin/python3
"""The object server of the callback service, simulated.

    GET  /objects/{id}  {"id": N, "online": bool} after 300 ms to 4 s
    POST /sim/mode      {"mode": "500"}, {"mix": {"ok": 80, "reset": 20}},
                        {"min_ms", "max_ms", "online_percent"}: from now on
    GET  /sim/stats     what was asked: fetches a id, how many at once, ...
    POST /sim/reset     forget the statistics

Whether an object is online depends on its id only, so that a test can know:
is_online() below, even ids unless --online-percent says otherwise.
"""
import argparse
import asyncio
import collections
import os
import random
import signal
import socket

from aiohttp import web

# What a server can do to its client. "slow50" answers well, 50 times later.
MODES = ("ok", "400", "404", "429", "500", "502", "503", "reset", "garbage",
         "wrong_type", "truncated", "huge", "hang", "slow50")


def is_online(object_id, online_percent=None):
    """The one definition of which objects are online; tests import it."""
    if online_percent is None:
        return object_id % 2 == 0
    # Knuth's multiplicative hash: spreads neighbours over 0..99.
    return (object_id * 2654435761 >> 7) % 100 < online_percent


class ObjectServer:
    def __init__(self, options):
        self.min_ms = options.min_ms
        self.max_ms = options.max_ms
        self.online_percent = options.online_percent
        self.mix = {options.mode: 100}
        self.random = random.Random(options.seed)
        self.forget()

    def forget(self):
        self.fetches = collections.Counter()
        self.answers = collections.Counter()
        self.at_once = 0
        self.at_once_max = 0
        self.connections = 0

    def pick_mode(self):
        modes = list(self.mix)
        return self.random.choices(modes, [self.mix[m] for m in modes])[0]

    async def get_object(self, request):
        object_id = int(request.match_info["id"])
        mode = self.pick_mode()
        self.fetches[object_id] += 1
        self.answers[mode] += 1
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            return await self.answer(request, object_id, mode)
        finally:
            self.at_once = max(0, self.at_once - 1)

    async def answer(self, request, object_id, mode):
        delay_ms = self.random.uniform(self.min_ms, self.max_ms)
        if mode == "slow50":
            delay_ms *= 50
        await asyncio.sleep(delay_ms / 1000)
        while mode == "hang" and request.transport is not None:
            await asyncio.sleep(0.05)
        if mode == "reset":
            reset_connection(request)
        if mode.isdigit():
            return web.json_response({"error": "as told"}, status=int(mode))
        if mode == "garbage":
            return web.Response(body=b"\x00\xff<html>{not json",
                                content_type="application/json")
        if mode == "wrong_type":
            return web.json_response({"id": object_id, "online": "yes"})
        if mode == "truncated":
            return web.Response(body=b'{"id": %d, "onl' % object_id,
                                content_type="application/json")
        if mode == "huge":
            return web.json_response(
                {"id": object_id, "online": True, "filler": "x" * 4_000_000})
        return web.json_response(
            {"id": object_id,
             "online": is_online(object_id, self.online_percent)})

    async def post_mode(self, request):
        order = await request.json()
        mix = order.get("mix")
        if "mode" in order:
            mix = {order["mode"]: 100}
        if mix is not None:
            unknown = set(mix) - set(MODES)
            if unknown or sum(mix.values()) <= 0:
                return web.json_response(
                    {"error": f"modes are {MODES}"}, status=400)
            self.mix = mix
        self.min_ms = order.get("min_ms", self.min_ms)
        self.max_ms = order.get("max_ms", self.max_ms)
        self.online_percent = order.get("online_percent", self.online_percent)
        return web.json_response({"mix": self.mix, "min_ms": self.min_ms,
                                  "max_ms": self.max_ms})

    async def get_stats(self, _request):
        return web.json_response({
            "fetches": {str(i): n for i, n in self.fetches.items()},
            "total": sum(self.fetches.values()),
            "answers": dict(self.answers),
            "at_once": self.at_once,
            "at_once_max": self.at_once_max,
        })

    async def post_reset(self, _request):
        at_once = self.at_once
        self.forget()
        self.at_once = at_once
        return web.json_response({})

    def application(self):
        application = web.Application()
        application.add_routes([
            web.get(r"/objects/{id:\d+}", self.get_object),
            web.post("/sim/mode", self.post_mode),
            web.get("/sim/stats", self.get_stats),
            web.post("/sim/reset", self.post_reset),
        ])
        return application


def reset_connection(request):
    """Close with RST: what a crashed or overloaded peer does."""
    if request.transport is not None:
        sock = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                        b"\x01\x00\x00\x00\x00\x00\x00\x00")
        request.transport.abort()
    raise asyncio.CancelledError


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, default=9010,
                        help="0: any free one; it is printed")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--min-ms", type=float, default=300)
    parser.add_argument("--max-ms", type=float, default=4000)
    parser.add_argument("--mode", choices=MODES, default="ok")
    parser.add_argument("--online-percent", type=int)
    parser.add_argument("--seed", type=int)
    return parser.parse_args()


async def serve(options):
    runner = web.AppRunner(ObjectServer(options).application(),
                           access_log=None, keepalive_timeout=75)
    await runner.setup()
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((options.address, options.port))
    await web.SockSite(runner, listener, backlog=4096).start()
    print(f"objects: port {listener.getsockname()[1]}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    os._exit(0)  # requests that hang need not be waited for


if __name__ == "__main__":
    asyncio.run(serve(parse_arguments()))
