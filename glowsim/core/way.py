"""The way of a request that nothing happens to: it arrives, is dispatched, finishes, is answered.

Every request goes it, so it stands here in one piece, with what never changes bound once a pool: as methods
that call one another the same steps cost nearly twice as much. Whatever is rare leaves it for a method of
the pool.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

from glowsim.core.books import CLOSED, FIRST_TOKEN, IN_FLIGHT, TIMEOUT, Open
from glowsim.core.errors import ControllerError
from glowsim.core.streams import mix
from glowsim.core.types import (
    Answer,
    Code,
    Command,
    Constraint,
    Dispatch,
    Finished,
    Plan,
    Reason,
    Reject,
    Request,
    State,
)

if TYPE_CHECKING:
    from glowsim.core.pool import Pool
    from glowsim.core.stages import Stages

__all__ = ["Way", "way"]

Out: TypeAlias = list[Command]

_new = tuple.__new__
_READY, _GONE = State.READY, State.GONE
_ARRIVED = Reason(Code.ARRIVED)
_OWN = Reason(Code.OWN)
_NOT_KEPT: tuple[bool, tuple[int, ...]] = (False, ())


class Way(NamedTuple):
    """The steps of one pool's happy path."""

    arrive: Callable[[float, int, Request, Out, Open | None], None]
    """Take a request in, or turn it away, given its number; one that was held is let in without being asked again."""
    begin: Callable[[float, int, float, Request, int, Plan], Open]
    """Open a request, given its number and deadline; where it stands is for the caller to say."""
    dispatch: Callable[[float, Open, Reason, Out], None]
    """Start an attempt; some instance is eligible."""
    finish: Callable[[float, Finished, Open, Out], None]
    """Free the slot, then answer, retry or fail; then let the next ones in."""


def way(pool: Pool) -> Way:
    """Return the happy path of a pool, bound to its controllers."""
    begin, dispatch = _begin(pool), _dispatch(pool)
    return Way(_arrive(pool, begin, dispatch), begin, dispatch, _finish(pool))


def _arrive(
    pool: Pool, begin: Callable[..., Open], dispatch: Callable[..., None]
) -> Callable[[float, int, Request, Out, Open | None], None]:
    chosen = pool.controllers
    check = None if chosen.guard is None else chosen.guard.check
    admit = None if chosen.limiter is None else chosen.limiter.admit
    assign = None if chosen.splitter is None else chosen.splitter.assign
    cached = None if chosen.cache is None else chosen.cache.get
    replan = None if chosen.planner is None else chosen.planner.plan
    asks = pool.asker is not None
    models, eligible, leaders, owners = pool.spec.models, pool.eligible, pool.leaders, pool.owners
    sizing, stages = pool.sizing, cast("Stages", pool.stages)

    def arrive(t_s: float, request_id: int, request: Request, out: Out, held: Open | None) -> None:
        deadline_s, idempotency_key = request[8], request[13]  # unpacking all fifteen costs twice as much
        if held is None:
            if deadline_s <= t_s:
                out.append(Reject(request_id, 0.0, Reason(Code.WAITED_TOO_LONG, Constraint.DEADLINE)))
                return
            if check is not None:
                reason = check(t_s, request)
                if reason is not None:
                    out.append(Reject(request_id, 0.0, reason))
                    return
            if admit is not None:
                wait_s = admit(t_s, request)
                if asks:
                    pool.ask(t_s, out)
                if wait_s != 0.0:
                    pool.limited(t_s, request, wait_s, out)
                    return
        if idempotency_key and pool.repeated(t_s, request, held, out):
            return
        if assign is None:
            variant = 0
        else:
            variant = assign(t_s, request)
            if stages.asleep:
                stages.stir(t_s)
        cache_key = request[12]
        if cache_key and cached is not None:
            if variant:
                cache_key = mix(cache_key) ^ variant
            source = cached(t_s, cache_key)
            if source:
                pool.answer_cached(t_s, request, held, source, out)
                return
        else:
            cache_key = 0
        plan: Plan = _new(Plan, (models[variant], variant, request[2], request[3]))
        if replan is not None:
            plan = replan(t_s, request, plan)
        if held is None:
            opened = begin(t_s, request_id, deadline_s, request, variant, plan)
        else:
            opened = held
            opened.variant, opened.plan, opened.assigned_s = variant, plan, t_s
        if idempotency_key:
            owners[idempotency_key] = opened
        if cache_key:
            opened.cache_key = cache_key
            leader = leaders.get(cache_key)
            if leader is None:
                leaders[cache_key] = opened
            elif pool.join(opened, leader):
                return
        if eligible and not pool.waiting:
            sizing.in_system += 1
            sizing.entered_s += t_s
            dispatch(t_s, opened, _ARRIVED, out)
            if sizing.asleep:
                sizing.look(t_s, out)
        else:
            pool.place(t_s, opened, _ARRIVED, out)

    return arrive


