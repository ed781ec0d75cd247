"""Controllers around controllers: a fallback that keeps the gateway standing, a shadow that is tried out.

Both speak through `Notes`, so what they have to say is among the commands and in the journal.

`fallback` is for the live world: where the controller raises, or gives an answer that its protocol
forbids, the family's stated fallback decides instead, and a person is told, at most once a minute.

`shadow` asks a candidate the same questions and tells it the same events as the controller that decides,
and records both answers as numbers. The candidate changes nothing: it sets no timers (one that wants to be
woken is woken at the first question after its moment) and asks nobody outside, and one that raises is noted
as nan. It lives with the consequences of the other's decisions, so its answers are those to the live history.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from math import inf, isnan, nan
from typing import Any, NamedTuple

from glowsim.core.control_plane import Notes
from glowsim.core.errors import ControllerError
from glowsim.core.instance import UNLIMITED, Instance
from glowsim.core.protocols import Gate, Load, Queue, Stored, Wanted
from glowsim.core.snapshot import Stateful
from glowsim.core.together import Breakers, Limiters
from glowsim.core.types import (
    Advance,
    Alert,
    Code,
    Outcome,
    Raise,
    Reason,
    Request,
    Severity,
    Shadowed,
    Usage,
)

__all__ = ["FAMILIES", "fallback", "inside", "shadow"]

_ALERT_EVERY_S = 60.0
_LOOK_AGAIN_S = 60.0

Numbers = dict[str, Callable[[Any], float]]


class Method(NamedTuple):
    """One method of a family: what decides where it fails, and how its answer is read."""

    instead: Callable[..., Any]
    """The fallback's answer, from the same arguments."""
    numbers: Numbers
    """What a shadow records of an answer, by name; nothing for a method that only tells."""
    allowed: Callable[..., bool] | None = None
    """Whether the protocol allows the answer; None: any will do."""


def _nothing(*_: object) -> None:
    return None


def _take_turns(t_s: float, request: Request, allowed: Sequence[Instance]) -> Instance:
    return sorted(allowed, key=lambda each: each.number)[request.request_id % len(allowed)]


def _hold_size(t_s: float, load: Load) -> Wanted:
    return Wanted(load.ready + load.starting, Reason(Code.FALLBACK), t_s + _LOOK_AGAIN_S)


def _there(answer: object) -> float:
    return float(answer is not None)


def _stage(advance: Advance | None) -> float:
    return -1.0 if advance is None else float(advance.stage)


def _cap(gate: Gate | None) -> float:
    return -1.0 if gate is None else float(gate.cap)


def _later(gate: Gate | None, t_s: float, *_: object) -> bool:
    return gate is None or gate.until_s > t_s


_TOLD = Method(_nothing, {})
_STAGED = Method(_nothing, {"splitter.stage": _stage})

FAMILIES: dict[str, dict[str, Method]] = {
    "guard": {"check": Method(_nothing, {"guard": _there})},
    "limiter": {
        "admit": Method(lambda *_: 0.0, {"limiter": float}, lambda wait_s, *_: not isnan(wait_s)),
        "settle": _TOLD,
        "withdraw": _TOLD,
        "to_ask": _TOLD,
        "told": _TOLD,
    },
    "splitter": {
        "assign": Method(lambda *_: 0, {"splitter": float}),
        "propensity": Method(lambda _, variant: float(not variant), {}),
        "finished": _STAGED,
        "observed": _STAGED,
        "wake": _STAGED,
        "wake_s": Method(lambda: inf, {}),
        "ordered": _STAGED,
    },
    "cache": {
        "get": Method(lambda *_: 0, {"cache": lambda source: float(source > 0)}),
        "put": Method(lambda *_: Stored(False, ()), {}),
        "stale": Method(lambda *_: 0, {}),
    },
    "planner": {
        "plan": Method(
            lambda t_s, request, plan: plan,
            {
                "planner.model": lambda plan: float(plan.model),
                "planner.tokens_in": lambda plan: float(plan.tokens_in),
                "planner.max_tokens_out": lambda plan: float(plan.max_tokens_out),
            },
        ),
        "escalate": Method(
            _nothing, {"planner.escalates_to": lambda plan: -1.0 if plan is None else float(plan.model)}
        ),
    },
    "balancer": {
        "pick": Method(
            _take_turns, {"balancer": lambda each: float(each.number)}, lambda each, *_: each.place >= 0
        ),
        "reported": _TOLD,
        "joined": _TOLD,
        "left": _TOLD,
        "moved": _TOLD,
        "ended": _TOLD,
    },
    "breaker": {
        "record": Method(_nothing, {"breaker": _cap}, _later),
        "wake": Method(lambda *_: Gate(UNLIMITED, inf), {"breaker": _cap}, _later),
        "forget": _TOLD,
        "joined": _TOLD,
        "left": _TOLD,
        "ended": _TOLD,
        "probed": Method(_nothing, {"breaker": _cap}, _later),
    },
    "retrier": {
        "after": Method(lambda *_: inf, {"retrier": float}, lambda wait_s, *_: wait_s >= 0.0),
        "succeeded": _TOLD,
    },
    "ladder": {
        "instead": Method(_nothing, {"ladder": lambda rung: -1.0 if rung is None else float(rung.kind)})
    },
    "scaler": {
        "decide": Method(
            _hold_size,
            {"scaler": lambda wanted: float(wanted.instances)},
            lambda wanted, t_s, load: wanted.instances >= 0 and wanted.look_s > t_s,
        )
    },
    "detector": {"observe": Method(_nothing, {"detector": _there})},
}
"""Every family whose methods are questions that stand for themselves; a queue is more than that."""


