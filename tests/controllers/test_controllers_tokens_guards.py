"""Caps on tokens and on size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controllers.guards.size import SizeGuard
from controllers.tokens.cap import TokenCap
from glowsim.core.reasons import sentence
from glowsim.core.types import Code, Plan, Request

tokens = st.integers(0, 300)


@given(tokens, tokens, st.integers(1, 200), st.integers(1, 200))
def test_a_plan_is_cut_to_the_caps_and_otherwise_left_alone(
    tokens_in: int, out: int, most_in: int, most_out: int
) -> None:
    plan = Plan(4, 1, tokens_in, out)
    cut = TokenCap(max_tokens_in=most_in, max_tokens_out=most_out).plan(
        0.0, Request(1, 0, tokens_in, out), plan
    )
    assert cut == (4, 1, min(tokens_in, most_in), min(out, most_out))
    assert (cut is plan) == (tokens_in <= most_in and out <= most_out)


@given(tokens, st.integers(1, 200))
def test_a_request_is_turned_away_exactly_above_the_limit(tokens_in: int, most: int) -> None:
    reason = SizeGuard(max_tokens_in=most).check(0.0, Request(1, 0, tokens_in, 10))
    assert (reason is not None) == (tokens_in > most)
    if reason is not None:
        assert reason.code == Code.TOO_LARGE
        assert sentence(reason) == f"{tokens_in} tokens, more than the {most} allowed"
