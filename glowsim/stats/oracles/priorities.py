"""Mean times under priorities: the most important class first, first come first served within it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from glowsim.stats.queueing import erlang_c

__all__ = ["preemptive_sojourns_s", "priority_waits_s"]


def priority_waits_s(arrivals_per_s: Sequence[float], service_per_s: float, servers: int = 1) -> list[float]:
    """Give the mean wait of every class where nobody in service is interrupted, the most important first.

    With C the chance to wait in M/M/c and s_k the load of classes 1..k as a share of the servers, class k
    waits C / (c mu) / ((1 - s_(k-1)) (1 - s_k)).

    ``arrivals_per_s`` > 0 of each class, ``service_per_s`` > 0 alike for all, ``servers`` >= 1. Raises
    ``ValueError`` out of these ranges, or for a load of ``servers`` or more.

    >>> [f"{wait_s:.6f}" for wait_s in priority_waits_s([3.0, 5.0], 1.0, 10)]
    ['0.058454', '0.292272']

    Source: Cobham (1954), Operations Research 2; Davis (1966), Operations Research 14, for many servers.
    """
    shares = _cumulated(arrivals_per_s, service_per_s, servers)
    base_s = erlang_c(math.fsum(arrivals_per_s) / service_per_s, servers) / (servers * service_per_s)
    return [base_s / ((1.0 - before) * (1.0 - upto)) for before, upto in pairwise(shares)]


def preemptive_sojourns_s(arrivals_per_s: Sequence[float], service_per_s: float) -> list[float]:
    """Give the mean sojourn of every class in M/M/1 where a more important arrival interrupts the service.

    What was interrupted is resumed where it stopped: class k stays 1 / mu / ((1 - s_(k-1)) (1 - s_k)).

    Parameters and errors as ``priority_waits_s`` for one server.

    >>> [f"{sojourn_s:.6f}" for sojourn_s in preemptive_sojourns_s([0.3, 0.4], 1.0)]
    ['1.428571', '4.761905']

    Source: Kleinrock, Queueing Systems, volume 2 (1976), section 3.6.
    """
    shares = _cumulated(arrivals_per_s, service_per_s, 1)
    return [1.0 / service_per_s / ((1.0 - before) * (1.0 - upto)) for before, upto in pairwise(shares)]


def _cumulated(arrivals_per_s: Sequence[float], service_per_s: float, servers: int) -> list[float]:
    if not arrivals_per_s or min(*arrivals_per_s, service_per_s) <= 0.0 or servers < 1:
        raise ValueError("priorities: give rates above 0, one for each class, and at least one server")
    shares = [
        math.fsum(arrivals_per_s[:classes]) / (servers * service_per_s)
        for classes in range(len(arrivals_per_s) + 1)
    ]
    if shares[-1] >= 1.0:
        raise ValueError(f"priorities: the load is {shares[-1]:.6g} of the servers; keep it below 1")
    return shares
