"""What needs attention and who does best: rules over an agent's figures.

A share that was seen is held against a limit by the end of its Wilson interval at 95 %, not by the share itself: three
failures in ten do not prove an error rate above 5 %, and twenty answers out of twenty do not outrank 990 out of 1,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import NamedTuple

from glowsim.core.types import Severity
from glowsim.live.windows import Tally
from glowsim.scenario import Scenario

__all__ = ["Limits", "Situation", "at_least", "judged", "limits_of"]

_Z = 1.959963984540054
_DEFAULT_ERROR_SHARE = 0.05
_ENOUGH = 20
"""Requests that are over, without which a window is passed over for a longer one."""
_PARTS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def at_least(hits: int, n: int) -> float:
    """Return the lower end of the 95 % Wilson interval of a share; 0 of nothing.

    Parameters
    ----------
    hits, n
        0 <= hits <= n.

    Notes
    -----
    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.

    >>> [round(at_least(*each), 3) for each in ((990, 1000), (20, 20), (3, 10), (0, 0))]
    [0.982, 0.839, 0.108, 0.0]
    """
    if not n:
        return 0.0
    share = hits / n
    middle = share + _Z * _Z / (2 * n)
    half = _Z * sqrt(share * (1.0 - share) / n + _Z * _Z / (4 * n * n))
    return max((middle - half) / (1.0 + _Z * _Z / n), 0.0)


class Limits(NamedTuple):
    """What an agent is held to."""

    error_share: float
    error_source: str
    """Where that limit is from, in words."""
    latency_s: tuple[tuple[float, float, str], ...]
    """(p, seconds, where it is from): the quantile p stays at or below."""


def limits_of(scenario: Scenario) -> list[Limits]:
    r"""Return what each agent is held to: the scenario's service levels for it, its group or the fleet.

    Without a service level for errors the limit is 5 %, and its source says so.

    >>> from glowsim.scenario import load
    >>> text = "title: t, question: q, seed: 1, duration: 1s, models: {m: {input: $1/1M, output: $1/1M}}"
    >>> fleet = "[{agent: a, model: m, instances: 1, concurrency: 1, service: {law: time, time: 1s}}]"
    >>> work = "[{kind: poisson, rate: 1/s, tokens_in: 1, tokens_out: 1}]"
    >>> limits_of(load(f"{{{text}, fleet: {fleet}, workload: {work}}}\n"))
    [Limits(error_share=0.05, error_source='the scenario names no limit', latency_s=())]
    """
    found = []
    for name in scenario.agents():
        error, source, latencies = _DEFAULT_ERROR_SHARE, "the scenario names no limit", {}
        # The fleet's come first, so that an agent's own take their place.
        for slo in sorted(scenario.slos, key=lambda each: each.agent is not None):
            if slo.agent is not None and name not in scenario.members(slo.agent):
                continue
            _, _, quantile = slo.metric.partition("latency_s_")
            if slo.metric == "error_rate" and slo.maximum is not None:
                error, source = slo.maximum, slo.name
            elif slo.metric == "success_rate" and slo.minimum is not None and source not in _named(scenario):
                error, source = 1.0 - slo.minimum, slo.name
            elif quantile in _PARTS and slo.maximum is not None:
                latencies[_PARTS[quantile]] = (slo.maximum, slo.name)
        found.append(Limits(error, source, tuple((p, *limit) for p, limit in sorted(latencies.items()))))
    return found


def _named(scenario: Scenario) -> set[str]:
    return {slo.name for slo in scenario.slos if slo.metric == "error_rate"}


class Situation(NamedTuple):
    """What an agent is judged by."""

    ready: int
    starting: int
    wanted: int
    waiting: int
    breakers: int
    """Instances that a breaker keeps from work, wholly or in part."""
    alerts: Sequence[Severity]
    """Of those that are open."""
    windows: Sequence[tuple[str, Tally]]
    """(name, what happened), shortest first."""


def judged(situation: Situation, limits: Limits) -> tuple[str, list[str]]:
    """Return an agent's status, ``critical``, ``attention``, ``ok`` or ``idle``, and every reason for it.

    Errors and latencies are judged over the shortest window with at least 20 requests that are over, from 15 minutes
    on; idle is who had no request in the longest.

    >>> calm = Situation(1, 0, 1, 0, 0, (), (("1 min", Tally()), ("15 min", Tally()), ("24 h", Tally())))
    >>> judged(calm, Limits(0.05, "5 %", ()))
    ('idle', [])
    >>> judged(calm._replace(ready=0), Limits(0.05, "5 %", ()))
    ('critical', ['no instance is ready'])
    """
    critical, attention = [], []
    at = situation
    if not at.ready and (at.waiting or at.wanted):
        if at.starting:
            attention.append(f"no instance is ready; {at.starting} starting")
        else:
            critical.append("no instance is ready")
    if at.breakers:
        said = f"{at.breakers} of {at.ready} breakers not closed"
        (critical if at.breakers >= at.ready else attention).append(said)
    for severity in (Severity.CRITICAL, Severity.WARNING):
        n = at.alerts.count(severity)
        if n:
            word = severity.name.lower()
            (critical if severity == Severity.CRITICAL else attention).append(
                f"{n} {word} alert{'s' if n > 1 else ''} open"
            )
    attention += _slipping(at.windows[1:], limits)
    status = "critical" if critical else "attention" if attention else "ok"
    longest = at.windows[-1][1]
    if status == "ok" and not (longest.arrived or longest.ended):
        status = "idle"
    return status, critical + attention


def _slipping(windows: Sequence[tuple[str, Tally]], limits: Limits) -> list[str]:
    """Return which limits are exceeded, in words."""
    enough = [each for each in windows if each[1].ended >= _ENOUGH]
    if not enough:
        return []
    name, tally = enough[0]
    found = []
    ended = tally.ended
    if at_least(tally.bad, ended) > limits.error_share:
        found.append(
            f"{100 * tally.bad / ended:.3g} % errors in {name} ({tally.bad} of {ended}), over "
            f"{100 * limits.error_share:.3g} % ({limits.error_source})"
        )
    answers = sum(tally.latencies.values())
    for p, limit_s, source in limits.latency_s:
        slow = tally.slower_than(limit_s)
        if at_least(slow, answers) > 1.0 - p:
            found.append(
                f"{100 * slow / answers:.3g} % of answers in {name} take over {limit_s:g} s, where "
                f"{100 * (1 - p):.2g} % may ({source})"
            )
    return found
