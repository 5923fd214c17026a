"""invitation.fcgi: the form and its JSON twin behind each web server, in a
text browser and in a real one. The dispatcher is not needed: what counts is
what people see, and what stands in the journal. That nobody sees what is known
of him is in test_invitation.py, for there something is known."""
import concurrent.futures
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.parse

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import harness
from harness import wait_for

AXE = harness.BUILD / "axe" / "node_modules" / "axe-core" / "axe.min.js"
ARTEFACTS = harness.BUILD / "artefacts"
FORM = "application/x-www-form-urlencoded"
BROWSER = ("text/html,application/xhtml+xml,application/xml;q=0.9,"
           "image/avif,image/webp,*/*;q=0.8")
PATH = "/invitations/twitter-reg1"

BAD_ADDRESSES = ("", " ", "jo", "jo@", "@example.com", "jo@@example.com",
                 "a b@example.com", "jo@exa mple.com", "jo@-example.com",
                 "x" * 65 + "@example.com", "jo@" + "x" * 300 + ".com",
                 "jo@example.com\r\nBcc: all@example.com",
                 "\"><script>alert('1')</script>@example.com")


def front_of(place, web="lighttpd", **conf):
    """Web server and handlers."""
    instance = place.instance(web=web, start=False, conf=conf)
    instance.start_web()
    return instance


@pytest.fixture(scope="module", params=harness.WEB_SERVERS)
def front(request, place):
    instance = front_of(place, request.param)
    yield instance
    instance.close()


@pytest.fixture(scope="module")
def one(place):
    """For what does not depend on the web server."""
    instance = front_of(place)
    yield instance
    instance.close()


def post_form(instance, email, path=PATH, **headers):
    body = urllib.parse.urlencode({"email": email}).encode()
    return instance.request("POST", path, body,
                            {"Content-Type": FORM, "Accept": BROWSER,
                             **headers})


def post_json(instance, body, path=PATH, headers=None):
    return instance.request("POST", path, body, {
        "Content-Type": "application/json"} if headers is None else headers)


def journalled(instance):
    if not instance.journal_path.exists():
        return []  # the first request makes it; SQLite would do so here
    return [row["body"].decode() if isinstance(row["body"], bytes)
            else row["body"] for row in instance.journal_rows(
                "SELECT body FROM queue_invitation ORDER BY seq")]


def page(reply, status):
    """A reply that must be one of our pages."""
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "text/html; charset=utf-8", reply
    policy = reply.headers["content-security-policy"]
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; "
        r"form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        policy), policy
    check_headers(reply)
    text = reply.body.decode()
    for unwanted in ("<script", "style=", "onclick", "<img"):
        assert unwanted not in text, text
    return text


def check_headers(reply):
    assert reply.headers["x-content-type-options"] == "nosniff", reply
    assert reply.headers["referrer-policy"] == "no-referrer", reply
    assert reply.headers["cache-control"] == "no-store", reply
    assert reply.headers["x-request-id"], reply


# --- Over HTTP -----------------------------------------------------------------

@pytest.mark.smoke
def test_the_form_is_shown(front):
    text = page(front.get(PATH), 200)
    assert '<html lang="en">' in text
    assert '<form method="post" action="twitter-reg1">' in text
    assert '<label for="email">' in text
    assert 'autocomplete="email"' in text and 'inputmode="email"' in text
    assert "aria-invalid=" not in text
    head = front.request("HEAD", PATH)
    assert head.body == b""
    assert page(head, 200) == ""
    # Whoever asks gets the form, whatever the query, the key or the code.
    for path in (f"{PATH}?utm_source=x", "/invitations/" + "a" * 64,
                 "/invitations/-", "/invitations/twitter%2dreg1"):
        page(front.get(path), 200)


@pytest.mark.smoke
def test_what_is_asked_stands_in_the_journal(front):
    page(post_form(front, " Jo+a@Example.com "), 202)
    assert journalled(front)[-1] == "twitter-reg1 Jo+a@Example.com"
    for headers in (None, {}, {"Content-Type": FORM}):
        reply = post_json(front, b'{"email": "j\xc3\xb6@example.com"}',
                          "/invitations/x-1", headers)
        assert reply.status == 202, reply
        assert re.fullmatch(r'\{"id":"[0-9a-f-]{36}"\}',
                            reply.body.decode()), reply
        check_headers(reply)
        assert journalled(front)[-1] == "x-1 jö@example.com"


