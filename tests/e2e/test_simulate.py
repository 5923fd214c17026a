"""sluice-simulate: an hour of calls on a virtual clock keeps the provider's
limit and uses nearly all of it. Needs no web server and no database."""
import subprocess

import pytest

from harness import BUILD


def run(*arguments):
    return subprocess.run([BUILD / "sluice-simulate", *map(str, arguments)],
                          capture_output=True, text=True)


def simulate(*arguments):
    """The line that it prints, as a dictionary of numbers."""
    done = run("--hours", 1, *arguments)
    assert done.returncode == 0, done.stderr
    return {key: float(value) for key, value in
            (word.split("=") for word in done.stdout.split())}


@pytest.mark.short
def test_an_hour_uses_the_limit_and_is_never_refused():
    figures = simulate("--seeds", 3, "--late", "0.002:500")
    assert figures["429s"] == 0
    assert figures["max_in_window"] == 25
    assert figures["share"] >= 0.985


@pytest.mark.short
@pytest.mark.parametrize("arguments", [
    ("--window", "fixed"),
    ("--count-at", "answer"),
    ("--jitter-ms", "0-1000"),
    ("--jitter-ms", "0-3000", "--late", "0.05:20000"),
    ("--restart-every-s", 7, "--late", "0.01:500"),
    ("--count", 1, "--window-ms", 1000),
], ids=lambda arguments: " ".join(map(str, arguments)))
def test_whatever_the_network_does_nothing_is_refused(arguments):
    figures = simulate("--seeds", 3, *arguments)
    assert figures["429s"] == 0
    assert figures["max_in_window"] <= 25


@pytest.mark.short
def test_others_at_the_provider_cost_calls_but_not_the_service():
    """Each 429 is an episode of its own that ends: no call goes into a
    lock-out, though it is as long as the pause."""
    figures = simulate("--others", 0.5)
    assert figures["429s"] > 0
    assert figures["429s"] == figures["episodes"]
    assert figures["share"] > 0.5
    # A lock-out that outlasts the pause is probed, at longer and longer ones.
    figures = simulate("--others", 0.5, "--lockout-ms", 100000)
    assert figures["429s"] > figures["episodes"] > 0
    assert figures["share"] > 0.2


def test_the_same_seed_is_the_same_run():
    seven = run("--others", 5, "--seed", 7).stdout
    assert seven == run("--others", 5, "--seed", 7).stdout
    assert seven != run("--others", 5, "--seed", 8).stdout


@pytest.mark.parametrize("option, value", [
    ("--window", "slid"), ("--count", "0"), ("--count", "10001"),
    ("--jitter-ms", "9-2"), ("--late", "0.1"), ("--late", "2:5"),
    ("--hours", "-1"), ("--seeds", "")])
def test_a_wrong_value_is_refused_by_its_options_name(option, value):
    done = run(option, value)
    assert done.returncode == 2
    assert f"{option}: expected" in done.stderr
    assert done.stdout == ""


def test_help_names_every_option():
    done = run("--help")
    assert done.returncode == 0
    for option in ("window", "count-at", "jitter-ms", "others", "seeds"):
        assert f"--{option} " in done.stdout
