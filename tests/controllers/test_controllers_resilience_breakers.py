"""Breakers behind gates as a pool keeps them: against small models, published rules and invariants."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import inf, nextafter, sqrt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.resilience.breaker import ConsecutiveBreaker
from controllers.resilience.failure_rate import FailureRateBreaker
from controllers.resilience.outlier import OutlierBreaker, lowest_rate
from controllers.resilience.probes import ProbesBreaker
from glowsim import registry
from glowsim.core.instance import UNLIMITED, Instance
from glowsim.core.protocols import Gate
from glowsim.core.types import Outcome

OK, ERROR, REFUSED = Outcome.OK, Outcome.ERROR, Outcome.UNREACHABLE
CLOSED = Gate(UNLIMITED, inf)
SLOTS = 6
BAD = {Outcome.ERROR, Outcome.TIMEOUT, Outcome.LOST}
GOOD = {Outcome.OK, Outcome.INVALID}


class Fleet:
    """Instances behind a breaker's gates: work begins below the cap, gates are asked again at their moment."""

    def __init__(self, breaker: Any, instances: int) -> None:
        self.breaker = breaker
        self.now_s = 0.0
        self.gates = dict.fromkeys(range(instances), CLOSED)
        self.began_s: dict[int, list[float]] = {number: [] for number in range(instances)}
        if hasattr(breaker, "joined"):
            for number in range(instances):
                breaker.joined(0.0, Instance(number, 0, SLOTS))

    def take(self, number: int, gate: Gate | None) -> None:
        if gate is not None:
            assert gate.until_s > self.now_s, "it is asked again later, not now"
            self.gates[number] = gate

    def passes(self, seconds: float) -> list[tuple[float, int]]:
        """Let time pass; return who was woken when."""
        until_s, woken = self.now_s + seconds, []
        while True:
            due_s, number = min((gate.until_s, number) for number, gate in self.gates.items())
            if due_s > until_s:
                break
            self.now_s = due_s
            woken.append((due_s, number))
            self.gates[number] = self.gates[number]._replace(until_s=inf)
            self.take(number, self.breaker.wake(due_s, number))
        self.now_s = until_s
        return woken

    def begins(self, number: int) -> bool:
        in_flight = self.began_s[number]
        if len(in_flight) >= min(SLOTS, self.gates[number].cap):
            return False
        in_flight.append(self.now_s)
        return True

    def ends(self, number: int, outcome: Outcome, which: int = 0) -> float:
        """End an attempt in flight; return when it had begun."""
        in_flight = self.began_s[number]
        began_s = in_flight.pop(which % len(in_flight))
        self.take(number, self.breaker.record(self.now_s, number, outcome, self.now_s - began_s))
        return began_s

    def probed(self, number: int, healthy: bool) -> None:
        self.take(number, self.breaker.probed(self.now_s, number, healthy))


def consecutive() -> ConsecutiveBreaker:
    return ConsecutiveBreaker(failures=2, open_s=8, longest_open_s=20, probes=2)


def failure_rate() -> FailureRateBreaker:
    return FailureRateBreaker(
        failure_share=0.5, slow_share=0.75, slow_s=2, minimum=3, calls=5, window_s=6, connect_failures=2,
        open_s=8, longest_open_s=20, probes=3,
    )  # fmt: skip


def outlier() -> OutlierBreaker:
    return OutlierBreaker(
        failures=3, connect_failures=2, interval_s=5, deviations=1, gap=0.05, minimum_instances=3,
        minimum_attempts=2, eject_s=8, longest_eject_s=20, max_ejected=0.5,
    )  # fmt: skip


def probes() -> ProbesBreaker:
    return ProbesBreaker(unhealthy=2, healthy=2, lapse_s=12)


ALL = [consecutive, failure_rate, outlier, probes]
OUTCOMES = [*Outcome, OK, ERROR, ERROR, ERROR, REFUSED]


