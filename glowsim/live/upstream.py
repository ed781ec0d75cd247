"""The ``http_json`` adapter: an instance behind a URL.

A URL that ends in ``/chat/completions`` is spoken to as OpenAI's API is; any other gets
``{"input", "max_tokens_out", "stream"}``. Either form of answer is understood: ``{"output", "usage"}`` or
``choices`` and ``usage``, and a ``score`` beside them; streams are server-sent events that say when they are complete.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from glowsim.core.types import Usage
from glowsim.live.calls import Call, Checked, InstanceError, InvalidTask, Reply, Throttled

__all__ = ["http_json"]

_LONGEST_REPLY = 16 * 1024 * 1024
_INVALID = frozenset({400, 413, 422})


def http_json(
    session: aiohttp.ClientSession, url: str, *, timeout_s: float, model_name: Callable[[int], str],
    health_path: str | None = None,
) -> Checked:  # fmt: skip
    """Return an instance that posts every call to a URL.

    Status 429 is `Throttled`; 400, 413 and 422 are `InvalidTask`; everything else above 299, and an answer
    that cannot be read, is an `InstanceError`. No connection, or a stream that stops short, is a
    `ConnectionError`; too long a call is a `TimeoutError`. Each event of a stream is a piece, an empty one where
    it brings no text; comments are none, since whatever stands in between may send them.

    Parameters
    ----------
    session
        Shared by all instances.
    url
        Where to post.
    timeout_s
        Longest time for a call, above 0.
    model_name
        The name of a plan's model.
    health_path
        Where on its host the instance says how it is: it is well if a GET is answered with a status from 200 to
        399. Without one, it is well if it takes a connection.
    """
    talks_openai = url.rstrip("/").endswith("/chat/completions")
    limits = aiohttp.ClientTimeout(total=timeout_s)

    def body(call: Call) -> dict[str, Any]:
        task, plan, stream = call.task, call.plan, call.request.stream
        if not talks_openai:
            return {"input": task, "max_tokens_out": plan.max_tokens_out, "stream": stream}
        messages = [{"role": "user", "content": task}] if isinstance(task, str) else task
        asked = {"model": model_name(plan.model), "messages": messages, "max_tokens": plan.max_tokens_out}
        return asked | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})

    async def answer(call: Call) -> Reply:
        try:
            async with session.post(url, json=body(call), timeout=limits, allow_redirects=False) as response:
                _check(response)
                return _reply(await _bounded(response), call)
        except aiohttp.ClientError as error:
            raise _lost(url, error) from error

    async def stream(call: Call) -> AsyncIterator[str]:
        try:
            async with session.post(url, json=body(call), timeout=limits, allow_redirects=False) as response:
                _check(response)
                if response.content_type != "text/event-stream":
                    reply = _reply(await _bounded(response), call)
                    call.usage = reply.usage
                    yield str(reply.content)
                    return
                complete = False
                async for data in _events(response):
                    piece, ends = _piece(data, call)
                    complete = complete or ends
                    yield piece
                if not complete:
                    raise ConnectionError(f"{url}: the stream stopped before it was complete")
        except aiohttp.ClientError as error:
            raise _lost(url, error) from error

    def serve(call: Call) -> Any:
        return stream(call) if call.request.stream else answer(call)

    async def healthy() -> bool:
        if health_path is None:
            return await _connects(url)
        async with session.get(urljoin(url, health_path), allow_redirects=False) as response:
            return 200 <= response.status < 400

    return Checked(serve, healthy)


async def _connects(url: str) -> bool:
    where = urlsplit(url)
    _, writer = await asyncio.open_connection(
        where.hostname, where.port or (443 if where.scheme == "https" else 80)
    )
    writer.close()
    return True


def _lost(url: str, error: aiohttp.ClientError) -> Exception:
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError):
        return ConnectionError(f"{url}: {error}")
    return InstanceError(f"{url}: {error}")


def _check(response: aiohttp.ClientResponse) -> None:
    status = response.status
    if status < 300:
        return
    if status == 429:
        wait = response.headers.get("Retry-After", "")
        raise Throttled(float(wait) if wait.isdecimal() else 0.0)
    if status in _INVALID:
        raise InvalidTask(f"the instance turned the task down with status {status}")
    raise InstanceError(f"the instance answered with status {status}")


async def _bounded(response: aiohttp.ClientResponse) -> Any:
    """Return the JSON of a body that is not longer than it may be."""
    read = bytearray()
    async for chunk in response.content.iter_any():
        read += chunk
        if len(read) > _LONGEST_REPLY:
            raise InstanceError(f"the answer is longer than {_LONGEST_REPLY} bytes")
    return _json(bytes(read))


def _json(text: bytes | str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InstanceError(f"the answer is not JSON: {error}") from error


def _reply(said: Any, call: Call) -> Reply:
    match said:
        case {"output": output}:
            return Reply(output, _scored(said, _usage(said, call)))
        case {"choices": [{"message": {"content": content}}, *_]}:
            return Reply(content, _scored(said, _usage(said, call)))
    raise InstanceError("the answer has neither 'output' nor 'choices' with a message")


def _scored(said: dict[str, Any], usage: Usage) -> Usage:
    """Return the usage with the score that an agent gives its own answer, if it gives one."""
    score = said.get("score")
    if score is None:
        return usage
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0.0 <= score <= 1.0:
        raise InstanceError(f"the answer's score {score!r} is no number from 0 to 1")
    return usage._replace(score=float(score))


def _usage(said: dict[str, Any], call: Call) -> Usage:
    """Return the usage that an answer states; what it leaves out counts as the plan's input and no output."""
    match said.get("usage"):
        case {"prompt_tokens": int(tokens_in), **more}:
            details = more.get("prompt_tokens_details")
            cached = details.get("cached_tokens", 0) if isinstance(details, dict) else 0
            return _bounded_usage(tokens_in, cached, more.get("completion_tokens", 0))
        case {**more}:
            stated: Any = more.get("tokens_in", call.plan.tokens_in)
            return _bounded_usage(stated, more.get("tokens_cached", 0), more.get("tokens_out", 0))
    return Usage(call.plan.tokens_in)


def _bounded_usage(*counts: Any) -> Usage:
    if all(isinstance(count, int) and 0 <= count < 2**31 for count in counts):
        return Usage(*counts)
    raise InstanceError(f"the answer's usage {counts} is not made of token counts")


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """Yield the data of server-sent events, one line of data each."""
    waiting = b""
    async for chunk in response.content.iter_any():
        *lines, waiting = (waiting + chunk).split(b"\n")
        if len(waiting) > _LONGEST_REPLY:
            raise InstanceError(f"a line of the stream is longer than {_LONGEST_REPLY} bytes")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip().decode(errors="replace")


def _piece(data: str, call: Call) -> tuple[str, bool]:
    """Return the text of an event and whether it completes the stream; note the usage that it states."""
    if data == "[DONE]":
        return "", True
    said = _json(data)
    if not isinstance(said, dict):
        raise InstanceError("an event of the stream is not a JSON object")
    if "error" in said:
        raise InstanceError(f"the instance broke the stream off: {said['error']}")
    if said.get("usage"):
        call.usage = _usage(said, call)
    match said:
        case {"choices": [{"delta": {"content": str(text)}}, *_]} | {"delta": str(text)}:
            return text, bool(said.get("done"))
    return "", bool(said.get("done"))
