"""The hidden truth about answers: joint outcomes as measured, and a function of who asked whom, how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from math import log, sqrt
from statistics import fmean, median, stdev
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from glowsim import presets
from glowsim.build_quality import Judging, judging
from glowsim.core.errors import WorldError
from glowsim.core.streams import Streams
from glowsim.core.types import Plan, Request
from glowsim.presets import PresetError
from glowsim.presets.quality import all_right
from glowsim.scenario.quality import Quality as Block
from glowsim.scenario.quality import completed, references
from glowsim.sim.feedback import Channel, Feedback, Users
from glowsim.sim.quality import Drift, Failure, Likeness, Quality, Skill

MODELS = ["mixtral-8x7b", "gpt-4-1106"]
N = 10_000


def judged(seed: int = 1, of: list[str] = MODELS, **block: Any) -> Judging:
    agents = {"tax": ["terse"], "law-001": ["polite"], "law-002": []}
    groups = {"tax": ["tax"], "law": ["law-001", "law-002"]}
    return judging(
        Block.model_validate({"presets": ["routellm"], **block}), of, agents, groups, Streams(seed)
    )


def ask(number: int, kind: int = 0, agent: int = 0) -> Request:
    return Request(number, agent, 1000, 100, kind=kind)


def served(model: int = 0, variant: int = 0, kept: float = 1.0) -> Plan:
    return Plan(model, variant, round(1000 * kept), 100)


def flat(accuracy: float, **changes: Any) -> Quality:
    made = Quality((Skill((accuracy,)),), (Likeness(0.5, 0.8),), context_loss=0.4, auc=0.8, key=5)
    return replace(made, **changes)


def rights(
    quality: Quality, n: int = N, model: int = 0, tries: int = 0, t_s: float = 0.0, kind: int = 0
) -> list[bool]:
    plan = served(model)
    return [quality.judge(t_s, ask(number, kind), plan, tries).correct for number in range(1, n + 1)]


def off(share: float, expected: float, n: int) -> float:
    """Return how many standard errors a share is off."""
    return abs(share - expected) / sqrt(expected * (1 - expected) / n)


# --- joint outcomes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), [(0, "mmlu"), (1, "gsm8k")])
def test_who_is_right_where_the_other_is_wrong_is_as_measured(kind: int, name: str) -> None:
    quality = judged().quality
    pairs = Counter(
        zip(rights(quality, kind=kind), rights(quality, model=1, tries=1, kind=kind), strict=True)
    )
    counts = presets.read("quality", "routellm")["measured"][name]
    outcomes = ((True, True), (True, False), (False, True), (False, False))
    for outcome, count in zip(outcomes, counts, strict=True):
        assert off(pairs[outcome] / N, count / sum(counts), N) < 3.7, outcome


def test_pass_k_falls_as_one_correlation_says() -> None:
    preset = presets.read("quality", "tau2")
    quality = judged(presets=["tau2"], of=["gpt-4.1"]).quality
    retail = list(preset["quality"]["kinds"]).index("retail")
    n = 4000
    trials = zip(*(rights(quality, n, tries=tries, kind=retail) for tries in range(4)), strict=True)
    counted = [sum(outcomes) for outcomes in trials]
    accuracy, repeat = quality.skills[0].accuracy[retail], quality.kinds[retail].repeat
    for k in (1, 2, 4):
        ways = {1: (0, 1, 2, 3, 4), 2: (0, 0, 1, 3, 6), 4: (0, 0, 0, 0, 1)}[k]  # binomial(right, k)
        passed = fmean(ways[right] / ways[4] for right in counted)
        assert off(passed, all_right((accuracy,) * k, repeat), n) < 3.7
    assert all_right((accuracy,) * 4, repeat) > accuracy**4 + 0.1, "independent trials would pass far less"


def test_without_own_luck_a_second_attempt_changes_nothing_and_with_nothing_else_it_is_fresh() -> None:
    same, fresh = flat(0.6, kinds=(Likeness(0.5, 1.0),)), flat(0.6, kinds=(Likeness(0.0, 0.0),))
    assert rights(same, 500) == rights(same, 500, tries=1)
    twice = [a and b for a, b in zip(rights(fresh), rights(fresh, tries=1), strict=True)]
    assert off(fmean(twice), 0.36, N) < 3.7


# --- a function of who asked whom, how often --------------------------------------------------------------


def test_the_order_of_questions_changes_no_answer() -> None:
    quality = judged().quality
    asked = [(number, model, tries) for number in range(1, 40) for model in (0, 1) for tries in (0, 1)]
    forth = {each: quality.judge(0.0, ask(each[0]), served(each[1]), each[2]) for each in asked}
    back = {each: quality.judge(0.0, ask(each[0]), served(each[1]), each[2]) for each in reversed(asked)}
    assert forth == back
    assert len({verdict.confidence for verdict in forth.values()}) > 100
    other = judged(seed=2).quality
    assert [other.judge(0.0, ask(n), served(), 0) for n in range(1, 10)] != [
        forth[n, 0, 0] for n in range(1, 10)
    ]


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.integers(1, 10**9))
def test_a_better_model_loses_no_task_that_the_worse_one_had(a: float, b: float, number: int) -> None:
    worse, better = sorted((a, b))
    if flat(worse).judge(0.0, ask(number), served(), 0).correct:
        assert flat(better).judge(0.0, ask(number), served(), 0).correct


def test_nothing_is_right_at_zero_and_everything_at_one() -> None:
    assert not any(rights(flat(0.0), 200))
    assert all(rights(flat(1.0), 200))


# --- what moves the accuracy ------------------------------------------------------------------------------


def test_variant_and_context_are_factors() -> None:
    quality = judged(variants={"terse": "90%", "polite": 1.1}, context_loss="40%").quality
    accuracy = quality.accuracy(0.0, ask(1), served())
    assert accuracy == 0.6808
    assert quality.accuracy(0.0, ask(1), served(variant=1)) == pytest.approx(0.9 * accuracy)
    assert quality.accuracy(0.0, ask(1, agent=1), served(variant=1)) == pytest.approx(1.1 * accuracy)
    assert quality.accuracy(0.0, ask(1), served(kept=0.25)) == pytest.approx(0.7 * accuracy)
    assert quality.accuracy(0.0, ask(1), Plan(0, 0, 4000, 100)) == accuracy, "a longer prompt lost nothing"


def test_a_factor_above_one_stops_at_certainty() -> None:
    assert flat(0.9, drifts=(Drift(0.0, 2.0),)).accuracy(1.0, ask(1), served()) == 1.0


@pytest.mark.parametrize(
    ("drift", "expected"),
    [
        (Drift(10.0, 0.6), [1.0, 0.6, 0.6, 0.6, 0.6]),
        (Drift(10.0, 0.6, ramp_s=20.0), [1.0, 1.0, 0.8, 0.6, 0.6]),
        (Drift(10.0, 0.6, lasts_s=15.0), [1.0, 0.6, 0.6, 1.0, 1.0]),
        (Drift(10.0, 0.6, lasts_s=5.0, every_s=10.0), [1.0, 0.6, 0.6, 0.6, 0.6]),
        (Drift(10.0, 0.6, lasts_s=5.0, every_s=15.0), [1.0, 0.6, 1.0, 1.0, 0.6]),
    ],
)
def test_drift_comes_as_it_says(drift: Drift, expected: list[float]) -> None:
    assert [drift.at(t_s) for t_s in (9.9, 10.0, 20.0, 30.0, 40.0)] == pytest.approx(expected)


def test_drift_of_one_segment_leaves_the_others_alone() -> None:
    whole = judged().quality
    drift = [{"model": "gpt-4-1106", "kind": "gsm8k", "agent": "law", "at": "1h", "factor": "50%"}]
    quality = judged(drift=drift).quality
    changed = {
        (model, kind, agent)
        for model in (0, 1) for kind in (0, 1) for agent in (0, 1, 2)
        if quality.accuracy(7200.0, ask(1, kind, agent), served(model))
        != whole.accuracy(7200.0, ask(1, kind, agent), served(model))
    }  # fmt: skip
    assert changed == {(1, 1, 1), (1, 1, 2)}


def test_the_drift_that_was_measured_is_drawn() -> None:
    quality = judged(presets=["llmdrift"], of=["gpt-4", "gpt-3.5"]).quality
    day_s = 86400.0
    for model, (before, after) in enumerate(((0.840, 0.511), (0.500, 0.761))):
        assert off(fmean(rights(quality, n=3000, model=model, t_s=90 * day_s)), before, 3000) < 3.7
        assert off(fmean(rights(quality, n=3000, model=model, t_s=92 * day_s)), after, 3000) < 3.7


# --- failures and confidence ------------------------------------------------------------------------------


def test_failures_divide_as_they_should_and_a_wrong_form_is_seen() -> None:
    quality = flat(0.4, skills=(Skill((0.4,), hallucination=0.3, format=0.2, refusal=0.1),))
    verdicts = [quality.judge(0.0, ask(number), served(), 0) for number in range(1, N + 1)]
    failed = [each for each in verdicts if not each.correct]
    shares = (0.4, 0.3, 0.2, 0.1)
    for failure, share in zip(list(Failure)[1:], shares, strict=True):
        assert off(sum(each.failure is failure for each in failed) / len(failed), share, len(failed)) < 3.7
    assert all((each.confidence == 0.0) == (each.failure is Failure.FORMAT) for each in verdicts)


@pytest.mark.parametrize("auc", [0.5, 0.65, 0.8, 0.95])
def test_confidence_ranks_a_correct_answer_higher_that_often(auc: float) -> None:
    verdicts = [flat(0.6, auc=auc).judge(0.0, ask(number), served(), 0) for number in range(1, N + 1)]
    if auc == 0.5:
        assert {each.confidence for each in verdicts} == {0.5}
        return
    ranked = sorted(verdicts, key=lambda each: each.confidence)
    below, pairs = 0, 0
    for each in ranked:
        if each.correct:
            pairs += below
        else:
            below += 1
    right = N - below
    assert pairs / (right * below) == pytest.approx(auc, abs=0.015)


def test_confidence_is_calibrated_where_both_are_equally_likely() -> None:
    verdicts = [flat(0.5).judge(0.0, ask(number), served(), 0) for number in range(1, 2 * N + 1)]
    for low in (0.1, 0.3, 0.5, 0.7):
        bin_ = [each for each in verdicts if low <= each.confidence < low + 0.2]
        assert fmean(each.correct for each in bin_) == pytest.approx(
            fmean(each.confidence for each in bin_), abs=0.04
        )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"skills": (Skill((0.5, 0.5)),)}, "model 0 has 2 accuracies: give one for each of the 1 kinds"),
        ({"skills": (Skill((1.5,)),)}, "accuracy of model 0"),
        ({"skills": (Skill((0.5,), 0.6, 0.5),)}, "failures of model 0"),
        ({"kinds": (Likeness(0.6, 0.5),)}, "shared correlation of kind 0 must be from 0 to 0.5"),
        ({"kinds": (Likeness(0.6, 1.5),)}, "repeat correlation of kind 0"),
        ({"context_loss": -0.1}, "context_loss"),
        ({"auc": 1.0}, "auc must be at least 0.5 and below 1"),
    ],
)
def test_a_truth_that_cannot_be_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(WorldError) as refused:
        flat(0.5, **change)
    assert says in str(refused.value)


# --- what users say ---------------------------------------------------------------------------------------


def channels() -> tuple[Channel, ...]:
    return judged(presets=["routellm", "feedback"]).channels


def heard(channel: Channel, failures: Iterable[Failure]) -> list[Feedback]:
    users = Users((channel,), 3)
    return [said for n, failure in enumerate(failures) for said in users.say(n, 0, failure)]


def test_what_is_heard_has_the_shares_the_marks_and_the_delays_that_it_should() -> None:
    rating, correction, complaint = channels()
    assert [each.metric for each in (rating, correction, complaint)] == ["rating", "correction", "complaint"]
    often = replace(rating, shares=(0.5, 0.9, 0.9, 0.9, 0.9))
    for failure, share, mean in ((Failure.NONE, 0.5, 4.33), (Failure.WRONG, 0.9, 2.05)):
        said = heard(often, [failure] * N)
        assert off(len(said) / N, share, N) < 3.7
        assert fmean(each.value for each in said) == pytest.approx(mean, abs=0.06)
        assert {each.value for each in said} == {1.0, 2.0, 3.0, 4.0, 5.0}
        logs = [log(each.delay_s) for each in said]
        assert median(logs) == pytest.approx(log(600.0), abs=0.08)
        assert stdev(logs) == pytest.approx(1.5, abs=0.05)
    assert {each.value for each in heard(correction, [Failure.WRONG] * 2000)} == {1.0}


def test_what_is_heard_is_worse_than_what_is() -> None:
    """The unhappy speak more: the mean of the ratings is far below that of a fair sample of the same users."""
    quality, (rating, *_) = judged().quality, channels()
    fair = replace(rating, shares=(1.0,) * 5)
    failures = [quality.judge(0.0, ask(n), served(), 0).failure for n in range(N)]
    said = [each.value for each in heard(rating, failures)]
    true = [each.value for each in heard(fair, failures)]
    assert len(true) == N
    assert len(said) < 0.07 * N
    assert fmean(true) - fmean(said) > 0.2


def test_feedback_is_a_function_of_request_and_attempt() -> None:
    said = channels()
    users = Users(said, 3)
    forth = {n: users.say(n, 0, Failure.WRONG) for n in range(300)}
    assert forth == {n: Users(said, 3).say(n, 0, Failure.WRONG) for n in reversed(range(300))}
    assert forth != {n: users.say(n, 1, Failure.WRONG) for n in range(300)}
    silent = [{n for n in range(300) if not users.say(n, tries, Failure.WRONG)} for tries in (0, 1)]
    assert silent[0] != silent[1], "a new answer is a new occasion"
    more = Users((replace(said[0], shares=(1.0,) * 5), *said[1:]), 3)
    assert all(set(forth[n][1:]) <= set(more.say(n, 0, Failure.WRONG)) for n in range(300))
    both = [n for n in range(N) if len(users.say(n, 0, Failure.WRONG)) == 2]
    assert off(len(both) / N, 0.08 * 0.12 + 0.08 * 0.015 + 0.12 * 0.015, N) < 3.7, (
        "the channels are independent"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shares": (0.1,)}, "needs 5 shares"),
        ({"shares": (0.1, 0.1, 0.1, 0.1, 1.1)}, "needs 5 shares"),
        ({"otherwise": ()}, "needs values"),
        ({"otherwise": ((1.0, 0.0),)}, "needs values"),
        ({"median_s": 0.0}, "needs a median above 0"),
    ],
)
def test_a_channel_that_cannot_be_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(WorldError, match=says):
        replace(channels()[0], **change)


# --- the block as written -----------------------------------------------------------------------------------

ABLE = {"accuracy": 0.7, "hallucination": 0.3, "format": 0.02, "refusal": 0.01}
WHOLE = {
    "kinds": {"faq": {"shared": 0.5, "repeat": 0.8}, "case": {"shared": 0.6, "repeat": 0.7}},
    "models": {"small": ABLE, "large": {**ABLE, "accuracy": {"*": "80%", "case": "90%"}}},
    "context_loss": "30%",
    "confidence": "70%",
}  # fmt: skip


def test_a_block_without_presets_is_complete_in_itself() -> None:
    found = judging(Block.model_validate(WHOLE), ["large", "small"], {"a": []}, {"a": ["a"]}, Streams(1))
    assert found.kinds == ("faq", "case")
    assert [skill.accuracy for skill in found.quality.skills] == [(0.8, 0.9), (0.7, 0.7)]
    assert found.channels == ()


@pytest.mark.parametrize(
    ("change", "path", "says"),
    [
        ({"context_loss": None}, ("context_loss",), "is required where no preset gives it"),
        ({"confidence": 0.4}, None, "must be at least 0.5"),
        ({"models": {"small": {**ABLE, "accuracy": {"faq": 0.5}}}}, ("models", "small", "accuracy"), "kind 'case'"),
        ({"models": {"small": {**ABLE, "accuracy": {"*": 0.5, "fqa": 0.5}}}}, ("models", "small", "accuracy", "fqa"),
         "unknown kind of task 'fqa'"),
        ({"models": {"small": {**ABLE, "like": "gpt"}}}, ("models", "small", "like"), "needs 'presets'"),
        ({"models": {"small": {**ABLE, "format": 0.9}}}, None, "must be at most 100%"),
        ({"models": {"small": {"accuracy": 0.5, "format": 0, "refusal": 0}}}, ("models", "small", "hallucination"),
         "is required"),
        ({"kinds": {"faq": {"shared": 0.5, "repeat": 0.4}}}, None, "must be at least 'shared'"),
        ({"drift": [{"at": "1d", "factor": 0.5, "kind": "fax"}]}, ("drift", 0, "kind"), "unknown kind of task 'fax'"),
        ({"drift": [{"at": "1d", "factor": 0.5, "every": "1d"}]}, None, "shorter than 'every'"),
        ({"drift": [{"at": "1d", "factor": 0.5, "lasts": "1h", "ramp": "2h"}]}, None, "it never comes"),
    ],
)  # fmt: skip
def test_a_block_that_cannot_be_says_where(change: dict[str, Any], path: Any, says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Block.model_validate({**{k: v for k, v in WHOLE.items() if k not in change}, **{
            k: v for k, v in change.items() if v is not None
        }})  # fmt: skip
    assert says in str(refused.value)
    if path is not None:
        findings = refused.value.errors()[0]["ctx"]["findings"]
        assert path in [finding.path for finding in findings]


def test_marks_must_add_up() -> None:
    rating = presets.read("quality", "feedback")["quality"]["feedback"]["rating"]
    with pytest.raises(ValidationError, match="must add up to 100%"):
        Block.model_validate({**WHOLE, "feedback": {"rating": {**rating, "otherwise": [1, 0, 0, 0, 0.5]}}})


def test_what_is_written_lies_over_the_presets() -> None:
    parts = [presets.read("quality", name)["quality"] for name in ("llmdrift", "feedback")]
    written = {
        "presets": ["llmdrift", "feedback"],
        "models": {
            "mini": {"like": "gpt-3.5"},
            "nano": {"like": "gpt-3.5", "accuracy": 0.2, "format": "5%"},
            "gpt-4": {"refusal": "1%"},
        },
        "kinds": {"prime": {"shared": 0.1, "repeat": 0.9}},
        "confidence": "60%",
    }
    block = completed(Block.model_validate(written), parts)
    assert {name: block.accuracy(name, "prime") for name in block.models} == {
        "mini": 0.5,
        "nano": 0.2,
        "gpt-4": 0.84,
    }
    assert (block.models["nano"].format, block.models["gpt-4"].refusal) == (0.05, 0.01)
    assert (block.context_loss, block.confidence, block.kinds["prime"].repeat) == (1.0, 0.6, 0.9)
    assert [drift.model for drift in block.drift] == ["gpt-4", "mini", "nano"]
    assert block.feedback.rating is not None
    models = {"mixtral-8x7b": {"accuracy": 0.9}, "gpt-4-1106": {"accuracy": {"mmlu": 0.95}}}
    over_kinds = [skill.accuracy for skill in judged(models=models).quality.skills]
    assert over_kinds == [(0.9, 0.9), (0.95, 0.8567)]
    alone = completed(
        Block.model_validate({"presets": ["llmdrift"], "models": {"gpt-4": {}}, "drift": []}), parts
    )
    assert alone.drift == ()


def test_what_the_presets_do_not_have_is_said() -> None:
    with pytest.raises(ValidationError, match="unknown model of the presets 'gpt-5'"):
        judged(of=["a"], models={"a": {"like": "gpt-5"}})
    with pytest.raises(ValueError, match=r"quality\.models has no 'other'"):
        judged(of=["other"])
    with pytest.raises(PresetError, match="there is no quality preset 'routlelm'"):
        judged(presets=["routlelm"])


def test_names_that_the_scenario_does_not_have_are_found() -> None:
    block = {
        "models": {"smal": {}, "large": {}}, "variants": {"tersest": 1},
        "drift": [{"model": "larg"}, {"agent": "tax"}, {"agent": "law"}, "malformed"],
    }  # fmt: skip
    found = list(references(block, ["small", "large"], ["tax"], ["terse"]))
    assert [(each.path, each.suggestion) for each in found] == [
        (("quality", "models", "smal"), "small"),
        (("quality", "variants", "tersest"), "terse"),
        (("quality", "drift", 0, "model"), "large"),
        (("quality", "drift", 2, "agent"), None),
    ]


def test_editors_are_told_what_may_be_written() -> None:
    described = Block.model_json_schema()
    accuracy = described["$defs"]["Ability"]["properties"]["accuracy"]
    assert "object" in {each.get("type") for each in accuracy["anyOf"]}
    assert len(accuracy["anyOf"]) > 1, "a bare share may be written too"
