"""Least recently used, with a time to live."""

from __future__ import annotations

from collections import OrderedDict

from controllers.caching.expiring import Expiring
from glowsim.core.parameters import Count, PositiveSeconds, Seconds
from glowsim.core.protocols import Stored
from glowsim.core.types import Usage

__all__ = ["LruCache"]


class LruCache(Expiring):
    """Decides that every answer is kept, for ``ttl_s``, and that the least recently used makes room.

    A hit counts as a use; it does not lengthen the time to live. An expired answer is never returned by
    `get`; for ``stale_s`` more it is held for `stale`, unless it has to make room, and its source is let go
    by the next `put` after that, whatever its key. An answer larger than the whole cache is not kept, and
    the one before it under its key stays.

    Parameters
    ----------
    entries
        Answers that are kept at most, at least 1.
    tokens
        Output tokens of all answers kept at most, at least 1; None: any number. An empty answer counts as 1.
    ttl_s
        Seconds for which an answer is fresh, above 0.
    stale_s
        Seconds for which an expired answer is still there for those who have nothing better.

    Notes
    -----
    Known weakness: a scan over keys that never come again flushes it; under popularity that does not move
    `lfu` hits more.

    Sources: Mattson, Gecsei, Slutz & Traiger, "Evaluation techniques for storage hierarchies", IBM Systems
    Journal 9(2), 1970; RFC 5861 (stale-if-error) for ``stale_s``.

    >>> cache = LruCache(entries=1, ttl_s=60, stale_s=30)
    >>> cache.put(0.0, key=8, source=1, usage=Usage()), cache.get(59.0, 8), cache.get(60.0, 8)
    (Stored(kept=True, evicted=()), 1, 0)
    >>> cache.stale(60.0, 8), cache.stale(90.0, 8)
    (1, 0)
    >>> cache.put(90.0, key=9, source=2, usage=Usage())
    Stored(kept=True, evicted=(1,))
    """

    state = ("_by_use", "_by_age", "_tokens")

    def __init__(
        self,
        *,
        entries: Count = 10_000,
        tokens: Count | None = None,
        ttl_s: PositiveSeconds = 3600.0,
        stale_s: Seconds = 0.0,
    ) -> None:
        super().__init__(ttl_s, stale_s)
        self._entries = entries
        self._most_tokens = tokens
        self._by_use: OrderedDict[int, tuple[int, int]] = OrderedDict()
        """Key -> (source, tokens), least recently used first."""
        self._tokens = 0

    def get(self, t_s: float, key: int) -> int:
        """Return the source of a fresh answer, or 0."""
        expires_s = self._by_age.get(key)
        if expires_s is None or expires_s <= t_s:
            return 0
        self._by_use.move_to_end(key)
        return self._by_use[key][0]

    def put(self, t_s: float, key: int, source: int, usage: Usage) -> Stored:
        """Keep an answer; return the sources that expired, were replaced, or made room."""
        evicted, by_age, most = self._expire(t_s), self._by_age, self._most_tokens
        size = usage[2] or 1
        if most is not None and size > most:
            return Stored(False, tuple(evicted))
        if key in by_age:
            evicted.append(self._drop(key))
        while len(by_age) >= self._entries or (most is not None and self._tokens + size > most):
            evicted.append(self._drop(next(iter(self._by_use))))
        self._by_use[key] = (source, size)
        by_age[key] = t_s + self._ttl_s
        self._tokens += size
        return Stored(True, tuple(evicted))

    def _source(self, key: int) -> int:
        return self._by_use[key][0]

    def _drop(self, key: int) -> int:
        del self._by_age[key]
        source, size = self._by_use.pop(key)
        self._tokens -= size
        return source
