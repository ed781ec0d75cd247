"""The LRU cache against a simple model of itself, Che's approximation, and the theory of times to live."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from controllers.caching.lfu import LfuCache
from controllers.caching.lru import LruCache
from controllers.caching.s3_fifo import S3FifoCache
from glowsim.core.protocols import Stored
from glowsim.core.types import Usage


class Model:
    """A list of (key, source, put at, tokens), least recently used first; everything by search."""

    def __init__(self, entries: int, tokens: int, ttl_s: float, stale_s: float) -> None:
        self.entries, self.tokens, self.ttl_s, self.stale_s = entries, tokens, ttl_s, stale_s
        self.kept: list[tuple[int, int, float, int]] = []

    def get(self, t_s: float, key: int) -> int:
        for entry in self.kept:
            if entry[0] == key and t_s < entry[2] + self.ttl_s:
                self.kept.remove(entry)
                self.kept.append(entry)
                return entry[1]
        return 0

    def stale(self, t_s: float, key: int) -> int:
        held = self.ttl_s + self.stale_s
        return next((entry[1] for entry in self.kept if entry[0] == key and t_s < entry[2] + held), 0)

    def put(self, t_s: float, key: int, source: int, tokens: int) -> tuple[bool, set[int]]:
        before = {entry[1] for entry in self.kept}
        self.kept = [entry for entry in self.kept if t_s < entry[2] + self.ttl_s + self.stale_s]
        fits = tokens <= self.tokens
        if fits:
            self.kept = [*(entry for entry in self.kept if entry[0] != key), (key, source, t_s, tokens)]
            while len(self.kept) > self.entries or sum(entry[3] for entry in self.kept) > self.tokens:
                self.kept.pop(0)
        return fits, before - {entry[1] for entry in self.kept}


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(1, 7), st.integers(0, 9)), max_size=100),
    st.integers(1, 5),
    st.sampled_from([None, 4, 8, 20]),
    st.integers(1, 12),
    st.integers(0, 6),
)
def test_it_does_what_the_model_does(
    calls: list[tuple[int, bool, int, int]], entries: int, tokens: int | None, ttl_s: int, stale_s: int
) -> None:
    cache = LruCache(entries=entries, tokens=tokens, ttl_s=ttl_s, stale_s=stale_s)
    model = Model(entries, tokens or 10**9, ttl_s, stale_s)
    t_s, alive = 0, set[int]()
    for source, (gap, puts, key, size) in enumerate(calls, 1):
        t_s += gap
        assert cache.stale(t_s, key) == model.stale(t_s, key)
        if puts:
            kept, evicted = cache.put(t_s, key, source, Usage(tokens_out=size))
            assert len(set(evicted)) == len(evicted)
            assert (kept, set(evicted)) == model.put(t_s, key, source, max(size, 1))
            assert set(evicted) <= alive, "every source is let go once"
            alive = alive - set(evicted) | ({source} if kept else set())
            assert len(alive) <= entries
        else:
            found = cache.get(t_s, key)
            assert found == model.get(t_s, key)
            assert not found or found in alive


@pytest.mark.parametrize("kind", [LruCache, LfuCache, S3FifoCache])
def test_an_expired_answer_is_there_for_those_who_have_nothing_better(kind: type) -> None:
    cache = kind(entries=2, ttl_s=10, stale_s=5)
    cache.put(0.0, 7, 1, Usage())
    before = cache.snapshot()
    assert [cache.stale(t_s, 7) for t_s in (9.0, 10.0, 14.9, 15.0)] == [1, 1, 1, 0]
    assert [cache.get(10.0, 7), cache.stale(1.0, 8)] == [0, 0]
    assert cache.snapshot() == before, "asking changes nothing"
    assert cache.put(14.0, 8, 2, Usage()) == Stored(True, ())
    assert cache.put(15.0, 9, 3, Usage()) == Stored(True, (1,))


@pytest.mark.parametrize("kind", [LruCache, LfuCache])
def test_an_answer_larger_than_the_cache_is_not_kept_and_disturbs_nobody(kind: type) -> None:
    cache = kind(entries=9, tokens=100, ttl_s=10)
    cache.put(0.0, 7, 1, Usage(tokens_out=60))
    assert cache.put(1.0, 7, 2, Usage(tokens_out=101)) == Stored(False, ())
    assert cache.get(1.0, 7) == 1
    assert cache.put(10.0, 7, 3, Usage(tokens_out=101)) == Stored(False, (1,)), "what expired goes anyway"


def zipf(keys: int, exponent: float, requests: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """Return popularities, and requests drawn from them independently."""
    popularity = np.arange(1, keys + 1) ** -exponent
    popularity /= popularity.sum()
    return popularity, (np.random.default_rng(seed).choice(keys, requests, p=popularity) + 1).tolist()


def che(popularity: np.ndarray, entries: int) -> float:
    """The hit ratio of LRU by Che, Tung & Wang (2002), from the characteristic time of the cache."""
    time = brentq(lambda t: np.sum(-np.expm1(-popularity * t)) - entries, 1.0, 1e9)
    return float(np.sum(popularity * -np.expm1(-popularity * time)))


@pytest.mark.parametrize("entries", [200, 1000])
def test_the_hit_ratio_under_zipf_is_that_of_che(entries: int) -> None:
    popularity, keys = zipf(10_000, 0.8, 310_000, 3)
    expected = che(popularity, entries)
    assert entries != 1000 or expected == pytest.approx(0.4367, abs=5e-5)
    cache, hits, warm_up = LruCache(entries=entries, ttl_s=1e9), 0, 10_000
    for number, key in enumerate(keys, 1):
        if cache.get(0.0, key):
            hits += number > warm_up
        else:
            cache.put(0.0, key, number, Usage())
    assert hits / (len(keys) - warm_up) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("kind", [LruCache, LfuCache, S3FifoCache])
@pytest.mark.parametrize("load", [0.5, 3.0])
def test_the_hit_ratio_of_a_time_to_live_is_that_of_renewal_theory(kind: type, load: float) -> None:
    """A miss starts a cycle with load = rate * ttl hits on average: the share of hits is load / (1 + load)."""
    cache, hits, requests = kind(entries=50, ttl_s=load), 0, 60_000
    rng = np.random.default_rng(5)
    moments = np.cumsum(rng.exponential(1 / 10, requests)).tolist()  # ten keys with a rate of 1 each
    for number, (t_s, key) in enumerate(zip(moments, rng.integers(1, 11, requests).tolist(), strict=True), 1):
        if cache.get(t_s, key):
            hits += 1
        else:
            cache.put(t_s, key, number, Usage())
    assert hits / requests == pytest.approx(load / (1 + load), rel=0.015)
