"""The cache against a simple model of itself and against Che's approximation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from controllers.caching.lru import LruCache
from glowsim.core.types import Usage


class Model:
    """A list of (key, source, put at), least recently used first; everything by search."""

    def __init__(self, entries: int, ttl_s: float) -> None:
        self.entries, self.ttl_s, self.kept = entries, ttl_s, list[tuple[int, int, float]]()

    def get(self, t_s: float, key: int) -> int:
        for entry in self.kept:
            if entry[0] == key and t_s < entry[2] + self.ttl_s:
                self.kept.remove(entry)
                self.kept.append(entry)
                return entry[1]
        return 0

    def put(self, t_s: float, key: int, source: int) -> set[int]:
        before = {entry[1] for entry in self.kept}
        self.kept = [entry for entry in self.kept if t_s < entry[2] + self.ttl_s and entry[0] != key]
        self.kept = [*self.kept[-(self.entries - 1) or len(self.kept) :], (key, source, t_s)]
        return before - {entry[1] for entry in self.kept}


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(1, 7)), max_size=100),
    st.integers(1, 5),
    st.integers(1, 12),
)
def test_it_does_what_the_model_does(calls: list[tuple[int, bool, int]], entries: int, ttl_s: int) -> None:
    cache, model = LruCache(entries=entries, ttl_s=ttl_s), Model(entries, ttl_s)
    t_s, alive = 0, set[int]()
    for source, (gap, puts, key) in enumerate(calls, 1):
        t_s += gap
        if puts:
            kept, evicted = cache.put(t_s, key, source, Usage())
            assert kept
            assert len(set(evicted)) == len(evicted)
            assert set(evicted) == model.put(t_s, key, source)
            alive = (alive | {source}) - set(evicted)
            assert len(alive) <= entries, "every source is let go, once"
        else:
            found = cache.get(t_s, key)
            assert found == model.get(t_s, key)
            assert not found or found in alive


def che(popularity: np.ndarray, entries: int) -> float:
    """The hit ratio of LRU by Che, Tung & Wang (2002), from the characteristic time of the cache."""
    time = brentq(lambda t: np.sum(-np.expm1(-popularity * t)) - entries, 1.0, 1e9)
    return float(np.sum(popularity * -np.expm1(-popularity * time)))


def test_the_hit_ratio_under_zipf_is_that_of_che() -> None:
    popularity = np.arange(1, 10_001) ** -0.8
    popularity /= popularity.sum()
    assert che(popularity, 1000) == pytest.approx(0.4367, abs=5e-5)
    cache, hits, warm_up, requests = LruCache(entries=1000, ttl_s=1e9), 0, 10_000, 110_000
    keys = np.random.default_rng(3).choice(10_000, requests, p=popularity) + 1
    for number, key in enumerate(keys.tolist(), 1):
        if cache.get(0.0, key):
            hits += number > warm_up
        else:
            cache.put(0.0, key, number, Usage())
    assert hits / (requests - warm_up) == pytest.approx(0.4367, abs=0.008)
