"""Arrivals that are not a plain Poisson process: batches, and a rate that swings."""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["Swing", "batch_in_system", "swinging_load"]


def batch_in_system(batches_per_s: float, mean_batch: float, service_per_s: float) -> float:
    """Give the mean number in M^X/M/1, where batches have a geometric size on 1, 2, ..

    L = rho (1 + E[X^2] / E[X]) / 2 / (1 - rho) with rho the batches' rate times E[X] over mu.

    ``batches_per_s`` > 0, ``mean_batch`` >= 1, ``service_per_s`` > 0. Raises ``ValueError`` out of these
    ranges, or for a load of 1 or more.

    >>> f"{batch_in_system(0.2, 3.0, 1.0):.6f}"
    '4.500000'

    Source: Cooper, Introduction to Queueing Theory (1981), chapter 5.
    """
    if not (batches_per_s > 0.0 and mean_batch >= 1.0 and service_per_s > 0.0):
        raise ValueError("batch_in_system: give rates above 0 and a mean batch of at least 1")
    load = batches_per_s * mean_batch / service_per_s
    if load >= 1.0:
        raise ValueError(f"batch_in_system: the load is {load:.6g}; keep it below 1")
    stop = 1.0 / mean_batch
    mean_square = (2.0 - stop) / stop**2
    return load * (1.0 + mean_square / mean_batch) / 2.0 / (1.0 - load)


class Swing(NamedTuple):
    """A sine: its highest value, and how far it comes after the sine that drives it.

    >>> Swing(14.8, 0.98).lag_s
    0.98
    """

    peak: float
    lag_s: float


def swinging_load(mean_per_s: float, swing_per_s: float, period_s: float, mean_service_s: float) -> Swing:
    """Give the mean number in M(t)/M/inf under the rate mean + swing sin(2 pi t / period).

    It is itself a sine, of amplitude swing S / sqrt(1 + (w S)^2), late by atan(w S) / w, with S the mean
    service and w = 2 pi / period. A fleet that follows the rate alone is always early by that lag.

    ``mean_per_s`` and the two times above 0, 0 <= ``swing_per_s`` <= ``mean_per_s``; ``ValueError`` otherwise.

    >>> load = swinging_load(10.0, 5.0, 24.0, 1.0)
    >>> f"{load.peak:.6f} {load.lag_s:.3f}"
    '14.836986 0.978'

    Source: Eick, Massey, Whitt (1993), Management Science 39.
    """
    if not (min(mean_per_s, period_s, mean_service_s) > 0.0 and 0.0 <= swing_per_s <= mean_per_s):
        raise ValueError("swinging_load: give a mean and times above 0, and a swing from 0 to the mean")
    turn = 2.0 * math.pi / period_s
    damped = swing_per_s * mean_service_s / math.sqrt(1.0 + (turn * mean_service_s) ** 2)
    return Swing(mean_per_s * mean_service_s + damped, math.atan(turn * mean_service_s) / turn)
