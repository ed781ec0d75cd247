"""Passive ejection: an instance that does worse than its peers is left out for a while."""

from __future__ import annotations

from collections.abc import Collection
from math import ceil, fsum, inf, sqrt
from typing import Literal

from controllers.resilience.outcomes import GOOD, MEANING, NEITHER, UNREACHED
from glowsim.core.instance import UNLIMITED, Instance
from glowsim.core.parameters import Count, Fraction, Positive, PositiveSeconds
from glowsim.core.protocols import Gate
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Outcome

__all__ = ["OutlierBreaker", "lowest_rate"]

_ROUNDING = 1e-9
"""29 % of 100 instances are 29."""
_OK, _ENDED, _FAILED, _REFUSED = range(4)
"""Places among an instance's counts: those of the interval, then failures and refusals in a row."""


def lowest_rate(rates: Collection[float], deviations: float, gap: float) -> float:
    """Return the success rate below which an instance is an outlier: mean - max(deviations * sigma, gap).

    Sigma is that of the population: the instances are all there are, not a sample.

    >>> round(lowest_rate([1.0, 1.0, 1.0, 1.0, 0.0], deviations=1.9, gap=0.0), 3)
    0.04
    """
    n = len(rates)
    mean = fsum(rates) / n
    sigma = sqrt(fsum((rate - mean) ** 2 for rate in rates) / n)
    return mean - max(deviations * sigma, gap)


