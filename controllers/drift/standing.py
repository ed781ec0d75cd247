"""What a drift detector knows at a moment, on one scale for all of them, and the alert that says it."""

from __future__ import annotations

from math import exp, inf, isfinite, isnan, log10, nan
from typing import Literal, NamedTuple

from glowsim.core.types import Alert, Code, Reason, Severity

__all__ = ["Direction", "Standing", "Tells", "UNKNOWN", "alert_of", "checked", "cusum_score"]

Direction = Literal["up", "down", "both"]


class Standing(NamedTuple):
    """What a detector knows of its metric.

    The score is log10 of a run length: how many values there are between two false alarms of a detector
    that alarms at this much evidence. 4.7: it comes by chance once in 50,000 values, or more rarely. It is
    on the same scale for all detectors; how each gets it, and how sure it is, stands in its class.

    >>> Standing(4.7, 4.0, before=0.05, after=0.1).effect
    0.05
    """

    score: float
    """log10 of a run length in values, 0 or more; never more than 300."""
    needed: float
    """The score of an alert."""
    before: float = nan
    """Mean of the metric before, in its unit; nan: not known yet."""
    after: float = nan
    """Mean since it has moved, or of what is newest."""
    told: bool = False
    """It has raised an alert, and has not learned since then what is normal now."""
    margin: float | None = None
    """Change of the mean that matters, in the metric's unit; None: nobody said."""

    @property
    def effect(self) -> float:
        """How far the mean has moved, in the metric's unit; nan: not known."""
        return self.after - self.before


UNKNOWN = Standing(0.0, inf)
"""Of a detector that still learns what is normal."""


class Tells(NamedTuple):
    """Which moves a detector tells of.

    >>> Tells.of("down")
    Tells(up=False, down=True)
    """

    up: bool
    down: bool

    @classmethod
    def of(cls, direction: Direction) -> Tells:
        """Return the moves that a direction stands for."""
        return cls(direction != "down", direction != "up")


def alert_of(metric: str, standing: Standing, code: Code) -> Alert:
    """Return the alert about a metric that has moved.

    Its reason holds the score and the means before and after. Its severity is the recommendation: INFO,
    watch (it moved by less than the margin); WARNING, investigate (no margin was given); CRITICAL, retrain
    or roll back.
    """
    if standing.margin is None:
        severity = Severity.WARNING
    else:
        severity = Severity.CRITICAL if abs(standing.effect) >= standing.margin else Severity.INFO
    return Alert(0, metric, severity, Reason(code, a=standing.score, b=standing.before, c=standing.after))


def checked(metric: str, t_s: float, value: float) -> float:
    """Return a value, which must be finite; raises ``ValueError`` with the metric's name and the moment."""
    if not isfinite(value):
        raise ValueError(f"{metric}: {value} at {t_s} s is not finite; leave a missing value out")
    return value


_MOST = 300.0


def cusum_score(reach: float, allowance: float, sides: int) -> float:
    """Return log10 of the run length of a CUSUM chart with this threshold, by Siegmund's approximation.

    ``reach`` and ``allowance`` are in standard deviations, ``sides`` is 1 or 2. For normal, independent
    values without a change: b = reach + 1.166, (exp(2 k b) - 2 k b - 1) / (2 k^2), and b^2 at k = 0.

    >>> round(10 ** cusum_score(4.0, 0.5, 2)), round(10 ** cusum_score(5.0, 0.5, 2))
    (169, 469)

    Source: Siegmund, Sequential Analysis, 1985; the exact values are 168 and 465.
    """
    if isnan(reach) or reach <= 0.0:
        return 0.0
    b = reach + 1.166
    twice = 2.0 * allowance * b
    if twice > 600.0:
        return min(_MOST, twice / 2.302585092994046 - log10(2.0 * allowance**2 * sides))
    length = b * b if twice < 1e-4 else (exp(twice) - twice - 1.0) / (2.0 * allowance**2)
    return min(_MOST, max(0.0, log10(length / sides)))