def _begin(pool: Pool) -> Callable[[float, int, float, Request, int, Plan], Open]:
    opens, timers, timeout_s = pool.books.open, pool.books.timers, pool.spec.timeout_s
    lane = timers.lane(TIMEOUT, timeout_s)
    time_out, forget = lane.append, lane.popleft

    def begin(
        t_s: float, request_id: int, latest_s: float, request: Request, variant: int, plan: Plan
    ) -> Open:
        deadline_s = t_s + timeout_s
        if latest_s < deadline_s:
            deadline_s = latest_s
            timers.at(deadline_s, TIMEOUT, request_id)
        else:
            if lane and lane[0][2] not in opens:
                forget()  # one in, one out: thousands would lie there until they are due
            if not lane and deadline_s < timers.earliest_s:  # behind others, it changes nothing
                timers.earliest_s = deadline_s
            time_out((deadline_s, TIMEOUT, request_id))
        opened = opens[request_id] = Open()
        opened.request = request
        opened.request_id = request_id
        opened.pool = pool
        opened.arrived_s = opened.since_s = opened.assigned_s = t_s
        opened.deadline_s = deadline_s
        opened.variant = variant
        opened.plan = plan
        opened.attempts = opened.attempt = opened.cache_key = opened.rung = opened.spare = 0
        opened.committed = opened.late = False
        opened.instance = opened.used = opened.followers = opened.leader = None
        return opened

    return begin


def _dispatch(pool: Pool) -> Callable[[float, Open, Reason, Out], None]:
    books, eligible, moved = pool.books, pool.eligible, pool.moved
    attempts, timers, discard = books.attempts, books.timers, eligible.discard
    pick = pool.controllers.balancer.pick
    first_token_timeout_s = pool.spec.first_token_timeout_s
    hurries = first_token_timeout_s < inf

    def dispatch(t_s: float, opened: Open, reason: Reason, out: Out) -> None:
        request = opened.request
        last = opened.instance
        if last is None or last.place < 0 or len(eligible) == 1:
            instance = pick(t_s, request, eligible)
        else:  # another try goes to another instance where there is one
            instance = pick(t_s, request, [each for each in eligible if each is not last])
        if instance.place < 0:
            raise ControllerError(
                f"the balancer picked instance {instance.number}, which may not get work now"
            )
        in_flight = instance.in_flight = instance.in_flight + 1
        if in_flight >= instance.cap:
            discard(instance)
        if moved is not None:
            moved(instance)
        attempt = books.last_attempt = books.last_attempt + 1
        attempts[attempt] = opened
        opened.attempt = attempt
        opened.attempts += 1
        opened.instance = instance
        opened.state = IN_FLIGHT
        if hurries and request[7]:
            timers.after(t_s, first_token_timeout_s, FIRST_TOKEN, attempt)
        out.append(_new(Dispatch, (attempt, opened.request_id, instance.number, opened.plan, reason)))

    return dispatch


