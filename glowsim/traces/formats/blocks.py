"""Traces with the hashes of prompt blocks: Mooncake and Qwen-Bailian."""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np

from glowsim.core.streams import Streams
from glowsim.traces.formats.base import Format, Request, arrival
from glowsim.traces.log import Ints
from glowsim.traces.values import Instant, Row, Unreadable, instant, number, text, whole

__all__ = ["Mooncake", "QwenBailian"]

_GRID_NS: Final = 3_000_000_000
_OFF_GRID_NS: Final = 10_000_000
"""Published times miss the grid by up to 3 ms."""


class Mooncake(Format):
    """The traces of Mooncake (FAST 2025): times in milliseconds, and a hash for each 512 tokens of the prompt.

    The conversation trace has its times on a grid of 3 s, which would make of a smooth stream a burst every
    three seconds: such times are moved by U(0, 3 s), drawn from the seed. Other times stay as they are.

    Schema: kvcache-ai/Mooncake, FAST25-release/README.md and its traces.
    """

    name: ClassVar[str] = "mooncake"
    fields = frozenset({"timestamp", "input_length", "output_length", "hash_ids"})
    marks = (("timestamp",), ("input_length",), ("output_length",), ("hash_ids",))
    block_tokens: ClassVar[int] = 512

    def request(self, row: Row) -> Request:
        """Return the request of a row."""
        milliseconds = number(row, "timestamp", required=True)
        if milliseconds is None or milliseconds > 9e12:
            raise Unreadable("timestamp must be milliseconds since the trace's beginning")
        return Request(Instant(round(milliseconds * 1e6), False), _lengths(row), blocks=_hashes(row))

    def settled(self, at_ns: Ints, seed: int) -> tuple[Ints, tuple[str, ...]]:
        """Return the times, off the grid if they all lie on it and some share a place."""
        grid = np.rint(at_ns / _GRID_NS).astype(np.int64) * _GRID_NS
        if np.any(np.abs(at_ns - grid) > _OFF_GRID_NS) or len(np.unique(grid)) == len(grid):
            return at_ns, ()
        drawn = Streams(seed).generator("traces", "mooncake", "grid").random(len(at_ns))
        moved = grid + (drawn * _GRID_NS).astype(np.int64)
        return moved, (f"the times lay on a grid of 3 s: each was moved by U(0, 3 s), seed {seed}",)


class QwenBailian(Format):
    """The traces of Alibaba's Bailian (ATC 2025): chats with their parents, and a hash for each 16 tokens.

    A session is the chat at the root of the line of parents; a parent that is not in the file names its session.

    Schema: alibaba-edu/qwen-bailian-usagetraces-anon, README.md. It says of the hashes that each is of its block,
    not of the text up to there: only leading blocks that agree are a shared prefix.
    """

    name: ClassVar[str] = "qwen_bailian"
    fields = frozenset(
        {"chat_id", "parent_chat_id", "timestamp", "input_length", "output_length", "turn", "hash_ids"}
    )
    marks = (("chat_id",), ("parent_chat_id",), ("timestamp",), ("input_length",), ("output_length",))
    remarks = ("a block's hash is of its own 16 tokens: a prefix is shared as far as leading blocks agree",)
    block_tokens: ClassVar[int] = 16

    def __init__(self) -> None:
        self._roots: dict[str, str] = {}

    def request(self, row: Row) -> Request:
        """Return the request of a row."""
        at = arrival(instant(row, "timestamp"), "timestamp")
        chat, parent = text(row, "chat_id"), text(row, "parent_chat_id")
        if chat is None or parent is None:
            raise Unreadable("chat_id and parent_chat_id must be there")
        turn = whole(row, "turn")
        if turn is not None and turn < 1.0:
            raise Unreadable("turn must be 1 or more")
        numbers = _lengths(row)
        numbers["turn"] = None if turn is None else turn - 1.0
        blocks = _hashes(row) if "hash_ids" in row else None
        root = chat if parent == "-1" else self._roots.get(parent, parent)
        self._roots.setdefault(chat, root)
        return Request(at, numbers, {"session": root}, key=chat, blocks=blocks)


def _lengths(row: Row) -> dict[str, float | None]:
    return {
        "tokens_in": whole(row, "input_length", required=True),
        "tokens_out": whole(row, "output_length", required=True),
    }


def _hashes(row: Row) -> tuple[int, ...]:
    found = row.get("hash_ids")
    if not isinstance(found, list) or not all(type(each) is int for each in found):
        raise Unreadable("hash_ids must be a list of whole numbers")
    return tuple(found)
