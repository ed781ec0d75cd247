"""The front door of services: which agent a user's request goes to, by the simulator's rule.

`glowsim.sim.front_door` has the same rule for regions that are lost. An agent is the only one of its service in its
region, and is lost while nothing of it can serve. Both worlds wait as long: a gateway that left a region at once would
promise more than what was simulated, and throw users to and fro with every restart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import NamedTuple

from glowsim.core.types import Command, Event, InstanceChanged

__all__ = ["FrontDoor", "Service"]

_log = logging.getLogger(__name__)


class Service(NamedTuple):
    """A service with an agent a region."""

    order: Mapping[int, tuple[int, ...]]
    """Users' region -> the agents that may serve them, the nearest first, at least one."""
    failover_s: float
    """How long an agent must be lost until requests go elsewhere, and back until they return."""


class FrontDoor:
    """Decides which agent a request for a service is for.

    The rule: the first agent in the order of the user's region that has not been lost for ``failover_s``, or has been
    back for as long; where all are left, the first, so that residency holds and the request waits or fails. A shorter
    loss moves nobody. What is lost at the beginning is left at once: nobody has been sent there yet.

    Parameters
    ----------
    services
        By name.
    names
        Of the agents, by number: for the log.
    servable
        Returns whether an agent can be served now: `Driver.servable`.
    now_s
        The journal's time: `Driver.now_s`.

    >>> lost, now_s = set(), 0.0
    >>> tax = Service({0: (0, 1)}, failover_s=60.0)
    >>> door = FrontDoor({"tax": tax}, ["eu", "us"], lambda agent: agent not in lost, lambda: now_s)
    >>> lost.add(0); door.agent("tax", 0)
    0
    >>> now_s = 61.0; door.agent("tax", 0)
    1
    """

    def __init__(
        self, services: Mapping[str, Service], names: Sequence[str], servable: Callable[[int], bool],
        now_s: Callable[[], float],
    ) -> None:  # fmt: skip
        self.services = services
        self._names = names
        self._servable = servable
        self._now_s = now_s
        self._of: dict[int, list[str]] = {}
        """Agent -> its services."""
        for name, service in services.items():
            for agent in {each for nearest in service.order.values() for each in nearest}:
                self._of.setdefault(agent, []).append(name)
        self._state = {agent: (servable(agent), -inf) for agent in self._of}
        """Agent -> (whether it can be served, since when)."""
        self._left = {
            (name, agent) for agent, names in self._of.items() for name in names if not self._state[agent][0]
        }
        """(service, agent) that its users are kept from."""

    def saw(self, event: Event, commands: Sequence[Command]) -> None:
        """Take in an event, as the driver's ``watch``: one that changes an agent's instances may begin a loss."""
        if type(event) is InstanceChanged and event.agent in self._of:
            self._look(event.agent)

    def agent(self, service: str, region: int) -> int | None:
        """Return the agent that a service's request from users of a region is for; None: none may serve them."""
        nearest = self.services[service].order.get(region)
        if nearest is None:
            return None
        for agent in nearest:
            self._look(agent)
        return next((agent for agent in nearest if (service, agent) not in self._left), nearest[0])

    def _look(self, agent: int) -> None:
        """Act on what has been so for long enough, then see how it is now."""
        now_s = self._now_s()
        there, since_s = self._state[agent]
        for name in self._of[agent]:
            if now_s - since_s >= self.services[name].failover_s and ((name, agent) in self._left) is there:
                does = "return to" if there else "are kept from"
                _log.warning("service %s: users %s agent %s", name, does, self._names[agent])
                self._left ^= {(name, agent)}
        if self._servable(agent) is not there:
            self._state[agent] = not there, now_s
