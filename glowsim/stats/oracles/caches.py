"""How often a cache has the answer, when requests are drawn independently."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["che_hit_rate", "ttl_hit_rate", "zipf"]


def zipf(items: int, alpha: float) -> list[float]:
    """Give the popularities of ``items`` >= 1 by Zipf's law: p_i proportional to i^-``alpha``, summing to one.

    Raises ``ValueError`` for no item or a negative ``alpha``.

    >>> [round(p, 6) for p in zipf(2, 1.0)]
    [0.666667, 0.333333]
    """
    if items < 1 or alpha < 0.0:
        raise ValueError("zipf: give at least one item and an alpha of at least 0")
    weights = np.arange(1, items + 1, dtype=np.float64) ** -alpha
    popularities: list[float] = (weights / weights.sum()).tolist()
    return popularities


def che_hit_rate(popularities: ArrayLike, entries: int) -> float:
    """Give the hit rate of an LRU cache of ``entries``, by Che's approximation.

    An item stays for the characteristic time T with sum over i of 1 - exp(-p_i T) = entries, and is hit when
    it is asked for again within it: the sum over i of p_i (1 - exp(-p_i T)). Errors are far below 1 % for
    thousands of items.

    ``popularities`` >= 0 add up to one, shape (n,), and 1 <= ``entries`` < n. Raises ``ValueError`` otherwise.

    >>> f"{che_hit_rate(zipf(10_000, 0.8), 1000):.6f} {che_hit_rate(zipf(10_000, 1.0), 1000):.6f}"
    '0.436660 0.675602'

    Source: Che, Tung, Wang (2002), IEEE J. Selected Areas in Communications 20.
    """
    from scipy.optimize import brentq

    p = np.asarray(popularities, dtype=np.float64)
    if p.ndim != 1 or not 1 <= entries < p.size or np.any(p < 0.0) or abs(p.sum() - 1.0) > 1e-9:
        raise ValueError("che_hit_rate: give popularities that add up to 1 and fewer entries than items")
    beyond = float(entries)
    while -np.expm1(-p * beyond).sum() < entries:
        beyond *= 2.0
    stay = brentq(lambda t: -float(np.expm1(-p * t).sum()) - entries, 0.0, beyond, xtol=1e-9)
    return float(-(p * np.expm1(-p * stay)).sum())


def ttl_hit_rate(rate_per_s: float, ttl_s: float, *, renewed: bool) -> float:
    """Give the hit rate of one key, asked for at Poisson moments, in a cache with a time to live.

    Where each hit renews the time to live: 1 - exp(-rate ttl). Where it runs from the answer on:
    rate ttl / (1 + rate ttl). Raises ``ValueError`` for a rate or time not above 0.

    >>> [f"{ttl_hit_rate(0.5, 10.0, renewed=renewed):.6f}" for renewed in (True, False)]
    ['0.993262', '0.833333']

    Source: Jung, Berger, Balakrishnan (2003), INFOCOM.
    """
    if not (rate_per_s > 0.0 and ttl_s > 0.0):
        raise ValueError("ttl_hit_rate: give a rate and a time above 0")
    expected = rate_per_s * ttl_s
    return -math.expm1(-expected) if renewed else expected / (1.0 + expected)
