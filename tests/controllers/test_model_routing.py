"""Which model a request goes to: what the routers decide, and what that is worth on a measured pair of models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import inf, log, nan, sqrt
from statistics import NormalDist, fmean
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.routing.allowance import Allowance
from controllers.routing.cheap_first import CheapFirst
from controllers.routing.predictive import Predictive
from glowsim import presets
from glowsim.build_quality import judging
from glowsim.core.errors import ControllerError
from glowsim.core.protocols import Planner
from glowsim.core.streams import Stream, Streams
from glowsim.core.types import Plan, Request
from glowsim.presets.quality import Table
from glowsim.scenario.quality import Quality as Block
from glowsim.sim.quality import Quality
from glowsim.stats import Interval, paired_difference, t_interval

CHEAP, STRONG = 0, 1
MODELS = ["mixtral-8x7b", "gpt-4-1106"]
PAIR = {"cheap": "mixtral-8x7b", "strong": "gpt-4-1106"}
PLAIN = Plan(STRONG, 0, 900, 100)
CALL_USD = (900 * 0.6e-6 + 100 * 0.6e-6, 900 * 10e-6 + 100 * 30e-6)
"""Of 900 tokens in and 100 out, at the list prices of September 2025: a twentieth."""
SEEDS = range(12)
REQUESTS = 1500
Cdf = NormalDist().cdf


def ask(number: int, kind: int = 0, tokens_in: int = 900) -> Request:
    return Request(number, 0, tokens_in, 100, kind=kind)


# --- what they decide -----------------------------------------------------------------------------------


def test_the_cheap_model_is_asked_and_the_strong_one_where_it_does_not_convince() -> None:
    router = CheapFirst(MODELS, **PAIR, threshold=0.6)
    plan = router.plan(0.0, ask(1), Plan(STRONG, 2, 700, 90))
    assert plan == (CHEAP, 2, 700, 90)
    assert router.escalate(1.0, ask(1), plan, 0.6) is None
    again = router.escalate(1.0, ask(1), plan, 0.599)
    assert again == (STRONG, 2, 700, 90)
    assert router.escalate(2.0, ask(1), again, 0.0) is None, "there is nobody to ask after the strong one"


@pytest.mark.parametrize(("unscored", "goes_on"), [("escalate", True), ("take", False)])
def test_an_answer_without_a_score_is_as_the_settings_say(unscored: Any, goes_on: bool) -> None:
    router = CheapFirst(MODELS, **PAIR, unscored=unscored)
    plan = router.plan(0.0, ask(1), PLAIN)
    assert (router.escalate(1.0, ask(1), plan, nan) is not None) == goes_on


def test_a_threshold_of_zero_is_convinced_by_anything() -> None:
    router = CheapFirst(MODELS, **PAIR, threshold=0.0)
    assert router.escalate(1.0, ask(1), router.plan(0.0, ask(1), PLAIN), 0.0) is None


@given(st.floats(0.0, 1.0), st.integers(1, 5), st.lists(st.booleans(), max_size=200))
def test_no_more_calls_than_the_share_and_the_burst(share: float, burst: int, wanted: list[bool]) -> None:
    allowance, spent = Allowance(share, burst), 0
    for n, wants in enumerate(wanted, 1):
        allowance.earn()
        spent += wants and allowance.spend()
        assert spent <= share * n + burst + 1e-6


def test_a_share_that_is_saved_for_is_used() -> None:
    allowance = Allowance(0.2, 1)
    spent = 0
    for _ in range(1000):
        allowance.earn()
        spent += allowance.spend()
    assert spent == 200


def test_escalations_stay_under_their_cap() -> None:
    router = CheapFirst(MODELS, **PAIR, most=0.1, burst=3)
    escalated = [
        router.escalate(0.0, ask(n), router.plan(0.0, ask(n), PLAIN), 0.0) is not None for n in range(1, 101)
    ]
    assert escalated[:3] == [True] * 3
    assert sum(escalated) == 12


@pytest.mark.parametrize("share", [0.0, 0.13, 0.5, 1.0])
@pytest.mark.parametrize("gains", [(), (0.1, 0.1, 0.4)])
def test_the_share_is_kept_whatever_the_scores_are(share: float, gains: tuple[float, ...]) -> None:
    router = Predictive(Stream(3), MODELS, **PAIR, strong_share=share, gains=gains, window=200)
    asked = [ask(n, kind=n % 3) for n in range(1, 3001)]
    strong = [router.plan(0.0, each, PLAIN).model == STRONG for each in asked]
    assert fmean(strong) == pytest.approx(share, abs=0.02)
    if share == 0.13 and gains:
        chosen = {
            each.kind for each, goes in zip(asked, strong, strict=True) if goes and each.request_id > 100
        }
        assert chosen <= {1, 2}


@pytest.mark.parametrize("window", [1, 4, 30])
def test_the_share_is_exact_for_the_shortest_memory_too(window: int) -> None:
    router = Predictive(Stream(3), MODELS, **PAIR, strong_share=0.13, gains=(0.1, 0.4), window=window)
    strong = [router.plan(0.0, ask(n, kind=n * n % 7 % 2), PLAIN).model == STRONG for n in range(1, 6001)]
    assert fmean(strong) == pytest.approx(0.13, abs=0.02)


def test_the_share_is_kept_when_the_mix_moves() -> None:
    router = Predictive(Stream(3), MODELS, **PAIR, strong_share=0.3, gains=(0.1, 0.4), window=100)
    mix = [0] * 1000 + [1] * 1000 + [0, 1] * 500
    strong = [router.plan(0.0, ask(n, kind), PLAIN).model == STRONG for n, kind in enumerate(mix, 1)]
    for start in (200, 1200, 2200):
        assert fmean(strong[start : start + 800]) == pytest.approx(0.3, abs=0.05)


def test_longer_requests_go_to_the_strong_model_where_length_counts() -> None:
    router = Predictive(Stream(3), MODELS, **PAIR, strong_share=0.25, gain_per_log_token=1.0)
    lengths = [100 * (1 + n % 4) for n in range(4000)]
    strong = [router.plan(0.0, ask(n, 0, size), PLAIN).model == STRONG for n, size in enumerate(lengths, 1)]
    longest = [goes for goes, size in zip(strong, lengths, strict=True) if size == 400]
    assert fmean(longest) > 0.97


def test_a_hard_cap_holds_at_every_moment() -> None:
    router = Predictive(Stream(3), MODELS, **PAIR, strong_share=0.3, gains=(0.1, 0.4), window=50, burst=2)
    mix, spent = [0] * 100 + [1] * 300 + [0] * 100, 0
    for n, kind in enumerate(mix, 1):
        spent += router.plan(0.0, ask(n, kind), PLAIN).model == STRONG
        assert spent <= 0.3 * n + 2 + 1e-9
    assert spent > 0.2 * len(mix)


def test_a_kind_without_a_number_is_an_error_that_says_so() -> None:
    router = Predictive(Stream(3), MODELS, **PAIR, gains=(0.1, 0.4))
    with pytest.raises(ControllerError, match="of kind 2, and gains has numbers for 2 kinds"):
        router.plan(0.0, ask(1, kind=2), PLAIN)


@pytest.mark.parametrize(
    "names", [{"cheap": "gpt", "strong": MODELS[1]}, {"cheap": MODELS[1], "strong": MODELS[1]}]
)
def test_models_that_cannot_be_are_refused(names: dict[str, str]) -> None:
    with pytest.raises(
        ValueError, match=r"^(cheap: there is no model 'gpt'|strong: 'gpt-4-1106' is the cheap one)"
    ):
        CheapFirst(MODELS, **names)
    with pytest.raises(ValueError, match=r"^(cheap|strong): "):
        Predictive(Stream(1), MODELS, **names)


@pytest.mark.parametrize("capped", [False, True])
def test_restored_they_go_on_as_if_they_had_never_stopped(capped: bool) -> None:
    def makes() -> Iterator[Planner]:
        yield CheapFirst(MODELS, **PAIR, most=0.3 if capped else None, burst=2)
        yield Predictive(
            Stream(9),
            MODELS,
            **PAIR,
            strong_share=0.4,
            gains=(0.1, 0.4),
            window=20,
            burst=2 if capped else None,
        )

    def decisions(router: Any, numbers: range) -> list[Any]:
        escalate = getattr(router, "escalate", lambda *told: told)
        found = []
        for n in numbers:
            plan = router.plan(0.0, ask(n, n % 2), PLAIN)
            found.append((plan, escalate(0.0, ask(n), plan, n % 3 / 3)))
        return found

    for router, fresh in zip(makes(), makes(), strict=True):
        decisions(router, range(1, 60))
        fresh.restore(json.loads(json.dumps(router.snapshot())))
        assert decisions(fresh, range(60, 120)) == decisions(router, range(60, 120))


# --- the conversation that the core will hold with them ------------------------------------------------------


class Served(NamedTuple):
    correct: bool
    usd: float
    strong_calls: int


def serve(router: Any, truth: Quality, request: Request) -> Served:
    """Do what the core will: plan, dispatch, ask once what the answer's score calls for, answer with the last one."""
    plan = router.plan(0.0, request, PLAIN)
    verdict = truth.judge(0.0, request, plan, 0)
    usd, strong_calls = CALL_USD[plan.model], int(plan.model == STRONG)
    again = router.escalate(0.0, request, plan, verdict.confidence) if hasattr(router, "escalate") else None
    if again is not None:
        verdict = truth.judge(0.0, request, again, 1)
        usd, strong_calls = usd + CALL_USD[again.model], strong_calls + 1
    return Served(verdict.correct, usd, strong_calls)


