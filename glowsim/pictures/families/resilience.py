"""Retries with and without a budget, through an outage."""

from __future__ import annotations

from typing import Any

from glowsim.pictures.load import CENTRES_S, RAMP_S, STEP_S, arrivals, during, per_second, run, share
from glowsim.pictures.panels import Line, Panel, Shaded
from glowsim.pictures.picture import Facts, Picture, arriving, said, share_of

__all__ = ["resilience"]


def resilience() -> Picture:
    """Return attempts and successes through an outage with and without a budget for retries."""
    agent = {
        "instances": 4, "concurrency": 4, "timeout": "10s",
        "service": {"law": "time", "time": {"law": "exponential", "mean": "1s"}},
    }  # fmt: skip
    brown_out, outage = (RAMP_S[1], RAMP_S[1] + 120.0), (STEP_S[0] + 60.0, STEP_S[0] + 180.0)
    faults = [
        {"kind": "errors", "at": f"{begin_s:g}s", "lasts": f"{end_s - begin_s:g}s", "error": error}
        for (begin_s, end_s), error in ((brown_out, 0.3), (outage, 1.0))
    ]
    policies: dict[str, dict[str, Any]] = {
        "retries within a budget": {"retrier": {"use": "backoff", "attempts": 5}},
        "retries without a budget": {"retrier": {"use": "backoff", "attempts": 5, "budget_ratio": None}},
        "no retries": {},
    }
    ran = {label: run(agent, [arrivals(3.7)], controllers, faults) for label, controllers in policies.items()}
    tries, good = [], []
    facts: Facts = {}
    for number, (label, tables) in enumerate(ran.items()):
        requests = tables.requests
        when, answered = requests["t_arrive_s"], requests["ending"] == 1
        tries.append(Line(label, CENTRES_S, per_second(tables.attempts["t_dispatch_s"]), number))
        good.append(Line(label, CENTRES_S, 100 * share(when, answered), number))
        attempted_s = tables.attempts["t_dispatch_s"]
        for name, span in (("brown-out", brown_out), ("outage", outage)):
            facts[f"{name} attempts", label] = float(
                during(attempted_s, span).sum() / during(when, span).sum()
            )
            facts[f"{name} answered", label] = share_of(answered[during(when, span)])
    panels = (
        arriving(next(iter(ran.values()))),
        Panel("Attempts (per second)", tries, None, 1.5),
        Panel("Answered (%)", good, 108.0, 1.5),
    )
    says = (
        "While 30 % of the attempts fail, retries within a budget, without one, and none at all answer "
        f"{said(facts, 'brown-out answered', ' %')} of the requests. While all fail they answer next to nobody, and "
        f"make {said(facts, 'outage attempts')} attempts a request: the budget costs answers in a small failure and "
        "keeps a large one from becoming a storm."
    )
    alternative = (
        "Attempts and successes through an outage, with a budget for retries, without one, without retries"
    )
    return Picture(
        panels,
        Shaded("30 % of the attempts fail, later all of them", (brown_out, outage)),
        alternative,
        says,
        facts,
    )