def steps_of(seed: int, length: int) -> list[Any]:
    """Return steps that are cheap to draw; fewer of a seed are the first ones, so a failure can be shrunk."""
    rng, steps = random.Random(seed), []
    outcomes = OUTCOMES + [OK] * rng.choice([0, 10, 50])
    healthy = rng.choice([0.5, 0.95])
    for _ in range(length):
        steps.append(
            rng.choice(
                [
                    ("time", rng.choice([0.25, 1.0, 3.0, 9.0]), None),
                    ("begin", rng.randrange(4), rng.randint(1, SLOTS)),
                    ("end", rng.randrange(4), rng.choice(outcomes)),
                    ("end", rng.randrange(4), rng.choice(outcomes)),
                    ("probe", rng.randrange(4), rng.random() < healthy),
                ]
            )
        )
    return steps


STEPS = st.builds(steps_of, st.integers(0, 2**30), st.integers(0, 300))


def walk(fleet: Fleet, steps: list[Any], after: Callable[[], None] = lambda: None) -> None:
    for what, a, b in steps:
        number = int(a) % len(fleet.gates)
        if what == "time":
            fleet.passes(a)
        elif what == "begin":
            for _ in range(b):
                fleet.begins(number)
        elif what == "probe":
            fleet.probed(number, b)
        elif fleet.began_s[number]:
            if b == Outcome.CANCELLED:  # a pool does not record those
                fleet.began_s[number].pop()
            else:
                fleet.ends(number, b)
        after()


# --- all of them --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ALL)
@settings(max_examples=200, deadline=None)
@given(steps=STEPS)
def test_from_any_state_time_and_successes_open_the_way_again(
    make: Callable[[], Any], steps: list[Any]
) -> None:
    fleet = Fleet(make(), 4)
    walk(fleet, steps)
    for _ in range(8):
        for number in fleet.gates:
            while fleet.began_s[number]:
                fleet.ends(number, OK)
            fleet.probed(number, True)
        fleet.passes(20.0)
        for number in fleet.gates:
            while fleet.begins(number):
                pass
        fleet.passes(0.5)
    assert set(fleet.gates.values()) == {CLOSED}


@pytest.mark.parametrize("make", ALL)
@settings(max_examples=100, deadline=None)
@given(steps=STEPS)
def test_a_gate_that_is_shut_says_when_to_ask_again(make: Callable[[], Any], steps: list[Any]) -> None:
    fleet = Fleet(make(), 4)

    def shut_with_an_end() -> None:
        assert all(gate.cap > 0 or gate.until_s < inf for gate in fleet.gates.values())

    walk(fleet, steps, shut_with_an_end)


@pytest.mark.parametrize("make", [consecutive, failure_rate, outlier])
@settings(max_examples=300, deadline=None)
@given(steps=STEPS, seed=st.integers(0, 99))
def test_throttled_and_cancelled_count_as_neither(
    make: Callable[[], Any], steps: list[Any], seed: int
) -> None:
    fleet, other, rng = Fleet(make(), 4), Fleet(make(), 4), random.Random(seed)

    def noise() -> None:
        if rng.random() < 0.5:
            number, duration_s = rng.randrange(4), rng.choice([0.0, 50.0])
            outcome = rng.choice([Outcome.THROTTLED, Outcome.CANCELLED])
            assert other.breaker.record(other.now_s, number, outcome, duration_s) is None

    for step in steps:
        walk(fleet, [step])
        walk(other, [step], noise)
        assert fleet.gates == other.gates


@pytest.mark.parametrize(("make", "most"), [(consecutive, 2), (failure_rate, 3)])
@settings(max_examples=200, deadline=None)
@given(steps=STEPS)
def test_no_more_probes_are_in_flight_than_allowed(
    make: Callable[[], Any], most: int, steps: list[Any]
) -> None:
    fleet = Fleet(make(), 4)
    opened_s: dict[int, float] = {}

    def few() -> None:
        for number, gate in fleet.gates.items():
            assert gate.cap in (0, most, UNLIMITED)
            if gate.cap == 0:
                opened_s.setdefault(number, fleet.now_s)
            elif gate.cap == UNLIMITED:
                opened_s.pop(number, None)
            if number in opened_s:
                assert len([s for s in fleet.began_s[number] if s > opened_s[number]]) <= most

    walk(fleet, steps, few)


