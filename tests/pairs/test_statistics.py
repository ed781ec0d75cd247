"""The statistics of pairs against published values, independent implementations and enumeration."""

from __future__ import annotations

import importlib.util
import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, norm

from glowsim.pairs.intervals import shift, tango
from glowsim.pairs.mcnemar import exact_p, mid_p
from glowsim.pairs.planning import (
    Discordance,
    connor_pairs,
    decided,
    discordance,
    largest_correlation,
    mcnemar_power,
    non_inferior_pairs,
    pairs_needed,
    sequential,
)
from glowsim.pairs.sequential import STAKES, PairedEvidence, fewest_to_pass, interval_at_any_time
from glowsim.pairs.verdict import Pair, Rules, Watcher, by_task, judge_once

RULES = Rules(alpha=0.01, margin=0.03, promote_alpha=0.025)
COUNTS = st.integers(0, 60)


# --- McNemar -----------------------------------------------------------------------------------------------


def test_published_p_values() -> None:
    # Fagerland, Lydersen, Laake (2013), table 1 (Bentur et al. 2009): 7 against 1 of 21 children.
    assert exact_p(7, 1, "either") == pytest.approx(0.0703, abs=5e-5)
    assert mid_p(7, 1, "either") == pytest.approx(0.0391, abs=5e-5)
    # statsmodels' own example: 121 against 59.
    assert exact_p(121, 59, "either") == pytest.approx(4.434e-06, rel=1e-3)


def test_the_exact_test_agrees_with_statsmodels() -> None:
    if importlib.util.find_spec("statsmodels") is None:
        message = "statsmodels is missing: install glowsim[test]"
        if os.environ.get("GLOWSIM_CI") == "1":
            pytest.fail(message)
        pytest.skip(message)
    from statsmodels.stats.contingency_tables import mcnemar

    for lost in range(0, 60, 7):
        for won in range(1, 60, 8):
            theirs = mcnemar([[50, lost], [won, 9]], exact=True).pvalue
            assert exact_p(lost, won, "either") == pytest.approx(min(theirs, 1.0), abs=1e-12)


@given(COUNTS, COUNTS)
def test_one_side_mirrors_the_other_and_mid_p_lies_below_exact(lost: int, won: int) -> None:
    assert exact_p(lost, won) == pytest.approx(exact_p(won, lost, "better"), abs=1e-14)
    assert mid_p(lost, won) + mid_p(lost, won, "better") == pytest.approx(1.0, abs=1e-12)
    for side in ("worse", "better", "either"):
        assert mid_p(lost, won, side) <= exact_p(lost, won, side) <= 1.0


@pytest.mark.parametrize("pairs", [5, 17, 40])
def test_the_level_of_the_exact_test_is_kept_for_every_number_of_pairs(pairs: int) -> None:
    lost = np.arange(pairs + 1)
    rejects = np.array([exact_p(int(k), pairs - int(k)) <= 0.05 for k in lost])
    assert binom.pmf(lost, pairs, 0.5) @ rejects <= 0.05


def test_counts_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        exact_p(-1, 3)


# --- Tango's interval --------------------------------------------------------------------------------------


def test_published_intervals() -> None:
    # Bentur et al. (2009), difference 0.286: Fagerland, Lydersen, Laake (2014), Statistics in Medicine 33.
    found = tango(7, 1, 21)
    assert (found.low, found.high) == (pytest.approx(0.026, abs=5e-4), pytest.approx(0.517, abs=5e-4))


@given(COUNTS, COUNTS, st.integers(0, 200))
def test_tango_solves_the_score_equation_of_a_likelihood_that_is_maximised_by_search(
    lost: int, won: int, tied: int
) -> None:
    pairs = lost + won + tied
    if not pairs or lost == pairs or won == pairs:
        return
    found = tango(lost, won, pairs)
    assert -1.0 <= found.low <= found.mean <= found.high <= 1.0
    for delta in (found.low, found.high):
        if abs(delta - found.mean) < 1e-9:
            continue

        def unlikely(p_won: float, delta: float = delta) -> float:
            chances = (p_won + delta, p_won, 1.0 - 2.0 * p_won - delta)
            pairs_of = zip((lost, won, tied), chances, strict=True)
            return -math.fsum(n * math.log(max(p, 1e-300)) for n, p in pairs_of if n)

        least, most = max(0.0, -delta), (1.0 - delta) / 2.0
        p_won = minimize_scalar(unlikely, bounds=(least, most), method="bounded", options={"xatol": 1e-12}).x
        error = math.sqrt(pairs * max(2.0 * p_won + delta - delta**2, 1e-300))
        assert abs(lost - won - pairs * delta) / error == pytest.approx(norm.ppf(0.975), rel=2e-2)


