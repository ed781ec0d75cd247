"""A call inside a model server with continuous batching, and where it stands."""

from __future__ import annotations

from glowsim.sim.serving.blocks import Text
from glowsim.sim.serving.call import Call

__all__ = ["DECODE", "OUT", "PREFILL", "WAITING", "Seat"]

WAITING, PREFILL, DECODE, OUT = range(4)


class Seat:
    """A call inside."""

    __slots__ = (
        "arrival", "base", "blocks", "call", "cancelled", "computed", "finish", "generated", "has_text",
        "head_blocks", "holds", "named", "order", "own", "own_upto", "peak", "phase", "t_s",
        "tokens_in", "tokens_out",
    )  # fmt: skip

    computed: int
    """Tokens whose keys and values are stored; while it decodes, step counter + base."""
    base: int
    blocks: int
    """Blocks it holds while it prefills."""
    finish: int
    """The step counter at which it ends; -1: an end in the heap is void."""
    order: int
    """Of admission."""
    own: Text | None
    own_upto: int
    named: int
    """Leading blocks that hold a text by its name."""
    holds: list[tuple[Text, int]]
    """References to the texts that it shares, in their order in the prompt."""
    has_text: bool
    """Whether others may find, or may have left, something of its text."""

    def __init__(
        self, call: Call, arrival: int, t_s: float, peak: int, head_blocks: int, has_text: bool
    ) -> None:
        self.call = call
        self.arrival = arrival
        self.t_s = t_s
        self.peak = peak
        self.head_blocks = head_blocks
        self.has_text = has_text
        self.tokens_in = call.tokens_in
        self.tokens_out = call.tokens_out
        self.generated = self.named = self.own_upto = 0
        self.holds = []
        self.phase = WAITING
        self.cancelled = False
        self.finish = self.order = -1
        self.own = None

    def __lt__(self, other: Seat) -> bool:
        """Return whether it comes first in order of priority."""
        return (self.call.priority, self.arrival) < (other.call.priority, other.arrival)
