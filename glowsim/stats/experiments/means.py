"""Two means compared at one look: Welch's test, and the covariate that makes it sharper."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glowsim.stats.experiments.comparison import Better, Comparison, check_alpha, decide
from glowsim.stats.experiments.moments import Moments

__all__ = ["Adjusted", "cuped", "welch"]


def welch(
    a: Moments, b: Moments, *, alpha: float = 0.05, better: Better = "higher", matters: float = 0.0
) -> Comparison:
    """Compare two means whose spreads may differ, at one look at a size that was fixed beforehand.

    Parameters
    ----------
    a, b
        Moments of the arms, over independent units, at least two in each.
    alpha, better, matters
        See `decide`.

    Raises
    ------
    ValueError
        An arm has fewer than two units, or neither arm varies.

    Source: Welch, "The generalization of Student's problem when several different population variances are involved",
    Biometrika 34, 1947.

    >>> found = welch(Moments.of([1, 2, 3, 4, 5]), Moments.of([3, 4, 5, 6, 7]), alpha=0.10)
    >>> round(found.p, 4), found.winner
    (0.0805, 'b')
    """
    from scipy.special import stdtr, stdtrit

    check_alpha(alpha)
    for name, arm in (("a", a), ("b", b)):
        if arm.n < 2:
            raise ValueError(f"arm {name} has {arm.n} units: a spread needs at least 2")
    part_a, part_b = a.variance / a.n, b.variance / b.n
    error2 = part_a + part_b
    if error2 <= 0.0:
        raise ValueError(
            f"no unit differs from another in its arm ({a.mean:g} and {b.mean:g}): nothing to test"
        )
    freedom = error2**2 / (part_a**2 / (a.n - 1) + part_b**2 / (b.n - 1))
    difference, error = b.mean - a.mean, math.sqrt(error2)
    p = float(2.0 * stdtr(freedom, -abs(difference) / error))
    reach = float(stdtrit(freedom, 1.0 - alpha / 2.0)) * error
    interval = (difference, difference - reach, difference + reach)
    return decide(
        "welch", (a.mean, a.n), (b.mean, b.n), interval, p=p, alpha=alpha, better=better, matters=matters
    )


class Adjusted(NamedTuple):
    """Values less what a covariate explains."""

    values: NDArray[np.float64]
    slope: float
    """Units of the metric per unit of the covariate."""
    removed: float
    """Part of the variance that is gone, 0 to 1."""


def cuped(values: ArrayLike, covariate: ArrayLike) -> Adjusted:
    """Take from a metric what was known of each unit before the experiment.

    The mean stays as it is, the spread falls by the squared correlation. One slope for both arms together: hand in the
    units of both, and split what comes back. The covariate must be measured before assignment; one that the treatment
    can move takes away what is to be measured.

    Parameters
    ----------
    values, covariate
        The metric and the covariate of each unit, shape (n,), n >= 2, finite.

    Raises
    ------
    ValueError
        Shapes that differ, or a number that is not finite.

    Source: Deng, Xu, Kohavi & Walker, "Improving the sensitivity of online controlled experiments by utilizing
    pre-experiment data", WSDM 2013.

    >>> adjusted = cuped([1.0, 2.0, 3.0], [10.0, 20.0, 30.0])
    >>> adjusted.values.tolist(), adjusted.slope
    ([2.0, 2.0, 2.0], 0.1)
    """
    y, x = np.asarray(values, dtype=np.float64), np.asarray(covariate, dtype=np.float64)
    if y.ndim != 1 or y.shape != x.shape or y.size < 2:
        raise ValueError(
            f"values of shape {y.shape}, covariate of {x.shape}: give one of each for each unit, 2 or more"
        )
    if not (np.all(np.isfinite(y)) and np.all(np.isfinite(x))):
        raise ValueError("a value or covariate is not finite: leave its unit out, or find the cause")
    centred = x - x.mean()
    spread = float(centred @ centred)
    if spread == 0.0:
        return Adjusted(y.copy(), 0.0, 0.0)
    slope = float(centred @ (y - y.mean())) / spread
    adjusted = y - slope * centred
    total = float(np.square(y - y.mean()).sum())
    removed = 1.0 - float(np.square(adjusted - adjusted.mean()).sum()) / total if total else 0.0
    return Adjusted(adjusted, slope, max(0.0, removed))
