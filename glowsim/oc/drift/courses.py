"""What each detector compares with its threshold, over many streams at once.

Written from the detectors' descriptions, with numpy, apart from their code; tests feed both the same values.
A course never alarms: until its first alarm a detector does not depend on its threshold, so one pass over a
stream serves all thresholds.
"""

from __future__ import annotations

import math
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["COURSES", "Course"]

Floats = NDArray[np.float64]
_CAP: Final = 1e200


class Course(Protocol):
    """One kind of detector over many streams."""

    parameter: str
    """The detector's parameter that sets its threshold."""
    baseline: int
    """Values in which it cannot alarm yet."""
    least: float
    """The lowest threshold that the parameter can set."""

    def take(self, x: Floats) -> Floats:
        """Return the statistic after each value, 0 where it does not look; both of shape (streams, values)."""

    def setting(self, threshold: float) -> float:
        """Return the parameter's value for a threshold of the statistic."""


def _reflected(carry: Floats, steps: Floats) -> Floats:
    """Return max(0, before + step) along the rows, from ``carry`` on."""
    y = carry[:, None] + np.cumsum(steps, axis=1)
    reached: Floats = y - np.minimum(np.minimum.accumulate(y, axis=1), 0.0)
    return reached


class CusumCourse:
    """Of `cusum`: the larger of both sums, in standard deviations of the baseline."""

    parameter = "threshold"
    least = 1e-9

    def __init__(self, streams: int, settings: dict[str, Any]) -> None:
        self.baseline: int = settings["baseline"]
        self._allowance = settings["allowance"]
        self._tells = settings["direction"]
        given = settings["reference"], settings["deviation"]
        if None not in given:
            self.baseline = 0
        self._given = given
        self._learned = np.empty((streams, 0))
        self._mean: Floats | None = None
        self._scale = np.ones(streams)
        self._up, self._down = np.zeros(streams), np.zeros(streams)

    def take(self, x: Floats) -> Floats:
        """Return the statistic after each value."""
        stat = np.zeros(x.shape)
        rest = x
        if self._mean is None:
            missing = self.baseline - self._learned.shape[1]
            self._learned = np.hstack([self._learned, x[:, :missing]])
            rest = x[:, missing:]
            if self._learned.shape[1] < self.baseline:
                return stat
            mean, deviation = self._given
            streams = len(x)
            self._mean = self._learned.mean(axis=1) if mean is None else np.full(streams, mean)
            if deviation is None:
                spread = self._learned.std(axis=1, ddof=1)
                floor = np.maximum(np.abs(self._learned.mean(axis=1)), 1.0) * 1e-9
                self._scale = np.where(spread > 0.0, spread, floor)
            else:
                self._scale = np.full(streams, deviation)
            self._learned = np.empty((streams, 0))
        if not rest.shape[1]:
            return stat
        z = (rest - self._mean[:, None]) / self._scale[:, None]
        up = _reflected(self._up, z - self._allowance)
        down = _reflected(self._down, -z - self._allowance)
        self._up, self._down = up[:, -1], down[:, -1]
        stat[:, x.shape[1] - rest.shape[1] :] = _told(self._tells, up, down)
        return stat

    def setting(self, threshold: float) -> float:
        """Return the threshold."""
        return threshold


def _told(direction: str, up: Floats, down: Floats) -> Floats:
    return up if direction == "up" else down if direction == "down" else np.maximum(up, down)


class PageHinkleyCourse:
    """Of `page_hinkley`: how far the values have strayed from their own running mean."""

    parameter = "threshold"
    least = 1e-9

    def __init__(self, streams: int, settings: dict[str, Any]) -> None:
        self.baseline = settings["minimum"] - 1
        self._delta = settings["delta"]
        self._tells = settings["direction"]
        self._n = 0
        self._total, self._up, self._down = np.zeros(streams), np.zeros(streams), np.zeros(streams)

    def take(self, x: Floats) -> Floats:
        """Return the statistic after each value."""
        n = self._n + np.arange(1, x.shape[1] + 1)
        totals = self._total[:, None] + np.cumsum(x, axis=1)
        strayed = x - totals / n
        up = _reflected(self._up, strayed - self._delta)
        down = _reflected(self._down, -strayed - self._delta)
        self._n, self._total = int(n[-1]), totals[:, -1]
        self._up, self._down = up[:, -1], down[:, -1]
        return np.where(n > self.baseline, _told(self._tells, up, down), 0.0)

    def setting(self, threshold: float) -> float:
        """Return the threshold."""
        return threshold


