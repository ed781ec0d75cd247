"""Random conversations that keep the rules: the invariants hold, and a crash at any prefix shows nowhere."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glowsim.core.types import (
    Abandoned,
    Arrived,
    Ask,
    Change,
    Changed,
    ChangeKind,
    Dispatch,
    Finished,
    FirstToken,
    InstanceChanged,
    Observed,
    Outcome,
    Probed,
    Request,
    Scale,
    State,
    Status,
    Told,
    Usage,
    Woke,
)

GAPS_S = (0.0, 0.0, 0.0, 0.1, 0.1, 0.5, 1.0, 3.0, 9.0)
KINDS = (
    *6 * ("arrive",), *4 * ("finish",), *2 * ("fail",), "stream", *2 * ("leave",), *3 * ("tell",),
    *3 * ("instance",), "crash", "observe", "order", "wake", "probe",
)  # fmt: skip
TWO_READY = [(0.0, "instance", number) for number in (0, 0, 1, 1)]
STEP = st.tuples(st.sampled_from(GAPS_S), st.sampled_from(KINDS), st.integers(0, 999))
STEPS = st.lists(STEP, min_size=40, max_size=90).map(lambda steps: TWO_READY + steps)
FAILURES = (Outcome.ERROR, Outcome.UNREACHABLE, Outcome.THROTTLED, Outcome.INVALID, Outcome.LOST)


def quick(examples):
    return settings(
        deadline=None, derandomize=True, max_examples=examples, suppress_health_check=[HealthCheck.too_slow]
    )


class World:
    """Turns steps into events that keep the rules of the conversation."""

    def __init__(self):
        self.t_s = 0.0
        self.requests = 0
        self.attempts = []
        self.instances = {}
        self.asked = []

    def event(self, step):
        """Return the event that a step means now, or None if it means nothing."""
        gap_s, kind, pick = step
        self.t_s += gap_s
        t_s = self.t_s
        match kind:
            case "arrive":
                self.requests += 1
                return Arrived(
                    t_s,
                    Request(
                        self.requests,
                        agent=0,
                        tokens_in=100 + 60 * (pick % 17),
                        max_tokens_out=100,
                        priority=pick % 3,
                        stream=pick % 2 == 0,
                        deadline_s=t_s + 4.0 if pick % 7 == 0 else float("inf"),
                        user=pick % 5,
                        cache_key=pick % 4,
                        idempotency_key=pick % 6 if pick % 3 == 0 else 0,
                        payload=pick % 2,
                    ),
                )
            case "finish" | "fail" if self.attempts:
                attempt = self.attempts.pop(pick % len(self.attempts))
                outcome = Outcome.OK if kind == "finish" else FAILURES[pick % len(FAILURES)]
                return Finished(t_s, attempt, outcome, Usage(100, 0, pick))
            case "stream" if self.attempts:
                return FirstToken(t_s, self.attempts[pick % len(self.attempts)])
            case "leave" if self.requests:
                return Abandoned(t_s, 1 + pick % self.requests)
            case "tell" if self.asked:
                return Told(
                    t_s, self.asked.pop(pick % len(self.asked)), Status(int(pick % 8 == 0)), 2.0 + pick % 5
                )
            case "instance":
                number = pick % 4
                state = self.instances.get(number)
                after = {None: State.STARTING, State.STARTING: State.READY, State.DRAINING: State.GONE}
                return self._changed(number, after.get(state, State.READY))
            case "crash" if self.instances:
                return self._changed(sorted(self.instances)[pick % len(self.instances)], State.FAILED)
            case "observe":
                return Observed(t_s, 1, 0, pick % 2, 1, 0.5, "thumb", 1.0 - (pick % 9 == 0) * 2.0)
            case "order":
                return Changed(t_s, Change(ChangeKind(pick % 4), 0, 1.0 + pick % 3))
            case "probe":
                return Probed(t_s, 0, tuple((number, pick % 2 == 0) for number in range(3)))
        return Woke(t_s)

    def _changed(self, number, state):
        self.instances[number] = state
        if state >= State.GONE:
            del self.instances[number]
        return InstanceChanged(self.t_s, 0, number, state)

    def carry_out(self, commands):
        for command in commands:
            if type(command) is Dispatch:
                self.attempts.append(command.attempt)
            elif type(command) is Ask:
                self.asked.append(command.ask_id)
            elif type(command) is Scale:
                for victim in command.victims:
                    if victim in self.instances:  # else it went away just as the order was given
                        self.instances[victim] = State.DRAINING


def everything(tiny):
    return {
        "slots": 2,
        "concurrency": 2,
        "timeout_s": 20.0,
        "first_token_timeout_s": 2.0,
        "cancel_grace_s": 3.0,
        "hold_limit": 3,
        "follower_limit": 2,
        "memory": 3,
        "probe_every_s": 50.0,
        "queue": lambda: tiny.Urgent(limit=4),
        "guard": tiny.Sized,
        "limiter": lambda: tiny.Leased(amount=3.0, timeout_s=4.0, admit_unknown=True),
        "splitter": lambda: tiny.Halves(first_s=5.0),
        "cache": tiny.Keeper,
        "planner": tiny.Capped,
        "breaker": tiny.Fuse,
        "retrier": tiny.Again,
        "scaler": lambda: tiny.Sizing(least=2),
        "detectors": [lambda: tiny.Above("latency_s", 5.0), lambda: tiny.Above("thumb", 0.5)],
    }


def play(plane, steps, world, witness=None):
    said = []
    for step in steps:
        event = world.event(step)
        commands = list(plane.handle(event))
        world.carry_out(commands)
        if witness is not None:
            witness.saw(event, commands)
        said.append((event, commands))
    return said


@quick(150)
@given(steps=STEPS)
def test_the_invariants_hold_after_every_event(tiny, steps):
    plane = tiny.build(**everything(tiny))
    play(plane, steps, World(), tiny.Witness(plane))


@quick(100)
@given(steps=STEPS)
def test_the_invariants_hold_without_limits_cache_and_retries(tiny, steps):
    plane = tiny.build(slots=3, timeout_s=20.0, cancel_grace_s=3.0, scaler=lambda: tiny.Sizing(least=1))
    play(plane, steps, World(), tiny.Witness(plane))


@quick(60)
@given(steps=STEPS)
def test_a_crash_at_any_prefix_shows_nowhere(tiny, steps):
    """Every prefix is a crash: each time a fresh control plane goes on where the last one stopped."""

    def fresh():
        return tiny.build(**everything(tiny))

    plane, world = fresh(), World()
    survivors = []
    for step in steps:
        event = world.event(step)
        commands = list(plane.handle(event))
        world.carry_out(commands)
        saved = json.dumps(plane.snapshot())
        for survivor in survivors:
            assert list(survivor.handle(event)) == commands
            assert survivor.next_wake_s() == plane.next_wake_s()
        if len(survivors) < 8:
            survivors.append(fresh())
            survivors[-1].restore(json.loads(saved))
        else:  # the oldest crashes again
            survivors.append(survivors.pop(0))
            survivors[-1].restore(json.loads(saved))
        assert all(json.dumps(survivor.snapshot()) == saved for survivor in survivors)


@quick(60)
@given(steps=STEPS)
def test_waking_at_every_timer_or_not_at_all_decides_alike(tiny, steps):
    """A live loop that fires timers late and a simulator that fires them on the dot give equal commands."""
    late, punctual = (tiny.build(**everything(tiny)) for _ in range(2))
    for event, commands in play(late, steps, World()):
        on_the_way = []
        while punctual.next_wake_s() < event.t_s:
            on_the_way += punctual.handle(Woke(punctual.next_wake_s()))
        assert on_the_way + list(punctual.handle(event)) == commands


@quick(60)
@given(steps=STEPS)
def test_everything_ends_and_nothing_is_left(tiny, steps):
    """Once the world has finished every attempt and time has passed, no request and no timer is open."""
    given = everything(tiny) | {"probe_every_s": float("inf")}
    plane, world = tiny.build(**given), World()
    witness = tiny.Witness(plane)
    play(plane, steps, world, witness)
    for _ in range(400):
        if not world.attempts and plane.next_wake_s() == float("inf"):
            break
        if world.attempts:
            event = Finished(world.t_s, world.attempts.pop(0), Outcome.OK, Usage())
        else:
            world.t_s = max(world.t_s, min(plane.next_wake_s(), world.t_s + 50.0))
            event = Woke(world.t_s)
        commands = list(plane.handle(event))
        world.carry_out(commands)
        witness.saw(event, commands)
    assert not witness.open
    assert not witness.attempts
    load = plane.pools[0].sizing.load(world.t_s)
    assert (load.in_flight, load.queued) == (0, 0)
