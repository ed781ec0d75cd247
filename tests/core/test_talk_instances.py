"""Instances: how they fill, drain, fail and are shut off; how many there are to be."""

from __future__ import annotations

from math import inf

import pytest

from glowsim.core.protocols import Gate
from glowsim.core.types import Change, ChangeKind, InstanceChanged, Outcome, Probed, State

# --- filling -----------------------------------------------------------------------------------------


def test_a_central_queue_holds_what_the_slots_do_not_take(talk_to):
    talk = talk_to(slots=2, concurrency=2)
    talk.ready(0.0, 0)
    assert [talk.arrives(1.0, number) != [] for number in (1, 2, 3)] == [True, True, False]
    assert talk.plane.pools[0].sizing.load(1.0).queued == 1
    assert talk.finishes(2.0, 2) == ["answer 2 from 2, OWN", "dispatch 3: request 3 to 0, QUEUED"]


def test_a_queue_at_the_instance_is_more_slots_than_it_serves_at_once(talk_to):
    talk = talk_to(slots=4, concurrency=1)
    talk.ready(0.0, 0, 1)
    for number in range(1, 9):
        assert len(talk.arrives(1.0, number)) == 1
    assert talk.arrives(1.0, 9) == []
    assert [each.load for each in talk.plane.pools[0].instances.values()] == [1.0, 1.0]
    load = talk.plane.pools[0].sizing.load(1.0)
    assert (load.in_flight, load.queued, load.slots, load.concurrency) == (8, 1, 4, 1)


def test_a_full_queue_turns_away_and_says_how_many_wait(talk_to, tiny):
    talk = talk_to(queue=lambda: tiny.Urgent(limit=1))
    talk.arrives(1.0, 1)
    assert talk.arrives(1.0, 2) == ["reject 2, QUEUE_FULL"]
    assert talk.commands[-1].reason.a == 1


def test_what_waited_without_instances_goes_when_one_is_ready(talk_to):
    talk = talk_to(slots=2)
    talk.arrives(1.0, 1)
    talk.arrives(2.0, 2)
    talk.arrives(3.0, 3)
    assert talk.instance(4.0, 0, State.STARTING) == []
    assert talk.ready(5.0, 0) == ["dispatch 1: request 1 to 0, QUEUED", "dispatch 2: request 2 to 0, QUEUED"]
    assert talk.plane.pools[0].sizing.load(5.0).ready == 1


def test_agents_do_not_share_instances(talk_to):
    talk = talk_to(agents=2)
    talk.ready(0.0, 0)
    talk(InstanceChanged(0.0, 1, 7, State.READY))
    assert talk.arrives(1.0, 1, agent=1) == ["dispatch 1: request 1 to 7, ARRIVED"]
    assert talk.arrives(1.0, 2, agent=1) == []
    assert talk.arrives(1.0, 3) == ["dispatch 2: request 3 to 0, ARRIVED"]


# --- failing -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["instance first", "attempt first"])
def test_an_instance_that_fails_while_busy_costs_an_attempt_and_no_request(talk_to, tiny, order):
    talk = talk_to(retrier=tiny.Again)
    talk.ready(0.0, 0, 1)
    talk.arrives(1.0, 1)
    if order == "instance first":
        talk.instance(2.0, 0, State.FAILED)
    assert talk.finishes(2.0, 1, Outcome.UNREACHABLE) == []
    if order == "attempt first":
        talk.instance(2.0, 0, State.FAILED)
    assert talk.passes(3.0) == ["dispatch 2: request 1 to 1, RETRIED"]
    assert list(talk.plane.pools[0].instances) == [1]


def test_a_failed_instance_is_replaced_at_once(talk_to, tiny):
    talk = talk_to(scaler=lambda: tiny.Sizing(least=2))
    talk.ready(0.0, 0, 1)
    talk.arrives(1.0, 1)
    assert talk.instance(3.0, 0, State.FAILED) == ["scale to 2 without [], LOAD_HIGH"]


# --- draining ----------------------------------------------------------------------------------------


def test_the_starting_go_first_then_those_with_the_least_work_then_the_newest(talk_to):
    talk = talk_to(slots=2)
    talk.ready(0.0, 1, 2, 3)
    talk.instance(0.0, 0, State.STARTING)
    talk.arrives(1.0, 1)
    order = Change(ChangeKind.SET_INSTANCES, 0, 1)
    assert talk.ordered(2.0, order) == ["scale to 1 without [0, 3, 2], OPERATOR"]


def test_a_victim_gets_no_dispatch_finishes_its_work_and_goes(talk_to):
    talk = talk_to()
    talk.ready(0.0, 0, 1)
    talk.arrives(1.0, 1)
    talk.arrives(1.0, 2)
    assert talk.ordered(2.0, Change(ChangeKind.SET_INSTANCES, 0, 1)) == ["scale to 1 without [1], OPERATOR"]
    assert talk.arrives(2.5, 3) == []
    assert talk.finishes(3.0, 2) == ["answer 2 from 2, OWN"]
    assert talk.instance(3.5, 1, State.GONE) == []
    assert talk.finishes(4.0, 1) == ["answer 1 from 1, OWN", "dispatch 3: request 3 to 0, QUEUED"]


