"""Page-Hinkley against its definition, and how often and how fast it speaks."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.drift.page_hinkley import PageHinkley
from controllers.drift.standing import cusum_score
from glowsim.core.types import Code, Severity


def first_alert(x: np.ndarray, delta: float, threshold: float, minimum: int) -> tuple[int, str, float] | None:
    """From the definition, column by column: (place, direction, statistic) of the first alert."""
    means = np.cumsum(x) / np.arange(1, len(x) + 1)
    up = np.cumsum(x - means - delta)
    down = np.cumsum(x - means + delta)
    rise = up - np.minimum.accumulate(up)
    fall = np.maximum.accumulate(down) - down
    for place in range(minimum - 1, len(x)):
        if max(rise[place], fall[place]) > threshold:
            up = rise[place] >= fall[place]
            return place, "DRIFT_UP" if up else "DRIFT_DOWN", max(rise[place], fall[place])
    return None


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32), st.sampled_from([-1.0, 0.0, 0.7, 2.0]), st.floats(0, 0.3), st.floats(0.5, 9.0),
    st.integers(1, 60),
)  # fmt: skip
def test_it_is_the_published_recursion(
    seed: int, move: float, delta: float, threshold: float, minimum: int
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=160) + np.repeat([0.0, move], 80)
    detector = PageHinkley(metric="latency_s", delta=delta, threshold=threshold, minimum=minimum, quiet_s=1e9)
    alerts = [detector.observe(float(place), value) for place, value in enumerate(x.tolist())]
    told = [(place, alert) for place, alert in enumerate(alerts) if alert is not None]
    expected = first_alert(x, delta, threshold, minimum)
    assert len(told) == (expected is not None)
    if expected is not None:
        (place, alert), (where, code, statistic) = told[0], expected
        assert (place, alert.reason.code.name, alert.subject) == (where, code, "latency_s")
        assert alert.severity == Severity.WARNING
        before = x[: place + 1]
        deviation = before.std()
        assert alert.reason.a == pytest.approx(cusum_score(statistic / deviation, delta / deviation, 2))
        assert before.min() <= alert.reason.b <= before.max()
        assert (alert.reason.c > alert.reason.b) == (code == "DRIFT_UP")


def codes(direction: str, move: float) -> set[Code]:
    detector = PageHinkley(metric="m", delta=0.1, threshold=5, direction=direction, quiet_s=0)  # type: ignore[arg-type]
    alerts = [detector.observe(float(i), move * (i >= 50)) for i in range(100)]
    return {alert.reason.code for alert in alerts if alert}


def test_only_the_direction_that_was_asked_for_counts() -> None:
    assert codes("up", 1.0) == codes("both", 1.0) == {Code.DRIFT_UP}
    assert codes("down", -1.0) == codes("both", -1.0) == {Code.DRIFT_DOWN}
    assert codes("up", -1.0) == codes("down", 1.0) == set()


def test_it_is_silent_for_a_while_and_then_tells_what_still_stands() -> None:
    detector = PageHinkley(metric="m", delta=0.1, threshold=5, quiet_s=200)
    levels = [0.0] * 50 + [2.0] * 60 + [6.0] * 300
    told = [place for place, value in enumerate(levels) if detector.observe(float(place), value)]
    assert len(told) == 2
    assert 50 <= told[0] < 56
    assert told[1] == told[0] + 200


def test_what_is_not_a_number_is_refused_and_changes_nothing() -> None:
    detector = PageHinkley(metric="latency_s", delta=0.1, threshold=5)
    before = detector.snapshot()
    with pytest.raises(ValueError, match="latency_s: nan at 3"):
        detector.observe(3.0, nan)
    assert detector.snapshot() == before


def test_run_length_and_delay_on_errors_are_what_the_class_says() -> None:
    """Stated: 17 of 400 streams at 5 % with a false alarm in 5,000; a median delay of 360 to 10 %."""
    rng, false, delays = np.random.default_rng(21), 0, []
    for _ in range(100):
        detector = PageHinkley(metric="error", delta=0.005, threshold=20, direction="up", quiet_s=0)
        errors = np.concatenate([rng.random(5000) < 0.05, rng.random(3000) < 0.10]).astype(float)
        told = [place for place, value in enumerate(errors.tolist()) if detector.observe(float(place), value)]
        false += any(place < 5000 for place in told)
        delays.append(next(place - 4999 for place in told if place >= 5000))
    assert false <= 12
    assert np.median(delays) == pytest.approx(360, rel=0.15)
    assert np.percentile(delays, 95) < 850
