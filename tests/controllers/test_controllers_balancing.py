"""Balancers: whom they pick, how evenly, how few keys they move, and what a pick costs."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, exp, sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from controllers.balancing import least_connections
from controllers.balancing.adaptive import Adaptive
from controllers.balancing.affinity import Affinity
from controllers.balancing.consistent_hash import ConsistentHash
from controllers.balancing.ip_hash import IpHash
from controllers.balancing.least_connections import LeastConnections
from controllers.balancing.peak_ewma import PeakEwma
from controllers.balancing.power_of_two import PowerOfTwo
from controllers.balancing.round_robin import RoundRobin
from controllers.balancing.weighted import Weighted, slow_start
from glowsim.core.instance import UNLIMITED, Eligible, Instance
from glowsim.core.streams import Stream
from glowsim.core.types import Outcome, Request, State

REQUEST = Request(1, 0, 1, 1)
MAKERS: dict[str, Callable[[], Any]] = {
    "round robin": RoundRobin,
    "least connections": LeastConnections,
    "power of two": lambda: PowerOfTwo(Stream(3)),
    "weighted": lambda: Weighted(weights=(3, 1, 2), load_bias=0.5, slow_start_s=20),
    "adaptive": lambda: Adaptive(memory=3, recover_s=5, weights=(1, 2), slow_start_s=10),
    "peak ewma": lambda: PeakEwma(Stream(4), decay_s=5, failed_s=2),
    "ip hash": IpHash,
    "consistent hash": lambda: ConsistentHash(key="user", points=16),
    "unbounded hash": lambda: ConsistentHash(key="tenant", points=16, bound=None),
    "affinity": lambda: Affinity(sessions=12),
}


class Fleet:
    """One pool's instances, told to a balancer as the pool tells them."""

    def __init__(self, balancer: Any, ready: int = 0, slots: int = 4) -> None:
        self.balancer, self.slots = balancer, slots
        self.instances: dict[int, Instance] = {}
        self.eligible = Eligible(self.instances)
        self.joined = 0
        for _ in range(ready):
            self.join()

    def tell(self, method: str, *arguments: Any) -> None:
        if hasattr(self.balancer, method):
            getattr(self.balancer, method)(*arguments)

    def join(self, t_s: float = 0.0, region: int = 0) -> Instance:
        instance = self.instances[self.joined] = Instance(self.joined, region, self.slots)
        self.joined += 1
        instance.state = State.READY
        self.tell("joined", t_s, instance)
        self.refresh(instance)
        return instance

    def leave(self, instance: Instance, t_s: float = 0.0) -> None:
        instance.state = State.DRAINING
        self.refresh(instance)
        self.tell("left", t_s, instance.number)
        del self.instances[instance.number]

    def shut(self, instance: Instance, cap: int = 0) -> None:
        instance.set_gate(cap, 0.0)
        self.refresh(instance)

    def refresh(self, instance: Instance) -> None:
        self.eligible.refresh(instance)
        self.tell("moved", instance)

    def pick(
        self, request: Request = REQUEST, t_s: float = 0.0, allowed: Sequence[Instance] | None = None
    ) -> Instance:
        allowed = self.eligible if allowed is None else allowed
        chosen: Instance = self.balancer.pick(t_s, request, allowed)
        assert chosen.place >= 0
        assert chosen in allowed if len(allowed) < 100 else chosen.number in self.instances
        chosen.in_flight += 1
        self.refresh(chosen)
        return chosen

    def end(
        self, instance: Instance, t_s: float = 0.0, outcome: Outcome = Outcome.OK, duration_s: float = 1.0
    ) -> None:
        instance.in_flight -= 1
        self.refresh(instance)
        self.tell("ended", t_s, instance, outcome, duration_s)

    def once(self, request: Request = REQUEST, t_s: float = 0.0, **ended: Any) -> int:
        chosen = self.pick(request, t_s)
        self.end(chosen, t_s, **ended)
        return chosen.number


