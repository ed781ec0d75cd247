"""S3-FIFO against a simple model of itself, and against LRU and LFU where most keys never come again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.caching.lfu import LfuCache
from controllers.caching.lru import LruCache
from controllers.caching.s3_fifo import S3FifoCache
from glowsim.core.types import Usage


class Model:
    """Three lists, everything by search; an answer is [key, source, put at, uses]."""

    def __init__(self, entries: int, ttl_s: float, stale_s: float) -> None:
        self.entries, self.ttl_s, self.held_s = entries, ttl_s, ttl_s + stale_s
        self.probation: list[list[int]] = []
        self.main: list[list[int]] = []
        self.gone: list[int] = []
        self.tenth = max(1, entries // 10)

    def find(self, key: int) -> list[int] | None:
        return next((one for one in self.probation + self.main if one[0] == key), None)

    def get(self, t_s: int, key: int) -> int:
        one = self.find(key)
        if one is None or t_s >= one[2] + self.ttl_s:
            return 0
        one[3] = min(3, one[3] + 1)
        return one[1]

    def leave(self, one: list[int], *, remember: bool) -> int:
        (self.main if one in self.main else self.probation).remove(one)
        if remember:
            self.gone = ([each for each in self.gone if each != one[0]] + [one[0]])[-100:]
            self.gone = self.gone[max(0, len(self.gone) - (self.entries - self.tenth)) :]
        return one[1]

    def put(self, t_s: int, key: int, source: int) -> list[int]:
        old = sorted(self.probation + self.main, key=lambda one: one[1])
        out = [self.leave(one, remember=True) for one in old if t_s >= one[2] + self.held_s]
        same = self.find(key)
        out += [] if same is None else [self.leave(same, remember=True)]
        while len(self.probation) + len(self.main) >= self.entries:
            if len(self.probation) >= self.tenth or not self.main:
                first = self.probation[0]
                if first[3] > 1:
                    self.main.append([*self.probation.pop(0)[:3], 0])
                else:
                    out.append(self.leave(first, remember=True))
            elif self.main[0][3]:
                first = self.main.pop(0)
                self.main.append([*first[:3], first[3] - 1])
            else:
                out.append(self.leave(self.main[0], remember=False))
        known = key in self.gone
        self.gone = [each for each in self.gone if each != key]
        (self.main if known else self.probation).append([key, source, t_s, 0])
        return out


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6), st.integers(1, 9)), min_size=40, max_size=120),
    st.integers(1, 6),
    st.sampled_from([5, 20, 1000]),
    st.integers(0, 6),
)
def test_it_does_what_the_model_does(
    calls: list[tuple[int, int, int]], entries: int, ttl_s: int, stale_s: int
) -> None:
    cache, model = S3FifoCache(entries=entries, ttl_s=ttl_s, stale_s=stale_s), Model(entries, ttl_s, stale_s)
    t_s, alive = 0, set[int]()
    for source, (gap, gets, key) in enumerate(calls, 1):
        t_s += gap
        for _ in range(gets):
            assert cache.get(t_s, key) == model.get(t_s, key)
        if gets < 3:
            kept, evicted = cache.put(t_s, key, source, Usage())
            assert kept
            assert list(evicted) == model.put(t_s, key, source)
            assert set(evicted) <= alive, "every source is let go once"
            alive = alive - set(evicted) | {source}
            assert len(alive) <= entries


def repeats_hit(cache: LruCache | LfuCache | S3FifoCache, share_unique: float, seed: int) -> float:
    """Return the share of hits among requests whose key may come again."""
    rng, requests, hits = np.random.default_rng(seed), 60_000, 0
    popularity = np.arange(1, 2001) ** -0.9
    repeated = rng.choice(2000, requests, p=popularity / popularity.sum()) + 1
    keys = np.where(rng.random(requests) < share_unique, np.arange(requests) + 10_000, repeated).tolist()
    for number, key in enumerate(keys, 1):
        if cache.get(0.0, key):
            hits += 1
        else:
            cache.put(0.0, key, number, Usage())
    return hits / requests / (1 - share_unique)


@pytest.mark.parametrize(("share_unique", "at_least"), [(0.0, 0.58), (0.5, 0.57), (0.9, 0.37)])
def test_keys_that_never_come_again_pass_through(share_unique: float, at_least: float) -> None:
    lru, lfu, s3_fifo = (
        repeats_hit(kind(entries=200), share_unique, 1) for kind in (LruCache, LfuCache, S3FifoCache)
    )
    assert s3_fifo > at_least
    assert s3_fifo > lfu + 0.02 > lru + 0.04


def test_what_it_remembers_is_bounded() -> None:
    cache = S3FifoCache(entries=20, ttl_s=30)
    for number in range(1, 2000):
        cache.put(float(number), number, number, Usage())
    assert len(cache.snapshot()["_gone"]["is"]) == 18
