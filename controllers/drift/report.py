"""What to do about a metric that may have moved."""

from __future__ import annotations

from math import inf
from typing import Literal, NamedTuple, Protocol

from controllers.drift.standing import Standing

__all__ = ["DriftReport", "Recommendation", "Watching", "drift_report", "recommend"]

Recommendation = Literal["none", "watch", "investigate", "retrain", "roll back"]

_NEAR = 1.0
"""Watched from a tenth of the run length on."""


class Watching(Protocol):
    """A detector that can be asked what it knows."""

    metric: str

    def standing(self) -> Standing:
        """Return what it knows now."""


class DriftReport(NamedTuple):
    """Whether a metric has moved, how sure that is, by how much, and what to do about it."""

    metric: str
    has_drift: bool
    drift_score: float
    """log10 of a run length: by chance as often as once in 10^score values (see `Standing`)."""
    before: float
    after: float
    """Means in the metric's unit; nan: not known yet."""
    recommendation: Recommendation
    reason: str


def drift_report(detector: Watching, *, rolled_out: bool = False) -> DriftReport:
    """Return what a detector's state says: pure, it changes nothing.

    Parameters
    ----------
    detector
        Any detector of this family.
    rolled_out
        Whether a version was rolled out since the metric was as before: then roll back, else retrain.

    >>> from controllers.drift.cusum import Cusum
    >>> detector = Cusum(metric="quality", reference=0.9, deviation=0.1, threshold=8, direction="down", margin=0.1)
    >>> alerts = [detector.observe(t_s, 0.6) for t_s in range(3)]
    >>> report = drift_report(detector)
    >>> report.has_drift, report.recommendation, report.reason
    (True, 'retrain', 'moved from 0.9 to 0.6, by at least the 0.1 that matter')
    """
    standing = detector.standing()
    recommendation, reason = recommend(standing, rolled_out=rolled_out)
    return DriftReport(
        detector.metric,
        standing.told,
        standing.score,
        standing.before,
        standing.after,
        recommendation,
        reason,
    )


def recommend(standing: Standing, *, rolled_out: bool = False) -> tuple[Recommendation, str]:
    """Return what to do, and why: by the evidence first, then by the effect against its margin.

    No alert: nothing, or to watch from a tenth of the run length of an alert on. An alert: to watch if the
    mean moved by less than the margin, to investigate if there is no margin, else to retrain or roll back.

    >>> recommend(Standing(3.5, 4.0, 0.05, 0.06))
    ('watch', 'a score of 3.5 is near the 4.0 of an alert')
    """
    if not standing.told:
        if standing.needed == inf:
            return "none", "it still learns what is normal"
        if standing.score >= standing.needed - _NEAR:
            return "watch", f"a score of {standing.score:.1f} is near the {standing.needed:.1f} of an alert"
        return "none", f"a score of {standing.score:.1f} is far from the {standing.needed:.1f} of an alert"
    moved = f"moved from {standing.before:.4g} to {standing.after:.4g}"
    margin = standing.margin
    if margin is None:
        return "investigate", f"{moved}; no margin says whether that matters"
    if abs(standing.effect) < margin:
        return "watch", f"{moved}, by less than the {margin:.4g} that matter"
    return ("roll back" if rolled_out else "retrain"), f"{moved}, by at least the {margin:.4g} that matter"
