"""Intervals: agreement with independent formulas, coverage by simulation, and what must stay true."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from glowsim.stats import (
    Interval,
    paired_difference,
    quantile_interval,
    replication_quantiles,
    required_replications,
    t_interval,
    wilson,
)

numbers = st.floats(-1e6, 1e6, allow_nan=False)
samples = st.lists(numbers, min_size=2, max_size=20)
confidences = st.floats(0.5, 0.999)


def covers(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def test_t_interval_equals_the_table_of_student() -> None:
    # t(0.975; 4) = 2.776 and t(0.95; 9) = 1.833, as printed in any table.
    five = t_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert five.half_width == pytest.approx(2.776 * math.sqrt(2.5 / 5), rel=2e-4)
    ten = t_interval(range(10), confidence=0.90)
    assert ten.half_width == pytest.approx(1.833 * math.sqrt(np.var(range(10), ddof=1) / 10), rel=2e-4)


def test_one_replication_has_no_interval_and_equal_ones_a_point() -> None:
    assert t_interval([3.0]) == Interval(3.0, -math.inf, math.inf, 1)
    assert t_interval([0.1] * 3) == Interval(0.1, 0.1, 0.1, 3)


@pytest.mark.parametrize("n", [3, 10])
def test_t_interval_covers_what_it_promises(n: int) -> None:
    draws = np.random.default_rng(20260101).normal(10.0, 3.0, (4000, n))
    hits = sum(covers(t_interval(draw), 10.0) for draw in draws)
    assert hits / 4000 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 4000))


@given(samples, confidences, confidences)
def test_interval_contains_its_mean_and_grows_with_confidence(
    values: list[float], one: float, other: float
) -> None:
    narrow, wide = (t_interval(values, c) for c in sorted((one, other)))
    assert wide.low <= narrow.low <= narrow.mean <= narrow.high <= wide.high
    assert min(values) - 1e-6 <= narrow.mean <= max(values) + 1e-6


@given(st.integers(1, 400), st.data(), confidences, confidences)
def test_wilson_solves_its_own_score_equation(
    trials: int, data: st.DataObject, one: float, other: float
) -> None:
    successes = data.draw(st.integers(0, trials))
    narrow, wide = (wilson(successes, trials, c) for c in sorted((one, other)))
    assert 0.0 <= wide.low <= narrow.low <= narrow.mean <= narrow.high <= wide.high <= 1.0
    z = scipy.stats.norm.ppf((1 + min(one, other)) / 2)
    for end in (narrow.low, narrow.high):
        if 0.0 < end < 1.0:
            assert (narrow.mean - end) ** 2 == pytest.approx(
                z**2 * end * (1 - end) / trials, rel=1e-6, abs=1e-12
            )


def test_wilson_equals_published_values_and_scipy() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I: the score method for 81/263, 15/148, 0/20, 1/29.
    published = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (successes, trials), (low, high) in published.items():
        interval = wilson(successes, trials)
        assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)
        by_scipy = scipy.stats.binomtest(successes, trials).proportion_ci(0.95, method="wilson")
        assert (interval.low, interval.high) == pytest.approx((by_scipy.low, by_scipy.high), abs=1e-12)


def test_paired_difference_equals_the_paired_t_test_and_beats_independent_samples() -> None:
    rng = np.random.default_rng(5)
    shared = rng.normal(0.0, 5.0, 12)
    a, b = 10.0 + shared + rng.normal(0.0, 1.0, 12), 9.0 + shared + rng.normal(0.0, 1.0, 12)
    paired = paired_difference(a, b, 0.9)
    by_scipy = scipy.stats.ttest_rel(a, b).confidence_interval(0.9)
    assert (paired.low, paired.high) == pytest.approx((by_scipy.low, by_scipy.high), rel=1e-12)
    independent = scipy.stats.ttest_ind(a, b).confidence_interval(0.9)
    assert paired.half_width < (independent.high - independent.low) / 4


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=10), st.floats(0.5, 50))
def test_required_replications_are_enough_and_not_one_too_many(
    values: list[float], half_width: float
) -> None:
    more = required_replications(values, half_width)
    deviation = 0.0 if len(set(values)) == 1 else float(np.std(values, ddof=1))

    def reached(n: int) -> float:
        return float(scipy.stats.t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)

    n = len(values) + more
    assert reached(n) <= half_width * (1 + 1e-12)
    assert more == 0 or reached(n - 1) > half_width * (1 - 1e-12)


def waits_of_mm1(chains: int, length: int, seed: int) -> np.ndarray:
    """Waits in M/M/1 at load 0.8, by Lindley's recursion, each chain from its stationary state."""
    rng = np.random.default_rng(seed)
    steps = rng.exponential(1.0, (chains, length)) - rng.exponential(1.25, (chains, length))
    steps[:, 0] = np.where(rng.random(chains) < 0.8, rng.exponential(5.0, chains), 0.0)
    walk = np.cumsum(steps, axis=1)
    return walk - np.minimum(np.minimum.accumulate(walk, axis=1), 0.0)


