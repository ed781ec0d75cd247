"""Verdicts: three answers, each wrong no more often than promised."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowsim.stats import Verdict, judge, judge_proportion, overall, t_interval, wilson

RANK = {"not met": 0, "undecided": 1, "met": 2}
samples = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=8)
bounds = st.floats(-1e3, 1e3)


def standard_errors(p: float, trials: int, k: float = 4.0) -> float:
    return k * math.sqrt(p * (1 - p) / trials)


def test_the_three_answers_follow_the_interval() -> None:
    values = [1.8, 1.9, 2.0]
    interval = t_interval(values)
    for verdict, bound in [("met", interval.high), ("undecided", 1.9), ("not met", interval.low - 1e-9)]:
        judged = judge(values, high=bound)
        assert judged[:4] == (interval.mean, interval.low, interval.high, verdict)
    for verdict, bound in [("met", interval.low), ("undecided", 1.9), ("not met", interval.high + 1e-9)]:
        assert judge(values, low=bound).verdict == verdict


def test_a_band_is_met_within_and_missed_beyond_either_end() -> None:
    values = [1.8, 1.9, 2.0]
    assert judge(values, low=1.0, high=3.0).verdict == "met"
    assert judge(values, low=1.9, high=3.0).verdict == "undecided"
    assert judge(values, low=3.0, high=4.0).verdict == "not met"
    assert judge(values, low=0.0, high=1.0).verdict == "not met"


def test_every_verdict_says_why() -> None:
    assert judge([1.0, 1.0], high=2.0).why == "the 95 % interval 1 is at most 2"
    assert judge([3.0, 3.0], high=2.0, confidence=0.999).why == "the 99.9 % interval 3 lies above 2"
    assert judge([1.0, 1.0], low=0.0, high=2.0).why == "the 95 % interval 1 is at least 0 and at most 2"
    assert judge([1.0, 1.0], low=2.0).why == "the 95 % interval 1 lies below 2"
    assert judge([1.0, 2.0], low=1.4).why == "the 95 % interval [-4.8531, 7.8531] contains the bound 1.4"
    assert judge([2.0], high=2.0).why == "one replication has no interval; run at least 2"
    assert judge([2.0], high=2.0, deterministic=True).why == "the exact value 2 is at most 2"
    assert judge([1.0, math.nan], high=2.0).why == "1 of 2 replications have no value"


def test_a_metric_that_does_not_exist_is_undecided_even_without_randomness() -> None:
    for values in ([math.nan], [1.0, math.nan, 1.0]):
        verdict = judge(values, high=2.0, deterministic=True)
        assert verdict.verdict == "undecided"
        assert math.isnan(verdict.value)


def test_one_replication_decides_only_without_randomness() -> None:
    assert judge([1.0], high=2.0)[:4] == (1.0, -math.inf, math.inf, "undecided")
    assert judge([1.0], high=2.0, deterministic=True)[:4] == (1.0, 1.0, 1.0, "met")
    assert judge([3.0, 3.0], high=2.0, deterministic=True).verdict == "not met"
    with pytest.raises(ValueError, match="replications differ"):
        judge([1.0, 1.1], high=2.0, deterministic=True)


@given(samples, bounds, bounds)
def test_a_laxer_bound_never_gives_a_worse_answer(values: list[float], one: float, other: float) -> None:
    strict, lax = sorted((one, other))
    assert RANK[judge(values, high=strict).verdict] <= RANK[judge(values, high=lax).verdict]
    assert RANK[judge(values, low=lax).verdict] <= RANK[judge(values, low=strict).verdict]


@given(samples, bounds)
def test_mirror_images_are_judged_alike(values: list[float], bound: float) -> None:
    assert judge(values, high=bound).verdict == judge([-v for v in values], low=-bound).verdict


def test_false_answers_at_the_bound_are_as_rare_as_promised() -> None:
    draws = np.random.default_rng(20260101).normal(2.0, 0.5, (6000, 5))
    answers = [judge(draw, high=2.0).verdict for draw in draws]
    for wrong in ("met", "not met"):
        assert answers.count(wrong) / 6000 == pytest.approx(0.025, abs=standard_errors(0.025, 6000))


def test_a_clear_case_is_decided() -> None:
    draws = np.random.default_rng(1).normal(1.5, 0.1, (500, 5))
    assert sum(judge(draw, high=2.0).verdict == "met" for draw in draws) > 490


@pytest.mark.parametrize("share", [0.999, 0.9987])
def test_a_share_of_rare_failures_needs_more_than_the_t_interval(share: float) -> None:
    trials, runs, repeats = 1000, 5, 4000
    counts = np.random.default_rng(20260101).binomial(trials, share, (repeats, runs)).tolist()
    spanned = [judge_proportion(row, [trials] * runs, low=share).verdict for row in counts]
    alone = [judge([good / trials for good in row], low=share).verdict for row in counts]
    assert alone.count("met") / repeats > 0.035  # the negative control breaks its promise of 0.025
    for wrong in ("met", "not met"):
        assert spanned.count(wrong) / repeats <= 0.025


def test_failures_that_come_together_widen_the_interval() -> None:
    spread = judge_proportion([980] * 5, [1000] * 5, low=0.97)
    bunched = judge_proportion([1000, 1000, 1000, 1000, 900], [1000] * 5, low=0.97)
    assert spread.value == bunched.value == 0.98
    assert (spread.verdict, bunched.verdict) == ("met", "undecided")
    assert bunched.low == pytest.approx(t_interval([1.0, 1.0, 1.0, 1.0, 0.9]).low)
    assert bunched.high == 1.0


def test_no_failure_seen_is_no_proof() -> None:
    verdict = judge_proportion([100] * 5, [100] * 5, low=0.999)
    assert verdict[:4] == (1.0, wilson(500, 500).low, 1.0, "undecided")
    assert judge_proportion([0] * 5, [100] * 5, low=0.5).verdict == "not met"
    assert judge_proportion([100] * 5, [100] * 5, low=0.999, deterministic=True).verdict == "met"
    assert judge_proportion([100], [100], low=0.5).verdict == "undecided"


def test_a_share_without_trials_is_undecided_and_bad_counts_are_named() -> None:
    assert judge_proportion([0, 5], [0, 5], low=0.5).why == "1 of 2 replications have no trials"
    with pytest.raises(ValueError, match="replication 1 has 6 successes in 5 trials"):
        judge_proportion([5, 6], [5, 5], low=0.5)
    with pytest.raises(ValueError, match="2 counts of successes, 1 of trials"):
        judge_proportion([5, 5], [5], low=0.5)
    with pytest.raises(ValueError, match="at least one"):
        judge_proportion([], [], low=0.5)
    with pytest.raises(ValueError, match="replications differ"):
        judge_proportion([5, 4], [5, 5], low=0.5, deterministic=True)


def test_the_exit_code_is_the_worst_answer() -> None:
    met, missed, open_ = (Verdict(0.0, 0.0, 0.0, answer, "") for answer in ("met", "not met", "undecided"))
    assert overall([]) == overall([met, met]) == 0
    assert overall([open_, missed, met]) == 1
    assert overall(iter([met, open_])) == 3


@pytest.mark.parametrize("bad", [{}, {"low": 2.0, "high": 1.0}, {"high": math.nan}])
def test_bounds_must_make_sense(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="bounds low="):
        judge([1.0, 2.0], **bad)
    with pytest.raises(ValueError, match="bounds low="):
        judge_proportion([1, 2], [2, 2], **bad)


def test_infinite_values_and_empty_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="replication 1 has the value inf"):
        judge([1.0, math.inf], high=2.0)
    with pytest.raises(ValueError, match="at least one"):
        judge([], high=2.0)
