"""A canary of three versions that fail more or less often: how far each comes, and whom it hurts."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from glowsim.pictures.load import DURATION_S, arrivals, run
from glowsim.pictures.panels import Panel
from glowsim.pictures.picture import Facts, Picture, arriving, changes, so_far

__all__ = ["rollout"]

_V1_ERROR: Final = 0.02
_CANARY: Final = {"use": "canary", "salt": "v2", "weight": "5%", "hold": "5m", "step": "5m"}
_AT_ONCE: Final = {**_CANARY, "weight": "100%", "then": []}


def rollout() -> Picture:
    """Return the stages of a canary, and the failed requests of the new version with the canary and without."""
    worlds: dict[str, tuple[float, dict[str, Any]]] = {
        "fails in 2 %": (_V1_ERROR, _CANARY),
        "in 4 %": (0.04, _CANARY),
        "in 10 %": (0.10, _CANARY),
        "in 10 %, at once": (0.10, _AT_ONCE),
    }
    stages, hurt = [], []
    facts: Facts = {}
    for number, (label, (error, splitter)) in enumerate(worlds.items()):
        agent = {
            "instances": 12, "concurrency": 4, "timeout": "60s",
            "service": {"law": "time", "time": {"law": "exponential", "mean": "1s"}},
            "failures": {"error": _V1_ERROR}, "variants": {"v2": {"error": error}},
        }  # fmt: skip
        tables = run(agent, [arrivals(4.0)], {"splitter": splitter})
        requests, decisions = tables.requests, tables.decisions
        failed = (requests["variant"] == 1) & (requests["ending"] == 3)
        moments = np.array([0.0, *decisions["t_s"], DURATION_S])
        share = np.array([0.05, *decisions["other"], *decisions["other"][-1:]])
        if splitter is _CANARY:
            stages.append(changes(label, moments, 100 * share, number))
            facts["turned at", label] = float(moments[-2]) / 60
            facts["share in the end", label] = float(share[-1])
        hurt.append(so_far(label, requests["t_end_s"][failed], number))
        facts["failed", label] = float(failed.sum())
    in_the_end = f"{facts['failed', 'in 10 %, at once']:,.0f}"
    panels = (
        arriving(tables),
        Panel("Requests that get v2 (%)", stages, 108.0, 1.6),
        Panel(f"Failed requests of v2 so far (at once: {in_the_end})", hurt[1:], 40.0, 1.4),
    )
    says = (
        f"v1 fails in 2 % of the requests. A v2 that fails as often gets all of them after "
        f"{facts['turned at', 'fails in 2 %']:.0f} minutes. One that fails in 4 % is taken back after "
        f"{facts['turned at', 'in 4 %']:.1f} minutes, when it has failed {facts['failed', 'in 4 %']:.0f} requests, one "
        f"that fails in 10 % after {facts['turned at', 'in 10 %']:.1f} minutes and {facts['failed', 'in 10 %']:.0f} "
        f"requests. Given to everybody at once, without a canary, the latter fails {in_the_end}."
    )
    alternative = "The share of requests that get a new version, and how many of them have failed, by version"
    return Picture(panels, None, alternative, says, facts)
