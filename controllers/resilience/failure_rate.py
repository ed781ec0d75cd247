"""A circuit breaker on the shares of failed and of slow attempts."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Literal

from controllers.resilience.outcomes import BAD, MEANING, NEITHER, UNREACHED
from glowsim.core.instance import UNLIMITED
from glowsim.core.parameters import Count, Fraction, PositiveSeconds
from glowsim.core.protocols import Gate
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Outcome

__all__ = ["FailureRateBreaker"]

_FAILED, _SLOW, _REFUSED = range(3)
"""Places among an instance's counts: of its window, and of refused connections in a row."""

Window = deque[tuple[float, bool, bool]]
"""(end, failed, slow) of the attempts that count, the oldest first."""


class FailureRateBreaker(Stateful):
    """Decides that an instance rests while too large a share of its attempts fail or are slow.

    Closed, it looks at the last ``calls`` attempts, none older than ``window_s``, once there are
    ``minimum``: it opens where failed / attempts >= failure_share or slow / attempts >= slow_share. Refused
    connections are counted apart: ``connect_failures`` of them in a row open it.

    Open, it lets nothing through for ``open_s``. Then it is half-open, with up to ``probes`` attempts in
    flight, and judges ``probes`` of them by the same shares, without a minimum: it closes with an empty
    window, or opens for twice as long, as soon as enough failed; one refused connection will do. Attempts
    that began before it opened change nothing. It cannot get stuck half-open: a permit is a slot, which comes
    back when its attempt has ended or run out of time, however that counts; and it waits for ``probes`` of
    them no longer than it was open, then those decide that there are, or, without any, the next one.

    Failures are ERROR, TIMEOUT and LOST; refused is UNREACHABLE, or a failed health check; OK and INVALID
    (the task's own fault) are successes; THROTTLED and CANCELLED are neither. A passed health check proves
    nothing about work, and changes nothing.

    Parameters
    ----------
    failure_share
        Share of failed attempts that opens it, above 0 to 1.
    slow_share
        Share of slow attempts that opens it, above 0 to 1.
    slow_s
        Seconds beyond which an attempt is slow, above 0; None: none is.
    minimum
        Attempts below which no share is taken, at most ``calls``.
    calls
        Attempts that are looked at.
    window_s
        Seconds for which an attempt is looked at, above 0; None: until there are ``calls`` later ones.
    connect_failures
        Refused connections in a row that open it.
    open_s
        Seconds for which it is open the first time, above 0.
    longest_open_s
        Seconds for which it is open at most, at least ``open_s``.
    probes
        Attempts in flight that are let through while it is half-open, and attempts that it is judged by then.
    when_all_open
        What a request does that no instance may take: ``wait`` for the first to be let through to, within
        its own time limit, or ``fail`` at once.

    Raises
    ------
    ValueError
        A share is 0, ``minimum`` is above ``calls`` or ``longest_open_s`` below ``open_s``.

    Notes
    -----
    Sources: Nygard, "Release It!", 2nd edition, 2018, section "Circuit Breaker"; resilience4j's
    ``CircuitBreaker`` for the shares, the window and the minimum (there: 50 % of 100 calls, at least 100,
    open for 60 s). Departures: permits are returned by every attempt, an open period doubles each time,
    and a half-open breaker that has seen too many fail does not wait for the rest.

    Known weakness: the time that a model takes goes with the tokens that it writes, so ``slow_s`` is a limit
    for the longest answer that is still fine, not for a slow instance. A window takes some 100 bytes an
    attempt and instance.

    >>> breaker = FailureRateBreaker(minimum=4, open_s=30, probes=2)
    >>> ends = (Outcome.OK, Outcome.OK, Outcome.ERROR, Outcome.ERROR)
    >>> [breaker.record(float(t_s), 7, outcome, 1.0) for t_s, outcome in enumerate(ends)]
    [None, None, None, Gate(cap=0, until_s=33.0)]
    >>> breaker.wake(33.0, 7)
    Gate(cap=2, until_s=63.0)
    >>> [breaker.record(t_s, 7, Outcome.OK, 1.0) for t_s in (35.0, 36.0)][1].until_s
    inf
    """

    state = ("_watched", "_resting")

    def __init__(
        self,
        *,
        failure_share: Fraction = 0.5,
        slow_share: Fraction = 1.0,
        slow_s: PositiveSeconds | None = None,
        minimum: Count = 10,
        calls: Count = 100,
        window_s: PositiveSeconds | None = 300.0,
        connect_failures: Count = 3,
        open_s: PositiveSeconds = 30.0,
        longest_open_s: PositiveSeconds = 300.0,
        probes: Count = 3,
        when_all_open: Literal["wait", "fail"] = "wait",
    ) -> None:
        if failure_share == 0.0:
            raise ValueError("failure_share: 0 would open it without a failure; give more")
        if slow_share == 0.0:
            raise ValueError("slow_share: 0 would open it without a slow attempt; give more")
        if minimum > calls:
            raise ValueError(f"minimum: {minimum} is never reached by {calls} calls; give at most that")
        if longest_open_s < open_s:
            raise ValueError(
                f"longest_open_s: {longest_open_s} is below open_s, {open_s}; give at least that"
            )
        self._failure_share = failure_share
        self._slow_share = slow_share
        self._slow_s = inf if slow_s is None else slow_s
        self._minimum = minimum
        self._calls = calls
        self._window_s = inf if window_s is None else window_s
        self._connect_failures = connect_failures
        self._open_s = open_s
        self._longest_open_s = longest_open_s
        self._probes = probes
        self.when_all_open = when_all_open
        self._watched: dict[int, tuple[Window, list[int]]] = {}
        """Instance -> its window and counts."""
        self._resting: dict[int, tuple[float, float, float]] = {}
        """Instance -> (open period, when the attempts began that count, end); a closed one is absent.

        While it is open none count: inf. The end of half-open is inf once the next attempt decides.
        """

    def record(self, t_s: float, instance: int, outcome: Outcome, duration_s: float) -> Gate | None:
        """Take in how an attempt ended; return the new gate if it changed."""
        meaning = MEANING[outcome]
        resting = self._resting.get(instance)
        if meaning == NEITHER or (resting is not None and t_s - duration_s < resting[1]):
            return None
        watched = self._watched.get(instance)
        if watched is None:
            watched = self._watched[instance] = (deque(), [0, 0, 0])
        window, counts = watched
        if meaning == UNREACHED:
            counts[_REFUSED] += 1
            if resting is not None or counts[_REFUSED] >= self._connect_failures:
                return self._open(t_s, instance)
            return None
        failed, slow = meaning == BAD, duration_s > self._slow_s
        window.append((t_s, failed, slow))
        counts[_REFUSED] = 0
        if failed or slow:
            counts[_FAILED] += failed
            counts[_SLOW] += slow
        if resting is not None:
            return self._judge(t_s, instance, 1 if resting[2] == inf else self._probes)
        if len(window) > self._calls:
            _drop_oldest(window, counts)
        if not counts[_FAILED] and not counts[_SLOW]:
            return None
        oldest_s = t_s - self._window_s
        while window[0][0] < oldest_s:
            _drop_oldest(window, counts)
        if len(window) >= self._minimum and self._too_many(counts, len(window)):
            return self._open(t_s, instance)
        return None

    def probed(self, t_s: float, instance: int, healthy: bool) -> Gate | None:
        """Take in a health check; return the new gate if it changed."""
        return None if healthy else self.record(t_s, instance, Outcome.UNREACHABLE, 0.0)

    def wake(self, t_s: float, instance: int) -> Gate | None:
        """Go half-open, or judge a half-open one by what there is, if its moment has come."""
        resting = self._resting.get(instance)
        if resting is None or t_s < resting[2]:
            return None
        open_s, from_s, until_s = resting
        if from_s < inf:
            ended = len(self._watched[instance][0])
            if ended:
                return self._judge(t_s, instance, ended)
            self._resting[instance] = (open_s, from_s, inf)
            return Gate(self._probes, inf)
        # Nothing begins while it is open: half of that time tells before from after, however it is rounded.
        self._resting[instance] = (open_s, until_s - 0.5 * open_s, t_s + open_s)
        return Gate(self._probes, t_s + open_s)

    def forget(self, instance: int) -> None:
        """Drop what is known of an instance that is gone."""
        self._watched.pop(instance, None)
        self._resting.pop(instance, None)

    def _too_many(self, counts: list[int], attempts: int) -> bool:
        return (
            counts[_FAILED] / attempts >= self._failure_share or counts[_SLOW] / attempts >= self._slow_share
        )

    def _judge(self, t_s: float, instance: int, needed: int) -> Gate | None:
        """Close a half-open one, or open it again; None while the rest of those needed can turn it."""
        window, counts = self._watched[instance]
        if self._too_many(counts, needed):
            return self._open(t_s, instance)
        if len(window) < needed:
            return None
        del self._resting[instance]
        self._watched[instance] = (deque(), [0, 0, 0])
        return Gate(UNLIMITED, inf)

    def _open(self, t_s: float, instance: int) -> Gate:
        resting = self._resting.get(instance)
        open_s = self._open_s if resting is None else min(2.0 * resting[0], self._longest_open_s)
        self._resting[instance] = (open_s, inf, t_s + open_s)
        self._watched[instance] = (deque(), [0, 0, 0])
        return Gate(0, t_s + open_s)


def _drop_oldest(window: Window, counts: list[int]) -> None:
    _, failed, slow = window.popleft()
    counts[_FAILED] -= failed
    counts[_SLOW] -= slow
