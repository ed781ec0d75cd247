"""Tests at many looks: false alarms under peeking, bounds against printed tables, power against simulation."""

import math

import numpy as np
import pytest

from glowsim.stats.experiments.always_valid import any_look, log_evidence_of_split, rates
from glowsim.stats.experiments.group_sequential import at_look, bounds, crossing, drift_for, inflation, spent
from glowsim.stats.experiments.means import welch
from glowsim.stats.experiments.moments import Moments


def evenly(k: int) -> list[float]:
    return [i / k for i in range(1, k + 1)]


# Jennison & Turnbull, Group Sequential Methods, tables 2.1 and 2.3, two-sided alpha 0.05.
POCOCK = {2: 2.178, 3: 2.289, 5: 2.413, 10: 2.555, 20: 2.672}
OBRIEN_FLEMING = {2: 1.977, 3: 2.004, 5: 2.040, 10: 2.087, 20: 2.126}


@pytest.mark.parametrize("k", POCOCK)
def test_the_classic_constants_use_up_alpha(k: int) -> None:
    assert crossing(evenly(k), [POCOCK[k]] * k)[-1] == pytest.approx(0.05, abs=1.5e-4)
    falling = [OBRIEN_FLEMING[k] * math.sqrt(k / i) for i in range(1, k + 1)]
    assert crossing(evenly(k), falling)[-1] == pytest.approx(0.05, abs=1.5e-4)


def test_peeking_at_a_fixed_test_costs_what_the_table_says() -> None:
    # Armitage, McPherson & Rowe 1969: 1.96 at 2, 5, 10 and 20 looks.
    for k, rate in ((2, 0.083), (5, 0.142), (10, 0.193), (20, 0.248)):
        assert crossing(evenly(k), [1.959964] * k)[-1] == pytest.approx(rate, abs=6e-4)


@pytest.mark.parametrize(
    ("spending", "printed"),
    [
        # Lan & DeMets' bounds for five even looks, as in Reboussin, DeMets, Kim & Lan (2000), alpha 0.05 two-sided.
        ("obrien-fleming", [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]),
        ("pocock", [2.4380, 2.4268, 2.4101, 2.3966, 2.3859]),
    ],
)
def test_spending_bounds_equal_the_printed_ones(spending, printed) -> None:
    assert bounds(evenly(5), 0.05, spending) == pytest.approx(printed, abs=2e-4)


@pytest.mark.parametrize("spending", ["obrien-fleming", "pocock", "power"])
@pytest.mark.parametrize("fractions", [[1.0], [0.3, 1.0], [0.1, 0.15, 0.7, 0.9]])
def test_each_look_spends_its_part_and_no_more(spending, fractions) -> None:
    bars = bounds(fractions, 0.03, spending)
    wanted = [spent(t, 0.03, spending) for t in fractions]
    assert crossing(fractions, bars) == pytest.approx(wanted, abs=1e-9)
    assert spent(0.0, 0.03, spending) == 0.0
    assert spent(1.0, 0.03, spending) == 0.03


def test_a_plan_s_inflation_equals_the_printed_one() -> None:
    # Jennison & Turnbull, tables 2.2 and 2.4: five looks, alpha 0.05, power 0.9.
    single = (1.959964 + 1.281552) ** 2
    pocock = drift_for(evenly(5), [POCOCK[5]] * 5, 0.9) ** 2 / single
    falling = (
        drift_for(evenly(5), [OBRIEN_FLEMING[5] * math.sqrt(5 / i) for i in range(1, 6)], 0.9) ** 2 / single
    )
    assert (pocock, falling) == (pytest.approx(1.207, abs=1e-3), pytest.approx(1.026, abs=1e-3))
    assert inflation([1.0]) == pytest.approx(1.0, abs=1e-5)


def test_crossing_equals_a_simulated_walk_with_drift() -> None:
    fractions, drift = [0.25, 0.5, 1.0], 2.0
    bars = bounds(fractions, 0.05, "pocock")
    rng = np.random.default_rng(2)
    steps = rng.normal(size=(40_000, 3)) * np.sqrt(np.diff([0.0, *fractions])) + drift * np.diff(
        [0.0, *fractions]
    )
    z = np.cumsum(steps, axis=1) / np.sqrt(fractions)
    beyond = np.maximum.accumulate(np.abs(z) > bars, axis=1).mean(axis=0)
    assert crossing(fractions, bars, drift) == pytest.approx(beyond, abs=4 * 0.5 / math.sqrt(40_000))


def test_a_repeated_p_value_is_alpha_on_the_bound() -> None:
    fractions = [0.3, 0.6]
    bar = bounds(fractions, 0.02)[-1]
    found = at_look((5.0, 100), (5.0 + bar * 0.1, 100), 0.1, fractions, alpha=0.02)
    assert found.p == pytest.approx(0.02, rel=1e-5)
    assert found.low == pytest.approx(0.0, abs=1e-9)
    assert at_look((5.0, 100), (5.0, 100), 0.1, fractions).p == 1.0


