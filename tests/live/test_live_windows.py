"""Sliding windows and their histograms, against numpy and against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowsim.live.buckets import middle
from glowsim.live.windows import SLICE_S, TREND, WINDOWS, Tally, Windows, bucket_of, quantiles_s

LATENCIES = st.floats(1e-4, 1e4)
PS = (0.05, 0.5, 0.95, 0.99, 1.0)


def histogram(values):
    found = {}
    for value in values:
        bucket = bucket_of(value)
        found[bucket] = found.get(bucket, 0) + 1
    return found


@given(st.lists(LATENCIES, min_size=1, max_size=300))
def test_quantiles_are_within_one_percent_of_numpys(values):
    exact = np.quantile(values, PS, method="inverted_cdf")
    assert quantiles_s([histogram(values)], PS) == pytest.approx(list(exact), rel=0.0101)


@given(st.lists(st.lists(LATENCIES, max_size=40), min_size=1, max_size=6))
def test_merged_histograms_say_what_one_of_all_values_says(parts):
    whole = [value for part in parts for value in part]
    assert quantiles_s(map(histogram, parts), PS) == quantiles_s([histogram(whole)], PS)


def test_quantiles_of_a_lognormal_law_are_the_laws():
    values = np.random.default_rng(1).lognormal(math.log(0.4), 0.5, 200_000)
    z = {0.5: 0.0, 0.95: 1.6448536, 0.99: 2.3263479}
    for p, found in zip(z, quantiles_s([histogram(values)], z), strict=True):
        assert found == pytest.approx(0.4 * math.exp(0.5 * z[p]), rel=0.02)


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e12])
def test_what_no_latency_can_be_has_a_bucket_all_the_same(value):
    assert middle(bucket_of(value)) > 0.0


def test_nothing_has_no_quantile():
    assert quantiles_s([], (0.5, 0.9)) == [None, None]


GAPS = st.one_of(st.floats(0.0, 30.0), st.sampled_from([0.0, 10.0, 60.0, 900.0, 3600.0, 86_400.0, 200_000.0]))


@given(st.floats(0.0, 5000.0), st.lists(st.tuples(GAPS, st.booleans(), LATENCIES), max_size=60), GAPS)
def test_a_window_holds_what_happened_since_it_says_and_nothing_else(began_s, happened, rest_s):
    windows, t_s, seen = Windows(began_s), began_s, []
    for gap_s, answered, latency_s in happened:
        t_s += gap_s
        windows.turn(t_s)
        now = windows.now
        now.arrived += 1
        now.token_usd += 1.0
        if answered:
            now.answered += 1
            bucket = bucket_of(latency_s)
            now.latencies[bucket] = now.latencies.get(bucket, 0) + 1
        seen.append((t_s, answered, latency_s))
    t_s += rest_s
    for (_, part_s, parts), (since_s, tally) in zip(WINDOWS, windows.read(t_s), strict=True):
        inside = [each for each in seen if each[0] >= since_s]
        assert tally.arrived == len(inside)
        assert tally.answered == sum(answered for _, answered, _ in inside)
        assert tally.token_usd == len(inside)
        assert quantiles_s([tally.latencies], PS) == quantiles_s(
            [histogram([latency_s for _, answered, latency_s in inside if answered])], PS
        )
        if since_s > began_s:
            assert (parts - 1) * part_s <= t_s - since_s < parts * part_s


def test_memory_is_bounded_however_long_it_runs():
    windows = Windows(0.0)
    for hour in range(24 * 40):
        for i in range(40):
            t_s = hour * 3600.0 + i * 90.0
            windows.turn(t_s)
            windows.now.arrived += 1
            bucket = bucket_of(0.1 + i)
            windows.now.latencies[bucket] = 1
    most = [width.parts for width in WINDOWS]
    assert all(len(parts) <= n for parts, n in zip(windows._parts, most, strict=True))
    assert len(windows.trend) <= TREND
    assert [window.tally.arrived for window in windows.read(t_s)] == [1, 11, 1000]


def test_a_slice_with_nothing_but_a_retry_is_kept():
    windows = Windows(0.0)
    windows.now.retries += 1
    windows.turn(SLICE_S)
    assert [window.tally.retries for window in windows.read(SLICE_S)] == [1, 1, 1]


def test_tallies_add_up():
    one, other = Tally(), Tally()
    one.failed, other.apologised, other.abandoned, other.rejected = 1, 2, 3, 4
    one.latencies, other.latencies = {3: 1}, {3: 2, 5: 1}
    one.add(other)
    assert (one.bad, one.ended, one.latencies) == (7, 10, {3: 3, 5: 1})


@given(st.lists(LATENCIES, min_size=1, max_size=100), LATENCIES)
def test_slower_than_counts_what_is_clearly_slower_and_nothing_that_is_clearly_faster(values, limit_s):
    tally = Tally()
    tally.latencies = histogram(values)
    sure = sum(value > limit_s * 1.0203 for value in values)
    most = sum(value > limit_s for value in values)
    assert sure <= tally.slower_than(limit_s) <= most
