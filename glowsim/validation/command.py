"""``glowsim report validation``: run the oracle table and write its page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from glowsim.core.errors import GlowsimError
from glowsim.validation.running import AGREES, Measured, Progress, measure_all

__all__ = ["Validation", "report_validation"]


class Validation(NamedTuple):
    """A page that is on disk, and what it says."""

    html: Path
    pdf: Path
    measured: tuple[Measured, ...]

    @property
    def agrees(self) -> bool:
        """Whether every simulated quantity agrees with theory."""
        return all(each.verdict == AGREES for each in self.measured)


def report_validation(
    folder: Path, *, full: bool = False, jobs: int = 1, command: Sequence[str] = ("glowsim", "report", "validation"),
    progress: Progress | None = None,
) -> Validation:  # fmt: skip
    """Run every simulated case of the oracle table and write ``validation.html`` and ``validation.pdf``.

    Parameters
    ----------
    folder
        Where to; made if it is not there.
    full
        The campaign's sizes, which take about an hour of CPU, in place of half a minute.
    jobs
        Processes to spread replications over, at least 1.
    command
        How to do it again, for the page.
    progress
        Told how many cases are done, of how many, and the title of the next.

    Raises
    ------
    GlowsimError
        A page is there already.
    """
    html, pdf = folder / "validation.html", folder / "validation.pdf"
    for path in (html, pdf):
        if path.exists():
            raise GlowsimError(f"{path} exists: name another folder, or remove it")
    from glowsim.report import render
    from glowsim.validation import page

    measured = tuple(measure_all(full=full, jobs=jobs, progress=progress))
    finished_at = datetime.now(UTC).isoformat(timespec="seconds")
    report = page.build(measured, finished_at, command, full=full)
    folder.mkdir(parents=True, exist_ok=True)
    html.write_text(render.html(report), encoding="utf-8")
    pdf.write_bytes(render.pdf(report, finished_at))
    return Validation(html, pdf, measured)
