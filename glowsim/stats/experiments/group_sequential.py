"""Two arms compared at a few looks, each of which spends a part of alpha: nearly as sharp as one look at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from glowsim.stats.experiments.comparison import Better, Comparison, check_alpha, decide

__all__ = ["Spending", "at_look", "bounds", "crossing", "drift_for", "inflation", "spent"]

Spending = Literal["obrien-fleming", "pocock", "power"]

_FARTHEST = 8.5
"""Standard errors beyond which the chance is below what a float can add to 1."""


def spent(fraction: float, alpha: float, spending: Spending, rho: float = 2.0) -> float:
    """Return the part of alpha that may be used up to a fraction of the planned units.

    Parameters
    ----------
    fraction
        Units so far of those planned, 0 to 1.
    alpha
        Two-sided chance of a winner where there is no difference, over all looks.
    spending
        ``obrien-fleming``: nearly nothing early; ``pocock``: about as much at each look; ``power``: fraction ** rho.
    rho
        Of ``power``, above 0.

    Source: Lan & DeMets, "Discrete sequential boundaries for clinical trials", Biometrika 70, 1983; Kim & DeMets,
    Biometrika 74, 1987, for the power family.

    >>> spent(1.0, 0.05, "obrien-fleming"), round(spent(0.5, 0.05, "power"), 6)
    (0.05, 0.0125)
    """
    from scipy.special import ndtr, ndtri

    check_alpha(alpha)
    if not 0.0 <= fraction <= 1.0 or not rho > 0.0:
        raise ValueError(f"fraction {fraction}, rho {rho}: give a fraction 0 to 1 and a rho above 0")
    if fraction in (0.0, 1.0):
        return alpha * fraction
    match spending:
        case "obrien-fleming":
            return float(4.0 * ndtr(float(ndtri(alpha / 4.0)) / math.sqrt(fraction)))
        case "pocock":
            return alpha * math.log1p((math.e - 1.0) * fraction)
        case "power":
            return alpha * math.pow(fraction, rho)
    raise ValueError(f"spending: {spending!r}; give obrien-fleming, pocock or power")


def bounds(
    fractions: Sequence[float], alpha: float = 0.05, spending: Spending = "obrien-fleming", rho: float = 2.0
) -> list[float]:
    """Return how many standard errors off a difference must be at each look: symmetrical, two-sided.

    Parameters
    ----------
    fractions
        Units at each look of those planned, shape (k,), rising, above 0 and up to 1.
    alpha, spending, rho
        See `spent`.

    Raises
    ------
    ValueError
        Fractions that do not rise, or a number out of its bounds.

    Source: Armitage, McPherson & Rowe, Journal of the Royal Statistical Society A 132, 1969, for the recursion;
    Jennison & Turnbull, Group Sequential Methods, chapters 7 and 19.

    >>> [round(each, 3) for each in bounds([0.2, 0.4, 0.6, 0.8, 1.0])]
    [4.877, 3.357, 2.68, 2.29, 2.031]
    """
    _check(fractions)
    found: list[float] = []
    walk = _Walk(0.0)
    before = 0.0
    for t in fractions:
        budget = spent(t, alpha, spending, rho)
        found.append(walk.bound(t, (budget - before) / 2.0))
        walk.step(t, found[-1])
        before = budget
    return found


def crossing(fractions: Sequence[float], bars: Sequence[float], drift: float = 0.0) -> list[float]:
    """Return the chance of having crossed a bound, either one, by each look.

    Parameters
    ----------
    fractions
        Units at each look of those planned, shape (k,), rising, above 0 and up to 1.
    bars
        Bounds in standard errors, shape (k,).
    drift
        Expected difference in standard errors when all planned units are in.

    >>> round(crossing([0.2, 0.4, 0.6, 0.8, 1.0], [1.96] * 5)[-1], 3)
    0.142
    """
    _check(fractions)
    walk = _Walk(drift)
    found = []
    for t, bar in zip(fractions, bars, strict=True):
        walk.step(t, bar)
        found.append(walk.crossed)
    return found


def drift_for(fractions: Sequence[float], bars: Sequence[float], power: float) -> float:
    """Return the expected difference, in standard errors of the whole, that is found with a chance of ``power``."""
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2.0
        if crossing(fractions, bars, middle)[-1] < power:
            low = middle
        else:
            high = middle
    return high


def inflation(
    fractions: Sequence[float], *, alpha: float = 0.05, power: float = 0.8, spending: Spending = "obrien-fleming",
    rho: float = 2.0,
) -> float:  # fmt: skip
    """Return how many times the units of a single look must be planned, for the same power.

    >>> round(inflation([0.2, 0.4, 0.6, 0.8, 1.0], power=0.9, spending="obrien-fleming"), 3)
    1.023
    """
    from scipy.special import ndtri

    bars = bounds(fractions, alpha, spending, rho)
    single = float(ndtri(1.0 - alpha / 2.0) + ndtri(power))
    return (drift_for(fractions, bars, power) / single) ** 2


def at_look(
    a: tuple[float, int], b: tuple[float, int], error: float, fractions: Sequence[float], *, alpha: float = 0.05,
    spending: Spending = "obrien-fleming", rho: float = 2.0, better: Better = "higher", matters: float = 0.0,
) -> Comparison:  # fmt: skip
    """Compare two means at one of several looks; ``fractions`` are those of the looks so far, this one last.

    The interval and the p-value are the repeated ones of Jennison and Turnbull: good at every look together, also for
    who goes on after a bound was crossed.

    Parameters
    ----------
    a, b
        (mean, number of units) of each arm.
    error
        Standard error of the difference, above 0.
    fractions
        Units at each look of those planned, shape (k,), rising, above 0 and up to 1.
    alpha, spending, rho
        See `spent`.
    better, matters
        See `decide`.

    Source: Jennison & Turnbull, Group Sequential Methods, chapter 9.

    >>> found = at_look((10.0, 500), (10.3, 500), 0.1, [0.5])
    >>> found.winner, round(found.low, 4)
    ('b', 0.0037)
    """
    if not error > 0.0:
        raise ValueError(f"error {error}: give the standard error of the difference, above 0")
    difference = b[0] - a[0]
    reach = bounds(fractions, alpha, spending, rho)[-1] * error
    interval = (difference, difference - reach, difference + reach)
    p = _repeated_p(abs(difference) / error, fractions, spending, rho)
    return decide("group-sequential", a, b, interval, p=p, alpha=alpha, better=better, matters=matters)


def _repeated_p(z: float, fractions: Sequence[float], spending: Spending, rho: float) -> float:
    """Return the smallest alpha at which ``z`` would be beyond the last look's bound."""
    low, high = 1e-12, 1.0 - 1e-9
    if bounds(fractions, high, spending, rho)[-1] > z:
        return 1.0
    for _ in range(40):
        middle = math.sqrt(low * high)
        if bounds(fractions, middle, spending, rho)[-1] > z:
            low = middle
        else:
            high = middle
    return high


