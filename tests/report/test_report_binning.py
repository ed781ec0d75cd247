import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowsim.report.binning import over_time, tail
from glowsim.report.figures import Target, latency_distribution


@given(st.integers(0, 2**32 - 1), st.integers(0, 3000), st.sampled_from([np.inf, 40.0, 3.0, 0.01]))
def test_slices_lose_nothing_and_agree_with_numpy(seed, n, shortest_s):
    draw = np.random.default_rng(seed)
    arrive_s = np.sort(draw.uniform(0, 100, n))
    latency_s = draw.exponential(1.0, n)
    answer_s = np.where(draw.random(n) < 0.1, np.nan, np.minimum(arrive_s + latency_s, 110.0))
    erred = np.isnan(answer_s) & (draw.random(n) < 0.7)
    dispatch_s = np.repeat(arrive_s, draw.integers(0, 4, n))
    slices = over_time(arrive_s, answer_s, latency_s, erred, dispatch_s, 110.0, shortest_s)
    width_s = np.diff(slices.edges_s)
    assert 12 <= len(width_s) <= 240
    assert len(width_s) <= 90 or width_s[0] <= shortest_s / 2 or len(width_s) == 240
    assert (slices.attempts_per_s * width_s).sum() == pytest.approx(len(dispatch_s))
    said = ~np.isnan(slices.error_share)
    of_slice = slices.arrivals_per_s * width_s
    assert (said == (np.round(of_slice) >= 5)).all()
    assert (slices.arrivals_per_s * width_s).sum() == pytest.approx(n)
    assert (slices.completions_per_s * width_s).sum() == pytest.approx((~np.isnan(answer_s)).sum())
    for at in range(len(width_s)):
        inside = (arrive_s >= slices.edges_s[at]) & (arrive_s < slices.edges_s[at + 1])
        values = latency_s[inside & ~np.isnan(answer_s)]
        if said[at]:
            assert slices.error_share[at] == pytest.approx(erred[inside].mean())
        for percentile, fewest in ((50, 5), (95, 20), (99, 100)):
            shown = slices.latency_s[percentile][at]
            if len(values) < fewest:
                assert np.isnan(shown)
            else:
                assert shown == np.quantile(values, percentile / 100, method="inverted_cdf")


def test_a_short_fault_gets_slices_of_its_own():
    arrive_s = np.arange(0.0, 660.0, 1 / 70)
    down = (arrive_s >= 60.0) & (arrive_s < 68.0)
    slices = over_time(arrive_s, arrive_s, np.zeros(len(arrive_s)), down, arrive_s, 660.0, shortest_s=8.0)
    assert np.diff(slices.edges_s)[0] <= 4.0
    assert slices.error_share.max() == 1.0


@given(st.lists(st.floats(0.0, 100.0), min_size=1, max_size=300))
def test_the_tail_is_the_share_above(values):
    curve = tail(np.array(values))
    assert curve.x[-1] == max(values)
    assert curve.share[-1] == 0
    for x, share in zip(curve.x, curve.share, strict=True):
        assert share == pytest.approx(np.mean(np.array(values) > x))


def test_many_requests_make_a_small_picture():
    latency_s = np.random.default_rng(1).lognormal(0.0, 0.7, 400_000)
    assert len(tail(latency_s).x) <= 400
    svg = latency_distribution(latency_s, [Target(3.0, 0.05)])
    assert len(svg) < 100_000
    assert "≤ 5 % over 3 s" in svg


@pytest.mark.parametrize("latency_s", [[0.0], [0.0, 0.0, 0.0], [2.5] * 50, [0.0, 1e-6, 1e5]])
def test_odd_latencies_can_be_drawn(latency_s):
    targets = [Target(1.0, 0.01), Target(1e-3, None)]
    assert latency_distribution(np.array(latency_s), targets).startswith("<svg")
