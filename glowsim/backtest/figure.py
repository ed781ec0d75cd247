"""The picture of a backtest: how latencies are distributed, recorded and modelled."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import numpy as np

from glowsim.backtest.modelled import Calls, Floats
from glowsim.report.style import BLUE, ORANGE, STYLE, bare

__all__ = ["distributions"]

_PARTS: Final = {"latency_s": "latency", "first_token_s": "first token"}
_P: Final = np.linspace(0.005, 0.995, 199)


def distributions(recorded: Calls, modelled: Sequence[Calls]) -> str:
    """Return the share of answers within each time as SVG: recorded, and modelled by all replications together.

    Parameters
    ----------
    recorded
        The judged part; at least two of its answers have a latency.
    modelled
        Its replications.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    parts = [name for name in _PARTS if len(_times(recorded, name)) > 1]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.5))
        drawn = figure.subplots(1, len(parts), squeeze=False)[0]
        figure.subplots_adjust(left=0.07, right=0.985, top=0.86, bottom=0.19, wspace=0.16)
        for axes, name in zip(drawn, parts, strict=True):
            ours = np.concatenate([_times(calls, name) for calls in modelled])
            axes.plot(np.quantile(_times(recorded, name), _P), 100 * _P, color=ORANGE, label="recorded")
            axes.plot(np.quantile(ours, _P), 100 * _P, color=BLUE, linestyle="--", label="modelled")
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel("seconds")
            axes.set_title(f"{_PARTS[name]}: % of answers within")
            axes.set_ylim(0, 100)
            axes.legend(loc="lower right")
        text = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=nothing, transparent=True)
    return bare(text.getvalue())


def _times(calls: Calls, name: str) -> Floats:
    values: Floats = getattr(calls, name)[calls.answered]
    return values[np.isfinite(values) & (values > 0)]
