"""Faults planted in drivers, in the control plane and in controllers: the checks must catch them.

Each fault runs in a small seeded world in which the honest driver, control plane and controllers break
nothing. It names the check that has to catch it:

- ``check``: the checker, over the journal alone; ``deep``: beside the world, comparing the books;
- ``replays``, ``restores``, ``repeats``, ``wakes``, ``ledger``: of a whole run;
- ``error``: the control plane itself refuses to go on.

What a faulty control plane is compared with in a replay is as faulty as it: only what differs from run to
run shows there. ``pytest -s`` prints the table of who caught what.
"""

from __future__ import annotations

import importlib.util
import random
from functools import cache
from itertools import count
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.balancing.round_robin import RoundRobin
from controllers.caching.lru import LruCache
from controllers.queueing.fifo import FifoQueue
from controllers.resilience.breaker import ConsecutiveBreaker
from glowsim.core import books
from glowsim.core.checker import Checker, check, ledger, repeats, replays, restores, wakes
from glowsim.core.control_plane import ControlPlane
from glowsim.core.errors import ControllerError, WorldError
from glowsim.core.types import (
    Abandoned,
    Answer,
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
    Reject,
    Scale,
    State,
    Usage,
    Woke,
)

_spec = importlib.util.spec_from_file_location(
    "planted_bench", Path(__file__).parent / "planted" / "bench.py"
)
bench = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bench)
Bench = bench.Bench

# --- drivers -----------------------------------------------------------------------------------------


class DropsFinished(Bench):
    def finished(self, event):
        if event.attempt % 10:
            super().finished(event)


class DoublesFinished(Bench):
    def finished(self, event):
        super().finished(event)
        if event.attempt % 10 == 0:
            super().finished(event)


class RunsBack(Bench):
    def finished(self, event):
        super().finished(event._replace(t_s=event.t_s - (event.attempt % 10 == 0)))


class WakesLate(Bench):
    def wake_s(self):
        return super().wake_s() + 0.5


class Reorders(Bench):
    def order(self, commands):
        return list(commands)[::-1]


class DropsDispatch(Bench):
    def start(self, command):
        return command.attempt % 10 == 0 or super().start(command)


class CancelsForGood(Bench):
    def cancel(self, attempt):
        return self.jobs.pop(attempt, None) is not None


class DrainsAnother(Bench):
    def victims(self, command):
        staying = [number for number, state in self.instances.items() if state == State.READY]
        others = [number for number in staying if number not in command.victims]
        return others[: len(command.victims)]


class DropsUsage(Bench):
    def finished(self, event):
        super().finished(event._replace(usage=Usage()) if event.attempt % 10 == 0 else event)


class DropsKeep(Bench):
    def do(self, command):
        return not isinstance(command, Keep) and super().do(command)


class Misprices(Bench):
    def account(self, event):
        usage = event.usage
        super().account(event._replace(usage=usage._replace(tokens_cached=0)))


class ForgetsEffects(Bench):
    def effect(self, number, status):
        if number % 10:
            super().effect(number, status)
        else:
            self.journal.defer(self.now_s, number)


class DoublesEffects(Bench):
    def effect(self, number, status):
        super().effect(number, status)
        if number % 10 == 0:
            super().effect(number, Effect.DONE)


# --- control planes ------------------------------------------------------------------------------------


class Answering(ControlPlane):
    """Looks at every event and at the commands, and gives others."""

    def handle(self, event):
        out = list(super().handle(event))
        self.spoil(event, out)
        return tuple(out)

    def each(self, n):
        self.turn = getattr(self, "turn", 0) + 1
        return self.turn % n == 0


class LeaksSlots(Answering):
    def spoil(self, event, out):
        if isinstance(event, Finished) and self.each(20):
            pool = self.pools[0]
            instance = next(each for each in pool.instances.values() if each.state == State.READY)
            instance.in_flight += 1
            pool.eligible.refresh(instance)


class OverfillsSlots(Answering):
    def spoil(self, event, out):
        if isinstance(event, InstanceChanged):
            for instance in self.pools[0].instances.values():
                instance.cap = instance.slots + 1


