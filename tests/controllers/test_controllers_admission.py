"""Limits: the bucket against exact arithmetic, leases against the limit that they share."""

from __future__ import annotations

from fractions import Fraction
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.admission.leased import LeasedLimiter
from controllers.admission.token_bucket import TokenBucket
from glowsim.core.protocols import HOLD
from glowsim.core.types import Ask, Request, Status, Told, Usage


class Bucket:
    """A bucket with a level, in exact arithmetic: another way to say the same."""

    def __init__(self, rate: Fraction, burst: Fraction) -> None:
        self.rate, self.burst, self.level, self.at = rate, burst, burst, Fraction(0)

    def flow(self, t: Fraction) -> None:
        self.level = min(self.burst, self.level + self.rate * (t - self.at))
        self.at = t

    def admit(self, t: Fraction, amount: int) -> Fraction | float:
        self.flow(t)
        if amount > self.burst:
            return inf
        if self.level >= amount:
            self.level -= amount
            return Fraction(0)
        return (amount - self.level) / self.rate

    def settle(self, t: Fraction, over: int) -> None:
        self.flow(t)
        self.level = min(self.burst, self.level - over)


steps = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 40]),
        st.integers(1, 20),
        st.integers(0, 40),
        st.booleans(),
        st.integers(1, 2),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps, st.integers(1, 9), st.integers(10, 40))
def test_tokens_are_reserved_and_settled_exactly(
    calls: list[tuple[int, int, int, bool, int]], rate: int, burst: int
) -> None:
    ours = TokenBucket((), rate_per_s=rate, burst=burst, of="tokens", per="user", keys=10)
    exact: dict[int, Bucket] = {}
    t = Fraction(0)
    for gap, reserved, used, settles, user in calls:
        t += Fraction(gap, 8)
        model = exact.setdefault(user, Bucket(Fraction(rate), Fraction(burst)))
        request = Request(1, 0, reserved // 2, reserved - reserved // 2, user=user)
        wait = model.admit(t, reserved)
        assert ours.admit(float(t), request) == pytest.approx(float(wait), abs=2e-6)
        if wait == 0 and settles:
            t += Fraction(gap, 16)
            model.settle(t, used - reserved)
            ours.settle(float(t), request, Usage(used // 2, 0, used - used // 2))


@given(st.floats(0.01, 1e4), st.floats(1, 100), st.floats(0, 3e6))
def test_who_comes_back_after_the_stated_wait_is_let_in(
    rate_per_s: float, burst: float, start_s: float
) -> None:
    bucket = TokenBucket((), rate_per_s=rate_per_s, burst=burst)
    t_s = start_s
    for number in range(150):
        wait_s = bucket.admit(t_s, Request(number, 0, 1, 1))
        if wait_s:
            t_s += wait_s
            assert bucket.admit(t_s, Request(number, 0, 1, 1)) == 0.0
    assert burst + rate_per_s * (t_s - start_s + 1e-5) >= 150 - 1e-6


def test_a_rounding_error_does_not_send_anybody_away_again() -> None:
    bucket, request = TokenBucket((), rate_per_s=3, burst=1), Request(1, 0, 1, 1)
    assert bucket.admit(0.063, request) == 0.0
    t_s = 0.07830807225867356  # with this wait, the end of the wait rounds to a little too early
    assert bucket.admit(t_s + bucket.admit(t_s, request), request) == 0.0


def test_what_can_never_be_admitted_is_told_so() -> None:
    bucket = TokenBucket((), rate_per_s=10, burst=100, of="tokens")
    assert bucket.admit(0.0, Request(1, 0, 60, 41)) == inf
    assert bucket.admit(0.0, Request(2, 0, 60, 40)) == 0.0


def test_a_request_counts_whatever_became_of_it() -> None:
    bucket = TokenBucket((), rate_per_s=1, burst=1)
    request = Request(1, 0, 60, 41)
    assert bucket.admit(0.0, request) == 0.0
    bucket.settle(0.0, request, Usage())
    assert bucket.admit(0.0, request) == pytest.approx(1.0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 12)), max_size=120))
