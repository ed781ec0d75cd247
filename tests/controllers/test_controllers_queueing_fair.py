"""The fair queue: its bound, a model of itself, shares by weight, and who makes room."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.queueing.fair import FairQueue
from controllers.queueing.fifo import FifoQueue
from glowsim.core.protocols import Queue
from glowsim.core.types import Request


class Model:
    """Flows as lists, everything by search."""

    def __init__(self, limit: int, weights: tuple[float, ...]) -> None:
        self.limit, self.weights = limit, weights
        self.forget()
        self.listed = self.lengths = 0

    def forget(self) -> None:
        self.waiting: dict[int, list[Request]] = {}
        self.counters: dict[int, float] = {}
        self.turn: dict[int, int] = {}
        self.since: dict[int, int] = {}
        self.virtual = 0.0

    def cost(self, request: Request) -> float:
        weight = self.weights[min(request.priority, len(self.weights) - 1)]
        return (request.tokens_in + 2.0 * request.max_tokens_out) / weight

    def changed(self, flow: int) -> None:
        self.lengths += 1
        self.since[flow] = self.lengths

    def push(self, request: Request) -> int:
        refused, flow = 0, request.tenant
        if sum(map(len, self.waiting.values())) == self.limit:
            most = max(map(len, self.waiting.values()))
            if len(self.waiting.get(flow, ())) + 1 >= most:
                return request.request_id
            longest = [each for each, lane in self.waiting.items() if len(lane) == most]
            first = min(longest, key=lambda each: self.since[each])
            refused = self.waiting[first].pop().request_id
            self.changed(first)
        if flow not in self.turn:
            self.counters[flow] = max(self.counters.get(flow, 0.0), self.virtual)
            self.listed += 1
            self.turn[flow] = self.listed
        self.waiting.setdefault(flow, []).append(request)
        self.changed(flow)
        return refused

    def pop(self) -> int:
        while True:
            flow = min(self.turn, key=lambda each: (self.counters[each], self.turn[each]))
            if self.waiting[flow]:
                break
            del self.turn[flow]
        request = self.waiting[flow].pop(0)
        self.changed(flow)
        self.virtual = self.counters[flow]
        self.counters[flow] += self.cost(request)
        del self.turn[flow]
        if self.waiting[flow]:
            self.listed += 1
            self.turn[flow] = self.listed
        self.rest()
        return request.request_id

    def remove(self, request: Request) -> None:
        self.waiting[request.tenant].remove(request)
        self.changed(request.tenant)
        self.rest()

    def rest(self) -> None:
        if not any(self.waiting.values()):
            self.forget()


call = st.tuples(
    st.sampled_from(["push"] * 6 + ["pop"] * 5 + ["remove"]),
    st.integers(0, 3),
    st.integers(0, 2),
    st.integers(1, 40),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(call, min_size=40, max_size=120), st.integers(1, 20))
def test_it_does_what_the_model_does(plan: list[tuple[str, int, int, int]], limit: int) -> None:
    queue = FairQueue(limit=limit, output_weight=2.0, weights=(4, 1))
    model = Model(limit, (4, 1))
    for number, (what, tenant, priority, tokens) in enumerate(plan, 1):
        waiting = [each for lane in model.waiting.values() for each in lane]
        if what == "push":
            request = Request(number, 0, tokens, tokens * 7 % 50, priority, tenant=tenant)
            assert queue.push(0.0, request) == model.push(request)
        elif waiting and what == "pop":
            assert queue.pop(0.0) == model.pop()
        elif waiting:
            gone = waiting[tokens % len(waiting)]
            queue.remove(0.0, gone)
            model.remove(gone)
        assert len(queue) == sum(map(len, model.waiting.values()))


def widest_gap(queue: Queue, plan: list[tuple[str, int, int, int]]) -> float:
    """Return the most that the bound was missed by: for two flows, over any time in which both wait."""
    weights = (4.0, 1.0)
    flows = range(4)
    waiting: dict[int, Request] = {}
    largest, served = dict.fromkeys(flows, 0.0), dict.fromkeys(flows, 0.0)
    seen: dict[tuple[int, int], tuple[float, float]] = {}
    worst = -1e9
    for number, (what, flow, priority, tokens) in enumerate(plan, 1):
        before = {each.tenant for each in waiting.values()}
        if what == "push":
            request = Request(number, 0, tokens, tokens // 2, priority, tenant=flow % 4)
            waiting[number] = request
            assert queue.push(0.0, request) == 0
        elif waiting and what == "pop":
            request = waiting.pop(queue.pop(0.0))
            charged = (request.tokens_in + 4.0 * request.max_tokens_out) / weights[min(request.priority, 1)]
            served[request.tenant] += charged
            largest[request.tenant] = max(largest[request.tenant], charged)
        elif waiting:
            queue.remove(0.0, waiting.pop(sorted(waiting)[tokens % len(waiting)]))
        after = {each.tenant for each in waiting.values()}
        for pair in combinations(flows, 2):
            gap = served[pair[0]] - served[pair[1]]
            if before.issuperset(pair):
                low, high = seen.get(pair, (gap, gap))
                seen[pair] = min(low, gap), max(high, gap)
                worst = max(worst, seen[pair][1] - seen[pair][0] - largest[pair[0]] - largest[pair[1]])
            if not after.issuperset(pair):
                seen.pop(pair, None)
            elif not before.issuperset(pair):
                seen[pair] = gap, gap
    return worst


long_plans = st.lists(call, min_size=60, max_size=140)


@settings(max_examples=80, deadline=None)
@given(long_plans)
def test_of_two_flows_that_wait_neither_gets_much_more(plan: list[tuple[str, int, int, int]]) -> None:
    assert widest_gap(FairQueue(weights=(4, 1)), plan) <= 1e-9


HOG = [("push", 1, 1, 20)] * 30 + [("push", 2, 1, 20)] * 30 + [("pop", 0, 0, 1)] * 40


def test_first_come_first_served_breaks_the_bound() -> None:
    assert widest_gap(FifoQueue(), HOG) > 1000
    assert widest_gap(FairQueue(weights=(4, 1)), HOG) <= 0


@pytest.mark.parametrize(("priority", "share"), [(0, 0.75), (1, 0.5)])
def test_shares_follow_the_weights_whoever_asks_for_more(priority: int, share: float) -> None:
    queue = FairQueue(weights=(3, 1))
    for number in range(1, 901):  # tenant 2 sends twice as much
        one = number % 3 == 0
        queue.push(0.0, Request(number, 0, 100, 50, priority if one else 1, tenant=1 if one else 2))
    popped = [queue.pop(0.0) for _ in range(200)]
    assert sum(number % 3 == 0 for number in popped) / 200 == pytest.approx(share, abs=0.01)
    fifo = FifoQueue()
    for number in range(1, 901):
        fifo.push(0.0, Request(number, 0, 100, 50))
    assert sum(fifo.pop(0.0) % 3 == 0 for _ in range(200)) / 200 == pytest.approx(1 / 3, abs=0.01)


def test_nobody_saves_up_service_while_away() -> None:
    queue = FairQueue()
    for number in range(1, 101):
        queue.push(0.0, Request(number, 0, 100, 0, tenant=1))
    for _ in range(50):
        queue.pop(0.0)
    for number in range(101, 121):
        queue.push(1.0, Request(number, 0, 100, 0, tenant=2))
    newcomers = [queue.pop(1.0) > 100 for _ in range(20)]
    assert sum(newcomers) in (10, 11), "half of what is served from now on, not all of it"


def test_of_ten_flows_each_gets_its_turn_in_ten() -> None:
    queue = FairQueue(per="user")
    for number in range(1000):
        queue.push(0.0, Request(number + 1, 0, 100, 0, user=number // 100))
    for _ in range(100):
        turn = [(queue.pop(0.0) - 1) // 100 for _ in range(10)]
        assert sorted(turn) == list(range(10))


def test_whoever_floods_it_loses_only_what_is_its_own() -> None:
    queue = FairQueue(limit=12)
    for number in range(1, 13):
        assert queue.push(0.0, Request(number, 0, 1, 1, tenant=1)) == 0
    assert queue.push(0.0, Request(13, 0, 1, 1, tenant=1)) == 13
    room = [queue.push(0.0, Request(20 + n, 0, 1, 1, tenant=2 + n % 2)) for n in range(10)]
    assert room == [12, 11, 10, 9, 8, 7, 6, 5, 28, 29], "the flood's youngest, until all three have four"


def test_keys_that_are_equal_modulo_flows_share_one() -> None:
    queue = FairQueue(flows=2)
    for number, tenant in ((1, 4), (2, 6), (3, 5)):
        queue.push(0.0, Request(number, 0, 1, 1, tenant=tenant))
    assert [queue.pop(0.0) for _ in range(3)] == [1, 3, 2]


def test_weights_are_needed() -> None:
    with pytest.raises(ValueError, match="weights: give at least one"):
        FairQueue(weights=())