def test_bad_addresses_come_back_with_a_reason(front):
    before = len(journalled(front))
    for address in BAD_ADDRESSES:
        text = page(post_form(front, address), 400)
        assert "<title>Error: " in text
        assert 'aria-describedby="email-hint email-error"' in text
        assert 'aria-invalid="true" autofocus' in text
        reason = re.search(r'<p id="email-error">(.*?)</p>\n<input', text)
        assert reason and len(reason[1]) > 10, text
        document = post_json(front, harness.json.dumps(
            {"Email": address}).encode()).problem()
        assert document["status"] == 400, document
        assert [e["field"] for e in document["errors"]] == ["Email"]
        assert document["errors"][0]["reason"], document
    assert len(journalled(front)) == before


def test_what_was_typed_is_kept_and_harmless(one):
    for typed, kept in (
            ("jo@", "jo@"),
            ("\"><script>alert('1')</script>",
             "&quot;&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;"),
            ("&amp;", "&amp;amp;"), ("jö@", "jö@"), ("x" * 4000, "x" * 4000),
            ("x" * 5000, "")):
        text = page(post_form(one, typed), 400)
        assert f' value="{kept}">' in text, text
    raw = one.request("POST", PATH, b"email=%ff%00%1b", {"Content-Type": FORM})
    page(raw, 400)
    for body in (b"", b"email", b"a=b", b"email=a&email=b", b"email=%zz",
                 b"email=\xff", b"&&&=&", b"email=a%40b.de&email="):
        page(one.request("POST", PATH, body, {"Content-Type": FORM}), 400)
    raw = one.request("POST", PATH, "email=jö@b.de".encode(),
                      {"Content-Type": FORM})
    assert ('<p id="email-error">The form could not be read: not valid form '
            'data at byte 7.</p>') in page(raw, 400)
    for body in (b"", b"[]", b'{"Email": 7}', b'{"Email": null}', b"{}",
                 b'{"Email": "a@b.de", "email": "a@b.de"}'):
        assert post_json(one, body).problem()["status"] == 400


def test_a_repeat_with_a_key_is_one_request(one):
    """Of one code: with another one it is another request."""
    before = len(journalled(one))
    key = {"Idempotency-Key": "press-twice"}
    page(post_form(one, "k@example.com", **key), 202)
    again = post_form(one, "k@example.com", **key)
    page(again, 202)
    assert again.headers["idempotent-replayed"] == "true"
    assert len(journalled(one)) == before + 1
    page(post_form(one, "k@example.com", "/invitations/other", **key), 202)
    assert len(journalled(one)) == before + 2
    page(post_form(one, "l@example.com", **key), 422)


BAD_PATHS = ("/invitations/Twitter", "/invitations/a_b", "/invitations/" +
             "a" * 65, "/invitations/a/b", "/invitations/%3Cscript%3E",
             "/invitations/")


def test_other_errors_are_pages_for_people_and_problems_for_programs(front):
    person, program = {"Accept": BROWSER}, {"Accept": "*/*"}
    for path in BAD_PATHS:
        assert "There is no such page" in page(
            front.get(path, headers=person), 404)
        assert front.get(path, headers=program).problem()["code"] == \
            "not_found"
        page(post_form(front, "a@b.de", path), 404)
        assert post_json(front, b'{"Email": "a@b.de"}', path).problem()[
            "status"] == 404
    reply = front.request("PUT", PATH, b"", person)
    page(reply, 405)
    assert reply.headers["allow"] == "GET, HEAD, POST, OPTIONS", reply
    assert front.request("PUT", PATH, b"", program).problem()["status"] == 405
    text = {"Content-Type": "text/plain"}
    page(front.request("POST", PATH, b"email=a", {**person, **text}), 415)
    reply = front.request("POST", PATH, b"email=a", text)
    assert reply.problem()["status"] == 415
    assert FORM in reply.headers["accept"]
    long = "x" * 70000
    page(post_form(front, long), 413)
    page(post_form(front, "x" * 400000), 413)
    assert post_json(front, b'{"Email": "%s"}' % long.encode()).problem()[
        "status"] == 413


