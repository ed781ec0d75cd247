"""The asyncio driver: tells the control plane what happens among real callables, and does what it says.

The conversation is the simulator's (`glowsim.sim.world`). The rules that it keeps:

- nothing is awaited between an event and the start of every command that answers it, so the journal's order
  is the order of the decisions;
- every `Dispatch` is followed by exactly one `Finished`, whatever the callable does;
- a content is kept from its `Keep` or `Answer` until its `Forget`, and never longer.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from functools import partial
from math import inf, isnan, nan
from typing import Any, NamedTuple, TypeVar

from glowsim.core.control_plane import ControlPlane
from glowsim.core.errors import GlowsimError
from glowsim.core.journal import Journal, Recording, gone_on_with
from glowsim.core.reasons import Code, Constraint, Reason
from glowsim.core.snapshot import pack, unpack
from glowsim.core.types import (
    Abandoned,
    Advance,
    Answer,
    Arrived,
    Ask,
    Cancel,
    Changed,
    Command,
    Dispatch,
    Effect,
    Event,
    Fail,
    Finished,
    FirstToken,
    Forget,
    InstanceChanged,
    Keep,
    Observed,
    Outcome,
    Probe,
    Probed,
    Raise,
    Reject,
    Request,
    Scale,
    Shadowed,
    State,
    Status,
    Told,
    Usage,
    Woke,
)  # fmt: skip
from glowsim.live.calls import (
    Answered,
    Asker,
    Call,
    Checked,
    Closed,
    Failed,
    InstanceError,
    InvalidTask,
    Rejected,
    Reply,
    Scaler,
    Serve,
    Served,
    Throttled,
    Word,
)  # fmt: skip
from glowsim.live.faults import trace_of

__all__ = ["Driver"]

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_DONE, _REFUSED, _LATER = Effect.DONE, Effect.REFUSED, None
_THERE = (State.STARTING, State.READY)
_NUMBERED = (Observed, Changed)
_NOTHING: Mapping[str, str] = {}
_AHEAD = 64
"""Pieces of a stream that may wait for a client that is slow to read."""


class _Ticket:
    """An open request, as its client sees it."""

    __slots__ = ("passed_on", "request", "room", "said", "streamed", "task", "tries")

    def __init__(self, request: Request, task: Any, passed_on: Mapping[str, str]) -> None:
        self.request = request
        self.task = task
        self.passed_on = passed_on
        self.said: asyncio.Queue[str | Answered | Exception] = asyncio.Queue()
        self.room: asyncio.Event | None = None
        """Set when its client has taken in what was said; None while that is not waited for."""
        self.tries = 0
        self.streamed = -1
        """The attempt whose pieces it was given."""


class _Instance:
    __slots__ = ("agent", "in_flight", "number", "region", "serve", "starting", "state")

    def __init__(self, number: int, agent: int, region: int, state: State) -> None:
        self.number = number
        self.agent = agent
        self.region = region
        self.state = state
        self.serve: Serve | None = None
        self.starting: asyncio.Task[Serve] | None = None
        self.in_flight = 0


class _Made(NamedTuple):
    """What an attempt has answered."""

    reply: Reply
    served: Served | None
    """How its request was served; None: forgotten, or nobody's (an apology)."""


class _Running:
    """An attempt under way."""

    __slots__ = ("begun_s", "call", "cancelling", "first_token_s", "instance", "task")

    def __init__(self, call: Call, instance: _Instance, task: asyncio.Task[Reply], begun_s: float) -> None:
        self.call = call
        self.instance = instance
        self.task = task
        self.begun_s = begun_s
        self.first_token_s = nan
        self.cancelling = False