@pytest.mark.parametrize("make", ALL)
def test_the_gone_are_forgotten_and_others_are_not_touched(make: Callable[[], Any]) -> None:
    fleet = Fleet(make(), 4)
    for number in (0, 1):
        for _ in range(3):
            fleet.probed(number, False)
    assert [fleet.gates[number].cap for number in range(4)] == [0, 0, UNLIMITED, UNLIMITED]
    kept = fleet.breaker.snapshot()
    fleet.breaker.forget(0)
    fleet.breaker.forget(99)
    assert fleet.breaker.snapshot() != kept
    assert fleet.breaker.wake(500.0, 0) is None
    assert fleet.breaker.wake(500.0, 1) is not None
    for number in range(4):
        fleet.breaker.forget(number)
    empty = make().snapshot()
    assert {name: value for name, value in fleet.breaker.snapshot().items() if "_ends_s" not in name} == {
        name: value for name, value in empty.items() if "_ends_s" not in name
    }


@pytest.mark.parametrize("name", ["consecutive", "failure_rate", "outlier", "probes"])
def test_what_happens_when_all_are_open_is_stated(name: str) -> None:
    kind = registry.find("breaker", name)
    assert kind().when_all_open == "wait"
    arguments, _ = registry.check(kind, {"when_all_open": "fail"})
    assert kind(**arguments).when_all_open == "fail"
    assert registry.check(kind, {"when_all_open": "panic"})[1]


def test_a_rest_that_never_grows_may_be_asked_for() -> None:
    for breaker in (
        ConsecutiveBreaker(failures=1, open_s=5, longest_open_s=5),
        FailureRateBreaker(connect_failures=1, open_s=5, longest_open_s=5, minimum=9, calls=9),
        OutlierBreaker(failures=1, eject_s=5, longest_eject_s=5),
    ):
        fleet = Fleet(breaker, 2)
        for _ in range(3):
            fleet.begins(0)
            fleet.ends(0, REFUSED)
            assert fleet.gates[0] == Gate(0, fleet.now_s + 5)
            fleet.passes(5.0)


@pytest.mark.parametrize("make", [consecutive, failure_rate, outlier])
def test_a_passed_health_check_proves_nothing_about_work(make: Callable[[], Any]) -> None:
    fleet = Fleet(make(), 4)
    while fleet.gates[0].cap:
        fleet.begins(0)
        fleet.probed(0, True)
        fleet.ends(0, ERROR)
        assert not fleet.began_s[0]
    assert fleet.breaker.probed(fleet.now_s, 0, True) is None


# --- in a row -----------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(1, 3))
def test_consecutive_follows_its_states(steps: list[Any], failures: int) -> None:
    fleet = Fleet(ConsecutiveBreaker(failures=failures, open_s=8, probes=2, longest_open_s=20), 1)
    state, run, rest_s, opened_s = "closed", 0, 8.0, inf

    def heard(began_s: float, outcome: Outcome) -> None:
        nonlocal state, run, rest_s, opened_s
        stale = state == "half-open" and began_s <= opened_s
        if state == "open" or stale or outcome not in BAD | GOOD | {REFUSED}:
            return
        if outcome in GOOD:
            state, run, rest_s = "closed", 0, 8.0
            return
        run += 1
        if state == "half-open":
            state, rest_s, opened_s = "open", min(2 * rest_s, 20.0), fleet.now_s
        elif run == failures:
            state, opened_s = "open", fleet.now_s

    for what, a, b in steps:
        if what == "end" and fleet.began_s[0]:
            heard(fleet.ends(0, b), b)
        elif what == "probe":
            fleet.probed(0, b)
            if not b:
                heard(fleet.now_s, REFUSED)
        elif what == "time":
            fleet.passes(a)
            if state == "open" and fleet.now_s >= opened_s + rest_s:
                state = "half-open"
        elif what == "begin":
            walk(fleet, [(what, 0, b)])
        expected = {
            "closed": CLOSED, "open": Gate(0, opened_s + rest_s), "half-open": Gate(2, inf)
        }[state]  # fmt: skip
        assert fleet.gates[0] == expected
        if state == "closed":
            rest_s = 8.0


