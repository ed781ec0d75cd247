"""An answer that does not convince is given again by another model, and kept in case that one fails."""

from __future__ import annotations

from math import isnan

import pytest

from glowsim.core.snapshot import Stateful
from glowsim.core.types import Dispatch, Finished, FirstToken, Outcome, Reported, Usage


class Doubting(Stateful):
    """Planner: the small model, and the large one where the score is below a half or missing; as often as told."""

    state = ("scores",)
    SMALL, LARGE = 1, 2

    def __init__(self, most=1):
        self.most = most
        self.scores = []

    def plan(self, t_s, request, plan):
        return plan._replace(model=self.SMALL)

    def escalate(self, t_s, request, plan, score):
        self.scores.append(-1.0 if isnan(score) else score)
        return plan._replace(model=plan.model + 1) if plan.model <= self.most and not score >= 0.5 else None


@pytest.fixture
def talk(talk_to, tiny):
    def start(**more):
        talk = talk_to(planner=Doubting, **more)
        talk.ready(0.0, 0)
        return talk

    return start


def models(talk):
    return [command.plan.model for command in talk.commands if isinstance(command, Dispatch)]


def test_a_good_answer_is_given_at_once(talk):
    one = talk()
    one.arrives(1.0, 1)
    assert one.finishes(2.0, 1, score=0.5) == ["answer 1 from 1, OWN"]
    assert models(one) == [1]


def test_a_doubtful_one_is_kept_while_the_other_model_answers(talk):
    one = talk()
    one.arrives(1.0, 1)
    assert one.finishes(2.0, 1, score=0.4) == ["keep 1", "dispatch 2: request 1 to 0, ESCALATED"]
    assert one.finishes(3.0, 2, score=0.1) == ["answer 1 from 2, OWN", "forget 1"]
    assert models(one) == [1, 2]
    assert one.plane.pools[0].controllers.planner.scores == [0.4, 0.1]


def test_an_answer_without_a_score_is_shown_as_one(talk):
    one = talk()
    one.arrives(1.0, 1)
    assert one.finishes(2.0, 1)[0] == "keep 1"
    assert one.plane.pools[0].controllers.planner.scores == [-1.0]


def test_what_was_kept_is_given_where_the_other_model_fails(talk):
    one = talk()
    one.arrives(1.0, 1)
    one.finishes(2.0, 1, score=0.4)
    assert one.finishes(3.0, 2, Outcome.INVALID) == ["answer 1 from 1, DOUBTFUL, keep", "forget 1"]


def test_or_where_it_does_not_answer_in_time(talk):
    one = talk(timeout_s=10.0)
    one.arrives(1.0, 1)
    one.finishes(2.0, 1, score=0.4)
    said = one.passes(11.0)
    assert said == ["cancel 2, TIMED_OUT", "answer 1 from 1, DOUBTFUL, keep", "forget 1"]
    assert one.finishes(12.0, 2, Outcome.CANCELLED) == []


def test_or_where_there_is_no_room_for_another_attempt(talk, tiny):
    one = talk(slots=1, queue=lambda: tiny.Urgent(limit=0))
    one.arrives(1.0, 1)
    one(Reported(1.5, 0, 0, 0, 0.0, 1.5))
    one.instance(1.6, 0, 2)
    assert one.finishes(2.0, 1, score=0.4) == ["keep 1", "answer 1 from 1, DOUBTFUL, keep", "forget 1"]


def test_the_other_model_is_retried_before_the_kept_answer_is_given(talk, tiny):
    one = talk(retrier=lambda: tiny.Again(attempts=3, wait_s=1.0))
    one.arrives(1.0, 1)
    one.finishes(2.0, 1, score=0.4)
    assert one.finishes(3.0, 2, Outcome.ERROR) == []
    assert one.passes(4.0) == ["dispatch 3: request 1 to 0, RETRIED"]
    assert one.finishes(5.0, 3, score=0.9) == ["answer 1 from 3, OWN", "forget 1"]
    assert models(one) == [1, 2, 2]


def test_a_client_that_goes_takes_the_kept_answer_along(talk):
    one = talk()
    one.arrives(1.0, 1)
    one.finishes(2.0, 1, score=0.4)
    assert one.leaves(2.5, 1) == ["cancel 2, CLIENT_GONE", "forget 1"]


def test_what_is_doubted_twice_keeps_the_later_answer(talk_to):
    one = talk_to(planner=lambda: Doubting(most=2))
    one.ready(0.0, 0)
    one.arrives(1.0, 1)
    one.finishes(2.0, 1, score=0.4)
    said = one.finishes(3.0, 2, score=0.4)
    assert said == ["forget 1", "keep 2", "dispatch 3: request 1 to 0, ESCALATED"]
    assert one.finishes(4.0, 3, Outcome.INVALID) == ["answer 1 from 2, DOUBTFUL, keep", "forget 2"]


def test_a_stream_that_has_begun_is_not_doubted(talk):
    one = talk()
    one.arrives(1.0, 1, stream=True)
    one(FirstToken(1.5, 1))
    assert one.finishes(2.0, 1, score=0.1) == ["answer 1 from 1, OWN"]


def test_both_attempts_are_settled_together(talk, tiny):
    one = talk(limiter=tiny.Counted)
    one.arrives(1.0, 1)
    one(Finished(2.0, 1, Outcome.OK, Usage(900, 0, 40, score=0.2)))
    one(Finished(3.0, 2, Outcome.OK, Usage(900, 0, 60, score=0.9)))
    assert one.plane.pools[0].controllers.limiter.spent == 900 + 40 + 900 + 60


def test_the_answer_that_convinced_is_what_is_cached(talk, tiny):
    one = talk(cache=tiny.Keeper)
    one.arrives(1.0, 1, cache_key=7)
    one.finishes(2.0, 1, score=0.2)
    assert one.finishes(3.0, 2, score=0.9) == ["answer 1 from 2, OWN, keep", "forget 1"]
    assert one.arrives(4.0, 2, cache_key=7) == ["answer 2 from 2, CACHED, keep"]