class ShiryaevRobertsCourse:
    """Of `shiryaev_roberts`: R, what all bets since all starts have won."""

    parameter = "run_length"
    least = 1.2
    _shifts = np.array([0.0625, 0.125, 0.25, 0.5, 1.0])
    _chunk = 64
    """Values at a time: few enough that the product of the bets in a chunk is a float."""

    def __init__(self, streams: int, settings: dict[str, Any]) -> None:
        self.baseline = settings["baseline"]
        self._confidence: float = settings["confidence"]
        self._range = settings["low"], settings["high"]
        if settings["metric"] == "error" and self._range == (None, None):
            self._range = 0.0, 1.0
        direction = settings["direction"]
        self._sides = [False] * (direction != "down") + [True] * (direction != "up")
        self._learned: Floats | None = np.empty((streams, 0))
        self._low, self._width = np.zeros(streams), np.ones(streams)
        self._bets: list[tuple[Floats, Floats]] = []
        self._r = np.zeros((len(self._sides), streams, len(self._shifts)))

    def take(self, x: Floats) -> Floats:
        """Return the statistic after each value."""
        stat = np.zeros(x.shape)
        start = 0
        if self._learned is not None:
            start = min(x.shape[1], self.baseline - self._learned.shape[1])
            self._learned = np.hstack([self._learned, x[:, :start]])
            if self._learned.shape[1] < self.baseline:
                return stat
            self._learn(self._learned)
            self._learned = None
        for begin in range(start, x.shape[1], self._chunk):
            part = x[:, begin : begin + self._chunk]
            stat[:, begin : begin + self._chunk] = self._run(self._scaled(part))
        return stat

    def setting(self, threshold: float) -> float:
        """Return the run length that puts the threshold there."""
        return float(threshold * self._confidence)

    def _scaled(self, x: Floats) -> Floats:
        return np.clip((x - self._low[:, None]) / self._width[:, None], 0.0, 1.0)

    def _learn(self, block: Floats) -> None:
        low, high = self._range
        if low is None or high is None:
            part = block.shape[1] // 5
            least, most = block[:, :part].min(axis=1), block[:, :part].max(axis=1)
            away = np.where(least == most, np.maximum(1.0, np.abs(least)), 0.0)
            self._low, self._width = least - away, most - least + 2.0 * away
            block = block[:, part:]
        else:
            self._low = np.full(len(block), low)
            self._width = np.full(len(block), high - low)
        y = self._scaled(block)
        doubt = (1.0 - self._confidence) / len(self._sides)
        deviation = np.maximum(y.std(axis=1, ddof=1), 1.0 / y.shape[1])
        for down in self._sides:
            bound = _mean_bound(1.0 - y if down else y, doubt)
            stakes = np.minimum(self._shifts / deviation[:, None], 0.95 / bound[:, None])
            self._bets.append((bound, stakes))

    def _run(self, y: Floats) -> Floats:
        won = np.zeros(y.shape)
        for side, (bound, stakes) in enumerate(self._bets):
            strayed = (1.0 - y if self._sides[side] else y) - bound[:, None]
            for place in range(len(self._shifts)):
                grown = np.cumprod(1.0 + stakes[:, place, None] * strayed, axis=1)
                before = np.hstack([np.ones((len(y), 1)), grown[:, :-1]])
                with np.errstate(over="ignore"):
                    r = grown * (self._r[side, :, place, None] + np.cumsum(1.0 / before, axis=1))
                r = np.minimum(r, _CAP)
                self._r[side, :, place] = r[:, -1]
                won += r
        return won / (len(self._shifts) * len(self._sides))


