"""What the three policies do to a healthy and to a worse version: the rows that were measured before, and theory.

The base is 5 % errors and the canary has 5 % of the requests, where a policy does not set its own shares. Figures are
of a few hundred or thousand campaigns with fixed seeds; bounds are four standard errors wide.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from scipy.stats import binom, poisson

from glowsim.oc.campaigns import Campaigns, simulate
from glowsim.oc.foreign.argo import Metric, Pause, Plan, SetWeight
from glowsim.oc.foreign.argo_course import ArgoRule
from glowsim.oc.foreign.conditions import Condition
from glowsim.oc.foreign.flagger import Analysis, Check
from glowsim.oc.foreign.flagger_course import FlaggerRule
from glowsim.oc.foreign.kayenta import Judge, Schedule
from glowsim.oc.foreign.kayenta import Metric as Judged
from glowsim.oc.foreign.kayenta_course import KayentaRule
from glowsim.oc.foreign.readings import Reading
from glowsim.oc.rules import Status
from glowsim.oc.traffic import Traffic

ERRORS = Reading("errors")
MOST = 0.07


def rolled_back(campaigns: Campaigns) -> float:
    return float(campaigns.ended(Status.ROLLED_BACK).mean())


def argo(condition: str) -> ArgoRule:
    """Errors above 7 % in a minute, four of them in 24 hours at 5 %."""
    metric = Metric(
        name="e",
        reading=ERRORS,
        window_s=60.0,
        interval_s=60.0,
        failure_limit=3,
        success=Condition(condition),
    )
    return ArgoRule(
        name="argo", plan=Plan(steps=(SetWeight(0.05), Pause(86_400.0)), runs=((metric,),), background=0)
    )


@pytest.mark.parametrize("rate", [0.2, 2.0, 20.0])
@pytest.mark.parametrize(
    "condition", ["result[0] <= 0.07", "len(result) == 0 || isNaN(result[0]) || result[0] <= 0.07"]
)
def test_argos_failures_add_up_until_a_healthy_version_is_rolled_back(rate: float, condition: str) -> None:
    healthy, worse = simulate(argo(condition), Traffic(rate), [0.0, 0.05], 300)
    assert rolled_back(healthy) == rolled_back(worse) == 1.0
    assert np.median(healthy.end_s) < 0.1 * 86_400.0


def test_argo_aborts_a_quiet_canary_because_nothing_was_asked_yet() -> None:
    """Without a guard, ``result[0]`` errs until the first request; five errors are 40 s at 0.01 requests a second."""
    (healthy,) = simulate(argo("result[0] <= 0.07"), Traffic(0.2), [0.0], 3000)
    at_once = float((healthy.end_s == 40.0).mean())
    assert at_once == pytest.approx(math.exp(-0.01 * 40.0), abs=4 * math.sqrt(0.67 * 0.33 / 3000))


def flagger(step: int, threshold: int = 10) -> FlaggerRule:
    check = Check(name="e", reading=ERRORS, most=MOST)
    return FlaggerRule(
        name="flagger",
        analysis=Analysis(threshold=threshold, max_weight=50, step_weight=step, checks=(check,)),
    )


@cache
def fails(requests: float, share: float) -> float:
    """The chance that one check fails: no request, or more than 7 % errors."""
    n = np.arange(1, int(requests + 12 * math.sqrt(requests) + 12))
    beyond = binom.sf(np.floor(MOST * n + 1e-9), n, share)
    return float(poisson.pmf(0, requests) + (poisson.pmf(n, requests) * beyond).sum())


def exact_rollback(rule: FlaggerRule, rate: float, share: float) -> float:
    """The chance of ``threshold`` failed checks before one has passed at every share, as a sum of geometric laws."""
    threshold = rule.analysis.threshold
    failed = np.zeros(threshold)
    failed[0] = 1.0
    for weight in rule.analysis.shares:
        q = fails(rate * 60.0 * weight, share)
        here = (1.0 - q) * q ** np.arange(threshold)
        failed = np.convolve(failed, here)[:threshold]
    return 1.0 - float(failed.sum())


@pytest.mark.parametrize("rate", [0.2, 2.0, 20.0])
@pytest.mark.parametrize("step", [2, 5, 10])
@pytest.mark.parametrize("effect", [0.0, 0.02, 0.05])
def test_flaggers_rollbacks_are_those_of_theory(rate: float, step: int, effect: float) -> None:
    (found,) = simulate(flagger(step), Traffic(rate), [effect], 4000, seed=step)
    exact = exact_rollback(flagger(step), rate, 0.05 + effect)
    assert rolled_back(found) == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4000) + 1e-3)


def test_flaggers_short_schedule_rarely_rolls_back_a_healthy_version_and_misses_bad_ones() -> None:
    """The row measured before: below 1 % false, 98.6 % of +5 points missed at 0.2/s, 38 % at 2/s, none at 20/s."""
    rule = flagger(10)
    assert max(exact_rollback(rule, rate, 0.05) for rate in (0.2, 2.0, 20.0)) < 0.01
    missed = [1.0 - exact_rollback(rule, rate, 0.10) for rate in (0.2, 2.0, 20.0)]
    assert missed == pytest.approx([0.987, 0.391, 0.0], abs=1e-3)


@pytest.mark.parametrize("rate", [0.2, 2.0, 20.0])
def test_flaggers_failed_checks_add_up_as_well_when_the_share_is_held(rate: float) -> None:
    check = Check(name="e", reading=ERRORS, most=MOST)
    held = Analysis(threshold=10, iterations=1440, test_weight=0.05, checks=(check,))
    (healthy,) = simulate(FlaggerRule(name="held", analysis=held), Traffic(rate), [0.0], 300)
    assert rolled_back(healthy) == 1.0


def kayenta(*, equal_baseline: bool) -> KayentaRule:
    """Judged every hour for four hours, 5 % of the requests."""
    metric = Judged(name="e", reading=ERRORS, groups=("g",), direction="increase")
    judge = Judge(metrics=(metric,), group_weights={}, pass_at=95.0, marginal=75.0)
    schedule = Schedule(lifetime_min=240, interval_min=60)
    return KayentaRule(
        name="kayenta", judge=judge, schedule=schedule, weight=0.05, equal_baseline=equal_baseline
    )


@pytest.mark.parametrize("equal_baseline", [False, True])
def test_kayenta_finds_nothing_at_six_requests_a_minute_and_much_at_sixty(equal_baseline: bool) -> None:
    """The row measured before: no false rollback; power 0 for +5 points at 2/s, 1 at 20/s."""
    rule = kayenta(equal_baseline=equal_baseline)
    healthy, worse = simulate(rule, Traffic(2.0), [0.0, 0.05], 150)
    assert rolled_back(healthy) == 0.0
    assert rolled_back(worse) <= 0.03
    healthy, two, five = simulate(rule, Traffic(20.0), [0.0, 0.02, 0.05], 60)
    assert rolled_back(healthy) <= 0.05
    assert rolled_back(two) >= 0.95
    assert rolled_back(five) == 1.0


def test_kayenta_finds_one_point_at_sixty_requests_a_minute_less_often_than_was_measured_before() -> None:
    """Three times in four (with as large a baseline 62 %), not always.

    A minute's share of errors is skewed, so the shift that the judge estimates for +1.0 point is 0.76 points, of which
    the interval has to lie above a quarter. The earlier figure of 1.00 was of an approximation of its interval.
    """
    (one,) = simulate(kayenta(equal_baseline=False), Traffic(20.0), [0.01], 80)
    assert 0.5 < rolled_back(one) < 0.95
