"""quickstart: the user's one command, from start to stop."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

import pytest

import harness

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BUILD_DIR", TOP / "build")).resolve()


def quickstart(folder, *arguments):
    environment = {**os.environ, "QUICKSTART_BUILD": str(BUILD)}
    return subprocess.run(
        [TOP / "quickstart", "--no-install", "--dir", folder, *arguments],
        env=environment, capture_output=True, text=True, timeout=180)


def pid_of(folder, name):
    return int((folder / "pid" / f"{name}.pid").read_text().split()[0])


def ready(port):
    with contextlib.suppress(OSError):
        url = f"http://127.0.0.1:{port}/health/ready"
        return urllib.request.urlopen(url, timeout=2).status == 200
    return False


@pytest.fixture
def instance():
    """Runs in a folder too deep for the path of a socket. Not one of pytest's:
    another run of pytest would close the way to it to the service's user."""
    top = pathlib.Path(tempfile.mkdtemp(prefix="sluice-quickstart."))
    folder = top / ("deep" * 20) / "state"
    port = harness.free_port()
    outcome = quickstart(folder, "--detach", "--port", str(port))
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    yield folder, port, outcome.stdout
    quickstart(folder, "--stop")
    shutil.rmtree(top)


def test_it_shows_a_request_and_its_outcome(instance):
    folder, port, shown = instance
    assert f"http://127.0.0.1:{port}/callback" in shown
    page = shown.split("GET /objects?limit=5: ")[1].splitlines()[0]
    assert json.loads(page)["objects"]
    messages = re.findall(r"GET /sms/(\S+): (\w+)", shown)
    assert len({message_id for message_id, _ in messages}) == 3
    for message_id, _ in messages:
        moves = [status for i, status in messages if i == message_id]
        assert moves == ["ACCEPTED", "CONFIRMED", "DELIVERED"]
    assert quickstart(folder, "--status").returncode == 0


def test_what_dies_is_back_within_two_seconds(instance):
    folder, port, _ = instance
    for name in ("sluiced", "callback", "lighttpd", "postgres"):
        before = pid_of(folder, name)
        os.kill(before, signal.SIGKILL)
        deadline = time.monotonic() + 2
        while pid_of(folder, name) == before:
            assert time.monotonic() < deadline, name
            time.sleep(0.05)
    deadline = time.monotonic() + 20
    while not ready(port):
        assert time.monotonic() < deadline, "not ready again"
        time.sleep(0.1)


def test_a_second_start_keeps_its_data_and_is_refused_while_it_runs(instance):
    folder, port, _ = instance
    again = quickstart(folder, "--detach", "--port", str(port))
    assert again.returncode == 1
    assert "is running already" in again.stderr
    configuration = (folder / "sluice.conf").read_text()
    assert quickstart(folder, "--stop").returncode == 0
    assert not list((folder / "pid").glob("*.pid"))
    started = time.monotonic()
    assert quickstart(folder, "--detach", "--port",
                      str(port)).returncode == 0
    # The call takes up to 10 s, the messages about 3.
    assert time.monotonic() - started < 20
    assert (folder / "sluice.conf").read_text() == configuration


def test_a_pid_that_is_not_ours_any_more_is_left_alone(instance):
    folder, _, _ = instance
    assert quickstart(folder, "--stop").returncode == 0
    other = subprocess.Popen(["sleep", "60"])
    (folder / "pid" / "sluiced.pid").write_text(f"{other.pid} 1\n")
    assert quickstart(folder, "--stop").returncode == 0
    assert other.poll() is None
    other.kill()
    other.wait()