def truths(preset: str, confidence: float) -> list[Quality]:
    block = Block.model_validate({"presets": [preset], "confidence": confidence})
    return [judging(block, MODELS, {"a": []}, {}, Streams(1, seed)).quality for seed in SEEDS]


def mmlu() -> tuple[float, float, float, float]:
    """Return the measured shares: both right, only the weak, only the strong, neither."""
    counts = presets.read("quality", "routellm")["measured"]["mmlu"]
    both, weak_only, strong_only, neither = (count / sum(counts) for count in counts)
    return both, weak_only, strong_only, neither


def accepted(threshold: float, auc: float, wrong_form: float) -> tuple[float, float]:
    """Return which share of the right and of the wrong answers scores at least the threshold: two normal signals."""
    apart = sqrt(2.0) * NormalDist().inv_cdf(auc)
    signal = apart / 2.0 + log(threshold / (1.0 - threshold)) / apart if threshold else -inf
    return 1.0 - Cdf(signal - apart), (1.0 - wrong_form) * (1.0 - Cdf(signal))


def expected(threshold: float, auc: float) -> tuple[float, float]:
    """Return the accuracy and the share of escalations of a cascade, from the measured table alone."""
    both, weak_only, strong_only, neither = mmlu()
    right, wrong = accepted(threshold, auc, wrong_form=0.02)
    accuracy = both + right * weak_only + (1.0 - wrong) * strong_only
    escalated = (1.0 - right) * (both + weak_only) + (1.0 - wrong) * (strong_only + neither)
    return accuracy, escalated


