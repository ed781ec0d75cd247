"""Counters and windows of a live fleet, folded from events and commands as they pass."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import Any

import glowsim
from glowsim.core.control_plane import ControlPlane
from glowsim.core.protocols import Load
from glowsim.core.reasons import Code, Reason, sentence
from glowsim.core.types import (
    Abandoned,
    Advance,
    Alert,
    Answer,
    Arrived,
    Command,
    Dispatch,
    Event,
    Fail,
    Finished,
    FirstToken,
    Raise,
    Reject,
    Scale,
)
from glowsim.scenario import Scenario

__all__ = ["Telemetry"]

_BUCKETS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_WINDOW_S = 300.0
_WINDOW_ROWS = 10_000
_ALERTS = 100


class _Histogram:
    def __init__(self) -> None:
        self.counts = [0] * (len(_BUCKETS_S) + 1)
        self.total_s = 0.0

    def add(self, value_s: float) -> None:
        self.counts[bisect_left(_BUCKETS_S, value_s)] += 1
        self.total_s += value_s

    def lines(self, name: str, labels: str) -> Iterator[str]:
        seen = 0
        for bound, count in zip((*map(str, _BUCKETS_S), "+Inf"), self.counts, strict=True):
            seen += count
            yield f'{name}_bucket{{{labels},le="{bound}"}} {seen}'
        yield f"{name}_sum{{{labels}}} {self.total_s}"
        yield f"{name}_count{{{labels}}} {seen}"


class _Agent:
    def __init__(self, instances: int) -> None:
        self.open = 0
        self.wanted = instances
        self.weight = 0.0
        self.outcomes: Counter[str] = Counter()
        self.cache: Counter[str] = Counter()
        self.retries = 0
        self.limited = 0
        self.cost_usd = 0.0
        self.duration = _Histogram()
        self.first_token = _Histogram()
        self.recent: deque[tuple[float, float]] = deque(maxlen=_WINDOW_ROWS)
        """(when, latency) of the last answers."""


class Telemetry:
    """What ``/metrics`` and ``/state`` show; `saw` is the driver's ``watch``.

    Parameters
    ----------
    scenario
        Names and prices.
    plane
        The control plane, read for its load and never changed.
    instances
        How many instances every agent starts with.
    """

    def __init__(self, scenario: Scenario, plane: ControlPlane, instances: Sequence[int]) -> None:
        self._plane = plane
        self._names = list(scenario.agents())
        self._prices = list(scenario.models.values())
        self._agents = [_Agent(count) for count in instances]
        self._arrived: dict[int, tuple[float, _Agent, bool]] = {}
        self._attempts: dict[int, tuple[float, _Agent, int]] = {}
        self._alerts: deque[tuple[float, Alert]] = deque(maxlen=_ALERTS)

    def saw(self, event: Event, commands: Sequence[Command]) -> None:
        """Count an event and what was answered to it."""
        t_s = event[0]
        match event:
            case Arrived(_, request):
                agent = self._agents[request.agent]
                agent.open += 1
                self._arrived[request.request_id] = (t_s, agent, bool(request.cache_key))
            case FirstToken(_, attempt) if attempt in self._attempts:
                began_s, agent, _ = self._attempts[attempt]
                agent.first_token.add(t_s - began_s)
            case Finished(_, attempt, _, usage) if attempt in self._attempts:
                _, agent, model = self._attempts.pop(attempt)
                price = self._prices[model]
                fresh = usage.tokens_in - usage.tokens_cached
                agent.cost_usd += (
                    price.input_usd_per_token * fresh
                    + price.cached_input_usd_per_token * usage.tokens_cached
                    + price.output_usd_per_token * usage.tokens_out
                )
        for command in commands:
            self._obeyed(t_s, command)
        if isinstance(event, Abandoned):
            self._end(t_s, event.request_id, "abandoned")

    def _obeyed(self, t_s: float, command: Command) -> None:
        match command:
            case Dispatch(attempt, request_id, _, plan, reason):
                _, agent, _ = self._arrived[request_id]
                self._attempts[attempt] = (t_s, agent, plan.model)
                agent.retries += reason.code == Code.RETRIED
            case Answer(request_id, _, Reason(Code.APOLOGY)):
                self._end(t_s, request_id, "apologised")
            case Answer(request_id, _, reason):
                self._end(t_s, request_id, "answered", reason.code)
            case Fail(request_id, outcome):
                self._end(t_s, request_id, outcome.name.lower())
            case Reject(request_id, _, reason):
                if request_id in self._arrived and reason.code in (Code.LIMITED, Code.LIMIT_UNKNOWN):
                    self._arrived[request_id][1].limited += 1
                self._end(t_s, request_id, "rejected")
            case Scale():
                self._agents[command.agent].wanted = command.want
            case Advance():
                self._agents[command.agent].weight = command.weight
            case Raise(alert):
                self._alerts.append((t_s, alert))

    def _end(self, t_s: float, request_id: int, outcome: str, code: Code | None = None) -> None:
        arrived = self._arrived.pop(request_id, None)
        if arrived is None:
            return  # it had ended when its client left
        arrived_s, agent, cacheable = arrived
        agent.open -= 1
        agent.outcomes[outcome] += 1
        if code is not None:
            agent.duration.add(t_s - arrived_s)
            agent.recent.append((t_s, t_s - arrived_s))
            if cacheable:
                agent.cache["hit" if code == Code.CACHED else "miss"] += 1

    def state(self, t_s: float) -> dict[str, Any]:
        """Return the fleet at a moment, as plain JSON data; latencies are of the last five minutes."""
        agents = {}
        for name, agent, pool in zip(self._names, self._agents, self._plane.pools, strict=True):
            load = pool.sizing.load(t_s)
            recent = sorted(latency_s for when_s, latency_s in agent.recent if when_s >= t_s - _WINDOW_S)
            agents[name] = {
                "open": agent.open,
                "waiting": load.queued,
                "in_flight": load.in_flight,
                "ready": load.ready,
                "starting": load.starting,
                "draining": load.draining,
                "wanted": agent.wanted,
                "latency_s": {
                    "n": len(recent),
                    "p50": _quantile(recent, 0.50),
                    "p95": _quantile(recent, 0.95),
                },
                "outcomes": dict(agent.outcomes),
                "cost_usd": agent.cost_usd,
            }
        alerts = [
            {
                "t_s": when_s,
                "agent": self._names[alert.agent],
                "subject": alert.subject,
                "why": sentence(alert.reason),
            }
            for when_s, alert in self._alerts
        ]
        return {"t_s": t_s, "agents": agents, "alerts": alerts}

    def metrics(self, t_s: float) -> str:
        """Return the fleet in the text format of Prometheus."""
        lines = [
            "# TYPE glowsim_build_info gauge",
            f'glowsim_build_info{{version="{glowsim.__version__}"}} 1',
        ]
        loads = [pool.sizing.load(t_s) for pool in self._plane.pools]
        named = list(zip([f'agent="{name}"' for name in self._names], self._agents, loads, strict=True))

        def lines_of(name: str, kind: str, value: Callable[[_Agent, Load], float]) -> list[str]:
            return [
                f"# TYPE {name} {kind}",
                *(f"{name}{{{label}}} {value(a, load)}" for label, a, load in named),
            ]

        lines += lines_of("glowsim_open_requests", "gauge", lambda agent, load: agent.open)
        lines += lines_of("glowsim_inflight_requests", "gauge", lambda agent, load: load.in_flight)
        lines += lines_of("glowsim_queue_depth", "gauge", lambda agent, load: load.queued)
        lines += lines_of("glowsim_agent_up", "gauge", lambda agent, load: int(load.ready > 0))
        lines += lines_of("glowsim_ready_replicas", "gauge", lambda agent, load: load.ready)
        lines += lines_of("glowsim_desired_replicas", "gauge", lambda agent, load: agent.wanted)
        lines += lines_of("glowsim_canary_weight", "gauge", lambda agent, load: agent.weight)
        lines += lines_of("glowsim_retries_total", "counter", lambda agent, load: agent.retries)
        lines += lines_of("glowsim_ratelimited_total", "counter", lambda agent, load: agent.limited)
        lines += lines_of("glowsim_cost_usd_total", "counter", lambda agent, load: agent.cost_usd)
        for name, key, of in (
            ("glowsim_requests_total", "outcome", "outcomes"),
            ("glowsim_cache_requests_total", "result", "cache"),
        ):
            lines.append(f"# TYPE {name} counter")
            for label, agent, _ in named:
                counts: Counter[str] = getattr(agent, of)
                lines += [f'{name}{{{label},{key}="{value}"}} {counts[value]}' for value in sorted(counts)]
        for name, of in (
            ("glowsim_request_duration_seconds", "duration"),
            ("glowsim_time_to_first_token_seconds", "first_token"),
        ):
            lines.append(f"# TYPE {name} histogram")
            for label, agent, _ in named:
                histogram: _Histogram = getattr(agent, of)
                lines += histogram.lines(name, label)
        return "\n".join(lines) + "\n"


def _quantile(ordered: list[float], p: float) -> float | None:
    """Return the nearest-rank quantile, or None of nothing."""
    return ordered[max(ceil(p * len(ordered)), 1) - 1] if ordered else None
