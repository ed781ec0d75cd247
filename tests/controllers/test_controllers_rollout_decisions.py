"""The decisions of a rollout as pure functions: the last gate, the split, how many units there are."""

from __future__ import annotations

import json
from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from controllers.rollout.gate import NOTHING, Terms, stratum, together, upper_bound
from controllers.rollout.sample_ratio import ALARM, log_bayes_factor
from controllers.rollout.units import Units
from glowsim.core.streams import mix

# --- the last gate --------------------------------------------------------------------------------------


def terms_of(strata: list[tuple[int, int, int, int]], margin: float = 0.01) -> Terms:
    terms = NOTHING
    for each in strata:
        terms = together(terms, stratum(*each, margin))
    return terms


def parts(terms: Terms) -> tuple[float, float]:
    """Return the difference and its standard error."""
    low, high = upper_bound(terms, -1.0), upper_bound(terms, 1.0)
    return (low + high) / 2, (high - low) / 2


BCG = [
    (123, 4, 139, 11), (306, 6, 303, 29), (231, 3, 220, 11), (13598, 62, 12867, 248), (5069, 33, 5808, 47),
    (1541, 180, 1451, 372), (2545, 8, 629, 10), (88391, 505, 88391, 499), (7499, 29, 7277, 45),
    (1716, 17, 1665, 65), (50634, 186, 27338, 141), (2498, 5, 2341, 3), (16913, 27, 17854, 29),
]  # fmt: skip
"""Tuberculosis in 13 trials of the BCG vaccine (Colditz and others, 1994): treated, ill, controls, ill."""


@pytest.mark.parametrize("margin", [0.0, 0.01])
def test_it_is_the_difference_of_mantel_and_haenszel_with_its_variance_at_the_margin(margin: float) -> None:
    """Greenland & Robins' weights, and risks apart by the margin, written out in columns, on published trials."""
    n1, a, n0, c = (np.array(column, dtype=float) for column in zip(*BCG, strict=True))
    weights = n1 * n0 / (n1 + n0)
    difference = np.sum(weights * (a / n1 - c / n0)) / weights.sum()
    low = np.clip((a + c - margin * n1) / (n1 + n0), 0.0, 1.0 - margin)
    high = low + margin
    variance = np.sum(weights**2 * (high * (1 - high) / n1 + low * (1 - low) / n0)) / weights.sum() ** 2
    assert parts(terms_of(BCG, margin)) == pytest.approx((difference, sqrt(variance)), rel=1e-9)


def test_with_one_large_stratum_it_is_the_difference_of_two_proportions() -> None:
    difference, error = parts(stratum(20_000, 1_100, 30_000, 1_500, 0.005))
    p1, p0 = 1_100 / 20_000, 1_500 / 30_000
    assert difference == pytest.approx(p1 - p0)
    assert error == pytest.approx(sqrt(p1 * (1 - p1) / 20_000 + p0 * (1 - p0) / 30_000))


@pytest.mark.parametrize("requests", [4, 400])
def test_its_bound_covers_in_many_small_strata_and_in_few_large_ones(requests: int) -> None:
    """The weight rises and the risk falls from stratum to stratum: pooled rates would be off by Simpson's paradox."""
    rng = np.random.default_rng(requests)
    count, campaigns, true = 4000 // requests, 800, 0.01
    weights, risks = np.linspace(0.05, 0.5, count), np.linspace(0.12, 0.03, count)
    covered = pooled = 0
    for _ in range(campaigns):
        n1 = rng.binomial(requests, weights)
        n0 = requests - n1
        a, c = rng.binomial(n1, risks + true), rng.binomial(n0, risks)
        terms = terms_of(list(zip(n1.tolist(), a.tolist(), n0.tolist(), c.tolist(), strict=True)))
        covered += upper_bound(terms, 1.96) >= true
        pooled += a.sum() / n1.sum() - c.sum() / n0.sum() < true
    low, high = stats.binom.interval(0.9999, campaigns, 0.975)
    assert low <= covered <= high
    assert pooled > 0.8 * campaigns, "pooled, the canary looks better than it is"


def test_without_both_arms_there_is_no_bound() -> None:
    assert upper_bound(NOTHING, 1.96) == upper_bound(stratum(10, 1, 0, 0, 0.01), 1.96) == inf


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.floats(0, 1), st.floats(0, 1)), max_size=6),
    st.floats(0.0, 0.01),
)
def test_the_bound_is_above_the_difference_and_grows_with_chance(
    strata: list[tuple[int, int, float, float]], extra: float
) -> None:
    terms = terms_of([(n1, int(n1 * p1), n0, int(n0 * p0)) for n1, n0, p1, p0 in strata])
    bounds = [upper_bound(terms, z, more) for z, more in ((0.0, 0.0), (1.96, 0.0), (1.96, extra))]
    assert bounds == sorted(bounds)


@pytest.mark.parametrize("weight", [0.05, 0.5])
def test_silence_does_not_promote(weight: float) -> None:
    """Without one bad outcome it takes what the rule of three asks for: about 369 requests rule out 1 % at 2.5 %."""

    def passes(canary: int) -> bool:
        baseline = round(canary * (1 / weight - 1))
        return upper_bound(stratum(canary, 0, baseline, 0, 0.01), 1.96) < 0.01

    exact = np.log(0.025) / np.log(0.99)
    assert next(n for n in range(1, 1000) if passes(n)) == pytest.approx(exact, rel=0.05)


