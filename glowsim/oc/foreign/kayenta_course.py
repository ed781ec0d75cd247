"""Kayenta's judge over many canaries at once; ``kayenta`` states its rules, one canary at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from glowsim.oc.foreign.kayenta import (
    LEAST_SHIFT,
    QUANTILE,
    Judge,
    Label,
    Metric,
    Schedule,
    Verdict,
    classify,
)
from glowsim.oc.foreign.mann_whitney import deviates, separated
from glowsim.oc.rules import BASELINE, CANARY, GUARDRAILS, Bools, Course, Floats, Ints, Known, Status

__all__ = ["KayentaRule"]

_POINT_S: Final = 60.0
_SEED: Final = 20180410
"""Of the split of the old version's requests; the same for every course, as a rule draws nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KayentaRule:
    """A canary configuration of Kayenta with its schedule.

    Args:
        name: what the table calls it.
        judge: the configuration.
        schedule: when it judges.
        weight: the share of the requests that the canary gets, above 0 and below 1.
        equal_baseline: the baseline is a part of the old version as large as the canary, as Spinnaker's documents
            advise, drawn at random from its requests; without it, all of the old version.
        notes: what was taken for what, and what has no part, for the reader of the figures.
    """

    name: str
    judge: Judge
    schedule: Schedule
    weight: float
    equal_baseline: bool = True
    notes: tuple[str, ...] = ()
    look_s: float = _POINT_S
    maturity_s: float = 0.0
    alpha: float | None = None

    @property
    def schedule_s(self) -> float:
        """Seconds to the last judgement."""
        return self.schedule.judgements[-1] * _POINT_S

    @property
    def guardrails(self) -> tuple[str, ...]:
        """The streams that its metrics read."""
        used = {metric.reading.stream for metric in self.judge.metrics}
        return tuple(name for name in GUARDRAILS if name in used)

    def start(self, campaigns: int) -> Course:
        """Return it at the beginning of so many campaigns."""
        return _KayentaCourse(self, campaigns)


class _KayentaCourse(Course):
    def __init__(self, rule: KayentaRule, campaigns: int) -> None:
        super().__init__(campaigns, rule.weight)
        self._judge = rule.judge
        self._schedule = rule.schedule
        self._streams = rule.guardrails
        self._part = min(1.0, rule.weight / (1.0 - rule.weight)) if rule.equal_baseline else 1.0
        self._random = np.random.default_rng(_SEED)
        shape = (len(rule.judge.metrics), 2, rule.schedule.judgements[-1], campaigns)
        self._points = np.full(shape, np.nan, np.float32)

    def take(self, look: int, assigned: Ints, known: Known | None) -> None:
        minutes = self._points.shape[2]
        if known is not None and look <= minutes:
            requests, bad = self._compared(known)
            for at, metric in enumerate(self._judge.metrics):
                stream = self._streams.index(metric.reading.stream)
                self._points[at, :, look - 1] = metric.reading.value(requests[stream], bad[stream])
        if look in self._schedule.judgements:
            self._decide(look)

    def _compared(self, known: Known) -> tuple[Ints, Ints]:
        """Return requests and bad outcomes by stream and arm, with as much of the old version as is compared."""
        requests = np.repeat(known.requests[None], len(self._streams), axis=0)
        bad = known.bad.copy()
        if self._part < 1.0:
            n = known.requests[BASELINE]
            sample = self._random.binomial(n, self._part)
            requests[:, BASELINE] = sample
            for stream, x in enumerate(known.bad[:, BASELINE]):
                bad[stream, BASELINE] = self._random.hypergeometric(x, n - x, sample)
        return requests, bad

    def _decide(self, look: int) -> None:
        span, last = self._schedule.span(look), look == self._schedule.judgements[-1]
        verdicts = [
            verdicts_of(metric, *self._points[at, (CANARY, BASELINE), span].astype(np.float64))
            for at, metric in enumerate(self._judge.metrics)
        ]
        found = {each: self._judge.status(each, last) for each in set(zip(*verdicts, strict=True))}
        running = self.status == Status.RUNNING
        status = np.array([found[each] for each in zip(*verdicts, strict=True)], np.int8).reshape(
            running.shape
        )
        self.status[running] = status[running]
        self.weight[self.status == Status.ROLLED_BACK] = 0.0
        self.weight[self.status == Status.PROMOTED] = 1.0


def verdicts_of(metric: Metric, canary: Floats, baseline: Floats) -> Sequence[Verdict]:
    """Return what ``classify`` says of many canaries.

    The interval of the shift can lie beyond 0 only if the statistic just beside 0 is beyond the quantile, or if the
    samples do not overlap: only those few are worked out in full.

    Args:
        metric: how.
        canary: points, shape (n, campaigns); NaN is a point without a value.
        baseline: points, shape (m, campaigns).
    """
    verdicts = [Verdict(Label.PASS)] * canary.shape[1]
    for at in np.flatnonzero(_in_question(metric, canary, baseline)):
        verdicts[at] = classify(metric, canary[:, at], baseline[:, at])
    return verdicts


def _in_question(metric: Metric, canary: Floats, baseline: Floats) -> Bools:
    if metric.outlier_factor is not None:
        return np.ones(canary.shape[1], np.bool_)
    x, y = (
        np.where(np.isnan(each), 0.0, each) if metric.replace_nan else each for each in (canary, baseline)
    )
    asked = np.zeros(canary.shape[1], np.bool_)
    asked |= np.isnan(x).all(axis=0) | np.isnan(y).all(axis=0)
    above, below = separated(x, y)
    if metric.direction != "decrease":
        asked |= (deviates(x - LEAST_SHIFT, y) > QUANTILE) | above
    if metric.direction != "increase":
        asked |= (deviates(x + LEAST_SHIFT, y) < -QUANTILE) | below
    return asked
