"""A fleet in the text format of Prometheus: what ``/metrics`` says, and what a simulation leaves behind.

Both are made here, of the same telemetry, so one dashboard serves both. Labels are few and of few values (agent, model,
how something ended): never a user, a session or an instance, whose numbers grow as instances come and go. Source of the
format: Prometheus' documentation, "Exposition formats", text format 0.0.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

import glowsim
from glowsim.core.instance import UNLIMITED
from glowsim.core.pool import Pool
from glowsim.core.protocols import Load
from glowsim.core.types import State
from glowsim.core.wrappers import inside
from glowsim.live.telemetry import BUCKETS_S, AgentFigures, Histogram, Telemetry
from glowsim.scenario.controllers import Controller, Limit
from glowsim.scenario.fleet import Agent

__all__ = ["exposition"]

_CLOSED, _HALF_OPEN, _OPEN = 0, 1, 2
_CACHE_RESULTS = ("hit", "joined", "miss", "stale")


class _Row(NamedTuple):
    """An agent, from every side."""

    label: str
    figures: AgentFigures
    pool: Pool
    load: Load
    written: Agent


def exposition(telemetry: Telemetry, t_s: float) -> str:
    """Return a fleet at a moment as Prometheus' text, version 0.0.4; what a fleet has no controller for is left out.

    Parameters
    ----------
    telemetry
        What was seen of the fleet. Its counters begin with it.
    t_s
        The moment, not earlier than the last event.
    """
    telemetry.catch_up(t_s)
    scenario, plane = telemetry.scenario, telemetry.plane
    models = [*scenario.models, ""]  # the last is what -1 stands for
    weights = plane.first_weights()
    rows = [
        _Row(_labels(agent=name), figures, pool, telemetry.load(figures.number, t_s), written)
        for (name, written), figures, pool in zip(
            scenario.agents().items(), telemetry.agents, plane.pools, strict=True
        )
    ]
    families: list[Iterator[str]] = []

    def say(name: str, kind: str, meaning: str, samples: Iterable[tuple[str, float]]) -> None:
        families.append(_family(f"glowsim_{name}", kind, meaning, samples))

    def gauge(name: str, meaning: str, value: Callable[[_Row], float]) -> None:
        say(name, "gauge", meaning, [(row.label, value(row)) for row in rows])

    def durations(name: str, meaning: str, of: Callable[[AgentFigures], Histogram]) -> None:
        families.append(
            _durations(f"glowsim_{name}", meaning, [(row.label, of(row.figures)) for row in rows])
        )

    # fmt: off
    say("build_info", "gauge", "The glowsim that says this.", [(_labels(version=glowsim.__version__), 1)])
    say(
        "agent_info", "gauge", "What an agent is, to join with by its name.",
        [(f"{row.label},{_labels(domain=agent.domain, model=agent.model, region=agent.region)}", 1)
         for row in rows for agent in (row.written,)],
    )
    say(
        "requests_total", "counter",
        "What became of requests; model is that of the last attempt, empty where none was made.",
        [(f"{row.label},{_labels(model=models[model], outcome=outcome)}", count)
         for row in rows for (model, outcome), count in sorted(row.figures.ended.items())],
    )
    durations("request_duration_seconds", "From arrival to answer, of the answered.", lambda of: of.duration)
    durations(
        "time_to_first_token_seconds", "From arrival to the first token, of streams.", lambda of: of.first_token
    )
    durations("queue_wait_seconds", "In the gateway's queue, before each attempt.", lambda of: of.waits)
    gauge("queue_depth", "Requests in the gateway's queue.", lambda row: row.load.queued)
    gauge("open_requests", "Requests that have arrived and not ended.", lambda row: row.figures.open)
    gauge("inflight_requests", "Attempts under way.", lambda row: row.load.in_flight)
    gauge("agent_up", "1 if an instance is ready, 0 if none is.", lambda row: int(row.load.ready > 0))
    gauge("ready_replicas", "Instances that are ready.", lambda row: row.load.ready)
    gauge("desired_replicas", "Instances that there are to be.", lambda row: row.figures.wanted)
    say(
        "breaker_state", "gauge", "Breaker of the worst ready instance: 0 closed, 1 half-open, 2 open.",
        [(row.label, _breaker(row.pool)) for row in rows if row.pool.controllers.breaker is not None],
    )
    say(
        "retries_total", "counter", "Attempts after the first, by how the one before ended.",
        [(f"{row.label},{_labels(reason=reason)}", count)
         for row in rows for reason, count in sorted(row.figures.retries.items())],
    )
    say(
        "ratelimited_total", "counter", "Requests over a limit or budget; scope: whose limits the agent has.",
        [(f"{row.label},{_labels(scope=scope)}", row.figures.limited)
         for row in rows if (scope := _scope(scenario.controllers_of(row.written).get("limiter", ())))],
    )
    say(
        "cache_requests_total", "counter",
        "Answers to requests that may share one: from the cache, joined to another's, made, or out of date.",
        [(f"{row.label},{_labels(result=result)}", row.figures.cache[result])
         for row in rows if row.pool.controllers.cache is not None for result in _CACHE_RESULTS],
    )
    say(
        "canary_weight", "gauge", "Share of the traffic that a rollout gives to a variant, 0 to 1.",
        [(row.label, weights[number] if row.figures.weight is None else row.figures.weight)
         for number, row in enumerate(rows) if number in weights],
    )
    say(
        "drift_statistic", "gauge", "What a drift detector compares with its threshold.",
        [(f"{row.label},{_labels(metric=detector.metric, detector=str(number))}", each.statistic)
         for row in rows for number, detector in enumerate(row.pool.controllers.detectors)
         for each in inside(detector) if hasattr(each, "statistic")],
    )
    say(
        "cost_usd_total", "counter", "US dollars spent.",
        [(f"{row.label},{_labels(part=part)}", usd) for row in rows
         for part, usd in (("instances", row.figures.instance_usd), ("tokens", row.figures.token_usd))],
    )
    # fmt: on
    return "\n".join(line for family in families for line in family) + "\n"


def _scope(limits: Iterable[Controller]) -> str:
    """Return whose limits an agent has: its own, the fleet's or both; which of several refused is not told."""
    return "+".join(sorted({limit.scope for limit in limits if isinstance(limit, Limit)}))


def _breaker(pool: Pool) -> int:
    """Return how open the breaker of a pool's worst instance is."""
    caps = [each.gate_cap for each in pool.instances.values() if each.state is State.READY]
    least = min(caps, default=UNLIMITED)
    return _CLOSED if least == UNLIMITED else _OPEN if least == 0 else _HALF_OPEN


def _family(name: str, kind: str, meaning: str, samples: Iterable[tuple[str, float]]) -> Iterator[str]:
    """Yield the lines of a metric, from labels and values."""
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield f"{name}{{{labels}}} {value}"


def _durations(name: str, meaning: str, histograms: Iterable[tuple[str, Histogram]]) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} histogram"
    for labels, histogram in histograms:
        for bound, count in zip((*BUCKETS_S, "+Inf"), accumulate(histogram.counts), strict=True):
            yield f'{name}_bucket{{{labels},le="{bound}"}} {count}'
        yield f"{name}_sum{{{labels}}} {histogram.total_s}"
        yield f"{name}_count{{{labels}}} {sum(histogram.counts)}"


def _labels(**labels: str | None) -> str:
    r"""Return labels as they stand between braces.

    >>> print(_labels(agent='a"b\\c', domain=None))
    agent="a\"b\\c",domain=""
    """
    return ",".join(f'{name}="{_escaped(value or "")}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
