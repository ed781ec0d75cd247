"""Controllers that stand in for the built-in ones, and the example scenario."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest

from glowsim import registry
from glowsim.core.parameters import Count, Fraction, PositiveSeconds, Seconds

EXAMPLE = Path(__file__).parent / "example.yaml"


REAL_BUILT_INS = registry.BUILT_INS


class Turns:
    """Takes turns."""


class Threshold:
    """Adds instances above a target."""

    def __init__(
        self, instances: int, *, target: Fraction, cooldown_s: Seconds = 300.0, min_instances: Count = 1
    ) -> None: ...


class Drift:
    """Watches a metric."""

    def __init__(
        self,
        *,
        metric: str,
        strict: bool = False,
        side: Literal["up", "down"] | None = None,
        rate_per_s: PositiveSeconds = float("inf"),
        cost_usd: float = 1.0,
        window_s: PositiveSeconds | None = None,
        steps: tuple[Fraction, ...] = (0.05, 1.0),
    ) -> None: ...


FAKES = (Turns, Threshold, Drift)
BUILT_INS = {
    **{family: {} for family in registry.FAMILIES},
    "balancer": {"turns": "fakes:Turns", "least": "fakes:Turns"},
    "scaler": {"threshold": "fakes:Threshold"},
    "detector": {"drift": "fakes:Drift"},
}


@pytest.fixture(autouse=True)
def fake_controllers(monkeypatch):
    module = ModuleType("fakes")
    for fake in FAKES:
        setattr(module, fake.__name__, fake)
    monkeypatch.setitem(sys.modules, "fakes", module)
    monkeypatch.setattr(registry, "BUILT_INS", BUILT_INS)
    return module


@pytest.fixture
def real_controllers(monkeypatch):
    monkeypatch.setattr(registry, "BUILT_INS", REAL_BUILT_INS)
    return [(family, use) for family, names in REAL_BUILT_INS.items() for use in names]


@pytest.fixture
def example_path():
    return EXAMPLE


@pytest.fixture
def example_text():
    return EXAMPLE.read_text(encoding="utf-8")


@pytest.fixture
def threshold():
    return Threshold


@pytest.fixture
def drift():
    return Drift


@pytest.fixture
def small():
    """The least that a scenario must have, as plain data."""
    return {
        "title": "small",
        "question": "does it load?",
        "seed": 1,
        "duration": "70s",
        "models": {"mini": {"input": "$0.15/1M", "output": "$0.60/1M"}},
        "fleet": [
            {
                "agent": "tax",
                "model": "mini",
                "instances": 2,
                "concurrency": 4,
                "service": {"law": "time", "time": "300ms"},
            }
        ],
        "workload": [{"kind": "poisson", "rate": "10/s", "tokens_in": 900, "tokens_out": 100}],
    }
