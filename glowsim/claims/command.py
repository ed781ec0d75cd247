"""``glowsim report claims``: hold a document's claims against each other and against simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from glowsim.claims.document import Claims
from glowsim.claims.simulation import simulate
from glowsim.claims.verdicts import Judged, judge
from glowsim.core.errors import GlowsimError
from glowsim.scenario.loader import load_as

__all__ = ["BUNDLED", "ClaimsReport", "report_claims"]

BUNDLED = Path(__file__).with_name("prisma_glow_phase_5.yaml")
"""The claims that come with glowsim."""


class ClaimsReport(NamedTuple):
    """A page that is on disk, and what it says."""

    html: Path
    pdf: Path
    judged: tuple[Judged, ...]


def report_claims(
    folder: Path, source: Path = BUNDLED, *, simulated: bool = True, data: Path | None = None, jobs: int = 1,
    command: Sequence[str] = ("glowsim", "report", "claims"), progress: Callable[[str], None] | None = None,
) -> ClaimsReport:  # fmt: skip
    """Write ``claims.html`` and ``claims.pdf``.

    Parameters
    ----------
    folder
        Where to; made if it is not there.
    source
        A file of claims.
    simulated
        Whether to run the scenarios that show some of them.
    data
        The folder of recorded traces, for those scenarios.
    jobs
        Processes to spread replications over, at least 1.
    command
        How to do it again, for the page.
    progress
        Told which scenario is run.

    Raises
    ------
    GlowsimError
        The page is there already, the claims cannot be read, or a scenario cannot be run.
    """
    html, pdf = folder / "claims.html", folder / "claims.pdf"
    for path in (html, pdf):
        if path.exists():
            raise GlowsimError(f"{path} exists: name another folder, or remove it")
    document = load_as(Claims, source)
    shown = simulate(document, data=data, jobs=jobs, progress=progress) if simulated else {}
    from glowsim.claims import page
    from glowsim.report import render

    judged = judge(document, shown)
    finished_at = datetime.now(UTC).isoformat(timespec="seconds")
    report = page.build(document, judged, shown, finished_at, command)
    folder.mkdir(parents=True, exist_ok=True)
    html.write_text(render.html(report), encoding="utf-8")
    pdf.write_bytes(render.pdf(report, finished_at))
    return ClaimsReport(html, pdf, tuple(judged))
