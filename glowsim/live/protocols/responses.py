"""OpenAI's responses.

Source: the models of OpenAI's Python client (``openai.types.responses``), against which the tests check all that is
made here. Answers are not kept, so that none can be named later by ``previous_response_id``.
"""

from __future__ import annotations

from typing import Any

from glowsim.core.types import Usage
from glowsim.live.protocols.blocks import Block, BlockWriter, blocks_of, finish_of
from glowsim.live.protocols.bodies import flag, items, read_json, tag_of, text, token_limit, tokens_of
from glowsim.live.protocols.chat import openai_error
from glowsim.live.protocols.chat_answers import said_in_answer
from glowsim.live.protocols.events import broken, details, json_text, sse, stated_usage, typed_event, usage_in
from glowsim.live.protocols.responses_to_chat import responses_to_chat
from glowsim.live.protocols.shape import Asked, BadBody, Frame, Protocol, StreamReader, StreamWriter

__all__ = ["RESPONSES", "Responses"]

_SHORT_OF = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ECHOED: dict[str, Any] = {
    "instructions": None, "max_output_tokens": None, "metadata": {}, "parallel_tool_calls": True, "reasoning": None,
    "temperature": None, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": None,
    "truncation": "disabled", "user": None, "safety_identifier": None,
}  # fmt: skip


class Responses(Protocol):
    """OpenAI's responses.

    >>> asked = RESPONSES.read(b'{"model": "tax", "input": "What is due in May?"}')
    >>> asked.model, asked.tokens_in, asked.max_tokens_out
    ('tax', 5, None)
    >>> RESPONSES.to_chat(asked)["messages"]
    [{'role': 'user', 'content': 'What is due in May?'}]
    """

    name = "responses"
    path = "/v1/responses"

    def read(self, raw: bytes) -> Asked:
        """Return what a body asks for."""
        body = read_json(raw)
        given = body.get("input")
        if not isinstance(given, str):
            given = items(body, "input", needed=True)
        if not isinstance(body.get("instructions"), str | None):
            raise BadBody("'instructions' must be a text", "instructions")
        return Asked(
            self.name,
            body,
            text(body, "model"),
            tokens_of(body.get("tools"), given, body.get("instructions")),
            token_limit(body, "max_output_tokens"),
            flag(body, "stream"),
            tag_of(body, "safety_identifier", "user"),
        )

    def body_for(self, asked: Asked, *, model: str, max_tokens_out: int) -> dict[str, Any]:
        """Return the client's body with model and token limit replaced."""
        return asked.body | {"model": model, "max_output_tokens": max_tokens_out}

    def usage_of(self, answer: dict[str, Any], tokens_in: int) -> Usage:
        """Return what a whole answer says was used."""
        stated = usage_in(answer)
        if stated is None:
            return Usage(tokens_in)
        cached = details(stated, "input_tokens_details").get("cached_tokens")
        return stated_usage(stated.get("input_tokens", tokens_in), cached, stated.get("output_tokens"))

    def reader(self, asked: Asked, tokens_in: int) -> StreamReader:
        """Return a reader, which passes every event on; an answer that failed is an error."""
        return _Reader(tokens_in)

    def error(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ) -> dict[str, Any]:
        """Return ``{"error": {"message", "type", "param", "code"}}``."""
        return openai_error(status, message, code, param)

    def error_frame(self, status: int, message: str, *, code: str | None = None) -> str:
        """Return the event ``error``: as documented, and with the ``error`` that OpenAI's clients raise.

        Its sequence number is 0: how far the stream had come is not known here.
        """
        flat = {"type": "error", "code": code, "message": message, "param": None, "sequence_number": 0}
        return sse(json_text(flat | openai_error(status, message, code, None)), "error")

    def to_chat(self, asked: Asked) -> dict[str, Any]:
        """Return the body as chat completions would have it; see `responses_to_chat`."""
        return responses_to_chat(asked)

    def from_chat(
        self, answer: dict[str, Any], asked: Asked, *, answer_id: str, created: int
    ) -> dict[str, Any]:
        """Return a whole chat answer as a response: an item for its text, its refusal and each of its calls."""
        said = said_in_answer(answer, asked.tokens_in)
        blocks = blocks_of(said)
        finish = finish_of(said.finish, bool(said.calls))
        model = answer.get("model")
        response = _response(
            asked, answer_id, created, model if isinstance(model, str) and model else asked.model
        )
        return response | _ended(finish, blocks, said.usage or Usage(asked.tokens_in), answer_id)

    def writer(self, asked: Asked, *, answer_id: str, created: int) -> StreamWriter:
        """Return a writer; a reasoning that chat chunks bring is left out."""
        return _Writer(asked, answer_id, created)


RESPONSES = Responses()


def _response(asked: Asked, answer_id: str, created: int, model: str) -> dict[str, Any]:
    """Return a response that has only begun."""
    echoed = {
        name: default if asked.body.get(name) is None else asked.body[name]
        for name, default in _ECHOED.items()
    }
    return {
        "id": f"resp_{answer_id}",
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "previous_response_id": None,
        "store": False,
        "usage": None,
    } | echoed


