"""Three balancers over six instances, one of them slow."""

from __future__ import annotations

import numpy as np

from glowsim.pictures.load import CENTRES_S, STEP_S, Floats, arrivals, during, quantile, run
from glowsim.pictures.panels import Line, Panel, Shaded
from glowsim.pictures.picture import Facts, Picture, arriving, said
from glowsim.results import Tables

__all__ = ["balancing"]


def balancing() -> Picture:
    """Return the load of each instance and the p99 latency while one of six serves five times slower."""
    agent = {
        "instances": 6, "concurrency": 4, "queue": "instance", "timeout": "60s",
        "service": {"law": "time", "time": {"law": "exponential", "mean": "600ms"}},
    }  # fmt: skip
    fault = {"kind": "slow", "at": "20m", "lasts": "6m", "instances": 1, "factor": 5}
    policies = {
        "round robin": "round_robin",
        "power of two": "power_of_two",
        "least connections": "least_connections",
    }
    ran = {
        label: run(agent, [arrivals(4.0)], {"balancer": {"use": use}}, [fault])
        for label, use in policies.items()
    }
    panels, curves = [arriving(ran["round robin"])], []
    facts: Facts = {}
    for number, (label, tables) in enumerate(ran.items()):
        loads = _in_flight(tables)
        others = [Line("_", CENTRES_S, each, None) for each in loads[1:-1]]
        others.append(Line("each of the others", CENTRES_S, loads[-1], None))
        lines = [*others, Line("the slow one", CENTRES_S, loads[0], number)]
        panels.append(Panel(f"Requests in flight on an instance: {label}", lines, 34.0))
        requests = tables.requests
        curves.append(
            Line(label, CENTRES_S, quantile(requests["t_arrive_s"], requests["latency_s"], 0.99), number)
        )
        hit = during(requests["t_arrive_s"], STEP_S)
        facts["p99", label] = float(np.quantile(requests["latency_s"][hit], 0.99))
        facts["slow", label] = float(loads[0][during(CENTRES_S, STEP_S)].mean())
    panels.append(Panel("p99 latency (s)", curves, None, 1.2))
    says = (
        "Under round robin, the power of two choices and least connections, the instance that serves five times slower "
        f"during the step has {said(facts, 'slow')} requests in flight on average, and the p99 of all requests is "
        f"{said(facts, 'p99', ' s')}: whoever looks at the work in flight sees the slow one fill up. In the burst, "
        "with all instances equally fast, the choice matters less."
    )
    alternative = (
        "Requests in flight on each of six instances, one of them slow, and the p99 latency, by policy"
    )
    return Picture(
        tuple(panels), Shaded("one instance serves five times slower", (STEP_S,)), alternative, says, facts
    )


def _in_flight(tables: Tables) -> list[Floats]:
    """Return the requests in flight on each instance, by number, in the middle of each bin."""
    attempts = tables.attempts

    def level(number: int) -> Floats:
        mine = attempts["instance"] == number
        begun, ended = (np.sort(attempts[name][mine]) for name in ("t_dispatch_s", "t_finish_s"))
        return np.searchsorted(begun, CENTRES_S).astype(float) - np.searchsorted(ended, CENTRES_S)

    return [level(int(number)) for number in np.unique(attempts["instance"])]