class OutlierBreaker(Stateful):
    """Decides that an instance which does worse than its peers gets no work for a while.

    It is ejected by whichever comes first: ``failures`` in a row of any kind; ``connect_failures`` refused
    connections in a row; or a success rate, over an interval of at least ``interval_s`` in which it ended
    ``minimum_attempts``, that is below the mean of all such instances by ``deviations`` population standard
    deviations and by ``gap``, if there are ``minimum_instances`` of them. The rates are taken when the first
    attempt ends after the interval, and an outlier goes when its own next attempt ends; nothing is done by
    time, so a quiet fleet costs nothing.

    It comes back after min(n * eject_s, longest_eject_s). Each ejection adds 1 to n, which each
    ``interval_s`` in service takes away again. No more than the share ``max_ejected`` is out at once, but at
    least one may be, and never the last: what would be ejected beyond that stays in service.

    Failures are ERROR, UNREACHABLE, TIMEOUT and LOST; OK and INVALID (the task's own fault) are successes;
    THROTTLED and CANCELLED are neither. Attempts that began before an ejection are not held against the
    instance after it. A failed health check is a refused connection; a passed one proves nothing about work,
    and changes nothing.

    Parameters
    ----------
    failures
        Failures in a row that eject.
    connect_failures
        Refused connections in a row that eject.
    interval_s
        Seconds over which success rates are taken, above 0.
    deviations
        Population standard deviations below the mean that eject, above 0.
    gap
        Least distance below the mean that ejects, 0 to 1: equals differ by chance as well.
    minimum_instances
        Instances that must have had enough work; more than deviations**2 + 1.
    minimum_attempts
        Attempts ended within the interval that are enough work.
    eject_s
        Seconds for which an instance is out the first time, above 0.
    longest_eject_s
        Seconds for which it is out at most, at least ``eject_s``.
    max_ejected
        Share of the instances that may be out at once, 0 to 1.
    when_all_open
        What a request does that no instance may take: ``wait`` for the first to be let through to, within
        its own time limit, or ``fail`` at once.

    Raises
    ------
    ValueError
        ``longest_eject_s`` is below ``eject_s``, or an outlier can never be as far from the mean as
        ``deviations`` among ``minimum_instances``: one of n is at most sqrt(n - 1) away.

    Notes
    -----
    Source: Envoy's outlier detection (there: 5 in a row, 1.9 deviations, n * 30 s up to 300 s, 10 % but at
    least one). Departures: ``gap``; and the last instance stays, since there is no panic mode that sends
    work to ejected ones.

    Known weaknesses: somebody is always worst. Of 20 equal instances that fail 5 % of 50 attempts each, one
    is 1.9 deviations below the mean in 69 % of the intervals, and with a ``gap`` of 0.1 in 5 %; of 10
    attempts each, the gap does not help (75 %). An instance that answers wrongly and fast passes for a good
    one, and a fleet that fails as a whole has no outliers.

    >>> breaker = OutlierBreaker(failures=2, eject_s=30)
    >>> breaker.joined(0.0, Instance(7, 0, 4)), breaker.joined(0.0, Instance(8, 0, 4))
    (None, None)
    >>> [breaker.record(t_s, 7, Outcome.ERROR, 1.0) for t_s in (1.0, 2.0)]
    [None, Gate(cap=0, until_s=32.0)]
    >>> [breaker.record(t_s, 8, Outcome.ERROR, 1.0) for t_s in (3.0, 4.0)]
    [None, None]
    """

    state = ("_counts", "_ejected", "_ejections", "_outliers", "_interval_ends_s")

    def __init__(
        self,
        *,
        failures: Count = 5,
        connect_failures: Count = 3,
        interval_s: PositiveSeconds = 60.0,
        deviations: Positive = 1.9,
        gap: Fraction = 0.1,
        minimum_instances: Count = 5,
        minimum_attempts: Count = 50,
        eject_s: PositiveSeconds = 30.0,
        longest_eject_s: PositiveSeconds = 300.0,
        max_ejected: Fraction = 0.1,
        when_all_open: Literal["wait", "fail"] = "wait",
    ) -> None:
        if longest_eject_s < eject_s:
            raise ValueError(
                f"longest_eject_s: {longest_eject_s} is below eject_s, {eject_s}; give at least that"
            )
        if minimum_instances - 1 <= deviations**2:
            raise ValueError(
                f"minimum_instances: none of {minimum_instances} can be more than {deviations} deviations from"
                f" the mean; give at least {int(deviations**2) + 2}, or fewer deviations"
            )
        self._failures = failures
        self._connect_failures = connect_failures
        self._interval_s = interval_s
        self._deviations = deviations
        self._gap = gap
        self._minimum_instances = minimum_instances
        self._minimum_attempts = minimum_attempts
        self._eject_s = eject_s
        self._longest_eject_s = longest_eject_s
        self._most_times = ceil(longest_eject_s / eject_s)
        self._max_ejected = max_ejected
        self.when_all_open = when_all_open
        self._counts: dict[int, list[int]] = {}
        self._ejected: set[int] = set()
        self._ejections: dict[int, tuple[int, float]] = {}
        """Instance -> (n at its last ejection, when that ends)."""
        self._outliers: set[int] = set()
        """Those that their success rate will eject when their next attempt ends."""
        self._interval_ends_s = -inf

    def record(self, t_s: float, instance: int, outcome: Outcome, duration_s: float) -> Gate | None:
        """Take in how an attempt ended; return the new gate if it changed."""
        meaning = MEANING[outcome]
        if meaning == NEITHER:
            return None
        counts = self._counts.get(instance)
        if counts is None:
            counts = self._counts[instance] = [0, 0, 0, 0]
        if t_s >= self._interval_ends_s:
            self._compare(t_s)
        if meaning == GOOD:
            counts[_OK] += 1
            counts[_ENDED] += 1
            counts[_FAILED] = counts[_REFUSED] = 0
        elif not self._began_before_ejection(t_s - duration_s, instance):
            counts[_ENDED] += 1
            counts[_FAILED] += 1
            counts[_REFUSED] = counts[_REFUSED] + 1 if meaning == UNREACHED else 0
            if counts[_FAILED] >= self._failures or counts[_REFUSED] >= self._connect_failures:
                return self._eject(t_s, instance)
        if instance in self._outliers:
            return self._eject(t_s, instance)
        return None

    def probed(self, t_s: float, instance: int, healthy: bool) -> Gate | None:
        """Take in a health check; return the new gate if it changed."""
        return None if healthy else self.record(t_s, instance, Outcome.UNREACHABLE, 0.0)

    def wake(self, t_s: float, instance: int) -> Gate | None:
        """Let an ejected instance come back if its time is over."""
        if instance not in self._ejected or t_s < self._ejections[instance][1]:
            return None
        self._ejected.discard(instance)
        return Gate(UNLIMITED, inf)

    def joined(self, t_s: float, instance: Instance) -> None:
        """Count an instance that is ready among those of which a share may be ejected."""
        self._counts.setdefault(instance.number, [0, 0, 0, 0])

    def forget(self, instance: int) -> None:
        """Drop what is known of an instance that is gone."""
        self._counts.pop(instance, None)
        self._ejected.discard(instance)
        self._ejections.pop(instance, None)
        self._outliers.discard(instance)

    def _began_before_ejection(self, began_s: float, instance: int) -> bool:
        # Nothing begins while it is out: half of that time tells before from after, however it is rounded.
        known = self._ejections.get(instance)
        return known is not None and began_s < known[1] - 0.5 * self._eject_s

    def _compare(self, t_s: float) -> None:
        """Find the outliers of the interval that has ended, and begin the next one."""
        recent = t_s < self._interval_ends_s + self._interval_s  # else nobody has worked for as long again
        rates = {
            instance: counts[_OK] / counts[_ENDED]
            for instance, counts in self._counts.items()
            if recent and counts[_ENDED] >= self._minimum_attempts
        }
        self._outliers = set()
        if len(rates) >= self._minimum_instances:
            lowest = lowest_rate(rates.values(), self._deviations, self._gap)
            self._outliers = {instance for instance, rate in rates.items() if rate < lowest}
        for counts in self._counts.values():
            counts[_OK] = counts[_ENDED] = 0
        self._interval_ends_s = t_s + self._interval_s

    def _eject(self, t_s: float, instance: int) -> Gate | None:
        known = len(self._counts)
        most = min(known - 1, max(1, int(self._max_ejected * known + _ROUNDING)))
        if instance in self._ejected or len(self._ejected) >= most:
            return None
        times, back_s = self._ejections.get(instance, (0, t_s))
        calm = int((t_s - back_s) / self._interval_s)
        times = min(max(0, times - calm) + 1, self._most_times)
        until_s = t_s + min(times * self._eject_s, self._longest_eject_s)
        counts = self._counts[instance]
        counts[_OK] = counts[_ENDED] = counts[_FAILED] = counts[_REFUSED] = 0
        self._outliers.discard(instance)
        self._ejected.add(instance)
        self._ejections[instance] = (times, until_s)
        return Gate(0, until_s)
