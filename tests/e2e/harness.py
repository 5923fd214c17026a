"""What the tests from outside stand on: a private PostgreSQL, a whole Sluice
behind a real web server, the simulators, and ways to ask and to hurt.

Used by tests/e2e, tests/torture and tests/bench. Everything listens on
loopback ports and sockets of its own below one temporary folder; started as
root, everything runs as one unprivileged user. Nothing sleeps for time to
pass: wait_for() waits for conditions, with generous deadlines.
"""
import atexit
import contextlib
import http.client
import json
import mailbox
import os
import pathlib
import pwd
import random
import re
import resource
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid

import psycopg2
import pymongo

TOP = pathlib.Path(__file__).resolve().parents[2]
SIM = TOP / "tests" / "sim"
BUILD = pathlib.Path(os.environ.get("SLUICE_BUILD")
                     or os.environ.get("BUILD_DIR") or TOP / "build").resolve()
PROGRAMS = ("callback.fcgi", "trigger.fcgi", "sms.fcgi", "invitation.fcgi",
            "status.fcgi", "sluiced", "sluicectl")
WEB_SERVERS = ("lighttpd", "mod_fcgid", "mod_proxy_fcgi")

# A sanitizer makes everything slower: deadlines stretch, what is measured
# does not.
DEADLINE_S = 60 * float(os.environ.get("SLUICE_TEST_PATIENCE", "1"))

sys.path.insert(0, str(SIM))
# Tests import these from here.
from objects import is_online  # noqa: E402, F401
from sms import sign  # noqa: E402

# Where nobody listens.
NOWHERE = "127.0.0.1:1"


def wait_for(condition, what, seconds=DEADLINE_S, every=0.02):
    """Poll until condition() is true, and return what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(every)


_given_ports = set()


def free_port():
    """One that the kernel gives nobody who asks for any port, and that is
    given here but once."""
    while True:
        port = random.randrange(10240, 32768)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            if port not in _given_ports:
                _given_ports.add(port)
                return port


def raise_descriptors(count=70000):
    """2 000 connections need more than the usual 1024."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, max(count, hard)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


# --- Processes ---------------------------------------------------------------

class Process:
    """A program that we started, with its log; never anybody else's."""

    def __init__(self, name, argv, log, user=None, **popen):
        self.name, self.argv = name, [str(a) for a in argv]
        self.log, self.user, self.popen_options = log, user, popen
        self.popen = None

    def start(self):
        options = dict(self.popen_options)
        if self.user is not None:
            options.update(user=self.user.pw_uid, group=self.user.pw_gid,
                           extra_groups=[])
        options.setdefault("stdin", subprocess.DEVNULL)
        with open(self.log, "ab") as log:
            self.popen = subprocess.Popen(
                self.argv, stdout=log, stderr=log, start_new_session=True,
                **options)
        return self

    @property
    def pid(self):
        return self.popen.pid

    def alive(self):
        return self.popen is not None and self.popen.poll() is None

    def send(self, number):
        if self.alive():
            self.popen.send_signal(number)

    def wait(self, seconds=DEADLINE_S):
        return self.popen.wait(seconds)

    def kill(self):
        self.send(signal.SIGKILL)
        self.popen.wait()

    def stop(self, number=signal.SIGTERM, seconds=DEADLINE_S):
        """Ask it to end; returns its exit status."""
        if self.popen is None:
            return None
        self.send(signal.SIGCONT)  # it may be frozen
        self.send(number)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def log_text(self):
        return pathlib.Path(self.log).read_text(errors="replace")


def process_table():
    """{pid: (parent, name)} of all processes."""
    table = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = pathlib.Path("/proc", entry, "stat").read_text()
            except OSError:
                continue  # it is gone
            name, rest = stat[stat.index("(") + 1:].rsplit(") ", 1)
            state, parent = rest.split()[:2]
            if state != "Z":
                table[int(entry)] = (int(parent), name)
    return table


def descendants(root, name):
    """Pids of the processes called name that stem from root."""
    table = process_table()
    found = []
    for pid, (parent, its_name) in table.items():
        while parent in table and parent != root:
            parent = table[parent][0]
        if parent == root and its_name == name:
            found.append(pid)
    return sorted(found)


def is_alive(pid):
    return pid in process_table()


