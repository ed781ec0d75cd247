"""Three scalers: how many instances, and who waits."""

from __future__ import annotations

from typing import Any, Final

from glowsim.pictures.load import BURST_S, CENTRES_S, RAMP_S, STEP_S, arrivals, during, run, share
from glowsim.pictures.panels import Line, Panel
from glowsim.pictures.picture import Picture, arriving, changes, said, share_of

__all__ = ["scaling"]

_LATE_S: Final = 1.0


def scaling() -> Picture:
    """Return instances wanted and had, and the share of late requests, under three scalers."""
    agent = {
        "instances": 2, "concurrency": 4, "timeout": "60s",
        "service": {"law": "time", "time": {"law": "exponential", "mean": "1s"}},
    }  # fmt: skip
    policies: dict[str, dict[str, Any]] = {
        "agent_scaler": {"use": "agent_scaler"},
        "agent_scaler, cooldown_up 15s": {"use": "agent_scaler", "cooldown_up": "15s"},
        "hpa": {"use": "hpa"},
    }
    ran = {label: run(agent, [arrivals(4.0)], {"scaler": settings}) for label, settings in policies.items()}
    late = {label: tables.requests["wait_s"] > _LATE_S for label, tables in ran.items()}
    when = {label: tables.requests["t_arrive_s"] for label, tables in ran.items()}
    panels = [arriving(ran["agent_scaler"])]
    for number, (label, tables) in enumerate(ran.items()):
        sampled = tables.samples
        lines = [
            changes("ready", sampled["t_s"], sampled["ready"], number, filled=True),
            changes("wanted", sampled["t_s"], sampled["wanted"], None),
        ]
        panels.append(Panel(f"Instances: {label}", lines, 11.5))
    curves = [
        Line(label, CENTRES_S, 100 * share(when[label], late[label]), number)
        for number, label in enumerate(ran)
    ]
    panels.append(Panel(f"Requests that waited over {_LATE_S:g} s (%)", curves, 108.0, 1.2))
    facts = {
        (phase, label): share_of(late[label][during(when[label], span)])
        for phase, span in (("ramp", RAMP_S), ("step", STEP_S), ("burst", BURST_S))
        for label in ran
    }
    says = (
        "Under agent_scaler with its defaults (a cooldown of five minutes each way), with 15 s on the way up, and "
        f"under hpa, {said(facts, 'ramp', ' %')} of the requests on the ramp wait over a second, "
        f"{said(facts, 'step', ' %')} in the step, and {said(facts, 'burst', ' %')} in the burst, which is nearly "
        "over when the first new instance is ready."
    )
    alternative = "Instances wanted and ready, and the share of late requests, under three scalers"
    return Picture(tuple(panels), None, alternative, says, facts)
