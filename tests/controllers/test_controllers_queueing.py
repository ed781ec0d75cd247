"""The priority queue against sorting, and its memory."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.queueing.priority import PriorityQueue
from glowsim.core.types import Request

calls = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(["push", "push", "pop", "remove"]), st.integers(0, 9)),
    max_size=120,
)


@settings(max_examples=200, deadline=None)
@given(calls, st.sampled_from([None, 1, 4, 60]), st.integers(1, 20))
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
            assert queue.push(float(t_s), request) == (0 if len(waiting) < limit else request.request_id)
            if len(waiting) < limit:
                waiting.append((request, t_s))
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


def test_a_request_that_was_removed_may_come_again() -> None:
    queue = PriorityQueue(limit=10)
    first, second = Request(1, 0, 1, 1), Request(2, 0, 1, 1)
    queue.push(0.0, first)
    queue.push(1.0, second)
    queue.remove(2.0, first)
    queue.push(3.0, first)
    assert [queue.pop(4.0), queue.pop(4.0), len(queue)] == [2, 1, 0]


def test_the_removed_do_not_pile_up() -> None:
    queue = PriorityQueue(limit=10)
    stays = Request(0, 0, 1, 1, priority=9)
    queue.push(0.0, stays)
    for number in range(1, 5000):
        request = Request(number, 0, 1, 1)
        queue.push(float(number), request)
        queue.remove(float(number), request)
        assert len(queue.snapshot()["_heap"]) <= 70
    assert queue.pop(5000.0) == 0
