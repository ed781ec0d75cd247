"""A circuit breaker on consecutive failures."""

from __future__ import annotations

from math import inf

from glowsim.core.instance import UNLIMITED
from glowsim.core.parameters import Count, PositiveSeconds
from glowsim.core.protocols import Gate
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Outcome

__all__ = ["ConsecutiveBreaker"]

_FAILURES = frozenset({Outcome.ERROR, Outcome.UNREACHABLE, Outcome.TIMEOUT, Outcome.LOST})
_NEITHER = frozenset({Outcome.THROTTLED, Outcome.CANCELLED})
_COUNTING, _OPEN, _HALF_OPEN = range(3)


class ConsecutiveBreaker(Stateful):
    """Decides that an instance which fails ``failures`` times in a row rests, and is then tried with care.

    Closed, it lets everything through. Open, it lets nothing through, and attempts that end meanwhile
    change nothing. After ``open_s`` it is half-open: up to ``probes`` attempts in flight at once; the first
    success closes it, the first failure opens it again for twice as long. Half-open ends by itself too: its
    permits are renewed every open period, so it cannot get stuck when the probes' outcomes never count.

    Failures are ERROR, UNREACHABLE, TIMEOUT and LOST. OK and INVALID (the task's own fault) are successes;
    THROTTLED and CANCELLED are neither.

    Parameters
    ----------
    failures
        Failures in a row that open it.
    open_s
        Seconds for which it is open the first time, above 0.
    probes
        Attempts in flight that are let through while it is half-open.
    longest_open_s
        Seconds for which it is open at most, at least ``open_s``.

    Raises
    ------
    ValueError
        ``longest_open_s`` is below ``open_s``.

    Notes
    -----
    Source: Nygard, "Release It!", 2nd edition, 2018, section "Circuit Breaker".

    >>> breaker = ConsecutiveBreaker(failures=2, open_s=30)
    >>> breaker.record(0.0, 7, Outcome.ERROR, 1.0), breaker.record(1.0, 7, Outcome.TIMEOUT, 1.0)
    (None, Gate(cap=0, until_s=31.0))
    >>> breaker.wake(31.0, 7), breaker.record(32.0, 7, Outcome.OK, 1.0).until_s
    (Gate(cap=1, until_s=61.0), inf)
    """

    state = ("_troubled",)

    def __init__(
        self,
        *,
        failures: Count = 5,
        open_s: PositiveSeconds = 30.0,
        probes: Count = 1,
        longest_open_s: PositiveSeconds = 300.0,
    ) -> None:
        if longest_open_s < open_s:
            raise ValueError(
                f"longest_open_s: {longest_open_s} is below open_s, {open_s}; give at least that"
            )
        self._failures = failures
        self._open_s = open_s
        self._probes = probes
        self._longest_open_s = longest_open_s
        self._troubled: dict[int, tuple[int, int, float, float]] = {}
        """Instance -> (phase, failures in a row, open period, end of the gate); a healthy one is absent."""

    def record(self, t_s: float, instance: int, outcome: Outcome, duration_s: float) -> Gate | None:
        """Take in how an attempt or a probe ended; return the new gate if it changed."""
        known = self._troubled.get(instance)
        if known is None:
            if outcome not in _FAILURES:
                return None
            known = (_COUNTING, 0, self._open_s, inf)
        phase, failures, open_s, _ = known
        if phase == _OPEN or outcome in _NEITHER:
            return None
        if outcome not in _FAILURES:
            del self._troubled[instance]
            return Gate(UNLIMITED, inf) if phase == _HALF_OPEN else None
        failures += 1
        if phase == _COUNTING and failures < self._failures:
            self._troubled[instance] = (_COUNTING, failures, open_s, inf)
            return None
        if phase == _HALF_OPEN:
            open_s = min(2.0 * open_s, self._longest_open_s)
        return self._turn(instance, _OPEN, failures, open_s, t_s + open_s)

    def wake(self, t_s: float, instance: int) -> Gate | None:
        """Go half-open, or renew the permits, if the gate's moment has come."""
        known = self._troubled.get(instance)
        if known is None or t_s < known[3]:
            return None
        _, failures, open_s, _ = known
        return self._turn(instance, _HALF_OPEN, failures, open_s, t_s + open_s)

    def forget(self, instance: int) -> None:
        """Drop what is known of an instance that is gone."""
        self._troubled.pop(instance, None)

    def _turn(self, instance: int, phase: int, failures: int, open_s: float, until_s: float) -> Gate:
        self._troubled[instance] = (phase, failures, open_s, until_s)
        return Gate(0 if phase == _OPEN else self._probes, until_s)
