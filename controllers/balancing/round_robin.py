"""Round robin."""

from __future__ import annotations

from collections.abc import Sequence

from glowsim.core.instance import Instance
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Reported, Request

__all__ = ["RoundRobin"]


class RoundRobin(Stateful):
    """Decides that instances take turns, by number, among those that may get work.

    It skips instances that are full or away and goes on with the next higher number, so that the one after
    a full instance does not get twice its share.

    >>> a, b = Instance(0, 0, 4), Instance(1, 0, 4)
    >>> turns = RoundRobin()
    >>> [turns.pick(0.0, Request(i, 0, 900, 100), [b, a]).number for i in range(3)]
    [0, 1, 0]
    """

    state = ("_last",)

    def __init__(self) -> None:
        self._last = -1

    def pick(self, t_s: float, request: Request, allowed: Sequence[Instance]) -> Instance:
        """Return the instance whose turn it is."""
        last = self._last
        following = lowest = None
        for each in allowed:
            number = each.number
            if lowest is None or number < lowest.number:
                lowest = each
            if number > last and (following is None or number < following.number):
                following = each
        chosen = following or lowest
        assert chosen is not None
        self._last = chosen.number
        return chosen

    def reported(self, t_s: float, reported: Reported) -> None:
        """Take in a measurement, of which turns know nothing."""