def test_replications_cover_a_percentile_that_pooled_requests_miss() -> None:
    exact_p95 = math.log(0.8 / 0.05) / 0.2
    length, macro = 9000, 60
    waits = waits_of_mm1(10 * macro, length, seed=20260101)
    pooled_hits = 0
    for run in waits:
        ordered = np.sort(run)
        low, high = scipy.stats.binom.ppf([0.025, 0.975], length, 0.95).astype(int)
        pooled_hits += ordered[low] <= exact_p95 <= ordered[high]
    hits = sum(
        covers(quantile_interval(list(waits[10 * m : 10 * m + 10]), 0.95), exact_p95) for m in range(macro)
    )
    assert pooled_hits / len(waits) < 0.3
    assert hits / macro > 0.83  # 0.93 measured elsewhere, three standard errors of 60 trials below it


def test_naive_interval_over_an_autocorrelated_run_fails_where_replications_hold() -> None:
    rng = np.random.default_rng(20260101)
    noise = rng.normal(size=(400, 10_000))
    noise[:, 0] /= math.sqrt(1 - 0.9**2)
    series = scipy.signal.lfilter([1.0], [1.0, -0.9], noise, axis=1)
    naive = sum(covers(t_interval(run), 0.0) for run in series) / 400
    replicated = sum(covers(t_interval(group), 0.0) for group in series.mean(axis=1).reshape(40, 10)) / 40
    assert naive == pytest.approx(0.362, abs=4 * math.sqrt(0.36 * 0.64 / 400))
    assert replicated > 0.84


def test_quantiles_are_of_each_replication_and_missing_ones_are_nan() -> None:
    assert replication_quantiles([range(101), [7.0], []], 0.95) == pytest.approx(
        [95.0, 7.0, math.nan], nan_ok=True
    )
    with pytest.raises(ValueError, match="replication 1 has no observations"):
        quantile_interval([[1.0], []], 0.5)
    with pytest.raises(ValueError, match=r"replication 0 .* not finite"):
        replication_quantiles([[1.0, math.nan]], 0.5)
    with pytest.raises(ValueError, match="q is 95"):
        replication_quantiles([[1.0]], 95)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: t_interval([]), "at least one"),
        (lambda: t_interval([[1.0], [2.0]]), r"shape \(2, 1\)"),
        (lambda: t_interval([1.0, math.nan]), "replication 1 has the value nan"),
        (lambda: t_interval([1.0, -math.inf]), "replication 1 has the value -inf"),
        (lambda: t_interval([1.0, 2.0], 95), "confidence is 95"),
        (lambda: wilson(3, 2), "3 successes in 2 trials"),
        (lambda: wilson(-1, 2), "-1 successes"),
        (lambda: wilson(0, 0), "0 trials"),
        (lambda: paired_difference([1.0, 2.0], [1.0]), "2 replications against 1"),
        (lambda: required_replications([1.0], 0.1), "at least 2"),
        (lambda: required_replications([1.0, 2.0], 0.0), "above 0"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
