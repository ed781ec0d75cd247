"""The Page-Hinkley test while instances serve slower for a while: what each threshold notices, and when."""

from __future__ import annotations

from typing import Final

import numpy as np

from glowsim.pictures.load import BURST_S, CENTRES_S, DURATION_S, STEP_S, Floats, arrivals, during, mean, run
from glowsim.pictures.panels import Line, Panel, Shaded
from glowsim.pictures.picture import GRID_S, Facts, Picture, arriving, level, said, so_far
from glowsim.results import Tables

__all__ = ["drift"]

_DELTA_S: Final = 0.1
_SHOWN_S: Final = 20.0
"""The threshold whose statistic is drawn."""
_LOOKS: Final = {3.0: 1, _SHOWN_S: 0, 80.0: 2}
"""Threshold in seconds -> look of its curve."""


def drift() -> Picture:
    """Return the mean latency, how far it has strayed, and the alerts under three thresholds."""
    agent = {
        "instances": 11, "concurrency": 4, "timeout": "60s",
        "service": {"law": "time", "time": {"law": "gamma", "mean": "1.1s", "cv": 0.36}},
    }  # fmt: skip
    begin_s, end_s = STEP_S
    fault = {"kind": "brown_out", "at": f"{begin_s:g}s", "lasts": f"{end_s - begin_s:g}s", "factor": 1.2}
    watch = {
        "use": "page_hinkley", "metric": "latency_s", "delta": _DELTA_S, "direction": "up", "quiet": "2m",
    }  # fmt: skip
    ran = {
        threshold_s: run(agent, [arrivals(4.0)], {"detector": [{**watch, "threshold": threshold_s}]}, [fault])
        for threshold_s in _LOOKS
    }
    alerts = []
    facts: Facts = {}
    for threshold_s, tables in ran.items():
        label = f"threshold {threshold_s:g}"
        told_s = tables.decisions["t_s"]
        alerts.append(so_far(label, told_s, _LOOKS[threshold_s]))
        facts["told after", label] = float(told_s[told_s >= begin_s][0]) - begin_s
        for name, span in (("before", (0.0, begin_s)), ("burst", (BURST_S[0], DURATION_S))):
            facts[name, label] = float(during(told_s, span).sum())
    shown = ran[_SHOWN_S]
    latency_s = mean(shown.requests["t_arrive_s"], shown.requests["latency_s"])
    strayed = [_strayed(shown), level(f"threshold {_SHOWN_S:g}", _SHOWN_S)]
    panels = (
        arriving(shown),
        Panel("Mean latency (s)", [Line("_", CENTRES_S, latency_s)], 2.2),
        Panel("Strayed from its mean, added up (s)", strayed, 45.0),
        Panel("Alerts so far (number)", alerts, None, 1.2),
    )
    says = (
        "With thresholds of 3, 20 and 80 s the test tells of instances that serve 20 % slower after "
        f"{said(facts, 'told after', ' s')}, with {said(facts, 'before', whole=True)} false alarms in the twenty "
        "minutes before. All three raise an alert in the burst, in which requests queue while the instances serve "
        "as always: latency moves with the load, too, once there is no room left. After an alert each is silent for "
        "two minutes."
    )
    alternative = (
        "The mean latency, the statistic of the Page-Hinkley test, and its alerts under three thresholds"
    )
    return Picture(panels, Shaded("every instance serves 20 % slower", (STEP_S,)), alternative, says, facts)


def _strayed(tables: Tables) -> Line:
    """Return the highest value in each 5 s of what the test compares with its threshold, afresh after an alert."""
    order = np.argsort(tables.requests["t_end_s"], kind="stable")
    ended_s, latency_s = (tables.requests[name][order] for name in ("t_end_s", "latency_s"))
    restarts = np.searchsorted(ended_s, tables.decisions["t_s"], side="right")
    pieces = []
    for values in np.split(latency_s, restarts):
        excess = np.cumsum(values - np.cumsum(values) / np.arange(1, len(values) + 1) - _DELTA_S)
        pieces.append(excess - np.minimum(np.minimum.accumulate(excess), 0.0))
    highest: Floats = np.zeros(len(GRID_S))
    bins = np.minimum(np.searchsorted(GRID_S, ended_s), len(GRID_S) - 1)
    np.maximum.at(highest, bins, np.concatenate(pieces))
    return Line("_", GRID_S, highest)
