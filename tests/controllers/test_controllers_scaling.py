"""The agent scaler: its rule by hand, and its invariants under any load."""

from __future__ import annotations

import random
from itertools import pairwise
from math import ceil, inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.scaling.agent_scaler import AgentScaler
from glowsim.core.protocols import Load
from glowsim.core.types import Code, Constraint, Reason

NONE, MINIMUM, MAXIMUM, COOLDOWN, STEP = (
    Constraint.NONE, Constraint.MINIMUM, Constraint.MAXIMUM, Constraint.COOLDOWN, Constraint.STEP,
)  # fmt: skip


def load(mean: float, ready: int, starting: int = 0, now: int | None = None) -> Load:
    """Of instances that serve 10 at once."""
    in_system = ceil(mean) if now is None else now
    return Load(in_system // 2, in_system - in_system // 2, mean, ready, starting, 3, 16, 10)


def low_for(scaler: AgentScaler, mean: float, ready: int, until_s: float) -> None:
    """Let it look at a low load from 300 s before."""
    for back_s in range(300, 0, -15):
        assert scaler.decide(until_s - back_s, load(mean, ready)).instances == ready


@pytest.mark.parametrize(
    ("mean", "ready", "starting", "want", "code", "bound"),
    [
        (36.0, 4, 0, 6, Code.LOAD_HIGH, NONE),  # 0.9 of 40: ceil(36 / 7)
        (32.0, 4, 0, 4, Code.HELD, NONE),  # 0.8 is not above 0.8
        (36.0, 2, 3, 5, Code.HELD, NONE),  # starting ones are on their way
        (35.0, 4, 0, 5, Code.LOAD_HIGH, NONE),  # exactly 5 at the target
        (56.000000001, 5, 0, 8, Code.LOAD_HIGH, NONE),  # 8, but for a rounding error
        (90.0, 4, 0, 10, Code.LOAD_HIGH, MAXIMUM),
        (99.0, 10, 0, 10, Code.LOAD_HIGH, MAXIMUM),
        (12.0, 4, 0, 4, Code.HELD, NONE),  # 0.3 is not below 0.3
        (30.0, 1, 0, 2, Code.HELD, MINIMUM),
        (1.0, 12, 0, 10, Code.HELD, MAXIMUM),
    ],
)
def test_the_rule(mean: float, ready: int, starting: int, want: int, code: Code, bound: Constraint) -> None:
    wanted = AgentScaler().decide(0.0, load(mean, ready, starting))
    found = (wanted.instances, wanted.reason.code, wanted.reason.bound, wanted.look_s)
    assert found == (want, code, bound, 15.0)
    assert wanted.reason.a == pytest.approx(mean / (10 * (ready + starting)))


@pytest.mark.parametrize(
    ("mean", "ready", "want", "bound"),
    [(17.0, 6, 3, NONE), (1.0, 6, 2, MINIMUM), (1.0, 2, 2, MINIMUM), (26.0, 9, 4, NONE)],
)
def test_the_way_down_is_by_the_highest_of_a_whole_cooldown(
    mean: float, ready: int, want: int, bound: Constraint
) -> None:
    scaler = AgentScaler()
    low_for(scaler, 0.5, ready, 0.0)
    scaler.decide(-7.0, load(mean, ready))
    wanted = scaler.decide(0.0, load(0.2, ready))
    assert (wanted.instances, wanted.reason.code, wanted.reason.bound) == (want, Code.LOAD_LOW, bound)


def test_one_look_that_is_not_low_starts_the_wait_for_the_way_down_anew() -> None:
    scaler = AgentScaler()
    low_for(scaler, 5.0, 6, 0.0)
    assert scaler.decide(0.0, load(20.0, 6)).reason.code == Code.HELD
    low_for(scaler, 5.0, 6, 315.0)
    assert scaler.decide(315.0, load(5.0, 6)).instances == 2


def test_nothing_there_now_is_no_load_whatever_the_mean_was() -> None:
    assert AgentScaler().decide(0.0, load(39.0, 4, now=0)).instances == 4


def test_those_that_stay_must_bear_what_is_there_now() -> None:
    """2 instances at 0.28 each and 17 long requests: 1 instance would be at 1.7, and they would flip."""
    scaler = AgentScaler(min_instances=1)
    low_for(scaler, 5.6, 2, 0.0)
    wanted = scaler.decide(0.0, load(5.6, 2, now=17))
    assert (wanted.instances, wanted.reason) == (2, Reason(Code.LOAD_LOW, NONE, 5.6 / 20, 0.3, 3))
    low_for(scaler, 5.6, 2, 300.0)
    assert scaler.decide(300.0, load(5.6, 2, now=7)).instances == 1, "0.7 is below 0.8"


def test_each_direction_has_its_cooldown() -> None:
    scaler = AgentScaler(cooldown_s=300, cooldown_up_s=60)
    assert scaler.decide(0.0, load(36.0, 4)).instances == 6
    held = scaler.decide(59.0, load(60.0, 6))
    assert (held.instances, held.reason.bound, held.reason.c) == (6, COOLDOWN, 9)
    assert scaler.decide(60.0, load(60.0, 6)).instances == 9
    assert scaler.decide(75.0, load(5.0, 9)).reason.bound == COOLDOWN
    assert scaler.decide(374.0, load(5.0, 9)).reason.bound == COOLDOWN
    assert scaler.decide(375.0, load(5.0, 9)).instances == 2
    assert scaler.decide(434.0, load(19.0, 2)).reason.bound == COOLDOWN, "up waits after down, too"
    assert scaler.decide(435.0, load(19.0, 2)).instances == 3


def test_one_number_is_the_cooldown_both_ways() -> None:
    scaler = AgentScaler(cooldown_s=180)
    assert scaler.decide(0.0, load(36.0, 4)).instances == 6
    assert scaler.decide(179.0, load(60.0, 6)).instances == 6
    assert scaler.decide(180.0, load(60.0, 6)).instances == 9


def test_a_step_is_no_longer_than_it_may_be() -> None:
    scaler = AgentScaler(max_step=2, cooldown_s=0, min_instances=0, idle_s=0)
    up = scaler.decide(0.0, load(60.0, 4))
    assert (up.instances, up.reason.bound, up.reason.c) == (6, STEP, 9)
    down = scaler.decide(15.0, load(1.0, 6))
    assert (down.instances, down.reason.bound, down.reason.c) == (4, STEP, 1)
    assert scaler.decide(30.0, load(0.0, 4)) == (2, Reason(Code.LOAD_LOW, STEP, 0.0, 0.3, 0), 45.0)
    assert scaler.decide(45.0, load(0.0, 2)) == (0, Reason(Code.LOAD_LOW, NONE, 0.0, 0.3, 0), inf)


def test_coming_back_within_the_limits_neither_waits_nor_delays() -> None:
    scaler = AgentScaler()
    assert scaler.decide(0.0, load(36.0, 4)).instances == 6
    assert scaler.decide(10.0, load(1.0, 1)).instances == 2
    assert scaler.decide(300.0, load(36.0, 2)).instances == 6


def test_it_scales_to_zero_and_back_without_waiting() -> None:
    scaler = AgentScaler(min_instances=0, idle_s=120)
    assert scaler.decide(0.0, load(0.0, 0, now=1)).instances == 1
    assert scaler.decide(15.0, load(1.0, 0, starting=1)).look_s == 30.0
    assert scaler.decide(30.0, load(0.7, 1, now=0)) == (1, Reason(Code.LOAD_LOW, NONE, 0.0, 0.3, 1), 150.0)
    assert scaler.decide(90.0, load(0.0, 1, now=1)).instances == 1, "an arrival"
    assert scaler.decide(105.0, load(0.2, 1, now=0)).look_s == 225.0, "idle anew"
    assert scaler.decide(225.0, load(0.0, 1)) == (0, Reason(Code.LOAD_LOW, NONE, 0.0, 0.3, 0), inf)
    assert scaler.decide(226.0, load(0.0, 0, now=1)).instances == 1, "no cooldown holds the first one up"


def test_idle_instances_go_at_the_end_of_the_wait_that_comes_first() -> None:
    scaler = AgentScaler(min_instances=0, cooldown_s=100, idle_s=300)
    assert scaler.decide(0.0, load(0.0, 3)).look_s == 100.0
    assert scaler.decide(100.0, load(0.0, 3)) == (1, Reason(Code.LOAD_LOW, NONE, 0.0, 0.3, 1), 300.0)
    assert scaler.decide(300.0, load(0.0, 1)).instances == 0
    scaler = AgentScaler(min_instances=0, cooldown_s=1000, idle_s=300)
    assert scaler.decide(0.0, load(0.0, 3)).look_s == 300.0
    assert scaler.decide(300.0, load(0.0, 3)).instances == 0


def test_the_last_one_stays_while_something_is_in_the_system() -> None:
    scaler = AgentScaler(min_instances=0, cooldown_s=0, idle_s=0)
    assert [scaler.decide(15.0 * n, load(0.01, 1)).instances for n in range(100)] == [1] * 100


def test_a_fresh_scaler_does_not_shrink_a_fleet_that_has_just_begun() -> None:
    scaler = AgentScaler()
    assert scaler.decide(7.0, load(0.1, 9)).instances == 9, "the first request finds nothing in the system"
    assert scaler.decide(306.0, load(0.1, 9)).reason.bound == COOLDOWN
    assert scaler.decide(307.0, load(0.1, 9)).instances == 2


def test_it_looks_again_only_when_its_answer_could_change() -> None:
    scaler = AgentScaler(cooldown_down_s=100, cooldown_up_s=50)
    assert scaler.decide(-100.0, load(0.0, 3)).look_s == 0.0, "not before the way down is free"
    assert scaler.decide(0.0, load(0.0, 3)) == (2, Reason(Code.LOAD_LOW, MINIMUM, 0.0, 0.3, 1), inf)
    assert scaler.decide(200.0, load(0.0, 2, now=1)).look_s == 215.0, "something is in the system"
    assert scaler.decide(300.0, load(0.0, 2)).look_s == inf, "idle, and at the minimum"


def test_a_fleet_of_one_size_is_not_looked_at_by_time() -> None:
    scaler = AgentScaler(min_instances=3, max_instances=3)
    assert scaler.decide(0.0, load(90.0, 3)).look_s == inf
    below = scaler.decide(9.0, load(90.0, 2))
    assert (below.instances, below.reason.bound) == (3, MINIMUM), "one that failed is replaced"


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 200), st.floats(0, 300), st.integers(0, 300)), max_size=40),
    st.integers(0, 3),
    st.integers(4, 12),
    st.integers(1, 4) | st.none(),
)
def test_it_stays_within_its_limits_and_cooldowns(
    looks: list[tuple[int, float, int]], low: int, high: int, step: int | None
) -> None:
    scaler = AgentScaler(
        min_instances=low, max_instances=high, max_step=step, cooldown_up_s=90, cooldown_down_s=200, idle_s=50
    )
    t_s, have, changed_s, not_low_s, busy_s = 0.0, low, -inf, 0.0, 0.0
    for gap, mean, now in looks:
        t_s += gap
        wanted = scaler.decide(t_s, load(mean, have, now=now))
        want = wanted.instances
        assert low <= want <= high
        assert want or not now
        busy_s = t_s if now else busy_s
        not_low_s = t_s if now and mean >= 0.3 * 10 * have else not_low_s
        if want != have:
            assert abs(want - have) <= (step or high)
            if want > have:
                assert have == 0 or (mean > 0.8 * 10 * have and t_s - changed_s >= 90)
            elif want:
                assert t_s - max(changed_s, not_low_s) >= 200
                assert max(mean if now else 0.0, now) / (10 * want) < 0.8, "it would come back at once"
            else:
                assert not now
                assert t_s - busy_s >= 50
            have, changed_s = want, t_s
        assert wanted.look_s > t_s
        assert not now or wanted.look_s == t_s + 15.0
        assert now or have > low or wanted.look_s == inf


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 30), st.floats(0, 400), st.floats(0, 400))
def test_more_load_never_gets_fewer_instances(have: int, one: float, other: float) -> None:
    wants = []
    for mean in sorted((one, other)):
        scaler = AgentScaler(min_instances=1, max_instances=40)
        low_for(scaler, 0.2, have, 0.0)
        wants.append(scaler.decide(0.0, load(mean, have)).instances)
    assert wants[0] <= wants[1]


