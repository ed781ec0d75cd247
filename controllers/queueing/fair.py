"""Fair shares of the tokens that are served."""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop, heappush
from operator import attrgetter
from typing import Literal

from glowsim.core.parameters import Count, Positive
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Request

__all__ = ["FairQueue"]


class FairQueue(Stateful):
    """Decides that the flow that has been served least goes next: tenants, users or sessions share alike.

    A flow's counter c grows, when a request of it is popped, by

        l = (tokens_in + output_weight * max_tokens_out) / weight of its priority

    and the flow with the smallest counter goes next; within a flow it is first come, first served. The
    virtual time v is the counter at which the last pop chose. A flow that comes back is lifted to
    c = max(c, v), so that nobody saves up service while away. When nobody waits, all is forgiven.

    When full, the youngest of the longest flow makes room, if that is longer than the new one's flow would
    be; else the new one is turned away. So whoever floods the queue loses only what is its own.

    Parameters
    ----------
    limit
        Requests that may wait, at least 1.
    per
        Whose requests are a flow; those without such a key are one flow together.
    output_weight
        What an output token costs, in input tokens, above 0.
    weights
        The weights of priorities 0, 1, 2 and so on, above 0; the last one holds for the rest.
    flows
        Keys that are told apart: two that are equal modulo this number share one flow, so memory is bounded.

    Notes
    -----
    Fairness: over any time in which flows f and g both wait without a break, the work W (the sum of l) that
    is popped of each differs by |W_f - W_g| <= L_f + L_g, where L is the largest l of a flow, whatever the
    servers do. Proof: at every moment v <= c <= v + L for each waiting flow. It holds after a lift, since
    a counter above v is that of a pop at some earlier v' <= v, c = v' + l <= v + L. A pop keeps it: v becomes
    the least counter, which none undercuts and which is no less than v was; the popped flow's counter becomes
    v + l. Both W being the growth of a counter, W_f - W_g = D(c_f - v) - D(c_g - v), where D is the change of
    a number that stays within 0 and L.

    Known weaknesses: it charges what a request may use, not what it uses (a queue is not told), so a flow
    that states a large ``max_tokens_out`` and uses little of it gets less than its share. Where new flows
    keep coming faster than they are served, each starts at v and so before a flow that was served a moment
    ago; it waits until it times out. Take a larger unit then: ``per: tenant``.

    Sources: Goyal, Vin & Cheng, "Start-time fair queueing", SIGCOMM 1996, in the form with weights by
    request and counters, so that one who leaves is not charged; Sheng et al., "Fairness in serving large
    language models", OSDI 2024, for tokens and the lift; Suter et al., "Design considerations for supporting
    TCP with per-flow queueing", INFOCOM 1998, for who makes room; McKenney, "Stochastic fairness queueing",
    INFOCOM 1990, for ``flows``.

    >>> queue = FairQueue(limit=10, per="tenant")
    >>> for request_id, tenant in ((1, 5), (2, 5), (3, 5), (4, 6)):
    ...     _ = queue.push(0.0, Request(request_id, 0, 900, 100, tenant=tenant))
    >>> [queue.pop(0.0) for _ in range(4)]
    [1, 4, 2, 3]
    """

    state = ("_lanes", "_counters", "_heap", "_virtual", "_listed", "_length", "_by_length")

    def __init__(
        self,
        *,
        limit: Count = 100_000,
        per: Literal["tenant", "user", "session"] = "tenant",
        output_weight: Positive = 4.0,
        weights: tuple[Positive, ...] = (1.0,),
        flows: Count = 65_536,
    ) -> None:
        if not weights:
            raise ValueError("weights: give at least one, that of priority 0")
        self._limit = limit
        self._key = attrgetter(per)
        self._output_weight = output_weight
        self._weights = weights
        self._flows = flows
        self._lanes: dict[int, OrderedDict[int, float]] = {}
        """Flow -> request -> its l, first come first; a lane is there while its flow is in the heap."""
        self._counters: dict[int, float] = {}
        self._heap: list[tuple[float, int, int]] = []
        """(counter, ordinal of the entry, flow): one entry a flow, some of them perhaps empty by now."""
        self._virtual = 0.0
        self._listed = 0
        self._length = 0
        self._by_length: list[OrderedDict[int, None]] = []
        """At index n - 1: the flows in which n wait; the last one is never empty."""

    def push(self, t_s: float, request: Request) -> int:
        """Take in a request; when full, return the number of the one whose flow has least right to it."""
        flow, priority, weights = self._key(request) % self._flows, request[4], self._weights
        lane = self._lanes.get(flow)
        shed = 0
        if self._length >= self._limit:
            if len(self._by_length) <= (len(lane) if lane else 0) + 1:
                return request[0]
            shed = self._shorten_longest()
        if lane is None:
            lane = self._lanes[flow] = OrderedDict()
            counter = self._counters.get(flow, 0.0)
            if counter < self._virtual:
                counter = self._virtual
            self._list(flow, counter)
        weight = weights[priority] if priority < len(weights) else weights[-1]
        lane[request[0]] = (request[2] + self._output_weight * request[3]) / weight
        self._length += 1
        self._lengthened(flow, len(lane))
        return shed

    def pop(self, t_s: float) -> int:
        """Return and remove the oldest request of the flow that has been served least."""
        while True:
            counter, _, flow = heappop(self._heap)
            lane = self._lanes[flow]
            if lane:
                break
            del self._lanes[flow]
        request_id, charged = lane.popitem(last=False)
        self._virtual = counter
        counter += charged
        self._shortened(flow, len(lane))
        if lane:
            self._list(flow, counter)
        else:
            del self._lanes[flow]
            self._counters[flow] = counter
        self._left()
        return request_id

    def remove(self, t_s: float, request: Request) -> None:
        """Let go of a request; its flow is not charged."""
        flow = self._key(request) % self._flows
        lane = self._lanes[flow]
        del lane[request[0]]
        self._shortened(flow, len(lane))
        self._left()

    def __len__(self) -> int:
        """Return how many wait."""
        return self._length

    def _list(self, flow: int, counter: float) -> None:
        self._counters[flow] = counter
        self._listed += 1
        heappush(self._heap, (counter, self._listed, flow))

    def _shorten_longest(self) -> int:
        flow = next(iter(self._by_length[-1]))
        lane = self._lanes[flow]
        shed = lane.popitem()[0]
        self._shortened(flow, len(lane))
        self._length -= 1
        return shed

    def _lengthened(self, flow: int, length: int) -> None:
        by_length = self._by_length
        if length > 1:
            del by_length[length - 2][flow]
        if length > len(by_length):
            by_length.append(OrderedDict())
        by_length[length - 1][flow] = None

    def _shortened(self, flow: int, length: int) -> None:
        by_length = self._by_length
        del by_length[length][flow]
        if length:
            by_length[length - 1][flow] = None
        if not by_length[-1]:
            by_length.pop()

    def _left(self) -> None:
        self._length -= 1
        if not self._length:
            self._lanes.clear()
            self._counters.clear()
            self._heap.clear()
            self._virtual = 0.0
