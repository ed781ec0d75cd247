"""Faults do what they say, while they are active, to whom they name; and what they do adds up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from glowsim.build import control_plane, replication
from glowsim.core.journal import Recording, first_difference
from glowsim.core.streams import Streams
from glowsim.core.types import (
    Answer,
    Arrived,
    Dispatch,
    Fail,
    Finished,
    InstanceChanged,
    Outcome,
    Probed,
    State,
)
from glowsim.scenario import Scenario

AT_S, LASTS_S, END_S = 100.0, 100.0, 300.0
POISSON = {"kind": "poisson", "rate": "10/s"}


def ran(
    *faults: dict[str, Any],
    agent: dict[str, Any] | None = None,
    workload: dict[str, Any] | None = None,
    **controllers: Any,
) -> Recording:
    data = {
        "title": "faults",
        "question": "What do they do?",
        "seed": 5,
        "duration": f"{END_S}s",
        "models": {"m": {"input": "$1/1M", "output": "$2/1M"}},
        "fleet": [
            {
                "agent": "tax", "model": "m", "instances": 2, "concurrency": 4, "timeout": "20s",
                "service": {"law": "time", "time": {"law": "exponential", "mean": "200ms"}},
            }
            | (agent or {})
        ],
        "workload": [
            {"tokens_in": 900, "tokens_out": 100} | (workload or POISSON),
        ],
        "faults": [{"agent": "tax", "at": f"{AT_S}s", "lasts": f"{LASTS_S}s"} | fault for fault in faults],
        "controllers": {"balancer": {"use": "round_robin"}} | controllers,
    }  # fmt: skip
    scenario = Scenario.model_validate(data)
    made = replication(scenario, 0)
    made.world.start()
    made.world.run(END_S + 100.0)
    recording = made.journal.recording()
    assert made.world.stopped, "everything came to an end"
    assert first_difference(recording, control_plane(scenario, Streams(5, 0))) is None
    return recording


class Attempts:
    """When each attempt began and ended, where, and how."""

    def __init__(self, recording: Recording) -> None:
        dispatched, finished = recording.table(Dispatch), recording.table(Finished)
        assert sorted(finished["attempt"]) == dispatched["attempt"].tolist(), "each is finished once"
        order = np.argsort(finished["attempt"])
        self.began_s = recording.times()[recording.positions(Dispatch)]
        self.ended_s = finished["t_s"][order]
        self.outcome = finished["outcome"][order]
        self.tokens_out = finished["tokens_out"][order]
        self.retry_after_s = finished["retry_after_s"][order]
        self.instance = dispatched["instance"]
        self.request_id = dispatched["request_id"]
        self.during = (self.began_s >= AT_S) & (self.began_s < AT_S + LASTS_S)

    @property
    def lasted_s(self) -> np.ndarray:
        return self.ended_s - self.began_s


def test_refused_connections_are_unreachable_after_their_time_and_only_there() -> None:
    tries = Attempts(ran({"kind": "refuse", "instances": 1, "after": "500ms"}))
    struck = tries.during & (tries.instance == 0)
    assert struck.sum() > 300
    assert (tries.outcome == np.where(struck, Outcome.UNREACHABLE, Outcome.OK)).all()
    assert tries.lasted_s[struck] == pytest.approx(0.5)


def test_what_hangs_ends_only_when_it_is_cancelled() -> None:
    quick = {"timeout": "2s", "slots": 100, "service": {"law": "time", "time": "200ms"}}
    tries = Attempts(ran({"kind": "hang", "instances": 1}, agent=quick))
    struck = tries.during & (tries.instance == 0)
    assert (tries.outcome[struck] == Outcome.CANCELLED).all()
    assert tries.lasted_s[struck] == pytest.approx(2.0)
    assert (tries.outcome[~tries.during] == Outcome.OK).all()


def test_what_hangs_ends_after_the_idle_timeout_and_is_tried_elsewhere() -> None:
    patient = {
        "timeout": "20s",
        "idle_timeout": "1500ms",
        "slots": 100,
        "service": {"law": "time", "time": "200ms"},
    }
    recording = ran(
        {"kind": "hang", "instances": 1}, agent=patient, retrier={"use": "backoff", "budget_ratio": None}
    )
    tries = Attempts(recording)
    struck = tries.during & (tries.instance == 0)
    assert struck.sum() > 300
    assert (tries.outcome == np.where(struck, Outcome.TIMEOUT, Outcome.OK)).all()
    assert tries.lasted_s[struck] == pytest.approx(1.5)
    answered, failed = len(recording.table(Answer)), len(recording.table(Fail))
    assert (answered, failed) == (len(recording.table(Arrived)), 0)


@pytest.mark.parametrize("stream", [True, False])
def test_silence_is_what_comes_before_an_answer_but_not_a_stream_that_flows(stream: bool) -> None:
    slow = {
        "idle_timeout": "1s", "concurrency": 100,
        "service": {"law": "tokens", "base": "300ms", "input": "0ms/token", "output": "20ms/token"},
    }  # fmt: skip
    tries = Attempts(ran(agent=slow, workload=POISSON | {"stream": stream}))
    assert (tries.outcome == (Outcome.OK if stream else Outcome.TIMEOUT)).all()
    assert tries.lasted_s == pytest.approx(2.3 if stream else 1.0)


def test_a_first_token_that_waits_for_the_idle_timeout_never_comes() -> None:
    slow = {"service": {"law": "tokens", "base": "1100ms", "input": "0ms/token", "output": "1ms/token"}}
    tries = Attempts(
        ran(agent={**slow, "idle_timeout": "1s", "concurrency": 100}, workload=POISSON | {"stream": True})
    )
    assert (tries.outcome == Outcome.TIMEOUT).all()
    assert tries.lasted_s == pytest.approx(1.0)


def test_throttling_strikes_a_share_and_says_for_how_long() -> None:
    tries = Attempts(ran({"kind": "throttle", "share": "30%", "retry_after": "3s"}))
    throttled = tries.outcome == Outcome.THROTTLED
    assert not throttled[~tries.during].any()
    n, share = tries.during.sum(), throttled[tries.during].mean()
    assert abs(share - 0.3) < 4 * np.sqrt(0.3 * 0.7 / n), "4 sigma: a false alarm in 16,000"
    assert (tries.retry_after_s[throttled] == 3.0).all()
    assert tries.lasted_s[throttled] == pytest.approx(0.0)


def test_garbage_is_quick_and_short_and_noticed_as_often_as_it_says() -> None:
    fault = {"kind": "garbage", "instances": 1, "after": "50ms", "noticed": "25%"}
    tries = Attempts(ran(fault))
    struck = tries.during & (tries.instance == 0)
    assert tries.lasted_s[struck] == pytest.approx(0.05)
    assert (tries.tokens_out[struck] == 3).all()
    share = (tries.outcome[struck] == Outcome.ERROR).mean()
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / struck.sum())
    assert (tries.outcome[~struck] == Outcome.OK).all()


def test_a_brown_out_slows_all_and_those_that_come_meanwhile() -> None:
    constant = {"service": {"law": "time", "time": "200ms"}, "slots": 4}
    crash = {"kind": "crash", "instances": 1, "at": "120s", "lasts": "30s"}
    tries = Attempts(ran({"kind": "brown_out", "factor": 3}, crash, agent=constant))
    whole = (tries.began_s >= AT_S) & (tries.ended_s <= AT_S + LASTS_S) & (tries.outcome == Outcome.OK)
    assert tries.instance[whole].max() == 2, "the one that came for the crashed"
    assert tries.lasted_s[whole] == pytest.approx(0.6)
    outside = (tries.ended_s < AT_S) | (tries.began_s > AT_S + LASTS_S)
    assert tries.lasted_s[outside] == pytest.approx(0.2)


def test_two_slow_faults_multiply_and_leave_no_trace() -> None:
    constant = {"service": {"law": "time", "time": "100ms"}}
    later = {"kind": "slow", "instances": 2, "factor": 3, "at": "150s", "lasts": "100s"}
    tries = Attempts(ran({"kind": "slow", "instances": 1, "factor": 2}, later, agent=constant))

    def lasted(instance: int, begin_s: float, end_s: float) -> np.ndarray:
        inside = (tries.began_s >= begin_s) & (tries.ended_s <= end_s) & (tries.instance == instance)
        return tries.lasted_s[inside]

    assert lasted(0, 100.0, 150.0) == pytest.approx(0.2)
    assert lasted(1, 100.0, 150.0) == pytest.approx(0.1)
    assert lasted(0, 150.0, 200.0) == pytest.approx(0.6)
    assert lasted(0, 200.0, 250.0) == pytest.approx(0.3)
    assert lasted(0, 250.0, 400.0) == pytest.approx(0.1)


def test_a_slow_start_takes_its_factor_longer() -> None:
    crashes = [
        {"kind": "crash", "instances": 1, "at": "20s", "lasts": "10s"},
        {"kind": "crash", "instances": 1, "at": "110s", "lasts": "10s"},
    ]
    recording = ran({"kind": "slow_start", "factor": 4}, *crashes, agent={"startup": "5s"})
    changes = recording.table(InstanceChanged)
    took_s = {}
    for number in (2, 3):
        mine = changes[changes["instance"] == number]
        took_s[number] = (
            mine["t_s"][mine["state"] == State.READY] - mine["t_s"][mine["state"] == State.STARTING]
        )
    assert took_s == {2: pytest.approx(5.0), 3: pytest.approx(20.0)}


def probes(recording: Recording) -> list[Probed]:
    return [record for record in recording.records() if type(record) is Probed]


def test_probes_fail_where_connections_are_refused_and_are_lost_in_silence() -> None:
    checked = {"health_check": "10s"}
    refused = probes(ran({"kind": "refuse", "instances": 1}, agent=checked))
    assert {t_s for t_s, _, results in refused if not dict(results)[0]} == {
        t_s for t_s, _, _ in refused if AT_S <= t_s < AT_S + LASTS_S
    }
    assert all(dict(results)[1] for _, _, results in refused)
    silent = probes(ran({"kind": "silence"}, agent=checked))
    assert not [t_s for t_s, _, _ in silent if AT_S <= t_s < AT_S + LASTS_S]
    assert len(silent) > 15


def test_late_probes_tell_of_a_world_that_is_gone() -> None:
    checked = {"health_check": "10s"}
    refuse = {"kind": "refuse", "instances": 1, "at": "150s", "lasts": "30s"}
    late = probes(ran({"kind": "late", "by": "25s"}, refuse, agent=checked))
    unwell = [t_s for t_s, _, results in late if not dict(results)[0]]
    assert [round(t_s) for t_s in unwell] == [175, 185, 195], "taken at 150, 160 and 170 s, heard 25 s later"


def test_an_instance_that_hangs_can_still_crash_and_be_drained() -> None:
    crash = {"kind": "crash", "instances": 1, "at": "150s", "lasts": "10s"}
    tries = Attempts(ran({"kind": "hang", "instances": 1}, crash, agent={"timeout": "30s", "slots": 100}))
    lost = tries.outcome == Outcome.LOST
    assert lost.any()
    assert tries.ended_s[lost] == pytest.approx(150.0)


def test_the_luck_of_a_request_does_not_depend_on_what_else_goes_wrong() -> None:
    throttle = {"kind": "throttle", "share": "30%"}
    slow = {"kind": "slow", "instances": 1, "factor": 2, "at": "50s", "lasts": "200s"}
    alone, among = Attempts(ran(throttle)), Attempts(ran(throttle, slow))
    assert (alone.lasted_s[:900] != among.lasted_s[:900]).any(), "the world is another one"
    throttled = [
        {
            number: outcome == Outcome.THROTTLED
            for number, outcome in zip(each.request_id, each.outcome, strict=True)
        }
        for each in (alone, among)
    ]
    during = set(alone.request_id[alone.during]) & set(among.request_id[among.during])
    assert len(during) > 900
    assert [throttled[0][number] for number in during] == [throttled[1][number] for number in during]


def test_what_cannot_be_cancelled_is_worked_on_for_nobody() -> None:
    """One server, 2 s of work each, given up after 1 s: those behind wait for work that nobody wants."""
    alone = {
        "instances": 1, "concurrency": 1, "slots": 3, "timeout": "1s",
        "service": {"law": "time", "time": "2s"},
    }  # fmt: skip
    obeys = Attempts(ran(agent=alone))
    works_on = Attempts(ran(agent={**alone, "cancellable": False}))
    assert (obeys.outcome == Outcome.CANCELLED).all()
    assert (works_on.outcome == Outcome.CANCELLED).all()
    quick = {**alone, "slots": 8, "service": {"law": "time", "time": "300ms"}}
    served = [
        (Attempts(ran(agent={**quick, "cancellable": yes})).outcome == Outcome.OK).sum()
        for yes in (True, False)
    ]
    assert served[0] > 5 * served[1], "a backlog that never empties serves only those who have left"


def test_what_is_given_up_and_cannot_be_cancelled_is_worked_on_for_nobody() -> None:
    """One server at three times its rate, all given up after 1 s: to it, this end is like being cancelled."""
    silent = {
        "instances": 1, "concurrency": 1, "slots": 10_000, "timeout": "90s", "idle_timeout": "1s",
        "service": {"law": "time", "time": "300ms"},
    }  # fmt: skip
    obeys, works_on = (Attempts(ran(agent={**silent, "cancellable": yes})) for yes in (True, False))
    for tries in (obeys, works_on):
        assert set(tries.outcome) == {Outcome.OK, Outcome.TIMEOUT}
    assert (obeys.outcome == Outcome.OK).sum() > 5 * (works_on.outcome == Outcome.OK).sum()


def test_an_instance_that_works_for_nobody_leaves_when_it_has_done() -> None:
    """A victim that goes on with cancelled work is gone at the end of it, and no event comes late."""
    alone = {
        "instances": 1, "concurrency": 1, "timeout": "1s", "cancellable": False,
        "service": {"law": "time", "time": "3s"},
    }  # fmt: skip
    scaler = {
        "use": "agent_scaler",
        "cooldown_up": "0s",
        "cooldown_down": "0s",
        "look": "2s",
        "min_instances": 1,
    }
    waves = {"kind": "bursts", "base": "0.2/s", "burst": "5/s", "every": "60s", "lasts": "20s"}
    recording = ran(agent=alone, workload=waves, scaler=scaler)
    changes = recording.table(InstanceChanged)
    assert (np.diff(changes["t_s"]) >= 0).all()
    assert (changes["state"] == State.GONE).any()


def test_an_instance_that_the_scaler_let_go_meanwhile_does_not_crash_as_well() -> None:
    """Two of two crash; on hearing of the first, the scaler, with nothing to do, sends the second away."""
    scaler = {"use": "agent_scaler", "min_instances": 0, "idle": "0s", "look": "1000s"}
    pause = [{"at": "0s", "rate": "1/s"}, {"at": "20s", "rate": "0/s"}, {"at": "250s", "rate": "1/s"}]
    crash = {"kind": "crash", "instances": 2}
    recording = ran(crash, workload={"kind": "piecewise", "steps": pause}, scaler=scaler)
    changes = recording.table(InstanceChanged)
    ends = {
        row["instance"]: row["state"] for row in changes if row["t_s"] == AT_S and row["state"] >= State.GONE
    }
    assert ends == {0: State.FAILED, 1: State.GONE}
    assert (changes["state"][changes["t_s"] == AT_S + LASTS_S] == State.STARTING).sum() == 1, (
        "for the crashed one"
    )
