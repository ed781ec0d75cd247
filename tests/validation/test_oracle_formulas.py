"""The exact answers beyond one station: their limits, each other, and simulations that know no formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowsim.stats import queueing
from glowsim.stats.oracles import arrivals, caches, charts, networks, priorities, samples, staffing, starts

loads = st.floats(0.02, 0.95)
shares = st.lists(st.floats(0.05, 1.0), min_size=1, max_size=5)


@given(loads, shares, st.integers(1, 20))
def test_priorities_move_waits_about_and_keep_their_mean(
    load: float, weights: list[float], servers: int
) -> None:
    rates = [load * servers * weight / math.fsum(weights) for weight in weights]
    waits = priorities.priority_waits_s(rates, 1.0, servers)
    mean = math.fsum(rate * wait for rate, wait in zip(rates, waits, strict=True)) / math.fsum(rates)
    assert mean == pytest.approx(queueing.mmc(load * servers, 1.0, servers).wait_s, rel=1e-9)
    assert all(first < second for first, second in pairwise(waits))


@given(loads, shares)
def test_interruption_shields_the_first_class_and_keeps_the_work(load: float, weights: list[float]) -> None:
    rates = [load * weight / math.fsum(weights) for weight in weights]
    sojourns = priorities.preemptive_sojourns_s(rates, 1.0)
    assert sojourns[0] == pytest.approx(queueing.mmc(rates[0], 1.0, 1).sojourn_s, rel=1e-9)
    inside = math.fsum(rate * sojourn for rate, sojourn in zip(rates, sojourns, strict=True))
    assert inside == pytest.approx(queueing.mmc(load, 1.0, 1).in_system, rel=1e-9)


@given(loads, st.floats(0.0, 0.9))
def test_a_loop_through_one_station_is_a_longer_service(load: float, back: float) -> None:
    """Coming back with a chance is a geometric sum of exponentials, which is exponential again."""
    (station,) = networks.jackson([load * (1.0 - back)], [[back]], [1.0], [1])
    assert station.in_system == pytest.approx(load / (1.0 - load), rel=1e-9)


@given(loads, st.integers(1, 12))
def test_batches_of_one_are_single_arrivals(load: float, size: int) -> None:
    assert arrivals.batch_in_system(load, 1.0, 1.0) == pytest.approx(queueing.mmc(load, 1.0, 1).in_system)
    alone = arrivals.batch_in_system(load / size, float(size), 1.0)
    assert alone >= queueing.mmc(load, 1.0, 1).in_system * (1.0 - 1e-12)


def test_the_number_present_solves_its_differential_equation() -> None:
    """m' = rate(t) - m / S, stepped through two days by Runge and Kutta's rule."""

    def slope(t_h: float, m: float) -> float:
        return 10.0 + 5.0 * math.sin(2.0 * math.pi * t_h / 24.0) - m

    m, step, seen = 10.0, 0.01, []
    for i in range(9600):
        t = i * step
        a = slope(t, m)
        b = slope(t + step / 2, m + step / 2 * a)
        c = slope(t + step / 2, m + step / 2 * b)
        m += step / 6 * (a + 2 * b + 2 * c + slope(t + step, m + step * c))
        seen.append((m, t + step))
    highest, when = max(seen[-2400:])
    load = arrivals.swinging_load(10.0, 5.0, 24.0, 1.0)
    assert highest == pytest.approx(load.peak, abs=1e-4)
    assert when % 24.0 - 6.0 == pytest.approx(load.lag_s, abs=0.01)


@given(loads, st.floats(0.1, 20.0))
def test_a_server_that_lingers_saves_some_starts_and_at_last_all(load: float, setup: float) -> None:
    at_once = starts.lingering_setup_sojourn_s(load, 1.0, setup, 0.0)
    assert at_once == pytest.approx(queueing.mm1_setup_sojourn_s(load, 1.0, setup), rel=1e-12)
    lingering = [
        starts.lingering_setup_sojourn_s(load, 1.0, setup, linger) for linger in (0.1, 1.0, 10.0, 1e9)
    ]
    assert all(more < less for less, more in pairwise([at_once, *lingering]))
    assert lingering[-1] == pytest.approx(queueing.mmc(load, 1.0, 1).sojourn_s, rel=1e-5)


@given(st.integers(2, 300), st.integers(1, 299))
def test_alike_items_hit_by_the_share_that_is_kept(items: int, entries: int) -> None:
    if entries < items:
        hit = caches.che_hit_rate(caches.zipf(items, 0.0), entries)
        assert hit == pytest.approx(entries / items, rel=1e-6)


def test_renewing_a_time_to_live_never_hits_less() -> None:
    for rate in (0.01, 0.5, 3.0):
        assert caches.ttl_hit_rate(rate, 10.0, renewed=True) > caches.ttl_hit_rate(rate, 10.0, renewed=False)


def test_the_square_root_rule_is_right_for_large_fleets() -> None:
    errors = [
        abs(staffing.halfin_whitt_wait(load, round(load + math.sqrt(load))) - exact) / exact
        for load in (100.0, 2500.0, 40_000.0)
        for exact in [queueing.erlang_c(load, round(load + math.sqrt(load)))]
    ]
    assert errors[0] > 5 * errors[1] / 2 > 5 * errors[2] / 2
    assert errors[-1] < 0.01


@pytest.mark.parametrize(("threshold", "shift"), [(4.0, 1.0), (5.0, 1.0), (3.0, 0.0)])
def test_cusum_charts_run_as_long_as_their_integral_equation_says(threshold: float, shift: float) -> None:
    generator = np.random.default_rng(11)
    charted, lengths = np.zeros(20_000), np.zeros(20_000)
    running = np.ones(20_000, dtype=bool)
    while running.any():
        steps = generator.standard_normal(int(running.sum())) + shift - 0.5
        charted[running] = np.maximum(charted[running] + steps, 0.0)
        lengths[running] += 1
        running &= charted <= threshold
    error = 4.0 * lengths.std() / math.sqrt(len(lengths))
    assert error < 0.04 * lengths.mean()
    assert charts.cusum_run_length(threshold, 0.5, shift) == pytest.approx(lengths.mean(), abs=error)
    assert charts.siegmund_run_length(threshold, 0.5, shift) == pytest.approx(lengths.mean(), rel=0.04)


def test_so_many_units_have_the_power_that_is_asked_for() -> None:
    n = samples.two_share_sample(0.10, 0.12)
    generator = np.random.default_rng(3)
    a, b = (generator.binomial(n, p, 100_000) / n for p in (0.10, 0.12))
    pooled = (a + b) / 2.0
    z = np.abs(a - b) / np.sqrt(2.0 * pooled * (1.0 - pooled) / n)
    assert (z > 1.959964).mean() == pytest.approx(0.8, abs=0.006)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: priorities.priority_waits_s([], 1.0), "rates above 0"),
        (lambda: priorities.priority_waits_s([0.5, 0.6], 1.0), "load is 1.1"),
        (lambda: priorities.preemptive_sojourns_s([0.5, 0.0], 1.0), "rates above 0"),
        (lambda: networks.jackson([1.0], [[0.0, 1.0]], [2.0], [1]), "1 stations"),
        (lambda: networks.jackson([1.0], [[1.5]], [2.0], [1]), "at most 1 together"),
        (lambda: networks.jackson([1.0], [[1.0]], [2.0], [1]), "never leave"),
        (lambda: arrivals.batch_in_system(1.0, 0.5, 1.0), "at least 1"),
        (lambda: arrivals.batch_in_system(1.0, 2.0, 1.0), "load is 2"),
        (lambda: arrivals.swinging_load(1.0, 2.0, 1.0, 1.0), "0 to the mean"),
        (lambda: starts.lingering_setup_sojourn_s(1.0, 1.0, 1.0, 0.0), "arrivals < service"),
        (lambda: caches.zipf(0, 1.0), "one item"),
        (lambda: caches.che_hit_rate([0.5, 0.5], 2), "fewer entries"),
        (lambda: caches.ttl_hit_rate(0.0, 1.0, renewed=True), "above 0"),
        (lambda: staffing.halfin_whitt_wait(10.0, 10), "10 servers"),
        (lambda: charts.cusum_run_length(0.0, 0.5, 1.0), "threshold above 0"),
        (lambda: charts.siegmund_run_length(5.0, 0.5, 0.5), "unlike the allowance"),
        (lambda: samples.two_share_sample(0.1, 0.1), "different shares"),
    ],
)
def test_bad_input_says_what_to_give(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
