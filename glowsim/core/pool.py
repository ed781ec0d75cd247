"""One agent's way of a request: guards, limits, variant, cache or join, plan, queue, balancer, attempts.

A pool answers each event with commands appended to ``out``. It holds its agent's instances, its waiting
requests and its controllers; what spans agents is in the shared `Books`. The steps that every request takes
are in `glowsim.core.way`; here is what happens to some.

The rules that it keeps: an attempt holds its slot until it is finished or its lease runs out; a request
that streamed its first token is never retried; nothing waits while an eligible instance has a free slot;
followers of a joined request are answered with their leader, or exactly one of them takes over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, isfinite, nan
from typing import Any, NamedTuple, cast

from glowsim.core.books import (
    ASK,
    BACKING_OFF,
    BACKOFF,
    CLOSED,
    GATE,
    HELD,
    IN_FLIGHT,
    JOINED,
    LEASE,
    PROBE,
    QUEUED,
    Books,
    Open,
)  # fmt: skip
from glowsim.core.contents import Contents
from glowsim.core.errors import ControllerError
from glowsim.core.instance import Eligible, Instance
from glowsim.core.price import Price
from glowsim.core.protocols import (
    Asker,
    Balancer,
    Breaker,
    Cache,
    Detector,
    Gate,
    Guard,
    Ladder,
    Limiter,
    Planner,
    Queue,
    Resort,
    Retrier,
    Scaler,
    Splitter,
)  # fmt: skip
from glowsim.core.sizing import Sizing
from glowsim.core.stages import Stages
from glowsim.core.types import (
    Alert,
    Answer,
    Cancel,
    Code,
    Command,
    Constraint,
    Fail,
    Finished,
    InstanceChanged,
    Keep,
    Observed,
    Outcome,
    Plan,
    Probe,
    Probed,
    Raise,
    Reason,
    Reject,
    Reported,
    Request,
    State,
    Status,
    Told,
    Usage,
)  # fmt: skip
from glowsim.core.way import way

__all__ = ["Controllers", "Pool", "PoolSpec"]

Out = list[Command]
_new = tuple.__new__
_OK = Outcome.OK
_READY, _DRAINING, _GONE = State.READY, State.DRAINING, State.GONE
_OWN = Reason(Code.OWN)
_CACHED = Reason(Code.CACHED)
_JOINED = Reason(Code.JOINED)
_REPEATED = Reason(Code.REPEATED)
_PROMOTED = Reason(Code.PROMOTED)
_RETRYABLE = frozenset({Outcome.ERROR, Outcome.UNREACHABLE, Outcome.THROTTLED, Outcome.TIMEOUT, Outcome.LOST})
_NOTHING = Usage()
_QUEUED, _UNBOUND = Code.QUEUED, Constraint.NONE


def _sum(before: Usage | None, last: Usage) -> Usage:
    if before is None:
        return last
    return Usage(
        before.tokens_in + last.tokens_in,
        before.tokens_cached + last.tokens_cached,
        before.tokens_out + last.tokens_out,
        last.first_token_s,
        last.score,
    )


class PoolSpec(NamedTuple):
    """The fixed facts and the limits of one agent's pool."""

    agent: int
    slots: int
    """The gateway's cap on an instance's work in flight."""
    concurrency: int
    """What an instance serves at once."""
    models: tuple[int, ...]
    """The model of each variant; the baseline's first."""
    timeout_s: float
    first_token_timeout_s: float
    cancel_grace_s: float
    """How long a cancelled attempt may hold its slot before its lease runs out."""
    hold_limit: int
    """Requests that may wait for word from a shared limit."""
    follower_limit: int
    """Requests that may join one leader."""
    memory: int
    """Idempotency keys remembered after their answer."""
    probe_every_s: float = inf
    prices: tuple[Price, ...] = ()
    """US dollars a token of every model: fresh input, cached input, output."""
    region: int = 0
    """Where its instances are: a deployment in another region is another agent, with a scaler of its own."""