def _finish(pool: Pool) -> Callable[[float, Finished, Open, Out], None]:
    chosen = pool.controllers
    eligible, opens, leaders, moved, ended = (
        pool.eligible, pool.books.open, pool.leaders, pool.moved, pool.ended,
    )  # fmt: skip
    sizing, stages, contents = pool.sizing, pool.stages, pool.contents
    record = None if chosen.breaker is None else chosen.breaker.record
    settle = None if chosen.limiter is None else chosen.limiter.settle
    put = None if chosen.cache is None else chosen.cache.put
    succeeded = None if chosen.retrier is None else chosen.retrier.succeeded
    told = None if chosen.splitter is None else chosen.splitter.finished
    costs = pool.splits_by_cost
    latencies, errors = pool.watching.get("latency_s"), pool.watching.get("error")
    others = not pool.watching.keys() <= {"latency_s", "error"}
    escalate = getattr(chosen.planner, "escalate", None)

    def finish(t_s: float, event: Finished, opened: Open, out: Out) -> None:
        outcome, instance = event[2], opened.instance
        assert instance is not None
        in_flight = instance.in_flight = instance.in_flight - 1
        sizing.in_system -= 1
        sizing.entered_s -= t_s
        if outcome or opened.state != IN_FLIGHT:
            pool.ended_otherwise(event, opened, out)
            return
        state = instance.state
        if record is not None and (state is _READY or state < _GONE):
            gate = record(t_s, instance.number, outcome, t_s - opened.since_s)
            if gate is not None:
                pool.gate(t_s, instance, gate)
        if instance.place < 0 and state is _READY and in_flight < instance.cap:
            eligible.add(instance)
        if moved is not None:
            moved(instance)
        if ended:
            for hear in ended:
                hear(t_s, instance, outcome, t_s - opened.since_s)
        usage, attempt, request, request_id = event[3], opened.attempt, opened.request, opened.request_id
        if escalate is not None:
            if not opened.committed and t_s < opened.deadline_s:
                plan = escalate(t_s, request, opened.plan, usage[4])
                if plan is not None:
                    pool.escalate(event, opened, plan, out)
                    return
            spare, opened.spare = opened.spare, 0
        else:
            spare = 0
        opened.state = CLOSED
        del opens[request_id]
        if settle is not None:
            settle(t_s, request, usage if opened.used is None else pool.used(opened, usage))
        kept, evicted = _NOT_KEPT
        cache_key = opened.cache_key
        if cache_key:
            if leaders.get(cache_key) is opened:
                del leaders[cache_key]
            if put is not None:
                kept, evicted = put(t_s, cache_key, attempt, usage)
        if opened.followers or request[13]:
            pool.answer_all(t_s, opened, attempt, kept, out)
        else:
            out.append(_new(Answer, (request_id, attempt, _OWN, kept)))
        if kept:
            contents.keep(attempt)
        if evicted:
            for source in evicted:
                contents.release(source, out)
        if spare:
            contents.release(spare, out)
        if succeeded is not None:
            succeeded(t_s, request)
        if told is not None and stages is not None:
            assigned_s = opened.assigned_s
            if assigned_s is not None:
                cost_usd = pool.cost_usd(opened, usage) if costs else nan
                latency_s = t_s - opened.arrived_s
                advance = told(t_s, assigned_s, opened.variant, request, True, latency_s, cost_usd)
                if advance is not None:
                    stages.advance(t_s, advance, out)
        if latencies:
            latency_s = t_s - opened.arrived_s
            for observe in latencies:
                alert = observe(t_s, latency_s)
                if alert is not None:
                    pool.alert(alert, out)
        if errors:
            for observe in errors:
                alert = observe(t_s, 0.0)
                if alert is not None:
                    pool.alert(alert, out)
        if others:
            pool.watch(t_s, opened, usage, out)
        if pool.waiting:
            pool.drain(t_s, out)

    return finish
