"""What a picture is made of, and how its figures are put into words."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from glowsim.pictures.load import CENTRES_S, DURATION_S, Floats, per_second
from glowsim.pictures.panels import Line, Panel, Shaded
from glowsim.results import Tables

__all__ = [
    "GRID_S",
    "Facts",
    "Picture",
    "added_up",
    "arriving",
    "changes",
    "level",
    "said",
    "share_of",
    "so_far",
]

GRID_S: Final[Floats] = np.arange(0.0, DURATION_S + 1.0, 5.0)
"""Every 5 s."""

Facts = dict[tuple[str, str], float]
"""(What was measured, for whom) -> the figure."""


class Picture(NamedTuple):
    """A family under the standard load."""

    panels: tuple[Panel, ...]
    shaded: Shaded | None
    alternative: str
    """What the picture is of, for those who cannot see it."""
    says: str
    """What it shows, in a sentence or two with the figures of this very run."""
    facts: Facts
    """The figures that the sentence hangs on."""


def arriving(tables: Tables) -> Panel:
    """Return the panel of the load, for the top of a picture."""
    load = Line("_load", CENTRES_S, per_second(tables.requests["t_arrive_s"]), 0, True)
    return Panel("Arrivals (requests/s)", [load], height=0.7)


def changes(label: str, t_s: Floats, values: Floats, look: int | None, *, filled: bool = False) -> Line:
    """Return what holds from each moment on as a curve with a point at each change only."""
    kept = np.flatnonzero(np.diff(values, prepend=np.nan, append=np.nan))[:-1]
    kept = np.unique([0, *kept, len(values) - 1])
    return Line(label, t_s[kept], values[kept], look, filled, "post")


def so_far(label: str, t_s: Floats, look: int) -> Line:
    """Return how many of these moments there have been, every 5 s."""
    return changes(label, GRID_S, counted(t_s, GRID_S), look)


def counted(t_s: Floats, until_s: Floats) -> Floats:
    """Return how many of these moments there have been until each of some others, these included."""
    return np.searchsorted(np.sort(t_s), until_s, side="right").astype(np.float64)


def added_up(label: str, t_s: Floats, values: Floats, look: int) -> Line:
    """Return the sum of the values up to each moment, every 30 s."""
    bins = np.searchsorted(CENTRES_S, t_s)
    sums: Floats = np.cumsum(np.bincount(bins, weights=values, minlength=len(CENTRES_S)))
    return Line(label, CENTRES_S, sums[: len(CENTRES_S)], look, step="post")


def level(label: str, value: float) -> Line:
    """Return a thin line at one height, such as where an alarm begins."""
    return Line(label, np.array([0.0, DURATION_S]), np.array([value, value]), None)


def share_of(flags: Any) -> float:
    """Return which share of these is true; 0 of none."""
    return float(np.mean(flags)) if len(flags) else 0.0


def said(facts: Facts, what: str, unit: str = "", *, whole: bool = False) -> str:
    """Return the figures of all policies in their order, shares in percent, counts as whole numbers.

    >>> said({("late", "lifo"): 0.131, ("late", "fifo"): 0.02, ("p95", "lifo"): 1.0}, "late", " %")
    '13 % and 2 %'
    """
    percent = unit == " %"
    values = [100 * value if percent else value for (name, _), value in facts.items() if name == what]
    words = [f"{value:.{0 if whole or percent or value >= 9.5 else 1}f}{unit}" for value in values]
    return f"{', '.join(words[:-1])} and {words[-1]}"
