"""CUSUM against its recursion and the theory of its run lengths."""

from __future__ import annotations

from math import nan, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.drift.cusum import Cusum
from controllers.drift.standing import cusum_score
from glowsim.core.types import Code, Severity
from glowsim.stats.oracles.charts import cusum_run_length


def chart(threshold: float, allowance: float = 0.5, direction: Any = "both", **more: Any) -> Cusum:
    given_ones = {"reference": 0.0, "deviation": 1.0, **more}
    return Cusum(metric="m", threshold=threshold, allowance=allowance, direction=direction, **given_ones)


@settings(max_examples=60)
@given(st.lists(st.floats(-4, 4), max_size=80), st.floats(0, 1), st.floats(0.5, 6))
def test_it_is_page_s_recursion(values: list[float], allowance: float, threshold: float) -> None:
    detector, up, down = chart(threshold, allowance), 0.0, 0.0
    for t_s, value in enumerate(values):
        alert = detector.observe(float(t_s), value)
        up, down = max(0.0, up + value - allowance), max(0.0, down - value - allowance)
        assert (alert is not None) == (max(up, down) > threshold)
        if alert is not None:
            assert alert.reason.code == (Code.DRIFT_UP if up >= down else Code.DRIFT_DOWN)
            return
        assert detector.statistic == pytest.approx(max(up, down))


def run_lengths(threshold: float, shift: float, n: int, seed: int) -> list[int]:
    rng, lengths = np.random.default_rng(seed), []
    for _ in range(n):
        detector, length = chart(threshold), 0
        while True:
            block = rng.normal(shift, 1.0, 256).tolist()
            place = next((i for i, value in enumerate(block) if detector.observe(0.0, value)), None)
            if place is not None:
                lengths.append(length + place + 1)
                break
            length += 256
    return lengths


@pytest.mark.parametrize(
    ("threshold", "shift", "published"),
    [(4.0, 0.0, 168), (5.0, 0.0, 465), (4.0, 1.0, 8.38), (5.0, 1.0, 10.4)],
)
def test_run_lengths_are_those_of_the_tables(threshold: float, shift: float, published: float) -> None:
    """Two-sided, allowance 0.5: Montgomery, Introduction to Statistical Quality Control, table 9.3."""
    lengths = run_lengths(threshold, shift, 400, seed=17)
    error = np.std(lengths) / sqrt(len(lengths))
    assert abs(np.mean(lengths) - published) < 3.5 * error


@pytest.mark.parametrize(("threshold", "allowance"), [(3.0, 0.5), (5.0, 0.25), (8.0, 0.25), (9.0, 0.5)])
def test_the_score_is_the_run_length_of_the_integral_equation(threshold: float, allowance: float) -> None:
    exact = cusum_run_length(threshold, allowance, 0.0)
    assert 10 ** cusum_score(threshold, allowance, 1) == pytest.approx(exact, rel=0.05)
    assert 10 ** cusum_score(threshold, allowance, 2) == pytest.approx(exact / 2, rel=0.05)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(0, 5))
def test_more_evidence_is_never_a_lower_score(one: float, other: float, allowance: float) -> None:
    low, high = sorted((one, other))
    assert 0.0 <= cusum_score(low, allowance, 2) <= cusum_score(high, allowance, 2) + 1e-9 <= 301.0


def test_it_learns_what_is_normal_and_tells_the_means_in_the_metric_s_unit() -> None:
    rng = np.random.default_rng(2)
    detector = Cusum(metric="latency_s", threshold=8, baseline=400, margin=0.1, direction="up")
    calm, slow = rng.normal(1.0, 0.2, 400), rng.normal(1.3, 0.2, 100)
    assert not any(detector.observe(0.0, value) for value in calm.tolist())
    assert detector.standing().score == 0.0
    alert = next(filter(None, (detector.observe(0.0, value) for value in slow.tolist())))
    assert alert.severity == Severity.CRITICAL
    assert alert.reason.b == pytest.approx(calm.mean())
    assert alert.reason.c == pytest.approx(1.3, abs=0.15)
    assert alert.reason.a > detector._needed
    assert detector.standing().told, "it stands until normal is known again"
    for value in slow.tolist() * 4:
        assert detector.observe(0.0, value) is None, "what it learned from now is normal"
    assert not detector.standing().told


def test_a_baseline_without_any_spread_makes_every_other_value_a_move() -> None:
    detector = Cusum(metric="m", threshold=5, baseline=10)
    assert not any(detector.observe(0.0, 2.0) for _ in range(50))
    assert detector.observe(0.0, 2.1)


def test_what_is_not_a_number_is_refused_and_changes_nothing() -> None:
    detector = chart(5)
    before = detector.snapshot()
    with pytest.raises(ValueError, match="m: nan at 3"):
        detector.observe(3.0, nan)
    assert detector.snapshot() == before