@pytest.mark.parametrize(("lost", "won", "pairs"), [(5, 0, 5), (0, 5, 5), (0, 0, 1), (0, 0, 400)])
def test_tango_at_the_edges_contains_what_was_observed(lost: int, won: int, pairs: int) -> None:
    found = tango(lost, won, pairs)
    assert -1.0 <= found.low <= found.mean <= found.high <= 1.0
    assert found.low < found.high


def test_the_interval_misses_its_upper_end_no_more_often_than_it_says() -> None:
    pairs, differ = 150, Discordance(0.06, 0.03)
    missed = 0.0
    for lost in range(40):
        for won in range(30):
            chance = binom.pmf(lost, pairs, differ.lost)
            chance *= binom.pmf(won, pairs - lost, differ.won / (1 - differ.lost))
            missed += chance * (tango(lost, won, pairs, 0.95).high < differ.effect)
    assert missed <= 0.032  # asymptotic: 2.5 % within a little


# --- quantities ---------------------------------------------------------------------------------------------


def test_a_shift_is_the_mean_difference_and_its_t_interval() -> None:
    baseline = np.array([1.0, 2.0, 4.0, 8.0, 9.0])
    found = shift(baseline.tolist(), (baseline + np.array([0.1, 0.3, 0.2, 0.4, 0.5])).tolist())
    assert found.mean.mean == pytest.approx(0.3)
    assert found.mean.half_width == pytest.approx(2.7764 * math.sqrt(0.025 / 5), rel=1e-4)
    assert found.p_value == pytest.approx(2 / 32)  # all five the same way: the smallest there is
    assert shift([1.0, 2.0], [1.0, 2.0]).p_value == 1.0
    with pytest.raises(ValueError, match="pair them"):
        shift([1.0], [1.0, 2.0])


# --- evidence that may be looked at after every pair --------------------------------------------------------


def ever_reached(alpha: float, chance_of_loss: float, most: int) -> float:
    """Return, by enumeration, the chance that the evidence reaches 1/alpha within so many discordant pairs."""
    gains = PairedEvidence("not worse").gains(np.array([1.0, -1.0]))
    alive = {0: 1.0}  # losses -> chance of being there without having stopped
    stopped = 0.0
    for pairs in range(1, most + 1):
        here: dict[int, float] = {}
        for lost, chance in alive.items():
            here[lost + 1] = here.get(lost + 1, 0.0) + chance * chance_of_loss
            here[lost] = here.get(lost, 0.0) + chance * (1.0 - chance_of_loss)
        alive = {}
        for lost, chance in here.items():
            logs = lost * gains[0] + (pairs - lost) * gains[1]
            if np.logaddexp.reduce(logs) - math.log(len(STAKES)) >= -math.log(alpha):
                stopped += chance
            else:
                alive[lost] = chance
    return stopped


@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_peeking_at_every_pair_alarms_falsely_at_most_alpha_by_enumeration(alpha: float) -> None:
    assert 0.3 * alpha < ever_reached(alpha, 0.5, 300) <= alpha
    assert ever_reached(alpha, 0.45, 300) < ever_reached(alpha, 0.5, 300)
    assert ever_reached(alpha, 0.8, 100) > 0.95


def test_the_evidence_of_a_loss_and_a_win_is_the_mixture_of_binomials() -> None:
    evidence = PairedEvidence("not worse")
    for difference in (1.0, 1.0, 0.0, -1.0, 0.0):
        evidence.tell(difference)
    chances = (1.0 + STAKES) / 2.0
    assert evidence.e == pytest.approx(np.mean(chances**2 * (1.0 - chances)) / 0.5**3)


@given(
    st.sampled_from(["not worse", "worse"]),
    st.floats(-0.5, 0.5),
    st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=6),
)
def test_at_the_boundary_the_evidence_is_expected_to_stay_as_it_is(
    against: str, margin: float, values: list[float]
) -> None:
    evidence = PairedEvidence(against, margin)
    for value in values[2:]:
        evidence.tell(value)
    now = evidence.e
    share = (margin + 1.0) / 2.0  # of +1, the rest being -1: an average of the margin
    gains = evidence.gains(np.array([1.0, -1.0]))
    after = share * math.exp(evidence.after(gains[0])) + (1.0 - share) * math.exp(evidence.after(gains[1]))
    assert after == pytest.approx(now, rel=1e-9)


def test_evidence_that_no_float_holds_is_infinite_and_its_logarithm_is_not() -> None:
    evidence = PairedEvidence("not worse")
    for _ in range(1500):
        evidence.tell(1.0)
    assert evidence.e == math.inf
    assert 900.0 < evidence.log_e < 1500.0


