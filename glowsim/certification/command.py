"""``glowsim certify``: a run over many seeds, and the certificate that it earns."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from glowsim.certification.certificate import Certificate, of_run
from glowsim.certification.envelope import figures_of, widest
from glowsim.results import load
from glowsim.scenario import Scenario

__all__ = ["certified"]


def certified(scenario: Scenario, folder: Path) -> Certificate:
    """Return the certificate that a finished run earns.

    Parameters
    ----------
    scenario
        What was run.
    folder
        Of the run.

    Raises
    ------
    CertificateError
        A service level is not met, is undecided, or there is none.
    EnvelopeError
        A replication has too few requests.
    """
    run = load(folder)
    counted = run.requests[run.requests["t_arrive_s"] >= scenario.warmup_s]
    replications = [
        figures_of({str(name): column for name, column in rows.items()})
        for _, rows in counted.groupby("replication")
    ]
    made = datetime.now(UTC).isoformat(timespec="seconds")
    return of_run(scenario, run.summary, widest(replications), made)
