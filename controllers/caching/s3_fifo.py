"""Three queues: newcomers on probation, those that were used, and the keys of those that went."""

from __future__ import annotations

from collections import OrderedDict

from controllers.caching.expiring import Expiring
from glowsim.core.parameters import Count, PositiveSeconds, Seconds
from glowsim.core.protocols import Stored
from glowsim.core.types import Usage

__all__ = ["S3FifoCache"]

_MOST_USES = 3
"""Uses are counted up to here, so that what was popular once is let go after as many rounds."""


class S3FifoCache(Expiring):
    """Decides that every answer is kept, for ``ttl_s``; one that is not used again soon makes room first.

    A new answer joins the probation queue, a tenth of ``entries`` long. At its end it moves on to the main
    queue if it was used more than once meanwhile; else it goes, and its key is remembered for as many turns
    as the main queue is long. An answer whose key is remembered joins the main queue at once. At the end of
    the main queue an answer that was used goes round again, with one use less; else it goes. The probation
    queue gives way first while it has its tenth. Expired and stale answers are treated as in `LruCache`; the
    keys of those that expired are remembered.

    Parameters
    ----------
    entries
        Answers that are kept at most, at least 1.
    ttl_s
        Seconds for which an answer is fresh, above 0.
    stale_s
        Seconds for which an expired answer is still there for those who have nothing better.

    Notes
    -----
    It is made for keys of which most never come again, as prompts are: they pass through the tenth and leave
    the rest alone. Measured on 2,000 Zipf(0.9) keys, 200 entries and 60,000 requests, of which 0, 50 or 90 %
    have keys of their own, it hits 0.59, 0.58 and 0.39 of the others; `LfuCache` hits 0.57, 0.46 and 0.22,
    `LruCache` 0.51, 0.37 and 0.14.

    A get is O(1), a put O(1) on average: each round in the main queue was paid for by a hit.

    Known weakness: it does not look at sizes and costs; an answer that is asked for twice, a while apart,
    misses twice.

    Source: Yang, Zhang, Qiu, Yue & Rashmi, "FIFO queues are all you need for cache eviction", SOSP 2023.

    >>> cache = S3FifoCache(entries=2)
    >>> _ = cache.put(0.0, 8, 1, Usage()), cache.get(0.0, 8), cache.get(0.0, 8), cache.put(0.0, 9, 2, Usage())
    >>> [cache.put(0.0, key, key, Usage()).evicted for key in (10, 11, 12)]
    [(2,), (10,), (11,)]
    >>> cache.get(0.0, 8)
    1
    """

    state = ("_sources", "_uses", "_by_age", "_probation", "_main", "_gone")

    def __init__(
        self, *, entries: Count = 10_000, ttl_s: PositiveSeconds = 3600.0, stale_s: Seconds = 0.0
    ) -> None:
        super().__init__(ttl_s, stale_s)
        self._entries = entries
        self._tenth = max(1, entries // 10)
        self._sources: dict[int, int] = {}
        self._uses: dict[int, int] = {}
        self._probation: OrderedDict[int, None] = OrderedDict()
        self._main: OrderedDict[int, None] = OrderedDict()
        self._gone: OrderedDict[int, None] = OrderedDict()
        """Keys that are remembered, the one that went first in front."""

    def get(self, t_s: float, key: int) -> int:
        """Return the source of a fresh answer, or 0."""
        expires_s = self._by_age.get(key)
        if expires_s is None or expires_s <= t_s:
            return 0
        uses = self._uses[key]
        if uses < _MOST_USES:
            self._uses[key] = uses + 1
        return self._sources[key]

    def put(self, t_s: float, key: int, source: int, usage: Usage) -> Stored:
        """Keep an answer; return the sources that expired, were replaced, or made room."""
        evicted, by_age = self._expire(t_s), self._by_age
        if key in by_age:
            evicted.append(self._drop(key))
        while len(by_age) >= self._entries:
            evicted.append(self._make_room())
        if key in self._gone:
            del self._gone[key]
            self._main[key] = None
        else:
            self._probation[key] = None
        self._sources[key] = source
        self._uses[key] = 0
        by_age[key] = t_s + self._ttl_s
        return Stored(True, tuple(evicted))

    def _make_room(self) -> int:
        probation, main, uses = self._probation, self._main, self._uses
        while len(probation) >= self._tenth or not main:
            key = next(iter(probation))
            if uses[key] <= 1:
                return self._drop(key)
            del probation[key]
            main[key] = None
            uses[key] = 0
        while True:
            key = next(iter(main))
            if not uses[key]:
                return self._drop(key, remember=False)
            uses[key] -= 1
            main.move_to_end(key)

    def _source(self, key: int) -> int:
        return self._sources[key]

    def _drop(self, key: int, *, remember: bool = True) -> int:
        del self._by_age[key], self._uses[key]
        if key in self._main:
            del self._main[key]
        else:
            del self._probation[key]
        if remember:
            self._gone[key] = None
            if len(self._gone) > self._entries - self._tenth:
                self._gone.popitem(last=False)
        return self._sources.pop(key)