def test_what_is_out_of_bounds_is_refused_and_nothing_is_taken_in() -> None:
    evidence = PairedEvidence("not worse")
    for wrong in (1.5, math.nan):
        with pytest.raises(ValueError, match="from -1 to 1"):
            evidence.tell(wrong)
    assert evidence.e == pytest.approx(1.0)
    with pytest.raises(ValueError, match="margin"):
        PairedEvidence("worse", 1.0)


# --- planning ------------------------------------------------------------------------------------------------


def test_published_sample_sizes() -> None:
    # powerandsamplesize.com, McNemar's z test, after Connor (1987): one-sided, and two-sided as half of alpha
    assert connor_pairs(Discordance(0.45, 0.05), alpha=0.05, power=0.9) == 23
    assert connor_pairs(Discordance(0.45, 0.05), alpha=0.025, power=0.8) == 23


@pytest.mark.parametrize(
    ("base_error", "effect", "correlation", "alpha", "power"),
    [(0.05, 0.05, 0.5, 0.01, 0.8), (0.05, 0.03, 0.5, 0.05, 0.9), (0.3, 0.1, 0.2, 0.01, 0.95),
     (0.2, 0.4, 0.0, 0.05, 0.8)],
)  # fmt: skip
def test_exact_numbers_lie_near_connors_and_hold_from_there_on(
    base_error: float, effect: float, correlation: float, alpha: float, power: float
) -> None:
    needed = pairs_needed(base_error, effect, correlation, alpha, power)
    differ = discordance(base_error, effect, correlation)
    assert needed == pytest.approx(connor_pairs(differ, alpha, power), rel=0.1, abs=6)
    assert all(mcnemar_power(pairs, differ, alpha) >= power for pairs in range(needed, needed + 60))
    assert mcnemar_power(needed - 1, differ, alpha) < power


def test_the_power_is_that_of_simulated_replays() -> None:
    differ, alpha, pairs = discordance(0.05, 0.05, 0.5), 0.01, 303
    generator = np.random.default_rng(7)
    campaigns = generator.multinomial(pairs, [differ.lost, differ.won, 1 - differ.total], size=20_000)
    found = np.mean([exact_p(int(lost), int(won)) <= alpha for lost, won, _ in campaigns])
    assert found == pytest.approx(mcnemar_power(pairs, differ, alpha), abs=0.012)  # four standard errors


def test_a_non_inferior_variant_passes_as_often_as_planned_and_one_at_the_margin_as_rarely() -> None:
    needed = non_inferior_pairs(0.05, 0.03, 0.5, alpha=0.025, power=0.9)
    generator = np.random.default_rng(3)
    passes = []
    for effect in (0.0, 0.03):
        differ = discordance(0.05, effect, 0.5)
        drawn = generator.multinomial(needed, [differ.lost, differ.won, 1 - differ.total], size=4000)
        passes.append(np.mean([tango(int(a), int(b), needed).high < 0.03 for a, b, _ in drawn]))
    assert passes[0] == pytest.approx(0.9, abs=0.03)
    assert passes[1] < 0.035


@given(st.floats(0.01, 0.9), st.floats(0.001, 0.09), st.floats(0.0, 1.0))
def test_discordance_gives_back_rates_and_correlation(base_error: float, effect: float, share: float) -> None:
    correlation = share * largest_correlation(base_error, effect)
    lost, won = discordance(base_error, effect, correlation)
    changed = base_error + effect
    both = base_error - won
    spread = math.sqrt(base_error * (1 - base_error) * changed * (1 - changed))
    assert lost - won == pytest.approx(effect, abs=1e-9)
    assert (both - base_error * changed) / spread == pytest.approx(correlation, abs=1e-6)
    assert min(lost, won) >= 0.0


def test_what_cannot_be_is_refused_with_what_can() -> None:
    with pytest.raises(ValueError, match=r"give 0 to 0\.397"):
        pairs_needed(0.05, 0.2, correlation=0.5)
    with pytest.raises(ValueError, match="above 0 and below 1"):
        pairs_needed(0.05, 0.96)
    with pytest.raises(ValueError, match="effect must be above 0"):
        pairs_needed(0.05, 0.0)
    with pytest.raises(ValueError, match="larger effect"):
        pairs_needed(0.05, 1e-5, correlation=0.5)
    with pytest.raises(ValueError, match="power between"):
        pairs_needed(0.05, 0.05, power=1.0)


def test_a_sequential_replay_rarely_blames_an_equal_variant_and_stops_early_on_a_bad_one() -> None:
    equal = sequential(600, discordance(0.05, 0.0, 0.5), RULES)
    assert equal.worse <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / 2000)
    bad = sequential(600, discordance(0.05, 0.10, 0.5), RULES)
    assert bad.worse > 0.99
    assert bad.ended.mean() < 200
    assert bad.tasks_for(1, 0.5) == np.median(bad.ended)
    assert bad.tasks_for(2, 0.5) is None
    at_margin = sequential(600, discordance(0.05, 0.03, 0.5), RULES)
    assert at_margin.not_worse <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / 2000)
    assert at_margin.undecided > 0.5


