"""What Argo Rollouts decides, one rollout at a time: the specification that ``argo_course`` is tested against.

The rules are those of argoproj/argo-rollouts: ``analysis/analysis.go`` (how a metric is assessed and which status of a
run is the worst), ``utils/evaluate/evaluate.go`` (what a measurement is), ``docs/features/analysis.md`` (background and
inline analysis, delays, missing values), ``utils/replicaset/canary.go`` (shares without traffic routing), and its pull
request 3970 (successes in a row). In short:

- A measurement fails, succeeds, is inconclusive (neither condition holds) or errs (the condition cannot be told).
- A metric has failed once its failures, **counted over the whole run**, exceed ``failure_limit``. Inconclusive
  measurements have a limit of their own that overrides this one, errors in a row another that overrides both.
- An error is measured again after 10 s and does not count towards ``count``.
- The first metric that ends badly ends its run. A run that failed or erred aborts the rollout, an inconclusive one
  pauses it until a person acts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np

from glowsim.oc.foreign.conditions import Condition, Truth
from glowsim.oc.foreign.readings import Reading
from glowsim.oc.rules import Bools, Ints, Status

__all__ = [
    "RETRY_S",
    "Analyse",
    "Metric",
    "OneRollout",
    "Pause",
    "Phase",
    "Plan",
    "SetWeight",
    "Step",
    "Tally",
    "Window",
    "assess",
    "share_by_replicas",
]

RETRY_S: Final = 10.0
"""Seconds after which a measurement that erred is taken again (``DefaultErrorRetryInterval``)."""


class Phase(IntEnum):
    """How a measurement, a metric or a run stands; of several that ended, the greatest is the worst."""

    RUNNING = 0
    SUCCESSFUL = 1
    INCONCLUSIVE = 2
    ERROR = 3
    FAILED = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A metric of an analysis template.

    Args:
        name: what the configuration calls it.
        reading: what its value is.
        window_s: seconds that its query looks back, > 0.
        interval_s: seconds from measurement to measurement, > 0; None: one measurement.
        count: measurements that end it, >= 1; None: it runs as long as the rollout, or once without an interval.
        initial_delay_s: seconds before its first measurement, >= 0.
        failure_limit: failures that it may have; -1: any.
        inconclusive_limit: inconclusive measurements that it may have, >= 0.
        consecutive_error_limit: errors in a row that it may have, >= 0.
        consecutive_success_limit: successes in a row that end it well; 0: any number.
        success: the measurement succeeded; without it, it did where ``failure`` does not hold.
        failure: the measurement failed; without it, it did where ``success`` does not hold.
        nan_without_requests: an empty window gives NaN once the new version was ever asked (Prometheus divides 0 by
            0), and no element before; without it, never an element.
    """

    name: str
    reading: Reading
    window_s: float
    interval_s: float | None = None
    count: int | None = None
    initial_delay_s: float = 0.0
    failure_limit: int = 0
    inconclusive_limit: int = 0
    consecutive_error_limit: int = 4
    consecutive_success_limit: int = 0
    success: Condition | None = None
    failure: Condition | None = None
    nan_without_requests: bool = True

    @property
    def ends_after(self) -> int | None:
        """Measurements that end it: ``count``, one without an interval, else None."""
        return 1 if self.count is None and self.interval_s is None else self.count

    @property
    def may_err(self) -> bool:
        """Whether a result without an element is an error of the measurement."""
        empty = np.array([np.nan]), np.array([False])
        return any(bool(each.evaluate(*empty).errs[0]) for each in (self.success, self.failure) if each)

    def measure(self, requests: Ints, bad: Ints, seen: Bools) -> Ints:
        """Return the ``Phase`` of a measurement.

        Args:
            requests: of the new version in the window, any shape.
            bad: bad outcomes among them, the same shape.
            seen: whether the new version has had a request since the rollout began, the same shape.
        """
        values = self.reading.value(requests, bad)
        present = seen if self.nan_without_requests else ~np.isnan(values)
        nothing = Truth(np.zeros_like(present), np.zeros_like(present))
        good = self.success.evaluate(values, present) if self.success else nothing
        ill = self.failure.evaluate(values, present) if self.failure else nothing
        if self.success is None:
            good = Truth(~ill.holds, ill.errs)
        elif self.failure is None:
            ill = Truth(~good.holds, good.errs)
        phase = np.where(good.holds, Phase.SUCCESSFUL, Phase.INCONCLUSIVE)
        phase = np.where(ill.holds, Phase.FAILED, phase)
        return np.where(good.errs | ill.errs, Phase.ERROR, phase).astype(np.int64)


