"""The Mann-Whitney test as Kayenta's judge uses it: an interval for the shift between two samples.

The statistic is the normal approximation with a correction for ties and for continuity, without exact small-sample
tables; the interval and the estimate are where it crosses a quantile and 0 as one sample is shifted against the other.
Kayenta searches that point to 1e-4, so that with many equal values, whose shift is exactly 0, its comparisons of such
bounds hang on the search; here the point is exact.
Source: ``MannWhitney.scala`` of spinnaker/kayenta, after ``wilcox.test`` of R (asymptotic, two samples); Hodges and
Lehmann (1963), Annals of Mathematical Statistics 34.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from scipy.stats import norm

from glowsim.oc.rules import Bools, Floats

__all__ = ["ShiftInterval", "deviate", "deviates", "separated", "shift_interval"]

_PRECISION: Final = 1e-9
"""Width at which the search stops, as a part of the range of the differences."""


class ShiftInterval(NamedTuple):
    """By how much the first sample lies above the second: the bounds of an interval, and an estimate."""

    low: float
    high: float
    estimate: float


def deviate(x: Floats, y: Floats, shift: float = 0.0) -> float:
    """Return how far ``x - shift`` lies above ``y``, in standard deviations of the rank sum; 0 if all are tied.

    Args:
        x: a sample, shape (n,), n >= 1, finite.
        y: another, shape (m,), m >= 1, finite.
        shift: taken from each of ``x``.

    >>> round(deviate(np.array([10.0, 20.0, 30.0, 40.0]), np.array([1.0, 2.0, 3.0, 4.0])), 4)
    2.1651
    """
    moved, other = x - shift, np.sort(y)
    below, up_to = np.searchsorted(other, moved, "left"), np.searchsorted(other, moved, "right")
    n, m = len(x), len(y)
    distance = float((below + up_to).sum()) / 2.0 - n * m / 2.0
    ties = np.unique(np.concatenate([moved, other]), return_counts=True)[1].astype(np.float64)
    return _standardised(distance, float(n), float(m), float((ties**3 - ties).sum()))


def _standardised(distance: float, n: float, m: float, ties: float) -> float:
    total = n + m
    variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0))) if total > 1 else 0.0
    if variance <= 0.0:
        return 0.0
    return float((distance - 0.5 * np.sign(distance)) / np.sqrt(variance))


def shift_interval(x: Floats, y: Floats, confidence: float) -> ShiftInterval:
    """Return the interval for the shift of ``x`` against ``y``.

    Where the samples are too small for the statistic to reach the quantile, the interval ends at the least or the
    greatest difference that there is: two samples that do not overlap then differ, however few.

    Args:
        x: a sample, shape (n,), n >= 1, finite.
        y: another, shape (m,), m >= 1, finite; not all of ``x`` and ``y`` equal.
        confidence: of the interval, above 0 and below 1.

    >>> found = shift_interval(np.array([10.0, 20.0, 30.0, 40.0]), np.array([1.0, 2.0, 3.0, 4.0]), 0.95)
    >>> [round(each, 6) for each in found]
    [6.0, 39.0, 22.5]
    """
    quantile = float(norm.ppf(0.5 + confidence / 2.0))
    return ShiftInterval(_crossing(x, y, quantile), _crossing(x, y, -quantile), _crossing(x, y, 0.0))


def _crossing(x: Floats, y: Floats, quantile: float) -> float:
    """Return the shift at which the falling statistic crosses the quantile."""
    least, greatest = float(x.min() - y.max()), float(x.max() - y.min())
    if deviate(x, y, least) <= quantile:
        return least
    if deviate(x, y, greatest) >= quantile:
        return greatest
    width = _PRECISION * (greatest - least)
    while greatest - least > width:
        middle = (least + greatest) / 2.0
        found = deviate(x, y, middle)
        if found == quantile:
            return middle
        least, greatest = (middle, greatest) if found > quantile else (least, middle)
    return _difference_between(x, np.sort(y), least, greatest)


def _difference_between(x: Floats, y: Floats, least: float, greatest: float) -> float:
    """Return the difference of two values that lies there: the statistic falls nowhere else.

    Shares of few requests are often equal, 0 above all: the shift is then 0 and nothing beside it, and has to be told
    from the smallest number above it.
    """
    first = np.searchsorted(y, x - greatest, "left")
    inside = first < np.searchsorted(y, x - least, "right")
    differences = x[inside] - y[first[inside]]
    middle = (least + greatest) / 2.0
    return float(min(differences, key=abs)) if len(differences) else middle


def deviates(x: Floats, y: Floats) -> Floats:
    """Return ``deviate`` without a shift for many pairs of samples at once; NaN in a sample is no value of it.

    Args:
        x: samples, shape (n, pairs).
        y: samples, shape (m, pairs).
    """
    pooled = np.concatenate([x, y]).T
    order = np.argsort(pooled, axis=1)
    ranked = np.take_along_axis(pooled, order, axis=1)
    place = np.arange(pooled.shape[1])
    begins = np.ones(ranked.shape, np.bool_)
    begins[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    ends = np.ones(ranked.shape, np.bool_)
    ends[:, :-1] = begins[:, 1:]
    first = np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    last = np.minimum.accumulate(np.where(ends, place, len(place))[:, ::-1], axis=1)[:, ::-1]
    here = ~np.isnan(ranked)
    of_x = here & (order < len(x))
    rank_sum = np.where(of_x, (first + last) / 2.0 + 1.0, 0.0).sum(axis=1)
    ties = np.where(here, (last - first + 1.0) ** 2 - 1.0, 0.0).sum(axis=1)
    n = of_x.sum(axis=1).astype(np.float64)
    m = here.sum(axis=1) - n
    total = n + m
    distance = rank_sum - n * (n + 1.0) / 2.0 - n * m / 2.0
    lost = np.divide(ties, total * (total - 1.0), out=np.zeros_like(ties), where=total > 1)
    deviation = np.sqrt(np.maximum(n * m / 12.0 * (total + 1.0 - lost), 0.0))
    corrected = distance - 0.5 * np.sign(distance)
    found: Floats = np.divide(corrected, deviation, out=np.zeros_like(distance), where=deviation > 0)
    return found


def separated(x: Floats, y: Floats) -> tuple[Bools, Bools]:
    """Return in which pairs all of ``x`` lie above ``y``, and in which below; shapes as for ``deviates``."""
    least = [np.where(np.isnan(each), np.inf, each).min(axis=0) for each in (x, y)]
    most = [np.where(np.isnan(each), -np.inf, each).max(axis=0) for each in (x, y)]
    above: Bools = least[0] > most[1]
    below: Bools = least[1] > most[0]
    return above, below
