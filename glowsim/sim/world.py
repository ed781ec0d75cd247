"""The simulated world: tells the control plane what happens, and does what it says.

No process a request: arrivals, services and starts are callbacks at moments. The world keeps the truth
about every request to itself and shows the control plane only what a gateway could see.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import copysign, fsum, inf, prod
from typing import Any, TypeAlias

from simpy.core import StopSimulation

from glowsim.core.control_plane import ControlPlane
from glowsim.core.journal import BATCH, Journal
from glowsim.core.streams import Streams, mix, uniform_at
from glowsim.core.types import (
    Advance,
    Answer,
    Arrived,
    Ask,
    Cancel,
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
    Plan,
    Probe,
    Probed,
    Raise,
    Reject,
    Request,
    Scale,
    Shadowed,
    State,
    Usage,
    Woke,
)  # fmt: skip
from glowsim.sim.answers import Answers
from glowsim.sim.environment import Environment
from glowsim.sim.faults import Fault, Struck
from glowsim.sim.front_door import FrontDoor
from glowsim.sim.laws import Constant, Law, one_by_one
from glowsim.sim.servers import Callee, Distant, ModelServer, Served, hear_end, hear_first_token
from glowsim.sim.service import Service, Truth, Variant, weight_again
from glowsim.sim.serving.engine import Engine, Job
from glowsim.sim.serving.fcfs import FcfsEngine
from glowsim.sim.serving.shared import SharedEngine
from glowsim.sim.serving.tasks import TaskEngine
from glowsim.sim.steps import Task, TaskJob
from glowsim.sim.workload.sources import Source

__all__ = ["AgentWorld", "Replica", "Watch", "World"]

Watch: TypeAlias = Callable[[Event, Sequence[Command]], None]
"""Told every event and what was answered to it; it changes nothing."""

_Handle: TypeAlias = Callable[[Event], Sequence[Command]]

_new = tuple.__new__
_blank = object.__new__
_OK, _ERROR, _INVALID = Outcome.OK, Outcome.ERROR, Outcome.INVALID
_STARTING, _READY, _DRAINING, _GONE = State.STARTING, State.READY, State.DRAINING, State.GONE
_NEVER = float("nan")


def _watched(handle: _Handle, watch: Watch) -> _Handle:
    def handled(event: Event) -> Sequence[Command]:
        commands = handle(event)
        watch(event, commands)
        return commands

    return handled


@dataclass(frozen=True)
class AgentWorld:
    """What the world knows of an agent."""

    service: Service
    concurrency: int
    instances: int
    slowdown: float = 0.0
    """By how much each further request in service slows all; 0 for the first-come-first-served station."""
    shared: bool = False
    """Whether requests in service share the instance."""
    startup: Law = field(default=Constant(0.0))
    region: int = 0
    invalid: float = 0.0
    error: float = 0.0
    cancellable: bool = True
    """Whether an instance stops working on what is cancelled, or works on for nobody."""
    variants: tuple[Variant, ...] = ()
    """Those beside the baseline."""
    idle_timeout_s: float = inf
    """An attempt of which nothing is heard for so long is given up; a stream that flows is heard of."""
    task: Task | None = None
    """What its requests take, step by step, where that is modelled."""

    @property
    def sure(self) -> bool:
        """Whether no attempt fails of itself, and all variants are alike: then truth says it all."""
        alike = all(variant == Variant(1.0, 0.0) for variant in self.variants)
        return self.invalid == self.error == 0.0 and alike and self.task is None

    def fate(
        self, plan: Plan, truth: Truth, request_id: int, tries: int, luck_key: int, extra_error: float
    ) -> Outcome:
        """Return how an attempt in steps is to end, if nothing else happens to it."""
        luck_error = uniform_at(luck_key, request_id, tries) if tries else truth.luck_error
        chance = self.variants[plan.variant - 1].error if plan.variant else self.error
        if truth.luck_invalid < self.invalid:
            return _INVALID
        return _ERROR if luck_error < chance + extra_error else _OK

    def attempt(
        self, plan: Plan, truth: Truth, request_id: int, tries: int, luck_key: int, extra_error: float = 0.0
    ) -> tuple[float, float, int, Outcome]:
        """Return (seconds alone, of that before the first token, tokens of the answer, outcome) of an attempt.

        Parameters
        ----------
        plan
            How it is to be served.
        truth
            The request's own; a later attempt has fresh luck, and a fresh weight where that is random.
        request_id, tries
            Name that luck: how many attempts came before.
        luck_key
            Of this replication.
        extra_error
            Chance of an error on top, while a fault lasts.
        """
        weight, _, luck_invalid, luck_error, _ = truth
        service = self.service
        if tries:
            luck_error = uniform_at(luck_key, request_id, tries)
            if service.law.random:
                weight = weight_again(service, luck_key ^ 1, request_id, tries)
        work_s, prefill_s, tokens_out = service.work(plan, truth, weight)
        chance = self.error
        if plan[1]:
            slowdown, chance = self.variants[plan[1] - 1]
            work_s, prefill_s = work_s * slowdown, prefill_s * slowdown
        if luck_invalid < self.invalid:  # the model reads the task and turns it down
            return prefill_s, prefill_s, 0, _INVALID
        chance += extra_error
        if luck_error < chance:  # somewhere along the way, everywhere alike
            work_s *= luck_error / chance
            return work_s, min(prefill_s, work_s), 0, _ERROR
        return work_s, prefill_s, tokens_out, _OK


class Replica:
    """An instance in the world."""

    __slots__ = ("agent", "engine", "number", "slowdown", "state")

    def __init__(self, number: int, agent: int, engine: Engine) -> None:
        self.number = number
        self.agent = agent
        self.engine = engine
        self.slowdown = 1.0
        """What faults make of its times."""
        self.state = State.STARTING


class World:
    """Runs one replication.

    Parameters
    ----------
    plane
        The control plane.
    journal
        Where everything is written down.
    agents
        What the world knows of each agent, by number.
    sources
        Who sends requests.
    streams
        Of this replication.
    faults
        What goes wrong.
    served
        What serves the models that the agents' steps call.
    answers
        What answers are worth; None: nobody asks.
    round_trips
        From each region (row) to each (column), in seconds: every attempt takes that between its user and its
        instance more, all of it on the way there.
    front_door
        Sends users of services to agents; None: there are no services.
    watch
        Who is told every event and what was answered to it; None: nobody.
    """

    def __init__(
        self, plane: ControlPlane, journal: Journal, agents: Sequence[AgentWorld], sources: Sequence[Source],
        streams: Streams, faults: Sequence[Fault] = (), served: Sequence[Served] = (), answers: Answers | None = None,
        round_trips: Sequence[Sequence[float]] = ((0.0,),), front_door: FrontDoor | None = None,
        watch: Watch | None = None,
    ) -> None:  # fmt: skip
        self.answers = answers
        self._served = served
        self._round_trips = round_trips
        self._front_door = front_door
        self._watch = watch
        self._losses: dict[int, int] = {}
        """Region that is lost -> by how many faults at once."""
        self._due_back: dict[int, int] = {}
        """Agent of a lost region -> instances that come back with it."""
        self._wanted: dict[int, int] = {}
        """Agent of a lost region -> how many its scaler has asked for since."""
        self._last_ended: Job | None = None
        self.environment = Environment()
        self.servers = [each.build(self.environment, hear_end, hear_first_token) for each in served]
        self._server_of = {model: i for i, each in enumerate(served) for model in each.models}
        self.agents = agents
        self.replicas: dict[int, Replica] = {}
        self._of_agent: list[dict[int, Replica]] = [{} for _ in agents]
        self.troubles: dict[int, list[Fault]] = {}
        """Agent -> the faults that are active."""
        self._plane = plane
        self._journal = journal
        self._sources = sources
        self._faults = faults
        for number, fault in enumerate(faults):
            fault.number = number
        self._streams = streams
        self._luck_key = streams.key("luck")
        self._fault_key = streams.key("fault")
        self._inside: dict[int, tuple[Request, Truth, int]] = {}
        """Open requests: (request, truth, attempts that ended without an answer)."""
        self._jobs: dict[int, Job] = {}
        self._unserved: set[int] = set()
        """Attempts that are in no engine: still on their way, or a fault struck them."""
        self._draining: set[int] = set()
        self._waiting = any(source.waits for source in sources)
        self.contexts: dict[int, int] | None = {} if any(source.remembers for source in sources) else None
        """Request -> tokens of its context when its latest attempt in steps ended, until its source asks."""
        self.tools: list[tuple[float, float]] = [(0.0, 1.0)] * len(agents)
        """Agent -> (share of its tools' uses that fail because of faults, factor on their time)."""
        self._todo: deque[Event] = deque()
        self._wake_at_s = inf
        self._sources_left = len(sources)
        self._started_instances = 0
        self._starts: dict[int, Iterator[float]] = {}
        """Agent -> the times that its instances take to start, one after the other."""
        self._acts: dict[type, Callable[[Any], bool]] = {
            Dispatch: self._dispatcher(),
            Answer: self._close,
            Reject: self._close,
            Fail: self._close,
            Cancel: self._cancel,
            Scale: self._scale,
            Probe: self._probe,
            Ask: lambda ask: False,  # nobody else shares this world's limits: unanswered, the fallback holds
            Keep: self._keep,
            Forget: self._forget,
            Raise: lambda alert: True,
            Advance: lambda advance: True,
            Shadowed: lambda shadowed: True,
        }
        """Type of command -> do it and say whether it was done."""
        self.tell = self._teller()
        """Tell the control plane what happened, and do what it says."""
        self.arrive = self._arriver()
        """Let a request reach the gateway."""
        self._done = self._ender()

    # --- running ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Announce the instances and let the sources begin."""
        for agent, spec in enumerate(self.agents):
            for _ in range(spec.instances):
                replica = self._make(agent)
                replica.state = State.READY
                self.tell(InstanceChanged(0.0, agent, replica.number, State.READY, spec.region))
        for fault in self._faults:
            self.environment.process(fault.script(self))
        for index, source in enumerate(self._sources):
            source.start(self, index, len(self._sources))

    def run(
        self, until_s: float, progress: Callable[[float], None] | None = None,
        pace: Callable[[float], float] | None = None,
    ) -> None:  # fmt: skip
        """Run until everything is answered, or until ``until_s``.

        Parameters
        ----------
        until_s
            Simulated seconds from the beginning.
        progress
            Told the simulated time now and then.
        pace
            Given the simulated time, says until when to go on before it is asked again; it may take its time. What
            happens in the simulation is the same.
        """
        steps = 100
        for step in range(1, steps + 1):
            to_s = until_s * step / steps
            going = self.environment.run_until(to_s) if pace is None else self._paced(to_s, pace)
            self._journal.settle(self.environment.now)
            if progress is not None:
                progress(self.environment.now)
            if not going or self.stopped:
                break
        self._journal.close()

    def _paced(self, to_s: float, pace: Callable[[float], float]) -> bool:
        environment, going = self.environment, True
        while going and environment.now < to_s:
            going = environment.run_until(min(max(pace(environment.now), environment.now), to_s))
        return going

    @property
    def stopped(self) -> bool:
        """Whether nothing can happen any more that anybody waits for."""
        return self._sources_left == 0 and not self._inside and not self._jobs

    def source_ended(self) -> None:
        """Hear from a source that it sends nothing any more."""
        self._sources_left -= 1

    def _arriver(self) -> Callable[[Request, Truth], None]:
        """Return what lets a request reach the gateway, with what never changes bound once."""
        inside, tell, environment, journal = self._inside, self.tell, self.environment, self._journal
        pending = journal.pending

        def arrive(request: Request, truth: Truth) -> None:
            if len(pending) >= BATCH:
                journal.pack()
            inside[request[0]] = (request, truth, 0)
            tell(_new(Arrived, (environment._now, request)))

        door = self._front_door
        return arrive if door is None else lambda request, truth: arrive(door.admit(request), truth)

    def _teller(self) -> Callable[[Event], None]:
        """Return the function that every event goes through, with what never changes bound once."""
        handle: _Handle = self._plane.handle
        if self._watch is not None:
            handle = _watched(handle, self._watch)
        timers = self._plane.timers
        acts, todo, journal, call_at = self._acts, self._todo, self._journal, self.environment.call_at
        note = journal.pending.append

        def tell(event: Event) -> None:
            note(event)
            for command in handle(event):
                note(command)
                if not acts[type(command)](command):
                    journal.effect(event[0], journal.commands - 1, Effect.REFUSED)
            if timers.earliest_s < self._wake_at_s:
                due_s = self._wake_at_s = timers.earliest_s
                call_at(due_s, self._wake, due_s)
            if todo or not self._sources_left:
                while todo:
                    tell(todo.popleft())
                if self.stopped:
                    raise StopSimulation

        return tell

    def _tell_rest(self) -> None:
        """Tell what has come of something that was no event itself."""
        while self._todo:
            self.tell(self._todo.popleft())

    def _wake(self, due_s: float) -> None:
        if len(self._journal.pending) >= BATCH:
            self._journal.pack()
        if due_s != self._wake_at_s:
            return
        self._wake_at_s = inf
        next_s = self._plane.next_wake_s()
        if next_s <= due_s:
            self.tell(Woke(due_s))
        elif next_s < inf:
            self._wake_at_s = next_s
            self.environment.call_at(next_s, self._wake, next_s)

    # --- attempts -----------------------------------------------------------------------------------

    def _dispatcher(self) -> Callable[[Dispatch], bool]:
        """Return what starts an attempt, with what never changes bound once."""
        replica_of, inside, jobs, agents = self.replicas.get, self._inside, self._jobs, self.agents
        luck_key, troubles, environment = self._luck_key, self.troubles, self.environment
        idle_s = {i: each.idle_timeout_s for i, each in enumerate(agents) if each.idle_timeout_s < inf}
        works = [each.service.work if each.sure else None for each in agents]
        in_steps = frozenset(i for i, each in enumerate(agents) if each.task is not None)
        task_key = self._streams.key("task")
        answers, trips, assignment = self.answers, self._trips(), self._plane.assignment

        def dispatch(command: Dispatch) -> bool:
            attempt, request_id, number = command[0], command[1], command[2]
            replica = replica_of(number)
            if replica is None or replica.state is not _READY:
                self._todo.append(Finished(environment.now, attempt, Outcome.UNREACHABLE, Usage()))
                return False
            plan = command[3]
            request, truth, tries = inside[request_id]
            agent, stream, extra = replica.agent, request[7], 0.0
            if idle_s and agent in idle_s:
                environment.call_at(environment.now + idle_s[agent], self._give_up, attempt)
            if troubles and agent in troubles:
                struck = self._struck(replica, request_id, tries)
                if struck is not None:
                    if trips:
                        struck = struck._replace(after_s=struck.after_s + trips[request[6]][agent])
                    self._serve_struck(command, replica, struck)
                    return True
                extra = fsum(fault.errors() for fault in troubles[agent])
            if answers is not None:
                answers.begun(environment._now, attempt, request, plan, tries, assignment(request_id))
            work = works[agent]
            outcome = _OK
            if work is not None and not tries and not extra:
                work_s, prefill_s, tokens_out = work(plan, truth, truth[0])
            elif agent in in_steps:
                fate = agents[agent].fate(plan, truth, request_id, tries, luck_key, extra)
                luck = mix(mix(task_key ^ request_id) + tries)
                working = jobs[attempt] = TaskJob(
                    attempt, request_id, number, plan, truth, luck, fate, stream
                )
                working.first_token_s = -environment._now
                if trips:
                    self._send(replica, working, trips[request[6]][agent])
                else:
                    replica.engine.start(working)
                return True
            else:
                work_s, prefill_s, tokens_out, outcome = agents[agent].attempt(
                    plan, truth, request_id, tries, luck_key, extra
                )
            job = jobs[attempt] = _blank(
                Job
            )  # its constructor costs as much again, and every attempt passes here
            job.attempt, job.request_id, job.number = attempt, request_id, number
            job.work_s, job.prefill_s, job.outcome = work_s, prefill_s, outcome
            job.tokens_in, job.tokens_out, job.stream = plan[2], tokens_out, stream
            if stream:
                job.first_token_s = -environment.now
            if trips:
                self._send(replica, job, trips[request[6]][agent])
            else:
                replica.engine.start(job)
            return True

        return dispatch

    def _trips(self) -> list[list[float]]:
        """Return user's region -> agent -> round trip between them; empty where all are 0."""
        if not any(any(row) for row in self._round_trips):
            return []
        return [[row[each.region] for each in self.agents] for row in self._round_trips]

    def _send(self, replica: Replica, job: Job, trip_s: float) -> None:
        """Have an attempt reach its instance after the round trip."""
        if not trip_s:
            replica.engine.start(job)
            return
        self._unserved.add(job.attempt)
        self.environment.call_at(self.environment.now + trip_s, self._reach, (replica, job))

    def _reach(self, sent: tuple[Replica, Job]) -> None:
        replica, job = sent
        if job.attempt in self._unserved:  # neither cancelled nor lost on the way
            self._unserved.remove(job.attempt)
            replica.engine.start(job)

    def _struck(self, replica: Replica, request_id: int, tries: int) -> Struck | None:
        for fault in self.troubles[replica.agent]:
            luck = uniform_at(self._fault_key ^ fault.number, request_id, tries)
            struck = fault.strikes(replica, luck)
            if struck is not None:
                return struck
        return None

    def _serve_struck(self, command: Dispatch, replica: Replica, struck: Struck) -> None:
        """Have an attempt end as a fault says, in its time, without the engine."""
        attempt, request_id, number, plan, _ = command
        tokens_in = plan.tokens_in if struck.tokens_out else 0
        job = self._jobs[attempt] = Job(
            attempt,
            request_id,
            number,
            struck.after_s,
            0.0,
            tokens_in,
            struck.tokens_out,
            struck.outcome,
            False,
        )
        self._unserved.add(attempt)
        if self.answers is not None and struck.outcome is _OK:
            tries, assignment = self._inside[request_id][2], self._plane.assignment(request_id)
            self.answers.spoilt(attempt, request_id, tries, plan.variant, assignment)
        if struck.after_s < inf:
            due_s = self.environment.now + struck.after_s
            self.environment.call_at(due_s, self._end_struck, (job, struck.retry_after_s))

    def _end_struck(self, ending: tuple[Job, float]) -> None:
        job, retry_after_s = ending
        if job.attempt not in self._unserved:
            return  # cancelled meanwhile
        self._unserved.remove(job.attempt)
        del self._jobs[job.attempt]
        score = _NEVER
        if job.outcome is not _OK:
            self._unanswered(job)
        elif self.answers is not None:
            score = self.answers.score(job.attempt)
        if self._draining:
            self._leave_if_empty(job.number)
        self._last_ended = job
        usage = Usage(job.tokens_in, 0, job.tokens_out, score=score)
        self.tell(Finished(self.environment.now, job.attempt, job.outcome, usage, retry_after_s))

    def _ender(self) -> Callable[[Job], None]:
        """Return what hears of a job that its engine has done, with what never changes bound once."""
        jobs, draining, tell, environment = self._jobs, self._draining, self.tell, self.environment
        answers = self.answers

        def done(job: Job) -> None:
            attempt, outcome = job.attempt, job.outcome
            if jobs.pop(attempt, None) is None:  # cancelled, and worked on for nobody
                if draining:
                    self._leave_if_empty(job.number)
                    self._tell_rest()
                return
            first_token_s = job.first_token_s if job.stream and job.first_token_s > 0.0 else _NEVER
            score = _NEVER
            if outcome is not _OK:
                self._unanswered(job)
            elif answers is not None:
                score = answers.score(attempt)
            self._last_ended = job
            usage = _new(Usage, (job.tokens_in, job.tokens_cached, job.tokens_out, first_token_s, score))
            if draining:
                self._leave_if_empty(job.number)
            tell(_new(Finished, (environment._now, attempt, outcome, usage, job.retry_after_s)))

        return done

    def _task_done(self, job: TaskJob) -> None:
        if self.contexts is not None and job.request_id in self._inside:
            self.contexts[job.request_id] = job.context
        self._done(job)

    def _first_token(self, job: Job) -> None:
        if job.outcome == _OK and job.attempt in self._jobs:
            job.first_token_s += self.environment.now
            self.tell(FirstToken(self.environment.now, job.attempt))

    def _give_up(self, attempt: int) -> None:
        """End an attempt of which nothing has been heard since its dispatch."""
        job = self._jobs.get(attempt)
        if job is None or (job.stream and copysign(1.0, job.first_token_s) > 0.0):
            return  # the time of the first token is below 0, or -0.0, until it comes
        finished = self._end_early(job, Outcome.TIMEOUT)
        if self._draining:
            self._leave_if_empty(job.number)
        self.tell(finished)

    def _unanswered(self, job: Job) -> None:
        if self.answers is not None:
            self.answers.lost(job.attempt)
        inside = self._inside.get(job.request_id)
        if inside is not None:
            self._inside[job.request_id] = (inside[0], inside[1], inside[2] + 1)

    def _end_early(self, job: Job, outcome: Outcome) -> Finished:
        """Take a job off its instance; what it wrote so far is used up."""
        replica = self.replicas[job.number]
        job.progress = 0.0
        if job.attempt in self._unserved:
            self._unserved.remove(job.attempt)
            used = Usage()
        elif outcome is not Outcome.LOST and not self.agents[replica.agent].cancellable:
            used = Usage(job.tokens_in, 0, 0)
        else:
            replica.engine.cancel(job)
            used = job.used_so_far()
        if job.stream and job.first_token_s > 0.0:
            used = used._replace(first_token_s=job.first_token_s)
        del self._jobs[job.attempt]
        self._unanswered(job)
        return Finished(self.environment.now, job.attempt, outcome, used)

    def _cancel(self, command: Cancel) -> bool:
        job = self._jobs.get(command.attempt)
        if job is None:
            return False
        self._todo.append(self._end_early(job, Outcome.CANCELLED))
        if self._draining:
            self._leave_if_empty(job.number)
        return True

    def _keep(self, command: Keep) -> bool:
        """Go on with a request whose answer did not convince: its next attempt has luck of its own."""
        job = self._last_ended
        assert job is not None
        request, truth, tries = self._inside[job.request_id]
        self._inside[job.request_id] = (request, truth, tries + 1)
        return True

    def _forget(self, command: Forget) -> bool:
        if self.answers is not None:
            self.answers.lost(command.source)
        return True

    def _speak(self, answer: Answer, request: Request) -> None:
        """Have a user say later what there is to say about an answer."""
        assert self.answers is not None
        variant, said, (assigned_s, propensity, unit) = self.answers.given(
            answer.request_id, answer.source, answer.keep
        )
        for each in said:
            t_s = self.environment.now + each.delay_s
            heard = Observed(
                t_s,
                answer.request_id,
                request.agent,
                variant,
                unit,
                propensity,
                each.metric,
                each.value,
                0,
                assigned_s,
            )
            self.environment.call_at(t_s, self.tell, heard)

    def _close(self, command: Answer | Reject | Fail) -> bool:
        request_id = command[0]
        if self.answers is not None and type(command) is Answer:
            self._speak(command, self._inside[request_id][0])
        del self._inside[request_id]
        if self._waiting:
            sources = self._sources
            sources[(request_id - 1) % len(sources)].closed(request_id)
            if self.contexts is not None:
                self.contexts.pop(request_id, None)
        return True

    # --- instances ----------------------------------------------------------------------------------

    def _make(self, agent: int) -> Replica:
        spec, number = self.agents[agent], self._started_instances
        self._started_instances += 1
        engine: Engine
        if spec.task is not None:
            servers = {model: self._seen_from(spec.region, i) for model, i in self._server_of.items()}
            engine = TaskEngine(
                self.environment, spec.concurrency, spec.task, servers, self._task_done,
                self._first_token, lambda: self.tools[agent],
            )  # fmt: skip
        elif spec.shared:
            engine = SharedEngine(
                self.environment, spec.concurrency, spec.slowdown, self._done, self._first_token
            )
        else:
            engine = FcfsEngine(self.environment, spec.concurrency, self._done)
        replica = self.replicas[number] = self._of_agent[agent][number] = Replica(number, agent, engine)
        return replica

    def _seen_from(self, region: int, i: int) -> Callee:
        """Return a model server, with the round trip to it from a region."""
        server, home = self.servers[i], self._served[i].region
        trip_s = 0.0 if home is None else self._round_trips[region][home]
        return Distant(self.environment, server, trip_s) if trip_s else server

    def _alive(self, agent: int) -> list[Replica]:
        return [each for each in self._of_agent[agent].values() if each.state <= _READY]

    def _scale(self, command: Scale) -> bool:
        if command.agent in self._due_back:
            self._wanted[command.agent] = command.want  # nothing starts before its region is back
            return True
        now_s = self.environment._now
        for number in command.victims:
            replica = self.replicas.get(number)
            if replica is None:
                continue  # it went away at this very moment
            if replica.state is _STARTING:
                self._leave(replica)
                continue
            replica.state = _DRAINING
            self._draining.add(number)
            place = len(self._todo)
            self._leave_if_empty(number)
            if len(self._todo) == place:
                self._todo.append(InstanceChanged(now_s, replica.agent, number, _DRAINING))
        for _ in range(command.want - len(self._alive(command.agent))):
            self._begin(self._make(command.agent))
        return True

    def _begin(self, replica: Replica) -> None:
        """Have an instance start; it is ready after its own draw of the start-up time."""
        now_s, spec = self.environment._now, self.agents[replica.agent]
        ready_s = now_s + self._startup_s(replica)
        for fault in self.troubles.get(replica.agent, ()):
            ready_s = now_s + (ready_s - now_s) * fault.delays()
        replica.state = _STARTING
        self._todo.append(
            InstanceChanged(now_s, replica.agent, replica.number, _STARTING, spec.region, ready_s)
        )
        self.environment.call_at(ready_s, self._ready, replica)

    def _startup_s(self, replica: Replica) -> float:
        """Return how long this instance takes to start: the n-th start of an agent is always the same."""
        agent, law = replica.agent, self.agents[replica.agent].startup
        if agent not in self._starts:
            generator = self._streams.generator("startup", agent) if law.random else None
            self._starts[agent] = one_by_one(law, generator)
        return next(self._starts[agent])

    def _ready(self, replica: Replica) -> None:
        if replica.state is _STARTING:
            replica.state = _READY
            spec = self.agents[replica.agent]
            now_s = self.environment._now
            if self.troubles:
                self.pace(replica.agent)
            self.tell(InstanceChanged(now_s, replica.agent, replica.number, _READY, spec.region))

    def _leave_if_empty(self, number: int) -> None:
        replica = self.replicas.get(number)
        if replica is None or number not in self._draining or len(replica.engine):
            return
        if not any(self._jobs[attempt].number == number for attempt in self._unserved):
            self._leave(replica)

    def _leave(self, replica: Replica) -> None:
        replica.state = _GONE
        self._draining.discard(replica.number)
        del self.replicas[replica.number], self._of_agent[replica.agent][replica.number]
        self._todo.append(InstanceChanged(self.environment._now, replica.agent, replica.number, _GONE))

    def _probe(self, command: Probe) -> bool:
        results = []
        for replica in self._alive(command.agent):
            if replica.state is not _READY:
                continue
            hidden = [fault.hides(replica) for fault in self.troubles.get(command.agent, ())]
            if None in hidden:
                return True  # the results are lost
            results.append((replica.number, not any(hidden)))
        now_s = self.environment.now
        lag_s = max((fault.lag_s() for fault in self.troubles.get(command.agent, ())), default=0.0)
        if lag_s:
            late = Probed(now_s + lag_s, command.agent, tuple(results))
            self.environment.call_at(late.t_s, self._probed_late, late)
        else:
            self._todo.append(Probed(now_s, command.agent, tuple(results)))
        return True

    def _probed_late(self, event: Probed) -> None:
        there = tuple((number, well) for number, well in event.results if number in self.replicas)
        self.tell(event._replace(results=there))

    # --- faults -------------------------------------------------------------------------------------

    def victims(self, agent: int, count: int) -> list[Replica]:
        """Return the first ``count`` ready instances of an agent, by number."""
        ready = [replica for replica in self._alive(agent) if replica.state == State.READY]
        return sorted(ready, key=lambda replica: replica.number)[:count]

    def jobs(self, replica: Replica) -> list[Job]:
        """Return the jobs that reached an instance, in the order in which they came."""
        return [job for job in self._jobs.values() if job.number == replica.number]

    def pace(self, agent: int) -> None:
        """Have the instances of an agent work at the speed that the active faults leave them."""
        if agent < 0:
            return  # a model server's
        troubles = self.troubles.get(agent, ())
        fails = 1.0 - prod(1.0 - fault.tools()[0] for fault in troubles)
        self.tools[agent] = (fails, prod(fault.tools()[1] for fault in troubles))
        for replica in self._of_agent[agent].values():
            slowdown = prod(fault.slows(replica) for fault in self.troubles.get(agent, ()))
            if slowdown != replica.slowdown:
                replica.slowdown = slowdown
                served = [job for job in self.jobs(replica) if job.attempt not in self._unserved]
                replica.engine.set_speed(1.0 / slowdown, served)

    def crash(self, *replicas: Replica) -> None:
        """Have instances fail now, all at once; what they were doing is lost."""
        failed: list[Event] = []
        lost: list[Event] = []
        for replica in replicas:
            lost += [self._end_early(job, Outcome.LOST) for job in reversed(self.jobs(replica))]
            replica.state = State.FAILED
            self._draining.discard(replica.number)
            del self.replicas[replica.number], self._of_agent[replica.agent][replica.number]
            failed.append(InstanceChanged(self.environment.now, replica.agent, replica.number, State.FAILED))
        for event in (*failed, *lost):
            self.tell(event)

    def come_back(self, agent: int) -> None:
        """Have a fresh instance start in the place of a crashed one; in a lost region, when that is back."""
        if agent in self._due_back:
            self._due_back[agent] += 1
            return
        self._begin(self._make(agent))
        self._tell_rest()

    def lose(self, region: int) -> None:
        """Have all instances of a region die at once, with its model servers; none can start there any more."""
        self._losses[region] = self._losses.get(region, 0) + 1
        if self._losses[region] > 1:
            return
        if self._front_door is not None:
            self._front_door.hear(self.environment, region, lost=True)
        dying: list[Replica] = []
        for agent in self._agents_in(region):
            self._due_back[agent] = len(self._alive(agent))
            dying += self._of_agent[agent].values()
        self.crash(*dying)
        for server in self._servers_in(region):
            server.take_down(range(len(server.replicas)))

    def restore(self, region: int) -> None:
        """Have a lost region back: as many instances start as there were, or as scalers have come to want."""
        self._losses[region] -= 1
        if self._losses[region]:
            return
        if self._front_door is not None:
            self._front_door.hear(self.environment, region, lost=False)
        for server in self._servers_in(region):
            server.bring_back(range(len(server.replicas)))
        for agent in self._agents_in(region):
            for _ in range(max(self._due_back.pop(agent), self._wanted.pop(agent, 0))):
                self._begin(self._make(agent))
        self._tell_rest()

    def _agents_in(self, region: int) -> list[int]:
        return [agent for agent, spec in enumerate(self.agents) if spec.region == region]

    def _servers_in(self, region: int) -> list[ModelServer]:
        return [self.servers[i] for i, each in enumerate(self._served) if each.region == region]
