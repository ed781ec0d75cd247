"""Things that go wrong at a stated time.

A fault begins, is active for a while, and ends. While it is active the world asks it what it does: to an
attempt that reaches an instance (`strikes`), to the speed of an instance (`slows`), to how long one takes to
start (`delays`), and whether probes get through (`hides`). Several may be active at once; they add up.
"""

from __future__ import annotations

from collections.abc import Generator
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from glowsim.core.types import Outcome

if TYPE_CHECKING:
    from glowsim.sim.world import Replica, World

__all__ = [
    "BrownOut", "Crash", "Errors", "Fault", "Garbage", "Hang", "Late", "Refuse", "RegionLoss", "ServerDown",
    "ServerSlow", "Silence", "Slow", "SlowStart", "Struck", "Throttle", "Tools",
]  # fmt: skip


class Struck(NamedTuple):
    """What an attempt comes to in place of being served."""

    outcome: Outcome
    after_s: float
    """Seconds until the gateway hears of it; inf: never, unless it cancels."""
    tokens_out: int = 0
    retry_after_s: float = 0.0


class Fault:
    """A fault that does nothing; each kind below does one thing.

    Parameters
    ----------
    agent
        Whom it hits.
    at_s, lasts_s
        When it begins and how long it is active, in seconds.
    """

    def __init__(self, agent: int, at_s: float, lasts_s: float) -> None:
        self.agent = agent
        self.at_s = at_s
        self.lasts_s = lasts_s
        self.number = 0
        """Its place among the faults, by which it draws its luck."""

    def script(self, world: World) -> Generator[Any, Any, None]:
        """Run as a SimPy process."""
        yield world.environment.timeout(self.at_s)
        self.begin(world)
        world.troubles.setdefault(self.agent, []).append(self)
        world.pace(self.agent)
        yield world.environment.timeout(self.lasts_s)
        world.troubles[self.agent].remove(self)
        if not world.troubles[self.agent]:
            del world.troubles[self.agent]
        world.pace(self.agent)
        self.end(world)

    def begin(self, world: World) -> None:
        """Do what is done once, at the beginning."""

    def end(self, world: World) -> None:
        """Do what is done once, at the end."""

    def strikes(self, replica: Replica, luck: float) -> Struck | None:
        """Return what an attempt on this instance comes to, or None: it is served; luck is uniform on 0..1."""
        return None

    def slows(self, replica: Replica) -> float:
        """Return the factor on an instance's times."""
        return 1.0

    def delays(self) -> float:
        """Return the factor on the time that an instance takes to start."""
        return 1.0

    def hides(self, replica: Replica) -> bool | None:
        """Return whether a probe of this instance fails; None: nobody hears of any probe."""
        return False

    def tools(self) -> tuple[float, float]:
        """Return (share of tools' uses that fail on top of those that fail anyway, factor on their time)."""
        return 0.0, 1.0

    def lag_s(self) -> float:
        """Return by how much the results of probes are late."""
        return 0.0

    def errors(self) -> float:
        """Return the share of attempts that fail on the way, on top of those that fail anyway."""
        return 0.0


class _OnInstances(Fault):
    """Hits the first ``instances`` ready ones, by number."""

    def __init__(self, agent: int, at_s: float, lasts_s: float, instances: int) -> None:
        super().__init__(agent, at_s, lasts_s)
        self._count = instances
        self._victims: frozenset[int] = frozenset()

    def begin(self, world: World) -> None:
        self._victims = frozenset(replica.number for replica in world.victims(self.agent, self._count))


class Crash(Fault):
    """The first ``instances`` ready ones die with their work; fresh ones start when the fault ends."""

    def __init__(self, agent: int, at_s: float, lasts_s: float, instances: int) -> None:
        super().__init__(agent, at_s, lasts_s)
        self._count = instances
        self._lost = 0

    def begin(self, world: World) -> None:
        """Have them die."""
        for replica in world.victims(self.agent, self._count):
            if replica.number in world.replicas:  # the scaler may let go of one when it hears of another
                world.crash(replica)
                self._lost += 1

    def end(self, world: World) -> None:
        """Have as many start."""
        for _ in range(self._lost):
            world.come_back(self.agent)


class Slow(_OnInstances):
    """A gray failure: instances serve ``factor`` times slower, up, and hard to notice."""

    def __init__(self, agent: int, at_s: float, lasts_s: float, instances: int, factor: float) -> None:
        super().__init__(agent, at_s, lasts_s, instances)
        self._factor = factor

    def slows(self, replica: Replica) -> float:
        """Return the factor for its victims."""
        return self._factor if replica.number in self._victims else 1.0


class BrownOut(Fault):
    """Every instance of the agent serves ``factor`` times slower, fresh ones too."""

    def __init__(self, agent: int, at_s: float, lasts_s: float, factor: float) -> None:
        super().__init__(agent, at_s, lasts_s)
        self._factor = factor

    def slows(self, replica: Replica) -> float:
        """Return the factor for all."""
        return self._factor


class Errors(Fault):
    """A share of the attempts fails, somewhere along the way, on top of those that fail anyway."""

    def __init__(self, agent: int, at_s: float, lasts_s: float, error: float) -> None:
        super().__init__(agent, at_s, lasts_s)
        self._error = error

    def errors(self) -> float:
        """Return the share."""
        return self._error


