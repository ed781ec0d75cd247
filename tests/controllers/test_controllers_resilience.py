"""Back-off against its law and its budget; a stack of retriers against the bound on what it amplifies."""

from __future__ import annotations

import random
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from controllers.resilience.amplification import amplification
from controllers.resilience.backoff import BackoffRetrier
from glowsim import registry
from glowsim.core.streams import Stream
from glowsim.core.types import Outcome, Request

REQUEST = Request(1, 0, 1, 1)


def numbered(number: int) -> Request:
    return Request(number, 0, 1, 1)


def retries(retrier: BackoffRetrier, t_s: float, at_most: int = 10_000) -> int:
    """Return how many failures in one moment are retried, until the first is not."""
    for count in range(at_most):
        if retrier.after(t_s, REQUEST, 1, Outcome.ERROR, 0.0) == inf:
            return count
    return at_most


# --- how long it waits ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0), (5, 3.0), (5000, 3.0)]
)
def test_waits_are_uniform_up_to_the_doubled_bound(attempt: int, longest: float) -> None:
    retrier = BackoffRetrier(Stream(4), attempts=9999, base_s=0.5, longest_s=3.0, budget_ratio=None)
    waits = [retrier.after(0.0, numbered(i), attempt, Outcome.ERROR, 0.0) for i in range(2000)]
    assert stats.kstest(np.array(waits) / longest, "uniform").pvalue > 1e-4
    apart = abs(np.corrcoef(waits[:-1], waits[1:])[0, 1])
    assert apart < 0.1, "neighbours do not retry together"


def test_a_wait_belongs_to_its_request_and_attempt_whoever_else_retries() -> None:
    asked = [(number, attempt) for number in range(50) for attempt in (1, 2, 3)]
    waits = []
    for seed in range(3):
        retrier = BackoffRetrier(Stream(4), attempts=4, budget_ratio=None)
        order = random.Random(seed).sample(asked, len(asked) - 30 * seed)
        waits.append({one: retrier.after(0.0, numbered(one[0]), one[1], Outcome.ERROR, 0.0) for one in order})
    assert all(waits[0][one] == wait for other in waits[1:] for one, wait in other.items())
    assert len(set(waits[0].values())) == len(asked)
    other = BackoffRetrier(Stream(5), budget_ratio=None)
    assert other.after(0.0, numbered(1), 1, Outcome.ERROR, 0.0) != waits[0][1, 1]


def test_it_waits_as_long_as_it_was_asked_to_and_then_its_own_time() -> None:
    retrier = BackoffRetrier(Stream(4), base_s=0.2, longest_retry_after_s=60.0, budget_ratio=None)
    own = [retrier.after(0.0, numbered(i), 1, Outcome.THROTTLED, 0.0) for i in range(100)]
    for asked_s, obeyed_s in ((7.0, 7.0), (60.0, 60.0), (900.0, 60.0)):
        waits = [retrier.after(0.0, numbered(i), 1, Outcome.THROTTLED, asked_s) for i in range(100)]
        assert waits == pytest.approx([obeyed_s + each for each in own])
        assert min(waits) >= obeyed_s
    deaf = BackoffRetrier(Stream(4), base_s=0.2, longest_retry_after_s=0.0, budget_ratio=None)
    assert [deaf.after(0.0, numbered(i), 1, Outcome.THROTTLED, 9.0) for i in range(100)] == own


def test_it_gives_up_after_the_last_attempt_without_a_draw() -> None:
    stream = Stream(4)
    retrier = BackoffRetrier(stream, attempts=3)
    assert retrier.after(0.0, REQUEST, 3, Outcome.ERROR, 0.0) == inf
    assert stream.drawn == 0
    assert retrier.after(0.0, REQUEST, 2, Outcome.ERROR, 0.0) < inf


# --- what it may spend ------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.01, 0.3, 5.0, 200.0]), st.booleans()), max_size=200),
    st.sampled_from([0.0, 0.1, 0.2, 1.0]),
    st.sampled_from([0.0, 0.1, 2.0]),
    st.sampled_from([0.5, 10.0]),
)
def test_attempts_stay_within_the_bound_that_is_promised(
    calls: list[tuple[float, bool]], ratio: float, min_per_s: float, budget_s: float
) -> None:
    retrier = BackoffRetrier(Stream(4), budget_ratio=ratio, budget_min_per_s=min_per_s, budget_s=budget_s)
    t_s, attempts = 0.0, 0
    for requests, (gap_s, succeeds) in enumerate(calls, 1):
        t_s += gap_s
        attempts += 1
        if succeeds:
            retrier.succeeded(t_s, REQUEST)
        elif retrier.after(t_s, REQUEST, 1, Outcome.ERROR, 0.0) < inf:
            attempts += 1
        reserve = min_per_s * budget_s
        assert attempts <= requests * (1.0 + ratio) + min_per_s * t_s + reserve + 1e-6


