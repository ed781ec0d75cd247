"""What scenarios give for the claims that they are to show: each is run once, replication by replication."""

from __future__ import annotations

import math
import multiprocessing
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

from glowsim.claims.arithmetic import evaluate
from glowsim.claims.document import Claims, Shown
from glowsim.claims.verdicts import Simulated
from glowsim.core import journal
from glowsim.core.errors import GlowsimError
from glowsim.core.types import Finished, Observed
from glowsim.experiment.replicate import journal_path, replicate
from glowsim.resources import resource
from glowsim.scenario import Scenario
from glowsim.scenario.loader import load
from glowsim.stats.intervals import t_interval

__all__ = ["Measured", "amount", "measure", "simulate"]

_REPLICATIONS: Final = 5
"""Of a scenario that does not say."""

Run = tuple[str, tuple[str, ...]]
"""A scenario and its overrides."""


class Measured(NamedTuple):
    """The figures of a replication."""

    fleet: dict[str, float]
    by_agent: dict[str, dict[str, float]]


def simulate(
    document: Claims, *, data: Path | None = None, jobs: int = 1, progress: Callable[[str], None] | None = None,
) -> dict[str, Simulated]:  # fmt: skip
    """Return claim -> what its scenario gives, with a 95 % interval over the scenario's replications.

    Parameters
    ----------
    document
        The claims.
    data
        The folder of recorded traces, for scenarios that need it.
    jobs
        Processes to spread replications over, at least 1.
    progress
        Told which scenario is run, with its overrides.

    Raises
    ------
    GlowsimError
        A scenario cannot be run, or gives no such figure.
    """
    needed = [
        run for each in document.shown for run in ((each.scenario, ()), (each.scenario, each.less))
    ]  # overrides of nothing are the scenario itself
    scenarios, measured = {}, {}
    for run in dict.fromkeys(needed):
        name, overrides = run
        if progress is not None:
            progress(" -s ".join((name, *overrides)))
        scenarios[run] = load(_file_of(name), overrides)
        measured[run] = measure(scenarios[run], data=data, jobs=jobs)
    found = {}
    for shown in document.shown:
        plain: Run = (shown.scenario, ())
        values = amount(shown, scenarios[plain], measured[plain], measured[shown.scenario, shown.less])
        if not all(map(math.isfinite, values)):
            raise GlowsimError(f"{shown.scenario} has no {shown.metric}, which {shown.claim} is about")
        mean, low, high, n = t_interval(values)
        if n == 1:
            low = high = mean
        found[shown.claim] = Simulated(shown, document.claims[shown.claim].value, mean, low, high)
    return {name: found[name] for name in document.claims if name in found}


def measure(
    scenario: Scenario, *, replications: int | None = None, data: Path | None = None, jobs: int = 1
) -> list[Measured]:
    """Return the figures of a scenario's replications, in order.

    Parameters
    ----------
    scenario
        What to run.
    replications
        How many, at least 1; default: the scenario's own number, else 5.
    data
        The folder of recorded traces.
    jobs
        Processes to spread them over, at least 1.
    """
    numbers = range(replications or scenario.replications or _REPLICATIONS)
    with tempfile.TemporaryDirectory() as folder:
        if jobs == 1:
            return [_measured(scenario, number, Path(folder), data) for number in numbers]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(jobs, len(numbers)), mp_context=context) as pool:
            futures = [pool.submit(_measured, scenario, number, Path(folder), data) for number in numbers]
            return [future.result() for future in futures]


def _measured(scenario: Scenario, number: int, folder: Path, data: Path | None) -> Measured:
    done = replicate(scenario, number, folder, data=data)
    path = journal_path(folder, number)
    recording = journal.read(path)
    path.unlink()
    finished = recording.table(Finished)
    marks = [event.value for event in recording.loose(Observed) if event.metric == "rating"]
    fleet = done.figures | {
        "tokens_used": float(
            finished["tokens_in"].sum(dtype=float) + finished["tokens_out"].sum(dtype=float)
        ),
        "rating": math.fsum(marks) / len(marks) if marks else math.nan,
    }
    return Measured(fleet, {name: done.by_group[name] for name in scenario.agents()})


def amount(
    shown: Shown, scenario: Scenario, plain: Sequence[Measured], changed: Sequence[Measured]
) -> list[float]:
    """Return a figure of every replication; of a difference, what the changed scenario has above the plain one.

    Parameters
    ----------
    shown
        Which figure.
    scenario
        For its agents and their domains.
    plain, changed
        Replications of the scenario, and of the one with the overrides: paired, for they share their seeds.
    """
    of_plain = [_value(shown, scenario, each) for each in plain]
    if not shown.less:
        return of_plain
    of_changed = [_value(shown, scenario, each) for each in changed]
    return [other - one for one, other in zip(of_plain, of_changed, strict=True)]


def _value(shown: Shown, scenario: Scenario, measured: Measured) -> float:
    if shown.domain is not None:
        agents = [name for name, agent in scenario.agents().items() if agent.domain == shown.domain]
        if not agents:
            raise GlowsimError(
                f"{shown.scenario} has no domain {shown.domain!r}, which {shown.claim} is about"
            )
        mine = math.fsum(measured.by_agent[name][shown.metric] for name in agents)
        return mine / math.fsum(each[shown.metric] for each in measured.by_agent.values())
    figures: Mapping[str, float] = measured.fleet
    if shown.agent is not None:
        if shown.agent not in measured.by_agent:
            raise GlowsimError(f"{shown.scenario} has no agent {shown.agent!r}, which {shown.claim} is about")
        figures = measured.by_agent[shown.agent]
    return evaluate(shown.metric, figures)


def _file_of(name: str) -> Path:
    return Path(name) if name.endswith((".yaml", ".yml")) else resource("scenarios", f"{name}.yaml")
