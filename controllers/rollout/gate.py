"""The last gate: whether the variant is no worse than the baseline by a margin, over strata."""

from __future__ import annotations

from math import fsum, inf, sqrt
from typing import Final, TypeAlias

__all__ = ["NOTHING", "Terms", "stratum", "together", "upper_bound"]

Terms: TypeAlias = tuple[float, float, float, float]
"""What strata add to the difference (numerator, denominator), to its variance at the margin, and to what few units
add."""
NOTHING: Final[Terms] = (0.0,) * 4


def stratum(
    canary: int, canary_bad: int, baseline: int, baseline_bad: int, margin: float, fewness: float = 0.0
) -> Terms:
    """Return the terms of one stratum, in which both had their requests at the same time and weight.

    Args:
        canary: requests of the canary.
        canary_bad: of these, with a bad outcome.
        baseline: requests of the baseline.
        baseline_bad: of these, with a bad outcome.
        margin: the difference of risks that is to be ruled out, 0 to 0.5.
        fewness: square root of 1 / units of the canary + 1 / units of the baseline; 0: requests are independent.

    >>> stratum(0, 0, 100, 5, margin=0.01)  # nothing to compare
    (0.0, 0.0, 0.0, 0.0)
    """
    if not canary or not baseline:
        return NOTHING
    total = canary + baseline
    mine, theirs = canary / total, baseline / total
    risk = min(max((canary_bad + baseline_bad) / total - margin * mine, 0.0), 1.0 - margin)
    worse = risk + margin
    return (
        canary_bad * theirs - baseline_bad * mine,
        canary * theirs,
        canary * theirs * (theirs * worse * (1.0 - worse) + mine * risk * (1.0 - risk)),
        canary * theirs * fewness,
    )


def together(one: Terms, other: Terms) -> Terms:
    """Return the terms of both: strata add up."""
    first, second, third, fourth = (fsum(pair) for pair in zip(one, other, strict=True))
    return first, second, third, fourth


def upper_bound(terms: Terms, z: float, unit_variance: float = 0.0) -> float:
    """Return the bound of the difference of risks, canary less baseline, to hold against the margin; inf without data.

    The difference is that of Mantel and Haenszel, which compares within strata only: changing weights and a daily
    rhythm do not bias it. Its variance is the one that it has if the margin is the true difference, so this is a
    score test. Taken at the estimate instead (Sato's), it is too small just where the estimate is too low, and 0
    where nothing bad was seen; here a canary without one bad outcome needs z^2 (1 - margin) / margin requests, 380
    for a margin of 1 %.

    Args:
        terms: the strata's, `together`.
        z: quantile of the normal distribution, 1.96 for 2.5 % on one side.
        unit_variance: variance of the risk from unit to unit; as units stay in their arm over many strata, their
            standard deviations add up.

    References:
        Greenland & Robins, "Estimation of a common effect parameter from sparse follow-up data", Biometrics 41, 1985;
        Miettinen & Nurminen, "Comparative analysis of two rates", Statistics in Medicine 4, 1985; Farrington &
        Manning, "Test statistics and sample size formulae", Statistics in Medicine 9, 1990.

    >>> round(upper_bound(stratum(1000, 50, 1000, 50, margin=0.01), z=1.96), 4)
    0.0191
    >>> [round(upper_bound(stratum(n, 0, 19 * n, 0, margin=0.01), z=1.96), 4) for n in (100, 380)]
    [0.0195, 0.01]
    """
    numerator, denominator, spread, fewness = terms
    if denominator <= 0.0:
        return inf
    variance = spread / denominator**2 + unit_variance * (fewness / denominator) ** 2
    return numerator / denominator + z * sqrt(variance)
