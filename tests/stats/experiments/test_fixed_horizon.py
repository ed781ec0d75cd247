"""Tests at one look against SciPy, statsmodels and printed values; their coverage; p-values of several tests."""

import math

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
import statsmodels.stats.api as sms
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.proportion import confint_proportions_2indep, power_proportions_2indep
from statsmodels.stats.proportion import test_proportions_2indep as score_of_statsmodels

from glowsim.stats.experiments.comparison import decide
from glowsim.stats.experiments.means import cuped, welch
from glowsim.stats.experiments.moments import Moments
from glowsim.stats.experiments.multiple import benjamini_hochberg, holm
from glowsim.stats.experiments.power import (
    power_of_means,
    power_of_proportions,
    size_for_means,
    size_for_proportions,
)
from glowsim.stats.experiments.proportions import proportions, score_z
from glowsim.stats.experiments.ranks import mann_whitney
from glowsim.stats.experiments.sample_ratio import sample_ratio

numbers = st.floats(-1e3, 1e3, allow_nan=False)
counts = st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(st.lists(numbers, max_size=30), st.integers(0, 30))
def test_moments_come_to_the_same_in_any_portions(values, cut) -> None:
    one = Moments.of(values)
    added = Moments()
    for value in values:
        added = added.add(value)
    for other in (added, Moments.of(values[:cut]).merge(Moments.of(values[cut:]))):
        assert other.n == one.n
        assert other.mean == pytest.approx(one.mean, abs=1e-9)
        assert other.squares == pytest.approx(one.squares, rel=1e-9, abs=1e-6)


def test_a_spread_survives_a_large_mean() -> None:
    assert Moments.of([1e9, 1e9 + 1, 1e9 + 2]).variance == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_welch_equals_statsmodels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(10, 1, 12), rng.exponential(11, 40)
    found = welch(Moments.of(a), Moments.of(b), alpha=0.02)
    oracle = sms.CompareMeans(sms.DescrStatsW(b), sms.DescrStatsW(a))
    assert found.p == pytest.approx(oracle.ttest_ind(usevar="unequal")[1], rel=1e-9)
    assert (found.low, found.high) == pytest.approx(oracle.tconfint_diff(0.02, usevar="unequal"), rel=1e-9)


def test_mee_s_interval_equals_the_printed_one() -> None:
    # Newcombe, Statistics in Medicine 17, 1998, table II, example (a), method 5: 56/70 less 48/80.
    found = proportions((48, 80), (56, 70))
    assert (found.low, found.high) == pytest.approx((0.0533, 0.3377), abs=5e-5)


@given(counts, counts, st.floats(-0.9, 0.9))
def test_the_score_statistic_is_that_of_the_most_likely_shares_at_the_margin(a, b, margin) -> None:
    def unlikelihood(share: float) -> float:
        return -sum(
            scipy.special.xlogy(x, p) + scipy.special.xlog1py(n - x, -p)
            for (x, n), p in ((a, share), (b, share + margin))
        )

    low, high = max(0.0, -margin), min(1.0, 1.0 - margin)
    best = scipy.optimize.minimize_scalar(unlikelihood, bounds=(low, high), options={"xatol": 1e-12}).x
    error = math.sqrt(best * (1 - best) / a[1] + (best + margin) * (1 - best - margin) / b[1])
    if min(best - low, high - best) > 1e-4:
        assert score_z(a, b, margin) == pytest.approx((b[0] / b[1] - a[0] / a[1] - margin) / error, abs=1e-4)


def test_the_score_statistic_without_a_margin_equals_statsmodels() -> None:
    oracle = score_of_statsmodels(48, 80, 56, 70, method="score", correction=False)
    assert score_z((56, 70), (48, 80), 0.0) == pytest.approx(oracle.statistic)


@given(counts, counts)
def test_a_share_s_interval_and_its_p_value_agree(a, b) -> None:
    found = proportions(a, b)
    assert -1.0 <= found.low <= found.difference + 1e-9
    assert found.difference - 1e-9 <= found.high <= 1.0
    if abs(found.p - 0.05) > 1e-6:
        assert (found.p < 0.05) == (found.low > 0.0 or found.high < 0.0)


