"""Kayenta's judge: the facts of its tests and documents, R's and scipy's test, and the vectorised course."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, norm

from glowsim.core.errors import GlowsimError
from glowsim.oc.foreign import read_foreign
from glowsim.oc.foreign.kayenta import Judge, Label, Metric, Schedule, Verdict, classify, score
from glowsim.oc.foreign.kayenta_course import KayentaRule, verdicts_of
from glowsim.oc.foreign.mann_whitney import deviate, deviates, separated, shift_at
from glowsim.oc.foreign.readings import Reading
from glowsim.oc.rules import Known, Status
from glowsim.resources import resource


def shift_interval(x, y, confidence: float) -> tuple[float, float, float]:
    """The bounds of the interval, and the estimate."""
    quantile = float(norm.ppf(0.5 + confidence / 2.0))
    return shift_at(x, y, quantile), shift_at(x, y, -quantile), shift_at(x, y, 0.0)


METRIC = Metric(name="m", reading=Reading("errors"), groups=("g",))


def test_the_interval_is_that_of_kayentas_test_and_of_r() -> None:
    # MannWhitneySuite "returns expected values": 6, 39 and 22.5 at 95 %
    found = shift_interval(np.array([10.0, 20.0, 30.0, 40.0]), np.array([1.0, 2.0, 3.0, 4.0]), 0.95)
    assert found == pytest.approx((6.0, 39.0, 22.5), abs=1e-6)
    # MannWhitneyTest (R's wilcox.test of 1, 2, 3 against 2, 3, 4): interval -3 to 1, estimate -1
    found = shift_interval(np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0]), 0.95)
    assert found == pytest.approx((-3.0, 1.0, -1.0), abs=1e-4)


samples = st.lists(st.integers(0, 8).map(float), min_size=2, max_size=30).map(np.array)


@given(samples, samples)
def test_the_statistic_is_scipys(x, y) -> None:
    theirs = mannwhitneyu(x, y, method="asymptotic", use_continuity=True, alternative="two-sided")
    mine = deviate(x, y)
    if len(set(x) | set(y)) > 1:
        # The continuity correction of scipy may carry the statistic beyond 0, where p is cut at 1.
        assert min(1.0, 2.0 * norm.sf(abs(mine))) == pytest.approx(theirs.pvalue, abs=1e-9)
    padded = [np.concatenate([each, [np.nan]])[:, None] for each in (x, y)]
    assert deviates(*padded)[0] == pytest.approx(mine, abs=1e-9)
    assert [each[0] for each in separated(*padded)] == [x.min() > y.max(), y.min() > x.max()]


@given(samples, samples, st.integers(-5, 5))
def test_the_interval_moves_with_the_sample(x, y, by: int) -> None:
    if len(set(x)) == 1 and len(set(y)) == 1:
        return
    before, after = shift_interval(x, y, 0.98), shift_interval(x + by, y, 0.98)
    assert after == pytest.approx([each + by for each in before], abs=1e-4)
    low, high, estimate = before
    assert low <= estimate <= high


def test_samples_that_are_mostly_equal_are_not_shifted() -> None:
    x = np.array([0.0] * 15 + [0.2, 0.2, 1 / 6, 1 / 7])
    y = np.array([0.0] * 15 + [0.2, 1 / 9, 0.25, 0.25])
    assert shift_interval(x, y, 0.98) == (0.0, 0.0, 0.0)


def normal(mean: float, seed: int, n: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 2.0, n)


@pytest.mark.parametrize(
    ("canary", "baseline", "direction", "label"),
    [
        # ClassifierSuite: ten against ten, twenty against ten, ten against twenty, each with 30 points of spread 2
        (normal(10, 1), normal(10, 2), "either", Label.PASS),
        (normal(20, 1), normal(10, 2), "either", Label.HIGH),
        (normal(10, 1), normal(20, 2), "either", Label.LOW),
        (normal(10, 1), normal(20, 2), "increase", Label.PASS),
        (normal(20, 1), normal(10, 2), "decrease", Label.PASS),
        (normal(20, 1), normal(10, 2), "increase", Label.HIGH),
        (normal(10, 1), normal(20, 2), "decrease", Label.LOW),
        # identical data, one value everywhere, and constant samples that differ
        (normal(10, 1), normal(10, 1)[::-1], "either", Label.PASS),
        (np.full(5, 3.0), np.full(7, 3.0), "either", Label.PASS),
        (np.full(5, 3.0), np.full(7, 2.0), "either", Label.HIGH),
        (np.full(5, 2.0), np.full(7, 3.0), "either", Label.LOW),
    ],
)
def test_a_metric_is_classified_as_in_kayentas_tests(canary, baseline, direction, label) -> None:
    assert classify(replace(METRIC, direction=direction), canary, baseline).label is label


NONE, ZEROS = np.array([np.nan, np.nan]), np.zeros(30)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # "How canary judgment works": classification when data is missing
        ({}, Verdict(Label.NODATA)),
        ({"critical": True}, Verdict(Label.NODATA, True)),
        ({"must_have_data": True}, Verdict(Label.NODATA_FAIL)),
        ({"replace_nan": True}, Verdict(Label.PASS)),
    ],
)
def test_missing_data_is_what_the_document_says(settings, expected) -> None:
    baseline = NONE if settings.get("replace_nan") else normal(10, 1)
    assert classify(replace(METRIC, **settings), NONE, baseline) == expected


def test_worked_examples_of_the_document() -> None:
    # A: the baseline has no errors at all, the canary has: High and critical although the ratio is undefined
    errors = replace(METRIC, direction="increase", replace_nan=True, critical=True)
    assert classify(errors, np.arange(1.0, 31.0), np.full(30, np.nan)) == Verdict(Label.HIGH, True)
    # D: 60 % more with criticalIncrease 1.5 is critical, with 1.7 it is High only
    latency = replace(METRIC, direction="increase", critical=True, critical_increase=1.5)
    canary, baseline = 1.6 * normal(10, 3), normal(10, 4)
    assert classify(latency, canary, baseline) == Verdict(Label.HIGH, True)
    assert classify(replace(latency, critical_increase=1.7), canary, baseline) == Verdict(Label.HIGH, False)
    # A significant difference below the allowed effect passes.
    assert classify(replace(latency, allowed_increase=2.0), canary, baseline).label is Label.PASS
    assert classify(replace(latency, measure="cles"), canary, baseline).label is Label.HIGH
    assert (
        classify(replace(latency, measure="cles", allowed_increase=1.0), canary, baseline).label is Label.PASS
    )


def test_outliers_beyond_both_fences_are_removed() -> None:
    points = np.concatenate([np.linspace(0.0, 1.0, 200), [50.0]])
    assert replace(METRIC, outlier_factor=3.0).cleaned(points).max() <= 1.0
    few = np.array([0.0, 1.0, 2.0, 50.0])
    assert replace(METRIC, outlier_factor=3.0).cleaned(few).max() == 50.0, "the 99th percentile guards it"


PASS, HIGH, LOW, NODATA = (Verdict(each) for each in (Label.PASS, Label.HIGH, Label.LOW, Label.NODATA))


@pytest.mark.parametrize(
    ("groups", "verdicts", "weights", "expected"),
    [
        # ScorerSuite
        ("g", [PASS], {}, 100.0),
        ("g", [HIGH], {}, 0.0),
        ("gg", [PASS, HIGH], {}, 50.0),
        ("ggg", [PASS, HIGH, LOW], {}, 33.33),
        ("aab", [PASS, PASS, HIGH], {"a": 75, "b": 25}, 75.0),
        ("aab", [PASS, HIGH, HIGH], {"a": 50, "b": 50}, 25.0),
        ("g", [NODATA], {}, 0.0),
        ("gg", [PASS, Verdict(Label.HIGH, True)], {}, 0.0),
        # the document: Nodata is left out of its group, a group without data counts 100, half without data is 0
        ("gggg", [PASS, PASS, HIGH, NODATA], {}, 66.67),
        ("aab", [PASS, HIGH, NODATA], {"a": 50, "b": 50}, 75.0),
        ("gg", [PASS, NODATA], {}, 0.0),
        ("gg", [PASS, Verdict(Label.NODATA_FAIL)], {}, 50.0),
        # groups without a weight share the rest
        ("abc", [HIGH, PASS, PASS], {"a": 60}, 40.0),
    ],
)
def test_the_score_is_that_of_kayentas_tests(groups, verdicts, weights, expected) -> None:
    metrics = [replace(METRIC, groups=(group,)) for group in groups]
    assert score(metrics, verdicts, weights) == pytest.approx(expected, abs=0.01)


def test_judgements_grow_or_slide() -> None:
    # SetupAndExecuteCanariesStage's tests: from the start, or from the end less the look-back; a warm-up shifts both
    growing = Schedule(lifetime_min=15, interval_min=3, begin_after_min=4)
    assert [growing.span(end) for end in growing.judgements] == [slice(4, 4 + 3 * i) for i in range(1, 6)]
    sliding = Schedule(lifetime_min=15, interval_min=3, lookback_min=5)
    assert [sliding.span(end) for end in sliding.judgements] == [
        slice(0, 3),
        slice(1, 6),
        slice(4, 9),
        slice(7, 12),
        slice(10, 15),
    ]


def test_on_the_way_the_marginal_score_is_enough_and_at_the_end_the_pass_score_is_needed() -> None:
    metrics = tuple(replace(METRIC, name=name) for name in "abcd")
    judge = Judge(metrics=metrics, group_weights={}, pass_at=95.0, marginal=75.0)
    one_high = [PASS, PASS, PASS, HIGH]
    assert judge.status(one_high, last=False) is Status.RUNNING
    assert judge.status(one_high, last=True) is Status.ROLLED_BACK
    assert judge.status([PASS, PASS, HIGH, HIGH], last=False) is Status.ROLLED_BACK
    assert judge.status([PASS] * 4, last=True) is Status.PROMOTED


kinds = st.builds(
    lambda **chosen: replace(METRIC, **chosen),
    direction=st.sampled_from(["either", "increase", "decrease"]),
    replace_nan=st.booleans(),
    critical=st.booleans(),
    must_have_data=st.booleans(),
    measure=st.sampled_from(["meanRatio", "cles"]),
    allowed_increase=st.sampled_from([None, 1.2]),
    outlier_factor=st.sampled_from([None, 3.0]),
)


@settings(max_examples=25)
@given(kinds, st.integers(0, 2**32 - 1))
def test_verdicts_of_many_are_those_of_each(metric: Metric, seed: int) -> None:
    rng = np.random.default_rng(seed)
    campaigns = 12
    sizes = rng.poisson(rng.choice([0.3, 5.0, 40.0], campaigns), (2, rng.choice([3, 20]), campaigns))
    bad = rng.binomial(sizes, rng.choice([0.05, 0.3, 1.0], (2, 1, campaigns)))
    canary, baseline = metric.reading.value(sizes, bad)
    expected = [classify(metric, canary[:, at], baseline[:, at]) for at in range(campaigns)]
    assert list(verdicts_of(metric, canary, baseline)) == expected


@settings(max_examples=8)
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 30]), st.sampled_from([0, 7]))
def test_the_vectorised_course_decides_as_the_scalar_judge(
    seed: int, lookback: int | None, begin: int
) -> None:
    metrics = (
        METRIC,
        replace(METRIC, reading=Reading("latency"), groups=("h",), direction="increase", critical=True),
    )
    judge = Judge(metrics=metrics, group_weights={"g": 40.0}, pass_at=95.0, marginal=50.0)
    schedule = Schedule(lifetime_min=60, interval_min=20, begin_after_min=begin, lookback_min=lookback)
    rule = KayentaRule(name="x", judge=judge, schedule=schedule, weight=0.2, equal_baseline=False)
    campaigns, minutes = 6, int(rule.schedule_s // 60)
    rng = np.random.default_rng(seed)
    requests = rng.poisson(rng.choice([0.5, 8.0], campaigns), (minutes, 2, campaigns))
    bad = rng.binomial(requests[:, None], rng.choice([0.05, 0.4], (2, 2, campaigns)))
    course, kept = rule.start(campaigns), np.arange(campaigns)
    status = [Status.RUNNING] * campaigns
    for look in range(1, minutes + 1):
        course.take(
            look, requests[look - 1][:, kept], Known(requests[look - 1][:, kept], bad[look - 1][:, :, kept])
        )
        if look in schedule.judgements:
            for at in kept:
                span = schedule.span(look)
                points = [
                    tuple(
                        each.reading.value(requests[span, arm, at], bad[span, s, arm, at])
                        .astype(np.float32)
                        .astype(float)
                        for arm in (1, 0)
                    )
                    for s, each in enumerate(metrics)
                ]
                status[at] = judge.decide(points, look == schedule.judgements[-1])
        assert [Status(each) for each in course.status] == [status[at] for at in kept]
        running = course.status == Status.RUNNING
        course.keep(running)
        kept = kept[running]
    assert not kept.size


def test_the_baseline_is_as_large_as_the_canary_and_drawn_from_the_old_version() -> None:
    rule = read_foreign(resource("scenarios") / "rollouts" / "kayenta.json", weight=0.1)
    course = rule.start(2000)
    requests = np.stack([np.full(2000, 900), np.full(2000, 100)])
    bad = np.stack([np.full(2000, 90), np.full(2000, 20)])[None]
    sampled, sampled_bad = course._compared(Known(requests, bad))
    assert sampled[0, 0].mean() == pytest.approx(100.0, abs=1.0)
    assert sampled_bad[0, 0].mean() == pytest.approx(10.0, abs=0.4)
    np.testing.assert_array_equal(sampled[0, 1], 100)
    np.testing.assert_array_equal(sampled_bad[0, 1], 20)


@pytest.fixture
def changed(tmp_path: Path):
    text = (resource("scenarios") / "rollouts" / "kayenta.json").read_text()

    def changed(old: str, new: str):
        assert old in text
        path = tmp_path / "kayenta.json"
        path.write_text(text.replace(old, new))
        return read_foreign(path, weight=0.05)

    return changed


def test_the_bundled_configuration_is_understood(changed) -> None:
    rule = changed(
        '"direction": "increase"', '"direction": "increase", "effectSize": {"allowedIncrease": 1.2}'
    )
    (metric,) = rule.judge.metrics
    assert (metric.direction, metric.critical, metric.allowed_increase) == ("increase", True, 1.2)
    assert rule.schedule.judgements == (60, 120, 180, 240)
    assert (rule.judge.pass_at, rule.judge.marginal, rule.schedule_s) == (95.0, 75.0, 14400.0)
    assert not [note for note in rule.notes if "not understood" in note]
    single = changed('"analysisIntervalMins": 60', '"beginAfterMins": 5')
    assert single.schedule.judgements == (245,)
    removes = changed('"critical": true', '"outliers": {"strategy": "remove"}')
    assert removes.judge.metrics[0].outlier_factor == 3.0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"name": "error rate"', '"name": "queue depth"', "what does the metric 'queue depth' measure?"),
        ('"direction": "increase"', '"direction": "up"', "kayenta.json:13:22: canaryConfig.metrics[0]."),
        ('"executionRequest"', '"request"', "holds no schedule: put the configuration under 'canaryConfig'"),
        ('"lifetimeDurationMins": 240', '"lifetimeDurationMins": 0', "should be 1 to 4320 minutes"),
        (
            '{"pass": 95, "marginal": 75}',
            '{"pass": 75, "marginal": 95}',
            "should have 0 <= marginal <= pass <= 100",
        ),
        ('"groups": ["Errors"]', '"groups": []', "is in no group"),
        ('"critical": true', '"muted": true', "has no metric that counts"),
    ],
)
def test_what_cannot_be_judged_is_named_with_its_place(changed, old, new, message) -> None:
    with pytest.raises(GlowsimError) as refused:
        changed(old, new)
    assert message in str(refused.value)


def test_the_share_of_the_canary_is_asked_for() -> None:
    path = resource("scenarios") / "rollouts" / "kayenta.json"
    with pytest.raises(GlowsimError, match="say it by --weight"):
        read_foreign(path)
    with pytest.raises(GlowsimError, match="at most 50%"):
        read_foreign(path, weight=0.6)
    with pytest.raises(GlowsimError, match="above 0 and below 1"):
        read_foreign(path, weight=1.0)
