"""A small honest driver and the set-ups in which faults are planted: a heap, no SimPy, no asyncio.

Everything random is a function of (seed, request, attempt), so a fault changes what it touches and no more.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import count
from math import fsum, inf, nan
from random import Random
from typing import NamedTuple

from controllers.balancing.round_robin import RoundRobin
from controllers.caching.lru import LruCache
from controllers.queueing.fifo import FifoQueue
from controllers.resilience.backoff import BackoffRetrier
from controllers.resilience.breaker import ConsecutiveBreaker
from controllers.routing.cheap_first import CheapFirst
from glowsim.core.checker import Checker, Facts
from glowsim.core.control_plane import ControlPlane
from glowsim.core.journal import Effected, Journal
from glowsim.core.pool import Controllers, PoolSpec
from glowsim.core.price import Price
from glowsim.core.protocols import Wanted
from glowsim.core.snapshot import Stateful
from glowsim.core.streams import Stream
from glowsim.core.types import (
    Abandoned,
    Answer,
    Arrived,
    Ask,
    Cancel,
    Code,
    Dispatch,
    Effect,
    Finished,
    FirstToken,
    Forget,
    InstanceChanged,
    Keep,
    Outcome,
    Reason,
    Request,
    Scale,
    State,
    Usage,
    Woke,
)

PRICES = {0: Price(1e-6, 0.5e-6, 4e-6), 1: Price(5e-6, 2.5e-6, 20e-6)}
SPEC = {
    "agent": 0, "slots": 2, "concurrency": 2, "models": (0,), "timeout_s": 10.0, "first_token_timeout_s": inf,
    "cancel_grace_s": 5.0, "hold_limit": 5, "follower_limit": 20, "memory": 20,
}  # fmt: skip


class Sticky(Stateful):
    """Balancer: a session stays where it was while there is room; else, the emptiest."""

    state = ("homes",)

    def __init__(self):
        self.homes = {}

    def pick(self, t_s, request, allowed):
        home = self.homes.get(request.session)
        for each in allowed:
            if each.number == home:
                return each
        chosen = min(allowed, key=lambda each: (each.in_flight, each.number))
        self.homes[request.session] = chosen.number
        return chosen

    def reported(self, t_s, reported):
        pass


class Bucket(Stateful):
    """Limiter: so many at once, and a rate in the long run."""

    state = ("held", "at_s")

    def __init__(self, rate_per_s=3.0, burst=4.0):
        self.rate_per_s, self.burst = rate_per_s, burst
        self.held, self.at_s = burst, 0.0

    def admit(self, t_s, request):
        self.held = min(self.burst, self.held + (t_s - self.at_s) * self.rate_per_s)
        self.at_s = t_s
        if self.held < 1.0:
            return (1.0 - self.held) / self.rate_per_s
        self.held -= 1.0
        return 0.0

    def settle(self, t_s, request, usage):
        pass


class Sizer(Stateful):
    """Scaler: an instance for every two requests in the system, within limits and after cooldowns."""

    state = ("changed_s",)

    def __init__(self, least=2, most=6, cooldown_s=6.0):
        self.least, self.most, self.cooldown_s = least, most, cooldown_s
        self.changed_s = -inf

    def decide(self, t_s, load):
        have = load.ready + load.starting
        want = max(self.least, min(self.most, (load.in_flight + load.queued + 1) // 2))
        if t_s - self.changed_s < self.cooldown_s:
            want = have
        if want != have:
            self.changed_s = t_s
        code = Code.LOAD_HIGH if want > have else Code.LOAD_LOW
        idle = want == have == self.least and not load.in_flight + load.queued
        return Wanted(want, Reason(code, c=want), inf if idle else t_s + 2.0)


class Setup(NamedTuple):
    """A world to plant faults in: how busy, how rough, and with which controllers."""

    controllers: dict
    known: dict
    """Facts beside those that the pool says itself."""
    instances: int = 3
    rates: tuple = ((0.0, 4.0), (20.0, 7.0), (30.0, 3.0))
    """(from, requests a second)."""
    requests: int = 250
    service_s: float = 1.0
    error: float = 0.1
    hang: float = 0.05
    """Share of attempts that end only when cancelled, ``linger_s`` later."""
    linger_s: float = 0.0
    leave: float = 0.05
    """Share of clients who go away."""
    stream: bool = False
    cache_keys: int = 0
    sessions: int = 0


def _plain(**more):
    return {
        "queue": lambda: FifoQueue(limit=8),
        "balancer": RoundRobin,
        "retrier": lambda: BackoffRetrier(Stream(5), attempts=3),
    } | more


SETUPS = {
    "plain": Setup(_plain(), {"queue_limit": 8}),
    "lingering": Setup(_plain(), {"queue_limit": 8}, hang=0.2, linger_s=8.0),
    "streaming": Setup(_plain(), {"queue_limit": 8}, stream=True, error=0.3),
    "breaking": Setup(
        _plain(breaker=lambda: ConsecutiveBreaker(failures=2, open_s=2.0, longest_open_s=4.0)),
        {"queue_limit": 8, "gate_s": 4.0 + 15.0}, error=0.4, requests=300, rates=((0.0, 3.0),),
    ),
    "scaling": Setup(
        _plain(scaler=Sizer),
        {"queue_limit": 8, "min_instances": 2, "max_instances": 6, "cooldown_up_s": 6.0, "cooldown_down_s": 6.0},
        rates=((0.0, 2.0), (15.0, 12.0), (28.0, 1.0)), hang=0.0, service_s=1.5,
    ),
    "caching": Setup(
        _plain(cache=lambda: LruCache(entries=3, ttl_s=1.0)), {"queue_limit": 8}, cache_keys=4, hang=0.0,
        service_s=1.5, leave=0.15,
    ),
    "limiting": Setup(
        _plain(limiter=Bucket),
        {"queue_limit": 8, "rate_per_s": 3.0, "burst": 4.0},
    ),
    "escalating": Setup(
        _plain(planner=lambda: CheapFirst(("small", "large"), cheap="small", strong="large", threshold=0.4)),
        {"queue_limit": 8}, error=0.2,
    ),
    "staying": Setup(
        _plain(balancer=Sticky), {"queue_limit": 8, "affinity": True}, sessions=12, service_s=0.5,
    ),
}  # fmt: skip


def make_plane(setup, kind=ControlPlane, **instead):
    """Return a fresh control plane, of a faulty kind or with other controllers where asked."""
    made = {family: make() for family, make in (setup.controllers | instead).items()}
    return kind([(PoolSpec(**SPEC), Controllers(**made))])


def facts_of(setup):
    pool = make_plane(setup).pools[0]
    return [Facts.of(pool.spec, pool.controllers, **setup.known)]


class Bench:
    """Drives a control plane through a set-up, writes the journal, and has the checker look at the books."""

    def __init__(self, setup, plane, seed):
        self.setup, self.plane, self.seed = setup, plane, seed
        self.journal = Journal({"seed": seed})
        self.checker = Checker(facts_of(setup))
        self.now_s = 0.0
        self.jobs = {}
        self.models = {}
        self.fresh = 0
        self.contents = set()
        self.instances = {}
        self.bill_usd = []
        self.tries = {}
        self.todo = deque()
        self.later = []
        self.turn = count()
        self.said = 0

    def run(self):
        """Run until nothing is left to happen, forty seconds after the last arrival at most."""
        for number in range(self.setup.instances):
            self.instances[number] = State.READY
            self.tell(InstanceChanged(0.0, 0, number, State.READY))
        last_s = self._invite()
        while True:
            due_s = self.later[0][0] if self.later else inf
            wake_s = self.wake_s()
            self.now_s = min(due_s, wake_s)
            if self.now_s > last_s + 40.0:
                break
            if wake_s <= due_s:
                self.tell(Woke(wake_s))
            else:
                heappop(self.later)[2]()
        self.journal.settle(last_s + 40.0)
        return self.journal.recording()

    def wake_s(self):
        return self.plane.next_wake_s()

    def at(self, t_s, what):
        heappush(self.later, (t_s, next(self.turn), what))

    def luck(self, *name):
        return Random(f"{self.seed}/{name}")

    def _invite(self):
        setup, luck, t_s = self.setup, self.luck("arrivals"), 0.0
        for number in range(1, setup.requests + 1):
            rate = [rate for from_s, rate in setup.rates if from_s <= t_s][-1]
            t_s += luck.expovariate(rate)
            request = Request(
                number, 0, luck.randrange(100, 2000), 400, stream=setup.stream,
                cache_key=luck.randrange(1, setup.cache_keys + 1) if setup.cache_keys else 0,
                session=luck.randrange(1, setup.sessions + 1) if setup.sessions else 0,
            )  # fmt: skip
            self.at(t_s, lambda request=request: self.tell(Arrived(self.now_s, request)))
            if luck.random() < setup.leave:
                leaves_s = t_s + luck.uniform(0.0, 2.0)
                self.at(leaves_s, lambda number=number: self.tell(Abandoned(self.now_s, number)))
        return t_s

    # --- telling and doing ----------------------------------------------------------------------------

    def tell(self, event):
        self.journal.event(event)
        self.checker.event(event)
        self.fresh = event.attempt if isinstance(event, Finished) else 0
        for command in self.order(self.plane.handle(event)):
            number = self.journal.command(command)
            self.checker.command(command, number)
            self.effect(number, Effect.DONE if self.do(command) else Effect.REFUSED)
        if isinstance(event, Finished):
            self.account(event)
        self.said += 1
        if self.said % 3 == 0:
            self.checker.deep(self.plane)
        while self.todo:
            self.tell(self.todo.popleft())

    def order(self, commands):
        return commands

    def effect(self, number, status):
        self.journal.effect(self.now_s, number, status)
        self.checker.effect(Effected(self.now_s, number, 1, status))

    def account(self, event):
        _, attempt, _, (tokens_in, tokens_cached, tokens_out, *_), _ = event
        price = PRICES[self.models[attempt]]
        self.bill_usd += [
            (tokens_in - tokens_cached) * price.input_usd,
            tokens_cached * price.cached_usd,
            tokens_out * price.output_usd,
        ]

    @property
    def billed_usd(self):
        return fsum(self.bill_usd)

    def do(self, command):
        match command:
            case Dispatch():
                return self.start(command)
            case Cancel(attempt):
                return self.cancel(attempt)
            case Scale():
                return self.scale(command)
            case Ask():
                return False
            case Keep(source):
                return self.keep(source)
            case Answer(_, source, _, keep):
                there = source in (0, self.fresh) or source in self.contents
                return there and (not keep or self.keep(source))
            case Forget(source):
                self.contents.discard(source)
        return True

    def keep(self, source):
        self.contents.add(source)
        return True

    # --- attempts -------------------------------------------------------------------------------------

    def start(self, command):
        attempt, request_id, number, plan, _ = command
        setup = self.setup
        tries = self.tries[request_id] = self.tries.get(request_id, 0) + 1
        luck = self.luck("attempt", request_id, tries)
        takes_s = luck.expovariate(1.0 / setup.service_s)
        outcome = Outcome.ERROR if luck.random() < setup.error else Outcome.OK
        cached = plan.tokens_in // 2 if luck.random() < 0.3 else 0
        score = self.luck("score", request_id, tries).random()
        usage = Usage(
            plan.tokens_in, cached, luck.randrange(1, 300) if outcome == Outcome.OK else 0, score=score
        )
        self.jobs[attempt] = (number, usage)
        self.models[attempt] = plan.model
        if setup.stream and luck.random() < 0.7:
            self.at(self.now_s + 0.4 * takes_s, lambda: self.first_token(attempt))
        if luck.random() >= setup.hang:
            self.at(self.now_s + takes_s, lambda: self.finish(attempt, outcome))
        return True

    def first_token(self, attempt):
        if attempt in self.jobs:
            self.tell(FirstToken(self.now_s, attempt))

    def finish(self, attempt, outcome):
        job = self.jobs.pop(attempt, None)
        if job is not None:
            number, usage = job
            if outcome == Outcome.CANCELLED:
                usage = usage._replace(tokens_out=0)
            if self.instances[number] == State.DRAINING:
                self.leave_if_empty(number)
            self.finished(Finished(self.now_s, attempt, outcome, usage))

    def finished(self, event):
        self.tell(event)

    def cancel(self, attempt):
        if attempt not in self.jobs:
            return False
        self.at(self.now_s + self.setup.linger_s, lambda: self.finish(attempt, Outcome.CANCELLED))
        return True

    # --- instances ------------------------------------------------------------------------------------

    def scale(self, command):
        for number in self.victims(command):
            self.instances[number] = State.DRAINING
            self.todo.append(InstanceChanged(self.now_s, 0, number, State.DRAINING))
            self.leave_if_empty(number)
        staying = [state for state in self.instances.values() if state < State.DRAINING]
        for _ in range(command.want - len(staying)):
            number = len(self.instances)
            self.instances[number] = State.STARTING
            self.todo.append(InstanceChanged(self.now_s, 0, number, State.STARTING, 0, self.now_s + 2.0))
            self.at(self.now_s + 2.0, lambda number=number: self.ready(number))
        return True

    def victims(self, command):
        return command.victims

    def ready(self, number):
        if self.instances[number] == State.STARTING:
            self.instances[number] = State.READY
            self.tell(InstanceChanged(self.now_s, 0, number, State.READY, 0, nan))

    def leave_if_empty(self, number):
        if not any(where == number for where, _ in self.jobs.values()):
            self.instances[number] = State.GONE
            self.todo.append(InstanceChanged(self.now_s, 0, number, State.GONE))
