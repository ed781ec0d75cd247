"""Two samples compared by their ranks, at one look: for what has a long tail, such as latency and cost."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glowsim.stats.experiments.comparison import Better, Comparison, check_alpha, decide

__all__ = ["mann_whitney"]


def mann_whitney(
    a: ArrayLike, b: ArrayLike, *, alpha: float = 0.05, better: Better = "higher", matters: float = 0.0
) -> Comparison:
    """Compare where two samples lie, at one look at a size that was fixed beforehand.

    The test asks whether a unit of b is above a unit of a as often as below. The difference is the Hodges-Lehmann
    shift, the median over all pairs of b less a, with the interval that the same ranks give. A shift of the middle is
    not one of the mean: what is billed is the mean, and that is Welch's.

    Parameters
    ----------
    a, b
        The metric of independent units, shapes (n_a,) and (n_b,), finite, at least one each; about ten each for the
        normal approximation, which corrects for ties and for continuity.
    alpha, better, matters
        See `decide`.

    Raises
    ------
    ValueError
        An empty arm, a number that is not finite, or all numbers equal.

    Source: Mann & Whitney, Annals of Mathematical Statistics 18, 1947; Hodges & Lehmann, same place 34, 1963;
    Hollander, Wolfe & Chicken, Nonparametric Statistical Methods, sections 4.1 to 4.3.

    >>> found = mann_whitney([1.1, 2.2, 3.3, 4.4], [11.0, 12.0, 13.0, 14.0])
    >>> round(found.difference, 2), found.winner
    (9.75, 'b')
    """
    from scipy.special import ndtr, ndtri

    check_alpha(alpha)
    first, second = _sample("a", a), _sample("b", b)
    n_a, n_b = first.size, second.size
    n = n_a + n_b
    _, ties = np.unique(np.concatenate((first, second)), return_counts=True)
    if ties.size == 1:
        raise ValueError("all units have the same value: there is nothing to rank")
    above = float(np.searchsorted(first, second, "left").sum())
    u = (above + float(np.searchsorted(first, second, "right").sum())) / 2.0
    middle = n_a * n_b / 2.0
    tied = float((ties.astype(np.float64) ** 3 - ties).sum()) / (n * (n - 1))
    error = math.sqrt(n_a * n_b * (n + 1 - tied) / 12.0)
    p = min(1.0, float(2.0 * ndtr(-max(0.0, abs(u - middle) - 0.5) / error)))
    reach = float(ndtri(1.0 - alpha / 2.0)) * error
    outermost = max(1, math.floor(middle - reach))
    pairs = n_a * n_b
    shift = (_kth(first, second, (pairs + 1) // 2) + _kth(first, second, pairs // 2 + 1)) / 2.0
    low, high = _kth(first, second, outermost), _kth(first, second, pairs + 1 - outermost)
    middles = (float(np.median(first)), int(n_a)), (float(np.median(second)), int(n_b))
    return decide(
        "mann-whitney", *middles, (shift, low, high), p=p, alpha=alpha, better=better, matters=matters,
        sign=u - middle,
    )  # fmt: skip


def _sample(name: str, values: ArrayLike) -> NDArray[np.float64]:
    sample = np.sort(np.asarray(values, dtype=np.float64))
    if sample.ndim != 1 or not sample.size or not np.all(np.isfinite(sample)):
        raise ValueError(f"arm {name}: give at least one number, all of them finite")
    return sample


def _kth(a: NDArray[np.float64], b: NDArray[np.float64], k: int) -> float:
    """Return the k-th smallest of all b[j] - a[i], from 1, without making them; both are sorted."""
    low, high = float(b[0] - a[-1]), float(b[-1] - a[0])
    while True:
        middle = low + (high - low) / 2.0
        if not low < middle < high:
            return _nearest(a, b, low if _up_to(a, b, low) >= k else high)
        if _up_to(a, b, middle) >= k:
            high = middle
        else:
            low = middle


def _up_to(a: NDArray[np.float64], b: NDArray[np.float64], shift: float) -> int:
    """Return how many pairs have b[j] - a[i] <= shift."""
    return int((a.size - np.searchsorted(a, b - shift, "left")).sum())


def _nearest(a: NDArray[np.float64], b: NDArray[np.float64], shift: float) -> float:
    """Return the b[j] - a[i] that is nearest: halving ends a rounding error away from it."""
    places = np.searchsorted(a, b - shift)
    around = np.concatenate((b - a[np.maximum(places - 1, 0)], b - a[np.minimum(places, a.size - 1)]))
    return float(around[np.argmin(np.abs(around - shift))])
