"""The threshold scaler: its rule by hand, and its invariants under any load."""

from __future__ import annotations

from math import ceil, inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.scaling.threshold import ThresholdScaler
from glowsim.core.protocols import Load
from glowsim.core.types import Code, Constraint, Reason

NONE, MINIMUM, MAXIMUM, COOLDOWN = (
    Constraint.NONE,
    Constraint.MINIMUM,
    Constraint.MAXIMUM,
    Constraint.COOLDOWN,
)


def load(mean: float, ready: int, starting: int = 0, now: int | None = None) -> Load:
    in_system = ceil(mean) if now is None else now
    return Load(in_system, 0, mean, ready, starting, 3, 16, 10)


@pytest.mark.parametrize(
    ("mean", "ready", "starting", "want", "code", "bound"),
    [
        (36.0, 4, 0, 6, Code.LOAD_HIGH, NONE),  # 0.9 of 40: ceil(36 / 7)
        (32.0, 4, 0, 4, Code.HELD, NONE),  # 0.8 is not above 0.8
        (36.0, 2, 3, 5, Code.HELD, NONE),  # starting ones are on their way
        (35.0, 4, 0, 5, Code.LOAD_HIGH, NONE),  # exactly 5 at the target
        (90.0, 4, 0, 10, Code.LOAD_HIGH, MAXIMUM),
        (99.0, 10, 0, 10, Code.LOAD_HIGH, MAXIMUM),
        (12.0, 4, 0, 4, Code.HELD, NONE),  # 0.3 is not below 0.3
        (17.0, 6, 0, 3, Code.LOAD_LOW, NONE),
        (1.0, 6, 0, 2, Code.LOAD_LOW, MINIMUM),
        (1.0, 2, 0, 2, Code.LOAD_LOW, MINIMUM),
        (30.0, 1, 0, 2, Code.HELD, MINIMUM),
        (1.0, 12, 0, 10, Code.HELD, MAXIMUM),
    ],
)
def test_the_rule(mean: float, ready: int, starting: int, want: int, code: Code, bound: Constraint) -> None:
    scaler = ThresholdScaler()
    assert scaler.decide(-300.0, load(20.0, 4)).reason.code == Code.HELD
    wanted = scaler.decide(0.0, load(mean, ready, starting))
    assert (wanted.instances, wanted.reason.code, wanted.reason.bound, wanted.look_s) == (
        want,
        code,
        bound,
        15.0,
    )
    assert wanted.reason.a == pytest.approx(mean / (10 * (ready + starting)))


def test_each_direction_has_its_cooldown() -> None:
    scaler = ThresholdScaler(cooldown_up_s=60, cooldown_down_s=300)
    assert scaler.decide(0.0, load(36.0, 4)).instances == 6
    held = scaler.decide(59.0, load(60.0, 6))
    assert (held.instances, held.reason.bound, held.reason.c) == (6, COOLDOWN, 9)
    assert scaler.decide(60.0, load(60.0, 6)).instances == 9
    assert scaler.decide(359.0, load(5.0, 9)).reason.bound == COOLDOWN
    assert scaler.decide(360.0, load(5.0, 9)).instances == 2


def test_coming_back_within_the_limits_neither_waits_nor_delays() -> None:
    scaler = ThresholdScaler()
    assert scaler.decide(0.0, load(36.0, 4)).instances == 6
    assert scaler.decide(10.0, load(1.0, 1)).instances == 2
    assert scaler.decide(300.0, load(36.0, 2)).instances == 6


def test_it_scales_to_zero_and_back_without_waiting() -> None:
    scaler = ThresholdScaler(min_instances=0)
    assert scaler.decide(-300.0, load(0.0, 2)).reason.bound == COOLDOWN
    assert scaler.decide(0.0, load(0.0, 2)).instances == 0
    assert scaler.decide(1.0, load(0.0, 0, now=1)).instances == 1
    assert scaler.decide(400.0, load(0.01, 1)).instances == 1, (
        "never to zero while something is in the system"
    )


def test_a_fresh_scaler_does_not_shrink_a_fleet_that_has_just_begun() -> None:
    scaler = ThresholdScaler(cooldown_down_s=300)
    assert scaler.decide(7.0, load(0.1, 9)).instances == 9, "the first request finds nothing in the system"
    assert scaler.decide(306.0, load(0.1, 9)).reason.bound == COOLDOWN
    assert scaler.decide(307.0, load(0.1, 9)).instances == 2


def test_a_fleet_of_one_size_is_not_looked_at_by_time() -> None:
    scaler = ThresholdScaler(min_instances=3, max_instances=3)
    assert scaler.decide(0.0, load(90.0, 3)).look_s == inf
    below = scaler.decide(9.0, load(90.0, 2))
    assert (below.instances, below.reason.bound) == (3, MINIMUM), "one that failed is replaced"


def test_it_looks_again_only_when_its_answer_could_change() -> None:
    scaler = ThresholdScaler(cooldown_down_s=100, cooldown_up_s=50)
    assert scaler.decide(-100.0, load(0.0, 3)).look_s == 0.0, "not before the way down is free"
    assert scaler.decide(0.0, load(0.0, 3)) == (2, Reason(Code.LOAD_LOW, MINIMUM, 0.0, 0.3, 0), inf)
    assert scaler.decide(200.0, load(0.0, 2, now=1)).look_s == 215.0, "something is in the system"
    assert scaler.decide(300.0, load(0.0, 2)).look_s == inf
    assert scaler.decide(390.0, load(36.0, 4)).instances == 6
    assert scaler.decide(400.0, load(0.0, 6)).look_s == 490.0, "the cooldown since the last change"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 200), st.floats(0, 300), st.integers(0, 300)), max_size=40),
    st.integers(0, 3),
    st.integers(3, 12),
)
def test_it_stays_within_its_limits_and_cooldowns(
    looks: list[tuple[int, float, int]], low: int, high: int
) -> None:
    scaler = ThresholdScaler(min_instances=low, max_instances=high, cooldown_up_s=90, cooldown_down_s=200)
    t_s, have, changed_s = 0.0, low, -inf
    for gap, mean, now in looks:
        t_s += gap
        wanted = scaler.decide(t_s, load(mean, have, now=now))
        assert low <= wanted.instances <= high
        assert wanted.instances or not now
        if wanted.instances != have:
            up = wanted.instances > have
            assert t_s - changed_s >= (90 if up else 200) or have == 0
            assert up == (mean > 0.8 * 10 * have) or have == 0
            have, changed_s = wanted.instances, t_s
        assert wanted.look_s >= t_s + 15.0
