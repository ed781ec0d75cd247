"""Emulated agents: the simulator's own instances, served under a real clock.

Live mode can be tried without an agent: whoever has no upstream is emulated, by the service law, the
failures and the start-up times of the scenario. It proves the plumbing; it predicts nothing.

Like `glowsim.build` it knows both worlds, which do not know each other: an emulated instance is the
simulator's engine, fed by calls and advanced to the present moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import inf

from glowsim.build import BuildError, agent_world, law
from glowsim.core.streams import Streams, uniform_at
from glowsim.core.types import Outcome, Usage
from glowsim.live.calls import Call, Checked, InstanceError, InvalidTask, Reply, Serve
from glowsim.live.content import speaking
from glowsim.scenario import Scenario
from glowsim.scenario.servers import StepsService
from glowsim.scenario.workload import Sized
from glowsim.sim.environment import Environment
from glowsim.sim.laws import at, one_by_one
from glowsim.sim.service import Truth
from glowsim.sim.serving.engine import Engine, Job
from glowsim.sim.serving.fcfs import FcfsEngine
from glowsim.sim.serving.shared import SharedEngine
from glowsim.sim.world import AgentWorld

__all__ = ["Drawn", "EmulatedAgent", "RealTime", "agent_worlds"]


def agent_worlds(scenario: Scenario) -> list[AgentWorld]:
    """Return what the world knows of every agent, by number."""
    return [agent_world(scenario, agent) for agent in scenario.agents().values()]


class RealTime:
    """A simulated environment that follows a real clock.

    Parameters
    ----------
    now_s
        The clock, in the journal's seconds.
    loop_time
        Says of a moment of that clock when it is on the event loop's.
    """

    def __init__(self, now_s: Callable[[], float], loop_time: Callable[[float], float]) -> None:
        self.environment = Environment()
        self._now_s = now_s
        self._loop_time = loop_time
        self._loop = asyncio.get_running_loop()
        self._due_s = inf
        self._timer: asyncio.TimerHandle | None = None

    @contextmanager
    def now(self) -> Iterator[None]:
        """Have everything happen that is due; inside the block, the environment is at the present moment."""
        self.environment.run_until(self._now_s())
        yield
        due_s = self.environment.peek()
        if due_s < self._due_s:
            if self._timer is not None:
                self._timer.cancel()
            self._due_s = due_s
            self._timer = self._loop.call_at(self._loop_time(due_s), self._tick)

    def _tick(self) -> None:
        self._due_s, self._timer = inf, None
        with self.now():
            pass


class Drawn:
    """Draws the truth of live requests: by their number, from an agent's laws.

    The length of an answer follows the first workload of the scenario that sends the agent work.

    Parameters
    ----------
    scenario
        Whose laws.
    agent
        The agent's name.
    streams
        Of the run.

    Raises
    ------
    BuildError
        It works in steps, or no workload says how long its answers are.
    """

    def __init__(self, scenario: Scenario, agent: str, streams: Streams) -> None:
        if isinstance(scenario.agents()[agent].service, StepsService):
            raise BuildError(
                f"{agent} cannot be emulated: it works in steps, which only a simulation takes; give it an --upstream"
            )
        number = list(scenario.agents()).index(agent)
        self._weight_at = at(agent_worlds(scenario)[number].service.law)
        columns = ("weight", "tokens out", "invalid", "error")
        self._keys = [streams.key("emulated", column) for column in columns]
        senders = [each for each in scenario.workload if agent in scenario.shares(each)]
        sized = [each for each in senders if isinstance(each, Sized)]
        if not sized:
            raise BuildError(
                f"{agent} cannot be emulated: no workload says how long its answers are (a trace's or a "
                "preset's lengths are in its file); give it an --upstream, or a workload with tokens_out"
            )
        self._tokens_out_at = at(law(sized[0].tokens_out))

    def __call__(self, call: Call) -> Truth:
        """Return the truth of a call's request."""
        weight, tokens, invalid, error = (uniform_at(key, call.request.request_id) for key in self._keys)
        return Truth(self._weight_at(weight), round(self._tokens_out_at(tokens)), invalid, error)


