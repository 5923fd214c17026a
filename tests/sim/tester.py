#!/usr/bin/python3
"""The callback assignment's published tester, as it behaves.

Every 5 s it posts up to 200 random ids of 0..100, sometimes none, over one
kept-alive connection, and gives up on a post after 1 s. (Its object server is
objects.py.) Ends with a line of totals; status 1 if a post failed.
"""
import argparse
import asyncio
import json
import random
import sys
import time

import aiohttp


async def post_once(session, url, count_max):
    ids = [random.randint(0, 100) for _ in range(random.randint(0, count_max))]
    start = time.monotonic()
    async with session.post(url, json={"object_ids": ids}) as response:
        text = await response.text()
    spent_ms = (time.monotonic() - start) * 1000
    print(f"{len(ids)} ids: {response.status} after {spent_ms:.1f} ms "
          f"{text.strip()}", flush=True)
    return 200 <= response.status < 300


async def run(options):
    passed = failed = 0
    connector = aiohttp.TCPConnector(limit=1, keepalive_timeout=3600)
    timeout = aiohttp.ClientTimeout(total=options.timeout)
    async with aiohttp.ClientSession(connector=connector,
                                     timeout=timeout) as session:
        while options.count == 0 or passed + failed < options.count:
            begun = time.monotonic()
            try:
                good = await post_once(session, options.url, options.ids)
            except (aiohttp.ClientError, asyncio.TimeoutError) as error:
                print(f"failed: {error!r}", flush=True)
                good = False
            passed, failed = passed + good, failed + (not good)
            if passed + failed != options.count:
                await asyncio.sleep(
                    max(0, begun + options.period - time.monotonic()))
    print(json.dumps({"passed": passed, "failed": failed}))
    return 0 if failed == 0 else 1


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://localhost:9090/callback")
    parser.add_argument("--period", type=float, default=5, help="seconds")
    parser.add_argument("--timeout", type=float, default=1, help="seconds")
    parser.add_argument("--count", type=int, default=0, help="0: for ever")
    parser.add_argument("--ids", type=int, default=200, help="at most")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(run(parse_arguments())))