class _Walk:
    """A Brownian motion that is looked at now and then, and stops beyond a bound; the state is its density in between.

    Gauss-Legendre nodes on what goes on, which is smooth: the chance is good to about ten digits.
    """

    def __init__(self, drift: float) -> None:
        self.crossed = 0.0
        self._drift = drift
        self._t = 0.0
        self._at: NDArray[np.float64] = np.zeros(1)
        self._mass: NDArray[np.float64] = np.ones(1)
        """Density times node weight, at the nodes."""

    def bound(self, t: float, tail: float) -> float:
        """Return the bar, in standard errors, that is first crossed upwards at ``t`` with this chance."""
        low, high = 0.0, _FARTHEST
        for _ in range(60):
            middle = (low + high) / 2.0
            if self._above(t, middle * math.sqrt(t)) > tail:
                low = middle
            else:
                high = middle
        return high

    def step(self, t: float, bar: float) -> None:
        """Look at ``t``: what is beyond the bar, in standard errors, has crossed and stops."""
        edge = bar * math.sqrt(t)
        self.crossed += self._above(t, edge) + self._below(t, -edge)
        apart = math.sqrt(t - self._t)
        middle = self._drift * t
        low, high = (
            max(-edge, middle - _FARTHEST * math.sqrt(t)),
            min(edge, middle + _FARTHEST * math.sqrt(t)),
        )
        nodes, weights = _nodes(low, high, apart)
        steps = (nodes[:, None] - self._at[None, :] - self._drift * (t - self._t)) / apart
        density = np.exp(-0.5 * steps * steps) @ self._mass / (apart * math.sqrt(2.0 * math.pi))
        self._t, self._at, self._mass = t, nodes, density * weights

    def _above(self, t: float, edge: float) -> float:
        from scipy.special import ndtr

        on = self._drift * (t - self._t)
        return float(self._mass @ ndtr((self._at + on - edge) / math.sqrt(t - self._t)))

    def _below(self, t: float, edge: float) -> float:
        from scipy.special import ndtr

        on = self._drift * (t - self._t)
        return float(self._mass @ ndtr((edge - self._at - on) / math.sqrt(t - self._t)))


def _nodes(low: float, high: float, apart: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not high > low:
        return np.zeros(1), np.zeros(1)
    at, weights = _legendre(32 * math.ceil(min(20.0, 1.0 + 0.15 * (high - low) / apart)))
    half = (high - low) / 2.0
    return low + half * (at + 1.0), half * weights


@cache
def _legendre(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    at, weights = np.polynomial.legendre.leggauss(count)
    return at, weights


def _check(fractions: Sequence[float]) -> None:
    if not fractions or not all(0.0 < each <= 1.0 for each in fractions):
        raise ValueError(
            f"looks at {list(fractions)} of the planned units: give fractions above 0 and up to 1"
        )
    if any(later <= earlier for earlier, later in pairwise(fractions)):
        raise ValueError(f"looks at {list(fractions)} of the planned units: they must rise")
