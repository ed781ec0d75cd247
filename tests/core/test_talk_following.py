"""What balancers and breakers hear of instances: who came, who went, what moved, how attempts ended."""

from __future__ import annotations

import pytest

from controllers.balancing.round_robin import RoundRobin
from glowsim.core.types import Change, ChangeKind, Outcome, State


class Listening(RoundRobin):
    """A balancer that writes down what it hears, and that keeps in step with the list of the eligible."""

    state = (*RoundRobin.state, "heard", "loads")

    def __init__(self):
        super().__init__()
        self.heard = []
        self.loads = {}

    def joined(self, t_s, instance):
        self.heard.append(f"{t_s:g} joined {instance.number}")

    def left(self, t_s, instance):
        self.heard.append(f"{t_s:g} left {instance}")

    def moved(self, instance):
        self.loads[instance.number] = (instance.in_flight, instance.place >= 0)

    def ended(self, t_s, instance, outcome, duration_s):
        self.heard.append(f"{t_s:g} ended {instance.number} {outcome.name} {duration_s:g}")


def listener(talk):
    return talk.plane.pools[0].controllers.balancer


def in_step(talk):
    pool = talk.plane.pools[0]
    return all(
        listener(talk).loads[number] == (each.in_flight, each.place >= 0)
        for number, each in pool.instances.items()
    )


def test_a_balancer_follows_an_instance_through_its_life(talk_to):
    talk = talk_to(balancer=Listening, slots=2)
    talk.instance(0.0, 0, State.STARTING)
    talk.ready(1.0, 0)
    assert in_step(talk)
    talk.arrives(2.0, 1)
    assert listener(talk).loads == {0: (1, True)}
    talk.arrives(3.0, 2)
    assert listener(talk).loads == {0: (2, False)}
    talk.finishes(4.0, 1)
    talk.finishes(5.0, 2, Outcome.ERROR)
    assert in_step(talk)
    talk.instance(6.0, 0, State.DRAINING)
    talk.instance(7.0, 0, State.GONE)
    assert listener(talk).heard == [
        "1 joined 0", "4 ended 0 OK 2", "5 ended 0 ERROR 2", "6 left 0", "7 left 0",
    ]  # fmt: skip


def test_a_ready_instance_that_says_so_again_has_not_joined_again(talk_to):
    talk = talk_to(balancer=Listening)
    talk.ready(0.0, 0)
    talk.ready(1.0, 0)
    assert listener(talk).heard == ["0 joined 0"]


def test_victims_leave_at_once(talk_to):
    talk = talk_to(balancer=Listening)
    talk.ready(0.0, 0, 1)
    talk.ordered(1.0, Change(ChangeKind.SET_INSTANCES, 0, 1))
    assert listener(talk).heard == ["0 joined 0", "0 joined 1", "1 left 1"]
    assert listener(talk).loads[1] == (0, False)


@pytest.mark.parametrize("failed_first", [True, False])
def test_a_gate_that_moves_is_heard_of(talk_to, tiny, failed_first):
    talk = talk_to(balancer=Listening, breaker=lambda: tiny.Fuse(failures=1))
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.finishes(2.0, 1, Outcome.ERROR if failed_first else Outcome.OK)
    assert listener(talk).loads == {0: (0, not failed_first)}
    talk.passes(12.0)
    assert listener(talk).loads == {0: (0, True)}
