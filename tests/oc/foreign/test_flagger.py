"""Flagger's rules: the sequences of its code, tests and documents, and the vectorised course against the scalar one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glowsim.oc.foreign.flagger import Analysis, Check, OneCanary
from glowsim.oc.foreign.flagger_course import FlaggerRule
from glowsim.oc.foreign.readings import Reading
from glowsim.oc.rules import Known, Status


def weights(analysis: Analysis, passes: str) -> tuple[list[float], Status]:
    """Tick with these checks (``+`` passes, ``-`` fails; the first tick checks nothing)."""
    one, found = OneCanary(analysis), []
    for each in passes:
        one.tick(each == "+")
        found.append(round(one.weight, 4))
        if one.status is not Status.RUNNING:
            break
    return found, one.status


@pytest.mark.parametrize(
    ("analysis", "passes", "expected", "status"),
    [
        # The first tick checks nothing; at the greatest weight one more pass promotes.
        (Analysis(step_weight=50), "-+++", [0.5, 1.0, 1.0], Status.PROMOTED),
        # TestScheduler_DeploymentAnalysisPhases: stepWeight 100 is promoted at the second tick.
        (Analysis(step_weight=100), "++", [1.0, 1.0], Status.PROMOTED),
        # A step may overshoot maxWeight.
        (Analysis(step_weight=30, max_weight=50), "++++", [0.3, 0.6, 1.0], Status.PROMOTED),
        (Analysis(step_weights=(1, 2, 10, 80)), "+++++", [0.01, 0.02, 0.1, 0.8, 1.0], Status.PROMOTED),
        (Analysis(step_weight=10, max_weight=50), "+++", [0.1, 0.2, 0.3], Status.RUNNING),
        # A failed check holds; the tick after the threshold is reached rolls back, whatever it would have found.
        (Analysis(step_weight=10, threshold=2), "+-+-+", [0.1, 0.1, 0.2, 0.2, 0.0], Status.ROLLED_BACK),
        # The threshold is 1 unless said.
        (Analysis(step_weight=10), "+-+", [0.1, 0.1, 0.0], Status.ROLLED_BACK),
        # Failed checks are never reset: passes between them do not help.
        (
            Analysis(step_weight=1, threshold=3),
            "+-++++-++++-+",
            [0.01] * 2 + [0.02, 0.03, 0.04, 0.05, 0.05, 0.06, 0.07, 0.08, 0.09, 0.09, 0.0],
            Status.ROLLED_BACK,
        ),
        # An A/B test: so many checks at the share of the matching requests, then promoted.
        (Analysis(iterations=2, test_weight=0.2), "+++", [0.2, 0.2, 1.0], Status.PROMOTED),
        (Analysis(iterations=2, test_weight=0.2, threshold=1), "+-+", [0.2, 0.2, 0.0], Status.ROLLED_BACK),
    ],
)
def test_a_canary_goes_as_in_flaggers_code(analysis, passes, expected, status) -> None:
    assert weights(analysis, passes) == (expected, status)


@pytest.mark.parametrize("step", [2, 5, 10])
def test_the_documents_formulas_for_the_duration_hold(step: int) -> None:
    # docs/gitbook/usage/deployment-strategies.md: interval * (maxWeight / stepWeight); interval * threshold
    analysis = Analysis(interval_s=60.0, threshold=10, max_weight=50, step_weight=step)
    assert FlaggerRule(name="x", analysis=analysis).schedule_s == 60.0 * (50 / step)
    found, status = weights(analysis, "+" + "-" * 99)
    assert status is Status.ROLLED_BACK
    assert len(found) - 2 == 10, "ten failed checks, then a tick that rolls back"


def test_no_request_is_a_failed_check_and_a_latency_percentile_is_a_share_of_slow_requests() -> None:
    success = Check(
        name="request-success-rate", reading=Reading("errors", good=True, percent=True), least=99.0
    )
    slow = Check(name="request-duration", reading=Reading("latency", percentile=99.0), most=500.0)
    requests, bad = np.array([0, 100, 100, 1000]), np.array([0, 1, 2, 11])
    assert success.passes(requests, bad).tolist() == [False, True, False, False]
    assert slow.passes(requests, bad).tolist() == [False, True, False, False]


checks = st.builds(
    Check,
    name=st.just("m"),
    reading=st.sampled_from(
        [Reading("errors", good=True, percent=True), Reading("latency", percentile=90.0)]
    ),
    window_s=st.sampled_from([30.0, 60.0, 300.0]),
    least=st.sampled_from([None, 80.0]),
    most=st.sampled_from([None, 95.0]),
)
analyses = st.one_of(
    st.builds(
        Analysis,
        interval_s=st.sampled_from([30.0, 60.0]),
        threshold=st.integers(1, 5),
        max_weight=st.sampled_from([30, 50, 100]),
        step_weight=st.sampled_from([7, 20, 50]),
        checks=st.lists(checks, max_size=3).map(tuple),
    ),
    st.builds(
        Analysis,
        threshold=st.integers(1, 5),
        step_weights=st.sampled_from([(1, 5, 20), (50,), (10, 100)]),
        checks=st.lists(checks, max_size=2).map(tuple),
    ),
    st.builds(
        Analysis,
        threshold=st.integers(1, 5),
        iterations=st.integers(1, 4),
        test_weight=st.just(0.3),
        checks=st.lists(checks, max_size=2).map(tuple),
    ),
)


@settings(max_examples=60)
@given(analyses, st.integers(0, 2**32 - 1))
def test_the_vectorised_course_decides_as_the_scalar_one(analysis: Analysis, seed: int) -> None:
    campaigns, looks = 12, 60
    rule = FlaggerRule(name="x", analysis=analysis)
    course, streams = rule.start(campaigns), rule.guardrails
    ones = [OneCanary(analysis) for _ in range(campaigns)]
    rng = np.random.default_rng(seed)
    requests = rng.poisson(rng.choice([0.3, 3.0, 20.0], size=(campaigns, 1)), (campaigns, looks + 1))
    requests[:, 0] = 0
    bad = rng.binomial(requests, rng.choice([0.02, 0.3], size=(len(streams), campaigns, 1)))
    for look in range(looks + 1):
        if look:
            arms = np.stack([requests[:, look]] * 2)
            course.take(look, arms, Known(arms, np.stack([bad[:, :, look]] * 2, axis=1)))
        if look * rule.look_s % analysis.interval_s:
            continue
        for at, one in enumerate(ones):
            if one.status is Status.RUNNING:
                passes = True
                for check in analysis.checks:
                    span = slice(max(0, look + 1 - round(check.window_s / rule.look_s)), look + 1)
                    stream = streams.index(check.reading.stream)
                    passes &= bool(check.passes(requests[at, span].sum(), bad[stream, at, span].sum()))
                one.tick(passes)
        assert [Status(value) for value in course.status] == [one.status for one in ones]
        np.testing.assert_allclose(course.weight, [one.weight for one in ones])
