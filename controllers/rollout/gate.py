"""The last gate: is the variant no worse than the baseline by a margin, over strata?"""

from __future__ import annotations

from math import fsum, inf, sqrt
from typing import NamedTuple

__all__ = ["Terms", "stratum", "upper_bound"]


class Terms(NamedTuple):
    """What a stratum adds to the difference (``up``, ``down``) and to its variance (``tilt``, ``noise``)."""

    up: float = 0.0
    down: float = 0.0
    tilt: float = 0.0
    noise: float = 0.0

    def plus(self, other: Terms) -> Terms:
        """Return both together."""
        return Terms(*(fsum(pair) for pair in zip(self, other, strict=True)))


def stratum(canary: int, canary_bad: int, baseline: int, baseline_bad: int) -> Terms:
    """Return the terms of one stratum, in which both had their requests at the same time and weight.

    Args:
        canary: requests of the canary.
        canary_bad: of these, with a bad outcome.
        baseline: requests of the baseline.
        baseline_bad: of these, with a bad outcome.

    >>> stratum(0, 0, 100, 5)  # nothing to compare
    Terms(up=0.0, down=0.0, tilt=0.0, noise=0.0)
    """
    if not canary or not baseline:
        return Terms()
    total = canary + baseline
    mine, theirs = canary / total, baseline / total
    return Terms(
        up=canary_bad * theirs - baseline_bad * mine,
        down=canary * theirs,
        tilt=baseline_bad * mine**2 - canary_bad * theirs**2 + canary * theirs * (theirs - mine) / 2.0,
        noise=(canary_bad * (1.0 - baseline_bad / baseline) * theirs
               + baseline_bad * (1.0 - canary_bad / canary) * mine) / 2.0,
    )  # fmt: skip


def upper_bound(terms: Terms, z: float, extra_variance: float = 0.0) -> float:
    """Return the upper confidence bound of the difference of risks, canary less baseline; inf without data.

    The difference is that of Mantel and Haenszel, which compares within strata only: changing weights and a daily
    rhythm do not bias it. Its variance is Sato's, good for few large strata and for many small ones.

    Args:
        terms: the strata's, added up.
        z: quantile of the normal distribution, 1.96 for 2.5 % on one side.
        extra_variance: what few units add to it.

    References:
        Sato, "On the variance estimator for the Mantel-Haenszel risk difference", Biometrics 45, 1989; Greenland &
        Robins, "Estimation of a common effect parameter from sparse follow-up data", Biometrics 41, 1985.

    >>> round(upper_bound(stratum(1000, 50, 1000, 50), z=1.96), 4)
    0.0191
    """
    if terms.down <= 0.0:
        return inf
    difference = terms.up / terms.down
    variance = (difference * terms.tilt + terms.noise) / terms.down**2
    return difference + z * sqrt(max(variance, 0.0) + extra_variance)
