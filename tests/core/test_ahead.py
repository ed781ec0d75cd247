"""Numbers drawn ahead are those drawn alone, whoever asks, in whatever order, and however sparsely."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowsim.core.streams import Ahead, uniform_at, uniforms_at

KEYS = st.integers(0, 2**64 - 1)
ORDINALS = st.integers(0, 2**64 - 1)


@given(KEYS, st.lists(ORDINALS, min_size=1, max_size=8), ORDINALS)
def test_a_column_holds_the_very_numbers_of_the_single_draws(
    key: int, ordinals: list[int], other: int
) -> None:
    column = np.array(ordinals, dtype=np.uint64)
    assert uniforms_at(key, column).tolist() == [uniform_at(key, n) for n in ordinals]
    assert uniforms_at(key, other, column, 3).tolist() == [uniform_at(key, other, n, 3) for n in ordinals]


def counted(key: int = 5) -> tuple[Ahead, list[int]]:
    blocks: list[int] = []

    def column(ordinals: np.ndarray) -> np.ndarray:
        blocks.append(int(ordinals[0]))
        return uniforms_at(key, ordinals)

    return Ahead(lambda n: uniform_at(key, n), column), blocks


@given(st.lists(st.integers(0, 3000), max_size=300), st.integers(0, 2**50))
def test_the_order_and_the_gaps_of_questions_change_nothing(asked: list[int], offset: int) -> None:
    ahead, _ = counted()
    assert [ahead.at(offset + n) for n in asked] == [uniform_at(5, offset + n) for n in asked]


@pytest.mark.parametrize(("stride", "drawn"), [(1, 20), (10, 20), (1000, 0)])
def test_blocks_are_drawn_where_they_are_worth_it(stride: int, drawn: int) -> None:
    """Of 20 blocks of 1024 all are drawn once where every tenth number is asked for, and none for a few numbers."""
    ahead, blocks = counted()
    assert all(ahead.at(n) == uniform_at(5, n) for n in range(0, 20 * 1024, stride))
    assert len(blocks) == len(set(blocks)) == drawn


def test_memory_is_bounded() -> None:
    """Of a thousand blocks that were drawn the oldest is drawn anew, the latest is still there."""
    ahead, blocks = counted()
    for n in range(0, 1000 * 1024, 8):
        ahead.at(n)
    assert len(blocks) == 1000
    for n in (*range(999 * 1024, 1000 * 1024), *range(1024)):
        assert ahead.at(n) == uniform_at(5, n)
    assert len(blocks) == 1001