def test_shares_agree_with_an_interval_made_otherwise() -> None:
    low, high = confint_proportions_2indep(130, 1000, 100, 1000, method="newcomb")
    found = proportions((100, 1000), (130, 1000))
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-4)


def test_the_score_interval_covers_what_it_promises() -> None:
    # Exactly, over all outcomes of 40 and 60 trials at 0.05 and 0.15.
    n_a, n_b, p_a, p_b = 40, 60, 0.05, 0.15
    covered = 0.0
    for x_a in range(n_a + 1):
        mass = scipy.stats.binom.pmf(x_a, n_a, p_a)
        if mass < 1e-7:
            continue
        for x_b in range(n_b + 1):
            both = mass * scipy.stats.binom.pmf(x_b, n_b, p_b)
            if both > 1e-7:
                found = proportions((x_a, n_a), (x_b, n_b))
                covered += both * (found.low <= 0.10 <= found.high)
    assert covered == pytest.approx(0.95, abs=0.012)


@pytest.mark.parametrize("rounded", [False, True])
def test_mann_whitney_equals_scipy_and_the_shift_is_the_median_over_pairs(rounded: bool) -> None:
    rng = np.random.default_rng(7)
    a, b = rng.normal(0, 2, 37), rng.normal(1, 2, 52)
    if rounded:
        a, b = np.round(a), np.round(b)
    found = mann_whitney(a, b)
    oracle = scipy.stats.mannwhitneyu(b, a, method="asymptotic")
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-9)
    pairs = np.sort(np.subtract.outer(b, a), axis=None)
    assert found.difference == np.median(pairs)
    assert {found.low, found.high} <= set(pairs.tolist())


def test_the_interval_of_the_shift_covers_what_it_promises() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(600):
        found = mann_whitney(rng.exponential(1, 25), 0.7 + rng.exponential(1, 30))
        hits += found.low <= 0.7 <= found.high
    assert hits / 600 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 600))


def test_a_winner_is_the_better_one_and_none_is_not_undecided() -> None:
    up = {"interval": (1.0, 0.5, 1.5), "p": 0.001, "alpha": 0.05}
    flat = {"interval": (0.0, -0.2, 0.2), "p": 0.9, "alpha": 0.05}
    arms = (1.0, 50), (2.0, 50)
    assert decide("t", *arms, **up).winner == "b"
    assert decide("t", *arms, **up, better="lower").winner == "a"
    assert decide("t", *arms, **flat, matters=0.3).winner == "none"
    assert decide("t", *arms, **flat, matters=0.1).winner == "undecided"
    assert decide("t", *arms, **flat).winner == "undecided"


def test_a_covariate_takes_away_what_it_explains_and_no_bias_comes() -> None:
    rng = np.random.default_rng(5)
    covered, widths = 0, []
    for _ in range(400):
        before = rng.normal(100, 20, 200)
        treated = rng.random(200) < 0.5
        metric = before + rng.normal(0, 10, 200) + 2.0 * treated
        adjusted = cuped(metric, before)
        assert adjusted.values.mean() == pytest.approx(metric.mean())
        assert adjusted.removed == pytest.approx(np.corrcoef(metric, before)[0, 1] ** 2)
        assert adjusted.slope == pytest.approx(scipy.stats.linregress(before, metric).slope)
        plain, sharp = (
            welch(Moments.of(values[~treated]), Moments.of(values[treated]))
            for values in (metric, adjusted.values)
        )
        covered += sharp.low <= 2.0 <= sharp.high
        widths.append((sharp.high - sharp.low) / (plain.high - plain.low))
    assert covered / 400 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 400))
    # A fifth of the variance is left: 10 ** 2 of 20 ** 2 + 10 ** 2.
    assert np.mean(widths) == pytest.approx(math.sqrt(0.2), abs=0.02)


