"""Where the start-up bias of a long run ends. Runs that start and end by nature need no truncation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["WarmUp", "mser5"]

_BATCH = 5
_LEAST_BATCHES = 10
_KEPT_BATCHES = 5


class WarmUp(NamedTuple):
    """How many leading observations to drop, and whether that leaves enough to be believed.

    ``reliable`` is false when more than half of the series would go: then the run is too short, or has no
    steady state at all, and should be lengthened rather than cut.

    >>> WarmUp(cut=100, reliable=True).cut
    100
    """

    cut: int
    reliable: bool


def mser5(series: ArrayLike) -> WarmUp:
    """Find the truncation point that makes the standard error of the rest smallest (MSER-5).

    ``series`` holds at least 50 finite observations in order of time, shape (n,): best the mean across
    replications of the i-th observation, because in a single correlated run a late lull passes for the end
    of a warm-up. It is cut into batches of 5 (a rest of up to 4 at the end is left out), and the d that
    minimises sum((batch - mean)^2) / (batches kept)^2 over what is kept wins; the smallest of equals. The
    last 5 batches are always kept: the error of a handful is small by chance.

    Raises ``ValueError`` for a series that is too short or not finite.

    >>> mser5([10.0] * 100 + [0.0] * 900)
    WarmUp(cut=100, reliable=True)

    Source: White (1997), Simulation 69; batches of five and the rule of the half: White, Cobb, Spratt (2000),
    Proc. Winter Simulation Conference.
    """
    values = np.asarray(series, dtype=np.float64)
    if values.ndim != 1 or values.size < _BATCH * _LEAST_BATCHES:
        raise ValueError(
            f"mser5: a series of shape {values.shape}; give at least {_BATCH * _LEAST_BATCHES} observations"
        )
    if not np.all(np.isfinite(values)):
        raise ValueError(f"mser5: observation {np.flatnonzero(~np.isfinite(values))[0]} is not finite")
    batches = values.size // _BATCH
    means = values[: batches * _BATCH].reshape(batches, _BATCH).mean(axis=1)
    from_end = (means - means[-1])[::-1]  # relative to the end, so that a constant tail has no rounding error
    kept = np.arange(1, batches + 1)
    squares = np.cumsum(from_end**2) - np.cumsum(from_end) ** 2 / kept
    statistic = (squares / kept**2)[::-1][: batches - _KEPT_BATCHES + 1]
    cut = int(np.argmin(statistic)) * _BATCH
    return WarmUp(cut, reliable=2 * cut <= values.size)
