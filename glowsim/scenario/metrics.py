"""The metrics that service levels and expectations may name, and the kind of quantity that each one is."""

from __future__ import annotations

from typing import Final

from glowsim.scenario.quantities import DURATION, FRACTION, MONEY, NUMBER, RATE, Quantity

__all__ = ["METRICS", "quantity_of"]

METRICS: Final[dict[str, str]] = {
    **{f"latency_s_{x}": "duration" for x in ("min", "mean", "p50", "p95", "p99", "max")},
    **{f"first_token_s_{x}": "duration" for x in ("p50", "p95", "p99")},
    **{f"wait_s_{x}": "duration" for x in ("mean", "p95")},
    "success_rate": "fraction",
    "error_rate": "fraction",
    "degraded_rate": "fraction",
    "accuracy": "fraction",
    **{f"{x}_rate": "fraction" for x in ("wrong", "hallucination", "format", "refusal")},
    "request_rate_per_s": "rate",
    "cost_usd": "money",
    "cost_usd_per_task": "money",
    "cache_hit_rate": "fraction",
    "launched": "count",
    "completed": "count",
    "tokens_in": "count",
    "tokens_out": "count",
}
"""Metric -> kind of quantity: duration, fraction, rate, money or count."""

_QUANTITIES: Final[dict[str, Quantity]] = {
    "duration": DURATION,
    "fraction": FRACTION,
    "rate": RATE,
    "money": MONEY,
    "count": NUMBER,
}


def quantity_of(metric: str) -> Quantity:
    """Return the quantity in which the values of ``metric`` are written.

    Raises:
        KeyError: not one of ``METRICS``.

    >>> quantity_of("latency_s_p95").read("1.85s")
    1.85
    """
    return _QUANTITIES[METRICS[metric]]
