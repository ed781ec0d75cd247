"""Timers fire in order and are dropped with their owners; equal timeouts take no more room than the open work."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from controllers.balancing.round_robin import RoundRobin
from controllers.queueing.fifo import FifoQueue
from glowsim.core.control_plane import ControlPlane
from glowsim.core.pool import Controllers, PoolSpec
from glowsim.core.timers import Timers
from glowsim.core.types import Arrived, Finished, InstanceChanged, Outcome, Request, State, Usage

delays_s = st.sampled_from([1.0, 2.5, 30.0])


@given(st.lists(st.tuples(st.floats(0.0, 5.0), delays_s, st.integers(0, 2), st.booleans()), max_size=40))
def test_timers_fire_as_a_sorted_list_of_the_living_would(set_them):
    t_s, dead, expected = 0.0, set(), []
    timers = Timers(
        {kind: lambda number: number not in dead for kind in range(2)}
    )  # those of kind 2 always matter
    for number, (gap_s, delay_s, kind, dies) in enumerate(set_them):
        t_s += gap_s
        if number % 3:
            timers.after(t_s, delay_s, kind, number)
        else:
            timers.at(t_s + delay_s, kind, number)
        if dies:
            dead.add(number)
        if kind == 2 or not dies:
            expected.append((t_s + delay_s, kind, number))
    fired = []
    while (timer := timers.pop(1e9)) is not None:
        fired.append(timer)
    assert fired == sorted(expected)
    assert timers.next_due_s() == inf


def test_timeouts_of_answered_requests_do_not_pile_up_until_they_are_due():
    timeout_s = 1000.0
    spec = PoolSpec(0, 1, 1, (0,), timeout_s, inf, 30.0, 10, 10, 10)
    plane = ControlPlane([(spec, Controllers(FifoQueue(limit=10), RoundRobin()))])
    plane.handle(InstanceChanged(0.0, 0, 0, State.READY))
    for number in range(1, 500):
        plane.handle(Arrived(float(number), Request(number, 0, 9, 9)))
        plane.handle(Finished(number + 0.5, number, Outcome.OK, Usage()))
    assert sum(len(lane) for lane in plane.timers._lanes.values()) <= 2
    plane.handle(Arrived(500.0, Request(500, 0, 9, 9)))
    assert plane.next_wake_s() == 500.0 + timeout_s
