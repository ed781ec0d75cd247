"""Whether the arms got the units that they should have got: if not, no comparison of them is to be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["SampleRatio", "sample_ratio"]

BROKEN = 0.001
"""The p-value from which a split is taken to be broken: a test stops on it, so it is asked for more than 0.05."""


class SampleRatio(NamedTuple):
    """The p-value of the split, and whether it is broken."""

    p: float
    broken: bool


def sample_ratio(units: Sequence[int], weights: Sequence[float]) -> SampleRatio:
    """Test the numbers of units against the weights they were assigned by, once, at the end.

    Parameters
    ----------
    units
        Units of each arm, shape (k,), k >= 2; what is counted must be what was assigned, so never requests of a user.
    weights
        Their parts of the traffic, each above 0, in any unit.

    Raises
    ------
    ValueError
        Not as many weights as arms, or impossible ones.

    Source: Pearson's chi-square; Fabijan et al., "Diagnosing sample ratio mismatch in online controlled experiments",
    KDD 2019, with their 0.001 as the point of alarm.

    >>> sample_ratio([10_000, 10_500], [0.5, 0.5]).broken
    True
    """
    from scipy.special import chdtrc

    if (
        len(units) != len(weights)
        or len(units) < 2
        or min(weights) <= 0.0
        or min(units) < 0
        or not sum(units)
    ):
        raise ValueError(
            f"units {list(units)}, weights {list(weights)}: give a weight above 0 for each of the arms"
        )
    whole = math.fsum(weights)
    expected = [sum(units) * weight / whole for weight in weights]
    off = math.fsum((n - e) ** 2 / e for n, e in zip(units, expected, strict=True))
    p = float(chdtrc(len(units) - 1, off))
    return SampleRatio(p, p < BROKEN)
