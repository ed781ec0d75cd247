"""The two-sample test of Kolmogorov and Smirnov, window against window."""

from __future__ import annotations

from bisect import bisect_right
from math import exp, lgamma
from typing import Annotated

from controllers.drift.windows import RunLength, Window, Windows
from glowsim.core.parameters import Bound

__all__ = ["KolmogorovSmirnov", "equal_windows_p"]


class KolmogorovSmirnov(Windows):
    """Decides that a metric's distribution has changed when a window's differs too far from the first one's.

    The statistic D is the largest distance between the two empirical distributions; p is exact for windows
    of equal size and values that differ, and too large where many are alike (counts, errors). Its promise, a
    false alarm in ``run_length`` values or more rarely, holds for independent values (see `Windows`).

    It sees any change of the distribution, also of the spread alone, but looks only when a window is full:
    a change is told after half a window to a window and a half, or never if it is too small for one window.

    Parameters
    ----------
    metric
        ``latency_s``, ``error``, ``tokens_in``, ``tokens_out``, ``cost_usd``, or the name of an observed metric.
    window
        Values in a window, 50 to 20,000.
    run_length
        Values between false alarms, at least, on average; above ``window``.
    margin
        Change of the mean that matters, 0 or more, in the metric's unit; None: nobody said.

    Raises
    ------
    ValueError
        A value that is not finite, or a run length within a window.

    Notes
    -----
    Sources: Gnedenko, Korolyuk, 1951, for p at equal sizes: Hodges, "The significance probability of the
    Smirnov two-sample test", Arkiv foer Matematik 3, 1958.

    >>> detector = KolmogorovSmirnov(metric="tokens_out", window=50, run_length=5000)
    >>> alerts = [detector.observe(t_s, t_s % 50 + (30.0 if t_s >= 110 else 0.0)) for t_s in range(200)]
    >>> [(t_s, alert.reason.code.name) for t_s, alert in enumerate(alerts) if alert]
    [(149, 'DRIFT_SHAPE')]
    """

    def __init__(
        self,
        *,
        metric: str,
        window: Window = 200,
        run_length: RunLength = 50_000.0,
        margin: Annotated[float, Bound(0.0)] | None = None,
    ) -> None:
        super().__init__(metric, window, run_length, margin)

    def compare(self, reference: list[float], window: list[float]) -> tuple[float, float]:
        """Return D and its p-value."""
        n = len(reference)
        window = sorted(window)
        # The distance is largest just at one of the values, each counted with all its equals.
        most = max(
            abs(bisect_right(reference, value) - bisect_right(window, value))
            for value in (*reference, *window)
        )
        return most / n, equal_windows_p(n, most)


def equal_windows_p(n: int, k: int) -> float:
    """Return P(n D >= k) for two windows of ``n`` independent values of one continuous law.

    p = 2 (C(2n, n - k) - C(2n, n - 2k) + C(2n, n - 3k) - ...) / C(2n, n), k from 0 to n.

    >>> round(equal_windows_p(10, 6), 6)  # the table's 0.0524
    0.052448
    """
    if k <= 0:
        return 1.0
    top = 2.0 * lgamma(n + 1.0)
    p, sign = 0.0, 2.0
    for reach in range(k, n + 1, k):
        p += sign * exp(top - lgamma(n - reach + 1.0) - lgamma(n + reach + 1.0))
        sign = -sign
    return min(1.0, max(p, 0.0))
