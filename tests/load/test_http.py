"""A target over real sockets on loopback: how each way of misbehaving is taken."""

from __future__ import annotations

import asyncio
import json

import pytest

from glowsim.core.reasons import Code
from glowsim.core.types import Outcome, Request

REQUEST = Request(1, 0, tokens_in=20, max_tokens_out=9)
USAGE = {"prompt_tokens": 11, "completion_tokens": 2}
FINE = {"choices": [{"message": {"content": "fine"}}], "usage": USAGE}


def asks(http, handler, *, api="chat", key=None, times=1, regions=(), left_s=float("inf"), **fields):
    """Ask a server; return the call and what was heard, of the last time."""
    from glowsim.load.faces import FACES
    from glowsim.load.generator import Call
    from glowsim.load.http import opened

    async def main():
        async with (
            asyncio.timeout(20.0),
            http.serve(handler) as address,
            opened(address, FACES[api], key, regions) as target,
        ):
            for _ in range(times):
                call = Call("tax", REQUEST._replace(**fields), "what is due?", left_s)
                heard = await target(call)
            return call, heard

    return asyncio.run(main())


def says(body=b"", status=200, **given):
    async def handler(request):
        from aiohttp import web

        given.setdefault("content_type", "application/json")
        return web.Response(body=body, status=status, **given)

    return handler


def streams(*events, then="end"):
    async def handler(request):
        from aiohttp import web

        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in events:
            data = event if isinstance(event, str) else json.dumps(event)
            await response.write(f": a comment\ndata: {data}\n\n".encode())
        if then == "abort":
            request.transport.abort()
        return response

    return handler


def delta(text):
    return {"choices": [{"delta": {"content": text}}]}


async def hangs_up(request):
    request.transport.abort()


@pytest.mark.parametrize(
    ("handler", "outcome", "how", "said"),
    [
        (says(json.dumps(FINE).encode()), Outcome.OK, Code.OWN, ""),
        (says(b"{"), Outcome.ERROR, Code.EXHAUSTED, "the answer is not JSON"),
        (says(b"[]"), Outcome.ERROR, Code.EXHAUSTED, "the answer is not a JSON object"),
        (says(b"{}"), Outcome.ERROR, Code.EXHAUSTED, "the answer has no 'choices' with a message"),
        (
            says(json.dumps(FINE | {"usage": {"prompt_tokens": -1}}).encode()),
            Outcome.ERROR, Code.EXHAUSTED, "the answer's usage is not made of token counts",
        ),
        (says(status=429, headers={"Retry-After": "3"}), Outcome.THROTTLED, Code.LIMITED, "status 429"),
        (says(status=500), Outcome.ERROR, Code.EXHAUSTED, "status 500"),
        (says(status=302, headers={"Location": "/"}), Outcome.ERROR, Code.EXHAUSTED, "status 302"),
        (says(status=422), Outcome.INVALID, Code.NOT_RETRYABLE, "status 422"),
        (hangs_up, Outcome.UNREACHABLE, Code.EXHAUSTED, "ServerDisconnectedError"),
    ],
)  # fmt: skip
def test_answers_and_what_is_none(http, handler, outcome, how, said):
    call, heard = asks(http, handler)
    assert (heard.outcome, heard.how, heard.said) == (outcome, how, said)
    assert (heard.usage is not None) == (outcome is Outcome.OK)
    assert call.first_token_at != call.first_token_at, "nothing was streamed"


LAST = {"choices": [], "usage": USAGE}
STOP = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
ALL = {"choices": [{"delta": {"content": "ne"}, "finish_reason": "length"}], "usage": USAGE}
UNDECIDED = {"choices": [{"delta": {"content": "ne"}, "finish_reason": None}], "usage": USAGE}


