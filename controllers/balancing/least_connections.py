"""Least connections."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any

from glowsim.core.instance import UNLIMITED, Eligible, Instance
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Reported, Request

__all__ = ["LeastConnections"]

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

    state: tuple[str, ...] = ("_last", "_known", "_picks", "_indexed")

    def __init__(self) -> None:
        self._last: dict[int, int] = {}
        """Instance -> its last pick."""
        self._known: dict[int, tuple[int, int, int]] = {}
        """Instance -> its entry in the heap, if it has one."""
        self._heap: list[tuple[int, int, int]] = []
        """(work in flight, last pick, number): those of `_known`, and some that no longer hold."""
        self._picks = 0
        self._indexed = False

    def pick(self, t_s: float, request: Request, allowed: Sequence[Instance]) -> Instance:
        """Return the instance with the least work."""
        if type(allowed) is Eligible and (self._indexed or len(allowed) > _FEW):
            chosen = self._first(allowed)
        else:
            chosen = allowed[0]
            if len(allowed) > 1:
                last_of, least, since = self._last.get, UNLIMITED, 0
                for each in allowed:
                    in_flight = each.in_flight
                    if in_flight <= least:
                        number = each.number
                        last = last_of(number, 0)
                        if in_flight < least or last < since or (last == since and number < chosen.number):
                            chosen, least, since = each, in_flight, last
            if self._indexed:
                self._known.pop(chosen.number, None)
        picks = self._picks = self._picks + 1
        self._last[chosen.number] = picks
        return chosen

    def _first(self, allowed: Eligible) -> Instance:
        """Return the first of the heap that is allowed; its entry goes where it will belong once it is dispatched."""
        if not self._indexed:
            self._index(allowed)
        known, heap, instances = self._known, self._heap, allowed.instances
        while True:
            entry = heap[0]
            number = entry[2]
            if known.get(number) == entry:
                chosen = instances[number]
                if chosen.place >= 0:
                    break
                del known[number]
            heappop(heap)
        entry = known[number] = (entry[0] + 1, self._picks + 1, number)
        heapreplace(heap, entry)
        return chosen

    def _index(self, allowed: Eligible) -> None:
        self._indexed = True
        for each in allowed:
            self._known[each.number] = (each.in_flight, self._last.get(each.number, 0), each.number)
        self._lay()

    def moved(self, instance: Instance) -> None:
        """Give an instance that may get work the place in the heap that its work in flight asks for."""
        if self._indexed and instance.place >= 0:
            number, in_flight = instance.number, instance.in_flight
            before = self._known.get(number)
            if before is None or before[0] != in_flight:
                heap = self._heap
                entry = self._known[number] = (in_flight, self._last.get(number, 0), number)
                heappush(heap, entry)
                if len(heap) > 2 * len(self._known) + _SLACK:
                    self._lay()

    def left(self, t_s: float, instance: int) -> None:
        """Forget an instance."""
        self._last.pop(instance, None)
        self._known.pop(instance, None)

    def _lay(self) -> None:
        self._heap = list(self._known.values())
        heapify(self._heap)

    def restore(self, saved: dict[str, Any]) -> None:
        """Take on a state that `snapshot` returned."""
        super().restore(saved)
        self._lay()

    def reported(self, t_s: float, reported: Reported) -> None:
        """Take in a measurement, which counts for nothing here: what is in flight is known."""