def asked(rng: random.Random, number: int, keys: int = 20) -> Request:
    """Return a request of one of so many sessions, users and tenants; 0 is none."""
    session, user, tenant = (rng.randrange(keys) for _ in range(3))
    return Request(number, 0, 9, 9, session=session, user=user, tenant=tenant)


def live(fleet: Fleet, rng: random.Random, steps: int, *, listed: bool = False) -> list[int]:
    """Lead a fleet through a random life; return the picks. ``listed`` hides that the list is the pool's."""
    t_s, busy, picks = 0.0, list[Instance](), list[int]()
    for number in range(steps):
        t_s += rng.random()
        draw = rng.random()
        ready = sorted(fleet.instances)
        if draw < 0.02 and len(ready) < 12:
            fleet.join(t_s)
        elif draw < 0.04 and len(ready) > 2:
            fleet.leave(fleet.instances[rng.choice(ready)], t_s)
        elif draw < 0.1:
            fleet.shut(fleet.instances[rng.choice(ready)], rng.choice([0, 1, UNLIMITED]))
        elif draw < 0.5 and busy:
            outcome = rng.choice([Outcome.OK, Outcome.OK, Outcome.ERROR, Outcome.CANCELLED])
            fleet.end(busy.pop(rng.randrange(len(busy))), t_s, outcome, rng.random() * 9)
        elif fleet.eligible:
            allowed: Sequence[Instance] | None = list(fleet.eligible) if listed else None
            if draw > 0.9 and len(fleet.eligible) > 1:  # another try elsewhere
                without = rng.choice(fleet.eligible)
                allowed = [each for each in fleet.eligible if each is not without]
            busy.append(fleet.pick(asked(rng, number + 1), t_s, allowed))
            picks.append(busy[-1].number)
    return picks