def run(make: Any, of: list[Quality], kinds: int = 1) -> list[list[Served]]:
    return [
        [serve(router, truth, ask(n, kind=n % kinds)) for n in range(1, REQUESTS + 1)]
        for truth in of
        for router in [make()]
    ]


def always(model: int, of: list[Quality]) -> list[list[Served]]:
    """Serve everything with one model, as the attempt that it is in a cascade."""
    plan, tries = PLAIN._replace(model=model), int(model == STRONG)
    return [
        [
            Served(truth.judge(0.0, ask(n), plan, tries).correct, CALL_USD[model], tries)
            for n in range(1, REQUESTS + 1)
        ]
        for truth in of
    ]


def means(runs: list[list[Served]], field: int) -> list[float]:
    return [fmean(each[field] for each in one) for one in runs]


def covers(values: list[float], value: float) -> Interval:
    """Check that the replications agree with a value, at 99.9 %."""
    found = t_interval(values, 0.999)
    assert found.low <= value <= found.high, (found, value)
    return found


@pytest.mark.parametrize("auc", [0.65, 0.8])
def test_a_cascade_costs_and_is_worth_what_the_measured_table_says(auc: float) -> None:
    of = truths("routellm", auc)
    both, weak_only, strong_only, _ = mmlu()
    weak, strong, oracle = both + weak_only, both + strong_only, both + weak_only + strong_only
    alone = [means(always(model, of), 0) for model in (CHEAP, STRONG)]
    for threshold in (0.3, 0.5, 0.7):
        runs = run(lambda t=threshold: CheapFirst(MODELS, **PAIR, threshold=t), of)
        accuracy, escalated = expected(threshold, auc)
        covers(means(runs, 0), accuracy)
        covers(means(runs, 2), escalated)
        assert weak + (strong - weak) * escalated < accuracy < oracle
        lots = [a + (b - a) * e for a, b, e in zip(*alone, means(runs, 2), strict=True)]
        assert paired_difference(means(runs, 0), lots, 0.999).low > 0.0, "better than lots at the same calls"


