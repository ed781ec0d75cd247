"""What the scalers do to a world: a step of ten times the load, and a day with hardly any."""

from __future__ import annotations

import heapq
from math import ceil, inf
from typing import NamedTuple

import pytest

from controllers.balancing.least_connections import LeastConnections
from controllers.queueing.fifo import FifoQueue
from controllers.scaling.agent_scaler import AgentScaler
from controllers.scaling.hpa import HpaScaler
from controllers.scaling.queueing import QueueingScaler
from glowsim.core.control_plane import ControlPlane
from glowsim.core.pool import Controllers, PoolSpec
from glowsim.core.protocols import Load, Scaler, Wanted
from glowsim.core.types import (
    Arrived,
    Dispatch,
    Event,
    Finished,
    InstanceChanged,
    Outcome,
    Request,
    Scale,
    State,
    Usage,
    Woke,
)


class Cost(NamedTuple):
    """Of a step: seconds with load above 0.8, requests that wait over 1 s, instance-hours, instances at last."""

    above_s: float
    late: float
    instance_hours: float
    have: int


def step(scaler: Scaler, step_s: float) -> Cost:
    """Return the cost of 40 minutes after a step from 8 to 80 requests/s, as a fluid in steps of 0.25 s.

    An instance serves 8 requests of 1 s at once and takes 30 s to start.
    """
    ready, starting, in_system, dt_s = 2, list[float](), 8.0, 0.25
    area = since_s = look_s = above_s = late = instance_s = 0.0
    for tick in range(int((step_s + 2400) / dt_s)):
        t_s = tick * dt_s
        stepped = t_s >= step_s
        while starting and starting[0] <= t_s:
            starting.pop(0)
            ready += 1
        if t_s >= look_s:
            mean = area / (t_s - since_s) if t_s else in_system
            seen = Load(round(in_system), 0, mean, ready, len(starting), 0, 16, 8)
            want, _, look_s = scaler.decide(t_s, seen)
            area, since_s = 0.0, t_s
            starting += [t_s + 30.0] * (want - ready - len(starting))
            ready = min(ready, want)
        serves = ready * 8.0
        if stepped:
            above_s += dt_s * (in_system / serves > 0.8)
            late += 80.0 * dt_s * (in_system - serves > serves)
            instance_s += dt_s * (ready + len(starting))
        area += in_system * dt_s
        in_system += dt_s * ((80.0 if stepped else 8.0) - min(in_system, serves))
    return Cost(above_s, late, instance_s / 3600.0, ready)


def steps(**cooldown_s: float) -> list[Cost]:
    """Return the costs by where between two looks the step falls."""
    return [step(AgentScaler(max_instances=20, **cooldown_s), 1000.0 + k) for k in range(15)]  # type: ignore[arg-type]


def test_a_symmetric_cooldown_is_dear_on_the_way_up_as_the_documentation_says() -> None:
    costs = steps()
    above, late = [cost.above_s for cost in costs], [cost.late for cost in costs]
    assert (min(above), max(above)) == (pytest.approx(65, abs=1), pytest.approx(566, abs=1))
    assert (min(late), max(late)) == (pytest.approx(5000, abs=50), pytest.approx(45_100, abs=50))


def test_a_short_cooldown_up_is_not() -> None:
    costs = steps(cooldown_up_s=15.0)
    above, late = [cost.above_s for cost in costs], [cost.late for cost in costs]
    assert (min(above), max(above)) == (pytest.approx(65, abs=1), pytest.approx(82, abs=1))
    assert (min(late), max(late)) == (pytest.approx(5000, abs=50), pytest.approx(6300, abs=50))
    assert costs == steps(cooldown_up_s=0.0), "it looks every 15 s"
    assert {cost.have for cost in costs} == {20}, "half loaded, which is not low"


