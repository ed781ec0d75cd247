"""Streaming, its commit point, and the timeout of the first token."""

from __future__ import annotations

from glowsim.core.types import Outcome, State


def test_a_stream_that_breaks_after_its_first_token_is_not_retried(talk_to, tiny):
    talk = talk_to(retrier=tiny.Again)
    talk.ready(0.0, 0)
    assert talk.arrives(1.0, 1, stream=True) == ["dispatch 1: request 1 to 0, ARRIVED"]
    assert talk.streams(2.0, 1) == []
    assert talk.finishes(3.0, 1, Outcome.ERROR) == ["fail 1 ERROR, BROKEN_STREAM"]


def test_a_stream_that_breaks_before_its_first_token_is_retried(talk_to, tiny):
    talk = talk_to(retrier=tiny.Again)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, stream=True)
    assert talk.finishes(3.0, 1, Outcome.ERROR) == []
    assert talk.passes(4.0) == ["dispatch 2: request 1 to 0, RETRIED"]
    assert talk.streams(5.0, 2) == []
    assert talk.finishes(6.0, 2) == ["answer 1 from 2, OWN"]


def test_a_late_first_token_cancels_waits_for_the_end_and_retries_elsewhere(talk_to, tiny):
    talk = talk_to(retrier=tiny.Again, first_token_timeout_s=2.0)
    talk.ready(0.0, 0, 1)
    assert talk.arrives(1.0, 1, stream=True) == ["dispatch 1: request 1 to 0, ARRIVED"]
    assert talk.passes(2.9) == []
    assert talk.passes(3.0) == ["cancel 1, FIRST_TOKEN_LATE"]
    assert talk.passes(3.5) == []
    assert talk.plane.pools[0].instances[0].in_flight == 1
    assert talk.finishes(4.0, 1, Outcome.CANCELLED) == []
    assert talk.passes(5.0) == ["dispatch 2: request 1 to 1, RETRIED"]


def test_a_first_token_in_time_stops_its_timeout_and_a_plain_request_has_none(talk_to):
    talk = talk_to(first_token_timeout_s=2.0)
    talk.ready(0.0, 0, 1)
    talk.arrives(1.0, 1, stream=True)
    talk.arrives(1.0, 2)
    talk.streams(2.9, 1)
    assert talk.passes(10.0) == []


def test_a_first_token_that_crosses_its_cancel_breaks_the_stream(talk_to, tiny):
    talk = talk_to(retrier=tiny.Again, first_token_timeout_s=2.0)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, stream=True)
    assert talk.passes(3.0) == ["cancel 1, FIRST_TOKEN_LATE"]
    talk.streams(3.1, 1)
    assert talk.finishes(3.2, 1, Outcome.CANCELLED) == ["fail 1 TIMEOUT, BROKEN_STREAM"]


def test_an_answer_that_crosses_its_cancel_is_given(talk_to):
    talk = talk_to(first_token_timeout_s=2.0)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, stream=True)
    talk.passes(3.0)
    assert talk.finishes(3.1, 1) == ["answer 1 from 1, OWN"]


def test_the_cause_that_the_instance_names_stands_even_after_a_late_first_token(talk_to, tiny):
    talk = talk_to(retrier=tiny.Again, first_token_timeout_s=2.0)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, stream=True)
    talk.passes(3.0)
    assert talk.finishes(3.1, 1, Outcome.INVALID) == ["fail 1 INVALID, NOT_RETRYABLE"]


def test_an_attempt_is_cancelled_once_even_if_the_total_time_runs_out_too(talk_to):
    talk = talk_to(first_token_timeout_s=2.0, timeout_s=3.0, cancel_grace_s=50.0)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, stream=True)
    assert talk.passes(3.0) == ["cancel 1, FIRST_TOKEN_LATE"]
    assert talk.passes(4.0) == ["fail 1 TIMEOUT, TIMED_OUT"]
    assert talk.finishes(5.0, 1, Outcome.CANCELLED) == []


def test_late_first_tokens_trip_the_breaker_though_their_attempts_end_as_cancelled(talk_to, tiny):
    talk = talk_to(breaker=lambda: tiny.Fuse(failures=1), first_token_timeout_s=2.0)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, stream=True)
    talk.passes(3.0)
    assert talk.finishes(3.1, 1, Outcome.CANCELLED) == ["fail 1 TIMEOUT, EXHAUSTED"]
    assert talk.plane.pools[0].instances[0].cap == 0
    assert talk.plane.pools[0].instances[0].state == State.READY