def _moment(name: str, arguments: tuple[Any, ...]) -> float:
    """Return when a method was called; -inf for those that are not told."""
    return -inf if name in ("forget", "wake_s", "moved") else float(arguments[0])


class _Alarm(Stateful):
    """Raises an alert for a failing controller, at most once a minute."""

    state = ("_alerted_s",)

    def __init__(self, agent: int, severity: Severity, notes: Notes) -> None:
        self._agent = agent
        self._severity = severity
        self._notes = notes
        self._alerted_s = -inf

    def failed(self, who: str, error: Exception, t_s: float) -> None:
        if t_s >= self._alerted_s + _ALERT_EVERY_S:
            self._alerted_s = max(t_s, 0.0)
            subject = f"{who} raised {type(error).__name__}: {error}"
            reason = Reason(Code.CONTROLLER_FAILED)
            self._notes.append(Raise(Alert(self._agent, subject, self._severity, reason)))


# --- fallbacks --------------------------------------------------------------------------------------


def fallback(family: str, controller: Any, agent: int, notes: Notes, *, queue_limit: int) -> Any:
    """Return a controller of the same family that never raises.

    Where ``controller`` fails, the family's fallback decides: let in, admit, the baseline, no answer from
    the cache, the plain plan, instances in turn, an open gate, no retry, the present size, no alert. A
    queue that failed once is not asked again: from then on it is first come, first served, up to
    ``queue_limit``.

    Parameters
    ----------
    family
        One of `FAMILIES`, or ``queue``.
    controller
        What decides as long as it can.
    agent
        The agent's number, for the alerts.
    notes
        Where alerts go: those of the control plane.
    queue_limit
        Requests that may wait once a queue has failed.

    Raises
    ------
    ValueError
        There is no such family.

    Examples
    --------
    >>> class Broken:
    ...     def check(self, t_s, request): raise RuntimeError("no")
    >>> notes = Notes()
    >>> fallback("guard", Broken(), 0, notes, queue_limit=1).check(0.0, None) is None
    True
    >>> notes[0].alert.subject
    'guard.check raised RuntimeError: no'
    """
    alarm = _Alarm(agent, Severity.CRITICAL, notes)
    if family == "queue":
        return _FallbackQueue(controller, alarm, queue_limit)
    _known(family)
    return _Fallback(family, controller, alarm)


