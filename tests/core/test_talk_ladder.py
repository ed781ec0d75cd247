"""What a request gets in place of a failure, and who is turned away when there is no room."""

from __future__ import annotations

from math import inf

import pytest

from controllers.caching.lru import LruCache
from controllers.queueing.fifo import FifoQueue
from controllers.resilience.ladder import FallbackLadder
from glowsim.core.protocols import Gate
from glowsim.core.snapshot import Stateful
from glowsim.core.together import Breakers
from glowsim.core.types import Dispatch, Outcome

MODELS = ["large", "small"]


def ladder(*steps):
    return lambda: FallbackLadder(MODELS, steps=steps)


def test_the_other_model_is_tried_once_and_then_it_is_sorry(talk_to, tiny):
    talk = talk_to(retrier=tiny.Again, ladder=ladder("model small", "apology"))
    talk.ready(0.0, 0, 1)
    talk.arrives(1.0, 1)
    talk.finishes(2.0, 1, Outcome.ERROR)
    talk.passes(3.0)
    assert talk.finishes(4.0, 2, Outcome.ERROR) == ["dispatch 3: request 1 to 0, OTHER_MODEL"]
    assert [each.plan.model for each in talk.commands if type(each) is Dispatch] == [0, 0, 1]
    assert talk.finishes(5.0, 3, Outcome.ERROR) == ["answer 1 from 0, APOLOGY"]


def test_the_other_model_may_succeed(talk_to):
    talk = talk_to(ladder=ladder("model small", "apology"))
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.finishes(2.0, 1, Outcome.TIMEOUT) == ["dispatch 2: request 1 to 0, OTHER_MODEL"]
    assert talk.finishes(3.0, 2) == ["answer 1 from 2, OWN"]


def test_what_the_model_rejects_stays_rejected(talk_to):
    talk = talk_to(ladder=ladder("apology"))
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.finishes(2.0, 1, Outcome.INVALID) == ["fail 1 INVALID, NOT_RETRYABLE"]


def test_a_broken_stream_is_beyond_help(talk_to):
    talk = talk_to(ladder=ladder("apology"))
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, stream=True)
    talk.streams(1.5, 1)
    assert talk.finishes(2.0, 1, Outcome.ERROR) == ["fail 1 ERROR, BROKEN_STREAM"]


@pytest.mark.parametrize("held", [True, False])
def test_an_old_answer_if_there_is_one(talk_to, held):
    talk = talk_to(
        ladder=ladder("stale", "apology"), cache=lambda: LruCache(entries=4, ttl_s=10.0, stale_s=100.0)
    )
    talk.ready(0.0, 0)
    if held:
        talk.arrives(1.0, 1, cache_key=7)
        assert talk.finishes(2.0, 1) == ["answer 1 from 1, OWN, keep"]
    talk.arrives(50.0, 2, cache_key=7)
    expected = "answer 2 from 1, STALE, keep" if held else "answer 2 from 0, APOLOGY"
    assert talk.finishes(51.0, 2 if held else 1, Outcome.ERROR) == [expected]


def test_time_that_is_up_leaves_what_needs_none(talk_to):
    talk = talk_to(ladder=ladder("model small", "apology"), timeout_s=10.0)
    talk.ready(0.0, 0, 1)
    talk.arrives(1.0, 1)
    assert talk.passes(11.0) == ["cancel 1, TIMED_OUT", "answer 1 from 0, APOLOGY"]
    assert talk.finishes(11.5, 1, Outcome.CANCELLED) == []


def test_a_full_queue_is_sorry_and_a_waiting_one_is_too(talk_to):
    talk = talk_to(ladder=ladder("model small", "apology"), queue=lambda: FifoQueue(limit=1), timeout_s=10.0)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.arrives(2.0, 2)
    assert talk.arrives(3.0, 3) == ["answer 3 from 0, APOLOGY"]
    assert talk.passes(12.0) == [
        "cancel 1, TIMED_OUT",
        "answer 1 from 0, APOLOGY",
        "answer 2 from 0, APOLOGY",
    ]


