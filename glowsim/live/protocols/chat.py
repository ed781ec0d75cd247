"""OpenAI's chat completions: the protocol that the others are translated to and from.

Source: the models of OpenAI's Python client (``openai.types.chat``), against which the tests check all that is
made here. Upstreams' own additions (``reasoning_content`` and the like) pass through.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from glowsim.core.types import Usage
from glowsim.live.calls import InstanceError
from glowsim.live.protocols.shared import (
    Asked,
    BadBody,
    Frame,
    Protocol,
    StreamReader,
    StreamWriter,
    broken,
    details,
    event_of,
    flag,
    items,
    json_text,
    read_json,
    sse,
    stated_usage,
    tag_of,
    text,
    token_limit,
    tokens_of,
    usage_in,
)

__all__ = [
    "CHAT", "Chat", "Said", "ToolCall", "chat_answer", "chat_chunk", "chat_chunks", "openai_error", "said_in_answer",
    "said_in_chunk", "usage_chunk",
]  # fmt: skip

_DONE = "data: [DONE]\n\n"
_CONTENT = ("content", "tool_calls", "refusal", "reasoning_content", "reasoning", "function_call", "audio")


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
        stated = usage_in(answer)
        if stated is None:
            return Usage(tokens_in)
        cached = details(stated, "prompt_tokens_details").get("cached_tokens")
        return stated_usage(stated.get("prompt_tokens", tokens_in), cached, stated.get("completion_tokens"))

    def reader(self, asked: Asked, tokens_in: int) -> StreamReader:
        """Return a reader; it drops the chunk of usage that only `body_for` asked for."""
        return _Reader(_wants_usage(asked), tokens_in)

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
    def __init__(self, wants_usage: bool, tokens_in: int) -> None:
        self._wants_usage = wants_usage
        self._tokens_in = tokens_in

    def feed(self, event: str | None, data: str) -> Frame:
        if data.startswith("[DONE]"):
            return Frame(_DONE, False, True, None, None)
        chunk = event_of(data)
        if chunk.get("error"):
            raise broken(chunk)
        usage = None if chunk.get("usage") is None else CHAT.usage_of(chunk, self._tokens_in)
        deltas = [choice.get("delta") for choice in _choices(chunk)]
        content = any(delta.get(name) for delta in deltas if isinstance(delta, dict) for name in _CONTENT)
        dropped = usage is not None and not deltas and not self._wants_usage
        return Frame("" if dropped else sse(data), content, False, usage, chunk)


class _Writer(StreamWriter):
    def __init__(self, wants_usage: bool) -> None:
        self._wants_usage = wants_usage

    def feed(self, chunk: dict[str, Any]) -> str:
        if not self._wants_usage and chunk.get("usage") is not None and not _choices(chunk):
            return ""
        return sse(json_text(chunk))

    def end(self) -> str:
        return _DONE


# --- what is said in answers and chunks ----------------------------------------------------------------


class ToolCall(NamedTuple):
    """A tool call, or the part of one that a chunk brings.

    >>> ToolCall(0, "call_1", "lookup", "{}").name
    'lookup'
    """

    place: int
    """Which of the answer's calls it is, from 0."""
    call_id: str
    """Empty where a chunk goes on with a call."""
    name: str
    arguments: str
    """JSON, or a part of it."""


class Said(NamedTuple):
    """What a chat answer or chunk says, checked.

    >>> Said("yes").finish is None
    True
    """

    text: str = ""
    refusal: str = ""
    calls: tuple[ToolCall, ...] = ()
    finish: str | None = None
    usage: Usage | None = None


def said_in_answer(answer: dict[str, Any], tokens_in: int) -> Said:
    """Return what a whole chat answer says in its first choice.

    Raises
    ------
    InstanceError
        It is no chat answer.

    >>> said_in_answer({"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}, 7).text
    'yes'
    """
    match _choices(answer):
        case [{"message": dict(message), "finish_reason": str(finish)}, *_]:
            usage = CHAT.usage_of(answer, tokens_in)
            calls = [{"index": number} | call for number, call in enumerate(_objects(message, "tool_calls"))]
            return Said(_text(message, "content"), _text(message, "refusal"), _calls(calls), finish, usage)
    if answer.get("error"):
        raise broken(answer)
    raise InstanceError("the answer has no 'choices' with a message and a finish reason")


def said_in_chunk(chunk: dict[str, Any], tokens_in: int) -> Said:
    """Return what a chat chunk says in its first choice.

    Raises
    ------
    InstanceError
        It is no chat chunk.

    >>> said_in_chunk({"choices": [{"delta": {"content": "ye"}}]}, 7).text
    'ye'
    """
    usage = None if chunk.get("usage") is None else CHAT.usage_of(chunk, tokens_in)
    first = next((choice for choice in _choices(chunk) if choice.get("index", 0) == 0), {})
    delta = first.get("delta") or {}
    finish = first.get("finish_reason")
    if not isinstance(delta, dict) or not isinstance(finish, str | None):
        raise InstanceError("a chunk's choice has no delta that can be read")
    calls = _calls(_objects(delta, "tool_calls"))
    return Said(_text(delta, "content"), _text(delta, "refusal"), calls, finish, usage)