class FeedsTheDraining(Answering):
    def spoil(self, event, out):
        for instance in self.pools[0].instances.values():
            if instance.state == State.DRAINING:
                instance.state = State.READY
                self.pools[0].eligible.refresh(instance)


class LosesAJoiner(ControlPlane):
    def handle(self, event):
        if isinstance(event, Finished):
            for opened in self._open.values():
                if opened.followers:
                    opened.followers.pop()
        return super().handle(event)


class KeepsALeaver(ControlPlane):
    def handle(self, event):
        gone = self._open.get(event.request_id) if isinstance(event, Abandoned) else None
        leader = None if gone is None else gone.leader
        out = super().handle(event)
        if leader is not None:
            leader.followers.append(gone)
        return out


class AnswersTwice(Answering):
    def spoil(self, event, out):
        mine = [each for each in out if isinstance(each, Answer)]
        if mine and self.each(10):
            out.append(mine[0])


class AnswersTheRejected(Answering):
    def spoil(self, event, out):
        for each in out[:]:
            if isinstance(each, Reject):
                out.append(Answer(each.request_id, self._books.last_attempt, Reason(Code.OWN)))


class RetriesStreams(ControlPlane):
    def handle(self, event):
        return super().handle(Woke(event.t_s) if isinstance(event, FirstToken) else event)


class LetsThemRun(Answering):
    def spoil(self, event, out):
        out[:] = [each for each in out if not isinstance(each, Cancel)]


class LosesTimers(ControlPlane):
    """Timers of one kind are never fired, for the numbers that it picks."""

    kind, every = books.TIMEOUT, 2

    def __init__(self, pools, notes=None):
        super().__init__(pools, notes)
        matters = self.timers.alive[self.kind]
        self.timers.alive[self.kind] = lambda number: number % self.every != 0 and matters(number)


class KeepsLeases(LosesTimers):
    kind, every = books.LEASE, 1


class SleepsThroughScaling(ControlPlane):
    def next_wake_s(self):
        super().next_wake_s()
        lanes = self.timers.snapshot()
        return min(
            (due for _, _, lane in lanes for due, kind, _ in lane if kind != books.SCALER), default=inf
        )


class SendsTheBusiest(Answering):
    def spoil(self, event, out):
        pool = self.pools[0]
        for i, each in enumerate(out):
            if isinstance(each, Scale) and each.victims:
                for number in each.victims:
                    pool.instances[number].state = State.READY
                    pool.eligible.refresh(pool.instances[number])
                ready = [one for one in pool.instances.values() if one.state == State.READY]
                ready.sort(key=lambda one: -one.in_flight)
                for one in ready[: len(each.victims)]:
                    one.state = State.DRAINING
                    pool.eligible.refresh(one)
                out[i] = each._replace(victims=tuple(one.number for one in ready[: len(each.victims)]))


class Escalating(Answering):
    """Spoils every fifth escalation."""

    def spoil(self, event, out):
        for i, each in enumerate(out):
            if isinstance(each, Keep) and self.each(5):
                self.escalated(each, out, i)
                return


class ForgetsEscalatedSlots(Escalating):
    def escalated(self, keep, out, i):
        pool = self.pools[0]
        instance = pool.instances[next(iter(pool.instances))]
        instance.in_flight += 1
        pool.eligible.refresh(instance)


class ForgetsTooEarly(Escalating):
    def escalated(self, keep, out, i):
        out.insert(i + 1, Forget(keep.source))


class LosesEscalations(Escalating):
    def escalated(self, keep, out, i):
        out[:] = [
            each for each in out if not (isinstance(each, Dispatch) and each.reason.code == Code.ESCALATED)
        ]


class NeverForgets(Answering):
    def spoil(self, event, out):
        out[:] = [each for each in out if not isinstance(each, Forget)]


class EscalatesWithoutKeeping(Escalating):
    def escalated(self, keep, out, i):
        del out[i]


class NumbersAgain(Answering):
    def spoil(self, event, out):
        mine = [each for each in out if isinstance(each, Dispatch)]
        if mine and self.each(20):
            out.append(mine[0])


# --- controllers ---------------------------------------------------------------------------------------


class StaysShut(ConsecutiveBreaker):
    def __init__(self):
        super().__init__(failures=2, open_s=2.0, longest_open_s=4.0)

    def wake(self, t_s, instance):
        return None


