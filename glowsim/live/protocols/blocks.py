"""What the protocols whose answers are made of blocks share: a text, a refusal or a tool call at a time."""

from __future__ import annotations

import json
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from glowsim.core.types import Usage
from glowsim.live.calls import InstanceError
from glowsim.live.protocols.chat_answers import Said, ToolCall, said_in_chunk
from glowsim.live.protocols.shape import Asked, StreamWriter

__all__ = ["Block", "BlockWriter", "Kind", "arguments_of", "blocks_of", "finish_of"]

Kind: TypeAlias = Literal["text", "refusal", "call"]
_FINISHES = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})


@dataclass(slots=True)
class Block:
    """A part of an answer.

    >>> Block("text", 0, parts=["ye", "s"]).said()
    'yes'
    """

    kind: Kind
    number: int
    """Its place among the blocks of the answer, from 0."""
    call: ToolCall | None = None
    """Of a call: its place among the calls, id and name."""
    parts: list[str] = field(default_factory=list)

    def said(self) -> str:
        """Return its text, or the arguments of its call."""
        return "".join(self.parts)


def blocks_of(said: Said) -> list[Block]:
    """Return what a whole answer says, as blocks.

    >>> [block.kind for block in blocks_of(Said("yes", calls=(ToolCall(0, "1", "due", "{}"),)))]
    ['text', 'call']
    """
    blocks: list[Block] = []
    if said.text:
        blocks.append(Block("text", 0, None, [said.text]))
    if said.refusal:
        blocks.append(Block("refusal", len(blocks), None, [said.refusal]))
    for call in said.calls:
        blocks.append(Block("call", len(blocks), _named(call), [call.arguments]))
    return blocks


def arguments_of(block: Block) -> dict[str, Any]:
    """Return the arguments of a call as an object; none at all are an empty one.

    Raises
    ------
    InstanceError
        They are not a JSON object.
    """
    assert block.call is not None
    try:
        arguments = json.loads(block.said() or "{}")
    except (ValueError, RecursionError) as error:
        raise InstanceError(f"the arguments of the call {block.call.name!r} are not JSON: {error}") from error
    if isinstance(arguments, dict):
        return arguments
    raise InstanceError(f"the arguments of the call {block.call.name!r} are not a JSON object")


def finish_of(finish: str | None, called: bool) -> str:
    """Return why an answer ended; one with calls that only says ``stop`` ended for them.

    OpenAI says so itself where a call was forced by name.

    Raises
    ------
    InstanceError
        No reason came, or none that chat completions know.

    >>> finish_of("stop", called=True)
    'tool_calls'
    """
    if finish is None:
        raise InstanceError("the answer ended without a finish reason")
    if finish not in _FINISHES:
        raise InstanceError(f"the answer ended with the unknown finish reason {finish[:50]!r}")
    return "tool_calls" if finish == "function_call" or (called and finish == "stop") else finish


def _named(call: ToolCall) -> ToolCall:
    if call.call_id and call.name:
        return call
    raise InstanceError("a tool call of the answer begins without an id or a name")


class BlockWriter(StreamWriter):
    """Writes a stream of blocks, one after the other, as a subclass puts them.

    Chat chunks may go back and forth between parts in theory; servers finish one before the next, and a chunk that
    goes back to a call that was left is an `InstanceError`.
    """

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._begun = False
        self._blocks: list[Block] = []
        self._open: Block | None = None
        self._finish: str | None = None
        self._usage = Usage(asked.tokens_in)

    def feed(self, chunk: dict[str, Any]) -> str:
        """Return the events that a chunk becomes."""
        said = said_in_chunk(chunk, self._asked.tokens_in)
        events = ""
        if not self._begun:
            self._begun = True
            model = chunk.get("model")
            events += self._begin(model if isinstance(model, str) and model else self._asked.model)
        if said.text:
            events += self._say("text", said.text)
        if said.refusal:
            events += self._say("refusal", said.refusal)
        for call in said.calls:
            events += self._go_on(call)
        if said.finish is not None:
            self._finish = said.finish
        if said.usage is not None:
            self._usage = said.usage
        return events

    def end(self) -> str:
        """Return the last events."""
        called = any(block.kind == "call" for block in self._blocks)
        finish = finish_of(self._finish, called)
        return self._left() + self._done(finish)

    def _say(self, kind: Kind, text: str) -> str:
        events = ""
        if self._open is None or self._open.kind != kind:
            events = self._enter(Block(kind, len(self._blocks)))
        return events + self._more(text)

    def _go_on(self, call: ToolCall) -> str:
        open_place = self._open.call.place if self._open is not None and self._open.call is not None else None
        events = ""
        if call.place != open_place:
            if any(block.call is not None and block.call.place == call.place for block in self._blocks):
                raise InstanceError(f"the stream goes back to its tool call {call.place}, which it had left")
            events = self._enter(Block("call", len(self._blocks), _named(call)))
        return events + (self._more(call.arguments) if call.arguments else "")

    def _enter(self, block: Block) -> str:
        events = self._left()
        self._open = block
        self._blocks.append(block)
        return events + self._opened(block)

    def _left(self) -> str:
        block, self._open = self._open, None
        return "" if block is None else self._closed(block)

    def _more(self, text: str) -> str:
        assert self._open is not None
        self._open.parts.append(text)
        return self._said(self._open, text)

    @abstractmethod
    def _begin(self, model: str) -> str: ...

    @abstractmethod
    def _opened(self, block: Block) -> str: ...

    @abstractmethod
    def _said(self, block: Block, text: str) -> str: ...

    @abstractmethod
    def _closed(self, block: Block) -> str: ...

    @abstractmethod
    def _done(self, finish: str) -> str: ...