def _choices(said: dict[str, Any]) -> list[dict[str, Any]]:
    return _objects(said, "choices")


def _objects(said: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = said.get(name)
    if found is None:
        return []
    if isinstance(found, list) and all(isinstance(each, dict) for each in found):
        return found
    raise InstanceError(f"the answer's '{name}' is not a list of objects")


def _text(said: dict[str, Any], name: str) -> str:
    match said.get(name):
        case None:
            return ""
        case str(found):
            return found
        case [*parts] if all(isinstance(part, dict) and part.get("type") == "text" for part in parts):
            return "".join(_text(part, "text") for part in parts)
    raise InstanceError(f"the answer's '{name}' is not a text")


def _calls(calls: list[dict[str, Any]]) -> tuple[ToolCall, ...]:
    def read(call: dict[str, Any]) -> ToolCall:
        function = call.get("function") or {}
        index = call.get("index")
        if isinstance(function, dict) and type(index) is int:
            return ToolCall(index, _text(call, "id"), _text(function, "name"), _text(function, "arguments"))
        raise InstanceError("a tool call of the answer has no index or no function that can be read")

    return tuple(map(read, calls))


# --- answers that are made here ------------------------------------------------------------------------


def chat_answer(
    text: str, usage: Usage, *, model: str, answer_id: str, created: int, finish: str = "stop"
) -> dict[str, Any]:
    """Return a text as a chat answer.

    >>> answer = chat_answer("yes", Usage(9, 0, 1), model="tax", answer_id="1", created=0)
    >>> answer["choices"][0]["message"]["content"], answer["usage"]["total_tokens"]
    ('yes', 10)
    """
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return {
        "id": f"chatcmpl-{answer_id}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [choice],
        "usage": _usage(usage),
    }


def chat_chunk(
    delta: dict[str, Any],
    *,
    model: str,
    answer_id: str,
    created: int,
    finish: str | None = None,
    index: int = 0,
) -> dict[str, Any]:
    """Return a piece of an answer as a chat chunk.

    >>> chat_chunk({"content": "ye"}, model="tax", answer_id="1", created=0)["choices"][0]["delta"]
    {'content': 'ye'}
    """
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _chunk([choice], model, f"chatcmpl-{answer_id}", created)


def usage_chunk(usage: Usage, *, model: str, answer_id: str, created: int) -> dict[str, Any]:
    """Return the chat chunk that ends a stream with what was used.

    >>> usage_chunk(Usage(9, 0, 1), model="tax", answer_id="1", created=0)["choices"]
    []
    """
    return _chunk([], model, f"chatcmpl-{answer_id}", created) | {"usage": _usage(usage)}


def chat_chunks(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a whole chat answer as the chunks of a stream: role, content, tool calls, finish, usage.

    Raises
    ------
    InstanceError
        It is no chat answer.

    >>> answer = chat_answer("yes", Usage(9, 0, 1), model="tax", answer_id="1", created=0)
    >>> [chunk["choices"][0]["delta"] for chunk in chat_chunks(answer)[:-1]]
    [{'role': 'assistant', 'content': ''}, {'content': 'yes'}, {}]
    """
    common = (answer.get("model"), answer.get("id"), answer.get("created"))
    chunks = []
    for number, choice in enumerate(_choices(answer)):
        message = choice.get("message")
        if not isinstance(message, dict):
            raise InstanceError("a choice of the answer has no message")
        opening = None if message.get("content") is None else ""
        said: list[dict[str, Any]] = [{"role": "assistant", "content": opening}]
        said += [{name: message[name]} for name in _CONTENT if name != "tool_calls" and message.get(name)]
        calls = _objects(message, "tool_calls")
        said += [{"tool_calls": [{"index": place} | call]} for place, call in enumerate(calls)]
        deltas = [(delta, None) for delta in said] + [({}, choice.get("finish_reason"))]
        chunks += [
            _chunk([{"index": number, "delta": delta, "logprobs": None, "finish_reason": finish}], *common)
            for delta, finish in deltas
        ]
    if not chunks:
        raise InstanceError("the answer has no 'choices'")
    if answer.get("usage") is not None:
        chunks.append(_chunk([], *common) | {"usage": answer["usage"]})
    return chunks


def _chunk(choices: list[dict[str, Any]], model: Any, chunk_id: Any, created: Any) -> dict[str, Any]:
    return {
        "id": chunk_id, "object": "chat.completion.chunk", "created": created, "model": model, "choices": choices,
    }  # fmt: skip


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.tokens_in,
        "completion_tokens": usage.tokens_out,
        "total_tokens": usage.tokens_in + usage.tokens_out,
        "prompt_tokens_details": {"cached_tokens": usage.tokens_cached},
    }
