"""What all queues owe, alone and within the control plane; and the priority queue against sorting."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from fractions import Fraction
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.balancing.round_robin import RoundRobin
from controllers.queueing.adaptive_lifo import AdaptiveLifoQueue
from controllers.queueing.deadline import DeadlineQueue
from controllers.queueing.fair import FairQueue
from controllers.queueing.fifo import FifoQueue
from controllers.queueing.priority import PriorityQueue
from glowsim.core.control_plane import ControlPlane
from glowsim.core.pool import Controllers, PoolSpec
from glowsim.core.types import (
    Arrived,
    Code,
    Dispatch,
    Event,
    Fail,
    Finished,
    InstanceChanged,
    Outcome,
    Reject,
    Request,
    State,
    Usage,
    Woke,
)

QUEUES: dict[str, Callable[[int], Any]] = {
    "fifo": lambda limit: FifoQueue(limit=limit),
    "priority": lambda limit: PriorityQueue(limit=limit, ageing_s=4),
    "strict": lambda limit: PriorityQueue(limit=limit, ageing_s=None),
    "deadline": lambda limit: DeadlineQueue(limit=limit, service_s=3, patience_s=9),
    "fair": lambda limit: FairQueue(limit=limit, per="user", weights=(2, 1), flows=4),
    "adaptive_lifo": lambda limit: AdaptiveLifoQueue(limit=limit, overload_s=5),
}

calls = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(["push"] * 5 + ["pop", "remove"]), st.integers(0, 9)),
    max_size=120,
)


def drawn(rng: random.Random, number: int, t_s: float) -> Request:
    deadline_s = t_s + rng.choice([2.0, 5.0, 12.0, 40.0, inf])
    tokens_in, most = rng.randrange(1, 1000), rng.randrange(1, 500)
    user = rng.randrange(7)
    return Request(number, 0, tokens_in, most, rng.randrange(10), deadline_s=deadline_s, user=user)


@pytest.mark.parametrize("name", QUEUES)
@pytest.mark.parametrize("limit", [1, 2, 9])
def test_whoever_was_pushed_leaves_exactly_once(name: str, limit: int) -> None:
    rng, queue = random.Random(limit), QUEUES[name](limit)
    waiting: dict[int, Request] = {}
    pushed = popped = removed = shed = 0
    for number in range(1, 3000):
        t_s = number * 0.5
        what = rng.random()
        if what < 0.55:
            request = drawn(rng, number, t_s)
            refused = queue.push(t_s, request)
            pushed += 1
            waiting[number] = request
            shed += refused != 0
            if refused:
                assert len(waiting) == limit + 1, "nobody is turned away while there is room"
                del waiting[refused]
        elif waiting and what < 0.9:
            del waiting[queue.pop(t_s)]
            popped += 1
        elif waiting:
            queue.remove(t_s, waiting.pop(rng.choice(sorted(waiting))))
            removed += 1
        assert len(queue) == len(waiting) <= limit
        assert pushed == popped + removed + shed + len(queue)
    while waiting:
        del waiting[queue.pop(1500.0)]
    assert len(queue) == 0
    assert min(popped, removed, shed) > 50


@pytest.mark.parametrize("name", QUEUES)
def test_its_memory_is_bounded_by_its_limit(name: str) -> None:
    rng, queue = random.Random(1), QUEUES[name](8)
    waiting = {0: Request(0, 0, 1, 1, priority=0, deadline_s=1e9, user=5)}
    queue.push(0.0, waiting[0])
    early = largest = 0
    for number in range(1, 4000):
        waiting[number] = drawn(rng, number, number)
        waiting.pop(queue.push(float(number), waiting[number]) or -1, None)
        if len(waiting) > 4:
            for each in list(waiting)[3:]:
                queue.remove(float(number), waiting.pop(each))
        if number % 10 == 0:
            size = len(json.dumps(queue.snapshot()))
            early, largest = (max(early, size), 0) if number < 1000 else (early, max(largest, size))
    assert largest < early + 200, "a few digits more"


def test_a_queue_full_of_one_flow_does_not_lose_its_count_when_it_empties() -> None:
    for make in QUEUES.values():
        queue = make(2)
        for number in (1, 2, 3):
            queue.push(0.0, Request(number, 0, 1, 1, user=1))
        queue.pop(1.0)
        queue.pop(1.0)
        assert [len(queue), queue.push(2.0, Request(4, 0, 1, 1, user=2)), queue.pop(2.0)] == [0, 0, 4]


# --- within the control plane -----------------------------------------------------------------------


@pytest.mark.parametrize("name", QUEUES)
@pytest.mark.parametrize("seed", [1, 2])
def test_work_whose_deadline_has_passed_is_never_dispatched_and_who_is_shed_hears_of_it(
    name: str, seed: int
) -> None:
    spec = PoolSpec(
        agent=0, models=(0,), slots=2, concurrency=2, timeout_s=25.0, first_token_timeout_s=inf,
        cancel_grace_s=5.0, hold_limit=10, follower_limit=10, memory=10, probe_every_s=inf,
    )  # fmt: skip
    plane = ControlPlane([(spec, Controllers(queue=QUEUES[name](6), balancer=RoundRobin()))])
    rng = random.Random(seed)
    asked: dict[int, tuple[float, Request]] = {}
    attempts: list[int] = []
    ends: dict[int, str] = {}
    dispatched: set[int] = set()
    shed = 0

    def tell(event: Event) -> None:
        nonlocal shed
        for command in plane.handle(event):
            match command:
                case Dispatch(attempt, request_id):
                    arrived_s, request = asked[request_id]
                    assert event.t_s < min(request.deadline_s, arrived_s + 25.0)
                    assert request_id not in ends
                    attempts.append(attempt)
                    dispatched.add(request_id)
                case Reject(request_id, _, reason):
                    assert request_id not in ends
                    assert request_id not in dispatched
                    ends[request_id] = reason.code.name
                    if reason.code == Code.SHED:
                        assert asked[request_id][0] < event.t_s, "it had waited"
                        shed += 1
                case Fail(request_id, Outcome.TIMEOUT):
                    assert request_id not in ends
                    ends[request_id] = "late"

    t_s, number = 0.0, 0
    tell(InstanceChanged(0.0, 0, 1, State.READY))
    for _ in range(1500):
        t_s += rng.uniform(0.5, 1.5)
        while (due_s := plane.next_wake_s()) <= t_s:
            tell(Woke(due_s))
        if attempts and rng.random() < 0.4:
            tell(Finished(t_s, attempts.pop(rng.randrange(len(attempts))), Outcome.OK, Usage(9, 0, 9)))
        else:
            number += 1
            request = drawn(rng, number, t_s)
            asked[number] = (t_s, request)
            tell(Arrived(t_s, request))
    told = set(ends.values())
    assert {"late", "QUEUE_FULL"} & told
    assert len(dispatched) > 300
    assert (shed > 20) == (name != "fifo"), "first come, first served turns away whoever comes"


# --- priority ---------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(calls, st.sampled_from([None, 1, 4, 60]), st.integers(1, 12))
def test_the_next_is_the_one_with_the_best_aged_priority(
    plan: list[tuple[int, str, int]], ageing_s: int | None, limit: int
) -> None:
    queue = PriorityQueue(limit=limit, ageing_s=ageing_s)
    waiting: list[tuple[Request, int]] = []
    t_s = 0

    def rank(entry: tuple[Request, int]) -> Fraction:
        steps = Fraction(0) if ageing_s is None else Fraction(t_s - entry[1], ageing_s)
        return entry[0].priority - steps

    for number, (gap, what, value) in enumerate(plan, 1):
        t_s += gap
        if what == "push":
            request = Request(number, 0, 1, 1, priority=value)
            waiting.append((request, t_s))
            refused = 0
            if len(waiting) > limit:
                worst = max(waiting, key=lambda entry: (entry[0].priority, entry[0].request_id))
                waiting.remove(worst)
                refused = worst[0].request_id
            assert queue.push(float(t_s), request) == refused
        elif waiting and what == "pop":
            best = min(waiting, key=rank)  # the first of equals: first in, first out
            assert queue.pop(float(t_s)) == best[0].request_id
            waiting.remove(best)
        elif waiting:
            gone = waiting.pop(value % len(waiting))
            queue.remove(float(t_s), gone[0])
        assert len(queue) == len(waiting)


def test_nothing_starves() -> None:
    queue = PriorityQueue(limit=100, ageing_s=10)
    queue.push(0.0, Request(0, 0, 1, 1, priority=9))
    popped = []
    for second in range(1, 200):
        queue.push(float(second), Request(second, 0, 1, 1, priority=0))
        popped.append(queue.pop(float(second)))
    assert popped.index(0) == 89, "in second 90: nine steps of ten seconds"


def test_the_more_important_the_less_is_shed() -> None:
    rng, queue = random.Random(4), PriorityQueue(limit=20, ageing_s=30)
    shed = dict.fromkeys(range(10), 0)
    priorities: dict[int, int] = {}
    for number in range(1, 5000):
        priorities[number] = rng.randrange(10)
        refused = queue.push(number * 0.5, Request(number, 0, 1, 1, priority=priorities[number]))
        if refused:
            shed[priorities[refused]] += 1
        if number % 2:
            queue.pop(number * 0.5)
    assert list(shed.values()) == sorted(shed.values())
    assert shed[0] == 0 < shed[9]


def test_a_request_that_was_removed_may_come_again() -> None:
    for make in QUEUES.values():
        queue = make(10)
        first, second = Request(1, 0, 1, 1), Request(2, 0, 1, 1)
        queue.push(0.0, first)
        queue.push(1.0, second)
        queue.remove(2.0, first)
        queue.push(3.0, first)
        assert [queue.pop(4.0), queue.pop(4.0), len(queue)] == [2, 1, 0]
