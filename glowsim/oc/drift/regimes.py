"""What a metric does while all is well, and what a change does to it: values of many streams at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from glowsim.core.errors import GlowsimError

__all__ = [
    "Regime", "bernoulli", "daily", "lognormal", "mixed", "normal", "read_regime", "recorded", "weekly",
]  # fmt: skip

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, Floats, float], Floats]
"""(generator, factor on the mean of each value, shape (streams, values), effect) -> values."""
_BLOCK: Final = 50
"""Values of a record that stay together when it is resampled."""
_MOST_VALUES: Final = 5_000_000


@dataclass(frozen=True)
class Regime:
    """A metric's law, and how its mean moves with time though nothing is wrong.

    Parameters
    ----------
    name
        As it is shown.
    draw
        Draws values given the factor on their mean and the effect of a change (0: none).
    factor
        Place of each value in its stream, from 0 -> factor on the mean; shape (streams, values).
    must_not_alarm
        Whether the mean moves here though nothing is wrong.
    """

    name: str
    draw: Draw
    factor: Callable[[np.random.Generator, int, int, int], Floats] | None = None
    must_not_alarm: bool = False

    def values(
        self, rng: np.random.Generator, streams: int, start: int, n: int, effect: float = 0.0
    ) -> Floats:
        """Return values ``start`` .. ``start + n`` of ``streams`` streams, shape (streams, n)."""
        moved = self.factor
        factor = np.ones((streams, n)) if moved is None else moved(rng, streams, start, n)
        return self.draw(rng, factor, effect)


def bernoulli(rate: float) -> Regime:
    """Return errors: 1 with probability ``rate``, above 0 and below 1; an effect is added to it.

    >>> values = bernoulli(0.05).values(np.random.default_rng(1), 2, 0, 5000, effect=0.05)
    >>> round(float(values.mean()), 2)
    0.1
    """
    if not 0.0 < rate < 1.0:
        raise GlowsimError(f"a rate of {rate:g}: give one above 0 and below 1, such as 5%")

    def draw(rng: np.random.Generator, factor: Floats, effect: float) -> Floats:
        drawn: Floats = (rng.random(factor.shape) < rate * factor + effect).astype(np.float64)
        return drawn

    return Regime(f"errors at {rate:.3g}", draw)


def normal(mean: float, deviation: float) -> Regime:
    """Return normal values, such as scores; an effect is relative to the mean."""
    if not deviation > 0.0 or not math.isfinite(mean):
        raise GlowsimError(f"normal:{mean:g},{deviation:g}: give a mean and a deviation above 0")

    def draw(rng: np.random.Generator, factor: Floats, effect: float) -> Floats:
        drawn: Floats = rng.normal(size=factor.shape) * deviation + mean * factor * (1.0 + effect)
        return drawn

    return Regime(f"normal, mean {mean:g}, deviation {deviation:g}", draw)


def lognormal(mean: float, variation: float) -> Regime:
    """Return lognormal values, such as latencies: ``variation`` is deviation / mean; an effect is relative.

    >>> values = lognormal(2.0, 0.5).values(np.random.default_rng(1), 1, 0, 100_000)
    >>> f"{values.mean():.2f} {values.std() / values.mean():.2f}"
    '1.99 0.50'
    """
    if not (mean > 0.0 and variation > 0.0):
        raise GlowsimError(f"lognormal:{mean:g},{variation:g}: give a mean and a variation above 0")
    sigma = math.sqrt(math.log(1.0 + variation * variation))
    scale = math.log(mean) - sigma * sigma / 2.0

    def draw(rng: np.random.Generator, factor: Floats, effect: float) -> Floats:
        drawn: Floats = rng.lognormal(scale, sigma, factor.shape) * factor * (1.0 + effect)
        return drawn

    return Regime(f"lognormal, mean {mean:g}, variation {variation:g}", draw)


def recorded(name: str, values: Floats) -> Regime:
    """Return a record resampled in blocks of 50, so that what hangs together within a block still does.

    An effect is relative to each value; where the record is all 0 and 1 it is added to the rate of ones.
    """
    if len(values) < 2 * _BLOCK or not np.isfinite(values).all():
        raise GlowsimError(f"{name}: give {2 * _BLOCK} finite values or more; {len(values)} are there")
    binary = bool(np.isin(values, (0.0, 1.0)).all())
    ones = float(values.mean())
    if binary and not 0.0 < ones < 1.0:
        raise GlowsimError(
            f"{name}: all {len(values)} values are {values[0]:g}; there is nothing to resample"
        )

    def draw(rng: np.random.Generator, factor: Floats, effect: float) -> Floats:
        streams, n = factor.shape
        blocks = -(-n // _BLOCK)
        starts = rng.integers(0, len(values) - _BLOCK + 1, (streams, blocks))
        drawn: Floats = values[(starts[:, :, None] + np.arange(_BLOCK)).reshape(streams, -1)[:, :n]]
        if not binary:
            moved: Floats = drawn * factor * (1.0 + effect)
            return moved
        added = np.clip((ones * factor + effect - ones) / (1.0 - ones), 0.0, 1.0)
        kept = np.clip((ones * factor + effect) / ones, 0.0, 1.0)
        luck = rng.random(factor.shape)
        turned: Floats = np.where(drawn == 0.0, luck < added, luck < kept).astype(np.float64)
        return turned

    return Regime(name, draw)


def daily(of: Regime, per_day: float, swing: float) -> Regime:
    """Return a regime whose mean swings by ``swing`` (0..1) in a day of ``per_day`` values."""

    def factor(rng: np.random.Generator, streams: int, start: int, n: int) -> Floats:
        phase = 2.0 * math.pi * (start + np.arange(n)) / per_day
        return np.broadcast_to(1.0 + swing * np.sin(phase), (streams, n))

    return Regime(f"a day's rhythm of {swing:.0%}", of.draw, factor, must_not_alarm=True)


def weekly(of: Regime, per_day: float, swing: float) -> Regime:
    """Return a regime whose mean is less by ``swing`` (0..1) on the last two of seven days of ``per_day`` values."""

    def factor(rng: np.random.Generator, streams: int, start: int, n: int) -> Floats:
        day = (start + np.arange(n)) // per_day % 7
        return np.broadcast_to(np.where(day >= 5, 1.0 - swing, 1.0 + swing * 0.4), (streams, n))

    return Regime(f"weekends less by {swing:.0%}", of.draw, factor, must_not_alarm=True)


def mixed(of: Regime, per_day: float, spread: float) -> Regime:
    """Return two kinds of task, each of constant quality, whose shares change four times a day.

    The mean of one is less by ``spread`` (0..1), that of the other more; the share of the second is drawn
    anew each time, 0..1, so that of all together the factor is 1 - spread .. 1 + spread.
    """
    length = max(1, round(per_day / 4.0))

    def factor(rng: np.random.Generator, streams: int, start: int, n: int) -> Floats:
        period = (start + np.arange(n)) // length
        first = int(period[0])
        shares = np.stack([_share(streams, at) for at in range(first, int(period[-1]) + 1)])
        other = rng.random((streams, n)) < shares[period - first].T
        return np.where(other, 1.0 + spread, 1.0 - spread)

    return Regime(f"a mix that changes, kinds {spread:.0%} apart from the mean", of.draw, factor, True)


def _share(streams: int, period: int) -> Floats:
    """Return the share of the second kind in a period: of the period alone, so that a chunk may end anywhere."""
    return np.random.default_rng((streams, period)).random(streams)


def read_regime(written: str) -> Regime:
    """Return what a regime is: ``errors:5%``, ``normal:0.8,0.1``, ``lognormal:2,0.5``, or ``FILE.csv:COLUMN``.

    A file may be CSV (also .gz) or Parquet, as a run's tables are.

    Raises ``GlowsimError`` for anything else.

    >>> read_regime("errors:5%").name
    'errors at 0.05'
    """
    kind, _, numbers = written.rpartition(":")
    laws: dict[str, tuple[Callable[..., Regime], int]] = {
        "errors": (bernoulli, 1),
        "normal": (normal, 2),
        "lognormal": (lognormal, 2),
    }
    if kind in laws:
        law, n = laws[kind]
        try:
            given = [_number(each) for each in numbers.split(",")]
        except ValueError:
            given = []
        if len(given) != n:
            raise GlowsimError(f"--regime {written}: {kind} takes {n} number{'s' * (n > 1)} after the colon")
        return law(*given)
    path = Path(kind)
    if not kind or not path.is_file():
        raise GlowsimError(
            f"--regime {written}: write errors:5%, normal:MEAN,DEVIATION, lognormal:MEAN,VARIATION or FILE.csv:COLUMN"
        )
    return recorded(written, _column(path, numbers))


def _number(text: str) -> float:
    text = text.strip()
    return float(text[:-1]) / 100.0 if text.endswith("%") else float(text)


def _column(path: Path, column: str) -> Floats:
    import pandas as pd

    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path, columns=[column])
        else:
            table = pd.read_csv(path, usecols=[column], nrows=_MOST_VALUES)
        values: Floats = pd.to_numeric(table[column]).to_numpy(np.float64)
    except (ValueError, KeyError, OSError, TypeError) as error:
        raise GlowsimError(f"{path}: no column {column!r} of numbers: {error}") from None
    return values[np.isfinite(values)]
