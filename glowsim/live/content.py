"""What a client asked, as the instances that serve it see it, and what an agent of plain texts makes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from typing import Any, NamedTuple

from glowsim.core.types import Usage
from glowsim.live.calls import Call, Checked, InvalidTask, Reply, Serve
from glowsim.live.protocols import (
    Asked,
    BadBody,
    Protocol,
    chat_answer,
    chat_chunk,
    stream_of,
    usage_chunk,
)
from glowsim.live.protocols.events import json_text

__all__ = ["Content", "in_words", "speaking", "whole"]


class Content(NamedTuple):
    """A client's request in its protocol.

    Instances answer in the same protocol: a `Reply` of JSON text, or pieces that are server-sent events. So an answer
    that is kept, or shared with a client that joined, needs no more than to be sent.
    """

    protocol: Protocol
    asked: Asked
    answer_id: str
    created: int
    """Seconds since 1970."""


def whole(answer: dict[str, Any], content: Content) -> str:
    """Return a whole chat answer as the client is to get it: JSON, or a stream.

    Raises
    ------
    InstanceError
        It is no chat answer.
    """
    protocol, asked, answer_id, created = content
    if asked.stream:
        return stream_of(protocol, answer, asked, answer_id=answer_id, created=created)
    return json_text(protocol.from_chat(answer, asked, answer_id=answer_id, created=created))


def in_words(text: str, usage: Usage, content: Content) -> str:
    """Return a text as the client is to get it.

    Raises
    ------
    BadBody
        The client asked for something other than words.
    """
    _check(content)
    answer = chat_answer(
        text, usage, model=content.asked.model, answer_id=content.answer_id, created=content.created
    )
    return whole(answer, content)


def _check(content: Content) -> None:
    """Refuse what a text cannot answer."""
    if content.protocol.to_chat(content.asked).get("n") not in (None, 1):
        raise BadBody("this agent gives one answer: leave 'n' out, or ask again", "n")


def speaking(serve: Serve) -> Serve:
    """Return an instance that answers in its client's protocol, made of one that answers with plain texts.

    A task that is no `Content` passes through unchanged.
    """

    def spoken(call: Call) -> Awaitable[Reply] | AsyncIterator[str]:
        if not isinstance(call.task, Content):
            return serve(call)
        made = serve(call)
        if not isinstance(made, AsyncIterator):
            return _answer(made, call)
        return _pieces(made, call) if call.request.stream else _answer(_collected(made, call), call)

    return Checked(spoken, serve.healthy) if isinstance(serve, Checked) else spoken


async def _answer(made: Awaitable[Reply], call: Call) -> Reply:
    content: Content = call.task
    reply = await made
    text = reply.content if isinstance(reply.content, str) else json_text(reply.content)
    try:
        return Reply(in_words(text, reply.usage, content), reply.usage)
    except BadBody as error:
        raise InvalidTask(error.message) from error


async def _collected(made: AsyncIterator[str], call: Call) -> Reply:
    async with aclosing(made):  # type: ignore[type-var]  # an async generator, or something like it
        pieces = [piece async for piece in made]
    return Reply("".join(pieces), call.usage)


async def _pieces(made: AsyncIterator[str], call: Call) -> AsyncIterator[str]:
    protocol, asked, answer_id, created = call.task
    try:
        _check(call.task)
    except BadBody as error:
        raise InvalidTask(error.message) from error
    writer = protocol.writer(asked, answer_id=answer_id, created=created)
    about = {"model": asked.model, "answer_id": answer_id, "created": created}
    held = writer.feed(chat_chunk({"role": "assistant", "content": ""}, **about))
    async with aclosing(made):  # type: ignore[type-var]  # an async generator, or something like it
        async for piece in made:
            if not piece:
                yield ""  # at work
                continue
            yield held + writer.feed(chat_chunk({"content": piece}, **about))
            held = ""
    ends = [chat_chunk({}, finish="stop", **about), usage_chunk(call.usage, **about)]
    yield held + "".join(map(writer.feed, ends)) + writer.end()
