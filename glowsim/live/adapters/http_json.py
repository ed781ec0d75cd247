"""The ``http_json`` adapter: an instance with JSON of its own, which answers in plain text.

Without a template it gets ``{"input", "max_tokens_out", "stream"}``, and a stream is server-sent events with ``delta``
and, at the end, ``done`` and ``usage``. With one, it answers whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp

from glowsim.core.types import Usage
from glowsim.live.adapters.http import Posts, bounded, events, parsed, scored
from glowsim.live.calls import Call, Checked, InstanceError, InvalidTask, Reply
from glowsim.live.content import Content, speaking
from glowsim.live.protocols import BadBody
from glowsim.scenario.live import HttpJson

__all__ = ["http_json"]


def http_json(posts: Posts, spec: HttpJson, *, model_name: Callable[[int], str]) -> Checked:
    """Return an instance.

    Parameters
    ----------
    posts
        Where it is.
    spec
        What it is sent, and where in its answer what stands.
    model_name
        The name of a plan's model.
    """

    def body(call: Call) -> dict[str, Any]:
        task, most = call.task, call.plan.max_tokens_out
        given = _messages(task) if isinstance(task, Content) else task
        if spec.request is None:
            return {"input": given, "max_tokens_out": most, "stream": call.request.stream}
        values = {
            "{input}": _words(given),
            "{messages}": [{"role": "user", "content": given}] if isinstance(given, str) else given,
            "{model}": model_name(call.plan.model),
            "{max_tokens_out}": most,
        }
        filled: dict[str, Any] = _filled(spec.request, values)
        return filled

    async def answer(call: Call) -> Reply:
        try:
            async with posts.post(spec.path, body(call), call.passed_on) as response:
                await posts.check(response)
                said = parsed(await bounded(response))
        except aiohttp.ClientError as error:
            raise posts.lost(error) from error
        output = _at(said, spec.output)
        if output is None:
            raise InstanceError(f"the answer has no '{spec.output}'")
        return Reply(output, _usage(said, call, spec))

    async def stream(call: Call) -> AsyncIterator[str]:
        if spec.request is not None:
            reply = await answer(call)
            call.usage = reply.usage
            yield _words(reply.content)
            return
        try:
            async with posts.post(spec.path, body(call), call.passed_on) as response:
                await posts.check(response)
                if response.content_type != "text/event-stream":
                    said = parsed(await bounded(response))
                    call.usage = _usage(said, call, spec)
                    yield _words(_at(said, spec.output))
                    return
                complete = False
                async for _, data in events(response):
                    if data == "[DONE]":
                        complete = True
                        yield ""
                        continue
                    said = parsed(data)
                    if said.get("error"):
                        raise InstanceError(f"the instance broke the stream off: {str(said['error'])[:500]}")
                    complete = complete or bool(said.get("done"))
                    if said.get("usage"):
                        call.usage = _usage(said, call, spec)
                    delta = said.get("delta")
                    yield delta if isinstance(delta, str) else ""
                if not complete:
                    raise ConnectionError(f"{posts.base_url}: the stream stopped before it was complete")
        except aiohttp.ClientError as error:
            raise posts.lost(error) from error

    def serve(call: Call) -> Any:
        return stream(call) if call.request.stream else answer(call)

    return Checked(speaking(serve), posts.healthy)


def _messages(content: Content) -> Any:
    try:
        return content.protocol.to_chat(content.asked)["messages"]
    except BadBody as error:
        raise InvalidTask(error.message) from error


def _words(given: Any) -> str:
    """Return the text of an input or output: of messages, what they say, one after the other."""
    match given:
        case str(text):
            return text
        case [*messages] if all(isinstance(each, dict) and "content" in each for each in messages):
            return "\n\n".join(_words(each["content"]) for each in messages)
        case [*parts] if all(isinstance(each, dict) and isinstance(each.get("text"), str) for each in parts):
            return "".join(each["text"] for each in parts)
        case None:
            return ""
    return str(given)


def _filled(template: Any, values: dict[str, Any]) -> Any:
    """Return a template with its placeholders replaced: by the value itself where one stands alone."""
    match template:
        case {**fields}:
            return {name: _filled(each, values) for name, each in fields.items()}
        case [*items]:
            return [_filled(each, values) for each in items]
        case str(text) if text in values:
            return values[text]
        case str(text):
            for name, value in values.items():
                if name in text:
                    text = text.replace(name, _words(value))
            return text
    return template


def _at(said: Any, path: str) -> Any:
    """Return what stands at a path; None where nothing does."""
    for step in path.split("."):
        match said:
            case {**fields}:
                said = fields.get(step)
            case [*items] if step.isdecimal() and int(step) < len(items):
                said = items[int(step)]
            case _:
                return None
    return said


def _usage(said: dict[str, Any], call: Call, spec: HttpJson) -> Usage:
    """Return the usage that an answer states; what it leaves out counts as the plan's input and no output."""
    counts = [_at(said, path) for path in (spec.tokens_in, spec.tokens_cached, spec.tokens_out)]
    counts = [
        otherwise if n is None else n
        for n, otherwise in zip(counts, (call.plan.tokens_in, 0, 0), strict=True)
    ]
    if not all(type(count) is int and 0 <= count < 2**31 for count in counts):
        raise InstanceError(f"the answer's usage {str(counts)[:200]} is not made of token counts")
    return scored(_at(said, spec.score), Usage(*counts))
