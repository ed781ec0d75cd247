"""How the cases are simulated: each function runs one replication and returns its estimates.

They end in (replication, tasks), the number of the replication from 0 and how many requests come; what stands
before is bound by the case.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from glowsim.core.streams import Streams
from glowsim.sim.workload import arrivals
from glowsim.validation import measures, networks, worlds
from glowsim.validation.measures import Estimates

__all__ = [
    "agent_loop", "cached", "choices", "closed_stations", "closed_users", "gives_up", "gives_up_by_deadline",
    "hyperexponential", "in_batches", "prioritised", "scaled_to_zero", "steady", "swinging", "tandem",
]  # fmt: skip

_DAY_S = 86_400.0
_HOUR_S = 3_600.0


def _generator(name: str, replication: int) -> np.random.Generator:
    return Streams(worlds.SEED, replication).generator("validation", name)


def steady(rate_per_s: float, warmup_s: float, replication: int, tasks: int, **changes: Any) -> Estimates:
    """Run a station, changed as `worlds.station` says; requests of the first ``warmup_s`` are left out."""
    tables = worlds.simulated(worlds.station(rate_per_s, tasks, **changes), replication)
    return measures.stationary(tables, warmup_s)


def prioritised(
    rates: Sequence[float], servers: int, warmup_s: float, replication: int, tasks: int
) -> Estimates:
    """Run one class of requests a rate, the first of priority 0, for as long as ``tasks`` take to come."""
    classes = [
        {"kind": "poisson", "rate": f"{rate}/s", "tokens_in": 1, "tokens_out": 1, "priority": priority}
        for priority, rate in enumerate(rates)
    ]
    strict = {"queue": {"use": "priority", "ageing": None}}
    return steady(
        1, warmup_s, replication, 1, agent={"instances": servers}, workload=classes, controllers=strict,
        duration=f"{tasks / math.fsum(rates)!r}s",
    )  # fmt: skip


def hyperexponential(replication: int, tasks: int) -> Estimates:
    """Run two kinds of requests whose lengths differ: each exponential, together with a squared variation of 4."""
    often = (1.0 + math.sqrt(0.6)) / 2.0
    kinds = [
        {
            "kind": "poisson", "rate": f"{0.8 * share!r}/s", "tokens_in": round(1e6 / (2.0 * share)), "tokens_out": 1,
        }
        for share in (often, 1.0 - often)
    ]  # fmt: skip
    tokens = {"law": "tokens", "base": "0s", "input": "1us/token", "output": "0s/token"}
    service = tokens | {"noise": {"law": "exponential", "mean": 1}}
    return steady(
        1, 1000.0, replication, 1, agent={"service": service}, workload=kinds, duration=f"{tasks / 0.8!r}s"
    )


def gives_up(rate_per_s: float, servers: int, patience_s: float, replication: int, tasks: int) -> Estimates:
    """Run servers of rate 1 put together directly, before which people wait no longer than they like."""
    generator = _generator("impatient", replication)
    return networks.impatient_station(rate_per_s, 1.0, servers, patience_s, tasks, 100.0, generator)


def gives_up_by_deadline(replication: int, tasks: int) -> Estimates:
    """Run ten instances at 12 a second whose users each have a deadline; half of what ends a service is that."""
    service = {"law": "time", "time": {"law": "exponential", "mean": "2s"}}
    scenario = worlds.station(12, tasks, agent={"instances": 10, "service": service})
    tables = worlds.arriving(scenario, replication, tasks, partial(arrivals.poisson, 12.0), patience_s=2.0)
    return measures.stationary(tables, 100.0)


def tandem(replication: int, tasks: int) -> Estimates:
    """Run M/M/1 and M/M/2 one after the other."""
    generator = _generator("tandem", replication)
    return networks.open_network(3.0, [[0.0, 1.0], [0.0, 0.0]], [5.0, 2.0], [1, 2], tasks, 100.0, generator)


def agent_loop(replication: int, tasks: int) -> Estimates:
    """Run tasks that call a model, and with chance 0.7 a tool and the model again."""
    generator = _generator("agent loop", replication)
    return networks.open_network(0.9, [[0.0, 0.7], [1.0, 0.0]], [1.0, 3.0], [4, 1], tasks, 200.0, generator)


def closed_stations(replication: int, tasks: int) -> Estimates:
    """Run twenty users who think and then visit two stations."""
    generator = _generator("closed network", replication)
    return networks.closed_network(20, 10.0, [0.4, 0.3], tasks, 100.0, generator)


def closed_users(replication: int, tasks: int) -> Estimates:
    """Run fifty users who think and then ask one of five instances."""
    users = {
        "kind": "closed", "users": 50, "think": {"law": "exponential", "mean": "10s"}, "tokens_in": 1,
        "tokens_out": 1, "tasks": tasks,
    }  # fmt: skip
    tables = worlds.simulated(worlds.station(1, 1, agent={"instances": 5}, workload=[users]), replication)
    found = measures.stationary(tables, 100.0)
    arrived = tables.requests["t_arrive_s"]
    counted = arrived[arrived >= 100.0]
    return found | {"throughput_per_s": len(counted) / (float(counted.max()) - 100.0)}


def choices(queues: int, load: float, warmup_s: float, replication: int, tasks: int) -> Estimates:
    """Run instances with a queue each behind the power of two choices."""
    return steady(
        load * queues, warmup_s, replication, tasks,
        agent={"instances": queues, "queue": "instance", "slots": 1000},
        controllers={"balancer": {"use": "power_of_two"}},
    )  # fmt: skip


def cached(share_per_s: str, keys: int, alpha: float, cache: dict[str, Any], warmup_s: float, replication: int,
            tasks: int) -> Estimates:  # fmt: skip
    """Run requests that repeat one of some prompts, answered at once, before a cache."""
    asked = {
        "kind": "poisson", "rate": share_per_s, "tokens_in": 1, "tokens_out": 1, "tasks": tasks,
        "cacheable": {"share": 1, "keys": keys, "zipf": alpha},
    }  # fmt: skip
    scenario = worlds.station(
        1, 1, agent={"service": {"law": "time", "time": "0s"}}, workload=[asked], controllers={"cache": cache}
    )
    return measures.hit_rate(worlds.simulated(scenario, replication), warmup_s)


def scaled_to_zero(look_s: float, replication: int, tasks: int) -> Estimates:
    """Run one instance that goes off when it is empty, at the next look, and takes 5 s to come back."""
    scaler = {
        "use": "agent_scaler", "min_instances": 0, "max_instances": 1, "idle": "0s", "look": f"{look_s}s",
    }  # fmt: skip
    return steady(
        0.5, 500.0, replication, tasks,
        agent={"startup": {"law": "exponential", "mean": "5s"}}, controllers={"scaler": scaler},
    )  # fmt: skip


def in_batches(replication: int, tasks: int) -> Estimates:
    """Run a station whose requests come in batches of geometric size."""
    scenario = worlds.station(0.6, tasks)
    tables = worlds.arriving(scenario, replication, tasks, partial(_batches, 0.2, 3.0))
    return measures.stationary(tables, 500.0)


def swinging(replication: int, tasks: int) -> Estimates:
    """Run an instance that serves all at once, through days of a rate that swings; a day passes first."""
    curve = {
        "kind": "diurnal", "mean": "10/h", "amplitude": 0.5, "period": "24h", "peak_at": "6h", "tokens_in": 1,
        "tokens_out": 1, "tasks": tasks,
    }  # fmt: skip
    many = {
        "instances": 1, "concurrency": 1000, "service": {"law": "time", "time": {"law": "exponential", "mean": "1h"}},
    }  # fmt: skip
    scenario = worlds.station(1, 1, agent=many, workload=[curve], duration=f"{tasks // 240 + 30}d")
    found = measures.swing(worlds.simulated(scenario, replication), _DAY_S, 6 * _HOUR_S, _DAY_S)
    return {"peak": found["peak"], "lag_h": found["lag_s"] / _HOUR_S}


def _batches(
    rate_per_s: float, mean: float, generator: np.random.Generator
) -> Iterator[npt.NDArray[np.float64]]:
    for block in arrivals.poisson(rate_per_s, generator):
        yield np.repeat(block, generator.geometric(1.0 / mean, len(block)))
