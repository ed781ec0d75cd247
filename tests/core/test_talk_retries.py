"""Retries, and what is decided when time runs out."""

from __future__ import annotations

from math import inf

import pytest

from glowsim.core.types import Outcome, State


def test_a_failed_attempt_backs_off_and_goes_to_another_instance(talk_to, tiny):
    talk = talk_to(retrier=tiny.Again)
    talk.ready(0.0, 0, 1)
    assert talk.arrives(1.0, 1) == ["dispatch 1: request 1 to 0, ARRIVED"]
    talk.arrives(1.0, 2)
    talk.finishes(1.5, 2)
    assert talk.finishes(2.0, 1, Outcome.ERROR) == []
    assert talk.passes(2.9) == []
    assert talk.passes(3.0) == ["dispatch 3: request 1 to 1, RETRIED"]
    assert talk.finishes(4.0, 3) == ["answer 1 from 3, OWN"]


def test_with_one_instance_the_retry_goes_where_it_failed(talk_to, tiny):
    talk = talk_to(retrier=tiny.Again)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.finishes(2.0, 1, Outcome.UNREACHABLE)
    assert talk.passes(3.0) == ["dispatch 2: request 1 to 0, RETRIED"]


def test_while_one_backs_off_its_slot_serves_others_and_its_retry_waits_its_turn(talk_to, tiny):
    talk = talk_to(retrier=tiny.Again)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.arrives(1.5, 2)
    assert talk.finishes(2.0, 1, Outcome.ERROR) == ["dispatch 2: request 2 to 0, QUEUED"]
    assert talk.passes(3.0) == []
    assert talk.finishes(4.0, 2) == ["answer 2 from 2, OWN", "dispatch 3: request 1 to 0, QUEUED"]


def test_the_instance_may_ask_for_more_patience(talk_to, tiny):
    talk = talk_to(retrier=tiny.Again)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.finishes(2.0, 1, Outcome.THROTTLED, retry_after_s=4.0)
    assert talk.passes(5.9) == []
    assert talk.passes(6.0) == ["dispatch 2: request 1 to 0, RETRIED"]


def test_a_retry_at_once_is_due_at_once(talk_to, tiny):
    talk = talk_to(retrier=lambda: tiny.Again(wait_s=0.0))
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.finishes(2.0, 1, Outcome.ERROR) == []
    assert talk.plane.next_wake_s() == 2.0
    assert talk.passes(2.0) == ["dispatch 2: request 1 to 0, RETRIED"]


def test_attempts_are_exhausted(talk_to, tiny):
    talk = talk_to(retrier=lambda: tiny.Again(attempts=2))
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.finishes(2.0, 1, Outcome.ERROR)
    talk.passes(3.0)
    assert talk.finishes(4.0, 2, Outcome.THROTTLED) == ["fail 1 THROTTLED, EXHAUSTED"]
    assert talk.commands[-1].reason.a == 2


def test_without_a_retrier_the_first_failure_is_the_last(talk_to):
    talk = talk_to()
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.finishes(2.0, 1, Outcome.LOST) == ["fail 1 LOST, EXHAUSTED"]


@pytest.mark.parametrize(("wait_s", "retried"), [(27.9, True), (28.0, False)])
def test_a_retry_must_start_before_the_deadline(talk_to, tiny, wait_s, retried):
    talk = talk_to(retrier=lambda: tiny.Again(wait_s=wait_s), timeout_s=30.0)
    talk.ready(0.0, 0)
    talk.arrives(0.0, 1)
    said = talk.finishes(2.0, 1, Outcome.ERROR)
    assert said == ([] if retried else ["fail 1 ERROR, NO_TIME_TO_RETRY"])


@pytest.mark.parametrize("outcome", [Outcome.INVALID, Outcome.CANCELLED])
def test_some_failures_no_retry_mends(talk_to, tiny, outcome):
    talk = talk_to(retrier=tiny.Again)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.finishes(2.0, 1, outcome) == [f"fail 1 {outcome.name}, NOT_RETRYABLE"]


