"""Page's CUSUM chart."""

from __future__ import annotations

from math import fsum, sqrt
from typing import Annotated, Any

from controllers.drift.standing import (
    UNKNOWN,
    Direction,
    Standing,
    Tells,
    alert_of,
    checked,
    cusum_score,
)
from glowsim.core.parameters import Bound, Count, Positive
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Alert, Code

__all__ = ["Cusum"]


class Cusum(Stateful):
    """Decides that a metric has moved when its excess over a reference, added up, reaches a threshold.

    With z = (x - ``reference``) / ``deviation``: up = max(0, up + z - ``allowance``), down likewise for -z,
    and an alert when either exceeds ``threshold``. The reference is given, or the mean of the first
    ``baseline`` values; the deviation too. After an alert it learns what is normal afresh (a given
    reference stays).

    The score is log10 of Siegmund's approximation of the run length at a threshold that high. It holds for
    normal, independent values and a known reference; errors are skewed and a baseline is not the truth, so
    the run length is then another, mostly a shorter one: ``glowsim oc --drift`` measures it.

    Parameters
    ----------
    metric
        ``latency_s``, ``error``, ``tokens_in``, ``tokens_out``, ``cost_usd``, or the name of an observed metric.
    threshold
        Excess that is an alert, above 0, in standard deviations: h of the textbooks.
    allowance
        Half of the move to be noticed, 0 or more, in standard deviations: k of the textbooks.
    reference, deviation
        Mean and standard deviation (above 0) when all is well, in the metric's unit; None: learned.
    baseline
        Values to learn them from, at least 2.
    direction
        Which moves count.
    margin
        Change of the mean that matters, 0 or more, in the metric's unit; None: nobody said.

    Raises
    ------
    ValueError
        A value that is not finite, or a baseline of one value.

    Notes
    -----
    Sources: Page, "Continuous inspection schemes", Biometrika 41, 1954; Siegmund, Sequential Analysis, 1985.

    >>> detector = Cusum(metric="latency_s", threshold=5, allowance=0.5, reference=1.0, deviation=0.2)
    >>> alerts = [detector.observe(t_s, 1.0 if t_s < 100 else 1.3) for t_s in range(110)]
    >>> [(t_s, alert.reason.code.name, alert.reason.c) for t_s, alert in enumerate(alerts) if alert]
    [(104, 'DRIFT_UP', 1.3), (109, 'DRIFT_UP', 1.3)]
    """

    state = ("_learned", "_mean", "_scale", "_up", "_down", "_up_since", "_down_since", "_last")
    _learned: list[float] | None
    """The values so far to learn from what is normal; None: it is known."""
    _mean: float
    _scale: float
    _up: float
    _down: float
    _up_since: tuple[int, float]
    """How many values it has been above 0 for, and their sum."""
    _down_since: tuple[int, float]

    def __init__(
        self,
        *,
        metric: str,
        threshold: Positive,
        allowance: Annotated[float, Bound(0.0)] = 0.25,
        reference: Annotated[float, Bound()] | None = None,
        deviation: Positive | None = None,
        baseline: Count = 1000,
        direction: Direction = "both",
        margin: Annotated[float, Bound(0.0)] | None = None,
    ) -> None:
        if baseline < 2:
            raise ValueError("baseline: a deviation takes 2 values or more")
        self.metric = metric
        self._threshold = threshold
        self._allowance = allowance
        self._given = reference, deviation
        self._baseline = 0 if reference is not None and deviation is not None else baseline
        self._tells = Tells.of(direction)
        self._sides = 2 if direction == "both" else 1
        self._margin = margin
        self._needed = cusum_score(threshold, allowance, self._sides)
        self._last: tuple[Any, ...] | None = None
        """What the last alert said, until normal is known again."""
        self._restart()

    @property
    def statistic(self) -> float:
        """The excess so far, the way that it tells of, in standard deviations: an alert above ``threshold``."""
        return max(self._up if self._tells.up else 0.0, self._down if self._tells.down else 0.0)

    def standing(self) -> Standing:
        """Return what it knows now."""
        if self._last is not None:
            return Standing(*self._last)
        if self._learned is not None:
            return UNKNOWN
        n, total = self._up_since if self._upwards() else self._down_since
        score = cusum_score(self.statistic, self._allowance, self._sides)
        after = total / n if n else self._mean
        return Standing(score, self._needed, self._mean, after, margin=self._margin)

    def observe(self, t_s: float, value: float) -> Alert | None:
        """Take in a value; return an alert, if it is time for one."""
        checked(self.metric, t_s, value)
        if self._learned is not None:
            self._learn(value)
            return None
        z = (value - self._mean) / self._scale
        self._last = None
        up = self._up + z - self._allowance
        if up > 0.0:
            n, total = self._up_since
            self._up, self._up_since = up, (n + 1, total + value)
        else:
            self._up, self._up_since = 0.0, (0, 0.0)
        down = self._down - z - self._allowance
        if down > 0.0:
            n, total = self._down_since
            self._down, self._down_since = down, (n + 1, total + value)
        else:
            self._down, self._down_since = 0.0, (0, 0.0)
        if self.statistic <= self._threshold:
            return None
        told = self.standing()._replace(told=True)
        code = Code.DRIFT_UP if self._upwards() else Code.DRIFT_DOWN
        self._restart()
        self._last = tuple(told)
        return alert_of(self.metric, told, code)

    def _learn(self, value: float) -> None:
        learned = self._learned
        assert learned is not None
        learned.append(value)
        if len(learned) < self._baseline:
            return
        mean, scale = self._given
        own = fsum(learned) / len(learned)
        spread = sqrt(fsum((x - own) ** 2 for x in learned) / (len(learned) - 1))
        self._mean = own if mean is None else mean
        # All values alike: any other one is a move, of whatever size.
        self._scale = scale or spread or max(abs(own), 1.0) * 1e-9
        self._learned = None
        self._last = None

    def _upwards(self) -> bool:
        return self._tells.up and (self._up >= self._down or not self._tells.down)

    def _restart(self) -> None:
        self._learned = [] if self._baseline else None
        self._mean = self._given[0] or 0.0
        self._scale = self._given[1] or 1.0
        self._up = self._down = 0.0
        self._up_since = (0, 0.0)
        self._down_since = (0, 0.0)