class ReadsAClock(RoundRobin):
    """A clock that every process starts elsewhere."""

    started = count()

    def __init__(self):
        super().__init__()
        self.clock = count(next(self.started))

    def pick(self, t_s, request, allowed):
        return allowed[next(self.clock) % len(allowed)]


class HasItsOwnHash(RoundRobin):
    """As `hash` of a string does: the same within a process, another in the next."""

    def __init__(self):
        super().__init__()
        self.salt = random.random()

    def pick(self, t_s, request, allowed):
        return allowed[random.Random(f"{self.salt}/{request.request_id}").randrange(len(allowed))]


class Overspends(bench.Bucket):
    def admit(self, t_s, request):
        wait_s = super().admit(t_s, request)
        return wait_s if request.request_id % 5 else 0.0


class LosesRequests(FifoQueue):
    def push(self, t_s, request):
        return super().push(t_s, request) if request.request_id % 7 else 0

    def remove(self, t_s, request):
        self._waiting.pop(request.request_id, None)


class LosesAndCovers(LosesRequests):
    """Loses a request and says that it is there, so that nobody stumbles."""

    state = (*FifoQueue.state, "lost")

    def __init__(self):
        super().__init__(limit=8)
        self.lost = 0

    def push(self, t_s, request):
        self.lost += request.request_id % 7 == 0
        return super().push(t_s, request)

    def __len__(self):
        return super().__len__() + self.lost


class DoublesRequests(FifoQueue):
    def pop(self, t_s):
        number = super().pop(t_s)
        if number % 7 == 0:
            self._waiting[number] = None
        return number


class ForgetsItsTurn(RoundRobin):
    state = ()


class Wanders(bench.Sticky):
    state = (*bench.Sticky.state, "picks")

    def __init__(self):
        super().__init__()
        self.picks = 0

    def pick(self, t_s, request, allowed):
        self.picks += 1
        if self.picks % 10 == 0:
            self.homes.pop(request.session, None)
        return super().pick(t_s, request, allowed)


class AnswersFromTheGone(LruCache):
    state = (*LruCache.state, "ever")

    def __init__(self):
        super().__init__(entries=3, ttl_s=1.0)
        self.ever = {}

    def get(self, t_s, key):
        return super().get(t_s, key) or (self.ever.get(key, 0) if t_s > 20.0 else 0)

    def put(self, t_s, key, source, usage):
        self.ever[key] = source
        return super().put(t_s, key, source, usage)


# --- the table -----------------------------------------------------------------------------------------


class Fault(NamedTuple):
    name: str
    setup: str
    caught_by: str
    invariant: str
    driver: type = Bench
    plane: type = ControlPlane
    controllers: MappingProxyType = MappingProxyType({})


