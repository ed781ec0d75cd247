"""Every limiter: nothing beyond its limit over any window, honest waits, reservations that come back."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from math import inf
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.admission.amounts import key_of
from controllers.admission.budget import Budget
from controllers.admission.concurrency import ConcurrencyLimiter
from controllers.admission.gcra import Gcra
from controllers.admission.token_bucket import TokenBucket
from glowsim.core.errors import ControllerError
from glowsim.core.price import Price
from glowsim.core.types import Request, Usage

PRICES = (Price(2e-6, 1e-6, 8e-6), Price(1e-6, 3e-6, 5e-6))


class Case(NamedTuple):
    make: Callable[[], Any]
    of: str
    most: Callable[[float, float], float]
    """What may be admitted within a window of so many seconds, given the largest request."""


def bucket(of: str, rate: float, burst: float) -> Case:
    def make() -> TokenBucket:
        return TokenBucket(PRICES, rate_per_s=rate, burst=burst, of=of, per="user")  # type: ignore[arg-type]

    return Case(make, of, lambda window_s, _: burst + rate * window_s)


def gcra(of: str, rate: float, tolerance_s: float) -> Case:
    def make() -> Gcra:
        return Gcra(PRICES, rate_per_s=rate, tolerance_s=tolerance_s, of=of, per="user")  # type: ignore[arg-type]

    return Case(make, of, lambda window_s, largest: rate * (window_s + tolerance_s) + largest)


def budget(of: str, limit: float, every_s: float) -> Case:
    def make() -> Budget:
        return Budget(PRICES, limit=limit, of=of, every_s=every_s, per="user")  # type: ignore[arg-type]

    return Case(
        make,
        of,
        lambda window_s, _: limit if window_s < every_s else inf,
    )


CASES = {
    "bucket of requests": bucket("requests", 1.5, 3),
    "bucket of tokens": bucket("tokens", 70, 300),
    "bucket of money": bucket("usd", 2e-4, 1.4e-3),
    "rate of requests": gcra("requests", 1.5, 2),
    "rate of tokens": gcra("tokens", 70, 1),
    "rate of money": gcra("usd", 2e-4, 0),
    "budget of tokens": budget("tokens", 500, 13),
    "budget of money": budget("usd", 2e-3, 13),
}


def charge(of: str, request: Request, usage: Usage | None) -> float:
    """What a request counts, in exact arithmetic; None: it is still open, and counts what it may use at most."""
    if of == "requests":
        return 1
    tokens_in, cached, tokens_out = (request[2], 0, request[3]) if usage is None else usage[:3]
    if of == "tokens":
        return tokens_in + tokens_out
    fresh_usd, cached_usd, output_usd = (Fraction(str(price)) for price in PRICES[request.agent])
    if usage is None:
        return float(tokens_in * max(fresh_usd, cached_usd) + tokens_out * output_usd)
    return float((tokens_in - cached) * fresh_usd + cached * cached_usd + tokens_out * output_usd)


def copied(case: Case, limiter: Any) -> Any:
    twin = case.make()
    twin.restore(json.loads(json.dumps(limiter.snapshot(), allow_nan=False)))
    return twin


steps = st.lists(
    st.tuples(
        st.integers(0, 40),  # sixteenths of a second until it happens
        st.integers(1, 2),  # whose
        st.integers(0, 1),  # which agent's
        st.integers(1, 120),  # tokens in
        st.integers(1, 120),  # at most out
        st.sampled_from(["arrives", "arrives", "settles the oldest", "settles the newest"]),
        st.integers(0, 4),  # quarters of what it reserved that it used
    ),
    max_size=60,
)
Steps = list[tuple[int, int, int, int, int, str, int]]


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=50, deadline=None)
@given(steps)
def test_over_any_window_no_more_is_admitted_than_the_limit_and_waits_are_honest(
    name: str, plan: Steps
) -> None:
    case = CASES[name]
    limiter, t_s = case.make(), 0.0
    open_requests: list[Request] = []
    admitted: dict[int, list[tuple[float, Request]]] = defaultdict(list)
    usages: dict[int, Usage | None] = {}
    for number, (gap, user, agent, tokens_in, most_out, what, quarters) in enumerate(plan, 1):
        t_s += gap / 16
        if what != "arrives":
            if open_requests:
                done = open_requests.pop(0 if "oldest" in what else -1)
                share_in, out = done.tokens_in * quarters // 4, done.max_tokens_out * quarters // 4
                usages[done.request_id] = usage = Usage(share_in, share_in // 2, out)
                limiter.settle(t_s, done, usage)
            continue
        request = Request(number, agent, tokens_in, most_out, user=user)
        wait_s = limiter.admit(t_s, request)
        if wait_s == 0.0:
            open_requests.append(request)
            usages[number] = None
            mine = admitted[user]
            mine.append((t_s, request))
            total, largest = 0.0, 0.0
            for at_s, one in reversed(mine):
                total += charge(case.of, one, usages[one.request_id])
                largest = max(largest, charge(case.of, one, None))
                assert total <= case.most(t_s - at_s, largest) * (1 + 1e-6), (at_s, t_s)
        elif wait_s == inf:
            assert charge(case.of, request, None) > case.most(0.0, 0.0), "only what is too large is hopeless"
        else:
            assert copied(case, limiter).admit(t_s + wait_s, request) == 0.0
            if wait_s > 0.002:
                assert copied(case, limiter).admit(t_s + wait_s - 0.001, request) > 0.0, (
                    "it could come earlier"
                )


@pytest.mark.parametrize("name", [name for name in CASES if "requests" not in name])
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=4))
def test_what_is_settled_for_nothing_has_reserved_nothing(name: str, sizes: list[tuple[int, int]]) -> None:
    case = CASES[name]
    limiter = case.make()
    requests = [Request(i, 0, *size, user=1) for i, size in enumerate(sizes)]
    taken = [request for request in requests if limiter.admit(1.0, request) == 0.0]
    for request in taken:
        limiter.settle(1.0, request, Usage())
    fresh = case.make()
    for number in range(100, 120):
        request = Request(number, 0, 30, 20, user=1)
        assert limiter.admit(1.0, request) == pytest.approx(fresh.admit(1.0, request), abs=2e-6)


@pytest.mark.parametrize("name", [name for name in CASES if "budget" not in name])
def test_an_admission_that_is_withdrawn_leaves_nothing(name: str) -> None:
    case = CASES[name]
    limiter, request = case.make(), Request(1, 0, 40, 40, user=1)
    before = limiter.snapshot()
    assert limiter.admit(5.0, request) == 0.0
    limiter.withdraw(5.0, request)
    assert limiter.snapshot() == before


def test_more_than_was_reserved_is_charged_and_leaves_a_debt() -> None:
    request = Request(1, 0, 50, 50)
    rate = TokenBucket((), rate_per_s=10, burst=100, of="tokens")
    assert rate.admit(0.0, request) == 0.0
    rate.settle(0.0, request, Usage(50, 0, 150))
    assert rate.admit(0.0, request._replace(request_id=2)) == pytest.approx(20.0)
    hard = Budget((), limit=150, of="tokens", every_s=60)
    assert hard.admit(0.0, request) == 0.0
    hard.settle(0.0, request, Usage(50, 0, 150))
    assert hard.admit(59.0, Request(2, 0, 1, 0)) == pytest.approx(2.0, abs=1e-5)


# --- GCRA --------------------------------------------------------------------------------------------


class LeakyBucket:
    """The continuous-state leaky bucket of I.371: another way to say GCRA, in exact arithmetic."""

    def __init__(self, increment: Fraction, limit: Fraction) -> None:
        self.increment, self.limit = increment, limit
        self.content, self.last = Fraction(0), Fraction(0)

    def conforms(self, t: Fraction, cells: int) -> bool:
        left = max(Fraction(0), self.content - (t - self.last))
        if left > self.limit:
            return False
        self.content, self.last = left + cells * self.increment, t
        return True


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 24), st.integers(1, 30)), max_size=80),
    st.sampled_from([1, 2, 4, 16]),
    st.integers(0, 40),
)
def test_gcra_is_the_continuous_state_leaky_bucket(
    calls: list[tuple[int, int]], rate: int, tolerance: int
) -> None:
    ours = Gcra((), rate_per_s=rate, tolerance_s=tolerance / 8, of="tokens")
    theirs = LeakyBucket(Fraction(1, rate), Fraction(tolerance, 8))
    t = Fraction(0)
    for gap, tokens in calls:
        t += Fraction(gap, 8)
        assert (ours.admit(float(t), Request(1, 0, tokens, 0)) == 0.0) == theirs.conforms(t, tokens)


@given(st.lists(st.integers(0, 24), max_size=80), st.integers(1, 6))
def test_gcra_of_single_requests_is_a_bucket(gaps: list[int], burst: int) -> None:
    as_bucket = TokenBucket((), rate_per_s=2, burst=burst)
    as_gcra = Gcra((), rate_per_s=2, tolerance_s=(burst - 1) / 2)
    t_s, request = 0.0, Request(1, 0, 1, 1)
    for gap in gaps:
        t_s += gap / 16
        assert as_gcra.admit(t_s, request) == as_bucket.admit(t_s, request)


def test_gcra_lets_a_large_request_in_and_makes_the_next_one_wait() -> None:
    limiter = Gcra((), rate_per_s=10, tolerance_s=1, of="tokens")
    assert limiter.admit(0.0, Request(1, 0, 500, 500)) == 0.0
    assert limiter.admit(0.0, Request(2, 0, 1, 0)) == 99.0


# --- concurrency ---------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.integers(0, 9)), max_size=80), st.integers(1, 3)
)
def test_no_key_ever_has_more_open_than_its_limit(moves: list[tuple[int, bool, int]], limit: int) -> None:
    limiter = ConcurrencyLimiter(limit=limit, per="tenant", retry_s=7.0)
    now_open: dict[int, list[Request]] = defaultdict(list)
    for number, (tenant, ends, which) in enumerate(moves):
        mine = now_open[tenant]
        if ends and mine:
            limiter.settle(0.0, mine.pop(which % len(mine)), Usage())
            continue
        request = Request(number, 0, 1, 1, tenant=tenant)
        room = len(mine) < limit
        assert limiter.admit(0.0, request) == (0.0 if room else 7.0)
        if room:
            mine.append(request)
    for request in [each for mine in now_open.values() for each in mine]:
        limiter.settle(0.0, request, Usage())
    assert limiter.snapshot() == ConcurrencyLimiter(limit=limit).snapshot(), (
        "nothing is remembered of idle keys"
    )


@pytest.mark.parametrize(
    "limiter",
    [ConcurrencyLimiter(limit=1), Budget((), limit=900, of="tokens", every_s=60)],
    ids=["places", "budget"],
)
def test_settling_what_was_not_admitted_is_an_error(limiter: Any) -> None:
    request = Request(7, 0, 10, 10)
    limiter.admit(0.0, request)
    limiter.settle(1.0, request, Usage(10, 0, 10))
    with pytest.raises(ControllerError, match=r"request 7 is settled.*: admit first, settle once"):
        limiter.settle(1.0, request, Usage(10, 0, 10))


# --- budgets -------------------------------------------------------------------------------------------


def test_a_budget_counts_to_the_last_millionth_of_a_cent() -> None:
    limiter = Budget(PRICES, limit=0.003, every_s=60)
    for number in range(30):
        assert limiter.admit(1.0, Request(number, 0, 10, 10)) == 0.0  # 1e-4 each, 30 of them
    assert limiter.admit(1.0, Request(99, 0, 1, 0)) > 0.0
    limiter.settle(2.0, Request(7, 0, 10, 10), Usage(9, 0, 10))
    assert limiter.admit(2.0, Request(100, 0, 1, 0)) == 0.0
    assert limiter.admit(2.0, Request(101, 0, 1, 0)) > 0.0


def test_what_has_left_the_window_is_settled_without_effect() -> None:
    limiter = Budget((), limit=100, of="tokens", every_s=60)
    early, late = Request(1, 0, 50, 50), Request(2, 0, 50, 50)
    assert limiter.admit(0.0, early) == 0.0
    assert limiter.admit(61.0, late) == 0.0
    limiter.settle(62.0, early, Usage())
    assert limiter.admit(62.0, Request(3, 0, 1, 0)) == pytest.approx(60.0, abs=1e-5)


def test_a_budget_for_two_attempts_holds_though_a_retry_uses_twice_as_much() -> None:
    limiter = Budget((), limit=200, of="tokens", every_s=60, attempts=2)
    first = Request(1, 0, 50, 50)
    assert limiter.admit(0.0, first) == 0.0
    assert limiter.admit(0.0, Request(2, 0, 1, 0)) > 0.0
    limiter.settle(1.0, first, Usage(100, 0, 100))
    assert limiter.admit(1.0, Request(3, 0, 1, 0)) > 0.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(1, 5)), max_size=100))
def test_forgetting_spent_budgets_never_lets_more_in(calls: list[tuple[int, int]]) -> None:
    few = Budget((), limit=250, of="tokens", every_s=6, per="session", keys=3)
    many = Budget((), limit=250, of="tokens", every_s=6, per="session", keys=1000)
    t_s = 0.0
    for number, (gap, session) in enumerate(calls):
        t_s += gap / 8
        request = Request(number, 0, 60, 40, session=session)
        wait_s = few.admit(t_s, request)
        assert len(few.snapshot()["_keys"]["is"]) <= 3
        if wait_s == 0.0:
            assert many.admit(t_s, request) == 0.0
        else:
            later = Budget((), limit=250, of="tokens", every_s=6, per="session", keys=3)
            later.restore(few.snapshot())
            assert later.admit(t_s + wait_s, request) == 0.0


def test_the_budget_that_was_idle_longest_makes_room() -> None:
    limiter = Budget((), limit=900, of="tokens", every_s=60, per="user", keys=2)
    for number, (t_s, user) in enumerate([(0.0, 1), (1.5, 2), (50.0, 1), (63.0, 3)]):
        assert limiter.admit(t_s, Request(number, 0, 50, 50, user=user)) == 0.0
    assert limiter.admit(63.0, Request(9, 0, 50, 50, user=2)) == pytest.approx(48.0, abs=1e-5)


@pytest.mark.parametrize("per", ["agent", "user", "tenant", "session"])
def test_each_key_has_a_limit_of_its_own(per: Any) -> None:
    one, other = (Request(number, 0, 1, 1)._replace(**{per: number}) for number in (1, 2))
    assert key_of(per)(one) == 1
    for limiter in (
        TokenBucket((), rate_per_s=1, burst=1, per=per),
        Gcra((), rate_per_s=1, per=per),
        ConcurrencyLimiter(limit=1, per=per),
        Budget((), limit=2, of="tokens", every_s=60, per=per),
    ):
        assert limiter.admit(0.0, one) == 0.0
        assert limiter.admit(0.0, other) == 0.0
        assert limiter.admit(0.0, one._replace(request_id=3)) > 0.0
