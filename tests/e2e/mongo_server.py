"""A MongoDB wire server for a test: $SLUICE_MONGO_URI or FerretDB
on a PostgreSQL cluster of its own."""

import contextlib
import glob
import os
import pathlib
import shutil
import subprocess
import tempfile
import time


def as_unprivileged(command):
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--reuid", "postgres", "--regid", "postgres",
            "--init-groups"] + command


def postgres_program(name):
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    return found[-1] if found else shutil.which(name)


@contextlib.contextmanager
def running(command, log):
    """Run command; stop it with SIGINT, which both servers take for a fast
    and clean end."""
    with open(log, "ab") as output:
        process = subprocess.Popen(command, stdout=subprocess.PIPE,
                                   stderr=output, text=True)
    try:
        yield process
    finally:
        process.send_signal(2)
        process.wait(30)


@contextlib.contextmanager
def postgres(folder):
    """A cluster in folder; gives the socket's folder."""
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    data = f"{folder}/pg"
    subprocess.run(
        as_unprivileged([postgres_program("initdb"), "-D", data, "-U",
                         "sluice", "--auth=trust", "--encoding=UTF8",
                         "--locale=C", "--no-sync"]),
        check=True, stdout=subprocess.DEVNULL, cwd="/")
    command = as_unprivileged([postgres_program("postgres"), "-D", data,
                               "-k", folder, "-c", "listen_addresses="])
    with running(command, f"{folder}/pg.log"):
        wait_until(lambda: subprocess.run(
            [postgres_program("createdb"), "-h", folder, "-U", "sluice",
             "ferretdb"], capture_output=True).returncode == 0)
        yield folder


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the server does not come up"
        time.sleep(0.1)


@contextlib.contextmanager
def mongo_server():
    """Gives the URI of a server that answers."""
    if os.environ.get("SLUICE_MONGO_URI"):
        yield os.environ["SLUICE_MONGO_URI"]
        return
    program = pathlib.Path(os.environ.get("BUILD_DIR", "build"), "ferretdb")
    with tempfile.TemporaryDirectory(prefix="sluice-") as folder, \
            postgres(folder) as socket_folder, \
            running([str(program.resolve()), "-listen", "127.0.0.1:0",
                     "-postgresql-url",
                     f"postgres://sluice@/ferretdb?host={socket_folder}"],
                    f"{folder}/ferretdb.log") as server:
        uri = server.stdout.readline().strip()
        assert uri, pathlib.Path(f"{folder}/ferretdb.log").read_text()
        yield uri