def _ended(finish: str, blocks: list[Block], usage: Usage, answer_id: str) -> dict[str, Any]:
    """Return what is different in a response once it has ended."""
    short_of = _SHORT_OF.get(finish)
    return {
        "status": _status(finish, True),
        "incomplete_details": None if short_of is None else {"reason": short_of},
        "output": [_item(block, answer_id, _status(finish, block is blocks[-1])) for block in blocks],
        "usage": {
            "input_tokens": usage.tokens_in,
            "input_tokens_details": {"cached_tokens": usage.tokens_cached, "cache_write_tokens": 0},
            "output_tokens": usage.tokens_out,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage.tokens_in + usage.tokens_out,
        },
    }


def _status(finish: str | None, last: bool) -> str:
    """Return how a response or an item ended: what falls short is the response, and its last item."""
    return "incomplete" if last and finish in _SHORT_OF else "completed"


def _item(block: Block, answer_id: str, status: str) -> dict[str, Any]:
    if block.call is None:
        content = [_part(block, block.said())] if block.parts else []
        return {
            "id": _item_id(block, answer_id), "type": "message", "status": status, "role": "assistant",
            "content": content,
        }  # fmt: skip
    return {
        "id": _item_id(block, answer_id), "type": "function_call", "status": status, "call_id": block.call.call_id,
        "name": block.call.name, "arguments": block.said(),
    }  # fmt: skip


def _item_id(block: Block, answer_id: str) -> str:
    return f"{'msg' if block.call is None else 'fc'}_{answer_id}_{block.number}"


def _part(block: Block, said: str) -> dict[str, Any]:
    if block.kind == "refusal":
        return {"type": "refusal", "refusal": said}
    return {"type": "output_text", "text": said, "annotations": [], "logprobs": []}


class _Reader(StreamReader):
    def __init__(self, tokens_in: int) -> None:
        self._tokens_in = tokens_in

    def feed(self, event: str | None, data: str) -> Frame:
        said, kind = typed_event(data)
        response = said.get("response")
        if kind == "error":
            raise broken(said)
        if kind == "response.failed":
            raise broken(response if isinstance(response, dict) else said)
        done = kind in ("response.completed", "response.incomplete")
        usage = RESPONSES.usage_of(response, self._tokens_in) if done and isinstance(response, dict) else None
        content = kind.endswith(".delta") and bool(said.get("delta"))
        return Frame(sse(data, kind), content, done, usage, None)


class _Writer(BlockWriter):
    def __init__(self, asked: Asked, answer_id: str, created: int) -> None:
        super().__init__(asked)
        self._answer_id = answer_id
        self._created = created
        self._response: dict[str, Any] = {}
        self._events = 0

    def _begin(self, model: str) -> str:
        self._response = _response(self._asked, self._answer_id, self._created, model)
        created = self._event("response.created", response=self._response)
        return created + self._event("response.in_progress", response=self._response)

    def _opened(self, block: Block) -> str:
        item = _item(block, self._answer_id, "in_progress")
        added = self._event("response.output_item.added", output_index=block.number, item=item)
        if block.call is not None:
            return added
        return added + self._of_part("response.content_part.added", block, part=_part(block, ""))

    def _said(self, block: Block, text: str) -> str:
        match block.kind:
            case "call":
                return self._of_item("response.function_call_arguments.delta", block, delta=text)
            case "refusal":
                return self._of_part("response.refusal.delta", block, delta=text)
            case "text":
                return self._of_part("response.output_text.delta", block, delta=text, logprobs=[])

    def _closed(self, block: Block) -> str:
        said = block.said()
        match block.kind:
            case "call":
                events = self._of_item(
                    "response.function_call_arguments.done", block, arguments=said
                )  # fmt: skip
            case "refusal":
                events = self._of_part("response.refusal.done", block, refusal=said)
            case "text":
                events = self._of_part("response.output_text.done", block, text=said, logprobs=[])
        if block.call is None:
            events += self._of_part("response.content_part.done", block, part=_part(block, said))
        item = _item(block, self._answer_id, _status(self._finish, block is self._blocks[-1]))
        return events + self._event("response.output_item.done", output_index=block.number, item=item)

    def _done(self, finish: str) -> str:
        response = self._response | _ended(finish, self._blocks, self._usage, self._answer_id)
        return self._event(f"response.{response['status']}", response=response)

    def _of_part(self, kind: str, block: Block, **more: Any) -> str:
        return self._of_item(kind, block, content_index=0, **more)

    def _of_item(self, kind: str, block: Block, **more: Any) -> str:
        item_id = _item_id(block, self._answer_id)
        return self._event(kind, item_id=item_id, output_index=block.number, **more)

    def _event(self, kind: str, **more: Any) -> str:
        event = {"type": kind, "sequence_number": self._events} | more
        self._events += 1
        return sse(json_text(event), kind)
