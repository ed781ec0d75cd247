"""What is recommended, and that every detector of the family can be asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.drift.adwin import Adwin
from controllers.drift.cusum import Cusum
from controllers.drift.ks import KolmogorovSmirnov
from controllers.drift.page_hinkley import PageHinkley
from controllers.drift.psi import PopulationStability
from controllers.drift.report import drift_report, recommend
from controllers.drift.shiryaev_roberts import ShiryaevRoberts
from controllers.drift.standing import Standing
from glowsim.core.reasons import sentence

EVERY: list[Any] = [
    lambda margin: Adwin(metric="quality", margin=margin),
    lambda margin: Cusum(metric="quality", threshold=12, baseline=300, margin=margin),
    lambda margin: KolmogorovSmirnov(metric="quality", window=200, margin=margin),
    lambda margin: PageHinkley(metric="quality", delta=0.02, threshold=3, margin=margin),
    lambda margin: PopulationStability(metric="quality", window=200, margin=margin),
    lambda margin: ShiryaevRoberts(metric="quality", baseline=300, low=0, high=1, margin=margin),
]


@pytest.mark.parametrize("make", EVERY)
def test_from_learning_over_nothing_to_a_drift_and_what_to_do(make: Any) -> None:
    rng = np.random.default_rng(3)
    detector = make(0.05)
    assert drift_report(detector).reason == "it still learns what is normal"
    for value in rng.beta(9, 2, 1000).tolist():
        detector.observe(0.0, value)
    calm = drift_report(detector)
    assert not calm.has_drift
    assert calm.recommendation in {"none", "watch"}
    assert calm.before == pytest.approx(9 / 11, abs=0.02)
    alert = next(filter(None, (detector.observe(0.0, value) for value in rng.beta(6, 4, 600).tolist())))
    before = detector.snapshot()
    moved = drift_report(detector)
    assert detector.snapshot() == before, "asking changes nothing"
    assert moved.has_drift
    assert (moved.drift_score, moved.before, moved.after) == (alert.reason.a, alert.reason.b, alert.reason.c)
    assert moved.before > moved.after + 0.05
    assert moved.recommendation == "retrain"
    assert drift_report(detector, rolled_out=True).recommendation == "roll back"
    assert alert.severity.name == "CRITICAL"
    assert "by chance once in 10^" in sentence(alert.reason)


@given(st.floats(0, 300), st.floats(0, 300), st.floats(-10, 10), st.floats(0, 10))
def test_the_recommendation_is_by_evidence_first_and_then_by_effect(
    score: float, needed: float, effect: float, margin: float
) -> None:
    standing = Standing(score, needed, 1.0, 1.0 + effect, margin=margin)
    assert recommend(standing)[0] == ("watch" if score >= needed - 1 else "none")
    told = standing._replace(told=True)
    assert recommend(told)[0] == ("retrain" if abs(told.effect) >= margin else "watch")
    assert recommend(told._replace(margin=None))[0] == "investigate"


def test_a_drift_without_a_margin_is_to_be_investigated() -> None:
    detector = EVERY[1](None)
    alerts = [detector.observe(0.0, value) for value in [0.9, 0.8] * 150 + [0.2] * 20]
    assert [alert.severity.name for alert in alerts if alert] == ["WARNING"]
    report = drift_report(detector)
    assert (report.recommendation, report.has_drift) == ("investigate", True)
