"""The LFU cache against a simple model of itself, against LRU and plain LFU, and by what it saves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.caching.lfu import LfuCache
from controllers.caching.lru import LruCache
from glowsim.core.types import Usage


class Model:
    """Dictionaries by key, everything by search."""

    def __init__(self, entries: int, tokens: int | None, ttl_s: float, stale_s: float, cost: float) -> None:
        self.entries, self.tokens, self.ttl_s, self.held_s = entries, tokens, ttl_s, ttl_s + stale_s
        self.cost = cost
        self.kept: dict[int, dict[str, Any]] = {}
        self.age, self.moment = 0.0, 0

    def use(self, one: dict[str, Any], uses: int) -> None:
        self.moment += 1
        worth = self.cost if self.tokens is None else self.cost / one["tokens"]
        one.update(uses=uses, used=self.moment, worth=self.age + uses * worth)

    def get(self, t_s: float, key: int) -> int:
        one = self.kept.get(key)
        if one is None or t_s >= one["put_s"] + self.ttl_s:
            return 0
        self.use(one, one["uses"] + 1)
        return int(one["source"])

    def put(self, t_s: float, key: int, source: int, tokens: int) -> tuple[bool, set[int]]:
        before = {one["source"] for one in self.kept.values()}
        self.kept = {each: one for each, one in self.kept.items() if t_s < one["put_s"] + self.held_s}
        fits = self.tokens is None or tokens <= self.tokens
        if fits:
            old = self.kept.pop(key, None)
            while self.kept and (
                len(self.kept) == self.entries
                or (self.tokens and sum(one["tokens"] for one in self.kept.values()) + tokens > self.tokens)
            ):
                least = min(self.kept, key=lambda each: (self.kept[each]["worth"], self.kept[each]["used"]))
                self.age = self.kept.pop(least)["worth"]
            self.kept[key] = {"source": source, "put_s": t_s, "tokens": tokens}
            self.use(self.kept[key], 1 if old is None else old["uses"] + 1)
        return fits, before - {one["source"] for one in self.kept.values()}


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(1, 7), st.integers(0, 9)), max_size=120),
    st.integers(1, 5),
    st.sampled_from([None, 4, 8, 20]),
    st.integers(1, 20),
    st.integers(0, 6),
)
def test_it_does_what_the_model_does(
    calls: list[tuple[int, bool, int, int]], entries: int, tokens: int | None, ttl_s: int, stale_s: int
) -> None:
    cache = LfuCache(entries=entries, tokens=tokens, ttl_s=ttl_s, stale_s=stale_s)
    model, t_s, alive = Model(entries, tokens, ttl_s, stale_s, 1.0), 0, set[int]()
    for source, (gap, puts, key, size) in enumerate(calls, 1):
        t_s += gap
        if puts:
            kept, evicted = cache.put(t_s, key, source, Usage(tokens_out=size))
            assert len(set(evicted)) == len(evicted)
            assert (kept, set(evicted)) == model.put(t_s, key, source, max(size, 1))
            assert set(evicted) <= alive, "every source is let go once"
            alive = alive - set(evicted) | ({source} if kept else set())
            assert len(alive) <= entries
        else:
            assert cache.get(t_s, key) == model.get(t_s, key)


def hit_ratio(cache: LruCache | LfuCache, keys: np.ndarray) -> tuple[float, float]:
    """Return the shares of hits in the first and the second half."""
    hits = [0, 0]
    for number, key in enumerate(keys.tolist(), 1):
        if cache.get(0.0, key):
            hits[2 * number > len(keys)] += 1
        else:
            cache.put(0.0, key, number, Usage())
    return 2 * hits[0] / len(keys), 2 * hits[1] / len(keys)


@pytest.mark.parametrize("seed", range(3))
def test_when_popularity_moves_plain_lfu_collapses_and_ageing_saves_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    popularity = 1.0 / np.arange(1, 1001)
    popularity /= popularity.sum()
    ranks = rng.choice(1000, 60_000, p=popularity)
    keys = np.where(np.arange(60_000) < 30_000, ranks, rng.permutation(1000)[ranks]) + 1
    lru = hit_ratio(LruCache(entries=50), keys)
    plain = hit_ratio(LfuCache(entries=50, ageing="none"), keys)
    aged = hit_ratio(LfuCache(entries=50), keys)
    best = float(popularity[:50].sum())
    assert lru[0] + 0.05 < aged[0] < plain[0] < best, "while nothing moves, frequency is the better guide"
    assert plain[1] < 0.1, "it keeps what was popular once"
    assert aged[1] > lru[1], "and ageing lets go of it"


@pytest.mark.parametrize("seed", range(3))
def test_what_it_saves_is_what_it_was_asked_to_save(seed: int) -> None:
    rng = np.random.default_rng(seed)
    popularity = np.arange(1, 2001) ** -0.8
    keys = rng.choice(2000, 40_000, p=popularity / popularity.sum()).tolist()
    sizes = np.ceil(rng.lognormal(4.0, 1.2, 2000)).astype(int).tolist()
    hits, saved = {}, {}
    for name, cache in {
        "lru": LruCache(tokens=20_000),
        "requests": LfuCache(tokens=20_000),
        "tokens": LfuCache(tokens=20_000, saves="tokens"),
    }.items():
        hits[name] = saved[name] = 0
        for number, key in enumerate(keys, 1):
            if cache.get(0.0, key + 1):
                hits[name] += 1
                saved[name] += 100 + 4 * sizes[key]
            else:
                cache.put(0.0, key + 1, number, Usage(100, 0, sizes[key]))
    assert hits["requests"] > max(hits["tokens"], 1.3 * hits["lru"])
    assert saved["tokens"] > max(saved["requests"], 1.1 * saved["lru"])


def test_of_equal_worth_the_least_recently_used_goes() -> None:
    cache = LfuCache(entries=3)
    for key in (1, 2, 3):
        cache.put(0.0, key, key, Usage())
    for key in (2, 1, 3):
        cache.get(1.0, key)
    assert [cache.put(2.0, key, key, Usage()).evicted for key in (4, 5, 6)] == [(2,), (1,), (3,)]


def test_uses_outlive_an_answer_that_is_still_held() -> None:
    cache = LfuCache(entries=2, ttl_s=10, stale_s=100)
    cache.put(0.0, 1, 1, Usage())
    for _ in range(9):
        cache.get(1.0, 1)
    assert cache.put(20.0, 1, 2, Usage()).evicted == (1,)
    evicted = [cache.put(20.0, key, key, Usage()).evicted for key in range(3, 13)]
    assert evicted == [(), *((key,) for key in range(3, 12))]
    assert cache.get(20.0, 1) == 2


def test_answers_that_are_gone_do_not_pile_up() -> None:
    cache, largest = LfuCache(entries=10, ttl_s=5), 0
    for number in range(1, 5000):
        cache.put(float(number), number % 7, number, Usage())
        cache.get(float(number), number % 7)
        if number % 9 == 0:
            largest = max(largest, len(cache.snapshot()["_heap"]))
    assert 20 < largest <= 2 * 10 + 64
