"""From the figures of replications to a summary: means with intervals, service levels judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from glowsim.experiment.replicate import Replicated
from glowsim.presets.serving import outside, serving
from glowsim.scenario import METRICS, Scenario
from glowsim.scenario.model import Slo
from glowsim.sim.serving.saturation import verdict_on
from glowsim.stats.intervals import t_interval
from glowsim.stats.verdict import Verdict, judge, judge_proportion

__all__ = ["EXIT_CODES", "judged", "summarise"]

_SHARES = ("success_rate", "error_rate")
"""Shares of the launched requests: judged by counts, which a run without a failure needs."""

EXIT_CODES = {"met": 0, "not met": 1, "undecided": 3}


def judged(slo: Slo, replications: Sequence[Replicated], *, deterministic: bool) -> Verdict:
    """Return the verdict on a service level: by counts for shares of requests, by replications otherwise."""
    figures = [each.figures if slo.agent is None else each.by_group[slo.agent] for each in replications]
    launched = [round(each["launched"]) for each in figures]
    if slo.metric in _SHARES and min(launched) > 0:
        counts = [round(each[slo.metric] * n) for each, n in zip(figures, launched, strict=True)]
        return judge_proportion(
            counts, launched, low=slo.minimum, high=slo.maximum, deterministic=deterministic
        )
    values = [each[slo.metric] for each in figures]
    return judge(values, low=slo.minimum, high=slo.maximum, deterministic=deterministic)


def _finite(value: float) -> float | None:
    """Return a number that JSON can hold: None for what does not exist or has no bound."""
    return value if math.isfinite(value) else None


def _metric(values: list[float], *, deterministic: bool) -> dict[str, Any]:
    there = [value for value in values if math.isfinite(value)]
    if len(there) < len(values):
        return {"value": _finite(math.fsum(there) / len(there)) if there else None, "low": None, "high": None}
    interval = t_interval(values)
    low, high = (interval.mean, interval.mean) if deterministic else (interval.low, interval.high)
    return {"value": interval.mean, "low": _finite(low), "high": _finite(high)}


def summarise(
    name: str, scenario: Scenario, replications: Sequence[Replicated], *, deterministic: bool
) -> dict[str, Any]:
    """Return the summary of a run, as plain JSON data.

    Parameters
    ----------
    name
        What the scenario is called: its file's name.
    scenario
        What was run.
    replications
        In order.
    deterministic
        Whether nothing in the scenario is random, so that one run says it all.
    """
    metrics = {
        metric: _metric([each.figures[metric] for each in replications], deterministic=deterministic)
        for metric in replications[0].figures
    }
    if min(each.figures["launched"] for each in replications) > 0:
        for metric in _SHARES:
            verdict = judged(
                Slo.model_construct(metric=metric, minimum=0.0, maximum=None, agent=None), replications,
                deterministic=deterministic,
            )  # fmt: skip
            metrics[metric] = {
                "value": verdict.value,
                "low": _finite(verdict.low),
                "high": _finite(verdict.high),
            }
    slos = []
    for slo in scenario.slos:
        verdict = judged(slo, replications, deterministic=deterministic)
        slos.append(
            {
                "name": slo.name,
                "metric": slo.metric,
                "agent": slo.agent,
                "bound": "max" if slo.minimum is None else "min",
                "target": slo.maximum if slo.minimum is None else slo.minimum,
                "unit": METRICS[slo.metric],
                "value": _finite(verdict.value),
                "low": _finite(verdict.low),
                "high": _finite(verdict.high),
                "verdict": verdict.verdict,
                "why": verdict.why,
            }
        )
    verdicts = {slo["verdict"] for slo in slos}
    overall = next((each for each in ("not met", "undecided") if each in verdicts), "met")
    mean_open, rate_times_time = replications[0].little
    return {
        "name": name,
        "scenario": scenario.title,
        "question": scenario.question,
        "seed": scenario.seed,
        "replications": len(replications),
        "deterministic": deterministic,
        "verdict": overall,
        "metrics": metrics,
        "cost_parts_usd": {
            part: math.fsum(each.cost_parts_usd[part] for each in replications) / len(replications)
            for part in replications[0].cost_parts_usd
        },
        "warnings": _warnings(scenario, replications),
        "servers": {name: _server(name, scenario, replications) for name in replications[0].servers},
        "agents": {
            agent: {metric: _finite(replications[0].by_group[agent][metric]) for metric in _AGENT_FIGURES}
            | {"domain": entry.domain, "model": entry.model}
            for agent, entry in scenario.agents().items()
        },
        "slos": slos,
        "expectations": [
            {
                "metric": expected.metric,
                "unit": METRICS[expected.metric],
                "low": expected.low,
                "high": expected.high,
                "value": metrics[expected.metric]["value"],
                "held": metrics[expected.metric]["value"] is not None
                and expected.low <= metrics[expected.metric]["value"] <= expected.high,
                "source": expected.source,
            }
            for expected in scenario.expectations
        ],
        "little": {"mean_open": mean_open, "rate_times_time": rate_times_time},
    }


def _server(name: str, scenario: Scenario, replications: Sequence[Replicated]) -> dict[str, Any]:
    """Return what a model server did, on the average over replications, and whether it can keep up."""
    did: dict[str, Any] = {
        figure: math.fsum(each.servers[name][figure] for each in replications) / len(replications)
        for figure in replications[0].servers[name]
    }
    if did.get("sustainable_per_s"):
        did["offered_per_s"] = did["calls"] / scenario.duration_s
        did["load"] = str(verdict_on(did["offered_per_s"], did["sustainable_per_s"]))
    return did


def _warnings(scenario: Scenario, replications: Sequence[Replicated]) -> list[str]:
    """Return where servers left what their presets hold for, each a sentence without its full stop."""
    found = []
    for name, server in scenario.servers.items():
        if server.preset is None or server.engine == "hosted" or name not in replications[0].servers:
            continue
        preset = serving(server.preset)
        at_once = max(each.servers[name]["most_at_once"] for each in replications)
        longest = max(each.servers[name]["longest"] for each in replications)
        ran = min(at_once, server.sequences or preset.max_num_seqs)
        found += [f"{name}: {said}" for said in outside(preset, ran, longest)]
    return found


_AGENT_FIGURES = (
    "launched", "success_rate", "latency_s_p50", "latency_s_p95", "latency_s_p99", "cost_usd", "cost_usd_per_task",
    "tokens_in", "tokens_out",
)  # fmt: skip
