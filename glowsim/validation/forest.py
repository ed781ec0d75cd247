"""The picture of the validation page: every simulated quantity's relative error with its interval."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

from glowsim.report.style import BAND, BLUE, INK, RED, STYLE, bare
from glowsim.validation.running import DISAGREES, HALF_WIDTH, Measured

__all__ = ["forest", "widest_error"]

_ROW_IN: Final = 0.145
_WIDTH_IN: Final = 7.2


def widest_error(measured: Sequence[Measured]) -> float:
    """Return how far the intervals reach from the exact values, as a share of these, and a little more.

    An interval that is wide for a stated reason does not count.

    Parameters
    ----------
    measured
        At least one that counts.
    """
    reach = max(
        abs(end / each.quantity.exact - 1.0)
        for each in measured
        if not each.quantity.why_wide
        for end in (each.interval.low, each.interval.high)
    )
    return max(1.04 * reach, 1.5 * HALF_WIDTH)


def forest(measured: Sequence[Measured], limit: float) -> str:
    """Return a forest plot as SVG: a row a quantity, its error as a share of the exact value, in per cent.

    Parameters
    ----------
    measured
        At least one.
    limit
        Where the axis ends, either way: a share.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        height_in = _ROW_IN * len(measured) + 0.62
        figure = Figure(figsize=(_WIDTH_IN, height_in))
        axes = figure.subplots()
        figure.subplots_adjust(left=0.44, right=0.985, top=1.0 - 0.06 / height_in, bottom=0.5 / height_in)
        axes.axvspan(-100.0 * HALF_WIDTH, 100.0 * HALF_WIDTH, color=BAND, linewidth=0)
        axes.axvline(0.0, color=INK, linewidth=0.8)
        for row, each in enumerate(measured):
            exact, (mean, low, high, _) = each.quantity.exact, each.interval
            colour = RED if each.verdict == DISAGREES else BLUE
            ends = [100.0 * (low / exact - 1.0), 100.0 * (high / exact - 1.0)]
            axes.plot(ends, [row, row], color=colour, linewidth=1.1, solid_capstyle="butt")
            axes.plot([100.0 * (mean / exact - 1.0)], [row], color=colour, marker="o", markersize=2.8)
        names = [f"{each.case.title}: {each.quantity.name}" for each in measured]
        axes.set_yticks(range(len(measured)), names, fontsize=6.3)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_ylim(len(measured) - 0.4, -0.6)
        axes.set_xlim(-100.0 * limit, 100.0 * limit)
        axes.set_xlabel("simulated less exact, % of the exact value")
        drawn = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawn, format="svg", metadata=nothing, transparent=True)
    return bare(drawn.getvalue())