@dataclass(frozen=True)
class Controllers:
    """The controllers of one agent; what is None is not there."""

    queue: Queue
    balancer: Balancer
    guard: Guard | None = None
    limiter: Limiter | None = None
    splitter: Splitter | None = None
    cache: Cache | None = None
    planner: Planner | None = None
    breaker: Breaker | None = None
    retrier: Retrier | None = None
    scaler: Scaler | None = None
    ladder: Ladder | None = None
    detectors: tuple[Detector, ...] = field(default=())

    def named(self) -> dict[str, Any]:
        """Return the controllers that are there, by family."""
        there = {
            name: value for name, value in vars(self).items() if name != "detectors" and value is not None
        }
        return there | {f"detector.{i}": detector for i, detector in enumerate(self.detectors)}


class Pool:
    """One agent's queue, instances, attempts and controllers.

    Parameters
    ----------
    spec
        Fixed facts and limits.
    controllers
        One of each family, or None; every pool has its own.
    books
        What the pools of a control plane share.
    """

    def __init__(self, spec: PoolSpec, controllers: Controllers, books: Books) -> None:
        self.spec = spec
        self.controllers = controllers
        self.books = books
        self.instances: dict[int, Instance] = {}
        self.eligible = Eligible(self.instances)
        self.leaders: dict[int, Open] = {}
        self.owners: dict[int, Open] = {}
        """Idempotency key -> the open request that came with it first."""
        self.contents = Contents(spec.memory)
        self.sizing = Sizing(self)
        self.waiting = 0
        self.started = False
        self._held: deque[int] = deque()
        self._queue = controllers.queue
        self._limiter = controllers.limiter
        self._breaker = controllers.breaker
        self._all_open_fails = getattr(controllers.breaker, "when_all_open", "wait") == "fail"
        self._probed: Callable[[float, int, bool], Gate | None] | None = getattr(
            controllers.breaker, "probed", None
        )
        self._stale: Callable[[float, int], int] | None = getattr(controllers.cache, "stale", None)
        self.asker = cast(Asker, controllers.limiter) if hasattr(controllers.limiter, "to_ask") else None
        splitter = controllers.splitter
        self.stages = None if splitter is None else Stages(spec.agent, splitter, books)
        self.splits_by_cost = bool(getattr(splitter, "needs_cost", False))
        self.watching: dict[str, list[Callable[[float, float], Alert | None]]] = {}
        """Metric -> who watches it."""
        for detector in controllers.detectors:
            self.watching.setdefault(detector.metric, []).append(detector.observe)
        followers: tuple[Any, ...] = (controllers.balancer, controllers.breaker)
        self.moved: Callable[[Instance], None] | None = getattr(controllers.balancer, "moved", None)
        self.ended = [each.ended for each in followers if hasattr(each, "ended")]
        self._joined = [each.joined for each in followers if hasattr(each, "joined")]
        self._left = [each.left for each in followers if hasattr(each, "left")]
        self.arrive, self._begin, self._dispatch, self.finish = way(self)

    def start(self, t_s: float, out: Out) -> None:
        """Take in that the first request is about to arrive."""
        self.started = True
        self.sizing.start(t_s)
        if self.stages is not None:
            self.stages.start(t_s, out)
        if isfinite(self.spec.probe_every_s):
            self.books.timers.after(t_s, self.spec.probe_every_s, PROBE, self.spec.agent)

    # --- arrivals -----------------------------------------------------------------------------------

    def _admitted_for_nothing(self, t_s: float, request: Request, held: Open | None) -> None:
        if held is not None:
            self._close(held)
        if self._limiter is not None:
            self._limiter.settle(t_s, request, _NOTHING)

    def limited(self, t_s: float, request: Request, wait_s: float, out: Out) -> None:
        """Reject or hold a request that its limit does not admit."""
        if wait_s > 0.0:
            out.append(Reject(request.request_id, wait_s, Reason(Code.LIMITED)))
        elif wait_s < 0.0:
            self._hold(t_s, request, out)
        else:
            raise ControllerError("the limiter answered nan: give 0, seconds to wait, or HOLD")

    def _hold(self, t_s: float, request: Request, out: Out) -> None:
        if len(self._held) >= self.spec.hold_limit:
            out.append(Reject(request.request_id, 0.0, Reason(Code.LIMITED, Constraint.MAXIMUM)))
            return
        plan = Plan(self.spec.models[0], 0, request.tokens_in, request.max_tokens_out)
        opened = self._begin(t_s, request.request_id, request.deadline_s, request, 0, plan)
        opened.state, opened.assigned_s = HELD, None
        self._held.append(request.request_id)

    def repeated(self, t_s: float, request: Request, held: Open | None, out: Out) -> bool:
        """Answer, join or refuse a request whose idempotency key is known; False if it is not."""
        key = request.idempotency_key
        owner = self.owners.get(key)
        memory = self.contents.memory
        if owner is None and key not in memory:
            return False
        payload, source = memory[key] if owner is None else (owner.request.payload, 0)
        if payload != request.payload:
            self._admitted_for_nothing(t_s, request, held)
            out.append(Reject(request.request_id, 0.0, Reason(Code.KEY_REUSED)))
        elif owner is None:
            self._admitted_for_nothing(t_s, request, held)
            out.append(Answer(request.request_id, source, _REPEATED, keep=True))
        else:
            leader = owner.leader or owner
            opened = held or self._begin(
                t_s, request.request_id, request.deadline_s, request, leader.variant, leader.plan
            )
            opened.variant, opened.plan, opened.cache_key = leader.variant, leader.plan, leader.cache_key
            opened.assigned_s = None
            if not self.join(opened, leader):
                self._admitted_for_nothing(t_s, request, opened)
                full = Reason(Code.QUEUE_FULL, Constraint.MAXIMUM, self.spec.follower_limit)
                out.append(Reject(request.request_id, 0.0, full))
        return True

    def answer_cached(self, t_s: float, request: Request, held: Open | None, source: int, out: Out) -> None:
        """Answer a request from the cache."""
        self._admitted_for_nothing(t_s, request, held)
        out.append(_new(Answer, (request.request_id, source, _CACHED, True)))
        if request.idempotency_key:
            self.contents.remember(request, source, out)

    def join(self, opened: Open, leader: Open) -> bool:
        """Have a request wait for another's answer; False if too many do."""
        if leader.followers is None:
            leader.followers = []
        if len(leader.followers) >= self.spec.follower_limit:
            return False
        leader.followers.append(opened)
        opened.leader = leader
        opened.state = JOINED
        return True

    # --- waiting and dispatching --------------------------------------------------------------------

    def place(self, t_s: float, opened: Open, reason: Reason, out: Out) -> bool:
        """Dispatch a request or let it wait; False if there was no room left."""
        placed = True
        eligible = self.eligible
        if eligible and self.waiting:  # a slot has come free just now, and it is theirs who wait
            self.drain(t_s, out)
        if eligible:
            self._enter(t_s)
            self._dispatch(t_s, opened, reason, out)
        elif self._all_open_fails and self._all_open():
            placed = False
            self._turn_away(t_s, opened, Reason(Code.ALL_OPEN), out)
        else:
            refused = self._queue.push(t_s, opened.request)
            placed = refused != opened.request_id
            if placed:
                opened.since_s = t_s
                opened.state = QUEUED
                self.waiting += 1
                self._enter(t_s)
                if refused:
                    self._shed(t_s, self.books.open[refused], out)
            else:
                self._turn_away(t_s, opened, Reason(Code.QUEUE_FULL, a=self.waiting), out)
        if self.sizing.asleep:
            self.sizing.look(t_s, out)
        return placed

    def _enter(self, t_s: float) -> None:
        self.sizing.in_system += 1
        self.sizing.entered_s += t_s

    def _leave_queue(self, t_s: float) -> None:
        self.waiting -= 1
        self.sizing.in_system -= 1
        self.sizing.entered_s -= t_s

    def _all_open(self) -> bool:
        ready = [each for each in self.instances.values() if each.state is _READY]
        return bool(ready) and all(each.gate_cap == 0 for each in ready)

    def _shed(self, t_s: float, opened: Open, out: Out) -> None:
        """Turn a waiting request away whose place in the queue a more important one has taken."""
        self._leave_queue(t_s)
        self._turn_away(t_s, opened, Reason(Code.SHED, a=t_s - opened.since_s), out)
        self._promote(t_s, opened, out)

    def _turn_away(self, t_s: float, opened: Open, reason: Reason, out: Out) -> None:
        if opened.attempts:
            self._fail(t_s, opened, Outcome.ERROR, _NOTHING, reason, out)
        else:
            instead = self._resort(t_s, opened, Outcome.ERROR)
            assert not isinstance(instead, Plan), "no instance is free"
            self._admitted_for_nothing(t_s, opened.request, opened)
            out.append(instead or Reject(opened.request_id, 0.0, reason))

    def drain(self, t_s: float, out: Out) -> None:
        """Dispatch what waits, as far as instances have room."""
        eligible, queue, opens, dispatch = self.eligible, self._queue, self.books.open, self._dispatch
        while self.waiting and eligible:
            opened = opens[queue.pop(t_s)]
            self.waiting -= 1
            waited_s = t_s - opened.since_s
            opened.since_s = t_s
            dispatch(t_s, opened, _new(Reason, (_QUEUED, _UNBOUND, waited_s, 0.0, 0.0)), out)

    # --- attempts end -------------------------------------------------------------------------------

    def ended_otherwise(self, event: Finished, opened: Open, out: Out) -> None:
        """Take in the end of an attempt that failed, or whose request is closed; its slot is free already."""
        t_s, _, outcome, usage, retry_after_s = event
        instance = opened.instance
        assert instance is not None
        if opened.late and outcome:
            opened.late = False
            if outcome == Outcome.CANCELLED:
                outcome = Outcome.TIMEOUT
        duration_s = t_s - opened.since_s
        if self._breaker is not None and outcome != Outcome.CANCELLED and instance.state < _GONE:
            gate = self._breaker.record(t_s, instance.number, outcome, duration_s)
            if gate is not None:
                self.gate(t_s, instance, gate)
        self._refresh(instance)
        for hear in self.ended:
            hear(t_s, instance, outcome, duration_s)
        if opened.state == CLOSED:
            self._settle(t_s, opened, usage)
        else:
            self._failed(t_s, opened, outcome, usage, retry_after_s, out)
        self.drain(t_s, out)

    def answer_all(self, t_s: float, opened: Open, attempt: int, kept: bool, out: Out) -> None:
        """Answer a request and those that joined it, and remember their idempotency keys."""
        followers = opened.followers or ()
        keyed = [each.request for each in (opened, *followers) if each.request.idempotency_key]
        keep = kept or bool(keyed)
        self._disown(opened)
        out.append(Answer(opened.request_id, attempt, _OWN, keep))
        for follower in followers:
            self._admitted_for_nothing(t_s, follower.request, follower)
            out.append(Answer(follower.request_id, attempt, _JOINED, keep))
        for each in keyed:
            self.contents.remember(each, attempt, out)

    def _failed(
        self, t_s: float, opened: Open, outcome: Outcome, usage: Usage, retry_after_s: float, out: Out
    ) -> None:
        if opened.committed:
            reason = Reason(Code.BROKEN_STREAM)
        elif outcome not in _RETRYABLE:
            reason = Reason(Code.NOT_RETRYABLE)
        else:
            delay_s, retrier = inf, self.controllers.retrier
            if retrier is not None:
                delay_s = retrier.after(t_s, opened.request, opened.attempts, outcome, retry_after_s)
            if not delay_s >= 0.0:
                raise ControllerError(f"the retrier waits {delay_s} s: give 0 or more, or inf to give up")
            if delay_s < inf and t_s + delay_s < opened.deadline_s:
                opened.state = BACKING_OFF
                opened.used = _sum(opened.used, usage)
                self.books.timers.at(t_s + delay_s, BACKOFF, opened.request_id)
                return
            code = Code.EXHAUSTED if delay_s == inf else Code.NO_TIME_TO_RETRY
            reason = Reason(code, a=opened.attempts)
        self._fail(t_s, opened, outcome, usage, reason, out)

    def escalate(self, event: Finished, opened: Open, plan: Plan, out: Out) -> None:
        """Have a request answered again by another plan; this answer is kept in case that fails."""
        t_s = event.t_s
        self._drop_spare(opened, out)
        opened.spare = event.attempt
        self.contents.keep(event.attempt)
        out.append(Keep(event.attempt))
        first, opened.plan = opened.plan.model, plan
        opened.used = _sum(opened.used, event.usage)
        opened.since_s = t_s
        self.place(t_s, opened, Reason(Code.ESCALATED, a=plan.model, b=first, c=event.usage.score), out)
        self.drain(t_s, out)

    def _drop_spare(self, opened: Open, out: Out) -> None:
        """Let go of the answer that was kept for a request, once it is answered or gone."""
        if opened.spare:
            self.contents.release(opened.spare, out)
            opened.spare = 0

    def used(self, opened: Open, usage: Usage) -> Usage:
        """Return what a request has used in all, its earlier attempts included."""
        return _sum(opened.used, usage)

    def _settle(self, t_s: float, opened: Open, usage: Usage) -> None:
        if self._limiter is not None:
            self._limiter.settle(t_s, opened.request, _sum(opened.used, usage))

    def _fail(
        self, t_s: float, opened: Open, outcome: Outcome, usage: Usage, reason: Reason, out: Out
    ) -> None:
        instead = self._resort(t_s, opened, outcome)
        if isinstance(instead, Plan):
            opened.plan = instead
            opened.used = _sum(opened.used, usage)
            opened.since_s = t_s
            self.place(t_s, opened, Reason(Code.OTHER_MODEL, a=instead.model), out)
            return
        self._settle(t_s, opened, usage)
        self._close(opened)
        out.append(instead or Fail(opened.request_id, outcome, reason))
        self._drop_spare(opened, out)
        self._note_failure(t_s, opened, usage, out)
        self._promote(t_s, opened, out)

    def _resort(self, t_s: float, opened: Open, outcome: Outcome) -> Answer | Plan | None:
        """Return the next best thing for a request that would fail: an answer, another plan, or None."""
        if opened.spare:
            return Answer(opened.request.request_id, opened.spare, Reason(Code.DOUBTFUL), keep=True)
        ladder = self.controllers.ladder
        if ladder is None or opened.committed:
            return None
        request = opened.request
        while (rung := ladder.instead(t_s, request, opened.rung, outcome)) is not None:
            opened.rung += 1
            if rung.kind == Resort.MODEL:
                if self.eligible and t_s < opened.deadline_s:
                    return opened.plan._replace(model=rung.model)
            elif rung.kind == Resort.APOLOGY:
                return Answer(request.request_id, 0, Reason(Code.APOLOGY))
            elif opened.cache_key and self._stale is not None:
                source = self._stale(t_s, opened.cache_key)
                if source:
                    return Answer(request.request_id, source, Reason(Code.STALE), keep=True)
        return None

    def _promote(self, t_s: float, gone: Open, out: Out) -> None:
        """Have one follower take over from a leader, and one repeat keep the idempotency key."""
        while followers := gone.followers if gone.leader is None else gone.leader.followers:
            key = gone.request.idempotency_key
            if key and key not in self.owners:
                for follower in followers:
                    if follower.request.idempotency_key == key:
                        self.owners[key] = follower
                        break
            if gone.leader is not None:
                return
            gone.followers = None
            heir, *rest = followers
            heir.leader = None
            heir.followers = rest
            heir.since_s = t_s
            for follower in rest:
                follower.leader = heir
            if heir.cache_key and heir.cache_key not in self.leaders:
                self.leaders[heir.cache_key] = heir
            if self.place(t_s, heir, _PROMOTED, out):
                return
            gone = heir

    def _close(self, opened: Open) -> None:
        opened.state = CLOSED
        del self.books.open[opened.request_id]
        if opened.cache_key and self.leaders.get(opened.cache_key) is opened:
            del self.leaders[opened.cache_key]
        self._disown(opened)

    def _disown(self, opened: Open) -> None:
        key = opened.request.idempotency_key
        if key and self.owners.get(key) is opened:
            del self.owners[key]

    # --- what is watched ------------------------------------------------------------------------------

    def alert(self, alert: Alert, out: Out) -> None:
        """Give out an alert of one of this agent's detectors."""
        out.append(Raise(alert._replace(agent=self.spec.agent)))

    def _watch(self, metric: str, t_s: float, value: float, out: Out) -> None:
        for observe in self.watching.get(metric, ()):
            alert = observe(t_s, value)
            if alert is not None:
                self.alert(alert, out)

    def watch(self, t_s: float, opened: Open, usage: Usage, out: Out) -> None:
        """Show the detectors what an answered request has used."""
        self._watch("tokens_out", t_s, usage.tokens_out, out)
        self._watch("tokens_in", t_s, usage.tokens_in, out)
        if "cost_usd" in self.watching:
            self._watch("cost_usd", t_s, self.cost_usd(opened, usage), out)

    def cost_usd(self, opened: Open, usage: Usage) -> float:
        """Return what a request has cost, its earlier attempts included, by the prices of its last model."""
        total = _sum(opened.used, usage)
        price = self.spec.prices[opened.plan.model]
        return price.cost_usd(total.tokens_in, total.tokens_cached, total.tokens_out)

    def _note_failure(self, t_s: float, opened: Open, usage: Usage, out: Out) -> None:
        if self.stages is not None and opened.assigned_s is not None:
            splitter = cast(Splitter, self.controllers.splitter)
            cost_usd = self.cost_usd(opened, usage) if self.splits_by_cost else nan
            advance = splitter.finished(
                t_s,
                opened.assigned_s,
                opened.variant,
                opened.request,
                False,
                t_s - opened.arrived_s,
                cost_usd,
            )
            if advance is not None:
                self.stages.advance(t_s, advance, out)
        self._watch("latency_s", t_s, t_s - opened.arrived_s, out)
        self._watch("error", t_s, 1.0, out)

    def observed(self, event: Observed, out: Out) -> None:
        """Pass a late label on to the rollout and to the detectors of its metric."""
        if self.stages is not None:
            self.stages.observed(event, out)
        self._watch(event.metric, event.t_s, event.value, out)

    # --- clients, streams, timers -----------------------------------------------------------------------

    def first_token(self, opened: Open) -> None:
        """Commit a streamed request to the attempt that it has."""
        opened.committed = True

    def abandoned(self, t_s: float, opened: Open, out: Out) -> None:
        """Let go of a request whose client went away; a running attempt is cancelled."""
        self._let_go(t_s, opened, Reason(Code.CLIENT_GONE), out)
        self._drop_spare(opened, out)
        self._promote(t_s, opened, out)

    def _let_go(self, t_s: float, opened: Open, reason: Reason, out: Out) -> None:
        state = opened.state
        if state == QUEUED:
            self._queue.remove(t_s, opened.request)
            self._leave_queue(t_s)
        elif state == IN_FLIGHT:
            if not opened.late:
                self._cancel(t_s, opened, reason, out)
        elif state == JOINED:
            assert opened.leader is not None
            assert opened.leader.followers is not None
            opened.leader.followers.remove(opened)
        elif state == HELD:
            self._held.remove(opened.request_id)
        if state not in (IN_FLIGHT, HELD):
            self._settle(t_s, opened, _NOTHING)
        self._close(opened)

    def _cancel(self, t_s: float, opened: Open, reason: Reason, out: Out) -> None:
        out.append(Cancel(opened.attempt, reason))
        self.books.timers.after(t_s, self.spec.cancel_grace_s, LEASE, opened.attempt)

    def timed_out(self, t_s: float, opened: Open, out: Out) -> None:
        """Fail a request whose time is up, wherever it stands."""
        state = opened.state
        code = Code.TIMED_OUT if opened.attempts else Code.WAITED_TOO_LONG
        bound = Constraint.DEADLINE if opened.deadline_s == opened.request.deadline_s else Constraint.NONE
        reason = Reason(code, bound, t_s - opened.arrived_s)
        self._let_go(t_s, opened, reason, out)
        if state == IN_FLIGHT and t_s >= opened.since_s + self.spec.timeout_s:
            opened.late = True  # the instance had the whole time, none of it went by in a queue
        instead = self._resort(t_s, opened, Outcome.TIMEOUT)
        assert not isinstance(instead, Plan), "its time is up"
        out.append(instead or Fail(opened.request_id, Outcome.TIMEOUT, reason))
        self._drop_spare(opened, out)
        if state not in (HELD, JOINED):
            self._note_failure(t_s, opened, Usage(), out)
        self._promote(t_s, opened, out)

    def first_token_late(self, t_s: float, opened: Open, out: Out) -> None:
        """Cancel an attempt that has not begun to stream in time; it is retried once it ended."""
        self._cancel(t_s, opened, Reason(Code.FIRST_TOKEN_LATE, a=self.spec.first_token_timeout_s), out)
        opened.late = True

    def backed_off(self, t_s: float, opened: Open, out: Out) -> None:
        """Try again."""
        opened.since_s = t_s
        self.place(t_s, opened, Reason(Code.RETRIED, a=opened.attempts + 1), out)

    # --- limits that are shared with others -------------------------------------------------------------

    def ask(self, t_s: float, out: Out) -> None:
        """Pass on what the limiter wants to know."""
        assert self.asker is not None
        books = self.books
        ask = self.asker.to_ask(t_s, books.last_ask + 1)
        if ask is not None:
            if ask.ask_id != books.last_ask + 1:
                raise ControllerError(f"the limiter asks as {ask.ask_id}; it was given {books.last_ask + 1}")
            books.last_ask += 1
            books.asked[ask.ask_id] = self
            books.timers.after(t_s, ask.timeout_s, ASK, ask.ask_id)
            out.append(ask)

    def told(self, t_s: float, told: Told, out: Out) -> None:
        """Take in an answer of the outside world and let in what waited for it."""
        assert self.asker is not None
        assert self._limiter is not None
        self.asker.told(t_s, told)
        while self._held:
            held = self.books.open[self._held[0]]
            wait_s = self._limiter.admit(t_s, held.request)
            if wait_s < 0.0:
                break
            self._held.popleft()
            if wait_s > 0.0:
                self._close(held)
                code = Code.LIMIT_UNKNOWN if told.status == Status.UNKNOWN else Code.LIMITED
                out.append(Reject(held.request_id, wait_s, Reason(code)))
            else:
                held.since_s = t_s
                self.arrive(t_s, held.request_id, held.request, out, held)
        self.ask(t_s, out)

    # --- instances --------------------------------------------------------------------------------------

    def instance_changed(self, t_s: float, event: InstanceChanged, out: Out) -> None:
        """Follow an instance through its life."""
        _, _, number, state, region, _ = event
        instance = self.instances.get(number)
        if state >= _GONE:
            assert instance is not None
            instance.state = state
            self.leave(t_s, instance)
            del self.instances[number]
            if self._breaker is not None:
                self._breaker.forget(number)
            if state == State.FAILED and self.started:
                self.sizing.look(t_s, out)
            return
        if instance is None:
            instance = self.instances[number] = Instance(number, region, self.spec.slots)
        before = instance.state
        if before is _DRAINING and state is not _DRAINING:
            return  # it was told to go while it was starting; it goes
        instance.state = state
        if state is _DRAINING:
            self.leave(t_s, instance)
            return
        if state is _READY and before is not _READY:
            for hear in self._joined:
                hear(t_s, instance)
        self._refresh(instance)
        self.drain(t_s, out)

    def leave(self, t_s: float, instance: Instance) -> None:
        """Give an instance no more work."""
        self.eligible.discard(instance)
        if self.moved is not None:
            self.moved(instance)
        for hear in self._left:
            hear(t_s, instance.number)

    def _refresh(self, instance: Instance) -> None:
        self.eligible.refresh(instance)
        if self.moved is not None:
            self.moved(instance)

    def gate(self, t_s: float, instance: Instance, gate: Gate) -> None:
        """Let through to an instance what its breaker says."""
        if not gate.until_s > t_s:
            raise ControllerError(f"the breaker wants to be woken at {gate.until_s} s, but it is {t_s} s")
        instance.set_gate(gate.cap, gate.until_s)
        self._refresh(instance)
        if isfinite(gate.until_s):
            self.books.timers.at(gate.until_s, GATE, instance.number)

    def gate_due(self, t_s: float, number: int, out: Out) -> None:
        """Ask the breaker again about an instance."""
        instance = self.instances.get(number)
        if instance is None or self._breaker is None or t_s < instance.gate_until_s:
            return  # it went away, or its gate has changed since this timer was set
        instance.gate_until_s = inf
        gate = self._breaker.wake(t_s, number)
        if gate is not None:
            self.gate(t_s, instance, gate)
            self.drain(t_s, out)

    def reported(self, event: Reported) -> None:
        """Pass a measurement on to the balancer."""
        self.controllers.balancer.reported(event.t_s, event)

    def probe_due(self, t_s: float, out: Out) -> None:
        """Ask the instances how they are, and again in a while."""
        out.append(Probe(self.spec.agent))
        self.books.timers.after(t_s, self.spec.probe_every_s, PROBE, self.spec.agent)

    def probed(self, event: Probed, out: Out) -> None:
        """Let the breaker hear of the probes' results."""
        breaker = self._breaker
        if breaker is None:
            return
        for number, healthy in event.results:
            instance = self.instances.get(number)
            if instance is None:
                continue
            if self._probed is not None:
                gate = self._probed(event.t_s, number, healthy)
            else:
                gate = breaker.record(event.t_s, number, _OK if healthy else Outcome.UNREACHABLE, 0.0)
            if gate is not None:
                self.gate(event.t_s, instance, gate)
        self.drain(event.t_s, out)

    # --- state ---------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Return everything of this pool that affects decisions, as plain values."""
        return {
            "plain": {"waiting": self.waiting, "started": self.started, "held": self._held},
            "sizing": self.sizing.snapshot(),
            "contents": self.contents.snapshot(),
            "stages": inf if self.stages is None else self.stages.due_s,
            "instances": [
                (each.number, each.region, int(each.state), each.gate_cap, each.gate_until_s, each.in_flight)
                for each in self.instances.values()
            ],
            "eligible": [each.number for each in self.eligible],
            "leaders": {key: leader.request_id for key, leader in self.leaders.items()},
            "owners": {key: owner.request_id for key, owner in self.owners.items()},
            "controllers": {name: each.snapshot() for name, each in self.controllers.named().items()},
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Take on a state; the open requests follow by `readopt`."""
        plain = saved["plain"]
        self.waiting, self.started, self._held = plain["waiting"], plain["started"], plain["held"]
        self.sizing.restore(saved["sizing"])
        self.contents.restore(saved["contents"])
        if self.stages is not None:
            self.stages.due_s = saved["stages"]
            self.stages.asleep = True  # asked once too often, it says the same
        self.instances.clear()
        for number, region, state, gate_cap, gate_until_s, in_flight in saved["instances"]:
            instance = self.instances[number] = Instance(number, region, self.spec.slots)
            instance.state = State(state)
            instance.in_flight = in_flight
            instance.set_gate(gate_cap, gate_until_s)
        self.eligible.clear()
        for number in saved["eligible"]:
            self.eligible.add(self.instances[number])
        for name, controller in self.controllers.named().items():
            controller.restore(saved["controllers"][name])

    def readopt(self, saved: dict[str, Any]) -> None:
        """Find leaders and owners of keys among the restored open requests."""
        for mine, kept in ((self.leaders, saved["leaders"]), (self.owners, saved["owners"])):
            mine.clear()
            mine.update({key: self.books.open[number] for key, number in kept.items()})
