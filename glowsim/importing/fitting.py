"""What a log's own numbers say: prices by least squares, laws of latency as stored quantiles."""

from __future__ import annotations

from itertools import pairwise
from math import fsum, isfinite
from typing import Any, Final, NamedTuple

import numpy as np

from glowsim.importing.part import ImportProblem
from glowsim.presets.prices import Rates
from glowsim.scenario.quantities import DURATION, TIME_PER_TOKEN
from glowsim.traces.fit import LENGTH_P
from glowsim.traces.log import Floats

__all__ = ["LEAST", "FittedRates", "fit_rates", "number_law", "time_law", "token_service", "weighted"]

LEAST: Final = 15
"""Rows without which no law and no price is fitted."""
_ALIKE: Final = 1e-3
"""Columns of tokens whose smallest singular value is below this share of the largest cannot be told apart."""
_MOST_LEFT: Final = 0.2
"""Share of the cost beyond which it is no matter of tokens."""
_DIGITS: Final = 6


class FittedRates(NamedTuple):
    """Prices that explain what calls cost, and how well."""

    rates: Rates
    rows: int
    left: float
    """Sum of the differences' sizes over the cost: 0 where prices times tokens are all of it."""
    within: float
    """Share of the rows that they give within 1 %."""


def fit_rates(
    fresh: Floats, cached: Floats, written: Floats, output: Floats, cost_usd: Floats
) -> FittedRates:
    """Return the prices per token, none below 0, whose sums come closest to the costs (least squares).

    A kind of token that no call used has no price.

    Parameters
    ----------
    fresh, cached, written
        Input tokens of each call that were neither read from nor written to a prompt cache, read, and written.
    output
        Output tokens.
    cost_usd
        What each call cost, in US dollars, above 0.

    Raises
    ------
    ImportProblem
        There are too few calls, kinds of token come in fixed proportions, or tokens do not explain the costs.

    >>> rng = np.random.default_rng(1)
    >>> fresh, output = rng.integers(1, 1000, (2, 40)).astype(float)
    >>> nothing = np.zeros(40)
    >>> found = fit_rates(fresh, nothing, nothing, output, fresh * 3e-6 + output * 15e-6)
    >>> found.rates.input_usd, found.rates.cached_usd, found.rates.output_usd, round(found.left, 9)
    (3e-06, None, 1.5e-05, 0.0)

    Source: Lawson & Hanson, "Solving Least Squares Problems", 1974, chapter 23.
    """
    from scipy.optimize import nnls

    if len(cost_usd) < LEAST:
        raise ImportProblem(f"{len(cost_usd)} rows have tokens and a cost, and {LEAST} are needed")
    tokens = np.column_stack([fresh, cached, written, output])
    lengths = np.linalg.norm(tokens, axis=0)
    used = np.flatnonzero(lengths)
    scaled = tokens[:, used] / lengths[used]
    values = np.linalg.svd(scaled, compute_uv=False)
    if not len(used) or values[-1] < _ALIKE * values[0]:
        raise ImportProblem(
            "its kinds of token come in fixed proportions, so that costs do not tell their prices"
        )
    found, _ = nnls(scaled, cost_usd)
    usd = [float(f"{x:.{_DIGITS}g}") for x in found / lengths[used]]
    each: list[float | None] = [None] * 4
    for i, price in zip(used.tolist(), usd, strict=True):
        each[i] = price
    left = np.abs(tokens[:, used] @ np.array(usd) - cost_usd)
    share = float(left.sum() / cost_usd.sum())
    if share > _MOST_LEFT:
        raise ImportProblem(f"prices times tokens leave {100 * share:.0f} % of its cost unexplained")
    rates = Rates(each[0] or 0.0, each[3] or 0.0, each[1], each[2])
    return FittedRates(rates, len(cost_usd), share, float((left <= 0.01 * cost_usd).mean()))


def weighted(values: Floats, weights: Floats) -> Floats:
    """Return the quantiles at ``LENGTH_P`` of values that count as often as their weights say.

    >>> weighted(np.array([1.0, 3.0]), np.array([1.0, 1.0]))[[0, -1]].tolist()
    [1.0, 3.0]
    """
    order = np.argsort(values, kind="stable")
    upto = np.cumsum(weights[order])
    middle = (upto - weights[order] / 2) / upto[-1]
    found = np.interp(LENGTH_P, middle, values[order])
    found[[0, -1]] = values[order[[0, -1]]]
    return found


def time_law(quantiles: Floats) -> dict[str, Any]:
    """Return a law of durations through quantiles at ``LENGTH_P``, as a scenario spells it."""
    return {"law": "quantiles", "p": list(LENGTH_P), "x": [DURATION.write(_rounded(x)) for x in quantiles]}


def number_law(quantiles: Floats) -> dict[str, Any]:
    """Return a law of plain numbers or tokens through quantiles at ``LENGTH_P``, as a scenario spells it."""
    return {"law": "quantiles", "p": list(LENGTH_P), "x": [_rounded(x) for x in quantiles]}


def token_service(tokens_in: Floats, tokens_out: Floats, latency_s: Floats) -> dict[str, Any]:
    """Return the law of service ``(base + input x tokens in + output x tokens out) x noise`` of recorded latencies.

    The line is the one of least squares with no coefficient below 0; the noise has the quantiles of latency
    over line, scaled to a mean of 1, so that the whole law has the latencies' own.

    Parameters
    ----------
    tokens_in, tokens_out
        Of each call.
    latency_s
        Seconds from its arrival to its end.

    >>> latency_s = 0.5 + 0.01 * np.arange(100.0)
    >>> law = token_service(np.full(100, 7.0), np.arange(100.0), latency_s)
    >>> law["base"], law["output"]
    ('500ms', '10ms/token')
    """
    from scipy.optimize import nnls

    columns = np.column_stack([np.ones(len(latency_s)), tokens_in, tokens_out])
    if np.ptp(tokens_in) == 0:
        columns[:, 1] = 0.0  # it cannot be told from the base
    lengths = np.linalg.norm(columns, axis=0)
    lengths[lengths == 0.0] = 1.0
    line, _ = nnls(columns / lengths, latency_s)
    line /= lengths
    expected = columns @ line
    factors = np.divide(latency_s, expected, out=np.ones(len(latency_s)), where=expected > 0)
    quantiles = np.quantile(factors, LENGTH_P)
    mean = fsum(
        (q - p) * (x + y) / 2 for (p, q), (x, y) in zip(pairwise(LENGTH_P), pairwise(quantiles), strict=True)
    )
    base, per_in, per_out = (line * mean).tolist()
    law = {
        "law": "tokens",
        "base": DURATION.write(_rounded(base)),
        "input": TIME_PER_TOKEN.write(_rounded(per_in)),
        "output": TIME_PER_TOKEN.write(_rounded(per_out)),
    }
    return law | {"noise": number_law(quantiles / mean)}


def _rounded(x: float) -> float:
    if not isfinite(x):
        raise ImportProblem(f"a law cannot have the value {x}")
    return float(f"{x:.{_DIGITS}g}")
