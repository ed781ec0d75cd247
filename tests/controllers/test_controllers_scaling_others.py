"""The scalers to compare with: Kubernetes' rule by its published examples, Erlang C against theory."""

from __future__ import annotations

from math import ceil, inf

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from controllers.scaling.highest import Highest
from controllers.scaling.hpa import HpaScaler
from controllers.scaling.queueing import QueueingScaler, servers_for
from glowsim.core.protocols import Load
from glowsim.core.types import Code, Constraint, Reason
from glowsim.stats.queueing import mmc_wait_tail


def load(mean: float, ready: int, starting: int = 0, concurrency: int = 10) -> Load:
    return Load(ceil(mean), 0, mean, ready, starting, 0, 16, concurrency)


# --- the highest of a window --------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), min_size=1, max_size=60), st.integers(1, 99)
)
def test_the_highest_is_that_of_the_window(told: list[tuple[int, int]], window_s: int) -> None:
    highest, t_s, all_of_them = Highest(window_s), 0.0, []
    for gap_s, n in told:
        t_s += gap_s
        all_of_them.append((t_s, n))
        most = max(n for at_s, n in all_of_them if at_s + window_s > t_s)
        assert highest.add(t_s, n) == most
        assert len(highest._falling) <= 10, "as many as there are different numbers"
        falls_s = highest.falls_s()
        later = [n for at_s, n in all_of_them if at_s + window_s > falls_s]
        assert falls_s == inf or max(later, default=-1) < most


# --- Kubernetes -----------------------------------------------------------------------------------------


def test_the_example_of_the_enhancement_proposal_on_velocity() -> None:
    """KEP-853: ten minutes of recommendations around 9, the largest of 600 s counts: 10 and then 9."""
    scaler = HpaScaler(max_instances=20, target=1.0, stabilise_down_s=600, tolerance=1e-6)
    wants = [
        scaler.decide(60.0 * minute, load(10.0 * called_for, 10)).instances
        for minute, called_for in enumerate([10, 9, 8, 9, 9, 8, 9, 8, 9, 8, 7])
    ]
    assert wants == [10] * 10 + [9]


@pytest.mark.parametrize(
    ("mean", "want", "code", "bound"),
    [
        (38.5, 5, Code.HELD, Constraint.NONE),  # 1.1 times the target
        (38.6, 6, Code.LOAD_HIGH, Constraint.NONE),
        (31.5, 5, Code.HELD, Constraint.NONE),
        (31.4, 5, Code.LOAD_LOW, Constraint.NONE),  # ceil(4.49)
        (7.0, 5, Code.LOAD_LOW, Constraint.COOLDOWN),
        (95.0, 10, Code.LOAD_HIGH, Constraint.STEP),  # at most twice as many
        (9999.0, 10, Code.LOAD_HIGH, Constraint.STEP),
    ],
)
def test_the_rule_of_kubernetes(mean: float, want: int, code: Code, bound: Constraint) -> None:
    wanted = HpaScaler(max_instances=12).decide(0.0, load(mean, 5))
    assert (wanted.instances, wanted.reason.code, wanted.reason.bound) == (want, code, bound)


def test_kubernetes_does_not_count_instances_that_start() -> None:
    assert HpaScaler().decide(0.0, load(36.0, 4, starting=4)).reason.code == Code.LOAD_HIGH
    assert HpaScaler().decide(0.0, load(36.0, 0, starting=4)).instances == 4, "and knows nothing without any"


def test_kubernetes_goes_up_to_the_least_of_its_window() -> None:
    scaler = HpaScaler(stabilise_up_s=60)
    assert [scaler.decide(15.0 * n, load(mean, 4)).instances for n, mean in enumerate([28, 60, 50, 60, 60])] == [
        4, 4, 4, 4, 8,
    ]  # fmt: skip


