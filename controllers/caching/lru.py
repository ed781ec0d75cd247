"""Least recently used, with a time to live."""

from __future__ import annotations

from collections import OrderedDict

from glowsim.core.parameters import Count, PositiveSeconds
from glowsim.core.protocols import Stored
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Usage

__all__ = ["LruCache"]


class LruCache(Stateful):
    """Decides that every answer is kept, for ``ttl_s``, and that the least recently used makes room.

    A hit counts as a use; it does not lengthen the time to live. An expired answer is never returned; its
    source is let go by the next `put`, whatever its key.

    Parameters
    ----------
    entries
        Answers that are kept at most.
    ttl_s
        Seconds for which an answer is fresh, above 0.

    Notes
    -----
    Source: Mattson, Gecsei, Slutz & Traiger, "Evaluation techniques for storage hierarchies", IBM Systems
    Journal 9(2), 1970.

    >>> cache = LruCache(entries=1, ttl_s=60)
    >>> cache.put(0.0, key=8, source=1, usage=Usage()), cache.get(59.0, 8), cache.get(60.0, 8)
    (Stored(kept=True, evicted=()), 1, 0)
    >>> cache.put(60.0, key=9, source=2, usage=Usage())
    Stored(kept=True, evicted=(1,))
    """

    state = ("_by_use", "_by_age")

    def __init__(self, *, entries: Count = 10_000, ttl_s: PositiveSeconds = 3600.0) -> None:
        self._entries = entries
        self._ttl_s = ttl_s
        self._by_use: OrderedDict[int, int] = OrderedDict()
        """Key -> source, least recently used first."""
        self._by_age: OrderedDict[int, float] = OrderedDict()
        """Key -> the moment at which it expires, oldest first."""

    def get(self, t_s: float, key: int) -> int:
        """Return the source of a fresh answer, or 0."""
        expires_s = self._by_age.get(key)
        if expires_s is None or expires_s <= t_s:
            return 0
        self._by_use.move_to_end(key)
        return self._by_use[key]

    def put(self, t_s: float, key: int, source: int, usage: Usage) -> Stored:
        """Keep an answer; return the sources that expired, were replaced, or made room."""
        evicted = []
        for old in self._by_age:
            if self._by_age[old] > t_s:
                break
            evicted.append(old)
        sources = [self._drop(old) for old in evicted]
        if key in self._by_use:
            sources.append(self._drop(key))
        elif len(self._by_use) >= self._entries:
            sources.append(self._drop(next(iter(self._by_use))))
        self._by_use[key] = source
        self._by_age[key] = t_s + self._ttl_s
        return Stored(True, tuple(sources))

    def _drop(self, key: int) -> int:
        del self._by_age[key]
        return self._by_use.pop(key)
