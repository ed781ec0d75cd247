"""From a scenario's regions to round trips and the front door of the simulated world."""

from __future__ import annotations

from glowsim.scenario import Scenario
from glowsim.scenario.regions import RegionalService, places, round_trip_s
from glowsim.sim.front_door import FrontDoor, Regional

__all__ = ["front_door", "nearest_agents", "round_trips"]


def round_trips(scenario: Scenario) -> list[list[float]]:
    """Return the round trip in seconds from each region (row) to each region (column), by their numbers."""
    return [[round_trip_s(scenario.latency, a, b) for b in scenario.regions] for a in scenario.regions]


def front_door(scenario: Scenario) -> FrontDoor | None:
    """Return what sends the users of a scenario's services to agents; None: it has no services."""
    if not scenario.services:
        return None
    regions = [scenario.regions.index(agent.region) for agent in scenario.agents().values()]
    return FrontDoor([_regional(scenario, service) for service in scenario.services.values()], regions)


def nearest_agents(scenario: Scenario) -> dict[str, dict[int, tuple[int, ...]]]:
    """Return service -> users' region -> the agents that may serve them, nearest first, by number."""
    return {name: dict(_regional(scenario, each).order) for name, each in scenario.services.items()}


def _regional(scenario: Scenario, service: RegionalService) -> Regional:
    """Return a service with the order in which users of each region prefer the agents that may serve them."""
    data, agents = scenario.dump(), scenario.agents()
    numbers = {name: number for number, name in enumerate(agents)}
    entry = {name: agents[name].model_dump(by_alias=True, mode="json") for name in service.agents}
    order: dict[int, tuple[int, ...]] = {}
    for number, users in enumerate(scenario.regions):
        allowed = scenario.residency.get(users, scenario.regions)
        near = sorted(
            (name for name in service.agents if places(data, entry[name]) <= set(allowed)),
            key=lambda name: (
                round_trip_s(scenario.latency, users, agents[name].region),
                agents[name].region != users,
            ),
        )
        if near:
            order[number] = tuple(numbers[name] for name in near)
    return Regional(order, service.failover_s)
