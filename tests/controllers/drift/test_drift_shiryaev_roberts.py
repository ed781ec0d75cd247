"""The e-detector: its recursion, that its bets gain nothing by chance, and its promise with a learned baseline."""

from __future__ import annotations

from itertools import product
from math import fsum, prod, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from controllers.drift.shiryaev_roberts import SHIFTS, ShiryaevRoberts, mean_bound
from glowsim.core.types import Code


def learned(values: list[float], **settings_: Any) -> ShiryaevRoberts:
    detector = ShiryaevRoberts(**({"metric": "error", "baseline": len(values)} | settings_))
    for value in values:
        assert detector.observe(0.0, value) is None
    return detector


@settings(max_examples=40)
@given(
    st.lists(st.floats(0, 1), min_size=50, max_size=60),
    st.lists(st.floats(-1, 2), min_size=1, max_size=25),
    st.sampled_from(["up", "down", "both"]),
)
def test_it_is_the_sum_over_all_starts_of_what_bets_since_then_have_won(
    block: list[float], later: list[float], direction: Any
) -> None:
    detector = learned(block, direction=direction, run_length=1e300)
    for value in later:
        detector.observe(0.0, value)
    expected = []
    for down in {"up": [False], "down": [True], "both": [False, True]}[direction]:
        doubt = 0.1 / (2 if direction == "both" else 1)
        bound, deviation = mean_bound([1.0 - y if down else y for y in block], doubt)
        ys = [min(1.0, max(0.0, value)) for value in later]
        for shift in SHIFTS:
            stake = min(shift / deviation, 0.95 / bound)
            won = [1.0 + stake * ((1.0 - y if down else y) - bound) for y in ys]
            expected.append(fsum(prod(won[start:]) for start in range(len(won))))
    assert detector.statistic == pytest.approx(fsum(expected) / len(expected), rel=1e-9)


@settings(max_examples=60)
@given(st.floats(0.001, 0.999), st.floats(0, 1), st.integers(0, 60), st.integers(1, 9))
def test_without_a_change_the_statistic_less_the_number_of_values_falls(
    rate: float, below: float, ones: int, n: int
) -> None:
    """Over all sequences of errors, exactly: E[R_n] <= n wherever the bound holds. Then the run is >= the threshold."""
    detector = learned([1.0] * ones + [0.0] * (60 - ones), direction="up", run_length=1e300)
    bound = detector._bets[0][1]
    rate = min(rate, bound) * below
    saved, mean = detector.snapshot(), 0.0
    for errors in product((0.0, 1.0), repeat=n):
        detector.restore(saved)
        for value in errors:
            detector.observe(0.0, value)
        bad = fsum(errors)
        mean += rate**bad * (1.0 - rate) ** (n - bad) * detector.statistic
    assert mean <= n * (1.0 + 1e-9)


@given(st.integers(0, 80), st.integers(0, 80), st.floats(0.01, 0.5))
def test_the_bound_of_a_rate_is_clopper_and_pearson_s(ones: int, zeros: int, doubt: float) -> None:
    assume(ones + zeros > 1)
    bound, _ = mean_bound([1.0] * ones + [0.0] * zeros, doubt)
    exact = stats.binomtest(ones, ones + zeros, alternative="less").proportion_ci(1.0 - doubt, "exact").high
    assert bound == pytest.approx(exact)


@pytest.mark.parametrize(
    "law", [lambda rng, n: rng.random(n), lambda rng, n: np.minimum(1, rng.lognormal(-2, 1, n))]
)
def test_the_bound_of_a_mean_fails_no_more_often_than_it_says(law: Any) -> None:
    rng = np.random.default_rng(4)
    truth = law(rng, 1_000_000).mean()
    samples = [law(rng, 200) for _ in range(300)]
    bounds = np.array([mean_bound(sample.tolist(), 0.1)[0] for sample in samples])
    assert (bounds < truth).sum() <= 30
    reach = np.log(2.0 / 0.1)
    bernstein = np.mean([
        s.mean() + sqrt(2.0 * s.var(ddof=1) * reach / 200) + 7.0 * reach / (3.0 * 199) for s in samples
    ])  # fmt: skip
    assert truth < bounds.mean() < bernstein, "tighter than Maurer and Pontil's"


def test_the_run_length_is_kept_with_a_baseline_that_is_itself_drawn() -> None:
    """Errors at 5 %, 200 to learn from: 600 runs, cut off at ten times the promise, have a mean above it."""
    rng, lengths = np.random.default_rng(12), []
    for _ in range(300):
        detector = ShiryaevRoberts(metric="error", run_length=300, baseline=200, direction="both")
        errors = (rng.random(3200) < 0.05).astype(float).tolist()
        told = next((place for place, value in enumerate(errors) if detector.observe(0.0, value)), 3200)
        lengths.append(told - 199)
    assert np.mean(lengths) - 3 * np.std(lengths) / sqrt(len(lengths)) > 300


@pytest.mark.parametrize(("direction", "to"), [("up", 0.10), ("both", 0.10)])
def test_a_rate_that_doubles_is_told_within_the_target(direction: Any, to: float) -> None:
    """Issue 6: 0.05 to 0.10 at a run length of 50,000, baseline estimated: a median delay of at most 450."""
    rng, delays = np.random.default_rng(6), []
    for _ in range(100):
        detector = ShiryaevRoberts(metric="error", run_length=50_000, baseline=5000, direction=direction)
        errors = np.concatenate([rng.random(7000) < 0.05, rng.random(3000) < to]).astype(float)
        told = [place for place, value in enumerate(errors.tolist()) if detector.observe(0.0, value)]
        delays += [place - 6999 for place in told if place >= 7000]
    assert len(delays) >= 90
    assert np.median(delays) <= 450


def test_an_alert_tells_the_way_and_the_means_and_then_it_learns_afresh() -> None:
    rng = np.random.default_rng(9)
    detector = ShiryaevRoberts(metric="latency_s", run_length=1e5, baseline=500, margin=1.0)
    calm, fast = rng.lognormal(0.0, 0.4, 1000), rng.lognormal(-0.7, 0.4, 2000)
    told = []
    for t_s, value in enumerate(np.concatenate([calm, fast]).tolist()):
        alert = detector.observe(float(t_s), value)
        if alert:
            told.append((t_s, alert))
    ((t_s, alert),) = told
    assert 1000 < t_s < 1100
    assert alert.reason.code == Code.DRIFT_DOWN
    assert alert.reason.a >= 5.0
    assert alert.reason.b == pytest.approx(calm[:500].mean())
    assert alert.reason.c == pytest.approx(fast.mean(), abs=0.15)
    assert not detector.standing().told


def test_a_metric_that_never_varied_is_no_trouble() -> None:
    detector = learned([0.0] * 60, run_length=1000)
    assert detector.observe(0.0, 0.0) is None
    assert any(detector.observe(0.0, 1.0) for _ in range(5))
    other = learned([7.0] * 60, metric="tokens_out", run_length=1000)
    assert any(other.observe(0.0, 90.0) for _ in range(20))
