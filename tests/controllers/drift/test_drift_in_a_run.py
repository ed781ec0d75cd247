"""Detectors in a scenario: a model gets worse on the second day, and users' ratings tell."""

from __future__ import annotations

from typing import Any

from glowsim import build
from glowsim.core.reasons import sentence
from glowsim.core.types import Alert, Code, Raise, Severity
from glowsim.scenario import Scenario

DAY_S = 86_400.0
USES: list[dict[str, Any]] = [
    {"use": "shiryaev_roberts", "baseline": 300, "low": 1, "high": 5, "run_length": 50_000, "margin": 0.3},
    {"use": "adwin"},
    {"use": "ks", "window": 200},
    {"use": "psi", "window": 200},
    {"use": "cusum", "baseline": 300, "threshold": 20},
    {"use": "page_hinkley", "delta": 0.15, "threshold": 40},
]


def scenario(factor: float) -> Scenario:
    return Scenario.model_validate({
        "title": "A model that gets worse",
        "question": "Who tells, and when?",
        "duration": "2d",
        "drain": "1m",
        "seed": 3,
        "models": {"m": {"input": "$1/1M", "output": "$4/1M"}},
        "fleet": [{
            "agent": "tax", "model": "m", "instances": 2, "concurrency": 20,
            "service": {"law": "time", "time": {"law": "exponential", "mean": "1s"}},
        }],
        "workload": [{"kind": "poisson", "rate": "0.2/s", "tokens_in": 500, "tokens_out": 100}],
        "quality": {
            "presets": ["feedback"],
            "kinds": {"any": {"shared": 0.5, "repeat": 0.8}},
            "models": {"m": {"accuracy": 0.9, "hallucination": 0.2, "format": 0.1, "refusal": 0.1}},
            "context_loss": 0, "confidence": 0.5,
            "drift": [{"at": "1d", "factor": factor}],
        },
        "controllers": {"detector": [{"metric": "rating", **use} for use in USES]},
    })  # fmt: skip


def alerts(one: Scenario) -> list[tuple[float, Alert]]:
    built = build.replication(one, 0)
    built.world.start()
    built.world.run(one.duration_s + one.drain_s)
    told, now_s = [], 0.0
    for record in built.journal.recording().records():
        now_s = getattr(record, "t_s", now_s)
        if isinstance(record, Raise):
            told.append((now_s, record.alert))
    return told


def test_a_model_that_gets_worse_is_told_by_every_detector_and_only_then() -> None:
    told = alerts(scenario(0.5))
    assert {alert.subject for _, alert in told} == {"rating"}
    first = [(t_s, alert) for t_s, alert in told if t_s > DAY_S]
    assert len(first) >= len(USES)
    assert len(told) == len(first), "no alarm on the first day"
    assert first[0][0] < DAY_S + 3600.0 * 6
    down = [alert for _, alert in first if alert.reason.code == Code.DRIFT_DOWN]
    assert all(alert.reason.b > alert.reason.c + 0.3 for alert in down)
    assert any(alert.severity == Severity.CRITICAL for alert in down), (
        "the margin is passed: retrain or roll back"
    )
    assert "moved down from 3." in sentence(down[0].reason)
