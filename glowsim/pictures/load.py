"""The standard load, the simulated agent that meets it, and what is read off a run.

Every family sees the same forty minutes, at a rate that suits it: a base, a ramp to four times that, a step of
the same height, and a burst of one minute at ten times the base. An instance takes 30 s to start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from glowsim import build, results
from glowsim.results import Tables
from glowsim.scenario import Scenario

__all__ = [
    "BURST_S", "CENTRES_S", "DURATION_S", "RAMP_S", "STEP_S", "arrivals", "during", "mean", "per_second",
    "quantile", "run", "share",
]  # fmt: skip

Floats = npt.NDArray[np.float64]
Span = tuple[float, float]

DURATION_S: Final = 2400.0
RAMP_S: Final[Span] = (180.0, 540.0)
_TOP_S: Final[Span] = (540.0, 720.0)
STEP_S: Final[Span] = (1200.0, 1560.0)
BURST_S: Final[Span] = (2040.0, 2100.0)
_RAMP_PIECES: Final = 18

_BIN_S: Final = 30.0
_EDGES_S: Final = np.arange(0.0, DURATION_S + 1.0, _BIN_S)
CENTRES_S: Final[Floats] = (_EDGES_S[:-1] + _EDGES_S[1:]) / 2
"""Middles of the 30 s over which everything is averaged."""


def _times_base() -> list[tuple[float, float]]:
    """Return (moment, multiple of the base rate from then on)."""
    begin_s, end_s = RAMP_S
    piece_s = (end_s - begin_s) / _RAMP_PIECES
    ramp = [(begin_s + i * piece_s, 1.0 + 3.0 * (i + 0.5) / _RAMP_PIECES) for i in range(_RAMP_PIECES)]
    spikes = [(_TOP_S, 4.0), (STEP_S, 4.0), (BURST_S, 10.0)]
    return [(0.0, 1.0), *ramp, *(step for (a, b), times in spikes for step in ((a, times), (b, 1.0)))]


def arrivals(base_per_s: float, between: Span = (0.0, DURATION_S), **more: Any) -> dict[str, Any]:
    """Return the standard load as a workload of a scenario.

    Parameters
    ----------
    base_per_s
        The base rate, in requests per second.
    between
        When these requests come; outside of it there are none.
    more
        Further keys of the workload.

    >>> [step for step in arrivals(2.0)["steps"] if step["at"] in ("0s", "1200s", "1560s", "2040s")]
    ... # doctest: +NORMALIZE_WHITESPACE
    [{'at': '0s', 'rate': '2/s'}, {'at': '1200s', 'rate': '8/s'}, {'at': '1560s', 'rate': '2/s'},
     {'at': '2040s', 'rate': '20/s'}]
    """
    begin_s, end_s = between
    steps = [(at_s, times) for at_s, times in _times_base() if begin_s <= at_s < end_s]
    steps = [(0.0, 0.0), *steps] if begin_s else steps
    steps = [*steps, (end_s, 0.0)] if end_s < DURATION_S else steps
    written = [{"at": f"{at_s:g}s", "rate": f"{base_per_s * times:g}/s"} for at_s, times in steps]
    return {"kind": "piecewise", "steps": written, "tokens_in": 500, "tokens_out": 200, **more}


def run(
    agent: Mapping[str, Any],
    workload: Sequence[Mapping[str, Any]],
    controllers: Mapping[str, Any],
    faults: Sequence[Mapping[str, Any]] = (),
    **more: Any,
) -> Tables:
    """Run one replication of an agent under a load, always with the same seed, and return its tables.

    Parameters
    ----------
    agent
        Keys of the fleet's one entry, beside its name, and its model where that is not the only one, ``m``.
    workload, controllers, faults
        As a scenario writes them.
    more
        Further keys of the scenario, such as ``quality``, or others in place of these.
    """
    scenario = Scenario.model_validate(
        {
            "title": "standard load",
            "question": "What do controllers make of a ramp, a step and a burst?",
            "seed": 1,
            "duration": f"{DURATION_S:g}s",
            "drain": "10m",
            "models": {"m": {"input": "$1/1M", "output": "$4/1M"}},
            "fleet": [{"agent": "agent", "model": "m", "startup": "30s", **agent}],
            "workload": workload,
            "controllers": controllers,
            "faults": [{"agent": "agent", **fault} for fault in faults],
            **more,
        }
    )
    built = build.replication(scenario, 0)
    built.world.start()
    built.world.run(scenario.duration_s + scenario.drain_s)
    answers = built.world.answers
    return results.fold(built.journal.recording(), scenario, None if answers is None else answers.failures)


# --- reading --------------------------------------------------------------------------------------------


def during(t_s: Floats, span: Span) -> npt.NDArray[np.bool_]:
    """Return which moments lie in a span, its end excluded."""
    inside: npt.NDArray[np.bool_] = (t_s >= span[0]) & (t_s < span[1])
    return inside


def per_second(t_s: Floats) -> Floats:
    """Return how many of these moments there are a second, in each bin."""
    return np.histogram(t_s, _EDGES_S)[0] / _BIN_S


def share(t_s: Floats, flags: npt.NDArray[np.bool_]) -> Floats:
    """Return which share of what happened in each bin is flagged; nan where nothing happened."""
    all_of_them, flagged = (np.histogram(each, _EDGES_S)[0] for each in (t_s, t_s[flags]))
    return np.where(all_of_them > 0, flagged / np.maximum(all_of_them, 1), np.nan)


def mean(t_s: Floats, values: Floats) -> Floats:
    """Return the mean of the values of each bin; nan where there are none."""
    counts, sums = np.histogram(t_s, _EDGES_S)[0], np.histogram(t_s, _EDGES_S, weights=values)[0]
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def quantile(t_s: Floats, values: Floats, q: float) -> Floats:
    """Return a quantile of the values of each bin; nan where there are none."""
    bins = np.searchsorted(_EDGES_S, t_s, side="right") - 1
    parts = [values[bins == number] for number in range(len(CENTRES_S))]
    return np.array([float(np.quantile(part, q)) if len(part) else np.nan for part in parts])