@dataclass(slots=True)
class Tally:
    """What a metric's measurements were."""

    failed: int = 0
    inconclusive: int = 0
    count: int = 0
    successes_in_a_row: int = 0
    errors_in_a_row: int = 0

    def add(self, phase: Phase) -> None:
        """Count a measurement."""
        self.successes_in_a_row = self.successes_in_a_row + 1 if phase is Phase.SUCCESSFUL else 0
        if phase is Phase.ERROR:
            self.errors_in_a_row += 1
            return
        self.errors_in_a_row = 0
        self.count += 1
        self.failed += phase is Phase.FAILED
        self.inconclusive += phase is Phase.INCONCLUSIVE


def assess(metric: Metric, tally: Tally) -> Phase:
    """Return how a metric stands after its measurements.

    >>> metric = Metric(name="m", reading=Reading("errors"), window_s=60, interval_s=60, failure_limit=3)
    >>> assess(metric, Tally(failed=3, count=90)), assess(metric, Tally(failed=4, count=90))
    (<Phase.RUNNING: 0>, <Phase.FAILED: 4>)
    """
    if tally.errors_in_a_row > metric.consecutive_error_limit:
        return Phase.ERROR
    if tally.inconclusive > metric.inconclusive_limit:
        return Phase.INCONCLUSIVE
    if 0 <= metric.failure_limit < tally.failed:
        return Phase.FAILED
    wanted = metric.consecutive_success_limit
    if 0 < wanted <= tally.successes_in_a_row:
        return Phase.SUCCESSFUL
    if metric.ends_after is None or tally.count < metric.ends_after:
        return Phase.RUNNING
    if not wanted:
        return Phase.SUCCESSFUL
    return Phase.FAILED if metric.failure_limit < 0 else Phase.INCONCLUSIVE


class SetWeight(NamedTuple):
    """Give the new version this share of the requests, 0 to 1."""

    weight: float


class Pause(NamedTuple):
    """Wait so many seconds, > 0."""

    duration_s: float


class Analyse(NamedTuple):
    """Run an analysis to its end: the place of its metrics in ``Plan.runs``."""

    run: int


Step = SetWeight | Pause | Analyse


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A canary strategy.

    Args:
        steps: in their order; after the last the new version has all the requests.
        runs: the metrics of each analysis.
        background: which of them runs beside the steps; None: none.
        starting_step: the step at which that one begins, from 0.
    """

    steps: tuple[Step, ...]
    runs: tuple[tuple[Metric, ...], ...] = ()
    background: int | None = None
    starting_step: int = 0

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics of all runs."""
        return tuple(metric for run in self.runs for metric in run)

    @property
    def look_s(self) -> float:
        """The longest time that divides all its times, seconds: it needs no finer looks."""
        times = [step.duration_s for step in self.steps if isinstance(step, Pause)]
        for each in self.metrics:
            times += [each.window_s, each.interval_s or 0.0, each.initial_delay_s, RETRY_S * each.may_err]
        return math.gcd(*(round(time * 1000) for time in times if time)) / 1000.0 if any(times) else 60.0

    @property
    def schedule_s(self) -> float:
        """Seconds to the end if nothing goes wrong and no measurement errs."""
        return math.fsum(self._lasts_s(step) for step in self.steps)

    def _lasts_s(self, step: Step) -> float:
        match step:
            case SetWeight():
                return 0.0
            case Pause(duration_s):
                return duration_s
            case Analyse(run):
                return max((_lasts_s(metric) for metric in self.runs[run]), default=0.0)


def _lasts_s(metric: Metric) -> float:
    """Seconds that an inline metric takes if every measurement succeeds."""
    times = [each for each in (metric.ends_after, metric.consecutive_success_limit) if each]
    return metric.initial_delay_s + (min(times) - 1) * (metric.interval_s or 0.0)


Window = Callable[[Metric], tuple[int, int, bool]]
"""Gives the requests and bad outcomes of the new version in a metric's window, and whether it ever had a request."""


@dataclass(slots=True)
class _Run:
    started: int
    tallies: list[Tally]
    phases: list[Phase]
    due: list[float]

    @property
    def phase(self) -> Phase:
        """The worst that ended badly; well if all ended well."""
        worst = max(self.phases, default=Phase.SUCCESSFUL)
        if worst > Phase.SUCCESSFUL:
            return worst
        return Phase.SUCCESSFUL if all(self.phases) else Phase.RUNNING


