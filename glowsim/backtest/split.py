"""A log in two: what is fitted on, and what is judged."""

from __future__ import annotations

from typing import Final, NamedTuple

from glowsim.importing.part import ImportProblem, part
from glowsim.traces.log import Log

__all__ = ["LEAST_FITTED", "LEAST_JUDGED", "Split", "split"]

LEAST_FITTED: Final = 50
"""Rows without which nothing is fitted that deserves a judgement."""
LEAST_JUDGED: Final = 20
"""Rows without which a 95th percentile is the largest value."""


class Split(NamedTuple):
    """Two parts of a log, neither of which knows of the other."""

    fitted: Log
    judged: Log
    at_s: float
    """When the judged part begins, from the log's first row."""


def split(log: Log, holdout: float) -> Split:
    """Return the part of a log before ``(1 - holdout) x its length in time``, and the part from there on.

    Parameters
    ----------
    log
        The whole.
    holdout
        Share of the time that is judged, above 0 and below 1.

    Raises
    ------
    ImportProblem
        A part has too few rows; says how many it has.

    >>> import numpy as np
    >>> from glowsim.traces.log import Reading
    >>> made = split(Log("a.csv", "csv", np.arange(101.0), Reading(101)), 0.25)
    >>> len(made.fitted), len(made.judged), made.at_s
    (75, 26, 75.0)
    """
    if not 0.0 < holdout < 1.0:
        raise ImportProblem(f"the share held out must lie between 0 and 1, not {holdout:g}")
    at_s = (1.0 - holdout) * float(log.t_s[-1])
    judged = log.t_s >= at_s
    n_judged, n_fitted = int(judged.sum()), int((~judged).sum())
    if n_fitted < LEAST_FITTED or n_judged < LEAST_JUDGED:
        raise ImportProblem(
            f"{log.source} has too little: {n_fitted} rows to fit on and {n_judged} to judge, where at least "
            f"{LEAST_FITTED} and {LEAST_JUDGED} are needed: give a longer log, or another share to hold out"
        )
    return Split(part(log, ~judged), part(log, judged), at_s)
