"""The blocks of the cache: against single blocks in an ordered dict, and against the counts of a real trace."""

from __future__ import annotations

import gzip
import json
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowsim.sim.serving.blocks import BlockStore, prefix_hits

TRACE = "mooncake/conversation_trace.jsonl.gz"


def plain_hits(prompts: list[tuple[int, ...]], room: int) -> list[int]:
    """Return the same by single blocks."""
    cache: OrderedDict[int, None] = OrderedDict()
    hits = []
    for prompt in prompts:
        hits.append(next((i for i, block in enumerate(prompt) if block not in cache), len(prompt)))
        for block in reversed(prompt):
            cache[block] = None
            cache.move_to_end(block)
        while len(cache) > room:
            cache.popitem(last=False)
    return hits


PROMPTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(1, 9)).map(
        lambda each: tuple(each[0] * 1000 + (i if i < 3 else 100 * each[1] + i) for i in range(each[2]))
    ),
    max_size=30,
)


@given(PROMPTS, st.integers(0, 25))
def test_hits_are_those_of_single_blocks(prompts: list[tuple[int, ...]], room: int) -> None:
    assert prefix_hits(prompts, room) == plain_hits(prompts, room)


def test_a_part_of_a_text_that_is_held_again_leaves_the_rest_where_it_was() -> None:
    store = BlockStore(10)
    for key, blocks in (("a", 5), ("b", 3)):
        store.free -= blocks
        store.extend(store.text(key), 0, blocks)
    a, b = store.text("a"), store.text("b")
    store.release(a, 5)
    store.release(b, 3)
    store.hold(a, 2)
    assert store.free == 8
    store.free -= 4  # 2 that were never used, then the oldest: the rest of a, tail first
    store.settle(0)
    assert (a.end, b.end) == (3, 3)
    store.free -= 3
    store.settle(0)
    assert (a.end, b.end) == (2, 1)
    store.release(a, 2)
    assert store.free == 3


def test_a_text_is_free_from_the_longest_beginning_that_is_still_held() -> None:
    store = BlockStore(10)
    store.free -= 6
    store.extend(store.text("a"), 0, 6)
    for upto in (4, 4, 2):
        store.hold(store.text("a"), upto)
    assert store.free == 4
    for upto, free in ((6, 6), (4, 6), (2, 6), (4, 10)):
        store.release(store.text("a"), upto)
        assert store.free == free
    assert store.text("a").end == 6


@pytest.fixture(scope="module")
def conversation(data_file) -> list[tuple[int, list[int]]]:
    """Return tokens of the prompt and hashes of its blocks, in the order of the file."""
    with gzip.open(data_file(TRACE), "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [(row["input_length"], row["hash_ids"]) for row in rows]


def test_the_hits_of_the_mooncake_conversation_trace_are_exact(
    conversation: list[tuple[int, list[int]]],
) -> None:
    prompts = [blocks for _, blocks in conversation]
    assert sum(len(prompt) for prompt in prompts) == 288_500
    counts = {room: sum(prefix_hits(prompts, room)) for room in (5_859, 10_000, 30_000)}
    assert counts == {5_859: 39_258, 10_000: 61_046, 30_000: 93_978}
    unlimited = prefix_hits(prompts)
    assert sum(unlimited) == 105_710
    cached = sum(min(512 * hits, tokens) for hits, (tokens, _) in zip(unlimited, conversation, strict=True))
    assert round(cached / sum(tokens for tokens, _ in conversation), 4) == 0.3736


@pytest.mark.parametrize(("used", "whole"), [(0, True), (6, True), (7, False), (10, False)])
def test_a_text_is_taken_up_again_where_nothing_can_have_been_evicted(used: int, whole: bool) -> None:
    """Four blocks came with it: while at most six of ten are in use, the queue must still hold all four."""
    store = BlockStore(10)
    text = store.text("a")
    store.free -= 4
    store.extend(text, 0, 4)
    store.release(text, 4)
    assert store.came - text.runs[0].before == 4
    assert store.take(text, used) is whole
    assert (text.top, bool(text.runs)) == ((4, False) if whole else (0, True))
