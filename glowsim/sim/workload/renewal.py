"""Arrivals as bursty as recorded ones: a rate that wanders, and within it a Gamma renewal process.

Counts over long windows vary because the rate does, counts over short ones because requests come in bunches. So
the rate is one number a window (recorded, or drawn with stored quantiles and a fading memory), and arrivals are
a renewal process in operational time: the n-th arrival is when the expected number reaches the n-th point of a
unit-rate renewal process. One sequence of unit gaps serves every rate, so two rates under one seed stay paired.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import accumulate
from math import ceil, exp, sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Flow", "Sender", "levels", "renewal", "superposed"]

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
_BLOCK = 4096


class Sender(NamedTuple):
    """One who sends requests, independently of the others."""

    rate_per_s: float
    """In the long run."""
    cv: float
    """Coefficient of variation of the gaps while the rate stands still: 1 is Poisson."""
    level: tuple[float, ...]
    """The rate as a multiple of its mean: quantiles at the flow's ``p``, or one a window as recorded."""


class Flow(NamedTuple):
    """How requests arrive, from one sender or many."""

    window_s: float
    """The rate changes so often."""
    p: tuple[float, ...] | None
    """Where the quantiles of the levels stand, from 0 to 1; None: levels follow each other as recorded."""
    memory: tuple[tuple[float, float], ...]
    """(share, time_s): this share of the wandering fades with this time constant; what is left of 1 is forgotten
    from window to window."""
    senders: tuple[Sender, ...]


def levels(
    p: tuple[float, ...],
    level: tuple[float, ...],
    memory: tuple[tuple[float, float], ...],
    window_s: float,
    generator: np.random.Generator,
    n: int,
) -> Array:
    """Return a wandering level: its law has the given quantiles, its normal scores the given memory.

    The score is a sum of stationary first-order autoregressions, so its correlation ``k`` windows apart is
    ``sum share exp(-k window / time)`` for k > 0.

    Parameters
    ----------
    p, level
        Probabilities from 0 to 1 and the level at each, straight in between.
    memory
        (share, time_s) of each part; shares add up to 1 at most.
    window_s
        Time from a level to the next.
    generator
        Draws the scores.
    n
        How many.

    >>> levels((0.0, 1.0), (1.0, 1.0), (), 60.0, np.random.default_rng(1), 3)
    array([1., 1., 1.])

    Source: Cario & Nelson, "Autoregressive to anything", Operations Research Letters 19, 1996.
    """
    from scipy.special import ndtr

    score = np.zeros(n)
    forgotten = 1.0
    for share, time_s in memory:
        kept = exp(-window_s / time_s)
        fresh = sqrt(1.0 - kept * kept)
        steps = fresh * generator.standard_normal(n)
        steps[:1] /= fresh
        score += sqrt(share) * np.array(list(accumulate(steps.tolist(), partial(_next, kept))))
        forgotten -= share
    score += sqrt(max(forgotten, 0.0)) * generator.standard_normal(n)
    drawn: Array = np.interp(ndtr(score), p, level)
    return drawn


def _next(kept: float, before: float, step: float) -> float:
    return kept * before + step


def renewal(
    envelope_rates: Array, window_s: float, cv: float, generator: np.random.Generator, until_s: float
) -> Iterator[Array]:
    """Yield blocks of moments of a Gamma renewal process seen through the clock of a changing rate.

    Parameters
    ----------
    envelope_rates
        Arrivals per second in each window, from 0 s on; after the last one nothing arrives.
    window_s
        Length of a window, above 0.
    cv
        Coefficient of variation of the gaps in operational time, above 0: Gamma of shape ``1 / cv**2``.
    generator
        Draws the unit gaps, the first as found by one who comes at a random time.
    until_s
        No arrivals from here on.

    >>> moments = np.concatenate(list(renewal(np.array([0.0, 50.0]), 10.0, 1.0, np.random.default_rng(1), 20.0)))
    >>> bool(moments[0] >= 10.0), bool(400 < len(moments) < 600)
    (True, True)
    """
    edges = np.minimum(np.arange(len(envelope_rates) + 1) * window_s, until_s)
    expected = np.concatenate([[0.0], np.cumsum(envelope_rates * np.diff(edges))])
    shape = cv**-2
    last = generator.standard_gamma(shape + 1.0) / shape * generator.random()
    gaps = generator.standard_gamma(shape, _BLOCK) / shape
    gaps[0] = last
    last = 0.0
    while True:
        points = last + np.cumsum(gaps)
        last = points[-1]
        inside = points[points < expected[-1]]
        if len(inside):
            yield np.interp(inside, expected, edges)
        if len(inside) < len(points):
            return
        gaps = generator.standard_gamma(shape, _BLOCK) / shape


def superposed(
    flow: Flow, generators: Iterator[np.random.Generator], until_s: float
) -> Iterator[tuple[Array, Index]]:
    """Yield blocks of (moments, sender of each) of all senders together, in order of time.

    Parameters
    ----------
    flow
        Who sends, and how.
    generators
        Two for each sender, in turn: of its levels and of its gaps.
    until_s
        No arrivals from here on.
    """
    streams = [_sent(flow, sender, next(generators), next(generators), until_s) for sender in flow.senders]
    if len(streams) == 1:
        for block in streams[0]:
            yield block, np.zeros(len(block), dtype=np.int64)
        return
    total = np.sum([sender.rate_per_s for sender in flow.senders])
    span_s = max(flow.window_s, _BLOCK / float(total))
    waiting = [np.empty(0)] * len(streams)
    for end_s in (np.arange(ceil(until_s / span_s)) + 1) * span_s:
        for i, stream in enumerate(streams):
            while not len(waiting[i]) or waiting[i][-1] < end_s:
                more = next(stream, None)
                if more is None:
                    break
                waiting[i] = np.concatenate([waiting[i], more])
        due = [int(np.searchsorted(moments, end_s)) for moments in waiting]
        moments = np.concatenate([moments[:n] for moments, n in zip(waiting, due, strict=True)])
        who = np.repeat(np.arange(len(streams)), due)
        waiting = [moments[n:] for moments, n in zip(waiting, due, strict=True)]
        order = np.argsort(moments, kind="stable")
        if len(order):
            yield moments[order], who[order]


def _sent(
    flow: Flow, sender: Sender, wanders: np.random.Generator, gaps: np.random.Generator, until_s: float
) -> Iterator[Array]:
    n = ceil(until_s / flow.window_s)
    if flow.p is None:
        level = np.resize(np.array(sender.level), n)
    else:
        level = levels(flow.p, sender.level, flow.memory, flow.window_s, wanders, n)
    return renewal(sender.rate_per_s * level, flow.window_s, sender.cv, gaps, until_s)
