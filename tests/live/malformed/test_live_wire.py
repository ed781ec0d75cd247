"""Requests that are none, byte by byte: nothing is taken for what it is not, and answers stay in step."""

from __future__ import annotations

import gc
import json
import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("_serving")


@pytest.fixture(scope="module")
def target(hostile, tmp_path_factory):
    """A daemon with little patience: half a second for a head, a body, and what is left of either."""
    from glowsim.live import server

    patience = pytest.MonkeyPatch()
    patience.setattr(server, "_HEAD_WITHIN_S", 0.5)
    with hostile.running(
        tmp_path_factory.mktemp("wire"), body_timeout_s=0.5, max_body_bytes=100_000
    ) as found:
        yield found
    patience.undo()


def refused(hostile, target, many):
    """Each is refused with an error in JSON that is the last word of its connection."""
    said = hostile.conversations(target.port, [(each,) for each in many.values()])
    for name, found in zip(many, said, strict=True):
        (only,) = found
        assert (only.status, only.headers["connection"]) == (400, "close"), name
        assert only.json()["error"]["code"] == 400, name
        assert only.error(), name


def get(*headers, target=b"/healthz", method=b"GET", version=b"HTTP/1.1"):
    lines = [b"%s %s %s" % (method, target, version), b"Host: localhost", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def test_lines_that_are_no_requests_are_refused(hostile, target, unharmed):
    refused(
        hostile,
        target,
        {
            "no method": get(method=b""),
            "lower case": get(method=b"get"),
            "unknown": get(method=b"BREW"),
            "a proxy's": get(method=b"CONNECT", target=b"localhost:80"),
            "no target": get(target=b""),
            "no slash": get(target=b"healthz"),
            "only a query": get(target=b"?x"),
            "not ASCII": get(target="/é".encode()),
            "NUL": get(target=b"/healthz\0"),
            "space": get(target=b"/heal thz"),
            "no such port": get(target=b"http://localhost:99999/healthz"),
            "no version": get(version=b"HTTP/"),
            "version 9": get(version=b"HTTP/9.9"),
            "version 1.2": get(version=b"HTTP/1.2"),
            "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "TLS": bytes.fromhex("16030100c8010000c40303") + bytes(100),
            "every byte": bytes(range(256)),
            "LF only": b"GET /healthz HTTP/1.1\nHost: localhost\n\n",
            "Redis": b"*1\r\n$4\r\nPING\r\n",
        },
    )


def test_headers_that_are_none_are_refused(hostile, target, unharmed):
    bad = {
        "no colon": b"X",
        "no name": b": x",
        "a space before the colon": b"X : x",
        "a space in the name": b"X Y: x",
        "a folded line": b"X: a\r\n b",
        "a line folded by a tab": b"X: a\r\n\tb",
        "a folded first line": b" X: a",
        "CR": b"X: a\rb",
        "LF": b"X: a\nY: b",
        "NUL": b"X: a\0b",
        "a control": b"X: a\x01b",
        "DEL": b"X: a\x7fb",
        "NUL in the name": b"X\0: a",
        "a second host": b"Host: evil.example",
        "a second key": b"Authorization: Bearer a\r\nAuthorization: Bearer b",
        "a second x-api-key": b"x-api-key: a\r\nX-API-Key: b",
        "a second type": b"Content-Type: a/b\r\nContent-Type: text/plain",
    }
    refused(hostile, target, {name: get(line) for name, line in bad.items()})
    refused(hostile, target, {"no host": b"GET /healthz HTTP/1.1\r\n\r\n"})


def test_lengths_that_leave_it_open_where_a_body_ends_are_refused(hostile, target, unharmed):
    """Request smuggling (RFC 9112, 6.3 and 11.2): what two servers may read in two ways, none reads at all."""
    smuggled = b"0\r\n\r\n" + get(target=b"/v1/agents")
    bad = {
        "negative": ["Content-Length: -1"],
        "signed": ["Content-Length: +5"],
        "hexadecimal": ["Content-Length: 0x5"],
        "a fraction": ["Content-Length: 5.0"],
        "empty": ["Content-Length:"],
        "a list": ["Content-Length: 5, 5"],
        "beyond 64 bits": ["Content-Length: 99999999999999999999"],
        "twice alike": ["Content-Length: 5", "Content-Length: 5"],
        "twice differently": ["Content-Length: 5", "Content-Length: 6"],
        "length and chunks": ["Content-Length: 5", "Transfer-Encoding: chunked"],
        "chunks and length": ["Transfer-Encoding: chunked", "Content-Length: 5"],
        "chunks first": ["Transfer-Encoding: chunked, identity"],
        "not quite chunks": ["Transfer-Encoding: xchunked"],
        "chunks twice": ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        "identity": ["Transfer-Encoding: identity"],
        "a vertical tab": ["Transfer-Encoding:\x0bchunked"],
    }
    refused(
        hostile, target, {name: hostile.post(smuggled, *lines, length=False) for name, lines in bad.items()}
    )


def test_chunks_that_lie_are_refused(hostile, target, unharmed):
    bad = {
        "negative": b"-5\r\nhello\r\n",
        "signed": b"+5\r\nhello\r\n",
        "prefixed": b"0x5\r\nhello\r\n",
        "no number": b"\r\nhello\r\n",
        "beyond 64 bits": b"ffffffffffffffffff\r\nhello\r\n",
        "a space behind": b"5 \r\nhello\r\n",
        "too short": b"4\r\nhello\r\n0\r\n\r\n",
        "too long": b"6\r\nhello\r\n0\r\n\r\n",
        "LF only": b"5\nhello\n0\n\n",
        "a bad extension": b"5;\x01\r\nhello\r\n",
    }
    chunks = "Transfer-Encoding: chunked"
    refused(hostile, target, {name: hostile.post(body, chunks, length=False) for name, body in bad.items()})


def test_a_length_may_have_as_many_zeros_in_front_as_it_likes(hostile, target, unharmed):
    body = json.dumps(hostile.ASKED).encode()
    zeros = "0" * 5000
    asked = [
        (hostile.post(body, f"Content-Length: {zeros}{length}", length=False),)
        for length in (len(body), 100_001)
    ]
    (answer, probe), (too_large,) = hostile.conversations(target.port, asked)
    assert (answer.status, probe.body) == (200, hostile.HEALTHY)
    assert (too_large.status, too_large.headers["connection"]) == (413, "close")


def test_a_trailer_is_no_header(hostile, target, unharmed):
    """RFC 9110, 6.5.1: what follows a body says neither who asks nor whom."""
    body = json.dumps(hostile.ASKED).encode()
    trailed = hostile.chunked(body, trailers=b"Host: localhost\r\nX-Glowsim-Priority: mars\r\n")
    asked = [
        (hostile.post(trailed, "Transfer-Encoding: chunked", length=False, host=host),)
        for host in ("localhost", "evil.example")
    ]
    (fine, _), (evil, _) = hostile.conversations(target.port, asked)
    assert (fine.status, evil.status) == (200, 403)


@pytest.mark.parametrize(
    "begins",
    [
        b"0\r\nA: ",
        b"0\r\n" + b"A: b\r\n" * 4000,
        b"1;",
        b"000000000000",
    ],
    ids=["one trailer", "trailers", "an extension", "digits"],
)
@pytest.mark.parametrize("path", [b"/healthz", b"/v1/feedback"])
def test_what_is_neither_head_nor_body_is_bounded_too(hostile, target, unharmed, begins, path):
    head = get(b"Content-Type: application/json", b"Transfer-Encoding: chunked", target=path, method=b"POST")
    endless = begins[-6:] * 10_000
    (said,) = hostile.conversations(target.port, [(head, begins, *[endless] * 200)])
    assert len(said) <= 1
    assert {each.status for each in said} <= {200, 400, 405, 431}


@pytest.mark.parametrize("offer", ["h2c", "websocket", "h2c, TLS/1.0"])
@pytest.mark.parametrize("connection", ["Upgrade", "keep-alive, Upgrade, HTTP2-Settings"])
def test_who_offers_another_protocol_is_answered_in_this_one(hostile, target, unharmed, offer, connection):
    """As Java's client and ``curl --http2`` do with every first request; the body is still a body (RFC 9110, 7.8)."""
    smuggler = get(target=b"/v1/agents") + b" " * 100
    offers = (f"Connection: {connection}", f"Upgrade: {offer}", "HTTP2-Settings: AAMAAABkAAQAAP__")
    asked = [
        (hostile.post(hostile.ASKED, *offers),),
        (hostile.post(hostile.ASKED, *offers)[:-10], hostile.post(hostile.ASKED)[-10:]),
        (hostile.post(hostile.ASKED, *offers) * 3,),
        (hostile.post(smuggler, *offers),),
    ]
    one, halved, three, smuggled = hostile.conversations(target.port, asked)
    assert [each.status for each in one] == [each.status for each in halved] == [200, 200]
    assert [each.status for each in three] == [200] * 4
    assert [each.status for each in smuggled] == [400, 200]
    for each in (one, halved, three, smuggled):
        assert each[-1].body == hostile.HEALTHY


def test_what_was_asked_before_nonsense_is_answered_and_nothing_after_it(hostile, target, unharmed):
    good = hostile.post(hostile.ASKED)
    asked = [(good + b"\0" + good,), (good, b"\0", good), (good * 3 + get(b"X\0: a") + good,)]
    for found, many in zip(hostile.conversations(target.port, asked), (1, 1, 3), strict=True):
        assert [each.status for each in found[:many]] == [200] * many
        assert [each.status for each in found[many:]] in ([], [400]), (
            "the nonsense itself, if nothing was under way"
        )


def test_an_answer_that_came_early_stays_the_only_one(hostile, target, unharmed):
    """Refused by its head, and then its body turns out to be nonsense: the connection ends without a second answer."""
    early = hostile.post(b"4\r\nhello", "Transfer-Encoding: chunked", length=False, path="/nowhere")
    head, body = early[:-8], early[-8:]
    for pieces in ((head, body), (early,)):
        for found in hostile.conversations(target.port, [pieces] * 20):
            assert len(found) == 1
            assert found[0].status in (400, 404)


def test_requests_in_one_breath_are_answered_in_turn(hostile, target, unharmed):
    bodies = [hostile.ASKED | {"model": name} for name in ("tax", "a", "tax", "b")]
    (found,) = hostile.conversations(target.port, [(b"".join(map(hostile.post, bodies)),)])
    assert [each.status for each in found] == [200, 404, 200, 404, 200]
    assert ["'a'" in found[1].error(), "'b'" in found[3].error()] == [True, True]


def test_bodies_that_never_come_are_given_up(hostile, target, unharmed):
    good = hostile.post(hostile.ASKED)
    asked = [
        (good[:-1],),
        (good[:60],),
        (b"",),
        (hostile.post(b"5\r\nhel", "Transfer-Encoding: chunked", length=False),),
        (get(b"Content-Length: 5"),),
    ]
    whole, head, none, chunk, unread = hostile.conversations(target.port, asked, probe=False)
    for found in (whole, chunk):
        assert [(each.status, each.headers["connection"]) for each in found] == [(408, "close")]
    assert (head, none) == ([], [])
    assert [each.body for each in unread] == [hostile.HEALTHY], (
        "answered, and then not waited for without end"
    )


def test_pages_are_read_only(hostile, target, unharmed):
    methods = [b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"PROPFIND"]
    paths = [b"/healthz", b"/readyz", b"/v1/models", b"/v1/models/tax", b"/v1/agents", b"/openapi.json"]
    asked = [(get(method=method, target=path),) for method in methods for path in paths]
    for found in hostile.conversations(target.port, asked):
        assert (found[0].status, found[0].headers["allow"]) == (405, "GET, HEAD")
        assert found[1].body == hostile.HEALTHY


def test_hosts_that_only_look_like_this_machine_are_refused(hostile, target, unharmed):
    hosts = [
        "[127.0.0.1x",
        "[::1",
        "[::1].evil.example",
        "[::1]evil:80",
        "127.0.0.1.evil.example",
        "localhost.",
        "1",
    ]
    for host, port in ((host, port) for host in hosts for port in (target.port, target.admin_port)):
        asked = f"GET /v1/agents HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        ((said, _),) = hostile.conversations(port, [(asked,)])
        assert said.status == 403, host


def test_nobody_is_sent_where_his_own_host_header_points(hostile, target, unharmed):
    asked = b"GET /v1/agents/ HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    ((said, _),) = hostile.conversations(target.admin_port, [(asked,)])
    assert (said.status, "location" in said.headers) == (404, False)


def _step(hostile, sent, found):
    """Whatever was sent: no fault of ours, every error in JSON, and the connection in step or ended."""
    for each in found:
        assert each.status < 500, (sent, each)
        if each.status >= 400:
            assert each.error(), (sent, each)


SEEDS = [
    b"POST /v1/chat/completions HTTP/1.1", b"Host: localhost", b"Content-Type: application/json",
    b"Content-Length: 91", b"Transfer-Encoding: chunked", b"Connection: keep-alive", b"Upgrade: h2c",
    b"Expect: 100-continue", b"X-Glowsim-Priority: 1", b"Idempotency-Key: a", b"traceparent: 00-1-2-03",
]  # fmt: skip


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_whatever_is_done_to_a_request_no_fault_is_ours(hostile, target, luck):
    """A hundred at a time: bytes flipped, cut out, doubled, put in, and requests spliced."""
    clean = [hostile.post(hostile.ASKED), get(), hostile.post({"input": "x"}, path="/v1/agents/tax/tasks")]
    clean.append(hostile.post(hostile.chunked(b"{", b"}"), "Transfer-Encoding: chunked", length=False))
    spice = [b"\r\n", b"\r", b"\n", b"\0", b":", b" ", b"\t", b"\xff", b"%", b"0", b"-", b",", *SEEDS]

    def spoilt():
        data = bytearray(luck.choice(clean))
        for _ in range(luck.randint(1, 4)):
            at, to = sorted(luck.randrange(len(data) + 1) for _ in range(2))
            match luck.randrange(5):
                case 0:
                    data[at : at + 1] = bytes([luck.randrange(256)])
                case 1:
                    del data[at : min(to, at + 20)]
                case 2:
                    data[at:at] = data[at:to]
                case 3:
                    data[at:at] = luck.choice(spice)
                case 4:
                    data[at:] = luck.choice(clean)[at:]
            data = data or bytearray(b"\0")
        return bytes(data)

    sent = [(spoilt(),) for _ in range(100)]
    for one, found in zip(sent, hostile.conversations(target.port, sent), strict=True):
        _step(hostile, one, found)


def test_neither_memory_nor_descriptors_grow(hostile, target):
    """After ten rounds of two hundred broken requests no more is held than after two, but for 200 kB.

    That is room for what is remembered of the requests among them that were served: 1 kB each.
    """
    luck = random.Random(1)
    good = hostile.post(hostile.ASKED)
    deep = hostile.post(b'{"model": "tax", "messages": ' + b"[" * 50_000)
    trailers = get(b"Transfer-Encoding: chunked") + b"0\r\n" + b"A: b\r\n" * 5000

    def round_():
        many = [(good,), (deep,), (trailers,), (good[:50],), (good[:-3],), (b"\0" * 1000,)] * 20
        many += [(good[:at] + bytes([luck.randrange(256)]) + good[at:],) for at in range(0, 160, 2)]
        hostile.conversations(target.port, many)
        target.call(target.driver.flush)
        target.call(gc.collect)
        return tracemalloc.get_traced_memory()[0], len(list(Path("/proc/self/fd").iterdir()))

    tracemalloc.start()
    try:
        figures = [round_() for _ in range(10)]
    finally:
        tracemalloc.stop()
    assert figures[9][0] - figures[1][0] < 200_000, figures
    assert figures[9][1] <= figures[1][1], figures