def test_forgetting_full_buckets_never_lets_more_in(calls: list[tuple[int, int]]) -> None:
    few = TokenBucket((), rate_per_s=1, burst=2, per="user", keys=3)
    many = TokenBucket((), rate_per_s=1, burst=2, per="user", keys=1000)
    t_s = 0.0
    for gap, user in calls:
        t_s += gap / 8
        request = Request(1, 0, 1, 1, user=user)
        wait_s = few.admit(t_s, request)
        assert len(few.snapshot()["_moment_s"]["is"]) <= 3
        if wait_s == 0.0:
            assert many.admit(t_s, request) == 0.0
        else:  # for want of its own bucket's level, or of a bucket
            later = TokenBucket((), rate_per_s=1, burst=2, per="user", keys=3)
            later.restore(few.snapshot())
            assert later.admit(t_s + wait_s, request) == 0.0


def test_a_bucket_that_a_refund_filled_makes_room() -> None:
    bucket = TokenBucket((), rate_per_s=1, burst=100, of="tokens", per="user", keys=1)
    first, second, third = (Request(user, 0, 50, 50, user=user) for user in (1, 2, 3))
    assert bucket.admit(0.0, first) == 0.0
    assert bucket.admit(10.0, second) == 90.0
    bucket.settle(20.0, first, Usage(5, 0, 10))
    assert bucket.admit(20.0, second) == 0.0, "15 tokens were used, and have flowed back by then"
    assert bucket.admit(119.0, third) == 1.0
    assert bucket.admit(120.0, third) == 0.0


def test_while_every_bucket_is_in_use_room_is_looked_for_seldom() -> None:
    bucket = TokenBucket((), rate_per_s=1, burst=1, per="user", keys=64)
    waits = [bucket.admit(user / 100, Request(user, 0, 1, 1, user=user)) for user in range(1, 66)]
    assert waits[:64] == [0.0] * 64
    room_s = 0.65 + waits[64]
    assert room_s == pytest.approx(1.04), "when the fourth, a sixteenth of them, is full again"
    assert bucket.admit(1.03, Request(70, 0, 1, 1, user=70)) == pytest.approx(room_s - 1.03)
    late = [bucket.admit(room_s, Request(user, 0, 1, 1, user=user)) for user in range(70, 75)]
    assert late[:4] == [0.0] * 4
    assert late[4] > 0.0


class Shared:
    """The shared limit: so many requests a window, over all replicas."""

    def __init__(self, limit: int, window_s: int) -> None:
        self.limit, self.window_s, self.granted = limit, window_s, dict[int, int]()

    def answer(self, t_s: float, ask: Ask) -> Told:
        window = int(t_s // self.window_s)
        end_s = float((window + 1) * self.window_s)
        left = self.limit - self.granted.get(window, 0)
        if left <= 0:
            return Told(t_s, ask.ask_id, Status.DENIED, end_s - t_s)
        grant = min(left, int(ask.amount))
        self.granted[window] = self.granted.get(window, 0) + grant
        return Told(t_s, ask.ask_id, Status.GRANTED, grant, end_s)


moves = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(["arrive", "answer", "lose"])),
    max_size=150,
)