@dataclass(slots=True)
class OneRollout:
    """One rollout, looked at every ``plan.look_s`` seconds; call ``look`` with 0 first.

    Args:
        plan: its strategy.
        weight: the share of the new version, 0 to 1.
        status: where it stands.
    """

    plan: Plan
    weight: float = 0.0
    status: Status = Status.RUNNING
    _step: int = 0
    _until: int | None = None
    _runs: dict[int, _Run] = field(default_factory=dict)

    def look(self, look: int, window: Window) -> None:
        """Measure what is due and go as many steps on as may be, at ``look * look_s`` seconds since the beginning."""
        background = self.plan.background
        if background in self._runs:
            self._measure(background, look, window)
        while self.status is Status.RUNNING and self._step < len(self.plan.steps):
            if (
                background is not None
                and background not in self._runs
                and self._step >= self.plan.starting_step
            ):
                self._measure(background, look, window)
                continue
            if not self._take_step(self.plan.steps[self._step], look, window):
                return
            self._step += 1
        if self.status is Status.RUNNING:
            self._end(Status.PROMOTED)

    def _take_step(self, step: Step, look: int, window: Window) -> bool:
        """Return whether the step is over."""
        match step:
            case SetWeight(weight):
                self.weight = weight
                return True
            case Pause(duration_s):
                if self._until is None:
                    self._until = look + round(duration_s / self.plan.look_s)
                if look < self._until:
                    return False
                self._until = None
                return True
            case Analyse(run):
                return self._measure(run, look, window) is Phase.SUCCESSFUL

    def _measure(self, run: int, look: int, window: Window) -> Phase:
        metrics, look_s = self.plan.runs[run], self.plan.look_s
        if run not in self._runs:
            delays = [float(look + round(each.initial_delay_s / look_s)) for each in metrics]
            fresh = [Phase.RUNNING for _ in metrics]
            self._runs[run] = _Run(look, [Tally() for _ in metrics], fresh, delays)
        state = self._runs[run]
        for at, metric in enumerate(metrics):
            if state.phases[at] is not Phase.RUNNING or state.due[at] > look:
                continue
            requests, bad, seen = window(metric)
            found = Phase(int(metric.measure(np.array(requests), np.array(bad), np.array(seen))))
            state.tallies[at].add(found)
            state.phases[at] = assess(metric, state.tallies[at])
            pause_s = RETRY_S if found is Phase.ERROR else metric.interval_s
            state.due[at] = math.inf if pause_s is None else look + round(pause_s / look_s)
        if state.phase in (Phase.FAILED, Phase.ERROR):
            self._end(Status.ROLLED_BACK)
        elif state.phase is Phase.INCONCLUSIVE:
            self._end(Status.HELD)
        return state.phase

    def _end(self, status: Status) -> None:
        self.status = status
        if status is not Status.HELD:
            self.weight = 1.0 if status is Status.PROMOTED else 0.0


def share_by_replicas(replicas: int, percent: int, max_surge: int) -> float:
    """Return the share of the new version where no router splits the traffic, only the number of replicas does.

    Of the counts just below and just above the wanted share, with and without one replica more, the nearest is taken;
    a share above 0 and below 100 % never means none of the one, nor (without a surge) none of the other.

    Args:
        replicas: how many there are, >= 1.
        percent: the wanted share, 0 to 100.
        max_surge: replicas that there may be on top, >= 0.

    >>> share_by_replicas(5, 10, 1), share_by_replicas(10, 19, 1), share_by_replicas(10, 99, 1)
    (0.16666666666666666, 0.18181818181818182, 0.9090909090909091)

    Source: utils/replicaset/canary.go of argoproj/argo-rollouts and its test's table of counts.
    """
    if percent in (0, 100):
        return percent / 100.0
    none_allowed = replicas == 1 and max_surge == 0
    options: list[tuple[int, int]] = []
    for total in (replicas, replicas + 1) if max_surge > 0 else (replicas,):
        above, below = -(-replicas * percent // 100), replicas * percent // 100
        tied = (total * percent) % 100 == 50
        if total > replicas or above < replicas or none_allowed:
            options.append((above, total))
        if not tied and (below or none_allowed):
            options.append((below, total))
    canary, total = min(options, key=lambda each: abs(each[0] * 100 / each[1] - percent))
    return canary / total