class EmulatedAgent:
    """Starts, stops and is the instances of one emulated agent: a `Scaler`.

    Parameters
    ----------
    agent
        Its number.
    spec
        What the world knows of it.
    truth
        The truth of a call's request.
    streams
        Of the run: the luck of later attempts and the start-up times come from them.
    time
        The clock that the instances run by.
    """

    def __init__(
        self, agent: int, spec: AgentWorld, truth: Callable[[Call], Truth], streams: Streams, time: RealTime
    ) -> None:
        self._spec = spec
        self._truth = truth
        self._time = time
        self._luck_key = streams.key("luck")
        law = spec.startup
        self._starts = one_by_one(law, streams.generator("startup", agent) if law.random else None)
        self._inside: dict[int, _Work] = {}
        idle_s = spec.idle_timeout_s
        self._word_every_s = None if idle_s == inf else idle_s / 2.0

    def instance(self) -> Serve:
        """Return an instance that is ready, and always well."""
        spec, environment = self._spec, self._time.environment
        engine: Engine
        if spec.shared:
            engine = SharedEngine(environment, spec.concurrency, spec.slowdown, self._done, self._first_token)
        else:
            engine = FcfsEngine(environment, spec.concurrency, self._done)
        return speaking(Checked(partial(self._serve, engine), _well))

    async def start(self, instance: int) -> Serve:
        """Return an instance after the time that the agent's n-th start takes."""
        await asyncio.sleep(next(self._starts))
        return self.instance()

    async def stop(self, instance: int) -> None:
        """Let go of an instance: nothing is left of it."""

    def _serve(self, engine: Engine, call: Call) -> AsyncIterator[str] | Awaitable[Reply]:
        if call.request.stream and self._spec.shared:
            return self._stream(engine, call)
        return self._answer(engine, call)  # the other station knows of no first token

    async def _answer(self, engine: Engine, call: Call) -> Reply:
        with self._working(engine, call) as work:
            await work.ended
        work.check()
        return Reply(_text(work.job.tokens_out), call.usage)

    async def _stream(self, engine: Engine, call: Call) -> AsyncIterator[str]:
        with self._working(engine, call) as work:
            await asyncio.wait((work.first, work.ended), return_when=asyncio.FIRST_COMPLETED)
            if work.first.done():
                yield _text(1)
            while not work.ended.done():
                await asyncio.wait((work.ended,), timeout=self._word_every_s)
                yield ""  # at work
        work.check()
        yield f" {_text(work.job.tokens_out - 1)}"

    @contextmanager
    def _working(self, engine: Engine, call: Call) -> Iterator[_Work]:
        """Put the call's work into an engine; write down what was used, be it at its end or left before."""
        job = self._job(call)
        work = self._inside[call.attempt] = _Work(job)
        with self._time.now():
            engine.start(job)
        try:
            yield work
        finally:
            with self._time.now():
                if self._inside.pop(call.attempt, None) is None:
                    call.usage = Usage(job.tokens_in, 0, job.tokens_out)
                else:
                    job.progress = 0.0
                    engine.cancel(job)
                    call.usage = job.used_so_far()

    def _job(self, call: Call) -> Job:
        """Return the work that an attempt is, by the simulated world's own rules."""
        plan, request = call.plan, call.request
        work_s, prefill_s, tokens_out, outcome = self._spec.attempt(
            plan, self._truth(call), request.request_id, call.tries, self._luck_key
        )
        return Job(
            call.attempt, request.request_id, call.instance, work_s, prefill_s, plan.tokens_in, tokens_out,
            outcome, request.stream,
        )  # fmt: skip

    def _done(self, job: Job) -> None:
        _set(self._inside.pop(job.attempt).ended)

    def _first_token(self, job: Job) -> None:
        if job.outcome == Outcome.OK and job.attempt in self._inside:
            _set(self._inside[job.attempt].first)


async def _well() -> bool:
    return True


class _Work:
    """A job inside an engine, and the moments that its call waits for."""

    def __init__(self, job: Job) -> None:
        self.job = job
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()

    def check(self) -> None:
        """Raise as the attempt's luck has it."""
        if self.job.outcome == Outcome.INVALID:
            raise InvalidTask("the emulated agent turned the task down, as the scenario's failures have it")
        if self.job.outcome != Outcome.OK:
            raise InstanceError("the emulated attempt failed, as the scenario's failures have it")


def _set(moment: asyncio.Future[None]) -> None:
    if not moment.done():
        moment.set_result(None)


def _text(tokens: int) -> str:
    """Return a text of so many words."""
    return " ".join(["emulated"] * tokens)
