"""The power of two choices."""

from __future__ import annotations

from collections.abc import Sequence

from glowsim.core.instance import Instance
from glowsim.core.snapshot import Stateful
from glowsim.core.streams import Stream
from glowsim.core.types import Reported, Request

__all__ = ["PowerOfTwo"]


class PowerOfTwo(Stateful):
    """Decides for the less loaded of two instances, drawn at random without replacement; ties at random.

    Load is work in flight as a share of the slots. One allowed instance is taken without a draw.

    Parameters
    ----------
    stream
        Where the draws come from.

    Notes
    -----
    Source: Mitzenmacher, "The power of two choices in randomized load balancing", IEEE Transactions on
    Parallel and Distributed Systems 12(10), 2001.

    >>> idle, busy = Instance(0, 0, 4), Instance(1, 0, 4)
    >>> busy.in_flight = 3
    >>> PowerOfTwo(Stream(1)).pick(0.0, Request(1, 0, 900, 100), [busy, idle]).number
    0
    """

    state = ("_stream",)

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def pick(self, t_s: float, request: Request, allowed: Sequence[Instance]) -> Instance:
        """Return the less loaded of two."""
        n = len(allowed)
        if n == 1:
            return allowed[0]
        below = self._stream.below
        i, j = below(n), below(n - 1)
        if j >= i:
            j += 1
        first, second = allowed[i], allowed[j]
        # The pair comes in random order, so that the first of equals is a random one.
        if second.in_flight * first.slots < first.in_flight * second.slots:
            return second
        return first

    def reported(self, t_s: float, reported: Reported) -> None:
        """Take in a measurement, which counts for nothing here: what is in flight is known."""
