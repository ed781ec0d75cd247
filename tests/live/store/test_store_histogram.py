"""The stored histogram against exact quantiles, and merging against one histogram of everything."""

from __future__ import annotations

from math import ceil, inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowsim.core.errors import GlowsimError
from glowsim.live.buckets import ACCURACY
from glowsim.live.store.histogram import Histogram

VALUES = st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=60)
P = st.floats(0.0, 1.0)


def exact(values, p):
    return sorted(values)[max(ceil(p * len(values)), 1) - 1]


@given(VALUES, P)
def test_a_quantile_is_within_its_accuracy_of_the_exact_one(values, p):
    found = Histogram(values).quantile(p)
    assert found == pytest.approx(exact(values, p), rel=ACCURACY * (1 + 1e-9))


@given(VALUES, VALUES, VALUES)
def test_merging_is_the_histogram_of_all_in_any_order(one, two, three):
    whole = Histogram([*one, *two, *three])
    left, right = Histogram(one), Histogram(three)
    left.merge(Histogram(two))
    left.merge(Histogram(three))
    right.merge(Histogram(one))
    right.merge(Histogram(two))
    for merged in (left, right):
        assert merged.n == whole.n
        assert merged.total == pytest.approx(whole.total)
        assert [merged.quantile(p / 20) for p in range(21)] == [whole.quantile(p / 20) for p in range(21)]


@given(st.lists(st.floats(0.0, 1e12), max_size=60))
def test_packed_and_back_is_the_same(values):
    histogram = Histogram(values)
    again = Histogram.from_bytes(histogram.to_bytes())
    assert again.to_bytes() == histogram.to_bytes()
    assert (again.n, again.total, again.quantile(0.9)) == (
        len(values),
        histogram.total,
        histogram.quantile(0.9),
    )


def test_nothing_has_no_quantile_and_zero_is_zero():
    assert Histogram().quantile(0.5) is None
    assert Histogram([0.0, 0.0, 5.0]).quantile(0.5) == 0.0


@pytest.mark.parametrize("value", [-1.0, nan, inf])
def test_what_is_no_duration_is_refused_and_nothing_counted(value):
    histogram = Histogram([1.0])
    with pytest.raises(ValueError, match="numbers from 0"):
        histogram.add(value)
    assert (histogram.n, histogram.total) == (1, 1.0)


@pytest.mark.parametrize(
    ("packed", "said"),
    [(b"", "version none"), (b"\x09" * 40, "version 9"), (Histogram([1.0]).to_bytes()[:-1], "cut")],
)
def test_what_is_not_packed_so_is_refused(packed, said):
    with pytest.raises(GlowsimError, match=said):
        Histogram.from_bytes(packed)
