"""Controllers beside the traffic: asked and told like those that decide, and nothing is done about their answers.

Somebody else serves the requests, and a log tells of them when they are over. So every request is let in, dispatched
at once and ended as it was, and what each controller would have had otherwise is an `Advised` among the commands. It
lives with the fleet's own traffic, not with what its advice would have made of it.

Advised are the families whose question can be put without the one before having been obeyed: guards and limiters
(would this request have come in?), breakers (should this instance get work?), scalers (how many instances?), and
detectors, which do nothing anyway. The others are left out. What a queue, a balancer, a cache, a planner, a splitter,
a retrier or a ladder decides changes what happens to the request, and nobody knows how that would have ended. A
limiter that asks the outside world is left out as well: it would spend what it is granted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import fsum, inf, isnan
from typing import Any

from glowsim.core.control_plane import Notes
from glowsim.core.instance import UNLIMITED, Instance
from glowsim.core.pool import Controllers, PoolSpec
from glowsim.core.protocols import Gate, Load, Wanted
from glowsim.core.snapshot import Stateful
from glowsim.core.together import Limiters
from glowsim.core.types import Advised, Code, Constraint, Outcome, Reason, Reported, Request, Signal, Usage

__all__ = ["ADVISED", "advised", "observed_load"]

ADVISED = ("guard", "limiter", "breaker", "scaler", "detector")
"""Families that can be asked from beside the traffic."""
_REPORTS_LAST_S = 60.0
"""How long a load report stands for an instance that says nothing more."""


def advised(spec: PoolSpec, controllers: Controllers, notes: Notes) -> tuple[PoolSpec, Controllers]:
    """Return a pool that serves every request as it was served, and notes what its controllers say to it.

    The instance whose number is the agent's stands for whichever served a request that names none: it must be ready
    before the first request, no breaker hears of it, and it is not counted (`observed_load`). The others are numbered
    from the number of agents on. A request names its instance by ``payload``: its number plus 1, 0 for none.

    Parameters
    ----------
    spec, controllers
        The agent's own.
    notes
        Where the advice goes: those of the control plane.
    """
    agent = spec.agent
    scaler = None
    if controllers.scaler is not None:
        scaler = _Scaler(controllers.scaler, agent, spec.slots, spec.concurrency, notes)
    limiter = None if controllers.limiter is None else _by_itself(controllers.limiter)
    neutral = spec._replace(
        slots=UNLIMITED, timeout_s=inf, first_token_timeout_s=inf, probe_every_s=inf, models=spec.models[:1]
    )
    return neutral, Controllers(
        queue=_NoQueue(),
        balancer=_Recorded(agent, scaler),
        guard=None if controllers.guard is None else _Guard(controllers.guard, agent, notes),
        limiter=None if limiter is None else _Limiter(limiter, agent, notes),
        breaker=None if controllers.breaker is None else _Breaker(controllers.breaker, agent, notes),
        scaler=scaler,
        detectors=controllers.detectors,
    )


def observed_load(load: Load, slots: int) -> Load:
    """Return the load that an advised pool has: without its stand-in, and what exceeds the slots as waiting.

    Parameters
    ----------
    load
        As the pool counts it.
    slots
        The gateway's cap on an instance's requests, above 0.

    >>> observed_load(Load(20, 0, 18.0, ready=3, starting=0, draining=0, slots=UNLIMITED, concurrency=4), 8)[:4]
    (16, 4, 18.0, 2)
    """
    inside, ready = load.in_flight + load.queued, load.ready - 1
    in_flight = min(inside, ready * slots)
    return load._replace(in_flight=in_flight, queued=inside - in_flight, ready=ready, slots=slots)


def _by_itself(limiter: Any) -> Any:
    """Return a limiter without the part that asks the outside world; None if nothing is left."""
    parts = [
        part
        for part in (limiter.parts if isinstance(limiter, Limiters) else (limiter,))
        if not hasattr(part, "to_ask")
    ]
    return (parts[0] if len(parts) == 1 else Limiters(parts)) if parts else None


class _NoQueue(Stateful):
    """Nothing waits: the stand-in takes whatever comes."""

    def push(self, t_s: float, request: Request) -> int:
        return request.request_id

    def pop(self, t_s: float) -> int:
        raise AssertionError("nothing waits")

    def remove(self, t_s: float, request: Request) -> None:
        raise AssertionError("nothing waits")

    def __len__(self) -> int:
        return 0


class _Guard(Stateful):
    state = ("_inner",)

    def __init__(self, inner: Any, agent: int, notes: Notes) -> None:
        self._inner = inner
        self._agent = agent
        self._notes = notes

    def check(self, t_s: float, request: Request) -> Reason | None:
        reason = self._inner.check(t_s, request)
        if reason is not None:
            self._notes.append(Advised(self._agent, "guard", request.request_id, 0.0, 1.0, reason))
        return None


class _Limiter(Stateful):
    """Lets everything in, and settles with the limiter what that admitted."""

    state = ("_inner", "_admitted")

    def __init__(self, inner: Any, agent: int, notes: Notes) -> None:
        self._inner = inner
        self._agent = agent
        self._notes = notes
        self._admitted: set[int] = set()

    def admit(self, t_s: float, request: Request) -> float:
        wait_s = self._inner.admit(t_s, request)
        if wait_s == 0.0:
            self._admitted.add(request.request_id)
        else:
            why = Reason(Code.LIMITED)
            self._notes.append(Advised(self._agent, "limiter", request.request_id, 0.0, wait_s, why))
        return 0.0

    def settle(self, t_s: float, request: Request, usage: Usage) -> None:
        if request.request_id in self._admitted:
            self._admitted.remove(request.request_id)
            self._inner.settle(t_s, request, usage)


class _Breaker(Stateful):
    """Leaves every gate open, and wakes the breaker when it wants to be woken."""

    state = ("_inner", "_caps")

    def __init__(self, inner: Any, agent: int, notes: Notes) -> None:
        self._inner = inner
        self._agent = agent
        self._notes = notes
        self._caps: dict[int, int] = {}
        """Instance -> what would be let through to it, where that is not everything."""
        for name in ("joined", "left", "ended"):
            if hasattr(inner, name):
                setattr(self, name, self._but_the_stand_in(getattr(inner, name)))

    def record(self, t_s: float, instance: int, outcome: Outcome, duration_s: float) -> Gate | None:
        if instance == self._agent:
            return None
        return self._follow(instance, self._inner.record(t_s, instance, outcome, duration_s))

    def wake(self, t_s: float, instance: int) -> Gate | None:
        return self._follow(instance, self._inner.wake(t_s, instance))

    def forget(self, instance: int) -> None:
        if instance != self._agent:
            self._caps.pop(instance, None)
            self._inner.forget(instance)

    def _follow(self, instance: int, gate: Gate | None) -> Gate | None:
        if gate is None:
            return None
        before = self._caps.get(instance, UNLIMITED)
        if gate.cap != before:
            if gate.cap >= UNLIMITED:
                del self._caps[instance]
            else:
                self._caps[instance] = gate.cap
            self._notes.append(Advised(self._agent, "breaker", instance, float(before), float(gate.cap)))
        return Gate(UNLIMITED, gate.until_s)

    def _but_the_stand_in(self, hear: Callable[..., None]) -> Callable[..., None]:
        def heard(t_s: float, instance: Instance | int, *what: Any) -> None:
            number = instance if isinstance(instance, int) else instance.number
            if number != self._agent:
                hear(t_s, instance, *what)

        return heard


class _Scaler(Stateful):
    """Holds the size, and asks the scaler: with what instances report, or else with what the log has open.

    Reports are taken in one by one, so it is asked at the first of the next poll, when the last one is whole.
    """

    state = ("_inner", "_noted", "_totals", "_area", "_asked_s", "_told_s", "_due_s")

    def __init__(self, inner: Any, agent: int, slots: int, concurrency: int, notes: Notes) -> None:
        self._inner = inner
        self._agent = agent
        self._slots, self._concurrency = slots, concurrency
        self._notes = notes
        self._noted: tuple[int, int] | None = None
        """(present, wanted) of the advice that stands; None: the size is right."""
        self._totals: dict[int, dict[int, float]] = {}
        """Instance -> signal -> requests that run or wait in it, as it last said."""
        self._area = 0.0
        """Requests in the instances times seconds, since it was asked last."""
        self._asked_s = self._told_s = -inf
        self._due_s = inf

    def decide(self, t_s: float, load: Load) -> Wanted:
        if self._totals and t_s < self._told_s + _REPORTS_LAST_S:
            return Wanted(load.ready, Reason(Code.HELD, c=load.ready - 1), t_s + _REPORTS_LAST_S)
        wanted = self._ask(t_s, observed_load(load, self._slots))
        return Wanted(load.ready, wanted.reason, wanted.look_s)

    def reported(self, event: Reported, ready: int) -> None:
        t_s = event.t_s
        if event.signal == Signal.CACHE_USED:
            return
        if self._totals:
            inside = self._inside()
            self._area += inside * (t_s - self._told_s)
            if t_s > self._told_s and (t_s >= self._due_s or (self._due_s == inf and inside)):
                self._ask_by_reports(t_s, inside, ready)
        else:
            self._area, self._asked_s, self._due_s = 0.0, t_s, t_s
        self._told_s = t_s
        if isnan(event.value):
            self.left(event.instance)
        else:
            self._totals.setdefault(event.instance, {})[event.signal] = event.value

    def left(self, instance: int) -> None:
        self._totals.pop(instance, None)

    def _inside(self) -> float:
        return fsum(value for each in self._totals.values() for value in each.values())

    def _ask_by_reports(self, t_s: float, inside: float, ready: int) -> None:
        running = fsum(each.get(Signal.RUNNING, 0.0) for each in self._totals.values())
        span_s = t_s - self._asked_s
        mean = self._area / span_s if span_s > 0.0 else inside
        load = Load(
            round(running), round(inside - running), mean, ready, 0, 0, self._slots, self._concurrency
        )
        self._due_s = self._ask(t_s, load).look_s
        self._area, self._asked_s = 0.0, t_s

    def _ask(self, t_s: float, load: Load) -> Wanted:
        wanted: Wanted = self._inner.decide(t_s, load)
        have, want = now = (load.ready, wanted.instances)
        if have == want and wanted.reason.bound == Constraint.COOLDOWN and self._noted is not None:
            return wanted  # it takes its last advice for done, and waits: that advice stands
        stands = None if have == want else now
        if stands != self._noted:
            self._noted = stands
            self._notes.append(Advised(self._agent, "scaler", 0, float(have), float(want), wanted.reason))
        return wanted


class _Recorded(Stateful):
    """Sends a request where it went, or to the stand-in; passes reports on to the scaler."""

    state = ("_ready",)

    def __init__(self, agent: int, scaler: _Scaler | None) -> None:
        self._agent = agent
        self._scaler = scaler
        self._ready: set[int] = set()

    def pick(self, t_s: float, request: Request, allowed: Sequence[Instance]) -> Instance:
        wanted = request.payload - 1
        stand_in = None
        for each in allowed:
            if each.number == wanted:
                return each
            if each.number == self._agent:
                stand_in = each
        assert stand_in is not None, "the stand-in is always there"
        return stand_in

    def reported(self, t_s: float, reported: Reported) -> None:
        if self._scaler is not None:
            self._scaler.reported(reported, len(self._ready))

    def joined(self, t_s: float, instance: Instance) -> None:
        if instance.number != self._agent:
            self._ready.add(instance.number)

    def left(self, t_s: float, instance: int) -> None:
        self._ready.discard(instance)
        if self._scaler is not None:
            self._scaler.left(instance)