@settings(max_examples=150, deadline=None)
@given(moves, st.integers(1, 12), st.integers(1, 6))
def test_replicas_together_never_exceed_the_shared_limit(
    plan: list[tuple[int, int, str]], limit: int, grant: int
) -> None:
    shared = Shared(limit, 10)
    replicas = [LeasedLimiter(0, grant=grant, low_water=0.5, timeout_s=1.0) for _ in range(4)]
    answers: dict[int, Told] = {}
    admitted: dict[int, int] = {}
    t_s, asked = 0.0, 0
    for gap, who, what in plan:
        t_s += gap / 2
        replica = replicas[who]
        if what == "arrive":
            answer = replica.admit(t_s, Request(1, 0, 1, 1))
            if answer == 0.0:
                window = int(t_s // 10)
                admitted[window] = admitted.get(window, 0) + 1
        elif who in answers:
            told = answers.pop(who)
            lost = Told(t_s, told.ask_id, Status.UNKNOWN)
            replica.told(t_s, lost if what == "lose" else told._replace(t_s=t_s))
            answer = 0.0
        else:
            continue
        ask = replica.to_ask(t_s, asked + 1)
        if ask is not None:
            assert who not in answers, "one ask is open at a time"
            asked += 1
            answers[who] = shared.answer(t_s, ask)
        if answer == HOLD:
            assert who in answers, "nothing may be held that no answer can free"
    assert all(count <= limit for count in admitted.values())


def told(status: Status, value: float = 0.0, t_s: float = 1.0, expires_s: float = inf) -> Told:
    return Told(t_s, 1, status, value, expires_s)


def dry(when_unknown: str = "reject") -> LeasedLimiter:
    limiter = LeasedLimiter(7, grant=4, timeout_s=2.0, when_unknown=when_unknown)  # type: ignore[arg-type]
    assert limiter.admit(0.0, Request(1, 7, 1, 1)) == HOLD
    assert limiter.to_ask(0.0, 1) == Ask(1, "limit", 7, 4, 2.0)
    assert limiter.to_ask(0.0, 2) is None
    return limiter


def test_it_asks_again_before_the_grant_is_spent() -> None:
    limiter = dry()
    limiter.told(1.0, told(Status.GRANTED, 4))
    asks = []
    for number in range(4):
        assert limiter.admit(1.0, Request(number, 7, 1, 1)) == 0.0
        asks.append(limiter.to_ask(1.0, 2) is not None)
    assert asks == [False, True, False, False]
    limiter.told(2.0, told(Status.GRANTED, 1))
    assert [limiter.admit(2.0, Request(9, 7, 1, 1)) for _ in range(2)] == [0.0, HOLD]


def test_a_grant_is_worth_nothing_once_it_expired() -> None:
    limiter = dry()
    limiter.told(1.0, told(Status.GRANTED, 4, expires_s=5.0))
    assert limiter.admit(4.9, Request(1, 7, 1, 1)) == 0.0
    assert limiter.admit(5.0, Request(1, 7, 1, 1)) == HOLD
    assert limiter.to_ask(5.0, 2) is not None


def test_denied_it_rejects_for_as_long_as_it_was_told() -> None:
    limiter = dry()
    limiter.told(1.0, told(Status.DENIED, 30.0))
    assert limiter.admit(11.0, Request(1, 7, 1, 1)) == 20.0
    assert limiter.to_ask(30.9, 2) is None
    assert limiter.admit(31.0, Request(1, 7, 1, 1)) == HOLD
    assert limiter.to_ask(31.0, 2) is not None


@pytest.mark.parametrize(("fallback", "answer"), [("reject", 2.0), ("admit", 0.0)])
def test_without_word_the_stated_fallback_holds(fallback: str, answer: float) -> None:
    limiter = dry(fallback)
    limiter.told(2.0, told(Status.UNKNOWN, t_s=2.0))
    assert limiter.admit(2.0, Request(1, 7, 1, 1)) == answer
    assert limiter.to_ask(2.0, 2) is None
    assert limiter.admit(4.0, Request(1, 7, 1, 1)) == HOLD


@pytest.mark.parametrize("empty", [told(Status.GRANTED, 0.5), told(Status.DENIED)])
def test_an_empty_answer_is_no_reason_to_ask_at_once(empty: Told) -> None:
    limiter = dry("admit")
    limiter.told(1.0, empty)
    assert limiter.admit(1.0, Request(1, 7, 1, 1)) == 2.0
    assert limiter.to_ask(1.0, 2) is None
