"""Points of detection beside river's, on the same streams."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from controllers.drift.adwin import Adwin
from controllers.drift.page_hinkley import PageHinkley


@pytest.fixture(scope="module")
def river() -> Any:
    if importlib.util.find_spec("river") is None:
        if os.environ.get("GLOWSIM_CI") == "1":
            pytest.fail("river is missing: install glowsim[test]")
        pytest.skip("river is missing: install glowsim[test]")
    return importlib.import_module("river.drift")


def errors(rng: np.random.Generator) -> list[float]:
    rates = np.repeat([0.05, 0.10, 0.30, 0.10], 2000)
    return [float(bad) for bad in rng.random(8000) < rates]


def levels(rng: np.random.Generator) -> list[float]:
    return (rng.normal(size=6000) + np.repeat([0.0, 0.5, -0.5], 2000)).tolist()


def latencies(rng: np.random.Generator) -> list[float]:
    return (rng.lognormal(0.0, 0.5, 4000) * np.repeat([1.0, 1.3], 2000)).tolist()


STREAMS: list[Callable[[np.random.Generator], list[float]]] = [errors, levels, latencies]


def ours(detector: Any, values: list[float]) -> list[int]:
    return [t_s for t_s, value in enumerate(values) if detector.observe(float(t_s), value)]


def theirs(detector: Any, values: list[float]) -> list[int]:
    found = []
    for t_s, value in enumerate(values):
        detector.update(value)
        if detector.drift_detected:
            found.append(t_s)
    return found


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("delta", [0.002, 0.3])
def test_the_first_detection_of_adwin_is_river_s(river: Any, stream: Any, delta: float) -> None:
    """Only the first: then river's begins with an empty window, while this one keeps the newer part."""
    found = 0
    for seed in range(8):
        values = stream(np.random.default_rng(seed))
        reference = theirs(river.ADWIN(delta=delta), values)
        assert ours(Adwin(metric="m", delta=delta, quiet_s=0), values)[:1] == reference[:1]
        found += len(reference[:1])
    assert found >= 6


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_every_detection_of_page_hinkley_is_river_s_without_fading(
    river: Any, stream: Any, direction: Any
) -> None:
    found = 0
    for seed in range(4):
        values = stream(np.random.default_rng(seed))
        reference = theirs(river.PageHinkley(delta=0.02, threshold=8.0, alpha=1.0, mode=direction), values)
        detector = PageHinkley(metric="m", delta=0.02, threshold=8.0, direction=direction, quiet_s=0)
        assert ours(detector, values) == reference
        found += len(reference)
    assert found >= 2