@pytest.fixture(scope="module", autouse=True)
def few_are_two():
    """Have least connections keep its heap from the third instance on, so that these small fleets see it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(least_connections, "_FEW", 2)
        yield


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("seed", range(5))
def test_the_index_decides_as_going_through_the_list_does(name: str, seed: int) -> None:
    picks = live(Fleet(MAKERS[name](), 5), random.Random(seed), 1500)
    assert picks == live(Fleet(MAKERS[name](), 5), random.Random(seed), 1500, listed=True)
    assert len(set(picks)) > 5


@pytest.mark.parametrize("name", MAKERS)
def test_restored_in_the_middle_of_a_fleets_life_it_goes_on_alike(name: str) -> None:
    fleet, rng = Fleet(MAKERS[name](), 5), random.Random(8)
    for _ in range(12):
        live(fleet, rng, 60)
        twin = MAKERS[name]()
        twin.restore(json.loads(json.dumps(fleet.balancer.snapshot(), allow_nan=False)))
        assert twin.snapshot() == fleet.balancer.snapshot()
        fleet.balancer = twin
    through, rng = Fleet(MAKERS[name](), 5), random.Random(8)
    for _ in range(12):
        live(through, rng, 60)
    assert through.balancer.snapshot() == fleet.balancer.snapshot()


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_kept_of_instances_goes_with_them(name: str) -> None:
    fleet = Fleet(MAKERS[name](), 3)
    for _ in range(200):
        oldest = fleet.instances[min(fleet.instances)]
        fleet.shut(oldest)
        for _ in range(5):
            fleet.once()
        fleet.join()
        fleet.leave(oldest)
    late = Instance(0, 0, 4)  # an attempt that outlived its instance
    late.in_flight, late.state = 1, State.DRAINING
    fleet.pick()
    fleet.end(late)
    for instance in list(fleet.instances.values()):
        fleet.leave(instance)
        fleet.tell("left", 0.0, instance.number)
    kept = {
        k: v for k, v in fleet.balancer.snapshot().items() if isinstance(v, dict | list) and k != "_homes"
    }
    assert all(not (value["is"] if isinstance(value, dict) else value) for value in kept.values()), kept
    assert len(getattr(fleet.balancer, "_heap", ())) < 100


def test_a_weighted_heap_drops_those_that_left_before_their_turn() -> None:
    fleet = Fleet(Weighted(weights=(1e-9,)), 2)
    for _ in range(4):
        fleet.once()
    for _ in range(500):
        fleet.leave(fleet.join())
    assert len(fleet.balancer._heap) < 100


# --- what a pick costs ----------------------------------------------------------------------------------


def bytecodes(call: Callable[[], object]) -> int:
    """Return how many bytecodes a call executes, those of what it calls included."""
    count = 0

    def trace(frame: Any, event: str, argument: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


def costs(balancer: Any, n: int, keys: int, requests: int = 100) -> tuple[float, float]:
    """Return the mean bytecodes of a pick, and of what is told of a request, with 40 % of the slots in use."""
    fleet, rng = Fleet(balancer, n, slots=1), random.Random(5)
    busy = [fleet.pick(asked(rng, i + 1, keys)) for i in range(4 * n // 10)]
    picking = telling = 0
    for i in range(requests):
        request, t_s = asked(rng, i + 1, keys), 1.0 + i

        def pick(request: Request = request, t_s: float = t_s) -> None:
            busy.append(balancer.pick(t_s, request, fleet.eligible))

        picking += bytecodes(pick)
        busy[-1].in_flight += 1
        for instance, change in ((busy[-1], 0), (busy.pop(rng.randrange(len(busy))), 1)):
            instance.in_flight -= change
            fleet.eligible.refresh(instance)
            if hasattr(balancer, "moved"):
                telling += bytecodes(lambda instance=instance: balancer.moved(instance))
        if hasattr(balancer, "ended"):
            telling += bytecodes(
                lambda instance=instance, t_s=t_s: balancer.ended(t_s, instance, Outcome.OK, 1.0)
            )
    return picking / requests, telling / requests


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("keys", ["few", "many"])
def test_a_pick_among_ten_thousand_costs_little_more_than_among_a_hundred(name: str, keys: str) -> None:
    few, many = (costs(MAKERS[name](), n, 3 if keys == "few" else n) for n in (100, 10_000))
    assert many[0] <= 3 * few[0]
    assert many[1] <= 3 * few[1]


# --- round robin ------------------------------------------------------------------------------------------


@given(st.lists(st.sets(st.integers(0, 6), min_size=1), max_size=40))
def test_turns_go_up_by_number_past_those_that_are_away(offers: list[set[int]]) -> None:
    fleet, last = Fleet(RoundRobin(), 7), -1
    for offer in offers:
        for instance in fleet.instances.values():
            fleet.shut(instance, UNLIMITED if instance.number in offer else 0)
        last = min((number for number in offer if number > last), default=min(offer))
        assert fleet.once() == last


@pytest.mark.parametrize(("n", "picks"), [(1, 5), (7, 100), (10, 1000)])
def test_turns_are_fair(n: int, picks: int) -> None:
    fleet = Fleet(RoundRobin(), n)
    counts = Counter(fleet.once() for _ in range(picks))
    assert max(counts.values()) - min(counts[number] for number in range(n)) <= 1


# --- least connections --------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=60))
def test_least_connections_has_the_least_and_breaks_ties_by_the_last_pick(
    steps: list[tuple[int, bool]],
) -> None:
    fleet, last, busy = Fleet(LeastConnections(), 5, slots=3), dict[int, int](), list[Instance]()
    for ordinal, (which, ends) in enumerate(steps, 1):
        if ends and busy:
            fleet.end(busy.pop(which % len(busy)))
        elif fleet.eligible:
            expected = min(
                fleet.eligible, key=lambda each: (each.in_flight, last.get(each.number, 0), each.number)
            )
            assert fleet.pick() is expected
            last[expected.number] = ordinal
            busy.append(expected)


def test_least_connections_does_not_herd_on_one_of_equals() -> None:
    fleet = Fleet(LeastConnections(), 10)
    assert Counter(fleet.once() for _ in range(100)) == dict.fromkeys(range(10), 10)


def test_least_connections_drops_entries_that_no_longer_hold() -> None:
    balancer = LeastConnections()
    fleet = Fleet(balancer, 10, slots=1000)
    busy = [fleet.pick() for _ in range(2000)]
    for _ in range(20):  # nothing idle is ever picked, so nothing reaches the top
        idle = fleet.join()
        for instance in busy[:50]:
            fleet.end(instance)
        fleet.leave(idle)
        busy = busy[50:]
    assert len(balancer._heap) <= 2 * 12 + 64


# --- power of two ---------------------------------------------------------------------------------------------


def instances(*in_flight: int) -> list[Instance]:
    made = [Instance(number, 0, 8) for number in range(len(in_flight))]
    for each, load in zip(made, in_flight, strict=True):
        each.in_flight = load
    return made


def test_two_choices_never_take_the_most_loaded_and_draw_every_pair_alike() -> None:
    """Of n instances of different loads, rank k (0 the least) wins with probability 2 (n-1-k) / (n (n-1))."""
    allowed, picks = instances(4, 0, 3, 1, 2), 20_000
    balancer = PowerOfTwo(Stream(8))
    counts = Counter(balancer.pick(0.0, REQUEST, allowed).in_flight for _ in range(picks))
    assert counts[4] == 0
    expected = [picks * 2 * (4 - rank) / 20 for rank in range(4)]
    assert stats.chisquare([counts[rank] for rank in range(4)], expected).pvalue > 1e-4


@pytest.mark.parametrize("make", [PowerOfTwo, PeakEwma])
def test_of_two_instances_the_busier_is_never_taken(make: Callable[[Stream], Any]) -> None:
    """Drawn with replacement, one in four picks would compare it with itself."""
    fleet = Fleet(make(Stream(2)), 2)
    for instance in fleet.instances.values():  # both have answered, alike
        instance.in_flight += 1
        fleet.end(instance)
    busier = fleet.pick()
    assert all(fleet.once() != busier.number for _ in range(1000))


@pytest.mark.parametrize("make", [PowerOfTwo, PeakEwma])
def test_two_choices_among_equals_are_uniform(make: Callable[[Stream], Any]) -> None:
    allowed, balancer = instances(0, 0, 0, 0), make(Stream(9))
    counts = Counter(balancer.pick(0.0, REQUEST, allowed).number for _ in range(20_000))
    assert stats.chisquare([counts[number] for number in range(4)]).pvalue > 1e-4


def test_two_choices_compare_shares_of_the_slots() -> None:
    small, large = Instance(0, 0, 2), Instance(1, 0, 16)
    small.in_flight, large.in_flight = 1, 4
    assert PowerOfTwo(Stream(1)).pick(0.0, REQUEST, [small, large]) is large


@pytest.mark.parametrize("make", [PowerOfTwo, PeakEwma])
def test_one_instance_costs_no_draw(make: Callable[[Stream], Any]) -> None:
    stream = Stream(1)
    (only,) = instances(5)
    assert make(stream).pick(0.0, REQUEST, [only]) is only
    assert stream.drawn == 0


# --- weighted, slow start, adaptive -----------------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_shares_are_exact_over_a_cycle_and_spread_within_it(weights: list[int]) -> None:
    """Of k picks an instance of share p out of n has between k p - n p and k p + 1."""
    n, total = len(weights), sum(weights)
    fleet, counts = Fleet(Weighted(weights=tuple(map(float, weights))), n), Counter[int]()
    for k in range(1, 10 * total + 1):
        counts[fleet.once()] += 1
        for number, weight in enumerate(weights):
            ahead = counts[number] - k * weight / total
            assert -n * weight / total - 1e-6 <= ahead <= 1 + 1e-6
        if k % total == 0:
            assert [counts[number] * total for number in range(n)] == [k * weight for weight in weights]


def test_weights_may_go_by_region() -> None:
    fleet = Fleet(Weighted(weights=(3, 1), per="region"))
    for region in (1, 0, 1):
        fleet.join(region=region)
    counts = Counter(fleet.once() for _ in range(500))
    assert [counts[number] for number in range(3)] == [100, 300, 100]


def test_work_in_flight_lowers_a_weight_by_the_bias() -> None:
    """Weight / (in flight + 1) ** bias: with 3 in flight and bias 1 a quarter, so one pick in five of two."""
    fleet = Fleet(Weighted(load_bias=1.0), 2, slots=8)
    fleet.instances[0].in_flight = 3
    assert Counter(fleet.once() for _ in range(500)) == {0: 100, 1: 400}
    assert Weighted(load_bias=2.0, weights=(8,)).weight(0.0, fleet.instances[0]) == 0.5


def test_one_that_was_away_does_not_catch_up() -> None:
    fleet = Fleet(Weighted(), 2)
    fleet.once()
    fleet.shut(fleet.instances[1])
    assert {fleet.once() for _ in range(50)} == {0}
    fleet.shut(fleet.instances[1], UNLIMITED)
    back = [fleet.once() for _ in range(10)]
    assert 1 in back[:2]
    assert Counter(back)[1] in (5, 6)
    assert sum(one == other == 1 for one, other in pairwise(back)) <= 1


def test_slow_start_follows_the_published_formula() -> None:
    for age_s, window_s, aggression in [(0, 60, 1), (1, 60, 1), (30, 60, 1), (30, 60, 2), (45, 60, 0.5)]:
        share = max(0.1, (max(age_s, 1) / window_s) ** (1 / aggression))
        assert slow_start(age_s, window_s, aggression) == pytest.approx(share)
    assert slow_start(60, 60, 1) == slow_start(0, 0, 1) == slow_start(0, 0.5, 1) == 1
    for earlier, later in pairwise(range(70)):
        assert 0.1 <= slow_start(earlier, 60, 1.5) <= slow_start(later, 60, 1.5) <= 1


def test_a_new_instance_gets_a_share_that_rises_to_its_full_one() -> None:
    fleet = Fleet(Weighted(slow_start_s=100), 4)
    fleet.join(1000.0)
    shares = []
    for window in range(6):
        ages_s = [window * 25 + i / 40 for i in range(1000)]
        counts = Counter(fleet.once(t_s=1000 + age_s) for age_s in ages_s)
        ramp = sum(slow_start(age_s, 100, 1) for age_s in ages_s) / 1000
        shares.append(counts[4] / 1000)
        assert shares[-1] == pytest.approx(ramp / (4 + ramp), rel=0.06)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(0.2)


def shares_of(fleet: Fleet, from_s: float, served: Callable[[int], dict[str, Any]]) -> list[float]:
    """Serve 4,000 requests in 400 s; return each one's share of the last half of them."""
    numbers = []
    for i in range(4000):
        chosen = fleet.pick(t_s=from_s + i / 10)
        fleet.end(chosen, from_s + i / 10, **served(chosen.number))
        numbers.append(chosen.number)
    counts = Counter(numbers[2000:])
    return [counts[number] / 2000 for number in sorted(fleet.instances)]