@pytest.mark.parametrize(
    ("handler", "outcome", "how", "begun"),
    [
        (streams(delta(""), delta("fi"), delta("ne"), LAST, "[DONE]"), Outcome.OK, Code.OWN, True),
        (streams(delta("fi"), LAST), Outcome.UNREACHABLE, Code.BROKEN_STREAM, True),
        # transformers serve ends a stream with its finish reason, and no [DONE]
        (streams(delta("fi"), delta("ne"), STOP, LAST), Outcome.OK, Code.OWN, True),
        (streams(delta("fi"), ALL), Outcome.OK, Code.OWN, True),
        (streams(delta("fi"), UNDECIDED), Outcome.UNREACHABLE, Code.BROKEN_STREAM, True),
        (streams(delta("fi"), STOP, LAST, then="abort"), Outcome.UNREACHABLE, Code.BROKEN_STREAM, True),
        (streams(delta("fi"), STOP, {"error": {"message": "no"}}), Outcome.ERROR, Code.BROKEN_STREAM, True),
        (streams(delta("fi"), then="abort"), Outcome.UNREACHABLE, Code.BROKEN_STREAM, True),
        (streams(then="abort"), Outcome.UNREACHABLE, Code.EXHAUSTED, False),
        (streams(), Outcome.UNREACHABLE, Code.EXHAUSTED, False),
        (streams("{"), Outcome.ERROR, Code.EXHAUSTED, False),
        (streams(delta("fi"), {"error": {"message": "overloaded"}}), Outcome.ERROR, Code.BROKEN_STREAM, True),
        (streams(delta("fi"), {"error": {"code": "timed_out"}}), Outcome.TIMEOUT, Code.TIMED_OUT, True),
        (says(json.dumps(FINE).encode()), Outcome.OK, Code.OWN, False),
    ],
)
def test_streams_whole_and_broken(http, handler, outcome, how, begun):
    call, heard = asks(http, handler, stream=True)
    assert (heard.outcome, heard.how) == (outcome, how)
    assert (call.first_token_at == call.first_token_at) == begun
    if outcome is Outcome.OK:
        assert heard.usage[:3] == (11, 0, 2)


def test_a_line_that_never_ends_is_not_kept_for_ever(http, monkeypatch):
    from glowsim.load import http as module

    monkeypatch.setattr(module, "_LONGEST_ANSWER", 1000)
    for handler, fields in ((says(b"x" * 1001), {}), (streams("x" * 1001), {"stream": True})):
        _, heard = asks(http, handler, **fields)
        assert heard.outcome is Outcome.ERROR
        assert "longer than 1000 bytes" in heard.said or heard.said == "the answer is not JSON"


def test_the_key_goes_into_the_header_and_connections_are_kept(http):
    seen = []

    async def handler(request):
        from aiohttp import web

        seen.append((request.headers.get("Authorization"), request.transport.get_extra_info("peername")))
        return web.json_response({"output": "x", "answered": "joined"})

    _, heard = asks(http, handler, api="tasks", key="s3cret-key", times=3)
    assert {key for key, _ in seen} == {"Bearer s3cret-key"}
    assert len({peer for _, peer in seen}) == 1
    assert (heard.how, heard.usage) == (Code.JOINED, None)


@pytest.mark.parametrize("api", ["chat", "tasks"])
def test_what_a_face_has_no_words_for_goes_in_headers(http, api):
    """And only that: the usual priority, no session and one region say nothing."""
    seen = []

    async def handler(request):
        from aiohttp import web

        seen.append({name: value for name, value in request.headers.items() if name.startswith("X-Glowsim")})
        body = FINE if api == "chat" else {"output": "fine"}
        return web.json_response(body, headers={"X-Glowsim-Answered": "cached"})

    _, heard = asks(http, handler, api=api)
    assert (heard.how, heard.told) == (Code.CACHED, True)
    asks(
        http,
        handler,
        api=api,
        priority=0,
        session=0xAB,
        cache_key=9,
        regions=("eu", "us"),
        region=1,
        left_s=2.5,
    )
    said = {"Priority": "0", "Session": "ab", "Cache": "true", "Deadline": "2.5", "Region": "us"}
    assert seen == [{}, {f"X-Glowsim-{name}": value for name, value in said.items()}]


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_a_refusal_that_holds_for_all_says_what_to_do(http, status):
    from glowsim.load.generator import TargetError

    with pytest.raises(TargetError, match=f"status {status}: it .*--(key-env|api)"):
        asks(http, says(status=status), key="s3cret-key")


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8080",
        "ftp://h/",
        "http://",
        "http://u:p@h/",
        "http://h/?q=1",
        "http://h:0",
        "http://h:99999",
    ],
)
def test_a_target_that_is_none_is_said(http, url):
    from glowsim.load.generator import TargetError
    from glowsim.load.http import address_of

    with pytest.raises(TargetError, match="--target") as caught:
        address_of(url)
    assert "u:p" not in str(caught.value)
