"""Model servers: what agents' model calls go to, shared by all agents whose model is served there.

A hosted API is one server for everybody; a self-hosted model has replicas, and a router chooses among them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from math import fsum
from typing import Final, Protocol

from glowsim.core.streams import mix
from glowsim.core.types import Outcome
from glowsim.sim.environment import Environment
from glowsim.sim.serving.batching import BatchEngine
from glowsim.sim.serving.call import Call, Server, Told
from glowsim.sim.serving.saturation import saturation
from glowsim.sim.serving.steps import BatchSpec

__all__ = ["ROUTERS", "Callee", "Distant", "ModelServer", "Router", "Served", "hear_end", "hear_first_token"]

_SAMPLE: Final = 4096


class Router(Protocol):
    """Chooses the replica that a call goes to."""

    def __call__(self, call: Call, replicas: Sequence[Server]) -> int:
        """Return its place."""


class Callee(Protocol):
    """What an agent's calls go to."""

    def start(self, call: Call) -> None:
        """Take a call in."""

    def cancel(self, call: Call) -> None:
        """Drop a call; what it used is set."""

    def ended(self, call: Call) -> None:
        """Hear that a call has ended by itself."""


class ModelServer:
    """All replicas of a model.

    Parameters
    ----------
    environment
        The simulated time.
    replicas
        One or more.
    router
        Chooses among those that are up.
    spec
        What bounds a replica, where they are one's own; None: nobody knows.
    """

    __slots__ = (
        "_down", "_environment", "_inside", "_router", "_speeds", "_up", "calls", "failed", "longest", "most_at_once",
        "replicas", "sample", "spec", "tokens_cached", "tokens_in", "tokens_out",
    )  # fmt: skip

    def __init__(
        self,
        environment: Environment,
        replicas: Sequence[Server],
        router: Router,
        spec: BatchSpec | None = None,
    ) -> None:
        self.replicas = replicas
        self.spec = spec
        self.sample: deque[tuple[int, int, int]] = deque(maxlen=_SAMPLE)
        """Of the latest calls that were answered, where there is a spec to hold them against: tokens of the prompt,
        tokens written, and those of the prompt that were cached."""
        self._environment = environment
        self._router = router
        self._up = list(replicas)
        self._down = [0] * len(replicas)
        """How many faults keep each replica away."""
        self._speeds = [1.0] * len(replicas)
        self._inside: dict[Call, Server | None] = {}
        """Calls -> where they are; None: nowhere, as no replica was up."""
        self.calls = self.failed = self.tokens_in = self.tokens_cached = self.tokens_out = 0
        self.most_at_once = self.longest = 0
        """Most calls inside one replica, and tokens of the longest call."""

    def start(self, call: Call) -> None:
        """Send a call to a replica; it ends as UNREACHABLE where none is up."""
        up = self._up
        if not up:
            self._inside[call] = None
            self._environment.call_at(self._environment.now, self._refuse, call)
            return
        replica = up[0] if len(up) == 1 else up[self._router(call, up)]
        self._inside[call] = replica
        replica.start(call)
        inside = len(replica)
        if inside > self.most_at_once:
            self.most_at_once = inside

    def _refuse(self, call: Call) -> None:
        if call in self._inside:
            call.outcome = Outcome.UNREACHABLE
            hear_end(call)

    def cancel(self, call: Call) -> None:
        """Drop a call."""
        replica = self._inside.pop(call)
        if replica is not None:
            replica.cancel(call)
        self._count(call)

    def ended(self, call: Call) -> None:
        """Hear that a call has ended by itself."""
        del self._inside[call]
        if call.outcome is not Outcome.OK:
            self.failed += 1
        elif self.spec is not None:
            self.sample.append((call.tokens_in, call.written, call.tokens_cached))
        self._count(call)

    # --- faults -------------------------------------------------------------------------------------

    def slow(self, places: Iterable[int], factor: float) -> None:
        """Have some replicas take ``factor`` times as long as they do now."""
        for place in places:
            if place < len(self.replicas):
                self._speeds[place] /= factor
                self.replicas[place].set_speed(self._speeds[place])

    def take_down(self, places: Iterable[int]) -> None:
        """Have some replicas go, and the calls on them fail."""
        gone = self._shifted(places, 1)
        lost = [(call, replica) for call, replica in self._inside.items() if replica in gone]
        for call, replica in lost:
            assert replica is not None
            replica.cancel(call)
            self._inside[call] = None
            call.outcome = Outcome.LOST
        for call, _ in lost:
            if call in self._inside:  # its task may have ended with another call that was lost
                hear_end(call)

    def bring_back(self, places: Iterable[int]) -> None:
        """Have replicas that had gone serve again."""
        self._shifted(places, -1)

    def _shifted(self, places: Iterable[int], faults: int) -> list[Server]:
        """Have so many faults more keep replicas away; return these replicas."""
        there = [place for place in places if place < len(self.replicas)]
        for place in there:
            self._down[place] += faults
        self._up = [each for each, down in zip(self.replicas, self._down, strict=True) if not down]
        return [self.replicas[place] for place in there]

    def _count(self, call: Call) -> None:
        self.calls += 1
        self.tokens_in += call.tokens_in
        self.tokens_cached += call.tokens_cached
        self.tokens_out += call.written
        if call.tokens_in + call.written > self.longest:
            self.longest = call.tokens_in + call.written

    def figures(self) -> dict[str, float]:
        """Return what it has done: calls, tokens, and what its engine counts (preemptions, busy seconds)."""
        names = ("calls", "failed", "tokens_in", "tokens_cached", "tokens_out", "most_at_once", "longest")
        found: dict[str, float] = {name: getattr(self, name) for name in names}
        looks = [each.look() for each in self.replicas if isinstance(each, BatchEngine)]
        if looks:
            found["preemptions"] = float(sum(look.preemptions for look in looks))
            found["busy_s"] = fsum(look.busy_s for look in looks)
        if self.spec is not None:
            found["sustainable_per_s"] = self._sustainable_per_s(self.spec)
        return found

    def _sustainable_per_s(self, spec: BatchSpec) -> float:
        """Return how many calls a second like the latest ones all replicas together could take; 0: none was seen."""
        if not self.sample:
            return 0.0
        return saturation(spec, *zip(*self.sample, strict=True)).rate_per_s * len(self.replicas)


