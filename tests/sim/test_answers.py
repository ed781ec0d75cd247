"""What answers are worth, in a world: scores that controllers see, labels that come late, and truth for the tables."""

from __future__ import annotations

import math

import numpy as np
import pytest

from glowsim import results
from glowsim.build import BuildError, replication
from glowsim.core.types import Advance, Arrived, Finished, Observed
from glowsim.scenario import Scenario

SKILL = {"hallucination": "20%", "format": "10%", "refusal": "10%"}
QUALITY = {
    "kinds": {"easy": {"shared": "50%", "repeat": "80%"}, "hard": {"shared": "50%", "repeat": "80%"}},
    "models": {
        "small": SKILL | {"accuracy": {"easy": "80%", "hard": "40%"}},
        "large": SKILL | {"accuracy": "90%"},
    },
    "context_loss": "30%",
    "confidence": "85%",
}
FIRST = {"planner": {"use": "cheap_first", "cheap": "small", "strong": "large", "threshold": "60%"}}


def ran(controllers=None, *, quality=QUALITY, seed=5, **more):
    scenario = Scenario.model_validate(
        {
            "title": "answers",
            "question": "What are they worth?",
            "seed": seed,
            "duration": "1h",
            "models": {name: {"input": "$1/1M", "output": "$2/1M"} for name in ("small", "large")},
            "quality": quality,
            "fleet": [
                {
                    "agent": "tax", "model": "small", "instances": 2, "concurrency": 3, "timeout": "10m",
                    "service": {"law": "time", "time": {"law": "exponential", "mean": "1s"}},
                }
            ],
            "workload": [
                {
                    "kind": "poisson", "rate": "3/s", "tasks": 4000, "tokens_in": 900, "tokens_out": 90,
                    "kinds": {"easy": 3, "hard": 1},
                }
            ],
            "controllers": controllers or {},
        } | more
    )  # fmt: skip
    built = replication(scenario, 0)
    built.world.start()
    built.world.run(scenario.duration_s + scenario.drain_s)
    recording = built.journal.recording()
    tables = results.fold(recording, scenario, built.world.answers.failures)
    return tables, results.figures(tables), recording


def within(found, share, n):
    return abs(found - share) < 3.9 * math.sqrt(share * (1.0 - share) / n)  # misses once in 10,000


def test_answers_are_as_good_as_their_model_is_at_their_kind_of_task():
    tables, figures, recording = ran()
    requests = tables.requests
    assert within(figures["accuracy"], 0.75 * 0.8 + 0.25 * 0.4, len(requests["failure"]))
    wrong = requests["failure"][requests["failure"] > 0]
    assert within(float((wrong == 2).mean()), 0.2, len(wrong))
    scores = recording.table(Finished)["score"]
    good = scores[requests["failure"][np.argsort(requests["request_id"])][recording_rows(recording)] == 0]
    assert 0.0 <= scores.min() <= scores.max() <= 1.0
    assert good.mean() > scores.mean() + 0.1


def recording_rows(recording):
    """Return the place of each finished attempt's request among the requests in order of their numbers."""
    from glowsim.core.types import Dispatch

    dispatched = recording.table(Dispatch)
    return dispatched["request_id"][recording.table(Finished)["attempt"] - 1] - 1


def test_the_strong_model_mends_what_the_check_doubts():
    _, cheap, _ = ran()
    tables, first, _ = ran(FIRST)
    _, strong, _ = ran({"planner": FIRST["planner"] | {"threshold": "100%"}})
    assert cheap["accuracy"] + 0.05 < first["accuracy"] < strong["accuracy"] + 0.02
    assert cheap["cost_usd"] < first["cost_usd"] < strong["cost_usd"]
    assert first["degraded_rate"] == 0.0, "an escalation is no degradation, queued or not"
    assert (tables.attempts["doubted"]).sum() == first["retries"]


def test_the_same_request_is_answered_alike_whatever_the_policy():
    plain, _, _ = ran()
    capped, _, _ = ran({"limiter": [{"use": "concurrency", "per": "agent", "limit": 2}]})
    of_plain = dict(
        zip(plain.requests["request_id"].tolist(), plain.requests["failure"].tolist(), strict=True)
    )
    answered = capped.requests["ending"] == 1
    assert 100 < answered.sum() < len(of_plain)
    for number, failure in zip(
        capped.requests["request_id"][answered].tolist(),
        capped.requests["failure"][answered].tolist(),
        strict=True,
    ):
        assert of_plain[number] == failure