def test_how_long_evenly_spread_failures_go_unnoticed() -> None:
    rng, counts = random.Random(1), []
    for _ in range(3000):
        breaker, count = ConsecutiveBreaker(failures=3), 1
        while breaker.record(0.0, 1, ERROR if rng.random() < 0.5 else OK, 1.0) is None:
            count += 1
        counts.append(count)
    p, n = 0.5, 3
    expected = (1 - p**n) / ((1 - p) * p**n)
    assert sum(counts) / len(counts) == pytest.approx(expected, rel=0.08)


# --- shares -------------------------------------------------------------------------------------------


class Shares:
    """`failure_rate`, written over from its docstring: everything is kept, everything is counted anew."""

    def __init__(self) -> None:
        self.state, self.rest_s, self.began_s, self.end_s = "closed", 8.0, inf, inf
        self.heard: list[tuple[float, bool, bool]] = []
        self.refused = 0

    def gate(self) -> Gate:
        return {"closed": CLOSED, "open": Gate(0, self.end_s), "half-open": Gate(3, self.end_s)}[self.state]

    def turn(self, state: str, end_s: float, rest_s: float) -> None:
        self.state, self.end_s, self.rest_s = state, end_s, rest_s
        self.heard, self.refused = [], 0

    def opens(self, t_s: float) -> None:
        rest_s = 8.0 if self.state == "closed" else min(2 * self.rest_s, 20.0)
        self.turn("open", t_s + rest_s, rest_s)

    def wakes(self, t_s: float) -> None:
        if self.state == "open":
            self.began_s = t_s
            self.turn("half-open", t_s + self.rest_s, self.rest_s)
        elif self.heard:
            self.decides(t_s, len(self.heard))
        else:
            self.end_s = inf

    def ends(self, t_s: float, began_s: float, outcome: Outcome) -> None:
        if self.state == "open" or (self.state == "half-open" and began_s < self.began_s):
            return
        if outcome == REFUSED:
            self.refused += 1
            if self.state == "half-open" or self.refused == 2:
                self.opens(t_s)
        elif outcome in BAD | GOOD:
            self.refused = 0
            self.heard.append((t_s, outcome in BAD, t_s - began_s > 2))
            if self.state == "half-open":
                self.decides(t_s, 1 if self.end_s == inf else 3)
            else:
                seen = [one for one in self.heard if one[0] >= t_s - 6][-5:]
                if len(seen) >= 3 and self.too_many(seen, len(seen)):
                    self.opens(t_s)

    def too_many(self, seen: list[tuple[float, bool, bool]], of: int) -> bool:
        return 2 * [one[1] for one in seen].count(True) >= of or (
            4 * [one[2] for one in seen].count(True) >= 3 * of
        )

    def decides(self, t_s: float, needed: int) -> None:
        if self.too_many(self.heard, needed):
            self.opens(t_s)
        elif len(self.heard) >= needed:
            self.turn("closed", inf, 8.0)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_failure_rate_agrees_with_a_model_that_counts_everything_anew(steps: list[Any]) -> None:
    fleet, model = Fleet(failure_rate(), 1), Shares()
    for what, a, b in steps:
        if what == "time":
            for due_s, _ in fleet.passes(a):
                model.wakes(due_s)
        elif what == "begin":
            walk(fleet, [(what, 0, b)])
        elif what == "probe":
            fleet.probed(0, b)
            if not b:
                model.ends(fleet.now_s, fleet.now_s, REFUSED)
        elif fleet.began_s[0]:
            model.ends(fleet.now_s, fleet.ends(0, b), b)
        assert fleet.gates[0] == model.gate()


def opens_at(breaker: FailureRateBreaker, outcomes: list[Outcome], duration_s: float = 1.0) -> int:
    """Return the number of the attempt that opens it, from 1; 0: none does."""
    for number, outcome in enumerate(outcomes, 1):
        if breaker.record(float(number), 0, outcome, duration_s) is not None:
            return number
    return 0