def flock_holder(path):
    """Pid that holds flock on path now, 0 for none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return 0
    device = (f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:"
              f"{status.st_ino}")
    with open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            fields = line.split()  # 1: FLOCK ADVISORY WRITE pid dev start end
            if fields[1] == "FLOCK" and device in fields:
                return int(fields[4])
    return 0


# --- PostgreSQL --------------------------------------------------------------

def find_postgres():
    folders = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"),
                     key=lambda p: float(p.parent.name), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists():
            return folder
    initdb = shutil.which("initdb")
    assert initdb, "PostgreSQL is missing: apt-get install postgresql"
    return pathlib.Path(initdb).resolve().parent


class Postgres:
    """A private cluster, reached through a socket only."""

    def __init__(self, folder, user, durable=False):
        self.bin, self.folder, self.user = find_postgres(), folder, user
        self.run = folder / "run"
        self.log = folder / "postgres.log"
        folder.mkdir()
        give_to(folder, user)
        self.tool("initdb", "--pgdata", folder / "data", "--username",
                  "sluice", "--auth", "trust", "--encoding", "UTF8",
                  "--locale", "C", "--no-sync")
        self.run.mkdir()
        give_to(self.run, user)
        # fsync guards against a crash of the machine only.
        self.process = Process(
            "postgres",
            [self.bin / "postgres", "-D", folder / "data", "-k", self.run,
             "-c", "listen_addresses=", "-c", "max_connections=400",
             "-c", "shared_buffers=64MB",
             "-c", f"fsync={'on' if durable else 'off'}"], self.log, user)
        self.start()

    def tool(self, name, *arguments):
        options = {}
        if self.user is not None:
            options.update(user=self.user.pw_uid, group=self.user.pw_gid,
                           extra_groups=[])
        subprocess.run([str(self.bin / name), *map(str, arguments)],
                       check=True, stdout=subprocess.DEVNULL, cwd="/",
                       **options)

    def start(self):
        self.process.start()
        wait_for(self.answers, f"PostgreSQL answers, see {self.log}")

    def answers(self):
        assert self.process.alive(), self.process.log_text()[-2000:]
        try:
            self.connect("postgres").close()
            return True
        except psycopg2.OperationalError:
            return False

    def stop(self):
        if self.process.alive():
            self.process.stop(signal.SIGQUIT)  # at once, without a checkpoint

    def url(self, database):
        return f"postgresql:///{database}?host={self.run}&user=sluice"

    def connect(self, database):
        connection = psycopg2.connect(self.url(database))
        connection.autocommit = True
        return connection

    def create_database(self, name):
        connection = self.connect("postgres")
        with connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{name}"')
        connection.close()

    def session_pids(self, database):
        """Server processes of the other sessions of a database."""
        connection = self.connect("postgres")
        with connection.cursor() as cursor:
            cursor.execute("SELECT pid FROM pg_stat_activity "
                           "WHERE datname = %s", (database,))
            pids = [row[0] for row in cursor.fetchall()]
        connection.close()
        return pids


# --- MongoDB -------------------------------------------------------------------

class Mongo:
    """A MongoDB wire server for all instances of a place, a database each:
    $SLUICE_MONGO_URI, or FerretDB on the place's PostgreSQL."""

    def __init__(self, place):
        self.client, self.process = None, None
        self.databases = []
        self.base = os.environ.get("SLUICE_MONGO_URI")
        if self.base:
            return
        self.port = free_port()
        self.base = f"mongodb://127.0.0.1:{self.port}/"
        program = place.bin / "ferretdb"
        shutil.copy(BUILD / "ferretdb", program)
        place.postgres.create_database("ferretdb")
        self.process = Process(
            "mongo",
            [program, "-listen", f"127.0.0.1:{self.port}", "-postgresql-url",
             f"postgres://sluice@/ferretdb?host={place.postgres.run}"],
            place.folder / "mongo.log", place.user)
        self.start()

    def start(self):
        self.process.start()
        wait_for(lambda: port_answers(self.port), "MongoDB listens")

    def kill(self):
        self.process.kill()

    def uri(self, database):
        """Of a database that is dropped in the end."""
        if self.process is None:  # others may use the server, too
            database = f"{database}_{os.getpid()}"
        self.databases.append(database)
        parts = urllib.parse.urlsplit(self.base)
        return parts._replace(path=f"/{database}").geturl()

    def database(self, uri):
        """pymongo's, to look into."""
        if self.client is None:
            self.client = pymongo.MongoClient(self.base)
        return self.client[urllib.parse.urlsplit(uri).path[1:]]

    def close(self):
        if self.process is None:
            for database in self.databases:
                pymongo.MongoClient(self.base).drop_database(database)
        if self.client is not None:
            self.client.close()
        if self.process is not None and self.process.alive():
            self.process.stop(signal.SIGINT)


# --- A place for all of it -----------------------------------------------------

