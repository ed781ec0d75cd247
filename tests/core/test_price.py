"""What tokens cost: against exact arithmetic, and columns against rows, bit by bit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from glowsim.core.price import Price
from glowsim.results import costs_usd

usd = st.floats(0.0, 1.0)
prices = st.builds(Price, usd, usd, usd)
uses = st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)).map(
    lambda said: (max(said[:2]), min(said[:2]), said[2])
)


@given(prices, uses)
def test_a_use_costs_its_fresh_cached_and_output_tokens(price, use):
    tokens_in, cached, tokens_out = use
    parts = (
        (tokens_in - cached, price.input_usd),
        (cached, price.cached_usd),
        (tokens_out, price.output_usd),
    )
    exact = sum(Fraction(tokens) * Fraction(rate) for tokens, rate in parts)
    # Three products and two sums of numbers that are not negative: each rounds by 2**-53 at most.
    assert abs(Fraction(price.cost_usd(*use)) - exact) <= exact * 4 * Fraction(1, 2**53) + Fraction(
        1, 10**300
    )


@given(
    st.lists(prices, min_size=1, max_size=4), st.lists(uses, max_size=20), st.randoms(use_true_random=False)
)
def test_columns_cost_what_their_rows_cost_bit_by_bit(known, rows, random):
    model = [random.randrange(len(known)) for _ in rows]
    columns = [np.array([row[i] for row in rows], dtype=np.int32) for i in range(3)]
    found = costs_usd(known, np.array(model, dtype=np.int16), *columns).tolist()
    assert found == [known[each].cost_usd(*row) for each, row in zip(model, rows, strict=True)]
