"""How many units a comparison of two shares needs in each arm, two-sided, by the normal approximation."""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["two_share_sample"]


def two_share_sample(
    first: float,
    second: float,
    *,
    significance: float = 0.05,
    power: float = 0.8,
    rule: Literal["pooled", "unpooled", "cohen"] = "pooled",
) -> int:
    """Give the least n per arm to tell two different shares in (0, 1) apart.

    With z of 1 - ``significance`` / 2 and of ``power``: ``pooled`` takes the variance under no difference for
    the first, (z_a sqrt(2 m (1 - m)) + z_b sqrt(p (1 - p) + q (1 - q)))^2 / (p - q)^2 with m their mean, as
    the test does that pools the arms; ``unpooled`` the arms' own variances for both; ``cohen`` works on
    arcsines, (z_a + z_b)^2 / (2 asin(sqrt(p)) - 2 asin(sqrt(q)))^2, times 2.

    Raises ``ValueError`` for shares that are equal or out of range, or a significance or power out of (0, 1).

    >>> [two_share_sample(0.10, 0.12, rule=rule) for rule in ("pooled", "unpooled", "cohen")]
    [3841, 3839, 3835]

    Source: Fleiss, Statistical Methods for Rates and Proportions (1981), chapter 3; Cohen, Statistical Power
    Analysis (1988), chapter 6.
    """
    from scipy.special import ndtri

    if first == second or not all(0.0 < each < 1.0 for each in (first, second, significance, power)):
        raise ValueError(
            "two_share_sample: give different shares, significance and power, all between 0 and 1"
        )
    z_test, z_power = float(ndtri(1.0 - significance / 2.0)), float(ndtri(power))
    own = first * (1.0 - first) + second * (1.0 - second)
    if rule == "cohen":
        effect = 2.0 * math.asin(math.sqrt(first)) - 2.0 * math.asin(math.sqrt(second))
        return math.ceil(2.0 * ((z_test + z_power) / effect) ** 2)
    middle = (first + second) / 2.0
    under_test = 2.0 * middle * (1.0 - middle) if rule == "pooled" else own
    return math.ceil(((z_test * math.sqrt(under_test) + z_power * math.sqrt(own)) / (first - second)) ** 2)
