"""The picture of a policy: how often it rolls back and promotes, by how much worse a version is."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from glowsim.oc.characteristics import Budget, Line
from glowsim.report.style import BAND, GREEN, ORANGE, RED, SOFT, STYLE, bare
from glowsim.stats.intervals import Interval

__all__ = ["by_effect"]


def by_effect(lines: Sequence[Line], budget: Budget) -> str:
    """Return the shares of campaigns that end each way, with intervals of 95 %, over the effect, as SVG.

    Parameters
    ----------
    lines
        At least one, by rising effect.
    budget
        Its margin and its smallest effect are marked.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    x = np.array([100 * line.effect for line in lines])
    ways: list[tuple[str, str, str, list[Interval]]] = [
        ("rolled back", RED, "-", [line.rolled_back for line in lines]),
        ("promoted", GREEN, "--", [line.promoted for line in lines]),
        ("held", ORANGE, ":", [line.held for line in lines]),
    ]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.7))
        axes = figure.subplots()
        figure.subplots_adjust(left=0.07, right=0.985, top=0.88, bottom=0.16)
        for at, words in ((budget.margin, "margin"), (budget.smallest, "must be found")):
            axes.axvline(100 * at, color=BAND, linewidth=3.0, zorder=0)
            axes.text(100 * at, 103, words, color=SOFT, ha="center", va="bottom")
        for label, colour, dashes, shares in ways:
            mean, low, high = (
                100 * np.array([getattr(each, end) for each in shares]) for end in ("mean", "low", "high")
            )
            axes.errorbar(
                x, mean, yerr=(np.maximum(mean - low, 0.0), np.maximum(high - mean, 0.0)), color=colour,
                linestyle=dashes, marker="o", markersize=3.0, capsize=2.0, label=label,
            )  # fmt: skip
        axes.set_xlabel("what the new version adds to the share of bad outcomes, in points")
        axes.set_title("% of campaigns", pad=14.0)
        axes.set_ylim(-2, 102)
        axes.legend(loc="center right")
        text = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=nothing, transparent=True)
    return bare(text.getvalue())