def test_a_limiter_settles_once_with_the_usage_of_every_attempt(talk_to, tiny):
    talk = talk_to(retrier=lambda: tiny.Again(attempts=3), limiter=tiny.Counted)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.finishes(2.0, 1, Outcome.ERROR, tokens_out=10)
    limiter = talk.plane.pools[0].controllers.limiter
    assert (limiter.used, limiter.spent) == (1, 0)
    talk.passes(3.0)
    talk.finishes(4.0, 2, Outcome.ERROR, tokens_out=20)
    talk.passes(5.0)
    talk.finishes(6.0, 3, tokens_out=40)
    assert (limiter.used, limiter.spent) == (0, 3 * 900 + 10 + 20 + 40)


def test_a_timeout_in_the_queue_and_one_in_flight_say_which_they_are(talk_to):
    talk = talk_to(timeout_s=30.0)
    talk.ready(0.0, 0)
    talk.arrives(0.0, 1)
    talk.arrives(1.0, 2)
    assert talk.passes(30.0) == ["cancel 1, TIMED_OUT", "fail 1 TIMEOUT, TIMED_OUT"]
    assert talk.passes(31.0) == ["fail 2 TIMEOUT, WAITED_TOO_LONG"]
    assert talk.commands[-1].reason.a == 30.0
    assert talk.finishes(32.0, 1, Outcome.CANCELLED) == []


def test_a_timeout_that_fires_late_is_decided_as_at_its_moment(talk_to):
    talk = talk_to(timeout_s=30.0)
    talk.ready(0.0, 0)
    talk.arrives(0.0, 1)
    assert talk.finishes(35.0, 1) == ["cancel 1, TIMED_OUT", "fail 1 TIMEOUT, TIMED_OUT"]
    assert talk.commands[-1].reason.a == 30.0


def test_late_timers_fire_in_their_order_each_at_its_moment(talk_to, tiny):
    talk = talk_to(retrier=tiny.Again, timeout_s=30.0, cancel_grace_s=5.0)
    talk.ready(0.0, 0)
    talk.arrives(0.0, 1)
    talk.arrives(28.0, 2)
    assert talk.passes(59.0) == [
        "cancel 1, TIMED_OUT",
        "fail 1 TIMEOUT, TIMED_OUT",
        "dispatch 2: request 2 to 0, QUEUED",
        "cancel 2, TIMED_OUT",
        "fail 2 TIMEOUT, TIMED_OUT",
    ]
    assert talk.commands[3].reason.a == 35.0 - 28.0


def test_waking_early_does_nothing_and_the_timer_stays(talk_to):
    talk = talk_to(timeout_s=30.0)
    talk.ready(0.0, 0)
    talk.arrives(0.0, 1)
    assert talk.passes(29.999) == []
    assert talk.plane.next_wake_s() == 30.0


def test_an_answered_request_leaves_no_timer(talk_to):
    talk = talk_to(timeout_s=30.0)
    talk.ready(0.0, 0)
    talk.arrives(0.0, 1)
    talk.finishes(1.0, 1)
    assert talk.plane.next_wake_s() == inf


def test_a_request_may_bring_a_deadline_of_its_own(talk_to):
    talk = talk_to(timeout_s=30.0)
    talk.ready(0.0, 0)
    talk.arrives(0.0, 1, deadline_s=4.0)
    talk.arrives(0.0, 2, deadline_s=90.0)
    assert talk.passes(4.0) == ["cancel 1, TIMED_OUT", "fail 1 TIMEOUT, TIMED_OUT"]
    assert talk.commands[-1].reason.bound.name == "DEADLINE"
    assert talk.passes(8.9) == []
    assert talk.passes(9.0) == ["dispatch 2: request 2 to 0, QUEUED"]
    assert talk.passes(30.0) == ["cancel 2, TIMED_OUT", "fail 2 TIMEOUT, TIMED_OUT"]