class _Fallback(Stateful):
    state = ("_inner", "_alarm", "_woken_s")

    def __init__(self, family: str, inner: Any, alarm: _Alarm) -> None:
        self._inner = inner
        self._alarm = alarm
        self._woken_s = -inf
        for name, method in FAMILIES[family].items():
            if hasattr(inner, name):
                setattr(self, name, self._guarded(family, name, method))
        if family == "splitter":
            self._keep_awake()
            _say_alike(self, inner)
        if family == "detector":
            self.metric = inner.metric
        if family == "breaker":
            self.when_all_open = getattr(inner, "when_all_open", "wait")

    def _guarded(self, family: str, name: str, method: Method) -> Callable[..., Any]:
        inner = getattr(self._inner, name)
        instead, _, allowed = method
        alarm = self._alarm

        def call(*arguments: Any) -> Any:
            try:
                answer = inner(*arguments)
                if allowed is None or allowed(answer, *arguments):
                    return answer
                error: Exception = ControllerError(f"its answer {answer} is not allowed")
            except Exception as raised:  # noqa: BLE001  whatever a controller raises, the gateway stands
                error = raised
            alarm.failed(f"{family}.{name}", error, _moment(name, arguments))
            return instead(*arguments)

        return call

    def _keep_awake(self) -> None:
        """Keep a splitter that could not take in its moment from asking for it again, for ever."""
        wake: Callable[[float], Any] = self.__dict__["wake"]
        wake_s: Callable[[], float] = self.__dict__["wake_s"]

        def note_and_wake(t_s: float) -> Any:
            self._woken_s = t_s
            return wake(t_s)

        def after_the_last() -> float:
            due_s = wake_s()
            return due_s if due_s > self._woken_s else inf

        self.wake, self.wake_s = note_and_wake, after_the_last


class _FallbackQueue(Stateful):
    state = ("_inner", "_alarm", "_waiting", "_broken")

    def __init__(self, inner: Queue, alarm: _Alarm, limit: int) -> None:
        self._inner = inner
        self._alarm = alarm
        self._limit = limit
        self._waiting: OrderedDict[int, None] = OrderedDict()
        self._broken = False

    def push(self, t_s: float, request: Request) -> int:
        refused = 0 if len(self._waiting) < self._limit else request.request_id
        if not self._broken:
            try:
                refused = self._inner.push(t_s, request)
            except Exception as error:  # noqa: BLE001
                self._break("push", error, t_s)
        if refused != request.request_id:
            self._waiting[request.request_id] = None
            self._waiting.pop(refused, None)
        return refused

    def pop(self, t_s: float) -> int:
        if not self._broken:
            try:
                number = self._inner.pop(t_s)
                del self._waiting[number]
            except Exception as error:  # noqa: BLE001
                self._break("pop", error, t_s)
            else:
                return number
        return self._waiting.popitem(last=False)[0]

    def remove(self, t_s: float, request: Request) -> None:
        del self._waiting[request.request_id]
        if not self._broken:
            try:
                self._inner.remove(t_s, request)
            except Exception as error:  # noqa: BLE001
                self._break("remove", error, t_s)

    def __len__(self) -> int:
        return len(self._waiting)

    def _break(self, name: str, error: Exception, t_s: float) -> None:
        self._broken = True
        self._alarm.failed(f"queue.{name}", error, t_s)


def inside(controller: Any) -> Iterator[Any]:
    """Yield the controllers that decide: what wrappers stand around, and the parts of several as one.

    >>> from controllers.balancing.round_robin import RoundRobin
    >>> [type(each).__name__ for each in inside(fallback("balancer", RoundRobin(), 0, Notes(), queue_limit=1))]
    ['RoundRobin']
    """
    if isinstance(controller, _Fallback | _FallbackQueue):
        yield from inside(controller._inner)
    elif isinstance(controller, _Shadow):
        yield from inside(controller._live)
    elif isinstance(controller, Breakers | Limiters):
        for part in controller.parts:
            yield from inside(part)
    else:
        yield controller


# --- shadows ----------------------------------------------------------------------------------------


def shadow(family: str, live: Any, candidate: Any, agent: int, notes: Notes) -> Any:
    """Return a controller that decides as ``live`` does and records what ``candidate`` would have said.

    Every question that either had something to say to becomes a `Shadowed`, with both answers as numbers:
    a guard's 1 for a rejection, seconds for limiters and retriers, an instance's number, instances wanted,
    a gate's cap or a rollout's stage (-1: no change). A scaler is asked when the live one is.

    Parameters
    ----------
    family
        One of `FAMILIES`.
    live
        What decides.
    candidate
        What is tried out.
    agent
        The agent's number, for the records.
    notes
        Where the records go: those of the control plane.

    Raises
    ------
    ValueError
        There is no such family; a queue, whose order cannot be tried without dispatching in it; a
        candidate that asks the outside world, which would spend what it is given.

    Examples
    --------
    >>> from controllers.balancing.round_robin import RoundRobin
    >>> notes, instance = Notes(), Instance(3, 0, 1)
    >>> tried = shadow("balancer", RoundRobin(), RoundRobin(), 0, notes)
    >>> tried.pick(0.0, Request(1, 0, 900, 100), [instance]).number, notes
    (3, [Shadowed(agent=0, family='balancer', live=3.0, candidate=3.0)])
    """
    if family == "queue":
        raise ValueError(
            "a queue cannot be shadowed: its order shows only when dispatched in; compare two runs instead"
        )
    _known(family)
    if hasattr(candidate, "to_ask"):
        raise ValueError(
            f"the candidate {type(candidate).__name__} asks the outside world and would spend what it is "
            "given: shadow a limiter that decides by itself"
        )
    special = {"limiter": _ShadowLimiter, "splitter": _ShadowSplitter, "breaker": _ShadowBreaker}
    return special.get(family, _Shadow)(family, live, candidate, agent, notes)


