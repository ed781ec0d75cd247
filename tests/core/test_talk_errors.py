"""What cannot be is refused before anything changes; a controller that fails stops the conversation."""

from __future__ import annotations

import json
from math import inf, nan

import pytest

from controllers.balancing.round_robin import RoundRobin
from glowsim.core.errors import ControllerError, WorldError
from glowsim.core.instance import Instance
from glowsim.core.protocols import Gate, Wanted
from glowsim.core.types import (
    Abandoned,
    Arrived,
    Change,
    Changed,
    ChangeKind,
    Code,
    Finished,
    FirstToken,
    InstanceChanged,
    Outcome,
    Probed,
    Reason,
    Reported,
    Request,
    State,
    Status,
    Told,
    Usage,
    Woke,
)

IMPOSSIBLE = {
    "time that runs back": (Woke(1.0), "time ran back from 2.0 s to 1.0 s"),
    "time that is none": (Woke(nan), "time ran back"),
    "an unknown agent": (Arrived(40.0, Request(9, 5, 1, 1)), "there is no agent 5: the fleet has 1"),
    "a negative agent": (Arrived(40.0, Request(9, -1, 1, 1)), "there is no agent -1"),
    "an open request that arrives": (Arrived(40.0, Request(1, 0, 1, 1)), "request 1 arrived twice"),
    "an attempt that never was": (Finished(40.0, 7, Outcome.OK, Usage()), "attempt 7 is not open"),
    "a stream that never was": (FirstToken(40.0, 7), "attempt 7 is not open"),
    "an answer to no question": (Told(40.0, 1, Status.GRANTED), "ask 1, which was never asked"),
    "an instance that never was": (
        InstanceChanged(40.0, 0, 8, State.GONE),
        "instance 8 of agent 0 went away",
    ),
    "a report on nobody": (Reported(40.0, 3, 0, 1, 0.5, 1.0), "there is no agent 3"),
    "probes of nobody": (Probed(40.0, 3, ()), "there is no agent 3"),
    "half an instance": (
        Changed(40.0, Change(ChangeKind.SET_INSTANCES, 0, 1.5)),
        "cannot have 1.5 instances: order a whole number",
    ),
    "less than none": (
        Changed(40.0, Change(ChangeKind.SET_INSTANCES, 0, -1.0)),
        "cannot have -1.0 instances",
    ),
    "no event": ((40.0, "hello"), "none of the events"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_is_refused_and_nothing_has_changed(talk_to, name):
    event, message = IMPOSSIBLE[name]
    talk = talk_to(timeout_s=30.0)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.arrives(2.0, 2)
    before = json.dumps(talk.plane.snapshot())
    with pytest.raises(WorldError, match=message):
        talk.plane.handle(event)
    assert json.dumps(talk.plane.snapshot()) == before
    assert talk.finishes(3.0, 1) == ["answer 1 from 1, OWN", "dispatch 2: request 2 to 0, QUEUED"]


def test_an_error_names_its_event(talk_to):
    talk = talk_to()
    with pytest.raises(WorldError) as caught:
        talk.plane.handle(Finished(1.0, 7, Outcome.OK, Usage()))
    assert "Finished(t_s=1.0, attempt=7" in "".join(caught.value.__notes__)


def test_an_attempt_that_finishes_twice_is_the_worlds_fault(talk_to):
    talk = talk_to()
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1)
    talk.finishes(2.0, 1)
    with pytest.raises(WorldError, match="finished before"):
        talk.finishes(2.0, 1)


def test_leaving_without_having_come_is_nothing(talk_to):
    assert talk_to()(Abandoned(1.0, 99)) == []


def test_agents_are_given_in_order(tiny):
    from glowsim.core.control_plane import ControlPlane

    plane = tiny.build(agents=2)
    with pytest.raises(ValueError, match="pool 0 is for agent 1: give the pools in the agents' order"):
        ControlPlane([(pool.spec, pool.controllers) for pool in reversed(plane.pools)])


class Absent(RoundRobin):
    def pick(self, t_s, request, allowed):
        return Instance(77, 0, 1)


class Full(RoundRobin):
    def pick(self, t_s, request, allowed):
        return request.user  # not an instance at all


@pytest.mark.parametrize(
    ("family", "name", "answer", "message"),
    [
        ("scaler", "decide", Wanted(1, Reason(Code.HELD), 1.0), "the scaler wants to look again at 1.0 s"),
        ("scaler", "decide", Wanted(-1, Reason(Code.HELD), inf), "the scaler wants -1 instances"),
        ("limiter", "admit", nan, "the limiter answered nan"),
        ("retrier", "after", -1.0, "the retrier waits -1.0 s"),
        ("retrier", "after", nan, "the retrier waits nan s"),
        ("breaker", "record", Gate(0, 2.0), "the breaker wants to be woken at 2.0 s, but it is 2.0 s"),
        ("splitter", "wake_s", 1.0, "the splitter wants to be woken at 1.0 s, but it is 1.0 s"),
        ("guard", "check", ZeroDivisionError("no"), "ZeroDivisionError: no"),
        ("queue", "push", ZeroDivisionError("no"), "ZeroDivisionError: no at Arrived"),
    ],
)
def test_what_a_controller_must_not_answer_stops_the_conversation(tiny, family, name, answer, message):
    classes = {
        "scaler": tiny.Sizing,
        "limiter": tiny.Counted,
        "retrier": tiny.Again,
        "breaker": tiny.Fuse,
        "splitter": tiny.Halves,
        "guard": tiny.Sized,
        "queue": tiny.Urgent,
    }

    def failing(self, *arguments):
        if isinstance(answer, Exception):
            raise answer
        return answer

    broken = type("Broken", (classes[family],), {name: failing})
    talk = tiny.Talk(lambda: tiny.build(**{family: broken}), crashing=False)
    talk.ready(0.0, 0)

    def go_on():
        talk.arrives(1.0, 1)
        talk.arrives(1.0, 2)
        talk.finishes(2.0, 1, Outcome.ERROR)

    with pytest.raises(ControllerError, match=message):
        go_on()
    with pytest.raises(ControllerError, match="restore the last snapshot"):
        talk.passes(3.0)
    with pytest.raises(ControllerError, match="restore the last snapshot"):
        talk.plane.snapshot()


def test_a_balancer_must_pick_one_that_may_get_work(talk_to):
    talk = talk_to(balancer=Absent)
    talk.ready(0.0, 0)
    with pytest.raises(ControllerError, match="picked instance 77, which may not get work now") as caught:
        talk.arrives(1.0, 1)
    assert "Arrived(t_s=1.0" in "".join(caught.value.__notes__)


def test_a_balancer_that_picks_no_instance_at_all_is_named_with_its_event(talk_to):
    talk = talk_to(balancer=Full)
    talk.ready(0.0, 0)
    with pytest.raises(ControllerError, match=r"AttributeError: .* at Arrived"):
        talk.arrives(1.0, 1)


def test_a_cache_must_not_let_go_of_what_it_does_not_hold(talk_to, tiny):
    class Careless(tiny.Keeper):
        def put(self, t_s, key, source, usage):
            return super().put(t_s, key, source, usage)._replace(evicted=(41,))

    talk = talk_to(cache=Careless)
    talk.ready(0.0, 0)
    talk.arrives(1.0, 1, cache_key=5)
    with pytest.raises(ControllerError, match="let go of source 41, which it does not hold"):
        talk.finishes(2.0, 1)


def test_an_asker_keeps_the_number_it_was_given(talk_to, tiny):
    class Confused(tiny.Leased):
        def to_ask(self, t_s, ask_id):
            return super().to_ask(t_s, ask_id + 5)

    with pytest.raises(ControllerError, match="asks as 6; it was given 1"):
        talk_to(limiter=Confused).arrives(1.0, 1)
