"""McNemar's test, exact and mid-p, for a number of pairs that was fixed beforehand."""

from __future__ import annotations

from typing import Literal

from scipy.stats import binom

__all__ = ["Side", "exact_p", "mid_p"]

Side = Literal["worse", "better", "either"]
"""The alternative: the variant is worse (loses more pairs), better, or either."""


def exact_p(lost: int, won: int, side: Side = "worse") -> float:
    """Return the exact p-value: given how many pairs differ, losses are binomial with 1/2 where both are alike.

    Its false-alarm rate is at most its level for any number of pairs, but it may be looked at once only: for looks
    after every pair see `glowsim.pairs.sequential.PairedEvidence`.

    Parameters
    ----------
    lost
        Pairs in which only the variant failed, 0 or more.
    won
        Pairs in which only the baseline failed, 0 or more.
    side
        The alternative.

    Raises
    ------
    ValueError
        A count is negative.

    >>> round(exact_p(7, 1, "either"), 4), round(exact_p(7, 1), 4)
    (0.0703, 0.0352)

    Source: McNemar (1947), Psychometrika 12; the example is that of Fagerland, Lydersen, Laake (2013), BMC Medical
    Research Methodology 13:91.
    """
    return _p(lost, won, side, mid=False)


def mid_p(lost: int, won: int, side: Side = "worse") -> float:
    """Return the mid-p value: what was observed counts half. Sharper than `exact_p`, its level holds nearly always.

    Parameters and errors are those of `exact_p`.

    >>> round(mid_p(7, 1, "either"), 4)
    0.0391

    Source: Fagerland, Lydersen, Laake (2013), BMC Medical Research Methodology 13:91.
    """
    return _p(lost, won, side, mid=True)


def _p(lost: int, won: int, side: Side, *, mid: bool) -> float:
    if lost < 0 or won < 0:
        raise ValueError(f"{lost} pairs lost and {won} won: counts are 0 or more")
    pairs = lost + won
    observed = float(binom.pmf(lost, pairs, 0.5)) if pairs else 1.0
    fewer = float(binom.cdf(min(lost, won), pairs, 0.5)) - (observed / 2.0 if mid else 0.0)
    if side == "either":
        return 1.0 if lost == won else min(1.0, 2.0 * fewer)
    at_least = lost if side == "worse" else won
    return float(binom.sf(at_least - 1, pairs, 0.5)) - (observed / 2.0 if mid else 0.0)