def test_weights_fall_for_a_slow_and_a_failing_instance_and_recover() -> None:
    """With four at full weight, one at 1/4 and one at the floor: shares in proportion to the weights."""
    fleet, rng = Fleet(Adaptive(), 6), random.Random(3)

    def troubled(number: int) -> dict[str, Any]:
        duration_s = rng.uniform(0.5, 1.5) * (4 if number == 0 else 1)
        return {"duration_s": duration_s, "outcome": Outcome.ERROR if number == 1 else Outcome.OK}

    slow, failing, *healthy = shares_of(fleet, 0.0, troubled)
    assert slow / max(healthy) == pytest.approx(0.28, abs=0.06)
    assert failing / max(healthy) == pytest.approx(0.1, abs=0.02)
    assert max(healthy) / min(healthy) < 1.1
    well = shares_of(fleet, 400.0, lambda number: {"duration_s": rng.uniform(0.5, 1.5)})
    assert well == pytest.approx([1 / 6] * 6, abs=0.02)


def test_without_word_of_an_instance_its_weight_comes_back() -> None:
    balancer = Adaptive(memory=4, recover_s=60)
    fleet = Fleet(balancer, 1)
    (only,) = fleet.instances.values()
    for _ in range(3):
        fleet.once(outcome=Outcome.TIMEOUT)
    lost = 1 - 0.75**3
    for age_s in (0.0, 60.0, 120.0):
        assert balancer.weight(age_s, only) == pytest.approx(1 - lost * exp(-age_s / 60))
    fleet.once(outcome=Outcome.INVALID)
    fleet.once(outcome=Outcome.CANCELLED)
    assert balancer.weight(0.0, only) == pytest.approx(1 - lost)
    for _ in range(50):
        fleet.once(outcome=Outcome.ERROR)
    assert balancer.weight(0.0, only) == 0.1


