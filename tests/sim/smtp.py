#!/usr/bin/python3
"""A mail server, simulated: takes mails and keeps them in a Maildir.

Prints its port when it listens. Each mail taken is a line of --log, as JSON:
{"at", "from", "to", "message_id", "subject", "tls", "utf8", "connection"}.
PATTERN is a shell pattern of the recipient, as "nobody*".

--refuse PATTERN...      550 to RCPT TO
--foreign PATTERN...     554 to RCPT TO: it does not relay
--defer PATTERN --times N  451 to RCPT TO, the first N times of each recipient
--reject PATTERN...      554 to the message
--blocked FILE           554 to MAIL FROM while FILE exists
--cert FILE              STARTTLS; certificate and key
--user NAME --password P AUTH is offered, and required
"""
import argparse
import asyncio
import collections
import email
import fnmatch
import itertools
import json
import logging
import mailbox
import os
import ssl
import sys
import time
import warnings

from aiosmtpd.smtp import SMTP, AuthResult

# It logs clients that hang up, and warns of AUTH without TLS.
logging.getLogger("mail").setLevel(logging.CRITICAL)
warnings.simplefilter("ignore")

CONNECTIONS = itertools.count(1)


def matches(address, patterns):
    return any(fnmatch.fnmatch(address, pattern) for pattern in patterns)


class Handler:
    def __init__(self, options):
        self.options = options
        self.deferred = collections.Counter()
        self.maildir = mailbox.Maildir(options.maildir) \
            if options.maildir else None

    async def handle_MAIL(self, server, session, envelope, address, options):
        await asyncio.sleep(self.options.delay_ms / 1000)
        if self.options.blocked and os.path.exists(self.options.blocked):
            return "554 5.7.1 you are not welcome here"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if matches(address, self.options.refuse):
            return f"550 5.1.1 <{address}>: no such user"
        if matches(address, self.options.foreign):
            return f"554 5.7.1 <{address}>: Relay access denied"
        if matches(address, self.options.defer) and \
                self.deferred[address] < self.options.times:
            self.deferred[address] += 1
            return "451 4.7.1 come back later"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server, session, envelope):
        for to in envelope.rcpt_tos:
            if matches(to, self.options.reject):
                return f"554 5.6.0 <{to}> looks like an advertisement"
        self.keep(server, session, envelope)
        return "250 2.0.0 taken"

    def keep(self, server, session, envelope):
        if self.maildir is not None:
            self.maildir.add(envelope.content)
        if self.options.log:
            message = email.message_from_bytes(envelope.content)
            line = {"at": time.time(), "from": envelope.mail_from,
                    "to": envelope.rcpt_tos,
                    "message_id": message["Message-ID"],
                    "subject": message["Subject"],
                    "tls": session.ssl is not None,
                    "utf8": envelope.smtp_utf8,
                    "connection": server.number}
            with open(self.options.log, "a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--maildir")
    parser.add_argument("--log")
    parser.add_argument("--refuse", nargs="+", default=[])
    parser.add_argument("--foreign", nargs="+", default=[])
    parser.add_argument("--defer", nargs="+", default=[])
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--reject", nargs="+", default=[])
    parser.add_argument("--blocked")
    parser.add_argument("--no-utf8", action="store_true")
    parser.add_argument("--cert")
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--delay-ms", type=float, default=0)
    return parser.parse_args()


async def main():
    options = arguments()
    handler = Handler(options)
    more = {"hostname": "localhost", "ident": "sim",
            "enable_SMTPUTF8": not options.no_utf8}
    if options.cert:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.cert)
        more["tls_context"] = context
    if options.user:
        def check(server, session, envelope, mechanism, data):
            right = (data.login, data.password) == \
                (options.user.encode(), options.password.encode())
            return AuthResult(success=right, handled=False)
        more.update(authenticator=check, auth_required=True,
                    auth_require_tls=False)

    def connect():
        server = SMTP(handler, **more)
        server.number = next(CONNECTIONS)
        return server

    loop = asyncio.get_running_loop()
    server = await loop.create_server(connect, options.host, options.port,
                                      backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


try:
    asyncio.run(main())
except KeyboardInterrupt:
    sys.exit(0)
