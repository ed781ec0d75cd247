"""Count, mean and spread of a sample, of a fixed size however long the sample is."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Moments"]


class Moments(NamedTuple):
    """Count, mean, and sum of squared deviations from the mean.

    Deviations, not squares: the difference of two large sums of squares has no digits left.

    Source: Chan, Golub & LeVeque, "Algorithms for computing the sample variance", The American Statistician 37,
    1983.

    >>> Moments.of([1.0, 2.0, 3.0]) == Moments().add(1.0).add(2.0).add(3.0)
    True
    >>> Moments.of([1.0, 2.0, 3.0]).variance
    1.0
    """

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: ArrayLike) -> Moments:
        """Return the moments of finite numbers, shape (n,).

        Raises
        ------
        ValueError
            Another shape, or a number that is not finite.
        """
        sample = np.asarray(values, dtype=np.float64)
        if sample.ndim != 1:
            raise ValueError(f"a sample of shape {sample.shape}: give one number for each unit")
        if not np.all(np.isfinite(sample)):
            where = int(np.flatnonzero(~np.isfinite(sample))[0])
            raise ValueError(f"value {where} is {sample[where]}: leave it out or find its cause")
        if not sample.size:
            return cls()
        mean = float(sample.mean())
        return cls(int(sample.size), mean, float(np.square(sample - mean).sum()))

    @property
    def variance(self) -> float:
        """Of a unit, unbiased; nan below two."""
        return self.squares / (self.n - 1) if self.n > 1 else math.nan

    def add(self, value: float) -> Moments:
        """Return the moments with one more value."""
        n = self.n + 1
        off = value - self.mean
        mean = self.mean + off / n
        return Moments(n, mean, self.squares + off * (value - mean))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both samples together."""
        n = self.n + other.n
        if not self.n or not other.n:
            return self if self.n else other
        off = other.mean - self.mean
        mean = self.mean + off * other.n / n
        return Moments(n, mean, self.squares + other.squares + off * off * self.n * other.n / n)
