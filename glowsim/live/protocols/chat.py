"""OpenAI's chat completions: the protocol that the others are translated to and from.

Source: the models of OpenAI's Python client (``openai.types.chat``), against which the tests check all that is
made here. Upstreams' own additions (``reasoning_content`` and the like) pass through.
"""

from __future__ import annotations

from typing import Any

from glowsim.core.types import Usage
from glowsim.live.protocols.bodies import flag, items, read_json, tag_of, text, token_limit, tokens_of
from glowsim.live.protocols.chat_answers import CONTENT, chat_usage, choices_of
from glowsim.live.protocols.events import broken, event_of, json_text, sse
from glowsim.live.protocols.shape import Asked, BadBody, Frame, Protocol, StreamReader, StreamWriter

__all__ = ["CHAT", "Chat", "openai_error"]

_DONE = "data: [DONE]\n\n"


class Chat(Protocol):
    """OpenAI's chat completions.

    >>> asked = CHAT.read(b'{"model": "tax", "messages": [{"role": "user", "content": "What is due in May?"}]}')
    >>> asked.model, asked.tokens_in, asked.stream
    ('tax', 5, False)
    >>> CHAT.body_for(asked, model="llama", max_tokens_out=99)["max_tokens"]
    99
    """

    name = "chat"
    path = "/v1/chat/completions"

    def read(self, raw: bytes) -> Asked:
        """Return what a body asks for."""
        body = read_json(raw)
        options = body.get("stream_options")
        if options is not None and not isinstance(options, dict):
            raise BadBody("'stream_options' must be an object", "stream_options")
        most = token_limit(body, "max_completion_tokens")
        older = token_limit(body, "max_tokens")
        return Asked(
            self.name,
            body,
            text(body, "model"),
            tokens_of(body.get("tools"), items(body, "messages", needed=True)),
            older if most is None else most,
            flag(body, "stream"),
            tag_of(body, "safety_identifier", "user"),
        )

    def body_for(self, asked: Asked, *, model: str, max_tokens_out: int) -> dict[str, Any]:
        """Return the client's body with model and token limit replaced; a stream states its usage."""
        body = asked.body | {"model": model}
        if body.get("max_completion_tokens") is None:
            body.pop("max_completion_tokens", None)
            body["max_tokens"] = max_tokens_out
        else:
            body.pop("max_tokens", None)
            body["max_completion_tokens"] = max_tokens_out
        if asked.stream:
            body["stream_options"] = (body.get("stream_options") or {}) | {"include_usage": True}
        return body

    def usage_of(self, answer: dict[str, Any], tokens_in: int) -> Usage:
        """Return what a whole answer says was used."""
        return chat_usage(answer, tokens_in)

    def reader(self, asked: Asked, tokens_in: int) -> StreamReader:
        """Return a reader; it drops the chunk of usage that only `body_for` asked for."""
        n = asked.body.get("n")
        return _Reader(_wants_usage(asked), n if type(n) is int else 1, tokens_in)

    def error(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ) -> dict[str, Any]:
        """Return ``{"error": {"message", "type", "param", "code"}}``."""
        return openai_error(status, message, code, param)

    def error_frame(self, status: int, message: str, *, code: str | None = None) -> str:
        """Return the error as an event, which OpenAI's clients raise."""
        return sse(json_text(openai_error(status, message, code, None)))

    def to_chat(self, asked: Asked) -> dict[str, Any]:
        """Return the body itself."""
        return asked.body

    def from_chat(
        self, answer: dict[str, Any], asked: Asked, *, answer_id: str, created: int
    ) -> dict[str, Any]:
        """Return the answer itself."""
        return answer

    def writer(self, asked: Asked, *, answer_id: str, created: int) -> StreamWriter:
        """Return a writer that passes chunks on, but for a usage that the client did not ask for."""
        return _Writer(_wants_usage(asked))


CHAT = Chat()


def _wants_usage(asked: Asked) -> bool:
    options = asked.body.get("stream_options") or {}
    return options.get("include_usage") is True


def openai_error(status: int, message: str, code: str | None, param: str | None) -> dict[str, Any]:
    """Return an error as OpenAI's API states it."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class _Reader(StreamReader):
    def __init__(self, wants_usage: bool, answers: int, tokens_in: int) -> None:
        self._wants_usage = wants_usage
        self._answers = answers
        self._tokens_in = tokens_in
        self._finished: set[int] = set()

    def feed(self, event: str | None, data: str) -> Frame:
        if data.startswith("[DONE]"):
            return Frame(_DONE, False, True, None, None)
        chunk = event_of(data)
        if chunk.get("error"):
            raise broken(chunk)
        choices = choices_of(chunk)
        usage = None if chunk.get("usage") is None else chat_usage(chunk, self._tokens_in)
        dropped = usage is not None and not choices and not self._wants_usage
        content = any(map(_brings_content, choices))
        for choice in choices:
            if choice.get("finish_reason") is not None and type(index := choice.get("index")) is int:
                self._finished.add(index)
        return Frame("" if dropped else sse(data), content, False, usage, chunk)

    def end(self) -> str | None:
        """Return the end that some servers (``transformers serve`` 5.23) leave out, if every answer was finished."""
        return _DONE if len(self._finished) >= self._answers else None


def _brings_content(choice: dict[str, Any]) -> bool:
    delta = choice.get("delta")
    if isinstance(delta, dict):
        for name in CONTENT:  # a loop, for this is done for every token
            if delta.get(name):
                return True
    return False


class _Writer(StreamWriter):
    def __init__(self, wants_usage: bool) -> None:
        self._wants_usage = wants_usage

    def feed(self, chunk: dict[str, Any]) -> str:
        if not self._wants_usage and chunk.get("usage") is not None and not choices_of(chunk):
            return ""
        return sse(json_text(chunk))

    def end(self) -> str:
        return _DONE
