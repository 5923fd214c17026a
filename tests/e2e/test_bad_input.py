"""What must not be accepted: the right 4xx with a problem document that names
the field, and nothing in the journal. Behind each web server, and straight to
the handler's socket for what no web server lets through."""
import contextlib
import socket
import time

import pytest

import harness
from harness import (fcgi_connect, fcgi_params, fcgi_record, fcgi_reply,
                     fcgi_request, ids_body, parse_http, raw_http)

JSON_TYPE = {"Content-Type": "application/json"}
WHOLE = ""  # the field's name when the whole body is meant
IDS = "object_ids"


@pytest.fixture
def unchanged(site):
    """Nothing may have been accepted when the test ends."""
    before = site.accepted()
    yield
    assert site.accepted() == before


def refused(site, body, status=400, headers=None):
    reply = site.request("POST", "/callback", body,
                         JSON_TYPE if headers is None else headers)
    assert reply.status == status, reply
    assert reply.headers["x-request-id"]
    return reply.problem()


BODIES = {
    # name: (body, field that the document names)
    "empty": (b"", WHOLE),
    "blank": (b"  \r\n ", WHOLE),
    "not JSON": (b"object_ids=1", WHOLE),
    "cut off": (b'{"object_ids": [1, 2', WHOLE),
    "two documents": (b'{"object_ids": [1]}{"object_ids": [2]}', WHOLE),
    "something behind": (b'{"object_ids": [1]} x', WHOLE),
    "trailing comma": (b'{"object_ids": [1,]}', WHOLE),
    "single quotes": (b"{'object_ids': [1]}", WHOLE),
    "comment": (b'{"object_ids": [1] /* all */}', WHOLE),
    "leading zero": (b'{"object_ids": [007]}', WHOLE),
    "NaN": (b'{"object_ids": [NaN]}', WHOLE),
    "byte order mark": (b'\xef\xbb\xbf{"object_ids": [1]}', WHOLE),
    "UTF-16": ('{"object_ids": [1]}'.encode("utf-16"), WHOLE),
    "invalid UTF-8": (b'{"object_ids": [1], "x": "\xff"}', WHOLE),
    "overlong UTF-8": (b'{"object_ids": [1], "x": "\xc0\xaf"}', WHOLE),
    "surrogate in UTF-8": (b'{"object_ids": [1], "x": "\xed\xa0\x80"}', WHOLE),
    "lone surrogate": (b'{"object_ids": [1], "x": "\\ud800"}', WHOLE),
    "escaped NUL": (b'{"object_ids": [1], "x": "\\u0000"}', WHOLE),
    "raw NUL": (b'{"object_ids": [1], "x": "\x00"}', WHOLE),
    "raw control": (b'{"object_ids": [1], "x": "\x01"}', WHOLE),
    "depth bomb": (b'{"object_ids": ' + b"[" * 1000 + b"]" * 1000 + b"}",
                   WHOLE),
    "depth bomb, open": (b"[" * 60000, WHOLE),
    "an array": (b"[1, 2]", WHOLE),
    "a number": (b"7", WHOLE),
    "null": (b"null", WHOLE),
    "no member": (b"{}", IDS),
    "another member": (b'{"objects": [1]}', IDS),
    "a string": (b'{"object_ids": "1"}', IDS),
    "null ids": (b'{"object_ids": null}', IDS),
    "an object": (b'{"object_ids": {"0": 1}}', IDS),
    "a number as ids": (b'{"object_ids": 1}', IDS),
    "twice": (b'{"object_ids": [1], "object_ids": [1]}', IDS),
    "twice, other case": (b'{"object_ids": [1], "OBJECT_IDS": []}', IDS),
    "twice, escaped": (b'{"object_ids": [1], "object\\u005fids": [1]}', IDS),
    "201 ids": (ids_body(range(201)), IDS),
    "201 times one id": (ids_body([7] * 201), IDS),
    "an id as string": (b'{"object_ids": [1, "2"]}', "object_ids[1]"),
    "a negative id": (b'{"object_ids": [1, 2, -3]}', "object_ids[2]"),
    "minus zero": (b'{"object_ids": [-0]}', "object_ids[0]"),
    "a fraction": (b'{"object_ids": [1.5]}', "object_ids[0]"),
    "2^53 + 1": (b'{"object_ids": [9007199254740993]}', "object_ids[0]"),
    "2^64 + 1": (b'{"object_ids": [18446744073709551617]}', "object_ids[0]"),
    "a huge exponent": (b'{"object_ids": [1e999]}', "object_ids[0]"),
    "a null id": (b'{"object_ids": [null]}', "object_ids[0]"),
    "a true id": (b'{"object_ids": [true]}', "object_ids[0]"),
    "a nested array": (b'{"object_ids": [[1]]}', "object_ids[0]"),
}