def test_the_typical_latency_moves_slower_the_more_instances_there_are() -> None:
    """With memory 1 an instance's latency is its last, and a fourth of it enters the typical one of four."""
    balancer = Adaptive(memory=1)
    fleet = Fleet(balancer, 4)
    for _ in range(4):
        fleet.once(duration_s=1.0)
    slow = fleet.instances[fleet.once(duration_s=9.0)]
    assert balancer.weight(0.0, slow) == pytest.approx((1 + (9 - 1) / 4) / 9)


def test_no_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="weights: there are none"):
        Weighted(weights=())


# --- peak ewma --------------------------------------------------------------------------------------------------


def test_a_peak_is_jumped_to_and_decays() -> None:
    balancer = PeakEwma(Stream(1), decay_s=10, failed_s=5)
    fleet = Fleet(balancer, 1)
    (only,) = fleet.instances.values()
    fleet.once(t_s=0.0, duration_s=2.0)
    fleet.once(t_s=0.0, duration_s=8.0)
    assert balancer.cost(0.0, only) == 8.0
    assert balancer.cost(10.0, only) == pytest.approx(8 * exp(-1))
    fleet.once(t_s=10.0, duration_s=1.0)
    assert balancer.cost(10.0, only) == pytest.approx(8 * exp(-1) + 1 * (1 - exp(-1)))
    only.in_flight = 3
    assert balancer.cost(10.0, only) == pytest.approx(4 * (8 * exp(-1) + 1 * (1 - exp(-1))))
    fleet.end(only, 10.0, Outcome.CANCELLED, 500.0)
    fleet.end(only, 10.0, Outcome.ERROR, 0.001)
    assert balancer.cost(10.0, only) == pytest.approx(2 * 5)


