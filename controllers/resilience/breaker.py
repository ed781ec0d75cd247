"""A circuit breaker on consecutive failures."""

from __future__ import annotations

from math import inf
from typing import Literal

from controllers.resilience.outcomes import GOOD, MEANING, NEITHER
from glowsim.core.instance import UNLIMITED
from glowsim.core.parameters import Count, PositiveSeconds
from glowsim.core.protocols import Gate
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Outcome

__all__ = ["ConsecutiveBreaker"]

_NO_FAILURE = (GOOD, NEITHER)
_COUNTING, _OPEN, _HALF_OPEN = range(3)


class ConsecutiveBreaker(Stateful):
    """Decides that an instance which fails ``failures`` times in a row rests, and is then tried with care.

    Closed, it lets everything through. Open, it lets nothing through, and attempts that end meanwhile
    change nothing. After ``open_s`` it is half-open: up to ``probes`` attempts in flight at once; the first
    success closes it, the first failure opens it again for twice as long. Attempts that began before it
    opened change nothing then, either.

    It cannot get stuck half-open: a permit is a slot, which comes back when its attempt has ended or run out
    of time, however that counts.

    Failures are ERROR, UNREACHABLE, TIMEOUT and LOST. OK and INVALID (the task's own fault) are successes;
    THROTTLED and CANCELLED are neither. A failed health check is a failure; a passed one proves nothing
    about work, and changes nothing.

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
    when_all_open
        What a request does that no instance may take: ``wait`` for the first to be let through to, within
        its own time limit, or ``fail`` at once.

    Raises
    ------
    ValueError
        ``longest_open_s`` is below ``open_s``.

    Notes
    -----
    Source: Nygard, "Release It!", 2nd edition, 2018, section "Circuit Breaker".

    Known weakness: an instance that fails a share p of its work, spread evenly, opens it only after
    (1 - p**n) / ((1 - p) * p**n) attempts on average, n being ``failures``: 62 at p = 1/2 and n = 5, but
    3,905 at p = 1/5. `FailureRateBreaker` sees such shares.

    >>> breaker = ConsecutiveBreaker(failures=2, open_s=30)
    >>> breaker.record(0.0, 7, Outcome.ERROR, 1.0), breaker.record(1.0, 7, Outcome.TIMEOUT, 1.0)
    (None, Gate(cap=0, until_s=31.0))
    >>> breaker.wake(31.0, 7), breaker.record(32.0, 7, Outcome.OK, 1.0).until_s
    (Gate(cap=1, until_s=inf), inf)
    """

    state = ("_troubled",)

    def __init__(
        self,
        *,
        failures: Count = 5,
        open_s: PositiveSeconds = 30.0,
        probes: Count = 1,
        longest_open_s: PositiveSeconds = 300.0,
        when_all_open: Literal["wait", "fail"] = "wait",
    ) -> None:
        if longest_open_s < open_s:
            raise ValueError(
                f"longest_open_s: {longest_open_s} is below open_s, {open_s}; give at least that"
            )
        self._failures = failures
        self._open_s = open_s
        self._probes = probes
        self._longest_open_s = longest_open_s
        self.when_all_open = when_all_open
        self._troubled: dict[int, tuple[int, int, float, float]] = {}
        """Instance -> (phase, failures in a row, open period, its start); a healthy one is absent."""

    def record(self, t_s: float, instance: int, outcome: Outcome, duration_s: float) -> Gate | None:
        """Take in how an attempt ended; return the new gate if it changed."""
        meaning = MEANING[outcome]
        known = self._troubled.get(instance)
        if known is None:
            if meaning in _NO_FAILURE:
                return None
            known = (_COUNTING, 0, self._open_s, inf)
        phase, failures, open_s, since_s = known
        if phase == _OPEN or meaning == NEITHER:
            return None
        # Nothing begins while it is open: half of that time tells before from after, however it is rounded.
        if phase == _HALF_OPEN and t_s - duration_s < since_s + 0.5 * open_s:
            return None
        if meaning == GOOD:
            del self._troubled[instance]
            return Gate(UNLIMITED, inf) if phase == _HALF_OPEN else None
        failures += 1
        if phase == _COUNTING and failures < self._failures:
            self._troubled[instance] = (_COUNTING, failures, open_s, inf)
            return None
        if phase == _HALF_OPEN:
            open_s = min(2.0 * open_s, self._longest_open_s)
        self._troubled[instance] = (_OPEN, failures, open_s, t_s)
        return Gate(0, t_s + open_s)

    def probed(self, t_s: float, instance: int, healthy: bool) -> Gate | None:
        """Take in a health check; return the new gate if it changed."""
        return None if healthy else self.record(t_s, instance, Outcome.UNREACHABLE, 0.0)

    def wake(self, t_s: float, instance: int) -> Gate | None:
        """Go half-open if it has been open long enough."""
        known = self._troubled.get(instance)
        if known is None:
            return None
        phase, failures, open_s, since_s = known
        if phase != _OPEN or t_s < since_s + open_s:
            return None
        self._troubled[instance] = (_HALF_OPEN, failures, open_s, since_s)
        return Gate(self._probes, inf)

    def forget(self, instance: int) -> None:
        """Drop what is known of an instance that is gone."""
        self._troubled.pop(instance, None)