def _say_alike(wrapper: Any, splitter: Any) -> None:
    """Have a wrapper say of itself what its splitter does."""
    wrapper.first_weight = getattr(splitter, "first_weight", 0.0)
    wrapper.unit = getattr(splitter, "unit", "request")
    wrapper.needs_cost = getattr(splitter, "needs_cost", False)


def _known(family: str) -> None:
    if family not in FAMILIES:
        raise ValueError(f"there is no family {family!r} to wrap: choose from {', '.join(FAMILIES)}")


class _Shadow(Stateful):
    state: tuple[str, ...] = ("_live", "_candidate", "_alarm")

    def __init__(self, family: str, live: Any, candidate: Any, agent: int, notes: Notes) -> None:
        self._family = family
        self._live = live
        self._candidate = candidate
        self._agent = agent
        self._notes = notes
        self._alarm = _Alarm(agent, Severity.WARNING, notes)
        for name, method in FAMILIES[family].items():
            wanted = hasattr(live, name) or (not method.numbers and hasattr(candidate, name))
            if wanted and not hasattr(type(self), name):
                setattr(self, name, self._both(name))
        if family == "splitter":
            _say_alike(self, live)
        if family == "detector":
            self.metric = live.metric
        if family == "breaker":
            self.when_all_open = getattr(live, "when_all_open", "wait")

    def _both(self, name: str) -> Callable[..., Any]:
        live = getattr(self._live, name, _nothing)

        def call(*arguments: Any) -> Any:
            answer = live(*arguments)
            self._compare(name, answer, *arguments)
            return answer

        return call

    def _compare(self, name: str, answer: Any, *arguments: Any) -> Any:
        """Ask the candidate too and note both answers; return the candidate's, None if it failed."""
        numbers = FAMILIES[self._family][name].numbers
        try:  # a list is the pool's own, so the candidate gets a copy
            ask = self._asked(name)
            if ask is None:
                return None
            other = ask(*(tuple(a) if isinstance(a, list) else a for a in arguments))
            read = {label: number(other) for label, number in numbers.items()}
        except Exception as error:  # noqa: BLE001  a candidate that fails is a finding, not a failure
            self._alarm.failed(f"shadow {self._family}.{name}", error, _moment(name, arguments))
            other, read = None, dict.fromkeys(numbers, nan)
        if answer is not None or other is not None or nan in read.values():
            for label, value in read.items():
                self._notes.append(Shadowed(self._agent, label, numbers[label](answer), value))
        return other

    def _asked(self, name: str) -> Callable[..., Any] | None:
        """Return the candidate's method; None where it does without one."""
        if FAMILIES[self._family][name].numbers:
            method: Callable[..., Any] = getattr(self._candidate, name)
            return method
        return getattr(self._candidate, name, None)


class _ShadowLimiter(_Shadow):
    """The candidate settles what it admitted itself, at once where the live one did not admit."""

    state = (*_Shadow.state, "_reserved")

    def __init__(self, family: str, live: Any, candidate: Any, agent: int, notes: Notes) -> None:
        super().__init__(family, live, candidate, agent, notes)
        self._reserved: set[int] = set()
        for name in ("to_ask", "told"):
            if hasattr(live, name):
                setattr(self, name, getattr(live, name))

    def admit(self, t_s: float, request: Request) -> float:
        wait_s: float = self._live.admit(t_s, request)
        if self._compare("admit", wait_s, t_s, request) == 0.0:
            if wait_s == 0.0:
                self._reserved.add(request.request_id)
            else:
                self._give_back(t_s, request)
        return wait_s

    def withdraw(self, t_s: float, request: Request) -> None:
        if hasattr(self._live, "withdraw"):
            self._live.withdraw(t_s, request)
        else:
            self._live.settle(t_s, request, Usage())
        if request.request_id in self._reserved:
            self._reserved.remove(request.request_id)
            self._give_back(t_s, request)

    def _give_back(self, t_s: float, request: Request) -> None:
        """Have the candidate take its admission back: this request will not come in."""
        if hasattr(self._candidate, "withdraw"):
            self._compare("withdraw", None, t_s, request)
        else:
            self._compare("settle", None, t_s, request, Usage())

    def settle(self, t_s: float, request: Request, usage: Usage) -> None:
        self._live.settle(t_s, request, usage)
        if request.request_id in self._reserved:
            self._reserved.remove(request.request_id)
            self._compare("settle", None, t_s, request, usage)


