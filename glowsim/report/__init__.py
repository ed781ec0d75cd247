"""The report of a run: one model, an HTML page that opens offline, and a PDF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glowsim.scenario import Scenario

__all__ = ["write_reports"]


def write_reports(
    folder: Path, scenario: Scenario, summary: dict[str, Any], manifest: dict[str, Any]
) -> None:
    """Write ``report.html`` and ``report.pdf`` into a run's folder; the same run gives the same bytes.

    Parameters
    ----------
    folder
        The run's, finished or about to be, with its Parquet tables.
    scenario
        What was run.
    summary, manifest
        As they are written beside the tables.

    Raises
    ------
    FileNotFoundError
        A table is missing from the folder.
    """
    from glowsim.report import model, render

    report = model.build(folder, scenario, summary, manifest)
    (folder / "report.html").write_text(render.html(report), encoding="utf-8")
    (folder / "report.pdf").write_bytes(render.pdf(report, manifest["finished_at"]))
