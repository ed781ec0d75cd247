"""Earliest deadline first against search, Jackson's rule, and itself without an estimate."""

from __future__ import annotations

from itertools import permutations
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.queueing.deadline import DeadlineQueue
from controllers.queueing.fifo import FifoQueue
from glowsim.core.protocols import Queue
from glowsim.core.types import Request


class Model:
    """Lists, everything by search; those without hope are moved as soon as they are first in line."""

    def __init__(self, limit: int, service_s: int, patience_s: int) -> None:
        self.limit, self.service_s, self.patience_s = limit, service_s, patience_s
        self.hoping: list[tuple[float, int, Request]] = []
        self.hopeless: list[Request] = []

    def look(self, t_s: int) -> None:
        self.hoping.sort(key=lambda entry: entry[:2])
        while self.hoping and self.hoping[0][2].deadline_s < t_s + self.service_s:
            self.hopeless.append(self.hoping.pop(0)[2])

    def push(self, t_s: int, request: Request) -> int:
        refused = None
        if len(self.hoping) + len(self.hopeless) == self.limit:
            if request.deadline_s < t_s + self.service_s:
                return request.request_id
            self.look(t_s)
            lowest = max((entry[2].priority for entry in self.hoping), default=0)
            if self.hopeless:
                refused = self.hopeless.pop(0)
            elif lowest > request.priority:
                youngest = max(
                    (e for e in self.hoping if e[2].priority == lowest), key=lambda e: e[2].request_id
                )
                self.hoping.remove(youngest)
                refused = youngest[2]
            else:
                return request.request_id
        due_s = min(request.deadline_s, t_s + self.patience_s if request.deadline_s == inf else inf)
        self.hoping.append((due_s, request.request_id, request))
        return 0 if refused is None else refused.request_id

    def pop(self, t_s: int) -> int:
        self.look(t_s)
        return (self.hoping.pop(0)[2] if self.hoping else self.hopeless.pop()).request_id

    def remove(self, request_id: int) -> Request:
        gone = next(r for r in self.all() if r.request_id == request_id)
        self.hoping = [entry for entry in self.hoping if entry[2] is not gone]
        self.hopeless = [each for each in self.hopeless if each is not gone]
        return gone

    def all(self) -> list[Request]:
        return [*(entry[2] for entry in self.hoping), *self.hopeless]


call = st.tuples(
    st.integers(0, 3),
    st.sampled_from(["push", "push", "push", "pop", "remove"]),
    st.integers(0, 9),
    st.one_of(st.just(inf), st.integers(0, 15)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(call, max_size=80), st.integers(1, 6), st.integers(0, 4), st.integers(1, 12))
def test_it_does_what_the_model_does(
    plan: list[tuple[int, str, int, float]], limit: int, service_s: int, patience_s: int
) -> None:
    queue = DeadlineQueue(limit=limit, service_s=service_s, patience_s=patience_s)
    model, t_s = Model(limit, service_s, patience_s), 0
    for number, (gap, what, priority, left_s) in enumerate(plan, 1):
        t_s += gap
        if what == "push":
            request = Request(number, 0, 1, 1, priority, deadline_s=t_s + left_s)
            assert queue.push(t_s, request) == model.push(t_s, request)
        elif model.all() and what == "pop":
            assert queue.pop(t_s) == model.pop(t_s)
        elif model.all():
            waiting = sorted(each.request_id for each in model.all())
            queue.remove(t_s, model.remove(waiting[priority % len(waiting)]))
        assert len(queue) == len(model.all())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 20)), min_size=1, max_size=6))
def test_if_any_order_lets_all_of_them_make_it_this_one_does(jobs: list[tuple[int, int]]) -> None:
    def all_make_it(order: tuple[int, ...]) -> bool:
        t_s = 0
        for each in order:
            t_s += jobs[each][0]
            if t_s > jobs[each][1]:
                return False
        return True

    queue = DeadlineQueue(limit=6)
    for number, (_, deadline_s) in enumerate(jobs):
        queue.push(0.0, Request(number + 1, 0, 1, 1, deadline_s=deadline_s))
    order = tuple(queue.pop(0.0) - 1 for _ in jobs)
    assert all_make_it(order) == any(all_make_it(each) for each in permutations(range(len(jobs))))


def on_time(queue: Queue, load: float, seed: int) -> float:
    """Return the share that one server with services of 1 s ends before their deadlines."""
    rng = np.random.default_rng(seed)
    count = 4000
    arrivals = np.cumsum(rng.exponential(1 / load, count)).tolist()
    requests = [
        Request(number + 1, 0, 1, 1, deadline_s=arrivals[number] + left_s)
        for number, left_s in enumerate(rng.uniform(1.5, 20.0, count).tolist())
    ]
    waiting: dict[int, Request] = {}
    done, free_s, coming = 0, 0.0, 0
    while coming < count or waiting:
        if not waiting:
            free_s = max(free_s, arrivals[coming])
        while coming < count and arrivals[coming] <= free_s:
            queue.push(arrivals[coming], requests[coming])
            waiting[coming + 1] = requests[coming]
            coming += 1
        for late in [each for each in waiting.values() if each.deadline_s <= free_s]:
            queue.remove(free_s, waiting.pop(late.request_id))
        if waiting:
            request = waiting.pop(queue.pop(free_s))
            free_s += 1.0
            done += free_s <= request.deadline_s
    return done / count


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_who_is_set_aside_lets_others_make_it(seed: int) -> None:
    plain, estimated = (on_time(DeadlineQueue(service_s=each), 1.5, seed) for each in (0.0, 1.0))
    first_come = on_time(FifoQueue(), 1.5, seed)
    assert estimated > 0.65
    assert estimated > plain + 0.3
    assert estimated > first_come + 0.03
    light = [on_time(queue, 0.7, seed) for queue in (DeadlineQueue(service_s=1.0), FifoQueue())]
    assert light[0] > max(0.99, light[1])


def test_without_a_deadline_one_is_due_after_its_patience_and_never_hopeless() -> None:
    queue = DeadlineQueue(service_s=5.0, patience_s=10.0)
    queue.push(0.0, Request(1, 0, 1, 1))
    queue.push(0.0, Request(2, 0, 1, 1, deadline_s=9.0))
    queue.push(90.0, Request(3, 0, 1, 1, deadline_s=99.0))
    assert [queue.pop(90.0) for _ in range(3)] == [1, 3, 2]


def test_those_that_were_shed_do_not_pile_up() -> None:
    queue = DeadlineQueue(limit=4)
    low = [Request(number, 0, 1, 1, priority=9, deadline_s=1e9) for number in range(4)]
    for each in low:
        queue.push(0.0, each)
    for number in range(4, 1000):
        assert queue.push(0.0, Request(number, 0, 1, 1, priority=0, deadline_s=1e6)) == 3
        assert queue.pop(0.0) == number
        assert queue.push(0.0, low[3]) == 0
        assert len(queue.snapshot()["_heap"]) <= 2 * 4 + 64
