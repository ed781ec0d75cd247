"""The gateway, written once: events in, commands out; no clock, no I/O, no randomness of its own.

``handle(event)`` first fires every timer that is due by the event's time, in the order (due, kind, number),
each at the moment it was due; then it takes the event in. So a timer that a live loop fires late and one
that the simulator fires on the dot decide alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, isnan, nan
from typing import Any, NamedTuple

from glowsim.core import books as b
from glowsim.core.books import Books, Open
from glowsim.core.errors import ControllerError, WorldError
from glowsim.core.instance import Instance
from glowsim.core.pool import Controllers, Pool, PoolSpec
from glowsim.core.snapshot import pack, unpack
from glowsim.core.stages import Assignment
from glowsim.core.types import (
    Abandoned,
    Arrived,
    Change,
    Changed,
    ChangeKind,
    Command,
    Event,
    Finished,
    FirstToken,
    InstanceChanged,
    Observed,
    Outcome,
    Probed,
    Reported,
    State,
    Status,
    Told,
    Usage,
    Woke,
)  # fmt: skip

__all__ = ["ControlPlane", "Notes", "UnderWay"]

_NONE: tuple[Command, ...] = ()
_EXPIRED_LIMIT = 10_000
Out = list[Command]


class Notes(list[Command]):
    """Commands that wrappers of controllers add to the answer: alerts of failures, answers of shadows."""


class UnderWay(NamedTuple):
    """What has begun and not ended."""

    instances: list[tuple[int, int, int]]
    """Agent, number and region of each that has not gone."""
    attempts: list[int]
    """Those whose end was not told."""
    requests: list[int]
    """The open ones, the last first: so nobody takes over from a leader."""


class ControlPlane:
    """The control plane of a fleet: one pool an agent.

    Parameters
    ----------
    pools
        (spec, controllers) of every agent, in the order of the agents' numbers from 0.
    notes
        Where the controllers' wrappers leave what they have to say.

    Raises
    ------
    WorldError
        An event that cannot be: time that runs back, an unknown agent or attempt. Nothing has changed then.
    ControllerError
        A controller raised. The control plane must not be used any further.

    Examples
    --------
    >>> from controllers.balancing.round_robin import RoundRobin
    >>> from controllers.queueing.fifo import FifoQueue
    >>> from glowsim.core.types import Request
    >>> spec = PoolSpec(0, 1, 1, (0,), 30.0, inf, 30.0, 10, 10, 10)
    >>> plane = ControlPlane([(spec, Controllers(FifoQueue(limit=10), RoundRobin()))])
    >>> plane.handle(InstanceChanged(0.0, 0, 0, State.READY))
    ()
    >>> [type(command).__name__ for command in plane.handle(Arrived(1.0, Request(1, 0, 900, 100)))]
    ['Dispatch']
    >>> [type(command).__name__ for command in plane.handle(Finished(2.0, 1, Outcome.OK, Usage(900, 0, 40)))]
    ['Answer']
    """

    def __init__(self, pools: Sequence[tuple[PoolSpec, Controllers]], notes: Notes | None = None) -> None:
        self._books = Books()
        self._notes = Notes() if notes is None else notes
        self.pools = [Pool(spec, controllers, self._books) for spec, controllers in pools]
        for number, pool in enumerate(self.pools):
            if pool.spec.agent != number:
                raise ValueError(
                    f"pool {number} is for agent {pool.spec.agent}: give the pools in the agents' order"
                )
        self.timers = self._books.timers
        self._attempts = self._books.attempts
        self._open = self._books.open
        self._agents = len(self.pools)
        self._now_s = -inf
        self._handlers: dict[type, Callable[[Any, Out], None]] = {
            FirstToken: self._first_token,
            Abandoned: self._abandoned,
            Told: self._told,
            InstanceChanged: self._instance_changed,
            Reported: self._reported,
            Probed: self._probed,
            Observed: self._observed,
            Changed: self._changed,
            Woke: self._woke,
        }
        self._kinds = {Arrived, Finished, *self._handlers}
        self._due: dict[int, Callable[[float, int, Out], None]] = {
            b.LEASE: self._lease_out,
            b.ASK: self._unanswered,
            b.GATE: self._gate,
            b.BACKOFF: self._backoff,
            b.FIRST_TOKEN: self._first_token_late,
            b.TIMEOUT: self._timeout,
            b.SPLITTER: self._stage,
            b.SCALER: self._look,
            b.PROBE: self._probe,
        }
        """Kind of timer -> what it does."""

    def handle(self, event: Event) -> Sequence[Command]:
        """Take in what happened; return what is to be done, in order."""
        t_s = event[0]
        if not t_s >= self._now_s:
            self._usable()
            raise WorldError(f"time ran back from {self._now_s} s to {t_s} s at {event!r}")
        out: Out = []
        try:
            if t_s >= self.timers.earliest_s:
                self._check(event)
                self._fire(t_s, out)
            # These two kinds are what every request has, so they make no detour; `finish` and `arrive` are fetched
            # first, since calling an attribute that is no method costs more.
            if type(event) is Finished:
                opened = self._attempts.pop(event[1], None)
                if opened is not None:
                    finish = opened.pool.finish
                    finish(t_s, event, opened, out)
                else:
                    self._check(event)
                    self._books.expired.remove(event[1])
            elif type(event) is Arrived:
                request = event[1]
                request_id, agent = request[0], request[1]
                if request_id in self._open or not 0 <= agent < self._agents:
                    self._check(event)
                pool = self.pools[agent]
                if not pool.started:
                    pool.start(t_s, out)
                arrive = pool.arrive
                arrive(t_s, request_id, request, out, None)
            else:
                self._handlers[type(event)](event, out)
        except WorldError as error:
            error.add_note(f"at {event!r}")
            raise
        except ControllerError as error:
            error.add_note(f"at {event!r}")
            self._now_s = nan
            raise
        except Exception as error:
            if type(event) not in self._kinds:
                raise self._unknown(event) from None
            self._now_s = nan
            raise ControllerError(f"{type(error).__name__}: {error} at {event!r}") from error
        self._now_s = t_s
        if self._notes:
            out.extend(self._notes)
            self._notes.clear()
        return out or _NONE

    def first_weights(self) -> dict[int, float]:
        """Return, of every agent with a rollout, the share of its requests that gets a variant as it begins."""
        return {pool.spec.agent: pool.stages.first_weight for pool in self.pools if pool.stages is not None}

    def assignment(self, request_id: int) -> Assignment:
        """Return how a request that is open got its variant: what a world has to know to tell feedback on it.

        Raises
        ------
        KeyError
            It is not open.
        """
        opened = self._books.open[request_id]
        stages = opened.pool.stages
        if stages is None:
            return Assignment(None, 1.0, opened.request.user or request_id)
        return stages.assignment(opened)

    def under_way(self) -> UnderWay:
        """Return what has begun and not ended: what a world that starts again has to end first."""
        books = self._books
        return UnderWay(
            instances=[
                (pool.spec.agent, each.number, each.region)
                for pool in self.pools
                for each in pool.instances.values()
                if each.state < State.GONE
            ],
            attempts=sorted(books.expired.union(books.attempts)),
            requests=sorted(books.open, reverse=True),
        )

    def next_wake_s(self) -> float:
        """Return when the earliest timer is due, or inf."""
        return self.timers.next_due_s()

    def snapshot(self) -> dict[str, Any]:
        """Return everything that affects decisions, as plain JSON data."""
        self._usable()
        books = self._books
        closing = [opened for opened in books.attempts.values() if opened.state == b.CLOSED]
        packed: dict[str, Any] = pack(
            {
                "now_s": self._now_s,
                "open": [opened.snapshot() for opened in books.open.values()],
                "closing": [opened.snapshot() for opened in closing],
                "last_attempt": books.last_attempt,
                "last_ask": books.last_ask,
                "attempts": list(books.attempts),
                "expired": books.expired,
                "asked": {ask_id: pool.spec.agent for ask_id, pool in books.asked.items()},
                "timers": books.timers.snapshot(),
            }
        )
        return {
            "books": packed,
            "pools": [
                {
                    name: part if name == "controllers" else pack(part)
                    for name, part in pool.snapshot().items()
                }
                for pool in self.pools
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take on a state that `snapshot` returned; going on equals never having stopped."""
        saved, books = unpack(state["books"]), self._books
        pools = [
            {name: part if name == "controllers" else unpack(part) for name, part in pool.items()}
            for pool in state["pools"]
        ]
        for pool, pool_saved in zip(self.pools, pools, strict=True):
            pool.restore(pool_saved)
        self._now_s = saved["now_s"]
        books.last_attempt, books.last_ask = saved["last_attempt"], saved["last_ask"]
        books.expired = saved["expired"]
        books.asked.clear()
        books.asked.update({ask_id: self.pools[agent] for ask_id, agent in saved["asked"].items()})
        books.open.clear()
        books.attempts.clear()
        in_flight: dict[int, Open] = {}
        for entry in saved["open"]:
            opened = self._reopen(entry)
            books.open[opened.request_id] = opened
            if opened.state == b.IN_FLIGHT:
                in_flight[opened.attempt] = opened
        for entry in saved["open"]:
            if entry["followers"]:
                leader = books.open[entry["request"].request_id]
                leader.followers = [books.open[number] for number in entry["followers"]]
                for follower in leader.followers:
                    follower.leader = leader
        for entry in saved["closing"]:
            opened = self._reopen(entry)
            in_flight[opened.attempt] = opened
        books.attempts.update({number: in_flight[number] for number in saved["attempts"]})
        for pool, pool_saved in zip(self.pools, pools, strict=True):
            pool.readopt(pool_saved)
        books.timers.restore(saved["timers"])

    def _reopen(self, entry: dict[str, Any]) -> Open:
        pool = self.pools[entry["agent"]]
        opened = Open()
        opened.pool = pool
        opened.instance = opened.followers = opened.leader = None
        for name in (
            "request", "arrived_s", "assigned_s", "deadline_s", "variant", "plan", "state", "attempts", "attempt",
            "since_s", "cache_key", "committed", "used", "late", "rung", "spare",
        ):  # fmt: skip
            setattr(opened, name, entry[name])
        opened.request_id = opened.request.request_id
        if entry["instance"] is not None:
            number, gone = entry["instance"]
            if gone:  # with this attempt on it; another may have its number by now
                opened.instance = Instance(number, 0, pool.spec.slots)
                opened.instance.state = State.GONE
            else:
                opened.instance = pool.instances[number]
        return opened

    def _usable(self) -> None:
        if isnan(self._now_s):
            raise ControllerError(
                "a controller raised before: restore the last snapshot into a fresh control plane"
            )

    @staticmethod
    def _unknown(event: object) -> WorldError:
        return WorldError(f"{event!r} is none of the events of glowsim.core.types")

    def _check(self, event: Event) -> None:
        """Raise a `WorldError` if the event cannot be.

        Asked before timers fire, so that a refused event has changed nothing, and by the handlers when an
        event does not fit; without a timer due, the happy path pays nothing for it.
        """
        if type(event) is Woke:
            return
        books = self._books
        if type(event) not in self._kinds:
            raise self._unknown(event)
        match event:
            case InstanceChanged(_, agent, instance, state):
                if state >= State.GONE and instance not in self._pool(agent).instances:
                    raise WorldError(
                        f"instance {instance} of agent {agent} went away without having been there"
                    )
            case Arrived(_, request):
                self._pool(request.agent)
                if request.request_id in books.open:
                    raise WorldError(f"request {request.request_id} arrived twice")
            case Finished(_, attempt) | FirstToken(_, attempt):
                if attempt not in books.attempts and attempt not in books.expired:
                    raise WorldError(f"attempt {attempt} is not open: never dispatched, or finished before")
            case Told(_, ask_id):
                if not 0 < ask_id <= books.last_ask:
                    raise WorldError(f"told about ask {ask_id}, which was never asked")
            case Reported(_, agent) | Probed(_, agent) | Observed(_, _, agent):
                self._pool(agent)
            case Changed(_, Change(kind, agent, value)):
                self._pool(agent)
                if kind == ChangeKind.SET_INSTANCES and not (value >= 0 and value == int(value)):
                    raise WorldError(
                        f"agent {agent} cannot have {value} instances: order a whole number from 0"
                    )

    def _pool(self, agent: int) -> Pool:
        if not 0 <= agent < len(self.pools):
            raise WorldError(f"there is no agent {agent}: the fleet has {len(self.pools)}")
        return self.pools[agent]

    # --- events -------------------------------------------------------------------------------------

    def _first_token(self, event: FirstToken, out: Out) -> None:
        opened = self._books.attempts.get(event.attempt)
        if opened is None:
            self._check(event)
        else:
            opened.pool.first_token(opened)

    def _abandoned(self, event: Abandoned, out: Out) -> None:
        opened = self._books.open.get(event.request_id)
        if opened is not None:  # otherwise it was answered while its client was leaving
            opened.pool.abandoned(event.t_s, opened, out)

    def _told(self, event: Told, out: Out) -> None:
        self._check(event)
        pool = self._books.asked.pop(event.ask_id, None)
        if pool is not None:  # otherwise its time had run out and the fallback held
            pool.told(event.t_s, event, out)

    def _instance_changed(self, event: InstanceChanged, out: Out) -> None:
        self._check(event)
        self._pool(event.agent).instance_changed(event.t_s, event, out)

    def _reported(self, event: Reported, out: Out) -> None:
        self._pool(event.agent).reported(event)

    def _probed(self, event: Probed, out: Out) -> None:
        self._pool(event.agent).probed(event, out)

    def _observed(self, event: Observed, out: Out) -> None:
        self._pool(event.agent).observed(event, out)

    def _changed(self, event: Changed, out: Out) -> None:
        self._check(event)
        change = event.change
        pool = self.pools[change.agent]
        if change.kind == ChangeKind.SET_INSTANCES:
            pool.sizing.set_instances(event.t_s, int(change.value), out)
        elif change.kind == ChangeKind.PAUSE_SCALING:
            pool.sizing.pause()
        elif change.kind == ChangeKind.RESUME_SCALING:
            pool.sizing.resume(event.t_s, out)
        elif pool.stages is not None:
            pool.stages.ordered(event.t_s, change.kind, out)

    def _woke(self, event: Woke, out: Out) -> None:
        """Take in nothing: the timers have fired already."""

    # --- timers -------------------------------------------------------------------------------------

    def _fire(self, t_s: float, out: Out) -> None:
        pop, due = self.timers.pop, self._due
        while (timer := pop(t_s)) is not None:
            due_s, kind, number = timer
            due[kind](due_s, number, out)

    def _timeout(self, t_s: float, request_id: int, out: Out) -> None:
        opened = self._open[request_id]
        opened.pool.timed_out(t_s, opened, out)

    def _backoff(self, t_s: float, request_id: int, out: Out) -> None:
        opened = self._open[request_id]
        opened.pool.backed_off(t_s, opened, out)

    def _first_token_late(self, t_s: float, attempt: int, out: Out) -> None:
        opened = self._attempts[attempt]
        if opened.state == b.IN_FLIGHT:
            opened.pool.first_token_late(t_s, opened, out)

    def _unanswered(self, t_s: float, ask_id: int, out: Out) -> None:
        self._books.asked.pop(ask_id).told(t_s, Told(t_s, ask_id, Status.UNKNOWN), out)

    def _gate(self, t_s: float, instance: int, out: Out) -> None:
        for pool in self.pools:
            if instance in pool.instances:
                pool.gate_due(t_s, instance, out)

    def _look(self, t_s: float, agent: int, out: Out) -> None:
        self.pools[agent].sizing.due(t_s, out)

    def _stage(self, t_s: float, agent: int, out: Out) -> None:
        stages = self.pools[agent].stages
        assert stages is not None
        stages.due(t_s, out)

    def _probe(self, t_s: float, agent: int, out: Out) -> None:
        self.pools[agent].probe_due(t_s, out)

    def _lease_out(self, t_s: float, attempt: int, out: Out) -> None:
        """Free the slot of a cancelled attempt that nobody finished."""
        books = self._books
        opened = books.attempts.pop(attempt)
        if len(books.expired) >= _EXPIRED_LIMIT:
            books.expired.remove(min(books.expired))
        books.expired.add(attempt)
        opened.pool.finish(t_s, Finished(t_s, attempt, Outcome.LOST, Usage()), opened, out)
