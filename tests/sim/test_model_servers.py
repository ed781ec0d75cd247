"""Model servers by themselves: who gets a call, what a fault takes away, and what is counted."""

from __future__ import annotations

from collections import Counter

import pytest

from glowsim.core.types import Outcome
from glowsim.sim.environment import Environment
from glowsim.sim.servers import ROUTERS, Distant, ModelServer, hear_end
from glowsim.sim.serving.call import Call

TAKES_S = 1.0


class Replica:
    """Ends every call after a second, unless it is dropped."""

    def __init__(self, environment):
        self.environment = environment
        self.inside = {}
        self.speed = 1.0

    def start(self, call):
        self.inside[call.number] = call
        self.environment.call_at(self.environment.now + TAKES_S, self.end, call)

    def end(self, call):
        if self.inside.pop(call.number, None) is not None:
            call.written = call.tokens_out
            hear_end(call)

    def cancel(self, call):
        del self.inside[call.number]

    def set_speed(self, speed):
        self.speed = speed

    def __len__(self):
        return len(self.inside)


class Task:
    """Whose calls they are: a branch, its job and their engine in one."""

    def __init__(self, environment, server, *, gives_up=False):
        self.environment = environment
        self.server = server
        self.gives_up = gives_up
        self.open = {}
        self.heard = []
        self.job = self.engine = self

    def calls(self, number, *, tokens_in=10, tokens_out=5, own_key=0):
        call = Call(number, tokens_in, tokens_out, own_key=own_key, owner=self)
        self.open[call] = self.server
        self.server.start(call)
        return call

    def go_on(self, branch, call):
        self.heard.append((call.number, call.outcome, self.environment.now))
        if self.gives_up:
            for other, server in self.open.items():
                server.cancel(other)
            self.open.clear()


def made(replicas=2, router="round_robin", **task):
    environment = Environment()
    server = ModelServer(environment, [Replica(environment) for _ in range(replicas)], ROUTERS[router]())
    return environment, server, Task(environment, server, **task)


def places(server):
    return {number: place for place, each in enumerate(server.replicas) for number in each.inside}


def test_calls_go_round_or_to_the_least_loaded_or_stay_with_their_session():
    _, server, task = made(3)
    for number in range(6):
        task.calls(number)
    assert places(server) == {0: 0, 1: 1, 2: 2, 3: 0, 4: 1, 5: 2}
    _, server, task = made(3, "least_loaded")
    for number in range(4):
        task.calls(number)
    server.cancel(next(call for call in task.open if call.number == 1))
    task.calls(4)
    assert places(server) == {0: 0, 2: 2, 3: 0, 4: 1}
    _, server, task = made(3, "session")
    for number in range(600):
        task.calls(number, own_key=number % 60 + 1)
    homes = {}
    for number, place in places(server).items():
        homes.setdefault(number % 60, set()).add(place)
    assert all(len(each) == 1 for each in homes.values()), "what it said before is cached there"
    assert min(Counter(place for (place,) in homes.values()).values()) > 10


def test_a_fault_loses_the_calls_on_its_replicas_and_no_others():
    environment, server, task = made()
    for number in range(4):
        task.calls(number)
    server.take_down([0, 7])  # a place that is not there is nobody's
    assert [(number, outcome) for number, outcome, _ in task.heard] == [
        (0, Outcome.LOST), (2, Outcome.LOST),
    ]  # fmt: skip
    assert places(server) == {1: 1, 3: 1}
    task.calls(4)
    assert places(server)[4] == 1
    environment.run()
    assert [(number, outcome) for number, outcome, _ in task.heard[2:]] == [
        (number, Outcome.OK) for number in (1, 3, 4)
    ]
    assert (server.calls, server.failed) == (5, 2)


def test_a_replica_is_back_when_no_fault_keeps_it_away_any_more():
    environment, server, task = made(1)
    server.take_down([0])
    server.take_down([0])
    server.bring_back([0])
    task.calls(1)
    environment.run()
    assert task.heard == [(1, Outcome.UNREACHABLE, 0.0)]
    server.bring_back([0])
    task.calls(2)
    environment.run()
    assert task.heard[1:] == [(2, Outcome.OK, TAKES_S)]


def test_a_task_that_ends_with_one_lost_call_does_not_hear_of_the_other():
    _, server, task = made(1, gives_up=True)
    task.calls(1)
    task.calls(2)
    server.take_down([0])
    assert [number for number, _, _ in task.heard] == [1]
    assert server.calls == 2


def test_a_call_that_was_dropped_before_it_was_refused_is_not_heard_of():
    environment, server, task = made(1)
    server.take_down([0])
    call = task.calls(1)
    server.cancel(call)
    environment.run()
    assert task.heard == []


def test_slow_replicas_multiply_their_faults_and_are_as_before_in_the_end():
    _, server, _ = made(3)
    server.slow([0, 1], 2.0)
    server.slow([0, 9], 4.0)
    assert [each.speed for each in server.replicas] == [1 / 8, 1 / 2, 1.0]
    server.slow([0, 1], 1 / 2.0)
    assert [each.speed for each in server.replicas] == [1 / 4, 1.0, 1.0]
    server.slow([0, 9], 1 / 4.0)
    assert [each.speed for each in server.replicas] == [1.0, 1.0, 1.0]


def test_what_it_did_is_counted():
    environment, server, task = made(2)
    for number in range(5):
        task.calls(number, tokens_in=100 + number, tokens_out=50 - 20 * number if number < 2 else 1)
    environment.run()
    task.calls(9, tokens_in=1, tokens_out=1)
    environment.run()
    assert server.figures() == {
        "calls": 6, "failed": 0, "tokens_in": 100 + 101 + 102 + 103 + 104 + 1, "tokens_cached": 0,
        "tokens_out": 50 + 30 + 1 + 1 + 1 + 1, "most_at_once": 3, "longest": 150,
    }  # fmt: skip


def test_a_distant_server_is_reached_after_the_round_trip():
    environment, near, task = made(1)
    task.server = Distant(environment, near, 0.25)
    task.calls(1)
    environment.run()
    assert task.heard == [(1, Outcome.OK, pytest.approx(0.25 + TAKES_S))]


@pytest.mark.parametrize(("after_s", "used"), [(0.1, 0), (0.5, 10)])
def test_a_call_that_is_dropped_on_its_way_used_nothing(after_s, used):
    environment, near, task = made(1)
    task.server = Distant(environment, near, 0.25)
    call = task.calls(1)
    environment.run_until(after_s)
    task.server.cancel(call)
    environment.run()
    assert (call.tokens_in, near.calls, task.heard) == (used, int(used > 0), [])
