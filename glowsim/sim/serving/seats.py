"""Where a call stands inside a model server with continuous batching."""

from __future__ import annotations

from glowsim.sim.serving.blocks import Text

__all__ = ["DECODE", "OUT", "PREFILL", "WAITING", "Seat"]

WAITING, PREFILL, DECODE, OUT = range(4)


class Seat:
    """What `BatchEngine` knows of a call, on the call itself: set when it is started, and nobody else's."""

    __slots__ = (
        "arrival", "base", "blocks_held", "came_s", "cancelled", "computed", "finish", "generated", "has_text",
        "head_blocks", "holds", "named", "order", "own", "own_upto", "peak", "phase",
    )  # fmt: skip

    arrival: int
    """Of calls, in order."""
    came_s: float
    computed: int
    """Tokens whose keys and values are stored; while it decodes, step counter + base."""
    base: int
    blocks_held: int
    """While it prefills."""
    generated: int
    """Tokens written, as far as is known."""
    peak: int
    """Blocks that it holds at most, at its end."""
    head_blocks: int
    """Leading full blocks of its prompt whose text others have too."""
    finish: int
    """The step counter at which it ends; -1: an end in the heap is void."""
    order: int
    """Of admission; -1 before."""
    own: Text | None
    """Of its own key, while it runs."""
    own_upto: int
    """Blocks of that which it holds by name."""
    named: int
    """Leading blocks that hold a text by its name."""
    holds: list[tuple[Text, int]]
    """References to the texts that it shares, in their order in the prompt."""
    has_text: bool
    """Whether others may find, or may have left, something of its text."""
    phase: int
    cancelled: bool