def test_failures_below_the_minimum_never_open_it_and_a_success_may() -> None:
    assert opens_at(FailureRateBreaker(minimum=10), [ERROR] * 9) == 0
    assert opens_at(FailureRateBreaker(minimum=10), [ERROR] * 10) == 10
    assert opens_at(FailureRateBreaker(minimum=10), [ERROR] * 9 + [OK]) == 10


def test_the_share_itself_is_too_much() -> None:
    for failed, opens in ((29, 0), (30, 100)):
        outcomes = [ERROR if i < failed else OK for i in range(100)]
        assert opens_at(FailureRateBreaker(failure_share=0.3, minimum=100), outcomes) == opens
    breaker = FailureRateBreaker(failure_share=nextafter(0.3, 1.0), minimum=100)
    assert opens_at(breaker, [ERROR] * 30 + [OK] * 70) == 0


def test_slow_is_beyond_the_limit_and_apart_from_failed() -> None:
    assert opens_at(FailureRateBreaker(slow_s=60, minimum=10), [OK] * 50, 60.0) == 0
    assert opens_at(FailureRateBreaker(slow_s=60, minimum=10), [OK] * 50, 60.5) == 10
    assert opens_at(FailureRateBreaker(minimum=10), [OK] * 50, 1e6) == 0


def test_refused_connections_have_a_threshold_of_their_own() -> None:
    breaker = FailureRateBreaker(minimum=10, connect_failures=3)
    assert opens_at(breaker, [REFUSED, REFUSED, OK] * 40) == 0, "they are in no share"
    assert opens_at(FailureRateBreaker(minimum=10, connect_failures=3), [REFUSED] * 3) == 3
    assert opens_at(FailureRateBreaker(minimum=10, connect_failures=3), [ERROR] * 3) == 0


def test_a_probe_that_hangs_holds_up_no_verdict() -> None:
    fleet = Fleet(FailureRateBreaker(minimum=2, open_s=10, probes=3), 1)
    for _ in range(2):
        fleet.begins(0)
        fleet.ends(0, ERROR)
    fleet.passes(10.0)
    assert [fleet.begins(0) for _ in range(4)] == [True, True, True, False]
    fleet.passes(1.0)
    fleet.ends(0, OK)
    assert fleet.gates[0] == Gate(3, 20.0)
    fleet.passes(9.0)
    assert fleet.gates[0] == CLOSED, "one success, and two that hang"


# --- outliers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcomes", "caps"),
    [
        ([ERROR] * 4 + [REFUSED], [0]),
        ([ERROR] * 4 + [OK] + [ERROR] * 4, []),
        ([ERROR] * 4 + [Outcome.INVALID] + [ERROR] * 4, []),
        ([ERROR, Outcome.THROTTLED, Outcome.TIMEOUT, Outcome.LOST, ERROR, ERROR], [0]),
        ([REFUSED] * 3, [0]),
        ([REFUSED, REFUSED, OK, REFUSED, REFUSED], []),
        ([REFUSED, ERROR, REFUSED, REFUSED], []),
    ],
)
def test_failures_in_a_row_eject_and_refused_ones_sooner(outcomes: list[Outcome], caps: list[int]) -> None:
    fleet = Fleet(OutlierBreaker(failures=5, connect_failures=3), 2)
    for outcome in outcomes:
        fleet.begins(0)
        fleet.ends(0, outcome)
    assert [gate.cap for gate in fleet.gates.values() if gate != CLOSED] == caps


def ejected(fleet: Fleet) -> int:
    return [gate.cap for gate in fleet.gates.values()].count(0)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(1, 4), st.sampled_from([0.0, 0.1, 0.34, 0.5, 1.0]))
def test_never_more_are_ejected_than_allowed_and_never_the_last(
    steps: list[Any], instances: int, share: float
) -> None:
    breaker = OutlierBreaker(failures=1, connect_failures=1, eject_s=8, longest_eject_s=80, max_ejected=share)
    fleet = Fleet(breaker, instances)

    def few() -> None:
        assert ejected(fleet) <= min(instances - 1, max(1, int(share * instances)))

    walk(fleet, steps, few)