def promoted(more: float, seed: int, *, tenants: int = 200, campaigns: int = 250) -> tuple[float, float]:
    """Return how often a canary's 30 hours end in promotion where tenants of unequal risk are assigned: when that is
    taken into account, and when requests are taken for independent."""
    rng, passed, naive, risk, correlation = np.random.default_rng(seed), 0, 0, 0.05, 0.01
    weights = [0.05] * 24 + [0.1] * 2 + [0.25] * 2 + [0.5] * 2
    for _ in range(campaigns):
        risks, place = rng.beta(risk * 99, (1 - risk) * 99, tenants), rng.random(tenants)
        sent = rng.poisson(7200 / tenants, (30, tenants))
        terms = NOTHING
        for hour, weight in enumerate(weights):
            mine = place < weight
            wrong = rng.binomial(sent[hour], np.minimum(1.0, risks + more * mine))
            units = [1.0 / max(1, arm.sum()) for arm in (mine, ~mine)]
            requests = [
                int(each) for arm in (mine, ~mine) for each in (sent[hour, arm].sum(), wrong[arm].sum())
            ]
            terms = together(terms, stratum(*requests, 0.01, sqrt(units[0] + units[1])))
        passed += upper_bound(terms, 1.96, correlation * risk * (1 - risk)) < 0.01
        naive += upper_bound(terms, 1.96) < 0.01
    return passed / campaigns, naive / campaigns


def test_few_tenants_do_not_promote_what_is_worse_by_the_margin() -> None:
    """Tenants of equal size, whose effective number is their number."""
    passed, naive = promoted(0.01, 4)
    assert passed <= stats.binom.ppf(0.999, 250, 0.025) / 250
    assert naive > 0.1, "as if requests were independent, it would be promoted far too often"


# --- the split ------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(0, 10**7), st.floats(0.01, 0.99))
def test_the_bayes_factor_is_the_beta_binomial_over_the_binomial(k: int, rest: int, weight: float) -> None:
    beta = special.betaln(1000 * weight + k, 1000 * (1 - weight) + rest) - special.betaln(
        1000 * weight, 1000 * (1 - weight)
    )
    binomial = k * np.log(weight) + rest * np.log1p(-weight)
    assert log_bayes_factor(k, rest, weight) == pytest.approx(beta - binomial, abs=1e-6, rel=1e-6)


def test_under_the_right_split_its_expectation_is_one() -> None:
    n, weight = 40, 0.3
    chances = stats.binom.pmf(np.arange(n + 1), n, weight)
    factors = [np.exp(log_bayes_factor(k, n - k, weight)) for k in range(n + 1)]
    assert float(chances @ factors) == pytest.approx(1.0)


def alarms(true: float, campaigns: int, looks: int = 200) -> float:
    """Return how often 20,000 assignments at a weight of 5 % raise an alarm, looked at every 100."""
    rng, found = np.random.default_rng(6), 0
    counts = rng.binomial(100, true, (campaigns, looks)).cumsum(1)
    for each in counts.tolist():
        pairs = ((k, 100 * (look + 1) - k) for look, k in enumerate(each))
        found += any(log_bayes_factor(k, rest, 0.05) >= ALARM for k, rest in pairs)
    return found / campaigns


def test_a_split_of_six_percent_instead_of_five_is_found_within_20_000_assignments() -> None:
    assert alarms(0.06, 300) >= 0.95
    assert alarms(0.05, 400) <= stats.binom.ppf(0.999, 400, 0.001) / 400


# --- units ----------------------------------------------------------------------------------------------


@given(st.dictionaries(st.integers(1, 2**64 - 1), st.integers(1, 30), min_size=1, max_size=12))
def test_few_units_are_counted_exactly(requests: dict[int, int]) -> None:
    units = Units()
    for unit, n in requests.items():
        for _ in range(n):
            units.count(mix(unit), 1)
    numbers = list(requests.values())
    exact = sum(numbers) ** 2 / sum(n * n for n in numbers)
    assert units.effective(1) <= exact + 1e-9, "where two share a cell it is on the safe side"
    assert units.effective(1) > exact / 2
    assert units.effective(0) == 0.0
    assert units.take_new() == (0, len(requests)) or units.take_new()[1] < len(requests)


def test_units_are_new_once_until_they_are_forgotten() -> None:
    units = Units()
    for _ in range(3):
        for unit in range(1, 101):
            units.count(mix(unit), unit % 2)
    assert units.take_new() == (50, 50)
    assert units.take_new() == (0, 0)
    units.forget()
    units.count(mix(7), 1)
    assert units.take_new() == (0, 1)
    assert (units.effective(1), units.fewness()) == (1.0, 0.0), "the other arm has none yet"
    units.count(mix(8), 0)
    assert units.fewness() == pytest.approx(sqrt(2.0))


def test_a_million_units_take_bounded_room() -> None:
    units = Units()
    for unit in range(1, 100_000):
        units.count(mix(unit), 0)
    assert 1_000 <= units.effective(0) <= 1_024
    assert sum(units.take_new()) <= 32_768
    assert len(json.dumps(units.snapshot())) < 300_000
