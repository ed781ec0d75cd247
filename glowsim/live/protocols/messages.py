"""Anthropic's messages.

Source: the models of Anthropic's Python client (``anthropic.types``), against which the tests check all that is made
here. Its count of input tokens leaves out what was read from or written to a cache; `Usage` counts them in.
"""

from __future__ import annotations

from typing import Any

from glowsim.core.types import Usage
from glowsim.live.calls import InstanceError
from glowsim.live.protocols.blocks import Block, BlockWriter, arguments_of, blocks_of, finish_of
from glowsim.live.protocols.bodies import entry, flag, items, read_json, tag_of, text, token_limit, tokens_of
from glowsim.live.protocols.chat_answers import said_in_answer
from glowsim.live.protocols.events import broken, count, json_text, sse, stated_usage, typed_event, usage_in
from glowsim.live.protocols.messages_to_chat import messages_to_chat
from glowsim.live.protocols.shape import Asked, BadBody, Frame, Protocol, StreamReader, StreamWriter

__all__ = ["MESSAGES", "Messages"]

_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_TYPES = {
    401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
    408: "timeout_error", 413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error",
    504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip


class Messages(Protocol):
    """Anthropic's messages.

    >>> asked = MESSAGES.read(b'{"model": "tax", "max_tokens": 9, "messages": [{"role": "user", "content": "Due?"}]}')
    >>> asked.model, asked.tokens_in, asked.max_tokens_out
    ('tax', 1, 9)
    >>> MESSAGES.to_chat(asked)["messages"]
    [{'role': 'user', 'content': 'Due?'}]
    """

    name = "messages"
    path = "/v1/messages"

    def read(self, raw: bytes) -> Asked:
        """Return what a body asks for."""
        body = read_json(raw)
        metadata = entry(body, "metadata", dict) or {}
        most = token_limit(body, "max_tokens")
        if most is None:
            raise BadBody("'max_tokens' is missing: say how many tokens the answer may have", "max_tokens")
        messages = items(body, "messages", needed=True)
        return Asked(
            self.name,
            body,
            text(body, "model"),
            tokens_of(body.get("tools"), messages, body.get("system")),
            most,
            flag(body, "stream"),
            tag_of(metadata, "user_id"),
        )

    def body_for(self, asked: Asked, *, model: str, max_tokens_out: int) -> dict[str, Any]:
        """Return the client's body with model and token limit replaced."""
        return asked.body | {"model": model, "max_tokens": max_tokens_out}

    def usage_of(self, answer: dict[str, Any], tokens_in: int) -> Usage:
        """Return what a whole answer says was used."""
        stated = usage_in(answer)
        return Usage(tokens_in) if stated is None else _usage(stated, tokens_in)

    def reader(self, asked: Asked, tokens_in: int) -> StreamReader:
        """Return a reader, which passes every event on."""
        return _Reader(tokens_in)

    def error(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ) -> dict[str, Any]:
        """Return ``{"type": "error", "error": {"type", "message"}}``: there is no place for code and param."""
        kind = _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message}}

    def error_frame(self, status: int, message: str, *, code: str | None = None) -> str:
        """Return the event ``error``, which Anthropic's clients raise."""
        return sse(json_text(self.error(status, message)), "error")

    def to_chat(self, asked: Asked) -> dict[str, Any]:
        """Return the body as chat completions would have it; see `messages_to_chat`."""
        return messages_to_chat(asked)

    def from_chat(
        self, answer: dict[str, Any], asked: Asked, *, answer_id: str, created: int
    ) -> dict[str, Any]:
        """Return a whole chat answer as a message.

        A refusal is a text, and the reason of its stop; a call that the token limit cut off is left out.
        """
        said = said_in_answer(answer, asked.tokens_in)
        blocks = blocks_of(said)
        if said.finish == "length" and blocks and not _readable(blocks[-1]):
            del blocks[-1]
        model = answer.get("model")
        message = _message(answer_id, model if isinstance(model, str) and model else asked.model)
        message["content"] = [_content(block) for block in blocks]
        message["stop_reason"] = _stop(said.finish, blocks)
        message["usage"] = _stated(said.usage or Usage(asked.tokens_in))
        return message

    def writer(self, asked: Asked, *, answer_id: str, created: int) -> StreamWriter:
        """Return a writer; a reasoning that chat chunks bring has no signature, and is left out."""
        return _Writer(asked, answer_id)


