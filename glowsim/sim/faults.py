"""Things that go wrong at a stated time: scripts as SimPy processes, since they are few."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glowsim.sim.world import World

__all__ = ["CrashFault", "ErrorFault", "Fault", "SlowFault"]


@dataclass(frozen=True)
class CrashFault:
    """The first ``instances`` ready ones die with their work; fresh ones start when the fault ends."""

    agent: int
    at_s: float
    lasts_s: float
    instances: int

    def script(self, world: World) -> Generator[Any, Any, None]:
        """Run as a SimPy process."""
        yield world.environment.timeout(self.at_s)
        victims = world.victims(self.agent, self.instances)
        for replica in victims:
            world.crash(replica)
        yield world.environment.timeout(self.lasts_s)
        for _ in victims:
            world.come_back(self.agent)


@dataclass(frozen=True)
class SlowFault:
    """The first ``instances`` ready ones serve ``factor`` times slower: up, and hard to notice."""

    agent: int
    at_s: float
    lasts_s: float
    instances: int
    factor: float

    def script(self, world: World) -> Generator[Any, Any, None]:
        """Run as a SimPy process."""
        yield world.environment.timeout(self.at_s)
        victims = world.victims(self.agent, self.instances)
        for replica in victims:
            replica.engine.set_speed(1.0 / self.factor, world.jobs(replica))
        yield world.environment.timeout(self.lasts_s)
        for replica in victims:
            replica.engine.set_speed(1.0, world.jobs(replica))


@dataclass(frozen=True)
class ErrorFault:
    """A share of the attempts fails, on top of those that fail anyway."""

    agent: int
    at_s: float
    lasts_s: float
    error: float

    def script(self, world: World) -> Generator[Any, Any, None]:
        """Run as a SimPy process."""
        yield world.environment.timeout(self.at_s)
        world.extra_error[self.agent] = world.extra_error.get(self.agent, 0.0) + self.error
        yield world.environment.timeout(self.lasts_s)
        world.extra_error[self.agent] -= self.error


Fault = CrashFault | SlowFault | ErrorFault