class Distant:
    """A model server in another region: calls reach it after the round trip.

    Parameters
    ----------
    environment
        The simulated time.
    server
        Where they go.
    trip_s
        The round trip, above 0: all of it on the way there.
    """

    __slots__ = ("_environment", "_server", "_trip_s", "_under_way")

    def __init__(self, environment: Environment, server: ModelServer, trip_s: float) -> None:
        self._environment = environment
        self._server = server
        self._trip_s = trip_s
        self._under_way: set[int] = set()

    def start(self, call: Call) -> None:
        """Send a call on its way."""
        self._under_way.add(call.number)
        self._environment.call_at(self._environment.now + self._trip_s, self._reach, call)

    def _reach(self, call: Call) -> None:
        if call.number in self._under_way:
            self._under_way.remove(call.number)
            self._server.start(call)

    def cancel(self, call: Call) -> None:
        """Drop a call; one that is still under way used nothing."""
        if call.number in self._under_way:
            self._under_way.remove(call.number)
            call.tokens_in = 0
        else:
            self._server.cancel(call)

    def ended(self, call: Call) -> None:
        """Hear that a call has ended by itself."""
        self._server.ended(call)


@dataclass(frozen=True)
class Served:
    """What serves some models."""

    models: tuple[int, ...]
    replicas: int
    router: str
    """One of `ROUTERS`."""
    make: Callable[[Environment, int, Told, Told], Server]
    """Makes a replica, from its place, what to call with a call that ended, and with one that streams."""
    region: int | None = None
    """Where it stands; None: beside whoever calls it."""
    spec: BatchSpec | None = None
    """What bounds a replica, where they are one's own."""

    def build(self, environment: Environment, done: Told, first_token: Told) -> ModelServer:
        """Return all replicas behind one router."""
        replicas = [self.make(environment, i, done, first_token) for i in range(self.replicas)]
        return ModelServer(environment, replicas, ROUTERS[self.router](), self.spec)


def hear_end(call: Call) -> None:
    """Pass the end of a call on to its owner's engine: every server's ``done``."""
    branch = call.owner
    branch.job.open.pop(call).ended(call)
    branch.engine.go_on(branch, call)


def hear_first_token(call: Call) -> None:
    """Pass a first token on to the owner's engine: every server's ``first_token``."""
    call.owner.engine.streams(call.owner)


def _least_loaded(call: Call, replicas: Sequence[Server]) -> int:
    loads = [len(each) for each in replicas]
    return loads.index(min(loads))


@lru_cache(maxsize=1 << 14)
def _home(key: int, replicas: int) -> int:
    return mix(key) % replicas


def _session(call: Call, replicas: Sequence[Server]) -> int:
    return _home(call.own_key, len(replicas))


def _in_turn() -> Router:
    turn = count()
    return lambda call, replicas: next(turn) % len(replicas)


ROUTERS: Final[dict[str, Callable[[], Router]]] = {
    "least_loaded": lambda: _least_loaded,
    "session": lambda: _session,
    "round_robin": _in_turn,
}
"""Name -> makes what chooses a replica: the least loaded; by the session, so that its prompt may still be cached
there; one after the other."""