def test_kubernetes_is_not_asked_while_its_answer_stands() -> None:
    scaler = HpaScaler()
    assert scaler.decide(0.0, load(20.0, 5)).look_s == 15.0
    assert scaler.decide(15.0, load(0.0, 5)).look_s == 300.0
    assert scaler.decide(300.0, load(0.0, 5)).look_s == inf
    assert HpaScaler().decide(0.0, load(0.0, 0, starting=4)).look_s == 15.0, "until one is ready"


# --- Erlang C -------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.floats(0.01, 150), st.floats(0, 5), st.floats(0.1, 10), st.floats(0.001, 0.999))
def test_as_few_servers_as_keep_the_promise(
    erlangs: float, wait_s: float, service_s: float, late: float
) -> None:
    assume(abs(erlangs - round(erlangs)) > 1e-6)
    n = servers_for(erlangs, wait_s, service_s, late, 10_000)
    arrival_per_s, service_per_s = erlangs / service_s, 1.0 / service_s
    assert mmc_wait_tail(wait_s, arrival_per_s, service_per_s, n) <= late * (1 + 1e-9)
    if n - 1 > erlangs:
        assert mmc_wait_tail(wait_s, arrival_per_s, service_per_s, n - 1) > late * (1 - 1e-9)


def test_a_larger_fleet_may_be_busier() -> None:
    assert [servers_for(a, 0.0, 1.0, 0.2, 1000) for a in (10.0, 600.0)] == [14, 627]
    assert mmc_wait_tail(0.0, 10.0, 1.0, 14) == pytest.approx(0.174, abs=5e-4)


def test_a_bound_is_kept_whatever_the_load() -> None:
    assert servers_for(1e9, 1.0, 1.0, 0.05, 80) == 80


def test_the_promise_on_waiting_up_at_once_down_by_the_highest() -> None:
    scaler = QueueingScaler(service_s=2.0, wait_s=0.0, late=0.2, hold_s=60)
    up = scaler.decide(0.0, load(10.0, 2, concurrency=4))
    assert up == (4, Reason(Code.LOAD_HIGH, Constraint.NONE, 10 / 8, 10 / 16, 4), 15.0)
    assert scaler.decide(45.0, load(3.0, 4, concurrency=4)).reason.bound == Constraint.COOLDOWN
    assert scaler.decide(60.0, load(3.0, 4, concurrency=4)).instances == 3, "by the mean of a minute"
    assert scaler.decide(300.0, load(0.0, 3, concurrency=4)).instances == 2
    fresh = QueueingScaler(service_s=2.0, hold_s=60)
    assert [fresh.decide(t_s, load(1.0, 9)).instances for t_s in (0.0, 59.0, 60.0)] == [9, 9, 2]


def test_the_promise_on_waiting_scales_to_zero_and_back() -> None:
    scaler = QueueingScaler(service_s=2.0, min_instances=0, hold_s=60)
    assert scaler.decide(0.0, load(1.0, 0)).instances == 1
    assert scaler.decide(15.0, load(0.0, 1)) == (
        1, Reason(Code.HELD, Constraint.COOLDOWN, 0.0, 0.0, 0), 60.0,
    )  # fmt: skip
    assert scaler.decide(60.0, load(0.0, 1)) == (
        0, Reason(Code.LOAD_LOW, Constraint.NONE, 0.0, 0.0, 0), inf,
    )  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 200), st.floats(0, 300), st.integers(0, 300)), max_size=30),
    st.integers(1, 3),
    st.integers(4, 12),
)
def test_limits_hold_and_the_next_look_lies_ahead(
    looks: list[tuple[int, float, int]], low: int, high: int
) -> None:
    for scaler in (
        HpaScaler(min_instances=low, max_instances=high),
        QueueingScaler(min_instances=low - 1, max_instances=high, service_s=1.0),
    ):
        t_s, have = 0.0, low
        for gap_s, mean, now in looks:
            t_s += gap_s
            want, _, look_s = scaler.decide(t_s, Load(now, 0, mean, have, 0, 0, 16, 10))
            assert low - isinstance(scaler, QueueingScaler) <= want <= high
            assert want or not now
            assert look_s == t_s + 15.0 if now else look_s > t_s
            have = want