def unprivileged_user():
    """Whom to become: root must not run PostgreSQL, and would not notice a
    file that may not be written."""
    if os.getuid() != 0:
        return None
    return pwd.getpwnam("www-data")  # is on every Debian


def give_to(path, user):
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)


class Place:
    """A temporary folder with the programs, a PostgreSQL and instances."""

    def __init__(self, name="e2e", durable=False):
        raise_descriptors()
        self.user = unprivileged_user()
        # Sockets' paths are limited to 107 bytes: not below pytest's folder,
        # which others may not search either.
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"sluice-{name}."))
        self.folder.chmod(0o755)
        give_to(self.folder, self.user)
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        self.copy_programs()
        self.postgres = Postgres(self.folder / "pg", self.user, durable)
        self.mongo_server = None
        self.instances = []
        self.count = 0
        atexit.register(self.kill_all)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))

    def copy_programs(self):
        """Where the user may run them, whoever may read the tree."""
        for program in PROGRAMS:
            assert (BUILD / program).exists(), f"not built: {BUILD / program}"
            shutil.copy(BUILD / program, self.bin)
        shutil.copytree(TOP / "conf" / "migrations", self.bin / "migrations")
        shutil.copytree(TOP / "conf" / "mail", self.bin / "mail")
        shutil.copytree(SIM, self.bin / "sim")
        shutil.copytree(TOP / "conf" / "sh", self.bin / "sh")

    def environment(self):
        kept = {k: v for k, v in os.environ.items()
                if not k.startswith("SLUICE_")}
        return {**kept, "SLUICE_MIGRATIONS": str(self.bin / "migrations"),
                "SLUICE_MAIL_TEMPLATES": str(self.bin / "mail"),
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LIBFCGI_OS_CLOSE_POLL_TIMEOUT": "50"}

    def instance(self, **options):
        self.count += 1
        return Instance(self, f"i{self.count}", **options)

    def mongo(self):
        """Started by the first who asks for it."""
        if self.mongo_server is None:
            self.mongo_server = Mongo(self)
        return self.mongo_server

    def kill_all(self):
        """Whatever went wrong: nothing of ours outlives us."""
        for instance in self.instances:
            for process in instance.processes():
                if process.alive():
                    # Under keep.sh, which would start it again.
                    orphans = descendants(process.pid, "multiwatch")
                    process.kill()
                    for pid in orphans:
                        signal_if_alive(pid, signal.SIGTERM)
        self.stop_databases()

    def stop_databases(self):
        if self.mongo_server is not None:
            self.mongo_server.close()
            self.mongo_server = None
        self.postgres.stop()

    def close(self):
        for instance in list(self.instances):
            instance.close()
        self.stop_databases()
        if not os.environ.get("SLUICE_TEST_KEEP"):
            shutil.rmtree(self.folder, ignore_errors=True)


# --- HTTP and FastCGI, by hand where a library would not misbehave -------------

class Reply:
    def __init__(self, status, headers, body):
        self.status, self.body = status, body
        self.headers = {name.lower(): value for name, value in headers}

    def json(self):
        return json.loads(self.body)

    def problem(self):
        """The problem document, which must be one."""
        assert self.headers["content-type"].split(";")[0] == \
            "application/problem+json", (self.status, self.headers, self.body)
        document = self.json()
        assert document["status"] == self.status
        assert re.fullmatch(r"[a-z][a-z0-9_]*", document["code"]), document
        assert document["title"], document
        return document

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:300]!r}>"


def ids_body(ids):
    return json.dumps({"object_ids": list(ids)}).encode()


def raw_http(port, data, seconds=DEADLINE_S):
    """Send bytes as they are, half-close, and read all that comes."""
    with socket.create_connection(("127.0.0.1", port), seconds) as s:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        received = b""
        while True:
            try:
                part = s.recv(65536)
            except ConnectionResetError:
                return received
            if not part:
                return received
            received += part


def parse_http(data):
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = [line.split(": ", 1) for line in lines[1:] if ": " in line]
    if ["Transfer-Encoding", "chunked"] in headers:  # Apache's way
        body = unchunked(body)
    return Reply(int(lines[0].split()[1]), headers, body)


def unchunked(data):
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        body += data[:int(size, 16)]
        data = data[int(size, 16) + 2:]
    return body


FCGI_BEGIN, FCGI_END, FCGI_PARAMS, FCGI_STDIN, FCGI_STDOUT = 1, 3, 4, 5, 6


def fcgi_record(kind, content, request_id=1):
    return struct.pack(">BBHHBx", 1, kind, request_id, len(content), 0) \
        + content