def test_sizes_are_the_smallest_that_reach_their_power() -> None:
    for effect, share in ((0.5, 0.5), (0.2, 0.5), (0.3, 0.1)):
        n_a, n_b = size_for_means(effect, 1.0, power=0.9, share=share)
        assert power_of_means(n_a, n_b, effect, 1.0) >= 0.9 > power_of_means(n_a - 1, n_b - 1, effect, 1.0)
    assert TTestIndPower().solve_power(0.5, alpha=0.05, power=0.8) == pytest.approx(63.8, abs=0.05)
    assert size_for_means(0.5, 1.0) == (64, 64)


@given(st.integers(3, 400), st.integers(3, 400), st.floats(0.01, 0.8))
def test_power_of_means_equals_statsmodels(n_a: int, n_b: int, effect: float) -> None:
    oracle = TTestIndPower().power(effect, n_a, 0.05, ratio=n_b / n_a)
    if not math.isnan(oracle):  # statsmodels gives up where the power is all but 1
        assert power_of_means(n_a, n_b, effect, 1.0) == pytest.approx(oracle, abs=1e-6)


@given(st.floats(0.02, 0.6), st.floats(0.02, 0.3), st.integers(30, 3000))
def test_power_of_proportions_equals_statsmodels(base: float, effect: float, n: int) -> None:
    oracle = power_proportions_2indep(effect, base, n, ratio=1.0, alpha=0.05, return_results=False)
    assert power_of_proportions(n, n, base, effect) == pytest.approx(oracle, abs=1e-9)


def test_a_size_finds_its_effect_as_often_as_it_says() -> None:
    n_a, n_b = size_for_proportions(0.10, 0.05, power=0.8)
    rng = np.random.default_rng(11)
    drawn = zip(rng.binomial(n_a, 0.10, 2000), rng.binomial(n_b, 0.15, 2000), strict=True)
    found = sum(proportions((int(a), n_a), (int(b), n_b)).winner == "b" for a, b in drawn)
    assert found / 2000 == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 2000))


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
def test_false_discoveries_are_bounded_as_scipy_does_it_and_holm_is_stricter(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(scipy.stats.false_discovery_control(p), abs=1e-12)
    assert all(once <= twice + 1e-12 for once, twice in zip(benjamini_hochberg(p), holm(p), strict=True))


def test_holm_equals_statsmodels() -> None:
    p = [0.01, 0.04, 0.03, 0.005, 0.5, 0.04]
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-12)


def test_a_broken_split_is_told_from_luck() -> None:
    fine, broken = sample_ratio([5000, 5120], [0.5, 0.5]), sample_ratio([19_000, 1200], [95, 5])
    assert not fine.broken
    assert broken.broken
    assert broken.p == pytest.approx(scipy.stats.chisquare([19_000, 1200], [19_190, 1010]).pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: welch(Moments.of([1.0]), Moments.of([1.0, 2.0])), "arm a has 1 units"),
        (lambda: welch(Moments.of([1.0, 1.0]), Moments.of([1.0, 1.0])), "nothing to test"),
        (lambda: Moments.of([1.0, math.nan]), "value 1 is nan"),
        (lambda: proportions((3, 2), (1, 2)), "arm a has 3 successes in 2"),
        (lambda: proportions((1, 2), (1, 2), alpha=0.0), "alpha: 0.0"),
        (lambda: mann_whitney([], [1.0]), "arm a: give at least one"),
        (lambda: mann_whitney([1.0], [1.0]), "same value"),
        (lambda: size_for_means(0.0, 1.0), "effect other than 0"),
        (lambda: size_for_proportions(0.9, 0.2), "must be shares"),
        (lambda: size_for_means(0.1, 1.0, power=0.01), "power: 0.01"),
        (lambda: size_for_means(0.1, 1.0, share=1.0), "share: 1.0"),
        (lambda: size_for_means(1e-9, 1.0), "look for a larger effect"),
        (lambda: holm([1.5]), "give probabilities"),
        (lambda: cuped([1.0, 2.0], [1.0]), "one of each for each unit"),
        (lambda: sample_ratio([1, 2], [0.5]), "a weight above 0 for each"),
        (lambda: decide("t", (1, 1), (1, 1), (0, 0, 0), p=1, alpha=0.05, matters=-1), "matters: -1"),
    ],
)
def test_bad_input_is_refused_with_the_remedy(call, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()