def test_users_speak_late_and_of_what_went_wrong_rather():
    said = {
        "correction": {
            "shares": {
                "correct": "1%",
                "wrong": "30%",
                "hallucination": "10%",
                "format": "30%",
                "refusal": "30%",
            },
            "delay": {"median": "60s", "sigma": 0.5},
        }
    }
    tables, _, recording = ran(quality=QUALITY | {"feedback": said})
    heard = recording.loose(Observed)
    failure = dict(
        zip(tables.requests["request_id"].tolist(), tables.requests["failure"].tolist(), strict=True)
    )
    ended = dict(
        zip(tables.requests["request_id"].tolist(), tables.requests["t_end_s"].tolist(), strict=True)
    )
    assert {each.metric for each in heard} == {"correction"}
    delays = [each.t_s - ended[each.request_id] for each in heard]
    assert min(delays) > 0.0
    early = {
        number for number, t_s in ended.items() if t_s < 1000.0
    }  # what is said of the last ones is not heard
    spoken = {each.request_id for each in heard}
    for kind, share in ((0, 0.01), (1, 0.30), (2, 0.10)):
        of_kind = [number for number in early if failure[number] == kind]
        assert within(sum(number in spoken for number in of_kind) / len(of_kind), share, len(of_kind))
    assert {each.propensity for each in heard} == {1.0}


def test_what_is_said_of_a_canary_carries_the_chance_with_which_it_was_chosen_from_the_first_stage_on():
    shares = dict.fromkeys(("correct", "wrong", "hallucination", "format", "refusal"), "50%")
    said = {"complaint": {"shares": shares, "delay": {"median": "10s", "sigma": 0.5}}}
    fleet = [
        {
            "agent": "tax", "model": "small", "instances": 2, "concurrency": 3, "variants": {"next": {}},
            "service": {"law": "time", "time": "1s"},
        }
    ]  # fmt: skip
    splitter = {"use": "canary", "salt": "s", "weight": "5%", "step": "2h"}
    _, _, recording = ran({"splitter": splitter}, quality=QUALITY | {"feedback": said}, fleet=fleet)
    heard = recording.loose(Observed)
    assert not recording.loose(Advance), "still in the first stage"
    assert {(each.variant, round(each.propensity, 9)) for each in heard} == {(0, 0.95), (1, 0.05)}
    arrived = recording.table(Arrived)
    since_s = dict(zip(arrived["request_id"].tolist(), arrived["t_s"].tolist(), strict=True))
    assert all(each.assigned_s == since_s[each.request_id] for each in heard)
    assert all(each.unit == each.request_id for each in heard), "requests are assigned, one by one"


def test_cached_answers_are_as_good_as_those_they_repeat():
    workload = [
        {
            "kind": "poisson", "rate": "3/s", "tasks": 2000, "tokens_in": 900, "tokens_out": 90,
            "cacheable": {"share": "100%", "keys": 20},
        }
    ]  # fmt: skip
    tables, figures, _ = ran({"cache": {"use": "lru", "entries": 100}}, workload=workload)
    assert figures["cache_hit_rate"] > 0.9
    assert not (tables.requests["failure"] == results.NOT_JUDGED).any()


def test_an_unknown_kind_of_task_is_named():
    workload = [{"kind": "poisson", "rate": "3/s", "tokens_in": 9, "tokens_out": 9, "kinds": {"esay": 1}}]
    with pytest.raises(BuildError, match="unknown kind of task 'esay'; the quality knows easy, hard"):
        ran(workload=workload)


def test_kinds_without_a_quality_are_refused():
    with pytest.raises(ValueError, match="add the block 'quality'"):
        ran(quality=None)


def test_garbage_is_wrong_and_any_check_sees_it():
    fault = {"kind": "garbage", "agent": "tax", "at": "0s", "lasts": "1h", "instances": 2}
    tables, figures, _ = ran(faults=[fault])
    assert set(tables.requests["failure"].tolist()) == {1}
    assert figures["accuracy"] == 0.0
    again, _, _ = ran(FIRST, faults=[fault | {"lasts": "600s"}])
    assert again.attempts["doubted"].sum() > 600, "each is asked of the strong model, in vain while it lasts"
