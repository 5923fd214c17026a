"""Configuration: file, environment, flags, -t, SIGHUP; and migrations."""
import os
import re
import shutil
import signal

import pytest

from harness import is_online, wait_for


def check(instance, *flags, **environment):
    return instance.run_sluiced("-t", *flags, environment=environment)


@pytest.fixture
def stopped(make):
    """An instance of which nothing runs."""
    return make(start=False)


@pytest.mark.smoke
def test_a_good_configuration(stopped):
    done = check(stopped)
    assert done.returncode == 0, done


BAD = {
    # name: (line, what the message must say)
    "above the range": ("concurrency = 99999", "callback.concurrency"),
    "below the range": ("concurrency = 0", "callback.concurrency"),
    "not a number": ("timeout_ms = soon", "callback.timeout_ms"),
    "a wrong unit": ("timeout_ms = 5s", "callback.timeout_ms"),
    "an unknown key": ("concurency = 5", "concurency"),
    "no value": ("max_attempts =", "max_attempts"),
    "negative": ("expire_s = -1", "callback.expire_s"),
    "overflow": ("rate_per_s = 99999999999999999999", "rate_per_s"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_error_names_file_and_line(stopped, name):
    line, says = BAD[name]
    stopped.conf_file.write_text(
        "# a comment\n[node]\nid = 3\n\n[callback]\n" + line + "\n")
    done = check(stopped)
    assert done.returncode not in (0, None)
    assert "sluice.conf:6" in done.stderr, done.stderr
    assert says in done.stderr, done.stderr


def test_every_error_is_named(stopped):
    stopped.conf_file.write_text(
        "[callback]\nconcurrency = 0\nnonsense = 1\n[nowhere]\nkey = 2\n"
        "[journal]\nmax_bytes = 5 bananas\n")
    errors = check(stopped).stderr
    for line in (2, 3, 5, 7):
        assert f"sluice.conf:{line}" in errors, errors


def test_a_line_that_is_none(stopped):
    stopped.conf_file.write_text("[callback]\nwhat is this\n")
    done = check(stopped)
    assert done.returncode != 0 and "sluice.conf:2" in done.stderr, done


def test_mail_that_cannot_be_written_is_an_error(stopped):
    done = check(stopped, "--mail-templates", str(stopped.dir))
    assert done.returncode != 0 and "welcome.subject" in done.stderr, done
    done = check(stopped, SLUICE_MAIL_FROM="nobody at all")
    assert done.returncode != 0 and "mail.from" in done.stderr, done


def test_no_file(stopped):
    stopped.conf_file.unlink()
    done = check(stopped)
    assert done.returncode != 0 and "sluice.conf" in done.stderr


def test_bytes_take_units(stopped):
    for value in ("4194304", "4096 KiB", "64MiB", "1 GiB"):
        stopped.write_conf(journal__max_bytes=value)
        assert check(stopped).returncode == 0, value


def test_environment_and_flags_are_checked_too(stopped):
    done = check(stopped, SLUICE_CALLBACK_CONCURRENCY="many")
    assert done.returncode != 0
    assert "SLUICE_CALLBACK_CONCURRENCY" in done.stderr, done.stderr
    done = check(stopped, "--callback-concurrency", "many")
    assert done.returncode != 0
    assert "--callback-concurrency" in done.stderr, done.stderr
    assert check(stopped, "--no-such-flag", "1").returncode != 0


def test_later_wins_file_environment_flag(make, even):
    """All three give callback.expire_s; the one that counts expires."""
    instance = make(conf={"callback.expire_s": 0}, start=False)
    instance.start_objects()
    instance.start_web()
    instance.sluiced.popen_options["env"]["SLUICE_CALLBACK_EXPIRE_S"] = "100"
    instance.sluiced.argv += ["--callback-expire-s", "1"]
    instance.sluiced.start()
    instance.wait_ready()
    instance.accept([even])
    wait_for(lambda: instance.fetches(even), "it is fetched")
    instance.wait_idle()
    wait_for(lambda: not instance.stored(), "the flag's second is over")


def test_help_lists_every_key(stopped):
    done = stopped.run_sluiced("--help-config")
    assert done.returncode == 0
    for key in ("node.id", "journal.max_bytes", "edge.batch", "postgres.url",
                "callback.concurrency", "callback.expire_s"):
        assert key in done.stdout, key


# --- SIGHUP ------------------------------------------------------------------------

def limit(instance):
    return instance.metrics()[("sluice_fetch_limit", ())]


@pytest.mark.smoke
def test_sighup_swaps_a_good_configuration(make, even):
    instance = make(conf={"callback.concurrency": 7})
    assert limit(instance) == 7
    instance.write_conf(callback__concurrency=9)
    instance.sluiced.send(signal.SIGHUP)
    wait_for(lambda: limit(instance) == 9, "the new one counts")
    instance.accept([even])
    instance.wait_stored([even])


def test_sighup_refuses_a_bad_configuration_as_a_whole(make, even):
    instance = make(conf={"callback.concurrency": 7})
    instance.write_conf(callback__concurrency=9, callback__timeout_ms="soon")
    instance.sluiced.send(signal.SIGHUP)
    wait_for(lambda: "reload_refused" in instance.sluiced.log_text(),
             "it says so")
    assert "timeout_ms" in instance.sluiced.log_text()
    assert limit(instance) == 7
    instance.accept([even])
    instance.wait_stored([even])


def test_sighup_names_what_needs_a_restart(make):
    instance = make()
    instance.write_conf(control__path=instance.run / "other.sock")
    instance.sluiced.send(signal.SIGHUP)
    line = wait_for(lambda: re.search(r"event=reloaded.*|reloaded .*",
                                      instance.sluiced.log_text()), "reloaded")
    assert "control.path" in line.group(0)
    instance.write_conf(control__path=None)
    assert instance.ctl("status")["dispatcher"]  # still where it was


# --- Migrations ----------------------------------------------------------------------

def test_migrate_applies_once(stopped):
    for _ in range(2):
        done = stopped.run_sluiced("--migrate")
        assert done.returncode == 0, done
    applied = stopped.sql("SELECT number, sha256 FROM sluice_migrations")
    assert [number for number, _ in applied] == list(
        range(1, len(applied) + 1))
    assert stopped.stored() == set()


def test_migrations_race_harmlessly(make, place):
    instance = make(start=False)
    racers = [instance.process(f"migrate{k}", [
        place.bin / "sluiced", "--config", instance.conf_file, "--migrate"]
    ).start() for k in range(4)]
    assert [r.wait() for r in racers] == [0] * 4
    assert instance.stored() == set()


def test_a_newer_schema_is_refused(stopped):
    assert stopped.run_sluiced("--migrate").returncode == 0
    stopped.sql("INSERT INTO sluice_migrations(number, name, sha256)"
                " VALUES(9999, '9999_future.sql', 'x')")
    for flags in (["--migrate"], []):
        done = stopped.run_sluiced(*flags)
        assert done.returncode not in (0, None), flags
        assert "9999" in done.stderr or "newer" in done.stderr, done.stderr


def test_a_changed_migration_is_refused(stopped):
    assert stopped.run_sluiced("--migrate").returncode == 0
    stopped.sql("UPDATE sluice_migrations SET sha256 = 'x' || sha256")
    done = stopped.run_sluiced("--migrate")
    assert done.returncode != 0
    assert "0001_objects.sql" in done.stderr, done.stderr


def test_a_migration_that_fails_leaves_nothing(make, place):
    instance = make(start=False)
    folder = instance.dir / "migrations"
    shutil.copytree(place.bin / "migrations", folder)
    count = len(list(folder.iterdir()))
    (folder / f"{count + 1:04}_broken.sql").write_text(
        "CREATE TABLE half_done(x int);\nSELECT no_such_function();\n")
    done = instance.run_sluiced(
        "--migrate", environment={"SLUICE_MIGRATIONS": str(folder)})
    assert done.returncode != 0 and "broken" in done.stderr, done
    assert instance.sql("SELECT count(*) FROM sluice_migrations") == [(count,)]
    assert instance.sql("SELECT to_regclass('half_done')") == [(None,)]


def test_sluiced_applies_them_at_its_start(make, even):
    instance = make()  # a fresh database, and nobody called --migrate
    instance.accept([even])
    assert is_online(even)
    instance.wait_stored([even])
    assert instance.sql("SELECT count(*) FROM nodes") == [(1,)]


def test_a_deep_state_folder(make, even):
    """Sockets' paths are limited to 107 bytes: a config that breaks that is
    refused with its name, not cut."""
    instance = make(start=False)
    deep = instance.dir / ("d" * 100)
    os.mkdir(deep)
    instance.write_conf(node__run_dir=deep)
    done = check(instance)
    assert done.returncode != 0
    assert "run_dir" in done.stderr or "path" in done.stderr or \
        "endpoint" in done.stderr, done.stderr
