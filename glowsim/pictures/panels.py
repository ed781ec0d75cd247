"""Panels over the forty minutes of the standard load, one below the other, in the style of the reports."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from glowsim.pictures.load import BURST_S, DURATION_S, RAMP_S, STEP_S
from glowsim.report import style
from glowsim.report.style import BAND, BLUE, GREEN, INK, ORANGE, RED, SOFT, bare, headed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["STYLE", "Line", "Panel", "Shaded", "figure", "svg"]

STYLE: Final = {**style.STYLE, "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Arial"]}
"""The settings of matplotlib under which a figure is made and saved."""
_WIDTH_IN: Final = 7.2
_HUNDREDTHS: Final = re.compile(r"(\d\.\d\d)\d+")
"""Of a point is where coordinates end: a third of the bytes."""
_LOOKS: Final[tuple[dict[str, Any], ...]] = (
    {"color": BLUE, "linestyle": "-", "linewidth": 1.4},
    {"color": ORANGE, "linestyle": (0, (4, 1.5)), "linewidth": 1.4},
    {"color": RED, "linestyle": (0, (1, 1.2)), "linewidth": 1.8},
    {"color": GREEN, "linestyle": (0, (6, 1.5, 1, 1.5)), "linewidth": 1.4},
)
"""Told apart by their dashes, too."""
_FAINT: Final[dict[str, Any]] = {"color": SOFT, "linestyle": "-", "linewidth": 0.6, "alpha": 0.7}
_PHASES: Final = (("ramp", RAMP_S), ("step", STEP_S), ("burst", BURST_S))


class Line(NamedTuple):
    """A curve over time."""

    label: str
    t_s: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    look: int | None = 0
    """Which of four looks; None: thin and grey, for one of many."""
    filled: bool = False
    step: Literal["mid", "post"] = "mid"
    """Whether a value holds around its moment, or from it on."""


class Panel(NamedTuple):
    """Curves with one axis."""

    title: str
    """What is drawn, with its unit."""
    lines: Sequence[Line]
    top: float | None = None
    """Upper end of the axis; None: from what is drawn."""
    height: float = 1.0
    """Relative to the others."""


class Shaded(NamedTuple):
    """Spans of time in which something is wrong, and what."""

    what: str
    spans_s: tuple[tuple[float, float], ...]


def svg(panels: Sequence[Panel], shaded: Shaded | None = None) -> str:
    """Return panels as SVG text on white; equal bytes for equal data and version of matplotlib.

    Parameters
    ----------
    panels
        From the top; the phases of the load are named in the first.
    shaded
        When something is wrong.
    """
    import matplotlib as mpl

    drawn = io.StringIO()
    with mpl.rc_context(STYLE):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure(panels, shaded).savefig(drawn, format="svg", metadata=nothing)
    return _HUNDREDTHS.sub(r"\1", bare(drawn.getvalue())) + "\n"


def figure(panels: Sequence[Panel], shaded: Shaded | None = None) -> Figure:
    """Return panels as a figure; parameters are those of `svg`; to be made, drawn and saved in ``STYLE``."""
    from matplotlib.figure import Figure

    heights = [panel.height for panel in panels]
    tall_in = 1.12 * sum(heights) + 0.65
    found = Figure(figsize=(_WIDTH_IN, tall_in), facecolor="white")
    rows = found.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    found.subplots_adjust(left=0.07, right=0.985, top=1 - 0.42 / tall_in, bottom=0.42 / tall_in, hspace=0.48)
    for axes, panel in zip(rows, panels, strict=True):
        _draw(axes, panel)
        for begin_s, end_s in shaded.spans_s if shaded is not None else ():
            axes.axvspan(begin_s / 60, end_s / 60, color=BAND, linewidth=0, zorder=0)
    _name_the_phases(rows[0])
    if shaded is not None:
        found.text(0.985, 0.075 / tall_in, f"shaded: {shaded.what}", ha="right", fontsize=8, color=SOFT)
    rows[-1].set_xlim(0, DURATION_S / 60)
    rows[-1].set_xticks(range(0, int(DURATION_S / 60) + 1, 5))
    rows[-1].set_xlabel("simulated time (minutes)", loc="left")
    return found


def _draw(axes: Axes, panel: Panel) -> None:
    for line in panel.lines:
        look = _FAINT if line.look is None else _LOOKS[line.look]
        if line.filled:
            axes.fill_between(
                line.t_s / 60, line.values, color=look["color"], alpha=0.18, linewidth=0, step=line.step
            )
        axes.plot(line.t_s / 60, line.values, label=line.label, drawstyle=f"steps-{line.step}", **look)
    axes.set_title(panel.title)
    axes.set_ylim(0, panel.top or 1.06 * axes.get_ylim()[1])
    axes.locator_params(axis="y", nbins=4)
    if any(line.label[0] != "_" for line in panel.lines):
        headed(axes, panel.title, low=None)
    axes.grid(visible=False, axis="x")


def _name_the_phases(axes: Axes) -> None:
    top = axes.get_ylim()[1]
    axes.set_ylim(0, 1.25 * top)
    for name, (begin_s, end_s) in _PHASES:
        axes.text((begin_s + end_s) / 120, 1.2 * top, name, ha="center", va="top", fontsize=7.5, color=INK)