def test_a_victim_that_was_starting_gets_no_work_when_its_readiness_crosses_the_order(talk_to):
    talk = talk_to()
    talk.ready(0.0, 0)
    talk.instance(0.0, 1, State.STARTING)
    talk.arrives(1.0, 1)
    talk.arrives(1.0, 2)
    assert talk.ordered(2.0, Change(ChangeKind.SET_INSTANCES, 0, 1)) == ["scale to 1 without [1], OPERATOR"]
    assert talk.ready(2.1, 1) == []
    assert talk.plane.pools[0].sizing.load(2.1).draining == 1


def test_an_order_for_what_is_there_changes_nothing(talk_to):
    talk = talk_to()
    talk.ready(0.0, 0, 1)
    assert talk.ordered(1.0, Change(ChangeKind.SET_INSTANCES, 0, 2)) == []


# --- shut off by the breaker -------------------------------------------------------------------------


def test_an_open_breaker_sheds_to_others_half_opens_and_closes(talk_to, tiny):
    talk = talk_to(breaker=tiny.Fuse, slots=2)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.arrives(1.0, 2)
    talk.finishes(2.0, 1, Outcome.ERROR)
    talk.finishes(3.0, 2, Outcome.ERROR)
    for number in (3, 4, 5):
        assert talk.arrives(4.0, number) == []
    assert talk.passes(12.9) == []
    assert talk.passes(13.0) == ["dispatch 3: request 3 to 0, QUEUED"]
    assert talk.finishes(14.0, 3) == [
        "answer 3 from 3, OWN",
        "dispatch 4: request 4 to 0, QUEUED",
        "dispatch 5: request 5 to 0, QUEUED",
    ]
    assert talk.plane.pools[0].instances[0].cap == 2


def test_a_half_open_breaker_that_fails_opens_again(talk_to, tiny):
    talk = talk_to(breaker=tiny.Fuse)
    talk.ready(0.0, 0)
    for number in (1, 2, 3):
        talk.arrives(1.0, number)
    talk.finishes(2.0, 1, Outcome.ERROR)
    assert talk.finishes(3.0, 2, Outcome.ERROR) == ["fail 2 ERROR, EXHAUSTED"]
    assert talk.passes(13.0) == ["dispatch 3: request 3 to 0, QUEUED"]
    talk.finishes(14.0, 3, Outcome.ERROR)
    talk.arrives(15.0, 4)
    assert talk.passes(23.9) == []
    assert talk.passes(24.0) == ["dispatch 4: request 4 to 0, QUEUED"]


def test_attempts_in_flight_end_normally_behind_a_gate_that_shut(talk_to, tiny):
    talk = talk_to(breaker=lambda: tiny.Fuse(failures=1), slots=3)
    talk.ready(0.0, 0)
    for number in (1, 2, 3):
        talk.arrives(1.0, number)
    talk.finishes(2.0, 1, Outcome.ERROR)
    assert talk.finishes(3.0, 2) == ["answer 2 from 2, OWN"]
    assert talk.arrives(4.0, 4) == []


def test_a_gate_that_changed_is_not_woken_at_the_moment_of_the_old_one(talk_to, tiny):
    talk = talk_to(breaker=lambda: tiny.Fuse(failures=1), slots=2)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.arrives(1.0, 2)
    talk.finishes(2.0, 1, Outcome.ERROR)
    talk.finishes(9.0, 2, Outcome.ERROR)
    talk.arrives(10.0, 3)
    assert talk.passes(12.0) == []
    assert talk.passes(18.9) == []
    assert talk.passes(19.0) == ["dispatch 3: request 3 to 0, QUEUED"]


def test_a_gate_is_woken_once_however_often_it_was_set(talk_to, tiny):
    class Punctual(tiny.Fuse):
        state = (*tiny.Fuse.state, "woken")
        woken = 0

        def record(self, t_s, instance, outcome, duration_s):
            return Gate(0, 12.0)

        def wake(self, t_s, instance):
            self.woken += 1

    talk = talk_to(breaker=Punctual, slots=2)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.arrives(1.0, 2)
    talk.finishes(2.0, 1, Outcome.ERROR)
    talk.finishes(3.0, 2, Outcome.ERROR)
    talk.passes(20.0)
    assert talk.plane.pools[0].controllers.breaker.woken == 1


def test_an_instance_that_comes_back_starts_with_a_clean_record(talk_to, tiny):
    talk = talk_to(breaker=tiny.Fuse)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.finishes(2.0, 1, Outcome.ERROR)
    talk.instance(3.0, 0, State.FAILED)
    talk.ready(4.0, 0)
    talk.arrives(5.0, 2)
    talk.finishes(6.0, 2, Outcome.ERROR)
    assert talk.plane.pools[0].instances[0].cap == 1


