"""Burn-rate alerts: against an exact window, the published table, and what a fleet that is well says."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.monitoring.burn_rate import BurnRate
from glowsim.core.reasons import Code, sentence
from glowsim.core.types import Alert, Severity

Told = tuple[float, Code, Severity]


def told(detector: BurnRate, values: Iterator[tuple[float, float]]) -> list[Told]:
    alerts = ((t_s, detector.observe(t_s, value)) for t_s, value in values)
    return [(t_s, alert.reason.code, alert.severity) for t_s, alert in alerts if alert is not None]


def errors(seed: int, per_s: float, share: float, lasts_s: float) -> Iterator[tuple[float, float]]:
    """Yield Poisson arrivals, each an error with a chance."""
    rng = random.Random(seed)
    t_s = rng.expovariate(per_s)
    while t_s < lasts_s:
        yield t_s, float(rng.random() < share)
        t_s += rng.expovariate(per_s)


# --- the rule -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("burn", "window_s", "short_s", "used"),
    [(14.4, 3600.0, 300.0, 0.02), (6.0, 21_600.0, 1800.0, 0.05), (1.0, 259_200.0, 21_600.0, 0.10)],
)
def test_the_published_windows_use_up_the_published_share_of_a_budget_of_30_days(
    burn: float, window_s: float, short_s: float, used: float
) -> None:
    """After long quiet, an outage is told when burn * window of the budget of 30 days is used up."""
    detector = BurnRate(
        metric="error", threshold=0, objective=0.99, burn=burn, window_s=window_s, short_s=short_s, minimum=1
    )
    every_s = window_s / 7200
    begins = 7200
    values = ((n * every_s, float(n >= begins)) for n in range(4 * 7200))
    at_s, code, _ = told(detector, values)[0]
    bad = round(at_s / every_s) - begins + 1
    assert code == Code.BURNING
    assert bad / (0.01 * 30 * 86_400 / every_s) == pytest.approx(used, rel=0.02)


def test_both_windows_must_burn_and_the_short_one_ends_it() -> None:
    """Ten bad of 100 in 1,000 s, 5 times the budget of 2 %; the short window of 100 s holds the last ten."""
    detector = BurnRate(
        metric="error", threshold=0, objective=0.98, burn=4, window_s=1200, short_s=120, minimum=5
    )
    pattern = [0.0] * 80 + [1.0] * 12 + [0.0] * 60
    found = told(detector, ((10.0 * n, value) for n, value in enumerate(pattern)))
    # 87 values, 7 bad: 8.0 %, at last. Over when at most 4 % of the short window's values are bad.
    assert found[0] == (860.0, Code.BURNING, Severity.CRITICAL)
    assert found[1] == (1030.0, Code.RECOVERED, Severity.INFO)
    assert len(found) == 2


def test_a_bad_value_may_end_it_when_the_worst_has_left_the_short_window() -> None:
    detector = BurnRate(
        metric="error", threshold=0, objective=0.9, burn=3, window_s=600, short_s=60, minimum=8
    )
    pattern = [(0.0, 1.0)] * 10 + [(5.0 * n, 0.0) for n in range(1, 12)] + [(61.0, 1.0)]
    assert told(detector, iter(pattern)) == [
        (0.0, Code.BURNING, Severity.CRITICAL),
        (61.0, Code.RECOVERED, Severity.INFO),
    ]


def test_old_harm_that_no_longer_goes_on_is_not_told() -> None:
    detector = BurnRate(
        metric="error", threshold=0, objective=0.97, burn=4, window_s=1200, short_s=120, minimum=14
    )
    early = [1.0] * 13 + [0.0] * 40 + [1.0]
    assert told(detector, ((10.0 * n, value) for n, value in enumerate(early))) == []
    assert detector._sums[1] + detector._bad == 14, "the longer window burns"


@pytest.mark.parametrize(
    ("good", "threshold", "values", "bad"),
    [
        ("at_most", 2.0, (2.0, 2.1, math.inf), [False, True, True]),
        ("at_least", 0.8, (0.8, 0.79), [False, True]),
    ],
)
def test_a_value_is_good_up_to_the_threshold_or_from_it_on(
    good: Any, threshold: float, values: tuple[float, ...], bad: list[bool]
) -> None:
    for value, expected in zip(values, bad, strict=True):
        detector = BurnRate(metric="m", threshold=threshold, good=good, minimum=1)
        assert (detector.observe(0.0, value) is not None) == expected


def test_an_alert_says_how_fast_it_burns_and_how_loudly() -> None:
    detector = BurnRate(
        metric="cost_usd", threshold=0.5, minimum=2, severity="warning", objective=0.95, burn=4
    )
    assert detector.observe(0.0, 0.1) is None
    assert detector.observe(1.0, 0.9) is None
    alert = detector.observe(2.0, 0.9)
    assert isinstance(alert, Alert)
    assert alert[:3] == (0, "cost_usd", Severity.WARNING)
    assert sentence(alert.reason) == "burning 13.3 times the error budget, 13.3 times of late; alert at 4"
    for n in range(18):
        over = detector.observe(3.0 + n, 0.1)
    assert over is not None
    assert sentence(over.reason) == "burning 1.9 times the error budget of late, below 2"


def test_a_value_that_is_none_is_refused_and_changes_nothing() -> None:
    detector = BurnRate(metric="quality", threshold=0.8, good="at_least")
    detector.observe(1.0, 0.9)
    before = detector.snapshot()
    with pytest.raises(ValueError, match=r"quality: nan at 2\.0 s is not a number"):
        detector.observe(2.0, math.nan)
    assert detector.snapshot() == before


# --- windows that can never alert -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"objective": 0.9},
            r"burn: 14\.4 times the budget of 0\.1 is a share of 1\.44 .* lower it to 10 or",
        ),
        ({"objective": 1.0}, "objective: .* no budget"),
        ({"recovery": 0.0}, "recovery: .* never be over"),
        (
            {"expected_per_day": 31.0},
            r"window_s: 31 values a day are 1\.29 in 3600 s, and an alert takes 5 bad ones; take 13935\.5 s",
        ),
        ({"short_s": 4000.0}, r"short_s: 4000 s is longer than window_s, 3600 s"),
        ({"short_s": 1.0}, r"short_s: 1 s takes 43200 buckets for window_s; take 21\.6 s"),
    ],
)
def test_a_window_that_can_never_alert_is_refused_with_its_arithmetic(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        BurnRate(metric="error", threshold=0, **settings)


def test_what_the_refusals_advise_is_accepted_and_can_alert() -> None:
    for kept in (
        {"objective": 0.9, "burn": 10.0},
        {"objective": 0.99, "burn": 100.0},
        {"expected_per_day": 31.0, "window_s": 13_936.0},
        {"short_s": 21.6},
    ):
        detector = BurnRate(metric="error", threshold=0, **kept)  # type: ignore[arg-type]
        assert told(detector, ((600.0 * n, 1.0) for n in range(6)))


# --- against an exact window ----------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 40), st.booleans()), max_size=150),
    st.sampled_from([(240.0, 60.0), (600.0, 50.0), (100.0, 100.0), (130.0, 24.0)]),
)
def test_the_windows_are_exact_but_for_one_bucket(
    values: list[tuple[float, bool]], windows: tuple[float, float]
) -> None:
    window_s, short_s = windows
    detector = BurnRate(metric="error", threshold=0, window_s=window_s, short_s=short_s, minimum=1)
    width_s, t_s, seen = short_s / 12, 0.0, list[tuple[float, bool]]()
    for gap_s, bad in values:
        t_s += gap_s
        seen.append((t_s, bad))
        detector.observe(t_s, float(bad))
        newest = (detector._total, detector._bad)
        for (total, wrong), span_s in (
            (detector._sums[:2], math.ceil(window_s / width_s - 1e-9) * width_s),
            (detector._sums[2:], short_s),
        ):
            for found, counted in ((total + newest[0], 1), (wrong + newest[1], 0)):
                most = [at_s for at_s, bad in seen if at_s > t_s - span_s - 1e-9 and (counted or bad)]
                least = [at_s for at_s in most if at_s > t_s - span_s + width_s + 1e-9]
                assert len(least) <= found <= len(most)


@pytest.mark.parametrize("seed", range(3))
def test_it_alerts_when_an_exact_window_of_the_same_buckets_does(seed: int) -> None:
    """An independent count over whole lists, with errors that come and go."""
    rng = random.Random(seed)
    detector = BurnRate(
        metric="error", threshold=0, objective=0.9, burn=3, window_s=600, short_s=60, minimum=8
    )
    seen: list[tuple[int, bool]] = []
    t_s, burning, changes = 0.0, False, 0
    for n in range(6000):
        t_s += rng.expovariate(1.0)
        bad = rng.random() < (0.6 if n % 900 < 250 else 0.05)
        bucket = int(t_s // 5.0)
        seen.append((bucket, bad))
        shares = []
        for buckets in (120, 12):
            window = [was for at, was in seen[-900:] if at > bucket - buckets]
            shares.append((window.count(True), window.count(True) / len(window)))
        alert = detector.observe(t_s, float(bad))
        begins = bad and shares[0][0] >= 8 and min(shares[0][1], shares[1][1]) >= 0.3
        assert (alert is not None) == (shares[1][1] < 0.15 if burning else begins), n
        if alert is not None:
            burning = not burning
            changes += 1
            assert alert.reason.code == (Code.BURNING if burning else Code.RECOVERED)
    assert changes >= 4


def test_it_keeps_a_bounded_number_of_buckets() -> None:
    detector = BurnRate(metric="error", threshold=0, window_s=3600)
    for n in range(20_000):
        detector.observe(n * 3.0, float(n % 50 == 0))
    assert len(detector._long) <= 144
    assert len(detector._short) <= 12
    assert len(json.dumps(detector.snapshot())) < 20_000


# --- what it says of fleets -----------------------------------------------------------------------------

TABLE = ((14.4, 3600.0), (6.0, 21_600.0), (1.0, 259_200.0))


def alarms(
    per_day: float, share: float, days: int, table: tuple[tuple[float, float], ...], **settings: Any
) -> list[int]:
    """Return in how many of 40 fleets each severity told of an objective of 99 %."""
    found = [0] * len(table)
    for seed in range(40):
        values = list(errors(seed, per_day / 86_400, share, days * 86_400.0))
        for place, (burn, window_s) in enumerate(table):
            detector = BurnRate(metric="error", threshold=0, burn=burn, window_s=window_s, **settings)
            found[place] += bool(told(detector, iter(values)))
    return found


def test_a_fleet_that_meets_its_objective_is_left_in_peace_but_at_burn_1() -> None:
    """30 days at 620 tasks a day, 20 agents pooled, half of the budget used: the documented figures."""
    assert alarms(620, 0.005, 30, TABLE) == [0, 0, 18]
    assert alarms(620, 0.005, 30, TABLE[2:], minimum=20) == [4]


def test_a_fleet_that_misses_it_by_far_is_told_of() -> None:
    assert alarms(620, 0.2, 2, TABLE) == [40, 40, 40]


def test_without_a_minimum_one_failure_on_a_quiet_agent_is_an_alarm() -> None:
    """31 tasks a day for 30 days at half of the budget: what the minimum is for."""
    assert alarms(31, 0.005, 30, TABLE[1:2], minimum=1)[0] >= 38
    assert alarms(31, 0.005, 30, TABLE[1:2]) == [0]