class Driver:
    """Drives a control plane in front of async callables.

    Parameters
    ----------
    plane
        The control plane.
    journal
        Where everything is written down; the driver closes it.
    memory
        Dispatched requests that are remembered for late labels (`observe`), at least 1.
    contents
        Answers that are kept at most for caches and repeats, at least 1. An answer that is wanted and gone
        is made again.
    clock
        Monotonic seconds; default: the event loop's time.
    asker
        Asks the outside world; without one every question is refused and its fallback holds.
    scalers
        Agent -> who starts and stops its instances; an agent without one keeps the instances it has.
    watch
        Is called with every event and the commands that answered it.
    calling
        Is called with every attempt before it begins, and may change what headers go with it.
    served
        Is called with every request that is dispatched, again if it is dispatched again: what feedback on it will
        need to know, when it has long been forgotten here.
    after_request
        Requests are numbered from the one after this, or after the last of a journal that is gone on with; 0 or more.
    apologise
        Returns the content of an answer to a task that a fallback ladder gives for want of any other, or None
        where there is none: then the request fails.
    idle_timeouts
        Agent -> seconds of silence, above 0, after which an attempt of its ends as `Outcome.TIMEOUT`: from its
        dispatch to the answer or to the first piece of a stream, and from one piece to the next. Before the
        first piece it may be tried again; after it, the stream is broken. An agent without one is waited for.
    probe_timeout_s
        Seconds, above 0, within which an instance must have said that it is well.

    Raises
    ------
    RuntimeError
        No event loop is running.

    Notes
    -----
    An exception of the control plane ends everything: it is raised, ``broken`` is set, ``error`` says why,
    and every open client gets it.

    >>> from controllers.balancing.round_robin import RoundRobin
    >>> from controllers.queueing.fifo import FifoQueue
    >>> from glowsim.core.pool import Controllers, PoolSpec
    >>> async def echo(call):
    ...     return Reply(call.task.upper(), Usage(call.plan.tokens_in, 0, 1))
    >>> async def main():
    ...     spec = PoolSpec(0, 1, 1, (0,), 30.0, inf, 30.0, 10, 10, 10)
    ...     plane = ControlPlane([(spec, Controllers(FifoQueue(limit=10), RoundRobin()))])
    ...     driver = Driver(plane, Journal({}), memory=10, contents=10)
    ...     driver.add(0, echo)
    ...     answered = await driver.request(Request(0, 0, tokens_in=1, max_tokens_out=9), "hello")
    ...     await driver.close(grace_s=1.0)
    ...     return answered.content
    >>> asyncio.run(main())
    'HELLO'
    """

    def __init__(
        self, plane: ControlPlane, journal: Journal, *, memory: int, contents: int,
        clock: Callable[[], float] | None = None, asker: Asker | None = None,
        scalers: Mapping[int, Scaler] | None = None,
        watch: Callable[[Event, Sequence[Command]], None] | None = None,
        calling: Callable[[Call], None] | None = None,
        served: Callable[[Served], None] = lambda served: None, after_request: int = 0,
        apologise: Callable[[Any], Any] = lambda task: None,
        idle_timeouts: Mapping[int, float] | None = None, probe_timeout_s: float = 5.0,
    ) -> None:  # fmt: skip
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time if clock is None else clock
        self._epoch_s = self._clock()
        self._plane = plane
        self._journal = journal
        self._memory = memory
        self._contents = contents
        self._asker = asker
        self.scalers: dict[int, Scaler] = dict(scalers or {})
        """Agent -> who starts and stops its instances."""
        self._watch = watch
        self._calling = calling
        self._tell_served = served
        self._apologise = apologise
        self._idle_timeouts = dict(idle_timeouts or {})
        self._probe_timeout_s = probe_timeout_s
        self._tickets: dict[int, _Ticket] = {}
        self._running: dict[int, _Running] = {}
        self._instances: dict[int, _Instance] = {}
        self._scaling: dict[int, set[int]] = {}
        """Number of a `Scale` -> instances that have not got where it wants them."""
        self._deferred: set[int] = set()
        """Commands that are being carried out."""
        self._chores: set[asyncio.Task[Any]] = set()
        """Questions, starts and stops under way."""
        self._over = False
        self._fresh: tuple[int, _Made | None] = (0, None)
        """The attempt that is being told as finished, and its reply."""
        self._cause: BaseException | None = None
        """What that attempt raised."""
        self._kept: OrderedDict[int, _Made] = OrderedDict()
        self._served: OrderedDict[int, Served] = OrderedDict()
        self.advances: dict[int, Advance] = {}
        """Agent -> the last change of stage of its rollout; without one it is as it began."""
        self.wanted: dict[int, int] = {}
        """Agent -> how many instances it was last ordered to have."""
        self.feedback_told = self.orders_told = 0
        """The last numbers of the store that were told."""
        self._todo: deque[Event] = deque()
        self._writing: asyncio.Future[None] | None = None
        """Done when the write that is about to be made is made."""
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at_s = inf
        self._last_request = after_request
        self._next_instance = 0
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.broken = asyncio.Event()
        """Set when the control plane raised."""
        self.error: Exception | None = None
        self._do: dict[type, Callable[[Any, int], Effect | None]] = {
            Dispatch: self._dispatch,
            Answer: self._answer,
            Reject: self._reject,
            Fail: self._fail,
            Cancel: self._cancel,
            Scale: self._scale,
            Ask: self._ask,
            Keep: self._keep,
            Forget: self._forget,
            Advance: self._advance,
            Probe: self._probe,
            Raise: lambda alert, number: _DONE,
            Shadowed: lambda shadowed, number: _DONE,
        }

    def now_s(self) -> float:
        """Return the journal's time, in seconds since its epoch."""
        return self._clock() - self._epoch_s

    def loop_time(self, t_s: float) -> float:
        """Return the event loop's time of a moment of the journal's, for ``loop.call_at``."""
        return t_s + (self._loop.time() - self.now_s())

    @property
    def plane(self) -> ControlPlane:
        """The control plane at work: another one after a `reload`."""
        return self._plane

    @property
    def admitting(self) -> bool:
        """Whether requests are taken in."""
        return not self._closing

    @property
    def listening(self) -> bool:
        """Whether the control plane can still be told anything: until the driver is closed, or it failed."""
        return not self._over

    def servable(self, agent: int) -> bool:
        """Return whether an agent has an instance that is ready, or has none because its scaler wants none.

        One whose instances are starting is not; neither is one that has lost its instances and has no scaler to
        start others, or a paused one. What breakers say is not asked: they need traffic to find out better.
        """
        pool = self._plane.pools[agent]
        load = pool.sizing.load(self.now_s())
        if load.ready:
            return True
        scaled = agent in self.scalers and pool.controllers.scaler is not None and not pool.sizing.paused
        return scaled and not load.starting

    def unready(self) -> str:
        """Return why no request should be sent here; nothing if one agent or more can be served."""
        if not self.admitting:
            return "it is stopping"
        agents = range(len(self._plane.pools))
        return (
            "" if any(map(self.servable, agents)) else f"no instance is ready of any of {len(agents)} agents"
        )

    # --- clients --------------------------------------------------------------------------------------

    async def request(self, asked: Request, task: Any, passed_on: Mapping[str, str] = _NOTHING) -> Answered:
        """Ask for something and return the answer.

        A caller that is cancelled has gone away: its request is abandoned and a running attempt cancelled.

        Parameters
        ----------
        asked
            The request; the driver gives it its number.
        task
            The content, for the instance.
        passed_on
            Headers that go with it to the instance.

        Raises
        ------
        Rejected
            It was turned away.
        Failed
            It failed.
        Closed
            The driver is closing.
        """
        ticket = self._arrive(asked._replace(stream=False), task, passed_on)
        try:
            said = await ticket.said.get()
        finally:
            self._left(ticket)
        if isinstance(said, Exception):
            raise said
        assert isinstance(said, Answered)
        return said

    async def stream(
        self, asked: Request, task: Any, passed_on: Mapping[str, str] = _NOTHING,
        numbered: Callable[[int], None] = lambda number: None,
    ) -> AsyncIterator[str | Answered]:  # fmt: skip
        """Ask for something and yield pieces of the answer as they come, then the `Answered`.

        ``numbered`` is told the request's number, before the first piece. Raises as `request` does: before that
        piece, or after it if the stream broke. A generator that is closed early has gone away.
        """
        ticket = self._arrive(asked._replace(stream=True), task, passed_on)
        numbered(ticket.request.request_id)
        try:
            while True:
                said = await ticket.said.get()
                if ticket.room is not None and ticket.said.qsize() <= _AHEAD // 2:
                    ticket.room.set()
                if isinstance(said, Exception):
                    raise said
                yield said
                if isinstance(said, Answered):
                    return
        finally:
            self._left(ticket)

    def observe(self, request_id: int, metric: str, value: float) -> None:
        """Take in feedback or a late label of a request that was dispatched not too long ago.

        Raises
        ------
        KeyError
            The request is not remembered: too old, or never answered.
        """
        if request_id not in self._served:
            raise KeyError(
                f"request {request_id} is not among the last {self._memory} that were served: its label "
                "came too late, or it belongs to another fleet"
            )
        _, agent, variant, unit, propensity, _, _, assigned_s = self._served[request_id]
        self.tell(
            Observed(self.now_s(), request_id, agent, variant, unit, propensity, metric, value, 0, assigned_s)
        )

    def _arrive(self, asked: Request, task: Any, passed_on: Mapping[str, str]) -> _Ticket:
        if self._closing:
            raise self.error or Closed("no requests are taken any more: the driver is closing")
        ticket = _Ticket(self._numbered(asked), task, passed_on)
        self._tickets[ticket.request.request_id] = ticket
        self.tell(Arrived(self.now_s(), ticket.request))
        return ticket

    def _numbered(self, asked: Request) -> Request:
        self._last_request += 1
        return asked._replace(request_id=self._last_request)

    def _left(self, ticket: _Ticket) -> None:
        """Abandon a request that is still open when its client stops listening."""
        request_id = ticket.request.request_id
        if self._tickets.pop(request_id, None) is not None:
            self.tell(Abandoned(self.now_s(), request_id))

    # --- the conversation -----------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Tell the control plane what happened and start all that it says."""
        try:
            self._take(event)
            while self._todo:
                self._take(self._todo.popleft())
        except Exception as error:
            self._break(error)
            raise
        self._arm()
        if self._tickets or self._running:
            self._idle.clear()
        else:
            self._idle.set()

    def _take(self, event: Event) -> None:
        journal, t_s = self._journal, event[0]
        journal.event(event)
        commands = self._plane.handle(event)
        if type(event) in _NUMBERED:
            self._numbered_event(event)
        for command in commands:
            number = journal.command(command)
            effect = self._do[type(command)](command, number)
            if effect is _LATER:
                journal.defer(t_s, number)
                self._deferred.add(number)
            elif effect is _REFUSED:
                journal.effect(t_s, number, effect)
        if self._watch is not None:
            self._watch(event, commands)

    def _numbered_event(self, event: Event) -> None:
        """Remember the number that the store gave to what was told; 0: it is not from there."""
        match event:
            case Observed():
                self.feedback_told = max(self.feedback_told, event.feedback_id)
            case Changed():
                self.orders_told = max(self.orders_told, event.change.order_id)

    def _break(self, error: Exception) -> None:
        self._closing = self._over = True
        self.error = error
        for ticket in self._tickets.values():
            ticket.said.put_nowait(error)
        self._tickets.clear()
        for running in self._running.values():
            running.task.cancel()
        self._running.clear()
        self._idle.set()
        self.broken.set()

    def _effect(self, number: int, status: Effect) -> None:
        """Say what became of a command that took its time."""
        self._deferred.discard(number)
        self._journal.effect(self.now_s(), number, status)

    def _arm(self) -> None:
        due_s = self._plane.timers.earliest_s  # it may be early, never late
        if due_s < self._wake_at_s:
            if self._timer is not None:
                self._timer.cancel()
            self._wake_at_s = due_s
            self._timer = self._loop.call_at(self.loop_time(due_s), self._wake)

    def _wake(self) -> None:
        self._wake_at_s, self._timer = inf, None
        now_s = self.now_s()
        if self._plane.next_wake_s() <= now_s:
            self.tell(Woke(now_s))
        else:
            self._arm()

    # --- attempts -------------------------------------------------------------------------------------

    def _dispatch(self, command: Dispatch, number: int) -> Effect:
        attempt, request_id, instance_number, plan, _ = command
        instance = self._instances.get(instance_number)
        if instance is None or instance.state != State.READY or instance.serve is None:
            self._todo.append(Finished(self.now_s(), attempt, Outcome.UNREACHABLE, Usage()))
            return _REFUSED
        ticket = self._tickets[request_id]
        request = ticket.request
        call = Call(
            attempt, instance_number, request, plan, ticket.task, ticket.tries, passed_on=ticket.passed_on
        )
        ticket.tries += 1
        if self._calling is not None:
            self._calling(call)
        assigned_s, propensity, unit = self._plane.assignment(request_id)
        self._note_served(
            Served(
                request_id,
                request.agent,
                plan.variant,
                unit,
                propensity,
                request.tenant,
                self.now_s(),
                assigned_s,
            )
        )
        task = self._loop.create_task(self._serve(instance.serve, call))
        self._running[attempt] = _Running(call, instance, task, self.now_s())
        instance.in_flight += 1
        task.add_done_callback(partial(self._ended, attempt))
        return _DONE

    async def _serve(self, serve: Serve, call: Call) -> Reply:
        idle_s = self._idle_timeouts.get(call.request.agent)
        async with asyncio.timeout(idle_s) as patience:
            made = serve(call)
            if isinstance(made, AsyncIterator):
                pieces = []
                async with aclosing(made):  # type: ignore[type-var]  # an async generator, or something like it
                    async for piece in made:
                        if patience.expired():
                            raise TimeoutError(f"instance {call.instance} goes on after its time")
                        if idle_s is not None:
                            patience.reschedule(self._loop.time() + idle_s)
                        pieces.append(piece)
                        ticket = self._pass_on(call, piece)
                        if ticket is not None and ticket.said.qsize() > _AHEAD:
                            patience.reschedule(None)  # the client is slow, not the instance
                            ticket.room = asyncio.Event()
                            await ticket.room.wait()
                            ticket.room = None
                            if idle_s is not None:
                                patience.reschedule(self._loop.time() + idle_s)
                return Reply("".join(pieces), call.usage)
            reply = await made
        if not isinstance(reply, Reply):
            raise InstanceError(f"instance {call.instance} gave back {type(reply).__name__}, not a Reply")
        return reply

    def _pass_on(self, call: Call, piece: str) -> _Ticket | None:
        """Give a piece of a stream to its client, if it has one; the first commits the request to this attempt."""
        running = self._running.get(call.attempt)
        if not piece or running is None or running.cancelling or not call.request.stream:
            return None
        if isnan(running.first_token_s):
            now_s = self.now_s()
            running.first_token_s = now_s
            self.tell(FirstToken(now_s, call.attempt))
        ticket = self._tickets.get(call.request.request_id)
        if ticket is None or running.cancelling:
            return None
        ticket.streamed = call.attempt
        ticket.said.put_nowait(piece)
        return ticket

    def _ended(self, attempt: int, task: asyncio.Task[Reply]) -> None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        running = self._running.pop(attempt, None)
        if running is None:
            return  # given up before: its end was told, or everything has ended
        reply = task.result() if error is None else None
        usage = running.call.usage if reply is None else reply.usage
        if not isnan(running.first_token_s):
            usage = usage._replace(first_token_s=running.first_token_s - running.begun_s)
        if reply is not None:
            reply = Reply(reply.content, usage)
        outcome = Outcome.OK if error is None else _outcome_of(error, running)
        retry_after_s = error.retry_after_s if isinstance(error, Throttled) else 0.0
        instance = running.instance
        instance.in_flight -= 1
        if instance.state == State.DRAINING and not instance.in_flight:
            self._stop(instance)
        made = None if reply is None else _Made(reply, self._served.get(running.call.request.request_id))
        self._fresh, self._cause = (attempt, made), error
        self.tell(Finished(self.now_s(), attempt, outcome, usage, retry_after_s))
        self._fresh, self._cause = (0, None), None

    def _cancel(self, command: Cancel, number: int) -> Effect:
        running = self._running.get(command.attempt)
        if running is None:
            return _REFUSED
        running.cancelling = True
        running.task.cancel()
        return _DONE

    # --- ends of requests -----------------------------------------------------------------------------

    def _answer(self, command: Answer, number: int) -> Effect:
        request_id, source, reason, keep = command
        ticket = self._tickets.pop(request_id, None)
        if ticket is None:
            return _REFUSED  # its client is of a time before the restart
        made = self._fresh[1] if self._fresh[0] == source else self._kept.get(source)
        if source == 0:
            content = self._apologise(ticket.task)
            if content is None:
                ticket.said.put_nowait(Failed(request_id, Outcome.ERROR, reason, self._cause))
                return _REFUSED
            made = _Made(Reply(content, Usage()), None)
        if made is None:  # lost in a restart, or too many were kept: made again, past the cache
            ticket.request = self._numbered(ticket.request._replace(cache_key=0, idempotency_key=0))
            self._tickets[ticket.request.request_id] = ticket
            self._todo.append(Arrived(self.now_s(), ticket.request))
            return _REFUSED
        if keep:
            self._hold(source, made)
        reply, served = made
        if served is not None and request_id not in self._served:
            self._served_again(request_id, ticket.request, served)
        if ticket.request.stream and ticket.streamed != source:
            ticket.said.put_nowait(reply.content)
        ticket.said.put_nowait(Answered(request_id, reply.content, reply.usage, reason.code, source))
        return _DONE

    def _served_again(self, request_id: int, request: Request, served: Served) -> None:
        """Take feedback on a request that another one's answer was given to; no rollout assigned it."""
        self._note_served(
            served._replace(
                request_id=request_id, unit=request.user or request_id, tenant=request.tenant,
                t_s=self.now_s(), assigned_s=None,
            )
        )  # fmt: skip

    def _note_served(self, served: Served) -> None:
        self._served[served.request_id] = served
        self._tell_served(served)
        if len(self._served) > self._memory:
            self._served.popitem(last=False)

    def _reject(self, command: Reject, number: int) -> Effect:
        request_id, retry_after_s, reason = command
        return self._turn_down(request_id, Rejected(request_id, retry_after_s, reason))

    def _fail(self, command: Fail, number: int) -> Effect:
        request_id, outcome, reason = command
        return self._turn_down(request_id, Failed(request_id, outcome, reason, self._cause))

    def _turn_down(self, request_id: int, error: GlowsimError) -> Effect:
        ticket = self._tickets.pop(request_id, None)
        if ticket is None:
            return _REFUSED
        ticket.said.put_nowait(error)
        return _DONE

    def _keep(self, command: Keep, number: int) -> Effect:
        source, made = self._fresh
        if made is None or source != command.source:
            return _REFUSED
        self._hold(source, made)
        return _DONE

    def _hold(self, source: int, made: _Made) -> None:
        self._kept[source] = made
        if len(self._kept) > self._contents:
            self._kept.popitem(last=False)

    def _forget(self, command: Forget, number: int) -> Effect:
        self._kept.pop(command.source, None)
        return _DONE

    def _advance(self, command: Advance, number: int) -> Effect:
        self.advances[command.agent] = command
        return _DONE

    # --- the outside world ----------------------------------------------------------------------------

    def _ask(self, ask: Ask, number: int) -> Effect | None:
        if self._asker is None:
            return _REFUSED
        self._chore(self._asker(ask), partial(self._heard, ask.ask_id, number))
        return _LATER

    def _heard(self, ask_id: int, number: int, task: asyncio.Task[Word]) -> None:
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            _log.warning("question %d was not answered: %r", ask_id, error)
            word = Word(Status.UNKNOWN)
            self._effect(number, _REFUSED)
        else:
            word = task.result()
            self._effect(number, _DONE)
        now_s = self.now_s()  # not before the effect's, or time would run back in the journal
        self.tell(Told(now_s, ask_id, word.status, word.value, now_s + word.lasts_s))

    def _chore(self, work: Awaitable[_T], then: Callable[[asyncio.Task[_T]], None]) -> asyncio.Task[_T]:
        """Have something done meanwhile, and hear of its end unless everything has ended before."""

        def ended(task: asyncio.Task[_T]) -> None:
            self._chores.discard(task)
            if asyncio.iscoroutine(work):
                work.close()  # cancelled before it began, it would complain that nobody awaited it
            if not self._over:
                then(task)

        task = self._loop.create_task(_awaited(work))
        self._chores.add(task)
        task.add_done_callback(ended)
        return task

    # --- instances ------------------------------------------------------------------------------------

    def add(self, agent: int, serve: Serve, *, region: int = 0) -> int:
        """Let an instance of an agent take part, ready at once; return its number."""
        instance = self._make(agent, region, State.READY)
        instance.serve = serve
        self.tell(InstanceChanged(self.now_s(), agent, instance.number, State.READY, region))
        return instance.number

    def expect(self, agent: int, *, region: int = 0) -> int:
        """Take in that an instance of an agent is starting, which `ready` will tell of; return its number."""
        instance = self._make(agent, region, State.STARTING)
        self.tell(InstanceChanged(self.now_s(), agent, instance.number, State.STARTING, region))
        return instance.number

    def ready(self, instance: int, serve: Serve) -> None:
        """Let an instance take part that was expected. One that is not there any more is passed over."""
        there = self._instances.get(instance)
        if there is not None and not self._over:
            there.serve = serve
            self._changed(there, State.READY)

    def start(self, agent: int, *, region: int = 0) -> int:
        """Have an instance of an agent started by its scaler, as a `Scale` would; return its number.

        Raises
        ------
        KeyError
            The agent has no scaler.
        """
        instance = self._start(agent, region)
        self.tell(self._todo.popleft())
        return instance.number

    def lost(self, instance: int) -> None:
        """Take in that an instance has ended by itself: it has failed, or is gone if it was to go anyway.

        Its attempts under way end by themselves, as their connections break. Its scaler is not asked to stop
        it. One that is not there any more is passed over: it was told of before.
        """
        there = self._instances.get(instance)
        if there is None or self._over:
            return
        if there.starting is not None:
            there.starting.cancel()
        self._changed(there, State.GONE if there.state == State.DRAINING else State.FAILED)

    def _make(self, agent: int, region: int, state: State) -> _Instance:
        number = self._next_instance
        self._next_instance += 1
        instance = self._instances[number] = _Instance(number, agent, region, state)
        return instance

    def _scale(self, command: Scale, number: int) -> Effect | None:
        agent = command.agent
        self.wanted[agent] = command.want
        if agent not in self.scalers:
            return _REFUSED
        unsettled = set(command.victims)
        for victim in command.victims:
            self._drain(self._instances[victim])
        alive = [each for each in self._instances.values() if each.agent == agent and each.state in _THERE]
        for _ in range(command.want - len(alive)):
            unsettled.add(self._start(agent, command.region).number)
        if not unsettled:
            return _DONE
        self._scaling[number] = unsettled
        return _LATER

    def _start(self, agent: int, region: int) -> _Instance:
        instance = self._make(agent, region, State.STARTING)
        self._todo.append(
            InstanceChanged(self.now_s(), agent, instance.number, State.STARTING, instance.region)
        )
        start = self.scalers[agent].start(instance.number)
        instance.starting = self._chore(start, partial(self._started, instance))
        return instance

    def _started(self, instance: _Instance, task: asyncio.Task[Serve]) -> None:
        if instance.state != State.STARTING:
            return  # it was told to go meanwhile
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            _log.warning("instance %d of agent %d did not start: %r", instance.number, instance.agent, error)
            self._changed(instance, State.FAILED)
        else:
            instance.serve = task.result()
            self._changed(instance, State.READY)

    def _drain(self, instance: _Instance) -> None:
        """Have an instance go: at once, or when its work is done."""
        instance.state = State.DRAINING
        if instance.starting is not None:
            instance.starting.cancel()
        if instance.in_flight:
            there = (instance.agent, instance.number, State.DRAINING, instance.region)
            self._todo.append(InstanceChanged(self.now_s(), *there))
        else:
            self._stop(instance)

    def _stop(self, instance: _Instance) -> None:
        self._chore(self.scalers[instance.agent].stop(instance.number), partial(self._stopped, instance))

    def _stopped(self, instance: _Instance, task: asyncio.Task[None]) -> None:
        if instance.number not in self._instances:
            return  # it was lost meanwhile
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.warning("instance %d of agent %d did not stop: %r", instance.number, instance.agent, error)
        self._changed(instance, State.GONE if error is None else State.FAILED)

    def _changed(self, instance: _Instance, state: State) -> None:
        """Tell that an instance got somewhere, and what that makes of the commands that sent it there."""
        number = instance.number
        instance.state = state
        if state != State.READY:
            del self._instances[number]
        for command, unsettled in list(self._scaling.items()):
            if number in unsettled:
                unsettled.discard(number)
                if state == State.FAILED or not unsettled:
                    del self._scaling[command]
                    self._effect(command, _REFUSED if state == State.FAILED else _DONE)
        self.tell(InstanceChanged(self.now_s(), instance.agent, number, state, instance.region))

    # --- health ---------------------------------------------------------------------------------------

    def _probe(self, command: Probe, number: int) -> Effect | None:
        """Ask every ready instance that can be asked how it is."""
        asked = {
            each.number: each.serve
            for each in self._instances.values()
            if each.agent == command.agent and each.state == State.READY and isinstance(each.serve, Checked)
        }
        if not asked:
            return _REFUSED
        self._chore(self._ask_all(asked), partial(self._probed, command.agent, number))
        return _LATER

    async def _ask_all(self, asked: dict[int, Checked]) -> tuple[tuple[int, bool], ...]:
        said = await asyncio.gather(*map(self._is_well, asked.values()), return_exceptions=True)
        for number, each in zip(asked, said, strict=True):
            if isinstance(each, BaseException):
                _log.info("instance %d did not say that it is well: %r", number, each)
        return tuple((number, each is True) for number, each in zip(asked, said, strict=True))

    async def _is_well(self, instance: Checked) -> bool:
        async with asyncio.timeout(self._probe_timeout_s):
            return await instance.healthy()

    def _probed(self, agent: int, number: int, task: asyncio.Task[tuple[tuple[int, bool], ...]]) -> None:
        self._effect(number, _DONE)
        self.tell(Probed(self.now_s(), agent, task.result()))

    # --- beginning and ending -------------------------------------------------------------------------

    def recover(self, recording: Recording) -> None:
        """Go on where a journal ends: the driver that wrote it is gone, and its clients and attempts with it.

        The journal's events are replayed, and a segment is begun with the state that they lead to. Then commands
        that nobody knows to be done are refused, instances have failed, open attempts are finished as
        `Outcome.LOST`, and open requests are abandoned. The time in between counts nothing. Call it once, before
        anything else.

        Parameters
        ----------
        recording
            The whole journal, or its last segment.

        Raises
        ------
        JournalError
            The control plane decides otherwise than the journal says: another scenario, another version.
        """
        last_s = gone_on_with(recording, self._plane, fresh_s=0.0)
        self._remember(recording)
        self._epoch_s = self._clock() - last_s
        untold = recording.untold()
        self._journal.begin(self._head(last_s, recording.commands, untold))
        for number in untold:
            self._journal.effect(last_s, number, Effect.REFUSED)
        scalers, self.scalers = self.scalers, {}  # nothing is started for a fleet that is going
        now_s, there = max(self.now_s(), last_s), self._plane.under_way()
        for agent, number, region in there.instances:
            self.tell(InstanceChanged(now_s, agent, number, State.FAILED, region))
        for attempt in there.attempts:
            self.tell(Finished(now_s, attempt, Outcome.LOST, Usage()))
        for request_id in there.requests:
            self.tell(Abandoned(now_s, request_id))
        self.scalers = scalers

    def _remember(self, recording: Recording) -> None:
        """Take on what the driver that wrote a journal knew beside its control plane."""
        world = recording.header.get("world")
        if world is not None:
            self._last_request = max(self._last_request, world["last_request"])
            self._next_instance = world["next_instance"]
            self.feedback_told, self.orders_told = world["feedback_told"], world["orders_told"]
            self.wanted = dict(world["wanted"])
            for advance in unpack(world["advances"]):
                self._advance(advance, 0)
        arrived, changed = recording.table(Arrived), recording.table(InstanceChanged)
        self._last_request = int(arrived["request_id"].max(initial=self._last_request))
        self._next_instance = int(changed["instance"].max(initial=self._next_instance - 1)) + 1
        for agent, stage, weight, code, bound, *numbers in recording.table(Advance).tolist():
            why = Reason(Code(code), Constraint(bound), *numbers)
            self._advance(Advance(agent, stage, weight, why), 0)
        self.wanted |= {order.agent: order.want for order in recording.loose(Scale)}
        for told in (*recording.loose(Observed), *recording.loose(Changed)):
            self._numbered_event(told)

    def _head(self, t_s: float, commands: int, untold: Sequence[int]) -> dict[str, Any]:
        """Return what a segment begins with: all that a restart needs of what was before."""
        return {
            "t_s": t_s,
            "commands": commands,
            "untold": list(untold),
            "world": {
                "last_request": self._last_request,
                "next_instance": self._next_instance,
                "feedback_told": self.feedback_told,
                "orders_told": self.orders_told,
                "wanted": list(self.wanted.items()),
                "advances": pack(list(self.advances.values())),
            },
            "state": self._plane.snapshot(),
        }

    def reload(
        self,
        plane: ControlPlane,
        afresh: Iterable[int],
        header: Mapping[str, Any],
        idle_timeouts: Mapping[int, float],
    ) -> None:
        """Go on with another control plane, which takes the place of the present one between two events.

        Parameters
        ----------
        plane
            Goes on where the present one is, as `glowsim.reload.carried` returns it.
        afresh
            Agents whose split of traffic begins again.
        header
            What the journal's segments say from now on.
        idle_timeouts
            As on construction.

        Raises
        ------
        OSError
            The journal cannot be written; the driver is broken.
        """
        self.flush()
        for agent in afresh:
            self.advances.pop(agent, None)
        self._plane = plane
        self._idle_timeouts = dict(idle_timeouts)
        self._journal.header |= header
        try:
            self._begin_segment(self.now_s())
        except OSError as error:
            self._break(error)
            raise
        self._arm()

    def _begin_segment(self, now_s: float) -> None:
        self._journal.begin(self._head(now_s, self._journal.commands, sorted(self._deferred)))

    def flush(self) -> None:
        """Write down what has happened so far, so that it outlives this process.

        A journal that cannot be written ends everything, as an exception of the control plane does.
        """
        now_s = self.now_s()
        self._journal.settle(now_s)
        try:
            self._journal.flush()
            if self._journal.full:
                self._begin_segment(now_s)
        except OSError as error:
            self._break(error)
            raise

    async def written(self) -> None:
        """Return when what has happened so far is written down, as `flush` does it; who asks at once shares a write.

        Raises
        ------
        OSError
            The journal cannot be written.
        """
        if self._writing is None:
            self._writing = self._loop.create_future()
            self._loop.call_soon(self._write)
        await asyncio.shield(self._writing)

    def _write(self) -> None:
        writing, self._writing = self._writing, None
        assert writing is not None
        try:
            self.flush()
        except OSError as error:
            writing.set_exception(error)
        else:
            writing.set_result(None)

    async def close(self, grace_s: float) -> None:
        """Take in nothing more, let open requests finish for ``grace_s``, end the rest, close the journal.

        A fifth of the time, at most a second, is kept for what has to be cancelled.
        """
        self._closing = True
        last_s = min(1.0, grace_s / 5.0)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s - last_s):
                await self._idle.wait()
        gone = Closed("the driver is closing: the request was not finished")
        for ticket in reversed(list(self._tickets.values())):  # nobody takes over from anybody
            ticket.said.put_nowait(gone)
            self._left(ticket)
        await _ended([running.task for running in self._running.values()], last_s)
        for attempt in list(self._running):
            del self._running[attempt]
            self.tell(Finished(self.now_s(), attempt, Outcome.LOST, Usage()))
        self._over = True
        await _ended(self._chores, last_s)
        if self._timer is not None:
            self._timer.cancel()
        for number in sorted(self._deferred):
            self._effect(number, _REFUSED)
        self._journal.settle(self.now_s())
        self._journal.close()


async def _ended(tasks: Iterable[asyncio.Task[Any]], within_s: float) -> None:
    """Cancel tasks and wait until they have ended, but not for those that do not obey."""
    waiting = list(tasks)
    for task in waiting:
        task.cancel()
    if waiting:
        await asyncio.wait(waiting, timeout=within_s)


async def _awaited(work: Awaitable[_T]) -> _T:
    return await work


def _outcome_of(error: BaseException, running: _Running) -> Outcome:
    match error:
        case asyncio.CancelledError():
            return Outcome.CANCELLED if running.cancelling else Outcome.ERROR
        case InvalidTask():
            return Outcome.INVALID
        case Throttled():
            return Outcome.THROTTLED
        case TimeoutError():
            return Outcome.TIMEOUT
        case ConnectionError():
            return Outcome.UNREACHABLE
        case InstanceError():
            return Outcome.ERROR
    _log.warning("instance %d raised:\n%s", running.instance.number, trace_of(error))
    return Outcome.ERROR
