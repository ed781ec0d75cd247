"""The front door: sends each user of a service to the nearest of its agents that is there and may serve them.

It goes by what DNS or health checks have told it, and hears of a lost region late: new requests go elsewhere
once a region has been lost for `failover_s`, and return once it has been back for as long. A shorter loss
moves nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from glowsim.core.types import Request
from glowsim.sim.environment import Environment

__all__ = ["FrontDoor", "Regional"]


@dataclass(frozen=True)
class Regional:
    """A service with an agent a region."""

    order: Mapping[int, tuple[int, ...]]
    """Users' region -> the agents that may serve them, the nearest first, at least one."""
    failover_s: float


class FrontDoor:
    """Decides which agent a request for a service is for.

    The rule: the first agent in the order of the user's region whose region is not known to be lost; where all
    that may serve the user are lost, the nearest of them, so that residency holds and the request fails.

    Parameters
    ----------
    services
        They are asked for by ``len(region_of)``, ``len(region_of) + 1`` and so on, in place of an agent.
    region_of
        The region of each agent, by number.

    >>> from glowsim.core.types import Request
    >>> door = FrontDoor([Regional({0: (0, 1), 1: (1,)}, 60.0)], region_of=[0, 1])
    >>> environment, asked = Environment(), Request(1, agent=2, tokens_in=9, max_tokens_out=9, region=0)
    >>> door.hear(environment, 0, lost=True)
    >>> environment.run(until=59.0); door.admit(asked).agent
    0
    >>> environment.run(until=61.0); door.admit(asked).agent
    1
    """

    def __init__(self, services: Sequence[Regional], region_of: Sequence[int]) -> None:
        self._services = services
        self._region_of = region_of
        self._first = len(region_of)
        self._away: list[set[int]] = [set() for _ in services]
        """The regions that each service's users are kept from."""
        self._news: dict[int, int] = {}
        """Region -> how often it was lost or came back."""
        self._asked: list[dict[int, int]] = []
        for service in services:
            self._asked.append({users: agents[0] for users, agents in service.order.items()})

    def admit(self, request: Request) -> Request:
        """Return a request with the agent that it is for in place of a service."""
        service = request.agent - self._first
        return request if service < 0 else request._replace(agent=self._asked[service][request.region])

    def hear(self, environment: Environment, region: int, *, lost: bool) -> None:
        """Take in that a region is lost, or is back: every service acts on it in its own time."""
        self._news[region] = news = self._news.get(region, 0) + 1
        for number, service in enumerate(self._services):
            heard = number, region, news, lost
            environment.call_at(environment.now + service.failover_s, self._act, heard)

    def _act(self, heard: tuple[int, int, int, bool]) -> None:
        number, region, news, lost = heard
        if news != self._news[region]:
            return  # it has changed again meanwhile
        away = self._away[number]
        if lost:
            away.add(region)
        else:
            away.discard(region)
        for users, agents in self._services[number].order.items():
            there = [agent for agent in agents if self._region_of[agent] not in away]
            self._asked[number][users] = there[0] if there else agents[0]