MESSAGES = Messages()


def _usage(stated: dict[str, Any], tokens_in: int) -> Usage:
    cached = count(stated.get("cache_read_input_tokens"))
    fresh = stated.get("input_tokens")
    if fresh is None:
        return stated_usage(max(tokens_in, cached), cached, stated.get("output_tokens"))
    written = count(stated.get("cache_creation_input_tokens"))
    return stated_usage(count(fresh) + cached + written, cached, stated.get("output_tokens"))


def _stated(usage: Usage) -> dict[str, int]:
    return {
        "input_tokens": usage.tokens_in - usage.tokens_cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.tokens_cached,
        "output_tokens": usage.tokens_out,
    }


def _message(answer_id: str, model: str) -> dict[str, Any]:
    return {
        "id": f"msg_{answer_id}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,  # chat completions do not say which one it was
    }


def _content(block: Block) -> dict[str, Any]:
    if block.call is None:
        return {"type": "text", "text": block.said()}
    return {
        "type": "tool_use", "id": block.call.call_id, "name": block.call.name, "input": arguments_of(block),
    }  # fmt: skip


def _readable(block: Block) -> bool:
    try:
        _content(block)
    except InstanceError:
        return False
    return True


def _stop(finish: str | None, blocks: list[Block]) -> str:
    ended = finish_of(finish, any(block.kind == "call" for block in blocks))
    refused = ended == "stop" and any(block.kind == "refusal" for block in blocks)
    return "refusal" if refused else _STOPS[ended]


class _Reader(StreamReader):
    def __init__(self, tokens_in: int) -> None:
        self._tokens_in = tokens_in
        self._stated: dict[str, Any] = {}
        """What the events stated so far; later counts overwrite earlier ones."""

    def feed(self, event: str | None, data: str) -> Frame:
        said, kind = typed_event(data)
        if kind == "error":
            raise broken(said)
        usage, content = None, False
        match said:
            case {"type": "message_start", "message": {"usage": dict(stated)}}:
                usage = self._used(stated)
            case {"type": "message_delta", "usage": dict(stated)}:
                usage = self._used(stated)
            case {"type": "content_block_start", "content_block": {"type": str(block)}}:
                content = block not in ("text", "thinking")
            case {"type": "content_block_delta", "delta": dict(delta)}:
                content = any(value for name, value in delta.items() if name != "type")
        return Frame(sse(data, kind), content, kind == "message_stop", usage, None)

    def _used(self, stated: dict[str, Any]) -> Usage:
        self._stated |= {name: value for name, value in stated.items() if value is not None}
        return _usage(self._stated, self._tokens_in)


class _Writer(BlockWriter):
    def __init__(self, asked: Asked, answer_id: str) -> None:
        super().__init__(asked)
        self._answer_id = answer_id

    def _begin(self, model: str) -> str:
        message = _message(self._answer_id, model) | {"usage": _stated(self._usage)}
        return _event("message_start", message=message)

    def _opened(self, block: Block) -> str:
        return _event("content_block_start", index=block.number, content_block=_content(block))

    def _said(self, block: Block, text: str) -> str:
        delta = (
            {"type": "text_delta", "text": text}
            if block.call is None
            else {"type": "input_json_delta", "partial_json": text}
        )
        return _event("content_block_delta", index=block.number, delta=delta)

    def _closed(self, block: Block) -> str:
        if block.call is not None and self._finish != "length":
            arguments_of(block)  # the client is told of a broken call, not of one that the limit cut off
        return _event("content_block_stop", index=block.number)

    def _done(self, finish: str) -> str:
        delta = {"stop_reason": _stop(finish, self._blocks), "stop_sequence": None}
        last = _event("message_delta", delta=delta, usage=_stated(self._usage))
        return last + _event("message_stop")


def _event(kind: str, **more: Any) -> str:
    return sse(json_text({"type": kind} | more), kind)
