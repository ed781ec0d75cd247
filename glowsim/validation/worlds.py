"""Queueing stations as scenarios, run through the control plane and the simulated world."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf, isclose
from typing import Any

import numpy as np
import numpy.typing as npt

from glowsim import build, results
from glowsim.core.errors import WorldError
from glowsim.core.journal import Journal
from glowsim.core.streams import Streams
from glowsim.core.types import Request
from glowsim.results import Tables
from glowsim.scenario import Scenario
from glowsim.sim.laws import Constant
from glowsim.sim.service import Truth
from glowsim.sim.workload.columns import AgentTraits, Columns, Shape
from glowsim.sim.workload.sources import OpenSource
from glowsim.sim.world import World

__all__ = ["SEED", "arriving", "simulated", "station"]

Settings = dict[str, Any]
Moments = Callable[[np.random.Generator], Iterator[npt.NDArray[np.float64]]]
SEED = 7
"""Of every case: one set of seeds, fixed."""
_LITTLE_TOLERANCE = 1e-6


def station(rate_per_s: float, tasks: int, **changes: Any) -> Scenario:
    """Return one agent with Poisson arrivals, exponential services of mean 1 s, one server, and patient users.

    Parameters
    ----------
    rate_per_s
        Of arrivals.
    tasks
        How many arrive.
    changes
        ``agent`` is merged into the agent's entry; everything else replaces a part of the scenario.

    >>> station(8, 100, agent={"instances": 10}).fleet[0].instances
    10
    """
    agent = {
        "agent": "station",
        "model": "m",
        "instances": 1,
        "concurrency": 1,
        "timeout": "3000d",
        "service": {"law": "time", "time": {"law": "exponential", "mean": "1s"}},
    } | changes.pop("agent", {})
    return Scenario.model_validate(
        {
            "title": "station",
            "question": "Does it agree with theory?",
            "seed": SEED,
            "duration": "3000d",
            "drain": "1d",
            "models": {"m": {"input": "$1/1M", "output": "$1/1M"}},
            "fleet": [agent],
            "workload": [
                {
                    "kind": "poisson",
                    "rate": f"{rate_per_s}/s",
                    "tokens_in": 1,
                    "tokens_out": 1,
                    "tasks": tasks,
                }
            ],
            **changes,
        }
    )


def simulated(scenario: Scenario, replication: int) -> Tables:
    """Return the tables of one replication, run until everything is answered.

    Raises
    ------
    WorldError
        Little's law does not hold over the run.
    """
    built = build.replication(scenario, replication)
    return _run(built.world, built.journal, scenario)


def arriving(
    scenario: Scenario, replication: int, tasks: int, moments: Moments, patience_s: float = inf
) -> Tables:
    """Return the tables of one replication with arrivals that no workload of a scenario makes.

    Parameters
    ----------
    scenario
        The station; its own workload is not used.
    replication
        Which replication, from 0.
    tasks
        How many arrive.
    moments
        Makes blocks of moments of arrival, in seconds, with the generator that it is given.
    patience_s
        Mean of the exponential time after which a user gives up, above 0; inf: nobody does.

    Raises
    ------
    WorldError
        Little's law does not hold over the run.
    """
    streams = Streams(scenario.seed, replication)
    agents = [build.agent_world(scenario, agent) for agent in scenario.agents().values()]
    traits = [AgentTraits(agent.service, agent.region, lucky=False) for agent in agents]
    one = Constant(1.0)
    shape = Shape(agents=(0,), weights=(1.0,), tokens_in=one, tokens_out=one, max_tokens_out=1)
    columns = _Impatient(patience_s, shape, traits, streams)
    blocks = moments(streams.generator("workload", "arrivals"))
    journal = Journal(build.header(scenario, replication))
    source = OpenSource(columns, blocks, inf, tasks)
    world = World(build.control_plane(scenario, streams), journal, agents, [source], streams)
    return _run(world, journal, scenario)


class _Impatient(Columns):
    """Requests whose users each give up after a time of their own."""

    def __init__(
        self, patience_s: float, shape: Shape, traits: Sequence[AgentTraits], streams: Streams
    ) -> None:
        super().__init__("0", shape, traits, streams)
        self._patience_s = patience_s
        self._drawn = streams.generator("workload", "patience")

    def rows(
        self, ids: Sequence[int], arrivals_s: Sequence[float], *more: Any, **named: Any
    ) -> tuple[list[Request], list[Truth]]:
        requests, truths = super().rows(ids, arrivals_s, *more, **named)
        if self._patience_s < inf:
            ends_s = np.asarray(arrivals_s) + self._patience_s * self._drawn.standard_exponential(len(ids))
            requests = [
                request._replace(deadline_s=end_s)
                for request, end_s in zip(requests, ends_s.tolist(), strict=True)
            ]
        return requests, truths


def _run(world: World, journal: Journal, scenario: Scenario) -> Tables:
    world.start()
    world.run(inf)
    tables = results.fold(journal.recording(), scenario)
    mean_open, rate_times_time = results.little(tables)
    if not isclose(mean_open, rate_times_time, rel_tol=_LITTLE_TOLERANCE, abs_tol=1e-12):
        raise WorldError(
            f"Little's law fails: {mean_open} open on average, {rate_times_time} by rate and time"
        )
    return tables
