"""The generator of load: has a workload's requests sent when they are due, and notes what becomes of them.

The sources are the simulator's own, so that the same scenario, seed and replication send the same requests at
the same moments; they go by a clock that is advanced to the present one. What is due is sent at once, whatever
happens to those before it, and every time counts from the moment that a request was due: a target that
stalls, or a generator that is late, cannot hide how long users waited (no coordinated omission).
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from math import inf, nan
from typing import NamedTuple

from glowsim.core.errors import GlowsimError
from glowsim.core.reasons import Code
from glowsim.core.types import Outcome, Request, Usage
from glowsim.load.faces import is_rejection
from glowsim.load.prompts import prompt_of
from glowsim.load.records import Records
from glowsim.results import ENDINGS
from glowsim.sim.environment import Environment
from glowsim.sim.service import Truth
from glowsim.sim.workload.sources import Source

__all__ = ["Ask", "Call", "Generator", "Heard", "TargetError", "User"]

_ANSWERED, _REJECTED, _FAILED = (ENDINGS.index(each) for each in ("answered", "rejected", "failed"))


class TargetError(GlowsimError):
    """The target cannot be loaded as asked: it is not there, wants a key, or does not know the agent."""


@dataclass(slots=True)
class Call:
    """A request on its way to the target."""

    agent: str
    request: Request
    text: str
    left_s: float = inf
    """Its user goes away after so long; whoever asks may say so."""
    first_token_at: float = nan
    """When the first of a streamed answer came, on the event loop's clock; whoever asks notes it."""


class Heard(NamedTuple):
    """How a call ended."""

    outcome: Outcome
    how: Code
    """Where the answer came from, or why there is none."""
    usage: Usage | None = None
    """As the target states it."""
    told: bool = False
    """Whether the target has said where the answer came from."""
    said: str = ""
    """What went wrong, in a few words of which there are not many."""


Ask = Callable[[Call], Awaitable[Heard]]
"""Carries a call to the target; raises `TargetError` where no request of the kind could ever be answered."""


class User(NamedTuple):
    """An agent, as its users know it."""

    agent: str
    timeout_s: float
    """They give up so long after a request was due."""


