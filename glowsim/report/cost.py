"""What the first replication cost: tokens and instances by model and domain."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from glowsim.report.answer import agents
from glowsim.report.blocks import Block, section, table
from glowsim.report.numbers import DASH, plain
from glowsim.report.reading import First
from glowsim.scenario import Scenario

__all__ = ["breakdown", "cost"]

Group = dict[str, float]

_TOKENS: Final = ("tokens_in", "tokens_cached", "tokens_out")


def breakdown(first: First, scenario: Scenario, summary: Mapping[str, Any]) -> dict[tuple[str, str], Group]:
    """Return (model, domain) -> tokens and US dollars, for requests that arrived after the warm-up.

    Tokens are those of all attempts, failed ones included: they are billed too. An instance's cost goes to
    its agent's own model.

    Parameters
    ----------
    first
        The first replication.
    scenario
        For each agent's domain and model.
    summary
        For each agent's cost of tokens and instances together.
    """
    entries = scenario.agents()
    requests, attempts = first.requests, first.attempts
    order = np.argsort(requests["request_id"], kind="stable")
    mine = order[np.searchsorted(requests["request_id"][order], attempts["request_id"])]
    counted = requests["t_arrive_s"][mine] >= scenario.warmup_s
    whose, models = requests["agent"], attempts["model"]
    n_models = len(models.names)
    keys = (whose.codes[mine] * n_models + models.codes)[counted]
    sums = {
        name: np.bincount(keys, attempts[name][counted], minlength=len(whose.names) * n_models)
        for name in (*_TOKENS, "cost_usd")
    }
    found: dict[tuple[str, str], Group] = {}

    def group(model: str, domain: str | None) -> Group:
        empty = dict.fromkeys((*_TOKENS, "tokens_usd", "instances_usd"), 0.0)
        return found.setdefault((model, domain or DASH), empty)

    token_usd = dict.fromkeys(entries, 0.0)
    for at, agent in enumerate(whose.names):
        for number, model in enumerate(models.names):
            key = at * n_models + number
            if sums["tokens_in"][key] or sums["tokens_out"][key]:
                into = group(model, entries[agent].domain)
                for name in _TOKENS:
                    into[name] += float(sums[name][key])
                into["tokens_usd"] += float(sums["cost_usd"][key])
                token_usd[agent] += float(sums["cost_usd"][key])
    for agent, entry in entries.items():
        total_usd = summary["agents"][agent]["cost_usd"]
        group(entry.model, entry.domain)["instances_usd"] += max(total_usd - token_usd[agent], 0.0)
    return found


def cost(first: First, scenario: Scenario, summary: Mapping[str, Any]) -> Block:
    """Return the section of the cost: by model and domain, and by agent where there are several."""
    groups = breakdown(first, scenario, summary)
    total_usd = math.fsum(map(_usd, groups.values()))
    rows = [
        [
            model, domain, *(plain(each[name], "count") for name in _TOKENS),
            plain(each["tokens_usd"], "money"), plain(each["instances_usd"], "money"),
            plain(_usd(each), "money"),
            plain(_usd(each) / total_usd, "fraction") if total_usd else DASH,
        ]
        for (model, domain), each in sorted(groups.items(), key=lambda item: (-_usd(item[1]), item[0]))
    ]  # fmt: skip
    columns = "model|domain|>input tokens|>of them cached|>output tokens|>tokens|>instances|>together|>share"
    lead = (
        "First replication, requests that arrived after the warm-up. All attempts are billed, failed ones "
        "too; an instance counts for its agent's model from its start to its end."
    )
    by_model = table(columns, rows[:20], title="By model and domain", more=_rest(len(rows) - 20))
    return section("cost", "Cost", lead, [by_model, *agents(summary)])


def _usd(group: Group) -> float:
    return group["tokens_usd"] + group["instances_usd"]


def _rest(n: int) -> str:
    return f"and {n} more" if n > 0 else ""