@pytest.mark.parametrize(
    ("share", "instances", "most"), [(0.1, 30, 3), (0.29, 100, 29), (0.1, 9, 1), (1.0, 4, 3)]
)
def test_all_that_are_allowed_are_ejected(share: float, instances: int, most: int) -> None:
    fleet = Fleet(OutlierBreaker(failures=5, max_ejected=share), instances)
    for _ in range(5):
        for number in range(instances):
            if fleet.begins(number):
                fleet.ends(number, ERROR)
    assert ejected(fleet) == most


def fails_until_ejected(fleet: Fleet, number: int) -> float:
    """Return for how long the ejection lasts."""
    while fleet.gates[number].cap:
        fleet.begins(number)
        fleet.ends(number, ERROR)
    return fleet.gates[number].until_s - fleet.now_s


def test_ejections_grow_by_their_base_up_to_the_longest_and_shrink_with_time_in_service() -> None:
    fleet = Fleet(OutlierBreaker(failures=5, eject_s=30, longest_eject_s=300, interval_s=60), 2)
    for expected_s in (30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300):
        lasts_s = fails_until_ejected(fleet, 0)
        assert lasts_s == pytest.approx(expected_s)
        fleet.passes(lasts_s)
        assert fleet.gates[0] == CLOSED
    fleet.passes(3 * 60 + 30)
    assert fails_until_ejected(fleet, 0) == pytest.approx(300 - 3 * 30 + 30), "three intervals, from ten"
    fleet.passes(10_000.0)
    assert fails_until_ejected(fleet, 0) == pytest.approx(30)


def test_attempts_from_before_an_ejection_are_not_held_against_it_later() -> None:
    fleet = Fleet(OutlierBreaker(failures=2, eject_s=30), 3)
    for _ in range(6):
        fleet.begins(0)
    for _ in range(2):
        fleet.ends(0, ERROR)
    fleet.passes(30.0)
    for _ in range(4):
        fleet.ends(0, ERROR)
    assert fleet.gates[0] == CLOSED
    assert fails_until_ejected(fleet, 0) == 60