def test_a_signal_that_knows_nothing_is_a_coin_paid_for_twice() -> None:
    of = truths("routellm", 0.5)
    half = Predictive(Stream(3), MODELS, **PAIR, strong_share=0.5)
    lots = run(lambda: half, of)
    never = run(
        lambda: CheapFirst(MODELS, **PAIR, threshold=0.5), of
    )  # every confidence is 0.5, none is below
    both, weak_only, strong_only, _ = mmlu()
    covers(
        means(never, 0), both + weak_only + 0.02 * strong_only
    )  # what is not in its form is seen all the same
    covers(means(lots, 0), both + (weak_only + strong_only) / 2)


@pytest.mark.parametrize(("auc", "least"), [(0.8, 0.38), (0.7, 0.12)])
def test_what_a_cascade_saves_at_the_strong_models_accuracy(auc: float, least: float) -> None:
    """The threshold comes from the measured table, the saving from paired runs of both policies."""
    threshold = equal_accuracy(auc)
    of = truths("routellm", auc)
    cascade = run(lambda: CheapFirst(MODELS, **PAIR, threshold=threshold), of)
    strong = always(STRONG, of)
    difference = paired_difference(means(cascade, 0), means(strong, 0), 0.95)
    assert difference.low < 0.0 < difference.high
    assert difference.high - difference.low < 0.012
    saved = t_interval([1.0 - a / b for a, b in zip(means(cascade, 1), means(strong, 1), strict=True)], 0.95)
    assert saved.low > least
    _, escalated = expected(threshold, auc)
    assert saved.low <= 1.0 - CALL_USD[CHEAP] / CALL_USD[STRONG] - escalated <= saved.high


def equal_accuracy(auc: float) -> float:
    """Return the threshold at which a cascade is as accurate as the strong model alone."""
    from scipy.optimize import brentq

    both, _, strong_only, _ = mmlu()
    best = max((step / 200 for step in range(1, 200)), key=lambda t: expected(t, auc)[0])
    return float(brentq(lambda t: expected(t, auc)[0] - both - strong_only, 0.01, best))


def test_with_a_weak_signal_there_is_nothing_to_save() -> None:
    _, escalated = expected(equal_accuracy(0.6), 0.6)
    assert CALL_USD[CHEAP] + escalated * CALL_USD[STRONG] > 0.99 * CALL_USD[STRONG]


def test_routing_by_subject_is_worth_what_the_tables_of_the_subjects_say() -> None:
    measured = presets.read("quality", "routellm_subjects")["measured"]
    tables = [Table(*counts).shares for counts in measured.values()]
    gains = tuple(strong - weak for weak, strong, _ in tables)
    of = truths("routellm_subjects", 0.7)
    share, kinds = 20 / 57, len(tables)
    by_subject = run(lambda: router(share, gains), of, kinds)
    lots = run(lambda: router(share, ()), of, kinds)
    assert fmean(means(by_subject, 2)) == pytest.approx(share, abs=0.01)
    best = fmean(table[0] for table in tables) + sum(sorted(gains)[-20:]) / kinds
    covers(means(by_subject, 0), best)
    worth = paired_difference(means(by_subject, 0), means(lots, 0), 0.999)
    assert worth.low > 0.01, "well above lots at the same calls"


def router(share: float, gains: tuple[float, ...]) -> Predictive:
    return Predictive(Stream(3), MODELS, **PAIR, strong_share=share, gains=gains, window=570)
