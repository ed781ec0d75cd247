"""Priorities that age."""

from __future__ import annotations

from collections import OrderedDict
from math import inf

from glowsim.core.parameters import Count, PositiveSeconds
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Request

__all__ = ["PriorityQueue"]


class PriorityQueue(Stateful):
    """Decides that the most urgent goes first, where waiting makes urgent; FIFO within a priority.

    Every ``ageing_s`` waited counts as one step of priority, so that nothing starves: at any moment the
    order is that of priority - waited / ageing_s, hence at every moment that of the number
    priority * ageing_s + arrival, which never changes. Whoever arrives more than 9 * ageing_s after a
    request goes behind it, whatever their priorities.

    When full, the least important makes room: the youngest of those with the lowest priority, if the new one
    has a higher priority; else the new one itself. Age makes nobody more important, only more urgent.

    Parameters
    ----------
    limit
        Requests that may wait, at least 1.
    ageing_s
        Seconds of waiting that are worth one step of priority, above 0; None: strict priorities.

    Notes
    -----
    A pop looks at the head of each priority that waits: ten at most, by the requests' contract.

    Known weakness: the order of urgency is one thing, the time that is left another. With ``ageing_s`` well
    above the timeout it is strict priority, and the lowest starve until they time out.

    Source: Kleinrock, "A delay dependent queue discipline", Naval Research Logistics Quarterly 11, 1964, in
    the form with equal slopes (dynamic priority by constant head starts).

    >>> queue = PriorityQueue(limit=3, ageing_s=60)
    >>> for t_s, request_id, priority in ((0.0, 1, 2), (10.0, 2, 1), (100.0, 3, 1)):
    ...     _ = queue.push(t_s, Request(request_id, 0, 900, 100, priority=priority))
    >>> queue.push(100.0, Request(4, 0, 900, 100, priority=2))
    4
    >>> queue.push(100.0, Request(5, 0, 900, 100, priority=0))
    1
    >>> [queue.pop(100.0) for _ in range(3)]
    [2, 5, 3]
    """

    state = ("_lanes", "_length")

    def __init__(self, *, limit: Count = 100_000, ageing_s: PositiveSeconds | None = 60.0) -> None:
        self._limit = limit
        self._ageing_s = ageing_s
        self._lanes: dict[int, OrderedDict[int, float]] = {}
        """Priority -> request -> its rank, first come first; a lane is there while somebody waits in it."""
        self._length = 0

    def push(self, t_s: float, request: Request) -> int:
        """Take in a request; when full, return the number of the least important one."""
        request_id, priority, ageing_s, lanes = request[0], request[4], self._ageing_s, self._lanes
        shed = 0
        if self._length < self._limit:
            self._length += 1
        else:
            lowest = max(lanes)
            if lowest <= priority:
                return request_id
            shed = lanes[lowest].popitem()[0]
            if not lanes[lowest]:
                del lanes[lowest]
        lane = lanes.get(priority)
        if lane is None:
            lane = lanes[priority] = OrderedDict()
        lane[request_id] = 0.0 if ageing_s is None else priority * ageing_s + t_s
        return shed

    def pop(self, t_s: float) -> int:
        """Return and remove the most urgent one."""
        lanes = self._lanes
        first = next(iter(lanes)) if len(lanes) == 1 else self._most_urgent()
        lane = lanes[first]
        request_id = lane.popitem(last=False)[0]
        if not lane:
            del lanes[first]
        self._length -= 1
        return request_id

    def _most_urgent(self) -> int:
        """Return the priority whose head goes first."""
        first, best = 0, inf
        for priority, lane in self._lanes.items():
            rank = priority if self._ageing_s is None else next(iter(lane.values()))
            if rank < best or (rank == best and priority > first):  # of equals the lower one came first
                first, best = priority, rank
        return first

    def remove(self, t_s: float, request: Request) -> None:
        """Let go of a request."""
        lane = self._lanes[request.priority]
        del lane[request.request_id]
        if not lane:
            del self._lanes[request.priority]
        self._length -= 1

    def __len__(self) -> int:
        """Return how many wait."""
        return self._length
