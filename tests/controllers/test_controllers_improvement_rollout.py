"""The improvement rollout: what it counts, when it goes on, and what it does when it may not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from math import inf, log, nan
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from controllers.rollout.improvement import ImprovementRollout
from glowsim.core.evidence import HarmEvidence
from glowsim.core.reasons import GUARDRAILS
from glowsim.core.types import Advance, ChangeKind, Code, Observed, Reason, Request

LOOK_S, HOUR_S = 60.0, 3600.0


def rollout(**changed: Any) -> ImprovementRollout:
    return ImprovementRollout(**{"salt": "v2"} | changed)


def short(**changed: Any) -> ImprovementRollout:
    """Two stages of two looks each, with outcomes known at once."""
    told = {"strategy": "stages", "weights": (0.2, 0.5), "holds_s": (120.0,), "maturity_s": 0.0, "minimum": 1}
    return rollout(**told | changed)


def request(number: int, **changed: int) -> Request:
    return Request(number, 0, 900, 100, **changed)


def ends(
    one: ImprovementRollout, t_s: float, assigned_s: float, variant: int, ok: bool = True, **told: float
) -> None:
    advance = one.finished(
        t_s, assigned_s, variant, request(1), ok, told.get("latency_s", 1.0), told.get("cost_usd", nan)
    )
    assert advance is None, "everything is decided at looks"


class Arms:
    """Assigns as many requests to each arm as wanted, by asking with ever new ones."""

    def __init__(self, one: ImprovementRollout) -> None:
        self.one = one
        self.numbers = count(1)
        self.said: list[tuple[float, Advance]] = []

    def to(self, t_s: float) -> None:
        """Wake it whenever it wants to be, up to a moment."""
        while (due_s := self.one.wake_s()) <= t_s:
            advance = self.one.wake(due_s)
            if advance is not None:
                self.said.append((due_s, advance))

    def fill(self, t_s: float, requests: int, wrong: tuple[int, int] = (0, 0)) -> list[int]:
        """Assign requests at a moment; so many of each arm end badly at once."""
        self.to(t_s)
        assigned = [0, 0]
        for _ in range(requests):
            assigned[self.one.assign(t_s, request(next(self.numbers)))] += 1
        for arm, errors in enumerate(wrong):
            for _ in range(errors):
                ends(self.one, t_s, t_s, arm, ok=False)
        return assigned

    def codes(self) -> list[str]:
        return [advance.reason.code.name for _, advance in self.said]


def healthy(one: ImprovementRollout, looks: int, requests: int = 100) -> Arms:
    arms = Arms(one)
    for look in range(looks):
        arms.fill(look * LOOK_S + 1.0, requests)
    arms.to(looks * LOOK_S)
    return arms


# --- who gets it ----------------------------------------------------------------------------------------


def shares(one: ImprovementRollout, t_s: float, unit: str = "request_id") -> set[int]:
    requests = (request(7)._replace(**{unit: number}) for number in range(1, 20_000))
    return {getattr(each, unit) for each in requests if one.assign(t_s, each)}


def test_each_strategy_has_its_weights_and_holds_and_only_adds_units() -> None:
    """One of ten thousand errs in every hour, so that the last gate lets it pass."""
    for strategy, weights, hours in (
        ("gradual", [0.1, 0.25, 0.5, 1.0], [2, 4, 6]),
        ("canary", [0.05, 0.1, 0.25, 0.5, 1.0], [24, 26, 28, 30]),
    ):
        one = rollout(strategy=strategy, minimum=1, maturity_s=0.0)
        arms, before, at = Arms(one), set[int](), [0]
        assert one.first_weight == weights[0]
        for weight, hour in zip(weights, [*hours, None], strict=True):
            arms.to(at[-1] * HOUR_S)
            now = shares(one, at[-1] * HOUR_S + 1.0)
            assert before <= now
            low, high = stats.binom.interval(0.9999, 19_999, weight)
            assert low <= len(now) <= high
            before = now
            if hour is not None:
                at.append(hour)
        assert [t_s / HOUR_S for t_s, _ in arms.said] == hours
        assert [advance.weight for _, advance in arms.said] == weights[1:]
        assert arms.codes() == ["STAGE_DONE"] * (len(hours) - 1) + ["NON_INFERIOR"]
        assert one.wake_s() == inf


def test_immediately_everybody_has_it_and_nothing_is_compared() -> None:
    one = rollout(strategy="immediate")
    arms = Arms(one)
    assert one.first_weight == 1.0
    assert arms.fill(0.0, 50, wrong=(0, 50)) == [0, 50]
    assert one.wake_s() == inf
    assert one.evidence == 1.0
    assert one.ordered(9.0, ChangeKind.ROLL_BACK) is not None
    assert arms.fill(10.0, 50) == [50, 0]


@pytest.mark.parametrize("unit", ["session", "user", "tenant"])
@given(st.integers(1, 2**64 - 1), st.lists(st.integers(1, 2**40), min_size=2, max_size=5))
def test_a_unit_stays_with_its_variant(unit: str, key: int, numbers: list[int]) -> None:
    one = short(unit=unit)
    assert one.unit == unit
    assert len({one.assign(0.0, request(number)._replace(**{unit: key})) for number in numbers}) == 1


def test_requests_without_a_session_are_units_of_their_own() -> None:
    one = short(unit="session")
    assert {one.assign(0.0, request(number)) for number in range(1, 40)} == {0, 1}


def test_rollouts_with_different_salts_draw_independently() -> None:
    both = shares(short(), 0.0) & shares(short(salt="v3"), 0.0)
    low, high = stats.binom.interval(0.9999, 19_999, 0.04)
    assert low <= len(both) <= high


def test_the_propensity_is_that_of_the_moment_of_assignment() -> None:
    one = short()
    healthy(one, 2)
    assert [one.propensity(t_s, 1) for t_s in (0.0, 119.9, 120.0, 300.0)] == [0.2, 0.2, 0.5, 0.5]
    assert one.propensity(1.0, 0) == 0.8


# --- harm -----------------------------------------------------------------------------------------------


def test_it_is_rolled_back_at_the_look_at_which_the_evidence_is_there() -> None:
    """The evidence itself is held against its definition elsewhere; here are its inputs and its moment."""
    one, evidence = rollout(maturity_s=120.0), HarmEvidence(planned=30)
    arms, due_look = Arms(one), None
    for look in range(40):
        if look % 60 == 0:
            evidence.start()
        evidence.add(0.05, canary=1, baseline=4)
        if due_look is None and evidence.log_value >= log(100.0):
            due_look = look + 3  # a look later it has ended, two more and it is mature
        arms.fill(look * LOOK_S + 5.0, 20, wrong=(4, 1))
    arms.to(40 * LOOK_S)
    assert due_look is not None
    [(when_s, advance)] = arms.said
    assert when_s == due_look * LOOK_S
    assert (advance.stage, advance.weight, advance.reason.code) == (0, 0.0, Code.EVIDENCE_OF_HARM)
    assert advance.reason.a >= advance.reason.b == pytest.approx(100.0)
    assert GUARDRAILS[int(advance.reason.c)] == "errors"
    assert arms.fill(50 * LOOK_S, 100) == [100, 0]
    assert one.wake_s() == inf


def test_several_guardrails_share_alpha() -> None:
    assert short(latency_above_s=0.1, maturity_s=60.0, complaints=True)._enough == pytest.approx(log(300.0))


@pytest.mark.parametrize(
    ("guardrail", "told"),
    [
        ("latency", {"latency_s": 9.0}),
        ("cost", {"cost_usd": 0.2}),
        ("errors", {"ok": False}),
    ],
)
def test_each_guardrail_sees_its_own(guardrail: str, told: Any) -> None:
    one = short(latency_above_s=8.0, cost_above_usd=0.1, maturity_s=60.0)
    assert one.needs_cost
    arms = Arms(one)
    for look in range(6):
        arms.fill(look * LOOK_S, 50)
        for _ in range(5):
            ends(one, look * LOOK_S + 9.0, look * LOOK_S, 1, **told)
    arms.to(8 * LOOK_S)
    harmed = arms.said[-1][1].reason
    assert harmed.code == Code.EVIDENCE_OF_HARM
    assert GUARDRAILS[int(harmed.c)] == guardrail


def label(number: int, variant: int, metric: str, value: float, assigned_s: float | None) -> Observed:
    return Observed(1.0, number, 0, variant, number, 0.2, metric, value, 0, assigned_s)


@pytest.mark.parametrize(("metric", "value", "fine"), [("rating", 2.0, 4.0), ("complaint", 1.0, 0.0)])
def test_labels_count_once_a_request(metric: str, value: float, fine: float) -> None:
    def harmed(labels: list[Observed]) -> ImprovementRollout:
        one = short(quality_metric="rating", quality_below=3.0, complaints=True, maturity_s=60.0)
        arms = Arms(one)
        arms.fill(0.0, 50)
        for each in labels:
            assert one.observed(30.0, each) is None
        arms.to(120.0)
        return one

    once = harmed([label(number, 1, metric, value, 0.0) for number in (1, 2)])
    assert once.evidence > 3.0
    assert (
        harmed([label(number, 1, metric, value, 0.0) for number in (1, 2, 1, 1, 2)]).evidence == once.evidence
    )
    assert harmed([label(number, 1, metric, fine, 0.0) for number in (1, 2)]).evidence == 1.0
    assert harmed([label(1, 1, "smile", value, 0.0)]).evidence == 1.0
    unplaced = harmed([label(1, 1, metric, value, None)])
    assert (unplaced.evidence, unplaced.late) == (1.0, 1)


def test_what_comes_after_its_look_is_mature_is_dropped_in_both_arms() -> None:
    one = short(maturity_s=60.0)
    arms = Arms(one)
    arms.fill(0.0, 20)
    arms.to(120.0)
    for arm in (0, 1):
        ends(one, 120.0, 0.0, arm, ok=False)
        one.observed(130.0, label(1, arm, "complaint", 1.0, 0.0))
    assert one.late == 2, "and the complaints were not guarded"
    assert one.evidence == 1.0


# --- stages ---------------------------------------------------------------------------------------------


def test_a_stage_that_saw_too_little_is_held_and_says_so_once() -> None:
    one = short(minimum=30)
    arms = healthy(one, 8, requests=60)
    assert arms.codes()[:2] == ["TOO_FEW", "STAGE_DONE"]
    (first_s, held), (then_s, done) = arms.said[:2]
    assert (first_s, held.stage, held.weight) == (120.0, 1, 0.2)
    assert (held.reason.a, held.reason.c) == (1, 30)
    assert held.reason.b < 30 <= done.reason.b
    assert then_s == 180.0


def test_a_wrong_split_blocks_but_never_rolls_back() -> None:
    """One tenant sends everything, with another request each time: the split cannot be 20 to 80."""
    one = short()
    [unlucky] = [n for n in range(1, 40) if one.assign(0.0, request(n)) == 1][:1]
    arms = Arms(one)
    for look in range(6):
        arms.to(look * LOOK_S)
        for _ in range(100):
            one.assign(look * LOOK_S, request(unlucky))
    arms.to(360.0)
    assert arms.codes() == ["SAMPLE_RATIO"]
    assert arms.said[0][1].reason.b >= arms.said[0][1].reason.c == pytest.approx(1000.0)
    ordered = one.ordered(361.0, ChangeKind.PROMOTE)
    assert ordered is not None
    assert (ordered.stage, ordered.weight, ordered.reason.code) == (3, 1.0, Code.OPERATOR)


def test_an_operator_pauses_and_resumes() -> None:
    one = short()
    arms = Arms(one)
    arms.fill(1.0, 100)
    paused = one.ordered(2.0, ChangeKind.PAUSE_ROLLOUT)
    assert paused is not None
    assert (paused.stage, paused.weight, paused.reason.code) == (1, 0.2, Code.PAUSED)
    assert one.ordered(3.0, ChangeKind.PAUSE_ROLLOUT) is None
    for look in range(1, 6):
        arms.fill(look * LOOK_S, 100)
    assert arms.said == []
    resumed = one.ordered(310.0, ChangeKind.RESUME_ROLLOUT)
    assert resumed is not None
    assert resumed.reason.code == Code.RESUMED
    arms.to(360.0)
    assert [(when_s, advance.reason.code) for when_s, advance in arms.said] == [(360.0, Code.STAGE_DONE)]


def test_harm_is_seen_while_it_is_paused() -> None:
    arms = Arms(short())
    arms.fill(0.0, 100, wrong=(0, 20))
    arms.one.ordered(1.0, ChangeKind.PAUSE_ROLLOUT)
    arms.to(60.0)
    assert arms.codes() == ["EVIDENCE_OF_HARM"]


def test_a_rollback_is_for_good() -> None:
    one = short()
    assert one.ordered(5.0, ChangeKind.ROLL_BACK) == Advance(0, 0, 0.0, Reason(Code.OPERATOR))
    assert all(one.ordered(6.0, kind) is None for kind in ChangeKind)
    assert one.wake_s() == inf


def test_what_is_worse_by_the_margin_is_never_promoted_by_silence() -> None:
    """10 % of errors against 9 %, 0.8 requests a second: no alarm, and nothing shown."""
    one = short(holds_s=(HOUR_S,), gates=2)
    arms, rng = Arms(one), np.random.default_rng(3)
    for look in range(400):
        arms.to(look * LOOK_S)
        assigned = arms.fill(look * LOOK_S, 50)
        for arm, risk in enumerate((0.09, 0.10)):
            for _ in range(rng.binomial(assigned[arm], risk)):
                ends(one, look * LOOK_S, look * LOOK_S, arm, ok=False)
    assert arms.codes() == ["STAGE_DONE", "INCONCLUSIVE", "INCONCLUSIVE"]
    assert [when_s / HOUR_S for when_s, _ in arms.said] == [1, 2, 3]
    assert one.wake_s() < inf, "harm is still looked for"
    bound, margin = arms.said[-1][1].reason.a, arms.said[-1][1].reason.b
    assert bound >= margin == 0.01
    promoted = one.ordered(400 * LOOK_S, ChangeKind.PROMOTE)
    assert promoted is not None
    assert promoted.reason.code == Code.OPERATOR


def test_a_quiet_fleet_is_woken_for_the_end_of_a_stage_only() -> None:
    one = rollout(maturity_s=0.0)
    assert one.wake_s() == inf, "it begins with the first request"
    one.assign(1000.0, request(1))
    assert one.wake_s() == 1020.0
    assert one.wake(1020.0) is None
    assert one.wake_s() == 960.0 + 24 * HOUR_S
    [held] = [one.wake(one.wake_s())]
    assert held is not None
    assert held.reason.code == Code.TOO_FEW
    assert one.wake_s() == inf, "until something is assigned"


def test_woken_late_it_changes_no_weight_within_a_look() -> None:
    one = short(minimum=1)
    for number in range(1, 60):
        one.assign(1.0, request(number))
    one.assign(130.0, request(99))
    assert one.wake(131.0) is None
    assert one.wake_s() == 180.0
    advance = one.wake(180.0)
    assert advance is not None
    assert advance.stage == 2


# --- properties -----------------------------------------------------------------------------------------


class Told(NamedTuple):
    """One thing that it is told: at a look, of a request assigned some looks ago."""

    kind: str
    ago: int
    variant: int
    bad: bool


TOLD = st.builds(
    Told, st.sampled_from(["assign", "ends", "label"]), st.integers(0, 4), st.integers(0, 1), st.booleans()
)
LOOKS = st.lists(st.lists(TOLD, max_size=12), min_size=1, max_size=14)


def every(**changed: Any) -> ImprovementRollout:
    return short(
        **{"quality_metric": "rating", "quality_below": 0.5, "maturity_s": 120.0, "alpha": 0.5, "margin": 0.5}
        | changed
    )


def hear(one: ImprovementRollout, told: Told, look: int, number: int) -> None:
    t_s, assigned_s = look * LOOK_S + 30.0, max(0, look - told.ago) * LOOK_S + 10.0
    if told.kind == "assign":
        one.assign(t_s, request(number, user=number % 7))
    elif told.kind == "ends":
        ends(one, t_s, assigned_s, told.variant, ok=not told.bad)
    else:
        one.observed(t_s, label(number, told.variant, "rating", float(not told.bad), assigned_s))


def story(one: ImprovementRollout, looks: list[list[Told]], *, restarts: bool = False) -> Iterator[str]:
    number = 0
    for look, heard in enumerate(looks):
        if one.wake_s() <= look * LOOK_S:
            yield repr((look, one.wake(one.wake_s())))
        for told in heard:
            number += 1
            if restarts:
                saved = json.dumps(one.snapshot(), allow_nan=False)
                one = every(unit=one.unit)
                one.restore(json.loads(saved))
                assert json.dumps(one.snapshot()) == saved
            hear(one, told, look, number)
            yield repr(one.wake_s())
    yield repr((one.evidence, one.late))


@settings(deadline=None, max_examples=60)
@given(LOOKS, st.sampled_from(["request", "user"]))
def test_restored_at_any_prefix_it_goes_on_as_if_never_stopped(looks: list[list[Told]], unit: str) -> None:
    assert list(story(every(unit=unit), looks)) == list(story(every(unit=unit), looks, restarts=True))


@settings(deadline=None, max_examples=60)
@given(LOOKS, st.randoms())
def test_the_order_within_a_look_does_not_matter(looks: list[list[Told]], shuffle: Any) -> None:
    """What is told within one look may come in any order, as far as the same requests are assigned."""

    def decisions(looks: list[list[Told]]) -> list[str]:
        one, said = every(), []
        for look, heard in enumerate(looks):
            while one.wake_s() <= look * LOOK_S:
                said.append(repr((one.wake_s(), one.wake(one.wake_s()))))
            for place in range(6):
                one.assign(look * LOOK_S, request(6 * look + place + 1))
            for told in heard:
                if told.kind != "assign":
                    hear(one, told, look, 1000 * look + 2 * told.variant + told.bad)
        return [*said, repr((one.evidence, one.late))]

    labelled_once = [sorted(set(heard)) for heard in looks]
    shuffled = [shuffle.sample(heard, len(heard)) for heard in labelled_once]
    assert decisions(labelled_once) == decisions(shuffled)


def test_what_it_keeps_is_bounded() -> None:
    """A day of requests whose labels may come for an hour: an hour of looks is kept, by few numbers each."""
    one = rollout(maturity_s=3600.0, complaints=True)
    arms = Arms(one)
    for look in range(1440):
        arms.fill(look * LOOK_S, 3)
    assert len(one.snapshot()["_buckets"]["is"]) <= 62
    assert len(json.dumps(one.snapshot())) < 20_000
