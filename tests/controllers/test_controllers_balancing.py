"""Balancers: whom they pick, and how evenly."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from controllers.balancing.least_connections import LeastConnections
from controllers.balancing.power_of_two import PowerOfTwo
from glowsim.core.instance import Instance
from glowsim.core.streams import Stream
from glowsim.core.types import Request

REQUEST = Request(1, 0, 1, 1)


def instances(*in_flight: int) -> list[Instance]:
    made = [Instance(number, 0, 8) for number in range(len(in_flight))]
    for each, load in zip(made, in_flight, strict=True):
        each.in_flight = load
    return made


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), min_size=1, unique_by=lambda pair: pair[0]),
        max_size=30,
    )
)
def test_least_connections_breaks_ties_by_the_last_pick(offers: list[list[tuple[int, int]]]) -> None:
    balancer, reversed_too, picked = LeastConnections(), LeastConnections(), list[int]()
    for offer in offers:
        allowed = []
        for number, load in offer:
            allowed.append(Instance(number, 0, 8))
            allowed[-1].in_flight = load
        last = {number: when for when, number in enumerate(picked, 1)}
        expected = min(allowed, key=lambda each: (each.in_flight, last.get(each.number, 0), each.number))
        assert balancer.pick(0.0, REQUEST, allowed) is expected
        assert reversed_too.pick(0.0, REQUEST, allowed[::-1]) is expected
        picked.append(expected.number)


def test_least_connections_forgets_instances_that_are_long_gone() -> None:
    balancer = LeastConnections()
    for number in range(10_100):
        balancer.pick(0.0, REQUEST, [Instance(number, 0, 8)])
    assert len(balancer.snapshot()["_picked"]["is"]) == 10_000


def test_two_choices_never_take_the_most_loaded_and_draw_every_pair_alike() -> None:
    """Of n instances of different loads, rank k (0 the least) wins with probability 2 (n-1-k) / (n (n-1))."""
    allowed, picks = instances(4, 0, 3, 1, 2), 20_000
    balancer = PowerOfTwo(Stream(8))
    counts = Counter(balancer.pick(0.0, REQUEST, allowed).in_flight for _ in range(picks))
    assert counts[4] == 0
    expected = [picks * 2 * (4 - rank) / 20 for rank in range(4)]
    assert stats.chisquare([counts[rank] for rank in range(4)], expected).pvalue > 1e-4


def test_two_choices_among_equals_are_uniform() -> None:
    allowed, balancer = instances(1, 1, 1, 1), PowerOfTwo(Stream(9))
    counts = Counter(balancer.pick(0.0, REQUEST, allowed).number for _ in range(20_000))
    assert stats.chisquare([counts[number] for number in range(4)]).pvalue > 1e-4


def test_two_choices_compare_shares_of_the_slots() -> None:
    small, large = Instance(0, 0, 2), Instance(1, 0, 16)
    small.in_flight, large.in_flight = 1, 4
    assert PowerOfTwo(Stream(1)).pick(0.0, REQUEST, [small, large]) is large


def test_one_instance_costs_no_draw() -> None:
    stream = Stream(1)
    (only,) = instances(5)
    assert PowerOfTwo(stream).pick(0.0, REQUEST, [only]) is only
    assert stream.drawn == 0
