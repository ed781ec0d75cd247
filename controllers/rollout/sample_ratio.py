"""Is the traffic split as it should be? A sequential test that may be looked at any time."""

from __future__ import annotations

from math import lgamma, log
from typing import Final

__all__ = ["ALARM", "log_bayes_factor"]

ALARM: Final = log(1000.0)
"""Logarithm of the Bayes factor from which the split counts as wrong: one healthy rollout in 1,000 gets there."""
_CONCENTRATION: Final = 1000.0


def log_bayes_factor(canary: int, baseline: int, weight: float) -> float:
    """Return the natural logarithm of the evidence that units are not split by the weight.

    The alternative is a share drawn from a beta distribution about the weight, with a concentration of 1,000. Where
    the split is right, the Bayes factor ever reaches 1,000 with probability at most 0.001 (Ville). The logarithms
    of several stages add up.

    Args:
        canary: units that got the canary.
        baseline: units that got the baseline.
        weight: share of the units that should get the canary, above 0 and below 1.

    References:
        Lindon & Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022.

    >>> log_bayes_factor(canary=1_000, baseline=19_000, weight=0.05) < 0 < ALARM
    True
    >>> log_bayes_factor(canary=1_200, baseline=18_800, weight=0.05) > ALARM
    True
    """
    mine, theirs = _CONCENTRATION * weight, _CONCENTRATION * (1.0 - weight)
    return (
        _log_beta(mine + canary, theirs + baseline)
        - _log_beta(mine, theirs)
        - canary * log(weight)
        - baseline * log(1.0 - weight)
    )


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