def test_a_client_that_left_is_not_held_against_the_instance(talk_to, tiny):
    talk = talk_to(breaker=lambda: tiny.Fuse(failures=1))
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.leaves(2.0, 1)
    talk.finishes(3.0, 1, Outcome.CANCELLED)
    assert talk.plane.pools[0].instances[0].cap == 1


def test_probes_are_sent_from_the_first_arrival_on_and_feed_the_breaker(talk_to, tiny):
    talk = talk_to(breaker=tiny.Fuse, probe_every_s=10.0)
    talk.ready(0.0, 0, 1)
    assert talk.plane.next_wake_s() == inf
    talk.arrives(1.0, 1)
    assert talk.passes(11.0) == ["probe"]
    talk(Probed(11.5, 0, ((0, False), (1, True), (9, False))))
    assert talk.passes(21.0) == ["probe"]
    talk(Probed(21.5, 0, ((0, False), (1, True))))
    caps = {number: each.cap for number, each in talk.plane.pools[0].instances.items()}
    assert caps == {0: 0, 1: 1}


# --- how many ----------------------------------------------------------------------------------------


def test_a_sleeping_scaler_is_woken_by_an_arrival_and_sleeps_again(talk_to, tiny):
    talk = talk_to(scaler=tiny.Sizing)
    assert talk.plane.next_wake_s() == inf
    assert talk.arrives(5.0, 1) == ["scale to 1 without [], LOAD_HIGH"]
    talk.instance(5.0, 0, State.STARTING)
    assert talk.plane.next_wake_s() == 15.0
    talk.ready(8.0, 0)
    talk.finishes(9.0, 1)
    assert talk.arrives(9.5, 2) == ["dispatch 2: request 2 to 0, ARRIVED"]
    assert talk.finishes(11.0, 2) == ["answer 2 from 2, OWN"]
    assert talk.passes(15.0) == ["scale to 0 without [0], LOAD_HIGH"]
    assert talk.plane.next_wake_s() == inf
    assert talk.arrives(99.0, 3) == ["scale to 1 without [], LOAD_HIGH"]


def test_a_scaler_is_shown_the_mean_since_its_last_look(talk_to, tiny):
    talk = talk_to(scaler=tiny.Sizing, slots=9)
    talk.ready(0.0, 0)
    talk.arrives(5.0, 1)
    talk.arrives(10.0, 2)
    talk.finishes(11.0, 1)
    talk.passes(15.0)
    talk.passes(25.0)
    looks = talk.plane.pools[0].controllers.scaler.looks
    assert looks == [(5.0, 1.0), (15.0, (5 * 1 + 1 * 2 + 4 * 1) / 10), (25.0, 1.0)]


def test_a_scaler_that_looked_in_between_is_not_asked_at_the_old_moment(talk_to, tiny):
    talk = talk_to(scaler=tiny.Sizing)
    talk.ready(0.0, 0)
    talk.arrives(5.0, 1)
    talk.instance(8.0, 0, State.FAILED)
    talk.passes(19.0)
    assert [t_s for t_s, _ in talk.plane.pools[0].controllers.scaler.looks] == [5.0, 8.0, 18.0]


def test_a_paused_scaler_goes_on_deciding_and_nothing_is_done(talk_to, tiny):
    talk = talk_to(scaler=tiny.Sizing)
    talk.ordered(0.0, Change(ChangeKind.PAUSE_SCALING, 0))
    assert talk.arrives(5.0, 1) == []
    assert talk.passes(15.0) == []
    assert len(talk.plane.pools[0].controllers.scaler.looks) == 2
    assert talk.ordered(16.0, Change(ChangeKind.SET_INSTANCES, 0, 2)) == ["scale to 2 without [], OPERATOR"]
    assert talk.ordered(17.0, Change(ChangeKind.RESUME_SCALING, 0)) == ["scale to 1 without [], LOAD_HIGH"]


def test_resuming_does_what_a_sleeping_scaler_decided_meanwhile(talk_to, tiny):
    talk = talk_to(scaler=tiny.Sizing)
    talk.ready(0.0, 0)
    talk.arrives(5.0, 1)
    talk.finishes(6.0, 1)
    talk.ordered(7.0, Change(ChangeKind.PAUSE_SCALING, 0))
    assert talk.passes(15.0) == []
    assert talk.plane.next_wake_s() == inf
    said = talk.ordered(20.0, Change(ChangeKind.RESUME_SCALING, 0))
    assert said == ["scale to 0 without [0], LOAD_HIGH"]


def test_an_order_that_is_repeated_is_declarative(talk_to, tiny):
    talk = talk_to(scaler=tiny.Sizing)
    talk.arrives(5.0, 1)
    assert talk.passes(15.0) == ["scale to 1 without [], LOAD_HIGH"]
    talk.instance(16.0, 0, State.STARTING)
    assert talk.passes(25.0) == []