def test_sequential_means_peeked_at_every_unit_stay_below_alpha() -> None:
    # 2,000 experiments without a difference, exponential values, a look after every pair from 50 an arm to 1,500.
    rng = np.random.default_rng(17)
    runs, n, alpha = 2000, 1500, 0.05
    false = fixed = 0
    for _ in range(runs):
        a, b = rng.exponential(1.0, (2, n))
        sizes = np.arange(1, n + 1)
        mean_a, mean_b = np.cumsum(a) / sizes, np.cumsum(b) / sizes
        spread = np.cumsum(a * a) / sizes - mean_a**2 + np.cumsum(b * b) / sizes - mean_b**2
        z = (mean_b - mean_a)[49:] / np.sqrt(spread[49:] / (sizes[49:] - 1))
        rho2 = (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / 1000
        information = 2 * sizes[49:] * rho2
        log_e = 0.5 * z * z * information / (information + 1) - 0.5 * np.log1p(information)
        false += bool(log_e.max() >= -math.log(alpha))
        fixed += bool(np.abs(z).max() >= 1.96)
        where = int(np.argmax(log_e)) + 50
        found = any_look(
            (a[:where].mean(), where), (b[:where].mean(), where),
            math.sqrt(a[:where].var(ddof=1) / where + b[:where].var(ddof=1) / where), tuned_for=1000, alpha=alpha,
        )  # fmt: skip
        assert found.p == pytest.approx(min(1.0, math.exp(-log_e.max())), rel=1e-6)
    assert false / runs <= alpha
    assert fixed / runs > 0.25, "peeking at the fixed test is what this one mends"


def test_rates_peeked_at_every_event_stay_below_alpha_exactly() -> None:
    # The evidence depends on the order of arms among events alone, so the base rate may do what it wants.
    rng = np.random.default_rng(23)
    for weight in (0.5, 0.05):
        false = 0
        for _ in range(3000):
            b = np.cumsum(rng.random(400) < weight)
            n = np.arange(1, 401)
            best = max(log_evidence_of_split(int(n[i] - b[i]), int(b[i]), weight) for i in range(0, 400, 8))
            false += best >= math.log(1 / 0.05)
        assert false / 3000 <= 0.05, weight


def test_evidence_of_a_split_is_a_martingale() -> None:
    # Over the next event, at the weight, the likelihood ratio is what it was: exact, not by simulation.
    for a, b, weight in ((0, 0, 0.5), (13, 4, 0.5), (100, 9, 0.05)):
        now = math.exp(log_evidence_of_split(a, b, weight))
        then = weight * math.exp(log_evidence_of_split(a, b + 1, weight))
        then += (1 - weight) * math.exp(log_evidence_of_split(a + 1, b, weight))
        assert then == pytest.approx(now, rel=1e-12)


def test_the_ratio_of_rates_is_covered_at_all_looks_together() -> None:
    rng = np.random.default_rng(29)
    missed = 0
    for _ in range(300):
        from_b = rng.random(300) < 2 / 3  # equal weights, twice the rate: two of three events are b's
        for look in range(20, 301, 20):
            b = int(from_b[:look].sum())
            found = rates((look - b, 1000), (b, 1000), 0.5)
            if not found.low <= found.a <= found.high:  # twice the rate is as much again
                missed += 1
                break
    assert missed / 300 <= 0.05


def test_rates_looked_at_all_the_time_stay_below_alpha_wherever_the_rate_is() -> None:
    # Equal arms at 0.05, 0.5 and 0.95: a winner at any of 20 looks is a false one.
    rng = np.random.default_rng(31)
    for rate in (0.05, 0.5, 0.95):
        false = 0
        for _ in range(400):
            in_b, event = rng.random(2000) < 0.5, rng.random(2000) < rate
            for look in range(100, 2001, 100):
                b, x = in_b[:look], event[:look]
                counts = (int((x & ~b).sum()), int((~b).sum())), (int((x & b).sum()), int(b.sum()))
                if rates(*counts, 0.5).winner != "undecided":
                    false += 1
                    break
        assert false / 400 <= 0.05, rate


@pytest.mark.parametrize(("one", "other"), [((20, 400), (60, 400)), ((380, 400), (340, 400))])
def test_what_happens_and_what_does_not_tell_the_same(one, other) -> None:
    found = rates(one, other, 0.5)
    mirrored = rates((400 - one[0], 400), (400 - other[0], 400), 0.5)
    assert found.p == pytest.approx(mirrored.p)


def test_the_better_rate_wins_and_a_missing_one_says_nothing() -> None:
    assert rates((20, 400), (60, 400), 0.5).winner == "a"
    assert rates((20, 400), (60, 400), 0.5, better="higher").winner == "b"
    nothing = rates((0, 0), (0, 0), 0.5)
    assert (nothing.winner, nothing.p) == ("undecided", 1.0)


def test_any_look_costs_less_than_twice_the_units_of_a_single_one() -> None:
    # An effect that a single look at 1,000 finds with 0.9: at 2,000, any number of looks have found it.
    error = math.sqrt(2 / 1000)
    effect = (1.96 + 1.2816) * error
    found = any_look((0.0, 1000), (effect, 1000), error, tuned_for=2000)
    assert found.winner == "b"
    single = welch(Moments(1000, 0.0, 999.0), Moments(1000, effect, 999.0))
    assert single.p < found.p


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: any_look((1.0, 99), (1.0, 99), 0.0, tuned_for=9), "error above 0"),
        (lambda: rates((3, 2), (0, 2), 0.5), "at most one a unit"),
        (lambda: rates((0, 2), (0, 2), 1.0), "weight: 1.0"),
        (lambda: bounds([]), "above 0 and up to 1"),
        (lambda: bounds([0.5, 1.1]), "above 0 and up to 1"),
        (lambda: bounds([0.5, 0.5]), "must rise"),
        (lambda: spent(0.5, 0.05, "haybittle"), "give obrien-fleming, pocock or power"),
        (lambda: at_look((1.0, 9), (1.0, 9), 0.0, [1.0]), "above 0"),
    ],
)
def test_bad_input_is_refused_with_the_remedy(call, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()


def test_a_small_sample_says_nothing_by_means() -> None:
    found = any_look((0.0, 49), (9.0, 2000), 0.1, tuned_for=1000)
    assert (found.winner, found.p, found.high) == ("undecided", 1.0, math.inf)