def after_an_interval(
    breaker: OutlierBreaker, successes: list[int], of: int, quiet_s: float = 10.0
) -> list[int]:
    """Return who is ejected when each had so many successes in the interval, spread among its attempts."""
    fleet = Fleet(breaker, len(successes))
    for turn in range(of):
        for number, good in enumerate(successes):
            fleet.begins(number)
            fleet.ends(number, OK if (turn * good) // of != ((turn + 1) * good) // of else ERROR)
    fleet.passes(quiet_s)
    for number in range(len(successes)):
        fleet.begins(number)
        fleet.ends(number, OK)
    return [number for number, gate in fleet.gates.items() if gate.cap == 0]


def by_rate(**given: Any) -> OutlierBreaker:
    usual = {"failures": 999, "connect_failures": 999, "interval_s": 10, "minimum_attempts": 20, "gap": 0.0}
    return OutlierBreaker(**{**usual, **given})


def test_success_rates_eject_below_the_mean_by_population_deviations() -> None:
    rates = [19, 20, 20, 20, 8]
    mean = sum(rates) / 100
    sigma = sqrt(sum((rate / 20 - mean) ** 2 for rate in rates) / 5)
    z = (mean - 8 / 20) / sigma
    assert 1.9 < z < 2.0
    assert after_an_interval(by_rate(), rates, 20) == [4]
    assert after_an_interval(by_rate(deviations=z - 1e-9), rates, 20) == [4]
    assert after_an_interval(by_rate(deviations=z + 1e-9), rates, 20) == []


def test_rates_need_hosts_attempts_a_gap_and_to_be_recent() -> None:
    rates = [20, 20, 20, 20, 17]
    assert after_an_interval(by_rate(), rates, 20) == [4]
    assert after_an_interval(by_rate(gap=0.13), rates, 20) == []
    assert after_an_interval(by_rate(minimum_attempts=21), rates, 20) == []
    assert after_an_interval(by_rate(minimum_instances=6), rates, 20) == []
    assert after_an_interval(by_rate(), rates, 20, quiet_s=20.0) == [], "an hour ago is no evidence"
    assert after_an_interval(by_rate(), [20, 20, 20, 17], 20) == []
    assert after_an_interval(by_rate(), [18] * 9, 20) == [], "equals have no outlier"


def test_an_interval_counts_its_own_attempts_alone() -> None:
    fleet = Fleet(by_rate(minimum_attempts=16, eject_s=2), 5)
    for _ in range(4):
        for turn in range(15):
            for number in range(5):
                fleet.begins(number)
                fleet.ends(number, ERROR if number == 4 and turn < 9 else OK)
        fleet.passes(10.0)
    assert ejected(fleet) == 0


def test_one_ejected_by_its_rate_comes_back_with_a_clean_record() -> None:
    breaker = by_rate(eject_s=2)
    assert after_an_interval(breaker, [20, 20, 20, 20, 10], 20) == [4]
    assert breaker.wake(12.0, 4) == CLOSED
    assert breaker.record(12.5, 4, OK, 0.25) is None


@given(st.integers(2, 40), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_one_of_n_is_never_further_than_the_root_of_n_less_one(n: int, low: float, high: float) -> None:
    rates = [max(low, high)] * (n - 1) + [min(low, high)]
    assert rates[-1] >= lowest_rate(rates, sqrt(n - 1) * (1 + 1e-9), 1e-12)


@pytest.mark.parametrize(("attempts", "gap", "share"), [(50, 0.0, 0.69), (50, 0.1, 0.05), (10, 0.1, 0.75)])
def test_how_often_one_of_twenty_equals_is_an_outlier(attempts: int, gap: float, share: float) -> None:
    rng, found = random.Random(2), 0
    for _ in range(400):
        rates = [[rng.random() < 0.95 for _ in range(attempts)].count(True) / attempts for _ in range(20)]
        found += min(rates) < lowest_rate(rates, 1.9, gap)
    assert found / 400 == pytest.approx(share, abs=0.07)


def test_a_refusing_instance_is_out_long_before_its_health_checks_say_so() -> None:
    holes = []
    for breaker in (OutlierBreaker(), ProbesBreaker()):
        fleet = Fleet(breaker, 5)
        while fleet.gates[0].cap:
            fleet.passes(1.0)
            if fleet.now_s % 30 == 0:
                fleet.probed(0, False)
            if fleet.begins(0):
                fleet.ends(0, REFUSED)
        holes.append(fleet.now_s)
    assert holes == [3.0, 90.0]


# --- health checks ------------------------------------------------------------------------------------


def test_health_checks_take_out_after_three_and_let_in_after_two() -> None:
    fleet = Fleet(ProbesBreaker(unhealthy=3, healthy=2, lapse_s=90), 2)
    caps = []
    for healthy in (False, False, True, False, False, False, True, False, True, True, False):
        fleet.passes(30.0)
        fleet.probed(0, healthy)
        fleet.probed(1, True)
        caps.append(fleet.gates[0].cap)
    assert caps == [UNLIMITED] * 5 + [0] * 4 + [UNLIMITED] * 2
    assert fleet.gates[1] == CLOSED


def test_a_verdict_lapses_where_checks_stop_coming() -> None:
    fleet = Fleet(ProbesBreaker(unhealthy=1, lapse_s=90), 1)
    fleet.probed(0, False)
    fleet.passes(60.0)
    fleet.probed(0, False)
    fleet.passes(89.0)
    assert fleet.gates[0].cap == 0
    fleet.passes(1.0)
    assert fleet.gates[0] == CLOSED


def test_attempts_say_nothing_to_health_checks() -> None:
    breaker = ProbesBreaker(unhealthy=1)
    assert [breaker.record(0.0, 0, outcome, 1.0) for outcome in Outcome] == [None] * len(Outcome)
