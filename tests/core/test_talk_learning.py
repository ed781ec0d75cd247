"""Rollouts, detectors and late labels."""

from __future__ import annotations

from math import inf

import pytest

from controllers.balancing.round_robin import RoundRobin
from glowsim.core.price import Price
from glowsim.core.types import Change, ChangeKind, Observed, Outcome, Reported


def label(t_s, variant, value, metric="thumb"):
    return Observed(t_s, 1, 0, variant, 1, 0.5, metric, value)


def test_a_rollout_starts_with_the_first_arrival_and_splits_by_unit(talk_to, tiny):
    talk = talk_to(splitter=tiny.Halves, slots=9)
    talk.ready(0.0, 0)
    said = talk.arrives(1.0, 1, user=1)
    assert said == ["advance to 1 at 0.5, STARTED", "dispatch 1: request 1 to 0, ARRIVED"]
    talk.arrives(1.0, 2, user=2)
    assert [command.plan.variant for command in talk.commands[1:]] == [1, 0]


def test_a_rollout_that_waits_for_its_time_is_woken_then(talk_to, tiny):
    talk = talk_to(splitter=lambda: tiny.Halves(first_s=50.0), slots=9)
    talk.ready(0.0, 0)
    assert talk.arrives(1.0, 1, user=1) == ["dispatch 1: request 1 to 0, ARRIVED"]
    assert talk.plane.next_wake_s() == 31.0
    talk.finishes(2.0, 1)
    assert talk.plane.next_wake_s() == 50.0
    assert talk.passes(60.0) == ["advance to 1 at 0.5, STARTED"]
    assert talk.plane.next_wake_s() == inf


def test_failures_of_the_candidate_roll_it_back_and_retries_count_once(talk_to, tiny):
    talk = talk_to(splitter=tiny.Halves, retrier=tiny.Again)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, user=1)
    talk.finishes(2.0, 1, Outcome.ERROR)
    talk.passes(3.0)
    assert talk.finishes(4.0, 2, Outcome.ERROR) == ["fail 1 ERROR, EXHAUSTED"]
    talk.arrives(5.0, 2, user=1)
    assert talk.finishes(6.0, 3, Outcome.INVALID) == [
        "fail 2 INVALID, NOT_RETRYABLE",
        "advance to 0 at 0, EVIDENCE_OF_HARM",
    ]
    talk.arrives(7.0, 3, user=1)
    assert talk.commands[-1].plan.variant == 0


def test_an_open_request_keeps_its_variant_through_a_roll_back(talk_to, tiny):
    talk = talk_to(splitter=tiny.Halves, retrier=tiny.Again)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, user=1)
    talk.finishes(2.0, 1, Outcome.ERROR)
    said = talk.ordered(2.5, Change(ChangeKind.ROLL_BACK, 0))
    assert said == ["advance to 0 at 0, EVIDENCE_OF_HARM"]
    talk.passes(3.0)
    assert talk.commands[-1].plan.variant == 1


def test_an_order_to_roll_back_what_is_not_rolled_out_is_nothing(talk_to):
    talk = talk_to()
    assert talk.ordered(1.0, Change(ChangeKind.ROLL_BACK, 0)) == []


def test_late_labels_reach_the_rollout_and_the_detectors_of_their_metric(talk_to, tiny):
    talk = talk_to(
        splitter=tiny.Halves,
        detectors=[lambda: tiny.Above("thumb", 0.9), lambda: tiny.Above("latency_s", 5.0)],
    )
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, user=1)
    talk.finishes(2.0, 1)
    assert talk(label(500.0, 0, 1.0)) == ["alert thumb, DRIFT_UP"]
    assert talk(label(600.0, 1, -1.0)) == ["advance to 0 at 0, EVIDENCE_OF_HARM"]
    assert [each.seen for each in talk.plane.pools[0].controllers.detectors] == [[1.0, -1.0], [1.0]]


def test_an_alert_carries_the_agent_that_it_is_about(talk_to, tiny):
    talk = talk_to(agents=2, detectors=[lambda: tiny.Above("thumb", 0.9)])
    talk(Observed(1.0, 1, 1, 0, 1, 1.0, "thumb", 1.0))
    assert talk.commands[0].alert.agent == 1


def test_detectors_hear_latency_errors_and_tokens(talk_to, tiny):
    metrics = ("latency_s", "error", "tokens_in", "tokens_out")
    talk = talk_to(detectors=[lambda metric=metric: tiny.Above(metric, 1e9) for metric in metrics])
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.finishes(3.0, 1, tokens_out=40)
    talk.arrives(4.0, 2)
    talk.finishes(5.0, 2, Outcome.ERROR)
    seen = [each.seen for each in talk.plane.pools[0].controllers.detectors]
    assert seen == [[2.0, 1.0], [0.0, 1.0], [900], [40]]


def test_a_follower_is_no_evidence_of_its_own(talk_to, tiny):
    talk = talk_to(cache=tiny.Keeper, detectors=[lambda: tiny.Above("error", 1e9)])
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, cache_key=5)
    talk.arrives(1.0, 2, cache_key=5)
    talk.arrives(1.0, 3, cache_key=5, deadline_s=1.5)
    assert talk.finishes(2.0, 1)[0] == "fail 3 TIMEOUT, WAITED_TOO_LONG"
    assert talk.plane.pools[0].controllers.detectors[0].seen == [0.0]


def test_the_balancer_hears_what_instances_report(talk_to):
    class Listening(RoundRobin):
        state = (*RoundRobin.state, "heard")
        heard: tuple = ()

        def reported(self, t_s, reported):
            self.heard = (*self.heard, (t_s, reported.instance, reported.value, reported.sampled_at_s))

    talk = talk_to(balancer=Listening)
    talk(Reported(5.0, 0, 3, 1, 0.7, 4.0))
    assert talk.plane.pools[0].controllers.balancer.heard == ((5.0, 3, 0.7, 4.0),)


def test_a_detector_of_costs_sees_what_all_attempts_of_a_request_cost(talk_to, tiny):
    prices = (Price(1e-3, 1e-4, 1e-2), Price(9.0, 9.0, 9.0))
    talk = talk_to(retrier=tiny.Again, prices=prices, detectors=[lambda: tiny.Above("cost_usd", 2.0)])
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    assert talk.finishes(2.0, 1) == ["answer 1 from 1, OWN"]
    talk.arrives(3.0, 2)
    talk.finishes(4.0, 2, Outcome.ERROR)
    talk.passes(5.0)
    assert talk.finishes(6.0, 3) == ["answer 2 from 3, OWN", "alert cost_usd, DRIFT_UP"]
    (detector,) = talk.plane.pools[0].controllers.detectors
    assert detector.seen == pytest.approx([900e-3 + 40e-2, 2 * (900e-3 + 40e-2)])
