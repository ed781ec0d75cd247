"""Confidence intervals over replications and of counts."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Interval", "paired_difference", "required_replications", "t_interval", "wilson"]


class Interval(NamedTuple):
    """An estimate with a two-sided confidence interval, from ``n`` observations.

    >>> Interval(2.0, 1.5, 2.5, 10).half_width
    0.5
    """

    mean: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        """Half the distance between the ends: how far the estimate may be off."""
        return (self.high - self.low) / 2.0


def t_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Give the mean of independent replications and its Student t interval.

    ``values`` holds one finite number per replication, shape (n,), n >= 1; ``confidence`` lies in (0, 1).
    One replication says nothing about its own spread: its interval is the whole line. Replications that
    all agree give a point, which is fair for a quantity that does not vary and misleading for a share of
    rare events: see ``judge_proportion``.

    Raises ``ValueError`` for an empty sample, a value that is not finite, or a confidence out of range.

    >>> sample = t_interval([9.0, 10.0, 11.0])
    >>> round(sample.low, 4), round(sample.high, 4)
    (7.5159, 12.4841)
    >>> t_interval([9.0])
    Interval(mean=9.0, low=-inf, high=inf, n=1)

    Source: Law, Simulation Modeling and Analysis, section 4.5; Student (1908), Biometrika 6.
    """
    _check_confidence(confidence)
    sample = _finite_sample(values)
    n = sample.size
    if n > 1 and np.all(sample == sample[0]):
        point = float(sample[0])
        return Interval(point, point, point, n)
    mean = float(sample.mean())
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    half_width = _t_quantile(confidence, n) * float(sample.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half_width, mean + half_width, n)


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Give the share of successes in independent trials and its Wilson score interval.

    Unlike the interval of the textbook normal approximation it stays within [0, 1] and keeps a width when
    nothing failed: after 50 successes in 50 trials the true share may well be 0.93.

    Raises ``ValueError`` unless 0 <= ``successes`` <= ``trials``, 1 <= ``trials`` and 0 < ``confidence`` < 1.

    >>> share = wilson(50, 50)
    >>> round(share.low, 4), share.high
    (0.9287, 1.0)

    Source: Wilson (1927), J. Am. Stat. Assoc. 22; recommended by Brown, Cai, DasGupta (2001), Statistical
    Science 16.
    """
    _check_confidence(confidence)
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(
            f"wilson: {successes} successes in {trials} trials; give 0 <= successes <= trials, trials >= 1"
        )
    z2 = _normal_quantile(confidence) ** 2
    share = successes / trials
    centre = (successes + z2 / 2.0) / (trials + z2)
    spread = math.sqrt(z2 * (share * (1.0 - share) * trials + z2 / 4.0)) / (trials + z2)
    low = 0.0 if successes == 0 else min(centre - spread, share)
    high = 1.0 if successes == trials else max(centre + spread, share)
    return Interval(share, low, high, trials)


def paired_difference(a: ArrayLike, b: ArrayLike, confidence: float = 0.95) -> Interval:
    """Give the mean of ``a - b`` and its t interval, replication i of ``a`` against replication i of ``b``.

    For two policies run with common random numbers: what both worlds share cancels, so that the interval is
    narrower than that of two independent samples. ``a`` and ``b`` have shape (n,), in one order of seeds.

    Raises ``ValueError`` for samples of different length, and as ``t_interval`` does.

    >>> paired_difference([10.1, 14.2, 12.0], [9.0, 13.0, 11.0]).low > 0
    True

    Source: Law, Simulation Modeling and Analysis, sections 10.2.1 and 11.2.
    """
    first, second = _finite_sample(a), _finite_sample(b)
    if first.size != second.size:
        raise ValueError(
            f"paired_difference: {first.size} replications against {second.size}; "
            "run both with the same list of seeds"
        )
    return t_interval(first - second, confidence)


def required_replications(values: ArrayLike, half_width: float, confidence: float = 0.95) -> int:
    """Say how many more replications bring the t interval down to ``half_width``.

    ``values`` are the replications done, shape (n,), n >= 2; ``half_width`` > 0 is in their unit. The answer
    takes their standard deviation for the true one, so a small pilot may ask for too few, and stopping as
    soon as an interval is narrow enough covers about two points less than ``confidence`` says.

    Raises ``ValueError`` for fewer than two replications or a half-width that is not above zero.

    >>> required_replications([9.0, 10.0, 11.0], half_width=0.5)
    15

    Source: Law, Simulation Modeling and Analysis, section 9.4.1, the approximate rule for a fixed sample.
    """
    _check_confidence(confidence)
    sample = _finite_sample(values)
    if sample.size < 2:
        raise ValueError("required_replications: one replication shows no spread; run at least 2 first")
    if not half_width > 0.0:
        raise ValueError(f"required_replications: half_width is {half_width}; it must be above 0")
    deviation = 0.0 if np.all(sample == sample[0]) else float(sample.std(ddof=1))
    lower_bound = math.ceil((_normal_quantile(confidence) * deviation / half_width) ** 2)
    n = max(sample.size, lower_bound)
    while _t_quantile(confidence, n) * deviation > half_width * math.sqrt(n):
        n += 1
    return n - sample.size


def _finite_sample(values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise ValueError(f"a sample of shape {sample.shape}; give one number per replication, at least one")
    if not np.all(np.isfinite(sample)):
        where = int(np.flatnonzero(~np.isfinite(sample))[0])
        raise ValueError(f"replication {where} has the value {sample[where]}; leave it out or find its cause")
    return sample


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}; give a share between 0 and 1, such as 0.95")


def _t_quantile(confidence: float, n: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, (1.0 + confidence) / 2.0))


def _normal_quantile(confidence: float) -> float:
    from scipy.special import ndtri

    return float(ndtri((1.0 + confidence) / 2.0))
