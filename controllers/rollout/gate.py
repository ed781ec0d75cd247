"""The last gate: whether the variant is no worse than the baseline by a margin, over strata."""

from __future__ import annotations

from math import fsum, inf, sqrt
from typing import Final, TypeAlias

__all__ = ["NOTHING", "Terms", "stratum", "together", "upper_bound"]

Terms: TypeAlias = tuple[float, float, float, float, float, float]
"""What strata add to the difference (numerator, denominator), to its variance (by the difference, and besides), to
the least variance that it can have at the margin, and to what few units add."""
NOTHING: Final[Terms] = (0.0,) * 6


def stratum(canary: int, canary_bad: int, baseline: int, baseline_bad: int, fewness: float = 0.0) -> Terms:
    """Return the terms of one stratum, in which both had their requests at the same time and weight.

    Args:
        canary: requests of the canary.
        canary_bad: of these, with a bad outcome.
        baseline: requests of the baseline.
        baseline_bad: of these, with a bad outcome.
        fewness: square root of 1 / units of the canary + 1 / units of the baseline; 0: requests are independent.

    >>> stratum(0, 0, 100, 5)  # nothing to compare
    (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    """
    if not canary or not baseline:
        return NOTHING
    total = canary + baseline
    mine, theirs = canary / total, baseline / total
    return (
        canary_bad * theirs - baseline_bad * mine,
        canary * theirs,
        baseline_bad * mine**2 - canary_bad * theirs**2 + canary * theirs * (theirs - mine) / 2.0,
        (canary_bad * (baseline - baseline_bad) + baseline_bad * (canary - canary_bad)) / (2.0 * total),
        canary * theirs**2,
        canary * theirs * fewness,
    )


def together(one: Terms, other: Terms) -> Terms:
    """Return the terms of both: strata add up."""
    first, second, third, fourth, fifth, sixth = (fsum(pair) for pair in zip(one, other, strict=True))
    return first, second, third, fourth, fifth, sixth


def upper_bound(terms: Terms, margin: float, z: float, unit_variance: float = 0.0) -> float:
    """Return the upper confidence bound of the difference of risks, canary less baseline; inf without data.

    The difference is that of Mantel and Haenszel, which compares within strata only: changing weights and a daily
    rhythm do not bias it. Its variance is Sato's, good for few large strata and for many small ones, but 0 where
    nothing bad was seen. It is at least what it would be if the canary's risk were the margin and the baseline's 0:
    so a canary without one bad outcome still needs z^2 (1 - margin) / margin requests, 380 for a margin of 1 %.

    Args:
        terms: the strata's, `together`.
        margin: the difference that is to be ruled out, 0 to 0.5.
        z: quantile of the normal distribution, 1.96 for 2.5 % on one side.
        unit_variance: variance of the risk from unit to unit; as units stay in their arm over many strata, their
            standard deviations add up.

    References:
        Sato, "On the variance estimator for the Mantel-Haenszel risk difference", Biometrics 45, 1989; Greenland &
        Robins, "Estimation of a common effect parameter from sparse follow-up data", Biometrics 41, 1985;
        Farrington & Manning, "Test statistics and sample size formulae", Statistics in Medicine 9, 1990, for the
        variance under the hypothesis.

    >>> round(upper_bound(stratum(1000, 50, 1000, 50), 0.01, z=1.96), 4)
    0.0191
    >>> [round(upper_bound(stratum(n, 0, 19 * n, 0), 0.01, z=1.96), 4) for n in (100, 380)]
    [0.0195, 0.01]
    """
    numerator, denominator, tilt, noise, least, fewness = terms
    if denominator <= 0.0:
        return inf
    difference = numerator / denominator
    variance = max(difference * tilt + noise, margin * (1.0 - margin) * least) / denominator**2
    return difference + z * sqrt(variance + unit_variance * (fewness / denominator) ** 2)
