"""Adaptive LIFO: its two orders, and what it saves under overload."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.queueing.adaptive_lifo import AdaptiveLifoQueue
from controllers.queueing.fifo import FifoQueue
from glowsim.core.protocols import Queue
from glowsim.core.types import Request


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["push", "push", "pop", "remove"])), max_size=80),
    st.integers(1, 8),
    st.integers(0, 9),
)
def test_the_newest_go_first_once_it_has_stood_too_long(
    plan: list[tuple[int, str]], limit: int, overload_s: int
) -> None:
    queue = AdaptiveLifoQueue(limit=limit, overload_s=overload_s)
    waiting: list[Request] = []
    t_s, empty_s = 0, 0
    for number, (gap, what) in enumerate(plan, 1):
        t_s += gap
        empty_s = empty_s if waiting else t_s
        if what == "push":
            shed = waiting.pop(0).request_id if len(waiting) == limit else 0
            waiting.append(Request(number, 0, 1, 1))
            assert queue.push(t_s, waiting[-1]) == shed
        elif waiting and what == "pop":
            assert queue.pop(t_s) == waiting.pop(-1 if t_s - empty_s > overload_s else 0).request_id
        elif waiting:
            queue.remove(t_s, waiting.pop(number % len(waiting)))
        assert len(queue) == len(waiting)


def answered(queue: Queue, load: float, patience_s: float, seed: int) -> float:
    """Return the share that one server with services of 1 s answers while their clients still wait."""
    rng, count = np.random.default_rng(seed), 3000
    arrivals = np.cumsum(rng.exponential(1 / load, count)).tolist()
    waiting: dict[int, float] = {}
    done, free_s, coming = 0, 0.0, 0
    while coming < count or waiting:
        if not waiting:
            free_s = max(free_s, arrivals[coming])
        while coming < count and arrivals[coming] <= free_s:
            waiting[coming + 1] = arrivals[coming]
            coming += 1
            queue.push(arrivals[coming - 1], Request(coming, 0, 1, 1))
        for late in [each for each, since_s in waiting.items() if since_s + patience_s <= free_s]:
            del waiting[late]
            queue.remove(free_s, Request(late, 0, 1, 1))
        if waiting:
            since_s = waiting.pop(queue.pop(free_s))
            free_s += 1.0
            done += free_s <= since_s + patience_s
    return done / count


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_under_overload_it_answers_those_who_are_still_there(seed: int) -> None:
    first_come = answered(FifoQueue(), 1.3, 10.0, seed)
    adaptive = answered(AdaptiveLifoQueue(overload_s=5.0), 1.3, 10.0, seed)
    assert first_come < 0.5
    assert adaptive > 0.7


def test_without_overload_it_is_first_come_first_served() -> None:
    queues: list[Queue] = [AdaptiveLifoQueue(overload_s=30.0), FifoQueue()]
    assert len({answered(queue, 0.6, 10.0, 1) for queue in queues}) == 1
