"""MSER-5 on series whose right answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowsim.stats import WarmUp, mser5


def by_definition(series: np.ndarray) -> int:
    """The rule written as a loop over truncation points, the last five batches kept."""
    means = [math.fsum(series[i : i + 5]) / 5 for i in range(0, len(series) - 4, 5)]
    errors = []
    for d in range(len(means) - 4):
        kept = means[d:]
        mean = math.fsum(kept) / len(kept)
        errors.append(math.fsum((x - mean) ** 2 for x in kept) / len(kept) ** 2)
    return 5 * errors.index(min(errors))


def test_a_step_is_cut_where_it_ends() -> None:
    assert mser5([10.0] * 100 + [0.0] * 900) == WarmUp(cut=100, reliable=True)
    assert mser5([10.1] * 100 + [0.3] * 903) == WarmUp(cut=100, reliable=True)


def test_a_constant_series_needs_no_cut() -> None:
    assert mser5([0.1] * 1000) == WarmUp(cut=0, reliable=True)


def test_an_exponential_decay_is_cut_after_about_three_time_constants() -> None:
    rng = np.random.default_rng(20260101)
    decay = 10.0 * np.exp(-np.arange(3000) / 30.0)
    cuts = [mser5(decay + rng.normal(size=3000)).cut for _ in range(500)]
    assert 80 <= np.median(cuts) <= 100
    assert 60 <= np.quantile(cuts, 0.1) < np.quantile(cuts, 0.9) <= 135


def test_a_stationary_series_keeps_nearly_everything() -> None:
    rng = np.random.default_rng(20260101)
    cuts = [mser5(rng.normal(size=3000)).cut for _ in range(500)]
    assert np.median(cuts) == 0
    assert np.quantile(cuts, 0.9) <= 30
    assert np.mean(np.array(cuts) > 300) < 0.01


def test_the_bias_of_a_queue_that_starts_full_is_removed() -> None:
    rng = np.random.default_rng(20260101)
    steps = rng.exponential(1.0, (300, 5000)) - rng.exponential(1.25, (300, 5000))
    steps[:, 0] = 60.0
    walk = np.cumsum(steps, axis=1)
    waits = walk - np.minimum(np.minimum.accumulate(walk, axis=1), 0.0)
    assert waits.mean() > 5.3
    across = waits.mean(axis=0)
    assert across[mser5(across).cut :].mean() == pytest.approx(4.0, abs=0.1)
    alone = [(wait, mser5(wait)) for wait in waits]
    kept = [wait[found.cut :].mean() for wait, found in alone if found.reliable]
    assert len(kept) > 0.75 * len(waits)
    assert np.mean(kept) == pytest.approx(4.0, abs=0.3)


def test_a_series_without_a_steady_state_is_flagged() -> None:
    assert not mser5([1.0] * 700 + [0.0] * 300).reliable
    assert mser5([1.0] * 500 + [0.0] * 500) == WarmUp(cut=500, reliable=True)


@given(st.lists(st.integers(-100, 100), min_size=50, max_size=120))
def test_equals_the_rule_as_written(series: list[int]) -> None:
    values = np.array(series, dtype=float)
    fast, slow = mser5(values).cut, by_definition(values)

    def error(cut: int) -> float:
        means = values[cut : len(values) // 5 * 5].reshape(-1, 5).mean(axis=1)
        return float(means.var() / means.size)

    assert fast == slow or error(fast) == pytest.approx(error(slow), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("series", "message"),
    [([1.0] * 49, "at least 50"), ([[1.0] * 50], "at least 50"), ([1.0] * 50 + [math.nan], "observation 50")],
)
def test_bad_series_are_named(series: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mser5(series)
