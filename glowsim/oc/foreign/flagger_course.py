"""Flagger's rules over many canaries at once; ``flagger`` states them, one canary at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glowsim.oc.foreign.flagger import Analysis
from glowsim.oc.foreign.history import History
from glowsim.oc.rules import GUARDRAILS, Bools, Course, Ints, Known, Status

__all__ = ["FlaggerRule"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlaggerRule:
    """A canary analysis of Flagger.

    Args:
        name: what the table calls it.
        analysis: the analysis.
        notes: what was taken for what, and what has no part, for the reader of the figures.
    """

    name: str
    analysis: Analysis
    notes: tuple[str, ...] = ()
    maturity_s: float = 0.0
    alpha: float | None = None

    @property
    def look_s(self) -> float:
        """Seconds from look to look: what divides all its times."""
        return self.analysis.look_s

    @property
    def schedule_s(self) -> float:
        """Seconds to the promotion if every check passes; at least one look."""
        return max(len(self.analysis.shares) * self.analysis.interval_s, self.look_s)

    @property
    def guardrails(self) -> tuple[str, ...]:
        """The streams that its metrics read; ``errors`` if it has none."""
        used = {check.reading.stream for check in self.analysis.checks} or {"errors"}
        return tuple(name for name in GUARDRAILS if name in used)

    def start(self, campaigns: int) -> Course:
        """Return it at the beginning of so many campaigns."""
        return _FlaggerCourse(self, campaigns)


class _FlaggerCourse(Course):
    def __init__(self, rule: FlaggerRule, campaigns: int) -> None:
        super().__init__(campaigns, 0.0)
        self._analysis = rule.analysis
        self._streams = rule.guardrails
        self._shares = (*rule.analysis.shares, 1.0)
        self._every = round(rule.analysis.interval_s / rule.look_s)
        self._windows = [round(check.window_s / rule.look_s) for check in rule.analysis.checks]
        self._history = History(max(self._windows, default=1), len(self._streams))
        self._counts = self._history.empty(campaigns)
        self._failed_checks = np.zeros(campaigns, np.int64)
        self._passed = np.zeros(campaigns, np.int64)
        self._tick(0)

    def take(self, look: int, assigned: Ints, known: Known | None) -> None:
        self._history.put(self._counts, look, known)
        if look % self._every == 0:
            self._tick(look)

    def _tick(self, look: int) -> None:
        running = self.status == Status.RUNNING
        out = running & (self._failed_checks >= self._analysis.threshold)
        self.status[out] = Status.ROLLED_BACK
        self.weight[out] = 0.0
        running &= ~out
        passes = (self._passed == 0) | self._checked(look)
        self._failed_checks += running & ~passes
        on = running & passes
        self.status[on & (self._passed == len(self._shares) - 1)] = Status.PROMOTED
        self.weight[on] = np.asarray(self._shares)[self._passed[on]]
        self._passed += on

    def _checked(self, look: int) -> Bools:
        fine = np.ones(self.status.shape, np.bool_)
        for check, window in zip(self._analysis.checks, self._windows, strict=True):
            stream = self._streams.index(check.reading.stream)
            fine &= check.passes(*self._history.last(self._counts, look, window, stream))
        return fine
