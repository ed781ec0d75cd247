"""How many units an experiment needs, and what it would find with those that it has."""

from __future__ import annotations

import math
from collections.abc import Callable

from glowsim.stats.experiments.comparison import check_alpha

__all__ = ["power_of_means", "power_of_proportions", "size_for_means", "size_for_proportions"]

_MOST = 10**12


def size_for_means(
    effect: float, deviation: float, *, alpha: float = 0.05, power: float = 0.8, share: float = 0.5
) -> tuple[int, int]:
    """Return the units that arms a and b need so that a two-sided t test finds a difference of means.

    Parameters
    ----------
    effect
        Difference to be found, in the metric's unit, not 0.
    deviation
        Standard deviation between units, in the same unit, above 0; the same in both arms.
    alpha
        Chance of a winner where there is no difference.
    power
        Chance of a winner where the difference is ``effect``.
    share
        Part of the units that gets b, between 0 and 1.

    Raises
    ------
    ValueError
        A number is out of its bounds.

    Source: Cohen, Statistical Power Analysis for the Behavioral Sciences, section 2.4: 64 each for half a standard
    deviation.

    >>> size_for_means(0.5, 1.0)
    (64, 64)
    """
    if not effect or not math.isfinite(effect) or not 0.0 < deviation < math.inf:
        raise ValueError(
            f"effect {effect}, deviation {deviation}: give an effect other than 0, a deviation above 0"
        )
    z = _quantiles(alpha, power)
    first = (z * deviation / effect) ** 2 / (share * (1.0 - share)) if 0.0 < share < 1.0 else 0.0
    return _smallest(
        lambda n_a, n_b: power_of_means(n_a, n_b, effect, deviation, alpha=alpha),
        first,
        power,
        share,
        least=2,
    )


def power_of_means(n_a: int, n_b: int, effect: float, deviation: float, *, alpha: float = 0.05) -> float:
    """Return the chance that a two-sided t test with so many units finds a difference of means.

    >>> round(power_of_means(64, 64, 0.5, 1.0), 4)
    0.8015
    """
    from scipy.special import nctdtr, ndtr, ndtri, stdtrit

    freedom = n_a + n_b - 2
    drift = abs(effect) / (deviation * math.sqrt(1.0 / n_a + 1.0 / n_b))
    if freedom > 10_000:  # where Student's law is the normal one to five digits
        z = float(ndtri(1.0 - alpha / 2.0))
        return float(ndtr(drift - z) + ndtr(-drift - z))
    critical = float(stdtrit(freedom, 1.0 - alpha / 2.0))
    # Far off, where these chances are below 1e-9, SciPy's noncentral t may give nan.
    missed, wrong_way = nctdtr(freedom, drift, critical), nctdtr(freedom, drift, -critical)
    return (
        1.0
        - (0.0 if math.isnan(missed) else float(missed))
        + (0.0 if math.isnan(wrong_way) else float(wrong_way))
    )


def size_for_proportions(
    base: float, effect: float, *, alpha: float = 0.05, power: float = 0.8, share: float = 0.5
) -> tuple[int, int]:
    """Return the units that arms a and b need so that a two-sided score test finds a difference of shares.

    Parameters
    ----------
    base
        Share in arm a, between 0 and 1.
    effect
        Share in arm b less that in a, not 0.
    alpha, power, share
        See `size_for_means`.

    Raises
    ------
    ValueError
        A number is out of its bounds.

    Source: Fleiss, Levin & Paik, Statistical Methods for Rates and Proportions, section 4.2, without the correction for
    continuity.

    >>> size_for_proportions(0.05, 0.05)
    (435, 435)
    """
    if not 0.0 < base < 1.0 or not effect or not 0.0 <= base + effect <= 1.0:
        raise ValueError(f"base {base}, effect {effect}: base, and base + effect, must be shares, and differ")
    z = _quantiles(alpha, power)
    first = (z / effect) ** 2 * 0.25 / (share * (1.0 - share)) if 0.0 < share < 1.0 else 0.0
    return _smallest(
        lambda n_a, n_b: power_of_proportions(n_a, n_b, base, effect, alpha=alpha),
        first,
        power,
        share,
        least=1,
    )


def power_of_proportions(n_a: int, n_b: int, base: float, effect: float, *, alpha: float = 0.05) -> float:
    """Return the chance that a two-sided score test with so many units finds a difference of shares.

    >>> round(power_of_proportions(435, 435, 0.05, 0.05), 3)
    0.801
    """
    from scipy.special import ndtr, ndtri

    other = base + effect
    pooled = (n_a * base + n_b * other) / (n_a + n_b)
    if_equal = math.sqrt(pooled * (1.0 - pooled) * (1.0 / n_a + 1.0 / n_b))
    as_is = math.sqrt(base * (1.0 - base) / n_a + other * (1.0 - other) / n_b)
    bar = float(ndtri(1.0 - alpha / 2.0)) * if_equal
    return float(ndtr((abs(effect) - bar) / as_is) + ndtr((-abs(effect) - bar) / as_is))


def _quantiles(alpha: float, power: float) -> float:
    from scipy.special import ndtri

    check_alpha(alpha)
    if not alpha < power < 1.0:
        raise ValueError(
            f"power: {power}; give a probability above alpha ({alpha:g}) and below 1, such as 0.8"
        )
    return float(ndtri(1.0 - alpha / 2.0) + ndtri(power))


def _smallest(
    power_of: Callable[[int, int], float], first: float, power: float, share: float, *, least: int
) -> tuple[int, int]:
    """Return the smallest arms, in their shares, that have the power; ``first`` is a guess of their sum."""
    if not 0.0 < share < 1.0:
        raise ValueError(f"share: {share}; give the part of the units that gets b, between 0 and 1")

    def arms(n: int) -> tuple[int, int]:
        return max(least, math.ceil(n * (1.0 - share))), max(least, math.ceil(n * share))

    def enough(n: int) -> bool:
        return power_of(*arms(n)) >= power

    high = max(2 * least, math.ceil(first))
    while high > _MOST or not enough(high):
        high *= 2
        if high > _MOST:
            raise ValueError(f"more than {_MOST:.0e} units are needed: look for a larger effect")
    low = 1
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    return arms(high)
