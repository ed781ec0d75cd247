"""Random values for the fuzzer: the same seed throws the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, isfinite, log
from typing import Any, NamedTuple, TypeVar

import numpy as np

from glowsim.scenario.quantities import DURATION, RATE, Quantity, Within

__all__ = ["Dice", "Scale", "law", "number", "whole_number"]

T = TypeVar("T")
_EDGE = 0.2
_NARROW = 100
"""A range of numbers up to this wide is drawn from evenly; in a wider one, orders of magnitude are."""


class Scale(NamedTuple):
    """How large a scenario is: durations and rates are drawn around it, so that its timers fire in it."""

    horizon_s: float
    rate_per_s: float


class Dice:
    """Draws from one stream of uniform numbers (numpy's PCG64), rounded so that machines agree.

    Parameters
    ----------
    seed
        Names the stream, from 0.

    >>> Dice(1).one("abc") == Dice(1).one("abc")
    True
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.Generator(np.random.PCG64(seed)).random

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return float(self._random()) < probability

    def one(self, options: Sequence[T]) -> T:
        """Return one of the options, all alike."""
        return options[int(self._random() * len(options))]

    def whole(self, low: int, high: int) -> int:
        """Return a whole number from ``low`` to ``high``, all alike."""
        return low + int(self._random() * (high - low + 1))

    def even(self, low: float, high: float) -> float:
        """Return a number between two, all alike, in three digits."""
        return _short(low + float(self._random()) * (high - low))

    def spread(self, low: float, high: float) -> float:
        """Return a number between two positive ones, every order of magnitude alike, in three digits."""
        return _short(exp(log(low) + float(self._random()) * (log(high) - log(low))))


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def number(dice: Dice, scale: Scale, within: Within, default: float | None) -> float:
    """Return a number within bounds, in base units: often at an edge, else near what could matter.

    Parameters
    ----------
    dice, scale
        What draws, and the size of the scenario.
    within
        Bounds, and the kind of quantity: durations and rates are drawn around the scenario's own.
    default
        Other numbers are drawn within a factor of 30 of it, or of 1 where it is None or 0.
    """
    low, high = within.low, within.high
    if dice.chance(_EDGE):
        edges = [low] * (isfinite(low) and not within.above) + [high] * (high <= 1.0)
        if edges:
            return dice.one(edges)
    if within.quantity is DURATION:
        drawn = dice.spread(scale.horizon_s / 1000, 2 * scale.horizon_s)
    elif within.quantity is RATE:
        drawn = dice.spread(scale.rate_per_s / 5, scale.rate_per_s * 30)
    elif high - low <= _NARROW:
        drawn = dice.even(low, high)
    else:
        around = abs(default or 1.0)
        drawn = dice.spread(around / 30, around * 30)
    drawn = min(max(drawn, low), high)
    return low + 0.001 if within.above and drawn == low else drawn


def whole_number(dice: Dice, low: float, high: float, default: int | None) -> int:
    """Return a whole number within bounds: often a small one, else up to ten times the default."""
    if isfinite(low) and dice.chance(_EDGE):
        return int(low)
    if high - low <= _NARROW:
        return dice.whole(int(low), int(high))
    most = dice.one((30, 10 * (default or 10)))  # a limit matters only where it is small
    return int(min(max(round(dice.spread(1, most)), low), high))


def law(dice: Dice, quantity: Quantity, middle: float) -> Any:
    """Return a law of random durations, tokens or numbers, as written, whose mean is about ``middle``."""

    def write(factor: float) -> Any:
        return quantity.write(_short(factor * middle))

    laws: list[dict[str, Any]] = [
        {"law": "exponential", "mean": write(1.0)},
        {"law": "lognormal", "median": write(1.0), "sigma": dice.even(0.0, 1.5)},
        {"law": "gamma", "mean": write(1.0), "cv": dice.spread(0.1, 3.0)},
        {"law": "uniform", "low": write(0.0), "high": write(2.0)},
        {"law": "quantiles", "p": [0, 0.5, 1], "x": [write(0.0), write(1.0), write(3.0)]},
    ]
    if dice.chance(0.3):
        return write(1.0)
    clip = {"max": write(2.0)} if dice.chance(0.2) else {}
    return dice.one(laws) | clip
