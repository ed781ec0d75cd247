"""Three queues and three priorities: who waits."""

from __future__ import annotations

from typing import Any

import numpy as np

from glowsim.pictures.load import BURST_S, CENTRES_S, arrivals, during, quantile, run
from glowsim.pictures.panels import Line, Panel
from glowsim.pictures.picture import Facts, Picture, arriving, said

__all__ = ["queueing"]


def queueing() -> Picture:
    """Return how long requests of three priorities wait, by queue."""
    agent = {
        "instances": 4, "concurrency": 4, "timeout": "10m",
        "service": {"law": "time", "time": {"law": "exponential", "mean": "1s"}},
    }  # fmt: skip
    shares = (0.2, 0.5, 0.3)
    workload = [arrivals(3.7 * part, priority=priority) for priority, part in enumerate(shares)]
    policies: dict[str, dict[str, Any]] = {
        "first in, first out": {"use": "fifo"},
        "priorities that age, 20 s a step": {"use": "priority", "ageing": "20s"},
        "strict priorities": {"use": "priority", "ageing": None},
    }
    ran = {label: run(agent, workload, {"queue": settings}) for label, settings in policies.items()}
    waits: dict[str, list[Line]] = {}
    facts: Facts = {}
    for label, tables in ran.items():
        waits[label] = []
        for priority in range(len(shares)):
            mine = tables.requests["priority"] == priority
            arrived, wait_s = tables.requests["t_arrive_s"][mine], tables.requests["wait_s"][mine]
            curve = quantile(arrived, wait_s, 0.95)
            waits[label].append(Line(f"priority {priority}", CENTRES_S, curve, priority))
            facts[f"priority {priority}", label] = float(np.quantile(wait_s[during(arrived, BURST_S)], 0.95))
    top = 1.1 * max(float(np.nanmax(line.values)) for lines in waits.values() for line in lines)
    panels = [arriving(next(iter(ran.values())))]
    panels += [Panel(f"p95 wait (s): {label}", lines, top) for label, lines in waits.items()]
    says = (
        "In the burst, under first in first out, priorities that age and strict priorities, 95 % of the most urgent "
        f"requests wait up to {said(facts, 'priority 0', ' s')}, of the next "
        f"{said(facts, 'priority 1', ' s')}, and of the least urgent {said(facts, 'priority 2', ' s')}. "
        "No order makes the queue shorter: what some gain others lose."
    )
    alternative = "The 95th percentile of the wait of three priorities under three queues"
    return Picture(tuple(panels), None, alternative, says, facts)
