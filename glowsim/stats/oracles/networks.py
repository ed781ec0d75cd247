"""Open networks of stations: customers come from outside, go from station to station, and leave."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glowsim.stats.queueing import StationMeans, mmc

__all__ = ["jackson"]


def jackson(
    external_per_s: Sequence[float],
    routing: Sequence[Sequence[float]],
    service_per_s: Sequence[float],
    servers: Sequence[int],
) -> list[StationMeans]:
    """Solve an open Jackson network: each station is an M/M/c at its own total rate, whatever the others do.

    The rates follow from lam_j = external_j + sum over i of lam_i ``routing[i][j]``; a customer leaves from
    station i with what is left of row i to one. The mean number in the network divided by the external rate
    is a customer's mean time in it.

    ``external_per_s`` >= 0 and ``service_per_s`` > 0 of each station, ``servers`` >= 1. Raises ``ValueError``
    for shapes that differ, a row above one, customers who never leave, or a station that cannot keep up.

    >>> first, second = jackson([3.0, 0.0], [[0.0, 1.0], [0.0, 0.0]], [5.0, 2.0], [1, 2])
    >>> f"{first.sojourn_s:.6f} {second.sojourn_s:.6f}"
    '0.500000 1.142857'

    Source: Jackson (1957), Operations Research 5.
    """
    external, route = np.asarray(external_per_s, dtype=np.float64), np.asarray(routing, dtype=np.float64)
    n = len(external)
    if route.shape != (n, n) or len(service_per_s) != n or len(servers) != n:
        raise ValueError(
            f"jackson: {n} stations; give each a row and a column of routing, a rate and servers"
        )
    if np.any(route < 0.0) or np.any(route.sum(axis=1) > 1.0 + 1e-12):
        raise ValueError("jackson: a row of routing holds chances: none below 0, at most 1 together")
    try:
        rates = np.linalg.solve(np.eye(n) - route.T, external)
    except np.linalg.LinAlgError as error:
        raise ValueError(
            "jackson: customers never leave; let a row of routing add up to less than 1"
        ) from error
    return [
        mmc(rate, service, count)
        for rate, service, count in zip(rates.tolist(), service_per_s, servers, strict=True)
    ]
