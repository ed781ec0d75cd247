"""How much two variants differ on the same tasks, with an interval: of shares, and of scores, costs and times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import wilcoxon

from glowsim.stats.intervals import Interval, t_interval

__all__ = ["Shift", "shift", "tango"]


class Shift(NamedTuple):
    """A paired difference of a quantity, variant minus baseline, in its own unit."""

    mean: Interval
    """With its t interval."""
    p_value: float
    """Of the Wilcoxon signed-rank test, two-sided: 1 where nothing differs."""


def shift(baseline: Sequence[float], variant: Sequence[float], confidence: float = 0.95) -> Shift:
    """Return how much a score, cost or time of the variant differs from the baseline's, task by task.

    The t interval is about the mean, which is what a bill adds up; the signed ranks do not mind a few huge values.

    Parameters
    ----------
    baseline, variant
        Shape (tasks,) each, at least one, in one order of tasks; finite.
    confidence
        Of the interval, 0 to 1.

    Raises
    ------
    ValueError
        They differ in length, are empty or not finite.

    >>> found = shift([1.0, 2.0, 3.0], [1.5, 2.4, 3.6])
    >>> round(found.mean.mean, 2), found.p_value
    (0.5, 0.25)

    Source: Wilcoxon (1945), Biometrics Bulletin 1.
    """
    if len(baseline) != len(variant):
        raise ValueError(
            f"{len(baseline)} values of the baseline and {len(variant)} of the variant: pair them"
        )
    differences = np.subtract(variant, baseline)
    mean = t_interval(differences, confidence)
    return Shift(mean, float(wilcoxon(differences).pvalue) if np.any(differences) else 1.0)


def tango(lost: int, won: int, pairs: int, confidence: float = 0.95) -> Interval:
    """Return the difference in the share of failures, variant minus baseline, with Tango's score interval.

    It keeps its coverage where few pairs differ, or none. The variant is not worse by a margin, at level alpha, where
    the upper end at confidence 1 - 2 * alpha is below the margin.

    Parameters
    ----------
    lost, won
        Pairs in which only the variant, and only the baseline, failed.
    pairs
        All of them, at least 1.
    confidence
        Two-sided, above 0 and below 1.

    Raises
    ------
    ValueError
        A number is out of its bounds.

    >>> found = tango(1, 0, 44)
    >>> round(found.mean, 4), round(found.low, 4), round(found.high, 4)
    (0.0227, -0.0594, 0.1181)

    Source: Tango (1998), Statistics in Medicine 17:891-908.
    """
    if lost < 0 or won < 0 or lost + won > pairs or pairs < 1:
        raise ValueError(
            f"{lost} pairs lost and {won} won of {pairs}: they are disjoint, and there is at least one"
        )
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be above 0 and below 1, got {confidence}")
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    observed = (lost - won) / pairs

    def low_by(delta: float) -> float:
        return _score(lost, won, pairs, delta) - z

    def high_by(delta: float) -> float:
        return _score(lost, won, pairs, delta) + z

    edge = 1.0 - 1e-12
    low = -1.0 if won == pairs else brentq(low_by, -edge, observed, xtol=1e-12)
    high = 1.0 if lost == pairs else brentq(high_by, observed, edge, xtol=1e-12)
    return Interval(observed, float(low), float(high), pairs)


def _score(lost: int, won: int, pairs: int, delta: float) -> float:
    """Return how many standard errors what was observed lies above a true difference of delta."""
    a = 2.0 * pairs
    b = -lost - won + (2.0 * pairs - lost + won) * delta
    c = -won * delta * (1.0 - delta)
    won_share = (math.sqrt(max(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)
    variance = pairs * (2.0 * won_share + delta * (1.0 - delta))
    above = lost - won - pairs * delta
    if variance <= 0.0:
        return math.copysign(math.inf, above) if above else 0.0
    return above / math.sqrt(variance)