class Refuse(_OnInstances):
    """Instances refuse connections: attempts are unreachable after ``after_s``, and probes fail.

    The trap in it: failing fast looks like having little to do, so balancers that go by work in flight send
    ever more there.
    """

    def __init__(self, agent: int, at_s: float, lasts_s: float, instances: int, after_s: float) -> None:
        super().__init__(agent, at_s, lasts_s, instances)
        self._struck = Struck(Outcome.UNREACHABLE, after_s)

    def strikes(self, replica: Replica, luck: float) -> Struck | None:
        """Refuse, if it is a victim."""
        return self._struck if replica.number in self._victims else None

    def hides(self, replica: Replica) -> bool | None:
        """Fail the probes of its victims."""
        return replica.number in self._victims


class Hang(_OnInstances):
    """Instances take connections and never answer; probes fail."""

    def strikes(self, replica: Replica, luck: float) -> Struck | None:
        """Swallow the attempt, if it is a victim."""
        return Struck(Outcome.LOST, inf) if replica.number in self._victims else None

    def hides(self, replica: Replica) -> bool | None:
        """Fail the probes of its victims."""
        return replica.number in self._victims


class Throttle(Fault):
    """A share of the attempts is answered at once with 429 and a time after which to come again."""

    def __init__(self, agent: int, at_s: float, lasts_s: float, share: float, retry_after_s: float) -> None:
        super().__init__(agent, at_s, lasts_s)
        self._share = share
        self._struck = Struck(Outcome.THROTTLED, 0.0, retry_after_s=retry_after_s)

    def strikes(self, replica: Replica, luck: float) -> Struck | None:
        """Ask for patience, by luck."""
        return self._struck if luck < self._share else None


class Garbage(_OnInstances):
    """Instances answer quickly and wrongly; ``noticed`` is the share that the adapter's check turns into errors."""

    _TOKENS_OUT = 3

    def __init__(
        self, agent: int, at_s: float, lasts_s: float, instances: int, after_s: float, noticed: float
    ) -> None:
        super().__init__(agent, at_s, lasts_s, instances)
        self._after_s = after_s
        self._noticed = noticed

    def strikes(self, replica: Replica, luck: float) -> Struck | None:
        """Answer nonsense, if it is a victim."""
        if replica.number not in self._victims:
            return None
        return Struck(Outcome.ERROR if luck < self._noticed else Outcome.OK, self._after_s, self._TOKENS_OUT)


class SlowStart(Fault):
    """Instances that begin to start meanwhile take ``factor`` times as long."""

    def __init__(self, agent: int, at_s: float, lasts_s: float, factor: float) -> None:
        super().__init__(agent, at_s, lasts_s)
        self._factor = factor

    def delays(self) -> float:
        """Return the factor."""
        return self._factor


class Tools(Fault):
    """Tools fail more often, and take ``factor`` times as long."""

    def __init__(self, agent: int, at_s: float, lasts_s: float, fails: float, factor: float) -> None:
        super().__init__(agent, at_s, lasts_s)
        self._fails = fails
        self._factor = factor

    def tools(self) -> tuple[float, float]:
        """Return the share that fails on top, and the factor."""
        return self._fails, self._factor


class Late(Fault):
    """The results of probes reach the gateway ``by_s`` after they were taken."""

    def __init__(self, agent: int, at_s: float, lasts_s: float, by_s: float) -> None:
        super().__init__(agent, at_s, lasts_s)
        self._by_s = by_s

    def lag_s(self) -> float:
        """Return by how much."""
        return self._by_s


class _OfServer(Fault):
    """Hits the first ``replicas`` of a model server, and no agent directly."""

    def __init__(self, server: int, at_s: float, lasts_s: float, replicas: int) -> None:
        super().__init__(-1, at_s, lasts_s)
        self._server = server
        self._replicas = range(replicas)


class ServerSlow(_OfServer):
    """Replicas of a model server take ``factor`` times as long for everything."""

    def __init__(self, server: int, at_s: float, lasts_s: float, replicas: int, factor: float) -> None:
        super().__init__(server, at_s, lasts_s, replicas)
        self._factor = factor

    def begin(self, world: World) -> None:
        """Slow them down."""
        world.servers[self._server].slow(self._replicas, self._factor)

    def end(self, world: World) -> None:
        """Have them work as usual, unless another fault keeps them from that."""
        world.servers[self._server].slow(self._replicas, 1.0 / self._factor)


class ServerDown(_OfServer):
    """Replicas of a model server are gone, with the calls on them."""

    def begin(self, world: World) -> None:
        """Take them away."""
        world.servers[self._server].take_down(self._replicas)

    def end(self, world: World) -> None:
        """Bring them back, empty."""
        world.servers[self._server].bring_back(self._replicas)


class RegionLoss(Fault):
    """A region is gone, with its instances and model servers; what was there before starts again when it is back."""

    def __init__(self, region: int, at_s: float, lasts_s: float) -> None:
        super().__init__(-1, at_s, lasts_s)
        self._region = region

    def begin(self, world: World) -> None:
        """Lose it."""
        world.lose(self._region)

    def end(self, world: World) -> None:
        """Have it back."""
        world.restore(self._region)


class Silence(Fault):
    """Metrics are lost: no result of a probe reaches the gateway."""

    def hides(self, replica: Replica) -> bool | None:
        """Let nobody hear."""
        return None
