"""Timers that fire in the order (due, kind, number), cheap where many share one delay.

A constant delay (a timeout of 30 s) gets a lane: a deque that is sorted by itself, since time never runs
back. Other moments go to a heap. A timer whose owner is gone is dropped when it is next looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from math import inf

__all__ = ["Timers"]

Timer = tuple[float, int, int]


class Timers:
    """Pending timers as (due_s, kind, number).

    Parameters
    ----------
    alive
        Kind -> says of a number whether its timer still matters; those of other kinds always do.

    >>> timers = Timers({})
    >>> timers.after(0.0, 30.0, 1, 7); timers.at(10.0, 2, 8)
    >>> timers.next_due_s(), timers.pop(10.0), timers.pop(10.0)
    (10.0, (10.0, 2, 8), None)
    """

    __slots__ = ("_heap", "_lanes", "_watched", "alive", "earliest_s")

    def __init__(self, alive: dict[int, Callable[[int], bool]]) -> None:
        self.alive = alive
        self._lanes: dict[tuple[int, float], deque[Timer]] = {}
        self._watched: list[tuple[int, deque[Timer]]] = []
        """(kind, lane), of every lane."""
        self._heap: list[Timer] = []
        self.earliest_s = inf
        """No timer is due before this moment; it may be early, never late."""

    def after(self, t_s: float, delay_s: float, kind: int, number: int) -> None:
        """Set a timer ``delay_s`` from now; cheap when the same delay comes often."""
        due_s = t_s + delay_s
        self.lane(kind, delay_s).append((due_s, kind, number))
        if due_s < self.earliest_s:
            self.earliest_s = due_s

    def lane(self, kind: int, delay_s: float) -> deque[Timer]:
        """Return the lane of a delay, for a caller who appends to it and keeps `earliest_s` himself."""
        lane = self._lanes.get((kind, delay_s))
        if lane is None:
            lane = self._lanes[kind, delay_s] = deque()
            self._watched.append((kind, lane))
        return lane

    def at(self, due_s: float, kind: int, number: int) -> None:
        """Set a timer at a moment of its own."""
        heappush(self._heap, (due_s, kind, number))
        if due_s < self.earliest_s:
            self.earliest_s = due_s

    def next_due_s(self) -> float:
        """Return when the first living timer is due, or inf."""
        first = self._first()
        self.earliest_s = inf if first is None else first[0]
        return self.earliest_s

    def pop(self, t_s: float) -> Timer | None:
        """Return and remove the first living timer due at or before ``t_s``, or None."""
        first = self._first()
        if first is None or first[0] > t_s:
            self.earliest_s = inf if first is None else first[0]
            return None
        if self._heap and self._heap[0] is first:
            heappop(self._heap)
        else:
            for lane in self._lanes.values():
                if lane and lane[0] is first:
                    lane.popleft()
                    break
        return first

    def snapshot(self) -> list[tuple[int, float, list[Timer]]]:
        """Return the living timers, lane by lane; the heap is the lane of kind -1."""
        lanes = [(kind, delay_s, self._living(lane)) for (kind, delay_s), lane in self._lanes.items()]
        return [*lanes, (-1, 0.0, sorted(self._living(self._heap)))]

    def restore(self, lanes: list[tuple[int, float, list[Timer]]]) -> None:
        """Replace every timer by those of a snapshot."""
        *constant, (_, _, heap) = lanes
        for lane in self._lanes.values():
            lane.clear()
        for kind, delay_s, timers in constant:
            self.lane(kind, delay_s).extend(timers)
        self._heap = list(heap)
        self.earliest_s = -inf

    def _living(self, timers: Iterable[Timer]) -> list[Timer]:
        alive = self.alive
        return [timer for timer in timers if timer[1] not in alive or alive[timer[1]](timer[2])]

    def _first(self) -> Timer | None:
        first: Timer | None = None
        alive = self.alive
        for kind, lane in self._watched:
            while lane:
                timer = lane[0]
                if kind not in alive or alive[kind](timer[2]):
                    if first is None or timer < first:
                        first = timer
                    break
                lane.popleft()
        heap = self._heap
        while heap:
            timer = heap[0]
            if timer[1] not in alive or alive[timer[1]](timer[2]):
                return timer if first is None or timer < first else first
            heappop(heap)
        return first