@settings(max_examples=100, deadline=None)
@given(st.floats(0, 90), st.integers(1, 20))
def test_a_constant_load_is_met_by_one_change_each_way_at_most(mean: float, have: int) -> None:
    scaler = AgentScaler(min_instances=1, max_instances=20, cooldown_up_s=0)
    sizes = [have]
    for n in range(400):
        sizes.append(scaler.decide(15.0 * n, load(mean, sizes[-1])).instances)
    changes = [(a, b) for a, b in pairwise(sizes) if a != b]
    assert len(changes) <= 1
    assert 0.3 <= mean / 10 / sizes[-1] <= 0.8 or sizes[-1] == 1, changes


def changes_in_a_day(offered: float, have: int, cooldown_down_s: float) -> int:
    """Of a constant load whose means vary as much as the number in M/M/infinity does."""
    rng = random.Random(1)
    scaler = AgentScaler(min_instances=1, max_instances=20, cooldown_up_s=15, cooldown_down_s=cooldown_down_s)
    changes = 0
    for n in range(5760):
        mean = max(rng.gauss(offered, offered**0.5), 0.0)
        want = scaler.decide(15.0 * n, load(mean, have)).instances
        changes, have = changes + (want != have), want
    return changes


@pytest.mark.parametrize("offered", [2.5, 5.0, 7.0, 12.0, 30.0, 60.0])
@pytest.mark.parametrize("have", [1, 20])
def test_noise_on_a_constant_load_does_not_make_it_flap(offered: float, have: int) -> None:
    assert changes_in_a_day(offered, have, 300.0) <= 6


def test_without_the_cooldown_on_the_way_down_it_does() -> None:
    assert changes_in_a_day(7.0, 1, 0.0) > 100
