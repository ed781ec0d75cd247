"""Thresholds that keep a run length on the user's own regimes, and how late detectors are at those."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glowsim.oc.drift.courses import COURSES, Course
from glowsim.oc.drift.regimes import Regime
from glowsim.stats.intervals import Interval

__all__ = ["At", "Calibrated", "Delay", "Watched", "calibrate", "dummy", "run_length"]

Floats = NDArray[np.float64]
_CHUNK: Final = 512
_PARTS: Final = 100
"""Of a budget; how far a stream came without an alarm is known to the part, counted down."""
_SETTLED: Final = 0.1
"""Share of the budget after the baseline, 5,000 values at most, before a change comes."""
_MOST_SETTLED: Final = 5000
_PATIENCE: Final = 10_000
"""Values after a change in which it is told, or counted as missed."""


class Watched(NamedTuple):
    """A detector with its settings, but for its threshold."""

    name: str
    settings: dict[str, Any]

    def course(self, streams: int) -> Course:
        """Return it over so many streams."""
        made: Course = COURSES[self.name](streams, self.settings)
        return made


class Delay(NamedTuple):
    """How late a change is told, in values; a change that is missed counts as inf."""

    shift: float
    median: float
    p95: float
    missed: Interval
    """Share of the changes that were not told within 10,000 values; ``n`` streams had had no alarm before."""


class At(NamedTuple):
    """A detector at a threshold."""

    setting: float
    """Of the detector's parameter."""
    threshold: float
    """Of the statistic."""
    run_lengths: tuple[Interval, ...]
    """Values between alarms in each regime; ``n`` is the number of alarms."""
    delays: tuple[Delay, ...]
    """In the first regime, of each shift."""


class Calibrated(NamedTuple):
    """A detector at the lowest thresholds that keep the budget."""

    name: str
    parameter: str
    plain: At | None
    """In the first regime alone; None: none that was reached does."""
    everywhere: At | None
    """In every regime."""


def run_length(alarms: int, values: float) -> Interval:
    """Return the mean number of values to an alarm, and its 95 % interval, from independent streams.

    Of runs that are cut off: all values over all alarms. That is the mean where an alarm is as likely at
    any value, and too small where streams that had none are those with a luckier baseline. The interval is
    Garwood's, exact for a Poisson number of alarms.

    >>> [round(x) for x in run_length(20, 1_000_000.0)[:3]]
    [50000, 32375, 81856]
    """
    from scipy.stats import chi2

    low = values / (float(chi2.ppf(0.975, 2 * alarms + 2)) / 2.0)
    if not alarms:
        return Interval(math.inf, low, math.inf, 0)
    return Interval(values / alarms, low, values / (float(chi2.ppf(0.025, 2 * alarms)) / 2.0), alarms)


def calibrate(
    watched: Watched,
    regimes: Sequence[Regime],
    budget: float,
    shifts: Sequence[float],
    streams: int,
    seed: int,
) -> Calibrated:
    """Return a detector at its lowest thresholds whose run length is at least the budget.

    One for the first regime, one for all of them. "At least" by the lower end of its 95 % interval, so the
    point estimate lies above. All detectors see the same streams.

    Parameters
    ----------
    watched
        The detector.
    regimes
        What the metric does while all is well; the first is the plain one.
    budget
        Values between false alarms, on average, at least; as many are simulated in each stream.
    shifts
        Effects whose delays are measured.
    streams
        In each regime, and for each shift, at least 20.
    seed
        Equal seeds give equal streams.
    """
    peaks = [_peaks(watched, regime, streams, budget, seed) for regime in regimes]
    course = watched.course(1)
    lowest = [max(_lowest(each, budget), course.least) for each in peaks]

    def at(threshold: float) -> At | None:
        if threshold == math.inf:
            return None
        lengths = tuple(_run_length(each, threshold, budget) for each in peaks)
        delays = _delays(watched, regimes[0], threshold, budget, shifts, streams, seed)
        return At(course.setting(threshold), threshold, lengths, tuple(delays))

    return Calibrated(watched.name, course.parameter, at(lowest[0]), at(max(lowest)))


