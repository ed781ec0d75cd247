"""The traffic of a rollout, measured in a simulated run of a scenario."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from glowsim import build, results
from glowsim.core.errors import GlowsimError
from glowsim.scenario import Scenario

__all__ = ["Measured", "measure"]

_ANSWERED: Final = 1
_COLUMNS: Final = {"latency": "latency_s", "cost": "cost_usd"}


class Measured(NamedTuple):
    """What was measured: requests a second, guardrail -> share of them that was bad, and of how many requests."""

    rate_per_s: float
    base: dict[str, float]
    requests: int


def measure(
    scenario: Scenario, bounds: Mapping[str, float], *, data: Path | None = None, allow_plugins: bool = False
) -> Measured:
    """Run one replication and return the traffic of the agents that have variants, or of all where none has.

    Only requests of the first variant that were dispatched count, as only those are a rollout's baseline.

    Parameters
    ----------
    scenario
        What to run.
    bounds
        Guardrail (``latency``, ``cost``) -> its bound, in seconds or US dollars.
    data
        The folder of recorded traces.
    allow_plugins
        Whether controllers may be code beside the scenario.

    Raises
    ------
    GlowsimError
        Too few requests came in to measure a share.
    """
    built = build.replication(scenario, 0, data=data, allow_plugins=allow_plugins)
    built.world.start()
    built.world.run(scenario.duration_s + scenario.drain_s)
    requests = results.fold(built.journal.recording(), scenario).requests
    agents = list(scenario.agents().values())
    chosen = [place for place, agent in enumerate(agents) if agent.variants] or list(range(len(agents)))
    mine = np.isin(requests["agent"], chosen)
    counted = (
        mine & ~np.isnan(requests["t_dispatch_s"]) & (requests["ending"] > 0) & (requests["variant"] == 0)
    )
    count = int(counted.sum())
    if count < 100:
        raise GlowsimError(
            f"{scenario.title}: {count} requests are too few to measure what is bad: give --rate and --base-error"
        )
    base = {"errors": float((requests["ending"][counted] != _ANSWERED).mean())}
    for guardrail, bound in bounds.items():
        base[guardrail] = float((requests[_COLUMNS[guardrail]][counted] > bound).mean())
    return Measured(float(mine.sum()) / scenario.duration_s, base, count)
