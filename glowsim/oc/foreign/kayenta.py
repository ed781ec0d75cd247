"""What Kayenta's judge decides, one canary at a time: the specification that ``kayenta_course`` is tested against.

The rules are those of ``NetflixACAJudge-v1.0`` in spinnaker/kayenta (``kayenta-judge``: ``NetflixACAJudge``,
``MannWhitneyClassifier``, ``WeightedSumScorer``, ``EffectSizes``, ``IQRDetector``) and of Spinnaker's page "How canary
judgment works":

- A metric is a series of points of each version. It is High if the 98 % interval of the shift lies wholly above 0.25
  of the **estimated shift itself** and the effect is at least ``allowed_increase``; Low the other way round. That
  tolerance is no margin of harm: it shrinks with the estimate.
- The score is the weighted share of the metrics of each group that pass, 0 to 100; 0 if a critical metric fails, or
  if half of the metrics or more have no data.
- Judged at every interval: below ``marginal`` the canary has failed; at the end it needs ``pass_at``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

import numpy as np
from scipy.stats import norm

from glowsim.oc.foreign.mann_whitney import shift_at
from glowsim.oc.foreign.readings import Reading
from glowsim.oc.rules import Bools, Floats, Status

__all__ = ["LEAST_SHIFT", "QUANTILE", "Judge", "Label", "Metric", "Schedule", "Verdict", "classify", "score"]

QUANTILE: Final = float(norm.ppf(0.99))
"""Of the interval of the shift, which has a confidence of 98 %."""
LEAST_SHIFT: Final = 1e-9
"""A shift of a share that is not above this is none."""
_TOLERANCE: Final = 0.25
_MOST_WITHOUT_DATA: Final = 0.5


class Label(Enum):
    """How a metric of the canary compares with the baseline."""

    PASS = "Pass"  # noqa: S105 - a label, no secret
    HIGH = "High"
    LOW = "Low"
    NODATA = "Nodata"
    NODATA_FAIL = "NodataFailMetric"


class Verdict(NamedTuple):
    """A metric's label, and whether it is a critical failure."""

    label: Label
    critical: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric and how it is judged.

    Args:
        name: what the configuration calls it.
        reading: what a point of it is.
        groups: the groups that it counts in, at least one.
        direction: which change is bad: ``increase``, ``decrease`` or ``either``.
        replace_nan: a point without a value is 0; without it, no point.
        critical: its failure fails the canary.
        must_have_data: without points it has failed.
        measure: the effect: ``meanRatio`` (canary / baseline) or ``cles`` (share of pairs in which the canary is
            higher).
        allowed_increase: effect from which High counts; None: 1 for a ratio, 0.5 for a share.
        allowed_decrease: effect up to which Low counts; None as above.
        critical_increase: effect from which High is critical, where ``critical``; None as above.
        critical_decrease: effect up to which Low is critical; None as above.
        outlier_factor: points beyond so many interquartile ranges and beyond the 1st and 99th percentile are removed;
            None: none are.
    """

    name: str
    reading: Reading
    groups: tuple[str, ...]
    direction: str = "either"
    replace_nan: bool = False
    critical: bool = False
    must_have_data: bool = False
    measure: str = "meanRatio"
    allowed_increase: float | None = None
    allowed_decrease: float | None = None
    critical_increase: float | None = None
    critical_decrease: float | None = None
    outlier_factor: float | None = None

    def limit(self, given: float | None) -> float:
        """Return a limit of the effect, or what stands for one that is not given."""
        return given if given is not None else 0.5 if self.measure == "cles" else 1.0

    def cleaned(self, points: Floats) -> Floats:
        """Return the points that are compared: without NaN, or with 0 for it, and without outliers."""
        kept: Floats = (
            np.where(np.isnan(points), 0.0, points) if self.replace_nan else points[~np.isnan(points)]
        )
        return (
            kept
            if self.outlier_factor is None or not len(kept)
            else kept[~_outliers(kept, self.outlier_factor)]
        )


def _outliers(points: Floats, factor: float) -> Bools:
    p1, p25, p75, p99 = np.percentile(points, [1, 25, 75, 99], method="weibull")
    spread = factor * (p75 - p25)
    beyond: Bools = (points < min(p1, p25 - spread)) | (points > max(p99, p75 + spread))
    return beyond


def classify(metric: Metric, canary: Floats, baseline: Floats) -> Verdict:
    """Compare the points of a metric.

    Args:
        metric: how.
        canary: its points, shape (n,); NaN is a point without a value.
        baseline: those of the baseline, shape (m,).
    """
    x, y = metric.cleaned(canary), metric.cleaned(baseline)
    if not len(x) or not len(y):
        if metric.replace_nan:
            return Verdict(Label.PASS)
        if metric.must_have_data and not metric.critical:
            return Verdict(Label.NODATA_FAIL)
        return Verdict(Label.NODATA, metric.critical)
    if np.array_equal(np.sort(x), np.sort(y)) or (np.append(x, y) == x[0]).all():
        return Verdict(Label.PASS)
    effect = _effect(metric, x, y)
    if metric.direction != "decrease" and _above(x, y) and not effect < metric.limit(metric.allowed_increase):
        return Verdict(Label.HIGH, metric.critical and not effect < metric.limit(metric.critical_increase))
    if metric.direction != "increase" and _above(y, x) and not effect > metric.limit(metric.allowed_decrease):
        return Verdict(Label.LOW, metric.critical and not effect > metric.limit(metric.critical_decrease))
    return Verdict(Label.PASS)


def _above(x: Floats, y: Floats) -> bool:
    """Whether the interval of the shift of ``x`` against ``y`` lies above the tolerance."""
    if (x[0] == x).all() and (y[0] == y).all():
        return bool(x[0] > y[0])  # Kayenta adds a little noise here: the interval closes on the difference
    low = shift_at(x, y, QUANTILE)
    return low > LEAST_SHIFT and low > _TOLERANCE * abs(shift_at(x, y, 0.0))


def _effect(metric: Metric, x: Floats, y: Floats) -> float:
    """Return the effect; NaN, which passes no limit by, for a ratio with a mean of 0."""
    if metric.measure == "cles":
        other = np.sort(y)
        wins = np.searchsorted(other, x, "left") + np.searchsorted(other, x, "right")
        return float(wins.sum()) / (2.0 * len(x) * len(y))
    means = float(x.mean()), float(y.mean())
    return means[0] / means[1] if all(means) else float("nan")


def score(metrics: Sequence[Metric], verdicts: Sequence[Verdict], group_weights: dict[str, float]) -> float:
    """Return the score of a judgement, 0 to 100, rounded to two decimals.

    Args:
        metrics: the metrics that count, in any order, at least one.
        verdicts: theirs.
        group_weights: group -> weight, per cent; groups without one share what is left of 100 equally.

    >>> both = [Metric(name=name, reading=Reading("errors"), groups=(name,)) for name in ("a", "b")]
    >>> score(both, [Verdict(Label.PASS), Verdict(Label.HIGH)], {"a": 75})
    75.0
    """
    without = sum(verdict.label is Label.NODATA for verdict in verdicts)
    if any(verdict.critical for verdict in verdicts) or without >= _MOST_WITHOUT_DATA * len(verdicts):
        return 0.0
    groups: dict[str, list[Label]] = {}
    for metric, verdict in zip(metrics, verdicts, strict=True):
        for group in metric.groups:
            groups.setdefault(group, []).append(verdict.label)
    unweighted = [group for group in groups if group not in group_weights]
    rest = (100.0 - sum(group_weights.values())) / len(unweighted) if unweighted else 0.0
    total = 0.0
    for group, labels in groups.items():
        counted = [label for label in labels if label is not Label.NODATA]
        passed = sum(label is Label.PASS for label in counted) / len(counted) if counted else 1.0
        total += passed * group_weights.get(group, rest)
    return round(total, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """A canary configuration.

    Args:
        metrics: those that count, at least one.
        group_weights: group -> weight, per cent.
        pass_at: least score at the end, 0 to 100.
        marginal: least score on the way, 0 to ``pass_at``.
    """

    metrics: tuple[Metric, ...]
    group_weights: dict[str, float]
    pass_at: float
    marginal: float

    def decide(self, points: Sequence[tuple[Floats, Floats]], last: bool) -> Status:
        """Return where the canary stands after a judgement; ``points`` are (canary, baseline) of each metric."""
        verdicts = [classify(metric, *each) for metric, each in zip(self.metrics, points, strict=True)]
        return self.status(verdicts, last)

    def status(self, verdicts: Sequence[Verdict], last: bool) -> Status:
        """Return where the canary stands with these verdicts."""
        found = score(self.metrics, verdicts, self.group_weights)
        if found < (self.pass_at if last else self.marginal):
            return Status.ROLLED_BACK
        return Status.PROMOTED if last else Status.RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When there are judgements, and over which points; all in whole minutes, the length of a point.

    Args:
        lifetime_min: how long the canary is analysed, >= 1.
        interval_min: from judgement to judgement, 1 to ``lifetime_min``.
        begin_after_min: points left out at first, >= 0.
        lookback_min: points that a judgement looks at, >= 1; None: all since the beginning.
    """

    lifetime_min: int
    interval_min: int
    begin_after_min: int = 0
    lookback_min: int | None = None

    @property
    def judgements(self) -> tuple[int, ...]:
        """The minutes at whose end there is a judgement.

        >>> Schedule(lifetime_min=240, interval_min=60, begin_after_min=5).judgements
        (65, 125, 185, 245)
        """
        times = self.lifetime_min // self.interval_min
        return tuple(self.begin_after_min + each * self.interval_min for each in range(1, times + 1))

    def span(self, end: int) -> slice:
        """Return which minutes a judgement at the end of minute ``end`` looks at."""
        start = self.begin_after_min if self.lookback_min is None else max(0, end - self.lookback_min)
        return slice(start, end)
