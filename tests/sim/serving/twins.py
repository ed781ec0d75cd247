"""The same workload through the specification and through the fast engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from glowsim.core.types import Outcome
from glowsim.sim.environment import Environment
from glowsim.sim.serving.call import Call
from glowsim.sim.serving.steps import BatchSpec


@dataclass(frozen=True)
class Ask:
    """A call of a workload: when it comes, and what it is."""

    t_s: float
    tokens_in: int
    tokens_out: int
    keys: dict[str, Any] = field(default_factory=dict)
    cancel_after_s: float = -1.0
    then: int = 0
    """How many calls follow it, each when the one before has ended, with the same keys and a longer prompt."""


@dataclass
class Told:
    """What became of a workload."""

    ends: list[tuple[int, float, int]] = field(default_factory=list)
    streamed: list[tuple[int, float]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    counters: tuple[int, ...] = ()
    busy_s: float = 0.0


def play(
    build: Callable[..., Any],
    spec: BatchSpec,
    asks: Sequence[Ask],
    speeds: Sequence[tuple[float, float]] = (),
) -> Told:
    """Run a workload to its end."""
    environment, told = Environment(), Told()
    open_calls: dict[int, Call] = {}

    def begin(ask: Ask, tokens_in: int, left: int) -> None:
        call = Call(len(told.calls) + 1, tokens_in, ask.tokens_out, owner=(ask, left), **ask.keys)
        told.calls.append(call)
        open_calls[call.number] = call
        engine.start(call)
        if ask.cancel_after_s >= 0.0:
            environment.call_at(environment.now + ask.cancel_after_s, cancel, call)

    def cancel(call: Call) -> None:
        if open_calls.pop(call.number, None):
            engine.cancel(call)

    def done(call: Call) -> None:
        del open_calls[call.number]
        told.ends.append((call.number, environment.now, call.outcome))
        ask, left = call.owner
        if left and call.outcome == Outcome.OK:
            begin(ask, call.tokens_in + call.tokens_out + 5, left - 1)

    def first_token(call: Call) -> None:
        told.streamed.append((call.number, environment.now))

    engine = build(environment, spec, done, first_token)
    for ask in asks:
        environment.call_at(ask.t_s, lambda each: begin(each, each.tokens_in, each.then), ask)
    for t_s, speed in speeds:
        environment.call_at(t_s, engine.set_speed, speed)
    environment.run()
    assert len(engine) == 0
    assert not open_calls
    seen = engine if hasattr(engine, "steps") else engine.look()
    told.counters = (seen.steps, seen.preemptions, seen.tokens_prefilled, seen.tokens_hit)
    told.busy_s = seen.busy_s
    return told


def assert_same(fast: Told, naive: Told, rel: float = 1e-9) -> None:
    """Everything is the same, and times within rounding."""
    assert [(number, outcome) for number, _, outcome in fast.ends] == [
        (number, outcome) for number, _, outcome in naive.ends
    ]
    assert [number for number, _ in fast.streamed] == [number for number, _ in naive.streamed]
    assert fast.counters == naive.counters
    for one, other in zip(fast.calls, naive.calls, strict=True):
        assert (one.number, one.written, one.tokens_cached) == (
            other.number,
            other.written,
            other.tokens_cached,
        )
        assert _near(one.first_token_s, other.first_token_s, rel), one.number
    for (_, one_s, *_), (_, other_s, *_) in zip(
        [*fast.ends, *fast.streamed], [*naive.ends, *naive.streamed], strict=True
    ):
        assert _near(one_s, other_s, rel)
    assert _near(fast.busy_s, naive.busy_s, rel)


def _near(one: float, other: float, rel: float) -> bool:
    return abs(one - other) <= rel * max(abs(one), abs(other))
