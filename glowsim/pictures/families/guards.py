"""A guard against prompts that are far too large: what becomes of the others."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from glowsim.pictures.load import BURST_S, CENTRES_S, STEP_S, arrivals, during, per_second, quantile, run
from glowsim.pictures.panels import Line, Panel, Shaded
from glowsim.pictures.picture import Facts, Picture, added_up, said

__all__ = ["guards"]

_MOST: Final = 32_000
"""Input tokens that the guard lets in."""


def guards() -> Picture:
    """Return the latency of ordinary requests and the cost of all, while far too large prompts come in."""
    agent = {
        "instances": 5, "concurrency": 4, "timeout": "60s",
        "service": {"law": "tokens", "base": "100ms", "input": "60us/token", "output": "4ms/token"},
    }  # fmt: skip
    answer = {"law": "lognormal", "median": 150, "sigma": 0.6}
    spans = ((STEP_S[0], STEP_S[0] + 120.0), BURST_S)
    workload = [
        arrivals(1.8, tokens_in=2_000, tokens_out=answer),
        arrivals(0.4, spans[0], tokens_in=150_000, tokens_out=answer),
        arrivals(0.1, spans[1], tokens_in=150_000, tokens_out=answer),
    ]
    policies: dict[str, dict[str, Any]] = {
        "guard": {"guard": {"use": "size", "max_tokens_in": _MOST}},
        "no guard": {},
    }
    ran = {label: run(agent, workload, controllers) for label, controllers in policies.items()}
    when = ran["guard"].requests["t_arrive_s"]
    large = ran["guard"].requests["tokens_in"] > _MOST
    curves, costs = [], []
    facts: Facts = {}
    for number, (label, tables) in enumerate(ran.items()):
        requests = tables.requests
        latency_s = requests["latency_s"][~large]
        curves.append(Line(label, CENTRES_S, quantile(when[~large], latency_s, 0.95), number))
        costs.append(added_up(label, requests["t_end_s"], requests["cost_usd"], number))
        for name, span in (("step", spans[0]), ("burst", BURST_S)):
            facts[name, label] = float(np.quantile(latency_s[during(when[~large], span)], 0.95))
        facts["cost", label] = float(requests["cost_usd"].sum())
        facts["turned away", label] = float(np.sum(requests["ending"] != 1))
    facts["large", "all"] = float(np.mean(large))
    counts = [
        Line("2,000 tokens", CENTRES_S, per_second(when[~large]), 0, True),
        Line("150,000 tokens", CENTRES_S, per_second(when[large]), 2),
    ]
    panels = (
        Panel("Arrivals (requests/s)", counts, height=0.8),
        Panel("p95 latency of those of 2,000 tokens (s)", curves, None, 1.2),
        Panel("Spent so far ($)", costs, None, 1.2),
    )
    says = (
        f"{100 * facts['large', 'all']:.1f} % of the prompts are 75 times as large as the others. With a guard that "
        f"turns these away and without one, 95 % of the others take up to {said(facts, 'step', ' s')} while they come "
        f"in the step, and {said(facts, 'burst', ' s')} in the burst. The forty minutes cost "
        f"${facts['cost', 'guard']:.0f} and ${facts['cost', 'no guard']:.0f}."
    )
    alternative = (
        "Prompts by size, the latency of the ordinary ones, and what is spent, with a guard and without"
    )
    return Picture(panels, Shaded("some prompts are far too large", spans), alternative, says, facts)
