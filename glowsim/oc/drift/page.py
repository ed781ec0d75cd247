"""The page of what drift detectors promise and do, as plain data for the templates that every report uses."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

import glowsim
from glowsim.oc.drift.calibrate import Delay
from glowsim.oc.drift.saying import Found, answer, cells
from glowsim.report.blocks import Block, clean, code, figure, section, table, text
from glowsim.report.style import STYLE, bare

__all__ = ["build", "delays"]

_LOOKS: Final = {
    "shiryaev_roberts": ("#3b5bdb", "-", "o"),
    "cusum": ("#2b8a3e", "--", "s"),
    "page_hinkley": ("#e8590c", "-.", "^"),
    "adwin": ("#862e9c", ":", "D"),
    "ks": ("#c92a2a", "-", "v"),
    "psi": ("#868e96", "--", "x"),
}
"""Detector -> colour, dashes, marker."""


def build(found: Found, finished_at: str, command: Sequence[str]) -> Block:
    """Return the page: the answer, one chart, a table for the plain regime and one for all of them.

    Parameters
    ----------
    found
        At least one detector.
    finished_at
        ISO 8601, for the foot of the page.
    command
        How to do it again.
    """
    word = "kept" if found.kept else "not kept"
    tables = []
    first_delay = 2 + len(found.regimes)
    for place, title in enumerate(found.titles):
        rows = cells(found, everywhere=place == 1)
        tables.append(_table([row[:2] + row[first_delay:] for row in rows], title))
        tables.append(
            _table([row[:1] + row[2:first_delay] for row in rows[:-1]], "run lengths at these settings")
        )
    where = "; ".join(f"({i}) {each.name}" for i, each in enumerate(found.regimes, 1))
    return {
        "kicker": "Drift detectors",
        "title": clean(f"{found.regimes[0].name}, a false alarm once in {found.budget:,.0f} values"),
        "question": "How often is each detector wrong on this metric, and how late is it when the metric moves?",
        "verdict": word,
        "mark": "good" if found.kept else "bad",
        "headline": clean(answer(found)),
        "levels": [],
        "sections": [
            section(
                "delays", "Delay at equal run length",
                f"Every detector at the lowest threshold that keeps the run length. {where}.",
                [
                    figure(
                        delays(found), "Median delay of each detector over the size of the change.",
                        "Values from the change to the alarm, median; a detector that alarms at random is above all.",
                    ),
                    *tables,
                    text(found.legend),
                ],
            ),
            section("again", "Again", "", [code(" ".join(command))]),
        ],
        "marks": {"kept": "good", "not kept": "bad"},
        "footer": clean(f"glowsim {glowsim.__version__} · oc --drift · {finished_at}"),
    }  # fmt: skip


def _table(rows: Sequence[Sequence[str]], title: str) -> Block:
    heads, *others = rows
    texts = {"detector", "setting"}
    return table("|".join(head if head in texts else f">{head}" for head in heads), others, title=title)


def delays(found: Found) -> str:
    """Return the median delay of each detector over the shift, plain and everywhere side by side, as SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    titles = ("plain", "also quiet where nothing is wrong")[: len(found.titles)]
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(7.2, 2.9))
        panels: Any = drawn.subplots(1, len(titles), sharey=True, squeeze=False)[0]
        drawn.subplots_adjust(left=0.09, right=0.985, top=0.9, bottom=0.3, wspace=0.06)
        for place, (axes, title) in enumerate(zip(panels, titles, strict=True)):
            for each in found.detectors:
                at = each.everywhere if place else each.plain
                if at is not None:
                    colour, dashes, marker = _LOOKS[each.name]
                    x, y = _points(at.delays)
                    axes.plot(
                        x, y, color=colour, linestyle=dashes, marker=marker, markersize=3.5, label=each.name
                    )
            x, y = _points(found.chance)
            axes.plot(x, y, color="#adb5bd", linewidth=3.0, label="at random", zorder=0)
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_title(title)
            axes.set_xlabel("change: of a rate in points, else relative, %")
        panels[0].set_ylabel("values")
        handles, labels = panels[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="lower center", ncols=len(labels))
        written = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        drawn.savefig(written, format="svg", metadata=nothing, transparent=True)
    return bare(written.getvalue())


def _points(delays: Sequence[Delay]) -> tuple[Any, Any]:
    """Return shifts in % by size, and medians; a change that is mostly missed is left out."""
    ordered = sorted(delays)
    medians = np.array([each.median for each in ordered])
    return np.array([100.0 * each.shift for each in ordered]), np.where(np.isfinite(medians), medians, np.nan)
