"""A real rollout in a conversation: what arrives and ends on one side, its stages on the other."""

from __future__ import annotations

from math import inf

from controllers.rollout.improvement import ImprovementRollout
from glowsim.core.types import Change, ChangeKind, Outcome, Request


def rollout():
    return ImprovementRollout(
        salt="v2", strategy="stages", weights=(0.25, 0.5), holds_s=(120.0,), maturity_s=60.0, minimum=4, alpha=0.5,
        margin=0.5,
    )  # fmt: skip


def variants(talk, t_s, first, count):
    """Let requests arrive and end well; return how many the new variant got."""
    for number in range(first, first + count):
        talk.arrives(t_s, number)
        talk.finishes(t_s, talk.commands[-1].attempt)
    return sum(command.plan.variant for command in talk.commands if hasattr(command, "plan"))


def stages(talk):
    return [(each.stage, each.reason.code.name) for each in talk.commands if hasattr(each, "stage")]


def test_it_goes_through_its_stages_at_its_looks_and_costs_nothing_in_between(talk_to):
    talk = talk_to(splitter=rollout, slots=9)
    talk.ready(0.0, 0)
    assert talk.plane.next_wake_s() == inf
    assert variants(talk, 1.0, 1, 60) > 4
    talk.passes(40.0)  # the timers of requests that have ended
    assert talk.plane.next_wake_s() == 60.0
    assert talk.passes(60.0) == []
    assert talk.plane.next_wake_s() == 120.0, (
        "two looks after, these outcomes are mature and the stage may end"
    )
    assert talk.passes(120.0) == ["advance to 2 at 0.5, STAGE_DONE"]
    assert talk.plane.next_wake_s() == 240.0
    assert talk.passes(3600.0) == ["advance to 2 at 0.5, TOO_FEW"]
    assert talk.plane.next_wake_s() == inf, "nothing changes until somebody asks for something"
    variants(talk, 7201.0, 100, 200)
    talk.passes(7250.0)
    assert talk.plane.next_wake_s() == 7260.0
    talk.passes(7260.0)
    assert talk.passes(7320.0) == ["advance to 3 at 1, NON_INFERIOR"]
    assert talk.plane.next_wake_s() == inf
    talk.arrives(7321.0, 999)
    assert talk.commands[-1].plan.variant == 1


def test_a_request_that_was_tried_three_times_counts_once(talk_to, tiny):
    """Three failures in a row of one request of the canary are one bad outcome."""

    def evidence(attempts):
        talk = talk_to(splitter=rollout, retrier=lambda: tiny.Again(attempts=3), slots=9)
        talk.ready(0.0, 0)
        twin = rollout()
        number = next(n for n in range(1, 99) if twin.assign(0.0, Request(n, 0, 900, 100)))
        talk.arrives(0.0, number)
        for attempt in range(1, attempts + 1):
            assert talk.commands[-1].attempt == attempt
            talk.finishes(2.0 * attempt, attempt, Outcome.ERROR if attempts == 3 else Outcome.INVALID)
            if attempt < attempts:
                talk.wakes()
        talk.passes(120.0)
        return talk.plane.pools[0].controllers.splitter.evidence

    assert evidence(3) == evidence(1) > 1.0


def test_harm_takes_it_back_at_a_look_and_an_order_at_once(talk_to):
    talk = talk_to(splitter=rollout, slots=99)
    talk.ready(0.0, 0)
    for number in range(1, 60):
        talk.arrives(1.0, number)
        command = talk.commands[-1]
        talk.finishes(1.0, command.attempt, Outcome.INVALID if command.plan.variant else Outcome.OK)
    assert stages(talk) == []
    talk.passes(121.0)
    assert stages(talk) == [(0, "EVIDENCE_OF_HARM")]
    talk.arrives(122.0, 900)
    assert talk.ordered(123.0, Change(ChangeKind.PROMOTE, 0)) == []

    other = talk_to(splitter=rollout, slots=9)
    other.ready(0.0, 0)
    other.arrives(1.0, 1)
    assert other.ordered(2.0, Change(ChangeKind.PAUSE_ROLLOUT, 0)) == ["advance to 1 at 0.25, PAUSED"]
    assert other.ordered(3.0, Change(ChangeKind.RESUME_ROLLOUT, 0)) == ["advance to 1 at 0.25, RESUMED"]
    assert other.ordered(4.0, Change(ChangeKind.PROMOTE, 0)) == ["advance to 3 at 1, OPERATOR"]
    assert other.ordered(5.0, Change(ChangeKind.ROLL_BACK, 0)) == ["advance to 0 at 0, OPERATOR"]
