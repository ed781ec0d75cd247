"""From what the calibration measured to the parameters of the simulated world.

llama.cpp's law of service is the one that ``glowsim import`` fits to a log (least squares on tokens, the noise as
quantiles), here to requests that were alone. One factor on it, and the four parameters of transformers' engine, are
then moved until the simulator's own figures come closest to those measured under the calibrating loads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, fsum, inf, isfinite, log
from typing import Any, Final, NamedTuple

import numpy as np

from glowsim.fidelity.driving import figures, simulated
from glowsim.fidelity.worlds import Fitted, Load, load_scenario, mean_tokens
from glowsim.importing.fitting import token_service
from glowsim.scenario.quantities import DURATION, TIME_PER_TOKEN

__all__ = ["Alone", "Observed", "distance", "fit_llama", "fit_transformers", "scaled", "start_transformers"]

_COMPARED: Final = ("latency_s_p50", "latency_s_p95", "throughput_per_s", "first_token_s_p50")
_MEAN_TOKENS_IN: Final = 32.0
_LEAST_S: Final = 1e-6


class Alone(NamedTuple):
    """Requests that had a server to themselves, column by column."""

    tokens_in: Sequence[float]
    tokens_out: Sequence[float]
    latency_s: Sequence[float]


Observed = Mapping[str, Sequence[Mapping[str, float]]]
"""Load -> the figures of each of its replications, from replication 0."""


def fit_llama(alone: Alone) -> tuple[dict[str, Any], float]:
    """Return the law of service, and its mean for a request of the mix, in seconds."""
    law = token_service(*(np.asarray(column, dtype=np.float64) for column in alone))
    per_in, per_out = (TIME_PER_TOKEN.read(law[name]) for name in ("input", "output"))
    return law, DURATION.read(law["base"]) + per_in * _MEAN_TOKENS_IN + per_out * mean_tokens()


def scaled(
    fitted: Fitted, observed: Observed, loads: Sequence[Load], duration_s: float
) -> tuple[Fitted, float]:
    """Return the fit with llama.cpp's law of service times the factor that fits best, and the factor.

    Parameters
    ----------
    fitted
        As found alone; the rates of the loads stay as they are in it.
    observed
        Of the calibrating loads.
    loads
        These loads.
    duration_s
        Of sending.
    """
    from scipy.optimize import minimize_scalar

    def of(factor: float) -> Fitted:
        law = fitted.llama | {
            name: quantity.write(float(f"{quantity.read(fitted.llama[name]) * factor:.6g}"))
            for name, quantity in (("base", DURATION), ("input", TIME_PER_TOKEN), ("output", TIME_PER_TOKEN))
        }
        return fitted._replace(llama=law)

    def off(factor: float) -> float:
        return distance("llama", of(factor), observed, loads, duration_s)

    found = minimize_scalar(off, bounds=(0.5, 2.0), method="bounded", options={"xatol": 0.002})
    factor = float(f"{found.x:.4g}")
    return of(factor), factor


def start_transformers(
    one: Mapping[str, float], many: Mapping[str, float], users: int, tokens: int
) -> Fitted:
    """Return a first guess from one client's figures and those of many: the others' parameters stand for nothing.

    Parameters
    ----------
    one, many
        Figures of a closed loop with one client, and with ``users``.
    users, tokens
        Clients of the second; tokens of each answer in both.
    """
    alone_s, together_s = (
        max((each["latency_s_p50"] - each["first_token_s_p50"]) / (tokens - 1), _LEAST_S)
        for each in (one, many)
    )
    sequence_s = max((together_s - alone_s) / (users - 1), _LEAST_S)
    base_s = max(alone_s - sequence_s, _LEAST_S)
    prefill_s = 1e-4
    overhead_s = max(one["first_token_s_p50"] - base_s - prefill_s * _MEAN_TOKENS_IN, _LEAST_S)
    step = {"base": base_s, "prefill": prefill_s, "sequence": sequence_s}
    per_s = many["throughput_per_s"] * tokens / mean_tokens()
    return Fitted({}, 1.0, 1.0, 0.0, overhead_s, step, per_s)


def fit_transformers(fitted: Fitted, observed: Observed, loads: Sequence[Load], duration_s: float) -> Fitted:
    """Return the fit with transformers' four parameters moved to where they fit best (Nelder and Mead, logarithms).

    Parameters
    ----------
    fitted
        The first guess.
    observed
        Of the calibrating loads.
    loads
        These loads.
    duration_s
        Of sending.
    """
    from scipy.optimize import minimize

    names = ("base", "prefill", "sequence")

    def of(logs: Sequence[float]) -> Fitted:
        overhead_s, *step = (float(f"{exp(x):.5g}") for x in logs)
        return fitted._replace(overhead_s=overhead_s, step_s=dict(zip(names, step, strict=True)))

    def off(logs: Sequence[float]) -> float:
        return distance("transformers", of(logs), observed, loads, duration_s)

    start = np.array([log(x) for x in (fitted.overhead_s, *(fitted.step_s[name] for name in names))])
    simplex = np.vstack([start, start + 0.2 * np.eye(len(start))])
    found = minimize(
        off,
        start,
        method="Nelder-Mead",
        options={"maxfev": 120, "xatol": 0.005, "fatol": 1e-4, "initial_simplex": simplex},
    )
    return of(found.x)


def distance(
    server: str, fitted: Fitted, observed: Observed, loads: Sequence[Load], duration_s: float
) -> float:
    """Return the sum of squared logarithms of simulated over measured figures, over all loads and their figures.

    Each figure is the mean over replications, the simulated ones being those with the measured ones' requests.
    """
    terms = []
    for load in loads:
        scenario = load_scenario(server, load, fitted, duration_s)
        measured = observed[load.name]
        mine = [figures(simulated(scenario, number), scenario, inf) for number in range(len(measured))]
        for name in _COMPARED:
            there, here = _mean(measured, name), _mean(mine, name)
            if isfinite(there) and isfinite(here) and there > 0.0 and here > 0.0:
                terms.append(log(here / there) ** 2)
    return fsum(terms)


def _mean(rows: Sequence[Mapping[str, float]], name: str) -> float:
    return fsum(row[name] for row in rows) / len(rows)
