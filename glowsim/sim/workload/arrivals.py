"""Moments of arrival, drawn ahead in blocks.

A Poisson process whose rate changes is a unit-rate one seen through its own clock: the moment at which the
expected number so far reaches the unit process's next point. One sequence of exponentials serves every
rate function, so two rates under the same seed stay paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, fsum, pi

import numpy as np
import numpy.typing as npt

__all__ = ["bursts", "diurnal", "inhomogeneous", "piecewise", "poisson", "weekly"]

Array = npt.NDArray[np.float64]
_BLOCK = 4096
_HOUR_S = 3600.0


def poisson(rate_per_s: float, generator: np.random.Generator) -> Iterator[Array]:
    """Yield blocks of moments of a Poisson process.

    >>> blocks = poisson(100.0, np.random.default_rng(1))
    >>> float(next(blocks)[-1]) < 60.0
    True
    """
    last_s = 0.0
    while True:
        block: Array = last_s + np.cumsum(generator.standard_exponential(_BLOCK)) / rate_per_s
        last_s = block[-1]
        yield block


def inhomogeneous(times_s: Array, expected: Array, generator: np.random.Generator) -> Iterator[Array]:
    """Yield blocks of moments of a Poisson process with a given expected number of arrivals by each time.

    Parameters
    ----------
    times_s
        Increasing times, the first 0.
    expected
        Expected number of arrivals by each of them, not decreasing, the first 0; straight in between.
    generator
        Draws the unit process.
    """
    last = 0.0
    while True:
        points = last + np.cumsum(generator.standard_exponential(_BLOCK))
        last = points[-1]
        inside = points[points <= expected[-1]]
        if len(inside):
            yield np.interp(inside, expected, times_s)
        if len(inside) < _BLOCK:
            return


def piecewise(steps: list[tuple[float, float]], until_s: float) -> tuple[Array, Array]:
    """Return (times, expected number) of a rate that changes in steps of (from_s, rate_per_s).

    >>> piecewise([(0.0, 10.0), (60.0, 0.0)], 100.0)[1]
    array([  0., 600., 600.])
    """
    times = np.array([at_s for at_s, _ in steps if at_s < until_s] + [until_s])
    rates = np.array([rate for at_s, rate in steps if at_s < until_s])
    return times, np.concatenate([[0.0], np.cumsum(rates * np.diff(times))])


def diurnal(
    mean_per_s: float, amplitude: float, period_s: float, peak_at_s: float, until_s: float
) -> tuple[Array, Array]:
    """Return (times, expected number) of a rate mean (1 + amplitude cos(2 pi (t - peak) / period))."""
    times = np.linspace(0.0, until_s, max(1000, int(1000 * until_s / period_s)) + 1)
    turn = 2 * pi / period_s
    waves = np.sin(turn * (times - peak_at_s)) - np.sin(-turn * peak_at_s)
    return times, mean_per_s * (times + amplitude / turn * waves)


def bursts(
    base_per_s: float, burst_per_s: float, every_s: float, lasts_s: float, until_s: float
) -> list[tuple[float, float]]:
    """Return the steps of a base rate with a burst at the end of every period.

    >>> bursts(1.0, 9.0, 100.0, 10.0, 150.0)
    [(0.0, 1.0), (90.0, 9.0), (100.0, 1.0)]
    """
    steps: list[tuple[float, float]] = []
    start_s = 0.0
    while start_s < until_s:
        steps += [(start_s, base_per_s), (start_s + every_s - lasts_s, burst_per_s)]
        start_s += every_s
    return [step for step in steps if step[0] < until_s]


def weekly(
    mean_per_s: float, hours: Sequence[float], days: Sequence[float], until_s: float
) -> list[tuple[float, float]]:
    """Return the steps of a rate in proportion to hours[hour of the day] * days[day of the week].

    Parameters
    ----------
    mean_per_s
        Over a whole week.
    hours, days
        24 weights from midnight on and 7 from Monday on, 0 or more, not all 0; the first step is Monday's midnight.
    until_s
        No step begins then or later.

    >>> weekly(1.0, [0.0] * 12 + [1.0] * 12, [1.0] * 7, 86_400.0)[11:13]
    [(39600.0, 0.0), (43200.0, 2.0)]
    """
    unit_per_s = mean_per_s * len(hours) * len(days) / (fsum(hours) * fsum(days))
    return [
        (hour * _HOUR_S, unit_per_s * hours[hour % 24] * days[hour // 24 % 7])
        for hour in range(ceil(until_s / _HOUR_S))
    ]
