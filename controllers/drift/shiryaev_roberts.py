"""The Shiryaev-Roberts rule on e-values: an e-detector."""

from __future__ import annotations

from math import fsum, log, log1p, log10, sqrt
from typing import Annotated, Any, Final

from controllers.drift.standing import UNKNOWN, Direction, Standing, Tells, alert_of, checked
from glowsim.core.parameters import Bound, Count, Positive
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Alert, Code

__all__ = ["SHIFTS", "ShiryaevRoberts", "bet_bound", "mean_bound"]

SHIFTS: Final = (0.0625, 0.125, 0.25, 0.5, 1.0)
"""The moves that it bets on, in standard deviations of the baseline; equal weights."""
_TRACKED: Final = 2
"""The place in ``SHIFTS`` of the bet whose latest start says since when the metric has moved."""
_MOST_STAKED: Final = 0.95
"""Share of what it has that a bet may lose at one value."""
_MOST_BET: Final = 0.75
_SCALE_PART: Final = 5
"""One value in so many of the baseline finds the range, where none is given; the others find the mean."""


class ShiryaevRoberts(Stateful):
    """Decides that a metric has moved when bets against its baseline have won too much.

    A value becomes y in 0..1 between ``low`` and ``high`` (beyond them it counts as the bound). With m an
    upper confidence bound of the baseline's mean, a bet of stake s multiplies by 1 + s (y - m), which by
    chance gains nothing on average if the mean is at most m: an e-value. For values that are 0 or 1 it is
    the likelihood ratio of two rates. A new bet of 1 begins at every value: R = (R + 1)(1 + s (y - m)). R is
    averaged over five stakes (moves of 1/16 to 1 standard deviation); downwards 1 - y is bet on likewise,
    and R is the average of both. An alert at R >= ``run_length`` / ``confidence``; then it learns afresh.

    It alarms by chance **once in ``run_length`` values or more rarely**, for independent values of any law,
    with the baseline estimated: R less the number of values falls on average where m is a bound indeed, so
    the run is then at least run_length / confidence values long on average; and a bound it is with
    probability ``confidence``. For values of 0 and 1 it is Clopper and Pearson's, exact; for others it comes
    from bets as well, and holds for values of any law. The range is found from the first fifth of the baseline
    unless it is given, the mean then from the rest.

    The score is log10(confidence R), so that an alert has log10(run_length).

    Parameters
    ----------
    metric
        ``latency_s``, ``error``, ``tokens_in``, ``tokens_out``, ``cost_usd``, or the name of an observed metric.
    run_length
        Values between false alarms, at least, on average; above 1.
    baseline
        Values to learn from what is normal, 50 or more. Few make the bound wide, so moves are told later.
    direction
        Which moves count.
    low, high
        Bounds of the metric, both or neither; ``error`` has 0 and 1.
    confidence
        Probability that the bound of the baseline's mean holds, above 0, below 1.
    margin
        Change of the mean that matters, 0 or more, in the metric's unit; None: nobody said.

    Raises
    ------
    ValueError
        A value that is not finite, or parameters that contradict each other.

    Notes
    -----
    Sources: Roberts, "A comparison of some control chart procedures", Technometrics 8, 1966; Shin, Ramdas,
    Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", arXiv 2203.03532, for
    the run length; Waudby-Smith, Ramdas, "Estimating means of bounded random variables by betting", JRSS B
    86, 2024, for the bets and the bound. The bound of the baseline in place of a known mean is ours: E[run]
    >= P(bound holds) E[run | it holds].

    Weak at: values that depend on each other, and a daily rhythm unless the baseline holds whole days: both
    break the promise.

    >>> detector = ShiryaevRoberts(metric="error", run_length=10_000, baseline=200, direction="up")
    >>> values = [0.0] * 200 + [0.0, 1.0] * 20
    >>> alerts = [detector.observe(t_s, value) for t_s, value in enumerate(values)]
    >>> [(t_s, alert.reason.code.name) for t_s, alert in enumerate(alerts) if alert]
    [(205, 'DRIFT_UP')]
    """

    state = ("_block", "_mean", "_low", "_high", "_bets", "_runs", "_tracked", "_last")
    _block: list[float] | None
    _bets: list[tuple[bool, float, tuple[float, ...]]]
    """(downwards, bound of the mean, stakes) of each side."""
    _runs: list[tuple[float, ...]]
    _tracked: list[tuple[float, int, float]]
    """(what the best start has won, values since, their sum in the metric's unit) of each side."""

    def __init__(
        self,
        *,
        metric: str,
        run_length: Annotated[float, Bound(1.0, above=True)] = 50_000.0,
        baseline: Count = 2000,
        direction: Direction = "both",
        low: Annotated[float, Bound()] | None = None,
        high: Annotated[float, Bound()] | None = None,
        confidence: Positive = 0.9,
        margin: Annotated[float, Bound(0.0)] | None = None,
    ) -> None:
        if metric == "error" and low is None and high is None:
            low, high = 0.0, 1.0
        if (low is None) != (high is None):
            raise ValueError("low and high: give both or neither")
        if low is not None and high is not None and low >= high:
            raise ValueError(f"low: {low:g} is not below high, {high:g}")
        if baseline < 50:
            raise ValueError(f"baseline: {baseline} values say too little of what is normal; take 50 or more")
        if confidence >= 1.0:
            raise ValueError("confidence: no bound is certain; take less than 1")
        self.metric = metric
        self._run_length = run_length
        self._baseline = baseline
        self._tells = Tells.of(direction)
        self._range = None if low is None or high is None else (low, high)
        self._confidence = confidence
        self._margin = margin
        self._alert_at = run_length / confidence
        self._last: tuple[Any, ...] | None = None
        """What the last alert said, until normal is known again."""
        self._restart()

    @property
    def statistic(self) -> float:
        """What the bets have won, R: an alert at ``run_length`` / ``confidence``."""
        sides = len(self._runs)
        return fsum(fsum(runs) for runs in self._runs) / (len(SHIFTS) * sides) if sides else 0.0

    def standing(self) -> Standing:
        """Return what it knows now."""
        if self._last is not None:
            return Standing(*self._last)
        if self._block is not None:
            return UNKNOWN
        score = log10(max(1.0, self._confidence * self.statistic))
        _, n, total = max(self._tracked)
        after = total / n if n else self._mean
        return Standing(score, log10(self._run_length), self._mean, after, margin=self._margin)

    def observe(self, t_s: float, value: float) -> Alert | None:
        """Take in a value; return an alert, if it is time for one."""
        checked(self.metric, t_s, value)
        if self._block is not None:
            self._block.append(value)
            if len(self._block) == self._baseline:
                self._learn(self._block)
            return None
        y = (value - self._low) / (self._high - self._low)
        y = 0.0 if y < 0.0 else 1.0 if y > 1.0 else y
        won = 0.0
        for side, (down, bound, stakes) in enumerate(self._bets):
            strayed = (1.0 - y if down else y) - bound
            a, b, c, d, e = self._runs[side]
            a = (a + 1.0) * (1.0 + stakes[0] * strayed)
            b = (b + 1.0) * (1.0 + stakes[1] * strayed)
            c = (c + 1.0) * (1.0 + stakes[2] * strayed)
            d = (d + 1.0) * (1.0 + stakes[3] * strayed)
            e = (e + 1.0) * (1.0 + stakes[4] * strayed)
            self._runs[side] = (a, b, c, d, e)
            won += a + b + c + d + e
            best, n, total = self._tracked[side]
            if best <= 1.0:
                best, n, total = 1.0, 0, 0.0
            self._tracked[side] = (best * (1.0 + stakes[_TRACKED] * strayed), n + 1, total + value)
        if won < self._alert_at * len(SHIFTS) * len(self._bets):
            return None
        told = self.standing()._replace(told=True)
        down = max(zip(self._tracked, self._bets, strict=True))[1][0]
        self._restart()
        self._last = tuple(told)
        return alert_of(self.metric, told, Code.DRIFT_DOWN if down else Code.DRIFT_UP)

    def _learn(self, block: list[float]) -> None:
        self._mean = fsum(block) / len(block)
        if self._range is None:
            part = len(block) // _SCALE_PART
            low, high = min(block[:part]), max(block[:part])
            block = block[part:]
            if low == high:
                # All alike: what is as far away as the value is large counts as the bound.
                low, high = low - max(1.0, abs(low)), high + max(1.0, abs(high))
        else:
            low, high = self._range
        self._low, self._high = low, high
        y = [min(1.0, max(0.0, (value - low) / (high - low))) for value in block]
        sides = self._tells.up + self._tells.down
        doubt = (1.0 - self._confidence) / sides
        bets = []
        for down in [False] * self._tells.up + [True] * self._tells.down:
            sample = [1.0 - each for each in y] if down else y
            bound, deviation = mean_bound(sample, doubt)
            most = _MOST_STAKED / bound
            bets.append((down, bound, tuple(min(shift / deviation, most) for shift in SHIFTS)))
        self._bets = bets
        self._runs = [(0.0,) * len(SHIFTS)] * sides
        self._tracked = [(1.0, 0, 0.0)] * sides
        self._block = None
        self._last = None

    def _restart(self) -> None:
        self._block = []
        self._mean = self._low = self._high = 0.0
        self._bets = []
        self._runs = []
        self._tracked = []


