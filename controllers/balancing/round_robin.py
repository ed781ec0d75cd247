"""Round robin."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from typing import Any

from glowsim.core.instance import Eligible, Instance
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Reported, Request

__all__ = ["RoundRobin"]


class RoundRobin(Stateful):
    """Decides that instances take turns, by number, among those that may get work.

    It skips instances that are full or away and goes on with the next higher number, so that the one after
    a full instance does not get twice its share. Told of the instances, a turn is a bisection of their
    sorted numbers; otherwise it goes through those allowed.

    Notes
    -----
    Weakness: it counts requests, not work. One long generation in ten leaves the instance that drew it with
    the same share as the others; where requests differ much, take `least_connections`.

    >>> a, b = Instance(0, 0, 4), Instance(1, 0, 4)
    >>> turns = RoundRobin()
    >>> [turns.pick(0.0, Request(i, 0, 900, 100), [b, a]).number for i in range(3)]
    [0, 1, 0]
    """

    state = ("_last", "_numbers")

    def __init__(self) -> None:
        self._last = -1
        self._numbers: list[int] = []
        """Those that may get work, ascending."""
        self._there: set[int] = set()

    def pick(self, t_s: float, request: Request, allowed: Sequence[Instance]) -> Instance:
        """Return the instance whose turn it is."""
        numbers = self._numbers
        if numbers and type(allowed) is Eligible:
            place = bisect_right(numbers, self._last)
            number = self._last = numbers[place if place < len(numbers) else 0]
            return allowed.instances[number]
        last = self._last
        chosen = min(allowed, key=lambda each: (each.number <= last, each.number))
        self._last = chosen.number
        return chosen

    def moved(self, instance: Instance) -> None:
        """Keep the sorted numbers of those that may get work."""
        number = instance.number
        if instance.place >= 0:
            if number not in self._there:
                self._there.add(number)
                insort(self._numbers, number)
        elif number in self._there:
            self._there.remove(number)
            del self._numbers[bisect_left(self._numbers, number)]

    def restore(self, saved: dict[str, Any]) -> None:
        """Take on a state that `snapshot` returned."""
        super().restore(saved)
        self._there = set(self._numbers)

    def reported(self, t_s: float, reported: Reported) -> None:
        """Take in a measurement, of which turns know nothing."""