class Generator:
    """Sends a workload to a target, in real time; it is what the sources send into.

    Parameters
    ----------
    sources
        Who sends the requests, fresh.
    users
        Of every agent, by its number.
    ask
        Carries a call to the target.
    until_s
        Nothing that is due later is sent.
    drain_s
        So long after that, what is still open is left open.
    most_in_flight
        So many calls are open at once, at least 1. Whatever else is due waits, which its latency includes.
    """

    def __init__(
        self, sources: Sequence[Source], users: Sequence[User], ask: Ask, *, until_s: float, drain_s: float,
        most_in_flight: int,
    ) -> None:  # fmt: skip
        self._sources = sources
        self._users = users
        self._ask = ask
        self._until_s = until_s
        self._drain_s = drain_s
        self._most = most_in_flight
        self.environment = Environment()
        self.contexts: dict[int, int] | None = {} if any(each.remembers for each in sources) else None
        self.records = Records()
        self.said: Counter[str] = Counter()
        """What went wrong -> how often."""
        self.held = 0
        """Requests that were due while as many as may be were in flight."""
        self.peak_in_flight = 0
        self.without_usage = 0
        """Answers that did not state what they used."""
        self.without_source = 0
        """Answers that did not say where they came from."""
        self.interrupted = False
        self._sources_left = len(sources)
        self._calls: set[asyncio.Task[None]] = set()
        self._backlog: deque[tuple[int, float, Request, Truth]] = deque()
        self._answered = False
        self._changed = asyncio.Event()
        self._reached_s = 0.0
        self._closed = False
        self._error: BaseException | None = None

    async def run(self) -> float:
        """Send everything; return the seconds that it took.

        Raises
        ------
        TargetError
            The target turned the first requests down for a reason that holds for all.
        """
        self._loop = asyncio.get_running_loop()
        for index, source in enumerate(self._sources):
            source.start(self, index, len(self._sources))
        self._epoch = self._loop.time()  # only now: drawing the first requests takes a while
        try:
            await self._pace()
        finally:
            self._closed = True
            for call in self._calls:
                call.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)
        return self._now_s()

    async def _pace(self) -> None:
        """Let the sources send what is due, until nothing more can come or the time is up."""
        end_s = self._until_s + self._drain_s
        while not self.interrupted:
            now_s = self._advance()
            if self._error is not None:
                raise self._error
            idle = not self._calls and (not self._sources_left or now_s >= self._until_s)
            if idle or now_s >= end_s:
                return
            due_s = min(self.environment.peek(), self._until_s if now_s < self._until_s else end_s)
            self._changed.clear()
            timer = self._loop.call_at(self._epoch + due_s, self._reach, due_s)
            await self._changed.wait()
            timer.cancel()

    def _reach(self, due_s: float) -> None:
        self._reached_s = due_s  # the loop's clock may still say a rounding error less
        self._changed.set()

    def _advance(self) -> float:
        """Bring the sources' clock to the present, and so let everything happen that is due; return the present."""
        now_s = max(self._now_s(), self._reached_s)
        self.environment.run_until(now_s)
        return now_s

    def _now_s(self) -> float:
        return self._loop.time() - self._epoch

    def stop(self) -> None:
        """End early, and keep what was measured."""
        self.interrupted = True
        self._changed.set()

    # --- what the sources tell ------------------------------------------------------------------------

    def arrive(self, request: Request, truth: Truth) -> None:
        """Send a request that is due now by the sources' clock."""
        due_s = self.environment.now
        if self._closed or due_s > self._until_s:
            return
        row = self.records.opened(due_s, request)
        if len(self._calls) < self._most:
            self._begin(row, due_s, request, truth)
        else:
            self.held += 1
            self._backlog.append((row, due_s, request, truth))

    def source_ended(self) -> None:
        """Hear from a source that it sends nothing any more."""
        self._sources_left -= 1
        self._changed.set()

    # --- calls ------------------------------------------------------------------------------------------

    def _begin(self, row: int, due_s: float, request: Request, truth: Truth) -> None:
        task = self._loop.create_task(self._serve(row, due_s, request, truth))
        self._calls.add(task)
        self.peak_in_flight = max(self.peak_in_flight, len(self._calls))
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if self._closed:
            return
        self._error = self._error or task.exception()
        if self._backlog:
            self._begin(*self._backlog.popleft())
        if self._error is not None or not self._calls:
            self._changed.set()

    async def _serve(self, row: int, due_s: float, request: Request, truth: Truth) -> None:
        agent, timeout_s = self._users[request.agent]
        give_up_s = min(due_s + timeout_s, request.deadline_s)
        call = Call(agent, request, prompt_of(request, truth.text_key))
        heard = None
        sent_s = self._now_s()
        if sent_s < give_up_s:
            call.left_s = request.deadline_s - sent_s
            self.records.note(row, t_sent_s=sent_s)
            heard = await self._heard(call, give_up_s)
        ended_s = self._now_s()
        self.records.note(row, t_end_s=ended_s, t_first_token_s=call.first_token_at - self._epoch)
        if heard is None or ended_s > give_up_s:  # an answer that is only seen later helps nobody
            usage = None if heard is None else heard.usage
            heard = Heard(Outcome.TIMEOUT, Code.TIMED_OUT, usage, said="no answer in time")
        self._note(row, heard)
        self._tell_source(request, heard.usage)

    async def _heard(self, call: Call, give_up_s: float) -> Heard | None:
        """Return how a call ended; None: it had not by the time that its user gave up."""
        limit = asyncio.timeout_at(self._epoch + give_up_s)
        try:
            async with limit:
                return await self._ask(call)
        except TimeoutError:
            if not limit.expired():
                raise
            return None
        except TargetError as error:
            if not self._answered:
                raise
            return Heard(Outcome.INVALID, Code.NOT_RETRYABLE, said=str(error))

    def _note(self, row: int, heard: Heard) -> None:
        outcome, how, usage, told, said = heard
        ending = _FAILED
        if outcome is Outcome.OK:
            self._answered = True
            ending = _ANSWERED
            if how == Code.APOLOGY:  # a text written beforehand: for the user, a failure
                ending, outcome = _FAILED, Outcome.ERROR
            self.without_usage += usage is None
            self.without_source += not told
        elif is_rejection(how):
            ending = _REJECTED
        if said:
            self.said[said] += 1
        used = usage or Usage()
        self.records.note(
            row, ending=ending, how=how, outcome=outcome, used_in=used.tokens_in, used_cached=used.tokens_cached,
            used_out=used.tokens_out,
        )  # fmt: skip

    def _tell_source(self, request: Request, usage: Usage | None) -> None:
        source = self._sources[(request.request_id - 1) % len(self._sources)]
        if not source.waits or self._closed:
            return
        if self.contexts is not None and usage is not None:
            self.contexts[request.request_id] = request.tokens_in + usage.tokens_out
        self._advance()
        source.closed(request.request_id)
        self._changed.set()  # the next one may be due before what the pacing waits for
        if self.contexts is not None:
            self.contexts.pop(request.request_id, None)
