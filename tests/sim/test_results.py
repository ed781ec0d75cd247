"""Tables as a fold of the journal, against a naive walk over its records; and what must hold of any run."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from glowsim import build, results
from glowsim.core.journal import Effected, Recording
from glowsim.core.types import (
    Abandoned,
    Answer,
    Arrived,
    Cancel,
    Dispatch,
    Effect,
    Fail,
    Finished,
    FirstToken,
    InstanceChanged,
    Outcome,
    Reject,
    Scale,
    State,
)  # fmt: skip
from glowsim.scenario import Scenario

MANY: dict[str, Any] = {
    "title": "results",
    "question": "Do the tables say what the journal says?",
    "seed": 5,
    "duration": "120s",
    "models": {"m": {"input": "$1/1M", "cached_input": "$0.5/1M", "output": "$3/1M"}},
    "fleet": [
        {
            "agent": "tax", "count": 2, "model": "m", "instances": 2, "concurrency": 3, "startup": "6s",
            "timeout": "9s", "first_token_timeout": "4s", "instance_price": "$3.6/h",
            "failures": {"invalid": "2%", "error": "8%"},
            "service": {"law": "tokens", "base": "200ms", "input": "40us/token", "output": "9ms/token",
                        "slowdown": "8%"},
        }
    ],
    "workload": [
        {
            "kind": "bursts", "base": "2/s", "burst": "30/s", "every": "40s", "lasts": "8s", "stream": True,
            "tokens_in": {"law": "lognormal", "median": 900, "sigma": 0.7},
            "tokens_out": {"law": "gamma", "mean": 80, "cv": 0.6},
            "cacheable": {"share": "30%", "keys": 20},
        }
    ],
    "faults": [{"kind": "crash", "agent": "tax", "at": "34s", "lasts": "20s", "instances": 2}],
    "controllers": {
        "cache": {"use": "lru", "entries": 10, "ttl": "30s"},
        "queue": {"use": "priority", "limit": 40},
        "balancer": {"use": "least_connections"},
        "retrier": {"use": "backoff"},
        "scaler": {"use": "agent_scaler", "min_instances": 1, "max_instances": 5, "cooldown_up": "5s",
                   "cooldown_down": "9s", "look": "3s"},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    return Scenario.model_validate(MANY)


@pytest.fixture(scope="module")
def recording(scenario: Scenario) -> Recording:
    built = build.replication(scenario, 0)
    built.world.start()
    built.world.run(600.0)
    return built.journal.recording()


@pytest.fixture(scope="module")
def tables(recording: Recording, scenario: Scenario) -> results.Tables:
    return results.fold(recording, scenario)


def test_requests_are_what_a_walk_over_the_journal_finds(
    recording: Recording, tables: results.Tables
) -> None:
    now, rows, at_attempt = 0.0, {}, {}
    for record in recording.records():
        now = record.t_s if hasattr(record, "t_s") else now
        match record:
            case Arrived(t_s, request):
                rows[request.request_id] = {
                    "agent": request.agent,
                    "arrive": t_s,
                    "ending": 0,
                    "end": math.nan,
                    "tries": 0,
                }
            case Dispatch(attempt, request_id):
                rows[request_id]["tries"] += 1
                rows[request_id].setdefault("dispatch", now)
                at_attempt[attempt] = request_id
            case Answer(request_id) | Reject(request_id) | Fail(request_id):
                kind = 1 + [Answer, Reject, Fail].index(type(record))
                rows[request_id] |= {"ending": kind, "end": now}
            case FirstToken(t_s, attempt):
                rows[at_attempt[attempt]]["first"] = t_s
    table = tables.requests
    assert len(rows) == len(table["request_id"]) > 300
    for i, number in enumerate(table["request_id"].tolist()):
        row = rows[number]
        assert (table["agent"][i], table["ending"][i], table["attempts"][i]) == (
            row["agent"],
            row["ending"],
            row["tries"],
        )
        for column, key in (
            ("t_arrive_s", "arrive"),
            ("t_end_s", "end"),
            ("t_dispatch_s", "dispatch"),
            ("t_first_token_s", "first"),
        ):
            np.testing.assert_equal(table[column][i], row.get(key, math.nan))
    assert {1, 2, 3} <= set(table["ending"].tolist())


def test_the_bill_is_the_sum_of_usage_times_price(recording: Recording, tables: results.Tables) -> None:
    """Invariant 7, from the events alone."""
    usages = [record.usage for record in recording.records() if isinstance(record, Finished)]
    expected = math.fsum(
        (u.tokens_in - u.tokens_cached) * 1e-6 + u.tokens_cached * 0.5e-6 + u.tokens_out * 3e-6
        for u in usages
    )
    assert math.fsum(tables.requests["cost_usd"]) == pytest.approx(expected, rel=1e-12)
    assert math.fsum(tables.attempts["cost_usd"]) == pytest.approx(expected, rel=1e-12)
    assert results.figures(tables)["cost_tokens_usd"] == pytest.approx(expected, rel=1e-12)


def test_instances_are_billed_from_start_to_end(recording: Recording, tables: results.Tables) -> None:
    end_s = max(120.0, float(recording.times()[-1]))
    begun: dict[int, float] = {}
    seconds = 0.0
    for record in recording.records():
        if isinstance(record, InstanceChanged):
            if record.state in (State.STARTING, State.READY):
                begun.setdefault(record.instance, record.t_s)
            elif record.state in (State.GONE, State.FAILED):
                seconds += record.t_s - begun.pop(record.instance)
    seconds += sum(end_s - since_s for since_s in begun.values())
    assert results.figures(tables)["cost_instances_usd"] == pytest.approx(seconds * 3.6 / 3600)


def test_little_holds_and_would_notice_a_wrong_end(tables: results.Tables) -> None:
    mean_open, rate_times_time = results.little(tables)
    assert mean_open == pytest.approx(rate_times_time, rel=1e-12)
    wrong = dict(tables.requests)
    wrong["t_end_s"] = wrong["t_end_s"].copy()
    wrong["t_end_s"][3] += 1.0
    mean_open, rate_times_time = results.little(tables._replace(requests=wrong))
    assert mean_open != pytest.approx(rate_times_time, rel=1e-6)


def test_what_must_hold_of_any_run(recording: Recording) -> None:
    """Invariants 1, 2, 3, 5, 6 and 14 by counting over the journal, faults and scaling included."""
    now = -math.inf
    open_requests: set[int] = set()
    running: dict[int, tuple[int, int]] = {}
    in_flight: Counter[int] = Counter()
    state: dict[int, State] = {}
    commands = 0
    effects: Counter[int] = Counter()
    ended: Counter[str] = Counter()
    for record in recording.records():
        if isinstance(record, Effected):
            for number in range(record.first, record.first + record.n):
                effects[number] += 1
            continue
        if hasattr(record, "t_s"):
            assert record.t_s >= now, "time never runs back"
            now = record.t_s
        else:
            commands += 1
        match record:
            case Arrived(_, request):
                ended["arrived"] += 1
                open_requests.add(request.request_id)
            case Answer(request_id) | Reject(request_id) | Fail(request_id) | Abandoned(_, request_id):
                ended[type(record).__name__] += 1
                open_requests.remove(request_id)
            case Dispatch(attempt, request_id, instance):
                assert request_id in open_requests
                assert request_id not in {request for request, _ in running.values()}, (
                    "one open attempt a request"
                )
                assert state[instance] == State.READY, "no dispatch but to a ready instance"
                running[attempt] = (request_id, instance)
                in_flight[instance] += 1
                assert in_flight[instance] <= 3, "slots"
            case Finished(_, attempt, outcome):
                _, instance = running.pop(attempt)
                in_flight[instance] -= 1
                assert outcome in Outcome
            case InstanceChanged(_, _, instance, new):
                state[instance] = new
            case Scale(victims=victims):
                for victim in victims:
                    state[victim] = State.DRAINING
            case Cancel(attempt):
                assert attempt in running
    assert ended["arrived"] == ended["Answer"] + ended["Reject"] + ended["Fail"] + len(open_requests)
    assert not open_requests
    assert not running, "every dispatch was finished"
    assert all(effects[number] == 1 for number in range(commands)), "every command has its effect, once"
    assert {State.FAILED, State.GONE, State.STARTING} <= set(
        recording.table(InstanceChanged)["state"].tolist()
    ), "the run was a hard one"


def test_a_refused_dispatch_is_journalled_as_refused(scenario: Scenario) -> None:
    """A world that cannot reach an instance says so: the effect is refused, the attempt is unreachable."""
    built = build.replication(scenario, 0)
    world = built.world
    world.start()
    world.environment.run_until(5.0)
    for replica in list(world.replicas.values()):
        del world.replicas[replica.number]
    world.run(20.0)
    recording = built.journal.recording()
    refused = recording.table(Effected)["status"] == Effect.REFUSED
    assert refused.sum() > 0
    assert (recording.table(Finished)["outcome"] == Outcome.UNREACHABLE).sum() > 0


def test_samples_agree_with_the_tables_at_every_moment(tables: results.Tables) -> None:
    samples, requests = tables.samples, tables.requests
    by_agent = defaultdict(list)
    for i in range(0, len(samples["t_s"]), 37):
        t_s, agent = samples["t_s"][i], samples["agent"][i]
        mine = requests["agent"] == agent
        there = mine & (requests["t_arrive_s"] <= t_s) & ~(requests["t_end_s"] <= t_s)
        by_agent[int(agent)].append((int(there.sum()), int(samples["open"][i])))
    assert set(by_agent) == {0, 1}
    for pairs in by_agent.values():
        assert all(expected == found for expected, found in pairs)


def test_little_has_nothing_to_say_where_everything_ends_at_the_first_moment() -> None:
    nothing: results.Table = {}
    at_once = {name: np.zeros(3) for name in ("t_arrive_s", "t_end_s", "latency_s")}
    assert results.little(results.Tables(at_once, nothing, nothing, nothing, nothing, nothing)) == (0.0, 0.0)


# --- what answers were worth --------------------------------------------------------------------------

ABLE = {"hallucination": 0.3, "format": 0.2, "refusal": 0.1}
JUDGED: dict[str, Any] = MANY | {
    "models": MANY["models"] | {"large": {"input": "$5/1M", "output": "$15/1M"}},
    "controllers": MANY["controllers"] | {"planner": {"use": "cheap_first", "cheap": "m", "strong": "large"}},
    "quality": {
        "kinds": {"faq": {"shared": 0.4, "repeat": 0.7}, "case": {"shared": 0.5, "repeat": 0.9}},
        "models": {"m": {"accuracy": 0.6, **ABLE}, "large": {"accuracy": 0.8, **ABLE}},
        "context_loss": 0.3,
        "confidence": 0.8,
    },
    "workload": [MANY["workload"][0] | {"kinds": {"faq": 2, "case": 1}, "stream": False}],
}


def test_accuracy_is_the_share_of_correct_answers_among_those_that_were_given() -> None:
    scenario = Scenario.model_validate(JUDGED)
    built = build.replication(scenario, 0)
    built.world.start()
    built.world.run(600.0)
    recording, answers = built.journal.recording(), built.world.answers
    assert answers is not None
    tables = results.fold(recording, scenario, answers.failures)

    truth = answers._quality
    asked: dict[int, Any] = {}
    tries: Counter[int] = Counter()
    worth: dict[int, int] = {}
    given: dict[int, int] = {}
    now_s = 0.0
    for record in recording.records():
        now_s = getattr(record, "t_s", now_s)
        match record:
            case Arrived():
                asked[record.request.request_id] = record.request
            case Dispatch(attempt, request_id, _, plan):
                worth[attempt] = truth.judge(now_s, asked[request_id], plan, tries[request_id]).failure
                tries[request_id] += 1
            case Answer(request_id, source):
                given[request_id] = worth[source]

    column = dict(
        zip(tables.requests["request_id"].tolist(), tables.requests["failure"].tolist(), strict=True)
    )
    assert {number: column[number] for number in given} == given
    assert {column[number] for number in column.keys() - given.keys()} == {results.NOT_JUDGED}
    counted = Counter(given.values())
    figures = results.figures(tables)
    for number, name in enumerate(("accuracy", *(f"{each}_rate" for each in results.FAILURES[1:-1]))):
        assert counted[number] > 0
        assert figures[name] == pytest.approx(counted[number] / len(given), rel=1e-12)
    late = {number: failure for number, failure in given.items() if column_s(tables, number) >= 60.0}
    right = Counter(late.values())[0] / len(late)
    assert results.figures(tables, 60.0)["accuracy"] == pytest.approx(right, rel=1e-12)
    assert max(tries.values()) > 1, "some were given again"


def column_s(tables: results.Tables, number: int) -> float:
    """Return when a request arrived."""
    return float(tables.requests["t_arrive_s"][tables.requests["request_id"] == number][0])


def test_where_nobody_judges_there_is_no_accuracy(tables: results.Tables) -> None:
    assert set(tables.requests["failure"].tolist()) == {results.NOT_JUDGED}
    assert math.isnan(results.figures(tables)["accuracy"])