def fcgi_params(params):
    encoded = b""
    for name, value in params.items():
        name, value = name.encode(), value.encode()
        for part in (name, value):
            encoded += (bytes([len(part)]) if len(part) < 128 else
                        struct.pack(">I", len(part) | 1 << 31))
        encoded += name + value
    return encoded


def fcgi_request(body=b"", keep=False, **params):
    """The records of one request; CONTENT_LENGTH= lies if it is told to."""
    params = {"REQUEST_METHOD": "POST", "REQUEST_URI": "/callback",
              "SCRIPT_NAME": "/callback", "SERVER_PROTOCOL": "HTTP/1.1",
              "CONTENT_TYPE": "application/json",
              "CONTENT_LENGTH": str(len(body)), **params}
    params = {name: value for name, value in params.items()
              if value is not None}
    records = fcgi_record(FCGI_BEGIN, struct.pack(">HB5x", 1, int(keep)))
    records += fcgi_record(FCGI_PARAMS, fcgi_params(params))
    records += fcgi_record(FCGI_PARAMS, b"")
    for at in range(0, len(body), 32768):
        records += fcgi_record(FCGI_STDIN, body[at:at + 32768])
    return records + fcgi_record(FCGI_STDIN, b"")


def fcgi_connect(path, seconds=DEADLINE_S):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(seconds)
    s.connect(str(path))
    return s


def fcgi_reply(s):
    """Read one reply off the connection; None when it ends before."""
    stdout = b""
    stream = s.makefile("rb")
    while True:
        head = stream.read(8)
        if len(head) < 8:
            return None
        kind, length, padding = struct.unpack(">xB2xHBx", head)
        content = stream.read(length + padding)[:length]
        if kind == FCGI_STDOUT:
            stdout += content
        elif kind == FCGI_END:
            return parse_http(b"HTTP/1.1 " + _status_first(stdout))


def _status_first(stdout):
    match = re.search(rb"^Status: (.*?)\r\n", stdout, re.M)
    return (match.group(1) if match else b"200 OK") + b"\r\n" + stdout


# --- An instance ----------------------------------------------------------------