FAULTS = [
    Fault("a Finished is dropped", "plain", "check", "I14", DropsFinished),
    Fault("a Finished is doubled", "plain", "error", "", DoublesFinished),
    Fault("time runs back", "plain", "error", "", RunsBack),
    Fault("timers are told late", "plain", "wakes", "I2", WakesLate),
    Fault("commands are reordered", "plain", "replays", "I9", Reorders),
    Fault("a Dispatch is dropped", "plain", "check", "I14", DropsDispatch),
    Fault("a cancelled attempt is never finished", "plain", "check", "I14", CancelsForGood),
    Fault("another instance is drained", "scaling", "check", "I14", DrainsAnother),
    Fault("usage is dropped", "plain", "check", "I7", DropsUsage),
    Fault("the price is wrong", "plain", "ledger", "I7", Misprices),
    Fault("effects are missing", "plain", "check", "I14", ForgetsEffects),
    Fault("effects are doubled", "plain", "check", "I14", DoublesEffects),
    Fault("slots leak", "plain", "check", "I4", plane=LeaksSlots),
    Fault("an instance gets more than its slots", "plain", "check", "I5", plane=OverfillsSlots),
    Fault("a draining instance gets work", "scaling", "check", "I6", plane=FeedsTheDraining),
    Fault("a joiner is lost", "caching", "check", "I4", plane=LosesAJoiner),
    Fault("a follower that left stays", "caching", "error", "", plane=KeepsALeaver),
    Fault("a request is answered twice", "plain", "check", "I1", plane=AnswersTwice),
    Fault("a rejected request is answered", "plain", "check", "I1", plane=AnswersTheRejected),
    Fault("a stream is tried again", "streaming", "check", "I3", plane=RetriesStreams),
    Fault("an attempt runs for nobody", "plain", "check", "I3", plane=LetsThemRun),
    Fault("an attempt's number is given twice", "plain", "check", "I3", plane=NumbersAgain),
    Fault("a timer is lost", "lingering", "check", "I1", plane=LosesTimers),
    Fault("leases never run out", "lingering", "check", "I4", plane=KeepsLeases),
    Fault("the scaler is woken late", "scaling", "deep", "I2", plane=SleepsThroughScaling),
    Fault("the wrong victim goes", "scaling", "check", "I11", plane=SendsTheBusiest),
    Fault("a breaker never asks again", "breaking", "deep", "I4", controllers={"breaker": StaysShut}),
    Fault("a clock is read", "plain", "replays", "I9", controllers={"balancer": ReadsAClock}),
    Fault("hash order decides", "plain", "repeats", "I8", controllers={"balancer": HasItsOwnHash}),
    Fault(
        "the limiter overspends", "limiting", "check", "I10",
        controllers={"limiter": Overspends},
    ),
    Fault("the queue loses requests", "plain", "check", "I4", controllers={"queue": lambda: LosesRequests(limit=8)}),
    Fault("the queue hides what it lost", "plain", "check", "I4", controllers={"queue": LosesAndCovers}),
    Fault(
        "the queue doubles requests", "plain", "error", "", controllers={"queue": lambda: DoublesRequests(limit=8)},
    ),
    Fault("the queue is overfilled", "plain", "check", "I10", controllers={"queue": lambda: FifoQueue(limit=50)}),
    Fault(
        "the cooldown is ignored", "scaling", "check", "I11",
        controllers={"scaler": lambda: bench.Sizer(cooldown_s=0.0)},
    ),
    Fault("more than the maximum", "scaling", "check", "I11", controllers={"scaler": lambda: bench.Sizer(most=8)}),
    Fault("fewer than the minimum", "scaling", "check", "I11", controllers={"scaler": lambda: bench.Sizer(least=1)}),
    Fault("a snapshot forgets", "plain", "restores", "I13", controllers={"balancer": ForgetsItsTurn}),
    Fault("sessions wander", "staying", "check", "I12", controllers={"balancer": Wanders}),
    Fault("a Keep is dropped", "escalating", "check", "I14", DropsKeep),
    Fault("an escalated answer is not kept", "escalating", "check", "I1", plane=EscalatesWithoutKeeping),
    Fault("a kept answer is forgotten too early", "escalating", "check", "I14", plane=ForgetsTooEarly),
    Fault("a kept answer is never forgotten", "escalating", "check", "I10", plane=NeverForgets),
    Fault("an escalation does not release its slot", "escalating", "check", "I4", plane=ForgetsEscalatedSlots),
    Fault("an escalation is lost", "escalating", "check", "I14", plane=LosesEscalations),
    Fault("what was forgotten is answered", "caching", "check", "I14", controllers={"cache": AnswersFromTheGone}),
]  # fmt: skip
SEED = 1


