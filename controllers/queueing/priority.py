"""Priorities that age."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from glowsim.core.parameters import Count, PositiveSeconds
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Request

__all__ = ["PriorityQueue"]

_SLACK = 64
"""Removed requests that the heap may hold on to beside as many as are waiting."""


class PriorityQueue(Stateful):
    """Decides that the most urgent goes first, where waiting makes urgent; FIFO within a priority.

    Every ``ageing_s`` waited counts as one step of priority, so that nothing starves: at any moment the
    order is that of priority - waited / ageing_s, hence at every moment that of the number
    priority * ageing_s + arrival, which never changes.

    Parameters
    ----------
    limit
        Requests that may wait; the next one is turned away.
    ageing_s
        Seconds of waiting that are worth one step of priority, above 0; None: strict priorities.

    Notes
    -----
    Source: Kleinrock, "A delay dependent queue discipline", Naval Research Logistics Quarterly 11, 1964, in
    the form with equal slopes (dynamic priority by constant head starts).

    >>> queue = PriorityQueue(limit=10, ageing_s=60)
    >>> for t_s, request_id, priority in ((0.0, 1, 2), (10.0, 2, 1), (100.0, 3, 1)):
    ...     _ = queue.push(t_s, Request(request_id, 0, 900, 100, priority=priority))
    >>> [queue.pop(100.0) for _ in range(3)]
    [2, 1, 3]
    """

    state = ("_heap", "_waiting", "_pushed")

    def __init__(self, *, limit: Count = 100_000, ageing_s: PositiveSeconds | None = 60.0) -> None:
        self._limit = limit
        self._ageing_s = ageing_s
        self._heap: list[tuple[float, int, int]] = []
        """(rank, ordinal of the push, request); those not in ``_waiting`` under this ordinal were removed."""
        self._waiting: dict[int, int] = {}
        self._pushed = 0

    def push(self, t_s: float, request: Request) -> int:
        """Take in a request; return its own number when full."""
        if len(self._waiting) >= self._limit:
            return request[0]
        request_id, priority, ageing_s = request[0], request[4], self._ageing_s
        rank = float(priority) if ageing_s is None else priority * ageing_s + t_s
        ordinal = self._pushed = self._pushed + 1
        self._waiting[request_id] = ordinal
        heappush(self._heap, (rank, ordinal, request_id))
        return 0

    def pop(self, t_s: float) -> int:
        """Return and remove the most urgent one."""
        waiting = self._waiting
        while True:
            _, ordinal, request_id = heappop(self._heap)
            if waiting.get(request_id) == ordinal:
                del waiting[request_id]
                return request_id

    def remove(self, t_s: float, request: Request) -> None:
        """Let go of a request."""
        waiting = self._waiting
        del waiting[request.request_id]
        if len(self._heap) > 2 * len(waiting) + _SLACK:
            self._heap = [entry for entry in self._heap if waiting.get(entry[2]) == entry[1]]
            heapify(self._heap)

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)