class Instance:
    """One Sluice: directory, configuration, processes, and ways to ask it.

    web: one of WEB_SERVERS. conf: {"callback.expire_s": 0}. delay_ms: of the
    object simulator. kept: the handlers stand under conf/sh/keep.sh, which
    restarts multiwatch, as quickstart has it. start=False: the caller starts
    the parts. limits: a command line before spawn-fcgi. programs: a folder of
    other handlers. mongo: with a database in the place's MongoDB, where
    nobody else answers, as no mail server does.
    """

    def __init__(self, place, name, web="lighttpd", conf=None, handlers=2,
                 delay_ms=(1, 10), kept=False, journal_dir=None, start=True,
                 limits=None, programs=None, sms_handlers=1,
                 invitation_handlers=1, mongo=False):
        place.instances.append(self)
        self.place, self.name, self.web = place, name, web
        self.programs = programs or place.bin
        self.handlers, self.delay_ms, self.kept = handlers, delay_ms, kept
        self.sms_handlers = sms_handlers
        self.invitation_handlers = invitation_handlers
        self.limits = limits or []
        self.database_connection = None
        self.made = []
        self.dir = place.folder / name
        self.run = self.dir / "run"
        self.logs = self.dir / "log"
        for folder in (self.dir, self.run, self.logs):
            folder.mkdir()
            give_to(folder, place.user)
        self.conf_file = self.dir / "sluice.conf"
        self.journal_path = pathlib.Path(journal_dir or self.dir) \
            / "journal.db"
        self.database = f"e2e_{name}"
        place.postgres.create_database(self.database)
        self.port = free_port()
        self.objects_port = free_port()
        self.conf = {
            "node.run_dir": self.run,
            "journal.path": self.journal_path,
            # Nothing here wears out a disk: let the tests be at peace.
            "journal.reserve_bytes": "1 MiB",
            "postgres.url": place.postgres.url(self.database),
            "callback.objects_url":
                f"http://127.0.0.1:{self.objects_port}/objects/",
            "callback.expire_s": 0,
            "mongo.uri": place.mongo().uri(self.database) if mongo
            else f"mongodb://{NOWHERE}/none",
            "mail.url": f"smtp://{NOWHERE}",
            **(conf or {})}
        self.write_conf()
        self.make_processes()
        if start:
            self.start()

    # Configuration and processes

    def write_conf(self, **changes):
        """changes: callback__expire_s=5, None removes."""
        for name, value in changes.items():
            self.conf[name.replace("__", ".")] = value
        sections = {}
        for name, value in self.conf.items():
            if value is not None:
                section, key = name.split(".", 1)
                sections.setdefault(section, []).append(f"{key} = {value}")
        self.conf_file.write_text("\n".join(
            f"[{section}]\n" + "\n".join(lines) + "\n"
            for section, lines in sections.items()))
        give_to(self.conf_file, self.place.user)

    def process(self, name, argv, log=None, **options):
        process = Process(name, argv, self.logs / f"{log or name}.log",
                          self.place.user, env=self.place.environment(),
                          cwd="/", **options)
        self.made.append(process)
        return process

    def make_processes(self):
        """In the order of stopping: the web server first."""
        bin_dir = self.place.bin
        self.web_process = self.process(self.web, self.web_argv())
        self.callback = self.handler_process("callback", self.handlers)
        self.trigger = self.handler_process("trigger", 1)
        self.sms = self.handler_process("sms", self.sms_handlers)
        self.invitation = self.handler_process("invitation",
                                               self.invitation_handlers)
        self.status = self.handler_process("status", 1)
        self.sluiced = self.process("sluiced", [
            bin_dir / "sluiced", "--config", self.conf_file])
        self.objects = self.process("objects", [
            "/usr/bin/python3", "-B", bin_dir / "sim" / "objects.py",
            "--port", self.objects_port, "--min-ms", self.delay_ms[0],
            "--max-ms", self.delay_ms[1]])

    def handler_process(self, name, count):
        """spawn-fcgi owns the socket; under it multiwatch and the handlers."""
        watch = ["/usr/bin/multiwatch", "-f", count, "-r", 100, "-t", 100,
                 "-s", "TERM", "--", self.programs / f"{name}.fcgi",
                 "--config", self.conf_file, "--die-with-parent"]
        if self.kept:
            watch = [self.place.bin / "sh" / "keep.sh", self.dir, name, "TERM",
                     10, self.logs / f"{name}-kept.log", *watch]
        return self.process(name, [
            *self.limits, "spawn-fcgi", "-n", "-s", self.run / f"{name}.sock",
            "-M", "0660", "-b", 4096, "--", *watch])

    def web_argv(self):
        template = {"lighttpd": "lighttpd/sluice.conf.in",
                    "mod_fcgid": "apache/mod_fcgid.conf.in",
                    "mod_proxy_fcgi": "apache/mod_proxy_fcgi.conf.in"}
        state = self.dir / "web"
        state.mkdir(exist_ok=True)
        give_to(state, self.place.user)
        user = self.place.user or pwd.getpwuid(os.getuid())
        conf = fill(TOP / "conf" / template[self.web], {
            "PORT": self.port, "ADDRESS": "127.0.0.1", "RUN_DIR": self.run,
            "STATE_DIR": state, "PROGRAM_DIR": self.programs,
            "CONFIG": self.conf_file, "USER": user.pw_name,
            "GROUP": "www-data" if self.place.user else "nogroup"})
        path = self.dir / f"{self.web}.conf"
        path.write_text(conf)
        path.chmod(0o644)
        if self.web == "lighttpd":
            return ["lighttpd", "-D", "-f", path]
        return ["apache2", "-DFOREGROUND", "-f", path]

    def start(self):
        self.start_objects()
        self.sluiced.start()
        self.start_web()
        self.wait_ready()
        return self

    def start_objects(self):
        self.objects.start()
        wait_for(lambda: port_answers(self.objects_port), "the simulator")

    def start_web(self):
        if self.web != "mod_fcgid":  # which starts the handlers itself
            self.start_handlers()
        self.web_process.start()
        wait_for(lambda: port_answers(self.port), f"{self.web} listens")

    def start_handlers(self):
        for process in self.handler_processes():
            # spawn-fcgi refuses a path that exists.
            (self.run / f"{process.name}.sock").unlink(missing_ok=True)
            process.start()
        for process in self.handler_processes():
            wait_for(lambda p=process: socket_answers(
                self.run / f"{p.name}.sock"), f"{process.name} listens")

    def handler_processes(self):
        return (self.callback, self.trigger, self.sms, self.invitation,
                self.status)

    def stop_handlers(self):
        for process in self.handler_processes():
            process.stop()
            wait_for(lambda p=process: not descendants(
                p.pid, f"{p.name}.fcgi"), "the handlers end")

    def processes(self):
        return self.made

    def close(self):
        """Stop everything; what must hold at every end is checked here."""
        if self in self.place.instances:
            self.place.instances.remove(self)
        for process in self.processes():
            if process.popen is not None:
                for pid in self.handler_pids(process):
                    signal_if_alive(pid, signal.SIGCONT)
                process.stop()
        if self.database_connection is not None:
            self.database_connection.close()
        if self.journal_path.exists():
            self.check_ledger()
        self.check_logs()

    def check_ledger(self, service="callback"):
        counters = self.counters(service)
        assert counters["accepted"] == counters["final"] + counters["pending"] \
            + counters["dead"], counters
        return counters

    def check_logs(self):
        """No sanitizer may have spoken."""
        for log in self.logs.glob("*.log"):
            text = log.read_text(errors="replace")
            for word in ("Sanitizer", "runtime error:"):
                assert word not in text, f"{log}: {text[-5000:]}"

    def log_tails(self, lines=40):
        """For a test that failed."""
        texts = []
        state = self.dir / "web"
        for log in sorted([*self.logs.glob("*.log"), *state.glob("*.log")]):
            tail = log.read_text(errors="replace").splitlines()[-lines:]
            texts.append(f"--- {self.name} {log.name}\n" + "\n".join(tail))
        return "\n".join(texts)

    # Asking

    def request(self, method, path, body=None, headers=None,
                seconds=DEADLINE_S):
        connection = http.client.HTTPConnection("127.0.0.1", self.port,
                                                timeout=seconds)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return Reply(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, ids, headers=None, **options):
        """POST /callback with ids, or with a body as it is."""
        body = ids if isinstance(ids, bytes) else ids_body(ids)
        return self.request(
            "POST", "/callback", body,
            {"Content-Type": "application/json", **(headers or {})}, **options)

    def accept(self, ids, **options):
        """POST that must be accepted; returns the request's id."""
        reply = self.post(ids, **options)
        assert reply.status == 202, reply
        return reply.json()["id"]

    def wait_ready(self):
        def ready():
            for process in self.processes()[:8]:
                assert process.popen is None or process.alive(), \
                    f"{process.name} ended:\n{self.log_tails()}"
            try:
                return self.get("/health/ready").status == 200
            except OSError:
                return False
        try:
            wait_for(ready, f"{self.name} is ready")
        except AssertionError as error:
            try:
                error.args = (f"{error.args[0]}\n"
                              f"{self.get('/health/ready')}",)
            except OSError:
                pass
            raise

    def simulate(self, **order):
        """POST /sim/mode: mode="500", mix={...}, min_ms=, max_ms="""
        reply = http_json(self.objects_port, "POST", "/sim/mode", order)
        assert "mix" in reply, reply

    def sim_stats(self):
        return http_json(self.objects_port, "GET", "/sim/stats")

    def fetches(self, object_id):
        return self.sim_stats()["fetches"].get(str(object_id), 0)

    def sluicectl(self, *arguments, check=True):
        done = subprocess.run(
            [str(self.place.bin / "sluicectl"), "--config",
             str(self.conf_file), *map(str, arguments)],
            capture_output=True, text=True, timeout=DEADLINE_S,
            env=self.place.environment(), check=False)
        assert not check or done.returncode == 0, done
        return done

    def ctl(self, *arguments, check=True):
        """sluicectl --json, parsed."""
        return json.loads(
            self.sluicectl("--json", *arguments, check=check).stdout)

    def live_count(self):
        """Requests that were handed on from a push frame."""
        return self.metrics()[
            ("sluice_feed_live_total", (("service", "callback"),))]

    def run_sluiced(self, *arguments, environment=None):
        """sluiced to its end: -t, --migrate, or a start that is refused."""
        options = {}
        if self.place.user is not None:
            options.update(user=self.place.user.pw_uid,
                           group=self.place.user.pw_gid, extra_groups=[])
        return subprocess.run(
            [str(self.place.bin / "sluiced"), "--config", str(self.conf_file),
             *arguments], capture_output=True, text=True, cwd="/",
            timeout=DEADLINE_S, check=False,
            env={**self.place.environment(), **(environment or {})}, **options)

    def metrics(self):
        return parse_metrics(self.get("/metrics").body.decode())

    # The journal, read with SQLite itself

    def journal(self):
        connection = sqlite3.connect(self.journal_path, timeout=30)
        connection.row_factory = sqlite3.Row
        return connection

    def journal_rows(self, sql, *values):
        connection = self.journal()
        try:
            return [dict(row) for row in connection.execute(sql, values)]
        finally:
            connection.close()

    def counters(self, service="callback"):
        """accepted, final, dead and, counted, pending."""
        return self.journal_rows(
            "SELECT accepted, final, dead,"
            f" (SELECT count(*) FROM queue_{service}) AS pending,"
            " (SELECT count(*) FROM outcome"
            f"  WHERE service = '{service}') AS outcomes"
            f" FROM counter WHERE service = '{service}'")[0]

    def accepted(self):
        return self.counters()["accepted"]

    def is_idle(self, service="callback"):
        counters = self.counters(service)
        return counters["pending"] == 0 and counters["outcomes"] == 0

    def wait_idle(self, seconds=DEADLINE_S, service="callback"):
        wait_for(lambda: self.is_idle(service),
                 f"the journal's queue of {service} is empty", seconds)

    def watch_arrivals(self, service):
        """Note every request from now on: what is done leaves the queue."""
        connection = self.journal()
        connection.executescript(
            "CREATE TABLE test_arrival (seq INTEGER PRIMARY KEY, id BLOB);"
            f"CREATE TRIGGER test_arrived AFTER INSERT ON queue_{service}"
            " BEGIN INSERT INTO test_arrival VALUES (NEW.seq, NEW.id); END;")
        connection.close()

    def arrivals(self):
        """Ids of the requests to the service that is watched, in order."""
        return [str(uuid.UUID(bytes=row["id"])) for row in self.journal_rows(
            "SELECT id FROM test_arrival ORDER BY seq")]

    def dead(self):
        """{item: (reason, attempts)} of all dead letters."""
        return {row["item"]: (row["reason"], row["attempts"])
                for row in self.journal_rows("SELECT * FROM dead_item")}

    # The database

    def sql(self, statement, *values):
        if self.database_connection is not None:
            try:
                return self.execute(statement, values)
            except psycopg2.DatabaseError as error:
                # Its server may have been restarted since it was last used:
                # no SQLSTATE, or one of class 57 (operator intervention).
                if (error.pgcode or "57")[:2] != "57":
                    raise
        self.database_connection = self.place.postgres.connect(self.database)
        return self.execute(statement, values)

    def execute(self, statement, values):
        with self.database_connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def stored(self):
        try:
            return {row[0] for row in self.sql("SELECT id FROM objects")}
        except psycopg2.errors.UndefinedTable:
            return set()  # nobody has migrated yet

    def wait_stored(self, ids, seconds=DEADLINE_S):
        wanted = set(ids)
        wait_for(lambda: wanted <= self.stored(), "the objects are stored",
                 seconds)

    def mongo_database(self):
        """pymongo's view of the instance's database."""
        return self.place.mongo().database(self.conf["mongo.uri"])

    # Hurting

    def handler_pids(self, process=None):
        """Pids of the running callback.fcgi, or of those below process."""
        if process is None:
            process = self.web_process if self.web == "mod_fcgid" \
                else self.callback
        return descendants(process.pid, "callback.fcgi")

    def lock_holder(self):
        return flock_holder(f"{self.journal_path}.lock")

    def restart_sluiced(self, number=signal.SIGKILL):
        self.sluiced.stop(number)
        self.sluiced.start()