def test_a_success_brings_exactly_its_share() -> None:
    retrier = BackoffRetrier(Stream(4), budget_ratio=0.2, budget_min_per_s=0.0)
    for _ in range(40):
        for _ in range(4):
            retrier.succeeded(1.0, REQUEST)
            assert retries(retrier, 1.0) == 0
        retrier.succeeded(1.0, REQUEST)
        assert retries(retrier, 1.0) == 1


def test_it_starts_with_its_reserve_and_has_that_again_after_a_quiet_time() -> None:
    retrier = BackoffRetrier(Stream(4), budget_min_per_s=2.0, budget_s=5.0)
    assert retries(retrier, 0.0) == 10
    assert retries(retrier, 0.4) == 0
    assert retries(retrier, 0.5 + 1e-6 + 0.1) == 1
    assert retries(retrier, 100_000.0) == 9, "it comes near the reserve from below"
    for _ in range(1000):
        retrier.succeeded(200_000.0, REQUEST)
    assert retries(retrier, 10_000_000.0) == 10, "old successes are worth nothing"


def test_steady_traffic_holds_what_comes_in_within_the_time_to_live() -> None:
    retrier = BackoffRetrier(Stream(4), budget_ratio=0.2, budget_min_per_s=1.0, budget_s=10.0)
    for i in range(20_000):
        retrier.succeeded(i / 100, REQUEST)
    assert retries(retrier, 200.0) == pytest.approx((1.0 + 0.2 * 100.0) * 10.0, rel=0.01)


def test_in_an_outage_only_the_minimum_rate_is_left() -> None:
    retrier = BackoffRetrier(Stream(4), budget_ratio=0.2, budget_min_per_s=1.0, budget_s=10.0)
    granted = [retrier.after(i / 50, REQUEST, 1, Outcome.ERROR, 0.0) < inf for i in range(10_000)]
    assert sum(granted[2000:]) == pytest.approx(1.0 * 160, rel=0.12)


def test_without_a_budget_only_the_attempts_bound_it() -> None:
    retrier = BackoffRetrier(Stream(4), attempts=3, budget_ratio=None, budget_min_per_s=0.0)
    assert retries(retrier, 0.0, 5000) == 5000
    assert retrier.after(0.0, REQUEST, 3, Outcome.ERROR, 0.0) == inf


def test_it_reads_its_parameters_as_a_scenario_spells_them() -> None:
    kind = registry.find("retrier", "backoff")
    written = {"attempts": 4, "budget_ratio": "20%", "budget_min": "2/s", "budget": "30s", "base": "100ms"}
    arguments, findings = registry.check(kind, written)
    assert (arguments["budget_ratio"], arguments["budget_min_per_s"], arguments["budget_s"]) == (
        0.2,
        2.0,
        30.0,
    )
    assert not findings
    assert registry.check(kind, {"budget_ratio": None}) == ({"budget_ratio": None}, [])


# --- a stack of them ----------------------------------------------------------------------------------


def bottom_attempts(layers: list[BackoffRetrier], fails: list[bool]) -> int:
    """Return how often the bottom is tried for as many requests as it takes to use up its outcomes."""
    ends = iter(fails)
    tried = 0

    def call(depth: int, number: int) -> bool:
        nonlocal tried
        if depth == len(layers):
            tried += 1
            return not next(ends, False)
        attempts = 1
        while not call(depth + 1, number):
            if layers[depth].after(0.0, numbered(number), attempts, Outcome.ERROR, 0.0) == inf:
                return False
            attempts += 1
        layers[depth].succeeded(0.0, numbered(number))
        return True

    for number in range(3000):
        call(0, number)
    return tried


def test_the_amplification_of_a_stack_is_what_a_stack_does() -> None:
    stack = [BackoffRetrier(Stream(1), attempts=n, budget_ratio=None) for n in (3, 2, 4)]
    assert bottom_attempts(stack, [True] * 100_000) == 3000 * amplification([(3, None), (2, None), (4, None)])


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9])
def test_a_stack_with_budgets_stays_below_its_amplification(share: float) -> None:
    stack = [BackoffRetrier(Stream(1), attempts=3, budget_min_per_s=0.0) for _ in range(3)]
    fails = (np.random.Generator(np.random.PCG64(1)).random(30_000) < share).tolist()
    assert 3000 <= bottom_attempts(stack, fails) <= 3000 * amplification([(3, 0.2)] * 3)


def test_a_budget_never_makes_it_more() -> None:
    assert amplification([]) == 1
    assert amplification([(1, 0.2), (2, 5.0)]) == 2
    with pytest.raises(ValueError, match="layer 1 has 0 attempts"):
        amplification([(2, None), (0, None)])
    with pytest.raises(ValueError, match="layer 0 has a ratio of -1"):
        amplification([(2, -1.0)])
