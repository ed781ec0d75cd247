"""From a million requests to the few hundred points that a picture can show; numpy only."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["OverTime", "Tail", "over_time", "tail"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_REQUESTS_A_BIN: Final = 200
_FEWEST_BINS: Final = 12
_MOST_BINS: Final = 90
_FINEST_BINS: Final = 240
_FEWEST: Final = {50: 5, 95: 20, 99: 100}
"""Percentile -> a bin with fewer latencies does not show it."""
_FEWEST_OF_A_SHARE: Final = 5


class OverTime(NamedTuple):
    """What happened in equal slices of time, shape (bins,); nan where a slice has too few requests."""

    edges_s: Floats
    arrivals_per_s: Floats
    attempts_per_s: Floats
    completions_per_s: Floats
    error_share: Floats
    """Of the requests that arrived in the slice, the share that was rejected or failed."""
    latency_s: dict[int, Floats]
    """Percentile (50, 95, 99) -> latency of the requests that arrived in the slice."""


class Tail(NamedTuple):
    """The share of values above ``x``, from the smallest value to the largest."""

    x: Floats
    share: Floats


def over_time(
    t_arrive_s: Floats, t_answer_s: Floats, latency_s: Floats, erred: Bools, t_dispatch_s: Floats, end_s: float,
    shortest_s: float = math.inf,
) -> OverTime:  # fmt: skip
    """Return rates, the share of errors and latency percentiles in slices of about 200 requests, 12 to 90 slices.

    Where something short is to be seen, slices are half as long as that, down to a 240th of the whole.

    Parameters
    ----------
    t_arrive_s
        When each request arrived, shape (n,).
    t_answer_s, latency_s
        When it was answered and after how long; nan where it was not.
    erred
        Whether it was rejected or failed.
    t_dispatch_s
        When each attempt was dispatched, shape (m,).
    end_s
        Where the last slice ends, above 0.
    shortest_s
        How long the shortest thing is that should be seen, such as a fault, above 0.

    >>> arrive_s, erred = np.arange(600.0), np.arange(600) < 25
    >>> slices = over_time(arrive_s, arrive_s + 2, np.full(600, 2.0), erred, np.repeat(arrive_s, 3), 600.0)
    >>> len(slices.edges_s) - 1, float(slices.latency_s[50][0]), float(slices.error_share[0])
    (12, 2.0, 0.5)
    >>> float(slices.attempts_per_s[0] / slices.arrivals_per_s[0])
    3.0
    """
    bins = int(np.clip(len(t_arrive_s) // _REQUESTS_A_BIN, _FEWEST_BINS, _MOST_BINS))
    bins = max(bins, min(math.ceil(2 * end_s / shortest_s), _FINEST_BINS))
    edges_s = np.linspace(0.0, end_s, bins + 1)
    width_s = end_s / bins
    answered = ~np.isnan(t_answer_s)
    arrivals, _ = np.histogram(t_arrive_s, edges_s)
    attempts, _ = np.histogram(t_dispatch_s, edges_s)
    completions, _ = np.histogram(t_answer_s[answered], edges_s)
    errors, _ = np.histogram(t_arrive_s[erred], edges_s)
    error_share = np.full(bins, np.nan)
    telling = arrivals >= _FEWEST_OF_A_SHARE
    error_share[telling] = errors[telling] / arrivals[telling]
    inside = np.clip((t_arrive_s[answered] / width_s).astype(int), 0, bins - 1)
    values = latency_s[answered]
    order = np.lexsort((values, inside))
    values = values[order]
    counts = np.bincount(inside, minlength=bins)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    percentiles = {}
    for percentile, fewest in _FEWEST.items():
        found = np.full(bins, np.nan)
        enough = counts >= fewest
        rank = np.ceil(percentile / 100 * counts[enough]).astype(int) - 1
        found[enough] = values[starts[enough] + rank]
        percentiles[percentile] = found
    return OverTime(
        edges_s, arrivals / width_s, attempts / width_s, completions / width_s, error_share, percentiles
    )


def tail(values: Floats, points: int = 400) -> Tail:
    """Return the share of values above x at no more than so many x, as dense in the tail as in the body.

    Parameters
    ----------
    values
        Shape (n,), n >= 1, none of them nan.
    points
        At least 2.

    >>> tail(np.array([3.0, 1.0, 2.0, 4.0]))
    Tail(x=array([1., 2., 3., 4.]), share=array([0.75, 0.5 , 0.25, 0.  ]))
    """
    ordered = np.sort(values)
    n = len(ordered)
    above = n - np.unique(np.round(np.geomspace(1, n, points // 2)).astype(int))
    body = np.linspace(0, n - 1, points // 2).astype(int)
    at = np.unique(np.concatenate([above, body]))
    at = np.searchsorted(ordered, ordered[at], side="right") - 1
    at = np.unique(at)
    return Tail(ordered[at], 1 - (at + 1) / n)