def _mean_bound(y: Floats, doubt: float) -> Floats:
    """Return an upper bound of the mean of each row, values in 0..1, that fails with probability ``doubt``."""
    from scipy.stats import beta

    n = y.shape[1]
    ones = y.sum(axis=1)
    rates = np.where(ones < n, beta.ppf(1.0 - doubt, ones + 1.0, np.maximum(n - ones, 1e-9)), 1.0)
    binary = np.isin(y, (0.0, 1.0)).all(axis=1)
    if binary.all():
        return np.asarray(rates, np.float64)
    reach = math.log(1.0 / doubt)
    i = np.arange(1, n + 1)
    means = (0.5 + np.cumsum(y, axis=1)) / (i + 1)
    squares = 0.25 + np.cumsum((y - means) ** 2, axis=1)
    before = np.hstack([np.full((len(y), 1), 0.25), squares[:, :-1]]) / i
    stakes = np.minimum(0.75, np.sqrt(2.0 * reach / (n * before)))
    low, high = y.mean(axis=1), np.ones(len(y))
    for _ in range(45):
        middle = (low + high) / 2.0
        won = np.log1p(stakes * (middle[:, None] - y)).sum(axis=1) >= reach
        low, high = np.where(won, low, middle), np.where(won, middle, high)
    bounds: Floats = np.where(binary, rates, high)
    return bounds


class AdwinCourse:
    """Of `adwin`: the highest score of any cut. Until it first cuts, buckets are alike in all streams."""

    parameter = "delta"
    baseline = 0

    def __init__(self, streams: int, settings: dict[str, Any]) -> None:
        self._clock: int = settings["clock"]
        self.least = math.log10(self._clock / 0.999)
        self._rows: list[list[Floats]] = [[]]
        self._n = 0
        self._mean, self._squares = np.zeros(streams), np.zeros(streams)

    def take(self, x: Floats) -> Floats:
        """Return the statistic after each value."""
        stat = np.zeros(x.shape)
        for place in range(x.shape[1]):
            value = x[:, place]
            self._n += 1
            away = value - self._mean
            self._mean = self._mean + away / self._n
            self._squares += away * (value - self._mean)
            self._push(value.copy())
            if self._n % self._clock == 0 and self._n > 10:
                stat[:, place] = self._score()
        return stat

    def setting(self, threshold: float) -> float:
        """Return the delta that puts the threshold there."""
        return float(self._clock * 10.0**-threshold)

    def _push(self, value: Floats) -> None:
        self._rows[0].append(value)
        for place, row in enumerate(self._rows):
            if len(row) <= 5:
                return
            if place + 1 == len(self._rows):
                self._rows.append([])
            self._rows[place + 1].append(row[0] + row[1])
            del row[:2]

    def _score(self) -> Floats:
        width = self._n
        sizes = [1 << place for place in range(len(self._rows) - 1, -1, -1) for _ in self._rows[place]]
        held = np.cumsum([total for row in reversed(self._rows) for total in row], axis=0)
        n = np.cumsum(sizes)
        kept = (n >= 5) & (width - n >= 5)
        n, held = n[kept, None].astype(np.float64), held[kept]
        apart = np.abs(held / n - (self._mean * width - held) / (width - n))
        inverse = 1.0 / (n - 4.0) + 1.0 / (width - n - 4.0)
        linear = np.sqrt(2.0 * inverse * self._squares / width)
        square = 2.0 / 3.0 * inverse
        d = ((np.sqrt(linear**2 + 4.0 * square * apart) - linear) / (2.0 * square)) ** 2
        score = (d.max(axis=0) - math.log(2.0 * math.log(width))) / math.log(10.0) + math.log10(self._clock)
        clipped: Floats = np.clip(score, 0.0, 300.0)
        return clipped


