"""Where users were, and where they were served."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from glowsim.report.blocks import Block, section, table
from glowsim.report.numbers import DASH, exact, plain
from glowsim.report.reading import First
from glowsim.scenario import Scenario

__all__ = ["regions"]


def regions(first: First, scenario: Scenario) -> Iterator[Block]:
    """Yield the table of the regions, where users or the agents that they asked were in more than one.

    Parameters
    ----------
    first
        The first replication's tables.
    scenario
        What was run.
    """
    requests, names = first.requests, list(scenario.regions)
    homes = np.array([names.index(agent.region) for agent in scenario.agents().values()])
    users = requests["region"].numbers(names)
    served = homes[requests["agent"].numbers(list(scenario.agents()))]
    counted = requests["t_arrive_s"] >= scenario.warmup_s
    answered = counted & (requests["ending"].numbers(["answered"]) == 0)
    pairs = np.unique(np.column_stack((users, served))[counted], axis=0)
    if len(np.unique(pairs)) < 2:
        return
    rows = []
    for here, there in pairs.tolist():
        mine = (users == here) & (served == there)
        latency_s = requests["latency_s"][mine & answered]
        asked = int((mine & counted).sum())
        p50, p95 = np.quantile(latency_s, (0.5, 0.95)).tolist() if len(latency_s) else (None, None)
        share = len(latency_s) / asked
        rows.append(
            [names[here], names[there], asked, plain(share, "fraction"), plain(p50, "duration"), plain(p95, "duration")]
        )  # fmt: skip
    apart = np.count_nonzero((users != served) & counted) / np.count_nonzero(counted)
    lead = (
        "The first replication's requests by the region of the user and that of the agent that was asked; "
        f"{plain(apart, 'fraction')} were asked of an agent elsewhere. Each attempt takes the round trip between the "
        "two more."
    )
    found = table("users in|asked in|>requests|>answered|>median|>p95", rows)
    yield section("regions", "Regions", lead, [found, table("|*", _said(scenario))])


def _said(scenario: Scenario) -> list[list[str]]:
    """Return the round trips, residency and services as written."""
    trips = [
        f"{a} to {b} {exact(trip_s, 'duration')}"
        for a, to in scenario.latency.items()
        for b, trip_s in to.items()
    ]
    only = [f"{users} only in {', '.join(allowed)}" for users, allowed in scenario.residency.items()]
    rows = [["round trips", ", ".join(trips) or DASH], ["residency", "; ".join(only) or "anywhere"]]
    for name, service in scenario.services.items():
        agents = ", ".join(service.agents)
        rows.append([f"service {name}", f"{agents}; failover after {exact(service.failover_s, 'duration')}"])
    return rows