class CallProvider:
    """The simulator tests/sim/calls.py beside an instance, which stops it.
    options: those of calls.py, window_ms=1000, answer_ms=(100, 200)."""

    def __init__(self, instance, **options):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/originate_call"
        options = {"lockout_ms": 3000, "answer_ms": (100, 200), **options}
        argv = ["/usr/bin/python3", "-B",
                instance.place.bin / "sim" / "calls.py", "--port", self.port]
        for name, value in options.items():
            values = value if isinstance(value, tuple) else (value,)
            argv += [f"--{name.replace('_', '-')}", *values]
        self.process = instance.process("calls", argv)

    def start(self):
        self.process.start()
        wait_for(lambda: port_answers(self.port), "the provider")
        return self

    def log(self):
        return http_json(self.port, "GET", "/sim/log")

    def summary(self):
        return http_json(self.port, "GET", "/sim/summary")

    def set(self, **options):
        return http_json(self.port, "POST", "/sim/set", options)


class SmsProvider:
    """The simulator tests/sim/sms.py beside an instance, which stops it.
    options: those of sms.py, fail=0.2. updates=True: it posts them to the
    instance, signed with the first of sms.webhook_secrets."""

    def __init__(self, instance, updates=False, **options):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/batches"
        argv = ["/usr/bin/python3", "-B",
                instance.place.bin / "sim" / "sms.py", "--port", self.port]
        options = {"answer_ms": (1, 20), **options}
        if updates:
            secrets = instance.conf.get("sms.webhook_secrets", "")
            options["updates"] = \
                f"http://127.0.0.1:{instance.port}/sms/status-updates"
            options["secret"] = secrets.split(",")[0].strip()
        for name, value in options.items():
            values = value if isinstance(value, (tuple, list)) else (value,)
            argv += [f"--{name.replace('_', '-')}", *values]
        self.process = instance.process("sms-sim", argv)

    def start(self):
        self.process.start()
        wait_for(lambda: port_answers(self.port), "the provider")
        return self

    def log(self):
        return http_json(self.port, "GET", "/sim/log")

    def summary(self):
        return http_json(self.port, "GET", "/sim/summary")

    def messages(self):
        return http_json(self.port, "GET", "/sim/messages")

    def updates(self):
        return http_json(self.port, "GET", "/sim/updates")

    def set(self, **options):
        answer = http_json(self.port, "POST", "/sim/set", options)
        assert answer == {}, answer

    def release(self):
        """End what hangs, without an answer."""
        http_json(self.port, "POST", "/sim/release")


