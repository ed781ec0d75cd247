"""One agent's way of a request: guards, limits, variant, cache or join, plan, queue, balancer, attempts.

A pool answers each event with commands appended to ``out``. It holds its agent's instances, its waiting
requests and its controllers; what spans agents is in the shared `Books`.

The rules that it keeps: an attempt holds its slot until it is finished or its lease runs out; a request
that streamed its first token is never retried; nothing waits while an eligible instance has a free slot;
followers of a joined request are answered with their leader, or exactly one of them takes over.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any, Final, NamedTuple, cast

from glowsim.core.books import (
    ASK,
    BACKING_OFF,
    BACKOFF,
    CLOSED,
    FIRST_TOKEN,
    GATE,
    HELD,
    IN_FLIGHT,
    JOINED,
    LEASE,
    PROBE,
    QUEUED,
    SCALER,
    SPLITTER,
    TIMEOUT,
    Books,
    Open,
)  # fmt: skip
from glowsim.core.errors import ControllerError
from glowsim.core.instance import Eligible, Instance
from glowsim.core.protocols import (
    Asker,
    Balancer,
    Breaker,
    Cache,
    Detector,
    Gate,
    Guard,
    Limiter,
    Load,
    Planner,
    Queue,
    Retrier,
    Scaler,
    Splitter,
)  # fmt: skip
from glowsim.core.streams import mix
from glowsim.core.types import (
    Advance,
    Answer,
    Cancel,
    Code,
    Command,
    Constraint,
    Dispatch,
    Fail,
    Finished,
    Forget,
    InstanceChanged,
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
    Scale,
    State,
    Status,
    Told,
    Usage,
)  # fmt: skip

__all__ = ["Controllers", "Pool", "PoolSpec"]

Out = list[Command]
_new = tuple.__new__
_OK = Outcome.OK
_CANCELLED = Outcome.CANCELLED
_STARTING, _READY, _GONE = State.STARTING, State.READY, State.GONE
_ARRIVED = Reason(Code.ARRIVED)
_OWN = Reason(Code.OWN)
_CACHED = Reason(Code.CACHED)
_JOINED = Reason(Code.JOINED)
_REPEATED = Reason(Code.REPEATED)
_PROMOTED = Reason(Code.PROMOTED)
_RETRYABLE = frozenset({Outcome.ERROR, Outcome.UNREACHABLE, Outcome.THROTTLED, Outcome.TIMEOUT, Outcome.LOST})
_NOTHING = Usage()
_NOT_KEPT: tuple[bool, tuple[int, ...]] = (False, ())
_QUEUED, _UNBOUND = Code.QUEUED, Constraint.NONE
# Places in a `Request`: on the way that every request goes, by place costs less than half of by name.
_STREAM: Final = 7
_DEADLINE_S: Final = 8
_CACHE_KEY: Final = 12
_IDEMPOTENCY_KEY: Final = 13


def _sum(before: Usage | None, last: Usage) -> Usage:
    if before is None:
        return last
    return Usage(
        before.tokens_in + last.tokens_in,
        before.tokens_cached + last.tokens_cached,
        before.tokens_out + last.tokens_out,
        last.first_token_s,
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

    __slots__ = (
        "_area", "_area_s", "_area_since_s", "_asker", "_attempts", "_books", "_breaker", "_cache", "_guard",
        "_held", "_in_system", "_kept", "_leaders", "_limiter", "_memory", "_models", "_open", "_owners",
        "_paused", "_pick", "_plan", "_queue", "_retrier", "_scaler", "_scaler_asleep", "_scaler_due_s",
        "_splitter", "_splitter_due_s", "_started", "_timeout_s", "_timeouts", "_timers", "_waiting",
        "_watching", "controllers", "eligible", "instances", "spec",
    )  # fmt: skip

    def __init__(self, spec: PoolSpec, controllers: Controllers, books: Books) -> None:
        self.spec = spec
        self.controllers = controllers
        self._books = books
        self._open = books.open
        self._attempts = books.attempts
        self._timers = books.timers
        self._queue = controllers.queue
        self._pick = controllers.balancer.pick
        self._guard = controllers.guard
        self._limiter = controllers.limiter
        self._asker = cast(Asker, controllers.limiter) if hasattr(controllers.limiter, "to_ask") else None
        self._splitter = controllers.splitter
        self._cache = controllers.cache
        self._breaker = controllers.breaker
        self._retrier = controllers.retrier
        self._scaler = controllers.scaler
        self._plan = None if controllers.planner is None else controllers.planner.plan
        self._models = spec.models
        self._timeout_s = spec.timeout_s
        self._timeouts = books.timers.lane(TIMEOUT, spec.timeout_s)
        self._watching = [(each.metric, each.observe) for each in controllers.detectors]
        self.instances: dict[int, Instance] = {}
        self.eligible = Eligible()
        self._held: deque[int] = deque()
        self._leaders: dict[int, Open] = {}
        self._owners: dict[int, Open] = {}
        """Idempotency key -> the open request that came with it first."""
        self._memory: OrderedDict[int, tuple[int, int]] = OrderedDict()
        """Idempotency key -> (payload, source) of an answered request."""
        self._kept: dict[int, int] = {}
        """Source -> how many (cache, memory) still want its content."""
        self._waiting = 0
        self._in_system = 0
        self._area = 0.0
        self._area_since_s = 0.0
        self._area_s = 0.0
        self._scaler_asleep = True
        self._scaler_due_s = inf
        self._paused = False
        self._splitter_due_s = inf
        self._started = False

    # --- arrivals -----------------------------------------------------------------------------------

    def arrived(self, t_s: float, request: Request, out: Out) -> None:
        """Take a request in, or turn it away."""
        if not self._started:
            self._start(t_s, out)
        if request[_DEADLINE_S] <= t_s:
            out.append(Reject(request.request_id, 0.0, Reason(Code.WAITED_TOO_LONG, Constraint.DEADLINE)))
            return
        if self._guard is not None:
            reason = self._guard.check(t_s, request)
            if reason is not None:
                out.append(Reject(request.request_id, 0.0, reason))
                return
        limiter = self._limiter
        if limiter is not None:
            wait_s = limiter.admit(t_s, request)
            if self._asker is not None:
                self._ask(t_s, out)
            if wait_s != 0.0:
                if wait_s > 0.0:
                    out.append(Reject(request.request_id, wait_s, Reason(Code.LIMITED)))
                elif wait_s < 0.0:
                    self._hold(t_s, request, out)
                else:
                    raise ControllerError("the limiter answered nan: give 0, seconds to wait, or HOLD")
                return
        self._enter(t_s, request, None, out)

    def _enter(self, t_s: float, request: Request, held: Open | None, out: Out) -> None:
        idempotency_key = request[_IDEMPOTENCY_KEY]
        if idempotency_key and self._repeated(t_s, request, held, out):
            return
        splitter = self._splitter
        variant = 0 if splitter is None else splitter.assign(t_s, request)
        cache_key = 0
        if request[_CACHE_KEY] and self._cache is not None:
            cache_key = request.cache_key if variant == 0 else mix(request.cache_key) ^ variant
            source = self._cache.get(t_s, cache_key)
            if source:
                self._admitted_for_nothing(t_s, request, held)
                out.append(_new(Answer, (request.request_id, source, _CACHED, True)))
                if idempotency_key:
                    self._remember(request, source, out)
                return
        plan: Plan = _new(Plan, (self._models[variant], variant, request[2], request[3]))
        replan = self._plan
        if replan is not None:
            plan = replan(t_s, request, plan)
        if held is None:
            opened = self._opened(t_s, request, variant, plan)
        else:
            opened = held
            opened.variant, opened.plan = variant, plan
        opened.assigned_s = t_s
        if idempotency_key:
            self._owners[idempotency_key] = opened
        if cache_key:
            opened.cache_key = cache_key
            leader = self._leaders.get(cache_key)
            if leader is not None and self._join(opened, leader):
                return
            if leader is None:
                self._leaders[cache_key] = opened
        self._place(t_s, opened, _ARRIVED, out)

    def _opened(self, t_s: float, request: Request, variant: int, plan: Plan) -> Open:
        deadline_s = t_s + self._timeout_s
        request_id = request[0]
        if request[_DEADLINE_S] < deadline_s:
            deadline_s = request.deadline_s
            self._timers.at(deadline_s, TIMEOUT, request_id)
        else:
            self._timeouts.append((deadline_s, TIMEOUT, request_id))
            if deadline_s < self._timers.earliest_s:
                self._timers.earliest_s = deadline_s
        opened = self._open[request_id] = Open()
        opened.request = request
        opened.pool = self
        opened.arrived_s = opened.since_s = t_s
        opened.deadline_s = deadline_s
        opened.variant = variant
        opened.plan = plan
        opened.state = HELD
        opened.attempts = opened.attempt = opened.cache_key = 0
        opened.committed = opened.late = False
        opened.assigned_s = opened.instance = opened.used = opened.followers = opened.leader = None
        return opened

    def _admitted_for_nothing(self, t_s: float, request: Request, held: Open | None) -> None:
        if held is not None:
            self._close(held)
        if self._limiter is not None:
            self._limiter.settle(t_s, request, _NOTHING)

    def _hold(self, t_s: float, request: Request, out: Out) -> None:
        if len(self._held) >= self.spec.hold_limit:
            out.append(Reject(request.request_id, 0.0, Reason(Code.LIMITED, Constraint.MAXIMUM)))
            return
        plan = Plan(self.spec.models[0], 0, request.tokens_in, request.max_tokens_out)
        self._opened(t_s, request, 0, plan)
        self._held.append(request.request_id)

    def _repeated(self, t_s: float, request: Request, held: Open | None, out: Out) -> bool:
        key = request.idempotency_key
        owner = self._owners.get(key)
        if owner is None and key not in self._memory:
            return False
        payload, source = self._memory[key] if owner is None else (owner.request.payload, 0)
        if payload != request.payload:
            self._admitted_for_nothing(t_s, request, held)
            out.append(Reject(request.request_id, 0.0, Reason(Code.KEY_REUSED)))
        elif owner is None:
            self._admitted_for_nothing(t_s, request, held)
            out.append(Answer(request.request_id, source, _REPEATED, keep=True))
        else:
            leader = owner.leader or owner
            opened = held or self._opened(t_s, request, leader.variant, leader.plan)
            opened.variant, opened.plan, opened.cache_key = leader.variant, leader.plan, leader.cache_key
            if not self._join(opened, leader):
                self._admitted_for_nothing(t_s, request, opened)
                full = Reason(Code.QUEUE_FULL, Constraint.MAXIMUM, self.spec.follower_limit)
                out.append(Reject(request.request_id, 0.0, full))
        return True

    def _join(self, opened: Open, leader: Open) -> bool:
        if leader.followers is None:
            leader.followers = []
        if len(leader.followers) >= self.spec.follower_limit:
            return False
        leader.followers.append(opened)
        opened.leader = leader
        opened.state = JOINED
        return True

    # --- waiting and dispatching --------------------------------------------------------------------

    def _place(self, t_s: float, opened: Open, reason: Reason, out: Out) -> bool:
        """Dispatch a request or let it wait; False if there was no room left."""
        placed = True
        eligible = self.eligible
        if self._waiting and eligible:  # a slot has come free just now, and it is theirs who wait
            self._drain(t_s, out)
        if eligible:
            self._area += self._in_system * (t_s - self._area_s)
            self._area_s = t_s
            self._in_system += 1
            self._dispatch(t_s, opened, reason, out)
        else:
            refused = self._queue.push(t_s, opened.request)
            placed = refused != opened.request.request_id
            if placed:
                opened.since_s = t_s
                opened.state = QUEUED
                self._waiting += 1
                self._area += self._in_system * (t_s - self._area_s)
                self._area_s = t_s
                self._in_system += 1
                if refused:
                    self._shed(t_s, self._open[refused], out)
            else:
                self._turn_away(t_s, opened, Reason(Code.QUEUE_FULL, a=self._waiting), out)
        if self._scaler_asleep:
            self._look(t_s, out)
        return placed

    def _shed(self, t_s: float, opened: Open, out: Out) -> None:
        """Turn a waiting request away whose place in the queue a more important one has taken."""
        self._waiting -= 1
        self._area += self._in_system * (t_s - self._area_s)
        self._area_s = t_s
        self._in_system -= 1
        self._turn_away(t_s, opened, Reason(Code.SHED, a=t_s - opened.since_s), out)
        self._promote(t_s, opened, out)

    def _turn_away(self, t_s: float, opened: Open, reason: Reason, out: Out) -> None:
        if opened.attempts:
            self._settle(t_s, opened, _NOTHING)
            self._fail(t_s, opened, Outcome.ERROR, reason, out)
        else:
            self._admitted_for_nothing(t_s, opened.request, opened)
            out.append(Reject(opened.request.request_id, 0.0, reason))

    def _dispatch(self, t_s: float, opened: Open, reason: Reason, out: Out) -> None:
        allowed = self.eligible
        pick = self._pick
        request = opened.request
        last = opened.instance
        if last is None or last.place < 0 or len(allowed) == 1:
            instance = pick(t_s, request, allowed)
        else:  # another try goes to another instance where there is one
            instance = pick(t_s, request, [each for each in allowed if each is not last])
        if instance.place < 0:
            raise ControllerError(
                f"the balancer picked instance {instance.number}, which may not get work now"
            )
        in_flight = instance.in_flight = instance.in_flight + 1
        if in_flight >= instance.cap:
            allowed.discard(instance)
        books = self._books
        attempt = books.last_attempt = books.last_attempt + 1
        opened.attempt = attempt
        opened.attempts += 1
        opened.instance = instance
        opened.state = IN_FLIGHT
        self._attempts[attempt] = opened
        if request[_STREAM] and self.spec.first_token_timeout_s < inf:
            self._timers.after(t_s, self.spec.first_token_timeout_s, FIRST_TOKEN, attempt)
        out.append(_new(Dispatch, (attempt, request[0], instance.number, opened.plan, reason)))

    def _drain(self, t_s: float, out: Out) -> None:
        eligible, queue, opens = self.eligible, self._queue, self._open
        while self._waiting and eligible:
            opened = opens[queue.pop(t_s)]
            self._waiting -= 1
            waited_s = t_s - opened.since_s
            opened.since_s = t_s
            self._dispatch(t_s, opened, _new(Reason, (_QUEUED, _UNBOUND, waited_s, 0.0, 0.0)), out)

    # --- attempts end -------------------------------------------------------------------------------

    def finished(self, event: Finished, opened: Open, out: Out) -> None:
        """Free the slot, then answer, retry or fail; then let the next ones in."""
        t_s, attempt, outcome, usage, retry_after_s = event
        instance = opened.instance
        assert instance is not None
        instance.in_flight -= 1
        self._area += self._in_system * (t_s - self._area_s)
        self._area_s = t_s
        self._in_system -= 1
        ok = outcome == _OK
        if opened.late and not ok:
            opened.late = False
            if outcome == _CANCELLED:
                outcome = Outcome.TIMEOUT
        state, breaker = instance.state, self._breaker
        if breaker is not None and (ok or outcome != _CANCELLED) and (state is _READY or state < _GONE):
            gate = breaker.record(t_s, instance.number, outcome, t_s - opened.since_s)
            if gate is not None:
                self._gate(t_s, instance, gate)
        if instance.place < 0 and state is _READY and instance.in_flight < instance.cap:
            self.eligible.add(instance)
        if opened.state == CLOSED:
            self._settle(t_s, opened, usage)
        elif ok:
            self._answer(t_s, opened, attempt, usage, out)
        else:
            self._failed(t_s, opened, outcome, usage, retry_after_s, out)
        if self._waiting:
            self._drain(t_s, out)

    def _answer(self, t_s: float, opened: Open, attempt: int, usage: Usage, out: Out) -> None:
        request = opened.request
        self._close(opened)
        if self._limiter is not None:
            used = usage if opened.used is None else _sum(opened.used, usage)
            self._limiter.settle(t_s, request, used)
        kept, evicted = _NOT_KEPT
        if opened.cache_key and self._cache is not None:
            kept, evicted = self._cache.put(t_s, opened.cache_key, attempt, usage)
        if opened.followers or request[_IDEMPOTENCY_KEY]:
            self._answer_all(t_s, opened, attempt, kept, out)
        else:
            out.append(_new(Answer, (request[0], attempt, _OWN, kept)))
        if kept:
            self._keep(attempt)
        for source in evicted:
            self._release(source, out)
        if self._retrier is not None:
            self._retrier.succeeded(t_s, request)
        self._note(t_s, opened, True, usage, out)

    def _answer_all(self, t_s: float, opened: Open, attempt: int, kept: bool, out: Out) -> None:
        """Answer a request and those that joined it, and remember their idempotency keys."""
        followers = opened.followers or ()
        keyed = [each.request for each in (opened, *followers) if each.request.idempotency_key]
        keep = kept or bool(keyed)
        out.append(Answer(opened.request.request_id, attempt, _OWN, keep))
        for follower in followers:
            self._admitted_for_nothing(t_s, follower.request, follower)
            out.append(Answer(follower.request.request_id, attempt, _JOINED, keep))
        for each in keyed:
            self._remember(each, attempt, out)

    def _failed(
        self, t_s: float, opened: Open, outcome: Outcome, usage: Usage, retry_after_s: float, out: Out
    ) -> None:
        if opened.committed:
            reason = Reason(Code.BROKEN_STREAM)
        elif outcome not in _RETRYABLE:
            reason = Reason(Code.NOT_RETRYABLE)
        else:
            delay_s = inf
            if self._retrier is not None:
                delay_s = self._retrier.after(t_s, opened.request, opened.attempts, outcome, retry_after_s)
            if not delay_s >= 0.0:
                raise ControllerError(f"the retrier waits {delay_s} s: give 0 or more, or inf to give up")
            if delay_s < inf and t_s + delay_s < opened.deadline_s:
                opened.state = BACKING_OFF
                opened.used = _sum(opened.used, usage)
                self._timers.at(t_s + delay_s, BACKOFF, opened.request.request_id)
                return
            code = Code.EXHAUSTED if delay_s == inf else Code.NO_TIME_TO_RETRY
            reason = Reason(code, a=opened.attempts)
        self._settle(t_s, opened, usage)
        self._fail(t_s, opened, outcome, reason, out)

    def _settle(self, t_s: float, opened: Open, usage: Usage) -> None:
        if self._limiter is not None:
            self._limiter.settle(
                t_s, opened.request, usage if opened.used is None else _sum(opened.used, usage)
            )

    def _fail(self, t_s: float, opened: Open, outcome: Outcome, reason: Reason, out: Out) -> None:
        self._close(opened)
        out.append(Fail(opened.request.request_id, outcome, reason))
        self._note(t_s, opened, False, _NOTHING, out)
        self._promote(t_s, opened, out)

    def _promote(self, t_s: float, gone: Open, out: Out) -> None:
        """Have one follower take over from a leader, and one repeat keep the idempotency key."""
        while followers := gone.followers if gone.leader is None else gone.leader.followers:
            key = gone.request.idempotency_key
            if key and key not in self._owners:
                for follower in followers:
                    if follower.request.idempotency_key == key:
                        self._owners[key] = follower
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
            if heir.cache_key and heir.cache_key not in self._leaders:
                self._leaders[heir.cache_key] = heir
            if self._place(t_s, heir, _PROMOTED, out):
                return
            gone = heir

    def _close(self, opened: Open) -> None:
        request = opened.request
        opened.state = CLOSED
        del self._open[request[0]]
        if opened.cache_key and self._leaders.get(opened.cache_key) is opened:
            del self._leaders[opened.cache_key]
        if request[_IDEMPOTENCY_KEY] and self._owners.get(request.idempotency_key) is opened:
            del self._owners[request.idempotency_key]

    def _note(self, t_s: float, opened: Open, ok: bool, usage: Usage, out: Out) -> None:
        if self._splitter is not None and opened.assigned_s is not None:
            advance = self._splitter.finished(t_s, opened.assigned_s, opened.variant, ok)
            if advance is not None:
                self._advance(t_s, advance, out)
        for metric, observe in self._watching:
            if metric == "latency_s":
                value = t_s - opened.arrived_s
            elif metric == "error":
                value = 0.0 if ok else 1.0
            elif metric == "tokens_out" and ok:
                value = usage.tokens_out
            elif metric == "tokens_in" and ok:
                value = usage.tokens_in
            else:
                continue
            alert = observe(t_s, value)
            if alert is not None:
                out.append(Raise(alert._replace(agent=self.spec.agent)))

    # --- contents that are still wanted ---------------------------------------------------------------

    def _keep(self, source: int) -> None:
        self._kept[source] = self._kept.get(source, 0) + 1

    def _release(self, source: int, out: Out) -> None:
        left = self._kept.pop(source, 0) - 1
        if left < 0:
            raise ControllerError(f"the cache let go of source {source}, which it does not hold")
        if left:
            self._kept[source] = left
        else:
            out.append(Forget(source))

    def _remember(self, request: Request, source: int, out: Out) -> None:
        key = request.idempotency_key
        if key in self._memory:  # a repeat that was answered together with the first
            return
        self._keep(source)
        self._memory[key] = (request.payload, source)
        if len(self._memory) > self.spec.memory:
            _, (_, oldest) = self._memory.popitem(last=False)
            self._release(oldest, out)

    # --- clients, streams, timers -----------------------------------------------------------------------

    def first_token(self, opened: Open) -> None:
        """Commit a streamed request to the attempt that it has."""
        opened.committed = True

    def abandoned(self, t_s: float, opened: Open, out: Out) -> None:
        """Let go of a request whose client went away; a running attempt is cancelled."""
        self._let_go(t_s, opened, Reason(Code.CLIENT_GONE), out)
        self._promote(t_s, opened, out)

    def _let_go(self, t_s: float, opened: Open, reason: Reason, out: Out) -> None:
        state = opened.state
        if state == QUEUED:
            self._queue.remove(t_s, opened.request)
            self._waiting -= 1
            self._area += self._in_system * (t_s - self._area_s)
            self._area_s = t_s
            self._in_system -= 1
        elif state == IN_FLIGHT:
            if not opened.late:
                self._cancel(t_s, opened, reason, out)
        elif state == JOINED:
            assert opened.leader is not None
            assert opened.leader.followers is not None
            opened.leader.followers.remove(opened)
        elif state == HELD:
            self._held.remove(opened.request.request_id)
        if state not in (IN_FLIGHT, HELD):
            self._settle(t_s, opened, _NOTHING)
        self._close(opened)

    def _cancel(self, t_s: float, opened: Open, reason: Reason, out: Out) -> None:
        out.append(Cancel(opened.attempt, reason))
        self._timers.after(t_s, self.spec.cancel_grace_s, LEASE, opened.attempt)

    def timed_out(self, t_s: float, opened: Open, out: Out) -> None:
        """Fail a request whose time is up, wherever it stands."""
        state = opened.state
        code = Code.TIMED_OUT if opened.attempts else Code.WAITED_TOO_LONG
        bound = Constraint.DEADLINE if opened.deadline_s == opened.request.deadline_s else Constraint.NONE
        reason = Reason(code, bound, t_s - opened.arrived_s)
        self._let_go(t_s, opened, reason, out)
        if state == IN_FLIGHT and t_s >= opened.since_s + self.spec.timeout_s:
            opened.late = True  # the instance had the whole time, none of it went by in a queue
        out.append(Fail(opened.request.request_id, Outcome.TIMEOUT, reason))
        if state not in (HELD, JOINED):
            self._note(t_s, opened, False, _NOTHING, out)
        self._promote(t_s, opened, out)

    def first_token_late(self, t_s: float, opened: Open, out: Out) -> None:
        """Cancel an attempt that has not begun to stream in time; it is retried once it ended."""
        self._cancel(t_s, opened, Reason(Code.FIRST_TOKEN_LATE, a=self.spec.first_token_timeout_s), out)
        opened.late = True

    def backed_off(self, t_s: float, opened: Open, out: Out) -> None:
        """Try again."""
        opened.since_s = t_s
        self._place(t_s, opened, Reason(Code.RETRIED, a=opened.attempts + 1), out)

    # --- limits that are shared with others -------------------------------------------------------------

    def _ask(self, t_s: float, out: Out) -> None:
        assert self._asker is not None
        books = self._books
        ask = self._asker.to_ask(t_s, books.last_ask + 1)
        if ask is not None:
            if ask.ask_id != books.last_ask + 1:
                raise ControllerError(f"the limiter asks as {ask.ask_id}; it was given {books.last_ask + 1}")
            books.last_ask += 1
            books.asked[ask.ask_id] = self
            self._timers.after(t_s, ask.timeout_s, ASK, ask.ask_id)
            out.append(ask)

    def told(self, t_s: float, told: Told, out: Out) -> None:
        """Take in an answer of the outside world and let in what waited for it."""
        assert self._asker is not None
        assert self._limiter is not None
        self._asker.told(t_s, told)
        while self._held:
            held = self._open[self._held[0]]
            wait_s = self._limiter.admit(t_s, held.request)
            if wait_s < 0.0:
                break
            self._held.popleft()
            if wait_s > 0.0:
                self._close(held)
                code = Code.LIMIT_UNKNOWN if told.status == Status.UNKNOWN else Code.LIMITED
                out.append(Reject(held.request.request_id, wait_s, Reason(code)))
            else:
                held.since_s = t_s
                self._enter(t_s, held.request, held, out)
        self._ask(t_s, out)

    # --- instances --------------------------------------------------------------------------------------

    def instance_changed(self, t_s: float, event: InstanceChanged, out: Out) -> None:
        """Follow an instance through its life."""
        number, state = event.instance, event.state
        instance = self.instances.get(number)
        if state in (State.GONE, State.FAILED):
            assert instance is not None
            instance.state = state
            self.eligible.discard(instance)
            del self.instances[number]
            if self._breaker is not None:
                self._breaker.forget(number)
            if state == State.FAILED and self._started:
                self._look(t_s, out)
            return
        if instance is None:
            instance = self.instances[number] = Instance(number, event.region, self.spec.slots)
        if instance.state is State.DRAINING and state != State.DRAINING:
            return  # it was told to go while it was starting; it goes
        instance.state = State(state)
        self.eligible.refresh(instance)
        self._drain(t_s, out)

    def _gate(self, t_s: float, instance: Instance, gate: Gate) -> None:
        if not gate.until_s > t_s:
            raise ControllerError(f"the breaker wants to be woken at {gate.until_s} s, but it is {t_s} s")
        instance.set_gate(gate.cap, gate.until_s)
        self.eligible.refresh(instance)
        if isfinite(gate.until_s):
            self._timers.at(gate.until_s, GATE, instance.number)

    def gate_due(self, t_s: float, number: int, out: Out) -> None:
        """Ask the breaker again about an instance."""
        instance = self.instances.get(number)
        if instance is None or self._breaker is None or t_s < instance.gate_until_s:
            return  # it went away, or its gate has changed since this timer was set
        instance.gate_until_s = inf
        gate = self._breaker.wake(t_s, number)
        if gate is not None:
            self._gate(t_s, instance, gate)
            self._drain(t_s, out)

    def reported(self, event: Reported) -> None:
        """Pass a measurement on to the balancer."""
        self.controllers.balancer.reported(event.t_s, event)

    def probe_due(self, t_s: float, out: Out) -> None:
        """Ask the instances how they are, and again in a while."""
        out.append(Probe(self.spec.agent))
        self._timers.after(t_s, self.spec.probe_every_s, PROBE, self.spec.agent)

    def probed(self, event: Probed, out: Out) -> None:
        """Let the breaker hear of the probes' results."""
        if self._breaker is None:
            return
        for number, healthy in event.results:
            instance = self.instances.get(number)
            if instance is None:
                continue
            outcome = _OK if healthy else Outcome.UNREACHABLE
            gate = self._breaker.record(event.t_s, number, outcome, 0.0)
            if gate is not None:
                self._gate(event.t_s, instance, gate)
        self._drain(event.t_s, out)

    # --- scaling and rollouts -----------------------------------------------------------------------------

    def _start(self, t_s: float, out: Out) -> None:
        self._started = True
        self._area_s = self._area_since_s = t_s
        if self._splitter is not None:
            if self._splitter.wake_s() <= t_s:
                self._wake_splitter(t_s, out)
            else:
                self._arm_splitter(t_s)
        if isfinite(self.spec.probe_every_s):
            self._timers.after(t_s, self.spec.probe_every_s, PROBE, self.spec.agent)

    def load(self, t_s: float) -> Load:
        """Return what a scaler is shown."""
        states = [instance.state for instance in self.instances.values()]
        ready, starting = states.count(_READY), states.count(_STARTING)
        area = self._area + self._in_system * (t_s - self._area_s)
        span_s = t_s - self._area_since_s
        mean_in_system = area / span_s if span_s > 0.0 else float(self._in_system)
        draining = len(states) - ready - starting
        in_flight, spec = self._in_system - self._waiting, self.spec
        return Load(
            in_flight, self._waiting, mean_in_system, ready, starting, draining, spec.slots, spec.concurrency
        )

    def scaler_due(self, t_s: float, out: Out) -> None:
        """Ask the scaler, unless it has been asked since this timer was set."""
        if t_s >= self._scaler_due_s:
            self._look(t_s, out)

    def _look(self, t_s: float, out: Out) -> None:
        if self._scaler is None:
            self._scaler_asleep = False
            return
        wanted = self._scaler.decide(t_s, self.load(t_s))
        self._area, self._area_s, self._area_since_s = 0.0, t_s, t_s
        # With nothing in the system, an arrival is news that the scaler has not seen, whenever it next looks.
        self._scaler_asleep = self._in_system == 0
        self._scaler_due_s = inf
        if isfinite(wanted.look_s):
            if wanted.look_s <= t_s:
                raise ControllerError(
                    f"the scaler wants to look again at {wanted.look_s} s, but it is {t_s} s"
                )
            self._scaler_due_s = wanted.look_s
            self._timers.at(wanted.look_s, SCALER, self.spec.agent)
        if not self._paused:
            self._scale(wanted.instances, wanted.reason, out)

    def _scale(self, want: int, reason: Reason, out: Out) -> None:
        if want < 0:
            raise ControllerError(f"the scaler wants {want} instances: give 0 or more")
        staying = [
            instance
            for instance in self.instances.values()
            if instance.state is _READY or instance.state is _STARTING
        ]
        if want == len(staying):
            return
        victims: tuple[int, ...] = ()
        if want < len(staying):
            # Starting ones have nothing to lose, then those with the least work, then the newest.
            staying.sort(key=lambda each: (each.state is not State.STARTING, each.in_flight, -each.number))
            going = staying[: len(staying) - want]
            victims = tuple(instance.number for instance in going)
            for instance in going:
                instance.state = State.DRAINING
                self.eligible.discard(instance)
        out.append(Scale(self.spec.agent, 0, 0, want, victims, reason))

    def pause(self) -> None:
        """Obey an operator: the scaler goes on deciding, and nothing is done about it."""
        self._paused = True

    def resume(self, t_s: float, out: Out) -> None:
        """Obey an operator: do as the scaler says again, from now on."""
        self._paused = False
        if self._started:
            self._look(t_s, out)

    def set_instances(self, want: int, out: Out) -> None:
        """Obey an operator."""
        self._scale(want, Reason(Code.OPERATOR, a=want), out)

    def roll_back(self, t_s: float, out: Out) -> None:
        """Obey an operator: back to the baseline."""
        if self._splitter is not None:
            advance = self._splitter.roll_back(t_s)
            if advance is not None:
                self._advance(t_s, advance, out)

    def splitter_due(self, t_s: float, out: Out) -> None:
        """Tell the rollout that its time has come."""
        if t_s >= self._splitter_due_s:
            self._splitter_due_s = inf
            self._wake_splitter(t_s, out)

    def _wake_splitter(self, t_s: float, out: Out) -> None:
        assert self._splitter is not None
        advance = self._splitter.wake(t_s)
        if advance is not None:
            self._advance(t_s, advance, out)
        else:
            self._arm_splitter(t_s)

    def observed(self, event: Observed, out: Out) -> None:
        """Pass a late label on to the rollout and to the detectors of its metric."""
        if self._splitter is not None:
            advance = self._splitter.observed(event.t_s, event)
            if advance is not None:
                self._advance(event.t_s, advance, out)
        for metric, observe in self._watching:
            if metric == event.metric:
                alert = observe(event.t_s, event.value)
                if alert is not None:
                    out.append(Raise(alert._replace(agent=self.spec.agent)))

    def _advance(self, t_s: float, advance: Advance, out: Out) -> None:
        out.append(advance._replace(agent=self.spec.agent))
        self._arm_splitter(t_s)

    def _arm_splitter(self, t_s: float) -> None:
        assert self._splitter is not None
        due_s = self._splitter.wake_s()
        if not due_s > t_s:
            raise ControllerError(f"the splitter wants to be woken at {due_s} s, but it is {t_s} s")
        if isfinite(due_s) and due_s != self._splitter_due_s:
            self._splitter_due_s = due_s
            self._timers.at(due_s, SPLITTER, self.spec.agent)

    # --- state ---------------------------------------------------------------------------------------------

    _PLAIN = (
        "_held", "_memory", "_kept", "_waiting", "_in_system", "_area", "_area_since_s", "_area_s",
        "_scaler_asleep", "_scaler_due_s", "_paused", "_splitter_due_s", "_started",
    )  # fmt: skip

    def snapshot(self) -> dict[str, Any]:
        """Return everything of this pool that affects decisions, as plain values."""
        return {
            "plain": {name: getattr(self, name) for name in self._PLAIN},
            "instances": [
                (each.number, each.region, int(each.state), each.gate_cap, each.gate_until_s, each.in_flight)
                for each in self.instances.values()
            ],
            "eligible": [each.number for each in self.eligible],
            "leaders": {key: leader.request.request_id for key, leader in self._leaders.items()},
            "owners": {key: owner.request.request_id for key, owner in self._owners.items()},
            "controllers": {name: each.snapshot() for name, each in self.controllers.named().items()},
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Take on a state; the open requests follow by `readopt`."""
        for name, value in saved["plain"].items():
            setattr(self, name, value)
        self.instances = {}
        for number, region, state, gate_cap, gate_until_s, in_flight in saved["instances"]:
            instance = self.instances[number] = Instance(number, region, self.spec.slots)
            instance.state = State(state)
            instance.in_flight = in_flight
            instance.set_gate(gate_cap, gate_until_s)
        self.eligible = Eligible()
        for number in saved["eligible"]:
            self.eligible.add(self.instances[number])
        for name, controller in self.controllers.named().items():
            controller.restore(saved["controllers"][name])

    def readopt(self, saved: dict[str, Any]) -> None:
        """Find leaders and owners of keys among the restored open requests."""
        self._leaders = {key: self._open[number] for key, number in saved["leaders"].items()}
        self._owners = {key: self._open[number] for key, number in saved["owners"].items()}
