"""Suggestions: what comes first, and how it is rolled out."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from controllers.rollout.improvement import ImprovementRollout
from glowsim.stats.experiments.suggestions import Suggestion, rank

USD = st.floats(0.0, 1e4)
SUGGESTIONS = st.lists(
    st.builds(
        Suggestion, st.text(min_size=1, max_size=3), st.just("v2"), st.floats(-1e4, 1e4), USD, st.floats(0, 1), USD,
        st.booleans(),
    ),
    max_size=6,
)  # fmt: skip


def worth(suggestion: Suggestion) -> float:
    [ranked] = rank([suggestion])
    return ranked.worth_usd_per_day


def test_the_worth_is_a_lower_bound_less_the_expected_harm() -> None:
    one = Suggestion("a", "v2", 100.0, 20.0, harm_chance=0.25, harm_usd_per_day=40.0)
    assert worth(one) == pytest.approx(100.0 - stats.norm.ppf(0.95) * 20.0 - 10.0)
    assert rank([one], confidence=0.5)[0].worth_usd_per_day == pytest.approx(90.0)


@given(SUGGESTIONS)
def test_the_order_given_does_not_matter_and_the_best_comes_first(given_in: list[Suggestion]) -> None:
    assume(len({each.name for each in given_in}) == len(given_in))
    ranked = rank(given_in)
    assert rank(reversed(given_in)) == ranked
    assert [each.worth_usd_per_day for each in ranked] == sorted(map(worth, given_in), reverse=True)


@given(st.floats(1.0, 1e4), USD, st.floats(0.0, 0.9), USD)
def test_more_doubt_and_more_harm_are_worth_less(
    value: float, error: float, chance: float, harm: float
) -> None:
    one = Suggestion("a", "v2", value, error, chance, harm)
    assert worth(one._replace(error_usd_per_day=error + 1.0)) < worth(one)
    assert worth(one._replace(harm_usd_per_day=harm + 1.0)) <= worth(one)
    assert worth(one._replace(harm_chance=chance + 0.1)) <= worth(one)


@pytest.mark.parametrize(
    ("changed", "strategy"),
    [
        ({}, "gradual"),
        ({"critical": True}, "immediate"),
        ({"harm_chance": 0.5}, "canary"),
        ({"harm_chance": 0.5, "critical": True}, "canary"),
        ({"value_usd_per_day": -5.0}, "canary"),
    ],
)
def test_the_risk_decides_how_it_is_rolled_out(changed: dict[str, float], strategy: str) -> None:
    one = Suggestion("a", "v2", 100.0, 1.0, harm_chance=0.05, harm_usd_per_day=100.0)._replace(**changed)
    [ranked] = rank([one])
    assert ranked.strategy == strategy
    assert ImprovementRollout(salt=one.name, strategy=ranked.strategy).first_weight > 0.0


def test_without_evidence_it_comes_last() -> None:
    guess = Suggestion("guess", "v3", 1e6, inf)
    assert [each.suggestion.name for each in rank([guess, Suggestion("b", "v2", -1.0, 0.0)])] == [
        "b",
        "guess",
    ]
    assert rank([guess], confidence=0.5)[0].worth_usd_per_day == 1e6


@pytest.mark.parametrize(
    "changed",
    [{"harm_chance": 1.1}, {"harm_chance": nan}, {"error_usd_per_day": -1.0}, {"error_usd_per_day": nan},
     {"harm_usd_per_day": -1.0}, {"value_usd_per_day": nan}],
)  # fmt: skip
def test_numbers_out_of_bounds_are_refused_by_the_suggestions_name(changed: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="prompt: "):
        rank([Suggestion("prompt", "v2", 1.0, 1.0)._replace(**changed)])


@pytest.mark.parametrize("changed", [{"confidence": 1.0}, {"confidence": 0.4}, {"high_risk": -0.1}])
def test_the_ranks_own_numbers_have_bounds_too(changed: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(changed))):
        rank([], **changed)