def test_a_follower_takes_over_from_a_leader_that_got_an_apology(talk_to):
    talk = talk_to(ladder=ladder("apology"), cache=LruCache)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, cache_key=7)
    assert talk.arrives(1.5, 2, cache_key=7) == []
    assert talk.finishes(2.0, 1, Outcome.ERROR) == [
        "answer 1 from 0, APOLOGY", "dispatch 2: request 2 to 0, PROMOTED",
    ]  # fmt: skip
    assert talk.finishes(3.0, 2) == ["answer 2 from 2, OWN, keep"]


def test_a_failure_counts_as_one_whatever_is_given_instead(talk_to, tiny):
    talk = talk_to(ladder=ladder("apology"), detectors=[lambda: tiny.Above("error", 0.5)])
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.finishes(2.0, 1, Outcome.ERROR) == ["answer 1 from 0, APOLOGY", "alert error, DRIFT_UP"]


class Least(Stateful):
    """Queue: takes the place of a waiting one of lower priority."""

    state = ("waiting",)

    def __init__(self, limit=1):
        self.limit = limit
        self.waiting = {}

    def push(self, t_s, request):
        self.waiting[request.request_id] = request.priority
        if len(self.waiting) <= self.limit:
            return 0
        least = max(self.waiting, key=lambda number: (self.waiting[number], number))
        del self.waiting[least]
        return least

    def pop(self, t_s):
        first = min(self.waiting, key=lambda number: (self.waiting[number], number))
        del self.waiting[first]
        return first

    def remove(self, t_s, request):
        del self.waiting[request.request_id]

    def __len__(self):
        return len(self.waiting)


def test_the_less_important_one_gives_its_place(talk_to):
    talk = talk_to(queue=Least)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.arrives(2.0, 2, priority=5)
    assert talk.arrives(3.0, 3, priority=1) == ["reject 2, SHED"]
    assert talk.arrives(4.0, 4, priority=7) == ["reject 4, QUEUE_FULL"]
    assert talk.finishes(5.0, 1) == ["answer 1 from 1, OWN", "dispatch 2: request 3 to 0, QUEUED"]


def test_a_retry_that_is_shed_fails(talk_to, tiny):
    talk = talk_to(queue=Least, retrier=tiny.Again)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, priority=9)
    talk.arrives(1.5, 2)
    assert talk.finishes(2.0, 1, Outcome.ERROR) == ["dispatch 2: request 2 to 0, QUEUED"]
    assert talk.passes(3.0) == []
    assert talk.arrives(3.5, 3, priority=0) == ["fail 1 ERROR, SHED"]


class Shut(Stateful):
    """Breaker: shuts at the first failure, for ten seconds."""

    when_all_open = "fail"

    def record(self, t_s, instance, outcome, duration_s):
        return None if outcome == Outcome.OK else Gate(0, t_s + 10.0)

    def wake(self, t_s, instance):
        return Gate(1, inf)

    def forget(self, instance):
        pass


class Patient(Shut):
    when_all_open = "wait"


def one_of_two():
    return Breakers([Patient(), Shut()])


def test_with_every_gate_shut_a_request_waits_or_fails_as_the_breaker_says(talk_to):
    fails = ["reject 2, ALL_OPEN"]
    for breaker, said in ((Shut, fails), (Patient, []), (one_of_two, fails)):
        talk = talk_to(breaker=breaker)
        talk.ready(0.0, 0)
        talk.arrives(1.0, 1)
        talk.finishes(2.0, 1, Outcome.ERROR)
        assert talk.arrives(3.0, 2) == said
        opened = [] if said else ["dispatch 2: request 2 to 0, QUEUED"]
        assert talk.passes(12.0) == opened


def test_with_no_instance_at_all_nobody_speaks_of_breakers(talk_to):
    talk = talk_to(breaker=Shut)
    assert talk.arrives(1.0, 1) == []
    assert talk.ready(2.0, 0) == ["dispatch 1: request 1 to 0, QUEUED"]