class _ShadowSplitter(_Shadow):
    """The candidate is woken at the first question after its moment."""

    def wake_s(self) -> float:
        due_s: float = self._live.wake_s()
        return due_s

    def wake(self, t_s: float) -> Advance | None:
        advance: Advance | None = self._live.wake(t_s)
        if not self._wake_candidate(t_s, advance) and advance is not None:
            self._notes.append(Shadowed(self._agent, "splitter.stage", _stage(advance), -1.0))
        return advance

    def _compare(self, name: str, answer: Any, *arguments: Any) -> Any:
        if name != "wake":
            self._wake_candidate(arguments[0], None)
        return super()._compare(name, answer, *arguments)

    def _wake_candidate(self, t_s: float, advance: Advance | None) -> bool:
        try:
            due = bool(self._candidate.wake_s() <= t_s)
        except Exception as error:  # noqa: BLE001
            self._alarm.failed("shadow splitter.wake_s", error, t_s)
            due = True
        if due:
            self._compare("wake", advance, t_s)
        return due


class _ShadowBreaker(_Shadow):
    """The candidate is woken, instance by instance, with the live one or at the first question after its moment."""

    state = (*_Shadow.state, "_until_s")

    def __init__(self, family: str, live: Any, candidate: Any, agent: int, notes: Notes) -> None:
        super().__init__(family, live, candidate, agent, notes)
        self._until_s: dict[int, float] = {}

    def record(self, t_s: float, instance: int, outcome: Outcome, duration_s: float) -> Gate | None:
        gate: Gate | None = self._live.record(t_s, instance, outcome, duration_s)
        self._wake_candidate(t_s, instance, None)
        self._follow(instance, self._compare("record", gate, t_s, instance, outcome, duration_s))
        return gate

    def wake(self, t_s: float, instance: int) -> Gate | None:
        gate: Gate | None = self._live.wake(t_s, instance)
        if not self._wake_candidate(t_s, instance, gate, asleep=False) and gate is not None:
            self._notes.append(Shadowed(self._agent, "breaker", _cap(gate), -1.0))
        return gate

    def probed(self, t_s: float, instance: int, healthy: bool) -> Gate | None:
        gate: Gate | None = _probe(self._live)(t_s, instance, healthy)
        self._wake_candidate(t_s, instance, None)
        self._follow(instance, self._compare("probed", gate, t_s, instance, healthy))
        return gate

    def _asked(self, name: str) -> Callable[..., Any] | None:
        return _probe(self._candidate) if name == "probed" else super()._asked(name)

    def forget(self, instance: int) -> None:
        self._live.forget(instance)
        self._until_s.pop(instance, None)
        self._compare("forget", None, instance)

    def _wake_candidate(self, t_s: float, instance: int, gate: Gate | None, *, asleep: bool = True) -> bool:
        """Wake the candidate if it is due; ``asleep``: the live one may yet be woken at this very moment."""
        until_s = self._until_s.get(instance, inf)
        due = t_s > until_s if asleep else t_s >= until_s
        if due:
            del self._until_s[instance]
            self._follow(instance, self._compare("wake", gate, t_s, instance))
        return due

    def _follow(self, instance: int, gate: Gate | None) -> None:
        if gate is not None:
            self._until_s[instance] = gate.until_s


def _probe(breaker: Any) -> Callable[[float, int, bool], Gate | None]:
    """Return how a breaker takes in a probe: by its own method, or as an attempt that took no time."""

    def recorded(t_s: float, instance: int, healthy: bool) -> Gate | None:
        outcome = Outcome.OK if healthy else Outcome.UNREACHABLE
        gate: Gate | None = breaker.record(t_s, instance, outcome, 0.0)
        return gate

    return getattr(breaker, "probed", recorded)
