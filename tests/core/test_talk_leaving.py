"""Clients that go away, attempts that are cancelled, and leases that run out."""

from __future__ import annotations

import pytest

from glowsim.core.errors import WorldError
from glowsim.core.types import Outcome, Status


def test_a_client_that_leaves_the_queue_gives_up_its_place(talk_to):
    talk = talk_to()
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.arrives(2.0, 2) == []
    talk.arrives(2.0, 3)
    assert talk.leaves(3.0, 2) == []
    assert talk.finishes(4.0, 1) == ["answer 1 from 1, OWN", "dispatch 2: request 3 to 0, QUEUED"]


def test_a_client_that_leaves_in_flight_frees_its_slot_only_at_the_end(talk_to):
    talk = talk_to()
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.leaves(2.0, 1) == ["cancel 1, CLIENT_GONE"]
    assert talk.arrives(3.0, 2) == []
    assert talk.finishes(4.0, 1, Outcome.CANCELLED) == ["dispatch 2: request 2 to 0, QUEUED"]


def test_what_is_finished_for_a_client_that_left_is_paid_and_not_answered(talk_to, tiny):
    talk = talk_to(limiter=lambda: tiny.Counted(most=1))
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.leaves(2.0, 1)
    assert talk.arrives(2.5, 2) == ["reject 2, LIMITED, retry after 5"]
    assert talk.finishes(3.0, 1, tokens_out=40) == []
    assert talk.plane.pools[0].controllers.limiter.spent == 940
    assert talk.arrives(4.0, 3) == ["dispatch 2: request 3 to 0, ARRIVED"]


def test_a_client_that_leaves_while_its_retry_backs_off_is_not_dispatched_again(talk_to, tiny):
    talk = talk_to(retrier=tiny.Again)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.finishes(2.0, 1, Outcome.ERROR) == []
    assert talk.leaves(2.5, 1) == []
    assert talk.passes(40.0) == []


def test_a_client_that_leaves_while_held_is_passed_over(talk_to, tiny):
    talk = talk_to(limiter=tiny.Leased)
    talk.ready(0.0, 0)
    assert talk.arrives(1.0, 1) == ["ask 1 lease 2"]
    assert talk.arrives(1.0, 2) == []
    assert talk.leaves(1.5, 1) == []
    assert talk.told(1.6, 1, Status.GRANTED, 2.0) == ["dispatch 1: request 2 to 0, ARRIVED"]
    assert talk.plane.pools[0].controllers.limiter.settled == 0


def test_a_follower_that_leaves_does_not_disturb_its_leader(talk_to, tiny):
    talk = talk_to(cache=tiny.Keeper)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, cache_key=5)
    talk.arrives(1.5, 2, cache_key=5)
    assert talk.leaves(2.0, 2) == []
    assert talk.finishes(3.0, 1) == ["answer 1 from 1, OWN, keep"]


def test_a_client_that_leaves_after_its_answer_is_nothing(talk_to):
    talk = talk_to()
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.finishes(2.0, 1)
    assert talk.leaves(2.1, 1) == []


def test_a_cancel_that_nobody_obeys_frees_the_slot_when_its_lease_runs_out(talk_to):
    talk = talk_to(cancel_grace_s=5.0)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.leaves(2.0, 1)
    talk.arrives(3.0, 2)
    assert talk.passes(6.9) == []
    assert talk.passes(7.0) == ["dispatch 2: request 2 to 0, QUEUED"]


def test_a_finish_after_the_lease_is_tolerated_once(talk_to):
    talk = talk_to(cancel_grace_s=5.0)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, stream=True)
    talk.leaves(2.0, 1)
    talk.passes(7.0)
    assert talk.streams(7.5, 1) == []
    assert talk.finishes(8.0, 1) == []
    with pytest.raises(WorldError, match="attempt 1 is not open"):
        talk.plane.handle(talk.events[-1])


def test_a_late_attempt_whose_lease_runs_out_is_retried(talk_to, tiny):
    talk = talk_to(retrier=tiny.Again, first_token_timeout_s=2.0, cancel_grace_s=5.0)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, stream=True)
    assert talk.passes(3.0) == ["cancel 1, FIRST_TOKEN_LATE"]
    assert talk.passes(8.0) == []
    assert talk.passes(9.0) == ["dispatch 2: request 1 to 0, RETRIED"]
    assert talk.finishes(9.5, 1, Outcome.CANCELLED) == []
    assert talk.finishes(10.0, 2) == ["answer 1 from 2, OWN"]
