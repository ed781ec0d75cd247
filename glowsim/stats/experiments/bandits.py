"""Shares of the traffic by what each arm has earned: plain functions of counts, for rewards from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["thompson_shares", "ucb1_shares"]

_POINTS = 400


def thompson_shares(earned: Sequence[float], pulls: Sequence[int], explore: float = 0.0) -> tuple[float, ...]:
    """Return with what probability each arm is the best one: Thompson sampling, its probabilities rather than a draw.

    The chance of a reward has the posterior Beta(1 + earned, 1 + pulls - earned).

    Parameters
    ----------
    earned, pulls
        Sum of the rewards, and how many there were, of each arm, shape (k,).
    explore
        Least share of an arm, 0 to 1 / k.

    Source: Thompson, "On the likelihood that one unknown probability exceeds another in view of the evidence of two
    samples", Biometrika 25, 1933; Agrawal & Goyal, COLT 2012.

    >>> [round(each, 3) for each in thompson_shares([0, 0], [0, 0])]
    [0.5, 0.5]
    >>> [round(each, 3) for each in thompson_shares([50, 70], [100, 100], explore=0.05)]
    [0.052, 0.948]
    """
    from scipy.special import betainc, betaincinv

    got = np.asarray(earned, dtype=np.float64)
    missed = np.asarray(pulls, dtype=np.float64) - got
    levels = (np.arange(_POINTS) + 0.5) / _POINTS
    best = np.empty(got.size)
    for arm in range(got.size):
        chances = betaincinv(1.0 + got[arm], 1.0 + missed[arm], levels)
        others = [betainc(1.0 + got[i], 1.0 + missed[i], chances) for i in range(got.size) if i != arm]
        best[arm] = np.prod(others, axis=0).mean()
    return _floored((best / best.sum()).tolist(), explore)


def ucb1_shares(earned: Sequence[float], pulls: Sequence[int], explore: float = 0.0) -> tuple[float, ...]:
    """Return all of the traffic, but for ``explore``, for the arm with the highest upper confidence bound.

    Parameters
    ----------
    earned, pulls, explore
        See `thompson_shares`.

    Source: Auer, Cesa-Bianchi & Fischer, "Finite-time analysis of the multiarmed bandit problem", Machine Learning 47,
    2002.

    >>> ucb1_shares([50, 70], [100, 100]), ucb1_shares([50, 0], [100, 0], explore=0.25)
    ((0.0, 1.0), (0.25, 0.75))
    """
    all_pulls = sum(pulls)
    index = [
        got / n + math.sqrt(2.0 * math.log(all_pulls) / n) if n else math.inf
        for got, n in zip(earned, pulls, strict=True)
    ]
    best = index.index(max(index))
    return _floored([float(arm == best) for arm in range(len(index))], explore)


def _floored(shares: list[float], explore: float) -> tuple[float, ...]:
    rest = 1.0 - explore * len(shares)
    return tuple(explore + rest * share for share in shares)
