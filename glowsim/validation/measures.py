"""What is read off a run: estimates by the names that the cases use, those of one replication each."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np
import numpy.typing as npt

from glowsim.core.reasons import Code
from glowsim.results import Tables

__all__ = ["Estimates", "hit_rate", "mean_present", "stationary", "swing"]

Column = npt.NDArray[Any]
Estimates = dict[str, float]


def stationary(tables: Tables, from_s: float) -> Estimates:
    """Return the steady state as a run shows it, from ``from_s`` to the last arrival.

    Waits, sojourns and shares are over the requests that arrived then, ``queued`` and ``in_system`` over time.
    A request waited if it was not dispatched at once; it is lost if it was rejected, and gave up if it failed
    without ever being dispatched. ``wait_s_0`` and ``sojourn_s_0`` are those of priority 0, and so on.
    """
    requests = tables.requests
    arrived, wait, end = requests["t_arrive_s"], requests["wait_s"], requests["t_end_s"]
    until_s = float(arrived.max())
    counted = arrived >= from_s
    answered = counted & (requests["ending"] == 1)
    waits, sojourns = wait[answered], requests["latency_s"][answered]
    found = {
        "wait_s": float(waits.mean()),
        "sojourn_s": float(sojourns.mean()),
        "p_wait": float((wait[counted] > 0.0).mean()),
        "p_lost": float((requests["ending"][counted] == 2).mean()),
        "p_gave_up": float(np.isnan(requests["t_dispatch_s"][counted]).mean()),
        "queued": mean_present(arrived, arrived + wait, from_s, until_s),
        "in_system": mean_present(arrived, end, from_s, until_s),
    }
    for percent in (95, 99):
        found[f"wait_s_p{percent}"] = float(np.quantile(waits, percent / 100))
        found[f"sojourn_s_p{percent}"] = float(np.quantile(sojourns, percent / 100))
    for priority in np.unique(requests["priority"]).tolist():
        mine = answered & (requests["priority"] == priority)
        found[f"wait_s_{priority}"] = float(wait[mine].mean())
        found[f"sojourn_s_{priority}"] = float(requests["latency_s"][mine].mean())
    return found


def mean_present(came_s: Column, left_s: Column, from_s: float, until_s: float) -> float:
    """Return the mean number present between two moments: the time that each spends there, over the span.

    >>> mean_present(np.array([0.0, 2.0]), np.array([4.0, 9.0]), 1.0, 5.0)
    1.5
    """
    inside_s = np.minimum(left_s, until_s) - np.maximum(came_s, from_s)
    return float(np.maximum(inside_s, 0.0).sum()) / (until_s - from_s)


def hit_rate(tables: Tables, from_s: float) -> Estimates:
    """Return the share of requests that the cache answered, of those that arrived from ``from_s`` on."""
    requests = tables.requests
    counted = requests["t_arrive_s"] >= from_s
    return {"hit_rate": float((requests["how"][counted] == Code.CACHED).mean())}


def swing(tables: Tables, period_s: float, peak_at_s: float, from_s: float) -> Estimates:
    """Return the sine in the number present, over whole periods: its highest value, and how late it is.

    The number present at t is a sum of steps, so its Fourier integrals are sums of sines at the moments of
    coming and going; nothing is sampled.

    Parameters
    ----------
    tables
        Of one replication.
    period_s
        Of the rate of arrivals.
    peak_at_s
        When that rate is highest.
    from_s
        Where to begin; the last whole period before the last arrival is the end.
    """
    requests = tables.requests
    came, left = requests["t_arrive_s"], requests["t_end_s"]
    until_s = from_s + period_s * ((float(came.max()) - from_s) // period_s)
    turn, span_s = 2.0 * pi / period_s, until_s - from_s
    begin = np.clip(came, from_s, until_s) - peak_at_s
    end = np.clip(left, from_s, until_s) - peak_at_s
    cosine = 2.0 * float((np.sin(turn * end) - np.sin(turn * begin)).sum()) / turn / span_s
    sine = 2.0 * float((np.cos(turn * begin) - np.cos(turn * end)).sum()) / turn / span_s
    return {
        "peak": mean_present(came, left, from_s, until_s) + float(np.hypot(cosine, sine)),
        "lag_s": float(np.arctan2(sine, cosine)) / turn,
    }
