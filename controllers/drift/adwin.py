"""ADWIN, a window that is cut where its halves differ."""

from __future__ import annotations

from math import inf, log, log10, sqrt
from typing import Annotated, Any

from controllers.drift.standing import UNKNOWN, Standing, alert_of, checked
from glowsim.core.parameters import Bound, Count, Positive, Seconds
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Alert, Code

__all__ = ["Adwin"]

_PER_ROW = 5
"""Buckets of one size, at most; one more, and the two oldest become one of twice the size."""
_SHORTEST = 5
"""Values in a part of the window, at least."""
_GRACE = 10
"""Values in a window that is not looked at."""
_MOST = 300.0


class Adwin(Stateful):
    """Decides that a metric has moved when the window of its newest values falls into two parts that differ.

    At every ``clock``-th value, each cut between buckets makes two parts of n0 and n1 values. They differ if
    their means do by more than eps = sqrt(2 V d / m) + 2 d / (3 m), V the window's variance, d = log(2 log(W)
    / delta), 1/m = 1/(n0 - 4) + 1/(n1 - 4), W = n0 + n1. Then oldest buckets go until no two parts differ: it
    forgets what was before, so a move is told once. Buckets hold 1, 2, 4, ... values, at most five of each
    size, so memory grows with log(W) and a window may be of any length. Both directions.

    The score is log10(clock / delta*), delta* the largest one at which no parts would differ: the bound is on
    the chance of a false alarm at a look. It is a bound for values in 0..1; for others a good guess, as V is
    estimated. For errors it is far on the safe side, so moves are told late.

    Parameters
    ----------
    metric
        ``latency_s``, ``error``, ``tokens_in``, ``tokens_out``, ``cost_usd``, or the name of an observed metric.
    delta
        Chance of a false alarm at a look, above 0, below 1.
    clock
        Values from look to look.
    quiet_s
        Seconds of silence after an alert, 0 or more, for which it stands; the window is cut all the same.
    margin
        Change of the mean that matters, 0 or more, in the metric's unit; None: nobody said.

    Raises
    ------
    ValueError
        A value that is not finite, or a delta of 1 or more.

    Notes
    -----
    Sources: Bifet, Gavalda, "Learning from time-changing data with adaptive windowing", SDM 2007; the minus 4,
    the clock and the grace are those of the river project's, whose points of detection the tests compare.

    >>> detector = Adwin(metric="latency_s")
    >>> alerts = [detector.observe(t_s, t_s % 2 + (4.0 if t_s >= 1000 else 0.0)) for t_s in range(1100)]
    >>> [(t_s, alert.reason.code.name) for t_s, alert in enumerate(alerts) if alert]
    [(1023, 'DRIFT_UP')]
    """

    state = ("_rows", "_n", "_total", "_squares", "_tick", "_score", "_means", "_last", "_quiet_until_s")

    def __init__(
        self,
        *,
        metric: str,
        delta: Positive = 0.002,
        clock: Count = 32,
        quiet_s: Seconds = 3600.0,
        margin: Annotated[float, Bound(0.0)] | None = None,
    ) -> None:
        if delta >= 1.0:
            raise ValueError(f"delta: {delta:g} is no chance of a false alarm; take less than 1")
        self.metric = metric
        self._delta = delta
        self._clock = clock
        self._quiet_s = quiet_s
        self._margin = margin
        self._needed = log10(clock / delta)
        self._rows: list[list[tuple[float, float]]] = [[]]
        """(sum, squared deviations from its mean) of the buckets of 1, 2, 4, ... values, oldest first."""
        self._n = 0
        self._total = 0.0
        self._squares = 0.0
        """Squared deviations of the window's values from their mean, added up."""
        self._tick = 0
        self._score = 0.0
        self._means = (0.0, 0.0)
        """Before and after the cut of the newest look's highest score."""
        self._last: tuple[Any, ...] | None = None
        """What the last alert said, while it stands."""
        self._quiet_until_s = -inf

    @property
    def statistic(self) -> float:
        """The score of the newest look: an alert above log10(``clock`` / ``delta``)."""
        return self._score

    def standing(self) -> Standing:
        """Return what it knows now: as of the newest look."""
        if self._last is not None:
            return Standing(*self._last)
        if self._n <= _GRACE:
            return UNKNOWN
        return Standing(self._score, self._needed, self._means[0], self._means[1], margin=self._margin)

    def observe(self, t_s: float, value: float) -> Alert | None:
        """Take in a value; return an alert, if it is time for one."""
        checked(self.metric, t_s, value)
        self._take(value)
        self._tick += 1
        if self._tick % self._clock or self._n <= _GRACE:
            return None
        quiet = t_s < self._quiet_until_s
        if not quiet:
            self._last = None
        score, before, after = self._highest()
        self._score, self._means = score, (before, after)
        if score <= self._needed:
            return None
        told = Standing(score, self._needed, before, after, told=True, margin=self._margin)
        while self._n > _GRACE and self._highest()[0] > self._needed:
            self._forget()
        if quiet:
            return None
        self._last = tuple(told)
        self._quiet_until_s = t_s + self._quiet_s
        return alert_of(self.metric, told, Code.DRIFT_UP if told.effect > 0.0 else Code.DRIFT_DOWN)

    def _take(self, value: float) -> None:
        n = self._n
        if n:
            self._squares += (value - self._total / n) ** 2 * n / (n + 1)
        self._n = n + 1
        self._total += value
        rows = self._rows
        rows[0].append((value, 0.0))
        size = 1
        for place, row in enumerate(rows):
            if len(row) <= _PER_ROW:
                break
            (a, spread_a), (b, spread_b) = row[0], row[1]
            del row[:2]
            if place + 1 == len(rows):
                rows.append([])
            rows[place + 1].append((a + b, spread_a + spread_b + (a - b) ** 2 / (2 * size)))
            size *= 2

    def _cuts(self) -> list[tuple[int, float]]:
        """Return (values, sum) of the older part for each cut between buckets, the oldest first."""
        cuts = []
        n, total = 0, 0.0
        for place in range(len(self._rows) - 1, -1, -1):
            size = 1 << place
            for held, _ in self._rows[place]:
                n += size
                total += held
                cuts.append((n, total))
        return cuts

    def _highest(self) -> tuple[float, float, float]:
        """Return the highest score of all cuts, and the means before and after that cut."""
        width, total = self._n, self._total
        variance = self._squares / width
        mean = total / width
        best, before, after = 0.0, mean, mean
        for n, held in self._cuts():
            rest = width - n
            if n < _SHORTEST or rest < _SHORTEST:
                continue
            older, newer = held / n, (total - held) / rest
            inverse = 1.0 / (n - _SHORTEST + 1) + 1.0 / (rest - _SHORTEST + 1)
            # eps is a quadratic in sqrt(d); this is the d at which it equals the distance of the means.
            linear, square = sqrt(2.0 * inverse * variance), 2.0 / 3.0 * inverse
            root = (sqrt(linear * linear + 4.0 * square * abs(older - newer)) - linear) / (2.0 * square)
            if root * root > best:
                best, before, after = root * root, older, newer
        score = (best - log(2.0 * log(width))) / log(10.0) + log10(self._clock)
        return min(_MOST, max(0.0, score)), before, after

    def _forget(self) -> None:
        """Let go of the oldest bucket."""
        held, spread = self._rows[-1].pop(0)
        size = 1 << (len(self._rows) - 1)
        self._n -= size
        self._total -= held
        apart = held / size - self._total / self._n
        self._squares -= spread + size * self._n / (size + self._n) * apart * apart
        while len(self._rows) > 1 and not self._rows[-1]:
            self._rows.pop()
