"""The simulation of many streams at once against the detectors themselves, value by value."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from glowsim import registry
from glowsim.oc.drift.courses import COURSES

SETTINGS: dict[str, dict[str, Any]] = {
    "shiryaev_roberts": {"run_length": 1e9, "baseline": 120},
    "cusum": {"threshold": 1e9, "baseline": 90},
    "page_hinkley": {"threshold": 1e9, "delta": 0.01},
    "adwin": {"delta": 1e-290},
    "ks": {"window": 60, "run_length": 1e9},
    "psi": {"window": 110, "run_length": 1e9, "bins": 6},
}


def streams(kind: str) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(7)
    if kind == "errors":
        return (rng.random((3, 900)) < np.repeat([0.05, 0.08], 450)).astype(float)
    return rng.lognormal(0.0, 0.6, (3, 900)) * np.repeat([1.0, 1.1], 450)


@pytest.mark.parametrize("kind", ["errors", "latencies"])
@pytest.mark.parametrize("direction", ["up", "down", "both"])
@pytest.mark.parametrize("name", COURSES)
def test_a_course_is_the_detector(name: str, direction: str, kind: str) -> None:
    cls = registry.find("detector", name)
    known = inspect.signature(cls).parameters
    settings = {"metric": "error" if kind == "errors" else "latency_s", **SETTINGS[name]}
    if "direction" in known:
        settings["direction"] = direction
    full = {key: each.default for key, each in known.items()} | settings
    x = streams(kind)
    course = COURSES[name](len(x), full)
    parts = np.split(x, [7, 100, 101, 260, 700], axis=1)
    found = np.hstack([course.take(part) for part in parts])
    looked = 0
    for row, values in enumerate(x):
        detector = cls(**settings)
        before = None
        for place, value in enumerate(values.tolist()):
            assert detector.observe(float(place), value) is None
            if place < course.baseline or (found[row, place] == 0.0 and detector.statistic == before):
                continue
            before = detector.statistic
            standing = detector.standing()
            expected = standing.score if name in {"ks", "psi"} else detector.statistic
            if name in {"ks", "psi", "adwin"} and found[row, place] == 0.0:
                continue
            assert found[row, place] == pytest.approx(expected, rel=1e-7, abs=1e-9), (row, place)
            looked += 1
    assert looked >= 12


@pytest.mark.parametrize("name", COURSES)
def test_the_setting_puts_the_alert_where_the_threshold_is(name: str) -> None:
    """A detector made with the setting of a statistic that was reached alarms there, and not before."""
    cls = registry.find("detector", name)
    settings = {"metric": "latency_s", **SETTINGS[name]}
    full = {key: each.default for key, each in inspect.signature(cls).parameters.items()} | settings
    x = streams("latencies")
    course = COURSES[name](len(x), full)
    found = course.take(x)
    for row, values in enumerate(x):
        threshold = found[row].max() * 0.999
        place = int(np.argmax(found[row] >= threshold))
        settings[course.parameter] = course.setting(threshold)
        detector = cls(**settings)
        told = [t_s for t_s, value in enumerate(values.tolist()) if detector.observe(float(t_s), value)]
        assert told[:1] == [place]
