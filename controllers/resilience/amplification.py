"""How much work a stack of retrying layers can make of one request."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

__all__ = ["amplification"]


def amplification(layers: Iterable[tuple[int, float | None]]) -> float:
    """Return how many attempts at the bottom one request at the top can cost, when everything fails.

    A layer multiplies by its ``attempts``, and one with a retry budget by 1 + ratio at most, over a long
    run: the product of min(attempts, 1 + ratio). Five layers of three attempts make 243 of one request;
    with a budget of 20 % in each they make two and a half.

    Parameters
    ----------
    layers
        One (attempts, ratio) a layer: attempts in all, at least 1, and retries as a share of requests, or
        None for a layer without a budget. SDK, framework, workflow and gateway are a layer each.

    Raises
    ------
    ValueError
        A layer has less than one attempt, or a ratio below 0.

    Notes
    -----
    The bound is one of long runs: a budget's reserve, which needs no requests, comes on top of it (see
    `BackoffRetrier`).

    >>> amplification([(3, None)] * 5), round(amplification([(3, 0.2)] * 5), 3)
    (243, 2.488)
    """
    factors = []
    for place, (attempts, ratio) in enumerate(layers):
        if attempts < 1:
            raise ValueError(
                f"layers: layer {place} has {attempts} attempts; the first one counts, give 1 or more"
            )
        if ratio is not None and not ratio >= 0.0:
            raise ValueError(f"layers: layer {place} has a ratio of {ratio}; give 0 or more, or None")
        factors.append(attempts if ratio is None else min(attempts, 1.0 + ratio))
    return prod(factors)
