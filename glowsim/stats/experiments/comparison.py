"""What a comparison of two arms comes to, and how it is decided."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

__all__ = ["Better", "Comparison", "Winner", "decide"]

Better = Literal["higher", "lower"]
Winner = Literal["a", "b", "none", "undecided"]


class Comparison(NamedTuple):
    """Arm b against arm a: what each has, the difference with its interval, and who wins, if anybody does.

    >>> decide("welch", (10.0, 100), (12.0, 100), (2.0, 0.5, 3.5), p=0.009, alpha=0.05).winner
    'b'
    """

    test: str
    a: float
    """The metric in arm a, in its own unit."""
    b: float
    n_a: int
    n_b: int
    difference: float
    """b less a; for ``mann-whitney`` the Hodges-Lehmann shift."""
    low: float
    """Ends of the interval of the difference, at confidence 1 - ``alpha``."""
    high: float
    p: float
    """Two-sided, for no difference. Of sequential tests it is good at any look, of fixed ones at a single one."""
    alpha: float
    winner: Winner
    """``none``: the whole interval lies within the smallest effect that matters. ``undecided``: it does not."""
    why: str


def decide(
    test: str, a: tuple[float, int], b: tuple[float, int], interval: tuple[float, float, float], *, p: float,
    alpha: float, better: Better = "higher", matters: float = 0.0, sign: float | None = None,
) -> Comparison:  # fmt: skip
    """Return the comparison with its winner.

    Parameters
    ----------
    test
        Its name.
    a, b
        (metric, number of units) of each arm.
    interval
        (difference, low, high), at confidence 1 - ``alpha``.
    p
        Two-sided p-value: up to ``alpha`` there is a winner.
    alpha
        Between 0 and 1.
    better
        Which of two values of the metric is better.
    matters
        Smallest difference that matters, in the metric's unit, 0 or more; 0: any does, and ``none`` cannot be said.
    sign
        Which way the test points; default: as the difference does.

    Raises
    ------
    ValueError
        ``alpha`` or ``matters`` is out of its bounds.
    """
    check_alpha(alpha)
    if not 0.0 <= matters < math.inf:
        raise ValueError(f"matters: {matters}; give the smallest difference that matters, 0 or more")
    difference, low, high = interval
    says = difference if sign is None else sign
    winner: Winner = "undecided"
    if p <= alpha and says != 0.0:
        winner = "b" if (says > 0.0) == (better == "higher") else "a"
        why = f"p = {p:.3g} is at most {alpha:g}"
    elif -matters < low and high < matters:
        winner = "none"
        why = f"the interval [{low:.4g}, {high:.4g}] lies within {matters:g} of no difference"
    else:
        why = f"p = {p:.3g} is above {alpha:g}, and the interval [{low:.4g}, {high:.4g}] holds what would matter"
    return Comparison(test, *_arms(a, b), difference, low, high, p, alpha, winner, why)


def check_alpha(alpha: float) -> None:
    """Refuse an error probability that is none."""
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha: {alpha}; give a probability between 0 and 1, such as 0.05")


def _arms(a: tuple[float, int], b: tuple[float, int]) -> tuple[float, float, int, int]:
    return a[0], b[0], a[1], b[1]