@pytest.mark.parametrize("name", BODIES)
def test_body(site, unchanged, name):
    body, field = BODIES[name]
    problem = refused(site, body)
    fields = [error["field"] for error in problem["errors"]]
    assert field in fields, problem
    assert all(error["reason"] for error in problem["errors"])


def test_every_bad_id_is_named(site, unchanged):
    problem = refused(site, b'{"object_ids": [-1, 2, "3", 4.5]}')
    assert [e["field"] for e in problem["errors"]] == \
        ["object_ids[0]", "object_ids[2]", "object_ids[3]"]


@pytest.mark.smoke
def test_a_body_of_64_KiB_is_the_largest(site, even):
    exact = ids_body([even])[:-1] + b', "filler": "'
    exact += b"x" * (65536 - len(exact) - 2) + b'"}'
    assert len(exact) == 65536
    assert site.post(exact).status == 202
    before = site.accepted()
    assert refused(site, exact[:-2] + b'x"}', 413)["code"]
    assert refused(site, exact[:-2] + b"x" * 1_000_000 + b'"}', 413)["code"]
    assert site.accepted() == before


@pytest.mark.parametrize("content_type", [
    "text/plain", "application/xml", "multipart/form-data; boundary=x",
    "application/jsonx", "application/x-www-form-urlencoded"])
def test_media_types_that_are_refused(site, unchanged, content_type):
    body = b"object_ids=1" if "form-url" in content_type else ids_body([1])
    problem = refused(site, body, 415, {"Content-Type": content_type})
    assert problem["code"]


@pytest.mark.parametrize("method, path, allow", [
    ("GET", "/callback", {"POST"}), ("PUT", "/callback", {"POST"}),
    ("DELETE", "/callback", {"POST"}), ("PATCH", "/callback", {"POST"}),
    ("POST", "/objects", {"GET", "HEAD"}),
    ("DELETE", "/objects/7", {"GET", "HEAD"}),
    ("POST", "/health/live", {"GET", "HEAD"}),
])
def test_wrong_method(site, unchanged, method, path, allow):
    body = b"{}" if method in ("POST", "PUT", "PATCH") else None
    reply = site.request(method, path, body, JSON_TYPE)
    assert reply.status == 405, reply
    assert {m.strip() for m in reply.headers["allow"].split(",")} >= allow
    reply.problem()


@pytest.mark.parametrize("path", [
    "/", "/nope", "/callback/", "/callback/7", "/callbacks", "/objects/1/2",
    "/Callback", "/health", "/objects/"])
def test_unknown_path(site, unchanged, path):
    reply = site.get(path)
    assert reply.status == 404, reply
    assert reply.problem()["code"]


def test_no_content_length(site, unchanged):
    """HTTP/1.1 then has no body: empty, or the web server's own 411."""
    received = raw_http(site.port, b"POST /callback HTTP/1.1\r\nHost: x\r\n"
                        b"Content-Type: application/json\r\n"
                        b"Connection: close\r\n\r\n")
    assert parse_http(received).status in (400, 411)


