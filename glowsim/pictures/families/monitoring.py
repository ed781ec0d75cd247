"""Alerts by the burn rate over two windows, and by a plain threshold, while requests fail."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from glowsim.pictures.load import STEP_S, Floats, arrivals, during, run
from glowsim.pictures.panels import Line, Panel, Shaded
from glowsim.pictures.picture import GRID_S, Facts, Picture, arriving, counted, level, so_far
from glowsim.results import Tables

__all__ = ["monitoring"]

_OBJECTIVE: Final = 0.99
_LONG_S, _SHORT_S, _BURN = 600.0, 50.0, 14.4


def monitoring() -> Picture:
    """Return the burn rate over two windows, and the alerts of two severities and of a plain threshold."""
    agent = {
        "instances": 12, "concurrency": 4, "timeout": "60s",
        "service": {"law": "time", "time": {"law": "exponential", "mean": "1s"}},
        "failures": {"error": 0.005},
    }  # fmt: skip
    hitch, brown_out = (600.0, 630.0), STEP_S
    faults = [
        {"kind": "errors", "at": f"{begin_s:g}s", "lasts": f"{end_s - begin_s:g}s", "error": error}
        for (begin_s, end_s), error in ((hitch, 0.5), (brown_out, 0.3))
    ]
    objective = {"use": "slo", "metric": "error", "threshold": 0, "objective": _OBJECTIVE}
    minute = {"burn": 1, "window": "60s", "short": "60s", "minimum": 1, "recovery": 1.0}
    policies: dict[str, dict[str, Any]] = {
        "critical": {"burn": _BURN, "window": f"{_LONG_S:g}s", "short": f"{_SHORT_S:g}s"},
        "warning": {"burn": 6, "window": "20m", "severity": "warning"},
        "plain threshold": {**minute, "severity": "warning"},
    }
    alerts = []
    facts: Facts = {}
    for number, (label, settings) in enumerate(policies.items()):
        tables = run(agent, [arrivals(4.0)], {"detector": [{**objective, **settings}]}, faults)
        told_s, severity = tables.decisions["t_s"], tables.decisions["value"]
        raised_s, over_s = told_s[severity > 0], told_s[severity == 0]
        alerts.append(so_far(label, raised_s, number))
        facts["raised after", label] = float(raised_s[raised_s >= brown_out[0]][0]) - brown_out[0]
        facts["over after", label] = float(over_s[over_s >= brown_out[1]][0]) - brown_out[1]
        facts["hitch", label] = float(during(raised_s, hitch).sum())
        facts["brown-out", label] = float(during(raised_s, brown_out).sum())
        facts["false", label] = float(len(raised_s)) - facts["hitch", label] - facts["brown-out", label]
    panels = (
        arriving(tables),
        Panel("Burn rate (times the budget)", _burns(tables), 40.0, 1.4),
        Panel("Alerts so far (number)", alerts, None, 1.2),
    )
    plain = "plain threshold"
    says = (
        "Of 200 requests one fails, and the objective allows two. Once half of them fail for 30 s, later 30 % for six "
        "minutes. Of the latter the critical alert (burn 14.4 over ten minutes and 50 s) tells after "
        f"{facts['raised after', 'critical']:.0f} s, and ends {facts['over after', 'critical']:.0f} s after it; "
        f"the warning (burn 6 over twenty minutes and 100 s) tells after {facts['raised after', 'warning']:.0f} s. Of "
        "anything else they tell nothing. A plain threshold, 1 % of the last minute, tells after "
        f"{facts['raised after', plain]:.1f} s, also of the 30 s, and {facts['false', plain]:.0f} times of nothing."
    )
    alternative = (
        "The burn rate over a long and a short window, and the alerts of it and of a plain threshold"
    )
    shaded = Shaded("half of the requests fail, later 30 %", (hitch, brown_out))
    return Picture(panels, shaded, alternative, says, facts)


def _burns(tables: Tables) -> tuple[Line, ...]:
    """Return the burn rate over the long and the short window of the critical alert, and where it alerts."""
    ended_s = tables.requests["t_end_s"]
    failed_s = ended_s[tables.requests["ending"] != 1]

    def burn(window_s: float) -> Floats:
        bad, total = (
            counted(each, GRID_S) - counted(each, GRID_S - window_s) for each in (failed_s, ended_s)
        )
        return bad / np.maximum(total, 1.0) / (1.0 - _OBJECTIVE)

    return (
        Line("over 10 min", GRID_S, burn(_LONG_S), 0),
        Line("over 50 s", GRID_S, burn(_SHORT_S), 1),
        level(f"{_BURN:g}", _BURN),
    )
