"""Arrivals follow their rates, laws their distributions, and users begin in the middle of things."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from glowsim import build, results
from glowsim.core.streams import Streams
from glowsim.scenario import Scenario
from glowsim.scenario.workload import WeeklyArrivals
from glowsim.sim import laws
from glowsim.sim.service import TimeService
from glowsim.sim.workload import arrivals
from glowsim.sim.workload.columns import AgentTraits, Cacheable, Columns, Shape

U = (np.arange(200_000) + 0.5) / 200_000


def moments(curve: tuple[Any, Any], seed: int = 1) -> Any:
    blocks = list(arrivals.inhomogeneous(*curve, np.random.default_rng(seed)))
    return np.concatenate(blocks)


@pytest.mark.parametrize(
    ("law", "reference"),
    [
        (laws.Exponential(2.0), stats.expon(scale=2.0)),
        (laws.LogNormal(3.0, 0.7), stats.lognorm(0.7, scale=3.0)),
        (laws.Gamma(2.0, 0.5), stats.gamma(4.0, scale=0.5)),
        (laws.Uniform(1.0, 5.0), stats.uniform(1.0, 4.0)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_law_is_its_textbook_quantile_function(law: laws.Law, reference: Any) -> None:
    np.testing.assert_allclose(law.ppf(U[::1000]), reference.ppf(U[::1000]), rtol=1e-9)
    assert law.ppf(np.array([0.0]))[0] >= 0.0, "zero is a number that a generator may draw"


def test_clipping_moves_what_lies_beyond_to_the_edge() -> None:
    values = laws.Clipped(laws.Exponential(1.0), low=0.5, high=2.0).ppf(U)
    assert (values.min(), values.max()) == (0.5, 2.0)
    assert np.mean(values == 2.0) == pytest.approx(np.exp(-2.0), abs=1e-4)


def test_the_rate_changes_where_it_is_said_to() -> None:
    """Counts in each step within 4.5 standard deviations: a false alarm in 100,000 seeds."""
    times = moments(arrivals.piecewise([(0.0, 100.0), (50.0, 0.0), (60.0, 400.0)], 100.0))
    for start, end, expected in ((0, 50, 5000), (50, 60, 0), (60, 100, 16000)):
        count = ((times >= start) & (times < end)).sum()
        assert abs(count - expected) <= 4.5 * np.sqrt(expected)
    assert np.all(np.diff(times) >= 0)


def test_a_week_has_its_hours_and_its_days_and_its_mean() -> None:
    hours = [0.0] * 8 + [1.0] * 4 + [0.5] + [2.0] * 5 + [0.0] * 6
    days = [1.0, 1.0, 1.0, 1.0, 0.5, 0.1, 0.1]
    week, day, weeks = 7 * 86_400.0, 86_400.0, 4
    times = moments(arrivals.piecewise(arrivals.weekly(0.1, hours, days, weeks * week), weeks * week))
    total = 0.1 * weeks * week
    assert abs(len(times) - total) <= 4.5 * np.sqrt(total)
    for begun_s, weights in ((times % week // day, days), (times % day // 3600, hours)):
        found = np.bincount(begun_s.astype(int), minlength=len(weights))
        expected = total * np.array(weights) / sum(weights)
        assert np.all(abs(found - expected) <= 4.5 * np.sqrt(expected))


def test_a_week_that_is_cut_short_keeps_the_rates_of_its_days() -> None:
    days = [1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]
    steps = arrivals.weekly(1.0, [1.0] * 24, days, 86_400.0 + 1.0)
    assert len(steps) == 25
    assert {rate for _, rate in steps} == {1.4}, "five days do the work of seven"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hours": [0] * 24}, "must not all be 0"),
        ({"days": [1] * 6}, "at least 7"),
        ({"mean": "0/d"}, "above 0"),
    ],
)
def test_a_week_needs_all_its_hours_and_somebody_who_comes(change: dict[str, Any], said: str) -> None:
    written = {"kind": "weekly", "mean": "9/d", "hours": [1] * 24, "days": [1] * 7}
    assert WeeklyArrivals.model_validate(written).mean_per_s == 9 / 86_400
    with pytest.raises(ValueError, match=said):
        WeeklyArrivals.model_validate(written | change)


def test_a_day_has_its_peak_at_its_hour_and_its_mean() -> None:
    day = 86_400.0
    times = moments(arrivals.diurnal(1.0, 0.8, day, 14 * 3600.0, 5 * day))
    assert abs(len(times) - 5 * day) <= 4.5 * np.sqrt(5 * day)
    by_hour = np.bincount((times % day // 3600).astype(int), minlength=24)
    assert by_hour.argmax() in (13, 14)
    assert by_hour.argmin() in (1, 2)
    assert by_hour.max() / by_hour.min() == pytest.approx(1.8 / 0.2, rel=0.15)


def test_a_process_seen_through_its_own_clock_is_poisson() -> None:
    curve = arrivals.piecewise([(0.0, 50.0), (30.0, 300.0)], 60.0)
    through = np.interp(moments(curve, seed=4), *curve)
    assert stats.kstest(np.diff(through), "expon").pvalue > 1e-4


def test_two_rates_under_one_seed_stay_paired() -> None:
    slow = moments(arrivals.piecewise([(0.0, 10.0)], 100.0))
    fast = moments(arrivals.piecewise([(0.0, 20.0)], 100.0))
    np.testing.assert_allclose(slow, 2 * fast[: len(slow)])


def test_users_do_not_all_arrive_at_once() -> None:
    """A thousand users with an exponential think time of 10 s send 100/s from the first second on."""
    scenario = Scenario.model_validate(
        {
            "title": "closed", "question": "Is the start stationary?", "seed": 1, "duration": "10s",
            "models": {"m": {"input": "$1/1M", "output": "$1/1M"}},
            "fleet": [{"agent": "a", "model": "m", "instances": 1, "concurrency": 1000,
                       "service": {"law": "time", "time": "1ms"}}],
            "workload": [{"kind": "closed", "users": 1000, "think": {"law": "exponential", "mean": "10s"},
                          "tokens_in": 1, "tokens_out": 1}],
        }
    )  # fmt: skip
    built = build.replication(scenario, 0)
    built.world.start()
    built.world.run(20.0)
    arrived = results.fold(built.journal.recording(), scenario).requests["t_arrive_s"]
    each_second = np.bincount(arrived.astype(int), minlength=10)[:10]
    assert np.all(np.abs(each_second - 100) <= 4.5 * 10), each_second


@pytest.mark.parametrize(
    "law",
    [
        laws.Constant(3.0), laws.Exponential(2.0), laws.LogNormal(5.0, 1.2), laws.Gamma(2.0, 0.7),
        laws.Uniform(1.0, 4.0), laws.Quantiles((0.0, 0.3, 0.9, 1.0), (1.0, 1.0, 7.0, 30.0)),
        laws.Clipped(laws.Exponential(2.0), 1.0, 3.0),
    ],
    ids=lambda law: type(law).__name__,
)  # fmt: skip
def test_one_number_at_a_time_is_the_column(law):
    u = np.concatenate([[0.0, 0.3, 0.9], np.linspace(0.0005, 0.9995, 400)])
    assert [laws.at(law)(each) for each in u] == pytest.approx(law.ppf(u).tolist(), rel=1e-12, abs=1e-12)


def drawn(*means, cacheable=None):
    """Return two blocks of rows for agents whose times of service have these means."""
    traits = [AgentTraits(TimeService(laws.Exponential(mean)), i % 2, False) for i, mean in enumerate(means)]
    shape = Shape(
        tuple(range(len(means))),
        (1.0,) * len(means),
        laws.Uniform(1, 2000),
        laws.Constant(40),
        99,
        cacheable=cacheable,
    )
    columns = Columns("0", shape, traits, Streams(3))
    blocks = [columns.rows(range(first, first + 500), [0.0] * 500) for first in (1, 501)]
    return [row for requests, truths in blocks for row in zip(requests, truths, strict=True)]


def test_the_weight_of_a_request_is_its_agents_whether_or_not_others_have_the_same_law() -> None:
    alike, apart = drawn(2.0, 2.0, 2.0), drawn(2.0, 7.0, 2.0)
    for (request, truth), (same, other) in zip(alike, apart, strict=True):
        assert same == request
        assert request.region == request.agent % 2
        factor = 3.5 if request.agent == 1 else 1.0
        assert other.weight == pytest.approx(truth.weight * factor, rel=1e-12)


def test_requests_that_repeat_a_prompt_share_its_key_and_tokens_and_the_rest_are_as_they_were() -> None:
    plain, some = drawn(1.0), drawn(1.0, cacheable=Cacheable(0.4, 20, 1.0))
    prompts: dict[int, int] = {}
    repeats = 0
    for (before, _), (request, _) in zip(plain, some, strict=True):
        if request.cache_key:
            repeats += 1
            assert prompts.setdefault(request.cache_key, request.tokens_in) == request.tokens_in
        else:
            assert request == before
    assert len(prompts) <= 20
    assert abs(repeats - 400) <= 4.5 * np.sqrt(1000 * 0.4 * 0.6)
