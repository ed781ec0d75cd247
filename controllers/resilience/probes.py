"""Health checks: an instance that fails them in a row is left out until it passes them in a row."""

from __future__ import annotations

from math import inf
from typing import Literal

from glowsim.core.instance import UNLIMITED
from glowsim.core.parameters import Count, PositiveSeconds
from glowsim.core.protocols import Gate
from glowsim.core.snapshot import Stateful
from glowsim.core.types import Outcome

__all__ = ["ProbesBreaker"]


class ProbesBreaker(Stateful):
    """Decides by health checks alone: ``unhealthy`` failed in a row take an instance out, ``healthy`` passed in.

    How attempts end changes nothing. A verdict lapses ``lapse_s`` after the last check: where checks stop
    coming, the instance is let in again rather than left out for good.

    Parameters
    ----------
    unhealthy
        Failed checks in a row that take an instance out.
    healthy
        Passed checks in a row that let it in again.
    lapse_s
        Seconds after the last check at which an instance that is out is let in again; more than the time
        between two checks.
    when_all_open
        What a request does that no instance may take: ``wait`` for the first to be let through to, within
        its own time limit, or ``fail`` at once.

    Notes
    -----
    Source: the thresholds of Kubernetes' probes (``failureThreshold`` 3).

    Known weakness: with a check every p seconds, an instance that dies between two goes on getting work for
    (unhealthy - 1) * p to unhealthy * p seconds: 60 to 90 s at 3 and 30 s. And a check that passes does not
    prove that work does. `OutlierBreaker` watches the work itself, and checks as well.

    >>> breaker = ProbesBreaker(unhealthy=2, healthy=1, lapse_s=90)
    >>> breaker.probed(0.0, 7, False), breaker.probed(30.0, 7, False)
    (None, Gate(cap=0, until_s=120.0))
    >>> breaker.probed(60.0, 7, True).until_s
    inf
    """

    state = ("_ill", "_out")

    def __init__(
        self,
        *,
        unhealthy: Count = 3,
        healthy: Count = 2,
        lapse_s: PositiveSeconds = 90.0,
        when_all_open: Literal["wait", "fail"] = "wait",
    ) -> None:
        self._unhealthy = unhealthy
        self._healthy = healthy
        self._lapse_s = lapse_s
        self.when_all_open = when_all_open
        self._ill: dict[int, int] = {}
        """Instance that is in -> failed checks in a row, where there are any."""
        self._out: dict[int, tuple[int, float]] = {}
        """Instance that is out -> (passed checks in a row, when the verdict lapses)."""

    def record(self, t_s: float, instance: int, outcome: Outcome, duration_s: float) -> Gate | None:
        """Take in how an attempt ended, which counts for nothing here."""
        return None

    def probed(self, t_s: float, instance: int, healthy: bool) -> Gate | None:
        """Take in a health check; return the new gate if it changed."""
        if instance in self._out:
            passed = self._out[instance][0] + 1 if healthy else 0
            if passed >= self._healthy:
                del self._out[instance]
                return Gate(UNLIMITED, inf)
        elif healthy:
            self._ill.pop(instance, None)
            return None
        else:
            failed = self._ill.get(instance, 0) + 1
            if failed < self._unhealthy:
                self._ill[instance] = failed
                return None
            self._ill.pop(instance, None)
            passed = 0
        self._out[instance] = (passed, t_s + self._lapse_s)
        return Gate(0, t_s + self._lapse_s)

    def wake(self, t_s: float, instance: int) -> Gate | None:
        """Let an instance in again whose verdict has lapsed."""
        if instance not in self._out or t_s < self._out[instance][1]:
            return None
        del self._out[instance]
        return Gate(UNLIMITED, inf)

    def forget(self, instance: int) -> None:
        """Drop what is known of an instance that is gone."""
        self._ill.pop(instance, None)
        self._out.pop(instance, None)
