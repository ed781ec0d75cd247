"""The breaker against a model of its states; back-off against its law and its budget."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from controllers.resilience.backoff import BackoffRetrier
from controllers.resilience.breaker import ConsecutiveBreaker
from glowsim.core.instance import UNLIMITED
from glowsim.core.streams import Stream
from glowsim.core.types import Outcome, Request

REQUEST = Request(1, 0, 1, 1)
BAD = {Outcome.ERROR, Outcome.UNREACHABLE, Outcome.TIMEOUT, Outcome.LOST}
GOOD = {Outcome.OK, Outcome.INVALID}


def gate_from_history(history: list[tuple[float, Outcome | None]], failures: int) -> tuple[int, float]:
    """Return (cap, until_s) after outcomes and moments of waking (None): the state machine, replayed."""
    state, run, rest_s, until_s = "closed", 0, 8.0, inf
    for t_s, outcome in history:
        if outcome is None:
            if state != "closed" and t_s >= until_s:
                state, until_s = "half-open", t_s + rest_s
        elif state == "closed":
            run = run + 1 if outcome in BAD else 0 if outcome in GOOD else run
            if run == failures:
                state, until_s = "open", t_s + rest_s
        elif state == "half-open" and outcome in GOOD:
            state, run, rest_s, until_s = "closed", 0, 8.0, inf
        elif state == "half-open" and outcome in BAD:
            rest_s = min(2 * rest_s, 20.0)
            state, until_s = "open", t_s + rest_s
    return {"closed": UNLIMITED, "open": 0, "half-open": 2}[state], until_s


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from([*Outcome, None, None, Outcome.ERROR, Outcome.ERROR])),
        max_size=60,
    ),
    st.integers(1, 3),
)
def test_the_breaker_follows_its_states(plan: list[tuple[int, Outcome | None]], failures: int) -> None:
    breaker = ConsecutiveBreaker(failures=failures, open_s=8, probes=2, longest_open_s=20)
    told: tuple[int, float] = (UNLIMITED, inf)
    history: list[tuple[float, Outcome | None]] = []
    t_s = 0.0
    for gap, outcome in plan:
        t_s += gap
        history.append((t_s, outcome))
        gate = breaker.wake(t_s, 7) if outcome is None else breaker.record(t_s, 7, outcome, 1.0)
        expected = gate_from_history(history, failures)
        if gate is None:
            assert told == expected, "a change must be told"
        else:
            assert tuple(gate) == expected
            told = expected
        assert told[0] == UNLIMITED or told[1] < inf, "only a closed gate needs no waking"


def test_half_open_cannot_get_stuck() -> None:
    breaker = ConsecutiveBreaker(failures=1, open_s=5, probes=3)
    gate = breaker.record(0.0, 1, Outcome.ERROR, 1.0)
    for _ in range(4):  # the probes' outcomes never count, and it is woken all the same
        assert gate is not None
        gate = breaker.wake(gate.until_s, 1)
        assert gate is not None
        assert gate.cap == 3
        assert breaker.record(gate.until_s - 1.0, 1, Outcome.THROTTLED, 1.0) is None
    assert breaker.record(gate.until_s, 1, Outcome.OK, 1.0) == (UNLIMITED, inf)


def test_instances_are_apart_and_the_gone_are_forgotten() -> None:
    breaker = ConsecutiveBreaker(failures=2)
    assert breaker.record(0.0, 1, Outcome.ERROR, 1.0) is None
    assert breaker.record(0.0, 2, Outcome.ERROR, 1.0) is None
    breaker.forget(1)
    assert breaker.record(1.0, 1, Outcome.ERROR, 1.0) is None
    assert breaker.record(1.0, 2, Outcome.ERROR, 1.0) is not None
    breaker.forget(2)
    breaker.forget(3)
    assert breaker.wake(100.0, 2) is None


@pytest.mark.parametrize(("attempt", "longest"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0), (5, 3.0)])
def test_waits_are_uniform_up_to_the_doubled_bound(attempt: int, longest: float) -> None:
    retrier = BackoffRetrier(Stream(4), attempts=9, base_s=0.5, longest_s=3.0, budget_floor=2000)
    waits = [retrier.after(0.0, REQUEST, attempt, Outcome.ERROR, 0.0) for _ in range(2000)]
    assert stats.kstest(np.array(waits) / longest, "uniform").pvalue > 1e-4


def test_it_waits_at_least_as_long_as_it_was_asked_to() -> None:
    retrier = BackoffRetrier(Stream(4), longest_s=0.3, budget_floor=100)
    waits = [retrier.after(0.0, REQUEST, 1, Outcome.THROTTLED, 0.1) for _ in range(100)]
    assert min(waits) == 0.1
    assert max(waits) > 0.1
    retrier = BackoffRetrier(Stream(4), longest_s=0.3)
    assert retrier.after(0.0, REQUEST, 1, Outcome.THROTTLED, 60.0) == 60.0


def test_it_gives_up_after_the_last_attempt_without_a_draw() -> None:
    stream = Stream(4)
    retrier = BackoffRetrier(stream, attempts=3)
    assert retrier.after(0.0, REQUEST, 3, Outcome.ERROR, 0.0) == inf
    assert stream.drawn == 0
    assert retrier.after(0.0, REQUEST, 2, Outcome.ERROR, 0.0) < inf


@given(
    st.lists(st.booleans(), max_size=300),
    st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0]),
    st.integers(1, 20),
    st.data(),
)
def test_the_budget_bounds_the_retries_of_every_stretch(
    calls: list[bool], budget: float, floor: int, data: st.DataObject
) -> None:
    retrier = BackoffRetrier(Stream(4), budget=budget, budget_floor=floor)
    retried = []
    for succeeds in calls:
        if succeeds:
            retrier.succeeded(0.0, REQUEST)
        retried.append(not succeeds and retrier.after(0.0, REQUEST, 1, Outcome.ERROR, 0.0) < inf)
    start = data.draw(st.integers(0, len(calls)))
    stretch = range(start, len(calls))
    successes = sum(calls[i] for i in stretch)
    assert sum(retried[i] for i in stretch) <= floor + budget * successes + 1e-6


def test_a_success_brings_exactly_its_share() -> None:
    retrier = BackoffRetrier(Stream(4), budget=0.1, budget_floor=1)
    assert retrier.after(0.0, REQUEST, 1, Outcome.ERROR, 0.0) < inf
    for _ in range(9):
        retrier.succeeded(0.0, REQUEST)
        assert retrier.after(0.0, REQUEST, 1, Outcome.ERROR, 0.0) == inf
    retrier.succeeded(0.0, REQUEST)
    assert retrier.after(0.0, REQUEST, 1, Outcome.ERROR, 0.0) < inf