def test_no_api_key_is_asked(place):
    keys = place.folder / "invitation.keys"
    keys.write_text("a-key-that-is-long-enough-to-be-one\n")
    harness.give_to(keys, place.user)
    keys.chmod(0o600)
    instance = front_of(place, **{"auth.keys_file": keys})
    page(instance.get(PATH), 200)
    page(post_form(instance, "a@example.com"), 202)
    assert instance.post([1]).status == 401
    instance.close()


# --- edge.max_per_s --------------------------------------------------------------

def test_a_burst_is_delayed_not_dropped(place):
    instance = front_of(place, **{"edge.max_per_s": 5,
                                  "edge.max_wait_ms": 60000})
    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        posts = [pool.submit(post_form, instance, f"p{k}@example.com")
                 for k in range(20)]
        page(instance.get(PATH), 200)  # reads are not held up
        assert not all(post.done() for post in posts)
        for post in posts:
            page(post.result(), 202)
    assert time.monotonic() - began >= 19 / 5 - 0.01
    assert len(journalled(instance)) == 20
    instance.close()


def test_whose_turn_is_too_late_is_told_so(place):
    instance = front_of(place, **{"edge.max_per_s": 1, "edge.max_wait_ms": 0})

    def refused(send):
        """More than one a second must meet with it."""
        def tried():
            reply = send()
            return reply if reply.status == 503 else None
        reply = wait_for(tried, "a 503", every=0)
        assert reply.headers["retry-after"] == "1", reply
        return reply

    text = page(refused(lambda: post_form(instance, "a@example.com")), 503)
    assert "try again" in text and '<a href="twitter-reg1">' in text
    reply = refused(lambda: post_json(instance, b'{"Email": "a@b.de"}'))
    assert reply.problem()["code"] == "too_many_requests"
    page(instance.get(PATH), 200)
    instance.close()


# --- In browsers -------------------------------------------------------------------

def test_a_text_browser_shows_it_and_sends_it(one):
    url = f"http://127.0.0.1:{one.port}{PATH}"

    def w3m(*arguments):
        with tempfile.TemporaryDirectory() as home:
            return subprocess.run(
                ["w3m", "-dump", "-cols", "72", *arguments, url], check=True,
                capture_output=True, text=True, timeout=harness.DEADLINE_S,
                env={"PATH": "/usr/bin:/bin", "HOME": home,
                     "LC_ALL": "C.UTF-8"}).stdout

    shown = w3m()
    order = [shown.index(words) for words in (
        "Ask for an invitation", "twitter-reg1", "Your e-mail address",
        "For example", "Ask for a place")]
    assert order == sorted(order), shown
    with tempfile.NamedTemporaryFile("w", suffix=".form") as form:
        form.write("email=w3m%40example.com")
        form.flush()
        assert "Thank you" in w3m("-post", form.name)
        assert journalled(one)[-1] == "twitter-reg1 w3m@example.com"
        form.seek(0)
        form.truncate()
        form.write("email=w3m%40")
        form.flush()
        assert "w3m@" in w3m("-post", form.name)


@pytest.fixture(scope="module")
def browser():
    ARTEFACTS.mkdir(exist_ok=True)
    profile = tempfile.mkdtemp(prefix="sluice-chromium.")
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    arguments = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage",
                 "--no-first-run", "--window-size=900,700", "--lang=en",
                 "--disable-background-networking", "--disable-sync",
                 "--disable-component-update",
                 f"--user-data-dir={profile}"]
    if os.getuid() == 0:
        arguments.append("--no-sandbox")  # root may not have one
    for argument in arguments:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options,
                              service=Service("/usr/bin/chromedriver"))
    driver.set_page_load_timeout(harness.DEADLINE_S)
    driver.set_script_timeout(harness.DEADLINE_S)
    yield driver
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)


