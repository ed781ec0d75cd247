"""Caps on the tokens of the answer, and of the prompt: what each saves."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from glowsim.pictures.load import BURST_S, CENTRES_S, STEP_S, arrivals, during, quantile, run
from glowsim.pictures.panels import Line, Panel
from glowsim.pictures.picture import Facts, Picture, added_up, arriving, said, share_of

__all__ = ["tokens"]

_MOST_OUT: Final = 200
_MOST_IN: Final = 2_000


def tokens() -> Picture:
    """Return the latency and the cost with a cap on what is written, with one on what is read, and with none."""
    agent = {
        "instances": 6, "concurrency": 4, "timeout": "60s",
        "service": {"law": "tokens", "base": "95ms", "input": "30us/token", "output": "8.5ms/token"},
    }  # fmt: skip
    workload = arrivals(
        2.0,
        tokens_in={"law": "lognormal", "median": 2_900, "sigma": 0.6},
        tokens_out={"law": "lognormal", "median": 100, "sigma": 0.9},
    )
    policies: dict[str, dict[str, Any]] = {
        f"max_tokens_out: {_MOST_OUT}": {"planner": {"use": "cap", "max_tokens_out": _MOST_OUT}},
        f"max_tokens_in: {_MOST_IN}": {"planner": {"use": "cap", "max_tokens_in": _MOST_IN}},
        "no planner": {},
    }
    ran = {label: run(agent, [workload], controllers) for label, controllers in policies.items()}
    curves, costs = [], []
    facts: Facts = {}
    for number, (label, tables) in enumerate(ran.items()):
        requests = tables.requests
        when, latency_s = requests["t_arrive_s"], requests["latency_s"]
        curves.append(Line(label, CENTRES_S, quantile(when, latency_s, 0.95), number))
        costs.append(added_up(label, requests["t_end_s"], requests["cost_usd"], number))
        for name, span in (("step", STEP_S), ("burst", BURST_S)):
            facts[name, label] = float(np.quantile(latency_s[during(when, span)], 0.95))
        facts["cost", label] = float(requests["cost_usd"].sum())
        facts["failed", label] = float(np.sum(requests["ending"] != 1))
    uncut = ran["no planner"].requests
    facts["cut", "answers"] = share_of(uncut["tokens_out"] > _MOST_OUT)
    facts["cut", "prompts"] = share_of(uncut["tokens_in"] > _MOST_IN)
    panels = (
        arriving(ran["no planner"]),
        Panel("p95 latency (s)", curves, None, 1.4),
        Panel("Spent so far ($)", costs, None, 1.4),
    )
    says = (
        f"With answers of {_MOST_OUT} tokens at most, with prompts of {_MOST_IN:,} at most, and with no cap, 95 % of "
        f"the requests take up to {said(facts, 'step', ' s')} in the step and {said(facts, 'burst', ' s')} in the "
        f"burst. The forty minutes cost {said(facts, 'cost')} US dollars. The caps cut {said(facts, 'cut', ' %')} "
        "of the answers and of the prompts; what that does to their worth is not in the picture."
    )
    alternative = (
        "The 95th percentile of the latency, and what is spent, with two caps on tokens and with none"
    )
    return Picture(panels, None, alternative, says, facts)