class _WindowsCourse:
    """Of the detectors that compare whole windows: log10(window / p) at the end of each."""

    parameter = "run_length"

    def __init__(self, streams: int, settings: dict[str, Any]) -> None:
        self.baseline: int = settings["window"]
        self.least = math.log10(self.baseline + 1)
        self._settings = settings
        self._held = np.empty((streams, 0))
        self._reference: Floats | None = None

    def take(self, x: Floats) -> Floats:
        """Return the statistic after each value."""
        stat = np.zeros(x.shape)
        done = -self._held.shape[1]
        held = np.hstack([self._held, x])
        while held.shape[1] >= self.baseline:
            window, held = held[:, : self.baseline], held[:, self.baseline :]
            done += self.baseline
            if self._reference is None:
                self._reference = np.sort(window, axis=1)
                self._begin(self._reference)
            else:
                p = np.maximum(self._p(self._reference, window), 1e-290)
                stat[:, done - 1] = np.maximum(0.0, np.log10(self.baseline / p))
        self._held = held
        return stat

    def setting(self, threshold: float) -> float:
        """Return the run length that puts the threshold there."""
        return float(10.0**threshold)

    def _begin(self, reference: Floats) -> None:
        """Take in the first windows, sorted."""

    def _p(self, reference: Floats, window: Floats) -> Floats:
        raise NotImplementedError


class KsCourse(_WindowsCourse):
    """Of `ks`."""

    def _begin(self, reference: Floats) -> None:
        n = self.baseline
        reach = np.arange(n + 1)
        logs = np.array([math.lgamma(each + 1.0) for each in range(2 * n + 1)])
        # P(n D >= k), all k: the reflections' alternating sum.
        term = np.exp(2.0 * logs[n] - logs[n - reach] - logs[n + reach])
        self._table = np.ones(n + 1)
        for k in range(1, n + 1):
            terms = term[k::k]
            self._table[k] = 2.0 * (terms[::2].sum() - terms[1::2].sum())

    def _p(self, reference: Floats, window: Floats) -> Floats:
        both = np.hstack([reference, window])
        order = np.argsort(both, axis=1, kind="stable")
        ordered = np.take_along_axis(both, order, axis=1)
        ahead = np.cumsum(np.where(order < self.baseline, 1, -1), axis=1)
        last = np.hstack([ordered[:, 1:] != ordered[:, :-1], np.ones((len(both), 1), bool)])
        most = np.abs(np.where(last, ahead, 0)).max(axis=1)
        p: Floats = np.clip(self._table[most], 0.0, 1.0)
        return p


class PsiCourse(_WindowsCourse):
    """Of `psi`."""

    def _begin(self, reference: Floats) -> None:
        bins, n = self._settings["bins"], self.baseline
        self._edges, self._first = [], []
        for row in reference:
            edges: list[float] = []
            below = 0
            for edge in row[np.maximum(0, np.arange(1, bins) * n // bins - 1)]:
                upto = int(np.searchsorted(row, edge, "right"))
                if upto - below >= 20 and n - upto >= 20:
                    edges.append(float(edge))
                    below = upto
            self._edges.append(np.array(edges))
            self._first.append(self._shares(row, self._edges[-1]))

    def _p(self, reference: Floats, window: Floats) -> Floats:
        from scipy.special import chdtrc

        psi = np.array([
            float(((q - p) * np.log(q / p)).sum())
            for p, q in zip(
                self._first, map(self._shares, window, self._edges), strict=True
            )
        ])  # fmt: skip
        free = np.array([len(edges) for edges in self._edges])
        p = chdtrc(np.maximum(free, 1), psi * self.baseline / 2.0)
        known: Floats = np.where(free > 0, p, 1.0)
        return known

    @staticmethod
    def _shares(row: Floats, edges: Floats) -> Floats:
        held = np.bincount(np.searchsorted(edges, row, "left"), minlength=len(edges) + 1) + 0.5
        shares: Floats = held / held.sum()
        return shares


COURSES: Final[dict[str, Any]] = {
    "shiryaev_roberts": ShiryaevRobertsCourse,
    "cusum": CusumCourse,
    "page_hinkley": PageHinkleyCourse,
    "adwin": AdwinCourse,
    "ks": KsCourse,
    "psi": PsiCourse,
}
"""Name of a detector -> its course."""