def test_one_that_has_not_answered_gets_a_single_request() -> None:
    fleet = Fleet(PeakEwma(Stream(2)), 3)
    first = [fleet.pick() for _ in range(3)]
    assert len({each.number for each in first}) == 3
    for each in first[:2]:
        fleet.end(each, 1.0)
    assert all(fleet.once(t_s=1.0) != first[2].number for _ in range(100))


def test_slow_and_fast_failing_instances_get_less() -> None:
    fleet = Fleet(PeakEwma(Stream(3), failed_s=10), 4)
    slow, failing, *healthy = shares_of(
        fleet,
        0.0,
        lambda number: {
            "duration_s": (5.0, 0.01, 1.0, 1.0)[number],
            "outcome": Outcome.ERROR if number == 1 else Outcome.OK,
        },
    )
    assert slow < 0.2 < 0.3 < min(healthy)
    assert failing < 0.2


# --- hashes -----------------------------------------------------------------------------------------------------


def homes(fleet: Fleet, keys: range) -> list[int]:
    return [fleet.once(Request(1, 0, 1, 1, session=key, user=key)) for key in keys]


def moved(before: list[int], after: list[int]) -> list[tuple[int, int]]:
    return [(old, new) for old, new in zip(before, after, strict=True) if old != new]


KEYS = range(1, 5001)


