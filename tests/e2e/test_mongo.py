"""The MongoDB wire server keeps a unique compound index under a race."""

import os
import pathlib
import subprocess

import pytest
from mongo_server import mongo_server


@pytest.mark.short
def test_each_slot_is_granted_to_exactly_one_of_two_racing_clients():
    program = pathlib.Path(os.environ.get("BUILD_DIR", "build"), "mongo_race")
    with mongo_server() as uri:
        outcome = subprocess.run([str(program.resolve()), uri], timeout=60,
                                 capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert outcome.stdout.endswith("holds\n")
