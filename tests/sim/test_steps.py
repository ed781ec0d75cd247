"""Agents that work in steps, and the sessions that they are asked in."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from glowsim import build
from glowsim.core.errors import WorldError
from glowsim.core.journal import Journal
from glowsim.core.streams import Streams
from glowsim.core.types import Arrived, Dispatch, Finished, FirstToken, Outcome
from glowsim.results import fold
from glowsim.scenario import Scenario
from glowsim.sim import world as worlds
from glowsim.sim.servers import Served
from glowsim.sim.serving.call import Call

CALL_S = 1.0


class Fixed:
    """A server whose every call takes a second, and which remembers them."""

    def __init__(self, environment, done, first_token, fail=()):
        self.environment = environment
        self.done = done
        self.first_token = first_token
        self.fail = dict(fail)
        self.calls = []
        self.inside = {}

    def start(self, call: Call) -> None:
        self.calls.append((self.environment.now, call))
        self.inside[call.number] = call
        self.environment.call_at(self.environment.now + CALL_S / 2, self.begin, call)
        self.environment.call_at(self.environment.now + CALL_S, self.end, call)

    def begin(self, call):
        if call.number in self.inside:
            call.first_token_s = self.environment.now
            if call.stream:
                self.first_token(call)

    def end(self, call):
        if self.inside.pop(call.number, None) is None:
            return
        outcome, call.retry_after_s = self.fail.get(len(self.calls), (Outcome.OK, 0.0))
        call.outcome = Outcome(outcome)
        call.written = call.tokens_out if call.outcome is Outcome.OK else 0
        self.done(call)

    def cancel(self, call):
        del self.inside[call.number]
        call.written = 1
        call.tokens_cached = 900

    def set_speed(self, speed):
        pass

    def __len__(self):
        return len(self.inside)


def scenario(steps, *, workload=None, **agent):
    return Scenario.model_validate(
        {
            "title": "steps",
            "question": "What does an agent do with a request?",
            "seed": 3,
            "duration": "1h",
            "models": {"m": {"input": "$1/1M", "output": "$2/1M", "server": "one"}},
            "servers": {
                "one": {"engine": "hosted", "first_token": "500ms", "per_token": "0s"},
            },
            "fleet": [
                {
                    "agent": "tax", "model": "m", "instances": 1, "concurrency": 4, "timeout": "1000s",
                    "service": {"law": "steps", "instructions": 1000, "steps": steps},
                } | agent
            ],
            "workload": [
                {"kind": "poisson", "rate": "1/s", "tasks": 1, "tokens_in": 500, "tokens_out": 50} | (workload or {})
            ],
        }
    )  # fmt: skip


class Ran:
    def __init__(self, said, fail=(), replication=0):
        self.said = said
        streams = Streams(said.seed, replication)
        plane = build.control_plane(said, streams)
        agents = [build.agent_world(said, agent) for agent in said.agents().values()]
        traits = [build.AgentTraits(agent.service, agent.region, True) for agent in agents]
        sources = [
            build._source(said, i, each, traits, streams, None) for i, each in enumerate(said.workload)
        ]
        self.journal = Journal(build.header(said, replication))
        made = []

        def make(environment, place, done, first_token):
            made.append(Fixed(environment, done, first_token, fail))
            return made[-1]

        self.world = worlds.World(
            plane,
            self.journal,
            agents,
            sources,
            streams,
            [fault for each in said.faults for fault in build._faults(said, each)],
            [Served((0,), 1, "least_loaded", make)],
        )
        self.world.start()
        self.world.run(said.duration_s + said.drain_s)
        self.server = made[0]
        self.recording = self.journal.recording()
        self.tables = fold(self.recording, said)

    @property
    def calls(self):
        return [(t_s, call.tokens_in, call.tokens_out) for t_s, call in self.server.calls]


ANSWER = {"step": "answer"}


def test_the_context_grows_by_what_was_written_and_looked_up():
    ran = Ran(
        scenario(
            [
                {"step": "call", "tokens_out": 70},
                {"step": "tool", "time": "2s", "tokens": 300},
                {"step": "call", "tokens_out": 30},
                ANSWER,
            ]
        )
    )
    begun = ran.calls[0][0]
    assert [(t_s - begun, tokens_in, out) for t_s, tokens_in, out in ran.calls] == [
        (0.0, 1500, 70),
        (3.0, 1870, 30),
        (4.0, 1900, 50),
    ]
    attempts = ran.tables.attempts
    assert attempts["tokens_in"].tolist() == [1500 + 1870 + 1900]
    assert attempts["tokens_out"].tolist() == [150]
    assert attempts["cost_usd"].tolist() == pytest.approx([5270e-6 + 300e-6])
    assert ran.tables.requests["latency_s"].tolist() == pytest.approx([5.0])


def test_branches_run_side_by_side_and_are_joined():
    branches = [
        [{"step": "tool", "time": "3s", "tokens": 10}],
        [{"step": "call", "tokens_out": 20}, {"step": "tool", "time": "1s", "tokens": 5}],
    ]
    ran = Ran(scenario([{"step": "together", "branches": branches}, ANSWER]))
    (first, _, _), (last, tokens_in, _) = ran.calls
    assert last - first == pytest.approx(3.0)
    assert tokens_in == 1500 + 10 + 20 + 5


def test_branches_are_texts_of_their_own_that_begin_with_the_instructions():
    call = {"step": "call", "tokens_out": 20}
    ran = Ran(scenario([call, {"step": "together", "branches": [[call, call], [call]]}, ANSWER]))
    assert {(call.shared_key, call.shared_tokens) for _, call in ran.server.calls} == {
        (ran.server.calls[0][1].shared_key, 1000)
    }
    texts = Counter(call.own_key for _, call in ran.server.calls)
    assert sorted(texts.values()) == [1, 2, 2]
    assert ran.server.calls[0][1].own_key == ran.server.calls[-1][1].own_key


def test_an_answer_is_no_longer_than_was_asked_for():
    ran = Ran(scenario([{"step": "call", "tokens_out": 9}, ANSWER], workload={"max_tokens_out": 20}))
    assert [out for _, _, out in ran.calls] == [9, 20]


def test_a_loop_goes_round_by_its_probability_and_no_more_than_it_may():
    loop = {"step": "loop", "again": "75%", "most": 6, "steps": [{"step": "call", "tokens_out": 10}]}
    ran = Ran(scenario([loop, ANSWER], workload={"tasks": 3000, "rate": "1/s"}, concurrency=1000))
    rounds = Counter(Counter(call.own_key for _, call in ran.server.calls).values())
    n = sum(rounds.values())
    expected = [0.25 * 0.75**k for k in range(5)] + [0.75**5]
    for k, share in enumerate(expected):
        found = rounds[k + 2] / n
        assert abs(found - share) < 3.9 * (share * (1 - share) / n) ** 0.5  # misses once in 10,000


def test_a_tool_that_fails_is_tried_again_then_told_of_or_fatal():
    tool = {"step": "tool", "time": "1s", "tokens": 7, "fails": "50%", "tries": 3}
    often = {"tasks": 2000, "rate": "5/s"}
    ran = Ran(scenario([{**tool, "needed": True}, ANSWER], workload=often, concurrency=1000))
    outcomes = Counter(ran.tables.attempts["outcome"].tolist())
    assert abs(outcomes[int(Outcome.ERROR)] / 2000 - 0.125) < 3.9 * (0.125 * 0.875 / 2000) ** 0.5
    told = Ran(scenario([tool, ANSWER], workload=often, concurrency=1000))
    assert set(told.tables.attempts["outcome"].tolist()) == {int(Outcome.OK)}


def test_what_a_tool_says_when_it_is_given_up_joins_the_context():
    ran = Ran(scenario([{"step": "tool", "time": "1s", "tokens": 7, "fails": "100%", "tries": 2}, ANSWER]))
    assert [tokens_in for _, tokens_in, _ in ran.calls] == [1507]
    assert ran.tables.requests["latency_s"].tolist() == pytest.approx([2.0 + CALL_S])


def test_the_client_calls_again_and_waits_as_long_as_it_is_asked():
    fail = {1: (Outcome.THROTTLED, 7.0), 2: (Outcome.ERROR, 0.0)}
    ran = Ran(scenario([ANSWER]), fail=fail)
    begun = ran.calls[0][0]
    assert [t_s - begun for t_s, _, _ in ran.calls] == pytest.approx([0.0, 8.0, 10.0])
    assert ran.tables.attempts["outcome"].tolist() == [int(Outcome.OK)]
    given_up = Ran(scenario([ANSWER]), fail=dict.fromkeys((1, 2, 3), (Outcome.THROTTLED, 9.0)))
    assert given_up.recording.table(Finished)["retry_after_s"].tolist() == [9.0]
    assert given_up.tables.attempts["outcome"].tolist() == [int(Outcome.THROTTLED)]


def test_a_call_that_no_retry_mends_is_not_made_again():
    ran = Ran(scenario([ANSWER]), fail={1: (Outcome.INVALID, 0.0)})
    assert len(ran.calls) == 1
    assert ran.tables.attempts["outcome"].tolist() == [int(Outcome.INVALID)]


def test_what_is_cancelled_frees_its_place_and_counts_what_it_used():
    slow = [{"step": "tool", "time": "1s"}, {"step": "call", "tokens_out": 10}, ANSWER]
    ran = Ran(scenario(slow, timeout="1500ms"))
    attempts = ran.tables.attempts
    assert attempts["outcome"].tolist() == [int(Outcome.CANCELLED)]
    assert attempts["tokens_in"].tolist() == [1500 + 200]
    assert attempts["tokens_out"].tolist() == [1]
    assert attempts["tokens_cached"].tolist() == [900]
    assert len(ran.server) == 0


def test_a_tool_of_a_cancelled_task_is_followed_by_nothing():
    ran = Ran(scenario([{"step": "tool", "time": "10s"}, ANSWER], timeout="2s"))
    assert ran.tables.attempts["outcome"].tolist() == [int(Outcome.CANCELLED)]
    assert ran.calls == []


def test_what_waits_at_an_instance_is_begun_in_order_of_arrival():
    ran = Ran(scenario([ANSWER], workload={"tasks": 9, "rate": "1000/s"}, concurrency=1, slots=9))
    assert ran.recording.table(Finished)["attempt"].tolist() == list(range(1, 10))
    assert np.diff([t_s for t_s, _, _ in ran.calls]).tolist() == pytest.approx([CALL_S] * 8)


def test_what_is_cancelled_while_it_waits_is_never_begun():
    data = scenario([{"step": "tool", "time": "90s"}, ANSWER], concurrency=1, slots=9).dump()
    first = data["workload"][0] | {"rate": "1000/s"}
    data["workload"] = [first, first | {"rate": "1/s", "tasks": 5, "deadline": "2s"}]
    ran = Ran(Scenario.model_validate(data))
    assert Counter(ran.tables.attempts["outcome"].tolist()) == {int(Outcome.OK): 1, int(Outcome.CANCELLED): 5}
    assert len(ran.calls) == 1


def test_a_streamed_answer_begins_with_the_last_call():
    ran = Ran(scenario([{"step": "call", "tokens_out": 10}, ANSWER], workload={"stream": True}))
    requests = ran.tables.requests
    assert (requests["t_first_token_s"] - requests["t_arrive_s"]).tolist() == pytest.approx([1.5])
    assert len(ran.recording.table(FirstToken)) == 1, "what it writes before is nobody's to read"


def test_the_same_task_takes_the_same_steps_whatever_else_happens():
    looks = {"step": "tool", "time": {"law": "exponential", "mean": "1s"}}
    writes = {"step": "call", "tokens_out": {"law": "exponential", "mean": 80}}
    loop = {"step": "loop", "again": "60%", "steps": [looks, writes]}
    plenty = Ran(scenario([loop, ANSWER], workload={"tasks": 100}, concurrency=1000))
    scarce = Ran(scenario([loop, ANSWER], workload={"tasks": 100}, concurrency=3))

    def written(ran):
        found: dict[int, list[int]] = {}
        for _, call in ran.server.calls:
            found.setdefault(call.own_key, []).append(call.tokens_out)
        return found

    assert written(plenty) == written(scarce)
    assert plenty.calls != scarce.calls


# --- sessions ------------------------------------------------------------------------------------------

SESSIONS = {
    "kind": "sessions",
    "arrivals": {"kind": "poisson", "rate": "30/h"},
    "turns": 3,
    "think": "10s",
    "tokens_in": 100,
    "first_tokens_in": 400,
    "tokens_out": 50,
    "tasks": 5,
}


def sessions(steps=(ANSWER,), fleet=None, **changes):
    data = scenario(list(steps)).dump()
    data["workload"] = [SESSIONS | changes]
    if fleet is not None:
        data["fleet"] = [data["fleet"][0] | {"agent": name} for name in fleet]
    return Scenario.model_validate(data)


def test_a_turn_follows_the_end_of_the_last_and_brings_its_context():
    ran = Ran(sessions())
    arrived = ran.recording.table(Arrived)
    for key in np.unique(arrived["session"]):
        mine = arrived[arrived["session"] == key]
        assert mine["tokens_in"].tolist() == [400, 400 + 50 + 100, 400 + 2 * 150]
        assert np.diff(mine["t_s"]).tolist() == pytest.approx([CALL_S + 10.0] * 2)
    assert len(np.unique(arrived["session"])) == 5
    assert len(ran.world.contexts) == 0


def test_the_context_holds_what_the_agent_looked_up():
    ran = Ran(sessions([{"step": "tool", "time": "1s", "tokens": 1000}, ANSWER], turns=2, tasks=1))
    assert ran.recording.table(Arrived)["tokens_in"].tolist() == [400, 400 + 1000 + 50 + 100]
    texts = [(call.own_key, call.tokens_in) for _, call in ran.server.calls]
    assert len({key for key, _ in texts}) == 1  # all of it may still be cached
    assert [tokens for _, tokens in texts] == [2400, 3550]


def test_a_context_that_is_too_long_is_cut_back_and_its_text_is_another():
    ran = Ran(sessions(turns=4, tasks=1, max_context=560, compacted=60))
    assert ran.recording.table(Arrived)["tokens_in"].tolist() == [400, 550, 160, 310]
    keys = [call.own_key for _, call in ran.server.calls]
    assert keys[0] == keys[1] != keys[2] == keys[3]


def test_a_session_is_handed_over_at_once_with_its_context():
    ran = Ran(sessions(fleet=["tax", "audit"], agents="tax", turns=2, hand_over={"tax": {"audit": "100%"}}))
    arrived = ran.recording.table(Arrived)
    for key in np.unique(arrived["session"]):
        mine = arrived[arrived["session"] == key]
        assert mine["agent"].tolist() == [0, 1]
        assert np.diff(mine["t_s"]).tolist() == pytest.approx([CALL_S])
        assert mine["tokens_in"].tolist() == [400, 550]


def test_no_turn_begins_after_the_end():
    ran = Ran(sessions(turns=1000, most_turns=40, tasks=1))
    assert len(ran.recording.table(Arrived)) == 40
    slow = Ran(sessions(turns=1000, most_turns=1000, tasks=1))
    assert 3580.0 < slow.recording.table(Arrived)["t_s"].max() <= 3600.0
    assert slow.world.stopped


def test_the_same_sessions_under_another_policy():
    drawn = {
        "arrivals": {"kind": "poisson", "rate": "600/h"},
        "turns": {"law": "exponential", "mean": 4},
        "think": {"law": "exponential", "mean": "20s"},
        "tasks": 40,
    }
    fast = Ran(sessions(**drawn))
    slow = Ran(sessions([{"step": "tool", "time": "9s", "tokens": 0}, ANSWER], **drawn))

    def turns(ran):
        arrived = ran.recording.table(Arrived)
        columns = (arrived[name].tolist() for name in ("request_id", "tokens_in", "session"))
        return {request_id: row for request_id, *row in zip(*columns, strict=True)}

    assert turns(fast) == turns(slow)
    assert len(turns(fast)) == len(fast.recording.table(Arrived)) > 80


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": {"m": {"input": "$1/1M", "output": "$2/1M"}}}, "has no server to call"),
        ({"models": {"m": {"input": "$1/1M", "output": "$2/1M", "server": "two"}}}, "unknown server 'two'"),
    ],
)
def test_what_does_not_go_together_is_said(changes, message):
    with pytest.raises(ValueError, match=message):
        Scenario.model_validate(scenario([ANSWER]).dump() | changes)


def test_a_task_answers_once_and_at_the_end():
    for steps in (
        [{"step": "call", "tokens_out": 5}],
        [ANSWER, ANSWER],
        [{"step": "loop", "again": "0%", "steps": [ANSWER]}],
    ):
        with pytest.raises(ValueError, match="must end with"):
            scenario(steps)


def test_an_empty_prompt_has_the_token_that_begins_it():
    ran = Ran(scenario([ANSWER], workload={"tokens_in": 0}, service={"law": "steps", "steps": [ANSWER]}))
    assert [tokens_in for _, tokens_in, _ in ran.calls] == [1]


def test_a_model_that_a_controller_chose_must_have_a_server():
    said = scenario(
        [ANSWER], controllers={"planner": {"use": "cheap_first", "cheap": "m", "strong": "n"}}
    ).dump()
    said["models"]["n"] = {"input": "$1/1M", "output": "$2/1M"}
    with pytest.raises(WorldError, match="model number 1, which has no server to call: give it one"):
        Ran(Scenario.model_validate(said))


def test_an_attempt_that_is_to_fail_fails_at_its_first_call():
    ran = Ran(scenario([{"step": "call", "tokens_out": 10}, ANSWER], failures={"error": "100%"}))
    assert ran.tables.attempts["outcome"].tolist() == [int(Outcome.ERROR)]
    assert len(ran.calls) == len(ran.recording.table(Dispatch)) == 1


# --- faults --------------------------------------------------------------------------------------------


def test_a_replica_that_is_gone_fails_its_calls_and_the_client_asks_another():
    data = scenario([ANSWER]).dump()
    data["faults"] = [{"kind": "server_down", "server": "one", "at": "0s", "lasts": "1m"}]
    data["workload"][0] |= {"rate": "100/s"}
    ran = Ran(Scenario.model_validate(data))
    assert ran.calls == [], "no replica was up: the calls never reached one"
    assert ran.tables.attempts["outcome"].tolist() == [int(Outcome.UNREACHABLE)]
    assert ran.tables.requests["latency_s"].tolist() == pytest.approx([0.5 + 1.0])


def test_what_is_on_a_replica_when_it_goes_is_lost_and_tried_again():
    data = scenario([ANSWER], workload={"rate": "1000/s"}).dump()
    data["faults"] = [{"kind": "server_down", "server": "one", "at": "600ms", "lasts": "1m"}]
    ran = Ran(Scenario.model_validate(data))
    assert len(ran.calls) == 1
    assert ran.tables.attempts["outcome"].tolist() == [int(Outcome.UNREACHABLE)]
    assert ran.tables.attempts["tokens_in"].tolist() == [0], "a call that fails is not billed"


def test_a_slow_instance_has_slow_tools_and_the_models_usual_calls():
    data = scenario([{"step": "tool", "time": "1s"}, ANSWER]).dump()
    data["faults"] = [{"kind": "brown_out", "agent": "tax", "at": "0s", "lasts": "1h", "factor": 3}]
    ran = Ran(Scenario.model_validate(data))
    assert ran.tables.requests["latency_s"].tolist() == pytest.approx([3.0 + CALL_S])


def test_failing_tools_fail_more_and_take_longer_while_it_lasts():
    tool = {"step": "tool", "time": "1s", "tokens": 7, "needed": True}
    data = scenario([tool, ANSWER], workload={"tasks": 2000, "rate": "10/s"}, concurrency=1000).dump()
    data["faults"] = [
        {"kind": "tools", "agent": "tax", "at": "0s", "lasts": "1m", "fails": "40%", "factor": 3}
    ]
    ran = Ran(Scenario.model_validate(data))
    requests = ran.tables.requests
    during = requests["t_arrive_s"] < 57.0
    after = requests["t_arrive_s"] > 60.0
    failed = requests["ending"] == 3
    n = int(during.sum())
    assert abs(failed[during].mean() - 0.4) < 3.9 * (0.4 * 0.6 / n) ** 0.5
    assert not failed[after].any()
    assert requests["latency_s"][during & ~failed].tolist() == pytest.approx(
        [3.0 + CALL_S] * int((during & ~failed).sum())
    )
    assert requests["latency_s"][after].tolist() == pytest.approx([1.0 + CALL_S] * int(after.sum()))


# --- sessions like published ones ------------------------------------------------------------------------


def test_sessions_like_a_published_workload_have_its_turns_think_times_and_tokens():
    data = scenario([ANSWER], concurrency=1000, timeout="1h").dump()
    data["duration"] = "10h"
    data["workload"] = [
        {
            "kind": "sessions",
            "preset": "mooncake_conv",
            "arrivals": {"kind": "poisson", "rate": "300/h"},
            "tokens_out": 50,
        }
    ]
    said = Scenario.model_validate(data)
    assert Scenario.model_validate(said.dump()) == said
    arrived = Ran(said).recording.table(Arrived)
    turns = np.unique(arrived["session"], return_counts=True)[1]
    assert turns[:2000].mean() == pytest.approx(1.63, abs=0.1), "requests a root in the trace"
    first = arrived[np.unique(arrived["session"], return_index=True)[1]]["tokens_in"]
    assert np.median(first) == pytest.approx(5264, rel=0.1)


def test_a_preset_without_sessions_is_refused_by_name():
    data = scenario([ANSWER]).dump()
    data["workload"] = [
        {"kind": "sessions", "preset": "azure_code", "arrivals": {"kind": "poisson", "rate": "3/h"}}
    ]
    with pytest.raises(ValueError, match="without sessions"):
        Scenario.model_validate(data)
