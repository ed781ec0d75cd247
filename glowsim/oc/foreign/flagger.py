"""What Flagger decides, one canary at a time: the specification that ``flagger_course`` is tested against.

The rules are those of fluxcd/flagger: ``pkg/controller/scheduler.go`` (``advanceCanary``, ``runCanary``, ``runAB``,
``nextStepWeight``, ``maxWeight``) and ``pkg/controller/scheduler_metrics.go``. At every tick:

1. If the failed checks have reached the threshold, the canary is rolled back. They are **never reset** within a
   revision: one here and one there add up.
2. The first tick only gives the canary its first share. Every later one checks all metrics; a metric without values
   (no request in its window) is a failed check. A failed check is counted and nothing else happens.
3. A pass raises the share by a step, which may overshoot ``max_weight``; at or above it, a pass promotes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from glowsim.oc.foreign.readings import Reading
from glowsim.oc.rules import Bools, Ints, Status

__all__ = ["Analysis", "Check", "OneCanary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A metric and its range.

    Args:
        name: what the configuration calls it.
        reading: what its value is.
        window_s: seconds that its query looks back, > 0.
        least: lowest value that passes; None: any.
        most: highest value that passes; None: any.
    """

    name: str
    reading: Reading
    window_s: float = 60.0
    least: float | None = None
    most: float | None = None

    def passes(self, requests: Ints, bad: Ints) -> Bools:
        """Return where it passes; without a request it does not.

        Args:
            requests: of the canary in the window, any shape.
            bad: bad outcomes among them, the same shape.
        """
        value = self.reading.value(requests, bad)
        fine = ~np.isnan(value)
        if self.least is not None:
            fine &= value >= self.least
        if self.most is not None:
            fine &= value <= self.most
        return fine


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The analysis of a canary.

    Args:
        interval_s: seconds from tick to tick, >= 10.
        threshold: failed checks that roll it back, >= 1.
        max_weight: share up to which the weight rises, per cent, 1 to 100.
        step_weight: what it rises by, per cent; 0: by ``step_weights``.
        step_weights: the shares one after another, per cent.
        iterations: for an A/B test (routing by header): checks that it passes at a constant share; 0: it is no such.
        test_weight: for an A/B test: the share of the requests that match, 0 to 1.
        checks: its metrics.

    Raises:
        ValueError: the weight would never rise.
    """

    interval_s: float = 60.0
    threshold: int = 1
    max_weight: int = 100
    step_weight: int = 0
    step_weights: tuple[int, ...] = ()
    iterations: int = 0
    test_weight: float = 0.0
    checks: tuple[Check, ...] = ()

    def __post_init__(self) -> None:
        if not (self.step_weight or self.step_weights or self.iterations):
            raise ValueError(
                "it has neither stepWeight, stepWeights nor iterations: its weight would never rise"
            )
        if any(after <= before for before, after in pairwise((0, *self.step_weights))):
            raise ValueError("stepWeights have to rise from step to step, from above 0")

    @property
    def look_s(self) -> float:
        """The longest time that divides all its times, seconds."""
        times = [self.interval_s, *(check.window_s for check in self.checks)]
        return math.gcd(*(round(time * 1000) for time in times)) / 1000.0

    @property
    def top(self) -> int:
        """The share at which a pass promotes, per cent."""
        return min(100, self.step_weights[-1]) if self.step_weights else self.max_weight

    def after(self, weight: int) -> int:
        """Return the share that follows another, per cent.

        >>> Analysis(step_weight=30, max_weight=50).after(30)
        60
        >>> Analysis(step_weights=(1, 5, 20)).after(5)
        20
        """
        if self.step_weight or not self.step_weights:
            return min(100, weight + self.step_weight)
        if weight == 0:
            return min(100, self.step_weights[0])
        below = self.step_weights[:-1]
        return min(100, self.step_weights[below.index(weight) + 1]) if weight in below else 100

    @property
    def shares(self) -> tuple[float, ...]:
        """The shares that a canary has if every check passes, 0 to 1, tick by tick; after the last it is promoted."""
        if self.iterations:
            return (self.test_weight,) * self.iterations
        found, weight = [], 0
        while weight < self.top:
            weight = self.after(weight)
            found.append(weight / 100.0)
        return tuple(found)


@dataclass(slots=True)
class OneCanary:
    """One canary; call ``tick`` at its beginning and then every ``interval_s``.

    Args:
        analysis: its analysis.
        weight: its share, 0 to 1.
        status: where it stands.
        failed_checks: failed checks so far.
    """

    analysis: Analysis
    weight: float = 0.0
    status: Status = Status.RUNNING
    failed_checks: int = 0
    _passed: int = 0

    def tick(self, passes: bool) -> None:
        """Decide; ``passes`` says whether all metrics are in range now."""
        if self.failed_checks >= self.analysis.threshold:
            self.weight, self.status = 0.0, Status.ROLLED_BACK
        elif self._passed and not passes:
            self.failed_checks += 1
        elif self._passed == len(self.analysis.shares):
            self.weight, self.status = 1.0, Status.PROMOTED
        else:
            self.weight = self.analysis.shares[self._passed]
            self._passed += 1