def dummy(budget: float, shifts: Sequence[float], streams: int) -> tuple[Delay, ...]:
    """Return the delays of a detector that alarms at random once in ``budget`` values: what no detector may exceed.

    >>> dummy(50_000, [0.05], 200)[0].median
    34658.0
    """
    median, p95 = (float(math.ceil(math.log(q) / math.log1p(-1.0 / budget))) for q in (0.5, 0.05))
    missed = (1.0 - 1.0 / budget) ** _PATIENCE
    return tuple(Delay(shift, median, p95, Interval(missed, missed, missed, streams)) for shift in shifts)


def _peaks(watched: Watched, regime: Regime, streams: int, budget: float, seed: int) -> Floats:
    """Return the highest statistic so far of each stream after each part of the budget, without any change."""
    course, rng = watched.course(streams), np.random.default_rng((seed, 1))
    start = _begin(course, regime, rng, streams)
    highest, peaks = np.zeros(streams), []
    chunk = _part(budget)
    for part in range(_PARTS):
        values = regime.values(rng, streams, start + part * chunk, chunk)
        highest = np.maximum(highest, course.take(values).max(axis=1))
        peaks.append(highest)
    return np.stack(peaks, axis=1)


def _part(budget: float) -> int:
    return math.ceil(budget / _PARTS)


def _begin(course: Course, regime: Regime, rng: np.random.Generator, streams: int) -> int:
    """Let a course learn; return how many values that took."""
    for place in range(0, course.baseline, _CHUNK):
        course.take(regime.values(rng, streams, place, min(_CHUNK, course.baseline - place)))
    return course.baseline


def _run_length(peaks: Floats, threshold: float, budget: float) -> Interval:
    passed = peaks > threshold
    alarms = int(passed[:, -1].sum())
    return run_length(alarms, float(_part(budget) * (~passed).sum()))


def _lowest(peaks: Floats, budget: float) -> float:
    """Return the lowest threshold at which the run length's lower end is at least the budget; inf: none is."""
    lowest = math.inf
    for threshold in np.unique(peaks[:, -1])[::-1]:
        if _run_length(peaks, float(threshold), budget).low < budget:
            break
        lowest = float(threshold)
    return lowest


def _delays(
    watched: Watched, regime: Regime, threshold: float, budget: float, shifts: Sequence[float], streams: int,
    seed: int,
) -> list[Delay]:  # fmt: skip
    from glowsim.stats.intervals import wilson

    course, rng = watched.course(streams), np.random.default_rng((seed, 2))
    start = _begin(course, regime, rng, streams)
    fresh = np.ones(streams, bool)
    settled = math.ceil(min(_SETTLED * budget, _MOST_SETTLED))
    for place in range(0, settled, _CHUNK):
        n = min(_CHUNK, settled - place)
        fresh &= course.take(regime.values(rng, streams, start + place, n)).max(axis=1) <= threshold
    start += settled
    delays = []
    for shift in shifts:
        after, rng = copy.deepcopy(course), np.random.default_rng((seed, 3))
        late = np.full(streams, math.inf)
        for place in range(0, _PATIENCE, _CHUNK):
            passed = after.take(regime.values(rng, streams, start + place, _CHUNK, shift)) > threshold
            new = passed.any(axis=1) & (late == math.inf)
            late[new] = place + passed[new].argmax(axis=1) + 1
            if (late < math.inf).all():
                break
        told = np.sort(late[fresh])
        n = len(told)
        if not n:
            delays.append(Delay(shift, math.inf, math.inf, Interval(math.nan, 0.0, 1.0, 0)))
            continue
        missed = wilson(int((told == math.inf).sum()), n)
        median, p95 = (float(told[math.ceil(q * n) - 1]) for q in (0.5, 0.95))
        delays.append(Delay(shift, median, p95, missed))
    return delays