class MailServer:
    """The simulator tests/sim/smtp.py beside an instance, which stops it.
    options: those of smtp.py, refuse=["nobody*"]; keep: in a Maildir."""

    def __init__(self, instance, keep=True, **options):
        self.port = free_port()
        self.url = f"smtp://127.0.0.1:{self.port}"
        self.folder = instance.dir / "mail"
        self.folder.mkdir()
        give_to(self.folder, instance.place.user)
        self.log_file = self.folder / "log"
        self.blocked = self.folder / "blocked"
        argv = ["/usr/bin/python3", "-B",
                instance.place.bin / "sim" / "smtp.py", "--port", self.port,
                "--log", self.log_file, "--blocked", self.blocked]
        if keep:
            argv += ["--maildir", self.folder / "Maildir"]
        for name, value in options.items():
            values = value if isinstance(value, (tuple, list)) else (value,)
            argv += [f"--{name.replace('_', '-')}", *values]
        self.process = instance.process("smtp", argv)

    def start(self):
        self.process.start()
        wait_for(lambda: port_answers(self.port), "the mail server")
        return self

    def log(self):
        """What was taken, in order: [{"to", "message_id", "subject", ...}]."""
        if not self.log_file.exists():
            return []
        text = self.log_file.read_text()
        return [json.loads(line)
                for line in text[:text.rfind("\n") + 1].splitlines()]

    def mails(self):
        """{Message-ID: message} of what is in the Maildir."""
        folder = mailbox.Maildir(self.folder / "Maildir", create=False)
        return {message["Message-ID"]: message for message in folder}


