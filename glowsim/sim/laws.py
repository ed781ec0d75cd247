"""Probability laws as inverse distribution functions.

One uniform number makes one value, always the same one: a world drawn ahead stays the same when a law's
parameter changes, which is what makes paired comparisons sharp. Whole columns are made at once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import exp, inf, log1p
from statistics import NormalDist
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "Clipped",
    "Constant",
    "Exponential",
    "Gamma",
    "Law",
    "LogNormal",
    "Quantiles",
    "Uniform",
    "at",
    "at_or_always",
    "one_by_one",
]

Array = npt.NDArray[np.float64]
_BLOCK = 64


class Law(Protocol):
    """A law of a non-negative quantity."""

    @property
    def random(self) -> bool:
        """Whether two draws can differ."""

    def ppf(self, u: Array) -> Array:
        """Return the values that belong to uniform numbers in [0, 1)."""


def one_by_one(law: Law, generator: np.random.Generator | None) -> Iterator[float]:
    """Yield values of a law, drawn in blocks; one that is not random needs no generator.

    >>> values = one_by_one(Constant(3.0), None)
    >>> next(values), next(values)
    (3.0, 3.0)
    """
    while True:
        yield from law.ppf(np.zeros(_BLOCK) if generator is None else generator.random(_BLOCK)).tolist()


def at(law: Law) -> Callable[[float], float]:
    """Return ``law.ppf`` for one uniform number at a time, without the cost of a column.

    >>> at(Exponential(2.0))(0.0), at(Constant(3.0))(0.7)
    (0.0, 3.0)
    """
    match law:
        case Constant():
            value = law.value
            return lambda u: value
        case Exponential():
            mean = law.mean
            return lambda u: -mean * log1p(-u)
        case Uniform():
            low, width = law.low, law.high - law.low
            return lambda u: low + width * u
        case LogNormal():
            of_normal, median, sigma = NormalDist().inv_cdf, law.median, law.sigma
            return lambda u: median * exp(sigma * of_normal(u or 2.0**-54))
        case Clipped():
            inner, least, most = at(law.law), law.low, law.high
            return lambda u: min(max(inner(u), least), most)
        case Quantiles():
            return _between(law.p, law.x)
        case _:
            return lambda u: float(law.ppf(np.array([u]))[0])


def at_or_always(law: Law) -> Callable[[float], float] | float:
    """Return `at`, or of a law that is not random the value itself: nothing need be drawn for it.

    >>> at_or_always(Exponential(2.0))(0.0), at_or_always(Constant(3.0))
    (0.0, 3.0)
    """
    value = at(law)
    return value if law.random else float(value(0.0))


def _between(p: tuple[float, ...], x: tuple[float, ...]) -> Callable[[float], float]:
    """Return the function that runs straight through the points."""
    slopes = [(b - a) / (v - u) for (u, v), (a, b) in zip(pairwise(p), pairwise(x), strict=True)]

    def value(u: float) -> float:
        i = min(bisect_right(p, u), len(slopes)) - 1
        return x[i] + slopes[i] * (u - p[i])

    return value


@dataclass(frozen=True)
class Constant:
    """Always ``value``.

    >>> Constant(3.0).ppf(np.array([0.1, 0.9]))
    array([3., 3.])
    """

    value: float
    random = False

    def ppf(self, u: Array) -> Array:
        """Return the value, once for every number."""
        return np.full(len(u), self.value)


@dataclass(frozen=True)
class Exponential:
    """Exponential with a mean.

    >>> Exponential(2.0).ppf(np.array([1 - np.exp(-1)])).round(6)
    array([2.])
    """

    mean: float
    random = True

    def ppf(self, u: Array) -> Array:
        """Return the values that belong to uniform numbers."""
        return -self.mean * np.log1p(-u)


@dataclass(frozen=True)
class LogNormal:
    """Lognormal with a median and the standard deviation ``sigma`` of the logarithm.

    >>> LogNormal(5.0, 1.0).ppf(np.array([0.5]))
    array([5.])
    """

    median: float
    sigma: float
    random = True

    def ppf(self, u: Array) -> Array:
        """Return the values that belong to uniform numbers."""
        from scipy.special import ndtri

        values: Array = self.median * np.exp(self.sigma * ndtri(np.clip(u, 2.0**-54, None)))
        return values


@dataclass(frozen=True)
class Gamma:
    """Gamma with a mean and a coefficient of variation.

    >>> Gamma(2.0, 1.0).ppf(np.array([1 - np.exp(-1)])).round(6)
    array([2.])
    """

    mean: float
    cv: float
    random = True

    def ppf(self, u: Array) -> Array:
        """Return the values that belong to uniform numbers."""
        from scipy.special import gammaincinv

        shape = self.cv**-2
        values: Array = gammaincinv(shape, u) * (self.mean / shape)
        return values


@dataclass(frozen=True)
class Uniform:
    """Uniform between ``low`` and ``high``.

    >>> Uniform(1.0, 3.0).ppf(np.array([0.5]))
    array([2.])
    """

    low: float
    high: float
    random = True

    def ppf(self, u: Array) -> Array:
        """Return the values that belong to uniform numbers."""
        return self.low + (self.high - self.low) * u


@dataclass(frozen=True)
class Quantiles:
    """Stored quantiles with straight lines between them: for lengths, which fit no textbook law well.

    >>> Quantiles((0.0, 0.5, 1.0), (0.0, 10.0, 100.0)).ppf(np.array([0.25, 0.75]))
    array([ 5., 55.])
    """

    p: tuple[float, ...]
    x: tuple[float, ...]
    random = True

    def ppf(self, u: Array) -> Array:
        """Return the values that belong to uniform numbers."""
        return np.interp(u, self.p, self.x)


@dataclass(frozen=True)
class Clipped:
    """Another law, cut off at ``low`` and ``high``; what lies beyond piles up there.

    >>> Clipped(Exponential(2.0), low=1.0).ppf(np.array([0.0]))
    array([1.])
    """

    law: Law
    low: float = 0.0
    high: float = inf

    @property
    def random(self) -> bool:
        """Whether two draws can differ."""
        return self.law.random

    def ppf(self, u: Array) -> Array:
        """Return the values that belong to uniform numbers."""
        return np.clip(self.law.ppf(u), self.low, self.high)
