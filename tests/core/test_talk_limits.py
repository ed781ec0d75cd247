"""Limits that are shared with others: ask, be told, hold, and what holds when nobody answers."""

from __future__ import annotations

from glowsim.core.types import Outcome, Status


def test_requests_wait_for_a_lease_and_are_let_in_in_order(talk_to, tiny):
    talk = talk_to(limiter=tiny.Leased, slots=4)
    talk.ready(0.0, 0)
    assert talk.arrives(1.0, 1) == ["ask 1 lease 2"]
    assert talk.arrives(1.1, 2) == []
    assert talk.arrives(1.2, 3) == []
    assert talk.told(1.5, 1, Status.GRANTED, 2.0) == [
        "dispatch 1: request 1 to 0, ARRIVED",
        "dispatch 2: request 2 to 0, ARRIVED",
        "ask 2 lease 2",
    ]
    assert talk.told(1.9, 2, Status.GRANTED, 2.0) == ["dispatch 3: request 3 to 0, ARRIVED"]
    assert talk.arrives(2.0, 4) == ["dispatch 4: request 4 to 0, ARRIVED"]


def test_no_more_is_spent_than_was_granted(talk_to, tiny):
    talk = talk_to(limiter=tiny.Leased, slots=100)
    talk.ready(0.0, 0)
    for number in range(1, 10):
        talk.arrives(1.0, number)
    said = talk.told(1.1, 1, Status.GRANTED, 5.0)
    assert sum(each.startswith("dispatch") for each in said) == 5


def test_a_denial_rejects_those_who_wait(talk_to, tiny):
    talk = talk_to(limiter=tiny.Leased)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.arrives(1.1, 2)
    assert talk.told(1.5, 1, Status.DENIED) == [
        "reject 1, LIMITED, retry after 3",
        "reject 2, LIMITED, retry after 3",
    ]
    assert talk.passes(60.0) == []


def test_without_word_in_time_the_fallback_rejects(talk_to, tiny):
    talk = talk_to(limiter=lambda: tiny.Leased(timeout_s=1.0))
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.passes(1.99) == []
    assert talk.passes(2.0) == ["reject 1, LIMIT_UNKNOWN, retry after 3"]


def test_without_word_in_time_the_fallback_admits(talk_to, tiny):
    talk = talk_to(limiter=lambda: tiny.Leased(timeout_s=1.0, admit_unknown=True))
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.passes(2.0) == ["dispatch 1: request 1 to 0, ARRIVED"]


def test_word_that_comes_too_late_changes_nothing(talk_to, tiny):
    talk = talk_to(limiter=lambda: tiny.Leased(timeout_s=1.0))
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.told(2.5, 1, Status.GRANTED, 2.0) == ["reject 1, LIMIT_UNKNOWN, retry after 3"]
    assert talk.plane.pools[0].controllers.limiter.left == 0.0


def test_no_more_are_held_than_allowed(talk_to, tiny):
    talk = talk_to(limiter=tiny.Leased, hold_limit=1)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.arrives(1.1, 2) == ["reject 2, LIMITED"]
    assert talk.commands[-1].reason.bound.name == "MAXIMUM"


def test_a_held_request_times_out_by_its_own_clock(talk_to, tiny):
    talk = talk_to(limiter=lambda: tiny.Leased(timeout_s=100.0), timeout_s=30.0)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.passes(31.0) == ["fail 1 TIMEOUT, WAITED_TOO_LONG"]
    assert talk.told(32.0, 1, Status.GRANTED, 1.0) == []
    assert talk.arrives(33.0, 2) == ["dispatch 1: request 2 to 0, ARRIVED"]


def test_time_spent_held_counts_against_the_request(talk_to, tiny):
    talk = talk_to(limiter=lambda: tiny.Leased(timeout_s=100.0), timeout_s=30.0)
    talk.ready(0.0, 0)
    talk.arrives(0.0, 1)
    talk.told(20.0, 1, Status.GRANTED, 1.0)
    assert talk.passes(30.0) == ["cancel 1, TIMED_OUT", "fail 1 TIMEOUT, TIMED_OUT"]
    assert talk.commands[-1].reason.a == 30.0


def test_a_timeout_while_held_is_no_evidence_about_a_variant_or_an_instance(talk_to, tiny):
    talk = talk_to(
        limiter=lambda: tiny.Leased(timeout_s=100.0),
        splitter=tiny.Halves,
        detectors=[lambda: tiny.Above("error", 2.0)],
    )
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, user=1)
    talk.arrives(1.0, 2, user=1)
    assert talk.passes(31.0) == ["fail 1 TIMEOUT, WAITED_TOO_LONG", "fail 2 TIMEOUT, WAITED_TOO_LONG"]
    controllers = talk.plane.pools[0].controllers
    assert (controllers.splitter.failures, controllers.detectors[0].seen) == (0, [])


def test_a_held_request_may_turn_out_to_be_in_the_cache_or_a_repeat(talk_to, tiny):
    talk = talk_to(limiter=tiny.Leased, cache=tiny.Keeper, slots=4)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, cache_key=5)
    talk.told(1.1, 1, Status.GRANTED, 1.0)
    talk.arrives(1.2, 2, cache_key=5)
    talk.arrives(1.3, 3, idempotency_key=8, payload=1)
    talk.arrives(1.4, 4, idempotency_key=8, payload=1)
    assert talk.finishes(1.5, 1) == ["answer 1 from 1, OWN, keep"]
    assert talk.told(1.6, 2, Status.GRANTED, 9.0) == [
        "answer 2 from 1, CACHED, keep",
        "dispatch 2: request 3 to 0, ARRIVED",
    ]
    assert talk.finishes(2.0, 2) == ["answer 3 from 2, OWN, keep", "answer 4 from 2, JOINED, keep"]


def test_a_reservation_is_returned_however_the_request_ends(talk_to, tiny):
    talk = talk_to(
        limiter=lambda: tiny.Counted(most=20), cache=tiny.Keeper, queue=lambda: tiny.Urgent(limit=2)
    )
    limiter = talk.plane.pools[0].controllers.limiter
    talk.ready(0.0, 0)
    talk.arrives(0.0, 1, cache_key=5)
    talk.arrives(0.0, 2, cache_key=5)
    talk.arrives(0.0, 3)
    talk.arrives(0.0, 4)
    assert talk.arrives(0.0, 5) == ["reject 5, QUEUE_FULL"]
    assert limiter.used == 4
    talk.leaves(1.0, 4)
    assert limiter.used == 3
    talk.finishes(2.0, 1)
    assert talk.arrives(2.5, 6, cache_key=5) == ["answer 6 from 1, CACHED, keep"]
    assert limiter.used == 1
    talk.finishes(3.0, 2, Outcome.INVALID)
    assert limiter.used == 0
