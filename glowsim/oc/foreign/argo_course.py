"""Argo's rules over many campaigns at once; ``argo`` states them, one rollout at a time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from glowsim.oc.foreign.argo import RETRY_S, Analyse, Metric, Pause, Phase, Plan, SetWeight, Step
from glowsim.oc.foreign.history import History
from glowsim.oc.rules import GUARDRAILS, Bools, Course, Ints, Known, Status

__all__ = ["ArgoRule"]

_NOT_STARTED: Final = -1
_NEVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgoRule:
    """A canary strategy of Argo Rollouts with its analyses.

    Args:
        name: what the table calls it.
        plan: the strategy.
        notes: what was taken for what, and what has no part, for the reader of the figures.
    """

    name: str
    plan: Plan
    notes: tuple[str, ...] = ()
    maturity_s: float = 0.0
    alpha: float | None = None

    @property
    def look_s(self) -> float:
        """Seconds from look to look: what divides all its times."""
        return self.plan.look_s

    @property
    def schedule_s(self) -> float:
        """Seconds to the end if nothing goes wrong; at least one look."""
        return max(self.plan.schedule_s, self.look_s)

    @property
    def guardrails(self) -> tuple[str, ...]:
        """The streams that its metrics read; ``errors`` if it has none."""
        used = {metric.reading.stream for metric in self.plan.metrics} or {"errors"}
        return tuple(name for name in GUARDRAILS if name in used)

    def start(self, campaigns: int) -> Course:
        """Return it at the beginning of so many campaigns."""
        return _ArgoCourse(self, campaigns)


class _ArgoCourse(Course):
    def __init__(self, rule: ArgoRule, campaigns: int) -> None:
        super().__init__(campaigns, 0.0)
        self._plan = rule.plan
        self._look_s = rule.look_s
        self._streams = rule.guardrails
        metrics = self._plan.metrics
        self._windows = [max(1, round(metric.window_s / self._look_s)) for metric in metrics]
        self._history = History(max(self._windows, default=1), len(self._streams))
        firsts = np.cumsum([0, *(len(run) for run in self._plan.runs)])
        self._rows = [range(int(a), int(b)) for a, b in pairwise(firsts)]
        self._counts = self._history.empty(campaigns)
        self._seen = np.zeros(campaigns, np.bool_)
        self._step = np.zeros(campaigns, np.int64)
        self._until = np.full(campaigns, _NOT_STARTED, np.int64)
        self._run_phases = np.full((len(self._plan.runs), campaigns), _NOT_STARTED, np.int64)
        shape = (len(metrics), campaigns)
        self._phases = np.zeros(shape, np.int64)
        self._due = np.zeros(shape, np.int64)
        self._failed = np.zeros(shape, np.int64)
        self._inconclusive = np.zeros(shape, np.int64)
        self._measured = np.zeros(shape, np.int64)
        self._successes_in_a_row = np.zeros(shape, np.int64)
        self._errors_in_a_row = np.zeros(shape, np.int64)
        self._decide(0)

    def take(self, look: int, assigned: Ints, known: Known | None) -> None:
        self._history.put(self._counts, look, known)
        self._seen |= self._counts[look % self._history.depth, 0] > 0
        self._decide(look)

    def _decide(self, look: int) -> None:
        background = self._plan.background
        if background is not None:
            self._measure(background, self._running() & (self._run_phases[background] != _NOT_STARTED), look)
        for at, step in enumerate(self._plan.steps):
            here = self._running() & (self._step == at)
            if background is not None and at >= self._plan.starting_step:
                self._measure(background, here & (self._run_phases[background] == _NOT_STARTED), look)
                here &= self._running()
            if here.any():
                self._step += self._take_step(step, here, look)
        self._end(self._running() & (self._step == len(self._plan.steps)), Status.PROMOTED)

    def _running(self) -> Bools:
        running: Bools = self.status == Status.RUNNING
        return running

    def _take_step(self, step: Step, here: Bools, look: int) -> Bools:
        """Return which of the campaigns ``here`` are through with the step."""
        match step:
            case SetWeight(weight):
                self.weight[here] = weight
                return here
            case Pause(duration_s):
                self._until[here & (self._until == _NOT_STARTED)] = look + round(duration_s / self._look_s)
                over: Bools = here & (self._until <= look)
                self._until[over] = _NOT_STARTED
                return over
            case Analyse(run):
                self._measure(run, here, look)
                through: Bools = here & self._running() & (self._run_phases[run] == Phase.SUCCESSFUL)
                return through

    def _measure(self, run: int, where: Bools, look: int) -> None:
        """Begin the run where it has not begun, measure what is due, and end the rollouts that it ends."""
        if not where.any():
            return
        metrics, rows = self._plan.runs[run], self._rows[run]
        fresh = where & (self._run_phases[run] == _NOT_STARTED)
        self._run_phases[run, fresh] = Phase.RUNNING
        for metric, row in zip(metrics, rows, strict=True):
            self._due[row, fresh] = look + round(metric.initial_delay_s / self._look_s)
            due = where & (self._phases[row] == Phase.RUNNING) & (self._due[row] <= look)
            if due.any():
                self._measure_one(metric, row, due, look)
        phases = self._phases[rows.start : rows.stop]
        worst = phases.max(axis=0, initial=Phase.SUCCESSFUL)
        done = (phases != Phase.RUNNING).all(axis=0)
        phase = np.where((worst > Phase.SUCCESSFUL) | done, worst, Phase.RUNNING)
        self._run_phases[run, where] = phase[where]
        self._end(where & ((phase == Phase.FAILED) | (phase == Phase.ERROR)), Status.ROLLED_BACK)
        self._end(where & (phase == Phase.INCONCLUSIVE), Status.HELD)

    def _measure_one(self, metric: Metric, row: int, due: Bools, look: int) -> None:
        stream = self._streams.index(metric.reading.stream)
        requests, bad = self._history.last(self._counts, look, self._windows[row], stream)
        found = metric.measure(requests[due], bad[due], self._seen[due])
        erred = found == Phase.ERROR
        self._errors_in_a_row[row, due] = np.where(erred, self._errors_in_a_row[row, due] + 1, 0)
        succeeded = found == Phase.SUCCESSFUL
        self._successes_in_a_row[row, due] = np.where(succeeded, self._successes_in_a_row[row, due] + 1, 0)
        self._measured[row, due] += ~erred
        self._failed[row, due] += found == Phase.FAILED
        self._inconclusive[row, due] += found == Phase.INCONCLUSIVE
        retry = look + round(RETRY_S / self._look_s)
        later = _NEVER if metric.interval_s is None else look + round(metric.interval_s / self._look_s)
        self._due[row, due] = np.where(erred, retry, later)
        self._phases[row, due] = self._assess(metric, row, due)

    def _assess(self, metric: Metric, row: int, due: Bools) -> Ints:
        phase = np.zeros(int(due.sum()), np.int64)
        if metric.ends_after is not None:
            ended = Phase.SUCCESSFUL
            if metric.consecutive_success_limit:
                ended = Phase.FAILED if metric.failure_limit < 0 else Phase.INCONCLUSIVE
            phase[self._measured[row, due] >= metric.ends_after] = ended
        if metric.consecutive_success_limit:
            enough = self._successes_in_a_row[row, due] >= metric.consecutive_success_limit
            phase[enough] = Phase.SUCCESSFUL
        if metric.failure_limit >= 0:
            phase[self._failed[row, due] > metric.failure_limit] = Phase.FAILED
        phase[self._inconclusive[row, due] > metric.inconclusive_limit] = Phase.INCONCLUSIVE
        phase[self._errors_in_a_row[row, due] > metric.consecutive_error_limit] = Phase.ERROR
        return phase

    def _end(self, where: Bools, status: Status) -> None:
        self.status[where] = status
        if status is not Status.HELD:
            self.weight[where] = 1.0 if status is Status.PROMOTED else 0.0