def test_ip_hash_is_even_and_moves_nearly_everybody_when_the_pool_grows() -> None:
    fleet = Fleet(IpHash(), 10)
    before = homes(fleet, KEYS)
    assert stats.chisquare(list(Counter(before).values())).pvalue > 1e-4
    assert before == homes(fleet, KEYS)
    fleet.join()
    assert len(moved(before, homes(fleet, KEYS))) / len(KEYS) == pytest.approx(10 / 11, abs=0.02)


def test_ip_hash_moves_only_the_users_of_an_instance_that_is_away_and_moves_them_back() -> None:
    fleet = Fleet(IpHash(), 10)
    before = homes(fleet, KEYS)
    fleet.shut(fleet.instances[4])
    away = homes(fleet, KEYS)
    assert {old for old, _ in moved(before, away)} == {4}
    assert len({new for _, new in moved(before, away)}) == 9
    fleet.shut(fleet.instances[0])
    fleet.shut(fleet.instances[0], UNLIMITED)  # the list has another order now
    assert homes(fleet, KEYS) == away
    fleet.shut(fleet.instances[4], UNLIMITED)
    assert homes(fleet, KEYS) == before


def test_a_consistent_hash_moves_only_the_keys_of_who_leaves_or_joins() -> None:
    fleet = Fleet(ConsistentHash(bound=None), 20)
    before = homes(fleet, KEYS)
    fleet.leave(fleet.instances[7])
    without = homes(fleet, KEYS)
    assert {old for old, _ in moved(before, without)} == {7}
    assert before.count(7) == len(moved(before, without))
    assert before.count(7) / len(KEYS) == pytest.approx(1 / 20, rel=0.4)
    fleet.join()
    after = homes(fleet, KEYS)
    assert {new for _, new in moved(without, after)} == {20}
    assert after.count(20) / len(KEYS) == pytest.approx(1 / 20, rel=0.4)


@pytest.mark.parametrize("points", [16, 128])
def test_shares_of_the_ring_vary_by_one_over_the_root_of_its_points(points: int) -> None:
    fleet, n, keys = Fleet(ConsistentHash(bound=None, points=points), 200), 200, range(1, 40_001)
    counts = Counter(homes(fleet, keys))
    mean = len(keys) / n
    variance = sum((counts[number] - mean) ** 2 for number in range(n)) / n
    assert sqrt(variance - mean) / mean == pytest.approx(1 / sqrt(points), rel=0.2)


@pytest.mark.parametrize("bound", [1.05, 1.25, 2.0])
def test_a_bounded_load_is_never_exceeded_and_a_single_hot_key_overflows(bound: float) -> None:
    fleet, rng, busy = Fleet(ConsistentHash(bound=bound), 20, slots=100), random.Random(4), list[Instance]()
    for step in range(3000):
        if busy and rng.random() < 0.48:
            fleet.end(busy.pop(rng.randrange(len(busy))))
            continue
        if step % 300 == 0:
            fleet.shut(fleet.instances[rng.randrange(20)], rng.choice([0, UNLIMITED]))
        limit = ceil(bound * (len(busy) + 1) / len(fleet.eligible))
        hot = rng.random() < 0.7
        busy.append(fleet.pick(Request(step + 1, 0, 1, 1, session=5 if hot else rng.randrange(1, 99))))
        assert busy[-1].in_flight <= limit