def test_a_request_that_comes_after_its_deadline_is_turned_away(talk_to):
    talk = talk_to()
    talk.ready(0.0, 0)
    assert talk.arrives(5.0, 1, deadline_s=5.0) == ["reject 1, WAITED_TOO_LONG"]


def test_a_hanging_instance_is_blamed_for_a_timeout_only_if_it_had_the_whole_time(talk_to, tiny):
    talk = talk_to(breaker=lambda: tiny.Fuse(failures=1), timeout_s=30.0)
    talk.ready(0.0, 0, 1)
    talk.arrives(0.0, 1)
    talk.arrives(1.0, 2)
    talk.arrives(2.0, 3)
    assert talk.finishes(3.0, 2) == ["answer 2 from 2, OWN", "dispatch 3: request 3 to 1, QUEUED"]
    talk.passes(32.0)
    talk.finishes(33.0, 1, Outcome.CANCELLED)
    talk.finishes(33.0, 3, Outcome.CANCELLED)
    caps = {number: each.cap for number, each in talk.plane.pools[0].instances.items()}
    assert caps == {0: 0, 1: 1}


def test_an_attempt_outlives_its_instance_and_even_its_number(talk_to, tiny):
    talk = talk_to(retrier=tiny.Again)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.instance(2.0, 0, State.FAILED) == []
    assert talk.ready(3.0, 0) == []
    assert talk.arrives(3.5, 2) == ["dispatch 2: request 2 to 0, ARRIVED"]
    assert talk.finishes(4.0, 1, Outcome.LOST) == []
    assert talk.plane.pools[0].instances[0].in_flight == 1
    assert talk.passes(5.0) == []
    assert talk.finishes(6.0, 2) == ["answer 2 from 2, OWN", "dispatch 3: request 1 to 0, QUEUED"]


def test_a_retry_that_finds_the_queue_full_fails(talk_to, tiny):
    talk = talk_to(retrier=tiny.Again, queue=lambda: tiny.Urgent(limit=1))
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.arrives(1.0, 2)
    assert talk.arrives(1.0, 3) == ["reject 3, QUEUE_FULL"]
    assert talk.finishes(2.0, 1, Outcome.ERROR) == ["dispatch 2: request 2 to 0, QUEUED"]
    talk.arrives(2.5, 4)
    assert talk.passes(3.0) == ["fail 1 ERROR, QUEUE_FULL"]


def test_priorities_decide_who_waits(talk_to, tiny):
    talk = talk_to(queue=tiny.Urgent)
    talk.ready(0.0, 0)
    talk.arrives(0.0, 1)
    talk.arrives(1.0, 2, priority=5)
    talk.arrives(2.0, 3, priority=0)
    talk.arrives(3.0, 4, priority=5)
    order = [talk.finishes(4.0 + n, n)[1] for n in (1, 2, 3)]
    assert order == [
        "dispatch 2: request 3 to 0, QUEUED",
        "dispatch 3: request 2 to 0, QUEUED",
        "dispatch 4: request 4 to 0, QUEUED",
    ]


def test_a_plan_says_model_variant_and_limits(talk_to, tiny):
    talk = talk_to(planner=tiny.Capped)
    talk.ready(0.0, 0)
    talk.arrives(0.0, 1, tokens_in=700, max_tokens_out=100)
    plan = talk.commands[0].plan
    assert plan == (0, 0, 700, 64)


def test_a_guard_turns_away_before_anything_is_spent(talk_to, tiny):
    talk = talk_to(guard=tiny.Sized, limiter=tiny.Counted)
    talk.ready(0.0, 0)
    assert talk.arrives(0.0, 1, tokens_in=1001) == ["reject 1, TOO_LARGE"]
    assert talk.plane.pools[0].controllers.limiter.used == 0
    assert talk.arrives(0.0, 2, tokens_in=1000) == ["dispatch 1: request 2 to 0, ARRIVED"]