def found(fault, seed=SEED):
    """Return what each check found: its name -> the invariants that it saw broken."""
    setup = bench.SETUPS[fault.setup]

    def plane():
        return bench.make_plane(setup, fault.plane, **fault.controllers)

    def run():
        world = fault.driver(setup, plane(), seed)
        try:
            return world, world.run(), []
        except (ControllerError, WorldError) as error:
            return world, world.journal.recording(), [type(error).__name__]

    world, recording, errors = run()
    seen = {"check": check(recording, bench.facts_of(setup)), "deep": world.checker.violations}
    if not errors:
        seen["ledger"] = ledger(recording, bench.PRICES, {0: world.billed_usd})
        seen["repeats"] = repeats(recording, run()[1])
        seen["replays"] = replays(recording, plane)
        if not seen["replays"]:
            seen["wakes"] = wakes(recording, plane)
            seen["restores"] = [
                each for k in range(1, 6) for each in restores(recording, plane, len(recording) * k // 6)
            ]
    invariants = {name: {each.invariant for each in violations} for name, violations in seen.items()}
    return {name: each for name, each in invariants.items() if each} | ({"error": {""}} if errors else {})


@cache
def catch(number):
    return found(FAULTS[number])


@pytest.mark.parametrize("name", bench.SETUPS)
@pytest.mark.parametrize("seed", [SEED, 2])
def test_the_honest_worlds_break_nothing(name, seed):
    assert found(Fault("none", name, "", ""), seed) == {}


@pytest.mark.parametrize("number", range(len(FAULTS)), ids=[each.name for each in FAULTS])
def test_a_fault_is_caught_by_the_check_that_is_there_for_it(number):
    fault = FAULTS[number]
    assert fault.invariant in catch(number).get(fault.caught_by, set())


def test_of_thirty_faults_at_least_27_are_caught():
    caught = [number for number in range(len(FAULTS)) if catch(number)]
    for number, fault in enumerate(FAULTS):
        by = ", ".join(f"{name} {' '.join(sorted(each))}" for name, each in sorted(catch(number).items()))
        print(f"{fault.name:40} {by or 'nobody'}")
    assert len(FAULTS) >= 30
    assert 30 * len(caught) >= 27 * len(FAULTS)
    kinds = {fault.caught_by for fault in FAULTS}
    assert kinds == {"check", "deep", "replays", "restores", "repeats", "wakes", "ledger", "error"}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(bench.SETUPS)),
    seed=st.integers(0, 10_000),
    driver=st.sampled_from([Bench, WakesLate]),
    rough=st.fixed_dictionaries(
        {
            "instances": st.integers(1, 4),
            "rates": st.floats(0.5, 15.0).map(lambda rate: ((0.0, rate),)),
            "service_s": st.floats(0.2, 4.0),
            "error": st.floats(0.0, 0.6),
            "hang": st.floats(0.0, 0.3),
            "linger_s": st.floats(0.0, 9.0),
            "leave": st.floats(0.0, 0.4),
        }
    ),
)
def test_no_honest_world_is_accused_not_even_one_whose_timers_are_late(name, seed, driver, rough):
    """A live loop's timers are late: when they were due cannot be told from the journal."""
    setup = bench.SETUPS[name]._replace(requests=60, **rough)
    late_s = 0.0 if driver is Bench else 0.6
    world = driver(setup, bench.make_plane(setup), seed)
    world.checker = Checker(bench.facts_of(setup), late_s)
    recording = world.run()
    assert check(recording, bench.facts_of(setup)) == []
    assert world.checker.violations == []
    assert wakes(recording, lambda: bench.make_plane(setup), late_s) == []


def test_the_worlds_are_hard_ones():
    """Without a full queue, a retry, a cancel, a join or a drain, a check that sees nothing proves nothing."""
    seen = set()
    for name, setup in bench.SETUPS.items():
        recording = Bench(setup, bench.make_plane(setup), SEED).run()
        for record in recording.records():
            reason = getattr(record, "reason", None)
            seen.add((name, type(record).__name__, reason.code.name if reason else ""))
            if isinstance(record, Finished):
                seen.add((name, Outcome(record.outcome).name, ""))
    assert {
        ("plain", "Reject", "QUEUE_FULL"), ("plain", "Dispatch", "RETRIED"), ("plain", "Cancel", "CLIENT_GONE"),
        ("plain", "Fail", "TIMED_OUT"), ("lingering", "CANCELLED", ""), ("streaming", "Fail", "BROKEN_STREAM"),
        ("scaling", "Scale", "LOAD_HIGH"), ("scaling", "Scale", "LOAD_LOW"), ("caching", "Answer", "JOINED"),
        ("caching", "Answer", "CACHED"), ("caching", "Dispatch", "PROMOTED"), ("limiting", "Reject", "LIMITED"),
        ("breaking", "Dispatch", "QUEUED"), ("staying", "Dispatch", "QUEUED"),
        ("escalating", "Dispatch", "ESCALATED"), ("escalating", "Answer", "DOUBTFUL"),
    } <= seen  # fmt: skip