def press(browser, *keys):
    ActionChains(browser).send_keys(*keys).perform()


def focused(browser):
    return browser.switch_to.active_element


def wait_heading(browser, title):
    wait_for(lambda: browser.title == title, f"the page {title!r}")
    return browser.find_element(By.TAG_NAME, "h1").text


def colours(browser, scheme):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "features": [{"name": "prefers-color-scheme", "value": scheme}]})


def violations(browser):
    browser.execute_script(AXE.read_text())
    found = browser.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "axe.run().then(r => done([r.violations, r.passes.length]),"
        " e => done([[{id: String(e)}], 0]));")
    assert found[1] > 5, found  # it has looked
    return found[0]


def check_page(browser, name):
    """Accessible in light and dark, wide and narrow; a picture of each."""
    for scheme in ("light", "dark"):
        colours(browser, scheme)
        assert violations(browser) == [], (name, scheme)
        browser.save_screenshot(str(ARTEFACTS / f"{name}-{scheme}.png"))
    colours(browser, "light")
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": 320, "height": 640, "deviceScaleFactor": 2, "mobile": True})
    assert browser.execute_script(
        "return document.documentElement.scrollWidth") <= 320, name
    assert violations(browser) == [], (name, "narrow")
    browser.save_screenshot(str(ARTEFACTS / f"{name}-narrow.png"))
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    # The policy stops nothing that the page needs.
    complaints = [entry for entry in browser.get_log("browser")
                  if "Content Security Policy" in entry["message"]
                  and "favicon" not in entry["message"]]
    assert complaints == [], complaints


def test_a_person_with_a_keyboard_gets_through(one, browser):
    browser.get(f"http://127.0.0.1:{one.port}{PATH}")
    assert wait_heading(browser, "Ask for an invitation") == \
        "Ask for an invitation"
    field = browser.find_element(By.ID, "email")
    assert field.accessible_name == "Your e-mail address"
    # The style is applied: the policy's hash is right.
    assert field.value_of_css_property("border-top-left-radius") != "0px"
    check_page(browser, "form")

    # The first stop of the tab key is the field, the second the button.
    press(browser, Keys.TAB)
    assert focused(browser) == field
    press(browser, "jo at example.com", Keys.TAB)
    assert focused(browser).tag_name == "button"
    press(browser, Keys.SPACE)

    wait_heading(browser, "Error: Ask for an invitation")
    field = browser.find_element(By.ID, "email")
    assert focused(browser) == field
    assert field.get_attribute("value") == "jo at example.com"
    assert field.get_attribute("aria-invalid") == "true"
    error = browser.find_element(By.ID, "email-error")
    assert error.is_displayed() and len(error.text) > 10
    check_page(browser, "error")

    ActionChains(browser).key_down(Keys.CONTROL).send_keys("a").key_up(
        Keys.CONTROL).perform()
    press(browser, "jörg@example.com", Keys.ENTER)
    assert wait_heading(browser, "Thank you") == "Thank you"
    check_page(browser, "thanks")
    assert journalled(one)[-1] == "twitter-reg1 jörg@example.com"

    press(browser, Keys.TAB)
    assert focused(browser).tag_name == "a"
    press(browser, Keys.ENTER)
    wait_heading(browser, "Ask for an invitation")


def test_pages_of_errors_are_accessible_too(one, browser):
    browser.get(f"http://127.0.0.1:{one.port}/invitations/No_Such_Page")
    wait_heading(browser, "There is no such page")
    check_page(browser, "no-such-page")


def test_what_was_typed_runs_nowhere(one, browser):
    browser.get(f"http://127.0.0.1:{one.port}{PATH}")
    typed = "\"><script>document.title='run'</script><b onfocus=x>"
    browser.find_element(By.ID, "email").send_keys(typed, Keys.ENTER)
    wait_heading(browser, "Error: Ask for an invitation")
    assert browser.find_element(By.ID, "email").get_attribute("value") == typed
    assert browser.find_elements(By.CSS_SELECTOR, "script, b") == []
