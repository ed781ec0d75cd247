"""OpenAI's embeddings: never streamed, and nothing that a chat model can be asked for."""

from __future__ import annotations

from typing import Any, NoReturn

from glowsim.core.types import Usage
from glowsim.live.protocols.bodies import flag, is_whole, read_json, tag_of, text, tokens_of
from glowsim.live.protocols.chat import openai_error
from glowsim.live.protocols.events import json_text, sse, stated_usage, usage_in
from glowsim.live.protocols.shape import Asked, BadBody, Protocol, StreamReader, StreamWriter

__all__ = ["EMBEDDINGS", "Embeddings"]


class Embeddings(Protocol):
    """OpenAI's embeddings.

    >>> EMBEDDINGS.read(b'{"model": "small", "input": ["What is", "due in May?"]}').tokens_in
    5
    >>> EMBEDDINGS.read(b'{"model": "small", "input": [[3923, 374], [4245]]}').tokens_in
    3
    """

    name = "embeddings"
    path = "/v1/embeddings"

    def read(self, raw: bytes) -> Asked:
        """Return what a body asks for: an input of texts is estimated, one of tokens is counted."""
        body = read_json(raw)
        if flag(body, "stream"):
            raise BadBody("embeddings do not stream: leave 'stream' out", "stream")
        tokens_in = _tokens_in(body.get("input"))
        return Asked(self.name, body, text(body, "model"), tokens_in, None, False, tag_of(body, "user"))

    def body_for(self, asked: Asked, *, model: str, max_tokens_out: int) -> dict[str, Any]:
        """Return the client's body with the model replaced; there is no limit of tokens."""
        return asked.body | {"model": model}

    def usage_of(self, answer: dict[str, Any], tokens_in: int) -> Usage:
        """Return what an answer says was used; nothing is put out."""
        stated = usage_in(answer)
        return (
            Usage(tokens_in) if stated is None else stated_usage(stated.get("prompt_tokens", tokens_in), 0, 0)
        )

    def reader(self, asked: Asked, tokens_in: int) -> StreamReader:
        """Refuse: embeddings do not stream."""
        _refuse()

    def error(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ) -> dict[str, Any]:
        """Return ``{"error": {"message", "type", "param", "code"}}``."""
        return openai_error(status, message, code, param)

    def error_frame(self, status: int, message: str, *, code: str | None = None) -> str:
        """Return the error as an event, for completeness: embeddings do not stream."""
        return sse(json_text(openai_error(status, message, code, None)))

    def to_chat(self, asked: Asked) -> dict[str, Any]:
        """Refuse: a chat model gives no embeddings."""
        _refuse()

    def from_chat(
        self, answer: dict[str, Any], asked: Asked, *, answer_id: str, created: int
    ) -> dict[str, Any]:
        """Refuse: a chat answer is no embedding."""
        _refuse()

    def writer(self, asked: Asked, *, answer_id: str, created: int) -> StreamWriter:
        """Refuse: embeddings do not stream."""
        _refuse()


EMBEDDINGS = Embeddings()


def _refuse() -> NoReturn:
    raise BadBody(
        "this agent answers with text and gives no embeddings: ask one whose instances take embeddings"
    )


def _tokens_in(given: Any) -> int:
    match given:
        case str() if given:
            return tokens_of(None, given)
        case [str(), *_] if all(isinstance(each, str) for each in given):
            return tokens_of(None, given)
        case [int() | float(), *_] if all(map(is_whole, given)):
            return len(given)
        case [[_, *_], *_] if all(_are_tokens(each) for each in given):
            return sum(map(len, given))
    raise BadBody(
        "'input' must be a text, a list of texts, or tokens: one list of whole numbers or several", "input"
    )


def _are_tokens(each: Any) -> bool:
    return isinstance(each, list) and bool(each) and all(map(is_whole, each))
