"""Outages: how often, how long, how they cluster, and what share of the calls a moment costs."""

from __future__ import annotations

from itertools import pairwise
from math import exp, inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowsim.core.errors import WorldError
from glowsim.core.streams import Stream
from glowsim.presets.hosted import incidents
from glowsim.sim.serving.outages import Gaps, Outage, Repairs, Timetable, outages

YEAR_S = 365 * 86400.0


def test_incidents_of_a_provider_come_back_from_a_long_run() -> None:
    """40,000 drawn incidents: mean gap 85.7 h with a coefficient of variation of 1.6, median repair 78 min."""
    law = incidents("openai")
    gaps = Gaps(law.weibull_shape, law.mean_between_starts_s)
    found = outages(Stream(7), 400 * YEAR_S, gaps, Repairs(law.repair_median_s, law.repair_sigma), law.share)
    between = np.diff([outage.at_s for outage in found])
    lasts = np.array([outage.lasts_s for outage in found])
    assert len(found) == pytest.approx(400 * YEAR_S / law.mean_between_starts_s, rel=0.03)
    assert between.mean() == pytest.approx(85.7 * 3600, rel=0.03)
    assert between.std() / between.mean() == pytest.approx(1.61, rel=0.04)
    assert np.median(lasts) == pytest.approx(exp(4.36) * 60, rel=0.03)
    assert np.log(lasts).std() == pytest.approx(1.19, rel=0.02)
    assert {outage.share for outage in found} == {law.share}


def test_the_first_comes_as_if_they_had_gone_on_for_ever() -> None:
    """From a moment that nobody chose the next start is E[gap^2] / (2 E[gap]) away, not half a mean gap."""
    for shape, factor in ((0.64, 1.80), (1.0, 1.0), (3.0, 0.566)):
        gaps = Gaps(shape, 100.0)
        stream = Stream(3)
        waits = [gaps.until_first_s(stream.uniform(), stream.uniform()) for _ in range(20_000)]
        assert np.mean(waits) == pytest.approx(100.0 * factor, rel=0.04)


def test_in_any_stretch_there_are_as_many_as_in_any_other() -> None:
    """Stationary: the first of three stretches has a third of them, within 4 standard errors."""
    gaps, repairs = Gaps(0.64, 1000.0), Repairs(1.0, 0.0)
    counts = np.zeros(3)
    for seed in range(400):
        for outage in outages(Stream(seed), 3000.0, gaps, repairs, 1.0):
            counts[int(outage.at_s // 1000.0)] += 1
    assert counts / 400 == pytest.approx([1.0, 1.0, 1.0], abs=0.3)
    assert counts.sum() / 1200 == pytest.approx(1.0, abs=0.1)


def test_longer_runs_only_add_to_shorter_ones() -> None:
    gaps, repairs = Gaps(0.63, 3e5), Repairs(3000.0, 1.5)
    short, long = (outages(Stream(5), until_s, gaps, repairs, 0.5) for until_s in (1e7, 2e7))
    assert long[: len(short)] == short
    assert len(long) > len(short)
    assert all(a.at_s <= b.at_s for a, b in pairwise(long))


@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 20), st.floats(0, 1)), max_size=8), st.floats(-5, 90)
)
def test_a_moment_costs_what_the_worst_outage_of_it_costs(
    rows: list[tuple[float, float, float]], t_s: float
) -> None:
    found = [Outage(*row) for row in rows]
    expected = max((each.share for each in found if each.at_s <= t_s < each.at_s + each.lasts_s), default=0.0)
    assert Timetable(found).share(t_s) == expected


def test_every_end_and_start_is_a_change() -> None:
    timetable = Timetable([Outage(20.0, 5.0, 0.5), Outage(0.0, 10.0, 1.0)])
    assert [timetable.share(t_s) for t_s in (0.0, 9.99, 10.0, 19.99, 20.0, 25.0)] == [
        1.0,
        1.0,
        0.0,
        0.0,
        0.5,
        0.0,
    ]


@pytest.mark.parametrize(("until_s", "share"), [(-1.0, 0.5), (inf, 0.5), (1.0, 1.5), (1.0, -0.1)])
def test_what_cannot_be_is_refused(until_s: float, share: float) -> None:
    with pytest.raises(WorldError, match="give a time, and a share of 0 to 1"):
        outages(Stream(1), until_s, Gaps(1.0, 1.0), Repairs(1.0, 1.0), share)


def test_laws_that_cannot_be_are_refused() -> None:
    for make in (
        lambda: Gaps(0.0, 1.0),
        lambda: Gaps(1.0, 0.0),
        lambda: Repairs(0.0, 1.0),
        lambda: Repairs(1.0, -1.0),
    ):
        with pytest.raises(WorldError, match="cannot be: give"):
            make()
