"""What caches with a time to live share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict

from glowsim.core.snapshot import Stateful

__all__ = ["Expiring"]


class Expiring(Stateful, ABC):
    """Answers that are fresh for ``ttl_s`` and held for ``stale_s`` more, unless they have to make room.

    Each cache counts uses and finds sources in its own way: `_source` and `_drop` are its.
    """

    def __init__(self, ttl_s: float, stale_s: float) -> None:
        self._ttl_s = ttl_s
        self._stale_s = stale_s
        self._by_age: OrderedDict[int, float] = OrderedDict()
        """Key -> the moment at which it expires, oldest first."""

    def stale(self, t_s: float, key: int) -> int:
        """Return the source of an answer that is fresh or not long expired, or 0; it counts as no use."""
        expires_s = self._by_age.get(key)
        if expires_s is None or expires_s + self._stale_s <= t_s:
            return 0
        return self._source(key)

    def _expire(self, t_s: float) -> list[int]:
        """Let go of answers that are not even stale any more; return their sources."""
        by_age, gone = self._by_age, []
        while by_age:
            oldest = next(iter(by_age))
            if by_age[oldest] + self._stale_s > t_s:
                break
            gone.append(self._drop(oldest))
        return gone

    @abstractmethod
    def _source(self, key: int) -> int:
        """Return the source of an answer that is there."""

    @abstractmethod
    def _drop(self, key: int) -> int:
        """Forget a key; return its source."""
