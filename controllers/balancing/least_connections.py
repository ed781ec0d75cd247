"""Least connections."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any

from glowsim.core.instance import UNLIMITED, Eligible, Instance
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Reported, Request

__all__ = ["LeastConnections"]

_UNKNOWN = (-1, 0, 0)
_FEW = 16
_SLACK = 64
"""Entries that no longer hold are dropped when they reach the top, or when they are most of the heap."""


class LeastConnections(Stateful):
    """Decides for the instance with the least work in flight; among equals, for the least recently picked.

    Equals that were never picked go by number, so the order of the list decides nothing, and equals share
    the work evenly instead of herding on one. A few it goes through; once there are more, and it is told of
    them, it keeps them in a heap by (work in flight, last pick, number), and a pick costs O(log n).

    Notes
    -----
    Weakness: an instance that fails fast has little in flight and so draws work (one of ten, at a load of
    80 %: measured 22 % of the requests); put a breaker beside it, or take `adaptive`. Several gateways that
    do not see each other's work all choose alike; for them there is `power_of_two`.

    >>> a, b, c = (Instance(number, 0, 4) for number in range(3))
    >>> c.in_flight = 1
    >>> balancer = LeastConnections()
    >>> [balancer.pick(0.0, Request(i, 0, 900, 100), [c, b, a]).number for i in range(3)]
    [0, 1, 0]
    """

    state: tuple[str, ...] = ("_known", "_picks", "_indexed")

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int, int]] = {}
        """Instance -> its entry in the heap; work in flight is -1 where it has none there."""
        self._heap: list[tuple[int, int, int]] = []
        """(work in flight, last pick, number): those of `_known`, and some that no longer hold."""
        self._picks = 0
        self._indexed = False

    def pick(self, t_s: float, request: Request, allowed: Sequence[Instance]) -> Instance:
        """Return the instance with the least work."""
        known = self._known
        picks = self._picks = self._picks + 1
        if type(allowed) is not Eligible or (not self._indexed and len(allowed) <= _FEW):
            chosen, least, since = allowed[0], UNLIMITED, 0
            for each in allowed:
                in_flight = each.in_flight
                if in_flight > least:
                    continue
                last = known.get(each.number, _UNKNOWN)[1]
                if in_flight < least or last < since or (last == since and each.number < chosen.number):
                    chosen, least, since = each, in_flight, last
            known[chosen.number] = (-1, picks, chosen.number)
            return chosen
        if not self._indexed:
            self._index(allowed)
        heap, instances = self._heap, allowed.instances
        while True:
            entry = heap[0]
            number = entry[2]
            if known.get(number) == entry:
                chosen = instances[number]
                if chosen.place >= 0:
                    break
                known[number] = (-1, entry[1], number)
            heappop(heap)
        entry = known[number] = (entry[0] + 1, picks, number)  # as it will be once this is dispatched
        heapreplace(heap, entry)
        return chosen

    def _index(self, allowed: Eligible) -> None:
        self._indexed = True
        known = self._known
        for each in allowed:
            known[each.number] = (each.in_flight, known.get(each.number, _UNKNOWN)[1], each.number)
        self._lay()

    def moved(self, instance: Instance) -> None:
        """Give an instance that may get work the place in the heap that its work in flight asks for."""
        if self._indexed and instance.place >= 0:
            number, in_flight = instance.number, instance.in_flight
            before = self._known.get(number, _UNKNOWN)
            if before[0] != in_flight:
                heap = self._heap
                entry = self._known[number] = (in_flight, before[1], number)
                heappush(heap, entry)
                if len(heap) > 2 * len(self._known) + _SLACK:
                    self._lay()

    def left(self, t_s: float, instance: int) -> None:
        """Forget an instance."""
        self._known.pop(instance, None)

    def _lay(self) -> None:
        self._heap = [entry for entry in self._known.values() if entry[0] >= 0]
        heapify(self._heap)

    def restore(self, saved: dict[str, Any]) -> None:
        """Take on a state that `snapshot` returned."""
        super().restore(saved)
        self._lay()

    def reported(self, t_s: float, reported: Reported) -> None:
        """Take in a measurement, which counts for nothing here: what is in flight is known."""
