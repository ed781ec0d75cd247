"""KS and PSI: their p-values against scipy and simulation, and the run length of window against window."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from controllers.drift.ks import KolmogorovSmirnov, equal_windows_p
from controllers.drift.psi import PopulationStability, bin_edges, counts, index, null_p
from glowsim.core.types import Code

values = st.lists(st.integers(-9, 9).map(float), min_size=1, max_size=40)


@pytest.mark.filterwarnings("ignore:ks_2samp. Exact")  # of two windows alike, where p is 1 either way
@settings(max_examples=80)
@given(
    st.integers(1, 60).flatmap(
        lambda n: st.tuples(*(st.lists(st.integers(-20, 20), min_size=n, max_size=n),) * 2)
    )
)
def test_ks_is_scipy_s(pair: tuple[list[int], list[int]]) -> None:
    reference, window = ([float(x) for x in each] for each in pair)
    detector = KolmogorovSmirnov(metric="m")
    d, p = detector.compare(sorted(reference), window)
    exact = stats.ks_2samp(reference, window, method="exact")
    assert d == pytest.approx(exact.statistic)
    assert p == pytest.approx(exact.pvalue, abs=1e-9)


@pytest.mark.parametrize(("n", "k"), [(50, 14), (500, 55), (20_000, 300), (20_000, 20_000)])
def test_p_of_large_windows_is_scipy_s_or_zero(n: int, k: int) -> None:
    assert equal_windows_p(n, k) == pytest.approx(
        stats.kstwobign.sf(k / n * sqrt(n / 2)), rel=0.15, abs=1e-12
    )


def first_alarms(make: Any, n: int, length: int, seed: int) -> list[int]:
    rng, told = np.random.default_rng(seed), []
    for _ in range(n):
        detector = make()
        stream = rng.lognormal(0.0, 1.0, length).tolist()
        told.append(next((i + 1 for i, value in enumerate(stream) if detector.observe(0.0, value)), length))
    return told


@pytest.mark.parametrize(
    "make",
    [
        lambda: KolmogorovSmirnov(metric="m", window=50, run_length=500),
        lambda: PopulationStability(metric="m", window=200, run_length=2000),
    ],
)
def test_the_run_length_is_at_least_the_one_asked_for(make: Any) -> None:
    detector = make()
    length = 8 * round(10**detector._needed)
    told = np.array(first_alarms(make, 60 if length > 5000 else 150, length, seed=3)) - detector._size
    assert told.mean() + 2.0 * told.std() / sqrt(len(told)) > 10**detector._needed


@pytest.mark.parametrize("n", [100, 200, 1000])
def test_the_null_of_psi_knows_the_sample_size(n: int) -> None:
    rng, levels = np.random.default_rng(n), np.array([0.05, 0.01])
    bins = min(10, n // 20)
    found, held = [], []
    for _ in range(1200):
        reference = np.sort(rng.normal(size=n)).tolist()
        edges = bin_edges(reference, 10)
        psi = index(counts(edges, reference), counts(edges, rng.normal(size=n).tolist()))
        held.append(psi)
        found.append(null_p(psi, len(edges) + 1, n, n))
    assert len(edges) + 1 == bins
    assert np.mean(held) == pytest.approx((bins - 1) * 2 / n, rel=0.1), "E[PSI] = (B - 1)(1/n + 1/m)"
    shares = (np.array(found)[:, None] <= levels).mean(axis=0)
    assert (np.abs(shares - levels) < 3.5 * np.sqrt(levels / 1200)).all()


def test_the_usual_thresholds_are_wrong_at_small_samples() -> None:
    """The reference: 100 values, deciles, no drift: PSI above 0.1 in 80 % of the windows, above 0.25 in 14 %."""
    rng = np.random.default_rng(1)
    held = []
    for _ in range(2000):
        reference = np.sort(rng.random(100)).tolist()
        edges = reference[9:99:10]
        held.append(index(counts(edges, reference), counts(edges, rng.random(100).tolist())))
    assert np.mean(np.array(held) > 0.1) == pytest.approx(0.80, abs=0.04)
    assert null_p(0.25, 10, 100, 100) > 0.15
    assert null_p(0.25, 10, 1000, 1000) < 1e-15


@given(values, st.integers(2, 12))
def test_every_bin_of_psi_holds_enough_and_none_is_lost(reference: list[float], bins: int) -> None:
    many = sorted(reference * 20)
    edges = bin_edges(many, bins)
    held = counts(edges, many)
    assert sum(held) == len(many)
    assert min(held) >= 20
    assert len(held) <= bins


@given(values, values)
def test_psi_is_symmetric_and_never_negative(a: list[float], b: list[float]) -> None:
    edges = [-3.0, 3.0]
    one, other = counts(edges, a), counts(edges, b)
    assert index(one, other) == pytest.approx(index(other, one))
    assert index(one, other) >= 0.0 == index(one, one)


@pytest.mark.parametrize("kind", [KolmogorovSmirnov, PopulationStability])
def test_a_change_of_the_spread_alone_is_told_with_the_same_mean(kind: Any) -> None:
    rng = np.random.default_rng(5)
    detector = kind(metric="quality", window=300, run_length=50_000, margin=0.5)
    stream = np.concatenate([rng.normal(10, 1, 900), rng.normal(10, 2, 600)])
    told = [
        (t_s, alert) for t_s, x in enumerate(stream.tolist()) if (alert := detector.observe(float(t_s), x))
    ]
    ((t_s, alert),) = told
    assert t_s in {1199, 1499}
    assert alert.reason.code == Code.DRIFT_SHAPE
    assert alert.reason.b == pytest.approx(alert.reason.c, abs=0.45)
    assert alert.severity.name == "INFO", "the mean has not moved by the margin"
