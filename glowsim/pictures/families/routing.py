"""Four ways to share the work between a cheap model and a strong one, while the cheap one gets worse."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from glowsim.core.reasons import Code
from glowsim.pictures.load import (
    CENTRES_S,
    STEP_S,
    arrivals,
    during,
    mean,
    quantile,
    run,
    share,
)
from glowsim.pictures.panels import Line, Panel, Shaded
from glowsim.pictures.picture import Facts, Picture, arriving, said, share_of

__all__ = ["routing"]

_SERVERS: Final = {
    "quick": {"engine": "hosted", "first_token": "200ms", "per_token": "4ms"},
    "slow": {"engine": "hosted", "first_token": "500ms", "per_token": "16ms"},
}
_MODELS: Final = {
    "cheap": {"input": "$0.5/1M", "output": "$1.5/1M", "server": "quick"},
    "strong": {"input": "$10/1M", "output": "$30/1M", "server": "slow"},
}
_WORSE: Final = 0.7
_QUALITY: Final[dict[str, Any]] = {
    "presets": ["routellm"],
    "models": {"cheap": {"like": "mixtral-8x7b"}, "strong": {"like": "gpt-4-1106"}},
    "confidence": 0.8,
    "drift": [
        {"model": "cheap", "at": f"{STEP_S[0]:g}s", "lasts": f"{STEP_S[1] - STEP_S[0]:g}s", "factor": _WORSE}
    ],
}


def routing() -> Picture:
    """Return accuracy, cost and latency of routers, and of each model alone, with a worse cheap one in the step."""
    agent = {
        "instances": 10, "concurrency": 60, "timeout": "60s",
        "service": {"law": "steps", "steps": [{"step": "answer"}]},
    }  # fmt: skip
    workload = arrivals(
        4.0,
        tokens_in=900,
        tokens_out={"law": "lognormal", "median": 90, "sigma": 0.5},
        kinds={"mmlu": 2, "gsm8k": 1},
    )
    pair = {"cheap": "cheap", "strong": "strong"}
    policies: dict[str, tuple[str, dict[str, Any]]] = {
        "strong only": ("strong", {}),
        "cheap first": ("strong", {"planner": {"use": "cheap_first", **pair, "threshold": 0.5}}),
        "half by kind": (
            "strong",
            {"planner": {"use": "predictive", **pair, "strong_share": "50%", "gains": [0.125, 0.218]}},
        ),
        "cheap only": ("cheap", {}),
    }
    ran = {
        label: run(
            agent | {"model": model},
            [workload],
            controllers,
            models=_MODELS,
            servers=_SERVERS,
            quality=_QUALITY,
        )
        for label, (model, controllers) in policies.items()
    }
    right, costs, waits = [], [], []
    facts: Facts = {}
    for number, (label, tables) in enumerate(ran.items()):
        requests = tables.requests
        when, correct = requests["t_arrive_s"], requests["failure"] == 0
        right.append(Line(label, CENTRES_S, 100 * share(when, correct), number))
        costs.append(Line(label, CENTRES_S, 1000 * mean(when, requests["cost_usd"]), number))
        waits.append(Line(label, CENTRES_S, quantile(when, requests["latency_s"], 0.95), number))
        step = during(when, STEP_S)
        for name, counted in (("before", when < STEP_S[0]), ("step", step)):
            facts[f"right {name}", label] = share_of(correct[counted])
            facts[f"cost {name}", label] = 1000 * float(requests["cost_usd"][counted].mean())
        facts["p95", label] = float(np.quantile(requests["latency_s"], 0.95))
        facts["failed", label] = float(np.sum(requests["ending"] != 1))
    first = ran["cheap first"].attempts
    again = first["reason"] == Code.ESCALATED
    for name, span in (("before", (0.0, STEP_S[0])), ("step", STEP_S)):
        counted = during(first["t_dispatch_s"], span)
        asked_again = int(again[counted].sum())
        facts["escalated", name] = asked_again / (int(counted.sum()) - asked_again)
    panels = (
        arriving(ran["strong only"]),
        Panel("Right answers (%)", right, 100.0, 1.6),
        Panel("Cost of a task ($ per 1,000)", costs, None, 1.4),
        Panel("p95 latency (s)", waits, None, 1.2),
    )
    says = (
        f"With the strong model only, with the cheap one first, with half of the tasks to each by their kind, and with "
        f"the cheap one only, {said(facts, 'right before', ' %')} of the answers are right until the step, and a "
        f"thousand tasks cost {said(facts, 'cost before')} US dollars. In the step the cheap model is right "
        f"{100 * (1 - _WORSE):.0f} % less often: {said(facts, 'right step', ' %')} are right. What looks at the answer "
        f"sees that and escalates {100 * facts['escalated', 'step']:.0f} % in place of "
        f"{100 * facts['escalated', 'before']:.0f} %, for {facts['cost step', 'cheap first']:.1f} dollars; a share by "
        f"kind stays as it was set. 95 % take up to {said(facts, 'p95', ' s')}: who is asked twice waits for both. The "
        "accuracies are measured ones (Mixtral 8x7B and GPT-4 at MMLU and GSM8K); prices, latencies, drift and an AUC "
        "of 0.8 for the scores are assumed."
    )
    alternative = "Right answers, cost and latency of two routers and of two models alone"
    return Picture(panels, Shaded("the cheap model is worse", (STEP_S,)), alternative, says, facts)
