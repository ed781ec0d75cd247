"""ADWIN against a window that keeps every value, what it promises, and how little it holds."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.drift.adwin import Adwin
from glowsim.core.types import Code


class Plain:
    """The paper's cuts and bound over a list of all values, grouped as the buckets are; slow and plain."""

    def __init__(self, delta: float) -> None:
        self.delta = delta
        self.groups: list[list[float]] = []
        self.tick = 0

    def differ(self) -> bool:
        values = np.array([value for group in self.groups for value in group])
        width, variance = len(values), values.var()
        reach = log(2 * log(width) / self.delta)
        for n in np.cumsum([len(group) for group in self.groups]):
            if n < 5 or width - n < 5:
                continue
            inverse = 1 / (n - 4) + 1 / (width - n - 4)
            eps = sqrt(2 * inverse * variance * reach) + 2 / 3 * inverse * reach
            if abs(values[:n].mean() - values[n:].mean()) > eps:
                return True
        return False

    def take(self, value: float) -> bool:
        self.groups.append([value])
        size = 1
        while sum(len(group) == size for group in self.groups) > 5:
            first = next(place for place, group in enumerate(self.groups) if len(group) == size)
            self.groups[first : first + 2] = [self.groups[first] + self.groups[first + 1]]
            size *= 2
        self.tick += 1
        if self.tick % 32:
            return False
        told = False
        while sum(map(len, self.groups)) > 10 and self.differ():
            del self.groups[0]
            told = True
        return told


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.floats(-3, 3), st.sampled_from([0.002, 0.1, 0.9]))
def test_it_is_the_paper_over_buckets(seed: int, move: float, delta: float) -> None:
    rng = np.random.default_rng(seed)
    values = (rng.normal(size=500) + np.repeat([0.0, move], 250)).tolist()
    detector, plain = Adwin(metric="m", delta=delta, quiet_s=0), Plain(delta)
    told = [t_s for t_s, value in enumerate(values) if detector.observe(float(t_s), value)]
    assert told == [t_s for t_s, value in enumerate(values) if plain.take(value)]


def test_the_window_holds_a_logarithm_of_its_values() -> None:
    rng = np.random.default_rng(3)
    detector = Adwin(metric="m", delta=1e-9)
    for t_s, value in enumerate(rng.normal(size=20_000).tolist()):
        detector.observe(float(t_s), value)
    assert len(str(detector.snapshot())) < 8000
    assert detector._n == 20_000


def test_an_alert_says_the_direction_the_means_and_stands_for_a_while() -> None:
    detector = Adwin(metric="m", quiet_s=500)
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.normal(5, 1, 1000), rng.normal(2, 1, 2000)])
    alerts = [(t_s, detector.observe(float(t_s), value)) for t_s, value in enumerate(values.tolist())]
    (t_s, alert), *more = [(t_s, alert) for t_s, alert in alerts if alert]
    assert 1000 < t_s < 1064
    assert alert.reason.code == Code.DRIFT_DOWN
    assert alert.reason.b == pytest.approx(5, abs=0.2)
    assert alert.reason.c == pytest.approx(2, abs=0.5)
    assert alert.reason.a > detector._needed
    assert not more
    assert not detector.standing().told
    assert detector.standing().score < detector._needed


def test_a_false_alarm_is_rarer_than_delta_says() -> None:
    """At most delta a look: 60 streams of 156 looks may have 19; its bounds are loose, so far fewer."""
    rng, told = np.random.default_rng(8), 0
    for _ in range(60):
        detector = Adwin(metric="error", delta=0.002, quiet_s=0)
        errors = (rng.random(5000) < 0.05).astype(float)
        told += any(detector.observe(float(t_s), value) for t_s, value in enumerate(errors.tolist()))
    assert told <= 60 * 0.002 * 156 / 2