def mean_bound(sample: list[float], doubt: float) -> tuple[float, float]:
    """Return an upper bound of the mean that values in 0..1 come from, and their standard deviation.

    The bound is too low with probability ``doubt`` at most: Clopper and Pearson's for values that are all
    0 or 1, else that of bets (see `bet_bound`). The deviation is never below 1 / n, so that a stake is finite.

    >>> bound, deviation = mean_bound([0.0] * 95 + [1.0] * 5, 0.1)
    >>> f"{bound:.4f} {deviation:.4f}"
    '0.0908 0.2190'
    """
    from scipy.special import betaincinv

    n = len(sample)
    mean = fsum(sample) / n
    variance = fsum((y - mean) ** 2 for y in sample) / (n - 1)
    if all(y in {0.0, 1.0} for y in sample):
        ones = round(mean * n)
        bound = 1.0 if ones == n else float(betaincinv(ones + 1.0, n - ones, 1.0 - doubt))
    else:
        bound = bet_bound(sample, doubt)
    return bound, max(sqrt(variance), 1.0 / n)


def bet_bound(sample: list[float], doubt: float) -> float:
    """Return the mean against which bets that it is no larger have just won 1 / ``doubt``.

    If the mean is m or more, the product of 1 + s (m - y) is 1 or less on average, the stake s of each bet
    known before its y; so it reaches 1 / doubt with probability doubt at most (Markov). The stakes are those
    that would be best for the deviation so far: sqrt(2 log(1 / doubt) / n) / deviation, at most 0.75.
    """
    n, reach = len(sample), log(1.0 / doubt)
    stakes = []
    mean, squares = 0.5, 0.25
    for i, y in enumerate(sample, 1):
        stakes.append(min(_MOST_BET, sqrt(2.0 * reach / (n * squares / i))))
        mean += (y - mean) / (i + 1)
        squares += (y - mean) ** 2
    pairs = list(zip(stakes, sample, strict=True))
    bound = fsum(sample) / n
    # The logarithm of what is won rises with the bound and is concave, so Newton's steps come from below.
    for _ in range(60):
        won = fsum(log1p(s * (bound - y)) for s, y in pairs)
        step = (reach - won) / fsum(s / (1.0 + s * (bound - y)) for s, y in pairs)
        bound += step
        if bound >= 1.0 or step <= 1e-12:
            break
    return min(bound, 1.0)
