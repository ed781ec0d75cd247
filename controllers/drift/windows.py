"""What detectors share that compare whole windows of values: one that is kept, and each that follows it."""

from __future__ import annotations

from math import fsum, inf, log10
from typing import Annotated, Any

from controllers.drift.standing import UNKNOWN, Standing, alert_of, checked
from glowsim.core.parameters import Bound
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Alert, Code

__all__ = ["MOST", "RunLength", "Window", "Windows"]

MOST = 20_000
"""Values in a window, at most."""
Window = Annotated[int, Bound(50, MOST)]
RunLength = Annotated[float, Bound(1.0, above=True)]
_SMALLEST = 1e-290


class Windows(Stateful):
    """Compares each window of values, whole and without overlap, with the first one.

    A subclass gives the p-value of two windows of equal size (`compare`). An alert at p <= window /
    run_length. Given the first window, later ones are independent of each other without a change, so the
    number of looks until a false alarm is geometric with some rate whose mean over first windows is that
    level; by Jensen's inequality the mean number of looks is at least run_length / window, and of values
    run_length, provided that p-values are exact or too large. After an alert the next window is the first.

    The score is log10(window / p).
    """

    state = ("_reference", "_window", "_score", "_after", "_statistic", "_last")
    _reference: list[float] | None
    _window: list[float]
    _after: float
    """Mean of the newest whole window; inf before there is one."""

    def __init__(self, metric: str, window: int, run_length: float, margin: float | None) -> None:
        if run_length <= window:
            raise ValueError(
                f"run_length: {run_length:g} values hold no whole window of {window} more; take more than {window}"
            )
        self.metric = metric
        self._size = window
        self._level = window / run_length
        self._needed = log10(run_length)
        self._margin = margin
        self._last: tuple[Any, ...] | None = None
        """What the last alert said, until normal is known again."""
        self._restart()

    @property
    def statistic(self) -> float:
        """What the newest whole window was compared by; 0 before there is one."""
        return self._statistic

    def compare(self, reference: list[float], window: list[float]) -> tuple[float, float]:
        """Return the statistic and the p-value of two windows, the first sorted."""
        raise NotImplementedError

    def standing(self) -> Standing:
        """Return what it knows now: as of the newest whole window."""
        if self._last is not None:
            return Standing(*self._last)
        if self._reference is None:
            return UNKNOWN
        before = fsum(self._reference) / self._size
        after = before if self._after == inf else self._after
        return Standing(self._score, self._needed, before, after, margin=self._margin)

    def observe(self, t_s: float, value: float) -> Alert | None:
        """Take in a value; return an alert, if it is time for one."""
        checked(self.metric, t_s, value)
        self._window.append(value)
        if len(self._window) < self._size:
            return None
        window, self._window = self._window, []
        if self._reference is None:
            self._reference = sorted(window)
            self._last = None
            return None
        self._statistic, p = self.compare(self._reference, window)
        self._score = max(0.0, log10(self._size / max(p, _SMALLEST)))
        self._after = fsum(window) / self._size
        if p > self._level:
            return None
        told = self.standing()._replace(told=True)
        self._restart()
        self._last = tuple(told)
        return alert_of(self.metric, told, Code.DRIFT_SHAPE)

    def _restart(self) -> None:
        self._reference = None
        self._window = []
        self._score = 0.0
        self._after = inf
        self._statistic = 0.0
