"""A server that switches off when it is empty and must start again."""

from __future__ import annotations

import math

__all__ = ["lingering_setup_sojourn_s"]


def lingering_setup_sojourn_s(
    arrival_per_s: float, service_per_s: float, mean_setup_s: float, linger_s: float
) -> float:
    """Give the mean sojourn in M/M/1 with exponential set-ups whose server goes off late, within ``linger_s``.

    An autoscaler looks every ``linger_s``, so an empty server stays for a uniform time up to that. The next
    arrival finds it gone with chance p = (1 - exp(-lam linger)) / (lam linger), and the set-up V of a busy
    period is then exponential, else nothing: W = 1 / (mu - lam) + (2 E[V] + lam E[V^2]) / (2 (1 + lam E[V])).

    Rates and set-up above 0, ``linger_s`` >= 0: at 0 this is ``glowsim.stats.queueing.mm1_setup_sojourn_s``.
    Raises ``ValueError`` out of these ranges, or for a load of 1 or more.

    >>> lingering_setup_sojourn_s(0.5, 1.0, 5.0, 0.0)
    7.0

    Source: Welch (1964), Operations Research 12, for the set-up; the lingering is derived from it.
    """
    if not (0.0 < arrival_per_s < service_per_s and mean_setup_s > 0.0 and linger_s >= 0.0):
        raise ValueError(
            "lingering_setup: give 0 < arrivals < service, a set-up above 0 and a linger_s from 0 up"
        )
    gone = 1.0 if linger_s == 0.0 else -math.expm1(-arrival_per_s * linger_s) / (arrival_per_s * linger_s)
    mean_s, square = gone * mean_setup_s, gone * 2.0 * mean_setup_s**2
    late_s = (2.0 * mean_s + arrival_per_s * square) / (2.0 * (1.0 + arrival_per_s * mean_s))
    return 1.0 / (service_per_s - arrival_per_s) + late_s
