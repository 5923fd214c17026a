"""Fixtures: one PostgreSQL a session, one shared Sluice a web server, and
instances of a test's own. Logs of what runs are shown when a test fails."""
import itertools

import pytest

import harness

def pytest_configure(config):
    config.addinivalue_line(
        "markers", "smoke: the short run for the sanitizer builds")
    config.addinivalue_line("markers", "short: the same as smoke")


def pytest_collection_modifyitems(items):
    """`-m short` and `-m smoke` choose the same tests."""
    for item in items:
        if item.get_closest_marker("smoke"):
            item.add_marker(pytest.mark.short)
        elif item.get_closest_marker("short"):
            item.add_marker(pytest.mark.smoke)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        fixtures = list(getattr(item, "funcargs", {}).values())
        used = fixtures + [i for f in fixtures for i in getattr(f, "made", [])]
        for instance in used:
            if isinstance(instance, harness.Instance):
                report.sections.append(
                    (f"logs of {instance.name}", instance.log_tails()))


@pytest.fixture(scope="session")
def place():
    place = harness.Place()
    yield place
    place.close()


@pytest.fixture(scope="session", params=harness.WEB_SERVERS)
def site(request, place):
    """A Sluice that many tests share, behind each web server in turn."""
    instance = place.instance(web=request.param)
    yield instance
    instance.close()


@pytest.fixture(scope="session")
def plain(place):
    """A shared Sluice behind lighttpd, for what does not depend on that."""
    instance = place.instance()
    yield instance
    instance.close()


@pytest.fixture
def make(place):
    """make(web=..., conf={...}): an instance of the test's own."""
    made = []

    def make_one(**options):
        made.append(place.instance(**options))
        return made[-1]

    make_one.made = made  # for the report of a failure
    yield make_one
    for instance in made:
        if instance in place.instances:
            instance.close()


COUNTER = itertools.count(1_000_000, 1000)


@pytest.fixture
def even():
    """A base for object ids that no other test uses; base + 2k is online."""
    return next(COUNTER)
