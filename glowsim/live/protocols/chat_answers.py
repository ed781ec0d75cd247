"""What chat answers and chunks say, and making them of a text."""

from __future__ import annotations

from typing import Any, NamedTuple

from glowsim.core.types import Usage
from glowsim.live.calls import InstanceError
from glowsim.live.protocols.events import broken, details, stated_usage, usage_in

__all__ = [
    "CONTENT", "Said", "ToolCall", "chat_answer", "chat_chunk", "chat_chunks", "chat_usage", "choices_of",
    "said_in_answer", "said_in_chunk", "usage_chunk",
]  # fmt: skip

CONTENT = ("content", "tool_calls", "refusal", "reasoning_content", "reasoning", "function_call", "audio")
"""Where a message or a delta may carry some of the answer; upstreams add their own for reasoning."""


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


def chat_usage(answer: dict[str, Any], tokens_in: int) -> Usage:
    """Return what a chat answer or chunk says was used; `tokens_in` where it says nothing.

    Raises
    ------
    InstanceError
        It is an error, or its usage is not made of token counts.

    >>> chat_usage({"usage": {"prompt_tokens": 9, "completion_tokens": 2}}, 7)[:3]
    (9, 0, 2)
    """
    stated = usage_in(answer)
    if stated is None:
        return Usage(tokens_in)
    cached = details(stated, "prompt_tokens_details").get("cached_tokens")
    return stated_usage(stated.get("prompt_tokens", tokens_in), cached, stated.get("completion_tokens"))


def said_in_answer(answer: dict[str, Any], tokens_in: int) -> Said:
    """Return what a whole chat answer says in its first choice.

    Raises
    ------
    InstanceError
        It is no chat answer.

    >>> said_in_answer({"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}, 7).text
    'yes'
    """
    match choices_of(answer):
        case [{"message": dict(message), "finish_reason": str(finish)}, *_]:
            usage = chat_usage(answer, tokens_in)
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
    usage = None if chunk.get("usage") is None else chat_usage(chunk, tokens_in)
    first = next((choice for choice in choices_of(chunk) if choice.get("index", 0) == 0), {})
    delta = first.get("delta") or {}
    finish = first.get("finish_reason")
    if not isinstance(delta, dict) or not isinstance(finish, str | None):
        raise InstanceError("a chunk's choice has no delta that can be read")
    calls = _calls(_objects(delta, "tool_calls"))
    return Said(_text(delta, "content"), _text(delta, "refusal"), calls, finish, usage)


def choices_of(said: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the choices of a chat answer or chunk; none where it has none."""
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
    for number, choice in enumerate(choices_of(answer)):
        message = choice.get("message")
        if not isinstance(message, dict):
            raise InstanceError("a choice of the answer has no message")
        opening = None if message.get("content") is None else ""
        said: list[dict[str, Any]] = [{"role": "assistant", "content": opening}]
        said += [{name: message[name]} for name in CONTENT if name != "tool_calls" and message.get(name)]
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
