"""Alerts on service levels, by how fast the error budget burns."""

from __future__ import annotations

from collections import deque
from math import ceil, inf, isnan
from typing import Annotated, Literal

from glowsim.core.parameters import Bound, Count, Fraction, Positive, PositiveSeconds
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Alert, Code, Reason, Severity

__all__ = ["BurnRate"]

_PARTS = 12
"""Buckets of the short window."""
_MOST_BUCKETS = 2000
_ROUNDING = 1e-9
_SEVERITIES = {"info": Severity.INFO, "warning": Severity.WARNING, "critical": Severity.CRITICAL}


class BurnRate(Stateful):
    """Decides that an objective is in danger when its error budget burns too fast, over two windows at once.

    A value is good up to ``threshold``, or from it on. An objective of 99 % leaves a budget of 1 % bad ones;
    the burn rate is the share of bad ones over that budget. It alerts at a bad one, when the burn rate is
    ``burn`` or more over ``window_s``, so that it matters, and over ``short_s``, so that it still goes on,
    and ``minimum`` bad ones are in the longer. It tells that it is over at the first value at which the burn
    rate over the short window is below ``recovery * burn``; between the two nothing is said. Take one for
    each severity:

    ========  ======  ========  =======  ==============================
    severity  burn    window    short    uses up, of a budget of 30 days
    ========  ======  ========  =======  ==============================
    critical  14.4    1 h       5 min    2 % in the window
    warning   6       6 h       30 min   5 %
    info      1       3 days    6 h      10 %
    ========  ======  ========  =======  ==============================

    The windows are made of buckets of ``short_s`` / 12, the newest still filling: either is up to one bucket
    shorter than it says, never longer.

    A window that can never alert is refused: ``burn`` times a budget of more than 1 asks for more bad ones
    than there are values, and at ``expected_per_day`` the longer window has to hold ``minimum`` values.

    The alert carries the burn rates over the longer and the short window, and the one to alert at; its end,
    which has the severity INFO, that over the short window and the one it had to fall below.

    Parameters
    ----------
    metric
        ``latency_s``, ``error``, ``tokens_in``, ``tokens_out``, ``cost_usd`` (of all attempts of an answered
        request), or the name of an observed metric, such as ``quality``.
    threshold
        The last good value, in the metric's unit; 0 for ``error``.
    good
        Which side of it is good.
    objective
        Share of values that should be good, below 1.
    burn
        Burn rate to alert at, above 0.
    window_s, short_s
        The two windows in seconds, above 0; None: a twelfth of the longer.
    severity
        Of the alert.
    minimum
        Bad values in the longer window without which nothing is said, at least 1.
    recovery
        Share of ``burn`` below which it is over, above 0.
    expected_per_day
        Values to expect in a day, above 0; None: many.

    Raises
    ------
    ValueError
        A window that can never alert, windows that contradict each other, or a value that is not a number.

    Notes
    -----
    Source: "The Site Reliability Workbook", Google, 2018, chapter 5, "Multiwindow, Multi-Burn-Rate Alerts",
    where the table and the twelfth are from. ``minimum`` and ``recovery`` are not: the chapter's section on
    low traffic shows a single failure that alerts, which ``minimum`` is against.

    Weak at: silence. It hears of values only, so an agent that answers nothing burns nothing, and an alert
    with no values after it stays. And at burn 1 with few values: of 40 fleets with 620 values a day and 0.5 %
    bad ones, half of the budget, 18 had the table's info alert within 30 days, 4 with a minimum of 20, and
    none had the other two; at 0.75 %, 40 and 38 did.

    >>> detector = BurnRate(metric="latency_s", threshold=2.0, objective=0.99)
    >>> alerts = [detector.observe(t_s, 1.0 if t_s < 3600 else 9.0) for t_s in range(4300)]
    >>> [(t_s, alert.severity.name) for t_s, alert in enumerate(alerts) if alert]
    [(4117, 'CRITICAL')]
    """

    state = ("_bucket", "_total", "_bad", "_long", "_short", "_sums", "_burning")

    def __init__(
        self,
        *,
        metric: str,
        threshold: Annotated[float, Bound()],
        good: Literal["at_most", "at_least"] = "at_most",
        objective: Fraction = 0.99,
        burn: Positive = 14.4,
        window_s: PositiveSeconds = 3600.0,
        short_s: PositiveSeconds | None = None,
        severity: Literal["info", "warning", "critical"] = "critical",
        minimum: Count = 5,
        recovery: Fraction = 0.5,
        expected_per_day: Positive | None = None,
    ) -> None:
        short_s = window_s / 12.0 if short_s is None else short_s
        alert_at = burn * (1.0 - objective)
        if objective >= 1.0:
            raise ValueError("objective: all of them leaves no budget to burn; take a share below 1")
        if recovery == 0.0:
            raise ValueError("recovery: nothing is below 0, so an alert would never be over; take more")
        if alert_at > 1.0 + _ROUNDING:
            raise ValueError(
                f"burn: {burn:g} times the budget of {1.0 - objective:.4g} is a share of {alert_at:.4g} bad ones, "
                f"which can never be; lower it to {1.0 / (1.0 - objective):.4g} or less"
            )
        if short_s > window_s:
            raise ValueError(f"short_s: {short_s:g} s is longer than window_s, {window_s:g} s; lower it")
        width_s = short_s / _PARTS
        if window_s / width_s > _MOST_BUCKETS:
            raise ValueError(
                f"short_s: {short_s:g} s takes {window_s / width_s:.0f} buckets for window_s; take "
                f"{window_s * _PARTS / _MOST_BUCKETS:g} s or more"
            )
        if expected_per_day is not None and expected_per_day * window_s / 86_400.0 < minimum:
            raise ValueError(
                f"window_s: {expected_per_day:g} values a day are {expected_per_day * window_s / 86_400.0:.3g} in "
                f"{window_s:g} s, and an alert takes {minimum} bad ones; take {minimum * 86_400.0 / expected_per_day:g}"
                " s or more, a lower minimum, or watch agents together"
            )
        self.metric = metric
        self._severity = _SEVERITIES[severity]
        self._sign = 1.0 if good == "at_most" else -1.0
        self._last_good = self._sign * threshold
        self._budget = 1.0 - objective
        self._burn = burn
        self._over_below = recovery * burn
        self._minimum = minimum
        self._width_s = width_s
        self._long_buckets = ceil(window_s / width_s - _ROUNDING)
        self._bucket = -inf
        """The newest bucket's number, its values, and its bad ones."""
        self._total = 0
        self._bad = 0
        self._long: deque[tuple[float, int, int]] = deque()
        """(bucket, values, bad ones) of those before that the longer window holds, but for empty ones."""
        self._short: deque[tuple[float, int, int]] = deque()
        self._sums = [0, 0, 0, 0]
        """Values and bad ones in ``_long``, then in ``_short``."""
        self._burning = False

    def observe(self, t_s: float, value: float) -> Alert | None:
        """Take in a value; return an alert, if it is time for one."""
        bucket = t_s // self._width_s
        if self._sign * value <= self._last_good:
            if bucket != self._bucket:
                self._turn(bucket)
            self._total += 1
            return self._over() if self._burning else None
        if isnan(value):
            raise ValueError(f"{self.metric}: {value} at {t_s} s is not a number; leave a missing value out")
        if bucket != self._bucket:
            self._turn(bucket)
        self._total += 1
        self._bad += 1
        return self._over() if self._burning else self._alert()

    def _alert(self) -> Alert | None:
        total, bad, short_total, short_bad = self._sums
        bad += self._bad
        alert_at = self._burn * self._budget
        long_share = bad / (total + self._total)
        short_share = (short_bad + self._bad) / (short_total + self._total)
        if bad < self._minimum or min(long_share, short_share) < alert_at * (1.0 - _ROUNDING):
            return None
        self._burning = True
        reason = Reason(Code.BURNING, a=long_share / self._budget, b=short_share / self._budget, c=self._burn)
        return Alert(0, self.metric, self._severity, reason)

    def _over(self) -> Alert | None:
        _, _, total, bad = self._sums
        burn = (bad + self._bad) / (total + self._total) / self._budget
        if burn >= self._over_below * (1.0 - _ROUNDING):
            return None
        self._burning = False
        return Alert(0, self.metric, Severity.INFO, Reason(Code.RECOVERED, a=burn, b=self._over_below))

    def _turn(self, bucket: float) -> None:
        """Close the newest bucket and begin another; let go of those that the windows hold no more."""
        sums = self._sums
        if self._total:
            closed = (self._bucket, self._total, self._bad)
            self._long.append(closed)
            self._short.append(closed)
            sums = [sums[0] + self._total, sums[1] + self._bad, sums[2] + self._total, sums[3] + self._bad]
        while self._long and self._long[0][0] <= bucket - self._long_buckets:
            _, total, bad = self._long.popleft()
            sums[0] -= total
            sums[1] -= bad
        while self._short and self._short[0][0] <= bucket - _PARTS:
            _, total, bad = self._short.popleft()
            sums[2] -= total
            sums[3] -= bad
        self._sums = sums
        self._bucket, self._total, self._bad = bucket, 0, 0