def signed(body, secret, at_s=None):
    """Headers of a status update."""
    return {"Content-Type": "application/json",
            "X-Signature": sign(secret, body, at_s)}


def closest_ms(log, count):
    """The shortest time in which a call provider's log has count + 1 requests:
    more than its window, or it refused one. None: it has fewer."""
    times = sorted(entry["at_ms"] for entry in log)
    return min((b - a for a, b in zip(times, times[count:])), default=None)


def most_in_window(log, window_ms):
    """Requests in the fullest window of a call provider's log."""
    times = sorted(entry["at_ms"] for entry in log)
    most, first = 0, 0
    for k, at_ms in enumerate(times):
        while times[first] <= at_ms - window_ms:
            first += 1
        most = max(most, k + 1 - first)
    return most


def fill(template, values):
    """What conf/sh/fill.sh does."""
    text = pathlib.Path(template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    # Comments may speak of placeholders.
    left = re.findall(r"^[^#\n]*@[A-Z_]+@", text, re.M)
    assert not left, left
    return text


def port_answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def socket_answers(path):
    try:
        fcgi_connect(path, 1).close()
        return True
    except OSError:
        return False


def signal_if_alive(pid, number):
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


def http_json(port, method, path, document=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = None if document is None else json.dumps(document).encode()
    connection.request(method, path, body=body)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


METRIC_LINE = re.compile(
    r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)(?: \d+)?")
METRIC_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')


def parse_metrics(text):
    """{(name, ((label, value), ...)): number}; strict about the format."""
    values, types = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in types, f"TYPE of {name} twice"
            types[name] = kind
            continue
        if line.startswith("#") or not line:
            continue
        match = METRIC_LINE.fullmatch(line)
        assert match, f"not a metric: {line!r}"
        name, labels, value = match.groups()
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        assert name in types or types.get(base) == "histogram", \
            f"no TYPE before {name}"
        pairs = METRIC_LABEL.findall(labels or "")
        assert "".join(f'{n}="{v}",' for n, v in pairs).rstrip(",") == \
            (labels or "").rstrip(","), line
        key = (name, tuple(sorted(pairs)))
        assert key not in values, f"{key} twice"
        values[key] = float(value)
    return values