def test_a_key_stays_at_home_while_there_is_room_and_comes_back() -> None:
    fleet = Fleet(ConsistentHash(key="user", bound=1.5), 5)
    request = Request(1, 0, 1, 1, user=77)
    home = fleet.pick(request)
    spilled = fleet.pick(request)
    assert spilled is not home
    fleet.end(home)
    fleet.end(spilled)
    assert fleet.pick(request) is home


def test_the_bound_is_on_the_average_of_those_that_may_get_work() -> None:
    fleet = Fleet(ConsistentHash(bound=1.25), 4)
    fleet.shut(fleet.instances[0])
    fleet.shut(fleet.instances[1])
    request = Request(1, 0, 1, 1, session=3)
    assert fleet.pick(request) is fleet.pick(request), "ceil(1.25 x 2 / 2) is 2, over all four it would be 1"


@pytest.mark.parametrize("bound", [None, 1.001])
def test_a_few_with_room_among_many_are_found(bound: float | None) -> None:
    """At a bound of nearly 1, of 200 instances those idle are the only ones below ceil(199 / 200)."""
    fleet = Fleet(ConsistentHash(bound=bound), 200)
    if bound is None:
        for instance in list(fleet.instances.values())[2:]:
            fleet.shut(instance)
        assert {fleet.once(Request(key, 0, 1, 1, session=key)) for key in range(1, 200)} == {0, 1}
    else:
        for key in range(1, 200):
            fleet.pick(Request(key, 0, 1, 1, session=key))
        assert Counter(each.in_flight for each in fleet.instances.values()) == {1: 199, 0: 1}


def test_requests_without_a_key_are_spread() -> None:
    for balancer in (IpHash(), ConsistentHash(bound=None)):
        fleet = Fleet(balancer, 5)
        assert len({fleet.once(Request(number, 0, 1, 1)) for number in range(1, 100)}) == 5


# --- affinity ---------------------------------------------------------------------------------------------------


def test_a_session_stays_while_its_instance_may_get_work_and_then_stays_where_it_went() -> None:
    fleet, rng, home = Fleet(Affinity(), 4), random.Random(6), dict[int, Instance]()
    busy = list[Instance]()
    for step in range(4000):
        if busy and rng.random() < 0.5:
            fleet.end(busy.pop(rng.randrange(len(busy))))
        elif step % 100 == 0:
            fleet.leave(fleet.instances[min(fleet.instances)])
            busy = [each for each in busy if each.number in fleet.instances]
            fleet.join()
        elif fleet.eligible:
            session = rng.randrange(1, 20)
            least = min(each.in_flight for each in fleet.eligible)
            known = home.get(session)
            chosen = fleet.pick(Request(1, 0, 1, 1, session=session))
            if known is not None and (known.place >= 0 or known is chosen):
                assert chosen is known
            else:
                assert chosen.in_flight == least + 1
            home[session] = chosen
            busy.append(chosen)


def test_it_remembers_so_many_sessions_and_forgets_the_least_recently_seen() -> None:
    fleet = Fleet(Affinity(sessions=2), 3)
    a, b, c = (Request(1, 0, 1, 1, session=session) for session in (1, 2, 3))
    assert [fleet.once(each) for each in (a, b, a, c, a)] == [0, 1, 0, 2, 0]
    assert [fleet.once(each) for each in (b, c)] == [0, 1], "b and c begin anew, at the least recently picked"
    assert len(fleet.balancer.snapshot()["_homes"]["is"]) == 2


def test_requests_without_a_session_have_no_home() -> None:
    fleet = Fleet(Affinity(), 3)
    assert [fleet.once() for _ in range(4)] == [0, 1, 2, 0]
    assert fleet.balancer.snapshot()["_homes"]["is"] == []
