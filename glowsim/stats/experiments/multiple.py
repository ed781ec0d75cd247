"""Several tests at once: p-values that stay honest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["benjamini_hochberg", "holm"]


def holm(p: Sequence[float]) -> list[float]:
    """Return adjusted p-values: with those up to alpha rejected, any false rejection has a chance of at most alpha.

    Whatever the tests have to do with one another.

    Parameters
    ----------
    p
        p-values, shape (k,), each 0 to 1.

    Raises
    ------
    ValueError
        One is no probability.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    values, order = _ranked(p)
    k = values.size
    worst = np.maximum.accumulate(values[order] * np.arange(k, 0, -1))
    return _back(np.minimum(1.0, worst), order)


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Return adjusted p-values: of those up to alpha, a part of at most alpha is expected to be false.

    For tests that are independent or rise together; with many metrics that are looked through, not with the few that
    decide.

    Parameters
    ----------
    p
        p-values, shape (k,), each 0 to 1.

    Raises
    ------
    ValueError
        One is no probability.

    Source: Benjamini & Hochberg, "Controlling the false discovery rate", Journal of the Royal Statistical Society B 57,
    1995.

    >>> benjamini_hochberg([0.01, 0.04, 0.03])
    [0.03, 0.04, 0.04]
    """
    values, order = _ranked(p)
    k = values.size
    best = np.minimum.accumulate((values[order] * k / np.arange(1, k + 1))[::-1])[::-1]
    return _back(np.minimum(1.0, best), order)


def _ranked(p: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    values = np.asarray(p, dtype=np.float64)
    if values.ndim != 1 or not np.all((values >= 0.0) & (values <= 1.0)):
        raise ValueError(f"p-values {list(p)}: give probabilities, 0 to 1")
    return values, np.argsort(values, kind="stable")


def _back(adjusted: NDArray[np.float64], order: NDArray[np.intp]) -> list[float]:
    back = np.empty_like(adjusted)
    back[order] = adjusted
    return [float(each) for each in back]