def test_chunked_body(site, even):
    """Web servers de-chunk; what cannot be taken is refused, never half."""
    body = ids_body([even])
    before = site.accepted()
    received = raw_http(
        site.port, b"POST /callback HTTP/1.1\r\nHost: x\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: close\r\n\r\n"
        + b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
    status = parse_http(received).status
    if status == 202:
        site.wait_stored([even])
    else:
        assert status in (400, 411), received
        assert site.accepted() == before


def test_more_length_than_body(site, unchanged):
    """The client closes before what it promised has come."""
    received = raw_http(
        site.port, b"POST /callback HTTP/1.1\r\nHost: x\r\n"
        b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        + ids_body([1]), seconds=60)
    # mod_fcgid has a bare 500 for it.
    assert received == b"" or parse_http(received).status in (400, 408, 500)


def test_less_length_than_body(site, unchanged):
    body = ids_body([1, 2, 3])
    received = raw_http(
        site.port, b"POST /callback HTTP/1.1\r\nHost: x\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % (len(body) - 3) + body)
    assert parse_http(received).status == 400


@pytest.mark.parametrize("length", ["-1", "abc", "99999999999999999999", "1 2",
                                    "+19", "0x13"])
def test_a_length_that_is_none(site, unchanged, length):
    received = raw_http(
        site.port, b"POST /callback HTTP/1.1\r\nHost: x\r\n"
        b"Content-Type: application/json\r\nContent-Length: "
        + length.encode() + b"\r\nConnection: close\r\n\r\n" + ids_body([1]))
    assert received == b"" or 400 <= parse_http(received).status < 500


def test_a_body_that_comes_a_byte_a_second(site, unchanged):
    """Everybody else is served meanwhile. mod_proxy_fcgi hands the body on as
    it comes: 408 after 10 s. The others keep it back until it is whole: what
    takes 15 s there is one body like another."""
    slow = socket.create_connection(("127.0.0.1", site.port), 120)
    slow.sendall(b"POST /callback HTTP/1.1\r\nHost: x\r\n"
                 b"Content-Type: application/json\r\n"
                 b"Content-Length: 4000\r\n\r\n")
    begun = time.monotonic()
    slow.settimeout(1)
    sent, received = 0, b""
    while not received and time.monotonic() - begun < 15:
        others = time.monotonic()
        assert site.get("/objects?limit=1").status == 200
        assert site.post(b"{").status == 400  # served, and not journalled
        assert time.monotonic() - others < 2
        with contextlib.suppress(TimeoutError):
            slow.sendall(b" ")
            sent += 1
            received = slow.recv(65536)
    if not received:
        slow.settimeout(harness.DEADLINE_S)
        slow.sendall(b" " * (4000 - sent))
        received = slow.recv(65536)
    slow.close()
    if site.web == "mod_proxy_fcgi":
        assert parse_http(received).status == 408
        assert 8 < time.monotonic() - begun < 14
    else:
        assert parse_http(received).status == 400


# --- Straight to the handler's socket ------------------------------------------

@pytest.fixture
def nothing_accepted(plain):
    before = plain.accepted()
    yield
    assert plain.accepted() == before


@pytest.fixture
def edge(plain):
    connection = fcgi_connect(plain.run / "callback.sock")
    yield connection
    connection.close()


@pytest.mark.parametrize("length, body", [
    ("5", ids_body([1])), ("5000", ids_body([1])), ("0", ids_body([1])),
    ("-1", ids_body([1])), ("nonsense", ids_body([1])), (None, ids_body([1])),
    ("", ids_body([1])), ("18446744073709551635", ids_body([1])),
], ids=["less", "more", "zero", "negative", "nonsense", "none", "blank",
        "overflow"])
def test_a_length_that_lies_to_the_handler(edge, plain, nothing_accepted, length,
                                           body):
    edge.sendall(fcgi_request(body, CONTENT_LENGTH=length))
    reply = fcgi_reply(edge)
    assert reply.status == (400 if length else 411), reply
    reply.problem()


def test_a_length_above_the_limit_is_answered_before_its_body(
        edge, plain, nothing_accepted):
    edge.sendall(fcgi_record(1, b"\0\1\0\0\0\0\0\0") + fcgi_record(
        4, fcgi_params({"REQUEST_METHOD": "POST", "REQUEST_URI": "/callback",
                        "SCRIPT_NAME": "/callback",
                        "CONTENT_LENGTH": "99999999"})) + fcgi_record(4, b""))
    reply = fcgi_reply(edge)
    assert reply is None or reply.status in (408, 413), reply


def test_what_is_not_fastcgi_ends_its_connection_only(edge, plain, even):
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, b"\x01",
                    fcgi_record(4, b"\xff\xff\xff\xff"), b"\x01\x01" * 500):
        with fcgi_connect(plain.run / "callback.sock") as s:
            s.sendall(garbage)
            s.shutdown(socket.SHUT_WR)
            while True:
                try:
                    if not s.recv(4096):
                        break
                except ConnectionResetError:
                    break
    plain.accept([even])


def test_a_connection_is_kept_when_asked(edge, plain, even):
    for k in range(5):
        edge.sendall(fcgi_request(ids_body([even + 2 * k]), keep=True))
        assert fcgi_reply(edge).status == 202
    plain.wait_stored(range(even, even + 10, 2))


def test_idle_and_half_sent_connections_hold_up_nobody(plain, even):
    idle = []
    for k in range(300):
        s = fcgi_connect(plain.run / "callback.sock")
        if k % 2:
            s.sendall(fcgi_request(ids_body([1]))[:20 + k % 40])
        idle.append(s)
    begun = time.monotonic()
    for k in range(20):
        plain.accept([even + 2 * k])
    assert time.monotonic() - begun < 5
    for s in idle:
        s.close()
