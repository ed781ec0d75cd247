"""Paired replay where the truth is known: two variants of a scenario's agent on the tasks that it records there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glowsim import build, results
from glowsim.core.streams import Streams, uniform_at
from glowsim.core.types import Arrived, Plan, Request
from glowsim.pairs.planning import Campaigns, decided
from glowsim.pairs.problems import PairsError
from glowsim.pairs.verdict import Rules
from glowsim.scenario import Scenario
from glowsim.scenario.problems import did_you_mean

__all__ = ["Simulated", "simulate"]

_INVALID, _ERROR = range(2)
"""What a number is drawn for: added to the key."""


class Simulated(NamedTuple):
    """What a replay would come to, over many that meet the same tasks with other luck."""

    tasks: int
    """That the agent records while the scenario lasts."""
    baseline_error: float
    variant_error: float
    correlation: float
    """Of the two failures at a task; nan where a variant never fails, or always."""
    cost_usd: float
    """Of sending every task to both."""
    costs_usd: npt.NDArray[np.float64]
    """By campaign: of what was sent until it ended."""
    campaigns: Campaigns


def simulate(
    scenario: Scenario, agent: str, *, variant: str | None, model: str | None, rules: Rules, campaigns: int,
    data: Path | None = None, allow_plugins: bool = False,
) -> Simulated:  # fmt: skip
    """Return what a paired replay of the tasks that an agent records in a scenario would come to.

    The scenario runs once, which records the tasks; then each campaign sends all of them to both, in one random order.
    Who fails at what is the scenario's truth, a function of (seed, request, attempt): how hard a task is, is the same
    for both, and each attempt has luck of its own.

    Parameters
    ----------
    scenario
        The world.
    agent
        Whose tasks.
    variant
        Its version under test, as the scenario names it; None: the baseline's, with another model.
    model
        Answers the variant's calls; None: the agent's own.
    rules
        What is promised; no campaign ends for futility.
    campaigns
        How many, at least 1.
    data, allow_plugins
        As for running the scenario.

    Raises
    ------
    PairsError
        There is no such agent, variant or model, nothing to tell the two apart, or no task is recorded.
    """
    agents, models = scenario.agents(), list(scenario.models)
    _known("--agent", agent, agents)
    written = agents[agent]
    if variant is None and model is None:
        names = ", ".join(written.variants) or "none"
        raise PairsError(
            f"name what to try: --variant, of {agent}'s ({names}), or --model, of {', '.join(models)}"
        )
    if variant is not None:
        _known("--variant", variant, written.variants)
    if model is not None:
        _known("--model", model, scenario.models)
    number = list(agents).index(agent)
    requests, tokens = _recorded(scenario, number, data, allow_plugins=allow_plugins)
    version = 0 if variant is None else 1 + list(written.variants).index(variant)
    plans = [
        Plan(models.index(written.model), 0, 0, 0),
        Plan(models.index(model or written.model), version, 0, 0),
    ]
    failed = np.array([_failures(scenario, number, requests, plans, each) for each in range(campaigns)])
    order = Streams(scenario.seed).generator("pairs", "order").permutation(len(requests))
    differences = (failed[:, 1, :].astype(np.int8) - failed[:, 0, :])[:, order]
    found = decided(differences.T, rules)
    usd = _usd(scenario, models[plans[0].model], tokens) + _usd(scenario, models[plans[1].model], tokens)
    spent = np.cumsum(usd[order])
    return Simulated(
        len(requests), float(failed[:, 0].mean()), float(failed[:, 1].mean()), _correlation(failed),
        float(spent[-1]), spent[found.ended - 1], found,
    )  # fmt: skip


def _known(option: str, name: str, names: Mapping[str, Any]) -> None:
    if name not in names:
        meant = did_you_mean(name, tuple(names))
        hint = f"; did you mean {meant!r}?" if meant else ""
        raise PairsError(f"{option} {name!r}: the scenario has {', '.join(names) or 'none'}{hint}")


def _recorded(
    scenario: Scenario, agent: int, data: Path | None, *, allow_plugins: bool
) -> tuple[list[tuple[float, Request]], npt.NDArray[np.int64]]:
    """Return an agent's (moment, request), and what each used: tokens in, cached and out, in rows."""
    built = build.replication(scenario, 0, data=data, allow_plugins=allow_plugins)
    built.world.start()
    built.world.run(scenario.duration_s + scenario.drain_s)
    recording = built.journal.recording()
    arrived = recording.table(Arrived)
    arrived = arrived[arrived["agent"] == agent]
    if not len(arrived):
        raise PairsError(f"--agent {list(scenario.agents())[agent]!r}: no task comes to it in the scenario")
    attempts = results.fold(recording, scenario).attempts
    ids = arrived["request_id"]
    order = np.argsort(ids)
    mine = np.isin(attempts["request_id"], ids)
    rows = order[np.searchsorted(ids, attempts["request_id"][mine], sorter=order)]
    tokens = np.zeros((3, len(ids)), dtype=np.int64)
    for column, name in zip(tokens, ("tokens_in", "tokens_cached", "tokens_out"), strict=True):
        np.maximum.at(
            column, rows, attempts[name][mine]
        )  # of one whole attempt: retries are no part of a replay
    requests = [
        (
            float(row["t_s"]),
            Request(int(row["request_id"]), agent, int(row["tokens_in"]), 1, kind=int(row["kind"])),
        )
        for row in arrived
    ]
    return requests, tokens


def _failures(
    scenario: Scenario, agent: int, requests: list[tuple[float, Request]], plans: list[Plan], campaign: int
) -> npt.NDArray[np.bool_]:
    """Return who fails at which task: baseline and variant in rows."""
    judging = build.truth(scenario, campaign)
    world = build.agent_world(scenario, list(scenario.agents().values())[agent])
    luck = Streams(scenario.seed, campaign).key("pairs")
    failed = np.zeros((len(plans), len(requests)), dtype=np.bool_)
    for tries, (row, plan) in enumerate(zip(failed, plans, strict=True)):
        error = world.variants[plan.variant - 1].error if plan.variant else world.error
        for at, (t_s, request) in enumerate(requests):
            number = request.request_id
            row[at] = (
                uniform_at(luck + _INVALID, number) < world.invalid
                or uniform_at(luck + _ERROR, number, tries) < error
                or (
                    judging is not None
                    and not judging.quality.judge(
                        t_s, request, plan._replace(tokens_in=request.tokens_in), tries
                    ).correct
                )
            )
    return failed


def _usd(scenario: Scenario, model: str, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return what each task costs with a model, at the tokens that it used."""
    tokens_in, cached, tokens_out = tokens
    return results.costs_usd(
        [scenario.models[model].price], np.zeros_like(tokens_in), tokens_in, cached, tokens_out
    )


def _correlation(failed: npt.NDArray[np.bool_]) -> float:
    baseline, variant = failed[:, 0].ravel(), failed[:, 1].ravel()
    spread = float(baseline.std() * variant.std())
    both = float(np.mean(baseline & variant))
    return (both - float(baseline.mean() * variant.mean())) / spread if spread else math.nan