# --- intervals and verdicts ----------------------------------------------------------------------------------


def test_the_interval_at_any_time_is_missed_by_few_replays_that_stop_when_they_like() -> None:
    # The worst moment of each replay: the first at which the true difference lies outside.
    generator = np.random.default_rng(11)
    effect, moments = 0.1, range(20, 201, 20)
    missed = 0
    for _ in range(150):
        drawn = generator.choice([1.0, -1.0, 0.0], size=200, p=[0.2, 0.1, 0.7])
        intervals = [interval_at_any_time(drawn[:n].tolist()) for n in moments]
        missed += any(not found.low <= effect <= found.high for found in intervals)
    assert missed / 150 <= 0.05


@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=1, max_size=60))
def test_the_interval_at_any_time_holds_the_mean_and_excludes_0_where_the_evidence_does(
    drawn: list[float],
) -> None:
    found = interval_at_any_time(drawn, confidence=0.9)
    assert -1.0 <= found.low <= found.mean <= found.high <= 1.0
    worse = PairedEvidence("not worse")
    for difference in drawn:
        worse.tell(difference)
    assert (found.low > 0.0) == (worse.e > 20.0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), min_size=1, max_size=20))
def test_repeats_are_averaged_and_none_is_lost(rows: list[tuple[str, bool, bool]]) -> None:
    pairs = list(by_task((task, float(b), float(v)) for task, b, v in rows))
    assert [pair.task for pair in pairs] == list(dict.fromkeys(task for task, _, _ in rows))
    for pair in pairs:
        own = [b for task, b, _ in rows if task == pair.task]
        assert pair.baseline == pytest.approx(sum(own) / len(own))


def test_scores_between_0_and_1_are_weighed_too() -> None:
    generator = np.random.default_rng(2)
    pairs = [Pair(str(n), 0.8, float(x)) for n, x in enumerate(generator.uniform(0.3, 0.9, 200))]
    watcher = Watcher(Rules(), len(pairs))
    assert any(watcher.tell(pair) for pair in pairs)
    assert watcher.verdict == "worse"
    assert judge_once(pairs, Rules()).verdict == "worse"


def test_one_replay_and_many_at_once_decide_alike() -> None:
    generator = np.random.default_rng(9)
    drawn = generator.choice(3, size=(30, 250), p=[0.03, 0.85, 0.12]).astype(np.int8) - 1
    many = decided(drawn.T, RULES)
    for outcomes, verdict, ended in zip(drawn, many.verdicts, many.ended, strict=True):
        watcher = Watcher(RULES._replace(futility=0.0), 250)
        any(watcher.tell(Pair("t", max(x, 0.0), max(-x, 0.0))) for x in outcomes.astype(float))
        assert watcher.verdict == ("undecided", "worse", "not worse")[verdict]
        assert len(watcher.pairs) == ended
    assert set(many.verdicts) == {0, 1}


def test_fewer_pairs_than_the_fewest_never_pass() -> None:
    fewest = fewest_to_pass(0.05, 0.025)
    assert fewest is not None
    evidence = PairedEvidence("worse", 0.05)
    for _ in range(fewest - 1):
        evidence.tell(0.0)
    assert evidence.e < 40.0
    evidence.tell(0.0)
    assert evidence.e >= 40.0


def test_a_few_equal_scores_prove_nothing() -> None:
    pairs = [Pair(str(n), 0.8, 0.7) for n in range(5)]
    assert judge_once(pairs, Rules(margin=0.2)).verdict == "undecided"
    assert Pair("t", 0.1 + 0.2, 0.3).difference == 0.0


def test_futility_ends_only_what_would_hardly_have_been_decided() -> None:
    generator = np.random.default_rng(4)
    agreed = 0
    for _ in range(40):
        drawn = generator.choice([1.0, -1.0, 0.0], size=300, p=[0.15, 0.02, 0.83])
        pairs = [
            Pair(str(n), 1.0, 1.0 - x) if x >= 0 else Pair(str(n), 0.0, 1.0) for n, x in enumerate(drawn)
        ]
        patient, hasty = Watcher(Rules(futility=0.0), 300), Watcher(Rules(), 300)
        patient_ends, hasty_ends = (any(each.tell(pair) for pair in pairs) for each in (patient, hasty))
        assert hasty_ends or not patient_ends
        agreed += patient.verdict == hasty.verdict == "worse"
    assert agreed >= 38
