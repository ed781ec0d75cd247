"""Least connections."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from glowsim.core.instance import UNLIMITED, Instance
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Reported, Request

__all__ = ["LeastConnections"]

_REMEMBERED = 10_000
"""Instances whose last pick is remembered; one forgotten counts as never picked."""


class LeastConnections(Stateful):
    """Decides for the instance with the least work in flight; among equals, for the least recently picked.

    Equals that were never picked go by number, so the order of the list decides nothing.

    >>> a, b, c = (Instance(number, 0, 4) for number in range(3))
    >>> c.in_flight = 1
    >>> balancer = LeastConnections()
    >>> [balancer.pick(0.0, Request(i, 0, 900, 100), [c, b, a]).number for i in range(3)]
    [0, 1, 0]
    """

    state = ("_picked", "_picks")

    def __init__(self) -> None:
        self._picked: OrderedDict[int, int] = OrderedDict()
        """Instance -> ordinal of its last pick, in that order."""
        self._picks = 0

    def pick(self, t_s: float, request: Request, allowed: Sequence[Instance]) -> Instance:
        """Return the instance with the least work."""
        picked = self._picked
        chosen, least, since = allowed[0], UNLIMITED, 0
        for each in allowed:
            in_flight = each.in_flight
            if in_flight > least:
                continue
            last = picked.get(each.number, 0)
            if in_flight < least or last < since or (last == since and each.number < chosen.number):
                chosen, least, since = each, in_flight, last
        number = chosen.number
        picks = self._picks = self._picks + 1
        picked[number] = picks
        picked.move_to_end(number)
        if len(picked) > _REMEMBERED:
            picked.popitem(last=False)
        return chosen

    def reported(self, t_s: float, reported: Reported) -> None:
        """Take in a measurement, which counts for nothing here: what is in flight is known."""
