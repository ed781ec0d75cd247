"""How fast the simulator is, as ratios to a bare heap loop of the same queue in the same process.

Single figures in requests per second say little on a shared machine; ratios of runs that alternate survive
it. Five ways of simulating the same M/M/10 at 80 % load, each drawing its random numbers in blocks:

``bare_loop``: one heap, one FIFO deque, the waits kept; what a person writes in ten minutes.
``mmc_world``: the simulator's own environment and station, without a control plane.
``full_stack``: ten instances behind the control plane with every family of controller, the journal on.
``full_stack_50``: the same traffic spread over fifty agents with two instances each.
``operations``: the full stack with three limits, three breakers, a ladder and two service levels more.

And other work, held against the same loop: ``shared_fleet``, fifty agents that work in steps on ten model servers which
they share, with tools and sessions, the journal on; the exact batching engine alone under four loads; and fleets as
people have them, 51 agents at 31 tasks a day each, as bundled: ``quiet_fleet``, ``prisma_glow_before`` and
``prisma_glow_after``.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from statistics import median
from typing import Any

import numpy as np

from glowsim.build import replication
from glowsim.core.types import Answer, Arrived, Dispatch
from glowsim.resources import resource
from glowsim.scenario import Scenario
from glowsim.scenario.loader import load
from glowsim.sim.environment import Environment
from glowsim.sim.serving.fcfs import FcfsEngine
from glowsim.sim.serving.loads import LOADS, batching_requests

__all__ = [
    "bare_loop",
    "bench",
    "bundled",
    "full_stack",
    "mmc_world",
    "shared_fleet",
    "shared_scenario",
    "stack_scenario",
]

_ARRIVAL_PER_S, _SERVERS = 8.0, 10


def bare_loop(requests: int, seed: int = 1) -> float:
    """Simulate M/M/10 by a heap and a deque; return the mean wait in queue.

    >>> 0.1 < bare_loop(20_000) < 0.4
    True
    """
    generator = np.random.default_rng(seed)
    arrivals = np.cumsum(generator.standard_exponential(requests) / _ARRIVAL_PER_S).tolist()
    services = generator.standard_exponential(requests).tolist()
    waits = [0.0] * requests
    heap = [(arrivals[0], 0, 0)]
    queue: deque[int] = deque()
    busy = 0
    while heap:
        t_s, kind, i = heappop(heap)
        if kind == 0:
            if i + 1 < requests:
                heappush(heap, (arrivals[i + 1], 0, i + 1))
            if busy < _SERVERS:
                busy += 1
                heappush(heap, (t_s + services[i], 1, i))
            else:
                queue.append(i)
        elif queue:
            following = queue.popleft()
            waits[following] = t_s - arrivals[following]
            heappush(heap, (t_s + services[following], 1, following))
        else:
            busy -= 1
    return float(np.mean(waits))


class _Customer:
    """What the station needs to know of a job, and no more."""

    __slots__ = ("begun_s", "end_s", "number", "progress", "work_s")

    begun_s: float
    end_s: float
    progress: float

    def __init__(self, number: int, work_s: float) -> None:
        self.number = number
        self.work_s = work_s


def mmc_world(
    requests: int, seed: int = 1, servers: int = _SERVERS, arrival_per_s: float = _ARRIVAL_PER_S
) -> float:
    """Simulate M/M/c by the simulator's environment and station; return the mean wait in queue.

    >>> 0.1 < mmc_world(20_000) < 0.4
    True
    """
    generator = np.random.default_rng(seed)
    arrivals = np.cumsum(generator.standard_exponential(requests) / arrival_per_s).tolist()
    services = generator.standard_exponential(requests).tolist()
    waits = [0.0] * requests
    environment = Environment()

    def done(customer: _Customer) -> None:
        number = customer.number
        waits[number] = customer.begun_s - arrivals[number]

    engine = FcfsEngine(environment, servers, done)
    call_at, start = environment.call_at, engine.start

    def arrive(i: int) -> None:
        following = i + 1
        if following < requests:
            call_at(arrivals[following], arrive, following)
        start(_Customer(i, services[i]))

    call_at(arrivals[0], arrive, 0)
    environment.run()
    return float(np.mean(waits))


def stack_scenario(requests: int, agents: int = 1, *, operations: bool = False) -> Scenario:
    """Return the same traffic as a scenario: ten instances, or two for each of more agents.

    Parameters
    ----------
    requests
        How many.
    agents
        How many share them.
    operations
        Whether three limits, three breakers, a ladder and two service levels decide as well.
    """
    instances = _SERVERS if agents == 1 else 2
    controllers: dict[str, Any] = {
        "guard": {"use": "size"},
        "limiter": [{"use": "token_bucket", "rate": "1000/s", "burst": 10_000}],
        "splitter": {"use": "canary", "salt": "bench", "weight": "5%"},
        "cache": {"use": "lru", "entries": 10_000, "ttl": "1h"},
        "planner": {"use": "cap", "max_tokens_out": 1024},
        "queue": {"use": "priority", "limit": 100_000},
        "balancer": {"use": "least_connections"},
        "breaker": [{"use": "consecutive"}],
        "retrier": {"use": "backoff"},
        "scaler": {
            "use": "agent_scaler", "min_instances": instances, "max_instances": instances, "look": "15s",
        },
        "detector": [{"use": "page_hinkley", "metric": "latency_s", "threshold": 1e9, "delta": 0.1}],
    }  # fmt: skip
    if operations:
        controllers["limiter"] += [
            {"use": "concurrency", "per": "user", "limit": 1000},
            {"use": "budget", "per": "tenant", "limit": 1e6, "every": "1d"},
        ]
        controllers["breaker"] += [{"use": "outlier"}, {"use": "probes"}]
        controllers["ladder"] = {"use": "ladder"}
        controllers["detector"] += [
            {"use": "slo", "metric": "latency_s", "threshold": 1e6},
            {"use": "slo", "metric": "error", "threshold": 0},
        ]
    return Scenario.model_validate(
        {
            "title": "bench",
            "question": "How much does the whole control plane cost?",
            "seed": 1,
            "duration": "3000d",
            "models": {"m": {"input": "$0.15/1M", "output": "$0.60/1M"}},
            "fleet": [
                {
                    "agent": "only", "count": agents, "model": "m", "instances": instances, "concurrency": 1,
                    "timeout": "1000s", "service": {"law": "time", "time": {"law": "exponential", "mean": "1s"}},
                    "variants": {"next": {}},
                }
            ],
            "workload": [
                {
                    "kind": "poisson", "rate": f"{_ARRIVAL_PER_S}/s", "tasks": requests, "users": 1000,
                    "tokens_in": {"law": "exponential", "mean": 900},
                    "tokens_out": {"law": "exponential", "mean": 120},
                    "cacheable": {"share": "10%", "keys": 50_000, "zipf": 0.5},
                }
            ],
            "controllers": controllers,
        }
    )  # fmt: skip


def full_stack(requests: int, seed: int = 0, agents: int = 1, *, operations: bool = False) -> float:
    """Simulate the same traffic through the whole control plane; return the mean wait at the gateway.

    >>> 0.1 < full_stack(20_000) < 0.4
    True
    """
    world, journal, _, _ = replication(stack_scenario(requests, agents, operations=operations), seed)
    world.start()
    world.run(float("inf"))
    recording = journal.recording()
    arrived, dispatched = recording.table(Arrived), recording.table(Dispatch)
    when = recording.times()[recording.positions(Dispatch)]
    order = np.argsort(arrived["request_id"])
    at = np.searchsorted(arrived["request_id"][order], dispatched["request_id"])
    return float(np.mean(when - arrived["t_s"][order][at]))


_TURNS = 4
_FLEETS = ("quiet_fleet", "prisma_glow_before", "prisma_glow_after")


def shared_scenario(requests: int) -> Scenario:
    """Return fifty agents with tools and sessions on ten model servers, for about so many requests."""
    return Scenario.model_validate(
        {
            "title": "bench: shared servers",
            "question": "How much do agents in steps on shared model servers cost?",
            "seed": 1,
            "duration": "3000d",
            "servers": {
                "llama": {
                    "engine": "batch", "replicas": 10, "router": "session", "sequences": 256, "batched_tokens": 8192,
                    "cache_tokens": 400_000,
                    "step": {
                        "base": "7ms", "prefill": "20us/token", "sequence": "25us", "context": "0.00003ms/token",
                    },
                }
            },
            "models": {"m": {"input": "$0/1M", "output": "$0/1M", "server": "llama"}},
            "fleet": [
                {
                    "agent": "agent", "count": 50, "model": "m", "instances": 2, "concurrency": 16, "timeout": "10m",
                    "service": {
                        "law": "steps",
                        "instructions": 800,
                        "steps": [
                            {"step": "call", "tokens_out": {"law": "exponential", "mean": 40}},
                            {"step": "tool", "time": {"law": "exponential", "mean": "1s"}, "tokens": 200},
                            {"step": "answer"},
                        ],
                    },
                }
            ],
            "workload": [
                {
                    "kind": "sessions", "arrivals": {"kind": "poisson", "rate": "10/s"}, "turns": _TURNS,
                    "think": {"law": "exponential", "mean": "10s"}, "tasks": max(requests // _TURNS, 1),
                    "tokens_in": {"law": "exponential", "mean": 150},
                    "tokens_out": {"law": "exponential", "mean": 120},
                }
            ],
            "controllers": {"balancer": {"use": "least_connections"}, "retrier": {"use": "backoff"}},
        }
    )  # fmt: skip


def shared_fleet(requests: int) -> int:
    """Simulate agents in steps on shared model servers; return how many calls of models their requests made.

    >>> shared_fleet(400)
    800
    """
    world, _, _, _ = replication(shared_scenario(requests), 0)
    world.start()
    world.run(float("inf"))
    return world.servers[0].calls


def bundled(name: str, requests: int) -> float:
    """Simulate a bundled scenario for about so many requests; return how many it answered of each that came.

    >>> 0.9 < bundled("prisma_glow_before", 500) < 1.0
    True
    """
    scenario = load(resource("scenarios", f"{name}.yaml"), ["duration=3000d", f"workload.0.tasks={requests}"])
    world, journal, _, _ = replication(scenario, 0)
    world.start()
    world.run(float("inf"))
    recording = journal.recording()
    return len(recording.table(Answer)) / len(recording.table(Arrived))


def bench(requests: int = 100_000, rounds: int = 5) -> dict[str, Any]:
    """Time them alternately; return requests per CPU-second (medians) and the median ratios to the loop."""
    timed: dict[str, Callable[[int], Any]] = {
        "bare_loop": bare_loop,
        "mmc_world": mmc_world,
        "full_stack": full_stack,
        "full_stack_50": lambda n: full_stack(n, agents=50),
        "operations": lambda n: full_stack(n, operations=True),
        "shared_fleet": shared_fleet,
        **{name: partial(bundled, name) for name in _FLEETS},
        **{f"batching_{kind}": partial(batching_requests, kind) for kind in LOADS},
    }
    rates: dict[str, list[float]] = {name: [] for name in timed}
    threshold = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)
    try:
        for _ in range(rounds):
            for name, run in timed.items():
                begun_s = time.process_time()
                run(requests)
                rates[name].append(requests / (time.process_time() - begun_s))
                gc.collect()
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()
    loops = rates["bare_loop"]
    return {
        **{name: round(median(values)) for name, values in rates.items()},
        "ratios": {
            name: round(median(value / loop for value, loop in zip(values, loops, strict=True)), 4)
            for name, values in rates.items()
            if name != "bare_loop"
        },
        "requests": requests,
        "rounds": rounds,
    }
