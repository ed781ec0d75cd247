"""How every picture looks: colours that print in grey, one font, no frame, titles to the left."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["BAND", "BLUE", "GREEN", "GRID", "INK", "ORANGE", "RED", "SOFT", "STYLE", "bare", "headed"]

INK, SOFT, GRID, BAND = "#22303c", "#5b6873", "#e3e7ea", "#dfe4e7"
BLUE, ORANGE, GREEN, RED = "#1f5fa8", "#b8560b", "#1b7a5a", "#a3293d"
STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "glowsim",
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.titlesize": 8.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "legend.handlelength": 2.2,
    "lines.linewidth": 1.3,
    "path.simplify": True,
    "path.simplify_threshold": 0.2,
}


def bare(svg: str) -> str:
    """Return an SVG without what stands before its element and ids that are only names: several share a page."""
    svg = svg[svg.index("<svg") :]
    return re.sub(r' id="[A-Za-z][A-Za-z.]*_[0-9]+"', "", svg).strip()


def headed(axes: Axes, title: str, low: float | None = 0.0) -> None:
    """Give axes a title, a legend beside it, and room above the lines."""
    axes.set_title(title)
    if low is not None:
        axes.set_ylim(low, 1.06 * axes.get_ylim()[1])
    axes.grid(visible=False, axis="x")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.97), ncols=5, borderaxespad=0, columnspacing=1.4)
