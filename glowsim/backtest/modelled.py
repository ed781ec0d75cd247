"""The judged part of a log replayed through the simulated world that was fitted to the other part."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from glowsim import build
from glowsim.importing.part import ImportProblem, answered, keys, part
from glowsim.importing.scenario import Imported, replay
from glowsim.importing.service import replayable
from glowsim.results import fold
from glowsim.scenario import Scenario
from glowsim.scenario.quantities import DURATION
from glowsim.traces.log import Log

__all__ = ["Calls", "Floats", "Ints", "Replayed", "replay_part"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Calls(NamedTuple):
    """The calls of one replication, one a row."""

    model: Ints
    """Place among the scenario's models."""
    answered: npt.NDArray[np.bool_]
    latency_s: Floats
    first_token_s: Floats
    tokens_in: Floats
    tokens_out: Floats
    cost_usd: Floats


class Replayed(NamedTuple):
    """What the simulated world made of the judged part."""

    known: npt.NDArray[np.bool_]
    """Which rows of the judged part were replayed: those of agents and models that the fitted part has."""
    model: Ints
    """Place among the scenario's models of each row; -1 where it was not replayed."""
    models: tuple[str, ...]
    answers: list[Calls]
    """By replication, the calls that the log says were answered, none of which fails."""
    calls: list[Calls]
    """By replication, all calls; which of them fail is drawn."""
    remarks: tuple[str, ...]


def replay_part(
    imported: Imported, judged: Log, replications: int, progress: Callable[[int, int], None] | None = None
) -> Replayed:
    """Run the scenario that was fitted, with the judged part's arrivals and tokens as its workload.

    Twice: the calls that the log says were answered without any failure, for cost, tokens and latencies, since a
    costly call that fails by chance is no error of the prices; and all calls with failures, for their share. A
    model's agents are the fitted part's: calls of others cannot be modelled, and are left out here.

    Parameters
    ----------
    imported
        Of the fitted part.
    judged
        The other part.
    replications
        How many, at least 2.
    progress
        Told how many are done, of how many.

    Raises
    ------
    ImportProblem
        None of the judged part's answers is of an agent in the fitted part.
    """
    places, found = keys(judged)
    fleet = {each["agent"]: each["model"] for each in imported.scenario["fleet"]}
    agents = [agent if (agent := imported.agents.get(key)) in fleet else None for key in found]
    names = tuple(imported.scenario["models"])
    numbers = np.array([-1 if agent is None else names.index(fleet[agent]) for agent in agents])
    whose = np.array([agent or "" for agent in agents])[places]
    known = whose != ""
    good = known & answered(judged) & replayable(judged)
    if not good.any():
        raise ImportProblem(
            f"{judged.source}: no answer in the part that is judged is of an agent in the part that was fitted on"
        )
    sound, _ = _scenario(_without_failures(imported.scenario), judged, whose, good)
    whole, remarks = _scenario(imported.scenario, judged, whose, known)
    answers, calls = [], []
    for number in range(replications):
        answers.append(_run(*sound, number))
        calls.append(_run(*whole, number))
        if progress is not None:
            progress(number + 1, replications)
    return Replayed(known, numbers[places], names, answers, calls, tuple(remarks))


def _scenario(
    said: dict[str, Any], judged: Log, whose: npt.NDArray[np.str_], chosen: npt.NDArray[np.bool_]
) -> tuple[tuple[Scenario, dict[str, str]], list[str]]:
    """Return the scenario that replays some rows with the files that it reads, and what is to be said of them."""
    rows = part(judged, chosen)
    own = {agent: whose[chosen] == agent for agent in dict.fromkeys(whose[chosen].tolist())}
    workload, files, remarks = replay(rows, own, "judged")
    used = {entry["agents"] for entry in workload}
    scenario = Scenario.model_validate(
        {
            **said,
            "duration": DURATION.write(float(max(ceil(float(rows.t_s[-1])), 1) + 1)),
            "workload": workload,
            "fleet": [each for each in said["fleet"] if each["agent"] in used],
            "origins": {},
        }
    )
    return (scenario, files), remarks


def _without_failures(said: dict[str, Any]) -> dict[str, Any]:
    fleet = [{key: value for key, value in each.items() if key != "failures"} for each in said["fleet"]]
    servers = {name: {**server, "error": 0.0} for name, server in said.get("servers", {}).items()}
    return {**said, "fleet": fleet, "servers": servers}


def _run(scenario: Scenario, files: dict[str, str], number: int) -> Calls:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        built = build.replication(scenario, number, data=Path(folder))
    built.world.start()
    built.world.run(scenario.duration_s + scenario.drain_s)
    requests = fold(built.journal.recording(), scenario).requests
    names = list(scenario.models)
    model_of = np.array([names.index(agent.model) for agent in scenario.agents().values()])
    return Calls(
        model_of[requests["agent"]],
        requests["ending"] == 1,
        requests["latency_s"],
        requests["t_first_token_s"] - requests["t_arrive_s"],
        requests["tokens_in"].astype(np.float64),
        requests["tokens_out"].astype(np.float64),
        requests["cost_usd"],
    )
