"""First come, first served."""

from __future__ import annotations

from collections import OrderedDict

from glowsim.core.parameters import Count
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Request

__all__ = ["FifoQueue"]


class FifoQueue(Stateful):
    """Decides that whoever came first goes first.

    Parameters
    ----------
    limit
        Requests that may wait; the next one is turned away.

    >>> queue = FifoQueue(limit=1)
    >>> queue.push(0.0, Request(7, 0, 900, 100)), queue.push(0.0, Request(8, 0, 900, 100))
    (0, 8)
    >>> queue.pop(1.0)
    7
    """

    state = ("_waiting",)

    def __init__(self, *, limit: Count = 100_000) -> None:
        self._limit = limit
        self._waiting: OrderedDict[int, None] = OrderedDict()

    def push(self, t_s: float, request: Request) -> int:
        """Take in a request; return its own number when full."""
        if len(self._waiting) >= self._limit:
            return request[0]
        self._waiting[request.request_id] = None
        return 0

    def pop(self, t_s: float) -> int:
        """Return and remove the one that has waited longest."""
        return self._waiting.popitem(last=False)[0]

    def remove(self, t_s: float, request: Request) -> None:
        """Let go of a request."""
        del self._waiting[request.request_id]

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)
