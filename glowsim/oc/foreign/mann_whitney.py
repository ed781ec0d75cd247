"""The Mann-Whitney test as Kayenta's judge uses it: an interval for the shift between two samples.

The statistic is the normal approximation with a correction for ties and for continuity, without exact small-sample
tables; the interval and the estimate are where it crosses a quantile and 0 as one sample is shifted against the other.
Kayenta searches that point to 1e-4, so that with many equal values, whose shift is exactly 0, its comparisons of such
bounds hang on the search; here the point is exact.
Source: ``MannWhitney.scala`` of spinnaker/kayenta, after ``wilcox.test`` of R (asymptotic, two samples); Hodges and
Lehmann (1963), Annals of Mathematical Statistics 34.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from glowsim.oc.rules import Bools, Floats

__all__ = ["deviate", "deviates", "separated", "shift_at"]

_PRECISION: Final = 1e-7
"""Width at which the search stops, as a part of the range of the differences."""


def deviate(x: Floats, y: Floats, shift: float = 0.0) -> float:
    """Return how far ``x - shift`` lies above ``y``, in standard deviations of the rank sum; 0 if all are tied.

    Args:
        x: a sample, shape (n,), n >= 1, finite.
        y: another, shape (m,), m >= 1, finite.
        shift: taken from each of ``x``.

    >>> round(deviate(np.array([10.0, 20.0, 30.0, 40.0]), np.array([1.0, 2.0, 3.0, 4.0])), 4)
    2.1651
    """
    n, m = len(x), len(y)
    pooled = np.concatenate([x - shift, y])
    order = np.argsort(pooled, kind="stable")
    ranked = pooled[order]
    begins = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    ties = np.diff(np.append(begins, n + m))
    rank_of_group = begins + (ties + 1) / 2.0
    rank_sum = float(np.repeat(rank_of_group, ties)[order < n].sum())
    return _standardised(rank_sum - n * (n + m + 1) / 2.0, n, m, float((ties**3 - ties).sum()))


def _standardised(distance: float, n: int, m: int, ties: float) -> float:
    total = n + m
    variance = n * m / 12.0 * (total + 1.0 - ties / (total * (total - 1.0))) if total > 1 else 0.0
    if variance <= 0.0:
        return 0.0
    return float((distance - 0.5 * np.sign(distance)) / np.sqrt(variance))


def shift_at(x: Floats, y: Floats, quantile: float) -> float:
    """Return the shift of ``x`` at which its deviation from ``y``, falling with the shift, crosses a quantile.

    At the normal quantiles of a confidence that is the lower and the upper bound of an interval for how far ``x`` lies
    above ``y``, at 0 an estimate of it. Where the samples are too small for the deviation to reach the quantile, it is
    the least or the greatest difference that there is: two samples that do not overlap then differ, however few.

    Args:
        x: a sample, shape (n,), n >= 1, finite.
        y: another, shape (m,), m >= 1, finite; not all of ``x`` and ``y`` equal.
        quantile: the deviation.

    >>> x, y = np.array([10.0, 20.0, 30.0, 40.0]), np.array([1.0, 2.0, 3.0, 4.0])
    >>> [round(shift_at(x, y, quantile), 6) for quantile in (1.96, 0.0, -1.96)]
    [6.0, 22.5, 39.0]
    """
    x, y = np.sort(x), np.sort(y)
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
    return _difference_between(x, y, least, greatest)


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