@pytest.mark.parametrize(
    ("scaler", "above_s", "late", "instance_hours", "have"),
    [
        (AgentScaler(min_instances=2, max_instances=2), 2400, 191_960, 1.3, 2),
        (AgentScaler(max_instances=20, cooldown_up_s=15.0), 75, 5780, 13.3, 20),
        (HpaScaler(max_instances=20), 95, 7340, 10.4, 15),
        (QueueingScaler(max_instances=20, service_s=1.0), 1845, 6140, 8.7, 11),
    ],
)
def test_the_table_of_the_readme(
    scaler: Scaler, above_s: float, late: float, instance_hours: float, have: int
) -> None:
    cost = step(scaler, 1000.0)
    assert cost.above_s == pytest.approx(above_s, abs=1)
    assert cost.late == pytest.approx(late, abs=20)
    assert cost.instance_hours == pytest.approx(instance_hours, abs=0.05)
    assert cost.have == have


class Counted:
    """A scaler whose looks are counted."""

    def __init__(self, scaler: AgentScaler) -> None:
        self.decide_as = scaler
        self.looks = 0

    def decide(self, t_s: float, load: Load) -> Wanted:
        self.looks += 1
        return self.decide_as.decide(t_s, load)


def quiet(scaler: AgentScaler, gap_s: float, tasks: int, startup_s: float = 20.0) -> tuple[int, float]:
    """Return the looks, and the seconds of instances, of tasks of 1 s that come one by one."""
    counted = Counted(scaler)
    spec = PoolSpec(0, 2, 2, (0,), 600.0, inf, 5.0, 10, 10, 10)
    chosen = Controllers(queue=FifoQueue(limit=9), balancer=LeastConnections(), scaler=counted)  # type: ignore[arg-type]
    plane = ControlPlane([(spec, chosen)])
    coming: list[tuple[float, int, Event]] = []
    begun: dict[int, float] = {}
    instance_s, put = 0.0, 0

    def expect(event: Event) -> None:
        nonlocal put
        put += 1
        heapq.heappush(coming, (event[0], put, event))

    for n in range(tasks):
        expect(Arrived(gap_s * (n + 1), Request(n + 1, 0, 100, 100)))
    while coming or plane.next_wake_s() < inf:
        due_s = plane.next_wake_s()
        event = Woke(due_s) if not coming or due_s <= coming[0][0] else heapq.heappop(coming)[2]
        t_s = event[0]
        for command in plane.handle(event):
            match command:
                case Dispatch(attempt=attempt):
                    expect(Finished(t_s + 1.0, attempt, Outcome.OK, Usage(100, 0, 50)))
                case Scale(want=want, victims=victims):
                    for victim in victims:
                        expect(InstanceChanged(t_s, 0, victim, State.GONE))
                        instance_s += t_s - begun.pop(victim)
                    for number in range(len(begun), want):
                        begun[number] = t_s
                        expect(InstanceChanged(t_s, 0, number, State.STARTING))
                        expect(InstanceChanged(t_s + startup_s, 0, number, State.READY))
    return counted.looks, instance_s + gap_s * tasks * len(begun)


@pytest.mark.parametrize(
    ("look_s", "startup_s", "looks"), [(15.0, 20.0, 4), (30.0, 20.0, 3), (15.0, 10.0, 3)]
)
def test_a_task_that_finds_nothing_costs_a_few_looks(look_s: float, startup_s: float, looks: int) -> None:
    """The arrival, every ``look_s`` until it is done, and the end of the wait before the instance goes."""
    scaler = AgentScaler(min_instances=0, cooldown_up_s=0.0, idle_s=300.0, look_s=look_s)
    counted, instance_s = quiet(scaler, 2787.0, 31, startup_s)
    assert counted == 31 * looks == 31 * (2 + ceil((startup_s + 1.0) / look_s))
    assert instance_s == 31 * (look_s * ceil((startup_s + 1.0) / look_s) + 300.0)


def test_a_task_that_finds_an_idle_fleet_at_its_minimum_costs_two_looks() -> None:
    counted, _ = quiet(AgentScaler(min_instances=2), 2787.0, 31)
    assert counted == 2 * 31 + 1, "and one more at first: its two instances have to start"


def test_a_fleet_without_work_is_never_looked_at() -> None:
    assert quiet(AgentScaler(min_instances=0), 86_400.0, 1)[0] == 4
    assert quiet(AgentScaler(min_instances=0), 86_400.0 * 300, 1)[0] == 4
